//! Enrolled keys, and which rooms each node may be in, in SQL.

use serde::Deserialize;
use shared::claims::NodeKey;
use shared::ids::{NodeId, RANDOM_LEN, RoomName};
use worker::{Result, SqlStorage, SqlStorageValue, State};

use super::RoomLink;
use crate::fleet::gate::{Enrolled, GateError};
use crate::objects::layout;
use crate::room::event::UnixMs;

/// How the tables came to be what they are.
const STEPS: [&[&str]; 4] = [
    &[
        "CREATE TABLE IF NOT EXISTS node (id TEXT PRIMARY KEY, key TEXT NOT NULL UNIQUE, revoked INTEGER NOT NULL, \
         enrolled_at INTEGER NOT NULL)",
        "CREATE TABLE IF NOT EXISTS admission (address TEXT PRIMARY KEY, until INTEGER NOT NULL, key TEXT)",
        "CREATE TABLE IF NOT EXISTS room_link (room TEXT NOT NULL, node TEXT NOT NULL, PRIMARY KEY (room, node))",
    ],
    // A revocation looks for the rooms of one node among those of all.
    &["CREATE INDEX IF NOT EXISTS room_link_by_node ON room_link (node)"],
    &["CREATE TABLE IF NOT EXISTS drained (node TEXT PRIMARY KEY)"],
    &["CREATE TABLE IF NOT EXISTS afar (room TEXT NOT NULL, field INTEGER NOT NULL, latitude REAL NOT NULL, \
       longitude REAL NOT NULL, km REAL NOT NULL, PRIMARY KEY (room, field))"],
];

#[derive(Deserialize)]
struct Row {
    id: NodeId,
    key: String,
    revoked: f64,
}

/// Enrols a key; the same key always gets the same id.
pub(super) fn enrol(
    state: &State,
    key: &NodeKey,
    random: [u8; RANDOM_LEN],
    now: UnixMs,
) -> Result<std::result::Result<NodeId, GateError>> {
    let sql = tables(state)?;
    let known = vec![SqlStorageValue::from(key.x.clone())];
    let known: Vec<Row> = sql.exec("SELECT id, key, revoked FROM node WHERE key = ?", known)?.to_array()?;
    if let Some(row) = known.into_iter().next() {
        return Ok(if row.revoked == 0.0 { Ok(row.id) } else { Err(GateError::Revoked) });
    }
    let node = NodeId::from_random(random);
    let values = [String::from(node.clone()), key.x.clone(), now.secs().to_string()].map(SqlStorageValue::from);
    sql.exec("INSERT INTO node (id, key, revoked, enrolled_at) VALUES (?, ?, 0, ?)", values.to_vec())?;
    Ok(Ok(node))
}

/// What is kept of a node.
pub(super) fn find(state: &State, node: &NodeId) -> Result<Option<Enrolled>> {
    let id = vec![SqlStorageValue::from(node.to_string())];
    let rows: Vec<Row> = tables(state)?.exec("SELECT id, key, revoked FROM node WHERE id = ?", id)?.to_array()?;
    Ok(rows.into_iter().next().map(|row| Enrolled { key: row.key, revoked: row.revoked != 0.0 }))
}

/// Revokes a node's key; says whether there is such a node.
pub(super) fn revoke(state: &State, node: &NodeId) -> Result<bool> {
    let id = vec![SqlStorageValue::from(node.to_string())];
    Ok(tables(state)?.exec("UPDATE node SET revoked = 1 WHERE id = ?", id)?.rows_written() > 0)
}

/// Notes whether an operator has a node drain; says whether there is such a node.
pub(super) fn set_drained(state: &State, node: &NodeId, drained: bool) -> Result<bool> {
    if find(state, node)?.is_none() {
        return Ok(false);
    }
    let statement =
        if drained { "INSERT OR IGNORE INTO drained (node) VALUES (?)" } else { "DELETE FROM drained WHERE node = ?" };
    tables(state)?.exec(statement, vec![SqlStorageValue::from(node.to_string())])?;
    Ok(true)
}

/// Whether an operator has a node drain.
pub(super) fn is_drained(state: &State, node: &NodeId) -> Result<bool> {
    #[derive(Deserialize)]
    struct Drained {
        node: NodeId,
    }
    let id = vec![SqlStorageValue::from(node.to_string())];
    let rows: Vec<Drained> = tables(state)?.exec("SELECT node FROM drained WHERE node = ?", id)?.to_array()?;
    Ok(rows.iter().any(|row| row.node == *node))
}

/// Whether a node may open a link to a room; if so the room is noted, to be told when the key is revoked.
pub(super) fn admit(state: &State, link: &RoomLink) -> Result<bool> {
    if find(state, &link.node)?.is_none_or(|enrolled| enrolled.revoked) {
        return Ok(false);
    }
    tables(state)?.exec("INSERT OR IGNORE INTO room_link (room, node) VALUES (?, ?)", pair(&link.room, &link.node))?;
    Ok(true)
}

/// Rooms the node was let into and that are not over.
pub(super) fn rooms(state: &State, node: &NodeId) -> Result<Vec<RoomName>> {
    #[derive(Deserialize)]
    struct Linked {
        room: RoomName,
    }
    let id = vec![SqlStorageValue::from(node.to_string())];
    let rows: Vec<Linked> = tables(state)?.exec("SELECT room FROM room_link WHERE node = ?", id)?.to_array()?;
    Ok(rows.into_iter().map(|row| row.room).collect())
}

/// The room has closed its link to the node.
pub(super) fn forget_link(state: &State, node: &NodeId, room: &RoomName) -> Result<()> {
    tables(state)?.exec("DELETE FROM room_link WHERE room = ? AND node = ?", pair(room, node))?;
    Ok(())
}

/// The room is over.
pub(super) fn forget_room(state: &State, room: &RoomName) -> Result<()> {
    let name = vec![SqlStorageValue::from(String::from(room.clone()))];
    let sql = tables(state)?;
    sql.exec("DELETE FROM room_link WHERE room = ?", name.clone())?;
    sql.exec("DELETE FROM afar WHERE room = ?", name)?;
    Ok(())
}

fn pair(room: &RoomName, node: &NodeId) -> Vec<SqlStorageValue> {
    vec![SqlStorageValue::from(String::from(room.clone())), SqlStorageValue::from(node.to_string())]
}

/// The tables of the fleet.
pub(super) fn tables(state: &State) -> Result<SqlStorage> {
    let sql = state.storage().sql();
    layout::open(&sql, &STEPS)?;
    Ok(sql)
}
