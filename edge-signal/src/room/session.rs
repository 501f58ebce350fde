//! One participant's session: where its media is, how far its negotiation has come.
//! The last description of each side is kept too, each in a row of its own: a move needs them.

use serde::{Deserialize, Serialize};
use shared::control::{DataStream, MediaState, MidTrack, PeerConnections, SrtpProfile};
use shared::ids::{Generation, NodeId, ParticipantSid, SessionKey};

use super::moving::Moving;

/// Row `session`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Session {
    pub(super) generation: Generation,
    pub(super) peer_connections: PeerConnections,
    /// The node it is on; `None`: waiting for one, or ended.
    pub(super) node: Option<NodeId>,
    /// The node was asked to open this generation.
    pub(super) opened: bool,
    pub(super) media: Media,
    /// How far [`Side::ClientOffer`] has come.
    pub(super) offer: Progress,
    /// How far [`Side::ClientAnswer`] has come.
    pub(super) answer: Progress,
    /// The client's answer was sent more than once: the node may rightly refuse it.
    pub(super) answer_repeated: bool,
    /// Subscribed tracks by section, as last described.
    pub(super) mid_to_track: Vec<MidTrack>,
    /// How often a node refused to open it.
    pub(super) refusals: u8,
    /// The node is to offer the subscriber connection anew, with an ICE restart.
    #[serde(default)]
    pub(super) restart_due: bool,
    /// Sections of the connection the client offers that have carried a subscribed track.
    #[serde(default)]
    pub(super) carried: Vec<String>,
    /// The data channels the client has opened.
    #[serde(default)]
    pub(super) channels: Vec<DataStream>,
    /// What its client and the node have last agreed on.
    #[serde(default)]
    pub(super) srtp: Option<SrtpProfile>,
    /// Its client has said that its connection failed, and it was not up since.
    #[serde(default)]
    pub(super) failed: bool,
    /// It goes on at another node, and its client is not connected there yet.
    #[serde(default)]
    pub(super) moving: Option<Moving>,
}

/// Who described what. The client offers its publisher (or only) connection, the node the subscriber connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Side {
    ClientOffer,
    NodeAnswer,
    NodeOffer,
    ClientAnswer,
}

impl Side {
    pub(super) const ALL: [Self; 4] = [Self::ClientOffer, Self::NodeAnswer, Self::NodeOffer, Self::ClientAnswer];

    /// Its name in a row's key.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::ClientOffer => "client_offer",
            Self::NodeAnswer => "node_answer",
            Self::NodeOffer => "node_offer",
            Self::ClientAnswer => "client_answer",
        }
    }
}

/// How far a client's description has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Progress {
    /// The node does not have it, or may have lost it.
    Unsent,
    Sent,
    /// Settled, or there is none.
    Done,
}

/// The primary connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Media {
    /// Never up.
    New,
    Connected,
    Disconnected,
    /// Over; the client has to join anew.
    Ended,
}

impl From<MediaState> for Media {
    fn from(state: MediaState) -> Self {
        match state {
            MediaState::Connected => Self::Connected,
            MediaState::Disconnected => Self::Disconnected,
            MediaState::Failed => Self::Ended,
        }
    }
}

impl Session {
    pub(super) fn new(peer_connections: PeerConnections) -> Self {
        Self {
            generation: Generation(1),
            peer_connections,
            node: None,
            opened: false,
            media: Media::New,
            offer: Progress::Done,
            answer: Progress::Done,
            answer_repeated: false,
            mid_to_track: Vec::new(),
            refusals: 0,
            restart_due: false,
            carried: Vec::new(),
            channels: Vec::new(),
            srtp: None,
            failed: false,
            moving: None,
        }
    }

    pub(super) fn key(&self, participant: &ParticipantSid) -> SessionKey {
        SessionKey { participant: participant.clone(), generation: self.generation }
    }

    /// Whether tracks may be subscribed to: with one connection from the start, with two once it is up.
    pub(super) fn takes_subscriptions(&self) -> bool {
        match self.media {
            Media::New => self.peer_connections == PeerConnections::Single,
            Media::Connected | Media::Disconnected => true,
            Media::Ended => false,
        }
    }
}
