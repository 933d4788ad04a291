//! The journal as people meet it: looked into beside the daemon and without one, and on a disk that fills up in the middle of
//! a rollback.

use rollbackd_core::run::record::{Entry, Record, WindowOutcome};
use rollbackd_core::run::sound::unsound;
use serde_json::Value;

use super::volume::Volume;
use super::{open, outcome, rollbacks};
use crate::endings::{BREAKING, HARMLESS};
use crate::stage::{QUARANTINE, Stage, eventually, script, until};

/// `rollbackd journal export`.
#[track_caller]
fn exported(stage: &Stage) -> Vec<Entry> {
    let text = stage.cli(&["journal", "export"]).expect(0).stdout;
    let entry = |line: &str| {
        let mut line: Value = serde_json::from_str(line).unwrap();
        serde_json::from_value(line["entry"].take()).unwrap()
    };
    text.lines().map(entry).collect()
}

/// Every record of the journal is there and follows from those before.
#[track_caller]
fn verified(stage: &Stage) -> Value {
    let answer: Value = serde_json::from_str(&stage.cli(&["journal", "verify", "--json"]).expect(0).stdout).unwrap();
    assert_eq!(answer["ok"], true, "{answer}");
    answer
}

#[test]
fn it_is_looked_into_beside_a_daemon_and_without_one() {
    let mut stage = Stage::new("look");
    let migration = stage.migration(BREAKING);
    stage.plan.command(&migration);
    let daemon = stage.daemon();
    open(&stage);
    stage.wait_for_state("recovered");
    let window = stage.records()[0].window.clone().unwrap();
    let shown = stage.cli(&["journal", "show"]).expect(0).stdout;
    assert!(shown.lines().all(|line| line.chars().count() <= 80), "{shown}");
    assert!(shown.contains("the application has recovered"), "{shown}");
    let own = stage.cli(&["journal", "show", "--json", "--window", &window]).expect(0).stdout;
    assert_eq!(own.lines().count(), stage.records().len());
    assert_eq!(verified(&stage)["source"], "daemon");
    let beside = exported(&stage);
    daemon.kill().expect(128 + 9);

    // What the crash has left is read as it is.
    let file = stage.state().join("journal.redb");
    let crashed = std::fs::read(&file).unwrap();
    assert_eq!(verified(&stage)["source"], "file");
    let after = exported(&stage);
    assert!(after.starts_with(&beside), "{} records, {} before", after.len(), beside.len());
    assert_eq!(stage.cli(&["journal", "show"]).expect(0).stdout.lines().count(), after.len());
    assert_eq!(std::fs::read(&file).unwrap(), crashed, "looking writes nothing");
    assert_eq!(stage.cli(&["history"]).expect(0).stdout.lines().count(), 2);
    assert_eq!(std::fs::read(&file).unwrap(), crashed, "looking writes nothing");

    // Damage in the middle.
    let place = crashed.windows(16).rposition(|part| part == b"\"breach_detected").unwrap();
    let mut bent = crashed.clone();
    bent[place + 1] = b'B';
    std::fs::write(&file, &bent).unwrap();
    let breach = after.iter().position(|entry| matches!(entry.record, Record::BreachDetected { .. })).unwrap();
    for verb in ["show", "export"] {
        let seen = stage.cli(&["journal", verb]).expect(1);
        assert_eq!(seen.stdout.lines().count(), breach, "{verb}: {}", seen.stderr);
        assert!(seen.stderr.contains("is damaged") && seen.stderr.contains("mv "), "{}", seen.stderr);
    }
    let verdict = stage.cli(&["journal", "verify"]).expect(1).stdout;
    assert!(verdict.contains("NOT WHOLE") && verdict.contains("is damaged"), "{verdict}");
    assert_eq!(std::fs::read(&file).unwrap(), bent, "looking writes nothing");
}

/// The emergency script fills the disk and fails, and whoever fills it goes on. The daemon is killed, too. The rollback is
/// brought to its end, and all of it is written down.
#[test]
fn a_disk_that_fills_up_in_the_middle_of_a_rollback() {
    let mut stage = Stage::new("fills");
    let Some(volume) = Volume::mount(&stage, "size=100m") else { return };
    let migration = stage.migration(BREAKING);
    stage.plan.command(&migration);
    let filler = stage.state().join("filler");
    let fill = format!(
        "seq 20000; cat /dev/zero > {}; echo full > full; until [ -e kept ]; do sleep 0.05; done; exit 3",
        filler.display()
    );
    let name = stage.script("fill.sh", &fill);
    stage.plan.rungs = script(&name) + QUARANTINE;
    let daemon = stage.daemon();
    open(&stage);
    until("the disk is full", || stage.path("full").exists());
    assert!(stage.state().join("journal.reserve").exists(), "room was set aside before anything was changed");
    let filling = volume.keep_full();
    until("no byte is free", || volume.is_full());
    daemon.kill().expect(128 + 9);
    let daemon = stage.daemon();
    std::fs::write(stage.path("kept"), "").unwrap();
    eventually("it is over", || match stage.window_state() {
        Some(now) if ["recovered", "needs_operator"].contains(&now.as_str()) => Ok(()),
        now => Err((now, daemon.said())),
    });
    let said = daemon.said();
    until("no byte is free", || volume.is_full());
    assert!(!said.contains("\"event\":\"journal.failed\""), "{said}");
    let records = stage.records();
    let operator = records.iter().any(|entry| matches!(entry.record, Record::OperatorNeeded { .. }));
    assert!(operator || outcome(&records) == Some(WindowOutcome::Recovered), "{records:?}");
    assert_eq!(rollbacks(&records), 1);
    stage.assert_originals_whole();
    verified(&stage);

    // It is killed on the full disk, and goes on.
    daemon.kill().expect(128 + 9);
    let daemon = stage.daemon();
    let after = exported(&stage);
    assert_eq!(unsound(&after), None);
    assert!(records.iter().all(|record| after.contains(record)), "a record is lost");
    drop(filling);
    volume.free();
    if operator {
        stage.cli(&["window", "cancel", "--abandon"]);
    } else {
        open(&stage);
        until("room is set aside again", || stage.state().join("journal.reserve").exists());
    }
    daemon.term().expect(0);
    verified(&stage);
}

#[test]
fn without_room_for_the_reserve_no_window_begins() {
    let mut stage = Stage::new("noroom");
    let Some(_volume) = Volume::mount(&stage, "size=40m") else { return };
    let migration = stage.migration(HARMLESS);
    stage.plan.command(&migration);
    let before = stage.new_tables();
    let refused = stage.guard(&[] as &[&str]).expect(22).stdout;
    let directory = stage.state().display().to_string();
    let told = refused.split_whitespace().collect::<Vec<_>>().join(" ");
    for part in [&directory, "MiB free: make room for 64 MiB"] {
        assert!(told.contains(part), "{told}");
    }
    assert_eq!(stage.new_tables(), before, "nothing was changed");
    assert_eq!(outcome(&stage.records()), Some(WindowOutcome::Refused));
}
