//! Every message of room link and fleet link, as JSON text frames.
//!
//! **Each link keeps order.** A message names its session with generation; a receiver drops what names one it no longer has.
//! Unknown fields are ignored, so that edge and node can be one version apart.

mod fleet;
mod pipes;
mod playout;
mod track;

use serde::{Deserialize, Serialize};

pub use self::fleet::{
    ADDRESS_PATH, ADMISSION_TTL_SECS, ADMIT_PATH, AdmitRequest, DRAIN_PATH, DrainRequest, ENROL_PATH, EnrolRequest,
    EnrolResponse, FLEET_LINK_PATH, FirstSession, FleetToNode, HEARTBEAT_SECS, MAX_ADMITTED, NEED_PATH, NODES_PATH,
    NeedReason, NodeInfo, NodeLimits, NodeLoad, NodeStatus, NodeToFleet, PlaceRequest, PlaceResponse, Placed,
    REVOKE_PATH, RegionNeed, RevokeRequest, SPREAD_KM, SeenAddress,
};
pub use self::pipes::{MAX_PIPE_ADDRESSES, PipeEnd, PipeKey, PipedLayer, PipedPayloadType, PipedStream, PipedTrack};
pub use self::playout::{PlayoutDelay, PlayoutDelayError};
pub use self::track::{
    AnnouncedCodec, AnnouncedTrack, Delivery, LayerMedia, PublishedTrack, Subscription, TrackKind, TrackMedia,
};
use crate::geo::Place;
use crate::ids::{Identity, ParticipantSid, RoomSid, SessionKey, TrackSid};

/// Version of these messages; a node with another major version is refused with a reason.
pub const CONTROL_VERSION: u32 = 1;
/// Longest session description either side takes, bytes.
pub const MAX_SDP_LEN: usize = 512 * 1024;
/// Steps that loudness is told in: full scale is so many (LiveKit's).
pub const LOUDEST_STEP: u8 = 8;
/// The best that a connection can be; 0 is the worst.
pub const BEST_SCORE: u8 = 100;
/// A connection with more is excellent (LiveKit's).
pub const EXCELLENT_SCORE: u8 = 80;
/// A connection with more, but not that much, is good; with less it is poor (LiveKit's).
pub const GOOD_SCORE: u8 = 40;
/// Where a node opens a room link: `{ROOM_LINK_PATH}?ticket=…`, relative to the edge.
pub const ROOM_LINK_PATH: &str = "/node/room";

/// Offer or answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DescriptionKind {
    /// `type: "offer"`.
    Offer,
    /// `type: "answer"`.
    Answer,
}

/// LiveKit's `SessionDescription` less the mid map.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    /// Offer or answer.
    pub kind: DescriptionKind,
    /// LiveKit's `id`: an answer repeats its offer's; 0 is a legal id (native SDKs).
    pub id: u32,
    /// The description itself (RFC 8866).
    pub sdp: String,
}

/// Which section carries which subscribed track: LiveKit's `mid_to_track_id`, complete each time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MidTrack {
    /// The section's `a=mid`.
    pub mid: String,
    /// The track sent in it.
    pub track: TrackSid,
}

/// How many peer connections a session has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PeerConnections {
    /// `/rtc/v1`: one; the client offers, tracks flow both ways.
    Single,
    /// `/rtc`: the client offers the publisher, the node the subscriber; the subscriber is primary.
    DualSubscriberPrimary,
    /// `/rtc` without `canSubscribe` (or protocol below 3): the publisher is primary.
    DualPublisherPrimary,
}

/// What the node enforces of a participant's permission.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MediaGrants {
    /// May send media.
    pub can_publish: bool,
    /// May receive media.
    pub can_subscribe: bool,
    /// May send data packets; what it sends otherwise is dropped silently.
    pub can_publish_data: bool,
    /// Its identity is blanked on data packets.
    pub hidden: bool,
    /// May speak for others in transcriptions and chat (LiveKit agents).
    pub agent: bool,
}

impl MediaGrants {
    /// A participant like any other: it may send and receive everything, in its own name.
    #[must_use]
    pub const fn all() -> Self {
        Self { can_publish: true, can_subscribe: true, can_publish_data: true, hidden: false, agent: false }
    }
}

