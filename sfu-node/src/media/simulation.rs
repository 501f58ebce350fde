//! The whole packet path but DTLS in virtual time, over virtual paths that lose, delay, reorder and repeat: ICE, SRTP,
//! forwarder, and what crosses between shards. **One seed is one run; it is the same with one shard and with three.**

mod judge;
mod label;
mod link;
mod node;
mod paths;
mod peer;
mod publisher;
mod stream;
mod talk;
mod viewer;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use self::judge::Shown;
use self::link::{Link, Weather};
use self::node::Node;
use self::peer::Datagram;
use self::publisher::{CAMERA, Publisher};
use self::stream::PATIENCE;
use self::viewer::{Judgement, Viewer};
use crate::media::api::{Command, Event, ShardIndex, ShardStats};
use crate::media::transport::PLAIN;

/// Seeds in the usual test run; `MERIDIAN_SIM_SEEDS` asks for more.
const SEEDS: u64 = 2;
/// Virtual seconds after which the publisher stops.
const LENGTH: usize = 90;
const VIEWERS: u64 = 9;
/// Who leaves while others stay.
const LEAVES: u64 = 2;
/// Seconds between which viewers talk.
const TALK: usize = 15;
const SILENCE: usize = 62;
/// Key of the publisher's first transport; viewers have lower ones.
const PUBLISHER: u64 = 100;
/// Peers' ports less their keys.
const PORTS: u64 = 10_000;

/// What happens. The order decides where several things happen at one instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Turn {
    /// A datagram of this peer arrives at the node.
    Up(u64),
    /// A datagram of the node arrives at this peer.
    Down(u64),
    /// This peer's own timers.
    Own(u64),
    /// The story goes on by a second.
    Story,
}

/// When, what, in which order, and the datagram.
type Entry = (Instant, Turn, u64, Vec<u8>);
/// All that left the node for a peer: microseconds, bytes, digest.
type Trace = Vec<(u128, usize, u64)>;

/// How a run went.
struct Outcome {
    traces: BTreeMap<u64, Trace>,
    judgements: Vec<Judgement>,
    stats: Vec<ShardStats>,
    /// Datagrams that reached the node or left it.
    datagrams: u64,
    keyframes: u32,
}

struct World {
    origin: Instant,
    now: Instant,
    /// Peers come and go, layers stop, streams restart; else nothing happens by itself.
    eventful: bool,
    seconds: usize,
    node: Node,
    publisher: Publisher,
    publisher_at: ShardIndex,
    viewers: BTreeMap<u64, Viewer>,
    /// Each peer's way to the node and from it.
    links: BTreeMap<u64, (Link, Link)>,
    /// The same ways, with luck of their own, for what SCTP sends: its own random numbers are not the seed's.
    data_links: BTreeMap<u64, (Link, Link)>,
    queue: BinaryHeap<Reverse<Entry>>,
    queued: u64,
    random: StdRng,
    outcome: Outcome,
}

impl World {
    fn new(seed: u64, shards: usize) -> Self {
        let ms = Duration::from_millis;
        let rough = Weather { lost: 30, repeated: 20, overtaken: 50, jitter: ms(1), ..Weather::fair(ms(20)) };
        let mut world = Self::with_publisher(seed, shards, rough);
        world.eventful = true;
        world.schedule(world.now, Turn::Story, Vec::new());
        world
    }

    fn with_publisher(seed: u64, shards: usize, weather: Weather) -> Self {
        let origin = Instant::now();
        let mut world = Self {
            origin,
            // Off the grid of the node's own periods: who is first at one instant is nobody's business.
            now: origin + Duration::from_micros(1_337),
            eventful: false,
            seconds: 0,
            node: Node::new(origin, shards),
            publisher: Publisher::new(origin, PUBLISHER, 0, seed),
            publisher_at: ShardIndex(0),
            viewers: BTreeMap::new(),
            links: BTreeMap::new(),
            data_links: BTreeMap::new(),
            queue: BinaryHeap::new(),
            queued: 0,
            random: StdRng::seed_from_u64(seed),
            outcome: Outcome {
                traces: BTreeMap::new(),
                judgements: Vec::new(),
                stats: Vec::new(),
                datagrams: 0,
                keyframes: 0,
            },
        };
        world.publish(weather);
        world
    }

