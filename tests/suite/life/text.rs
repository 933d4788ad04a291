//! What commands print: text that fits a terminal, JSON in the promised shapes, exit codes, colours, closed pipes.

use std::process::{Command, Stdio};

use serde_json::Value;

use super::open;
use crate::endings::BREAKING;
use crate::stage::{QUARANTINE, Stage, script};

/// A stage on which a rollback has happened, with names that are longer than one would like.
fn after_a_rollback(name: &str) -> (Stage, crate::stage::Daemon) {
    let mut stage = Stage::new(name);
    let failing =
        stage.script("emergency.sh", "echo 'the emergency script has a long complaint about many things'; exit 3");
    stage.plan.rungs = script(&failing) + QUARANTINE;
    let migration = stage.migration(BREAKING);
    stage.plan.command(&migration);
    let daemon = stage.daemon();
    open(&stage);
    stage.wait_for_state("recovered");
    (stage, daemon)
}

/// Paths and ids are there to be copied, and as long as they are; SQL and shell lines too.
#[track_caller]
fn assert_fits(what: &str, text: &str) {
    for line in text.lines().filter(|line| !line.contains("/tmp/")) {
        assert!(line.chars().count() <= 80, "{what}: {} columns: {line}", line.chars().count());
    }
    assert!(!text.contains('\u{1b}'), "{what}: colour in a pipe");
}

fn json(stage: &Stage, arguments: &[&str]) -> Value {
    serde_json::from_str(&stage.cli(arguments).expect(0).stdout).unwrap()
}

#[track_caller]
fn assert_keys(value: &Value, keys: &[&str]) {
    for key in keys {
        assert!(value.get(key).is_some(), "no {key} in {value:#}");
    }
}

/// Times are RFC 3339 in UTC with milliseconds, wherever they stand.
#[track_caller]
fn assert_times(value: &Value) {
    match value {
        Value::String(text) if text.parse::<jiff::Timestamp>().is_ok() => {
            assert!(text.len() == 24 && text.ends_with('Z') && text.as_bytes()[19] == b'.', "{text}");
        }
        Value::Array(values) => values.iter().for_each(assert_times),
        Value::Object(fields) => fields.values().for_each(assert_times),
        _ => {}
    }
}

#[test]
fn status_history_report_and_verify_with_a_daemon_and_without() {
    let (stage, daemon) = after_a_rollback("text");
    let mut daemon = Some(daemon);
    for with_daemon in [true, false] {
        if !with_daemon {
            daemon.take().unwrap().term().expect(0);
        }
        let status = stage.cli(&["status"]).expect(0);
        assert_fits("status", &status.stdout);
        assert_eq!(status.stderr.contains("no daemon answers"), !with_daemon, "{}", status.stderr);
        assert!(status.stdout.contains("recovered"), "{}", status.stdout);
        assert_eq!(status.stdout.contains("blind"), !with_daemon, "nobody watches: {}", status.stdout);
        let history = stage.cli(&["history"]).expect(0);
        assert_fits("history", &history.stdout);
        assert_eq!(history.stdout.lines().count(), 2);
        let verify = stage.cli(&["verify"]).expect(0);
        assert_fits("verify", &verify.stdout);
        assert!(verify.stdout.contains("4 checks passed"), "{}", verify.stdout);
        let report = stage.cli(&["report"]).expect(0).stdout;
        assert!(
            report.starts_with("# ") && report.contains("api is down") && report.contains("long complaint"),
            "{report}"
        );

        let status = json(&stage, &["status", "--json"]);
        assert_keys(
            &status,
            &["plan", "window", "verdict", "next_window_at", "signals", "rules", "rollback", "notices_pending"],
        );
        assert_keys(&status["window"], &["id", "state", "started_at", "ends_at", "outcome"]);
        if with_daemon {
            assert_keys(
                &status["signals"][0],
                &["name", "verdict", "last_sample_at", "error_ratio", "consecutive_bad", "reason"],
            );
            let (_, body) = stage.get("/api/v1/status").unwrap();
            let served: Value = serde_json::from_str(&body).unwrap();
            let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
            assert_eq!(keys(&served), keys(&status));
        }
        let history = json(&stage, &["history", "--json"]);
        let row = &history[0];
        assert_keys(row, &["id", "state", "outcome", "started_at", "ended_at"]);
        assert_eq!((row["outcome"].as_str(), row["state"].as_str()), (Some("recovered"), Some("recovered")));
        let verify = json(&stage, &["verify", "--json"]);
        let report = json(&stage, &["report", "--json"]);
        for checks in [&verify["checks"], &report["checks"]] {
            assert_eq!(checks.as_array().unwrap().len(), 4);
            assert_keys(&checks[0], &["name", "kind", "passed", "detail"]);
        }
        let id = row["id"].as_str().unwrap();
        assert_eq!(json(&stage, &["report", id, "--format", "json"])["window"], report["window"]);
        for value in [status, history, verify, report] {
            assert_times(&value);
        }
        let unknown = stage.cli(&["report", "shop-19700101T000000Z"]).expect(1);
        assert!(unknown.stderr.contains("there is no window `shop-19700101T000000Z`"), "{}", unknown.stderr);
    }
    stage.database.sql("delete from comments where id = 1");
    let verify = stage.cli(&["verify"]).expect(1).stdout;
    assert_fits("verify", &verify);
    assert!(verify.contains("1 of 4 checks failed"), "{verify}");
}

