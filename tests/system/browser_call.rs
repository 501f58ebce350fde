//! Unmodified LiveKit SDKs call each other through the real edge and a real node.

use std::time::{Duration, Instant};

use anyhow::Result;
use meridian_tests::browser::Browser;
use meridian_tests::scene::Scene;
use meridian_tests::sdk::{Mode, PATIENCE, SdkClient};
use serde_json::json;

/// How long media must keep flowing.
const CALL: Duration = Duration::from_secs(10);
/// Until when a late joiner must see video, ms.
const FIRST_FRAME_LIMIT_MS: f64 = 2000.0;

#[tokio::test(flavor = "multi_thread")]
async fn two_browsers_on_one_peer_connection_each() -> Result<()> {
    let (scene, browser) = (Scene::open().await?, Browser::launch().await?);
    whole_call(&scene, Mode::Single, &browser.client("ada").await?, &browser.client("bob").await?).await
}

#[tokio::test(flavor = "multi_thread")]
async fn two_browsers_on_two_peer_connections_each() -> Result<()> {
    let (scene, browser) = (Scene::open().await?, Browser::launch().await?);
    whole_call(&scene, Mode::Dual, &browser.client("ada").await?, &browser.client("bob").await?).await
}

#[tokio::test(flavor = "multi_thread")]
async fn browser_and_native_client_on_one_peer_connection_each() -> Result<()> {
    let (scene, browser) = (Scene::open().await?, Browser::launch().await?);
    whole_call(&scene, Mode::Single, &browser.client("ada").await?, &SdkClient::python("bob").await?).await
}

