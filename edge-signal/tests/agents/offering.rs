//! Which worker gets a job, and what becomes of it.

use edge_signal::agents::job::{ENDING_LIMIT_MS, MAX_REFUSALS, OFFER_LIMIT_MS, WORKER_RETURN_MS};
use edge_signal::agents::link::{JobKind, Standing, Wishes};
use edge_signal::agents::{POOL_REMEMBERED_MS, REGISTER_LIMIT_MS};
use livekit_protocol as proto;
use livekit_protocol::JobType::{JtParticipant, JtRoom};
use livekit_protocol::server_message::Message as Told;
use livekit_protocol::worker_message::Message as Said;
use shared::ids::{JobId, WorkerId};

use crate::world::{World, job, watching, wishes};

fn is_running(standing: Option<Standing>, by: &WorkerId) -> bool {
    matches!(standing, Some(Standing::Running { worker, .. }) if worker == *by)
}

fn failed(standing: Option<Standing>) -> Option<(String, bool)> {
    match standing {
        Some(Standing::Ended(ending)) => Some((ending.error?, ending.retry)),
        _ => None,
    }
}

#[test]
fn a_worker_registers_and_is_given_a_job() {
    let mut world = World::new();
    let worker = world.worker(1, "scribe", JtRoom);
    let sent = world.sent.remove(&worker).unwrap();
    let Told::Register(registered) = &sent[0] else { panic!("{sent:?}") };
    let info = registered.server_info.as_ref().unwrap();
    assert_eq!((registered.worker_id.as_str(), info.protocol, info.agent_protocol), (worker.as_str(), 17, 1));
    world.say(&worker, Said::Ping(proto::WorkerPing { timestamp: 123 }));
    let pong = proto::WorkerPong { last_timestamp: 123, timestamp: world.now.0.try_into().unwrap() };
    assert_eq!(world.sent.remove(&worker).unwrap(), [Told::Pong(pong)]);

    let job = world.launch(1, "scribe", JtRoom);
    let offered = world.sent.remove(&worker).unwrap();
    let Told::Availability(request) = &offered[0] else { panic!("{offered:?}") };
    let state = request.job.as_ref().unwrap().state.as_ref().unwrap();
    assert_eq!((state.status(), state.worker_id.as_str()), (proto::JobStatus::JsRunning, worker.as_str()));
    world.answer_offer(&worker, &job, true);
    let (to, assigned, claims) = world.assigned.remove(0);
    let identity = format!("agent of {job}");
    assert_eq!((&to, &assigned.state.unwrap().participant_identity), (&worker, &identity));
    // As in LiveKit's token, field by field.
    assert_eq!((&claims.sub, &claims.identity, claims.kind.as_str()), (&identity, &identity, "agent"));
    assert_eq!(claims.exp, world.now.secs() + 3600);
    assert_eq!((claims.attributes["lk.agent_name"].as_str(), claims.attributes["q"].as_str()), ("scribe", "1"));
    let grant = claims.video.unwrap();
    assert!(grant.agent && grant.room_join && grant.room == "r" && grant.can_publish == Some(true));
    assert!(is_running(world.standing(&job), &worker));
    world.update_job(&worker, &job, proto::JobStatus::JsSuccess);
    assert!(matches!(world.standing(&job), Some(Standing::Ended(ending)) if ending.error.is_none()));
    assert!(world.tell().is_empty(), "told once");
}

#[test]
fn jobs_wait_for_workers_of_their_name_and_kind() {
    let mut world = World::new();
    let job = world.launch(1, "scribe", JtRoom);
    let others = [world.worker(1, "other", JtRoom), world.worker(2, "scribe", JtParticipant)];
    assert!(others.iter().all(|worker| world.offers(worker).is_empty()));
    let worker = world.worker(3, "scribe", JtRoom);
    assert_eq!(world.offers(&worker), [job]);
}

#[test]
fn rooms_hear_of_workers_when_they_come() {
    let mut world = World::new();
    assert!(world.wish(watching(&["scribe"])).served.values().all(std::collections::BTreeSet::is_empty));
    world.worker(1, "other", JtRoom);
    assert!(world.tell().is_empty());
    let worker = world.worker(2, "scribe", JtParticipant);
    let news = world.tell();
    let served = news[0].served.as_ref().unwrap();
    assert_eq!(served.values().flatten().copied().collect::<Vec<_>>(), [JobKind::Participant]);
    world.worker(3, "scribe", JtParticipant);
    assert!(world.tell().is_empty(), "nothing new");
    // Workers that are deployed anew come back.
    world.cut(&worker);
    world.cut(&WorkerId::from_random([3; 12]));
    world.pass(POOL_REMEMBERED_MS - 1);
    let served = |world: &mut World| world.wish(watching(&["scribe"])).served.into_values().flatten().count();
    assert_eq!(served(&mut world), 1);
    world.pass(1);
    assert_eq!(served(&mut world), 0);
}

