//! What the forwarder knows of a transport: its streams, its subscriptions, its feedback.

use crate::media::api::{RoomKey, ShardIndex, TransportKey};
use crate::media::forward::bandwidth::Bandwidth;
use crate::media::forward::clock::Time;
use crate::media::forward::health::Health;
use crate::media::forward::twcc::ArrivalRecorder;

/// Where a received SSRC belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StreamRef {
    /// Slot of the track.
    pub(crate) track: usize,
    pub(crate) layer: u8,
    /// An RTX stream (RFC 4588).
    pub(crate) repair: bool,
}

/// One transport.
#[derive(Debug)]
pub(crate) struct Transport {
    pub(crate) key: TransportKey,
    pub(crate) room: RoomKey,
    pub(crate) connected: bool,
    /// Another shard has it and hands us its tracks.
    pub(crate) relayed_from: Option<ShardIndex>,
    /// It leads to another node, whose streams are all described by SSRC.
    pub(crate) is_pipe: bool,
    /// Slots of the tracks it sends us.
    pub(crate) tracks: Vec<usize>,
    /// Slots of the subscriptions we send it.
    pub(crate) subscriptions: Vec<usize>,
    /// Received SSRCs. One a layer and kind: bounded by the receivers.
    pub(crate) streams: Vec<(u32, StreamRef)>,
    /// Our SSRC in feedback.
    pub(crate) ssrc: u32,
    /// What it can be sent; `None`: nothing was sent with a transport-wide number.
    pub(crate) bandwidth: Option<Box<Bandwidth>>,
    pub(crate) allocation_due: Option<Time>,
    /// When to look at what its videos hold; `None`: they hold nothing.
    pub(crate) release_due: Option<Time>,
    /// When a subscription's demand is to be taken.
    pub(crate) demand_due: Option<Time>,
    /// Transport-wide arrivals; `None` before the first.
    pub(crate) recorder: Option<ArrivalRecorder>,
    /// The media SSRC feedback is addressed to: libwebrtc ignores feedback for an SSRC it does not send.
    pub(crate) feedback_ssrc: u32,
    pub(crate) feedback_due: Option<Time>,
    pub(crate) report_due: Option<Time>,
    /// How well it carries; `None`: nothing is known.
    health: Option<Box<Health>>,
    /// Added to the peer's NTP times gives ours; fixed by its first sender report, so that its tracks stay in step.
    pub(crate) ntp_offset: Option<u64>,
}

impl Transport {
    pub(crate) fn new(key: TransportKey, room: RoomKey, ssrc: u32) -> Self {
        Self {
            key,
            room,
            connected: false,
            relayed_from: None,
            is_pipe: false,
            tracks: Vec::new(),
            subscriptions: Vec::new(),
            streams: Vec::new(),
            ssrc,
            bandwidth: None,
            allocation_due: None,
            release_due: None,
            demand_due: None,
            recorder: None,
            feedback_ssrc: 0,
            feedback_due: None,
            report_due: None,
            health: None,
            ntp_offset: None,
        }
    }

    /// How well it carries, from now on.
    pub(crate) fn health(&mut self, now: Time) -> &mut Health {
        self.health.get_or_insert_with(|| Box::new(Health::new(now)))
    }

    /// The video worst off lacks so many layers because they do not fit.
    pub(crate) fn lacks(&mut self, now: Time, layers: u8) {
        if layers > 0 || self.health.is_some() {
            self.health(now).lacks(layers);
        }
    }

    /// How well it carries, if that is news; forgotten where nothing flows.
    pub(crate) fn take_score(&mut self, now: Time, flowing: bool) -> Option<u8> {
        let score = self.health.as_mut()?.close(now, flowing);
        if !flowing {
            self.health = None;
        }
        score
    }

    /// Where a received SSRC belongs.
    pub(crate) fn stream(&self, ssrc: u32) -> Option<StreamRef> {
        self.streams.iter().find(|(known, _)| *known == ssrc).map(|(_, stream)| *stream)
    }

    /// Binds an SSRC, in place of what the stream and the SSRC were bound to.
    pub(crate) fn bind(&mut self, ssrc: u32, stream: StreamRef) {
        self.streams.retain(|(known, bound)| *known != ssrc && *bound != stream);
        self.streams.push((ssrc, stream));
    }

    /// Forgets a track's streams.
    pub(crate) fn unbind(&mut self, track: usize) {
        self.streams.retain(|(_, stream)| stream.track != track);
    }
}
