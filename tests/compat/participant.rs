//! Participants: who they are, what they say of themselves, how they come and go.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use base64::Engine;
use meridian_tests::app_server::AppServer;
use meridian_tests::browser::Browser;
use meridian_tests::scene::{Deployment, Scene};
use meridian_tests::sdk::{Mode, PATIENCE};
use serde_json::json;

use crate::call::Call;

/// LiveKit's `DisconnectReason`.
const DUPLICATE_IDENTITY: i32 = 2;
const PARTICIPANT_REMOVED: i32 = 4;
const ROOM_DELETED: i32 = 5;

/// Name, metadata and attributes change with permission only; everyone hears of it.
pub(crate) async fn own_profile(mode: Mode) -> Result<()> {
    let call = Call::open(mode).await?;
    let refused = call.ada.local("setMetadata", &[json!("forbidden")]).await.err().context("without permission")?;
    ensure!(format!("{refused:#}").contains("does not have permission"), "{refused:#}");
    call.permit("ada", json!({ "canUpdateMetadata": true })).await?;
    call.ada.local("setMetadata", &[json!("poet")]).await?;
    call.ada.local("setName", &[json!("Ada L")]).await?;
    call.ada.local("setAttributes", &[json!({ "mood": "good" })]).await?;
    for client in [&call.ada, &call.bob] {
        client.hears(json!({ "event": "metadataChanged", "identity": "ada", "text": "poet" })).await?;
        client.hears(json!({ "event": "nameChanged", "identity": "ada", "text": "Ada L" })).await?;
        client.hears(json!({ "event": "attributesChanged", "identity": "ada", "text": "{\"mood\":\"good\"}" })).await?;
    }
    call.ada.local("setAttributes", &[json!({ "mood": "" })]).await?;
    call.bob.hears(json!({ "event": "attributesChanged", "identity": "ada", "text": "{\"mood\":\"\"}" })).await?;
    Ok(())
}

/// What is too large is refused with a reason, changes nothing, and the connection stays.
pub(crate) async fn profile_limits(mode: Mode) -> Result<()> {
    let call = Call::open(mode).await?;
    call.permit("ada", json!({ "canUpdateMetadata": true })).await?;
    let text = |len: usize| json!("x".repeat(len));
    for (method, too_large, reason) in [
        ("setMetadata", text(512 * 1024 + 1), "exceeds metadata size limit"),
        ("setName", text(257), "exceeds name length limit"),
        ("setAttributes", json!({ "a": text(64 * 1024) }), "exceeds attributes size limit"),
    ] {
        let refused = call.ada.local(method, &[too_large]).await.err().with_context(|| format!("{method}: taken"))?;
        ensure!(format!("{refused:#}").contains(reason), "{refused:#}");
    }
    call.ada.local("setMetadata", &[text(512 * 1024)]).await?;
    let changed = call.bob.hears(json!({ "event": "metadataChanged", "identity": "ada" })).await?;
    ensure!(changed.text.is_some_and(|text| text.len() == 512 * 1024), "not what she said");
    let others = ["nameChanged", "attributesChanged"];
    let other = call.bob.heard(0).await?.into_iter().find(|heard| others.contains(&heard.event.as_str()));
    ensure!(other.is_none(), "{other:?}");
    Ok(())
}

/// How many are in the room, for those who are.
pub(crate) async fn counted(mode: Mode) -> Result<()> {
    let call = Call::open(mode).await?;
    let counts = async |wanted: u32| {
        let deadline = Instant::now() + PATIENCE;
        while call.ada.myself().await?["inRoom"] != wanted {
            ensure!(Instant::now() < deadline, "{}", call.ada.myself().await?);
        }
        anyhow::Ok(())
    };
    counts(2).await?;
    let eve = call.page("eve").await?;
    eve.join(&call.scene, mode).await?;
    counts(3).await?;
    eve.leave().await?;
    counts(2).await
}

