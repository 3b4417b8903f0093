//! Random transfers with a random fault in each, for as long as you like; then the same command again, and a look at
//! what is there. Beside them, one long run each way by SFTP and FTP over a link that keeps breaking, whose memory,
//! descriptors and threads are sampled. Started by `scripts/chaos`.
//!
//! The same seed gives the same cases in the same order, as far as the servers are the same; only the instants of
//! kills and signals depend on the machine. `--case N` runs one of them again.

#![allow(clippy::print_stdout, clippy::print_stderr, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;

#[path = "../mod.rs"]
mod support;

mod case;
mod run;
mod sample;
mod soak;
mod stage;
mod table;

use case::Case;
use soak::Soak;
use stage::Stage;
use table::Table;

/// Breaks transfers at random and counts what is lost.
#[derive(Parser)]
#[command(name = "chaos")]
struct Cli {
    /// How long
    #[arg(long, default_value_t = 5.0)]
    minutes: f64,
    /// What to do: the same number, the same cases
    #[arg(long)]
    seed: Option<u64>,
    /// The program
    #[arg(long, default_value = "target/release/haul")]
    haul: PathBuf,
    /// Run this case only, and say what haul said
    #[arg(long)]
    case: Option<u64>,
    /// Name each case
    #[arg(long)]
    verbose: bool,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let seed = cli.seed.unwrap_or_else(support::data::seed);
    let Ok(haul) = cli.haul.canonicalize() else {
        eprintln!("chaos: {} isn't there; cargo build --release makes it", cli.haul.display());
        return ExitCode::from(2);
    };
    let stage = Stage::new(&haul, seed);
    println!("seed {seed}, {} minutes, {}", cli.minutes, stage.names().join(", "));
    let table = match cli.case {
        Some(number) => one(stage, seed, number),
        None => all(stage, seed, Duration::from_secs_f64(cli.minutes * 60.0), cli.verbose),
    };
    print!("{table}");
    if table.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn one(mut stage: Stage, seed: u64, number: u64) -> Table {
    let mut table = Table::default();
    let case = Case::draw(&stage, seed, number);
    println!("{case}");
    table.loud();
    table.add(&run::run(&mut stage, &case));
    table
}

fn all(mut stage: Stage, seed: u64, time: Duration, verbose: bool) -> Table {
    let began = Instant::now();
    let soaks = [Soak::start(&stage.haul, "sftp", seed, time), Soak::start(&stage.haul, "ftp", seed, time)];
    let mut table = Table::default();
    let mut said = Instant::now();
    for number in 0.. {
        if began.elapsed() >= time {
            break;
        }
        let case = Case::draw(&stage, seed, number);
        let outcome = run::run(&mut stage, &case);
        if verbose || !outcome.is_clean() {
            println!("{outcome}");
        }
        table.add(&outcome);
        if said.elapsed() > Duration::from_secs(60) {
            said = Instant::now();
            println!("{:4} s: {}", began.elapsed().as_secs(), table.line());
        }
    }
    for soak in soaks {
        table.add_soak(soak.end());
    }
    table
}
