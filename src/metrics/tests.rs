//! What a scrape holds, from the start and after every kind of event.

mod dashboards;
mod promtool;

use super::*;
use crate::server::fixture::{at, plan, quiet, rolling_back, settled};
use rollbackd_core::run::record::WindowOutcome;
use rollbackd_core::run::state::State;
use rollbackd_core::sample::Reading;
use std::sync::Arc;

/// A sample's name, labels in order, and value.
fn parts(sample: &str) -> (&str, Vec<&str>, &str) {
    let (name, rest) = sample.split_once('{').unwrap_or((sample, "} "));
    let (labels, value) = rest.rsplit_once("} ").expect("labels and a value");
    let mut labels: Vec<&str> = labels.trim_end_matches('"').split("\",").collect();
    labels.sort_unstable();
    (name, labels, value)
}

/// Whether the text holds this sample, whatever the order of its labels.
fn holds(text: &str, sample: &str) -> bool {
    text.lines().any(|line| !line.starts_with('#') && parts(line) == parts(sample))
}

#[track_caller]
fn assert_holds(metrics: &Metrics, samples: &[&str]) {
    let text = metrics.render();
    for sample in samples {
        assert!(holds(&text, sample), "`{sample}` is not in\n{text}");
    }
}

fn metrics() -> Metrics {
    Metrics::new(&plan()).expect("series")
}

