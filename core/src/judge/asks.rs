//! A rule in words: what it asks for, and its numbers in their unit.

use jiff::SignedDuration;

use super::evidence::percents;
use crate::plan::{Condition, Rule};
use crate::words::grouped;

/// What has to be so for the rule to hold: `3 bad samples of signal api in a row`.
pub fn asks(rule: &Rule) -> String {
    let noun = if rule.signals.len() == 1 { "signal" } else { "signals" };
    let signal = format!("{noun} {}", rule.signals.join(", "));
    let limit = number(&rule.condition, rule.condition.threshold());
    match &rule.condition {
        Condition::Consecutive { count: 1 } => format!("a bad sample of {signal}"),
        Condition::Consecutive { count } => format!("{count} bad samples of {signal} in a row"),
        Condition::ErrorRatioAbove { over, min_samples, last, .. } => {
            let newest = last.map(|good| format!(", and of the newest back to {} good ones", grouped(good)));
            let (of, over) = (events(*min_samples, "events"), windows(over));
            format!("more than {limit} of {of}{signal} bad {over}{}", newest.unwrap_or_default())
        }
        Condition::LatencyAbove { quantile, over, min_samples, .. } => format!(
            "the slowest {} of {}{signal} took more than {limit} {}",
            share(1.0 - quantile),
            events(*min_samples, "readings"),
            windows(over)
        ),
        Condition::ValueAbove { hold, .. } => format!("{signal} above {limit}{}", lasting(*hold)),
        Condition::ValueBelow { hold, .. } => format!("{signal} below {limit}{}", lasting(*hold)),
        Condition::BurnRateAbove { slo, over, min_samples, .. } => format!(
            "bad ones among {}{signal} use up the budget of {} more than {limit} as fast as it allows, {}",
            events(*min_samples, "events"),
            share(1.0 - slo),
            windows(over)
        ),
        Condition::TimesBaseline { over, min_samples, .. } => format!(
            "{limit} the share of bad ones among {}{signal} that was usual before the migration, {}, and not by chance",
            events(*min_samples, "events"),
            windows(over)
        ),
    }
}

/// What was observed of a condition, in its unit: `3 in a row`, `31.0 %`.
pub fn observed(condition: &Condition, seen: f64) -> String {
    match condition {
        Condition::Consecutive { .. } => format!("{seen} in a row"),
        Condition::ErrorRatioAbove { ratio, .. } => percents(seen, *ratio).0,
        Condition::LatencyAbove { .. } => format!("{seen:.3} s"),
        Condition::ValueAbove { .. } | Condition::ValueBelow { .. } => number(condition, seen),
        Condition::BurnRateAbove { .. } | Condition::TimesBaseline { .. } => format!("{seen:.1} times"),
    }
}

/// What a condition allows, in the same unit: `fewer than 3`, `at most 5.0 %`.
pub fn allowed(condition: &Condition, seen: f64) -> String {
    let limit = number(condition, condition.threshold());
    match condition {
        Condition::Consecutive { count: 1 } => "none".to_owned(),
        Condition::Consecutive { .. } => format!("fewer than {limit}"),
        Condition::ErrorRatioAbove { ratio, .. } => format!("at most {}", percents(seen, *ratio).1),
        Condition::ValueBelow { .. } => format!("at least {limit}"),
        Condition::LatencyAbove { .. }
        | Condition::ValueAbove { .. }
        | Condition::BurnRateAbove { .. }
        | Condition::TimesBaseline { .. } => format!("at most {limit}"),
    }
}

fn number(condition: &Condition, number: f64) -> String {
    match condition {
        Condition::Consecutive { .. } | Condition::ValueAbove { .. } | Condition::ValueBelow { .. } => {
            number.to_string()
        }
        Condition::ErrorRatioAbove { .. } => share(number),
        Condition::LatencyAbove { .. } => format!("{number} s"),
        Condition::BurnRateAbove { .. } | Condition::TimesBaseline { .. } => format!("{number} times"),
    }
}

