//! A participant that is forwarded is seen and heard in both rooms, whichever nodes serve them, and over the loss of its own.

use anyhow::{Context, Result, ensure};
use meridian_tests::app_server::AppServer;
use meridian_tests::browser::Browser;
use meridian_tests::client::{Client, ClientOptions};
use meridian_tests::scene::{Deployment, Scene};
use meridian_tests::sdk::Mode;
use serde_json::json;
use shared::claims::VideoGrant;
use shared::geo::Place;

/// Near the first node of a local deployment.
const NEAR: Place = Place { latitude: 30.0, longitude: -97.0 };
/// Near the second one.
const FAR: Place = Place { latitude: 52.0, longitude: 13.0 };
/// Joins, and is served there.
async fn served_in(options: ClientOptions, region: &str) -> Result<Client> {
    let mut client = Client::join(options).await?;
    client.connected().await?;
    let served = client.observe(|o| o.join.as_ref().map(|join| join.server_region.clone()));
    ensure!(served.as_deref() == Some(region), "{served:?}");
    Ok(client)
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_ends() -> Result<()> {
    let start = || Deployment::start(3);
    let scene = Scene::on(tokio::task::spawn_blocking(start).await??);
    let hall = Scene { deployment: scene.deployment.clone(), room: format!("{}-hall", scene.room) };
    let browser = Browser::launch().await?;
    // Who comes first decides where a room is.
    let _eve = served_in(ClientOptions { place: Some(NEAR), ..scene.options("eve")? }, "local-a").await?;
    let (ada, bob) = (browser.client("ada").await?, browser.client("bob").await?);
    for client in [&ada, &bob] {
        client.join(&scene, Mode::Single).await?;
    }
    ada.publish().await?;
    bob.sees_and_hears("ada").await?;
    let mut cyd = served_in(ClientOptions { place: Some(FAR), ..hall.options("cyd")? }, "local-b").await?;

    let grant = VideoGrant {
        room_admin: true,
        room: scene.room.clone(),
        destination_room: hall.room.clone(),
        ..VideoGrant::default()
    };
    let server = AppServer::granted(&scene, grant)?;
    let forward = json!({ "room": scene.room, "identity": "ada", "destinationRoom": hall.room });
    server.ask("ForwardParticipant", forward).await?;
    cyd.sees_and_hears_more().await?;
    bob.sees_and_hears("ada").await?;

    // Her node dies: she goes on at another one, and so does what comes of her.
    let mark = ada.mark().await?;
    scene.deployment.stack().nodes().first_mut().context("no node")?.process.kill();
    bob.sees_and_hears("ada").await?;
    cyd.sees_and_hears_more().await?;
    ada.heard_of_no_end(mark).await?;

    // Both rooms are read from their rows; nodes come back with the pipes they have.
    scene.deployment.restart_edge().await?;
    cyd.sees_and_hears_more().await?;
    bob.sees_and_hears("ada").await?;
    Ok(())
}
