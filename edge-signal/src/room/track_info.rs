//! LiveKit's `TrackInfo`: made from an announcement, completed by what the node learns.
#![allow(deprecated, reason = "clients still read the deprecated fields of TrackInfo")]

use livekit_protocol as proto;
use livekit_protocol::video_layer::Mode;
use livekit_protocol::{AudioTrackFeature, BackupCodecPolicy, TrackSource, TrackType, VideoQuality};
use shared::control::{AnnouncedCodec, AnnouncedTrack, LayerMedia, PublishedTrack, TrackKind, TrackMedia};
use shared::ids::TrackSid;

use super::record::is_publishable;

/// Most codecs one track may be announced with.
const MAX_CODECS: usize = 4;
/// Most layers of one codec.
const MAX_LAYERS: usize = 4;

/// Kind and source letters of a track's id.
pub(super) fn sid_letters(request: &proto::AddTrackRequest) -> &'static str {
    match (request.r#type(), request.source()) {
        (TrackType::Video, TrackSource::Camera) => "VC",
        (TrackType::Video, TrackSource::Microphone) => "VM",
        (TrackType::Video, TrackSource::ScreenShare) => "VS",
        (TrackType::Video, TrackSource::ScreenShareAudio) => "Vs",
        (TrackType::Video, TrackSource::Unknown) => "V",
        (_, TrackSource::Camera) => "AC",
        (_, TrackSource::Microphone) => "AM",
        (_, TrackSource::ScreenShare) => "AS",
        (_, TrackSource::ScreenShareAudio) => "As",
        (_, TrackSource::Unknown) => "A",
    }
}

/// The track as announced: no mid, no top-level MIME type yet.
pub(super) fn announced(sid: &TrackSid, request: &proto::AddTrackRequest) -> proto::TrackInfo {
    let codecs = codecs(request);
    let layers = sorted_layers(&request.layers);
    let single_stream_each = codecs.first().is_some_and(|c| c.video_layer_mode() == Mode::OneSpatialLayerPerStream);
    let backup_codec_policy = match request.r#type() {
        TrackType::Audio => BackupCodecPolicy::Simulcast.into(),
        _ => request.backup_codec_policy,
    };
    proto::TrackInfo {
        sid: sid.to_string(),
        r#type: request.r#type,
        name: request.name.clone(),
        muted: request.muted,
        width: request.width,
        height: request.height,
        simulcast: request.r#type() == TrackType::Video && single_stream_each && layers.len() > 1,
        disable_dtx: request.disable_dtx,
        source: request.source,
        layers,
        codecs,
        stereo: request.stereo,
        disable_red: request.disable_red,
        encryption: request.encryption,
        stream: stream(request),
        audio_features: audio_features(request),
        backup_codec_policy,
        packet_trailer_features: request.packet_trailer_features.clone(),
        ..Default::default()
    }
}

/// Adds the codecs of a second announcement of the same track (a backup codec).
pub(super) fn add_codecs(info: &mut proto::TrackInfo, request: &proto::AddTrackRequest) {
    for codec in codecs(request) {
        let full = info.codecs.len() >= MAX_CODECS;
        let known = info.codecs.iter_mut().find(|c| c.mime_type.eq_ignore_ascii_case(&codec.mime_type));
        match known {
            Some(known) => known.cid = codec.cid,
            None if full => {}
            None => info.codecs.push(codec),
        }
    }
}

/// Takes in what the node learnt. True when that was news.
pub(super) fn learn(info: &mut proto::TrackInfo, media: &TrackMedia) -> bool {
    let before = info.clone();
    let is_video = info.r#type() == TrackType::Video;
    let index = codec_index(&info.codecs, media);
    if let Some(codec) = info.codecs.get_mut(index) {
        codec.mime_type.clone_from(&media.mime);
        codec.mid.clone_from(&media.mid);
        codec.sdp_cid = if media.sdp_cid == codec.cid { String::new() } else { media.sdp_cid.clone() };
        if is_video {
            learn_layers(&mut codec.layers, &media.layers);
        }
    }
    if index == 0 {
        info.mime_type.clone_from(&media.mime);
        info.mid.clone_from(&media.mid);
        if let Some(primary) = info.codecs.first() {
            info.layers.clone_from(&primary.layers);
        }
    }
    *info != before
}

