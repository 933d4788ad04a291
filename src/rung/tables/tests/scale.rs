//! More tables than one transaction takes.

use std::fmt::Write as _;

use super::*;

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
async fn thousands_that_refer_to_one_table_are_dropped_in_groups() {
    let mut migration = "create table tenants (id int primary key); create table ring_1 (id int primary key, o int);
        create table ring_2 (id int primary key, o int references ring_1); alter table ring_1 add foreign key (o) references ring_2;"
        .to_owned();
    for number in 0..1_200 {
        write!(migration, "create table a{number} (tenant int references tenants, ring int references ring_1);")
            .expect("a string");
        if number % 400 == 399 {
            migration.push_str("commit; begin;");
        }
    }
    let world = World::new("", &format!("begin; {migration} commit")).await;
    let (_, found) = world.removed(&added(DROP)).await;
    assert_eq!(found.tables.len(), 1_203);
    assert_eq!(world.difference().await, CLEAN);
}
