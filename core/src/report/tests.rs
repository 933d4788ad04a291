//! Reports of four windows as a person reads them, and what must hold of every report.

mod story;

use jiff::SignedDuration;

use self::story::{Story, at, check, difference, evidence, script_failed, shop};
use super::*;
use crate::baseline::{Class, Difference, TableName};
use crate::judge::Verdict;
use crate::notice::NoticeEvent;
use crate::plan::Stage;
use crate::run::record::{MigrationEnd, Origin, Record, Trigger, WindowOutcome};
use crate::run::step::{Finding, Moment, Outcome, RemovedTable, Step};

/// Preflight, warm-up and backup, all well.
fn prepared() -> Story {
    let mut story = Story::open(shop(), Origin::Schedule);
    story.notice(NoticeEvent::WindowOpened, "Operations", "window shop-20261122T020000Z opened");
    story.delivered(1, "email 1", 900);
    story.step(
        Step::Preflight,
        2_140,
        Outcome::succeeded(
            "3 checks passed",
            Finding::Checks {
                checks: vec![
                    check("database", "database", Ok("PostgreSQL 15.18, all rights that the rungs need")),
                    check("script", "script", Ok("scripts/rollback-emergency.js is there, node can be started")),
                    check("disk", "disk", Ok("41 GB free, the backup needs about 1 GB")),
                ],
            },
        ),
    );
    story.wait(30_000);
    story.record(Record::WarmedUp { healthy_since: at(2_500), levels: vec![] });
    story.backup();
    story
}

/// The migration, broken after 12 minutes, traffic stopped.
fn broken() -> Story {
    let mut story = prepared();
    story.step(
        Step::Migrate,
        48_000,
        Outcome::succeeded(
            "exit code 0",
            Finding::Process { exit_code: Some(0), output: String::new(), output_file: None },
        ),
    );
    story.record(Record::MigrationFinished {
        how: MigrationEnd::Succeeded,
        detail: "supabase db push exited with 0".to_owned(),
    });
    story.wait(250_120);
    let evidence = evidence(&story);
    story.record(Record::VerdictChanged {
        from: Verdict::Healthy,
        to: Verdict::Breached,
        detail: "rule \"api is down\" is breached".to_owned(),
    });
    story.record(Record::BreachDetected { trigger: Trigger::Rules { evidence: vec![evidence] } });
    story.notice(NoticeEvent::RollbackStarted, "Operations", "rollback started");
    story.delivered(2, "email 1", 1_200);
    story.notice(NoticeEvent::RollbackStarted, "DB on call", "rollback started");
    story.record(Record::NoticeDead {
        notice: "shop-20261122T020000Z-3".to_owned(),
        channel: "webhook 1".to_owned(),
        reason: "the server answered 410".to_owned(),
    });
    story.step(
        Step::ReadGate { gate: 0 },
        3,
        Outcome::succeeded("not there", Finding::Gate { prior: "absent".to_owned() }),
    );
    story.step(
        Step::CloseGate { gate: 0 },
        420,
        Outcome::succeeded("https://shop.example/ is refused", Finding::Nothing),
    );
    story
}

/// Rung 1 runs the script, which says that it succeeded and changed nothing.
fn first_rung_fails(story: &mut Story) {
    story.record(Record::RungStarted { rung: 0 });
    let all = difference(&["pages", "content_blocks", "user_sessions"]);
    story.step(Step::Inspect { rung: 0, moment: Moment::Before }, 180, story::seen(&all));
    story.step(Step::Act { rung: 0 }, 4_310, script_failed());
    story.step(Step::Inspect { rung: 0, moment: Moment::After }, 175, story::seen(&all));
    story.record(Record::RungFailed {
        rung: 0,
        reason: "the script exited with 1 and 3 tables of the migration are still there".to_owned(),
    });
    story.notice(NoticeEvent::RungFailed, "Operations", "rung 1 (script) failed");
}

