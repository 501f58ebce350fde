//! How many joins a server takes, and how long each takes until media flows.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Serialize;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::crowd::Measured;
use super::publisher::{Place, Publishers};
use super::scenario::Tracks;
use super::servers::Servers;
use crate::client::{DEADLINE, MediaOptions, PacketSink, unix_nanos};
use crate::machine::{Busy, cpu_nanos};
use crate::statistics::{median, quantile};

/// Joins on their way at a time, one step each.
const AT_A_TIME: [u32; 2] = [1, 8];

/// One window.
#[derive(Debug, Serialize)]
pub struct Run {
    /// Its length, until the last who began in it had left.
    pub seconds: f64,
    /// Joins, each with its leave.
    pub joins: usize,
    /// Connect to first media packet.
    pub p50_ms: f64,
    /// See [`Run::p50_ms`].
    pub p95_ms: f64,
    /// CPU time of the server a join and leave.
    pub server_cpu_ms: f64,
    /// Use of the load client's CPU.
    pub load_percent: f64,
}

/// One server with so many joins at a time; medians.
#[derive(Debug, Serialize)]
pub struct Row {
    /// Which.
    pub server: &'static str,
    /// Joins on their way at a time.
    pub at_a_time: u32,
    /// Each with its leave.
    pub joins_per_second: f64,
    /// Connect to first media packet.
    pub p50_ms: f64,
    /// See [`Row::p50_ms`].
    pub p95_ms: f64,
    /// CPU time of the server a join and leave.
    pub server_cpu_ms: f64,
    /// Use of the load client's CPU.
    pub load_percent: f64,
    /// What the medians are of.
    pub runs: Vec<Run>,
}

/// Measures every server and prints it as it comes.
///
/// # Errors
/// A server does not start, or a join fails.
pub async fn measure(servers: &mut Servers<'_>, runs: u32, window: Duration, media: &MediaOptions) -> Result<Vec<Row>> {
    println!("   server at a time  joins/s   p50 ms   p95 ms  CPU ms/join  load CPU");
    let all = servers.all();
    let mut rows = Vec::new();
    for at_a_time in AT_A_TIME {
        let mut each: Vec<Vec<Run>> = all.iter().map(|_| Vec::new()).collect();
        for _ in 0..runs {
            for (server, done) in all.iter().zip(&mut each) {
                let fresh = servers.fresh(server)?;
                let ran = run(&fresh.measured, at_a_time, window, media).await;
                done.push(ran.with_context(|| format!("{}:\n{}", server.name(), fresh.last_lines()))?);
                fresh.stop();
            }
        }
        for (server, runs) in all.iter().zip(each) {
            let row = Row::of(server.name(), at_a_time, runs);
            println!(
                "{:>9} {:>9} {:>8.1} {:>8.1} {:>8.1} {:>12.2} {:>8.1}%",
                row.server,
                row.at_a_time,
                row.joins_per_second,
                row.p50_ms,
                row.p95_ms,
                row.server_cpu_ms,
                row.load_percent
            );
            rows.push(row);
        }
    }
    Ok(rows)
}

impl Row {
    fn of(server: &'static str, at_a_time: u32, runs: Vec<Run>) -> Self {
        let of = |value: fn(&Run) -> f64| median(runs.iter().map(value).collect());
        Self {
            server,
            at_a_time,
            joins_per_second: of(|r| count(r.joins) / r.seconds),
            p50_ms: of(|r| r.p50_ms),
            p95_ms: of(|r| r.p95_ms),
            server_cpu_ms: of(|r| r.server_cpu_ms),
            load_percent: of(|r| r.load_percent),
            runs,
        }
    }
}

/// Subscribers come to a publisher's room, wait for media, leave, and come again, until the window is over.
async fn run(server: &Measured, at_a_time: u32, window: Duration, media: &MediaOptions) -> Result<Run> {
    let room = unix_nanos() / 1000;
    server.door.make_room(room).await?;
    let place = Place { room, id: 1, tracks: Tracks::CameraAndMicrophone };
    let publishers = Publishers::start(&server.door, vec![place], media.clone()).await?;
    let ids = Arc::new(AtomicU64::new(2));
    let mut coming = JoinSet::new();
    let (cpu, load) = (cpu_nanos(server.pid)?, Busy::watch(server.load_cpu)?);
    let begun = Instant::now();
    for _ in 0..at_a_time {
        let (server, media, ids) = (server.clone(), media.clone(), Arc::clone(&ids));
        coming.spawn(async move {
            let mut took = Vec::new();
            while begun.elapsed() < window {
                took.push(join_and_leave(&server, room, ids.fetch_add(1, Ordering::Relaxed), &media).await?);
            }
            anyhow::Ok(took)
        });
    }
    let mut took = Vec::new();
    while let Some(came) = coming.join_next().await {
        took.extend(came??);
    }
    let seconds = begun.elapsed().as_secs_f64();
    let (cpu, load_percent) = (cpu_nanos(server.pid)?.saturating_sub(cpu), load.percent()?);
    publishers.leave().await?;
    took.sort_unstable();
    let ms = |share| quantile(&took, share).map_or(f64::NAN, |took: Duration| took.as_secs_f64() * 1e3);
    let server_cpu_ms = Duration::from_nanos(cpu).as_secs_f64() * 1e3 / count(took.len());
    Ok(Run { seconds, joins: took.len(), p50_ms: ms(0.5), p95_ms: ms(0.95), server_cpu_ms, load_percent })
}

/// How long it took until the first media packet.
async fn join_and_leave(server: &Measured, room: u64, id: u64, media: &MediaOptions) -> Result<Duration> {
    let (first, came) = oneshot::channel();
    let begun = Instant::now();
    let client = server.door.subscribe(room, id, &[1], media, Box::new(First(Some(first)))).await?;
    let at = timeout(DEADLINE, came).await.context("no media")?.context("the client ended")?;
    client.leave().await?;
    Ok(at.duration_since(begun))
}

/// Says when the first packet came.
struct First(Option<oneshot::Sender<Instant>>);

impl PacketSink for First {
    fn packet(&mut self, _payload: &[u8], _received: Option<u64>) {
        if let Some(first) = self.0.take() {
            // Who waited may have given up.
            let _ = first.send(Instant::now());
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
fn count(value: usize) -> f64 {
    value as f64
}
