use std::collections::BTreeMap;
use std::fmt::Write as _;

use rollbackd_core::baseline::Baseline;
use rollbackd_core::plan::{Dispose, OnBlocked, Reach, Removal, TableChoice};
use rollbackd_core::run::step::Finding;

use super::*;
use crate::config::model::Database;
use crate::postgres::catalog;
use crate::postgres::pinned::Pinned;
use crate::postgres::testing::Fixture;
use crate::rung::tables::{self, Turn};

pub(crate) const WINDOW: &str = "shop-20261122T020000Z";
pub(crate) const SCHEMA: &str = "rollbackd_20261122t020000z";
const DISPOSALS: [Dispose; 2] = [Dispose::Quarantine, Dispose::Drop { archive: true }];
const LONG: Duration = Duration::from_secs(60);

const ORIGINALS: &str = "
    create table profiles (id int primary key, name text);
    create table posts (id int primary key, author int references profiles, body text);
    create table comments (id int primary key, post int references posts);
    insert into profiles values (1, 'a'), (2, 'b');
    insert into posts values (1, 1, 'x'), (2, 2, 'y');
    insert into comments values (1, 1);
    create view recent as select id, body from posts;
    create schema auth; create table auth.users (id int primary key);
    do $$ begin create role undo_reader; exception when duplicate_object or unique_violation then end $$;
    do $$ begin create role undo_owner; exception when duplicate_object or unique_violation then end $$;";

/// A database with the originals, its baseline, and then the migration.
pub(crate) struct World {
    pub(crate) fixture: Fixture,
    pub(crate) config: Config,
    baseline: Baseline,
}

/// All that can be told of a database: every object's definition, every table's rows, every sequence's state.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Facts(BTreeMap<String, String>);

impl World {
    pub(crate) async fn new(before: &str, migration: &str) -> Self {
        let fixture = Fixture::new().await;
        fixture.sql(ORIGINALS).await;
        fixture.sql(before).await;
        let baseline = fixture.baseline().await;
        fixture.sql(migration).await;
        let config = fixture.config();
        Self { fixture, config, baseline }
    }

    pub(crate) async fn remove(&self, tables: TableChoice, dispose: Dispose, reach: Reach) {
        let removal = Removal { tables, dispose, on_blocked: OnBlocked::Wait, reach };
        let started = "2026-11-22T02:00:00Z".parse().expect("a time");
        let pinned = Pinned::new(&self.config.database);
        let mut turn = Turn { window: WINDOW, window_started: started, first: true };
        loop {
            let outcome = tables::act(&self.config, &pinned, &self.baseline, &removal, turn, LONG).await;
            assert!(outcome.is_success(), "{}", outcome.detail);
            turn.first = false;
            if !matches!(&outcome.finding, Finding::Removal(found) if found.more) {
                return;
            }
        }
    }

    async fn undo(&self) -> Undone {
        undo(&self.config, SCHEMA, LONG).await
    }

    /// Everything is back, and the quarantine is gone.
    pub(crate) async fn undone(&self) -> Undone {
        let undone = self.undo().await;
        assert_eq!(undone.ended, Ended::Undone, "{undone:#?}");
        undone
    }

    pub(crate) async fn facts(&self) -> Facts {
        Facts::of(&self.config.database).await
    }
}

impl Facts {
    /// What can be told of it now, quarantines aside.
    pub(crate) async fn of(database: &Database) -> Self {
        let session = Session::connect(database).await.expect("connects");
        let client = session.client();
        let catalog = catalog::read(client).await.expect("a catalog");
        let mut facts: BTreeMap<String, String> =
            catalog.objects.iter().map(|object| (object.id.to_string(), object.definition.clone())).collect();
        for table in catalog.tables() {
            let print = count::print(client, &table).await.expect("rows");
            facts.insert(format!("rows of {table}"), format!("{print:?}"));
        }
        let sql = "select format('state of %I.%I', schemaname, sequencename), coalesce(last_value, 0)::text from pg_sequences \
                   where schemaname !~ '^rollbackd'";
        for row in client.query(sql, &[]).await.expect("sequences") {
            facts.insert(row.get(0), row.get(1));
        }
        Self(facts)
    }

