//! A day of load on a fleet of 1,000 nodes in 30 regions: rooms come where people are awake, grow, stay a while and go, and
//! one region is lost at its busiest hour. States what the placement policy makes of it: how far rooms are from their node,
//! how evenly nodes are used, who is refused.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use edge_signal::fleet::Fleet;
use edge_signal::room::event::UnixMs;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use shared::control::{CONTROL_VERSION, NodeInfo, NodeLimits, NodeLoad, PlaceRequest, Placed};
use shared::geo::Place;
use shared::ids::{NodeId, RegionName, RoomName};

const MINUTES: u64 = 24 * 60;
const NODES: usize = 1_000;
/// Sessions that a node takes.
const MAX_SESSIONS: u32 = 200;
/// People of a room, one of these; each a stream from each to each.
const ROOM_SIZES: [u32; 6] = [2, 2, 4, 8, 25, 40];
/// Minutes that a room lasts, one of these.
const DURATIONS: [u64; 5] = [15, 30, 60, 120, 240];
/// Rooms that come in a minute where everyone is awake, for each share of people.
const ROOMS_A_MINUTE: f64 = 1.2;
/// Bits a second of one person's media.
const STREAM_BPS: u64 = 600_000;
/// A region without nodes for two hours, from this minute on.
const LOST: &str = "fra";
const LOST_FROM: u64 = 15 * 60;
const LOST_UNTIL: u64 = 17 * 60;

/// Where people and nodes are: name, latitude, longitude, share of all people.
const REGIONS: [(&str, f64, f64, u32); 30] = [
    ("sfo", 37.8, -122.4, 4),
    ("lax", 34.1, -118.2, 4),
    ("sea", 47.6, -122.3, 2),
    ("den", 39.7, -105.0, 2),
    ("dfw", 32.8, -96.8, 3),
    ("chi", 41.9, -87.6, 4),
    ("atl", 33.7, -84.4, 3),
    ("mia", 25.8, -80.2, 3),
    ("iad", 38.9, -77.4, 5),
    ("nyc", 40.7, -74.0, 6),
    ("yyz", 43.7, -79.4, 3),
    ("mex", 19.4, -99.1, 3),
    ("bog", 4.7, -74.1, 2),
    ("gru", -23.5, -46.6, 5),
    ("eze", -34.6, -58.4, 2),
    ("lhr", 51.5, -0.1, 6),
    ("cdg", 48.9, 2.4, 5),
    ("fra", 50.1, 8.7, 6),
    ("mad", 40.4, -3.7, 3),
    ("mil", 45.5, 9.2, 3),
    ("arn", 59.3, 18.1, 2),
    ("waw", 52.2, 21.0, 3),
    ("dxb", 25.2, 55.3, 3),
    ("bom", 19.1, 72.9, 7),
    ("del", 28.6, 77.2, 6),
    ("sin", 1.4, 103.8, 4),
    ("hkg", 22.3, 114.2, 4),
    ("nrt", 35.7, 139.7, 6),
    ("icn", 37.5, 126.9, 3),
    ("syd", -33.9, 151.2, 3),
];

struct Day {
    fleet: Fleet,
    rng: ChaCha8Rng,
    nodes: BTreeMap<NodeId, (Place, NodeLoad)>,
    /// When it ends, on which node, how many people.
    rooms: BinaryHeap<Reverse<(u64, NodeId, u32)>>,
    /// How much farther than the nearest node, km.
    detours: Vec<f64>,
    refused: usize,
    /// The fullest node's share against the mean of its region's, at each full hour.
    unevenness: Vec<f64>,
    /// People who came to a room whose node was full by then.
    turned_away: u32,
    people: u32,
    /// The fullest region's share at any full hour.
    peak: f64,
    now: UnixMs,
}

fn region(name: &str) -> RegionName {
    RegionName::try_from(name).unwrap()
}

/// People awake there, of 1.0, by the sun.
fn awake(longitude: f64, minute: u64) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "minutes of a day")]
    let hour = (minute as f64 / 60.0 + longitude / 15.0).rem_euclid(24.0);
    (0.05 + (std::f64::consts::PI * (hour - 6.0) / 16.0).sin()).clamp(0.05, 1.0)
}

impl Day {
    /// Nodes are spread as people are.
    fn dawn() -> Self {
        let people: u32 = REGIONS.iter().map(|region| region.3).sum();
        let mut nodes = BTreeMap::new();
        for (name, latitude, longitude, share) in REGIONS {
            let place = Place { latitude, longitude };
            for number in 0..NODES * share as usize / people as usize {
                let node = NodeId::try_from(format!("ND_{name}{number:05}")).unwrap();
                nodes.insert(node, (place, NodeLoad::default()));
            }
        }
        let rng = ChaCha8Rng::seed_from_u64(7);
        let rooms = BinaryHeap::new();
        let mut day = Self {
            fleet: Fleet::default(),
            rng,
            nodes,
            rooms,
            detours: Vec::new(),
            refused: 0,
            unevenness: Vec::new(),
            turned_away: 0,
            people: 0,
            peak: 0.0,
            now: UnixMs(0),
        };
        day.nodes.keys().cloned().collect::<Vec<_>>().into_iter().for_each(|node| day.greet(node));
        day
    }

    fn greet(&mut self, node: NodeId) {
        let info = NodeInfo {
            version: "1".into(),
            control_version: CONTROL_VERSION,
            region: region(&node.as_str()[3..6]),
            place: self.nodes[&node].0,
            max_sessions: MAX_SESSIONS,
            limits: NodeLimits::default(),
            pipes: false,
        };
        self.fleet.hello(self.now, node, info).unwrap();
    }

