//! A journal that fails at random, and looks at every record that is written.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::Duration;

use rand::Rng as _;
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;
use rollbackd_core::plan::Method;
use rollbackd_core::run::record::{Entry, Record, Trigger, WindowOutcome};
use rollbackd_core::run::state::State;
use rollbackd_core::run::step::Step;
use tokio::time::Instant;

use crate::journal::memory::MemoryJournal;
use crate::journal::{AppendError, Journal, ReadError};

/// The journal, what its records make, and what was wrong with them.
pub(super) struct Auditor {
    entries: MemoryJournal,
    inner: Mutex<Inner>,
}

struct Inner {
    rng: ChaCha8Rng,
    /// The share of appends that fail.
    failing: f64,
    failures: u64,
    state: State,
    seen: Seen,
    wrong: Vec<String>,
}

/// What has been in the journal so far.
#[derive(Default)]
struct Seen {
    settled: BTreeSet<String>,
    rollbacks: BTreeSet<String>,
    migrations: BTreeSet<String>,
    /// Scripts that may not be run twice, by window and rung.
    scripts: BTreeSet<(String, usize)>,
    openings: BTreeSet<jiff::Timestamp>,
    /// Notices that are owed, with the channels that have an end.
    notices: BTreeMap<String, BTreeSet<String>>,
    /// Whether a sample was bad since the window opened.
    sick: bool,
    /// The window whose last word is that an operator is needed.
    stopped: Option<String>,
    /// Since when the window soaks, on a clock that nobody sets.
    soaks_since: Option<Instant>,
}

impl Auditor {
    pub(super) fn new(seed: u64, failing: f64) -> Self {
        let inner = Inner {
            rng: ChaCha8Rng::seed_from_u64(seed),
            failing,
            failures: 0,
            state: State::default(),
            seen: Seen::default(),
            wrong: Vec::new(),
        };
        Self { entries: MemoryJournal::default(), inner: Mutex::new(inner) }
    }

    pub(super) fn entries(&self) -> Vec<Entry> {
        self.entries.read_from(1).unwrap()
    }

    /// What the records make.
    pub(super) fn state(&self) -> State {
        self.inner.lock().unwrap().state.clone()
    }

    /// From now on every append succeeds.
    pub(super) fn calm(&self) {
        self.inner.lock().unwrap().failing = 0.0;
    }

    /// A bad sample was made.
    pub(super) fn saw_bad(&self) {
        self.inner.lock().unwrap().seen.sick = true;
    }

    pub(super) fn failures(&self) -> u64 {
        self.inner.lock().unwrap().failures
    }

    /// What was wrong, so far.
    pub(super) fn wrong(&self) -> Vec<String> {
        self.inner.lock().unwrap().wrong.clone()
    }

    /// Whether a step's start is durable, and its end is not.
    pub(super) fn in_flight(&self, window: &str, number: u64) -> bool {
        self.inner.lock().unwrap().state.step(window, number).is_some()
    }
}

impl Inner {
    fn take(&mut self, entry: &Entry) {
        let window = entry.window.clone().unwrap_or_default();
        if let Err(wrong) = self.seen.look(entry, &window, &self.state) {
            self.wrong.push(format!("{wrong}: {} {:?}", entry.seq, entry.record));
        }
        self.state.apply(entry);
    }
}

