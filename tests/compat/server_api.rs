//! The server API through LiveKit's own server SDK, judged by what it answers and by what clients see.

use anyhow::{Context, Result, ensure};
use livekit_protocol as proto;
use meridian_tests::app_server::{AppServer, Format};
use meridian_tests::scene::Scene;
use meridian_tests::sdk::{Mode, PATIENCE};
use meridian_tests::server_sdk::ServerSdk;
use meridian_tests::token::unix_now;
use prost::Message;
use serde_json::{Value, json};

use crate::call::Call;

/// LiveKit's `DisconnectReason`.
const PARTICIPANT_REMOVED: i32 = 4;
const ROOM_DELETED: i32 = 5;
/// A tone that counts as speaking.
const LOUD: f64 = 0.5;

/// An app server and the edge it calls.
struct Caller<'a> {
    sdk: ServerSdk,
    scene: &'a Scene,
}

impl<'a> Caller<'a> {
    async fn of(scene: &'a Scene) -> Result<Self> {
        Ok(Self { sdk: ServerSdk::start().await?, scene })
    }

    async fn call(&self, name: &str, args: Value) -> Result<Value> {
        self.sdk.call(self.scene.url(), name, args).await
    }

    /// What a call is refused with.
    async fn refused(&self, name: &str, args: Value) -> Result<String> {
        let error = self.call(name, args).await.err().with_context(|| format!("{name} is not refused"))?;
        Ok(format!("{error:#}"))
    }

    /// Sids of what a participant publishes.
    async fn tracks_of(&self, room: &str, identity: &str) -> Result<Vec<Value>> {
        let shown = self.call("getParticipant", json!([room, identity])).await?;
        let mut tracks: Vec<Value> =
            shown["tracks"].as_array().into_iter().flatten().map(|track| track["sid"].clone()).collect();
        tracks.sort_by_key(ToString::to_string);
        Ok(tracks)
    }

    /// The room as `listRooms` has it.
    async fn listed(&self) -> Result<Option<Value>> {
        let rooms = self.call("listRooms", json!([[self.scene.room]])).await?;
        Ok(rooms.as_array().and_then(|rooms| rooms.first()).cloned())
    }
}

/// Rooms: what was answered is seen by whoever asks next.
pub(crate) async fn rooms(mode: Mode) -> Result<()> {
    let call = Call::open(mode).await?;
    let server = Caller::of(&call.scene).await?;
    let room = &call.scene.room;
    ensure!(server.listed().await?.is_some(), "made by a join");
    server.call("updateRoomMetadata", json!([room, "den"])).await?;
    ensure!(server.listed().await?.is_some_and(|listed| listed["metadata"] == "den"), "the old metadata");
    for client in [&call.ada, &call.bob] {
        client.hears(json!({ "event": "roomMetadataChanged", "text": "den" })).await?;
    }
    server.call("deleteRoom", json!([room])).await?;
    ensure!(server.listed().await?.is_none(), "listed after it was deleted");
    for client in [&call.ada, &call.bob] {
        client.hears(json!({ "event": "disconnected", "reason": ROOM_DELETED })).await?;
    }
    let unknown = server.refused("deleteRoom", json!([room])).await?;
    ensure!(unknown.contains("404 not_found requested room does not exist"), "{unknown}");
    let options =
        json!({ "name": room, "emptyTimeout": 60, "departureTimeout": 5, "maxParticipants": 3, "metadata": "m" });
    let made = server.call("createRoom", json!([options])).await?;
    let as_made = |room: &Value| {
        room["emptyTimeout"] == 60
            && room["departureTimeout"] == 5
            && room["maxParticipants"] == 3
            && room["metadata"] == "m"
    };
    ensure!(as_made(&made), "{made}");
    let listed = server.listed().await?.context("not listed after it was made")?;
    ensure!(as_made(&listed) && listed["sid"] == made["sid"], "{listed}");
    server.call("deleteRoom", json!([room])).await?;
    Ok(())
}

