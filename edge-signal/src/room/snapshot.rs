//! The room as rows: written as it changes, read back after hibernation or a restart.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use shared::control::Description;
use shared::ids::{DispatchId, JobId, NodeId, ParticipantSid, RoomName, TrackSid};

use super::effect::RowChange;
use super::event::{ConnectionId, UnixMs};
use super::forward::source::ForwardKey;
use super::node::{Link, RELINK_GRACE_MS, RESTART_GRACE_MS};
use super::record::{LAYOUT, Record};
use super::session::Side;
use super::{Counters, Room};

/// Names one row.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum RowKey {
    Room,
    Participant(ParticipantSid),
    Session(ParticipantSid),
    Description(ParticipantSid, Side),
    Publication(TrackSid),
    Subscription(ParticipantSid, TrackSid),
    Node(NodeId),
    Departed(ParticipantSid),
    Forward(ParticipantSid, RoomName),
    Forwarded(ParticipantSid),
    Dispatch(DispatchId),
    Job(JobId),
}

/// A row as it is stored: table, key, JSON.
pub type StoredRow = (String, String, String);

/// Why rows do not make a room.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// There is no row of the room itself: the room does not exist.
    #[error("no room row")]
    NoRoom,
    /// The rows are of a layout that has to be migrated first, or never was.
    #[error("layout {0} is not {LAYOUT}")]
    Layout(u32),
    /// The rows were written by a newer version.
    #[error("the room was written by a newer version of the edge (layout {0}, this one reads up to {LAYOUT})")]
    Newer(u32),
    /// A row names a table that this version does not have.
    #[error("unknown table {0}")]
    UnknownTable(String),
    /// A key is not one of its table.
    #[error("malformed key in table {0}")]
    BadKey(&'static str),
    /// A row's JSON is not what this version writes.
    #[error("unreadable row in table {table}: {source}")]
    BadRow {
        /// Of this table.
        table: &'static str,
        /// What serde says.
        source: serde_json::Error,
    },
}

impl Room {
    /// Rebuilds a room from its rows, `(table, key, value)` in any order.
    ///
    /// `open_connections` and `linked_nodes` are those whose sockets are still open; whoever else the rows hold
    /// counts as gone since `now`. Ask [`Room::deadline`] and [`Room::changes`] right after.
    ///
    /// # Errors
    /// [`RestoreError`].
    pub fn restore(
        now: UnixMs,
        rows: impl IntoIterator<Item = (String, String, String)>,
        open_connections: &[ConnectionId],
        linked_nodes: &[NodeId],
    ) -> Result<Self, RestoreError> {
        let mut tables = Tables::default();
        for (table, key, value) in rows {
            tables.read(&table, key, &value)?;
        }
        let mut room = tables.into_room()?;
        room.notice_missing(now, open_connections, linked_nodes);
        Ok(room)
    }

    fn notice_missing(&mut self, now: UnixMs, open_connections: &[ConnectionId], linked_nodes: &[NodeId]) {
        for connection in self.connections.keys().cloned().collect::<Vec<_>>() {
            let gone = !open_connections.contains(&connection);
            let Some(sid) = self.connections.get(&connection).filter(|_| gone).cloned() else { continue };
            self.connections.remove(&connection);
            if let Some(participant) = self.participant_mut(&sid) {
                participant.connection = None;
                participant.gone_since = Some(now);
                participant.queued.clear();
            }
        }
        let restarted = open_connections.is_empty() && linked_nodes.is_empty();
        let since = if restarted { now.after(RESTART_GRACE_MS.saturating_sub(RELINK_GRACE_MS)) } else { now };
        for id in self.nodes.keys().cloned().collect::<Vec<_>>() {
            let linked = self.nodes.get(&id).is_some_and(|n| matches!(n.link, Link::Linked { .. } | Link::Ready));
            if linked && !linked_nodes.contains(&id) {
                self.node_gone(since, &id);
            }
        }
    }

    /// The rows changed since the last call, one each; to be written before the effects are carried out.
    pub fn changes(&mut self) -> Vec<RowChange> {
        if !self.record.created {
            return Vec::new();
        }
        std::mem::take(&mut self.changed).into_iter().map(|key| self.row(&key)).collect()
    }

