use std::sync::Arc;

use rollbackd_core::judge::Evidence;
use rollbackd_core::plan::{
    Consequence, DatabasePlan, DecisionPlan, Dispose, Links, Missed, OnBlocked, OnCommandFailure, Reach, Removal,
    RollbackPlan, Rung, TableChoice, WindowPlan,
};
use rollbackd_core::run::record::{MigrationEnd, Origin, Trigger};
use rollbackd_core::run::step::{Finding as Found, Moment as When};

use super::*;

fn at(millisecond: i64) -> Timestamp {
    Timestamp::from_millisecond(1_795_312_800_000 + millisecond).unwrap()
}

fn plan() -> Plan {
    let rung = |method| Rung { timeout: SignedDuration::from_secs(30), needs_approval: false, method };
    Plan {
        name: "shop".to_owned(),
        host: "here".to_owned(),
        config_sha256: String::new(),
        window: WindowPlan {
            schedule: None,
            timezone: "UTC".to_owned(),
            duration: SignedDuration::from_mins(5),
            soak: SignedDuration::from_secs(5),
            missed: Missed::Skip,
            command: None,
            on_command_failure: OnCommandFailure::Rollback,
        },
        database: DatabasePlan {
            schema: "public".to_owned(),
            original_tables: Vec::new(),
            protected_schemas: Vec::new(),
        },
        healthy_for: SignedDuration::from_secs(2),
        preflight_skipped: Vec::new(),
        signals: Vec::new(),
        rules: Vec::new(),
        decision: DecisionPlan {
            confirm: SignedDuration::ZERO,
            at_least: 1,
            blind_after: SignedDuration::from_secs(10),
        },
        rollback: RollbackPlan {
            budget: SignedDuration::from_mins(2),
            approve_always: false,
            repeat_page: SignedDuration::from_mins(5),
            grace: SignedDuration::from_secs(2),
            gates: Vec::new(),
            rungs: vec![
                rung(Method::Script { command: vec!["sh".to_owned()], idempotent: false }),
                rung(Method::Tables(Removal {
                    tables: TableChoice::Added,
                    dispose: Dispose::Quarantine,
                    on_blocked: OnBlocked::Wait,
                    reach: Reach::Attached,
                })),
            ],
        },
        checks: Vec::new(),
        contacts: Vec::new(),
        links: Links::default(),
    }
}

fn evidence() -> Evidence {
    Evidence {
        rule: "posts are gone".to_owned(),
        signal: "posts".to_owned(),
        then: Consequence::Rollback,
        observed: 3.0,
        threshold: 3.0,
        window: None,
        samples: 3,
        last_reason: Some("status 500".to_owned()),
        since: at(6000),
        at: at(7000),
        implicates: Vec::new(),
        sentence: "\"posts are gone\": 3 bad samples of signal \"posts\" in a row, 3 are too many (last: status 500)"
            .to_owned(),
    }
}

