//! `cargo xtask bench forward`: what forwarding costs the node, and what subscribers get of it.

use std::fs;
use std::ops::Range;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Parser, value_parser};
use meridian_tests::client::{Client, ClientOptions, DEADLINE, Publish, unix_nanos};
use meridian_tests::load::{Arrival, Meter, MeterSink, Tally, deadline, tally};
use meridian_tests::machine::{Noise, cpu_nanos, load_average, receive_drops};
use meridian_tests::rig;
use meridian_tests::statistics::{median, quantile};
use serde::Serialize;
use tokio::runtime;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use xtask::repo;
use xtask::stack::{Stack, access_token};

const METHOD: &str = "\
Method: one publisher (VP8 1.5 Mb/s, 30 frames/s; Opus 48 kb/s) and N subscribers in one room, over loopback, through
a real edge (bare workerd) and one sfu-node (release build). The node is pinned to CPU 0; the load client (str0m, one
process) and the edge to the others. SRTP is AEAD_AES_128_GCM, every subscriber has its own socket.
 sent/s         media packets the publisher sent: 230, unless the load client has too little CPU.
 packets/CPU s  media packets that arrived at subscribers, over the CPU time (user and system, all threads) of the node
                process alone in the same window. On loopback the kernel delivers a datagram into the receiver's
                socket in the sender's system call, so the node is charged for that too (not where the kernel accounts
                interrupts apart: there it shows as noise). Receivers do not use GRO.
 latency        from just before the publisher's send call to the kernel's receive timestamp on the subscriber's
                socket, one clock, over all subscribers. It includes encrypting and both network stacks, not the
                subscriber's own queueing.
 loss           packets sent in the window whose receive timestamp is not within 500 ms of its end, retransmissions
                counted as arrived. Drops: datagrams the kernel dropped because a subscriber's socket was full (the
                client's fault). Untimed: packets that arrived without a usable timestamp; they have no latency.
 noise          what CPU 0 did in the window besides the node, as a share of the window: other programs, interrupts,
                time stolen by the hypervisor. Figures of a window with much of it are not to be trusted.
Drops and untimed are sums over the runs, the other figures their medians; the runs are in the JSON.";
/// How long packets of a window may still arrive after it.
const TAIL: Duration = Duration::from_millis(500);
/// How long traffic runs before the first window: keyframes are through, bitrates level.
const SETTLE: Duration = Duration::from_secs(2);
/// Between two looks at how far the subscribers have counted.
const POLL: Duration = Duration::from_millis(20);
/// Where the node is pinned.
const NODE_CPU: usize = 0;
/// Joins and leaves on their way at a time.
const AT_A_TIME: usize = 8;

/// Measure forwarding: packets per CPU second of the node, latency, loss.
#[derive(Parser)]
struct Args {
    /// Subscribers, one step each.
    #[arg(long, value_delimiter = ',', value_parser = value_parser!(u32).range(1..))]
    #[arg(default_values_t = [10, 50, 100, 200])]
    subscribers: Vec<u32>,
    /// Windows measured for each step.
    #[arg(long, default_value_t = 3, value_parser = value_parser!(u32).range(1..))]
    runs: u32,
    /// Length of a window, seconds.
    #[arg(long, default_value_t = 10, value_parser = value_parser!(u64).range(1..))]
    seconds: u64,
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
    steps: Vec<Step>,
}

#[derive(Serialize)]
struct Step {
    subscribers: u32,
    sent_per_second: f64,
    packets_per_cpu_second: f64,
    node_cpu_percent: f64,
    forwarded_per_second: f64,
    p50_micros: f64,
    p99_micros: f64,
    loss_percent: f64,
    client_drops: u64,
    untimed: usize,
    noise_percent: f64,
    runs: Vec<Run>,
}

#[derive(Serialize, Clone, Copy)]
struct Run {
    seconds: f64,
    sent: usize,
    arrived: usize,
    untimed: usize,
    node_cpu_seconds: f64,
    p50_micros: f64,
    p99_micros: f64,
    loss_percent: f64,
    client_drops: u64,
    noise_percent: f64,
}

// One thread: what the subscribers cost is not spread over the CPUs by chance.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let args = Args::parse();
    let config = rig::config(&["taskset", "--cpu-list", &NODE_CPU.to_string()]);
    let report = rig::measure(config, async |stack| steps(stack, &args).await).await?;
    if let Some(directory) = args.out.parent() {
        fs::create_dir_all(directory)?;
    }
    fs::write(&args.out, serde_json::to_string_pretty(&report)?)?;
    println!("\n{}", args.out.display());
    Ok(())
}

