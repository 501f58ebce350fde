//! Agents of LiveKit's Agents framework, unmodified: dispatched by the server API and by a room's configuration, they hear
//! and are heard, and get what is sent to them. Their workers die, and the edge does.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use livekit_protocol as proto;
use livekit_protocol::server_message::Message as Told;
use livekit_protocol::worker_message::Message as Said;
use meridian_tests::agent::AgentWorker;
use meridian_tests::app_server::AppServer;
use meridian_tests::guide;
use meridian_tests::scene::{Scene, sign};
use meridian_tests::sdk::{Mode, PATIENCE, SdkClient};
use prost::Message as _;
use serde_json::{Value, json};
use shared::claims::VideoGrant;
use tokio::process::Command;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};
use xtask::repo;

/// An agent may take long to start on a busy machine: a Python process that loads libwebrtc.
const AGENT_LIMIT: Duration = Duration::from_secs(120);

/// How long an agent that is there takes to answer at most; more is no harm: it is asked again.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);

/// Ada, who publishes, in a room of her own.
async fn ada_in(scene: &Scene) -> SdkClient {
    let ada = SdkClient::python("ada").await.unwrap();
    ada.join(scene, Mode::Single).await.unwrap();
    ada.publish().await.unwrap();
    ada
}

/// The parrot joins, says what Ada says, and sends back what she sends. Its identity.
async fn parrot_talks_to(ada: &SdkClient) -> String {
    let voice = json!({ "event": "trackSubscribed", "kind": "audio" });
    let parrot = ada.hears_within(voice, 0, AGENT_LIMIT).await.unwrap().identity.unwrap();
    assert!(parrot.starts_with("agent-AJ_"), "{parrot}");
    ada.hears_audio_of(&parrot).await.unwrap();
    ada.send_data("hello, parrot", true).await.unwrap();
    ada.hears(json!({ "event": "data", "identity": parrot, "text": "hello, parrot" })).await.unwrap();
    parrot
}

/// Ada says it until the parrot says it too: what is sent to somebody who is just coming back is lost.
async fn parrot_answers(ada: &SdkClient, parrot: &str, text: &str) {
    let deadline = tokio::time::Instant::now() + AGENT_LIMIT;
    loop {
        ada.send_data(text, true).await.unwrap();
        let answer = json!({ "event": "data", "identity": parrot, "text": text });
        match ada.hears_within(answer, 0, ANSWER_LIMIT).await {
            Ok(_) => return,
            Err(error) => assert!(tokio::time::Instant::now() < deadline, "{error:#}"),
        }
    }
}