    fn run(mut self) -> Outcome {
        self.run_until(self.now + Duration::from_secs(1_000));
        let lost = |event: &Event| matches!(event, Event::Failed { .. } | Event::Disconnected(_));
        assert!(!self.node.events.iter().any(lost), "{:?}", self.node.events);
        let paused = |event: &Event| matches!(event, Event::Paused { paused: true, .. });
        assert!(!self.node.events.iter().any(paused), "what is lost at random pauses no video: {:?}", self.node.events);
        self.outcome.traces.range_mut(PUBLISHER..).for_each(|(_, trace)| trace.sort_unstable());
        self.outcome.stats = self.node.stats();
        self.outcome.keyframes += self.publisher.keyframes;
        self.outcome
    }

    /// Everything that happens until then, or all that does.
    fn run_until(&mut self, end: Instant) {
        while self.queue.peek().is_some_and(|Reverse((at, ..))| *at <= end) {
            let Some(Reverse((at, turn, _, datagram))) = self.queue.pop() else { return };
            while let Some(due) = self.node.next_timeout().filter(|due| *due <= at) {
                self.now = self.now.max(due);
                self.node.handle_timeout(self.now);
                self.send_down();
            }
            self.now = at;
            self.take(turn, datagram);
            self.send_down();
        }
    }

    fn take(&mut self, turn: Turn, datagram: Vec<u8>) {
        match turn {
            Turn::Up(key) => {
                let at = self.viewers.get(&key).map_or(self.publisher_at, |viewer| viewer.at);
                let from = ([192, 0, 2, 1], u16::try_from(PORTS + key).unwrap()).into();
                self.outcome.datagrams += 1;
                self.node.datagram(self.now, at, from, datagram);
            }
            Turn::Down(key) if key == self.publisher.peer.key.0 => {
                let answers = self.publisher.receive(&datagram);
                self.send_up(key, answers);
            }
            Turn::Down(key) => {
                if let Some(viewer) = self.viewers.get_mut(&key) {
                    let answers = viewer.receive(self.now, datagram);
                    self.send_up(key, answers);
                }
            }
            Turn::Own(key) if key == self.publisher.peer.key.0 => {
                if !self.eventful || self.seconds < LENGTH {
                    let datagrams = self.publisher.act(self.now);
                    self.send_up(key, datagrams);
                    self.schedule(self.publisher.next(), turn, Vec::new());
                }
            }
            Turn::Own(key) => {
                let Some(viewer) = self.viewers.get_mut(&key) else { return };
                let (datagrams, changes) = viewer.act(self.now);
                if changes {
                    let senders = Command::SetSenders(viewer.peer.key, viewer.senders());
                    self.node.command(self.now, viewer.at, senders);
                }
                let next = viewer.next();
                self.send_up(key, datagrams);
                self.schedule(next, turn, Vec::new());
            }
            Turn::Story => self.story(),
        }
    }

    fn story(&mut self) {
        match self.seconds {
            second @ 0..9 => self.join(u64::try_from(second).unwrap()),
            TALK => self.viewers.values_mut().for_each(|viewer| viewer.talks = true),
            20 => self.publisher.active[2] = false,
            26 => self.publisher.active[2] = true,
            32 => self.publisher.restart(),
            40 => self.leave(LEAVES),
            42 => self.join(VIEWERS),
            50 => {
                let old = self.publisher.peer.key;
                self.outcome.keyframes += self.publisher.keyframes;
                self.node.command(self.now, self.publisher_at, Command::Close(old));
                let start = self.publisher.start + 1;
                self.publisher = Publisher::new(self.now, old.0 + 1, start, self.random.random());
                self.publish(self.links[&old.0].0.weather);
            }
            SILENCE => self.viewers.values_mut().for_each(|viewer| viewer.talks = false),
            60 => self.publisher.active = [true, false, false],
            64 => self.publisher.active = [true; 3],
            70 | 73 => {
                let muted = self.seconds == 70;
                self.publisher.active = [!muted; 3];
                self.node.command(self.now, self.publisher_at, Command::SetMuted(CAMERA, muted));
            }
            _ => {}
        }
        self.seconds += 1;
        if self.seconds <= LENGTH + 2 * usize::try_from(PATIENCE.as_secs()).unwrap() + 1 {
            self.schedule(self.now + Duration::from_secs(1), Turn::Story, Vec::new());
        } else {
            self.viewers.keys().copied().collect::<Vec<_>>().into_iter().for_each(|key| self.leave(key));
        }
    }

    fn publish(&mut self, weather: Weather) {
        let key = self.publisher.peer.key.0;
        self.publisher_at = self.node.shard(usize::try_from(key).unwrap());
        self.connect_links(key, weather);
        self.node.connect(self.now, self.publisher_at, &mut self.publisher.peer);
        let receivers = Command::SetReceivers(self.publisher.peer.key, self.publisher.receivers());
        self.node.command(self.now, self.publisher_at, receivers);
        self.schedule(self.now, Turn::Own(key), Vec::new());
    }

