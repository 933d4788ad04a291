//! What a `[[rule]]` asks of its signals' samples.

use std::ops::RangeInclusive;
use std::time::Duration;

use jiff::SignedDuration;
use rollbackd_core::plan::Condition;

use super::model::{Signal, SignalSource};
use super::problem::Problem;
use super::scalar::{ANY, BOUND, seconds, words};
use super::section::Section;
use super::source::Counts;
use super::value::Value;

/// The key that names each kind of condition.
pub(super) const KINDS: [&str; 7] = [
    "consecutive",
    "error_ratio_above",
    "latency_above",
    "value_above",
    "value_below",
    "burn_rate_above",
    "times_baseline",
];

/// Keys that go with some kinds of condition only, and with which.
const PARTS: [(&str, &[&str], &str); 6] = [
    (
        "over",
        &["error_ratio_above", "latency_above", "burn_rate_above", "times_baseline"],
        "`error_ratio_above`, `latency_above`, `burn_rate_above` or `times_baseline`",
    ),
    (
        "min_samples",
        &["error_ratio_above", "latency_above", "burn_rate_above", "times_baseline"],
        "`error_ratio_above`, `latency_above`, `burn_rate_above` or `times_baseline`",
    ),
    ("last", &["error_ratio_above"], "`error_ratio_above`"),
    ("quantile", &["latency_above"], "`latency_above`"),
    ("for", &["value_above", "value_below"], "`value_above` or `value_below`"),
    ("slo", &["burn_rate_above"], "`burn_rate_above`"),
];

/// The signals of a rule, and how long a window lasts.
pub(super) struct Ground<'a> {
    /// Those of its signals that are known; `None` when not all are.
    pub(super) signals: Option<Vec<&'a Signal>>,
    /// How long a window lasts: further back there is nothing to see.
    pub(super) window: Duration,
}

/// Reads the condition of this kind, if one was named.
pub(super) fn read(section: &mut Section<'_>, kind: Option<&str>, ground: &Ground<'_>) -> Option<Condition> {
    for (key, of, words) in PARTS {
        // What belongs to a condition that has been reported is read, so that mistakes in it show.
        if kind.is_some_and(|kind| !of.contains(&kind)) {
            section.only_with(key, words);
        }
    }
    match kind {
        Some("consecutive") => consecutive(section, ground),
        Some("error_ratio_above") => {
            let ratio = section.maybe("error_ratio_above", |value| share(value, 0.0..=1.0, "0.05"));
            let (over, min_samples) = counted(section, ground, &[60]);
            let last = section.maybe("last", last);
            Some(Condition::ErrorRatioAbove { ratio: ratio?, over, min_samples, last })
        }
        Some("latency_above") => latency(section, ground),
        Some("value_above") => {
            let (limit, hold) = value(section, "value_above", ground);
            Some(Condition::ValueAbove { limit: limit?, hold })
        }
        Some("value_below") => {
            let (limit, hold) = value(section, "value_below", ground);
            Some(Condition::ValueBelow { limit: limit?, hold })
        }
        Some("burn_rate_above") => {
            let slo = section.need("slo", "slo = 0.999", |value| share(value, f64::MIN_POSITIVE..=1.0, "0.999"));
            let rate = section.maybe("burn_rate_above", |value| positive(value, "a multiple such as 14.4"));
            if let (Some(slo), Some(rate)) = (slo, rate)
                && rate * (1.0 - slo) > 1.0 - 1e-9
            {
                let span = section.key_span("burn_rate_above");
                let problem = Problem::error(span, "this rule can never hold: not even if every event is bad");
                let most = 1.0 / (1.0 - slo);
                let help = format!("accepted: below {most:.1}, which is the rate when everything fails");
                section.doc().report(problem.label("too high for the objective").help(help));
            }
            let (over, min_samples) = counted(section, ground, &[3600, 300]);
            Some(Condition::BurnRateAbove { slo: slo?, rate: rate?, over, min_samples })
        }
        Some("times_baseline") => {
            let times = section.maybe("times_baseline", |value| positive(value, "a multiple such as 3"));
            let (over, min_samples) = counted(section, ground, &[60]);
            Some(Condition::TimesBaseline { times: times?, over, min_samples })
        }
        Some(_) | None => {
            section.maybe("over", |value| windows(value, ground));
            section.maybe("min_samples", |value| value.integer::<u64>(1..=i64::MAX));
            section.maybe("last", last);
            None
        }
    }
}

