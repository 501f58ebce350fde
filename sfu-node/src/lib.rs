//! The media node. A library, so that benchmarks and fuzz targets reach the packet path; `main.rs` only calls [`main`].

mod auth;
mod conference;
mod config;
mod control;
mod cpu;
mod edge;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod http;
pub mod media;
mod metrics;
mod node;
mod probe;
mod session;
#[cfg(feature = "sim")]
#[doc(hidden)]
pub mod simulated;
mod tls;

use std::io::{IsTerminal, stderr};
use std::process::ExitCode;

use clap::{Args, Command, CommandFactory, FromArgMatches};
use tracing_subscriber::EnvFilter;

use self::config::{Config, LogFormat};
use self::probe::ProbeOptions;

/// Exit status when the configuration is wrong (sysexits.h `EX_CONFIG`).
const EXIT_CONFIG: u8 = 78;

/// Name of the command that only looks whether a call works.
const PROBE: &str = "probe";

/// Reads the configuration from arguments and environment, starts everything, ends on SIGTERM.
#[must_use]
pub fn main() -> ExitCode {
    let matches = command().get_matches();
    if let Some((PROBE, matches)) = matches.subcommand() {
        return match ProbeOptions::from_arg_matches(matches) {
            Ok(options) => probe::main(&options),
            Err(error) => error.exit(),
        };
    }
    match Config::from_arg_matches(&matches) {
        Ok(config) => serve(config),
        Err(error) => error.exit(),
    }
}

/// The node's own options, or those of a command.
fn command() -> Command {
    let probe = ProbeOptions::augment_args(Command::new(PROBE));
    // What a node must know, a command need not.
    Config::command().subcommand(probe).subcommand_negates_reqs(true)
}

fn serve(config: Config) -> ExitCode {
    if let Err(error) = config.check() {
        eprintln!("sfu-node: {error}");
        return ExitCode::from(EXIT_CONFIG);
    }
    if let Err(error) = config.tls().map_or(Ok(()), |source| source.check()) {
        eprintln!("sfu-node: {error}");
        return ExitCode::from(EXIT_CONFIG);
    }
    if let Err(error) = start_logging(&config) {
        eprintln!("sfu-node: --log: {error}");
        return ExitCode::from(EXIT_CONFIG);
    }
    if config.check_config {
        println!("the configuration is fine");
        return ExitCode::SUCCESS;
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("sfu-node: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(node::run(config)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sfu-node: {error}");
            ExitCode::FAILURE
        }
    }
}

fn start_logging(config: &Config) -> Result<(), tracing_subscriber::filter::ParseError> {
    let filter = EnvFilter::try_new(&config.log)?;
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr).with_ansi(stderr().is_terminal());
    match config.log_format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().init(),
    }
    Ok(())
}
