//! Old windows are let go: the file stays as large as what is kept, and what is kept stays as it was.

use rollbackd_core::report;
use rollbackd_core::run::record::{Origin, Trigger, WindowOutcome};
use rollbackd_core::run::state::State;

use super::*;
use crate::journal::retention::{Limits, at_start, let_go};
use crate::server::fixture;

const SMALL: Limits = Limits { windows: 40, bytes: 1 << 30, at_least: 5 };

/// The records of a window that was rolled back and weighs so many bytes, and those of the restart before it.
fn window(number: u64, last: u64, bytes: usize) -> Vec<Entry> {
    let at = fixture::at("02:00:00") + jiff::SignedDuration::from_hours(i64::try_from(number).unwrap());
    let id = format!("shop-{number}");
    let records = vec![
        (None, Record::Started { version: "0.1.0".to_owned() }),
        (
            Some(id.clone()),
            Record::WindowOpened {
                id: id.clone(),
                origin: Origin::Operator { who: "ann".to_owned(), reason: "x".repeat(bytes) },
                opening: Some(at),
                ends_at: at,
                plan: std::sync::Arc::new(fixture::plan()),
            },
        ),
        (Some(id.clone()), Record::BreachDetected { trigger: Trigger::HardEnd }),
        (Some(id), Record::WindowSettled { outcome: WindowOutcome::Recovered, detail: "it is over".to_owned() }),
    ];
    (last + 1..).zip(records).map(|(seq, (window, record))| Entry { seq, at, window, record }).collect()
}

fn reports(entries: &[Entry], state: &State) -> Vec<report::Report> {
    let of = |id: &str| {
        let own: Vec<Entry> = entries.iter().filter(|entry| entry.window.as_deref() == Some(id)).cloned().collect();
        report::of(&own).unwrap()
    };
    state.history.iter().map(|settled| of(&settled.id)).collect()
}

#[test]
fn the_file_stays_bounded_over_thousands_of_windows() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _) = RedbJournal::open(directory.path()).unwrap();
    let mut state = State::default();
    let size = || std::fs::metadata(directory.path().join(redb::FILE)).unwrap().len();
    let (mut largest, mut at_tenth) = (0, 0);
    let mut some: Vec<Entry> = Vec::new();
    for number in 0..3000 {
        let records = window(number, state.seq + some.len() as u64, 2_000);
        some.extend(records);
        if number % 10 != 9 {
            continue;
        }
        journal.append(&some).unwrap();
        some.drain(..).for_each(|entry| state.apply(&entry));
        if let Some(first) = let_go(&journal, &state.history, SMALL).unwrap() {
            state.forget_before(first);
            assert_eq!(state.history.len(), 40);
        }
        largest = largest.max(size());
        if number == 299 {
            at_tenth = largest;
        }
    }
    assert!(largest <= at_tenth, "it grew from {at_tenth} to {largest} bytes");
    drop(journal);
    let (journal, mut entries) = RedbJournal::open(directory.path()).unwrap();
    assert_eq!(State::replay(&entries), state, "what is known is the same after a restart");
    assert!(state.history.len() >= 40 && state.let_go + state.history.len() as u64 == 3000);
    assert_eq!(state.counts.rollbacks["hard_end"], 3000, "what was counted stays");
    at_start(&journal, &mut entries, SMALL);
    assert_eq!(journal.read_from(1).unwrap(), entries);
    println!("journal: 3000 windows, {largest} bytes at most, {} after the start", size());
}

#[test]
fn what_is_kept_is_unchanged_and_the_file_is_made_smaller() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _) = RedbJournal::open(directory.path()).unwrap();
    let mut all = Vec::new();
    for number in 0..100 {
        all.extend(window(number, all.len() as u64, 200_000));
    }
    journal.append(&all).unwrap();
    let before = State::replay(&all);
    let told = reports(&all, &before);
    drop(journal);
    let size = || std::fs::metadata(directory.path().join(redb::FILE)).unwrap().len();
    let large = size();
    let (journal, mut entries) = RedbJournal::open(directory.path()).unwrap();
    at_start(&journal, &mut entries, Limits { windows: 10, ..SMALL });
    drop(journal);
    assert!(size() < large / 4, "{} of {large} bytes", size());
    let (journal, read) = RedbJournal::open(directory.path()).unwrap();
    assert_eq!(read, entries);
    let after = State::replay(&read);
    assert_eq!(after.history, before.history[90..]);
    assert!(reports(&read, &after) == told[90..], "a report has changed");
    journal.append(&window(100, after.seq, 10)).unwrap();
}

#[test]
fn nothing_is_let_go_while_a_window_is_open() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _) = RedbJournal::open(directory.path()).unwrap();
    let mut all = Vec::new();
    for number in 0..20 {
        all.extend(window(number, all.len() as u64, 10));
    }
    all.pop();
    journal.append(&all).unwrap();
    let mut entries = all.clone();
    at_start(&journal, &mut entries, Limits { windows: 2, at_least: 1, ..SMALL });
    assert_eq!((&entries, &journal.read_from(1).unwrap()), (&all, &all));
}

#[test]
fn windows_are_kept_by_number_and_by_weight() {
    let settled = |first_seq: u64| rollbackd_core::run::state::Settled {
        id: first_seq.to_string(),
        outcome: WindowOutcome::Passed,
        started_at: fixture::at("02:00:00"),
        ended_at: fixture::at("03:00:00"),
        first_seq,
    };
    let history: Vec<_> = [2, 4, 6, 8].map(settled).to_vec();
    let sizes: Vec<(u64, usize)> = (1..=9).map(|seq| (seq, 10)).collect();
    let first = |windows, bytes, at_least| Limits { windows, bytes, at_least }.first_kept(&history, &sizes);
    assert_eq!(first(4, 1000, 1), None, "all are kept");
    assert_eq!(first(3, 1000, 1), Some(4));
    assert_eq!(first(1, 1000, 1), Some(8));
    assert_eq!(first(9, 80, 1), None);
    assert_eq!(first(9, 79, 1), Some(4));
    assert_eq!(first(9, 0, 2), Some(6), "so many are kept whatever they weigh");
}
