use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;

use rollbackd_core::plan::{Reach, TableChoice};
use rollbackd_core::run::step::StepResult;

mod reverse;

use super::*;
use crate::demo::cluster::{Cluster, Stop};
use crate::postgres::catalog;
use crate::postgres::testing::Fixture;

const ORIGINALS: &str = "
    create table profiles (id int primary key, name text);
    create table posts (id int primary key, author int references profiles, body text);
    create table comments (id int primary key, post int references posts);
    insert into profiles values (1, 'a'), (2, 'b');
    insert into posts values (1, 1, 'x');
    insert into comments values (1, 1);
    create view recent as select id, body from posts;
    create schema auth; create table auth.users (id int primary key);";

fn named(names: &[&str], dispose: Dispose, on_blocked: OnBlocked) -> Removal {
    Removal {
        tables: TableChoice::Named(names.iter().map(|name| (*name).to_owned()).collect()),
        dispose,
        on_blocked,
        reach: Reach::Attached,
    }
}

fn added(dispose: Dispose) -> Removal {
    Removal { tables: TableChoice::Added, dispose, on_blocked: OnBlocked::Wait, reach: Reach::Attached }
}

fn first(window: &str, window_started: Timestamp) -> Turn<'_> {
    Turn { window, window_started, first: true }
}

const QUARANTINE: Dispose = Dispose::Quarantine;
const DROP: Dispose = Dispose::Drop { archive: true };
const SCHEMA: &str = "rollbackd_20261122t020000z";

/// A database with the originals, its baseline, and then the migration.
struct World {
    fixture: Fixture,
    config: Config,
    pinned: Pinned,
    baseline: Arc<Baseline>,
}

impl World {
    async fn new(before: &str, migration: &str) -> Self {
        let fixture = Fixture::new().await;
        fixture.sql(ORIGINALS).await;
        fixture.sql(before).await;
        let baseline = Arc::new(fixture.baseline().await);
        fixture.sql(migration).await;
        let config = fixture.config();
        let pinned = Pinned::new(&config.database);
        Self { fixture, config, pinned, baseline }
    }

    async fn act(&self, removal: &Removal, within: Duration) -> Outcome {
        self.act_on(removal, true, within).await
    }

    async fn act_on(&self, removal: &Removal, first: bool, within: Duration) -> Outcome {
        let started = "2026-11-22T02:00:00Z".parse().expect("a time");
        let turn = Turn { window: "shop-20261122T020000Z", window_started: started, first };
        act(&self.config, &self.pinned, &self.baseline, removal, turn, within).await
    }

    /// Removes group after group, as the ladder does.
    async fn removed(&self, removal: &Removal) -> (Outcome, RemovalFinding) {
        let mut found: Option<RemovalFinding> = None;
        loop {
            let outcome = self.act_on(removal, found.is_none(), Duration::from_secs(60)).await;
            assert!(outcome.is_success(), "{}", outcome.detail);
            let next = finding(&outcome);
            match &mut found {
                Some(found) => found.join(&next),
                None => found = Some(next),
            }
            if let Some(found) = found.take_if(|found| !found.more) {
                self.originals_are_whole().await;
                return (outcome, found);
            }
        }
    }

    /// The rung stops, and nothing at all was changed.
    async fn stops(&self, removal: &Removal, survivor: &str) -> RemovalFinding {
        let before = self.catalog().await;
        let outcome = self.act(removal, Duration::from_secs(30)).await;
        assert_eq!(outcome.result, StepResult::Failed, "{}", outcome.detail);
        let found = finding(&outcome);
        assert!(found.survivors.iter().any(|one| one.contains(survivor)), "{:?}", found.survivors);
        assert!(outcome.detail.contains("nothing was changed"), "{}", outcome.detail);
        assert_eq!(self.catalog().await, before);
        found
    }

    async fn catalog(&self) -> rollbackd_core::baseline::Catalog {
        let session = Session::connect(&self.config.database).await.expect("connects");
        catalog::read(session.client()).await.expect("a catalog")
    }

    async fn originals_are_whole(&self) {
        let difference = self.baseline.catalog.difference(&self.catalog().await, &[]);
        assert!(difference.removed.is_empty() && difference.changed.is_empty(), "{}", difference.summary());
        let now = self.fixture.baseline().await;
        assert_eq!(now.counts, self.baseline.counts);
    }

