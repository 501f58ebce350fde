//! Prometheus reads at the edge what the fleet has and needs, and how many rooms and people there are; nobody does without the
//! deployment's token.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::time::Duration;

use meridian_tests::node_impostor::post;
use meridian_tests::scene::{Deployment, Scene};
use reqwest::header::CONTENT_TYPE;
use serde_json::json;
use shared::control::{DRAIN_PATH, DrainRequest, NODES_PATH, NodeStatus};
use tokio::time::sleep;

const TOKEN: &str = "0123456789abcdef0123456789abcdef";
/// Between two looks.
const POLL: Duration = Duration::from_millis(50);

async fn watched(token: &str) -> Scene {
    let vars = [("METRICS_TOKEN".to_owned(), token.to_owned())];
    Scene::on(tokio::task::spawn_blocking(|| Deployment::with_edge_vars(vars)).await.unwrap().unwrap())
}

/// Status, type and text of what this token reads.
async fn read(scene: &Scene, token: Option<&str>) -> (u16, String, String) {
    let asked = reqwest::Client::new().get(format!("{}/metrics", scene.url()));
    let asked = match token {
        Some(token) => asked.bearer_auth(token),
        None => asked,
    };
    let answer = asked.send().await.unwrap();
    let kind = answer.headers()[CONTENT_TYPE].to_str().unwrap().to_owned();
    (answer.status().as_u16(), kind, answer.text().await.unwrap())
}

/// Waits until all of these lines are there.
async fn says(scene: &Scene, lines: &[&str]) {
    loop {
        let (status, kind, text) = read(scene, Some(TOKEN)).await;
        assert_eq!((status, kind.split(';').next()), (200, Some("application/openmetrics-text")), "{text}");
        if lines.iter().all(|line| text.lines().any(|has| has == *line)) {
            return;
        }
        sleep(POLL).await;
    }
}

#[tokio::test]
async fn of_regions_and_rooms() {
    let scene = watched(TOKEN).await;
    says(&scene, &["meridian_edge_rooms 0", "meridian_edge_nodes{region=\"local-a\",state=\"taking\"} 1"]).await;
    let ada = scene.join("ada").await.unwrap();
    let sessions = "meridian_edge_sessions{region=\"local-a\"}";
    says(&scene, &["meridian_edge_rooms 1", "meridian_edge_participants 1", &format!("{sessions} 1")]).await;

    let operator = scene.deployment.stack().secrets().enrolment_token().unwrap();
    let (_, nodes) = post(scene.url(), NODES_PATH, Some(&operator), &json!({})).await.unwrap();
    let node = serde_json::from_str::<Vec<NodeStatus>>(&nodes).unwrap()[0].node.clone();
    post(scene.url(), DRAIN_PATH, Some(&operator), &DrainRequest { node, draining: true }).await.unwrap();
    let wanted = "meridian_edge_nodes_wanted{region=\"local-a\",why=\"draining\"} 1";
    says(&scene, &[wanted, "meridian_edge_nodes{region=\"local-a\",state=\"draining\"} 1"]).await;
    ada.leave().await.unwrap();
    says(&scene, &["meridian_edge_participants 0", &format!("{sessions} 0")]).await;
}

#[tokio::test]
async fn with_the_token_for_them_alone() {
    let scene = watched(TOKEN).await;
    let operator = scene.deployment.stack().secrets().enrolment_token().unwrap();
    let participant = scene.sign(&scene.claims("ada")).unwrap();
    for token in [None, Some(""), Some(&TOKEN[1..]), Some(&operator), Some(&participant)] {
        let (status, _, text) = read(&scene, token).await;
        assert_eq!(status, 401, "{token:?}: {text}");
    }
    let unwatched = watched("").await;
    assert_eq!(read(&unwatched, Some("")).await.0, 404);
}
