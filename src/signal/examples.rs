//! The examples of sources of error rates: each is valid, and says of real lines and of a real server what it claims.
//! The one for nginx is tried on a real one beside the follower.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rollbackd_core::sample::Reading;

use super::Reader;
use crate::config;
use crate::config::model::{Config, SignalSource};
use crate::postgres::testing::Fixture;

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config/examples")
}

fn example(name: &str) -> Config {
    config::load(&directory().join(name)).unwrap_or_else(|problems| panic!("{problems}")).config
}

/// What an example says of some lines: good and bad ones, and the last bad one.
async fn counted(name: &str, lines: &str) -> (u64, u64, Option<String>) {
    let place = tempfile::tempdir().unwrap();
    let mut config = example(name);
    let path = place.path().join("a.log");
    let SignalSource::Log(log) = &mut config.signals[0].source else { panic!("{name} has no log") };
    log.path.clone_from(&path);
    config.state_dir = place.path().to_owned();
    let reader = Reader::new(Arc::new(config)).unwrap();
    assert!(matches!(reader.read(0).await.sample.reading, Reading::Unreadable { .. }), "it is not there yet");
    std::fs::write(&path, lines).unwrap();
    match reader.read(0).await.sample.reading {
        Reading::Events { good, bad, value: None, reason } => (good, bad, reason),
        other @ (Reading::Events { .. } | Reading::Unreadable { .. }) => panic!("{other:?}"),
    }
}

#[test]
fn every_example_is_valid_and_warns_of_nothing() {
    let mut seen = 0;
    for entry in std::fs::read_dir(directory()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|ending| ending == "toml") {
            let loaded = config::load(&path).unwrap_or_else(|problems| panic!("{problems}"));
            assert!(loaded.warnings.is_empty(), "{}", loaded.warnings);
            seen += 1;
        }
    }
    assert!(seen >= 4, "{seen}");
}

#[tokio::test]
async fn lines_of_nginx() {
    // Written by nginx 1.22.
    let lines = r#"127.0.0.1 - - [25/Nov/2026:14:01:12 +0000] "GET /posts HTTP/1.1" 200 612 "-" "Mozilla/5.0 (X11; Linux x86_64)"
10.0.0.7 - alice [25/Nov/2026:14:01:12 +0000] "POST /posts HTTP/1.1" 502 157 "https://shop.example/" "curl/7.88.1"
10.0.0.7 - - [25/Nov/2026:14:01:13 +0000] "GET /slow HTTP/1.1" 499 0 "-" "curl/7.88.1"
10.0.0.8 - - [25/Nov/2026:14:01:13 +0000] "\x16\x03\x01" 400 157 "-" "-"
10.0.0.8 - - [25/Nov/2026:14:01:13 +0000] "GET /?q=\x22 503  HTTP/1.1" 404 153 "-" "x\x22 500 "
"#;
    let (good, bad, reason) = counted("nginx-access-log.toml", lines).await;
    assert_eq!((good, bad), (4, 1));
    assert!(reason.unwrap().starts_with("10.0.0.7 - alice"));
}

#[tokio::test]
async fn lines_in_json() {
    let lines = r#"{"time":"2026-11-25T02:00:00.120Z","level":"info","msg":"request","path":"/posts","status":200}
{"time":"2026-11-25T02:00:00.130Z","level":"info","msg":"request","path":"/posts","status":404}
{"level": "info", "msg": "request", "status": 503, "took": 5.1}
{"time":"2026-11-25T02:00:00.340Z","level":"error","msg":"relation \"posts\" does not exist"}
{"msg":"out of memory","level" : "fatal"}
{"time":"2026-11-25T02:00:00.350Z","level":"info","msg":"cache is warm","items":500}
{"level":"info","msg":"{\"status\":500,\"level\":\"error\"}"}
{"level":"warn","msg":"slow","status":5001}
Error: not JSON at all, "status":500
"#;
    let (good, bad, reason) = counted("json-log.toml", lines).await;
    // A line that is no JSON is taken as what it says.
    assert_eq!((good, bad), (2, 4), "{reason:?}");
}

