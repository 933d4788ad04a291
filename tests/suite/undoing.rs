//! What a rollback took comes back, and what nobody wants goes.

use std::process::Command;

use crate::endings::{BREAKING, HARMLESS, TANGLED};
use crate::stage::{DROP, Stage};

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
    assert!(told.contains("purged: 3 tables (8 rows), archived in"), "{told}");
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
