//! What most rows begin with: two browsers in a room behind a network that can be cut.

use anyhow::Result;
use meridian_tests::browser::Browser;
use meridian_tests::front::Front;
use meridian_tests::relay::Relay;
use meridian_tests::scene::{Deployment, Scene};
use meridian_tests::sdk::{Mode, SdkClient};
use meridian_tests::server_sdk::ServerSdk;
use serde_json::{Value, json};

/// Ada and Bob in a room. **Only one of them shows a camera**: the pages of one browser share it.
pub(crate) struct Call {
    pub(crate) ada: SdkClient,
    pub(crate) bob: SdkClient,
    pub(crate) front: Front,
    pub(crate) scene: Scene,
    browser: Browser,
}

impl Call {
    /// Both have joined.
    pub(crate) async fn open(mode: Mode) -> Result<Self> {
        Self::of(Scene::open().await?, mode).await
    }

    /// In a room that an app server has made like this.
    pub(crate) async fn open_in(mode: Mode, options: Value) -> Result<Self> {
        Self::made_with(Scene::open().await?, mode, options).await
    }

    /// The same in this room.
    pub(crate) async fn made_with(scene: Scene, mode: Mode, mut options: Value) -> Result<Self> {
        options["name"] = json!(scene.room);
        ServerSdk::start().await?.call(scene.url(), "createRoom", json!([options])).await?;
        Self::of(scene, mode).await
    }

    async fn of(scene: Scene, mode: Mode) -> Result<Self> {
        let front = Front::start(scene.url()).await?;
        let browser = Browser::launch().await?;
        let (ada, bob) = (browser.client("ada").await?, browser.client("bob").await?);
        for client in [&ada, &bob] {
            client.join_room(front.url(), &scene.room, mode).await?;
        }
        Ok(Self { ada, bob, front, scene, browser })
    }

    /// Another page of the same browser, in no room yet.
    pub(crate) async fn page(&self, identity: &str) -> Result<SdkClient> {
        self.browser.client(identity).await
    }

    /// Ada shows camera and microphone, Bob sees and hears her.
    pub(crate) async fn with_video(mode: Mode) -> Result<Self> {
        let call = Self::open(mode).await?;
        call.ada.publish().await?;
        call.bob.sees_and_hears("ada").await?;
        Ok(call)
    }
}

/// Ada shows camera and microphone to Bob, behind a relay that can spoil the path to the node.
pub(crate) struct PathCall {
    pub(crate) bob: SdkClient,
    pub(crate) relay: Relay,
    _ada: SdkClient,
    _scene: Scene,
    _browser: Browser,
}

impl PathCall {
    /// Both have joined, and she publishes.
    pub(crate) async fn open(mode: Mode) -> Result<Self> {
        let (deployment, relay) = Deployment::behind_relay().await?;
        let (scene, browser) = (Scene::on(deployment), Browser::launch().await?);
        let (ada, bob) = (browser.client("ada").await?, browser.client("bob").await?);
        ada.join(&scene, mode).await?;
        bob.join(&scene, mode).await?;
        ada.publish().await?;
        Ok(Self { bob, relay, _ada: ada, _scene: scene, _browser: browser })
    }
}