/// What the node is told of the track.
pub(super) fn announcement(sid: &TrackSid, info: &proto::TrackInfo) -> AnnouncedTrack {
    let codec = |c: &proto::SimulcastCodecInfo| AnnouncedCodec { mime: c.mime_type.to_lowercase(), cid: c.cid.clone() };
    AnnouncedTrack {
        sid: sid.clone(),
        kind: kind(info),
        codecs: info.codecs.iter().map(codec).collect(),
        stereo: info.stereo || info.audio_features.contains(&AudioTrackFeature::TfStereo.into()),
        disable_dtx: info.disable_dtx || info.audio_features.contains(&AudioTrackFeature::TfNoDtx.into()),
        disable_red: info.disable_red,
    }
}

/// The codecs of a video that has several, primary first, for who cannot decode that one; empty: it has one.
pub(super) fn alternatives(info: &proto::TrackInfo) -> Vec<String> {
    let several = kind(info) == TrackKind::Video && info.codecs.len() > 1;
    info.codecs.iter().filter(|_| several).map(|codec| codec.mime_type.to_lowercase()).collect()
}

/// Audio or video.
pub(super) fn kind(info: &proto::TrackInfo) -> TrackKind {
    match info.r#type() {
        TrackType::Video => TrackKind::Video,
        _ => TrackKind::Audio,
    }
}

/// Whether the track was announced under this client id.
pub(super) fn has_cid(info: &proto::TrackInfo, cid: &str) -> bool {
    info.codecs.iter().any(|codec| codec.cid == cid)
}

fn codecs(request: &proto::AddTrackRequest) -> Vec<proto::SimulcastCodecInfo> {
    let mut codecs: Vec<proto::SimulcastCodecInfo> = Vec::new();
    for wanted in request.simulcast_codecs.iter().take(MAX_CODECS) {
        let mime_type = mime(request, &wanted.codec);
        if codecs.iter().any(|c| c.mime_type.eq_ignore_ascii_case(&mime_type)) {
            continue;
        }
        let layers = if wanted.layers.is_empty() { &request.layers } else { &wanted.layers };
        let mode = match wanted.video_layer_mode() {
            Mode::Unused => default_mode(&mime_type),
            given => given,
        };
        codecs.push(proto::SimulcastCodecInfo {
            mime_type,
            cid: wanted.cid.clone(),
            layers: sorted_layers(layers),
            video_layer_mode: mode.into(),
            ..Default::default()
        });
    }
    if codecs.is_empty() {
        codecs.push(proto::SimulcastCodecInfo {
            cid: request.cid.clone(),
            layers: sorted_layers(&request.layers),
            video_layer_mode: Mode::OneSpatialLayerPerStream.into(),
            ..Default::default()
        });
    }
    codecs
}

/// `vp8` → `video/vp8`; a codec the room does not forward becomes the first it does.
fn mime(request: &proto::AddTrackRequest, codec: &str) -> String {
    let (prefix, fallback) = match request.r#type() {
        TrackType::Video => ("video/", "video/VP8"),
        _ => ("audio/", "audio/opus"),
    };
    let mime = if codec.starts_with(prefix) { codec.to_owned() } else { format!("{prefix}{codec}") };
    if is_publishable(&mime) { mime } else { fallback.to_owned() }
}

/// VP9 and AV1 are sent as one scalable stream unless the client says otherwise.
fn default_mode(mime: &str) -> Mode {
    if mime.eq_ignore_ascii_case("video/vp9") || mime.eq_ignore_ascii_case("video/av1") {
        Mode::MultipleSpatialLayersPerStream
    } else {
        Mode::OneSpatialLayerPerStream
    }
}

