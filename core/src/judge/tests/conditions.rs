//! What each kind of condition looks at, apart from runs and shares.

use super::*;

fn took(seconds: i64, signal: usize, millis: i64) -> (usize, Sample) {
    (signal, Sample { took: SignedDuration::from_millis(millis), ..sample(seconds, Reading::good()) })
}

fn valued(value: f64) -> Reading {
    Reading::good_with(value)
}

fn one(condition: Condition) -> Judge {
    Judge::new(&plan(1, vec![rule("it", &["a"], condition)]), at(0))
}

#[test]
fn slow_readings_are_a_breach_when_the_quantile_is_too_long_in_every_window() {
    let limit = SignedDuration::from_millis(500);
    let slow = |over: &[i64], min_samples| Condition::LatencyAbove {
        limit,
        quantile: 0.9,
        over: over.iter().map(|over| secs(*over)).collect(),
        min_samples,
    };
    // Of ten readings the slowest is left out, the second slowest counts.
    for (tenth, ninth, breached) in [(900, 600, true), (900, 500, false), (501, 501, true), (500, 500, false)] {
        let mut judge = one(slow(&[60], 10));
        let mut last = None;
        for (second, millis) in
            [(0, 20), (5, 20), (10, 20), (15, 20), (20, 20), (25, 20), (30, 20), (35, 20), (40, ninth), (45, tenth)]
        {
            let (signal, sample) = took(second, 0, millis);
            judge.observe(signal, &sample);
            last = Some(judge.assess(sample.at));
        }
        let last = last.expect("assessed");
        assert_eq!(last.breached.len(), usize::from(breached), "{tenth} {ninth}");
        if let [evidence] = last.breached.as_slice()
            && tenth == 900
        {
            assert_eq!((evidence.observed, evidence.threshold, evidence.samples), (0.6, 0.5, 10));
            assert_eq!(
                evidence.sentence,
                "rule \"it\": of 10 readings of signal a in the last 1m the slowest 10.0 % took 0.600 s or more (allowed: 0.5 s)"
            );
        }
    }
    // Too few of them, or only the shorter window.
    for (over, min_samples) in [(&[60][..], 11), (&[10, 300][..], 2)] {
        let mut judge = one(slow(over, min_samples));
        for turn in 0..10 {
            let (signal, sample) = took(turn * 5, 0, if turn < 9 { 20 } else { 900 });
            judge.observe(signal, &sample);
        }
        assert_eq!(judge.assess(at(45)).breached, vec![], "{over:?}");
    }
}

#[test]
fn a_value_has_to_stay_out_of_bounds_for_as_long_as_the_rule_says() {
    let above = |hold| Condition::ValueAbove { limit: 90.0, hold: secs(hold) };
    let story_of = |condition: Condition, values: &[f64]| {
        let mut judge = one(condition);
        let samples =
            values.iter().enumerate().map(|(turn, value)| (5 * i64::try_from(turn).expect("few"), 0, valued(*value)));
        story(&mut judge, samples)
    };
    assert_eq!(
        story_of(above(0), &[91.0]).breached[0].sentence,
        "rule \"it\": signal a was 91 (allowed: at most 90), since 02:00:00Z"
    );
    assert_eq!(story_of(above(0), &[90.0]).breached, vec![]);
    assert_eq!(story_of(above(10), &[91.0, 95.0]).breached, vec![]);
    let held = story_of(above(10), &[91.0, 95.0, 97.5]).breached.remove(0);
    assert_eq!((held.observed, held.threshold, held.samples, held.since), (97.5, 90.0, 3, at(10)));
    assert_eq!(
        held.sentence,
        "rule \"it\": signal a was 97.5 at 3 readings in a row (allowed: at most 90), since 02:00:00Z"
    );
    assert_eq!(story_of(above(10), &[91.0, 80.0, 91.0, 92.0]).breached, vec![], "it came back in between");
    let below = Condition::ValueBelow { limit: 1.0, hold: SignedDuration::ZERO };
    assert_eq!(
        story_of(below, &[0.5]).breached[0].sentence,
        "rule \"it\": signal a was 0.5 (allowed: at least 1), since 02:00:00Z"
    );
    // What has no value says nothing of it; a gap that is too long begins anew.
    let mut judge = one(above(10));
    let bridged = story(
        &mut judge,
        [(0, 0, valued(95.0)), (5, 0, bad()), (10, 0, Reading::unreadable("no")), (15, 0, valued(95.0))],
    );
    assert_eq!(bridged.breached.len(), 1);
    let mut judge = one(above(10));
    let gap = story(&mut judge, [(0, 0, valued(95.0)), (100, 0, valued(95.0))]);
    assert_eq!(gap.breached, vec![]);
}

