//! `cargo xtask bench`: what the node costs and gives, other servers beside it.

use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;
use meridian_tests::bench::command::{Options, Task, run, usual_directory};

/// Measure our node, and other servers beside it.
#[derive(Parser)]
struct Args {
    /// What.
    #[arg(value_enum)]
    what: Task,
    #[command(flatten)]
    options: Options,
    /// Directory the figures of one measurement go to (JSON); `all` has a place of its own.
    #[arg(long, default_value_os_t = usual_directory())]
    out: PathBuf,
}

// One thread: what the subscribers cost is not spread over the CPUs by chance.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let args = Args::parse();
    run(args.what, &args.options, &args.out).await
}
