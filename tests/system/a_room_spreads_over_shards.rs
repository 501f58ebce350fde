//! A room on two media threads of one node, each with a port of its own, is one room to everybody in it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use anyhow::Result;
use meridian_tests::browser::Browser;
use meridian_tests::client::{Client, Observed, Publish, text};
use meridian_tests::scene::{Deployment, Scene};
use meridian_tests::sdk::{Mode, PATIENCE};

const SHARDS: [&str; 2] = ["0", "1"];

/// A node of two shards whose rooms take the second as soon as somebody is on the first.
async fn two_shards() -> Result<Arc<Deployment>> {
    let args = vec!["--spread-sessions".to_owned(), "1".to_owned()];
    tokio::task::spawn_blocking(|| Deployment::of_shards(2, args)).await?
}

/// A counter of each shard.
async fn by_shard(deployment: &Deployment, name: &str) -> Result<[f64; 2]> {
    let text = deployment.metrics_text().await?;
    Ok(SHARDS.map(|shard| {
        let start = format!("meridian_node_{name}{{shard=\"{shard}\"}} ");
        text.lines().find_map(|line| line.strip_prefix(&start)).unwrap().parse().unwrap()
    }))
}

/// Waits for the node's next look at its shards.
async fn until_by_shard(deployment: &Deployment, name: &str, over: impl Fn(f64) -> bool) -> Result<()> {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let values = by_shard(deployment, name).await?;
        if values.into_iter().all(&over) {
            return Ok(());
        }
        anyhow::ensure!(tokio::time::Instant::now() < deadline, "{name} is {values:?}");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}

async fn join(scene: &Scene, identity: &str) -> Client {
    let mut options = scene.options(identity).unwrap();
    let layers = vec![100_000, 300_000, 900_000];
    let camera = Publish::Video { cid: "camera".to_owned(), layers, frames_per_second: 30 };
    options.publish = vec![camera, Publish::microphone("microphone")];
    // Keyframes come because the node asks for them.
    options.asks_for_keyframes = false;
    let mut client = Client::join(options).await.unwrap();
    client.connected().await.unwrap();
    client
}

#[tokio::test]
async fn media_keyframes_and_data_cross() -> Result<()> {
    let scene = Scene::on(two_shards().await?);
    let (mut ada, mut bob) = (join(&scene, "ada").await, join(&scene, "bob").await);
    until_by_shard(&scene.deployment, "transports", |count| count > 0.0).await?;
    let whole = |o: &Observed| {
        let (audio, video) = (o.flow('A')?, o.flow('V')?);
        (audio.packets > 50 && video.packets > 200 && video.keyframes > 0).then_some(())
    };
    for client in [&mut ada, &mut bob] {
        client.until("audio and video", whole).await?;
    }
    let before = ada.observe(|o| o.keyframe_requests);
    // Two more, one on each shard.
    let (mut cleo, mut dan) = (join(&scene, "cleo").await, join(&scene, "dan").await);
    for client in [&mut cleo, &mut dan] {
        let everybody = |o: &Observed| {
            let began = o.flows.values().filter(|flow| flow.packets > 50).count();
            (began == 6 && o.flow('V')?.keyframes > 0).then_some(())
        };
        client.until("everybody's audio and video", everybody).await?;
    }
    ada.until("keyframe requests", |o| (o.keyframe_requests > before).then_some(())).await?;
    until_by_shard(&scene.deployment, "crossings_sent_total", |count| count > 500.0).await?;
    assert_eq!(by_shard(&scene.deployment, "crossings_dropped_total").await?, [0.0, 0.0]);

    for label in ["_reliable", "_lossy"] {
        ada.send_data(label, text("hello")).await?;
        for client in [&mut bob, &mut cleo, &mut dan] {
            let heard = client.until("a data packet", |o| o.said(label)).await?;
            assert_eq!(heard, ("ada".to_owned(), "hello".to_owned()));
        }
    }
    bob.unpublish("camera").await?;
    let names = |o: &Observed| o.participants["bob"].tracks.iter().map(|t| t.name.clone()).collect::<Vec<_>>();
    ada.until("the update", |o| (names(o) == ["microphone"]).then_some(())).await?;
    bob.leave().await?;
    ada.until("leave", |o| (!o.participants.contains_key("bob")).then_some(())).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn browsers_on_two_shards_see_and_hear_each_other() -> Result<()> {
    let (scene, browser) = (Scene::on(two_shards().await?), Browser::launch().await?);
    let (ada, bob) = (browser.client("ada").await?, browser.client("bob").await?);
    ada.join(&scene, Mode::Single).await?;
    bob.join(&scene, Mode::Dual).await?;
    tokio::try_join!(ada.publish(), bob.publish())?;
    tokio::try_join!(ada.sees_and_hears("bob"), bob.sees_and_hears("ada"))?;
    bob.sees_height("ada", 720, PATIENCE).await?;
    bob.set_quality("ada", "low").await?;
    bob.sees_height("ada", 180, PATIENCE).await?;
    bob.set_quality("ada", "high").await?;
    bob.sees_height("ada", 720, PATIENCE).await?;
    until_by_shard(&scene.deployment, "transports", |count| count > 0.0).await?;
    until_by_shard(&scene.deployment, "crossings_received_total", |count| count > 500.0).await
}