    fn of_region(&self, name: &str) -> Vec<NodeId> {
        self.nodes.keys().filter(|node| node.as_str()[3..].starts_with(name)).cloned().collect()
    }

    /// One minute: rooms end, nodes say how they are, rooms come.
    fn minute(&mut self, minute: u64) {
        while self.rooms.peek().is_some_and(|Reverse((end, ..))| *end <= minute) {
            let Some(Reverse((_, node, people))) = self.rooms.pop() else { break };
            self.change(&node, |load| load.sessions -= people);
        }
        self.now = UnixMs(minute * 60_000);
        match minute {
            LOST_FROM => self.of_region(LOST).iter().for_each(|node| self.fleet.gone(node)),
            LOST_UNTIL => self.of_region(LOST).into_iter().for_each(|node| self.greet(node)),
            _ => {}
        }
        for (name, latitude, longitude, share) in REGIONS {
            let wanted = awake(longitude, minute) * f64::from(share) * ROOMS_A_MINUTE;
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a handful")]
            let mut rooms = wanted as u64;
            // The fraction, by chance.
            rooms += u64::from(f64::from(self.rng.next_u32()) / f64::from(u32::MAX) < wanted.fract());
            for number in 0..rooms {
                let spread = f64::from(self.rng.next_u32() % 600) / 100.0 - 3.0;
                self.room(
                    minute,
                    &format!("{name}-{minute}-{number}"),
                    Place { latitude: latitude + spread, longitude },
                );
            }
        }
        if minute % 60 == 59 {
            self.compare();
        }
    }

    fn room(&mut self, minute: u64, name: &str, client: Place) {
        let people = ROOM_SIZES[self.rng.next_u32() as usize % ROOM_SIZES.len()];
        let room = RoomName::try_from(name).unwrap();
        // Its first participant asks; the others come to it.
        let request = PlaceRequest::of(room, Some(client));
        let Some(Placed { node, .. }) = self.fleet.place(&request) else {
            self.refused += 1;
            return;
        };
        let places =
            REGIONS.iter().map(|(_, latitude, longitude, _)| Place { latitude: *latitude, longitude: *longitude });
        let nearest = places.map(|place| client.distance_km(place)).fold(f64::MAX, f64::min);
        self.detours.push(client.distance_km(self.nodes[&node].0) - nearest);
        self.people += people;
        let fit = people.min(MAX_SESSIONS - self.nodes[&node].1.sessions);
        self.turned_away += people - fit;
        let people = fit;
        self.change(&node, |load| load.sessions += people);
        let duration = DURATIONS[self.rng.next_u32() as usize % DURATIONS.len()];
        self.rooms.push(Reverse((minute + duration, node, people)));
    }

    fn change(&mut self, node: &NodeId, change: impl FnOnce(&mut NodeLoad)) {
        let (_, load) = self.nodes.get_mut(node).unwrap();
        change(load);
        #[allow(clippy::cast_precision_loss, reason = "a hundred sessions")]
        let share = load.sessions as f32 / MAX_SESSIONS as f32;
        (load.cpu, load.egress_bps) = (share * 0.8, u64::from(load.sessions) * 3 * STREAM_BPS);
        // Many of these for each room that comes.
        let load = *load;
        self.fleet.heartbeat(self.now, node, load);
    }

    /// How evenly the nodes of each region are used that is used at all.
    fn compare(&mut self) {
        for (name, ..) in REGIONS {
            let prefix = format!("ND_{name}");
            let sessions: Vec<f64> = (self.nodes.iter().filter(|(node, _)| node.as_str().starts_with(&prefix)))
                .map(|(_, (_, load))| f64::from(load.sessions))
                .collect();
            #[allow(clippy::cast_precision_loss, reason = "dozens of nodes")]
            let mean = sessions.iter().sum::<f64>() / sessions.len() as f64;
            self.peak = self.peak.max(mean / f64::from(MAX_SESSIONS));
            if mean > f64::from(MAX_SESSIONS) / 4.0 {
                self.unevenness.push(sessions.iter().copied().fold(0.0, f64::max) / mean);
            }
        }
    }
}

fn quantile(sorted: &[f64], share: f64) -> f64 {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "an index")]
    let index = (sorted.len() as f64 * share) as usize;
    sorted[index.min(sorted.len() - 1)]
}

#[test]
fn a_day_of_a_thousand_nodes() {
    let mut day = Day::dawn();
    (0..MINUTES).for_each(|minute| day.minute(minute));
    day.detours.sort_by(f64::total_cmp);
    day.unevenness.sort_by(f64::total_cmp);
    let (detour, uneven) = (|share| quantile(&day.detours, share), |share| quantile(&day.unevenness, share));
    println!(
        "{} rooms of {} people, {} refused, {} people turned away; {:.0}, {:.0}, {:.0} km farther than the nearest node \
         (median, 95 %, 99 %); the fullest node of a region has {:.2}, {:.2} times its mean (median, 95 %), the fullest \
         region {:.0} %",
        day.detours.len(),
        day.people,
        day.refused,
        day.turned_away,
        detour(0.5),
        detour(0.95),
        detour(0.99),
        uneven(0.5),
        uneven(0.95),
        day.peak * 100.0
    );
    assert_eq!(day.refused, 0, "the next region takes what one cannot");
    assert!(f64::from(day.turned_away) < f64::from(day.people) / 100.0, "rooms are not put where they cannot grow");
    assert!(
        detour(0.95) <= 500.0 && detour(0.99) < 1_500.0,
        "people are served nearby, all but those of the lost region"
    );
    assert!(uneven(0.5) < 1.5 && uneven(0.95) < 2.2, "nodes of a region share its load");
    assert!(day.peak > 0.9, "there was a test for all of this");
}
