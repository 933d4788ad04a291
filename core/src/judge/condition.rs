//! Whether a rule's condition holds on what is remembered.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::Level;
use super::memory::{Mark, Memory, sum};
use super::significance::is_worse;
use crate::plan::Condition;

/// What makes a condition hold.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Holding {
    /// When it began to hold, as far as the readings themselves show.
    pub(super) began: Timestamp,
    /// The latest reading behind it that was bad, or too slow, or out of bounds.
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
    /// The same, beside the share of the warm-up.
    Against {
        /// The shares.
        shares: Vec<Share>,
        /// The warm-up.
        before: Level,
    },
    /// Quantiles of how long readings took, one a window, the shortest window first.
    Latencies(Vec<Latency>),
    /// A value out of bounds.
    Value {
        /// The last one.
        value: f64,
        /// How many readings in a row were out of bounds.
        length: usize,
        /// When the first of them was read.
        from: Timestamp,
    },
}

/// The share of bad events in a window that ends now.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Share {
    /// How far it looks back.
    pub(super) reach: Reach,
    /// Good and bad events.
    pub(super) level: Level,
}

/// How far a window looks back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// As far as it is configured.
    Over(SignedDuration),
    /// So far, to hold so many good events as are configured.
    Newest(SignedDuration),
}

impl Reach {
    /// In time.
    pub(super) const fn time(self) -> SignedDuration {
        match self {
            Self::Over(time) | Self::Newest(time) => time,
        }
    }
}

/// A quantile of how long readings took in a window that ends now.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Latency {
    /// The window.
    pub(super) over: SignedDuration,
    /// The quantile.
    pub(super) took: SignedDuration,
    /// How many readings.
    pub(super) readings: u64,
}

/// What a condition looks at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sight<'a> {
    /// The signals' readings.
    pub(super) memories: &'a [&'a Memory],
    /// The signals' events in the warm-up, all together.
    pub(super) before: Level,
    /// Bad readings further apart are no run.
    pub(super) patience: SignedDuration,
    /// Windows end here.
    pub(super) now: Timestamp,
}

/// Looks at the signals' readings up to now.
pub(super) fn evaluate(condition: &Condition, sight: Sight<'_>) -> Option<Holding> {
    match condition {
        Condition::Consecutive { count } => sight.run(usize::try_from(*count).unwrap_or(usize::MAX).max(1)),
        Condition::ErrorRatioAbove { ratio, over, min_samples, last } => {
            let bad = |level: Level| level.ratio() > *ratio;
            let mut shares = sight.shares(over, *min_samples, bad)?;
            if let Some(last) = last {
                let newest = sight.newest(*last, over.iter().max().copied()?);
                shares.push(bad(newest.level).then_some(newest)?);
            }
            sight.of_events(Found::Shares(shares))
        }
        Condition::BurnRateAbove { slo, rate, over, min_samples } => {
            let shares = sight.shares(over, *min_samples, |level| level.ratio() > rate * (1.0 - slo))?;
            sight.of_events(Found::Shares(shares))
        }
        Condition::TimesBaseline { times, over, min_samples } => {
            let before = sight.before;
            let shares = sight.shares(over, *min_samples, |level| is_worse(level, before, *times))?;
            sight.of_events(Found::Against { shares, before })
        }
        Condition::LatencyAbove { limit, quantile, over, min_samples } => {
            sight.latencies(*limit, *quantile, over, *min_samples)
        }
        Condition::ValueAbove { limit, hold } => sight.value(*hold, |value| value > *limit),
        Condition::ValueBelow { limit, hold } => sight.value(*hold, |value| value < *limit),
    }
}

impl<'a> Sight<'a> {
    /// The run of bad readings that is the end of all the signals' readings, if it is long enough.
    fn run(self, count: usize) -> Option<Holding> {
        let run = self.last_in_a_row(newest_first(self.memories).take_while(|mark| mark.is_bad()));
        let began = run.get(run.len().checked_sub(count)?)?.at;
        let (latest, first) = (run.first()?, run.last()?);
        Some(Holding {
            began,
            latest_bad: latest.at,
            last_reason: latest.reason.clone(),
            found: Found::Run { length: run.len(), from: first.at },
        })
    }

