//! The measurements of `cargo xtask bench`, what each is told, and where its figures go.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::builder::PossibleValue;
use clap::{Args, ValueEnum, value_parser};
use serde::Serialize;
use serde_json::{Value, json};
use xtask::hosts::{self, Host};
use xtask::repo;
use xtask::stack::{Stack, StackConfig};

use super::crowd::Habits;
use super::measure::{Plan, Step, measure};
use super::scenario::{Scenario, Tracks};
use super::servers::{Servers, pinned};
use super::{apart, api, drain, failover, impaired, join_rate, join_steps, limit, report, signaling};
use crate::client::{MediaOptions, SrtpOffer};
use crate::machine::load_average;
use crate::relay::RELAY_ADDRESS;
use crate::rig;
use crate::rival::Kind;

/// Fan-outs measured without being told.
const FAN_OUTS: [u32; 4] = [10, 50, 100, 200];
/// How it goes on until loss or the load client ends it.
const FURTHER: [u32; 7] = [300, 400, 600, 800, 1000, 1400, 2000];
/// Fan-outs of audio alone.
const AUDIO: [u32; 5] = [1, 10, 100, 300, 500];
/// Loss on the way to subscribers.
const LOSSES: [f64; 4] = [0.0, 0.01, 0.05, 0.1];
/// Subscribers of a lossy run: all with str0m, which asks for what is missing.
const LOSSY_SUBSCRIBERS: u32 = 50;
/// Sessions of [`What::Idle`]: rooms, members of each.
const IDLE: (u32, usize) = (100, 10);
/// Participants of the large room, and how many of them have camera and microphone on.
const ROOM: (usize, usize) = (50, 6);
/// Joins of each kind taken apart.
const JOINS: u32 = 50;
/// Fan-outs the bound is measured at.
const BOUNDS: [usize; 2] = [100, 200];

/// A measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum What {
    /// One publisher (camera and microphone) to 10, 50, 100, 200 subscribers; with --until-loss to ever more.
    Forward,
    /// 8 rooms of 4: everybody sends camera and microphone to everybody.
    Conference,
    /// One room of 50: 6 with camera and microphone, 44 with a microphone nobody speaks into, everybody gets everything.
    Room,
    /// One microphone to 1, 10, 100, 300, 500 subscribers.
    Audio,
    /// Joins a second, connect to first packet, and the steps of a join of ours.
    Join,
    /// 1,000 sessions that neither send nor receive media.
    Idle,
    /// A camera to 50 subscribers who lose 0, 1, 5, 10 % of what comes and ask for it again.
    Lossy,
    /// What forwarding cannot do without: sealing and sending, without a server.
    Limit,
    /// What a Chromium viewer sees on a path that loses, delays, and becomes narrow; ours alone.
    Impaired,
    /// What joins, changes, leaves and mutes cost each of 10, 100, 300, 1,000 in a room, and the edge; ours alone.
    Crowd,
    /// How long pictures stand still when the node of four browsers' call is killed, freezes, or its host falls silent, 20
    /// times each in each mode; ours alone.
    Failover,
    /// How long pictures stand still when the node of 50 sessions on the native SDK, and of four browsers, is drained, 10 times
    /// each; ours alone.
    Drain,
    /// Rooms made, listed and deleted over the server API, and a list of 10,000; ours alone.
    Api,
}

impl What {
    /// Its name on the command line and of its file.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Conference => "conference",
            Self::Room => "room",
            Self::Audio => "audio",
            Self::Join => "join",
            Self::Idle => "idle",
            Self::Lossy => "lossy",
            Self::Limit => "limit",
            Self::Impaired => "impaired",
            Self::Crowd => "crowd",
            Self::Failover => "failover",
            Self::Drain => "drain",
            Self::Api => "api",
        }
    }
}

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub enum Task {
    /// Every measurement, kept with the documentation, and the report.
    All,
    /// The report alone, from the figures there are.
    Report,
    /// One measurement.
    One(What),
}

