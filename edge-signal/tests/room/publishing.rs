//! Publishing: announced at once, visible with the first media, muted, ended.

use livekit_protocol as proto;
use livekit_protocol::request_response::Reason;
use livekit_protocol::signal_request::Message as Asked;
use livekit_protocol::signal_response::Message;
use shared::control::{LayerMedia, NodeToRoom, TrackMedia};
use shared::ids::TrackSid;

use crate::world::{Who, World, microphone, names};

fn reasons(inbox: &[Message]) -> Vec<(Reason, String)> {
    let responses = inbox.iter().filter_map(|message| match message {
        Message::RequestResponse(response) => Some((response.reason(), response.message.clone())),
        _ => None,
    });
    responses.collect()
}

fn camera(cid: &str) -> proto::AddTrackRequest {
    proto::AddTrackRequest {
        cid: cid.into(),
        r#type: proto::TrackType::Video.into(),
        source: proto::TrackSource::Camera.into(),
        ..Default::default()
    }
}

fn mute(track: &TrackSid, muted: bool) -> Asked {
    Asked::Mute(proto::MuteTrackRequest { sid: track.to_string(), muted })
}

#[test]
fn a_track_is_announced_at_once_and_seen_when_its_media_arrives() {
    let mut world = World::new();
    let (ada, bob) = (world.join_active(&Who::named("ada")), world.join_active(&Who::named("bob")));
    world.pass(12_000);
    world.look_away();
    let track = world.add_track(&ada, microphone("m")).unwrap();
    assert!(track.as_str().starts_with("TR_AM"));
    assert_eq!(names(&world.inbox(&ada)), ["track_published"]);
    assert!(world.inbox(&bob).is_empty(), "nobody sees it before its media");
    let (node, session) = world.session_of(&ada);
    assert!(world.nodes[&node].sessions[&session].tracks.contains(&track));

    world.receive_track(&ada, &track);
    assert_eq!(names(&world.inbox(&bob)), ["update", "subscription_permission_update", "room_update"]);
    assert_eq!(names(&world.inbox(&ada)), ["update", "room_update"]);
    let ada_sid = world.client(&ada).sid.clone();
    let seen = &world.client(&bob).roster[&ada_sid];
    assert!(seen.is_publisher);
    let info = &seen.tracks[0];
    assert_eq!((info.sid.as_str(), info.mid.as_str(), info.mime_type.as_str()), (track.as_str(), "7", "audio/red"));
    assert!(info.version.is_some());
    assert_eq!(world.served(&bob), [track]);
    assert!(world.served(&ada).is_empty());
}

#[test]
fn every_further_layer_is_one_more_update() {
    let mut world = World::new();
    let ada = world.join_active(&Who::named("ada"));
    let track = world.add_track(&ada, camera("v")).unwrap();
    let (node, session) = world.session_of(&ada);
    let received = |layers: usize| {
        let rids = ["q", "h", "f"].iter().take(layers).enumerate();
        let layer = |(index, rid): (usize, &&str)| LayerMedia {
            rid: (*rid).to_owned(),
            spatial_layer: index as u8,
            ssrc: index as u32 + 1,
            repair_ssrc: 0,
        };
        let media = TrackMedia {
            mid: "8".into(),
            mime: "video/VP8".into(),
            sdp_cid: "v".into(),
            layers: rids.map(layer).collect(),
        };
        NodeToRoom::TrackReceived { session: session.clone(), track: track.clone(), media }
    };
    world.look_away();
    for layers in [1, 2, 3, 3] {
        world.node_says(&node, received(layers));
    }
    let updates = world.inbox(&ada).into_iter().filter(|message| matches!(message, Message::Update(_))).count();
    assert_eq!(updates, 3, "what is known already is no news");
    let sid = world.client(&ada).sid.clone();
    assert_eq!(world.client(&ada).roster[&sid].tracks[0].codecs[0].layers.len(), 3);
}

#[test]
fn what_may_not_be_published_is_refused_with_a_reason() {
    let mut world = World::new();
    let ada = world.join_active(&Who::named("ada").grant(|grant| grant.can_publish = Some(false)));
    let bob = world.join_active(&Who::named("bob").grant(|grant| grant.can_publish_sources = vec!["camera".into()]));
    world.look_away();
    assert_eq!(world.add_track(&ada, microphone("m")), None);
    assert_eq!(world.add_track(&bob, microphone("m")), None);
    assert_eq!(reasons(&world.inbox(&ada)), [(Reason::NotAllowed, String::new())]);
    assert_eq!(reasons(&world.inbox(&bob)), [(Reason::NotAllowed, String::new())]);
    assert!(world.add_track(&bob, camera("v")).is_some());
    world.add_track(&bob, proto::AddTrackRequest { sid: "TR_unknown".into(), ..camera("w") });
    world.add_track(&bob, camera(&"w".repeat(17_000)));
    let reasons = reasons(&world.inbox(&bob));
    assert_eq!(reasons[0], (Reason::NotFound, String::new()));
    assert_eq!(reasons[1].0, Reason::InvalidRequest);
}

