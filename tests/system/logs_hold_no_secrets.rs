//! A whole call, from the nodes' enrolment to the last leave, and a probe of it: what edge and nodes log is one JSON object a
//! line that says which room it is about, and no token, key, session description or address of a client.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use meridian_tests::client::{Client, Publish};
use meridian_tests::probe::Probe;
use meridian_tests::scene::{Deployment, Scene};
use serde_json::{Value, json};
use xtask::stack::API_SECRET;

/// How every JWT of ours begins: the base64 of `{"`.
const JWT: &str = "eyJ";
/// What only a session description has.
const DESCRIPTIONS: [&str; 4] = ["ice-ufrag", "ice-pwd", "a=fingerprint", "a=candidate"];

#[tokio::test]
async fn of_a_whole_call() {
    let start = || Deployment::of_shards(1, vec!["--log-format".to_owned(), "json".to_owned()]);
    let deployment = tokio::task::spawn_blocking(start).await.unwrap().unwrap();
    let scene = Scene::on(deployment.clone());

    let mut clients = Vec::new();
    for name in ["ada", "bob"] {
        let tracks = vec![Publish::camera("camera"), Publish::microphone("microphone")];
        clients.push(scene.join_publishing(name, tracks).await.unwrap());
    }
    for client in &mut clients {
        client.until("video", |o| o.flow('V').filter(|flow| flow.keyframes > 0).map(|_| ())).await.unwrap();
    }
    // What goes wrong is logged as well.
    let mut claims = scene.claims("eve");
    claims.exp = 1;
    let mut expired = scene.options("eve").unwrap();
    expired.token = scene.sign(&claims).unwrap();
    Client::join(expired).await.err().unwrap();
    let sockets: Vec<String> =
        clients.iter().flat_map(|client| client.observe(|o| o.sockets.clone())).map(|at| at.to_string()).collect();
    for client in clients {
        client.leave().await.unwrap();
    }
    let probe = Probe::of(&scene).args(["--log", "info"]).run().await.unwrap();
    assert!(probe.status.success(), "{probe:?}");

    let logs = deployment.logs().unwrap();
    assert!(logs.iter().any(|(name, text)| name == "edge.log" && !text.is_empty()), "{logs:?}");
    let vars = deployment.stack().secrets().vars().unwrap();
    let signing: Value = serde_json::from_str(&vars["SESSION_SIGNING_KEY"]).unwrap();
    let private = signing["d"].as_str().unwrap().to_owned();
    // "secret" alone is a word.
    let api_secret = format!("\"{API_SECRET}\"");
    let mut secrets = vec![JWT, &vars["FLEET_SECRET"], &private, &api_secret];
    secrets.extend(DESCRIPTIONS);
    secrets.extend(sockets.iter().map(String::as_str));
    let output = [("probe's stdout", &probe.stdout), ("probe's stderr", &probe.stderr)];
    let output = output.map(|(name, bytes)| (name.to_owned(), String::from_utf8_lossy(bytes).into_owned()));
    for (name, text) in logs.iter().chain(&output) {
        for secret in &secrets {
            let line = text.lines().find(|line| line.contains(secret));
            assert_eq!(line, None, "{name} holds {secret:?}");
        }
    }

    let (_, node) = logs.iter().find(|(name, _)| name.starts_with("node")).unwrap();
    let lines: Vec<Value> = node.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.iter().all(|line| line["level"].is_string() && line["timestamp"].is_string()), "{node}");
    assert!(lines.iter().any(|line| line["fields"]["room"] == scene.room.as_str()), "{node}");
    let (_, edge) = logs.iter().find(|(name, _)| name == "edge.log").unwrap();
    let said: Vec<Value> = edge.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let event = |name: &str| said.iter().any(|line| line["event"] == name);
    assert!(["joined", "left", "refused"].into_iter().all(event), "{edge}");

    // What is counted is kept for months, so it holds no id either.
    let points: Vec<&Value> = said.iter().filter_map(|line| line.get("dataset")).collect();
    let columns = |event: &str| -> Vec<&Value> {
        points.iter().filter(|point| point["indexes"][0] == event).map(|point| &point["blobs"]).collect()
    };
    assert!(columns("left").contains(&&json!(["left", "client_initiated", "", ""])), "{points:?}");
    assert!(columns("refused").iter().any(|blobs| blobs[1] == "token_expired"), "{points:?}");
    let joined = columns("joined");
    assert!(joined.iter().any(|blobs| blobs[1] == "new" && !blobs[2].as_str().unwrap().is_empty()), "{joined:?}");
    for point in points {
        let text = point.to_string();
        let ids = [scene.room.as_str(), "RM_", "PA_", "\"ada\"", "\"bob\"", "\"eve\""];
        assert_eq!(ids.into_iter().find(|id| text.contains(id)), None, "{text}");
    }
}
