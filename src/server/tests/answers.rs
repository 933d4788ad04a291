//! What is shown.

use rollbackd_core::run::record::WindowOutcome;
use rollbackd_core::run::state::{Hold, Phase, State};
use serde_json::json;

use super::*;
use crate::server::view;

#[tokio::test]
async fn status_has_the_shape_of_the_contract() {
    let running = serve(fixture::rolling_back(at("02:14:30")), None).await;
    let answer = running.tcp("GET /api/v1/status", "").await;
    assert_eq!(answer.status, 200);
    assert!(answer.headers.contains("content-type: application/json\r\n"), "{answer:?}");
    assert_eq!(
        answer.json(),
        json!({
            "plan": "shop",
            "version": env!("CARGO_PKG_VERSION"),
            "at": "2026-11-22T02:14:30.000Z",
            "ready": {"ok": true, "reason": null},
            "window": {
                "id": "shop-20261122T020000Z", "state": "rolling_back", "started_at": "2026-11-22T02:00:00.000Z",
                "ends_at": "2026-11-22T03:00:00.000Z", "soak_until": null, "ended_at": null, "outcome": null, "detail": null,
            },
            "verdict": "breached",
            "reasons": [],
            "breached": [],
            "next_window_at": "2026-11-28T01:00:00.000Z",
            "signals": [
                {"name": "api", "verdict": "breached", "last_sample_at": "2026-11-22T02:14:30.000Z", "error_ratio": 0.25,
                 "consecutive_bad": 3, "reason": "answered 503 instead of 200 to 299"},
                {"name": "requests", "verdict": "healthy", "last_sample_at": "2026-11-22T02:14:30.000Z",
                 "error_ratio": 0.0, "consecutive_bad": 0, "reason": null},
            ],
            "rules": [{"name": "api is down", "asks": "3 bad samples of signal api in a row", "state": "breached",
                       "then": "rollback"}],
            "decision": {
                "kind": "rule", "at": "2026-11-22T02:14:05.120Z", "sentence": fixture::trigger().sentence(),
                "evidence": [{
                    "rule": "api is down", "signal": "api", "observed": 3.0, "threshold": 3.0, "window_seconds": null,
                    "samples": 3, "last_reason": "answered 503 instead of 200 to 299",
                    "since": "2026-11-22T02:14:05.120Z", "at": "2026-11-22T02:14:05.120Z",
                    "sentence": fixture::trigger().sentence(), "observed_words": "3 in a row",
                    "allowed_words": "fewer than 3",
                }],
            },
            "in_flight": [{"step": "act", "what": "the work of rung 1 (script)", "started_at": "2026-11-22T02:14:06.000Z",
                           "deadline": "2026-11-22T02:19:06.000Z"}],
            "rollback": {"rung": "script", "step": "act", "started_at": "2026-11-22T02:14:05.120Z"},
            "hold": null,
            "approval": null,
            "operator": null,
            "acknowledged": null,
            "notices_pending": 1,
            "configuration": {
                "sha256": "0123456789abcdef".repeat(4), "pending": false, "next_sha256": null, "refused": null,
            },
        })
    );
    assert_eq!(running.socket("GET /api/v1/status", "").await.json(), answer.json(), "the same on both sockets");
}

