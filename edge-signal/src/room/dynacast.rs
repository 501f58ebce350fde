//! Dynacast: a publisher is told which qualities of a video somebody wants, so that it sends no others. More is told at
//! once, less when nobody has wanted more for a while.

use livekit_protocol as proto;
use livekit_protocol::VideoQuality;
use livekit_protocol::signal_response::Message;
use serde::{Deserialize, Serialize};
use shared::control::TrackKind;
use shared::ids::{ParticipantSid, TrackSid};

use super::Room;
use super::delivery::delivery;
use super::event::UnixMs;
use super::publication::Publication;
use super::subscription::Subscription;
use super::track_info;
use super::turn::Turn;

/// Milliseconds until a publisher is told that less is wanted (LiveKit's).
pub const LESS_AFTER_MS: u64 = 5_000;
/// Milliseconds until it is told that nobody wants a new track (LiveKit's).
pub const UNWANTED_AFTER_MS: u64 = 10_000;
/// From the lowest up.
const QUALITIES: [VideoQuality; 3] = [VideoQuality::Low, VideoQuality::Medium, VideoQuality::High];

/// How many qualities are wanted, from the lowest up.
type Wanted = u8;
const ALL: Wanted = 3;

/// What a publisher knows of the wishes for a video.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Dynacast {
    /// What it was told last; `None`: nothing yet.
    told: Option<Wanted>,
    /// The same of its second codec; `None`: nobody needs it.
    #[serde(default)]
    backup: Option<Wanted>,
    /// When to look whether less is wanted.
    pub(super) review_at: Option<UnixMs>,
}

impl Dynacast {
    /// A video begins: somebody may want it soon.
    pub(super) fn begin(&mut self, now: UnixMs) {
        self.review_at = Some(now.after(UNWANTED_AFTER_MS));
    }

    fn review_soon(&mut self, now: UnixMs) {
        let at = now.after(LESS_AFTER_MS);
        self.review_at = Some(self.review_at.map_or(at, |set| set.min(at)));
    }
}

impl Room {
    /// A subscriber gets a track, or wants something else of it.
    pub(super) fn want_quality(&mut self, turn: &mut Turn, subscriber: &ParticipantSid, track: &TrackSid) {
        let Some(wanted) = self.quality_wanted_by(subscriber, track) else { return };
        let Some(publication) = self.publications.get(track).filter(|publication| is_video(publication)) else {
            return;
        };
        let Dynacast { told, backup, .. } = publication.dynacast;
        if self.takes_backup(subscriber, track) {
            if backup.is_none_or(|backup| wanted > backup) {
                self.tell_quality(turn, track, told.unwrap_or(ALL), Some(wanted));
            }
            // What it took before may be wanted by nobody else.
            return self.want_less(turn, track);
        }
        self.want_primary(turn, track, wanted);
    }

    /// A track is wanted in another room, or something else of it.
    pub(super) fn want_forwarded(&mut self, turn: &mut Turn, track: &TrackSid) {
        let Some(publication) = self.publications.get(track) else { return };
        let (is_video, info) = (is_video(publication), &publication.info);
        let wanted = self.forwards_want(track).map(|layer| wanted_quality(info, layer)).max();
        self.note_subscribed(turn, track);
        if let Some(wanted) = wanted.filter(|_| is_video) {
            self.want_primary(turn, track, wanted);
        }
    }

    fn want_primary(&mut self, turn: &mut Turn, track: &TrackSid, wanted: Wanted) {
        let Some(Dynacast { told, backup, .. }) = self.publications.get(track).map(|p| p.dynacast.clone()) else {
            return;
        };
        // The first subscriber of all may be one who does not say how large it shows the video.
        let tell = if told.is_none() { ALL } else { wanted };
        if told.is_none_or(|told| tell > told) {
            self.tell_quality(turn, track, tell, backup);
        }
        if wanted < told.unwrap_or(ALL) {
            self.want_less(turn, track);
        }
    }

    /// The node finds which of a video's codecs a subscriber takes; `None`: none.
    pub(super) fn codec_needed(&mut self, turn: &mut Turn, sid: &ParticipantSid, track: &TrackSid, codec: Option<u8>) {
        let Some(current) = self.subscriptions.get(sid).and_then(|mine| mine.get(track)).copied() else {
            self.counters.unknown_track += 1;
            return;
        };
        let Some(codec) = codec else {
            let err = proto::SubscriptionError::SeCodecUnsupported.into();
            let response = proto::SubscriptionResponse { track_sid: track.to_string(), err };
            return self.send(turn, sid, Message::SubscriptionResponse(response));
        };
        self.put_subscription(sid, track, Subscription { codec, ..current });
        self.want_quality(turn, sid, track);
    }

    fn takes_backup(&self, subscriber: &ParticipantSid, track: &TrackSid) -> bool {
        self.subscriptions.get(subscriber).and_then(|mine| mine.get(track)).is_some_and(|mine| mine.codec > 0)
    }

    /// Somebody wants a track no more, or less of it.
    pub(super) fn want_less(&mut self, turn: &Turn, track: &TrackSid) {
        let told = self.publications.get(track).and_then(|publication| publication.dynacast.told);
        if told.is_none_or(|told| told == 0) {
            return;
        }
        if let Some(publication) = self.publication_mut(track) {
            publication.dynacast.review_soon(turn.now);
        }
    }

