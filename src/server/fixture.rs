//! A plan, a configuration and snapshots for the tests of everything that shows them.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rollbackd_core::baseline::TableName;
use rollbackd_core::judge::{Assessment, Evidence, RuleState, RuleView, SignalView, Verdict};
use rollbackd_core::notice::{Message, MessageLinks, Notice, NoticeEvent};
use rollbackd_core::plan::{
    CheckPlan, Condition, Consequence, Contact, DatabasePlan, DecisionPlan, Dispose, Links, Method, Missed, OnBlocked,
    OnCommandFailure, Plan, Reach, Removal, RollbackPlan, Rule, Rung, Severity, SignalPlan, Stage, TableChoice,
    WindowPlan,
};
use rollbackd_core::run::record::{Origin, Trigger, WindowOutcome};
use rollbackd_core::run::state::{Attempt, Ending, InFlight, Owed, Phase, Proof, Rollback, Settled, State, Window};
use rollbackd_core::run::step::{CheckResult, Step};

use crate::config::model;
use crate::driver::snapshot::{Renewal, Snapshot};

/// The id of the open window.
pub(crate) const WINDOW: &str = "shop-20261122T020000Z";

/// A time of the story, `"02:14:05.12"` on its day.
pub(crate) fn at(clock: &str) -> Timestamp {
    format!("2026-11-22T{clock}Z").parse().expect("a time of day")
}

/// What is guarded.
pub(crate) fn plan() -> Plan {
    Plan {
        name: "shop".to_owned(),
        host: "db1".to_owned(),
        config_sha256: "0123456789abcdef".repeat(4),
        window: WindowPlan {
            schedule: Some("0 2 * * SAT".to_owned()),
            timezone: "Europe/Berlin".to_owned(),
            duration: SignedDuration::from_hours(1),
            soak: SignedDuration::from_mins(10),
            missed: Missed::Skip,
            command: None,
            on_command_failure: OnCommandFailure::Rollback,
        },
        database: DatabasePlan {
            schema: "public".to_owned(),
            original_tables: vec!["public.profiles".to_owned(), "public.posts".to_owned()],
            protected_schemas: vec!["auth".to_owned()],
        },
        healthy_for: SignedDuration::from_secs(30),
        preflight_skipped: Vec::new(),
        signals: ["api", "requests"].map(signal).to_vec(),
        rules: vec![Rule {
            name: "api is down".to_owned(),
            signals: vec!["api".to_owned()],
            condition: Condition::Consecutive { count: 3 },
            then: Consequence::Rollback,
        }],
        decision: DecisionPlan {
            confirm: SignedDuration::ZERO,
            at_least: 1,
            blind_after: SignedDuration::from_secs(60),
        },
        rollback: RollbackPlan {
            budget: SignedDuration::from_mins(15),
            approve_always: false,
            repeat_page: SignedDuration::from_mins(15),
            grace: SignedDuration::from_secs(10),
            gates: Vec::new(),
            rungs: rungs(),
        },
        checks: ["tables", "auth"]
            .map(|name| CheckPlan {
                name: name.to_owned(),
                kind: name.to_owned(),
                stage: Stage::Open,
                within: SignedDuration::from_secs(30),
            })
            .to_vec(),
        contacts: vec![Contact {
            role: "system administrator".to_owned(),
            name: "Operations".to_owned(),
            severity: Severity::Info,
            after: SignedDuration::ZERO,
            channels: vec!["email 1".to_owned(), "webhook 1".to_owned()],
        }],
        links: Links { base: None, runbook: None },
    }
}

fn signal(name: &str) -> SignalPlan {
    SignalPlan {
        name: name.to_owned(),
        every: SignedDuration::from_secs(5),
        timeout: SignedDuration::from_secs(3),
        implicates: Vec::new(),
    }
}

