//! Joining: what comes first, what a client learns, who is refused.

use edge_signal::refusal::Reason;
use livekit_protocol as proto;
use livekit_protocol::participant_info::State;
use livekit_protocol::signal_request::Message as Asked;
use livekit_protocol::signal_response::Message;
use livekit_protocol::{DisconnectReason, leave_request::Action};
use shared::claims::REGION_ATTRIBUTE;
use shared::control::PeerConnections;

use crate::world::{START, Who, World, names, node_id};

#[test]
fn the_join_response_comes_first_and_says_all_a_client_needs() {
    let mut world = World::new();
    let ada = world.join(&Who::named("ada"));
    let inbox = world.inbox(&ada);
    assert_eq!(names(&inbox), ["join"]);
    assert_eq!(world.client(&ada).tokens, 1);
    let Message::Join(join) = &inbox[0] else { panic!() };
    let room = join.room.as_ref().unwrap();
    assert!(room.sid.starts_with("RM_"));
    assert_eq!((room.name.as_str(), room.num_participants, room.creation_time_ms), ("r", 1, START.0 as i64));
    assert_eq!((room.empty_timeout, room.departure_timeout), (300, 20));
    let me = join.participant.as_ref().unwrap();
    assert!(me.sid.starts_with("PA_"));
    assert_eq!((me.identity.as_str(), me.name.as_str(), me.state(), me.version), ("ada", "ADA", State::Joining, 0));
    let permission = me.permission.as_ref().unwrap();
    assert!(permission.can_publish && permission.can_subscribe && permission.can_publish_data);
    assert!(!permission.can_update_metadata);
    assert!(join.ping_interval > 0 && join.ping_timeout > join.ping_interval);
    let server = join.server_info.as_ref().unwrap();
    assert_eq!((server.version.as_str(), server.protocol), ("1.13.5", 17));
    assert!(join.fast_publish && !join.subscriber_primary);
    assert!(join.enabled_publish_codecs.iter().any(|codec| codec.mime == "video/VP8"));
    assert!(!join.enabled_publish_codecs.iter().any(|codec| codec.mime == "video/rtx"));
}

#[test]
fn a_refreshed_token_follows_the_join_and_comes_again_every_five_minutes() {
    let mut world = World::new();
    let ada = world.join_active(&Who::named("ada"));
    let claims = world.tokens[0].clone();
    assert_eq!((claims.sub.as_str(), claims.identity.as_str(), claims.kind.as_str()), ("ada", "ada", "standard"));
    assert_eq!(claims.exp, START.secs() + 3600);
    world.pass(301_000);
    assert_eq!(world.client(&ada).tokens, 2);
    world.pass(3_500_000);
    let last = world.tokens.last().unwrap();
    assert!(last.exp >= world.now.secs() + 300, "a long session's token must not run out");
}

#[test]
fn the_token_that_creates_a_room_keeps_it_to_a_region() {
    let in_region = |identity, region: &str| {
        let mut who = Who::named(identity);
        who.claims.attributes.insert(REGION_ATTRIBUTE.to_owned(), region.to_owned());
        who
    };
    let mut world = World::new();
    assert_eq!(world.admit(&in_region("ada", "")).unwrap_err().reason, Reason::RegionMalformed);
    // What a client says of itself keeps nothing anywhere.
    let mut boasting = Who::named("ada").grant(|grant| grant.can_update_own_metadata = Some(true));
    boasting.request.participant_attributes.insert(REGION_ATTRIBUTE.to_owned(), "mars".to_owned());
    assert_eq!(world.admit(&boasting).unwrap().place.unwrap().region, None);

    let ada = in_region("ada", "eu-central-1");
    let asked = world.admit(&ada).unwrap().place.unwrap();
    assert_eq!(asked.region.unwrap().as_str(), "eu-central-1");
    world.join(&ada);
    world.join(&in_region("bob", "us-east-1"));
    world.kill(&node_id(1));
    world.pass(1_000);
    let asked = world.asked_fleet.last().unwrap();
    assert_eq!(asked.region.as_ref().unwrap().as_str(), "eu-central-1", "it stays there, whoever came after");
}

#[test]
fn every_participant_gets_an_id_of_its_own() {
    let mut world = World::new();
    let (ada, bob) = (world.join(&Who::named("ada")), world.join(&Who::named("bob")));
    let ada_sid = world.client(&ada).sid.clone();
    assert_ne!(ada_sid, world.client(&bob).sid);
}

