//! What app servers ask of a room.

use edge_signal::room::service::{Answer, Code, Error, Request};
use livekit_protocol as proto;
use livekit_protocol::participant_info::State;
use livekit_protocol::request_response::Reason;
use livekit_protocol::signal_request::Message as Asked;
use livekit_protocol::signal_response::Message;
use livekit_protocol::{DisconnectReason, leave_request::Action};
use shared::ids::Identity;

use crate::world::{START, Who, World, microphone, names};

fn identity(identity: &str) -> proto::RoomParticipantIdentity {
    proto::RoomParticipantIdentity { identity: identity.into(), ..Default::default() }
}

fn update(identity: &str) -> proto::UpdateParticipantRequest {
    proto::UpdateParticipantRequest { identity: identity.into(), ..Default::default() }
}

fn permission() -> proto::ParticipantPermission {
    proto::ParticipantPermission {
        can_publish: true,
        can_subscribe: true,
        can_publish_data: true,
        ..Default::default()
    }
}

impl World {
    fn permit(&mut self, who: &str, change: impl FnOnce(&mut proto::ParticipantPermission)) -> proto::ParticipantInfo {
        let mut permission = permission();
        change(&mut permission);
        let request = proto::UpdateParticipantRequest { permission: Some(permission), ..update(who) };
        match self.ask(Request::UpdateParticipant(Box::new(request))) {
            Ok(Answer::Participant(info)) => *info,
            other => panic!("{other:?}"),
        }
    }

    fn error(&mut self, request: Request) -> (Code, String) {
        let Error { code, text, .. } = self.ask(request).unwrap_err();
        (code, text)
    }
}

#[test]
fn a_room_made_by_an_app_server_waits_for_the_first_to_join() {
    let mut world = World::new();
    let request = proto::CreateRoomRequest {
        name: "r".into(),
        empty_timeout: 60,
        departure_timeout: 5,
        max_participants: 1,
        metadata: "m".into(),
        ..Default::default()
    };
    let Ok(Answer::Room(room)) = world.ask(Request::Create(Box::new(request.clone()))) else { panic!() };
    assert_eq!((room.empty_timeout, room.departure_timeout, room.max_participants), (60, 5, 1));
    assert_eq!((room.metadata.as_str(), room.num_participants), ("m", 0));
    assert_eq!(world.directory.len(), 1);
    let again = proto::CreateRoomRequest { metadata: "other".into(), max_participants: 9, ..request };
    assert_eq!(world.ask(Request::Create(Box::new(again))), Ok(Answer::Room(room)), "one that exists stays as it is");
    world.pass(59_000);
    assert!(!world.room.is_over());
    let ada = world.join_active(&Who::named("ada"));
    assert!(world.try_join(&Who::named("bob")).is_err(), "full");
    world.pass(600_000);
    world.say(&ada, Asked::Leave(proto::LeaveRequest::default()));
    world.pass(4_000);
    assert!(!world.room.is_over());
    world.pass(1_000);
    assert!(world.room.is_over(), "the departure timeout now");
}

#[test]
fn a_room_that_nobody_ever_joins_ends_after_the_empty_timeout() {
    let mut world = World::new();
    world.ask(Request::Create(Box::default())).unwrap();
    world.pass(299_000);
    assert!(!world.room.is_over());
    world.pass(1_000);
    assert!(world.room.is_over());
}

#[test]
fn a_deleted_room_sends_everyone_away() {
    let mut world = World::new();
    let (ada, bob) = (world.join_active(&Who::named("ada")), world.join_active(&Who::named("bob")));
    assert_eq!(world.ask(Request::Delete), Ok(Answer::Done));
    for client in [ada, bob] {
        let leave = world.client(&client).leave().unwrap();
        assert_eq!((leave.reason(), leave.action()), (DisconnectReason::RoomDeleted, Action::Disconnect));
    }
    assert!(world.room.is_over());
    assert_eq!(world.directory.last(), Some(&None));
}

