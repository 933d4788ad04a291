//! Results → tables for people.

use std::fmt::Write as _;

use super::rivals::{self, Decider};
use super::runs::Result;
use super::world::{Event, FAULTS, HEALTHY};

/// The tables, in Markdown.
pub(super) fn of(results: &[Result], runs: u64, seed: u64) -> String {
    let mut text = format!("Seed {seed}, {runs} windows of each model with each of five kinds of traffic.\n\n");
    text.push_str("False rollbacks in 1,000 healthy windows:\n\n");
    head(&mut text, "what happens");
    for event in HEALTHY {
        row(&mut text, &event.words(), |decider| per_thousand(results, decider, &[event]));
    }
    row(&mut text, "**all**", |decider| per_thousand(results, decider, &HEALTHY));
    text.push_str("\nSeconds from the fault to the decision, half of them and 99 of 100 (missed faults):\n\n");
    head(&mut text, "fault");
    for event in FAULTS {
        row(&mut text, &event.words(), |decider| delays(results, decider, &[event]));
    }
    let partial: Vec<Event> = FAULTS.into_iter().filter(|event| event.is_partial()).collect();
    row(&mut text, "**all that are partial**", |decider| delays(results, decider, &partial));
    text
}

fn head(text: &mut String, first: &str) {
    let names = rivals::ALL.map(Decider::words).join(" | ");
    writeln!(text, "| {first} | {names} |\n|---|---:|---:|---:|").expect("a string");
}

fn row(text: &mut String, first: &str, cell: impl Fn(Decider) -> String) {
    let cells = rivals::ALL.map(cell).join(" | ");
    writeln!(text, "| {first} | {cells} |").expect("a string");
}

fn of_these<'a>(results: &'a [Result], decider: Decider, events: &'a [Event]) -> impl Iterator<Item = &'a Result> {
    results.iter().filter(move |result| result.decider == decider && events.contains(&result.event))
}

fn per_thousand(results: &[Result], decider: Decider, events: &[Event]) -> String {
    let (mut wrong, mut models) = (0, 0);
    let mut runs = 0;
    for result in of_these(results, decider, events) {
        wrong += result.false_rollbacks;
        models += 1;
    }
    // Every model has as many runs as faults have outcomes.
    if let Some(fault) = results.iter().find(|result| !HEALTHY.contains(&result.event)) {
        runs = fault.false_rollbacks + fault.missed + fault.delays.len() as u64;
    }
    format!("{:.1}", wrong as f64 * 1_000.0 / (models * runs).max(1) as f64)
}

fn delays(results: &[Result], decider: Decider, events: &[Event]) -> String {
    let mut all: Vec<f64> = of_these(results, decider, events).flat_map(|result| &result.delays).copied().collect();
    let missed: u64 = of_these(results, decider, events).map(|result| result.missed).sum();
    all.sort_by(f64::total_cmp);
    let quantile = |share: f64| all.get(((all.len() as f64 * share).ceil() as usize).saturating_sub(1)).copied();
    match (quantile(0.5), quantile(0.99)) {
        (Some(half), Some(most)) => format!("{half:.0} / {most:.0} ({missed})"),
        _ => format!("never ({missed})"),
    }
}
