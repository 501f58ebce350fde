//! A client comes back on a new socket: its session and tracks go on, and it is told all that it may have missed.

use livekit_protocol as proto;
use livekit_protocol::leave_request::Action;
use livekit_protocol::participant_info::State;
use livekit_protocol::signal_response::Message;
use livekit_protocol::{DisconnectReason, ReconnectReason, SyncState};
use serde::{Deserialize, Serialize};
use shared::control::{PeerConnections, ReceivedData, RoomToNode};
use shared::ids::{Identity, ParticipantSid, RoomName, TrackSid};

use super::Room;
use super::effect::Effect;
use super::event::{Admission, ConnectionId, JoinAttempt, UnixMs};
use super::participant::Participant;
use super::session::{Media, Progress, Side};
use super::turn::Turn;
use super::update::{dismiss, leave, updates};
use crate::ice_servers::has_relay;

/// Milliseconds that those who left are remembered for clients that may have missed it, beyond the departure timeout: a
/// dead socket is noticed after [`super::join::PING_TIMEOUT_SECS`], and a client tries to come back for as long again.
const DEPARTED_KEPT_MS: u64 = 90_000;
/// From which reliable packet on a client sends again what it still holds. The SCTP association lives through a resume and
/// loses nothing that was given to it; what the client held back meanwhile is sent only if this is not 0. Packets that
/// arrive twice are told by their sequence. One is lost: a client's very first, if it was held back, as it is taken to
/// have come; no number says "none has" and has the rest sent.
const REPLAY_FROM: u32 = 1;
/// Milliseconds within which media comes up on any network that lets it through.
pub const REACHED_WITHIN_MS: u64 = 5_000;
/// Most senders in a client's report of what it has received.
const MAX_RECEIVE_STATES: usize = 10_000;

/// Row `departed`: one who left lately.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Departed {
    identity: Identity,
    version: u32,
    pub(super) at: UnixMs,
    /// Its media never came up, though it waited for it.
    #[serde(default)]
    unreached: bool,
    /// The room it was brought to.
    #[serde(default)]
    to: Option<RoomName>,
}

impl Departed {
    /// Whether this identity was brought to that room.
    pub(super) fn went(&self, identity: &str, to: &RoomName) -> bool {
        self.identity.as_str() == identity && self.to.as_ref() == Some(to)
    }
}

impl Room {
    /// A client asks to go on. If it cannot it is told to join anew, and nothing is created for it.
    pub(super) fn resume(&mut self, turn: &mut Turn, connection: &ConnectionId, admission: &Admission) {
        let request = &admission.attempt.request;
        let Some(sid) = self.resumable(&admission.attempt) else {
            let protocol = request.client_info.as_ref().map_or(0, |client| u32::try_from(client.protocol).unwrap_or(0));
            return dismiss(turn, connection, leave(protocol, DisconnectReason::StateMismatch, Action::Reconnect));
        };
        self.take_over(turn, &sid, connection);
        self.note_failure(&sid, admission);
        let reconnect = proto::ReconnectResponse {
            server_info: Some(self.server_info(&sid)),
            last_message_seq: REPLAY_FROM,
            ice_servers: admission.ice_servers.clone(),
            client_configuration: self.participants.get(&sid).and_then(Participant::client_configuration),
        };
        self.send(turn, &sid, Message::Reconnect(reconnect));
        self.tell_mutes(turn, &sid);
        self.tell_departed(turn, &sid);
        self.tell_everyone_present(turn, &sid);
        self.send(turn, &sid, Message::RoomUpdate(proto::RoomUpdate { room: Some(self.info()) }));
        self.refresh_token(turn, &sid);
        self.tell_tracks_anew(turn, &sid);
        self.repeat_qualities(turn, &sid);
        self.restart_subscriber(turn, &sid);
        if let Some(state) = &request.sync_state {
            self.sync_state(turn, &sid, state);
        }
    }