#[test]
fn what_waits_for_a_person_is_shown() {
    let mut open = fixture::window();
    open.hold = Some(Hold { who: "ana".to_owned(), reason: "looking".to_owned(), since: at("02:14:20") });
    if let Some(rollback) = &mut open.rollback {
        rollback.waiting_since = Some(at("02:14:10"));
    }
    let mut snapshot = fixture::quiet(at("02:15:00"));
    snapshot.state = Arc::new(State { window: Some(open.clone()), ..State::default() });
    let status = view::status(&snapshot);
    assert_eq!(status.hold.expect("a hold").who, "ana");
    let approval = status.approval.expect("an approval");
    assert_eq!(approval.rung.as_deref(), Some("script"));
    assert_eq!(approval.sentence, "Rung 1 (script: node) waits for your approval.");
    assert_eq!(status.window.expect("a window").state, "held");

    open.hold = None;
    open.phase = Phase::NeedsOperator { reason: "every rung failed".to_owned(), manual: vec!["-- look".to_owned()] };
    snapshot.state = Arc::new(State { window: Some(open), ..State::default() });
    let status = view::status(&snapshot);
    let window = status.window.expect("a window");
    assert_eq!((window.state.as_str(), window.outcome.as_deref()), ("needs_operator", Some("needs_operator")));
    assert_eq!(status.operator.expect("an operator").manual, ["-- look"]);
    assert_eq!(status.rollback, None);
}

#[tokio::test]
async fn the_history_is_newest_first_with_the_open_window() {
    let mut snapshot = fixture::settled(at("02:16:00"), WindowOutcome::Abandoned);
    let mut state = State::clone(&snapshot.state);
    let mut open = fixture::window();
    open.id = "shop-20261123T020000Z".to_owned();
    state.window = Some(open);
    snapshot.state = Arc::new(state);
    let running = serve(snapshot, None).await;
    assert_eq!(
        running.tcp("GET /api/v1/windows", "").await.json(),
        json!([
            {"id": "shop-20261123T020000Z", "state": "rolling_back", "outcome": null,
             "started_at": "2026-11-22T02:00:00.000Z", "ended_at": null},
            {"id": "shop-20261122T020000Z", "state": "needs_operator", "outcome": "needs_operator",
             "started_at": "2026-11-22T02:00:00.000Z", "ended_at": "2026-11-22T02:15:05.120Z"},
            {"id": "shop-20261115T020000Z", "state": "passed", "outcome": "passed",
             "started_at": "2026-11-15T02:00:00.000Z", "ended_at": "2026-11-15T02:20:00.000Z"},
        ])
    );
}

#[tokio::test]
async fn a_window_comes_with_its_records() {
    let running = serve(fixture::settled(at("02:16:00"), WindowOutcome::Recovered), None).await;
    let whole = running.tcp(&format!("GET /api/v1/windows/{WINDOW}"), "").await.json();
    assert_eq!(whole["outcome"], "recovered");
    assert_eq!(
        whole["records"][1],
        json!({"seq": 2, "at": "2026-11-22T02:00:30.000Z", "window": WINDOW,
               "record": {"type": "warmed_up", "healthy_since": "2026-11-22T02:00:00.500Z"}})
    );
    let later = running.tcp(&format!("GET /api/v1/windows/{WINDOW}?after=2"), "").await.json();
    assert_eq!(later["records"].as_array().map(Vec::len), Some(1));
    assert_eq!(later["records"][0]["seq"], 3);

    running.tcp("GET /api/v1/windows/shop-1", "").await.problem(404, "no window `shop-1`");
    running.tcp(&format!("GET /api/v1/windows/{WINDOW}?after=x"), "").await.problem(400, "");
}

#[tokio::test]
async fn the_report_comes_as_json_or_markdown() {
    let running = serve(fixture::settled(at("02:16:00"), WindowOutcome::Recovered), None).await;
    let path = format!("GET /api/v1/windows/{WINDOW}/report");
    let json = running.tcp(&path, "").await;
    assert!(json.headers.contains("content-type: application/json\r\n"), "{json:?}");
    assert!(json.json().is_object());
    let markdown = running.tcp(&format!("{path}\naccept: text/markdown"), "").await;
    assert!(markdown.headers.contains("content-type: text/markdown; charset=utf-8\r\n"), "{markdown:?}");
    assert!(markdown.body.starts_with('#') && markdown.body.contains(WINDOW), "{markdown:?}");
    running.tcp("GET /api/v1/windows/shop-1/report", "").await.problem(404, "no window");
}

