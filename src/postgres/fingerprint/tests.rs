use super::*;
use crate::postgres::session::Session;
use crate::postgres::testing::Fixture;

async fn session(fixture: &Fixture) -> Session {
    let session = Session::connect(&fixture.database()).await.expect("connects");
    settle(session.client()).await.expect("settled");
    session
}

/// The fingerprint of a table as it is now.
async fn print(fixture: &Fixture, table: &str) -> Sum {
    let session = session(fixture).await;
    let table = TableName::parse(table, "public").expect("a name");
    let columns = columns(session.client(), &table).await.expect("columns");
    sum(session.client(), &table, &columns).await.expect("a fingerprint")
}

/// A column of each type that is hashed in a way of its own: type, how it is hashed, a value, and another.
const TYPES: &[(&str, HashedBy, &str, &str)] = &[
    ("int", HashedBy::Value, "1", "2"),
    ("numeric", HashedBy::Value, "1.5", "1.6"),
    ("float8", HashedBy::Value, "'-Infinity'", "'NaN'"),
    ("boolean", HashedBy::Value, "true", "false"),
    ("text", HashedBy::Value, "'a'", "'A'"),
    ("varchar(9)", HashedBy::Value, "'a'", "'a '"),
    ("char(9)", HashedBy::Value, "'a'", "'b'"),
    ("bytea", HashedBy::Value, r"'\x00'", r"'\x01'"),
    ("uuid", HashedBy::Value, "'00000000-0000-0000-0000-000000000000'", "'00000000-0000-0000-0000-000000000001'"),
    ("date", HashedBy::Value, "'2026-01-02'", "'2026-02-01'"),
    ("timestamptz", HashedBy::Value, "'2026-01-02 03:04:05Z'", "'2026-01-02 03:04:05.000001Z'"),
    ("timetz", HashedBy::Value, "'03:04:05+01'", "'02:04:05+00'"),
    ("jsonb", HashedBy::Value, r#"'{"a": 1}'"#, r#"'{"a": null}'"#),
    ("inet", HashedBy::Value, "'10.0.0.0/8'", "'10.0.0.0/9'"),
    ("int[]", HashedBy::Value, "'{1,2}'", "'{2,1}'"),
    ("int4range", HashedBy::Value, "'[1,3)'", "'[1,4)'"),
    ("positive", HashedBy::Value, "1", "2"),
    ("positive[]", HashedBy::Value, "'{1}'", "'{2}'"),
    ("pair", HashedBy::Value, "'(1,a)'", "'(1,)'"),
    ("json", HashedBy::Text, r#"'{"a":1}'"#, r#"'{"a": 1}'"#),
    ("json[]", HashedBy::Text, r#"array['{"a":1}'::json]"#, r#"array['{"a":2}'::json]"#),
    ("document", HashedBy::Text, "'[1]'", "'[2]'"),
    ("xml", HashedBy::Text, "'<a/>'", "'<b/>'"),
    ("point", HashedBy::Text, "'(1,2)'", "'(1,2.0000000000000004)'"),
    ("money", HashedBy::Text, "1.25", "1.26"),
    ("interval", HashedBy::Text, "'1 month'", "'30 days'"),
    ("mood", HashedBy::Text, "'sad'", "'ok'"),
    ("mood[]", HashedBy::Text, "'{sad}'", "'{sad,ok}'"),
    ("envelope", HashedBy::Text, r#"row(1, '{"a":1}')"#, r#"row(1, '{"a":2}')"#),
    ("envelope[]", HashedBy::Text, r#"array[row(1, '{"a":1}')::envelope]"#, "'{}'"),
    ("datemultirange", HashedBy::Text, "'{[2026-01-01,2026-01-02)}'", "'{}'"),
    ("tsvector", HashedBy::Text, "'a b'", "'a c'"),
    ("text collate blind", HashedBy::Text, "'a'", "'A'"),
    ("text[] collate blind", HashedBy::Text, "'{a}'", "'{A}'"),
    ("blind_pair", HashedBy::Text, "'(1,a)'", "'(1,A)'"),
    ("bit(3)", HashedBy::Text, "'101'", "'111'"),
];

const MADE: &str = "create type mood as enum ('sad', 'ok'); create domain positive as int check (value > 0);
    create domain document as json; create type pair as (x int, y text); create type envelope as (x int, y json);
    create collation blind (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
    create type blind_pair as (x int, y text collate blind);";

async fn table_of_all_types(fixture: &Fixture) {
    let columns: Vec<String> =
        TYPES.iter().enumerate().map(|(at, (name, ..))| format!("\"c\"\"{at}\" {name}")).collect();
    let values: Vec<&str> = TYPES.iter().map(|(_, _, value, _)| *value).collect();
    let sql = format!(
        "{MADE} create table \"Odd \"\"t\" ({}); insert into \"Odd \"\"t\" values ({}); insert into \"Odd \"\"t\" default values",
        columns.join(", "),
        values.join(", ")
    );
    fixture.sql(&sql).await;
}

#[tokio::test]
async fn each_type_is_hashed_in_a_way_that_shows_every_change() {
    let fixture = Fixture::new().await;
    table_of_all_types(&fixture).await;
    let session = session(&fixture).await;
    let client = session.client();
    let table = TableName::new("public", "Odd \"t");
    let columns = columns(client, &table).await.expect("columns");
    assert_eq!(columns.len(), TYPES.len());
    for (column, (name, by, ..)) in columns.iter().zip(TYPES) {
        assert_eq!(column.by, *by, "{name}, read as {}", column.data_type);
    }
    let before = sum(client, &table, &columns).await.expect("a fingerprint");
    assert_eq!(before.rows, 2);
    let migration = fixture.session().await;
    for (at, (name, _, value, other)) in TYPES.iter().enumerate() {
        for changed in [*other, "null"] {
            let set = |value: &str| {
                format!(
                    "update \"Odd \"\"t\" set \"c\"\"{at}\" = {value} where \"c\"\"0\" is not null or {at} = 0 and \"c\"\"1\" is not null"
                )
            };
            migration.client().batch_execute(&set(changed)).await.expect("changed");
            let after = sum(client, &table, &columns).await.expect("a fingerprint");
            assert_ne!(after.sum, before.sum, "{name} from {value} to {changed}");
            migration.client().batch_execute(&set(value)).await.expect("put back");
            assert_eq!(sum(client, &table, &columns).await.expect("a fingerprint"), before, "{name} put back");
        }
    }
}

#[tokio::test]
async fn servers_that_hash_no_records_have_fingerprints_too() {
    let fixture = Fixture::new().await;
    table_of_all_types(&fixture).await;
    let session = session(&fixture).await;
    let columns = columns(session.client(), &TableName::new("public", "Odd \"t")).await.expect("columns");
    let hash = row_hash(&columns, false);
    assert!(!hash.contains("hash_record"), "{hash}");
    let sql = format!("select sum({hash})::text from public.\"Odd \"\"t\" t");
    let read = async || -> String { session.client().query_one(&sql, &[]).await.expect("a sum").get(0) };
    let before = read().await;
    fixture.sql("update \"Odd \"\"t\" set \"c\"\"0\" = 3 where \"c\"\"0\" is not null").await;
    assert_ne!(read().await, before);
}

#[tokio::test]
async fn what_is_not_in_the_rows_changes_nothing() {
    let fixture = Fixture::new().await;
    table_of_all_types(&fixture).await;
    fixture.sql("create table posts (id int generated always as identity, twice int generated always as (id * 2) stored, m mood, at timestamptz)").await;
    fixture.sql("insert into posts (m, at) select 'ok', '2026-01-01' from generate_series(1, 100)").await;
    let session = session(&fixture).await;
    let client = session.client();
    let tables = [TableName::new("public", "posts"), TableName::new("public", "Odd \"t")];
    let prints = take(client, &tables).await.expect("fingerprints").prints;
    fixture
        .sql(
            r#"alter table posts add more text default 'x'; create index on posts (at);
               alter table "Odd ""t" add more json default '[]'"#,
        )
        .await;
    for (table, print) in tables.iter().zip(&prints) {
        assert_eq!(incomparable(print, &columns(client, table).await.expect("columns")), None);
        let now = sum(client, table, &print.columns).await.expect("a fingerprint");
        assert_eq!((now.rows, now.sum), (print.rows, print.sum.clone()), "{table}");
    }
    // Identity values that were made anew are another matter than a column more, and so is what is generated of them.
    fixture.sql("update posts set id = default").await;
    let posts = sum(client, &tables[0], &prints[0].columns).await.expect("a fingerprint");
    assert!(posts.rows == 100 && posts.sum != prints[0].sum);
    fixture.sql("alter table posts drop twice").await;
    let now = columns(client, &tables[0]).await.expect("columns");
    let reason = incomparable(&prints[0], &now).expect("a column is gone");
    assert_eq!(reason, "public.posts has no column twice any more, so its rows cannot be compared");
    sum(client, &tables[0], &prints[0].columns).await.expect_err("a column is gone");
    fixture.sql("alter table posts add twice bigint").await;
    let now = columns(client, &tables[0]).await.expect("columns");
    let reason = incomparable(&prints[0], &now).expect("another type");
    assert_eq!(reason, "column twice of public.posts is bigint, and was integer, so its rows cannot be compared");

    // Other settings, another order of the rows, a type that was made anew under its name.
    let name = quote_identifier(&fixture.name);
    fixture
        .sql(&format!(
            r#"alter database {name} set datestyle = 'German'; alter database {name} set timezone = 'Asia/Tokyo';
               alter database {name} set intervalstyle = 'iso_8601'; alter database {name} set extra_float_digits = -3;
               alter database {name} set search_path = public; alter database {name} set bytea_output = 'escape';
               create table moved as select * from "Odd ""t"; truncate "Odd ""t";
               insert into "Odd ""t" select * from moved order by "c""1" desc nulls first; drop table moved;
               alter type mood rename to mood_before; create type mood as enum ('new', 'ok', 'sad');
               alter table "Odd ""t" alter "c""26" type mood using "c""26"::text::mood"#
        ))
        .await;
    let session = Session::connect(&fixture.database()).await.expect("connects");
    settle(session.client()).await.expect("settled");
    let now = sum(session.client(), &tables[1], &prints[1].columns).await.expect("a fingerprint");
    assert_eq!((now.rows, now.sum), (prints[1].rows, prints[1].sum.clone()));
}

#[tokio::test]
async fn rows_that_were_swapped_doubled_or_replaced_show() {
    let fixture = Fixture::new().await;
    fixture
        .sql("create table posts (id int, body text); insert into posts values (1, 'a'), (2, 'b'), (3, 'c'), (3, 'c')")
        .await;
    let before = print(&fixture, "posts").await;
    for (change, back) in [
        (
            "update posts set body = case id when 1 then 'b' when 2 then 'a' else body end",
            "update posts set body = case id when 1 then 'a' when 2 then 'b' else body end",
        ),
        ("update posts set body = 'd' where id = 3", "update posts set body = 'c' where id = 3"),
        (
            "delete from posts where id = 1; insert into posts values (4, 'd')",
            "update posts set id = 1, body = 'a' where id = 4",
        ),
        ("delete from posts where id = 3", "insert into posts values (3, 'c'), (3, 'c')"),
        ("update posts set body = id::text, id = ascii(body)", "update posts set body = chr(id), id = body::int"),
    ] {
        fixture.sql(change).await;
        assert_ne!(print(&fixture, "posts").await.sum, before.sum, "{change}");
        fixture.sql(back).await;
        assert_eq!(print(&fixture, "posts").await, before, "{back}");
    }
}

#[tokio::test]
async fn tables_of_every_shape() {
    let fixture = Fixture::new().await;
    fixture
        .sql(
            "create table bare (); insert into bare default values; create table empty (a json, b int);
             create table parts (at date, n int) partition by list (n);
             create table parts_1 partition of parts for values in (1); create table parts_2 (n int, at date);
             alter table parts attach partition parts_2 for values in (2);
             insert into parts values ('2026-01-01', 1), ('2026-01-02', 2); create table \"user\".\"select\" (\"order\" int)"
                .replace("create table \"user\"", "create schema \"user\"; create table \"user\"")
                .as_str(),
        )
        .await;
    let zero = |rows| Sum { rows, sum: "0".to_owned() };
    assert_eq!(print(&fixture, "bare").await, zero(1));
    assert_eq!(print(&fixture, "empty").await, zero(0));
    assert_eq!(print(&fixture, "user.select").await, zero(0));
    let parts = print(&fixture, "parts").await;
    assert_eq!(parts.rows, 2);
    fixture.sql("update parts_2 set at = '2026-01-03'").await;
    assert_ne!(print(&fixture, "parts").await.sum, parts.sum);
    let session = session(&fixture).await;
    let failed = take(session.client(), &[TableName::new("public", "gone")]).await.expect_err("no such table");
    assert!(failed.to_string().contains("public.gone"), "{failed}");
}