    async fn difference(&self) -> String {
        self.baseline.catalog.difference(&self.catalog().await, &[]).summary()
    }
}

fn finding(outcome: &Outcome) -> RemovalFinding {
    let Finding::Removal(found) = &outcome.finding else { panic!("{}", outcome.detail) };
    found.clone()
}

const CLEAN: &str = "nothing differs from the baseline";

#[test]
fn numbers_are_grouped() {
    assert_eq!([0, 12, 1204, 1_000_000].map(thousands), ["0", "12", "1,204", "1,000,000"]);
}

#[tokio::test]
async fn names_of_every_kind_are_moved_and_dropped() {
    let names = ["Order", "a\"b", "🚀 launch", "user", "with.dot", "semi;colon", "per%cent*?"];
    for dispose in [QUARANTINE, DROP] {
        let mut migration = String::new();
        for name in names {
            let table = rollbackd_core::baseline::quote_identifier(name);
            write!(
                migration,
                "create table {table} (id serial primary key, \"t\" text default E'line\\nbreak'); insert into {table} default values;"
            )
            .expect("a string");
        }
        let world = World::new("", &migration).await;
        let (outcome, found) = world.removed(&added(dispose)).await;
        assert_eq!(found.tables.len(), names.len());
        assert!(found.tables.iter().all(|table| table.rows == Some(1)), "{:?}", found.tables);
        assert!(outcome.detail.contains("7 tables (7 rows)"), "{}", outcome.detail);
        assert_eq!(world.difference().await, CLEAN);
        let (again, _) = world.removed(&added(dispose)).await;
        assert_eq!(again.detail, "nothing left to remove");
    }
}

#[tokio::test]
async fn the_quarantine_is_closed_to_others_and_keeps_foreign_keys_working() {
    let role = "quarantine_reader";
    let world = World::new(
        "",
        "create role quarantine_owner; create role quarantine_reader;
         create table pages (id int primary key, author int references profiles on delete cascade);
         insert into pages values (1, 2); alter table pages owner to quarantine_owner;
         grant all on pages to public, quarantine_reader;
         alter default privileges grant all on schemas to public, quarantine_reader;
         create index on pages (author);",
    )
    .await;
    let (outcome, found) = world.removed(&named(&["pages", "never_was"], QUARANTINE, OnBlocked::Wait)).await;
    assert_eq!(found.quarantine.as_deref(), Some(SCHEMA));
    assert!(outcome.detail.starts_with(&format!("moved 1 table (1 row) to schema {SCHEMA}")), "{}", outcome.detail);
    assert!(outcome.detail.contains("foreign key"), "{}", outcome.detail);
    let usage = format!("select has_schema_privilege('{role}', '{SCHEMA}', 'usage')::int::int8");
    assert_eq!(world.fixture.number(&usage).await, 0);
    // The server checks the key in the name of the table's owner.
    world.fixture.sql("delete from profiles where id = 2").await;
    assert_eq!(world.fixture.number(&format!("select count(*) from {SCHEMA}.pages")).await, 0);
}

#[tokio::test]
async fn circles_partitions_and_children_go_together() {
    for dispose in [QUARANTINE, DROP] {
        let world = World::new(
            "",
            "create table a (id int primary key); create table b (id int primary key, a int references a);
             alter table a add b int references b deferrable;
             create table log (at date) partition by range (at);
             create table log_1 partition of log for values from ('2026-01-01') to ('2027-01-01');
             insert into log values ('2026-05-05');
             create table base (id int); create table child () inherits (base);
             create table also (a int references a);",
        )
        .await;
        let (_, found) = world.removed(&named(&["a", "log", "base"], dispose, OnBlocked::Wait)).await;
        let names: Vec<&str> = found.tables.iter().map(|table| table.table.name.as_str()).collect();
        assert_eq!(names, ["a", "also", "b", "base", "child", "log", "log_1"]);
        assert_eq!(found.tables.iter().filter_map(|table| table.rows).sum::<u64>(), 1);
        assert_eq!(world.difference().await, CLEAN);
    }
}

