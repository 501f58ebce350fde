//! The runner of every load: runs that alternate between the servers, medians of them, and when to stop.

use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;

use super::crowd::{Habits, Run, run};
use super::limit::{Bound, bound};
use super::scenario::Scenario;
use super::servers::{Server, Servers};
use crate::statistics::median;

/// Loss at which a server has reached its limit.
const LIMIT_LOSS_PERCENT: f64 = 1.0;
/// Use of its CPU at which the load client is at its own limit.
const LIMIT_LOAD_PERCENT: f64 = 95.0;

/// How often a run of another server is tried: a load client of its may fall out while it joins.
const TRIES: u32 = 3;

/// One load of a series.
#[derive(Debug, Clone, Serialize)]
pub struct Step {
    /// What sets it apart from the others of its series.
    pub label: String,
    /// It.
    pub scenario: Scenario,
}

/// How to measure.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Runs of each server in each step.
    pub runs: u32,
    /// Length of a run's window.
    pub window: Duration,
    /// How clients take part.
    pub habits: Habits,
    /// A server that has reached its limit is left out of the steps that follow.
    pub until_limit: bool,
    /// Beside each run of a step with so many who receive: what forwarding cannot do without.
    pub bounds: &'static [usize],
}

/// Why a server takes part in no further step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Limit {
    /// More than [`LIMIT_LOSS_PERCENT`] was lost.
    Loss,
    /// The load client's CPU was more than [`LIMIT_LOAD_PERCENT`] busy: what is lost need not be the server's fault.
    LoadClient,
    /// It did not get through: this went wrong.
    Failed(String),
}

/// One server under one load: medians over its runs, sums of what is counted.
#[derive(Debug, Serialize)]
pub struct Row {
    /// Which.
    pub server: &'static str,
    /// [`Step::label`].
    pub step: String,
    /// How many receive.
    pub receivers: usize,
    /// Media packets published a second.
    pub sent_per_second: f64,
    /// Arrivals a second of the server's CPU time.
    pub packets_per_cpu_second: f64,
    /// The same over Janus's under this load.
    pub times_janus: Option<f64>,
    /// The same over `LiveKit`'s under this load.
    pub times_livekit: Option<f64>,
    /// CPU time of the server over that of the load client in the same run.
    pub server_over_client: f64,
    /// Use of its CPU.
    pub server_cpu_percent: f64,
    /// Use of the load client's CPU.
    pub load_percent: f64,
    /// Arrivals a second.
    pub forwarded_per_second: f64,
    /// Latency, as the next ones.
    pub p50_micros: f64,
    /// See [`Row::p50_micros`].
    pub p95_micros: f64,
    /// See [`Row::p50_micros`].
    pub p99_micros: f64,
    /// What did not arrive.
    pub loss_percent: f64,
    /// Retransmissions of the media packets on the way to those who receive; only where there is loss on purpose.
    pub resent_percent: Option<f64>,
    /// Dropped at full sockets of the load client.
    pub client_drops: u64,
    /// Arrived without a time.
    pub untimed: usize,
    /// Growth of the server's memory for each who receives.
    pub kib_per_receiver: f64,
    /// The server's memory before anybody came.
    pub idle_mib: f64,
    /// What else its CPU did.
    pub noise_percent: f64,
    /// Why there are no further steps of it.
    pub limit: Option<Limit>,
    /// Ours beside what it cannot do without.
    pub bound: Option<BesideBound>,
    /// What the medians are of.
    pub runs: Vec<Run>,
}

/// Runs of ours beside [`bound`], one after the other.
#[derive(Debug, Serialize)]
pub struct BesideBound {
    /// CPU time of sealing and sending a packet, nanoseconds.
    pub nanos_per_packet: f64,
    /// Of that, sealing.
    pub seal_nanos_per_packet: f64,
    /// CPU time of ours a packet over that of the bound in the same turn.
    pub times: f64,
    /// What the medians are of.
    pub runs: Vec<Bound>,
}

/// Measures a series and prints it as it comes.
///
/// # Errors
/// Ours does not get through a step, or another one does not even start.
pub async fn measure(servers: &mut Servers<'_>, steps: &[Step], plan: &Plan) -> Result<Vec<Row>> {
    println!("{HEAD}");
    let mut taking_part = servers.all();
    let mut rows = Vec::new();
    for step in steps {
        let measured = measure_step(servers, &taking_part, step, plan).await?;
        measured.iter().for_each(print);
        if plan.until_limit {
            let done = |server: &Server| measured.iter().any(|r| r.server == server.name() && r.limit.is_some());
            taking_part.retain(|server| !done(server));
        }
        rows.extend(measured);
        if taking_part.is_empty() {
            break;
        }
    }
    Ok(rows)
}

