//! The fleet: which nodes are up, how loaded they are, which one a room gets. Pure: no clock, no I/O, no randomness.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use shared::control::{
    CONTROL_VERSION, HEARTBEAT_SECS, NodeInfo, NodeLoad, NodeStatus, PlaceRequest, Placed, RegionNeed,
};
use shared::ids::NodeId;

use crate::room::event::UnixMs;
use crate::room::node::RESTART_GRACE_MS;

pub mod gate;
pub mod mint;
mod need;
pub mod placement;
pub mod relief;
pub mod returns;

/// Heartbeats a node may miss before it counts as lost.
pub const MISSED_HEARTBEATS: u64 = 3;

/// How long a node may be silent, milliseconds.
const SILENCE_MS: u64 = (MISSED_HEARTBEATS * HEARTBEAT_SECS) * 1000 + 500;

/// All nodes with an open fleet link.
#[derive(Debug, Default)]
pub struct Fleet {
    nodes: BTreeMap<NodeId, Linked>,
    /// Until then nodes may dial in that had their link before this object started.
    gathers_until: Option<UnixMs>,
}

/// A node with an open fleet link.
#[derive(Debug, Clone, PartialEq)]
pub struct Linked {
    info: NodeInfo,
    load: Option<NodeLoad>,
    /// It said so.
    draining: bool,
    /// An operator said so.
    drained: bool,
    heard: UnixMs,
    /// Sessions placed here that its last heartbeat cannot know of.
    placed: u32,
    /// Heartbeats in a row by which it was busy.
    hot: u32,
    /// Heartbeats in a row by which it takes rooms.
    steady: u32,
    /// Rooms that are to hear that it is back.
    untold: returns::Untold,
}

/// Whether rooms can be placed on a node that somebody names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Availability {
    /// It takes rooms, if it has space for them.
    Available,
    /// It takes none any more.
    Draining,
    /// It is enrolled and has no link now.
    Away,
    /// Nobody knows it, or its key is revoked.
    Unknown,
}

/// Why a node's greeting is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HelloError {
    /// It speaks another version of the control messages.
    #[error("control version {0} is not {CONTROL_VERSION}")]
    Version(u32),
}

impl Fleet {
    /// The edge has started again: every node's link broke, and none has dialed yet.
    pub fn gather(&mut self, now: UnixMs) {
        self.gathers_until = Some(now.after(RESTART_GRACE_MS));
    }

    /// A node said what it is. Replaces what was known of it.
    ///
    /// # Errors
    /// [`HelloError`]: close its link.
    pub fn hello(&mut self, now: UnixMs, node: NodeId, info: NodeInfo) -> Result<(), HelloError> {
        if info.control_version != CONTROL_VERSION {
            return Err(HelloError::Version(info.control_version));
        }
        let (load, untold) = (None, returns::Untold::new());
        let (draining, drained, heard) = (false, false, now);
        let linked = Linked { info, load, draining, drained, heard, placed: 0, hot: 0, steady: 0, untold };
        self.nodes.insert(node, linked);
        Ok(())
    }

    /// A node's load. A node that has not said hello is ignored.
    pub fn heartbeat(&mut self, now: UnixMs, node: &NodeId, load: NodeLoad) {
        if let Some(linked) = self.nodes.get_mut(node) {
            (linked.heard, linked.load, linked.placed) = (now, Some(load), 0);
            linked.feel();
            linked.steady();
        }
    }

    /// How many sessions a node is to let go of now that others have room for them. Call [`Fleet::sweep`] before.
    pub fn relieve(&mut self, node: &NodeId) -> Option<u32> {
        let sessions = relief::of(&self.nodes, node)?;
        if let Some(linked) = self.nodes.get_mut(node) {
            linked.hot = 0;
        }
        Some(sessions)
    }

    /// Places nothing there any more.
    pub fn draining(&mut self, node: &NodeId) {
        if let Some(linked) = self.nodes.get_mut(node) {
            linked.draining = true;
            linked.steady = 0;
        }
    }

