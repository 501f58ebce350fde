//! What the probe sends and receives: packets that say when they were sent, in descriptors that an SFU understands, so
//! that loss, jitter and the way through the node can be told of each.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand::Rng;
use rtc::rtp;
use rtc::rtp_transceiver::rtp_sender::{
    RTCPFeedback, RTCRtpCodec, RTCRtpCodecParameters, RTCRtpCodingParameters, RTCRtpEncodingParameters, RtpCodecKind,
};
use serde::Serialize;
use tokio::sync::Notify;
use tokio::time::{interval, timeout};
use webrtc::media_stream::track_local::TrackLocal;
use webrtc::media_stream::track_local::static_rtp::TrackLocalStaticRTP;
use webrtc::media_stream::track_remote::{TrackRemote, TrackRemoteEvent};

/// Length of a stamp: counter, time.
const STAMP_LEN: usize = 12;
/// Payload of an audio packet, bytes: 48 kb/s.
const AUDIO_PAYLOAD: usize = 120;
/// Payload of a video packet, bytes.
const VIDEO_PAYLOAD: usize = 1000;
/// Packets of a video frame: 600 kb/s.
const PACKETS_PER_FRAME: u32 = 3;
/// Longest that packets on their way are waited for at the end.
const GRACE: Duration = Duration::from_secs(1);

/// The clock of all stamps: publisher and subscriber are in one process.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock(Instant);

impl Clock {
    /// Starts it.
    pub(super) fn start() -> Self {
        Self(Instant::now())
    }

    fn nanos(self) -> u64 {
        u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// Audio or video.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    /// Opus.
    Audio,
    /// VP8.
    Video,
}

impl Kind {
    /// Both.
    pub(super) const ALL: [Self; 2] = [Self::Audio, Self::Video];

    /// For labels.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Audio => "audio",
            Self::Video => "video",
        }
    }

    /// As the `webrtc` crate calls it.
    pub(super) fn rtp(self) -> RtpCodecKind {
        match self {
            Self::Audio => RtpCodecKind::Audio,
            Self::Video => RtpCodecKind::Video,
        }
    }

    /// What is offered.
    pub(super) fn codec(self) -> RTCRtpCodecParameters {
        let feedback =
            |typ: &str, parameter: &str| RTCPFeedback { typ: typ.to_owned(), parameter: parameter.to_owned() };
        let (payload_type, rtp_codec) = match self {
            Self::Audio => (
                111,
                RTCRtpCodec {
                    mime_type: "audio/opus".to_owned(),
                    clock_rate: 48_000,
                    channels: 2,
                    sdp_fmtp_line: "minptime=10;useinbandfec=1".to_owned(),
                    rtcp_feedback: Vec::new(),
                },
            ),
            Self::Video => (
                96,
                RTCRtpCodec {
                    mime_type: "video/VP8".to_owned(),
                    clock_rate: 90_000,
                    channels: 0,
                    sdp_fmtp_line: String::new(),
                    rtcp_feedback: vec![feedback("ccm", "fir"), feedback("nack", "pli")],
                },
            ),
        };
        RTCRtpCodecParameters { rtp_codec, payload_type }
    }

    /// Between two packets of audio (RFC 7587 section 4.2) or two frames of video.
    fn interval(self) -> Duration {
        match self {
            Self::Audio => Duration::from_millis(20),
            Self::Video => Duration::from_millis(40),
        }
    }

    /// The same on the codec's clock.
    fn ticks(self) -> u32 {
        match self {
            Self::Audio => 960,
            Self::Video => 3_600,
        }
    }
}

/// A track that is sent.
#[derive(Debug, Clone)]
pub(super) struct Outgoing {
    kind: Kind,
    ssrc: u32,
    sent: Arc<AtomicU32>,
}

impl Outgoing {
    /// Nothing was sent yet.
    pub(super) fn new(kind: Kind) -> Self {
        Self { kind, ssrc: rand::rng().random(), sent: Arc::default() }
    }

