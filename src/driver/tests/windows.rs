//! Whole windows: what is performed, in which order, and what is not taken for something else.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rollbackd_core::plan::Missed;
use rollbackd_core::run::event::Ask;
use rollbackd_core::run::record::{Entry, Origin, Record, Trigger, WindowOutcome};
use rollbackd_core::run::state::State;
use rollbackd_core::run::step::StepResult;
use tokio::time::sleep;

use super::outside::Does;
use super::stage::{Stage, set_clock};
use crate::driver::Openings;
use crate::journal::Journal as _;

const SECOND: Duration = Duration::from_secs(1);
const BEFORE: [&str; 3] = ["preflight", "backup", "migrate"];
const ROLLBACK: [&str; 8] =
    ["read_gate", "close_gate", "inspect", "act", "inspect", "verify_closed", "open_gate", "verify_open"];

#[tokio::test(start_paused = true)]
async fn a_healthy_window_passes() {
    let stage = Stage::new();
    let mut running = stage.start();
    let id = running.open().await;
    assert_eq!(id, "shop-20261122T020000Z");
    assert_eq!(running.settled(1).await, WindowOutcome::Passed);
    assert_eq!(stage.outside.names(), BEFORE);
    assert_eq!(stage.journal.started(), BEFORE);
    let snapshot = running.snapshots.borrow().clone();
    assert_eq!(snapshot.ready, Ok(()));
    let settled = &snapshot.state.history[0];
    let took = settled.ended_at.duration_since(settled.started_at).as_secs();
    assert!((600..700).contains(&took), "a soak of 600 s and little else, took {took}");
}

#[tokio::test(start_paused = true)]
async fn a_breach_in_the_soak_is_rolled_back_each_step_once() {
    let stage = Stage::new();
    stage.outside.breaks.store(true, Ordering::SeqCst);
    let mut running = stage.start();
    running.open().await;
    assert_eq!(running.settled(1).await, WindowOutcome::Recovered);
    let all = [&BEFORE[..], &ROLLBACK[..]].concat();
    assert_eq!(stage.outside.names(), all);
    assert_eq!(stage.journal.started(), all);
    let numbers: Vec<u64> = stage.outside.performed().iter().map(|one| one.number).collect();
    assert_eq!(numbers, (1..=11).collect::<Vec<u64>>());
    for one in stage.outside.performed() {
        assert!(one.within >= 5 * SECOND, "{} has {:?}", one.step.name(), one.within);
    }
}

#[tokio::test(start_paused = true)]
async fn a_migration_in_flight_ends_before_the_ladder_begins() {
    let stage = Stage::new();
    stage.outside.breaks.store(true, Ordering::SeqCst);
    stage.outside.script("migrate", Does::Process(Box::new(Does::UntilAsked(4 * SECOND))));
    let mut running = stage.start();
    running.open().await;
    assert_eq!(running.settled(1).await, WindowOutcome::Recovered);
    assert_eq!(stage.outside.names(), [&BEFORE[..], &["end_process"], &ROLLBACK[..]].concat());
    let records = stage.journal.records();
    let place = |wanted: &dyn Fn(&Record) -> bool| records.iter().position(wanted).expect("a record");
    let ended = |of: u64| place(&move |record| matches!(record, Record::StepEnded { number, .. } if *number == of));
    let started = |of: u64| place(&move |record| matches!(record, Record::StepStarted { number, .. } if *number == of));
    assert!(place(&|record| matches!(record, Record::ProcessStarted { step: 3, .. })) < started(4));
    assert!(started(4) < ended(3), "it is ended by the step that is there for it");
    assert!(ended(3) < ended(4), "its end is known before that step's");
    assert!(ended(4) < started(5), "and only then the ladder begins");
}

