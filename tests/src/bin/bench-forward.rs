//! `cargo xtask bench forward`: what forwarding costs the node, and what subscribers get of it; other servers beside it.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Parser, value_parser};
use meridian_tests::door::Door;
use meridian_tests::fanout::{Measured, Run, run};
use meridian_tests::machine::load_average;
use meridian_tests::rig;
use meridian_tests::rival::{Kind, Rival};
use meridian_tests::statistics::median;
use serde::Serialize;
use xtask::repo;
use xtask::stack::{API_KEY, API_SECRET, Stack};

const METHOD: &str = "\
Method: one publisher (VP8 1.5 Mb/s, 30 frames/s; Opus 48 kb/s) and N subscribers in one room, over loopback, through
a real edge (bare workerd) and one sfu-node (release build). The node is pinned to CPU 0; the load client (str0m, one
process) and the edge to the others. SRTP is AEAD_AES_128_GCM (the load client offers nothing else), every subscriber
has its own socket. With --janus and --livekit the same load is measured on these servers too, pinned as the node is:
Janus with its VideoRoom and one event loop, LiveKit as it comes, with ICE lite. Janus passes loopback interfaces over:
its media goes to the machine's own address, which is over loopback all the same. Runs alternate between the servers. Each run has a server process of its own, fresh, with a fresh room, and is one window; other servers do not run
meanwhile (the node does, without sessions).
 sent/s         media packets the publisher sent: 230, unless the load client has too little CPU or the server asks the
                publisher for less.
 packets/CPU s  media packets that arrived at subscribers, over the CPU time (user and system, all threads) of the
                server process alone (of ours: the node) in the same window. On loopback the kernel delivers a datagram
                into the receiver's socket in the sender's system call, so the server is charged for that too (not where
                the kernel accounts interrupts apart: there it shows as noise). Receivers do not use GRO.
 x Janus        packets/CPU s over that of Janus with as many subscribers.
 latency        from just before the publisher's send call to the kernel's receive timestamp on the subscriber's
                socket, one clock, over all subscribers. It includes encrypting and both network stacks, not the
                subscriber's own queueing.
 loss           packets sent in the window whose receive timestamp is not within 500 ms of its end, retransmissions
                counted as arrived. Drops: datagrams the kernel dropped because a subscriber's socket was full (the
                client's fault). Untimed: packets that arrived without a usable timestamp; they have no latency.
 KiB/sub        growth of the server's resident memory from before the first subscriber joined to after the window, over
                the subscribers.
 noise          what CPU 0 did in the window besides the server, as a share of the window: other programs, interrupts,
                time stolen by the hypervisor. Figures of a window with much of it are not to be trusted.
Drops and untimed are sums over the runs, the other figures their medians; the runs are in the JSON.";
/// Where servers are pinned.
const SERVER_CPU: usize = 0;

/// Measure forwarding: packets per CPU second of the node, latency, loss, memory; other servers beside it.
#[derive(Parser)]
struct Args {
    /// Subscribers, one step each.
    #[arg(long, value_delimiter = ',', value_parser = value_parser!(u32).range(1..))]
    #[arg(default_values_t = [10, 50, 100, 200])]
    subscribers: Vec<u32>,
    /// Runs of each server in each step.
    #[arg(long, default_value_t = 3, value_parser = value_parser!(u32).range(1..))]
    runs: u32,
    /// Length of a run's window, seconds.
    #[arg(long, default_value_t = 10, value_parser = value_parser!(u64).range(1..))]
    seconds: u64,
    /// Measure Janus too (Debian package janus).
    #[arg(long)]
    janus: bool,
    /// Measure this livekit-server too.
    #[arg(long, value_name = "PATH")]
    livekit: Option<PathBuf>,
    /// Where the JSON goes.
    #[arg(long, default_value_os_t = repo::target_dir().join("bench/forward.json"))]
    out: PathBuf,
}

#[derive(Serialize)]
struct Report {
    method: &'static str,
    cpus: usize,
    cpu_model: String,
    /// One minute, before the first step.
    load_average: f64,
    rows: Vec<Row>,
}

