//! Grants of access tokens, one by one: what a participant may do from the start. Changes in mid-call are in `permission`.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use meridian_tests::app_server::AppServer;
use meridian_tests::browser::Browser;
use meridian_tests::scene::Scene;
use meridian_tests::sdk::{Mode, PATIENCE, SdkClient};
use meridian_tests::token::unix_now;
use serde_json::json;
use shared::claims::{ACCESS_LEEWAY_SECS, AccessClaims, VideoGrant};
use tokio::time::sleep;

use crate::call::Call;
use crate::reconnect::RESUME_LIMIT;

/// Between two looks at something that changes by itself.
const POLL: Duration = Duration::from_millis(200);
/// Seconds that the token of [`refreshed`] is good for.
const SHORT_TTL_SECS: u64 = 5;

/// Ada, whose token has these grants, and Bob, who may do everything and is there first.
struct Pair {
    ada: SdkClient,
    bob: SdkClient,
    scene: Scene,
    _browser: Browser,
}

impl Pair {
    async fn open(mode: Mode, grant: impl FnOnce(&mut VideoGrant)) -> Result<Self> {
        let (scene, browser) = (Scene::open().await?, Browser::launch().await?);
        let (ada, bob) = (browser.client("ada").await?, browser.client("bob").await?);
        bob.join(&scene, mode).await?;
        ada.join_as(&scene, &granted(&scene, "ada", grant), mode).await?;
        Ok(Self { ada, bob, scene, _browser: browser })
    }
}

fn granted(scene: &Scene, identity: &str, grant: impl FnOnce(&mut VideoGrant)) -> AccessClaims {
    let mut claims = scene.claims(identity);
    grant(claims.video.get_or_insert_default());
    claims
}

async fn refusal(client: &SdkClient, scene: &Scene, claims: &AccessClaims, mode: Mode) -> Result<String> {
    let refused = client.join_as(scene, claims, mode).await.err().context("it was let in")?;
    Ok(format!("{refused:#}"))
}

/// Without `canPublish` nothing can be published, and everything is received.
pub(crate) async fn not_publishing(mode: Mode) -> Result<()> {
    let pair = Pair::open(mode, |grant| grant.can_publish = Some(false)).await?;
    for method in ["setCameraEnabled", "setMicrophoneEnabled"] {
        let refused = pair.ada.local(method, &[json!(true)]).await.err().context("she published")?;
        ensure!(format!("{refused:#}").contains("insufficient permissions"), "{refused:#}");
    }
    pair.bob.publish().await?;
    pair.ada.sees_and_hears("bob").await?;
    ensure!(pair.bob.picture().await?["ada"].tracks.is_empty(), "she published");
    Ok(())
}

/// With `canPublishSources` those can be published and no others.
pub(crate) async fn some_sources(mode: Mode) -> Result<()> {
    let sources = |grant: &mut VideoGrant| grant.can_publish_sources = vec!["microphone".to_owned()];
    let pair = Pair::open(mode, sources).await?;
    pair.ada.set_microphone(true).await?;
    let refused = pair.ada.local("setCameraEnabled", &[json!(true)]).await.err().context("she shows her camera")?;
    ensure!(format!("{refused:#}").contains("insufficient permissions"), "{refused:#}");
    pair.bob.hears(json!({ "event": "trackSubscribed", "identity": "ada", "source": "microphone" })).await?;
    Ok(())
}

/// Without `canSubscribe` tracks are neither received nor can be asked for.
pub(crate) async fn not_subscribing(mode: Mode) -> Result<()> {
    let pair = Pair::open(mode, |grant| grant.can_subscribe = Some(false)).await?;
    tokio::try_join!(pair.bob.publish(), pair.ada.set_microphone(true))?;
    // What she publishes gets through: her media is up.
    pair.bob.hears(json!({ "event": "trackSubscribed", "identity": "ada" })).await?;
    pair.ada.subscribe("bob", true).await.ok();
    pair.ada.send_data("asked", true).await?;
    pair.bob.hears(json!({ "event": "data", "text": "asked" })).await?;
    let got = pair.ada.heard(0).await?.into_iter().find(|heard| heard.event == "trackSubscribed");
    ensure!(got.is_none(), "{got:?}");
    Ok(())
}