#[tokio::test(start_paused = true)]
async fn an_adapter_that_never_returns_is_given_up() {
    for does in [Does::Never, Does::NeverAndKeepsTheChannel, Does::Process(Box::new(Does::NeverAndKeepsTheChannel))] {
        let stage = Stage::new();
        stage.outside.script("preflight", does);
        let mut running = stage.start();
        running.open().await;
        assert_eq!(running.settled(1).await, WindowOutcome::Refused);
        let ended = stage
            .journal
            .records()
            .into_iter()
            .find_map(|record| if let Record::StepEnded { outcome, .. } = record { Some(outcome) } else { None });
        let ended = ended.expect("an end");
        assert_eq!((ended.result, ended.detail.contains("was given up")), (StepResult::TimedOut, true));
        let settled = running.snapshots.borrow().state.history[0].clone();
        let took = settled.ended_at.duration_since(settled.started_at).as_secs();
        assert!((150..=156).contains(&took), "60 s and 90 s of overtime, took {took}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_not_wanted_any_more_is_asked_to_stop_and_its_late_end_is_nobody_elses() {
    let stage = Stage::new();
    stage.outside.script("backup", Does::UntilAsked(40 * SECOND));
    stage.outside.script("backup", Does::Succeeds(100 * SECOND));
    let mut running = stage.start();
    running.open().await;
    running.in_flight("backup").await;
    running.ask(Ask::Cancel { abandon: false }).await.expect("it is cancelled");
    running.wait("asked to stop", || stage.outside.asked.load(Ordering::SeqCst)).await;
    let second = running.open().await;
    running.in_flight("backup").await;
    let began = stage.journal.entries().last().unwrap().at;
    running.in_flight("migrate").await;
    let entries = stage.journal.entries();
    let of_second = |wanted: fn(&Record) -> bool| {
        let mut found = entries.iter().filter(|entry| entry.window.as_ref() == Some(&second) && wanted(&entry.record));
        let one = found.next().expect("a record");
        assert!(found.next().is_none(), "one only");
        one.at
    };
    let ended = of_second(|record| matches!(record, Record::StepEnded { number: 2, .. }));
    assert!(ended.duration_since(began).as_secs() >= 95, "it took the first window's end for its own");
    assert_eq!(stage.outside.names(), ["preflight", "backup", "preflight", "backup", "migrate"]);
}

#[tokio::test(start_paused = true)]
async fn a_crash_in_the_middle_of_the_ladder_goes_on() {
    let mut stage = Stage::new();
    let rungs = &mut stage.plan.rollback.rungs;
    rungs.remove(0);
    stage.outside.breaks.store(true, Ordering::SeqCst);
    stage.outside.script("act", Does::Never);
    let mut running = stage.start();
    running.open().await;
    running.in_flight("act").await;
    running.crash().await;
    let mut again = stage.start();
    assert_eq!(again.settled(1).await, WindowOutcome::Recovered);
    let names = stage.outside.names();
    assert_eq!(names.iter().filter(|name| **name == "act").count(), 2, "tables are removed again: {names:?}");
    assert_eq!(names.iter().filter(|name| **name == "close_gate").count(), 1, "{names:?}");
    let breaches = stage.journal.records().iter().filter(|one| matches!(one, Record::BreachDetected { .. })).count();
    assert_eq!(breaches, 1);
}

#[tokio::test(start_paused = true)]
async fn a_crash_in_a_script_does_not_run_it_again() {
    let stage = Stage::new();
    stage.outside.breaks.store(true, Ordering::SeqCst);
    stage.outside.script("act", Does::Never);
    let mut running = stage.start();
    running.open().await;
    running.in_flight("act").await;
    running.crash().await;
    let mut again = stage.start();
    assert_eq!(again.settled(1).await, WindowOutcome::Recovered);
    let acts: Vec<_> = stage.outside.performed().into_iter().filter(|one| one.step.name() == "act").collect();
    let rungs: Vec<_> = acts.iter().map(|one| serde_json::to_value(&one.step).unwrap()["rung"].clone()).collect();
    assert_eq!(rungs, [0, 1], "the script once, then the next rung");
}

#[tokio::test(start_paused = true)]
async fn a_rung_that_fails_leads_to_the_next() {
    let stage = Stage::new();
    stage.outside.breaks.store(true, Ordering::SeqCst);
    stage.outside.script("act", Does::Fails("exit 1"));
    let mut running = stage.start();
    running.open().await;
    assert_eq!(running.settled(1).await, WindowOutcome::Recovered);
    assert_eq!(stage.outside.names().iter().filter(|name| **name == "act").count(), 2);
}

fn nightly() -> Openings {
    let schedule = rollbackd_core::window::parse("5 2 * * *").unwrap();
    Openings { schedule, zone: jiff::tz::TimeZone::UTC }
}

#[tokio::test(start_paused = true)]
async fn doubled_pulses_open_one_window() {
    let stage = Stage { openings: Some(nightly()), ..Stage::new() };
    let mut running = stage.start();
    let first = running.until("the next opening", |snapshot| snapshot.next_window_at.is_some()).await;
    assert_eq!(first.next_window_at.unwrap().to_string(), "2026-11-22T02:05:00Z");
    for _ in 0..5 {
        running.pulses.send(()).await.unwrap();
    }
    sleep(299 * SECOND).await;
    assert!(running.snapshots.borrow().state.window.is_none(), "early pulses open nothing");
    sleep(SECOND).await;
    for _ in 0..5 {
        running.pulses.send(()).await.unwrap();
    }
    assert_eq!(running.settled(1).await, WindowOutcome::Passed);
    for _ in 0..5 {
        running.pulses.send(()).await.unwrap();
    }
    sleep(60 * SECOND).await;
    let records = stage.journal.records();
    assert_eq!(records.iter().filter(|record| matches!(record, Record::WindowOpened { .. })).count(), 1);
    assert_eq!(records.iter().filter(|record| matches!(record, Record::OpeningMissed { .. })).count(), 0);
    let tomorrow = running.until("tomorrow", |snapshot| snapshot.next_window_at > first.next_window_at).await;
    assert_eq!(tomorrow.next_window_at.unwrap().to_string(), "2026-11-23T02:05:00Z");
}

#[tokio::test(start_paused = true)]
async fn an_alarm_that_never_fires_or_late_keeps_no_window_from_opening() {
    for late in [None, Some(90 * SECOND)] {
        let stage = Stage { openings: Some(nightly()), ..Stage::new() };
        let mut running = stage.start();
        running.until("the next opening", |snapshot| snapshot.next_window_at.is_some()).await;
        sleep(301 * SECOND).await;
        running.until("it is open", |snapshot| snapshot.state.window.is_some()).await;
        if let Some(late) = late {
            sleep(late).await;
            running.pulses.send(()).await.unwrap();
        }
        assert_eq!(running.settled(1).await, WindowOutcome::Passed);
        let opened = |record: &&Record| matches!(record, Record::WindowOpened { .. });
        assert_eq!(stage.journal.records().iter().filter(opened).count(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn an_opening_that_nobody_saw_is_left_out_or_made_up_for() {
    for (missed, opened) in [(Missed::Skip, 0), (Missed::Run, 1)] {
        let mut stage = Stage { openings: Some(nightly()), ..Stage::new() };
        stage.plan.window.missed = missed;
        let running = stage.start();
        sleep(SECOND).await;
        running.crash().await;
        sleep(3600 * SECOND).await;
        let mut again = stage.start();
        again.until("the opening", |snapshot| snapshot.state.last_opening.is_some()).await;
        let records = stage.journal.records();
        assert_eq!(records.iter().filter(|record| matches!(record, Record::WindowOpened { .. })).count(), opened);
        assert_eq!(records.iter().filter(|record| matches!(record, Record::OpeningMissed { .. })).count(), 1 - opened);
    }
}

#[tokio::test(start_paused = true)]
async fn a_migration_that_fails_is_rolled_back() {
    let stage = Stage::new();
    stage.outside.script("migrate", Does::Fails("exit 3"));
    let mut running = stage.start();
    running.open().await;
    assert_eq!(running.settled(1).await, WindowOutcome::Recovered);
    let trigger = stage
        .journal
        .records()
        .into_iter()
        .find_map(|record| if let Record::BreachDetected { trigger } = record { Some(trigger) } else { None });
    assert_eq!(trigger, Some(Trigger::Migration { detail: "exit 3".to_owned() }));
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_back_only_delays() {
    let stage = Stage::new();
    stage.outside.script("migrate", Does::Succeeds(20 * SECOND));
    let mut running = stage.start();
    running.open().await;
    running.in_flight("migrate").await;
    set_clock(-600_000);
    assert_eq!(running.settled(1).await, WindowOutcome::Passed);
    assert_eq!(stage.outside.names(), BEFORE);
}

/// Old windows are let go when one is settled, and what is known of the others stays.
#[tokio::test(start_paused = true)]
async fn old_windows_are_let_go_after_one_is_settled() {
    let stage = Stage::new();
    let plan = Arc::new(stage.plan.clone());
    let windows = 1100_u64;
    let records = (0..windows).flat_map(|number| {
        let (id, at) = (format!("old-{number}"), super::stage::now());
        let opened = Record::WindowOpened {
            id: id.clone(),
            origin: Origin::Schedule,
            opening: None,
            ends_at: at,
            plan: Arc::clone(&plan),
        };
        let settled = Record::WindowSettled { outcome: WindowOutcome::Passed, detail: String::new() };
        let entry = |seq, record| Entry { seq, at, window: Some(id.clone()), record };
        [entry(2 * number + 1, opened), entry(2 * number + 2, settled)]
    });
    stage.journal.append(&records.collect::<Vec<_>>()).unwrap();
    let mut running = stage.start();
    let id = running.open().await;
    assert_eq!(running.snapshots.borrow().state.history.len(), 1100);
    let after = running.until("old windows are gone", |snapshot| snapshot.state.history.len() == 1000).await;
    assert_eq!((after.state.let_go, after.state.history[999].id.as_str()), (101, id.as_str()));
    assert_eq!(after.state.counts.decisions["pass"], 1101, "what was counted stays");
    let entries = stage.journal.entries();
    assert!(matches!(entries[0].record, Record::Condensed { .. }), "{:?}", entries[0]);
    assert_eq!((entries[0].seq, entries[1].window.as_deref()), (202, Some("old-101")));
    assert_eq!(running.records(Some("old-101")).await.unwrap().len(), 2);
    assert_eq!(running.records(Some("old-100")).await.unwrap().len(), 0);
    running.until("all is told", |snapshot| snapshot.state.owed.is_empty()).await;
    assert_eq!(State::replay(&stage.journal.entries()), *running.snapshots.borrow().state, "so a restart finds it");
}
