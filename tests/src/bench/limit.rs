//! What forwarding cannot do without: sealing each packet for each subscriber and handing it to the kernel. Not the
//! node's code; the same stream, the same runs of packets, nothing else.

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
use crate::client::{Batch, MediaSocket};

/// RTP header with extensions, bytes.
const HEADER: usize = 28;
/// A packet's number in it, bytes.
const NUMBER: usize = 8;
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
/// Looks at each socket, in so many parts of it: the load client's looks are spread too.
const LOOK: Duration = Duration::from_millis(50);
const LOOKS: u32 = 10;

/// What it costs here.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Bound {
    /// CPU time of the sending thread a packet, nanoseconds.
    pub nanos_per_packet: f64,
    /// What sealing alone takes of it.
    pub seal_nanos_per_packet: f64,
}

/// Measures it once, with so many subscribers; blocks the thread.
///
/// # Errors
/// No sockets, or threads cannot be pinned.
pub async fn bound(subscribers: u32, window: Duration) -> Result<Bound> {
    let mut sinks = Vec::new();
    for _ in 0..subscribers {
        sinks.push(Sink::bind().await?);
    }
    let mut flows: Vec<Flow> = sinks.iter().map(Sink::flow).collect::<Result<_>>()?;
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let receiving = scope.spawn(|| on_cpu(LOAD_CPU, || receive(&sinks, &done)));
        let sending = scope.spawn(|| {
            on_cpu(SERVER_CPU, || {
                let seal_nanos_per_packet = seal_alone(&mut flows)?;
                Ok(Bound { nanos_per_packet: send(&mut flows, window)?, seal_nanos_per_packet })
            })
        });
        let sent = sending.join();
        done.store(true, Ordering::Release);
        receiving.join().map_err(|_| anyhow!("the receiving thread panicked"))??;
        sent.map_err(|_| anyhow!("the sending thread panicked"))?
    })
}

fn on_cpu<T>(cpu: usize, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    sched_setaffinity(Pid::from_raw(0), &set).context("pinning a thread")?;
    work()
}

/// A subscriber: the load client's socket, and what opens each packet. What the other CPU is busy with is part of what
/// sending costs: it is interrupted, and shares the memory.
struct Sink {
    socket: MediaSocket,
    key: [u8; 16],
    opening: LessSafeKey,
}

impl Sink {
    async fn bind() -> Result<Self> {
        let mut socket = MediaSocket::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await?;
        socket.stop_waking();
        let mut key = [0; 16];
        aws_lc_rs::rand::fill(&mut key).ok().context("no randomness")?;
        Ok(Self { socket, key, opening: gcm(&key)? })
    }

    /// The way to it.
    fn flow(&self) -> Result<Flow> {
        Ok(Flow { to: self.socket.local(), key: gcm(&self.key)?, counter: 0 })
    }

    /// Takes what came and opens it.
    fn look(&self) -> Result<()> {
        Batch::lend(|batch| {
            loop {
                let came = self.socket.receive(batch)?;
                for (_, _, datagram) in (0..came).filter_map(|index| batch.datagram(index)) {
                    let mut packet = datagram.to_vec();
                    open(&self.opening, &mut packet)?;
                }
                if came == 0 {
                    return Ok(());
                }
            }
        })
    }
}

/// Takes what comes, until it is `done`.
fn receive(sinks: &[Sink], done: &AtomicBool) -> Result<()> {
    let part = sinks.len().div_ceil(LOOKS as usize).max(1);
    for some in sinks.chunks(part).cycle().take_while(|_| !done.load(Ordering::Acquire)) {
        let begun = Instant::now();
        some.iter().try_for_each(Sink::look)?;
        thread::sleep((LOOK / LOOKS).saturating_sub(begun.elapsed()));
    }
    Ok(())
}

