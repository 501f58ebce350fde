//! Tracks: features, codecs, screens.

use anyhow::{Context, Result, ensure};
use meridian_tests::browser::Browser;
use meridian_tests::scene::Scene;
use meridian_tests::sdk::{Mode, PATIENCE};
use serde_json::json;

use crate::call::Call;

/// A steady tone, well heard.
const TONE: f64 = 0.3;
/// A playout delay that no path here makes, milliseconds.
const DELAY_MS: u32 = 800;

/// The publisher hears, once a track, that somebody is subscribed.
pub(crate) async fn track_subscribed(mode: Mode) -> Result<()> {
    let call = Call::with_video(mode).await?;
    for source in ["camera", "microphone"] {
        call.ada.hears(json!({ "event": "localTrackSubscribed", "text": source })).await?;
    }
    Ok(())
}

/// An owner mutes and unmutes its tracks: the others see it, and hear and see nothing meanwhile.
pub(crate) async fn muted_by_owner(mode: Mode) -> Result<()> {
    let call = Call::with_video(mode).await?;
    let since = call.bob.mark().await?;
    call.ada.set_microphone(false).await?;
    call.ada.set_camera(false).await?;
    for source in ["microphone", "camera"] {
        let muted = json!({ "event": "trackMuted", "identity": "ada", "source": source });
        call.bob.hears_within(muted, since, PATIENCE).await?;
    }
    ensure!(call.bob.picture().await?["ada"].tracks.iter().all(|track| track.muted && track.subscribed), "not muted");
    call.ada.set_microphone(true).await?;
    call.ada.set_camera(true).await?;
    for source in ["microphone", "camera"] {
        let unmuted = json!({ "event": "trackUnmuted", "identity": "ada", "source": source });
        call.bob.hears_within(unmuted, since, PATIENCE).await?;
    }
    call.bob.sees_and_hears("ada").await?;
    let again = call.bob.heard(since).await?.into_iter().find(|heard| heard.event == "trackSubscribed");
    ensure!(again.is_none(), "it is another track: {again:?}");
    Ok(())
}

/// A track that is unpublished goes, and comes as another one when it is published again; the rest goes on.
pub(crate) async fn unpublished_and_republished(mode: Mode) -> Result<()> {
    let call = Call::with_video(mode).await?;
    let camera = async || {
        let tracks = call.bob.picture().await?.remove("ada").context("ada has left")?.tracks;
        anyhow::Ok(tracks.into_iter().find(|track| track.source == "camera").map(|track| track.sid))
    };
    let mut sids = vec![camera().await?.context("no camera")?];
    for _ in 0..2 {
        let since = call.bob.mark().await?;
        call.ada.unpublish("camera").await?;
        for event in ["trackUnsubscribed", "trackUnpublished"] {
            let gone = json!({ "event": event, "identity": "ada", "source": "camera" });
            call.bob.hears_within(gone, since, PATIENCE).await?;
        }
        ensure!(camera().await?.is_none(), "still listed");
        call.ada.set_camera(true).await?;
        call.bob.hears_within(json!({ "event": "firstFrame", "identity": "ada" }), since, PATIENCE).await?;
        call.bob.sees_and_hears("ada").await?;
        sids.push(camera().await?.context("no camera")?);
    }
    sids.dedup();
    ensure!(sids.len() == 3, "a track came back under the id of one that was gone: {sids:?}");
    // All of them anew, as an app does that changes its devices.
    let since = call.bob.mark().await?;
    call.ada.local("republishAllTracks", &[]).await?;
    for kind in ["audio", "video"] {
        let came = json!({ "event": "trackSubscribed", "identity": "ada", "kind": kind });
        call.bob.hears_within(came, since, PATIENCE).await?;
    }
    call.bob.sees_and_hears("ada").await?;
    Ok(())
}

