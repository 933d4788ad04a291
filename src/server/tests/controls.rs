//! Who may control what, and what the driver hears of it.

use super::*;

#[tokio::test]
async fn without_a_token_tcp_is_refused_and_points_to_the_socket() {
    let mut running = serve(quiet(), None).await;
    for path in ["window/open", "window/hold", "rollback", "approve", "decline", "ack"] {
        let answer = running.tcp(&format!("POST /api/v1/{path}\nauthorization: Bearer x"), "{}").await;
        answer.problem(403, "control socket");
    }
    assert!(running.requests.try_recv().is_err(), "the driver heard nothing");
}

#[tokio::test]
async fn with_a_token_tcp_needs_it() {
    let mut running = serve(quiet(), Some("s3cret")).await;
    let missing = running.tcp("POST /api/v1/ack", "{}").await;
    missing.problem(401, "Authorization: Bearer");
    assert!(missing.headers.contains("www-authenticate: Bearer realm=\"rollbackd\"\r\n"), "{missing:?}");
    for wrong in ["Bearer s3cre", "Bearer s3cret2", "Basic s3cret", "s3cret"] {
        running.tcp(&format!("POST /api/v1/ack\nauthorization: {wrong}"), "{}").await.problem(401, "");
    }
    assert!(running.requests.try_recv().is_err(), "the driver heard nothing");
    let right = running.tcp("POST /api/v1/ack\nauthorization: Bearer s3cret", "").await;
    assert_eq!((right.status, right.json()["window"].as_str()), (200, Some(WINDOW)));
    let request = running.asked().await;
    assert_eq!(request.who, "somebody at 127.0.0.1");
    assert_eq!(request.reason, "no reason given");
}

#[tokio::test]
async fn guessing_is_limited_and_the_socket_stays_open() {
    let mut running = serve(quiet(), Some("s3cret")).await;
    for _ in 0..10 {
        running.tcp("POST /api/v1/ack\nauthorization: Bearer guess", "{}").await.problem(401, "");
    }
    let limited = running.tcp("POST /api/v1/ack\nauthorization: Bearer s3cret", "{}").await;
    limited.problem(429, "too many wrong tokens");
    assert!(limited.headers.contains("retry-after: 60\r\n"), "{limited:?}");
    assert_eq!(running.tcp("GET /api/v1/status", "").await.status, 200, "reading is not limited");
    assert_eq!(running.socket("POST /api/v1/ack", "{}").await.status, 200);
    assert_eq!(running.asked().await.ask, Ask::Acknowledge);
}

#[tokio::test]
async fn every_control_reaches_the_driver_with_who_and_why() {
    let mut running = serve(quiet(), None).await;
    for (path, extra, ask) in [
        ("window/open", "", Ask::Open { guard: false }),
        ("window/finished", "", Ask::Finished),
        ("window/hold", "", Ask::Hold),
        ("window/resume", "", Ask::Resume),
        ("window/cancel", r#", "abandon": true"#, Ask::Cancel { abandon: true }),
        ("window/resolved", "", Ask::Resolved { force: false }),
        ("window/resolved", r#", "force": true"#, Ask::Resolved { force: true }),
        ("rollback", "", Ask::Rollback),
        ("approve", "", Ask::Approve),
        ("decline", "", Ask::Decline),
        ("ack", "", Ask::Acknowledge),
    ] {
        let body = format!(r#"{{"reason": " half of the pages are gone ", "who": "ana"{extra}}}"#);
        let answer = running.socket(&format!("POST /api/v1/{path}"), &body).await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        let reason = "half of the pages are gone".to_owned();
        assert_eq!(running.asked().await, Request { who: "ana".to_owned(), reason, ask });
    }
}

#[tokio::test]
async fn over_the_socket_the_kernel_says_who_it_is() {
    let mut running = serve(quiet(), None).await;
    assert_eq!(running.socket("POST /api/v1/window/hold", "").await.status, 200);
    let who = running.asked().await.who;
    let uid = rustix::process::getuid().as_raw();
    let passwd = std::fs::read_to_string("/etc/passwd").expect("users");
    let known = passwd.lines().find(|line| line.split(':').nth(2) == Some(&uid.to_string()));
    let expected = known.map_or(format!("user {uid}"), |line| line.split(':').next().expect("a name").to_owned());
    assert_eq!(who, expected);
}

#[tokio::test]
async fn a_refusal_is_the_answer() {
    let running = serve(quiet(), None).await;
    running.socket("POST /api/v1/window/cancel", "{}").await.problem(409, "a rollback is under way; say --abandon");
}

#[tokio::test]
async fn bodies_are_read_strictly() {
    let mut running = serve(quiet(), None).await;
    for (path, body, part) in [
        ("ack", r#"{"raeson": "typo"}"#, "unknown field `raeson`"),
        ("ack", "[", "must be like"),
        ("ack", r#"{"who": " "}"#, "`who` is empty"),
        ("ack", r#"{"reason": "a\u001b[31m"}"#, "`reason` contains control characters"),
        ("ack", r#"{"who": "a\nb"}"#, "`who` contains control characters"),
        ("ack", r#"{"force": true}"#, "`force` belongs to"),
        ("window/resolved", r#"{"abandon": true}"#, "`abandon` belongs to"),
        ("rollback", r#"{"who": "ana"}"#, "needs a `reason`"),
    ] {
        running.socket(&format!("POST /api/v1/{path}"), body).await.problem(400, part);
    }
    let long = format!(r#"{{"reason": "{}"}}"#, "x".repeat(2001));
    running.socket("POST /api/v1/ack", &long).await.problem(400, "longer than 2000 characters");
    let huge = format!(r#"{{"reason": "{}"}}"#, "x".repeat(20_000));
    running.socket("POST /api/v1/ack", &huge).await.problem(413, "longer than 16384 bytes");
    running.socket("POST /api/v1/window/close", "{}").await.problem(404, "open, finished, hold");
    running.socket("GET /api/v1/rollback", "").await.problem(405, "");
    assert!(running.requests.try_recv().is_err(), "the driver heard nothing");
}

/// Time is virtual here, so nothing goes over a real socket.
#[tokio::test(start_paused = true)]
async fn a_driver_that_does_not_answer_is_not_waited_for() {
    let (shared, _publish, mut asked) = shared(quiet(), None);
    let router = routes::router(shared).layer(axum::Extension(crate::server::authority::Via::Socket { uid: None }));
    let service = hyper_util::service::TowerToHyperService::new(router);
    let ask = || {
        let request = axum::http::Request::post("/api/v1/ack").body(axum::body::Body::empty()).expect("a request");
        hyper::service::Service::call(&service, request)
    };
    let (response, call) = tokio::join!(ask(), asked.recv());
    assert_eq!(response.expect("an answer").status(), 503, "the call was taken and never answered");
    assert!(call.is_some());
    drop(asked);
    assert_eq!(ask().await.expect("an answer").status(), 503, "the driver is gone");
}
