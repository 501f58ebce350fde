//! The room that a participant is forwarded from.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use shared::control::{PipeEnd, PipeKey, PipedStream, PipedTrack, RoomToNode};
use shared::ids::{NodeId, ParticipantSid, RoomName, TrackSid};

use super::{MAX_DESTINATIONS, News, Offered, Shown, Talk, Wanted, WantedTrack};
use crate::room::Room;
use crate::room::event::UnixMs;
use crate::room::participant::Participant;
use crate::room::service::{Answer, Code, Error};
use crate::room::turn::Turn;

/// Who, and where to.
pub(in crate::room) type ForwardKey = (ParticipantSid, RoomName);

/// Row `forward`: a participant is shown in another room.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(in crate::room) struct Forward {
    /// The other room has taken it.
    pub(super) accepted: bool,
    talk: Talk,
    /// How its connection is, as the other room was told last.
    #[serde(default)]
    pub(super) score: Option<Option<u8>>,
    ends: BTreeMap<PipeKey, Outlet>,
}

/// An end of a pipe, here.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
struct Outlet {
    /// Where it is; `None`: nowhere yet, or no more.
    node: Option<NodeId>,
    /// What it is like, once the node has opened it.
    like: Option<PipeEnd>,
    /// The other one.
    theirs: Option<PipeEnd>,
    wanted: Vec<WantedTrack>,
    /// What the node was told to put in; `None`: it may have missed it.
    fill: Option<Vec<PipedTrack>>,
    /// How it does.
    streams: Vec<PipedStream>,
    /// It is over, which the other room does not know yet.
    void: bool,
}

impl Outlet {
    fn end(&mut self) {
        *self = Self { void: true, ..Self::default() };
    }
}

impl Room {
    /// Has a participant shown in another room: that is asked next.
    pub(in crate::room) fn forward(&mut self, identity: &str, to: RoomName) -> Result<Answer, Error> {
        let sid = self.named(identity)?;
        // One hop, no loops.
        self.not_forwarded(&sid)?;
        let key = (sid.clone(), to);
        if let Some(known) = self.forwards.get(&key) {
            return Ok(if known.accepted { Answer::Done } else { Answer::Forward(sid) });
        }
        if self.forwards.keys().filter(|(participant, _)| *participant == sid).count() >= MAX_DESTINATIONS {
            let text = format!("participant is forwarded to {MAX_DESTINATIONS} rooms already");
            return Err(Error::new(Code::ResourceExhausted, &text));
        }
        self.put_forward(&key, Some(Forward::default()));
        Ok(Answer::Forward(sid))
    }

    /// False: it was before.
    pub(super) fn forward_accepted(&mut self, key: &ForwardKey) -> bool {
        if self.forwards.get(key).is_none_or(|forward| forward.accepted) {
            return false;
        }
        self.forward_mut(key).map(|forward| forward.accepted = true).is_some()
    }

    /// The other room wants these pipes.
    pub(super) fn hear_wanted(
        &mut self,
        turn: &mut Turn,
        key: ForwardKey,
        version: u64,
        wanted: Vec<Wanted>,
    ) -> Result<Answer, Error> {
        let Some(forward) = self.forward_mut(&key) else { return Err(Error::no_participant()) };
        if !forward.talk.hear(version) {
            return Ok(Answer::Done);
        }
        let mut before = std::mem::take(&mut forward.ends);
        let (mut connect, mut tracks) = (Vec::new(), Vec::new());
        for Wanted { key: pipe, end, tracks: wanted } in wanted {
            let mut outlet = before.remove(&pipe).unwrap_or_default();
            if let (Some(node), Some(end), None) = (&outlet.node, &end, &outlet.theirs) {
                connect.push((node.clone(), pipe, end.clone()));
            }
            tracks.extend(wanted.iter().map(|(track, _)| track.clone()));
            outlet.theirs = end.or(outlet.theirs);
            outlet.wanted = wanted;
            forward.ends.insert(pipe, outlet);
        }
        for (pipe, outlet) in before {
            self.close_outlet(turn, pipe, outlet.node.as_ref());
        }
        for (node, pipe, end) in connect {
            self.tell_node(turn, &node, RoomToNode::ConnectPipe { pipe, end });
        }
        for track in tracks {
            self.want_forwarded(turn, &track);
        }
        Ok(Answer::Done)
    }

