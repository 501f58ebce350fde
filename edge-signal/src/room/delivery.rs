//! What of a subscribed track a client wants: paused or not, which layer, how important (LiveKit `UpdateTrackSettings`).

use livekit_protocol as proto;
use serde::{Deserialize, Serialize};
use shared::control::{Delivery, RoomToNode, TrackKind};
use shared::ids::{ParticipantSid, TrackSid};

use super::Room;
use super::track_info;
use super::turn::Turn;

/// A layer this much smaller than the size asked for still serves it, per cent (LiveKit's).
const SIZE_TOLERANCE_PERCENT: u64 = 120;
/// What a shared screen ranks above any camera by.
const SCREEN_SHARE_PRIORITY: u8 = 128;
/// LiveKit's priorities count from 1, the highest, down; beyond this they are all the least.
const LEAST_PRIORITY: u32 = 100;

/// Settings of one subscription, as the client gave them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Settings {
    disabled: bool,
    quality: i32,
    /// Shorter side of the size wanted, pixels; 0: `quality` says it.
    size: u32,
    /// 0: not given.
    priority: u32,
    /// Frames a second; 0: all.
    #[serde(default)]
    fps: u32,
}

impl Settings {
    fn read(request: &proto::UpdateTrackSettings) -> Self {
        Self {
            disabled: request.disabled,
            quality: request.quality,
            size: if request.width > 0 { request.width.min(request.height) } else { 0 },
            priority: request.priority,
            fps: request.fps,
        }
    }

    /// What a client gets that says nothing.
    pub(super) const BEST: Self =
        Self { disabled: false, quality: proto::VideoQuality::High as i32, size: 0, priority: 0, fps: 0 };

    /// What an adaptive client starts with, until it knows how large it shows the video.
    pub(super) const LOWEST: Self =
        Self { disabled: false, quality: proto::VideoQuality::Low as i32, size: 0, priority: 0, fps: 0 };
}

/// What the node is to send of a track.
pub(super) fn delivery(info: &proto::TrackInfo, settings: Option<Settings>) -> Delivery {
    let screen = matches!(info.source(), proto::TrackSource::ScreenShare);
    let rank = settings.map_or(0, |settings| settings.priority);
    let wanted = if rank == 0 { 0 } else { u8::try_from(LEAST_PRIORITY - rank.min(LEAST_PRIORITY)).unwrap_or(0) };
    let priority = wanted + if screen { SCREEN_SHARE_PRIORITY } else { 0 };
    let paused = settings.is_some_and(|settings| {
        settings.disabled || (settings.size == 0 && settings.quality == proto::VideoQuality::Off as i32)
    });
    let max_layer = settings.filter(|_| track_info::kind(info) == TrackKind::Video).and_then(|s| layer(info, s));
    let max_frame_rate = settings.filter(|settings| settings.fps > 0);
    let max_frame_rate = max_frame_rate.map(|settings| u16::try_from(settings.fps).unwrap_or(u16::MAX));
    Delivery { paused, max_layer, max_frame_rate, priority }
}

/// Place of the smallest layer that covers what is wanted; `None`: the best.
fn layer(info: &proto::TrackInfo, settings: Settings) -> Option<u8> {
    let layers = info.codecs.first().map(|codec| codec.layers.as_slice()).unwrap_or_default();
    let mut layers: Vec<(i32, u32)> = layers.iter().map(|l| (l.quality, l.width.min(l.height))).collect();
    layers.sort_unstable();
    let covers = |(quality, size): &(i32, u32)| match settings.size {
        0 => *quality >= settings.quality,
        wanted => u64::from(*size) * SIZE_TOLERANCE_PERCENT >= u64::from(wanted) * 100,
    };
    layers.iter().position(covers).and_then(|place| u8::try_from(place).ok())
}

impl Room {
    /// `track_setting`. Unknown tracks are remembered like wishes about them.
    pub(super) fn update_track_settings(
        &mut self,
        turn: &mut Turn,
        sid: &ParticipantSid,
        request: &proto::UpdateTrackSettings,
    ) {
        let settings = Settings::read(request);
        let mut changed = Vec::new();
        for text in &request.track_sids {
            match TrackSid::try_from(text.as_str()) {
                Ok(track) if self.note_settings(sid, &track, settings) => changed.push(track),
                _ => self.counters.unknown_track += 1,
            }
        }
        self.serve_anew(turn, sid, &changed);
        changed.iter().for_each(|track| self.want_quality(turn, sid, track));
    }

