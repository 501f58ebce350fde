//! The node under a call is killed, again and again: everybody has media again on another node, on the same connection,
//! with the same tracks, and no app hears of it. `MERIDIAN_KILLS=20` measures how long the pictures stand still.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use meridian_tests::browser::Browser;
use meridian_tests::scene::{Scene, sum_metric};
use meridian_tests::sdk::{Mode, PATIENCE, SdkClient};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::{sleep, timeout};

/// How often the node is killed, unless the environment says otherwise.
const KILLS: usize = 3;
/// From so many kills on, on a machine that does nothing else, nobody may have to resume either: a client that is not
/// connected in 2 s is made to.
const JUDGED: usize = 10;
/// One that serves, one to go to, one that starts again.
const NODES: usize = 3;
/// Each call has two browsers.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());
/// Data packets sent until one is heard, and how long it is waited for.
const DATA_ATTEMPTS: usize = 30;
/// Between two looks at a node's metrics.
const POLL: Duration = Duration::from_millis(100);
/// See [`DATA_ATTEMPTS`].
const DATA_PATIENCE: Duration = Duration::from_secs(2);

/// Ada and Bob see and hear each other. A browser for each: the pages of one share its fake camera.
struct Call {
    ada: SdkClient,
    bob: SdkClient,
    scene: Scene,
    _browsers: [Browser; 2],
    _alone: MutexGuard<'static, ()>,
}

impl Call {
    async fn open(mode: Mode) -> Result<Self> {
        let alone = ONE_AT_A_TIME.lock().await;
        let scene = Scene::alone(NODES).await?;
        let browsers = [Browser::launch().await?, Browser::launch().await?];
        let (ada, bob) = (browsers[0].client("ada").await?, browsers[1].client("bob").await?);
        ada.join(&scene, mode).await?;
        bob.join(&scene, mode).await?;
        tokio::try_join!(ada.publish(), bob.publish())?;
        let call = Self { ada, bob, scene, _browsers: browsers, _alone: alone };
        call.goes_on().await?;
        Ok(call)
    }

    async fn goes_on(&self) -> Result<()> {
        tokio::try_join!(self.ada.sees_and_hears("bob"), self.bob.sees_and_hears("ada"))?;
        Ok(())
    }

    /// Data gets through both ways, on both channels. What was on its way while the node died may be lost.
    async fn data_gets_through(&self, text: &str) -> Result<()> {
        for (from, to) in [(&self.ada, &self.bob), (&self.bob, &self.ada)] {
            for reliable in [true, false] {
                let mut attempts = 0..DATA_ATTEMPTS;
                loop {
                    let attempt = attempts.next().context("no data gets through")?;
                    let (mark, text) = (to.mark().await?, format!("{text} {reliable} {attempt}"));
                    from.send_data(&text, reliable).await?;
                    let data = json!({ "event": "data", "identity": from.identity(), "text": text });
                    if to.hears_within(data, mark, DATA_PATIENCE).await.is_ok() {
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    /// The node that has the call, by its place.
    async fn serving(&self) -> Result<usize> {
        for node in 0..NODES {
            // One that was killed answers nothing.
            let Ok(metrics) = self.metrics(node).await else { continue };
            if sum_metric(&metrics, "meridian_node_sessions") > 0.0 {
                return Ok(node);
            }
        }
        bail!("no node has a session")
    }

    fn signal(&self, node: usize, signal: Signal) -> Result<()> {
        let pid = self.scene.deployment.stack().nodes().get(node).and_then(|node| node.process.pid());
        Ok(kill(Pid::from_raw(pid.context("no such node")?.try_into()?), signal)?)
    }

    async fn metrics(&self, node: usize) -> Result<String> {
        let address = self.scene.deployment.stack().nodes().get(node).context("no such node")?.http_addr();
        Ok(reqwest::get(format!("http://{address}/metrics")).await?.text().await?)
    }

    /// The longest that either picture stood still since the last look, ms.
    async fn stillness(&self) -> Result<f64> {
        let (hers, his) = tokio::try_join!(self.bob.stillness("ada"), self.ada.stillness("bob"))?;
        Ok(hers.max(his))
    }
}

/// Its sockets stay open; only its heartbeats are missed.
#[tokio::test(flavor = "multi_thread")]
async fn of_a_node_that_freezes() -> Result<()> {
    let call = Call::open(Mode::Single).await?;
    let since = [call.ada.mark().await?, call.bob.mark().await?];
    let serving = call.serving().await?;
    call.stillness().await?;
    call.signal(serving, Signal::SIGSTOP)?;
    call.data_gets_through("after").await?;
    call.goes_on().await?;
    println!("the pictures stood still for {:.0} ms", call.stillness().await?);
    // It wakes up with sessions that have gone on elsewhere.
    call.signal(serving, Signal::SIGCONT)?;
    let emptied = async {
        while sum_metric(&call.metrics(serving).await?, "meridian_node_sessions") > 0.0 {
            sleep(POLL).await;
        }
        anyhow::Ok(())
    };
    timeout(PATIENCE, emptied).await.context("it keeps its sessions")??;
    call.goes_on().await?;
    call.ada.heard_of_no_end(since[0]).await?;
    call.bob.heard_of_no_end(since[1]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn of_one_connection() -> Result<()> {
    let kills = std::env::var("MERIDIAN_KILLS").map_or(Ok(KILLS), |asked| asked.parse())?;
    let call = Call::open(Mode::Single).await?;
    call.data_gets_through("before").await?;
    let since = [call.ada.mark().await?, call.bob.mark().await?];
    let mut stills = Vec::new();
    for kill in 0..kills {
        let serving = call.serving().await?;
        call.stillness().await?;
        call.scene.deployment.stack().nodes().get_mut(serving).context("no such node")?.process.kill();
        call.data_gets_through(&format!("after {kill}")).await?;
        call.goes_on().await?;
        stills.push(call.stillness().await?);
        let deployment = call.scene.deployment.clone();
        let restart = move || deployment.stack().nodes().get_mut(serving).context("no such node")?.restart();
        tokio::task::spawn_blocking(restart).await??;
    }
    let survivor = call.serving().await?;
    let metrics = call.metrics(survivor).await?;
    ensure!(sum_metric(&metrics, "meridian_node_sessions_moved_here_total") >= 2.0, "{metrics}");
    call.ada.heard_of_no_end(since[0]).await?;
    call.bob.heard_of_no_end(since[1]).await?;
    for client in [&call.ada, &call.bob].into_iter().filter(|_| kills >= JUDGED) {
        let resumed = client.heard(0).await?.into_iter().find(|heard| heard.event.contains("econnect"));
        ensure!(resumed.is_none(), "{} heard {resumed:?}", client.identity());
    }
    stills.sort_by(f64::total_cmp);
    let worst = stills.last().copied().unwrap_or_default();
    let median = stills.get(stills.len() / 2).copied().unwrap_or_default();
    println!("{kills} kills: pictures stood still for {median:.0} ms (median), {worst:.0} ms (worst): {stills:.0?}");
    Ok(())
}
