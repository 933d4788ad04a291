use super::*;
use crate::config::model::{HttpProbe, Secret};
use crate::postgres::pinned::Pinned;
use crate::signal::testing::{self, Does, Server, address, answer, closed_port, shell};

const LONG: Duration = Duration::from_secs(20);

fn check(name: &str, stage: Stage, retries: u32, kind: CheckKind) -> Check {
    Check { name: name.to_owned(), stage, timeout: LONG, retries, every: Duration::from_millis(20), kind }
}

fn auth(server: &Server) -> CheckKind {
    CheckKind::Auth {
        url: address(&server.url("/auth/v1")),
        apikey: Some(Secret::new("anon-key")),
        email: Secret::new("watchdog@shop.example"),
        password: Secret::new("hidden \"quoted\""),
    }
}

fn command(script: &str) -> CheckKind {
    CheckKind::Command { run: shell(script) }
}

async fn run_all(checks: Vec<Check>, stage: Stage, within: Duration) -> Vec<CheckResult> {
    let mut config = testing::config(Vec::new(), LONG);
    config.checks = checks;
    let pinned = Pinned::new(&config.database);
    run(Context { config: &config, pinned: &pinned, baseline: None, backup: None }, stage, within).await
}

async fn run_one(kind: CheckKind, retries: u32) -> (bool, String) {
    run_check(check("it", Stage::Open, retries, kind)).await
}

/// A check with a time-out that is over soon.
async fn run_short(kind: CheckKind) -> (bool, String) {
    run_check(Check { timeout: Duration::from_millis(500), ..check("it", Stage::Open, 0, kind) }).await
}

async fn run_check(check: Check) -> (bool, String) {
    let mut results = run_all(vec![check], Stage::Open, LONG).await;
    let result = results.remove(0);
    assert!(results.is_empty());
    (result.passed, result.detail)
}

fn failed(detail: &str) -> (bool, String) {
    (false, detail.to_owned())
}

#[tokio::test]
async fn nothing_configured_is_a_failure_but_an_empty_stage_is_not() {
    let results = run_all(Vec::new(), Stage::Closed, LONG).await;
    assert_eq!((results.len(), results[0].name.as_str(), results[0].passed), (1, "checks", false));
    let results = run_all(vec![check("it", Stage::Open, 0, command("exit 0"))], Stage::Closed, LONG).await;
    assert_eq!(results, []);
}

#[tokio::test]
async fn checks_of_the_stage_run_at_once_and_keep_their_order() {
    let directory = tempfile::tempdir().unwrap();
    // Each waits for the other's file: one after the other they would time out.
    let meet = |mine: &str, other: &str| {
        let (mine, other) = (directory.path().join(mine), directory.path().join(other));
        command(&format!("touch {}; while [ ! -e {} ]; do sleep 0.01; done", mine.display(), other.display()))
    };
    let checks = vec![
        check("first", Stage::Closed, 0, meet("a", "b")),
        check("not now", Stage::Open, 0, command("exit 1")),
        check("second", Stage::Closed, 0, meet("b", "a")),
    ];
    let results = run_all(checks, Stage::Closed, LONG).await;
    let seen: Vec<_> =
        results.iter().map(|result| (result.name.as_str(), result.kind.as_str(), result.passed)).collect();
    assert_eq!(seen, [("first", "command", true), ("second", "command", true)]);
}

#[tokio::test]
async fn a_check_is_tried_again_and_says_how_often() {
    let directory = tempfile::tempdir().unwrap();
    let count = directory.path().join("count");
    let third = format!("echo x >> {0}; [ $(wc -l < {0}) -ge 3 ]", count.display());
    assert_eq!(run_one(command(&third), 5).await, (true, "exited with 0 (try 3 of 6)".to_owned()));
    assert_eq!(run_one(command("echo no posts; exit 2"), 2).await, failed("exited with 2: no posts (try 3 of 3)"));
    assert_eq!(run_one(command("exit 2"), 0).await, failed("exited with 2"));
}

#[tokio::test]
async fn a_check_that_cannot_run_or_does_not_end_has_failed() {
    let late = run_short(command("sleep 100")).await;
    assert_eq!(late, failed("was ended because its time was up"));
    let mut missing = shell("");
    missing.program = "no-such-check".to_owned();
    let (passed, detail) = run_one(CheckKind::Command { run: missing }, 0).await;
    assert!(!passed && detail.contains("`no-such-check` was not found"), "{detail}");
}

