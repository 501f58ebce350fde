//! Chromium decodes a simulcast camera of which another layer comes every second, and its picture never stands still.

use std::time::Duration;

use anyhow::{Context, Result};
use meridian_tests::browser::Browser;
use meridian_tests::scene::Scene;
use meridian_tests::sdk::{Mode, PATIENCE};
use tokio::time::{MissedTickBehavior, interval};

/// What the viewer asks for in turn, and the lines it then gets.
const LAYERS: [(&str, u32); 4] = [("low", 180), ("high", 720), ("medium", 360), ("high", 720)];
const SWITCHES: usize = 60;

#[tokio::test(flavor = "multi_thread")]
async fn of_a_minute_of_switches() -> Result<()> {
    let (scene, browser) = (Scene::open().await?, Browser::launch().await?);
    let (ada, bob) = (browser.client("ada").await?, browser.client("bob").await?);
    ada.join(&scene, Mode::Single).await?;
    bob.join(&scene, Mode::Single).await?;
    ada.publish().await?;
    bob.sees_height("ada", 720, PATIENCE).await?;
    let before = bob.stats().await?.video("ada").context("no video")?.clone();
    let mut seconds = interval(Duration::from_secs(1));
    seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for (quality, height) in LAYERS.iter().cycle().take(SWITCHES) {
        seconds.tick().await;
        bob.set_quality("ada", quality).await?;
        bob.sees_height("ada", *height, PATIENCE).await?;
    }
    let after = bob.stats().await?.video("ada").context("no video")?.clone();
    println!("{} frames, {} freezes", after.frames_decoded - before.frames_decoded, after.freeze_count);
    assert_eq!(after.freeze_count - before.freeze_count, 0, "{:.3} s frozen", after.total_freezes_duration);
    Ok(())
}