#[test]
fn every_known_series_is_there_before_anything_happened() {
    assert_holds(
        &metrics(),
        &[
            concat!(r#"rollbackd_build_info{plan="shop",version=""#, env!("CARGO_PKG_VERSION"), r#""} 1"#),
            // 0x0123456789ab
            r#"rollbackd_config_hash{plan="shop"} 1250999896491"#,
            r#"rollbackd_config_pending{plan="shop"} 0"#,
            r#"rollbackd_config_last_reload_successful{plan="shop"} 1"#,
            r#"rollbackd_heartbeat_timestamp_seconds{plan="shop"} 0"#,
            r#"rollbackd_tasks{plan="shop"} 0"#,
            r#"rollbackd_journal_append_duration_seconds_count{plan="shop"} 0"#,
            r#"rollbackd_journal_errors_total{plan="shop"} 0"#,
            r#"rollbackd_heartbeat_pings_total{plan="shop",signal="start"} 0"#,
            r#"rollbackd_heartbeat_failures_total{plan="shop",signal="fail"} 0"#,
            r#"rollbackd_window_state{plan="shop",state="needs_operator"} 0"#,
            r#"rollbackd_window_start_timestamp_seconds{plan="shop"} 0"#,
            r#"rollbackd_window_end_timestamp_seconds{plan="shop"} 0"#,
            r#"rollbackd_next_window_timestamp_seconds{plan="shop"} 0"#,
            r#"rollbackd_probe_success{plan="shop",signal="requests"} 0"#,
            r#"rollbackd_probe_attempts_total{plan="shop",signal="api"} 0"#,
            r#"rollbackd_probe_failures_total{plan="shop",reason="unreadable",signal="api"} 0"#,
            r#"rollbackd_probe_failures_total{plan="shop",reason="bad",signal="requests"} 0"#,
            r#"rollbackd_probe_skipped_total{plan="shop",signal="api"} 0"#,
            r#"rollbackd_probe_duration_seconds_count{plan="shop",signal="api"} 0"#,
            r#"rollbackd_probe_schedule_delay_seconds_count{plan="shop"} 0"#,
            r#"rollbackd_probe_last_run_timestamp_seconds{plan="shop",signal="api"} 0"#,
            r#"rollbackd_probe_consecutive_failures{plan="shop",signal="api"} 0"#,
            r#"rollbackd_signal_error_ratio{plan="shop",signal="api"} NaN"#,
            r#"rollbackd_rule_state{plan="shop",rule="api is down",state="blind"} 0"#,
            r#"rollbackd_verdict{plan="shop",state="breached"} 0"#,
            r#"rollbackd_decisions_total{decision="refuse",plan="shop"} 0"#,
            r#"rollbackd_rollbacks_total{plan="shop",trigger="hard_end"} 0"#,
            r#"rollbackd_rollback_failures_total{plan="shop",rung="tables"} 0"#,
            r#"rollbackd_rollback_step_duration_seconds_count{plan="shop",step="verify_open"} 0"#,
            r#"rollbackd_rollback_duration_seconds{plan="shop"} 0"#,
            r#"rollbackd_rollback_last_start_timestamp_seconds{plan="shop"} 0"#,
            r#"rollbackd_recovery_verified{plan="shop"} 0"#,
            r#"rollbackd_recovery_duration_seconds{plan="shop"} 0"#,
            r#"rollbackd_verification_result{check="auth",plan="shop"} NaN"#,
            r#"rollbackd_notices_total{contact="Operations",event="notice.test",plan="shop"} 0"#,
            r#"rollbackd_notice_attempts_total{channel="webhook 1",contact="Operations",plan="shop"} 0"#,
            r#"rollbackd_notice_failures_total{channel="email 1",contact="Operations",plan="shop",reason="connect"} 0"#,
            r#"rollbackd_notices_pending{plan="shop"} 0"#,
            r#"rollbackd_notice_oldest_pending_timestamp_seconds{plan="shop"} 0"#,
            r#"rollbackd_notices_dead_lettered_total{plan="shop"} 0"#,
            r#"rollbackd_tail_rotations_total{plan="shop"} 0"#,
            r#"rollbackd_tail_truncations_total{plan="shop"} 0"#,
            r#"rollbackd_tail_dropped_bytes_total{plan="shop"} 0"#,
            r#"rollbackd_tail_lag_bytes{plan="shop"} 0"#,
        ],
    );
}

#[test]
fn http_readings_are_timed_by_part_and_their_certificates_are_shown() {
    let metrics = metrics();
    metrics.requests(["api"]);
    assert_holds(
        &metrics,
        &[
            r#"rollbackd_probe_phase_duration_seconds_count{plan="shop",signal="api",phase="connect"} 0"#,
            r#"rollbackd_probe_certificate_expiry_timestamp_seconds{plan="shop",signal="api"} 0"#,
        ],
    );
    let api = plan().signals.iter().position(|signal| signal.name == "api").unwrap();
    let phases = vec![("resolve", Duration::ZERO), ("connect", Duration::from_millis(20))];
    let expires = Some("2026-12-01T00:00:00Z".parse().unwrap());
    metrics.aside(api, &Aside { phases, certificate_expires: expires, tail: None });
    // A reading that saw no certificate takes nothing back.
    metrics.aside(api, &Aside::default());
    assert_holds(
        &metrics,
        &[
            r#"rollbackd_probe_phase_duration_seconds_count{plan="shop",signal="api",phase="connect"} 1"#,
            r#"rollbackd_probe_phase_duration_seconds_sum{plan="shop",signal="api",phase="connect"} 0.02"#,
            r#"rollbackd_probe_phase_duration_seconds_count{plan="shop",signal="api",phase="read"} 0"#,
            r#"rollbackd_probe_certificate_expiry_timestamp_seconds{plan="shop",signal="api"} 1796083200"#,
        ],
    );
}

#[test]
fn logs_are_counted_by_signal_and_their_lags_together() {
    let metrics = metrics();
    metrics.follows(["requests"]);
    assert_holds(&metrics, &[r#"rollbackd_tail_lines_total{plan="shop",signal="requests"} 0"#]);
    let tail = Tail { lines: 3, rotations: 1, truncations: 2, dropped_bytes: 10, lag_bytes: 7 };
    let aside = |tail: Tail| Aside { tail: Some(tail), ..Aside::default() };
    metrics.aside(0, &aside(tail));
    metrics.aside(1, &aside(tail));
    metrics.aside(1, &aside(Tail { lag_bytes: 1, ..tail }));
    metrics.aside(1, &Aside::default());
    metrics.aside(9, &aside(tail));
    assert_holds(
        &metrics,
        &[
            r#"rollbackd_tail_lines_total{plan="shop",signal="requests"} 6"#,
            r#"rollbackd_tail_lines_total{plan="shop",signal="api"} 3"#,
            r#"rollbackd_tail_rotations_total{plan="shop"} 3"#,
            r#"rollbackd_tail_truncations_total{plan="shop"} 6"#,
            r#"rollbackd_tail_dropped_bytes_total{plan="shop"} 30"#,
            r#"rollbackd_tail_lag_bytes{plan="shop"} 8"#,
        ],
    );
}

#[test]
fn readings_are_counted_where_they_belong() {
    let metrics = metrics();
    let mut sample =
        Sample { at: at("02:00:01.5"), took: SignedDuration::from_millis(20), reading: Reading::bad("503") };
    metrics.sampled(0, &sample, Duration::from_millis(2));
    sample.reading = Reading::unreadable("the name does not resolve");
    metrics.sampled(0, &sample, Duration::ZERO);
    metrics.skipped(0, 4);
    assert_holds(
        &metrics,
        &[
            r#"rollbackd_probe_attempts_total{plan="shop",signal="api"} 2"#,
            r#"rollbackd_probe_failures_total{plan="shop",reason="bad",signal="api"} 1"#,
            r#"rollbackd_probe_failures_total{plan="shop",reason="unreadable",signal="api"} 1"#,
            r#"rollbackd_probe_consecutive_failures{plan="shop",signal="api"} 2"#,
            r#"rollbackd_probe_last_run_timestamp_seconds{plan="shop",signal="api"} 1795312801.5"#,
            r#"rollbackd_probe_skipped_total{plan="shop",signal="api"} 4"#,
            r#"rollbackd_probe_attempts_total{plan="shop",signal="requests"} 0"#,
        ],
    );
    sample.reading = Reading::good();
    metrics.sampled(0, &sample, Duration::ZERO);
    assert_holds(
        &metrics,
        &[
            r#"rollbackd_probe_success{plan="shop",signal="api"} 1"#,
            r#"rollbackd_probe_consecutive_failures{plan="shop",signal="api"} 0"#,
        ],
    );
    // Of the many events of a log a few are bad on any day, and at night there may be none.
    for (good, bad, success) in [(990, 10, 1), (0, 0, 1), (0, 3, 0)] {
        sample.reading = Reading::Events { good, bad, value: None, reason: None };
        metrics.sampled(1, &sample, Duration::ZERO);
        let success = format!("rollbackd_probe_success{{plan=\"shop\",signal=\"requests\"}} {success}");
        assert_holds(&metrics, &[&success]);
    }
    assert_holds(&metrics, &[r#"rollbackd_probe_failures_total{plan="shop",reason="bad",signal="requests"} 1"#]);
    let before = metrics.render();
    metrics.sampled(9, &sample, Duration::ZERO);
    metrics.skipped(9, 1);
    assert_eq!(metrics.render(), before, "a signal that the plan does not know adds nothing");
}

#[test]
fn deliveries_appends_and_steps_are_counted() {
    let metrics = metrics();
    metrics.notice_attempted("Operations", "email 1", Some("connect"));
    metrics.notice_attempted("Operations", "email 1", None);
    metrics.appended(Duration::from_millis(3));
    metrics.journal_failed();
    metrics.step_ended("act", Duration::from_secs(4));
    assert_holds(
        &metrics,
        &[
            r#"rollbackd_notice_attempts_total{channel="email 1",contact="Operations",plan="shop"} 2"#,
            r#"rollbackd_notice_failures_total{channel="email 1",contact="Operations",plan="shop",reason="connect"} 1"#,
            r#"rollbackd_journal_append_duration_seconds_bucket{plan="shop",le="0.005"} 1"#,
            r#"rollbackd_journal_errors_total{plan="shop"} 1"#,
            r#"rollbackd_rollback_step_duration_seconds_sum{plan="shop",step="act"} 4"#,
        ],
    );
}

#[test]
fn a_rollback_is_followed_to_its_verified_end() {
    let metrics = metrics();
    metrics.observe(&quiet(at("01:59:00")));
    assert_holds(
        &metrics,
        &[
            r#"rollbackd_window_state{plan="shop",state="scheduled"} 1"#,
            r#"rollbackd_verdict{plan="shop",state="healthy"} 1"#,
            r#"rollbackd_next_window_timestamp_seconds{plan="shop"} 1795827600"#,
        ],
    );
    metrics.observe(&rolling_back(at("02:14:30")));
    assert_holds(
        &metrics,
        &[
            r#"rollbackd_heartbeat_timestamp_seconds{plan="shop"} 1795313670"#,
            r#"rollbackd_window_state{plan="shop",state="rolling_back"} 1"#,
            r#"rollbackd_window_state{plan="shop",state="scheduled"} 0"#,
            r#"rollbackd_rule_state{plan="shop",rule="api is down",state="breached"} 1"#,
            r#"rollbackd_rule_state{plan="shop",rule="api is down",state="quiet"} 0"#,
            r#"rollbackd_signal_error_ratio{plan="shop",signal="api"} 0.25"#,
            r#"rollbackd_rollbacks_total{plan="shop",trigger="rule"} 1"#,
            r#"rollbackd_decisions_total{decision="rollback",plan="shop"} 1"#,
            r#"rollbackd_rollback_last_start_timestamp_seconds{plan="shop"} 1795313645.12"#,
            r#"rollbackd_recovery_verified{plan="shop"} 0"#,
            r#"rollbackd_verification_result{check="tables",plan="shop"} 1"#,
            r#"rollbackd_verification_result{check="auth",plan="shop"} 0"#,
            r#"rollbackd_notices_total{contact="Operations",event="rollback.started",plan="shop"} 1"#,
            r#"rollbackd_notices_pending{plan="shop"} 1"#,
            r#"rollbackd_notice_oldest_pending_timestamp_seconds{plan="shop"} 1795313645"#,
        ],
    );
    metrics.observe(&settled(at("02:15:10"), WindowOutcome::Recovered));
    assert_holds(
        &metrics,
        &[
            r#"rollbackd_window_state{plan="shop",state="recovered"} 1"#,
            r#"rollbackd_recovery_verified{plan="shop"} 1"#,
            r#"rollbackd_recovery_duration_seconds{plan="shop"} 60"#,
            r#"rollbackd_rollback_duration_seconds{plan="shop"} 60"#,
            r#"rollbackd_verification_result{check="tables",plan="shop"} 1"#,
            r#"rollbackd_notices_pending{plan="shop"} 0"#,
        ],
    );
}

#[test]
fn an_abandoned_window_needs_nobody_and_is_not_verified() {
    let metrics = metrics();
    metrics.observe(&rolling_back(at("02:14:30")));
    metrics.observe(&settled(at("02:15:10"), WindowOutcome::Abandoned));
    assert_holds(
        &metrics,
        &[
            r#"rollbackd_window_state{plan="shop",state="cancelled"} 1"#,
            r#"rollbackd_window_state{plan="shop",state="needs_operator"} 0"#,
            r#"rollbackd_recovery_verified{plan="shop"} 0"#,
            r#"rollbackd_recovery_duration_seconds{plan="shop"} 0"#,
        ],
    );
}

#[test]
fn journal_derived_counters_survive_a_restart_and_follow_another_journal() {
    let (old, new) = (metrics(), metrics());
    let snapshot = settled(at("02:15:10"), WindowOutcome::Recovered);
    old.observe(&snapshot);
    old.observe(&snapshot);
    new.observe(&snapshot);
    let sample = r#"rollbackd_rollbacks_total{plan="shop",trigger="rule"} 1"#;
    assert_holds(&old, &[sample]);
    assert_holds(&new, &[sample, r#"rollbackd_recovery_verified{plan="shop"} 1"#]);

    let mut fewer = snapshot;
    let mut state = State::default();
    state.counts.rollbacks.insert("rule".to_owned(), 0);
    fewer.state = Arc::new(state);
    new.observe(&fewer);
    assert_holds(&new, &[r#"rollbackd_rollbacks_total{plan="shop",trigger="rule"} 0"#]);
}