impl ValueEnum for Task {
    fn value_variants<'a>() -> &'a [Self] {
        &[
            Self::All,
            Self::Report,
            Self::One(What::Forward),
            Self::One(What::Conference),
            Self::One(What::Room),
            Self::One(What::Audio),
            Self::One(What::Join),
            Self::One(What::Idle),
            Self::One(What::Lossy),
            Self::One(What::Limit),
            Self::One(What::Impaired),
            Self::One(What::Crowd),
            Self::One(What::Failover),
            Self::One(What::Drain),
            Self::One(What::Api),
        ]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        match self {
            Self::All => Some(PossibleValue::new("all").help("All of these, into docs/bench, and the report")),
            Self::Report => Some(PossibleValue::new("report").help("Write docs/bench.md from docs/bench")),
            Self::One(what) => what.to_possible_value(),
        }
    }
}

/// SRTP profile that clients offer, alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Srtp {
    /// `AEAD_AES_128_GCM`.
    Gcm,
    /// `SRTP_AES128_CM_HMAC_SHA1_80`.
    Cm,
}

/// How to measure.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Runs of each server in each step.
    #[arg(long, default_value_t = 3, value_parser = value_parser!(u32).range(1..))]
    pub runs: u32,
    /// Length of a run's window, seconds.
    #[arg(long, default_value_t = 10, value_parser = value_parser!(u64).range(1..))]
    pub seconds: u64,
    /// Measure Janus too (Debian package janus).
    #[arg(long)]
    pub janus: bool,
    /// Measure this livekit-server too.
    #[arg(long, value_name = "PATH")]
    pub livekit: Option<PathBuf>,
    /// SRTP profile of all media.
    #[arg(long, value_enum, default_value_t = Srtp::Gcm)]
    pub srtp: Srtp,
    /// Clients give transport-wide feedback, so that a server may lower what it sends to one that falls behind.
    #[arg(long)]
    pub transport_cc: bool,
    /// Of subscribers: one in so many receives with str0m, the others the light way. 1: all with str0m.
    #[arg(long, default_value_t = 10, value_parser = value_parser!(u32).range(1..))]
    pub full_every: u32,
    /// Subscribers of `forward` and `audio`, one step each.
    #[arg(long, value_delimiter = ',', value_parser = value_parser!(u32).range(1..))]
    pub subscribers: Vec<u32>,
    /// `forward` goes on with more subscribers until more than 1 % is lost or the load client's CPU is full.
    #[arg(long)]
    pub until_loss: bool,
    /// Deliver to receivers on the load client's CPU, not within the server's send call, as on a network (Linux, root).
    #[arg(long)]
    pub apart: bool,
    /// This is the process that `apart` has started.
    #[arg(long, hide = true)]
    within: bool,
}

/// Does what is asked for; figures of one measurement go to `directory`.
///
/// # Errors
/// It cannot be measured here, fails, or is ended by a signal.
pub async fn run(task: Task, options: &Options, directory: &Path) -> Result<()> {
    let docs = repo::root().join("docs");
    match task {
        Task::One(what) => return measured(what, options, directory).await,
        Task::All => {
            for (what, options) in everything(options) {
                measured(what, &options, &docs.join("bench")).await?;
            }
        }
        Task::Report => {}
    }
    report::write(&docs)?;
    println!("{}", docs.join("bench.md").display());
    Ok(())
}

/// What is in the report.
fn everything(options: &Options) -> Vec<(What, Options)> {
    let usual = Options { subscribers: Vec::new(), until_loss: true, apart: false, ..options.clone() };
    let apart = Options { subscribers: vec![100, 200], apart: true, ..usual.clone() };
    let cm = Options { subscribers: vec![100, 200], until_loss: false, srtp: Srtp::Cm, ..usual.clone() };
    let with = |what| (what, usual.clone());
    vec![
        with(What::Forward),
        with(What::Conference),
        (What::Forward, apart.clone()),
        (What::Conference, apart),
        (What::Forward, cm.clone()),
        (What::Conference, cm),
        with(What::Room),
        with(What::Audio),
        with(What::Lossy),
        with(What::Join),
        with(What::Idle),
        with(What::Impaired),
        with(What::Crowd),
        with(What::Failover),
        with(What::Drain),
        with(What::Api),
    ]
}

