//! The names, their labels and what they mean.

use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, core::Collector,
};
use rollbackd_core::judge::{RuleState, Verdict};
use rollbackd_core::notice::NoticeEvent;
use rollbackd_core::plan::Plan;
use rollbackd_core::run::record::Trigger;
use rollbackd_core::run::state::StateName;
use rollbackd_core::run::step::Step;
use rollbackd_core::sample::Reading;

use crate::heartbeat::Word;
use crate::notify::FAILURES;
use crate::signal::http::phases::NAMES as PHASES;

/// From half a millisecond (a local disk) to what no disk should take.
const JOURNAL_BUCKETS: &[f64] = &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5];
/// From a local socket's answer to the longest sensible time-out.
const PROBE_BUCKETS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// A healthy scheduler is late by milliseconds.
const DELAY_BUCKETS: &[f64] = &[0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0];
/// From a gate file to a backup of a large database.
const STEP_BUCKETS: &[f64] = &[0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0];

/// Why a reading counts as failed: `bad`, the application answered wrongly or not at all; `unreadable`, we could not find out.
const FAILURE_REASONS: [&str; 2] = ["bad", "unreadable"];
/// The names that the journal's [`Counts`](rollbackd_core::run::state::Counts) use.
const DECISIONS: [&str; 5] = ["rollback", "page", "freeze", "pass", "refuse"];

/// Every verdict.
pub(super) const VERDICTS: [Verdict; 4] = [Verdict::Healthy, Verdict::Suspect, Verdict::Breached, Verdict::Blind];
/// Every state of a rule.
pub(super) const RULE_STATES: [RuleState; 4] =
    [RuleState::Quiet, RuleState::Suspect, RuleState::Breached, RuleState::Blind];

/// Every series, by area.
#[derive(Debug)]
pub(super) struct Series {
    pub(super) own: Own,
    pub(super) window: Window,
    pub(super) probes: Probes,
    pub(super) decisions: Decisions,
    pub(super) rollback: Rollback,
    pub(super) notices: Notices,
    pub(super) tails: Tails,
}

/// The daemon itself.
#[derive(Debug)]
pub(super) struct Own {
    pub(super) build_info: IntGaugeVec,
    pub(super) config_hash: Gauge,
    pub(super) config_pending: IntGauge,
    pub(super) config_accepted: IntGauge,
    pub(super) heartbeat: Gauge,
    pub(super) tasks: IntGauge,
    pub(super) journal_append: Histogram,
    pub(super) journal_errors: IntCounter,
    pub(super) heartbeat_pings: IntCounterVec,
    pub(super) heartbeat_failures: IntCounterVec,
}

/// The window.
#[derive(Debug)]
pub(super) struct Window {
    pub(super) state: IntGaugeVec,
    pub(super) start: Gauge,
    pub(super) end: Gauge,
    pub(super) next: Gauge,
}

/// The readings.
#[derive(Debug)]
pub(super) struct Probes {
    pub(super) success: IntGaugeVec,
    pub(super) attempts: IntCounterVec,
    pub(super) failures: IntCounterVec,
    pub(super) skipped: IntCounterVec,
    pub(super) duration: HistogramVec,
    pub(super) schedule_delay: Histogram,
    pub(super) last_run: GaugeVec,
    pub(super) consecutive_failures: IntGaugeVec,
    pub(super) phase_duration: HistogramVec,
    pub(super) certificate_expiry: GaugeVec,
}

/// The judge.
#[derive(Debug)]
pub(super) struct Decisions {
    pub(super) error_ratio: GaugeVec,
    pub(super) rule_state: IntGaugeVec,
    pub(super) verdict: IntGaugeVec,
    pub(super) taken: IntCounterVec,
}

/// The rollback.
#[derive(Debug)]
pub(super) struct Rollback {
    pub(super) started: IntCounterVec,
    pub(super) failures: IntCounterVec,
    pub(super) step_duration: HistogramVec,
    pub(super) duration: Gauge,
    pub(super) last_start: Gauge,
    pub(super) verified: IntGauge,
    pub(super) recovery_duration: Gauge,
    pub(super) check: GaugeVec,
}

/// The notices.
#[derive(Debug)]
pub(super) struct Notices {
    pub(super) made: IntCounterVec,
    pub(super) attempts: IntCounterVec,
    pub(super) failures: IntCounterVec,
    pub(super) pending: IntGauge,
    pub(super) oldest_pending: Gauge,
    pub(super) dead_lettered: IntCounter,
}

