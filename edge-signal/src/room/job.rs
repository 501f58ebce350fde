//! Jobs: what dispatches have agents do, for the room, for a participant, for one that publishes. The agents' object finds
//! workers for them; here is what the room wants, and what it was told.

use std::collections::BTreeSet;

use livekit_protocol as proto;
use livekit_protocol::{DisconnectReason, JobState, JobStatus, JobType};
use serde::{Deserialize, Serialize};
use shared::ids::{AgentName, DispatchId, Identity, JobId, RoomSid, WorkerId};

use super::Room;
use super::event::UnixMs;
use super::snapshot::RowKey;
use super::turn::Turn;
use crate::agents::job::nanoseconds;
use crate::agents::link::{Ending, Granted, JobKind, News, Served, Standing, Wishes};

/// Most jobs of a room; further ones are not launched.
pub const MAX_JOBS: usize = 1_000;
/// Milliseconds for which a room knows what workers take that are dispatched to every room.
pub const AUTOMATIC_KNOWN_MS: u64 = 60_000;
/// Milliseconds an agent may be out of the room before its job is to end: a full reconnect leaves, too.
pub const AGENT_RETURN_MS: u64 = 10_000;
/// Jobs asked for in one message: each may bring metadata, of its dispatch and its participant.
const LAUNCHED_AT_A_TIME: usize = 16;
/// How often a job is tried that fails.
pub const MAX_ATTEMPTS: u32 = 4;
/// Milliseconds until a job is tried again that failed for the first time; four times as many each further time.
pub const RETRY_MS: u64 = 1_000;

/// Row `job`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Job {
    /// Of this life of the room.
    pub(super) room: RoomSid,
    pub(super) dispatch: DispatchId,
    pub(super) kind: JobKind,
    /// For whom; `None`: for the room.
    target: Option<Identity>,
    /// It is to end, or is over.
    ends: bool,
    /// The agents' object knows what is wanted.
    told: bool,
    status: Status,
    created_at: UnixMs,
    updated_at: UnixMs,
    started_at: Option<UnixMs>,
    ended_at: Option<UnixMs>,
    worker: Option<WorkerId>,
    /// The agent's identity.
    agent: Option<Identity>,
    /// Since when the agent is out of the room, after it was in it.
    left_at: Option<UnixMs>,
    attempt: u32,
    /// When it is tried again.
    retry_at: Option<UnixMs>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Status {
    Pending,
    Running,
    Success,
    Failed(String),
}

/// What a room knows of the agents' object; part of its record.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct Known {
    /// Names it is told of when workers come.
    watched: BTreeSet<AgentName>,
    /// What workers take.
    served: Served,
    /// When it asked about unnamed ones.
    asked_at: Option<UnixMs>,
    /// It is to ask.
    asks: bool,
}

impl Job {
    fn is_over(&self) -> bool {
        matches!(self.status, Status::Success | Status::Failed(_))
    }

    fn deadline(&self) -> Option<UnixMs> {
        let left = self.left_at.filter(|_| !self.ends).map(|at| at.after(AGENT_RETURN_MS));
        self.retry_at.into_iter().chain(left).min()
    }

    fn state(&self) -> JobState {
        let status = match self.status {
            Status::Pending => JobStatus::JsPending,
            Status::Running => JobStatus::JsRunning,
            Status::Success => JobStatus::JsSuccess,
            Status::Failed(_) => JobStatus::JsFailed,
        };
        let at = |at: Option<UnixMs>| at.map(nanoseconds).unwrap_or_default();
        JobState {
            status: status.into(),
            error: if let Status::Failed(error) = &self.status { error.clone() } else { String::new() },
            started_at: at(self.started_at),
            ended_at: at(self.ended_at),
            updated_at: nanoseconds(self.updated_at),
            participant_identity: self.agent.as_ref().map(ToString::to_string).unwrap_or_default(),
            worker_id: self.worker.as_ref().map(ToString::to_string).unwrap_or_default(),
            ..Default::default()
        }
    }
}

