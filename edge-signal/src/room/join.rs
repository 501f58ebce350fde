//! A client comes in: the join response first, then all that follows from it.

use livekit_protocol as proto;
use livekit_protocol::leave_request::Action;
use livekit_protocol::participant_info::State;
use livekit_protocol::request_response::Reason;
use livekit_protocol::signal_response::Message;
use livekit_protocol::{DisconnectReason, ServerInfo};
use shared::control::{PeerConnections, Placed};
use shared::ids::{Generation, Identity, ParticipantSid};

use super::Room;
use super::admit::{bundled_offer, identity_of};
use super::configuration;
use super::effect::Effect;
use super::event::{Admission, ConnectionId, UnixMs};
use super::node::Node;
use super::participant::{self, Client, Participant, is_dependent};
use super::record::{Placing, publish_codecs};
use super::session::{Progress, Session, Side};
use super::turn::Turn;
use super::update::{departed, dismiss, is_hidden, leave};
use crate::ice_servers::has_relay;

/// LiveKit server version whose behaviour clients may expect; they parse it as semver.
pub const COMPATIBLE_VERSION: &str = "1.13.5";
/// Signal protocol spoken. From 18 on native SDKs would want pre-negotiated data channels.
pub const SIGNAL_PROTOCOL: i32 = 17;
/// Seconds between a client's pings. Each one wakes the room's object, which sleeps when it has heard nothing for 10 s.
pub const PING_INTERVAL_SECS: i32 = 20;
/// Seconds without a frame after which a client gives its socket up: two pings that nobody answered. A network that takes
/// media down with it is noticed by ICE, long before.
pub const PING_TIMEOUT_SECS: i32 = 45;
/// Milliseconds between two refreshed access tokens of a participant (LiveKit's 5 min).
pub const REFRESH_INTERVAL_MS: u64 = 300_000;
/// Clients below this signal protocol are told when a session is superseded by one of the same identity.
const SAME_IDENTITY_PROTOCOL: u32 = 12;
/// Milliseconds a client that came back may lose events for: livekit-client's 2 s, and a margin for its timers.
pub const RETURN_HOLD_MS: u64 = 2_500;

impl Room {
    pub(super) fn join(
        &mut self,
        turn: &mut Turn,
        connection: &ConnectionId,
        admission: Admission,
        placed: Option<Placed>,
    ) {
        if admission.attempt.request.reconnect {
            return self.resume(turn, connection, &admission);
        }
        let client = admission.attempt.request.client_info.clone().unwrap_or_default();
        let protocol = u32::try_from(client.protocol).unwrap_or(0);
        let Ok(identity) = identity_of(&admission.attempt) else {
            return dismiss(turn, connection, leave(protocol, DisconnectReason::JoinFailure, Action::Disconnect));
        };
        let is_new = self.create_for(turn, &admission);
        if self.is_full_for(self.record.max_participants, &identity, is_dependent(&admission.attempt.claims)) {
            // Others came in between this client's admission and its socket.
            let refused = leave(protocol, DisconnectReason::JoinFailure, Action::Disconnect);
            return dismiss(turn, connection, refused);
        }
        // A room that only agents are in still waits for the first of those who they are for.
        if !self.record.joined && !is_dependent(&admission.attempt.claims) {
            self.record_mut().joined = true;
        }
        let superseded = self.supersede(turn, &identity);
        let relayed = has_relay(&admission.ice_servers) && self.was_unreached(&identity);
        let ice_servers = admission.ice_servers.clone();
        let returns = superseded.is_some();
        let sid = admission.participant.clone();
        let (offer, fault) = match bundled_offer(&admission.attempt.request) {
            Ok(offer) => (offer, None),
            Err(fault) => (None, Some(fault)),
        };
        let announced = admission.attempt.request.add_track_requests.clone();
        let session = self.first_session(turn, &admission, offer.is_some(), placed);
        let mut participant = newcomer(turn.now, connection, identity, admission);
        participant.relayed = relayed;
        let node = session.node.as_ref().or_else(|| self.node_for(participant.place));
        participant.region = node.and_then(|id| self.nodes.get(id)).map(|n| n.region.to_string()).unwrap_or_default();
        self.agents_with(&participant.identity);
        self.put_participant(participant, session);
        self.put_description(&sid, Side::ClientOffer, offer);

        self.send_join(turn, &sid, ice_servers);
        for request in announced {
            self.add_track(turn, &sid, request);
        }
        self.refresh_token(turn, &sid);
        if let Some(fault) = fault {
            self.respond(turn, &sid, 0, Reason::InvalidRequest, fault.to_owned(), None);
        }
        self.tell_of_newcomer(turn, &sid, superseded);
        self.offer_all_tracks(turn, &sid);
        if returns {
            self.hold_tracks(turn.now, &sid);
        }
        if is_new {
            self.note_counts(turn);
        }
    }

