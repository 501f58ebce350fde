//! Subscribing: who is served what, by wish, permission and visibility.

use edge_signal::room::event::ConnectionId;
use edge_signal::room::join::RETURN_HOLD_MS;
use edge_signal::room::unanswered::TRACK_TIMEOUT_MS;
use livekit_protocol as proto;
use livekit_protocol::signal_request::Message as Asked;
use livekit_protocol::signal_response::Message;
use shared::control::{MediaState, NodeToRoom};
use shared::ids::TrackSid;

use crate::world::{Who, World, camera, microphone, names};

fn wish(tracks: &[&TrackSid], subscribe: bool) -> Asked {
    let track_sids = tracks.iter().map(ToString::to_string).collect();
    Asked::Subscription(proto::UpdateSubscription { track_sids, subscribe, ..Default::default() })
}

fn allow(identity: &str, tracks: &[&TrackSid]) -> Asked {
    let entry = proto::TrackPermission {
        participant_identity: identity.into(),
        track_sids: tracks.iter().map(ToString::to_string).collect(),
        ..Default::default()
    };
    Asked::SubscriptionPermission(proto::SubscriptionPermission {
        all_participants: false,
        track_permissions: vec![entry],
    })
}

#[test]
fn a_latecomer_with_one_connection_opens_with_all_tracks() {
    let mut world = World::new();
    let ada = world.join_active(&Who::named("ada"));
    let track = world.publish(&ada, "m");
    let bob = world.join(&Who::named("bob").offering(1));
    let names = names(&world.inbox(&bob));
    assert_eq!(names, ["join", "subscription_permission_update"]);
    assert_eq!(world.served(&bob), [track], "inside the opening message, so that the first answer has it");
}

#[test]
fn with_two_connections_subscriptions_wait_for_the_primary() {
    let mut world = World::new();
    let ada = world.join_active(&Who::named("ada"));
    let track = world.publish(&ada, "m");
    let bob = world.join(&Who::named("bob").dual());
    assert!(world.served(&bob).is_empty());
    world.media(&bob, MediaState::Connected);
    assert_eq!(world.served(&bob), [track]);
}

#[test]
fn without_auto_subscribe_only_what_is_asked_for_is_served() {
    let mut world = World::new();
    let ada = world.join_active(&Who::named("ada"));
    let (one, two) = (world.publish(&ada, "m"), world.publish(&ada, "n"));
    let bob = world.join_active(&Who::named("bob").no_auto_subscribe());
    assert!(world.served(&bob).is_empty());
    let listed = proto::ParticipantTracks { track_sids: vec![two.to_string()], ..Default::default() };
    let request = proto::UpdateSubscription { subscribe: true, participant_tracks: vec![listed], ..Default::default() };
    world.say(&bob, Asked::Subscription(request));
    assert_eq!(world.served(&bob), std::slice::from_ref(&two));
    world.say(&bob, wish(&[&one, &two], true));
    world.say(&bob, wish(&[&two], false));
    assert_eq!(world.served(&bob), [one]);
}

#[test]
fn a_track_given_up_can_be_had_again() {
    let mut world = World::new();
    let ada = world.join_active(&Who::named("ada"));
    let bob = world.join_active(&Who::named("bob"));
    let track = world.publish(&ada, "m");
    world.say(&bob, wish(&[&track], false));
    assert!(world.served(&bob).is_empty());
    world.look_away();
    world.say(&bob, wish(&[&track], true));
    assert_eq!(world.served(&bob), [track]);
    assert_eq!(names(&world.inbox(&bob)), ["subscription_permission_update"]);
}

#[test]
fn a_wish_for_an_unknown_track_is_remembered() {
    let mut world = World::new();
    let ada = world.join_active(&Who::named("ada"));
    let bob = world.join_active(&Who::named("bob").no_auto_subscribe());
    let track = world.add_track(&ada, microphone("m")).unwrap();
    world.say(&bob, wish(&[&track], true));
    assert!(world.served(&bob).is_empty());
    world.receive_track(&ada, &track);
    assert_eq!(world.served(&bob), [track]);
}

