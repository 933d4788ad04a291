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

/// One that breaks the application, with everything that can be in the way when its tables are moved or dropped.
pub(crate) const TANGLED: &str = r#"
    create table pages (id serial primary key, post bigint references posts (id));
    create table "media ""files""" (id bigint primary key, page int references pages (id));
    create index on pages (post);
    create view some_pages as select p.id, o.title from pages p join posts o on o.id = p.post;
    create view a_summary as select count(*) from some_pages;
    create materialized view kept_pages as select * from some_pages;
    create function touch() returns trigger language plpgsql as 'begin return new; end';
    create trigger touched before update on pages for each row execute function touch();
    create type mood as enum ('well', 'ill');
    create sequence numbers;
    insert into pages (post) values (1), (2);
"#;

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