/// The one dispatch of a name, once it is like that.
async fn dispatch_until(server: &AppServer, room: &str, name: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let deadline = tokio::time::Instant::now() + AGENT_LIMIT;
    loop {
        let all = server.call_of("AgentDispatchService", "ListDispatch", json!({ "room": room })).await.unwrap();
        let listed = all.body["agent_dispatches"].as_array().cloned().unwrap_or_default();
        let found = listed.into_iter().find(|one| one["agent_name"].as_str().unwrap_or_default() == name);
        match found.filter(|one| wanted(one)) {
            Some(dispatch) => return dispatch,
            None => assert!(tokio::time::Instant::now() < deadline, "{}", all.body),
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn job_is<'a>(status: &'a str) -> impl Fn(&Value) -> bool + 'a {
    move |dispatch| dispatch["state"]["jobs"][0]["state"]["status"].as_str().unwrap_or("JS_PENDING") == status
}

/// Runs what a guide says, for this scene; what it prints.
async fn run(command: &mut Command) -> String {
    let output = command.current_dir(repo::root()).output().await.unwrap();
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{text}{errors}");
    text.trim().to_owned()
}

fn for_scene(block: &str, scene: &Scene) -> String {
    block.replace("http://localhost:7880", scene.url()).replace("\"hello\"", &format!("\"{}\"", scene.room))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_is_dispatched_by_the_api_and_dismissed() {
    let scene = Scene::alone(1).await.unwrap();
    let server = AppServer::of(&scene).unwrap();
    let curl = for_scene(&guide::block("agents.md", "sh", "CreateDispatch").unwrap(), &scene);
    let made = run(Command::new("sh").arg("-c").arg(curl).env("TOKEN", server.token())).await;
    let made: Value = serde_json::from_str(&made).unwrap();
    assert_eq!(
        (&made["agent_name"], &made["metadata"], &made["room"]),
        (&json!("parrot"), &json!("green"), &json!(scene.room))
    );
    // It waits for its worker.
    let worker = AgentWorker::start(scene.url(), "parrot", "ROOM").unwrap();
    let ada = ada_in(&scene).await;
    let parrot = parrot_talks_to(&ada).await;

    let dispatch = dispatch_until(&server, &scene.room, "parrot", job_is("JS_RUNNING")).await;
    let state = &dispatch["state"]["jobs"][0]["state"];
    assert_eq!(state["participant_identity"], parrot.as_str());
    assert!(state["worker_id"].as_str().unwrap().starts_with("AW_"), "{state}");
    let asked = json!({ "room": scene.room, "identity": parrot });
    let seen = server.ask("GetParticipant", asked).await.unwrap();
    assert_eq!((&seen["kind"], &seen["attributes"]["lk.agent_name"]), (&json!("AGENT"), &json!("parrot")));

    let gone = json!({ "room": scene.room, "dispatchId": dispatch["id"] });
    let deleted = server.call_of("AgentDispatchService", "DeleteDispatch", gone.clone()).await.unwrap();
    assert_eq!((deleted.status, &deleted.body["id"]), (200, &dispatch["id"]));
    ada.hears(json!({ "event": "participantDisconnected", "identity": parrot })).await.unwrap();
    let again = server.call_of("AgentDispatchService", "DeleteDispatch", gone).await.unwrap();
    assert_eq!((again.status, again.body["msg"].as_str()), (404, Some("agent dispatch does not exist")));

    // The same from a server SDK.
    let lines = for_scene(&guide::block("agents.md", "js", "AgentDispatchClient").unwrap(), &scene);
    let mark = ada.mark().await.unwrap();
    run(Command::new("node").args(["--input-type=module", "--eval"]).arg(lines)).await;
    ada.hears_within(json!({ "event": "participantConnected" }), mark, AGENT_LIMIT).await.unwrap();
    drop(worker);
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_of_a_rooms_configuration_join_it() {
    let scene = Scene::alone(1).await.unwrap();
    let worker = AgentWorker::start(scene.url(), "parrot", "ROOM").unwrap();
    let lines = for_scene(&guide::block("agents.md", "js", "roomConfig").unwrap(), &scene);
    let token = run(Command::new("node").args(["--input-type=module", "--eval"]).arg(lines)).await;
    let ada = SdkClient::python("ada").await.unwrap();
    ada.join_by_token(&scene, &token, Mode::Single).await.unwrap();
    ada.publish().await.unwrap();
    parrot_talks_to(&ada).await;

    let other = Scene::on(scene.deployment.clone());
    let server = AppServer::of(&other).unwrap();
    let config = json!({ "name": other.room, "agents": [{ "agentName": "parrot" }] });
    server.ask("CreateRoom", config).await.unwrap();
    let bob = ada_in(&other).await;
    parrot_talks_to(&bob).await;
    drop(worker);
}

#[tokio::test(flavor = "multi_thread")]
async fn unnamed_agents_join_every_room_that_somebody_publishes_in() {
    let scene = Scene::alone(1).await.unwrap();
    let worker = AgentWorker::start(scene.url(), "", "PUBLISHER").unwrap();
    let ada = ada_in(&scene).await;
    // The room asked for workers before this one was there: it asks again when more happens a minute later.
    let server = AppServer::of(&scene).unwrap();
    let deadline = tokio::time::Instant::now() + AGENT_LIMIT;
    let mut rooms = Vec::new();
    let served = loop {
        assert!(tokio::time::Instant::now() < deadline, "{}", worker.last_lines());
        let next = Scene::on(scene.deployment.clone());
        let bob = ada_in(&next).await;
        let voice = json!({ "event": "trackSubscribed", "kind": "audio" });
        if bob.hears_within(voice, 0, Duration::from_secs(20)).await.is_ok() {
            break (next, bob);
        }
        rooms.push((next, bob));
    };
    parrot_talks_to(&served.1).await;
    let of_room = AppServer::of(&served.0).unwrap();
    let dispatch = dispatch_until(&of_room, &served.0.room, "", job_is("JS_RUNNING")).await;
    let job = &dispatch["state"]["jobs"][0];
    assert_eq!((&job["type"], &job["participant"]["identity"]), (&json!("JT_PUBLISHER"), &json!("ada")));
    drop((worker, server, ada));
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_of_a_dead_worker_are_another_ones_and_those_of_a_dead_edge_go_on() {
    let scene = Scene::alone(1).await.unwrap();
    let server = AppServer::of(&scene).unwrap();
    let first = AgentWorker::start(scene.url(), "parrot", "ROOM").unwrap();
    let asked = json!({ "room": scene.room, "agentName": "parrot" });
    server.call_of("AgentDispatchService", "CreateDispatch", asked).await.unwrap();
    let ada = ada_in(&scene).await;
    let parrot = parrot_talks_to(&ada).await;

    // The edge is killed, with all its sockets: the agent and its job go on.
    let before = dispatch_until(&server, &scene.room, "parrot", job_is("JS_RUNNING")).await;
    let mark = ada.mark().await.unwrap();
    scene.deployment.restart_edge().await.unwrap();
    ada.hears_within(json!({ "event": "reconnected" }), mark, PATIENCE).await.unwrap();
    parrot_answers(&ada, &parrot, "still there?").await;
    let still = dispatch_until(&server, &scene.room, "parrot", job_is("JS_RUNNING")).await;
    assert_eq!(still["state"]["jobs"][0]["id"], before["state"]["jobs"][0]["id"]);

    // The worker is killed, and its agent: another one gets a job for the same dispatch.
    let second = AgentWorker::start(scene.url(), "parrot", "ROOM").unwrap();
    let mark = ada.mark().await.unwrap();
    drop(first);
    let another = |dispatch: &Value| {
        job_is("JS_RUNNING")(dispatch) && dispatch["state"]["jobs"][0]["id"] != before["state"]["jobs"][0]["id"]
    };
    let after = dispatch_until(&server, &scene.room, "parrot", another).await;
    assert_eq!(after["id"], before["id"]);
    assert_eq!(after["state"]["jobs"].as_array().unwrap().len(), 1);
    // Who had to come anew to the new edge is subscribed to the first one once more.
    let next = format!("agent-{}", after["state"]["jobs"][0]["id"].as_str().unwrap());
    let voice = json!({ "event": "trackSubscribed", "kind": "audio", "identity": next });
    ada.hears_within(voice, mark, AGENT_LIMIT).await.unwrap();
    ada.hears_audio_of(&next).await.unwrap();
    drop(second);
}

/// A worker's socket, byte by byte.
struct Socket(tokio_tungstenite::WebSocketStream<tokio_tungstenite::MaybeTlsStream<tokio::net::TcpStream>>);

impl Socket {
    async fn open(scene: &Scene, grant: Option<VideoGrant>) -> Result<Self, Error> {
        let mut request = format!("{}/agent", scene.url().replacen("http", "ws", 1)).into_client_request()?;
        if let Some(grant) = grant {
            let mut claims = scene.claims("");
            claims.video = Some(grant);
            let token = format!("Bearer {}", sign(&claims).unwrap());
            request.headers_mut().insert("Authorization", token.parse().unwrap());
        }
        tokio_tungstenite::connect_async(request).await.map(|(socket, _)| Self(socket))
    }

    async fn say(&mut self, said: Said) {
        let message = proto::WorkerMessage { message: Some(said) };
        self.0.send(Message::Binary(message.encode_to_vec().into())).await.unwrap();
    }

    async fn hear(&mut self) -> Told {
        loop {
            match tokio::time::timeout(PATIENCE, self.0.next()).await.unwrap().unwrap().unwrap() {
                Message::Binary(bytes) => return proto::ServerMessage::decode(bytes).unwrap().message.unwrap(),
                Message::Close(frame) => panic!("closed: {frame:?}"),
                _ => {}
            }
        }
    }
}

async fn refused(scene: &Scene, grant: Option<VideoGrant>) -> (u16, String) {
    let Err(Error::Http(response)) = Socket::open(scene, grant).await else { panic!("let in") };
    (response.status().as_u16(), String::from_utf8(response.body().clone().unwrap_or_default()).unwrap())
}

/// LiveKit's own order of messages, with the fields that its server fills in.
#[tokio::test]
async fn the_worker_socket_speaks_livekits_protocol() {
    let scene = Scene::open().await.unwrap();
    let no = (401, "no permissions to access the room".to_owned());
    assert_eq!(refused(&scene, None).await, no);
    assert_eq!(refused(&scene, Some(VideoGrant { room_join: true, room: "x".into(), ..Default::default() })).await, no);

    let mut worker = Socket::open(&scene, Some(VideoGrant { agent: true, ..Default::default() })).await.unwrap();
    let name = format!("of {}", scene.room);
    let permission = proto::ParticipantPermission { can_publish: true, can_subscribe: true, ..Default::default() };
    let request = proto::RegisterWorkerRequest {
        agent_name: name.clone(),
        version: "1.0".into(),
        ping_interval: 10,
        allowed_permissions: Some(permission),
        ..Default::default()
    };
    worker.say(Said::Register(request)).await;
    let Told::Register(registered) = worker.hear().await else { panic!("not registered") };
    assert!(registered.worker_id.starts_with("AW_") && registered.server_info.unwrap().agent_protocol == 1);
    worker.say(Said::Ping(proto::WorkerPing { timestamp: 123 })).await;
    let Told::Pong(pong) = worker.hear().await else { panic!("no pong") };
    assert!(pong.last_timestamp == 123 && pong.timestamp > 1_700_000_000_000);

    let server = AppServer::of(&scene).unwrap();
    let asked = json!({ "room": scene.room, "agent_name": name, "metadata": "dm" });
    let made = server.call_of("AgentDispatchService", "CreateDispatch", asked).await.unwrap();
    assert_eq!(made.status, 200, "{made:?}");
    let Told::Availability(offer) = worker.hear().await else { panic!("no offer") };
    let job = offer.job.unwrap();
    assert_eq!((job.metadata.as_str(), job.dispatch_id.as_str()), ("dm", made.body["id"].as_str().unwrap()));
    assert_eq!(job.room.unwrap().name, scene.room);
    let answer = proto::AvailabilityResponse {
        job_id: job.id.clone(),
        available: true,
        participant_name: "Agent X".into(),
        participant_identity: "agent-x".into(),
        participant_metadata: "pm".into(),
        participant_attributes: [("q".to_owned(), "1".to_owned())].into(),
        ..Default::default()
    };
    worker.say(Said::Availability(answer)).await;
    let Told::Assignment(assignment) = worker.hear().await else { panic!("no assignment") };
    let assigned = assignment.job.unwrap();
    assert_eq!((&assigned.id, assigned.state.unwrap().participant_identity.as_str()), (&job.id, "agent-x"));
    let agent = scene.join_by_token(&assignment.token).await.unwrap();
    let seen = server.ask("GetParticipant", json!({ "room": scene.room, "identity": "agent-x" })).await.unwrap();
    assert_eq!((&seen["kind"], &seen["name"], &seen["metadata"]), (&json!("AGENT"), &json!("Agent X"), &json!("pm")));
    assert_eq!(seen["attributes"], json!({ "lk.agent_name": name, "q": "1" }));
    assert_eq!((&seen["permission"]["agent"], &seen["permission"]["can_publish_data"]), (&json!(true), &json!(false)));

    let done = proto::UpdateJobStatus { job_id: job.id.clone(), status: 2, ..Default::default() };
    worker.say(Said::UpdateJob(done)).await;
    dispatch_until(&server, &scene.room, &name, job_is("JS_SUCCESS")).await;
    drop(agent);

    // Garbage ends this socket alone.
    let mut other = Socket::open(&scene, Some(VideoGrant { agent: true, ..Default::default() })).await.unwrap();
    other.0.send(Message::Binary(vec![0xff; 8].into())).await.unwrap();
    while let Some(Ok(frame)) = other.0.next().await {
        assert!(matches!(frame, Message::Close(_)), "{frame:?}");
    }
    worker.say(Said::Ping(proto::WorkerPing { timestamp: 7 })).await;
    assert!(matches!(worker.hear().await, Told::Pong(_)));
}

/// A worker for each participant (`JT_PARTICIPANT`): one job for each who joins, none for agents.
#[tokio::test]
async fn a_worker_for_participants_gets_a_job_for_each() {
    let scene = Scene::open().await.unwrap();
    let mut worker = Socket::open(&scene, Some(VideoGrant { agent: true, ..Default::default() })).await.unwrap();
    let name = format!("valet of {}", scene.room);
    let kind = proto::JobType::JtParticipant;
    let request = proto::RegisterWorkerRequest {
        r#type: kind.into(),
        agent_name: name.clone(),
        version: "1.0".into(),
        ping_interval: 10,
        ..Default::default()
    };
    worker.say(Said::Register(request)).await;
    let Told::Register(_) = worker.hear().await else { panic!("not registered") };
    let server = AppServer::of(&scene).unwrap();
    let asked = json!({ "room": scene.room, "agent_name": name });
    let made = server.call_of("AgentDispatchService", "CreateDispatch", asked).await.unwrap();
    assert_eq!(made.status, 200, "{made:?}");
    let mut agents = Vec::new();
    let mut people = Vec::new();
    for who in ["ada", "bob"] {
        people.push(scene.join(who).await.unwrap());
        let Told::Availability(offer) = worker.hear().await else { panic!("no offer for {who}") };
        let job = offer.job.unwrap();
        assert_eq!((job.r#type(), job.participant.unwrap().identity.as_str()), (kind, who));
        let identity = format!("valet-of-{who}");
        let answer = proto::AvailabilityResponse {
            job_id: job.id.clone(),
            available: true,
            participant_identity: identity.clone(),
            ..Default::default()
        };
        worker.say(Said::Availability(answer)).await;
        let Told::Assignment(assignment) = worker.hear().await else { panic!("no assignment for {who}") };
        assert_eq!(assignment.job.unwrap().id, job.id);
        agents.push(scene.join_by_token(&assignment.token).await.unwrap());
        let seen = server.ask("GetParticipant", json!({ "room": scene.room, "identity": identity })).await.unwrap();
        assert_eq!(seen["kind"], "AGENT");
    }
    let two = |dispatch: &Value| dispatch["state"]["jobs"].as_array().is_some_and(|jobs| jobs.len() == 2);
    let dispatch = dispatch_until(&server, &scene.room, &name, two).await;
    let jobs = dispatch["state"]["jobs"].as_array().unwrap();
    assert!(jobs.iter().all(|job| job["state"]["status"] == "JS_RUNNING"), "an agent has no agent: {dispatch}");
    drop((agents, people));
}