/// The logs that are followed.
#[derive(Debug)]
pub(super) struct Tails {
    pub(super) lines: IntCounterVec,
    pub(super) rotations: IntCounter,
    pub(super) truncations: IntCounter,
    pub(super) dropped_bytes: IntCounter,
    pub(super) lag_bytes: IntGauge,
}

/// Why a reading that is not good counts as failed.
pub(super) const fn failure_reason(reading: &Reading) -> &'static str {
    match reading {
        Reading::Events { .. } => "bad",
        Reading::Unreadable { .. } => "unreadable",
    }
}

/// A verdict's label.
pub(crate) const fn verdict_label(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Healthy => "healthy",
        Verdict::Suspect => "suspect",
        Verdict::Breached => "breached",
        Verdict::Blind => "blind",
    }
}

/// A rule state's label.
pub(crate) const fn rule_state_label(state: RuleState) -> &'static str {
    match state {
        RuleState::Quiet => "quiet",
        RuleState::Suspect => "suspect",
        RuleState::Breached => "breached",
        RuleState::Blind => "blind",
    }
}

impl Series {
    /// Makes and registers every family.
    pub(super) fn new(registry: &Registry) -> prometheus::Result<Self> {
        let make = Make { registry };
        Ok(Self {
            own: Own::new(&make)?,
            window: Window::new(&make)?,
            probes: Probes::new(&make)?,
            decisions: Decisions::new(&make)?,
            rollback: Rollback::new(&make)?,
            notices: Notices::new(&make)?,
            tails: Tails::new(&make)?,
        })
    }

    /// Makes every series that the plan lets us know, so that a first increment is an increase and not a birth.
    pub(super) fn prepare(&self, plan: &Plan) {
        self.own.build_info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        self.own.config_hash.set(hash_as_number(&plan.config_sha256));
        for word in Word::ALL {
            self.own.heartbeat_pings.with_label_values(&[word.as_str()]);
            self.own.heartbeat_failures.with_label_values(&[word.as_str()]);
        }
        self.own.config_accepted.set(1);
        for state in StateName::ALL {
            self.window.state.with_label_values(&[state.as_str()]);
        }
        for signal in &plan.signals {
            self.probes.prepare(&signal.name);
            self.decisions.error_ratio.with_label_values(&[&signal.name]).set(f64::NAN);
        }
        for rule in &plan.rules {
            for state in RULE_STATES {
                self.decisions.rule_state.with_label_values(&[rule.name.as_str(), rule_state_label(state)]);
            }
        }
        for verdict in VERDICTS {
            self.decisions.verdict.with_label_values(&[verdict_label(verdict)]);
        }
        for decision in DECISIONS {
            self.decisions.taken.with_label_values(&[decision]);
        }
        self.rollback.prepare(plan);
        for contact in &plan.contacts {
            for event in NoticeEvent::ALL {
                self.notices.made.with_label_values(&[contact.name.as_str(), event.as_str()]);
            }
            for channel in &contact.channels {
                self.notices.attempts.with_label_values(&[&contact.name, channel]);
                for reason in FAILURES {
                    self.notices.failures.with_label_values(&[contact.name.as_str(), channel, reason]);
                }
            }
        }
    }
}

/// The first 48 bits of the hash: what a float holds exactly, and enough to see that two hosts differ.
fn hash_as_number(sha256: &str) -> f64 {
    let number = |part: Option<&str>| part.and_then(|part| u32::from_str_radix(part, 16).ok()).map_or(0.0, f64::from);
    number(sha256.get(..6)) * f64::from(1_u32 << 24) + number(sha256.get(6..12))
}

/// Makes a family and registers it.
struct Make<'a> {
    registry: &'a Registry,
}

impl Make<'_> {
    fn register<C: Collector + Clone + 'static>(&self, collector: C) -> prometheus::Result<C> {
        self.registry.register(Box::new(collector.clone()))?;
        Ok(collector)
    }

    fn gauge(&self, name: &str, help: &str) -> prometheus::Result<Gauge> {
        self.register(Gauge::new(name, help)?)
    }

    fn whole(&self, name: &str, help: &str) -> prometheus::Result<IntGauge> {
        self.register(IntGauge::new(name, help)?)
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<GaugeVec> {
        self.register(GaugeVec::new(Opts::new(name, help), labels)?)
    }

    fn wholes(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntGaugeVec> {
        self.register(IntGaugeVec::new(Opts::new(name, help), labels)?)
    }

    fn counter(&self, name: &str, help: &str) -> prometheus::Result<IntCounter> {
        self.register(IntCounter::new(name, help)?)
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntCounterVec> {
        self.register(IntCounterVec::new(Opts::new(name, help), labels)?)
    }

    fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> prometheus::Result<Histogram> {
        self.register(Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec()))?)
    }

    fn histograms(&self, name: &str, help: &str, label: &str, buckets: &[f64]) -> prometheus::Result<HistogramVec> {
        self.histograms_by(name, help, &[label], buckets)
    }

    fn histograms_by(&self, name: &str, help: &str, by: &[&str], buckets: &[f64]) -> prometheus::Result<HistogramVec> {
        self.register(HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), by)?)
    }
}