#[tokio::test]
async fn the_time_for_all_of_it_is_kept() {
    let patient = Check { every: LONG, ..check("patient", Stage::Open, 9, command("exit 1")) };
    let slow = check("slow", Stage::Open, 0, command("sleep 100"));
    let watch = Stopwatch::start();
    let results = run_all(vec![patient, slow], Stage::Open, Duration::from_secs(1)).await;
    assert!(watch.elapsed() < Duration::from_secs(5), "{:?}", watch.elapsed());
    assert!(results.iter().all(|result| !result.passed), "{results:?}");
    assert_eq!(results[0].detail, "exited with 1; the time for verification was up");
}

#[tokio::test]
async fn api_responses_are_judged_like_a_signal() {
    let server = Server::answering(200, "[]").await;
    let probe =
        HttpProbe { body_contains: Some("id".to_owned()), ..testing::http(&server.url("/posts?apikey=hidden")) };
    assert_eq!(run_one(CheckKind::Http(probe.clone()), 0).await, failed("body does not contain \"id\""));
    server.now(Does::Answer(answer(200, "[{\"id\":1}]")));
    let (passed, detail) = run_one(CheckKind::Http(probe.clone()), 0).await;
    assert!(passed && detail.ends_with("/posts answers with status 200"), "{detail}");
    server.now(Does::Answer(answer(429, "")));
    assert_eq!(run_one(CheckKind::Http(probe), 0).await, failed("unknown: rate limited (status 429)"));
    let refused = testing::http(&format!("http://{}/", closed_port().await));
    assert_eq!(run_one(CheckKind::Http(refused), 1).await, failed("connection refused (try 2 of 2)"));
}

#[tokio::test]
async fn signing_in_needs_a_token() {
    let server = Server::answering(200, "{\"access_token\":\"hidden.token\",\"token_type\":\"bearer\"}").await;
    assert_eq!(run_one(auth(&server), 0).await, (true, "the test account signs in".to_owned()));
    let request = &server.requests()[0];
    assert!(request.starts_with("POST /auth/v1/token?grant_type=password HTTP/1.1\r\n"), "{request}");
    assert!(request.contains("apikey: anon-key\r\n") && request.contains("content-type: application/json\r\n"));
    let body: serde_json::Value = serde_json::from_str(request.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!(body, serde_json::json!({ "email": "watchdog@shop.example", "password": "hidden \"quoted\"" }));

    let missing = failed("status 200, but no access token came with it");
    for body in ["{\"access_token\":\"\"}", "{}", "<html>"] {
        server.now(Does::Answer(answer(200, body)));
        assert_eq!(run_one(auth(&server), 0).await, missing);
    }
}

#[tokio::test]
async fn a_refused_sign_in_says_why_and_nothing_more() {
    let server =
        Server::answering(400, "{\"code\":400,\"error_code\":\"invalid_credentials\",\"msg\":\"hidden\"}").await;
    assert_eq!(run_one(auth(&server), 0).await, failed("sign-in refused: status 400 (invalid_credentials)"));
    server.now(Does::Answer(answer(400, "{\"error\":\"invalid_grant\"}")));
    assert_eq!(run_one(auth(&server), 0).await, failed("sign-in refused: status 400 (invalid_grant)"));
    server.now(Does::Answer(answer(500, "{\"error\":\"Token hidden.TOKEN is bad\"}")));
    assert_eq!(run_one(auth(&server), 0).await, failed("sign-in refused: status 500"));
    server.now(Does::Answer(answer(429, "")));
    assert_eq!(run_one(auth(&server), 1).await, failed("unknown: rate limited (status 429) (try 2 of 2)"));
    server.now(Does::Stall);
    let late = run_short(auth(&server)).await;
    assert!(late.1.starts_with("no answer within 500ms: connected after "), "{late:?}");
}

#[test]
fn an_account_does_not_show_its_secrets() {
    let (url, secret) = (address("https://user:hidden@ref.supabase.co/auth/v1?hidden"), Secret::new("hidden"));
    let account = auth::Account { url: &url, apikey: Some(&secret), email: &secret, password: &secret };
    assert!(!format!("{account:?}").contains("hidden"));
}
