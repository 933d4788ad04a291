//! Whether our own side stood still while a signal was read.
//!
//! A daemon that did not run for a while (an overloaded machine, a stopped process, a suspended one) sees time-outs that
//! nobody else has seen. It is recognised by time that no clock of the application has to do with: a pulse that came late on
//! the monotonic clock, time that passed while the machine slept, and a wall clock that went on by more or less than the
//! time that passed. What was timed meanwhile is worth nothing, good or bad.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::clock::{Moment, Stopwatch};

/// The pause between two beats.
const BEAT: Duration = Duration::from_millis(100);
/// A beat that is later than this was a stall.
const LATE: Duration = Duration::from_secs(1);
/// A sleep or a step of the wall clock that is shorter than this is none.
const STEP: Duration = Duration::from_secs(2);
/// No beat yet.
const NEVER: u64 = u64::MAX;

/// A beat that shows that our side runs.
#[derive(Debug)]
pub(super) struct Pulse {
    began: Stopwatch,
    /// When it last beat, in milliseconds since it began.
    beat: AtomicU64,
    /// When the last stall ended, and how long it was.
    stalled_until: AtomicU64,
    stalled_for: AtomicU64,
}

impl Pulse {
    pub(super) fn new() -> Self {
        Self {
            began: Stopwatch::start(),
            beat: AtomicU64::new(NEVER),
            stalled_until: AtomicU64::new(NEVER),
            stalled_for: AtomicU64::new(0),
        }
    }

    /// Beats until it is cancelled.
    pub(super) async fn go_on(&self, cancel: CancellationToken) {
        loop {
            self.take(self.now());
            tokio::select! {
                () = cancel.cancelled() => break,
                () = tokio::time::sleep(BEAT) => {}
            }
        }
        // Nobody looks after it from here on.
        self.beat.store(NEVER, Ordering::Release);
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(NEVER - 1)
    }

    fn take(&self, now: u64) {
        let last = self.beat.swap(now, Ordering::AcqRel);
        let gap = if last == NEVER { 0 } else { now.saturating_sub(last) };
        if is_late(gap) {
            self.stalled_for.store(gap, Ordering::Release);
            self.stalled_until.store(now, Ordering::Release);
            let stalled = Duration::from_millis(gap);
            tracing::warn!(
                event = "signals.stalled",
                ?stalled,
                "rollbackd itself did not run; what it timed is not used"
            );
        }
    }

    /// A reading begins now.
    pub(super) fn begin(&self) -> Begun {
        Begun { beat: self.now(), moment: Moment::now() }
    }

    /// Why what was timed since then is worth nothing, if it is.
    pub(super) fn fault_since(&self, begun: &Begun) -> Option<String> {
        self.stall_since(begun.beat, self.now())
            .map(|stalled| format!("rollbackd itself did not run for {stalled:.1?}"))
            .or_else(|| distortion(begun.moment, Moment::now()))
    }

    fn stall_since(&self, begun: u64, now: u64) -> Option<Duration> {
        let last = self.beat.load(Ordering::Acquire);
        if last == NEVER {
            return None;
        }
        // The reading may have come back to life before the pulse.
        let gap = now.saturating_sub(last);
        if is_late(gap) {
            return Some(Duration::from_millis(gap));
        }
        let until = self.stalled_until.load(Ordering::Acquire);
        (until != NEVER && until >= begun).then(|| Duration::from_millis(self.stalled_for.load(Ordering::Acquire)))
    }
}

fn is_late(gap: u64) -> bool {
    Duration::from_millis(gap) > BEAT + LATE
}

/// When a reading began.
#[derive(Debug)]
pub(super) struct Begun {
    beat: u64,
    moment: Moment,
}

/// What happened to the clocks between two moments, if something did.
fn distortion(from: Moment, to: Moment) -> Option<String> {
    let passed = to.passed.saturating_sub(from.passed);
    let slept = to.with_sleep.saturating_sub(from.with_sleep).saturating_sub(passed);
    if slept >= STEP {
        return Some(format!("this machine slept for {slept:.1?}"));
    }
    let wall = to.wall.duration_since(from.wall);
    let step = wall - jiff::SignedDuration::try_from(passed + slept).unwrap_or(jiff::SignedDuration::MAX);
    let size = step.unsigned_abs();
    let way = if step.is_negative() { "back" } else { "forward" };
    (size >= STEP).then(|| format!("this machine's clock was set {way} by {size:.1?}"))
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    #[test]
    fn a_beat_that_comes_late_spoils_what_was_under_way_and_nothing_else() {
        let pulse = Pulse::new();
        assert_eq!(pulse.stall_since(0, 60_000), None, "nobody beats");
        pulse.take(0);
        pulse.take(100);
        assert_eq!(pulse.stall_since(50, 150), None);
        pulse.take(1_150);
        assert_eq!(pulse.stall_since(50, 1_200), None, "a little late is not still");
        pulse.take(6_150);
        assert_eq!(pulse.stall_since(1_100, 6_200), Some(Duration::from_secs(5)));
        assert_eq!(pulse.stall_since(6_160, 6_300), None, "begun after it");
        assert_eq!(pulse.stall_since(6_160, 9_000), Some(Duration::from_millis(2_850)), "the pulse is not back yet");
    }

    #[test]
    fn clocks_that_do_not_agree_are_explained() {
        let start: Timestamp = "2026-11-22T02:00:00Z".parse().expect("a time");
        let secs = Duration::from_secs;
        let moment = |passed: u64, with_sleep: u64, wall: i64| Moment {
            passed: secs(passed),
            with_sleep: secs(with_sleep),
            wall: start + jiff::SignedDuration::from_secs(wall),
        };
        let from = moment(10, 10, 0);
        for (to, said) in [
            (moment(13, 13, 3), None),
            (moment(13, 13, 4), None),
            (moment(13, 613, 603), Some("this machine slept for 600.0s")),
            (moment(13, 13, 3603), Some("this machine's clock was set forward by 3600.0s")),
            (moment(13, 13, -3597), Some("this machine's clock was set back by 3600.0s")),
        ] {
            assert_eq!(distortion(from, to).as_deref(), said);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_beats_until_it_is_cancelled() {
        let (pulse, cancel) = (Pulse::new(), CancellationToken::new());
        let beats = async {
            tokio::time::sleep(Duration::from_millis(350)).await;
            assert_ne!(pulse.beat.load(Ordering::Acquire), NEVER);
            cancel.cancel();
        };
        tokio::join!(pulse.go_on(cancel.clone()), beats);
        assert_eq!(pulse.beat.load(Ordering::Acquire), NEVER);
    }
}
