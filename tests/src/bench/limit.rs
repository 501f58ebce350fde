//! What forwarding cannot do without: sealing each packet for each subscriber and handing it to the kernel. Not the
//! node's code; the same stream, the same runs of packets, nothing else.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;
use quinn_udp::{Transmit, UdpSockRef, UdpSocketState};
use serde::Serialize;

use super::servers::{LOAD_CPU, SERVER_CPU};
use crate::statistics::median;

/// RTP header with extensions, bytes.
const HEADER: usize = 28;
/// GCM's tag, bytes.
const TAG: usize = 16;
/// A packet of video as it is sent, bytes.
const VIDEO: usize = 1128;
/// Packets of a frame: 1.5 Mb/s in packets of that size, 30 frames a second.
const FRAME: usize = 6;
/// A packet of audio as it is sent, bytes.
const AUDIO: usize = 164;
/// Between two rounds of sending.
const ROUND: Duration = Duration::from_millis(10);
/// Each of 10 rounds (100 ms): frames to send, then packets of audio. 30 frames and 50 packets a second.
const PATTERN: [(usize, usize); 10] = [(1, 1), (0, 0), (0, 1), (1, 0), (0, 1), (0, 0), (1, 1), (0, 0), (0, 1), (0, 0)];
/// Receive buffers, bytes.
const RECEIVE_BUFFER: usize = 1 << 20;

/// What it costs here.
#[derive(Debug, Serialize)]
pub struct Bound {
    /// To so many sockets.
    pub subscribers: u32,
    /// CPU time of the sending thread a packet, nanoseconds: the median of the runs.
    pub nanos_per_packet: f64,
    /// What sealing alone takes of it.
    pub seal_nanos_per_packet: f64,
    /// The runs.
    pub runs: Vec<f64>,
}

/// Measures it; blocks the thread.
///
/// # Errors
/// No sockets, or threads cannot be pinned.
pub fn bound(subscribers: u32, runs: u32, window: Duration) -> Result<Bound> {
    let sinks: Vec<UdpSocket> = (0..subscribers).map(|_| sink()).collect::<io::Result<_>>()?;
    let addresses: Vec<SocketAddr> = sinks.iter().map(UdpSocket::local_addr).collect::<io::Result<_>>()?;
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let emptying = scope.spawn(|| on_cpu(LOAD_CPU, || empty(&sinks, &done)));
        let sent = scope
            .spawn(|| {
                on_cpu(SERVER_CPU, || {
                    let each = (0..runs).map(|_| send(&addresses, window)).collect::<Result<Vec<f64>>>()?;
                    Ok((each, seal_alone(subscribers)?))
                })
            })
            .join();
        done.store(true, Ordering::Release);
        emptying.join().map_err(|_| anyhow!("the receiving thread panicked"))??;
        let (runs, seal_nanos_per_packet) = sent.map_err(|_| anyhow!("the sending thread panicked"))??;
        Ok(Bound { subscribers, nanos_per_packet: median(runs.clone()), seal_nanos_per_packet, runs })
    })
}

fn sink() -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.set_nonblocking(true)?;
    // As the load client's: single packets, however they were sent.
    nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::UdpGroSegment, &false)?;
    nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::RcvBuf, &RECEIVE_BUFFER)?;
    Ok(socket)
}

fn on_cpu<T>(cpu: usize, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    sched_setaffinity(Pid::from_raw(0), &set).context("pinning a thread")?;
    work()
}

/// Takes what comes, so that sockets do not fill.
fn empty(sinks: &[UdpSocket], done: &AtomicBool) -> Result<()> {
    let mut buffer = [0; 2048];
    while !done.load(Ordering::Acquire) {
        let begun = Instant::now();
        for socket in sinks {
            while socket.recv(&mut buffer).is_ok() {}
        }
        thread::sleep((4 * ROUND).saturating_sub(begun.elapsed()));
    }
    Ok(())
}

/// One subscriber's.
struct Flow {
    to: SocketAddr,
    key: LessSafeKey,
    counter: u64,
}

impl Flow {
    fn to(address: SocketAddr) -> Result<Self> {
        let mut bytes = [0; 16];
        aws_lc_rs::rand::fill(&mut bytes).ok().context("no randomness")?;
        let key = UnboundKey::new(&AES_128_GCM, &bytes).ok().context("no key")?;
        Ok(Self { to: address, key: LessSafeKey::new(key), counter: 0 })
    }

