//! Every method of LiveKit's `RoomService` and `AgentDispatchService` answers the same in JSON and in protobuf, and refuses with the same code what is
//! not there, not granted, not readable, not of a type it knows, or too large.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use livekit_protocol as proto;
use meridian_tests::app_server::{AppServer, Format, Raw};
use meridian_tests::client::{Client, DEADLINE, Publish};
use meridian_tests::scene::Scene;
use prost::Message;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use shared::claims::VideoGrant;

/// Largest body of the server API, bytes (LiveKit's).
const MAX_BODY: usize = 10 * 1024 * 1024;
/// Where nobody is.
const NOWHERE: &str = "a room that nobody has made";
const NOBODY: &str = "eve";

/// What a method is to do to whom.
#[derive(Clone, Copy)]
struct Target<'a> {
    room: &'a str,
    identity: &'a str,
    track: &'a str,
    dispatch: &'a str,
}

/// Which grant a method wants.
#[derive(Clone, Copy, PartialEq)]
enum Wants {
    Create,
    List,
    Admin,
    /// `roomAdmin`, and the other room in `destinationRoom`.
    Destination,
}

/// What an answer is, decoded from one encoding.
type Read = fn(Format, &[u8]) -> Value;

/// A request in both encodings, and what is right.
struct Row {
    service: &'static str,
    method: &'static str,
    wants: Wants,
    protobuf: Vec<u8>,
    json: Vec<u8>,
    /// How its answer is read.
    read: Read,
    /// Answers to a room, and to an identity, that are not there; `None`: answered as any other.
    no_room: Option<&'static str>,
    nobody: Option<&'static str>,
}

impl Row {
    fn of<Q: Message + Serialize, A: Message + Default + Serialize + DeserializeOwned>(
        method: &'static str,
        wants: Wants,
        asked: &Q,
        _: A,
    ) -> Self {
        let (protobuf, json) = (asked.encode_to_vec(), serde_json::to_vec(asked).unwrap());
        let (no_room, nobody) = (None, None);
        Self { service: "RoomService", method, wants, protobuf, json, read: read::<A>, no_room, nobody }
    }

    /// A method of the other service.
    fn of_agents<Q: Message + Serialize, A: Message + Default + Serialize + DeserializeOwned>(
        method: &'static str,
        asked: &Q,
        answer: A,
    ) -> Self {
        Self { service: "AgentDispatchService", ..Self::of(method, Wants::Admin, asked, answer) }
    }

    async fn ask(&self, server: &AppServer, format: Format) -> Raw {
        self.post(server, format.content_type(), self.body(format)).await
    }

    async fn post(&self, server: &AppServer, content_type: &str, body: Vec<u8>) -> Raw {
        server.post_to(self.service, self.method, content_type, body).await.unwrap()
    }

    /// A method of a room that must be there.
    fn no_room(self) -> Self {
        Self { no_room: Some("requested room does not exist"), ..self }
    }

    /// A method of a participant that must be there.
    fn nobody(self) -> Self {
        let text = Some("participant does not exist");
        Self { no_room: text, nobody: text, ..self }
    }

    fn body(&self, format: Format) -> Vec<u8> {
        match format {
            Format::Protobuf => self.protobuf.clone(),
            Format::Json => self.json.clone(),
        }
    }
}

fn read<A: Message + Default + Serialize + DeserializeOwned>(format: Format, body: &[u8]) -> Value {
    let answer: A = match format {
        Format::Protobuf => A::decode(body).unwrap(),
        Format::Json => serde_json::from_slice(body).unwrap(),
    };
    let mut value = serde_json::to_value(&answer).unwrap();
    // A change counts it up, and is made once in each encoding.
    value.as_object_mut().unwrap().remove("version");
    value
}