#[test]
fn those_present_learn_of_a_newcomer_and_it_of_them() {
    let mut world = World::new();
    let ada = world.join_active(&Who::named("ada"));
    world.look_away();
    let bob = world.join(&Who::named("bob"));
    let ada_sid = world.client(&ada).sid.clone();
    let Message::Join(join) = world.inbox(&bob)[0].clone() else { panic!() };
    assert_eq!(join.other_participants.len(), 1);
    assert_eq!(
        (join.other_participants[0].sid.as_str(), join.other_participants[0].state()),
        (ada_sid.as_str(), State::Active)
    );
    let bob_sid = world.client(&bob).sid.clone();
    assert_eq!(world.client(&ada).roster[&bob_sid].state(), State::Joined);
    world.media(&bob, shared::control::MediaState::Connected);
    assert_eq!(world.client(&ada).roster[&bob_sid].state(), State::Active);
    assert_eq!(world.client(&bob).roster[&bob_sid].state(), State::Active, "one hears of oneself");
}

#[test]
fn a_hidden_participant_is_seen_by_nobody_but_itself() {
    let mut world = World::new();
    let ada = world.join_active(&Who::named("ada"));
    let spy = world.join_active(&Who::named("spy").grant(|grant| grant.hidden = true));
    let bob = world.join_active(&Who::named("bob"));
    let spy_sid = world.client(&spy).sid.clone();
    assert!(!world.client(&ada).roster.contains_key(&spy_sid));
    assert!(!world.client(&bob).roster.contains_key(&spy_sid));
    assert_eq!(world.client(&spy).roster[&spy_sid].state(), State::Active);
    assert_eq!(world.client(&spy).roster.len(), 3);
    world.look_away();
    world.say(&spy, Asked::Leave(proto::LeaveRequest::default()));
    assert!(!names(&world.inbox(&ada)).contains(&"update"));
}

#[test]
fn the_same_identity_replaces_the_first_and_only_old_clients_hear_it_left() {
    let mut world = World::new();
    let first = world.join_active(&Who::named("ada"));
    let bob = world.join_active(&Who::named("bob"));
    let old = world.join_active(&Who::named("old").protocol(11));
    let first_sid = world.client(&first).sid.clone();
    world.look_away();
    let second = world.join(&Who::named("ada"));
    let leave = world.client(&first).leave().unwrap();
    assert_eq!((leave.reason(), leave.action()), (DisconnectReason::DuplicateIdentity, Action::Disconnect));
    assert!(world.client(&first).closed);
    let told_gone = |inbox: &[Message]| {
        inbox.iter().any(|message| {
            matches!(message, Message::Update(update) if update.participants[0].state() == State::Disconnected)
        })
    };
    assert!(!told_gone(&world.client(&bob).inbox));
    assert!(told_gone(&world.client(&old).inbox));
    let second_sid = world.client(&second).sid.clone();
    assert_ne!(first_sid, second_sid);
    assert!(world.client(&bob).roster.contains_key(&second_sid));
    assert!(world.find_session(&first_sid).is_none(), "the first one's session is closed");
}

#[test]
fn a_resume_is_told_to_join_anew_and_creates_nothing() {
    let mut world = World::new();
    let mut who = Who::named("ada");
    who.request.reconnect = true;
    let ada = world.try_join(&who).unwrap();
    let leave = world.client(&ada).leave().unwrap();
    assert_eq!((leave.reason(), leave.action()), (DisconnectReason::StateMismatch, Action::Reconnect));
    assert!(world.client(&ada).closed);
    assert!(world.directory.is_empty() && world.asked_fleet.is_empty());
    assert_eq!(world.room.deadline(), None);
    let old = world
        .try_join(&{
            let mut who = who.protocol(12);
            who.request.reconnect = true;
            who
        })
        .unwrap();
    assert!(world.client(&old).leave().unwrap().can_reconnect, "clients below 13 know no action");
}

#[test]
fn a_full_room_refuses_newcomers_but_not_those_who_are_in_nor_agents() {
    let mut world = World::new();
    let mut ada = Who::named("ada");
    ada.claims.room_config = Some(serde_json::json!({"maxParticipants": 1, "metadata": "m", "brandNew": true}));
    world.join_active(&ada);
    let refusal = world.try_join(&Who::named("bob")).unwrap_err();
    assert_eq!((refusal.reason.status(), refusal.text.as_str()), (403, "room is full"));
    world.try_join(&Who::named("bot").grant(|grant| grant.agent = true)).unwrap();
    world.try_join(&ada).unwrap();
}

