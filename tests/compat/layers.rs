//! What of a video is sent: adaptive stream at the subscriber, dynacast at the publisher.

use anyhow::{Result, ensure};
use meridian_tests::browser::Browser;
use meridian_tests::scene::Scene;
use meridian_tests::sdk::{Mode, PATIENCE, SdkClient};
use serde_json::json;

use crate::call::PathCall;

/// A picture that is shown again goes on within this time, ms.
const BACK_WITHIN_MS: f64 = 1_000.0;
/// Not even the lowest layer fits.
const TOO_NARROW: u64 = 60_000;

struct Watching {
    ada: SdkClient,
    bob: SdkClient,
    _scene: Scene,
    _browsers: [Browser; 2],
}

/// Ada shows her camera to Bob, whose SDK says how large he shows it. A browser for each: what one does not show in the
/// foreground it may slow down.
async fn watching(mode: Mode) -> Result<Watching> {
    let (scene, browsers) = (Scene::open().await?, [Browser::launch().await?, Browser::launch().await?]);
    let (ada, bob) = (browsers[0].client("ada").await?, browsers[1].client("bob").await?);
    ada.join(&scene, mode).await?;
    bob.join_with_options(&scene, mode, json!({ "adaptiveStream": true })).await?;
    ada.publish().await?;
    bob.sees_and_hears("ada").await?;
    Ok(Watching { ada, bob, _scene: scene, _browsers: browsers })
}

/// Small pictures get the low layer, large ones the high one, hidden ones nothing.
pub(crate) async fn adaptive_stream(mode: Mode) -> Result<()> {
    let Watching { bob, .. } = &watching(mode).await?;
    for (size, lines) in [((160, 90), 180), ((1280, 720), 720), ((640, 360), 360)] {
        bob.show("ada", size.0, size.1).await?;
        bob.sees_height("ada", lines, PATIENCE).await?;
    }
    bob.hide("ada").await?;
    let waited = bob.show("ada", 160, 90).await?;
    ensure!(waited < BACK_WITHIN_MS, "the picture came back after {waited:.0} ms");
    bob.sees_height("ada", 180, PATIENCE).await
}

/// What nobody wants is not sent by the publisher, and is again at once when somebody does.
pub(crate) async fn dynacast(mode: Mode) -> Result<()> {
    let Watching { ada, bob, .. } = &watching(mode).await?;
    bob.show("ada", 1280, 720).await?;
    ada.sends_layers(&["vp8 q", "vp8 h", "vp8 f"]).await?;
    bob.show("ada", 160, 90).await?;
    ada.sends_layers(&["vp8 q"]).await?;
    bob.show("ada", 640, 360).await?;
    ada.sends_layers(&["vp8 q", "vp8 h"]).await?;
    bob.sees_height("ada", 360, PATIENCE).await?;
    bob.hide("ada").await?;
    ada.sends_layers(&[]).await?;
    let waited = bob.show("ada", 1280, 720).await?;
    ensure!(waited < BACK_WITHIN_MS, "the picture came back after {waited:.0} ms");
    ada.sends_layers(&["vp8 q", "vp8 h", "vp8 f"]).await?;
    bob.sees_height("ada", 720, PATIENCE).await
}

/// The node pauses a video that does not fit the subscriber's path, and says so.
pub(crate) async fn stream_state(mode: Mode) -> Result<()> {
    let PathCall { bob, relay, .. } = &PathCall::open(mode).await?;
    bob.sees_and_hears("ada").await?;
    let state = |text: &str| json!({ "event": "streamState", "identity": "ada", "text": text });
    relay.limit(Some(TOO_NARROW));
    let paused = bob.hears(state("paused")).await?;
    relay.limit(None);
    bob.hears_within(state("active"), paused.index, PATIENCE).await?;
    bob.sees_and_hears("ada").await.map(drop)
}
