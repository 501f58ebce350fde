//! Data that a browser sends.

use anyhow::Result;
use serde_json::{Value, json};

use super::SdkClient;

impl SdkClient {
    /// Sends a data packet to some identities.
    ///
    /// # Errors
    /// When the SDK cannot.
    pub async fn send_data_to(&self, text: &str, to: &[&str], reliable: bool) -> Result<()> {
        self.call::<Value>("sendDataTo", json!([text, to, { "reliable": reliable }])).await.map(drop)
    }

    /// Sends a data packet to everyone, on a topic.
    ///
    /// # Errors
    /// When the SDK cannot.
    pub async fn send_on_topic(&self, text: &str, topic: &str) -> Result<()> {
        self.call::<Value>("sendDataTo", json!([text, [], { "topic": topic }])).await.map(drop)
    }

    /// Sends a chat message.
    ///
    /// # Errors
    /// When the SDK cannot.
    pub async fn send_chat(&self, text: &str) -> Result<()> {
        self.call::<Value>("sendChat", json!([text])).await.map(drop)
    }

    /// Calls somebody's method that says who called it with what.
    ///
    /// # Errors
    /// When the call fails.
    pub async fn call_echo(&self, identity: &str, payload: &str) -> Result<String> {
        self.call("callEcho", json!([identity, payload])).await
    }

    /// Calls a method that somebody does not have: the error's code, if it fails as it should.
    ///
    /// # Errors
    /// When the client's process is gone.
    pub async fn call_nothing(&self, identity: &str) -> Result<Option<u32>> {
        self.call("callNothing", json!([identity])).await
    }

    /// Streams so many bytes to everyone: length and digest that the others report.
    ///
    /// # Errors
    /// When the SDK cannot.
    pub async fn send_bytes(&self, length: usize) -> Result<String> {
        self.call("sendBytes", json!([length])).await
    }
}
