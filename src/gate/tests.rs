//! Files, commands and the canary are here; each other kind has a file of its own.

mod by_hand;
mod http;
mod pooler;
mod postgrest;
mod sessions;

use std::path::Path;

use rollbackd_core::run::step::StepResult;
use tokio::task::JoinSet;

use super::*;
use crate::postgres::testing;
use crate::signal::testing::{Does, Server, address, answer, closed_port, shell};

const LONG: Duration = Duration::from_secs(20);

/// For gates that need none.
fn nowhere() -> Pinned {
    Pinned::new(&testing::database("postgres://nobody@127.0.0.1:1/nothing"))
}

async fn read(gate: &Gate, within: Duration) -> Outcome {
    super::read(gate, &nowhere(), within).await
}

async fn close(gate: &Gate, prior: &str, within: Duration) -> Outcome {
    super::close(gate, &nowhere(), prior, within).await
}

async fn open(gate: &Gate, prior: &str, within: Duration) -> Outcome {
    super::open(gate, &nowhere(), prior, within).await
}

fn file_gate(path: &Path, canary: Option<&str>) -> Gate {
    gate(GateKind::File { path: path.to_owned() }, canary)
}

fn command_gate(stop: &str, start: &str) -> Gate {
    gate(GateKind::Command { stop: shell(stop), start: shell(start) }, None)
}

fn gate(kind: GateKind, canary: Option<&str>) -> Gate {
    let timeout = Duration::from_millis(800);
    Gate { name: "edge".to_owned(), required: false, canary: canary.map(address), timeout, kind }
}

async fn prior_of(gate: &Gate) -> String {
    let outcome = read(gate, LONG).await;
    assert_succeeded(&outcome);
    let Finding::Gate { prior } = outcome.finding else { panic!("{outcome:?}") };
    prior
}

fn assert_succeeded(outcome: &Outcome) {
    assert!(outcome.is_success(), "{outcome:?}");
}

#[tokio::test]
async fn a_file_is_created_and_removed_however_often() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("maintenance");
    let gate = file_gate(&path, None);
    assert_eq!(prior_of(&gate).await, "absent");
    for _ in 0..2 {
        assert_succeeded(&close(&gate, "absent", LONG).await);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("rollbackd stopped traffic at gate edge") && text.lines().count() == 1, "{text}");
    }
    for _ in 0..2 {
        assert_succeeded(&open(&gate, "absent", LONG).await);
        assert!(!path.exists());
    }
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_file_that_was_there_stays_untouched() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("maintenance");
    std::fs::write(&path, "somebody else's").unwrap();
    // Traffic stays stopped afterwards, so the canary is not asked to answer.
    let gate = file_gate(&path, Some(&format!("http://{}/", closed_port().await)));
    assert_eq!(prior_of(&gate).await, "present");
    assert_succeeded(&close(&gate, "present", LONG).await);
    let opened = open(&gate, "present", LONG).await;
    assert_succeeded(&opened);
    assert!(opened.detail.contains("traffic stays stopped"), "{}", opened.detail);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "somebody else's");
}

#[tokio::test]
async fn a_file_that_cannot_be_made_is_a_failure_with_its_place() {
    let directory = tempfile::tempdir().unwrap();
    let gate = file_gate(&directory.path().join("none/maintenance"), None);
    for outcome in [read(&gate, LONG).await, close(&gate, "absent", LONG).await, open(&gate, "absent", LONG).await] {
        assert_eq!(outcome.result, StepResult::Failed, "{outcome:?}");
        assert!(outcome.detail.contains("none/maintenance cannot be"), "{}", outcome.detail);
    }
    let odd = close(&file_gate(&directory.path().join("maintenance"), None), "ajar", LONG).await;
    assert_eq!(odd.result, StepResult::Failed);
    assert!(!directory.path().join("maintenance").exists());
}

#[tokio::test]
async fn commands_stop_and_start() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log");
    let gate = command_gate(&format!("echo stop >> {}", log.display()), &format!("echo start >> {}", log.display()));
    assert_eq!(prior_of(&gate).await, "unknown");
    assert_succeeded(&close(&gate, "unknown", LONG).await);
    assert_succeeded(&open(&gate, "unknown", LONG).await);
    assert_eq!(std::fs::read_to_string(&log).unwrap(), "stop\nstart\n");
}

