use super::*;
use crate::postgres::testing::Fixture;

const SHOP: &str = "create table profiles (id int primary key); create table posts (id int primary key, title text default 'none' not null);
    create table comments (id int, post int references posts); create index on posts (title);
    create schema auth; create table auth.users (id int);
    create function touched() returns trigger language plpgsql as 'begin return new; end';
    create function secret() returns text language sql as 'select ''sesame''::text';
    create trigger touch before update on posts for each row execute function touched();
    create view recent as select id from posts; create sequence numbers; create type mood as enum ('sad');
    create policy mine on posts using (id > 0); alter table posts enable row level security";

#[tokio::test]
async fn what_is_added_beside_does_no_harm() {
    let fixture = Fixture::new().await;
    fixture.sql(SHOP).await;
    let baseline = fixture.baseline().await;
    let database = fixture.database();
    let held = check(&Pinned::new(&database), &database, Some(&baseline)).await.expect("as before");
    assert!(held.ends_with("objects as before") && !held.contains("beside"), "{held}");
    fixture
        .sql(
            "create table pages (id int primary key); create view latest as select id from pages; create type shape as enum ('round');
             create function helper() returns int language sql as 'select 1';
             alter table auth.users add more int; create table auth.added (); drop table auth.added",
        )
        .await;
    let held = check(&Pinned::new(&database), &database, Some(&baseline)).await.expect("added beside, or protected");
    assert!(held.contains("as before; 4 objects beside them, which are new, were not judged"), "{held}");
}

#[tokio::test]
async fn everything_that_happened_to_what_was_there_is_named() {
    let fixture = Fixture::new().await;
    fixture.sql(SHOP).await;
    let baseline = fixture.baseline().await;
    let database = fixture.database();
    for (change, back, named) in [
        ("drop view recent", "create view recent as select id from posts", "view public.recent is gone"),
        (
            "create or replace view recent as select id from posts where id > 1",
            "create or replace view recent as select id from posts",
            "view public.recent is not as it was",
        ),
        (
            "alter table posts alter title drop default",
            "alter table posts alter title set default 'none'",
            "default title of public.posts is gone",
        ),
        (
            "alter table posts alter title drop not null",
            "alter table posts alter title set not null",
            "not-null rule title of public.posts is gone",
        ),
        (
            "alter table posts disable row level security",
            "alter table posts enable row level security",
            "public.posts is not as it was",
        ),
        (
            "drop policy mine on posts",
            "create policy mine on posts using (id > 0)",
            "policy mine of public.posts is gone",
        ),
        (
            "create policy all_of_it on posts using (true)",
            "drop policy all_of_it on posts",
            "policy all_of_it of public.posts was added",
        ),
        (
            "alter table posts disable trigger touch",
            "alter table posts enable trigger touch",
            "trigger touch of public.posts is not as it was",
        ),
        (
            "create trigger more before insert on profiles for each row execute function touched()",
            "drop trigger more on profiles",
            "trigger more of public.profiles was added",
        ),
        (
            "alter table profiles add more int",
            "alter table profiles drop more",
            "column more of public.profiles was added",
        ),
        ("create index extra on comments (id)", "drop index extra", "index extra of public.comments was added"),
        (
            "alter table comments drop constraint comments_post_fkey",
            "alter table comments add foreign key (post) references posts",
            "constraint comments_post_fkey of public.comments is gone",
        ),
        (
            "drop index posts_title_idx",
            "create index on posts (title)",
            "index posts_title_idx of public.posts is gone",
        ),
        (
            "create or replace function secret() returns text language sql as 'select ''open sesame''::text'",
            "create or replace function secret() returns text language sql as 'select ''sesame''::text'",
            "function public.secret() is not as it was",
        ),
        (
            "alter sequence numbers increment 2",
            "alter sequence numbers increment 1",
            "sequence public.numbers is not as it was",
        ),
    ] {
        fixture.sql(change).await;
        let failed = check(&Pinned::new(&database), &database, Some(&baseline)).await.expect_err(change);
        assert!(failed.contains(named), "{change}: {failed}");
        assert!(!failed.contains("sesame"), "{failed}");
        fixture.sql(back).await;
        check(&Pinned::new(&database), &database, Some(&baseline)).await.expect(back);
    }
}

#[tokio::test]
async fn nothing_to_compare_and_nobody_to_ask_are_failures_and_lists_end() {
    let fixture = Fixture::new().await;
    let mut database = fixture.database();
    let failed = check(&Pinned::new(&database), &database, None).await.expect_err("no baseline");
    assert!(failed.contains("no baseline"), "{failed}");
    let empty = fixture.baseline().await;
    let failed = check(&Pinned::new(&database), &database, Some(&empty)).await.expect_err("nothing");
    assert!(failed.contains("nothing was compared"), "{failed}");
    fixture.sql("create table posts (); create table other (a int)").await;
    let baseline = fixture.baseline().await;
    database.protected_schemas = vec!["public".to_owned()];
    check(&Pinned::new(&database), &database, Some(&baseline)).await.expect_err("everything is protected");
    database.protected_schemas = Vec::new();
    let columns: Vec<String> = (0..30).map(|at| format!("add c{at} int")).collect();
    fixture.sql(&format!("alter table posts {}", columns.join(", "))).await;
    let failed = check(&Pinned::new(&database), &database, Some(&baseline)).await.expect_err("many");
    assert!(failed.ends_with("; and 10 further differences"), "{failed}");
    let nowhere = crate::postgres::testing::database(&fixture.cluster.url("no such database"));
    check(&Pinned::new(&nowhere), &nowhere, Some(&baseline)).await.expect_err("nobody to ask");
}
