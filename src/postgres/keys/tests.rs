use super::*;
use crate::postgres::fingerprint::settle;
use crate::postgres::session::Session;
use crate::postgres::testing::Fixture;

async fn session(fixture: &Fixture) -> Session {
    let session = Session::connect(&fixture.database()).await.expect("connects");
    settle(session.client()).await.expect("settled");
    session
}

fn table(name: &str) -> TableName {
    TableName::parse(name, "public").expect("a name")
}

#[tokio::test]
async fn keys_of_any_type_are_found_until_they_are_gone() {
    let fixture = Fixture::new().await;
    fixture
        .sql(
            "create type mood as enum ('sad', 'ok'); create domain code as varchar(5) check (value <> '');
             create type pair as (x int, y text); create collation blind (provider = icu, locale = 'und-u-ks-level2', deterministic = false)",
        )
        .await;
    for (number, (data_type, value)) in [
        ("int", "7"),
        ("uuid", "'00000000-0000-0000-0000-000000000001'"),
        ("text", r#"'a "quoted", {odd} \ text; it''s'"#),
        ("text collate \"C\"", "'ü'"),
        ("text collate blind", "'Ü'"),
        ("char(5)", "'ab'"),
        ("code", "'x-1'"),
        ("mood", "'ok'"),
        ("numeric(12,3)", "1234.5"),
        ("float8", "0.1::float8 + 0.2"),
        ("timestamptz", "'2026-01-02 03:04:05.678901+02'"),
        ("date", "'infinity'"),
        ("interval", "'1 mon -2 days'"),
        ("bytea", r"'\x00ff'"),
        ("int[]", "'{{1,2},{3,null}}'"),
        ("pair", "row(1, 'a,b')"),
        ("int4range", "'[1,5)'"),
        ("bit(3)", "'101'"),
        ("\"char\"", "'y'"),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("t{number}");
        fixture
            .sql(&format!(
                "create table {name} (\"The \"\"key\" {data_type} primary key); insert into {name} values ({value})"
            ))
            .await;
        let session = session(&fixture).await;
        let keys = sample(session.client(), &table(&name)).await.expect(data_type).expect("a key");
        assert_eq!(keys.facts(), KeySample { columns: vec!["The \"key".to_owned()], taken: 1 }, "{data_type}");
        assert_eq!(found(session.client(), &keys).await.expect(data_type), 1, "{data_type} {value}");
        fixture.sql(&format!("delete from {name}")).await;
        assert_eq!(found(session.client(), &keys).await.expect(data_type), 0, "{data_type}");
    }
}

#[tokio::test]
async fn an_extensions_type_is_compared_by_its_own_operator() {
    let fixture = Fixture::new().await;
    // A type of a schema that is not in the search path, as with citext: equal when the text is, in any case.
    fixture
        .sql(
            "create schema ext;
             create domain ext.label as text;
             create function ext.less(text, text) returns boolean language sql immutable as 'select lower($1) < lower($2)';
             create function ext.less_or_same(text, text) returns boolean language sql immutable as 'select lower($1) <= lower($2)';
             create function ext.same(text, text) returns boolean language sql immutable as 'select lower($1) = lower($2)';
             create function ext.compare(text, text) returns int language sql immutable as 'select case when lower($1) < lower($2) then -1 when lower($1) = lower($2) then 0 else 1 end';
             create operator ext.<~ (function = ext.less, leftarg = text, rightarg = text);
             create operator ext.<=~ (function = ext.less_or_same, leftarg = text, rightarg = text);
             create operator ext.=~ (function = ext.same, leftarg = text, rightarg = text);
             create operator class ext.any_case for type text using btree as operator 1 ext.<~, operator 2 ext.<=~, operator 3 ext.=~, function 1 ext.compare(text, text);
             create table posts (name ext.label not null); insert into posts values ('Hello');
             create unique index posts_key on posts (name)",
        )
        .await;
    let session = session(&fixture).await;
    let client = session.client();
    assert_eq!(sample(client, &table("posts")).await.expect("asked"), None, "a unique index is no primary key");
    fixture.sql("drop index posts_key; alter table posts add primary key (name)").await;
    let keys = sample(client, &table("posts")).await.expect("asked").expect("a key");
    assert_eq!(found(client, &keys).await, Ok(1));
    let key = [KeyColumn { name: "name".into(), data_type: "ext.label".into(), equals: "operator(ext.=~)".into() }];
    let sql = lookup(&table("posts"), &key);
    let counted =
        async |text: &str| -> i64 { client.query_one(&sql, &[&vec![text.to_owned()]]).await.expect("a count").get(0) };
    assert_eq!((counted("hELLO").await, counted("bye").await), (1, 0));
}

#[tokio::test]
async fn composite_keys_and_partitions_and_tables_without() {
    let fixture = Fixture::new().await;
    fixture
        .sql(
            "create table parts (n int, at date, body text, primary key (at, n) include (body)) partition by range (at);
             create table parts_1 partition of parts for values from ('2026-01-01') to ('2026-07-01');
             create table parts_2 partition of parts for values from ('2026-07-01') to ('2027-01-01');
             insert into parts select i, date '2026-01-01' + i, 'x' from generate_series(1, 360) i;
             create table bare (id int); create table empty (id int primary key);
             create table long (id text primary key); insert into long values (repeat('x', 600)), ('short')",
        )
        .await;
    let session = session(&fixture).await;
    let client = session.client();
    let keys = sample(client, &table("parts")).await.expect("asked").expect("a key");
    assert_eq!(keys.facts(), KeySample { columns: vec!["at".to_owned(), "n".to_owned()], taken: 100 });
    assert_eq!(found(client, &keys).await, Ok(100));
    fixture.sql("update parts set n = n + 1000 where at >= '2026-07-01'").await;
    let left = found(client, &keys).await.expect("asked");
    assert!(left > 10 && left < 90, "both partitions are in the sample: {left}");
    assert_eq!(sample(client, &table("bare")).await.expect("asked"), None);
    for (name, taken) in [("empty", 0), ("long", 1)] {
        let keys = sample(client, &table(name)).await.expect("asked").expect("a key");
        assert_eq!(keys.facts().taken, taken, "{name}");
        assert_eq!(found(client, &keys).await, Ok(u64::from(taken)));
    }
    fixture.sql("alter table parts drop constraint parts_pkey; alter table parts add primary key (n, at)").await;
    let reason = found(client, &keys).await.expect_err("another key");
    assert_eq!(reason, "the primary key of public.parts is (n, at), and was (at, n), so its rows cannot be looked up");
    fixture.sql("alter table parts drop constraint parts_pkey").await;
    let reason = found(client, &keys).await.expect_err("no key");
    assert!(reason.starts_with("the primary key of public.parts is gone, and was (at, n)"), "{reason}");
}

#[tokio::test]
async fn a_large_table_is_sampled_all_over_by_reading_little_of_it() {
    let fixture = Fixture::new().await;
    fixture
        .sql(
            "create table posts (id int primary key, body text);
             insert into posts select i, repeat('x', 1000) from generate_series(1, 40000) i",
        )
        .await;
    fixture.sql("vacuum analyze posts").await;
    let session = session(&fixture).await;
    let client = session.client();
    let posts = table("posts");
    let all = blocks(client, &posts).await.expect("blocks");
    assert!(all > 5000, "{all}");
    let keys = sample(client, &posts).await.expect("asked").expect("a key");
    assert_eq!(sample(client, &posts).await.expect("asked").expect("a key"), keys, "the same table, the same sample");
    let mut ids: Vec<u32> = keys.values[0].iter().map(|id| id.parse().expect("a number")).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), MOST);
    for quarter in 0..4 {
        let (from, to) = (quarter * 10_000, (quarter + 1) * 10_000);
        let there = ids.iter().filter(|id| (from..to).contains(*id)).count();
        assert!(there >= 10, "quarter {quarter}: {there}");
    }
    assert!(format!("{keys:?}").contains("taken: 100"), "{keys:?}");
    assert!(!format!("{keys:?}").contains(&ids[50].to_string()), "{keys:?}");
    // Few blocks for the sample, and the index for looking up.
    let key = primary_key(client, &posts).await.expect("a key");
    let sql = format!("explain {}", lookup(&posts, &key).replace("$1", "array_fill('1'::text, array[100])"));
    let plan: Vec<String> = client.query(&sql, &[]).await.expect("a plan").iter().map(|row| row.get(0)).collect();
    assert!(plan.iter().any(|line| line.contains("Index Only Scan using posts_pkey")), "{plan:#?}");
    let sql = format!("explain (analyze, buffers, costs off, timing off, summary off) {}", sampling(&posts, &key, all));
    let plan: Vec<String> = client.query(&sql, &[]).await.expect("a plan").iter().map(|row| row.get(0)).collect();
    let read: u32 = plan
        .iter()
        .find(|line| line.contains("Buffers: shared"))
        .expect("buffers")
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|number| number.parse::<u32>().ok())
        .sum();
    assert!(read > 100 && read < 900, "{plan:#?}");
}