const WEB: &str = "
    create table pages (id int primary key, title text);
    create function page_count() returns bigint begin atomic select count(*) from pages; end;
    create view titles as select title from pages;
    create materialized view counted as select count(*) from titles;
    create view over_all as select * from counted, recent;
    create domain page_id as int check (value < page_count());
    create type page_pair as (a pages, b int);
    alter table posts add page int references pages;
    create policy via_pages on posts using (exists (select from pages where pages.id = posts.page));
    create function touched() returns trigger language plpgsql as 'begin return new; end';
    create trigger counts before insert on posts for each row when (page_count() > 0) execute function touched();
    create index by_count on posts (id) where page is not null;
    insert into pages values (1, 'one');";

#[tokio::test]
async fn what_the_migration_hung_on_its_tables_goes_along() {
    for dispose in [QUARANTINE, DROP] {
        let world = World::new("", WEB).await;
        let (outcome, found) = world.removed(&named(&["pages"], dispose, OnBlocked::Wait)).await;
        for part in [
            "titles",
            "counted",
            "over_all",
            "page_count",
            "page_pair",
            "page_id",
            "via_pages",
            "trigger counts",
            "posts_page_fkey",
        ] {
            assert!(found.collateral.iter().any(|one| one.contains(part)), "{part}: {:?}", found.collateral);
            assert!(outcome.detail.contains(part), "{part}: {}", outcome.detail);
        }
        // The column, its index and the trigger's function do not depend on the table.
        assert_eq!(world.difference().await, "1 column added, 1 index added");
        if dispose == QUARANTINE {
            assert_eq!(world.fixture.number(&format!("select {SCHEMA}.page_count()")).await, 1);
        } else {
            let archive = found.archive.expect("an archive");
            let kept = std::fs::read_to_string(format!("{archive}/collateral.json")).expect("definitions");
            assert!(kept.contains("via_pages") && kept.contains("page_count"), "{kept}");
        }
    }
}

#[tokio::test]
async fn what_is_from_before_stops_the_rung() {
    for (before, migration, survivor) in [
        (
            "create sequence numbers; create table other (n int default nextval('numbers'))",
            "create table pages (id int); alter sequence numbers owned by pages.id",
            "",
        ),
        ("", "create table pages (id int); alter table posts add page pages", "column page"),
        ("", "create table pages () inherits (posts)", "part of public.posts"),
        ("", "alter table profiles rename to pages; create table profiles ()", "under another name"),
        (
            "create domain small as int; create table sized (n small)",
            "create table pages (id int); create function f() returns bigint begin atomic select count(*) from pages; end;
             alter domain small add constraint c check (value < f())",
            "small",
        ),
        ("", "create table pages (id int); create table auth.log (p pages)", "auth.log"),
        ("", "create table pages (id int); alter table posts inherit pages; ", "posts"),
    ] {
        // Inheriting needs the parent's columns only.
        let world = World::new(before, migration).await;
        for dispose in [QUARANTINE, DROP] {
            if survivor.is_empty() {
                continue;
            }
            world.stops(&named(&["pages"], dispose, OnBlocked::Wait), survivor).await;
            if !migration.contains("auth.log") {
                world.stops(&added(dispose), survivor).await;
            }
        }
    }
}

