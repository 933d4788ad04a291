//! Many readings.

use std::time::Duration;

use rollbackd_core::run::record::Record;
use rollbackd_core::sample::Reading as Read;
use tokio::time::{Instant, sleep};

use super::outside::Does;
use super::stage::{Stage, sampled};

#[tokio::test(start_paused = true)]
async fn a_thousand_readings_a_second_are_shown_ten_times_and_hold_nothing_up() {
    let stage = Stage::new();
    stage.outside.script("migrate", Does::Succeeds(Duration::from_secs(10)));
    let mut running = stage.start();
    running.open().await;
    running.in_flight("migrate").await;
    let started = stage.journal.entries().last().unwrap().at;
    running.until("nothing is owed", |snapshot| snapshot.state.owed.is_empty()).await;
    let readings = running.readings.clone();
    let mut shown = running.snapshots.clone();
    shown.borrow_and_update();
    let began = Instant::now();
    let flood = async {
        for _ in 0..5_000 {
            readings.send(sampled(1, Read::good())).await.expect("a driver");
            sleep(Duration::from_millis(1)).await;
        }
    };
    let mut snapshots = 0_usize;
    let count = async {
        while shown.changed().await.is_ok() {
            shown.borrow_and_update();
            snapshots += 1;
        }
    };
    tokio::select! {
        () = flood => {}
        () = count => panic!("the driver ended"),
    }
    let most = began.elapsed().as_millis() / 100 + 5;
    assert!((10..=usize::try_from(most).unwrap()).contains(&snapshots), "{snapshots} snapshots, at most {most}");
    running
        .until("the migration's end", |snapshot| {
            snapshot.state.window.as_ref().is_some_and(|window| window.migration_ended.is_some())
        })
        .await;
    let ended =
        stage.journal.entries().into_iter().find(|entry| matches!(entry.record, Record::MigrationFinished { .. }));
    let took = ended.unwrap().at.duration_since(started).as_millis();
    assert!((10_000..10_200).contains(&took), "its end was heard after {took} ms");
}

#[tokio::test(start_paused = true)]
async fn timers_are_not_lost_among_readings() {
    let mut stage = Stage::new();
    stage.plan.window.soak = jiff::SignedDuration::from_secs(60);
    let mut running = stage.start();
    running.open().await;
    let readings = running.readings.clone();
    let flood = async {
        loop {
            readings.send(sampled(1, Read::good())).await.expect("a driver");
            sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::select! {
        () = flood => {}
        _ = running.settled(1) => {}
    }
    let at = |wanted: fn(&Record) -> bool| {
        stage.journal.entries().into_iter().find(|entry| wanted(&entry.record)).expect("a record").at
    };
    let finished = at(|record| matches!(record, Record::MigrationFinished { .. }));
    let settled = at(|record| matches!(record, Record::WindowSettled { .. }));
    let took = settled.duration_since(finished).as_millis();
    assert!((60_000..60_100).contains(&took), "a soak of a minute took {took} ms");
}
