//! Permissions: what a token grants, and what changes in mid-call.

use anyhow::{Context, Result, ensure};
use meridian_tests::app_server::AppServer;
use meridian_tests::sdk::{Mode, PATIENCE};
use serde_json::{Value, json};

use crate::call::Call;

fn permission(room: &str, identity: &str, change: Value) -> Value {
    let mut permission = json!({ "canPublish": true, "canSubscribe": true, "canPublishData": true });
    if let (Some(all), Some(changed)) = (permission.as_object_mut(), change.as_object()) {
        all.extend(changed.clone());
    }
    json!({ "room": room, "identity": identity, "permission": permission })
}

impl Call {
    /// Changes what somebody may do, beside the defaults.
    pub(crate) async fn permit(&self, identity: &str, change: Value) -> Result<Value> {
        let server = AppServer::of(&self.scene)?;
        server.ask("UpdateParticipant", permission(&self.scene.room, identity, change)).await
    }
}

/// Who may no longer publish is unpublished, and cannot publish again before it may.
pub(crate) async fn publishing_revoked(mode: Mode) -> Result<()> {
    let call = Call::with_video(mode).await?;
    let (ada, bob) = (call.ada.mark().await?, call.bob.mark().await?);
    call.permit("ada", json!({ "canPublish": false })).await?;
    call.ada.hears_within(json!({ "event": "permissionsChanged", "identity": "ada" }), ada, PATIENCE).await?;
    call.ada.hears_within(json!({ "event": "localTrackUnpublished" }), ada, PATIENCE).await?;
    for kind in ["audio", "video"] {
        let gone = json!({ "event": "trackUnsubscribed", "identity": "ada", "kind": kind });
        call.bob.hears_within(gone, bob, PATIENCE).await?;
    }
    let refused = call.ada.local("setCameraEnabled", &[json!(true)]).await.err().context("she published")?;
    ensure!(format!("{refused:#}").contains("insufficient permissions"), "{refused:#}");
    call.permit("ada", json!({})).await?;
    call.ada.publish().await?;
    call.bob.sees_and_hears("ada").await?;
    Ok(())
}

/// Only what its sources allow can be published.
pub(crate) async fn publishing_some_sources(mode: Mode) -> Result<()> {
    let call = Call::with_video(mode).await?;
    let bob = call.bob.mark().await?;
    call.permit("ada", json!({ "canPublishSources": ["MICROPHONE"] })).await?;
    call.bob
        .hears_within(json!({ "event": "trackUnsubscribed", "identity": "ada", "kind": "video" }), bob, PATIENCE)
        .await?;
    let refused = call.ada.local("setCameraEnabled", &[json!(true)]).await.err().context("she shows her camera")?;
    ensure!(format!("{refused:#}").contains("insufficient permissions"), "{refused:#}");
    let me = call.ada.myself().await?;
    ensure!(me["tracks"].as_array().is_some_and(|all| all.len() == 1 && all[0]["source"] == "microphone"), "{me}");
    Ok(())
}

/// Who may no longer subscribe receives nothing, and everything again when it may.
pub(crate) async fn subscribing_revoked(mode: Mode) -> Result<()> {
    let call = Call::with_video(mode).await?;
    let bob = call.bob.mark().await?;
    call.permit("bob", json!({ "canSubscribe": false })).await?;
    for kind in ["audio", "video"] {
        let gone = json!({ "event": "trackUnsubscribed", "identity": "ada", "kind": kind });
        call.bob.hears_within(gone, bob, PATIENCE).await?;
    }
    call.permit("bob", json!({})).await?;
    call.bob.sees_and_hears("ada").await?;
    Ok(())
}

/// Who hides is gone for the others, and there again when it shows itself.
pub(crate) async fn hiding(mode: Mode) -> Result<()> {
    let call = Call::with_video(mode).await?;
    let bob = call.bob.mark().await?;
    call.permit("ada", json!({ "hidden": true })).await?;
    call.bob.hears_within(json!({ "event": "participantDisconnected", "identity": "ada" }), bob, PATIENCE).await?;
    ensure!(!call.bob.picture().await?.contains_key("ada"), "still listed");
    call.permit("ada", json!({})).await?;
    call.bob.hears_within(json!({ "event": "participantConnected", "identity": "ada" }), bob, PATIENCE).await?;
    call.bob.sees_and_hears("ada").await?;
    Ok(())
}

/// A track muted by the app server is muted for everyone, its owner included, until its owner unmutes it.
pub(crate) async fn muted_by_the_server(mode: Mode) -> Result<()> {
    let call = Call::with_video(mode).await?;
    let (ada, bob) = (call.ada.mark().await?, call.bob.mark().await?);
    let picture = call.bob.picture().await?;
    let microphone =
        picture["ada"].tracks.iter().find(|track| track.source == "microphone").context("no microphone")?;
    let server = AppServer::of(&call.scene)?;
    let mute =
        |muted: bool| json!({ "room": call.scene.room, "identity": "ada", "trackSid": microphone.sid, "muted": muted });
    let answer = server.ask("MutePublishedTrack", mute(true)).await?;
    ensure!(answer["track"]["muted"] == true, "{answer}");
    call.ada.hears_within(json!({ "event": "trackMuted", "identity": "ada" }), ada, PATIENCE).await?;
    call.bob.hears_within(json!({ "event": "trackMuted", "identity": "ada" }), bob, PATIENCE).await?;
    let refused = server.call("MutePublishedTrack", mute(false)).await?;
    ensure!(refused.status == 412 && refused.body["code"] == "failed_precondition", "{refused:?}");
    call.ada.set_microphone(true).await?;
    call.bob.hears_within(json!({ "event": "trackUnmuted", "identity": "ada" }), bob, PATIENCE).await?;
    Ok(())
}

/// A publisher decides who may have its tracks.
pub(crate) async fn subscription_permissions(mode: Mode) -> Result<()> {
    let call = Call::with_video(mode).await?;
    let bob = call.bob.mark().await?;
    call.ada.local("setTrackSubscriptionPermissions", &[json!(false), json!([])]).await?;
    call.bob
        .hears_within(json!({ "event": "subscriptionPermissionChanged", "text": "not_allowed" }), bob, PATIENCE)
        .await?;
    call.bob.hears_within(json!({ "event": "trackUnsubscribed", "identity": "ada" }), bob, PATIENCE).await?;
    let picture = call.bob.picture().await?;
    let voice = picture["ada"].tracks.iter().find(|track| track.source == "microphone").context("no microphone")?;
    let since = call.bob.mark().await?;
    let voice = json!([{ "participantIdentity": "bob", "allowAll": false, "allowedTrackSids": [voice.sid] }]);
    call.ada.local("setTrackSubscriptionPermissions", &[json!(false), voice]).await?;
    call.bob.hears_audio_of("ada").await?;
    let came = call.bob.heard(since).await?.into_iter().filter(|heard| heard.event == "trackSubscribed").count();
    ensure!(came == 1, "her voice alone");
    let to_bob = json!([{ "participantIdentity": "bob", "allowAll": true }]);
    call.ada.local("setTrackSubscriptionPermissions", &[json!(false), to_bob]).await?;
    call.bob.sees_and_hears("ada").await?;
    Ok(())
}