fn last(value: Value<'_>) -> Option<u64> {
    value.integer(1..=100_000)
}

fn consecutive(section: &mut Section<'_>, ground: &Ground<'_>) -> Option<Condition> {
    only_for(section, "consecutive", ground, "bad readings", |source| source.counts() != Counts::Nothing);
    section.maybe("consecutive", |value| value.integer(1..=100_000)).map(|count| Condition::Consecutive { count })
}

fn latency(section: &mut Section<'_>, ground: &Ground<'_>) -> Option<Condition> {
    only_for(section, "latency_above", ground, "a time that an answer takes", SignalSource::is_timed);
    let limit = section.maybe("latency_above", |value| value.duration(BOUND));
    let longest = ground.signals.as_ref().and_then(|signals| signals.iter().map(|signal| signal.timeout).max());
    if let (Some(limit), Some(longest)) = (limit, longest)
        && limit >= longest
    {
        let span = section.key_span("latency_above");
        let problem =
            Problem::error(span, format!("this rule can never hold: no reading takes longer than {}", words(longest)));
        let help = "accepted: less than the signal's `timeout`, after which a reading is ended";
        section.doc().report(problem.label("not below the signal's `timeout`").help(help).by_absence());
    }
    let quantile = section.or("quantile", 0.99, |value| share(value, f64::MIN_POSITIVE..=1.0, "0.99"));
    let over = windows_of(section, ground, &[60]);
    let min_samples = min_samples(section, ground, &over, |_| Counts::One);
    Some(Condition::LatencyAbove {
        limit: SignedDuration::try_from(limit?).ok()?,
        quantile,
        over: signed(&over),
        min_samples,
    })
}

fn value(section: &mut Section<'_>, key: &'static str, ground: &Ground<'_>) -> (Option<f64>, SignedDuration) {
    only_for(section, key, ground, "a number", SignalSource::has_value);
    if ground.signals.as_ref().is_some_and(|signals| signals.len() > 1) {
        let problem = Problem::error(section.key_span("signals"), "values of different signals cannot be pooled");
        let help = "accepted: one rule for each signal";
        section.doc().report(problem.label(format!("`{key}` looks at one signal")).help(help));
    }
    let limit = section.maybe(key, |value| value.number("a number"));
    let hold = section.or("for", Duration::ZERO, |value| bounded(value, ANY, ground));
    (limit, SignedDuration::try_from(hold).unwrap_or(SignedDuration::MAX))
}

/// The windows and the number of samples of a condition on good and bad events.
fn counted(section: &mut Section<'_>, ground: &Ground<'_>, default: &[u64]) -> (Vec<SignedDuration>, u64) {
    for key in ["error_ratio_above", "burn_rate_above", "times_baseline"] {
        if section.has(key) {
            only_for(section, key, ground, "good and bad events", |source| source.counts() != Counts::Nothing);
        }
    }
    let over = windows_of(section, ground, default);
    let min_samples = min_samples(section, ground, &over, SignalSource::counts);
    (signed(&over), min_samples)
}

/// Reports signals of the rule that do not give what the condition looks at.
fn only_for(
    section: &Section<'_>,
    key: &'static str,
    ground: &Ground<'_>,
    what: &str,
    gives: impl Fn(&SignalSource) -> bool,
) {
    for signal in ground.signals.iter().flatten().filter(|signal| !gives(&signal.source)) {
        let problem =
            Problem::error(section.key_span(key), format!("signal `{}` gives no {}", signal.name, article(what)));
        let help = format!("`{key}` looks at {what}; {}", signal.source.gives());
        section.doc().report(problem.label("nothing to look at").help(help).by_absence());
    }
}

/// The words without `a`.
fn article(what: &str) -> &str {
    what.strip_prefix("a ").unwrap_or(what)
}

