//! Nodes of the room: their links, what they report, what they are told anew after a link broke.

use std::collections::{BTreeMap, HashMap};

use livekit_protocol as proto;
use livekit_protocol::DisconnectReason;
use livekit_protocol::leave_request::Action;
use livekit_protocol::request_response::Reason;
use livekit_protocol::signal_response::Message;
use serde::{Deserialize, Serialize};
use shared::control::{
    CONTROL_VERSION, Description, MediaState, MidTrack, NodeToRoom, PeerConnections, Placed, RefusalReason, RoomToNode,
    SrtpProfile,
};
use shared::geo::Place;
use shared::ids::{NodeId, ParticipantSid, RegionName, SessionKey, TrackSid};

use super::Room;
use super::event::UnixMs;
use super::pipes::End;
use super::session::{Media, Progress, Session, Side};
use super::track_info;
use super::turn::Turn;

/// Milliseconds a node that was told to attach has for dialing in and saying hello.
pub const DIAL_TIMEOUT_MS: u64 = 10_000;
/// Milliseconds a node whose link broke has for dialing in again; its sessions live on meanwhile.
pub const RELINK_GRACE_MS: u64 = 1_000;
/// Milliseconds that nodes have for it when the edge itself has started again: every link broke, and all dial at once.
pub const RESTART_GRACE_MS: u64 = 5_000;
/// How often a node may refuse a session for its token before the client is told.
const MAX_REFUSALS: u8 = 3;

/// Row `node`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Node {
    pub(super) region: RegionName,
    pub(super) link: Link,
    /// It wants its sessions to go on elsewhere.
    #[serde(default)]
    pub(super) draining: bool,
    /// It takes pipes.
    #[serde(default)]
    pub(super) takes_pipes: bool,
    /// Where it is, once it has said so.
    #[serde(default)]
    pub(super) place: Option<Place>,
    /// Its ends of pipes, by the node at the other end.
    #[serde(default)]
    pub(super) pipes: BTreeMap<NodeId, End>,
}

impl Node {
    fn new(region: RegionName, link: Link) -> Self {
        Self { region, link, draining: false, takes_pipes: false, place: None, pipes: BTreeMap::new() }
    }

    /// It was told to attach.
    pub(super) fn expected(placed: Placed, since: UnixMs) -> Self {
        let Placed { region, piped_at: place, .. } = placed;
        Self { takes_pipes: place.is_some(), place, ..Self::new(region, Link::Expected { since }) }
    }
}

/// A node's room link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Link {
    /// Told to attach.
    Expected { since: UnixMs },
    /// Open; `Hello` is to come.
    Linked { since: UnixMs },
    /// Said which sessions it has.
    Ready,
    /// Broke.
    Away { since: UnixMs },
}

impl Link {
    /// When the node counts as lost.
    pub(super) fn lost_at(self) -> Option<UnixMs> {
        match self {
            Self::Expected { since } | Self::Linked { since } => Some(since.after(DIAL_TIMEOUT_MS)),
            Self::Away { since } => Some(since.after(RELINK_GRACE_MS)),
            Self::Ready => None,
        }
    }
}

impl Room {
    pub(super) fn node_linked(&mut self, turn: &mut Turn, id: &NodeId, region: RegionName, rejoin_ticket: String) {
        let replaces = self.nodes.get(id).is_some_and(|node| matches!(node.link, Link::Linked { .. } | Link::Ready));
        if replaces {
            self.doubt_deliveries(id);
        }
        // Which pipes it has, and whether it takes any, it says itself.
        let linked = Node::new(region, Link::Linked { since: turn.now });
        let linked = match self.nodes.get(id).cloned() {
            Some(Node { pipes, takes_pipes, place, .. }) => Node { pipes, takes_pipes, place, ..linked },
            None => linked,
        };
        self.put_node(id, linked);
        let sessions = self.sessions_on(id).into_iter().filter_map(|sid| Some(self.sessions.get(&sid)?.key(&sid)));
        let sessions = sessions.chain(self.leaving(id)).collect();
        turn.send_node(id, RoomToNode::Welcome { room_sid: self.record.sid.clone(), rejoin_ticket, sessions });
    }

