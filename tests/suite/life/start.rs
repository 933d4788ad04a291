//! What is missing at the start: the database, `pg_dump`, a configuration that can be used.

use std::process::Command;

use rollbackd::demo::cluster::Stop;
use serde_json::Value;

use super::open;
use crate::endings::HARMLESS;
use crate::stage::{Output, Stage, eventually};

#[test]
fn a_database_that_is_away_at_the_start() {
    let mut stage = Stage::alone("away");
    let migration = stage.migration(HARMLESS);
    stage.plan.command(&migration);
    let stop = |stage: &mut Stage, run: bool| {
        let work = async {
            let server = stage.own_server();
            if run { server.start_again().await } else { server.stop(Stop::Fast).await }
        };
        crate::stage::runtime().block_on(work).unwrap();
    };
    stop(&mut stage, false);
    let daemon = stage.daemon_unready();
    let reason = eventually("it says what is missing", || match stage.get("/readyz") {
        Some((503, reason)) if reason.contains("the database does not answer") => Ok(reason),
        answer => Err(answer),
    });
    assert!(reason.contains("refused"), "{reason}");
    assert_eq!(stage.get("/healthz").map(|(status, _)| status), Some(200));
    let status = stage.cli(&["status"]).expect(0).stdout;
    assert!(status.contains("not ready") && status.contains("the database does not answer"), "{status}");
    let json: Value = serde_json::from_str(&stage.cli(&["status", "--json"]).expect(0).stdout).unwrap();
    assert_eq!(json["ready"]["ok"], false);
    assert!(daemon.said().contains("\"event\":\"database.unreachable\""));
    let refused = stage.cli(&["window", "open", "--wait"]).expect(22);
    assert!(refused.stdout.contains("database: "), "{}", refused.stdout);
    stage.hooks.wait_for("window.refused");

    stop(&mut stage, true);
    eventually("it is ready", || match stage.get("/readyz") {
        Some((200, _)) => Ok(()),
        answer => Err(answer),
    });
    assert!(daemon.said().contains("\"event\":\"database.reached\""));
    open(&stage);
    stage.wait_for_state("passed");
    daemon.term().expect(0);
}

/// Runs the executable where no PostgreSQL programs are installed but those in `bin`.
fn without_programs(stage: &Stage, arguments: &str) -> Option<Output> {
    let hide = format!(
        "set -e; for d in /usr/lib/postgresql; do [ ! -d $d ] || mount -t tmpfs none $d; done; \
         export PATH={}; unset PG_BIN; exec {} {arguments}",
        stage.path("bin").display(),
        env!("CARGO_BIN_EXE_rollbackd")
    );
    let possible = Command::new("unshare").args(["-m", "true"]).status().is_ok_and(|status| status.success());
    if !possible {
        eprintln!("left out: this user may not hide the PostgreSQL programs");
        return None;
    }
    let script = stage.script("hidden.sh", &format!("exec unshare -m sh -c '{hide}'"));
    Some(stage.start_script("hidden", &script).end())
}

#[test]
fn a_missing_or_old_pg_dump_is_named_with_its_package() {
    let mut stage = Stage::new("programs");
    let migration = stage.migration(HARMLESS);
    stage.plan.command(&migration);
    stage.plan.change("command = [\"psql\"", "command = [\"true\", \"psql\"");
    stage.configuration();
    std::fs::create_dir(stage.path("bin")).unwrap();
    std::os::unix::fs::symlink("/bin/true", stage.path("bin/true")).unwrap();
    let Some(missing) = without_programs(&stage, "check --online") else { return };
    let missing = missing.expect(1);
    let said = missing.stdout.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(said.contains("no pg_dump found") && said.contains("on Debian install `postgresql-client-"), "{said}");
    assert!(said.contains("1 check failed: a window would be refused"), "{said}");

    let guard = without_programs(&stage, "guard").unwrap().expect(22);
    assert!(guard.stdout.contains("no pg_dump found"), "{}", guard.stdout);
    assert_eq!(stage.new_tables(), Vec::<String>::new());
    stage.hooks.wait_for("window.refused");

    stage.script("bin/pg_dump", "echo 'pg_dump (PostgreSQL) 9.6.24'");
    stage.script("bin/pg_restore", "echo 'pg_restore (PostgreSQL) 9.6.24'");
    std::os::unix::fs::symlink("/bin/sh", stage.path("bin/sh")).unwrap();
    let old = without_programs(&stage, "check --online --json").unwrap().expect(1);
    let answer: Value = serde_json::from_str(&old.stdout).unwrap();
    let tools = answer["checks"].as_array().unwrap().iter().find(|check| check["name"] == "tools").unwrap();
    assert_eq!(tools["passed"], false);
    assert!(tools["detail"].as_str().unwrap().contains("9.6.24 is older than the server"), "{tools}");
}

#[test]
fn every_mistake_of_a_configuration_is_shown_at_once() {
    let mut stage = Stage::new("mistakes");
    stage.plan.change("consecutive = 3", "consecutive = 0");
    stage.plan.change("soak = \"1s\"", "soak = \"soon\"");
    stage.plan.change("every = \"100ms\"\ntimeout = \"3s\"", "evry = \"100ms\"\ntimeout = \"3s\"");
    stage.plan.change("tables = \"added\"", "tables = [\"posts\"]");
    let text = stage.plan.text();
    let line_of = |part: &str| text.lines().position(|line| line.contains(part)).unwrap() + 1;
    let places = ["consecutive = 0", "soak = \"soon\"", "evry", "tables = [\"posts\"]"].map(line_of);
    stage.configuration();
    for command in [&["check"][..], &["run"], &["guard", "--", "true"], &["verify"]] {
        let refused = stage.start("wrong", command).end().expect(78);
        assert_eq!(refused.stdout, "", "{command:?}");
        for line in places {
            assert!(
                refused.stderr.contains(&format!("rollbackd.toml:{line}:")),
                "{command:?}, line {line}: {}",
                refused.stderr
            );
        }
    }
    let refused = stage.start("wrong", &["check", "--json"]).end().expect(78);
    let answer: Value = serde_json::from_str(&refused.stdout).unwrap();
    assert_eq!(answer["valid"], false);
    let problems = answer["problems"].as_array().unwrap();
    for line in places {
        let problem =
            problems.iter().find(|problem| problem["line"] == line).unwrap_or_else(|| panic!("{line}: {answer:#}"));
        assert!(problem["column"].as_u64().is_some_and(|column| column > 0), "{problem}");
        assert!(problem["message"].is_string(), "{problem}");
    }
    assert!(!stage.state().exists(), "nothing is made");
    let missing = stage.start("none", &["-c", "nowhere.toml", "check"]).end().expect(78);
    assert!(missing.stderr.contains("nowhere.toml"), "{}", missing.stderr);
}