/// The records of a window that was rolled back, as the driver writes them.
fn records() -> Vec<Entry> {
    let started = |number, step| Record::StepStarted { number, step, deadline: at(60_000) };
    let ended = |number, outcome| Record::StepEnded { number, outcome };
    let good = |detail: &str| Outcome::succeeded(detail, Found::Nothing);
    let inspect = |moment| Step::Inspect { rung: 0, moment };
    let all = vec![
        (
            0,
            Record::WindowOpened {
                id: "shop-20261122T020000Z".to_owned(),
                origin: Origin::Operator { who: "root".to_owned(), reason: "demo".to_owned() },
                opening: None,
                ends_at: at(300_000),
                plan: Arc::new(plan()),
            },
        ),
        (1, started(1, Step::Preflight)),
        (1200, ended(1, good("9 checks held"))),
        (2300, Record::WarmedUp { healthy_since: at(300), levels: vec![] }),
        (2310, started(2, Step::Backup)),
        (3410, ended(2, good("the backup was read back and is in backups/pre-migration-20261122T020002Z"))),
        (3420, started(3, Step::Migrate)),
        (3700, ended(3, good("exit 0"))),
        (
            3710,
            Record::MigrationFinished { how: MigrationEnd::Succeeded, detail: "its command exited with 0".to_owned() },
        ),
        (5200, Record::BreachDetected { trigger: Trigger::Rules { evidence: vec![evidence()] } }),
        (5210, started(4, Step::CloseGate { gate: 0 })),
        (5300, ended(4, good("the canary is refused with 503"))),
        (5310, Record::RungStarted { rung: 0 }),
        (5311, started(5, inspect(When::Before))),
        (5400, ended(5, good("14 tables added"))),
        (5410, started(6, Step::Act { rung: 0 })),
        (5500, ended(6, Outcome::failed("sh demo/rollback-emergency.sh exited with 3"))),
        (5510, started(7, inspect(When::After))),
        (5600, ended(7, Outcome::failed("the database did not answer"))),
        (5610, Record::RungFailed { rung: 0, reason: "the script exited with 3 and changed nothing".to_owned() }),
        (5620, Record::RungStarted { rung: 1 }),
        (5630, started(8, Step::Act { rung: 1 })),
        (5700, ended(8, good("14 tables moved to rollbackd_20261122t020000z in one transaction"))),
        (5710, started(9, Step::Verify { stage: Stage::Closed })),
        (5800, ended(9, good("3 checks held"))),
        (5810, started(10, Step::OpenGate { gate: 0 })),
        (5900, ended(10, good("the canary answers"))),
        (5910, started(11, Step::Verify { stage: Stage::Open })),
        (72_349, ended(11, good("2 checks held"))),
        (72_350, Record::WindowSettled { outcome: WindowOutcome::Recovered, detail: "every check holds".to_owned() }),
    ];
    (1..)
        .zip(all)
        .map(|(seq, (millisecond, record))| Entry { seq, at: at(millisecond), window: None, record })
        .collect()
}

fn printed(colour: bool, tell: impl FnOnce(&mut Narrator<&mut Vec<u8>>) -> io::Result<()>) -> String {
    let mut out = Vec::new();
    tell(&mut Narrator::new(&mut out, colour)).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn a_rollback_is_told_from_its_records() {
    let moments = moments(&records());
    let text = printed(false, |narrator| narrator.timeline(&moments, at(0)));
    assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
    insta::assert_snapshot!(text);
}

#[test]
fn no_records_make_no_story() {
    assert_eq!(moments(&[]), []);
}

#[test]
fn colour_is_for_terminals_only() {
    let finding = Finding { good: false, text: "posts are missing".to_owned() };
    assert_eq!(printed(false, |narrator| narrator.finding(&finding)), "   NO  posts are missing\n");
    assert_eq!(printed(true, |narrator| narrator.finding(&finding)), "   NO  \u{1b}[31mposts are missing\u{1b}[0m\n");
}

#[test]
fn chapters_are_numbered_and_have_the_time_at_the_right_margin() {
    let text = printed(false, |narrator| {
        narrator.chapter("One")?;
        narrator.chapter("Two")
    });
    let lines: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
    assert!(lines[0].starts_with("1. One ") && lines[1].starts_with("2. Two "), "{text}");
    assert!(lines.iter().all(|line| line.len() == WIDTH && line.ends_with('s')), "{text}");
}

#[test]
fn long_lines_are_broken_between_words_and_control_characters_do_not_reach_the_terminal() {
    assert_eq!(wrap("one two three", 8), ["one two", "three"]);
    assert_eq!(wrap("  one two three", 9), ["  one two", "  three"]);
    assert_eq!(wrap("a /very/long/path/that/stays/whole b", 8), ["a", "/very/long/path/that/stays/whole", "b"]);
    assert_eq!(wrap("a:   b", 8), ["a:   b"]);
    assert_eq!(wrap("", 8), [""]);
    assert_eq!(wrap("red\u{1b}[31m", 20), ["red [31m"]);
}

#[test]
fn times_are_short() {
    for (milliseconds, expected) in
        [(0, "+0.0s"), (3_140, "+3.1s"), (59_960, "+1m00.0s"), (62_500, "+1m02.5s"), (-1_500, "-1.5s")]
    {
        assert_eq!(offset(SignedDuration::from_millis(milliseconds)), expected);
    }
}
