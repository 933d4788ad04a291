//! A configuration that is edited while a window is open: the window keeps the one it opened with.

use rollbackd_core::run::record::{Record, WindowOutcome};

use super::systemd::Manager;
use super::{assert_everybody_was_told, open, outcome, rollbacks};
use crate::endings::BREAKING;
use crate::stage::{Stage, until};

/// The soak that each window of the journal froze, oldest first.
fn frozen_soak(stage: &Stage) -> i64 {
    let records = stage.records();
    let Record::WindowOpened { plan, .. } = &records[0].record else { panic!("{:?}", records[0]) };
    plan.window.soak.as_secs()
}

/// A daemon that has seen a window open and the configuration change, and was killed.
fn edited(name: &str, edit: impl FnOnce(&mut Stage)) -> Stage {
    let mut stage = Stage::new(name);
    let daemon = stage.daemon();
    open(&stage);
    stage.wait_for_state("watching");
    daemon.kill();
    edit(&mut stage);
    stage
}

#[test]
fn the_window_that_is_open_keeps_its_configuration_and_the_next_has_the_new_one() {
    let mut stage = edited("frozen", |stage| {
        // With the new configuration nothing would be removed, and somebody else would be told.
        let script = stage.script("new.sh", "touch new.ran");
        stage.plan.rungs = crate::stage::script(&script);
        stage.plan.change("soak = \"1s\"", "soak = \"2s\"");
        stage.plan.change("name = \"Operations\"", "name = \"Others\"");
    });
    let manager = Manager::listen(&mut stage);
    let daemon = stage.daemon();
    assert!(daemon.said().contains("\"event\":\"config.frozen\""), "{}", daemon.said());
    stage.database.sql(BREAKING);
    stage.wait_for_state("recovered");
    assert!(!stage.path("new.ran").exists());
    assert_eq!(rollbacks(&stage.records()), 1);
    assert_everybody_was_told(&stage);
    let report = stage.cli(&["report"]).expect(0).stdout;
    assert!(report.contains("Operations") && !report.contains("Others"), "{report}");
    until("the new configuration holds", || daemon.said().contains("\"event\":\"config.current\""));
    until("the daemon is back", || stage.get("/readyz").is_some_and(|(status, _)| status == 200));
    open(&stage);
    stage.wait_for_state("watching");
    assert_eq!(frozen_soak(&stage), 2);
    assert!(!manager.heard().contains(&"STOPPING=1".to_owned()), "the daemon has not ended: {:?}", manager.heard());
    stage.cli(&["window", "finished"]).expect(0);
    stage.wait_for_state("passed");
    stage.assert_originals_whole();
    daemon.term().expect(0);
    manager.wait_for("STOPPING=1");
    assert_eq!(stage.cli(&["history"]).expect(0).stdout.lines().count(), 3);
}

#[test]
fn a_configuration_that_became_wrong_does_not_keep_a_window_from_its_end() {
    let stage = edited("wrong", |stage| stage.plan.change("consecutive = 3", "consecutive = \"three\""));
    stage.database.sql(BREAKING);
    stage.configuration();
    let daemon = stage.start("run", &["run"]);
    // When the window is settled, it is as with every wrong configuration.
    let said = daemon.end().expect(78).stderr;
    assert!(said.contains("config.unusable") && said.contains("consecutive"), "{said}");
    assert_eq!(outcome(&stage.records()), Some(WindowOutcome::Recovered));
    stage.assert_originals_whole();
    assert_everybody_was_told(&stage);
    let said = stage.start("run", &["run"]).end().expect(78).stderr;
    assert!(said.contains("consecutive"), "{said}");
}

#[test]
fn a_copy_that_is_gone_is_said_and_nothing_is_done() {
    let stage = edited("gone", |stage| {
        stage.plan.change("soak = \"1s\"", "soak = \"2s\"");
        std::fs::remove_dir_all(stage.path("state/configs")).unwrap();
    });
    stage.configuration();
    let said = stage.start("run", &["run"]).end().expect(1).stderr;
    assert!(said.contains("is not settled and needs the configuration it opened with"), "{said}");
    assert!(said.contains("configs/"), "{said}");
}
