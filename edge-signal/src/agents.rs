//! The workers of LiveKit's Agents framework, and which of them gets which job: a pure state machine. Event in, effects out.
//!
//! **The shell writes [`Registry::changes`] before it carries out the effects of an event, then tells the rooms what
//! [`Registry::news`] has for them, then sets its alarm to [`Registry::deadline`].** Rooms own dispatches and jobs; what is
//! here is how far a job has come to a worker.

use std::collections::{BTreeMap, BTreeSet};

use livekit_protocol as proto;
use livekit_protocol::server_message::Message as ToWorker;
use livekit_protocol::worker_message::Message as Said;
use livekit_protocol::{JobStatus, ServerInfo};
use shared::ids::{AgentName, JobId, RoomName, RoomSid, WorkerId};

use crate::room::event::{Context, UnixMs};
use crate::room::join::{COMPATIBLE_VERSION, SIGNAL_PROTOCOL};
use event::{Effect, Event};
use job::{ENDING_LIMIT_MS, Job, Stage, WORKER_RETURN_MS};
use link::{Ending, Granted, JobKind, News, Served, Wishes};
use rows::{RowKey, Watch};
use turn::Turn;
use worker::{Registered, Worker};

pub mod event;
pub mod job;
pub mod link;
mod offer;
pub mod rows;
mod turn;
pub mod worker;

/// Most jobs that wait or run at a time; further ones are refused.
pub const MAX_JOBS: usize = 20_000;
/// Most bytes of all their metadata and attributes: an object has 128 MB.
pub const MAX_JOB_BYTES: usize = 32 * 1024 * 1024;
/// Most workers at a time.
pub const MAX_WORKERS: usize = 10_000;
/// Milliseconds a socket may be open without registering (LiveKit's 10 s).
pub const REGISTER_LIMIT_MS: u64 = 10_000;
/// Milliseconds for which jobs wait for workers of a name that has none any more: a deployment of workers that is restarted.
pub const POOL_REMEMBERED_MS: u64 = 3_600_000;
/// Milliseconds until a room that could not be told is told again.
pub const RETRY_MS: u64 = 5_000;
/// Longest error of a worker that is kept, characters.
const MAX_ERROR_CHARS: usize = 500;
/// The agents' protocol spoken (LiveKit's).
const AGENT_PROTOCOL: i32 = 1;

/// Workers of one name that take one kind of jobs.
type Pool = (AgentName, JobKind);

/// All workers of a deployment, and the jobs on their way to them.
#[derive(Debug, Default)]
pub struct Registry {
    workers: BTreeMap<WorkerId, Worker>,
    jobs: BTreeMap<JobId, Job>,
    /// Rooms that want to hear of workers.
    watches: BTreeMap<RoomName, Watch>,
    /// When each pool last had a worker.
    pools: BTreeMap<Pool, UnixMs>,
    /// Rooms that could not be told, and when to try again; forgotten with the memory.
    deaf: BTreeMap<RoomName, UnixMs>,
    changed: BTreeSet<RowKey>,
}

impl Registry {
    /// Handles one event. The effects are to be carried out in their order.
    pub fn handle(&mut self, context: Context, event: Event) -> Vec<Effect> {
        let mut turn = Turn::new(context);
        match event {
            Event::WorkerCame { worker } => drop(self.workers.insert(worker, Worker::new(turn.now))),
            Event::WorkerSaid { worker, message } => {
                if let Some(said) = message.message {
                    self.worker_said(&mut turn, &worker, said);
                }
            }
            Event::WorkerGone { worker } => self.worker_gone(&mut turn, &worker),
            Event::RoomWishes(wishes) => {
                let granted = self.grant(&mut turn, *wishes);
                turn.effects.push(Effect::Answer(Box::new(granted)));
            }
            Event::RoomOver { room, sid } => self.forget_room(&mut turn, &room, &sid),
            Event::RoomTold { news, known: true } => self.told(&news),
            Event::RoomTold { news, known: false } => self.forget_room(&mut turn, &news.room, &news.sid),
            Event::RoomDeaf { room } => drop(self.deaf.insert(room, turn.now.after(RETRY_MS))),
            Event::Alarm => self.alarm(&mut turn),
        }
        self.offer_waiting(&mut turn);
        turn.effects
    }

    /// Whether one more worker fits.
    #[must_use]
    pub fn has_place(&self) -> bool {
        self.workers.len() < MAX_WORKERS
    }

