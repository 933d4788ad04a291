//! The dead-man's switch, with the real program and a receiver that keeps what it hears.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};

use super::{End, end, open};
use crate::endings::{BREAKING, HARMLESS};
use crate::stage::{QUARANTINE, Stage, eventually, script};

const SECRET: &str = "0f8c2a4e-5ecret-heartbeat";

/// A receiver that answers 200, or never.
struct Switch {
    address: SocketAddr,
    heard: Arc<Mutex<Vec<String>>>,
}

impl Switch {
    fn start(hangs: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&heard);
        // Lives as long as the tests do.
        std::thread::spawn(move || {
            let mut held = Vec::new();
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut request = Vec::new();
                let mut part = [0; 1024];
                while !request.ends_with(b"\r\n\r\n") {
                    match stream.read(&mut part) {
                        Ok(read @ 1..) => request.extend_from_slice(&part[..read]),
                        Ok(0) | Err(_) => break,
                    }
                }
                // Whoever only looks whether somebody is there asks for nothing.
                if request.is_empty() {
                    continue;
                }
                let line = String::from_utf8_lossy(&request).lines().next().unwrap_or_default().to_owned();
                kept.lock().unwrap().push(line.replace(&format!("/ping/{SECRET}"), ""));
                if hangs {
                    held.push(stream);
                } else {
                    drop(stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nOK"));
                }
            }
        });
        Self { address, heard }
    }

    /// What was asked for, each time: `start`, `well` or `fail`.
    fn heard(&self) -> Vec<&'static str> {
        let lines = self.heard.lock().unwrap();
        let word = |line: &String| match line.as_str() {
            "GET /start HTTP/1.1" => "start",
            "GET  HTTP/1.1" => "well",
            "GET /fail HTTP/1.1" => "fail",
            other => panic!("{other}"),
        };
        lines.iter().map(word).collect()
    }

    #[track_caller]
    fn wait_for(&self, from: usize, word: &str, times: usize) -> usize {
        eventually(&format!("{word} is heard {times} times"), || {
            let heard = self.heard();
            let count = heard[from..].iter().filter(|one| **one == word).count();
            if count >= times { Ok(heard.len()) } else { Err(heard) }
        })
    }
}

fn stage(name: &str, switch: &Switch, migration: &str) -> Stage {
    let mut stage = Stage::new(name);
    stage.set("HEARTBEAT_URL", format!("http://{}/ping/{SECRET}", switch.address));
    stage.plan.services.push_str("\n[heartbeat]\nurl = { env = \"HEARTBEAT_URL\" }\nevery = \"100ms\"\n");
    let migration = stage.migration(migration);
    stage.plan.command(&migration);
    stage
}

fn counted(stage: &Stage, name: &str) -> u64 {
    let (_, text) = stage.get("/metrics").unwrap();
    let of = text.lines().filter(|line| line.starts_with(&format!("rollbackd_heartbeat_{name}_total{{")));
    of.map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap()).sum()
}

#[test]
fn a_window_that_passes_is_pinged_from_start_to_end_and_then_there_is_silence() {
    let switch = Switch::start(false);
    let stage = stage("beat", &switch, HARMLESS);
    let daemon = stage.daemon();
    assert_eq!(switch.heard(), Vec::<&str>::new(), "no window, no word");
    open(&stage);
    stage.wait_for_state("passed");
    let heard = eventually("the last word", || match switch.heard() {
        heard if heard.ends_with(&["start", "well"]) => Ok(heard),
        heard => Err(heard),
    });
    assert_eq!(heard[0], "start");
    assert!(!heard.contains(&"fail"), "{heard:?}");
    assert!(heard.iter().filter(|one| **one == "well").count() >= 3, "{heard:?}");
    // A window that opens and is refused is followed by silence too.
    std::thread::sleep(std::time::Duration::from_millis(600));
    assert_eq!(switch.heard().len(), heard.len(), "silence after the window");
    assert_eq!(counted(&stage, "pings"), heard.len() as u64);
    assert_eq!(counted(&stage, "failures"), 0);
    let said = daemon.term().expect(0);
    assert_eq!(switch.heard().len(), heard.len(), "an end without a window is no word");
    assert!(!said.stderr.contains(SECRET) && !said.stdout.contains(SECRET));
    assert_eq!(stage.files_that_hold(&[SECRET]), Vec::<std::path::PathBuf>::new());
}

