//! The node under a call is killed, again and again: everybody has media again on another node, on the same connection,
//! with the same tracks, and no app hears of it. `MERIDIAN_KILLS=20` measures how long the pictures stand still.

use anyhow::{Context, Result, ensure};
use meridian_tests::call::{Call, Sdk};
use meridian_tests::native_crowd::NativeCrowd;
use meridian_tests::scene::sum_metric;
use meridian_tests::sdk::Mode;
use nix::sys::signal::Signal;

/// How often the node is killed, unless the environment says otherwise.
const KILLS: usize = 3;
/// From so many kills on, on a machine that does nothing else, nobody may have to resume either: a client that is not
/// connected in 2 s is made to.
const JUDGED: usize = 10;
/// One that serves, one to go to, one that starts again.
const NODES: usize = 3;
const BROWSERS: [(&str, Sdk); 2] = [("ada", Sdk::Browser), ("bob", Sdk::Browser)];

/// Its sockets stay open; only its heartbeats are missed.
#[tokio::test(flavor = "multi_thread")]
async fn of_a_node_that_freezes() -> Result<()> {
    let call = Call::open(NODES, Mode::Single, &BROWSERS).await?;
    let since = call.marks().await?;
    let serving = call.serving().await?;
    call.stillness().await?;
    call.signal(serving, Signal::SIGSTOP)?;
    call.data_gets_through("after").await?;
    call.goes_on().await?;
    println!("the pictures stood still for {:.0} ms", call.stillness().await?);
    // It wakes up with sessions that have gone on elsewhere.
    call.signal(serving, Signal::SIGCONT)?;
    call.is_left(serving).await?;
    call.goes_on().await?;
    call.heard_of_no_end(&since).await
}

#[tokio::test(flavor = "multi_thread")]
async fn of_one_connection() -> Result<()> {
    killed_again_and_again(Mode::Single).await
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_connections() -> Result<()> {
    killed_again_and_again(Mode::Dual).await
}

/// They resume; nobody sees anybody leave.
#[tokio::test(flavor = "multi_thread")]
async fn of_native_clients() -> Result<()> {
    const ROOMS: usize = 2;
    let call = Call::open(2, Mode::Single, &[]).await?;
    let crowd = NativeCrowd::join(call.scene.url(), ROOMS).await?;
    crowd.mark().await?;
    let serving = call.serving().await?;
    call.scene.deployment.stack().nodes().get_mut(serving).context("no such node")?.process.kill();
    // Before that, frames that came of the dead node may still be decoded.
    let served = call.served_elsewhere(serving).await?;
    let stills = crowd.stills().await?;
    let heard = crowd.heard().await?;
    ensure!(heard.is_empty(), "somebody heard {heard:?}");
    let metrics = call.metrics(served).await?;
    ensure!(sum_metric(&metrics, "meridian_node_sessions_moved_here_total") >= 2.0, "{metrics}");
    println!("the pictures stood still for {stills:.0?} ms");
    Ok(())
}

async fn killed_again_and_again(mode: Mode) -> Result<()> {
    let kills = std::env::var("MERIDIAN_KILLS").map_or(Ok(KILLS), |asked| asked.parse())?;
    let call = Call::open(NODES, mode, &BROWSERS).await?;
    call.data_gets_through("before").await?;
    let since = call.marks().await?;
    let mut stills = Vec::new();
    for kill in 0..kills {
        let serving = call.serving().await?;
        call.stillness().await?;
        call.scene.deployment.stack().nodes().get_mut(serving).context("no such node")?.process.kill();
        call.data_gets_through(&format!("after {kill}")).await?;
        call.goes_on().await?;
        stills.push(call.stillness().await?);
        call.restart(serving).await?;
    }
    let metrics = call.metrics(call.serving().await?).await?;
    ensure!(sum_metric(&metrics, "meridian_node_sessions_moved_here_total") >= 2.0, "{metrics}");
    call.heard_of_no_end(&since).await?;
    if kills >= JUDGED {
        call.nobody_resumed(&since).await?;
    }
    stills.sort_by(f64::total_cmp);
    let worst = stills.last().copied().unwrap_or_default();
    let median = stills.get(stills.len() / 2).copied().unwrap_or_default();
    println!("{kills} kills: pictures stood still for {median:.0} ms (median), {worst:.0} ms (worst): {stills:.0?}");
    Ok(())
}
