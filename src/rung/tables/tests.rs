//! What goes, what goes along and what stops it are here; locks, scale and the rung `reverse` have files of their own.

use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;

use rollbackd_core::plan::{Reach, TableChoice};
use rollbackd_core::run::step::StepResult;

mod locks;
mod reverse;
mod scale;

use super::*;
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

#[tokio::test]
async fn tables_that_stand_on_each_other_through_something_else_go_one_after_the_other() {
    for dispose in [QUARANTINE, DROP] {
        let world = World::new(
            "",
            "create table a_first (id int primary key);
             create type pair as (one a_first, two int); create table b_pairs (id int primary key, p pair);
             create function newest() returns int begin atomic select max(id) from a_first; end;
             create table c_defaults (id int default newest());
             create domain firsts as a_first; create table d_domains (f firsts);
             insert into c_defaults default values",
        )
        .await;
        let (_, found) = world.removed(&added(dispose)).await;
        assert_eq!(found.tables.len(), 4, "{found:#?}");
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
