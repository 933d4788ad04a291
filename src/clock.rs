//! The only reader of the clocks.
//!
//! Wall time goes into records, ids and messages. Everything that measures a duration or waits uses monotonic
//! time, which no operator and no time server can move.

use std::time::Instant;

use jiff::{SignedDuration, Timestamp};

/// The wall clock, cut to milliseconds, which is what records keep.
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the wall clock")]
pub fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_millisecond(now.as_millisecond()).unwrap_or(now)
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
    pub fn elapsed(&self) -> std::time::Duration {
        self.0.elapsed()
    }

    /// The time since the start, as the core counts it.
    pub fn elapsed_signed(&self) -> SignedDuration {
        SignedDuration::try_from(self.0.elapsed()).unwrap_or(SignedDuration::MAX)
    }
}
