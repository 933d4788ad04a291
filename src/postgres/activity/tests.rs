use super::*;
use crate::demo::cluster::Cluster;
use crate::postgres::session::Session;
use crate::postgres::testing::{self, Fixture};

async fn oids(client: &Client, names: &[&str]) -> Vec<u32> {
    let sql = "select c.oid from pg_class c where relname = any($1) and relkind = 'r' order by 1";
    let rows = client.query(sql, &[&names]).await.expect("tables");
    rows.iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn who_holds_locks_is_told_without_queries() {
    let fixture = Fixture::new().await;
    fixture.sql("create table pages (id int); create table media (id int); create table posts (id int)").await;
    let watcher = fixture.session().await;
    let relations = oids(watcher.client(), &["pages", "media"]).await;
    assert_eq!(holders(watcher.client(), &relations).await.expect("a look"), []);

    let mut dump = fixture.session().await;
    dump.client().batch_execute("set application_name = 'pg_dump'").await.expect("a name");
    let dump_pid = own_pid(dump.client()).await.expect("a pid");
    let dumping = dump.client_mut().transaction().await.expect("a transaction");
    dumping.batch_execute("lock table pages, media in access share mode").await.expect("locks");
    let mut writer = fixture.session().await;
    let writing = writer.client_mut().transaction().await.expect("a transaction");
    writing
        .batch_execute("select from pages; insert into pages values (4711); select from posts")
        .await
        .expect("works");

    let found = holders(watcher.client(), &relations).await.expect("a look");
    assert_eq!(found.len(), 2, "{found:?}");
    let dump = found.iter().find(|one| one.pid == Some(dump_pid)).expect("the dump");
    assert_eq!(
        (dump.mode.as_str(), dump.tables.as_slice()),
        ("AccessShareLock", ["public.media", "public.pages"].map(str::to_owned).as_slice())
    );
    assert!(
        dump.words()
            .starts_with(&format!("a running pg_dump (pid {dump_pid}, role postgres, idle in transaction, for ")),
        "{}",
        dump.words()
    );
    assert!(dump.words().ends_with("holds AccessShareLock on 2 tables"), "{}", dump.words());
    let writer = found.iter().find(|one| one.pid != Some(dump_pid)).expect("the writer");
    assert_eq!(
        (writer.mode.as_str(), writer.tables.as_slice()),
        ("RowExclusiveLock", ["public.pages".to_owned()].as_slice())
    );
    let json = serde_json::to_string(&found).expect("JSON");
    assert!(!json.contains("4711 ") && !json.contains("insert"), "{json}");
}

#[tokio::test]
async fn a_prepared_transaction_is_named_and_cannot_be_ended() {
    let directory = testing::own_directory();
    let mut cluster = Cluster::start(&directory.path().join("c")).await.expect("a server");
    cluster.execute("postgres", "alter system set max_prepared_transactions = 5").await.expect("a setting");
    cluster.stop(crate::demo::cluster::Stop::Fast).await.expect("stops");
    cluster.start_again().await.expect("starts");
    let prepared = "create table pages (id int)";
    cluster.execute("postgres", prepared).await.expect("a table");
    let database = testing::database(&cluster.url("postgres"));
    let other =
        Session::connect_to(&database.url, &database.tls, database.connect_timeout, Duration::from_secs(60)).await;
    let other = other.expect("connects");
    let prepare = "begin; insert into public.pages values (1); prepare transaction 'it''s half done'";
    other.client().batch_execute(prepare).await.expect("prepared");

    let watcher = Session::connect(&database).await.expect("connects");
    let relations = oids(watcher.client(), &["pages"]).await;
    let found = holders(watcher.client(), &relations).await.expect("a look");
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((found[0].pid, found[0].prepared.as_deref()), (None, Some("it's half done")));
    assert!(found[0].words().contains("ROLLBACK PREPARED 'it''s half done'"), "{}", found[0].words());

    let mut waiting = Session::connect(&database).await.expect("connects");
    waiting.client().batch_execute("set lock_timeout = '60s'").await.expect("a setting");
    let pid = own_pid(waiting.client()).await.expect("a pid");
    let transaction = waiting.client_mut().transaction().await.expect("a transaction");
    let looks = async {
        loop {
            let seen = blockers(watcher.client(), pid).await.expect("a look");
            if !seen.is_empty() {
                break seen;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let lock = transaction.batch_execute("lock table public.pages in access exclusive mode");
    let seen = tokio::select! {
        seen = looks => seen,
        result = lock => panic!("the lock is not to be had: {result:?}"),
    };
    assert_eq!((seen.len(), seen[0].pid, seen[0].kind), (1, 0, Kind::Prepared), "{seen:?}");
    assert!(seen[0].words.contains("no session to end"), "{}", seen[0].words);
    let told = terminate(watcher.client(), &seen, Duration::from_secs(5)).await;
    assert_eq!((told.ended, told.refused.len()), (0, 0));
}

#[tokio::test]
async fn who_only_waits_is_not_ended_with_who_holds() {
    let fixture = Fixture::new().await;
    fixture.sql("create table pages (id int)").await;
    let (mut holder, waiter, us) = (fixture.session().await, fixture.session().await, fixture.session().await);
    let watcher = fixture.session().await;
    let (waiter_pid, our_pid) =
        (own_pid(waiter.client()).await.expect("a pid"), own_pid(us.client()).await.expect("a pid"));
    let holder_pid = own_pid(holder.client()).await.expect("a pid");
    let holding = holder.client_mut().transaction().await.expect("a transaction");
    holding.batch_execute("lock table pages in access share mode").await.expect("a lock");
    let blocked = async |pid: i32, how_many: usize| loop {
        let seen = blockers(watcher.client(), pid).await.expect("a look");
        if seen.len() >= how_many {
            break seen;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let watch = async {
        blocked(waiter_pid, 1).await;
        let ours = us.client().batch_execute("begin; lock table pages in access exclusive mode");
        tokio::pin!(ours);
        let seen = tokio::select! {
            seen = blocked(our_pid, 2) => seen,
            result = &mut ours => panic!("too early: {result:?}"),
        };
        let kinds: Vec<(i32, Kind)> = seen.iter().map(|one| (one.pid, one.kind)).collect();
        let mut wanted = vec![(holder_pid, Kind::Holder), (waiter_pid, Kind::Waiter)];
        wanted.sort_by_key(|(pid, _)| *pid);
        assert_eq!(kinds, wanted);
        let told = terminate(watcher.client(), &seen, Duration::from_secs(10)).await;
        assert_eq!((told.ended, told.refused), (1, vec![]));
    };
    let (turn, ()) = tokio::join!(waiter.client().batch_execute("begin; lock table pages; commit"), watch);
    turn.expect("it had its turn, and its session was left alone");
    assert!(holding.batch_execute("select 1").await.is_err(), "the holder was ended");
}