impl Room {
    /// What the agents' object is to be told; `None`: nothing. Answered by `Event::AgentsGranted`.
    #[must_use]
    pub fn wishes(&self) -> Option<Wishes> {
        if !self.record.created || self.record.over {
            return None;
        }
        let known = &self.record.agents;
        let names = self.dispatches.values().map(|dispatch| dispatch.agent_name.clone());
        let names: BTreeSet<AgentName> = names.filter(|name| !name.is_unnamed()).collect();
        let untold =
            |ends: bool| self.jobs.iter().filter(move |(_, job)| job.ends == ends && !job.told && !job.is_over());
        let wishes = Wishes {
            room: self.record.name.clone(),
            sid: self.record.sid.clone(),
            watch: (names != known.watched).then_some(names),
            automatic: known.asks,
            launch: untold(false).filter_map(|(id, job)| self.job_wanted(id, job)).take(LAUNCHED_AT_A_TIME).collect(),
            end: untold(true).map(|(id, _)| id.clone()).collect(),
        };
        let idle = wishes.watch.is_none() && !wishes.automatic && wishes.launch.is_empty() && wishes.end.is_empty();
        (!idle).then_some(wishes)
    }

    /// Whether the agents' object may hold something for this room.
    pub(super) fn involves_agents(&self) -> bool {
        !self.jobs.is_empty()
            || !self.record.agents.watched.is_empty()
            || self.dispatches.values().any(|dispatch| !dispatch.agent_name.is_unnamed())
    }

    /// Something happened that agents may be wanted for.
    pub(super) fn call_agents(&mut self, turn: &mut Turn) {
        let known = &self.record.agents;
        let stale = known.asked_at.is_none_or(|at| at.after(AUTOMATIC_KNOWN_MS) <= turn.now);
        let automatic = self.dispatches.values().any(|dispatch| dispatch.agent_name.is_unnamed());
        if stale && automatic && !known.asks {
            self.record_mut().agents.asks = true;
        }
        self.launch_jobs(turn);
    }

    /// Launches every job that is wanted and not there yet.
    fn launch_jobs(&mut self, turn: &mut Turn) {
        let there: BTreeSet<(DispatchId, JobKind, Option<Identity>)> =
            self.jobs.values().map(|job| (job.dispatch.clone(), job.kind, job.target.clone())).collect();
        let mut wanted = Vec::new();
        for (id, dispatch) in &self.dispatches {
            for kind in self.record.agents.served.get(&dispatch.agent_name).into_iter().flatten().copied() {
                let targets = self.targets(kind).into_iter().map(|target| (id.clone(), kind, target));
                wanted.extend(targets.filter(|job| !there.contains(job)));
            }
        }
        for (dispatch, kind, target) in wanted {
            if self.jobs.len() >= MAX_JOBS {
                self.counters.refused_jobs += 1;
                return;
            }
            self.launch(turn, dispatch, kind, target, 1);
        }
    }

    fn launch(&mut self, turn: &mut Turn, dispatch: DispatchId, kind: JobKind, target: Option<Identity>, attempt: u32) {
        let id = JobId::from_random(turn.random());
        self.changed.insert(RowKey::Job(id.clone()));
        let job = Job {
            room: self.record.sid.clone(),
            dispatch,
            kind,
            target,
            ends: false,
            told: false,
            status: Status::Pending,
            created_at: turn.now,
            updated_at: turn.now,
            started_at: None,
            ended_at: None,
            worker: None,
            agent: None,
            left_at: None,
            attempt,
            retry_at: None,
        };
        self.jobs.insert(id, job);
    }

    /// For whom a kind of jobs is. Agents and recorders have none of their own.
    fn targets(&self, kind: JobKind) -> Vec<Option<Identity>> {
        let counted =
            self.participants.values().filter(|participant| participant.active && !participant.is_dependent());
        match kind {
            JobKind::Room => vec![None],
            JobKind::Participant => counted.map(|participant| Some(participant.identity.clone())).collect(),
            JobKind::Publisher => counted
                .filter(|participant| {
                    participant
                        .tracks
                        .iter()
                        .any(|track| self.publications.get(track).is_some_and(|track| track.visible))
                })
                .map(|participant| Some(participant.identity.clone()))
                .collect(),
        }
    }