/// Without `canPublishData` nobody hears what is sent; with it again everybody does.
pub(crate) async fn not_sending_data(mode: Mode) -> Result<()> {
    let pair = Pair::open(mode, |grant| grant.can_publish_data = Some(false)).await?;
    pair.bob.send_data("to ada", true).await?;
    pair.ada.hears(json!({ "event": "data", "identity": "bob", "text": "to ada" })).await?;
    for reliable in [true, false] {
        pair.ada.send_data("forbidden", reliable).await?;
    }
    let server = AppServer::of(&pair.scene)?;
    let permission = json!({ "canPublish": true, "canSubscribe": true, "canPublishData": true });
    let update = json!({ "room": pair.scene.room, "identity": "ada", "permission": permission });
    server.ask("UpdateParticipant", update).await?;
    pair.ada.hears(json!({ "event": "permissionsChanged", "identity": "ada" })).await?;
    // The node hears of it by the room; a packet that is quicker is not let through either.
    let deadline = Instant::now() + PATIENCE;
    let allowed = json!({ "event": "data", "identity": "ada", "text": "allowed" });
    loop {
        pair.ada.send_data("allowed", true).await?;
        if pair.bob.hears_within(allowed.clone(), 0, POLL).await.is_ok() {
            break;
        }
        ensure!(Instant::now() < deadline, "what is allowed does not come");
    }
    let forbidden = pair.bob.heard(0).await?.into_iter().any(|heard| heard.text.as_deref() == Some("forbidden"));
    ensure!(!forbidden, "bob heard what was not allowed");
    Ok(())
}

/// With `canUpdateOwnMetadata` a participant changes its own profile from the start.
pub(crate) async fn own_metadata(mode: Mode) -> Result<()> {
    let pair = Pair::open(mode, |grant| grant.can_update_own_metadata = Some(true)).await?;
    pair.ada.local("setMetadata", &[json!("poet")]).await?;
    pair.bob.hears(json!({ "event": "metadataChanged", "identity": "ada", "text": "poet" })).await?;
    let refused = pair.bob.local("setMetadata", &[json!("x")]).await.err().context("without the grant")?;
    ensure!(format!("{refused:#}").contains("does not have permission"), "{refused:#}");
    Ok(())
}

/// Who joins `hidden` sees everything and is seen by nobody, until it leaves and after.
pub(crate) async fn hidden(mode: Mode) -> Result<()> {
    let hides = |grant: &mut VideoGrant| (grant.hidden, grant.can_publish) = (true, Some(false));
    let pair = Pair::open(mode, hides).await?;
    pair.bob.publish().await?;
    pair.ada.sees_and_hears("bob").await?;
    pair.ada.leave().await?;
    // Somebody who comes after that is told to Bob after it, too.
    pair.ada.join(&pair.scene, mode).await?;
    pair.bob.hears(json!({ "event": "participantConnected", "identity": "ada" })).await?;
    let comes_or_goes = |event: &str| ["participantConnected", "participantDisconnected"].contains(&event);
    let heard = pair.bob.heard(0).await?.into_iter().map(|heard| heard.event);
    let heard: Vec<_> = heard.filter(|event| comes_or_goes(event)).collect();
    ensure!(heard == ["participantConnected"], "{heard:?}");
    Ok(())
}

/// Without `roomJoin`, or without a `room`, nobody gets in.
pub(crate) async fn no_room(mode: Mode) -> Result<()> {
    let (scene, browser) = (Scene::open().await?, Browser::launch().await?);
    let ada = browser.client("ada").await?;
    let unasked = granted(&scene, "ada", |grant| grant.room_join = false);
    let said = refusal(&ada, &scene, &unasked, mode).await?;
    ensure!(said.contains("permissions denied"), "{said}");
    let nowhere = granted(&scene, "ada", |grant| grant.room = String::new());
    refusal(&ada, &scene, &nowhere, mode).await?;
    ada.join(&scene, mode).await
}

/// With `roomAdmin` of a room its participants can be changed and removed, and no others.
pub(crate) async fn room_admin(mode: Mode) -> Result<()> {
    let call = Call::open(mode).await?;
    let granted = |room: &str| VideoGrant { room: room.to_owned(), room_admin: true, ..VideoGrant::default() };
    let room = &call.scene.room;
    let change = json!({ "room": room, "identity": "ada", "metadata": "m" });
    for powerless in [granted("another"), VideoGrant { room_admin: false, ..granted(room) }] {
        let refused = AppServer::granted(&call.scene, powerless)?.call("UpdateParticipant", change.clone()).await?;
        ensure!(refused.status == 401 && refused.body["msg"] == "permissions denied", "{refused:?}");
    }
    AppServer::granted(&call.scene, granted(room))?.ask("UpdateParticipant", change).await?;
    call.bob.hears(json!({ "event": "metadataChanged", "identity": "ada", "text": "m" })).await?;
    Ok(())
}

