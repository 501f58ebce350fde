//! A call lives through the upgrade of every node and of the edge from another version to this one's, in either order: nobody
//! hears of an end, and browsers do not even resume while nodes are upgraded.

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use nix::sys::signal::Signal;
use serde_json::json;
use xtask::stack::{Build, Profile};

use crate::call::{Call, Sdk};
use crate::scene::sum_metric;
use crate::sdk::{Mode, PATIENCE};

/// Nodes of the fleet.
const NODES: usize = 3;
/// Who is in the call, browsers first.
const PEOPLE: [(&str, Sdk); 3] = [("ada", Sdk::Browser), ("bob", Sdk::Browser), ("cyd", Sdk::Native)];

/// What is upgraded first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum First {
    Nodes,
    Edge,
}

/// Upgrades both ways with one connection and two, and says what each step cost.
///
/// # Errors
/// Something ended for somebody, or does not start.
pub async fn run(before: &Build) -> Result<()> {
    let after = tokio::task::spawn_blocking(|| Build::make(Profile::Dev)).await??;
    for first in [First::Nodes, First::Edge] {
        for mode in [Mode::Single, Mode::Dual] {
            let upgraded = upgraded(before.clone(), &after, first, mode).await;
            upgraded.with_context(|| format!("{first:?} first, {mode:?}"))?;
        }
    }
    Ok(())
}

async fn upgraded(before: Build, after: &Build, first: First, mode: Mode) -> Result<()> {
    println!(
        "{first:?} first; clients with {}",
        if mode == Mode::Single { "one connection" } else { "two connections" }
    );
    let call = Call::open_of(before, NODES, mode, &PEOPLE).await?;
    call.data_gets_through("before").await?;
    let since = call.marks().await?;
    call.scene.deployment.stack().becomes(after);
    match first {
        First::Nodes => {
            nodes(&call).await?;
            edge(&call).await?;
        }
        First::Edge => {
            edge(&call).await?;
            nodes(&call).await?;
        }
    }
    call.data_gets_through("after").await?;
    call.heard_of_no_end(&since).await
}

async fn nodes(call: &Call) -> Result<()> {
    let since = call.marks().await?;
    for node in 0..NODES {
        call.stillness().await?;
        call.signal(node, Signal::SIGTERM)?;
        call.ended(node).await?;
        call.goes_on().await?;
        println!("  node {node}: the pictures stood still for {:.0} ms", call.stillness().await?);
        call.restart(node).await?;
    }
    // A node that nobody was moved to would have shown little.
    let metrics = call.metrics(call.serving().await?).await?;
    ensure!(sum_metric(&metrics, "meridian_node_sessions_moved_here_total") >= 1.0, "nobody was moved: {metrics}");
    let browsers = PEOPLE.iter().filter(|(_, sdk)| *sdk == Sdk::Browser).count();
    call.nobody_resumed(since.get(..browsers).unwrap_or_default()).await
}

async fn edge(call: &Call) -> Result<()> {
    call.stillness().await?;
    let since = call.marks().await?;
    call.restart_edge().await?;
    // Every WebSocket broke.
    let are_back = call
        .clients
        .iter()
        .zip(since)
        .map(|(client, since)| client.hears_within(json!({ "event": "reconnected" }), since, PATIENCE));
    try_join_all(are_back).await?;
    call.goes_on().await?;
    println!("  edge: the pictures stood still for {:.0} ms", call.stillness().await?);
    Ok(())
}