fn removal() -> RemovalFinding {
    let table = |name: &str, rows| RemovedTable { table: TableName::new("public", name), rows };
    RemovalFinding {
        tables: vec![table("pages", Some(41)), table("content_blocks", Some(1_163)), table("user_sessions", Some(0))],
        collateral: vec!["view public.published_pages".to_owned()],
        quarantine: Some("rollbackd_20261122t020000z".to_owned()),
        attempts: 2,
        blockers: vec!["pid 4711 (authenticator), idle in transaction for 12 s".to_owned()],
        sql: vec![
            "create schema \"rollbackd_20261122t020000z\"".to_owned(),
            "alter table \"public\".\"pages\" set schema \"rollbackd_20261122t020000z\"".to_owned(),
        ],
        ..RemovalFinding::default()
    }
}

fn verified(stage: Stage, served: Result<&str, &str>) -> Outcome {
    let checks = match stage {
        Stage::Closed => vec![
            check("tables", "tables", Ok("3 original tables with their baseline columns")),
            check("integrity", "integrity", Ok("profiles 1204 ≥ 1204, posts 88310 ≥ 88310, comments 402118 ≥ 402110")),
        ],
        Stage::Open => vec![check("auth", "auth", Ok("signed in")), check("posts are served", "http", served)],
    };
    let found = Finding::Checks { checks: checks.clone() };
    match checks.iter().find(|check| !check.passed) {
        Some(failed) => Outcome::failed(format!("check {}: {}", failed.name, failed.detail)).with(found),
        None => Outcome::succeeded(format!("{} checks passed", checks.len()), found),
    }
}

fn passed() -> Story {
    let mut story = prepared();
    story.step(
        Step::Migrate,
        48_000,
        Outcome::succeeded(
            "exit code 0",
            Finding::Process { exit_code: Some(0), output: String::new(), output_file: None },
        ),
    );
    story.record(Record::MigrationFinished {
        how: MigrationEnd::Succeeded,
        detail: "supabase db push exited with 0".to_owned(),
    });
    story.wait(600_000);
    story.settle(WindowOutcome::Passed, "every signal was healthy for the soak of 10m");
    story.notice(NoticeEvent::WindowPassed, "Operations", "migration passed");
    story.delivered(2, "email 1", 1_100);
    story
}

fn refused() -> Story {
    let mut plan = shop();
    plan.preflight_skipped = vec!["disk".to_owned(), "smtp".to_owned()];
    let mut story =
        Story::open(plan, Origin::Operator { who: "anna".to_owned(), reason: "try the | new\nschema".to_owned() });
    story.step(Step::Preflight, 5_031, Outcome::failed("1 of 2 checks failed: database").with(Finding::Checks {
        checks: vec![
            check("script", "script", Ok("scripts/rollback-emergency.js is there, node can be started")),
            check("database", "database", Err(
                "role `app` may not remove tables of schema public: it owns 0 of 3; grant ownership or connect as their owner",
            )),
        ],
    }));
    story.settle(
        WindowOutcome::Refused,
        "preflight check database failed: role `app` may not remove tables of schema public",
    );
    story.notice(NoticeEvent::WindowRefused, "Operations", "window refused, nothing was changed");
    story
}

fn recovered() -> Story {
    let mut story = broken();
    first_rung_fails(&mut story);
    story.record(Record::RungStarted { rung: 1 });
    story.step(
        Step::Inspect { rung: 1, moment: Moment::Before },
        170,
        story::seen(&difference(&["pages", "content_blocks", "user_sessions"])),
    );
    story.step(
        Step::Act { rung: 1 },
        1_850,
        Outcome::succeeded("3 tables moved to quarantine", Finding::Removal(removal())),
    );
    story.step(Step::Inspect { rung: 1, moment: Moment::After }, 168, story::seen(&Difference::default()));
    story.step(Step::Verify { stage: Stage::Closed }, 2_400, verified(Stage::Closed, Ok("")));
    story.step(Step::OpenGate { gate: 0 }, 610, Outcome::succeeded("https://shop.example/ answers", Finding::Nothing));
    story.step(Step::Verify { stage: Stage::Open }, 1_300, verified(Stage::Open, Ok("status 200, /0/id exists")));
    story.settle(
        WindowOutcome::Recovered,
        "rung 2 (tables) removed what the migration had added, and the verification passed",
    );
    story.notice(NoticeEvent::RollbackRecovered, "Operations", "recovered");
    story.delivered(5, "email 1", 2_300);
    story
}

