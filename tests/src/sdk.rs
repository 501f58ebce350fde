//! LiveKit's own SDKs, unmodified, as participants of a story: livekit-client in Chromium, the native core in Python.

mod data;
mod media;

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use shared::claims::AccessClaims;
use tokio::process::Command;
use xtask::repo;
use xtask::setup::python;
use xtask::stack::access_token;

use crate::driver::Driver;
use crate::scene::Scene;

/// How long a story waits for anything that has no limit of its own: long, for three encoders on a busy core.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What nobody may hear in a call that goes on: that something ended, or came again.
const ENDS: [&str; 10] = [
    "reconnecting",
    "disconnected",
    "participantConnected",
    "participantDisconnected",
    "trackSubscribed",
    "trackUnsubscribed",
    "subscriptionFailed",
    "localTrackPublished",
    "localTrackUnpublished",
    "firstFrame",
];

/// How a client connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// `/rtc/v1`: one peer connection.
    Single,
    /// `/rtc`: publisher and subscriber.
    Dual,
}

/// One SDK client.
pub struct SdkClient {
    driver: Arc<Driver>,
    /// The browser's page; a Python process has one client.
    page: Option<String>,
    identity: String,
}

/// What a client heard.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Heard {
    /// Place among all it heard.
    pub index: usize,
    /// Which event.
    pub event: String,
    /// The client's clock, ms.
    pub at: f64,
    /// Whose, where it is about somebody.
    pub identity: Option<String>,
    /// Data and text messages.
    pub text: Option<String>,
    /// Who speaks how loud, where it is about that: `ada 0.5,bob 0.25`, the loudest first.
    pub levels: Option<String>,
    /// Which track, where it is about one.
    pub track_sid: Option<String>,
    /// Why it was disconnected: LiveKit's `DisconnectReason`.
    pub reason: Option<i32>,
}

/// What arrives, as the SDK's statistics have it.
#[derive(Debug, Clone, Deserialize)]
pub struct Stats {
    /// One for each subscribed track.
    pub tracks: Vec<TrackStats>,
    /// SRTP ciphers of the client's transports; the native SDK does not say.
    pub ciphers: Vec<String>,
    /// Types of the client's candidates in use (`host`, `prflx`, `relay tcp`); the native SDK does not say.
    #[serde(default)]
    pub paths: Vec<String>,
}

/// One subscribed track.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TrackStats {
    /// The publisher.
    pub identity: String,
    /// `audio` or `video`.
    pub kind: String,
    /// Video.
    pub frames_decoded: u64,
    /// `video/VP9`, …; the native SDK does not say.
    #[serde(default)]
    pub mime_type: String,
    /// Audio; grows with loudness and time.
    pub total_audio_energy: f64,
    /// Video; 0 before the first frame. The native SDK does not say, nor the next ones.
    #[serde(default)]
    pub frame_height: u32,
    /// Video.
    #[serde(default)]
    pub freeze_count: u64,
    /// Video, seconds.
    #[serde(default)]
    pub total_freezes_duration: f64,
    /// Payload.
    #[serde(default)]
    pub bytes_received: u64,
}

/// Another participant, as the client sees it.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Seen {
    /// Who.
    pub identity: String,
    /// `PA_…`
    pub sid: String,
    /// Its kind is that of agents; the native SDK does not say.
    #[serde(default)]
    pub is_agent: bool,
    /// What it publishes.
    pub tracks: Vec<SeenTrack>,
}

/// A publication, as a client sees it.
#[derive(Debug, Clone, Deserialize)]
pub struct SeenTrack {
    /// `TR_…`
    pub sid: String,
    /// `camera`, `microphone`, `screen_share`
    pub source: String,
    /// Muted.
    pub muted: bool,
    /// Arrives here.
    pub subscribed: bool,
}

impl Stats {
    /// Frames decoded of somebody's video.
    #[must_use]
    pub fn frames(&self, identity: &str) -> u64 {
        self.video(identity).map_or(0, |track| track.frames_decoded)
    }

    /// Somebody's video.
    #[must_use]
    pub fn video(&self, identity: &str) -> Option<&TrackStats> {
        self.of(identity, "video")
    }

