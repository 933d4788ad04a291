//! `error_log`: of the lines that come into a log while traffic flows again, few enough are bad.
//!
//! It follows the log by itself, from its end and for the time of one try: what was written during the incident does
//! not count. Without any line nothing was seen, and the check fails.

use std::time::Duration;

use rollbackd_core::sample::Reading;
use tokio::time::{Instant, sleep};

use crate::config::model::LogSource;
use crate::config::veil::Veil;
use crate::signal::log::{Log, shown};

/// The pause between two looks at the log.
const PACE: Duration = Duration::from_millis(500);

pub(super) async fn check(
    source: &LogSource,
    ratio_below: f64,
    within: Duration,
    timeout: Duration,
    veil: &Veil,
) -> Result<String, String> {
    let log = Log::from_now_on(source);
    let end = Instant::now() + within;
    let (mut good, mut bad, mut last) = (0_u64, 0_u64, None);
    loop {
        let now = Instant::now();
        let read = log.read(timeout, &mut None).await;
        match read {
            Ok(Reading::Events { good: more, bad: worse, reason, .. }) => {
                good += more;
                bad += worse;
                last = reason.or(last);
            }
            // It may be just being rotated; only at the end it is needed.
            Ok(Reading::Unreadable { reason }) if now >= end => return Err(reason),
            Err(fault) if now >= end => return Err(fault.into_reason()),
            Ok(Reading::Unreadable { .. }) | Err(_) => {}
        }
        if now >= end {
            break;
        }
        sleep(PACE.min(end - now)).await;
    }
    let all = good + bad;
    if all == 0 {
        return Err(format!("no line that counts came into {} within {within:?}", source.path.display()));
    }
    #[expect(clippy::cast_precision_loss, reason = "a share of lines")]
    let ratio = bad as f64 / all as f64;
    let counted = format!("{bad} of {all} lines were bad within {within:?}");
    if ratio < ratio_below {
        return Ok(counted);
    }
    let last = last.map(|line| format!("; the last: {}", shown(&veil.cover(line)))).unwrap_or_default();
    Err(format!("{counted}, which is not below {ratio_below}{last}"))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::path::Path;

    use regex::bytes::Regex;

    use super::*;

    /// Watches a log for a moment, while somebody writes these lines again and again.
    async fn watched(before: &str, lines: &str) -> Result<String, String> {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("app.log");
        std::fs::write(&path, before).unwrap();
        let source = LogSource { path: path.clone(), error: Regex::new("ERROR").unwrap(), line: None };
        let veil = Veil::default();
        let watch = check(&source, 0.5, Duration::from_millis(600), Duration::from_secs(5), &veil);
        let write = async {
            loop {
                sleep(Duration::from_millis(20)).await;
                append(&path, lines);
            }
        };
        tokio::select! {
            result = watch => result,
            () = write => unreachable!("it never ends"),
        }
    }

    fn append(path: &Path, lines: &str) {
        std::fs::OpenOptions::new().append(true).open(path).unwrap().write_all(lines.as_bytes()).unwrap();
    }

    #[tokio::test]
    async fn what_comes_now_counts_and_what_was_does_not() {
        let healthy = watched(&"ERROR of the incident\n".repeat(1000), "fine\nfine\nERROR\n").await.unwrap();
        assert!(healthy.contains(" lines were bad within 600ms"), "{healthy}");
        let ill = watched(&"fine\n".repeat(1000), "fine\nERROR 7\n").await.unwrap_err();
        assert!(ill.ends_with("which is not below 0.5; the last: ERROR 7"), "{ill}");
    }

    #[tokio::test]
    async fn silence_proves_nothing() {
        let silent = watched("fine\n", "").await.unwrap_err();
        assert!(silent.starts_with("no line that counts came into "), "{silent}");
        let source = LogSource { path: "/nowhere/app.log".into(), error: Regex::new("x").unwrap(), line: None };
        let missing = check(&source, 0.5, Duration::from_millis(1), Duration::from_secs(5), &Veil::default()).await;
        assert_eq!(missing.unwrap_err(), "unknown: there is no log at /nowhere/app.log");
    }
}
