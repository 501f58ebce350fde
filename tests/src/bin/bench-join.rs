//! `cargo xtask bench join`: how long a join takes until media flows, and what of it is the edge's.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Parser;
use meridian_tests::client::{Client, ClientOptions, Observed, Publish, Timeline, unix_nanos};
use meridian_tests::load::{load_average, quantile};
use serde::Serialize;
use xtask::stack::{Mode, Ports, Profile, Stack, StackConfig, access_token};

const METHOD: &str = "\
Method: one client after the other joins on /rtc/v1 (single peer connection, offer inside the join request) over
loopback, through a real edge (bare workerd, release wasm) and one sfu-node (release build). Times run from before the
TCP connection of the WebSocket; nothing is pinned: what else the machine does shows in the figures (load average).
 warm   the room exists, one publisher is in it (VP8 30 frames/s, Opus), its node is attached: a second participant.
        Its first media packet is whatever arrives first; audio comes every 20 ms, so up to that much is waiting.
 cold   nobody has been in the room: its object is created, a node is chosen and dials the room. The joiner is alone,
        so there is no media packet to wait for; the last step is its media connection.
 edge   until JoinResponse only the edge works; the answer is the node's work and two relays by the edge.";

/// Measure joining: time to first media, step by step.
#[derive(Parser)]
struct Args {
    /// Joins measured of each kind.
    #[arg(long, default_value_t = 50)]
    joins: usize,
    /// Where the JSON goes.
    #[arg(long, default_value = "target/bench/join.json")]
    out: PathBuf,
}

#[derive(Serialize)]
struct Report {
    method: &'static str,
    joins: usize,
    /// One minute, before the first join.
    load_average: f64,
    /// Of the warm joins: how many saw video begin with a keyframe.
    began_with_keyframe: usize,
    warm: Vec<Line>,
    cold: Vec<Line>,
}

/// One step of a join over all joins, milliseconds.
#[derive(Serialize)]
struct Line {
    step: &'static str,
    p50_ms: f64,
    p95_ms: f64,
}

type Mark = fn(&Timeline) -> Option<Instant>;

/// A step of a join: its name, from, to.
type Step = (&'static str, Mark, Mark);

const STEPS: [Step; 6] = [
    ("connect -> upgraded", |t| t.started, |t| t.upgraded),
    ("upgraded -> JoinResponse", |t| t.upgraded, |t| t.joined),
    ("JoinResponse -> answer", |t| t.joined, |t| t.described),
    ("answer -> ICE and DTLS up", |t| t.described, |t| t.connected),
    ("up -> first media packet", |t| t.connected, |t| t.first_packet),
    ("of it the edge alone", |t| t.started, |t| t.joined),
];
const WARM_TOTAL: Step = ("connect -> first media packet", |t| t.started, |t| t.first_packet);
const COLD_TOTAL: Step = ("connect -> ICE and DTLS up", |t| t.started, |t| t.connected);

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    let state_dir = std::env::temp_dir().join(format!("meridian-bench-{}", std::process::id()));
    let config = StackConfig {
        nodes: 1,
        mode: Mode::Workerd,
        profile: Profile::Release,
        ports: Ports::Free,
        state_dir: state_dir.clone(),
        show_logs: false,
        node_wrapper: Vec::new(),
    };
    let stack = tokio::task::spawn_blocking(|| Stack::start(config)).await??;
    let load_average = load_average()?;
    println!("{METHOD}\n");
    println!("load average before the first join: {load_average}");
    let (warm, began_with_keyframe) = warm(&stack.url(), args.joins).await?;
    let warm = lines(&warm, WARM_TOTAL)?;
    let cold = lines(&cold(&stack.url(), args.joins).await?, COLD_TOTAL)?;
    for (kind, lines) in [("warm", &warm), ("cold", &cold)] {
        println!("{kind:<32} {:>9} {:>9}", "p50 ms", "p95 ms");
        for line in lines {
            println!("  {:<30} {:>9.1} {:>9.1}", line.step, line.p50_ms, line.p95_ms);
        }
    }
    println!("video began with a keyframe in {began_with_keyframe} of {} warm joins", args.joins);
    tokio::task::spawn_blocking(|| stack.stop()).await?;
    fs::remove_dir_all(&state_dir)?;
    if let Some(directory) = args.out.parent() {
        fs::create_dir_all(directory)?;
    }
    let report = Report { method: METHOD, joins: args.joins, load_average, began_with_keyframe, warm, cold };
    fs::write(&args.out, serde_json::to_string_pretty(&report)?)?;
    println!("\n{}", args.out.display());
    Ok(())
}

/// Second participants of a room with a publisher, and how many of them could decode the first video they got.
async fn warm(url: &str, joins: usize) -> Result<(Vec<Timeline>, usize)> {
    let room = format!("warm-{}", unix_nanos());
    let mut options = ClientOptions::new(url, &access_token(&room, "publisher")?);
    options.publish = vec![Publish::camera("camera"), Publish::microphone("microphone")];
    let mut publisher = Client::join(options).await?;
    publisher.connected().await?;
    let (mut timelines, mut decodable) = (Vec::new(), 0);
    for number in 0..joins {
        let token = access_token(&room, &format!("subscriber-{number}"))?;
        let mut client = Client::join(ClientOptions::new(url, &token)).await?;
        timelines.push(client.until("first media", |o| o.timeline.first_packet.map(|_| o.timeline)).await?);
        let began = |o: &Observed| o.flow('V').map(|flow| flow.began_with_keyframe);
        decodable += usize::from(client.until("video", began).await?);
        client.leave().await?;
    }
    publisher.leave().await?;
    Ok((timelines, decodable))
}

/// First participants of new rooms.
async fn cold(url: &str, joins: usize) -> Result<Vec<Timeline>> {
    let mut timelines = Vec::new();
    for _ in 0..joins {
        let token = access_token(&format!("cold-{}", unix_nanos()), "first")?;
        let mut client = Client::join(ClientOptions::new(url, &token)).await?;
        timelines.push(client.until("media connection", |o| o.timeline.connected.map(|_| o.timeline)).await?);
        client.leave().await?;
    }
    Ok(timelines)
}

fn lines(timelines: &[Timeline], total: Step) -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    for (step, from, to) in [total].into_iter().chain(STEPS) {
        // Cold joins have no first packet.
        let mut took: Vec<Duration> = timelines.iter().filter_map(|t| Some(to(t)?.duration_since(from(t)?))).collect();
        if took.is_empty() {
            continue;
        }
        took.sort_unstable();
        let ms = |share| quantile(&took, share).as_secs_f64() * 1e3;
        lines.push(Line { step, p50_ms: ms(0.5), p95_ms: ms(0.95) });
    }
    lines.first().context("no join was measured")?;
    Ok(lines)
}
