//! What a world's journal tells, and what must hold at the end of every story.

use std::collections::{BTreeMap, BTreeSet};

use super::setup::ORIGINALS;
use super::world::{CLOSED, OPEN, World};
use crate::notice::Notice;
use crate::run::record::{Entry, Record};
use crate::run::state::{State, StateName};
use crate::run::step::{Step, StepResult};

impl World {
    /// What must hold at the end of every story.
    pub(super) fn check(&self) {
        let story = self.story();
        assert_eq!(State::replay(&self.journal), self.state, "{story}");
        for name in ORIGINALS {
            assert!(self.setup.destroys || self.tables.contains(name), "original table {name} is lost: {story}");
        }
        for (place, entry) in self.journal.iter().enumerate() {
            assert_eq!(entry.seq, place as u64 + 1, "{story}");
        }
        if self.crashed == 0 {
            self.check_writing();
        }
        self.check_notices();
        self.check_order();
        let runs_on = self.procs.iter().any(|proc| self.state.window.is_none() || proc.script);
        assert!(!runs_on, "something runs on: {story}");
    }

    /// What is written can be read.
    fn check_writing(&self) {
        for entry in &self.journal {
            let json = serde_json::to_string(entry).expect("an entry can be written");
            assert_eq!(serde_json::from_str::<Entry>(&json).expect("an entry can be read"), *entry);
        }
    }

    /// Every notice that is owed and due was delivered, or is known to be dead, or is still under way.
    fn check_notices(&self) {
        let mut ids = BTreeSet::new();
        for notice in self.notices() {
            assert!(ids.insert(notice.id.clone()), "two notices are called {}", notice.id);
            for channel in &notice.channels {
                let label = format!("{}/{channel}", notice.contact);
                let open =
                    self.state.owed.iter().any(|owed| owed.notice.id == notice.id && owed.open.contains(channel));
                let cancelled = self
                    .journal
                    .iter()
                    .any(|entry| matches!(&entry.record, Record::NoticeCancelled { notice: one } if *one == notice.id));
                let dead = self.setup.dead.contains(&label.as_str());
                let delivered = self.delivered.contains_key(&(notice.id.clone(), label.clone()));
                assert!(
                    delivered || cancelled || dead || open,
                    "notice {} to {label} is lost: {}",
                    notice.id,
                    self.story()
                );
                let waits = open && (self.state.window.is_some() || notice.not_before > self.now);
                assert!(!open || waits, "notice {} is never delivered", notice.id);
            }
        }
    }

    /// On each channel notices came in the order in which they became owed, and twice only after a crash.
    fn check_order(&self) {
        let labels: BTreeSet<&str> = self.mailbox.iter().map(|(label, _)| label.as_str()).collect();
        for label in labels {
            let owed: Vec<&str> =
                self.notices().filter(|one| label.starts_with(&one.contact)).map(|one| one.id.as_str()).collect();
            let place = |id: &str| owed.iter().position(|one| *one == id).expect("it was owed");
            let came: Vec<usize> =
                self.mailbox.iter().filter(|(to, _)| to == label).map(|(_, notice)| place(notice)).collect();
            let in_order =
                came.windows(2).all(|pair| if self.crashed == 0 { pair[0] < pair[1] } else { pair[0] <= pair[1] });
            assert!(in_order, "{label} got {came:?}: {}", self.story());
        }
    }

    pub(super) fn notices(&self) -> impl Iterator<Item = &Notice> {
        self.journal
            .iter()
            .filter_map(|entry| if let Record::NoticeOwed { notice } = &entry.record { Some(notice) } else { None })
    }

    /// What a contact is told, in order, by the names of the events.
    pub(super) fn told(&self, contact: &str) -> String {
        let names: Vec<&str> =
            self.notices().filter(|one| one.contact == contact).map(|one| one.message.event.as_str()).collect();
        names.join(" ")
    }

    /// The journal in a few words: steps by how they ended (`+` well, `-` not, `!` out of time, `?` nobody knows).
    pub(super) fn story(&self) -> String {
        let mut steps = BTreeMap::new();
        let words = self.journal.iter().filter_map(|entry| word(&entry.record, &mut steps));
        words.collect::<Vec<_>>().join(" ")
    }

