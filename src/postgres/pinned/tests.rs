use super::*;
use crate::demo::cluster::{Cluster, Stop};
use crate::postgres::testing::{self, Fixture, own_directory};

async fn pid(session: &Session) -> i32 {
    session.client().query_one("select pg_backend_pid()", &[]).await.expect("a number").get(0)
}

async fn setting(session: &Session, name: &str) -> String {
    session.client().query_one("select current_setting($1)", &[&name]).await.expect("a setting").get(0)
}

/// Looks until it is so.
async fn until(what: &str, so: impl AsyncFn() -> bool) {
    let looks = async {
        while !so().await {
            sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), looks).await.unwrap_or_else(|_elapsed| panic!("not in time: {what}"));
}

/// Somebody tends it as long as the guard lives.
fn tended(pinned: &Pinned) -> tokio_util::sync::DropGuard {
    let cancel = CancellationToken::new();
    tokio_util::task::TaskTracker::new().spawn(pinned.clone().tend(cancel.clone()));
    cancel.drop_guard()
}

const SOON: Duration = Duration::from_secs(20);

#[tokio::test]
async fn what_a_step_leaves_in_a_session_is_gone_when_the_next_borrows_it() {
    let fixture = Fixture::new().await;
    fixture.sql("create table pages (id int)").await;
    let pinned = Pinned::new(&fixture.database());
    let session = pinned.session().await.expect("a session");
    let first = pid(&session).await;
    session
        .client()
        .batch_execute(
            "set search_path = public; set statement_timeout = 0; set lock_timeout = 0; select pg_advisory_lock(4711); \
             create temp table mine (); listen news; begin; lock table public.pages",
        )
        .await
        .expect("a mess");
    drop(session);
    let session = pinned.session().await.expect("a session");
    assert_eq!(pid(&session).await, first, "the connection was kept");
    for (name, value) in [
        ("search_path", "pg_catalog, pg_temp"),
        ("statement_timeout", "20s"),
        ("lock_timeout", "100ms"),
        ("row_security", "off"),
        ("application_name", "rollbackd"),
        ("TimeZone", "UTC"),
    ] {
        assert_eq!(setting(&session, name).await, value, "{name}");
    }
    let left = "select count(*) from pg_locks where pid = pg_backend_pid() and (locktype = 'advisory' or relation = \
                (select oid from pg_class where relname = 'pages'))";
    assert_eq!(session.client().query_one(left, &[]).await.expect("a count").get::<_, i64>(0), 0);
    let temporary = "select count(*) from pg_class where relname = 'mine'";
    assert_eq!(session.client().query_one(temporary, &[]).await.expect("a count").get::<_, i64>(0), 0);

    // One whose transaction has failed, and one for a user's own query.
    session.client().batch_execute("begin; select 1/0").await.expect_err("a failure");
    drop(session);
    let session = pinned.session_for(Manner::Users).await.expect("a session");
    assert_eq!(pid(&session).await, first);
    assert_eq!(setting(&session, "search_path").await, "\"$user\", public");
    assert_eq!(setting(&session, "lock_timeout").await, "0");
}

#[tokio::test]
async fn a_step_that_is_ended_in_the_middle_leaves_neither_its_statement_nor_its_locks() {
    let fixture = Fixture::new().await;
    fixture.sql("create table pages (id int)").await;
    let pinned = Pinned::new(&fixture.database());
    pinned.keep(true);
    let _tended = tended(&pinned);
    pinned.ready(SOON).await.expect("both are open");
    let mut session = pinned.session().await.expect("a session");
    let first = pid(&session).await;
    let step = async {
        let transaction = session.client_mut().transaction().await.expect("a transaction");
        transaction.batch_execute("lock table public.pages; select pg_sleep(15)").await.expect("never");
    };
    let running = "select count(*) from pg_stat_activity where query like '%pg_sleep(15)%' and state = 'active' \
                   and pid <> pg_backend_pid()";
    tokio::select! {
        () = step => panic!("it sleeps"),
        () = until("it sleeps", async || fixture.number(running).await == 1) => {}
    }
    drop(session);
    until("its statement was cancelled", async || fixture.number(running).await == 0).await;
    let locks = "select count(*) from pg_locks where relation = 'pages'::regclass";
    until("its lock is gone", async || fixture.number(locks).await == 0).await;
    // Whoever looks after the places may have it in hand just now.
    until("the connection is lent again", async || {
        let (one, two) = (pinned.session().await.expect("one"), pinned.session().await.expect("two"));
        [pid(&one).await, pid(&two).await].contains(&first)
    })
    .await;
}

#[tokio::test]
async fn lost_ones_are_opened_anew_and_all_are_closed_when_nobody_wants_them() {
    let directory = own_directory();
    let mut cluster = Cluster::start(&directory.path().join("c")).await.expect("a server");
    let database = testing::database(&cluster.url("postgres"));
    let pinned = Pinned::new(&database);
    let _tended = tended(&pinned);
    let ours = "select count(*) from pg_stat_activity where application_name = 'rollbackd' and pid <> pg_backend_pid()";
    let other = async |url: &str| {
        let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.expect("connects");
        let (row, _end) = tokio::join!(
            async {
                let row = client.query_one(ours, &[]).await;
                drop(client);
                row
            },
            connection
        );
        row.expect("a count").get::<_, i64>(0)
    };
    let url = cluster.url("postgres");
    assert_eq!(other(&url).await, 0, "nothing is open before a window is");
    pinned.keep(true);
    pinned.ready(SOON).await.expect("both are open");
    assert_eq!(other(&url).await, 2);

    // Nobody has asked for one when it is replaced.
    let end = "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'rollbackd'";
    cluster.execute("postgres", end).await.expect("ended");
    until("both are open again", async || other(&url).await == 2).await;

    cluster.stop(Stop::Immediate).await.expect("stops");
    until("the loss is said", async || pinned.shortage().is_some_and(|said| said.starts_with("2 of 2 "))).await;
    pinned.session().await.expect_err("there is no server");
    cluster.start_again().await.expect("starts");
    pinned.ready(SOON).await.expect("both are open again");
    assert_eq!(pinned.shortage(), None);

    pinned.keep(false);
    until("they are closed", async || other(&url).await == 0).await;
}

#[tokio::test]
async fn a_full_server_is_worked_with_through_the_kept_ones() {
    let directory = own_directory();
    let cluster = Cluster::start(&directory.path().join("c")).await.expect("a server");
    let setup = "create role poor login password 'sesame' connection limit 2; create table public.pages (id int)";
    cluster.execute("postgres", setup).await.expect("a role");
    let mut database = testing::database(&cluster.url_as("poor", "sesame", "postgres"));
    database.connect_timeout = Duration::from_secs(2);
    let pinned = Pinned::new(&database);
    pinned.keep(true);
    let _tended = tended(&pinned);
    pinned.ready(SOON).await.expect("both are open");
    let refused = Session::connect(&database).await.expect_err("the role has no more");
    assert!(matches!(refused, ConnectError::Full { .. }), "{refused}");

    let (one, two) = (pinned.session().await.expect("one"), pinned.session().await.expect("two"));
    let refused = pinned.session().await.expect_err("both are in use");
    assert!(matches!(refused, ConnectError::Full { .. }), "{refused}");
    // The third has to wait for one of them.
    let (third, ()) = tokio::join!(pinned.session(), async {
        sleep(Duration::from_millis(300)).await;
        drop(one);
    });
    third.expect("the one that was given back");
    drop(two);
}