    /// Audio energy heard of somebody.
    #[must_use]
    pub fn energy(&self, identity: &str) -> f64 {
        self.of(identity, "audio").map_or(0.0, |track| track.total_audio_energy)
    }

    /// One of somebody's tracks.
    #[must_use]
    pub fn of(&self, identity: &str, kind: &str) -> Option<&TrackStats> {
        self.tracks.iter().find(|track| track.identity == identity && track.kind == kind)
    }
}

impl SdkClient {
    /// A Python process with the native SDK.
    ///
    /// # Errors
    /// When setup has not run.
    pub async fn python(identity: &str) -> Result<Self> {
        let mut command = Command::new(python::interpreter());
        command.arg(repo::root().join("tests/python/client.py"));
        let driver = Arc::new(Driver::start(command).await.context("the Python client")?);
        Ok(Self { driver, page: None, identity: identity.to_owned() })
    }

    /// The test client in a page of a browser.
    pub(crate) fn in_page(driver: Arc<Driver>, page: &str) -> Self {
        Self { driver, page: Some(page.to_owned()), identity: page.to_owned() }
    }

    /// Who it joins as.
    #[must_use]
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// Joins the story's room.
    ///
    /// # Errors
    /// When the SDK cannot connect.
    pub async fn join(&self, scene: &Scene, mode: Mode) -> Result<()> {
        self.join_room(scene.deployment.url(), &scene.room, mode).await
    }

    /// Joins a room of a deployment at `url`, `http` or `ws`.
    ///
    /// # Errors
    /// When the SDK cannot connect.
    pub async fn join_room(&self, url: &str, room: &str, mode: Mode) -> Result<()> {
        let token = access_token(room, &self.identity)?;
        let url = url.replacen("http", "ws", 1);
        let options = json!({ "singlePeerConnection": mode == Mode::Single });
        self.call::<Value>("join", json!([url, token, options])).await.map(drop)
    }

    /// Joins without subscribing to anything by itself.
    ///
    /// # Errors
    /// When the SDK cannot connect.
    pub async fn join_unsubscribed(&self, scene: &Scene, mode: Mode) -> Result<()> {
        let token = scene.sign(&scene.claims(&self.identity))?;
        let options = json!({ "singlePeerConnection": mode == Mode::Single, "autoSubscribe": false });
        self.join_with(scene, &token, options).await
    }

    /// Joins with a token that somebody minted.
    ///
    /// # Errors
    /// When the SDK cannot connect.
    pub async fn join_by_token(&self, scene: &Scene, token: &str, mode: Mode) -> Result<()> {
        self.join_with(scene, token, json!({ "singlePeerConnection": mode == Mode::Single })).await
    }

    /// Joins with a token of one's own (browsers only).
    ///
    /// # Errors
    /// When the SDK cannot connect.
    pub async fn join_as(&self, scene: &Scene, claims: &AccessClaims, mode: Mode) -> Result<()> {
        let options = json!({ "singlePeerConnection": mode == Mode::Single });
        self.join_with(scene, &scene.sign(claims)?, options).await
    }

    async fn join_with(&self, scene: &Scene, token: &str, options: Value) -> Result<()> {
        let url = scene.url().replacen("http", "ws", 1);
        self.call::<Value>("join", json!([url, token, options])).await.map(drop)
    }

    /// Joins with more options of the SDK's room (browsers only).
    ///
    /// # Errors
    /// When the SDK cannot connect.
    pub async fn join_with_options(&self, scene: &Scene, mode: Mode, mut options: Value) -> Result<()> {
        let fields = options.as_object_mut().context("options are an object")?;
        fields.insert("singlePeerConnection".to_owned(), json!(mode == Mode::Single));
        self.join_with(scene, &scene.sign(&scene.claims(&self.identity))?, options).await
    }

    /// Calls a method of the SDK's local participant (browsers only).
    ///
    /// # Errors
    /// What it throws.
    pub async fn local(&self, method: &str, args: &[Value]) -> Result<()> {
        let mut all = vec![json!(method)];
        all.extend_from_slice(args);
        self.call::<Value>("local", Value::Array(all)).await.map(drop)
    }

