//! The setting, the function and the notification that PostgREST acts on, on a real server. PostgREST itself is played
//! by what it does: it reads the role's settings with the same query, and calls the function as another role.

use futures_util::StreamExt as _;
use rollbackd_core::baseline::quote_identifier;
use serde_json::Value;
use tokio_postgres::{AsyncMessage, NoTls};

use super::*;
use crate::config::gate::REFUSE;
use crate::postgres::session::Session;
use crate::postgres::testing::Fixture;

/// PostgREST's own query for its settings, as the role it connects as.
const SETTINGS: &str = "with role_setting as (
    select setdatabase as database, unnest(setconfig) as setting from pg_catalog.pg_db_role_setting
    where setrole = $1::text::regrole::oid
      and setdatabase in (0, (select oid from pg_catalog.pg_database where datname = current_catalog))),
  kv as (select database, substr(setting, 1, strpos(setting, '=') - 1) as k, substr(setting, strpos(setting, '=') + 1) as v
    from role_setting)
  select distinct on (k) v from kv where k = 'pgrst.db_pre_request' order by k, database desc nulls last";

fn postgrest_gate(role: &str) -> Gate {
    Gate { timeout: Duration::from_secs(10), ..gate(GateKind::Postgrest { role: role.to_owned() }, None) }
}

async fn make(fixture: &Fixture, role: &str) {
    fixture.sql(&format!("create role {} noinherit login password 'sesame'", quote_identifier(role))).await;
}

/// What PostgREST would call.
async fn pre_request(fixture: &Fixture, role: &str) -> Option<String> {
    let session = fixture.session().await;
    let row = session.client().query_opt(SETTINGS, &[&quote_identifier(role)]).await.unwrap();
    row.map(|row| row.get(0))
}

