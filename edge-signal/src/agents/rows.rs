//! The registry as rows: written as it changes, read back after hibernation or a restart.

use std::collections::{BTreeMap, BTreeSet};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use shared::ids::{AgentName, JobId, RoomName, RoomSid, WorkerId};

use super::event::RowChange;
use super::job::{Job, Stage};
use super::link::JobKind;
use super::worker::Worker;
use super::{Pool, Registry};
use crate::room::event::{Context, UnixMs};

/// Row `watch`: a room that wants to hear of workers of these names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Watch {
    pub(super) sid: RoomSid,
    pub(super) names: BTreeSet<AgentName>,
    /// It does not know yet what they take.
    pub(super) untold: bool,
}

/// Row `pool`: when it last had a worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Seen {
    name: AgentName,
    kind: JobKind,
    at: UnixMs,
}

/// Names one row.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum RowKey {
    Job(JobId),
    Watch(RoomName),
    Pool(Pool),
}

/// Why rows do not make a registry.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// A row's table or key is none.
    #[error("unknown row in table {0}")]
    Unknown(String),
    /// A row's JSON is not what this version writes.
    #[error("unreadable row in table {table}: {source}")]
    BadRow {
        /// Of this table.
        table: String,
        /// What serde says.
        source: serde_json::Error,
    },
}

impl Registry {
    /// Rebuilds the registry from its rows, `(table, key, value)` in any order, and the workers whose sockets are open.
    /// Workers that the rows name besides are gone since `context.now`.
    ///
    /// # Errors
    /// [`RestoreError`].
    pub fn restore(
        context: Context,
        rows: impl IntoIterator<Item = (String, String, String)>,
        workers: impl IntoIterator<Item = (WorkerId, Worker)>,
    ) -> Result<Self, RestoreError> {
        let mut registry = Self { workers: workers.into_iter().collect(), ..Self::default() };
        for (table, key, value) in rows {
            match table.as_str() {
                "job" => {
                    let job: Job = parse(&table, &value)?;
                    registry.jobs.insert(job.id.clone(), job);
                }
                "watch" => {
                    let room = RoomName::try_from(key).map_err(|_| RestoreError::Unknown(table.clone()))?;
                    registry.watches.insert(room, parse(&table, &value)?);
                }
                "pool" => {
                    let seen: Seen = parse(&table, &value)?;
                    registry.pools.insert((seen.name, seen.kind), seen.at);
                }
                _ => return Err(RestoreError::Unknown(table)),
            }
        }
        registry.restore_workers();
        registry.notice_missing(context);
        Ok(registry)
    }

    fn restore_workers(&mut self) {
        let mut offers: BTreeMap<WorkerId, u32> = BTreeMap::new();
        for job in self.jobs.values() {
            if let Stage::Offered { worker, .. } = &job.stage {
                *offers.entry(worker.clone()).or_default() += 1;
            }
        }
        for (id, worker) in &mut self.workers {
            worker.restore(offers.get(id).copied().unwrap_or(0));
        }
    }

    fn notice_missing(&mut self, context: Context) {
        let named = self.jobs.values().filter_map(Job::worker).filter(|worker| !self.workers.contains_key(*worker));
        for worker in named.cloned().collect::<BTreeSet<_>>() {
            self.lose_jobs_of(context.now, &worker);
        }
    }

    /// The rows changed since the last call, one each; to be written before the effects are carried out.
    pub fn changes(&mut self) -> Vec<RowChange> {
        std::mem::take(&mut self.changed).into_iter().map(|key| self.row(key)).collect()
    }

    fn row(&self, key: RowKey) -> RowChange {
        match key {
            RowKey::Job(id) => RowChange { table: "job", key: id.to_string(), value: json(self.jobs.get(&id)) },
            RowKey::Watch(room) => {
                RowChange { table: "watch", key: room.to_string(), value: json(self.watches.get(&room)) }
            }
            RowKey::Pool((name, kind)) => {
                let at = self.pools.get(&(name.clone(), kind)).copied();
                let key = format!("{kind:?}/{name}");
                let seen = at.map(|at| Seen { name, kind, at });
                RowChange { table: "pool", key, value: json(seen.as_ref()) }
            }
        }
    }
}

fn parse<T: DeserializeOwned>(table: &str, value: &str) -> Result<T, RestoreError> {
    serde_json::from_str(value).map_err(|source| RestoreError::BadRow { table: table.to_owned(), source })
}

/// Rows are made of structs, maps with text keys and numbers: serde_json can write all of them.
fn json<T: Serialize>(entity: Option<&T>) -> Option<String> {
    entity.and_then(|entity| serde_json::to_string(entity).ok())
}