#[test]
fn the_least_loaded_worker_is_asked_first_and_a_full_one_is_not() {
    let mut world = World::new();
    let workers = [1, 2, 3].map(|number| world.worker(number, "scribe", JtRoom));
    for (worker, load) in workers.iter().zip([0.5, 0.2, 0.0]) {
        world.report(worker, load > 0.0, load);
    }
    let first = world.launch(1, "scribe", JtRoom);
    assert_eq!(world.offers(&workers[1]), [first]);
    let spread: Vec<_> = (2..=6).map(|number| world.launch(number, "scribe", JtRoom)).collect();
    let (busy, idle) = (world.offers(&workers[0]), world.offers(&workers[1]));
    assert_eq!(busy.len() + idle.len(), spread.len(), "a full one is offered nothing");
    assert!(!busy.is_empty(), "load that is not reported yet counts");
    for (worker, offers) in [(&workers[0], busy), (&workers[1], idle)] {
        offers.iter().for_each(|job| world.answer_offer(worker, job, true));
    }
}

#[test]
fn a_worker_has_a_few_offers_at_a_time() {
    let mut world = World::new();
    let worker = world.worker(1, "scribe", JtRoom);
    let jobs: Vec<_> = (1..=20).map(|number| world.launch(number, "scribe", JtRoom)).collect();
    let mut given = Vec::new();
    loop {
        let offers = world.offers(&worker);
        if offers.is_empty() {
            break;
        }
        assert!(offers.len() <= 8);
        offers.iter().for_each(|job| world.answer_offer(&worker, job, true));
        given.extend(offers);
    }
    given.sort();
    let mut jobs = jobs;
    jobs.sort();
    assert_eq!(given, jobs);
}

#[test]
fn an_offer_that_is_refused_unanswered_or_orphaned_goes_to_another() {
    let mut world = World::new();
    let first = world.worker(1, "scribe", JtRoom);
    let job = world.launch(1, "scribe", JtRoom);
    assert_eq!(world.offers(&first), std::slice::from_ref(&job));
    let second = world.worker(2, "scribe", JtRoom);
    world.answer_offer(&first, &job, false);
    assert_eq!(world.offers(&second), std::slice::from_ref(&job));
    let third = world.worker(3, "scribe", JtRoom);
    world.pass(OFFER_LIMIT_MS);
    assert_eq!(world.offers(&third), std::slice::from_ref(&job), "the second one is silent");
    world.answer_offer(&second, &job, true);
    assert!(world.assigned.is_empty(), "too late");
    world.answer_offer(&third, "AJ_another", true);
    world.cut(&third);
    // Both have had it: they are asked again after a while.
    assert!(world.offers(&first).is_empty() || world.offers(&second).is_empty());
    world.pass(2_000);
    let asked = [&first, &second].into_iter().find(|worker| !world.offers(worker).is_empty()).unwrap().clone();
    world.answer_offer(&asked, &job, true);
    assert!(is_running(world.standing(&job), &asked));
}

#[test]
fn what_nobody_takes_is_given_up() {
    let mut world = World::new();
    let worker = world.worker(1, "scribe", JtRoom);
    let job = world.launch(1, "scribe", JtRoom);
    let mut refusals = 0;
    while failed(world.standing(&job)).is_none() {
        if !world.offers(&worker).is_empty() {
            refusals += 1;
            world.answer_offer(&worker, &job, false);
        }
        world.pass(1_000);
    }
    assert_eq!(refusals, MAX_REFUSALS);
    assert_eq!(failed(world.standing(&job)).unwrap(), ("no worker takes it".to_owned(), false));

    let job = world.launch(2, "scribe", JtRoom);
    let answer = proto::AvailabilityResponse { job_id: job.clone(), terminate: true, ..Default::default() };
    world.say(&worker, Said::Availability(answer));
    assert_eq!(failed(world.standing(&job)).unwrap(), ("a worker refused it for all".to_owned(), false));
}

