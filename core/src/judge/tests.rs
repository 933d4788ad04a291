//! Rules, verdicts and evidence over small stories. Times are seconds after a fixed instant.

mod conditions;

use super::*;
use crate::plan::{DatabasePlan, DecisionPlan, Links, Missed, OnCommandFailure, RollbackPlan, SignalPlan, WindowPlan};
use crate::sample::Reading;

pub(super) const START: i64 = 1_795_312_800; // 2026-11-22T02:00:00Z

pub(crate) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(START + seconds).expect("in range")
}

pub(crate) const fn secs(seconds: i64) -> SignedDuration {
    SignedDuration::from_secs(seconds)
}

/// A plan with signals `a`, `b`, … read every 5 s, and these rules; blind after 60 s.
pub(crate) fn plan(signals: usize, rules: Vec<Rule>) -> Plan {
    Plan {
        name: "shop".to_owned(),
        host: "db1".to_owned(),
        config_sha256: String::new(),
        window: WindowPlan {
            schedule: None,
            timezone: "UTC".to_owned(),
            duration: secs(3600),
            soak: secs(600),
            missed: Missed::Skip,
            command: None,
            on_command_failure: OnCommandFailure::Rollback,
        },
        database: DatabasePlan { schema: "public".to_owned(), original_tables: vec![], protected_schemas: vec![] },
        healthy_for: secs(30),
        preflight_skipped: vec![],
        signals: ('a'..='z')
            .take(signals)
            .map(|name| SignalPlan {
                name: name.to_string(),
                every: secs(5),
                timeout: secs(3),
                implicates: vec![format!("table_{name}")],
            })
            .collect(),
        rules,
        decision: DecisionPlan { confirm: SignedDuration::ZERO, at_least: 1, blind_after: secs(60) },
        rollback: RollbackPlan {
            budget: secs(900),
            approve_always: false,
            repeat_page: secs(900),
            grace: secs(5),
            gates: vec![],
            rungs: vec![],
        },
        checks: vec![],
        contacts: vec![],
        links: Links::default(),
    }
}

pub(crate) fn rule(name: &str, signals: &[&str], condition: Condition) -> Rule {
    Rule {
        name: name.to_owned(),
        signals: signals.iter().map(|&signal| signal.to_owned()).collect(),
        condition,
        then: Consequence::Rollback,
    }
}

pub(crate) const fn in_a_row(count: u32) -> Condition {
    Condition::Consecutive { count }
}

pub(crate) fn share_above(ratio: f64, over: &[i64], min_samples: u64) -> Condition {
    Condition::ErrorRatioAbove { ratio, over: over.iter().map(|&over| secs(over)).collect(), min_samples, last: None }
}

pub(crate) fn sample(seconds: i64, reading: Reading) -> Sample {
    Sample { at: at(seconds), took: SignedDuration::from_millis(20), reading }
}

fn bad() -> Reading {
    Reading::bad("status 503")
}

fn events(good: u64, bad: u64) -> Reading {
    Reading::Events { good, bad, value: None, reason: (bad > 0).then(|| "status 500".to_owned()) }
}

/// Feeds `(second, signal, reading)` one by one, assessing after each, and returns the last assessment.
fn story(judge: &mut Judge, samples: impl IntoIterator<Item = (i64, usize, Reading)>) -> Assessment {
    let mut assessment = None;
    for (second, signal, reading) in samples {
        judge.observe(signal, &sample(second, reading));
        assessment = Some(judge.assess(at(second)));
    }
    assessment.expect("a story has at least one sample")
}

fn states(judge: &Judge) -> Vec<RuleState> {
    judge.rules().iter().map(|rule| rule.state).collect()
}

#[test]
fn one_reading_that_could_not_be_made_is_out_of_sight_long_before_it_is_blind() {
    let rules = || vec![rule("api is down", &["a"], in_a_row(3))];
    let mut judge = Judge::new(&plan(2, rules()), at(0));
    assert!(!judge.assess(at(0)).in_sight, "nothing was read yet");
    assert!(story(&mut judge, [(1, 0, Reading::good())]).in_sight, "no rollback rule needs the other signal");
    let lost = story(&mut judge, [(6, 0, Reading::unreadable("no route"))]);
    assert_eq!((lost.verdict, lost.in_sight), (Verdict::Healthy, false));
    assert!(story(&mut judge, [(11, 0, bad())]).in_sight, "a bad reading is a reading");
}