    /// The story from the breach on.
    pub(super) fn ladder(&self) -> String {
        let story = self.story();
        let from = story.find("breach:").unwrap_or_else(|| panic!("there is no breach: {story}"));
        story[from..].to_owned()
    }

    /// How it ended: the last window's outcome, or where the window stands.
    pub(super) fn outcome(&self) -> StateName {
        let settled = self.state.history.last().map(|settled| settled.outcome.state_name());
        self.state.state_name().or(settled).expect("there was a window")
    }

    /// What a person is told to do.
    pub(super) fn manual(&self) -> String {
        let window = self.state.window.as_ref().expect("a window is open");
        window.phase.needs_operator().expect("an operator is needed").1.join("\n")
    }

    /// Why an operator is needed.
    pub(super) fn reason(&self) -> &str {
        let window = self.state.window.as_ref().expect("a window is open");
        window.phase.needs_operator().unwrap_or_else(|| panic!("no operator is needed: {}", self.story())).0
    }

    pub(super) fn all_closed(&self) -> bool {
        self.gates.iter().all(|gate| gate == CLOSED)
    }

    pub(super) fn all_as_found(&self) -> bool {
        self.gates.iter().all(|gate| gate == OPEN)
    }

    pub(super) fn left(&self) -> usize {
        self.tables.len() - ORIGINALS.len()
    }

    pub(super) fn count(&self, wanted: impl Fn(&Record) -> bool) -> usize {
        self.journal.iter().filter(|entry| wanted(&entry.record)).count()
    }
}

fn word(record: &Record, steps: &mut BTreeMap<u64, String>) -> Option<String> {
    Some(match record {
        Record::Condensed { .. } => "condensed".to_owned(),
        Record::Started { .. } => "|".to_owned(),
        Record::OpeningMissed { .. } => "missed".to_owned(),
        Record::ClockMoved { .. } => "clock".to_owned(),
        Record::WindowOpened { .. } => "open".to_owned(),
        Record::StepStarted { number, step, .. } => {
            let place = match step {
                Step::ReadGate { gate } | Step::CloseGate { gate } | Step::OpenGate { gate } => gate.to_string(),
                Step::Inspect { .. }
                | Step::Act { .. }
                | Step::Preflight
                | Step::Backup
                | Step::Migrate
                | Step::EndProcess { .. }
                | Step::AwaitProcess { .. }
                | Step::Verify { .. } => String::new(),
            };
            steps.insert(*number, format!("{}{place}", step.name()));
            return None;
        }
        Record::StepEnded { number, outcome } => {
            let sign = match outcome.result {
                StepResult::Succeeded => '+',
                StepResult::Failed => '-',
                StepResult::TimedOut => '!',
                StepResult::Unknown => '?',
            };
            format!("{}{sign}", steps.get(number)?)
        }
        Record::WarmedUp { .. } => "warm".to_owned(),
        Record::MigrationFinished { how, .. } => format!("finished:{how:?}"),
        Record::VerdictChanged { to, .. } => format!("{to:?}").to_lowercase(),
        Record::RulePaged { .. } => "page".to_owned(),
        Record::RuleQuieted { .. } => "quiet".to_owned(),
        Record::HoldStarted { .. } => "hold".to_owned(),
        Record::HoldEnded { .. } => "resume".to_owned(),
        Record::BreachDetected { trigger } => format!("breach:{}", trigger.name()),
        Record::RungStarted { rung } => format!("rung{}", rung + 1),
        Record::ApprovalRequested { .. } => "ask".to_owned(),
        Record::ApprovalGiven { .. } => "yes".to_owned(),
        Record::RungFailed { rung, .. } => format!("failed{}", rung + 1),
        Record::OperatorNeeded { .. } => "operator".to_owned(),
        Record::ResolutionStarted { .. } => "resolving".to_owned(),
        Record::ResolutionFailed { .. } => "unresolved".to_owned(),
        Record::Acknowledged { .. } => "ack".to_owned(),
        Record::PageRepeated => "again".to_owned(),
        Record::WindowSettled { outcome, .. } => format!("{outcome:?}").to_lowercase(),
        Record::NoticeDead { .. } => "dead".to_owned(),
        Record::NoticeCancelled { .. } => "unneeded".to_owned(),
        Record::ProcessStarted { .. }
        | Record::Classified { .. }
        | Record::NoticeOwed { .. }
        | Record::NoticeDelivered { .. } => return None,
    })
}