    /// An operator's word: places nothing there any more, or again.
    pub fn drain(&mut self, node: &NodeId, drained: bool) {
        if let Some(linked) = self.nodes.get_mut(node) {
            linked.drained = drained;
            linked.steady = 0;
        }
    }

    /// How a node is, as an operator is told; `address` is where its link comes from.
    #[must_use]
    pub fn status(&self, node: &NodeId, address: Option<IpAddr>) -> Option<NodeStatus> {
        let linked = self.nodes.get(node)?;
        let (info, load) = (linked.info.clone(), linked.load);
        Some(NodeStatus { node: node.clone(), address, info, load, draining: linked.is_draining() })
    }

    /// Whether a node that has its link takes rooms. Call [`Fleet::sweep`] before.
    #[must_use]
    pub fn availability(&self, node: &NodeId) -> Option<Availability> {
        let linked = self.nodes.get(node)?;
        Some(if linked.is_draining() { Availability::Draining } else { Availability::Available })
    }

    /// How many nodes each region needs. Call [`Fleet::sweep`] before.
    #[must_use]
    pub fn needs(&self) -> Vec<RegionNeed> {
        need::of_regions(&self.nodes)
    }

    /// A node's link is closed.
    pub fn gone(&mut self, node: &NodeId) {
        self.nodes.remove(node);
    }

    /// Takes out the nodes that missed their heartbeats; their links are to be closed.
    pub fn sweep(&mut self, now: UnixMs) -> Vec<NodeId> {
        let silent = |linked: &Linked| now > linked.heard.after(SILENCE_MS);
        let lost: Vec<NodeId> = self.nodes.iter().filter(|(_, l)| silent(l)).map(|(id, _)| id.clone()).collect();
        lost.iter().for_each(|node| self.gone(node));
        lost
    }

    /// Chooses a node for a room, and counts what it will be given. Call [`Fleet::sweep`] before.
    pub fn place(&mut self, request: &PlaceRequest) -> Option<Placed> {
        let node = placement::choose(&self.nodes, request)?;
        let linked = self.nodes.get_mut(&node)?;
        linked.placed = linked.placed.saturating_add(request.sessions.max(1));
        let info = &linked.info;
        Some(Placed { node, region: info.region.clone(), piped_at: info.pipes.then_some(info.place) })
    }

    /// Whether a node has its link, or may have it again in a moment. Call [`Fleet::sweep`] before.
    #[must_use]
    pub fn may_have(&self, now: UnixMs, node: &NodeId) -> bool {
        self.nodes.contains_key(node) || self.gathers_until.is_some_and(|until| now < until)
    }

    /// Whether there is a node for a room. Call [`Fleet::sweep`] before.
    #[must_use]
    pub fn has_node(&self, request: &PlaceRequest) -> bool {
        placement::choose(&self.nodes, request).is_some()
    }
}

impl Linked {
    fn sessions(&self) -> u32 {
        self.load().sessions.saturating_add(self.placed)
    }

    /// It takes no rooms: it said so, or an operator.
    fn is_draining(&self) -> bool {
        self.draining || self.drained
    }

    /// How full it is: the share of what it has least of; 1.0 and more: full.
    fn used(&self) -> f64 {
        let sessions = f64::from(self.sessions()) / f64::from(self.info.max_sessions.max(1));
        sessions.max(f64::from(self.load().cpu)).max(self.strain())
    }

    /// Share of its bandwidth or packets, whichever is more; 0.0 where no limit is known.
    fn strain(&self) -> f64 {
        #[allow(clippy::cast_precision_loss, reason = "a share")]
        let share = |used: u64, most: Option<u64>| most.map_or(0.0, |most| used as f64 / most.max(1) as f64);
        let (load, limits) = (self.load(), self.info.limits);
        let packets = share(load.packets_per_second.into(), limits.max_packets_per_second.map(u64::from));
        share(load.egress_bps, limits.max_egress_bps).max(packets)
    }

