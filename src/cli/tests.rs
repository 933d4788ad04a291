//! Commands from their arguments to what is printed, against a real server on a real socket.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clap::CommandFactory;
use rollbackd_core::run::event::Ask;
use rollbackd_core::run::record::{Entry, Origin, Record, WindowOutcome};
use rollbackd_core::run::state::{Phase, State};

use super::*;
use crate::clock;
use crate::driver::snapshot::{RefusedFile, Renewal};
use crate::journal::Journal;
use crate::journal::redb::RedbJournal;
use crate::server::fixture::{self, WINDOW, at};
use crate::server::tests::{Running, serve};
use crate::server::view::{self, Status, WindowRow};

/// What a command printed.
#[derive(Clone, Default)]
struct Paper(Arc<Mutex<Vec<u8>>>);

impl io::Write for Paper {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("paper").write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Paper {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().expect("paper").clone()).expect("text")
    }
}

/// Runs a command with the state in a directory: its end, and what it printed.
async fn rollbackd(state_dir: &Path, arguments: &[&str]) -> (Result<Exit, (Exit, String)>, String) {
    let paper = Paper::default();
    (rollbackd_on(&paper, state_dir, arguments).await, paper.text())
}

async fn rollbackd_on(paper: &Paper, state_dir: &Path, arguments: &[&str]) -> Result<Exit, (Exit, String)> {
    let config = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(
        config.path(),
        format!("name = \"shop\"\nstate_dir = {state_dir:?}\nsecrets = {{ env = \"NOT_SET\" }}\n"),
    )
    .expect("written");
    let config = config.path().to_str().expect("a path").to_owned();
    let cli = Cli::try_parse_from(["rollbackd", "-c", &config].iter().chain(arguments)).expect("right usage");
    let mut terminal = Terminal::plain(paper.clone());
    let ended = tokio::time::timeout(Duration::from_secs(20), dispatch(cli, &mut terminal)).await;
    ended.expect("soon").map_err(|error| {
        let stop = error.downcast::<Stop>().expect("a stop");
        (stop.exit, stop.message)
    })
}

async fn run(running: &Running, arguments: &[&str]) -> (Result<Exit, (Exit, String)>, String) {
    rollbackd(running.directory.path(), arguments).await
}

#[test]
fn the_command_tree_holds_together() {
    Cli::command().debug_assert();
}

