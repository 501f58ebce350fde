//! `cargo xtask bench forward`: what forwarding costs the node, and what subscribers get of it.

use std::fs;
use std::ops::Range;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Parser;
use meridian_tests::client::{Client, ClientOptions, DEADLINE, Publish, unix_nanos};
use meridian_tests::load::{
    Meter, MeterSink, Window, busy_nanos, cpu_nanos, load_average, median, quantile, receive_drops,
};
use serde::Serialize;
use tokio::runtime;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use xtask::stack::{Mode, Ports, Profile, Stack, StackConfig, access_token};

const METHOD: &str = "\
Method: one publisher (VP8 1.5 Mb/s, 30 frames/s; Opus 48 kb/s) and N subscribers in one room, over loopback, through
a real edge (bare workerd) and one sfu-node (release build). The node is pinned to CPU 0; the load client (str0m, one
process) and the edge to the others. SRTP is AEAD_AES_128_GCM, every subscriber has its own socket.
 packets/CPU s  media packets that arrived at subscribers, over the CPU time (user and system, all threads) of the node
                process alone in the same window. On loopback the kernel delivers a datagram into the receiver's
                socket in the sender's system call, so the node is charged for that too; receivers do not use GRO.
 latency        from just before the publisher's send call to the kernel's receive timestamp on the subscriber's
                socket, one clock. It includes sending and both network stacks, not the load client's own queueing.
 loss           packets sent in the window that had not arrived 500 ms after its end, retransmissions counted as
                arrived. Drops: datagrams the kernel dropped because a subscriber's socket was full (client's fault).
 noise          what CPU 0 did in the window besides the node, as a share of the window: other programs, interrupts,
                time stolen by the hypervisor. Figures of a window with much of it are not to be trusted.
Each figure is the median over the runs; the runs are in the JSON.";
/// How long packets of a window may still arrive after it.
const TAIL: Duration = Duration::from_millis(500);
/// How long traffic runs before the first window: keyframes are through, bitrates level.
const SETTLE: Duration = Duration::from_secs(2);
/// Where the node is pinned.
const NODE_CPU: usize = 0;
/// Joins on their way at a time.
const JOINING: usize = 8;

/// Measure forwarding: packets per CPU second of the node, latency, loss.
#[derive(Parser)]
struct Args {
    /// Subscribers, one step each.
    #[arg(long, value_delimiter = ',', default_values_t = [10, 50, 100, 200])]
    subscribers: Vec<usize>,
    /// Windows measured for each step.
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Length of a window, seconds.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Where the JSON goes.
    #[arg(long, default_value = "target/bench/forward.json")]
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
    subscribers: usize,
    packets_per_cpu_second: f64,
    node_cpu_percent: f64,
    forwarded_per_second: f64,
    p50_micros: f64,
    p99_micros: f64,
    loss_percent: f64,
    client_drops: u64,
    noise_percent: f64,
    runs: Vec<Run>,
}

#[derive(Serialize, Clone, Copy)]
struct Run {
    seconds: f64,
    sent: usize,
    arrived: usize,
    node_cpu_seconds: f64,
    p50_micros: f64,
    p99_micros: f64,
    loss_percent: f64,
    client_drops: u64,
    noise_percent: f64,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let cpus = thread::available_parallelism()?.get();
    let state_dir = std::env::temp_dir().join(format!("meridian-bench-{}", std::process::id()));
    let mut stack = Stack::start(StackConfig {
        nodes: 1,
        mode: Mode::Workerd,
        profile: Profile::Release,
        ports: Ports::Free,
        state_dir: state_dir.clone(),
        show_logs: false,
        node_wrapper: ["taskset", "--cpu-list", &NODE_CPU.to_string()].map(str::to_owned).to_vec(),
    })?;
    let node = stack.nodes().first().and_then(xtask::node::Node::pid).context("the node has no process")?;
    if cpus > 1 {
        keep_off_first_cpu(std::process::id(), cpus)?;
        keep_off_first_cpu(stack.edge().pid().context("the edge has no process")?, cpus)?;
    }
    let load_average = load_average()?;
    println!("{METHOD}\n");
    println!("load average before the first step: {load_average}");
    println!(
        "{:>11} {:>14} {:>9} {:>12} {:>9} {:>9} {:>8} {:>7} {:>7}",
        "subscribers", "packets/CPU s", "node CPU", "forwarded/s", "p50 µs", "p99 µs", "loss", "drops", "noise"
    );
    let mut steps = Vec::new();
    for subscribers in &args.subscribers {
        let step = measure(&stack.url(), node, *subscribers, &args)?;
        println!(
            "{:>11} {:>14.0} {:>8.1}% {:>12.0} {:>9.0} {:>9.0} {:>7.3}% {:>7} {:>6.1}%",
            step.subscribers,
            step.packets_per_cpu_second,
            step.node_cpu_percent,
            step.forwarded_per_second,
            step.p50_micros,
            step.p99_micros,
            step.loss_percent,
            step.client_drops,
            step.noise_percent,
        );
        steps.push(step);
    }
    stack.stop();
    fs::remove_dir_all(&state_dir)?;
    let report = Report { method: METHOD, cpus, cpu_model: cpu_model(), load_average, steps };
    if let Some(directory) = args.out.parent() {
        fs::create_dir_all(directory)?;
    }
    fs::write(&args.out, serde_json::to_string_pretty(&report)?)?;
    println!("\n{}", args.out.display());
    Ok(())
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
fn measure(url: &str, node: u32, subscribers: usize, args: &Args) -> Result<Step> {
    let room = format!("bench-{subscribers}-{}", unix_nanos());
    let publisher = Publisher::start(url, &room)?;
    let window = Arc::new(Window::default());
    let receiving = runtime::Builder::new_current_thread().enable_all().build()?;
    let runs = receiving.block_on(async {
        let crowd = Crowd::join(url, &room, subscribers, &window).await?;
        tokio::time::sleep(SETTLE).await;
        let mut runs = Vec::new();
        for _ in 0..args.runs {
            runs.push(crowd.run(node, &publisher, &window, Duration::from_secs(args.seconds)).await?);
        }
        anyhow::Ok(runs)
    })?;
    let of = |value: fn(&Run) -> f64| median(runs.iter().map(value).collect());
    Ok(Step {
        subscribers,
        packets_per_cpu_second: of(|r| count(r.arrived) / r.node_cpu_seconds),
        node_cpu_percent: of(|r| 100.0 * r.node_cpu_seconds / r.seconds),
        forwarded_per_second: of(|r| count(r.arrived) / r.seconds),
        p50_micros: of(|r| r.p50_micros),
        p99_micros: of(|r| r.p99_micros),
        loss_percent: of(|r| r.loss_percent),
        client_drops: runs.iter().map(|r| r.client_drops).sum(),
        noise_percent: of(|r| r.noise_percent),
        runs,
    })
}

/// How many packets were sent in a window, and where to tell.
type Question = (Range<u64>, oneshot::Sender<usize>);

/// The publisher, in a thread of its own so that receiving does not delay its sending.
struct Publisher {
    questions: mpsc::Sender<Question>,
}

impl Publisher {
    fn start(url: &str, room: &str) -> Result<Self> {
        let mut options = ClientOptions::new(url, &access_token(room, "publisher")?);
        options.publish = vec![Publish::camera("camera"), Publish::microphone("microphone")];
        let (questions, mut asked) = mpsc::channel::<Question>(1);
        let (ready, is_ready) = std::sync::mpsc::channel();
        thread::spawn(move || -> Result<()> {
            let sending = runtime::Builder::new_current_thread().enable_all().build()?;
            sending.block_on(async {
                let joined = async {
                    let mut client = Client::join(options).await?;
                    client.connected().await?;
                    anyhow::Ok(client)
                };
                let client = match joined.await {
                    Ok(client) => client,
                    Err(error) => return Ok(ready.send(Err(error))?),
                };
                ready.send(Ok(()))?;
                while let Some((window, answer)) = asked.recv().await {
                    // The one who asked may have failed meanwhile.
                    let _ = answer.send(client.sent_within(window).await?);
                }
                client.leave().await
            })
        });
        is_ready.recv_timeout(DEADLINE).context("the publisher did not get ready")??;
        Ok(Self { questions })
    }