    /// What is not the same in `other`, and how: a line each.
    pub(crate) fn differing(&self, other: &Self) -> Vec<String> {
        let keys = self.0.keys().chain(other.0.keys()).collect::<BTreeSet<_>>();
        keys.into_iter()
            .filter(|key| self.0.get(*key) != other.0.get(*key))
            .map(|key| format!("{key}: {:?} / {:?}", self.0.get(key), other.0.get(key)))
            .collect()
    }

    /// What differs in `other`, for people.
    #[track_caller]
    pub(crate) fn assert_same(&self, other: &Self) {
        let differing = self.differing(other);
        assert!(differing.is_empty(), "{}", differing.join("\n"));
    }
}

/// Removes and undoes, both ways: afterwards all is as the migration had made it.
async fn comes_back(before: &str, migration: &str, reach: Reach) -> Vec<Undone> {
    let mut all = Vec::new();
    for dispose in DISPOSALS {
        let world = World::new(before, migration).await;
        let facts = world.facts().await;
        world.remove(TableChoice::Added, dispose, reach).await;
        assert_ne!(world.facts().await, facts, "something was removed");
        let undone = world.undone().await;
        world.facts().await.assert_same(&facts);
        assert!(undone.quarantine_dropped, "{dispose:?}: {undone:#?}");
        assert_eq!(world.undo().await.ended, Ended::Nothing, "and there is nothing left to undo");
        all.push(undone);
    }
    all
}

const TABLES: &str = r#"
    create schema app;
    create type mood as enum ('sad', 'it''s ok');
    create domain positive as int check (value > 0);
    create table items (id serial primary key, n int generated always as identity, m mood default 'sad', p positive unique,
        twice int generated always as (1 * 2) stored, owner int references profiles on delete cascade, check (n > 0));
    create table app.items (id bigint generated by default as identity primary key, t text not null default E'a\nb');
    create index on items (m) where m is not null; create index on app.items (lower(t));
    create statistics items_stats on m, p from items;
    insert into items (p, owner) values (1, 1), (2, 2); insert into app.items (t) select repeat(E'\\.\n\t"', i) from generate_series(1, 50) i;
    comment on table items is 'it''s new'; comment on column items.p is 'p';
    create table "a""b" (id int primary key); create table "🚀 user" (id int primary key, b int references "a""b" deferrable);
    alter table "a""b" add "select" int references "🚀 user";
    insert into "a""b" values (1, null); insert into "🚀 user" values (2, 1); update "a""b" set "select" = 2;
    create table log (at date not null, id int, primary key (id, at)) partition by range (at); create index on log (at);
    create table log_1 partition of log for values from ('2026-01-01') to ('2027-01-01'); insert into log values ('2026-05-05', 1);
    create table base (id int); create table child (more text) inherits (base); insert into child values (1, 'x');
    create unlogged table fast (id int); insert into fast values (1);
    alter table items enable row level security; alter table items force row level security;
    create policy own on items to undo_reader using (n > 0);
    grant select on items to undo_reader; grant update (p) on items to undo_reader; revoke all on "a""b" from undo_reader;
    alter table items owner to undo_owner;
    create function touch() returns trigger language plpgsql as 'begin return new; end';
    create trigger touched before update on items for each row execute function touch();
    alter table items disable trigger touched;
    create publication news for table items (id, m) where (id > 0), posts;"#;

#[tokio::test]
async fn tables_come_back_with_all_that_is_theirs() {
    for reach in [Reach::Attached, Reach::Everything] {
        let undone = comes_back("", TABLES, reach).await;
        assert!(undone[0].tables.iter().all(|table| table.archive.is_none()));
        assert!(undone[1].tables.iter().all(|table| table.archive.is_some()));
        for undone in undone {
            let rows: u64 = undone.tables.iter().filter_map(|table| table.rows).sum();
            assert_eq!((undone.tables.len(), rows), (9, 57), "{undone:#?}");
        }
    }
}

