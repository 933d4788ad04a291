//! People at the controls: windows opened by hand, migrations that somebody else runs, holds, rollbacks on request.

use rollbackd_core::run::record::{MigrationEnd, Record};

use super::{assert_everybody_was_told, open, outcome, rollbacks};
use crate::endings::{BREAKING, HARMLESS};
use crate::stage::{Mood, Stage, until};

/// A daemon's stage on which somebody else runs the migration.
fn stage(name: &str) -> Stage {
    let mut stage = Stage::new(name);
    stage.plan.change("soak = \"1s\"", "soak = \"2s\"");
    stage
}

#[test]
fn a_migration_that_somebody_else_runs() {
    let stage = stage("else");
    let daemon = stage.daemon();
    let early = stage.cli(&["window", "finished"]).expect(1);
    assert!(early.stderr.contains("no window is open; `rollbackd window open` opens one"), "{}", early.stderr);
    let opened = stage.cli(&["window", "open", "--reason", "release 7", "--who", "ana"]).expect(0);
    let id = opened.stdout.strip_suffix(": opened\n").expect("the window's id").to_owned();
    let second = stage.cli(&["window", "open"]).expect(1);
    assert!(second.stderr.contains(&id) && second.stderr.contains("one at a time"), "{}", second.stderr);
    stage.wait_for_state("watching");
    stage.database.sql(HARMLESS);
    let finished = stage.cli(&["window", "finished", "--reason", "invoices are in", "--who", "ana"]).expect(0);
    assert_eq!(finished.stdout, format!("{id}: the migration is finished; the soak begins\n"));
    stage.wait_for_state("soaking");
    stage.cli(&["window", "finished"]).expect(1);
    stage.wait_for_state("passed");
    let records = stage.records();
    assert!(records.iter().any(|entry| matches!(&entry.record,
        Record::MigrationFinished { how: MigrationEnd::Reported, detail }
        if detail.contains("ana") && detail.contains("invoices are in"))));
    assert_everybody_was_told(&stage);
    assert_eq!(stage.hooks.events(), ["window.opened", "window.passed"]);
    daemon.term().expect(0);
    let report = stage.cli(&["report"]).expect(0);
    assert!(report.stdout.contains("release 7") && report.stdout.contains("ana"), "{}", report.stdout);
}

#[test]
fn a_hold_keeps_a_breach_from_having_consequences_until_it_ends() {
    let stage = stage("hold");
    let daemon = stage.daemon();
    open(&stage);
    stage.wait_for_state("watching");
    let held = stage.cli(&["window", "hold", "--reason", "we are looking"]).expect(0);
    assert!(held.stdout.ends_with(": decisions are held\n"), "{}", held.stdout);
    stage.wait_for_state("held");
    stage.cli(&["window", "hold"]).expect(1);
    stage.database.sql(BREAKING);
    stage.app.wait_for_requests(10);
    let status = stage.status().unwrap();
    assert_eq!(
        (status["verdict"].as_str(), status["hold"]["reason"].as_str()),
        (Some("breached"), Some("we are looking"))
    );
    assert_eq!(rollbacks(&stage.records()), 0);
    assert_eq!(stage.new_tables(), ["public.media_files", "public.pages"]);
    let text = stage.cli(&["status"]).expect(0).stdout;
    assert!(text.contains("held") && text.contains("we are looking"), "{text}");
    stage.cli(&["window", "resume", "--reason", "go on"]).expect(0);
    stage.wait_for_state("recovered");
    assert_eq!(rollbacks(&stage.records()), 1);
    assert_everybody_was_told(&stage);
    stage.assert_originals_whole();
    daemon.term().expect(0);
}

