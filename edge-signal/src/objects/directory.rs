//! The directory object: one line for each room that exists, told by the rooms.

use std::panic::RefUnwindSafe;

use livekit_protocol::ListRoomsResponse;
use serde::{Deserialize, Serialize};
use shared::ids::RoomName;
use worker::{
    DurableObject, Env, Request, Response, Result, SqlStorage, SqlStorageValue, State, durable_object, wasm_bindgen,
};

use crate::api::metrics::Tally;
use crate::objects::layout;
use crate::room::effect::DirectoryEntry;
use crate::runtime;

/// Where a room posts a [`Line`].
pub(crate) const LINE_PATH: &str = "/line";

/// Where the Worker posts names of rooms, none for all, and reads [`Listed`].
pub(crate) const LIST_PATH: &str = "/list";

/// Where the Worker asks for a [`Tally`].
pub(crate) const TALLY_PATH: &str = "/tally";

/// How the table came to be what it is.
const STEPS: [&[&str]; 1] = [&["CREATE TABLE IF NOT EXISTS room (name TEXT PRIMARY KEY, entry TEXT NOT NULL)"]];

/// A room's line, or its end.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Line {
    /// Which room.
    pub(crate) room: RoomName,
    /// `None`: it ended.
    pub(crate) entry: Option<DirectoryEntry>,
}

/// The rooms that are there.
#[derive(Serialize, Deserialize)]
pub(crate) struct Listed(#[serde(with = "crate::protobuf::message")] pub(crate) ListRoomsResponse);

#[durable_object]
struct DirectoryObject {
    sql: SqlStorage,
}

impl RefUnwindSafe for DirectoryObject {}

impl DurableObject for DirectoryObject {
    fn new(state: State, _env: Env) -> Self {
        Self { sql: state.storage().sql() }
    }

    async fn fetch(&self, mut request: Request) -> Result<Response> {
        let body = request.text().await?;
        match request.path().as_str() {
            LINE_PATH => self.note(serde_json::from_str(&body)?),
            LIST_PATH => self.list(&serde_json::from_str::<Vec<RoomName>>(&body)?),
            TALLY_PATH => self.tally(),
            _ => runtime::text(404, "not found"),
        }
    }
}

impl DirectoryObject {
    fn note(&self, line: Line) -> Result<Response> {
        layout::open(&self.sql, &STEPS)?;
        let name = SqlStorageValue::from(String::from(line.room));
        match line.entry {
            Some(entry) => {
                let entry = SqlStorageValue::from(serde_json::to_string(&entry)?);
                self.sql.exec("INSERT OR REPLACE INTO room (name, entry) VALUES (?, ?)", vec![name, entry])?;
            }
            None => {
                self.sql.exec("DELETE FROM room WHERE name = ?", vec![name])?;
            }
        }
        runtime::text(200, "null")
    }

    fn tally(&self) -> Result<Response> {
        layout::open(&self.sql, &STEPS)?;
        let counted = "SELECT COUNT(*) AS rooms, IFNULL(SUM(entry ->> 'participants'), 0) AS participants FROM room";
        let tally = self.sql.exec(counted, None)?.one::<Tally>()?;
        runtime::text(200, &serde_json::to_string(&tally)?)
    }

    fn list(&self, names: &[RoomName]) -> Result<Response> {
        #[derive(Deserialize)]
        struct Row {
            name: String,
            entry: String,
        }
        layout::open(&self.sql, &STEPS)?;
        let found = if names.is_empty() {
            self.sql.exec("SELECT name, entry FROM room ORDER BY name", None)?
        } else {
            // Rows that are read are paid for: one name does not read ten thousand.
            let named = "SELECT name, entry FROM room WHERE name IN (SELECT value FROM json_each(?)) ORDER BY name";
            self.sql.exec(named, vec![serde_json::to_string(names)?.into()])?
        };
        let mut listed = Listed(ListRoomsResponse::default());
        for row in found.to_array::<Row>()? {
            listed.0.rooms.push(serde_json::from_str::<DirectoryEntry>(&row.entry)?.into_room(&row.name));
        }
        runtime::text(200, &serde_json::to_string(&listed)?)
    }
}
