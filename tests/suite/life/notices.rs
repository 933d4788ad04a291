//! Receivers that are down: the window does not wait for them, and they get everything once they are up.

use std::net::TcpListener;
use std::time::Duration;

use rollbackd_core::run::record::Record;

use super::{End, assert_everybody_was_told, end, open};
use crate::endings::{BREAKING, HARMLESS};
use crate::stage::{Behaviour, Mail, Stage, eventually};

/// A port on which nobody listens.
fn closed_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn pending(stage: &Stage) -> u64 {
    stage.status().expect("a status")["notices_pending"].as_u64().unwrap()
}

#[track_caller]
fn wait_until_all_is_delivered(stage: &Stage) {
    eventually("nothing is owed", || match pending(stage) {
        0 => Ok(()),
        left => Err(left),
    });
}

fn header(message: &serde_json::Value, name: &str) -> Option<String> {
    let headers = message["headers"].as_array().unwrap();
    headers.iter().find(|header| header[0] == name).map(|header| header[1].as_str().unwrap().to_owned())
}

#[test]
fn a_mail_server_that_is_down_at_first() {
    let mut stage = Stage::new("mail");
    let port = closed_port();
    stage.plan.change("healthy_for = \"300ms\"\n", "healthy_for = \"300ms\"\nskip = [\"mail\"]\n");
    stage.plan.mail(port);
    let migration = stage.migration(BREAKING);
    stage.plan.command(&migration);
    let daemon = stage.daemon();
    open(&stage);
    stage.wait_for_state("recovered");
    stage.hooks.wait_for("rollback.recovered");
    let events = stage.hooks.events();
    assert_eq!(pending(&stage), events.len() as u64, "each is still owed by mail: {events:?}");

    let mail = Mail::start_on(&stage, Behaviour::Takes, port);
    wait_until_all_is_delivered(&stage);
    let subjects = mail.subjects();
    assert_eq!(subjects.len(), events.len(), "{subjects:?}");
    assert!(subjects[0].starts_with("[rollbackd][INFO] shop: window opened"), "in order: {subjects:?}");
    assert!(subjects.last().unwrap().starts_with("[rollbackd][CRITICAL] shop: recovered"), "{subjects:?}");
    let messages = mail.messages();
    let first = header(&messages[0], "Message-ID").unwrap();
    for later in &messages[1..] {
        assert_eq!(header(later, "In-Reply-To").as_deref(), Some(first.as_str()), "one incident, one thread");
    }
    assert!(messages[0]["raw"].as_str().unwrap().contains("Preflight checks left out by configuration: mail"));
    stage.assert_originals_whole();
    daemon.term().expect(0);
}

#[test]
fn a_webhook_receiver_that_is_down_and_a_restart_with_notices_owed() {
    let mut stage = Stage::new("hooks");
    let migration = stage.migration(BREAKING);
    stage.plan.command(&migration);
    stage.hooks.answer(503);
    let daemon = stage.daemon();
    open(&stage);
    stage.wait_for_state("recovered");
    let owed = pending(&stage);
    assert!(owed >= 4, "{owed}");
    assert_eq!(stage.hooks.ids(), Vec::<String>::new());
    end(daemon, End::Killed);
    let status = stage.cli(&["status"]).expect(0);
    assert!(status.stdout.contains(&format!("{owed} pending")), "{}", status.stdout);

    // One that is told to end does not wait for a receiver that is down.
    let daemon = stage.daemon();
    assert_eq!(pending(&stage), owed);
    let said = {
        let watch = rollbackd::clock::Stopwatch::start();
        let output = daemon.term().expect(0);
        assert!(watch.elapsed() < Duration::from_secs(4), "{:?}", watch.elapsed());
        output.stderr
    };
    assert!(!said.contains("shutdown.laggard"), "{said}");

    stage.hooks.answer(204);
    let daemon = stage.daemon();
    wait_until_all_is_delivered(&stage);
    assert_everybody_was_told(&stage);
    let ids = stage.hooks.ids();
    assert_eq!(ids.len() as u64, owed, "once each");
    let order: Vec<u64> = stage.hooks.bodies().iter().map(|body| body["data"]["sequence"].as_u64().unwrap()).collect();
    assert!(order.is_sorted(), "{order:?}");
    daemon.term().expect(0);
}

#[test]
fn a_receiver_that_refuses_for_good_is_given_up_and_the_other_one_hears_of_it() {
    let mut stage = Stage::new("refuses");
    let mail = Mail::start(&stage, Behaviour::Takes);
    stage.plan.mail(mail.port());
    let migration = stage.migration(HARMLESS);
    stage.plan.command(&migration);
    stage.hooks.answer(410);
    let daemon = stage.daemon();
    open(&stage);
    stage.wait_for_state("passed");
    let lost = mail.wait_for("a notice could not be delivered");
    assert!(lost["raw"].as_str().unwrap().contains("410"), "{}", lost["raw"]);
    wait_until_all_is_delivered(&stage);
    assert!(stage.get("/metrics").unwrap().1.contains("rollbackd_notices_dead_lettered_total{plan=\"shop\"} 2"));
    daemon.term().expect(0);
}