/// A configured share in percent, as short as it can be.
fn share(share: f64) -> String {
    let percent = format!("{:.6}", share * 100.0);
    format!("{} %", percent.trim_end_matches('0').trim_end_matches('.'))
}

fn events(least: u64, noun: &str) -> String {
    if least > 1 { format!("at least {} {noun} of ", grouped(least)) } else { format!("the {noun} of ") }
}

fn windows(over: &[SignedDuration]) -> String {
    let each: Vec<String> = over.iter().map(|over| format!("in the last {over:#}")).collect();
    each.join(" and ")
}

fn lasting(hold: SignedDuration) -> String {
    if hold.is_zero() { " at one reading".to_owned() } else { format!(" for {hold:#}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Consequence;

    #[test]
    fn every_condition_has_its_words() {
        let over = || vec![SignedDuration::from_mins(5), SignedDuration::from_mins(1)];
        let hold = SignedDuration::from_secs(90);
        let limit = SignedDuration::from_millis(1500);
        for (condition, seen, expected) in [
            (Condition::Consecutive { count: 1 }, 1.0, "a bad sample of signal api|1 in a row|none"),
            (Condition::Consecutive { count: 3 }, 4.0, "3 bad samples of signal api in a row|4 in a row|fewer than 3"),
            (
                Condition::ErrorRatioAbove { ratio: 0.05, over: over(), min_samples: 1200, last: None },
                0.3101,
                "more than 5 % of at least 1,200 events of signal api bad in the last 5m and in the last 1m|31.0 %|at most 5.0 %",
            ),
            (
                Condition::ErrorRatioAbove { ratio: 0.07, over: over(), min_samples: 1, last: Some(20) },
                0.0703,
                "more than 7 % of the events of signal api bad in the last 5m and in the last 1m, and of the newest back to 20 \
                 good ones|7.03 %|at most 7.00 %",
            ),
            (
                Condition::LatencyAbove { limit, quantile: 0.99, over: over(), min_samples: 20 },
                2.25,
                "the slowest 1 % of at least 20 readings of signal api took more than 1.5 s in the last 5m and in the last 1m\
                 |2.250 s|at most 1.5 s",
            ),
            (Condition::ValueAbove { limit: 0.5, hold }, 7.25, "signal api above 0.5 for 1m 30s|7.25|at most 0.5"),
            (
                Condition::ValueBelow { limit: 10.0, hold: SignedDuration::ZERO },
                3.0,
                "signal api below 10 at one reading|3|at least 10",
            ),
            (
                Condition::BurnRateAbove { slo: 0.999, rate: 14.4, over: over(), min_samples: 50 },
                20.04,
                "bad ones among at least 50 events of signal api use up the budget of 0.1 % more than 14.4 times as fast as it \
                 allows, in the last 5m and in the last 1m|20.0 times|at most 14.4 times",
            ),
            (
                Condition::TimesBaseline { times: 3.0, over: over(), min_samples: 50 },
                6.0,
                "3 times the share of bad ones among at least 50 events of signal api that was usual before the migration, in \
                 the last 5m and in the last 1m, and not by chance|6.0 times|at most 3 times",
            ),
        ] {
            let words = [observed(&condition, seen), allowed(&condition, seen)];
            let rule = Rule {
                name: "rule".to_owned(),
                signals: vec!["api".to_owned()],
                condition,
                then: Consequence::Rollback,
            };
            assert_eq!(format!("{}|{}", asks(&rule), words.join("|")), expected);
        }
        let pooled = Rule {
            name: "rule".to_owned(),
            signals: vec!["api".to_owned(), "web".to_owned()],
            condition: Condition::Consecutive { count: 2 },
            then: Consequence::Page,
        };
        assert_eq!(asks(&pooled), "2 bad samples of signals api, web in a row");
    }
}
