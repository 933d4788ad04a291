//! The wall clock is set while a window is open, as a time server does: the real program under libfaketime, which changes
//! what the wall clock shows and leaves all others alone.

use rollbackd::clock::Stopwatch;
use rollbackd_core::run::record::{Record, WindowOutcome};

use super::{assert_everybody_was_told, open, outcome, rollbacks};
use crate::endings::{BREAKING, HARMLESS};
use crate::stage::{QUARANTINE, Stage, eventually, script};

/// The library, from Debian's package `libfaketime`.
fn library() -> String {
    let places = std::fs::read_dir("/usr/lib").unwrap();
    let mut found = places.filter_map(|entry| {
        let path = entry.ok()?.path().join("faketime/libfaketimeMT.so.1");
        path.exists().then(|| path.display().to_string())
    });
    found.next().expect("libfaketime: tools/install-deps test installs it")
}

/// A stage whose programs see a wall clock that can be set.
fn stage(name: &str) -> Stage {
    let mut stage = Stage::new(name);
    set_clock(&stage, 0);
    let file = stage.path("clock").display().to_string();
    stage.set("FAKETIME_TIMESTAMP_FILE", file);
    for (name, value) in
        [("LD_PRELOAD", library().as_str()), ("FAKETIME_NO_CACHE", "1"), ("FAKETIME_DONT_FAKE_MONOTONIC", "1")]
    {
        stage.set(name, value);
    }
    stage
}

/// Sets it, against the true one.
fn set_clock(stage: &Stage, seconds: i64) {
    // Whoever reads it meanwhile must not see half of it.
    std::fs::write(stage.path("clock.new"), format!("{seconds:+}\n")).unwrap();
    std::fs::rename(stage.path("clock.new"), stage.path("clock")).unwrap();
}

/// Waits until it is recorded that the clock moved by so many seconds.
#[track_caller]
fn wait_until_noticed(stage: &Stage, seconds: i64) {
    eventually("it is noticed", || {
        let moved: Vec<i64> = stage
            .records()
            .iter()
            .filter_map(
                |entry| if let Record::ClockMoved { by, .. } = entry.record { Some(by.as_secs()) } else { None },
            )
            .collect();
        if moved.iter().any(|moved| moved.abs_diff(seconds) <= 1) { Ok(()) } else { Err(moved) }
    });
}

#[test]
fn a_soak_is_as_long_as_it_was_configured() {
    for (name, seconds, words) in [("forward", 7_200, "forward by 2h"), ("back", -2_592_000, "back by 30d")] {
        let mut stage = stage(name);
        let migration = stage.migration(HARMLESS);
        stage.plan.command(&migration);
        stage.plan.change("soak = \"1s\"", "soak = \"8s\"");
        let daemon = stage.daemon();
        open(&stage);
        stage.wait_for_state("soaking");
        let watch = Stopwatch::start();
        set_clock(&stage, seconds);
        wait_until_noticed(&stage, seconds);
        stage.wait_for_state("passed");
        let took = watch.elapsed().as_secs();
        assert!((5..40).contains(&took), "the clock was set by {seconds} s, and it soaked for {took} s");
        // Its lines are wrapped.
        let report = stage.cli(&["report"]).expect(0).stdout.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(report.contains(&format!("the clock was set {words}")), "{report}");
        assert_eq!(rollbacks(&stage.records()), 0);
        assert_everybody_was_told(&stage);
        daemon.term().expect(0);
        stage.assert_nothing_runs();
    }
}

#[test]
fn a_rollback_has_its_budget() {
    for (name, seconds) in [("later", 7_200), ("earlier", -7_200)] {
        let mut stage = stage(name);
        let migration = stage.migration(BREAKING);
        stage.plan.command(&migration);
        let slow = stage.script("emergency.sh", "touch started\nwhile [ ! -e go ]; do sleep 0.05; done\nexit 3");
        stage.plan.rungs = script(&slow).replace("\"10s\"", "\"40s\"") + QUARANTINE;
        let daemon = stage.daemon();
        open(&stage);
        super::wait_for_file(&stage, "started");
        set_clock(&stage, seconds);
        wait_until_noticed(&stage, seconds);
        super::touch(&stage, "go");
        // The second rung is begun only within the budget.
        stage.wait_for_state("recovered");
        assert_eq!(outcome(&stage.records()), Some(WindowOutcome::Recovered));
        stage.assert_originals_whole();
        assert_everybody_was_told(&stage);
        daemon.term().expect(0);
        stage.assert_nothing_runs();
    }
}
