//! Records → who is owed which message.
//!
//! A notice is owed from the moment at which the record that causes it is durable: both are written in one
//! transaction. How a message looks in a mail or a webhook is the shell's business.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::plan::Severity;
use crate::run::state::Window;

pub(crate) mod compose;

/// The rung that waits for an approval, in a sentence, and what there is to know before it is given: as the notice says
/// it. `None` when no rung is tried.
pub fn approval(window: &Window) -> Option<(String, Vec<String>)> {
    window.rung_now().map(|(rung, _)| compose::approval_words(window, rung))
}

/// What a notice is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum NoticeEvent {
    /// A window opened.
    #[serde(rename = "window.opened")]
    WindowOpened,
    /// A preflight check failed.
    #[serde(rename = "window.refused")]
    WindowRefused,
    /// The migration is in and the application healthy.
    #[serde(rename = "window.passed")]
    WindowPassed,
    /// An operator gave the window up.
    #[serde(rename = "window.cancelled")]
    WindowCancelled,
    /// Signals cannot be read.
    #[serde(rename = "signal.blind")]
    SignalBlind,
    /// A rule asks people to look.
    #[serde(rename = "rule.page")]
    RulePage,
    /// The application is broken.
    #[serde(rename = "breach.detected")]
    BreachDetected,
    /// The rollback starts.
    #[serde(rename = "rollback.started")]
    RollbackStarted,
    /// A rung did not help.
    #[serde(rename = "rung.failed")]
    RungFailed,
    /// A rung waits for an operator's word.
    #[serde(rename = "approval.required")]
    ApprovalRequired,
    /// The application has recovered.
    #[serde(rename = "rollback.recovered")]
    RollbackRecovered,
    /// Automation has come to its end.
    #[serde(rename = "rollback.needs_operator")]
    RollbackNeedsOperator,
    /// A message could not be delivered to somebody else.
    #[serde(rename = "notice.undeliverable")]
    NoticeUndeliverable,
    /// A test.
    #[serde(rename = "notice.test")]
    NoticeTest,
}

impl NoticeEvent {
    /// Every event.
    pub const ALL: [Self; 14] = [
        Self::WindowOpened,
        Self::WindowRefused,
        Self::WindowPassed,
        Self::WindowCancelled,
        Self::SignalBlind,
        Self::RulePage,
        Self::BreachDetected,
        Self::RollbackStarted,
        Self::RungFailed,
        Self::ApprovalRequired,
        Self::RollbackRecovered,
        Self::RollbackNeedsOperator,
        Self::NoticeUndeliverable,
        Self::NoticeTest,
    ];

    /// The name in messages and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::WindowOpened => "window.opened",
            Self::WindowRefused => "window.refused",
            Self::WindowPassed => "window.passed",
            Self::WindowCancelled => "window.cancelled",
            Self::SignalBlind => "signal.blind",
            Self::RulePage => "rule.page",
            Self::BreachDetected => "breach.detected",
            Self::RollbackStarted => "rollback.started",
            Self::RungFailed => "rung.failed",
            Self::ApprovalRequired => "approval.required",
            Self::RollbackRecovered => "rollback.recovered",
            Self::RollbackNeedsOperator => "rollback.needs_operator",
            Self::NoticeUndeliverable => "notice.undeliverable",
            Self::NoticeTest => "notice.test",
        }
    }

    /// How urgent it is.
    pub const fn severity(self) -> Severity {
        match self {
            Self::WindowOpened | Self::WindowPassed | Self::NoticeTest => Severity::Info,
            Self::WindowRefused
            | Self::WindowCancelled
            | Self::SignalBlind
            | Self::RulePage
            | Self::NoticeUndeliverable => Severity::Warning,
            Self::BreachDetected
            | Self::RollbackStarted
            | Self::RungFailed
            | Self::ApprovalRequired
            | Self::RollbackRecovered
            | Self::RollbackNeedsOperator => Severity::Critical,
        }
    }

    /// The words of a mail's subject.
    pub const fn title(self) -> &'static str {
        match self {
            Self::WindowOpened => "window opened",
            Self::WindowRefused => "window refused, nothing was changed",
            Self::WindowPassed => "migration passed",
            Self::WindowCancelled => "window cancelled",
            Self::SignalBlind => "blind: the application cannot be seen",
            Self::RulePage => "a rule asks you to look",
            Self::BreachDetected => "breach detected",
            Self::RollbackStarted => "rollback started",
            Self::RungFailed => "a rollback method failed",
            Self::ApprovalRequired => "your approval is required",
            Self::RollbackRecovered => "recovered",
            Self::RollbackNeedsOperator => "needs an operator",
            Self::NoticeUndeliverable => "a notice could not be delivered",
            Self::NoticeTest => "test",
        }
    }
}

/// One message owed to one contact, on each of its channels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Notice {
    /// Stable over retries and restarts; unique.
    pub id: String,
    /// The contact's name.
    pub contact: String,
    /// The channels it is owed on.
    pub channels: Vec<String>,
    /// When it became owed.
    pub at: Timestamp,
    /// Not to be delivered before.
    pub not_before: Timestamp,
    /// Not worth delivering after.
    pub expires_at: Timestamp,
    /// What it says.
    pub message: Message,
}

/// What a notice says; the same for every contact.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// What it is about.
    pub event: NoticeEvent,
    /// How urgent it is.
    pub severity: Severity,
    /// The incident it belongs to: the window's id, or the notice's own for a test.
    pub incident_id: String,
    /// Its place among the incident's messages, from 1.
    pub sequence: u64,
    /// The plan.
    pub plan: String,
    /// The window, if there is one.
    pub window: Option<String>,
    /// The host that guards.
    pub host: String,
    /// The window's state when it was written.
    pub state: String,
    /// One sentence: what happened.
    pub summary: String,
    /// More sentences, each a line: what it rests on, what comes next, what to do.
    pub details: Vec<String>,
    /// The rule and numbers behind a breach.
    pub reason: Option<Reason>,
    /// Where to read on.
    pub links: MessageLinks,
}

/// The rule and numbers behind a breach.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reason {
    /// The rule.
    pub rule: String,
    /// Its signal.
    pub signal: String,
    /// What was observed.
    pub observed: f64,
    /// What is allowed.
    pub threshold: f64,
    /// The window that was looked at, in seconds.
    pub window_seconds: Option<f64>,
    /// Events behind the observation.
    pub samples: u64,
}

/// Where to read on.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MessageLinks {
    /// The window's report.
    pub report: Option<String>,
    /// The status.
    pub status: Option<String>,
    /// The team's runbook.
    pub runbook: Option<String>,
}
