//! What people do while a window is open: approve, hold, cancel, take over, and end what automation could not.

use rollbackd_core::run::record::Record;
use serde_json::Value;

use crate::endings::{BREAKING, HARMLESS, TANGLED};
use crate::stage::{QUARANTINE, Running, Stage, eventually, script, until};

/// Waits until a rung waits for an operator's word.
#[track_caller]
fn wait_for_approval(stage: &Stage, rung: &str) {
    eventually("a rung waits for approval", || {
        let approval = stage.status().map(|status| status["approval"].clone()).unwrap_or_default();
        if approval["rung"] == rung { Ok(()) } else { Err(approval) }
    });
}

/// A daemon whose window, opened by hand, has come to need an operator.
#[track_caller]
fn needs_operator(stage: &mut Stage, migration: &str) -> Running {
    let words = stage.migration(migration);
    stage.plan.command(&words);
    let daemon = stage.daemon();
    stage.cli(&["window", "open", "--wait"]).expect(21);
    daemon
}

#[test]
fn a_rung_waits_until_it_is_approved() {
    let mut stage = Stage::new("approve");
    stage.plan.change("approval = \"none\"", "approval = \"always\"");
    let guard = stage.start_guard_sql(BREAKING);
    wait_for_approval(&stage, "tables");
    stage.hooks.wait_for("approval.required");
    assert!(stage.path("maintenance").exists(), "traffic is stopped meanwhile");
    assert_eq!(stage.new_tables(), ["public.media_files", "public.pages"]);
    stage.cli(&["approve", "--reason", "go", "--who", "Ada"]).expect(0);
    guard.end().expect(20);
    let records = stage.records();
    let given = records.iter().find(|entry| matches!(entry.record, Record::ApprovalGiven { .. }));
    let Record::ApprovalGiven { who, reason, .. } = &given.expect("it is recorded").record else { unreachable!() };
    assert!(who.contains("Ada") && reason == "go", "{who} {reason}");
    stage.assert_originals_whole();
}

#[test]
fn a_rung_that_is_declined_is_not_tried() {
    let mut stage = Stage::new("decline");
    let command = stage.script("rollback.sh", "touch tried");
    stage.plan.rungs = script(&command).replace("idempotent", "approval = \"required\"\nidempotent") + QUARANTINE;
    let guard = stage.start_guard_sql(BREAKING);
    wait_for_approval(&stage, "script");
    stage.cli(&["decline", "--reason", "not that script"]).expect(0);
    guard.end().expect(20);
    assert!(!stage.path("tried").exists());
    let rungs = stage.report()["rungs"].clone();
    assert!(rungs[0]["failure"].as_str().unwrap().contains("not that script"), "{rungs:#}");
    assert_eq!(rungs[1]["result"], "recovered");
    stage.assert_originals_whole();

    let mut stage = Stage::new("decline-all");
    stage.plan.change("approval = \"none\"", "approval = \"always\"");
    let guard = stage.start_guard_sql(BREAKING);
    wait_for_approval(&stage, "tables");
    stage.cli(&["decline", "--reason", "wait for me"]).expect(0);
    guard.end().expect(21);
    assert_eq!(stage.new_tables(), ["public.media_files", "public.pages"]);
    stage.assert_originals_whole();
}

#[test]
fn nothing_is_rolled_back_while_decisions_are_held() {
    let mut stage = Stage::new("hold");
    stage.plan.change("soak = \"1s\"", "soak = \"3s\"");
    let guard = stage.start_guard_sql(HARMLESS);
    stage.wait_for_state("soaking");
    stage.cli(&["window", "hold", "--reason", "looking"]).expect(0);
    stage.wait_for_state("held");
    stage.database.sql("create table pages (id int)");
    until("the rules say so", || stage.status().is_some_and(|status| status["verdict"] == "breached"));
    stage.app.wait_for_requests(5);
    assert_eq!(stage.window_state().as_deref(), Some("held"));
    assert!(stage.cli(&["window", "hold"]).code != 0, "it is held already");
    stage.cli(&["window", "resume", "--reason", "seen enough"]).expect(0);
    guard.end().expect(20);
    assert!(!stage.path("maintenance").exists());
    stage.assert_originals_whole();
}

#[test]
fn a_hold_is_over_before_anything_was_wrong() {
    let stage = Stage::new("hold-well");
    let guard = stage.start_guard_sql(HARMLESS);
    stage.wait_for_state("soaking");
    stage.cli(&["window", "hold"]).expect(0);
    stage.app.fail_next(4);
    until("the application is well again", || stage.app.failures_left() == 0);
    stage.app.wait_for_requests(12);
    assert_eq!(stage.window_state().as_deref(), Some("held"), "the soak does not end meanwhile");
    stage.cli(&["window", "resume"]).expect(0);
    guard.end().expect(0);
    stage.assert_originals_whole();
}

