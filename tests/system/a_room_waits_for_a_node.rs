//! Without a node a join is refused with 503; as soon as one comes, the same client gets in.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use meridian_tests::client::Client;
use meridian_tests::scene::Scene;

async fn add_node(scene: &Scene) {
    let deployment = scene.deployment.clone();
    tokio::task::spawn_blocking(move || deployment.stack().add_node().map(|_| ())).await.unwrap().unwrap();
}

#[tokio::test]
async fn no_node_is_503_and_a_new_node_ends_it() {
    let scene = Scene::alone(0).await.unwrap();
    let refused = Client::join(scene.options("ada").unwrap()).await.err().unwrap();
    assert_eq!(Client::refusal(&refused).map(|(status, _)| status), Some(503), "{refused:#}");

    add_node(&scene).await;
    scene.join("ada").await.unwrap().ping().await.unwrap();
}

#[tokio::test]
async fn a_room_whose_only_node_died_takes_the_next() {
    let scene = Scene::alone(1).await.unwrap();
    let mut ada = scene.join("ada").await.unwrap();
    scene.deployment.stack().nodes()[0].process.kill();
    // Whoever had media there is to resume at the next one; until a node is there, nobody joins.
    ada.until("the end of its socket", |o| o.closed).await.unwrap();
    let refused = Client::join(scene.options("ada").unwrap()).await.err().unwrap();
    assert_eq!(Client::refusal(&refused).map(|(status, _)| status), Some(503), "{refused:#}");

    add_node(&scene).await;
    scene.join("ada").await.unwrap().ping().await.unwrap();
}