    /// Whose session goes on with this client.
    fn resumable(&self, attempt: &JoinAttempt) -> Option<ParticipantSid> {
        let identity = super::admit::identity_of(attempt).ok()?;
        let sid = self.identities.get(&identity)?;
        let named = attempt.request.participant_sid.as_str();
        let session = self.sessions.get(sid).filter(|session| session.media != Media::Ended)?;
        let is_single = session.peer_connections == PeerConnections::Single;
        let former = self.participants.get(sid).and_then(|participant| participant.former.as_ref());
        let is_it = named.is_empty() || named == sid.as_str() || former.is_some_and(|former| named == former.as_str());
        let fits = is_it && is_single == attempt.single_peer_connection;
        fits.then(|| sid.clone())
    }

    /// The new socket is the participant's; an old one that still seems open is closed without a word.
    fn take_over(&mut self, turn: &mut Turn, sid: &ParticipantSid, connection: &ConnectionId) {
        let Some(participant) = self.participant_mut(sid) else { return };
        participant.gone_since = None;
        let old = participant.connection.replace(connection.clone());
        self.connections.insert(connection.clone(), sid.clone());
        if let Some(old) = old {
            self.connections.remove(&old);
            turn.effects.push(Effect::CloseClient { connection: old });
        }
    }

    /// Those who left, or hid, while the client was not listening. Who came back meanwhile is in the list of those
    /// present: clients tell participants by identity.
    fn tell_departed(&self, turn: &mut Turn, sid: &ParticipantSid) {
        let Some(since) = self.participants.get(sid).map(|participant| participant.joined_at) else { return };
        let is_seen = |identity: &Identity| {
            let present = self.identities.get(identity).and_then(|sid| self.participants.get(sid));
            present.is_some_and(|present| present.sid == *sid || !present.permission.hidden)
        };
        let missed =
            (self.departed.iter()).filter(|(_, departed)| departed.at >= since && !is_seen(&departed.identity));
        let participants: Vec<_> = missed
            .map(|(sid, departed)| proto::ParticipantInfo {
                sid: sid.to_string(),
                identity: departed.identity.to_string(),
                state: State::Disconnected.into(),
                version: departed.version,
                ..Default::default()
            })
            .collect();
        if !participants.is_empty() {
            self.send(turn, sid, Message::Update(proto::ParticipantUpdate { participants }));
        }
    }

    /// Mutes by the server that it may not have heard of: before its own tracks, which it would otherwise unmute again.
    fn tell_mutes(&self, turn: &mut Turn, sid: &ParticipantSid) {
        let own = self.participants.get(sid).into_iter().flat_map(|participant| &participant.tracks);
        for track in own.filter(|track| self.publications.get(track).is_some_and(|p| p.mute_untold)) {
            self.send(turn, sid, Message::Mute(proto::MuteTrackRequest { sid: track.to_string(), muted: true }));
        }
    }

    fn tell_everyone_present(&self, turn: &mut Turn, sid: &ParticipantSid) {
        let seen = self.participants.values().filter(|p| p.sid == *sid || !p.permission.hidden);
        for message in updates(seen.filter_map(|participant| self.participant_info(&participant.sid))) {
            self.send(turn, sid, message);
        }
    }

    /// Answers to announcements that may have been lost, and which tracks of others it may have.
    fn tell_tracks_anew(&self, turn: &mut Turn, sid: &ParticipantSid) {
        let own = self.participants.get(sid).into_iter().flat_map(|participant| &participant.tracks);
        for publication in own.filter_map(|track| self.publications.get(track)).filter(|p| !p.visible) {
            let cid = publication.info.codecs.first().map(|codec| codec.cid.clone()).unwrap_or_default();
            let published = proto::TrackPublishedResponse { cid, track: Some(publication.info.clone()) };
            self.send(turn, sid, Message::TrackPublished(published));
        }
        for message in self.permissions_anew(sid) {
            self.send(turn, sid, message);
        }
    }

    /// The client restarts ICE of the connection it offers; the other one's restart is the node's to offer.
    fn restart_subscriber(&mut self, turn: &mut Turn, sid: &ParticipantSid) {
        if self.sessions.get(sid).is_none_or(|session| session.peer_connections == PeerConnections::Single) {
            return;
        }
        // It belongs to an offer that the next one replaces.
        self.put_description(sid, Side::ClientAnswer, None);
        if let Some(session) = self.session_mut(sid) {
            session.answer = Progress::Done;
            session.answer_repeated = false;
            session.restart_due = true;
        }
        self.ask_for_restart(turn, sid);
    }

