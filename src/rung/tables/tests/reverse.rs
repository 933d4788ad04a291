//! The rung `reverse`, against migrations as people write them: afterwards `pg_dump --schema-only` says what it said
//! before, and every row of the original tables is as it was.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::postgres::programs::{self, Access};
use crate::undo::tests::Facts;
use crate::undo::{self, undo};

const RICH: &str = "
    create table items (id bigint generated always as identity primary key, name text not null default 'x', price numeric(10, 2),
      unique (name), check (price >= 0));
    create index items_price on items (price) where price > 0;
    create type mood as enum ('sad', 'ok');
    create domain positive as int check (value > 0);
    create table \"Odd \"\"Table 🚀\" (\"select\" int primary key, m mood, p positive);
    create sequence tickets start 100;
    create function touch() returns trigger language plpgsql as 'begin return new; end';
    create trigger touched before update on items for each row execute function touch();
    create function item_count() returns bigint language sql as 'select count(*) from public.items';
    create view cheap as select id, name from items where price < 10;
    create view cheaper as select id from cheap;
    create materialized view totals as select count(*) as n from items; create index on totals (n);
    alter table items enable row level security; create policy readers on items for select using (price is not null);
    do $$ begin create role reverse_anon; exception when duplicate_object then end $$;
    grant select on items, cheap to reverse_anon; grant execute on function item_count() to reverse_anon;
    create publication shop for table items;
    create rule no_delete as on delete to \"Odd \"\"Table 🚀\" do instead nothing;
    create statistics items_stats on name, price from items;
    comment on column items.price is 'in euros';
    create schema app; create table app.settings (key text primary key, value jsonb);
    insert into items (name, price) select 'n' || i, i from generate_series(1, 20) i;
    insert into app.settings values ('a', '{}');";

impl World {
    fn everything(dispose: Dispose) -> Removal {
        Removal { tables: TableChoice::Added, dispose, on_blocked: OnBlocked::Wait, reach: Reach::Everything }
    }

    async fn dump(&self) -> String {
        let programs = programs::find(15).await.expect("programs");
        let access = Access::new(&self.config.database).expect("access");
        let arguments = ["--schema-only", "--no-password", "--exclude-schema=rollbackd_*"].map(str::to_owned);
        let mut text = String::new();
        let mut line = |line: &[u8]| {
            let line = String::from_utf8_lossy(line);
            // Psql's own guard is another one each time.
            if !line.starts_with("\\restrict") && !line.starts_with("\\unrestrict") {
                text.push_str(&line);
                text.push('\n');
            }
        };
        programs::run(&programs.dump, &arguments, Some(&access), Duration::from_secs(60), Some(&mut line))
            .await
            .expect("dumps");
        text
    }
}

/// Makes the rich schema, lets the migration at it, takes it back both ways, and undoes that both times: then all is as the
/// migration had made it. One thing legitimately differs: what the migration had taken away and the rollback made again
/// stays, because undo brings back and takes nothing away. `again` is those of the migration's statements that took it
/// away; after them nothing differs at all.
async fn reversed(before: &str, migration: &str, again: &str) {
    for dispose in [QUARANTINE, DROP] {
        let mut world = World::new(&format!("{RICH} {before}"), "").await;
        let dump = world.dump().await;
        world.baseline = Arc::new(world.fixture.baseline().await);
        // Its temporary tables live as long as its session.
        let migrator = world.fixture.session().await;
        migrator.client().batch_execute(migration).await.expect("migrates");
        let (migrated, facts) = (world.dump().await, Facts::of(&world.config.database).await);
        assert_ne!(migrated, dump, "the migration did something: {migration}");
        let removal = World::everything(dispose);
        let outcome = world.act(&removal, Duration::from_secs(60)).await;
        assert!(outcome.is_success(), "{migration}\n{}", outcome.detail);
        world.originals_are_whole().await;
        assert_eq!(world.difference().await, CLEAN, "{migration}\n{}", outcome.detail);
        let differ = different_lines(&dump, &world.dump().await);
        assert!(differ.is_empty(), "{migration}\n{differ:#?}");
        let now = world.fixture.baseline().await;
        assert_eq!(now.prints, world.baseline.prints, "{migration}");
        let more = world.act(&removal, Duration::from_secs(60)).await;
        assert_eq!(more.detail, "nothing left to remove");

        let undone = undo(&world.config, SCHEMA, Duration::from_secs(60)).await;
        assert_eq!(undone.ended, undo::Ended::Undone, "{migration}\n{undone:#?}");
        assert!(undone.quarantine_dropped, "{migration}\n{undone:#?}");
        assert!(undone.left.is_empty() && undone.stays.is_empty() == again.is_empty(), "{undone:#?}");
        migrator.client().batch_execute(again).await.expect("takes away again");
        let mut differ = different_lines(&migrated, &world.dump().await);
        differ.extend(facts.differing(&Facts::of(&world.config.database).await));
        assert!(differ.is_empty(), "{dispose:?}: {migration}\n{differ:#?}\n{undone:#?}");
        let prints = world.fixture.baseline().await.prints;
        assert_eq!(prints, world.baseline.prints, "{migration}");
        drop(migrator);
    }
}