/// The room that a token's first join creates is as the token configures it.
pub(crate) async fn room_configuration(mode: Mode) -> Result<()> {
    let (scene, browser) = (Scene::open().await?, Browser::launch().await?);
    let (ada, bob) = (browser.client("ada").await?, browser.client("bob").await?);
    let mut claims = scene.claims("ada");
    claims.room_config = Some(json!({ "maxParticipants": 1, "metadata": "den", "emptyTimeout": 7 }));
    ada.join_as(&scene, &claims, mode).await?;
    ensure!(ada.myself().await?["roomMetadata"] == "den", "{}", ada.myself().await?);
    let said = refusal(&bob, &scene, &scene.claims("bob"), mode).await?;
    ensure!(said.contains("room is full"), "{said}");
    let rooms = AppServer::of(&scene)?.ask("ListRooms", json!({ "names": [scene.room] })).await?;
    ensure!(rooms["rooms"][0]["empty_timeout"] == 7, "{rooms}");
    Ok(())
}

/// A token for one join lets in once; what the session needs later it has from the server.
pub(crate) async fn single_use(mode: Mode) -> Result<()> {
    let (scene, browser) = (Scene::open().await?, Browser::launch().await?);
    let (ada, eve) = (browser.client("ada").await?, browser.client("eve").await?);
    let mut claims = scene.claims("ada");
    (claims.single_use, claims.jti) = (true, "once".to_owned());
    ada.join_as(&scene, &claims, mode).await?;
    ada.simulate("leave-full-reconnect").await?;
    ada.hears_within(json!({ "event": "reconnected" }), 0, RESUME_LIMIT).await?;
    let said = refusal(&eve, &scene, &claims, mode).await?;
    ensure!(said.contains("used before"), "{said}");
    Ok(())
}

/// The server refreshes a client's token: its own may expire in mid-call, and what has changed since it was minted stays.
pub(crate) async fn refreshed(mode: Mode) -> Result<()> {
    let (scene, browser) = (Scene::open().await?, Browser::launch().await?);
    let (ada, bob) = (browser.client("ada").await?, browser.client("bob").await?);
    bob.join(&scene, mode).await?;
    let mut claims = granted(&scene, "ada", |grant| grant.can_update_own_metadata = Some(true));
    claims.exp = unix_now() + SHORT_TTL_SECS - ACCESS_LEEWAY_SECS;
    ada.join_as(&scene, &claims, mode).await?;
    ada.publish().await?;
    ada.local("setName", &[json!("Ada L")]).await?;
    bob.hears(json!({ "event": "nameChanged", "identity": "ada", "text": "Ada L" })).await?;
    let validate = format!("{}/rtc/validate?access_token={}", scene.url(), scene.sign(&claims)?);
    let deadline = Instant::now() + PATIENCE;
    while reqwest::get(&validate).await?.status() != 401 {
        ensure!(Instant::now() < deadline, "her token does not expire");
        sleep(POLL).await;
    }
    let since = ada.mark().await?;
    ada.simulate("leave-full-reconnect").await?;
    ada.hears_within(json!({ "event": "reconnected" }), since, RESUME_LIMIT).await?;
    bob.sees_and_hears("ada").await?;
    ensure!(ada.myself().await?["name"] == "Ada L", "{}", ada.myself().await?);
    Ok(())
}

/// An agent is seen as one.
pub(crate) async fn kinds(mode: Mode) -> Result<()> {
    let (scene, browser) = (Scene::open().await?, Browser::launch().await?);
    let (agent, bob) = (browser.client("agent").await?, browser.client("bob").await?);
    bob.join(&scene, mode).await?;
    let mut claims = granted(&scene, "agent", |grant| grant.agent = true);
    claims.kind = "agent".to_owned();
    agent.join_as(&scene, &claims, mode).await?;
    bob.hears(json!({ "event": "participantConnected", "identity": "agent" })).await?;
    ensure!(bob.picture().await?["agent"].is_agent, "it is not seen as an agent");
    Ok(())
}
