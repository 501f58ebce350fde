//! A participant is brought to another room and goes on there.

use edge_signal::room::event::{ConnectionId, Event};
use edge_signal::room::moving::{MOVE_LIMIT_MS, MOVE_RESUME_MS};
use edge_signal::room::service::{Answer, Code, Error, Request};
use edge_signal::room::transfer::{Transfer, Welcome};
use livekit_protocol as proto;
use livekit_protocol::signal_request::Message as Asked;
use livekit_protocol::signal_response::Message;
use livekit_protocol::{DisconnectReason, RoomMovedResponse};
use shared::claims::AccessClaims;
use shared::control::{MediaState, NodeToRoom};
use shared::ids::{Generation, RoomName, TrackSid};

use crate::world::{Who, World, camera, names, node_id, placed, session_description};

fn elsewhere() -> RoomName {
    RoomName::try_from("elsewhere").unwrap()
}

fn hand_over(from: &mut World, identity: &str) -> Result<Transfer, Error> {
    match from.ask(Request::Transfer(identity.to_owned(), elsewhere()))? {
        Answer::Transfer(transfer) => Ok(*transfer),
        other => panic!("{other:?}"),
    }
}

fn take_in(to: &mut World, transfer: &Transfer) -> Result<Welcome, Error> {
    // As it crosses between objects.
    let request: Request =
        serde_json::from_str(&serde_json::to_string(&Request::TakeIn(Box::new(transfer.clone()))).unwrap()).unwrap();
    match to.ask(request)? {
        Answer::Welcome(welcome) => Ok(*welcome),
        other => panic!("{other:?}"),
    }
}

/// The whole of it. What the client was told.
fn transfer(from: &mut World, to: &mut World, identity: &str) -> (RoomMovedResponse, AccessClaims) {
    let leaving = hand_over(from, identity).unwrap();
    let welcome = take_in(to, &leaving).unwrap();
    assert_eq!(from.transferred(&leaving, &welcome), Ok(Answer::Done));
    from.moved.pop().unwrap()
}

/// Ada and Bob in a room, Cat in another; Ada has published and sees Bob's track.
fn rooms() -> (World, World, ConnectionId, ConnectionId, ConnectionId) {
    let (mut from, mut to) = (World::new(), World::another());
    let (ada, bob) = (from.join_active(&Who::named("ada")), from.join_active(&Who::named("bob")));
    let cat = to.join_active(&Who::named("cat"));
    (from, to, ada, bob, cat)
}

