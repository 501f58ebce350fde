//! LiveKit's Python SDKs, in a virtual environment of their own.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use super::{apt, stamp};
use crate::{progress, repo};

const STAMP: &str = "python";

/// The interpreter that has the SDKs.
#[must_use]
pub fn interpreter() -> PathBuf {
    directory().join("bin/python")
}

pub(super) fn is_done() -> bool {
    requirements().is_ok_and(|wanted| stamp::matches(STAMP, &wanted)) && interpreter().exists()
}

pub(super) fn install() -> Result<()> {
    if create().is_err() {
        // Debian packs venv apart from the interpreter.
        apt::install(&["python3", "python3-venv"])?;
        create()?;
    }
    let mut pip = Command::new(interpreter());
    pip.args(["-m", "pip", "install", "--disable-pip-version-check", "--requirement"]).arg(requirements_file());
    progress::run("installing the Python SDKs", &mut pip)?;
    stamp::write(STAMP, &requirements()?)
}

fn create() -> Result<()> {
    let mut python = Command::new("python3");
    python.args(["-m", "venv", "--clear"]).arg(directory());
    progress::run("creating a virtual environment", &mut python)
}

fn directory() -> PathBuf {
    repo::state_dir().join("venv")
}

fn requirements_file() -> PathBuf {
    repo::root().join("tests/python/requirements.txt")
}

fn requirements() -> Result<String> {
    std::fs::read_to_string(requirements_file()).context("reading tests/python/requirements.txt")
}
