//! The shard's UDP socket: receives in batches with GRO, sends runs with GSO. Knows nothing of what it carries.

use std::io::{self, IoSliceMut};
use std::net::SocketAddr;

use arrayvec::ArrayVec;
use mio::net::UdpSocket;
use quinn_udp::{RecvMeta, Transmit, UdpSockRef, UdpSocketState};

use super::batch::{Burst, Route, SendBatch};
use super::receive_drops::ReceiveDrops;

/// Buffers filled by one receive call.
pub const RECEIVE_BUFFERS: usize = 16;
/// Longest datagram looked at, bytes: more than any path MTU WebRTC uses.
const MAX_DATAGRAM: usize = 2048;
/// Most that GRO puts into one buffer, bytes.
const MAX_COALESCED: usize = 64 * 1024;

/// What sending did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sent {
    /// Datagrams the kernel took.
    pub packets: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// System calls.
    pub calls: u64,
    /// Datagrams it would not take.
    pub dropped: u64,
    /// Of these: because the socket's buffer was full.
    pub full: u64,
}

/// A bound UDP socket.
pub struct Socket {
    socket: UdpSocket,
    state: UdpSocketState,
    /// Bound to all addresses: answers must name the one they come from.
    any_address: bool,
    receive_drops: ReceiveDrops,
}

impl Socket {
    /// Binds to `addr` with kernel buffers of `buffer` bytes each way, as far as the system allows.
    ///
    /// # Errors
    /// If the address cannot be bound.
    pub fn bind(addr: SocketAddr, buffer: usize) -> io::Result<Self> {
        let socket = UdpSocket::bind(addr)?;
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        // The system's limit may be lower than what is asked for; it then gives what it has.
        let _ = state.set_send_buffer_size(UdpSockRef::from(&socket), buffer);
        let _ = state.set_recv_buffer_size(UdpSockRef::from(&socket), buffer);
        let receive_drops = ReceiveDrops::of(&socket);
        Ok(Self { socket, state, any_address: addr.ip().is_unspecified(), receive_drops })
    }

    /// The smaller of its kernel buffers, bytes; `None` where the system does not tell.
    #[must_use]
    pub fn buffer_size(&self) -> Option<usize> {
        let socket = UdpSockRef::from(&self.socket);
        Some(
            self.state
                .recv_buffer_size(socket)
                .ok()?
                .min(self.state.send_buffer_size(UdpSockRef::from(&self.socket)).ok()?),
        )
    }

    /// Datagrams the kernel dropped because nobody took them in time, since the socket was bound. Reads a file.
    #[must_use]
    pub fn receive_drops(&self) -> u64 {
        self.receive_drops.read()
    }

    /// The address bound.
    ///
    /// # Errors
    /// If the system does not tell.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// For registration with a poll.
    pub fn source(&mut self) -> &mut UdpSocket {
        &mut self.socket
    }

    /// Datagrams one send call takes.
    #[must_use]
    pub fn max_segments(&self) -> usize {
        self.state.max_gso_segments()
    }

    /// Sends all of `batch` and clears it.
    pub fn send(&self, batch: &mut SendBatch) -> Sent {
        let mut sent = Sent::default();
        batch.join();
        for burst in batch.bursts() {
            // Offload may turn out not to work on the first try; the rest then goes one by one.
            if burst.count <= self.state.max_gso_segments() {
                self.transmit(burst, &mut sent);
            } else {
                for bytes in burst.bytes.chunks(burst.segment) {
                    self.transmit(Burst { bytes, count: 1, ..burst }, &mut sent);
                }
            }
        }
        batch.clear();
        sent
    }

    fn transmit(&self, burst: Burst<'_>, sent: &mut Sent) {
        let transmit = Transmit {
            destination: burst.route.to,
            ecn: None,
            contents: burst.bytes,
            segment_size: (burst.count > 1).then_some(burst.segment),
            src_ip: burst.route.from,
        };
        sent.calls += 1;
        // A full socket buffer drops media rather than delay it; anything else is the path's trouble.
        match self.state.try_send(UdpSockRef::from(&self.socket), &transmit) {
            Ok(()) => {
                sent.packets += burst.count as u64;
                sent.bytes += burst.bytes.len() as u64;
            }
            Err(error) => {
                sent.dropped += burst.count as u64;
                if error.kind() == io::ErrorKind::WouldBlock {
                    sent.full += burst.count as u64;
                }
            }
        }
    }
}

/// Buffers for receiving.
pub struct Inbox {
    storage: Vec<u8>,
    buffer_len: usize,
    metas: [RecvMeta; RECEIVE_BUFFERS],
    any_address: bool,
}

