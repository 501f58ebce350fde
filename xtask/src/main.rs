//! `cargo xtask`: each command sets up what it needs, then runs.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use xtask::bench::Bench;
use xtask::chaos::Chaos;
use xtask::deploy::Deploy;
use xtask::dev::Dev;
use xtask::fuzz::Fuzz;
use xtask::operator::rotate::Rotate;
use xtask::operator::{Fleet, MakeSecrets};
use xtask::package::{Image, Package};
use xtask::pin::Pin;
use xtask::sim::Sim;
use xtask::suite::Suite;
use xtask::upgrade::Upgrade;
use xtask::{page, setup, wasm};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Meridian: develop, test and measure")]
struct Args {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    Dev(Dev),
    Test(Suite),
    Bench(Bench),
    Fuzz(Fuzz),
    Sim(Sim),
    Chaos(Chaos),
    Upgrade(Upgrade),
    Deploy(Deploy),
    Secrets(MakeSecrets),
    Rotate(Rotate),
    Fleet(Fleet),
    /// Install what is missing for everything else.
    Setup,
    /// Bundle the meeting page into web/dist.
    Page,
    Package(Package),
    Pin(Pin),
    Image(Image),
    /// Build the Worker for deployment.
    Worker,
}

fn main() -> ExitCode {
    match run(&Args::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: &Task) -> Result<()> {
    match task {
        Task::Dev(dev) => dev.run(),
        Task::Test(suite) => suite.run(),
        Task::Bench(bench) => bench.run(),
        Task::Fuzz(fuzz) => fuzz.run(),
        Task::Sim(sim) => sim.run(),
        Task::Chaos(chaos) => chaos.run(),
        Task::Upgrade(upgrade) => upgrade.run(),
        Task::Deploy(deploy) => deploy.run(),
        Task::Secrets(secrets) => secrets.run(),
        Task::Rotate(rotate) => rotate.run(),
        Task::Fleet(fleet) => fleet.run(),
        Task::Setup => setup::for_tests(),
        Task::Page => {
            setup::for_build()?;
            page::build()
        }
        Task::Package(package) => package.run(),
        Task::Pin(pin) => pin.run(),
        Task::Image(image) => image.run(),
        Task::Worker => {
            setup::for_build()?;
            page::build()?;
            wasm::build(wasm::Profile::Release).map(drop)
        }
    }
}
