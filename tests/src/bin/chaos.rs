//! `cargo xtask chaos`: everything breaks under real calls, by a seed.

use std::time::Duration;

use anyhow::Result;
use clap::Parser;

/// Break edge, nodes and links under real calls, and see that all heals.
#[derive(Parser)]
struct Args {
    /// For so long, seconds.
    #[arg(long, default_value_t = 600)]
    seconds: u64,
    /// What breaks, in which order and when.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    meridian_tests::chaos::run(args.seed, Duration::from_secs(args.seconds)).await
}