#[test]
fn a_budget_that_burns_too_fast_in_both_windows_is_a_breach() {
    let burn = Condition::BurnRateAbove { slo: 0.999, rate: 14.4, over: vec![secs(300), secs(60)], min_samples: 10 };
    let mut judge = one(burn.clone());
    let short = story(
        &mut judge,
        (0..60).map(|turn| (turn * 5, 0, if turn < 58 { events(1_000, 0) } else { events(980, 20) })),
    );
    assert_eq!(short.breached, vec![], "the longer window has seen too little of it");
    let mut judge = one(burn);
    let evidence = story(&mut judge, (0..60).map(|turn| (turn * 5, 0, events(980, 20)))).breached.remove(0);
    assert!((evidence.observed - 20.0).abs() < 1e-9, "{}", evidence.observed);
    assert_eq!(
        evidence.sentence,
        "rule \"it\": 2.00 % of 12000 events of signal a in the last 1m and 2.00 % of 60000 events in the last 5m were bad: 20.0 \
         times as fast as the budget of 0.10 % allows (allowed: 14.4); last: status 500"
    );
}

#[test]
fn a_share_is_compared_with_that_of_the_warm_up() {
    let worse = || Condition::TimesBaseline { times: 3.0, over: vec![secs(60)], min_samples: 20 };
    let warm = |judge: &mut Judge| story(judge, (0..12).map(|turn| (turn * 5, 0, events(990, 10))));
    let mut judge = one(worse());
    let levels = warm(&mut judge).levels;
    assert_eq!(levels, [Level { good: 990 * 6, bad: 60 }], "as long as a warm-up takes");
    let unlearned = story(&mut judge, (12..24).map(|turn| (turn * 5, 0, events(900, 100))));
    assert_eq!(unlearned.breached, vec![], "nothing is known of before");
    judge.learn(&levels);
    let evidence = judge.assess(at(115)).breached.remove(0);
    assert!((evidence.observed - 10.0).abs() < 0.5, "{}", evidence.observed);
    assert_eq!(
        evidence.sentence,
        "rule \"it\": 10.0 % of 12000 events of signal a in the last 1m were bad, 10.0 times the 1.00 % of 6000 events before the \
         migration (allowed: 3 times); last: status 500"
    );
    // Twice as many are not three times as many; and little traffic says nothing, however bad it looks.
    for (before, reading) in
        [(Level { good: 5_940, bad: 60 }, events(980, 20)), (Level { good: 12, bad: 0 }, events(1, 1))]
    {
        let mut judge = one(worse());
        judge.learn(&[before]);
        assert_eq!(story(&mut judge, (0..12).map(|turn| (turn * 5, 0, reading.clone()))).breached, vec![]);
    }
    let mut judge = one(worse());
    assert!(warm(&mut judge).healthy_since.is_some(), "a few bad events of many are everyday life");
}

#[test]
fn a_signal_is_not_good_while_a_rule_says_otherwise() {
    let mut judge = Judge::new(&plan(1, vec![rule("errors", &["a"], share_above(0.05, &[60], 100))]), at(0));
    let ill = story(&mut judge, (0..12).map(|turn| (turn * 5, 0, events(90, 10))));
    assert_eq!((ill.verdict, ill.healthy_since), (Verdict::Breached, None));
    let well = story(&mut judge, (12..40).map(|turn| (turn * 5, 0, events(100, 0))));
    assert!(well.healthy_since.is_some_and(|since| since > at(60)), "{well:?}");
}

#[test]
fn the_newest_samples_tell_whether_it_is_still_so_however_few_there_are() {
    let still = || Condition::ErrorRatioAbove { ratio: 0.1, over: vec![secs(300)], min_samples: 20, last: Some(10) };
    // A restart: four bad ones in a row, and good ones again.
    let restart = |later: i64| {
        let bad_at = |turn: i64| (20..24).contains(&turn);
        (0..24 + later).map(move |turn| (turn * 5, 0, if bad_at(turn) { bad() } else { Reading::good() }))
    };
    let while_it_lasts = story(&mut one(still()), restart(9)).breached.remove(0);
    assert_eq!((while_it_lasts.samples, while_it_lasts.window), (33, Some(secs(300))));
    assert_eq!(
        while_it_lasts.sentence,
        "rule \"it\": 12.1 % of 33 events of signal a in the last 5m and 28.6 % of the last 14 events (1m 5s) were bad \
         (allowed: 10.0 %); last: status 503"
    );
    assert_eq!(story(&mut one(still()), restart(10)).breached, vec![], "ten good ones since");
    // One in four fails: still so, whenever one looks.
    let flickers = (0..60).map(|turn| (turn * 5, 0, if turn % 4 == 0 { bad() } else { Reading::good() }));
    assert_eq!(story(&mut one(still()), flickers).breached.len(), 1);
    // Of a reading of many events as many good ones count as are asked for, and every bad one.
    let crowd = (0..60).map(|turn| (turn, 0, if turn == 59 { events(1_000, 9) } else { events(30, 9) }));
    let of_many = story(&mut one(still()), crowd).breached.remove(0);
    assert!(of_many.sentence.contains("and 47.4 % of the last 19 events (0s) were bad"), "{}", of_many.sentence);
}
