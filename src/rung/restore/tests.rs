use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use rollbackd_core::run::step::StepResult;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::postgres::testing::Fixture;

mod around;

const ORIGINALS: &str = "
    create table profiles (id int primary key, name text);
    create table posts (id int generated always as identity primary key, author int not null references profiles,
      body text collate \"C\" default 'none', size int generated always as (length(body)) stored, check (author > 0));
    create table comments (id bigserial primary key, post int references posts on delete cascade, mood text);
    create index on posts (author) where body is not null;
    insert into profiles values (1, 'a'), (2, E'tab\\there\\nand \\\\N');
    insert into posts (author, body) values (1, 'x'), (2, null), (2, E'a\\\\.\\n\\\\.');
    insert into comments (post, mood) values (1, 'ok'), (3, 'sad');
    create view recent as select id, body from posts;
    create view latest as select max(id) as id from recent;
    create function touch() returns trigger language plpgsql as 'begin return new; end';
    create trigger touched before update on posts for each row execute function touch();
    create function first_post() returns posts language sql as 'select p from public.posts p limit 1';
    alter table posts enable row level security;
    create policy own on posts for select using (author in (select id from profiles));
    create policy seen on comments for select using (post in (select id from posts));
    grant select on posts to public; grant select (id) on comments to public;
    comment on table posts is 'what people write'; comment on column posts.body is 'text';
    create statistics post_stats on id, author from posts;
    create publication everything for table posts, comments;";

const MINUTE: Duration = Duration::from_secs(60);
const SCHEMA: &str = "rollbackd_20261122t020000z";

/// A database with the originals and their backup, after the migration.
struct World {
    fixture: Fixture,
    config: Config,
    baseline: Arc<Baseline>,
    backup: PathBuf,
    structure: String,
}

impl World {
    async fn new(originals: &str, migration: &str) -> Self {
        let fixture = Fixture::new().await;
        fixture.sql(originals).await;
        let mut config = fixture.config();
        config.database.original_tables.retain(|table| originals.contains(&format!("create table {} (", table.name)));
        Self::of(fixture, config, migration).await
    }

    async fn of(fixture: Fixture, config: Config, migration: &str) -> Self {
        let taken = backup::take(&config, started(), MINUTE, &CancellationToken::new()).await;
        let Finding::Backup { directory, baseline, .. } = taken.finding else { panic!("{}", taken.detail) };
        let structure = structure(&fixture, &[]);
        fixture.sql(migration).await;
        Self { fixture, config, baseline, backup: PathBuf::from(directory), structure }
    }

    async fn act(&self, within: Duration) -> Outcome {
        act(&self.config, &Pinned::new(&self.config.database), &self.baseline, Some(&self.backup), started(), within)
            .await
    }

    /// The rung succeeds, and the originals are what they were.
    async fn restores(&self) -> (String, RemovalFinding) {
        let outcome = self.act(MINUTE).await;
        assert!(outcome.is_success(), "{}", outcome.detail);
        let difference = self.baseline.catalog.difference(&self.catalog().await, &[]);
        assert!(difference.removed.is_empty() && difference.changed.is_empty(), "{difference:?}");
        let now = rows(&self.fixture).await;
        assert_eq!(now, self.baseline.counts.iter().map(|count| count.rows).collect::<Vec<_>>());
        let side = "select count(*) from pg_namespace where nspname = 'rollbackd_restore'";
        assert_eq!(self.fixture.number(side).await, 0, "the side schema is gone");
        let Finding::Removal(found) = outcome.finding else { panic!("{}", outcome.detail) };
        (outcome.detail, found)
    }

    /// The same, and the whole structure is what it was.
    async fn restores_all(&self) -> (String, RemovalFinding) {
        let restored = self.restores().await;
        assert_eq!(structure(&self.fixture, &[]), self.structure);
        // Once more there is nothing to do: what was restored is not taken for the migration's.
        let again = self.act(MINUTE).await;
        assert_eq!((again.is_success(), again.detail.as_str()), (true, "nothing to restore"));
        restored
    }

    /// The rung fails, and nothing at all was changed.
    async fn fails(&self, why: &str) -> String {
        let before = self.catalog().await;
        let outcome = self.act(MINUTE).await;
        assert_eq!(outcome.result, StepResult::Failed, "{}", outcome.detail);
        assert!(outcome.detail.contains(why), "{}", outcome.detail);
        assert!(outcome.detail.contains("nothing was changed"), "{}", outcome.detail);
        assert_eq!(self.catalog().await, before);
        let ours = "select count(*) from pg_namespace where nspname ~ '^rollbackd_'";
        assert_eq!(self.fixture.number(ours).await, 0);
        outcome.detail
    }

    async fn catalog(&self) -> rollbackd_core::baseline::Catalog {
        let session = Session::connect(&self.config.database).await.expect("connects");
        catalog::read(session.client()).await.expect("a catalog")
    }
}

fn started() -> Timestamp {
    "2026-11-22T02:00:00Z".parse().expect("a time")
}

async fn rows(fixture: &Fixture) -> Vec<u64> {
    let baseline = fixture.baseline().await;
    baseline.counts.iter().map(|count| count.rows).collect()
}

/// What `pg_dump` says of the structure, without our own schemas.
fn structure(fixture: &Fixture, more: &[&str]) -> String {
    let url = fixture.cluster.url(&fixture.name);
    let dump = Command::new("/usr/lib/postgresql/15/bin/pg_dump")
        .args(["--schema-only", "--exclude-schema=rollbackd_*", "--dbname", &url])
        .args(more)
        .output()
        .expect("it runs");
    assert!(dump.status.success(), "{}", String::from_utf8_lossy(&dump.stderr));
    let text = String::from_utf8(dump.stdout).expect("utf-8");
    // Newer minor versions put a random word there.
    text.lines().filter(|line| !line.contains("restrict ")).flat_map(|line| [line, "\n"]).collect()
}

const PRINT: &str = "select sum(hashtext(p::text)) from (select id, author, body, size from posts) p";

#[tokio::test]
async fn a_dropped_table_is_back_with_all_that_belonged_to_it_or_stood_on_it() {
    let world = World::new(ORIGINALS, "").await;
    let print = world.fixture.number(PRINT).await;
    world.fixture.sql("drop table posts cascade; create table pages (id int)").await;
    let (detail, found) = world.restores().await;
    assert!(detail.starts_with("restored 1 table with 3 rows as of 20"), "{detail}");
    assert!(detail.contains("public.posts (was dropped)"), "{detail}");
    assert_eq!((found.quarantine, found.tables.len()), (None, 0));
    assert_eq!(world.fixture.number(PRINT).await, print);
    assert_eq!(world.fixture.number("select count(*) from pages").await, 0, "what is new is left to others");
    world.fixture.sql("drop table pages").await;
    world.restores_is_nothing().await;
    assert_eq!(structure(&world.fixture, &[]), world.structure);
    // The identity goes on behind the highest value.
    world.fixture.sql("insert into posts (author) values (1)").await;
    assert_eq!(world.fixture.number("select max(id)::int8 from posts").await, 4);
}

impl World {
    async fn restores_is_nothing(&self) {
        let again = self.act(MINUTE).await;
        assert_eq!((again.is_success(), again.detail.as_str()), (true, "nothing to restore"));
    }
}

#[tokio::test]
async fn a_dropped_column_is_back_and_rows_written_since_are_kept() {
    let world = World::new(
        ORIGINALS,
        "alter table posts drop column body cascade; insert into posts (author) values (1), (2); alter table posts add n int",
    )
    .await;
    let (detail, found) = world.restores_all().await;
    assert!(detail.contains("public.posts (column body was dropped, column size was dropped)"), "{detail}");
    assert!(
        detail.ends_with(&format!(
            "what was there is kept in schema {SCHEMA}: public.posts (5 rows, 2 not in the backup)"
        )),
        "{detail}"
    );
    assert_eq!(found.tables[0].rows, Some(5));
    assert_eq!(world.fixture.number(&format!("select count(*) from {SCHEMA}.posts")).await, 5);
    assert_eq!(world.fixture.number(&format!("select count(*) from {SCHEMA}.posts where n is null")).await, 5);
    // Numbers that were given out since are not given out again.
    world.fixture.sql("insert into posts (author) values (1)").await;
    assert_eq!(world.fixture.number("select max(id)::int8 from posts").await, 6);
    // Keys of what was put aside hold nothing up.
    world.fixture.sql("delete from posts where author = 2; delete from profiles where id = 2").await;
}

#[tokio::test]
async fn a_rewritten_column_is_what_it_was() {
    let world = World::new(
        ORIGINALS,
        "alter table comments alter mood type varchar(2) using left(mood, 2); insert into comments (post) values (2)",
    )
    .await;
    let (detail, _) = world.restores_all().await;
    assert!(detail.contains("column mood was text, and is character varying(2)"), "{detail}");
    world.fixture.sql("insert into comments (post) values (2)").await;
    assert_eq!(world.fixture.number("select max(id) from comments").await, 4);
}

#[tokio::test]
async fn rows_that_are_gone_are_back() {
    let world = World::new(ORIGINALS, "delete from posts where id = 1").await;
    let (detail, found) = world.restores_all().await;
    assert!(detail.contains("restored 2 tables with 5 rows"), "{detail}");
    assert!(detail.contains("public.posts (2 rows of 3 left), public.comments (1 row of 2 left)"), "{detail}");
    assert_eq!(found.tables.len(), 2, "{detail}");

    let world =
        World::new(ORIGINALS, "truncate posts cascade; insert into posts (author, body) values (1, 'new')").await;
    let (detail, _) = world.restores_all().await;
    assert!(detail.contains("public.posts (1 row, 1 not in the backup)"), "{detail}");

    // As many rows as before, and not the same: the sampled keys tell.
    let refill = "truncate comments; insert into comments (post) values (1), (2), (3)";
    let world = World::new(ORIGINALS, refill).await;
    let (detail, _) = world.restores_all().await;
    assert!(detail.contains("public.comments (2 of 2 sampled rows are gone)"), "{detail}");
}

#[tokio::test]
async fn a_table_made_anew_is_the_old_one_again() {
    let world = World::new(
        ORIGINALS,
        "drop table comments; create table comments (id int primary key, post int references posts, extra text);
         insert into comments select g from generate_series(1, 7) g;
         create table likes (comment int references comments); create view talk as select extra from comments",
    )
    .await;
    // A new view of what is put aside cannot be made of what was there before.
    world.fails("extra").await;
    world.fixture.sql("drop view talk").await;
    let (detail, found) = world.restores().await;
    assert!(detail.contains("public.comments (was dropped and made anew)"), "{detail}");
    assert_eq!(found.tables[0].rows, Some(7));
    let key =
        "select count(*) from pg_constraint where conrelid = 'likes'::regclass and confrelid = 'comments'::regclass";
    assert_eq!(world.fixture.number(key).await, 1, "a new table's key leads to the restored table");
}

#[tokio::test]
async fn rows_that_refer_to_what_the_backup_does_not_have_stop_it() {
    let world = World::new(
        ORIGINALS,
        "insert into posts (author, body) values (1, 'newer'); insert into comments (post, mood) values (4, 'glad');
         alter table posts drop column body cascade",
    )
    .await;
    let detail = world.fails("violates foreign key constraint").await;
    assert!(
        detail.contains("comments_post_fkey") && detail.contains("refer to rows that the backup does not have"),
        "{detail}"
    );
    assert!(!detail.contains("glad"), "{detail}");
}

#[tokio::test]
async fn names_of_every_kind_are_restored() {
    let fixture = Fixture::new().await;
    let names = ["Order", "a\"b", "🚀 launch", "user", "it's; --", "back\\slash"];
    let mut config = fixture.config();
    config.database.original_tables = names.map(|name| TableName::new("Shop \"1\"", name)).into();
    config.backup.schemas = vec!["Shop \"1\"".to_owned()];
    let mut sql = "create schema \"Shop \"\"1\"\"\";".to_owned();
    for table in &config.database.original_tables {
        let table = table.sql();
        write!(
            sql,
            "create table {table} (\"I d\" int generated by default as identity primary key, \"s\\\" bigserial, \"t\"\"\" text);
             insert into {table} (\"t\"\"\") values ('1'), (E'2\\n');"
        )
        .expect("a string");
    }
    fixture.sql(&sql).await;
    let drops: Vec<String> =
        config.database.original_tables.iter().map(|table| format!("drop table {}", table.sql())).collect();
    let world = World::of(fixture, config, &drops.join(";")).await;
    let outcome = world.act(MINUTE).await;
    assert!(outcome.is_success(), "{}", outcome.detail);
    assert!(outcome.detail.contains("restored 6 tables with 12 rows"), "{}", outcome.detail);
    assert_eq!(structure(&world.fixture, &[]), world.structure);
    for table in &world.config.database.original_tables {
        world.fixture.sql(&format!("insert into {} default values", table.sql())).await;
        let sum = format!("select max(\"I d\") + max(\"s\\\") from {}", table.sql());
        assert_eq!(world.fixture.number(&sum).await, 6, "{table}");
    }
}

#[tokio::test]
async fn what_is_not_a_plain_table_is_refused() {
    let world = World::new(
        "create table posts (id int, at date) partition by range (at);
         create table posts_1 partition of posts for values from ('2026-01-01') to ('2027-01-01');
         insert into posts values (1, '2026-05-05')",
        "delete from posts",
    )
    .await;
    world.fails("public.posts (logged; partitioned by RANGE (at)) is not a plain table").await;

    let world = World::new(ORIGINALS, "alter table posts rename to articles").await;
    let outcome = world.act(MINUTE).await;
    assert_eq!(
        outcome.detail,
        "nothing to restore; public.posts is called public.articles now; rung `reverse` gives it its name back"
    );
    world.fixture.sql("create view posts as select 1 as id; drop table comments").await;
    world.fixture.sql("alter table profiles rename to people; create table profiles (id int)").await;
    world.fails("public.profiles is called public.people now, and another table has its name").await;
}

#[tokio::test]
async fn a_damaged_backup_is_found_and_the_structure_alone_comes_back() {
    let mut world = World::new(ORIGINALS, "drop table comments; alter table posts drop column body cascade").await;
    let file = std::fs::read_dir(world.backup.join("dump"))
        .expect("files")
        .map(|entry| entry.expect("an entry").path())
        .find(|path| path.extension().is_some_and(|extension| extension == "gz"))
        .expect("a file");
    let mut bytes = std::fs::read(&file).expect("there");
    *bytes.last_mut().expect("not empty") ^= 1;
    std::fs::write(&file, bytes).expect("written");
    let detail = world.fails("is not what was backed up: its size or hash differs").await;
    assert!(detail.contains("restore the tables from another backup by hand"), "{detail}");

    let schema = world.config.directory.join("schema.sql");
    let text = "begin; -- the first migration\n\\set x\ncreate table posts (id int); drop table profiles;
        create table comments (id bigserial primary key, post int references posts on delete cascade, mood text);
        create function touch() returns trigger language plpgsql as $$begin return new; end$$; commit;";
    std::fs::write(&schema, text).expect("written");
    world.config.database.original_schema_file = Some(schema.clone());
    let outcome = world.act(MINUTE).await;
    assert!(outcome.is_success(), "{}", outcome.detail);
    for part in [
        "1 missing table made from",
        "WITHOUT ROWS: public.comments",
        "still damaged: public.posts column body was dropped",
    ] {
        assert!(outcome.detail.contains(part), "{part}: {}", outcome.detail);
    }
    assert_eq!(world.fixture.number("select count(*) from comments").await, 0);
    assert_eq!(rows(&world.fixture).await, [2, 3, 0]);

    // A file that would change what is there is refused, and so is one without the table.
    world.fixture.sql(&format!("drop table comments; drop schema {SCHEMA} cascade")).await;
    for (text, why) in [
        ("create table comments (id int); insert into profiles values (9)", "changes tables that are there"),
        ("create table comments (id int); alter table profiles drop column name", "would be gone"),
        ("create table other (id int)", "does not make public.comments"),
        ("create tabel comments (id int)", "syntax error"),
    ] {
        std::fs::write(&schema, text).expect("written");
        world.fails(why).await;
    }
    world.fixture.sql("create table comments (id int)").await;
    world.fails("tables that are there are not replaced without it").await;
}

#[tokio::test]
async fn a_lock_is_waited_for_and_what_an_interrupted_try_left_is_made_anew() {
    let mut world = World::new(
        ORIGINALS,
        "delete from comments where id = 1; create schema rollbackd_restore; create table rollbackd_restore.restored_0 (x int)",
    )
    .await;
    let holder = world.fixture.session().await;
    holder.client().batch_execute("begin; lock table comments in access share mode").await.expect("locked");
    // Whether the wait ends with the lock's limit, try after try, or with the time for all of them: it is said who it was.
    for lock_timeout in [world.config.database.lock_timeout, MINUTE] {
        world.config.database.lock_timeout = lock_timeout;
        let outcome = world.act(Duration::from_secs(8)).await;
        assert_eq!(outcome.result, StepResult::Failed, "{}", outcome.detail);
        assert!(
            outcome.detail.contains("locks were held by") && outcome.detail.contains("gave up after"),
            "{}",
            outcome.detail
        );
        assert_eq!(rows(&world.fixture).await, [2, 3, 1]);
    }
    drop(holder);
    world.restores_all().await;
}
