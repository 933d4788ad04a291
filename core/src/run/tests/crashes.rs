//! A crash at every point of every rollback, and a second one during the recovery.

use std::collections::BTreeMap;

use rand::seq::{IndexedRandom as _, IteratorRandom as _};
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::ladders::broken;
use super::setup::{Crash, Door, Migration, Script, Setup, Tables, Verification, When, gate};
use super::world::World;
use crate::plan::{Method, OnCommandFailure};
use crate::run::event::Ask;
use crate::run::state::StateName;

/// Every story with a ladder.
fn stories() -> Vec<(&'static str, Setup)> {
    let idempotent = |mut setup: Setup| {
        if let Method::Script { idempotent, .. } = &mut setup.plan.rollback.rungs[0].method {
            *idempotent = true;
        }
        setup
    };
    let approved = |mut setup: Setup| {
        setup.plan.rollback.approve_always = true;
        setup.deeds = vec![(When::Waiting, Ask::Approve), (When::Waiting, Ask::Approve)];
        setup
    };
    let two_gates = |mut setup: Setup| {
        setup.plan.rollback.gates = vec![gate("edge"), gate("pool")];
        setup
    };
    let leave = |mut setup: Setup| {
        setup.plan.window.on_command_failure = OnCommandFailure::Leave;
        setup
    };
    vec![
        ("the script heals", broken()),
        ("the script may be run again", idempotent(broken())),
        ("the script lies", Setup { script: Script::Lies, ..broken() }),
        ("the script does half", Setup { script: Script::Half, ..broken() }),
        ("the script fails when it is done", Setup { script: Script::FailsButHeals, ..broken() }),
        ("the script takes too long", Setup { script: Script::TimesOut, ..broken() }),
        ("the migration fails", Setup { migration: Migration::Fails, ..Setup::default() }),
        ("the migration fails and is left", leave(Setup { migration: Migration::Fails, ..broken() })),
        ("the migration hangs", Setup { migration: Migration::Hangs, ..Setup::default() }),
        ("breach during the migration", Setup { sick_at: Some(60), migration_takes: 1200, ..Setup::default() }),
        ("every rung fails", Setup { script: Script::Fails, tables: Tables::Locked, ..broken() }),
        ("verification never passes", Setup { verification: Verification::Never, ..broken() }),
        ("the open stage fails once", Setup { verification: Verification::OpenFails(1), ..broken() }),
        ("groups", Setup { script: Script::Lies, tables: Tables::InGroups, ..broken() }),
        ("irreversible", Setup { destroys: true, deeds: vec![(When::Waiting, Ask::Approve); 3], ..broken() }),
        ("approvals", approved(Setup { script: Script::Lies, ..broken() })),
        ("a gate sticks", two_gates(Setup { doors: vec![Door::Sticks(1), Door::Works], ..broken() })),
        ("a gate is jammed", two_gates(Setup { doors: vec![Door::Works, Door::Jammed], ..broken() })),
        (
            "resolved by hand",
            Setup {
                script: Script::Fails,
                tables: Tables::Locked,
                verification: Verification::From(1200),
                deeds: vec![(When::At(1300), Ask::Resolved { force: false })],
                ..broken()
            },
        ),
        (
            "settled by force",
            Setup {
                verification: Verification::Never,
                deeds: vec![(When::State(StateName::NeedsOperator), Ask::Resolved { force: true })],
                ..broken()
            },
        ),
    ]
}

/// What came of the crashes of a story.
#[derive(Debug, Default)]
struct Tally {
    points: usize,
    /// An operator was called, and would not have been without the crash.
    worse: usize,
    outcomes: BTreeMap<&'static str, usize>,
}

/// Runs a story with crashes, looks at its end, and counts it.
fn crash(name: &str, whole: &World, crashes: &[Crash], tally: &mut Tally) {
    let world = World::run(Setup { crashes: crashes.to_vec(), ..whole.setup.clone() });
    check(name, whole, &world, crashes);
    tally.points += 1;
    tally.worse += usize::from(world.outcome() == StateName::NeedsOperator && whole.outcome() != world.outcome());
    *tally.outcomes.entry(world.outcome().as_str()).or_default() += 1;
}

