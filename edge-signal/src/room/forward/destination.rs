//! The room that a participant is forwarded to.

use std::collections::BTreeMap;

use livekit_protocol as proto;
use livekit_protocol::{DisconnectReason, RoomConfiguration};
use serde::{Deserialize, Serialize};
use shared::control::{PipeEnd, PipeKey, PipedStream, RoomToNode};
use shared::ids::{NodeId, ParticipantSid, RoomName, TrackSid};

use super::{News, Offered, Shown, Talk, Wanted, WantedTrack};
use crate::room::Room;
use crate::room::dynacast::Dynacast;
use crate::room::event::UnixMs;
use crate::room::participant::Participant;
use crate::room::pipes::REOPEN_AFTER_MS;
use crate::room::publication::Publication;
use crate::room::service::{Answer, Code, Error};
use crate::room::turn::Turn;

/// Row `forwarded`: a participant of another room is shown here.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(in crate::room) struct Forwarded {
    /// Its room.
    from: RoomName,
    /// Who it is there.
    participant: ParticipantSid,
    talk: Talk,
    /// How its connection is, if its room has said so.
    #[serde(default)]
    pub(super) score: Option<Option<u8>>,
    ends: BTreeMap<NodeId, Inlet>,
}

/// An end of a pipe, here.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Inlet {
    key: PipeKey,
    /// What it is like, once the node has opened it.
    like: Option<PipeEnd>,
    /// The other one.
    theirs: Option<PipeEnd>,
    wanted: Vec<WantedTrack>,
    /// What comes out.
    streams: Vec<PipedStream>,
    /// It has failed, and is opened anew then.
    reopen_at: Option<UnixMs>,
}

impl Room {
    /// The source shows a participant here, or how it is by now.
    pub(super) fn show(
        &mut self,
        turn: &mut Turn,
        from: &RoomName,
        participant: &ParticipantSid,
        version: u64,
        shown: Shown,
    ) -> Result<Answer, Error> {
        let Shown { first, participant: seen, tracks, ends } = shown;
        let known = self.forwarded_from(from, participant);
        let is_new = known.is_none();
        let sid = match known {
            Some(sid) => sid,
            None if first => self.begin_showing(turn, from, participant, &seen)?,
            None => return Err(Error::no_participant()),
        };
        let Some(forwarded) = self.forwarded_mut(&sid) else { return Err(Error::no_participant()) };
        if forwarded.talk.hear(version) {
            self.connect_inlets(turn, &sid, ends);
            self.take_over_profile(turn, &sid, seen);
            self.take_over_tracks(turn, &sid, tracks);
        }
        if is_new {
            self.announce_room(turn);
        }
        Ok(Answer::Done)
    }

    fn begin_showing(
        &mut self,
        turn: &mut Turn,
        from: &RoomName,
        participant: &ParticipantSid,
        seen: &Participant,
    ) -> Result<ParticipantSid, Error> {
        if self.identities.contains_key(&seen.identity) {
            let text = "a participant with this identity is in the destination room already";
            return Err(Error::new(Code::FailedPrecondition, text));
        }
        let is_dependent = seen.is_dependent();
        if self.is_full_for(self.record.max_participants, &seen.identity, is_dependent) {
            return Err(Error::new(Code::FailedPrecondition, "room is full"));
        }
        self.create_unless_there(turn, &RoomConfiguration::default());
        if !self.record.joined && !is_dependent {
            self.record_mut().joined = true;
        }
        let sid = ParticipantSid::from_random(turn.random());
        let (joined_at, active) = (turn.now, false);
        let shown = Participant { sid: sid.clone(), joined_at, active, tracks: Vec::new(), ..seen.clone() };
        self.put_member(shown);
        let forwarded = Forwarded {
            from: from.clone(),
            participant: participant.clone(),
            talk: Talk::default(),
            score: None,
            ends: BTreeMap::new(),
        };
        self.put_forwarded(&sid, Some(forwarded));
        self.tell_of_newcomer(turn, &sid, None);
        Ok(sid)
    }

