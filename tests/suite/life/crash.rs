//! Ended in the middle, by SIGKILL and by SIGTERM: the next start goes on where it was.

use rollbackd_core::run::record::{MigrationEnd, Record};

use super::{
    End, assert_everybody_was_told, assert_recovered, count, end, open, outcome, rollbacks, steps, touch,
    wait_for_file, wait_for_step,
};
use crate::endings::{BREAKING, HARMLESS};
use crate::stage::{QUARANTINE, Stage, script, until};

/// A stage whose window runs a migration by itself.
fn with_migration(name: &str, sql: &str) -> Stage {
    let mut stage = Stage::new(name);
    let migration = stage.migration(sql);
    stage.plan.command(&migration);
    stage
}

/// A script that says that it runs, does something, and then waits to be let go.
fn waiting_script(stage: &mut Stage, work: &str) {
    let name = stage.script(
        "emergency.sh",
        &format!("echo $$ >> script.pids\n{work}\ntouch script.worked\nwhile [ ! -e go ]; do sleep 0.05; done"),
    );
    stage.plan.rungs = script(&name) + QUARANTINE;
}

/// Whether the script that was started first still runs.
fn script_runs(stage: &Stage) -> bool {
    let pids = stage.lines("script.pids");
    stage.left_running().iter().any(|line| line.starts_with(&format!("{} ", pids[0])))
}

fn script_that_did_nothing(how: End) {
    let mut stage = with_migration("script", BREAKING);
    waiting_script(&mut stage, "true");
    let daemon = stage.daemon();
    open(&stage);
    wait_for_file(&stage, "script.worked");
    end(daemon, how);
    assert!(script_runs(&stage), "a script in flight outlives the daemon");
    assert!(stage.path("maintenance").exists(), "traffic stays stopped");

    let daemon = stage.daemon();
    until("the orphan is ended", || !script_runs(&stage));
    stage.wait_for_state("recovered");
    let records = stage.records();
    assert_eq!(stage.lines("script.pids").len(), 1, "it is never run twice");
    assert_eq!(count(&records, "end_process"), 1, "{:?}", steps(&records));
    assert!(records.iter().any(|entry| matches!(&entry.record, Record::RungFailed { rung: 0, reason }
        if reason.contains("interrupted"))));
    assert_recovered(&stage, daemon);
}

#[test]
fn killed_with_a_script_in_flight() {
    script_that_did_nothing(End::Killed);
}

#[test]
fn asked_to_end_with_a_script_in_flight() {
    script_that_did_nothing(End::Asked);
}

/// With `idempotent = true` the same script is run again, and only when nothing of the first run is left.
fn idempotent_script(how: End) {
    let mut stage = with_migration("again", BREAKING);
    waiting_script(&mut stage, "true");
    // The first run hangs; the second finds that, and does the work.
    stage.script(
        "emergency.sh",
        "echo $$ >> script.pids
        if [ -e script.worked ]; then exec psql -X -q -c 'drop table media_files, pages'; fi
        touch script.worked
        while [ ! -e go ]; do sleep 0.05; done",
    );
    stage.plan.change("idempotent = false", "idempotent = true");
    let daemon = stage.daemon();
    open(&stage);
    wait_for_file(&stage, "script.worked");
    end(daemon, how);
    assert!(script_runs(&stage), "a script in flight outlives the daemon");

    let daemon = stage.daemon();
    stage.wait_for_state("recovered");
    let records = stage.records();
    assert_eq!(stage.lines("script.pids").len(), 2, "it is run again");
    assert!(!script_runs(&stage), "the first run was ended");
    assert_eq!((count(&records, "end_process"), count(&records, "act")), (1, 2), "{:?}", steps(&records));
    assert!(!records.iter().any(|entry| matches!(entry.record, Record::RungFailed { .. })));
    assert_recovered(&stage, daemon);
}

#[test]
fn killed_with_an_idempotent_script_in_flight() {
    idempotent_script(End::Killed);
}