/// One server with one number of subscribers.
#[derive(Serialize)]
struct Row {
    server: &'static str,
    subscribers: u32,
    sent_per_second: f64,
    packets_per_cpu_second: f64,
    /// Packets per CPU second over those of Janus; `null` where Janus is not measured.
    times_janus: Option<f64>,
    server_cpu_percent: f64,
    forwarded_per_second: f64,
    p50_micros: f64,
    p95_micros: f64,
    p99_micros: f64,
    loss_percent: f64,
    client_drops: u64,
    untimed: usize,
    kib_per_subscriber: f64,
    idle_mib: f64,
    noise_percent: f64,
    runs: Vec<Run>,
}

// One thread: what the subscribers cost is not spread over the CPUs by chance.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let args = Args::parse();
    let rivals: Vec<Kind> =
        args.janus.then_some(Kind::Janus).into_iter().chain(args.livekit.clone().map(Kind::LiveKit)).collect();
    for rival in &rivals {
        rival.installed()?;
    }
    let config = rig::config(&pinned());
    let directory = config.state_dir.clone();
    let report = rig::measure(config, async |stack| {
        let mut bench = Bench { stack, rivals, directory, runs: 0 };
        bench.steps(&args).await
    })
    .await?;
    if let Some(directory) = args.out.parent() {
        fs::create_dir_all(directory)?;
    }
    fs::write(&args.out, serde_json::to_string_pretty(&report)?)?;
    println!("\n{}", args.out.display());
    Ok(())
}

/// Runs a server where it is measured.
const fn pinned() -> [&'static str; 3] {
    ["taskset", "--cpu-list", "0"]
}

struct Bench<'a> {
    stack: &'a mut Stack,
    rivals: Vec<Kind>,
    directory: PathBuf,
    /// How many rivals' runs there have been.
    runs: u32,
}

impl Bench<'_> {
    async fn steps(&mut self, args: &Args) -> Result<Report> {
        let cpus = thread::available_parallelism()?.get();
        if cpus > 1 {
            keep_off_first_cpu(std::process::id(), cpus)?;
            keep_off_first_cpu(self.stack.edge().process.pid().context("the edge has no process")?, cpus)?;
        }
        let load_average = load_average()?;
        println!("{METHOD}\n");
        println!("load average before the first step: {load_average}");
        println!("{HEAD}");
        let mut rows = Vec::new();
        for subscribers in &args.subscribers {
            let step = self.step(*subscribers, args).await?;
            step.iter().for_each(print);
            rows.extend(step);
        }
        Ok(Report { method: METHOD, cpus, cpu_model: cpu_model(), load_average, rows })
    }

    /// One step: `runs` times each server in turn.
    async fn step(&mut self, subscribers: u32, args: &Args) -> Result<Vec<Row>> {
        let length = Duration::from_secs(args.seconds);
        let rivals = self.rivals.clone();
        let mut ours = Vec::new();
        let mut theirs: Vec<Vec<Run>> = vec![Vec::new(); rivals.len()];
        for _ in 0..args.runs {
            ours.push(run(&self.fresh_node()?, subscribers, length).await?);
            for (rival, runs) in rivals.iter().zip(&mut theirs) {
                runs.push(self.run_rival(rival, subscribers, length).await?);
            }
        }
        let all = rivals.iter().map(Kind::name).zip(theirs);
        let mut rows: Vec<Row> =
            [("Meridian", ours)].into_iter().chain(all).map(|(name, runs)| Row::of(name, subscribers, runs)).collect();
        let janus = rows.iter().find(|row| row.server == Kind::Janus.name()).map(|row| row.packets_per_cpu_second);
        for row in &mut rows {
            row.times_janus = janus.map(|janus| row.packets_per_cpu_second / janus);
        }
        Ok(rows)
    }

    /// Our node, started anew.
    fn fresh_node(&mut self) -> Result<Measured> {
        let url = self.stack.url();
        let node = self.stack.nodes().first_mut().context("there is no node")?;
        node.restart()?;
        node.wait_until_ready()?;
        let pid = node.process.pid().context("the node has no process")?;
        let door = Door::LiveKit { url, key: API_KEY.to_owned(), secret: API_SECRET.to_owned() };
        Ok(Measured { door, pid, cpu: SERVER_CPU })
    }

    async fn run_rival(&mut self, kind: &Kind, subscribers: u32, length: Duration) -> Result<Run> {
        self.runs += 1;
        let rival = Rival::start(kind, &pinned(), &self.directory.join(format!("{}-{}", kind.name(), self.runs)))?;
        let server = Measured { door: rival.door, pid: rival.process.id(), cpu: SERVER_CPU };
        let ran = run(&server, subscribers, length).await;
        let ran = ran.with_context(|| format!("{}; its last lines:\n{}", kind.name(), rival.process.last_lines(20)));
        rival.process.stop();
        ran
    }
}

