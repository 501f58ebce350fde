//! Dozens of clients on LiveKit's native SDK, in rooms of two who watch each other: one process has them all.

use anyhow::{Context, Result};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::process::Command;
use xtask::repo;
use xtask::setup::python;
use xtask::stack::access_token;

use crate::driver::Driver;

/// The process.
pub struct NativeCrowd {
    driver: Driver,
}

impl NativeCrowd {
    /// Everyone joins, publishes, and sees the other one of its room.
    ///
    /// # Errors
    /// Somebody does not.
    pub async fn join(url: &str, rooms: usize) -> Result<Self> {
        let mut command = Command::new(python::interpreter());
        command.arg(repo::root().join("tests/python/crowd.py"));
        let crowd = Self { driver: Driver::start(command).await.context("the Python clients")? };
        for room in 0..rooms {
            let token = |identity| access_token(&format!("crowd-{room}"), identity);
            let tokens = [token("ada")?, token("bob")?];
            crowd.call::<Value>("join", json!([url.replacen("http", "ws", 1), tokens])).await?;
        }
        Ok(crowd)
    }

    /// Forgets what was before.
    ///
    /// # Errors
    /// The process is gone.
    pub async fn mark(&self) -> Result<()> {
        self.call::<Value>("mark", json!([])).await.map(drop)
    }

    /// Waits until everyone sees a new frame; the longest that each one's picture stood still since the mark, ms.
    ///
    /// # Errors
    /// Somebody sees nothing any more.
    pub async fn stills(&self) -> Result<Vec<f64>> {
        self.call("stills", json!([])).await
    }

    /// What of ends and returns anybody has heard since the mark: people, tracks, connections.
    ///
    /// # Errors
    /// The process is gone.
    pub async fn heard(&self) -> Result<Vec<String>> {
        self.call("heard", json!([])).await
    }

    /// How often anybody has come back on a new socket.
    ///
    /// # Errors
    /// The process is gone.
    pub async fn resumed(&self) -> Result<usize> {
        self.call("resumed", json!([])).await
    }

    async fn call<T: DeserializeOwned>(&self, name: &str, args: Value) -> Result<T> {
        self.driver.ask(json!({ "name": name, "args": args })).await
    }
}