/// What a measurement came to, as it is kept.
#[derive(Debug, Serialize)]
struct Report {
    what: &'static str,
    command: String,
    date: String,
    cpus: usize,
    cpu_model: String,
    kernel: String,
    /// One minute, before it began.
    load_average: f64,
    srtp: &'static str,
    transport_cc: bool,
    full_every: u32,
    apart: bool,
    runs: u32,
    seconds: u64,
    figures: Value,
}

/// Measures and writes the figures into `directory`.
async fn measured(what: What, options: &Options, directory: &Path) -> Result<()> {
    if options.apart && !options.within {
        return apart::run(&options.words(what, directory));
    }
    if what == What::Failover && !hosts::are_here() {
        return on_hosts(&options.words(what, directory));
    }
    let rivals = options.rivals();
    for rival in &rivals {
        rival.installed()?;
    }
    let begun = Begun::now()?;
    println!("{}; load average {}", what.name(), begun.load_average);
    let figures = if what == What::Limit {
        json!({ "rows": limits(options).await? })
    } else if what == What::Impaired {
        let config = StackConfig { public_address: Some(RELAY_ADDRESS), ..rig::config(&[]) };
        json!({ "rows": rig::measure(config, async |stack| impaired::measure(stack).await).await? })
    } else if what == What::Crowd {
        json!({ "rows": rig::measure(rig::config(&[]), async |stack| signaling::measure(stack).await).await? })
    } else if what == What::Failover {
        let hosts = Host::make_all(failover::NODES)?;
        let config = StackConfig { nodes: hosts.len(), hosts, ..rig::config(&[]) };
        json!({ "rows": rig::measure(config, async |stack| failover::measure(stack).await).await? })
    } else if what == What::Drain {
        let node_args = drain::DRAIN.map(str::to_owned).to_vec();
        let config = StackConfig { nodes: drain::NODES, node_args, ..rig::config(&[]) };
        json!({ "rows": rig::measure(config, async |stack| drain::measure(stack).await).await? })
    } else if what == What::Api {
        json!({ "rows": rig::measure(rig::config(&[]), async |stack| api::measure(stack).await).await? })
    } else {
        // It would leave out quiet microphones, the others do not.
        let hear_all = || vec!["--audible-microphones".to_owned(), ROOM.0.to_string()];
        let node_args = if what == What::Room { hear_all() } else { Vec::new() };
        let config = StackConfig { node_args, ..rig::config(&pinned()) };
        let state = config.state_dir.clone();
        let measurement = async |stack: &mut Stack| {
            let mut servers = Servers::new(stack, state, rivals)?;
            figures(what, options, &mut servers).await
        };
        rig::measure(config, measurement).await?
    };
    let path = directory.join(format!("{}.json", what.file(options)));
    fs::create_dir_all(directory)?;
    fs::write(&path, serde_json::to_string_pretty(&begun.report(what, options, figures))? + "\n")?;
    println!("{}\n", path.display());
    Ok(())
}

/// Measures by this program where hosts can be made.
fn on_hosts(words: &[String]) -> Result<()> {
    if let Some(reason) = hosts::impossible()? {
        bail!("what breaks hosts cannot be measured here: {reason}");
    }
    let mut program = Command::new(std::env::current_exe().context("this program has no path")?);
    let status = hosts::within(program.args(words)).status()?;
    ensure!(status.success(), "it failed where it has hosts: {status}");
    Ok(())
}

