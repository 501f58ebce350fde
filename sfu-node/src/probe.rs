//! `sfu-node probe`: two clients of its own join a room through the edge as any other client does, one sends, one
//! receives, and both report. It shares no code with the node's media: what it proves, it proves from outside.

mod media;
mod participant;
mod peer;
mod report;
mod signal;

use std::env;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use rand::Rng;
use shared::ids::RegionName;
use tokio::time::timeout;
use tracing_subscriber::EnvFilter;
use url::Url;

use self::media::{Clock, Incoming, Kind, Outgoing, Quality};
use self::participant::{Participant, Role};
use self::report::Report;
use crate::EXIT_CONFIG;
use crate::config::{Secret, edge_url, secret};

/// Environment variable of the API key.
const API_KEY: &str = "MERIDIAN_API_KEY";
/// Environment variable of its secret.
const API_SECRET: &str = "MERIDIAN_API_SECRET";
/// Exit status when the call works, but loses more than it may.
const EXIT_LOSSY: u8 = 3;

/// Join a room through the edge, send and receive media there, and report how that went.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
The API key and its secret, which tokens are asked for with, come from the environment: MERIDIAN_API_KEY and
MERIDIAN_API_SECRET.

Exit status: 0 media came through; 1 a step failed, or the deadline came; 2 wrong arguments; 3 media came through, but
more was lost than --max-loss; 78 no API key.")]
pub(crate) struct ProbeOptions {
    /// The edge, `https://…`.
    #[arg(long, env = "MERIDIAN_EDGE_URL", value_parser = edge_url)]
    edge_url: Url,
    /// Through a node of this region; through the nearest, if not given.
    #[arg(long, env = "MERIDIAN_PROBE_REGION", value_parser = region)]
    region: Option<RegionName>,
    /// Seconds during which media is measured.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=3600))]
    seconds: u32,
    /// Seconds that everything else may take.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=3600))]
    deadline: u32,
    /// Percent of the packets of audio or video that may be lost.
    #[arg(long, default_value_t = 5.0, value_parser = percent)]
    max_loss: f64,
    /// How the report is written to standard output.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// What is logged to standard error (`tracing` filter syntax).
    #[arg(long, env = "MERIDIAN_LOG", default_value = "error")]
    log: String,
}

/// How the report is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people.
    Text,
    /// One JSON object.
    Json,
    /// Prometheus text, for a node exporter's textfile collector or a push gateway.
    Prometheus,
}

/// Why the call did not come about.
#[derive(Debug, thiserror::Error)]
enum ProbeError {
    /// The edge gives no token.
    #[error("no token: {0}")]
    Token(String),
    /// The edge does not let the client in.
    #[error("the edge refuses with {status}: {reason}")]
    Refused {
        /// Its status.
        status: u16,
        /// Its words.
        reason: String,
    },
    /// Signaling ended.
    #[error("signaling ended: {0}")]
    Signaling(String),
    /// The room is elsewhere.
    #[error("the room is in region {found:?}, not {wanted:?}")]
    WrongRegion {
        /// Where it is.
        found: String,
        /// Where it should be.
        wanted: String,
    },
    /// The media connection cannot be made, or broke.
    #[error("media connection: {0}")]
    Media(String),
    /// Time is up.
    #[error("not within {0} seconds")]
    Deadline(u32),
}

/// Who asks for tokens.
struct ApiKey {
    key: String,
    secret: Secret,
}

/// Runs the probe and prints its report.
pub(crate) fn main(options: &ProbeOptions) -> ExitCode {
    let variable = |name| env::var(name).ok().filter(|value: &String| !value.is_empty());
    let (Some(key), Some(Ok(secret))) = (variable(API_KEY), variable(API_SECRET).map(|text| secret(&text))) else {
        eprintln!("sfu-node probe: {API_KEY} and {API_SECRET} must be in the environment");
        return ExitCode::from(EXIT_CONFIG);
    };
    let filter = match EnvFilter::try_new(&options.log) {
        Ok(filter) => filter,
        Err(error) => {
            eprintln!("sfu-node probe: --log: {error}");
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("sfu-node probe: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let report = runtime.block_on(probe(options, &ApiKey { key, secret }));
    let text = match options.format {
        Format::Text => report.text(),
        Format::Json => report.json(),
        Format::Prometheus => report.prometheus(),
    };
    if std::io::stdout().write_all(text.as_bytes()).is_err() {
        return ExitCode::FAILURE;
    }
    match (&report.failure, report.worst_loss()) {
        (Some(_), _) => ExitCode::FAILURE,
        (None, loss) if loss * 100.0 > options.max_loss => ExitCode::from(EXIT_LOSSY),
        (None, _) => ExitCode::SUCCESS,
    }
}

async fn probe(options: &ProbeOptions, key: &ApiKey) -> Report {
    // One process, one TLS backend; a second call finds it installed already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let mut report = Report::new(&options.edge_url, options.region.as_ref());
    let limit = Duration::from_secs(u64::from(options.deadline) + u64::from(options.seconds));
    let failure = match timeout(limit, call(options, key, &mut report)).await {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(error),
        Err(_) => Some(ProbeError::Deadline(options.deadline)),
    };
    report.failure = failure.map(|error| error.to_string());
    report
}

/// The call: one joins and sends, the other joins and receives, then media is measured.
async fn call(options: &ProbeOptions, key: &ApiKey, report: &mut Report) -> Result<(), ProbeError> {
    let room = format!("probe-{:016x}", rand::rng().random::<u64>());
    let clock = Clock::start();
    let mut publisher = Participant::join(Role::Publisher, &room, options, key, clock, &mut report.publisher).await?;
    report.region.clone_from(&publisher.region);
    report.node.clone_from(&publisher.node);
    if let Some(wanted) = options.region.as_ref().filter(|wanted| wanted.as_str() != publisher.region) {
        return Err(ProbeError::WrongRegion { found: publisher.region, wanted: wanted.to_string() });
    }
    let joining = Participant::join(Role::Subscriber, &room, options, key, clock, &mut report.subscriber);
    let mut subscriber = tokio::select! {
        joined = joining => joined?,
        error = publisher.attend() => return Err(error),
    };
    let streams = Kind::ALL.map(|kind| (kind, publisher.outgoing(kind), subscriber.incoming(kind)));
    let measured = tokio::select! {
        measured = measure(&streams, Duration::from_secs(options.seconds.into())) => measured,
        error = publisher.attend() => return Err(error),
        error = subscriber.attend() => return Err(error),
    };
    report.media = measured;
    subscriber.leave().await;
    publisher.leave().await;
    Ok(())
}

/// Lets media flow for a while and says what came of it.
async fn measure(streams: &[(Kind, Outgoing, Incoming)], time: Duration) -> Vec<(Kind, Quality)> {
    for (_, outgoing, incoming) in streams {
        incoming.first().await;
        incoming.begin(outgoing.sent());
    }
    tokio::time::sleep(time).await;
    let mut measured = Vec::new();
    for (kind, outgoing, incoming) in streams {
        measured.push((*kind, incoming.end(outgoing.sent()).await));
    }
    measured
}

fn region(text: &str) -> Result<RegionName, String> {
    RegionName::try_from(text).map_err(|error| format!("the region's name {error}"))
}

fn percent(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| "must be a number".to_owned())?;
    if (0.0..=100.0).contains(&value) { Ok(value) } else { Err("must be 0 to 100".to_owned()) }
}
