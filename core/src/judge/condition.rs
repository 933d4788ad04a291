//! Whether a rule's condition holds on what is remembered.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::memory::{Mark, Memory, ratio, sum};
use crate::plan::Condition;

/// What makes a condition hold.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Holding {
    /// When it began to hold, as far as the readings themselves show.
    pub(super) began: Timestamp,
    /// The latest bad reading behind it.
    pub(super) latest_bad: Timestamp,
    /// Why that was bad.
    pub(super) last_reason: Option<Arc<str>>,
    /// What was found.
    pub(super) found: Found,
}

/// What was found.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Found {
    /// Bad samples in a row.
    Run {
        /// How many.
        length: usize,
        /// When the first of them was read.
        from: Timestamp,
    },
    /// Shares of bad events, one a window, the shortest window first.
    Shares(Vec<Share>),
}

/// The share of bad events in a window that ends now.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Share {
    /// The window.
    pub(super) over: SignedDuration,
    /// Bad events by all events.
    pub(super) ratio: f64,
    /// All events.
    pub(super) events: u64,
}

/// Looks at the signals' readings up to `now`. Bad readings further apart than `patience` are no run.
pub(super) fn evaluate(
    condition: &Condition,
    memories: &[&Memory],
    patience: SignedDuration,
    now: Timestamp,
) -> Option<Holding> {
    match condition {
        Condition::Consecutive { count } => {
            run(memories, usize::try_from(*count).unwrap_or(usize::MAX).max(1), patience)
        }
        Condition::ErrorRatioAbove { ratio, over, min_samples } => shares(memories, *ratio, over, *min_samples, now),
    }
}

/// The run of bad readings that is the end of all the signals' readings, if it is long enough.
fn run(memories: &[&Memory], count: usize, patience: SignedDuration) -> Option<Holding> {
    let mut run: Vec<&Mark> = Vec::new();
    for mark in newest_first(memories).take_while(|mark| mark.is_bad()) {
        if run.last().is_some_and(|later| later.at.duration_since(mark.at) > patience) {
            break;
        }
        run.push(mark);
    }
    let began = run.get(run.len().checked_sub(count)?)?.at;
    let (latest, first) = (run.first()?, run.last()?);
    Some(Holding {
        began,
        latest_bad: latest.at,
        last_reason: latest.reason.clone(),
        found: Found::Run { length: run.len(), from: first.at },
    })
}

/// The signals' readings pooled, newest first. Of readings at the same instant one that is not bad counts as the
/// newer: in doubt a run is broken, and the order in which they came in changes nothing.
fn newest_first<'a>(memories: &[&'a Memory]) -> impl Iterator<Item = &'a Mark> {
    let mut tails: Vec<_> = memories.iter().map(|memory| memory.marks().rev().peekable()).collect();
    std::iter::from_fn(move || {
        tails
            .iter_mut()
            .filter_map(|tail| {
                let key = tail.peek().map(|mark| (mark.at, !mark.is_bad()))?;
                Some((key, tail))
            })
            .max_by_key(|(key, _)| *key)?
            .1
            .next()
    })
}

/// The share of bad events in each window, if each of them is too high.
fn shares(
    memories: &[&Memory],
    limit: f64,
    over: &[SignedDuration],
    min_samples: u64,
    now: Timestamp,
) -> Option<Holding> {
    let mut windows = over.to_vec();
    windows.sort_unstable();
    windows.dedup();
    let shares = windows
        .iter()
        .map(|over| {
            let from = now.checked_sub(*over).unwrap_or(Timestamp::MIN);
            let (good, bad) = sum(memories.iter().flat_map(|memory| memory.since(from)));
            let events = good.saturating_add(bad);
            let ratio = ratio(good, bad).filter(|ratio| events >= min_samples && *ratio > limit)?;
            Some(Share { over: *over, ratio, events })
        })
        .collect::<Option<Vec<_>>>()?;
    let latest = newest_first(memories).find(|mark| mark.bad > 0)?;
    (!shares.is_empty()).then(|| Holding {
        began: now,
        latest_bad: latest.at,
        last_reason: latest.reason.clone(),
        found: Found::Shares(shares),
    })
}
