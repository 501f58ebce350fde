//! What a drain costs calls: the node under them is told to end (SIGTERM), again and again; how long each picture stands still,
//! and when the process has ended. Nobody may leave, and nothing may be published again.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use nix::sys::signal::Signal;
use serde::Serialize;
use tokio::time::{sleep, timeout};
use xtask::stack::Stack;

use super::failover::{CALM, POLL, are_empty, call, serving};
use crate::browser::Browser;
use crate::call::{goes_on, stills};
use crate::native_crowd::NativeCrowd;
use crate::scene::signal_node;
use crate::sdk::{Mode, SdkClient};
use crate::statistics::quantile;

/// One that serves, one to go to.
pub const NODES: usize = 2;
/// Gives calls far more time to leave a node than they take.
pub const DRAIN: [&str; 2] = crate::call::PATIENT_DRAIN;
/// Rooms of two on the native SDK: 50 sessions.
const ROOMS: usize = 25;
/// How often a node is drained under each.
const TIMES: usize = 10;
/// By when the process of a node that drains has ended.
const ENDS: Duration = Duration::from_secs(60);

/// Who is in calls. Times are of each picture of each other participant that somebody sees, ms.
#[derive(Debug, Serialize)]
pub struct Row {
    /// Rooms and SDK.
    step: &'static str,
    sessions: usize,
    times: usize,
    /// Pictures that stood still.
    pictures: usize,
    /// The longest that one stood still while nothing was drained, half of them less.
    usual_p50_ms: f64,
    /// Of 95 in 100 less.
    usual_p95_ms: f64,
    /// The same during the drain.
    still_p50_ms: f64,
    /// Of 95 in 100 less.
    still_p95_ms: f64,
    /// The longest of all.
    still_worst_ms: f64,
    /// Who came back on a new socket, of all times.
    resumed: usize,
    /// From SIGTERM until the process had ended, the longest.
    ended_worst_ms: f64,
}

/// Who is in calls.
enum People {
    Natives(Box<NativeCrowd>),
    Browsers { clients: Vec<SdkClient>, since: Vec<usize>, _browsers: Vec<Browser> },
}

impl People {
    fn count(&self) -> usize {
        match self {
            Self::Natives(_) => 2 * ROOMS,
            Self::Browsers { clients, .. } => clients.len(),
        }
    }

    /// Waits until everyone sees more of everyone; how long each picture stood still since the last time, ms.
    ///
    /// # Errors
    /// Something ended for somebody since then, or came again.
    async fn stills(&self) -> Result<Vec<f64>> {
        match self {
            Self::Natives(crowd) => {
                let stills = crowd.stills().await?;
                let heard = crowd.heard().await?;
                ensure!(heard.is_empty(), "somebody heard {heard:?}");
                crowd.mark().await?;
                Ok(stills)
            }
            Self::Browsers { clients, since, .. } => {
                goes_on(clients).await?;
                for (client, since) in clients.iter().zip(since) {
                    client.heard_of_no_end(*since).await?;
                }
                stills(clients).await
            }
        }
    }

    /// How often anybody came back on a new socket.
    async fn resumed(&self) -> Result<usize> {
        match self {
            Self::Natives(crowd) => crowd.resumed().await,
            Self::Browsers { clients, since, .. } => {
                let mut resumed = 0;
                for (client, since) in clients.iter().zip(since) {
                    let heard = client.heard(*since).await?;
                    resumed += heard.iter().filter(|heard| heard.event == "signalReconnecting").count();
                }
                Ok(resumed)
            }
        }
    }
}

/// Measures both and prints them.
///
/// # Errors
/// Somebody does not get in or hears of an end, or a process does not end.
pub async fn measure(stack: &mut Stack) -> Result<Vec<Row>> {
    // Rooms would be spread over both nodes: the other one comes when all are there.
    let other = NODES - 1;
    signal_node(stack, other, Signal::SIGTERM)?;
    has_ended(stack, other).await?;
    let crowd = NativeCrowd::join(&stack.url(), ROOMS).await?;
    start_again(stack, other)?;
    crowd.mark().await?;
    let natives = of(stack, People::Natives(Box::new(crowd)), "25 rooms of 2, native SDK").await?;
    // Their sessions outlive them for a while.
    are_empty(stack).await?;
    let (clients, browsers) = call(&stack.url(), "drained", Mode::Single).await?;
    let since = try_join_all(clients.iter().map(SdkClient::mark)).await?;
    let browsers = People::Browsers { clients, since, _browsers: browsers };
    Ok(vec![natives, of(stack, browsers, "1 room of 4, Chromium").await?])
}

async fn of(stack: &mut Stack, people: People, step: &'static str) -> Result<Row> {
    let (mut usual, mut stood, mut ended) = (Vec::new(), Vec::new(), Vec::new());
    for time in 0..TIMES {
        let serving = serving(stack, people.count()).await?;
        people.stills().await?;
        sleep(CALM).await;
        usual.extend(people.stills().await?);
        let told = Instant::now();
        signal_node(stack, serving, Signal::SIGTERM)?;
        has_ended(stack, serving).await?;
        ended.push(told.elapsed().as_secs_f64() * 1000.0);
        let stills = people.stills().await?;
        println!("drain {time}: the longest still {:.0} ms", stills.iter().copied().fold(0.0, f64::max));
        stood.extend(stills);
        start_again(stack, serving)?;
    }
    let resumed = people.resumed().await?;
    for values in [&mut usual, &mut stood, &mut ended] {
        values.sort_by(f64::total_cmp);
    }
    let share_of = |sorted: &[f64], share| quantile(sorted, share).unwrap_or(f64::NAN);
    let row = Row {
        step,
        sessions: people.count(),
        times: TIMES,
        pictures: stood.len(),
        usual_p50_ms: share_of(&usual, 0.5),
        usual_p95_ms: share_of(&usual, 0.95),
        still_p50_ms: share_of(&stood, 0.5),
        still_p95_ms: share_of(&stood, 0.95),
        still_worst_ms: share_of(&stood, 1.0),
        resumed,
        ended_worst_ms: share_of(&ended, 1.0),
    };
    println!("{row:?}");
    Ok(row)
}

fn start_again(stack: &mut Stack, place: usize) -> Result<()> {
    let node = stack.nodes().get_mut(place).context("no such node")?;
    node.restart()?;
    node.wait_until_ready()
}

/// Waits until a node's process has ended by itself, as one does that is empty.
async fn has_ended(stack: &mut Stack, place: usize) -> Result<()> {
    let ended = async {
        loop {
            match stack.nodes().get_mut(place).context("no such node")?.process.exited()? {
                Some(status) => {
                    ensure!(status.success(), "it ended with {status}");
                    return Ok(());
                }
                None => sleep(POLL).await,
            }
        }
    };
    timeout(ENDS, ended).await.context("it does not end")?
}