    /// It is shown there no more. What was said, if it was shown.
    pub(super) fn stop_forwarding(&mut self, turn: &mut Turn, key: &ForwardKey) -> Option<Talk> {
        let forward = self.forwards.get(key)?.clone();
        self.put_forward(key, None);
        for (pipe, outlet) in &forward.ends {
            self.close_outlet(turn, *pipe, outlet.node.as_ref());
            outlet.wanted.iter().for_each(|(track, _)| self.want_less(turn, track));
        }
        Some(forward.talk)
    }

    /// What is wanted of a track elsewhere.
    pub(in crate::room) fn forwards_want(&self, track: &TrackSid) -> impl Iterator<Item = Option<u8>> {
        let wanted = self.forwards.values().flat_map(|forward| forward.ends.values()).flat_map(|end| &end.wanted);
        wanted.filter(move |(wanted, _)| wanted == track).map(|(_, max_layer)| *max_layer)
    }

    /// Has the ends be where the participant's media is.
    pub(super) fn route_from_here(&mut self, turn: &mut Turn) {
        for (key, forward) in self.forwards.clone() {
            let at = self.media_at(&key.0).filter(|id| self.nodes.contains_key(*id)).cloned();
            let mut ends = forward.ends.clone();
            for (pipe, outlet) in &mut ends {
                if outlet.node.is_some() && outlet.node != at {
                    self.close_outlet(turn, *pipe, outlet.node.as_ref());
                    outlet.end();
                }
                if outlet.node.is_none() && !outlet.void && at.as_ref().is_some_and(|id| self.can_open_at(id)) {
                    outlet.node.clone_from(&at);
                    self.open_outlet(turn, *pipe, outlet);
                }
                self.fill_outlet(turn, &key.0, *pipe, outlet);
            }
            if ends != forward.ends {
                self.put_forward(&key, Some(Forward { ends, ..forward }));
            }
        }
    }

    fn open_outlet(&self, turn: &mut Turn, pipe: PipeKey, outlet: &Outlet) {
        let Some(id) = &outlet.node else { return };
        self.open_end(turn, id, pipe, true);
        if let Some(end) = outlet.theirs.clone() {
            self.tell_node(turn, id, RoomToNode::ConnectPipe { pipe, end });
        }
    }

    fn fill_outlet(&self, turn: &mut Turn, sid: &ParticipantSid, pipe: PipeKey, outlet: &mut Outlet) {
        let Some(id) = outlet.node.as_ref().filter(|id| self.listens(id)) else { return };
        let is_there =
            |track: &TrackSid| self.publications.get(track).is_some_and(|p| p.publisher == *sid && p.visible);
        let piped = |(track, max_layer): &WantedTrack| PipedTrack {
            publisher: sid.clone(),
            track: track.clone(),
            max_layer: *max_layer,
        };
        let tracks: Vec<_> = outlet.wanted.iter().filter(|(track, _)| is_there(track)).map(piped).collect();
        if outlet.fill.as_ref() == Some(&tracks) {
            return;
        }
        self.tell_node(turn, id, RoomToNode::FillPipe { pipe, tracks: tracks.clone() });
        outlet.fill = Some(tracks);
    }

    fn close_outlet(&self, turn: &mut Turn, pipe: PipeKey, node: Option<&NodeId>) {
        if let Some(id) = node {
            self.tell_node(turn, id, RoomToNode::ClosePipe { pipe });
        }
    }

    /// Tells the other rooms what has changed.
    pub(super) fn say_shown(&mut self, turn: &mut Turn) {
        for (key, forward) in self.forwards.clone() {
            let Some(news) = self.as_told(&key, &forward) else { continue };
            let mut talk = forward.talk;
            if let Some(version) = talk.say(turn.now, &news) {
                self.put_forward(&key, Some(Forward { talk, ..forward }));
                self.send_word(turn, &key.1, &key.0, version, news);
            }
        }
    }

