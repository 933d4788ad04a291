//! The rung that removes the migration's tables itself.

use std::process::Command;

use crate::endings::{BREAKING, TANGLED};
use crate::stage::{DROP, QUARANTINE, Stage};

/// The report of a migration that was rolled back by the only rung.
#[track_caller]
fn rolled_back(stage: &Stage, migration: &str) -> serde_json::Value {
    let report = rolled_back_to(stage, migration);
    stage.assert_originals_whole();
    report
}

/// The same, where the migration has left something on the originals.
#[track_caller]
fn rolled_back_to(stage: &Stage, migration: &str) -> serde_json::Value {
    stage.guard_sql(migration).expect(20);
    let report = stage.report();
    assert_eq!(report["outcome"], "recovered");
    assert_eq!(report["rungs"].as_array().unwrap().len(), 1, "{report:#}");
    report
}

/// A rung for these tables, in words of TOML.
fn named(tables: &str) -> String {
    QUARANTINE.replace("\"added\"", tables)
}

#[test]
fn quarantine_keeps_every_row() {
    let stage = Stage::new("quarantine");
    let report = rolled_back(&stage, BREAKING);
    let schema = report["rungs"][0]["removal"]["quarantine"].as_str().unwrap();
    assert!(schema.starts_with("rollbackd_20"), "{schema}");
    assert_eq!(stage.new_tables(), [format!("{schema}.media_files"), format!("{schema}.pages")]);
    assert_eq!(stage.database.value(&format!("select count(*) from {schema}.pages")), "7");
    assert_eq!(report["class"], "lossy", "rows left the live schema");
}

#[test]
fn drop_keeps_an_archive_that_can_be_restored() {
    let mut stage = Stage::new("drop");
    stage.plan.rungs = DROP.to_owned();
    let report = rolled_back(&stage, BREAKING);
    assert_eq!(stage.new_tables(), Vec::<String>::new());
    let archive = report["rungs"][0]["removal"]["archive"].as_str().unwrap();

    let restore = Command::new("pg_restore")
        .args(["--exit-on-error", "--single-transaction", "--dbname", &stage.variables()["PGDATABASE"]])
        .arg(format!("{archive}/tables.dump"))
        .envs(stage.variables())
        .output()
        .unwrap();
    assert!(restore.status.success(), "{archive}: {}", String::from_utf8_lossy(&restore.stderr));
    assert_eq!(stage.new_tables(), ["public.media_files", "public.pages"]);
    assert_eq!(stage.database.value("select count(*) from pages"), "7");
    stage.assert_originals_whole();
}