impl Own {
    fn new(make: &Make<'_>) -> prometheus::Result<Self> {
        Ok(Self {
            build_info: make.wholes("build_info", "Always 1; the version is a label.", &["version"])?,
            config_hash: make.gauge("config_hash", "The first 48 bits of the configuration's SHA-256, as a number.")?,
            config_pending: make.whole(
                "config_pending",
                "1 while another configuration is to be taken over as soon as no window is open.",
            )?,
            config_accepted: make.whole(
                "config_last_reload_successful",
                "0 when the configuration's file was refused when it was read last.",
            )?,
            heartbeat: make.gauge(
                "heartbeat_timestamp_seconds",
                "When the driver last went round its loop, in seconds since 1970.",
            )?,
            tasks: make.whole("tasks", "What the daemon has running at once; as many from window to window.")?,
            journal_append: make.histogram(
                "journal_append_duration_seconds",
                "How long it took until records were durable.",
                JOURNAL_BUCKETS,
            )?,
            journal_errors: make.counter("journal_errors_total", "Appends to the journal that failed.")?,
            heartbeat_pings: make.counters(
                "heartbeat_pings_total",
                "Requests to the dead-man's switch, by what they say: start, well, fail.",
                &["signal"],
            )?,
            heartbeat_failures: make.counters(
                "heartbeat_failures_total",
                "Requests to the dead-man's switch that were not answered with 2xx.",
                &["signal"],
            )?,
        })
    }
}

impl Window {
    fn new(make: &Make<'_>) -> prometheus::Result<Self> {
        Ok(Self {
            state: make.wholes(
                "window_state",
                "1 for the state of the window that is open, or else of the last one.",
                &["state"],
            )?,
            start: make.gauge(
                "window_start_timestamp_seconds",
                "When the open or last window opened, in seconds since 1970; 0: there was none.",
            )?,
            end: make.gauge(
                "window_end_timestamp_seconds",
                "The open window's hard end, or when the last one was settled, in seconds since 1970; 0: there was none.",
            )?,
            next: make.gauge(
                "next_window_timestamp_seconds",
                "The next scheduled opening, in seconds since 1970; 0: there is none.",
            )?,
        })
    }
}

impl Probes {
    fn new(make: &Make<'_>) -> prometheus::Result<Self> {
        let signal = &["signal"];
        Ok(Self {
            success: make.wholes("probe_success", "1 when the last reading of the signal was good.", signal)?,
            attempts: make.counters("probe_attempts_total", "Readings of the signal.", signal)?,
            failures: make.counters(
                "probe_failures_total",
                "Readings that were not good: bad, the application answered wrongly or not at all; unreadable, we could not find out.",
                &["signal", "reason"],
            )?,
            skipped: make.counters(
                "probe_skipped_total",
                "Turns that were left out because the reading before overran them.",
                signal,
            )?,
            duration: make.histograms("probe_duration_seconds", "How long a reading took.", "signal", PROBE_BUCKETS)?,
            schedule_delay: make.histogram(
                "probe_schedule_delay_seconds",
                "How much later than planned a reading began.",
                DELAY_BUCKETS,
            )?,
            last_run: make.gauges(
                "probe_last_run_timestamp_seconds",
                "When the signal was last read, in seconds since 1970; 0: not yet.",
                signal,
            )?,
            consecutive_failures: make.wholes(
                "probe_consecutive_failures",
                "Readings in a row, up to now, that were not good.",
                signal,
            )?,
            phase_duration: make.histograms_by(
                "probe_phase_duration_seconds",
                "How long each part of an HTTP reading took: resolve, connect (with TLS), wait for the answer's head, read.",
                &["signal", "phase"],
                PROBE_BUCKETS,
            )?,
            certificate_expiry: make.gauges(
                "probe_certificate_expiry_timestamp_seconds",
                "When the certificate expires that the server of an HTTP signal shows, in seconds since 1970; 0: none was seen.",
                signal,
            )?,
        })
    }

