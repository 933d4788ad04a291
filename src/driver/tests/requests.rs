//! What people ask for and what they are told.

use rollbackd_core::run::event::Ask;
use rollbackd_core::run::record::{Record, WindowOutcome};

use super::stage::Stage;

#[tokio::test(start_paused = true)]
async fn refusals_reach_the_caller_and_change_nothing() {
    let stage = Stage::new();
    let mut running = stage.start();
    running.until("it is ready", |snapshot| snapshot.ready.is_ok()).await;
    let before = stage.journal.entries();
    let refusal = running.ask(Ask::Rollback).await.unwrap_err();
    assert!(refusal.message.contains("no window is open"), "{refusal}");
    assert_eq!(stage.journal.entries(), before);
    let id = running.open().await;
    let refusal = running.ask(Ask::Open { guard: true }).await.unwrap_err();
    assert!(refusal.message.contains(&id) && refusal.message.contains("one at a time"), "{refusal}");
    assert_eq!(running.settled(1).await, WindowOutcome::Passed);
}

#[tokio::test(start_paused = true)]
async fn an_answer_comes_when_it_is_durable_and_shown() {
    let stage = Stage::new();
    let mut running = stage.start();
    let id = running.open().await;
    assert!(stage.journal.records().iter().any(|record| matches!(record, Record::WindowOpened { .. })));
    running.in_flight("migrate").await;
    assert_eq!(running.ask(Ask::Rollback).await.unwrap(), Some(id));
    assert_eq!(running.settled(1).await, WindowOutcome::Recovered);
}

#[tokio::test(start_paused = true)]
async fn records_of_a_window_or_of_all() {
    let stage = Stage::new();
    let mut running = stage.start();
    let id = running.open().await;
    running.settled(1).await;
    running.until("everything is delivered", |snapshot| snapshot.state.owed.is_empty()).await;
    let all = running.records(None).await.unwrap();
    assert_eq!(all, stage.journal.entries());
    let own = running.records(Some(&id)).await.unwrap();
    assert!(own.len() > 5 && own.len() < all.len());
    assert!(own.iter().all(|entry| entry.window.as_ref() == Some(&id)));
    assert_eq!(running.records(Some("shop-19700101T000000Z")).await.unwrap(), []);
    stage.journal.set(super::journal::Mode::Fails);
    let error = running.records(None).await.unwrap_err();
    assert!(error.contains("could not be read"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn readiness_follows_the_database() {
    let stage = Stage::new();
    let mut running = stage.start();
    running.until("it is ready", |snapshot| snapshot.ready.is_ok()).await;
    running.database.send(Err("the database does not answer".to_owned())).unwrap();
    running.until("it is not ready", |snapshot| snapshot.ready.is_err()).await;
    running.database.send(Ok(())).unwrap();
    running.until("it is ready again", |snapshot| snapshot.ready.is_ok()).await;
}