#[test]
fn a_rollback_fails_until_it_has_recovered() {
    let switch = Switch::start(false);
    let stage = stage("beat-back", &switch, BREAKING);
    let daemon = stage.daemon();
    open(&stage);
    stage.wait_for_state("recovered");
    let heard = eventually("the last word", || match switch.heard() {
        heard if heard.ends_with(&["fail", "well"]) => Ok(heard),
        heard => Err(heard),
    });
    let first = heard.iter().position(|one| *one == "fail").unwrap();
    assert!(heard[first..heard.len() - 1].iter().all(|one| *one == "fail"), "{heard:?}");
    assert!(heard[..first].contains(&"well"), "{heard:?}");
    daemon.term().expect(0);
}

#[test]
fn an_operator_is_needed_and_a_daemon_dies() {
    let switch = Switch::start(false);
    let mut stage = stage("beat-op", &switch, BREAKING);
    let name = stage.script("emergency.sh", "exit 3");
    stage.plan.rungs = script(&name);
    let daemon = stage.daemon();
    open(&stage);
    stage.wait_for_state("needs_operator");
    let from = switch.heard().len();
    let from = switch.wait_for(from, "fail", 3);
    assert!(!switch.heard()[from - 3..].contains(&"well"), "{:?}", switch.heard());
    end(daemon, End::Killed);
    let dead = switch.heard().len();
    // Whoever starts again finds the window as it was.
    let daemon = stage.daemon();
    switch.wait_for(dead, "fail", 1);
    assert_eq!(switch.heard()[dead], "fail");
    stage.cli(&["window", "resolved", "--force", "--reason", "a test"]).expect(0);
    stage.wait_for_state("needs_operator");
    eventually("it is settled", || match stage.status().unwrap()["window"]["outcome"].as_str() {
        Some(_) => Ok(()),
        None => Err("open"),
    });
    daemon.term().expect(0);
    assert!(!switch.heard()[dead..].contains(&"well"), "by force is not well: {:?}", switch.heard());
}

#[test]
fn one_that_hangs_changes_nothing() {
    let switch = Switch::start(true);
    let mut stage = stage("beat-hangs", &switch, BREAKING);
    stage.plan.rungs = QUARANTINE.to_owned();
    let online = stage.cli(&["check", "--online"]).expect(0).stdout;
    assert!(online.contains(&format!("heartbeat {} accepts connections", switch.address)), "{online}");
    assert_eq!(switch.heard(), Vec::<&str>::new(), "a check says nothing to it");
    let daemon = stage.daemon();
    open(&stage);
    stage.wait_for_state("recovered");
    switch.wait_for(0, "start", 1);
    let watch = rollbackd::clock::Stopwatch::start();
    let said = daemon.term().expect(0).stderr;
    assert!(watch.elapsed() < std::time::Duration::from_secs(8), "{:?}", watch.elapsed());
    assert!(!said.contains(SECRET), "{said}");
    assert!(said.matches("heartbeat.failed").count() <= 4, "once for each word: {said}");
}

#[test]
fn one_that_cannot_be_reached_is_said_and_refuses_no_window() {
    let switch = Switch::start(false);
    let mut stage = stage("beat-gone", &switch, HARMLESS);
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    stage.set("HEARTBEAT_URL", format!("http://{gone}/ping/{SECRET}"));
    let online = stage.cli(&["check", "--online"]).expect(0).stdout;
    assert!(online.contains(&format!("warning: the heartbeat's server {gone} cannot be reached")), "{online}");
    let json: serde_json::Value =
        serde_json::from_str(&stage.cli(&["check", "--online", "--json"]).expect(0).stdout).unwrap();
    assert_eq!(json["heartbeat"]["reachable"], false);
    let daemon = stage.daemon();
    open(&stage);
    stage.wait_for_state("passed");
    assert!(counted(&stage, "failures") >= 3);
    let said = daemon.term().expect(0).stderr;
    assert!(!said.contains(SECRET) && !online.contains(SECRET), "{said}");
    let unheard = said.lines().filter(|line| line.contains("the heartbeat is not heard")).count();
    assert!((1..=2).contains(&unheard), "once for each word: {said}");
}