#[tokio::test]
async fn lines_of_postgrest_plain_and_kept_by_docker() {
    // As PostgREST's reference shows them, with other statuses.
    let lines = r#"127.0.0.1 - user [26/Jul/2021:01:56:38 -0500] "GET /clients HTTP/1.1" 200 56 "" "curl/7.64.0"
127.0.0.1 - anonymous [26/Jul/2021:01:56:48 -0500] "GET /unexistent HTTP/1.1" 404 162 "" "curl/7.64.0"
127.0.0.1 - anonymous [26/Jul/2021:01:56:48 -0500] "GET /unexistent HTTP/1.1" 404 - "" "curl/7.64.0"
127.0.0.1 - authenticator [26/Jul/2021:01:56:49 -0500] "POST /rpc/checkout HTTP/1.1" 503 - "" "HTTP/1.1\" 200 "
06/May/2024:08:16:11 -0500: Starting PostgREST 12.1...
06/May/2024:08:16:11 -0500: Schema cache loaded 15 Relations, 8 Relationships, 8 Functions
{"log":"127.0.0.1 - user [26/Jul/2021:01:56:38 -0500] \"GET /clients HTTP/1.1\" 200 56 \"\" \"curl/7.64.0\"\n","stream":"stdout","time":"2026-11-25T02:00:00.120Z"}
{"log":"127.0.0.1 - user [26/Jul/2021:01:56:38 -0500] \"GET /clients HTTP/1.1\" 500 56 \"\" \"curl/7.64.0\"\n","stream":"stdout","time":"2026-11-25T02:00:00.120Z"}
{"log":"26/Jul/2021:01:56:38 -0500: Listening on port 3000\n","stream":"stderr","time":"2026-11-25T02:00:00.120Z"}
"#;
    let (good, bad, reason) = counted("supabase-postgrest-log.toml", lines).await;
    assert_eq!((good, bad), (4, 2));
    assert!(reason.unwrap().starts_with("{\"log\":\"127.0.0.1 - user"));
}

/// Reads a signal until it says so: sessions pass on what they counted after a while.
async fn until(reader: &Reader, index: usize, what: &str, mut holds: impl FnMut(&Reading) -> bool) {
    let mut seen = Vec::new();
    for _ in 0..300 {
        let reading = reader.read(index).await.sample.reading;
        assert!(!matches!(reading, Reading::Unreadable { .. }), "{reading:?}");
        if holds(&reading) {
            return;
        }
        seen.push(reading);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{what}: {:?}", seen.last());
}

fn value(reading: &Reading) -> f64 {
    match reading {
        Reading::Events { value: Some(value), bad: 0, .. } => *value,
        other @ (Reading::Events { .. } | Reading::Unreadable { .. }) => panic!("no value: {other:?}"),
    }
}

/// Sixty transactions that are rolled back.
async fn fail(db: &Fixture) {
    let session = db.session().await;
    for _ in 0..60 {
        session.client().batch_execute("begin; select 1; rollback").await.unwrap();
    }
}

#[tokio::test]
async fn what_postgres_counts_becomes_a_rate() {
    let db = Fixture::new().await;
    let mut config = example("pg-stat-database.toml");
    config.database = db.database();
    let place = |name: &str| config.signals.iter().position(|signal| signal.name == name).unwrap();
    let (rollbacks, deadlocks, connections) = (place("rollbacks"), place("deadlocks"), place("connections"));
    let reader = Reader::new(Arc::new(config)).unwrap();

    // A history of failure is not the present.
    fail(&db).await;
    until(&reader, rollbacks, "the history is not seen as new", |_| true).await;
    assert!(value(&reader.read(rollbacks).await.sample.reading) < 0.6);
    fail(&db).await;
    until(&reader, rollbacks, "rollbacks are seen", |reading| value(reading) > 0.5).await;
    // And gone again, for nothing new comes.
    until(&reader, rollbacks, "it is over", |reading| value(reading) == 0.0).await;

    assert_eq!(reader.read(deadlocks).await.sample.reading, Reading::good());
    assert_eq!(reader.read(deadlocks).await.sample.reading, Reading::good());
    db.sql("create table a (n int); insert into a values (1); create table b (n int); insert into b values (1)").await;
    let (one, two) = (db.session().await, db.session().await);
    for (session, table) in [(&one, "a"), (&two, "b")] {
        session.client().batch_execute(&format!("begin; update {table} set n = 2")).await.unwrap();
    }
    let ends = tokio::join!(
        one.client().batch_execute("update b set n = 3"),
        two.client().batch_execute("update a set n = 3"),
    );
    assert!(ends.0.is_err() != ends.1.is_err(), "one of them gives way: {ends:?}");
    drop((one, two));
    until(&reader, deadlocks, "the deadlock is seen", Reading::is_bad).await;
    assert_eq!(reader.read(deadlocks).await.sample.reading, Reading::good(), "once");

    let before = value(&reader.read(connections).await.sample.reading);
    assert!(before > 0.0 && before < 1.0, "{before}");
    let mut held = Vec::new();
    for _ in 0..5 {
        held.push(db.session().await);
    }
    #[expect(clippy::cast_precision_loss, reason = "a few hundred")]
    let five = 5.0 / db.number("select current_setting('max_connections')::bigint").await as f64;
    // Other tests come and go on the same server.
    until(&reader, connections, "five more", |reading| value(reading) >= five).await;
    drop(held);
}
