//! What is remembered of one signal.

use std::collections::VecDeque;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::Level;
use crate::sample::{Reading, Sample};

/// The most readings that are remembered of a signal, whatever its rules ask for. A window that holds more looks
/// at the newest of them.
pub(super) const MOST_READINGS: usize = 65_536;

/// The fewest that are kept, so that people see how long a run of bad samples really is.
const FEWEST_READINGS: usize = 128;

/// The longest reason that is remembered, in characters.
const LONGEST_REASON: usize = 300;

/// A reading in which something was seen.
#[derive(Debug, Clone)]
pub(super) struct Mark {
    pub(super) at: Timestamp,
    pub(super) good: u64,
    pub(super) bad: u64,
    /// How long the reading took.
    pub(super) took: SignedDuration,
    /// The number that came with it.
    pub(super) value: Option<f64>,
    /// Shared by readings in a row that give the same reason.
    pub(super) reason: Option<Arc<str>>,
}

impl Mark {
    /// Whether nothing of it was good.
    pub(super) const fn is_bad(&self) -> bool {
        self.good == 0 && self.bad > 0
    }
}

/// What the last reading was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Last {
    Good,
    Bad,
    Unreadable,
}

/// One signal's readings, as far back as its rules look.
#[derive(Debug, Clone)]
pub(super) struct Memory {
    /// How long the rules look back.
    span: SignedDuration,
    /// How many readings the rules look back.
    count: usize,
    /// When watching began.
    started: Timestamp,
    /// Readings in which something was seen, oldest first.
    marks: VecDeque<Mark>,
    /// The last reading, with the reason it gave.
    last: Option<(Timestamp, Last, Option<Arc<str>>)>,
    /// When it could last be read.
    readable_at: Option<Timestamp>,
    /// Since when no reading was bad, and the latest of them.
    good: Option<(Timestamp, Timestamp)>,
    /// Bad readings in a row up to now.
    bad_in_a_row: u32,
}

impl Memory {
    pub(super) fn new(span: SignedDuration, count: usize, started: Timestamp) -> Self {
        Self {
            span,
            count: count.clamp(FEWEST_READINGS, MOST_READINGS),
            started,
            marks: VecDeque::new(),
            last: None,
            readable_at: None,
            good: None,
            bad_in_a_row: 0,
        }
    }

    /// Takes a reading in.
    ///
    /// A signal's readings come in order, so one that is older than the last means that the wall clock was set
    /// back. What is dated later than it is forgotten: it would count again when the clock gets there.
    pub(super) fn take(&mut self, sample: &Sample) {
        if self.last.as_ref().is_some_and(|(last, ..)| sample.at < *last) {
            self.forget_after(sample.at);
        }
        match &sample.reading {
            Reading::Unreadable { reason } => {
                let reason = self.share(reason);
                self.last = Some((sample.at, Last::Unreadable, Some(reason)));
                self.good = None;
            }
            Reading::Events { good, bad, value, reason } => {
                let reason = reason.as_deref().filter(|_| *bad > 0).map(|reason| self.share(reason));
                let (at, took) = (sample.at, sample.took);
                self.see(Mark { at, good: *good, bad: *bad, took, value: *value, reason });
                self.prune(sample.at);
            }
        }
    }

    /// Forgets everything that is dated later than `now`, as if it had never been read.
    pub(super) fn forget_after(&mut self, now: Timestamp) {
        let mut fresh = Self { started: self.started.min(now), ..Self::new(self.span, self.count, now) };
        for mark in self.marks.drain(..).filter(|mark| mark.at <= now) {
            fresh.see(mark);
        }
        // The marks alone do not show what broke the good times, nor all that they rest on.
        fresh.good = match (self.good, fresh.good) {
            (Some((since, _)), Some((_, latest))) if since <= latest => Some((since, latest)),
            (Some(_) | None, _) => None,
        };
        *self = fresh;
    }

    /// Dates everything that is remembered later, or earlier.
    pub(super) fn shift(&mut self, by: SignedDuration) {
        let moved = |at: Timestamp| at.saturating_add(by).unwrap_or(at);
        self.started = moved(self.started);
        self.marks.iter_mut().for_each(|mark| mark.at = moved(mark.at));
        if let Some((at, ..)) = &mut self.last {
            *at = moved(*at);
        }
        self.readable_at = self.readable_at.map(moved);
        self.good = self.good.map(|(since, latest)| (moved(since), moved(latest)));
    }

