//! What a rollback took comes back, and what nobody wants goes.

use std::io::Write as _;
use std::process::{Command, Stdio};

use crate::endings::{BREAKING, HARMLESS, TANGLED};
use crate::reverse::{CATALOG, REVERSE};
use crate::stage::{DROP, QUARANTINE, Running, Stage, until};

/// A window in which this migration was rolled back.
#[track_caller]
fn rolled_back(stage: &Stage, migration: &str) -> String {
    stage.guard_sql(migration).expect(20);
    let windows: serde_json::Value = serde_json::from_str(&stage.cli(&["history", "--json"]).expect(0).stdout).unwrap();
    windows[0]["id"].as_str().unwrap().to_owned()
}

#[test]
fn undo_brings_a_quarantine_back_once() {
    let stage = Stage::new("undo");
    let window = rolled_back(&stage, TANGLED);
    let listed = stage.cli(&["undo"]).expect(0).stdout;
    assert!(listed.lines().any(|line| line.contains(&window)), "{listed}");
    let unasked = stage.cli(&["undo", &window]).expect(64);
    assert!(unasked.stderr.contains("--yes"), "{}", unasked.stderr);

    let told = stage.cli(&["undo", &window, "--yes"]).expect(0).stdout;
    assert!(told.contains("brought back 2 tables (2 rows)"), "{told}");
    assert!(told.contains("view public.some_pages"), "{told}");
    assert!(told.lines().all(|line| line.chars().count() <= 80), "{told}");
    assert_eq!(stage.new_tables(), ["public.media \"files\"", "public.pages"]);
    assert_eq!(stage.database.value("select count(*) from some_pages"), "2");
    stage.database.sql("insert into pages (post) values (1)");
    assert_eq!(stage.database.value("select max(id) from pages"), "3");
    assert_eq!(stage.database.value("select count(*) from pg_namespace where nspname like 'rollbackd%'"), "0");

    let again = stage.cli(&["undo", &window, "--yes"]).expect(0).stdout;
    assert!(again.contains("there is nothing to bring back"), "{again}");
    let unknown = stage.cli(&["undo", "never", "--yes"]).expect(1);
    assert!(unknown.stderr.contains("there is no window `never`"), "{}", unknown.stderr);
}

#[test]
fn undo_brings_dropped_tables_back_from_their_archive() {
    let mut stage = Stage::new("undrop");
    stage.plan.rungs = DROP.to_owned();
    let window = rolled_back(&stage, TANGLED);
    let told = stage.cli(&["undo", &window, "--yes", "--json"]).expect(0).stdout;
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert_eq!(told["ended"], "undone", "{told:#}");
    assert_eq!(told["tables"].as_array().unwrap().len(), 2, "{told:#}");
    assert_eq!(stage.database.value("select count(*) from some_pages"), "2");
    stage.database.sql("insert into pages (post) values (1)");
    assert_eq!(stage.database.value("select max(id) from pages"), "3");
    stage.assert_originals_whole();
}

#[test]
fn a_purged_quarantine_is_restored_with_the_command_that_undo_names() {
    let mut stage = Stage::new("purge");
    stage.plan.change("soak = \"1s\"", "soak = \"10s\"");
    let window = rolled_back(&stage, BREAKING);
    let guard = stage.start_guard_sql(HARMLESS);
    stage.wait_for_state("soaking");
    for command in ["undo", "purge"] {
        let refused = stage.cli(&[command, &window, "--yes"]).expect(1);
        assert!(refused.stderr.contains("is open"), "{}", refused.stderr);
    }
    guard.end().expect(0);
    let young = stage.cli(&["purge", "--older-than", "1d", "--yes"]).expect(0).stdout;
    assert_eq!(young, "there is nothing to purge\n");

    let told = stage.cli(&["purge", &window, "--yes"]).expect(0).stdout;
    assert!(told.contains("purged: 2 tables (7 rows), archived in"), "{told}");
    assert_eq!(stage.new_tables(), ["public.invoices"]);
    let refused = stage.cli(&["undo", &window, "--yes"]).expect(1).stderr;
    let (_, command) = refused.split_once("  pg_restore").unwrap_or_else(|| panic!("{refused}"));
    let (restore, _) = command.split_once("\n  rollbackd undo").unwrap();
    let restored = Command::new("sh")
        .args(["-c", &format!("pg_restore{restore}")])
        .envs(stage.variables())
        .env("DATABASE_URL", stage.database.url())
        .output()
        .unwrap();
    assert!(restored.status.success(), "{refused}\n{}", String::from_utf8_lossy(&restored.stderr));
    stage.cli(&["undo", &window, "--yes"]).expect(0);
    assert_eq!(stage.new_tables(), ["public.invoices", "public.media_files", "public.pages"]);
    assert_eq!(stage.database.value("select count(*) from pages"), "7");
    stage.assert_originals_whole();
}

const QUARANTINES: &str =
    "select string_agg(nspname, ' ' order by nspname) from pg_namespace where nspname like 'rollbackd%'";

/// Starts the command on this window while somebody reads this table, waits until it stands before it, and kills it as a
/// crash does. Then the reader is done.
#[track_caller]
fn killed_at(stage: &Stage, table: &str, command: &str, window: &str) -> String {
    let reader = stage.database.sit_down();
    reader.sql(&format!("begin; lock table {table} in access share mode"));
    let running: Running = stage.start(command, &[command, window, "--yes"]);
    let waits = format!("select count(*) from pg_locks where not granted and relation = '{table}'::regclass");
    until(&format!("{command} waits for {table}"), || stage.database.value(&waits) != "0");
    let said = running.kill().stdout;
    reader.sql("commit");
    said
}