#[test]
fn three_bad_samples_in_a_row_are_a_breach_with_evidence() {
    let mut judge = Judge::new(&plan(1, vec![rule("api is down", &["a"], in_a_row(3))]), at(0));
    let before = story(&mut judge, [(0, 0, Reading::good()), (5, 0, bad()), (10, 0, bad())]);
    assert_eq!((before.verdict, states(&judge)), (Verdict::Healthy, vec![RuleState::Quiet]));

    let after = story(&mut judge, [(15, 0, bad())]);
    assert_eq!((after.verdict, states(&judge)), (Verdict::Breached, vec![RuleState::Breached]));
    assert_eq!(
        after.breached,
        [Evidence {
            rule: "api is down".to_owned(),
            signal: "a".to_owned(),
            then: Consequence::Rollback,
            observed: 3.0,
            threshold: 3.0,
            window: None,
            samples: 3,
            last_reason: Some("status 503".to_owned()),
            since: at(15),
            at: at(15),
            implicates: vec!["table_a".to_owned()],
            sentence: "rule \"api is down\": 3 bad samples of signal a in a row (allowed: fewer than 3), \
                   since 02:00:05Z; last: status 503"
                .to_owned(),
        }]
    );
    assert_eq!(judge.signals()[0].verdict, Verdict::Breached);
    assert_eq!(judge.signals()[0].consecutive_bad, 3);

    // Later evidence keeps the beginning.
    let later = story(&mut judge, [(20, 0, bad())]);
    assert_eq!((later.breached[0].since, later.breached[0].samples), (at(15), 4));
    let healed = story(&mut judge, [(25, 0, Reading::good())]);
    assert_eq!((healed.verdict, healed.breached), (Verdict::Healthy, vec![]));
}

#[test]
fn what_counts_in_a_run() {
    let none = || Reading::unreadable("the name does not resolve");
    for (name, readings, expected) in [
        ("a blip of two", vec![bad(), bad(), Reading::good()], RuleState::Quiet),
        ("a good one between", vec![bad(), bad(), Reading::good(), bad()], RuleState::Quiet),
        ("an unreadable one between", vec![bad(), none(), bad(), none(), bad()], RuleState::Breached),
        ("an unreadable one at the end", vec![bad(), bad(), bad(), none()], RuleState::Breached),
        ("unreadable ones do not count", vec![bad(), bad(), none(), none()], RuleState::Quiet),
        ("no events between", vec![bad(), bad(), events(0, 0), bad()], RuleState::Breached),
        ("one good event of many", vec![bad(), bad(), events(1, 99)], RuleState::Quiet),
        ("many bad events at once", vec![events(0, 99), bad()], RuleState::Quiet),
    ] {
        let mut judge = Judge::new(&plan(1, vec![rule("down", &["a"], in_a_row(3))]), at(0));
        story(&mut judge, (0..).map(|turn| turn * 5).zip(readings).map(|(second, reading)| (second, 0, reading)));
        assert_eq!(states(&judge), [expected], "{name}");
    }
}

#[test]
fn bad_samples_far_apart_are_no_run() {
    for (gap, expected) in [(60, RuleState::Breached), (61, RuleState::Quiet)] {
        let mut judge = Judge::new(&plan(1, vec![rule("down", &["a"], in_a_row(2))]), at(0));
        story(&mut judge, [(0, 0, bad()), (gap, 0, bad())]);
        assert_eq!(states(&judge), [expected], "{gap} s apart");
    }
}