fn needs_operator() -> Story {
    let mut story = broken();
    first_rung_fails(&mut story);
    story.record(Record::RungStarted { rung: 1 });
    story.step(
        Step::Inspect { rung: 1, moment: Moment::Before },
        170,
        story::seen(&difference(&["pages", "content_blocks", "user_sessions"])),
    );
    let found = RemovalFinding {
        survivors: vec!["column settings of public.profiles (its type is the row type of public.pages)".to_owned()],
        quarantine: None,
        sql: vec![],
        blockers: vec![],
        ..removal()
    };
    story.step(
        Step::Act { rung: 1 },
        95,
        Outcome::failed("nothing was changed: 1 object from before the migration stands in the way")
            .with(Finding::Removal(found)),
    );
    story.record(Record::RungFailed {
        rung: 1,
        reason: "column settings of public.profiles stands in the way".to_owned(),
    });
    story.record(Record::OperatorNeeded {
        reason: "no rung is left; traffic stays stopped".to_owned(),
        manual: vec![
            "-- 1. decide what becomes of column settings of public.profiles".to_owned(),
            "-- 2. remove the tables".to_owned(),
            "DROP TABLE IF EXISTS public.pages RESTRICT;".to_owned(),
            "-- 3. resume traffic".to_owned(),
            "rm /run/shop/maintenance".to_owned(),
            "rollbackd window resolved --reason TEXT".to_owned(),
        ],
    });
    story.notice(NoticeEvent::RollbackNeedsOperator, "DB on call", "needs an operator");
    story
}

#[test]
fn a_window_that_passed() {
    insta::assert_snapshot!(passed().report().markdown());
}

#[test]
fn a_window_that_was_refused() {
    insta::assert_snapshot!(refused().report().markdown());
}

#[test]
fn a_window_that_recovered_on_the_second_rung() {
    let report = recovered().report();
    insta::assert_snapshot!(report.markdown());
    assert_eq!(report.class, Some(Class::Lossy));
    assert_eq!(
        report.rungs.iter().map(|rung| rung.result).collect::<Vec<_>>(),
        [AttemptResult::Failed, AttemptResult::Recovered]
    );
}

#[test]
fn a_window_that_needs_an_operator() {
    let report = needs_operator().report();
    insta::assert_snapshot!(report.markdown());
    assert_eq!((report.state, report.outcome), ("needs_operator", Some("needs_operator")));
    assert_eq!(report.class, None, "nothing was removed");
}

#[test]
fn the_json_of_a_report() {
    let report = serde_json::to_value(recovered().report()).expect("JSON");
    assert_eq!(report["started_at"], "2026-11-22T02:00:00.000Z");
    assert_eq!(report["outcome"], "recovered");
    assert_eq!(report["class"], "lossy");
    assert_eq!(report["trigger"]["kind"], "rule");
    assert_eq!(report["trigger"]["evidence"][0]["samples"], 3);
    assert_eq!(report["trigger"]["evidence"][0]["at"], "2026-11-22T02:05:52.560Z");
    assert_eq!(report["gates"][0]["position"], "reopened");
    assert_eq!(report["rungs"][1]["removal"]["quarantine"], "rollbackd_20261122t020000z");
    assert_eq!(report["checks"].as_array().map(Vec::len), Some(4));
    for field in ["name", "kind", "passed", "detail"] {
        assert!(!report["checks"][0][field].is_null(), "{field}");
    }
    let timeline = report["timeline"].as_array().expect("a timeline");
    assert_eq!(timeline[0]["offset_seconds"], 0.0);
    assert_eq!(timeline[0]["level"], "info");
}

/// After every record there is a report, and where it stands follows the story.
#[test]
fn every_beginning_of_a_window_has_a_report() {
    for story in [passed(), refused(), recovered(), needs_operator()] {
        let mut states = Vec::new();
        for end in 1..=story.entries.len() {
            let report = of(&story.entries[..end]).expect("the window has opened");
            assert_eq!(report.timeline.len(), end);
            assert!(report.markdown().starts_with("# shop: "));
            if states.last() != Some(&report.state) {
                states.push(report.state);
            }
        }
        let expected: &[&str] = match story.report().state {
            "passed" => &["preparing", "watching", "soaking", "passed"],
            "refused" => &["preparing", "refused"],
            "recovered" => &["preparing", "watching", "soaking", "rolling_back", "verifying", "recovered"],
            _ => &["preparing", "watching", "soaking", "rolling_back", "needs_operator"],
        };
        assert_eq!(states, expected);
    }
}

