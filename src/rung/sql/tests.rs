//! The rung against a real server.

use rollbackd_core::baseline::Catalog;
use rollbackd_core::run::step::StepResult;

use super::*;
use crate::config::model::Database;
use crate::postgres::catalog;
use crate::postgres::testing::{self, Fixture};

const LONG: Duration = Duration::from_secs(20);
const ORIGINALS: &str =
    "create table profiles (id int primary key); create table posts (id int primary key, title text);
    create table comments (id int); insert into posts select n, 'post' from generate_series(1, 20) n";
const MIGRATION: &str = "create table pages (id int primary key, post int references posts (id));
    alter table posts add page int references pages (id); insert into pages values (1, 1)";

struct Play {
    fixture: Fixture,
    config: Config,
    baseline: Baseline,
}

impl Play {
    async fn after(before: &str, migration: &str) -> Self {
        let fixture = Fixture::new().await;
        fixture.sql(before).await;
        let baseline = fixture.baseline().await;
        fixture.sql(migration).await;
        Self { config: fixture.config(), fixture, baseline }
    }

    async fn migrated() -> Self {
        Self::after(ORIGINALS, MIGRATION).await
    }

    async fn run(&self, text: &str) -> Outcome {
        self.run_within(text, None, LONG).await
    }

    async fn run_within(&self, text: &str, seen: Option<&Difference>, within: Duration) -> Outcome {
        let script = &Script::read(text).expect("it can run in a transaction");
        let (config, baseline) = (&self.config, &self.baseline);
        let pinned = Pinned::new(&config.database);
        act(Job { config, pinned: &pinned, baseline, file: "rollback.sql", script, window: "shop-1", seen }, within)
            .await
    }

    async fn catalog(&self) -> Catalog {
        let session = Session::connect(&self.config.database).await.expect("connects");
        catalog::read(session.client()).await.expect("a catalog")
    }

    async fn difference(&self) -> Difference {
        self.baseline.catalog.difference(&self.catalog().await, &[])
    }

    /// The file is refused because of `why`, and has done nothing.
    async fn stopped(&self, text: &str, why: &str) {
        let before = self.catalog().await;
        let outcome = self.run(text).await;
        assert_eq!(outcome.result, StepResult::Failed, "{text}: {outcome:?}");
        assert!(outcome.detail.contains(why), "{text}: {}", outcome.detail);
        assert!(outcome.detail.ends_with("nothing was changed"), "{}", outcome.detail);
        assert_eq!(self.catalog().await, before, "{text}");
        assert_eq!(self.fixture.number("select count(*) from posts").await, 20, "{text}");
    }
}

#[tokio::test]
async fn everything_happens() {
    let play = Play::migrated().await;
    let outcome = play.run("alter table posts drop column page;\ndrop table pages;").await;
    assert_eq!(outcome, Outcome::succeeded("ran 2 statements of rollback.sql", Finding::Nothing));
    assert!(play.difference().await.is_empty());
}

#[tokio::test]
async fn or_nothing_does_and_the_line_is_named() {
    let play = Play::migrated().await;
    play.stopped(
        "alter table posts drop column page;\n\ndrop table pages,\n  nothing;",
        "line 3 of rollback.sql failed",
    )
    .await;
    play.stopped("alter table posts drop column page;\nselect\n1 + nothing", "line 3 of rollback.sql failed: column")
        .await;
    play.stopped("drop table pages", "constraint posts_page_fkey on table posts depends on table pages").await;
    play.stopped("update posts set title = (1 / (id - 1))::text", "line 1").await;
    // A block that ends the transaction is text to us, and the server refuses it.
    play.stopped("do $$ begin commit; end $$", "invalid transaction termination").await;
    let deferred =
        "alter table posts alter constraint posts_page_fkey deferrable initially deferred; update posts set page = 7";
    play.stopped(deferred, "constraints that were put off").await;
}

#[tokio::test]
async fn what_stood_before_is_not_taken_away() {
    let before = format!(
        "{ORIGINALS}; create view recent as select id from posts; create table settings (a int); \
         create schema auth; create table auth.users (id int)"
    );
    let migration = format!("{MIGRATION}; create table auth.tokens (id int); insert into posts values (21, 'x')");
    let play = Play::after(&before, &migration).await;
    play.fixture.sql("delete from posts where id = 21").await;
    for (text, why) in [
        ("drop view recent", "view public.recent would be gone"),
        ("drop table pages, settings cascade", "table public.settings would be gone"),
        ("alter table posts alter title set default 'x'", "default"),
        ("alter table posts alter title type varchar(9)", "column title of public.posts would be changed"),
        ("grant select on posts to public", "would be added"),
        ("create rule r as on delete to posts do instead nothing", "would be added"),
        ("drop table settings; create table settings (a int)", "settings would be dropped and made anew"),
        ("alter table settings rename to other", "table public.settings would be renamed to table public.other"),
        ("delete from posts where id > 5", "rows of public.posts would be lost: 5 of 20 would be left"),
        ("truncate comments, posts cascade", "rows of public.posts would be lost: 0 of 20 would be left"),
        ("drop table auth.tokens", "table auth.tokens, in a protected schema, would be gone"),
        ("create function auth.f() returns int return 1", "auth.f(), in a protected schema, would be added"),
        ("set role pg_database_owner; reset role; drop view recent", "would be gone"),
    ] {
        play.stopped(text, why).await;
    }
}

