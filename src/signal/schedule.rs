//! When signals are read: a loop of its own for each, on deadlines that are all known from the start.
//!
//! The turns of a signal are `start + phase + n × every` on the monotonic clock, so neither a slow reading nor a
//! changed wall clock moves them. The phase lies within the first second: a fresh daemon knows soon, and signals
//! do not all fire together. A loop reads one at a time; turns that pass meanwhile are skipped and counted, never
//! made up for.
//!
//! What is read goes into a bounded channel and is never dropped, for a lost sample would be a blind spot that
//! nobody sees. When the receiver is slow the loop waits for room: this costs turns of its own, which are counted
//! as skipped like any others, and none of another signal's.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use rollbackd_core::sample::Sample;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Aside, Read, Reader};
use crate::config::model::Config;

/// What comes of a signal's turns.
#[derive(Debug, Clone, PartialEq)]
pub enum Reading {
    /// It was read.
    Sampled {
        /// Its place in the configuration.
        signal: usize,
        /// What was read.
        sample: Sample,
        /// What came with it.
        aside: Aside,
        /// How long after its deadline the reading started.
        delay: Duration,
    },
    /// Turns passed while it could not be read.
    Skipped {
        /// Its place in the configuration.
        signal: usize,
        /// How many.
        turns: u64,
    },
}

/// Starts the loops. They end with the token, or when nobody receives any more.
pub fn start(
    reader: Arc<Reader>,
    config: &Config,
    tracker: &TaskTracker,
    cancel: &CancellationToken,
    to: mpsc::Sender<Reading>,
) {
    let every: Vec<Duration> = config.signals.iter().map(|signal| signal.every).collect();
    let (watched, ended) = (Arc::clone(&reader), cancel.clone());
    tracker.spawn(async move { watched.beat(ended).await });
    let read = move |signal| {
        let reader = Arc::clone(&reader);
        async move { reader.read(signal).await }
    };
    start_with(&every, read, tracker, cancel, to);
}

#[expect(clippy::needless_pass_by_value, reason = "the channel closes when its last loop ends")]
fn start_with<R, F>(
    every: &[Duration],
    read: R,
    tracker: &TaskTracker,
    cancel: &CancellationToken,
    to: mpsc::Sender<Reading>,
) where
    R: Fn(usize) -> F + Clone + Send + 'static,
    F: Future<Output = Read> + Send,
{
    let now = Instant::now();
    for (signal, &every) in every.iter().enumerate() {
        let turns = Turns { due: now + phase(signal, every), every: every.max(Duration::from_millis(1)) };
        let (read, to, cancel) = (read.clone(), to.clone(), cancel.clone());
        tracker.spawn(async move {
            cancel.run_until_cancelled(take_turns(signal, turns, read, to)).await;
        });
    }
}

/// The signal's place within the first second (or within `every`, when that is shorter). Steps of the golden
/// section stay apart from each other however many there are.
fn phase(signal: usize, every: Duration) -> Duration {
    let thousandths = u32::try_from(signal % 1000 * 618 % 1000).unwrap_or(0);
    every.min(Duration::from_secs(1)) * thousandths / 1000
}

async fn take_turns<R, F>(signal: usize, mut turns: Turns, read: R, to: mpsc::Sender<Reading>)
where
    R: Fn(usize) -> F,
    F: Future<Output = Read>,
{
    loop {
        sleep_until(turns.due).await;
        let delay = turns.due.elapsed();
        let Read { sample, aside } = read(signal).await;
        if to.send(Reading::Sampled { signal, sample, aside, delay }).await.is_err() {
            return;
        }
        let skipped = turns.next(Instant::now());
        if skipped > 0 && to.send(Reading::Skipped { signal, turns: skipped }).await.is_err() {
            return;
        }
    }
}

/// A signal's deadlines.
#[derive(Debug)]
struct Turns {
    due: Instant,
    every: Duration,
}

impl Turns {
    /// Moves to the first turn that has not passed, and says how many have.
    fn next(&mut self, now: Instant) -> u64 {
        self.due += self.every;
        let late = now.saturating_duration_since(self.due).as_nanos();
        let missed = u32::try_from(late.div_ceil(self.every.as_nanos().max(1))).unwrap_or(u32::MAX);
        self.due += self.every.saturating_mul(missed);
        u64::from(missed)
    }
}

#[cfg(test)]
mod tests {
    use rollbackd_core::sample::Reading as Seen;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn sample() -> Read {
        let sample =
            Sample { at: jiff::Timestamp::UNIX_EPOCH, took: jiff::SignedDuration::ZERO, reading: Seen::good() };
        Read { sample, aside: Aside::default() }
    }

    /// Loops over signals whose readings take so long; yields readings with the time at which they arrived.
    struct Fixture {
        from: mpsc::Receiver<Reading>,
        tracker: TaskTracker,
        cancel: CancellationToken,
        start: Instant,
    }

    impl Fixture {
        fn new(every: &[Duration], takes: &'static [Duration], room: usize) -> Self {
            let (to, from) = mpsc::channel(room);
            let (tracker, cancel, start) = (TaskTracker::new(), CancellationToken::new(), Instant::now());
            let read = move |signal: usize| async move {
                tokio::time::sleep(takes[signal]).await;
                sample()
            };
            start_with(every, read, &tracker, &cancel, to);
            tracker.close();
            Self { from, tracker, cancel, start }
        }

