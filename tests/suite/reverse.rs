//! The rungs that know how far to reach: `partial`, and `reverse`, which puts the whole catalog back.

use crate::endings::{BREAKING, HARMLESS};
use crate::stage::{QUARANTINE, Stage};

const PARTIAL: &str = "\n[[rollback.rung]]\nkind = \"partial\"\ntimeout = \"10s\"\n";
pub(crate) const REVERSE: &str = "\n[[rollback.rung]]\nkind = \"reverse\"\ntimeout = \"20s\"\n";
/// What the catalog must be like afterwards.
pub(crate) const CATALOG: &str = "\n[[verify]]\nkind = \"catalog\"\nretries = 0\n";

fn stage(name: &str, rungs: &str) -> Stage {
    let mut stage = Stage::new(name);
    rungs.clone_into(&mut stage.plan.rungs);
    stage
}

#[test]
fn partial_takes_only_the_tables_that_are_to_blame() {
    let mut stage = stage("partial", &format!("{PARTIAL}{QUARANTINE}"));
    stage.plan.change("timeout = \"3s\"\n[signal.http]", "timeout = \"3s\"\nimplicates = [\"pages\"]\n[signal.http]");
    stage.guard_sql(&format!("{BREAKING}; {HARMLESS}")).expect(20);
    let report = stage.report();
    assert_eq!(report["rungs"].as_array().unwrap().len(), 1, "{report:#}");
    assert_eq!(report["rungs"][0]["kind"], "partial");
    let tables = report["rungs"][0]["removal"]["tables"].as_array().unwrap();
    let names: Vec<&str> = tables.iter().map(|one| one["table"]["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["media_files", "pages"], "with what refers to it, and nothing else");
    assert!(stage.new_tables().contains(&"public.invoices".to_owned()), "{:?}", stage.new_tables());
    stage.assert_originals_whole();
}

#[test]
fn partial_that_does_not_help_makes_room_for_the_next_rung() {
    let mut stage = stage("partial-next", &format!("{PARTIAL}{QUARANTINE}"));
    stage
        .plan
        .change("timeout = \"3s\"\n[signal.http]", "timeout = \"3s\"\nimplicates = [\"invoices\"]\n[signal.http]");
    stage.guard_sql(&format!("{BREAKING}; {HARMLESS}")).expect(20);
    let report = stage.report();
    let rungs = report["rungs"].as_array().unwrap();
    assert_eq!((rungs.len(), &rungs[0]["result"], &rungs[1]["result"]), (2, &"failed".into(), &"recovered".into()));
    stage.assert_originals_whole();
}

#[test]
fn reverse_puts_back_what_removing_tables_leaves() {
    let mut stage = stage("reverse", &format!("{QUARANTINE}{REVERSE}"));
    stage.plan.checks.push_str(CATALOG);
    let migration = "alter table posts add column sku text default 'none'; create index on posts (sku);
        revoke all on posts from public; create function sku(posts) returns text language sql as 'select $1.sku';
        alter table comments rename column body to text; create view popular_skus as select sku from posts";
    let views = "select string_agg(viewname, ',' order by viewname) from pg_views where schemaname = 'public'";
    let before = stage.database.value(views);
    stage.guard_sql(&format!("{BREAKING}; {migration}")).expect(20);
    let report = stage.report();
    let rungs = report["rungs"].as_array().unwrap();
    assert_eq!(rungs.len(), 2, "{report:#}");
    assert!(rungs[0]["failure"].as_str().unwrap().contains("column sku of public.posts was added"), "{report:#}");
    assert_eq!(rungs[1]["kind"], "reverse");
    let kept = &rungs[1]["removal"]["columns"][0];
    assert_eq!(kept["columns"], serde_json::json!(["sku"]), "{report:#}");
    assert_eq!(report["costs"]["class"], "lossy");
    assert_eq!(stage.database.value(views), before);
    stage.assert_originals_whole();
}
