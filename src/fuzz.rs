//! Everything that comes from outside as text, made worse at random: nothing panics, nothing takes more than it should.
//!
//! Inputs begin as good ones (the shipped configurations, the records of a simulated run, a recording, requests) and are
//! cut, doubled, spliced, and given what breaks parsers. `make fuzz` runs many more cases, under a memory limit.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use rollbackd_core::plan::Plan;
use rollbackd_core::replay::Replay;
use rollbackd_core::run::record::Entry;
use rollbackd_core::run::state::State;
use rollbackd_core::sample::Reading;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::runtime::Runtime;

use crate::config;
use crate::config::model::LogSource;
use crate::samples::line::Line;
use crate::samples::prometheus;
use crate::server::tests::{Running, serve};
use crate::signal::log::Log;

/// What breaks parsers.
const NASTY: [&str; 32] = [
    "",
    "\0",
    "\"",
    "\\",
    "\n",
    "\r\n",
    "[[",
    "]]",
    "{",
    "}",
    "'''",
    "\"\"\"",
    "-1",
    "0",
    "1e999",
    "-0.0",
    "NaN",
    "null",
    "true",
    "9223372036854775807",
    "-9223372036854775808",
    "99999999999999999999",
    "0.1",
    "1s",
    "99999999999d",
    "\\u0000",
    "\u{202e}",
    "é",
    "../../etc/passwd",
    "$(reboot)",
    "; drop table posts",
    "%s%n",
];

/// How an input is made worse.
#[derive(Debug, Clone)]
enum Wound {
    Cut { at: usize, length: usize },
    Doubled { at: usize, length: usize },
    Inserted { at: usize, what: usize },
    Byte { at: usize, byte: u8 },
    Spliced { at: usize, from: usize, length: usize },
}

fn wounds() -> impl Strategy<Value = Vec<Wound>> {
    let at = any::<usize>();
    let wound = prop_oneof![
        2 => (at, 0_usize..40).prop_map(|(at, length)| Wound::Cut { at, length }),
        1 => (at, 0_usize..2_000).prop_map(|(at, length)| Wound::Doubled { at, length }),
        4 => (at, 0..NASTY.len()).prop_map(|(at, what)| Wound::Inserted { at, what }),
        1 => (at, any::<u8>()).prop_map(|(at, byte)| Wound::Byte { at, byte }),
        1 => (at, at, 0_usize..200).prop_map(|(at, from, length)| Wound::Spliced { at, from, length }),
    ];
    prop::collection::vec(wound, 0..6)
}

/// One of the inputs, made worse.
fn worse(all: &'static [String]) -> impl Strategy<Value = Vec<u8>> {
    (0..all.len(), wounds()).prop_map(|(which, wounds)| {
        let mut bytes = all[which].clone().into_bytes();
        for wound in wounds {
            let place = |at: usize, bytes: &Vec<u8>| if bytes.is_empty() { 0 } else { at % bytes.len() };
            match wound {
                Wound::Cut { at, length } => {
                    let at = place(at, &bytes);
                    bytes.drain(at..(at + length).min(bytes.len()));
                }
                Wound::Doubled { at, length } => {
                    let at = place(at, &bytes);
                    let part = bytes[at..(at + length).min(bytes.len())].to_vec();
                    bytes.splice(at..at, part);
                }
                Wound::Inserted { at, what } => {
                    let at = place(at, &bytes);
                    bytes.splice(at..at, NASTY[what].bytes());
                }
                Wound::Byte { at, byte } => {
                    let at = place(at, &bytes);
                    if let Some(there) = bytes.get_mut(at) {
                        *there = byte;
                    }
                }
                Wound::Spliced { at, from, length } => {
                    let (at, from) = (place(at, &bytes), place(from, &bytes));
                    let part = bytes[from..(from + length).min(bytes.len())].to_vec();
                    bytes.splice(at..(at + length).min(bytes.len()), part);
                }
            }
        }
        bytes
    })
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

static CONFIGURATIONS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = vec![
        root.join("config/rollbackd.toml"),
        root.join("config/demo.toml"),
        root.join("src/config/tests/every_key.toml"),
    ];
    let examples =
        std::fs::read_dir(root.join("config/examples")).expect("examples").map(|entry| entry.expect("one").path());
    files.extend(examples.filter(|path| path.extension().is_some_and(|kind| kind == "toml")));
    files.sort();
    files.iter().map(|path| std::fs::read_to_string(path).expect("a file")).collect()
});

/// The journal of a simulated run, a line an entry.
static JOURNAL: LazyLock<Vec<String>> = LazyLock::new(|| {
    let entries = crate::driver::tests::simulation::journal(7);
    entries.iter().map(|entry| serde_json::to_string(entry).expect("json")).collect()
});

static RECORDING: LazyLock<Vec<String>> = LazyLock::new(|| {
    let lines = [
        r#"{"rollbackd_samples":1,"window":"shop-1","at":"2026-11-22T02:00:00Z"}"#,
        r#"{"at":"2026-11-22T02:00:00Z","signal":"api","bad":1,"took_ms":3.5,"reason":"status 500"}"#,
        r#"{"at":"2026-11-22T02:00:05Z","signal":"requests","good":400,"bad":3,"value":0.5}"#,
        r#"{"at":"2026-11-22T02:00:10.5Z","signal":"api","unreadable":"no witness answers"}"#,
        r#"{"at":"2026-11-22T02:00:15Z","look":true}"#,
        r#"{"at":"2026-11-22T02:00:15Z","levels":[["api",20,1]]}"#,
        r#"{"lost":3}"#,
    ];
    lines.map(|line| format!("{line}\n")).into_iter().chain([lines.join("\n")]).collect()
});