#[tokio::test]
async fn what_the_migration_did_may_be_put_back() {
    let before = format!("{ORIGINALS}; create view recent as select id from posts");
    let play = Play::after(
        &before,
        "create or replace view recent as select id from posts where id > 1; alter table posts alter title set default 'x';
         update posts set title = 'new'; insert into posts values (21, 'seed'); drop table profiles",
    )
    .await;
    let outcome = play
        .run(
            "create or replace view recent as select id from posts; alter table posts alter title drop default;
             update posts set title = 'post'; delete from posts where id = 21;
             create table profiles (id int primary key)",
        )
        .await;
    assert!(outcome.is_success(), "{outcome:?}");
    assert!(play.difference().await.is_empty());
}

#[tokio::test]
async fn names_mean_what_they_mean_in_psql_and_the_configured_schema_comes_last() {
    let mut play = Play::after("create table posts (); create table profiles (); create table comments ()", "").await;
    play.fixture
        .sql(
            "create role sql_owner login password 'sesame'; grant all on schema public to sql_owner;
             create schema mine; create schema shop; grant all on schema mine, shop to sql_owner;
             alter role sql_owner set search_path = mine; create table shop.pages (); create table mine.pages ();
             create table public.pages (); create table shop.lone (); alter table shop.lone owner to sql_owner;
             alter table mine.pages owner to sql_owner;",
        )
        .await;
    let url = play.fixture.cluster.url_as("sql_owner", "sesame", &play.fixture.name);
    play.config.database = Database { schema: "shop".to_owned(), ..testing::database(&url) };
    let outcome = play.run("drop table pages; drop table lone; create table made ()").await;
    assert!(outcome.is_success(), "{outcome:?}");
    let left = play.catalog().await;
    let tables: Vec<String> = left.tables().map(|table| table.to_string()).collect();
    assert!(tables.contains(&"mine.made".to_owned()), "{tables:?}");
    assert!(tables.contains(&"shop.pages".to_owned()) && tables.contains(&"public.pages".to_owned()), "{tables:?}");
    assert!(!tables.contains(&"mine.pages".to_owned()) && !tables.contains(&"shop.lone".to_owned()), "{tables:?}");
}

#[tokio::test]
async fn limits_hold_whatever_the_file_sets() {
    let play = Play::migrated().await;
    let holder = play.fixture.session().await;
    holder.client().batch_execute("begin; select * from pages").await.expect("a lock");
    let text = "set lock_timeout = 0; set statement_timeout = 0; alter table posts drop column page; drop table pages";
    let outcome = play.run_within(text, None, Duration::from_secs(3)).await;
    assert_eq!(outcome.result, StepResult::Failed, "{outcome:?}");
    for part in ["gave up after", "locks were held by", "nothing was changed"] {
        assert!(outcome.detail.contains(part), "{part}: {}", outcome.detail);
    }
    assert!(!outcome.detail.contains("after 1 try "), "it was tried again: {}", outcome.detail);
    let waited = play.run(text);
    let lets_go = async {
        // Somebody waits for the lock by now.
        let waits = "select count(*) from pg_locks where not granted and relation = 'pages'::regclass";
        while play.fixture.number(waits).await == 0 {
            tokio::task::yield_now().await;
        }
        holder.client().batch_execute("commit").await.expect("it ends");
    };
    let (outcome, ()) = tokio::join!(waited, lets_go);
    assert!(outcome.is_success(), "{outcome:?}");
    assert!(play.difference().await.is_empty());
}

#[tokio::test]
async fn a_statement_that_takes_too_long_is_ended_and_not_tried_again() {
    let mut play = Play::migrated().await;
    play.config.database.statement_timeout = Duration::from_millis(300);
    let outcome = play.run("drop table if exists nothing;\nselect pg_sleep(60)").await;
    assert_eq!(outcome.result, StepResult::Failed);
    assert!(outcome.detail.starts_with("line 2 of rollback.sql failed: canceling statement"), "{}", outcome.detail);
}

#[tokio::test]
async fn after_an_interruption_it_waits_for_the_earlier_try_and_does_not_repeat_it() {
    let play = Play::migrated().await;
    let seen = play.difference().await;
    // The earlier try: still at work when it was looked at, and committed before the lock was to be had.
    let earlier = play.fixture.session().await;
    let lock = "begin; select pg_advisory_xact_lock(hashtextextended('rollbackd sql shop-1', 0)); \
                alter table posts drop column page";
    earlier.client().batch_execute(lock).await.expect("at work");
    let text = "update posts set title = title || '!'; drop table if exists other";
    let again = play.run_within(text, Some(&seen), LONG);
    let commits = async {
        let waits = "select count(*) from pg_locks where not granted and locktype = 'advisory'";
        while play.fixture.number(waits).await == 0 {
            tokio::task::yield_now().await;
        }
        earlier.client().batch_execute("commit").await.expect("it commits");
    };
    let (outcome, ()) = tokio::join!(again, commits);
    assert_eq!(outcome.result, StepResult::Unknown, "{outcome:?}");
    assert_eq!(play.fixture.number("select count(*) from posts where title = 'post'").await, 20, "not touched");
    let now = play.difference().await;
    let outcome = play.run_within("update posts set title = title || '!'", Some(&now), LONG).await;
    assert!(outcome.is_success(), "nothing has happened since: {outcome:?}");
}

#[tokio::test]
async fn a_server_that_goes_away_is_waited_for() {
    let play = Play::migrated().await;
    let text = "select pg_terminate_backend(pg_backend_pid())";
    let outcome = play.run_within(text, None, Duration::from_secs(2)).await;
    assert_eq!(outcome.result, StepResult::Failed, "{outcome:?}");
    assert!(outcome.detail.contains("gave up after") && outcome.detail.contains("tries"), "{}", outcome.detail);
}