#[test]
fn runs_are_pooled_in_time_order() {
    let pooled = || plan(2, vec![rule("down", &["a", "b"], in_a_row(3))]);
    let mut judge = Judge::new(&pooled(), at(0));
    let after = story(&mut judge, [(5, 0, bad()), (7, 1, bad()), (10, 0, bad())]);
    assert_eq!(after.verdict, Verdict::Breached);
    assert_eq!(
        after.breached[0].sentence,
        "rule \"down\": 3 bad samples of signals a, b in a row (allowed: fewer than 3), since 02:00:05Z; last: status 503"
    );
    assert_eq!(after.breached[0].implicates, ["table_a", "table_b"]);

    // A good one of the other signal in between, which comes in late.
    let mut judge = Judge::new(&pooled(), at(0));
    for (second, signal, reading) in [(5, 0, bad()), (10, 0, bad()), (15, 0, bad()), (12, 1, Reading::good())] {
        judge.observe(signal, &sample(second, reading));
    }
    assert_eq!(judge.assess(at(15)).verdict, Verdict::Healthy);
    // At the same instant the good one counts as the newer.
    let mut judge = Judge::new(&pooled(), at(0));
    let tie = story(&mut judge, [(5, 0, bad()), (10, 0, bad()), (15, 1, Reading::good()), (15, 0, bad())]);
    assert_eq!(tie.verdict, Verdict::Healthy);
}

#[test]
fn an_error_ratio_needs_enough_events_in_every_window() {
    for (name, readings, expected) in [
        ("above", vec![(50, events(94, 6))], RuleState::Breached),
        ("at the limit", vec![(50, events(95, 5))], RuleState::Quiet),
        ("too few events", vec![(50, events(0, 99))], RuleState::Quiet),
        ("in sum", vec![(20, events(60, 0)), (50, events(30, 10))], RuleState::Breached),
        ("left the window", vec![(0, events(0, 200)), (60, events(100, 0))], RuleState::Quiet),
        ("just inside the window", vec![(1, events(0, 200)), (60, events(100, 0))], RuleState::Breached),
        ("unreadable", vec![(0, events(90, 9)), (50, Reading::unreadable("429"))], RuleState::Quiet),
    ] {
        let mut judge = Judge::new(&plan(1, vec![rule("errors", &["a"], share_above(0.05, &[60], 100))]), at(0));
        story(&mut judge, readings.into_iter().map(|(second, reading)| (second, 0, reading)));
        assert_eq!(states(&judge), [expected], "{name}");
    }
}

#[test]
fn several_windows_must_all_exceed() {
    let mut judge = Judge::new(&plan(1, vec![rule("burn", &["a"], share_above(0.05, &[300, 60], 10))]), at(0));
    let spike = story(&mut judge, [(0, 0, events(1000, 0)), (290, 0, events(80, 20))]);
    assert_eq!(spike.verdict, Verdict::Healthy);
    let lasting = story(&mut judge, [(295, 0, events(88, 100))]);
    let evidence = &lasting.breached[0];
    assert_eq!((evidence.window, evidence.samples), (Some(secs(60)), 288));
    assert_eq!(
        evidence.sentence,
        "rule \"burn\": 41.7 % of 288 events of signal a in the last 1m and 9.3 % of 1288 events in the last 5m \
         were bad (allowed: 5.0 %); last: status 500"
    );
}

#[test]
fn shares_are_told_apart_in_the_sentence() {
    let mut judge = Judge::new(&plan(1, vec![rule("errors", &["a"], share_above(0.05, &[90], 1))]), at(0));
    let found = story(&mut judge, [(0, 0, events(9499, 501))]);
    assert_eq!(
        found.breached[0].sentence,
        "rule \"errors\": 5.01 % of 10000 events of signal a in the last 1m 30s were bad (allowed: 5.00 %); \
         last: status 500"
    );
}

