//! A shard's thread: socket, clock and command queue around the machine. Never blocks but in its poll.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use mio::{Events, Interest, Poll, Token, Waker};
use rtc::crypto::RTCCryptoProvider;
use rtc::crypto::providers::AwsLcRsProvider;

use super::gather::Gather;
use super::load::{LoadMeter, thread_cpu};
use super::rings::{Bell, Rings, mesh};
use super::{Shard, frames};
use crate::media::api::{Command, Event, Fingerprint, ShardConfig, ShardIndex};
use crate::media::dtls::Identities;
use crate::media::socket::{Inbox, RECEIVE_BUFFERS, Socket};

/// Commands that may wait; a full queue makes the control thread wait, not the shard.
const COMMAND_QUEUE: usize = 4096;
/// Receive calls before commands and timers get their turn.
const RECEIVES_PER_TURN: usize = 8;
/// How soon to offer again what the control thread or another shard had no room for.
const RETRY_AFTER: Duration = Duration::from_millis(5);
const SOCKET: Token = Token(0);
const WAKER: Token = Token(1);

/// Reaches a running shard; ends it when dropped.
pub struct ShardHandle {
    commands: Sender<Command>,
    bell: Arc<Bell>,
    thread: Option<JoinHandle<()>>,
    local_addr: SocketAddr,
    fingerprints: [Fingerprint; 2],
}

impl ShardHandle {
    /// Queues a command and wakes the shard. Waits while the queue is full; does nothing once the shard is gone.
    pub fn send(&self, command: Command) {
        if self.commands.send(command).is_ok() {
            self.bell.ring();
        }
    }

    /// The UDP address bound.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// SHA-256 of the certificates the shard shows by turns, for `a=fingerprint`.
    #[must_use]
    pub fn fingerprints(&self) -> [Fingerprint; 2] {
        self.fingerprints
    }

    /// Whether the thread runs.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }
}

impl Drop for ShardHandle {
    fn drop(&mut self) {
        self.send(Command::Stop);
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been reported by the panic hook.
            let _ = thread.join();
        }
    }
}

/// Starts a shard for each channel of `events`, all with the same certificates. A shard's events go to its channel; while that
/// is full they wait in the shard.
///
/// # Errors
/// If an address cannot be bound, the certificate not made or a thread not started; those started end again.
pub fn start(config: &ShardConfig, events: Vec<Sender<Event>>) -> io::Result<Vec<ShardHandle>> {
    let provider: Arc<dyn RTCCryptoProvider> = Arc::new(AwsLcRsProvider::new());
    let identities = Identities::generate(&provider).map_err(io::Error::other)?;
    let mut seed = [0; 8];
    provider.random().fill(&mut seed).map_err(io::Error::other)?;
    let common = Common { config, identities, provider, seed: u64::from_ne_bytes(seed), origin: Instant::now() };
    let seats = ShardIndex::all(events.len()).map(|shard| common.prepare(shard)).collect::<io::Result<Vec<Seat>>>()?;
    let bells: Vec<Arc<Bell>> = seats.iter().map(|seat| seat.bell.clone()).collect();
    let seats = seats.into_iter().zip(mesh(&bells)).zip(events);
    seats.map(|((seat, rings), events)| common.spawn(seat, rings, events)).collect()
}

/// What all shards have in common.
struct Common<'a> {
    config: &'a ShardConfig,
    identities: Identities,
    provider: Arc<dyn RTCCryptoProvider>,
    seed: u64,
    origin: Instant,
}

/// Where a shard will run.
struct Seat {
    shard: ShardIndex,
    socket: Socket,
    poll: Poll,
    bell: Arc<Bell>,
}