#[test]
fn a_hold_and_an_operators_resolution_show() {
    let mut story = needs_operator();
    story.record(Record::ResolutionStarted {
        who: "anna".to_owned(),
        reason: "column dropped by hand".to_owned(),
        force: false,
    });
    assert_eq!(story.report().state, "verifying");
    story.record(Record::ResolutionFailed { reason: "check tables failed".to_owned() });
    assert_eq!(story.report().state, "needs_operator");
    assert!(!story.report().manual.is_empty());
    let mut forced = story.clone();
    story.settle(WindowOutcome::Recovered, "anna ended it, and the verification passed");
    assert_eq!(story.report().headline, "shop: recovered by an operator");
    assert!(story.report().manual.is_empty());
    forced.settle(WindowOutcome::Abandoned, "anna settled it without verification");
    assert_eq!(forced.report().headline, "shop: settled by an operator, recovery not verified");
    assert_eq!(forced.report().outcome, Some("needs_operator"));

    let mut held = prepared();
    held.record(Record::HoldStarted { who: "anna".to_owned(), reason: "looking".to_owned() });
    assert_eq!((held.report().state, held.report().outcome), ("held", None));
    held.record(Record::HoldEnded { who: "anna".to_owned(), reason: String::new() });
    assert_eq!(held.report().state, "preparing");
    assert_eq!(held.report().timeline.last().map(|line| line.sentence.as_str()), Some("anna ended the hold"));
}

#[test]
fn rows_that_were_not_counted_make_no_class() {
    let class_of = |rows: [Option<u64>; 2]| {
        let mut story = broken();
        story.record(Record::RungStarted { rung: 1 });
        let mut found = removal();
        found.tables.truncate(2);
        for (table, rows) in found.tables.iter_mut().zip(rows) {
            table.rows = rows;
        }
        story.step(Step::Act { rung: 1 }, 10, Outcome::succeeded("done", Finding::Removal(found)));
        story.report().class
    };
    assert_eq!(class_of([Some(0), Some(0)]), Some(Class::Reversible));
    assert_eq!(class_of([Some(0), None]), None);
    assert_eq!(class_of([None, Some(1)]), Some(Class::Lossy));
}

#[test]
fn only_the_first_windows_records_count() {
    let story = passed();
    let mut entries = story.entries.clone();
    let mut last = entries.last().cloned().expect("not empty");
    last.window = Some("shop-20261129T020000Z".to_owned());
    entries.push(last.clone());
    // The program's own restarts belong to a window only while it is open.
    last.window = None;
    last.record = Record::Started { version: "0.1.0".to_owned() };
    entries.push(last.clone());
    assert_eq!(of(&entries), of(&story.entries));
    assert_eq!(of(&[last.clone()]), None);

    let mut restarted = prepared().entries;
    restarted.push(last);
    let report = of(&restarted).expect("a report");
    assert_eq!(report.timeline.last().map(|line| line.level), Some(Level::Warning));
}

#[test]
fn a_clock_that_moved_is_told() {
    let mut narrator = Narrator::default();
    let mut told = |by: i64, unseen: i64| {
        let [by, unseen] = [by, unseen].map(SignedDuration::from_millis);
        let record = Record::ClockMoved { by, unseen };
        narrator.tell(&Entry { seq: 1, at: Timestamp::UNIX_EPOCH, window: None, record }).sentence
    };
    assert_eq!(told(7_199_999, 0), "the clock was set forward by 2h; the window's times move along");
    assert_eq!(told(-3_000, 0), "the clock was set back by 3s; the window's times move along");
    let both = told(60_000, 600_000);
    assert!(both.starts_with("the clock was set forward by 1m; ") && both.contains("looked at for 10m"), "{both}");
    assert!(!told(0, 600_000).contains("clock"));
}

#[test]
fn spans_are_short() {
    for (millis, expected) in
        [(0, "0 ms"), (340, "340 ms"), (12_340, "12.3 s"), (852_345, "14m 12s"), (-5_000, "-5.0 s")]
    {
        assert_eq!(narrate::span(SignedDuration::from_millis(millis)), expected);
    }
}
