//! Browsers in a call come back by themselves when the edge dies: the same people.

use anyhow::Result;
use meridian_tests::browser::Browser;
use meridian_tests::scene::Scene;
use meridian_tests::sdk::{Mode, SdkClient};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn after_the_edge_was_killed() -> Result<()> {
    let scene = Scene::alone(1).await?;
    let browsers = [Browser::launch().await?, Browser::launch().await?];
    let (ada, bob) = call(&scene, &browsers).await?;
    let since = [ada.mark().await?, bob.mark().await?];

    scene.deployment.restart_edge().await?;
    come_back(&ada, &bob, since).await
}

/// A browser for each: the pages of one share its fake camera, which can stay dark when two restart it at a time.
async fn call(scene: &Scene, [hers, his]: &[Browser; 2]) -> Result<(SdkClient, SdkClient)> {
    let (ada, bob) = (hers.client("ada").await?, his.client("bob").await?);
    ada.join(scene, Mode::Single).await?;
    bob.join(scene, Mode::Single).await?;
    tokio::try_join!(ada.publish(), bob.publish())?;
    tokio::try_join!(ada.sees_and_hears("bob"), bob.sees_and_hears("ada"))?;
    Ok((ada, bob))
}

async fn come_back(ada: &SdkClient, bob: &SdkClient, since: [usize; 2]) -> Result<()> {
    let back = || json!({ "event": "reconnected" });
    tokio::try_join!(
        ada.hears_within(back(), since[0], RECONNECT_LIMIT),
        bob.hears_within(back(), since[1], RECONNECT_LIMIT)
    )?;
    tokio::try_join!(ada.sees_and_hears("bob"), bob.sees_and_hears("ada"))?;
    Ok(())
}

/// Longest that the SDK takes: it tries again at growing intervals.
const RECONNECT_LIMIT: std::time::Duration = std::time::Duration::from_secs(40);