/// Every point at which the world of a story can crash.
fn points(whole: &World) -> impl Iterator<Item = Crash> {
    let appends = (1..=whole.appends).flat_map(|at| [Crash::BeforeAppend(at), Crash::AfterAppend(at)]);
    let effects =
        (1..=whole.effects).flat_map(|at| [Crash::BeforeEffect(at), Crash::HalfEffect(at), Crash::AfterEffect(at)]);
    appends.chain(effects)
}

/// A story with crashes ends as it does without, or with an operator. What else must hold at the end of every
/// story (no original table lost, no notice lost, nothing runs on) is looked at by the world itself.
fn check(name: &str, whole: &World, world: &World, crashes: &[Crash]) {
    let told = || format!("{name}, {crashes:?}: {}", world.story());
    assert!(world.crashed > 0, "it did not crash: {}", told());
    let outcome = world.outcome();
    let same = outcome == whole.outcome();
    // Nobody knows any more how the migration ended: then the signals decide, and these are healthy.
    let lost = world.story().contains("finished:ExitUnknown") && outcome == StateName::Passed;
    // It was down for so long that the migration has not even begun.
    let late = outcome == StateName::Refused && world.left() == 0 && !world.story().contains("migrate");
    assert!(same || lost || late || outcome == StateName::NeedsOperator, "{}", told());
    if world.story().contains("abandoned") {
        return;
    }
    if outcome == StateName::NeedsOperator {
        let closable = |door: &Door| matches!(door, Door::Works | Door::Sticks(_));
        let reached =
            world.setup.doors.iter().zip(&world.gates).all(|(door, gate)| !closable(door) || gate == "closed");
        assert!(reached, "traffic flows while an operator is needed: {}", told());
    } else {
        assert!(world.all_as_found(), "{}", told());
    }
    let by_hand = matches!(world.setup.verification, Verification::From(_));
    assert!(outcome != StateName::Recovered || world.left() == 0 || by_hand, "{}", told());
    let migrations = world.story().matches("migrate").count();
    assert!(migrations <= 1, "the migration ran twice: {}", told());
}

/// Every story, whole.
fn wholes(down: i64) -> impl Iterator<Item = (&'static str, World)> {
    stories().into_iter().map(move |(name, setup)| {
        let limit = 2 * down + if setup.migration == Migration::Hangs { 7200 } else { 3000 };
        (name, World::run(Setup { down, limit, ..setup }))
    })
}

#[test]
fn a_crash_anywhere_changes_nothing_or_calls_an_operator() {
    let mut tally = Tally::default();
    for (name, whole) in wholes(3) {
        points(&whole).for_each(|point| crash(name, &whole, &[point], &mut tally));
    }
    println!("a crash at {tally:?}");
    assert!(tally.points > 1500, "too few points: {tally:?}");
    assert!(tally.worse * 100 < tally.points, "an operator is called too often: {tally:?}");
}

#[test]
fn a_second_crash_during_the_recovery_changes_nothing_either() {
    let mut tally = Tally::default();
    for (name, whole) in wholes(3) {
        for first in (1..=whole.appends).step_by(2) {
            let seconds =
                [Crash::AfterAppend(first + 1), Crash::BeforeAppend(first + 2), Crash::AfterAppend(first + 3)];
            for second in seconds {
                crash(name, &whole, &[Crash::BeforeAppend(first), second], &mut tally);
            }
        }
        for first in (1..=whole.effects).step_by(2) {
            for second in [Crash::BeforeEffect(first + 1), Crash::AfterEffect(first + 2)] {
                crash(name, &whole, &[Crash::AfterEffect(first), second], &mut tally);
            }
        }
    }
    println!("a second crash at {tally:?}");
    assert!(tally.points > 1000, "too few points: {tally:?}");
    assert!(tally.worse * 50 < tally.points, "an operator is called too often: {tally:?}");
}

#[test]
fn a_program_that_is_down_for_long_still_comes_to_an_end() {
    let mut tally = Tally::default();
    for (name, whole) in wholes(2000) {
        points(&whole).step_by(3).for_each(|point| crash(name, &whole, &[point], &mut tally));
    }
    println!("down for long at {tally:?}");
    assert!(tally.points > 500, "too few points: {tally:?}");
}