/// The lines that only one of two dumps has: `-` those that went, `+` those that came.
fn different_lines(was: &str, is: &str) -> Vec<String> {
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<BTreeSet<_>>();
    let (was, is) = (lines(was), lines(is));
    let went = was.difference(&is).map(|line| format!("-{line}"));
    went.chain(is.difference(&was).map(|line| format!("+{line}"))).collect()
}

#[tokio::test]
async fn what_was_added_to_originals_goes() {
    reversed(
        "",
        "alter table items add column sku text not null default 'none', add column twice numeric generated always as (price * 2) stored;
         create unique index items_sku on items (sku, id); alter table items add constraint sane check (length(sku) > 0);
         create trigger again after insert on items for each row execute function touch();
         create policy more on items as restrictive using (sku <> ''); alter table items force row level security;
         comment on table items is 'things'; grant insert on items to reverse_anon; grant update (name) on items to public;
         alter publication shop add table app.settings; create statistics more_stats on price, sku from items;
         create rule log as on update to app.settings do also select 1; alter table app.settings add column n serial;",
        "",
    )
    .await;
}

#[tokio::test]
async fn what_was_redefined_is_put_back() {
    reversed(
        "",
        "create or replace view cheap as select id, name, price from items where price < 5;
         create or replace function item_count() returns bigint language sql as 'select 0::bigint';
         alter table items alter name set default 'y', alter price set not null, alter name drop not null;
         alter policy readers on items using (true); alter trigger touched on items rename to touched_2;
         alter sequence tickets increment 10 maxvalue 100000 cycle; drop trigger touched_2 on items;
         create trigger touched before insert or update on items for each row execute function touch();
         alter table items disable row level security; revoke select on items from reverse_anon;
         revoke execute on function item_count() from public; alter table app.settings owner to reverse_anon;
         comment on column items.price is 'in dollars'; drop index items_price; create index items_price on items (price);
         alter table items drop constraint items_price_check; alter publication shop set (publish = 'insert');",
        "alter table items alter name drop not null; revoke select on items from reverse_anon;
         revoke execute on function item_count() from public; revoke all on app.settings from postgres;
         alter table items drop constraint items_price_check",
    )
    .await;
}

#[tokio::test]
async fn what_was_taken_away_is_made_again() {
    const MIGRATION: &str = "drop view cheaper; drop view cheap; drop materialized view totals; drop function item_count(); drop policy readers on items;
         drop trigger touched on items; drop function touch(); drop publication shop; drop sequence tickets;
         alter table items drop constraint items_name_key; drop index items_price; drop statistics items_stats;
         alter table app.settings drop constraint settings_pkey; drop rule no_delete on \"Odd \"\"Table 🚀\";
         alter table items alter name drop default";
    reversed("", MIGRATION, MIGRATION).await;
}

#[tokio::test]
async fn names_are_given_back() {
    reversed(
        "",
        "alter table items rename to things; alter table things rename column name to title; alter view cheap rename to bargains;
         alter table app.settings set schema public; alter index items_price rename to things_price;
         alter type mood rename to feeling; alter table things rename constraint items_name_key to things_title_key;
         alter table \"Odd \"\"Table 🚀\" rename to \"order\"; alter sequence tickets rename to numbers;
         alter function item_count() rename to thing_count; create table pages (id int references things);
         alter table things add column sku text; update things set sku = 'sku ' || id; alter table things rename id to number;
        ",
        "drop function item_count()",
    )
    .await;
}

