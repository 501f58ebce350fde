//! `docs/compat.md`: the rows with their tests.

use std::fmt::Write;

use xtask::repo;

use super::GROUPS;

/// Set, it writes the table instead of comparing it.
const WRITE: &str = "WRITE_COMPAT";

/// Rows that belong together.
pub(crate) struct Group {
    pub(crate) name: &'static str,
    pub(crate) rows: &'static [Row],
}

/// One row.
pub(crate) struct Row {
    /// Its module of tests.
    pub(crate) test: &'static str,
    /// What the SDK sees.
    pub(crate) holds: &'static str,
}

fn render() -> String {
    let mut text = include_str!("head.md").to_owned();
    for group in GROUPS {
        write!(text, "\n## {}\n\n| what holds | test |\n|---|---|\n", group.name).unwrap();
        for row in group.rows {
            writeln!(text, "| {} | `{}` |", row.holds, row.test).unwrap();
        }
    }
    text
}

#[test]
fn the_document_has_every_row() {
    let path = repo::root().join("docs/compat.md");
    if std::env::var_os(WRITE).is_some() {
        std::fs::write(&path, render()).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    let update = format!("{WRITE}=1 cargo test -p meridian-tests --test compat the_document");
    assert!(written == render(), "docs/compat.md is not up to date: {update}");
}