async fn figures(what: What, options: &Options, servers: &mut Servers<'_>) -> Result<Value> {
    if what == What::Join {
        // The DTLS that offers one profile sends a lost flight again only after a second: Janus drops the first when it
        // comes before its ICE is ready.
        let media = MediaOptions { srtp: SrtpOffer::Gcm, ..options.media() };
        let rates = join_rate::measure(servers, options.runs, options.window(), &media).await?;
        servers.fresh(&super::servers::Server::Ours)?;
        let steps = join_steps::measure(servers.stack(), JOINS).await?;
        return Ok(json!({ "rates": rates, "steps": steps }));
    }
    let plan = Plan {
        runs: options.runs,
        window: options.window(),
        habits: Habits { media: options.media(), full_every: options.full_every },
        until_limit: what == What::Forward && options.until_loss,
        bounds: if what == What::Forward && options.srtp == Srtp::Gcm { &BOUNDS } else { &[] },
    };
    let rows = measure(servers, &options.steps(what), &plan).await?;
    Ok(json!({ "rows": rows }))
}

/// The bound by itself, as often as there are to be runs.
async fn limits(options: &Options) -> Result<Vec<Value>> {
    let mut rows = Vec::new();
    for subscribers in BOUNDS {
        for _ in 0..options.runs {
            let bound = limit::bound(u32::try_from(subscribers)?, options.window()).await?;
            println!(
                "crypto and send alone, {subscribers} subscribers: {:.0} ns a packet ({:.0} sealing)",
                bound.nanos_per_packet, bound.seal_nanos_per_packet
            );
            rows.push(json!({ "subscribers": subscribers, "bound": bound }));
        }
    }
    Ok(rows)
}

impl What {
    /// What is not as usual is part of the name.
    fn file(self, options: &Options) -> String {
        let srtp = if options.srtp == Srtp::Cm { "-cm" } else { "" };
        let apart = if options.apart { "-apart" } else { "" };
        format!("{}{srtp}{apart}", self.name())
    }
}

impl Options {
    /// The command line of one measurement with these, for the process that is apart.
    fn words(&self, what: What, directory: &Path) -> Vec<String> {
        let mut words = vec![what.name().to_owned(), "--within".to_owned()];
        let mut add = |name: &str, value: String| words.extend([format!("--{name}"), value]);
        add("runs", self.runs.to_string());
        add("seconds", self.seconds.to_string());
        add("full-every", self.full_every.to_string());
        add("out", directory.display().to_string());
        if let Some(srtp) = self.srtp.to_possible_value() {
            add("srtp", srtp.get_name().to_owned());
        }
        for subscribers in &self.subscribers {
            add("subscribers", subscribers.to_string());
        }
        if let Some(path) = &self.livekit {
            add("livekit", path.display().to_string());
        }
        let flags = [
            ("--janus", self.janus),
            ("--transport-cc", self.transport_cc),
            ("--until-loss", self.until_loss),
            ("--apart", self.apart),
        ];
        words.extend(flags.into_iter().filter(|(_, set)| *set).map(|(name, _)| name.to_owned()));
        words
    }

    fn rivals(&self) -> Vec<Kind> {
        let janus = self.janus.then_some(Kind::Janus);
        janus.into_iter().chain(self.livekit.clone().map(Kind::LiveKit)).collect()
    }

    fn window(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }

    fn media(&self) -> MediaOptions {
        let srtp = match self.srtp {
            Srtp::Gcm => SrtpOffer::Gcm128Only,
            Srtp::Cm => SrtpOffer::CmOnly,
        };
        MediaOptions { srtp, transport_cc: self.transport_cc, light: false, loss: None }
    }