fn windows_of(section: &mut Section<'_>, ground: &Ground<'_>, default: &[u64]) -> Vec<Duration> {
    // Where a window is shorter than what is looked at by default, it is looked at whole.
    let default = default.iter().map(|length| seconds(*length).min(ground.window)).collect();
    section.or("over", default, |value| windows(value, ground))
}

/// `"1m"` or `["5m", "1m"]`.
fn windows(value: Value<'_>, ground: &Ground<'_>) -> Option<Vec<Duration>> {
    if !value.is_list() {
        return bounded(value, BOUND, ground).map(|window| vec![window]);
    }
    let (doc, span) = (value.doc, value.span());
    let windows = value.each("a duration or a list of them", |value| bounded(value, BOUND, ground))?;
    if windows.is_empty() {
        doc.report(
            Problem::error(span, "`rule.over` names no time")
                .label("empty")
                .help("accepted: \"1m\" or [\"5m\", \"1m\"]"),
        );
        return None;
    }
    Some(windows)
}

/// A time that is no longer than a window lasts.
fn bounded(value: Value<'_>, range: RangeInclusive<Duration>, ground: &Ground<'_>) -> Option<Duration> {
    let (doc, span, path) = (value.doc, value.span(), value.path.clone());
    let duration = value.duration(range)?;
    if duration > ground.window {
        let message = format!("`{path}` is longer than a window");
        let problem = Problem::error(span, message).label(format!("a window lasts {}", words(ground.window)));
        doc.report(
            problem
                .help("accepted: at most `window.duration`; what was before the window is not what the migration did")
                .by_absence(),
        );
    }
    Some(duration)
}

fn min_samples(
    section: &mut Section<'_>,
    ground: &Ground<'_>,
    over: &[Duration],
    counts: impl Fn(&SignalSource) -> Counts,
) -> u64 {
    section.or("min_samples", 5, |value| {
        let (doc, span) = (value.doc, value.span());
        let count: u64 = value.integer(1..=i64::MAX)?;
        if let Some(most) = most_samples(ground, over, counts).filter(|most| count > *most) {
            let problem = Problem::error(
                span,
                format!("this rule can never hold: it needs {count} samples and gets at most {most}"),
            );
            let help = format!(
                "accepted: 1 to {most}; or look further back with `over`, or read the signal more often with `every`"
            );
            doc.report(problem.label("more than the signals give in that time").help(help).by_absence());
        }
        Some(count)
    })
}

/// The most samples that the signals can give in the shortest of the windows, where each reading is one event.
fn most_samples(ground: &Ground<'_>, over: &[Duration], counts: impl Fn(&SignalSource) -> Counts) -> Option<u64> {
    let shortest = over.iter().min()?;
    let signals = ground.signals.as_ref()?;
    if signals.iter().any(|signal| counts(&signal.source) != Counts::One) {
        return None;
    }
    let paces = signals.iter().map(|signal| signal.every.as_millis().max(1));
    paces.map(|every| u64::try_from(shortest.as_millis() / every + 1).ok()).sum()
}

fn signed(over: &[Duration]) -> Vec<SignedDuration> {
    over.iter().filter_map(|window| SignedDuration::try_from(*window).ok()).collect()
}

/// A share in the range, but not the whole.
fn share(value: Value<'_>, range: RangeInclusive<f64>, example: &str) -> Option<f64> {
    let (doc, span, path) = (value.doc, value.span(), value.path.clone());
    let least = if *range.start() > 0.0 { "above 0" } else { "from 0" };
    let expected = format!("a share {least} to below 1, such as {example}");
    let share = value.number(&expected)?;
    if !range.contains(&share) || share >= 1.0 {
        let problem = Problem::error(span, format!("`{path}` can never be exceeded, or always is"));
        doc.report(problem.label("out of range").help(format!("accepted: {expected}")));
        return None;
    }
    Some(share)
}

fn positive(value: Value<'_>, expected: &str) -> Option<f64> {
    let (doc, span, path) = (value.doc, value.span(), value.path.clone());
    let number = value.number(expected)?;
    if number <= 0.0 {
        let problem = Problem::error(span, format!("`{path}` is out of range"));
        doc.report(problem.label("out of range").help(format!("accepted: {expected}, above 0")));
        return None;
    }
    Some(number)
}