/// An app server calls a method of a participant and gets its answer, or why there is none.
pub(crate) async fn remote_call(mode: Mode) -> Result<()> {
    let call = Call::open(mode).await?;
    let server = AppServer::of(&call.scene)?;
    let ask = |method: &str, payload: String| json!({ "room": call.scene.room, "destinationIdentity": "ada", "method": method, "payload": payload });
    // The caller has no identity.
    for payload in ["short".to_owned(), "x".repeat(14_000)] {
        let answer = server.ask("PerformRpc", ask("echo", payload.clone())).await?;
        ensure!(answer["payload"] == format!(": {payload}"), "{answer}");
    }
    let in_protobuf = proto::PerformRpcRequest {
        room: call.scene.room.clone(),
        destination_identity: "ada".to_owned(),
        method: "echo".to_owned(),
        payload: "short".to_owned(),
        ..Default::default()
    };
    let answer = server.post("PerformRpc", Format::Protobuf.content_type(), in_protobuf.encode_to_vec()).await?;
    let answer = proto::PerformRpcResponse::decode(&*answer.body)?;
    ensure!(answer.payload == ": short", "{answer:?}");
    let refused = server.call("PerformRpc", ask("nothing", String::new())).await?;
    let text = refused.body["msg"].as_str().unwrap_or_default();
    ensure!(refused.status == 400 && text.starts_with("RpcError 1400"), "{refused:?}");
    let refused = server.call("PerformRpc", ask("echo", "x".repeat(16_000))).await?;
    ensure!(refused.status == 400 && refused.body["msg"] == "RpcError 1402: Request payload too large", "{refused:?}");
    let mut unknown = ask("echo", String::new());
    unknown["destinationIdentity"] = json!("nobody");
    let refused = server.call("PerformRpc", unknown).await?;
    ensure!(refused.status == 404 && refused.body["msg"] == "participant does not exist", "{refused:?}");
    Ok(())
}

