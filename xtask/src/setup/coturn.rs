//! The TURN server of the system tests.

use anyhow::Result;

use super::{apt, on_path};

pub(super) fn is_present() -> bool {
    on_path("turnserver")
}

pub(super) fn install() -> Result<()> {
    apt::install(&["coturn"])
}
