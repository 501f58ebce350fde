//! Descriptions: passed on in order, kept, checked; what comes from an older session is dropped.

use livekit_protocol as proto;
use livekit_protocol::request_response::Reason;
use livekit_protocol::signal_request::Message as Asked;
use livekit_protocol::signal_response::Message;
use shared::control::{DescriptionKind, MAX_SDP_LEN, NodeToRoom};
use shared::ids::Generation;

use crate::world::{Who, World, description, mid_tracks, names, session_description};

#[test]
fn offers_go_to_the_node_and_answers_come_back_with_their_mids() {
    let mut world = World::new();
    let ada = world.join_active(&Who::named("ada"));
    let track = world.publish(&ada, "m");
    let bob = world.join(&Who::named("bob").offering(1));
    let (node, session) = world.session_of(&bob);
    assert_eq!(world.nodes[&node].sessions[&session].offers, [description(DescriptionKind::Offer, 1)]);
    world.look_away();
    world.answer(&bob, 1, &[("0", &track)]);
    let inbox = world.inbox(&bob);
    let Message::Answer(answer) = &inbox[0] else { panic!("{inbox:?}") };
    assert_eq!((answer.r#type.as_str(), answer.id, answer.sdp.as_str()), ("answer", 1, "v=0 1"));
    assert_eq!(answer.mid_to_track_id["0"], track.to_string());
    world.say(&bob, Asked::Offer(session_description("offer", 2)));
    assert_eq!(world.nodes[&node].sessions[&session].offers.len(), 2);
}

#[test]
fn the_first_offer_of_a_room_travels_with_the_placement_and_is_sent_once() {
    let mut world = World::new();
    let ada = world.join(&Who::named("ada").offering(0));
    let (node, session) = world.session_of(&ada);
    assert_eq!(world.nodes[&node].sessions[&session].offers.len(), 1, "id 0 is a legal id");
    world.answer(&ada, 0, &[]);
    assert_eq!(names(&world.inbox(&ada)), ["join", "answer"]);
}

#[test]
fn an_offer_made_before_the_node_dialed_in_is_not_lost() {
    let mut world = World::new();
    let ada = world.try_join(&Who::named("ada")).unwrap();
    world.say(&ada, Asked::Offer(session_description("offer", 1)));
    world.link_expected();
    let (node, session) = world.session_of(&ada);
    assert_eq!(world.nodes[&node].sessions[&session].offers, [description(DescriptionKind::Offer, 1)]);
}

#[test]
fn with_two_connections_the_node_offers_and_the_client_answers() {
    let mut world = World::new();
    let bob = world.join(&Who::named("bob").dual());
    let (node, session) = world.session_of(&bob);
    world.say(&bob, Asked::Answer(session_description("answer", 9)));
    assert!(world.nodes[&node].sessions[&session].answers.is_empty(), "there was no offer");
    let offer = NodeToRoom::Offer {
        session: session.clone(),
        description: description(DescriptionKind::Offer, 40),
        mid_to_track: mid_tracks(&[]),
    };
    world.look_away();
    world.node_says(&node, offer);
    assert_eq!(names(&world.inbox(&bob)), ["offer"]);
    world.say(&bob, Asked::Answer(session_description("answer", 40)));
    assert_eq!(world.nodes[&node].sessions[&session].answers.len(), 1);
}

#[test]
fn with_one_connection_a_stray_answer_is_ignored() {
    let mut world = World::new();
    let ada = world.join_active(&Who::named("ada"));
    world.look_away();
    world.say(&ada, Asked::Answer(session_description("answer", 1)));
    let (node, session) = world.session_of(&ada);
    assert!(world.nodes[&node].sessions[&session].answers.is_empty());
    assert!(world.inbox(&ada).is_empty());
    assert_eq!(world.room.counters().dropped_stale, 1);
}

#[test]
fn bad_descriptions_are_answered_counted_and_change_nothing() {
    let mut world = World::new();
    let ada = world.join_active(&Who::named("ada"));
    let (node, session) = world.session_of(&ada);
    world.look_away();
    world.say(&ada, Asked::Offer(session_description("pranswer", 1)));
    let mut long = session_description("offer", 2);
    long.sdp = "x".repeat(MAX_SDP_LEN + 1);
    world.say(&ada, Asked::Offer(long));
    let mut binary = session_description("offer", 2);
    binary.sdp.push('\0');
    world.say(&ada, Asked::Offer(binary));
    assert!(world.nodes[&node].sessions[&session].offers.is_empty());
    world.say(&ada, Asked::Offer(session_description("offer", 3)));
    world.node_says(&node, NodeToRoom::DescriptionRejected { session, id: 3, detail: "no m-line".into() });
    let inbox = world.inbox(&ada);
    assert_eq!(inbox.len(), 4);
    for message in &inbox {
        let Message::RequestResponse(response) = message else { panic!("{message:?}") };
        assert_eq!(response.reason(), Reason::InvalidRequest);
    }
    let Message::RequestResponse(last) = &inbox[3] else { panic!() };
    assert!(last.message.contains('3'), "it names the description");
    assert_eq!(world.room.counters().rejected_descriptions, 4);
    world.say(&ada, Asked::Ping(1));
    assert_eq!(names(&world.inbox(&ada)), ["pong"], "the session goes on");
}

#[test]
fn a_bad_offer_inside_the_join_request_does_not_spoil_the_join() {
    let mut world = World::new();
    let mut who = Who::named("ada");
    who.request.publisher_offer = Some(session_description("answer", 1));
    let ada = world.join(&who);
    assert_eq!(names(&world.inbox(&ada)), ["join", "request_response"]);
}

#[test]
fn candidates_are_checked_and_dropped() {
    let mut world = World::new();
    let ada = world.join_active(&Who::named("ada"));
    world.look_away();
    let trickle =
        |text: &str| Asked::Trickle(proto::TrickleRequest { candidate_init: text.into(), ..Default::default() });
    world.say(
        &ada,
        trickle(r#"{"candidate":"candidate:1 1 udp 1 10.0.0.1 9 typ host","sdpMid":"0","sdpMLineIndex":0}"#),
    );
    assert!(world.inbox(&ada).is_empty());
    world.say(&ada, trickle("nonsense"));
    let inbox = world.inbox(&ada);
    let Message::RequestResponse(response) = &inbox[0] else { panic!() };
    assert_eq!(response.reason(), Reason::UnclassifiedError);
    assert!(!response.message.is_empty());
}

#[test]
fn sections_needed_reach_the_client() {
    let mut world = World::new();
    let ada = world.join_active(&Who::named("ada"));
    let (node, session) = world.session_of(&ada);
    world.look_away();
    world.node_says(&node, NodeToRoom::SectionsNeeded { session, audios: 0, videos: 2 });
    let needed = proto::MediaSectionsRequirement { num_audios: 0, num_videos: 2 };
    assert_eq!(world.inbox(&ada), [Message::MediaSectionsRequirement(needed)]);
}

#[test]
fn what_an_older_session_or_another_node_says_is_dropped() {
    let mut world = World::new();
    let ada = world.join_active(&Who::named("ada"));
    let (node, session) = world.session_of(&ada);
    let mut other = session.clone();
    other.generation = Generation(session.generation.0 + 1);
    let foreign = crate::world::node_id(7);
    world.link(&foreign);
    world.look_away();
    world.node_says(&node, NodeToRoom::SectionsNeeded { session: other, audios: 1, videos: 0 });
    world.node_says(&foreign, NodeToRoom::SectionsNeeded { session, audios: 1, videos: 0 });
    assert!(world.inbox(&ada).is_empty());
    assert_eq!(world.room.counters().dropped_stale, 2);
}

#[test]
fn old_clients_get_no_responses_they_cannot_decode() {
    let mut world = World::new();
    let old = world.join_active(&Who::named("old").protocol(9));
    world.look_away();
    world.say(&old, Asked::Offer(session_description("nonsense", 1)));
    assert!(world.inbox(&old).is_empty());
}

#[test]
fn an_offer_that_the_node_says_again_is_no_news() {
    let mut world = World::new();
    let bob = world.join(&Who::named("bob").dual());
    let (node, session) = world.session_of(&bob);
    let description = description(DescriptionKind::Offer, 40);
    let offer = NodeToRoom::Offer { session: session.clone(), description, mid_to_track: Vec::new() };
    world.node_says(&node, offer.clone());
    world.say(&bob, Asked::Answer(session_description("answer", 40)));
    world.look_away();
    // The link broke; the answer is sent again, the offer not.
    world.unlink(&node);
    world.link(&node);
    world.node_says(&node, offer);
    assert!(world.inbox(&bob).is_empty());
    let ids: Vec<_> = world.nodes[&node].sessions[&session].answers.iter().map(|answer| answer.id).collect();
    assert_eq!(ids, [40, 40]);
}
