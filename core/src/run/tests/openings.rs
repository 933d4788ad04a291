//! Openings: due, missed, doubled, in the way of each other.

use std::sync::Arc;

use jiff::Timestamp;

use super::setup::{at, plan};
use super::world::request;
use crate::plan::{Missed, Plan};
use crate::run::decide::decide;
use crate::run::event::{Ask, DueOpening, Event};
use crate::run::record::{Entry, Origin, Record, WindowOutcome};
use crate::run::state::State;

/// A state and its journal.
struct Life {
    plan: Arc<Plan>,
    state: State,
    journal: Vec<Entry>,
}

impl Life {
    fn new(missed: Missed) -> Self {
        let mut plan = plan();
        plan.window.missed = missed;
        Self { plan: Arc::new(plan), state: State::default(), journal: vec![] }
    }

    fn feed(&mut self, now: Timestamp, event: Event) -> Result<(), String> {
        let entries = decide(&self.state, &self.plan, now, event).map_err(|refusal| refusal.message)?;
        for entry in &entries {
            self.state.apply(entry);
        }
        self.journal.extend(entries);
        Ok(())
    }

    fn pulse(&mut self, now: Timestamp, due: &[(i64, bool)]) {
        let due = due.iter().map(|(second, missed)| DueOpening { at: at(*second), missed: *missed }).collect();
        self.feed(now, Event::Pulse { due }).expect("a pulse is never refused");
    }

    /// Openings by what became of them.
    fn openings(&self) -> Vec<String> {
        let words = self.journal.iter().filter_map(|entry| {
            if let Record::WindowOpened { id, .. } = &entry.record {
                Some(format!("opened {id}"))
            } else if let Record::OpeningMissed { opening, reason } = &entry.record {
                Some(format!("missed {}: {reason}", opening.duration_since(at(0)).as_secs()))
            } else {
                None
            }
        });
        words.collect()
    }

    fn cancel(&mut self, now: Timestamp) {
        self.feed(now, request(Ask::Cancel { abandon: false })).expect("it can be cancelled");
    }
}

const FIRST: &str = "opened shop-20261122T020000Z";

#[test]
fn an_opening_that_is_due_opens_once() {
    let mut life = Life::new(Missed::Skip);
    life.pulse(at(0), &[(0, false)]);
    life.pulse(at(0), &[(0, false)]);
    life.pulse(at(1), &[(0, false)]);
    assert_eq!(life.openings(), [FIRST]);
    life.cancel(at(2));
    life.pulse(at(3), &[(0, false)]);
    assert_eq!(life.openings(), [FIRST], "not even when the window is over");
}

#[test]
fn a_missed_opening_is_left_out_or_made_up_for() {
    let mut life = Life::new(Missed::Skip);
    life.pulse(at(7200), &[(0, true)]);
    assert_eq!(life.openings(), ["missed 0: nobody was looking when it was due, and `missed = \"skip\"`"]);
    assert!(life.state.window.is_none());
    life.pulse(at(7201), &[(0, true)]);
    assert_eq!(life.openings().len(), 1, "and told once");
    let mut life = Life::new(Missed::Run);
    life.pulse(at(7200), &[(0, true)]);
    assert_eq!(life.openings(), [FIRST]);
    let window = life.state.window.expect("it is open");
    assert_eq!(window.ends_at, at(7200 + 3600), "it has its whole length");
}

