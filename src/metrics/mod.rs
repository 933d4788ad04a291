//! What Prometheus is told.
//!
//! One registry of its own, prefix `rollbackd_`, label `plan` on everything. Every series that can be known from
//! the plan is there from the start, with a zero or, where a zero would be a statement, `NaN`. Times are
//! timestamps: the reader makes an age of them. Readings, appends and steps come in as they happen; everything
//! else is taken from the driver's [`Snapshot`]s by [`Metrics::observe`], which also sets the counters that are
//! derived from the journal, so that those survive a restart.
//!
//! What the names mean is in `series`; how a snapshot becomes values is in `observe`.

mod observe;
mod series;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use prometheus::{Registry, TextEncoder};
use rollbackd_core::plan::Plan;
use rollbackd_core::sample::{Reading, Sample};
use tokio::runtime::Handle;

use crate::driver::snapshot::Snapshot;
use crate::signal::{Aside, Tail};
use observe::Remembered;
use series::Series;

pub(crate) use series::{rule_state_label, verdict_label};

/// The content type of [`Metrics::render`]'s text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Every series, and what must be remembered between two snapshots.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    series: Series,
    signals: Vec<String>,
    remembered: Mutex<Remembered>,
    /// What is still to be read, of each signal that follows a log.
    lags: Mutex<HashMap<usize, u64>>,
}

impl Metrics {
    /// Makes every series of a plan.
    pub fn new(plan: &Plan) -> anyhow::Result<Self> {
        let labels = HashMap::from([("plan".to_owned(), plan.name.clone())]);
        let registry = Registry::new_custom(Some("rollbackd".to_owned()), Some(labels))?;
        let series = Series::new(&registry)?;
        series.prepare(plan);
        let signals = plan.signals.iter().map(|signal| signal.name.clone()).collect();
        Ok(Self { registry, series, signals, remembered: Mutex::default(), lags: Mutex::default() })
    }

    /// A signal was read; `delay` is how late the reading began.
    pub fn sampled(&self, signal: usize, sample: &Sample, delay: Duration) {
        let Some(name) = self.signals.get(signal) else { return };
        let probes = &self.series.probes;
        let labels = &[name.as_str()];
        probes.attempts.with_label_values(labels).inc();
        probes.duration.with_label_values(labels).observe(seconds(sample.took));
        probes.schedule_delay.observe(delay.as_secs_f64());
        probes.last_run.with_label_values(labels).set(unix(sample.at));
        // Some bad events of many are no failure of the reading: how many are too many is for rules to say.
        let succeeded = match &sample.reading {
            Reading::Events { .. } => !sample.reading.is_bad(),
            Reading::Unreadable { .. } => false,
        };
        probes.success.with_label_values(labels).set(i64::from(succeeded));
        if succeeded {
            probes.consecutive_failures.with_label_values(labels).set(0);
        } else {
            probes.consecutive_failures.with_label_values(labels).inc();
            probes.failures.with_label_values(&[name.as_str(), series::failure_reason(&sample.reading)]).inc();
        }
    }

    /// These signals follow logs.
    pub fn follows<'a>(&self, signals: impl IntoIterator<Item = &'a str>) {
        for signal in signals {
            self.series.tails.lines.with_label_values(&[signal]);
        }
    }

    /// These signals make HTTP requests.
    pub fn requests<'a>(&self, signals: impl IntoIterator<Item = &'a str>) {
        for signal in signals {
            self.series.probes.prepare_http(signal);
        }
    }

    /// What came with a reading of a signal.
    pub fn aside(&self, signal: usize, aside: &Aside) {
        let Some(name) = self.signals.get(signal) else { return };
        let probes = &self.series.probes;
        for (phase, took) in &aside.phases {
            probes.phase_duration.with_label_values(&[name.as_str(), phase]).observe(took.as_secs_f64());
        }
        if let Some(expires) = aside.certificate_expires {
            probes.certificate_expiry.with_label_values(&[name]).set(unix(expires));
        }
        if let Some(tail) = aside.tail {
            self.followed(signal, name, tail);
        }
    }

    fn followed(&self, signal: usize, name: &str, tail: Tail) {
        let tails = &self.series.tails;
        tails.lines.with_label_values(&[name]).inc_by(tail.lines);
        tails.rotations.inc_by(tail.rotations);
        tails.truncations.inc_by(tail.truncations);
        tails.dropped_bytes.inc_by(tail.dropped_bytes);
        let mut lags = self.lags.lock().unwrap_or_else(PoisonError::into_inner);
        lags.insert(signal, tail.lag_bytes);
        tails.lag_bytes.set(i64::try_from(lags.values().sum::<u64>()).unwrap_or(i64::MAX));
    }

    /// A signal's turns were left out because a reading overran them.
    pub fn skipped(&self, signal: usize, turns: u64) {
        if let Some(name) = self.signals.get(signal) {
            self.series.probes.skipped.with_label_values(&[name]).inc_by(turns);
        }
    }

    /// Records became durable.
    pub fn appended(&self, took: Duration) {
        self.series.own.journal_append.observe(took.as_secs_f64());
    }

    /// Records could not be made durable.
    pub fn journal_failed(&self) {
        self.series.own.journal_errors.inc();
    }

    /// The dead-man's switch was told something.
    pub fn heartbeat(&self, signal: &str, heard: bool) {
        self.series.own.heartbeat_pings.with_label_values(&[signal]).inc();
        if !heard {
            self.series.own.heartbeat_failures.with_label_values(&[signal]).inc();
        }
    }

    /// A step ended; `step` is one of [`Step::NAMES`](rollbackd_core::run::step::Step::NAMES).
    pub fn step_ended(&self, step: &str, took: Duration) {
        self.series.rollback.step_duration.with_label_values(&[step]).observe(took.as_secs_f64());
    }

    /// One try to deliver a notice ended; `failure` is its reason as a short label.
    pub fn notice_attempted(&self, contact: &str, channel: &str, failure: Option<&str>) {
        let notices = &self.series.notices;
        notices.attempts.with_label_values(&[contact, channel]).inc();
        if let Some(reason) = failure {
            notices.failures.with_label_values(&[contact, channel, reason]).inc();
        }
    }

    /// Takes the driver's latest snapshot in.
    pub fn observe(&self, snapshot: &Snapshot) {
        observe::snapshot(&self.series, &mut self.remembered(), snapshot);
    }

    /// Everything as Prometheus text.
    pub fn render(&self) -> String {
        if let Ok(runtime) = Handle::try_current() {
            let tasks = runtime.metrics().num_alive_tasks();
            self.series.own.tasks.set(i64::try_from(tasks).unwrap_or(i64::MAX));
        }
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_else(|error| {
            tracing::error!(event = "metrics.render_failed", %error, "metrics cannot be rendered");
            String::new()
        })
    }

    fn remembered(&self) -> MutexGuard<'_, Remembered> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A duration in seconds; a clock that was set back never makes it negative.
fn seconds(duration: SignedDuration) -> f64 {
    duration.as_secs_f64().max(0.0)
}

/// A time in seconds since 1970.
fn unix(at: Timestamp) -> f64 {
    at.as_duration().as_secs_f64()
}