#[tokio::test]
async fn sequences_go_on_where_they_were() {
    for dispose in DISPOSALS {
        let world = World::new("", TABLES).await;
        world.remove(TableChoice::Added, dispose, Reach::Attached).await;
        world.undone().await;
        world.fixture.sql("insert into items (p) values (3); insert into app.items (t) values ('next')").await;
        assert_eq!(world.fixture.number("select max(id)::int8 from items").await, 3);
        assert_eq!(world.fixture.number("select max(n)::int8 from items").await, 3);
        assert_eq!(world.fixture.number("select max(id) from app.items").await, 51);
    }
}

const WEB: &str = "
    create table pages (id int primary key, title text);
    create function page_count() returns bigint begin atomic select count(*) from pages; end;
    revoke all on function page_count() from public; grant execute on function page_count() to undo_reader;
    create view titles as select title from pages; grant select on titles to undo_reader; comment on view titles is 'all';
    create materialized view counted as select count(*) from titles; create index on counted (count);
    create view over_all as select counted.count, recent.id from counted, recent;
    create domain page_id as int check (value < page_count());
    create type page_pair as (a pages, b int);
    create table kept (n int);
    create policy via_pages on posts using (exists (select from pages where pages.id = posts.id));
    create function touched() returns trigger language plpgsql as
        $$ begin insert into public.pages values (new.id + 1000); return new; end $$;
    create trigger counts before insert on posts for each row when (page_count() > 0) execute function touched();
    create rule r as on delete to posts do also delete from pages where id = old.id;
    insert into pages values (1, 'one'); refresh materialized view counted;";

#[tokio::test]
async fn what_hung_on_the_tables_comes_back() {
    for reach in [Reach::Attached, Reach::Everything] {
        comes_back("", WEB, reach).await;
    }
}

#[tokio::test]
async fn what_was_put_back_becomes_the_migrations_again() {
    for (before, migration) in [
        (
            "grant select on recent to public; comment on view recent is 'the newest'",
            "create table pages (id int, body text); create or replace view recent as select id, body from pages",
        ),
        (
            "create view titles as select body from recent; grant select on titles to public",
            "create table pages (id int, body text, more int);
             create or replace view recent as select id, body, more from pages",
        ),
        (
            "create policy own on posts using (true); create table counted (n int default 7)",
            "create table pages (id int); alter policy own on posts using (exists (select from pages));
             create function next_page() returns bigint begin atomic select count(*) from pages; end;
             alter table counted alter n set default next_page()",
        ),
        (
            "create function total() returns bigint return 1",
            "create table pages (id int);
             create or replace function total() returns bigint begin atomic select count(*) from pages; end",
        ),
        (
            "create function touch() returns trigger language plpgsql as 'begin return new; end';
             create trigger touched before insert on posts for each row execute function touch()",
            "create table pages (id int); create or replace function touch() returns trigger language plpgsql as
             $$ begin insert into pages values (new.id); return new; end $$",
        ),
    ] {
        comes_back(before, migration, Reach::Attached).await;
        comes_back(before, migration, Reach::Everything).await;
    }
}

#[tokio::test]
async fn what_was_made_again_goes_only_when_it_is_in_the_way() {
    // The migration's view has the name of a view that it renamed, and an index that it dropped comes and stays.
    let before = "create index by_body on posts (body); create view old as select 1 as one";
    let migration =
        "create table pages (id int, one int); drop index by_body; drop view old; alter table pages rename to old";
    for dispose in DISPOSALS {
        let world = World::new(before, migration).await;
        world.remove(TableChoice::Added, dispose, Reach::Everything).await;
        let undone = world.undone().await;
        assert_eq!(world.fixture.number("select count(*) from old").await, 0);
        assert_eq!(world.fixture.number("select count(*) from pg_tables where tablename = 'old'").await, 1);
        let words = "view public.old is gone again, as the migration had it";
        assert!(undone.left.iter().any(|one| one == words), "{undone:#?}");
        assert_eq!(undone.stays, ["index by_body of public.posts"], "{undone:#?}");
    }
}

