//! What app servers ask of a room: LiveKit's `RoomService`, less what concerns all rooms.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use livekit_protocol as proto;
use livekit_protocol::leave_request::Action;
use livekit_protocol::signal_response::Message;
use livekit_protocol::{DisconnectReason, UpdateSubscription};
use prost::Message as _;
use serde::{Deserialize, Serialize};
use shared::control::RoomToNode;
use shared::ids::{Identity, NodeId, ParticipantSid, RoomName, TrackSid};

use super::Room;
use super::call::Called;
use super::configuration;
use super::effect::Effect;
use super::forward::Word;
use super::metadata::{Excess, fits_metadata};
use super::node::Link;
use super::transfer::{Transfer, Welcome};
use super::turn::Turn;
use crate::fleet::Availability;

/// Seconds that revoked tokens are remembered at least: as long as any sensible one is good for.
const REVOCATION_SECS: u64 = 24 * 60 * 60;

/// Longest data of an app server, bytes: what clients take in one message.
const MAX_DATA_LEN: usize = 60 * 1024;
/// Bytes of a nonce (LiveKit's).
const NONCE_LEN: usize = 16;

/// A request about one room. The caller's grants have been checked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Request {
    /// `CreateRoom`: one that exists is left as it is.
    Create(#[serde(with = "crate::protobuf::message")] Box<proto::CreateRoomRequest>),
    /// `DeleteRoom`.
    Delete,
    /// `ListParticipants`.
    ListParticipants,
    /// `GetParticipant`.
    GetParticipant(String),
    /// `RemoveParticipant`.
    RemoveParticipant(#[serde(with = "crate::protobuf::message")] proto::RoomParticipantIdentity),
    /// `MutePublishedTrack`.
    MuteTrack(#[serde(with = "crate::protobuf::message")] proto::MuteRoomTrackRequest),
    /// `UpdateParticipant`.
    UpdateParticipant(#[serde(with = "crate::protobuf::message")] Box<proto::UpdateParticipantRequest>),
    /// `UpdateSubscriptions`.
    UpdateSubscriptions(#[serde(with = "crate::protobuf::message")] proto::UpdateSubscriptionsRequest),
    /// `UpdateRoomMetadata`.
    UpdateMetadata(String),
    /// `SendData`.
    SendData(#[serde(with = "crate::protobuf::message")] proto::SendDataRequest),
    /// `MoveParticipant`, by its identity.
    Transfer(String, RoomName),
    /// Another room brings a participant.
    TakeIn(Box<Transfer>),
    /// The room that brought it has found that it cannot go.
    SendBack(ParticipantSid),
    /// `ForwardParticipant`, by its identity.
    Forward(String, RoomName),
    /// Another room says something of a participant that is forwarded.
    Hear(Box<Word>),
    /// `PerformRpc`.
    PerformRpc(#[serde(with = "crate::protobuf::message")] Box<proto::PerformRpcRequest>),
    /// `AgentDispatchService.CreateDispatch`.
    CreateDispatch(#[serde(with = "crate::protobuf::message")] Box<proto::CreateAgentDispatchRequest>),
    /// `AgentDispatchService.DeleteDispatch`, by its id.
    DeleteDispatch(String),
    /// `AgentDispatchService.ListDispatch`: all, or the one of this id.
    ListDispatch(String),
}

impl Request {
    /// Whether another room asks, and no app server.
    #[must_use]
    pub fn is_from_room(&self) -> bool {
        matches!(self, Self::TakeIn(_) | Self::SendBack(_) | Self::Hear(_))
    }

    /// Whether another room has to do with it.
    #[must_use]
    pub fn is_transfer(&self) -> bool {
        matches!(self, Self::Transfer(..) | Self::Forward(..))
    }
}

/// What a request is answered with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Answer {
    /// The room.
    Room(#[serde(with = "crate::protobuf::message")] Box<proto::Room>),
    /// Everyone in it.
    Participants(#[serde(with = "crate::protobuf::messages")] Vec<proto::ParticipantInfo>),
    /// One of them.
    Participant(#[serde(with = "crate::protobuf::message")] Box<proto::ParticipantInfo>),
    /// One of their tracks.
    Track(#[serde(with = "crate::protobuf::message")] Box<proto::TrackInfo>),
    /// One who is to be taken in by another room.
    Transfer(Box<Transfer>),
    /// It is taken in.
    Welcome(Box<Welcome>),
    /// This one is to be shown in another room, which is told: its answer counts.
    Forward(ParticipantSid),
    /// A call is on its way: its answer comes later.
    Called(Called),
    /// What a participant answered to a call.
    Reply(String),
    /// A dispatch of an agent.
    Dispatch(#[serde(with = "crate::protobuf::message")] Box<proto::AgentDispatch>),
    /// All of them.
    Dispatches(#[serde(with = "crate::protobuf::messages")] Vec<proto::AgentDispatch>),
    /// Nothing.
    Done,
}

/// Kind of error, as Twirp has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Code {
    /// Such a room, participant or track is not there.
    NotFound,
    /// A field is not what it must be.
    InvalidArgument,
    /// It cannot be done now.
    FailedPrecondition,
    /// There is no place for more.
    ResourceExhausted,
    /// It took too long.
    DeadlineExceeded,
}

/// Why a request was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Error {
    /// Kind.
    pub code: Code,
    /// LiveKit's text, where it has one.
    pub text: String,
    /// Name of the field that is wrong.
    pub argument: Option<String>,
}

impl Error {
    pub(super) fn new(code: Code, text: &str) -> Self {
        Self { code, text: text.to_owned(), argument: None }
    }

    /// A field over its limit; LiveKit repeats the text less the number as the argument's name.
    pub(super) fn over(limit: &str, max: usize) -> Self {
        let text = format!("{limit} {max}");
        Self { code: Code::InvalidArgument, text, argument: Some(limit.to_owned()) }
    }

    fn no_room() -> Self {
        Self::new(Code::NotFound, "requested room does not exist")
    }

    pub(super) fn no_participant() -> Self {
        Self::new(Code::NotFound, "participant does not exist")
    }

    /// It was on its way elsewhere.
    pub(crate) fn participant_left() -> Self {
        Self::new(Code::FailedPrecondition, "participant has left, or lost its connection")
    }

    /// Why a room cannot be on a node; `None`: it can.
    #[must_use]
    pub fn of_node(availability: Availability) -> Option<Self> {
        let (code, text) = match availability {
            Availability::Available => return None,
            Availability::Draining => (Code::FailedPrecondition, "requested node is draining"),
            Availability::Away => (Code::FailedPrecondition, "requested node is not connected"),
            Availability::Unknown => return Some(Self::no_node()),
        };
        Some(Self::new(code, text))
    }

    fn no_node() -> Self {
        Self::new(Code::NotFound, "requested node does not exist")
    }

    pub(super) fn no_dispatch() -> Self {
        Self::new(Code::NotFound, "agent dispatch does not exist")
    }
}

impl From<Excess> for Error {
    fn from(excess: Excess) -> Self {
        let (limit, max) = match excess {
            Excess::Name => ("name length exceeds limits", shared::ids::MAX_NAME_LEN),
            Excess::Metadata => ("metadata size exceeds limits", super::metadata::MAX_METADATA_LEN),
            Excess::Attributes => ("attribute size exceeds limits", super::metadata::MAX_ATTRIBUTES_LEN),
        };
        Self::over(limit, max)
    }
}

impl Room {
    /// Handles a request; its answer is one of the effects.
    pub(super) fn serve_request(&mut self, turn: &mut Turn, request: Request) {
        let answer = match request {
            Request::Create(request) => self.create(turn, &request),
            Request::ListParticipants if !self.record.created => Ok(Answer::Participants(Vec::new())),
            Request::Delete | Request::UpdateMetadata(_) | Request::SendData(_) if !self.record.created => {
                Err(Error::no_room())
            }
            Request::Delete => {
                self.end(turn, DisconnectReason::RoomDeleted);
                Ok(Answer::Done)
            }
            Request::SendData(request) => self.send_data(turn, request),
            Request::Transfer(identity, to) => self.transfer(turn, &identity, to),
            Request::TakeIn(transfer) => self.take_in(turn, *transfer),
            Request::SendBack(sid) => {
                self.send_back(turn, &sid);
                Ok(Answer::Done)
            }
            Request::Forward(identity, to) => self.forward(&identity, to),
            Request::Hear(word) => self.hear(turn, *word),
            Request::PerformRpc(request) => self.call(turn, *request),
            Request::CreateDispatch(request) => self.create_dispatch(turn, *request),
            Request::DeleteDispatch(id) => self.delete_dispatch(turn, &id),
            Request::ListDispatch(id) => Ok(self.list_dispatches(&id)),
            Request::UpdateMetadata(metadata) => self.update_room_metadata(turn, metadata),
            Request::ListParticipants => {
                let all = self.participants.keys().filter_map(|sid| self.participant_info(sid));
                Ok(Answer::Participants(all.collect()))
            }
            Request::GetParticipant(identity) => self.named(&identity).and_then(|sid| self.shown(&sid)),
            Request::RemoveParticipant(request) => self.remove_named(turn, &request),
            Request::MuteTrack(request) => self.mute_named(turn, &request),
            Request::UpdateParticipant(request) => self.update_named(turn, *request),
            Request::UpdateSubscriptions(request) => self.named(&request.identity).map(|sid| {
                let (track_sids, participant_tracks) = (request.track_sids, request.participant_tracks);
                let wish = UpdateSubscription { track_sids, subscribe: request.subscribe, participant_tracks };
                self.update_subscription(turn, &sid, &wish);
                Answer::Done
            }),
        };
        turn.effects.push(Effect::Answer(Box::new(answer)));
    }

    fn create(&mut self, turn: &mut Turn, request: &proto::CreateRoomRequest) -> Result<Answer, Error> {
        if !fits_metadata(&request.metadata) {
            return Err(Excess::Metadata.into());
        }
        let config = configuration::of_request(request);
        configuration::check(&config)?;
        let node = self.node_of(request)?;
        self.create_unless_there(turn, &config);
        if node.is_some() {
            self.record_mut().node = node;
        }
        Ok(Answer::Room(Box::new(self.info())))
    }

    /// The node that a request names for a room that it makes: **the fleet is to be asked about it before**.
    ///
    /// # Errors
    /// No node can be called that.
    pub fn node_wanted(&self, request: &Request) -> Result<Option<NodeId>, Error> {
        match request {
            Request::Create(request) => self.node_of(request),
            _ => Ok(None),
        }
    }

    fn node_of(&self, request: &proto::CreateRoomRequest) -> Result<Option<NodeId>, Error> {
        if self.record.created || request.node_id.is_empty() {
            return Ok(None);
        }
        NodeId::try_from(request.node_id.as_str()).map(Some).map_err(|_| Error::no_node())
    }

    /// A room that exists is left as it is.
    pub(super) fn create_unless_there(&mut self, turn: &mut Turn, config: &proto::RoomConfiguration) {
        if !self.record.created {
            self.create_as(turn, config);
            self.note_counts(turn);
        }
    }

    fn update_room_metadata(&mut self, turn: &mut Turn, metadata: String) -> Result<Answer, Error> {
        if !fits_metadata(&metadata) {
            return Err(Excess::Metadata.into());
        }
        if self.record.metadata != metadata {
            self.record_mut().metadata = metadata;
            self.announce_room(turn);
        }
        Ok(Answer::Room(Box::new(self.info())))
    }

    /// The participant leaves for good: the tokens it holds let nobody in any more.
    fn remove_named(&mut self, turn: &mut Turn, request: &proto::RoomParticipantIdentity) -> Result<Answer, Error> {
        let sid = self.named(&request.identity)?;
        let Some(participant) = self.participants.get(&sid) else { return Err(Error::no_participant()) };
        let now = turn.now.secs();
        // Tokens are dated in whole seconds: one of this very second may be the one it holds.
        let asked = u64::try_from(request.revoke_token_ts).ok().filter(|at| *at > 0);
        let before = asked.unwrap_or(now + 1);
        let until = participant.claims.exp.max(now + REVOCATION_SECS);
        let identity = participant.identity.clone();
        let is_forwarded = self.forwarded.contains_key(&sid);
        self.remove(turn, &sid, DisconnectReason::ParticipantRemoved, Some(Action::Disconnect));
        if is_forwarded {
            // It has no token of this room.
            return Ok(Answer::Done);
        }
        turn.effects.push(Effect::RevokeTokens { identity, before, until, asked: asked.is_some() });
        Ok(Answer::Done)
    }

    /// The client is told to mute its track. Unmuting is left to whoever sits in front of the microphone.
    fn mute_named(&mut self, turn: &mut Turn, request: &proto::MuteRoomTrackRequest) -> Result<Answer, Error> {
        let sid = self.named(&request.identity)?;
        self.not_forwarded(&sid)?;
        let own = |track: &TrackSid| self.publications.get(track).is_some_and(|p| p.publisher == sid);
        let track = TrackSid::try_from(request.track_sid.as_str()).ok().filter(own);
        let Some(track) = track else { return Err(Error::new(Code::NotFound, "track does not exist")) };
        if !request.muted {
            return Err(Error::new(Code::FailedPrecondition, "remote unmute not enabled"));
        }
        if let Some(publication) = self.publication_mut(&track) {
            publication.mute_untold = true;
        }
        let mute = proto::MuteTrackRequest { sid: track.to_string(), muted: true };
        self.send(turn, &sid, Message::Mute(mute));
        self.set_muted(turn, &sid, &track, true);
        let info = self.publications.get(&track).map(|publication| publication.info.clone()).unwrap_or_default();
        Ok(Answer::Track(Box::new(info)))
    }

    fn update_named(&mut self, turn: &mut Turn, request: proto::UpdateParticipantRequest) -> Result<Answer, Error> {
        let sid = self.named(&request.identity)?;
        self.not_forwarded(&sid)?;
        self.change_profile(&sid, &request.name, &request.metadata, &request.attributes)?;
        if let Some(permission) = request.permission {
            self.change_permission(turn, &sid, permission);
        } else {
            self.publish_update(turn, &sid);
        }
        self.refresh_token(turn, &sid);
        self.shown(&sid)
    }

    /// Data in nobody's name, through every node of the room.
    #[allow(deprecated, reason = "older SDKs name receivers by sid, and read receivers in the user packet")]
    fn send_data(&mut self, turn: &mut Turn, request: proto::SendDataRequest) -> Result<Answer, Error> {
        let nonce = request.nonce.len();
        if nonce != 0 && nonce != NONCE_LEN {
            let text = format!("nonce should be {NONCE_LEN}-bytes or not present, got: {nonce} bytes");
            return Err(Error::new(Code::InvalidArgument, &text));
        }
        if request.data.len() > MAX_DATA_LEN {
            return Err(Error::over("data size exceeds limits", MAX_DATA_LEN));
        }
        let reliable = request.kind() == proto::data_packet::Kind::Reliable;
        let by_sid = request.destination_sids.iter().filter_map(|sid| ParticipantSid::try_from(sid.as_str()).ok());
        let by_sid = by_sid.filter_map(|sid| Some(self.participants.get(&sid)?.identity.to_string()));
        let mut names: Vec<String> = request.destination_identities.iter().cloned().chain(by_sid).collect();
        names.dedup();
        let named = !request.destination_identities.is_empty() || !request.destination_sids.is_empty();
        let identities: Vec<Identity> =
            names.iter().filter_map(|name| Identity::try_from(name.as_str()).ok()).collect();
        if named && identities.is_empty() {
            // For people who are not here: not for everyone.
            return Ok(Answer::Done);
        }
        let user = proto::UserPacket {
            payload: request.data,
            topic: request.topic,
            nonce: request.nonce,
            destination_sids: request.destination_sids,
            destination_identities: names.clone(),
            ..Default::default()
        };
        let packet = proto::DataPacket {
            kind: request.kind,
            destination_identities: names,
            value: Some(proto::data_packet::Value::User(user)),
            ..Default::default()
        };
        let packet = STANDARD.encode(packet.encode_to_vec());
        for (node, _) in self.nodes.iter().filter(|(_, node)| node.link == Link::Ready) {
            let data = RoomToNode::SendData { packet: packet.clone(), reliable, identities: identities.clone() };
            turn.send_node(node, data);
        }
        Ok(Answer::Done)
    }

    pub(super) fn named(&self, identity: &str) -> Result<ParticipantSid, Error> {
        let identity = Identity::try_from(identity).ok();
        identity.and_then(|identity| self.identities.get(&identity)).cloned().ok_or_else(Error::no_participant)
    }

    fn shown(&self, sid: &ParticipantSid) -> Result<Answer, Error> {
        let info = self.participant_info(sid).ok_or_else(Error::no_participant)?;
        Ok(Answer::Participant(Box::new(info)))
    }
}