#[test]
fn a_window_that_is_waited_for_tells_how_it_ended() {
    let mut stage = Stage::new("wait");
    let migration = stage.migration(HARMLESS);
    stage.plan.command(&migration);
    let daemon = stage.daemon();
    let passed = stage.cli(&["window", "open", "--wait"]).expect(0);
    assert!(passed.stdout.lines().count() > 3, "what happens is told: {}", passed.stdout);

    stage.migration(BREAKING);
    let recovered = stage.cli(&["window", "open", "--wait", "--reason", "once more"]).expect(20);
    assert!(recovered.stdout.contains("api is down"), "{}", recovered.stdout);
    stage.database.sql("drop table invoices");
    stage.assert_originals_whole();

    stage.app.mood(Mood::Failing);
    let refused = stage.cli(&["window", "open", "--wait"]).expect(22);
    assert!(refused.stdout.contains("refused, nothing was changed: gates: gate edge: canary"), "{}", refused.stdout);
    stage.app.mood(Mood::Honest);
    stage.hooks.wait_for("window.refused");
    assert!(!stage.database.tables().contains(&"public.pages".to_owned()), "the migration was not started");
    daemon.term().expect(0);
    stage.assert_nothing_runs();
    let outcomes: Vec<String> = stage.cli(&["history"]).expect(0).stdout.lines().map(str::to_owned).collect();
    assert!(
        outcomes[1].contains("refused") && outcomes[2].contains("recovered") && outcomes[3].contains("passed"),
        "newest first: {outcomes:#?}"
    );
}

#[test]
fn a_window_that_is_waited_for_and_cancelled_or_in_need_of_an_operator() {
    let mut stage = stage("cancel");
    let liar = stage.script("emergency.sh", "echo done");
    stage.plan.rungs = crate::stage::script(&liar);
    let daemon = stage.daemon();
    let waits = stage.start("wait", &["window", "open", "--wait"]);
    stage.wait_for_state("watching");
    stage.cli(&["window", "cancel", "--reason", "not today"]).expect(0);
    waits.end().expect(23);
    stage.hooks.wait_for("window.cancelled");

    let waits = stage.start("wait", &["window", "open", "--wait"]);
    stage.wait_for_state("watching");
    stage.database.sql(BREAKING);
    let lost = waits.end().expect(21);
    assert!(lost.stdout.contains("it changed nothing"), "{}", lost.stdout);
    let status = stage.cli(&["status"]).expect(0).stdout;
    assert!(status.contains("ALTER TABLE \"public\".\"pages\" SET SCHEMA"), "what to do by hand is shown: {status}");
    stage.cli(&["ack", "--reason", "on it"]).expect(0);
    stage.cli(&["window", "cancel"]).expect(1);
    stage.cli(&["window", "resolved", "--force", "--reason", "restored by hand"]).expect(0);
    until("it is settled", || outcome(&stage.records()).is_some());
    let report = stage.cli(&["report"]).expect(0).stdout;
    assert!(report.contains("nothing was verified"), "{report}");
    assert!(!stage.path("maintenance").exists(), "traffic is resumed");
    daemon.term().expect(0);
}

#[test]
fn a_rollback_on_request() {
    let stage = stage("request");
    let daemon = stage.daemon();
    let early = stage.cli(&["rollback", "--reason", "too early"]).expect(1);
    assert!(early.stderr.contains("no window is open"), "{}", early.stderr);
    stage.cli(&["rollback"]).expect(64);
    open(&stage);
    stage.wait_for_state("watching");
    stage.database.sql(HARMLESS);
    stage.cli(&["rollback", "--reason", "orders vanish", "--who", "ana"]).expect(0);
    stage.wait_for_state("recovered");
    let report = stage.report();
    assert_eq!(report["trigger"]["kind"], "operator", "{report:#}");
    assert_eq!(report["trigger"]["sentence"], "ana asked for it: orders vanish");
    let told = stage.hooks.wait_for("rollback.started");
    assert!(told["data"]["summary"].as_str().unwrap().contains("ana asked for it: orders vanish"), "{told}");
    assert_everybody_was_told(&stage);
    assert!(!stage.database.tables().contains(&"public.invoices".to_owned()));
    stage.assert_originals_whole();
    daemon.term().expect(0);
}
