//! LiveKit's own server SDK for Node.js, unmodified, as an app server in a process of its own.

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tokio::process::Command;
use xtask::repo;
use xtask::stack::{API_KEY, API_SECRET};

use crate::driver::Driver;

/// An app server. **Dropping it ends its process.**
pub struct ServerSdk {
    driver: Driver,
}

impl ServerSdk {
    /// Starts it, with the keys of a test deployment.
    ///
    /// # Errors
    /// When setup has not run.
    pub async fn start() -> Result<Self> {
        let mut command = Command::new("node");
        command.arg(repo::root().join("tests/server/sdk.mjs")).args([API_KEY, API_SECRET]);
        Ok(Self { driver: Driver::start(command).await.context("the server SDK")? })
    }

    /// Calls a method of `RoomServiceClient`; what it throws is the error: name, status, code, message.
    ///
    /// # Errors
    /// What the SDK throws.
    pub async fn call(&self, url: &str, name: &str, args: Value) -> Result<Value> {
        self.call_of("RoomServiceClient", url, name, args).await
    }

    /// The same of another client of the SDK.
    ///
    /// # Errors
    /// What the SDK throws.
    pub async fn call_of(&self, client: &str, url: &str, name: &str, args: Value) -> Result<Value> {
        let request = json!({ "method": "call", "client": client, "url": url, "name": name, "args": args });
        self.driver.ask(request).await
    }

    /// Sends a text with a topic, to all or to some.
    ///
    /// # Errors
    /// What the SDK throws.
    pub async fn send_text(&self, url: &str, room: &str, (topic, text): (&str, &str), to: &[&str]) -> Result<()> {
        let request = json!({ "method": "sendText", "url": url, "room": room, "text": text, "topic": topic, "to": to });
        self.driver.ask::<Value>(request).await.map(drop)
    }

    /// The same to those of these sids.
    ///
    /// # Errors
    /// What the SDK throws.
    pub async fn send_text_to_sids(
        &self,
        url: &str,
        room: &str,
        (topic, text): (&str, &str),
        sids: &[&str],
    ) -> Result<()> {
        let request =
            json!({ "method": "sendText", "url": url, "room": room, "text": text, "topic": topic, "sids": sids });
        self.driver.ask::<Value>(request).await.map(drop)
    }

    /// Removes a participant, and makes its tokens void that are of before a time, seconds since the epoch.
    ///
    /// # Errors
    /// What the SDK throws.
    pub async fn remove_with_tokens(&self, url: &str, room: &str, identity: &str, before: u64) -> Result<()> {
        let method = "removeWithTokens";
        let request = json!({ "method": method, "url": url, "room": room, "identity": identity, "before": before });
        self.driver.ask::<Value>(request).await.map(drop)
    }

    /// Takes webhooks at this port, any if it is 0; which it is. What the SDK does not accept is answered 401.
    ///
    /// # Errors
    /// The port is taken.
    pub async fn listen(&self, port: u16) -> Result<u16> {
        self.driver.ask(json!({ "method": "listen", "port": port })).await
    }

    /// The events it has accepted, each once by its id, once there are so many.
    ///
    /// # Errors
    /// They do not come.
    pub async fn heard(&self, count: usize) -> Result<Vec<Value>> {
        self.driver.ask(json!({ "method": "heard", "count": count })).await
    }
}
