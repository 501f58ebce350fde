//! One job on its way: it waits, is offered to a worker, is held by one, has ended and its room is still to be told.

use livekit_protocol as proto;
use livekit_protocol::{JobState, JobStatus};
use serde::{Deserialize, Serialize};
use shared::claims::{AccessClaims, VideoGrant};
use shared::ids::{AgentName, Identity, JobId, RoomName, RoomSid, WorkerId};

use super::link::{Ending, JobKind, Standing};
use super::worker::Registered;
use crate::room::event::UnixMs;
use crate::room::metadata::{MAX_ATTRIBUTES_LEN, attributes_len, fits_metadata};

/// Milliseconds a worker has to answer an offer (LiveKit's 10 s).
pub const OFFER_LIMIT_MS: u64 = 10_000;
/// Milliseconds a worker whose socket broke has to come back and say which jobs it still holds.
pub const WORKER_RETURN_MS: u64 = 15_000;
/// Milliseconds a worker has to say how a job ended that it was told to end.
pub const ENDING_LIMIT_MS: u64 = 15_000;
/// Refusals after which a job is given up.
pub const MAX_REFUSALS: u32 = 20;
/// Longest wait before a job that all workers refused is offered again, milliseconds.
const MAX_BACKOFF_MS: u64 = 30_000;
/// Seconds an agent's token is good for (LiveKit's hour); in the room it is refreshed.
const TOKEN_TTL_SECS: u64 = 3_600;
/// The attribute in which an agent carries its name (LiveKit's).
const AGENT_NAME_ATTRIBUTE: &str = "lk.agent_name";

/// Row `job`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Job {
    pub(super) id: JobId,
    pub(super) room: RoomName,
    pub(super) sid: RoomSid,
    pub(super) name: AgentName,
    pub(super) kind: JobKind,
    /// As the room has it; its state is added when it is sent.
    #[serde(with = "crate::protobuf::message")]
    pub(super) job: proto::Job,
    /// When it came: the oldest is offered first.
    pub(super) since: UnixMs,
    pub(super) stage: Stage,
    /// Workers that refused it in this round.
    pub(super) refused_by: Vec<WorkerId>,
    pub(super) refusals: u32,
    /// Its room does not know how it stands.
    pub(super) untold: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Stage {
    /// For a worker that may be offered it, from then on.
    Waiting { from: UnixMs },
    /// A worker is asked.
    Offered { worker: WorkerId, until: UnixMs },
    /// A worker has it. `until`: it is to be heard of by then, because it was told to end or its worker is gone.
    Held { worker: WorkerId, identity: Identity, until: Option<UnixMs> },
    /// It is over.
    Ended(Ending),
}

impl Job {
    /// A job that a room wants; `None`: it is none.
    pub(super) fn new(now: UnixMs, room: &RoomName, sid: &RoomSid, job: proto::Job) -> Option<Self> {
        Some(Self {
            id: JobId::try_from(job.id.as_str()).ok()?,
            room: room.clone(),
            sid: sid.clone(),
            name: AgentName::try_from(job.agent_name.as_str()).ok()?,
            kind: job.r#type().into(),
            job,
            since: now,
            stage: Stage::Waiting { from: now },
            refused_by: Vec::new(),
            refusals: 0,
            untold: false,
        })
    }

    /// Bytes of it that app servers and participants chose.
    pub(super) fn bytes(&self) -> usize {
        let of =
            |participant: &proto::ParticipantInfo| participant.metadata.len() + attributes_len(&participant.attributes);
        let room = self.job.room.as_ref().map_or(0, |room| room.metadata.len());
        let participant = self.job.participant.as_ref().map_or(0, of);
        self.job.metadata.len() + attributes_len(&self.job.attributes) + room + participant
    }

    /// How it stands, for its room.
    pub(super) fn standing(&self) -> Standing {
        match &self.stage {
            Stage::Waiting { .. } | Stage::Offered { .. } => Standing::Waiting,
            Stage::Held { worker, identity, .. } => {
                Standing::Running { worker: worker.clone(), identity: identity.clone() }
            }
            Stage::Ended(ending) => Standing::Ended(ending.clone()),
        }
    }