#[tokio::test]
async fn health_and_readiness_say_what_is_missing() {
    let running = serve(quiet(), None).await;
    assert_eq!(running.tcp("GET /healthz", "").await.status, 200);
    assert_eq!(running.tcp("GET /readyz", "").await.status, 200);

    let mut snapshot = quiet();
    snapshot.ready = Err("the database does not answer".to_owned());
    running.snapshots.send_replace(Arc::new(snapshot.clone()));
    assert_eq!(running.tcp("GET /healthz", "").await.status, 200);
    running.tcp("GET /readyz", "").await.problem(503, "the database does not answer");

    snapshot.journal_error = Some("no space left".to_owned());
    running.snapshots.send_replace(Arc::new(snapshot));
    running.tcp("GET /readyz", "").await.problem(503, "journal cannot be written: no space left");

    let old = fixture::quiet(clock::now() - jiff::SignedDuration::from_secs(61));
    running.snapshots.send_replace(Arc::new(old));
    running.tcp("GET /healthz", "").await.problem(503, "no progress for 6");
    running.tcp("GET /readyz", "").await.problem(503, "no progress");
}

#[tokio::test]
async fn the_page_is_served_on_both_sockets_and_may_do_nothing() {
    let running = serve(fixture::rolling_back(clock::now()), None).await;
    let page = running.tcp("GET /", "").await;
    assert_eq!(page.status, 200);
    assert!(page.body.starts_with("<!doctype html>") && page.body.contains("Rolling back"), "{page:?}");
    let policy = "content-security-policy: default-src 'none'; style-src 'sha256-";
    let rest = "'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'\r\n";
    for part in [
        policy,
        rest,
        "content-type: text/html; charset=utf-8\r\n",
        "x-content-type-options: nosniff\r\n",
        "referrer-policy: no-referrer\r\n",
        "cache-control: no-store\r\n",
    ] {
        assert!(page.headers.contains(part), "`{part}` is not in {page:?}");
    }
    let refreshes = "http-equiv=\"refresh\"";
    assert!(page.body.contains(refreshes));
    assert!(!running.tcp("GET /?still", "").await.body.contains(refreshes));
    let head = running.tcp("HEAD /", "").await;
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    assert!(head.headers.contains(policy), "{head:?}");
    running.tcp("POST /", "").await.problem(405, "another method");
    let socket = running.socket("GET /", "").await;
    assert!(socket.status == 200 && socket.body.contains("Rolling back"), "{socket:?}");
}

#[tokio::test]
async fn metrics_are_served_as_prometheus_reads_them() {
    let running = serve(quiet(), None).await;
    let answer = running.tcp("GET /metrics", "").await;
    assert!(answer.headers.contains("content-type: text/plain; version=0.0.4; charset=utf-8\r\n"), "{answer:?}");
    assert!(answer.body.contains("rollbackd_build_info{"), "{answer:?}");
}

#[tokio::test]
async fn everything_else_is_a_problem_and_every_answer_is_guarded() {
    let running = serve(quiet(), None).await;
    let index = running.tcp("GET /api/v1", "").await;
    assert!(index.body.contains("/api/v1/status"), "{index:?}");
    let missing = running.tcp("GET /nothing", "").await;
    missing.problem(404, "nothing here");
    let wrong = running.tcp("DELETE /api/v1/status", "").await;
    wrong.problem(405, "another method");
    assert!(wrong.headers.contains("allow: GET,HEAD\r\n"), "{wrong:?}");
    for answer in [index, missing, wrong] {
        for header in [
            "content-security-policy: default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'\r\n",
            "x-content-type-options: nosniff\r\n",
            "x-frame-options: DENY\r\n",
            "referrer-policy: no-referrer\r\n",
            "cache-control: no-store\r\n",
        ] {
            assert!(answer.headers.contains(header), "`{header}` is not in {answer:?}");
        }
    }
}
