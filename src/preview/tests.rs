use rollbackd_core::baseline::Catalog;
use rollbackd_core::plan::{Dispose, OnBlocked, Reach, TableChoice};

use super::*;
use crate::config::model::{Command, Method, Rung as Configured};
use crate::postgres::session::Session;
use crate::postgres::testing::Fixture;

const BEFORE: &str = "
    create schema auth; create table auth.users (id int primary key);
    create table profiles (id int primary key references auth.users, name text);
    create table posts (id int primary key, author int references profiles, body text);
    create table comments (id int primary key, post int references posts);
    alter table posts enable row level security;
    create policy everybody on posts for select using (true);
    create view recent as select id, body from posts;
    create function shout(t text) returns text language sql as 'select upper(t)';
    insert into auth.users values (1), (2); insert into profiles values (1, 'a'), (2, 'b');
    insert into posts values (1, 1, 'x'); insert into comments values (1, 1);";

/// The runbook's tables, with what people do beside them.
const MIGRATION: &str = "
    create table page_templates (id serial primary key, name text);
    create table pages (id serial primary key, template int references page_templates, author int references profiles on delete cascade);
    create table component_library (id serial primary key, name text);
    create table content_blocks (id serial primary key, page int references pages, component int references component_library);
    create table builder_pages (id serial primary key, page int unique references pages);
    create table component_usage (component int references component_library, page int references builder_pages);
    create table media_files (id serial primary key, owner int references auth.users on delete set null);
    create table file_metadata (file int primary key references media_files);
    create table file_versions (file int references media_files, version int);
    create table user_file_stats (usr int primary key references auth.users);
    create table user_sessions (id serial primary key, usr int references auth.users);
    create table analytics_events (id serial primary key, session int references user_sessions, post int references posts);
    create table cache_entries (key text primary key);
    create table content_posts (id serial primary key, post int references posts, page int references pages);
    create function touched() returns trigger language plpgsql as 'begin insert into cache_entries values (new.id::text); return new; end';
    create trigger touched after insert on posts for each row execute function touched();
    create trigger touched before update on pages for each row execute function touched();
    create policy with_pages on posts as restrictive for select using (exists (select from pages));
    create view titles as select c.id, p.body from content_posts c join posts p on p.id = c.post;
    create view titles_of_pages as select * from titles;
    create or replace view recent as select p.id, p.body, c.id as content from posts p left join content_posts c on c.post = p.id;
    grant select on recent to public;
    insert into page_templates (name) values ('a'); insert into pages (template, author) values (1, 1), (1, 2);
    insert into content_posts (post) values (1); insert into comments values (2, 1);";

/// What stays with the rung `tables`, and goes with `reverse`.
const MORE: &str = "
    alter table posts add page int references pages; alter table posts add code serial;
    drop policy everybody on posts;
    create policy everybody on posts for select using (id > 0);
    create index on posts (page);
    create type mood as enum ('well', 'ill');
    create view paged as select id, page from posts; create view codes as select code, c.page from posts p join content_posts c on c.post = p.id;
    create view of_both as select * from paged join codes using (page)";

struct World {
    fixture: Fixture,
    config: Config,
    baseline: Baseline,
}

impl World {
    async fn new(migration: &str, rungs: Vec<Configured>) -> Self {
        let fixture = Fixture::new().await;
        fixture.sql(BEFORE).await;
        let baseline = fixture.baseline().await;
        fixture.sql(migration).await;
        let mut config = fixture.config();
        config.rollback.rungs = rungs;
        Self { fixture, config, baseline }
    }

    /// What would be done; and that nothing was.
    async fn preview(&self) -> Preview {
        let before = self.catalog().await;
        let mut session = Session::connect(&self.config.database).await.expect("connects");
        let question = Question {
            config: &self.config,
            baseline: &self.baseline,
            source: "the baseline of a test",
            window: Some(("shop-20261122T020000Z", "2026-11-22T02:00:00Z".parse().expect("a time"))),
            at: "2026-11-22T02:10:00Z".parse().expect("a time"),
        };
        let preview = of(session.client_mut(), question).await.expect("a preview");
        assert_eq!(self.catalog().await, before, "looking changes nothing");
        preview
    }