#[test]
fn usage_and_absence_have_their_codes() {
    let stage = Stage::new("codes");
    for wrong in [
        &["windows"][..],
        &["rollback"],
        &["report", "--format", "pdf"],
        &["status", "--colour"],
        &[],
        &["guard", "--soak", "soon", "--", "true"],
    ] {
        let output = stage.cli(wrong).expect(64);
        assert_eq!(output.stdout, "");
        assert!(output.stderr.contains("--help") || output.stderr.contains("Usage"), "{wrong:?}: {}", output.stderr);
    }
    for fine in [&["--help"][..], &["--version"], &["window", "--help"], &["completions", "bash"]] {
        assert_ne!(stage.cli(fine).expect(0).stdout, "");
    }
    for control in [
        &["window", "open"][..],
        &["window", "open", "--wait"],
        &["window", "hold"],
        &["rollback", "--reason", "x"],
        &["ack"],
        &["approve"],
        &["decline"],
    ] {
        let output = stage.cli(control).expect(69);
        assert!(
            output.stderr.contains("no daemon answers at ") && output.stderr.contains("rollbackd run"),
            "{}",
            output.stderr
        );
    }
    assert_eq!(stage.cli(&["history"]).expect(0).stdout, "no window was opened yet\n");
    stage.cli(&["report"]).expect(1);
    assert!(!stage.state().exists(), "looking makes nothing");
    stage.cli(&["-c", "nowhere.toml", "status"]).expect(78);
}

/// Runs a line of bash on the stage.
fn bash(stage: &Stage, line: &str) -> (i32, String) {
    let line = line.replace("rollbackd", env!("CARGO_BIN_EXE_rollbackd"));
    let output = Command::new("bash")
        .args(["-o", "pipefail", "-c", &line])
        .env("ROLLBACKD_CONFIG", stage.path("rollbackd.toml"))
        .env("TERM", "xterm")
        .env_remove("NO_COLOR")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code().unwrap_or(-1), text)
}

#[test]
fn colours_are_for_terminals_and_a_closed_pipe_is_no_failure() {
    let (stage, daemon) = after_a_rollback("pipe");
    let on_a_terminal = bash(&stage, "script -qec 'rollbackd status' /dev/null");
    assert!(on_a_terminal.1.contains("\u{1b}["), "{}", on_a_terminal.1);
    for plain in [
        "NO_COLOR=1 script -qec 'rollbackd status' /dev/null",
        "TERM=dumb script -qec 'rollbackd status' /dev/null",
        "rollbackd status | cat",
    ] {
        let (code, text) = bash(&stage, plain);
        assert!(code == 0 && !text.contains('\u{1b}'), "{plain}: {text}");
    }
    for closed in [
        "rollbackd report | head -1",
        "rollbackd report --json | head -c 1",
        "rollbackd history | true",
        "rollbackd completions bash | head -1",
        "rollbackd --help | true",
        "rollbackd status --json | true",
    ] {
        let (code, text) = bash(&stage, closed);
        assert_eq!(code, 0, "{closed}: {text}");
        assert!(!text.contains("panicked") && !text.contains("roken pipe"), "{closed}: {text}");
    }
    let (code, text) = bash(&stage, "rollbackd status > /dev/full");
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("No space left on device"), "{text}");
    daemon.term().expect(0);
}
