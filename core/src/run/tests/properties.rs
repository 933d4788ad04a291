//! What must hold whatever comes in: legal or not, likely or not, in any order.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;
use proptest::prelude::*;

use super::setup::{at, contact, gate, plan, script_rung, secs, tables_rung};
use super::world::{evidence, request};
use crate::baseline::{Baseline, Catalog, Difference, ObjectId, ObjectKind};
use crate::judge::{Assessment, Verdict};
use crate::plan::{Consequence, Method, OnCommandFailure, Plan, WindowPlan};
use crate::run::advance::advance;
use crate::run::condense::condensed;
use crate::run::decide::{concerns, conclude, decide};
use crate::run::event::{Ask, DueOpening, Event};
use crate::run::pending::{Effect, pending};
use crate::run::record::{Entry, Process, Record, Trigger};
use crate::run::sound::unsound;
use crate::run::state::{GatePosition, State};
use crate::run::step::{Finding, Outcome, Step, StepResult};

/// Something that comes in; what it means depends on the state that it meets.
#[derive(Debug, Clone)]
enum Move {
    /// The oldest or the newest step in flight ends as it should, or otherwise.
    Ends {
        newest: bool,
        result: u8,
        finding: u8,
    },
    /// A step that may not even be there ends.
    Stray {
        step: u64,
    },
    Process,
    Assessed {
        verdict: Verdict,
        healthy: bool,
        then: Consequence,
    },
    Settles {
        which: usize,
        good: bool,
    },
    Asks(Ask),
    Pulse {
        due: bool,
        missed: bool,
    },
    Restarts,
    /// The program ends in order, with one more report.
    Concludes,
}

fn moves() -> impl Strategy<Value = Vec<(i64, Move)>> {
    let ask = prop_oneof![
        1 => any::<bool>().prop_map(|guard| Ask::Open { guard }),
        1 => Just(Ask::Finished),
        1 => Just(Ask::Hold),
        2 => Just(Ask::Resume),
        1 => prop::bool::weighted(0.3).prop_map(|abandon| Ask::Cancel { abandon }),
        2 => any::<bool>().prop_map(|force| Ask::Resolved { force }),
        2 => Just(Ask::Rollback),
        3 => Just(Ask::Approve),
        1 => Just(Ask::Decline),
        1 => Just(Ask::Acknowledge),
    ];
    let verdict = prop_oneof![
        4 => Just(Verdict::Healthy),
        1 => Just(Verdict::Suspect),
        1 => Just(Verdict::Blind),
        2 => Just(Verdict::Breached),
    ];
    let then =
        prop_oneof![4 => Just(Consequence::Rollback), 1 => Just(Consequence::Page), 1 => Just(Consequence::Freeze)];
    let one = prop_oneof![
        30 => (any::<bool>(), 0_u8..24, 0_u8..16).prop_map(|(newest, result, finding)| Move::Ends { newest, result, finding }),
        1 => (0_u64..40).prop_map(|step| Move::Stray { step }),
        2 => Just(Move::Process),
        5 => (verdict, prop::bool::weighted(0.9), then)
            .prop_map(|(verdict, healthy, then)| Move::Assessed { verdict, healthy, then }),
        2 => (0_usize..9, prop::bool::weighted(0.7)).prop_map(|(which, good)| Move::Settles { which, good }),
        3 => ask.prop_map(Move::Asks),
        3 => (any::<bool>(), any::<bool>()).prop_map(|(due, missed)| Move::Pulse { due, missed }),
        1 => Just(Move::Restarts),
        1 => Just(Move::Concludes),
    ];
    let gap = prop_oneof![40 => 0_i64..5, 4 => 20_i64..200, 1 => 1000_i64..9000];
    prop::collection::vec((gap, one), 1..120)
}

