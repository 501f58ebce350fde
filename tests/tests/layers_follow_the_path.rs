//! A viewer whose path becomes narrow gets a smaller picture that goes on, and the large one again when the path is wide.

use std::time::Duration;

use anyhow::Result;
use meridian_tests::browser::Browser;
use meridian_tests::scene::{Deployment, Scene};
use meridian_tests::sdk::Mode;

/// Carries the middle layer (0.45 Mbit/s) and audio, not the upper (1.7 Mbit/s), nor that at half its frame rate.
const NARROW: u64 = 700_000;
/// Probes that failed put the next one off, up to 16 s, and two are needed on the way up.
const PATIENCE: Duration = Duration::from_secs(90);

#[tokio::test(flavor = "multi_thread")]
async fn of_a_browser_down_and_up() -> Result<()> {
    let (deployment, relay) = Deployment::behind_relay().await?;
    let (scene, browser) = (Scene::on(deployment), Browser::launch().await?);
    let (ada, bob) = (browser.client("ada").await?, browser.client("bob").await?);
    ada.join(&scene, Mode::Single).await?;
    bob.join(&scene, Mode::Single).await?;
    ada.publish().await?;
    bob.sees_height("ada", 720, PATIENCE).await?;
    relay.limit(Some(NARROW));
    bob.sees_height("ada", 360, PATIENCE).await?;
    relay.limit(None);
    bob.sees_height("ada", 720, PATIENCE).await?;
    Ok(())
}
