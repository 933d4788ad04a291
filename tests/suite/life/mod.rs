//! The program's life beyond one good run: it is killed and asked to end, it finds its directory full or taken, its
//! servers away and its journal damaged; people and the schedule open windows, and somebody looks at all of it.

#![expect(
    clippy::wildcard_enum_match_arm,
    clippy::format_push_string,
    clippy::print_stderr,
    reason = "tests look for a few kinds of record, write configurations, and say what they cannot try here"
)]

mod clocks;
mod crash;
mod frozen;
mod heartbeat;
mod journal;
mod metrics;
mod notices;
mod operator;
mod orphans;
mod points;
mod refusals;
mod reload;
mod schedule;
mod secrets;
mod start;
mod systemd;
mod text;
mod volume;

use std::collections::BTreeSet;

use rollbackd_core::run::record::{Entry, Record, WindowOutcome};
use rollbackd_core::run::step::Step;

use crate::stage::{Daemon, Stage, eventually, until};

/// How a daemon is ended in the middle of its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// SIGKILL.
    Killed,
    /// SIGTERM.
    Asked,
}

/// Ends a daemon. One that is asked does so in bounded time, and calls it a success.
#[track_caller]
fn end(daemon: Daemon, how: End) {
    match how {
        End::Killed => drop(daemon.kill().expect(128 + 9)),
        End::Asked => {
            let watch = rollbackd::clock::Stopwatch::start();
            daemon.term().expect(0);
            assert!(watch.elapsed() < std::time::Duration::from_secs(15), "it took {:?} to end", watch.elapsed());
        }
    }
}

/// Opens a window by hand, and waits until the migration may run.
#[track_caller]
fn open(stage: &Stage) {
    stage.cli(&["window", "open", "--reason", "a test"]).expect(0);
}

/// The steps that were started, in order, by name.
fn steps(records: &[Entry]) -> Vec<&'static str> {
    let started = records.iter().filter_map(|entry| match &entry.record {
        Record::StepStarted { step, .. } => Some(step.name()),
        _ => None,
    });
    started.collect()
}

/// How often a step of this name was started.
fn count(records: &[Entry], step: &str) -> usize {
    steps(records).into_iter().filter(|name| *name == step).count()
}

/// How often a rollback was started.
fn rollbacks(records: &[Entry]) -> usize {
    records.iter().filter(|entry| matches!(entry.record, Record::BreachDetected { .. })).count()
}

/// How the window ended.
fn outcome(records: &[Entry]) -> Option<WindowOutcome> {
    records.iter().find_map(|entry| match entry.record {
        Record::WindowSettled { outcome, .. } => Some(outcome),
        _ => None,
    })
}

/// Waits until a step of this kind was started and has not ended.
#[track_caller]
fn wait_for_step(stage: &Stage, wanted: &str) {
    eventually(&format!("{wanted} is under way"), || {
        let records = stage.records();
        let mut running: Vec<(u64, Step)> = Vec::new();
        for entry in &records {
            match &entry.record {
                Record::StepStarted { number, step, .. } => running.push((*number, step.clone())),
                Record::StepEnded { number, .. } => running.retain(|(other, _)| other != number),
                _ => {}
            }
        }
        if running.iter().any(|(_, step)| step.name() == wanted) { Ok(()) } else { Err(steps(&records)) }
    });
}

/// Waits until every notice that the window's records owe has arrived, and no other.
#[track_caller]
fn assert_everybody_was_told(stage: &Stage) {
    let mut owed = BTreeSet::new();
    for entry in stage.records() {
        if let Record::NoticeOwed { notice } = entry.record {
            assert!(owed.insert(notice.id.clone()), "{} is owed twice", notice.id);
        }
    }
    eventually("every notice has arrived", || {
        let arrived: BTreeSet<String> = stage.hooks.ids().into_iter().collect();
        if owed.is_subset(&arrived) { Ok(()) } else { Err(format!("{arrived:?} of {owed:?}")) }
    });
    let arrived: BTreeSet<String> = stage.hooks.ids().into_iter().collect();
    assert_eq!(arrived, owed);
    // What comes twice under one id says the same.
    for (id, body) in stage.hooks.ids().into_iter().zip(stage.hooks.bodies()) {
        let first = stage.hooks.ids().iter().position(|other| *other == id).map(|at| stage.hooks.bodies().remove(at));
        assert_eq!(Some(&body["data"]), first.as_ref().map(|first| &first["data"]), "{id}");
    }
}

/// What must be so after every rollback that was interrupted or ran into a fault, and came to a good end. Ends the daemon.
#[track_caller]
pub(crate) fn assert_recovered(stage: &Stage, daemon: Daemon) {
    stage.wait_for_state("recovered");
    let records = stage.records();
    assert_eq!(rollbacks(&records), 1, "{:?}", steps(&records));
    assert_eq!(outcome(&records), Some(WindowOutcome::Recovered));
    assert_everybody_was_told(stage);
    assert!(!stage.path("maintenance").exists(), "traffic is resumed");
    assert!(!stage.new_tables().iter().any(|table| table.starts_with("public.")), "{:?}", stage.new_tables());
    stage.assert_originals_whole();
    daemon.term().expect(0);
    stage.assert_nothing_runs();
    let kept = stage.records();
    let (told, later) = kept.split_at(records.len());
    assert_eq!(told, records, "what the daemon said is what the journal holds");
    let delivered = later.iter().all(|entry| matches!(entry.record, Record::NoticeDelivered { .. }));
    assert!(delivered, "only receipts of notices may have come since: {:?}", steps(later));
}

/// Waits until a file is there.
#[track_caller]
fn wait_for_file(stage: &Stage, name: &str) {
    until(&format!("{name} is there"), || stage.path(name).exists());
}

/// Makes a file.
fn touch(stage: &Stage, name: &str) {
    std::fs::write(stage.path(name), "").unwrap();
}
