//! The room's own record: name, life, configuration, counts, placement.

use livekit_protocol as proto;
use serde::{Deserialize, Serialize};
use shared::control::PlayoutDelay;
use shared::geo::Place;
use shared::ids::{NodeId, RegionName, RoomName, RoomSid};

use super::configuration::playout_delay;
use super::event::UnixMs;
use super::job::Known;
use super::nearer::Sought;

/// Version of all rows of a room. **Count it up, and add a step to `migrate`, with every change that rows written before it
/// cannot be read with, or that an older version would read wrongly.**
pub(super) const LAYOUT: u32 = 2;
/// Seconds a room nobody ever joined lives on (LiveKit's default).
pub const EMPTY_TIMEOUT_SECS: u32 = 300;
/// Seconds a room lives on after its last participant left (LiveKit's default).
pub const DEPARTURE_TIMEOUT_SECS: u32 = 20;

/// Milliseconds a node just lost is not asked for: by then the fleet has noticed too, or the node is back.
const AVOID_LOST_NODE_MS: u64 = 5_000;

/// MIME types a room forwards, with retransmission; video first (Flutter 2.4.2 takes the first one for video).
const ENABLED_MIMES: [&str; 7] =
    ["video/VP8", "video/H264", "video/VP9", "video/AV1", "audio/opus", "audio/red", "video/rtx"];

/// Row `room`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    /// [`LAYOUT`] when it was written.
    pub(super) layout: u32,
    pub(super) name: RoomName,
    pub(super) sid: RoomSid,
    /// False until someone joins; such a room has no rows.
    pub(super) created: bool,
    pub(super) created_at: UnixMs,
    /// Somebody has been in it.
    #[serde(default = "yes")]
    pub(super) joined: bool,
    pub(super) empty_timeout_secs: u32,
    pub(super) departure_timeout_secs: u32,
    /// 0: unlimited.
    pub(super) max_participants: u32,
    pub(super) metadata: String,
    /// What subscribers are asked for with every video.
    #[serde(default)]
    pub(super) playout_delay: Option<PlayoutDelay>,
    /// A participant's tracks that belong together come in one stream.
    #[serde(default)]
    pub(super) sync_streams: bool,
    /// Only nodes of this region serve the room: the token that created it says so. `null` is written: a row without it
    /// is of layout 1.
    #[serde(deserialize_with = "Option::deserialize")]
    pub(super) region: Option<RegionName>,
    /// Where it is placed while that node takes rooms: whoever made it said so.
    #[serde(default)]
    pub(super) node: Option<NodeId>,
    /// Since when no participant that counts is in it.
    pub(super) empty_since: Option<UnixMs>,
    /// What clients and the directory were last told, and when.
    pub(super) told: Counts,
    pub(super) told_at: UnixMs,
    /// When clients of a crowd were last told of newcomers.
    #[serde(default)]
    pub(super) newcomers_told_at: UnixMs,
    pub(super) placing: Placing,
    /// The node lost last, and when: placements avoid it for [`AVOID_LOST_NODE_MS`].
    pub(super) lost_node: Option<(NodeId, UnixMs)>,
    /// Two of its nodes could not reach each other: nobody is taken to another node than those that it has.
    #[serde(default)]
    pub(super) gathered: bool,
    /// Where there may be nodes near people who are served from afar.
    #[serde(default)]
    pub(super) sought: Vec<Sought>,
    /// When somebody who is to be taken there has settled where they are.
    #[serde(default)]
    pub(super) settles_at: Option<UnixMs>,
    /// What it knows of agents' workers.
    #[serde(default)]
    pub(super) agents: Known,
    pub(super) over: bool,
}

/// Participants that count, and those of them that publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Counts {
    pub(super) participants: u32,
    pub(super) publishers: u32,
    /// A recorder is there.
    #[serde(default)]
    pub(super) recording: bool,
}

/// Whether the fleet has been asked for a node.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) enum Placing {
    Idle,
    /// Asked; the answer may get lost with the object's memory, so the question is repeated after a while.
    Asked {
        since: UnixMs,
        attempt: u32,
        /// Near there.
        #[serde(default)]
        client: Option<Place>,
    },
    /// There was no node; ask again.
    Backoff {
        until: UnixMs,
        attempt: u32,
    },
}