#[test]
fn what_is_not_there_is_not_found() {
    let mut world = World::new();
    let no_room = (Code::NotFound, "requested room does not exist".to_owned());
    let nobody = (Code::NotFound, "participant does not exist".to_owned());
    assert_eq!(world.error(Request::Delete), no_room);
    assert_eq!(world.error(Request::UpdateMetadata("m".into())), no_room);
    assert_eq!(world.ask(Request::ListParticipants), Ok(Answer::Participants(Vec::new())));
    assert_eq!(world.error(Request::GetParticipant("ada".into())), nobody);
    assert_eq!(world.room.deadline(), None, "nothing was created");
    world.join_active(&Who::named("ada"));
    for identity in ["bob", "", "PA_ada"] {
        assert_eq!(world.error(Request::RemoveParticipant(self::identity(identity))), nobody);
        assert_eq!(world.error(Request::UpdateParticipant(Box::new(update(identity)))), nobody);
    }
    let mute = |track_sid: &str| {
        Request::MuteTrack(proto::MuteRoomTrackRequest {
            identity: "ada".into(),
            track_sid: track_sid.into(),
            muted: true,
            ..Default::default()
        })
    };
    assert_eq!(world.error(mute("TR_AMunknown")), (Code::NotFound, "track does not exist".to_owned()));
}

#[test]
fn everyone_is_listed_the_hidden_too() {
    let mut world = World::new();
    world.join_active(&Who::named("ada"));
    world.join_active(&Who::named("spy").grant(|grant| grant.hidden = true));
    let Ok(Answer::Participants(all)) = world.ask(Request::ListParticipants) else { panic!() };
    let mut identities: Vec<_> = all.iter().map(|info| info.identity.as_str()).collect();
    identities.sort_unstable();
    assert_eq!(identities, ["ada", "spy"]);
    let Ok(Answer::Participant(ada)) = world.ask(Request::GetParticipant("ada".into())) else { panic!() };
    assert_eq!(ada.state(), State::Active);
}

#[test]
fn a_removed_participant_is_told_and_its_tokens_are_void() {
    let mut world = World::new();
    let (ada, bob) = (world.join_active(&Who::named("ada")), world.join_active(&Who::named("bob")));
    let sid = world.client(&ada).sid.clone();
    assert_eq!(world.ask(Request::RemoveParticipant(identity("ada"))), Ok(Answer::Done));
    let leave = world.client(&ada).leave().unwrap();
    assert_eq!((leave.reason(), leave.action()), (DisconnectReason::ParticipantRemoved, Action::Disconnect));
    assert!(!world.client(&bob).roster.contains_key(&sid));
    assert!(world.find_session(&sid).is_none());
    let ada = Identity::try_from("ada").unwrap();
    let now = START.secs();
    assert_eq!(world.revoked, [(ada.clone(), now + 1, now + 24 * 3600)]);
    world.join_active(&Who::named("ada"));
    let request = proto::RoomParticipantIdentity { revoke_token_ts: 77, ..identity("ada") };
    world.ask(Request::RemoveParticipant(request)).unwrap();
    assert_eq!(world.revoked[1].1, 77);
}

