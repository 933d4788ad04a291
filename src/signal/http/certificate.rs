//! When the certificates expire that servers show. What is still valid is never a bad reading; people are told in
//! time by the log, the metric and `check --online`.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};
use x509_cert::Certificate;
use x509_cert::der::Decode;

/// How long before the end people are told.
const SOON: SignedDuration = SignedDuration::from_hours(14 * 24);
/// How often.
const AGAIN: SignedDuration = SignedDuration::from_hours(24);

/// When a certificate expires; `None` when it is not one, which whoever verified it would have found.
pub(super) fn expires(der: &[u8]) -> Option<Timestamp> {
    let certificate = Certificate::from_der(der).ok()?;
    let end = certificate.tbs_certificate.validity.not_after.to_unix_duration();
    Timestamp::from_second(end.as_secs().try_into().ok()?).ok()
}

/// What to say of a certificate that expires soon.
pub(crate) fn warning(expires: Timestamp, now: Timestamp) -> Option<String> {
    let left = expires.duration_since(now);
    if left > SOON {
        return None;
    }
    let days = left.as_hours() / 24;
    let within = if days == 1 { "in 1 day".to_owned() } else { format!("in {days} days") };
    let within = if left.is_negative() { "has expired".to_owned() } else { format!("expires {within}") };
    Some(format!("the certificate {within}, on {}", expires.strftime("%Y-%m-%d at %H:%M UTC")))
}

/// Remembers who was told of, so that the log is not filled with it.
#[derive(Debug, Default)]
pub(crate) struct Told(Mutex<HashMap<usize, Timestamp>>);

impl Told {
    /// Logs that the certificate of a signal expires soon, once a day.
    pub(crate) fn look(&self, signal: usize, name: &str, expires: Timestamp, now: Timestamp) {
        if let Some(warning) = self.due(signal, expires, now) {
            tracing::warn!(event = "signal.certificate_expires", signal = name, expires = %expires, "{warning}");
        }
    }

    fn due(&self, signal: usize, expires: Timestamp, now: Timestamp) -> Option<String> {
        let warning = warning(expires, now)?;
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if told.get(&signal).is_some_and(|last| now.duration_since(*last).abs() < AGAIN) {
            return None;
        }
        told.insert(signal, now);
        Some(warning)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_are_told_in_time_and_once_a_day() {
        let now: Timestamp = "2026-11-22T02:00:00Z".parse().unwrap();
        let day = SignedDuration::from_hours(24);
        assert_eq!(warning(now + day * 15, now), None);
        let soon = now + day * 13;
        assert_eq!(warning(soon, now).unwrap(), "the certificate expires in 13 days, on 2026-12-05 at 02:00 UTC");
        assert_eq!(warning(now, now).unwrap(), "the certificate expires in 0 days, on 2026-11-22 at 02:00 UTC");
        assert!(warning(now - day, now).unwrap().starts_with("the certificate has expired, on "));
        let told = Told::default();
        assert!(told.due(0, soon, now).is_some());
        assert!(told.due(1, soon, now).is_some(), "another signal");
        assert_eq!(told.due(0, soon, now + SignedDuration::from_hours(23)), None);
        assert!(told.due(0, soon, now + day).is_some());
        assert_eq!(told.due(2, now + day * 15, now), None);
    }

    #[test]
    fn what_is_no_certificate_expires_never() {
        assert_eq!(expires(b"certificate"), None);
    }
}
