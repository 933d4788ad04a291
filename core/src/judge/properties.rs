//! What must hold whatever is observed.

use proptest::prelude::*;

use super::tests::{START, at, in_a_row, plan, rule, secs, share_above};
use super::*;
use crate::sample::Reading;

/// Three signals under a rule of each kind, one pooled.
fn judged(at_least: u32, confirm: i64) -> Plan {
    let mut plan = plan(
        3,
        vec![
            rule("down", &["a"], in_a_row(3)),
            rule("pooled", &["a", "b"], in_a_row(4)),
            rule("errors", &["b", "c"], share_above(0.3, &[30, 120], 5)),
            rule(
                "still",
                &["a", "b", "c"],
                Condition::ErrorRatioAbove { ratio: 0.25, over: vec![secs(120)], min_samples: 8, last: Some(6) },
            ),
            rule(
                "budget",
                &["c"],
                Condition::BurnRateAbove { slo: 0.9, rate: 2.0, over: vec![secs(60)], min_samples: 5 },
            ),
            rule("worse", &["a", "c"], Condition::TimesBaseline { times: 2.0, over: vec![secs(60)], min_samples: 5 }),
        ],
    );
    plan.decision.at_least = at_least;
    plan.decision.confirm = secs(confirm);
    plan
}

fn reading() -> impl Strategy<Value = Reading> {
    prop_oneof![
        4 => Just(Reading::good()),
        4 => Just(Reading::bad("status 503")),
        1 => Just(Reading::unreadable("status 429")),
        2 => (0_u64..20, 0_u64..20).prop_map(|(good, bad)| Reading::Events { good, bad, value: None, reason: None }),
    ]
}

/// A story: seconds since the last sample (of whatever signal), the signal, the reading.
fn steps(reading: impl Strategy<Value = Reading>) -> impl Strategy<Value = Vec<(i64, usize, Reading)>> {
    proptest::collection::vec((prop_oneof![9 => 0_i64..6, 1 => 0_i64..90], 0_usize..3, reading), 1..60)
}

fn dated(steps: &[(i64, usize, Reading)], shift: i64) -> Vec<(usize, Sample)> {
    let mut second = shift;
    steps
        .iter()
        .map(|(gap, signal, reading)| {
            second += gap;
            (*signal, Sample { at: at(second), took: SignedDuration::ZERO, reading: reading.clone() })
        })
        .collect()
}

/// Every assessment, one after each sample.
fn live(plan: &Plan, shift: i64, samples: &[(usize, Sample)]) -> (Judge, Vec<Assessment>) {
    let mut judge = Judge::new(plan, at(shift));
    judge.learn(&[Level { good: 200, bad: 2 }; 3]);
    let assessments = samples
        .iter()
        .map(|(signal, sample)| {
            judge.observe(*signal, sample);
            judge.assess(sample.at)
        })
        .collect();
    (judge, assessments)
}

/// What an assessment says, with times relative to a beginning and without the sentences that spell them.
type Said = (Verdict, Vec<(String, String, SignedDuration)>, Option<SignedDuration>, usize, usize);

fn said(assessment: &Assessment, shift: i64) -> Said {
    let since = |instant: Timestamp| instant.duration_since(at(shift));
    let breached = assessment
        .breached
        .iter()
        .map(|one| (one.rule.clone(), format!("{} of {}", one.observed, one.samples), since(one.since)))
        .collect();
    let healthy = assessment.healthy_since.map(since);
    (assessment.verdict, breached, healthy, assessment.blind.len(), assessment.unhealthy.len())
}