/// What the node needs to know of a client's SDK to describe sections as it wants them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ClientTraits {
    /// LiveKit's `ClientInfo.sdk`, lower case: `js`, `python`, `go`, …
    pub sdk: String,
    /// Signal protocol the client speaks.
    pub protocol: u32,
    /// Browser, lower case: `chrome`, `firefox`, `safari`, or empty.
    pub browser: String,
    /// Operating system, lower case, or empty.
    pub os: String,
}

/// How far a client has a sender's reliable data (LiveKit's `DataChannelReceiveState`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceivedData {
    /// The sender.
    pub publisher: ParticipantSid,
    /// `DataPacket.sequence` of the last packet it has.
    pub sequence: u32,
}

/// A data channel that a client has open (RFC 8832).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataStream {
    /// `_reliable`, `_lossy` or `_data_track`.
    pub label: String,
    /// Its SCTP stream.
    pub stream: u16,
}

/// What a client knows of its connection from the node it was on: on another one it goes on with it, unchanged.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Established {
    /// Which section carries which subscribed track.
    pub subscribed: Vec<MidTrack>,
    /// Its own tracks as they arrived: streams may have stopped naming themselves.
    pub published: Vec<PublishedTrack>,
    /// Sections that have carried a subscribed track at any time.
    pub carried: Vec<String>,
    /// Channels to go on with, without opening them anew.
    pub channels: Vec<DataStream>,
    /// The last offer for its subscriber connection, if it has one: the next one has the same sections.
    #[serde(default)]
    pub offered: Option<Description>,
    /// What both protect media with: a node that knows it may begin DTLS itself.
    #[serde(default)]
    pub srtp: Option<SrtpProfile>,
}

/// Opens a session: the room's whole knowledge of it, so that a move needs nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenSession {
    /// Session token ([`crate::claims::SessionClaims`]): participant, identity, generation and grants stand in it.
    pub token: String,
    /// One or two peer connections.
    pub peer_connections: PeerConnections,
    /// The client's SDK.
    pub client: ClientTraits,
    /// The publisher connection's offer, where the client has made it already.
    pub offer: Option<Description>,
    /// Tracks announced so far.
    pub tracks: Vec<AnnouncedTrack>,
    /// What it is subscribed to already.
    pub subscriptions: Vec<Subscription>,
    /// Its client has this from another node, and takes no other sections or channels for it.
    #[serde(default)]
    pub established: Option<Established>,
    /// What it is to be asked for with every video; `None`: nothing.
    #[serde(default)]
    pub playout_delay: Option<PlayoutDelay>,
}

/// Why a node does not open a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalReason {
    /// The session token does not verify, is for another node or room, expired, or was used before.
    BadToken,
    /// The node is at a limit.
    NoCapacity,
    /// The node is draining, and the room not there yet.
    Draining,
}

/// SRTP protection profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SrtpProfile {
    /// `AEAD_AES_128_GCM` (RFC 7714 section 14.2).
    AeadAes128Gcm,
    /// `AES128_CM_HMAC_SHA1_80` (RFC 5764 section 4.1.2).
    Aes128CmHmacSha1_80,
}

/// State of a session's primary connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MediaState {
    /// ICE and DTLS are up: the participant becomes ACTIVE.
    Connected,
    /// Consent lapsed (RFC 7675); it may come back.
    Disconnected,
    /// It will not come back: the node has dropped the session.
    Failed,
}