    /// The local participant, as the SDK has it (browsers only).
    ///
    /// # Errors
    /// When the client's process is gone.
    pub async fn myself(&self) -> Result<Value> {
        self.call("myself", json!([])).await
    }

    /// Subscribes to all of somebody's tracks, or no longer (browsers only).
    ///
    /// # Errors
    /// When there is nobody of that name.
    pub async fn subscribe(&self, identity: &str, on: bool) -> Result<()> {
        self.call::<Value>("subscribe", json!([identity, on])).await.map(drop)
    }

    /// Subscribes to somebody's track of a source, or no longer (browsers only).
    ///
    /// # Errors
    /// When there is nobody of that name.
    pub async fn subscribe_to(&self, identity: &str, source: &str, on: bool) -> Result<()> {
        self.call::<Value>("subscribe", json!([identity, on, source])).await.map(drop)
    }

    /// One of the SDK's scenarios (browsers only).
    ///
    /// # Errors
    /// When the SDK does not know it.
    pub async fn simulate(&self, scenario: &str) -> Result<()> {
        self.call::<Value>("simulate", json!([scenario])).await.map(drop)
    }

    /// Publishes camera and microphone.
    ///
    /// # Errors
    /// When the SDK cannot publish.
    pub async fn publish(&self) -> Result<()> {
        self.call::<Value>("publish", json!([])).await.map(drop)
    }

    /// Publishes its camera alone, as one stream of a codec with a scalability mode (W3C webrtc-svc).
    ///
    /// # Errors
    /// When the SDK cannot publish.
    pub async fn publish_camera(&self, codec: &str, scalability_mode: &str) -> Result<()> {
        self.call::<Value>("publishCamera", json!([codec, scalability_mode])).await.map(drop)
    }

    /// Mutes or unmutes its microphone.
    ///
    /// # Errors
    /// When the SDK cannot.
    pub async fn set_microphone(&self, on: bool) -> Result<()> {
        self.call::<Value>("setMicrophone", json!([on])).await.map(drop)
    }

    /// Sends a data packet to everyone.
    ///
    /// # Errors
    /// When the SDK cannot.
    pub async fn send_data(&self, text: &str, reliable: bool) -> Result<()> {
        self.call::<Value>("sendData", json!([text, { "reliable": reliable }])).await.map(drop)
    }

    /// Sends a text stream to everyone.
    ///
    /// # Errors
    /// When the SDK cannot.
    pub async fn send_text(&self, text: &str) -> Result<()> {
        self.call::<Value>("sendText", json!([text])).await.map(drop)
    }

    /// What arrives.
    ///
    /// # Errors
    /// When the client's process is gone.
    pub async fn stats(&self) -> Result<Stats> {
        self.call("stats", json!([])).await
    }

    /// Everyone else, by identity.
    ///
    /// # Errors
    /// When the client's process is gone.
    pub async fn picture(&self) -> Result<HashMap<String, Seen>> {
        let seen: Vec<Seen> = self.call("picture", json!([])).await?;
        Ok(seen.into_iter().map(|one| (one.identity.clone(), one)).collect())
    }

    /// Waits for the first event with all of these values.
    ///
    /// # Errors
    /// When it does not come in [`PATIENCE`]; says what came instead.
    pub async fn hears(&self, wanted: Value) -> Result<Heard> {
        self.hears_within(wanted, 0, PATIENCE).await
    }

    /// As [`Self::hears`], from a [`Self::mark`] on and with a limit of its own.
    ///
    /// # Errors
    /// When it does not come in time; says what came instead.
    pub async fn hears_within(&self, wanted: Value, since: usize, limit: Duration) -> Result<Heard> {
        let options = json!({ "since": since, "timeoutMs": u64::try_from(limit.as_millis())? });
        self.call("waitFor", json!([wanted, options])).await.with_context(|| format!("{} waits", self.identity))
    }