    fn as_told(&self, (sid, to): &ForwardKey, forward: &Forward) -> Option<News> {
        let participant = self.participants.get(sid)?;
        let visible = participant.tracks.iter().filter_map(|track| Some((track, self.publications.get(track)?)));
        let visible = visible.filter(|(_, publication)| publication.visible);
        let tracks = visible.map(|(track, publication)| (track.clone(), publication.info.clone())).collect();
        let offered = |(key, outlet): (&PipeKey, &Outlet)| Offered {
            key: *key,
            end: outlet.like.clone(),
            streams: outlet.streams.clone(),
            void: outlet.void,
        };
        let ends = forward.ends.iter().map(offered).collect();
        let participant = as_seen(participant, to);
        Some(News::Shown(Box::new(Shown { first: !forward.accepted, participant, tracks, ends })))
    }

    pub(super) fn source_opened(&mut self, id: &NodeId, pipe: PipeKey, like: &PipeEnd) -> bool {
        self.outlet_at(id, pipe, |outlet| outlet.like = Some(like.clone()))
    }

    pub(super) fn source_filled(&mut self, id: &NodeId, pipe: PipeKey, streams: &[PipedStream]) -> bool {
        self.outlet_at(id, pipe, |outlet| {
            // A node speaks for those who are on it, and for nobody else.
            let is_told = |of: &&PipedStream| outlet.fill.iter().flatten().any(|track| track.track == of.track);
            outlet.streams = streams.iter().filter(is_told).cloned().collect();
        })
    }

    pub(super) fn source_state(&mut self, id: &NodeId, pipe: PipeKey, failed: bool) -> bool {
        self.outlet_at(id, pipe, |outlet| {
            if failed {
                outlet.end();
            }
        })
    }

    /// Brings the ends at a node that is back up to date. Those that it has.
    pub(super) fn outlets_known(&mut self, turn: &mut Turn, id: &NodeId, present: &[PipeKey]) -> Vec<PipeKey> {
        let mut known = Vec::new();
        for (key, mut forward) in self.forwards.clone() {
            for (pipe, outlet) in &mut forward.ends {
                if outlet.node.as_ref() != Some(id) {
                    continue;
                }
                if !present.contains(pipe) {
                    outlet.end();
                    continue;
                }
                known.push(*pipe);
                outlet.fill = None;
                if let Some(end) = outlet.theirs.clone() {
                    self.tell_node(turn, id, RoomToNode::ConnectPipe { pipe: *pipe, end });
                }
            }
            if self.forwards.get(&key) != Some(&forward) {
                self.put_forward(&key, Some(forward));
            }
        }
        known
    }

    /// False: there is no such end here.
    fn outlet_at(&mut self, id: &NodeId, pipe: PipeKey, change: impl FnOnce(&mut Outlet)) -> bool {
        let has = |forward: &Forward| forward.ends.get(&pipe).is_some_and(|outlet| outlet.node.as_ref() == Some(id));
        let Some(key) = self.forwards.iter().find(|(_, forward)| has(forward)).map(|(key, _)| key.clone()) else {
            return false;
        };
        if let Some(outlet) = self.forward_mut(&key).and_then(|forward| forward.ends.get_mut(&pipe)) {
            change(outlet);
        }
        true
    }
}

/// What another room is to know of it: nothing of its client, and nothing that changes by itself.
fn as_seen(participant: &Participant, to: &RoomName) -> Participant {
    let mut seen = Participant {
        version: 1,
        auto_subscribe: false,
        adaptive_stream: false,
        place: None,
        tracks: Vec::new(),
        queued: Vec::new(),
        connection: None,
        gone_since: None,
        refresh_at: UnixMs(u64::MAX),
        served_from: None,
        untold: false,
        relayed: false,
        answer_at: None,
        former: None,
        ..participant.clone()
    };
    seen.claims.room_config = None;
    (seen.claims.iat, seen.claims.nbf, seen.claims.exp) = (None, None, 0);
    seen.claims.jti.clear();
    seen.claims.kind_details.retain(|detail| detail != FORWARDED);
    seen.claims.kind_details.push(FORWARDED.to_owned());
    let grant = seen.claims.video.get_or_insert_default();
    grant.room = to.to_string();
    grant.destination_room.clear();
    seen
}

/// LiveKit's `KindDetail` of one who is forwarded, as in tokens.
const FORWARDED: &str = "forwarded";
