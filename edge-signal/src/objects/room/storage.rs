//! The room's rows, used tickets, and the directory line not yet told.

use serde::Deserialize;
use shared::ids::Identity;
use worker::{Result, SqlStorage, SqlStorageValue, State};

use super::words::Letter;
use crate::objects::agents::Over;
use crate::objects::directory::Line;
use crate::room::effect::{RowChange, TABLES};
use crate::room::event::UnixMs;

/// The object's SQL.
pub(super) struct Storage {
    sql: SqlStorage,
}

#[derive(Deserialize)]
struct Row {
    key: String,
    value: String,
}

#[derive(Deserialize)]
struct Count {
    count: f64,
}

impl Storage {
    pub(super) fn new(state: &State) -> Self {
        Self { sql: state.storage().sql() }
    }

    /// Whether anything was ever written here: reading must not make tables in an object that has no room.
    fn exists(&self) -> Result<bool> {
        has_table(&self.sql, "room")
    }

    fn create(&self) -> Result<()> {
        if self.exists()? { Ok(()) } else { self.create_missing() }
    }

    fn create_missing(&self) -> Result<()> {
        for table in TABLES {
            self.sql.exec(
                &format!("CREATE TABLE IF NOT EXISTS {table} (key TEXT PRIMARY KEY, value TEXT NOT NULL)"),
                None,
            )?;
        }
        self.sql.exec("CREATE TABLE IF NOT EXISTS used_ticket (jti TEXT PRIMARY KEY, exp INTEGER NOT NULL)", None)?;
        self.sql.exec(
            "CREATE TABLE IF NOT EXISTS revoked (identity TEXT PRIMARY KEY, before INTEGER NOT NULL, until INTEGER NOT NULL)",
            None,
        )?;
        self.sql.exec("CREATE TABLE IF NOT EXISTS agents_over (sid TEXT PRIMARY KEY, value TEXT NOT NULL)", None)?;
        self.sql.exec("CREATE TABLE IF NOT EXISTS letter (key TEXT PRIMARY KEY, value TEXT NOT NULL)", None)?;
        self.sql
            .exec("CREATE TABLE IF NOT EXISTS directory_line (id INTEGER PRIMARY KEY, line TEXT NOT NULL)", None)?;
        Ok(())
    }

    /// All rows of the room: table, key, value.
    pub(super) fn rows(&self) -> Result<Vec<(String, String, String)>> {
        if !self.exists()? {
            return Ok(Vec::new());
        }
        // Rows of another layout have to be read to be known as such, and it may lack a table.
        self.create_missing()?;
        let mut all = Vec::new();
        for table in TABLES {
            let rows: Vec<Row> = self.sql.exec(&format!("SELECT key, value FROM {table}"), None)?.to_array()?;
            all.extend(rows.into_iter().map(|row| (table.to_owned(), row.key, row.value)));
        }
        Ok(all)
    }

    pub(super) fn write(&self, changes: &[RowChange]) -> Result<()> {
        if changes.is_empty() {
            return Ok(());
        }
        self.create()?;
        for change in changes {
            let (table, key) = (change.table, SqlStorageValue::from(change.key.clone()));
            match &change.value {
                Some(value) => {
                    let values = vec![key, SqlStorageValue::from(value.clone())];
                    self.sql.exec(&format!("INSERT OR REPLACE INTO {table} (key, value) VALUES (?, ?)"), values)?
                }
                None => self.sql.exec(&format!("DELETE FROM {table} WHERE key = ?"), vec![key])?,
            };
        }
        Ok(())
    }

    /// Deletes the room. Used tickets stay until they expire, and the directory is still to be told.
    pub(super) fn wipe_room(&self) -> Result<()> {
        if self.exists()? {
            for table in TABLES {
                self.sql.exec(&format!("DELETE FROM {table}"), None)?;
            }
        }
        Ok(())
    }

    /// Whether a ticket was used before.
    pub(super) fn is_used(&self, jti: &str) -> Result<bool> {
        if !self.exists()? {
            return Ok(false);
        }
        let jti = vec![SqlStorageValue::from(jti.to_owned())];
        let found = self.sql.exec("SELECT count(*) AS count FROM used_ticket WHERE jti = ?", jti)?.one::<Count>()?;
        Ok(found.count > 0.0)
    }

    /// Marks a ticket as used, and forgets those that have expired since (`leeway` included).
    pub(super) fn mark_used(&self, jti: &str, exp: u64, now: UnixMs, leeway_secs: u64) -> Result<()> {
        self.create()?;
        let oldest = integer(now.secs().saturating_sub(leeway_secs));
        self.sql.exec("DELETE FROM used_ticket WHERE exp < ?", vec![oldest])?;
        let values = vec![SqlStorageValue::from(jti.to_owned()), integer(exp)];
        self.sql.exec("INSERT INTO used_ticket (jti, exp) VALUES (?, ?)", values)?;
        Ok(())
    }