fn sorted_layers(layers: &[proto::VideoLayer]) -> Vec<proto::VideoLayer> {
    let mut sorted: Vec<_> = layers.iter().take(MAX_LAYERS).cloned().collect();
    sorted.sort_by_key(|layer| layer.quality);
    sorted
}

fn stream(request: &proto::AddTrackRequest) -> String {
    let default = match request.source() {
        TrackSource::Camera | TrackSource::Microphone => "camera",
        TrackSource::ScreenShare | TrackSource::ScreenShareAudio => "screen",
        TrackSource::Unknown => "unknown",
    };
    if request.stream.is_empty() { default.to_owned() } else { request.stream.clone() }
}

fn audio_features(request: &proto::AddTrackRequest) -> Vec<i32> {
    let (no_dtx, stereo) = (AudioTrackFeature::TfNoDtx.into(), AudioTrackFeature::TfStereo.into());
    let mut features = Vec::new();
    if request.disable_dtx {
        features.push(no_dtx);
    }
    features
        .extend(known_features(&request.audio_features).into_iter().filter(|f| !request.disable_dtx || *f != no_dtx));
    if request.stereo && !features.contains(&stereo) {
        features.push(stereo);
    }
    features
}

/// The features this protocol knows, each once.
pub(super) fn known_features(features: &[i32]) -> Vec<i32> {
    let mut known = Vec::new();
    for feature in features {
        if AudioTrackFeature::try_from(*feature).is_ok() && !known.contains(feature) {
            known.push(*feature);
        }
    }
    known
}

/// A track as a node has received it, for the next one.
pub(super) fn received(track: &TrackSid, info: &proto::TrackInfo) -> PublishedTrack {
    let layers = info.layers.iter().filter(|layer| layer.ssrc != 0);
    let layers = layers.map(|layer| LayerMedia {
        rid: layer.rid.clone(),
        spatial_layer: u8::try_from(layer.spatial_layer).unwrap_or(u8::MAX),
        ssrc: layer.ssrc,
        repair_ssrc: layer.repair_ssrc,
    });
    PublishedTrack { track: track.clone(), mid: info.mid.clone(), layers: layers.collect() }
}

fn codec_index(codecs: &[proto::SimulcastCodecInfo], media: &TrackMedia) -> usize {
    let by_cid = || codecs.iter().position(|c| !c.cid.is_empty() && c.cid == media.sdp_cid);
    let by_mid = || codecs.iter().position(|c| !c.mid.is_empty() && c.mid == media.mid);
    let by_mime = || codecs.iter().position(|c| c.mime_type.eq_ignore_ascii_case(&media.mime));
    by_cid().or_else(by_mid).or_else(by_mime).unwrap_or(0)
}

fn learn_layers(known: &mut Vec<proto::VideoLayer>, seen: &[LayerMedia]) {
    for layer in seen.iter().take(MAX_LAYERS) {
        let index = usize::from(layer.spatial_layer);
        while known.len() <= index.min(MAX_LAYERS - 1) {
            known.push(proto::VideoLayer { quality: quality(known.len()).into(), ..Default::default() });
        }
        if let Some(entry) = known.get_mut(index) {
            entry.rid.clone_from(&layer.rid);
            entry.ssrc = layer.ssrc;
            entry.repair_ssrc = layer.repair_ssrc;
        }
    }
    for (index, entry) in known.iter_mut().enumerate() {
        entry.spatial_layer = i32::try_from(index).unwrap_or(i32::MAX);
    }
}

