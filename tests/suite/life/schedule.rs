//! Windows that open by themselves.

use jiff::{SignedDuration, Timestamp};
use rollbackd::clock;
use rollbackd::journal::Journal;
use rollbackd::journal::redb::RedbJournal;
use rollbackd_core::run::record::{Entry, Origin, Record};
use serde_json::Value;

use crate::endings::HARMLESS;
use crate::stage::{Stage, eventually};

fn with_schedule(name: &str, schedule: &str, missed: &str) -> Stage {
    let mut stage = Stage::new(name);
    let migration = stage.migration(HARMLESS);
    stage.plan.window.push_str(&format!("schedule = {schedule:?}\ntimezone = \"UTC\"\nmissed = {missed:?}\n"));
    stage.plan.command(&migration);
    stage
}

/// The journal says that the daemon was running so long ago, and nothing since.
fn down_for(stage: &Stage, hours: SignedDuration) {
    let (journal, entries) = RedbJournal::open(&stage.state()).unwrap();
    assert_eq!(entries, []);
    let at = clock::now() - hours;
    journal.append(&[Entry { seq: 1, at, window: None, record: Record::Started { version: "0".to_owned() } }]).unwrap();
}

fn history(stage: &Stage) -> Vec<Value> {
    let output = stage.cli(&["history", "--json"]).expect(0);
    serde_json::from_str(&output.stdout).unwrap()
}

#[test]
fn windows_open_by_themselves_and_one_that_is_due_meanwhile_is_left_out() {
    let mut stage = with_schedule("schedule", "*/2 * * * * *", "skip");
    stage.plan.change("soak = \"1s\"", "soak = \"3s\"");
    let daemon = stage.daemon();
    let next = stage.status().unwrap()["next_window_at"].as_str().map(str::to_owned);
    assert!(next.is_some_and(|next| next.contains(".000")));
    stage.wait_for_state("soaking");
    let missed = eventually("an opening is left out", || {
        let records = stage.records();
        let missed = records.iter().find_map(|entry| match &entry.record {
            Record::OpeningMissed { opening, reason } => Some((*opening, reason.clone())),
            _ => None,
        });
        missed.ok_or(records.len())
    });
    assert!(missed.1.contains("was still"), "{missed:?}");
    let records = stage.records();
    let Record::WindowOpened { id, origin: Origin::Schedule, opening: Some(opening), .. } = &records[0].record else {
        panic!("{:?}", records[0])
    };
    assert_eq!(opening.as_second() % 2, 0);
    assert!(missed.0 > *opening && missed.0.as_second() % 2 == 0);
    assert_eq!(*id, format!("shop-{}", opening.strftime("%Y%m%dT%H%M%SZ")), "named after its opening");
    let late = records[0].at.duration_since(*opening);
    assert!(late >= SignedDuration::ZERO && late < SignedDuration::from_secs(2), "{late}");
    stage.hooks.wait_for("window.refused");
    // The table is there by now: the second window's migration fails, which is a breach, and nothing is left to remove.
    let (first, at) = (id.clone(), *opening);
    eventually("the next window opens by itself", || {
        let windows = history(&stage);
        if windows.len() > 1 { Ok(()) } else { Err(windows) }
    });
    let windows = history(&stage);
    let oldest = windows.last().unwrap();
    assert_eq!((oldest["id"].as_str(), oldest["outcome"].as_str()), (Some(first.as_str()), Some("passed")));
    assert!(windows[0]["started_at"].as_str().unwrap().parse::<Timestamp>().unwrap() > at);
    daemon.term().expect(0);
    let mut ids = stage.hooks.ids();
    let all = ids.len();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), all, "every notice has an id of its own");
}

/// A daily or hourly schedule whose last opening was half an hour ago.
fn half_an_hour_ago(hourly: bool) -> (String, Timestamp) {
    let at = clock::now() - SignedDuration::from_mins(30);
    let at = Timestamp::from_second(at.as_second()).unwrap();
    let hour = if hourly { "*".to_owned() } else { at.strftime("%-H").to_string() };
    (format!("{} {hour} * * *", at.strftime("%-S %-M")), at)
}

#[test]
fn an_opening_that_was_missed_is_skipped_and_said() {
    let (schedule, at) = half_an_hour_ago(false);
    let stage = with_schedule("missed", &schedule, "skip");
    down_for(&stage, SignedDuration::from_hours(2));
    let daemon = stage.daemon();
    let told = stage.hooks.wait_for("window.refused");
    let summary = told["data"]["summary"].as_str().unwrap();
    let due = at.strftime("%Y-%m-%d %H:%M:%S").to_string();
    assert!(summary.contains(&due) && summary.contains("nobody was looking"), "{summary}");
    assert_eq!(history(&stage), Vec::<Value>::new());
    assert_eq!(stage.status().unwrap()["window"], Value::Null);
    daemon.kill();
    let daemon = stage.daemon();
    eventually("nothing is owed", || match stage.status().unwrap()["notices_pending"].as_u64() {
        Some(0) => Ok(()),
        left => Err(left),
    });
    daemon.term().expect(0);
    assert_eq!(stage.hooks.events(), ["window.refused"], "it is missed once");
    assert_eq!(stage.new_tables(), Vec::<String>::new());
}

#[test]
fn of_openings_that_were_missed_the_last_is_made_up_for() {
    let (schedule, at) = half_an_hour_ago(true);
    let stage = with_schedule("run", &schedule, "run");
    down_for(&stage, SignedDuration::from_mins(160));
    let daemon = stage.daemon();
    stage.wait_for_state("passed");
    assert_everybody_was_told_of(&stage, &["window.refused", "window.refused", "window.opened", "window.passed"]);
    let windows = history(&stage);
    assert_eq!(windows.len(), 1);
    assert_eq!(windows[0]["id"], format!("shop-{}", at.strftime("%Y%m%dT%H%M%SZ")));
    assert_everybody_was_told_besides(&stage);
    daemon.term().expect(0);
}

/// Every event came, and each with an id of its own.
#[track_caller]
fn assert_everybody_was_told_of(stage: &Stage, events: &[&str]) {
    eventually("all has arrived", || {
        if stage.hooks.events().len() >= events.len() { Ok(()) } else { Err(stage.hooks.events()) }
    });
    assert_eq!(stage.hooks.events(), events);
    let mut ids = stage.hooks.ids();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), events.len(), "{ids:?}");
}

/// The window's own notices are all among what came.
#[track_caller]
fn assert_everybody_was_told_besides(stage: &Stage) {
    let ids = stage.hooks.ids();
    for entry in stage.records() {
        if let Record::NoticeOwed { notice } = entry.record {
            assert!(ids.contains(&notice.id), "{} of {ids:?}", notice.id);
        }
    }
}