fn rungs() -> Vec<Rung> {
    let timeout = SignedDuration::from_mins(5);
    let removal = Removal {
        tables: TableChoice::Added,
        dispose: Dispose::Quarantine,
        on_blocked: OnBlocked::Wait,
        reach: Reach::Attached,
    };
    vec![
        Rung {
            timeout,
            needs_approval: false,
            method: Method::Script { command: vec!["node".to_owned()], idempotent: false },
        },
        Rung { timeout, needs_approval: true, method: Method::Tables(removal) },
    ]
}

/// Nothing has happened yet.
pub(crate) fn quiet(now: Timestamp) -> Snapshot {
    let view = |name: &str| SignalView {
        name: name.to_owned(),
        verdict: Verdict::Healthy,
        last_sample_at: Some(now),
        error_ratio: Some(0.0),
        consecutive_bad: 0,
        good_since: Some(now),
        reason: None,
    };
    Snapshot {
        at: now,
        plan: Arc::new(plan()),
        state: Arc::default(),
        assessment: Assessment {
            at: now,
            verdict: Verdict::Healthy,
            breached: Vec::new(),
            blind: Vec::new(),
            healthy_since: Some(now),
            unhealthy: Vec::new(),
            in_sight: true,
            levels: vec![],
        },
        signals: vec![view("api"), view("requests")],
        rules: vec![RuleView { name: "api is down".to_owned(), state: RuleState::Quiet, then: Consequence::Rollback }],
        next_window_at: Some("2026-11-28T01:00:00Z".parse().expect("a time")),
        ready: Ok(()),
        journal_error: None,
        renewal: Renewal::default(),
    }
}

/// The first rung is being tried.
pub(crate) fn rolling_back(now: Timestamp) -> Snapshot {
    let mut snapshot = quiet(now);
    let mut state = State { window: Some(window()), ..State::default() };
    state.counts.rollbacks.insert("rule".to_owned(), 1);
    state.counts.decisions.insert("rollback".to_owned(), 1);
    state.counts.notices.insert(("Operations".to_owned(), "rollback.started".to_owned()), 1);
    state.owed.push(Owed { notice: notice(), open: vec!["email 1".to_owned()], dead: Vec::new(), reached: false });
    snapshot.state = Arc::new(state);
    snapshot.assessment.verdict = Verdict::Breached;
    if let Some(api) = snapshot.signals.first_mut() {
        api.verdict = Verdict::Breached;
        api.consecutive_bad = 3;
        api.error_ratio = Some(0.25);
        api.reason = Some("answered 503 instead of 200 to 299".to_owned());
    }
    snapshot.rules.iter_mut().for_each(|rule| rule.state = RuleState::Breached);
    snapshot
}

/// Why it is rolled back.
pub(crate) fn trigger() -> Trigger {
    let sentence = "rule \"api is down\": 3 bad samples of signal api in a row (allowed: fewer than 3), since 02:13:55Z; \
                    last: answered 503 instead of 200 to 299";
    let evidence = Evidence {
        rule: "api is down".to_owned(),
        signal: "api".to_owned(),
        then: Consequence::Rollback,
        observed: 3.0,
        threshold: 3.0,
        window: None,
        samples: 3,
        last_reason: Some("answered 503 instead of 200 to 299".to_owned()),
        since: at("02:14:05.12"),
        at: at("02:14:05.12"),
        implicates: Vec::new(),
        sentence: sentence.to_owned(),
    };
    Trigger::Rules { evidence: vec![evidence] }
}

/// The migration runs, and all is well.
pub(crate) fn watching(now: Timestamp) -> Snapshot {
    let running = InFlight { number: 3, step: Step::Migrate, started_at: at("02:03:10"), ..in_flight() };
    let open = Window {
        phase: Phase::Watching,
        in_flight: vec![InFlight { deadline: at("03:00:00"), ..running }],
        verdict: Verdict::Healthy,
        rollback: None,
        checks: Vec::new(),
        ..window()
    };
    Snapshot { state: Arc::new(State { window: Some(open), ..State::default() }), ..quiet(now) }
}

