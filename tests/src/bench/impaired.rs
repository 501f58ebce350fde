//! What a Chromium viewer sees of another's camera on a path that loses, delays, and becomes narrow and wide again.

use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;
use tokio::time::{Instant, sleep};
use xtask::stack::Stack;

use crate::browser::Browser;
use crate::relay::Relay;
use crate::sdk::{Mode, SdkClient, TrackStats};

/// The room.
const ROOM: &str = "impaired";
/// Between two looks at the viewer's statistics.
const POLL: Duration = Duration::from_millis(250);
/// Lines of the camera's upper layer.
const FULL_HEIGHT: u32 = 720;
/// How long the picture may take to get there before anything is measured.
const PATIENCE: Duration = Duration::from_secs(60);

/// The path for a while.
struct Path {
    name: &'static str,
    loss: f64,
    delay: Duration,
    /// Bits per second.
    rate: Option<u64>,
    length: Duration,
}

/// What the viewer saw meanwhile.
#[derive(Debug, Serialize)]
pub struct Row {
    /// Of the path.
    pub path: &'static str,
    /// How long.
    pub seconds: f64,
    /// Frames decoded.
    pub frames: u64,
    /// The same a second.
    pub frames_per_second: f64,
    /// As the browser counts them.
    pub freezes: u64,
    /// How long they took together.
    pub frozen_seconds: f64,
    /// Video and audio, payload.
    pub received_kbps: f64,
    /// The same of a path that is limited.
    pub utilisation_percent: Option<f64>,
    /// Of the picture at the end.
    pub height: u32,
    /// After this time the picture's height changed no more.
    pub adapt_seconds: f64,
}

/// Everything, one after the other, in one call.
fn paths() -> Vec<Path> {
    let (short, long) = (Duration::from_secs(20), Duration::from_secs(30));
    let path = |name, loss, delay, rate, length| Path { name, loss, delay: Duration::from_millis(delay), rate, length };
    vec![
        path("clean", 0.0, 0, None, short),
        path("1 % loss", 0.01, 0, None, short),
        path("5 % loss", 0.05, 0, None, short),
        path("10 % loss", 0.1, 0, None, short),
        path("20 ms", 0.0, 20, None, short),
        path("100 ms", 0.0, 100, None, short),
        path("200 ms", 0.0, 200, None, short),
        path("3 Mb/s", 0.0, 20, Some(3_000_000), long),
        path("then 0.5 Mb/s", 0.0, 20, Some(500_000), long),
        path("then 3 Mb/s", 0.0, 20, Some(3_000_000), long),
        path("cliff: 0.2 Mb/s", 0.0, 20, Some(200_000), long),
        path("clean again", 0.0, 0, None, long),
    ]
}

/// Lets two browsers' pages meet behind a relay and takes the path through its states; prints as it goes.
///
/// # Errors
/// There is no Chromium, or the call does not come about.
pub async fn measure(stack: &mut Stack) -> Result<Vec<Row>> {
    let url = stack.url();
    let relay = Relay::start(stack.nodes().first().context("there is no node")?.udp_addr()).await?;
    let browser = Browser::launch().await?;
    let (publisher, viewer) = (browser.client("publisher").await?, browser.client("viewer").await?);
    for client in [&publisher, &viewer] {
        client.join_room(&url, ROOM, Mode::Single).await?;
    }
    publisher.publish().await?;
    viewer.sees_height("publisher", FULL_HEIGHT, PATIENCE).await?;
    println!(
        "{:>16} {:>8} {:>8} {:>8} {:>8} {:>8} {:>7} {:>8}",
        "path", "frames/s", "freezes", "frozen s", "kb/s", "of path", "height", "adapt s"
    );
    let mut rows = Vec::new();
    for path in paths() {
        relay.lose(path.loss);
        relay.delay(path.delay);
        relay.limit(path.rate);
        let row = watch(&viewer, &path).await?;
        println!(
            "{:>16} {:>8.1} {:>8} {:>8.2} {:>8.0} {:>8} {:>7} {:>8.1}",
            row.path,
            row.frames_per_second,
            row.freezes,
            row.frozen_seconds,
            row.received_kbps,
            row.utilisation_percent.map_or_else(|| "-".to_owned(), |share| format!("{share:.0}%")),
            row.height,
            row.adapt_seconds,
        );
        rows.push(row);
    }
    Ok(rows)
}

/// Looks at the viewer until the path's time is over.
async fn watch(viewer: &SdkClient, path: &Path) -> Result<Row> {
    let begun = Instant::now();
    let (before, bytes_before) = look(viewer).await?;
    let (mut height, mut adapted) = (before.frame_height, Duration::ZERO);
    loop {
        sleep(POLL).await;
        let (now, bytes) = look(viewer).await?;
        let elapsed = begun.elapsed();
        if now.frame_height != height {
            (height, adapted) = (now.frame_height, elapsed);
        }
        if elapsed < path.length {
            continue;
        }
        let seconds = elapsed.as_secs_f64();
        let received = count(bytes.saturating_sub(bytes_before)) * 8.0 / seconds;
        let frames = now.frames_decoded.saturating_sub(before.frames_decoded);
        return Ok(Row {
            path: path.name,
            seconds,
            frames,
            frames_per_second: count(frames) / seconds,
            freezes: now.freeze_count.saturating_sub(before.freeze_count),
            frozen_seconds: now.total_freezes_duration - before.total_freezes_duration,
            received_kbps: received / 1000.0,
            utilisation_percent: path.rate.map(|rate| 100.0 * received / count(rate)),
            height,
            adapt_seconds: adapted.as_secs_f64(),
        });
    }
}

/// The publisher's video at the viewer, and the bytes of all its tracks.
async fn look(viewer: &SdkClient) -> Result<(TrackStats, u64)> {
    let stats = viewer.stats().await?;
    let video = stats.of("publisher", "video").cloned().context("no video")?;
    Ok((video, stats.tracks.iter().map(|track| track.bytes_received).sum()))
}

#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
fn count(value: u64) -> f64 {
    value as f64
}