    /// All but what is this room's own.
    fn take_over_profile(&mut self, turn: &mut Turn, sid: &ParticipantSid, seen: Participant) {
        let Some(before) = self.participants.get(sid).cloned() else { return };
        let permission = seen.permission.clone();
        let after = Participant {
            sid: before.sid.clone(),
            joined_at: before.joined_at,
            version: before.version,
            tracks: before.tracks.clone(),
            untold: before.untold,
            permission: before.permission.clone(),
            ..seen
        };
        if after != before
            && let Some(participant) = self.participant_mut(sid)
        {
            *participant = after.clone();
        }
        if permission != before.permission {
            self.change_permission(turn, sid, permission);
        } else if after != before {
            self.publish_update(turn, sid);
        }
        if after.active && !before.active {
            self.hook_joined(turn, sid);
            self.call_agents(turn);
        }
        if after.allowed != before.allowed {
            let own = self.tracks_of(sid);
            self.settle_everyone(turn, &own);
        }
    }

    fn take_over_tracks(&mut self, turn: &mut Turn, sid: &ParticipantSid, tracks: Vec<(TrackSid, proto::TrackInfo)>) {
        let own = self.tracks_of(sid);
        let gone: Vec<_> =
            own.iter().filter(|known| tracks.iter().all(|(track, _)| track != *known)).cloned().collect();
        if !gone.is_empty() {
            self.end_tracks(turn, sid, &gone);
        }
        let (mut fresh, mut is_news) = (Vec::new(), false);
        for (track, info) in tracks {
            match self.publications.get(&track) {
                Some(known) if known.publisher != *sid || known.info == info => {}
                Some(_) => {
                    is_news = true;
                    if let Some(known) = self.publication_mut(&track) {
                        known.info = info;
                    }
                }
                None => {
                    self.put_publication(&track, publication(sid, info));
                    if let Some(participant) = self.participant_mut(sid) {
                        participant.tracks.push(track.clone());
                    }
                    fresh.push(track);
                }
            }
        }
        fresh.iter().for_each(|track| self.hook_published(turn, track));
        if is_news || !fresh.is_empty() {
            self.publish_update(turn, sid);
        }
        if !fresh.is_empty() {
            self.call_agents(turn);
            self.settle_everyone(turn, &fresh);
        }
    }

    /// It has left the source, or the source knows nothing of it.
    pub(super) fn stop_showing(
        &mut self,
        turn: &mut Turn,
        from: &RoomName,
        participant: &ParticipantSid,
        reason: DisconnectReason,
    ) -> Result<Answer, Error> {
        if let Some(sid) = self.forwarded_from(from, participant) {
            // There is nobody to be told.
            self.forget_forwarded(turn, &sid);
            self.remove(turn, &sid, reason, None);
        }
        Ok(Answer::Done)
    }

    /// Closes its pipes. Where it came from, and what was said, if it was forwarded.
    pub(super) fn forget_forwarded(
        &mut self,
        turn: &mut Turn,
        sid: &ParticipantSid,
    ) -> Option<(RoomName, ParticipantSid, Talk)> {
        let forwarded = self.forwarded.get(sid)?.clone();
        self.put_forwarded(sid, None);
        for (id, inlet) in &forwarded.ends {
            self.close_inlet(turn, id, inlet);
        }
        Some((forwarded.from, forwarded.participant, forwarded.talk))
    }

    /// Has an end on each node where somebody is served its tracks.
    pub(super) fn route_to_here(&mut self, turn: &mut Turn) {
        if self.forwarded.is_empty() {
            return;
        }
        let mut wanted = self.wanted_of_forwarded();
        for (sid, forwarded) in self.forwarded.clone() {
            let mut wanted = wanted.remove(&sid).unwrap_or_default();
            let mut ends = BTreeMap::new();
            for (id, inlet) in &forwarded.ends {
                match wanted.remove(id) {
                    Some(wanted) => drop(ends.insert(id.clone(), Inlet { wanted, ..inlet.clone() })),
                    None => self.close_inlet(turn, id, inlet),
                }
            }
            for (id, wanted) in wanted.into_iter().filter(|(id, _)| self.can_open_at(id)) {
                let [a, b, c, d, ..] = turn.random();
                let key = PipeKey(u32::from_be_bytes([a, b, c, d]));
                self.open_end(turn, &id, key, false);
                let inlet = Inlet { key, like: None, theirs: None, wanted, streams: Vec::new(), reopen_at: None };
                ends.insert(id, inlet);
            }
            if ends != forwarded.ends {
                self.put_forwarded(&sid, Some(Forwarded { ends, ..forwarded }));
            }
        }
    }