    /// A reading in which something was seen. One without events (an idle log) shows that the signal can be
    /// read and that nothing is wrong, but it is no sample that a rule could count.
    fn see(&mut self, mark: Mark) {
        let at = mark.at;
        self.readable_at = Some(at);
        // Where many events are counted a few bad ones are everyday life; how many are too many is for rules to say.
        self.last = Some((at, if mark.is_bad() { Last::Bad } else { Last::Good }, mark.reason.clone()));
        self.good = if mark.is_bad() { None } else { Some((self.good.map_or(at, |(since, _)| since), at)) };
        if mark.is_bad() {
            self.bad_in_a_row = self.bad_in_a_row.saturating_add(1);
        } else if mark.good > 0 {
            self.bad_in_a_row = 0;
        }
        if mark.good > 0 || mark.bad > 0 {
            self.marks.push_back(mark);
        }
    }

    /// Forgets that readings were good up to now: a rule says otherwise.
    pub(super) const fn spoil(&mut self) {
        self.good = None;
    }

    /// Drops what no rule looks at any more.
    fn prune(&mut self, now: Timestamp) {
        while let Some(oldest) = self.marks.front() {
            let idle = self.marks.len() > self.count && now.duration_since(oldest.at) >= self.span;
            if !idle && self.marks.len() <= MOST_READINGS {
                break;
            }
            self.marks.pop_front();
        }
    }

    /// The reason as one short line, shared with the last reading when that gave the same.
    fn share(&self, reason: &str) -> Arc<str> {
        let mut line: String =
            reason.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).take(LONGEST_REASON).collect();
        line.truncate(line.trim_end().len());
        match &self.last {
            Some((_, _, Some(known))) if **known == *line => Arc::clone(known),
            _ => Arc::from(line),
        }
    }

    /// Readings in which something was seen, oldest first.
    pub(super) fn marks(&self) -> impl DoubleEndedIterator<Item = &Mark> {
        self.marks.iter()
    }

    /// The readings as they came in, but for those that could not be read.
    pub(super) fn samples(&self) -> impl Iterator<Item = Sample> {
        self.marks.iter().map(|mark| Sample {
            at: mark.at,
            took: mark.took,
            reading: Reading::Events {
                good: mark.good,
                bad: mark.bad,
                value: mark.value,
                reason: mark.reason.as_deref().map(str::to_owned),
            },
        })
    }

    /// Readings in which something was seen, later than `from`.
    pub(super) fn since(&self, from: Timestamp) -> impl DoubleEndedIterator<Item = &Mark> {
        self.marks.range(self.marks.partition_point(|mark| mark.at <= from)..)
    }

    /// The last reading: when, what, why.
    pub(super) fn last(&self) -> Option<(Timestamp, Last, Option<&str>)> {
        self.last.as_ref().map(|(at, last, reason)| (*at, *last, reason.as_deref()))
    }

    /// When it could last be read; before its first readable reading, when watching began.
    pub(super) fn seen_at(&self) -> Timestamp {
        self.readable_at.unwrap_or(self.started)
    }

    /// Whether it could be read at all.
    pub(super) const fn was_seen(&self) -> bool {
        self.readable_at.is_some()
    }

    /// Since when every reading was good, and the latest of them.
    pub(super) const fn good(&self) -> Option<(Timestamp, Timestamp)> {
        self.good
    }

    /// Bad readings in a row up to now.
    pub(super) const fn bad_in_a_row(&self) -> u32 {
        self.bad_in_a_row
    }

    /// Share of bad events among those remembered.
    pub(super) fn error_ratio(&self) -> Option<f64> {
        let all = sum(self.marks.iter());
        (all.events() > 0).then(|| all.ratio())
    }
}

/// Good and bad events of some readings.
pub(super) fn sum<'a>(marks: impl Iterator<Item = &'a Mark>) -> Level {
    marks.fold(Level::default(), |all, mark| all.and(Level { good: mark.good, bad: mark.bad }))
}
