//! Time, chance and what carries messages: WebSockets that keep order, requests and answers that overtake each other,
//! datagrams that get lost. **All that is random in a run comes from here, from one seed.**

mod message;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use edge_signal::room::event::{Context, UnixMs};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

pub(crate) use self::message::{Call, End, Frame, Host, Reply, Socket, Turn};
use crate::rules::Rule;

/// When virtual time begins.
const START: UnixMs = UnixMs(1_795_219_620_000);
/// One way between two machines of the edge, milliseconds.
const INSIDE: (u64, u64) = (1, 8);
/// One way between the edge and anybody else, milliseconds.
const OUTSIDE: (u64, u64) = (2, 60);
/// One message of so many takes longer, by up to so many milliseconds.
const SLOW: (u32, u64) = (40, 2_500);
/// One request of so many inside the edge fails.
const FAILS: u32 = 40;
/// One way of a datagram, milliseconds.
const DATAGRAM: (u64, u64) = (5, 40);
/// Of a thousand datagrams so many get lost.
const LOST: u32 = 10;
/// Longest it takes until an end learns that a connection broke, milliseconds.
const BREAK: u64 = 300;
/// Longest that what was held up by a cut comes after its end, milliseconds.
const REPEAT: u64 = 400;

struct Wire {
    ends: [End; 2],
    open: [bool; 2],
    /// What was sent to each end last arrives then.
    last: [u64; 2],
    /// On their way to each end, in order.
    frames: [VecDeque<Frame>; 2],
}

enum What {
    Turn(Turn),
    /// The next frame of a WebSocket arrives at this end.
    Wire(Socket, usize),
}

struct Entry {
    at: u64,
    order: u64,
    what: What,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

/// The network, with the clock and the dice.
pub(crate) struct Net {
    /// Milliseconds since virtual time began.
    pub(crate) now: u64,
    origin: Instant,
    rng: StdRng,
    queue: BinaryHeap<Reverse<Entry>>,
    order: u64,
    wires: BTreeMap<Socket, Wire>,
    sockets: u64,
    /// Until when a host does not reach the edge.
    cut: BTreeMap<Host, u64>,
    /// The edge's process is dead.
    pub(crate) edge_is_dead: bool,
    /// Until when no datagram passes between two hosts.
    apart: BTreeMap<[Host; 2], u64>,
    log: Option<String>,
    /// A rule that this run goes without.
    pub(crate) broken: Option<Rule>,
}

impl Net {
    /// A network in which all is well. `logs`: it writes down what happens.
    #[must_use]
    pub(crate) fn new(seed: u64, origin: Instant, logs: bool) -> Self {
        Self {
            now: 0,
            origin,
            rng: StdRng::seed_from_u64(seed),
            queue: BinaryHeap::new(),
            order: 0,
            wires: BTreeMap::new(),
            sockets: 0,
            cut: BTreeMap::new(),
            edge_is_dead: false,
            apart: BTreeMap::new(),
            log: logs.then(String::new),
            broken: None,
        }
    }

    // --- time and chance

    /// Now, for the edge.
    #[must_use]
    pub(crate) fn unix(&self) -> UnixMs {
        START.after(self.now)
    }

    /// Now, for a node's shard.
    #[must_use]
    pub(crate) fn instant(&self) -> Instant {
        self.origin + Duration::from_millis(self.now)
    }

    /// A moment of a shard in milliseconds, rounded up.
    #[must_use]
    pub(crate) fn millis(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.origin);
        u64::try_from(since.as_micros().div_ceil(1000)).unwrap_or(u64::MAX)
    }

    /// A moment of the edge in milliseconds of virtual time.
    #[must_use]
    pub(crate) fn since_start(at: UnixMs) -> u64 {
        at.0.saturating_sub(START.0)
    }

    /// What a machine of the edge needs for one event.
    pub(crate) fn context(&mut self) -> Context {
        Context { now: self.unix(), seed: self.rng.random() }
    }

    /// A number from `low` to `high`, both included.
    pub(crate) fn pick(&mut self, low: u64, high: u64) -> u64 {
        self.rng.random_range(low..=high)
    }

    fn delay(&mut self, (low, high): (u64, u64)) -> u64 {
        let delay = self.pick(low, high);
        if self.dice(1, SLOW.0) { delay + self.pick(0, SLOW.1) } else { delay }
    }

