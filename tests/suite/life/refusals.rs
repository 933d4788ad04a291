//! A state directory that cannot be worked with: taken, damaged, read-only or full. Nothing is done then, and it is said.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::volume::Volume;
use super::{open, rollbacks};
use crate::endings::BREAKING;
use crate::stage::{Stage, eventually, until};

#[test]
fn a_second_daemon_and_a_guard_beside_one_are_refused() {
    let stage = Stage::new("second");
    let daemon = stage.daemon();
    for arguments in [&["run"][..], &["guard", "--", "true"]] {
        let second = stage.start("second", arguments).end().expect(69);
        let journal = stage.state().join("journal.redb").display().to_string();
        assert!(second.stderr.contains("another rollbackd works with"), "{}", second.stderr);
        assert!(second.stderr.contains(&journal), "{}", second.stderr);
    }
    open(&stage);
    stage.wait_for_state("watching");
    daemon.kill();
    // A window that is open belongs to the daemon.
    let guard = stage.guard(&["--", "true"]).expect(69);
    assert!(guard.stderr.contains("is not settled; `rollbackd run` goes on with it"), "{}", guard.stderr);
    let daemon = stage.daemon();
    assert_eq!(stage.window_state().as_deref(), Some("watching"));
    daemon.term().expect(0);
}

/// Many look while the daemon is started again and again; neither is in the other's way.
#[test]
fn looking_does_not_keep_a_daemon_from_starting() {
    let stage = Stage::new("looking");
    stage.daemon().term().expect(0);
    let script = format!(
        "while [ ! -e enough ]; do {0} status; {0} history --json; done >/dev/null 2>&1",
        env!("CARGO_BIN_EXE_rollbackd")
    );
    let name = stage.script("look.sh", &script);
    let looker = stage.start_script("looker", &name);
    for _ in 0..4 {
        stage.daemon().term().expect(0);
    }
    std::fs::write(stage.path("enough"), "").unwrap();
    looker.end().expect(0);
}

#[test]
fn a_damaged_journal_is_not_acted_on() {
    let mut stage = Stage::new("damaged");
    let migration = stage.migration(BREAKING);
    stage.plan.command(&migration);
    let daemon = stage.daemon();
    open(&stage);
    stage.wait_for_state("recovered");
    daemon.term().expect(0);
    let journal = stage.state().join("journal.redb");
    let whole = std::fs::read(&journal).unwrap();
    let mut bent = whole.clone();
    let (from, to) = (b"window_opened", b"window_closed");
    for at in 0..bent.len() - from.len() {
        if bent[at..].starts_with(from) {
            bent[at..at + to.len()].copy_from_slice(to);
        }
    }
    assert_ne!(bent, whole);
    let told = stage.hooks.events();
    for (name, bytes) in [("bent", bent), ("cut", whole[..whole.len() / 2].to_vec()), ("foreign", b"hello".to_vec())] {
        std::fs::write(&journal, &bytes).unwrap();
        let refused = stage.start("run", &["run"]).end().expect(1).stderr;
        for part in ["is damaged", "rollbackd does not act on it", "Then move the journal aside (mv "] {
            assert!(refused.contains(part), "{name}: {refused}");
        }
        for command in [&["status"][..], &["history"], &["report"]] {
            let looked = stage.cli(command).expect(1);
            assert!(looked.stderr.contains("is damaged"), "{name}: {}", looked.stderr);
        }
        stage.guard(&["--", "true"]).expect(1);
        assert!(!stage.state().join("control.sock").exists());
    }
    assert_eq!(stage.hooks.events(), told);
    // The way out works.
    std::fs::rename(&journal, journal.with_extension("damaged")).unwrap();
    stage.daemon().term().expect(0);
    assert_eq!(stage.cli(&["history"]).expect(0).stdout, "no window was opened yet\n");
}

#[test]
fn a_state_directory_that_cannot_be_written_to() {
    let stage = Stage::new("readonly");
    std::fs::write(stage.state(), "").unwrap();
    stage.configuration();
    let refused = stage.start("run", &["run"]).end().expect(1).stderr;
    assert!(refused.contains(&stage.state().display().to_string()), "{refused}");
    std::fs::remove_file(stage.state()).unwrap();

    let Some(volume) = Volume::mount(&stage, "size=80m") else { return };
    volume.remount("ro");
    let refused = stage.start("run", &["run"]).end().expect(1).stderr;
    assert!(refused.contains("Read-only file system"), "{refused}");
    volume.remount("rw");
    volume.fill();
    for arguments in [&["run"][..], &["guard", "--", "true"]] {
        let refused = stage.start("run", arguments).end().expect(1).stderr;
        assert!(refused.contains("No space left on device") && refused.contains("journal.redb"), "{refused}");
    }
    volume.free();
    stage.daemon().term().expect(0);
}

/// Asks for something that is written down, and does not wait long for the answer: there may be none.
fn ask(stage: &Stage, verb: &str) {
    let body = serde_json::json!({ "reason": "a long story ".repeat(100) }).to_string();
    let head = format!("POST /api/v1/window/{verb} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n");
    let mut stream = UnixStream::connect(stage.state().join("control.sock")).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    write!(stream, "{head}Content-Length: {}\r\n\r\n{body}", body.len()).unwrap();
    drop(stream.read(&mut [0; 64]));
}

#[test]
fn a_disk_that_fills_up_stops_everything_until_there_is_room() {
    let stage = Stage::new("full");
    let Some(volume) = Volume::mount(&stage, "size=80m") else { return };
    let daemon = stage.daemon();
    open(&stage);
    stage.wait_for_state("watching");
    // What was set aside for this case is gone, too: the file, and what the journal has behind its end.
    std::fs::remove_file(stage.state().join("journal.reserve")).unwrap();
    let journal = std::fs::OpenOptions::new().write(true).open(stage.state().join("journal.redb")).unwrap();
    journal.set_len(journal.metadata().unwrap().len()).unwrap();
    volume.fill();
    // Whatever still fits into the file's own room is written; then nothing is.
    eventually("the journal cannot be written", || {
        for verb in ["hold", "resume"] {
            ask(&stage, verb);
        }
        match stage.get("/readyz") {
            Some((503, reason)) if reason.contains("the journal cannot be written") => Ok(()),
            answer => Err(answer),
        }
    });
    stage.database.sql(BREAKING);
    stage.app.wait_for_requests(10);
    assert!(!stage.path("maintenance").exists(), "nothing is done that is not written down");
    assert_eq!(stage.new_tables(), ["public.media_files", "public.pages"]);
    assert!(daemon.said().contains("\"event\":\"journal.failed\""));
    let status = stage.cli(&["status"]).expect(0).stdout;
    assert!(status.contains("the journal cannot be written"), "{status}");

    volume.free();
    until("the journal is written again", || daemon.said().contains("\"event\":\"journal.recovered\""));
    let hold = || stage.status().is_some_and(|status| status["hold"].is_object());
    if hold() {
        stage.cli(&["window", "resume"]);
    }
    stage.wait_for_state("recovered");
    assert_eq!(rollbacks(&stage.records()), 1);
    stage.assert_originals_whole();
    daemon.term().expect(0);
}