/// Every method. Those that end something come last.
fn rows(target: Target<'_>) -> Vec<Row> {
    let (room, identity, track) = (target.room.to_owned(), target.identity.to_owned(), target.track.to_owned());
    let who =
        || proto::RoomParticipantIdentity { room: room.clone(), identity: identity.clone(), ..Default::default() };
    vec![
        Row::of(
            "CreateRoom",
            Wants::Create,
            &proto::CreateRoomRequest { name: room.clone(), max_participants: 7, ..Default::default() },
            proto::Room::default(),
        ),
        Row::of(
            "ListRooms",
            Wants::List,
            &proto::ListRoomsRequest { names: vec![room.clone()] },
            proto::ListRoomsResponse::default(),
        ),
        Row::of(
            "ListParticipants",
            Wants::Admin,
            &proto::ListParticipantsRequest { room: room.clone() },
            proto::ListParticipantsResponse::default(),
        ),
        Row::of("GetParticipant", Wants::Admin, &who(), proto::ParticipantInfo::default()).nobody(),
        Row::of(
            "UpdateParticipant",
            Wants::Admin,
            &proto::UpdateParticipantRequest {
                room: room.clone(),
                identity: identity.clone(),
                metadata: "m".into(),
                name: "Ada L.".into(),
                attributes: [("mood".to_owned(), "good".to_owned())].into(),
                permission: Some(proto::ParticipantPermission {
                    can_publish: true,
                    can_subscribe: true,
                    can_publish_sources: vec![proto::TrackSource::Microphone.into()],
                    ..Default::default()
                }),
            },
            proto::ParticipantInfo::default(),
        )
        .nobody(),
        Row::of(
            "MutePublishedTrack",
            Wants::Admin,
            &proto::MuteRoomTrackRequest {
                room: room.clone(),
                identity: identity.clone(),
                track_sid: track.clone(),
                muted: true,
            },
            proto::MuteRoomTrackResponse::default(),
        )
        .nobody(),
        Row::of(
            "UpdateSubscriptions",
            Wants::Admin,
            &proto::UpdateSubscriptionsRequest {
                room: room.clone(),
                identity: identity.clone(),
                track_sids: vec![track],
                subscribe: false,
                participant_tracks: Vec::new(),
            },
            proto::UpdateSubscriptionsResponse::default(),
        )
        .nobody(),
        Row::of(
            "SendData",
            Wants::Admin,
            &proto::SendDataRequest {
                room: room.clone(),
                data: b"\0\xff".to_vec(),
                nonce: vec![7; 16],
                topic: Some("t".into()),
                ..Default::default()
            },
            proto::SendDataResponse::default(),
        )
        .no_room(),
        Row::of(
            "UpdateRoomMetadata",
            Wants::Admin,
            &proto::UpdateRoomMetadataRequest { room: room.clone(), metadata: "n".into() },
            proto::Room::default(),
        )
        .no_room(),
        Row::of(
            "ForwardParticipant",
            Wants::Destination,
            &proto::ForwardParticipantRequest {
                room: room.clone(),
                identity: identity.clone(),
                destination_room: ELSEWHERE.to_owned(),
            },
            proto::ForwardParticipantResponse::default(),
        )
        .nobody(),
        Row::of(
            "MoveParticipant",
            Wants::Destination,
            &proto::MoveParticipantRequest {
                room: room.clone(),
                identity: identity.clone(),
                destination_room: ELSEWHERE.to_owned(),
            },
            proto::MoveParticipantResponse::default(),
        )
        .nobody(),
        Row::of(
            "PerformRpc",
            Wants::Admin,
            &proto::PerformRpcRequest {
                room: room.clone(),
                destination_identity: identity.clone(),
                method: "echo".into(),
                ..Default::default()
            },
            proto::PerformRpcResponse::default(),
        )
        .nobody(),
        Row::of_agents(
            "CreateDispatch",
            &proto::CreateAgentDispatchRequest {
                room: room.clone(),
                agent_name: "parrot".into(),
                metadata: "green".into(),
                ..Default::default()
            },
            proto::AgentDispatch::default(),
        ),
        Row::of_agents(
            "ListDispatch",
            &proto::ListAgentDispatchRequest { room: room.clone(), ..Default::default() },
            proto::ListAgentDispatchResponse::default(),
        ),
        Row {
            no_room: Some("agent dispatch does not exist"),
            ..Row::of_agents(
                "DeleteDispatch",
                &proto::DeleteAgentDispatchRequest { room: room.clone(), dispatch_id: target.dispatch.to_owned() },
                proto::AgentDispatch::default(),
            )
        },
        Row::of("RemoveParticipant", Wants::Admin, &who(), proto::RemoveParticipantResponse::default()).nobody(),
        Row::of(
            "DeleteRoom",
            Wants::Create,
            &proto::DeleteRoomRequest { room: room.clone() },
            proto::DeleteRoomResponse::default(),
        )
        .no_room(),
    ]
}