/// Participants and their tracks, each method with its effect.
pub(crate) async fn participants(mode: Mode) -> Result<()> {
    let call = Call::with_video(mode).await?;
    let server = Caller::of(&call.scene).await?;
    let room = &call.scene.room;
    let all = server.call("listParticipants", json!([room])).await?;
    let mut names: Vec<&str> =
        all.as_array().into_iter().flatten().filter_map(|one| one["identity"].as_str()).collect();
    names.sort_unstable();
    ensure!(names == ["ada", "bob"], "{all}");
    let ada = server.call("getParticipant", json!([room, "ada"])).await?;
    let tracks = ada["tracks"].as_array().context("no tracks")?;
    let camera = tracks.iter().find(|track| track["source"] == "CAMERA").context("no camera")?;
    ensure!(ada["state"] == "ACTIVE" && tracks.len() == 2, "{ada}");
    let unknown = server.refused("getParticipant", json!([room, "eve"])).await?;
    ensure!(unknown.contains("404 not_found participant does not exist"), "{unknown}");

    let mark = call.bob.mark().await?;
    let muted = server.call("mutePublishedTrack", json!([room, "ada", camera["sid"], true])).await?;
    ensure!(muted["muted"] == true, "{muted}");
    call.bob.hears_within(json!({ "event": "trackMuted", "identity": "ada", "kind": "video" }), mark, PATIENCE).await?;
    let unmute = server.refused("mutePublishedTrack", json!([room, "ada", camera["sid"], false])).await?;
    ensure!(unmute.contains("412 failed_precondition remote unmute not enabled"), "{unmute}");

    let profile = json!({ "name": "Ada L", "metadata": "poet", "attributes": { "mood": "good" } });
    let changed = server.call("updateParticipant", json!([room, "ada", profile])).await?;
    ensure!(changed["name"] == "Ada L" && changed["metadata"] == "poet", "{changed}");
    for client in [&call.ada, &call.bob] {
        client.hears(json!({ "event": "nameChanged", "identity": "ada", "text": "Ada L" })).await?;
        client.hears(json!({ "event": "metadataChanged", "identity": "ada", "text": "poet" })).await?;
    }

    let mark = call.bob.mark().await?;
    let gone = json!({ "event": "trackUnsubscribed", "identity": "ada", "kind": "video" });
    server.call("updateSubscriptions", json!([room, "bob", [camera["sid"]], false])).await?;
    call.bob.hears_within(gone, mark, PATIENCE).await?;
    server.call("updateSubscriptions", json!([room, "bob", [camera["sid"]], true])).await?;
    let again = json!({ "event": "trackSubscribed", "identity": "ada", "kind": "video" });
    call.bob.hears_within(again, mark, PATIENCE).await?;

    server.sdk.send_text(call.scene.url(), room, ("news", "for bob"), &["bob"]).await?;
    call.bob.hears(json!({ "event": "data", "topic": "news", "text": "for bob" })).await?;
    let bob = server.call("getParticipant", json!([room, "bob"])).await?;
    let sid = bob["sid"].as_str().context("no sid")?;
    server.sdk.send_text_to_sids(call.scene.url(), room, ("news", "for his sid"), &[sid, "PA_nobody"]).await?;
    server.sdk.send_text(call.scene.url(), room, ("news", "for all"), &[]).await?;
    for client in [&call.ada, &call.bob] {
        client.hears(json!({ "event": "data", "topic": "news", "text": "for all" })).await?;
    }
    call.bob.hears(json!({ "event": "data", "topic": "news", "text": "for his sid" })).await?;
    let astray: Vec<_> = call.ada.heard(0).await?.into_iter().filter_map(|heard| heard.text).collect();
    ensure!(!astray.iter().any(|text| text == "for bob" || text == "for his sid"), "not for Ada: {astray:?}");

    let mark = call.bob.mark().await?;
    let permission = json!({ "permission": { "canPublish": false, "canSubscribe": true, "canPublishData": true } });
    server.call("updateParticipant", json!([room, "ada", permission])).await?;
    let gone = json!({ "event": "trackUnsubscribed", "identity": "ada", "kind": "audio" });
    call.bob.hears_within(gone, mark, PATIENCE).await?;

    server.call("removeParticipant", json!([room, "ada"])).await?;
    call.ada.hears(json!({ "event": "disconnected", "reason": PARTICIPANT_REMOVED })).await?;
    call.bob.hears(json!({ "event": "participantDisconnected", "identity": "ada" })).await?;
    let left = server.call("listParticipants", json!([room])).await?;
    ensure!(left.as_array().is_some_and(|all| all.len() == 1), "{left}");
    Ok(())
}

/// Tokens of one who is removed are void if they are of before a time that the app server names, and good after.
pub(crate) async fn removed_with_tokens(mode: Mode) -> Result<()> {
    let call = Call::open(mode).await?;
    let server = Caller::of(&call.scene).await?;
    let now = unix_now();
    server.sdk.remove_with_tokens(call.scene.url(), &call.scene.room, "ada", now - 60).await?;
    call.ada.hears(json!({ "event": "disconnected", "reason": PARTICIPANT_REMOVED })).await?;
    call.bob.hears(json!({ "event": "participantDisconnected", "identity": "ada" })).await?;
    let mut claims = call.scene.claims("ada");
    claims.iat = Some(now - 120);
    let refused = call.ada.join_as(&call.scene, &claims, mode).await.err().context("she came with the old one")?;
    ensure!(format!("{refused:#}").contains("revoked"), "{refused:#}");
    let mark = call.bob.mark().await?;
    claims.iat = Some(now - 30);
    call.ada.join_as(&call.scene, &claims, mode).await?;
    call.bob.hears_within(json!({ "event": "participantConnected", "identity": "ada" }), mark, PATIENCE).await?;
    Ok(())
}