    /// Lets no token of this identity in that was minted before `before` (Unix seconds), until it is forgotten.
    pub(super) fn revoke(&self, identity: &Identity, before: u64, until: u64, now: UnixMs) -> Result<()> {
        self.create_missing()?;
        self.sql.exec("DELETE FROM revoked WHERE until < ?", vec![integer(now.secs())])?;
        let values = vec![SqlStorageValue::from(identity.to_string()), integer(before), integer(until)];
        self.sql.exec("INSERT OR REPLACE INTO revoked (identity, before, until) VALUES (?, ?, ?)", values)?;
        Ok(())
    }

    /// Tokens of this identity minted before then let nobody in; `None`: all do.
    pub(super) fn revoked_before(&self, identity: &str) -> Result<Option<u64>> {
        #[derive(Deserialize)]
        struct Row {
            before: f64,
        }
        // Nor has a room of an earlier version that table.
        if !has_table(&self.sql, "revoked")? {
            return Ok(None);
        }
        let identity = vec![SqlStorageValue::from(identity.to_owned())];
        let rows: Vec<Row> = self.sql.exec("SELECT before FROM revoked WHERE identity = ?", identity)?.to_array()?;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "seconds are exact in a double")]
        Ok(rows.first().map(|row| row.before as u64))
    }

    /// Keeps that the agents' object is to forget a room that ended.
    pub(super) fn keep_agents_over(&self, over: &Over) -> Result<()> {
        // A room of an earlier version does not have that table.
        self.create_missing()?;
        let values = vec![over.sid.to_string().into(), serde_json::to_string(over)?.into()];
        self.sql.exec("INSERT OR REPLACE INTO agents_over (sid, value) VALUES (?, ?)", values)?;
        Ok(())
    }

    /// A room that ended, of which the agents' object does not know.
    pub(super) fn agents_over(&self) -> Result<Option<Over>> {
        #[derive(Deserialize)]
        struct Row {
            value: String,
        }
        if !has_table(&self.sql, "agents_over")? {
            return Ok(None);
        }
        let rows: Vec<Row> = self.sql.exec("SELECT value FROM agents_over LIMIT 1", None)?.to_array()?;
        rows.first().map(|row| serde_json::from_str(&row.value).map_err(Into::into)).transpose()
    }

    pub(super) fn drop_agents_over(&self, over: &Over) -> Result<()> {
        self.sql.exec("DELETE FROM agents_over WHERE sid = ?", vec![over.sid.to_string().into()])?;
        Ok(())
    }

    /// Keeps what another room is to hear, in place of what it was to hear before.
    pub(super) fn keep_letter(&self, letter: &Letter) -> Result<()> {
        // A room of an earlier version does not have that table.
        self.create_missing()?;
        let values = vec![letter.key().into(), serde_json::to_string(letter)?.into()];
        self.sql.exec("INSERT OR REPLACE INTO letter (key, value) VALUES (?, ?)", values)?;
        Ok(())
    }

    /// What other rooms have not heard, the oldest first: as it was written, and read.
    pub(super) fn letters(&self) -> Result<Vec<(String, Letter)>> {
        #[derive(Deserialize)]
        struct Row {
            value: String,
        }
        if !has_table(&self.sql, "letter")? {
            return Ok(Vec::new());
        }
        let rows: Vec<Row> = self.sql.exec("SELECT value FROM letter ORDER BY rowid", None)?.to_array()?;
        let read = |row: Row| Ok((row.value.clone(), serde_json::from_str(&row.value)?));
        rows.into_iter().map(read).collect()
    }

    /// A room has heard this; what is newer stays.
    pub(super) fn drop_letter(&self, text: &str) -> Result<()> {
        self.sql.exec("DELETE FROM letter WHERE value = ?", vec![SqlStorageValue::from(text.to_owned())])?;
        Ok(())
    }

    /// Keeps the newest line until the directory has it.
    pub(super) fn keep_line(&self, line: &Line) -> Result<()> {
        self.create()?;
        let line = SqlStorageValue::from(serde_json::to_string(line)?);
        self.sql.exec("INSERT OR REPLACE INTO directory_line (id, line) VALUES (1, ?)", vec![line])?;
        Ok(())
    }

    /// The line the directory does not have yet, as it was written.
    pub(super) fn pending_line(&self) -> Result<Option<String>> {
        #[derive(Deserialize)]
        struct Pending {
            line: String,
        }
        if !self.exists()? {
            return Ok(None);
        }
        let rows: Vec<Pending> = self.sql.exec("SELECT line FROM directory_line", None)?.to_array()?;
        Ok(rows.into_iter().next().map(|row| row.line))
    }

    /// The directory has this line; a newer one stays.
    pub(super) fn drop_line(&self, line: &str) -> Result<()> {
        self.sql.exec("DELETE FROM directory_line WHERE line = ?", vec![SqlStorageValue::from(line.to_owned())])?;
        Ok(())
    }
}

pub(super) fn has_table(sql: &SqlStorage, table: &str) -> Result<bool> {
    let query = "SELECT count(*) AS count FROM sqlite_master WHERE type = 'table' AND name = ?";
    let table = vec![SqlStorageValue::from(table.to_owned())];
    Ok(sql.exec(query, table)?.one::<Count>()?.count > 0.0)
}

/// A count or a time as SQL has them.
pub(super) fn integer(value: u64) -> SqlStorageValue {
    i64::try_from(value).map(SqlStorageValue::from).unwrap_or(SqlStorageValue::Null)
}