#[test]
fn an_undo_that_was_killed_is_done_by_the_next() {
    let mut stage = Stage::new("unkilled");
    stage.plan.rungs = format!("{QUARANTINE}{REVERSE}");
    stage.plan.checks.push_str(CATALOG);
    // The tables are one removal, the column is another, which is undone first.
    let migration = format!("{TANGLED}; alter table posts add column sku text; update posts set sku = 'sku ' || id");
    let window = rolled_back(&stage, &migration);
    assert_eq!(stage.report()["rungs"].as_array().unwrap().len(), 2);
    let quarantine = stage.database.value(QUARANTINES);
    let skus = "select count(*) from posts where sku = 'sku ' || id";

    let said = killed_at(&stage, &format!("{quarantine}.pages"), "undo", &window);
    assert_eq!(said, "");
    assert_eq!(stage.database.value(skus), "20", "what was back before the kill stays back");
    assert_eq!(stage.database.value(QUARANTINES), quarantine);

    let told = stage.cli(&["undo", &window, "--yes"]).expect(0).stdout;
    assert!(told.contains("brought back 2 tables (2 rows)"), "{told}");
    assert_eq!(stage.new_tables(), ["public.media \"files\"", "public.pages"]);
    assert_eq!(stage.database.value(skus), "20");
    assert_eq!(stage.database.value("select count from a_summary"), "2");
    assert_eq!(stage.database.value("select count(*) from pg_namespace where nspname like 'rollbackd%'"), "0");
}

#[test]
fn a_purge_that_was_killed_is_done_by_the_next() {
    let stage = Stage::new("purgekill");
    let window = rolled_back(&stage, BREAKING);
    let quarantine = stage.database.value(QUARANTINES);
    let said = killed_at(&stage, &format!("{quarantine}.pages"), "purge", &window);
    assert_eq!(said, "");
    assert_eq!(stage.database.value(QUARANTINES), quarantine);
    assert_eq!(stage.database.value(&format!("select count(*) from {quarantine}.pages")), "7");
    let told = stage.cli(&["purge", &window, "--yes"]).expect(0).stdout;
    assert!(told.contains("purged: 2 tables (7 rows)"), "{told}");
    assert_eq!(stage.database.value("select count(*) from pg_namespace where nspname like 'rollbackd%'"), "0");
    stage.assert_originals_whole();
}

#[test]
fn only_quarantines_that_are_older_are_purged() {
    let stage = Stage::new("older");
    let old = rolled_back(&stage, BREAKING);
    // Its age is in its name.
    let quarantine = stage.database.value(QUARANTINES);
    stage.database.sql(&format!("alter schema {quarantine} rename to rollbackd_20200101t020000z"));
    let young = rolled_back(&stage, BREAKING);
    let both = stage.database.value(QUARANTINES);
    let (_, newer) = both.split_once(' ').unwrap();

    let unasked = stage.cli(&["purge", "--older-than", "30d"]).expect(64);
    assert!(unasked.stderr.contains("2 tables in rollbackd_20200101t020000z"), "{}", unasked.stderr);
    assert!(unasked.stderr.contains("--yes") && !unasked.stderr.contains(newer), "{}", unasked.stderr);
    assert_eq!(stage.database.value(QUARANTINES), both);
    let told = stage.cli(&["purge", "--older-than", "30d", "--yes"]).expect(0).stdout;
    assert!(told.starts_with(&format!("{old}: purged")), "{told}");
    assert!(!told.contains(&young), "{told}");
    assert_eq!(stage.database.value(QUARANTINES), newer);
    assert_eq!(stage.database.value(&format!("select count(*) from {newer}.pages")), "7");
}

/// What is said on a terminal when this is typed, and how it ends.
#[track_caller]
fn typed(stage: &Stage, command: &str, typed: &str) -> (String, Option<i32>) {
    let mut script = Command::new("script")
        .args([
            "--quiet",
            "--return",
            "--command",
            &format!("{} {command}", env!("CARGO_BIN_EXE_rollbackd")),
            "/dev/null",
        ])
        .env("ROLLBACKD_CONFIG", stage.path("rollbackd.toml"))
        .current_dir(stage.directory())
        .envs(stage.variables())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    script.stdin.take().unwrap().write_all(typed.as_bytes()).unwrap();
    let output = script.wait_with_output().unwrap();
    (String::from_utf8_lossy(&output.stdout).into_owned(), output.status.code())
}

#[test]
fn on_a_terminal_somebody_is_asked() {
    let stage = Stage::new("asked");
    let window = rolled_back(&stage, BREAKING);
    for (command, answer) in [("undo", "n\n"), ("purge", "\n"), ("purge", "nonsense\n")] {
        let (said, code) = typed(&stage, &format!("{command} {window}"), answer);
        assert!(said.contains("Go on? [y/N]") && said.contains("nothing was changed"), "{said}");
        assert_eq!(code, Some(1), "{said}");
        assert_eq!(stage.new_tables().len(), 2);
        assert!(stage.new_tables().iter().all(|table| table.starts_with("rollbackd_")), "{:?}", stage.new_tables());
    }
    let (said, code) = typed(&stage, &format!("undo {window}"), "y\n");
    assert!(said.contains("brought back 2 tables (7 rows)"), "{said}");
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(stage.new_tables(), ["public.media_files", "public.pages"]);
}