    /// Tracks that a client which came back shows as disabled; what it wants of them otherwise stays.
    pub(super) fn disable_tracks(&mut self, turn: &mut Turn, sid: &ParticipantSid, tracks: &[String]) {
        let mut changed = Vec::new();
        for text in tracks {
            let Ok(track) = TrackSid::try_from(text.as_str()) else { continue };
            let settings = Settings { disabled: true, ..self.wanted(sid, &track) };
            if self.note_settings(sid, &track, settings) {
                changed.push(track);
            }
        }
        self.serve_anew(turn, sid, &changed);
    }

    fn serve_anew(&mut self, turn: &mut Turn, sid: &ParticipantSid, tracks: &[TrackSid]) {
        let subscriptions: Vec<_> =
            self.served_to(sid).into_iter().filter(|served| tracks.contains(&served.track)).collect();
        if let Some((node, session)) = self.open_session_of(sid).filter(|_| !subscriptions.is_empty()) {
            turn.send_node(&node, RoomToNode::Subscribe { session, subscriptions });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn track(sizes: &[(i32, u32, u32)]) -> proto::TrackInfo {
        let layer = |(quality, width, height): &(i32, u32, u32)| proto::VideoLayer {
            quality: *quality,
            width: *width,
            height: *height,
            ..Default::default()
        };
        let codec = proto::SimulcastCodecInfo { layers: sizes.iter().map(layer).collect(), ..Default::default() };
        proto::TrackInfo { r#type: proto::TrackType::Video.into(), codecs: vec![codec], ..Default::default() }
    }

    fn given(info: &proto::TrackInfo, request: &proto::UpdateTrackSettings) -> Delivery {
        delivery(info, Some(Settings::read(request)))
    }

    const SIMULCAST: [(i32, u32, u32); 3] = [(2, 1280, 720), (0, 320, 180), (1, 640, 360)];

    #[test]
    fn the_smallest_layer_that_covers_the_size_is_wanted() {
        let info = track(&SIMULCAST);
        let of_size =
            |width, height| given(&info, &proto::UpdateTrackSettings { width, height, ..Default::default() }).max_layer;
        assert_eq!(of_size(200, 100), Some(0));
        assert_eq!(of_size(384, 216), Some(0), "20 % more still serves");
        assert_eq!(of_size(386, 217), Some(1));
        assert_eq!(of_size(1280, 720), Some(2));
        assert_eq!(of_size(4000, 3000), None, "the best there is");
    }

    #[test]
    fn without_a_size_the_quality_counts() {
        let of_quality = |sizes: &[_], quality: proto::VideoQuality| {
            given(&track(sizes), &proto::UpdateTrackSettings { quality: quality.into(), ..Default::default() })
        };
        assert_eq!(of_quality(&SIMULCAST, proto::VideoQuality::Low).max_layer, Some(0));
        assert_eq!(of_quality(&SIMULCAST, proto::VideoQuality::High).max_layer, Some(2));
        assert_eq!(of_quality(&[(0, 320, 180), (2, 1280, 720)], proto::VideoQuality::Medium).max_layer, Some(1));
        assert!(of_quality(&SIMULCAST, proto::VideoQuality::Off).paused);
        assert!(given(&track(&[]), &proto::UpdateTrackSettings { disabled: true, ..Default::default() }).paused);
        assert_eq!(delivery(&track(&SIMULCAST), None), Delivery::default());
    }

    #[test]
    fn a_frame_rate_is_handed_on() {
        let of = |fps| given(&track(&SIMULCAST), &proto::UpdateTrackSettings { fps, ..Default::default() });
        assert_eq!((of(0).max_frame_rate, of(15).max_frame_rate), (None, Some(15)));
        assert_eq!(of(u32::MAX).max_frame_rate, Some(u16::MAX));
        let before = r#"{"disabled":false,"quality":2,"size":0,"priority":1}"#;
        let read: Settings = serde_json::from_str(before).unwrap();
        assert_eq!(delivery(&track(&SIMULCAST), Some(read)).max_frame_rate, None, "a row of before");
    }

    #[test]
    fn a_shared_screen_comes_first_then_what_the_client_ranks() {
        let ranked = |info: &proto::TrackInfo, priority| {
            given(info, &proto::UpdateTrackSettings { priority, ..Default::default() }).priority
        };
        let camera = track(&SIMULCAST);
        let screen = proto::TrackInfo { source: proto::TrackSource::ScreenShare.into(), ..camera.clone() };
        let order =
            [ranked(&screen, 1), ranked(&screen, 0), ranked(&camera, 1), ranked(&camera, 2), ranked(&camera, 900)];
        assert!(order.is_sorted_by(|a, b| a > b), "{order:?}");
        assert_eq!(ranked(&camera, 0), 0);
    }
}
