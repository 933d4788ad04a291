//! A journal in memory that fails, hangs, or says that it has failed when it has not.

use std::sync::{Arc, Condvar, Mutex};

use rollbackd_core::run::record::{Entry, Record};
use rollbackd_core::run::step::Step;

use crate::journal::memory::MemoryJournal;
use crate::journal::{AppendError, Journal, ReadError};

/// How the next appends go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Works,
    Fails,
    /// Writes, and says that it could not; once.
    WritesAndFails,
    /// Does not come back until the mode changes, then works.
    Hangs,
}

/// A record, and the mode from it on.
type Turn = (fn(&Record) -> bool, Mode);

#[derive(Default)]
pub(super) struct TestJournal {
    entries: MemoryJournal,
    mode: Mutex<Option<Mode>>,
    changed: Condvar,
    turn: Mutex<Option<Turn>>,
}

impl TestJournal {
    pub(super) fn set(&self, mode: Mode) {
        *self.mode.lock().unwrap() = Some(mode);
        self.changed.notify_all();
    }

    /// Changes the mode right before a record like this is written.
    pub(super) fn set_at(&self, record: fn(&Record) -> bool, mode: Mode) {
        *self.turn.lock().unwrap() = Some((record, mode));
    }

    pub(super) fn mode(&self) -> Mode {
        self.mode.lock().unwrap().unwrap_or(Mode::Works)
    }

    pub(super) fn entries(&self) -> Vec<Entry> {
        self.entries.read_from(1).unwrap()
    }

    pub(super) fn records(&self) -> Vec<Record> {
        self.entries().into_iter().map(|entry| entry.record).collect()
    }

    /// Whether a step's start is durable, and its end is not.
    pub(super) fn in_flight(&self, window: &str, number: u64) -> bool {
        let of = |entry: &&Entry| entry.window.as_deref() == Some(window);
        let entries = self.entries();
        let started = |entry: &Entry| matches!(&entry.record, Record::StepStarted { number: n, .. } if *n == number);
        let ended = |entry: &Entry| matches!(&entry.record, Record::StepEnded { number: n, .. } if *n == number);
        entries.iter().filter(of).any(started) && !entries.iter().filter(of).any(ended)
    }

    /// The names of the steps started, in order.
    pub(super) fn started(&self) -> Vec<&'static str> {
        let name = |step: &Step| step.name();
        self.records()
            .iter()
            .filter_map(|record| if let Record::StepStarted { step, .. } = record { Some(name(step)) } else { None })
            .collect()
    }
}

impl Journal for TestJournal {
    fn append(&self, entries: &[Entry]) -> Result<(), AppendError> {
        let turn = *self.turn.lock().unwrap();
        if let Some((wanted, mode)) = turn
            && entries.iter().any(|entry| wanted(&entry.record))
        {
            *self.turn.lock().unwrap() = None;
            self.set(mode);
        }
        let failed = || AppendError::Storage { reason: "no space left on device".to_owned() };
        match self.mode() {
            Mode::Works => self.entries.append(entries),
            Mode::Fails => Err(failed()),
            Mode::WritesAndFails => {
                self.set(Mode::Works);
                self.entries.append(entries)?;
                Err(failed())
            }
            Mode::Hangs => {
                let mode = self.mode.lock().unwrap();
                drop(self.changed.wait_while(mode, |mode| *mode == Some(Mode::Hangs)).unwrap());
                self.entries.append(entries)
            }
        }
    }

    fn read_from(&self, seq: u64) -> Result<Vec<Entry>, ReadError> {
        if self.mode() == Mode::Fails {
            return Err(ReadError::Storage { reason: "no space left on device".to_owned() });
        }
        self.entries.read_from(seq)
    }

    fn condense(&self, condensed: &Entry) -> Result<(), AppendError> {
        self.entries.condense(condensed)
    }
}

/// Lets a hanging append go on when a test ends, so that its runtime can end too.
pub(super) struct Release(pub(super) Arc<TestJournal>);

impl Drop for Release {
    fn drop(&mut self) {
        self.0.set(Mode::Works);
    }
}