impl Inbox {
    /// Buffers that fit what `socket` coalesces.
    #[must_use]
    pub fn new(socket: &Socket) -> Self {
        let buffer_len = (socket.state.gro_segments() * MAX_DATAGRAM).clamp(MAX_DATAGRAM, MAX_COALESCED);
        Self {
            storage: vec![0; buffer_len * RECEIVE_BUFFERS],
            buffer_len,
            metas: Default::default(),
            any_address: socket.any_address,
        }
    }

    /// Receives what waits; returns how many buffers were filled.
    ///
    /// # Errors
    /// `WouldBlock` if nothing waits.
    pub fn receive(&mut self, socket: &Socket) -> io::Result<usize> {
        let chunks = self.storage.chunks_exact_mut(self.buffer_len);
        let mut slices: ArrayVec<IoSliceMut<'_>, RECEIVE_BUFFERS> = chunks.map(IoSliceMut::new).collect();
        socket.state.recv(UdpSockRef::from(&socket.socket), &mut slices, &mut self.metas)
    }

    /// The datagrams of the first `filled` buffers with their sources.
    pub fn datagrams(&mut self, filled: usize) -> impl Iterator<Item = (Route, &mut [u8])> {
        let any_address = self.any_address;
        let buffers = self.storage.chunks_exact_mut(self.buffer_len).zip(&self.metas).take(filled);
        buffers.flat_map(move |(buffer, meta)| {
            let route = Route { to: meta.addr, from: meta.dst_ip.filter(|_| any_address) };
            let received = buffer.get_mut(..meta.len).unwrap_or_default();
            received.chunks_mut(meta.stride.max(1)).map(move |datagram| (route, datagram))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_run_leaves_with_one_call_and_arrives_as_datagrams() {
        let from = Socket::bind("127.0.0.1:0".parse().unwrap(), 1 << 20).unwrap();
        let to = Socket::bind("127.0.0.1:0".parse().unwrap(), 1 << 20).unwrap();
        let mut batch = SendBatch::new(from.max_segments());
        let sizes = [700usize, 700, 700, 300, 900];
        for (i, size) in sizes.iter().enumerate() {
            let byte = u8::try_from(i).unwrap();
            let write = |buffer: &mut Vec<u8>| {
                buffer.resize(buffer.len() + size, byte);
                Ok::<_, ()>(())
            };
            batch.push(0, to.local_addr().unwrap(), write).unwrap();
        }
        let sent = from.send(&mut batch);
        assert_eq!((sent.packets, sent.bytes, sent.dropped), (5, 3300, 0));
        assert_eq!(sent.calls, if from.max_segments() > 1 { 2 } else { 5 });
        assert!(batch.is_empty());

        let (mut inbox, mut got) = (Inbox::new(&to), Vec::new());
        let deadline = Instant::now() + Duration::from_secs(5);
        while got.len() < sizes.len() && Instant::now() < deadline {
            let filled = inbox.receive(&to).unwrap_or(0);
            for (source, datagram) in inbox.datagrams(filled) {
                assert_eq!(source, from.local_addr().unwrap().into());
                got.push((datagram.len(), usize::from(datagram[0])));
            }
        }
        let expected: Vec<_> = sizes.iter().copied().enumerate().map(|(i, size)| (size, i)).collect();
        assert_eq!(got, expected);
    }

    #[test]
    fn an_answer_comes_from_the_address_that_was_asked() {
        let node = Socket::bind("0.0.0.0:0".parse().unwrap(), 1 << 20).unwrap();
        let port = node.local_addr().unwrap().port();
        // Linux gives every host the whole of 127/8; the kernel alone would answer from 127.0.0.1.
        let client = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let asked = SocketAddr::from(([127, 0, 0, 7], port));
        client.send_to(b"ask", asked).unwrap();

        let (mut inbox, mut batch) = (Inbox::new(&node), SendBatch::new(node.max_segments()));
        let deadline = Instant::now() + Duration::from_secs(5);
        while batch.is_empty() && Instant::now() < deadline {
            let filled = inbox.receive(&node).unwrap_or(0);
            for (route, _) in inbox.datagrams(filled) {
                let write = |buffer: &mut Vec<u8>| {
                    buffer.extend_from_slice(b"answer");
                    Ok::<_, ()>(())
                };
                batch.push(0, route, write).unwrap();
            }
        }
        node.send(&mut batch);
        assert_eq!(client.recv_from(&mut [0; 16]).unwrap(), (6, asked));
    }
}