    fn load(&self) -> NodeLoad {
        self.load.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use shared::control::{NeedReason, NodeLimits};
    use shared::geo::Place;
    use shared::ids::{RegionName, RoomName};

    use super::*;

    pub(super) const BERLIN: Place = Place { latitude: 52.5, longitude: 13.4 };
    pub(super) const TOKYO: Place = Place { latitude: 35.7, longitude: 139.7 };
    pub(super) const PARIS: Place = Place { latitude: 48.9, longitude: 2.4 };

    pub(super) fn id(name: &str) -> NodeId {
        NodeId::try_from(format!("ND_{name}")).unwrap()
    }

    pub(super) fn info(place: Place) -> NodeInfo {
        let region = RegionName::try_from("r").unwrap();
        NodeInfo {
            version: "0".into(),
            control_version: CONTROL_VERSION,
            region,
            place,
            max_sessions: 10,
            limits: NodeLimits::default(),
            pipes: false,
        }
    }

    fn ask(client: Option<Place>) -> PlaceRequest {
        PlaceRequest::of(RoomName::try_from("den").unwrap(), client)
    }

    fn fleet(nodes: &[(&str, Place)]) -> Fleet {
        let mut fleet = Fleet::default();
        for (name, place) in nodes {
            fleet.hello(UnixMs(0), id(name), info(*place)).unwrap();
        }
        fleet
    }

    fn chosen(fleet: &mut Fleet, request: &PlaceRequest) -> Option<NodeId> {
        fleet.place(request).map(|placed| placed.node)
    }

    #[test]
    fn an_empty_fleet_has_no_node() {
        assert_eq!(Fleet::default().place(&ask(None)), None);
    }

    #[test]
    fn the_nearest_node_wins() {
        let mut fleet = fleet(&[("berlin", BERLIN), ("tokyo", TOKYO)]);
        assert_eq!(chosen(&mut fleet, &ask(Some(TOKYO))), Some(id("tokyo")));
        assert_eq!(chosen(&mut fleet, &ask(Some(PARIS))), Some(id("berlin")));
    }

    #[test]
    fn a_room_gets_another_node_only_where_that_is_much_nearer_and_takes_pipes() {
        let piped = |place| NodeInfo { pipes: true, ..info(place) };
        let mut fleet = fleet(&[("tokyo", TOKYO)]);
        for (name, place) in [("berlin", BERLIN), ("paris", PARIS)] {
            fleet.hello(UnixMs(0), id(name), piped(place)).unwrap();
        }
        let beside = |client, serving: &str| PlaceRequest { serving: vec![id(serving)], ..ask(Some(client)) };
        assert_eq!(chosen(&mut fleet, &beside(PARIS, "berlin")), Some(id("berlin")), "near enough");
        assert_eq!(chosen(&mut fleet, &beside(TOKYO, "berlin")), Some(id("berlin")), "the one there takes none");
        fleet.hello(UnixMs(0), id("tokyo"), piped(TOKYO)).unwrap();
        assert_eq!(chosen(&mut fleet, &beside(TOKYO, "berlin")), Some(id("tokyo")));
        let both = PlaceRequest { serving: vec![id("tokyo"), id("berlin")], ..ask(Some(PARIS)) };
        assert_eq!(chosen(&mut fleet, &both), Some(id("berlin")), "the nearer one of the room");
        let gone = PlaceRequest { serving: vec![id("oslo")], ..ask(Some(TOKYO)) };
        assert_eq!(chosen(&mut fleet, &gone), Some(id("tokyo")), "the room will hear soon enough");
    }

    #[test]
    fn a_wanted_region_is_had_or_nothing() {
        let region = |name| Some(RegionName::try_from(name).unwrap());
        let mut fleet = fleet(&[("berlin", BERLIN)]);
        let far = NodeInfo { region: region("tokyo").unwrap(), ..info(TOKYO) };
        fleet.hello(UnixMs(0), id("tokyo"), far).unwrap();
        let from_paris = |region| PlaceRequest { region, ..ask(Some(PARIS)) };
        assert_eq!(chosen(&mut fleet, &from_paris(region("tokyo"))), Some(id("tokyo")));
        assert!(!fleet.has_node(&from_paris(region("mars"))));
        assert_eq!(chosen(&mut fleet, &from_paris(None)), Some(id("berlin")));
    }

    #[test]
    fn a_wanted_node_is_had_while_it_takes_rooms() {
        let mut fleet = fleet(&[("berlin", BERLIN), ("tokyo", TOKYO)]);
        let there = |node: &str| PlaceRequest { node: Some(id(node)), ..ask(Some(PARIS)) };
        assert_eq!(fleet.availability(&id("tokyo")), Some(Availability::Available));
        assert_eq!(chosen(&mut fleet, &there("tokyo")), Some(id("tokyo")));
        let failed = PlaceRequest { exclude: vec![id("tokyo")], ..there("tokyo") };
        assert_eq!(chosen(&mut fleet, &failed), Some(id("berlin")), "it has just failed there");
        fleet.drain(&id("tokyo"), true);
        assert_eq!(fleet.availability(&id("tokyo")), Some(Availability::Draining));
        assert_eq!(chosen(&mut fleet, &there("tokyo")), Some(id("berlin")));
        assert_eq!(fleet.availability(&id("oslo")), None);
        assert_eq!(chosen(&mut fleet, &there("oslo")), Some(id("berlin")));
    }

    #[test]
    fn rooms_spread_between_heartbeats() {
        let mut fleet = fleet(&[("a", BERLIN), ("b", BERLIN)]);
        let first = chosen(&mut fleet, &ask(None));
        assert_ne!(first, chosen(&mut fleet, &ask(None)));
    }

    #[test]
    fn a_busy_node_is_passed_over_for_a_farther_one() {
        let mut fleet = fleet(&[("berlin", BERLIN), ("tokyo", TOKYO)]);
        fleet.heartbeat(UnixMs(1), &id("berlin"), NodeLoad { cpu: 0.95, ..NodeLoad::default() });
        assert_eq!(chosen(&mut fleet, &ask(Some(BERLIN))), Some(id("tokyo")));
        fleet.gone(&id("tokyo"));
        assert_eq!(chosen(&mut fleet, &ask(Some(BERLIN))), Some(id("berlin")), "busy is better than none");
    }

    fn limited(limits: NodeLimits) -> NodeInfo {
        NodeInfo { limits, ..info(BERLIN) }
    }

    #[test]
    fn the_scarcest_thing_decides_and_what_is_used_up_is_not_had() {
        let mut fleet = Fleet::default();
        let thin = NodeLimits { max_egress_bps: Some(1_000), ..NodeLimits::default() };
        fleet.hello(UnixMs(0), id("thin"), limited(thin)).unwrap();
        fleet.hello(UnixMs(0), id("wide"), info(BERLIN)).unwrap();
        let sends = |egress_bps| NodeLoad { egress_bps, ..NodeLoad::default() };
        fleet.heartbeat(UnixMs(1), &id("thin"), sends(500));
        fleet.heartbeat(UnixMs(1), &id("wide"), NodeLoad { sessions: 4, ..sends(500) });
        assert_eq!(chosen(&mut fleet, &ask(None)), Some(id("wide")));
        fleet.gone(&id("wide"));
        assert_eq!(chosen(&mut fleet, &ask(None)), Some(id("thin")));
        fleet.heartbeat(UnixMs(1), &id("thin"), sends(1_000));
        assert!(!fleet.has_node(&ask(None)));
    }

    #[test]
    fn what_costs_less_is_worth_a_way() {
        let cents = |cents| NodeLimits { egress_cost: Some(cents), ..NodeLimits::default() };
        for (cost, wanted) in [(1.0, "near"), (20.0, "far")] {
            let mut fleet = Fleet::default();
            fleet.hello(UnixMs(0), id("near"), limited(cents(cost))).unwrap();
            let far = NodeInfo { place: PARIS, ..limited(cents(0.1)) };
            fleet.hello(UnixMs(0), id("far"), far).unwrap();
            fleet.heartbeat(UnixMs(1), &id("far"), NodeLoad { sessions: 1, ..NodeLoad::default() });
            assert_eq!(chosen(&mut fleet, &ask(Some(BERLIN))), Some(id(wanted)), "{cost}");
        }
    }

    #[test]
    fn a_room_of_many_goes_where_all_of_them_fit() {
        let mut fleet = fleet(&[("a", BERLIN)]);
        fleet.heartbeat(UnixMs(1), &id("a"), NodeLoad { sessions: 4, ..NodeLoad::default() });
        assert!(!fleet.has_node(&PlaceRequest { sessions: 7, ..ask(None) }));
        assert!(fleet.has_node(&PlaceRequest { sessions: 6, ..ask(None) }));
    }

    #[test]
    fn a_region_says_how_many_nodes_it_needs_and_why() {
        let mut fleet = fleet(&[("a", BERLIN), ("b", BERLIN), ("c", BERLIN)]);
        let mut need = |sessions: [u32; 3], draining: bool| {
            for (node, sessions) in ["a", "b", "c"].into_iter().zip(sessions) {
                fleet.heartbeat(UnixMs(1), &id(node), NodeLoad { sessions, ..NodeLoad::default() });
            }
            fleet.drain(&id("c"), draining);
            let [need] = &fleet.needs()[..] else { panic!("one region") };
            (need.nodes, need.draining, need.sessions, need.wanted, need.why)
        };
        assert_eq!(need([6, 6, 5], false), (3, 0, 17, 3, NeedReason::Fits));
        assert_eq!(need([9, 9, 9], false), (3, 0, 27, 5, NeedReason::Load));
        assert_eq!(need([5, 5, 5], true), (2, 1, 15, 3, NeedReason::Draining), "where is that to go?");
        assert_eq!(need([0, 1, 0], false), (3, 0, 1, 1, NeedReason::Idle));
    }

    #[test]
    fn a_node_that_is_busy_for_long_lets_go_of_some() {
        use relief::HOT_HEARTBEATS;
        let sessions = |sessions| NodeLoad { sessions, ..NodeLoad::default() };
        let relief = |others: &[(&str, Place, u32)], beats: u32| {
            let mut fleet = fleet(&[("hot", BERLIN)]);
            for (name, place, load) in others {
                fleet.hello(UnixMs(0), id(name), info(*place)).unwrap();
                fleet.heartbeat(UnixMs(1), &id(name), sessions(*load));
            }
            for _ in 0..beats {
                fleet.heartbeat(UnixMs(1), &id("hot"), sessions(10));
            }
            (fleet.relieve(&id("hot")), fleet)
        };
        let (asked, mut fleet) = relief(&[("cool", BERLIN, 1)], HOT_HEARTBEATS);
        assert_eq!(
            (asked, fleet.relieve(&id("hot"))),
            (Some(3), None),
            "a quarter, and then it is seen what comes of it"
        );
        assert_eq!(relief(&[("cool", BERLIN, 7)], HOT_HEARTBEATS).0, Some(2), "half of the difference");
        assert_eq!(relief(&[("cool", BERLIN, 1)], HOT_HEARTBEATS - 1).0, None, "it may be over soon");
        assert_eq!(relief(&[("warm", BERLIN, 8)], HOT_HEARTBEATS).0, None, "not worth it");
        assert_eq!(relief(&[("far", TOKYO, 1)], HOT_HEARTBEATS).0, None);
        assert_eq!(relief(&[], HOT_HEARTBEATS).0, None);

        let (_, mut fleet) = relief(&[("cool", BERLIN, 1)], HOT_HEARTBEATS - 1);
        fleet.heartbeat(UnixMs(2), &id("hot"), sessions(8));
        fleet.heartbeat(UnixMs(3), &id("hot"), sessions(10));
        assert_eq!(fleet.relieve(&id("hot")), None, "it was not busy in between");
        fleet.drain(&id("cool"), true);
        (0..HOT_HEARTBEATS).for_each(|_| fleet.heartbeat(UnixMs(4), &id("hot"), sessions(10)));
        assert_eq!(fleet.relieve(&id("hot")), None, "nobody takes them");
        fleet.drain(&id("cool"), false);
        assert_eq!(fleet.relieve(&id("hot")), Some(3));
        assert_eq!(fleet.relieve(&id("stranger")), None);
    }

    #[test]
    fn full_draining_and_excluded_nodes_are_never_chosen() {
        let mut fleet = fleet(&[("a", BERLIN), ("b", BERLIN), ("c", BERLIN)]);
        fleet.heartbeat(UnixMs(1), &id("a"), NodeLoad { sessions: 10, ..NodeLoad::default() });
        fleet.draining(&id("b"));
        let request = PlaceRequest { exclude: vec![id("c")], ..ask(None) };
        assert!(!fleet.has_node(&request));
        assert_eq!(chosen(&mut fleet, &ask(None)), Some(id("c")));
    }

    #[test]
    fn an_operators_word_and_the_nodes_own_are_two() {
        let mut fleet = fleet(&[("a", BERLIN)]);
        let status =
            |fleet: &Fleet| fleet.status(&id("a"), None).map(|status| (status.draining, status.load.is_some()));
        assert_eq!(status(&fleet), Some((false, false)));
        fleet.drain(&id("a"), true);
        fleet.heartbeat(UnixMs(1), &id("a"), NodeLoad::default());
        assert_eq!((status(&fleet), fleet.has_node(&ask(None))), (Some((true, true)), false));
        fleet.drain(&id("a"), false);
        assert!(fleet.has_node(&ask(None)));
        fleet.draining(&id("a"));
        fleet.drain(&id("a"), false);
        assert_eq!((status(&fleet), fleet.has_node(&ask(None))), (Some((true, true)), false));
        assert_eq!(fleet.status(&id("b"), None), None);
    }

    #[test]
    fn a_silent_node_is_lost_and_comes_back_by_hello() {
        let mut fleet = fleet(&[("a", BERLIN), ("b", BERLIN)]);
        fleet.heartbeat(UnixMs(SILENCE_MS), &id("b"), NodeLoad::default());
        assert!(fleet.sweep(UnixMs(SILENCE_MS)).is_empty());
        assert_eq!(fleet.sweep(UnixMs(SILENCE_MS + 1)), [id("a")]);
        fleet.heartbeat(UnixMs(SILENCE_MS + 2), &id("a"), NodeLoad::default());
        let request = PlaceRequest { exclude: vec![id("b")], ..ask(None) };
        assert!(!fleet.has_node(&request), "a heartbeat alone does not bring it back");
        fleet.hello(UnixMs(SILENCE_MS + 3), id("a"), info(BERLIN)).unwrap();
        assert!(fleet.has_node(&request));
    }

    #[test]
    fn no_node_is_lost_before_it_could_dial_in_again() {
        let mut fleet = fleet(&[("a", BERLIN)]);
        let known = |fleet: &Fleet, at| [id("a"), id("b")].map(|node| fleet.may_have(UnixMs(at), &node));
        assert_eq!(known(&fleet, 0), [true, false]);
        fleet.gather(UnixMs(10));
        assert_eq!(known(&fleet, 9 + RESTART_GRACE_MS), [true, true]);
        assert_eq!(known(&fleet, 10 + RESTART_GRACE_MS), [true, false]);
    }

    #[test]
    fn another_control_version_is_refused() {
        let old = NodeInfo { control_version: CONTROL_VERSION + 1, ..info(BERLIN) };
        let refused = Fleet::default().hello(UnixMs(0), id("a"), old);
        assert_eq!(refused, Err(HelloError::Version(CONTROL_VERSION + 1)));
    }
}