impl Common<'_> {
    fn prepare(&self, shard: ShardIndex) -> io::Result<Seat> {
        let mut socket = Socket::bind(self.address(shard)?, self.config.socket_buffer)?;
        warn_of_small_buffers(&socket, self.config.socket_buffer, shard);
        let poll = Poll::new()?;
        poll.registry().register(socket.source(), SOCKET, Interest::READABLE)?;
        let bell = Arc::new(Bell::new(Waker::new(poll.registry(), WAKER)?));
        Ok(Seat { shard, socket, poll, bell })
    }

    fn spawn(&self, seat: Seat, rings: Rings, events: Sender<Event>) -> io::Result<ShardHandle> {
        let Self { config, identities, provider, seed, origin } = self;
        let Seat { shard, socket, poll, bell } = seat;
        let local_addr = socket.local_addr()?;
        let (commands, queue) = bounded(COMMAND_QUEUE);
        let name = format!("shard-{}", shard.0);
        let fingerprints = identities.fingerprints();
        let shard =
            Shard::new(config.max_transports, socket.max_segments(), *seed, identities.clone(), provider.clone())
                .counting_from(*origin)
                .hearing(config.audible);
        let inbox = Inbox::new(&socket);
        let mut turns = Turns {
            shard,
            socket,
            inbox,
            queue,
            events,
            poll,
            rings,
            overdue: false,
            waiting: None,
            readable: false,
            gather: Gather::default(),
            load: LoadMeter::default(),
            receive_drops: 0,
        };
        let thread = thread::Builder::new().name(name).spawn(move || {
            if let Err(error) = turns.run() {
                tracing::error!(%error, "shard ended");
            }
        })?;
        Ok(ShardHandle { commands, bell, thread: Some(thread), local_addr, fingerprints })
    }

    fn address(&self, shard: ShardIndex) -> io::Result<SocketAddr> {
        let first = self.config.bind;
        let port = if first.port() == 0 { Some(0) } else { first.port().checked_add(shard.0.into()) };
        let port = port.ok_or_else(|| io::Error::other("no UDP port left for a shard"))?;
        Ok(SocketAddr::new(first.ip(), port))
    }
}

/// Says once how to get the socket buffers asked for.
fn warn_of_small_buffers(socket: &Socket, asked: usize, shard: ShardIndex) {
    let granted = socket.buffer_size().unwrap_or(usize::MAX);
    if shard == ShardIndex(0) && granted < asked {
        tracing::warn!(
            granted,
            asked,
            "small socket buffers, bursts may get lost: sysctl -w net.core.rmem_max={asked} net.core.wmem_max={asked}"
        );
    }
}

struct Turns {
    shard: Shard,
    socket: Socket,
    inbox: Inbox,
    queue: Receiver<Command>,
    events: Sender<Event>,
    poll: Poll,
    rings: Rings,
    /// Frames wait for room on a ring.
    overdue: bool,
    /// An event the control thread had no room for.
    waiting: Option<Event>,
    /// The socket may have more; the poll tells only of news.
    readable: bool,
    gather: Gather,
    load: LoadMeter,
    /// As last read from the system.
    receive_drops: u64,
}

impl Turns {
    fn run(&mut self) -> io::Result<()> {
        let mut ready = Events::with_capacity(8);
        loop {
            let expected = self.wait(&mut ready)?;
            let began = Instant::now();
            if let Some(load) = self.load.look(began, thread_cpu) {
                // Where nothing flows nothing is dropped, and a look takes longer than all else.
                if !self.shard.is_quiet(began) {
                    self.receive_drops = self.socket.receive_drops();
                }
                self.shard.note_load(began, load, self.receive_drops);
            }
            while let Ok(command) = self.queue.try_recv() {
                if matches!(command, Command::Stop) {
                    send(&mut self.shard, &self.socket);
                    return Ok(());
                }
                self.shard.handle_command(began, command);
            }
            self.take_crossings();
            let found = self.receive();
            let now = Instant::now();
            if self.shard.next_timeout().is_some_and(|at| at <= now) {
                if self.shard.overfills() {
                    send(&mut self.shard, &self.socket);
                }
                self.shard.handle_timeout(now);
            }
            self.cross();
            send(&mut self.shard, &self.socket);
            self.report();
            self.gather.note_turn(began.elapsed(), found || !expected);
        }
    }

