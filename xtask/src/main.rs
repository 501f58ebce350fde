//! `cargo xtask`: each command sets up what it needs, then runs.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use xtask::{page, setup};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Meridian: develop, test and measure")]
struct Args {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what is missing for everything else.
    Setup,
    /// Bundle the meeting page into web/dist.
    Page,
}

fn main() -> ExitCode {
    match run(Args::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<()> {
    match task {
        Task::Setup => setup::for_tests(),
        Task::Page => {
            setup::for_build()?;
            page::build()
        }
    }
}
