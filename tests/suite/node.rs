//! The example of an emergency script in Node, with the real `node` and its `pg` package.

use std::path::Path;
use std::process::{Command, Output};

use crate::stage::Stage;

/// The runbook's tables, as a migration may add them: tied to each other in a circle, and to the originals.
const RUNBOOK: &str = "
    create table pages (id bigint generated always as identity primary key, post bigint references posts (id));
    create table content_blocks (id bigint primary key, page bigint references pages (id) on delete cascade);
    create table page_templates (id bigint primary key, component bigint);
    create table component_library (id bigint primary key, template bigint references page_templates (id));
    alter table page_templates add foreign key (component) references component_library (id);
    create table user_sessions (id bigint primary key, profile bigint references profiles (id) on delete cascade);
    create table analytics_events (at timestamptz not null, session bigint) partition by range (at);
    create table analytics_events_2026 partition of analytics_events for values from ('2026-01-01') to ('2027-01-01');
    create table user_file_stats (profile bigint primary key references profiles (id), files int);
    create table file_metadata (id bigint primary key, owner bigint references profiles (id));
    create table file_versions (id bigint primary key, file bigint references file_metadata (id));
    create unlogged table cache_entries (key text primary key, value jsonb);
    create table component_usage (page bigint references pages (id), component bigint references component_library (id));
    create table builder_pages (id bigint primary key, page bigint references pages (id));
    create table content_posts (id bigint primary key, post bigint references posts (id));
    create table media_files (id bigint primary key, page bigint references pages (id));
    insert into pages (post) select id from posts limit 7;
    insert into analytics_events values ('2026-11-25', 1), ('2026-11-26', 2);
";

/// The migration and what comes after it in one transaction: the application is ill when all of it is there.
fn at_once(more: &str) -> String {
    format!("begin; {RUNBOOK} {more} commit;")
}

/// A stage with the example on it, as its README says to install it.
fn stage(name: &str) -> Stage {
    let mut stage = Stage::new(name);
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/examples/rollback-emergency");
    let packages = Path::new(env!("CARGO_TARGET_TMPDIR")).join("rollback-emergency/node_modules");
    assert!(packages.join("pg/package.json").is_file(), "run `tools/install-deps test` first: {}", packages.display());
    std::fs::create_dir(stage.path("scripts")).unwrap();
    let script = "rollback-emergency.mjs";
    std::fs::copy(example.join(script), stage.path("scripts").join(script)).unwrap();
    std::os::unix::fs::symlink(packages, stage.path("scripts/node_modules")).unwrap();
    stage.plan.rungs = format!(
        "\n[[rollback.rung]]\nkind = \"script\"\ncommand = [\"node\", \"scripts/{script}\"]\ntimeout = \"50s\"\nidempotent = true\n"
    );
    stage
}

/// Runs it by hand.
fn by_hand(stage: &Stage, variables: &[(&str, &str)]) -> Output {
    let mut node = Command::new("node");
    node.arg("scripts/rollback-emergency.mjs").current_dir(stage.directory()).envs(stage.variables());
    node.env("DATABASE_URL", stage.database.url()).envs(variables.iter().copied()).output().unwrap()
}

#[track_caller]
fn says(output: &Output, code: i32, parts: &[&str]) {
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{said}");
    for part in parts {
        assert!(said.contains(part), "{part} is not in:\n{said}");
    }
    assert!(!said.contains("cret"), "the password is never shown: {said}");
}

