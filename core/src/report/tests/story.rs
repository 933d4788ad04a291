//! Records by hand, in the order and at the pace of a real window.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use crate::baseline::{Baseline, Catalog, Difference, ObjectId, ObjectKind};
use crate::judge::Evidence;
use crate::notice::{Message, MessageLinks, Notice, NoticeEvent};
use crate::plan::{
    Consequence, Contact, DatabasePlan, DecisionPlan, Dispose, GatePlan, Links, Method, Missed, OnBlocked,
    OnCommandFailure, Plan, Reach, Removal, RollbackPlan, Rung, Severity, TableChoice, WindowPlan,
};
use crate::report::{Report, of};
use crate::run::record::{Entry, Origin, Record, WindowOutcome};
use crate::run::step::{CheckResult, Finding, Outcome, Step};

const ID: &str = "shop-20261122T020000Z";

const fn secs(seconds: i64) -> SignedDuration {
    SignedDuration::from_secs(seconds)
}

/// So many milliseconds after the opening.
pub(super) fn at(millis: i64) -> Timestamp {
    Timestamp::from_millisecond(1_795_312_800_000 + millis).expect("in range")
}

/// The runbook's plan.
pub(super) fn shop() -> Plan {
    let contact = |role: &str, name: &str, channels: &[&str]| Contact {
        role: role.to_owned(),
        name: name.to_owned(),
        severity: Severity::Info,
        after: SignedDuration::ZERO,
        channels: channels.iter().map(|&channel| channel.to_owned()).collect(),
    };
    let rung = |method| Rung { timeout: secs(300), needs_approval: false, method };
    Plan {
        name: "shop".to_owned(),
        host: "db1".to_owned(),
        config_sha256: "9f2c".to_owned(),
        window: WindowPlan {
            schedule: Some("0 2 * * SUN".to_owned()),
            timezone: "UTC".to_owned(),
            duration: secs(3600),
            soak: secs(600),
            missed: Missed::Skip,
            command: Some(["supabase", "db", "push"].map(str::to_owned).to_vec()),
            on_command_failure: OnCommandFailure::Rollback,
        },
        database: DatabasePlan {
            schema: "public".to_owned(),
            original_tables: ["profiles", "posts", "comments"].map(str::to_owned).to_vec(),
            protected_schemas: vec!["auth".to_owned()],
        },
        healthy_for: secs(30),
        preflight_skipped: vec![],
        signals: vec![],
        rules: vec![],
        decision: DecisionPlan { confirm: SignedDuration::ZERO, at_least: 1, blind_after: secs(60) },
        rollback: RollbackPlan {
            budget: secs(900),
            approve_always: false,
            repeat_page: secs(900),
            grace: secs(5),
            gates: vec![GatePlan {
                name: "edge".to_owned(),
                required: false,
                manual_stop: "touch /run/shop/maintenance".to_owned(),
                manual_start: "rm /run/shop/maintenance".to_owned(),
            }],
            rungs: vec![
                rung(Method::Script {
                    command: ["node", "scripts/rollback-emergency.js"].map(str::to_owned).to_vec(),
                    idempotent: false,
                }),
                rung(Method::Tables(Removal {
                    tables: TableChoice::Named(
                        ["pages", "content_blocks", "user_sessions"].map(str::to_owned).to_vec(),
                    ),
                    dispose: Dispose::Quarantine,
                    on_blocked: OnBlocked::Wait,
                    reach: Reach::Attached,
                })),
            ],
        },
        checks: vec![],
        contacts: vec![
            contact("system administrator", "Operations", &["email 1"]),
            contact("database administrator", "DB on call", &["webhook 1", "email 1"]),
        ],
        links: Links::default(),
    }
}

/// A window's records so far.
#[derive(Clone)]
pub(super) struct Story {
    pub(super) entries: Vec<Entry>,
    now: i64,
    steps: u64,
    notices: u64,
}

impl Story {
    pub(super) fn open(plan: Plan, origin: Origin) -> Self {
        let mut story = Self { entries: vec![], now: 0, steps: 0, notices: 0 };
        let opening = (origin == Origin::Schedule).then(|| at(0));
        let plan = Arc::new(plan);
        story.record(Record::WindowOpened { id: ID.to_owned(), origin, opening, ends_at: at(3_600_000), plan });
        story
    }

    pub(super) fn record(&mut self, record: Record) {
        let seq = 100 + self.entries.len() as u64;
        self.entries.push(Entry { seq, at: at(self.now), window: Some(ID.to_owned()), record });
    }

