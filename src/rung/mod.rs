//! The rungs of the ladder: what each does, and how it looks at the result. One file a kind.
//!
//! A rung is told everything it needs, derives the rest from the live catalog, and gives back an outcome; whether the
//! next one is tried is decided in the core.

pub mod inspect;
pub mod script;
pub mod sql;
pub mod tables;

use std::time::Duration;

use rand::Rng as _;
use tokio::time::Instant;

use crate::postgres::pinned::{Lent, Pinned};
use crate::postgres::session::ConnectError;

/// How long the second session may be waited for: without it the work goes on, and nobody is named.
const WATCHER: Duration = Duration::from_millis(500);
/// How often a refusal that looks like a mistake is tried again: a resolver that hiccups looks like one.
const MISTAKES: u32 = 5;

/// The time that a rung has, and its growing pauses.
#[derive(Debug)]
struct Patience {
    ends: Instant,
    pause: Duration,
    mistakes: u32,
}

impl Patience {
    /// Ends a little before `within` is over, so that there is time to say how it went.
    fn new(within: Duration) -> Self {
        let reserve = (within / 10).min(Duration::from_secs(2));
        let ends = Instant::now() + within.saturating_sub(reserve);
        Self { ends, pause: Duration::from_millis(100), mistakes: 0 }
    }

    /// The time that is left.
    fn left(&self) -> Duration {
        self.ends.saturating_duration_since(Instant::now())
    }

    /// Waits, longer each time; false when the time is up. The jitter keeps two who wait for each other apart.
    async fn pause(&mut self) -> bool {
        let jittered = self.pause.mul_f64(rand::rng().random_range(0.7..1.3));
        self.pause = (self.pause * 2).min(Duration::from_secs(5));
        let left = self.left();
        // A try that starts when nothing is left would only be cut off.
        if left <= jittered {
            return false;
        }
        tokio::time::sleep(jittered).await;
        true
    }

    /// The short pauses again, after something went well.
    const fn reset(&mut self) {
        self.pause = Duration::from_millis(100);
    }

    /// Borrows a session, however often it takes while the time lasts.
    async fn connect(&mut self, pinned: &Pinned) -> Result<Lent, ConnectError> {
        loop {
            let error = match pinned.session().await {
                Ok(session) => return Ok(session),
                Err(error) => error,
            };
            if matches!(error, ConnectError::Mistake { .. }) {
                self.mistakes += 1;
                if self.mistakes >= MISTAKES {
                    return Err(error);
                }
            }
            if !self.pause().await {
                return Err(error);
            }
        }
    }
}