    /// The readings, newest first, up to a gap that is too long.
    fn last_in_a_row(self, marks: impl Iterator<Item = &'a Mark>) -> Vec<&'a Mark> {
        let mut run: Vec<&Mark> = Vec::new();
        for mark in marks {
            if run.last().is_some_and(|later| later.at.duration_since(mark.at) > self.patience) {
                break;
            }
            run.push(mark);
        }
        run
    }

    /// The share of bad events in each window, if there are enough of them and each is `bad`.
    fn shares(self, over: &[SignedDuration], min_samples: u64, bad: impl Fn(Level) -> bool) -> Option<Vec<Share>> {
        let share = |over: &SignedDuration| {
            let level = sum(self.marks(*over));
            (level.events() >= min_samples.max(1) && bad(level)).then_some(Share { reach: Reach::Over(*over), level })
        };
        let shares = sorted(over).iter().map(share).collect::<Option<Vec<_>>>()?;
        (!shares.is_empty()).then_some(shares)
    }

    /// The newest events, back to so many good ones: is it still so? Where little happens no time is short enough to
    /// tell that and long enough to hold anything.
    ///
    /// Only good events count, and of the reading that ends it only as many as are needed: so one event more that is
    /// bad, or bad instead of good, never makes the share smaller.
    fn newest(self, good: u64, longest: SignedDuration) -> Share {
        let from = self.from(longest);
        let (mut level, mut reach, mut last) = (Level::default(), SignedDuration::ZERO, None);
        for mark in newest_first(self.memories).take_while(|mark| mark.at > from) {
            // Of readings at one instant none is older than the other.
            if level.good >= good && last != Some(mark.at) {
                break;
            }
            level = level.and(Level { good: mark.good, bad: mark.bad });
            reach = self.now.duration_since(mark.at);
            last = Some(mark.at);
        }
        Share { reach: Reach::Newest(reach), level: Level { good: level.good.min(good), ..level } }
    }

    /// The readings of a window.
    fn marks(self, over: SignedDuration) -> impl Iterator<Item = &'a Mark> {
        self.memories.iter().flat_map(move |memory| memory.since(self.from(over)))
    }

    fn of_events(self, found: Found) -> Option<Holding> {
        let latest = newest_first(self.memories).find(|mark| mark.bad > 0)?;
        Some(Holding { began: self.now, latest_bad: latest.at, last_reason: latest.reason.clone(), found })
    }

    /// The quantile of each window, if each of them is too long. Bad readings count: a time-out is a long time.
    fn latencies(
        self,
        limit: SignedDuration,
        quantile: f64,
        over: &[SignedDuration],
        min_samples: u64,
    ) -> Option<Holding> {
        let latency = |over: &SignedDuration| {
            let mut took: Vec<SignedDuration> = self.marks(*over).map(|mark| mark.took).collect();
            let readings = u64::try_from(took.len()).unwrap_or(u64::MAX);
            let place = rank(took.len(), quantile)?;
            let (_, at, _) = took.select_nth_unstable(place);
            let took = *at;
            (readings >= min_samples && took > limit).then_some(Latency { over: *over, took, readings })
        };
        let latencies = sorted(over).iter().map(latency).collect::<Option<Vec<_>>>()?;
        let slow = newest_first(self.memories).find(|mark| mark.took > limit)?;
        Some(Holding {
            began: self.now,
            latest_bad: slow.at,
            last_reason: slow.reason.clone(),
            found: Found::Latencies(latencies),
        })
    }

    /// The readings up to now whose value is `out` of bounds, if they span long enough. A reading without a value, such as
    /// a failed query, says nothing about the value.
    fn value(self, hold: SignedDuration, out: impl Fn(f64) -> bool) -> Option<Holding> {
        let valued = newest_first(self.memories).filter(|mark| mark.value.is_some());
        let run = self.last_in_a_row(valued.take_while(|mark| mark.value.is_some_and(&out)));
        let (latest, first) = (run.first()?, run.last()?);
        let value = latest.value?;
        // The first reading at which it had been so for long enough.
        let began = run.iter().rev().find(|mark| mark.at.duration_since(first.at) >= hold)?.at;
        let found = Found::Value { value, length: run.len(), from: first.at };
        Some(Holding { began, latest_bad: latest.at, last_reason: None, found })
    }

    fn from(self, over: SignedDuration) -> Timestamp {
        self.now.checked_sub(over).unwrap_or(Timestamp::MIN)
    }
}

/// The place of a quantile among so many sorted things, by the nearest rank.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rank is between 0 and a count of readings, which is small"
)]
fn rank(count: usize, quantile: f64) -> Option<usize> {
    let rank = (count as f64 * quantile).ceil().max(1.0) as usize;
    (count > 0).then(|| rank.min(count) - 1)
}

fn sorted(over: &[SignedDuration]) -> Vec<SignedDuration> {
    let mut windows = over.to_vec();
    windows.sort_unstable();
    windows.dedup();
    windows
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