const COLUMNS: &str = "
    alter table posts add stars int not null default 3, add serial serial, add always int generated always as identity,
        add twice int generated always as (id * 2) stored, add tag text;
    update posts set stars = id + 10, tag = case id when 1 then 'first' end;
    alter table posts add constraint starry check (stars > 0), add unique (serial);
    create index on posts (tag);
    create table tags (name text primary key); insert into tags values ('first');
    alter table posts add foreign key (tag) references tags;
    alter table events add extra int; update events set extra = 5;";
const EVENTS: &str = "
    create table events (at date, id int, primary key (at, id)) partition by range (at);
    create table events_1 partition of events for values from ('2026-01-01') to ('2027-01-01');
    insert into events values ('2026-05-05', 1);
    create table changes (n int);
    create function note() returns trigger language plpgsql as 'begin insert into public.changes values (1); return new; end';
    create trigger noted after update on posts for each row execute function note();";

#[tokio::test]
async fn columns_come_back_with_their_values() {
    let undone = comes_back(EVENTS, COLUMNS, Reach::Everything).await;
    for undone in undone {
        let filled = |words: &str| undone.columns.iter().any(|one| one.contains(words));
        assert!(filled("of public.posts: values of 2 rows filled"), "{:?}", undone.columns);
        assert!(filled("extra of public.events: values of 1 row filled"), "{:?}", undone.columns);
    }
}

#[tokio::test]
async fn rows_that_came_and_went_since_are_told() {
    for dispose in DISPOSALS {
        let world = World::new(EVENTS, COLUMNS).await;
        world.remove(TableChoice::Added, dispose, Reach::Everything).await;
        world.fixture.sql("delete from posts where id = 2; insert into posts values (7, 1, 'new')").await;
        let undone = world.undone().await;
        let words =
            "values of 1 row filled; 1 row written since have the default; those of 1 row that are gone stay in";
        assert!(undone.columns.iter().any(|one| one.contains(words)), "{:?}", undone.columns);
        assert!(!undone.quarantine_dropped, "values that found no row are kept");
        assert_eq!(world.fixture.number("select stars::int8 from posts where id = 1").await, 11);
        assert_eq!(world.fixture.number("select stars::int8 from posts where id = 7").await, 3);
        world.fixture.sql("insert into posts (id) values (8)").await;
        assert_eq!(world.fixture.number("select count(distinct always) from posts").await, 3);
    }
}

#[tokio::test]
async fn without_a_key_nobody_knows_whose_a_value_was() {
    let world = World::new(
        "create table notes (t text); insert into notes values ('x')",
        "alter table notes add n int; update notes set n = 7",
    )
    .await;
    world.remove(TableChoice::Added, Dispose::Quarantine, Reach::Everything).await;
    let undone = world.undone().await;
    assert!(undone.columns[0].contains("no key says which row each belongs to"), "{:?}", undone.columns);
    assert_eq!(world.fixture.number("select count(*) from notes where n is null").await, 1);
    assert_eq!(world.fixture.number(&format!("select n::int8 from {SCHEMA}.columns_1")).await, 7);
}

#[tokio::test]
async fn nothing_that_came_since_is_overwritten() {
    for (since, named) in [
        ("create table pages (id int)", "there is another public.pages now"),
        ("create view titles as select 1 as one", "titles"),
        ("create index counted on posts (id)", "there is another public.counted now"),
        ("create policy via_pages on posts using (true)", "policy via_pages of public.posts was made anew since"),
        ("create function page_count() returns int return 1", "function public.page_count() was made anew since"),
    ] {
        for dispose in DISPOSALS {
            let world = World::new("", WEB).await;
            world.remove(TableChoice::Added, dispose, Reach::Attached).await;
            world.fixture.sql(since).await;
            let before = world.facts().await;
            let undone = world.undo().await;
            assert_eq!(undone.ended, Ended::Stopped, "{since}: {undone:#?}");
            assert!(undone.reasons.iter().any(|reason| reason.contains(named)), "{named}: {:?}", undone.reasons);
            assert_eq!(undone.summary(), "nothing was changed");
            world.facts().await.assert_same(&before);
        }
    }
}

