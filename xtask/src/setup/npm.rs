//! The npm packages of package-lock.json.

use std::process::Command;

use anyhow::{Context, Result};

use super::stamp;
use crate::{progress, repo};

const STAMP: &str = "npm";

pub(super) fn is_done() -> bool {
    lock().is_ok_and(|lock| stamp::matches(STAMP, &lock)) && repo::root().join("node_modules").is_dir()
}

pub(super) fn install() -> Result<()> {
    let mut npm = Command::new("npm");
    npm.arg("ci").current_dir(repo::root());
    progress::run("installing npm packages", &mut npm)?;
    stamp::write(STAMP, &lock()?)
}

fn lock() -> Result<String> {
    std::fs::read_to_string(repo::root().join("package-lock.json")).context("reading package-lock.json")
}