    /// Whether a request inside the edge fails. **It may have been carried out.**
    pub(crate) fn fails(&mut self) -> bool {
        self.dice(1, FAILS)
    }

    /// True `times` times of `of`.
    pub(crate) fn dice(&mut self, times: u32, of: u32) -> bool {
        self.rng.random_range(0..of) < times
    }

    /// Random bytes.
    pub(crate) fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.rng.fill(&mut bytes[..]);
        bytes
    }

    /// One of several.
    pub(crate) fn choose<'a, T>(&mut self, all: &'a [T]) -> Option<&'a T> {
        if all.is_empty() { None } else { all.get(self.rng.random_range(0..all.len())) }
    }

    /// Has something happen at a moment.
    pub(crate) fn at(&mut self, at: u64, turn: Turn) {
        self.push(at, What::Turn(turn));
    }

    fn push(&mut self, at: u64, what: What) {
        self.order += 1;
        self.queue.push(Reverse(Entry { at: at.max(self.now), order: self.order, what }));
    }

    /// The next that happens, with time set to it; `None` when that is after `end`.
    pub(crate) fn next(&mut self, end: u64) -> Option<Turn> {
        loop {
            if self.queue.peek().is_none_or(|Reverse(entry)| entry.at > end) {
                self.now = self.now.max(end);
                return None;
            }
            let Reverse(entry) = self.queue.pop()?;
            self.now = entry.at;
            if let Some(until) = self.held(&entry.what) {
                let at = until + self.pick(1, REPEAT);
                self.push(at, entry.what);
                continue;
            }
            match entry.what {
                What::Turn(turn) => return Some(turn),
                What::Wire(socket, side) => {
                    let Some(wire) = self.wires.get_mut(&socket) else { continue };
                    let Some(frame) = wire.frames[side].pop_front() else { continue };
                    let is_news = wire.open[side] || matches!(frame, Frame::Closed);
                    if matches!(frame, Frame::Closed) {
                        wire.open[side] = false;
                    }
                    if is_news {
                        return Some(Turn::Frame { socket, to: wire.ends[side].clone(), frame });
                    }
                }
            }
        }
    }

    // --- what happens, in words

    /// Writes down what happens.
    pub(crate) fn note(&mut self, what: impl FnOnce() -> String) {
        let now = self.now;
        if let Some(log) = &mut self.log {
            let _ = writeln!(log, "{:>7} {}", now, what());
        }
    }

    /// What was written down.
    pub(crate) fn take_log(&mut self) -> String {
        self.log.take().unwrap_or_default()
    }

    // --- cuts

    /// Cuts a host off from the edge until a moment.
    pub(crate) fn cut(&mut self, host: Host, until: u64) {
        self.cut.insert(host, until);
    }

    /// Lets no datagram pass between two hosts until a moment.
    pub(crate) fn part(&mut self, mut hosts: [Host; 2], until: u64) {
        hosts.sort();
        self.apart.insert(hosts, until);
    }

    /// All reach all.
    pub(crate) fn heal(&mut self) {
        self.cut.values_mut().chain(self.apart.values_mut()).for_each(|until| *until = 0);
    }

    /// Until when a host is cut off.
    #[must_use]
    pub(crate) fn cut_until(&self, host: Host) -> Option<u64> {
        self.cut.get(&host).copied().filter(|until| *until > self.now)
    }

    fn held(&self, what: &What) -> Option<u64> {
        let host = match what {
            What::Wire(socket, _) => self.wires.get(socket)?.ends.iter().find_map(host_of),
            What::Turn(Turn::Call(Call::Join { client, .. })) => Some(Host::Client(*client)),
            What::Turn(Turn::Call(Call::FleetLink { node, .. } | Call::RoomLink { node, .. })) => {
                Some(Host::Node(*node))
            }
            What::Turn(Turn::Reply(Reply::Dialed { to, .. })) => host_of(to),
            What::Turn(_) => None,
        };
        host.and_then(|host| self.cut_until(host))
    }

    // --- WebSockets

    /// Opens a WebSocket between two ends.
    pub(crate) fn connect(&mut self, one: End, other: End) -> Socket {
        self.sockets += 1;
        let socket = Socket(self.sockets);
        let frames = [VecDeque::new(), VecDeque::new()];
        self.wires.insert(socket, Wire { ends: [one, other], open: [true; 2], last: [0; 2], frames });
        socket
    }

    /// Sends a frame to the other end; lost if either is closed.
    pub(crate) fn send(&mut self, from: &End, socket: Socket, frame: Frame) {
        let delay = self.delay(OUTSIDE);
        let Some(wire) = self.wires.get_mut(&socket) else { return };
        let side = usize::from(wire.ends[0] == *from);
        if !wire.open[1 - side] {
            return;
        }
        let at = (self.now + delay).max(wire.last[side]);
        wire.last[side] = at;
        wire.frames[side].push_back(frame);
        self.push(at, What::Wire(socket, side));
    }

    /// Closes an end; the other one hears of it after what was sent before.
    pub(crate) fn close(&mut self, from: &End, socket: Socket) {
        self.send(from, socket, Frame::Closed);
        if let Some(wire) = self.wires.get_mut(&socket) {
            let side = usize::from(wire.ends[0] != *from);
            wire.open[side] = false;
        }
    }

    /// Breaks a WebSocket: both ends learn of it, each for itself, and nothing that is on its way arrives.
    pub(crate) fn snap(&mut self, socket: Socket) {
        let delays = [self.pick(1, BREAK), self.pick(1, BREAK)];
        let Some(wire) = self.wires.get_mut(&socket) else { return };
        let open = std::mem::take(&mut wire.open);
        wire.frames = [VecDeque::new(), VecDeque::new()];
        for side in (0..2).filter(|side| open[*side]) {
            let Some(wire) = self.wires.get_mut(&socket) else { return };
            wire.frames[side].push_back(Frame::Closed);
            // Whoever has dialed it learns that first.
            let at = (self.now + delays[side]).max(wire.last[side]);
            self.push(at, What::Wire(socket, side));
        }
    }

    /// Open WebSockets for which this holds of one end.
    pub(crate) fn sockets(&self, concerned: impl Fn(&End) -> bool) -> Vec<Socket> {
        let open = self.wires.iter().filter(|(_, wire)| wire.open.contains(&true));
        open.filter(|(_, wire)| wire.ends.iter().any(&concerned)).map(|(socket, _)| *socket).collect()
    }

    // --- requests

    /// Sends a request between machines of the edge.
    pub(crate) fn call_inside(&mut self, call: Call) {
        let delay = self.delay(INSIDE);
        self.at(self.now + delay, Turn::Call(call));
    }

    /// Sends a request to the edge.
    pub(crate) fn call(&mut self, call: Call) {
        let delay = self.delay(OUTSIDE);
        self.at(self.now + delay, Turn::Call(call));
    }

    /// Answers a machine of the edge.
    pub(crate) fn reply_inside(&mut self, reply: Reply) {
        let delay = self.delay(INSIDE);
        self.at(self.now + delay, Turn::Reply(reply));
    }

    /// Answers a dial. The first frames come after it.
    pub(crate) fn reply(&mut self, to: End, dial: u64, result: Result<Socket, u16>) {
        let at = self.now + self.delay(OUTSIDE);
        if let Some(wire) = result.ok().and_then(|socket| self.wires.get_mut(&socket)) {
            let side = usize::from(wire.ends[0] != to);
            wire.last[side] = wire.last[side].max(at);
        }
        self.at(at, Turn::Reply(Reply::Dialed { to, dial, result }));
    }

    // --- datagrams

    /// Sends a datagram between two hosts, which may get lost or overtaken.
    pub(crate) fn datagram(&mut self, mut hosts: [Host; 2], from: SocketAddr, to: SocketAddr, bytes: Vec<u8>) {
        hosts.sort();
        let apart = self.apart.get(&hosts).is_some_and(|until| *until > self.now);
        let cut = hosts.into_iter().any(|host| self.cut_until(host).is_some());
        if apart || cut || self.dice(LOST, 1000) {
            return;
        }
        let delay = self.pick(DATAGRAM.0, DATAGRAM.1);
        self.at(self.now + delay, Turn::Datagram { from, to, bytes });
    }
}

fn host_of(end: &End) -> Option<Host> {
    match end {
        End::Client(client) => Some(Host::Client(*client)),
        End::Node(node) | End::NodeRoom(node, _) => Some(Host::Node(*node)),
        End::Fleet | End::Room(_) => None,
    }
}
