//! What is around a restore: what is told before it, what comes after it, and what hangs on the tables.

use super::*;

fn reverse() -> rollbackd_core::plan::Removal {
    use rollbackd_core::plan::{Dispose, OnBlocked, Reach, Removal, TableChoice};
    let (tables, reach) = (TableChoice::Added, Reach::Everything);
    Removal { tables, dispose: Dispose::Quarantine, reach, on_blocked: OnBlocked::Wait }
}

#[tokio::test]
async fn what_was_brought_back_is_no_table_of_the_migration_for_what_comes_after() {
    // Places of columns have a gap, which a restored table has not.
    let fixture = Fixture::new().await;
    fixture.sql(ORIGINALS).await;
    fixture
        .sql("alter table comments add gone int; alter table comments add stars int; alter table comments drop gone")
        .await;
    let config = fixture.config();
    let world = World::of(
        fixture,
        config,
        "drop table comments; alter table posts drop column body cascade; create table pages (id int primary key);
         alter table posts add page int references pages",
    )
    .await;
    let pinned = Pinned::new(&world.config.database);
    let look = || {
        crate::rung::inspect::run(
            &world.config,
            &pinned,
            &world.baseline,
            rollbackd_core::run::step::Moment::Before,
            MINUTE,
        )
    };
    let beyond = |outcome: &Outcome| {
        let Finding::Difference { difference, .. } = &outcome.finding else { panic!("{}", outcome.detail) };
        (difference.beyond_statements(), difference.renamed.len())
    };
    assert_eq!(beyond(&look().await).0.len(), 3);
    let (_, found) = world.restores().await;
    assert_eq!(found.tables.len(), 1);
    assert_eq!(beyond(&look().await), (Vec::new(), 0), "nothing that was brought back needs a word again");

    let turn = crate::rung::tables::Turn { window: "w", window_started: started(), first: true };
    let removal = reverse();
    let act = || crate::rung::tables::act(&world.config, &pinned, &world.baseline, &removal, turn, MINUTE);
    let reversed = act().await;
    assert!(reversed.is_success(), "{}", reversed.detail);
    let difference = world.baseline.catalog.difference(&world.catalog().await, &[]);
    assert!(difference.added.is_empty() && difference.renamed.is_empty(), "{difference:?}");
    let session = Session::connect(&world.config.database).await.expect("connects");
    let known = restored::known(session.client(), &world.baseline).await.expect("a baseline");
    assert_eq!(known.catalog.difference(&world.catalog().await, &[]).summary(), "nothing differs from the baseline");
    assert_eq!(world.fixture.number(&format!("select count(*) from {SCHEMA}.posts")).await, 3);

    // Brought back once more, it is still the one it was; made by somebody else it is not.
    world.fixture.sql("drop table comments").await;
    world.restores().await;
    assert_eq!(beyond(&look().await), (Vec::new(), 0));
    world.fixture.sql("drop table comments; create table comments (id bigint)").await;
    let words = beyond(&look().await).0;
    assert!(words.contains(&"table public.comments was dropped and made anew".to_owned()), "{words:?}");
    let stopped = act().await;
    assert!(
        !stopped.is_success() && stopped.detail.contains("public.comments was dropped and made anew"),
        "{}",
        stopped.detail
    );
}

#[tokio::test]
async fn rows_written_since_are_foretold_kept_and_put_back_by_the_statement_of_the_report() {
    let world = World::new(
        ORIGINALS,
        "alter table posts drop column body cascade; insert into posts (author) values (1), (2); drop table comments",
    )
    .await;
    let pinned = Pinned::new(&world.config.database);
    let told =
        foresee(&world.config, &pinned, &world.baseline, Some(&world.backup), started(), MINUTE).await.join("\n");
    for part in [
        "public.posts (column body was dropped, column size was dropped): it holds 5 rows now, the backup 3 rows: at least \
         2 rows were written since, and would leave the live table.",
        "public.comments (was dropped): the backup holds 2 rows;",
        &format!("all of it is moved to schema {SCHEMA} with every row"),
        &world.backup.display().to_string(),
    ] {
        assert!(told.contains(part), "{part}\nnot in\n{told}");
    }
    let (_, found) = world.restores().await;
    assert_eq!(found.by_hand.len(), 1, "{found:?}");
    let kept = format!("select count(*) from {SCHEMA}.posts");
    assert_eq!(world.fixture.number(&kept).await, 5);
    world.fixture.sql(&found.by_hand[0]).await;
    assert_eq!(world.fixture.number("select count(*) from posts where id in (4, 5) and body = 'none'").await, 2);
    assert_eq!(world.fixture.number("select count(*) from posts").await, 5);
    assert_eq!(world.fixture.number(&kept).await, 5, "nothing is taken from what was kept");
    // The same once more adds nothing.
    world.fixture.sql(&found.by_hand[0]).await;
    assert_eq!(world.fixture.number("select count(*) from posts").await, 5);
    let nothing = foresee(&world.config, &pinned, &world.baseline, Some(&world.backup), started(), MINUTE).await;
    assert_eq!(nothing, ["No original table is missing or damaged: there is nothing to restore."]);
}