    /// When the registry next wants [`Event::Alarm`]; earlier alarms do no harm.
    #[must_use]
    pub fn deadline(&self, now: UnixMs) -> Option<UnixMs> {
        let jobs = self.jobs.values().filter_map(|job| job.deadline(now));
        let silent = self.workers.values().filter(|worker| worker.registered.is_none());
        let register = silent.map(|worker| worker.since.after(REGISTER_LIMIT_MS));
        // What is being told now is looked after again, should the object forget that it is.
        let untold = self.jobs.values().any(|job| job.untold) || self.watches.values().any(|watch| watch.untold);
        let look_again = untold.then(|| UnixMs((now.0 / RETRY_MS + 3) * RETRY_MS));
        jobs.chain(register).chain(self.deaf.values().copied()).chain(look_again).min()
    }

    /// What rooms are to be told now.
    #[must_use]
    pub fn news(&self, now: UnixMs) -> Vec<News> {
        let mut all: BTreeMap<(&RoomName, &RoomSid), News> = BTreeMap::new();
        let hears = |room: &RoomName| self.deaf.get(room).is_none_or(|until| *until <= now);
        let nothing = |room: &RoomName, sid: &RoomSid| News {
            room: room.clone(),
            sid: sid.clone(),
            served: None,
            jobs: BTreeMap::new(),
        };
        for (room, watch) in self.watches.iter().filter(|(room, watch)| watch.untold && hears(room)) {
            let news = all.entry((room, &watch.sid)).or_insert_with(|| nothing(room, &watch.sid));
            news.served = Some(self.served(now, &watch.names));
        }
        for job in self.jobs.values().filter(|job| job.untold && hears(&job.room)) {
            let news = all.entry((&job.room, &job.sid)).or_insert_with(|| nothing(&job.room, &job.sid));
            news.jobs.insert(job.id.clone(), job.standing());
        }
        all.into_values().collect()
    }

    fn alarm(&mut self, turn: &mut Turn) {
        let now = turn.now;
        self.deaf.retain(|_, until| *until > now);
        let late = |worker: &Worker| worker.registered.is_none() && worker.since.after(REGISTER_LIMIT_MS) <= now;
        let late: Vec<WorkerId> = self.workers.iter().filter(|(_, w)| late(w)).map(|(id, _)| id.clone()).collect();
        for worker in late {
            self.workers.remove(&worker);
            turn.effects.push(Effect::Close { worker, reason: "not registered in time" });
        }
        let due = |job: &Job| job.deadline(UnixMs(0)).is_some_and(|at| at <= now);
        let due: Vec<JobId> = self.jobs.values().filter(|job| due(job)).map(|job| job.id.clone()).collect();
        for id in due {
            match self.jobs.get(&id).map(|job| job.stage.clone()) {
                Some(Stage::Offered { worker, .. }) => {
                    turn.count("offer_unanswered");
                    if let Some(known) = self.workers.get_mut(&worker) {
                        known.silent = true;
                        turn.keep(&worker, known);
                    }
                    self.refused(turn, &id, &worker);
                }
                Some(Stage::Held { .. }) => {
                    turn.count("job_lost");
                    self.end(&id, Ending::failure("its worker is gone"));
                }
                _ => {}
            }
        }
    }

    fn worker_said(&mut self, turn: &mut Turn, id: &WorkerId, said: Said) {
        let Some(worker) = self.workers.get_mut(id) else { return };
        if std::mem::take(&mut worker.silent) {
            turn.keep(id, worker);
        }
        if worker.registered.is_none() && !matches!(said, Said::Register(_) | Said::Ping(_)) {
            turn.count("worker_not_registered");
            return;
        }
        match said {
            Said::Register(request) => self.register(turn, id, &request),
            Said::Availability(answer) => self.answered(turn, id, &answer),
            Said::UpdateWorker(status) => {
                if worker.update(&status) {
                    turn.keep(id, worker);
                }
            }
            Said::UpdateJob(update) => self.update_job(id, &update),
            Said::Ping(ping) => {
                let now = i64::try_from(turn.now.0).unwrap_or(i64::MAX);
                let pong = proto::WorkerPong { last_timestamp: ping.timestamp, timestamp: now };
                turn.send(id, ToWorker::Pong(pong));
            }
            Said::MigrateJob(request) => self.migrate(turn, id, &request.job_ids),
            // Simulated jobs are for workers' own consoles.
            Said::SimulateJob(_) => turn.count("simulate_job"),
        }
    }

    fn register(&mut self, turn: &mut Turn, id: &WorkerId, request: &proto::RegisterWorkerRequest) {
        let Ok(registered) = Registered::new(request) else {
            self.workers.remove(id);
            turn.effects.push(Effect::Close { worker: id.clone(), reason: "agent_name is over its limit" });
            return;
        };
        let (pool, now) = (registered.pool(), turn.now);
        let is_new = !self.is_served(now, &pool);
        if let Some(worker) = self.workers.get_mut(id) {
            worker.registered = Some(registered);
            turn.keep(id, worker);
        }
        self.see(now, pool.clone());
        let info = ServerInfo {
            version: COMPATIBLE_VERSION.to_owned(),
            protocol: SIGNAL_PROTOCOL,
            agent_protocol: AGENT_PROTOCOL,
            ..Default::default()
        };
        let response =
            proto::RegisterWorkerResponse { worker_id: id.to_string(), server_info: Some(info), ..Default::default() };
        turn.send(id, ToWorker::Register(response));
        if is_new {
            self.tell_watchers(&pool.0);
        }
    }