    /// Audio or video.
    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    /// The client's id of the track: second token of `a=msid`.
    pub(super) fn cid(&self) -> &'static str {
        match self.kind {
            Kind::Audio => "probe-audio",
            Kind::Video => "probe-video",
        }
    }

    /// How it is sent.
    pub(super) fn encoding(&self) -> RTCRtpEncodingParameters {
        let coding = RTCRtpCodingParameters { ssrc: Some(self.ssrc), ..RTCRtpCodingParameters::default() };
        RTCRtpEncodingParameters {
            rtp_coding_parameters: coding,
            active: true,
            codec: self.kind.codec().rtp_codec,
            ..RTCRtpEncodingParameters::default()
        }
    }

    /// Packets sent so far; the next one has this counter.
    pub(super) fn sent(&self) -> u32 {
        self.sent.load(Ordering::Acquire)
    }

    /// Sends until the connection is closed.
    pub(super) fn send(&self, track: Arc<TrackLocalStaticRTP>, clock: Clock) -> impl Future<Output = ()> + use<> {
        let (kind, ssrc, sent) = (self.kind, self.ssrc, self.sent.clone());
        async move {
            let (mut due, mut timestamp) = (interval(kind.interval()), 0_u32);
            let (mut counter, mut picture) = (0_u32, 0_u16);
            loop {
                due.tick().await;
                let packets = if kind == Kind::Audio { 1 } else { PACKETS_PER_FRAME };
                for index in 0..packets {
                    let mut payload = match kind {
                        Kind::Audio => opus(),
                        Kind::Video => vp8(picture, index == 0),
                    };
                    payload.extend_from_slice(&counter.to_be_bytes());
                    payload.extend_from_slice(&clock.nanos().to_be_bytes());
                    let header = rtp::Header {
                        version: 2,
                        payload_type: kind.codec().payload_type,
                        // Wraps (RFC 3550 section 5.1).
                        sequence_number: u16::try_from(counter & 0xffff).unwrap_or_default(),
                        timestamp,
                        ssrc,
                        marker: index + 1 == packets,
                        ..rtp::Header::default()
                    };
                    // Counted first: it may arrive before this task runs again.
                    counter = counter.wrapping_add(1);
                    sent.store(counter, Ordering::Release);
                    if track.write_rtp(rtp::Packet { header, payload: payload.into() }).await.is_err() {
                        return;
                    }
                }
                timestamp = timestamp.wrapping_add(kind.ticks());
                picture = picture.wrapping_add(1) & 0x7fff;
            }
        }
    }
}

/// An Opus packet: CELT, fullband, 20 ms, mono, one frame (RFC 6716 section 3.1).
fn opus() -> Vec<u8> {
    let mut payload = vec![31 << 3];
    payload.resize(AUDIO_PAYLOAD - STAMP_LEN, 0x5a);
    payload
}

/// A packet of a VP8 keyframe: descriptor with a 15-bit picture id (RFC 7741 section 4.2), then frame tag, start code and
/// size (RFC 6386 section 9.1). All frames are keyframes, so that nobody waits for one.
fn vp8(picture: u16, first: bool) -> Vec<u8> {
    let [high, low] = (picture | 0x8000).to_be_bytes();
    let mut payload = vec![if first { 0x90 } else { 0x80 }, 0x80, high, low];
    if first {
        payload.extend_from_slice(&[0, 0, 0, 0x9d, 0x01, 0x2a, 0x80, 0x02, 0x68, 0x01]);
    }
    payload.resize(VIDEO_PAYLOAD - STAMP_LEN, 0x5a);
    payload
}

/// A track that is received.
#[derive(Debug, Clone, Default)]
pub(super) struct Incoming(Arc<(Mutex<Reception>, Notify)>);

#[derive(Debug, Default)]
struct Reception {
    /// When the first packet came.
    first: Option<Instant>,
    /// Counted from this counter on.
    base: Option<u32>,
    seen: BTreeSet<u32>,
    /// Of the packets seen: from the publisher's socket to the subscriber's.
    transits: Vec<Duration>,
    /// Interarrival jitter, seconds (RFC 3550 section 6.4.1), with the time of sending for the RTP time.
    jitter: f64,
    last: Option<Duration>,
}

impl Incoming {
    /// Takes packets until the connection is closed.
    pub(super) fn receive(&self, track: Arc<dyn TrackRemote>, clock: Clock) -> impl Future<Output = ()> + use<> {
        let shared = self.0.clone();
        async move {
            while let Some(event) = track.poll().await {
                if let TrackRemoteEvent::OnRtpPacket(packet) = event
                    && let Some((counter, transit)) = transit(&packet.payload, clock.nanos())
                {
                    let (reception, notify) = &*shared;
                    lock(reception).take(counter, transit);
                    notify.notify_one();
                }
            }
        }
    }

    /// Waits for the first packet: when it came.
    pub(super) async fn first(&self) -> Instant {
        loop {
            // Before the look: what comes in between wakes it.
            let news = self.0.1.notified();
            if let Some(at) = lock(&self.0.0).first {
                return at;
            }
            news.await;
        }
    }

    /// Counts from this counter on.
    pub(super) fn begin(&self, counter: u32) {
        let mut reception = lock(&self.0.0);
        *reception = Reception { first: reception.first, base: Some(counter), ..Reception::default() };
    }

    /// Counts no further than up to this counter, once what is on its way has come.
    pub(super) async fn end(&self, counter: u32) -> Quality {
        let all = async {
            loop {
                let news = self.0.1.notified();
                if lock(&self.0.0).has_all(counter) {
                    return;
                }
                news.await;
            }
        };
        // What has not come by now is lost.
        let _ = timeout(GRACE, all).await;
        lock(&self.0.0).quality(counter)
    }
}