    fn row(&self, row: &RowKey) -> RowChange {
        let (table, key, value) = match row {
            RowKey::Room => ("room", "room".to_owned(), json(Some(&self.record))),
            RowKey::Participant(sid) => ("participant", sid.to_string(), json(self.participants.get(sid))),
            RowKey::Session(sid) => ("session", sid.to_string(), json(self.sessions.get(sid))),
            RowKey::Description(sid, side) => {
                ("description", format!("{sid}/{}", side.as_str()), json(self.description(sid, *side)))
            }
            RowKey::Publication(track) => ("publication", track.to_string(), json(self.publications.get(track))),
            RowKey::Subscription(sid, track) => {
                let subscription = self.subscriptions.get(sid).and_then(|mine| mine.get(track));
                ("subscription", format!("{sid}/{track}"), json(subscription))
            }
            RowKey::Node(id) => ("node", id.to_string(), json(self.nodes.get(id))),
            RowKey::Departed(sid) => ("departed", sid.to_string(), json(self.departed.get(sid))),
            RowKey::Forward(sid, to) => {
                ("forward", format!("{sid}/{to}"), json(self.forwards.get(&(sid.clone(), to.clone()))))
            }
            RowKey::Forwarded(sid) => ("forwarded", sid.to_string(), json(self.forwarded.get(sid))),
            RowKey::Dispatch(id) => ("dispatch", id.to_string(), json(self.dispatches.get(id))),
            RowKey::Job(id) => ("job", id.to_string(), json(self.jobs.get(id))),
        };
        RowChange { table, key, value }
    }
}

#[derive(Default)]
struct Tables {
    record: Option<Record>,
    participants: BTreeMap<ParticipantSid, super::participant::Participant>,
    sessions: BTreeMap<ParticipantSid, super::session::Session>,
    descriptions: BTreeMap<(ParticipantSid, Side), Description>,
    publications: BTreeMap<TrackSid, super::publication::Publication>,
    subscriptions: BTreeMap<ParticipantSid, BTreeMap<TrackSid, super::subscription::Subscription>>,
    nodes: BTreeMap<NodeId, super::node::Node>,
    departed: BTreeMap<ParticipantSid, super::resume::Departed>,
    forwards: BTreeMap<ForwardKey, super::forward::source::Forward>,
    forwarded: BTreeMap<ParticipantSid, super::forward::destination::Forwarded>,
    dispatches: BTreeMap<DispatchId, super::dispatch::Dispatch>,
    jobs: BTreeMap<JobId, super::job::Job>,
}

impl Tables {
    fn read(&mut self, table: &str, key: String, value: &str) -> Result<(), RestoreError> {
        match table {
            "room" => self.record = Some(record(value)?),
            "participant" => {
                self.participants.insert(id("participant", key)?, parse("participant", value)?);
            }
            "session" => {
                self.sessions.insert(id("session", key)?, parse("session", value)?);
            }
            "description" => {
                let (sid, name) = key.split_once('/').ok_or(RestoreError::BadKey("description"))?;
                let side = Side::ALL.into_iter().find(|side| side.as_str() == name);
                let side = side.ok_or(RestoreError::BadKey("description"))?;
                self.descriptions.insert((id("description", sid.to_owned())?, side), parse("description", value)?);
            }
            "publication" => {
                self.publications.insert(id("publication", key)?, parse("publication", value)?);
            }
            "subscription" => {
                let (sid, track) = key.split_once('/').ok_or(RestoreError::BadKey("subscription"))?;
                let mine = self.subscriptions.entry(id("subscription", sid.to_owned())?).or_default();
                mine.insert(id("subscription", track.to_owned())?, parse("subscription", value)?);
            }
            "node" => {
                self.nodes.insert(id("node", key)?, parse("node", value)?);
            }
            "departed" => {
                self.departed.insert(id("departed", key)?, parse("departed", value)?);
            }
            "forward" => {
                let (sid, to) = key.split_once('/').ok_or(RestoreError::BadKey("forward"))?;
                let key = (id("forward", sid.to_owned())?, id("forward", to.to_owned())?);
                self.forwards.insert(key, parse("forward", value)?);
            }
            "forwarded" => {
                self.forwarded.insert(id("forwarded", key)?, parse("forwarded", value)?);
            }
            "dispatch" => {
                self.dispatches.insert(id("dispatch", key)?, parse("dispatch", value)?);
            }
            "job" => {
                self.jobs.insert(id("job", key)?, parse("job", value)?);
            }
            other => return Err(RestoreError::UnknownTable(other.to_owned())),
        }
        Ok(())
    }