    fn join(&mut self, key: u64) {
        let place = usize::try_from(key).unwrap();
        let weather = Weather {
            lost: [0, 10, 50, 100, 20, 75][place % 6],
            repeated: 10,
            overtaken: 20,
            jitter: Duration::from_micros(200),
            ..Weather::fair(Duration::from_millis(4 * key))
        };
        let viewer = self.viewer(key);
        self.add(viewer, weather);
    }

    fn viewer(&mut self, key: u64) -> Viewer {
        let at = self.node.shard(usize::try_from(key).unwrap());
        Viewer::new(self.now, self.origin, key, at, self.random.random())
    }

    fn add(&mut self, mut viewer: Viewer, weather: Weather) {
        let (key, at) = (viewer.peer.key.0, viewer.at);
        self.connect_links(key, weather);
        self.node.connect(self.now, at, &mut viewer.peer);
        self.node.command(self.now, at, Command::SetSenders(viewer.peer.key, viewer.senders()));
        self.viewers.insert(key, viewer);
        self.schedule(self.now, Turn::Own(key), Vec::new());
    }

    fn leave(&mut self, key: u64) {
        let mut viewer = self.viewers.remove(&key).unwrap();
        self.node.command(self.now, viewer.at, Command::Close(viewer.peer.key));
        self.outcome.judgements.push(viewer.judge(self.now));
    }

    fn connect_links(&mut self, key: u64, weather: Weather) {
        let links = (Link::new(weather, self.random.random()), Link::new(weather, self.random.random()));
        self.links.insert(key, links);
        self.data_links.insert(key, (Link::new(weather, key), Link::new(weather, !key)));
    }

    fn send_up(&mut self, key: u64, datagrams: Vec<Vec<u8>>) {
        for datagram in datagrams {
            let links = if datagram[0] == PLAIN { &mut self.data_links } else { &mut self.links };
            let arrivals = links.get_mut(&key).unwrap().0.carry(self.now, datagram.len());
            arrivals.into_iter().for_each(|at| self.schedule(at, Turn::Up(key), datagram.clone()));
        }
    }

    fn send_down(&mut self) {
        for (to, datagram) in self.node.take_output() {
            let key = u64::from(to.port()) - PORTS;
            self.outcome.datagrams += 1;
            if key >= PUBLISHER {
                self.send_to_publisher(key, datagram);
                continue;
            }
            let links = if datagram[0] == PLAIN {
                &mut self.data_links
            } else {
                self.trace(key, &datagram);
                &mut self.links
            };
            let arrivals = links.get_mut(&key).unwrap().1.carry(self.now, datagram.len());
            arrivals.into_iter().for_each(|at| self.schedule(at, Turn::Down(key), datagram.clone()));
        }
    }

    /// What several shards have for the publisher at one instant may come in any order; it is the same feedback, and the
    /// same of it is lost.
    fn send_to_publisher(&mut self, key: u64, datagram: Vec<u8>) {
        let publisher = &mut self.publisher.peer;
        let Datagram::Rtcp(plain) = (if publisher.key.0 == key { publisher.open(datagram) } else { Datagram::Other })
        else {
            return;
        };
        let digest = self.trace(key, &plain);
        let weather = self.links[&key].1.weather;
        let arrivals = Link::new(weather, digest).carry(self.now, plain.len());
        arrivals.into_iter().for_each(|at| self.schedule(at, Turn::Down(key), plain.clone()));
    }

    fn trace(&mut self, key: u64, datagram: &[u8]) -> u64 {
        let at = (self.now - self.origin).as_micros();
        let mut hasher = DefaultHasher::new();
        (at, datagram).hash(&mut hasher);
        let digest = hasher.finish();
        self.outcome.traces.entry(key).or_default().push((at, datagram.len(), digest));
        digest
    }

    fn schedule(&mut self, at: Instant, turn: Turn, datagram: Vec<u8>) {
        self.queued += 1;
        self.queue.push(Reverse((at, turn, self.queued, datagram)));
    }
}

