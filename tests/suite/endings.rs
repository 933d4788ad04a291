//! The exit codes of `rollbackd guard`, each in its real case.

use crate::stage::Stage;

/// A migration that breaks the application.
pub(crate) const BREAKING: &str = "
    create table pages (id bigint generated always as identity primary key, post bigint references posts (id));
    create table media_files (id bigint primary key, page bigint references pages (id));
    insert into pages (post) select id from posts limit 7;
";
/// One that does not.
pub(crate) const HARMLESS: &str = "create table invoices (id bigint primary key)";

#[test]
fn a_healthy_migration_passes() {
    let stage = Stage::new("healthy");
    stage.guard_sql(HARMLESS).expect(0);
    let report = stage.report();
    assert_eq!(report["outcome"], "passed", "{report:#}");
    assert_eq!(report["trigger"], serde_json::Value::Null);
    assert_eq!(stage.new_tables(), ["public.invoices"]);
    assert_eq!(stage.hooks.events(), ["window.opened", "window.passed"]);
    stage.assert_originals_whole();
    stage.assert_nothing_runs();
}

#[test]
fn a_migration_that_breaks_the_application_is_rolled_back() {
    let stage = Stage::new("breaking");
    stage.guard_sql(BREAKING).expect(20);
    let report = stage.report();
    assert_eq!(report["outcome"], "recovered", "{report:#}");
    assert_eq!(report["trigger"]["evidence"][0]["rule"], "api is down");
    stage.assert_originals_whole();
    stage.assert_nothing_runs();
}