/// The migration runs, and a rule begins to hold.
pub(crate) fn suspect(now: Timestamp) -> Snapshot {
    let mut snapshot = watching(now);
    snapshot.assessment.verdict = Verdict::Suspect;
    if let Some(api) = snapshot.signals.first_mut() {
        api.verdict = Verdict::Suspect;
        api.consecutive_bad = 2;
        api.error_ratio = Some(0.0167);
        api.reason = Some("answered 503 instead of 200 to 299".to_owned());
    }
    snapshot.rules.iter_mut().for_each(|rule| rule.state = RuleState::Suspect);
    snapshot
}

/// Every rung has failed.
pub(crate) fn needs_operator(now: Timestamp) -> Snapshot {
    let mut snapshot = rolling_back(now);
    let mut open = window();
    open.in_flight = Vec::new();
    open.phase = Phase::NeedsOperator {
        reason: "every rung failed: script: exit code 3; tables: public.pages is locked by backend 4711".to_owned(),
        manual: [
            "-- 1. Traffic is left as it is. Check that nothing writes before you go on.",
            "--    Gate edge is closed; step 4 opens it (by hand: rm /run/shop/maintenance).",
            "-- 2. What is left of the migration:",
            "BEGIN;",
            "SET LOCAL lock_timeout = '2s';",
            "CREATE SCHEMA IF NOT EXISTS \"rollbackd_20261122t020000z\";",
            "ALTER TABLE \"public\".\"pages\" SET SCHEMA \"rollbackd_20261122t020000z\";",
            "COMMIT;",
            "-- 3. The original tables and their rows before the migration:",
            "SELECT count(*) FROM \"public\".\"profiles\";  -- was 40",
        ]
        .map(str::to_owned)
        .to_vec(),
    };
    snapshot.state = Arc::new(State { window: Some(open), ..State::clone(&snapshot.state) });
    snapshot
}

/// The open window of [`rolling_back`].
pub(crate) fn window() -> Window {
    Window {
        id: WINDOW.to_owned(),
        origin: Origin::Schedule,
        plan: Arc::new(plan()),
        started_at: at("02:00:00"),
        ends_at: at("03:00:00"),
        first_seq: 2,
        phase: Phase::RollingBack,
        hold: None,
        last_step: 7,
        in_flight: vec![in_flight()],
        warmed_up: true,
        levels: Vec::new(),
        preflight: None,
        backup: None,
        baseline: None,
        backup_directory: None,
        migration: None,
        migration_ended: None,
        orphan: None,
        unending: None,
        interruptions: 0,
        verdict: Verdict::Breached,
        paging: Vec::new(),
        rollback: Some(Rollback {
            trigger: trigger(),
            started_at: at("02:14:05.12"),
            waited: SignedDuration::ZERO,
            waiting_since: None,
            approved: false,
            classified: None,
            gates: Vec::new(),
            attempts: vec![Attempt {
                rung: 0,
                before: None,
                rows: Vec::new(),
                way_back: Vec::new(),
                restore: Vec::new(),
                act: None,
                acts: 1,
                groups: 0,
                after: None,
                proof: Proof::default(),
                failure: None,
            }],
        }),
        checks: vec![check("tables", true), check("auth", false)],
        messages: 1,
        acknowledged: None,
        paged_at: None,
    }
}

fn in_flight() -> InFlight {
    InFlight {
        number: 7,
        step: Step::Act { rung: 0 },
        started_at: at("02:14:06"),
        deadline: at("02:19:06"),
        process: None,
    }
}

fn check(name: &str, passed: bool) -> CheckResult {
    CheckResult {
        name: name.to_owned(),
        kind: name.to_owned(),
        passed,
        detail: String::new(),
        took: SignedDuration::ZERO,
    }
}

fn notice() -> Notice {
    Notice {
        id: "n-1".to_owned(),
        contact: "Operations".to_owned(),
        channels: vec!["email 1".to_owned()],
        at: at("02:14:05"),
        not_before: at("02:14:05"),
        expires_at: at("23:14:05"),
        message: Message {
            event: NoticeEvent::RollbackStarted,
            severity: Severity::Critical,
            incident_id: WINDOW.to_owned(),
            sequence: 1,
            plan: "shop".to_owned(),
            window: Some(WINDOW.to_owned()),
            host: "db1".to_owned(),
            state: "rolling_back".to_owned(),
            summary: "the rollback starts".to_owned(),
            details: Vec::new(),
            reason: None,
            links: MessageLinks::default(),
        },
    }
}