/// Where participants may be taken.
const ELSEWHERE: &str = "elsewhere";

fn granted(wants: Wants, room: &str) -> VideoGrant {
    let none = VideoGrant::default();
    match wants {
        Wants::Create => VideoGrant { room_create: true, ..none },
        Wants::List => VideoGrant { room_list: true, ..none },
        Wants::Admin => VideoGrant { room_admin: true, room: room.to_owned(), ..none },
        Wants::Destination => {
            VideoGrant { room_admin: true, room: room.to_owned(), destination_room: ELSEWHERE.to_owned(), ..none }
        }
    }
}

/// The Twirp error of an answer that must be one: status, code and text.
fn error(answer: &Raw, why: &str) -> (u16, String, String) {
    // The Node SDK compares the string.
    assert_eq!(answer.content_type, "application/json", "{why}: {answer:?}");
    let body: Value = serde_json::from_slice(&answer.body).unwrap();
    let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
    (answer.status, text("code"), text("msg"))
}

fn is(status: u16, code: &str, text: &str) -> (u16, String, String) {
    (status, code.to_owned(), text.to_owned())
}

/// The room is listed as it will stay for a while: directories are told a little later.
async fn settled(scene: &Scene, server: &AppServer) {
    let deadline = tokio::time::Instant::now() + DEADLINE;
    loop {
        let rooms = server.ask("ListRooms", json!({ "names": [scene.room] })).await.unwrap();
        let all = server.ask("ListParticipants", json!({ "room": scene.room })).await.unwrap();
        let are_active = all["participants"].as_array().unwrap().iter().all(|one| one["state"] == "ACTIVE");
        if rooms["rooms"][0]["num_participants"] == 5 && rooms["rooms"][0]["num_publishers"] == 1 && are_active {
            return;
        }
        assert!(tokio::time::Instant::now() < deadline, "{rooms}");
    }
}

