//! Subscriptions: by themselves, or as the app asks.

use std::time::Instant;

use anyhow::{Result, ensure};
use meridian_tests::browser::Browser;
use meridian_tests::scene::Scene;
use meridian_tests::sdk::{Mode, PATIENCE};
use serde_json::json;

use crate::call::Call;

/// Without auto-subscribe tracks are seen and come when asked for, track by track.
pub(crate) async fn on_demand(mode: Mode) -> Result<()> {
    let scene = Scene::open().await?;
    let browser = Browser::launch().await?;
    let (ada, bob) = (browser.client("ada").await?, browser.client("bob").await?);
    ada.join(&scene, mode).await?;
    ada.publish().await?;
    bob.join_unsubscribed(&scene, mode).await?;
    let seen = |picture: &std::collections::HashMap<String, meridian_tests::sdk::Seen>| {
        picture.get("ada").map_or(0, |ada| ada.tracks.len())
    };
    let deadline = Instant::now() + PATIENCE;
    while seen(&bob.picture().await?) < 2 {
        ensure!(Instant::now() < deadline, "two tracks are not listed");
    }
    ensure!(bob.picture().await?["ada"].tracks.iter().all(|track| !track.subscribed), "nobody asked");
    bob.subscribe("ada", true).await?;
    bob.sees_and_hears("ada").await?;
    ada.hears(json!({ "event": "localTrackSubscribed" })).await?;
    let since = bob.mark().await?;
    bob.subscribe("ada", false).await?;
    for kind in ["audio", "video"] {
        bob.hears_within(json!({ "event": "trackUnsubscribed", "identity": "ada", "kind": kind }), since, PATIENCE)
            .await?;
    }
    bob.subscribe("ada", true).await?;
    bob.sees_and_hears("ada").await?;
    Ok(())
}

/// An app without adaptive streams says itself how much of a video it wants.
pub(crate) async fn as_the_app_asks(mode: Mode) -> Result<()> {
    let call = Call::with_video(mode).await?;
    call.bob.sees_height("ada", 720, PATIENCE).await?;
    call.bob.set_quality("ada", "low").await?;
    call.bob.sees_lines("ada", 1..=360, PATIENCE).await?;
    call.bob.set_quality("ada", "high").await?;
    call.bob.sees_height("ada", 720, PATIENCE).await?;
    call.bob.set_enabled("ada", false).await?;
    call.bob.set_enabled("ada", true).await?;
    call.bob.sees_and_hears("ada").await?;
    Ok(())
}