/// Room to node, on the room link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum RoomToNode {
    /// First message of a link. The node closes every session of this room that is not in `sessions`.
    Welcome {
        /// The room's current life.
        room_sid: RoomSid,
        /// Ticket for dialing in again when this link breaks.
        rejoin_ticket: String,
        /// Sessions the room believes to be here.
        sessions: Vec<SessionKey>,
    },
    /// Opens a session, with its first offer where there is one.
    OpenSession(Box<OpenSession>),
    /// Ends a session.
    CloseSession {
        /// Which.
        session: SessionKey,
        /// Its client goes on in another room with the connection it has, and must not be told that it is closed.
        #[serde(default)]
        quietly: bool,
    },
    /// The client's offer for the publisher (or only) connection.
    Offer {
        /// Whose.
        session: SessionKey,
        /// The offer.
        description: Description,
    },
    /// The client's answer for the subscriber connection.
    Answer {
        /// Whose.
        session: SessionKey,
        /// The answer.
        description: Description,
    },
    /// A track was announced; it may come before or after the offer with its section.
    AnnounceTrack {
        /// Whose.
        session: SessionKey,
        /// The track.
        track: AnnouncedTrack,
    },
    /// The room ended a publication (permission revoked): stop receiving it.
    RetractTrack {
        /// Whose.
        session: SessionKey,
        /// Which.
        track: TrackSid,
    },
    /// Muted tracks go nowhere, whatever their client sends, and get no keyframe requests.
    MuteTrack {
        /// Whose.
        session: SessionKey,
        /// Which.
        track: TrackSid,
        /// Muted or not.
        muted: bool,
    },
    /// Serve these from now on.
    Subscribe {
        /// The subscriber.
        session: SessionKey,
        /// What.
        subscriptions: Vec<Subscription>,
    },
    /// Stop serving these.
    Unsubscribe {
        /// The subscriber.
        session: SessionKey,
        /// What.
        tracks: Vec<TrackSid>,
    },
    /// The client came back on a new signal connection: the node offers the subscriber connection anew, with an ICE
    /// restart (RFC 8445 section 9). A connection the client offers it restarts itself.
    RestartIce {
        /// Whose.
        session: SessionKey,
    },
    /// The client came back and says which reliable data it has: send again what came after it.
    ReplayData {
        /// The receiver.
        session: SessionKey,
        /// Of each sender it has heard from.
        received: Vec<ReceivedData>,
    },
    /// Data of an app server for everyone in the room, or for some: delivered as it is, in nobody's name.
    SendData {
        /// The encoded `DataPacket`: standard base64.
        packet: String,
        /// On `_reliable`, else on `_lossy`.
        reliable: bool,
        /// For these; empty: for everyone.
        identities: Vec<Identity>,
    },
    /// The participant's permission changed.
    UpdateGrants {
        /// Whose.
        session: SessionKey,
        /// From now on.
        grants: MediaGrants,
    },
    /// Open an end of a pipe to another node; answered by [`NodeToRoom::PipeOpened`].
    OpenPipe {
        /// Its name.
        pipe: PipeKey,
        /// This end makes the first step: it sends ICE checks, and begins DTLS and SCTP. The other one answers.
        dials: bool,
        /// The other end is in another room: no data goes through, in neither direction.
        #[serde(default)]
        tracks_only: bool,
    },
    /// The other end of a pipe that was opened.
    ConnectPipe {
        /// Which.
        pipe: PipeKey,
        /// What it is like.
        end: PipeEnd,
    },
    /// Everything that is to go into a pipe here.
    FillPipe {
        /// Which.
        pipe: PipeKey,
        /// The tracks, complete.
        tracks: Vec<PipedTrack>,
    },
    /// Everything that comes out of a pipe here, as the node at its other end has said in [`NodeToRoom::PipeFilled`].
    DrawPipe {
        /// Which.
        pipe: PipeKey,
        /// How, complete.
        streams: Vec<PipedStream>,
    },
    /// Say with the next [`NodeToRoom::ConnectionQuality`] how all fare who publish here, for these sessions of other nodes.
    TellQuality {
        /// Who has not heard of them.
        newcomers: Vec<SessionKey>,
    },
    /// Close a pipe.
    ClosePipe {
        /// Which.
        pipe: PipeKey,
    },
}

