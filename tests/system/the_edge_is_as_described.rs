//! What `/openapi.json` says of the edge's own HTTP holds: schemathesis makes requests of it, right ones and wrong ones, and
//! judges the answers by it.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::process::Stdio;

use meridian_tests::node_impostor::fresh_key;
use meridian_tests::scene::{Deployment, Scene};
use meridian_tests::token::unix_now;
use reqwest::header::CONTENT_TYPE;
use serde_json::{Value, json};
use shared::claims::NodeClaims;
use shared::control::{ENROL_PATH, EnrolRequest, EnrolResponse};
use tokio::process::Command;
use xtask::repo;
use xtask::setup::python;
use xtask::stack::{API_KEY, API_SECRET};

/// Whoever shows it may read the metrics.
const METRICS_TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// A deployment that no meeting is open in: who shows nothing gets nothing.
async fn closed() -> Scene {
    let vars = [("OPEN_MEETINGS", "false"), ("METRICS_TOKEN", METRICS_TOKEN)];
    let vars = vars.map(|(name, value)| (name.to_owned(), value.to_owned()));
    Scene::on(tokio::task::spawn_blocking(|| Deployment::with_edge_vars(vars)).await.unwrap().unwrap())
}

#[tokio::test]
async fn request_by_request() {
    let scene = closed().await;
    let enrolment = scene.deployment.stack().secrets().enrolment_token().unwrap();
    let key = fresh_key("node").unwrap();
    let request = EnrolRequest { public_key: key.public_x().to_owned() };
    let asked = reqwest::Client::new().post(format!("{}{ENROL_PATH}", scene.url())).bearer_auth(&enrolment);
    let enrolled: EnrolResponse = asked.json(&request).send().await.unwrap().json().await.unwrap();
    let node_token = key.sign(&NodeClaims::new(enrolled.node, unix_now() + 600)).unwrap();

    let scratch = std::env::temp_dir().join(format!("meridian-described-{}", std::process::id()));
    std::fs::create_dir_all(&scratch).unwrap();
    let mut schemathesis = Command::new(python::interpreter().with_file_name("st"));
    schemathesis.arg("--config-file").arg(repo::root().join("tests/python/schemathesis.toml"));
    schemathesis.args(["run", "--no-color", "--checks", "all", "--continue-on-failure"]);
    // A link is asked for its upgrade before its token; that nobody gets in without one, `ignored_auth` sees.
    schemathesis.args(["--exclude-checks", "missing_required_header"]);
    schemathesis.arg(format!("{}/openapi.json", scene.url()));
    schemathesis.env("API_KEY", API_KEY).env("API_SECRET", API_SECRET);
    schemathesis.env("ENROLMENT_TOKEN", &enrolment).env("NODE_TOKEN", &node_token);
    schemathesis.env("METRICS_TOKEN", METRICS_TOKEN);
    // It keeps a database of examples where it runs.
    let done = schemathesis.current_dir(&scratch).stdin(Stdio::null()).output().await.unwrap();
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    std::fs::remove_dir_all(&scratch).unwrap();
    assert!(done.status.success(), "{said}\n{}", String::from_utf8_lossy(&done.stderr));
    // Not because it had nothing to ask; the description itself it has read.
    let operations = described(&scene).await.iter().filter(|path| *path != "/openapi.json").count();
    assert!(said.contains(&format!("{operations} selected / {operations} total")), "{said}");
}

/// Every path of the description.
async fn described(scene: &Scene) -> Vec<String> {
    let answer = reqwest::get(format!("{}/openapi.json", scene.url())).await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.headers()[CONTENT_TYPE].to_str().unwrap()), (200, "application/json"));
    let document: Value = answer.json().await.unwrap();
    assert_eq!(document["openapi"], json!("3.1.0"));
    document["paths"].as_object().unwrap().keys().cloned().collect()
}