/// A participant goes on in another room, on the connection it has, and comes back.
pub(crate) async fn moved(mode: Mode) -> Result<()> {
    let call = Call::with_video(mode).await?;
    let server = Caller::of(&call.scene).await?;
    let (here, there) = (&call.scene.room, &format!("{}-there", call.scene.room));
    let cat = call.page("cat").await?;
    cat.join_room(call.front.url(), there, mode).await?;
    cat.set_microphone(true).await?;
    let tracks = server.tracks_of(here, "ada").await?;
    let mark = call.ada.mark().await?;

    server.call("moveParticipant", json!([here, "ada", there])).await?;
    // It is done when it is answered, and may be asked again.
    ensure!(server.tracks_of(there, "ada").await? == tracks, "other tracks than before");
    let gone = server.refused("getParticipant", json!([here, "ada"])).await?;
    ensure!(gone.contains("404 not_found participant does not exist"), "{gone}");
    server.call("moveParticipant", json!([here, "ada", there])).await?;
    call.ada.hears(json!({ "event": "participantDisconnected", "identity": "bob" })).await?;
    call.ada.hears(json!({ "event": "moved", "text": there })).await?;
    call.bob.hears(json!({ "event": "participantDisconnected", "identity": "ada" })).await?;
    cat.hears(json!({ "event": "participantConnected", "identity": "ada" })).await?;
    cat.sees_and_hears("ada").await?;
    call.ada.hears_audio_of("cat").await?;
    call.ada.hears_within(json!({ "event": "reconnected" }), mark, PATIENCE).await?;
    call.ada.send_data("for cat", true).await?;
    cat.hears(json!({ "event": "data", "identity": "ada", "text": "for cat" })).await?;
    cat.send_data("for ada", true).await?;
    call.ada.hears(json!({ "event": "data", "identity": "cat", "text": "for ada" })).await?;
    let heard = call.ada.heard(mark).await?;
    let anew = heard.iter().find(|one| ["reconnecting", "disconnected", "localTrackPublished"].contains(&&*one.event));
    ensure!(anew.is_none(), "it has not gone on, but begun anew: {anew:?}");

    let (mark, seen) = (call.bob.mark().await?, call.ada.mark().await?);
    server.call("moveParticipant", json!([there, "ada", here])).await?;
    call.ada.hears_within(json!({ "event": "moved", "text": here }), seen, PATIENCE).await?;
    call.bob.hears_within(json!({ "event": "participantConnected", "identity": "ada" }), mark, PATIENCE).await?;
    call.bob.sees_and_hears("ada").await?;
    cat.hears(json!({ "event": "participantDisconnected", "identity": "ada" })).await?;
    let heard = call.bob.heard(0).await?;
    ensure!(!heard.iter().any(|one| one.event == "data"), "what was said in the other room: {heard:?}");

    let nowhere = server.refused("moveParticipant", json!([here, "ada", here])).await?;
    ensure!(nowhere.contains("400 invalid_argument destination room cannot be the same"), "{nowhere}");
    let nobody = server.refused("moveParticipant", json!([here, "eve", there])).await?;
    ensure!(nobody.contains("404 not_found participant does not exist"), "{nobody}");
    let small = format!("{here}-small");
    server.call("createRoom", json!([{ "name": small, "maxParticipants": 1 }])).await?;
    call.page("dan").await?.join_room(call.front.url(), &small, mode).await?;
    let full = server.refused("moveParticipant", json!([here, "ada", small])).await?;
    ensure!(full.contains("412 failed_precondition room is full"), "{full}");
    call.bob.sees_and_hears("ada").await?;
    Ok(())
}