proptest! {
    #[test]
    fn shifting_all_times_changes_nothing(
        steps in steps(reading()),
        shift in -1_000_000_000_i64..1_000_000_000,
        (at_least, confirm) in (1_u32..4, 0_i64..30),
    ) {
        let plan = judged(at_least, confirm);
        let here: Vec<_> = live(&plan, 0, &dated(&steps, 0)).1.iter().map(|one| said(one, 0)).collect();
        let there: Vec<_> = live(&plan, shift, &dated(&steps, shift)).1.iter().map(|one| said(one, shift)).collect();
        prop_assert_eq!(here, there);
    }

    #[test]
    fn a_clock_that_is_set_on_the_way_changes_nothing(
        steps in steps(reading()),
        shift in -1_000_000_000_i64..1_000_000_000,
        set_before in 0_usize..60,
        (at_least, confirm) in (1_u32..4, 0_i64..30),
    ) {
        let plan = judged(at_least, confirm);
        let samples = dated(&steps, 0);
        let even: Vec<_> = live(&plan, 0, &samples).1.iter().map(|one| said(one, 0)).collect();
        let (mut judge, mut shifted, mut said_so) = (Judge::new(&plan, at(0)), 0, Vec::new());
        judge.learn(&[Level { good: 200, bad: 2 }; 3]);
        for (turn, (signal, sample)) in samples.iter().enumerate() {
            if turn == set_before {
                judge.shift(secs(shift));
                shifted = shift;
            }
            let sample = Sample { at: sample.at + secs(shifted), ..sample.clone() };
            judge.observe(*signal, &sample);
            said_so.push(said(&judge.assess(sample.at), shifted));
        }
        prop_assert_eq!(even, said_so);
    }

    #[test]
    fn the_order_in_which_signals_come_in_changes_nothing(
        steps in steps(reading()),
        keys in proptest::collection::vec(any::<u32>(), 60),
    ) {
        let plan = judged(1, 0);
        let samples = dated(&steps, 0);
        // A shuffle that keeps each signal's own order.
        let mut order: Vec<usize> = samples.iter().map(|(signal, _)| *signal).collect();
        let mut keyed: Vec<(u32, usize)> = keys.iter().copied().zip(order.drain(..)).collect();
        keyed.sort_unstable();
        let mut queues: Vec<_> =
            (0..3).map(|signal| samples.iter().filter(move |(of, _)| *of == signal)).collect();
        let (mut straight, mut shuffled) = (Judge::new(&plan, at(0)), Judge::new(&plan, at(0)));
        for (signal, sample) in &samples {
            straight.observe(*signal, sample);
        }
        for (_, signal) in keyed {
            let (_, sample) = queues[signal].next().expect("as many as there were");
            shuffled.observe(signal, sample);
        }
        let now = samples.last().map_or(at(0), |(_, sample)| sample.at);
        prop_assert_eq!(straight.assess(now), shuffled.assess(now));
        prop_assert_eq!(straight.signals(), shuffled.signals());
        prop_assert_eq!(straight.next_change(now), shuffled.next_change(now));
    }

    #[test]
    fn a_bad_sample_more_never_makes_a_breach_less(
        steps in steps(reading()),
        signal in 0_usize..3,
        confirm in 0_i64..30,
    ) {
        let samples = dated(&steps, 0);
        let (mut judge, _) = live(&judged(1, confirm), 0, &samples);
        let before = judge.rules();
        let now = samples.last().map_or(at(0), |(_, sample)| sample.at);
        judge.observe(signal, &Sample { at: now, took: SignedDuration::ZERO, reading: Reading::bad("again") });
        judge.assess(now);
        for (before, after) in before.iter().zip(judge.rules()) {
            prop_assert!(before.state != RuleState::Breached || after.state == RuleState::Breached, "{}", before.name);
        }
    }

    #[test]
    fn unreadable_samples_alone_never_breach(steps in steps(Just(Reading::unreadable("cut off")))) {
        let (_, assessments) = live(&judged(1, 0), 0, &dated(&steps, 0));
        for one in assessments {
            prop_assert!(matches!(one.verdict, Verdict::Healthy | Verdict::Blind));
            prop_assert_eq!(one.breached, vec![]);
            prop_assert_eq!(one.healthy_since, None);
        }
    }

    #[test]
    fn good_samples_alone_are_never_suspect(steps in steps(Just(Reading::good()))) {
        let (judge, assessments) = live(&judged(1, 0), 0, &dated(&steps, 0));
        for one in assessments {
            prop_assert!(matches!(one.verdict, Verdict::Healthy | Verdict::Blind));
            prop_assert_eq!(one.breached, vec![]);
        }
        for rule in judge.rules() {
            prop_assert!(matches!(rule.state, RuleState::Quiet | RuleState::Blind));
        }
    }

    #[test]
    fn a_blip_of_two_never_breaches_three_in_a_row(
        blips in proptest::collection::vec((1_usize..3, 1_usize..4, 0_usize..2), 1..20),
    ) {
        let mut steps = Vec::new();
        for (bad, good, unreadable) in blips {
            steps.extend(std::iter::repeat_n((5, 0, Reading::bad("blip")), bad));
            steps.extend(std::iter::repeat_n((5, 0, Reading::unreadable("cut off")), unreadable));
            steps.extend(std::iter::repeat_n((5, 0, Reading::good()), good));
        }
        let (_, assessments) = live(&plan(1, vec![rule("down", &["a"], in_a_row(3))]), 0, &dated(&steps, 0));
        prop_assert!(assessments.iter().all(|one| one.verdict == Verdict::Healthy));
    }

    #[test]
    fn no_clock_can_make_it_panic_or_breach_without_a_bad_sample(
        samples in proptest::collection::vec((-400_000_000_000_i64..250_000_000_000, 0_usize..4, any::<bool>()), 1..40),
    ) {
        let mut judge = Judge::new(&judged(1, 0), at(0));
        for (second, signal, readable) in samples {
            let instant = Timestamp::from_second((START + second).clamp(
                Timestamp::MIN.as_second(),
                Timestamp::MAX.as_second(),
            )).expect("in range");
            let reading = if readable { Reading::good() } else { Reading::unreadable("cut off") };
            judge.observe(signal, &Sample { at: instant, took: SignedDuration::ZERO, reading });
            let assessment = judge.assess(instant);
            prop_assert_eq!(assessment.breached, vec![]);
            prop_assert!(judge.next_change(assessment.at).is_none_or(|change| change > assessment.at));
        }
    }

    #[test]
    fn nothing_changes_before_the_next_change_is_due(steps in steps(reading()), confirm in 0_i64..30, share in 0_i64..1_000) {
        let samples = dated(&steps, 0);
        let mut plan = judged(1, confirm);
        // Windows of an error ratio move with the time; they are looked at on new samples.
        plan.rules.truncate(2);
        let (mut judge, assessments) = live(&plan, 0, &samples);
        let last = assessments.last().expect("at least one");
        if let Some(change) = judge.next_change(last.at) {
            let wait = change.duration_since(last.at) * i32::try_from(share).expect("small") / 1_000;
            let meanwhile = judge.assess(last.at + wait);
            prop_assert_eq!(said(&meanwhile, 0), said(last, 0));
        }
    }
}
