//! Offering jobs: to the least loaded worker first, to the next one when it does not take it.

use livekit_protocol as proto;
use livekit_protocol::server_message::Message as ToWorker;
use shared::ids::{Identity, JobId, WorkerId};

use super::Registry;
use super::event::Effect;
use super::job::{Job, MAX_REFUSALS, OFFER_LIMIT_MS, Stage};
use super::link::Ending;
use super::turn::Turn;
use super::worker::least_loaded;
use crate::room::event::UnixMs;

impl Registry {
    /// An answer to an offer.
    pub(super) fn answered(&mut self, turn: &mut Turn, id: &WorkerId, answer: &proto::AvailabilityResponse) {
        let now = turn.now;
        let asked = |job: &&Job| matches!(&job.stage, Stage::Offered { worker, .. } if worker == id);
        let job = JobId::try_from(answer.job_id.as_str()).ok().and_then(|job| self.jobs.get(&job)).filter(asked);
        // An answer that comes too late is to an offer that somebody else has.
        let Some(job) = job else { return turn.count("offer_answered_late") };
        let job_id = job.id.clone();
        if !answer.available {
            turn.count("offer_refused");
            if answer.terminate {
                self.release(id);
                return self.end(&job_id, Ending::hopeless("a worker refused it for all"));
            }
            return self.refused(turn, &job_id, id);
        }
        let registered = self.workers.get(id).and_then(|worker| worker.registered.as_ref());
        let claims = registered.and_then(|registered| job.claims(now, registered, answer));
        let Some((claims, identity)) =
            claims.and_then(|claims| Some((claims.clone(), Identity::try_from(claims.sub).ok()?)))
        else {
            turn.count("offer_answered_badly");
            return self.refused(turn, &job_id, id);
        };
        let sent = Box::new(job.sent(now, id, identity.as_str()));
        turn.effects.push(Effect::Assign { worker: id.clone(), job: sent, claims: Box::new(claims) });
        self.release(id);
        if let Some(worker) = self.workers.get_mut(id) {
            worker.unreported = worker.unreported.saturating_add(1);
        }
        if let Some(job) = self.job_mut(&job_id) {
            job.stage = Stage::Held { worker: id.clone(), identity, until: None };
            job.refused_by.clear();
            job.untold = true;
        }
    }

    /// A worker does not take a job: another one may.
    pub(super) fn refused(&mut self, turn: &mut Turn, id: &JobId, worker: &WorkerId) {
        self.release(worker);
        let Some(job) = self.job_mut(id) else { return };
        job.refusals = job.refusals.saturating_add(1);
        if job.refusals >= MAX_REFUSALS {
            turn.count("job_refused_by_all");
            return self.end(id, Ending::hopeless("no worker takes it"));
        }
        job.refused_by.push(worker.clone());
        job.stage = Stage::Waiting { from: turn.now };
    }

    /// Offers every job that waits to the least loaded worker that may have it, the oldest first.
    pub(super) fn offer_waiting(&mut self, turn: &mut Turn) {
        let now = turn.now;
        let waits = |job: &&Job| matches!(job.stage, Stage::Waiting { from } if from <= now);
        let mut waiting: Vec<(UnixMs, JobId)> =
            self.jobs.values().filter(waits).map(|job| (job.since, job.id.clone())).collect();
        waiting.sort_unstable();
        for (_, id) in waiting {
            let Some(job) = self.jobs.get(&id) else { continue };
            let may = self.workers.iter().filter(|(_, worker)| worker.takes(&job.name, job.kind));
            let (mut fresh, mut any) = (Vec::new(), false);
            for (worker, known) in may {
                any = true;
                if !job.refused_by.contains(worker) {
                    fresh.push((worker, known));
                }
            }
            match least_loaded(fresh.into_iter(), || turn.number()).cloned() {
                Some(worker) => self.offer(turn, &id, worker),
                // All that could have it refused it: they are asked again later.
                None if any => {
                    if let Some(job) = self.job_mut(&id) {
                        job.stage = Stage::Waiting { from: now.after(job.backoff_ms()) };
                        job.refused_by.clear();
                    }
                }
                None => {}
            }
        }
    }

    fn offer(&mut self, turn: &mut Turn, id: &JobId, worker: WorkerId) {
        let now = turn.now;
        let Some(job) = self.job_mut(id) else { return };
        let request = proto::AvailabilityRequest { job: Some(job.sent(now, &worker, "")), resuming: false };
        job.stage = Stage::Offered { worker: worker.clone(), until: now.after(OFFER_LIMIT_MS) };
        turn.send(&worker, ToWorker::Availability(request));
        if let Some(worker) = self.workers.get_mut(&worker) {
            worker.offers = worker.offers.saturating_add(1);
        }
    }

    /// A worker has one offer less to answer.
    pub(super) fn release(&mut self, worker: &WorkerId) {
        if let Some(worker) = self.workers.get_mut(worker) {
            worker.offers = worker.offers.saturating_sub(1);
        }
    }
}