    /// The jobs of a dispatch, the oldest first.
    pub(super) fn jobs_of(&self, dispatch: &DispatchId) -> Vec<proto::Job> {
        let mut jobs: Vec<_> = self.jobs.iter().filter(|(_, job)| job.dispatch == *dispatch).collect();
        jobs.sort_by_key(|(_, job)| job.created_at);
        let shown = jobs
            .into_iter()
            .filter_map(|(id, job)| Some(proto::Job { state: Some(job.state()), ..self.job_wanted(id, job)? }));
        shown.collect()
    }

    /// A job as it is asked for.
    fn job_wanted(&self, id: &JobId, job: &Job) -> Option<proto::Job> {
        let dispatch = self.dispatches.get(&job.dispatch)?;
        let sid = job.target.as_ref().and_then(|target| self.identities.get(target));
        Some(proto::Job {
            id: id.to_string(),
            dispatch_id: job.dispatch.to_string(),
            r#type: JobType::from(job.kind).into(),
            room: Some(self.info()),
            participant: sid.and_then(|sid| self.participant_info(sid)),
            metadata: dispatch.metadata.clone(),
            agent_name: dispatch.agent_name.to_string(),
            deployment: dispatch.deployment.clone(),
            attributes: dispatch.attributes.clone().into_iter().collect(),
            ..Default::default()
        })
    }

    /// The agents' object has these wishes.
    pub(super) fn agents_granted(&mut self, turn: &mut Turn, wishes: &Wishes, granted: Granted) {
        let agents = &mut self.record_mut().agents;
        if let Some(names) = &wishes.watch {
            agents.served.retain(|name, _| name.is_unnamed() || names.contains(name));
            agents.watched.clone_from(names);
        }
        if wishes.automatic {
            agents.asks = false;
            agents.asked_at = Some(turn.now);
        }
        agents.served.extend(granted.served);
        let launched = wishes.launch.iter().filter_map(|job| JobId::try_from(job.id.as_str()).ok());
        for (id, ends) in launched.map(|id| (id, false)).chain(wishes.end.iter().map(|id| (id.clone(), true))) {
            if let Some(job) = self.job_mut(&id).filter(|job| job.ends == ends) {
                job.told = true;
            }
        }
        for (id, error) in granted.over {
            self.job_ended(turn.now, &id, Ending::hopeless(error));
        }
        self.drop_dismissed();
        self.launch_jobs(turn);
    }

    /// The agents' object says how things stand.
    pub(super) fn agents_news(&mut self, turn: &mut Turn, news: News) {
        if let Some(served) = news.served {
            self.record_mut().agents.served.extend(served);
        }
        for (id, standing) in news.jobs {
            match standing {
                Standing::Ended(ending) => self.job_ended(turn.now, &id, ending),
                Standing::Running { worker, identity } => {
                    let Some(job) = self.job_mut(&id).filter(|job| !job.is_over()) else { continue };
                    job.status = Status::Running;
                    job.worker = Some(worker);
                    job.agent = Some(identity);
                    job.started_at = job.started_at.or(Some(turn.now));
                    job.updated_at = turn.now;
                }
                Standing::Waiting => {
                    let Some(job) = self.job_mut(&id).filter(|job| !job.is_over()) else { continue };
                    job.status = Status::Pending;
                    job.updated_at = turn.now;
                }
            }
        }
        self.drop_dismissed();
        self.launch_jobs(turn);
    }

    fn job_ended(&mut self, now: UnixMs, id: &JobId, ending: Ending) {
        let restarts = self.jobs.get(id).and_then(|job| self.dispatches.get(&job.dispatch)).is_some_and(|d| d.restarts);
        let mut failed = 0;
        if let Some(job) = self.job_mut(id).filter(|job| !job.is_over()) {
            let again = ending.error.is_some() && ending.retry && restarts && !job.ends && job.attempt < MAX_ATTEMPTS;
            let wait = RETRY_MS << (2 * (job.attempt - 1));
            job.retry_at = again.then(|| now.after(wait));
            job.status = ending.error.map_or(Status::Success, Status::Failed);
            failed = u64::from(matches!(job.status, Status::Failed(_)));
            job.ended_at = Some(now);
            job.updated_at = now;
            job.left_at = None;
        }
        self.counters.failed_jobs += failed;
        self.drop_finished();
    }

