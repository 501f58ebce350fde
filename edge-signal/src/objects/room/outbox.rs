//! Webhooks that no receiver has confirmed yet, in SQL: **they outlive the room, the object's memory and the edge.** Each
//! receiver has a queue of its own.

use serde::Deserialize;
use worker::{Result, SqlStorage, SqlStorageValue, State};

use super::storage::{has_table, integer};
use crate::room::event::UnixMs;
use crate::webhook::MAX_WAITING;

/// The object's outbox.
pub(super) struct Outbox {
    sql: SqlStorage,
}

/// The first event that waits for a receiver.
#[derive(Deserialize)]
pub(super) struct Waiting {
    /// Its place.
    seq: f64,
    /// The `WebhookEvent`, as JSON.
    pub(super) body: String,
    created: f64,
    failures: f64,
}

/// A receiver for which something waits.
#[derive(Deserialize)]
pub(super) struct Due {
    pub(super) url: String,
    due: f64,
}

impl Due {
    /// When to try again.
    pub(super) fn at(&self) -> UnixMs {
        UnixMs(whole(self.due))
    }
}

impl Waiting {
    /// When it happened.
    pub(super) fn created(&self) -> UnixMs {
        UnixMs(whole(self.created))
    }

    /// Deliveries to its receiver that failed since one did not.
    pub(super) fn failures(&self) -> u32 {
        u32::try_from(whole(self.failures)).unwrap_or(u32::MAX)
    }
}

impl Outbox {
    pub(super) fn new(state: &State) -> Self {
        Self { sql: state.storage().sql() }
    }

    /// Whether there ever was an event here: reading must not make tables in an object that has none.
    pub(super) fn exists(&self) -> Result<bool> {
        has_table(&self.sql, "webhook_event")
    }

    fn create(&self) -> Result<()> {
        if self.exists()? {
            return Ok(());
        }
        self.sql.exec(
            "CREATE TABLE IF NOT EXISTS webhook_event (seq INTEGER PRIMARY KEY AUTOINCREMENT, url TEXT NOT NULL, \
             body TEXT NOT NULL, created INTEGER NOT NULL)",
            None,
        )?;
        self.sql.exec("CREATE INDEX IF NOT EXISTS webhook_event_of ON webhook_event (url, seq)", None)?;
        self.sql.exec(
            "CREATE TABLE IF NOT EXISTS webhook_receiver (url TEXT PRIMARY KEY, failures INTEGER NOT NULL, \
             due INTEGER NOT NULL)",
            None,
        )?;
        Ok(())
    }

    /// Adds an event for each receiver. Returns how many events were lost because too many wait.
    pub(super) fn push(&self, now: UnixMs, body: &str, urls: &[String]) -> Result<u64> {
        self.create()?;
        let mut lost = 0;
        for url in urls {
            let values = vec![text(url), text(body), integer(now.0)];
            self.sql.exec("INSERT INTO webhook_event (url, body, created) VALUES (?, ?, ?)", values)?;
            let receiver = vec![text(url), integer(now.0)];
            self.sql.exec("INSERT OR IGNORE INTO webhook_receiver (url, failures, due) VALUES (?, 0, ?)", receiver)?;
            let excess = "DELETE FROM webhook_event WHERE url = ?1 AND seq <= \
                          (SELECT seq FROM webhook_event WHERE url = ?1 ORDER BY seq DESC LIMIT 1 OFFSET ?2)";
            let deleted = self.sql.exec(excess, vec![text(url), integer(MAX_WAITING.into())])?;
            lost += u64::from(deleted.rows_written() > 0);
        }
        Ok(lost)
    }

    /// The receivers for which something waits, and when each is due.
    pub(super) fn due(&self) -> Result<Vec<Due>> {
        let query = "SELECT url, due FROM webhook_receiver WHERE url IN (SELECT DISTINCT url FROM webhook_event)";
        self.sql.exec(query, None)?.to_array()
    }

    /// What comes first for a receiver.
    pub(super) fn first(&self, url: &str) -> Result<Option<Waiting>> {
        let query = "SELECT seq, body, created, failures FROM webhook_event JOIN webhook_receiver USING (url) \
                     WHERE url = ? ORDER BY seq LIMIT 1";
        let found: Vec<Waiting> = self.sql.exec(query, vec![text(url)])?.to_array()?;
        Ok(found.into_iter().next())
    }

    /// It has arrived, or is given up.
    pub(super) fn remove(&self, waiting: &Waiting) -> Result<()> {
        self.sql.exec("DELETE FROM webhook_event WHERE seq = ?", vec![integer(whole(waiting.seq))])?;
        Ok(())
    }

    /// Nothing of this receiver stays.
    pub(super) fn forget(&self, url: &str) -> Result<()> {
        self.sql.exec("DELETE FROM webhook_event WHERE url = ?", vec![text(url)])?;
        self.sql.exec("DELETE FROM webhook_receiver WHERE url = ?", vec![text(url)])?;
        Ok(())
    }

    /// Deliveries that failed in a row, and when to try again.
    pub(super) fn note(&self, url: &str, failures: u32, due: UnixMs) -> Result<()> {
        let values = vec![integer(failures.into()), integer(due.0), text(url)];
        self.sql.exec("UPDATE webhook_receiver SET failures = ?, due = ? WHERE url = ?", values)?;
        Ok(())
    }
}

fn text(value: &str) -> SqlStorageValue {
    SqlStorageValue::from(value.to_owned())
}

/// Whole numbers are exact in a double.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn whole(value: f64) -> u64 {
    value as u64
}
