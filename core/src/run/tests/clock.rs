//! What becomes of a window's moments when the clock is set, when nobody looks, and when a later life finds the clock set
//! back.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use super::setup::{at, plan, secs};
use crate::baseline::{Baseline, Catalog};
use crate::judge::{Assessment, Verdict};
use crate::plan::Plan;
use crate::run::decide::decide;
use crate::run::event::{Ask, Event, Request};
use crate::run::record::{Entry, Record, WindowOutcome};
use crate::run::state::{Phase, State};
use crate::run::step::{Finding, Outcome};

/// A window in a core alone.
struct Core {
    plan: Arc<Plan>,
    state: State,
    now: Timestamp,
    entries: Vec<Entry>,
}

impl Core {
    fn new() -> Self {
        let mut plan = plan();
        plan.window.command = None;
        plan.preflight_skipped = vec!["signals".to_owned()];
        let mut core = Self { plan: Arc::new(plan), state: State::default(), now: at(0), entries: Vec::new() };
        core.take(Event::Restarted { version: "1".to_owned() });
        core.ask(Ask::Open { guard: false });
        core
    }

    fn take(&mut self, event: Event) {
        for entry in decide(&self.state, &self.plan, self.now, event).expect("no refusal") {
            self.state.apply(&entry);
            self.entries.push(entry);
        }
    }

    fn ask(&mut self, ask: Ask) {
        self.take(Event::Requested(Request { who: "ann".to_owned(), reason: "a drill".to_owned(), ask }));
    }

    /// The step in flight ends well.
    fn step_ends(&mut self, finding: Finding) {
        let running = self.state.window.as_ref().and_then(|window| window.in_flight.last()).expect("a step");
        let event = Event::StepEnded { step: running.number, outcome: Box::new(Outcome::succeeded("done", finding)) };
        self.take(event);
    }

    fn pass(&mut self, seconds: i64) {
        self.now += secs(seconds);
        self.take(Event::Pulse { due: Vec::new() });
        let assessment = Assessment {
            at: self.now,
            verdict: Verdict::Healthy,
            breached: Vec::new(),
            blind: Vec::new(),
            healthy_since: Some(at(0)),
            unhealthy: Vec::new(),
            in_sight: true,
            levels: Vec::new(),
        };
        self.take(Event::Assessed(assessment));
    }

    fn set_clock(&mut self, by: SignedDuration) {
        self.now += by;
        self.take(Event::ClockMoved { by, unseen: SignedDuration::ZERO });
    }

    fn sleep(&mut self, unseen: SignedDuration) {
        self.now += unseen;
        self.take(Event::ClockMoved { by: SignedDuration::ZERO, unseen });
    }

    fn phase(&self) -> Phase {
        self.state.window.as_ref().expect("a window").phase.clone()
    }

    fn passed(&self) -> bool {
        self.state.history.last().is_some_and(|settled| settled.outcome == WindowOutcome::Passed)
    }
}

/// A window of somebody else's migration, in its soak.
fn soaking() -> Core {
    let mut core = Core::new();
    core.step_ends(Finding::Nothing);
    let baseline = Baseline {
        format: Baseline::FORMAT,
        at: core.now,
        server_version: "17.2".to_owned(),
        catalog: Catalog::default(),
        counts: Vec::new(),
        identities: Vec::new(),
        prints: Vec::new(),
    };
    core.step_ends(Finding::Backup { directory: "backups/1".to_owned(), bytes: 1, baseline: Arc::new(baseline) });
    core.ask(Ask::Finished);
    assert!(matches!(core.phase(), Phase::Soaking { .. }), "{:?}", core.phase());
    core
}

#[test]
fn what_waits_moves_with_the_clock_and_replays() {
    let core = soaking();
    let before = core.state.window.clone().expect("a window");
    for by in [secs(7_200), secs(-7_200), secs(40_000_000), secs(-40_000_000)] {
        let mut core = soaking();
        core.set_clock(by);
        let after = core.state.window.clone().expect("a window");
        assert_eq!(after.ends_at.duration_since(before.ends_at), by);
        let (Phase::Soaking { until: then }, Phase::Soaking { until: now }) = (&before.phase, &after.phase) else {
            panic!("{after:?}")
        };
        assert_eq!(now.duration_since(*then), by);
        assert_eq!(after.started_at, before.started_at, "names are made of it");
        assert_eq!(State::replay(&core.entries), core.state);
    }
}

