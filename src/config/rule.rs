//! `[[rule]]`: conditions on signals and what follows from them.

use std::time::Duration;

use jiff::SignedDuration;
use rollbackd_core::plan::{Condition, Consequence};

use super::cross::Names;
use super::model::{Rule, Signal};
use super::problem::Problem;
use super::scalar::{BOUND, seconds};
use super::section::Section;
use super::value::Value;

/// Conditions of a later version.
const LATER: [&str; 7] =
    ["latency_above", "value_above", "value_below", "slo", "burn_rate_above", "times_baseline", "quantile"];

/// What was read of all rules.
pub(super) struct Rules {
    /// Those that can be used.
    pub(super) usable: Vec<Rule>,
    /// How many lead to a rollback, those included that cannot be read.
    pub(super) rollback: usize,
}

/// Reads every `[[rule]]`.
pub(super) fn read(sections: Vec<Section<'_>>, names: &Names, signals: &[Signal]) -> Rules {
    let mut own = Names::of("rule");
    let mut rules = Rules { usable: Vec::new(), rollback: 0 };
    for section in sections {
        let (then, rule) = rule(section, &mut own, names, signals);
        // A `then` that cannot be read may have been meant so.
        rules.rollback += usize::from(then.is_none_or(|then| then == Consequence::Rollback));
        rules.usable.extend(rule);
    }
    rules
}

fn rule(
    mut section: Section<'_>,
    own: &mut Names,
    names: &Names,
    signals: &[Signal],
) -> (Option<Consequence>, Option<Rule>) {
    let name = section.need("name", "name = \"api is down\"", |value| own.take(value));
    let pooled = match section.one_of("signal", &["signal", "signals"], &[]) {
        Some("signal") => section.maybe("signal", |value| names.known(value)).map(|name| vec![name]),
        Some("signals") => section.maybe("signals", |value| several(value, names)),
        Some(_) | None => None,
    };
    let condition = match section.one_of("condition", &["consecutive", "error_ratio_above"], &LATER) {
        Some("consecutive") => {
            section.only_with("over", "`error_ratio_above`");
            section.only_with("min_samples", "`error_ratio_above`");
            section
                .maybe("consecutive", |value| value.integer(1..=100_000))
                .map(|count| Condition::Consecutive { count })
        }
        Some("error_ratio_above") => error_ratio(&mut section, pooled.as_deref(), signals),
        Some(_) | None => {
            // They belong to a condition that has been reported; what they say is read, so that mistakes show.
            section.maybe("over", windows);
            section.maybe("min_samples", |value| value.integer::<u64>(1..=i64::MAX));
            None
        }
    };
    section.later("for", "use `consecutive`, or `confirm` in [decision]");
    let then = section.need("then", "then = \"rollback\"", |value| {
        let words = [("rollback", Consequence::Rollback), ("page", Consequence::Page), ("freeze", Consequence::Freeze)];
        value.choice(&words, &[])
    });
    section.finish();
    let rule = (|| Some(Rule { name: name?, signals: pooled?, condition: condition?, then: then? }))();
    (then, rule)
}

fn several(value: Value<'_>, names: &Names) -> Option<Vec<String>> {
    let (doc, span) = (value.doc, value.span());
    let list = value.list("a list of signal names")?;
    let written = list.len();
    let mut pooled: Vec<String> = list.into_iter().filter_map(|value| names.known(value)).collect();
    pooled.sort();
    pooled.dedup();
    if written == 0 {
        doc.report(Problem::error(span, "a rule needs a signal").label("empty").help("name at least one signal"));
    }
    (!pooled.is_empty()).then_some(pooled)
}

fn error_ratio(section: &mut Section<'_>, pooled: Option<&[String]>, signals: &[Signal]) -> Option<Condition> {
    let ratio = section.maybe("error_ratio_above", |value| {
        let (doc, span) = (value.doc, value.span());
        let expected = "a share from 0 to below 1, such as 0.05";
        let ratio = value.number(expected)?;
        if !(0.0..1.0).contains(&ratio) {
            let problem = Problem::error(span, "`rule.error_ratio_above` can never be exceeded, or always is");
            doc.report(problem.label("out of range").help(format!("accepted: {expected}")));
            return None;
        }
        Some(ratio)
    });
    let over = section.or("over", vec![seconds(60)], windows);
    let min_samples = section.or("min_samples", 5, |value| {
        let (doc, span) = (value.doc, value.span());
        let count: u64 = value.integer(1..=i64::MAX)?;
        let most = most_samples(pooled?, signals, &over)?;
        if count > most {
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
    });
    let over = over.into_iter().filter_map(|window| SignedDuration::try_from(window).ok()).collect();
    Some(Condition::ErrorRatioAbove { ratio: ratio?, over, min_samples })
}

/// `"1m"` or `["5m", "1m"]`.
fn windows(value: Value<'_>) -> Option<Vec<Duration>> {
    if !value.is_list() {
        return value.duration(BOUND).map(|window| vec![window]);
    }
    let (doc, span) = (value.doc, value.span());
    let windows = value.each("a duration or a list of them", |value| value.duration(BOUND))?;
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

/// The most samples that the signals can give in the shortest of the windows: each reading is one event.
fn most_samples(pooled: &[String], signals: &[Signal], over: &[Duration]) -> Option<u64> {
    let shortest = over.iter().min()?;
    let paces: Vec<Duration> = signals.iter().filter(|s| pooled.contains(&s.name)).map(|s| s.every).collect();
    if paces.len() < pooled.len() {
        return None;
    }
    paces.iter().map(|every| u64::try_from(shortest.as_millis() / every.as_millis().max(1) + 1).ok()).sum()
}