impl Seen {
    /// Looks at a record that follows those seen, on the state that they made.
    fn look(&mut self, entry: &Entry, window: &str, state: &State) -> Result<(), &'static str> {
        if entry.seq != state.seq + 1 {
            return Err("a gap");
        }
        let may_follow = matches!(
            entry.record,
            Record::NoticeOwed { .. }
                | Record::NoticeDelivered { .. }
                | Record::NoticeDead { .. }
                | Record::NoticeCancelled { .. }
                // Of a settled window's escalations.
                | Record::Acknowledged { .. }
        );
        if !may_follow && self.settled.contains(window) {
            return Err("the window is settled");
        }
        match &entry.record {
            Record::WindowOpened { opening, .. } => {
                self.sick = false;
                let new = opening.is_none_or(|opening| self.openings.insert(opening));
                if new { Ok(()) } else { Err("an opening opened twice") }
            }
            Record::StepStarted { step, .. } => self.step(step, window, state),
            Record::BreachDetected { trigger } => {
                if !self.rollbacks.insert(window.to_owned()) {
                    return Err("a second rollback");
                }
                let rules = matches!(trigger, Trigger::Rules { .. });
                if rules && !self.sick { Err("nothing bad was seen") } else { Ok(()) }
            }
            Record::OperatorNeeded { manual, .. } => {
                self.stopped = Some(window.to_owned());
                if manual.is_empty() { Err("an operator is not told what to do") } else { Ok(()) }
            }
            Record::ResolutionStarted { .. } => {
                self.stopped = None;
                Ok(())
            }
            Record::WindowSettled { outcome, .. } => {
                self.settled.insert(window.to_owned());
                self.stopped = None;
                let rolled_back = self.rollbacks.contains(window);
                let migrated = self.migrations.contains(window);
                match outcome {
                    WindowOutcome::Passed if rolled_back => Err("passed after a rollback"),
                    WindowOutcome::Passed if !self.soaked(state) => Err("passed without its whole soak"),
                    WindowOutcome::Refused if migrated => Err("refused after the migration had begun"),
                    WindowOutcome::Recovered if !rolled_back => Err("recovered without a rollback"),
                    WindowOutcome::Passed
                    | WindowOutcome::Refused
                    | WindowOutcome::Recovered
                    | WindowOutcome::Cancelled
                    | WindowOutcome::Abandoned => Ok(()),
                }
            }
            Record::MigrationFinished { .. } => {
                self.soaks_since = Some(Instant::now());
                Ok(())
            }
            // Nobody looked while the program was down.
            Record::Started { .. } => {
                self.soaks_since = self.soaks_since.map(|_| Instant::now());
                Ok(())
            }
            Record::NoticeOwed { notice } => {
                let new = self.notices.insert(notice.id.clone(), BTreeSet::new()).is_none();
                if new { Ok(()) } else { Err("two notices of one id") }
            }
            Record::NoticeDelivered { notice, channel } | Record::NoticeDead { notice, channel, .. } => {
                let Some(ended) = self.notices.get_mut(notice) else { return Err("a delivery of nothing") };
                if ended.insert(channel.clone()) { Ok(()) } else { Err("a delivery ended twice") }
            }
            Record::Condensed { .. }
            | Record::OpeningMissed { .. }
            | Record::ClockMoved { .. }
            | Record::ProcessStarted { .. }
            | Record::StepEnded { .. }
            | Record::WarmedUp { .. }
            | Record::VerdictChanged { .. }
            | Record::RulePaged { .. }
            | Record::RuleQuieted { .. }
            | Record::HoldStarted { .. }
            | Record::HoldEnded { .. }
            | Record::Classified { .. }
            | Record::RungStarted { .. }
            | Record::ApprovalRequested { .. }
            | Record::ApprovalGiven { .. }
            | Record::RungFailed { .. }
            | Record::ResolutionFailed { .. }
            | Record::Acknowledged { .. }
            | Record::PageRepeated
            | Record::NoticeCancelled { .. } => Ok(()),
        }
    }

    /// Whether the window has soaked for as long as was configured.
    fn soaked(&self, state: &State) -> bool {
        let soak = state.window.as_ref().map(|window| window.plan.window.soak).unwrap_or_default();
        // Steps of milliseconds are not taken for any.
        let whole = Duration::try_from(soak).unwrap_or_default().saturating_sub(Duration::from_millis(100));
        self.soaks_since.is_some_and(|since| since.elapsed() >= whole)
    }

    fn step(&mut self, step: &Step, window: &str, state: &State) -> Result<(), &'static str> {
        match step {
            Step::Migrate if !self.migrations.insert(window.to_owned()) => Err("the migration runs twice"),
            Step::Act { .. } if self.stopped.as_deref() == Some(window) => Err("automation had come to its end"),
            Step::Act { rung } => {
                let Some(open) = &state.window else { return Err("a step without a window") };
                if !open.in_flight.is_empty() || open.orphan.is_some() {
                    return Err("something else still runs");
                }
                let once = matches!(
                    open.plan.rollback.rungs.get(*rung).map(|rung| &rung.method),
                    Some(Method::Script { idempotent: false, .. })
                );
                if once && !self.scripts.insert((window.to_owned(), *rung)) {
                    return Err("a script runs twice that may not");
                }
                Ok(())
            }
            Step::Preflight
            | Step::Backup
            | Step::Migrate
            | Step::EndProcess { .. }
            | Step::AwaitProcess { .. }
            | Step::ReadGate { .. }
            | Step::CloseGate { .. }
            | Step::OpenGate { .. }
            | Step::Inspect { .. }
            | Step::Verify { .. } => Ok(()),
        }
    }
}

impl Journal for Auditor {
    fn append(&self, entries: &[Entry]) -> Result<(), AppendError> {
        let mut inner = self.inner.lock().unwrap();
        let failing = inner.failing;
        let (fails, written) = (inner.rng.random_bool(failing), inner.rng.random_bool(0.3));
        if !fails || written {
            self.entries.append(entries)?;
            for entry in entries {
                inner.take(entry);
            }
        }
        if fails {
            inner.failures += 1;
            return Err(AppendError::Storage { reason: "no space left on device".to_owned() });
        }
        Ok(())
    }

    fn read_from(&self, seq: u64) -> Result<Vec<Entry>, ReadError> {
        self.entries.read_from(seq)
    }
}