#[test]
fn a_track_muted_by_the_server_stays_muted_for_a_client_that_missed_it() {
    let mut world = World::new();
    let (ada, bob) = (world.join_active(&Who::named("ada")), world.join_active(&Who::named("bob")));
    let track = world.publish(&ada, "m");
    let mute = |muted| {
        let (identity, track_sid) = ("ada".to_owned(), track.to_string());
        Request::MuteTrack(proto::MuteRoomTrackRequest { identity, track_sid, muted, ..Default::default() })
    };
    let sid = world.client(&ada).sid.clone();
    world.look_away();
    let Ok(Answer::Track(info)) = world.ask(mute(true)) else { panic!() };
    assert!(info.muted);
    assert!(matches!(&world.inbox(&ada)[..], [Message::Mute(mute), Message::Update(_)] if mute.muted));
    assert!(world.client(&bob).roster[&sid].tracks[0].muted);
    let (node, session) = world.session_of(&ada);
    assert!(world.nodes[&node].sessions[&session].muted.contains(&track));
    let refused = (Code::FailedPrecondition, "remote unmute not enabled".to_owned());
    assert_eq!(world.error(mute(false)), refused);

    let again = world.resume(&ada, &Who::named("ada"));
    let inbox = world.inbox(&again);
    assert_eq!(names(&inbox)[..3], ["reconnect", "mute", "update"], "before it sees its own track muted");
    world.say(&again, Asked::Mute(proto::MuteTrackRequest { sid: track.to_string(), muted: true }));
    let third = world.resume(&again, &Who::named("ada"));
    assert!(!names(&world.inbox(&third)).contains(&"mute"), "it knows");
    world.say(&third, Asked::Mute(proto::MuteTrackRequest { sid: track.to_string(), muted: false }));
    assert!(!world.client(&bob).roster[&sid].tracks[0].muted, "who speaks decides to speak again");
}

#[test]
fn name_metadata_and_attributes_change_in_one_update() {
    let mut world = World::new();
    let mut who = Who::named("ada");
    who.claims.attributes = [("role".to_owned(), "guest".to_owned())].into();
    let (ada, bob) = (world.join_active(&who), world.join_active(&Who::named("bob")));
    world.look_away();
    let tokens = world.client(&ada).tokens;
    let request = proto::UpdateParticipantRequest {
        name: "Ada L".into(),
        metadata: "m".into(),
        attributes: [("role".to_owned(), String::new()), ("a".to_owned(), "1".to_owned())].into(),
        ..update("ada")
    };
    let Ok(Answer::Participant(info)) = world.ask(Request::UpdateParticipant(Box::new(request))) else { panic!() };
    assert_eq!((info.name.as_str(), info.metadata.as_str(), info.attributes.len()), ("Ada L", "m", 1));
    assert_eq!(names(&world.inbox(&ada)), ["update"]);
    assert_eq!(world.client(&ada).tokens, tokens + 1);
    assert_eq!(world.client(&bob).roster[&info.sid], *info);
    let long = |change: fn(&mut proto::UpdateParticipantRequest)| {
        let mut request = update("ada");
        change(&mut request);
        Request::UpdateParticipant(Box::new(request))
    };
    let cases = [
        (long(|r| r.name = "x".repeat(257)), "name length exceeds limits 256"),
        (long(|r| r.metadata = "x".repeat(512 * 1024 + 1)), "metadata size exceeds limits 524288"),
        (long(|r| drop(r.attributes.insert("a".into(), "x".repeat(64 * 1024)))), "attribute size exceeds limits 65536"),
    ];
    for (request, text) in cases {
        let error = world.ask(request).unwrap_err();
        assert_eq!((error.code, error.text.as_str()), (Code::InvalidArgument, text));
        assert!(text.starts_with(&error.argument.unwrap()));
    }
    assert!(names(&world.inbox(&bob)).len() == 1);
}

#[test]
fn room_metadata_reaches_everyone_at_once() {
    let mut world = World::new();
    let ada = world.join_active(&Who::named("ada"));
    world.look_away();
    let Ok(Answer::Room(room)) = world.ask(Request::UpdateMetadata("new".into())) else { panic!() };
    assert_eq!(room.metadata, "new");
    let inbox = world.inbox(&ada);
    let [Message::RoomUpdate(update)] = &inbox[..] else { panic!("{inbox:?}") };
    assert_eq!(update.room.as_ref(), Some(&*room));
    let listed = world.directory.last().unwrap().as_ref().unwrap().room.clone();
    assert_eq!(listed, Some(room), "and those who list rooms");
    assert_eq!(
        world.error(Request::UpdateMetadata("x".repeat(512 * 1024 + 1))),
        (Code::InvalidArgument, "metadata size exceeds limits 524288".to_owned())
    );
}