#[test]
fn wrong_usage_is_64_and_help_is_not_wrong() {
    let parse = |arguments: &[&str]| Cli::try_parse_from(arguments).expect_err("no command");
    for wrong in [
        &["rollbackd"][..],
        &["rollbackd", "status", "--nonsense"],
        &["rollbackd", "window"],
        &["rollbackd", "rollback"],
        &["rollbackd", "report", "--format", "pdf"],
        &["rollbackd", "guard", "--soak", "soon"],
    ] {
        assert_eq!(usage(&parse(wrong)), Exit::Usage, "{wrong:?}");
    }
    for right in [&["rollbackd", "--help"][..], &["rollbackd", "--version"], &["rollbackd", "window", "open", "-h"]] {
        assert_eq!(usage(&parse(right)), Exit::Done, "{right:?}");
    }
    let guard = Cli::try_parse_from(["rollbackd", "guard", "--soak", "1h 30m", "--", "make", "-j2"]).expect("right");
    assert!(format!("{guard:?}").contains(r#"["make", "-j2"]"#), "{guard:?}");
}

#[test]
fn a_reader_who_has_read_enough_is_no_failure() {
    struct Closed;
    impl io::Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let error = Terminal::plain(Closed).print_json(&1).expect_err("closed");
    assert_eq!(explain(&error), Exit::Done);
    assert_eq!(explain(&Stop::new(Exit::Unavailable, "no daemon").into()), Exit::Unavailable);
    assert_eq!(explain(&anyhow::anyhow!("something else")), Exit::Failed);
}

#[tokio::test]
async fn status_is_text_for_people() {
    let running = serve(fixture::rolling_back(at("02:14:30")), None).await;
    let (ended, text) = run(&running, &["status"]).await;
    assert_eq!(ended, Ok(Exit::Done));
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    insta::assert_snapshot!("status", text.replace(env!("CARGO_PKG_VERSION"), "[version]"));
}

#[tokio::test]
async fn status_says_what_waits_for_a_person() {
    let mut open = fixture::window();
    let reason = "every rung failed: script: exit code 1; tables: public.pages is locked by backend 4711";
    let manual =
        vec!["-- stop traffic".to_owned(), format!("DROP TABLE IF EXISTS {} CASCADE;", "public.pages".repeat(8))];
    open.phase = Phase::NeedsOperator { reason: reason.to_owned(), manual: manual.clone() };
    let mut snapshot = fixture::quiet(at("02:15:00"));
    snapshot.state = Arc::new(State { window: Some(open), ..State::default() });
    let running = serve(snapshot, None).await;
    let (_, text) = run(&running, &["status"]).await;
    assert!(text.contains("An operator is needed: every rung failed: script"), "{text}");
    assert!(text.contains(&format!("    {}\n", manual[1])), "a command stays on one line:\n{text}");
    assert!(text.contains("rollbackd window resolved"), "{text}");

    let mut snapshot = fixture::quiet(at("02:15:00"));
    snapshot.ready = Err("the database does not answer".to_owned());
    running.snapshots.send_replace(Arc::new(snapshot));
    let (_, text) = run(&running, &["status"]).await;
    assert!(text.contains("not ready\n          the database does not answer\n"), "{text}");
    assert!(!text.contains("Waits for a person") && !text.contains("Configuration"), "{text}");
}

#[tokio::test]
async fn status_says_what_is_to_come_of_the_configuration() {
    let mut snapshot = fixture::watching(at("02:15:00"));
    let reason = "shop.toml:12:5: `soak` is no duration".to_owned();
    let refused = Some(RefusedFile { at: at("02:14:00"), reason });
    snapshot.renewal = Renewal { due: true, next_sha256: Some("9f2c".to_owned()), refused };
    let running = serve(snapshot, None).await;
    let (_, text) = run(&running, &["status"]).await;
    for part in [
        "\nConfiguration\n  The file was refused (1m ago); what was there before goes on.\n    shop.toml:12:5: ",
        "  Another configuration is taken over when the window is settled.\n",
    ] {
        assert!(text.contains(part), "{text}");
    }
    let (_, json) = run(&running, &["status", "--json"]).await;
    let status: Status = serde_json::from_str(&json).expect("a status");
    let configuration = status.configuration.expect("it is shown");
    assert_eq!((configuration.pending, configuration.next_sha256.as_deref()), (true, Some("9f2c")));
    assert_eq!(configuration.refused.expect("a refusal").at, at("02:14:00"));
}

#[tokio::test]
async fn json_is_what_the_api_says() {
    let snapshot = fixture::settled(clock::now(), WindowOutcome::Recovered);
    let running = serve(snapshot.clone(), None).await;
    let (ended, text) = run(&running, &["status", "--json"]).await;
    assert_eq!(ended, Ok(Exit::Done));
    assert_eq!(serde_json::from_str::<Status>(&text).expect("a status"), view::status(&snapshot));
    let (_, text) = run(&running, &["history", "--json"]).await;
    let rows: Vec<WindowRow> = serde_json::from_str(&text).expect("rows");
    assert_eq!(rows, view::history(&snapshot.state));
    let (_, text) = run(&running, &["report", "--json"]).await;
    assert!(serde_json::from_str::<serde_json::Value>(&text).expect("JSON").is_object());
    let (_, text) = run(&running, &["report", WINDOW]).await;
    assert!(text.starts_with('#'), "{text}");
    let (ended, _) = run(&running, &["report", "no/such?window"]).await;
    let (exit, message) = ended.expect_err("no such window");
    assert_eq!(exit, Exit::Failed);
    assert!(message.contains("there is no window `no/such?window`"), "{message}");
}

#[tokio::test]
async fn controls_reach_the_driver() {
    let mut running = serve(fixture::quiet(clock::now()), None).await;
    for (arguments, ask) in [
        (&["rollback", "--reason", "orders vanish", "--who", "ana"][..], Ask::Rollback),
        (&["approve", "--who", "ana", "--reason", "orders vanish"], Ask::Approve),
        (&["decline", "--who", "ana", "--reason", "orders vanish"], Ask::Decline),
        (&["ack", "--who", "ana", "--reason", "orders vanish"], Ask::Acknowledge),
        (&["window", "finished", "--who", "ana", "--reason", "orders vanish"], Ask::Finished),
        (&["window", "hold", "--who", "ana", "--reason", "orders vanish"], Ask::Hold),
        (&["window", "resume", "--who", "ana", "--reason", "orders vanish"], Ask::Resume),
        (
            &["window", "cancel", "--abandon", "--who", "ana", "--reason", "orders vanish"],
            Ask::Cancel { abandon: true },
        ),
        (
            &["window", "resolved", "--force", "--who", "ana", "--reason", "orders vanish"],
            Ask::Resolved { force: true },
        ),
    ] {
        let (ended, text) = run(&running, arguments).await;
        assert_eq!(ended, Ok(Exit::Done), "{arguments:?}");
        assert!(text.starts_with(&format!("{WINDOW}: ")), "{text}");
        let request = running.asked().await;
        assert_eq!((request.ask, request.who.as_str(), request.reason.as_str()), (ask, "ana", "orders vanish"));
    }
    let (ended, text) = run(&running, &["window", "cancel"]).await;
    assert_eq!(ended, Err((Exit::Failed, "a rollback is under way; say --abandon".to_owned())));
    assert_eq!(text, "");
}

#[tokio::test]
async fn an_opened_window_is_followed_to_its_end() {
    let running = serve(fixture::rolling_back(clock::now()), None).await;
    let settled = fixture::settled(clock::now(), WindowOutcome::Recovered);
    let paper = Paper::default();
    let follow = rollbackd_on(&paper, running.directory.path(), &["window", "open", "--wait"]);
    let settle = async {
        while paper.text().lines().count() < 3 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        running.snapshots.send_replace(Arc::new(settled));
    };
    let (ended, ()) = tokio::join!(follow, settle);
    let text = paper.text();
    assert_eq!(ended, Ok(Exit::Recovered));
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3, "what was seen is not shown again:\n{text}");
    for (line, clock) in lines.iter().zip(["02:00:00  ", "02:00:30  ", "02:14:06  "]) {
        assert!(line.starts_with(clock), "{text}");
    }
    assert!(lines[0].contains(WINDOW), "{text}");
}

#[test]
fn every_outcome_has_its_code() {
    let all =
        ["passed", "recovered", "needs_operator", "refused", "cancelled"].map(|word| follow::exit(word).expect(word));
    assert_eq!(all.map(|exit| exit as u8), [0, 20, 21, 22, 23]);
}

#[tokio::test]
async fn without_a_daemon_controls_are_unavailable_and_the_past_can_still_be_read() {
    let directory = tempfile::tempdir().expect("a directory");
    let (ended, text) = rollbackd(directory.path(), &["rollback", "--reason", "x"]).await;
    let (exit, message) = ended.expect_err("no daemon");
    assert_eq!((exit, text.as_str()), (Exit::Unavailable, ""));
    assert!(message.starts_with("no daemon answers at ") && message.contains("rollbackd run"), "{message}");

    let nowhere = directory.path().join("nothing-yet");
    let (ended, text) = rollbackd(&nowhere, &["history"]).await;
    assert_eq!((ended, text.as_str()), (Ok(Exit::Done), "no window was opened yet\n"));
    let (ended, text) = rollbackd(&nowhere, &["status", "--json"]).await;
    assert_eq!(ended, Ok(Exit::Done));
    let status: Status = serde_json::from_str(&text).expect("a status");
    assert_eq!((status.verdict.as_str(), status.ready.ok, status.window), ("blind", false, None));
    assert!(!nowhere.exists(), "looking makes nothing");
}

#[tokio::test]
async fn without_a_daemon_the_journal_is_read() {
    let directory = tempfile::tempdir().expect("a directory");
    let entry = |seq, clock, record| Entry { seq, at: at(clock), window: Some(WINDOW.to_owned()), record };
    let opened = Record::WindowOpened {
        id: WINDOW.to_owned(),
        origin: Origin::Schedule,
        opening: Some(at("02:00:00")),
        ends_at: at("03:00:00"),
        plan: Arc::new(fixture::plan()),
    };
    let settled = Record::WindowSettled { outcome: WindowOutcome::Refused, detail: "no room for a backup".to_owned() };
    let (journal, _) = RedbJournal::open(directory.path()).expect("a journal");
    journal.append(&[entry(1, "02:00:00", opened), entry(2, "02:00:09", settled)]).expect("written");
    let (ended, _) = rollbackd(directory.path(), &["history"]).await;
    assert_eq!(ended.expect_err("somebody else has it").0, Exit::Unavailable);
    drop(journal);

    let (ended, text) = rollbackd(directory.path(), &["history"]).await;
    assert_eq!(ended, Ok(Exit::Done));
    assert!(text.contains(WINDOW) && text.contains("refused") && text.contains("9s"), "{text}");
    let (ended, text) = rollbackd(directory.path(), &["report"]).await;
    assert_eq!(ended, Ok(Exit::Done));
    assert!(text.contains("no room for a backup"), "{text}");
    let (ended, _) = rollbackd(directory.path(), &["report", "shop-1"]).await;
    assert_eq!(ended.expect_err("no such window").0, Exit::Failed);
    let (ended, text) = rollbackd(directory.path(), &["status"]).await;
    assert_eq!(ended, Ok(Exit::Done));
    assert!(text.contains(&format!("{WINDOW}  refused")) && text.contains("nobody watches"), "{text}");
}

/// A journal with a window that was refused, closed.
fn journal_of_a_window(state_dir: &Path) -> Vec<Entry> {
    let entry = |seq, clock, window: Option<&str>, record| Entry {
        seq,
        at: at(clock),
        window: window.map(str::to_owned),
        record,
    };
    let opened = Record::WindowOpened {
        id: WINDOW.to_owned(),
        origin: Origin::Schedule,
        opening: Some(at("02:00:00")),
        ends_at: at("03:00:00"),
        plan: Arc::new(fixture::plan()),
    };
    let settled = Record::WindowSettled { outcome: WindowOutcome::Refused, detail: "no room for a backup".to_owned() };
    let entries = vec![
        entry(1, "01:00:00", None, Record::Started { version: "0.1.0".to_owned() }),
        entry(2, "02:00:00", Some(WINDOW), opened),
        entry(3, "02:00:09", Some(WINDOW), settled),
    ];
    let (journal, _) = RedbJournal::open(state_dir).expect("a journal");
    journal.append(&entries).expect("written");
    entries
}

#[tokio::test]
async fn the_journal_is_shown_exported_and_verified_from_its_file() {
    let directory = tempfile::tempdir().expect("a directory");
    let (ended, _) = rollbackd(directory.path(), &["journal", "show"]).await;
    assert_eq!(ended.expect_err("there is none").0, Exit::Unavailable);
    let entries = journal_of_a_window(directory.path());
    let file = directory.path().join("journal.redb");
    let before = std::fs::read(&file).expect("a file");

    let (ended, text) = rollbackd(directory.path(), &["journal", "show"]).await;
    assert_eq!(ended, Ok(Exit::Done));
    assert_eq!(
        text,
        "     1  2026-11-22 01:00:00  rollbackd 0.1.0 started and read the journal
     2  2026-11-22 02:00:00  window shop-20261122T020000Z opened by the schedul…
     3  2026-11-22 02:00:09  the window was refused, nothing was changed: no ro…
"
    );
    let (_, text) = rollbackd(directory.path(), &["journal", "show", "--json", "--window", WINDOW]).await;
    let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!((lines.len(), &lines[0]["seq"], &lines[0]["at"]), (2, &2.into(), &"2026-11-22T02:00:00.000Z".into()));
    assert_eq!(lines[1]["record"]["type"], "window_settled");
    let (ended, _) = rollbackd(directory.path(), &["journal", "show", "--window", "shop-1"]).await;
    assert!(ended.expect_err("no such window").1.contains("no record of a window `shop-1`"));

    let (ended, text) = rollbackd(directory.path(), &["journal", "export"]).await;
    assert_eq!(ended, Ok(Exit::Done));
    let read: Vec<Entry> =
        (1..).zip(text.lines()).map(|(seq, line)| crate::journal::format::parse(seq, line).expect("a line")).collect();
    assert_eq!(read, entries);

    let (ended, text) = rollbackd(directory.path(), &["journal", "verify"]).await;
    assert_eq!(ended, Ok(Exit::Done));
    for part in ["journal.redb: whole", "records   3 (1 to 3)", "formats   1", "windows   1 settled", "0 notices owed"]
    {
        assert!(text.contains(part), "{text}");
    }
    assert_eq!(std::fs::read(&file).expect("a file"), before, "nothing is written");
}

#[tokio::test]
async fn a_journal_that_does_not_follow_or_is_damaged_is_found_out() {
    let directory = tempfile::tempdir().expect("a directory");
    journal_of_a_window(directory.path());
    let settled = Record::WindowSettled { outcome: WindowOutcome::Passed, detail: String::new() };
    let (journal, _) = RedbJournal::open(directory.path()).expect("a journal");
    journal.append(&[Entry { seq: 4, at: at("04:00:00"), window: None, record: settled }]).expect("written");
    drop(journal);
    let (ended, text) = rollbackd(directory.path(), &["journal", "verify", "--json"]).await;
    assert_eq!(ended, Ok(Exit::Failed));
    let answer: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!((&answer["ok"], &answer["records"], &answer["source"]), (&false.into(), &4.into(), &"file".into()));
    let problem = answer["problems"][0].as_str().expect("a problem");
    assert!(problem.starts_with("record 4 does not follow"), "{problem}");

    let file = directory.path().join("journal.redb");
    let mut bytes = std::fs::read(&file).expect("a file");
    let at = bytes.windows(20).rposition(|part| part == b"no room for a backup").expect("it is there");
    bytes[at] = b'N';
    std::fs::write(&file, &bytes).expect("written");
    for verb in ["show", "export"] {
        let (ended, text) = rollbackd(directory.path(), &["journal", verb]).await;
        let (exit, message) = ended.expect_err("it is damaged");
        assert_eq!(exit, Exit::Failed);
        assert!(message.contains("is damaged") && message.contains("mv "), "{message}");
        assert_eq!(text.lines().count(), 2, "what is before it: {text}");
    }
    let (ended, text) = rollbackd(directory.path(), &["journal", "verify"]).await;
    assert_eq!(ended, Ok(Exit::Failed));
    assert!(
        text.contains("NOT WHOLE") && text.contains("records   2 (1 to 2)") && text.contains("is damaged"),
        "{text}"
    );
    assert_eq!(std::fs::read(&file).expect("a file"), bytes, "nothing is written");
}

/// Between two configurations a daemon has the journal and does not listen: it is waited for.
#[tokio::test]
async fn a_daemon_that_does_not_listen_yet_is_waited_for() {
    let directory = tempfile::tempdir().expect("a directory");
    let held = RedbJournal::open(directory.path()).expect("a journal");
    let status = rollbackd(directory.path(), &["status"]);
    let listens = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let server = serve(fixture::quiet(clock::now()), None).await;
        std::os::unix::fs::symlink(
            crate::server::control_socket(server.directory.path()),
            crate::server::control_socket(directory.path()),
        )
        .expect("its socket");
        server
    };
    let ((ended, text), _server) = tokio::join!(status, listens);
    assert_eq!(ended, Ok(Exit::Done));
    assert!(!text.contains("nobody watches"), "{text}");
    drop(held);
}