    async fn sent(&self, window: Range<u64>) -> Result<usize> {
        let (answer, answered) = oneshot::channel();
        self.questions.send((window, answer)).await.ok().context("the publisher ended")?;
        answered.await.context("the publisher ended")
    }
}

/// The subscribers.
struct Crowd {
    clients: Vec<Client>,
    meters: Vec<Arc<Meter>>,
}

impl Crowd {
    async fn join(url: &str, room: &str, size: usize, window: &Arc<Window>) -> Result<Self> {
        let mut crowd = Self { clients: Vec::new(), meters: Vec::new() };
        for first in (0..size).step_by(JOINING) {
            let mut joining = JoinSet::new();
            for number in first..(first + JOINING).min(size) {
                let options = ClientOptions::new(url, &access_token(room, &format!("subscriber-{number}"))?);
                let (sink, meter) = MeterSink::new(Arc::clone(window));
                joining.spawn(async move {
                    let mut client = Client::join_with(options, Some(sink)).await?;
                    client.connected().await?;
                    anyhow::Ok((client, meter))
                });
            }
            while let Some(joined) = joining.join_next().await {
                let (client, meter) = joined??;
                crowd.clients.push(client);
                crowd.meters.push(meter);
            }
        }
        let all_receive = async {
            while crowd.meters.iter().any(|m| m.packets() == 0) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(DEADLINE, all_receive).await.context("not every subscriber receives media")?;
        Ok(crowd)
    }

    async fn run(&self, node: u32, publisher: &Publisher, window: &Window, length: Duration) -> Result<Run> {
        let sockets: Vec<_> = self.clients.iter().flat_map(|c| c.observe(|o| o.sockets.clone())).collect();
        let drops = receive_drops(&sockets)?;
        let (busy, cpu) = (busy_nanos(NODE_CPU)?, cpu_nanos(node)?);
        window.open(unix_nanos());
        tokio::time::sleep(length).await;
        window.close(unix_nanos());
        let cpu = cpu_nanos(node)?.saturating_sub(cpu);
        // Ticks are coarser than the node's own time.
        let others = (busy_nanos(NODE_CPU)? - busy).saturating_sub(cpu);
        tokio::time::sleep(TAIL).await;
        let bounds = window.bounds();
        let sent = publisher.sent(bounds.clone()).await?;
        let mut delays: Vec<u32> = self.meters.iter().flat_map(|m| m.take_delays()).collect();
        delays.sort_unstable();
        let micros = |share: f64| f64::from(quantile(&delays, share)) / 1e3;
        let nanos = bounds.end - bounds.start;
        let expected = count(sent * self.meters.len());
        Ok(Run {
            seconds: count(usize::try_from(nanos)?) / 1e9,
            sent,
            arrived: delays.len(),
            node_cpu_seconds: count(usize::try_from(cpu)?) / 1e9,
            p50_micros: micros(0.5),
            p99_micros: micros(0.99),
            loss_percent: 100.0 * (expected - count(delays.len())) / expected,
            client_drops: receive_drops(&sockets)? - drops,
            noise_percent: 100.0 * count(usize::try_from(others)?) / count(usize::try_from(nanos)?),
        })
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
fn count(value: usize) -> f64 {
    value as f64
}
