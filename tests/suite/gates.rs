//! Stopping traffic and resuming it.

use rollbackd_core::run::record::Record;
use rollbackd_core::run::step::Step;
use serde_json::Value;

use crate::endings::BREAKING;
use crate::stage::{QUARANTINE, Stage, script};

/// Adds a gate of two commands, before or behind the file.
fn command_gate(stage: &Stage, more: &str) -> String {
    let stop = stage.script("stop.sh", "echo stop >>traffic; touch maintenance");
    let start = stage.script("start.sh", "echo start >>traffic");
    format!(
        "\n[[rollback.gate]]\nname = \"proxy\"\n{more}[rollback.gate.command]\nstop = [{stop:?}]\nstart = [{start:?}]\n"
    )
}

fn gate(report: &Value, name: &str) -> Value {
    let gates = report["gates"].as_array().unwrap();
    gates.iter().find(|gate| gate["name"] == name).unwrap_or_else(|| panic!("{gates:#?}")).clone()
}

/// What was done to the gates, in order.
fn moves(stage: &Stage) -> Vec<String> {
    let moved = |record| {
        if let Record::StepStarted { step: Step::CloseGate { gate }, .. } = record {
            Some(format!("close {gate}"))
        } else if let Record::StepStarted { step: Step::OpenGate { gate }, .. } = record {
            Some(format!("open {gate}"))
        } else if let Record::RungStarted { rung } = record {
            Some(format!("rung {rung}"))
        } else {
            None
        }
    };
    stage.records().into_iter().filter_map(|entry| moved(entry.record)).collect()
}

#[test]
fn are_closed_in_order_and_opened_in_reverse() {
    let mut stage = Stage::new("gates");
    let proxy = command_gate(&stage, "");
    stage.plan.gates.push_str(&proxy);
    stage.guard_sql(BREAKING).expect(20);
    assert_eq!(moves(&stage), ["close 0", "close 1", "rung 0", "open 1", "open 0"]);
    assert_eq!(stage.lines("traffic"), ["stop", "start"]);
    assert!(!stage.path("maintenance").exists());
    let report = stage.report();
    for name in ["edge", "proxy"] {
        let gate = gate(&report, name);
        assert_eq!((&gate["position"], &gate["failure"]), (&"reopened".into(), &Value::Null), "{gate:#}");
    }
    stage.assert_originals_whole();
}

#[test]
fn a_file_that_was_there_before_stays() {
    let mut stage = Stage::new("prior");
    std::fs::write(stage.path("batch-stopped"), "by hand, on Friday").unwrap();
    stage
        .plan
        .gates
        .push_str("\n[[rollback.gate]]\nname = \"batch\"\n[rollback.gate.file]\npath = \"batch-stopped\"\n");
    stage.guard_sql(BREAKING).expect(20);
    assert_eq!(stage.lines("batch-stopped"), ["by hand, on Friday"]);
    assert!(!stage.path("maintenance").exists(), "the other was opened");
    stage.assert_originals_whole();
}

#[test]
fn one_that_cannot_be_closed_does_not_keep_us_from_rolling_back() {
    let mut stage = Stage::new("gate-fails");
    let proxy = command_gate(&stage, "");
    stage.script("stop.sh", "echo 'proxy: no such pool' >&2; exit 4");
    stage.plan.gates.push_str(&proxy);
    stage.guard_sql(BREAKING).expect(20);
    let proxy = gate(&stage.report(), "proxy");
    stage.assert_originals_whole();
    assert_eq!(stage.lines("traffic"), ["start"], "what may have been half done is undone: {proxy:#}");
}

#[test]
fn one_that_is_required_must_close() {
    let mut stage = Stage::new("gate-required");
    let proxy = command_gate(&stage, "required = true\n");
    stage.script("stop.sh", "echo 'proxy: no such pool' >&2; exit 4");
    stage.plan.gates.push_str(&proxy);
    stage.guard_sql(BREAKING).expect(21);
    let report = stage.report();
    assert_eq!(report["rungs"], Value::Array(Vec::new()), "nothing was rolled back");
    let summary = report["summary"].to_string();
    assert!(summary.contains("required gate proxy") && summary.contains("no such pool"), "{summary}");
    assert_eq!(stage.new_tables(), ["public.media_files", "public.pages"]);
    stage.assert_originals_whole();
}

#[test]
fn the_canary_is_believed_and_not_the_gate() {
    let mut stage = Stage::new("canary");
    // The application does not look at this file.
    stage.plan.change("path = \"maintenance\"", "path = \"elsewhere\"");
    stage.plan.change("timeout = \"5s\"\n[rollback", "timeout = \"1s\"\nrequired = true\n[rollback");
    stage.guard_sql(BREAKING).expect(21);
    let report = stage.report();
    let failure = gate(&report, "edge")["failure"].clone();
    assert!(failure.as_str().unwrap().contains("not proven to be stopped"), "{failure}");
    assert_eq!(stage.new_tables(), ["public.media_files", "public.pages"]);
    stage.assert_originals_whole();
}

#[test]
fn traffic_is_stopped_again_when_it_shows_that_nothing_is_well() {
    let mut stage = Stage::new("open-fails");
    let proxy = command_gate(&stage, "");
    stage.plan.gates.push_str(&proxy);
    // The script does something, and not enough; only requests show it.
    let command = stage.script("rollback.sh", "psql -Xqc 'drop table media_files'");
    stage.plan.rungs = script(&command) + QUARANTINE;
    stage.guard_sql(BREAKING).expect(20);
    let wanted =
        ["close 0", "close 1", "rung 0", "open 1", "open 0", "close 0", "close 1", "rung 1", "open 1", "open 0"];
    assert_eq!(moves(&stage), wanted);
    assert_eq!(stage.lines("traffic"), ["stop", "start", "stop", "start"]);
    let report = stage.report();
    let failure = report["rungs"][0]["failure"].as_str().unwrap();
    assert!(failure.contains("verification with traffic resumed failed"), "{failure}");
    assert!(!stage.path("maintenance").exists());
    stage.assert_originals_whole();
}