#[tokio::test(flavor = "multi_thread")]
async fn browser_and_native_client_on_two_peer_connections_each() -> Result<()> {
    let (scene, browser) = (Scene::open().await?, Browser::launch().await?);
    whole_call(&scene, Mode::Dual, &browser.client("ada").await?, &SdkClient::python("bob").await?).await
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_both_modes_share_a_room() -> Result<()> {
    let (scene, browser) = (Scene::open().await?, Browser::launch().await?);
    let (ada, bob) = (browser.client("ada").await?, browser.client("bob").await?);
    ada.join(&scene, Mode::Single).await?;
    bob.join(&scene, Mode::Dual).await?;
    tokio::try_join!(ada.publish(), bob.publish())?;
    tokio::try_join!(ada.sees_and_hears("bob"), bob.sees_and_hears("ada"))?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_joiner_sees_video_at_once() -> Result<()> {
    let (scene, browser) = (Scene::open().await?, Browser::launch().await?);
    let (ada, bob, cleo) = (browser.client("ada").await?, browser.client("bob").await?, browser.client("cleo").await?);
    ada.join(&scene, Mode::Single).await?;
    bob.join(&scene, Mode::Single).await?;
    ada.publish().await?;
    bob.sees_and_hears("ada").await?;

    cleo.join(&scene, Mode::Single).await?;
    let joining = cleo.hears(json!({ "event": "joining" })).await?;
    let first_frame = cleo.hears(json!({ "event": "firstFrame", "identity": "ada" })).await?;
    let waited_ms = first_frame.at - joining.at;
    assert!(waited_ms < FIRST_FRAME_LIMIT_MS, "the first frame came {waited_ms:.0} ms after joining began");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_viewer_gets_the_quality_it_asks_for() -> Result<()> {
    let (scene, browser) = (Scene::open().await?, Browser::launch().await?);
    let (ada, bob, cleo) = (browser.client("ada").await?, browser.client("bob").await?, browser.client("cleo").await?);
    ada.join(&scene, Mode::Single).await?;
    bob.join(&scene, Mode::Single).await?;
    cleo.join(&scene, Mode::Dual).await?;
    ada.publish().await?;
    tokio::try_join!(bob.sees_and_hears("ada"), cleo.sees_and_hears("ada"))?;
    cleo.set_quality("ada", "low").await?;
    for (quality, height) in [("low", 180), ("high", 720), ("medium", 360), ("low", 180), ("medium", 360)] {
        bob.set_quality("ada", quality).await?;
        bob.sees_height("ada", height, PATIENCE).await?;
        cleo.sees_height("ada", 180, PATIENCE).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn chromium_gets_gcm() -> Result<()> {
    let (scene, browser) = (Scene::open().await?, Browser::launch().await?);
    let (ada, bob) = (browser.client("ada").await?, browser.client("bob").await?);
    ada.join(&scene, Mode::Single).await?;
    bob.join(&scene, Mode::Single).await?;
    ada.publish().await?;
    let stats = bob.sees_and_hears("ada").await?;
    assert_eq!(stats.ciphers, ["SRTP_AEAD_AES_128_GCM"]);
    Ok(())
}

/// Join, publish, ten seconds of media both ways, data both ways, mute, leave.
async fn whole_call(scene: &Scene, mode: Mode, ada: &SdkClient, bob: &SdkClient) -> Result<()> {
    ada.join(scene, mode).await?;
    bob.join(scene, mode).await?;
    ada.hears(json!({ "event": "participantConnected", "identity": "bob" })).await?;
    tokio::try_join!(ada.publish(), bob.publish())?;
    tokio::try_join!(ada.sees_and_hears("bob"), bob.sees_and_hears("ada"))?;
    media_keeps_flowing(ada, bob).await?;
    exchange_data(ada, bob).await?;
    exchange_data(bob, ada).await?;
    mute_is_seen(ada, bob).await?;
    mute_is_seen(bob, ada).await?;
    bob.leave().await?;
    ada.hears(json!({ "event": "participantDisconnected", "identity": "bob" })).await?;
    assert!(ada.picture().await?.is_empty());
    Ok(())
}

/// For ten seconds, there is always more to see and to hear, in both directions.
async fn media_keeps_flowing(ada: &SdkClient, bob: &SdkClient) -> Result<()> {
    let started = Instant::now();
    let (from_bob, from_ada) = (ada.stats().await?, bob.stats().await?);
    while started.elapsed() < CALL {
        tokio::try_join!(ada.sees_and_hears("bob"), bob.sees_and_hears("ada"))?;
    }
    let (bob_now, ada_now) = (ada.stats().await?, bob.stats().await?);
    let seconds = CALL.as_secs();
    for (frames, energy, who) in [
        (bob_now.frames("bob") - from_bob.frames("bob"), bob_now.energy("bob") - from_bob.energy("bob"), "bob"),
        (ada_now.frames("ada") - from_ada.frames("ada"), ada_now.energy("ada") - from_ada.energy("ada"), "ada"),
    ] {
        println!("{who}: {frames} frames, audio energy {energy:.4} in {seconds} s");
        // A slide show would still grow: this is video.
        assert!(frames > 2 * seconds, "only {frames} frames of {who} in {seconds} s");
    }
    Ok(())
}

async fn exchange_data(from: &SdkClient, to: &SdkClient) -> Result<()> {
    let sender = from.identity();
    from.send_data("by the reliable channel", true).await?;
    let wanted = json!({ "event": "data", "identity": sender, "topic": "test", "text": "by the reliable channel" });
    to.hears(wanted).await?;
    from.send_data("by the lossy channel", false).await?;
    to.hears(json!({ "event": "data", "identity": sender, "topic": "test", "text": "by the lossy channel" })).await?;
    from.send_text("a text stream").await?;
    to.hears(json!({ "event": "text", "identity": sender, "text": "a text stream" })).await?;
    Ok(())
}

async fn mute_is_seen(who: &SdkClient, by: &SdkClient) -> Result<()> {
    let identity = who.identity();
    let since = by.mark().await?;
    who.set_microphone(false).await?;
    let muted = json!({ "event": "trackMuted", "identity": identity, "source": "microphone" });
    by.hears_within(muted, since, PATIENCE).await?;
    who.set_microphone(true).await?;
    let unmuted = json!({ "event": "trackUnmuted", "identity": identity, "source": "microphone" });
    by.hears_within(unmuted, since, PATIENCE).await?;
    by.sees_and_hears(identity).await?;
    Ok(())
}
