//! Conditions of rules: what is accepted, and what could never hold.

use rollbackd_core::plan::Condition;

use super::contract::is_error;
use super::*;

/// The rule of the minimal configuration with another condition.
fn of(condition: &str) -> String {
    edited("consecutive = 3", condition)
}

/// The same, of a signal that reads a number.
fn of_number(condition: &str) -> String {
    of(condition).replace("http.url = \"http://127.0.0.1/health\"", "postgres.query = \"select 1\"")
}

#[track_caller]
fn condition(text: &str) -> Condition {
    let loaded = read_plain(text).unwrap_or_else(|problems| panic!("{problems}"));
    assert!(loaded.warnings.is_empty(), "{}", loaded.warnings);
    loaded.config.rules[0].condition.clone()
}

const fn secs(seconds: i64) -> jiff::SignedDuration {
    jiff::SignedDuration::from_secs(seconds)
}

#[test]
fn every_condition_has_defaults_that_make_sense() {
    assert_eq!(
        condition(&of("latency_above = \"1s\"")),
        Condition::LatencyAbove { limit: secs(1), quantile: 0.99, over: vec![secs(60)], min_samples: 5 }
    );
    assert_eq!(condition(&of_number("value_above = 90")), Condition::ValueAbove { limit: 90.0, hold: secs(0) });
    assert_eq!(
        condition(&of_number("value_below = -0.5\nfor = \"30s\"")),
        Condition::ValueBelow { limit: -0.5, hold: secs(30) }
    );
    assert_eq!(
        condition(&of("slo = 0.999\nburn_rate_above = 14.4")),
        Condition::BurnRateAbove { slo: 0.999, rate: 14.4, over: vec![secs(3600), secs(300)], min_samples: 5 }
    );
    assert_eq!(
        condition(&of("times_baseline = 3\nover = [\"5m\", \"1m\"]\nmin_samples = 10")),
        Condition::TimesBaseline { times: 3.0, over: vec![secs(300), secs(60)], min_samples: 10 }
    );
}

#[test]
fn what_belongs_to_another_condition_has_no_effect() {
    for (text, key) in [
        ("consecutive = 3\nfor = \"1m\"", "for"),
        ("consecutive = 3\nslo = 0.9", "slo"),
        ("error_ratio_above = 0.1\nquantile = 0.5", "quantile"),
        ("latency_above = \"1s\"\nfor = \"1m\"", "for"),
    ] {
        is_error(&of(text), &format!("`{key}` has no effect here"), key);
    }
    is_error(&of_number("value_above = 1\nover = \"1m\""), "`over` has no effect here", "over");
}

#[test]
fn a_rule_that_could_never_hold_is_found() {
    let whole = "can never be exceeded, or always is";
    is_error(
        &of("latency_above = \"3s\""),
        "this rule can never hold: no reading takes longer than 3s",
        "latency_above",
    );
    is_error(&of("latency_above = \"1s\"\nquantile = 1"), &format!("`rule.quantile` {whole}"), "1");
    is_error(&of("burn_rate_above = 2"), "`slo` is missing in [[rule]]", "[[rule]]");
    is_error(&of("slo = 1.0\nburn_rate_above = 2"), &format!("`rule.slo` {whole}"), "1.0");
    is_error(
        &of("slo = 0.9\nburn_rate_above = 10"),
        "this rule can never hold: not even if every event is bad",
        "burn_rate_above",
    );
    is_error(&of("times_baseline = 0"), "`rule.times_baseline` is out of range", "0");
    is_error(&of("error_ratio_above = 0.1\nover = \"2h\""), "`rule.over` is longer than a window", "\"2h\"");
    is_error(&of("times_baseline = 2\nover = [\"1m\", \"61m\"]"), "`rule.over` is longer than a window", "\"61m\"");
    is_error(&of_number("value_above = 2\nfor = \"61m\""), "`rule.for` is longer than a window", "\"61m\"");
}

#[test]
fn a_signal_that_does_not_give_what_the_rule_looks_at_is_found() {
    is_error(&of("value_above = 2"), "signal `api` gives no number", "value_above");
    let two = of_number("value_above = 2").replace("signal = \"api\"", "signals = [\"api\", \"other\"]");
    let other = "[[signal]]\nname = \"other\"\npostgres.query = \"select 1\"\n";
    is_error(&format!("{two}{other}"), "values of different signals cannot be pooled", "signals");
}