#[test]
fn asked_to_end_with_an_idempotent_script_in_flight() {
    idempotent_script(End::Asked);
}

#[test]
fn killed_while_a_sql_file_runs() {
    let mut stage = with_migration("sql", BREAKING);
    let text = "insert into sql_runs values (1); drop table media_files, pages;";
    std::fs::write(stage.path("undo.sql"), text).unwrap();
    stage.database.sql("create table sql_runs (n int)");
    stage.plan.rungs = crate::sql::rung("undo.sql").replace("\"10s\"", "\"40s\"");
    let reader = stage.database.sit_down();
    stage.plan.change("soak = \"1s\"", "soak = \"50s\"");
    stage.app.ill_when("false");
    let daemon = stage.daemon();
    open(&stage);
    stage.wait_for_state("soaking");
    reader.sql("begin; lock table pages in access share mode");
    stage.app.ill_when("to_regclass('public.pages') is not null");
    wait_for_step(&stage, "act");
    until("it waits for the lock", || {
        reader.sql("select 1 from pg_locks where not granted and relation = 'public.pages'::regclass").len() == 1
    });
    end(daemon, End::Killed);
    // Edited meanwhile: the window goes on with what it opened with.
    std::fs::write(stage.path("undo.sql"), "drop table posts cascade").unwrap();

    let daemon = stage.daemon();
    assert!(daemon.said().contains("\"event\":\"config.frozen\""), "{}", daemon.said());
    wait_for_step(&stage, "act");
    reader.sql("rollback");
    stage.wait_for_state("recovered");
    assert_eq!(stage.database.value("select count(*) from sql_runs"), "1", "it happened once");
    assert_eq!(stage.new_tables(), ["public.sql_runs"]);
    let records = stage.records();
    assert_eq!((rollbacks(&records), count(&records, "act")), (1, 2), "{:?}", steps(&records));
    stage.assert_originals_whole();
    assert_everybody_was_told(&stage);
    daemon.term().expect(0);
}

#[test]
fn killed_with_a_script_in_flight_that_has_done_its_work() {
    let mut stage = with_migration("script", BREAKING);
    waiting_script(&mut stage, "psql -X -q -c 'drop table media_files, pages'");
    let daemon = stage.daemon();
    open(&stage);
    wait_for_file(&stage, "script.worked");
    end(daemon, End::Killed);

    let daemon = stage.daemon();
    stage.wait_for_state("recovered");
    let records = stage.records();
    assert_eq!(count(&records, "act"), 1, "the catalog shows that it was done: {:?}", steps(&records));
    assert!(!records.iter().any(|entry| matches!(entry.record, Record::RungFailed { .. })));
    assert_recovered(&stage, daemon);
}

fn removal_that_waits_for_a_lock(how: End) {
    let mut stage = with_migration("lock", BREAKING);
    stage.plan.change("soak = \"1s\"", "soak = \"50s\"");
    stage.plan.change("timeout = \"10s\"", "timeout = \"40s\"");
    stage.app.ill_when("false");
    let daemon = stage.daemon();
    open(&stage);
    stage.wait_for_state("soaking");
    let reader = stage.database.sit_down();
    reader.sql("begin; lock table pages in access share mode");
    stage.app.ill_when("to_regclass('public.pages') is not null");
    wait_for_step(&stage, "act");
    end(daemon, how);
    assert_eq!(stage.new_tables(), ["public.media_files", "public.pages"], "all or nothing");

    let daemon = stage.daemon();
    wait_for_step(&stage, "act");
    reader.sql("rollback");
    stage.wait_for_state("recovered");
    assert_eq!(count(&stage.records(), "act"), 2);
    assert_recovered(&stage, daemon);
}

#[test]
fn killed_while_the_removal_waits_for_a_lock() {
    removal_that_waits_for_a_lock(End::Killed);
}

#[test]
fn asked_to_end_while_the_removal_waits_for_a_lock() {
    removal_that_waits_for_a_lock(End::Asked);
}