fn plans() -> impl Strategy<Value = Plan> {
    let flags = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
    (flags, 0_usize..3, 0_usize..4, 0_usize..3).prop_map(|(flags, gates, rungs, others)| {
        let (ours, approve, leave, required, skip, idempotent) = flags;
        let mut plan = plan();
        if !ours {
            plan.window.command = None;
        }
        if leave {
            plan.window.on_command_failure = OnCommandFailure::Leave;
        }
        if skip {
            plan.preflight_skipped = vec!["signals".to_owned()];
        }
        plan.rollback.approve_always = approve;
        plan.rollback.gates = ["edge", "pool", "api"][..gates].iter().map(|name| gate(name)).collect();
        plan.rollback.gates.iter_mut().for_each(|gate| gate.required = required);
        plan.rollback.rungs = [script_rung(), tables_rung(), script_rung()].into_iter().take(rungs).collect();
        for rung in &mut plan.rollback.rungs {
            if let Method::Script { idempotent: may, .. } = &mut rung.method {
                *may = idempotent;
            }
        }
        for name in ["DB on call", "Emergency"].into_iter().take(others) {
            plan.contacts.push(contact(name));
        }
        plan.contacts.iter_mut().skip(1).for_each(|contact| contact.after = secs(600));
        plan
    })
}

/// The way into a window: not far, until the migration runs, or into a rollback.
fn beginning(far: u8) -> Vec<(i64, Move)> {
    let ends = || (1, Move::Ends { newest: true, result: 9, finding: 0 });
    let healthy = Move::Assessed { verdict: Verdict::Healthy, healthy: true, then: Consequence::Rollback };
    let mut moves = vec![(0, Move::Asks(Ask::Open { guard: false }))];
    if far > 0 {
        moves.extend([ends(), (31, healthy), ends()]);
    }
    if far > 1 {
        moves.push((1, Move::Asks(Ask::Rollback)));
    }
    moves
}

/// The event that a move is in this state.
fn event(state: &State, now: Timestamp, one: &Move) -> Event {
    let in_flight = state.window.as_ref().map(|window| window.in_flight.as_slice()).unwrap_or_default();
    match one {
        Move::Ends { newest, result, finding } => match if *newest { in_flight.last() } else { in_flight.first() } {
            Some(running) => Event::StepEnded {
                step: running.number,
                outcome: Box::new(outcome(&running.step, *result, *finding, now)),
            },
            None => Event::Pulse { due: vec![] },
        },
        Move::Stray { step } => Event::StepEnded { step: *step, outcome: Box::new(Outcome::failed("a stray")) },
        Move::Process => {
            let process = Process { pid: 7, start_ticks: 1, boot_id: "b".to_owned() };
            Event::ProcessStarted { step: in_flight.first().map_or(3, |running| running.number), process }
        }
        Move::Assessed { verdict, healthy, then } => {
            let breached = match verdict {
                Verdict::Breached => vec![evidence("down", Consequence::Rollback, now), evidence("slow", *then, now)],
                Verdict::Suspect | Verdict::Healthy | Verdict::Blind if *then != Consequence::Rollback => {
                    vec![evidence("slow", *then, now)]
                }
                Verdict::Suspect | Verdict::Healthy | Verdict::Blind => vec![],
            };
            Event::Assessed(Assessment {
                at: now,
                verdict: *verdict,
                breached,
                blind: vec![],
                healthy_since: healthy.then(|| at(-100)),
                unhealthy: vec![],
                in_sight: *healthy,
                levels: vec![],
            })
        }
        Move::Settles { which, good } => match state.owed.get(which % state.owed.len().max(1)) {
            Some(owed) => Event::NoticeSettled {
                notice: owed.notice.id.clone(),
                channel: owed.open[0].clone(),
                result: if *good { Ok(()) } else { Err("no such mailbox".to_owned()) },
            },
            None => Event::NoticeSettled { notice: "?".to_owned(), channel: "email 1".to_owned(), result: Ok(()) },
        },
        Move::Asks(ask) => request(ask.clone()),
        Move::Pulse { due, missed } => {
            let due = if *due { vec![DueOpening { at: now, missed: *missed }] } else { vec![] };
            Event::Pulse { due }
        }
        Move::Restarts | Move::Concludes => Event::Restarted { version: "0.1.0".to_owned() },
    }
}