    pub(super) fn node_gone(&mut self, since: UnixMs, id: &NodeId) {
        if let Some(node) = self.node_mut(id) {
            node.link = Link::Away { since };
            self.doubt_deliveries(id);
        }
    }

    /// What was sent last may not have arrived.
    pub(super) fn doubt_deliveries(&mut self, id: &NodeId) {
        for sid in self.sessions_on(id) {
            let Some(session) = self.session_mut(&sid).filter(|session| session.opened) else { continue };
            if session.offer == Progress::Sent {
                session.offer = Progress::Unsent;
            }
            if session.answer == Progress::Sent {
                session.answer = Progress::Unsent;
                session.answer_repeated = true;
            }
        }
    }

    pub(super) fn node_message(&mut self, turn: &mut Turn, id: &NodeId, message: NodeToRoom) {
        let session = match message {
            NodeToRoom::Hello { control_version, sessions, pipes, place } => {
                self.hello(turn, id, control_version, &sessions);
                let Some(node) = self.node_mut(id) else { return };
                let was_somewhere = std::mem::replace(&mut node.place, place).is_some();
                self.pipes_known(turn, id, pipes);
                if !was_somewhere {
                    self.may_be_far(id);
                }
                return;
            }
            NodeToRoom::SessionRefused { session, reason, .. } => {
                return self.session_refused(turn, id, session, reason);
            }
            NodeToRoom::Speakers { speakers, newcomers } => {
                return self.speakers_changed(turn, id, speakers, &newcomers);
            }
            NodeToRoom::ConnectionQuality { changed, same, newcomers } => {
                return self.quality_changed(turn, id, &changed, &same, &newcomers);
            }
            NodeToRoom::Draining { draining } => return self.node_drains(id, draining),
            NodeToRoom::PipeOpened { pipe, end } => return self.pipe_opened(turn, id, pipe, end),
            NodeToRoom::PipeState { pipe, state } => return self.pipe_state(turn, id, pipe, state),
            NodeToRoom::PipeFilled { pipe, streams } => return self.pipe_filled(turn, id, pipe, streams),
            ref other => session_named(other).cloned(),
        };
        let Some(session) = session.filter(|session| self.is_current(id, session)) else {
            self.counters.dropped_stale += 1;
            return;
        };
        self.session_message(turn, &session.participant, message);
    }

    fn session_message(&mut self, turn: &mut Turn, sid: &ParticipantSid, message: NodeToRoom) {
        match message {
            NodeToRoom::Answer { description, mid_to_track, .. } => self.answered(turn, sid, description, mid_to_track),
            NodeToRoom::Offer { description, mid_to_track, .. } => self.offered(turn, sid, description, mid_to_track),
            NodeToRoom::DescriptionRejected { id, .. } => self.description_rejected(turn, sid, id),
            NodeToRoom::SectionsNeeded { audios: num_audios, videos: num_videos, .. } => {
                let needed = proto::MediaSectionsRequirement { num_audios, num_videos };
                self.send(turn, sid, Message::MediaSectionsRequirement(needed));
            }
            NodeToRoom::MediaState { state, srtp, .. } => self.media_state(turn, sid, state, srtp),
            NodeToRoom::TrackReceived { track, media, .. } => self.track_received(turn, sid, &track, &media),
            NodeToRoom::TrackEnded { track, .. } => self.end_tracks(turn, sid, &[track]),
            NodeToRoom::TrackBound { track, .. } => self.track_bound(turn, sid, &track),
            NodeToRoom::CodecNeeded { track, codec, .. } => self.codec_needed(turn, sid, &track, codec),
            NodeToRoom::StreamState { track, paused, .. } => self.stream_state(turn, sid, &track, paused),
            NodeToRoom::Hello { .. }
            | NodeToRoom::SessionRefused { .. }
            | NodeToRoom::Draining { .. }
            | NodeToRoom::Speakers { .. }
            | NodeToRoom::PipeOpened { .. }
            | NodeToRoom::PipeState { .. }
            | NodeToRoom::PipeFilled { .. }
            | NodeToRoom::ConnectionQuality { .. } => {}
            NodeToRoom::CallAnswer { packet, .. } => self.call_answered(turn, &packet),
            NodeToRoom::DataChannels { channels, .. } => {
                if let Some(session) = self.session_mut(sid) {
                    session.channels = channels;
                }
            }
        }
    }