#[test]
fn names_that_need_quoting() {
    let mut stage = Stage::new("quoting");
    stage.plan.rungs = named(r#"['"Seiten; drop table posts --"', '"a ""b"" c"', '"été 🚀"', '"user"']"#);
    stage.app.ill_when("to_regclass('public.user') is not null");
    let report = rolled_back(
        &stage,
        r#"create table "user" (id bigint primary key);
           create table "Seiten; drop table posts --" (id bigint primary key);
           create table "a ""b"" c" (id bigint references "user" (id));
           create table "été 🚀" (x int);
           insert into "user" values (1);"#,
    );
    let schema = report["rungs"][0]["removal"]["quarantine"].as_str().unwrap();
    let mut wanted =
        ["Seiten; drop table posts --", "a \"b\" c", "user", "été 🚀"].map(|name| format!("{schema}.{name}"));
    wanted.sort();
    let mut found = stage.new_tables();
    found.sort();
    assert_eq!(found, wanted);
}

#[test]
fn a_lock_is_waited_for_and_its_holder_named() {
    let mut stage = Stage::new("lock-wait");
    stage.plan.change("timeout = \"10s\"", "timeout = \"4s\"");
    let holder = stage.database.sit_down();
    let guard = stage.start_guard_sql(BREAKING);
    stage.wait_for_table("pages");
    holder.sql("begin; select * from pages");
    guard.end().expect(21);

    let report = stage.report();
    assert_eq!(report["outcome"], "needs_operator");
    let rung = &report["rungs"][0];
    let failure = rung["failure"].as_str().unwrap();
    assert!(failure.contains(&holder.pid()), "{failure}");
    assert!(failure.contains("nothing was changed"), "{failure}");
    assert!(rung["removal"]["attempts"].as_u64().unwrap() > 1, "{rung:#}");
    assert_eq!(stage.new_tables(), ["public.media_files", "public.pages"]);
    assert!(stage.path("maintenance").exists(), "traffic stays stopped");
    stage.assert_originals_whole();
    drop(holder);

    // What the report prints is what a person does, and it works as it stands.
    stage.run_manual();
    assert!(stage.new_tables().iter().all(|table| table.starts_with("rollbackd_20")), "{:?}", stage.new_tables());
    let daemon = stage.daemon();
    stage.wait_for_state("needs_operator");
    stage.cli(&["window", "resolved", "--reason", "moved by hand"]).expect(0);
    stage.wait_for_state("recovered");
    assert!(!stage.path("maintenance").exists(), "traffic flows again");
    stage.hooks.wait_for("rollback.recovered");
    daemon.term().expect(0);
    assert_eq!(stage.report()["outcome"], "recovered");
    stage.assert_originals_whole();
}

#[test]
fn a_lock_that_is_waited_for_is_had_in_the_end() {
    let stage = Stage::new("lock-goes");
    let holder = stage.database.sit_down();
    let guard = stage.start_guard_sql(BREAKING);
    stage.wait_for_table("pages");
    holder.sql("begin; select * from pages");
    let watcher = stage.database.superuser();
    crate::stage::until("the rung waits for the lock", || {
        let waits = "select 1 from pg_locks where not granted and relation = 'public.pages'::regclass";
        watcher.sql(waits).len() == 1
    });
    holder.sql("commit");
    guard.end().expect(20);
    stage.assert_originals_whole();
}

#[test]
fn a_lock_s_holder_is_ended_where_that_is_allowed() {
    let mut stage = Stage::new("lock-end");
    stage.plan.change("timeout = \"10s\"", "timeout = \"20s\"\non_blocked = \"terminate\"");
    stage.database.superuser().sql(&format!("grant pg_signal_backend to \"{}\"", stage.variables()["PGUSER"]));
    let holder = stage.database.sit_down();
    let bystander = stage.database.sit_down();
    bystander.sql("begin; select * from posts");
    let guard = stage.start_guard_sql(BREAKING);
    stage.wait_for_table("pages");
    holder.sql("begin; select * from pages");
    guard.end().expect(20);

    assert!(holder.ask("select 1").is_err(), "its session was ended");
    bystander.sql("commit");
    stage.assert_originals_whole();
    let removal = stage.report()["rungs"][0]["removal"].clone();
    assert!(removal["attempts"].as_u64().unwrap() > 1, "{removal:#}");
}

#[test]
fn a_table_from_before_the_migration_is_not_touched() {
    let mut stage = Stage::new("stood-before");
    // No original of the plan's: only the baseline knows it.
    stage.database.sql("create table settings (name text primary key); insert into settings values ('theme')");
    stage.plan.rungs = named(r#"["settings", "pages", "media_files"]"#);
    stage.guard_sql(BREAKING).expect(21);
    let report = stage.report();
    let failure = report["rungs"][0]["failure"].as_str().unwrap();
    assert!(failure.contains("settings"), "{failure}");
    assert_eq!(stage.new_tables(), ["public.media_files", "public.pages", "public.settings"]);
    assert_eq!(stage.database.value("select name from settings"), "theme");
    stage.assert_originals_whole();
}

#[test]
fn a_column_added_to_an_original_is_not_dropped_with_the_tables() {
    let stage = Stage::new("column-added");
    let report =
        rolled_back_to(&stage, &format!("{BREAKING}; alter table posts add page bigint references pages (id)"));
    // The foreign key goes, which would tie an original to what was moved away. The column is told, and stays.
    assert_eq!(report["remains"]["added"], serde_json::json!(["column page of public.posts"]));
    assert_eq!(stage.database.value("select count(*) from posts where page is null"), "20");
    assert!(stage.new_tables().iter().all(|table| table.starts_with("rollbackd_20")), "{:?}", stage.new_tables());
}

#[test]
fn what_hangs_on_the_tables_goes_along() {
    for (name, rung) in [("tangled-moved", QUARANTINE), ("tangled-dropped", DROP)] {
        let mut stage = Stage::new(name);
        stage.plan.rungs = rung.to_owned();
        rolled_back(&stage, TANGLED);
        let left = "select c.relname from pg_class c join pg_namespace n on n.oid = relnamespace
            where nspname = 'public' and relkind in ('r', 'v', 'm') order by 1";
        assert_eq!(stage.database.sql(left), ["comments", "popular", "posts", "profiles"], "{name}");
    }
}

#[test]
fn one_rung_waits_and_the_next_does_not() {
    let mut stage = Stage::new("lock-next");
    stage.database.superuser().sql(&format!("grant pg_signal_backend to \"{}\"", stage.variables()["PGUSER"]));
    let waiting = QUARANTINE.replace("\"10s\"", "\"4s\"");
    stage.plan.rungs = waiting + &QUARANTINE.replace("\"10s\"", "\"20s\"\non_blocked = \"terminate\"");
    let holder = stage.database.sit_down();
    let guard = stage.start_guard_sql(BREAKING);
    stage.wait_for_table("pages");
    holder.sql("begin; select * from pages");
    guard.end().expect(20);
    let rungs = stage.report()["rungs"].clone();
    assert!(rungs[0]["failure"].as_str().unwrap().contains("locks were held by"), "{rungs:#}");
    assert_eq!(rungs[1]["result"], "recovered");
    stage.assert_originals_whole();
}

#[test]
fn a_protected_schema_is_not_touched() {
    let mut stage = Stage::new("protected");
    stage.database.sql("create schema auth; create table auth.users (id bigint primary key)");
    stage.plan.change("lock_timeout", "protected_schemas = [\"auth\"]\nlock_timeout");
    rolled_back(&stage, &format!("{BREAKING}; create table auth.tokens (id bigint)"));
    let left: Vec<String> = stage.new_tables().into_iter().filter(|table| table.starts_with("auth.")).collect();
    assert_eq!(left, ["auth.tokens", "auth.users"]);
}

#[test]
fn a_view_from_before_that_looks_at_a_new_table_is_put_back() {
    let mut stage = Stage::new("survivor");
    stage.plan.rungs = DROP.to_owned();
    let redefine = "create or replace view popular as
        select p.id, count(*) from posts p join pages c on c.post = p.id group by p.id";
    let before = stage.database.value("select pg_get_viewdef('popular'::regclass)");
    stage.guard_sql(&format!("{BREAKING}; {redefine}")).expect(20);
    let report = stage.report();
    let removal = &report["rungs"][0]["removal"];
    assert_eq!(removal["put_back"], serde_json::json!(["put back view public.popular"]), "{removal:#}");
    assert_eq!(stage.new_tables(), Vec::<String>::new());
    assert_eq!(stage.database.value("select pg_get_viewdef('popular'::regclass)"), before);
}

#[test]
fn rows_that_the_migration_took_are_missed() {
    let stage = Stage::new("rows-gone");
    stage.guard_sql(&format!("{BREAKING}; delete from comments where id > 50")).expect(21);
    let report = stage.report();
    let failure = report["rungs"][0]["failure"].as_str().unwrap();
    assert!(failure.contains("comments") && failure.contains("50") && failure.contains("60"), "{failure}");
    assert!(stage.path("maintenance").exists(), "traffic stays stopped");
    assert_eq!(stage.database.value("select count(*) from comments"), "50");
}

#[test]
fn rows_that_customers_wrote_are_theirs() {
    let mut stage = Stage::new("rows-new");
    stage.plan.change("default = \"exact\"", "default = \"grow_only\"");
    stage.guard_sql(&format!("{BREAKING}; insert into comments (post, body) values (1, 'meanwhile')")).expect(20);
    assert_eq!(stage.database.value("select count(*) from comments"), "61");
}