#[test]
fn what_is_owed_does_not_expire_because_the_clock_is_set() {
    let mut core = Core::new();
    let left = |core: &Core| -> Vec<SignedDuration> {
        core.state.owed.iter().map(|owed| owed.notice.expires_at.duration_since(core.now)).collect()
    };
    let before = left(&core);
    assert!(!before.is_empty());
    for days in [30, -60] {
        core.set_clock(SignedDuration::from_hours(24 * days));
        assert_eq!(left(&core), before, "set by {days} days");
    }
}

#[test]
fn time_in_which_nobody_looked_is_no_soak_but_the_hard_end_comes() {
    let mut core = soaking();
    let ends_at = core.state.window.as_ref().expect("a window").ends_at;
    core.pass(300);
    core.sleep(secs(3_000));
    assert_eq!(core.state.window.as_ref().expect("a window").ends_at, ends_at);
    core.pass(299);
    assert!(!core.passed());
    core.pass(1);
    assert!(core.passed());
}

#[test]
fn a_budget_is_spent_by_time_in_which_something_was_done() {
    for (moves, waits) in [(false, false), (true, false), (false, true), (true, true)] {
        let mut core = soaking();
        core.ask(Ask::Rollback);
        let before = core.state.window.clone().and_then(|window| window.rollback).expect("a rollback");
        if waits {
            let entry = Entry {
                seq: core.state.seq + 1,
                at: core.now,
                window: core.state.window.as_ref().map(|window| window.id.clone()),
                record: Record::ApprovalRequested { rung: 0 },
            };
            core.state.apply(&entry);
        }
        if moves {
            core.set_clock(secs(7_200));
        } else {
            core.sleep(secs(7_200));
        }
        let after = core.state.window.clone().and_then(|window| window.rollback).expect("a rollback");
        let (moved, waited) = (after.started_at.duration_since(before.started_at), after.waited - before.waited);
        match (moves, waits) {
            (true, false) => assert_eq!((moved, waited), (secs(7_200), secs(0))),
            (false, false) => assert_eq!((moved, waited), (secs(0), secs(7_200))),
            (true, true) => assert_eq!((moved, waited, after.waiting_since), (secs(7_200), secs(0), Some(core.now))),
            // It waits on, and what it waited is added when it has its answer.
            (false, true) => {
                assert_eq!((moved, waited, after.waiting_since), (secs(0), secs(0), Some(core.now - secs(7_200))));
            }
        }
    }
}

#[test]
fn a_clock_that_was_set_back_between_two_lives_makes_no_wait_longer_than_it_was() {
    let mut core = soaking();
    core.pass(10);
    core.now -= secs(40_000_000);
    core.take(Event::Restarted { version: "1".to_owned() });
    let window = core.state.window.clone().expect("a window");
    assert_eq!(window.ends_at, core.now + core.plan.window.duration);
    core.pass(core.plan.window.soak.as_secs());
    assert!(core.passed(), "{:?}", core.state.window);
}

#[test]
fn without_a_window_and_notices_there_is_nothing_to_write() {
    let mut core = Core::new();
    core.state = State::default();
    core.entries.clear();
    core.set_clock(secs(7_200));
    assert_eq!(core.entries, []);
}

proptest! {
    #[test]
    fn a_soak_is_as_long_as_it_was_configured_whatever_the_clock_does(
        events in proptest::collection::vec((1_i64..120, -200_000_i64..200_000, 0_i64..3), 1..20),
    ) {
        let mut core = soaking();
        let soak = core.plan.window.soak.as_secs();
        let mut watched = 0;
        for (passes, moves, kind) in events {
            core.pass(passes);
            watched += passes;
            prop_assert_eq!(core.passed(), watched >= soak, "{} of {} s", watched, soak);
            if core.passed() {
                return Ok(());
            }
            match kind {
                0 => {}
                1 => core.set_clock(secs(moves)),
                _ => core.sleep(secs(moves.abs())),
            }
        }
        prop_assert_eq!(State::replay(&core.entries), core.state);
    }
}