#[test]
fn confirm_makes_a_rule_suspect_first() {
    let mut plan = plan(1, vec![rule("down", &["a"], in_a_row(2))]);
    plan.decision.confirm = secs(20);
    let mut judge = Judge::new(&plan, at(0));
    let suspect = story(&mut judge, [(0, 0, bad()), (5, 0, bad()), (10, 0, bad())]);
    assert_eq!((suspect.verdict, states(&judge)), (Verdict::Suspect, vec![RuleState::Suspect]));
    assert_eq!(suspect.breached, []);
    // Nothing new is needed for the time to pass.
    assert_eq!(judge.next_change(at(10)), Some(at(25)));
    assert_eq!(judge.assess(at(24)).verdict, Verdict::Suspect);
    let breached = judge.assess(at(25));
    assert_eq!((breached.verdict, breached.breached[0].since), (Verdict::Breached, at(5)));
    // It begins anew after a good one.
    story(&mut judge, [(26, 0, Reading::good()), (30, 0, bad()), (35, 0, bad())]);
    assert_eq!(judge.assess(at(54)).verdict, Verdict::Suspect);
}

#[test]
fn at_least_asks_for_rules_at_the_same_time() {
    let mut plan = plan(2, vec![rule("a is down", &["a"], in_a_row(1)), rule("b is down", &["b"], in_a_row(1))]);
    plan.decision.at_least = 2;
    let mut judge = Judge::new(&plan, at(0));
    let one = story(&mut judge, [(0, 0, bad()), (0, 1, Reading::good())]);
    assert_eq!((one.verdict, one.breached.len()), (Verdict::Suspect, 1));
    let both = story(&mut judge, [(5, 1, bad())]);
    assert_eq!((both.verdict, both.breached.len()), (Verdict::Breached, 2));
    assert_eq!(
        both.breached[0].sentence,
        "rule \"a is down\": a bad sample of signal a (allowed: none), at 02:00:00Z; last: status 503"
    );
}

#[test]
fn rules_that_page_or_freeze_do_not_make_a_verdict() {
    let mut page = rule("look", &["a"], in_a_row(1));
    page.then = Consequence::Page;
    let mut freeze = rule("hold", &["a"], in_a_row(1));
    freeze.then = Consequence::Freeze;
    let mut judge = Judge::new(&plan(2, vec![page, rule("down", &["b"], in_a_row(1)), freeze]), at(0));
    let found = story(&mut judge, [(0, 1, Reading::good()), (0, 0, bad())]);
    assert_eq!(found.verdict, Verdict::Healthy);
    assert_eq!(found.breached.iter().map(|one| one.then).collect::<Vec<_>>(), [Consequence::Page, Consequence::Freeze]);
    // Nor are their signals a reason to be blind.
    story(&mut judge, [(30, 1, Reading::good())]);
    let later = judge.assess(at(70));
    assert_eq!((later.verdict, later.blind), (Verdict::Healthy, vec![]));
    assert_eq!(states(&judge), [RuleState::Blind, RuleState::Quiet, RuleState::Blind]);
}

#[test]
fn a_signal_out_of_sight_makes_the_verdict_blind() {
    let mut judge = Judge::new(&plan(1, vec![rule("down", &["a"], in_a_row(3))]), at(0));
    assert_eq!(judge.assess(at(59)).verdict, Verdict::Healthy);
    assert_eq!(judge.next_change(at(59)), Some(at(60)));
    let never = judge.assess(at(60));
    assert_eq!(never.verdict, Verdict::Blind);
    assert_eq!(never.blind, ["signal a has given no reading at all, watched since 02:00:00Z"]);
    assert_eq!(judge.next_change(at(60)), None);

    let tried = story(&mut judge, [(61, 0, Reading::unreadable("wrong password"))]);
    assert_eq!(tried.blind, ["signal a could never be read, watched since 02:00:00Z: wrong password"]);
    let seen = story(&mut judge, [(65, 0, Reading::good()), (70, 0, Reading::unreadable("status 429"))]);
    assert_eq!(seen.verdict, Verdict::Healthy);
    let lost = judge.assess(at(125));
    assert_eq!(lost.blind, ["signal a could not be read since 02:01:05Z: status 429"]);
    assert_eq!(judge.signals()[0].verdict, Verdict::Blind);
}

#[test]
fn bad_then_lost_is_blind_and_no_breach() {
    let mut judge = Judge::new(&plan(1, vec![rule("down", &["a"], in_a_row(3))]), at(0));
    story(&mut judge, [(0, 0, bad()), (5, 0, bad()), (10, 0, bad())]);
    assert_eq!(judge.assess(at(69)).verdict, Verdict::Breached);
    assert_eq!(judge.next_change(at(69)), Some(at(70)));
    let lost = judge.assess(at(70));
    assert_eq!((lost.verdict, lost.breached), (Verdict::Blind, vec![]));
}