    fn prepare(&self, signal: &str) {
        self.success.with_label_values(&[signal]);
        self.attempts.with_label_values(&[signal]);
        self.skipped.with_label_values(&[signal]);
        self.duration.with_label_values(&[signal]);
        self.last_run.with_label_values(&[signal]);
        self.consecutive_failures.with_label_values(&[signal]);
        for reason in FAILURE_REASONS {
            self.failures.with_label_values(&[signal, reason]);
        }
    }

    /// The series of a signal that makes HTTP requests.
    pub(super) fn prepare_http(&self, signal: &str) {
        for phase in PHASES {
            self.phase_duration.with_label_values(&[signal, phase]);
        }
        self.certificate_expiry.with_label_values(&[signal]);
    }
}

impl Decisions {
    fn new(make: &Make<'_>) -> prometheus::Result<Self> {
        Ok(Self {
            error_ratio: make.gauges(
                "signal_error_ratio",
                "Share of bad events among those remembered; NaN: there are none.",
                &["signal"],
            )?,
            rule_state: make.wholes("rule_state", "1 for what the rule says now.", &["rule", "state"])?,
            verdict: make.wholes("verdict", "1 for what the rules say together now.", &["state"])?,
            taken: make.counters("decisions_total", "Decisions in the journal.", &["decision"])?,
        })
    }
}

impl Rollback {
    fn new(make: &Make<'_>) -> prometheus::Result<Self> {
        Ok(Self {
            started: make.counters(
                "rollbacks_total",
                "Rollbacks in the journal, by what started them.",
                &["trigger"],
            )?,
            failures: make.counters(
                "rollback_failures_total",
                "Rungs in the journal that did not bring the application back.",
                &["rung"],
            )?,
            step_duration: make.histograms(
                "rollback_step_duration_seconds",
                "How long a step of a window took.",
                "step",
                STEP_BUCKETS,
            )?,
            duration: make.gauge(
                "rollback_duration_seconds",
                "How long the last rollback took until automation had come to its end; 0: none seen since the start.",
            )?,
            last_start: make.gauge(
                "rollback_last_start_timestamp_seconds",
                "When the last rollback started, in seconds since 1970; 0: none seen since the start.",
            )?,
            verified: make.whole(
                "recovery_verified",
                "1 when the recovery after the last rollback was verified; 0 while it is not, and when there was none.",
            )?,
            recovery_duration: make.gauge(
                "recovery_duration_seconds",
                "From the start of the last rollback to the verified recovery; 0: none seen since the start.",
            )?,
            check: make.gauges(
                "verification_result",
                "1 when the check passed the last time it ran, 0 when it failed; NaN: it has not run.",
                &["check"],
            )?,
        })
    }

    fn prepare(&self, plan: &Plan) {
        for trigger in Trigger::NAMES {
            self.started.with_label_values(&[trigger]);
        }
        for rung in &plan.rollback.rungs {
            self.failures.with_label_values(&[rung.method.kind()]);
        }
        for step in Step::NAMES {
            self.step_duration.with_label_values(&[step]);
        }
        for check in &plan.checks {
            self.check.with_label_values(&[&check.name]).set(f64::NAN);
        }
    }
}

impl Notices {
    fn new(make: &Make<'_>) -> prometheus::Result<Self> {
        Ok(Self {
            made: make.counters("notices_total", "Notices in the journal.", &["contact", "event"])?,
            attempts: make.counters("notice_attempts_total", "Tries to deliver a notice.", &["contact", "channel"])?,
            failures: make.counters(
                "notice_failures_total",
                "Tries to deliver a notice that failed.",
                &["contact", "channel", "reason"],
            )?,
            pending: make.whole("notices_pending", "Notices that are still owed on a channel.")?,
            oldest_pending: make.gauge(
                "notice_oldest_pending_timestamp_seconds",
                "When the oldest notice that is still owed was due, in seconds since 1970; 0: none is owed.",
            )?,
            dead_lettered: make
                .counter("notices_dead_lettered_total", "Deliveries in the journal that were given up on a channel.")?,
        })
    }
}

impl Tails {
    fn new(make: &Make<'_>) -> prometheus::Result<Self> {
        Ok(Self {
            lines: make.counters(
                "tail_lines_total",
                "Lines of a log that were read, whether they count or not.",
                &["signal"],
            )?,
            rotations: make
                .counter("tail_rotations_total", "Log files that were moved away or deleted, and followed.")?,
            truncations: make.counter("tail_truncations_total", "Log files that were cut, and begun anew.")?,
            dropped_bytes: make.counter(
                "tail_dropped_bytes_total",
                "Bytes that were written to logs and not looked at: the rests of long lines, and what was lost.",
            )?,
            lag_bytes: make.whole("tail_lag_bytes", "Bytes of logs that are still to be read.")?,
        })
    }
}
