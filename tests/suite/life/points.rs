//! Killed at every named point of a rollback, with the real program and a real cluster.
//!
//! The story: the migration breaks the application, the emergency script fails, the built-in removal heals. It is run once
//! to count its points, then once for each point: the program ends there as by SIGKILL, is started again, and must come
//! to the same end.
//!
//! `make test` goes to one point in eight; `CRASH_POINTS=all cargo test --test suite points` to all of them.

use std::collections::BTreeMap;

use rollbackd_core::run::record::{MigrationEnd, Record, WindowOutcome};

use super::{assert_everybody_was_told, count, outcome, rollbacks, steps};
use crate::endings::BREAKING;
use crate::stage::{QUARANTINE, Stage, eventually, script};

/// The variable that says where a development build ends.
const CRASH_AT: &str = "ROLLBACKD_CRASH_AT";

fn stage() -> Stage {
    let mut stage = Stage::new("points");
    let migration = stage.migration(BREAKING);
    stage.plan.command(&migration);
    let name = stage.script("emergency.sh", "echo run >> script.runs; exit 3");
    stage.plan.rungs = script(&name) + QUARANTINE;
    stage
}

/// The window is over, or waits for a person.
fn is_over(state: &str) -> bool {
    ["passed", "refused", "recovered", "needs_operator", "cancelled"].contains(&state)
}

/// Asks for a window; whether there is one now shows later.
fn ask_for_a_window(stage: &Stage) {
    drop(stage.cli(&["window", "open", "--reason", "a test"]));
}

/// Waits for the end of the window, and checks all that must be true then.
#[track_caller]
fn wait_for_a_true_end(stage: &Stage, point: &str) {
    eventually(&format!("{point}: the window is over"), || match stage.window_state() {
        Some(now) if is_over(&now) => Ok(()),
        now => Err(now),
    });
    let records = stage.records();
    let story = steps(&records);
    // Killed between the durable start of the migration and its process: nobody knows whether it ran, so the signals
    // decide, and nothing is wrong because it did not.
    let never_ran = records
        .iter()
        .any(|entry| matches!(entry.record, Record::MigrationFinished { how: MigrationEnd::ExitUnknown, .. }));
    if outcome(&records) != Some(WindowOutcome::Passed) || !never_ran {
        assert_eq!(outcome(&records), Some(WindowOutcome::Recovered), "{point}: {story:?}");
        assert_eq!(rollbacks(&records), 1, "{point}: {story:?}");
    }
    assert!(count(&records, "migrate") <= 1, "{point}: {story:?}");
    assert!(stage.lines("script.runs").len() <= 1, "{point}: the script ran twice");
    assert!(!stage.path("maintenance").exists(), "{point}: traffic is still stopped");
    let left: Vec<String> = stage.new_tables().into_iter().filter(|table| table.starts_with("public.")).collect();
    assert_eq!(left, Vec::<String>::new(), "{point}");
    stage.assert_originals_whole();
    assert_everybody_was_told(stage);
}

/// How often each point is passed when nothing goes wrong.
fn count_points() -> BTreeMap<&'static str, u64> {
    let mut stage = stage();
    stage.plan.services.push_str("\n[http]\nlisten = \"127.0.0.1:0\"\n");
    let daemon = stage.daemon();
    ask_for_a_window(&stage);
    wait_for_a_true_end(&stage, "no crash");
    let (_, metrics) = stage.get("/metrics").expect("metrics");
    let appends = metrics.lines().find(|line| line.starts_with("rollbackd_journal_append_duration_seconds_count"));
    let appends = appends.and_then(|line| line.rsplit(' ').next()?.parse().ok()).expect("a count of appends");
    let effects = stage.records().iter().filter(|entry| matches!(entry.record, Record::StepStarted { .. })).count();
    let effects = u64::try_from(effects).unwrap();
    daemon.term().expect(0);
    [("before_append", appends), ("after_append", appends), ("before_effect", effects), ("after_effect", effects)]
        .into()
}

/// Goes through the story with a crash at a point; whether there was one.
fn crash_at(point: &str) -> bool {
    let mut stage = stage();
    stage.set(CRASH_AT, point);
    let mut daemon = stage.daemon_unready();
    let crashed = |daemon: &mut crate::stage::Daemon| daemon.has_ended();
    eventually("the daemon is ready or gone", || {
        let ready = matches!(stage.get("/readyz"), Some((200, _)));
        if ready || crashed(&mut daemon) { Ok(()) } else { Err(daemon.said()) }
    });
    // Only the daemon is to end there.
    stage.unset(CRASH_AT);
    ask_for_a_window(&stage);
    eventually(&format!("{point}: it ends, or has nothing more to do"), || {
        let status = stage.status().unwrap_or_default();
        // The last receipts are appended after the window's end.
        let through = status["window"]["state"].as_str().is_some_and(is_over) && status["notices_pending"] == 0;
        if through || crashed(&mut daemon) { Ok(()) } else { Err(status) }
    });
    let ended = crashed(&mut daemon);
    let daemon = if ended {
        drop(daemon.end().expect(128 + 9));
        let daemon = stage.daemon();
        if stage.window_state().is_none() {
            ask_for_a_window(&stage);
        }
        daemon
    } else {
        daemon
    };
    wait_for_a_true_end(&stage, point);
    daemon.term().expect(0);
    stage.assert_nothing_runs();
    ended
}

#[test]
fn killed_at_every_point_it_comes_to_the_same_end() {
    let all = std::env::var("CRASH_POINTS").is_ok_and(|which| which == "all");
    let mut crashes = 0_u64;
    let mut wanted = 0_u64;
    for (name, turns) in count_points() {
        // Receipts of notices come when they come: the last of the appends may be passed or not.
        for turn in (1..=turns).step_by(if all { 1 } else { 8 }) {
            wanted += 1;
            crashes += u64::from(crash_at(&format!("{name}:{turn}")));
        }
    }
    println!("the real program was killed at {crashes} of {wanted} points");
    assert!(crashes * 10 >= wanted * 8, "it was killed at {crashes} of {wanted} points only");
}