#[tokio::test]
async fn new_tables_of_every_kind_go() {
    reversed(
        "create table auth.sessions (id int primary key)",
        "create type color as enum ('red'); create schema extra;
         create table pages (id serial primary key, owner int references auth.users, item bigint references items on delete cascade, c color);
         create table \"Order\" (id int primary key, page int references pages, \"user\" text); alter table pages add o int references \"Order\";
         create table extra.pages (id int generated by default as identity, \"a\"\"b\" text, \"🚀\" int);
         create table log (at date, n int default nextval('tickets')) partition by range (at);
         create table log_1 partition of log for values from ('2026-01-01') to ('2027-01-01');
         create unlogged table cache (k text primary key, v text); create temporary table passing (id int);
         create table \"a\"\"b\" (id int primary key, \"select\" int); create table \"🚀\" (id int references \"a\"\"b\" on update cascade);
         create table \"table\" (id int primary key, up int references \"table\"); insert into \"table\" values (1, 1), (2, 1);
         create sequence numbers; create table odd (n int default nextval('numbers')); create table even (n int default nextval('numbers'));
         insert into odd default values; insert into even default values; insert into cache values ('k', 'v');
         insert into passing values (1); insert into \"a\"\"b\" values (7, 1); insert into \"🚀\" values (7);
         insert into extra.pages (\"🚀\") values (1), (2); insert into \"Order\" (id) values (1);
         create table kept (p pages, twice int generated always as (2 * 2) stored);
         create materialized view page_counts as select count(*) from pages;
         create view both_of_them as select p.id, c.name from pages p, cheap c;
         create or replace view cheap as select i.id, i.name from items i, pages where price < 10;
         create policy pagers on items using (exists (select from pages)); create policy strict on items as restrictive using (exists (select from \"Order\"));
         create function page_log() returns trigger language plpgsql as $$ begin insert into public.pages default values; return new; end $$;
         create trigger paged after insert on items for each row execute function page_log();
         alter table items add column first_page pages;
         insert into pages default values; insert into log values ('2026-03-03'); alter publication shop add table pages;",
        "",
    )
    .await;
}

#[tokio::test]
async fn an_extension_and_enum_values_are_left_where_they_do_no_harm() {
    for dispose in [QUARANTINE, DROP] {
        let migration =
            "create extension if not exists citext; create table pages (t citext); insert into pages values ('A');
             alter type mood add value 'glad'";
        let world = World::new(RICH, migration).await;
        let (migrated, facts) = (world.dump().await, Facts::of(&world.config.database).await);
        let outcome = world.act(&World::everything(dispose), Duration::from_secs(60)).await;
        assert!(outcome.is_success(), "{}", outcome.detail);
        let left = world.difference().await;
        // The quarantined table still needs it.
        let expected = if dispose == QUARANTINE { "1 extension added" } else { CLEAN };
        assert_eq!(left, expected);
        assert_eq!(finding(&outcome).left.len(), usize::from(dispose == QUARANTINE), "{:?}", finding(&outcome).left);
        let undone = undo(&world.config, SCHEMA, Duration::from_secs(60)).await;
        assert_eq!(undone.ended, undo::Ended::Undone, "{undone:#?}");
        assert_eq!(different_lines(&migrated, &world.dump().await), Vec::<String>::new());
        assert_eq!(facts.differing(&Facts::of(&world.config.database).await), Vec::<String>::new());
    }
}

#[tokio::test]
async fn what_needs_a_restore_stops_it_before_anything_is_changed() {
    for (migration, obstacle) in [
        ("alter table items drop column price cascade", "column price of public.items was dropped"),
        ("drop table app.settings", "table app.settings was dropped"),
        (
            "alter table app.settings alter value type text using value::text",
            "column value of app.settings was rewritten",
        ),
        ("drop table app.settings; create table app.settings (key text primary key, value jsonb)", "made anew"),
        ("alter table app.settings rename to old; create table app.settings (key text)", "another one has its name"),
        ("alter table app.settings set unlogged", "cannot be put back"),
    ] {
        let world = World::new(RICH, &format!("create table pages (id int); {migration}")).await;
        for dispose in [QUARANTINE, DROP] {
            let before = world.catalog().await;
            let outcome = world.act(&World::everything(dispose), Duration::from_secs(30)).await;
            assert_eq!(outcome.result, StepResult::Failed, "{migration}");
            assert!(outcome.detail.contains(obstacle), "{migration}: {}", outcome.detail);
            assert_eq!(world.catalog().await, before, "{migration}");
        }
    }
}

#[tokio::test]
async fn values_of_added_columns_are_kept_with_their_keys() {
    let world = World::new(
        RICH,
        "alter table items add column sku text; update items set sku = 'sku ' || id;
         create table heap (id int); alter table app.settings add column note text; update app.settings set note = 'n'",
    )
    .await;
    let outcome = world.act(&World::everything(QUARANTINE), Duration::from_secs(30)).await;
    assert!(outcome.is_success(), "{}", outcome.detail);
    let columns = finding(&outcome).columns;
    let items = columns.iter().find(|kept| kept.table.name == "items").expect("kept");
    assert_eq!(
        (items.keys.as_slice(), items.columns.as_slice()),
        (["id".to_owned()].as_slice(), ["sku".to_owned()].as_slice())
    );
    let query = format!("select count(*) from {} where sku = 'sku ' || id", items.place.sql());
    assert_eq!(world.fixture.number(&query).await, 20);
}

#[tokio::test]
async fn writers_go_on_all_the_while() {
    let world = World::new(RICH, "create table pages (id int); alter table items add column sku text").await;
    let writer = world.fixture.session().await;
    let done = AtomicBool::new(false);
    let write = async {
        let mut rows = 0;
        while !done.load(Ordering::Relaxed) {
            writer
                .client()
                .batch_execute(
                    "insert into public.items (name, price) values (md5(random()::text || clock_timestamp()), 1)",
                )
                .await
                .expect("original tables take rows");
            rows += 1;
        }
        rows
    };
    let act = async {
        let outcome = world.act(&World::everything(QUARANTINE), Duration::from_secs(60)).await;
        done.store(true, Ordering::Relaxed);
        outcome
    };
    let (outcome, rows) = tokio::join!(act, write);
    assert!(outcome.is_success(), "{}", outcome.detail);
    assert!(rows > 0);
    assert_eq!(world.difference().await, CLEAN);
}

#[tokio::test]
async fn a_function_is_put_back_under_what_stands_on_it() {
    let before = "create function half(n numeric) returns numeric language sql immutable as 'select n / 2';
         create table taxed (id int primary key, amount numeric default half(2), check (half(amount) >= 0));
         create index taxed_half on taxed (half(amount)); create policy halves on taxed using (half(amount) > 0);
         create view halved as select id, half(amount) as amount from taxed; create view quartered as select half(amount) from halved;
         create function sum_of() returns numeric begin atomic select sum(half(amount)) from taxed; end;
         create function stamp() returns trigger language plpgsql as 'begin return new; end';
         create trigger stamped before insert on taxed for each row when (half(new.amount) > 1) execute function stamp();
         grant select on halved to reverse_anon; comment on function half(numeric) is 'a half';
         insert into taxed values (1, 4)";
    // A parameter's name cannot be replaced: all that stands on the function has to be made anew.
    let anew = "drop trigger stamped on taxed; drop view quartered; drop view halved; drop function sum_of(); drop policy halves on taxed;
         drop index taxed_half; alter table taxed alter amount drop default, drop constraint taxed_amount_check;
         drop function half(numeric); create function half(amount numeric) returns numeric language sql immutable as 'select amount * 0.5';
         alter table taxed alter amount set default half(2), add check (half(amount) >= 0);
         create index taxed_half on taxed (half(amount)); create policy halves on taxed using (half(amount) > 0);
         create view halved as select id, half(amount) as amount from taxed; create view quartered as select half(amount) from halved;
         create function sum_of() returns numeric begin atomic select sum(half(amount)) from taxed; end;
         create trigger stamped before insert on taxed for each row when (half(new.amount) > 1) execute function stamp();
         grant select on halved to reverse_anon; comment on function half(numeric) is 'a half'";
    reversed(before, anew, "").await;
}
