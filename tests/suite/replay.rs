//! Recorded samples: a window replays to the decision that was made in it, and to others with other rules.

use serde_json::Value;

use crate::endings::{BREAKING, HARMLESS};
use crate::stage::{Mood, Stage};

fn recording(stage: &Stage, window: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(stage.state().join("samples").join(format!("{window}.jsonl"))).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

fn replayed(stage: &Stage, arguments: &[&str]) -> Value {
    let output = stage.cli(&[&["replay", "--json"], arguments].concat()).expect(0);
    serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", output.stdout))
}

#[test]
fn a_recorded_window_replays_to_the_decision_that_was_made() {
    let mut stage = Stage::new("replay");
    stage.guard_sql(BREAKING).expect(20);
    let report = stage.report();
    let made = &report["trigger"]["evidence"][0];
    let told = replayed(&stage, &[]);
    let fired = &told["fired"][0];
    for key in ["rule", "signal", "at", "observed", "threshold", "samples", "sentence"] {
        assert_eq!(fired[key], made[key], "{key}: {told:#}\n{made:#}");
    }
    assert_eq!(told["decided"]["at"], made["at"], "{told:#}");
    assert!(recording(&stage, report["window"].as_str().unwrap()).len() > 10);

    // Rules are today's: a more patient one decides later, or never.
    stage.plan.rules = stage.plan.rules.replace("consecutive = 3", "consecutive = 300");
    stage.configuration();
    assert_eq!(replayed(&stage, &[])["decided"], Value::Null);
    let grid = replayed(&stage, &["--grid"]);
    let tried = grid["grid"].as_array().unwrap();
    let of_three = tried.iter().find(|one| one["threshold"] == 3.0).unwrap();
    assert_eq!(of_three["fired_at"], made["at"], "{grid:#}");
    let text = stage.cli(&["replay", "--grid"]).expect(0).stdout;
    assert!(text.contains("No rollback would have begun.") && text.contains("configured"), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
}

#[test]
fn samples_of_people_and_of_prometheus_are_replayed() {
    let stage = Stage::new("replay-files");
    stage.configuration();
    let write = |name: &str, text: &str| {
        std::fs::write(stage.path(name), text).unwrap();
        stage.path(name).to_str().unwrap().to_owned()
    };
    let line = |second| format!("{{\"at\": \"2026-11-22T02:00:0{second}Z\", \"signal\": \"api\", \"bad\": 1}}\n");
    let lines = [0, 1, 2, 3].map(line).concat();
    let told = replayed(&stage, &[&write("lines.jsonl", &lines)]);
    assert_eq!(told["decided"]["at"], "2026-11-22T02:00:02.000Z", "{told:#}");
    let matrix = r#"{"status":"success","data":{"resultType":"matrix","result":[{"metric":{},
        "values":[[1795312800,"1"],[1795312801,"1"],[1795312802,"0"]]}]}}"#;
    let matrix = write("matrix.json", &matrix.replace('\n', ""));
    let told = replayed(&stage, &[&matrix, "--events", "10"]);
    assert_eq!((&told["samples"], &told["decided"]), (&3.into(), &Value::Null), "{told:#}");

    let wrong = write("wrong.jsonl", &format!("{lines}{{\"at\": 5, \"signal\": \"api\", \"god\": 1}}\n"));
    let refused = stage.cli(&["replay", &wrong]).expect(1).stderr;
    assert!(refused.contains("wrong.jsonl: line 5: unknown field `god`"), "{refused}");
    // A crash cuts a line, in the middle of a letter if it has to; the next life begins after it.
    let head = "{\"at\": 1795312800000, \"rollbackd_samples\": 1, \"window\": \"shop-1\"}\n";
    let good = "{\"at\": 1795312801000, \"signal\": \"api\", \"good\": 1}\n";
    let cut = [head, good, "{\"at\": 1795312802000, \"reason\": \"\u{1f680}"].concat().into_bytes();
    for (then, samples) in [(String::new(), 1), (format!("\n{head}{good}"), 2)] {
        std::fs::write(stage.path("cut.jsonl"), [&cut[..cut.len() - 2], then.as_bytes()].concat()).unwrap();
        assert_eq!(replayed(&stage, &[stage.path("cut.jsonl").to_str().unwrap()])["samples"], samples);
    }
    std::fs::write(stage.path("cut.jsonl"), [&cut, format!("\n{good}").as_bytes()].concat()).unwrap();
    let refused = stage.cli(&["replay", stage.path("cut.jsonl").to_str().unwrap()]).expect(1).stderr;
    assert!(refused.contains("line 3"), "elsewhere it is a mistake: {refused}");
    let refused = stage.cli(&["replay", "--window", "shop-1"]).expect(69).stderr;
    assert!(refused.contains("there is no recording"), "{refused}");
    let refused = stage.cli(&["replay"]).expect(69).stderr;
    assert!(refused.contains("no window was recorded yet"), "{refused}");
}

#[test]
fn what_was_timed_while_we_stood_still_is_no_reason_to_roll_back() {
    let mut stage = Stage::new("stall");
    stage.plan.rules = stage.plan.rules.replace("consecutive = 3", "consecutive = 1");
    stage.plan.change("timeout = \"3s\"\n[signal.http]", "timeout = \"1s\"\n[signal.http]");
    stage.plan.change("soak = \"1s\"", "soak = \"6s\"");
    let guard = stage.start_guard_sql(HARMLESS);
    stage.wait_for_state("soaking");
    // A reading is under way when we are stopped.
    stage.app.mood(Mood::Hanging);
    stage.app.wait_for_requests(1);
    guard.signal(rustix::process::Signal::STOP);
    std::thread::sleep(std::time::Duration::from_secs(3));
    stage.app.mood(Mood::Honest);
    guard.signal(rustix::process::Signal::CONT);
    guard.end().expect(0);
    let window = stage.report()["window"].as_str().unwrap().to_owned();
    let unreadable = |line: &Value| line["unreadable"].as_str().unwrap_or_default().contains("did not run for");
    assert!(recording(&stage, &window).iter().any(unreadable), "{:#?}", recording(&stage, &window));
    stage.assert_originals_whole();
}