/// Each server in turn, as often as there are runs.
async fn measure_step(servers: &mut Servers<'_>, all: &[Server], step: &Step, plan: &Plan) -> Result<Vec<Row>> {
    let mut runs: Vec<Result<Vec<Run>, String>> = all.iter().map(|_| Ok(Vec::new())).collect();
    let mut bounds = Vec::new();
    for _ in 0..plan.runs {
        for (server, runs) in all.iter().zip(&mut runs) {
            let Ok(done) = runs else { continue };
            match run_fresh(servers, server, step, plan).await {
                Ok(run) => done.push(run),
                Err(error) if matches!(server, Server::Ours) && !plan.until_limit => return Err(error),
                Err(error) => *runs = Err(format!("{error:#}")),
            }
        }
        let receivers = step.scenario.receivers();
        if plan.bounds.contains(&receivers) {
            bounds.push(bound(u32::try_from(receivers)?, plan.window).await?);
        }
    }
    let named = all.iter().zip(runs);
    let mut rows: Vec<Row> = named.map(|(server, runs)| Row::of(server, step, runs)).collect();
    let of = |name| rows.iter().find(|row| row.server == name).map(|row| row.packets_per_cpu_second);
    let (janus, livekit) = (of("Janus"), of("LiveKit"));
    for row in &mut rows {
        row.times_janus = janus.map(|janus| row.packets_per_cpu_second / janus);
        row.times_livekit = livekit.map(|livekit| row.packets_per_cpu_second / livekit);
    }
    if let Some(ours) = rows.iter_mut().find(|row| row.server == Server::Ours.name()) {
        ours.bound = BesideBound::of(&ours.runs, bounds);
    }
    Ok(rows)
}

/// One run with a process of its own; another server that fails is tried again, and each time is told of.
async fn run_fresh(servers: &mut Servers<'_>, server: &Server, step: &Step, plan: &Plan) -> Result<Run> {
    let mut tries = if matches!(server, Server::Ours) { 1 } else { TRIES };
    loop {
        tries -= 1;
        let fresh = servers.fresh(server)?;
        let ran = run(&fresh.measured, &step.scenario, &plan.habits, plan.window).await;
        let ran = ran.with_context(|| format!("{}, {}", server.name(), step.label));
        if let Err(error) = &ran {
            eprintln!("{error:#}; its last lines:\n{}", fresh.last_lines());
        }
        fresh.stop();
        if ran.is_ok() || tries == 0 {
            return ran;
        }
    }
}

const HEAD: &str = "   server       step  sent/s  packets/CPU s  x Janus  x LiveKit  srv/cli server CPU  load CPU  forwarded/s   p50 µs   p95 µs   p99 µs     loss   resent  drops  untimed  KiB/each   noise";

fn print(row: &Row) {
    let times = |times: Option<f64>| times.map_or_else(|| "-".to_owned(), |times| format!("{times:.2}"));
    println!(
        "{:>9} {:>10} {:>7.0} {:>14.0} {:>8} {:>10} {:>8.2} {:>9.1}% {:>8.1}% {:>12.0} {:>8.0} {:>8.0} {:>8.0} {:>7.3}% {:>8} {:>6} {:>8} {:>9.1} {:>6.1}% {}",
        row.server,
        row.step,
        row.sent_per_second,
        row.packets_per_cpu_second,
        times(row.times_janus),
        times(row.times_livekit),
        row.server_over_client,
        row.server_cpu_percent,
        row.load_percent,
        row.forwarded_per_second,
        row.p50_micros,
        row.p95_micros,
        row.p99_micros,
        row.loss_percent,
        row.resent_percent.map_or_else(|| "-".to_owned(), |resent| format!("{resent:.2}%")),
        row.client_drops,
        row.untimed,
        row.kib_per_receiver,
        row.noise_percent,
        match &row.limit {
            None => "",
            Some(Limit::Loss) => "limit: loss",
            Some(Limit::LoadClient) => "limit: the load client's CPU",
            Some(Limit::Failed(_)) => "limit: failed",
        }
    );
    if let Some(BesideBound { nanos_per_packet, seal_nanos_per_packet, times, .. }) = &row.bound {
        println!(
            "          sealing and sending alone: {nanos_per_packet:.0} ns a packet, {seal_nanos_per_packet:.0} of it sealing; ours is {times:.2} times that"
        );
    }
}

