//! The exit codes of `rollbackd guard`, each in its real case.

use rustix::process::Signal;

use crate::stage::{Behaviour, Mail, Stage};

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
    let backup = stage.path("backups").read_dir().unwrap().next().unwrap().unwrap();
    assert!(backup.file_name().to_str().unwrap().starts_with("pre-migration-20"), "{backup:?}");
    assert_eq!(report["backup"]["directory"], backup.path().to_str().unwrap());
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

#[test]
fn everybody_is_told_and_no_secret_leaves() {
    let mut stage = Stage::new("told");
    let mail = Mail::start(&stage, Behaviour::Takes);
    stage.plan.mail(mail.port());
    stage.guard_sql(BREAKING).expect(20);

    let events = ["window.opened", "breach.detected", "rollback.started", "rollback.recovered"];
    assert_eq!(stage.hooks.events(), events);
    let subjects = mail.subjects();
    assert_eq!(subjects.len(), events.len(), "{subjects:?}");
    assert!(subjects.iter().all(|subject| subject.starts_with("[rollbackd][")), "{subjects:?}");
    let recovered = mail.wait_for("recovered").to_string();
    assert!(recovered.contains("api is down"), "{recovered}");

    let report = stage.report();
    let owed = report["notices"].as_array().unwrap().iter().flat_map(|notice| notice["channels"].as_array().unwrap());
    assert!(owed.clone().count() == 8 && owed.clone().all(|channel| channel["state"] == "delivered"), "{report:#}");
    stage.cli(&["report"]).expect(0);
    let leaks = stage.files_that_hold(&["s&cret", "s%26cret", "correct horse", "correct%20horse"]);
    assert_eq!(leaks, Vec::<std::path::PathBuf>::new());
}

#[test]
fn a_mail_server_that_does_not_take_it_now_or_ever() {
    let mut stage = Stage::new("greylist");
    let mail = Mail::start(&stage, Behaviour::Greylists(1));
    stage.plan.mail(mail.port());
    stage.guard_sql(HARMLESS).expect(0);
    assert_eq!(mail.subjects().len(), 2, "the first was sent again: {:?}", mail.subjects());

    let mut stage = Stage::new("rejected");
    let mail = Mail::start(&stage, Behaviour::Rejects);
    stage.plan.mail(mail.port());
    stage.guard_sql(HARMLESS).expect(0);
    let notice = stage.hooks.wait_for("notice.undeliverable");
    assert!(notice["data"]["summary"].as_str().unwrap().contains("550"), "{notice:#}");
    assert!(stage.hooks.events().contains(&"window.passed".to_owned()), "the other channel has it");
}

#[test]
fn ctrl_c_gives_up_what_was_not_begun_and_takes_back_what_was() {
    let mut stage = Stage::new("ctrl-c-early");
    stage.plan.change("healthy_for = \"300ms\"", "healthy_for = \"30s\"");
    let guard = stage.start_guard_sql(BREAKING);
    stage.wait_for_state("preparing");
    guard.signal(Signal::INT);
    guard.end().expect(23);
    assert_eq!(stage.new_tables(), Vec::<String>::new());
    stage.assert_originals_whole();

    let stage = Stage::new("ctrl-c-late");
    let guard = stage.start_guard_sql(&format!("{HARMLESS}; select pg_sleep(300)"));
    stage.wait_for_table("invoices");
    guard.signal(Signal::INT);
    guard.end().expect(20);
    assert_eq!(stage.report()["trigger"]["kind"], "operator");
    assert!(stage.new_tables().iter().all(|table| table.starts_with("rollbackd_20")), "{:?}", stage.new_tables());
    stage.assert_originals_whole();
    stage.assert_nothing_runs();
}

#[test]
fn what_a_daemon_guards_is_not_guarded_twice() {
    let stage = Stage::new("held");
    let daemon = stage.daemon();
    let refused = stage.guard_sql(HARMLESS).expect(69);
    assert!(refused.stderr.contains("another"), "{}", refused.stderr);
    assert_eq!(stage.new_tables(), Vec::<String>::new());
    daemon.term().expect(0);
}
