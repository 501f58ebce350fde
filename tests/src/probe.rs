//! `sfu-node probe` against a test's deployment.

use std::process::Output;

use anyhow::Context;
use tokio::process::Command;
use xtask::stack::{API_KEY, API_SECRET};

use crate::scene::Scene;

/// A probe to be run.
pub struct Probe {
    command: Command,
}

impl Probe {
    /// Of this deployment, with its API key, for as short as can be.
    #[must_use]
    pub fn of(scene: &Scene) -> Self {
        let mut command = Command::new(scene.deployment.stack().node_binary());
        command.args(["probe", "--seconds", "1", "--edge-url", scene.url()]);
        command.env("MERIDIAN_API_KEY", API_KEY).env("MERIDIAN_API_SECRET", API_SECRET).kill_on_drop(true);
        Self { command }
    }

    /// With more arguments.
    #[must_use]
    pub fn args<const N: usize>(mut self, args: [&str; N]) -> Self {
        self.command.args(args);
        self
    }

    /// With another secret of the API key.
    #[must_use]
    pub fn secret(mut self, secret: &str) -> Self {
        self.command.env("MERIDIAN_API_SECRET", secret);
        self
    }

    /// Runs it to its end, which its own deadline sees to.
    ///
    /// # Errors
    /// It cannot be started.
    pub async fn run(mut self) -> anyhow::Result<Output> {
        self.command.output().await.context("starting the probe")
    }
}
