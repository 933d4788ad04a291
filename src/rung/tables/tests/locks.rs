//! Others hold what is needed, or the server goes away.

use super::*;
use crate::demo::cluster::{Cluster, Stop};

/// Somebody waits for a lock on `pages`.
const WAITS: &str = "select exists (select from pg_locks where relation = 'public.pages'::regclass and not granted)";

#[tokio::test]
async fn a_lock_that_is_held_is_waited_for_and_its_holder_named() {
    let world = World::new("", "create table pages (id int); insert into pages values (1)").await;
    let mut holder = world.fixture.session().await;
    holder.client().batch_execute("set application_name = 'pg_dump'").await.expect("a name");
    let transaction = holder.client_mut().transaction().await.expect("a transaction");
    transaction.batch_execute("lock table pages in access share mode").await.expect("a lock");
    let before = world.catalog().await;
    for dispose in [QUARANTINE, DROP] {
        let outcome = world.act(&named(&["pages"], dispose, OnBlocked::Wait), Duration::from_secs(5)).await;
        assert_eq!(outcome.result, StepResult::Failed, "{}", outcome.detail);
        assert!(outcome.detail.contains("a running pg_dump (pid "), "{}", outcome.detail);
        let found = finding(&outcome);
        assert!(found.attempts >= 2);
        assert_eq!(found.holders.len(), 1, "{:?}", found.holders);
        assert!(found.holders[0].starts_with("a running pg_dump (pid "), "{:?}", found.holders);
        assert!(found.holders[0].ends_with("holds AccessShareLock on public.pages"), "{:?}", found.holders);
        assert_eq!(world.catalog().await, before);
        assert!(!world.config.state_dir.join("archives/shop-20261122T020000Z/tables-1").exists(), "no stale archive");
    }
    let removal = named(&["pages"], QUARANTINE, OnBlocked::Wait);
    let (outcome, ()) = tokio::join!(world.act(&removal, Duration::from_secs(30)), async {
        until(&world.config, WAITS).await;
        transaction.commit().await.expect("commits");
    });
    assert!(outcome.is_success(), "{}", outcome.detail);
    world.originals_are_whole().await;
}

#[tokio::test]
async fn a_session_that_is_in_the_way_is_ended_when_that_is_allowed() {
    for dispose in [QUARANTINE, DROP] {
        let world = World::new("", "create table pages (id int, p int references profiles(id))").await;
        let mut holder = world.fixture.session().await;
        let transaction = holder.client_mut().transaction().await.expect("a transaction");
        // The parent's lock is in the way of a drop only.
        let held = if dispose == DROP { "profiles" } else { "pages" };
        transaction.batch_execute(&format!("lock table {held} in access share mode")).await.expect("a lock");
        let (_, found) = world.removed(&named(&["pages"], dispose, OnBlocked::Terminate)).await;
        assert_eq!(found.blockers.len(), 1, "{:?}", found.blockers);
        assert!(transaction.batch_execute("select 1").await.is_err(), "it was ended");
    }
}

#[tokio::test]
async fn a_pg_dump_that_runs_is_waited_for_or_ended() {
    let world = World::new("", "create table pages (id int); create table stuck (id int)").await;
    let mut holder = world.fixture.session().await;
    let transaction = holder.client_mut().transaction().await.expect("a transaction");
    transaction.batch_execute("lock table stuck in access exclusive mode").await.expect("a lock");
    // It takes its locks in the order in which the tables were made, and waits for the last.
    let programs = crate::postgres::programs::find(15).await.expect("programs");
    let mut dump = tokio::process::Command::new(&programs.dump);
    dump.arg("--file=/dev/null").arg("--dbname").arg(world.fixture.cluster.url(&world.fixture.name)).kill_on_drop(true);
    let dump = tokio::time::timeout(Duration::from_secs(90), dump.output());
    let rungs = async {
        let dumping = "select count(*) from pg_locks l join pg_stat_activity a using (pid) \
                       where a.application_name = 'pg_dump' and l.granted and l.relation = 'pages'::regclass";
        let has_its_lock = async {
            while world.fixture.number(dumping).await == 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), has_its_lock).await.expect("it dumps");
        let outcome = world.act(&named(&["pages"], QUARANTINE, OnBlocked::Wait), Duration::from_secs(3)).await;
        assert_eq!(outcome.result, StepResult::Failed, "{}", outcome.detail);
        assert!(outcome.detail.contains("locks were held by a running pg_dump (pid "), "{}", outcome.detail);
        assert!(finding(&outcome).holders[0].starts_with("a running pg_dump (pid "), "{:?}", finding(&outcome).holders);
        assert_eq!(world.fixture.number(dumping).await, 1, "it was left alone");
        let outcome = world.act(&named(&["pages"], QUARANTINE, OnBlocked::Terminate), Duration::from_secs(30)).await;
        assert!(outcome.is_success(), "{}", outcome.detail);
    };
    let (dump, ()) = tokio::join!(dump, rungs);
    let dump = dump.expect("in time").expect("it ran");
    let said = String::from_utf8_lossy(&dump.stderr);
    assert!(!dump.status.success() && said.contains("terminating connection"), "{said}");
    transaction.commit().await.expect("a bystander is left alone");
}