        async fn next(&mut self) -> (u128, usize, Option<u64>) {
            let reading = self.from.recv().await.unwrap();
            let at = self.start.elapsed().as_millis();
            match reading {
                Reading::Sampled { signal, .. } => (at, signal, None),
                Reading::Skipped { signal, turns } => (at, signal, Some(turns)),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn each_signal_has_a_phase_of_its_own_and_keeps_it() {
        let mut loops = Fixture::new(&[5 * SECOND; 3], &[Duration::ZERO; 3], 16);
        let mut seen = Vec::new();
        for _ in 0..9 {
            let (at, signal, skipped) = loops.next().await;
            assert_eq!(skipped, None);
            seen.push((signal, at));
        }
        let expected = [(0, 0), (2, 236), (1, 618)];
        let turns = |n: u128| expected.map(|(signal, at)| (signal, at + n * 5000));
        // The timer's grain is a millisecond.
        for (seen, expected) in seen.iter().zip([turns(0), turns(1), turns(2)].concat()) {
            assert_eq!(seen.0, expected.0);
            assert!(seen.1.abs_diff(expected.1) <= 2, "{seen:?} {expected:?}");
        }
    }

    #[test]
    fn phases_stay_apart_and_within_a_short_interval() {
        let mut phases: Vec<Duration> = (0..20).map(|signal| phase(signal, 60 * SECOND)).collect();
        assert!(phases.iter().all(|phase| *phase < SECOND));
        phases.sort();
        assert!(phases.windows(2).all(|pair| pair[1].abs_diff(pair[0]) >= Duration::from_millis(15)), "{phases:?}");
        assert!((0..20).all(|signal| phase(signal, Duration::from_millis(200)) < Duration::from_millis(200)));
    }

    #[tokio::test(start_paused = true)]
    async fn an_overrun_skips_counts_and_returns_to_the_grid_without_touching_others() {
        const TAKES: [Duration; 2] = [Duration::from_millis(2500), Duration::ZERO];
        let mut loops = Fixture::new(&[SECOND; 2], &TAKES, 16);
        let (mut slow, mut quick) = (Vec::new(), Vec::new());
        while slow.len() < 4 {
            let (at, signal, skipped) = loops.next().await;
            if signal == 0 { slow.push((at / 10 * 10, skipped)) } else { quick.push((at, skipped)) }
        }
        assert_eq!(slow, [(2500, None), (2500, Some(2)), (5500, None), (5500, Some(2))]);
        assert!(quick.iter().all(|(_, skipped)| skipped.is_none()), "{quick:?}");
        assert_eq!(quick.len(), 5, "one each second, whatever the other does: {quick:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_thousand_signals_a_second_are_read_beside_a_slow_one() {
        const TAKES: [Duration; 1_001] = {
            let mut takes = [Duration::from_millis(300); 1_001];
            takes[0] = Duration::from_secs(60);
            takes
        };
        let mut loops = Fixture::new(&[SECOND; 1_001], &TAKES, 4_096);
        let mut turns = vec![0_u32; 1_001];
        while loops.start.elapsed() < 10 * SECOND {
            let (_, signal, skipped) = loops.next().await;
            assert_eq!(skipped, None, "signal {signal}");
            turns[signal] += 1;
        }
        assert_eq!(turns[0], 0);
        assert!(turns[1..].iter().all(|turns| (9..=10).contains(turns)), "{turns:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_channel_loses_nothing_and_counts_the_turns_it_cost() {
        let mut loops = Fixture::new(&[SECOND], &[Duration::ZERO], 1);
        tokio::time::sleep(Duration::from_millis(4500)).await;
        // Turn 0 lies in the channel, turn 1 waits for room; turns 2, 3 and 4 pass.
        let mut seen = Vec::new();
        for _ in 0..4 {
            let (at, _, skipped) = loops.next().await;
            seen.push((at / 10 * 10, skipped));
        }
        assert_eq!(seen, [(4500, None), (4500, None), (4500, Some(3)), (5000, None)]);
    }

    #[tokio::test(start_paused = true)]
    async fn cancelling_ends_a_reading_in_flight_and_a_wait_for_room() {
        const TAKES: [Duration; 2] = [Duration::from_secs(3600), Duration::ZERO];
        let loops = Fixture::new(&[SECOND; 2], &TAKES, 1);
        tokio::time::sleep(5 * SECOND).await;
        loops.cancel.cancel();
        tokio::time::timeout(SECOND, loops.tracker.wait()).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_receiver_that_is_gone_ends_the_loops() {
        let loops = Fixture::new(&[SECOND; 2], &[Duration::ZERO; 2], 1);
        drop(loops.from);
        tokio::time::timeout(5 * SECOND, loops.tracker.wait()).await.unwrap();
    }

    #[test]
    fn a_turn_that_is_due_right_now_is_not_missed() {
        let start = Instant::now();
        let mut turns = Turns { due: start, every: SECOND };
        assert_eq!(turns.next(start + SECOND), 0);
        assert_eq!(turns.due, start + SECOND);
        assert_eq!(turns.next(start + 2 * SECOND + Duration::from_nanos(1)), 1);
        assert_eq!(turns.due, start + 3 * SECOND);
    }
}