    /// All it heard from a [`Self::mark`] on.
    ///
    /// # Errors
    /// When the client's process is gone.
    pub async fn heard(&self, since: usize) -> Result<Vec<Heard>> {
        self.call("heard", json!([since])).await
    }

    /// Nothing ended for it, or came again, since a [`Self::mark`].
    ///
    /// # Errors
    /// What it heard instead.
    pub async fn heard_of_no_end(&self, since: usize) -> Result<()> {
        // The native SDK says of a resume what livekit-client says of a full reconnect alone.
        let is_resume = |heard: &Heard| self.page.is_none() && heard.event == "reconnecting";
        let ends = |heard: &Heard| ENDS.contains(&heard.event.as_str()) && !is_resume(heard);
        let end = self.heard(since).await?.into_iter().find(ends);
        end.map_or(Ok(()), |heard| bail!("{} heard {heard:?}", self.identity))
    }

    /// The longest time since the last call that somebody's picture stood still, ms.
    ///
    /// # Errors
    /// When there is no picture of them.
    pub async fn stillness(&self, identity: &str) -> Result<f64> {
        self.call("stillness", json!([identity])).await
    }

    /// How many events it has heard.
    ///
    /// # Errors
    /// When the client's process is gone.
    pub async fn mark(&self) -> Result<usize> {
        self.call("mark", json!([])).await
    }

    /// Waits until more of somebody's video is decoded and more sound is heard.
    ///
    /// # Errors
    /// When nothing comes in [`PATIENCE`].
    pub async fn sees_and_hears(&self, identity: &str) -> Result<Stats> {
        let options = json!({ "kinds": ["audio", "video"], "timeoutMs": u64::try_from(PATIENCE.as_millis())? });
        let stats = self.call("waitForMedia", json!([identity, options])).await;
        stats.with_context(|| format!("{} waits for {identity}'s media", self.identity))
    }

    /// Waits until more sound of somebody is heard.
    ///
    /// # Errors
    /// When nothing comes in [`PATIENCE`].
    pub async fn hears_audio_of(&self, identity: &str) -> Result<Stats> {
        let options = json!({ "kinds": ["audio"], "timeoutMs": u64::try_from(PATIENCE.as_millis())? });
        let stats = self.call("waitForMedia", json!([identity, options])).await;
        stats.with_context(|| format!("{} waits for {identity}'s voice", self.identity))
    }

    /// Asks for "low", "medium" or "high" quality of somebody's camera, as an app does that knows how large it shows it.
    ///
    /// # Errors
    /// When there is no such camera.
    pub async fn set_quality(&self, identity: &str, quality: &str) -> Result<()> {
        self.call::<Value>("setQuality", json!([identity, quality])).await.map(drop)
    }

    /// Waits until somebody's camera arrives with this height; `limit` is at most two minutes.
    ///
    /// # Errors
    /// When it does not in time.
    pub async fn sees_height(&self, identity: &str, height: u32, limit: Duration) -> Result<()> {
        self.sees_lines(identity, height..=height, limit).await
    }

    /// Waits until somebody's camera arrives with a height in this range; `limit` is at most two minutes.
    ///
    /// # Errors
    /// When it does not in time.
    pub async fn sees_lines(&self, identity: &str, lines: RangeInclusive<u32>, limit: Duration) -> Result<()> {
        let options = json!({ "timeoutMs": u64::try_from(limit.as_millis())? });
        let seen = self.call::<Value>("waitForHeight", json!([identity, lines.start(), lines.end(), options])).await;
        seen.map(drop).with_context(|| format!("{} waits for {lines:?} lines of {identity}", self.identity))
    }

    /// Leaves the room.
    ///
    /// # Errors
    /// When the client's process is gone.
    pub async fn leave(&self) -> Result<()> {
        self.call::<Value>("leave", json!([])).await.map(drop)
    }

    async fn call<T: DeserializeOwned>(&self, name: &str, args: Value) -> Result<T> {
        let mut request = json!({ "method": "call", "name": name, "args": args });
        if let (Some(page), Some(fields)) = (&self.page, request.as_object_mut()) {
            fields.insert("page".to_owned(), json!(page));
        }
        self.driver.ask(request).await
    }
}