    /// What is wanted of each participant that is forwarded, by node: where somebody is served it, if only paused.
    fn wanted_of_forwarded(&self) -> BTreeMap<ParticipantSid, BTreeMap<NodeId, Vec<WantedTrack>>> {
        let mut all: BTreeMap<_, BTreeMap<_, BTreeMap<TrackSid, Option<u8>>>> = BTreeMap::new();
        for (to, piped, paused) in self.wanted_elsewhere() {
            if !self.forwarded.contains_key(&piped.publisher) || !self.nodes.contains_key(&to) {
                continue;
            }
            let tracks = all.entry(piped.publisher).or_default().entry(to).or_default();
            if !paused {
                let most = tracks.entry(piped.track).or_insert(piped.max_layer);
                *most = most.zip(piped.max_layer).map(|(a, b)| a.max(b));
            }
        }
        let listed = |(id, tracks): (NodeId, BTreeMap<_, _>)| (id, tracks.into_iter().collect());
        all.into_iter().map(|(sid, nodes)| (sid, nodes.into_iter().map(listed).collect())).collect()
    }

    /// The source says what its ends are like.
    fn connect_inlets(&mut self, turn: &mut Turn, sid: &ParticipantSid, offered: Vec<Offered>) {
        let Some(forwarded) = self.forwarded.get(sid).cloned() else { return };
        let mut ends = forwarded.ends.clone();
        for offer in offered {
            let Some((id, inlet)) = ends.iter_mut().find(|(_, inlet)| inlet.key == offer.key) else { continue };
            let (id, pipe) = (id.clone(), offer.key);
            if inlet.reopen_at.is_some() {
                continue;
            }
            if offer.void {
                self.close_inlet(turn, &id, inlet);
                // One that was up goes on elsewhere. One that never was is not tried again and again.
                let wait = if inlet.theirs.is_some() { 0 } else { REOPEN_AFTER_MS };
                inlet.reopen_at = Some(turn.now.after(wait));
                continue;
            }
            if let (Some(end), None) = (&offer.end, &inlet.theirs) {
                inlet.theirs = Some(end.clone());
                self.tell_node(turn, &id, RoomToNode::ConnectPipe { pipe, end: end.clone() });
            }
            if inlet.streams != offer.streams {
                inlet.streams.clone_from(&offer.streams);
                self.tell_node(turn, &id, RoomToNode::DrawPipe { pipe, streams: offer.streams });
            }
        }
        ends.retain(|_, inlet| inlet.reopen_at.is_none_or(|at| at > turn.now));
        self.put_forwarded(sid, Some(Forwarded { ends, ..forwarded }));
    }

    /// Tells the sources which pipes are wanted, where that has changed.
    pub(super) fn say_wanted(&mut self, turn: &mut Turn) {
        for (sid, forwarded) in self.forwarded.clone() {
            let open = forwarded.ends.values().filter(|inlet| inlet.reopen_at.is_none());
            let wanted =
                |inlet: &Inlet| Wanted { key: inlet.key, end: inlet.like.clone(), tracks: inlet.wanted.clone() };
            let news = News::Wanted(open.map(wanted).collect());
            let mut talk = forwarded.talk;
            if let Some(version) = talk.say(turn.now, &news) {
                let (from, participant) = (forwarded.from.clone(), forwarded.participant.clone());
                self.put_forwarded(&sid, Some(Forwarded { talk, ..forwarded }));
                self.send_word(turn, &from, &participant, version, news);
            }
        }
    }