    /// How a worker says that its job does.
    fn update_job(&mut self, id: &WorkerId, update: &proto::UpdateJobStatus) {
        let holds = |job: &&Job| matches!(&job.stage, Stage::Held { worker, .. } if worker == id);
        let job = JobId::try_from(update.job_id.as_str()).ok().and_then(|job| self.jobs.get(&job)).filter(holds);
        let Some(job) = job.map(|job| job.id.clone()) else { return };
        match update.status() {
            JobStatus::JsPending | JobStatus::JsRunning => {}
            JobStatus::JsSuccess => self.end(&job, Ending::success()),
            JobStatus::JsFailed if update.error.is_empty() => self.end(&job, Ending::failure("the agent failed")),
            JobStatus::JsFailed => {
                // Of an error that a program wrote, what a person reads.
                let error: String = update.error.chars().take(MAX_ERROR_CHARS).collect();
                self.end(&job, Ending::failure(error));
            }
        }
    }

    /// A worker that came back on another socket says which jobs it still holds.
    fn migrate(&mut self, turn: &mut Turn, id: &WorkerId, ids: &[String]) {
        let Some(pool) = self.workers.get(id).and_then(|worker| worker.registered.as_ref()).map(Registered::pool)
        else {
            return;
        };
        for job in ids.iter().filter_map(|job| JobId::try_from(job.as_str()).ok()) {
            let of_pool = |job: &&mut Job| (&job.name, job.kind) == (&pool.0, pool.1);
            let Some(job) = self.jobs.get_mut(&job).filter(of_pool) else {
                // Nobody here knows what it is for.
                turn.count("job_unknown");
                turn.send(id, ToWorker::Termination(proto::JobTermination { job_id: job.to_string() }));
                continue;
            };
            if let Stage::Held { worker, until, .. } = &mut job.stage {
                *worker = id.clone();
                *until = None;
                job.untold = true;
                self.changed.insert(RowKey::Job(job.id.clone()));
            }
        }
    }

    fn worker_gone(&mut self, turn: &mut Turn, id: &WorkerId) {
        let Some(worker) = self.workers.remove(id) else { return };
        if let Some(registered) = worker.registered {
            self.see(turn.now, registered.pool());
        }
        self.lose_jobs_of(turn.now, id);
    }

    /// A worker is gone: what it was offered is for others, what it holds waits for it for a while.
    fn lose_jobs_of(&mut self, now: UnixMs, id: &WorkerId) {
        let its: Vec<JobId> =
            self.jobs.values().filter(|job| job.worker() == Some(id)).map(|job| job.id.clone()).collect();
        for job in its {
            let Some(job) = self.job_mut(&job) else { continue };
            match &mut job.stage {
                Stage::Offered { .. } => job.stage = Stage::Waiting { from: now },
                Stage::Held { until, .. } => *until = Some(until.unwrap_or(now.after(WORKER_RETURN_MS))),
                Stage::Waiting { .. } | Stage::Ended(_) => {}
            }
        }
    }

    fn grant(&mut self, turn: &mut Turn, wishes: Wishes) -> Granted {
        let Wishes { room, sid, watch, automatic, launch, end } = wishes;
        let mut granted = Granted::default();
        if let Some(names) = watch {
            granted.served = self.served(turn.now, &names);
            self.changed.insert(RowKey::Watch(room.clone()));
            if names.is_empty() {
                self.watches.remove(&room);
            } else {
                self.watches.insert(room.clone(), Watch { sid: sid.clone(), names, untold: false });
            }
        }
        if automatic {
            granted.served.extend(self.served(turn.now, &BTreeSet::from([AgentName::unnamed()])));
        }
        let mut bytes = if launch.is_empty() { 0 } else { self.jobs.values().map(Job::bytes).sum() };
        for wanted in launch {
            let Some(job) = Job::new(turn.now, &room, &sid, wanted) else { continue };
            if self.jobs.contains_key(&job.id) {
                continue;
            }
            let with_it = job.bytes() + bytes;
            if self.jobs.len() >= MAX_JOBS || with_it > MAX_JOB_BYTES {
                turn.count("too_many_jobs");
                granted.over.insert(job.id, "too many jobs wait or run".to_owned());
                continue;
            }
            bytes = with_it;
            self.changed.insert(RowKey::Job(job.id.clone()));
            self.jobs.insert(job.id.clone(), job);
        }
        for id in end {
            match self.jobs.get(&id).filter(|job| job.sid == sid) {
                Some(_) => self.finish(turn, &id),
                None => drop(granted.over.insert(id, "its worker is gone".to_owned())),
            }
        }
        granted
    }