    pub(super) fn wait(&mut self, millis: i64) {
        self.now += millis;
    }

    pub(super) fn step(&mut self, step: Step, millis: i64, outcome: Outcome) {
        self.steps += 1;
        let number = self.steps;
        self.record(Record::StepStarted { number, step, deadline: at(self.now + 300_000) });
        self.wait(millis);
        self.record(Record::StepEnded { number, outcome });
    }

    pub(super) fn backup(&mut self) {
        let baseline = Arc::new(Baseline {
            format: Baseline::FORMAT,
            at: at(self.now),
            server_version: "15.18".to_owned(),
            catalog: Catalog::default(),
            identities: Vec::new(),
            prints: Vec::new(),
            counts: vec![],
        });
        let directory = "/srv/shop/backups/pre-migration-20261122T020033Z".to_owned();
        self.step(
            Step::Backup,
            21_400,
            Outcome::succeeded(
                "498.2 MB, read back; 3 tables with 491632 rows",
                Finding::Backup { directory, bytes: 498_231_044, baseline },
            ),
        );
    }

    pub(super) fn settle(&mut self, outcome: WindowOutcome, detail: &str) {
        self.record(Record::WindowSettled { outcome, detail: detail.to_owned() });
    }

    pub(super) fn notice(&mut self, event: NoticeEvent, contact: &str, summary: &str) {
        self.notices += 1;
        let plan = shop();
        let channels = plan.contacts.iter().find(|known| known.name == contact).expect("a contact").channels.clone();
        let notice = Notice {
            id: format!("{ID}-{}", self.notices),
            contact: contact.to_owned(),
            channels,
            at: at(self.now),
            not_before: at(self.now),
            expires_at: at(self.now + 86_400_000),
            message: Message {
                event,
                severity: event.severity(),
                incident_id: ID.to_owned(),
                sequence: self.notices,
                plan: "shop".to_owned(),
                window: Some(ID.to_owned()),
                host: "db1".to_owned(),
                state: String::new(),
                summary: summary.to_owned(),
                details: vec![],
                reason: None,
                links: MessageLinks::default(),
            },
        };
        self.record(Record::NoticeOwed { notice });
    }

    pub(super) fn delivered(&mut self, notice: u64, channel: &str, millis: i64) {
        self.wait(millis);
        self.record(Record::NoticeDelivered { notice: format!("{ID}-{notice}"), channel: channel.to_owned() });
    }

    pub(super) fn report(&self) -> Report {
        of(&self.entries).expect("the window has opened")
    }
}

pub(super) fn check(name: &str, kind: &str, result: Result<&str, &str>) -> CheckResult {
    CheckResult {
        name: name.to_owned(),
        kind: kind.to_owned(),
        passed: result.is_ok(),
        detail: result.unwrap_or_else(|detail| detail).to_owned(),
        took: SignedDuration::from_millis(120),
    }
}

pub(super) fn evidence(story: &Story) -> Evidence {
    Evidence {
        rule: "api is down".to_owned(),
        signal: "api".to_owned(),
        then: Consequence::Rollback,
        observed: 3.0,
        threshold: 3.0,
        window: None,
        samples: 3,
        last_reason: Some("status 503".to_owned()),
        since: at(story.now),
        at: at(story.now),
        implicates: vec![],
        sentence:
            "rule \"api is down\": 3 bad samples of signal api in a row (allowed: fewer than 3), since 02:05:43Z; \
                   last: status 503"
                .to_owned(),
    }
}

pub(super) fn difference(tables: &[&str]) -> Difference {
    let added = |&name: &&str| ObjectId {
        kind: ObjectKind::Table,
        schema: "public".to_owned(),
        of: None,
        name: name.to_owned(),
    };
    Difference { added: tables.iter().map(added).collect(), ..Difference::default() }
}

pub(super) fn seen(difference: &Difference) -> Outcome {
    Outcome::succeeded(
        difference.summary(),
        Finding::Difference {
            difference: difference.clone(),
            rows: Vec::new(),
            way_back: Vec::new(),
            restore: Vec::new(),
        },
    )
}

pub(super) fn script_failed() -> Outcome {
    Outcome::failed("exit code 1").with(Finding::Process {
        exit_code: Some(1),
        output: "dropping public.pages\nerror: permission denied for table `pages`\n```\n".to_owned(),
        output_file: Some("/var/lib/rollbackd/shop/output/shop-20261122T020000Z-8.log".to_owned()),
    })
}
