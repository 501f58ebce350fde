//! Tables of an object that outlives versions: made on first use, taken from layout to layout, **never touched when a newer
//! version wrote them**.

use serde::Deserialize;
use worker::{Error, Result, SqlStorage, SqlStorageValue};

use crate::steps::pending;

#[derive(Deserialize)]
struct Row {
    version: f64,
}

/// Takes the tables to the newest layout: `steps[n]` are the statements that lead from layout n to layout n + 1, the first
/// those that make the tables. **What stands there was deployed: it is never changed, only added to.** Nothing is awaited
/// in between, so that the platform writes all of it or nothing.
///
/// # Errors
/// They are of a newer layout. Nothing is changed: an operator deploys the version that wrote them.
pub(super) fn open(sql: &SqlStorage, steps: &[&[&str]]) -> Result<()> {
    sql.exec("CREATE TABLE IF NOT EXISTS layout (id INTEGER PRIMARY KEY, version INTEGER NOT NULL)", None)?;
    let found: Vec<Row> = sql.exec("SELECT version FROM layout", None)?.to_array()?;
    let found = found.first().map_or(0.0, |row| row.version);
    let pending = pending(found, steps).map_err(|error| Error::RustError(error.to_string()))?;
    for statement in pending.iter().copied().flatten() {
        sql.exec(statement, None)?;
    }
    if !pending.is_empty() {
        let newest = i32::try_from(steps.len()).unwrap_or(i32::MAX);
        let newest = SqlStorageValue::from(newest);
        sql.exec("INSERT OR REPLACE INTO layout (id, version) VALUES (1, ?)", vec![newest])?;
    }
    Ok(())
}