/// What a publisher calls its track and the stream it belongs to.
pub(crate) async fn named(mode: Mode) -> Result<()> {
    let call = Call::open(mode).await?;
    call.ada.publish_tone(TONE, json!({ "name": "voice", "stream": "studio" })).await?;
    call.bob.hears(json!({ "event": "trackSubscribed", "identity": "ada", "source": "microphone" })).await?;
    let info = call.bob.track_info("ada", "microphone").await?;
    ensure!(info["name"] == "voice" && info["stream"] == "studio" && info["source"] == "MICROPHONE", "{info}");
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

/// A room's videos are shown later than they come if it says so, and only then.
pub(crate) async fn playout_delay(mode: Mode) -> Result<()> {
    let call = Call::with_video(mode).await?;
    call.bob.holds_back("ada", 0..=DELAY_MS / 2).await?;
    drop(call);
    let call = Call::open_in(mode, json!({ "minPlayoutDelay": DELAY_MS, "maxPlayoutDelay": 2 * DELAY_MS })).await?;
    call.ada.publish().await?;
    call.bob.sees_and_hears("ada").await?;
    call.bob.holds_back("ada", DELAY_MS * 3 / 4..=3 * DELAY_MS).await
}

/// Tracks of a participant that belong together come in one stream if the room says so, and can be told apart.
pub(crate) async fn streams_in_step(mode: Mode) -> Result<()> {
    let call = Call::open_in(mode, json!({ "syncStreams": true })).await?;
    call.ada.publish().await?;
    call.ada.share_screen().await?;
    for source in ["camera", "microphone", "screen_share", "screen_share_audio"] {
        call.bob.hears(json!({ "event": "trackSubscribed", "identity": "ada", "source": source })).await?;
    }
    for source in ["camera", "screen_share"] {
        call.bob.hears(json!({ "event": "firstFrame", "identity": "ada", "source": source })).await?;
    }
    let streams = call.bob.streams("ada").await?;
    let shares = |one: &str, other: &str| streams[one] == streams[other];
    ensure!(shares("camera", "microphone") && shares("screen_share", "screen_share_audio"), "{streams:?}");
    ensure!(!shares("camera", "screen_share"), "{streams:?}");
    // Another track in the same stream is seen as such.
    let since = call.bob.mark().await?;
    call.ada.unpublish("camera").await?;
    call.bob.hears_within(json!({ "event": "trackUnsubscribed", "source": "camera" }), since, PATIENCE).await?;
    call.ada.set_camera(true).await?;
    let first = json!({ "event": "firstFrame", "identity": "ada", "source": "camera" });
    call.bob.hears_within(first, since, PATIENCE).await?;
    call.bob.sees_and_hears("ada").await?;
    let streams = call.bob.streams("ada").await?;
    ensure!(streams["camera"] == streams["microphone"], "{streams:?}");
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

/// Who cannot decode the codec a video is published in gets its backup codec, which is published for as long as needed.
pub(crate) async fn backup_codec(mode: Mode) -> Result<()> {
    let (scene, browser) = (Scene::open().await?, Browser::launch().await?);
    let (ada, bob, eve) = (browser.client("ada").await?, browser.client("bob").await?, browser.client("eve").await?);
    ada.join(&scene, mode).await?;
    bob.join(&scene, mode).await?;
    ada.publish_camera_with(json!({ "videoCodec": "vp9", "backupCodec": true })).await?;
    bob.sees_height("ada", 720, PATIENCE).await?;
    ada.sends_layers(&["vp9"]).await?;
    eve.join_with_options(&scene, mode, json!({ "without": "vp9" })).await?;
    eve.sees_lines("ada", 1..=720, PATIENCE).await?;
    bob.sees_height("ada", 720, PATIENCE).await?;
    for (client, codec) in [(&bob, "video/vp9"), (&eve, "video/vp8")] {
        let mime = client.stats().await?.video("ada").map(|video| video.mime_type.to_lowercase());
        ensure!(mime.as_deref() == Some(codec), "{} gets {mime:?}", client.identity());
    }
    eve.leave().await?;
    ada.sends_layers(&["vp9"]).await
}