    /// The node says which sessions of this room it has: the others are opened, or their clients told to rejoin.
    fn hello(&mut self, turn: &mut Turn, id: &NodeId, control_version: u32, present: &[SessionKey]) {
        if control_version != CONTROL_VERSION {
            self.counters.bad_messages += 1;
            return self.lose_node(turn, id);
        }
        let Some(node) = self.node_mut(id) else { return };
        node.link = Link::Ready;
        let (mut live, mut missing, mut fresh) = (Vec::new(), Vec::new(), Vec::new());
        for sid in self.sessions_on(id) {
            match self.sessions.get(&sid) {
                Some(session) if !session.opened => fresh.push(sid),
                Some(session) if present.contains(&session.key(&sid)) => live.push(sid),
                _ => missing.push(sid),
            }
        }
        let leaving = self.leaving(id);
        for session in present.iter().filter(|session| !self.is_current(id, session) && !leaving.contains(session)) {
            turn.send_node(id, RoomToNode::CloseSession { session: session.clone(), quietly: false });
        }
        for sid in &missing {
            // From here on nothing is sent to a session that is not there.
            if let Some(session) = self.session_mut(sid) {
                session.opened = false;
            }
        }
        for sid in live {
            self.bring_up_to_date(turn, &sid, id);
        }
        for sid in missing {
            self.restart_session(turn, &sid);
        }
        for sid in fresh {
            self.open_session(turn, &sid);
        }
    }

    /// All that the node may have missed. Every message of it may be repeated without harm.
    fn bring_up_to_date(&mut self, turn: &mut Turn, sid: &ParticipantSid, id: &NodeId) {
        let Some(session) = self.sessions.get(sid) else { return };
        let key = session.key(sid);
        let own = self.tracks_of(sid);
        for (track, publication) in own.iter().filter_map(|t| Some((t, self.publications.get(t)?))) {
            let (sid, muted) = (track.clone(), publication.info.muted);
            let track = track_info::announcement(track, &publication.info);
            turn.send_node(id, RoomToNode::AnnounceTrack { session: key.clone(), track });
            turn.send_node(id, RoomToNode::MuteTrack { session: key.clone(), track: sid, muted });
        }
        let subscriptions = self.served_to(sid);
        let served: Vec<&TrackSid> = subscriptions.iter().map(|subscription| &subscription.track).collect();
        let stops: Vec<TrackSid> =
            self.visible_tracks().into_iter().filter(|t| !served.contains(&t) && !own.contains(t)).collect();
        if !subscriptions.is_empty() {
            turn.send_node(id, RoomToNode::Subscribe { session: key.clone(), subscriptions });
        }
        if !stops.is_empty() {
            turn.send_node(id, RoomToNode::Unsubscribe { session: key, tracks: stops });
        }
        self.tell_grants(turn, sid);
        self.pass_on(turn, sid);
        self.ask_for_restart(turn, sid);
    }

    /// Passes the client's descriptions on that the node does not have yet.
    pub(super) fn pass_on(&mut self, turn: &mut Turn, sid: &ParticipantSid) {
        let Some((node, key)) = self.open_session_of(sid) else { return };
        let Some(session) = self.sessions.get(sid).filter(|session| !session.is_held()) else { return };
        let (offer, answer) = (session.offer == Progress::Unsent, session.answer == Progress::Unsent);
        if let Some(offer) = self.description(sid, Side::ClientOffer).filter(|_| offer) {
            turn.send_node(&node, RoomToNode::Offer { session: key.clone(), description: offer.clone() });
        }
        if let Some(answer) = self.description(sid, Side::ClientAnswer).filter(|_| answer) {
            turn.send_node(&node, RoomToNode::Answer { session: key, description: answer.clone() });
        }
        if !offer && !answer {
            return;
        }
        let Some(session) = self.session_mut(sid) else { return };
        if offer {
            session.offer = Progress::Sent;
        }
        if answer {
            session.answer = Progress::Sent;
        }
    }