static RANGES: LazyLock<Vec<String>> = LazyLock::new(|| {
    let one = r#"{"status":"success","data":{"resultType":"matrix","result":[{"metric":{"job":"shop"},"values":[[1795312800,"0.01"],[1795312815.5,"NaN"],[1795312830,"+Inf"]]}]}}"#;
    vec![one.to_owned()]
});

static BODIES: LazyLock<Vec<String>> = LazyLock::new(|| {
    [
        r#"{"reason": "half of the pages are gone", "who": "ana"}"#,
        r#"{"reason": "x", "force": true, "abandon": true}"#,
        "{}",
        "",
    ]
    .map(str::to_owned)
    .to_vec()
});

static LOG: LazyLock<Vec<String>> = LazyLock::new(|| {
    let line = |status: u16| format!("192.0.2.1 - - [22/Nov/2026:02:00:00 +0000] \"GET / HTTP/1.1\" {status} 12\n");
    vec![[200, 500, 200, 503, 404].map(line).concat(), "x".repeat(100_000)]
});

fn plan() -> Plan {
    crate::server::fixture::plan()
}

fn unrecorded() -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(unrecorded())]

    #[test]
    fn a_configuration(bytes in worse(&CONFIGURATIONS)) {
        match config::load_text(text(&bytes), Path::new("/nowhere/rollbackd.toml"), &BTreeMap::new()) {
            Ok(loaded) => {
                let plan = Arc::new(loaded.config.plan("host"));
                prop_assert!(!plan.name.is_empty());
            }
            Err(problems) => prop_assert!(!problems.to_string().is_empty(), "a refusal without a word"),
        }
    }

    #[test]
    fn records_of_a_journal(lines in prop::collection::vec(worse(&JOURNAL), 1..40)) {
        let entries: Vec<Entry> = lines.iter().filter_map(|line| serde_json::from_slice(line).ok()).collect();
        let state = State::replay(&entries);
        prop_assert_eq!(state.seq, entries.last().map_or(0, |entry| entry.seq));
        if let Some(report) = rollbackd_core::report::of(&entries) {
            prop_assert!(!report.markdown().is_empty());
        }
    }

    #[test]
    fn a_recording(bytes in worse(&RECORDING)) {
        let plan = plan();
        let mut replay: Option<Replay> = None;
        let mut strange = Vec::new();
        for line in text(&bytes).lines() {
            let Ok(line) = serde_json::from_str::<Line>(line) else { continue };
            let Ok(Some((at, seen))) = line.seen(&["api", "requests"], &mut strange) else { continue };
            replay.get_or_insert_with(|| Replay::new(&plan, at, true)).take(seen, at);
        }
        prop_assert!(strange.len() <= bytes.len());
    }

    #[test]
    fn a_range_of_prometheus(bytes in worse(&RANGES), events in prop::option::of(any::<u64>())) {
        let text = text(&bytes);
        if let Ok(samples) = prometheus::samples(&text, events) {
            prop_assert!(samples.len() <= text.len());
        }
        prometheus::is_one(&text);
    }

    #[test]
    fn lines_of_a_log(bytes in worse(&LOG)) {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("access.log");
        std::fs::write(&path, "").expect("written");
        let error = regex::bytes::Regex::new(" 5[0-9]{2} ").expect("a pattern");
        let log = Log::from_now_on(&LogSource { path: path.clone(), error, line: None });
        let (mut tail, soon) = (None, Duration::from_secs(10));
        let reading = runtime().block_on(async {
            log.read(soon, &mut tail).await.ok();
            std::fs::write(&path, &bytes).expect("written");
            log.read(soon, &mut tail).await.ok()
        });
        let events = reading.map_or(0, |reading| match reading {
            Reading::Events { good, bad, .. } => good + bad,
            Reading::Unreadable { .. } => 0,
        });
        prop_assert!(usize::try_from(events).expect("few") <= bytes.split(|byte| *byte == b'\n').count());
    }
}

/// Bodies of requests, against a server on a real socket: an answer that names the mistake, or the request is carried out.
#[test]
fn requests_to_the_interface() {
    let runtime = runtime();
    let running = runtime.block_on(serve(crate::server::fixture::quiet(crate::clock::now()), None));
    let running = RefCell::new(running);
    let paths = ["window/open", "window/cancel", "window/resolved", "rollback", "approve", "ack", "nothing"];
    let cases = ProptestConfig::default().cases.min(2_000);
    let mut runner = TestRunner::new(ProptestConfig { cases, ..unrecorded() });
    let result = runner.run(&(0..paths.len(), worse(&BODIES)), |(path, body)| {
        let mut running = running.borrow_mut();
        let status = runtime.block_on(post(&running, paths[path], &body));
        prop_assert!([200, 400, 404, 409, 413, 415, 422].contains(&status), "{}", status);
        // What the driver has carried out or refused.
        if [200, 409].contains(&status) {
            runtime.block_on(running.asked());
        }
        Ok(())
    });
    assert_eq!(result, Ok(()));
}

async fn post(running: &Running, path: &str, body: &[u8]) -> u16 {
    let socket = crate::server::control_socket(running.directory.path());
    let mut stream = UnixStream::connect(socket).await.expect("connected");
    let head = format!(
        "POST /api/v1/{path} HTTP/1.1\r\nhost: rollbackd\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(&[head.as_bytes(), body].concat()).await.expect("sent");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.expect("an answer");
    let line = text(&answer);
    line.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status")
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}