#[test]
fn wishes_for_tracks_that_never_come_are_bounded() {
    let mut world = World::new();
    let bob = world.join_active(&Who::named("bob"));
    let unknown: Vec<TrackSid> = (0..300).map(|n| TrackSid::try_from(format!("TR_AM{n:012}")).unwrap()).collect();
    world.say(&bob, wish(&unknown.iter().collect::<Vec<_>>(), true));
    assert_eq!(world.room.counters().unknown_track, 300 - 256);
    let nonsense = proto::UpdateSubscription { track_sids: vec!["nonsense".into()], ..Default::default() };
    world.say(&bob, Asked::Subscription(nonsense));
    assert_eq!(world.room.counters().unknown_track, 300 - 256 + 1);
}

#[test]
fn who_may_not_subscribe_is_served_nothing_and_told_nothing() {
    let mut world = World::new();
    let ada = world.join_active(&Who::named("ada"));
    let bob = world.join_active(&Who::named("bob").grant(|grant| grant.can_subscribe = Some(false)));
    let track = world.publish(&ada, "m");
    world.say(&bob, wish(&[&track], true));
    assert!(world.served(&bob).is_empty());
    assert!(world.client(&bob).allowed.is_empty());
}

#[test]
fn tracks_of_a_hidden_participant_are_offered_to_nobody() {
    let mut world = World::new();
    let bob = world.join_active(&Who::named("bob"));
    let spy = world.join_active(&Who::named("spy").grant(|grant| grant.hidden = true));
    let track = world.publish(&spy, "m");
    world.say(&bob, wish(&[&track], true));
    assert!(world.served(&bob).is_empty());
}

#[test]
fn a_publisher_decides_who_may_have_its_tracks() {
    let mut world = World::new();
    let (ada, bob, eve) = (
        world.join_active(&Who::named("ada")),
        world.join_active(&Who::named("bob")),
        world.join_active(&Who::named("eve")),
    );
    let (one, two) = (world.publish(&ada, "m"), world.publish(&ada, "n"));
    world.look_away();
    world.say(&ada, allow("bob", &[&one]));
    assert_eq!(world.served(&bob), std::slice::from_ref(&one));
    assert!(world.served(&eve).is_empty());
    let denied = |inbox: Vec<Message>| {
        let gone = inbox.into_iter().filter(|m| matches!(m, Message::SubscriptionPermissionUpdate(u) if !u.allowed));
        gone.count()
    };
    assert_eq!((denied(world.inbox(&bob)), denied(world.inbox(&eve))), (1, 2));

    let late = world.join_active(&Who::named("late"));
    assert!(world.served(&late).is_empty());
    let agent = world.join_active(&Who::named("bot").grant(|grant| grant.agent = true));
    assert_eq!(world.served(&agent).len(), 2, "agents are exempt");

    let everyone = proto::SubscriptionPermission { all_participants: true, ..Default::default() };
    world.say(&ada, Asked::SubscriptionPermission(everyone));
    let mut both = vec![one, two];
    both.sort();
    assert_eq!((world.served(&bob), world.served(&eve)), (both.clone(), both));
}

#[test]
fn the_publisher_hears_once_that_someone_is_subscribed() {
    let mut world = World::new();
    let (ada, bob, eve) = (
        world.join_active(&Who::named("ada")),
        world.join_active(&Who::named("bob")),
        world.join_active(&Who::named("eve")),
    );
    let track = world.publish(&ada, "m");
    world.look_away();
    for subscriber in [&bob, &eve] {
        let (node, session) = world.session_of(subscriber);
        world.node_says(&node, NodeToRoom::TrackBound { session, track: track.clone() });
    }
    assert_eq!(names(&world.inbox(&ada)), ["track_subscribed"]);
}

