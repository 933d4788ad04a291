//! The only reader of the clocks.
//!
//! Wall time goes into records, ids and messages. Everything that measures a duration or waits uses monotonic
//! time, which no operator and no time server can move.

use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};

/// The wall clock, cut to milliseconds, which is what records keep.
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the wall clock")]
pub fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_millisecond(now.as_millisecond()).unwrap_or(now)
}

/// How long the machine has slept since it was started.
pub fn asleep() -> Duration {
    let Moment { passed, with_sleep, .. } = Moment::now();
    with_sleep.saturating_sub(passed)
}

/// What all clocks show at one moment. Only differences mean anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Time that passed while the machine was awake.
    pub passed: Duration,
    /// The same, with the time that it slept.
    pub with_sleep: Duration,
    /// The wall clock.
    pub wall: Timestamp,
}

impl Moment {
    /// Now.
    pub fn now() -> Self {
        let read = |clock| Duration::try_from(rustix::time::clock_gettime(clock)).unwrap_or_default();
        Self {
            passed: read(rustix::time::ClockId::Monotonic),
            with_sleep: read(rustix::time::ClockId::Boottime),
            wall: now(),
        }
    }
}

/// A running measurement on the monotonic clock.
#[derive(Debug, Clone, Copy)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts measuring.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the monotonic clock")]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// The time since the start.
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }

    /// The time since the start, as the core counts it.
    pub fn elapsed_signed(&self) -> SignedDuration {
        SignedDuration::try_from(self.0.elapsed()).unwrap_or(SignedDuration::MAX)
    }
}
