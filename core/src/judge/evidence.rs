//! What a rule rests on, in numbers and in one sentence.

use jiff::{SignedDuration, Timestamp};

use super::Evidence;
use super::condition::{Found, Holding, Share};
use crate::plan::{Condition, Plan, Rule};

/// The evidence of a rule that has held since `since`.
#[expect(clippy::cast_precision_loss, reason = "a run is far shorter than 2^52")]
pub(super) fn evidence(plan: &Plan, rule: &Rule, holding: &Holding, since: Timestamp, at: Timestamp) -> Evidence {
    let (observed, window, samples) = match &holding.found {
        Found::Run { length, .. } => (*length as f64, None, u64::try_from(*length).unwrap_or(u64::MAX)),
        Found::Shares(shares) => {
            shares.first().map_or((0.0, None, 0), |share| (share.ratio, Some(share.over), share.events))
        }
    };
    let threshold = match &rule.condition {
        Condition::Consecutive { count } => f64::from(*count),
        Condition::ErrorRatioAbove { ratio, .. } => *ratio,
    };
    Evidence {
        rule: rule.name.clone(),
        signal: rule.signals.join(", "),
        then: rule.then,
        observed,
        threshold,
        window,
        samples,
        last_reason: holding.last_reason.as_deref().map(str::to_owned),
        since,
        at,
        implicates: implicated(plan, rule),
        sentence: sentence(rule, holding, threshold),
    }
}

/// The tables that the rule's signals blame, each once.
fn implicated(plan: &Plan, rule: &Rule) -> Vec<String> {
    let mut tables: Vec<String> = Vec::new();
    for table in rule.signals.iter().filter_map(|name| plan.signal(name)).flat_map(|signal| &signal.implicates) {
        if !tables.contains(table) {
            tables.push(table.clone());
        }
    }
    tables
}

/// `rule "api is down": 3 bad samples of signal api in a row (allowed: fewer than 3), since 02:14:02Z; last: status 503`.
/// The time is that of the first bad sample: when people began to feel it, not when the rule began to hold.
fn sentence(rule: &Rule, holding: &Holding, threshold: f64) -> String {
    let noun = if rule.signals.len() == 1 { "signal" } else { "signals" };
    let signal = format!("{noun} {}", rule.signals.join(", "));
    let what = match &holding.found {
        Found::Run { length: 1, from } => {
            format!("a bad sample of {signal} (allowed: none), at {}", clock(*from))
        }
        Found::Run { length, from } => format!(
            "{length} bad samples of {signal} in a row (allowed: fewer than {threshold}), since {}",
            clock(*from)
        ),
        Found::Shares(shares) => {
            let mut allowed = String::new();
            let parts: Vec<String> = shares
                .iter()
                .enumerate()
                .map(|(place, share)| {
                    let (seen, limit) = percents(share.ratio, threshold);
                    if place == 0 {
                        allowed = limit;
                    }
                    spell(share, &seen, (place == 0).then_some(signal.as_str()))
                })
                .collect();
            format!("{} were bad (allowed: {allowed})", parts.join(" and "))
        }
    };
    let last = holding.last_reason.as_deref().map(|reason| format!("; last: {reason}")).unwrap_or_default();
    format!("rule \"{}\": {what}{last}", rule.name)
}

/// `31.0 % of 412 events of signal requests in the last 1m`.
fn spell(share: &Share, seen: &str, signal: Option<&str>) -> String {
    let of = signal.map(|signal| format!(" of {signal}")).unwrap_or_default();
    let events = if share.events == 1 { "1 event".to_owned() } else { format!("{} events", share.events) };
    format!("{seen} of {events}{of} in the last {}", span(share.over))
}

/// Both shares in percent, with as many decimals as it takes to tell them apart.
fn percents(seen: f64, limit: f64) -> (String, String) {
    let spelled =
        |decimals: usize| (format!("{:.decimals$} %", seen * 100.0), format!("{:.decimals$} %", limit * 100.0));
    (1..=4).map(spelled).find(|(seen, limit)| seen != limit).unwrap_or_else(|| spelled(1))
}

/// A time of day: `02:14:02Z`.
pub(super) fn clock(at: Timestamp) -> String {
    at.strftime("%H:%M:%SZ").to_string()
}

/// A duration as it is configured: `1m 30s`.
fn span(duration: SignedDuration) -> String {
    format!("{duration:#}")
}
