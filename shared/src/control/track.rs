//! A track, on its way between room and node: what its participant announced, what the node learnt of it, and who is to get
//! what of it.

use serde::{Deserialize, Serialize};

use crate::ids::{ParticipantSid, TrackSid};

/// Audio or video.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrackKind {
    /// `m=audio`.
    Audio,
    /// `m=video`.
    Video,
}

/// A track its participant has announced (LiveKit's `AddTrackRequest`), pending or published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnnouncedTrack {
    /// The track's id.
    pub sid: TrackSid,
    /// Audio or video.
    pub kind: TrackKind,
    /// The codecs announced, primary first; empty: whatever the description says.
    pub codecs: Vec<AnnouncedCodec>,
    /// Opus: stereo wanted.
    pub stereo: bool,
    /// Opus: discontinuous transmission unwanted.
    pub disable_dtx: bool,
    /// Audio: redundancy (RFC 2198) unwanted.
    pub disable_red: bool,
}

/// One codec of an announced track.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnnouncedCodec {
    /// `video/vp8`, `audio/opus`, …, lower case; empty: whatever the description says.
    pub mime: String,
    /// The client's id of the track: second token of the section's `a=msid`.
    pub cid: String,
}

/// What the node learnt of a published track; sent again whenever it learns more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrackMedia {
    /// Section of the publisher connection.
    pub mid: String,
    /// `video/VP8`, `audio/opus`, `audio/red`, … as LiveKit spells it.
    pub mime: String,
    /// The client's id of the track as its description had it.
    pub sdp_cid: String,
    /// Layers whose packets were seen, or which the description named by SSRC; lowest first. Audio has one.
    pub layers: Vec<LayerMedia>,
}

/// One simulcast layer (or the only stream) of a track.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerMedia {
    /// RTP stream id (RFC 8851), empty without simulcast.
    pub rid: String,
    /// Place in the description's rid list, lowest first; 0 without simulcast.
    pub spatial_layer: u8,
    /// Media SSRC; 0: not seen yet.
    pub ssrc: u32,
    /// RTX SSRC (RFC 4588); 0: none seen.
    pub repair_ssrc: u32,
}

/// A client's own track, as another node has received it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedTrack {
    /// Which.
    pub track: TrackSid,
    /// Its section.
    pub mid: String,
    /// Layers whose SSRC is known.
    pub layers: Vec<LayerMedia>,
}

/// A subscription the node is to serve.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscription {
    /// Whose track.
    pub publisher: ParticipantSid,
    /// The track.
    pub track: TrackSid,
    /// Audio or video.
    pub kind: TrackKind,
    /// Its codecs where it has several, primary first, lower case: `video/vp9`, `video/vp8`.
    #[serde(default)]
    pub codecs: Vec<String>,
    /// What of it is wanted.
    #[serde(default)]
    pub delivery: Delivery,
    /// Tracks of the publisher with the same name come to the subscriber in one stream, and are played in step; `None`: the
    /// track comes in one of its own.
    #[serde(default)]
    pub stream: Option<String>,
}

/// What of a track a subscriber is to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Delivery {
    /// Nothing for now.
    pub paused: bool,
    /// Highest simulcast layer, 0 the lowest; `None`: the best there is.
    pub max_layer: Option<u8>,
    /// No more frames a second than the lowest temporal layer with so many; `None`: all.
    #[serde(default)]
    pub max_frame_rate: Option<u16>,
    /// Videos with a higher one are served first where the path does not carry all.
    pub priority: u8,
}
