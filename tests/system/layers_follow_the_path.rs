//! A viewer whose path becomes narrow gets a smaller picture that goes on, and the large one again when the path is wide.

use std::time::Duration;

use anyhow::Result;
use meridian_tests::browser::Browser;
use meridian_tests::scene::{Deployment, Scene};
use meridian_tests::sdk::Mode;

/// Carries the lowest layer (0.15 Mbit/s) and audio, and of the upper one (1.7 Mbit/s) not even half the frames where a
/// slow machine encodes less of it.
const NARROW: u64 = 350_000;
/// Lines of the upper layer.
const FULL: u32 = 720;
/// Probes that failed put the next one off, up to 16 s, and two are needed on the way up.
const PATIENCE: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread")]
async fn of_a_browser_down_and_up() -> Result<()> {
    let (deployment, relay) = Deployment::behind_relay().await?;
    let (scene, browser) = (Scene::on(deployment), Browser::launch().await?);
    let (ada, bob) = (browser.client("ada").await?, browser.client("bob").await?);
    ada.join(&scene, Mode::Single).await?;
    bob.join(&scene, Mode::Single).await?;
    ada.publish().await?;
    bob.sees_height("ada", FULL, PATIENCE).await?;
    relay.limit(Some(NARROW));
    bob.sees_lines("ada", 1..=FULL / 2, PATIENCE).await?;
    relay.limit(None);
    bob.sees_height("ada", FULL, PATIENCE).await?;
    Ok(())
}
