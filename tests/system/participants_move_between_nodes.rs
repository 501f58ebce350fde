//! A participant goes on in another room that another node serves, on the connection its client has, whichever SDK that is of.

use anyhow::{Context, Result, ensure};
use meridian_tests::app_server::AppServer;
use meridian_tests::browser::Browser;
use meridian_tests::client::{Client, ClientOptions, text};
use meridian_tests::scene::{Deployment, Scene};
use meridian_tests::sdk::{Mode, SdkClient};
use serde_json::{Value, json};
use shared::claims::VideoGrant;
use shared::geo::Place;

/// Near the first node of a local deployment.
const NEAR: Place = Place { latitude: 30.0, longitude: -97.0 };
/// Near the second one.
const FAR: Place = Place { latitude: 52.0, longitude: 13.0 };

/// Joins; the region that serves it.
async fn join(options: ClientOptions) -> Result<(Client, Option<String>)> {
    let mut client = Client::join(options).await?;
    client.connected().await?;
    let region = client.observe(|o| o.join.as_ref().map(|join| join.server_region.clone()));
    Ok((client, region))
}

async fn ask(scene: &Scene, to: &Scene, method: &str, body: Value) -> Result<Value> {
    let (room, destination_room) = (scene.room.clone(), to.room.clone());
    let grant = VideoGrant { room_admin: true, room, destination_room, ..VideoGrant::default() };
    AppServer::granted(scene, grant)?.ask(method, body).await
}

async fn goes_on(ada: &SdkClient, mode: Mode) -> Result<()> {
    let start = || Deployment::start(2);
    let scene = Scene::on(tokio::task::spawn_blocking(start).await??);
    let hall = Scene { deployment: scene.deployment.clone(), room: format!("{}-hall", scene.room) };
    // Who comes first decides where a room is.
    let (mut bob, near) = join(ClientOptions { place: Some(NEAR), ..scene.options("bob")? }).await?;
    ada.join(&scene, mode).await?;
    ada.publish().await?;
    let (mut cyd, far) = join(ClientOptions { place: Some(FAR), ..hall.options("cyd")? }).await?;
    ensure!((near.as_deref(), far.as_deref()) == (Some("local-a"), Some("local-b")), "{near:?} {far:?}");
    bob.sees_and_hears_more().await?;

    let there = json!({ "room": scene.room, "identity": "ada", "destinationRoom": hall.room });
    let mark = ada.mark().await?;
    ask(&scene, &hall, "MoveParticipant", there).await?;
    cyd.sees_and_hears_more().await?;
    cyd.send_data("_reliable", text("for ada")).await?;
    ada.hears(json!({ "event": "data", "identity": "cyd", "text": "for ada" })).await?;
    let listed = ask(&scene, &hall, "ListParticipants", json!({ "room": scene.room })).await?;
    let left = listed.pointer("/participants").and_then(Value::as_array).context("no list")?;
    ensure!(left.len() == 1, "{listed}");

    let back = json!({ "room": hall.room, "identity": "ada", "destinationRoom": scene.room });
    ask(&hall, &scene, "MoveParticipant", back).await?;
    bob.sees_and_hears_more().await?;
    let heard = ada.heard(mark).await?;
    let anew = heard.iter().find(|one| ["disconnected", "localTrackPublished"].contains(&&*one.event));
    ensure!(anew.is_none(), "it has not gone on, but begun anew: {anew:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn of_the_native_core() -> Result<()> {
    goes_on(&SdkClient::python("ada").await?, Mode::Single).await
}

#[tokio::test(flavor = "multi_thread")]
async fn of_the_native_core_with_two_connections() -> Result<()> {
    goes_on(&SdkClient::python("ada").await?, Mode::Dual).await
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_browser() -> Result<()> {
    goes_on(&Browser::launch().await?.client("ada").await?, Mode::Single).await
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_browser_with_two_connections() -> Result<()> {
    goes_on(&Browser::launch().await?.client("ada").await?, Mode::Dual).await
}
