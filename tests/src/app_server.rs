//! An app server: calls LiveKit's server API (Twirp, JSON) as one that made the deployment's keys.

use anyhow::{Result, ensure};
use reqwest::header::CONTENT_TYPE;
use serde_json::Value;
use shared::claims::{AccessClaims, VideoGrant};
use xtask::stack::API_KEY;

use crate::scene::{Scene, sign};
use crate::token::join_claims;

/// May do everything to one room, and list all.
#[derive(Clone)]
pub struct AppServer {
    base: String,
    token: Option<String>,
    client: reqwest::Client,
}

/// How bodies are encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Protobuf.
    Protobuf,
    /// Proto3 JSON.
    Json,
}

impl Format {
    /// Its content type.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Protobuf => "application/protobuf",
            Self::Json => "application/json",
        }
    }
}

/// An answer as it came.
#[derive(Debug)]
pub struct Raw {
    /// HTTP status.
    pub status: u16,
    /// Its content type; empty: none.
    pub content_type: String,
    /// Its body.
    pub body: Vec<u8>,
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
        Self::at(scene.url(), grant)
    }

    /// One of any deployment of ours, with these grants.
    ///
    /// # Errors
    /// No token can be signed.
    pub fn at(url: &str, grant: VideoGrant) -> Result<Self> {
        let claims = AccessClaims { video: Some(grant), ..join_claims(API_KEY, "", "app-server") };
        Ok(Self { token: Some(sign(&claims)?), ..Self::without_token(url) })
    }

    /// One without a token.
    #[must_use]
    pub fn nobody(scene: &Scene) -> Self {
        Self::without_token(scene.url())
    }

    fn without_token(url: &str) -> Self {
        Self { base: format!("{url}/twirp"), token: None, client: reqwest::Client::new() }
    }

    /// Its token.
    #[must_use]
    pub fn token(&self) -> &str {
        self.token.as_deref().unwrap_or_default()
    }

    /// Calls a method of `RoomService`.
    ///
    /// # Errors
    /// Nobody answers, or not in JSON.
    pub async fn call(&self, method: &str, body: Value) -> Result<Answered> {
        self.call_of("RoomService", method, body).await
    }

    /// Calls a method of a service.
    ///
    /// # Errors
    /// Nobody answers, or not in JSON.
    pub async fn call_of(&self, service: &str, method: &str, body: Value) -> Result<Answered> {
        let raw = self.post_to(service, method, Format::Json.content_type(), body.to_string().into()).await?;
        Ok(Answered { status: raw.status, body: serde_json::from_slice(&raw.body)? })
    }

    /// Calls a method of `RoomService` with any body of any type; an empty type is none.
    ///
    /// # Errors
    /// Nobody answers.
    pub async fn post(&self, method: &str, content_type: &str, body: Vec<u8>) -> Result<Raw> {
        self.post_to("RoomService", method, content_type, body).await
    }

    /// The same of another service.
    ///
    /// # Errors
    /// Nobody answers.
    pub async fn post_to(&self, service: &str, method: &str, content_type: &str, body: Vec<u8>) -> Result<Raw> {
        let mut request = self.client.post(format!("{}/livekit.{service}/{method}", self.base)).body(body);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        if !content_type.is_empty() {
            request = request.header(CONTENT_TYPE, content_type);
        }
        let response = request.send().await?;
        let content_type = response.headers().get(CONTENT_TYPE).map(|value| value.to_str().map(str::to_owned));
        Ok(Raw {
            status: response.status().as_u16(),
            content_type: content_type.transpose()?.unwrap_or_default(),
            body: response.bytes().await?.to_vec(),
        })
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
