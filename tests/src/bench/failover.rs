//! What the loss of its node costs a call of four browsers: it is killed, freezes, or its host falls silent, again and again;
//! how long each picture stands still. Nobody may leave, and nothing may be published again.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use futures_util::future::try_join_all;
use nix::sys::signal::Signal;
use serde::Serialize;
use serde_json::json;
use tokio::time::{sleep, timeout};
use xtask::node::Node;
use xtask::stack::Stack;

use crate::browser::Browser;
use crate::call::{comes_about, goes_on, stills};
use crate::scene::{host, signal_node, sum_metric};
use crate::sdk::{Mode, PATIENCE, SdkClient};
use crate::statistics::quantile;

/// One that serves, one to go to, one that starts again.
pub const NODES: u8 = 3;
/// Who is in the call: a browser each, for the pages of one share its fake camera.
const PEOPLE: [&str; 4] = ["ada", "bob", "eve", "dan"];
/// How often the node is lost in each way and mode.
const TIMES: usize = 20;
/// Between two losses, and before the first: what pictures do while nothing breaks.
pub(super) const CALM: Duration = Duration::from_secs(2);
/// Between two looks at a node.
pub(super) const POLL: Duration = Duration::from_millis(50);
/// Gain of what is heard.
const GAIN: f64 = 0.1;

/// How a node is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum End {
    /// `kill -9`: its sockets are closed.
    Killed,
    /// SIGSTOP: they stay open, and nothing comes of them.
    Frozen,
    /// Its host's link is cut: what is sent to it vanishes.
    Silent,
}

/// A way and a mode. Times are of each picture of each other participant that somebody sees, ms.
#[derive(Debug, Serialize)]
pub struct Row {
    /// `one connection`, `two connections`.
    step: &'static str,
    end: End,
    times: usize,
    /// Pictures that stood still.
    pictures: usize,
    /// The longest that one stood still while nothing broke, half of them less.
    usual_p50_ms: f64,
    /// The same when the node was lost: from its last frame to the first of another.
    still_p50_ms: f64,
    /// Of 95 in 100 less.
    still_p95_ms: f64,
    /// The longest of all.
    still_worst_ms: f64,
    /// Who came back on a new socket.
    resumed: usize,
}

impl End {
    fn come(self, stack: &mut Stack, place: usize) -> Result<()> {
        match self {
            Self::Killed => {
                stack.nodes().get_mut(place).context("no such node")?.process.kill();
                Ok(())
            }
            Self::Frozen => signal_node(stack, place, Signal::SIGSTOP),
            Self::Silent => host(stack, place)?.cut(),
        }
    }

    /// The node is there again, and knows that it has no session.
    async fn undo(self, stack: &mut Stack, place: usize) -> Result<()> {
        match self {
            Self::Killed => stack.nodes().get_mut(place).context("no such node")?.restart()?,
            Self::Frozen => signal_node(stack, place, Signal::SIGCONT)?,
            Self::Silent => host(stack, place)?.join()?,
        }
        let node = stack.nodes().get_mut(place).context("no such node")?;
        node.wait_until_ready()?;
        let address = node.http_addr();
        let left = async {
            while sessions(address).await? > 0.0 {
                sleep(POLL).await;
            }
            anyhow::Ok(())
        };
        timeout(PATIENCE, left).await.context("it keeps its sessions")?
    }
}

pub(super) async fn sessions(node: SocketAddr) -> Result<f64> {
    let metrics = reqwest::get(format!("http://{node}/metrics")).await?.text().await?;
    Ok(sum_metric(&metrics, "meridian_node_sessions"))
}

/// Measures every way in both modes and prints them.
///
/// # Errors
/// There is no Chromium, the call does not come about, or somebody hears of an end.
pub async fn measure(stack: &mut Stack) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (mode, step) in [(Mode::Single, "one connection"), (Mode::Dual, "two connections")] {
        for end in [End::Killed, End::Frozen, End::Silent] {
            let row = of(stack, end, mode, step).await?;
            println!("{row:?}");
            rows.push(row);
        }
    }
    Ok(rows)
}

async fn of(stack: &mut Stack, end: End, mode: Mode, step: &'static str) -> Result<Row> {
    let (url, room) = (stack.url(), format!("failover {end:?} {step}"));
    let (clients, _browsers) = call(&url, &room, mode).await?;
    let since = try_join_all(clients.iter().map(SdkClient::mark)).await?;
    let (mut usual, mut stood) = (Vec::new(), Vec::new());
    for time in 0..TIMES {
        let serving = serving(stack, clients.len()).await?;
        stills(&clients).await?;
        sleep(CALM).await;
        usual.extend(stills(&clients).await?);
        end.come(stack, serving)?;
        goes_on(&clients).await?;
        let stills = stills(&clients).await?;
        println!("{end:?} {time}: the longest still {:.0} ms", stills.iter().copied().fold(0.0, f64::max));
        stood.extend(stills);
        end.undo(stack, serving).await?;
    }
    let mut resumed = 0;
    for (client, since) in clients.iter().zip(since) {
        client.heard_of_no_end(since).await?;
        let heard = client.heard(since).await?;
        resumed += heard.iter().filter(|heard| heard.event == "signalReconnecting").count();
    }
    try_join_all(clients.iter().map(SdkClient::leave)).await?;
    usual.sort_by(f64::total_cmp);
    stood.sort_by(f64::total_cmp);
    let share_of = |sorted: &[f64], share| quantile(sorted, share).unwrap_or(f64::NAN);
    Ok(Row {
        step,
        end,
        times: TIMES,
        pictures: stood.len(),
        usual_p50_ms: share_of(&usual, 0.5),
        still_p50_ms: share_of(&stood, 0.5),
        still_p95_ms: share_of(&stood, 0.95),
        still_worst_ms: share_of(&stood, 1.0),
        resumed,
    })
}

/// Four see and hear each other. Their browsers end with them.
pub(super) async fn call(url: &str, room: &str, mode: Mode) -> Result<(Vec<SdkClient>, Vec<Browser>)> {
    let (mut clients, mut browsers) = (Vec::new(), Vec::new());
    for name in PEOPLE {
        let browser = Browser::launch().await?;
        let client = browser.client(name).await?;
        client.join_room(url, room, mode).await?;
        // Small, for all of them encode and decode beside edge and nodes.
        client.publish_small_camera().await?;
        client.publish_tone(GAIN, json!({})).await?;
        clients.push(client);
        browsers.push(browser);
    }
    comes_about(&clients).await?;
    Ok((clients, browsers))
}

/// The node that has all of so many people, by its place; waits until one says so.
pub(super) async fn serving(stack: &mut Stack, people: usize) -> Result<usize> {
    let all = f64::from(u32::try_from(people)?);
    let addresses: Vec<_> = stack.nodes().iter().map(Node::http_addr).collect();
    let found = async {
        loop {
            for (place, address) in addresses.iter().enumerate() {
                if sessions(*address).await? >= all {
                    return anyhow::Ok(place);
                }
            }
            sleep(POLL).await;
        }
    };
    timeout(PATIENCE, found).await.context("no node has the call")?
}

/// Waits until no node has anybody.
pub(super) async fn are_empty(stack: &mut Stack) -> Result<()> {
    let addresses: Vec<_> = stack.nodes().iter().map(Node::http_addr).collect();
    let ended = async {
        for address in addresses {
            while sessions(address).await? > 0.0 {
                sleep(POLL).await;
            }
        }
        anyhow::Ok(())
    };
    timeout(PATIENCE, ended).await.context("somebody is still there")?
}
