//! Agents a room wants: dispatches, the jobs that follow from them, and how those fare.

use edge_signal::agents::link::{Ending, JobKind, Standing, Wishes};
use edge_signal::room::job::{AGENT_RETURN_MS, MAX_ATTEMPTS};
use edge_signal::room::service::{Answer, Code, Request};
use livekit_protocol as proto;
use livekit_protocol::signal_request::Message as Asked;
use livekit_protocol::{JobRestartPolicy, JobStatus, JobType};
use shared::ids::{Identity, WorkerId};

use crate::world::{Who, World};

const ROOM: &[(&str, JobKind)] = &[("", JobKind::Room), ("scribe", JobKind::Room)];

fn dispatch(world: &mut World, request: proto::CreateAgentDispatchRequest) -> proto::AgentDispatch {
    match world.ask(Request::CreateDispatch(Box::new(request))) {
        Ok(Answer::Dispatch(dispatch)) => *dispatch,
        other => panic!("{other:?}"),
    }
}

fn scribe() -> proto::CreateAgentDispatchRequest {
    proto::CreateAgentDispatchRequest { agent_name: "scribe".into(), metadata: "m".into(), ..Default::default() }
}

fn dispatches(world: &mut World) -> Vec<proto::AgentDispatch> {
    match world.ask(Request::ListDispatch(String::new())) {
        Ok(Answer::Dispatches(all)) => all,
        other => panic!("{other:?}"),
    }
}

/// The jobs of all dispatches.
fn jobs(world: &mut World) -> Vec<proto::Job> {
    dispatches(world).into_iter().flat_map(|dispatch| dispatch.state.unwrap().jobs).collect()
}

fn status(world: &mut World) -> JobStatus {
    jobs(world)[0].state.as_ref().unwrap().status()
}

fn launched(wishes: Option<Wishes>) -> Vec<proto::Job> {
    wishes.map(|wishes| wishes.launch).unwrap_or_default()
}

fn running(identity: &str) -> Standing {
    Standing::Running { worker: WorkerId::from_random([7; 12]), identity: Identity::try_from(identity).unwrap() }
}

/// A room of ada's whose scribe has its job from a worker.
fn with_scribe(request: proto::CreateAgentDispatchRequest) -> (World, String) {
    let mut world = World::new();
    world.join_active(&Who::named("ada"));
    dispatch(&mut world, request);
    world.grant(&ROOM[1..]);
    let job = launched(world.grant(&ROOM[1..])).remove(0).id;
    world.job_stands(&job, running("scribe-1"));
    (world, job)
}

fn agent(identity: &str) -> Who {
    let mut who = Who::named(identity).grant(|grant| grant.agent = true);
    who.claims.kind = "agent".into();
    who
}

