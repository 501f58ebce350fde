//! An operator has a node drain without a way into its machine: it gets no room any more, whatever starts anew meanwhile, and
//! what no other node can take goes on.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::time::{Duration, Instant};

use meridian_tests::client::{Client, DEADLINE, Publish};
use meridian_tests::node_impostor::post;
use meridian_tests::scene::Scene;
use serde_json::json;
use shared::control::{DRAIN_PATH, DrainRequest, NEED_PATH, NODES_PATH, NeedReason, NodeStatus, RegionNeed};
use shared::ids::NodeId;

/// Between two looks at a condition.
const LOOK: Duration = Duration::from_millis(50);

fn operator(scene: &Scene) -> String {
    scene.deployment.stack().secrets().enrolment_token().unwrap()
}

async fn nodes(scene: &Scene) -> Vec<NodeStatus> {
    let (status, text) = post(scene.url(), NODES_PATH, Some(&operator(scene)), &json!({})).await.unwrap();
    assert_eq!(status, 200, "{text}");
    serde_json::from_str(&text).unwrap()
}

/// Waits until the fleet's one node is so.
async fn until(scene: &Scene, what: &str, holds: impl Fn(&NodeStatus) -> bool) -> NodeStatus {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let seen = nodes(scene).await;
        if let [node] = &seen[..]
            && holds(node)
        {
            return node.clone();
        }
        assert!(Instant::now() < deadline, "not {what}: {seen:?}");
        tokio::time::sleep(LOOK).await;
    }
}

async fn drain(scene: &Scene, node: &NodeId, draining: bool) -> u16 {
    let request = DrainRequest { node: node.clone(), draining };
    post(scene.url(), DRAIN_PATH, Some(&operator(scene)), &request).await.unwrap().0
}

/// A room of its own, on the same deployment.
async fn joins_elsewhere(scene: &Scene) -> Result<Client, u16> {
    let scene = Scene::on(scene.deployment.clone());
    match Client::join(scene.options("eve").unwrap()).await {
        Ok(client) => Ok(client),
        Err(error) => Err(Client::refusal(&error).unwrap().0),
    }
}

#[tokio::test]
async fn a_drained_node_gets_no_room_and_keeps_its_calls() {
    let scene = Scene::alone(1).await.unwrap();
    let mut options = scene.options("ada").unwrap();
    options.publish = vec![Publish::camera("camera")];
    let mut ada = Client::join(options).await.unwrap();
    ada.connected().await.unwrap();
    let node = until(&scene, "in use", |node| node.load.is_some_and(|load| load.sessions == 1)).await;
    assert!(!node.draining);

    assert_eq!(drain(&scene, &node.node, true).await, 200);
    assert!(until(&scene, "draining", |node| node.draining).await.load.is_some());
    assert_eq!(joins_elsewhere(&scene).await.err(), Some(503));

    // Whoever comes to its call finds it there.
    let mut bob = scene.join("bob").await.unwrap();
    bob.until("video", |o| o.flow('V').filter(|flow| flow.keyframes > 0).map(|_| ())).await.unwrap();

    // As when the edge is deployed: every link is new.
    scene.deployment.restart_edge().await.unwrap();
    scene.deployment.nodes_are_ready().await.unwrap();
    let asked = post(scene.url(), NEED_PATH, Some(&operator(&scene)), &json!({})).await.unwrap();
    let needs: Vec<RegionNeed> = serde_json::from_str(&asked.1).unwrap();
    assert_eq!((needs[0].nodes, needs[0].draining, needs[0].why), (0, 1, NeedReason::Draining), "{asked:?}");
    until(&scene, "draining still", |node| node.draining && node.load.is_some()).await;
    assert_eq!(joins_elsewhere(&scene).await.err(), Some(503));

    assert_eq!(drain(&scene, &node.node, false).await, 200);
    assert!(joins_elsewhere(&scene).await.is_ok());
}

#[tokio::test]
async fn nobody_but_operators_drains_and_lists() {
    let scene = Scene::alone(1).await.unwrap();
    let node = nodes(&scene).await[0].node.clone();
    let participant = scene.sign(&scene.claims("ada")).unwrap();
    let request = DrainRequest { node: node.clone(), draining: true };
    for token in [None, Some("nonsense"), Some(participant.as_str())] {
        assert_eq!(post(scene.url(), DRAIN_PATH, token, &request).await.unwrap().0, 401);
        for path in [NODES_PATH, NEED_PATH] {
            assert_eq!(post(scene.url(), path, token, &json!({})).await.unwrap().0, 401);
        }
    }
    assert!(!nodes(&scene).await[0].draining);
    assert_eq!(drain(&scene, &NodeId::try_from("ND_stranger0001").unwrap(), true).await, 404);
}
