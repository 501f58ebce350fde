//! Tracks: features, codecs, screens.

use anyhow::{Result, ensure};
use meridian_tests::browser::Browser;
use meridian_tests::scene::Scene;
use meridian_tests::sdk::{Mode, PATIENCE};
use serde_json::json;

use crate::call::Call;

/// A steady tone, well heard.
const TONE: f64 = 0.3;

/// The publisher hears, once a track, that somebody is subscribed.
pub(crate) async fn track_subscribed(mode: Mode) -> Result<()> {
    let call = Call::with_video(mode).await?;
    for source in ["camera", "microphone"] {
        call.ada.hears(json!({ "event": "localTrackSubscribed", "text": source })).await?;
    }
    Ok(())
}

/// Stereo without redundancy and discontinuous transmission: agreed on, told to others, and heard.
pub(crate) async fn audio_features(mode: Mode) -> Result<()> {
    let call = Call::open(mode).await?;
    call.ada.publish_tone(TONE, json!({ "dtx": false, "red": false, "forceStereo": true })).await?;
    call.bob.hears(json!({ "event": "trackSubscribed", "identity": "ada", "source": "microphone" })).await?;
    let info = call.bob.track_info("ada", "microphone").await?;
    ensure!(info["disableDtx"] == true && info["disableRed"] == true && info["stereo"] == true, "{info}");
    ensure!(info["mimeType"] == "audio/opus", "{info}");
    call.bob.hears(json!({ "event": "activeSpeakers", "text": "ada" })).await?;
    Ok(())
}

/// With redundancy, which is the SDK's default.
pub(crate) async fn audio_redundancy(mode: Mode) -> Result<()> {
    let call = Call::open(mode).await?;
    call.ada.publish_tone(TONE, json!({})).await?;
    call.bob.hears(json!({ "event": "trackSubscribed", "identity": "ada", "source": "microphone" })).await?;
    let info = call.bob.track_info("ada", "microphone").await?;
    ensure!(info["mimeType"] == "audio/red", "{info}");
    call.bob.hears(json!({ "event": "activeSpeakers", "text": "ada" })).await?;
    Ok(())
}

/// A screen with its sound next to the camera.
pub(crate) async fn screen_share(mode: Mode) -> Result<()> {
    let call = Call::open(mode).await?;
    call.ada.share_screen().await?;
    for source in ["screen_share", "screen_share_audio"] {
        call.bob.hears(json!({ "event": "trackSubscribed", "identity": "ada", "source": source })).await?;
    }
    call.bob.hears(json!({ "event": "firstFrame", "identity": "ada", "source": "screen_share" })).await?;
    Ok(())
}

/// H.264, VP9 and AV1, each one as the SDK sends it.
pub(crate) async fn h264(mode: Mode) -> Result<()> {
    codec(mode, "h264", &["h264 q", "h264 h", "h264 f"]).await
}

/// As above.
pub(crate) async fn vp9(mode: Mode) -> Result<()> {
    codec(mode, "vp9", &["vp9"]).await
}

/// As above.
pub(crate) async fn av1(mode: Mode) -> Result<()> {
    codec(mode, "av1", &["av1"]).await
}

async fn codec(mode: Mode, codec: &str, layers: &[&str]) -> Result<()> {
    let call = Call::open(mode).await?;
    call.ada.publish_camera_with(json!({ "videoCodec": codec, "backupCodec": false })).await?;
    call.bob.sees_height("ada", 720, PATIENCE).await?;
    call.ada.sends_layers(layers).await?;
    let stats = call.bob.stats().await?;
    let mime = stats.video("ada").map(|video| video.mime_type.to_lowercase());
    ensure!(mime == Some(format!("video/{codec}")), "{mime:?}");
    Ok(())
}

/// Media and data encrypted by the clients themselves pass the node as they are.
pub(crate) async fn encryption(mode: Mode) -> Result<()> {
    let (scene, browser) = (Scene::open().await?, Browser::launch().await?);
    let (ada, bob) = (browser.client("ada").await?, browser.client("bob").await?);
    for client in [&ada, &bob] {
        client.join_with_options(&scene, mode, json!({ "passphrase": "between us" })).await?;
    }
    ada.publish().await?;
    bob.sees_and_hears("ada").await?;
    ensure!(bob.is_encrypted("ada").await?, "ada's tracks are not encrypted");
    ada.send_data("a secret", true).await?;
    bob.hears(json!({ "event": "data", "identity": "ada", "text": "a secret" })).await?;
    Ok(())
}
