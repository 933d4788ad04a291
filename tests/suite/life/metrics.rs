//! `/metrics` of a real daemon after a real rollback.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Stdio};

use super::{open, steps};
use crate::endings::BREAKING;
use crate::stage::{QUARANTINE, Stage, eventually, script, until};

/// Every name that dashboards rely on.
const NAMES: &str =
    "build_info config_hash config_pending config_last_reload_successful heartbeat_timestamp_seconds tasks journal_append_duration_seconds journal_errors_total
    window_state window_start_timestamp_seconds window_end_timestamp_seconds next_window_timestamp_seconds
    probe_success probe_attempts_total probe_failures_total probe_skipped_total probe_duration_seconds
    probe_schedule_delay_seconds probe_last_run_timestamp_seconds probe_consecutive_failures
    signal_error_ratio rule_state verdict decisions_total
    rollbacks_total rollback_failures_total rollback_step_duration_seconds rollback_duration_seconds
    rollback_last_start_timestamp_seconds recovery_verified recovery_duration_seconds verification_result
    notices_total notice_attempts_total notice_failures_total notices_pending notice_oldest_pending_timestamp_seconds
    notices_dead_lettered_total";

/// The samples of a text, by name and labels without `plan`.
struct Samples(BTreeMap<String, f64>);

impl Samples {
    fn of(stage: &Stage) -> Self {
        let (status, text) = stage.get("/metrics").expect("the daemon answers");
        assert_eq!(status, 200);
        let samples = text.lines().filter(|line| !line.starts_with('#')).map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            assert!(name.starts_with("rollbackd_") && name.contains("plan=\"shop\""), "{line}");
            let name = name.replace("plan=\"shop\",", "").replace(",plan=\"shop\"", "").replace("{plan=\"shop\"}", "");
            (name.trim_start_matches("rollbackd_").to_owned(), value.parse().unwrap())
        });
        Self(samples.collect())
    }

    #[track_caller]
    fn get(&self, name: &str) -> f64 {
        *self.0.get(name).unwrap_or_else(|| panic!("no {name} in {:#?}", self.0.keys()))
    }

    /// What the journal counts, which a restart does not change.
    fn counted(&self) -> BTreeMap<&str, f64> {
        let kept = [
            "rollbacks_total",
            "rollback_failures_total",
            "decisions_total",
            "notices_total",
            "window_state",
            "window_start",
            "window_end",
            "recovery_verified",
            "notices_dead_lettered_total",
            "config_hash",
        ];
        let kept = self.0.iter().filter(|(name, _)| kept.iter().any(|kept| name.starts_with(kept)));
        kept.map(|(name, value)| (name.as_str(), *value)).collect()
    }
}

fn promtool(text: &str) -> String {
    let mut child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool (Debian package prometheus)");
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    format!("{} {}{}", output.status, String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn a_real_rollback_is_counted_and_survives_a_restart() {
    let mut stage = Stage::new("metrics");
    let failing = stage.script("emergency.sh", "exit 3");
    stage.plan.rungs = script(&failing) + QUARANTINE;
    let migration = stage.migration(BREAKING);
    stage.plan.command(&migration);
    let daemon = stage.daemon();
    let (_, text) = stage.get("/metrics").unwrap();
    for name in NAMES.split_whitespace() {
        assert!(text.contains(&format!("# TYPE rollbackd_{name} ")), "{name} is there from the start");
    }
    let before = Samples::of(&stage);
    for zero in ["rollbacks_total{trigger=\"rule\"}", "window_state{state=\"recovered\"}", "recovery_verified"] {
        assert_eq!(before.get(zero).to_bits(), 0, "{zero}");
    }
    assert!(before.get("verification_result{check=\"auth\"}").is_nan());

    open(&stage);
    stage.wait_for_state("recovered");
    eventually("nothing is owed", || match stage.status().unwrap()["notices_pending"].as_u64() {
        Some(0) => Ok(()),
        left => Err(left),
    });
    // The last reading before the recovery met the closed gate; the next ones do not.
    until("the signal is read again", || {
        let now = Samples::of(&stage);
        now.get("probe_success{signal=\"api\"}") > 0.5 && now.get("verdict{state=\"healthy\"}") > 0.5
    });
    let after = Samples::of(&stage);
    let journal = stage.records();
    for (name, value) in [
        ("rollbacks_total{trigger=\"rule\"}", 1.0),
        ("rollbacks_total{trigger=\"operator\"}", 0.0),
        ("rollback_failures_total{rung=\"script\"}", 1.0),
        ("rollback_failures_total{rung=\"tables\"}", 0.0),
        ("decisions_total{decision=\"rollback\"}", 1.0),
        ("recovery_verified", 1.0),
        ("verification_result{check=\"tables\"}", 1.0),
        ("verification_result{check=\"integrity\"}", 1.0),
        ("verification_result{check=\"auth\"}", 1.0),
        ("verification_result{check=\"posts are served\"}", 1.0),
        ("window_state{state=\"recovered\"}", 1.0),
        ("window_state{state=\"rolling_back\"}", 0.0),
        ("notices_total{contact=\"Operations\",event=\"breach.detected\"}", 1.0),
        ("notices_total{contact=\"Operations\",event=\"rung.failed\"}", 1.0),
        ("notices_total{contact=\"Operations\",event=\"rollback.recovered\"}", 1.0),
        ("notices_pending", 0.0),
        ("notice_oldest_pending_timestamp_seconds", 0.0),
        ("notices_dead_lettered_total", 0.0),
        ("journal_errors_total", 0.0),
        ("rollback_step_duration_seconds_count{step=\"act\"}", 2.0),
        ("probe_success{signal=\"api\"}", 1.0),
        ("verdict{state=\"healthy\"}", 1.0),
    ] {
        assert_eq!(after.get(name).to_bits(), f64::to_bits(value), "{name}: {:?}", steps(&journal));
    }
    let opened = journal[0].at.as_duration().as_secs_f64();
    assert!((after.get("window_start_timestamp_seconds") - opened).abs() < 0.01);
    assert!(after.get("rollback_last_start_timestamp_seconds") > opened);
    let took = after.get("rollback_duration_seconds");
    assert!(took > 0.0 && (after.get("recovery_duration_seconds") - took).abs() < 0.01);
    assert!(after.get("notice_attempts_total{channel=\"webhook 1\",contact=\"Operations\"}") >= 5.0);
    assert!(after.get("probe_failures_total{reason=\"bad\",signal=\"api\"}") >= 3.0);
    assert!(
        after.get("probe_attempts_total{signal=\"api\"}")
            > after.get("probe_failures_total{reason=\"bad\",signal=\"api\"}")
    );
    assert!(after.get("journal_append_duration_seconds_count") >= 20.0);
    assert!(rollbackd::clock::now().as_duration().as_secs_f64() - after.get("heartbeat_timestamp_seconds") < 10.0);
    let said = promtool(&stage.get("/metrics").unwrap().1);
    assert!(said.trim_end() == "exit status: 0", "{said}");

    daemon.kill();
    let daemon = stage.daemon();
    assert_eq!(Samples::of(&stage).counted(), after.counted());
    daemon.term().expect(0);
}