#[test]
fn who_may_no_longer_publish_is_unpublished() {
    let mut world = World::new();
    let (ada, bob) = (world.join_active(&Who::named("ada")), world.join_active(&Who::named("bob")));
    let microphone_sid = world.publish(&ada, "m");
    let camera = proto::AddTrackRequest {
        cid: "c".into(),
        source: proto::TrackSource::Camera.into(),
        r#type: proto::TrackType::Video.into(),
        ..Default::default()
    };
    let camera_sid = world.add_track(&ada, camera.clone()).unwrap();
    world.receive_track(&ada, &camera_sid);
    assert_eq!(world.served(&bob).len(), 2);
    world.look_away();

    let only = |p: &mut proto::ParticipantPermission| {
        p.can_publish_sources = vec![proto::TrackSource::Microphone.into()];
    };
    let info = world.permit("ada", only);
    assert_eq!(info.tracks.len(), 1);
    let inbox = world.inbox(&ada);
    assert_eq!(names(&inbox), ["update", "track_unpublished", "update"]);
    assert!(matches!(&inbox[1], Message::TrackUnpublished(gone) if gone.track_sid == camera_sid.as_str()));
    assert_eq!(world.served(&bob), [microphone_sid]);
    let (node, session) = world.session_of(&ada);
    assert!(!world.nodes[&node].sessions[&session].tracks.contains(&camera_sid), "the node no longer takes it");
    let claims = world.tokens.last().unwrap().video.clone().unwrap();
    assert_eq!((claims.can_publish, claims.can_publish_sources), (Some(true), vec!["microphone".to_owned()]));
    assert!(world.add_track(&ada, camera).is_none());
    assert!(matches!(&world.inbox(&ada)[..], [Message::RequestResponse(r)] if r.reason() == Reason::NotAllowed));

    world.permit("ada", |p| p.can_publish = false);
    assert!(world.served(&bob).is_empty());
    let grants = world.nodes[&node].sessions[&session].grants.unwrap();
    assert!(!grants.can_publish && grants.can_subscribe && grants.can_publish_data);
    assert!(world.add_track(&ada, microphone("again")).is_none());
    world.permit("ada", |_| ());
    assert!(world.add_track(&ada, microphone("again")).is_some());
}

#[test]
fn who_may_no_longer_subscribe_is_served_nothing_until_it_may_again() {
    let mut world = World::new();
    let (ada, bob) = (world.join_active(&Who::named("ada")), world.join_active(&Who::named("bob")));
    world.publish(&ada, "m");
    world.permit("bob", |p| p.can_subscribe = false);
    assert!(world.served(&bob).is_empty());
    world.publish(&ada, "n");
    assert!(world.served(&bob).is_empty());
    world.permit("bob", |_| ());
    assert_eq!(world.served(&bob).len(), 2);
}

#[test]
fn who_hides_has_left_for_the_others_until_it_shows_itself() {
    let mut world = World::new();
    let (ada, bob) = (world.join_active(&Who::named("ada")), world.join_active(&Who::named("bob")));
    world.publish(&ada, "m");
    let sid = world.client(&ada).sid.clone();
    world.permit("ada", |p| p.hidden = true);
    assert!(!world.client(&bob).roster.contains_key(&sid));
    assert!(world.served(&bob).is_empty());
    assert!(world.client(&ada).roster[&sid].permission.as_ref().unwrap().hidden);
    // Somebody who was not listening meanwhile.
    let missed = world.resume(&bob, &Who::named("bob"));
    let inbox = world.inbox(&missed);
    assert!(matches!(&inbox[1], Message::Update(gone) if gone.participants[0].sid == sid));
    world.permit("ada", |_| ());
    assert_eq!(world.client(&missed).roster[&sid].tracks.len(), 1);
    assert_eq!(world.served(&missed).len(), 1);
}

#[test]
fn the_node_hears_of_a_permission_that_changed_while_it_was_away() {
    let mut world = World::new();
    let ada = world.join_active(&Who::named("ada"));
    let (node, session) = world.session_of(&ada);
    world.unlink(&node);
    world.permit("ada", |p| p.can_publish_data = false);
    world.link(&node);
    assert!(!world.nodes[&node].sessions[&session].grants.unwrap().can_publish_data);
}

