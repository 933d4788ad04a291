//! Whether records can have come from the state machine: what `rollbackd journal verify` asks beside checksums.
//!
//! The state that records make never fails to be made, so a journal whose records do not belong together would go
//! unnoticed. What is looked at here holds for every journal that this program has written.

use super::record::{Entry, Record};
use super::state::State;

/// The first place at which the records do not follow from each other, and why.
pub fn unsound<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> Option<(u64, String)> {
    let mut state = State::default();
    let mut last: Option<u64> = None;
    for entry in entries {
        let wrong = match last {
            Some(last) if entry.seq != last + 1 => Some(format!("it follows record {last}")),
            Some(_) => None,
            None if entry.seq == 1 || matches!(entry.record, Record::Condensed { .. }) => None,
            None => Some("the records before it are missing".to_owned()),
        };
        if let Some(wrong) = wrong.or_else(|| misplaced(&state, entry, last.is_none())) {
            return Some((entry.seq, wrong));
        }
        state.apply(entry);
        last = Some(entry.seq);
    }
    None
}

/// Why a record cannot come in this state.
fn misplaced(state: &State, entry: &Entry, is_first: bool) -> Option<String> {
    let open = state.window.as_ref();
    let open_now = |what: &str| open.is_none().then(|| format!("{what}, and no window is open"));
    match &entry.record {
        Record::Condensed { .. } => (!is_first).then(|| "it lets go of records that are there".to_owned()),
        Record::Started { .. }
        | Record::ClockMoved { .. }
        | Record::OpeningMissed { .. }
        | Record::NoticeOwed { .. }
        | Record::NoticeDelivered { .. }
        | Record::NoticeDead { .. }
        | Record::NoticeCancelled { .. }
        // Notices of a window that is settled can still be answered.
        | Record::Acknowledged { .. } => None,
        Record::WindowOpened { id, .. } => {
            open.map(|open| format!("window {id} opens while {} is not settled", open.id))
        }
        Record::StepStarted { number, .. } => match open {
            None => open_now("a step starts"),
            Some(window) => (*number != window.last_step + 1)
                .then(|| format!("step {number} starts after step {}", window.last_step)),
        },
        Record::ProcessStarted { step: number, .. } | Record::StepEnded { number, .. } => match open {
            None => open_now("a step goes on"),
            Some(window) => (*number > window.last_step).then(|| format!("step {number} was never started")),
        },
        Record::RungStarted { rung } | Record::RungFailed { rung, .. } => match open {
            None => open_now("a rung is tried"),
            Some(window) => (*rung >= window.plan.rollback.rungs.len())
                .then(|| format!("the plan of {} has no rung {}", window.id, rung + 1)),
        },
        Record::WindowSettled { .. } => open_now("a window is settled"),
        Record::WarmedUp { .. }
        | Record::MigrationFinished { .. }
        | Record::VerdictChanged { .. }
        | Record::RulePaged { .. }
        | Record::RuleQuieted { .. }
        | Record::HoldStarted { .. }
        | Record::HoldEnded { .. }
        | Record::BreachDetected { .. }
        | Record::Classified { .. }
        | Record::ApprovalRequested { .. }
        | Record::ApprovalGiven { .. }
        | Record::OperatorNeeded { .. }
        | Record::ResolutionStarted { .. }
        | Record::ResolutionFailed { .. }
        | Record::PageRepeated => open_now("something happens in a window"),
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::run::condense::Carried;
    use crate::run::record::WindowOutcome;
    use crate::run::step::Outcome;

    fn entries(records: &[Record]) -> Vec<Entry> {
        let entry = |(place, record): (u64, &Record)| Entry {
            seq: place,
            at: Timestamp::UNIX_EPOCH,
            window: None,
            record: record.clone(),
        };
        (1..).zip(records).map(entry).collect()
    }

    #[test]
    fn records_that_do_not_follow_are_found() {
        let started = || Record::Started { version: "0.1.0".to_owned() };
        assert_eq!(unsound(&entries(&[started(), started()])), None);
        let mut gap = entries(&[started(), started(), started()]);
        gap.remove(1);
        assert_eq!(unsound(&gap), Some((3, "it follows record 1".to_owned())));
        gap.remove(0);
        assert_eq!(unsound(&gap), Some((3, "the records before it are missing".to_owned())));
        gap[0].record = Record::Condensed { carried: Box::new(Carried::default()) };
        assert_eq!(unsound(&gap), None);
        let settled = Record::WindowSettled { outcome: WindowOutcome::Passed, detail: String::new() };
        let ended = Record::StepEnded { number: 7, outcome: Outcome::failed("") };
        for lost in [settled, ended, Record::RungStarted { rung: 0 }, Record::PageRepeated] {
            let (place, why) = unsound(&entries(&[started(), lost])).expect("it is found");
            assert!(place == 2 && why.contains("no window is open"), "{why}");
        }
    }
}
