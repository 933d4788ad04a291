//! The rung that brings damaged originals back from the backup.

use crate::stage::{QUARANTINE, Stage, eventually};

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
}