#[test]
fn a_recorder_shows_in_the_room() {
    let mut world = World::new();
    let ada = world.join_active(&Who::named("ada"));
    world.join_active(&Who::named("bob"));
    world.look_away();
    let recorder = world.join_active(&Who::named("rec").grant(|grant| grant.recorder = true));
    let recording = |world: &mut World| {
        let inbox = world.inbox(&ada);
        let updates = inbox.iter().filter_map(|message| match message {
            Message::RoomUpdate(update) => update.room.as_ref().map(|room| room.active_recording),
            _ => None,
        });
        updates.collect::<Vec<_>>()
    };
    assert_eq!(recording(&mut world), [true], "at once");
    world.say(&recorder, Asked::Leave(proto::LeaveRequest::default()));
    assert_eq!(recording(&mut world), [false]);
}

#[test]
fn an_app_server_sends_data_to_all_or_some() {
    use base64::Engine;
    use prost::Message as _;
    let mut world = World::new();
    let request = proto::SendDataRequest { data: b"hi".to_vec(), topic: Some("t".into()), ..Default::default() };
    let no_room = (Code::NotFound, "requested room does not exist".to_owned());
    assert_eq!(world.error(Request::SendData(request.clone())), no_room);
    let ada = world.join_active(&Who::named("ada"));
    let (node, _) = world.session_of(&ada);
    world.ask(Request::SendData(request.clone())).unwrap();
    let some = proto::SendDataRequest {
        kind: proto::data_packet::Kind::Lossy.into(),
        destination_identities: vec!["ada".into(), "nobody".into()],
        nonce: vec![7; 16],
        ..request.clone()
    };
    world.ask(Request::SendData(some)).unwrap();
    let ada_identity = Identity::try_from("ada").unwrap();
    let sent = &world.nodes[&node].sent;
    assert_eq!((sent[0].1, sent[0].2.len(), sent[1].1), (true, 0, false));
    assert!(sent[1].2.contains(&ada_identity));
    let packet = base64::engine::general_purpose::STANDARD.decode(&sent[1].0).unwrap();
    let packet = proto::DataPacket::decode(packet.as_slice()).unwrap();
    assert_eq!(
        (packet.sequence, packet.participant_identity.as_str(), packet.destination_identities.len()),
        (0, "", 2)
    );
    let Some(proto::data_packet::Value::User(user)) = packet.value else { panic!() };
    assert_eq!((user.payload.as_slice(), user.topic.as_deref(), user.nonce.len()), (&b"hi"[..], Some("t"), 16));

    let error = |change: fn(&mut proto::SendDataRequest), world: &mut World| {
        let mut request = request.clone();
        change(&mut request);
        world.error(Request::SendData(request)).1
    };
    let short = error(|r| r.nonce = vec![1; 3], &mut world);
    assert_eq!(short, "nonce should be 16-bytes or not present, got: 3 bytes");
    assert_eq!(error(|r| r.data = vec![0; 61_441], &mut world), "data size exceeds limits 61440");
}

#[test]
fn an_app_server_subscribes_for_a_participant() {
    let mut world = World::new();
    let (ada, bob) = (world.join_active(&Who::named("ada")), world.join_active(&Who::named("bob")));
    let track = world.publish(&ada, "m");
    let wish = |subscribe| {
        let (identity, track_sids) = ("bob".to_owned(), vec![track.to_string()]);
        let request = proto::UpdateSubscriptionsRequest { identity, track_sids, subscribe, ..Default::default() };
        Request::UpdateSubscriptions(request)
    };
    assert_eq!(world.ask(wish(false)), Ok(Answer::Done));
    assert!(world.served(&bob).is_empty());
    world.ask(wish(true)).unwrap();
    assert_eq!(world.served(&bob), [track]);
}