fn gcm(key: &[u8; 16]) -> Result<LessSafeKey> {
    Ok(LessSafeKey::new(UnboundKey::new(&AES_128_GCM, key).ok().context("no key")?))
}

/// The number of a packet, at the head of it, is its nonce.
fn nonce(number: [u8; NUMBER]) -> Nonce {
    let mut nonce = [0; 12];
    nonce[12 - NUMBER..].copy_from_slice(&number);
    Nonce::assume_unique_for_key(nonce)
}

fn open(key: &LessSafeKey, packet: &mut [u8]) -> Result<()> {
    let number = *packet.first_chunk().context("too short")?;
    let (header, body) = packet.split_at_mut_checked(HEADER).context("too short")?;
    key.open_in_place(nonce(number), Aad::from(&*header), body).ok().context("not opened")?;
    Ok(())
}

/// One subscriber's.
struct Flow {
    to: SocketAddr,
    key: LessSafeKey,
    counter: u64,
}

impl Flow {
    /// Copies a packet into `out` and seals it there.
    fn seal(&mut self, plain: &[u8], out: &mut [u8]) -> Result<()> {
        self.counter += 1;
        let number = self.counter.to_be_bytes();
        let (header, body) = out.split_at_mut_checked(HEADER).context("too short")?;
        let (plain_header, plain_body) = plain.split_at_checked(HEADER).context("too short")?;
        header.copy_from_slice(plain_header);
        *header.first_chunk_mut().context("too short")? = number;
        let (body, tag) = body.split_at_mut_checked(plain_body.len()).context("too short")?;
        body.copy_from_slice(plain_body);
        let sealed = self.key.seal_in_place_separate_tag(nonce(number), Aad::from(&*header), body);
        tag.copy_from_slice(sealed.ok().context("not sealed")?.as_ref());
        Ok(())
    }
}

/// Sends the stream to everybody for a while; CPU time of this thread a packet, nanoseconds.
fn send(flows: &mut [Flow], window: Duration) -> Result<f64> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
    let (video, audio) = ([0x5a_u8; VIDEO - TAG], [0x5a_u8; AUDIO - TAG]);
    let mut buffer = [0; FRAME * VIDEO];
    let (begun, mut packets, mut cpu) = (Instant::now(), 0_u32, Duration::ZERO);
    let rounds = PATTERN.iter().cycle().zip(0_u32..);
    for ((frames, sounds), number) in rounds.take_while(|_| begun.elapsed() < window) {
        thread::sleep((begun + number * ROUND).saturating_duration_since(Instant::now()));
        let before = thread_time()?;
        for flow in &mut *flows {
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
fn seal_alone(flows: &mut [Flow]) -> Result<f64> {
    let (video, audio) = ([0x5a_u8; VIDEO - TAG], [0x5a_u8; AUDIO - TAG]);
    let (mut large, mut small) = ([0; VIDEO], [0; AUDIO]);
    let (before, mut packets) = (thread_time()?, 0_u32);
    for (frames, sounds) in PATTERN.iter().cycle().take(PATTERN.len() * 10) {
        for flow in &mut *flows {
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
        let key = [3; 16];
        let mut flow =
            Flow { to: SocketAddr::from((Ipv4Addr::LOCALHOST, 9)), key: gcm(&key).unwrap(), counter: 0x0102_0304_0506 };
        let plain = [7; HEADER + 10];
        let mut out = [0; HEADER + 10 + TAG];
        flow.seal(&plain, &mut out).unwrap();
        assert_eq!(
            (out[..NUMBER].to_vec(), &out[NUMBER..HEADER]),
            (0x0102_0304_0507_u64.to_be_bytes().to_vec(), &plain[NUMBER..HEADER])
        );
        open(&gcm(&key).unwrap(), &mut out).unwrap();
        assert_eq!(out[..HEADER + 10][HEADER..], plain[HEADER..]);
        assert!(open(&gcm(&key).unwrap(), &mut out).is_err());
    }
}
