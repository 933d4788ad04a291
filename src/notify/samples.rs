//! Notices as they are owed in practice, and a configuration to send them with, for tests.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rollbackd_core::notice::{Message, MessageLinks, Notice, NoticeEvent, Reason};
use rollbackd_core::plan::{Missed, OnCommandFailure, Severity};

use crate::config::model::{
    Address, Backup, Channel, Config, Contact, Database, Decision, Preflight, Rollback, Secret, Smtp, Tls, TlsMode,
    Window,
};

const WINDOW: &str = "shop-20261122T020000Z";

/// A notice of the window for `Operations`, on its first mail address and its first webhook.
pub(crate) fn notice(event: NoticeEvent, sequence: u64, state: &str, summary: &str, details: &[&str]) -> Notice {
    let at: Timestamp = "2026-11-22T02:14:05.120Z".parse().unwrap();
    Notice {
        id: format!("{WINDOW}.{sequence}.0"),
        contact: "Operations".into(),
        channels: vec!["email 1".into(), "webhook 1".into()],
        at,
        not_before: at,
        expires_at: at + SignedDuration::from_hours(24),
        message: Message {
            event,
            severity: event.severity(),
            incident_id: WINDOW.into(),
            sequence,
            plan: "shop".into(),
            window: Some(WINDOW.into()),
            host: "db1".into(),
            state: state.into(),
            summary: summary.into(),
            details: details.iter().map(|&line| line.to_owned()).collect(),
            reason: None,
            links: MessageLinks {
                report: Some(format!("http://127.0.0.1:9187/api/v1/windows/{WINDOW}/report")),
                status: Some("http://127.0.0.1:9187/".into()),
                runbook: Some("https://wiki.shop.example/runbooks/rollback".into()),
            },
        },
    }
}

/// Now, and for a day: for tests that deliver.
pub(crate) fn fresh(mut notice: Notice) -> Notice {
    notice.at = crate::clock::now();
    notice.not_before = notice.at;
    notice.expires_at = notice.at + SignedDuration::from_hours(24);
    notice
}

pub(crate) fn opened() -> Notice {
    notice(
        NoticeEvent::WindowOpened,
        1,
        "preparing",
        "The window of shop opened; it ends at 03:00:00 UTC at the latest.",
        &["The migration starts when the preflight checks have passed and the backup is read back."],
    )
}

pub(crate) fn breach() -> Notice {
    let mut notice = notice(
        NoticeEvent::BreachDetected,
        3,
        "rolling_back",
        "The application broke 3 min 12 s after the migration started: 31 % of requests failed.",
        &[
            "Rule \"error ratio\": 128 of 412 events of signal requests were bad in the last 60 s (31 %, allowed 5 %); \
             the last one because of status 503.",
            "Traffic is being stopped; the rollback tries 2 methods in order: script, tables.",
            "Class: lossy. 1,204 rows written to 14 new tables since the baseline leave the live schema; they are kept.",
        ],
    );
    notice.message.reason = Some(Reason {
        rule: "error ratio".into(),
        signal: "requests".into(),
        observed: 0.31,
        threshold: 0.05,
        window_seconds: Some(60.0),
        samples: 412,
    });
    notice
}

pub(crate) fn started() -> Notice {
    notice(
        NoticeEvent::RollbackStarted,
        4,
        "rolling_back",
        "The rollback of shop started; it has until 02:29:05 UTC.",
        &[
            "Traffic is stopped first (1 gate), then:",
            "1. script: node scripts/rollback-emergency.js",
            "2. tables: 14 named tables to quarantine",
            "Budget: 15m. You need not do anything now.",
        ],
    )
}

pub(crate) fn needs_operator() -> Notice {
    notice(
        NoticeEvent::RollbackNeedsOperator,
        7,
        "needs_operator",
        "An operator is needed: every rung of the ladder has failed; the last: still 14 tables added.",
        &[
            "Automation has come to its end. What to do now:",
            "-- 1. Traffic is left as it is. Check that nothing writes before you go on.",
            "--    Gate edge is closed; step 4 opens it (by hand: rm /run/shop/maintenance).",
            "-- 2. What is left of the migration:",
            "--    added: function public.touch_page()",
            "BEGIN;",
            "SET LOCAL lock_timeout = '2s';",
            "CREATE SCHEMA IF NOT EXISTS rollbackd_20261122t020000z;",
            "ALTER TABLE public.pages SET SCHEMA rollbackd_20261122t020000z;",
            "ALTER TABLE public.content_blocks SET SCHEMA rollbackd_20261122t020000z;",
            "ALTER TABLE public.page_templates SET SCHEMA rollbackd_20261122t020000z;",
            "COMMIT;",
            "-- 3. The original tables and their rows before the migration:",
            "SELECT count(*) FROM public.profiles;  -- was 1200",
            "SELECT count(*) FROM public.posts;  -- was 48211",
            "-- 4. When it is done, this verifies, resumes traffic and settles the window:",
            "--    rollbackd window resolved --reason '…'   (window shop-20261122T020000Z)",
            "`rollbackd ack` stops these repeated pages.",
        ],
    )
}