/// Up to four crashes anywhere, some of them close together; how long each keeps the program down is the schedule's own.
fn schedule(seed: u64, wholes: &BTreeMap<i64, Vec<(&'static str, World)>>, tally: &mut Tally) {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let wholes: Vec<_> = wholes.values().collect();
    let (name, whole) = wholes.choose(&mut random).and_then(|stories| stories.choose(&mut random)).expect("stories");
    let first = points(whole).choose(&mut random).expect("points");
    let mut crashes = vec![first];
    for _ in 0..random.random_range(0..4) {
        let after = random.random_range(1..12);
        crashes.push(match *crashes.choose(&mut random).expect("one") {
            Crash::BeforeAppend(at) => Crash::AfterAppend(at + after),
            Crash::AfterAppend(at) => Crash::BeforeAppend(at + after),
            Crash::BeforeEffect(at) => Crash::HalfEffect(at + after),
            Crash::HalfEffect(at) => Crash::AfterEffect(at + after),
            Crash::AfterEffect(at) => Crash::BeforeEffect(at + after),
        });
    }
    crash(&format!("CRASH_SEED={seed}, {name}"), whole, &crashes, tally);
}

/// `CRASH_SEED=7 cargo test -p rollbackd-core thousands -- --nocapture` runs that one again.
#[test]
fn thousands_of_schedules_of_crashes_change_nothing_or_call_an_operator() {
    let wholes = [3, 40, 600].map(|down| (down, wholes(down).collect())).into();
    let mut tally = Tally::default();
    if let Ok(seed) = std::env::var("CRASH_SEED") {
        schedule(seed.parse().expect("CRASH_SEED is a number"), &wholes, &mut tally);
        println!("{tally:?}");
        return;
    }
    (0..3000).for_each(|seed| schedule(seed, &wholes, &mut tally));
    println!("schedules: {tally:?}");
    // In a third of them the program is down for longer than a rollback may take.
    assert!(tally.worse * 10 < tally.points, "an operator is called too often: {tally:?}");
}

#[test]
fn a_step_that_ends_the_program_each_time_is_given_up() {
    for (step, resolves) in
        [("close_gate0", false), ("inspect", false), ("verify_closed", false), ("verify_open", true)]
    {
        let mut setup = Setup { limit: 3000, ..broken() };
        let whole = World::run(setup.clone());
        let at = (1..=whole.effects)
            .find(|at| {
                let crashes = vec![Crash::AfterEffect(*at)];
                World::run(Setup { crashes, ..setup.clone() }).story().contains(&format!("{step}?"))
            })
            .expect("one of them crashes in this step");
        setup.crashes = (at..at + 5).map(Crash::AfterEffect).collect();
        if resolves {
            setup.deeds = vec![(When::At(1000), Ask::Resolved { force: false })];
        }
        let world = World::run(setup);
        assert!(world.story().contains("operator"), "{step}: {}", world.story());
        if resolves {
            assert_eq!(world.outcome(), StateName::Recovered, "{}", world.story());
        } else {
            let reason = "rollbackd was interrupted 5 times in a row, and came no further";
            assert_eq!(world.reason(), reason, "{step}: {}", world.story());
        }
    }
}

#[test]
fn a_script_is_not_run_again_unless_it_may_be() {
    let acts = |world: &World| world.story().matches("act").count();
    let mut setup = broken();
    setup.plan.rollback.rungs.truncate(1);
    let (mut never, mut again) = (0, 0);
    for effect in 1..World::run(setup.clone()).effects {
        for half in [Crash::HalfEffect(effect), Crash::BeforeEffect(effect)] {
            let once = World::run(Setup { crashes: vec![half], ..setup.clone() });
            assert!(acts(&once) <= 1, "{}", once.story());
            never += usize::from(once.story().contains("act?"));
            let mut twice = Setup { crashes: vec![half], ..setup.clone() };
            if let Method::Script { idempotent, .. } = &mut twice.plan.rollback.rungs[0].method {
                *idempotent = true;
            }
            let twice = World::run(twice);
            assert_eq!(twice.outcome(), StateName::Recovered, "{}", twice.story());
            again += usize::from(acts(&twice) == 2);
        }
    }
    assert!(never > 0 && again > 0, "no crash hit the script: {never}, {again}");
}