#[test]
fn every_room_has_the_automatic_dispatch() {
    let mut world = World::new();
    world.join_active(&Who::named("ada"));
    let all = dispatches(&mut world);
    assert_eq!(all.len(), 1);
    assert_eq!((all[0].agent_name.as_str(), all[0].room.as_str()), ("", "r"));
    assert!(all[0].state.as_ref().unwrap().jobs.is_empty(), "nobody has said that there is a worker");
    let asked = world.grant(ROOM).unwrap();
    assert!(asked.automatic && asked.launch.is_empty() && asked.watch.is_none());
    let wanted = launched(world.grant(ROOM)).remove(0);
    assert_eq!(
        (wanted.r#type(), wanted.dispatch_id, wanted.room.unwrap().name),
        (JobType::JtRoom, all[0].id.clone(), "r".into())
    );
    assert!(world.room.wishes().is_none(), "told once");
    assert_eq!(status(&mut world), JobStatus::JsPending);
}

#[test]
fn a_room_without_agents_asks_once_a_minute_at_most() {
    let mut world = World::new();
    let ada = world.join_active(&Who::named("ada"));
    assert!(world.grant(&[]).unwrap().automatic);
    world.join_active(&Who::named("bob"));
    world.publish(&ada, "m");
    assert!(world.room.wishes().is_none());
    world.pass(60_000);
    assert!(world.room.wishes().is_none(), "nothing happened that an agent is for");
    world.join_active(&Who::named("eve"));
    assert!(world.grant(&[]).unwrap().automatic);
}

#[test]
fn a_dispatch_waits_for_its_workers() {
    let mut world = World::new();
    let made = dispatch(&mut world, scribe());
    assert_eq!(world.app_server.news(), ["room_started"], "it makes the room");
    assert_eq!((made.agent_name.as_str(), made.metadata.as_str(), made.room.as_str()), ("scribe", "m", "r"));
    assert!(made.id.starts_with("AD_") && made.state.unwrap().created_at > 0);
    let asked = world.grant(&[]).unwrap();
    assert_eq!(asked.watch.unwrap().into_iter().map(String::from).collect::<Vec<_>>(), ["scribe"]);
    assert!(world.room.wishes().is_none() && jobs(&mut world).is_empty());
    let served = [("scribe".try_into().unwrap(), [JobKind::Room].into())].into();
    let (room, sid) = (world.room.name().clone(), world.room.sid().clone());
    let news = edge_signal::agents::link::News { room, sid, served: Some(served), jobs: Default::default() };
    world.step(edge_signal::room::event::Event::AgentsNews(Box::new(news)));
    let wanted = launched(world.grant(&[]));
    assert_eq!((wanted.len(), wanted[0].metadata.as_str(), wanted[0].agent_name.as_str()), (1, "m", "scribe"));
}

#[test]
fn configurations_bring_agents() {
    let agents = vec![proto::RoomAgentDispatch { agent_name: "scribe".into(), ..Default::default() }];
    let mut world = World::new();
    let request = proto::CreateRoomRequest { name: "r".into(), agents, ..Default::default() };
    world.ask(Request::Create(Box::new(request))).unwrap();
    let names = |world: &mut World| dispatches(world).into_iter().map(|d| d.agent_name).collect::<Vec<_>>();
    assert_eq!(names(&mut world), ["", "scribe"]);

    let mut world = World::new();
    let mut who = Who::named("ada");
    who.claims.room_config = Some(serde_json::json!({ "agents": [{ "agentName": "scribe", "metadata": "m" }] }));
    world.join(&who);
    assert_eq!(names(&mut world), ["", "scribe"]);
    let mut late = Who::named("bob");
    late.claims.room_config = Some(serde_json::json!({ "agents": [{ "agentName": "other" }] }));
    world.join(&late);
    assert_eq!(names(&mut world), ["", "scribe"], "the room is there already");

    let mut world = World::new();
    let mut wrong = Who::named("ada");
    wrong.claims.room_config = Some(serde_json::json!({ "agents": [{ "agentName": "x".repeat(257) }] }));
    let refused = world.try_join(&wrong).unwrap_err();
    assert_eq!(refused.reason, edge_signal::refusal::Reason::RoomConfigMalformed);
}

#[test]
fn participants_and_publishers_have_jobs_of_their_own() {
    let served = [("", JobKind::Participant), ("", JobKind::Publisher)];
    let mut world = World::new();
    let ada = world.join_active(&Who::named("ada"));
    world.join(&Who::named("bob"));
    world.join_active(&agent("robot"));
    world.grant(&served);
    let of = |jobs: &[proto::Job]| {
        let one = |job: &proto::Job| (job.r#type(), job.participant.as_ref().unwrap().identity.clone());
        jobs.iter().map(one).collect::<Vec<_>>()
    };
    // Bob has no media yet, an agent has no agents.
    assert_eq!(of(&launched(world.grant(&served))), [(JobType::JtParticipant, "ada".to_owned())]);
    world.publish(&ada, "m");
    assert_eq!(of(&launched(world.grant(&served))), [(JobType::JtPublisher, "ada".to_owned())]);
    world.publish(&ada, "n");
    assert!(world.room.wishes().is_none(), "its first track alone");

    // She goes before any worker takes them: they are not wanted any more.
    world.say(&ada, Asked::Leave(proto::LeaveRequest::default()));
    let ended = world.grant(&served).unwrap().end;
    assert_eq!(ended.len(), 2);
    for job in ended {
        world.job_stands(job.as_str(), Standing::Ended(Ending::hopeless("not wanted")));
    }
    assert!(jobs(&mut world).is_empty());
    world.join_active(&Who::named("ada"));
    assert_eq!(of(&launched(world.grant(&served))), [(JobType::JtParticipant, "ada".to_owned())]);
}

#[test]
fn a_job_is_shown_as_it_fares() {
    let (mut world, job) = with_scribe(scribe());
    let shown = jobs(&mut world).remove(0);
    let state = shown.state.unwrap();
    assert_eq!((shown.id.as_str(), state.status()), (job.as_str(), JobStatus::JsRunning));
    assert_eq!((state.participant_identity.as_str(), &state.worker_id[..3]), ("scribe-1", "AW_"));
    world.job_stands(&job, Standing::Ended(Ending::success()));
    let state = jobs(&mut world).remove(0).state.unwrap();
    assert!(state.status() == JobStatus::JsSuccess && state.ended_at > 0);
    world.pass(100_000);
    assert!(launched(world.room.wishes()).is_empty(), "what is done is not done again");
}

#[test]
fn a_job_that_fails_is_tried_again_so_many_times() {
    let (mut world, mut job) = with_scribe(scribe());
    for attempt in 1..=MAX_ATTEMPTS {
        world.job_stands(&job, Standing::Ended(Ending::failure("broke")));
        assert_eq!(status(&mut world), JobStatus::JsFailed);
        assert_eq!(jobs(&mut world)[0].state.as_ref().unwrap().error, "broke");
        world.pass(1_000 << (2 * (attempt - 1)));
        let again = launched(world.grant(&[]));
        if attempt == MAX_ATTEMPTS {
            assert!(again.is_empty(), "no more than that");
        } else {
            assert_ne!(again[0].id, job, "a new job");
            job.clone_from(&again[0].id);
        }
    }
    let never = proto::CreateAgentDispatchRequest { restart_policy: JobRestartPolicy::JrpNever.into(), ..scribe() };
    let (mut world, job) = with_scribe(never);
    world.job_stands(&job, Standing::Ended(Ending::failure("broke")));
    world.pass(3_600_000);
    assert!(world.room.is_over() || launched(world.room.wishes()).is_empty());
}

#[test]
fn an_agent_that_stays_away_ends_its_job() {
    let (mut world, job) = with_scribe(scribe());
    let robot = world.join_active(&agent("scribe-1"));
    world.say(&robot, Asked::Leave(proto::LeaveRequest::default()));
    world.pass(AGENT_RETURN_MS - 1);
    assert!(world.room.wishes().is_none());
    // A full reconnect.
    let robot = world.join_active(&agent("scribe-1"));
    world.pass(AGENT_RETURN_MS * 2);
    assert!(world.room.wishes().is_none());
    world.say(&robot, Asked::Leave(proto::LeaveRequest::default()));
    world.pass(AGENT_RETURN_MS);
    assert_eq!(world.grant(&[]).unwrap().end[0].as_str(), job);
    world.job_stands(&job, Standing::Ended(Ending::success()));
    assert_eq!(status(&mut world), JobStatus::JsSuccess);
}

#[test]
fn an_agent_may_come_long_before_those_it_is_for() {
    let mut world = World::new();
    dispatch(&mut world, scribe());
    world.pass(100_000);
    world.join_active(&agent("scribe-1"));
    world.pass(150_000);
    world.join_active(&Who::named("ada"));
    assert!(!world.room.is_over());
    assert_eq!(world.app_server.heard.iter().filter(|event| event.event == "room_started").count(), 1);
}

#[test]
fn an_agent_that_is_removed_ends_its_job_at_once() {
    let (mut world, job) = with_scribe(scribe());
    world.join_active(&agent("scribe-1"));
    let identity = "scribe-1".to_owned();
    let request = proto::RoomParticipantIdentity { identity, ..Default::default() };
    world.ask(Request::RemoveParticipant(request)).unwrap();
    assert_eq!(world.grant(&[]).unwrap().end[0].as_str(), job);
    world.job_stands(&job, Standing::Ended(Ending::failure("killed")));
    world.pass(10_000);
    assert!(launched(world.room.wishes()).is_empty(), "it was not to go on");
}

#[test]
fn a_deleted_dispatch_ends_its_jobs() {
    let (mut world, job) = with_scribe(scribe());
    let id = dispatches(&mut world)[1].id.clone();
    let Ok(Answer::Dispatch(gone)) = world.ask(Request::DeleteDispatch(id.clone())) else { panic!("not deleted") };
    assert_eq!((&gone.id, gone.state.unwrap().jobs.len()), (&id, 1));
    assert_eq!(world.ask(Request::DeleteDispatch(id)).unwrap_err().code, Code::NotFound);
    let told = world.grant(&[]).unwrap();
    assert_eq!((told.end[0].as_str(), told.watch.unwrap().len()), (job.as_str(), 0));
    assert!(world.room.wishes().is_none() && jobs(&mut world).is_empty());
}

#[test]
fn the_agents_object_hears_of_the_end_of_rooms_it_knows() {
    let (mut world, _) = with_scribe(scribe());
    world.ask(Request::Delete).unwrap();
    assert!(world.agents_over);
    let mut world = World::new();
    world.join_active(&Who::named("ada"));
    world.grant(&[]);
    world.ask(Request::Delete).unwrap();
    assert!(!world.agents_over, "nothing to forget");
}

#[test]
fn requests_are_checked() {
    let mut world = World::new();
    let code = |world: &mut World, request| world.ask(Request::CreateDispatch(Box::new(request))).unwrap_err().code;
    let long = proto::CreateAgentDispatchRequest { agent_name: "x".repeat(257), ..Default::default() };
    assert_eq!(code(&mut world, long), Code::InvalidArgument);
    let large = proto::CreateAgentDispatchRequest { metadata: "x".repeat(512 * 1024 + 1), ..Default::default() };
    assert_eq!(code(&mut world, large), Code::InvalidArgument);
    assert!(!world.room.is_created(), "and no room is made");
    assert!(matches!(world.ask(Request::ListDispatch(String::new())), Ok(Answer::Dispatches(none)) if none.is_empty()));
    for _ in 0..99 {
        dispatch(&mut world, scribe());
    }
    assert_eq!(code(&mut world, scribe()), Code::ResourceExhausted);
}
