//! Networks that are in the way of media: a TURN server of the deployment gets it through.

use anyhow::{Context, Result, ensure};
use meridian_tests::browser::Browser;
use meridian_tests::relay::{Firewall, Relay};
use meridian_tests::scene::{Deployment, Scene};
use meridian_tests::sdk::{Mode, SdkClient};
use meridian_tests::turn_server::{TURN_ADDRESS, TurnServer};

/// How often an app tries again that was told to use the TURN server.
const TRIES: usize = 3;

/// A room whose node is behind a firewall that lets the TURN server in.
struct Walled {
    scene: Scene,
    clients: [SdkClient; 2],
    _keeps: (TurnServer, Relay, Browser),
}

impl Walled {
    async fn open(stun: bool) -> Result<Self> {
        let turn = tokio::task::spawn_blocking(TurnServer::start).await??;
        let (deployment, relay) = Deployment::behind_relay_with(turn.edge_vars()).await?;
        relay.wall(Firewall { friend: TURN_ADDRESS, stun });
        let browser = Browser::launch().await?;
        let clients = [browser.client("ada").await?, browser.client("bob").await?];
        Ok(Self { scene: Scene::on(deployment), clients, _keeps: (turn, relay, browser) })
    }

    /// Both publish, and receive each other by TCP to the TURN server alone.
    async fn meet(&self) -> Result<()> {
        let [ada, bob] = &self.clients;
        ada.publish().await?;
        bob.publish().await?;
        for (client, other) in [(ada, "bob"), (bob, "ada")] {
            let stats = client.sees_and_hears(other).await?;
            // Behind the relay in front of the node its address there is another than the TURN server knows: `prflx tcp`.
            let relayed = !stats.paths.is_empty() && stats.paths.iter().all(|path| path.ends_with(" tcp"));
            ensure!(relayed, "{} is on {:?}", client.identity(), stats.paths);
        }
        Ok(())
    }
}

/// Nothing but what the TURN server relays reaches the node.
pub(crate) async fn no_udp(mode: Mode) -> Result<()> {
    let walled = Walled::open(false).await?;
    for client in &walled.clients {
        client.join(&walled.scene, mode).await?;
    }
    walled.meet().await
}

/// ICE succeeds on a path that drops everything else.
pub(crate) async fn forced(mode: Mode) -> Result<()> {
    let walled = Walled::open(true).await?;
    for client in &walled.clients {
        let first = client.join(&walled.scene, mode).await;
        ensure!(first.is_err(), "{} got through", client.identity());
        // The SDK gives a try 15 s, which a busy machine may need more than once.
        let mut tries = 0..TRIES;
        while let Err(error) = client.join(&walled.scene, mode).await {
            tries.next().with_context(|| format!("{} does not get through: {error:#}", client.identity()))?;
        }
    }
    walled.meet().await
}
