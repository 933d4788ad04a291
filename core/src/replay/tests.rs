use super::*;
use crate::judge::tests::{at, in_a_row, plan, rule, sample, secs, share_above};
use crate::sample::Reading;

fn bad() -> Reading {
    Reading::bad("status 503")
}

fn run(plan: &Plan, readings: &[(i64, Reading)]) -> Said {
    let mut replay = Replay::new(plan, at(0), true);
    for (second, reading) in readings {
        replay.take(Seen::Sample(0, sample(*second, reading.clone())), at(*second));
    }
    replay.end()
}

#[test]
fn each_time_that_a_rule_becomes_breached_is_told_once() {
    let plan = plan(1, vec![rule("down", &["a"], in_a_row(2)), rule("errors", &["a"], share_above(0.5, &[60], 5))]);
    let readings: Vec<(i64, Reading)> = (0..12)
        .map(|turn| (turn * 5, if [3, 4, 5, 8, 9, 10, 11].contains(&turn) { bad() } else { Reading::good() }))
        .collect();
    let said = run(&plan, &readings);
    let fired: Vec<(&str, Timestamp)> = said.fired.iter().map(|one| (one.rule.as_str(), one.at)).collect();
    assert_eq!(fired, [("down", at(20)), ("down", at(45)), ("errors", at(50))]);
    assert_eq!(said.decided, Some(Decided { at: at(20), rules: vec!["down".to_owned()] }));
    assert_eq!(said.samples, 12);
}

#[test]
fn what_time_alone_brings_is_found_between_the_samples() {
    let mut plan = plan(1, vec![rule("down", &["a"], in_a_row(2))]);
    plan.decision.confirm = secs(7);
    let readings = [(0, bad()), (5, bad()), (20, bad())];
    assert_eq!(run(&plan, &readings).decided.map(|decided| decided.at), Some(at(12)));
    // A recording of the daemon says itself when the rules were asked.
    let mut replay = Replay::new(&plan, at(0), false);
    for (second, reading) in readings {
        replay.take(Seen::Sample(0, sample(second, reading)), at(second));
        if second == 5 {
            replay.take(Seen::Look, at(13));
        }
    }
    assert_eq!(replay.end().decided.map(|decided| decided.at), Some(at(13)));
}

#[test]
fn the_beginning_is_the_warm_up_when_nobody_wrote_it_down() {
    let worse = Condition::TimesBaseline { times: 3.0, over: vec![secs(30)], min_samples: 20 };
    let plan = plan(1, vec![rule("worse", &["a"], worse)]);
    let events = |good, bad| Reading::Events { good, bad, value: None, reason: None };
    let readings: Vec<(i64, Reading)> =
        (0..24).map(|turn| (turn * 5, if turn < 12 { events(990, 10) } else { events(900, 100) })).collect();
    assert!(run(&plan, &readings).fired.first().is_some_and(|one| one.at > at(60)));
}

#[test]
fn a_grid_holds_the_configured_threshold_and_others_around_it() {
    let plan = plan(1, vec![rule("down", &["a"], in_a_row(7)), rule("errors", &["a"], share_above(0.2, &[60], 5))]);
    let (grid, variants) = grid(&plan);
    assert_eq!(grid.rules.len(), variants.len());
    for name in ["down", "errors"] {
        let of: Vec<&Variant> = variants.iter().filter(|one| one.rule == name).collect();
        assert_eq!(of.iter().filter(|one| one.configured).count(), 1, "{name}");
        assert!(of.windows(2).all(|pair| pair[0].threshold < pair[1].threshold), "{of:?}");
    }
    // Stricter fires first.
    let readings: Vec<(i64, Reading)> = (0..12).map(|turn| (turn * 5, bad())).collect();
    let said = run(&grid, &readings);
    let when = |place: usize| said.fired.iter().find(|one| one.rule == place.to_string()).map(|one| one.at);
    assert_eq!((when(0), when(1), when(10)), (Some(at(0)), Some(at(5)), None));
}