#[test]
fn a_pooled_rule_cannot_become_breached_without_sight_but_stays_breached() {
    let pooled = || plan(2, vec![rule("down", &["a", "b"], in_a_row(3))]);
    let bads = |from: i64, to: i64| (from..=to).step_by(5).map(|second| (second, 0, bad()));
    // b is lost first: what it would have said is not known.
    let mut judge = Judge::new(&pooled(), at(0));
    story(&mut judge, [(0, 1, Reading::good())]);
    story(&mut judge, (0..=60).step_by(5).map(|second| (second, 0, Reading::good())));
    assert_eq!(story(&mut judge, bads(65, 100)).verdict, Verdict::Blind);
    assert_eq!(story(&mut judge, [(101, 1, bad())]).verdict, Verdict::Breached);

    // Breached in full sight, and lost afterwards.
    let mut judge = Judge::new(&pooled(), at(0));
    story(&mut judge, [(0, 1, bad())]);
    assert_eq!(story(&mut judge, bads(1, 100)).verdict, Verdict::Breached);
    assert_eq!(judge.next_change(at(100)), Some(at(156)));
    assert_eq!(judge.assess(at(155)).verdict, Verdict::Breached);
    assert_eq!(judge.assess(at(156)).verdict, Verdict::Blind);
}

#[test]
fn blind_comes_before_suspect_and_after_breached() {
    let rules = vec![rule("a is down", &["a"], in_a_row(1)), rule("b is down", &["b"], in_a_row(1))];
    let mut judge = Judge::new(&plan(2, rules.clone()), at(0));
    assert_eq!(story(&mut judge, [(70, 0, bad())]).verdict, Verdict::Breached);
    let mut both = plan(2, rules);
    both.decision.at_least = 2;
    let mut judge = Judge::new(&both, at(0));
    assert_eq!(story(&mut judge, [(70, 0, bad())]).verdict, Verdict::Blind);
}

#[test]
fn a_probe_in_time_is_never_blind() {
    let mut slow = plan(1, vec![rule("down", &["a"], in_a_row(2))]);
    slow.signals[0].every = secs(120);
    let mut judge = Judge::new(&slow, at(0));
    assert_eq!(story(&mut judge, [(1, 0, Reading::good())]).verdict, Verdict::Healthy);
    assert_eq!(judge.assess(at(123)).verdict, Verdict::Healthy);
    assert_eq!(judge.assess(at(124)).verdict, Verdict::Blind);
    // Nor are its turns too far apart to be a run.
    assert_eq!(story(&mut judge, [(125, 0, bad()), (245, 0, bad())]).verdict, Verdict::Breached);
}

#[test]
fn health_is_the_time_since_when_all_have_been_good() {
    let mut judge = Judge::new(&plan(2, vec![]), at(0));
    let none = judge.assess(at(0));
    assert_eq!(none.healthy_since, None);
    assert_eq!(none.unhealthy, ["signal a has not been read yet", "signal b has not been read yet"]);
    let one = story(&mut judge, [(1, 0, Reading::good()), (2, 1, bad())]);
    assert_eq!(
        (one.healthy_since, one.unhealthy),
        (None, vec!["signal b was bad at 02:00:02Z: status 503".to_owned()])
    );
    let all = story(&mut judge, [(6, 0, Reading::good()), (7, 1, Reading::good()), (11, 0, Reading::good())]);
    assert_eq!((all.healthy_since, all.unhealthy), (Some(at(7)), vec![]));
    // Unreadable is not good.
    let broken = story(&mut judge, [(12, 1, Reading::unreadable("no witness answers"))]);
    assert_eq!(broken.unhealthy, ["signal b could not be read at 02:00:12Z: no witness answers"]);
    let again = story(&mut judge, [(17, 1, Reading::good())]);
    assert_eq!(again.healthy_since, Some(at(17)));
    // 3 turns of 5 s and one time-out of 3 s after the latest good one of a.
    assert_eq!(judge.next_change(at(17)), Some(at(29)));
    assert_eq!(judge.assess(at(28)).healthy_since, Some(at(17)));
    assert_eq!(judge.assess(at(29)).unhealthy, ["signal a was last good at 02:00:11Z, which is too long ago"]);
}