/// A server of a test's own, with the table `pages`, and what removes it.
struct Alone {
    cluster: Cluster,
    config: Config,
    pinned: Pinned,
    _directory: tempfile::TempDir,
}

impl Alone {
    async fn new(server: &str, sql: &str) -> Self {
        let directory = crate::postgres::testing::own_directory();
        let mut cluster = Cluster::start(&directory.path().join("c")).await.expect("a server");
        cluster.execute("postgres", server).await.expect("a setting");
        cluster.stop(Stop::Fast).await.expect("stops");
        cluster.start_again().await.expect("starts");
        cluster.execute("postgres", sql).await.expect("tables");
        let database = crate::postgres::testing::database(&cluster.url("postgres"));
        let config = crate::postgres::testing::config(database, directory.path().to_owned());
        let pinned = Pinned::new(&config.database);
        Self { cluster, config, pinned, _directory: directory }
    }

    /// Everything is new since an empty baseline.
    async fn act(&self, removal: &Removal, within: Duration) -> Outcome {
        let started = "2026-11-22T02:00:00Z".parse().expect("a time");
        act(&self.config, &self.pinned, &nothing_known(), removal, first("w", started), within).await
    }

    async fn session(&self) -> Session {
        let database = &self.config.database;
        let limit = Duration::from_secs(60);
        Session::connect_to(&database.url, &database.tls, limit, limit).await.expect("connects")
    }

    async fn until(&self, query: &str) {
        until(&self.config, query).await;
    }
}

