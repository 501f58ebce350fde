//! Publishers hear which qualities of their videos somebody wants.

use edge_signal::room::dynacast::{LESS_AFTER_MS, UNWANTED_AFTER_MS};
use edge_signal::room::event::ConnectionId;
use livekit_protocol as proto;
use livekit_protocol::VideoQuality;
use livekit_protocol::signal_request::Message as Asked;
use livekit_protocol::signal_response::Message;
use shared::control::NodeToRoom;
use shared::ids::TrackSid;

use crate::world::{Who, World, camera, microphone};

fn bind(world: &mut World, subscriber: &ConnectionId, track: &TrackSid) {
    let (node, session) = world.session_of(subscriber);
    world.node_says(&node, NodeToRoom::TrackBound { session, track: track.clone() });
}

/// What the publisher was told since the last look: which qualities are on, lowest first.
fn told(world: &mut World, publisher: &ConnectionId) -> Vec<[bool; 3]> {
    let updates = world.inbox(publisher).into_iter().filter_map(|message| match message {
        Message::SubscribedQualityUpdate(update) => Some(update),
        _ => None,
    });
    let enabled = |update: proto::SubscribedQualityUpdate| {
        let [codec] = &update.subscribed_codecs[..] else { panic!("{update:?}") };
        assert_eq!(codec.codec, "vp8");
        #[allow(deprecated)]
        let legacy = update.subscribed_qualities.clone();
        assert_eq!(codec.qualities, legacy);
        [0, 1, 2].map(|place| {
            assert_eq!(codec.qualities[place].quality, place as i32);
            codec.qualities[place].enabled
        })
    };
    updates.map(enabled).collect()
}

fn show(world: &mut World, who: &ConnectionId, track: &TrackSid, width: u32, height: u32) {
    let track_sids = vec![track.to_string()];
    let disabled = width == 0;
    let request = proto::UpdateTrackSettings { track_sids, width, height, disabled, ..Default::default() };
    world.say(who, Asked::TrackSetting(request));
}

const NONE: [bool; 3] = [false; 3];
const LOW: [bool; 3] = [true, false, false];
const MEDIUM: [bool; 3] = [true, true, false];
const ALL: [bool; 3] = [true; 3];

struct Call {
    world: World,
    ada: ConnectionId,
    bob: ConnectionId,
    track: TrackSid,
}

/// Ada publishes a camera, bob watches it.
fn call() -> Call {
    let mut world = World::new();
    let (ada, bob) = (world.join_active(&Who::named("ada")), world.join_active(&Who::named("bob")));
    let track = world.add_track(&ada, camera("c")).unwrap();
    world.receive_track(&ada, &track);
    bind(&mut world, &bob, &track);
    assert_eq!(told(&mut world, &ada), [ALL]);
    Call { world, ada, bob, track }
}

#[test]
fn less_is_told_after_a_while_and_more_at_once() {
    let Call { mut world, ada, bob, track } = call();
    world.pass(20_000);
    assert_eq!(told(&mut world, &ada), [] as [[bool; 3]; 0], "nothing changed");
    show(&mut world, &bob, &track, 160, 90);
    world.pass(LESS_AFTER_MS - 1);
    assert_eq!(told(&mut world, &ada), [] as [[bool; 3]; 0]);
    world.pass(1);
    assert_eq!(told(&mut world, &ada), [LOW]);
    show(&mut world, &bob, &track, 640, 360);
    assert_eq!(told(&mut world, &ada), [MEDIUM]);
    show(&mut world, &bob, &track, 0, 0);
    world.pass(LESS_AFTER_MS);
    assert_eq!(told(&mut world, &ada), [NONE], "hidden");
    show(&mut world, &bob, &track, 1280, 720);
    assert_eq!(told(&mut world, &ada), [ALL]);
}

#[test]
fn who_changes_its_mind_in_time_changes_nothing() {
    let Call { mut world, ada, bob, track } = call();
    show(&mut world, &bob, &track, 0, 0);
    world.pass(LESS_AFTER_MS / 2);
    show(&mut world, &bob, &track, 1280, 720);
    world.pass(60_000);
    assert_eq!(told(&mut world, &ada), [] as [[bool; 3]; 0]);
}

#[test]
fn the_most_that_anybody_wants_counts() {
    let Call { mut world, ada, bob, track } = call();
    let eve = world.join_active(&Who::named("eve"));
    bind(&mut world, &eve, &track);
    show(&mut world, &bob, &track, 160, 90);
    world.pass(20_000);
    assert_eq!(told(&mut world, &ada), [] as [[bool; 3]; 0], "eve wants all");
    show(&mut world, &eve, &track, 640, 360);
    world.pass(LESS_AFTER_MS);
    assert_eq!(told(&mut world, &ada), [MEDIUM]);
    world.say(&eve, Asked::Leave(proto::LeaveRequest::default()));
    world.pass(LESS_AFTER_MS);
    assert_eq!(told(&mut world, &ada), [LOW]);
    let wish =
        proto::UpdateSubscription { track_sids: vec![track.to_string()], subscribe: false, ..Default::default() };
    world.say(&bob, Asked::Subscription(wish));
    world.pass(LESS_AFTER_MS);
    assert_eq!(told(&mut world, &ada), [NONE]);
}

