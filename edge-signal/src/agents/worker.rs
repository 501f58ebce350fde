//! One worker: what it said of itself, how loaded it is, what it may be offered.

use livekit_protocol as proto;
use serde::{Deserialize, Serialize};
use shared::ids::{AgentName, IdError, WorkerId};

use super::link::JobKind;
use crate::room::event::UnixMs;

/// Offers that a worker has to answer at a time; further jobs wait.
pub const MAX_OFFERS: u32 = 8;
/// What a job counts that its worker's last report cannot know of, as part of a worker's whole load.
const LOAD_OF_A_JOB: f32 = 0.1;
/// A load that has changed by less than this is not kept for after a hibernation.
const KEPT_LOAD_STEP: f32 = 0.05;

/// A worker's socket and what it said. Kept with the socket: it outlives the object's memory as long as that does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Worker {
    /// Since when its socket is open.
    pub(super) since: UnixMs,
    /// What it registered as.
    pub(super) registered: Option<Registered>,
    /// `WS_AVAILABLE`.
    pub(super) available: bool,
    /// It let an offer pass unanswered, and has said nothing since.
    pub(super) silent: bool,
    /// Its load, 0 to 1, as it is kept.
    kept_load: f32,
    /// As it last said.
    #[serde(skip)]
    load: f32,
    /// Offers it has not answered.
    #[serde(skip)]
    pub(super) offers: u32,
    /// Jobs it was given since it last said its load.
    #[serde(skip)]
    pub(super) unreported: u32,
}

/// What a worker registered as.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Registered {
    pub(super) name: AgentName,
    pub(super) kind: JobKind,
    /// What its agents may do.
    pub(super) permission: proto::ParticipantPermission,
}

impl Registered {
    /// What `RegisterWorkerRequest` says.
    ///
    /// # Errors
    /// The name is over its limit.
    pub(super) fn new(request: &proto::RegisterWorkerRequest) -> Result<Self, IdError> {
        let mut permission = request.allowed_permissions.clone().unwrap_or_else(|| proto::ParticipantPermission {
            can_subscribe: true,
            can_publish: true,
            can_publish_data: true,
            can_update_metadata: true,
            ..Default::default()
        });
        let sources = &mut permission.can_publish_sources;
        sources.retain(|source| proto::TrackSource::try_from(*source).is_ok());
        sources.sort_unstable();
        sources.dedup();
        Ok(Self { name: AgentName::try_from(request.agent_name.as_str())?, kind: request.r#type().into(), permission })
    }

    /// Workers of one name that take one kind of jobs.
    pub(super) fn pool(&self) -> (AgentName, JobKind) {
        (self.name.clone(), self.kind)
    }
}

impl Worker {
    /// One that has said nothing yet.
    #[must_use]
    pub fn new(since: UnixMs) -> Self {
        Self {
            since,
            registered: None,
            available: true,
            silent: false,
            kept_load: 0.0,
            load: 0.0,
            offers: 0,
            unreported: 0,
        }
    }

    /// As it was kept, with so many offers to answer.
    pub(super) fn restore(&mut self, offers: u32) {
        self.load = self.kept_load;
        self.offers = offers;
    }

    /// Takes its status; whether that is to be kept.
    pub(super) fn update(&mut self, status: &proto::UpdateWorkerStatus) -> bool {
        let was_available = self.available;
        // A message without a status is about the load alone.
        if let Some(said) = status.status {
            self.available = said == i32::from(proto::WorkerStatus::WsAvailable);
        }
        self.available &= !status.draining;
        self.load = if status.load.is_finite() { status.load.clamp(0.0, 1.0) } else { 1.0 };
        self.unreported = 0;
        let changed = was_available != self.available || (self.load - self.kept_load).abs() >= KEPT_LOAD_STEP;
        if changed {
            self.kept_load = self.load;
        }
        changed
    }

    /// Whether it may be offered a job of this pool now.
    pub(super) fn takes(&self, name: &AgentName, kind: JobKind) -> bool {
        let fits =
            self.registered.as_ref().is_some_and(|registered| registered.name == *name && registered.kind == kind);
        fits && self.available && !self.silent && self.offers < MAX_OFFERS
    }

    /// Its load with the jobs that it has not counted yet.
    #[allow(clippy::cast_precision_loss, reason = "few jobs")]
    fn expected_load(&self) -> f32 {
        self.load + LOAD_OF_A_JOB * self.offers.saturating_add(self.unreported) as f32
    }
}

/// The least loaded of these; among equals, chance decides.
pub(super) fn least_loaded<'a>(
    workers: impl Iterator<Item = (&'a WorkerId, &'a Worker)>,
    mut chance: impl FnMut() -> u64,
) -> Option<&'a WorkerId> {
    let ranked = workers.map(|(id, worker)| (worker.expected_load(), chance(), id));
    ranked.min_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1))).map(|(.., id)| id)
}