impl Reception {
    fn take(&mut self, counter: u32, transit: Duration) {
        self.first.get_or_insert_with(Instant::now);
        if self.base.is_none_or(|base| counter < base) || !self.seen.insert(counter) {
            return;
        }
        self.transits.push(transit);
        if let Some(last) = self.last.replace(transit) {
            self.jitter += (transit.abs_diff(last).as_secs_f64() - self.jitter) / 16.0;
        }
    }

    fn received(&self, end: u32) -> u32 {
        u32::try_from(self.seen.range(self.base.unwrap_or(end)..end).count()).unwrap_or(u32::MAX)
    }

    fn sent(&self, end: u32) -> u32 {
        end.saturating_sub(self.base.unwrap_or(end))
    }

    fn has_all(&self, end: u32) -> bool {
        self.received(end) >= self.sent(end)
    }

    fn quality(&self, end: u32) -> Quality {
        let mut transits = self.transits.clone();
        transits.sort_unstable();
        Quality {
            sent: self.sent(end),
            received: self.received(end),
            jitter: self.jitter,
            round_trip: percentile(&transits, 50),
            round_trip_95: percentile(&transits, 95),
        }
    }
}

/// How media came through.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Quality {
    /// Packets sent.
    pub(super) sent: u32,
    /// Of these, received.
    pub(super) received: u32,
    /// Interarrival jitter, seconds.
    pub(super) jitter: f64,
    /// From this machine to the node and back, through the node, seconds: the median.
    pub(super) round_trip: f64,
    /// The same, 95th percentile.
    pub(super) round_trip_95: f64,
}

impl Quality {
    fn lost(&self) -> u32 {
        self.sent.saturating_sub(self.received)
    }

    /// Share of the packets sent, 0.0 to 1.0; all of nothing is lost.
    pub(super) fn loss(&self) -> f64 {
        if self.sent == 0 { 1.0 } else { f64::from(self.lost()) / f64::from(self.sent) }
    }
}

/// Nearest rank, seconds; 0 of nothing.
fn percentile(sorted: &[Duration], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(rank).map_or(0.0, Duration::as_secs_f64)
}

/// Counter and time on its way of a packet that ends in a stamp.
fn transit(payload: &Bytes, now: u64) -> Option<(u32, Duration)> {
    let (counter, sent) = payload.last_chunk::<STAMP_LEN>()?.split_first_chunk::<4>()?;
    let sent = u64::from_be_bytes(*sent.first_chunk::<8>()?);
    Some((u32::from_be_bytes(*counter), Duration::from_nanos(now.checked_sub(sent)?)))
}

fn lock(reception: &Mutex<Reception>) -> MutexGuard<'_, Reception> {
    reception.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn loss_counts_what_was_sent_in_between_and_nothing_twice() {
        let mut reception = Reception { base: Some(10), ..Reception::default() };
        for counter in [8, 9, 10, 11, 11, 13, 14, 20] {
            reception.take(counter, ms(30));
        }
        let quality = reception.quality(15);
        assert_eq!((quality.sent, quality.received), (5, 4));
        assert!((quality.loss() - 0.2).abs() < 1e-9);
        assert!((Reception::default().quality(0).loss() - 1.0).abs() < 1e-9, "nothing at all is no good call");
    }

    #[test]
    fn jitter_is_that_of_the_way_and_round_trips_are_ranked() {
        let mut steady = Reception { base: Some(0), ..Reception::default() };
        (0..100).for_each(|counter| steady.take(counter, ms(40)));
        assert!(steady.quality(100).jitter < 1e-9);
        let mut shaky = Reception { base: Some(0), ..Reception::default() };
        (0..100).for_each(|counter| shaky.take(counter, ms(if counter % 2 == 0 { 40 } else { 50 })));
        let quality = shaky.quality(100);
        assert!((quality.jitter - 0.01).abs() < 1e-3, "{quality:?}");
        assert_eq!((quality.round_trip, quality.round_trip_95), (0.04, 0.05));
    }

    #[test]
    fn stamps_are_read_from_the_end() {
        let mut payload = opus();
        payload.extend_from_slice(&7_u32.to_be_bytes());
        payload.extend_from_slice(&1_000_u64.to_be_bytes());
        assert_eq!(payload.len(), AUDIO_PAYLOAD);
        assert_eq!(transit(&payload.into(), 5_000), Some((7, Duration::from_nanos(4_000))));
        assert_eq!(transit(&Bytes::from_static(b"short"), 5_000), None);
        assert!(vp8(5, true).starts_with(&[0x90, 0x80, 0x80, 5, 0, 0, 0, 0x9d]));
    }
}
