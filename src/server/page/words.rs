//! The headline: what is so, in the words that a tired person reads first.

use jiff::Timestamp;
use rollbackd_core::words::words;

use crate::server::routes::STALE_AFTER;
use crate::server::view::{Status, WindowStatus};

/// How bad it is. The order is that of urgency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Tone {
    /// All is well.
    Good,
    /// Something goes its way.
    Calm,
    /// Somebody should look.
    Caution,
    /// Somebody must know.
    Alarm,
}

impl Tone {
    /// The class in the style sheet.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Calm => "calm",
            Self::Caution => "caution",
            Self::Alarm => "alarm",
        }
    }

    /// What a word of the API stands for: a verdict, a state, an outcome.
    pub(super) fn of(word: &str) -> Self {
        match word {
            "healthy" | "quiet" | "passed" | "recovered" => Self::Good,
            "suspect" | "blind" | "held" | "cancelled" | "refused" => Self::Caution,
            "breached" | "rolling_back" | "verifying" | "needs_operator" => Self::Alarm,
            _ => Self::Calm,
        }
    }
}

/// The headline and what goes with it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// The tab's title: begins with the state.
    pub(super) title: String,
    /// The state in words.
    pub(super) state: &'static str,
    /// What it means.
    pub(super) lead: String,
    /// How bad it is.
    pub(super) tone: Tone,
    /// Whether a window is open.
    pub(super) open: bool,
    /// For how long nothing new has been heard of the driver, when that is too long.
    pub(super) stale: Option<String>,
}

impl Head {
    /// The headline of a status, seen at `now`.
    pub(super) fn of(status: &Status, now: Timestamp) -> Self {
        let age = now.duration_since(status.at);
        let unheard = (age > STALE_AFTER).then(|| words(age));
        let window = status.window.as_ref();
        let open = window.is_some_and(|window| window.ended_at.is_none());
        let (state, lead, own) = match window {
            None => ("No window yet", "Nothing has been guarded so far.".to_owned(), Tone::Calm),
            Some(window) if open => under_way(status, window),
            Some(window) => ended(window),
        };
        // In a rollback the application is expected to be down.
        let telling = own < Tone::Alarm && status.verdict != "healthy";
        let state_in_title = if telling { format!("{state}, {}", status.verdict) } else { state.to_owned() };
        let mut tone = own.max(Tone::of(&status.verdict));
        if unheard.is_some() || !status.ready.ok {
            tone = tone.max(if open { Tone::Alarm } else { Tone::Caution });
        }
        if status.configuration.as_ref().is_some_and(|configuration| configuration.refused.is_some()) {
            tone = tone.max(Tone::Caution);
        }
        Self {
            title: format!("{state_in_title} · {} · rollbackd", status.plan),
            state,
            lead,
            tone,
            open,
            stale: unheard,
        }
    }
}

/// The words for an open window.
fn under_way(status: &Status, window: &WindowStatus) -> (&'static str, String, Tone) {
    let (state, lead, tone) = match window.state.as_str() {
        _ if status.approval.is_some() => {
            ("Waits for approval", "The rollback goes on when somebody says yes or no.", Tone::Alarm)
        }
        "needs_operator" => (
            "Needs an operator",
            "Automation has come to its end. Nothing more happens until somebody acts.",
            Tone::Alarm,
        ),
        _ if status.operator.is_some() => {
            ("Verifying", "Somebody said that it is dealt with; the checks decide.", Tone::Alarm)
        }
        "preparing" => {
            ("Preparing", "Checks, a backup and the baseline come first. The migration has not started.", Tone::Calm)
        }
        "watching" => ("Watching", "The migration runs. If it breaks the application, it is taken back.", Tone::Good),
        "soaking" => ("Soaking", "The migration has ended. The application must stay healthy for a while.", Tone::Good),
        "held" => ("Decisions are held", "No rollback starts, and the window does not pass.", Tone::Caution),
        "rolling_back" => ("Rolling back", "The migration is being taken back.", Tone::Alarm),
        "verifying" => (
            "Verifying",
            "The migration was taken back; the checks decide whether the application has recovered.",
            Tone::Alarm,
        ),
        _ => ("A window is open", "", Tone::Calm),
    };
    (state, lead.to_owned(), tone)
}

/// The words for a window that is settled.
fn ended(window: &WindowStatus) -> (&'static str, String, Tone) {
    let (state, tone) = match window.outcome.as_deref() {
        Some("passed") => ("Passed", Tone::Good),
        Some("recovered") => ("Recovered", Tone::Good),
        Some("refused") => ("Refused", Tone::Caution),
        Some("cancelled") => ("Cancelled", Tone::Caution),
        // An operator has ended it by force.
        Some("needs_operator") => ("Ended unverified", Tone::Caution),
        _ => ("Ended", Tone::Calm),
    };
    (state, window.detail.clone().unwrap_or_default(), tone)
}
