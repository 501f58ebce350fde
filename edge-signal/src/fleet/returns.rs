//! Which rooms are told that there is a node near people of theirs: those for which it was too far away, full or not there
//! when they asked. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use shared::control::{PlaceRequest, SPREAD_KM};
use shared::geo::Place;
use shared::ids::{NodeId, RoomName};

use super::placement::BUSY;
use super::{Fleet, Linked};

/// Heartbeats in a row by which a node takes rooms and is not busy, before rooms come back to it: one that ends again at once
/// moves nobody twice.
pub const STEADY_HEARTBEATS: u32 = 10;
/// Rooms that are told with each heartbeat: where few calls move at once, each has its pictures back sooner.
pub const ROOMS_AT_A_TIME: usize = 4;
/// People in the same field of so many degrees are near each other; it bounds what is kept of a room.
const FIELD_DEGREES: f64 = 10.0;

/// Somebody of a room is served from afar because the fleet knew no nearer node. A row of the fleet's object, by room and
/// [`Afar::field`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Afar {
    /// Which room.
    pub room: RoomName,
    /// Where somebody is.
    pub client: Place,
    /// How far the node is, km.
    pub km: f64,
}

impl Afar {
    /// About where it is.
    #[must_use]
    pub fn field(&self) -> i32 {
        #[allow(clippy::cast_possible_truncation, reason = "-18 to 18")]
        let [row, column] = [self.client.latitude, self.client.longitude].map(|at| (at / FIELD_DEGREES).floor() as i32);
        row * 100 + column
    }

    fn is_nearer(&self, node: Place) -> bool {
        self.client.distance_km(node) + SPREAD_KM < self.km
    }
}

/// Rooms that a node tells of itself, each with its rows.
pub(super) type Untold = BTreeMap<RoomName, Vec<Afar>>;

impl Fleet {
    /// Whether whoever asked is served from afar by the node that was chosen: this is to be noted. A node that the room has just
    /// lost, and the fleet has not, has to be steady anew.
    pub fn served_from_afar(&mut self, request: &PlaceRequest, chosen: &NodeId) -> Option<Afar> {
        let client = request.client.filter(|_| request.region.is_none() && request.node.is_none())?;
        let km = client.distance_km(self.nodes.get(chosen)?.info.place);
        let afar = Afar { room: request.room.clone(), client, km };
        if km <= SPREAD_KM {
            return None;
        }
        for id in &request.exclude {
            if let Some(linked) = self.nodes.get_mut(id).filter(|linked| afar.is_nearer(linked.info.place)) {
                linked.steady = 0;
            }
        }
        Some(afar)
    }

    /// Whether a node has now been steady for long enough: [`Fleet::returns`] wants to know who is served from afar.
    #[must_use]
    pub fn is_back(&self, node: &NodeId) -> bool {
        self.nodes.get(node).is_some_and(|linked| linked.info.pipes && linked.steady == STEADY_HEARTBEATS)
    }

    /// Who is served from afar, as a node that is back has to know.
    pub fn returns(&mut self, node: &NodeId, afar: Vec<Afar>) {
        let Some(linked) = self.nodes.get_mut(node) else { return };
        linked.untold.clear();
        for one in afar.into_iter().filter(|one| one.is_nearer(linked.info.place)) {
            linked.untold.entry(one.room.clone()).or_default().push(one);
        }
    }

    /// The next rooms that are to be told of a node, with what was noted of each, and where the node is.
    pub fn next_told(&mut self, node: &NodeId) -> Option<(Place, Vec<Vec<Afar>>)> {
        let linked = self.nodes.get_mut(node).filter(|linked| linked.steady >= STEADY_HEARTBEATS)?;
        let next = std::iter::from_fn(|| linked.untold.pop_first()).map(|(_, rows)| rows).take(ROOMS_AT_A_TIME);
        let next: Vec<_> = next.collect();
        (!next.is_empty()).then_some((linked.info.place, next))
    }
}

impl Linked {
    /// Counts a heartbeat by which it may take rooms, or not.
    pub(super) fn steady(&mut self) {
        let is_steady = self.used() < BUSY && !self.is_draining();
        self.steady = if is_steady { self.steady.saturating_add(1) } else { 0 };
    }
}

#[cfg(test)]
mod tests {
    use shared::control::{NodeInfo, NodeLoad};
    use shared::ids::RegionName;

    use super::super::tests::{BERLIN, PARIS, TOKYO, id, info};
    use super::*;
    use crate::room::event::UnixMs;

    fn hello(fleet: &mut Fleet, name: &str, place: Place) {
        fleet.hello(UnixMs(0), id(name), NodeInfo { pipes: true, ..info(place) }).unwrap();
    }

    fn beat(fleet: &mut Fleet, name: &str, times: u32, sessions: u32) -> usize {
        let load = NodeLoad { sessions, ..NodeLoad::default() };
        let beats = (0..times).filter(|_| {
            fleet.heartbeat(UnixMs(1), &id(name), load);
            fleet.is_back(&id(name))
        });
        beats.count()
    }

    fn ask(room: &str, client: Place) -> PlaceRequest {
        PlaceRequest::of(RoomName::try_from(room).unwrap(), Some(client))
    }

