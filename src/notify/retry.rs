//! When to try again, and when to give up. Pure: times and chance are arguments.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// The pauses between attempts: doubling from `first`, spread by ±50 % so that many notices held up by the same
/// server do not come back in step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pauses {
    /// The first pause, before the spread. Short: a mail server that restarts is reached soon after it is up.
    pub(crate) first: Duration,
    /// The longest pause while the trouble is young.
    pub(crate) longest: Duration,
    /// How long trouble counts as young.
    pub(crate) young: Duration,
    /// The longest pause after that.
    pub(crate) longest_later: Duration,
}

impl Default for Pauses {
    fn default() -> Self {
        Self {
            first: Duration::from_secs(1),
            longest: Duration::from_secs(60),
            young: Duration::from_secs(3600),
            longest_later: Duration::from_secs(300),
        }
    }
}

impl Pauses {
    /// The pause after so many failures, the first of which was `since` ago; `chance` is from 0 to 1.
    pub(crate) fn after(&self, failures: u32, since: Duration, chance: f64) -> Duration {
        let longest = if since < self.young { self.longest } else { self.longest_later };
        let doubled = self.first.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1)));
        // Two thirds of the longest, so that the spread never exceeds it and never piles up at it.
        let middle = doubled.min(longest.mul_f64(2.0 / 3.0));
        middle.mul_f64(0.5 + chance.clamp(0.0, 1.0))
    }
}

/// Why an attempt failed: the label `reason` of `notice_failures_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    Connect,
    Timeout,
    Tls,
    Status4xx,
    Status5xx,
    Smtp4yz,
    Smtp5yz,
    Other,
}

impl Cause {
    /// The label.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Timeout => "timeout",
            Self::Tls => "tls",
            Self::Status4xx => "status_4xx",
            Self::Status5xx => "status_5xx",
            Self::Smtp4yz => "smtp_4yz",
            Self::Smtp5yz => "smtp_5yz",
            Self::Other => "other",
        }
    }
}

/// An attempt that did not deliver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// For metrics.
    pub(crate) cause: Cause,
    /// For people; nothing secret.
    pub(crate) reason: String,
    /// What follows.
    pub(crate) then: Then,
}

/// What follows from a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    /// Try again: after the usual pause, or after as long as the server asks for.
    Retry {
        /// What the server asks for.
        after: Option<Duration>,
    },
    /// It can never be delivered this way.
    GiveUp,
}

impl Failure {
    /// One that may pass.
    pub(crate) fn passing(cause: Cause, reason: impl Into<String>) -> Self {
        Self { cause, reason: reason.into(), then: Then::Retry { after: None } }
    }

    /// One that will not.
    pub(crate) fn lasting(cause: Cause, reason: impl Into<String>) -> Self {
        Self { cause, reason: reason.into(), then: Then::GiveUp }
    }
}

/// The time until `expires_at`, or `None` when it has come. A pause is cut to it, so that the last attempt is
/// made just as the notice expires.
pub(crate) fn remaining(expires_at: Timestamp, now: Timestamp) -> Option<Duration> {
    let left = expires_at.duration_since(now);
    if left <= SignedDuration::ZERO { None } else { Some(left.unsigned_abs()) }
}

/// The longest that a server may ask us to stay away: it may be wrong about it, and people wait for what we bring.
pub(crate) const LONGEST_ASKED: Duration = Duration::from_secs(3600);

/// A `Retry-After` header: seconds or an HTTP date, at most [`LONGEST_ASKED`]. Something else is taken as absent.
pub(crate) fn retry_after(header: &str, now: Timestamp) -> Option<Duration> {
    let header = header.trim();
    let asked = if !header.is_empty() && header.bytes().all(|byte| byte.is_ascii_digit()) {
        // What does not fit into a number is a long time too.
        Duration::from_secs(header.parse().unwrap_or(u64::MAX))
    } else {
        let at = jiff::fmt::rfc2822::parse(header).ok()?.timestamp();
        remaining(at, now).unwrap_or(Duration::ZERO)
    };
    Some(asked.min(LONGEST_ASKED))
}

#[cfg(test)]
mod tests {
    use super::*;

    const YOUNG: Duration = Duration::from_secs(10);
    const OLD: Duration = Duration::from_secs(4000);

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn pauses_double_from_one_second() {
        let pauses = Pauses::default();
        let middles: Vec<u64> = (1..=8).map(|failures| pauses.after(failures, YOUNG, 0.5).as_secs()).collect();
        assert_eq!(middles, [1, 2, 4, 8, 16, 32, 40, 40]);
    }

    #[test]
    fn pauses_spread_by_half_and_never_exceed_the_longest() {
        let pauses = Pauses::default();
        assert_eq!(pauses.after(3, YOUNG, 0.0), Duration::from_secs(2));
        assert_eq!(pauses.after(3, YOUNG, 1.0), Duration::from_secs(6));
        for failures in [1, 7, 31, 32, 33, u32::MAX] {
            assert!(pauses.after(failures, YOUNG, 1.0) <= Duration::from_secs(60), "after {failures} failures");
            assert!(pauses.after(failures, OLD, 1.0) <= Duration::from_secs(300), "after {failures} failures");
        }
    }

    #[test]
    fn old_trouble_is_tried_less_often() {
        let pauses = Pauses::default();
        assert_eq!(pauses.after(80, YOUNG, 1.0), Duration::from_secs(60));
        assert_eq!(pauses.after(80, OLD, 1.0), Duration::from_secs(300));
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = at("2026-11-22T02:14:05Z");
        assert_eq!(retry_after("120", now), Some(Duration::from_secs(120)));
        assert_eq!(retry_after(" 0 ", now), Some(Duration::ZERO));
        assert_eq!(retry_after("Sun, 22 Nov 2026 02:15:05 GMT", now), Some(Duration::from_secs(60)));
        assert_eq!(retry_after("Sun, 22 Nov 2026 02:13:05 GMT", now), Some(Duration::ZERO));
        for long in ["3601", "86400", "99999999999999999999999", "Tue, 24 Nov 2026 02:13:05 GMT"] {
            assert_eq!(retry_after(long, now), Some(LONGEST_ASKED), "{long}");
        }
        for nonsense in ["", "soon", "-5", "1.5", "+5"] {
            assert_eq!(retry_after(nonsense, now), None, "{nonsense}");
        }
    }

    #[test]
    fn nothing_remains_at_the_expiry() {
        let expiry = at("2026-11-22T02:14:05Z");
        assert_eq!(remaining(expiry, at("2026-11-22T02:14:04.5Z")), Some(Duration::from_millis(500)));
        assert_eq!(remaining(expiry, expiry), None);
        assert_eq!(remaining(expiry, at("2026-11-23T02:14:05Z")), None);
    }
}