/// A participant is shown in another room too, and stays where it is.
pub(crate) async fn forwarded(mode: Mode) -> Result<()> {
    let call = Call::with_video(mode).await?;
    let server = Caller::of(&call.scene).await?;
    let (here, there) = (&call.scene.room, &format!("{}-there", call.scene.room));
    let cat = call.page("cat").await?;
    cat.join_room(call.front.url(), there, mode).await?;
    let seen = call.ada.mark().await?;

    let forward = json!([here, "ada", there]);
    server.call("forwardParticipant", forward.clone()).await?;
    // It is done when it is answered, and may be asked again.
    let shown = server.call("getParticipant", json!([there, "ada"])).await?;
    ensure!(shown["kindDetails"] == json!(["FORWARDED"]) && shown["state"] == "ACTIVE", "{shown}");
    server.call("forwardParticipant", forward.clone()).await?;
    cat.hears(json!({ "event": "participantConnected", "identity": "ada" })).await?;
    cat.sees_and_hears("ada").await?;
    call.bob.sees_and_hears("ada").await?;
    cat.hears(json!({ "event": "connectionQuality", "identity": "ada", "text": "excellent" })).await?;
    let tracks = server.tracks_of(here, "ada").await?;
    ensure!(tracks.len() == 2 && server.tracks_of(there, "ada").await? == tracks, "other tracks there");

    let profile = json!({ "name": "Ada L", "metadata": "poet" });
    server.call("updateParticipant", json!([here, "ada", profile])).await?;
    cat.hears(json!({ "event": "nameChanged", "identity": "ada", "text": "Ada L" })).await?;
    call.ada.set_microphone(false).await?;
    cat.hears(json!({ "event": "trackMuted", "identity": "ada", "kind": "audio" })).await?;
    call.ada.set_microphone(true).await?;
    cat.hears(json!({ "event": "trackUnmuted", "identity": "ada", "kind": "audio" })).await?;
    cat.sees_and_hears("ada").await?;
    call.ada.heard_of_no_end(seen).await?;
    call.ada.publish_tone(LOUD, json!({ "source": "screen_share_audio" })).await?;
    let seen = call.ada.mark().await?;
    cat.hears(json!({ "event": "activeSpeakers", "text": "ada" })).await?;
    // Tracks alone are forwarded.
    call.ada.send_data("for bob", true).await?;
    call.bob.hears(json!({ "event": "data", "identity": "ada", "text": "for bob" })).await?;
    cat.send_data("for nobody", true).await?;

    let refusals = [
        (
            "mutePublishedTrack",
            json!([there, "ada", tracks[0], true]),
            "412 failed_precondition participant is forwarded",
        ),
        ("updateParticipant", json!([there, "ada", profile]), "412 failed_precondition participant is forwarded"),
        ("forwardParticipant", json!([there, "ada", "on"]), "412 failed_precondition participant is forwarded"),
        ("moveParticipant", json!([there, "ada", "on"]), "412 failed_precondition participant is forwarded"),
        ("forwardParticipant", json!([here, "eve", there]), "404 not_found participant does not exist"),
        ("forwardParticipant", json!([here, "ada", here]), "400 invalid_argument destination room cannot be the same"),
    ];
    for (method, args, text) in refusals {
        let refused = server.refused(method, args).await?;
        ensure!(refused.contains(text), "{method}: {refused}");
    }
    let small = format!("{here}-small");
    server.call("createRoom", json!([{ "name": small, "maxParticipants": 1 }])).await?;
    call.page("dan").await?.join_room(call.front.url(), &small, mode).await?;
    let full = server.refused("forwardParticipant", json!([here, "ada", small])).await?;
    ensure!(full.contains("412 failed_precondition room is full"), "{full}");

    server.call("removeParticipant", json!([there, "ada"])).await?;
    cat.hears(json!({ "event": "participantDisconnected", "identity": "ada" })).await?;
    call.bob.sees_and_hears("ada").await?;
    let mark = cat.mark().await?;
    server.call("forwardParticipant", forward).await?;
    cat.hears_within(json!({ "event": "participantConnected", "identity": "ada" }), mark, PATIENCE).await?;
    cat.sees_and_hears("ada").await?;
    // She has been speaking all the time.
    cat.hears_within(json!({ "event": "activeSpeakers", "text": "ada" }), mark, PATIENCE).await?;
    call.ada.heard_of_no_end(seen).await?;
    let mark = cat.mark().await?;
    call.ada.leave().await?;
    cat.hears_within(json!({ "event": "participantDisconnected", "identity": "ada" }), mark, PATIENCE).await?;
    let gone = server.refused("getParticipant", json!([there, "ada"])).await?;
    ensure!(gone.contains("404 not_found participant does not exist"), "{gone}");
    for (client, of) in [(&cat, "here"), (&call.bob, "there")] {
        let heard = client.heard(0).await?;
        let strange = heard.iter().find(|one| one.event == "data" && one.identity.as_deref() != Some("ada"));
        ensure!(strange.is_none() && (of == "there" || !heard.iter().any(|one| one.event == "data")), "{heard:?}");
    }
    Ok(())
}
