//! Tables of an object that outlives versions: made on first use, **never read when another layout wrote them**.

use serde::Deserialize;
use worker::{Error, Result, SqlStorage, SqlStorageValue};

#[derive(Deserialize)]
struct Row {
    version: f64,
}

/// Makes the tables that are missing, once it is known that those there are of this layout.
///
/// # Errors
/// They are of another one. Nothing is deleted: an operator deploys the version that wrote them, or one that can read
/// both.
pub(super) fn open(sql: &SqlStorage, layout: i32, tables: &[&str]) -> Result<()> {
    sql.exec("CREATE TABLE IF NOT EXISTS layout (id INTEGER PRIMARY KEY, version INTEGER NOT NULL)", None)?;
    sql.exec("INSERT OR IGNORE INTO layout (id, version) VALUES (1, ?)", vec![SqlStorageValue::from(layout)])?;
    let found = sql.exec("SELECT version FROM layout", None)?.one::<Row>()?.version;
    if found != f64::from(layout) {
        return Err(Error::RustError(format!("the object's tables are of layout {found}, not {layout}")));
    }
    for table in tables {
        sql.exec(&format!("CREATE TABLE IF NOT EXISTS {table}"), None)?;
    }
    Ok(())
}
