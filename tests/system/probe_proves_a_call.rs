//! `sfu-node probe` says whether a call works, as the meeting's clients would find it: through a region, step by step, and
//! with an exit status that monitoring can go by.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::process::Output;

use meridian_tests::probe::Probe;
use meridian_tests::scene::{Scene, sum_metric};
use serde_json::Value;

/// Its report.
fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

#[tokio::test]
async fn a_working_call_is_told_step_by_step() {
    let scene = Scene::alone(2).await.unwrap();
    // Local workerd says that every client is near the first region.
    for region in ["local-a", "local-b"] {
        let output = Probe::of(&scene).args(["--region", region, "--format", "json"]).run().await.unwrap();
        let report = json(&output);
        assert_eq!(output.status.code(), Some(0), "{report:#}");
        assert_eq!((report["ok"].as_bool(), report["region"].as_str()), (Some(true), Some(region)), "{report:#}");
        assert!(report["node"].as_str().unwrap().starts_with("ND_"));
        for (participant, steps) in [("publisher", 6), ("subscriber", 7)] {
            let joined = &report[participant];
            let times = joined["steps"].as_object().unwrap();
            assert_eq!(times.len(), steps, "{report:#}");
            let sum: f64 = times.values().map(|time| time.as_f64().unwrap()).sum();
            assert!(sum > 0.0 && (sum - joined["seconds"].as_f64().unwrap()).abs() < 1e-6, "{report:#}");
        }
        for kind in ["audio", "video"] {
            let quality = &report["media"][kind];
            let number = |name: &str| quality[name].as_f64().unwrap();
            assert!(number("received") > 20.0 && number("received") <= number("sent"), "{report:#}");
            assert!(number("round_trip") > 0.0 && number("round_trip") <= number("round_trip_95"), "{report:#}");
        }
    }
}

#[tokio::test]
async fn prometheus_can_read_it() {
    let scene = Scene::open().await.unwrap();
    let output = Probe::of(&scene).args(["--format", "prometheus"]).run().await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!((sum_metric(&text, "meridian_probe_success") - 1.0).abs() < f64::EPSILON, "{text}");
    assert!(sum_metric(&text, "meridian_probe_packets_received") > 0.0, "{text}");
    assert!(sum_metric(&text, "meridian_probe_join_seconds") > 0.0, "{text}");
}

#[tokio::test]
async fn without_a_node_it_fails_and_says_where() {
    let scene = Scene::alone(1).await.unwrap();
    let elsewhere = Probe::of(&scene).args(["--region", "nowhere", "--format", "json"]).run().await.unwrap();
    let report = json(&elsewhere);
    assert_eq!(elsewhere.status.code(), Some(1), "{report:#}");
    assert!(report["failure"].as_str().unwrap().contains("503"), "{report:#}");
    assert!(report["publisher"]["steps"]["token"].is_number(), "{report:#}");

    scene.deployment.stack().nodes()[0].process.kill();
    let gone = Probe::of(&scene).args(["--deadline", "15", "--format", "prometheus"]).run().await.unwrap();
    let text = String::from_utf8(gone.stdout).unwrap();
    assert_eq!(gone.status.code(), Some(1), "{text}");
    assert!(text.contains("meridian_probe_success 0"), "{text}");
}

#[tokio::test]
async fn a_wrong_key_is_told_and_no_key_is_another_status() {
    let scene = Scene::open().await.unwrap();
    let wrong = Probe::of(&scene).secret("not the secret").run().await.unwrap();
    let text = String::from_utf8(wrong.stdout).unwrap();
    assert_eq!(wrong.status.code(), Some(1), "{text}");
    assert!(text.contains("no token: 401") && !text.contains("not the secret"), "{text}");
    let none = Probe::of(&scene).secret("").run().await.unwrap();
    assert_eq!(none.status.code(), Some(78));
}
