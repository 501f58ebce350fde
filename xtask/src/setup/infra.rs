//! The programs that read what is deployed, or stand in for what it talks to: cloud-init, Pebble, promtool, shellcheck,
//! systemd.

use std::path::Path;

use anyhow::Result;

use super::{apt, on_path};

/// Programs and their Debian packages.
const PROGRAMS: [(&str, &str); 6] = [
    ("cloud-init", "cloud-init"),
    ("pebble", "pebble"),
    ("promtool", "prometheus"),
    ("shellcheck", "shellcheck"),
    ("systemd-analyze", "systemd"),
    ("systemd-nspawn", "systemd-container"),
];

fn missing() -> Vec<&'static str> {
    PROGRAMS.iter().filter(|(program, _)| !on_path(program)).map(|(_, package)| *package).collect()
}

/// Nothing is missing, or nothing can be done about it: the checks that want it say so.
pub(super) fn is_done() -> bool {
    // On a machine that systemd runs, cloud-init would take part in the next boot and Prometheus would start.
    missing().is_empty() || !apt::is_usable() || Path::new("/run/systemd/system").exists()
}

pub(super) fn install() -> Result<()> {
    apt::install(&missing())
}