    /// The series of a measurement.
    fn steps(&self, what: What) -> Vec<Step> {
        let subscribers = |usual: &[u32]| match self.subscribers.as_slice() {
            [] => usual.to_vec(),
            told => told.to_vec(),
        };
        let fan_out = |tracks| move |n: u32| Step { label: n.to_string(), scenario: Scenario::fan_out(tracks, n) };
        let one = |label: &str, scenario| vec![Step { label: label.to_owned(), scenario }];
        match what {
            What::Forward => {
                let first = subscribers(&FAN_OUTS);
                let further = if self.until_loss { FURTHER.as_slice() } else { &[] };
                let above = first.iter().max().copied().unwrap_or(0);
                let further = further.iter().copied().filter(|n| *n > above);
                first.iter().copied().chain(further).map(fan_out(Tracks::CameraAndMicrophone)).collect()
            }
            What::Audio => subscribers(&AUDIO).into_iter().map(fan_out(Tracks::Microphone)).collect(),
            What::Conference => one("8 x 4", Scenario::meeting(8, vec![Tracks::CameraAndMicrophone; 4])),
            What::Room => {
                let (all, on) = ROOM;
                let mut members = vec![Tracks::CameraAndMicrophone; on];
                members.resize(all, Tracks::QuietMicrophone);
                one(&format!("1 x {all}"), Scenario::meeting(1, members))
            }
            What::Idle => one("1,000", Scenario::idle(IDLE.0, IDLE.1)),
            What::Lossy => {
                let scenario = Scenario::fan_out(Tracks::Camera, LOSSY_SUBSCRIBERS);
                let step = |loss: f64| Step {
                    label: format!("{:.0} %", 100.0 * loss),
                    scenario: scenario.clone().lossy(loss),
                };
                LOSSES.into_iter().map(step).collect()
            }
            What::Join | What::Limit | What::Impaired | What::Crowd | What::Failover | What::Drain | What::Api => {
                Vec::new()
            }
        }
    }
}

/// The machine when a measurement began.
struct Begun {
    date: String,
    /// Before this process moved to one of them.
    cpus: usize,
    load_average: f64,
}

impl Begun {
    fn now() -> Result<Self> {
        let cpus = thread::available_parallelism()?.get();
        Ok(Self { date: said("date", &["-u", "+%Y-%m-%d %H:%M UTC"])?, cpus, load_average: load_average()? })
    }

    fn report(self, what: What, options: &Options, figures: Value) -> Report {
        // What was measured with, less the directories of this machine.
        let words = std::env::args()
            .skip(1)
            .filter(|word| word != "--within")
            .map(|word| if Path::new(&word).is_absolute() { "PATH".to_owned() } else { word });
        Report {
            what: what.name(),
            command: ["cargo xtask bench".to_owned()].into_iter().chain(words).collect::<Vec<_>>().join(" "),
            date: self.date,
            cpus: self.cpus,
            cpu_model: cpu_model(),
            kernel: said("uname", &["-sr"]).unwrap_or_default(),
            load_average: self.load_average,
            srtp: match options.srtp {
                Srtp::Gcm => "AEAD_AES_128_GCM",
                Srtp::Cm => "SRTP_AES128_CM_HMAC_SHA1_80",
            },
            transport_cc: options.transport_cc,
            full_every: options.full_every,
            apart: options.apart,
            runs: options.runs,
            seconds: options.seconds,
            figures,
        }
    }
}

/// The first line a program says.
fn said(program: &str, words: &[&str]) -> Result<String> {
    let output = Command::new(program).args(words).output().with_context(|| program.to_owned())?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn cpu_model() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    model.map_or_else(|| "unknown".to_owned(), |(_, name)| name.to_owned())
}

/// Where figures go that are not published.
#[must_use]
pub fn usual_directory() -> PathBuf {
    repo::target_dir().join("bench")
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[arg(value_enum)]
        what: Task,
        #[command(flatten)]
        options: Options,
        #[arg(long)]
        out: PathBuf,
    }

    #[test]
    fn who_measures_apart_is_told_all_there_is_to_tell() {
        let told =
            ["bench", "forward", "--apart", "--janus", "--livekit", "/a/b", "--srtp", "cm", "--subscribers", "7,9"];
        let more =
            ["--runs", "5", "--seconds", "4", "--full-every", "3", "--transport-cc", "--until-loss", "--out", "/o"];
        let told = Line::parse_from(told.into_iter().chain(more));
        let Task::One(what) = told.what else { unreachable!() };
        let words = told.options.words(what, &told.out);
        let heard = Line::parse_from(["bench".to_owned()].into_iter().chain(words));
        assert!(matches!(heard.what, Task::One(What::Forward)) && heard.out == told.out && heard.options.within);
        assert_eq!(format!("{:?}", Options { within: false, ..heard.options }), format!("{:?}", told.options));
    }
}
