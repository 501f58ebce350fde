//! An app server: calls LiveKit's server API (Twirp, JSON) as one that made the deployment's keys.

use anyhow::{Result, ensure};
use serde_json::Value;
use shared::claims::VideoGrant;

use crate::scene::Scene;

/// May do everything to one room, and list all.
pub struct AppServer {
    base: String,
    token: String,
    client: reqwest::Client,
}

/// What a call was answered with.
#[derive(Debug)]
pub struct Answered {
    /// HTTP status.
    pub status: u16,
    /// The answer, or the Twirp error.
    pub body: Value,
}

impl AppServer {
    /// The one of this room.
    ///
    /// # Errors
    /// No token can be signed.
    pub fn of(scene: &Scene) -> Result<Self> {
        let grant = VideoGrant {
            room: scene.room.clone(),
            room_admin: true,
            room_create: true,
            room_list: true,
            ..VideoGrant::default()
        };
        Self::granted(scene, grant)
    }

    /// One with these grants.
    ///
    /// # Errors
    /// No token can be signed.
    pub fn granted(scene: &Scene, grant: VideoGrant) -> Result<Self> {
        let mut claims = scene.claims("app-server");
        claims.video = Some(grant);
        let base = format!("{}/twirp/livekit.RoomService", scene.url());
        Ok(Self { base, token: scene.sign(&claims)?, client: reqwest::Client::new() })
    }

    /// Calls a method.
    ///
    /// # Errors
    /// Nobody answers, or not in JSON.
    pub async fn call(&self, method: &str, body: Value) -> Result<Answered> {
        let request = self.client.post(format!("{}/{method}", self.base)).bearer_auth(&self.token);
        let response = request.header("Content-Type", "application/json").body(body.to_string()).send().await?;
        let status = response.status().as_u16();
        Ok(Answered { status, body: serde_json::from_str(&response.text().await?)? })
    }

    /// Calls a method that must succeed.
    ///
    /// # Errors
    /// It did not.
    pub async fn ask(&self, method: &str, body: Value) -> Result<Value> {
        let answered = self.call(method, body).await?;
        ensure!(answered.status == 200, "{method}: {answered:?}");
        Ok(answered.body)
    }
}