const HEAD: &str = "   server subscribers  sent/s  packets/CPU s  x Janus server CPU  forwarded/s   p50 µs   p95 µs   p99 µs     \
                    loss  drops  untimed  KiB/sub   noise";

fn print(row: &Row) {
    println!(
        "{:>9} {:>11} {:>7.0} {:>14.0} {:>8} {:>9.1}% {:>12.0} {:>8.0} {:>8.0} {:>8.0} {:>7.3}% {:>6} {:>8} {:>8.0} {:>6.1}%",
        row.server,
        row.subscribers,
        row.sent_per_second,
        row.packets_per_cpu_second,
        row.times_janus.map_or_else(|| "-".to_owned(), |times| format!("{times:.2}")),
        row.server_cpu_percent,
        row.forwarded_per_second,
        row.p50_micros,
        row.p95_micros,
        row.p99_micros,
        row.loss_percent,
        row.client_drops,
        row.untimed,
        row.kib_per_subscriber,
        row.noise_percent,
    );
}

impl Row {
    fn of(server: &'static str, subscribers: u32, runs: Vec<Run>) -> Self {
        let of = |value: fn(&Run) -> f64| median(runs.iter().map(value).collect());
        Self {
            server,
            subscribers,
            sent_per_second: of(|r| count(r.sent) / r.seconds),
            packets_per_cpu_second: of(|r| count(r.arrived) / r.server_cpu_seconds),
            times_janus: None,
            server_cpu_percent: of(|r| 100.0 * r.server_cpu_seconds / r.seconds),
            forwarded_per_second: of(|r| count(r.arrived) / r.seconds),
            p50_micros: of(|r| r.p50_micros),
            p95_micros: of(|r| r.p95_micros),
            p99_micros: of(|r| r.p99_micros),
            loss_percent: of(|r| r.loss_percent),
            client_drops: runs.iter().map(|r| r.client_drops).sum(),
            untimed: runs.iter().map(|r| r.untimed).sum(),
            kib_per_subscriber: of(|r| r.bytes_per_subscriber / 1024.0),
            idle_mib: of(|r| count(usize::try_from(r.idle_bytes).unwrap_or(usize::MAX)) / 1_048_576.0),
            noise_percent: of(|r| r.noise_percent),
            runs,
        }
    }
}

/// Moves every thread of a process to the other CPUs.
fn keep_off_first_cpu(pid: u32, cpus: usize) -> Result<()> {
    let others = format!("1-{}", cpus - 1);
    let done = Command::new("taskset")
        .args(["--all-tasks", "--cpu-list", "--pid", &others, &pid.to_string()])
        .stdout(Stdio::null())
        .status()
        .context("taskset (package util-linux)")?;
    if !done.success() {
        bail!("taskset cannot pin process {pid}");
    }
    Ok(())
}

fn cpu_model() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    model.map_or_else(|| "unknown".to_owned(), |(_, name)| name.to_owned())
}

#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
fn count(value: usize) -> f64 {
    value as f64
}