#[tokio::test]
async fn what_was_only_redefined_is_put_back_with_the_tables() {
    for (before, migration, words) in [
        (
            "grant select on recent to public; comment on view recent is 'the newest'",
            "create table pages (id int, body text); create or replace view recent as select id, body from pages",
            "put back view public.recent",
        ),
        (
            "create view titles as select body from recent; grant select on titles to public",
            "create table pages (id int, body text, more int);
             create or replace view recent as select id, body, more from pages",
            "put back view public.recent",
        ),
        (
            "create policy own on posts using (true)",
            "create table pages (id int); alter policy own on posts using (exists (select from pages))",
            "put back policy own of public.posts",
        ),
        (
            "create function total() returns bigint return 1",
            "create table pages (id int); create or replace function total() returns bigint begin atomic select count(*) from pages; end",
            "put back function public.total()",
        ),
        (
            "create table counted (n int default 7)",
            "create table pages (id int); create function next_page() returns bigint begin atomic select count(*) from pages; end;
             alter table counted alter n set default next_page()",
            "put back default n of public.counted",
        ),
        (
            "create function touch() returns trigger language plpgsql as 'begin return new; end';
             create trigger touched before insert on posts for each row execute function touch()",
            "create table pages (id int); create or replace function touch() returns trigger language plpgsql as
             $$ begin insert into pages values (new.id); return new; end $$",
            "put back function public.touch()",
        ),
        (
            "",
            "create table pages (id int); create function log_page() returns trigger language plpgsql as
             $$ begin insert into public.pages values (new.id); return new; end $$;
             create trigger logged after insert on posts for each row execute function log_page()",
            "take away trigger logged of public.posts",
        ),
        (
            "alter table posts enable row level security; create policy all_of_it on posts using (true)",
            "create table pages (id int);
             create policy restricted on posts as restrictive using (exists (select from pages))",
            "",
        ),
        ("", "create table pages (id int); create rule r as on delete to posts do also delete from pages", ""),
    ] {
        for dispose in [QUARANTINE, DROP] {
            let world = World::new(before, migration).await;
            let (outcome, found) = world.removed(&named(&["pages"], dispose, OnBlocked::Wait)).await;
            assert_eq!(world.difference().await, CLEAN, "{migration}: {}", outcome.detail);
            assert!(words.is_empty() || found.put_back.iter().any(|one| one == words), "{words}: {:?}", found.put_back);
            world.fixture.sql("insert into posts values (99, 1, 'still takes rows')").await;
        }
    }
}

#[tokio::test]
async fn a_key_of_a_partitioned_original_is_dropped_once() {
    for dispose in [QUARANTINE, DROP] {
        let world = World::new(
            "create table events (at date, page int) partition by range (at);
             create table events_1 partition of events for values from ('2026-01-01') to ('2027-01-01')",
            "create table pages (id int primary key) partition by range (id);
             create table pages_1 partition of pages for values from (0) to (100);
             alter table events add foreign key (page) references pages",
        )
        .await;
        let (_, found) = world.removed(&named(&["pages"], dispose, OnBlocked::Wait)).await;
        assert_eq!(found.tables.len(), 2);
        assert_eq!(found.collateral.len(), 1, "{:?}", found.collateral);
        assert_eq!(world.difference().await, CLEAN);
    }
}

#[tokio::test]
async fn rows_that_arrive_while_it_is_archived_are_archived_too() {
    let world =
        World::new("", "create table pages (id int, n int); insert into pages select generate_series(1, 5), 0").await;
    // Its transaction began before the archive and commits after it: the lock waits for it, the archive does not see it.
    let mut writer = world.fixture.session().await;
    let transaction = writer.client_mut().transaction().await.expect("a transaction");
    transaction.batch_execute("update pages set n = 1 where id = 1").await.expect("an update");
    let removal = named(&["pages"], DROP, OnBlocked::Wait);
    let archives = world.config.state_dir.join("archives/shop-20261122T020000Z");
    let (outcome, ()) = tokio::join!(world.act(&removal, Duration::from_secs(30)), async {
        while !archives.join("tables-1/tables.json").exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        transaction.commit().await.expect("commits");
    });
    assert!(outcome.is_success(), "{}", outcome.detail);
    let archive = finding(&outcome).archive.expect("an archive");
    let mut changed = 0;
    let mut line = |line: &[u8]| changed += usize::from(line == b"1\t1");
    let arguments = ["--data-only", "--file=-", &format!("{archive}/tables.dump")].map(str::to_owned);
    let programs = crate::postgres::programs::find(15).await.expect("programs");
    crate::postgres::programs::run(&programs.restore, &arguments, None, Duration::from_secs(20), Some(&mut line))
        .await
        .expect("reads");
    assert_eq!(changed, 1, "the archive has the row as it was at the end");
    assert_eq!(std::fs::read_dir(&archives).expect("archives").count(), 1, "and the overtaken archive is gone");
}

