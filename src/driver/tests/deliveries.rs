//! Notices: in order on a channel, at the same time on several, and never in the way of a rollback.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rollbackd_core::run::pending::{Effect, pending};
use rollbackd_core::run::record::{Record, WindowOutcome};
use rollbackd_core::run::state::{Owed, State};
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_util::task::TaskTracker;

use super::outside::{Delivery, Does};
use super::stage::{Stage, now, set_clock};
use crate::driver::effects::Effects;
use crate::metrics::Metrics;

const SECOND: Duration = Duration::from_secs(1);

fn on(deliveries: &[Delivery], channel: &str) -> Vec<Delivery> {
    deliveries.iter().filter(|one| one.channel == channel).cloned().collect()
}

fn owed(stage: &Stage) -> Vec<String> {
    let records = stage.journal.records();
    let owed = records
        .into_iter()
        .filter_map(|record| if let Record::NoticeOwed { notice } = record { Some(notice.id) } else { None });
    owed.collect()
}

#[tokio::test(start_paused = true)]
async fn in_order_on_a_channel_and_at_the_same_time_on_several() {
    let stage = Stage::new();
    stage.outside.breaks.store(true, Ordering::SeqCst);
    for _ in 0..20 {
        stage.outside.script("email 1", Does::Succeeds(30 * SECOND));
    }
    let mut running = stage.start();
    running.open().await;
    running.settled(1).await;
    running.until("everything is delivered", |snapshot| snapshot.state.owed.is_empty()).await;
    let owed = owed(&stage);
    assert!(owed.len() >= 4, "opened, breach, rollback, recovered: {}", owed.len());
    let deliveries = stage.outside.deliveries();
    for channel in ["email 1", "webhook 1"] {
        let order = on(&deliveries, channel);
        assert_eq!(
            order.iter().map(|one| one.notice.clone()).collect::<Vec<_>>(),
            owed,
            "{channel}: each once, in order"
        );
        assert!(order.iter().all(|one| one.contact == "Operations"));
        for pair in order.windows(2) {
            assert!(pair[1].began >= pair[0].ended.unwrap(), "{channel}: one at a time");
        }
    }
    let (mail, webhook) = (on(&deliveries, "email 1"), on(&deliveries, "webhook 1"));
    assert!(webhook[1].ended.unwrap() < mail[0].ended.unwrap() + 30 * SECOND, "a slow channel holds up the other");
    assert!(webhook.last().unwrap().ended < mail.last().unwrap().ended);
}