/// Looks until a query gives true.
async fn until(config: &Config, query: &str) {
    let (database, limit) = (&config.database, Duration::from_secs(60));
    let session = Session::connect_to(&database.url, &database.tls, limit, limit).await.expect("connects");
    let looks = async {
        while !session.client().query_one(query, &[]).await.expect("an answer").get::<_, bool>(0) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(limit, looks).await.unwrap_or_else(|_elapsed| panic!("never: {query}"));
}

fn nothing_known() -> Baseline {
    Baseline {
        format: Baseline::FORMAT,
        at: Timestamp::UNIX_EPOCH,
        server_version: String::new(),
        catalog: rollbackd_core::baseline::Catalog::default(),
        counts: Vec::new(),
        identities: Vec::new(),
        prints: Vec::new(),
    }
}

#[tokio::test]
async fn a_prepared_transaction_is_named_with_the_way_out() {
    let alone = Alone::new("alter system set max_prepared_transactions = 5", "create table pages (id int)").await;
    let prepare = "begin; insert into public.pages values (1); prepare transaction 'half done'";
    alone.session().await.client().batch_execute(prepare).await.expect("prepared");
    for on_blocked in [OnBlocked::Wait, OnBlocked::Terminate] {
        let outcome = alone.act(&named(&["pages"], QUARANTINE, on_blocked), Duration::from_secs(3)).await;
        assert_eq!(outcome.result, StepResult::Failed, "{}", outcome.detail);
        assert!(outcome.detail.contains("has no session to end"), "{}", outcome.detail);
        assert!(outcome.detail.contains("ROLLBACK PREPARED 'half done'"), "{}", outcome.detail);
        let found = finding(&outcome);
        assert!(found.holders[0].contains("prepared transaction \"half done\""), "{:?}", found.holders);
    }
    alone.cluster.execute("postgres", "rollback prepared 'half done'").await.expect("rolled back");
    let outcome = alone.act(&named(&["pages"], QUARANTINE, OnBlocked::Wait), Duration::from_secs(30)).await;
    assert!(outcome.is_success(), "{}", outcome.detail);
}

#[tokio::test]
async fn an_autovacuum_gives_way() {
    // It gives way after `deadlock_timeout`, which is longer than our own limit for a lock.
    for on_blocked in [OnBlocked::Wait, OnBlocked::Terminate] {
        let alone = Alone::new(
            "alter system set autovacuum_naptime = '1s'",
            "create table pages (id int, t text) with (autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 1, \
               autovacuum_vacuum_threshold = 0, autovacuum_vacuum_scale_factor = 0); \
             insert into pages select n, repeat('x', 500) from generate_series(1, 20000) n; delete from pages",
        )
        .await;

        alone
            .until(
                "select exists (select from pg_stat_activity a join pg_locks l using (pid) \
                 where a.backend_type = 'autovacuum worker' and l.relation = 'public.pages'::regclass and l.granted)",
            )
            .await;
        let outcome = alone.act(&named(&["pages"], QUARANTINE, on_blocked), Duration::from_secs(30)).await;
        assert!(outcome.is_success(), "{on_blocked:?}: {}", outcome.detail);
        let found = finding(&outcome);
        assert!(found.holders.iter().any(|one| one.starts_with("an autovacuum worker (pid ")), "{:?}", found.holders);
        assert!(found.attempts >= 2, "our own limit is over first: {found:?}");
    }
}

#[tokio::test]
async fn locks_on_many_tables_are_waited_for_no_longer_than_one_statement_may_take() {
    let mut alone = Alone::new("select 1", "create table pages (id int); create table texts (id int)").await;
    // Each lock alone comes in time; both together take longer than a statement may.
    alone.config.database.lock_timeout = Duration::from_secs(3);
    alone.config.database.statement_timeout = Duration::from_secs(4);
    let (mut one, mut two) = (alone.session().await, alone.session().await);
    let first = one.client_mut().transaction().await.expect("a transaction");
    first.batch_execute("lock table public.pages in access share mode").await.expect("a lock");
    let second = two.client_mut().transaction().await.expect("a transaction");
    second.batch_execute("lock table public.texts in access share mode").await.expect("a lock");
    let log = alone.cluster.directory().join("server.log");
    let removal = named(&["pages", "texts"], QUARANTINE, OnBlocked::Wait);
    let (outcome, ()) = tokio::join!(alone.act(&removal, Duration::from_secs(40)), async {
        let waits = |table: &str| {
            format!("select exists (select from pg_locks where relation = 'public.{table}'::regclass and not granted)")
        };
        alone.until(&waits("pages")).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        first.commit().await.expect("commits");
        alone.until(&waits("texts")).await;
        while !std::fs::read_to_string(&log).expect("a log").contains("due to statement timeout") {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        second.commit().await.expect("commits");
    });
    assert!(outcome.is_success(), "{}", outcome.detail);
    assert!(finding(&outcome).attempts >= 2);
}

#[tokio::test]
async fn a_server_that_goes_away_and_comes_back_is_waited_for() {
    let sql = "create table pages (id int); insert into pages values (1)";
    let Alone { mut cluster, config, pinned, _directory } = Alone::new("select 1", sql).await;
    let baseline = nothing_known();
    let started = "2026-11-22T02:00:00Z".parse().expect("a time");
    // It works while a lock is held, loses its server with the holder, and ends its work at the next one.
    let mut holder = Session::connect(&config.database).await.expect("connects");
    let transaction = holder.client_mut().transaction().await.expect("a transaction");
    transaction.batch_execute("lock table public.pages").await.expect("a lock");
    let removal = added(DROP);
    let work = act(&config, &pinned, &baseline, &removal, first("w", started), Duration::from_secs(60));
    let (outcome, ()) = tokio::join!(work, async {
        until(&config, WAITS).await;
        cluster.stop(Stop::Immediate).await.expect("stops");
        cluster.start_again().await.expect("starts");
    });
    assert!(outcome.is_success(), "{}", outcome.detail);
    assert!(finding(&outcome).archive.is_some());
    assert!(outcome.detail.contains("1 table (1 row)"), "{}", outcome.detail);
}