fn verification(how: End, stage_of_check: &str) {
    let mut stage = with_migration("verify", BREAKING);
    let check = stage.script("look.sh", "echo look >> looks\nwhile [ ! -e looked ]; do sleep 0.05; done");
    stage.plan.checks.push_str(&format!(
        "[[verify]]\nkind = \"command\"\nname = \"somebody looks\"\nrun = [{check:?}]\nstage = {stage_of_check:?}\n"
    ));
    let daemon = stage.daemon();
    open(&stage);
    wait_for_file(&stage, "looks");
    assert_eq!(stage.window_state().as_deref(), Some("verifying"));
    if how == End::Asked {
        // A check is a short step: its end is waited for, and written down.
        daemon.signal(rustix::process::Signal::TERM);
        touch(&stage, "looked");
        daemon.end().expect(0);
        let kept = stage.records();
        assert_eq!(
            kept.iter().filter(|entry| matches!(entry.record, Record::StepStarted { .. })).count(),
            kept.iter().filter(|entry| matches!(entry.record, Record::StepEnded { .. })).count()
        );
    } else {
        end(daemon, how);
        touch(&stage, "looked");
    }
    assert_eq!(outcome(&stage.records()), None, "nothing new is begun at the end");

    let daemon = stage.daemon();
    stage.wait_for_state("recovered");
    assert_eq!(count(&stage.records(), "act"), 1, "what was done is not done again");
    assert_recovered(&stage, daemon);
}

#[test]
fn killed_while_verifying_with_traffic_stopped() {
    verification(End::Killed, "closed");
}

#[test]
fn killed_while_verifying_with_traffic_resumed() {
    verification(End::Killed, "open");
}

#[test]
fn asked_to_end_while_verifying() {
    verification(End::Asked, "open");
}

fn migration_that_runs(how: End) {
    let mut stage = Stage::new("migrating");
    let command = stage.script(
        "migrate.sh",
        &format!(
            "echo $$ >> migrations\nwhile [ ! -e go ]; do sleep 0.05; done\nexec {}",
            stage.migration(HARMLESS).join(" ")
        ),
    );
    stage.plan.command(&[command]);
    let daemon = stage.daemon();
    open(&stage);
    wait_for_file(&stage, "migrations");
    end(daemon, how);

    let daemon = stage.daemon();
    wait_for_step(&stage, "await_process");
    assert_eq!(stage.window_state().as_deref(), Some("watching"), "the orphan is waited for");
    touch(&stage, "go");
    stage.wait_for_state("passed");
    let records = stage.records();
    assert!(
        records
            .iter()
            .any(|entry| matches!(entry.record, Record::MigrationFinished { how: MigrationEnd::ExitUnknown, .. }))
    );
    assert_eq!((rollbacks(&records), count(&records, "migrate")), (0, 1), "{:?}", steps(&records));
    assert_eq!(stage.lines("migrations").len(), 1);
    assert_eq!(stage.new_tables(), ["public.invoices"]);
    assert_everybody_was_told(&stage);
    stage.assert_originals_whole();
    daemon.term().expect(0);
    stage.assert_nothing_runs();
}

#[test]
fn killed_while_the_migration_runs() {
    migration_that_runs(End::Killed);
}

#[test]
fn asked_to_end_while_the_migration_runs() {
    migration_that_runs(End::Asked);
}

/// A `pg_dump` that waits to be let go before it dumps.
fn slow_pg_dump(stage: &mut Stage) {
    std::fs::create_dir(stage.path("bin")).unwrap();
    let wait = "case $1 in --version) ;; *) touch dumping; while [ ! -e go ]; do sleep 0.05; done;; esac";
    let wait = wait.replace("dumping", &stage.path("dumping").display().to_string());
    let wait = wait.replace("-e go", &format!("-e {}", stage.path("go").display()));
    stage.script("bin/pg_dump", &format!("{wait}\nexec pg_dump \"$@\""));
    stage.script("bin/pg_restore", "exec pg_restore \"$@\"");
    let bin = stage.path("bin").display().to_string();
    stage.set("PG_BIN", bin);
}