#[test]
fn it_goes_on_there_with_its_tracks_and_its_connection() {
    let (mut from, mut to, ada, bob, cat) = rooms();
    let (hers, his) = (from.publish(&ada, "m"), from.publish(&bob, "m"));
    let video = from.add_track(&ada, camera("c")).unwrap();
    from.say(&ada, Asked::Offer(session_description("offer", 4)));
    from.answer(&ada, 4, &[("3", &his)]);
    let theirs = to.publish(&cat, "m");
    let (node, session) = from.session_of(&ada);
    let before = from.client(&ada).resuming();
    from.pass(10_000);
    from.look_away();
    to.look_away();
    from.app_server.news();
    to.app_server.news();

    let (moved, claims) = transfer(&mut from, &mut to, "ada");
    // Her client hears that the others are gone, and where it is.
    let said = from.inbox(&ada);
    assert!(from.client(&ada).closed && names(&said) == ["update"], "{said:?}");
    let Message::Update(update) = &said[0] else { panic!("{said:?}") };
    assert_eq!((update.participants[0].identity.as_str(), update.participants[0].state), ("bob", 3));
    assert_eq!(claims.video.as_ref().unwrap().room, "elsewhere");
    assert_eq!((claims.sub.as_str(), claims.iat), ("ada", Some(from.now.secs())));
    let (me, others) = (moved.participant.unwrap(), moved.other_participants);
    assert_eq!((moved.room.unwrap().num_participants, others.len()), (2, 1));
    assert_eq!((others[0].identity.as_str(), others[0].tracks[0].sid.as_str()), ("cat", theirs.as_str()));
    assert!(me.sid != before.sid && me.tracks[0].sid == hers.as_str() && me.tracks.len() == 1, "{me:?}");

    // For those she leaves she has left.
    let heard = from.inbox(&bob);
    let Message::Update(update) = &heard[0] else { panic!("{heard:?}") };
    let gone = &update.participants[0];
    assert_eq!((gone.identity.as_str(), gone.state), ("ada", 3));
    assert_eq!(gone.disconnect_reason(), DisconnectReason::Migration);
    assert_eq!(from.app_server.news(), ["track_unpublished", "participant_left"]);
    assert_eq!(from.nodes[&node].left, [session], "her client is not to think that its connection is closed");
    assert!(from.served(&bob).is_empty());
    assert_eq!(from.ask(Request::GetParticipant("ada".into())).unwrap_err().code, Code::NotFound);

    // For the others she has come, with what she publishes.
    assert_eq!(to.client(&cat).roster[&me.sid].tracks[0].sid, hers.as_str());
    assert_eq!(to.served(&cat), std::slice::from_ref(&hers));
    let Ok(Answer::Participant(shown)) = to.ask(Request::GetParticipant("ada".into())) else { panic!("not there") };
    assert_eq!(*shown, me);
    assert_eq!(to.directory.last().unwrap().as_ref().unwrap().participants, 2);

    // She comes on a new socket. Some SDKs name who they were.
    let again = to.resume_as(before, &Who::named("ada"));
    let inbox = to.inbox(&again);
    assert_eq!(names(&inbox)[0], "reconnect");
    let (node, session) = to.find_session(&me.sid).unwrap();
    assert_eq!(session.generation, Generation(2), "another certificate than that of the session before");
    let there = to.nodes[&node].sessions[&session].clone();
    let established = there.established.unwrap();
    assert!(established.subscribed.is_empty(), "nothing of the other room");
    assert_eq!(established.carried, ["3"]);
    let published: Vec<&TrackSid> = established.published.iter().map(|known| &known.track).collect();
    assert!(published.contains(&&hers) && there.tracks.contains(&video), "{published:?}");
    assert_eq!(there.served.keys().collect::<Vec<_>>(), [&theirs]);
    to.client(&again).sid.clone_from(&me.sid);
    to.media(&again, MediaState::Connected);
    assert_eq!(to.app_server.news(), ["participant_joined", "track_published"]);
    to.pass(MOVE_LIMIT_MS);
    assert!(!to.client(&again).closed);
}

#[test]
fn it_comes_back_as_it_went() {
    let (mut from, mut to, ada, bob, _cat) = rooms();
    let track = from.publish(&ada, "m");
    let first = from.client(&ada).resuming();
    let (moved, _) = transfer(&mut from, &mut to, "ada");
    let there = to.resume_as(first, &Who::named("ada"));
    to.client(&there).sid = moved.participant.unwrap().sid;
    to.media(&there, MediaState::Connected);
    let second = to.client(&there).resuming();
    let (moved, _) = transfer(&mut to, &mut from, "ada");
    let here = from.resume_as(second, &Who::named("ada"));
    from.client(&here).sid = moved.participant.unwrap().sid;
    from.media(&here, MediaState::Connected);
    assert_eq!(from.served(&bob), [track]);
    let (_, session) = from.session_of(&here);
    assert_eq!(session.generation, Generation(3));
}

#[test]
fn one_who_does_not_arrive_is_given_up() {
    let (mut from, mut to, ada, _bob, cat) = rooms();
    let track = from.publish(&ada, "m");
    let create = proto::CreateRoomRequest { name: "r".into(), departure_timeout: 1, ..Default::default() };
    let mut brief = World::another();
    brief.ask(Request::Create(Box::new(create))).unwrap();
    let leaving = hand_over(&mut from, "ada").unwrap();
    take_in(&mut brief, &leaving).unwrap();
    brief.pass(MOVE_RESUME_MS - 1);
    assert!(brief.ask(Request::GetParticipant("ada".into())).is_ok(), "she may be on her way");
    brief.pass(1);
    assert!(brief.ask(Request::GetParticipant("ada".into())).is_err());

    take_in(&mut to, &leaving).unwrap();
    to.pass(60_000);
    assert!(to.served(&cat).is_empty() && to.client(&cat).roster.len() == 1);
    let news = to.app_server.news();
    assert_eq!(news.last().map(String::as_str), Some("participant_connection_aborted"), "{news:?}");
    assert_eq!(from.served(&_bob), [track], "nothing has changed where she is");
}