impl Row {
    fn of(server: &Server, step: &Step, runs: Result<Vec<Run>, String>) -> Self {
        let (runs, failed) = runs.map_or_else(|error| (Vec::new(), Some(Limit::Failed(error))), |runs| (runs, None));
        let of = |value: fn(&Run) -> f64| median(runs.iter().map(value).collect());
        let (loss_percent, load_percent) = (of(|r| r.loss_percent), of(|r| r.load_percent));
        let resent: Vec<f64> = runs.iter().filter_map(|r| r.resent_percent).collect();
        Self {
            server: server.name(),
            step: step.label.clone(),
            receivers: step.scenario.receivers(),
            sent_per_second: of(|r| count(r.sent) / r.seconds),
            packets_per_cpu_second: of(|r| count(r.arrived) / r.server_cpu_seconds),
            times_janus: None,
            times_livekit: None,
            server_over_client: of(|r| r.server_cpu_seconds / r.client_cpu_seconds),
            server_cpu_percent: of(|r| 100.0 * r.server_cpu_seconds / r.seconds),
            load_percent,
            forwarded_per_second: of(|r| count(r.arrived) / r.seconds),
            p50_micros: of(|r| r.p50_micros),
            p95_micros: of(|r| r.p95_micros),
            p99_micros: of(|r| r.p99_micros),
            loss_percent,
            resent_percent: (!resent.is_empty()).then(|| median(resent)),
            client_drops: runs.iter().map(|r| r.client_drops).sum(),
            untimed: runs.iter().map(|r| r.untimed).sum(),
            kib_per_receiver: of(|r| r.bytes_per_receiver / 1024.0),
            idle_mib: of(|r| count(usize::try_from(r.idle_bytes).unwrap_or(usize::MAX)) / 1_048_576.0),
            noise_percent: of(|r| r.noise_percent),
            limit: failed.or_else(|| limit(loss_percent, load_percent)),
            bound: None,
            runs,
        }
    }
}

impl BesideBound {
    /// Nothing if one of them was not measured.
    fn of(ours: &[Run], runs: Vec<Bound>) -> Option<Self> {
        let nanos = |run: &Run| 1e9 * run.server_cpu_seconds / count(run.arrived);
        let times: Vec<f64> = ours.iter().zip(&runs).map(|(run, bound)| nanos(run) / bound.nanos_per_packet).collect();
        if times.is_empty() {
            return None;
        }
        let of = |value: fn(&Bound) -> f64| median(runs.iter().map(value).collect());
        let (nanos_per_packet, seal_nanos_per_packet) = (of(|b| b.nanos_per_packet), of(|b| b.seal_nanos_per_packet));
        Some(Self { nanos_per_packet, seal_nanos_per_packet, times: median(times), runs })
    }
}

/// What, if anything, these figures say has reached its limit.
fn limit(loss_percent: f64, load_percent: f64) -> Option<Limit> {
    if load_percent > LIMIT_LOAD_PERCENT {
        Some(Limit::LoadClient)
    } else if loss_percent > LIMIT_LOSS_PERCENT {
        Some(Limit::Loss)
    } else {
        None
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
fn count(value: usize) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loss_under_a_load_client_at_its_limit_is_not_held_against_the_server() {
        assert_eq!(limit(5.0, 96.0), Some(Limit::LoadClient));
        assert_eq!(limit(5.0, 94.0), Some(Limit::Loss));
        assert_eq!(limit(0.5, 94.0), None);
        assert_eq!(limit(f64::NAN, 10.0), None);
    }

    #[test]
    fn a_server_that_failed_has_no_figures() {
        let step = Step { label: "600".to_owned(), scenario: Scenario::meeting(1, Vec::new()) };
        let row = Row::of(&Server::Ours, &step, Err("fell out".to_owned()));
        assert!(row.packets_per_cpu_second.is_nan() && row.runs.is_empty());
        assert_eq!(row.limit, Some(Limit::Failed("fell out".to_owned())));
    }
}