    async fn catalog(&self) -> Catalog {
        let session = Session::connect(&self.config.database).await.expect("connects");
        catalog::read(session.client()).await.expect("a catalog")
    }

    /// Runs the statements by hand, as psql does, and compares.
    async fn healed_by_hand(&self, preview: &Preview) {
        let file = self.fixture.directory.path().join("plan.sql");
        std::fs::write(&file, preview.sql.join("\n")).expect("written");
        let url = self.config.database.url.expose().to_string();
        let ran = tokio::process::Command::new("psql")
            .args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", &url, "-f"])
            .arg(&file)
            .output()
            .await
            .expect("psql runs");
        assert!(ran.status.success(), "{}\n{}", String::from_utf8_lossy(&ran.stderr), preview.sql.join("\n"));
        let now = self.catalog().await;
        let difference = self.baseline.catalog.difference(&now, &[]);
        assert_eq!(
            difference.summary(),
            "nothing differs from the baseline",
            "{difference:#?}\n{}",
            preview.sql.join("\n")
        );
    }
}

fn rung(method: Method) -> Configured {
    Configured { timeout: Duration::from_secs(60), needs_approval: false, method }
}

fn removal(tables: TableChoice, dispose: Dispose, reach: Reach) -> Configured {
    rung(Method::Tables { tables, dispose, on_blocked: OnBlocked::Wait, reach })
}

fn reverse(dispose: Dispose) -> Configured {
    removal(TableChoice::Added, dispose, Reach::Everything)
}

const DROP: Dispose = Dispose::Drop { archive: true };

#[tokio::test]
async fn the_statements_run_by_hand_heal_the_database() {
    for dispose in [Dispose::Quarantine, DROP] {
        let world = World::new(&format!("{MIGRATION} {MORE}"), vec![reverse(dispose)]).await;
        let preview = world.preview().await;
        assert_eq!(preview.class, Class::Lossy);
        let [rung] = preview.rungs.as_slice() else { panic!("{:?}", preview.rungs) };
        assert_eq!((rung.would, rung.tables.len()), (Would::Act, 14), "{rung:#?}");
        let written =
            |name: &str| preview.rows_written.iter().find(|rows| rows.table.name == name).expect("counted").written;
        assert_eq!((written("pages"), written("comments"), written("posts")), (Some(2), Some(1), Some(0)));
        let fates = |fate| {
            preview.collateral.iter().filter(|gone| gone.fate == fate).map(|gone| &gone.words).collect::<Vec<_>>()
        };
        assert!(fates(Fate::Goes).iter().any(|words| words.contains("with_pages")), "{:?}", preview.collateral);
        assert!(
            fates(Fate::PutBack).iter().any(|words| words.contains("view public.recent")),
            "{:?}",
            preview.collateral
        );
        assert!(fates(Fate::Kept).iter().any(|words| words.contains("code, page")), "{:?}", preview.collateral);
        if dispose == Dispose::Quarantine {
            let cascading = preview.foreign_keys.iter().find(|key| key.on_delete == "cascade").expect("a live key");
            assert_eq!((cascading.table.as_str(), cascading.parent.as_str()), ("public.pages", "public.profiles"));
            assert!(preview.foreign_keys.iter().any(|key| key.parent == "auth.users"), "{:?}", preview.foreign_keys);
        }
        world.healed_by_hand(&preview).await;
    }
}

#[tokio::test]
async fn the_statements_of_the_tables_rung_do_too() {
    for dispose in [Dispose::Quarantine, DROP] {
        let world = World::new(MIGRATION, vec![removal(TableChoice::Added, dispose, Reach::Attached)]).await;
        let preview = world.preview().await;
        assert_eq!((preview.sql_of_rung, preview.rungs[0].tables.len()), (Some(1), 14));
        world.healed_by_hand(&preview).await;
    }
}