/// A server that takes connections and says nothing, ever.
fn mute_server() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

/// How long the rollback of the newest window took, from the breach to the proven recovery.
fn rollback_took(stage: &Stage) -> Duration {
    let records = stage.records();
    let at = |wanted: fn(&Record) -> bool| records.iter().find(|entry| wanted(&entry.record)).expect("a rollback").at;
    let from = at(|record| matches!(record, Record::BreachDetected { .. }));
    let to = at(|record| matches!(record, Record::WindowSettled { .. }));
    Duration::try_from(to.duration_since(from)).unwrap()
}

#[test]
fn a_rollback_is_as_quick_when_every_channel_hangs() {
    let run = |stage: &Stage| {
        let daemon = stage.daemon();
        open(stage);
        stage.wait_for_state("recovered");
        let took = rollback_took(stage);
        (took, daemon)
    };
    let mut plain = Stage::new("plain");
    let migration = plain.migration(BREAKING);
    plain.plan.command(&migration);
    let (without, daemon) = run(&plain);
    daemon.term().expect(0);

    let (mail, hook) = (mute_server(), mute_server());
    let mut stage = Stage::new("hang");
    let migration = stage.migration(BREAKING);
    stage.plan.command(&migration);
    let url = stage.hooks.url();
    stage.plan.change(&url, &format!("http://{}/hook", hook.local_addr().unwrap()));
    stage.plan.change("healthy_for = \"300ms\"\n", "healthy_for = \"300ms\"\nskip = [\"mail\"]\n");
    stage.plan.mail(mail.local_addr().unwrap().port());
    // More contacts, and each of their channels hangs.
    for name in ["Database", "Emergency"] {
        let contact = format!(
            "\n[[contact]]\nrole = {name:?}\nemail = [\"a@shop.example\", \"b@shop.example\"]\n\
             webhook = [{{ url = \"http://{}/hook\" }}]\n",
            hook.local_addr().unwrap()
        );
        stage.plan.contacts.push_str(&contact);
    }
    let (with, daemon) = run(&stage);
    // What hangs is given up after ten seconds or more: nothing has waited for that.
    assert!(with < without * 2 + Duration::from_secs(2), "{with:?} with channels that hang, {without:?} without");
    assert!(with < Duration::from_secs(9), "{with:?}");
    assert_eq!(pending(&stage), 3 * 4, "everything is still owed");
    stage.assert_originals_whole();
    let watch = rollbackd::clock::Stopwatch::start();
    daemon.term().expect(0);
    assert!(watch.elapsed() < Duration::from_secs(4), "{:?}", watch.elapsed());
}

#[test]
fn killed_at_each_delivery_nothing_is_lost_or_out_of_order() {
    const POINT: &str = "ROLLBACKD_CRASH_AT";
    const OWED: usize = 4;
    let mut stage = Stage::new("deliver");
    let migration = stage.migration(BREAKING);
    stage.plan.command(&migration);
    for (point, twice) in [("before_delivery", 0), ("after_delivery", 1)] {
        for turn in 1..=OWED {
            let known = stage.hooks.ids().len();
            stage.set(POINT, format!("{point}:{turn}"));
            let daemon = stage.daemon();
            // It may be gone before it answers.
            drop(stage.cli(&["window", "open", "--reason", "a test"]));
            daemon.end().expect(128 + 9);
            stage.set(POINT, "");
            let daemon = stage.daemon();
            stage.wait_for_state("recovered");
            wait_until_all_is_delivered(&stage);
            let ids = stage.hooks.ids().split_off(known);
            let bodies = stage.hooks.bodies().split_off(known);
            let mut each = ids.clone();
            each.dedup();
            assert_eq!(each.len(), OWED, "{point}:{turn}: {ids:?}");
            assert_eq!(ids.len() - each.len(), twice, "{point}:{turn}: {ids:?}");
            for pair in bodies.windows(2).zip(ids.windows(2)).filter(|(_, ids)| ids[0] == ids[1]) {
                assert_eq!(pair.0[0], pair.0[1], "{point}:{turn}: what comes twice is the same");
            }
            let order: Vec<u64> = bodies.iter().map(|body| body["data"]["sequence"].as_u64().unwrap()).collect();
            assert!(order.is_sorted(), "{point}:{turn}: {order:?}");
            daemon.term().expect(0);
        }
    }
}