#[test]
fn a_worker_that_comes_back_keeps_its_jobs_and_one_that_does_not_loses_them() {
    let mut world = World::new();
    let worker = world.worker(1, "scribe", JtRoom);
    let jobs = [1, 2].map(|number| world.launch(number, "scribe", JtRoom));
    jobs.iter().for_each(|job| world.answer_offer(&worker, job, true));
    world.tell();
    world.restart();
    world.pass(WORKER_RETURN_MS - 1);
    let again = world.worker(2, "scribe", JtRoom);
    let ids = vec![jobs[0].clone(), "AJ_unknown".to_owned()];
    world.say(&again, Said::MigrateJob(proto::MigrateJobRequest { job_ids: ids }));
    let sent = world.sent.remove(&again).unwrap();
    assert!(sent.contains(&Told::Termination(proto::JobTermination { job_id: "AJ_unknown".into() })), "{sent:?}");
    world.pass(WORKER_RETURN_MS);
    assert!(is_running(world.standing(&jobs[0]), &again));
    assert_eq!(failed(world.standing(&jobs[1])).unwrap(), ("its worker is gone".to_owned(), true));
    // Of another pool nobody takes them over.
    let other = world.worker(3, "other", JtRoom);
    world.say(&other, Said::MigrateJob(proto::MigrateJobRequest { job_ids: vec![jobs[0].clone()] }));
    world.update_job(&other, &jobs[0], proto::JobStatus::JsFailed);
    assert!(is_running(world.standing(&jobs[0]), &again));
}

#[test]
fn a_job_that_is_to_end_ends() {
    let mut world = World::new();
    let worker = world.worker(1, "scribe", JtRoom);
    let jobs = [1, 2].map(|number| world.launch(number, "scribe", JtRoom));
    jobs.iter().for_each(|job| world.answer_offer(&worker, job, true));
    world.offers(&worker);
    let waiting = world.launch(3, "nobody", JtRoom);
    let end = jobs.iter().chain([&waiting]).map(|job| JobId::try_from(job.as_str()).unwrap()).collect();
    let unknown = JobId::from_random([99; 12]);
    let granted = world.wish(Wishes { end, ..wishes() });
    assert!(granted.over.is_empty());
    assert_eq!(world.sent.remove(&worker).unwrap().len(), 2, "two terminations");
    assert!(failed(world.standing(&waiting)).is_some());
    world.update_job(&worker, &jobs[0], proto::JobStatus::JsSuccess);
    assert!(failed(world.standing(&jobs[0])).is_none());
    world.pass(ENDING_LIMIT_MS);
    assert!(failed(world.standing(&jobs[1])).is_some(), "it did not say");
    assert!(world.wish(Wishes { end: vec![unknown.clone()], ..wishes() }).over.contains_key(&unknown));
}

#[test]
fn a_room_that_is_over_is_forgotten_with_its_jobs() {
    let mut world = World::new();
    let worker = world.worker(1, "scribe", JtRoom);
    world.wish(watching(&["helper"]));
    let held = world.launch(1, "scribe", JtRoom);
    world.answer_offer(&worker, &held, true);
    world.launch(2, "helper", JtRoom);
    let over = wishes();
    world.step(edge_signal::agents::event::Event::RoomOver { room: over.room, sid: over.sid });
    let sent = world.sent.remove(&worker).unwrap();
    assert!(sent.contains(&Told::Termination(proto::JobTermination { job_id: held })), "{sent:?}");
    let helper = world.worker(2, "helper", JtRoom);
    assert!(world.offers(&helper).is_empty() && world.tell().is_empty());
}

#[test]
fn a_room_that_cannot_be_told_is_told_later() {
    let mut world = World::new();
    world.wish(watching(&["scribe"]));
    world.worker(1, "scribe", JtRoom);
    let news = world.registry.news(world.now);
    assert_eq!(news.len(), 1);
    world.step(edge_signal::agents::event::Event::RoomDeaf { room: news[0].room.clone() });
    assert!(world.registry.news(world.now).is_empty());
    world.restart();
    assert_eq!(world.registry.news(world.now).len(), 1, "it is written that it was not told");
}

#[test]
fn sockets_that_do_not_register_are_closed() {
    let mut world = World::new();
    let worker = world.socket(1);
    world.report(&worker, true, 0.0);
    world.pass(REGISTER_LIMIT_MS);
    assert_eq!(world.closed, [(worker, "not registered in time")]);
    let worker = world.worker(2, &"x".repeat(257), JtRoom);
    assert_eq!(world.closed[1], (worker, "agent_name is over its limit"));
}

#[test]
fn answers_over_their_limits_are_refusals() {
    let mut world = World::new();
    let worker = world.worker(1, "scribe", JtRoom);
    let id = world.launch(1, "scribe", JtRoom);
    let answer = proto::AvailabilityResponse {
        job_id: id.clone(),
        available: true,
        participant_metadata: "x".repeat(512 * 1024 + 1),
        ..Default::default()
    };
    world.say(&worker, Said::Availability(answer));
    assert!(world.assigned.is_empty());
    world.pass(1_000);
    let nameless = proto::AvailabilityResponse { job_id: id.clone(), available: true, ..Default::default() };
    world.say(&worker, Said::Availability(nameless));
    assert_eq!(world.assigned[0].2.sub, format!("agent-{id}"), "as LiveKit names it");
    assert_eq!(world.assigned[0].1.id, job(1, "scribe", JtRoom).id);
}
