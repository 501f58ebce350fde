//! Python packages, each set in a virtual environment of its own.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use super::{apt, stamp};
use crate::{progress, repo};

/// A virtual environment.
pub struct Venv {
    /// For the progress.
    packages: &'static str,
    /// Name of its stamp.
    stamp: &'static str,
    /// Its directory, in the state's.
    directory: &'static str,
    /// The list of packages, in the repository.
    requirements: &'static str,
}

/// LiveKit's Python SDKs.
pub(super) const SDKS: Venv = Venv {
    packages: "the Python SDKs",
    stamp: "python",
    directory: "venv",
    requirements: "tests/python/requirements.txt",
};
/// LiveKit's Agents framework, apart: it wants another version of the SDK.
pub(super) const AGENTS: Venv = Venv {
    packages: "LiveKit's Agents framework",
    stamp: "python-agents",
    directory: "venv-agents",
    requirements: "tests/python/requirements-agents.txt",
};
/// The scanner of the infrastructure checks.
pub(crate) const CHECKOV: Venv =
    Venv { packages: "checkov", stamp: "checkov", directory: "venv-infra", requirements: "terraform/requirements.txt" };

/// The interpreter that has the SDKs.
#[must_use]
pub fn interpreter() -> PathBuf {
    SDKS.program("python")
}

/// The interpreter that has the Agents framework.
#[must_use]
pub fn agents_interpreter() -> PathBuf {
    AGENTS.program("python")
}

impl Venv {
    /// A program in it.
    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.directory().join("bin").join(name)
    }

    pub(super) fn is_done(&self) -> bool {
        self.wanted().is_ok_and(|wanted| stamp::matches(self.stamp, &wanted)) && self.program("python").exists()
    }

    pub(super) fn install(&self) -> Result<()> {
        if self.create().is_err() {
            // Debian packs venv apart from the interpreter.
            apt::install(&["python3", "python3-venv"])?;
            self.create()?;
        }
        let mut pip = Command::new(self.program("python"));
        pip.args(["-m", "pip", "install", "--disable-pip-version-check", "--requirement"])
            .arg(self.requirements_file());
        progress::run(&format!("installing {}", self.packages), &mut pip)?;
        stamp::write(self.stamp, &self.wanted()?)
    }

    fn create(&self) -> Result<()> {
        let mut python = Command::new("python3");
        python.args(["-m", "venv", "--clear"]).arg(self.directory());
        progress::run("creating a virtual environment", &mut python)
    }

    fn directory(&self) -> PathBuf {
        repo::state_dir().join(self.directory)
    }

    fn requirements_file(&self) -> PathBuf {
        repo::root().join(self.requirements)
    }

    fn wanted(&self) -> Result<String> {
        std::fs::read_to_string(self.requirements_file()).with_context(|| format!("reading {}", self.requirements))
    }
}
