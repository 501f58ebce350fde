//! Pipes: transports between two nodes that serve one room. The room opens one for each pair of nodes that has tracks for
//! each other's subscribers, carries what the two ends have to know of each other, and says what goes through.
//!
//! **A node puts into a pipe only what the sessions on it send**, never what came out of another pipe: one hop, no loops.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::TrackKind;
use crate::ids::{ParticipantSid, TrackSid};

/// Most addresses of an end of a pipe.
pub const MAX_PIPE_ADDRESSES: usize = 4;

/// Names a pipe in its room. Never used again in a room's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PipeKey(pub u32);

/// What the other node has to know of one end of a pipe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PipeEnd {
    /// Where its datagrams go, preferred first; at most [`MAX_PIPE_ADDRESSES`].
    pub addresses: Vec<SocketAddr>,
    /// Below 2^28. Every datagram for it begins with it, because the pipes of all rooms between two nodes share addresses.
    pub number: u32,
    /// ICE credentials (RFC 8445 section 5.3): the user name fragment.
    pub ufrag: String,
    /// And the password.
    pub password: String,
    /// Of the node's certificate, as in `a=fingerprint` with SHA-256 (RFC 8122).
    pub fingerprint: String,
}

/// A track that is to go through a pipe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PipedTrack {
    /// Whose; its session is on the node that is told.
    pub publisher: ParticipantSid,
    /// Which.
    pub track: TrackSid,
    /// Highest simulcast layer that anyone there wants, 0 the lowest; `None`: all there are.
    pub max_layer: Option<u8>,
}

/// A payload type in a pipe: the publisher's, with a retransmission of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PipedPayloadType {
    /// 0 to 127.
    pub pt: u8,
    /// `video/VP8`, … as LiveKit spells it.
    pub mime: String,
    /// VP9: profile. H264: packetization mode of constrained baseline. Else 0.
    pub format: u32,
    /// RTP clock, Hz.
    pub clock_rate: u32,
    /// What retransmits it (RFC 4588).
    pub rtx_pt: Option<u8>,
}

/// One layer of a track in a pipe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PipedLayer {
    /// RTP stream id (RFC 8851) that the publisher has given it; empty without simulcast.
    pub rid: String,
    /// Media SSRC.
    pub ssrc: u32,
    /// RTX SSRC.
    pub rtx_ssrc: u32,
}

/// How a track goes through a pipe; one in two codecs goes through twice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PipedStream {
    /// Which.
    pub track: TrackSid,
    /// Audio or video.
    pub kind: TrackKind,
    /// It is the track in its second codec (LiveKit's backup codec).
    pub backup: bool,
    /// Payload types, preferred first.
    pub payload_types: Vec<PipedPayloadType>,
    /// Its layers, lowest first, those that nobody wants at the moment too.
    pub layers: Vec<PipedLayer>,
}
