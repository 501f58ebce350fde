//! Who is served from afar is taken to a node nearby once there is one. The fleet says when; **nobody looks for one meanwhile,
//! so that rooms can sleep.**

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use shared::control::SPREAD_KM;
use shared::geo::Place;
use shared::ids::{NodeId, ParticipantSid};

use super::Room;
use super::event::UnixMs;
use super::node::{Link, Node};
use super::placement::PLACE_TIMEOUT_MS;
use super::record::Placing;
use super::session::{Media, Session};
use super::turn::Turn;

/// Most places that a room looks for nodes near to at a time.
const MAX_SOUGHT: usize = 8;

/// Milliseconds that a client has after it joined before its socket is closed for this: SDKs publish then, those that joined anew
/// what they had, and what they ask on a socket that closes is lost (the native ones give the track up after 10 s).
pub const SETTLE_MS: u64 = 5_000;

/// How often the fleet is asked that does not answer.
const MAX_ATTEMPTS: u8 = 5;

/// There may be a node near there that the room does not have; part of its row until that is settled.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Sought {
    place: Place,
    /// How often the fleet was asked.
    asked: u8,
}

/// Who is served from afar though there may be a node near them.
#[derive(Default)]
struct Afar {
    /// They can go at once, to a node that listens.
    ready: BTreeMap<NodeId, Vec<ParticipantSid>>,
    /// The room has no node for them.
    without: Vec<ParticipantSid>,
    /// Somebody is on the way to somewhere, or away from the room just now.
    is_busy: bool,
    /// When the first of those who came a moment ago has settled.
    settles_at: Option<UnixMs>,
}

impl Room {
    /// There may be a node near there for people who are served from afar.
    pub(super) fn seek_near(&mut self, place: Place) {
        let sought = Sought { place, asked: 0 };
        let all = &self.record.sought;
        if self.record.is_pinned() || self.record.gathered || all.contains(&sought) || all.len() >= MAX_SOUGHT {
            return;
        }
        self.record_mut().sought.push(sought);
    }

    /// These are going where the room has a node: whether there is none nearer is not known, unless the fleet has just said so.
    pub(super) fn may_go_far(&mut self, turn: &Turn, going: &[ParticipantSid]) {
        let mut far: Vec<Place> = going.iter().filter_map(|sid| self.place_of(sid)).collect();
        far.retain(|place| turn.may_be_nearer(*place) && !self.serving_far_from(Some(*place)).is_empty());
        self.seek_near_all(far);
    }

    /// A node has said where it is: not everyone who has come there may be near it.
    pub(super) fn may_be_far(&mut self, id: &NodeId) {
        let mut here: Vec<Place> = self.sessions_on(id).iter().filter_map(|sid| self.place_of(sid)).collect();
        here.retain(|place| self.spread_km(id, Some(*place)).is_some_and(|km| km > SPREAD_KM));
        self.seek_near_all(here);
    }

    /// Once for all who are near to each other.
    fn seek_near_all(&mut self, mut places: Vec<Place>) {
        while let Some(first) = places.first().copied() {
            self.seek_near(first);
            places.retain(|place| place.distance_km(first) > SPREAD_KM);
        }
    }

    /// Takes people to nodes near the places that are sought. Where the room has none, the fleet is asked for it, once.
    pub(super) fn go_near(&mut self, turn: &mut Turn) {
        let settles_at = self.go_near_until(turn);
        if settles_at != self.record.settles_at {
            self.record_mut().settles_at = settles_at;
        }
    }

    /// Whoever it waits for has settled; it looks again when nothing else is to be done first.
    pub(super) fn forget_settled(&mut self, now: UnixMs) {
        if self.record.settles_at.is_some_and(|at| at <= now) {
            self.record_mut().settles_at = None;
        }
    }

    /// Until when it waits for somebody to settle.
    fn go_near_until(&mut self, turn: &mut Turn) -> Option<UnixMs> {
        while let Some(sought) = self.record.sought.first().copied() {
            let Afar { ready, without, is_busy, settles_at } = self.served_from_afar(turn.now, sought.place);
            for (target, sids) in ready {
                self.move_gently(turn, &sids, &target);
            }
            if self.may_have_node_for(turn, sought, &without) || is_busy || settles_at.is_some() {
                return settles_at;
            }
            self.record_mut().sought.remove(0);
        }
        None
    }

    /// Whether a node may come for those who are near none of the room: the fleet is asked, or one is dialing.
    fn may_have_node_for(&mut self, turn: &mut Turn, sought: Sought, without: &[ParticipantSid]) -> bool {
        let Some(first) = without.first().and_then(|sid| self.place_of(sid)) else { return false };
        let is_dialing = |node: &Node| matches!(node.link, Link::Expected { .. } | Link::Linked { .. });
        if self.nodes.values().any(is_dialing) {
            return true;
        }
        match self.record.placing {
            Placing::Asked { since, .. } if since.after(PLACE_TIMEOUT_MS) > turn.now => return true,
            Placing::Backoff { until, .. } if until > turn.now => return true,
            // Nobody has answered.
            Placing::Asked { .. } | Placing::Backoff { .. } if sought.asked < MAX_ATTEMPTS => {}
            Placing::Idle if sought.asked == 0 => {}
            Placing::Idle | Placing::Asked { .. } | Placing::Backoff { .. } => return false,
        }
        self.ask_fleet(turn, Some(first), None, without);
        if let Some(sought) = self.record_mut().sought.first_mut() {
            sought.asked += 1;
        }
        true
    }

    fn served_from_afar(&self, now: UnixMs, near: Place) -> Afar {
        let mut afar = Afar::default();
        for (sid, session) in self.sessions.iter().filter(|(_, session)| session.media != Media::Ended) {
            let Some(place) = self.place_of(sid) else { continue };
            let Some(here) = &session.node else {
                afar.is_busy = true;
                continue;
            };
            let is_far = |from_km: f64| self.spread_km(here, Some(place)).is_some_and(|km| from_km + SPREAD_KM < km);
            if !is_far(place.distance_km(near)) {
                continue;
            }
            if !self.can_go(sid, session, here) {
                afar.is_busy = true;
                continue;
            }
            let target = self.node_for(Some(place)).filter(|id| self.listens(id));
            match target.filter(|id| self.spread_km(id, Some(place)).is_some_and(is_far)) {
                Some(target) => match self.settles_at(sid).filter(|at| *at > now) {
                    Some(at) => afar.settles_at = Some(afar.settles_at.map_or(at, |first| first.min(at))),
                    None => afar.ready.entry(target.clone()).or_default().push(sid.clone()),
                },
                None if self.serving_far_from(Some(place)).is_empty() => {}
                None => afar.without.push(sid.clone()),
            }
        }
        afar
    }

    /// From when on its client can come back on a new socket without losing what it asks; `None`: it keeps its socket.
    fn settles_at(&self, sid: &ParticipantSid) -> Option<UnixMs> {
        let participant = self.participants.get(sid).filter(|_| !self.moves_quietly(sid))?;
        Some(participant.joined_at.after(SETTLE_MS))
    }

    /// It is served well where it is, and its client is there to be told.
    fn can_go(&self, sid: &ParticipantSid, session: &Session, here: &NodeId) -> bool {
        let is_here = self.participants.get(sid).is_some_and(|participant| participant.connection.is_some());
        is_here && session.moving.is_none() && session.media == Media::Connected && self.listens(here)
    }
}