#[tokio::test]
async fn originals_and_protected_tables_are_refused_by_name() {
    let world = World::new("create table known ()", "create table auth.fresh (); create table pages ()").await;
    for name in ["posts", "known", "auth.users", "auth.fresh", "a.b.c"] {
        world.stops(&named(&["pages", name], QUARANTINE, OnBlocked::Wait), name.trim_start_matches("auth.")).await;
    }
    let (_, found) = world.removed(&added(QUARANTINE)).await;
    assert_eq!(found.tables.len(), 1);
}

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
        tokio::time::sleep(Duration::from_millis(300)).await;
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
        let baseline = Baseline {
            format: Baseline::FORMAT,
            at: Timestamp::UNIX_EPOCH,
            server_version: String::new(),
            catalog: rollbackd_core::baseline::Catalog::default(),
            counts: Vec::new(),
            identities: Vec::new(),
            prints: Vec::new(),
        };
        let started = "2026-11-22T02:00:00Z".parse().expect("a time");
        act(&self.config, &self.pinned, &baseline, removal, first("w", started), within).await
    }

    async fn session(&self) -> Session {
        let database = &self.config.database;
        let limit = Duration::from_secs(60);
        Session::connect_to(&database.url, &database.tls, limit, limit).await.expect("connects")
    }

    /// Looks until a query gives true.
    async fn until(&self, query: &str) {
        let session = self.session().await;
        let looks = async {
            while !session.client().query_one(query, &[]).await.expect("an answer").get::<_, bool>(0) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), looks).await.unwrap_or_else(|_elapsed| panic!("never: {query}"));
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
async fn rows_come_back_from_the_archive() {
    let world = World::new(
        "",
        "create table \"Odd \"\"name\" (id serial, t text, j json);
         insert into \"Odd \"\"name\" (t, j) select repeat(E'\\\\.\\n\\t', i), '{\"a\": null}' from generate_series(1, 50) i;",
    )
    .await;
    let sum = "select sum(length(t))::int8 from \"Odd \"\"name\"";
    let before = world.fixture.number(sum).await;
    let (outcome, found) = world.removed(&added(DROP)).await;
    assert!(outcome.detail.contains("dropped 1 table (50 rows), archived in"), "{}", outcome.detail);
    let archive = found.archive.expect("an archive");
    let mode = std::fs::metadata(&archive).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    let programs = crate::postgres::programs::find(15).await.expect("programs");
    let access = crate::postgres::programs::Access::new(&world.config.database).expect("access");
    let arguments =
        ["--exit-on-error", "--single-transaction", "--dbname=", &format!("{archive}/tables.dump")].map(str::to_owned);
    crate::postgres::programs::run(&programs.restore, &arguments, Some(&access), Duration::from_secs(20), None)
        .await
        .expect("restores");
    assert_eq!(world.fixture.number(sum).await, before);
}

#[tokio::test]
async fn tables_of_the_same_name_find_room_in_the_quarantine() {
    let world = World::new(
        "create schema app",
        "create table items (id serial primary key); create table app.items (id serial primary key)",
    )
    .await;
    let (outcome, found) = world.removed(&added(QUARANTINE)).await;
    assert_eq!(found.tables.len(), 2);
    assert!(outcome.detail.contains("items_rollbackd_2"), "{}", outcome.detail);
    // The same window again, as when the migration ran on after an earlier rung.
    world.fixture.sql("create table items (id serial primary key)").await;
    world.removed(&added(QUARANTINE)).await;
    let count =
        format!("select count(*) from pg_tables where schemaname = '{SCHEMA}' and tablename <> 'rollbackd_undo'");
    assert_eq!(world.fixture.number(&count).await, 3);
}

#[tokio::test]
async fn more_tables_than_a_transaction_takes() {
    for dispose in [QUARANTINE, DROP] {
        let mut migration = "create table t0 (id int primary key);".to_owned();
        for number in 1..450 {
            let parent = number / 10 * 10;
            let reference = if number % 10 == 0 { String::new() } else { format!(" references t{parent}") };
            write!(migration, "create table t{number} (id int primary key{reference});").expect("a string");
        }
        let world = World::new("", &migration).await;
        let (_, found) = world.removed(&added(dispose)).await;
        assert_eq!(found.tables.len(), 450);
        assert_eq!(found.attempts, 4, "three transactions, and one that finds nothing left");
        assert_eq!(world.difference().await, CLEAN);
    }
}

#[tokio::test]
async fn ten_thousand_tables_go_with_the_servers_default_settings() {
    let mut migration = String::new();
    for number in 0..10_000 {
        write!(migration, "create table n{number} (id int);").expect("a string");
        if number % 500 == 499 {
            migration.push_str("commit; begin;");
        }
    }
    let world = World::new("", &format!("begin; {migration} commit")).await;
    let (_, found) = world.removed(&added(QUARANTINE)).await;
    assert_eq!(found.tables.len(), 10_000);
    assert_eq!(world.difference().await, CLEAN);
}