    /// `OpenSession` says nothing of mutes.
    pub(super) fn mute_anew(&self, turn: &mut Turn, id: &NodeId, session: &SessionKey) {
        let own = self.participants.get(&session.participant).into_iter().flat_map(|p| &p.tracks);
        for track in own.filter(|t| self.publications.get(t).is_some_and(|p| p.info.muted)) {
            let mute = RoomToNode::MuteTrack { session: session.clone(), track: track.clone(), muted: true };
            turn.send_node(id, mute);
        }
    }

    fn session_refused(&mut self, turn: &mut Turn, id: &NodeId, key: Option<SessionKey>, reason: RefusalReason) {
        self.counters.refused_sessions += 1;
        let Some(key) = key.filter(|key| self.is_current(id, key)) else { return };
        let sid = &key.participant;
        let alone = !self.sessions_on(id).iter().any(|other| other != sid && self.is_opened(other));
        let Some(session) = self.session_mut(sid) else { return };
        session.refusals += 1;
        let again = reason == RefusalReason::BadToken && session.refusals < MAX_REFUSALS;
        if reason == RefusalReason::Draining {
            // It does not have this room, so none of the sessions is there.
            self.lose_node(turn, id);
        } else if again {
            self.restart_session(turn, sid);
        } else if alone && reason != RefusalReason::BadToken {
            self.lose_node(turn, id);
        } else if self.sessions.get(sid).is_some_and(|session| session.moving.is_some()) {
            self.end_session(turn, sid, DisconnectReason::ServerShutdown);
        } else {
            self.remove(turn, sid, DisconnectReason::JoinFailure, Some(Action::Disconnect));
        }
    }

    fn is_opened(&self, sid: &ParticipantSid) -> bool {
        self.sessions.get(sid).is_some_and(|session| session.opened)
    }

    fn answered(&mut self, turn: &mut Turn, sid: &ParticipantSid, answer: Description, mids: Vec<MidTrack>) {
        let expected = self.description(sid, Side::ClientOffer).is_some_and(|offer| offer.id == answer.id);
        let Some(session) = self.session_mut(sid) else { return };
        if expected {
            session.offer = Progress::Done;
        }
        // With two connections the offers of the other one say it.
        if session.peer_connections == PeerConnections::Single {
            session.mid_to_track.clone_from(&mids);
        }
        for MidTrack { mid, .. } in &mids {
            if !session.carried.contains(mid) {
                session.carried.push(mid.clone());
            }
        }
        self.note_arrival(turn, sid, None);
        self.put_description(sid, Side::NodeAnswer, Some(answer.clone()));
        self.send(turn, sid, Message::Answer(session_description("answer", answer, mids)));
    }

    fn offered(&mut self, turn: &mut Turn, sid: &ParticipantSid, offer: Description, mids: Vec<MidTrack>) {
        // Said again after the link broke, and not lost.
        if self.description(sid, Side::NodeOffer) == Some(&offer) {
            return;
        }
        let Some(session) = self.session_mut(sid) else { return };
        session.answer = Progress::Done;
        session.answer_repeated = false;
        session.restart_due = false;
        session.mid_to_track.clone_from(&mids);
        self.put_description(sid, Side::NodeOffer, Some(offer));
        self.put_description(sid, Side::ClientAnswer, None);
        if self.note_offered(sid) {
            self.pass_offer(turn, sid);
        }
    }

    /// Passes the node's last offer on to the client.
    pub(super) fn pass_offer(&mut self, turn: &mut Turn, sid: &ParticipantSid) {
        let (Some(offer), Some(session)) = (self.description(sid, Side::NodeOffer), self.sessions.get(sid)) else {
            return;
        };
        let offer = session_description("offer", offer.clone(), session.mid_to_track.clone());
        self.send(turn, sid, Message::Offer(offer));
    }