/// Ada is there with one track, bob came back and is connected; the track ada publishes then.
fn publish_to_one_who_came_back(world: &mut World, bob: &Who) -> (ConnectionId, TrackSid, TrackSid) {
    let ada = world.join_active(&Who::named("ada"));
    let before = world.publish(&ada, "m");
    world.join_active(bob);
    let bob = world.join_active(bob);
    let after = world.publish(&ada, "n");
    (bob, before, after)
}

#[test]
fn a_web_client_that_came_back_hears_of_further_tracks_when_it_has_stopped_losing_events() {
    let mut world = World::new();
    let (bob, before, after) = publish_to_one_who_came_back(&mut world, &Who::named("bob").offering(1));
    assert_eq!(world.served(&bob), std::slice::from_ref(&before), "what its first answer has, it does not lose");
    world.say(&bob, wish(&[&after], true));
    world.pass(RETURN_HOLD_MS - 1);
    assert_eq!(world.served(&bob), std::slice::from_ref(&before));
    world.pass(1);
    let mut served = world.served(&bob);
    served.sort_by_key(|track| *track != before);
    assert_eq!(served, [before, after]);
}

#[test]
fn a_web_client_with_two_connections_that_came_back_waits_for_all_tracks() {
    let mut world = World::new();
    let (bob, ..) = publish_to_one_who_came_back(&mut world, &Who::named("bob").dual());
    assert!(world.served(&bob).is_empty());
    world.pass(RETURN_HOLD_MS);
    assert_eq!(world.served(&bob).len(), 2);
}

#[test]
fn any_other_client_that_came_back_does_not_wait() {
    let mut world = World::new();
    let (bob, ..) = publish_to_one_who_came_back(&mut world, &Who::named("bob").sdk(proto::client_info::Sdk::Rust));
    assert_eq!(world.served(&bob).len(), 2);
}

#[test]
fn a_subscriber_is_told_when_its_path_does_not_carry_a_video_and_when_it_does_again() {
    let mut world = World::new();
    let (ada, bob) = (world.join_active(&Who::named("ada")), world.join_active(&Who::named("bob")));
    let track = world.publish(&ada, "m");
    world.look_away();
    let (node, session) = world.session_of(&bob);
    for (paused, state) in [(true, proto::StreamState::Paused), (false, proto::StreamState::Active)] {
        world.node_says(&node, NodeToRoom::StreamState { session: session.clone(), track: track.clone(), paused });
        let inbox = world.inbox(&bob);
        let [Message::StreamStateUpdate(update)] = &inbox[..] else { panic!("{inbox:?}") };
        let [info] = &update.stream_states[..] else { panic!("{update:?}") };
        assert_eq!((info.track_sid.as_str(), info.state()), (track.as_str(), state));
        assert_eq!(info.participant_sid, world.client(&ada).sid);
    }
    let own = world.publish(&bob, "n");
    world.look_away();
    world.node_says(&node, NodeToRoom::StreamState { session, track: own, paused: true });
    assert!(world.inbox(&bob).is_empty(), "not subscribed to it");
}

fn want(tracks: &[&TrackSid], width: u32, height: u32) -> Asked {
    let track_sids = tracks.iter().map(ToString::to_string).collect();
    Asked::TrackSetting(proto::UpdateTrackSettings { track_sids, width, height, ..Default::default() })
}

#[test]
fn what_a_client_wants_of_a_track_reaches_the_node_and_is_remembered() {
    let mut world = World::new();
    let (ada, bob) = (world.join_active(&Who::named("ada")), world.join_active(&Who::named("bob")));
    let track = world.add_track(&ada, camera("c")).unwrap();
    world.say(&bob, want(&[&track], 320, 180));
    world.receive_track(&ada, &track);
    assert_eq!(world.delivery(&bob, &track).max_layer, Some(0), "said before the track could be subscribed to");
    world.say(&bob, want(&[&track], 1280, 720));
    assert_eq!(world.delivery(&bob, &track).max_layer, Some(2));
    let off = proto::UpdateTrackSettings { track_sids: vec![track.to_string()], disabled: true, ..Default::default() };
    world.say(&bob, Asked::TrackSetting(off));
    assert!(world.delivery(&bob, &track).paused);
    let (node, _) = world.session_of(&bob);
    world.unlink(&node);
    world.link(&node);
    assert!(world.delivery(&bob, &track).paused, "said again to a node that may have missed it");
}