#[tokio::test]
async fn the_journal_of_a_running_daemon_is_asked_for() {
    let server = serve(fixture::rolling_back(clock::now()), None).await;
    let state_dir = server.directory.path();
    let (ended, text) = rollbackd(state_dir, &["journal", "show", "--window", WINDOW]).await;
    assert_eq!(ended, Ok(Exit::Done));
    assert_eq!(text.lines().count(), 3, "{text}");
    let (ended, text) = rollbackd(state_dir, &["journal", "export"]).await;
    assert_eq!(ended, Ok(Exit::Done));
    assert_eq!(text.lines().count(), 3, "{text}");
    let (ended, text) = rollbackd(state_dir, &["journal", "verify"]).await;
    assert_eq!(ended, Ok(Exit::Done), "{text}");
    assert!(text.contains("by the running daemon") && text.contains(&format!("{WINDOW} is open")), "{text}");
}

#[tokio::test]
async fn a_configuration_that_is_not_there_is_78() {
    let cli = Cli::try_parse_from(["rollbackd", "-c", "/nowhere/rollbackd.toml", "status"]).expect("right usage");
    let error = dispatch(cli, &mut Terminal::plain(io::sink())).await.expect_err("no configuration");
    assert_eq!(error.downcast_ref::<Stop>().map(|stop| stop.exit), Some(Exit::Configuration));
    assert!(error.to_string().contains("/nowhere/rollbackd.toml"), "{error}");
}

#[tokio::test]
async fn completions_are_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let (ended, text) = rollbackd(Path::new("/"), &["completions", shell]).await;
        assert_eq!(ended, Ok(Exit::Done));
        assert!(text.contains("rollbackd"), "{shell}");
    }
}
