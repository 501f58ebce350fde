//! `cargo xtask sim`: runs seeds, says which did not end well.

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use meridian_sim::rules::Rule;
use meridian_sim::run;

/// Run room, fleet and nodes in a virtual world: one seed is one run.
#[derive(Parser)]
#[command(name = "cargo xtask sim")]
struct Args {
    /// How many seeds.
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// The first one.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Only this one, with all that happens in it.
    #[arg(long)]
    seed: Option<u64>,
    /// Go without a rule, to see that this is found out.
    #[arg(long, value_enum)]
    broken: Option<Rule>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(seed) = args.seed {
        let outcome = run(seed, args.broken, true);
        print!("{}", outcome.log);
        outcome.faults.iter().for_each(|fault| println!("FAULT: {fault}"));
        return if outcome.faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let started = Instant::now();
    let (mut failed, mut turns) = (0, 0);
    for seed in args.from..args.from.saturating_add(args.seeds) {
        let outcome = run(seed, args.broken, false);
        turns += outcome.turns;
        if let Some(fault) = outcome.faults.first() {
            failed += 1;
            println!("seed {seed}: {} faults, the first: {fault}", outcome.faults.len());
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    println!("{} seeds, {failed} failed, {turns} turns, {seconds:.1} s", args.seeds);
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