#[tokio::test]
async fn a_backup_that_ends_too_early_is_found_before_anything_is_changed() {
    let world = World::new(ORIGINALS, "drop table comments").await;
    let file = std::fs::read_dir(world.backup.join("dump"))
        .expect("files")
        .map(|entry| entry.expect("an entry").path())
        .find(|path| path.extension().is_some_and(|extension| extension == "gz"))
        .expect("a file");
    let bytes = std::fs::read(&file).expect("there");
    std::fs::write(&file, &bytes[..bytes.len() - 9]).expect("written");
    world.fails("is not what was backed up: its size or hash differs").await;
    // Whoever is asked to approve knows it before.
    let pinned = Pinned::new(&world.config.database);
    let told = |config: Config| {
        let (pinned, baseline, backup) = (&pinned, &world.baseline, &world.backup);
        async move { foresee(&config, pinned, baseline, Some(backup), started(), MINUTE).await.join("\n") }
    };
    let plain = told(world.config.clone()).await;
    assert!(plain.contains("CANNOT BE USED: ") && plain.contains("find another backup before you approve"), "{plain}");
    let mut config = world.config.clone();
    config.database.original_schema_file = Some("schema.sql".into());
    let structure = told(config).await;
    assert!(structure.contains("would be made from schema.sql WITHOUT ROWS"), "{structure}");
    std::fs::remove_file(&file).expect("gone");
    world.fails("the backup cannot be used").await;
}

#[tokio::test]
async fn whatever_can_hang_on_a_table_comes_back_with_it() {
    let fixture = Fixture::new().await;
    fixture
        .sql(
            "do $$ begin create role restore_reader; exception when duplicate_object or unique_violation then end $$;
             do $$ begin create role restore_owner; exception when duplicate_object or unique_violation then end $$;",
        )
        .await;
    fixture
        .sql(
            "create table profiles (id int primary key, name text unique);
             create type mood as enum ('ok', 'sad');
             create sequence shared start 100;
             create table posts (
               id int generated by default as identity (start 50 increment 5) primary key, shared int default nextval('shared'),
               parent int references posts deferrable initially deferred, author int constraint writer references profiles on update cascade,
               mood mood not null default 'ok', span int4range, exclude using gist (span with &&),
               constraint odd unique nulls not distinct (shared, mood)) with (fillfactor = 70);
             create table comments (id serial primary key, post int);
             alter table comments add foreign key (post) references posts on delete cascade not valid;
             create index by_mood on posts (mood desc, lower(author::text)) include (span) where mood = 'sad';
             create view sad as select * from posts where mood = 'sad';
             create materialized view counts as select mood, count(*) from posts group by mood;
             create unique index on counts (mood);
             create function note() returns trigger language plpgsql as 'begin return new; end';
             create trigger noted after insert on posts referencing new table as fresh
               for each statement execute function note();
             create constraint trigger late after delete or update of mood on posts deferrable for each row execute function note();
             create trigger off before delete on posts for each row execute function note();
             alter table posts disable trigger off;
             create rule quiet as on update to posts where old.id = 0 do instead nothing;
             alter table posts enable row level security, force row level security, replica identity full;
             create policy strict on posts as restrictive for update to restore_reader using (id > 0) with check (id < 9000);
             create policy seen on comments using (exists (select from posts p where p.id = post));
             alter table comments enable row level security;
             alter table posts owner to restore_owner; alter view sad owner to restore_owner;
             grant select, insert on posts to restore_reader with grant option; grant update (mood) on posts to public;
             grant select on sad, counts to restore_reader;
             comment on constraint writer on posts is 'who'; comment on index by_mood is 'i'; comment on trigger noted on posts is 't';
             comment on policy strict on posts is 'p'; comment on view sad is 'v';
             create publication filtered for table posts (id, author) where (id > 1), comments;
             insert into profiles values (1, 'a');
             insert into posts (author, mood) values (1, 'sad'), (1, 'ok'); insert into comments (post) values (50), (55);
             refresh materialized view counts",
        )
        .await;
    let config = fixture.config();
    let world = World::of(fixture, config, "drop table posts cascade").await;
    let (detail, _) = world.restores_all().await;
    assert!(detail.contains("public.posts (was dropped)"), "{detail}");
    world.fixture.sql("insert into posts (author) values (1)").await;
    assert_eq!(world.fixture.number("select max(id)::int8 from posts").await, 60, "in its own steps");
    assert_eq!(
        world.fixture.number("select max(shared)::int8 from posts").await,
        102,
        "the shared one was not touched"
    );
    assert_eq!(world.fixture.number("select count(*) from counts").await, 2, "filled");
}