    /// The first join creates the room, with the configuration its token brings.
    fn create_for(&mut self, turn: &mut Turn, admission: &Admission) -> bool {
        if self.record.created {
            return false;
        }
        let config = configuration::of_token(&admission.attempt).unwrap_or_default();
        let region = self.region_for(&admission.attempt).unwrap_or_default();
        self.create_as(turn, &config);
        self.record_mut().region = region;
        true
    }

    /// Makes the room with a configuration. From here on it has rows.
    pub(super) fn create_as(&mut self, turn: &mut Turn, config: &proto::RoomConfiguration) {
        let record = self.record_mut();
        record.created = true;
        record.created_at = turn.now;
        record.configure(config);
        self.hook_started(turn);
        self.configure_agents(turn, &config.agents);
    }

    /// Tracks that are not part of the first answer wait until the client surely hears of them.
    fn hold_tracks(&mut self, now: UnixMs, sid: &ParticipantSid) {
        if let Some(participant) = self.participant_mut(sid).filter(|participant| participant.loses_events_on_return())
        {
            participant.served_from = Some(now.after(RETURN_HOLD_MS));
        }
    }

    /// Ends the session of the same identity, if there is one, and gives its last state.
    pub(super) fn supersede(&mut self, turn: &mut Turn, identity: &Identity) -> Option<proto::ParticipantInfo> {
        let old = self.identities.get(identity)?.clone();
        let info = self.participant_info(&old)?;
        self.dismiss_client(turn, &old, DisconnectReason::DuplicateIdentity, Action::Disconnect);
        let gone = departed(info, DisconnectReason::DuplicateIdentity);
        if !is_hidden(&gone) {
            self.note_departure(turn.now, &gone);
        }
        self.erase(turn, &old, DisconnectReason::DuplicateIdentity);
        Some(gone)
    }

    fn first_session(
        &mut self,
        turn: &mut Turn,
        admission: &Admission,
        offers: bool,
        placed: Option<Placed>,
    ) -> Session {
        let mut session = Session::new(admission.peer_connections);
        if offers {
            session.offer = Progress::Unsent;
        }
        let Some(placed) = placed else { return session };
        let id = placed.node.clone();
        let is_new = !self.nodes.contains_key(&id);
        let serving = admission.place.as_ref().map(|place| place.serving.as_slice()).unwrap_or_default();
        if serving.contains(&id) {
            turn.none_nearer = admission.place.as_ref().and_then(|asked| asked.client);
            // One that listens is found again as the nearest.
            session.node = Some(id).filter(|id| !is_new && !self.listens(id));
            return session;
        }
        match self.usable_node() {
            Some(_) if serving.is_empty() || !is_new => {
                // A node came meanwhile. Whatever the fleet had opened is superseded.
                session.generation = Generation(2);
                if is_new {
                    self.put_node(&id, Node::expected(placed, turn.now));
                }
            }
            _ => {
                self.put_node(&id, Node::expected(placed, turn.now));
                self.record_mut().placing = Placing::Idle;
                session.node = Some(id);
                session.opened = true;
                if offers {
                    session.offer = Progress::Sent;
                }
            }
        }
        session
    }

    /// Everyone else that a participant may know of.
    pub(super) fn others_seen_by(&self, sid: &ParticipantSid) -> impl Iterator<Item = &Participant> {
        self.participants.values().filter(move |other| other.sid != *sid && !other.permission.hidden)
    }

