//! What a rule rests on, in numbers and in one sentence.

use jiff::{SignedDuration, Timestamp};

use super::condition::{Found, Holding, Latency, Reach, Share};
use super::{Evidence, Level};
use crate::plan::{Condition, Plan, Rule};

/// The evidence of a rule that has held since `since`.
pub(super) fn evidence(plan: &Plan, rule: &Rule, holding: &Holding, since: Timestamp, at: Timestamp) -> Evidence {
    let Observed { seen: observed, window, samples } = observed(rule, &holding.found);
    Evidence {
        rule: rule.name.clone(),
        signal: rule.signals.join(", "),
        then: rule.then,
        observed,
        threshold: rule.condition.threshold(),
        window,
        samples,
        last_reason: holding.last_reason.as_deref().map(str::to_owned),
        since,
        at,
        implicates: implicated(plan, rule),
        sentence: sentence(rule, holding),
    }
}

/// The numbers behind a finding; of several windows those of the shortest.
struct Observed {
    seen: f64,
    window: Option<SignedDuration>,
    samples: u64,
}

#[expect(clippy::cast_precision_loss, reason = "a run is far shorter than 2^52")]
fn observed(rule: &Rule, found: &Found) -> Observed {
    let long = |length: usize| u64::try_from(length).unwrap_or(u64::MAX);
    match found {
        Found::Run { length, .. } => Observed { seen: *length as f64, window: None, samples: long(*length) },
        Found::Value { value, length, .. } => Observed { seen: *value, window: None, samples: long(*length) },
        Found::Latencies(latencies) => latencies.first().map_or(Observed::NOTHING, |latency| Observed {
            seen: latency.took.as_secs_f64(),
            window: Some(latency.over),
            samples: latency.readings,
        }),
        Found::Shares(shares) => shares.first().map_or(Observed::NOTHING, |share| {
            let budget = if let Condition::BurnRateAbove { slo, .. } = rule.condition { 1.0 - slo } else { 1.0 };
            share.observed(share.level.ratio() / budget)
        }),
        Found::Against { shares, before } => {
            shares.first().map_or(Observed::NOTHING, |share| share.observed(multiple(share.level, *before)))
        }
    }
}

impl Observed {
    const NOTHING: Self = Self { seen: 0.0, window: None, samples: 0 };
}

impl Share {
    const fn observed(&self, seen: f64) -> Observed {
        Observed { seen, window: Some(self.reach.time()), samples: self.level.events() }
    }
}

