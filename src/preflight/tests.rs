//! The checks together, with real files and sockets. The database's own answers are tested where they are given.

use std::path::Path;
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use rollbackd_core::run::step::CheckResult;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::{SKIPPED, run};
use crate::config::PREFLIGHT_CHECKS;
use crate::config::model::{Address, Channel, Command, Config, Gate, GateKind, Method, Rung, Smtp, SmtpTls};
use crate::notify::samples;

pub(super) fn command(directory: &Path, words: &[&str]) -> Command {
    let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
    Command { program: words[0].clone(), arguments: words[1..].to_vec(), shown: words, directory: directory.to_owned() }
}

fn gate(name: &str, canary: Option<String>, kind: GateKind) -> Gate {
    Gate {
        name: name.into(),
        required: false,
        canary: canary.map(|url| Address::new(url.parse().unwrap())),
        timeout: Duration::from_secs(2),
        kind,
    }
}

async fn results(config: &Config) -> Vec<CheckResult> {
    run(config, Duration::from_secs(10)).await
}

fn result<'a>(results: &'a [CheckResult], name: &str) -> &'a CheckResult {
    results.iter().find(|result| result.name == name).unwrap()
}

/// An address where nobody listens.
async fn closed() -> std::net::SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

#[tokio::test]
async fn every_check_but_the_signals_answers_once_and_in_order() {
    let root = tempfile::tempdir().unwrap();
    let results = results(&samples::config(root.path(), Vec::new(), None)).await;
    let names: Vec<&str> = results.iter().map(|result| result.name.as_str()).collect();
    let expected: Vec<&str> = PREFLIGHT_CHECKS.iter().copied().filter(|&name| name != "signals").collect();
    assert_eq!(names, expected);
    for (name, said) in [
        ("script", "no rung runs a script"),
        ("gates", "no gate is configured: traffic goes on during a rollback"),
        ("mail", "no contact has a mail address"),
        ("webhooks", "no contact has a webhook"),
        ("command", "somebody else runs the migration"),
    ] {
        let result = result(&results, name);
        assert!(result.passed && result.detail == said, "{result:?}");
    }
}

#[tokio::test]
async fn a_database_that_is_down_fails_what_rests_on_it() {
    let root = tempfile::tempdir().unwrap();
    let results = results(&samples::config(root.path(), Vec::new(), None)).await;
    let database = result(&results, "database");
    assert!(!database.passed);
    assert!(database.detail.contains("start the server at postgres://127.0.0.1:1/shop"), "{}", database.detail);
    for name in ["rights", "tools"] {
        let result = result(&results, name);
        assert!(!result.passed && result.detail.ends_with("cannot be checked without the database: see there"));
    }
}

#[tokio::test]
async fn what_is_skipped_is_said_and_passes() {
    let root = tempfile::tempdir().unwrap();
    let mut config = samples::config(root.path(), Vec::new(), None);
    config.preflight.skip = vec!["database".into(), "mail".into()];
    let results = results(&config).await;
    for name in ["database", "mail"] {
        let result = result(&results, name);
        assert!(result.passed && result.detail == SKIPPED, "{result:?}");
    }
    assert!(!result(&results, "rights").passed, "what is not skipped is still checked");
}

#[tokio::test]
async fn a_check_that_hangs_fails_in_time() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let root = tempfile::tempdir().unwrap();
    let smtp = Smtp {
        host: "127.0.0.1".into(),
        port: silent.local_addr().unwrap().port(),
        tls: SmtpTls::None,
        credentials: None,
        from: "rollbackd@shop.example".parse().unwrap(),
        timeout: Duration::from_secs(60),
    };
    let channels = vec![("email 1".into(), Channel::Email("ops@shop.example".parse().unwrap()))];
    let config = samples::config(root.path(), channels, Some(smtp));
    let results = run(&config, Duration::from_millis(500)).await;
    let mail = result(&results, "mail");
    assert!(!mail.passed);
    assert_eq!(mail.detail, "did not end within 0.5 s: something that it needs hangs");
}