impl Record {
    pub(super) fn new(name: RoomName, sid: RoomSid, now: UnixMs) -> Self {
        Self {
            layout: LAYOUT,
            name,
            sid,
            created: false,
            created_at: now,
            joined: false,
            empty_timeout_secs: EMPTY_TIMEOUT_SECS,
            departure_timeout_secs: DEPARTURE_TIMEOUT_SECS,
            max_participants: 0,
            metadata: String::new(),
            playout_delay: None,
            sync_streams: false,
            region: None,
            node: None,
            empty_since: None,
            told: Counts::default(),
            told_at: UnixMs(0),
            newcomers_told_at: UnixMs(0),
            placing: Placing::Idle,
            lost_node: None,
            gathered: false,
            sought: Vec::new(),
            settles_at: None,
            agents: Known::default(),
            over: false,
        }
    }

    /// Applies a token's `roomConfig`; zero means default.
    pub(super) fn configure(&mut self, config: &proto::RoomConfiguration) {
        if config.empty_timeout > 0 {
            self.empty_timeout_secs = config.empty_timeout;
        }
        if config.departure_timeout > 0 {
            self.departure_timeout_secs = config.departure_timeout;
        }
        self.max_participants = config.max_participants;
        self.metadata.clone_from(&config.metadata);
        // It was checked at the door.
        self.playout_delay = playout_delay(config).unwrap_or_default();
        self.sync_streams = config.sync_streams;
    }

    /// It is kept together: on nodes of one region, or on the one that it was made for.
    pub(super) fn is_pinned(&self) -> bool {
        self.region.is_some() || self.node.is_some()
    }

    /// Nodes that a placement should avoid now.
    pub(super) fn avoided_nodes(&self, now: UnixMs) -> Vec<NodeId> {
        let lately = self.lost_node.iter().filter(|(_, lost_at)| now < lost_at.after(AVOID_LOST_NODE_MS));
        lately.map(|(node, _)| node.clone()).collect()
    }

    /// When the room ends if nobody comes.
    pub(super) fn ends_at(&self) -> Option<UnixMs> {
        let timeout_ms =
            if self.joined { self.departure_timeout_ms() } else { u64::from(self.empty_timeout_secs) * 1000 };
        Some(self.empty_since?.after(timeout_ms))
    }

    /// How long the room is kept when all have left, and a participant whose signaling is gone.
    pub(super) fn departure_timeout_ms(&self) -> u64 {
        u64::from(self.departure_timeout_secs) * 1000
    }

    /// LiveKit's `Room` message.
    pub(super) fn info(&self, counts: Counts) -> proto::Room {
        proto::Room {
            sid: self.sid.to_string(),
            name: self.name.to_string(),
            empty_timeout: self.empty_timeout_secs,
            departure_timeout: self.departure_timeout_secs,
            max_participants: self.max_participants,
            creation_time: signed(self.created_at.secs()),
            creation_time_ms: signed(self.created_at.0),
            enabled_codecs: ENABLED_MIMES.iter().map(|mime| codec(mime)).collect(),
            metadata: self.metadata.clone(),
            num_participants: counts.participants,
            num_publishers: counts.publishers,
            active_recording: counts.recording,
            ..Default::default()
        }
    }
}

/// A room of before the field was joined by whoever made it.
fn yes() -> bool {
    true
}

/// Codecs a client may publish: all the room forwards but retransmission, which is no codec of its own.
pub(super) fn publish_codecs() -> Vec<proto::Codec> {
    ENABLED_MIMES.iter().filter(|mime| **mime != "video/rtx").map(|mime| codec(mime)).collect()
}

/// Whether a client may publish this MIME type (case does not matter).
pub(super) fn is_publishable(mime: &str) -> bool {
    ENABLED_MIMES.iter().any(|enabled| *enabled != "video/rtx" && enabled.eq_ignore_ascii_case(mime))
}

/// The protocol's integers are signed.
pub(super) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn codec(mime: &str) -> proto::Codec {
    proto::Codec { mime: mime.to_owned(), fmtp_line: String::new() }
}