    /// When a pipe from another room is to be opened anew.
    pub(in crate::room) fn forward_deadline(&self) -> Option<UnixMs> {
        self.forwarded.values().flat_map(|forwarded| forwarded.ends.values()).filter_map(|inlet| inlet.reopen_at).min()
    }

    /// Those that failed a while ago may be opened anew.
    pub(in crate::room) fn check_forwards(&mut self, now: UnixMs) {
        let due = |inlet: &Inlet| inlet.reopen_at.is_some_and(|at| at <= now);
        for (sid, mut forwarded) in self.forwarded.clone() {
            if forwarded.ends.values().any(due) {
                forwarded.ends.retain(|_, inlet| !due(inlet));
                self.put_forwarded(&sid, Some(forwarded));
            }
        }
    }

    pub(super) fn destination_opened(&mut self, id: &NodeId, pipe: PipeKey, like: &PipeEnd) -> bool {
        self.inlet_at(id, pipe, |inlet| inlet.like = Some(like.clone()))
    }

    pub(super) fn destination_state(&mut self, now: UnixMs, id: &NodeId, pipe: PipeKey, failed: bool) -> bool {
        self.inlet_at(id, pipe, |inlet| {
            if failed {
                inlet.reopen_at = Some(now.after(REOPEN_AFTER_MS));
            }
        })
    }

    /// Brings the ends at a node that is back up to date. Those that it has.
    pub(super) fn inlets_known(&mut self, turn: &mut Turn, id: &NodeId, present: &[PipeKey]) -> Vec<PipeKey> {
        let mut known = Vec::new();
        for (sid, mut forwarded) in self.forwarded.clone() {
            let Some(inlet) = forwarded.ends.get(id).filter(|inlet| inlet.reopen_at.is_none()) else { continue };
            let pipe = inlet.key;
            if !present.contains(&pipe) {
                forwarded.ends.remove(id);
                self.put_forwarded(&sid, Some(forwarded));
                continue;
            }
            known.push(pipe);
            if let Some(end) = inlet.theirs.clone() {
                self.tell_node(turn, id, RoomToNode::ConnectPipe { pipe, end });
            }
            self.tell_node(turn, id, RoomToNode::DrawPipe { pipe, streams: inlet.streams.clone() });
        }
        known
    }

    pub(super) fn has_inlet(&self, id: &NodeId, pipe: PipeKey) -> bool {
        self.forwarded.values().any(|forwarded| forwarded.ends.get(id).is_some_and(|inlet| inlet.key == pipe))
    }

    fn inlet_at(&mut self, id: &NodeId, pipe: PipeKey, change: impl FnOnce(&mut Inlet)) -> bool {
        let is_it = |inlet: &Inlet| inlet.key == pipe && inlet.reopen_at.is_none();
        let mut all = self.forwarded.iter();
        let found = all.find(|(_, forwarded)| forwarded.ends.get(id).is_some_and(is_it)).map(|(sid, _)| sid.clone());
        let Some(sid) = found else { return false };
        if let Some(inlet) = self.forwarded_mut(&sid).and_then(|forwarded| forwarded.ends.get_mut(id)) {
            change(inlet);
        }
        true
    }

    pub(super) fn forwarded_from(&self, from: &RoomName, participant: &ParticipantSid) -> Option<ParticipantSid> {
        let is_it = |known: &Forwarded| known.from == *from && known.participant == *participant;
        self.forwarded.iter().find(|(_, known)| is_it(known)).map(|(sid, _)| sid.clone())
    }

    fn close_inlet(&self, turn: &mut Turn, id: &NodeId, inlet: &Inlet) {
        if inlet.reopen_at.is_none() {
            self.tell_node(turn, id, RoomToNode::ClosePipe { pipe: inlet.key });
        }
    }
}

/// A track that arrives elsewhere. Its publisher is told nothing from here.
fn publication(sid: &ParticipantSid, info: proto::TrackInfo) -> Publication {
    Publication {
        publisher: sid.clone(),
        info,
        visible: true,
        hooked: false,
        told_subscribed: true,
        dynacast: Dynacast::default(),
        mute_untold: false,
    }
}
