//! API key and session signing key are replaced, step by step, under a call: it goes on, nothing is refused that either key
//! signed while both are good, and afterwards the old ones open nothing.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::time::Duration;

use anyhow::Result;
use meridian_tests::browser::Browser;
use meridian_tests::client::{Client, ClientOptions};
use meridian_tests::scene::Scene;
use meridian_tests::sdk::{Mode, SdkClient};
use meridian_tests::token::join_claims;
use serde_json::{Value, json};
use shared::claims::{ApiKeys, SigningKey};
use xtask::operator::rotate::{Rotated, Step, rotate};

const API_KEYS: &str = "API_KEYS";
const SESSION_SIGNING_KEY: &str = "SESSION_SIGNING_KEY";
/// Longest that the SDK takes to come back after a deployment, on a busy machine.
const RESUME_LIMIT: Duration = Duration::from_secs(60);
/// What nobody in the call may hear: that somebody left, or a track.
const ENDS: [&str; 6] = [
    "disconnected",
    "participantConnected",
    "participantDisconnected",
    "trackUnsubscribed",
    "localTrackPublished",
    "localTrackUnpublished",
];

/// Does a step to both keys and deploys: every WebSocket breaks once, as at any deployment.
async fn deploy(scene: &Scene, step: Step) -> Result<()> {
    let deployment = scene.deployment.clone();
    let restart = move || {
        let mut stack = deployment.stack();
        for key in [Rotated::ApiKey, Rotated::SigningKey] {
            rotate(stack.edge().vars(), key, step)?;
        }
        stack.edge().process.kill();
        stack.edge().restart()?;
        stack.nodes()[0].wait_until_ready()
    };
    tokio::task::spawn_blocking(restart).await?
}

fn configured(scene: &Scene, name: &str) -> String {
    scene.deployment.stack().edge().vars()[name].clone()
}

/// Lines of `API_KEYS`, first the one that signs.
fn api_keys(scene: &Scene) -> Vec<String> {
    configured(scene, API_KEYS).lines().map(str::to_owned).collect()
}

/// Ids of the session signing keys as configured, first the one that signs.
fn key_ids(scene: &Scene) -> Vec<String> {
    let value: Value = serde_json::from_str(&configured(scene, SESSION_SIGNING_KEY)).unwrap();
    let keys = value["keys"].as_array().cloned().unwrap_or_else(|| vec![value.clone()]);
    let id = |key: &Value| SigningKey::from_jwk(&key.to_string()).unwrap().public_jwk().kid;
    keys.iter().map(id).collect()
}

/// Ids in the key set that nodes fetch.
async fn published(scene: &Scene) -> Vec<String> {
    let set: Value =
        reqwest::get(format!("{}/.well-known/jwks.json", scene.url())).await.unwrap().json().await.unwrap();
    set["keys"].as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
}

/// Somebody joins with a token that this API key signed, media and all.
async fn joins(scene: &Scene, line: &str, identity: &str) -> Result<()> {
    let (key, _) = line.split_once(':').unwrap();
    let token = ApiKeys::parse(line).mint(&join_claims(key, &scene.room, identity)).unwrap();
    let mut client = Client::join(ClientOptions::new(scene.url(), &token)).await?;
    client.connected().await?;
    client.leave().await
}

/// What the edge has refused so far: lines of its log.
fn refusals(scene: &Scene) -> Vec<String> {
    let log = scene.deployment.edge_log();
    log.lines().filter(|line| line.contains("\"event\":\"refused\"")).map(str::to_owned).collect()
}

/// Ada and Bob, who hear of no end.
struct Call {
    ada: SdkClient,
    bob: SdkClient,
    _browser: Browser,
}

impl Call {
    async fn open(scene: &Scene) -> Result<Self> {
        let browser = Browser::launch().await?;
        let (ada, bob) = (browser.client("ada").await?, browser.client("bob").await?);
        ada.join(scene, Mode::Single).await?;
        bob.join(scene, Mode::Single).await?;
        ada.publish().await?;
        bob.sees_and_hears("ada").await?;
        Ok(Self { ada, bob, _browser: browser })
    }

    /// Ids of Ada and her tracks, as Bob has them.
    async fn ids(&self) -> Result<Vec<String>> {
        let picture = self.bob.picture().await?;
        let ada = &picture["ada"];
        Ok(std::iter::once(&ada.sid).chain(ada.tracks.iter().map(|track| &track.sid)).cloned().collect())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn in_three_steps() -> Result<()> {
    let scene = Scene::alone(1).await?;
    let call = Call::open(&scene).await?;
    let (ids, old) = (call.ids().await?, (api_keys(&scene).remove(0), key_ids(&scene).remove(0)));
    let since = [call.ada.mark().await?, call.bob.mark().await?];
    for step in [Step::Add, Step::Switch, Step::Retire] {
        let marks = [call.ada.mark().await?, call.bob.mark().await?];
        deploy(&scene, step).await?;
        for (client, mark) in [(&call.ada, marks[0]), (&call.bob, marks[1])] {
            client.hears_within(json!({ "event": "reconnected" }), mark, RESUME_LIMIT).await?;
        }
        call.bob.sees_and_hears("ada").await?;
        assert_eq!(published(&scene).await, key_ids(&scene), "{step:?}");
        for (number, line) in api_keys(&scene).iter().enumerate() {
            joins(&scene, line, &format!("guest {number}")).await?;
        }
        assert_eq!(refusals(&scene), Vec::<String>::new(), "{step:?}");
    }
    assert_eq!(call.ids().await?, ids, "the same participant and the same tracks");
    for (client, since) in [(&call.ada, since[0]), (&call.bob, since[1])] {
        let guests =
            |heard: &meridian_tests::sdk::Heard| heard.identity.as_deref().is_some_and(|i| i.starts_with("guest"));
        let heard = client.heard(since).await?;
        let end = heard.iter().find(|heard| ENDS.contains(&heard.event.as_str()) && !guests(heard));
        assert!(end.is_none(), "{} heard {end:?}", client.identity());
    }

    // The old keys are gone, and not merely second.
    assert!(!published(&scene).await.contains(&old.1));
    let refused = joins(&scene, &old.0, "late").await.unwrap_err();
    let (status, text) = Client::refusal(&refused).unwrap();
    assert_eq!((status, text), (401, "invalid API key"));
    Ok(())
}