/// Mostly what a step of this kind would say; sometimes anything.
fn outcome(step: &Step, result: u8, finding: u8, now: Timestamp) -> Outcome {
    let difference = |left: u8| {
        let table = |place| ObjectId {
            kind: ObjectKind::Table,
            schema: "public".to_owned(),
            of: None,
            name: format!("added {place}"),
        };
        Difference { added: (0..left).map(table).collect(), ..Difference::default() }
    };
    let fitting = match step {
        Step::Backup => {
            let baseline = Baseline {
                format: Baseline::FORMAT,
                at: now,
                server_version: "17.2".to_owned(),
                catalog: Catalog::default(),
                counts: vec![],
                identities: vec![],
                prints: vec![],
            };
            Finding::Backup { directory: "b".to_owned(), bytes: 1, baseline: Arc::new(baseline) }
        }
        Step::ReadGate { .. } => Finding::Gate { prior: "as it was".to_owned() },
        Step::Inspect { .. } => Finding::Difference {
            difference: difference(finding % 3),
            rows: Vec::new(),
            way_back: Vec::new(),
            restore: Vec::new(),
        },
        Step::Preflight
        | Step::Migrate
        | Step::EndProcess { .. }
        | Step::AwaitProcess { .. }
        | Step::CloseGate { .. }
        | Step::OpenGate { .. }
        | Step::Act { .. }
        | Step::Verify { .. } => Finding::Nothing,
    };
    let result = match result {
        0 => StepResult::TimedOut,
        1 => StepResult::Unknown,
        2 | 3 => StepResult::Failed,
        _ => StepResult::Succeeded,
    };
    let finding = match finding {
        6 => Finding::Nothing,
        7 => Finding::Checks { checks: vec![] },
        _ => fitting,
    };
    Outcome { result, detail: "so it ended".to_owned(), finding }
}

/// What must hold of the records that one event led to, `state` being what they were decided on.
fn look(state: &State, event: &Event, entries: &[Entry]) -> State {
    assert!(entries.len() < 100, "one event led to {} records", entries.len());
    let mut after = state.clone();
    for entry in entries {
        assert_eq!(entry.seq, after.seq + 1);
        if let Record::BreachDetected { trigger } = &entry.record {
            let breached = matches!(event, Event::Assessed(one) if one.verdict == Verdict::Breached);
            assert!(breached || !matches!(trigger, Trigger::Rules { .. }), "nothing was seen to be broken: {event:?}");
        }
        if let Record::StepStarted { step: Step::Act { .. }, deadline, .. } = &entry.record {
            let window = after.window.as_ref().expect("a step has a window");
            let rollback = window.rollback.as_ref().expect("an act has a rollback");
            assert!(window.in_flight.is_empty() && window.orphan.is_none(), "something still runs: {window:?}");
            assert!(*deadline > entry.at, "there is no time for it");
            for gate in &rollback.gates {
                assert!(
                    matches!(
                        gate.position,
                        GatePosition::Closed | GatePosition::CloseFailed | GatePosition::Unreadable
                    ),
                    "{gate:?}"
                );
            }
        }
        after.apply(entry);
        let window = after.window.as_ref();
        let others = window.map_or(0, |window| {
            window
                .in_flight
                .iter()
                .filter(|running| !matches!(running.step, Step::Migrate | Step::AwaitProcess { .. }))
                .count()
        });
        assert!(others <= 1, "the steps of a window are done one by one");
    }
    after
}