    /// Asks the node for the restart that is due, if it listens; it is due until the offer is here.
    pub(super) fn ask_for_restart(&self, turn: &mut Turn, sid: &ParticipantSid) {
        let due = self.sessions.get(sid).is_some_and(|session| session.restart_due);
        if let Some((node, session)) = self.open_session_of(sid).filter(|_| due) {
            turn.send_node(&node, RoomToNode::RestartIce { session });
        }
    }

    /// What the client believes. A track of its own that is not here means that it must start over.
    pub(super) fn sync_state(&mut self, turn: &mut Turn, sid: &ParticipantSid, state: &SyncState) {
        let published = state.publish_tracks.iter().filter_map(|published| published.track.as_ref());
        let is_known = |track: &proto::TrackInfo| {
            let track = TrackSid::try_from(track.sid.as_str()).ok();
            track.and_then(|track| self.publications.get(&track)).is_some_and(|known| known.publisher == *sid)
        };
        if !published.into_iter().all(is_known) {
            return self.dismiss_client(turn, sid, DisconnectReason::StateMismatch, Action::Reconnect);
        }
        self.disable_tracks(turn, sid, &state.track_sids_disabled);
        if let Some(subscription) = &state.subscription {
            self.update_subscription(turn, sid, subscription);
        }
        let states = state.datachannel_receive_states.iter().take(MAX_RECEIVE_STATES);
        let received: Vec<_> = states
            .filter_map(|state| {
                let publisher = ParticipantSid::try_from(state.publisher_sid.as_str()).ok()?;
                Some(ReceivedData { publisher, sequence: state.last_seq })
            })
            .collect();
        if let Some((node, session)) = self.open_session_of(sid).filter(|_| !received.is_empty()) {
            turn.send_node(&node, RoomToNode::ReplayData { session, received });
        }
    }

    /// A client whose connection fails, and was not up since it failed before, comes through TURN from now on, if there is
    /// any: something on its way takes the checks of ICE and not its media.
    fn note_failure(&mut self, sid: &ParticipantSid, admission: &Admission) {
        let reason = admission.attempt.request.reconnect_reason();
        let fails = matches!(reason, ReconnectReason::RrPublisherFailed | ReconnectReason::RrSubscriberFailed);
        let Some(session) = self.session_mut(sid).filter(|session| fails && session.moving.is_none()) else { return };
        let again = session.failed || session.media == Media::New;
        session.failed = true;
        if let Some(participant) = self.participant_mut(sid).filter(|_| again && has_relay(&admission.ice_servers)) {
            participant.relayed = true;
        }
    }

    /// Whether a participant's media has never come up, though there was time.
    fn is_unreached(&self, now: UnixMs, sid: &ParticipantSid) -> bool {
        self.participants.get(sid).is_some_and(|p| !p.active && p.joined_at.after(REACHED_WITHIN_MS) <= now)
    }

    /// Whether one of this identity left lately without having been reached.
    pub(super) fn was_unreached(&self, identity: &Identity) -> bool {
        self.departed.values().any(|departed| departed.unreached && departed.identity == *identity)
    }

    /// Remembers one who leaves, before it is erased, and forgets those whom nobody can have missed any more.
    pub(super) fn note_departure(&mut self, now: UnixMs, info: &proto::ParticipantInfo) {
        let kept = DEPARTED_KEPT_MS.saturating_add(self.record.departure_timeout_ms());
        let old: Vec<_> =
            self.departed.iter().filter(|(_, d)| d.at.after(kept) <= now).map(|(sid, _)| sid.clone()).collect();
        for sid in old {
            self.put_departed(&sid, None);
        }
        let (sid, identity) = (ParticipantSid::try_from(info.sid.as_str()), Identity::try_from(info.identity.as_str()));
        if let (Ok(sid), Ok(identity)) = (sid, identity) {
            let unreached = self.is_unreached(now, &sid);
            self.put_departed(&sid, Some(Departed { identity, version: info.version, at: now, unreached, to: None }));
        }
    }

    /// One who has left was brought to another room.
    pub(super) fn note_destination(&mut self, sid: &ParticipantSid, to: &RoomName) {
        if let Some(departed) = self.departed.get(sid).cloned() {
            self.put_departed(sid, Some(Departed { to: Some(to.clone()), ..departed }));
        }
    }
}
