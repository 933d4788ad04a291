//! The journal fails, hangs, or lies about having failed.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rollbackd_core::run::event::Ask;
use rollbackd_core::run::record::{Record, WindowOutcome};
use tokio::time::sleep;

use super::journal::{Mode, Release};
use super::outside::Does;
use super::stage::Stage;
use crate::driver::End;

const SECOND: Duration = Duration::from_secs(1);

/// Lets a tenth of a second pass. While a write hangs, tokio's time stands still unless it is moved.
async fn pass() {
    tokio::time::advance(SECOND / 10).await;
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

const fn breach(record: &Record) -> bool {
    matches!(record, Record::BreachDetected { .. })
}

fn act_starts(record: &Record) -> bool {
    matches!(record, Record::StepStarted { step, .. } if step.name() == "act")
}

fn act_ends(record: &Record) -> bool {
    matches!(record, Record::StepEnded { outcome, .. } if outcome.detail == "act is done")
}

fn count(records: &[Record], wanted: fn(&Record) -> bool) -> usize {
    records.iter().filter(|record| wanted(record)).count()
}

#[tokio::test(start_paused = true)]
async fn while_the_journal_fails_nothing_is_done_and_it_is_said() {
    let stage = Stage::new();
    stage.outside.breaks.store(true, Ordering::SeqCst);
    stage.journal.set_at(breach, Mode::Fails);
    let mut running = stage.start();
    running.open().await;
    let failing = running.until("the error", |snapshot| snapshot.journal_error.is_some()).await;
    let error = failing.journal_error.clone().unwrap();
    assert!(error.contains("no space left on device"), "{error}");
    assert_eq!(failing.ready, Err(error));
    assert!(failing.state.window.as_ref().unwrap().rollback.is_none(), "what is not durable is not shown");
    let done = stage.outside.names();
    sleep(1800 * SECOND).await;
    assert_eq!(stage.outside.names(), done, "nothing is performed");
    let still = running.snapshots.borrow().clone();
    assert!(still.at.duration_since(failing.at).as_secs() > 1700, "it is alive and says so");
    stage.journal.set(Mode::Works);
    let good = running.until("no error", |snapshot| snapshot.journal_error.is_none()).await;
    assert_eq!(good.ready, Ok(()));
    assert_eq!(running.settled(1).await, WindowOutcome::Recovered);
    assert_eq!(count(&stage.journal.records(), breach), 1);
    assert_eq!(stage.outside.names().iter().filter(|name| **name == "act").count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_step_that_waited_for_the_journal_has_its_whole_time() {
    let stage = Stage::new();
    stage.outside.breaks.store(true, Ordering::SeqCst);
    stage.journal.set_at(act_starts, Mode::Fails);
    let mut running = stage.start();
    running.open().await;
    running.until("the error", |snapshot| snapshot.journal_error.is_some()).await;
    sleep(400 * SECOND).await;
    stage.journal.set(Mode::Works);
    assert_eq!(running.settled(1).await, WindowOutcome::Recovered);
    let act = stage.outside.performed().into_iter().find(|one| one.step.name() == "act").unwrap();
    assert!(act.within > 290 * SECOND, "a script that is given {:?} of its 300 s is half run", act.within);
}

#[tokio::test(start_paused = true)]
async fn an_opening_that_waited_too_long_for_the_journal_is_missed() {
    let schedule = rollbackd_core::window::parse("5 2 * * *").unwrap();
    let openings = Some(crate::driver::Openings { schedule, zone: jiff::tz::TimeZone::UTC });
    let stage = Stage { openings, ..Stage::new() };
    stage.journal.set_at(|record| matches!(record, Record::WindowOpened { .. }), Mode::Fails);
    let mut running = stage.start();
    running.until("the error", |snapshot| snapshot.journal_error.is_some()).await;
    sleep(600 * SECOND).await;
    stage.journal.set(Mode::Works);
    running.until("the opening", |snapshot| snapshot.state.last_opening.is_some()).await;
    assert_eq!(count(&stage.journal.records(), |record| matches!(record, Record::WindowOpened { .. })), 0);
    assert_eq!(count(&stage.journal.records(), |record| matches!(record, Record::OpeningMissed { .. })), 1);
}

#[tokio::test(start_paused = true)]
async fn a_write_that_failed_and_is_there_is_not_written_twice() {
    for wanted in [breach, act_starts, act_ends] {
        let stage = Stage::new();
        stage.outside.breaks.store(true, Ordering::SeqCst);
        stage.journal.set_at(wanted, Mode::WritesAndFails);
        let mut running = stage.start();
        running.open().await;
        assert_eq!(running.settled(1).await, WindowOutcome::Recovered);
        assert_eq!(count(&stage.journal.records(), wanted), 1);
        assert_eq!(stage.outside.names(), stage.journal.started());
        assert!(running.snapshots.borrow().journal_error.is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_is_answered_when_its_records_are_there() {
    let stage = Stage::new();
    stage.journal.set_at(|record| matches!(record, Record::WindowOpened { .. }), Mode::WritesAndFails);
    let running = stage.start();
    assert_eq!(running.ask(Ask::Open { guard: false }).await.unwrap().as_deref(), Some("shop-20261122T020000Z"));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_could_not_be_written_is_refused_at_the_end() {
    let stage = Stage::new();
    let mut running = stage.start();
    running.until("it is ready", |snapshot| snapshot.ready.is_ok()).await;
    stage.journal.set(Mode::Fails);
    let answer = running.send(Ask::Open { guard: false }).await;
    running.until("the error", |snapshot| snapshot.journal_error.is_some()).await;
    let (end, took) = running.stop().await;
    assert_eq!(end, End::Asked);
    assert!(took < 2 * SECOND, "{took:?}");
    let refusal = answer.await.unwrap().unwrap_err();
    assert!(refusal.message.contains("the journal cannot be written"), "{refusal}");
}

#[tokio::test(start_paused = true)]
async fn a_step_whose_end_could_not_be_written_is_not_performed_again_at_the_end() {
    let stage = Stage::new();
    stage.outside.breaks.store(true, Ordering::SeqCst);
    stage.journal.set_at(act_ends, Mode::Fails);
    let mut running = stage.start();
    running.open().await;
    running.until("the error", |snapshot| snapshot.journal_error.is_some()).await;
    let done = stage.outside.names();
    running.stop().await;
    assert_eq!(stage.outside.names(), done, "a script ran twice");
}

#[tokio::test(start_paused = true)]
async fn a_start_that_cannot_be_written_performs_nothing() {
    let stage = Stage::new();
    stage.outside.breaks.store(true, Ordering::SeqCst);
    stage.outside.script("act", Does::Never);
    let mut running = stage.start();
    running.open().await;
    running.in_flight("act").await;
    running.crash().await;
    let done = stage.outside.names();
    stage.journal.set(Mode::Fails);
    let mut again = stage.start();
    again.until("the error", |snapshot| snapshot.journal_error.is_some()).await;
    again.stop().await;
    assert_eq!(stage.outside.names(), done, "a script ran again before anybody knew what became of it");
}

#[tokio::test(start_paused = true)]
async fn a_journal_that_hangs_is_said_and_does_not_hold_up_the_end() {
    let stage = Stage::new();
    let _release = Release(Arc::clone(&stage.journal));
    stage.outside.breaks.store(true, Ordering::SeqCst);
    stage.journal.set_at(act_starts, Mode::Hangs);
    let mut running = stage.start();
    running.open().await;
    let mut said = None;
    for _ in 0..3000 {
        pass().await;
        said = running.snapshots.borrow_and_update().journal_error.clone();
        if said.is_some() {
            break;
        }
    }
    assert!(said.as_ref().is_some_and(|said| said.contains("does not answer")), "{said:?}");
    assert!(!stage.outside.names().contains(&"act"), "nothing is performed before it is durable");
    running.cancel.cancel();
    for _ in 0..600 {
        pass().await;
        if running.driver.is_finished() {
            break;
        }
    }
    assert!(running.driver.is_finished(), "it never ends");
    assert!(!stage.outside.names().contains(&"act"));
}

#[tokio::test(start_paused = true)]
async fn a_journal_that_hung_for_a_while_goes_on() {
    let stage = Stage::new();
    let _release = Release(Arc::clone(&stage.journal));
    stage.outside.breaks.store(true, Ordering::SeqCst);
    stage.journal.set_at(act_starts, Mode::Hangs);
    let mut running = stage.start();
    running.open().await;
    for _ in 0..3000 {
        pass().await;
        if running.snapshots.borrow_and_update().journal_error.is_some() {
            break;
        }
    }
    assert!(running.snapshots.borrow().journal_error.is_some());
    stage.journal.set(Mode::Works);
    assert_eq!(running.settled(1).await, WindowOutcome::Recovered);
    assert_eq!(stage.outside.names(), stage.journal.started());
    assert!(running.snapshots.borrow().journal_error.is_none());
}
