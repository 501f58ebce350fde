//! A client's UDP socket: batches in, kernel receive timestamps, one datagram a packet out.

use std::cell::RefCell;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::AsFd;

use nix::sys::socket::{setsockopt, sockopt};
use quinn_udp::{BATCH_SIZE, RecvMeta, UdpSockRef, UdpSocketState};
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// Largest datagram taken, bytes; an SFU stays below 1,500.
const DATAGRAM_LEN: usize = 2048;
/// Socket buffers asked for, bytes; the kernel may give less.
const SOCKET_BUFFER: usize = 2 * 1024 * 1024;

thread_local! {
    /// Buffers of each socket's own would push one another out of the caches when there are a thousand sockets.
    static BATCH: RefCell<Batch> = RefCell::new(Batch::new());
}

/// Datagrams received together.
pub(crate) struct Batch {
    buffers: Vec<[u8; DATAGRAM_LEN]>,
    metas: [RecvMeta; BATCH_SIZE],
}

impl Batch {
    fn new() -> Self {
        Self { buffers: vec![[0; DATAGRAM_LEN]; BATCH_SIZE], metas: [RecvMeta::default(); BATCH_SIZE] }
    }

    /// Lends this thread's; **not within another use of it**.
    pub(crate) fn lend<T>(receive: impl FnOnce(&mut Self) -> T) -> T {
        BATCH.with_borrow_mut(receive)
    }

    /// Datagram `index`: sender, kernel receive time in nanoseconds of Unix time, bytes.
    pub(crate) fn datagram(&self, index: usize) -> Option<(SocketAddr, Option<u64>, &[u8])> {
        let (meta, buffer) = (self.metas.get(index)?, self.buffers.get(index)?);
        let at = meta.timestamp.and_then(|t| u64::try_from(t.as_nanos()).ok());
        Some((meta.addr, at, buffer.get(..meta.len)?))
    }
}

/// A bound socket.
pub(crate) struct MediaSocket {
    socket: std::net::UdpSocket,
    /// The same, where arrivals wake its task; without, an arrival wakes nobody, which costs receiver and sender less.
    waking: Option<UdpSocket>,
    state: UdpSocketState,
    local: SocketAddr,
}

impl MediaSocket {
    /// Binds a free port of `bind`.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) async fn bind(bind: SocketAddr) -> io::Result<Self> {
        let waking = UdpSocket::bind(bind).await?;
        let socket = std::net::UdpSocket::from(waking.as_fd().try_clone_to_owned()?);
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        // A remote receiver gets single packets; coalesced ones would make the sender look cheaper than it is.
        setsockopt(&socket, sockopt::UdpGroSegment, &false)?;
        state.set_recv_buffer_size(UdpSockRef::from(&socket), SOCKET_BUFFER)?;
        let local = socket.local_addr()?;
        Ok(Self { socket, waking: Some(waking), state, local })
    }

    /// Where it is bound.
    pub(crate) fn local(&self) -> SocketAddr {
        self.local
    }

    /// From now on somebody looks at it without being woken.
    pub(crate) fn stop_waking(&mut self) {
        self.waking = None;
    }

    /// Waits until something can be received; does not wait when nothing wakes. Cancel safe.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        match &self.waking {
            Some(waking) => waking.readable().await,
            None => Ok(()),
        }
    }

    /// Receives a batch; how many came, 0 when there is nothing.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn receive(&self, batch: &mut Batch) -> io::Result<usize> {
        let Batch { buffers, metas } = batch;
        let mut slices: Vec<IoSliceMut<'_>> = buffers.iter_mut().map(|b| IoSliceMut::new(b)).collect();
        let mut read = || self.state.recv(UdpSockRef::from(&self.socket), &mut slices, metas);
        let read = match &self.waking {
            Some(waking) => waking.try_io(Interest::READABLE, read),
            None => read(),
        };
        match read {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            // A peer's ICMP answer to something sent earlier.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(0),
            other => other,
        }
    }

    /// Sends one datagram; what the socket does not take now is lost, as on a network.
    pub(crate) fn send(&self, to: SocketAddr, datagram: &[u8]) {
        let _ = self.socket.send_to(datagram, to);
    }
}
