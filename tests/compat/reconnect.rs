//! Reconnect: what the SDK goes through when its signal connection or its media path breaks.

use std::time::Duration;

use anyhow::{Result, ensure};
use meridian_tests::app_server::AppServer;
use meridian_tests::browser::Browser;
use meridian_tests::front::Front;
use meridian_tests::scene::Scene;
use meridian_tests::sdk::{Mode, PATIENCE, SdkClient};
use serde_json::json;

use crate::call::Call;

/// Longest that the SDK takes to resume: up to 0.5 s until it tries, 2 s that it waits for its transport, and a busy
/// machine.
pub(crate) const RESUME_LIMIT: Duration = Duration::from_secs(30);

/// How long the room of [`away_too_long`] waits for its participants.
const DEPARTURE_SECS: u32 = 2;

/// Everything a client must not hear when somebody, itself included, resumes.
const DISTURBANCES: [&str; 8] = [
    "reconnecting",
    "disconnected",
    "participantDisconnected",
    "participantConnected",
    "trackSubscribed",
    "trackUnsubscribed",
    "localTrackPublished",
    "localTrackUnpublished",
];

/// The client heard nothing from `since` on that shows a gap.
pub(crate) async fn is_undisturbed(client: &SdkClient, since: usize) -> Result<()> {
    let heard = client.heard(since).await?;
    let disturbed = heard.iter().find(|heard| DISTURBANCES.contains(&heard.event.as_str()));
    ensure!(disturbed.is_none(), "{} was disturbed: {disturbed:?}", client.identity());
    Ok(())
}

/// The signal connections break; both clients go on.
pub(crate) async fn resumes(mode: Mode) -> Result<()> {
    let call = Call::with_video(mode).await?;
    let before = call.bob.picture().await?;
    for _ in 0..3 {
        let (ada, bob) = (call.ada.mark().await?, call.bob.mark().await?);
        call.front.cut();
        let back = json!({ "event": "reconnected" });
        call.ada.hears_within(back.clone(), ada, RESUME_LIMIT).await?;
        call.bob.hears_within(back, bob, RESUME_LIMIT).await?;
        call.bob.sees_and_hears("ada").await?;
        is_undisturbed(&call.ada, ada).await?;
        is_undisturbed(&call.bob, bob).await?;
    }
    let after = call.bob.picture().await?;
    ensure!(after["ada"].sid == before["ada"].sid, "another session");
    let sids = |picture: &meridian_tests::sdk::Seen| picture.tracks.iter().map(|t| t.sid.clone()).collect::<Vec<_>>();
    ensure!(sids(&after["ada"]) == sids(&before["ada"]), "other tracks");
    call.ada.send_data("after", true).await?;
    call.bob.hears(json!({ "event": "data", "text": "after", "identity": "ada" })).await?;
    call.bob.send_data("too", true).await?;
    call.ada.hears(json!({ "event": "data", "text": "too", "identity": "bob" })).await?;
    Ok(())
}

/// The server asks for a full reconnect.
pub(crate) async fn starts_over(mode: Mode) -> Result<()> {
    let call = Call::with_video(mode).await?;
    let before = call.bob.picture().await?;
    let (ada, bob) = (call.ada.mark().await?, call.bob.mark().await?);
    call.ada.simulate("leave-full-reconnect").await?;
    call.ada.hears_within(json!({ "event": "reconnecting" }), ada, RESUME_LIMIT).await?;
    call.ada.hears_within(json!({ "event": "reconnected" }), ada, RESUME_LIMIT).await?;
    call.bob
        .hears_within(json!({ "event": "trackSubscribed", "identity": "ada", "kind": "video" }), bob, PATIENCE)
        .await?;
    call.bob.sees_and_hears("ada").await?;
    let after = call.bob.picture().await?;
    ensure!(after["ada"].sid != before["ada"].sid, "it is another session");
    Ok(())
}

/// The signal connection falls silent without closing; the SDK's pings find out.
pub(crate) async fn silence(mode: Mode) -> Result<()> {
    let call = Call::with_video(mode).await?;
    let (ada, bob) = (call.ada.mark().await?, call.bob.mark().await?);
    call.front.hush();
    for (client, since) in [(&call.ada, ada), (&call.bob, bob)] {
        client.hears_within(json!({ "event": "signalReconnecting" }), since, PATIENCE).await?;
        client.hears_within(json!({ "event": "reconnected" }), since, RESUME_LIMIT).await?;
        is_undisturbed(client, since).await?;
    }
    call.bob.sees_and_hears("ada").await?;
    call.ada.send_data("after", true).await?;
    call.bob.hears(json!({ "event": "data", "text": "after", "identity": "ada" })).await?;
    Ok(())
}

/// A client is away for longer than the room waits: the others see it leave, once, and it starts over when it is back.
pub(crate) async fn away_too_long(mode: Mode) -> Result<()> {
    let scene = Scene::open().await?;
    let room = json!({ "name": scene.room, "departureTimeout": DEPARTURE_SECS });
    AppServer::of(&scene)?.ask("CreateRoom", room).await?;
    let (front, browser) = (Front::start(scene.url()).await?, Browser::launch().await?);
    let (ada, bob) = (browser.client("ada").await?, browser.client("bob").await?);
    bob.join(&scene, mode).await?;
    ada.join_room(front.url(), &scene.room, mode).await?;
    ada.publish().await?;
    bob.sees_and_hears("ada").await?;
    let before = bob.picture().await?;
    let since = [ada.mark().await?, bob.mark().await?];
    front.shut();
    bob.hears_within(json!({ "event": "participantDisconnected", "identity": "ada" }), since[1], PATIENCE).await?;
    front.let_in();
    ada.hears_within(json!({ "event": "reconnecting" }), since[0], PATIENCE).await?;
    ada.hears_within(json!({ "event": "reconnected" }), since[0], RESUME_LIMIT).await?;
    bob.sees_and_hears("ada").await?;
    ensure!(bob.picture().await?["ada"].sid != before["ada"].sid, "it is another session");
    let left = bob.heard(since[1]).await?.into_iter().filter(|heard| heard.event == "participantDisconnected");
    ensure!(left.count() == 1, "she left once");
    Ok(())
}