#[test]
fn a_track_nobody_subscribes_to_is_not_wanted() {
    let mut world = World::new();
    let ada = world.join_active(&Who::named("ada"));
    let track = world.add_track(&ada, camera("c")).unwrap();
    world.receive_track(&ada, &track);
    let audio = world.publish(&ada, "m");
    world.look_away();
    world.pass(UNWANTED_AFTER_MS - 1);
    assert_eq!(told(&mut world, &ada), [] as [[bool; 3]; 0]);
    world.pass(1);
    assert_eq!(told(&mut world, &ada), [NONE]);
    let bob = world.join_active(&Who::named("bob"));
    bind(&mut world, &bob, &audio);
    assert_eq!(told(&mut world, &ada), [] as [[bool; 3]; 0], "audio has no qualities");
    bind(&mut world, &bob, &track);
    assert_eq!(told(&mut world, &ada), [ALL]);
}

#[test]
fn an_adaptive_subscriber_is_served_all_and_then_what_it_shows() {
    let mut world = World::new();
    let mut bob = Who::named("bob");
    bob.request.connection_settings.as_mut().unwrap().adaptive_stream = true;
    let (ada, bob) = (world.join_active(&Who::named("ada")), world.join_active(&bob));
    let track = world.add_track(&ada, camera("c")).unwrap();
    world.receive_track(&ada, &track);
    bind(&mut world, &bob, &track);
    assert_eq!(told(&mut world, &ada), [ALL]);
    world.pass(LESS_AFTER_MS);
    assert_eq!(told(&mut world, &ada), [LOW], "it has not said how large it shows it");
}

#[test]
fn qualities_a_track_does_not_have_are_not_asked_for() {
    let mut world = World::new();
    let (ada, bob) = (world.join_active(&Who::named("ada")), world.join_active(&Who::named("bob")));
    let mut two = camera("c");
    two.layers.truncate(2);
    let track = world.add_track(&ada, two).unwrap();
    world.receive_track(&ada, &track);
    bind(&mut world, &bob, &track);
    assert_eq!(told(&mut world, &ada), [MEDIUM]);
    let layer = proto::VideoLayer { quality: VideoQuality::High.into(), width: 64, height: 64, ..Default::default() };
    let screen = proto::AddTrackRequest {
        r#type: proto::TrackType::Video.into(),
        source: proto::TrackSource::ScreenShare.into(),
        layers: vec![layer],
        simulcast_codecs: vec![proto::SimulcastCodec { codec: "vp8".into(), cid: "s".into(), ..Default::default() }],
        ..microphone("s")
    };
    let screen = world.add_track(&ada, screen).unwrap();
    world.receive_track(&ada, &screen);
    bind(&mut world, &bob, &screen);
    show(&mut world, &bob, &screen, 8, 8);
    world.pass(LESS_AFTER_MS);
    assert_eq!(told(&mut world, &ada), [ALL], "its one layer is the highest");
}

#[test]
fn unmuting_a_video_repeats_what_is_wanted() {
    let Call { mut world, ada, track, .. } = call();
    for muted in [true, false] {
        world.say(&ada, Asked::Mute(proto::MuteTrackRequest { sid: track.to_string(), muted }));
        assert_eq!(told(&mut world, &ada), if muted { vec![] } else { vec![ALL] });
    }
}

#[test]
fn a_publisher_that_comes_back_is_told_again() {
    let Call { mut world, ada, bob, track } = call();
    world.cut(&ada);
    show(&mut world, &bob, &track, 160, 90);
    world.pass(LESS_AFTER_MS);
    let again = world.resume(&ada, &Who::named("ada"));
    assert_eq!(told(&mut world, &again), [LOW], "it was told so while it did not listen");
}

#[test]
fn who_cannot_decode_the_primary_codec_has_the_backup_published() {
    let mut world = World::new();
    let (ada, bob) = (world.join_active(&Who::named("ada")), world.join_active(&Who::named("bob")));
    let codec =
        |codec: &str, cid: &str| proto::SimulcastCodec { codec: codec.into(), cid: cid.into(), ..Default::default() };
    let simulcast_codecs = vec![codec("vp9", "c"), codec("vp8", "")];
    let track = world.add_track(&ada, proto::AddTrackRequest { simulcast_codecs, ..camera("c") }).unwrap();
    world.receive_track(&ada, &track);
    bind(&mut world, &bob, &track);
    let eve = world.join_active(&Who::named("eve"));
    world.look_away();
    let (node, session) = world.session_of(&eve);
    let needed = |codec| NodeToRoom::CodecNeeded { session: session.clone(), track: track.clone(), codec };
    world.node_says(&node, needed(Some(1)));
    let on = |world: &mut World| -> Vec<Vec<(String, usize)>> {
        let updates = world.inbox(&ada).into_iter().filter_map(|message| match message {
            Message::SubscribedQualityUpdate(update) => Some(update.subscribed_codecs),
            _ => None,
        });
        let count = |codec: proto::SubscribedCodec| (codec.codec, codec.qualities.iter().filter(|q| q.enabled).count());
        updates.map(|codecs| codecs.into_iter().map(count).collect()).collect()
    };
    let codecs = |vp9, vp8| vec![("vp9".to_owned(), vp9), ("vp8".to_owned(), vp8)];
    assert_eq!(on(&mut world), [codecs(3, 3)]);
    world.pass(LESS_AFTER_MS);
    assert_eq!(on(&mut world), [] as [Vec<(String, usize)>; 0], "bob still takes the primary");
    show(&mut world, &eve, &track, 160, 90);
    world.say(&bob, Asked::Leave(proto::LeaveRequest::default()));
    world.pass(LESS_AFTER_MS);
    assert_eq!(on(&mut world), [codecs(0, 1)]);

    world.look_away();
    world.node_says(&node, needed(None));
    let inbox = world.inbox(&eve);
    let [Message::SubscriptionResponse(response)] = &inbox[..] else { panic!("{inbox:?}") };
    assert_eq!(response.err(), proto::SubscriptionError::SeCodecUnsupported);
}
