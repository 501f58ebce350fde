//! Remembers what a step installed from, so that it runs again when that changes.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::repo;

/// Whether `name` was last done with exactly this input.
pub(super) fn matches(name: &str, input: &str) -> bool {
    std::fs::read_to_string(path(name)).is_ok_and(|kept| kept == input)
}

/// Records that `name` was done with this input.
pub(super) fn write(name: &str, input: &str) -> Result<()> {
    let path = path(name);
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    std::fs::write(&path, input).with_context(|| format!("writing {}", path.display()))
}

fn path(name: &str) -> PathBuf {
    repo::state_dir().join("stamps").join(name)
}