#[test]
fn a_clock_set_back_forgets_what_is_ahead() {
    let mut judge = Judge::new(&plan(1, vec![rule("down", &["a"], in_a_row(3))]), at(0));
    story(&mut judge, [(3600, 0, bad()), (3605, 0, bad())]);
    let back = story(&mut judge, [(10, 0, bad())]);
    assert_eq!((back.verdict, judge.signals()[0].consecutive_bad), (Verdict::Healthy, 1));
    // The forgotten ones do not come back when the clock gets there.
    story(&mut judge, [(3590, 0, Reading::good()), (3600, 0, bad())]);
    assert_eq!(judge.assess(at(3606)).verdict, Verdict::Healthy);

    // Nobody has read anything yet when the clock is found to be back.
    let mut judge = Judge::new(&plan(1, vec![rule("down", &["a"], in_a_row(1))]), at(3600));
    story(&mut judge, [(3605, 0, bad())]);
    assert_eq!(judge.assess(at(0)).verdict, Verdict::Healthy);
    assert_eq!(judge.assess(at(60)).verdict, Verdict::Blind);
    // A few seconds are no setting back.
    let mut judge = Judge::new(&plan(1, vec![rule("down", &["a"], in_a_row(1))]), at(0));
    judge.observe(0, &sample(12, bad()));
    let ahead = judge.assess(at(10));
    assert_eq!((ahead.verdict, ahead.at), (Verdict::Breached, at(12)));
}

#[test]
fn good_times_survive_a_clock_set_back_only_where_they_are_remembered() {
    let mut judge = Judge::new(&plan(1, vec![]), at(0));
    story(&mut judge, [(0, 0, Reading::good()), (5, 0, Reading::good()), (10, 0, Reading::good())]);
    assert_eq!(story(&mut judge, [(7, 0, Reading::good())]).healthy_since, Some(at(0)));
    assert_eq!(story(&mut judge, [(8, 0, bad()), (7, 0, Reading::good())]).healthy_since, Some(at(7)));
}

#[test]
fn memory_is_bounded() {
    let mut judge = Judge::new(&plan(1, vec![rule("errors", &["a"], share_above(0.5, &[1_000_000], 1))]), at(0));
    for second in 0..70_000 {
        judge.observe(0, &sample(second, Reading::good()));
    }
    assert_eq!(judge.memories[0].marks().count(), memory::MOST_READINGS);
    let mut judge = Judge::new(&plan(1, vec![rule("down", &["a"], in_a_row(3))]), at(0));
    for second in 0..1_000 {
        judge.observe(0, &sample(second, bad()));
    }
    assert_eq!(judge.memories[0].marks().count(), 128);
    assert_eq!(judge.signals()[0].consecutive_bad, 1_000);
}

#[test]
fn reasons_are_kept_short_and_on_one_line() {
    let mut judge = Judge::new(&plan(1, vec![rule("down", &["a"], in_a_row(1))]), at(0));
    let found = story(&mut judge, [(0, 0, Reading::bad(format!("line one\nline two {}", "x".repeat(1_000))))]);
    let reason = found.breached[0].last_reason.as_deref().expect("a reason");
    assert!(reason.starts_with("line one line two xxx") && reason.len() == 300, "{reason}");
}

#[test]
fn what_the_plan_does_not_have_changes_nothing() {
    let mut judge = Judge::new(&plan(1, vec![rule("ghost", &["nobody"], in_a_row(1))]), at(0));
    judge.observe(7, &sample(0, bad()));
    assert_eq!(judge.assess(Timestamp::MAX).verdict, Verdict::Healthy);
    assert_eq!(judge.assess(Timestamp::MIN).verdict, Verdict::Healthy);
    assert_eq!(states(&judge), [RuleState::Quiet]);
}