/// What must hold of a whole journal.
fn audit(journal: &[Entry]) {
    let mut settled: BTreeSet<&str> = BTreeSet::new();
    let mut breached: BTreeSet<&str> = BTreeSet::new();
    let mut rungs: Vec<(&str, usize)> = Vec::new();
    let mut ids: BTreeSet<&str> = BTreeSet::new();
    for entry in journal {
        let json = serde_json::to_string(entry).expect("an entry can be written");
        assert_eq!(&serde_json::from_str::<Entry>(&json).expect("an entry can be read"), entry);
        let window = entry.window.as_deref().unwrap_or_default();
        let notice = matches!(
            entry.record,
            Record::NoticeOwed { .. }
                | Record::NoticeDelivered { .. }
                | Record::NoticeDead { .. }
                | Record::NoticeCancelled { .. }
                // An escalation goes on, and is ended, after the window.
                | Record::Acknowledged { .. }
        );
        assert!(notice || !settled.contains(window), "the window is settled: {entry:?}");
        if let Record::NoticeOwed { notice } = &entry.record {
            assert!(ids.insert(&notice.id), "two notices are called {}", notice.id);
        } else if let Record::WindowSettled { .. } = &entry.record {
            settled.insert(window);
        } else if let Record::BreachDetected { .. } = &entry.record {
            assert!(breached.insert(window), "there is one rollback a window");
        } else if let Record::RungStarted { rung } = &entry.record {
            assert!(rungs.iter().all(|(one, place)| *one != window || place < rung), "a rung was tried again");
            rungs.push((window, *rung));
        }
    }
}

/// Wherever old windows are let go, the rest makes the same state, also when it is done again.
fn condense_everywhere(journal: &[Entry]) {
    assert_eq!(unsound(journal), None);
    let mut again: Option<Vec<Entry>> = None;
    for last in (1..=journal.len() as u64).step_by(journal.len() / 12 + 1) {
        let open = State::replay(journal.iter().filter(|entry| entry.seq <= last)).window.is_some();
        let Some(condensed) = condensed(journal, last) else {
            assert!(open, "nothing is open after {last}");
            continue;
        };
        assert!(!open, "a window is torn apart at {last}");
        let rest = |entries: &[Entry], first: Entry| -> Vec<Entry> {
            let after = entries.iter().filter(|entry| entry.seq > last).cloned();
            std::iter::once(first).chain(after).collect()
        };
        let kept = rest(journal, condensed);
        let mut whole = State::replay(journal);
        whole.forget_before(last);
        assert_eq!(State::replay(&kept), whole, "after {last}");
        assert_eq!(unsound(&kept), None);
        if let Some(earlier) = again {
            let twice = crate::run::condense::condensed(&earlier, last).expect("nothing is open");
            assert_eq!(rest(&earlier, twice), kept, "after {last}");
        }
        again = Some(kept);
    }
}