#[tokio::test]
async fn what_a_method_answers() {
    let scene = Scene::open().await.unwrap();
    let mut ada = scene.join_publishing("ada", vec![Publish::muted_microphone("microphone")]).await.unwrap();
    let track = ada.until("a track", |o| o.published.values().next().map(|track| track.sid.clone())).await.unwrap();
    let (bob, eve) = (scene.join("bob").await.unwrap(), scene.join(NOBODY).await.unwrap());
    let (sam, ida) = (scene.join("sam").await.unwrap(), scene.join("ida").await.unwrap());
    settled(&scene, &AppServer::of(&scene).unwrap()).await;
    let last = [format!("{}-p", scene.room), format!("{}-j", scene.room)];
    for room in &last {
        let create = AppServer::granted(&scene, granted(Wants::Create, "")).unwrap();
        create.ask("CreateRoom", json!({ "name": room })).await.unwrap();
    }

    let mut dispatches = Vec::new();
    for _ in &last {
        let dispatch = json!({ "room": scene.room, "agentName": "owl" });
        let made = AppServer::of(&scene).unwrap().call_of("AgentDispatchService", "CreateDispatch", dispatch).await;
        dispatches.push(made.unwrap().body["id"].as_str().unwrap().to_owned());
    }

    let ada_there = Target { room: &scene.room, identity: "ada", track: &track, dispatch: "" };
    let mut seen = 0;
    // The answer of a call is a participant's: tests/compat has one.
    for row in rows(ada_there).into_iter().filter(|row| row.method != "PerformRpc") {
        // What can be done once is done to one in protobuf and to another in JSON.
        let twins = match row.method {
            "MoveParticipant" => ["sam", "ida"].map(|identity| Target { identity, ..ada_there }),
            "RemoveParticipant" => ["bob", NOBODY].map(|identity| Target { identity, ..ada_there }),
            "DeleteRoom" => [&last[0], &last[1]].map(|room| Target { room, ..ada_there }),
            "DeleteDispatch" => [&dispatches[0], &dispatches[1]].map(|dispatch| Target { dispatch, ..ada_there }),
            _ => [ada_there; 2],
        };
        let mut answers = Vec::new();
        for (format, target) in [Format::Protobuf, Format::Json].into_iter().zip(twins) {
            let row = rows(target).into_iter().find(|one| one.method == row.method).unwrap();
            let server = AppServer::granted(&scene, granted(row.wants, target.room)).unwrap();
            let answer = row.ask(&server, format).await;
            let said = String::from_utf8_lossy(&answer.body).into_owned();
            assert_eq!((answer.status, &*answer.content_type), (200, format.content_type()), "{}: {said}", row.method);
            if format == Format::Json {
                written_as_livekit_does(row.method, &serde_json::from_slice(&answer.body).unwrap());
            }
            let mut answer = (row.read)(format, &answer.body);
            if ["CreateDispatch", "DeleteDispatch"].contains(&row.method) {
                // Each is one of its own.
                let own = ["id", "state"].map(|name| answer.as_object_mut().unwrap().remove(name));
                assert!(own.iter().all(Option::is_some), "{said}");
            }
            answers.push(answer);
        }
        assert_eq!(answers[0], answers[1], "{}", row.method);
        let says_something = answers[0].as_object().is_some_and(|fields| !fields.is_empty());
        let is_done = matches!(
            row.method,
            "UpdateSubscriptions"
                | "SendData"
                | "ForwardParticipant"
                | "MoveParticipant"
                | "RemoveParticipant"
                | "DeleteRoom"
        );
        assert_eq!(says_something, !is_done, "{}: {}", row.method, answers[0]);
        seen += 1;
    }
    assert_eq!(seen, 16);
    left(vec![bob, eve]).await;
    drop((sam, ida));
    drop(ada);
}

/// Names as in the protocol, and what is not set written out.
fn written_as_livekit_does(method: &str, answer: &Value) {
    let fields = match method {
        "CreateRoom" | "UpdateRoomMetadata" => answer,
        "ListRooms" => &answer["rooms"][0],
        "GetParticipant" | "UpdateParticipant" => answer,
        "ListParticipants" => &answer["participants"][0],
        "MutePublishedTrack" => &answer["track"],
        "CreateDispatch" | "DeleteDispatch" => answer,
        "ListDispatch" => &answer["agent_dispatches"][0],
        _ => return assert_eq!(*answer, json!({}), "{method}"),
    };
    let unset = match method {
        "CreateRoom" | "UpdateRoomMetadata" | "ListRooms" => ("active_recording", json!(false)),
        "MutePublishedTrack" => ("packet_trailer_features", json!([])),
        "CreateDispatch" | "DeleteDispatch" | "ListDispatch" => ("deployment", json!("")),
        _ => ("disconnect_reason", json!("UNKNOWN_REASON")),
    };
    assert_eq!(fields.get(unset.0), Some(&unset.1), "{method}: {answer}");
    let names = fields.as_object().unwrap().keys();
    assert!(names.into_iter().all(|name| !name.contains(char::is_uppercase)), "{method}: {answer}");
}

/// They were removed.
async fn left(clients: Vec<Client>) {
    for mut client in clients {
        client.until("leave", |o| o.leave.clone()).await.unwrap();
    }
}