    /// Has a job end.
    fn finish(&mut self, turn: &mut Turn, id: &JobId) {
        let now = turn.now;
        let Some(job) = self.job_mut(id) else { return };
        match &mut job.stage {
            Stage::Held { worker, until, .. } => {
                // A worker that is gone has less time already.
                *until = Some(until.unwrap_or(now.after(ENDING_LIMIT_MS)));
                let termination = proto::JobTermination { job_id: id.to_string() };
                turn.send(&worker.clone(), ToWorker::Termination(termination));
            }
            Stage::Offered { worker, .. } => {
                let worker = worker.clone();
                self.release(&worker);
                self.end(id, Ending::hopeless("it is not wanted any more"));
            }
            Stage::Waiting { .. } => self.end(id, Ending::hopeless("it is not wanted any more")),
            Stage::Ended(_) => {}
        }
    }

    fn end(&mut self, id: &JobId, ending: Ending) {
        if let Some(job) = self.job_mut(id) {
            job.stage = Stage::Ended(ending);
            job.untold = true;
        }
    }

    /// Nobody is left to tell of a room's jobs.
    fn forget_room(&mut self, turn: &mut Turn, room: &RoomName, sid: &RoomSid) {
        if self.watches.get(room).is_some_and(|watch| watch.sid == *sid) {
            self.watches.remove(room);
            self.changed.insert(RowKey::Watch(room.clone()));
        }
        self.deaf.remove(room);
        let its: Vec<JobId> = self.jobs.values().filter(|job| job.sid == *sid).map(|job| job.id.clone()).collect();
        for id in its {
            self.finish(turn, &id);
            self.remove_job(&id);
        }
    }

    fn told(&mut self, news: &News) {
        self.deaf.remove(&news.room);
        for (id, standing) in &news.jobs {
            let Some(job) = self.jobs.get(id).filter(|job| job.standing() == *standing) else { continue };
            if matches!(job.stage, Stage::Ended(_)) {
                self.remove_job(id);
            } else if let Some(job) = self.job_mut(id) {
                job.untold = false;
            }
        }
        if news.served.is_some()
            && let Some(watch) = self.watches.get_mut(&news.room).filter(|watch| watch.sid == news.sid)
        {
            watch.untold = false;
            self.changed.insert(RowKey::Watch(news.room.clone()));
        }
    }

    fn tell_watchers(&mut self, name: &AgentName) {
        for (room, watch) in self.watches.iter_mut().filter(|(_, watch)| watch.names.contains(name)) {
            watch.untold = true;
            self.changed.insert(RowKey::Watch(room.clone()));
        }
    }

    /// A pool has a worker, or had one until now.
    fn see(&mut self, now: UnixMs, pool: Pool) {
        let forgotten = |at: &UnixMs| at.after(POOL_REMEMBERED_MS) <= now;
        let old = self.pools.iter().filter(|(pool, at)| forgotten(at) && !self.has_worker(pool));
        for pool in old.map(|(pool, _)| pool.clone()).collect::<Vec<_>>() {
            self.pools.remove(&pool);
            self.changed.insert(RowKey::Pool(pool));
        }
        self.changed.insert(RowKey::Pool(pool.clone()));
        self.pools.insert(pool, now);
    }

    fn has_worker(&self, pool: &Pool) -> bool {
        let of_pool = |registered: &Registered| (&registered.name, registered.kind) == (&pool.0, pool.1);
        self.workers.values().any(|worker| worker.registered.as_ref().is_some_and(of_pool))
    }

    fn is_served(&self, now: UnixMs, pool: &Pool) -> bool {
        self.has_worker(pool) || self.pools.get(pool).is_some_and(|at| at.after(POOL_REMEMBERED_MS) > now)
    }

    fn served(&self, now: UnixMs, names: &BTreeSet<AgentName>) -> Served {
        let kinds = [JobKind::Room, JobKind::Publisher, JobKind::Participant];
        let of =
            |name: &AgentName| kinds.into_iter().filter(|kind| self.is_served(now, &(name.clone(), *kind))).collect();
        names.iter().map(|name| (name.clone(), of(name))).collect()
    }

    fn job_mut(&mut self, id: &JobId) -> Option<&mut Job> {
        let job = self.jobs.get_mut(id)?;
        self.changed.insert(RowKey::Job(id.clone()));
        Some(job)
    }

    fn remove_job(&mut self, id: &JobId) {
        self.jobs.remove(id);
        self.changed.insert(RowKey::Job(id.clone()));
    }
}