/// What an app server changes reaches everyone; the room's metadata too.
pub(crate) async fn changed_by_the_server(mode: Mode) -> Result<()> {
    let call = Call::open(mode).await?;
    let server = AppServer::of(&call.scene)?;
    let room = &call.scene.room;
    let change = json!({ "room": room, "identity": "ada", "name": "A", "metadata": "m", "attributes": { "a": "1" } });
    server.ask("UpdateParticipant", change).await?;
    server.ask("UpdateRoomMetadata", json!({ "room": room, "metadata": "den" })).await?;
    for client in [&call.ada, &call.bob] {
        client.hears(json!({ "event": "nameChanged", "identity": "ada", "text": "A" })).await?;
        client.hears(json!({ "event": "metadataChanged", "identity": "ada", "text": "m" })).await?;
        client.hears(json!({ "event": "roomMetadataChanged", "text": "den" })).await?;
    }
    Ok(())
}

/// An app server sends data to all or to some.
pub(crate) async fn data_of_the_server(mode: Mode) -> Result<()> {
    let call = Call::open(mode).await?;
    // Their channels are open.
    call.ada.send_data("hello", true).await?;
    call.bob.hears(json!({ "event": "data", "text": "hello" })).await?;
    call.bob.send_data("hello", true).await?;
    call.ada.hears(json!({ "event": "data", "text": "hello" })).await?;
    let server = AppServer::of(&call.scene)?;
    let data = |text: &str, to: &[&str]| {
        let data = base64::engine::general_purpose::STANDARD.encode(text);
        json!({ "room": call.scene.room, "data": data, "kind": "RELIABLE", "topic": "news", "destinationIdentities": to })
    };
    server.ask("SendData", data("for bob", &["bob"])).await?;
    server.ask("SendData", data("for all", &[])).await?;
    for client in [&call.ada, &call.bob] {
        client.hears(json!({ "event": "data", "text": "for all", "topic": "news" })).await?;
    }
    call.bob.hears(json!({ "event": "data", "text": "for bob" })).await?;
    let astray = call.ada.heard(0).await?.into_iter().any(|heard| heard.text.as_deref() == Some("for bob"));
    ensure!(!astray, "not for Ada");
    Ok(())
}

/// Who is removed is told why, and does not come back with its token; the others see it go.
pub(crate) async fn removed(mode: Mode) -> Result<()> {
    let call = Call::open(mode).await?;
    let server = AppServer::of(&call.scene)?;
    server.ask("RemoveParticipant", json!({ "room": call.scene.room, "identity": "ada" })).await?;
    call.ada.hears(json!({ "event": "disconnected", "reason": PARTICIPANT_REMOVED })).await?;
    call.bob.hears(json!({ "event": "participantDisconnected", "identity": "ada" })).await?;
    let mut old = call.scene.claims("ada");
    old.iat = Some(meridian_tests::token::unix_now() - 60);
    let refused = call.ada.join_as(&call.scene, &old, mode).await.err().context("she came back")?;
    ensure!(format!("{refused:#}").contains("revoked"), "{refused:#}");
    // An app server that wants her back mints another one.
    let mut new = call.scene.claims("ada");
    new.iat = Some(meridian_tests::token::unix_now() + 2);
    call.ada.join_as(&call.scene, &new, mode).await?;
    call.bob.hears(json!({ "event": "participantConnected", "identity": "ada" })).await?;
    Ok(())
}

/// Where a deployment wants it so, as on LiveKit's server, a removed participant's token lets it in again.
pub(crate) async fn removed_with_its_token(mode: Mode) -> Result<()> {
    let vars = [("KEEP_TOKENS_OF_REMOVED".to_owned(), "true".to_owned())];
    let scene = Scene::on(tokio::task::spawn_blocking(|| Deployment::with_edge_vars(vars)).await??);
    let browser = Browser::launch().await?;
    let ada = browser.client("ada").await?;
    let mut claims = scene.claims("ada");
    claims.iat = Some(meridian_tests::token::unix_now() - 60);
    ada.join_as(&scene, &claims, mode).await?;
    let removal = json!({ "room": scene.room, "identity": "ada" });
    AppServer::of(&scene)?.ask("RemoveParticipant", removal).await?;
    ada.hears(json!({ "event": "disconnected", "reason": PARTICIPANT_REMOVED })).await?;
    ada.join_as(&scene, &claims, mode).await
}