    /// Waits until there is something to do. True: there should be datagrams, though nobody told of them.
    fn wait(&mut self, ready: &mut Events) -> io::Result<bool> {
        let (began, transports) = (Instant::now(), self.shard.transport_count());
        let quiet = self.shard.is_quiet(began);
        if let Some(moment) = self.gather.steady(transports, quiet) {
            let patience = self.patience(began, quiet).unwrap_or(moment);
            thread::sleep(patience.min(moment));
            self.readable = true;
            return Ok(patience >= moment);
        }
        let patience = if self.rings.may_sleep() { self.patience(began, quiet) } else { Some(Duration::ZERO) };
        match self.poll.poll(ready, patience) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        self.rings.awake();
        let told = ready.iter().any(|event| event.token() == SOCKET);
        self.readable |= told;
        if told || self.rings.hold_something() {
            let now = Instant::now();
            let quiet = self.shard.is_quiet(now);
            self.gather.note_told(now.saturating_duration_since(began), quiet);
            thread::sleep(self.gather.time(transports, quiet));
        }
        Ok(false)
    }

    /// How long the poll may sleep.
    fn patience(&self, now: Instant, quiet: bool) -> Option<Duration> {
        if self.readable {
            return Some(Duration::ZERO);
        }
        let transports = self.shard.transport_count();
        let until = |at: Instant| self.gather.timer(transports, quiet, at.saturating_duration_since(now));
        let timer = self.shard.next_timeout().map(until);
        let retry = (self.waiting.is_some() || self.overdue).then_some(RETRY_AFTER);
        [timer, retry].into_iter().flatten().min()
    }

    /// Takes what the socket has. True: something.
    fn receive(&mut self) -> bool {
        let mut found = false;
        for _ in 0..RECEIVES_PER_TURN {
            if !self.readable {
                break;
            }
            let Ok(filled) = self.inbox.receive(&self.socket) else {
                // Nothing more, or an error that belongs to a datagram sent earlier; both end with the next news.
                self.readable = false;
                break;
            };
            found = true;
            self.shard.note_receive_call();
            let now = Instant::now();
            for (route, datagram) in self.inbox.datagrams(filled) {
                if self.shard.is_overfilled_by(datagram) {
                    send(&mut self.shard, &self.socket);
                }
                self.shard.handle_datagram(now, route, datagram);
                if self.shard.is_full() {
                    send_full(&mut self.shard, &self.socket);
                }
            }
            // A call that finds fewer datagrams than it could take has emptied the socket; the poll tells of the next.
            self.readable = filled == RECEIVE_BUFFERS;
            self.cross();
        }
        found
    }

    /// Takes what other shards hand over.
    fn take_crossings(&mut self) {
        let Self { shard, socket, rings, .. } = self;
        let now = Instant::now();
        rings.receive(|from, bytes| {
            for frame in frames(bytes) {
                shard.handle_crossing(now, from, frame);
                if shard.is_full() {
                    send_full(shard, socket);
                }
            }
        });
    }

    /// Hands over what other shards are to get.
    fn cross(&mut self) {
        let mut dropped = 0;
        for (to, staged) in self.shard.crossings().staged() {
            dropped += self.rings.send(to, staged);
        }
        self.shard.note_dropped_crossings(dropped);
        self.overdue = self.rings.retry();
    }

    fn report(&mut self) {
        while let Some(event) = self.waiting.take().or_else(|| self.shard.poll_event()) {
            if let Err(TrySendError::Full(event)) = self.events.try_send(event) {
                self.waiting = Some(event);
                return;
            }
        }
    }
}

/// Sends all that the shard has to send.
fn send(shard: &mut Shard, socket: &Socket) {
    while let Some(batch) = shard.next_batch() {
        let sent = socket.send(batch);
        shard.note_sent(sent);
    }
}

/// Makes room in the batch while more datagrams are at hand.
fn send_full(shard: &mut Shard, socket: &Socket) {
    let sent = socket.send(shard.batch());
    shard.note_sent(sent);
}

#[cfg(test)]
mod tests;
