//! What another version of the edge has stored is never misread: of an older one it is migrated, of a newer one it is left
//! as it is and said so; what is damaged is given up and forgotten everywhere.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::time::{Duration, Instant};

use meridian_tests::client::{Client, DEADLINE};
use meridian_tests::rows::sql;
use meridian_tests::scene::Scene;

/// Rooms in the directory, and rooms that the fleet knows a node to be in.
fn known_rooms(scene: &Scene) -> (Vec<String>, Vec<String>) {
    let directory = sql(scene, "DirectoryObject", "room", "SELECT name FROM room").0;
    (directory, sql(scene, "FleetObject", "room_link", "SELECT room FROM room_link").0)
}

async fn until(scene: &Scene, what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {DEADLINE:?}: {what}\n{}", scene.deployment.edge_log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Stops the edge, does this to its databases, and starts it again.
async fn upgrade(scene: &Scene, class: &'static str, table: &'static str, statement: &'static str) {
    let scene = Scene { deployment: scene.deployment.clone(), room: scene.room.clone() };
    let restart = move || {
        let mut stack = scene.deployment.stack();
        stack.edge().process.kill();
        let (_, changed) = sql(&scene, class, table, statement);
        assert_eq!(changed, 1, "{statement}");
        stack.edge().restart()?;
        stack.nodes()[0].wait_until_ready()
    };
    tokio::task::spawn_blocking(restart).await.unwrap().unwrap();
}

/// Id of the room that a client is in.
fn room_of(client: &Client) -> String {
    client.observe(|o| o.join.as_ref().unwrap().room.as_ref().unwrap().sid.clone())
}

/// Asks whether bob may join: the status and what was said.
async fn validate(scene: &Scene) -> (u16, String) {
    let token = scene.sign(&scene.claims("bob")).unwrap();
    let url = url::Url::parse_with_params(&format!("{}/rtc/validate", scene.url()), [("access_token", token)]).unwrap();
    let answer = reqwest::get(url).await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

#[tokio::test]
async fn a_damaged_room_is_forgotten_everywhere() {
    let scene = Scene::alone(1).await.unwrap();
    let ada = scene.join("ada").await.unwrap();
    let sid = room_of(&ada);
    let here = vec![scene.room.clone()];
    until(&scene, "directory and fleet know the room", || known_rooms(&scene) == (here.clone(), here.clone())).await;

    upgrade(&scene, "RoomObject", "room", "UPDATE room SET value = json_remove(value, '$.sid')").await;
    drop(ada);
    // Whoever asks wakes the object.
    assert_eq!(validate(&scene).await.0, 200);
    until(&scene, "both have forgotten it", || known_rooms(&scene) == (Vec::new(), Vec::new())).await;
    assert!(scene.deployment.edge_log().contains("is given up"), "{}", scene.deployment.edge_log());

    let bob = scene.join("bob").await.unwrap();
    assert_ne!(room_of(&bob), sid, "another room");
    until(&scene, "the new room is known", || known_rooms(&scene) == (here.clone(), here.clone())).await;
}

#[tokio::test]
async fn a_room_of_the_first_version_goes_on() {
    let scene = Scene::alone(1).await.unwrap();
    let ada = scene.join("ada").await.unwrap();
    let sid = room_of(&ada);
    let older = "UPDATE room SET value = json_remove(json_set(value, '$.layout', 1), '$.region')";
    upgrade(&scene, "RoomObject", "room", older).await;
    let bob = scene.join("bob").await.unwrap();
    assert_eq!(room_of(&bob), sid, "{}", scene.deployment.edge_log());
    assert!(scene.deployment.edge_log().contains(r#""event":"migrated""#), "{}", scene.deployment.edge_log());
}

#[tokio::test]
async fn a_room_of_a_newer_version_is_left_as_it_is() {
    let scene = Scene::alone(1).await.unwrap();
    let ada = scene.join("ada").await.unwrap();
    let sid = room_of(&ada);
    let layouts = || sql(&scene, "RoomObject", "room", "SELECT json_extract(value, '$.layout') || '' FROM room").0;
    let current = layouts();

    upgrade(&scene, "RoomObject", "room", "UPDATE room SET value = json_set(value, '$.layout', 999)").await;
    drop(ada);
    let (status, said) = validate(&scene).await;
    assert_eq!(status, 503, "{said}");
    assert!(said.contains("newer version of the edge"), "{said}");
    assert!(scene.deployment.edge_log().contains("layout 999"), "{}", scene.deployment.edge_log());
    assert_eq!(layouts(), ["999"]);

    // The version that wrote it, again.
    let back = match current[0].as_str() {
        "2" => "UPDATE room SET value = json_set(value, '$.layout', 2)",
        other => panic!("say here how layout {other} comes back"),
    };
    upgrade(&scene, "RoomObject", "room", back).await;
    let bob = scene.join("bob").await.unwrap();
    assert_eq!(room_of(&bob), sid);
}

#[tokio::test]
async fn a_fleet_of_the_first_version_is_taken_over() {
    let scene = Scene::alone(1).await.unwrap();
    let keys = || sql(&scene, "FleetObject", "node", "SELECT key FROM node").0;
    let indexes =
        || sql(&scene, "FleetObject", "node", "SELECT name FROM sqlite_master WHERE name = 'room_link_by_node'").0;
    let before = keys();
    let older = "DROP INDEX room_link_by_node; UPDATE layout SET version = 1";
    upgrade(&scene, "FleetObject", "layout", older).await;
    assert_eq!(keys(), before);
    until(&scene, "the index is there", || indexes().len() == 1).await;
    scene.join("ada").await.unwrap().ping().await.unwrap();
}

#[tokio::test]
async fn a_fleet_of_a_newer_version_is_left_as_it_is() {
    let scene = Scene::alone(1).await.unwrap();
    let keys = || sql(&scene, "FleetObject", "node", "SELECT key FROM node").0;
    let before = keys();
    assert_eq!(before.len(), 1);
    let deployment = scene.deployment.clone();
    let break_it = move || {
        let scene = Scene::on(deployment);
        let mut stack = scene.deployment.stack();
        stack.edge().process.kill();
        assert_eq!(sql(&scene, "FleetObject", "layout", "UPDATE layout SET version = 999").1, 1);
        stack.edge().restart()
    };
    tokio::task::spawn_blocking(break_it).await.unwrap().unwrap();
    until(&scene, "the node is refused, and the log says that it is not to blame", || {
        let log = scene.deployment.edge_log();
        log.contains("of layout 999, this version of the edge reads up to 4")
            && log.contains(r#""reason":"internal_error""#)
    })
    .await;
    let refused = Client::join(scene.options("ada").unwrap()).await.err().unwrap();
    assert_eq!(Client::refusal(&refused).map(|(status, _)| status), Some(503), "{refused:#}");

    // The right version finds everything.
    upgrade(&scene, "FleetObject", "layout", "UPDATE layout SET version = 4").await;
    assert_eq!(keys(), before);
    scene.join("ada").await.unwrap().ping().await.unwrap();
}
