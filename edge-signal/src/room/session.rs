//! One participant's session: where its media is, and the last description of each side (a move needs them).

use serde::{Deserialize, Serialize};
use shared::control::{Description, DescriptionKind, MediaState, MidTrack, PeerConnections};
use shared::ids::{Generation, NodeId, ParticipantSid, SessionKey};

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
    /// The client's last offer (publisher or only connection).
    pub(super) offer: Option<Description>,
    pub(super) offer_progress: Progress,
    /// The node's answer to it.
    pub(super) answer: Option<Description>,
    /// The node's last offer (subscriber connection).
    pub(super) node_offer: Option<Description>,
    /// The client's answer to it.
    pub(super) client_answer: Option<Description>,
    pub(super) client_answer_sent: bool,
    /// Subscribed tracks by section, as last described.
    pub(super) mid_to_track: Vec<MidTrack>,
    /// How often a node refused to open it.
    pub(super) refusals: u8,
}

/// How far an offer has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Progress {
    /// The node does not have it, or may have lost it.
    Unsent,
    Sent,
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
            offer: None,
            offer_progress: Progress::Done,
            answer: None,
            node_offer: None,
            client_answer: None,
            client_answer_sent: true,
            mid_to_track: Vec::new(),
            refusals: 0,
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

    /// Starts over on whatever node comes next; the client's own offer stays good.
    pub(super) fn renew(&mut self) {
        self.generation.0 += 1;
        self.node = None;
        self.opened = false;
        self.media = Media::New;
        self.answer = None;
        self.node_offer = None;
        self.client_answer = None;
        self.client_answer_sent = true;
        self.mid_to_track.clear();
        self.offer_progress = if self.offer.is_some() { Progress::Unsent } else { Progress::Done };
    }

    /// Takes the client's offer; the caller passes it on.
    pub(super) fn take_offer(&mut self, id: u32, sdp: String) {
        self.offer = Some(Description { kind: DescriptionKind::Offer, id, sdp });
        self.offer_progress = Progress::Unsent;
    }
}
