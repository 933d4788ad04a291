//! The rung that brings damaged originals back from the backup.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rollbackd_core::run::record::Record;

use crate::stage::{QUARANTINE, Stage, eventually, until};

const RESTORE: &str = "\n[[rollback.rung]]\nkind = \"restore\"\ntimeout = \"40s\"\n";

#[test]
fn a_migration_that_destroyed_originals_is_taken_back_after_a_word() {
    let mut stage = Stage::new("restore");
    stage.plan.rungs = QUARANTINE.to_owned() + RESTORE;
    let guard = stage.start_guard_sql(
        "create table pages (id bigint generated always as identity primary key);
         alter table posts drop column body; drop table comments cascade;
         insert into posts (author, title) values (1, 'written since')",
    );
    // Nothing is done without a word: the migration cannot be taken back by statements alone.
    for rung in ["tables", "restore"] {
        eventually("a rung waits for approval", || {
            let approval = stage.status().map(|status| status["approval"].clone()).unwrap_or_default();
            if approval["rung"] == rung { Ok(()) } else { Err(approval) }
        });
        let notice = stage.hooks.wait_for("approval.required").to_string();
        assert!(notice.contains("table public.comments was dropped"), "{notice}");
        stage.cli(&["approve", "--reason", "go"]).expect(0);
    }
    guard.end().expect(20);
    let report = stage.report();
    assert_eq!(report["outcome"], "recovered", "{report:#}");
    let detail = report["rungs"][1].to_string();
    assert!(detail.contains("column body was dropped") && detail.contains("1 not in the backup"), "{detail}");
    stage.assert_originals_whole();
    let schema = report["rungs"][1]["removal"]["quarantine"].as_str().unwrap();
    assert_eq!(
        stage.database.value(&format!("select count(*) from {schema}.posts where title = 'written since'")),
        "1"
    );
    // The row is put back with what the report says, and not before.
    let by_hand = report["rungs"][1]["removal"]["by_hand"][0].as_str().unwrap();
    let text = stage.cli(&["report"]).expect(0).stdout;
    assert!(text.contains(by_hand), "{text}");
    stage.database.sql(by_hand);
    assert_eq!(stage.database.value("select count(*) from posts where title = 'written since'"), "1");
    // Undo brings back what the other rung took, and leaves what the restore has put aside.
    let told = stage.cli(&["undo", schema, "--yes"]).expect(0).stdout;
    assert!(told.contains("brought back 1 table") && told.contains("stays: it is not empty"), "{told}");
    let kept = format!("select count(*) from {schema}.posts where title = 'written since'");
    assert_eq!(stage.database.value(&kept), "1");
    assert_eq!(stage.database.value("select count(*) from posts"), "21");
    assert_eq!(stage.database.value("select count(*) from pages"), "0");
}

/// Waits until this rung asks for a word, and gives it; what was told.
fn approve(stage: &Stage, rung: &str) -> String {
    eventually("a rung waits for approval", || {
        let approval = stage.status().map(|status| status["approval"].clone()).unwrap_or_default();
        if approval["rung"] == rung { Ok(()) } else { Err(approval) }
    });
    let notice = stage.hooks.wait_for("approval.required").to_string();
    stage.cli(&["approve", "--reason", "go"]).expect(0);
    notice
}

/// The new table is what ails the application: the restore alone is not enough.
const DESTROYING: &str = "create table pages (id bigint generated always as identity primary key);
    alter table posts drop column body; alter table posts add column page bigint references pages;
    drop table comments cascade; insert into posts (author, title) values (1, 'written since')";

#[test]
fn whoever_approves_reads_the_numbers_and_what_comes_after_asks_no_more() {
    let mut stage = Stage::new("restore-first");
    stage.plan.rungs = format!("{RESTORE}\n[[rollback.rung]]\nkind = \"reverse\"\ntimeout = \"20s\"\n");
    stage.plan.checks.push_str("\n[[verify]]\nkind = \"catalog\"\nretries = 0\n");
    let guard = stage.start_guard_sql(DESTROYING);
    let notice = approve(&stage, "restore");
    for part in [
        "public.posts (column body was dropped): it holds 21 rows now, the backup 20 rows: at least 1 row was written since",
        "public.comments (was dropped): the backup holds 60 rows",
        "all of it is moved to schema rollbackd_",
    ] {
        assert!(notice.contains(part), "{part}\nnot in\n{notice}");
    }
    guard.end().expect(20);
    let report = stage.report();
    let rungs = report["rungs"].as_array().unwrap();
    let results: Vec<_> =
        rungs.iter().map(|rung| (rung["kind"].as_str().unwrap(), rung["result"].as_str().unwrap())).collect();
    assert_eq!(results, [("restore", "failed"), ("reverse", "recovered")], "{report:#}");
    assert_eq!(
        asked(&stage),
        1,
        "the restore was asked for, and nothing that it brought back is a reason to ask again"
    );
    stage.assert_originals_whole();
    let schema = rungs[0]["removal"]["quarantine"].as_str().unwrap();
    assert_eq!(stage.database.value(&format!("select count(*) from {schema}.posts")), "21");
}

/// How often an approval was asked for.
fn asked(stage: &Stage) -> usize {
    stage.records().iter().filter(|entry| matches!(entry.record, Record::ApprovalRequested { .. })).count()
}