#[test]
fn twenty_tracks_may_wait_for_their_media() {
    let mut world = World::new();
    let ada = world.join_active(&Who::named("ada"));
    for number in 0..20 {
        assert!(world.add_track(&ada, microphone(&format!("m{number}"))).is_some());
    }
    world.look_away();
    assert_eq!(world.add_track(&ada, microphone("m20")), None);
    let text = "too many pending tracks, rejecting new track, numPendingTracks: 20".to_owned();
    assert_eq!(reasons(&world.inbox(&ada)), [(Reason::LimitExceeded, text)]);
}

#[test]
fn a_cid_in_use_waits_until_its_track_ends() {
    let mut world = World::new();
    let ada = world.join_active(&Who::named("ada"));
    let first = world.publish(&ada, "m");
    world.look_away();
    for _ in 0..4 {
        assert_eq!(world.add_track(&ada, microphone("m")), None);
    }
    let reasons: Vec<_> = reasons(&world.inbox(&ada)).into_iter().map(|(reason, _)| reason).collect();
    assert_eq!(reasons, [Reason::Queued, Reason::Queued, Reason::Queued, Reason::LimitExceeded]);
    let (node, session) = world.session_of(&ada);
    world.node_says(&node, NodeToRoom::TrackEnded { session, track: first });
    assert_eq!(names(&world.inbox(&ada)), ["update", "track_published"], "one of those that waited");
}

#[test]
fn an_ended_track_leaves_everyones_list_and_the_node() {
    let mut world = World::new();
    let (ada, bob) = (world.join_active(&Who::named("ada")), world.join_active(&Who::named("bob")));
    let (gone, stays) = (world.publish(&ada, "m"), world.publish(&ada, "n"));
    let (node, session) = world.session_of(&ada);
    world.look_away();
    world.node_says(&node, NodeToRoom::TrackEnded { session, track: gone });
    let ada_sid = world.client(&ada).sid.clone();
    let tracks: Vec<_> = world.client(&bob).roster[&ada_sid].tracks.iter().map(|track| track.sid.clone()).collect();
    assert_eq!(tracks, [stays.to_string()]);
    assert_eq!(world.served(&bob), [stays]);
    assert_eq!(names(&world.inbox(&bob)), ["update"]);
}

#[test]
fn mute_reaches_everyone_and_the_node() {
    let mut world = World::new();
    let (ada, bob) = (world.join_active(&Who::named("ada")), world.join_active(&Who::named("bob")));
    let track = world.publish(&ada, "m");
    let (ada_sid, (node, session)) = (world.client(&ada).sid.clone(), world.session_of(&ada));
    let version = world.client(&bob).roster[&ada_sid].version;
    world.say(&ada, mute(&track, true));
    assert!(world.client(&bob).roster[&ada_sid].tracks[0].muted);
    assert!(world.client(&bob).roster[&ada_sid].version > version);
    assert!(world.nodes[&node].sessions[&session].muted.contains(&track));
    world.say(&ada, mute(&track, false));
    assert!(!world.client(&bob).roster[&ada_sid].tracks[0].muted);
    world.look_away();
    world.say(&bob, mute(&track, true));
    assert_eq!(reasons(&world.inbox(&bob)), [(Reason::NotFound, String::new())], "only one's own tracks");
    assert!(world.inbox(&ada).is_empty());
}

#[test]
fn size_and_features_of_a_track_can_change() {
    let mut world = World::new();
    let ada = world.join_active(&Who::named("ada"));
    let track = world.publish(&ada, "m");
    let sid = world.client(&ada).sid.clone();
    let size = proto::UpdateLocalVideoTrack { track_sid: track.to_string(), width: 640, height: 360 };
    world.say(&ada, Asked::UpdateVideoTrack(size));
    let features = proto::UpdateLocalAudioTrack { track_sid: track.to_string(), features: vec![4, 99] };
    world.say(&ada, Asked::UpdateAudioTrack(features));
    let info = &world.client(&ada).roster[&sid].tracks[0];
    assert_eq!((info.width, info.height, info.audio_features.clone()), (640, 360, vec![4]));
    world.look_away();
    world.say(
        &ada,
        Asked::UpdateVideoTrack(proto::UpdateLocalVideoTrack { track_sid: "TR_no".into(), width: 1, height: 1 }),
    );
    assert_eq!(reasons(&world.inbox(&ada)), [(Reason::NotFound, String::new())]);
}

#[test]
fn a_backup_codec_joins_the_same_track() {
    let mut world = World::new();
    let ada = world.join_active(&Who::named("ada"));
    let codec =
        |codec: &str, cid: &str| proto::SimulcastCodec { codec: codec.into(), cid: cid.into(), ..Default::default() };
    let request = proto::AddTrackRequest { simulcast_codecs: vec![codec("vp9", "v"), codec("vp8", "")], ..camera("v") };
    let track = world.add_track(&ada, request).unwrap();
    let backup =
        proto::AddTrackRequest { sid: track.to_string(), simulcast_codecs: vec![codec("vp8", "w")], ..camera("w") };
    assert_eq!(world.add_track(&ada, backup), Some(track));
    let inbox = world.inbox(&ada);
    let Some(Message::TrackPublished(published)) = inbox.last() else { panic!() };
    let codecs = &published.track.as_ref().unwrap().codecs;
    assert_eq!(codecs.iter().map(|codec| codec.cid.as_str()).collect::<Vec<_>>(), ["v", "w"]);
}