/// The window is settled.
pub(crate) fn settled(now: Timestamp, outcome: WindowOutcome) -> Snapshot {
    let mut snapshot = quiet(now);
    let open = rolling_back(now);
    let mut state = State { counts: open.state.counts.clone(), ..State::default() };
    state.history = vec![
        Settled {
            id: "shop-20261115T020000Z".to_owned(),
            outcome: WindowOutcome::Passed,
            started_at: "2026-11-15T02:00:00Z".parse().expect("a time"),
            ended_at: "2026-11-15T02:20:00Z".parse().expect("a time"),
            first_seq: 2,
        },
        Settled {
            id: WINDOW.to_owned(),
            outcome,
            started_at: at("02:00:00"),
            ended_at: at("02:15:05.12"),
            first_seq: 40,
        },
    ];
    let (detail, rolled_back) = match outcome {
        WindowOutcome::Passed => ("the application stayed healthy for 10m after the migration", false),
        WindowOutcome::Refused => ("no room for a backup", false),
        WindowOutcome::Cancelled => ("cancelled by ana: not today", false),
        WindowOutcome::Recovered => ("rolled back by rung 1 (script) and verified", true),
        WindowOutcome::Abandoned => ("settled by ana by force: nothing was verified; traffic is resumed", true),
    };
    state.last_ending = Some(Ending {
        plan: Arc::new(plan()),
        detail: detail.to_owned(),
        rollback: rolled_back.then(|| (trigger(), at("02:14:05.12"))),
    });
    snapshot.state = Arc::new(state);
    snapshot
}

/// A configuration whose state is kept in `state_dir`.
pub(crate) fn config(state_dir: &Path, http: Option<model::Http>) -> model::Config {
    let url = |text: &str| model::Address::new(url::Url::parse(text).expect("a URL"));
    model::Config {
        path: state_dir.join("rollbackd.toml"),
        directory: state_dir.to_owned(),
        source: Arc::new(model::Secret::new("")),
        sha256: plan().config_sha256,
        veil: crate::config::veil::Veil::default(),
        name: "shop".to_owned(),
        state_dir: state_dir.to_owned(),
        database: model::Database {
            url: url("postgres://localhost/shop"),
            schema: "public".to_owned(),
            original_tables: vec![TableName::new("public", "profiles")],
            original_schema_file: None,
            protected_schemas: Vec::new(),
            tls: model::Tls { mode: model::TlsMode::Disable, root_cert: None },
            connect_timeout: Duration::from_secs(5),
            statement_timeout: Duration::from_secs(30),
            lock_timeout: Duration::from_millis(500),
        },
        window: model::Window {
            schedule: None,
            timezone: jiff::tz::TimeZone::UTC,
            timezone_name: "UTC".to_owned(),
            duration: Duration::from_secs(3600),
            soak: Duration::from_secs(600),
            missed: Missed::Skip,
            command: None,
            on_command_failure: OnCommandFailure::Rollback,
        },
        preflight: model::Preflight { healthy_for: Duration::from_secs(30), skip: Vec::new() },
        backup: model::Backup { directory: state_dir.join("backups"), schemas: Vec::new(), jobs: 1, keep: 1 },
        decision: model::Decision {
            confirm: Duration::ZERO,
            at_least: 1,
            blind_after: Duration::from_secs(60),
            witnesses: Vec::new(),
        },
        signals: Vec::new(),
        rules: Vec::new(),
        rollback: model::Rollback {
            budget: Duration::from_secs(900),
            approve_always: false,
            repeat_page: Duration::from_secs(900),
            grace: Duration::from_secs(10),
            gates: Vec::new(),
            rungs: Vec::new(),
        },
        checks: Vec::new(),
        contacts: Vec::new(),
        smtp: None,
        http,
        heartbeat: None,
        runbook: None,
    }
}