/// Everything that is set for roles.
async fn settings(fixture: &Fixture) -> Vec<String> {
    let session = fixture.session().await;
    let sql = format!(
        "select setdatabase::text || ' ' || setrole::regrole::text || ' ' || setconfig::text from pg_db_role_setting \
         where setdatabase in (0, (select oid from pg_database where datname = {})) order by 1",
        crate::postgres::literal(&fixture.name)
    );
    session.client().query(&sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

async fn prior_of(gate: &Gate, fixture: &Fixture) -> String {
    let outcome = super::super::read(gate, &Pinned::new(&fixture.database()), LONG).await;
    assert_succeeded(&outcome);
    let Finding::Gate { prior } = outcome.finding else { panic!("{outcome:?}") };
    prior
}

async fn close(gate: &Gate, fixture: &Fixture, prior: &str) -> Outcome {
    super::super::close(gate, &Pinned::new(&fixture.database()), prior, LONG).await
}

async fn open(gate: &Gate, fixture: &Fixture, prior: &str) -> Outcome {
    super::super::open(gate, &Pinned::new(&fixture.database()), prior, LONG).await
}

async fn has_schema(fixture: &Fixture) -> bool {
    fixture.number("select count(*) from pg_namespace where nspname = 'rollbackd_gate'").await == 1
}

/// A session that listens as PostgREST does, and hands on what it hears.
async fn listen(
    fixture: &Fixture,
) -> (tokio_postgres::Client, tokio::sync::mpsc::UnboundedReceiver<String>, JoinSet<()>) {
    let (client, mut connection) = tokio_postgres::connect(&fixture.cluster.url(&fixture.name), NoTls).await.unwrap();
    let (sender, hears) = tokio::sync::mpsc::unbounded_channel();
    let mut task = JoinSet::new();
    task.spawn(async move {
        let mut messages = futures_util::stream::poll_fn(move |context| connection.poll_message(context));
        while let Some(Ok(message)) = messages.next().await {
            if let AsyncMessage::Notification(notification) = message {
                drop(sender.send(format!("{} {}", notification.channel(), notification.payload())));
            }
        }
    });
    client.batch_execute("listen pgrst").await.unwrap();
    (client, hears, task)
}

#[tokio::test]
async fn requests_are_refused_with_503_by_every_role() {
    let fixture = Fixture::new().await;
    let role = "Authenticator \"1\" 🚀";
    make(&fixture, role).await;
    fixture.sql(&format!("create role \"rest anon\"; grant \"rest anon\" to {}", quote_identifier(role))).await;
    let gate = postgrest_gate(role);
    let before = settings(&fixture).await;
    let (_client, mut hears, _task) = listen(&fixture).await;
    let prior = prior_of(&gate, &fixture).await;
    assert_eq!(prior, "{\"set\":null}");
    for _ in 0..2 {
        assert_succeeded(&close(&gate, &fixture, &prior).await);
        assert_eq!(tokio::time::timeout(LONG, hears.recv()).await.unwrap().unwrap(), "pgrst reload config");
    }
    assert_eq!(pre_request(&fixture, role).await.as_deref(), Some(REFUSE));

    // As PostgREST calls it: as another role, inside a read-only transaction, with the name's parts quoted.
    let database = testing::database(&fixture.cluster.url_as(role, "sesame", &fixture.name));
    let tls = database.tls.clone();
    let session = Session::connect_to(&database.url, &tls, LONG, LONG).await.unwrap();
    session
        .client()
        .batch_execute("begin read only; set local role \"rest anon\"; set local search_path = ''")
        .await
        .unwrap();
    let error = session.client().batch_execute("select \"rollbackd_gate\".\"refuse\"()").await.unwrap_err();
    let error = error.as_db_error().unwrap();
    assert_eq!(error.code().code(), "PGRST");
    let message: Value = serde_json::from_str(error.message()).unwrap();
    assert!(message["code"].is_string() && message["message"].is_string(), "{message}");
    let detail: Value = serde_json::from_str(error.detail().unwrap()).unwrap();
    assert_eq!((&detail["status"], &detail["headers"]["Retry-After"]), (&503.into(), &"30".into()), "{detail}");

    for _ in 0..2 {
        assert_succeeded(&open(&gate, &fixture, &prior).await);
        assert_eq!(tokio::time::timeout(LONG, hears.recv()).await.unwrap().unwrap(), "pgrst reload config");
        assert!(!has_schema(&fixture).await);
    }
    assert_eq!(settings(&fixture).await, before);
}

#[tokio::test]
async fn what_was_found_is_put_back_at_its_own_level() {
    let fixture = Fixture::new().await;
    make(&fixture, "rest_found").await;
    let name = quote_identifier(&fixture.name);
    fixture
        .sql(&format!(
            "alter role rest_found set pgrst.db_pre_request = 'public.check_all';
             alter role rest_found in database {name} set pgrst.db_pre_request = 'it''s \\ \"odd\"';
             alter role rest_found in database {name} set pgrst.db_max_rows = '7'"
        ))
        .await;
    let gate = postgrest_gate("rest_found");
    let before = settings(&fixture).await;
    for _ in 0..2 {
        let prior = prior_of(&gate, &fixture).await;
        // A crash may come before the change.
        assert_succeeded(&open(&gate, &fixture, &prior).await);
        assert_succeeded(&close(&gate, &fixture, &prior).await);
        assert_eq!(pre_request(&fixture, "rest_found").await.as_deref(), Some(REFUSE));
        assert_succeeded(&open(&gate, &fixture, &prior).await);
        let mut now = settings(&fixture).await;
        let sorted = |setting: &mut String| {
            let mut parts: Vec<char> = setting.chars().collect();
            parts.sort_unstable();
            *setting = parts.into_iter().collect();
        };
        let mut was = before.clone();
        now.iter_mut().for_each(sorted);
        was.iter_mut().for_each(sorted);
        assert_eq!(now, was, "the same settings, in whatever order");
        assert_eq!(pre_request(&fixture, "rest_found").await.as_deref(), Some("it's \\ \"odd\""));
        // And with nothing of its own in this database, where the role's setting holds.
        fixture.sql(&format!("alter role rest_found in database {name} reset pgrst.db_pre_request")).await;
        let prior = prior_of(&gate, &fixture).await;
        assert_succeeded(&close(&gate, &fixture, &prior).await);
        assert_eq!(pre_request(&fixture, "rest_found").await.as_deref(), Some(REFUSE));
        assert_succeeded(&open(&gate, &fixture, &prior).await);
        assert_eq!(pre_request(&fixture, "rest_found").await.as_deref(), Some("public.check_all"));
        fixture
            .sql(&format!("alter role rest_found in database {name} set pgrst.db_pre_request = 'it''s \\ \"odd\"'"))
            .await;
    }
}

#[tokio::test]
async fn the_function_is_no_part_of_the_migration_and_goes_last() {
    let fixture = Fixture::new().await;
    make(&fixture, "rest_one").await;
    make(&fixture, "rest_two").await;
    let baseline = fixture.baseline().await;
    let (one, two) = (postgrest_gate("rest_one"), postgrest_gate("rest_two"));
    let priors = (prior_of(&one, &fixture).await, prior_of(&two, &fixture).await);
    assert_succeeded(&close(&one, &fixture, &priors.0).await);
    assert_succeeded(&close(&two, &fixture, &priors.1).await);
    assert!(has_schema(&fixture).await);
    let now = fixture.baseline().await;
    assert_eq!(now.catalog, baseline.catalog);
    let opened = open(&two, &fixture, &priors.1).await;
    assert_succeeded(&opened);
    assert!(opened.detail.contains("stays: another role is told to call it"), "{}", opened.detail);
    assert!(has_schema(&fixture).await);
    let opened = open(&one, &fixture, &priors.0).await;
    assert!(opened.is_success() && opened.detail.ends_with("rollbackd_gate.refuse is removed"), "{opened:?}");
    assert!(!has_schema(&fixture).await);

    // What somebody put beside it is not ours to drop.
    assert_succeeded(&close(&one, &fixture, &priors.0).await);
    fixture.sql("create table rollbackd_gate.theirs ()").await;
    let opened = open(&one, &fixture, &priors.0).await;
    assert!(opened.is_success() && opened.detail.contains("is left behind"), "{opened:?}");
    assert_eq!(fixture.number("select count(*) from rollbackd_gate.theirs").await, 0);
    assert_eq!(pre_request(&fixture, "rest_one").await, None);
}

#[tokio::test]
async fn what_ran_before_has_to_end() {
    let fixture = Fixture::new().await;
    make(&fixture, "rest_slow").await;
    let gate = Gate { timeout: Duration::from_secs(2), ..postgrest_gate("rest_slow") };
    let database = testing::database(&fixture.cluster.url_as("rest_slow", "sesame", &fixture.name));
    let tls = database.tls.clone();
    let slow = Session::connect_to(&database.url, &tls, LONG, LONG).await.unwrap();
    slow.client().batch_execute("begin").await.unwrap();
    let prior = prior_of(&gate, &fixture).await;
    let closed = close(&gate, &fixture, &prior).await;
    assert_eq!(closed.result, StepResult::TimedOut, "{closed:?}");
    assert!(closed.detail.contains("1 of those that ran before still do"), "{closed:?}");
    assert_eq!(pre_request(&fixture, "rest_slow").await.as_deref(), Some(REFUSE), "new ones are refused already");
    slow.client().batch_execute("commit").await.unwrap();
    assert_succeeded(&close(&gate, &fixture, &prior).await);
    slow.client().batch_execute("select 1").await.expect("an idle connection stays");
    assert_succeeded(&open(&gate, &fixture, &prior).await);
}

#[tokio::test]
async fn it_is_known_beforehand_whether_it_would_work() {
    let fixture = Fixture::new().await;
    make(&fixture, "rest_tried").await;
    make(&fixture, "rest_weak").await;
    let gate = postgrest_gate("rest_tried");
    let before = settings(&fixture).await;
    let said = rehearse(&gate, &Pinned::new(&fixture.database()), LONG).await.unwrap();
    assert!(
        said.contains("can be told through role \"rest_tried\" to refuse") && said.contains("is PostgREST running?")
    );
    assert!(!has_schema(&fixture).await);
    assert_eq!(settings(&fixture).await, before, "trying changes nothing");

    let missing = rehearse(&postgrest_gate("rest_nobody"), &Pinned::new(&fixture.database()), LONG).await.unwrap_err();
    assert!(missing.contains("role \"rest_nobody\" does not exist"), "{missing}");
    let weak = testing::database(&fixture.cluster.url_as("rest_weak", "sesame", &fixture.name));
    let refused = rehearse(&gate, &Pinned::new(&weak), LONG).await.unwrap_err();
    assert!(refused.contains("permission denied") && refused.contains("needs CREATE on the database"), "{refused}");
    let name = quote_identifier(&fixture.name);
    fixture.sql(&format!("grant create on database {name} to rest_weak; alter role rest_weak createrole")).await;
    let version = fixture.number("select current_setting('server_version_num')::int8").await;
    if version >= 160_000 {
        fixture.sql("grant rest_tried to rest_weak with admin option").await;
    }
    if version >= 150_000 {
        let refused = rehearse(&gate, &Pinned::new(&weak), LONG).await.unwrap_err();
        assert!(refused.contains("GRANT SET ON PARAMETER"), "{refused}");
        fixture.sql("grant set on parameter pgrst.db_pre_request to rest_weak").await;
    }
    rehearse(&gate, &Pinned::new(&weak), LONG).await.expect("it has what it needs");

    let prior = prior_of(&gate, &fixture).await;
    let closed = super::super::close(&gate, &Pinned::new(&weak), &prior, LONG).await;
    assert!(closed.is_success() && closed.detail.contains("cannot be seen without pg_read_all_stats"), "{closed:?}");
    let refused = rehearse(&gate, &Pinned::new(&weak), LONG).await.unwrap_err();
    assert!(refused.contains("traffic is stopped now"), "{refused}");
    // Found closed by us: it is left as it was found.
    let found = prior_of(&gate, &fixture).await;
    assert!(is_left_closed(&gate, &found));
    assert_succeeded(&super::super::open(&gate, &Pinned::new(&weak), &found, LONG).await);
    assert!(has_schema(&fixture).await);
    assert_succeeded(&super::super::open(&gate, &Pinned::new(&weak), &prior, LONG).await);
    assert!(!has_schema(&fixture).await);

    fixture.sql("create schema rollbackd_gate").await;
    let taken = rehearse(&gate, &Pinned::new(&weak), LONG).await.unwrap_err();
    assert!(taken.contains("schema rollbackd_gate is there and belongs to somebody else"), "{taken}");
}
