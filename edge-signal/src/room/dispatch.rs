//! Dispatches: a room's wishes for agents, from its configuration and from app servers (LiveKit's `AgentDispatchService`).

use std::collections::{BTreeMap, HashMap};

use livekit_protocol as proto;
use livekit_protocol::JobRestartPolicy;
use serde::{Deserialize, Serialize};
use shared::ids::{AgentName, DispatchId, RoomSid};

use super::Room;
use super::event::UnixMs;
use super::metadata::{Excess, MAX_ATTRIBUTES_LEN, attributes_len, fits_metadata};
use super::service::{Answer, Code, Error};
use super::snapshot::RowKey;
use super::turn::Turn;
use crate::agents::job::nanoseconds;

/// Most dispatches of a room.
pub const MAX_DISPATCHES: usize = 100;

/// Row `dispatch`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Dispatch {
    /// Of this life of the room: an older edge may have left it here when the room ended.
    pub(super) room: RoomSid,
    pub(super) agent_name: AgentName,
    pub(super) metadata: String,
    pub(super) attributes: BTreeMap<String, String>,
    pub(super) deployment: String,
    /// A job that fails is tried again.
    pub(super) restarts: bool,
    pub(super) created_at: UnixMs,
}

impl Dispatch {
    /// A wish within its limits.
    ///
    /// # Errors
    /// What is over them.
    fn new(room: &RoomSid, now: UnixMs, wish: &proto::RoomAgentDispatch) -> Result<Self, Error> {
        let agent_name = AgentName::try_from(wish.agent_name.as_str()).map_err(|_| too_long("agent name"))?;
        if AgentName::try_from(wish.deployment.as_str()).is_err() {
            return Err(too_long("deployment"));
        }
        if !fits_metadata(&wish.metadata) {
            return Err(Excess::Metadata.into());
        }
        if attributes_len(&wish.attributes) > MAX_ATTRIBUTES_LEN {
            return Err(Excess::Attributes.into());
        }
        Ok(Self {
            room: room.clone(),
            agent_name,
            metadata: wish.metadata.clone(),
            attributes: wish.attributes.clone().into_iter().collect(),
            deployment: wish.deployment.clone(),
            restarts: wish.restart_policy() == JobRestartPolicy::JrpOnFailure,
            created_at: now,
        })
    }
}

/// Checks the agents of a room's configuration.
///
/// # Errors
/// There are too many, or one is over its limits.
pub(super) fn check_agents(wishes: &[proto::RoomAgentDispatch]) -> Result<(), Error> {
    if wishes.len() >= MAX_DISPATCHES {
        return Err(Error::over("number of agents exceeds limits", MAX_DISPATCHES - 1));
    }
    let nowhere = RoomSid::from_random([0; shared::ids::RANDOM_LEN]);
    wishes.iter().try_for_each(|wish| Dispatch::new(&nowhere, UnixMs(0), wish).map(drop))
}

fn too_long(field: &str) -> Error {
    Error::over(&format!("{field} length exceeds limits"), shared::ids::MAX_NAME_LEN)
}

impl Room {
    /// The dispatches that a room begins with: those of its configuration, and the automatic one.
    pub(super) fn configure_agents(&mut self, turn: &mut Turn, wishes: &[proto::RoomAgentDispatch]) {
        let automatic = proto::RoomAgentDispatch::default();
        let named_all = wishes.iter().all(|wish| !wish.agent_name.is_empty());
        for wish in named_all.then_some(&automatic).into_iter().chain(wishes) {
            // They were checked at the door.
            if let Ok(dispatch) = Dispatch::new(&self.record.sid, turn.now, wish) {
                self.put_dispatch(DispatchId::from_random(turn.random()), dispatch);
            }
        }
        self.call_agents(turn);
    }

    /// `CreateDispatch`: a room that is not there is made, as LiveKit does.
    pub(super) fn create_dispatch(
        &mut self,
        turn: &mut Turn,
        request: proto::CreateAgentDispatchRequest,
    ) -> Result<Answer, Error> {
        let wish = proto::RoomAgentDispatch {
            agent_name: request.agent_name,
            metadata: request.metadata,
            restart_policy: request.restart_policy,
            deployment: request.deployment,
            attributes: request.attributes,
        };
        let dispatch = Dispatch::new(&self.record.sid, turn.now, &wish)?;
        if self.dispatches.len() >= MAX_DISPATCHES {
            let text = format!("the room has {MAX_DISPATCHES} dispatches");
            return Err(Error { code: Code::ResourceExhausted, text, argument: None });
        }
        self.create_unless_there(turn, &proto::RoomConfiguration::default());
        let id = DispatchId::from_random(turn.random());
        self.put_dispatch(id.clone(), dispatch);
        self.call_agents(turn);
        self.dispatch_shown(&id)
    }

    /// `DeleteDispatch`: its jobs end.
    pub(super) fn delete_dispatch(&mut self, turn: &mut Turn, id: &str) -> Result<Answer, Error> {
        let id = DispatchId::try_from(id).ok().filter(|id| self.dispatches.contains_key(id));
        let id = id.ok_or_else(Error::no_dispatch)?;
        let shown = self.dispatch_shown(&id)?;
        self.dispatches.remove(&id);
        self.changed.insert(RowKey::Dispatch(id.clone()));
        self.dismiss_jobs(turn.now, |job| job.dispatch == id);
        Ok(shown)
    }

    /// `ListDispatch`: all, or the one of this id; the oldest first.
    pub(super) fn list_dispatches(&self, id: &str) -> Answer {
        let mut found: Vec<_> =
            self.dispatches.iter().filter(|(known, _)| id.is_empty() || known.as_str() == id).collect();
        found.sort_by_key(|(_, dispatch)| (dispatch.created_at, !dispatch.agent_name.is_unnamed()));
        Answer::Dispatches(found.into_iter().map(|(id, dispatch)| self.dispatch_info(id, dispatch)).collect())
    }

    fn dispatch_shown(&self, id: &DispatchId) -> Result<Answer, Error> {
        let dispatch = self.dispatches.get(id).ok_or_else(Error::no_dispatch)?;
        Ok(Answer::Dispatch(Box::new(self.dispatch_info(id, dispatch))))
    }

    fn dispatch_info(&self, id: &DispatchId, dispatch: &Dispatch) -> proto::AgentDispatch {
        let policy = if dispatch.restarts { JobRestartPolicy::JrpOnFailure } else { JobRestartPolicy::JrpNever };
        let created_at = nanoseconds(dispatch.created_at);
        proto::AgentDispatch {
            id: id.to_string(),
            agent_name: dispatch.agent_name.to_string(),
            room: self.record.name.to_string(),
            metadata: dispatch.metadata.clone(),
            state: Some(proto::AgentDispatchState { jobs: self.jobs_of(id), created_at, deleted_at: 0 }),
            restart_policy: policy.into(),
            deployment: dispatch.deployment.clone(),
            attributes: dispatch.attributes.clone().into_iter().collect::<HashMap<_, _>>(),
        }
    }

    fn put_dispatch(&mut self, id: DispatchId, dispatch: Dispatch) {
        self.changed.insert(RowKey::Dispatch(id.clone()));
        self.dispatches.insert(id, dispatch);
    }
}