fn backup_that_waits(how: End) {
    let mut stage = with_migration("backup", HARMLESS);
    slow_pg_dump(&mut stage);
    let daemon = stage.daemon();
    open(&stage);
    wait_for_file(&stage, "dumping");
    end(daemon, how);
    assert_eq!(stage.new_tables(), Vec::<String>::new(), "the migration was not started");
    touch(&stage, "go");

    let daemon = stage.daemon();
    stage.wait_for_state("passed");
    assert_eq!(stage.new_tables(), ["public.invoices"]);
    assert_everybody_was_told(&stage);
    stage.assert_originals_whole();
    daemon.term().expect(0);
    stage.assert_nothing_runs();
}

#[test]
fn killed_while_preparing() {
    backup_that_waits(End::Killed);
}

#[test]
fn asked_to_end_while_preparing() {
    backup_that_waits(End::Asked);
}

#[test]
fn killed_while_an_operator_is_needed_and_again_while_soaking() {
    let mut stage = with_migration("needs", BREAKING);
    let liar = stage.script("emergency.sh", "echo done");
    stage.plan.rungs = script(&liar);
    let daemon = stage.daemon();
    open(&stage);
    stage.wait_for_state("needs_operator");
    let before = stage.records();
    daemon.kill();

    let daemon = stage.daemon();
    assert_eq!(stage.window_state().as_deref(), Some("needs_operator"));
    assert_eq!(rollbacks(&stage.records()), 1, "it is final for automation");
    assert_eq!(count(&stage.records(), "act"), count(&before, "act"));
    assert!(stage.path("maintenance").exists(), "traffic stays as it is");
    assert_everybody_was_told(&stage);
    stage.assert_originals_whole();
    stage.cli(&["window", "open"]).expect(1);
    stage.database.sql("drop table media_files, pages");
    stage.cli(&["window", "resolved", "--reason", "dropped by hand"]).expect(0);
    stage.wait_for_state("recovered");
    assert!(!stage.path("maintenance").exists());
    daemon.term().expect(0);

    stage.plan.change("soak = \"1s\"", "soak = \"4s\"");
    stage.migration(HARMLESS);
    let daemon = stage.daemon();
    open(&stage);
    stage.wait_for_state("soaking");
    daemon.kill();
    let daemon = stage.daemon();
    assert_eq!(stage.window_state().as_deref(), Some("soaking"));
    stage.wait_for_state("passed");
    daemon.term().expect(0);
}

/// Only the guard knows the command of its window: the daemon must not run the configuration's in its place.
#[test]
fn a_guard_that_was_killed_before_its_migration_started() {
    let mut stage = with_migration("guard", BREAKING);
    slow_pg_dump(&mut stage);
    let guard = stage.start_guard(&["--", "touch", "guarded"]);
    wait_for_file(&stage, "dumping");
    guard.kill();
    touch(&stage, "go");

    let daemon = stage.daemon();
    stage.wait_for_state("refused");
    let records = stage.records();
    assert_eq!(count(&records, "migrate"), 0, "{:?}", steps(&records));
    assert_eq!(stage.new_tables(), Vec::<String>::new());
    assert!(!stage.path("guarded").exists());
    assert_everybody_was_told(&stage);
    daemon.term().expect(0);
    stage.assert_nothing_runs();
}

#[test]
fn a_guard_that_was_killed_while_its_migration_runs() {
    let stage = Stage::new("guard");
    let work = stage.migration(BREAKING).join(" ");
    let name = stage.script("migrate.sh", &format!("touch migrating\nwhile [ ! -e go ]; do sleep 0.05; done\n{work}"));
    let guard = stage.start_guard(&["--", &name]);
    wait_for_file(&stage, "migrating");
    guard.kill();
    let daemon = stage.daemon();
    wait_for_step(&stage, "await_process");
    touch(&stage, "go");
    assert_recovered(&stage, daemon);
}