#[test]
fn a_file_that_is_not_what_the_baseline_says_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let reason = SampledKeys::read(directory.path()).expect_err("no file");
    assert!(reason.starts_with("the sampled keys cannot be read: ") && reason.contains(FILE), "{reason}");
    let path = directory.path().join(FILE);
    std::fs::write(&path, "{\"tables\": \"hidden@shop.example\"}").expect("written");
    let reason = SampledKeys::read(directory.path()).expect_err("damaged");
    assert!(reason.ends_with("is damaged") && !reason.contains("hidden"), "{reason}");
    let keys = SampledKeys {
        tables: vec![TableKeys {
            table: table("posts"),
            columns: vec!["id".to_owned()],
            values: vec![vec!["1".to_owned(), "2".to_owned()]],
        }],
    };
    std::fs::write(&path, serde_json::to_vec(&keys).expect("JSON")).expect("written");
    let read = SampledKeys::read(directory.path()).expect("whole");
    assert_eq!(read, keys);
    let facts = KeySample { columns: vec!["id".to_owned()], taken: 2 };
    assert_eq!(read.of(&table("posts"), &facts).expect("there"), &keys.tables[0]);
    read.of(&table("comments"), &facts).expect_err("another table");
    read.of(&table("posts"), &KeySample { taken: 3, ..facts }).expect_err("fewer keys");
}
