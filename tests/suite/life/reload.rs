//! SIGHUP: the configuration is read again while the daemon runs.

use rollbackd_core::run::record::Record;
use rustix::process::Signal;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::systemd::Manager;
use super::{assert_everybody_was_told, open};
use crate::endings::{BREAKING, HARMLESS};
use crate::stage::{Daemon, Stage, eventually, script, until};

/// What is shown of the configuration, once somebody answers: right after one was taken over there is a moment in which
/// nobody does.
#[track_caller]
fn configuration(stage: &Stage) -> Value {
    eventually("the status is shown", || {
        stage.status().map(|status| status["configuration"].clone()).ok_or("no answer")
    })
}

/// A sample of `/metrics` that has no labels but the plan's.
#[track_caller]
fn metric(stage: &Stage, name: &str) -> f64 {
    let (_, text) = eventually("metrics are served", || stage.get("/metrics").ok_or("no answer"));
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("rollbackd_{name}{{plan=\"shop\"}} ")));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
}

/// The file as the plan says now, and the signal.
fn reload(stage: &Stage, daemon: &Daemon) {
    stage.configuration();
    daemon.signal(Signal::HUP);
}

/// The SHA-256 of the configuration in the file, which names no other files.
fn sha256_of_the_file(stage: &Stage) -> String {
    let text = std::fs::read(stage.path("rollbackd.toml")).unwrap();
    Sha256::digest(text).iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

/// Waits until the configuration that holds is the one in the file.
#[track_caller]
fn wait_until_taken_over(stage: &Stage) {
    let wanted = sha256_of_the_file(stage);
    eventually("the file's configuration holds", || {
        let now = configuration(stage);
        if now["sha256"] == wanted.as_str() && now["pending"] == false { Ok(()) } else { Err(now) }
    });
    eventually("the daemon is ready", || match stage.get("/readyz") {
        Some((200, _)) => Ok(()),
        answer => Err(answer),
    });
}

/// Waits until the file is refused for a reason with these words in it, and gives the whole reason.
#[track_caller]
fn wait_until_refused(stage: &Stage, words: &str) -> String {
    eventually(&format!("the file is refused: {words}"), || {
        let now = configuration(stage);
        let reason = now["refused"]["reason"].as_str().unwrap_or_default().to_owned();
        if reason.contains(words) { Ok(reason) } else { Err(now) }
    })
}

/// The soak that the newest window was opened with.
fn soak(stage: &Stage) -> i64 {
    let records = stage.records();
    let Record::WindowOpened { plan, .. } = &records[0].record else { panic!("{:?}", records[0]) };
    plan.window.soak.as_secs()
}

/// How often the service manager was told something.
fn times(manager: &Manager, line: &str) -> usize {
    manager.heard().iter().filter(|one| *one == line).count()
}

#[test]
fn nothing_is_left_of_the_life_before() {
    let mut stage = Stage::new("relives");
    let daemon = stage.daemon();
    let threads = || std::fs::read_dir(format!("/proc/{}/task", daemon.pid())).unwrap().count();
    // What answers and what looks at the database comes and goes; it is less than one for each life.
    let bounds = (metric(&stage, "tasks") + 4.0, threads() + 4);
    for soak in 2..7 {
        stage.plan.change(&format!("soak = \"{}s\"", soak - 1), &format!("soak = \"{soak}s\""));
        reload(&stage, &daemon);
        wait_until_taken_over(&stage);
    }
    eventually("no more is there than at the beginning", || {
        let now = (metric(&stage, "tasks"), threads());
        if now.0 <= bounds.0 && now.1 <= bounds.1 { Ok(()) } else { Err((now, bounds)) }
    });
    daemon.term().expect(0);
}

#[test]
fn a_valid_one_is_taken_over_at_once_when_no_window_is_open() {
    let mut stage = Stage::new("reload");
    let manager = Manager::listen(&mut stage);
    let daemon = stage.daemon();
    manager.wait_for("READY=1");
    let before = metric(&stage, "config_hash");
    let migration = stage.migration(HARMLESS);
    stage.plan.command(&migration);
    stage.plan.change("soak = \"1s\"", "soak = \"2s\"");
    stage.plan.change("name = \"Operations\"", "name = \"Others\"");
    reload(&stage, &daemon);
    wait_until_taken_over(&stage);
    assert_ne!(metric(&stage, "config_hash").to_bits(), before.to_bits());
    assert_eq!(configuration(&stage)["refused"], Value::Null);
    let said = daemon.said();
    assert!(said.contains("\"event\":\"config.accepted\"") && said.contains("\"event\":\"config.current\""), "{said}");

    eventually("it is ready a second time", || match times(&manager, "READY=1") {
        2 => Ok(()),
        _ => Err(manager.heard()),
    });
    let heard = manager.heard();
    let place = |line: &str| heard.iter().rposition(|one| one.starts_with(line)).unwrap_or_else(|| panic!("{heard:?}"));
    assert!(place("RELOADING=1") < place("READY=1"), "{heard:?}");
    assert_eq!(place("MONOTONIC_USEC="), place("RELOADING=1") + 1, "in one message: {heard:?}");
    assert_eq!(times(&manager, "STOPPING=1"), 0, "{heard:?}");

    open(&stage);
    stage.wait_for_state("passed");
    assert_eq!(soak(&stage), 2);
    let report = stage.cli(&["report"]).expect(0).stdout;
    assert!(report.contains("Others") && !report.contains("Operations"), "{report}");
    daemon.term().expect(0);
    stage.assert_nothing_runs();
}

#[test]
fn a_wrong_one_is_refused_and_the_daemon_goes_on_with_what_it_has() {
    let mut stage = Stage::new("refused");
    let manager = Manager::listen(&mut stage);
    let migration = stage.migration(HARMLESS);
    stage.plan.command(&migration);
    let daemon = stage.daemon();
    manager.wait_for("READY=1");
    let (right, before) = (stage.plan.clone(), configuration(&stage));

    stage.plan.change("consecutive = 3", "consecutive = \"three\"");
    stage.plan.change("soak = \"1s\"", "soak = \"soon\"");
    let text = stage.plan.text();
    reload(&stage, &daemon);
    let reason = wait_until_refused(&stage, "soon");
    for part in ["consecutive = \"three\"", "soak = \"soon\""] {
        let line = text.lines().position(|line| line.contains(part)).unwrap() + 1;
        assert!(reason.contains(&format!("rollbackd.toml:{line}:")), "{part}: {reason}");
    }
    assert_eq!(metric(&stage, "config_last_reload_successful").to_bits(), 0.0_f64.to_bits());
    let now = configuration(&stage);
    assert_eq!((&now["sha256"], &now["pending"]), (&before["sha256"], &Value::Bool(false)));
    let shown = stage.cli(&["status"]).expect(0).stdout.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(shown.contains("The file was refused") && shown.contains("rollbackd.toml:"), "{shown}");
    let (_, page) = stage.get("/").unwrap();
    assert!(page.contains("file was refused</h2>") && page.contains("rollbackd.toml:"), "{page}");
    manager.wait_for("the configuration's file was refused: ");
    assert_eq!((times(&manager, "RELOADING=1"), times(&manager, "READY=1")), (1, 2), "{:?}", manager.heard());
    let said = daemon.said();
    assert!(said.contains("\"event\":\"config.refused\""), "{said}");
    assert!(said.contains("╭─["), "every problem is drawn in the log: {said}");

    // What holds for a daemon's life is named, with the way out.
    stage.plan = right.clone();
    stage.plan.change("state_dir = \"state\"", "state_dir = \"elsewhere\"");
    reload(&stage, &daemon);
    let reason = wait_until_refused(&stage, "`state_dir` cannot change while rollbackd runs");
    assert!(reason.contains("start it again") && reason.contains("/elsewhere"), "{reason}");
    stage.plan = right.clone();
    stage.plan.services.push_str("\n[http]\nlisten = \"127.0.0.1:0\"\n");
    reload(&stage, &daemon);
    wait_until_refused(&stage, "`listen` in [http] cannot change while rollbackd runs (it is none");
    assert!(!stage.path("elsewhere").exists());

    open(&stage);
    stage.wait_for_state("passed");
    assert_eq!(soak(&stage), 1);
    stage.plan = right;
    reload(&stage, &daemon);
    eventually("it is accepted", || match configuration(&stage) {
        now if now["refused"] == Value::Null => Ok(()),
        now => Err(now),
    });
    wait_until_taken_over(&stage);
    assert_eq!(metric(&stage, "config_last_reload_successful").to_bits(), 1.0_f64.to_bits());
    assert_everybody_was_told(&stage);
    daemon.term().expect(0);
}

#[test]
fn an_open_window_keeps_its_own_and_the_one_that_was_accepted_comes_after_it() {
    let mut stage = Stage::new("kept");
    let manager = Manager::listen(&mut stage);
    let daemon = stage.daemon();
    open(&stage);
    stage.wait_for_state("watching");
    let (before, records) = (configuration(&stage), stage.records());
    // With the new one nothing would be removed, and somebody else would be told.
    let new = stage.script("new.sh", "touch new.ran");
    stage.plan.rungs = script(&new);
    stage.plan.change("soak = \"1s\"", "soak = \"2s\"");
    stage.plan.change("name = \"Operations\"", "name = \"Others\"");
    reload(&stage, &daemon);
    let accepted = sha256_of_the_file(&stage);
    eventually("it waits", || match configuration(&stage) {
        now if now["pending"] == true => Ok(()),
        now => Err(now),
    });
    let now = configuration(&stage);
    assert_eq!((&now["sha256"], now["next_sha256"].as_str()), (&before["sha256"], Some(accepted.as_str())));
    assert_eq!(metric(&stage, "config_pending").to_bits(), 1.0_f64.to_bits());
    let shown = stage.cli(&["status"]).expect(0).stdout;
    assert!(shown.contains("Another configuration is taken over when the window is settled."), "{shown}");
    assert!(stage.get("/").unwrap().1.contains("Another configuration is taken over when the window is settled."));
    manager.wait_for("another configuration is taken over when the window is settled");
    assert_eq!(times(&manager, "READY=1"), 2, "the reload is over: {:?}", manager.heard());

    // What is in the file when the window is settled does not count: it was never read and found good.
    let accepted_plan = stage.plan.clone();
    stage.plan.change("consecutive = 3", "consecutive = \"three\"");
    reload(&stage, &daemon);
    wait_until_refused(&stage, "consecutive");
    assert_eq!(configuration(&stage)["next_sha256"], accepted.as_str(), "what was accepted still comes");

    assert_eq!(stage.records()[..records.len()], records, "nothing of the window was written anew");
    stage.database.sql(BREAKING);
    stage.wait_for_state("recovered");
    assert!(!stage.path("new.ran").exists());
    assert_everybody_was_told(&stage);
    let report = stage.cli(&["report"]).expect(0).stdout;
    assert!(report.contains("Operations") && !report.contains("Others"), "{report}");

    eventually("the accepted one holds", || match configuration(&stage) {
        now if now["sha256"] == accepted.as_str() => Ok(()),
        now => Err(now),
    });
    stage.plan = accepted_plan;
    stage.configuration();
    wait_until_taken_over(&stage);
    open(&stage);
    stage.wait_for_state("watching");
    assert_eq!(soak(&stage), 2);
    stage.cli(&["window", "finished"]).expect(0);
    stage.wait_for_state("passed");
    stage.assert_originals_whole();
    assert_eq!(times(&manager, "STOPPING=1"), 0);
    daemon.term().expect(0);
    stage.assert_nothing_runs();
}

#[test]
fn one_that_cannot_be_started_with_gives_way_to_what_was_there() {
    let mut stage = Stage::new("back");
    let daemon = stage.daemon();
    let before = configuration(&stage);
    stage.plan.change("soak = \"1s\"", "soak = \"2s\"");
    stage.configuration();
    // Its copy for open windows cannot be written.
    let sha256 = sha256_of_the_file(&stage);
    let in_the_way = stage.path(&format!("state/configs/{sha256}.new"));
    std::fs::create_dir(&in_the_way).unwrap();
    daemon.signal(Signal::HUP);
    wait_until_refused(&stage, "it is valid, but cannot be started with: the configuration's copy");
    assert_eq!(configuration(&stage)["sha256"], before["sha256"]);
    until("the daemon is ready", || stage.get("/readyz").is_some_and(|(status, _)| status == 200));

    std::fs::remove_dir(&in_the_way).unwrap();
    daemon.signal(Signal::HUP);
    wait_until_taken_over(&stage);
    assert_eq!(configuration(&stage)["refused"], Value::Null);
    daemon.term().expect(0);
    stage.assert_nothing_runs();
}
