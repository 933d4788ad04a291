use super::*;
use crate::config::model::Config;
use crate::postgres::pinned::Pinned;
use crate::postgres::testing::Fixture;

use IntegrityPolicy::{Exact, GrowOnly, Ignore, Tolerance};

const LONG: Duration = Duration::from_secs(30);

struct Stage {
    fixture: Fixture,
    config: Config,
    baseline: Baseline,
}

impl Stage {
    async fn new(tables: &str) -> Self {
        let fixture = Fixture::new().await;
        fixture.sql(tables).await;
        let (config, baseline) = (fixture.config(), fixture.baseline().await);
        Self { fixture, config, baseline }
    }

    async fn check(&self, default: IntegrityPolicy, policies: &[(&str, IntegrityPolicy)]) -> Result<String, String> {
        let policies = policies.iter().map(|(name, policy)| (TableName::new("public", *name), *policy)).collect();
        let pinned = Pinned::new(&self.config.database);
        let context = Context {
            pinned: &pinned,
            config: &self.config,
            baseline: Some(&self.baseline),
            backup: Some(self.fixture.directory.path()),
        };
        check(context, default, &policies, LONG).await
    }

    /// Changes something, gives the reason why the policy does not hold then, and changes it back.
    async fn fails(&self, change: &str, back: &str, policy: IntegrityPolicy) -> String {
        self.fixture.sql(change).await;
        let failed = self.check(policy, &[]).await.expect_err(change);
        self.fixture.sql(back).await;
        self.check(policy, &[]).await.expect(back);
        failed
    }
}

const TABLES: &str = "create table profiles (id int primary key, name text);
    create table posts (id int primary key, body json, mood text);
    create table comments (id int);
    insert into profiles select i, 'secret-name' from generate_series(1, 100) i;
    insert into posts values (1, '{\"a\": 1}', 'fine'), (2, null, null); insert into comments values (1)";

#[test]
fn a_tolerance_is_a_share_of_the_rows_before() {
    for (before, now, share, holds) in [
        (100, 99, 0.01, true),
        (100, 101, 0.01, true),
        (100, 98, 0.01, false),
        (100, 102, 0.01, false),
        (100, 71, 0.29, true),
        (100, 70, 0.29, false),
        (0, 0, 0.5, true),
        (0, 1, 1.0, false),
        (7, 7, 0.0, true),
        (7, 6, 0.0, false),
        (10, 0, 1.0, true),
    ] {
        assert_eq!(within(before, now, share), holds, "{before} {now} {share}");
    }
}

#[tokio::test]
async fn each_policy_says_how_it_holds() {
    let stage = Stage::new(TABLES).await;
    let held = stage.check(GrowOnly, &[("posts", Exact), ("comments", Tolerance(0.5))]).await.expect("as before");
    assert_eq!(
        held,
        "3 tables compared: public.comments 1 row, 1 before; public.posts 2 rows with the same contents; \
         public.profiles 100 rows, 100 sampled keys found"
    );
    let held = stage.check(GrowOnly, &[("profiles", Ignore)]).await.expect("as before");
    assert_eq!(
        held,
        "2 tables compared: public.comments 1 row, no primary key to look for; public.posts 2 rows, 2 sampled keys found"
    );
    // Growing, and a column more, are no loss.
    stage
        .fixture
        .sql("insert into profiles values (101, 'x'); insert into comments values (2); alter table posts add more int default 7, add other json")
        .await;
    stage.check(GrowOnly, &[("posts", Exact), ("comments", Ignore)]).await.expect("grown");
}