#[tokio::test]
async fn a_command_that_fails_or_hangs_says_so() {
    let failed = close(&command_gate("echo no right to >&2; exit 7", ""), "unknown", LONG).await;
    assert_eq!(failed.result, StepResult::Failed);
    assert!(failed.detail.ends_with("exited with 7: no right to"), "{}", failed.detail);
    let hung = open(&command_gate("", "sleep 100"), "unknown", LONG).await;
    assert_eq!(hung.result, StepResult::TimedOut, "{hung:?}");
    let mut missing = command_gate("", "");
    if let GateKind::Command { stop, .. } = &mut missing.kind {
        stop.program = "no-such-program".to_owned();
    }
    let missing = close(&missing, "unknown", LONG).await;
    assert_eq!(missing.result, StepResult::Failed);
    assert!(missing.detail.contains("`no-such-program` was not found"), "{}", missing.detail);
    let cut = close(&command_gate("sleep 100", ""), "unknown", Duration::from_millis(100)).await;
    assert_eq!(cut.result, StepResult::TimedOut, "{cut:?}");
}

/// Lets the server follow the gate's file after a while, as a proxy would.
fn follow(path: std::path::PathBuf, server: std::sync::Arc<Server>) -> JoinSet<()> {
    let mut task = JoinSet::new();
    task.spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_millis(150)).await;
            let status = if path.exists() { 503 } else { 200 };
            server.now(Does::Answer(answer(status, "")));
        }
    });
    task
}

#[tokio::test]
async fn the_canary_is_asked_until_it_agrees() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("maintenance");
    let server = std::sync::Arc::new(Server::answering(200, "").await);
    let _follow = follow(path.clone(), std::sync::Arc::clone(&server));
    let gate = file_gate(&path, Some(&server.url("/?token=hidden").replace("//", "//user:hidden@")));
    let closed = close(&gate, "absent", LONG).await;
    assert_succeeded(&closed);
    assert!(closed.detail.contains("is refused with status 503"), "{}", closed.detail);
    let opened = open(&gate, "absent", LONG).await;
    assert_succeeded(&opened);
    assert!(opened.detail.contains("answers with status 200"), "{}", opened.detail);
    for detail in [&closed.detail, &opened.detail] {
        assert!(!detail.contains("hidden"), "{detail}");
    }
    assert!(server.requests().iter().all(|request| !request.to_lowercase().contains("authorization")));
}

#[tokio::test]
async fn a_canary_that_disagrees_is_a_failure_that_names_what_it_saw() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("maintenance");
    let server = Server::answering(200, "").await;
    let gate = file_gate(&path, Some(&server.url("/")));
    let closed = close(&gate, "absent", LONG).await;
    assert_eq!(closed.result, StepResult::Failed);
    assert!(closed.detail.contains("not proven to be stopped") && closed.detail.contains("answers with status 200"));
    assert!(server.requests().len() > 2, "it is asked more than once");
    server.now(Does::Answer(answer(502, "")));
    let opened = open(&gate, "absent", LONG).await;
    assert_eq!(opened.result, StepResult::Failed);
    assert!(opened.detail.contains("is refused with status 502"), "{}", opened.detail);
}

#[tokio::test]
async fn no_answer_is_a_refusal_and_a_name_that_does_not_resolve_proves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("maintenance");
    let server = Server::start(Does::Reset).await;
    for does in [Does::Reset, Does::Stall] {
        server.now(does);
        assert_succeeded(&close(&file_gate(&path, Some(&server.url("/"))), "absent", LONG).await);
    }
    let refused = format!("http://{}/", closed_port().await);
    assert_succeeded(&close(&file_gate(&path, Some(&refused)), "absent", LONG).await);
    for outcome in [
        close(&file_gate(&path, Some("http://shop.invalid/")), "absent", LONG).await,
        open(&file_gate(&path, Some("http://shop.invalid/")), "absent", LONG).await,
    ] {
        assert_eq!(outcome.result, StepResult::Failed, "{outcome:?}");
    }
}

#[tokio::test]
async fn a_redirect_counts_as_an_answer() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::answering(307, "").await;
    let gate = file_gate(&directory.path().join("maintenance"), Some(&server.url("/")));
    assert_succeeded(&open(&gate, "absent", LONG).await);
}