    /// Tells a publisher again what it was told: it may have missed it, or begins to send.
    pub(super) fn repeat_quality(&mut self, turn: &mut Turn, track: &TrackSid) {
        let Some(publication) = self.publications.get(track) else { return };
        let Dynacast { told, backup, .. } = publication.dynacast;
        if let Some(told) = told {
            self.tell_quality(turn, track, told, backup);
        }
    }

    /// The same of all its videos.
    pub(super) fn repeat_qualities(&mut self, turn: &mut Turn, publisher: &ParticipantSid) {
        let own = self.tracks_of(publisher);
        own.iter().for_each(|track| self.repeat_quality(turn, track));
    }

    /// When a publisher may have to be told.
    pub(super) fn quality_deadline(&self) -> Option<UnixMs> {
        self.publications.values().filter_map(|publication| publication.dynacast.review_at).min()
    }

    /// Tells publishers what has not been wanted for a while.
    pub(super) fn review_qualities(&mut self, turn: &mut Turn) {
        let due = |publication: &Publication| publication.dynacast.review_at.is_some_and(|at| at <= turn.now);
        let due: Vec<TrackSid> =
            self.publications.iter().filter(|(_, p)| due(p)).map(|(track, _)| track.clone()).collect();
        for track in due {
            let [mut primary, mut second] = [0; 2];
            if let Some(publication) = self.publications.get(&track) {
                let info = &publication.info;
                primary = self.forwards_want(&track).map(|layer| wanted_quality(info, layer)).max().unwrap_or(0);
            }
            for subscriber in self.subscriptions.keys() {
                let Some(wanted) = self.quality_wanted_by(subscriber, &track) else { continue };
                let most = if self.takes_backup(subscriber, &track) { &mut second } else { &mut primary };
                *most = wanted.max(*most);
            }
            let Some(publication) = self.publication_mut(&track) else { continue };
            publication.dynacast.review_at = None;
            let backup = publication.dynacast.backup.map(|_| second);
            if (publication.dynacast.told, publication.dynacast.backup) != (Some(primary), backup) {
                self.tell_quality(turn, &track, primary, backup);
            }
        }
    }

    fn quality_wanted_by(&self, subscriber: &ParticipantSid, track: &TrackSid) -> Option<Wanted> {
        let subscription = self.subscriptions.get(subscriber)?.get(track).filter(|mine| mine.served)?;
        let info = &self.publications.get(track)?.info;
        let delivery = delivery(info, self.settings_of(subscriber, subscription.settings));
        if delivery.paused {
            return Some(0);
        }
        Some(wanted_quality(info, delivery.max_layer))
    }

    fn tell_quality(&mut self, turn: &mut Turn, track: &TrackSid, wanted: Wanted, backup: Option<Wanted>) {
        let Some(publication) = self.publication_mut(track) else { return };
        (publication.dynacast.told, publication.dynacast.backup) = (Some(wanted), backup);
        let (publisher, update) = (publication.publisher.clone(), update(track, &publication.info, wanted, backup));
        self.send(turn, &publisher, Message::SubscribedQualityUpdate(update));
    }
}

/// How many qualities are wanted by who wants layers up to this one.
fn wanted_quality(info: &proto::TrackInfo, max_layer: Option<u8>) -> Wanted {
    let Some(layer) = max_layer else { return ALL };
    let mut qualities: Vec<i32> =
        info.codecs.first().map(|codec| codec.layers.iter().map(|l| l.quality).collect()).unwrap_or_default();
    qualities.sort_unstable();
    let quality = qualities.get(usize::from(layer)).copied();
    quality.and_then(|quality| Wanted::try_from(quality + 1).ok()).unwrap_or(ALL).min(ALL)
}

pub(super) fn is_video(publication: &Publication) -> bool {
    track_info::kind(&publication.info) == TrackKind::Video
}

#[allow(deprecated, reason = "older SDKs read the qualities of the first codec alone")]
fn update(
    track: &TrackSid,
    info: &proto::TrackInfo,
    wanted: Wanted,
    backup: Option<Wanted>,
) -> proto::SubscribedQualityUpdate {
    let wanted = std::iter::once(wanted).chain(backup);
    let codecs: Vec<_> = info.codecs.iter().zip(wanted).map(|(codec, wanted)| subscribed(codec, wanted)).collect();
    proto::SubscribedQualityUpdate {
        track_sid: track.to_string(),
        subscribed_qualities: codecs.first().map(|codec| codec.qualities.clone()).unwrap_or_default(),
        subscribed_codecs: codecs,
    }
}

fn subscribed(codec: &proto::SimulcastCodecInfo, wanted: Wanted) -> proto::SubscribedCodec {
    let best = codec.layers.iter().map(|layer| layer.quality).max();
    let enabled =
        |place: Wanted, quality: VideoQuality| place < wanted && best.is_none_or(|best| quality as i32 <= best);
    let qualities = (0..)
        .zip(QUALITIES)
        .map(|(place, quality)| proto::SubscribedQuality { quality: quality.into(), enabled: enabled(place, quality) })
        .collect();
    let mime = codec.mime_type.to_lowercase();
    proto::SubscribedCodec { codec: mime.strip_prefix("video/").unwrap_or(&mime).to_owned(), qualities }
}