#[test]
fn takes_the_runbook_s_tables_out() {
    let stage = stage("node-heals");
    stage.guard_sql(&at_once("")).expect(20);
    stage.assert_originals_whole();
    assert_eq!(stage.new_tables(), Vec::<String>::new());
    stage.assert_nothing_runs();
    let report = stage.report();
    assert_eq!(report["outcome"], "recovered", "{report:#}");
    assert_eq!(report["remains"]["summary"], "nothing differs from the baseline");
    let process = &report["rungs"][0]["process"];
    assert_eq!(process["exit_code"], 0);
    let output = process["output"].as_str().unwrap();
    for line in [
        "dropped public.pages: 7 rows",
        "dropped public.analytics_events: 2 rows",
        "original public.comments: 60 rows",
        "done: 14 tables dropped",
    ] {
        assert!(output.lines().any(|one| one == line), "{line} is not in:\n{output}");
    }
    says(&by_hand(&stage, &[]), 0, &["original public.posts: 20 rows", "done: there was nothing to drop"]);
}

#[test]
fn stops_with_nothing_changed_when_something_else_would_go_along() {
    let stage = stage("node-stops");
    stage.guard_sql(&at_once("create view of_ours as select id from pages;")).expect(21);
    assert_eq!(stage.new_tables().len(), 15, "{:?}", stage.new_tables());
    stage.assert_originals_whole();
    let report = stage.report();
    let failure = report["rungs"][0]["failure"].as_str().unwrap();
    assert!(failure.contains("exited with 1: failed (2BP01)"), "{failure}");
    let output = report["rungs"][0]["process"]["output"].as_str().unwrap();
    assert!(output.contains("view of_ours depends on table pages"), "{output}");
}

#[test]
fn waits_for_locks_within_bounds_and_says_what_is_wrong() {
    let stage = stage("node-bounds");
    stage.database.sql("create table pages (id int); create view media_files as select 1 as one");
    says(&by_hand(&stage, &[]), 1, &["failed: not a table: media_files"]);
    stage.database.sql("drop view media_files");
    let holder = stage.database.sit_down();
    holder.sql("begin; select * from pages");
    let bounded = by_hand(&stage, &[("ROLLBACK_GIVE_UP_AFTER_MS", "3000")]);
    says(&bounded, 1, &["try 1: a lock is not to be had", "failed (55P03): canceling statement due to lock timeout"]);
    holder.sql("rollback");
    stage.database.sql("alter table comments rename to remarks");
    says(&by_hand(&stage, &[]), 1, &["failed: original tables are missing: comments"]);
    assert_eq!(stage.new_tables(), ["public.pages", "public.remarks"]);
    stage.database.sql("alter table remarks rename to comments");
    says(&by_hand(&stage, &[]), 0, &["done: 1 table dropped"]);
    says(&by_hand(&stage, &[("DATABASE_URL", "")]), 64, &["DATABASE_URL is not set"]);
    let nobody = stage.database.url().replace("cret", "crets");
    says(&by_hand(&stage, &[("DATABASE_URL", &nobody)]), 1, &["failed (28P01)"]);
}

#[test]
fn its_list_is_the_runbook_s() {
    let text = include_str!("../../config/examples/rollback-emergency/rollback-emergency.mjs");
    let shell = include_str!("../../config/scripts/rollback-emergency.sh");
    let (_, list) = text.split_once("const TABLES = [").unwrap();
    let named: Vec<&str> = list.split_once(']').unwrap().0.split('\'').skip(1).step_by(2).collect();
    let dropped: Vec<&str> =
        shell.lines().filter_map(|line| line.trim().strip_prefix("\"public\".\"")?.split('"').next()).collect();
    assert_eq!(named, dropped);
    assert_eq!(named.len(), 14);
}

#[test]
fn its_packages_are_pinned_and_name_no_server() {
    let lock: serde_json::Value =
        serde_json::from_str(include_str!("../../config/examples/rollback-emergency/package-lock.json")).unwrap();
    let packages = lock["packages"].as_object().unwrap();
    assert!(packages.contains_key("node_modules/pg"));
    for (name, package) in packages.iter().filter(|(name, _)| !name.is_empty()) {
        assert!(package["integrity"].is_string(), "{name}");
        assert!(package.get("resolved").is_none(), "{name}");
    }
}
