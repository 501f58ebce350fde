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
mod session;
mod tls;

use std::io::{IsTerminal, stderr};
use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;

use self::config::{Config, LogFormat};

/// Exit status when the configuration is wrong (sysexits.h `EX_CONFIG`).
const EXIT_CONFIG: u8 = 78;

/// Reads the configuration from arguments and environment, starts everything, ends on SIGTERM.
#[must_use]
pub fn main() -> ExitCode {
    let config = Config::parse();
    if let Err(error) = config.check() {
        eprintln!("sfu-node: {error}");
        return ExitCode::from(EXIT_CONFIG);
    }
    if let Err(error) = config.tls().map_or(Ok(()), |files| files.load().map(drop)) {
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