fn quality(index: usize) -> VideoQuality {
    match index {
        0 => VideoQuality::Low,
        1 => VideoQuality::Medium,
        _ => VideoQuality::High,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn camera() -> proto::AddTrackRequest {
        let layer =
            |quality: VideoQuality, width| proto::VideoLayer { quality: quality.into(), width, ..Default::default() };
        proto::AddTrackRequest {
            cid: "cam".into(),
            r#type: TrackType::Video.into(),
            source: TrackSource::Camera.into(),
            layers: vec![layer(VideoQuality::Medium, 640), layer(VideoQuality::Low, 320)],
            simulcast_codecs: vec![proto::SimulcastCodec {
                codec: "vp8".into(),
                cid: "cam".into(),
                ..Default::default()
            }],
            ..Default::default()
        }
    }

    fn sid() -> TrackSid {
        TrackSid::from_random("VC", [7; 12])
    }

    #[test]
    fn an_announced_camera_is_simulcast_with_sorted_layers_and_no_mime() {
        let info = announced(&sid(), &camera());
        assert!(info.simulcast);
        assert_eq!(info.stream, "camera");
        let stream =
            |source: TrackSource| stream(&proto::AddTrackRequest { source: source.into(), ..Default::default() });
        assert_eq!(
            (stream(TrackSource::ScreenShareAudio), stream(TrackSource::Unknown)),
            ("screen".into(), "unknown".into())
        );
        assert_eq!(info.mime_type, "");
        assert_eq!(info.codecs[0].mime_type, "video/vp8");
        assert_eq!(info.layers.iter().map(|l| l.width).collect::<Vec<_>>(), [320, 640]);
    }

    #[test]
    fn vp9_is_one_scalable_stream_and_its_backup_a_second_codec() {
        let mut request = camera();
        request.simulcast_codecs[0].codec = "vp9".into();
        request.simulcast_codecs.push(proto::SimulcastCodec { codec: "vp8".into(), ..Default::default() });
        let info = announced(&sid(), &request);
        assert!(!info.simulcast);
        assert_eq!(info.codecs[0].video_layer_mode(), Mode::MultipleSpatialLayersPerStream);
        assert_eq!(info.codecs[1].video_layer_mode(), Mode::OneSpatialLayerPerStream);
    }

    #[test]
    fn a_codec_the_room_does_not_forward_is_replaced() {
        let mut request = camera();
        request.simulcast_codecs[0].codec = "theora".into();
        assert_eq!(announced(&sid(), &request).codecs[0].mime_type, "video/VP8");
    }

    #[test]
    fn stereo_and_dtx_show_in_the_features() {
        let request = proto::AddTrackRequest { stereo: true, disable_dtx: true, ..Default::default() };
        let info = announced(&sid(), &request);
        assert_eq!(info.audio_features, [AudioTrackFeature::TfNoDtx as i32, AudioTrackFeature::TfStereo as i32]);
        assert_eq!(info.backup_codec_policy(), BackupCodecPolicy::Simulcast);
    }

    #[test]
    fn layers_are_learnt_one_by_one() {
        let mut info = announced(&sid(), &camera());
        let layer =
            |rid: &str, spatial_layer, ssrc| LayerMedia { rid: rid.into(), spatial_layer, ssrc, repair_ssrc: 0 };
        let mut media = TrackMedia {
            mid: "8".into(),
            mime: "video/VP8".into(),
            sdp_cid: "cam".into(),
            layers: vec![layer("q", 0, 11)],
        };
        assert!(learn(&mut info, &media));
        assert!(!learn(&mut info, &media));
        media.layers.push(layer("h", 1, 12));
        assert!(learn(&mut info, &media));
        assert_eq!((info.mid.as_str(), info.mime_type.as_str()), ("8", "video/VP8"));
        assert_eq!(
            info.layers.iter().map(|l| (l.ssrc, l.spatial_layer, l.rid.as_str())).collect::<Vec<_>>(),
            [(11, 0, "q"), (12, 1, "h")]
        );
        assert_eq!(info.codecs[0].sdp_cid, "");
    }

    #[test]
    fn a_layer_number_from_afar_grows_nothing() {
        let mut info = announced(&sid(), &camera());
        let layers = vec![LayerMedia { rid: "x".into(), spatial_layer: 255, ssrc: 1, repair_ssrc: 0 }];
        learn(&mut info, &TrackMedia { mid: "8".into(), mime: "video/VP8".into(), sdp_cid: "z".into(), layers });
        assert!(info.layers.len() <= MAX_LAYERS);
        assert_eq!(info.codecs[0].sdp_cid, "z");
    }
}