#[tokio::test]
async fn servers_that_cannot_be_reached_are_named_without_their_secrets() {
    let root = tempfile::tempdir().unwrap();
    let (mail, hook) = (closed().await, closed().await);
    let smtp = Smtp {
        host: "127.0.0.1".into(),
        port: mail.port(),
        tls: SmtpTls::None,
        credentials: None,
        from: "rollbackd@shop.example".parse().unwrap(),
        timeout: Duration::from_secs(2),
    };
    let url = format!("http://{hook}/services/T0/secret?token=secret").parse().unwrap();
    let channels = vec![
        ("email 1".into(), Channel::Email("ops@shop.example".parse().unwrap())),
        ("webhook 1".into(), Channel::Webhook { url: Address::new(url), key: None }),
    ];
    let results = results(&samples::config(root.path(), channels, Some(smtp))).await;
    for (name, server) in [("mail", mail), ("webhooks", hook)] {
        let result = result(&results, name);
        assert!(!result.passed && result.detail.contains(&server.to_string()), "{result:?}");
        assert!(!result.detail.contains("secret"), "{result:?}");
    }
}

#[tokio::test]
async fn gates_must_be_closable_and_their_canaries_answer() {
    let router = Router::new()
        .route("/up", get(async || "up"))
        .route("/maintenance", get(async || (StatusCode::SERVICE_UNAVAILABLE, "closed")));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let mut server = JoinSet::new();
    server.spawn(async move { axum::serve(listener, router).await.unwrap() });

    let root = tempfile::tempdir().unwrap();
    let file = |path: &str| GateKind::File { path: root.path().join(path) };
    let mut config = samples::config(root.path(), Vec::new(), None);
    config.rollback.gates = vec![gate("edge", Some(format!("{base}/up")), file("maintenance"))];
    let passing = results(&config).await;
    let detail = &result(&passing, "gates").detail;
    assert!(result(&passing, "gates").passed, "{detail}");
    assert!(detail.contains("gate edge: can be closed with /") && detail.contains("/up answers"), "{detail}");
    assert!(!root.path().join("maintenance").exists(), "checking changes nothing");

    let down = format!("http://{}/", closed().await);
    config.rollback.gates = vec![
        gate("edge", Some(format!("{base}/maintenance?key=secret")), file("no/such/maintenance")),
        gate(
            "proxy",
            Some(down),
            GateKind::Command {
                stop: command(root.path(), &["no-such-program-anywhere", "stop"]),
                start: command(root.path(), &["true"]),
            },
        ),
    ];
    let failing = results(&config).await;
    let gates = result(&failing, "gates");
    assert!(!gates.passed);
    for said in [
        "gate edge: directory ",
        "gate proxy: no-such-program-anywhere is not in this process's PATH",
        "/maintenance answers 503 Service Unavailable, but must answer while traffic is open",
        "/ does not answer (Connection refused (os error 111)), but must answer while traffic is open",
    ] {
        assert!(gates.detail.contains(said), "{said} is not in {}", gates.detail);
    }
    assert!(!gates.detail.contains("secret"), "{}", gates.detail);
}

#[tokio::test]
async fn scripts_and_the_migration_must_be_there() {
    let root = tempfile::tempdir().unwrap();
    let mut config = samples::config(root.path(), Vec::new(), None);
    config.window.command = Some(command(root.path(), &["no-such-program-anywhere"]));
    config.rollback.rungs = vec![Rung {
        timeout: Duration::from_secs(1),
        needs_approval: false,
        method: Method::Script { command: command(root.path(), &["sh", "scripts/rollback.sh"]), idempotent: false },
    }];
    let results = results(&config).await;
    assert!(result(&results, "script").detail.starts_with("scripts/rollback.sh, which sh runs, is not in "));
    assert!(!result(&results, "script").passed && !result(&results, "command").passed);
}