/// A deleted room sends everyone away for good.
pub(crate) async fn room_deleted(mode: Mode) -> Result<()> {
    let call = Call::open(mode).await?;
    AppServer::of(&call.scene)?.ask("DeleteRoom", json!({ "room": call.scene.room })).await?;
    for client in [&call.ada, &call.bob] {
        client.hears(json!({ "event": "disconnected", "reason": ROOM_DELETED })).await?;
    }
    Ok(())
}

/// A room that nobody joins ends after one time-out, one that everybody has left after the other.
pub(crate) async fn room_empty(mode: Mode) -> Result<()> {
    let scene = Scene::open().await?;
    let server = AppServer::of(&scene)?;
    server.ask("CreateRoom", json!({ "name": scene.room, "emptyTimeout": 1 })).await?;
    ended(&server, &scene.room).await?;
    let brief = json!({ "name": scene.room, "departureTimeout": 1, "metadata": "brief" });
    let made = server.ask("CreateRoom", brief).await?;
    let browser = Browser::launch().await?;
    let ada = browser.client("ada").await?;
    ada.join(&scene, mode).await?;
    ensure!(ada.myself().await?["roomMetadata"] == "brief", "another room");
    ada.leave().await?;
    ended(&server, &scene.room).await?;
    ada.join(&scene, mode).await?;
    ensure!(ada.myself().await?["roomMetadata"] == "", "the same room");
    let rooms = server.ask("ListRooms", json!({ "names": [scene.room] })).await?;
    ensure!(rooms["rooms"][0]["sid"] != made["sid"], "{rooms}");
    Ok(())
}

/// Waits until no such room is listed.
async fn ended(server: &AppServer, room: &str) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let rooms = server.ask("ListRooms", json!({ "names": [room] })).await?;
        if rooms["rooms"].as_array().is_none_or(Vec::is_empty) {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "{rooms}");
    }
}

/// The second client of an identity replaces the first.
pub(crate) async fn same_identity(mode: Mode) -> Result<()> {
    let call = Call::open(mode).await?;
    let second = Browser::launch().await?;
    let ada = second.client("ada").await?;
    ada.join(&call.scene, mode).await?;
    call.ada.hears(json!({ "event": "disconnected", "reason": DUPLICATE_IDENTITY })).await?;
    ada.publish().await?;
    call.bob.sees_and_hears("ada").await?;
    Ok(())
}

/// A room made by an app server takes no more than it was made for.
pub(crate) async fn room_full(mode: Mode) -> Result<()> {
    let scene = Scene::open().await?;
    let server = AppServer::of(&scene)?;
    let room = server.ask("CreateRoom", json!({ "name": scene.room, "maxParticipants": 1, "metadata": "m" })).await?;
    ensure!(room["max_participants"] == 1 && room["sid"].as_str().is_some_and(|sid| sid.starts_with("RM_")), "{room}");
    let browser = Browser::launch().await?;
    let (ada, bob) = (browser.client("ada").await?, browser.client("bob").await?);
    ada.join(&scene, mode).await?;
    let refused = bob.join(&scene, mode).await.err().context("one too many")?;
    ensure!(format!("{refused:#}").contains("room is full"), "{refused:#}");
    Ok(())
}

/// A recorder is seen in the room's state.
pub(crate) async fn recording(mode: Mode) -> Result<()> {
    let call = Call::open(mode).await?;
    let browser = Browser::launch().await?;
    let recorder = browser.client("recorder").await?;
    let mut claims = call.scene.claims("recorder");
    if let Some(grant) = &mut claims.video {
        (grant.recorder, grant.hidden) = (true, true);
    }
    let since = call.bob.mark().await?;
    recorder.join_as(&call.scene, &claims, mode).await?;
    call.bob.hears_within(json!({ "event": "recordingChanged", "text": "true" }), since, PATIENCE).await?;
    recorder.leave().await?;
    call.bob.hears_within(json!({ "event": "recordingChanged", "text": "false" }), since, PATIENCE).await?;
    ensure!(!call.bob.picture().await?.contains_key("recorder"), "it was hidden");
    Ok(())
}