/// The restored side is filled, and then one of them is killed: what is left of it is cleaned, and nothing happens twice.
#[track_caller]
fn assert_restored_once(stage: &Stage) {
    stage.wait_for_state("recovered");
    let report = stage.report();
    let schema =
        report["rungs"][1]["removal"]["quarantine"].as_str().unwrap_or_else(|| panic!("{report:#}")).to_owned();
    let restored = "select string_agg(name, ', ' order by name) from ";
    assert_eq!(
        stage.database.value(&format!("{restored}{schema}.rollbackd_restored")),
        "\"public\".\"comments\", \"public\".\"posts\"",
        "each of them once"
    );
    assert_eq!(
        stage.database.value(&format!("select count(*) from {schema}.posts where title = 'written since'")),
        "1"
    );
    assert_eq!(stage.database.value("select count(*) from pg_namespace where nspname = 'rollbackd_restore'"), "0");
    stage.assert_originals_whole();
}

fn destroyed(name: &str) -> Stage {
    let mut stage = Stage::new(name);
    stage.plan.rungs = QUARANTINE.to_owned() + RESTORE;
    let migration = stage.migration(
        "create table pages (id bigint generated always as identity primary key); alter table posts drop column body;
         drop table comments cascade; insert into posts (author, title) values (1, 'written since')",
    );
    stage.plan.command(&migration);
    stage
}

#[test]
fn killed_while_the_backup_is_read_into_the_side_schema() {
    let mut stage = destroyed("restore-fill");
    // The real program, which stops in the middle of its output until it is let go.
    let path = stage.variables()["PATH"].clone();
    let real = path.split(':').map(Path::new).find(|directory| directory.join("pg_restore").is_file()).unwrap();
    let ours = stage.path("bin");
    std::fs::create_dir(&ours).unwrap();
    std::os::unix::fs::symlink(real.join("pg_dump"), ours.join("pg_dump")).unwrap();
    let (real, go, filling) = (real.join("pg_restore"), stage.path("go"), stage.path("filling"));
    let script = format!(
        "#!/bin/sh\ncase \"$*\" in *--table=posts*) '{0}' \"$@\" | {{ head -c 1000; touch '{2}'; \
         while [ ! -e '{1}' ]; do sleep 0.05; done; cat; }} ;; *) exec '{0}' \"$@\" ;; esac\n",
        real.display(),
        go.display(),
        filling.display()
    );
    std::fs::write(ours.join("pg_restore"), script).unwrap();
    std::fs::set_permissions(ours.join("pg_restore"), PermissionsExt::from_mode(0o755)).unwrap();
    stage.set("PG_BIN", ours.display().to_string());
    let daemon = stage.daemon();
    stage.cli(&["window", "open", "--reason", "a test"]).expect(0);
    approve(&stage, "tables");
    approve(&stage, "restore");
    until("the side schema is being filled", || {
        let copying = "select count(*) from pg_stat_activity where query like 'copy \"rollbackd_restore\".%' and state = 'active'";
        filling.exists() && stage.database.value(copying) == "1"
    });
    drop(daemon.kill().expect(128 + 9));
    assert_eq!(stage.database.value("select count(*) from posts"), "21", "nothing of theirs was touched");
    assert_eq!(stage.database.value("select count(*) from pg_namespace where nspname = 'rollbackd_restore'"), "1");
    std::fs::write(&go, "").unwrap();

    let daemon = stage.daemon();
    assert_restored_once(&stage);
    daemon.term().expect(0);
    stage.assert_nothing_runs();
}

#[test]
fn killed_while_the_swap_waits_for_a_lock() {
    let stage = destroyed("restore-swap");
    let reader = stage.database.sit_down();
    let daemon = stage.daemon();
    stage.cli(&["window", "open", "--reason", "a test"]).expect(0);
    approve(&stage, "tables");
    eventually("the restore waits for approval", || {
        let approval = stage.status().map(|status| status["approval"].clone()).unwrap_or_default();
        if approval["rung"] == "restore" { Ok(()) } else { Err(approval) }
    });
    reader.sql("begin; lock table posts in access share mode");
    stage.cli(&["approve", "--reason", "go"]).expect(0);
    let waiting = "select 1 from pg_locks where not granted and relation = 'public.posts'::regclass \
                   and mode = 'AccessExclusiveLock'";
    until("it waits for the lock", || reader.sql(waiting).len() == 1);
    drop(daemon.kill().expect(128 + 9));
    assert_eq!(reader.sql("select count(*) from posts"), ["21"], "all or nothing");

    let daemon = stage.daemon();
    until("it waits for the lock again", || reader.sql(waiting).len() == 1);
    reader.sql("rollback");
    assert_restored_once(&stage);
    daemon.term().expect(0);
    stage.assert_nothing_runs();
}

#[test]
fn a_restore_by_itself_is_not_undone_and_says_where_everything_is() {
    let mut stage = Stage::new("restore-alone");
    stage.plan.rungs = RESTORE.to_owned();
    stage.app.ill_when("not exists (select from pg_attribute where attrelid = 'posts'::regclass and attname = 'body')");
    let guard = stage.start_guard_sql("alter table posts drop column body");
    approve(&stage, "restore");
    guard.end().expect(20);
    stage.assert_originals_whole();
    let report = stage.report();
    let schema = report["rungs"][0]["removal"]["quarantine"].as_str().unwrap();
    let listed = stage.cli(&["undo"]).expect(0).stdout;
    assert!(listed.contains("by hand"), "{listed}");
    let told = stage.cli(&["undo", schema, "--yes"]).expect(1).stderr;
    let told = told.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(told.contains("Tables that a restore replaced are kept in it"), "{told}");
    assert_eq!(stage.database.value(&format!("select count(*) from {schema}.posts")), "20");
    stage.assert_originals_whole();
}