    /// Copies a packet into `out` and seals it there.
    fn seal(&mut self, plain: &[u8], out: &mut [u8]) -> Result<()> {
        self.counter += 1;
        let mut nonce = [0; 12];
        let [.., a, b, c, d] = self.counter.to_be_bytes();
        nonce[8..].copy_from_slice(&[a, b, c, d]);
        let (header, body) = out.split_at_mut_checked(HEADER).context("too short")?;
        let (plain_header, plain_body) = plain.split_at_checked(HEADER).context("too short")?;
        header.copy_from_slice(plain_header);
        let (body, tag) = body.split_at_mut_checked(plain_body.len()).context("too short")?;
        body.copy_from_slice(plain_body);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let sealed = self.key.seal_in_place_separate_tag(nonce, Aad::from(&*header), body);
        tag.copy_from_slice(sealed.ok().context("not sealed")?.as_ref());
        Ok(())
    }
}

/// Sends the stream to everybody for a while; CPU time of this thread a packet, nanoseconds.
fn send(addresses: &[SocketAddr], window: Duration) -> Result<f64> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
    let mut flows: Vec<Flow> = addresses.iter().map(|to| Flow::to(*to)).collect::<Result<_>>()?;
    let (video, audio) = ([0x5a_u8; VIDEO - TAG], [0x5a_u8; AUDIO - TAG]);
    let mut buffer = [0; FRAME * VIDEO];
    let (begun, mut packets, mut cpu) = (Instant::now(), 0_u32, Duration::ZERO);
    let rounds = PATTERN.iter().cycle().zip(0_u32..);
    for ((frames, sounds), number) in rounds.take_while(|_| begun.elapsed() < window) {
        thread::sleep((begun + number * ROUND).saturating_duration_since(Instant::now()));
        let before = thread_time()?;
        for flow in &mut flows {
            for (plain, run, len) in [(video.as_slice(), frames * FRAME, VIDEO), (&audio, *sounds, AUDIO)] {
                if run == 0 {
                    continue;
                }
                let out = buffer.get_mut(..run * len).context("a run longer than a frame")?;
                for packet in out.chunks_exact_mut(len) {
                    flow.seal(plain, packet)?;
                    packets += 1;
                }
                let segment_size = (run > 1).then_some(len);
                let transmit = Transmit { destination: flow.to, ecn: None, contents: out, segment_size, src_ip: None };
                state.try_send(UdpSockRef::from(&socket), &transmit)?;
            }
        }
        cpu += thread_time()?.saturating_sub(before);
    }
    Ok(cpu.as_secs_f64() * 1e9 / f64::from(packets.max(1)))
}

/// The same without sending: CPU time a packet, nanoseconds.
fn seal_alone(subscribers: u32) -> Result<f64> {
    let nowhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 9));
    let mut flows: Vec<Flow> = (0..subscribers).map(|_| Flow::to(nowhere)).collect::<Result<_>>()?;
    let (video, audio) = ([0x5a_u8; VIDEO - TAG], [0x5a_u8; AUDIO - TAG]);
    let (mut large, mut small) = ([0; VIDEO], [0; AUDIO]);
    let (before, mut packets) = (thread_time()?, 0_u32);
    for (frames, sounds) in PATTERN.iter().cycle().take(PATTERN.len() * 10) {
        for flow in &mut flows {
            for _ in 0..frames * FRAME {
                flow.seal(&video, &mut large)?;
                packets += 1;
            }
            for _ in 0..*sounds {
                flow.seal(&audio, &mut small)?;
                packets += 1;
            }
        }
    }
    Ok(thread_time()?.saturating_sub(before).as_secs_f64() * 1e9 / f64::from(packets.max(1)))
}

/// CPU time of this thread so far.
fn thread_time() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pattern_is_the_streams_rate() {
        let frames: usize = PATTERN.iter().map(|(frames, _)| frames).sum();
        let sounds: usize = PATTERN.iter().map(|(_, sounds)| sounds).sum();
        assert_eq!((10 * frames, 10 * sounds), (30, 50));
    }

    #[test]
    fn what_is_sealed_opens() {
        let mut flow = Flow::to(SocketAddr::from((Ipv4Addr::LOCALHOST, 9))).unwrap();
        let plain = [7; HEADER + 10];
        let mut out = [0; HEADER + 10 + TAG];
        flow.seal(&plain, &mut out).unwrap();
        assert_eq!(out[..HEADER], plain[..HEADER]);
        let mut nonce = [0; 12];
        nonce[11] = 1;
        let (header, body) = out.split_at_mut(HEADER);
        let opened = flow.key.open_in_place(Nonce::assume_unique_for_key(nonce), Aad::from(&*header), body).unwrap();
        assert_eq!(opened, &plain[HEADER..]);
    }
}