    /// Jobs of these kinds are not wanted any more.
    pub(super) fn dismiss_jobs(&mut self, now: UnixMs, which: impl Fn(&Job) -> bool) {
        let which: Vec<JobId> = self.jobs.iter().filter(|(_, job)| which(job)).map(|(id, _)| id.clone()).collect();
        for id in which {
            self.end_job(now, &id);
        }
        self.drop_dismissed();
    }

    fn end_job(&mut self, now: UnixMs, id: &JobId) {
        if let Some(job) = self.job_mut(id).filter(|job| !job.ends) {
            job.ends = true;
            job.told = false;
            job.retry_at = None;
            job.updated_at = now;
        }
    }

    /// A participant is out of the room: it may have been an agent, or have had some.
    pub(super) fn agents_without(&mut self, now: UnixMs, identity: &Identity, reason: DisconnectReason) {
        if self.jobs.is_empty() {
            return;
        }
        let its: Vec<JobId> = self.jobs.keys().cloned().collect();
        for id in its {
            let Some(job) = self.jobs.get(&id) else { continue };
            if job.agent.as_ref() == Some(identity) && job.status == Status::Running && !job.ends {
                if reason == DisconnectReason::ParticipantRemoved {
                    self.end_job(now, &id);
                } else if let Some(job) = self.job_mut(&id) {
                    job.left_at = Some(now);
                }
            } else if job.target.as_ref() == Some(identity)
                && job.status == Status::Pending
                && reason != DisconnectReason::DuplicateIdentity
            {
                // Whoever comes again gets another one. A job that runs is its agent's to end.
                self.end_job(now, &id);
            }
        }
        self.drop_finished();
    }

    /// A participant came, or came again.
    pub(super) fn agents_with(&mut self, identity: &Identity) {
        let its = self.jobs.iter().filter(|(_, job)| job.left_at.is_some() && job.agent.as_ref() == Some(identity));
        let its: Vec<JobId> = its.map(|(id, _)| id.clone()).collect();
        for id in its {
            if let Some(job) = self.job_mut(&id) {
                job.left_at = None;
            }
        }
    }

    /// When something is to happen to a job.
    pub(super) fn jobs_deadline(&self) -> Option<UnixMs> {
        self.jobs.values().filter_map(Job::deadline).min()
    }

    /// Ends the jobs whose agents stay away, tries those again that failed.
    pub(super) fn review_jobs(&mut self, turn: &mut Turn) {
        let due = self.jobs.iter().filter(|(_, job)| job.deadline().is_some_and(|at| at <= turn.now));
        let due: Vec<JobId> = due.map(|(id, _)| id.clone()).collect();
        for id in due {
            let Some(job) = self.jobs.get(&id) else { continue };
            if job.retry_at.is_none() {
                self.end_job(turn.now, &id);
                continue;
            }
            let (dispatch, kind, target, attempt) =
                (job.dispatch.clone(), job.kind, job.target.clone(), job.attempt + 1);
            self.remove_job(&id);
            if target.as_ref().is_none_or(|target| self.identities.contains_key(target)) {
                self.launch(turn, dispatch, kind, target, attempt);
            }
        }
    }

    /// Jobs of dispatches that are gone are kept until the agents' object knows.
    fn drop_dismissed(&mut self) {
        let gone = |job: &Job| !self.dispatches.contains_key(&job.dispatch) && (job.told && job.ends || job.is_over());
        let gone: Vec<JobId> = self.jobs.iter().filter(|(_, job)| gone(job)).map(|(id, _)| id.clone()).collect();
        gone.iter().for_each(|id| self.remove_job(id));
    }

    /// Jobs that are over are shown for as long as those are there whom they were for.
    fn drop_finished(&mut self) {
        let gone = |job: &Job| {
            let without = job.target.as_ref().is_some_and(|target| !self.identities.contains_key(target));
            job.is_over() && without
        };
        let gone: Vec<JobId> = self.jobs.iter().filter(|(_, job)| gone(job)).map(|(id, _)| id.clone()).collect();
        gone.iter().for_each(|id| self.remove_job(id));
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