    /// The node cannot use a description of the client; it goes on as before.
    fn description_rejected(&mut self, turn: &mut Turn, sid: &ParticipantSid, id: u32) {
        let is_offer = self.description(sid, Side::ClientOffer).is_some_and(|offer| offer.id == id);
        let Some(session) = self.session_mut(sid) else { return };
        if is_offer && session.offer == Progress::Sent {
            session.offer = Progress::Done;
        } else if session.answer_repeated {
            // The first copy had arrived before the link broke.
            session.answer = Progress::Done;
            return;
        }
        self.counters.rejected_descriptions += 1;
        let text = format!("session description {id} cannot be used");
        self.respond(turn, sid, 0, Reason::InvalidRequest, text, None);
    }

    fn media_state(&mut self, turn: &mut Turn, sid: &ParticipantSid, state: MediaState, srtp: Option<SrtpProfile>) {
        let Some(session) = self.session_mut(sid).filter(|session| session.media != Media::Ended) else { return };
        session.media = state.into();
        session.srtp = srtp.or(session.srtp);
        session.failed &= state != MediaState::Connected;
        session.refusals = 0;
        if state == MediaState::Connected {
            self.note_arrival(turn, sid, Some(Media::Connected));
        }
        match state {
            MediaState::Connected => self.became_active(turn, sid),
            MediaState::Disconnected => {}
            MediaState::Failed => self.end_session(turn, sid, DisconnectReason::ConnectionTimeout),
        }
    }

    fn became_active(&mut self, turn: &mut Turn, sid: &ParticipantSid) {
        if self.participants.get(sid).is_none_or(|participant| participant.active) {
            return;
        }
        if let Some(participant) = self.participant_mut(sid) {
            participant.active = true;
        }
        self.hook_joined(turn, sid);
        self.call_agents(turn);
        if self.is_told_later(turn, sid) {
            self.update_own(turn, sid);
        } else {
            self.publish_update(turn, sid);
        }
        self.offer_all_tracks(turn, sid);
    }

    /// A message of an older session, or of a node the session is not on, is dropped.
    pub(super) fn is_current(&self, id: &NodeId, key: &SessionKey) -> bool {
        let current = |session: &Session| session.generation == key.generation && session.node.as_ref() == Some(id);
        self.sessions.get(&key.participant).is_some_and(current)
    }

    pub(super) fn sessions_on(&self, id: &NodeId) -> Vec<ParticipantSid> {
        let here = self.sessions.iter().filter(|(_, session)| session.node.as_ref() == Some(id));
        here.map(|(sid, _)| sid.clone()).collect()
    }
}

fn session_named(message: &NodeToRoom) -> Option<&SessionKey> {
    match message {
        NodeToRoom::Answer { session, .. }
        | NodeToRoom::Offer { session, .. }
        | NodeToRoom::DescriptionRejected { session, .. }
        | NodeToRoom::SectionsNeeded { session, .. }
        | NodeToRoom::CallAnswer { session, .. }
        | NodeToRoom::DataChannels { session, .. }
        | NodeToRoom::MediaState { session, .. }
        | NodeToRoom::TrackReceived { session, .. }
        | NodeToRoom::TrackEnded { session, .. }
        | NodeToRoom::TrackBound { session, .. }
        | NodeToRoom::CodecNeeded { session, .. }
        | NodeToRoom::StreamState { session, .. } => Some(session),
        NodeToRoom::Hello { .. }
        | NodeToRoom::SessionRefused { .. }
        | NodeToRoom::Draining { .. }
        | NodeToRoom::Speakers { .. }
        | NodeToRoom::PipeOpened { .. }
        | NodeToRoom::PipeState { .. }
        | NodeToRoom::PipeFilled { .. }
        | NodeToRoom::ConnectionQuality { .. } => None,
    }
}

fn session_description(kind: &str, given: Description, mids: Vec<MidTrack>) -> proto::SessionDescription {
    let mid_to_track_id: HashMap<String, String> =
        mids.into_iter().map(|entry| (entry.mid, entry.track.to_string())).collect();
    proto::SessionDescription { r#type: kind.to_owned(), sdp: given.sdp, id: given.id, mid_to_track_id }
}
