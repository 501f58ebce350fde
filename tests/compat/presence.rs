//! Presence: who speaks, and how well media gets through.

use anyhow::{Context, Result, ensure};
use meridian_tests::browser::Browser;
use meridian_tests::scene::Scene;
use meridian_tests::sdk::{Mode, PATIENCE};
use serde_json::json;

use crate::call::{Call, PathCall};

/// A loud voice: -9 dBov.
const LOUD: f64 = 0.5;
/// One that is heard beside it: -23 dBov.
const QUIET: f64 = 0.1;

/// Ada's tone is heard, grows quiet, is heard again and is muted: both are told each time, and who comes while it sounds.
pub(crate) async fn speakers(mode: Mode) -> Result<()> {
    let call = Call::open(mode).await?;
    let speaks = |who: &str| json!({ "event": "activeSpeakers", "text": who });
    let mut since = [call.ada.mark().await?, call.bob.mark().await?];
    call.ada.publish_tone(LOUD, json!({})).await?;
    for (gain, speaking) in [(None, "ada"), (Some(0.0), ""), (Some(LOUD), "ada")] {
        if let Some(gain) = gain {
            call.ada.set_tone(gain).await?;
        }
        for (client, since) in [&call.ada, &call.bob].into_iter().zip(&mut since) {
            *since = client.hears_within(speaks(speaking), *since, PATIENCE).await?.index + 1;
        }
    }
    let eve = call.page("eve").await?;
    eve.join_room(call.front.url(), &call.scene.room, mode).await?;
    eve.hears(speaks("ada")).await?;
    call.ada.set_microphone(false).await?;
    for (client, since) in [&call.ada, &call.bob].into_iter().zip(since) {
        client.hears_within(speaks(""), since, PATIENCE).await?;
    }
    Ok(())
}

/// Of two who speak the louder one is first, for both; when they change over, so does the order.
pub(crate) async fn loudest_first(mode: Mode) -> Result<()> {
    let call = Call::open(mode).await?;
    call.ada.publish_tone(LOUD, json!({})).await?;
    call.bob.publish_tone(QUIET, json!({})).await?;
    let mut since = [0, 0];
    for (gains, order) in [(None, "ada,bob"), (Some((QUIET, LOUD)), "bob,ada")] {
        if let Some((hers, his)) = gains {
            tokio::try_join!(call.ada.set_tone(hers), call.bob.set_tone(his))?;
        }
        for (client, since) in [&call.ada, &call.bob].into_iter().zip(&mut since) {
            let speak = json!({ "event": "activeSpeakers", "text": order });
            let heard = client.hears_within(speak, *since, PATIENCE).await?;
            let levels = heard.levels.context("no levels")?;
            let levels: Vec<f64> = levels.split(',').filter_map(|one| one.split_once(' ')?.1.parse().ok()).collect();
            ensure!(
                matches!(levels[..], [first, second] if first > second && second > 0.0 && first <= 1.0),
                "{levels:?}"
            );
            *since = heard.index + 1;
        }
    }
    Ok(())
}

/// Who is known is said to be active when its media is up.
pub(crate) async fn active(mode: Mode) -> Result<()> {
    let call = Call::open(mode).await?;
    let known = call.ada.hears(json!({ "event": "participantConnected", "identity": "bob" })).await?;
    let active = json!({ "event": "participantActive", "identity": "bob" });
    call.ada.hears_within(active, known.index, PATIENCE).await?;
    Ok(())
}

/// Whose machine dies is lost for those who watch, and leaves once, when the room has waited for it.
pub(crate) async fn death(mode: Mode) -> Result<()> {
    let (scene, browser) = (Scene::open().await?, Browser::launch().await?);
    let bob = browser.client("bob").await?;
    bob.join(&scene, mode).await?;
    let hers = Browser::launch().await?;
    let ada = hers.client("ada").await?;
    ada.join(&scene, mode).await?;
    ada.publish().await?;
    bob.sees_and_hears("ada").await?;
    let since = bob.mark().await?;
    hers.kill().await?;
    let lost = json!({ "event": "connectionQuality", "identity": "ada", "text": "lost" });
    let lost = bob.hears_within(lost, since, PATIENCE).await?;
    bob.hears_within(json!({ "event": "participantDisconnected", "identity": "ada" }), lost.index, PATIENCE).await?;
    let left = bob.heard(since).await?.into_iter().filter(|heard| heard.event == "participantDisconnected");
    ensure!(left.count() == 1 && bob.picture().await?.is_empty(), "she left once");
    Ok(())
}

/// On a good path everybody's is excellent: everyone hears of itself and of those it is subscribed to.
pub(crate) async fn quality(mode: Mode) -> Result<()> {
    let call = Call::with_video(mode).await?;
    let excellent = |who: &str| json!({ "event": "connectionQuality", "identity": who, "text": "excellent" });
    call.ada.hears(excellent("ada")).await?;
    call.bob.hears(excellent("ada")).await?;
    call.bob.hears(excellent("bob")).await?;
    ensure!(call.ada.connection_quality("bob").await? == "unknown", "bob publishes nothing");
    Ok(())
}

/// A path that loses one packet in twelve is poor, and excellent again when it loses none.
pub(crate) async fn quality_of_a_bad_path(mode: Mode) -> Result<()> {
    let PathCall { bob, relay, .. } = &PathCall::open(mode).await?;
    let own = |text: &str| json!({ "event": "connectionQuality", "identity": "bob", "text": text });
    let first = bob.hears(own("excellent")).await?;
    bob.sees_and_hears("ada").await?;
    relay.lose(1.0 / 12.0);
    let poor = bob.hears_within(own("poor"), first.index, PATIENCE).await?;
    relay.lose(0.0);
    bob.hears_within(own("excellent"), poor.index, PATIENCE).await?;
    Ok(())
}