pub(crate) fn recovered() -> Notice {
    notice(
        NoticeEvent::RollbackRecovered,
        6,
        "recovered",
        "The application has recovered: rolled back by method tables, verified, traffic resumed 41 s after the breach.",
        &[
            "14 tables with 1,204 rows were moved to schema rollbackd_20261122t020000z; nothing was deleted.",
            "Verified: tables, integrity, auth, posts are served.",
            "To look at one of them:",
            "  psql -c 'select * from rollbackd_20261122t020000z.pages limit 10'",
        ],
    )
}

pub(crate) fn passed() -> Notice {
    notice(
        NoticeEvent::WindowPassed,
        2,
        "passed",
        "The migration of shop passed: the application stayed healthy for 10 min after it.",
        &["The backup is in /var/lib/shop/backups/pre-migration-20261122T020004Z (48 MB)."],
    )
}

pub(crate) fn test() -> Notice {
    let mut notice = notice(
        NoticeEvent::NoticeTest,
        1,
        "scheduled",
        "This is a test: nothing happened. You would be reached here.",
        &[],
    );
    notice.id = "test-20261122T021405Z.1.0".into();
    notice.message.incident_id = "test-20261122T021405Z".into();
    notice.message.window = None;
    notice.message.links = MessageLinks::default();
    notice
}

/// Text from outside that would like to be markup.
pub(crate) fn hostile() -> Notice {
    let mut notice = breach();
    notice.message.summary = "<script>alert('1')</script> & \"friends\"".into();
    notice.message.details = vec!["</pre><img src=x onerror=alert(1)>".into(), "  select '<b>' || \"a&b\";".into()];
    notice.message.plan = "<b>shop</b>".into();
    notice.message.links.runbook = Some("javascript:alert(1)//\" onclick=\"x".into());
    notice
}

pub(crate) fn all() -> Vec<Notice> {
    vec![opened(), breach(), started(), needs_operator(), recovered(), passed(), test(), hostile()]
}

/// A configuration whose only contact, `Operations`, has these channels; everything else is the least that is valid.
pub(crate) fn config(directory: &Path, channels: Vec<(String, Channel)>, smtp: Option<Smtp>) -> Config {
    Config {
        path: directory.join("shop.toml"),
        directory: directory.to_owned(),
        source: Arc::new(Secret::new("")),
        sha256: String::new(),
        veil: crate::config::veil::Veil::default(),
        name: "shop".into(),
        state_dir: directory.join("state"),
        database: Database {
            url: Address::new("postgres://shop@127.0.0.1:1/shop".parse().unwrap()),
            schema: "public".into(),
            original_tables: Vec::new(),
            original_schema_file: None,
            protected_schemas: Vec::new(),
            tls: Tls { mode: TlsMode::Disable, root_cert: None },
            connect_timeout: Duration::from_secs(1),
            statement_timeout: Duration::from_secs(1),
            lock_timeout: Duration::from_secs(1),
        },
        window: Window {
            schedule: None,
            timezone: jiff::tz::TimeZone::UTC,
            timezone_name: "UTC".into(),
            duration: Duration::from_secs(3600),
            soak: Duration::from_secs(60),
            missed: Missed::Skip,
            command: None,
            on_command_failure: OnCommandFailure::Rollback,
        },
        preflight: Preflight { healthy_for: Duration::ZERO, skip: Vec::new() },
        backup: Backup { directory: directory.join("backups"), schemas: Vec::new(), jobs: 1, keep: 1 },
        decision: Decision {
            confirm: Duration::ZERO,
            at_least: 1,
            blind_after: Duration::from_secs(60),
            witnesses: Vec::new(),
        },
        signals: Vec::new(),
        rules: Vec::new(),
        rollback: Rollback {
            budget: Duration::from_secs(900),
            approve_always: false,
            repeat_page: Duration::from_secs(900),
            grace: Duration::from_secs(5),
            gates: Vec::new(),
            rungs: Vec::new(),
        },
        checks: Vec::new(),
        contacts: vec![Contact {
            role: "system administrator".into(),
            name: "Operations".into(),
            severity: Severity::Info,
            after: Duration::ZERO,
            channels,
        }],
        smtp,
        http: None,
        heartbeat: None,
        runbook: None,
    }
}
