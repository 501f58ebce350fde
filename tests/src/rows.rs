//! What objects keep: their SQLite databases, looked at and changed from outside.

use std::process::Command;

use xtask::setup::python;

use crate::scene::Scene;

/// Runs statements on every database of a class that has the table; what they give, and how many rows they changed.
const SQL: &str = r#"
import glob, json, os, shutil, sqlite3, sys, tempfile
directory, table, statement = sys.argv[1:]
found, changed = [], 0
scratch = tempfile.TemporaryDirectory()
for file in glob.glob(directory + "/*.sqlite"):
    # workerd shares neither locks nor the index of its write-ahead log: what runs is looked at in a copy.
    if statement.startswith("SELECT"):
        copy = os.path.join(scratch.name, os.path.basename(file))
        for end in ("", "-wal"):
            if os.path.exists(file + end):
                shutil.copy(file + end, copy + end)
        file = copy
    database = sqlite3.connect(file, timeout=10)
    if database.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (table,)).fetchone():
        for one in statement.split(";"):
            cursor = database.execute(one)
            found += [row[0] for row in cursor.fetchall()]
            changed += max(cursor.rowcount, 0)
    database.commit()
    database.close()
print(json.dumps([found, changed]))
"#;

/// The first column of all rows found, and the number changed. **An edge that runs must not be changed under.**
///
/// # Panics
/// The statements fail.
#[must_use]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
pub fn sql(scene: &Scene, class: &str, table: &str, statement: &str) -> (Vec<String>, u64) {
    let directory = scene.deployment.objects_dir().join(class);
    let mut python = Command::new(python::interpreter());
    let done = python.args(["-c", SQL]).arg(directory).args([table, statement]).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    serde_json::from_slice(&done.stdout).unwrap()
}
