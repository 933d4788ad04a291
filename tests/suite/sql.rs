//! The rung that runs a SQL file in one transaction.

use serde_json::Value;

use crate::endings::BREAKING;
use crate::stage::{QUARANTINE, Stage};

/// A rung that runs this file, in words of TOML.
pub(crate) fn rung(file: &str) -> String {
    format!("\n[[rollback.rung]]\nkind = \"sql\"\nfile = {file:?}\ntimeout = \"10s\"\n")
}

/// A stage whose ladder is a SQL file with this text, then the quarantine.
fn with_file(name: &str, text: &str) -> Stage {
    let mut stage = Stage::new(name);
    std::fs::write(stage.path("rollback.sql"), text).unwrap();
    stage.plan.rungs = rung("rollback.sql") + QUARANTINE;
    stage
}

#[track_caller]
fn rungs(stage: &Stage) -> Vec<Value> {
    let report = stage.report();
    assert_eq!(report["outcome"], "recovered", "{report:#}");
    stage.assert_originals_whole();
    report["rungs"].as_array().unwrap().clone()
}

#[test]
fn puts_everything_back() {
    let migration = format!(
        "begin; {BREAKING}; alter table posts add page bigint references pages (id);
        create or replace view popular as select p.id, count(*) from posts p join pages c on c.post = p.id group by p.id; commit"
    );
    let stage = with_file(
        "sql-heals",
        "-- COMMIT; stands in a comment
        create or replace view popular as
            select p.id, count(*) from posts p join comments c on c.post = p.id group by p.id;
        alter table posts drop column page;
        drop table media_files, pages;",
    );
    stage.guard_sql(&migration).expect(20);
    let rungs = rungs(&stage);
    assert_eq!(rungs.len(), 1, "{rungs:#?}");
    assert_eq!((&rungs[0]["kind"], &rungs[0]["result"]), (&"sql".into(), &"recovered".into()));
    assert_eq!(stage.new_tables(), Vec::<String>::new());
    assert_eq!(stage.report()["remains"]["summary"], "nothing differs from the baseline");
    let text = stage.cli(&["report"]).expect(0).stdout;
    assert!(text.contains("ran 3 statements of rollback.sql"), "{text}");
    assert!(text.contains("rollback.sql in one transaction"), "{text}");
}

#[test]
fn fails_at_its_end_and_has_changed_nothing() {
    let stage = with_file("sql-fails", "drop table media_files;\ndrop table pages;\nselect no_such_function();\n");
    stage.guard_sql(BREAKING).expect(20);
    let rungs = rungs(&stage);
    assert_eq!(rungs.len(), 2, "{rungs:#?}");
    let failure = rungs[0]["failure"].as_str().unwrap();
    assert!(failure.contains("line 3 of rollback.sql failed: function no_such_function() does not exist"), "{failure}");
    assert_eq!(rungs[0]["before"], rungs[0]["after"]);
    assert!(stage.new_tables().iter().all(|table| table.starts_with("rollbackd_20")), "{:?}", stage.new_tables());
}

#[test]
fn may_not_harm_an_original() {
    for (name, harm, why) in [
        (
            "sql-drops",
            "drop view popular; drop table media_files, pages, comments",
            "table public.comments would be gone",
        ),
        ("sql-deletes", "drop table media_files, pages; delete from comments where id > 7", "7 of 60 would be left"),
    ] {
        let stage = with_file(name, harm);
        stage.guard_sql(BREAKING).expect(20);
        let rungs = rungs(&stage);
        let failure = rungs[0]["failure"].as_str().unwrap();
        assert!(failure.contains("would harm what stood before") && failure.contains(why), "{failure}");
        assert_eq!(rungs[1]["result"], "recovered");
    }
}

#[test]
fn is_refused_before_a_window_opens_when_it_ends_its_own_transaction() {
    let stage = with_file("sql-commits", "begin;\ndrop table media_files, pages;\ncommit;\n");
    let said = stage.cli(&["check"]).expect(78).stderr;
    for part in ["rollback.sql:1: `begin`", "rollback.sql:3: `commit`", "transaction control of its own"] {
        let unfolded = said.replace("\n  │ ", " ");
        assert!(unfolded.contains(part), "{part}: {said}");
    }
    stage.guard_sql(BREAKING).expect(78);
    assert_eq!(stage.new_tables(), Vec::<String>::new());
}