/// Effects are derived from the journal, and from nothing else.
fn grounded(state: &State, journal: &[Entry], now: Timestamp) {
    for effect in pending(state, now).effects {
        match effect {
            Effect::Perform { window, number } => {
                let mut own = journal.iter().filter(|entry| entry.window.as_deref() == Some(window.as_str()));
                assert!(
                    own.any(|entry| matches!(&entry.record, Record::StepStarted { number: one, .. } if *one == number))
                );
            }
            Effect::Deliver { notice, channel, .. } => {
                let owed = state.owed.iter().find(|owed| owed.notice.id == notice).expect("it is owed");
                assert!(owed.open.contains(&channel) && owed.notice.not_before <= now);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_comes_in(plan in plans(), far in 0_u8..4, moves in moves()) {
        let plan = Arc::new(plan);
        let (mut now, mut state, mut journal) = (at(0), State::default(), Vec::new());
        for (gap, one) in beginning(far).iter().chain(&moves) {
            now += secs(*gap);
            let event = event(&state, now, one);
            if matches!(one, Move::Concludes) {
                let last = Event::StepEnded { step: 1, outcome: Box::new(Outcome::failed("the program ends")) };
                let entries = conclude(&state, &plan, now, last.clone());
                let begun = entries.iter().any(|entry| matches!(entry.record, Record::StepStarted { .. }));
                prop_assert!(!begun, "nothing begins while the program ends");
                state = look(&state, &last, &entries);
                journal.extend(entries);
            }
            let Ok(entries) = decide(&state, &plan, now, event.clone()) else { continue };
            if let Event::Assessed(assessment) = &event
                && !concerns(&state, assessment)
            {
                let unasked = decide(&state, &plan, now, Event::Pulse { due: vec![] }).expect("never refused");
                prop_assert_eq!(&entries, &unasked, "an assessment that concerns nothing leads to something");
            }
            state = look(&state, &event, &entries);
            journal.extend(entries);
            let due = state.window.as_ref().and_then(|window| advance(window, now));
            prop_assert_eq!(due, None, "something is still due after {:?}", event);
            grounded(&state, &journal, now);
        }
        prop_assert_eq!(State::replay(&journal), state);
        audit(&journal);
        condense_everywhere(&journal);
    }

    #[test]
    fn what_cannot_be_seen_rolls_nothing_back(plan in plans(), moves in moves()) {
        let mut plan = plan;
        plan.window.command = None;
        let plan = Arc::new(plan);
        let (mut now, mut state) = (at(0), State::default());
        let blind = |one: &Move| match one {
            Move::Assessed { then, healthy, .. } => {
                Move::Assessed { verdict: Verdict::Blind, then: *then, healthy: *healthy }
            }
            Move::Asks(Ask::Rollback) => Move::Restarts,
            Move::Ends { .. }
            | Move::Stray { .. }
            | Move::Process
            | Move::Settles { .. }
            | Move::Asks(_)
            | Move::Pulse { .. }
            | Move::Restarts
            | Move::Concludes => one.clone(),
        };
        let blinded = moves.iter().map(|(gap, one)| (gap, blind(one)));
        for (gap, one) in beginning(1).iter().map(|(gap, one)| (gap, one.clone())).chain(blinded) {
            now += secs(*gap);
            let event = event(&state, now, &one);
            let entries = decide(&state, &plan, now, event).unwrap_or_default();
            for entry in &entries {
                let breach = matches!(entry.record, Record::BreachDetected { .. });
                prop_assert!(!breach, "{entry:?}");
                state.apply(entry);
            }
        }
    }

    #[test]
    fn a_rollback_always_comes_to_an_end(
        plan in plans(),
        results in prop::collection::vec((0_u8..12, 0_u8..8), 1..200),
    ) {
        let plan = Arc::new(Plan { window: WindowPlan { command: None, ..plan.window.clone() }, ..plan });
        let (mut now, mut state) = (at(0), State::default());
        let feed = |state: &mut State, now, event| {
            let entries = decide(state, &plan, now, event).unwrap_or_default();
            for entry in &entries {
                state.apply(entry);
            }
        };
        for (gap, one) in beginning(2) {
            now += secs(gap);
            let event = event(&state, now, &one);
            feed(&mut state, now, event);
        }
        let mut turns = 0;
        let mut results = results.iter().cycle();
        while let Some(window) = &state.window {
            if window.phase.needs_operator().is_some() {
                break;
            }
            turns += 1;
            prop_assert!(turns < 300, "it goes on for ever: {:?}", window);
            let (result, finding) = results.next().expect("a cycle has no end");
            now += secs(1);
            let next = match window.in_flight.first() {
                Some(running) if *result == 1 => Event::Restarted { version: running.number.to_string() },
                Some(running) => {
                    let outcome = outcome(&running.step, *result, *finding, now);
                    Event::StepEnded { step: running.number, outcome: Box::new(outcome) }
                }
                None => request(Ask::Approve),
            };
            // A crash in the middle of the same step again and again takes its time.
            now += secs(if *result == 1 { 60 } else { 0 });
            feed(&mut state, now, next);
        }
    }
}