#[test]
fn a_rollback_pauses_before_its_next_step() {
    let mut stage = Stage::new("hold-ladder");
    let command =
        stage.script("rollback.sh", "touch begun; while [ ! -e go ]; do sleep 0.05; done; echo done >end; exit 1");
    stage.plan.rungs = script(&command) + QUARANTINE;
    let guard = stage.start_guard_sql(BREAKING);
    until("the script runs", || stage.path("begun").exists());
    stage.cli(&["window", "hold", "--reason", "wait"]).expect(0);
    std::fs::write(stage.path("go"), "").unwrap();
    until("the step in flight has ended", || stage.status().is_some_and(|status| status["rollback"]["step"].is_null()));
    assert_eq!(stage.lines("end"), ["done"], "it was not cut short");
    stage.app.wait_for_requests(5);
    assert_eq!(stage.new_tables(), ["public.media_files", "public.pages"]);
    stage.cli(&["window", "resume"]).expect(0);
    guard.end().expect(20);
    stage.assert_originals_whole();
}

#[test]
fn a_window_is_cancelled() {
    let mut stage = Stage::new("cancel");
    stage.plan.change("soak = \"1s\"", "soak = \"30s\"");
    let guard = stage.start_guard_sql(HARMLESS);
    stage.wait_for_state("soaking");
    stage.cli(&["window", "cancel", "--reason", "another day"]).expect(0);
    guard.end().expect(23);
    stage.hooks.wait_for("window.cancelled");
    assert_eq!(stage.report()["outcome"], "cancelled");
    assert_eq!(stage.new_tables(), ["public.invoices"]);
    stage.assert_originals_whole();
}

#[test]
fn a_rollback_is_not_cancelled_but_abandoned() {
    let mut stage = Stage::new("abandon");
    let command = stage.script("rollback.sh", "touch begun; while [ ! -e go ]; do sleep 0.05; done");
    stage.plan.rungs = script(&command) + QUARANTINE;
    let guard = stage.start_guard_sql(BREAKING);
    until("the script runs", || stage.path("begun").exists());
    let refused = stage.cli(&["window", "cancel"]).expect(1);
    assert!(refused.stderr.contains("--abandon"), "{}", refused.stderr);
    stage.cli(&["window", "cancel", "--abandon", "--reason", "I take it from here"]).expect(0);
    std::fs::write(stage.path("go"), "").unwrap();
    guard.end().expect(21);
    let report = stage.report();
    assert!(report["summary"].to_string().contains("I take it from here"), "{:#}", report["summary"]);
    assert!(stage.path("maintenance").exists(), "traffic stays stopped");
    assert_eq!(stage.new_tables(), ["public.media_files", "public.pages"]);
    stage.assert_originals_whole();
    stage.assert_nothing_runs();
}

#[test]
fn an_operator_starts_the_rollback() {
    let mut stage = Stage::new("by-hand");
    stage.plan.change("soak = \"1s\"", "soak = \"30s\"");
    let guard = stage.start_guard_sql(HARMLESS);
    stage.wait_for_state("soaking");
    stage.cli(&["rollback", "--reason", "customers complain", "--who", "Ada"]).expect(0);
    guard.end().expect(20);
    let report = stage.report();
    assert_eq!(report["trigger"]["kind"], "operator");
    assert!(report["trigger"]["sentence"].as_str().unwrap().contains("customers complain"));
    assert!(stage.new_tables().iter().all(|table| table.starts_with("rollbackd_20")), "{:?}", stage.new_tables());
    stage.assert_originals_whole();
}

#[test]
fn the_budget_is_kept() {
    let mut stage = Stage::new("budget");
    let command = stage.script("rollback.sh", "sleep 300");
    stage.plan.change("budget = \"1m\"", "budget = \"2s\"");
    stage.plan.rungs = script(&command) + QUARANTINE;
    stage.guard_sql(BREAKING).expect(21);
    let report = stage.report();
    assert!(report["summary"].to_string().contains("budget of 2s is spent"), "{:#}", report["summary"]);
    assert_eq!(report["rungs"].as_array().unwrap().len(), 1, "no other rung was begun");
    assert_eq!(report["rungs"][0]["work"], "timed_out");
    assert!(stage.path("maintenance").exists());
    assert_eq!(stage.new_tables(), ["public.media_files", "public.pages"]);
    stage.assert_originals_whole();
    stage.assert_nothing_runs();
}