#[tokio::test]
async fn every_way_of_losing_rows_is_found() {
    let stage = Stage::new(TABLES).await;
    let only = |text: &str, reason: String| assert_eq!(reason, text);
    let insert = "insert into profiles values (7, 'secret-name')";
    only(
        "public.profiles has 99 rows, and must have at least 100",
        stage.fails("delete from profiles where id = 7", insert, GrowOnly).await,
    );
    // As many as before, and more than before, but not the same.
    for more in [1, 50] {
        only(
            "2 of 100 sampled rows of public.profiles are not there any more",
            stage
                .fails(
                    &format!("update profiles set id = id + 1000 where id in (7, 8); insert into profiles select i, 'x' from generate_series(2001, 2000 + {more}) i"),
                    "delete from profiles where id > 2000; update profiles set id = id - 1000 where id > 1000",
                    GrowOnly,
                )
                .await,
        );
    }
    only(
        "public.profiles has 99 rows, and must have exactly 100",
        stage.fails("delete from profiles where id = 7", insert, Exact).await,
    );
    only(
        "public.comments has 2 rows, and must have exactly 1",
        stage.fails("insert into comments values (2)", "delete from comments where id = 2", Exact).await,
    );
    let contents = "public.posts has 2 rows as before, but their contents are not the same";
    for (change, back) in [
        ("update posts set mood = 'Fine' where id = 1", "update posts set mood = 'fine' where id = 1"),
        (r#"update posts set body = '{"a":1}' where id = 1"#, r#"update posts set body = '{"a": 1}' where id = 1"#),
        ("update posts set id = 3 where id = 2", "update posts set id = 2 where id = 3"),
        ("update posts set mood = '' where id = 2", "update posts set mood = null where id = 2"),
    ] {
        only(contents, stage.fails(change, back, Exact).await);
    }
    only(
        "public.comments has 3 rows, and must have 1, give or take 100 %",
        stage.fails("insert into comments values (2), (3)", "delete from comments where id > 1", Tolerance(1.0)).await,
    );
    only(
        "public.profiles has 98 rows, and must have 100, give or take 1 %",
        stage.fails("delete from profiles where id < 3", "insert into profiles values (1), (2)", Tolerance(0.01)).await,
    );
}

#[tokio::test]
async fn what_cannot_be_compared_is_a_failure_that_says_so() {
    let mut stage = Stage::new(TABLES).await;
    let table = [("pages", GrowOnly)];
    let failed = stage.check(Ignore, &table).await.expect_err("unknown");
    assert_eq!(failed, "public.pages was not counted for the baseline");
    let failed = stage.check(Ignore, &[]).await.expect_err("nothing");
    assert!(failed.contains("nothing was checked"), "{failed}");
    let pinned = Pinned::new(&stage.config.database);
    let context = Context { config: &stage.config, pinned: &pinned, baseline: None, backup: None };
    let failed = check(context, GrowOnly, &BTreeMap::new(), LONG).await.expect_err("no baseline");
    assert!(failed.contains("no baseline"), "{failed}");

    stage.fixture.sql("alter table posts drop mood; alter table profiles alter name type varchar(50)").await;
    let failed = stage.check(Exact, &[]).await.expect_err("columns");
    assert!(failed.contains("public.posts has no column mood any more, so its rows cannot be compared"), "{failed}");
    assert!(failed.contains("column name of public.profiles is character varying(50), and was text"), "{failed}");
    stage.check(GrowOnly, &[]).await.expect("the rows are there");
    stage.fixture.sql("alter table posts drop constraint posts_pkey; drop table comments").await;
    let failed = stage.check(GrowOnly, &[]).await.expect_err("no key");
    assert!(failed.contains("the primary key of public.posts is gone, and was (id)"), "{failed}");
    assert!(failed.contains("counting the rows of public.comments failed"), "{failed}");
    let failed = stage.check(Exact, &[("posts", Ignore), ("profiles", Ignore)]).await.expect_err("gone");
    assert!(failed.contains("reading the rows of public.comments failed"), "{failed}");

    // The file with the keys is gone, or the backup is not known.
    let some = [("posts", Ignore), ("comments", Ignore)];
    stage.check(GrowOnly, &some).await.expect("as before");
    std::fs::remove_file(stage.fixture.directory.path().join(keys::FILE)).expect("removed");
    let failed = stage.check(GrowOnly, &some).await.expect_err("no file");
    assert!(failed.starts_with("public.profiles: the sampled keys cannot be read: "), "{failed}");
    stage.check(Tolerance(0.0), &some).await.expect("needs no keys");

    // A baseline of an earlier version holds counts alone.
    stage.baseline.prints.clear();
    let held = stage.check(GrowOnly, &some).await.expect("counted");
    assert_eq!(held, "1 table compared: public.profiles 100 rows, no keys were sampled");
    let failed = stage.check(Exact, &some).await.expect_err("no fingerprint");
    assert!(failed.contains("public.profiles has no fingerprint in the baseline"), "{failed}");
    let mut text = serde_json::to_value(&stage.baseline).expect("JSON");
    text.as_object_mut().expect("an object").remove("prints");
    assert_eq!(serde_json::from_value::<Baseline>(text).expect("an old baseline"), stage.baseline);
}

#[tokio::test]
async fn nothing_that_is_told_holds_a_row() {
    let stage = Stage::new(
        "create table profiles (id text primary key, name text); create table posts (); create table comments ();
         insert into profiles values ('secret-key', 'secret-name')",
    )
    .await;
    let shown = format!("{:?}{}", stage.baseline, serde_json::to_string(&stage.baseline).expect("JSON"));
    assert!(!shown.contains("secret"), "{shown}");
    stage.fixture.sql("alter table profiles alter id type bytea using 'x'").await;
    for policy in [GrowOnly, Exact] {
        let failed = stage.check(policy, &[]).await.expect_err("another type");
        assert!(!failed.contains("secret"), "{failed}");
    }
    stage.fixture.sql("alter table profiles alter id type int using 1").await;
    let failed = stage.check(GrowOnly, &[]).await.expect_err("a key that is no number");
    assert!(failed.contains("looking up the sampled keys of public.profiles failed"), "{failed}");
    assert!(!failed.contains("secret"), "{failed}");
}

#[tokio::test]
async fn row_security_that_would_hide_rows_is_a_failure() {
    let mut stage = Stage::new(TABLES).await;
    stage
        .fixture
        .sql(
            "create role half_seeing login password 'sesame'; grant select on all tables in schema public to half_seeing;
             alter table comments enable row level security; create policy half on comments using (id > 0)",
        )
        .await;
    let url = stage.fixture.cluster.url_as("half_seeing", "sesame", &stage.fixture.name);
    stage.config.database = crate::postgres::testing::database(&url);
    for policy in [GrowOnly, Exact, Tolerance(0.5)] {
        let failed = stage.check(policy, &[]).await.expect_err("hidden rows");
        assert!(failed.contains("row-level security") && failed.contains("public.comments"), "{failed}");
    }
}

#[tokio::test]
async fn tables_that_are_written_to_only_grow() {
    let stage = Stage::new(TABLES).await;
    let session = stage.fixture.session().await;
    let (written, checked) = (std::cell::Cell::new(0_u32), std::cell::Cell::new(false));
    let writes = async {
        while !checked.get() {
            let sql = "insert into profiles (id, name) select coalesce(max(id), 0) + 1, 'x' from profiles; \
                       update posts set mood = mood; insert into comments select 1";
            session.client().batch_execute(sql).await.expect("written");
            written.set(written.get() + 1);
        }
    };
    let checks = async {
        let mut checks = 0;
        while written.get() < 50 || checks < 5 {
            stage.check(GrowOnly, &[]).await.expect("it only grows");
            checks += 1;
        }
        checked.set(true);
    };
    tokio::join!(writes, checks);
    let failed = stage.check(Exact, &[]).await.expect_err("it has grown");
    assert!(failed.contains("public.profiles has") && !failed.contains("public.posts"), "{failed}");
}
