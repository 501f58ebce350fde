//! Subscriptions: by themselves, or as the app asks.

use std::ops::RangeInclusive;
use std::time::Instant;

use anyhow::{Result, ensure};
use meridian_tests::browser::Browser;
use meridian_tests::scene::Scene;
use meridian_tests::sdk::{Mode, PATIENCE};
use serde_json::json;

use crate::call::Call;

/// Frames a second of a camera whose publisher has a busy machine, or none.
const FULL_RATE: RangeInclusive<u32> = 12..=60;
/// Frames a second that are asked for, and that then come: as many as the least share of the frames that has them.
const FEW: u32 = 5;
const FEW_FRAMES: RangeInclusive<u32> = 1..=11;

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
    bob.subscribe_to("ada", "microphone", true).await?;
    bob.hears(json!({ "event": "trackSubscribed", "identity": "ada", "source": "microphone" })).await?;
    ada.hears(json!({ "event": "localTrackSubscribed", "text": "microphone" })).await?;
    let came = bob.heard(0).await?.into_iter().filter(|heard| heard.event == "trackSubscribed").count();
    ensure!(came == 1, "he asked for her voice alone");
    bob.subscribe("ada", true).await?;
    bob.sees_and_hears("ada").await?;
    ada.hears(json!({ "event": "localTrackSubscribed", "text": "camera" })).await?;
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

/// An app that needs fewer frames than there are says so.
pub(crate) async fn frame_rate(mode: Mode) -> Result<()> {
    let call = Call::with_video(mode).await?;
    call.bob.set_quality("ada", "low").await?;
    call.bob.sees_lines("ada", 1..=360, PATIENCE).await?;
    call.bob.sees_frame_rate("ada", FULL_RATE).await?;
    call.bob.set_frame_rate("ada", FEW).await?;
    call.bob.sees_frame_rate("ada", FEW_FRAMES).await?;
    call.bob.set_frame_rate("ada", *FULL_RATE.end()).await?;
    call.bob.sees_frame_rate("ada", FULL_RATE).await
}