#[test]
fn what_is_printed_for_a_person_heals_as_it_stands() {
    let mut stage = Stage::new("manual");
    let failing = stage.script("failing.sh", "exit 1");
    let lying = stage.script("lying.sh", "exit 0");
    stage.plan.rungs = script(&failing) + &script(&lying);
    let daemon = needs_operator(&mut stage, TANGLED);
    let report = stage.report();
    assert_eq!(report["rungs"].as_array().unwrap().len(), 2);
    assert!(report["summary"].to_string().contains("Every rung of the ladder has failed"), "{:#}", report["summary"]);
    assert!(stage.path("maintenance").exists(), "traffic stays stopped");
    let notice = stage.hooks.wait_for("rollback.needs_operator");
    assert_eq!(notice["data"]["severity"], "critical");
    stage.assert_originals_whole();

    // Another window does not open meanwhile.
    assert_ne!(stage.cli(&["window", "open"]).code, 0);
    // Nothing was done yet, so it is not resolved.
    stage.cli(&["window", "resolved", "--reason", "too early"]).expect(0);
    until("that is said", || {
        stage.records().iter().any(|entry| matches!(entry.record, Record::ResolutionFailed { .. }))
    });
    stage.wait_for_state("needs_operator");
    assert!(stage.path("maintenance").exists(), "traffic is stopped again");

    let counts = stage.run_manual();
    assert_eq!(counts, ["5", "20", "60"], "the counts are the baseline's");
    let left = stage.new_tables();
    assert!(left.len() == 2 && left.iter().all(|table| table.starts_with("rollbackd_20")), "{left:?}");
    stage.assert_originals_whole();

    stage.cli(&["window", "resolved", "--reason", "moved by hand", "--who", "Ada"]).expect(0);
    stage.wait_for_state("recovered");
    assert!(!stage.path("maintenance").exists(), "traffic flows again");
    stage.hooks.wait_for("rollback.recovered");
    let report = stage.report();
    assert_eq!(report["outcome"], "recovered");
    assert!(report["headline"].as_str().unwrap().contains("by an operator"), "{}", report["headline"]);
    daemon.term().expect(0);
    stage.assert_originals_whole();
}

#[test]
fn one_who_insists_settles_without_verification() {
    let mut stage = Stage::new("forced");
    let failing = stage.script("failing.sh", "exit 1");
    stage.plan.rungs = script(&failing);
    let daemon = needs_operator(&mut stage, BREAKING);
    stage.cli(&["window", "resolved", "--force", "--reason", "the pages stay"]).expect(0);
    eventually("the window is settled", || match stage.report() {
        report if report["ended_at"].is_string() => Ok(()),
        report => Err(report["state"].clone()),
    });
    assert!(!stage.path("maintenance").exists(), "traffic flows again");
    let report = stage.report();
    assert_eq!(report["outcome"], "needs_operator", "nobody has verified it");
    assert!(report["summary"].to_string().contains("nothing was verified"), "{:#}", report["summary"]);
    // And the next window may open.
    stage.app.ill_when("false");
    stage.cli(&["window", "open"]).expect(0);
    daemon.term().expect(0);
    stage.assert_originals_whole();
}

#[test]
fn people_are_paged_until_somebody_takes_charge() {
    let mut stage = Stage::new("ack");
    let failing = stage.script("failing.sh", "exit 1");
    stage.plan.rungs = script(&failing);
    stage.plan.change("repeat_page = \"1m\"", "repeat_page = \"1s\"");
    let daemon = needs_operator(&mut stage, BREAKING);
    let pages = |stage: &Stage| stage.hooks.events().iter().filter(|event| *event == "rollback.needs_operator").count();
    until("people are paged again", || pages(&stage) >= 3);
    stage.cli(&["ack", "--reason", "on it", "--who", "Ada"]).expect(0);
    until("the last page is here", || stage.status().is_some_and(|status| status["notices_pending"] == 0));
    let before = pages(&stage);
    stage.app.wait_for_requests(25);
    assert_eq!(pages(&stage), before, "nobody is paged any more");
    let status = stage.status().unwrap();
    assert!(status["acknowledged"].as_str().unwrap().contains("Ada"), "{status:#}");
    assert_eq!(status["window"]["state"], Value::from("needs_operator"), "it still needs one");
    daemon.term().expect(0);
    stage.assert_originals_whole();
}