#[tokio::test]
async fn a_server_that_refuses_us_is_reported_without_secrets() {
    let world = World::new("", "").await;
    let mut config = world.config.clone();
    config.database = crate::postgres::testing::database(&world.fixture.cluster.url_as("postgres", "sesame", "x"));
    let started = "2026-11-22T02:00:00Z".parse().expect("a time");
    let pinned = Pinned::new(&config.database);
    let outcome =
        act(&config, &pinned, &world.baseline, &added(DROP), first("w", started), Duration::from_secs(20)).await;
    assert_eq!(outcome.result, StepResult::Failed);
    assert!(!outcome.detail.contains("sesame"), "{}", outcome.detail);
}

#[tokio::test]
async fn a_role_without_powers_works_with_what_it_owns() {
    for dispose in [QUARANTINE, DROP] {
        let mut world = World::new(
            "do $$ begin create role no_powers login password 'sesame'; exception when duplicate_object then end $$;
             do $$ begin execute format('grant create on database %I to no_powers', current_database()); end $$;
             grant all on schema public to no_powers; grant all on all tables in schema public to no_powers",
            "set role no_powers; create table pages (id int primary key); create view titles as select id from pages",
        )
        .await;
        let url = world.fixture.cluster.url_as("no_powers", "sesame", &world.fixture.name);
        world.config.database = crate::postgres::testing::database(&url);
        world.pinned = Pinned::new(&world.config.database);
        let mut holder = world.fixture.session().await;
        let transaction = holder.client_mut().transaction().await.expect("a transaction");
        transaction.batch_execute("lock table pages in access share mode").await.expect("a lock");
        // The holder is a superuser, whom this role may not end.
        let removal = named(&["pages"], dispose, OnBlocked::Terminate);
        let outcome = world.act(&removal, Duration::from_secs(5)).await;
        assert_eq!(outcome.result, StepResult::Failed, "{}", outcome.detail);
        let blockers = &finding(&outcome).blockers;
        assert!(blockers.iter().any(|one| one.starts_with("ending ") && one.contains("42501")), "{blockers:?}");
        transaction.commit().await.expect("still there");
        let (_, found) = world.removed(&removal).await;
        assert_eq!(found.collateral, ["view public.titles"]);
        assert_eq!(world.difference().await, CLEAN);
    }
}

#[tokio::test]
async fn a_server_that_goes_away_and_comes_back_is_waited_for() {
    let directory = crate::postgres::testing::own_directory();
    let mut cluster = Cluster::start(&directory.path().join("c")).await.expect("a server");
    cluster.execute("postgres", "create table pages (id int); insert into pages values (1)").await.expect("a table");
    let database = crate::postgres::testing::database(&cluster.url("postgres"));
    let config = crate::postgres::testing::config(database, directory.path().to_owned());
    let baseline = Baseline {
        format: Baseline::FORMAT,
        at: Timestamp::UNIX_EPOCH,
        server_version: String::new(),
        catalog: rollbackd_core::baseline::Catalog::default(),
        counts: Vec::new(),
        identities: Vec::new(),
        prints: Vec::new(),
    };
    let started = "2026-11-22T02:00:00Z".parse().expect("a time");
    // It works while a lock is held, loses its server with the holder, and ends its work at the next one.
    let mut holder = Session::connect(&config.database).await.expect("connects");
    let transaction = holder.client_mut().transaction().await.expect("a transaction");
    transaction.batch_execute("lock table public.pages").await.expect("a lock");
    let removal = added(DROP);
    let pinned = Pinned::new(&config.database);
    let work = act(&config, &pinned, &baseline, &removal, first("w", started), Duration::from_secs(60));
    let (outcome, ()) = tokio::join!(work, async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        cluster.stop(Stop::Immediate).await.expect("stops");
        cluster.start_again().await.expect("starts");
    });
    assert!(outcome.is_success(), "{}", outcome.detail);
    assert!(finding(&outcome).archive.is_some());
    assert!(outcome.detail.contains("1 table (1 row)"), "{}", outcome.detail);
}