#[test]
fn who_left_meanwhile_is_sent_back() {
    let (mut from, mut to, ada, _bob, cat) = rooms();
    let leaving = hand_over(&mut from, "ada").unwrap();
    let welcome = take_in(&mut to, &leaving).unwrap();
    let again = from.resume(&ada, &Who::named("ada"));
    assert_eq!(from.transferred(&leaving, &welcome).unwrap_err().code, Code::FailedPrecondition);
    assert!(from.moved.is_empty() && !from.client(&again).closed, "on this socket she has not been told");
    assert_eq!(to.ask(Request::SendBack(leaving.participant().clone())), Ok(Answer::Done));
    assert_eq!(to.client(&cat).roster.len(), 1);
    assert!(to.ask(Request::GetParticipant("ada".into())).is_err());
}

#[test]
fn an_answer_that_was_lost_is_given_again() {
    let (mut from, mut to, _ada, _bob, _cat) = rooms();
    // The first room died before it knew that she was taken in.
    take_in(&mut to, &hand_over(&mut from, "ada").unwrap()).unwrap();
    transfer(&mut from, &mut to, "ada");
    let Ok(Answer::Participants(all)) = to.ask(Request::ListParticipants) else { panic!("no list") };
    assert_eq!(all.len(), 2);
    // Its answer was lost.
    assert_eq!(from.ask(Request::Transfer("ada".into(), elsewhere())), Ok(Answer::Done));
    let other = RoomName::try_from("other").unwrap();
    assert_eq!(from.ask(Request::Transfer("ada".into(), other)).unwrap_err().code, Code::NotFound);
}

#[test]
fn who_cannot_go_stays() {
    let (mut from, mut to, ada, bob, _cat) = rooms();
    assert_eq!(hand_over(&mut from, "eve").unwrap_err().code, Code::NotFound);
    let eve = from.join(&Who::named("eve"));
    assert_eq!(hand_over(&mut from, "eve").unwrap_err().code, Code::FailedPrecondition, "not connected yet");
    from.media(&eve, MediaState::Connected);
    from.cut(&eve);
    assert_eq!(hand_over(&mut from, "eve").unwrap_err().code, Code::FailedPrecondition, "her socket is gone");

    let mut small = World::another();
    let create = proto::CreateRoomRequest { name: "r".into(), max_participants: 1, ..Default::default() };
    small.ask(Request::Create(Box::new(create))).unwrap();
    small.join_active(&Who::named("dan"));
    let leaving = hand_over(&mut from, "ada").unwrap();
    let full = take_in(&mut small, &leaving).unwrap_err();
    assert_eq!((full.code, full.text.as_str()), (Code::FailedPrecondition, "room is full"));
    assert!(!from.client(&ada).closed && from.ask(Request::GetParticipant("ada".into())).is_ok());

    // One of this name who is there makes place, as for one who joins.
    let namesake = to.join_active(&Who::named("bob"));
    transfer(&mut from, &mut to, "bob");
    assert_eq!(to.client(&namesake).leave().unwrap().reason(), DisconnectReason::DuplicateIdentity);
    assert!(from.client(&bob).closed);
}

#[test]
fn a_room_that_is_not_there_is_made() {
    let (mut from, _to, ada, ..) = rooms();
    let mut empty = World::another();
    let before = from.client(&ada).resuming();
    let (moved, _) = transfer(&mut from, &mut empty, "ada");
    assert_eq!(empty.app_server.news(), ["room_started"]);
    let again = empty.resume_as(before, &Who::named("ada"));
    empty.client(&again).sid = moved.participant.unwrap().sid;
    // It has no node yet.
    assert_eq!(empty.asked_fleet.len(), 1);
    empty.step(Event::Placed { node: Some(placed(node_id(1))) });
    empty.link(&node_id(1));
    empty.media(&again, MediaState::Connected);
    assert_eq!(empty.app_server.news(), ["participant_joined"]);
    let (node, session) = empty.session_of(&again);
    empty.node_says(&node, NodeToRoom::SectionsNeeded { session, audios: 0, videos: 0 });
    assert_eq!(names(&empty.inbox(&again)).last().copied(), Some("media_sections_requirement"));
}
