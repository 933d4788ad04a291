//! The end: what is waited for, what is left, what is written down.

use std::sync::atomic::Ordering;
use std::time::Duration;

use rollbackd_core::run::event::Ask;
use rollbackd_core::run::record::{Record, WindowOutcome};
use tokio::time::sleep;

use super::journal::Mode;
use super::outside::Does;
use super::stage::Stage;
use crate::driver::End;
use crate::driver::snapshot::{RefusedFile, Renewal};

const SECOND: Duration = Duration::from_secs(1);

/// How a step of this name ended, if it did.
fn end(records: &[Record], step: &str) -> Option<bool> {
    let number = records.iter().find_map(|record| {
        if let Record::StepStarted { number, step: one, .. } = record
            && one.name() == step
        {
            Some(*number)
        } else {
            None
        }
    })?;
    records.iter().find_map(|record| {
        if let Record::StepEnded { number: one, outcome } = record
            && *one == number
        {
            Some(outcome.is_success())
        } else {
            None
        }
    })
}

#[tokio::test(start_paused = true)]
async fn a_short_step_is_waited_for_and_no_other_begins() {
    let stage = Stage::new();
    stage.outside.breaks.store(true, Ordering::SeqCst);
    stage.outside.script("close_gate", Does::Succeeds(10 * SECOND));
    let mut running = stage.start();
    running.open().await;
    running.in_flight("close_gate").await;
    let (ended, took) = running.stop().await;
    assert_eq!(ended, End::Asked);
    assert!(took >= 9 * SECOND && took < 11 * SECOND, "{took:?}");
    assert_eq!(end(&stage.journal.records(), "close_gate"), Some(true));
    assert_eq!(stage.outside.names().last(), Some(&"close_gate"));
    assert_eq!(stage.journal.started().last(), Some(&"close_gate"));
    let mut again = stage.start();
    assert_eq!(again.settled(1).await, WindowOutcome::Recovered);
    assert_eq!(stage.outside.names().iter().filter(|name| **name == "close_gate").count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_short_step_that_does_not_end_is_left() {
    let stage = Stage::new();
    stage.outside.breaks.store(true, Ordering::SeqCst);
    stage.outside.script("close_gate", Does::Never);
    let mut running = stage.start();
    running.open().await;
    running.in_flight("close_gate").await;
    let (_, took) = running.stop().await;
    assert!(took >= 20 * SECOND && took < 21 * SECOND, "{took:?}");
    let mut again = stage.start();
    assert_eq!(again.settled(1).await, WindowOutcome::Recovered);
}

#[tokio::test(start_paused = true)]
async fn a_migration_and_a_script_are_not_waited_for() {
    for step in ["migrate", "act"] {
        let stage = Stage::new();
        stage.outside.breaks.store(true, Ordering::SeqCst);
        if step == "migrate" {
            stage.outside.breaks.store(false, Ordering::SeqCst);
        }
        stage.outside.script(step, Does::Process(Box::new(Does::Never)));
        let mut running = stage.start();
        running.open().await;
        running.in_flight(step).await;
        running
            .until("its process", |snapshot| {
                let window = snapshot.state.window.as_ref();
                window.is_some_and(|window| window.in_flight.iter().any(|running| running.process.is_some()))
            })
            .await;
        let (_, took) = running.stop().await;
        assert!(took < SECOND, "{step}: {took:?}");
        assert_eq!(end(&stage.journal.records(), step), None);
        assert!(!stage.outside.asked.load(Ordering::SeqCst), "{step} was asked to end");
    }
}

#[tokio::test(start_paused = true)]
async fn a_process_reported_while_the_loop_ends_is_written_down() {
    let stage = Stage::new();
    let process = Box::new(Does::Process(Box::new(Does::Never)));
    stage.outside.script("migrate", Does::Later(10 * SECOND, process));
    let mut running = stage.start();
    running.open().await;
    running.in_flight("migrate").await;
    running.until("nothing is owed", |snapshot| snapshot.state.owed.is_empty()).await;
    stage.journal.set(Mode::Fails);
    let answer = running.send(Ask::Hold).await;
    // The report comes while the loop stands still, and waits.
    sleep(Duration::from_millis(20_500)).await;
    stage.journal.set(Mode::Works);
    running.stop().await;
    answer.await.unwrap().expect_err("rollbackd is ending");
    let written = stage.journal.records().iter().any(|record| matches!(record, Record::ProcessStarted { .. }));
    assert!(written, "a process runs on, and no later life would know");
}

#[tokio::test(start_paused = true)]
async fn a_run_for_one_window_ends_with_it() {
    let stage = Stage::new();
    let running = stage.start();
    running.open().await;
    running.crash().await;
    stage.renewal.send_replace(Renewal { due: true, ..Renewal::default() });
    let again = stage.start();
    let end = tokio::time::timeout(Duration::from_secs(7200), again.driver).await.expect("it ends").unwrap();
    assert_eq!(end, End::Settled);
    assert!(stage.journal.records().iter().any(|record| matches!(record, Record::WindowSettled { .. })));
    assert_eq!(stage.journal.mode(), Mode::Works);
}

#[tokio::test(start_paused = true)]
async fn another_configuration_is_taken_over_at_once_when_no_window_is_open() {
    let stage = Stage::new();
    let mut running = stage.start();
    running.until("it runs", |snapshot| snapshot.ready.is_ok()).await;
    sleep(60 * SECOND).await;
    let began = tokio::time::Instant::now();
    stage.renewal.send_replace(Renewal { due: true, ..Renewal::default() });
    assert_eq!(running.driver.await.unwrap(), End::Settled);
    assert!(began.elapsed() < SECOND, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_open_window_is_not_touched_by_another_configuration_and_no_other_opens() {
    let stage = Stage::new();
    stage.outside.breaks.store(true, Ordering::SeqCst);
    stage.outside.script("email 1", Does::Never);
    let mut running = stage.start();
    let id = running.open().await;
    running.in_flight("migrate").await;
    let refused = Some(RefusedFile { at: super::stage::now(), reason: "`soak` is no duration".to_owned() });
    let renewal = Renewal { due: true, next_sha256: Some("9f2c".to_owned()), refused };
    stage.renewal.send_replace(renewal.clone());
    let seen = running.until("it is shown", |snapshot| snapshot.renewal == renewal).await;
    assert_eq!(seen.state.window.as_ref().map(|window| window.id.clone()), Some(id));
    assert_eq!(running.settled(1).await, WindowOutcome::Recovered);
    let refusal = running.ask(Ask::Open { guard: false }).await.expect_err("the next one comes with the next life");
    assert!(refusal.message.contains("taken over"), "{}", refusal.message);
    let began = tokio::time::Instant::now();
    assert_eq!(running.driver.await.unwrap(), End::Settled);
    let took = began.elapsed();
    assert!(took >= 8 * SECOND && took < 16 * SECOND, "what is owed has a while, and not longer: {took:?}");
}