#[test]
fn an_adaptive_client_starts_with_the_lowest_layer() {
    let mut world = World::new();
    let ada = world.join_active(&Who::named("ada"));
    let track = world.add_track(&ada, camera("c")).unwrap();
    world.receive_track(&ada, &track);
    let mut bob = Who::named("bob");
    bob.request.connection_settings.as_mut().unwrap().adaptive_stream = true;
    let (bob, eve) = (world.join_active(&bob), world.join_active(&Who::named("eve")));
    assert_eq!(world.delivery(&bob, &track).max_layer, Some(0));
    assert_eq!(world.delivery(&eve, &track).max_layer, None);
}

#[test]
fn who_wishes_for_a_track_that_does_not_come_is_told_after_a_while() {
    let mut world = World::new();
    let (ada, bob) = (world.join_active(&Who::named("ada")), world.join_active(&Who::named("bob")));
    let unknown = |n: u8| TrackSid::try_from(format!("TR_AMnobodykno{n}")).unwrap();
    let failed = |world: &mut World| -> Vec<String> {
        let responses = world.inbox(&bob).into_iter().filter_map(|message| match message {
            Message::SubscriptionResponse(response) => Some(response),
            _ => None,
        });
        let found = |response: proto::SubscriptionResponse| {
            assert_eq!(response.err(), proto::SubscriptionError::SeTrackNotfound);
            response.track_sid
        };
        responses.map(found).collect()
    };
    let coming = world.add_track(&ada, microphone("m")).unwrap();
    world.say(&bob, wish(&[&unknown(1), &unknown(2), &coming], true));
    world.say(&bob, wish(&[&unknown(2)], false));
    world.pass(TRACK_TIMEOUT_MS / 2);
    world.say(&bob, wish(&[&unknown(3)], true));
    world.pass(TRACK_TIMEOUT_MS / 2 - 1);
    assert_eq!(failed(&mut world), [] as [String; 0]);
    world.pass(1);
    assert_eq!(failed(&mut world), [unknown(1).to_string()]);
    world.pass(TRACK_TIMEOUT_MS / 2);
    assert_eq!(failed(&mut world), [unknown(3).to_string()]);
    world.pass(10 * TRACK_TIMEOUT_MS);
    assert_eq!(failed(&mut world), [] as [String; 0], "once");
}

#[test]
fn with_two_connections_a_video_that_begins_is_said_to_be_active() {
    let mut world = World::new();
    let (ada, bob) = (world.join_active(&Who::named("ada")), world.join_active(&Who::named("bob").dual()));
    let eve = world.join_active(&Who::named("eve"));
    let (video, audio) = (world.add_track(&ada, camera("c")).unwrap(), world.publish(&ada, "m"));
    world.receive_track(&ada, &video);
    world.look_away();
    for subscriber in [&bob, &eve] {
        let (node, session) = world.session_of(subscriber);
        for track in [&video, &audio] {
            world.node_says(&node, NodeToRoom::TrackBound { session: session.clone(), track: track.clone() });
        }
    }
    let inbox = world.inbox(&bob);
    let [Message::StreamStateUpdate(update)] = &inbox[..] else { panic!("{inbox:?}") };
    assert_eq!((update.stream_states.len(), update.stream_states[0].state()), (1, proto::StreamState::Active));
    assert!(world.inbox(&eve).is_empty(), "as LiveKit does");
}
