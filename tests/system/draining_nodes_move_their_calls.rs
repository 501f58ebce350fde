//! A node that is to go hands its calls to others: nobody is cut off, whatever SDK they use, and the process ends when it is
//! empty. So a call outlives the upgrade of every node, and of the edge.

use anyhow::{Context, Result, ensure};
use meridian_tests::call::{Call, Sdk};
use meridian_tests::native_crowd::NativeCrowd;
use meridian_tests::scene::sum_metric;
use meridian_tests::sdk::Mode;
use meridian_tests::statistics::{median, quantile};
use nix::sys::signal::Signal;

/// Rooms of two on the native SDK, unless the environment says otherwise (`MERIDIAN_CROWD`).
const ROOMS: usize = 3;
const BROWSERS: [(&str, Sdk); 2] = [("ada", Sdk::Browser), ("bob", Sdk::Browser)];

#[tokio::test(flavor = "multi_thread")]
async fn and_browsers_with_one_connection_hear_nothing_of_it() -> Result<()> {
    drained_there_and_back(Mode::Single).await
}

#[tokio::test(flavor = "multi_thread")]
async fn and_browsers_with_two_connections_hear_nothing_of_it() -> Result<()> {
    drained_there_and_back(Mode::Dual).await
}

/// An operator drains its node, takes that back, and drains the other one.
async fn drained_there_and_back(mode: Mode) -> Result<()> {
    let call = Call::open(2, mode, &BROWSERS).await?;
    call.data_gets_through("before").await?;
    let since = call.marks().await?;
    for turn in 0..2 {
        let serving = call.serving().await?;
        let node = call.in_use().await?;
        call.stillness().await?;
        call.drain(&node, true).await?;
        call.is_left(serving).await?;
        call.goes_on().await?;
        println!("the pictures stood still for {:.0} ms", call.stillness().await?);
        call.data_gets_through(&format!("after {turn}")).await?;
        ensure!(call.serving().await? != serving);
        call.drain(&node, false).await?;
    }
    call.heard_of_no_end(&since).await?;
    call.nobody_resumed(&since).await
}

#[tokio::test(flavor = "multi_thread")]
async fn through_the_upgrade_of_all_nodes_and_of_the_edge() -> Result<()> {
    const NODES: usize = 3;
    let call = Call::open(NODES, Mode::Single, &BROWSERS).await?;
    let since = call.marks().await?;
    for node in 0..NODES {
        call.stillness().await?;
        call.signal(node, Signal::SIGTERM)?;
        call.ended(node).await?;
        call.goes_on().await?;
        println!("node {node}: the pictures stood still for {:.0} ms", call.stillness().await?);
        call.restart(node).await?;
    }
    call.nobody_resumed(&since).await?;
    call.restart_edge().await?;
    call.goes_on().await?;
    println!("edge: the pictures stood still for {:.0} ms", call.stillness().await?);
    call.data_gets_through("after").await?;
    call.heard_of_no_end(&since).await
}

/// Native clients resume, all of a room at once; nobody sees anybody leave. `MERIDIAN_CROWD=25` measures 50 sessions.
#[tokio::test(flavor = "multi_thread")]
async fn of_a_crowd_on_the_native_sdk() -> Result<()> {
    let rooms = std::env::var("MERIDIAN_CROWD").map_or(Ok(ROOMS), |asked| asked.parse())?;
    let call = Call::open(2, Mode::Single, &[]).await?;
    // All are to be on one node.
    let other = call.nodes().await?.first().context("no node")?.node.clone();
    call.drain(&other, true).await?;
    let crowd = NativeCrowd::join(call.scene.url(), rooms).await?;
    let serving = call.serving().await?;
    call.drain(&other, false).await?;
    crowd.mark().await?;
    call.signal(serving, Signal::SIGTERM)?;
    call.ended(serving).await?;
    let mut stills = crowd.stills().await?;
    let heard = crowd.heard().await?;
    ensure!(heard.is_empty(), "somebody heard {heard:?}");
    let metrics = call.metrics(call.serving().await?).await?;
    let moved = sum_metric(&metrics, "meridian_node_sessions_moved_here_total");
    ensure!(moved >= f64::from(u32::try_from(2 * rooms)?), "{moved} sessions moved: {metrics}");
    stills.sort_by(f64::total_cmp);
    let (p95, worst) = (quantile(&stills, 0.95), stills.last());
    println!(
        "{} sessions: pictures stood still for {:.0} ms (median), {p95:.0?} (95 %), {worst:.0?} (worst)",
        stills.len(),
        median(stills.clone()),
    );
    Ok(())
}