    fn send_join(&self, turn: &mut Turn, sid: &ParticipantSid, ice_servers: Vec<proto::IceServer>) {
        let (Some(participant), Some(session)) = (self.participants.get(sid), self.sessions.get(sid)) else { return };
        let mut me = participant.info(Vec::new());
        me.state = State::Joining.into();
        me.version = 0;
        let join = proto::JoinResponse {
            room: Some(self.info()),
            participant: Some(me),
            other_participants: self.others_seen_by(sid).filter_map(|p| self.participant_info(&p.sid)).collect(),
            server_version: COMPATIBLE_VERSION.to_owned(),
            server_region: participant.region.clone(),
            subscriber_primary: session.peer_connections == PeerConnections::DualSubscriberPrimary,
            ice_servers,
            client_configuration: participant.client_configuration(),
            ping_timeout: PING_TIMEOUT_SECS,
            ping_interval: PING_INTERVAL_SECS,
            server_info: Some(self.server_info(sid)),
            enabled_publish_codecs: publish_codecs(),
            fast_publish: participant.permission.can_publish,
            ..Default::default()
        };
        self.send(turn, sid, Message::Join(join));
    }

    /// What serves this participant.
    pub(super) fn server_info(&self, sid: &ParticipantSid) -> ServerInfo {
        let node = self.sessions.get(sid).and_then(|session| session.node.as_ref()).or_else(|| self.usable_node());
        ServerInfo {
            version: COMPATIBLE_VERSION.to_owned(),
            protocol: SIGNAL_PROTOCOL,
            region: self.participants.get(sid).map(|participant| participant.region.clone()).unwrap_or_default(),
            node_id: node.map(ToString::to_string).unwrap_or_default(),
            agent_protocol: 1,
            ..Default::default()
        }
    }

    pub(super) fn tell_of_newcomer(
        &mut self,
        turn: &mut Turn,
        sid: &ParticipantSid,
        superseded: Option<proto::ParticipantInfo>,
    ) {
        let was_seen = superseded.as_ref().filter(|old| !is_hidden(old));
        if let Some(old) = was_seen {
            self.tell(turn, old, |other, protocol| other != sid && protocol < SAME_IDENTITY_PROTOCOL);
        }
        let hidden = self.participants.get(sid).is_none_or(|participant| participant.permission.hidden);
        if hidden || self.is_told_later(turn, sid) {
            return;
        }
        if let Some(info) = self.participant_info(sid) {
            self.tell(turn, &info, |other, _| other != sid);
        }
    }

    /// Mints a token with the participant's current claims for its client.
    pub(super) fn refresh_token(&mut self, turn: &mut Turn, sid: &ParticipantSid) {
        let now = turn.now;
        let Some(participant) = self.participant_mut(sid) else { return };
        participant.refresh_at = now.after(REFRESH_INTERVAL_MS);
        let Some(connection) = participant.connection.clone() else { return };
        let claims = Box::new(participant.fresh_claims(now));
        turn.effects.push(Effect::RefreshToken { connection, claims });
    }
}

fn newcomer(now: UnixMs, connection: &ConnectionId, identity: Identity, admission: Admission) -> Participant {
    let mut claims = admission.attempt.claims;
    let request = admission.attempt.request;
    let permission = participant::permission(&claims.video.clone().unwrap_or_default());
    claims.sub = identity.to_string();
    if !request.metadata.is_empty() {
        claims.metadata = request.metadata;
    }
    claims.attributes.extend(request.participant_attributes.into_iter().filter(|(_, value)| !value.is_empty()));
    Participant {
        sid: admission.participant,
        identity,
        joined_at: now,
        version: 1,
        active: false,
        is_publisher: false,
        claims,
        permission,
        client: Client::new(&request.client_info.unwrap_or_default()),
        auto_subscribe: request.connection_settings.is_some_and(|settings| settings.auto_subscribe),
        adaptive_stream: request.connection_settings.is_some_and(|settings| settings.adaptive_stream),
        place: admission.attempt.place,
        region: String::new(),
        tracks: Vec::new(),
        queued: Vec::new(),
        allowed: None,
        connection: Some(connection.clone()),
        gone_since: None,
        refresh_at: now.after(REFRESH_INTERVAL_MS),
        served_from: None,
        untold: false,
        relayed: false,
        answer_at: None,
        former: None,
    }
}
