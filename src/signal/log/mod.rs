//! Following a log, and counting its lines.
//!
//! A turn reads what was written since the last one. Lines that match `line` count: bad when they match `error`, good
//! when not. What happens to the file meanwhile is followed ([`follow`]):
//!
//! | what | how |
//! |---|---|
//! | moved away, another file in its place, now or later | the old one is read to its end through the open descriptor, and beside the new one until it was quiet for ten seconds |
//! | moved away several times between two turns | the files in between are found beside the log, by their names, and read |
//! | copied and cut (`copytruncate`) | the rest is read from the copy, found beside the log by its head; then the log from its beginning |
//! | deleted, recreated | as moved away |
//! | we were not there | it goes on at the checkpoint, when that is younger than 15 minutes; at the end otherwise |
//!
//! **What is kept:** every whole line that was written to a file which is found by one of these ways counts once. A
//! line without its end waits for it; in a file that is closed it counts as it is. Of a line longer than 64 KiB the
//! beginning is looked at. Bytes that are no text are matched as they are.
//!
//! **What cannot be kept:** what comes between a last reading and a cut when there is no copy that can be read; what is
//! written between the copying and the cutting; files that came and went between two turns and were deleted or
//! compressed; a file that was cut and has, at the next turn, the same 256 first bytes and at least the length that
//! was read; what a writer adds to a file that was quiet for ten seconds after it was moved away. Where it can be
//! known, the bytes are counted as dropped, and a warning says so. A program that is killed reads what came in its
//! last second again.
//!
//! All of it runs on the blocking pool, within the signal's time. What a reading found is kept until somebody has
//! taken it, so a reading that was given up loses nothing.
//!
//! Not here: what counts mean (the judge), and covering secrets in the line that is shown (the caller).

mod checkpoint;
mod file;
mod follow;
mod identity;
mod lines;
mod siblings;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::time::Duration;

use rollbackd_core::sample::Reading;

use self::checkpoint::Checkpoint;
use self::file::Allowance;
use self::follow::Follower;
use self::lines::{Counter, Counts};
use super::Tail;
use super::net::Fault;
use crate::config::model::LogSource;

pub(crate) use self::lines::shown;

/// How much is read in one turn; the rest is for the next.
const MOST: u64 = 64 * 1024 * 1024;

/// A signal's log.
#[derive(Debug)]
pub(crate) struct Log {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug)]
struct Shared {
    source: LogSource,
    follower: Follower,
    /// What was read and not taken yet.
    owed: Owed,
}

#[derive(Debug, Default)]
struct Owed {
    counts: Counts,
    tail: Tail,
    problem: Option<String>,
}

impl Log {
    /// A log that is followed for a signal. Nothing is opened yet.
    pub(super) fn new(signal: &str, source: &LogSource, state_dir: &Path) -> Self {
        Self::with(Follower::new(signal, &source.path, Some(Checkpoint::new(state_dir, signal))), source)
    }

    /// A log that is followed from the first reading on, by whoever does not care about another life.
    pub(crate) fn from_now_on(source: &LogSource) -> Self {
        Self::with(Follower::new("", &source.path, None), source)
    }

    fn with(follower: Follower, source: &LogSource) -> Self {
        let shared = Shared { source: source.clone(), follower, owed: Owed::default() };
        Self { shared: Arc::new(Mutex::new(shared)) }
    }

    /// Reads what came since the last reading. The line that is the reason is as it was written.
    pub(crate) async fn read(&self, timeout: Duration, tail: &mut Option<Tail>) -> Result<Reading, Fault> {
        let shared = Arc::clone(&self.shared);
        // The file system may keep it for longer than that; then the next reading finds it held.
        let job = tokio::task::spawn_blocking(move || {
            let mut shared = match shared.try_lock() {
                Ok(shared) => shared,
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => return false,
            };
            shared.turn(timeout / 2);
            true
        });
        match tokio::time::timeout(timeout, job).await {
            Ok(Ok(true)) => {}
            Ok(Ok(false)) => {
                return Err(Fault::Unreadable("an earlier reading of the log has not come back yet".to_owned()));
            }
            Ok(Err(error)) => return Err(Fault::Unreadable(format!("the log was not read: {error}"))),
            Err(_) => return Err(Fault::Unreadable(format!("the log was not read within {timeout:?}"))),
        }
        let owed = std::mem::take(&mut self.shared.lock().unwrap_or_else(PoisonError::into_inner).owed);
        *tail = Some(owed.tail);
        let Counts { good, bad, .. } = owed.counts;
        match owed.problem {
            Some(problem) if good + bad == 0 => Err(Fault::Unreadable(problem)),
            Some(_) | None => Ok(Reading::Events { good, bad, value: None, reason: owed.counts.reason() }),
        }
    }
}

impl Shared {
    fn turn(&mut self, within: Duration) {
        let mut counter = Counter { source: &self.source, counts: &mut self.owed.counts };
        let turn = self.follower.turn(Allowance::new(MOST, within), &mut counter);
        let tail = &mut self.owed.tail;
        tail.lines += turn.tail.lines;
        tail.rotations += turn.tail.rotations;
        tail.truncations += turn.tail.truncations;
        tail.dropped_bytes += turn.tail.dropped_bytes;
        tail.lag_bytes = turn.tail.lag_bytes;
        self.owed.problem = turn.problem;
    }
}