#[tokio::test(start_paused = true)]
async fn a_delivery_that_hangs_is_not_in_the_way() {
    let stage = Stage::new();
    stage.outside.breaks.store(true, Ordering::SeqCst);
    stage.outside.script("email 1", Does::Never);
    let mut running = stage.start();
    running.open().await;
    assert_eq!(running.settled(1).await, WindowOutcome::Recovered);
    let settled = running.snapshots.borrow().state.history[0].clone();
    assert!(settled.ended_at.duration_since(settled.started_at).as_secs() < 120);
    sleep(60 * SECOND).await;
    assert_eq!(on(&stage.outside.deliveries(), "email 1").len(), 1);
    assert_eq!(on(&stage.outside.deliveries(), "webhook 1").len(), owed(&stage).len());
    let (_, took) = running.stop().await;
    assert!(took < SECOND, "nor in the way of the end: {took:?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_owed_is_delivered_after_a_restart() {
    let stage = Stage::new();
    stage.outside.script("email 1", Does::Never);
    let mut running = stage.start();
    running.open().await;
    running.settled(1).await;
    let only_mail = |owed: &Owed| owed.open == ["email 1"];
    running.until("the webhook is served", |snapshot| snapshot.state.owed.iter().all(only_mail)).await;
    running.crash().await;
    let mut again = stage.start();
    again.until("everything is delivered", |snapshot| snapshot.state.owed.is_empty()).await;
    let order: Vec<_> = on(&stage.outside.deliveries(), "email 1").into_iter().map(|one| one.notice).collect();
    let owed = owed(&stage);
    assert_eq!(order[0], owed[0]);
    assert_eq!(order[1..], owed, "the one that hung again, with the same id, then the others");
    assert_eq!(on(&stage.outside.deliveries(), "webhook 1").len(), owed.len(), "what was delivered is not again");
}

#[tokio::test(start_paused = true)]
async fn what_a_channel_refuses_is_told_on_the_contacts_others_and_then_to_others() {
    for (dead, told) in [(&["webhook 1"][..], [3, 2]), (&["webhook 1", "email 1"][..], [2, 3])] {
        let mut stage = Stage::new();
        let mut other = stage.plan.contacts[0].clone();
        other.name = "Database".to_owned();
        other.channels = vec!["email 2".to_owned()];
        stage.plan.contacts.push(other);
        for channel in dead {
            stage.outside.script(channel, Does::Fails("410 Gone"));
        }
        let mut running = stage.start();
        running.open().await;
        running.settled(1).await;
        running.until("everything is delivered", |snapshot| snapshot.state.owed.is_empty()).await;
        let count = stage.journal.records().into_iter().filter(|one| matches!(one, Record::NoticeDead { .. })).count();
        assert_eq!(count, dead.len());
        let deliveries = stage.outside.deliveries();
        // Opened, passed, and what did not reach Operations. On its mail it was lost itself the second time.
        let began = ["email 1", "email 2"].map(|channel| on(&deliveries, channel).len());
        assert_eq!(began, if dead.len() == 1 { told } else { [began[0], told[1]] }, "dead: {dead:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_back_does_not_lose_a_notice() {
    let stage = Stage::new();
    for channel in ["email 1", "webhook 1"] {
        stage.outside.script(channel, Does::Succeeds(60 * SECOND));
    }
    let mut running = stage.start();
    running.open().await;
    running.wait("a delivery", || !stage.outside.deliveries().is_empty()).await;
    // Now the notices are dated ahead; they are owed all the same.
    set_clock(-2_000);
    running.pulses.send(()).await.unwrap();
    let first = on(&stage.outside.deliveries(), "email 1")[0].clone();
    running.settled(1).await;
    running.until("everything is delivered", |snapshot| snapshot.state.owed.is_empty()).await;
    let again = on(&stage.outside.deliveries(), "email 1").iter().filter(|one| one.notice == first.notice).count();
    assert_eq!(again, 1, "it was not stopped on its way");
}

#[tokio::test(start_paused = true)]
async fn a_delivery_that_was_stopped_begins_again_when_it_is_wanted_again() {
    let stage = Stage::new();
    stage.outside.script("email 1", Does::Never);
    let mut running = stage.start();
    running.open().await;
    running.settled(1).await;
    running.crash().await;
    let known = State::replay(&stage.journal.entries());
    let wanted: Vec<Effect> = pending(&known, now()).effects.into_iter().take(1).collect();
    assert!(matches!(wanted[..], [Effect::Deliver { .. }]), "{wanted:?}");
    let metrics = Arc::new(Metrics::new(&stage.plan).unwrap());
    let (reports, _reported) = mpsc::channel(8);
    let mut effects = Effects::new(Arc::clone(&stage.outside) as _, metrics, TaskTracker::new(), reports);
    let before = stage.outside.deliveries().len();
    stage.outside.script("email 1", Does::Never);
    effects.adjust(&known, &wanted, now());
    effects.adjust(&known, &wanted, now());
    sleep(SECOND).await;
    assert_eq!(stage.outside.deliveries().len(), before + 1, "what is wanted twice is started once");
    // A clock that is set back for a moment: the notice is dated ahead, and then it is not.
    effects.adjust(&known, &[], now());
    sleep(SECOND).await;
    effects.adjust(&known, &wanted, now());
    assert_eq!(stage.outside.deliveries().len(), before + 2, "it is owed, and nobody delivers it");
}