    fn into_room(mut self) -> Result<Room, RestoreError> {
        let record = self.record.ok_or(RestoreError::NoRoom)?;
        // An edge that knows no agents left those of an earlier room of this name.
        self.dispatches.retain(|_, dispatch| dispatch.room == record.sid);
        self.jobs.retain(|_, job| job.room == record.sid);
        let connected = self.participants.values().filter_map(|p| Some((p.connection.clone()?, p.sid.clone())));
        Ok(Room {
            record,
            connections: connected.collect::<HashMap<_, _>>(),
            identities: self.participants.values().map(|p| (p.identity.clone(), p.sid.clone())).collect(),
            participants: self.participants,
            sessions: self.sessions,
            descriptions: self.descriptions,
            publications: self.publications,
            subscriptions: self.subscriptions,
            nodes: self.nodes,
            departed: self.departed,
            forwards: self.forwards,
            forwarded: self.forwarded,
            dispatches: self.dispatches,
            jobs: self.jobs,
            changed: BTreeSet::new(),
            counters: Counters::default(),
        })
    }
}

/// The room's own row, if it is of this layout: what else it has means nothing before that is known.
fn record(value: &str) -> Result<Record, RestoreError> {
    #[derive(Deserialize)]
    struct Written {
        #[serde(default)]
        layout: u32,
    }
    match parse::<Written>("room", value)?.layout {
        LAYOUT => parse("room", value),
        other => Err(RestoreError::Layout(other)),
    }
}

/// The name of the room that wrote these rows, though they be of another layout: **it stays where it is in all of them**.
#[must_use]
pub fn written_name(rows: &[(String, String, String)]) -> Option<RoomName> {
    #[derive(Deserialize)]
    struct Written {
        name: RoomName,
    }
    let (_, _, value) = rows.iter().find(|(table, _, _)| table == "room")?;
    Some(serde_json::from_str::<Written>(value).ok()?.name)
}

fn id<T: TryFrom<String>>(table: &'static str, key: String) -> Result<T, RestoreError> {
    T::try_from(key).map_err(|_| RestoreError::BadKey(table))
}

fn parse<T: DeserializeOwned>(table: &'static str, value: &str) -> Result<T, RestoreError> {
    serde_json::from_str(value).map_err(|source| RestoreError::BadRow { table, source })
}

/// Rows are made of structs, maps with text keys and numbers: serde_json can write all of them.
fn json<T: Serialize>(entity: Option<&T>) -> Option<String> {
    entity.and_then(|entity| serde_json::to_string(entity).ok())
}

#[cfg(test)]
mod tests {
    use shared::ids::RoomSid;

    use super::*;

    fn restored(change: impl FnOnce(&mut serde_json::Value)) -> Result<Room, RestoreError> {
        let sid = RoomSid::from_random([7; shared::ids::RANDOM_LEN]);
        let record = Record::new(RoomName::try_from("den").unwrap(), sid, UnixMs(1));
        let mut row = serde_json::to_value(&record).unwrap();
        change(&mut row);
        Room::restore(UnixMs(2), [("room".to_owned(), "room".to_owned(), row.to_string())], &[], &[])
    }

    #[test]
    fn the_name_is_known_whatever_the_layout() {
        let row = |table: &str, value: &str| (table.to_owned(), "key".to_owned(), value.to_owned());
        let name = |rows: &[_]| written_name(rows).map(String::from);
        let foreign = [row("node", "{}"), row("room", r#"{"layout":9,"name":"den","new":[]}"#)];
        assert_eq!(name(&foreign).as_deref(), Some("den"));
        let current = Record::new(RoomName::try_from("den").unwrap(), RoomSid::from_random([7; 12]), UnixMs(1));
        assert_eq!(name(&[row("room", &serde_json::to_string(&current).unwrap())]).as_deref(), Some("den"));
        assert_eq!(name(&[row("room", "damaged")]), None);
        assert_eq!(name(&[]), None);
    }

    #[test]
    fn rows_of_another_layout_are_known_as_such() {
        assert!(restored(|_| ()).is_ok());
        // Every field is readable, and yet: what they mean may have changed.
        let newer = restored(|row| row["layout"] = (LAYOUT + 1).into());
        assert!(matches!(newer, Err(RestoreError::Layout(found)) if found == LAYOUT + 1), "{newer:?}");
        let older = restored(|row| drop(row.as_object_mut().unwrap().remove("layout")));
        assert!(matches!(older, Err(RestoreError::Layout(0))), "{older:?}");
        // Nothing else of it is readable: still told apart from a damaged row.
        let foreign = restored(|row| *row = serde_json::json!({ "layout": 9 }));
        assert!(matches!(foreign, Err(RestoreError::Layout(9))), "{foreign:?}");
        let damaged = restored(|row| drop(row.as_object_mut().unwrap().remove("name")));
        assert!(matches!(damaged, Err(RestoreError::BadRow { table: "room", .. })), "{damaged:?}");
    }
}