#[tokio::test]
async fn a_clean_database_has_nothing_to_do() {
    let world =
        World::new("", vec![removal(TableChoice::Added, Dispose::Quarantine, Reach::Attached), reverse(DROP)]).await;
    let preview = world.preview().await;
    assert_eq!(preview.summary, "nothing differs from the baseline");
    assert_eq!((preview.class, preview.sql.len(), preview.objects.len()), (Class::Reversible, 0, 0));
    assert!(preview.rungs.iter().all(|rung| rung.would == Would::Nothing), "{:?}", preview.rungs);
}

#[tokio::test]
async fn what_is_destroyed_is_irreversible_and_stops_reverse() {
    let migration = "create table pages (id int); drop view recent; alter table posts drop body";
    let rungs = vec![reverse(Dispose::Quarantine), removal(TableChoice::Added, Dispose::Quarantine, Reach::Attached)];
    let preview = World::new(migration, rungs).await.preview().await;
    assert_eq!(preview.class, Class::Irreversible);
    assert_eq!(preview.class_reasons, ["column body of public.posts was dropped"]);
    assert_eq!([preview.rungs[0].would, preview.rungs[1].would], [Would::Stop, Would::Act]);
    assert_eq!(preview.rungs[0].stops, ["column body of public.posts was dropped"]);
    assert_eq!(preview.sql_of_rung, Some(2), "the statements are those of the first that can act");
}

#[tokio::test]
async fn a_survivor_stops_the_rung_and_is_named() {
    let migration = "create table pages (id int); alter table auth.users add page pages";
    let preview = World::new(migration, vec![removal(TableChoice::Added, Dispose::Quarantine, Reach::Attached)])
        .await
        .preview()
        .await;
    let [rung] = preview.rungs.as_slice() else { panic!("{:?}", preview.rungs) };
    assert_eq!(rung.would, Would::Stop);
    assert!(rung.stops.iter().any(|why| why.contains("users")), "{:?}", rung.stops);
    assert!(preview.collateral.iter().any(|gone| gone.fate == Fate::Survivor), "{:?}", preview.collateral);
    assert_eq!((preview.sql_of_rung, preview.sql.len()), (None, 0));
}

#[tokio::test]
async fn who_holds_locks_is_named_and_a_count_that_cannot_be_had_is_no_guess() {
    let script = rung(Method::Script {
        command: Command {
            program: "node".to_owned(),
            arguments: vec!["scripts/rollback-emergency.js".to_owned()],
            shown: vec!["node".to_owned(), "scripts/rollback-emergency.js".to_owned()],
            directory: std::path::PathBuf::from("/"),
        },
        idempotent: false,
    });
    let partial = removal(TableChoice::Implicated, Dispose::Quarantine, Reach::Related);
    let rungs = vec![partial, script, removal(TableChoice::Added, DROP, Reach::Attached)];
    let world =
        World::new("create table pages (id int references profiles); insert into pages values (1)", rungs).await;
    let holder = world.fixture.session().await;
    let lock = "set application_name = 'a migration'; begin; lock table pages in access exclusive mode";
    holder.client().batch_execute(lock).await.expect("locks");
    let reader = world.fixture.session().await;
    reader.client().batch_execute("begin; select from profiles").await.expect("reads");
    let preview = world.preview().await;
    let found = preview.blockers.iter().find(|blocker| blocker.application == "a migration").expect("named");
    assert_eq!(
        (found.mode.as_deref(), found.tables.as_slice()),
        (Some("AccessExclusiveLock"), &["public.pages".to_owned()][..])
    );
    assert_eq!(found.state, "idle in transaction");
    assert!(preview.blockers.iter().any(|blocker| blocker.tables == ["public.profiles"]), "drop locks parents too");
    let pages = preview.rows_written.iter().find(|rows| rows.table.name == "pages").expect("listed");
    assert_eq!((pages.now, pages.not_counted.as_deref()), (None, Some("another session has locked it")));
    assert_eq!(preview.class, Class::Lossy, "not counted is not empty");
    let foreseen: Vec<Would> = preview.rungs.iter().map(|rung| rung.would).collect();
    assert_eq!(foreseen, [Would::Nothing, Would::Act, Would::Act]);
    assert!(preview.rungs[1].does.contains("node scripts/rollback-emergency.js"), "{:?}", preview.rungs[1]);
    assert_eq!(preview.sql_of_rung, Some(3));
}