#[test]
fn two_admitted_for_the_last_place_do_not_both_get_it() {
    let mut world = World::new();
    let mut ada = Who::named("ada");
    ada.claims.room_config = Some(serde_json::json!({"maxParticipants": 2}));
    world.join_active(&ada);
    let (bob, eve) = (Who::named("bob"), Who::named("eve"));
    let (first, second) = (world.admit(&bob).unwrap(), world.admit(&eve).unwrap());
    world.enter(&bob, first).unwrap();
    let eve = world.enter(&eve, second).unwrap();
    assert_eq!(world.client(&eve).leave().unwrap().reason(), DisconnectReason::JoinFailure);
    assert!(world.client(&eve).closed);
}

#[test]
fn bad_attempts_are_refused_with_status_and_reason() {
    let mut world = World::new();
    let mut cases: Vec<(Who, u16, &str)> = Vec::new();
    cases.push((Who::named("ada").grant(|grant| grant.room_join = false), 401, "permissions denied"));
    cases.push((Who::named(""), 400, "identity cannot be empty"));
    cases.push((Who::named(&"x".repeat(257)), 400, "participant identity length exceeds limits: max length 256"));
    let mut metadata = Who::named("ada");
    metadata.request.metadata = "m".into();
    cases.push((metadata.clone(), 401, "no permissions to access the room"));
    metadata.request.metadata = "m".repeat(512 * 1024 + 1);
    cases.push((
        metadata.grant(|grant| grant.can_update_own_metadata = Some(true)),
        400,
        "exceeds metadata size limit",
    ));
    for (who, status, reason) in cases {
        let refusal = world.try_join(&who).unwrap_err();
        assert_eq!((refusal.reason.status(), refusal.text.as_str()), (status, reason));
    }
    let mut config = Who::named("ada");
    config.claims.room_config = Some(serde_json::json!({"maxParticipants": "many"}));
    assert_eq!(world.try_join(&config).unwrap_err().reason, Reason::RoomConfigMalformed);
    config.claims.room_config = Some(serde_json::json!({"egress": {"room": {"roomName": "r"}}}));
    assert_eq!(world.try_join(&config).unwrap_err().reason, Reason::RoomConfigUnsupported);
    config.claims.room_config = None;
    config.claims.room_preset = "stage".into();
    assert_eq!(world.try_join(&config).unwrap_err().reason, Reason::RoomConfigUnsupported);
    config.claims.room_preset.clear();
    config.claims.room_config = Some(serde_json::json!({"egress": null}));
    assert!(world.admit(&config).is_ok());
    assert!(world.directory.is_empty());
}

#[test]
fn metadata_of_the_join_request_replaces_the_tokens() {
    let mut world = World::new();
    let mut who = Who::named("ada").grant(|grant| grant.can_update_own_metadata = Some(true));
    who.claims.metadata = "old".into();
    who.claims.attributes = [("a".to_owned(), "1".to_owned()), ("b".to_owned(), "2".to_owned())].into();
    who.request.metadata = "new".into();
    who.request.participant_attributes = [("a".to_owned(), "3".to_owned()), ("b".to_owned(), String::new())].into();
    let ada = world.join(&who);
    let Message::Join(join) = world.inbox(&ada)[0].clone() else { panic!() };
    let me = join.participant.unwrap();
    assert_eq!(me.metadata, "new");
    assert_eq!((me.attributes["a"].as_str(), me.attributes["b"].as_str()), ("3", "2"));
    assert_eq!(world.tokens[0].metadata, "new");
}

#[test]
fn tracks_announced_with_the_join_are_answered_before_the_token() {
    let mut world = World::new();
    let mut who = Who::named("ada");
    who.request.add_track_requests = vec![crate::world::microphone("m")];
    let ada = world.join(&who);
    assert_eq!(names(&world.inbox(&ada)), ["join", "track_published"]);
    let (node, session) = world.session_of(&ada);
    assert_eq!(world.nodes[&node].sessions[&session].tracks.len(), 1, "the node hears of it when it has linked");
}

#[test]
fn the_primary_connection_depends_on_path_permission_and_protocol() {
    let mut world = World::new();
    let mut mode = |who: &Who| world.admit(who).unwrap().peer_connections;
    assert_eq!(mode(&Who::named("a")), PeerConnections::Single);
    assert_eq!(mode(&Who::named("a").dual()), PeerConnections::DualSubscriberPrimary);
    assert_eq!(mode(&Who::named("a").dual().protocol(2)), PeerConnections::DualPublisherPrimary);
    let mute = Who::named("a").dual().grant(|grant| grant.can_subscribe = Some(false));
    assert_eq!(mode(&mute), PeerConnections::DualPublisherPrimary);
    let bob = world.join(&Who::named("bob").dual());
    let Message::Join(join) = world.inbox(&bob)[0].clone() else { panic!() };
    assert!(join.subscriber_primary);
}

