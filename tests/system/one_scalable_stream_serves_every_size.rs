//! A scalable stream (VP9, AV1) of one SSRC: Chromium's own encoder and decoder, and each viewer gets the size it asks for.

use anyhow::Result;
use meridian_tests::browser::Browser;
use meridian_tests::scene::Scene;
use meridian_tests::sdk::{Mode, PATIENCE};
use tokio::sync::Mutex;

/// Pictures freeze where cores are short: each encodes 720 lines.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

#[tokio::test(flavor = "multi_thread")]
async fn of_vp9_with_layers_that_share_keyframes_only() -> Result<()> {
    sizes_of("vp9", "L3T3_KEY", &[("low", 180), ("high", 720), ("medium", 360), ("high", 720)]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn of_vp9_with_layers_that_depend_on_each_other() -> Result<()> {
    sizes_of("vp9", "L3T3", &[("low", 180), ("high", 720), ("medium", 360), ("high", 720)]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn of_av1_with_temporal_layers() -> Result<()> {
    sizes_of("av1", "L1T3", &[("low", 720), ("high", 720)]).await
}

/// Bob asks for one size after the other, Cleo has a low one all the time; neither has a freeze.
async fn sizes_of(codec: &str, mode: &str, sizes: &[(&str, u32)]) -> Result<()> {
    let _alone = ONE_AT_A_TIME.lock().await;
    let (scene, browser) = (Scene::open().await?, Browser::launch().await?);
    let (ada, bob, cleo) = (browser.client("ada").await?, browser.client("bob").await?, browser.client("cleo").await?);
    ada.join(&scene, Mode::Single).await?;
    bob.join(&scene, Mode::Single).await?;
    cleo.join(&scene, Mode::Dual).await?;
    ada.publish_camera(codec, mode).await?;
    bob.sees_height("ada", 720, PATIENCE).await?;
    let mut seen = vec![];
    cleo.sees_height("ada", 720, PATIENCE).await?;
    cleo.set_quality("ada", "low").await?;
    let lowest = sizes.iter().map(|(_, height)| *height).min().unwrap_or(0);
    cleo.sees_height("ada", lowest, PATIENCE).await?;
    for (quality, height) in sizes {
        bob.set_quality("ada", quality).await?;
        bob.sees_height("ada", *height, PATIENCE).await?;
        cleo.sees_height("ada", lowest, PATIENCE).await?;
        seen.push((*quality, bob.stats().await?.video("ada").map(|video| (video.frames_decoded, video.freeze_count))));
    }
    println!("{codec} {mode}: {seen:?}");
    for viewer in [&bob, &cleo] {
        let stats = viewer.stats().await?;
        let video = stats.video("ada").cloned();
        let codec_seen = video.as_ref().map(|video| video.mime_type.to_lowercase());
        assert_eq!(codec_seen, Some(format!("video/{codec}")), "{}", viewer.identity());
        assert_eq!(video.map(|video| video.freeze_count), Some(0), "{}", viewer.identity());
    }
    Ok(())
}
