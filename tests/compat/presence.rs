//! Presence: who speaks, and how well media gets through.

use anyhow::{Result, ensure};
use meridian_tests::sdk::{Mode, PATIENCE};
use serde_json::json;

use crate::call::{Call, PathCall};

/// A loud voice: -9 dBov.
const LOUD: f64 = 0.5;

/// Ada's tone is heard, grows quiet, is heard again and is muted: both are told each time.
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
    call.ada.set_microphone(false).await?;
    for (client, since) in [&call.ada, &call.bob].into_iter().zip(since) {
        client.hears_within(speaks(""), since, PATIENCE).await?;
    }
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