/// Where two traces part, in words.
fn difference(one: &BTreeMap<u64, Trace>, other: &BTreeMap<u64, Trace>) -> Option<String> {
    one.iter()
        .filter_map(|(key, trace)| {
            let other = other.get(key).map(Vec::as_slice).unwrap_or_default();
            let at = (0..trace.len().max(other.len())).find(|at| trace.get(*at) != other.get(*at))?;
            let (here, there) = (trace.get(at).copied(), other.get(at).copied());
            let first = here.into_iter().chain(there).min()?.0;
            Some((first, format!("peer {key}, datagram {at} of {}: {here:?} or {there:?}", trace.len())))
        })
        .min()
        .map(|(_, said)| said)
}

/// Of two that are there all the time each hears all that the other says reliably, in order, and nothing twice.
fn assert_heard(judgements: &[Judgement]) -> usize {
    let mut count = 0;
    let stays = |judgement: &&Judgement| judgement.said > 40;
    for listener in judgements.iter().filter(stays) {
        for speaker in judgements.iter().filter(stays).filter(|speaker| speaker.identity != listener.identity) {
            let heard =
                |reliable| listener.heard.get(&(speaker.identity.clone(), reliable)).cloned().unwrap_or_default();
            let all: Vec<u32> = (0..speaker.said).collect();
            assert_eq!(heard(true), all, "{} of {}", listener.identity, speaker.identity);
            let mut lossy = heard(false);
            lossy.sort_unstable();
            let heard = lossy.len();
            lossy.dedup();
            assert!(heard == lossy.len() && heard * 2 > all.len(), "{heard} of {}", all.len());
            count += all.len();
        }
    }
    count
}

fn seeds() -> std::ops::Range<u64> {
    let count = std::env::var("MERIDIAN_SIM_SEEDS").ok().and_then(|text| text.parse().ok());
    0..count.unwrap_or(SEEDS)
}

#[test]
fn every_viewer_gets_a_stream_that_decodes_and_the_number_of_shards_is_not_seen() {
    for seed in seeds() {
        let one = World::new(seed, 1).run();
        let three = World::new(seed, 3).run();
        assert!(one.datagrams > 100_000, "{} datagrams", one.datagrams);
        let sum = |count: fn(&Judgement) -> usize| one.judgements.iter().map(count).sum::<usize>();
        let (packets, lost) = (sum(|j| j.packets), sum(|j| j.lost));
        assert!(lost * 1000 < packets, "seed {seed}: {lost} lost of {packets}");
        assert!(sum(|j| j.switches) > 50, "seed {seed}: {:?}", one.judgements);
        assert!((0..3).all(|layer| one.judgements.iter().any(|j| j.layers[layer] > 500)), "{:?}", one.judgements);
        let shown = |what: fn(&Judgement) -> &[Shown], layer, temporal| {
            let frames = one.judgements.iter().flat_map(what);
            frames.filter(|shown| (shown.layer, shown.temporal) == (layer, temporal)).count()
        };
        for (layer, temporal) in (0..9).map(|n| (n / 3, n % 3)) {
            let (camera, screen) = (shown(|j| &j.camera, layer, temporal), shown(|j| &j.screen, layer, temporal));
            assert!(camera > 200 && screen > 200, "seed {seed}: {layer}/{temporal}: {camera} and {screen} shown");
        }
        let heard = [&one, &three].map(|run| assert_heard(&run.judgements));
        assert!(heard[0] > 2_000 && heard[0] == heard[1], "seed {seed}: {heard:?} messages");
        assert!(one.judgements.iter().all(|j| j.audio > 500), "{:?}", one.judgements);
        let stats = one.stats[0];
        assert!(stats.nacks_sent > 100 && stats.nacks_received > 100 && stats.retransmissions_sent > 100, "{stats:?}");
        assert!(stats.plis_sent > 10 && stats.dropped_replay > 100, "{stats:?}");
        assert_eq!((stats.crossings_sent, stats.dropped_malformed, stats.dropped_send), (0, 0, 0), "seed {seed}");

        assert_eq!(difference(&one.traces, &three.traces), None, "seed {seed}: one shard or three");
        assert_eq!(one.keyframes, three.keyframes, "seed {seed}");
        let crossed = |count: fn(&ShardStats) -> u64| three.stats.iter().map(count).sum::<u64>();
        assert_eq!(crossed(|s| s.crossings_sent), crossed(|s| s.crossings_received), "seed {seed}");
        assert!(three.stats.iter().all(|s| s.crossings_received > 1000), "seed {seed}: {:?}", three.stats);
    }
}

#[test]
fn one_seed_is_one_run() {
    let (one, again, other) = (World::new(1, 3).run(), World::new(1, 3).run(), World::new(2, 3).run());
    assert_eq!(difference(&one.traces, &again.traces), None);
    assert!(difference(&one.traces, &other.traces).is_some());
}