#[test]
fn counters_reach_clients_and_directory_at_most_every_five_seconds() {
    let mut world = World::new();
    let ada = world.join_active(&Who::named("ada"));
    assert_eq!(world.directory.len(), 1);
    world.pass(10_000);
    world.look_away();
    world.join_active(&Who::named("bob"));
    assert_eq!(names(&world.inbox(&ada)).iter().filter(|name| **name == "room_update").count(), 1);
    world.join_active(&Who::named("eve"));
    world.join_active(&Who::named("dan"));
    assert!(!names(&world.inbox(&ada)).contains(&"room_update"));
    world.pass(5_000);
    let inbox = world.inbox(&ada);
    let Some(Message::RoomUpdate(update)) = inbox.first() else { panic!("{inbox:?}") };
    assert_eq!(update.room.as_ref().unwrap().num_participants, 4);
    assert_eq!(world.directory.last().unwrap().as_ref().unwrap().participants, 4);
}

#[test]
fn pings_of_both_kinds_are_answered_in_milliseconds_and_write_nothing() {
    let mut world = World::new();
    let ada = world.join_active(&Who::named("ada"));
    world.look_away();
    world.say(&ada, Asked::Ping(5));
    world.say(&ada, Asked::PingReq(proto::Ping { timestamp: 7, rtt: 1 }));
    let now = world.now.0 as i64;
    assert_eq!(
        world.inbox(&ada),
        [Message::Pong(now), Message::PongResp(proto::Pong { last_ping_timestamp: 7, timestamp: now })]
    );
    assert!(world.room.changes().is_empty());
}

#[test]
fn own_metadata_changes_with_permission_and_within_limits() {
    let mut world = World::new();
    let ada = world.join_active(&Who::named("ada").grant(|grant| grant.can_update_own_metadata = Some(true)));
    let bob = world.join_active(&Who::named("bob"));
    world.look_away();
    let tokens = world.client(&ada).tokens;
    let change = |metadata: &str| {
        let attributes = [("role".to_owned(), "host".to_owned())].into();
        Asked::UpdateMetadata(proto::UpdateParticipantMetadata {
            metadata: metadata.into(),
            request_id: 4,
            attributes,
            ..Default::default()
        })
    };
    world.say(&ada, change("x"));
    assert_eq!(names(&world.inbox(&ada)), ["update", "request_response"]);
    assert_eq!(world.client(&ada).tokens, tokens + 1);
    assert_eq!(world.tokens.last().unwrap().metadata, "x");
    let ada_sid = world.client(&ada).sid.clone();
    assert_eq!(world.client(&bob).roster[&ada_sid].metadata, "x");
    assert_eq!(world.client(&bob).roster[&ada_sid].name, "ADA", "an empty name changes nothing");

    world.say(&ada, change(&"x".repeat(512 * 1024 + 1)));
    let refusals = |world: &mut World| names(&world.inbox(&ada));
    assert_eq!(refusals(&mut world), ["request_response"]);
    world.say(&ada, change(&"\u{1}".repeat(512 * 1024)));
    assert_eq!(refusals(&mut world), ["request_response"], "what would not fit a row is refused too");
    world.say(&ada, change(&"x".repeat(512 * 1024 + 1)));
    world.say(&bob, change("x"));
    let reason = |inbox: Vec<Message>| match inbox.last().unwrap() {
        Message::RequestResponse(response) => (response.reason(), response.message.clone(), response.request_id),
        other => panic!("{other:?}"),
    };
    use proto::request_response::Reason;
    assert_eq!(reason(world.inbox(&ada)), (Reason::LimitExceeded, "exceeds metadata size limit".to_owned(), 4));
    let refused = "does not have permission to update own metadata".to_owned();
    assert_eq!(reason(world.inbox(&bob)), (Reason::NotAllowed, refused, 4));
    let (name, value) = ("n".repeat(257), "v".repeat(64 * 1024));
    for (name, value, said) in [(name.as_str(), "", "name length"), ("", value.as_str(), "attributes size")] {
        let attributes = [("role".to_owned(), value.to_owned())].into();
        let change =
            proto::UpdateParticipantMetadata { name: name.into(), attributes, request_id: 5, ..Default::default() };
        world.say(&ada, Asked::UpdateMetadata(change));
        assert_eq!(reason(world.inbox(&ada)), (Reason::LimitExceeded, format!("exceeds {said} limit"), 5));
    }
    let ada = &world.client(&bob).roster[&ada_sid];
    assert_eq!((ada.name.as_str(), ada.attributes["role"].as_str()), ("ADA", "host"), "nothing of it was taken");
}