#[test]
fn a_night_in_which_clocks_change_and_nobody_looks_is_missed_as_any_other() {
    for (zone, after, now, openings) in [
        ("Europe/Berlin", "2026-03-28T12:00:00Z", "2026-03-29T08:00:00Z", &["20260329T010000Z"][..]),
        ("Europe/Berlin", "2026-10-24T12:00:00Z", "2026-10-25T08:00:00Z", &["20261025T003000Z"]),
        ("America/New_York", "2026-03-07T12:00:00Z", "2026-03-08T12:00:00Z", &["20260308T070000Z"]),
        ("Australia/Lord_Howe", "2026-10-03T06:00:00Z", "2026-10-03T20:00:00Z", &["20261003T153000Z"]),
        ("Africa/Casablanca", "2026-02-14T12:00:00Z", "2026-02-15T12:00:00Z", &["20260215T013000Z"]),
        // Of a day that was never there, and of the day after it.
        ("Pacific/Apia", "2011-12-30T05:00:00Z", "2011-12-30T18:00:00Z", &["20111230T100000Z", "20111230T123000Z"]),
    ] {
        let schedule = crate::window::parse("30 2 * * *").expect("a schedule");
        let zone = jiff::tz::TimeZone::get(zone).expect("a zone");
        let (after, now): (Timestamp, Timestamp) = (after.parse().expect("a time"), now.parse().expect("a time"));
        let tolerance = jiff::SignedDuration::from_secs(90);
        for missed in [Missed::Skip, Missed::Run] {
            let mut life = Life::new(missed);
            // The alarm rings late, and more than once.
            for _ in 0..3 {
                let after = life.state.last_opening.unwrap_or(after);
                let due = schedule.due(&zone, after, now, tolerance);
                life.feed(now, Event::Pulse { due }).expect("a pulse is never refused");
            }
            let opened: Vec<String> = life
                .openings()
                .into_iter()
                .filter_map(|one| Some(one.strip_prefix("opened shop-")?.to_owned()))
                .collect();
            let left_out = life.openings().len() - opened.len();
            let (last, others) = openings.split_last().expect("some");
            match missed {
                Missed::Skip => assert_eq!((opened, left_out), (Vec::new(), openings.len()), "{zone:?}"),
                Missed::Run => assert_eq!((opened, left_out), (vec![(*last).to_owned()], others.len()), "{zone:?}"),
            }
        }
    }
}

#[test]
fn of_many_openings_only_the_last_is_opened() {
    let mut life = Life::new(Missed::Run);
    life.pulse(at(200_000), &[(0, true), (86_400, true), (172_800, true)]);
    assert_eq!(
        life.openings(),
        [
            "missed 0: a later opening is due as well",
            "missed 86400: a later opening is due as well",
            "opened shop-20261124T020000Z"
        ]
    );
    assert_eq!(life.state.last_opening, Some(at(172_800)));
}

#[test]
fn an_opening_during_a_window_is_left_out() {
    let mut life = Life::new(Missed::Run);
    life.pulse(at(0), &[(0, false)]);
    life.pulse(at(60), &[(60, false)]);
    life.pulse(at(61), &[(60, false)]);
    assert_eq!(life.openings(), [FIRST, "missed 60: window shop-20261122T020000Z was still preparing"]);
}

#[test]
fn windows_are_opened_by_hand_one_at_a_time() {
    let mut life = Life::new(Missed::Skip);
    life.feed(at(0), request(Ask::Open { guard: false })).expect("none is open");
    let origin = life.state.window.as_ref().map(|window| window.origin.clone());
    assert_eq!(origin, Some(Origin::Operator { who: "ana".to_owned(), reason: "because".to_owned() }));
    let refused = life.feed(at(1), request(Ask::Open { guard: true }));
    assert_eq!(refused, Err("window shop-20261122T020000Z is open (preparing); one at a time".to_owned()));
    assert_eq!(life.state.last_opening, None, "no scheduled opening is used up");
}

#[test]
fn an_id_is_never_given_twice() {
    let mut life = Life::new(Missed::Skip);
    for _ in 0..3 {
        life.feed(at(0), request(Ask::Open { guard: true })).expect("none is open");
        life.cancel(at(0));
    }
    let again = "opened shop-20261122T020000Z-2";
    assert_eq!(life.openings(), [FIRST, again, "opened shop-20261122T020000Z-3"]);
    assert!(life.state.history.iter().all(|settled| settled.outcome == WindowOutcome::Cancelled));
}

#[test]
fn a_window_keeps_the_plan_it_was_opened_with() {
    let mut life = Life::new(Missed::Skip);
    life.pulse(at(0), &[(0, false)]);
    let before = Arc::clone(&life.state.window.as_ref().expect("open").plan);
    let mut edited = plan();
    edited.name = "other".to_owned();
    edited.rollback.rungs.clear();
    life.plan = Arc::new(edited);
    life.feed(at(1), Event::Restarted { version: "0.2.0".to_owned() }).expect("never refused");
    assert_eq!(life.state.window.as_ref().expect("open").plan, before);
    life.cancel(at(2));
    life.feed(at(3), request(Ask::Open { guard: false })).expect("none is open");
    assert!(life.openings().last().is_some_and(|last| last.starts_with("opened other-")));
}

#[test]
fn no_window_no_answer() {
    let mut life = Life::new(Missed::Skip);
    for ask in [Ask::Hold, Ask::Finished, Ask::Rollback, Ask::Acknowledge, Ask::Cancel { abandon: true }] {
        let refused = life.feed(at(0), request(ask));
        assert_eq!(refused, Err("no window is open; `rollbackd window open` opens one".to_owned()));
    }
    assert!(life.journal.is_empty());
}
