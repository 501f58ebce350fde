//! The directory object: one line for each room that exists, told by the rooms.

use std::panic::RefUnwindSafe;

use serde::{Deserialize, Serialize};
use shared::ids::RoomName;
use worker::{
    DurableObject, Env, Request, Response, Result, SqlStorage, SqlStorageValue, State, durable_object, wasm_bindgen,
};

use crate::objects::layout;
use crate::room::effect::DirectoryEntry;
use crate::runtime;

/// Where a room posts a [`Line`].
pub(crate) const LINE_PATH: &str = "/line";

/// Version of the table. **Count it up with every change that an older version would read wrongly.**
const LAYOUT: i32 = 1;

/// A room's line, or its end.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Line {
    /// Which room.
    pub(crate) room: RoomName,
    /// `None`: it ended.
    pub(crate) entry: Option<DirectoryEntry>,
}

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
        if request.path() != LINE_PATH {
            return runtime::text(404, "not found");
        }
        let line: Line = serde_json::from_str(&request.text().await?)?;
        layout::open(&self.sql, LAYOUT, &["room (name TEXT PRIMARY KEY, entry TEXT NOT NULL)"])?;
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
}
