//! Old windows are let go: what is still known of their records, in one record that takes their place.
//!
//! Which windows are kept, and when the journal is made smaller, is the shell's business. Here is what must not be lost
//! with them: the state that the rest makes is the same, but for the windows that are gone from the history.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::record::{Entry, Record};
use super::state::{Counts, Ending, Owed, State};
use super::step::CheckResult;

/// What is still known of records that are gone.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Carried {
    /// How many windows were let go since the journal began.
    pub windows: u64,
    /// When the program first started with this journal.
    pub first_started_at: Option<Timestamp>,
    /// The last scheduled opening that was opened or left out.
    pub last_opening: Option<Timestamp>,
    /// The results of the verification of the last window that was rolled back.
    #[serde(default)]
    pub last_checks: Vec<CheckResult>,
    /// How it came that the last settled window ended as it did.
    #[serde(default)]
    pub last_ending: Option<Ending>,
    /// Notices that were still owed.
    #[serde(default)]
    pub owed: Vec<Owed>,
    /// What was counted.
    #[serde(default)]
    pub counts: Counts,
}

/// The entry that takes the place of all entries up to `last`, and has its place. `None` while a window is open there:
/// the records of a window stay together.
pub fn condensed<'a>(entries: impl IntoIterator<Item = &'a Entry>, last: u64) -> Option<Entry> {
    let mut state = State::default();
    let mut at = None;
    for entry in entries.into_iter().take_while(|entry| entry.seq <= last) {
        state.apply(entry);
        at = Some(entry.at);
    }
    let at = at.filter(|_| state.seq == last && state.window.is_none())?;
    Some(Entry { seq: last, at, window: None, record: Record::Condensed { carried: Box::new(state.carried()) } })
}

impl State {
    /// What is still to be known when every record so far is gone.
    fn carried(self) -> Carried {
        let windows = self.settled();
        // Every field by name: what is added to the state must be thought of here.
        let Self {
            seq: _,
            first_started_at,
            last_opening,
            window: _,
            history: _,
            let_go: _,
            last_checks,
            last_ending,
            owed,
            counts,
        } = self;
        Carried { windows, first_started_at, last_opening, last_checks, last_ending, owed, counts }
    }

    /// Takes up what is known of records that are gone.
    pub(super) fn take_up(&mut self, carried: &Carried) {
        let Carried { windows, first_started_at, last_opening, last_checks, last_ending, owed, counts } =
            carried.clone();
        *self = Self {
            seq: self.seq,
            first_started_at,
            last_opening,
            window: None,
            history: Vec::new(),
            let_go: windows,
            last_checks,
            last_ending,
            owed,
            counts,
        };
    }

    /// Forgets the windows that are no longer in the journal, which begins with this place now.
    pub fn forget_before(&mut self, first: u64) {
        let before = self.history.len();
        self.history.retain(|settled| settled.first_seq >= first);
        self.let_go += u64::try_from(before - self.history.len()).unwrap_or(0);
    }
}