#[tokio::test]
async fn whom_a_method_does_not_find() {
    let scene = Scene::open().await.unwrap();
    let ada = scene.join("ada").await.unwrap();
    let track = "TR_AMnobodysTrack";
    for (room, identity) in [(NOWHERE, "ada"), (&*scene.room, NOBODY)] {
        for row in rows(Target { room, identity, track, dispatch: "AD_nobodys" }) {
            let expected = if room == NOWHERE { row.no_room } else { row.nobody };
            // What makes a room makes it, and what is done to another one is another test's.
            let skipped =
                ["CreateRoom", "CreateDispatch"].contains(&row.method) || room != NOWHERE && row.nobody.is_none();
            for format in [Format::Protobuf, Format::Json].into_iter().filter(|_| !skipped) {
                let why = format!("{} of {identity} in {room}, {format:?}", row.method);
                let server = AppServer::granted(&scene, granted(row.wants, room)).unwrap();
                let answer = row.ask(&server, format).await;
                match expected {
                    Some(text) => assert_eq!(error(&answer, &why), is(404, "not_found", text), "{why}"),
                    // Lists of nothing.
                    None => {
                        let list = (answer.status, (row.read)(format, &answer.body));
                        assert_eq!(list, (200, json!({})), "{why}");
                    }
                }
            }
        }
    }
    let here = Target { room: &scene.room, identity: "ada", track, dispatch: "" };
    let mute = rows(here).into_iter().find(|row| row.method == "MutePublishedTrack").unwrap();
    for format in [Format::Protobuf, Format::Json] {
        let server = AppServer::of(&scene).unwrap();
        let answer = mute.ask(&server, format).await;
        assert_eq!(error(&answer, "no track"), is(404, "not_found", "track does not exist"));
    }
    drop(ada);
}

#[tokio::test]
async fn what_a_method_refuses() {
    let scene = Scene::open().await.unwrap();
    let target = Target { room: &scene.room, identity: "ada", track: "TR_AMnobodysTrack", dispatch: "AD_nobodys" };
    let denied = is(401, "unauthenticated", "permissions denied");
    for row in rows(target) {
        let method = row.method;
        let right = AppServer::granted(&scene, granted(row.wants, &scene.room)).unwrap();
        for format in [Format::Protobuf, Format::Json] {
            let (content_type, body) = (format.content_type(), row.body(format));
            let nobody = row.post(&AppServer::nobody(&scene), content_type, body.clone()).await;
            assert_eq!(error(&nobody, method), denied, "{method} without a token");
            let join = VideoGrant { room_join: true, room: scene.room.clone(), ..VideoGrant::default() };
            let mut wrong: Vec<VideoGrant> = [Wants::Create, Wants::List, Wants::Admin]
                .into_iter()
                .filter(|wants| *wants != row.wants)
                .map(|wants| granted(wants, &scene.room))
                .chain([VideoGrant::default(), join])
                .collect();
            // What concerns one room wants a grant for that very room; the others look at no room.
            if matches!(row.wants, Wants::Admin | Wants::Destination) {
                wrong.extend([granted(row.wants, "another"), granted(row.wants, "")]);
            }
            for grant in wrong {
                let server = AppServer::granted(&scene, grant.clone()).unwrap();
                let answer = row.post(&server, content_type, body.clone()).await;
                assert_eq!(error(&answer, method), denied, "{method} with {grant:?}");
            }

            let unreadable: &[&[u8]] = match format {
                Format::Protobuf => &[b"\xff", b"\x0a\x7f"],
                Format::Json => &[b"", b"{", b"[]", b"null", b"\xff"],
            };
            let name = if format == Format::Json { "json" } else { "protobuf" };
            let malformed = is(400, "malformed", &format!("the {name} request could not be decoded"));
            for body in unreadable {
                let answer = row.post(&right, content_type, body.to_vec()).await;
                assert_eq!(error(&answer, method), malformed, "{method}: {body:?}");
            }

            let too_large = vec![b' '; MAX_BODY + 1];
            let answer = row.post(&right, content_type, too_large).await;
            assert_eq!(error(&answer, method), is(413, "resource_exhausted", "request body too large"), "{method}");
        }
        for content_type in ["text/plain", "application/x-www-form-urlencoded", ""] {
            let answer = row.post(&right, content_type, row.body(Format::Json)).await;
            let text = format!("unexpected Content-Type: {content_type:?}");
            assert_eq!(error(&answer, method), is(404, "bad_route", &text), "{method}");
        }
    }
    let answer = AppServer::of(&scene).unwrap().post("Fly", "application/protobuf", Vec::new()).await.unwrap();
    let text = "no handler for path \"/twirp/livekit.RoomService/Fly\"";
    assert_eq!(error(&answer, "no method"), is(404, "bad_route", text));
}