/// Node to room, on the room link.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum NodeToRoom {
    /// First message of a link.
    Hello {
        /// [`CONTROL_VERSION`] of the node.
        control_version: u32,
        /// Sessions of this room that live here.
        sessions: Vec<SessionKey>,
        /// Pipes of this room that are open here; `None`: the node takes none.
        #[serde(default)]
        pipes: Option<Vec<PipeKey>>,
        /// Where the node is.
        #[serde(default)]
        place: Option<Place>,
    },
    /// The session was not opened.
    SessionRefused {
        /// Whose; `None` when the token could not be read.
        session: Option<SessionKey>,
        /// Why.
        reason: RefusalReason,
        /// For the log; never holds a token.
        detail: String,
    },
    /// Answer to the client's offer.
    Answer {
        /// Whose.
        session: SessionKey,
        /// The answer.
        description: Description,
        /// Subscribed tracks by section, complete.
        mid_to_track: Vec<MidTrack>,
    },
    /// Offer for the subscriber connection.
    Offer {
        /// Whose.
        session: SessionKey,
        /// The offer.
        description: Description,
        /// Subscribed tracks by section, complete.
        mid_to_track: Vec<MidTrack>,
    },
    /// A description could not be used; the session goes on as it was.
    DescriptionRejected {
        /// Whose.
        session: SessionKey,
        /// The description's id.
        id: u32,
        /// For the log.
        detail: String,
    },
    /// Single connection: the client is to offer, with this many more recvonly sections (LiveKit's `MediaSectionsRequirement`).
    SectionsNeeded {
        /// Whose.
        session: SessionKey,
        /// Audio sections missing; 0 and 0: just offer.
        audios: u32,
        /// Video sections missing.
        videos: u32,
    },
    /// The room is to take its sessions to another node, gently; or, after all, it may leave them here.
    Draining {
        /// Said again on each link.
        draining: bool,
    },
    /// A participant answers a call of the server (`RpcRequest` in [`RoomToNode::SendData`]).
    CallAnswer {
        /// Whose.
        session: SessionKey,
        /// The encoded `DataPacket`, an `RpcAck` or `RpcResponse`: standard base64.
        packet: String,
    },
    /// The data channels the client has opened, complete.
    DataChannels {
        /// Whose.
        session: SessionKey,
        /// By label.
        channels: Vec<DataStream>,
    },
    /// The primary connection changed.
    MediaState {
        /// Whose.
        session: SessionKey,
        /// To what.
        state: MediaState,
        /// What media is protected with, once it has been up.
        #[serde(default)]
        srtp: Option<SrtpProfile>,
    },
    /// An announced track arrives: publish it, or update what is known of it.
    TrackReceived {
        /// The publisher.
        session: SessionKey,
        /// Which.
        track: TrackSid,
        /// All that is known.
        media: TrackMedia,
    },
    /// The client's description no longer sends this track: unpublished.
    TrackEnded {
        /// The publisher.
        session: SessionKey,
        /// Which.
        track: TrackSid,
    },
    /// A subscribed track is bound to a section the client knows: packets flow.
    TrackBound {
        /// The subscriber.
        session: SessionKey,
        /// Which.
        track: TrackSid,
    },
    /// Who is louder than told before, quieter, or silent; the loudest first.
    Speakers {
        /// Those that changed.
        speakers: Vec<Speaking>,
        /// Nothing has changed: it is for these, who have not heard of it, as in [`NodeToRoom::ConnectionQuality`].
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        newcomers: Vec<SessionKey>,
    },
    /// How well participants' media gets through.
    ConnectionQuality {
        /// Those that changed.
        changed: Vec<SessionQuality>,
        /// Others that publish, for those who have not heard of them.
        same: Vec<SessionQuality>,
        /// Who has not: it is new, or new tracks reach it; sessions of other nodes too, where [`RoomToNode::TellQuality`] named them.
        newcomers: Vec<SessionKey>,
    },
    /// A subscriber takes only this one of a track's [`Subscription::codecs`], or none of them.
    CodecNeeded {
        /// The subscriber.
        session: SessionKey,
        /// Which.
        track: TrackSid,
        /// Place of the codec in the list; `None`: it takes none.
        codec: Option<u8>,
    },
    /// A subscriber's path does not carry a video any more, or carries it again.
    StreamState {
        /// The subscriber.
        session: SessionKey,
        /// Which.
        track: TrackSid,
        /// Or sent again.
        paused: bool,
    },
    /// An end of a pipe is open, and waits for what the other one is like.
    PipeOpened {
        /// Which.
        pipe: PipeKey,
        /// What this one is like.
        end: PipeEnd,
    },
    /// A pipe is up, interrupted, or over: then it is closed already.
    PipeState {
        /// Which.
        pipe: PipeKey,
        /// How it is.
        state: MediaState,
    },
    /// How the tracks of [`RoomToNode::FillPipe`] go into a pipe, as far as they arrive here; said again whenever it changes.
    PipeFilled {
        /// Which.
        pipe: PipeKey,
        /// Complete.
        streams: Vec<PipedStream>,
    },
}

/// How loud a participant is, of all its microphones.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Speaking {
    /// Who.
    pub session: SessionKey,
    /// Up to [`LOUDEST_STEP`]; 0: silent.
    pub step: u8,
}

/// How well a participant's media gets through, both ways.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionQuality {
    /// Whose.
    pub session: SessionKey,
    /// Up to [`BEST_SCORE`]; `None`: it is lost.
    pub score: Option<u8>,
}
