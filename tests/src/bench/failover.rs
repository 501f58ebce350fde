//! What the death of its node costs a call: `kill -9` under four browsers, again and again, and how long each picture stands
//! still. Nobody may leave, and nothing may be published again.

use std::time::Duration;

use anyhow::{Context, Result};
use futures_util::future::try_join_all;
use serde::Serialize;
use serde_json::json;
use tokio::time::{sleep, timeout};
use xtask::node::Node;
use xtask::stack::Stack;

use crate::browser::Browser;
use crate::call::{comes_about, goes_on, stills};
use crate::scene::sum_metric;
use crate::sdk::{Mode, PATIENCE, SdkClient};
use crate::statistics::quantile;

/// One that serves, one to go to, one that starts again.
pub const NODES: usize = 3;
/// Who is in the call: a browser each, for the pages of one share its fake camera.
const PEOPLE: [&str; 4] = ["ada", "bob", "eve", "dan"];
/// How often the node is killed in each mode.
const KILLS: usize = 20;
/// Between two kills, and before the first: what pictures do while nothing breaks.
const CALM: Duration = Duration::from_secs(2);
/// Between two looks at a node.
const POLL: Duration = Duration::from_millis(50);
/// Gain of what is heard.
const GAIN: f64 = 0.1;

/// A mode. Times are of each picture of each other participant that somebody sees, ms.
#[derive(Debug, Serialize)]
pub struct Row {
    /// `one connection`, `two connections`.
    step: &'static str,
    kills: usize,
    /// Pictures that stood still.
    pictures: usize,
    /// The longest that one stood still while nothing broke, half of them less.
    usual_p50_ms: f64,
    /// The same after a kill: from the last frame of the dead node to the first of another.
    still_p50_ms: f64,
    /// Of 95 in 100 less.
    still_p95_ms: f64,
    /// The longest of all.
    still_worst_ms: f64,
    /// Who came back on a new socket.
    resumed: usize,
}

/// Measures both modes and prints them.
///
/// # Errors
/// There is no Chromium, the call does not come about, or somebody hears of an end.
pub async fn measure(stack: &mut Stack) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (mode, step) in [(Mode::Single, "one connection"), (Mode::Dual, "two connections")] {
        let row = of_mode(stack, mode, step).await?;
        println!("{row:?}");
        rows.push(row);
    }
    Ok(rows)
}

async fn of_mode(stack: &mut Stack, mode: Mode, step: &'static str) -> Result<Row> {
    let (url, room) = (stack.url(), format!("failover {step}"));
    let (mut clients, mut browsers) = (Vec::new(), Vec::new());
    for name in PEOPLE {
        let browser = Browser::launch().await?;
        let client = browser.client(name).await?;
        client.join_room(&url, &room, mode).await?;
        // Small, for all of them encode and decode beside edge and nodes.
        client.publish_small_camera().await?;
        client.publish_tone(GAIN, json!({})).await?;
        clients.push(client);
        browsers.push(browser);
    }
    comes_about(&clients).await?;
    let since = try_join_all(clients.iter().map(SdkClient::mark)).await?;
    let (mut usual, mut stood) = (Vec::new(), Vec::new());
    for _ in 0..KILLS {
        let serving = serving(stack).await?;
        stills(&clients).await?;
        sleep(CALM).await;
        usual.extend(stills(&clients).await?);
        stack.nodes().get_mut(serving).context("no such node")?.process.kill();
        goes_on(&clients).await?;
        stood.extend(stills(&clients).await?);
        let node = stack.nodes().get_mut(serving).context("no such node")?;
        node.restart()?;
        node.wait_until_ready()?;
    }
    let mut resumed = 0;
    for (client, since) in clients.iter().zip(since) {
        client.heard_of_no_end(since).await?;
        let heard = client.heard(since).await?;
        resumed += heard.iter().filter(|heard| heard.event == "signalReconnecting").count();
        client.leave().await?;
    }
    usual.sort_by(f64::total_cmp);
    stood.sort_by(f64::total_cmp);
    let of = |sorted: &[f64], share| quantile(sorted, share).unwrap_or(f64::NAN);
    Ok(Row {
        step,
        kills: KILLS,
        pictures: stood.len(),
        usual_p50_ms: of(&usual, 0.5),
        still_p50_ms: of(&stood, 0.5),
        still_p95_ms: of(&stood, 0.95),
        still_worst_ms: of(&stood, 1.0),
        resumed,
    })
}

/// The node that has all of the call; waits until one says so.
async fn serving(stack: &mut Stack) -> Result<usize> {
    let all = f64::from(u32::try_from(PEOPLE.len())?);
    let addresses: Vec<_> = stack.nodes().iter().map(Node::http_addr).collect();
    let found = async {
        loop {
            for (place, address) in addresses.iter().enumerate() {
                let metrics = reqwest::get(format!("http://{address}/metrics")).await?.text().await?;
                if sum_metric(&metrics, "meridian_node_sessions") >= all {
                    return anyhow::Ok(place);
                }
            }
            sleep(POLL).await;
        }
    };
    timeout(PATIENCE, found).await.context("no node has the call")?
}
