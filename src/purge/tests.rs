use std::fmt::Write as _;
use std::time::Duration;

use rollbackd_core::plan::{Dispose, Reach, TableChoice};

use super::*;
use crate::postgres::programs::{self, Access};
use crate::undo::tests::{SCHEMA, WINDOW, World};

const LONG: Duration = Duration::from_secs(60);
const MIGRATION: &str = "
    create table pages (id serial primary key, author int references profiles on delete cascade, title text);
    create table parts (id int primary key, page int references pages); alter table pages add part int references parts;
    create table log (at date) partition by range (at);
    create table log_1 partition of log for values from ('2026-01-01') to ('2027-01-01');
    create view titles as select title from pages; create materialized view counted as select count(*) from titles;
    create function page_count() returns bigint begin atomic select count(*) from pages; end;
    create domain page_id as int check (value < page_count());
    insert into pages (author, title) values (1, 'one'), (2, 'two'); insert into log values ('2026-05-05');";

async fn quarantined() -> World {
    let world = World::new("", MIGRATION).await;
    world.remove(TableChoice::Added, Dispose::Quarantine, Reach::Attached).await;
    world
}

async fn quarantines(world: &World) -> i64 {
    world.fixture.number("select count(*) from pg_namespace where nspname ~ '^rollbackd_2'").await
}

#[tokio::test]
async fn a_purged_quarantine_comes_back_from_its_archive_and_is_undone() {
    let world = World::new("", MIGRATION).await;
    let facts = world.facts().await;
    world.remove(TableChoice::Added, Dispose::Quarantine, Reach::Attached).await;
    let after = world.facts().await;
    let purged = purge(&world.config, SCHEMA, WINDOW, true, LONG).await;
    assert!(purged.purged, "{purged:?}");
    assert_eq!((purged.tables, purged.rows), (4, 3), "{purged:?}");
    assert_eq!(quarantines(&world).await, 0);
    world.facts().await.assert_same(&after);

    let programs = programs::find(15).await.expect("programs");
    let access = Access::new(&world.config.database).expect("access");
    let file = format!("{}/tables.dump", purged.archives[0]);
    let arguments = ["--exit-on-error", "--single-transaction", "--dbname=", &file].map(str::to_owned);
    programs::run(&programs.restore, &arguments, Some(&access), LONG, None).await.expect("restores");
    world.undone().await;
    world.facts().await.assert_same(&facts);
}

#[tokio::test]
async fn without_an_archive_it_is_gone() {
    let world = quarantined().await;
    let purged = purge(&world.config, SCHEMA, WINDOW, false, LONG).await;
    assert!(purged.purged && purged.archives.is_empty(), "{purged:?}");
    assert!(purged.summary().contains("without an archive"), "{}", purged.summary());
    assert_eq!(quarantines(&world).await, 0);
    assert!(!world.config.state_dir.join("archives").exists());
}

#[tokio::test]
async fn a_key_that_leads_into_the_quarantine_stops_it() {
    let world = quarantined().await;
    world.fixture.sql(&format!("alter table posts add page int references {SCHEMA}.pages")).await;
    let purged = purge(&world.config, SCHEMA, WINDOW, true, LONG).await;
    assert!(!purged.purged);
    assert!(purged.reasons[0].contains("foreign key posts_page_fkey of public.posts refers to"), "{purged:?}");
    assert_eq!(purged.summary(), "nothing was changed");
    // A view outside is found by the server.
    world.fixture.sql(&format!("alter table posts drop page; create view mine as select * from {SCHEMA}.pages")).await;
    let purged = purge(&world.config, SCHEMA, WINDOW, true, LONG).await;
    assert!(!purged.purged && purged.reasons.iter().any(|reason| reason.contains("depend on it")), "{purged:?}");
    assert!(purged.archives.is_empty(), "an archive that nothing relied on is thrown away");
    assert_eq!(quarantines(&world).await, 1);
    assert_eq!(world.fixture.number(&format!("select count(*) from {SCHEMA}.pages")).await, 2);
}

#[tokio::test]
async fn more_tables_than_a_transaction_takes_are_purged() {
    let mut migration = String::new();
    for number in 0..450 {
        let reference = if number == 0 { String::new() } else { format!(" references t{}", number - 1) };
        write!(migration, "create table t{number} (id int primary key{reference});").expect("a string");
    }
    let world = World::new("", &migration).await;
    world.remove(TableChoice::Added, Dispose::Quarantine, Reach::Attached).await;
    let purged = purge(&world.config, SCHEMA, WINDOW, true, LONG).await;
    assert!(purged.purged, "{purged:?}");
    assert_eq!(purged.tables, 450);
    assert_eq!(purged.archives.len(), 1, "one archive holds all of it");
}
