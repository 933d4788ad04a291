//! Clocks that are set, machines that sleep, a program that does not run: what waits and measures goes on as if nothing
//! had happened, but for the hard end, which is a time of day.

use std::sync::atomic::Ordering;
use std::time::Duration;

use rollbackd_core::judge::Verdict;
use rollbackd_core::run::record::{Record, WindowOutcome};
use rollbackd_core::run::state::Phase;
use rollbackd_core::sample::Reading as Read;
use tokio::time::{Instant, sleep};

use super::outside::Does;
use super::stage::{Running, Stage, now, sampled, set_clock, suspend};

const SECOND: Duration = Duration::from_secs(1);
/// The plan's soak.
const SOAK: Duration = Duration::from_secs(600);
/// Clocks are set by so much, in milliseconds: seconds, hours, years, forwards and backwards.
const STEPS: [i64; 8] =
    [3_000, -3_000, 7_200_000, -7_200_000, 86_400_000, -86_400_000, 40_000_000_000, -40_000_000_000];

/// Waits until the window soaks.
async fn soaking(running: &mut Running) {
    running
        .until("it soaks", |snapshot| {
            snapshot.state.window.as_ref().is_some_and(|one| matches!(one.phase, Phase::Soaking { .. }))
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_soak_lasts_as_long_as_it_lasts_however_the_clock_is_set() {
    for step in STEPS {
        let stage = Stage::new();
        let mut running = stage.start();
        running.open().await;
        soaking(&mut running).await;
        let began = Instant::now();
        sleep(60 * SECOND).await;
        set_clock(step);
        assert_eq!(running.settled(1).await, WindowOutcome::Passed, "{step}");
        let took = began.elapsed();
        assert!(took + SECOND >= SOAK && took <= SOAK + 10 * SECOND, "set by {step} ms, it soaked for {took:?}");
        running.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_rollback_has_its_budget_however_the_clock_is_set() {
    for step in STEPS {
        let stage = Stage::new();
        stage.outside.breaks.store(true, Ordering::SeqCst);
        stage.outside.script("act", Does::Succeeds(60 * SECOND));
        let mut running = stage.start();
        running.open().await;
        running.in_flight("act").await;
        set_clock(step);
        assert_eq!(running.settled(1).await, WindowOutcome::Recovered, "set by {step} ms");
        let acts = stage.outside.names().iter().filter(|name| **name == "act").count();
        assert_eq!(acts, 1, "set by {step} ms");
        running.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_budget_comes_to_its_end_however_the_clock_is_set() {
    for step in STEPS {
        let mut stage = Stage::new();
        stage.outside.breaks.store(true, Ordering::SeqCst);
        let rung = stage.plan.rollback.rungs[1].clone();
        stage.plan.rollback.rungs = vec![rung; 10];
        stage.plan.rollback.budget = jiff::SignedDuration::from_secs(250);
        for _ in 0..10 {
            stage.outside.script("act", Does::Later(90 * SECOND, Box::new(Does::Fails("not yet"))));
        }
        let mut running = stage.start();
        running.open().await;
        running.in_flight("act").await;
        sleep(SECOND).await;
        set_clock(step);
        running
            .until("an operator is needed", |snapshot| {
                snapshot.state.window.as_ref().is_some_and(|window| window.phase.needs_operator().is_some())
            })
            .await;
        let acts = stage.outside.names().iter().filter(|name| **name == "act").count();
        assert_eq!(acts, 3, "set by {step} ms");
        running.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_breaches_no_rule_and_blinds_nobody() {
    for step in STEPS {
        let mut stage = Stage::new();
        // Three in a row hold at once, and have to hold for a minute.
        stage.plan.decision.confirm = jiff::SignedDuration::from_mins(1);
        let mut running = stage.start();
        running.open().await;
        soaking(&mut running).await;
        sleep(60 * SECOND).await;
        stage.outside.breaks.store(true, Ordering::SeqCst);
        running.until("in doubt", |snapshot| snapshot.assessment.verdict == Verdict::Suspect).await;
        stage.outside.breaks.store(false, Ordering::SeqCst);
        set_clock(step);
        assert_eq!(running.settled(1).await, WindowOutcome::Passed, "set by {step} ms");
        let blind = stage
            .journal
            .records()
            .into_iter()
            .any(|record| matches!(record, Record::VerdictChanged { to: Verdict::Blind, .. }));
        assert!(!blind, "set by {step} ms");
        running.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn time_in_which_the_machine_slept_or_we_did_not_run_is_no_soak_and_confirms_nothing() {
    for asleep in [true, false] {
        let mut stage = Stage::new();
        stage.plan.decision.confirm = jiff::SignedDuration::from_mins(1);
        let mut running = stage.start();
        running.open().await;
        soaking(&mut running).await;
        let began = Instant::now();
        sleep(60 * SECOND).await;
        stage.outside.breaks.store(true, Ordering::SeqCst);
        running.until("in doubt", |snapshot| snapshot.assessment.verdict == Verdict::Suspect).await;
        stage.outside.breaks.store(false, Ordering::SeqCst);
        if asleep {
            suspend(1800 * SECOND);
        } else {
            tokio::time::advance(1800 * SECOND).await;
        }
        assert_eq!(running.settled(1).await, WindowOutcome::Passed, "asleep: {asleep}");
        let took = began.elapsed().saturating_sub(if asleep { Duration::ZERO } else { 1800 * SECOND });
        assert!(took + SECOND >= SOAK && took <= SOAK + 60 * SECOND, "asleep: {asleep}, it soaked for {took:?}");
        let unseen: Vec<i64> = stage
            .journal
            .records()
            .into_iter()
            .filter_map(
                |record| if let Record::ClockMoved { unseen, .. } = record { Some(unseen.as_secs()) } else { None },
            )
            .collect();
        assert!(matches!(unseen[..], [one] if (1795..=1805).contains(&one)), "asleep: {asleep}, {unseen:?}");
        running.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_reading_from_before_the_clock_was_set_is_as_old_as_it_was() {
    for step in STEPS {
        let stage = Stage::new();
        let mut running = stage.start_unread();
        running.until("it runs", |snapshot| snapshot.ready.is_ok()).await;
        let old = sampled(0, Read::bad("refused"));
        set_clock(step);
        running.pulses.send(()).await.unwrap();
        running.readings.send(old).await.unwrap();
        let seen = running.until("it is read", |snapshot| snapshot.signals[0].last_sample_at.is_some()).await;
        let age = now().duration_since(seen.signals[0].last_sample_at.unwrap()).as_secs();
        assert!((0..=2).contains(&age), "set by {step} ms, it is {age} s old");
        assert_eq!(seen.signals[0].consecutive_bad, 1);
        running.stop().await;
    }
}
