//! Decision quality: false rollbacks, missed faults, and how long it takes until a fault is noticed.
//!
//! Seeded models of traffic and faults ([`world`]) are turned into samples, and the samples go through the real judge in
//! virtual time: with the rules of the shipped configuration, and with two rules modelled on other systems ([`rivals`]).
//! `make bench-decisions` prints the tables and writes `target/bench/decisions.json`.

#![expect(
    clippy::print_stdout,
    clippy::panic,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a benchmark prints, stops at the first mistake, and counts small numbers"
)]

mod rivals;
mod runs;
mod table;
mod world;

use std::path::Path;

use rollbackd_core::plan::Plan;

/// The runs of each model when nothing else is asked for.
const RUNS: u64 = 300;

fn main() {
    let runs = std::env::var("RUNS").ok().and_then(|text| text.parse().ok()).unwrap_or(RUNS);
    let seed = std::env::var("SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(20_261_122);
    let results = runs::all(&shipped(), runs, seed);
    let text = table::of(&results, runs, seed);
    println!("{text}");
    let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench");
    std::fs::create_dir_all(&place).expect("a directory for the results");
    let json = serde_json::to_string_pretty(&results).expect("results");
    std::fs::write(place.join("decisions.json"), json).expect("written");
}

/// The plan of the configuration that comes with the program.
fn shipped() -> Plan {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/rollbackd.toml");
    let loaded = rollbackd::config::load(&path).unwrap_or_else(|problems| panic!("{problems}"));
    loaded.config.plan("bench")
}