async fn steps(stack: &mut Stack, args: &Args) -> Result<Report> {
    let cpus = thread::available_parallelism()?.get();
    let node = stack.nodes().first().and_then(|node| node.process.pid()).context("the node has no process")?;
    if cpus > 1 {
        keep_off_first_cpu(std::process::id(), cpus)?;
        keep_off_first_cpu(stack.edge().process.pid().context("the edge has no process")?, cpus)?;
    }
    let load_average = load_average()?;
    println!("{METHOD}\n");
    println!("load average before the first step: {load_average}");
    println!(
        "{:>11} {:>7} {:>14} {:>9} {:>12} {:>8} {:>8} {:>8} {:>6} {:>8} {:>7}",
        "subscribers",
        "sent/s",
        "packets/CPU s",
        "node CPU",
        "forwarded/s",
        "p50 µs",
        "p99 µs",
        "loss",
        "drops",
        "untimed",
        "noise"
    );
    let mut steps = Vec::new();
    for subscribers in &args.subscribers {
        let step = step(&stack.url(), node, *subscribers, args).await?;
        println!(
            "{:>11} {:>7.0} {:>14.0} {:>8.1}% {:>12.0} {:>8.0} {:>8.0} {:>7.3}% {:>6} {:>8} {:>6.1}%",
            step.subscribers,
            step.sent_per_second,
            step.packets_per_cpu_second,
            step.node_cpu_percent,
            step.forwarded_per_second,
            step.p50_micros,
            step.p99_micros,
            step.loss_percent,
            step.client_drops,
            step.untimed,
            step.noise_percent,
        );
        steps.push(step);
    }
    Ok(Report { method: METHOD, cpus, cpu_model: cpu_model(), load_average, steps })
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

/// One step: a room of its own, `runs` windows.
async fn step(url: &str, node: u32, subscribers: u32, args: &Args) -> Result<Step> {
    let room = format!("bench-{subscribers}-{}", unix_nanos());
    let publisher = Publisher::start(url, &room).await?;
    let crowd = Crowd::join(url, &room, subscribers).await?;
    sleep(SETTLE).await;
    let mut runs = Vec::new();
    for _ in 0..args.runs {
        runs.push(crowd.run(node, &publisher, Duration::from_secs(args.seconds)).await?);
    }
    // The next step's node has nobody else to serve.
    crowd.leave().await?;
    publisher.leave().await?;
    let of = |value: fn(&Run) -> f64| median(runs.iter().map(value).collect());
    Ok(Step {
        subscribers,
        sent_per_second: of(|r| count(r.sent) / r.seconds),
        packets_per_cpu_second: of(|r| count(r.arrived) / r.node_cpu_seconds),
        node_cpu_percent: of(|r| 100.0 * r.node_cpu_seconds / r.seconds),
        forwarded_per_second: of(|r| count(r.arrived) / r.seconds),
        p50_micros: of(|r| r.p50_micros),
        p99_micros: of(|r| r.p99_micros),
        loss_percent: of(|r| r.loss_percent),
        client_drops: runs.iter().map(|r| r.client_drops).sum(),
        untimed: runs.iter().map(|r| r.untimed).sum(),
        noise_percent: of(|r| r.noise_percent),
        runs,
    })
}

/// How many packets were sent in a window, and where to tell.
type Question = (Range<u64>, oneshot::Sender<usize>);

/// The publisher, in a thread of its own so that receiving does not delay its sending.
struct Publisher {
    questions: mpsc::Sender<Question>,
    ended: oneshot::Receiver<Result<()>>,
}

impl Publisher {
    async fn start(url: &str, room: &str) -> Result<Self> {
        let mut options = ClientOptions::new(url, &access_token(room, "publisher")?);
        options.publish = vec![Publish::camera("camera"), Publish::microphone("microphone")];
        let (questions, asked) = mpsc::channel(1);
        let (ready, is_ready) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        thread::spawn(move || {
            let sending = runtime::Builder::new_current_thread().enable_all().build();
            let result = sending.map_err(Into::into).and_then(|r| r.block_on(publish(options, ready, asked)));
            // Nobody waits for the end of a measurement that failed.
            let _ = end.send(result);
        });
        let publisher = Self { questions, ended };
        match timeout(DEADLINE, is_ready).await.context("the publisher did not get ready")? {
            Ok(()) => Ok(publisher),
            Err(_) => bail!(publisher.leave().await.err().context("the publisher ended")?),
        }
    }

    async fn sent(&self, window: Range<u64>) -> Result<usize> {
        let (answer, answered) = oneshot::channel();
        self.questions.send((window, answer)).await.ok().context("the publisher ended")?;
        answered.await.context("the publisher ended")
    }

    /// Lets it leave the room; says what went wrong with it.
    async fn leave(self) -> Result<()> {
        drop(self.questions);
        self.ended.await.context("the publisher's thread panicked")?
    }
}

/// Sends until nobody can ask any more.
async fn publish(
    options: ClientOptions,
    ready: oneshot::Sender<()>,
    mut asked: mpsc::Receiver<Question>,
) -> Result<()> {
    let mut client = Client::join(options).await?;
    client.connected().await?;
    // Whoever waited for it or asked may have failed meanwhile.
    let _ = ready.send(());
    while let Some((window, answer)) = asked.recv().await {
        let _ = answer.send(client.sent_within(window).await?);
    }
    client.leave().await
}

/// The subscribers.
struct Crowd {
    clients: Vec<Client>,
    meters: Vec<Arc<Meter>>,
}

impl Crowd {
    async fn join(url: &str, room: &str, size: u32) -> Result<Self> {
        let mut crowd = Self { clients: Vec::new(), meters: Vec::new() };
        let mut joining = JoinSet::new();
        for number in 0..size {
            if joining.len() == AT_A_TIME {
                crowd.admit(joining.join_next().await.context("nobody joins")??)?;
            }
            let options = ClientOptions::new(url, &access_token(room, &format!("subscriber-{number}"))?);
            let (sink, meter) = MeterSink::new();
            joining.spawn(async move {
                let mut client = Client::join_with(options, Some(sink)).await?;
                client.connected().await?;
                anyhow::Ok((client, meter))
            });
        }
        while let Some(joined) = joining.join_next().await {
            crowd.admit(joined?)?;
        }
        crowd.until_counted(0).await?;
        Ok(crowd)
    }

    fn admit(&mut self, joined: Result<(Client, Arc<Meter>)>) -> Result<()> {
        let (client, meter) = joined?;
        self.clients.push(client);
        self.meters.push(meter);
        Ok(())
    }

    /// Waits until whatever the kernel received for any of them until `time` (nanoseconds of Unix time) is counted.
    async fn until_counted(&self, time: u64) -> Result<()> {
        let counted = async {
            while self.meters.iter().any(|m| m.counted_until() <= time) {
                sleep(POLL).await;
            }
        };
        timeout(DEADLINE, counted).await.context("not every subscriber receives media")
    }

    async fn run(&self, node: u32, publisher: &Publisher, length: Duration) -> Result<Run> {
        let sockets: Vec<_> = self.clients.iter().flat_map(|c| c.observe(|o| o.sockets.clone())).collect();
        let drops = receive_drops(&sockets)?;
        self.take().for_each(drop);
        let (noise, cpu) = (Noise::listen([NODE_CPU], &[node])?, cpu_nanos(node)?);
        let from = unix_nanos();
        sleep(length).await;
        let window = from..unix_nanos();
        let cpu = cpu_nanos(node)?.saturating_sub(cpu);
        let noise_percent = noise.percent()?;
        self.until_counted(deadline(&window, TAIL)).await?;
        let sent = publisher.sent(window.clone()).await?;
        let tallies: Vec<Tally> = self.take().map(|arrivals| tally(arrivals, &window, TAIL)).collect();
        let arrived = tallies.iter().map(|t| t.arrived).sum();
        let mut delays: Vec<u64> = tallies.iter().flat_map(|t| t.delays.iter().copied()).collect();
        delays.sort_unstable();
        let micros = |share| quantile(&delays, share).map_or(f64::NAN, |d| Duration::from_nanos(d).as_secs_f64() * 1e6);
        let expected = count(sent * self.meters.len());
        Ok(Run {
            seconds: Duration::from_nanos(window.end - window.start).as_secs_f64(),
            sent,
            arrived,
            untimed: tallies.iter().map(|t| t.untimed).sum(),
            node_cpu_seconds: Duration::from_nanos(cpu).as_secs_f64(),
            p50_micros: micros(0.5),
            p99_micros: micros(0.99),
            loss_percent: 100.0 * (expected - count(arrived)) / expected,
            client_drops: receive_drops(&sockets)? - drops,
            noise_percent,
        })
    }

    /// What each got since the last call.
    fn take(&self) -> impl Iterator<Item = Vec<Arrival>> {
        self.meters.iter().map(|meter| meter.take())
    }

    async fn leave(self) -> Result<()> {
        let mut leaving = JoinSet::new();
        for client in self.clients {
            if leaving.len() == AT_A_TIME {
                leaving.join_next().await.context("nobody leaves")???;
            }
            leaving.spawn(client.leave());
        }
        while let Some(left) = leaving.join_next().await {
            left??;
        }
        Ok(())
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
fn count(value: usize) -> f64 {
    value as f64
}