#[tokio::test]
async fn what_was_redefined_since_is_left_alone() {
    let migration =
        "create table pages (id int, body text); create or replace view recent as select id, body from pages";
    let world = World::new("", migration).await;
    world.remove(TableChoice::Added, Dispose::Quarantine, Reach::Attached).await;
    world.fixture.sql("create or replace view recent as select id, body from posts where id > 1").await;
    let undone = world.undo().await;
    assert_eq!(
        (undone.ended, undone.reasons),
        (Ended::Stopped, vec!["view public.recent was changed since".to_owned()])
    );
}

#[tokio::test]
async fn a_lock_that_is_held_is_waited_for_and_its_holder_named() {
    let world = World::new("", WEB).await;
    world.remove(TableChoice::Added, Dispose::Quarantine, Reach::Attached).await;
    let facts = world.facts().await;
    let mut holder = world.fixture.session().await;
    let transaction = holder.client_mut().transaction().await.expect("a transaction");
    transaction.batch_execute("lock table posts in access share mode").await.expect("a lock");
    let undone = undo(&world.config, SCHEMA, Duration::from_secs(5)).await;
    assert_eq!(undone.ended, Ended::Failed, "{undone:#?}");
    assert!(undone.reasons[0].contains("locks were held by"), "{undone:#?}");
    world.facts().await.assert_same(&facts);
    transaction.commit().await.expect("commits");
    world.undone().await;
}

#[tokio::test]
async fn more_tables_than_a_transaction_takes_come_back() {
    for dispose in DISPOSALS {
        let mut migration = "create table t0 (id int primary key);".to_owned();
        for number in 1..250 {
            let parent = number / 10 * 10;
            let reference = if number % 10 == 0 { String::new() } else { format!(" references t{parent}") };
            write!(migration, "create table t{number} (id int primary key{reference});").expect("a string");
        }
        let world = World::new("", &migration).await;
        let facts = world.facts().await;
        world.remove(TableChoice::Added, dispose, Reach::Attached).await;
        let undone = world.undone().await;
        assert_eq!(undone.tables.len(), 250);
        world.facts().await.assert_same(&facts);
    }
}

#[tokio::test]
async fn two_removals_of_one_name_are_undone_as_far_as_it_goes() {
    let world = World::new("", "create table items (id serial primary key); insert into items values (1)").await;
    world.remove(TableChoice::Added, Dispose::Quarantine, Reach::Attached).await;
    world.fixture.sql("create table items (id serial primary key)").await;
    world.remove(TableChoice::Added, Dispose::Quarantine, Reach::Attached).await;
    let undone = world.undo().await;
    assert_eq!(undone.ended, Ended::Stopped);
    assert_eq!(undone.reasons, ["there is another public.items now"]);
    assert_eq!(undone.summary(), "brought back 1 table (0 rows), and not the rest");
    world.fixture.sql("drop table items").await;
    assert_eq!(world.undone().await.tables[0].rows, Some(1));
}

#[tokio::test]
async fn what_was_dropped_without_a_copy_is_said_to_be_lost() {
    let world = World::new("", "create table pages (id int)").await;
    world.remove(TableChoice::Added, Dispose::Drop { archive: false }, Reach::Attached).await;
    let undone = world.undo().await;
    assert_eq!(undone.reasons, ["public.pages was dropped without an archive, and cannot come back"]);
}

#[tokio::test]
async fn a_name_that_somebody_took_since_is_not_taken_from_them() {
    let world = World::new("", "alter table posts rename to articles").await;
    let facts = world.facts().await;
    world.remove(TableChoice::Added, Dispose::Quarantine, Reach::Everything).await;
    world.fixture.sql("create table articles (id int)").await;
    let undone = world.undo().await;
    assert_eq!((undone.ended, undone.summary()), (Ended::Stopped, "nothing was changed".to_owned()), "{undone:#?}");
    assert!(undone.reasons.iter().any(|reason| reason == "there is another table public.articles now"), "{undone:#?}");
    world.fixture.sql("drop table articles").await;
    // What names it is told as well.
    assert_eq!(world.undone().await.objects[0], "table public.articles");
    world.facts().await.assert_same(&facts);
}