    /// Asks, and is served from Tokyo.
    fn afar(fleet: &mut Fleet, request: &PlaceRequest) -> Option<Afar> {
        assert_eq!(fleet.place(request).unwrap().node, id("tokyo"));
        fleet.served_from_afar(request, &id("tokyo"))
    }

    fn told(fleet: &mut Fleet, name: &str) -> Vec<String> {
        let (_, rooms) = fleet.next_told(&id(name)).unwrap_or((BERLIN, Vec::new()));
        rooms.iter().map(|rows| rows[0].room.to_string()).collect()
    }

    #[test]
    fn who_is_served_from_afar_hears_of_a_node_nearby_once_it_is_steady() {
        let mut fleet = Fleet::default();
        hello(&mut fleet, "tokyo", TOKYO);
        let noted = afar(&mut fleet, &ask("den", BERLIN)).unwrap();
        assert!((noted.km - 8_900.0).abs() < 100.0);
        assert_eq!(afar(&mut fleet, &ask("den", TOKYO)), None);
        let attic = afar(&mut fleet, &ask("den", PARIS)).unwrap();
        assert_ne!(noted.field(), attic.field());

        hello(&mut fleet, "berlin", BERLIN);
        assert_eq!(beat(&mut fleet, "berlin", STEADY_HEARTBEATS - 1, 0), 0);
        assert_eq!(beat(&mut fleet, "berlin", 1, 0), 1);
        fleet.returns(&id("berlin"), vec![noted.clone(), attic]);
        let (place, rooms) = fleet.next_told(&id("berlin")).unwrap();
        assert_eq!((place, rooms.len(), rooms[0].len()), (BERLIN, 1, 2), "a room hears of it once");
        assert_eq!(fleet.next_told(&id("berlin")), None);
        assert_eq!(beat(&mut fleet, "berlin", 100, 0), 0, "it is back once");
        fleet.returns(&id("tokyo"), vec![noted]);
        assert_eq!(fleet.next_told(&id("tokyo")), None, "that is where they are");
    }

    #[test]
    fn a_node_that_drains_is_busy_or_comes_anew_is_steady_from_then_on() {
        let mut fleet = Fleet::default();
        hello(&mut fleet, "berlin", BERLIN);
        let before = STEADY_HEARTBEATS - 1;
        assert_eq!(beat(&mut fleet, "berlin", before, 0), 0);
        assert_eq!(beat(&mut fleet, "berlin", 1, 9), 0);
        assert_eq!(beat(&mut fleet, "berlin", before, 0), 0);
        fleet.drain(&id("berlin"), true);
        fleet.drain(&id("berlin"), false);
        assert_eq!(beat(&mut fleet, "berlin", before, 0), 0);
        hello(&mut fleet, "berlin", BERLIN);
        assert_eq!(beat(&mut fleet, "berlin", before, 0), 0);
        fleet.draining(&id("berlin"));
        assert_eq!(beat(&mut fleet, "berlin", 100, 0), 0);
    }

    #[test]
    fn few_rooms_are_told_at_a_time_and_none_while_it_drains() {
        let mut fleet = Fleet::default();
        hello(&mut fleet, "berlin", BERLIN);
        beat(&mut fleet, "berlin", STEADY_HEARTBEATS, 0);
        let rooms = (0..=ROOMS_AT_A_TIME).map(|n| RoomName::try_from(format!("room{n}")).unwrap());
        fleet.returns(&id("berlin"), rooms.map(|room| Afar { room, client: BERLIN, km: 9_000.0 }).collect());
        assert_eq!(told(&mut fleet, "berlin").len(), ROOMS_AT_A_TIME);
        fleet.drain(&id("berlin"), true);
        assert_eq!(told(&mut fleet, "berlin"), [""; 0]);
        fleet.drain(&id("berlin"), false);
        beat(&mut fleet, "berlin", 1, 0);
        assert_eq!(told(&mut fleet, "berlin"), [""; 0], "it will ask anew");
    }

    #[test]
    fn a_node_that_a_room_has_lost_and_the_fleet_has_not_is_offered_later() {
        let mut fleet = Fleet::default();
        hello(&mut fleet, "tokyo", TOKYO);
        hello(&mut fleet, "berlin", BERLIN);
        beat(&mut fleet, "berlin", 100, 0);
        let lost = PlaceRequest { exclude: vec![id("berlin")], ..ask("den", PARIS) };
        assert!(afar(&mut fleet, &lost).is_some());
        assert_eq!(beat(&mut fleet, "berlin", STEADY_HEARTBEATS, 0), 1);
    }

    #[test]
    fn what_is_kept_somewhere_is_not_noted() {
        let mut fleet = Fleet::default();
        hello(&mut fleet, "tokyo", TOKYO);
        let kept = PlaceRequest { region: Some(RegionName::try_from("r").unwrap()), ..ask("den", BERLIN) };
        assert_eq!(afar(&mut fleet, &kept), None);
        let kept = PlaceRequest { node: Some(id("tokyo")), ..ask("den", BERLIN) };
        assert_eq!(afar(&mut fleet, &kept), None);
    }
}