    /// When something is to happen, whatever others do.
    pub(super) fn deadline(&self, now: UnixMs) -> Option<UnixMs> {
        match &self.stage {
            // One that may be offered already waits for a worker, not for the time.
            Stage::Waiting { from } => (*from > now).then_some(*from),
            Stage::Offered { until, .. } => Some(*until),
            Stage::Held { until, .. } => *until,
            Stage::Ended(_) => None,
        }
    }

    /// The worker that is asked or has it.
    pub(super) fn worker(&self) -> Option<&WorkerId> {
        match &self.stage {
            Stage::Offered { worker, .. } | Stage::Held { worker, .. } => Some(worker),
            Stage::Waiting { .. } | Stage::Ended(_) => None,
        }
    }

    /// How long until it is offered again to those that refused it, milliseconds.
    pub(super) fn backoff_ms(&self) -> u64 {
        let doubled = 500u64.checked_shl(self.refusals.min(16)).unwrap_or(MAX_BACKOFF_MS);
        doubled.min(MAX_BACKOFF_MS)
    }

    /// As a worker is sent it. LiveKit calls it running when it is offered already.
    pub(super) fn sent(&self, now: UnixMs, worker: &WorkerId, identity: &str) -> proto::Job {
        let at = nanoseconds(now);
        let state = JobState {
            status: JobStatus::JsRunning.into(),
            started_at: at,
            updated_at: at,
            participant_identity: identity.to_owned(),
            worker_id: worker.to_string(),
            ..Default::default()
        };
        proto::Job { state: Some(state), ..self.job.clone() }
    }

    /// The claims of the agent's token, of what its worker registered and answered; `None`: they are over their limits.
    pub(super) fn claims(
        &self,
        now: UnixMs,
        worker: &Registered,
        answer: &proto::AvailabilityResponse,
    ) -> Option<AccessClaims> {
        let identity = match answer.participant_identity.as_str() {
            "" => format!("agent-{}", self.id),
            said => said.to_owned(),
        };
        let identity = Identity::try_from(identity).ok()?;
        let fits = AgentName::try_from(answer.participant_name.as_str()).is_ok()
            && fits_metadata(&answer.participant_metadata)
            && attributes_len(&answer.participant_attributes) <= MAX_ATTRIBUTES_LEN;
        if !fits {
            return None;
        }
        let mut attributes: std::collections::BTreeMap<String, String> =
            std::iter::once((AGENT_NAME_ATTRIBUTE.to_owned(), self.name.to_string())).collect();
        attributes.extend(answer.participant_attributes.clone());
        let now = now.secs();
        Some(AccessClaims {
            sub: identity.to_string(),
            identity: identity.to_string(),
            exp: now + TOKEN_TTL_SECS,
            nbf: Some(now),
            iat: Some(now),
            name: answer.participant_name.clone(),
            metadata: answer.participant_metadata.clone(),
            attributes,
            kind: "agent".to_owned(),
            video: Some(grant(&self.room, &worker.permission)),
            ..AccessClaims::default()
        })
    }
}

/// What an agent may do in its room.
fn grant(room: &RoomName, permission: &proto::ParticipantPermission) -> VideoGrant {
    let sources = permission.can_publish_sources.iter().filter_map(|source| proto::TrackSource::try_from(*source).ok());
    VideoGrant {
        room_join: true,
        room: room.to_string(),
        can_publish: Some(permission.can_publish),
        can_subscribe: Some(permission.can_subscribe),
        can_publish_data: Some(permission.can_publish_data),
        can_publish_sources: sources.map(|source| source.as_str_name().to_lowercase()).collect(),
        can_update_own_metadata: Some(permission.can_update_metadata),
        can_subscribe_metrics: Some(permission.can_subscribe_metrics),
        hidden: permission.hidden,
        agent: true,
        ..VideoGrant::default()
    }
}

/// Times of jobs and dispatches are in nanoseconds.
#[must_use]
pub fn nanoseconds(at: UnixMs) -> i64 {
    i64::try_from(at.0.saturating_mul(1_000_000)).unwrap_or(i64::MAX)
}