/// How many times the share of bad events before it is; of a warm-up without any, at least as if it had had one.
#[expect(clippy::cast_precision_loss, reason = "a share needs no more than the 52 bits of a float")]
fn multiple(now: Level, before: Level) -> f64 {
    now.ratio() * before.events() as f64 / before.bad.max(1) as f64
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
fn sentence(rule: &Rule, holding: &Holding) -> String {
    let noun = if rule.signals.len() == 1 { "signal" } else { "signals" };
    let signal = format!("{noun} {}", rule.signals.join(", "));
    let threshold = rule.condition.threshold();
    let what = match &holding.found {
        Found::Run { length: 1, from } => {
            format!("a bad sample of {signal} (allowed: none), at {}", clock(*from))
        }
        Found::Run { length, from } => format!(
            "{length} bad samples of {signal} in a row (allowed: fewer than {threshold}), since {}",
            clock(*from)
        ),
        Found::Shares(shares) => of_shares(rule, shares, &signal),
        Found::Against { shares, before } => {
            let spelled = spelled(shares, &signal, |share| percent(share.level.ratio(), 1));
            let times = shares.first().map_or(0.0, |share| multiple(share.level, *before));
            let known = if before.bad == 0 { "at least " } else { "" };
            format!(
                "{spelled} were bad, {known}{times:.1} times the {} of {} before the migration (allowed: {threshold} times)",
                percent(before.ratio(), 2),
                counted(before.events())
            )
        }
        Found::Latencies(latencies) => of_latencies(rule, latencies, &signal),
        Found::Value { value, length, from } => {
            let allowed = if let Condition::ValueBelow { .. } = rule.condition { "at least" } else { "at most" };
            let readings = if *length == 1 { String::new() } else { format!(" at {length} readings in a row") };
            format!("{signal} was {value}{readings} (allowed: {allowed} {threshold}), since {}", clock(*from))
        }
    };
    let last = holding.last_reason.as_deref().map(|reason| format!("; last: {reason}")).unwrap_or_default();
    format!("rule \"{}\": {what}{last}", rule.name)
}

/// `31.0 % of 412 events of signal requests in the last 1m were bad (allowed: 5.0 %)`; with an objective also how fast its
/// budget goes.
fn of_shares(rule: &Rule, shares: &[Share], signal: &str) -> String {
    let threshold = rule.condition.threshold();
    if let Condition::BurnRateAbove { slo, rate, .. } = rule.condition {
        let spelled = spelled(shares, signal, |share| percent(share.level.ratio(), 2));
        let times = shares.first().map_or(0.0, |share| share.level.ratio() / (1.0 - slo));
        let budget = percent(1.0 - slo, 2);
        return format!(
            "{spelled} were bad: {times:.1} times as fast as the budget of {budget} allows (allowed: {rate})"
        );
    }
    let allowed = shares.first().map_or_else(String::new, |share| percents(share.level.ratio(), threshold).1);
    let spelled = spelled(shares, signal, |share| percents(share.level.ratio(), threshold).0);
    format!("{spelled} were bad (allowed: {allowed})")
}

/// `99 % of 412 readings of signal api in the last 1m took up to 2.31 s (allowed: 1 s)`.
fn of_latencies(rule: &Rule, latencies: &[Latency], signal: &str) -> String {
    let quantile = if let Condition::LatencyAbove { quantile, .. } = rule.condition { quantile } else { 1.0 };
    let parts: Vec<String> = latencies
        .iter()
        .enumerate()
        .map(|(place, latency)| {
            let of = if place == 0 { format!(" of {signal}") } else { String::new() };
            let readings = if latency.readings == 1 { "reading" } else { "readings" };
            let (over, took) = (span(latency.over), latency.took.as_secs_f64());
            format!(
                "of {} {readings}{of} in the last {over} the slowest {} took {took:.3} s or more",
                latency.readings,
                percent(1.0 - quantile, 1)
            )
        })
        .collect();
    format!("{} (allowed: {} s)", parts.join(" and "), rule.condition.threshold())
}

/// The shares of all windows; the signals are named once.
fn spelled(shares: &[Share], signal: &str, seen: impl Fn(&Share) -> String) -> String {
    let parts =
        shares.iter().enumerate().map(|(place, share)| spell(share, &seen(share), (place == 0).then_some(signal)));
    parts.collect::<Vec<_>>().join(" and ")
}

/// `31.0 % of 412 events of signal requests in the last 1m`.
fn spell(share: &Share, seen: &str, signal: Option<&str>) -> String {
    let of = signal.map(|signal| format!(" of {signal}")).unwrap_or_default();
    let events = share.level.events();
    match share.reach {
        Reach::Over(time) => format!("{seen} of {}{of} in the last {}", counted(events), span(time)),
        Reach::Newest(time) => format!("{seen} of the last {}{of} ({})", counted(events), about(time)),
    }
}

fn counted(events: u64) -> String {
    if events == 1 { "1 event".to_owned() } else { format!("{events} events") }
}

/// A share with so many decimals.
fn percent(share: f64, decimals: usize) -> String {
    format!("{:.decimals$} %", share * 100.0)
}

/// Both shares in percent, with as many decimals as it takes to tell them apart.
pub(super) fn percents(seen: f64, limit: f64) -> (String, String) {
    let spelled = |decimals: usize| (percent(seen, decimals), percent(limit, decimals));
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

/// A duration that was found, in whole seconds.
fn about(duration: SignedDuration) -> String {
    span(SignedDuration::from_secs(duration.as_secs() + i64::from(duration.subsec_nanos() > 0)))
}
