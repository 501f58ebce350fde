//! Media that a browser publishes in ways of its own, shows and looks at.

use std::collections::HashMap;
use std::ops::RangeInclusive;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{PATIENCE, SdkClient};

impl SdkClient {
    /// Publishes a steady tone as its microphone, with options of the SDK; gain 1 is full scale.
    ///
    /// # Errors
    /// When the SDK cannot publish.
    pub async fn publish_tone(&self, gain: f64, options: Value) -> Result<()> {
        self.call::<Value>("publishTone", json!([gain, options])).await.map(drop)
    }

    /// Makes the tone louder or quieter.
    ///
    /// # Errors
    /// When there is none.
    pub async fn set_tone(&self, gain: f64) -> Result<()> {
        self.call::<Value>("setTone", json!([gain])).await.map(drop)
    }

    /// Publishes its camera with options of the SDK.
    ///
    /// # Errors
    /// When the SDK cannot publish.
    pub async fn publish_camera_with(&self, options: Value) -> Result<()> {
        self.call::<Value>("publishCameraWith", json!([options])).await.map(drop)
    }

    /// Publishes its camera small and as one layer, for many browsers on few cores.
    ///
    /// # Errors
    /// When the SDK cannot publish.
    pub async fn publish_small_camera(&self) -> Result<()> {
        self.call::<Value>("publishSmallCamera", json!([])).await.map(drop)
    }

    /// Shows its camera, or mutes it.
    ///
    /// # Errors
    /// When the SDK cannot.
    pub async fn set_camera(&self, on: bool) -> Result<()> {
        self.call::<Value>("setCamera", json!([on])).await.map(drop)
    }

    /// Takes its track of a source out of the room.
    ///
    /// # Errors
    /// When there is none.
    pub async fn unpublish(&self, source: &str) -> Result<()> {
        self.call::<Value>("unpublish", json!([source])).await.map(drop)
    }

    /// Receives somebody's camera again, or waits until it does not arrive for now.
    ///
    /// # Errors
    /// When there is no such camera, or it still arrives after [`PATIENCE`].
    pub async fn set_enabled(&self, identity: &str, on: bool) -> Result<()> {
        self.call::<Value>("setEnabled", json!([identity, on])).await?;
        if on {
            return Ok(());
        }
        self.call::<Value>("waitForNothing", json!([identity, limit_ms()?])).await.map(drop)
    }

    /// Asks for so many frames of somebody's camera in a second.
    ///
    /// # Errors
    /// When there is no such camera.
    pub async fn set_frame_rate(&self, identity: &str, frames: u32) -> Result<()> {
        self.call::<Value>("setFrameRate", json!([identity, frames])).await.map(drop)
    }

    /// Waits until somebody's camera arrives with so many frames a second.
    ///
    /// # Errors
    /// When it does not in [`PATIENCE`].
    pub async fn sees_frame_rate(&self, identity: &str, rate: RangeInclusive<u32>) -> Result<()> {
        let args = json!([identity, rate.start(), rate.end(), limit_ms()?]);
        self.call::<Value>("waitForFrameRate", args).await.map(drop)
    }

    /// Shares its own tab, with its sound.
    ///
    /// # Errors
    /// When the SDK cannot publish.
    pub async fn share_screen(&self) -> Result<()> {
        self.call::<Value>("shareScreen", json!([])).await.map(drop)
    }

    /// Shows somebody's camera this large, pixels: the time until its picture went on, ms.
    ///
    /// # Errors
    /// When it does not.
    pub async fn show(&self, identity: &str, width: u32, height: u32) -> Result<f64> {
        self.call("show", json!([identity, width, height])).await
    }

    /// Shows somebody's camera no more, and waits until it does not arrive any more.
    ///
    /// # Errors
    /// When it still does in [`PATIENCE`].
    pub async fn hide(&self, identity: &str) -> Result<()> {
        self.call::<Value>("hide", json!([identity])).await?;
        self.call::<Value>("waitForNothing", json!([identity, limit_ms()?])).await.map(drop)
    }

    /// Waits until these layers of its own camera are sent and no others, each by codec and rid: `vp8 q`.
    ///
    /// # Errors
    /// When others are in [`PATIENCE`].
    pub async fn sends_layers(&self, layers: &[&str]) -> Result<()> {
        let sent = self.call::<Value>("waitForLayers", json!([layers, limit_ms()?])).await;
        sent.map(drop).with_context(|| format!("{} is to send {layers:?}", self.identity))
    }

    /// Waits until somebody's pictures are held back so long between arriving and being shown, milliseconds.
    ///
    /// # Errors
    /// When they are not in [`PATIENCE`].
    pub async fn holds_back(&self, identity: &str, delay_ms: RangeInclusive<u32>) -> Result<()> {
        let args = json!([identity, delay_ms.start(), delay_ms.end(), limit_ms()?]);
        let held = self.call::<Value>("waitForDelay", args).await;
        held.map(drop).with_context(|| format!("{} is to hold {identity} back {delay_ms:?} ms", self.identity))
    }

    /// By source, the id of the `MediaStream` in which somebody's tracks are.
    ///
    /// # Errors
    /// When it does not know them.
    pub async fn streams(&self, identity: &str) -> Result<HashMap<String, String>> {
        self.call("streams", json!([identity])).await
    }

    /// LiveKit's description of somebody's track, as JSON.
    ///
    /// # Errors
    /// When there is none.
    pub async fn track_info(&self, identity: &str, source: &str) -> Result<Value> {
        self.call::<Option<Value>>("trackInfo", json!([identity, source])).await?.context("no such track")
    }

    /// Whether it decrypts somebody's tracks.
    ///
    /// # Errors
    /// When it does not know them.
    pub async fn is_encrypted(&self, identity: &str) -> Result<bool> {
        self.call("isEncrypted", json!([identity])).await
    }

    /// What it last heard of somebody's connection: `excellent`, …
    ///
    /// # Errors
    /// When it does not know them.
    pub async fn connection_quality(&self, identity: &str) -> Result<String> {
        self.call("connectionQuality", json!([identity])).await
    }
}

fn limit_ms() -> Result<u64> {
    Ok(u64::try_from(PATIENCE.as_millis())?)
}
