//! Windows without a rollback: passed, refused, cancelled, held; and what makes a rollback start.

use super::setup::{ADDED, Crash, Migration, Setup, When, at, plan, secs};
use super::world::World;
use crate::plan::{Consequence, OnCommandFailure};
use crate::run::event::Ask;
use crate::run::record::{MigrationEnd, Record, Trigger, WindowOutcome};
use crate::run::state::StateName;
use crate::run::step::Step;

const PREPARED: &str = "| open preflight+ warm backup+";

#[test]
fn a_healthy_migration_passes_after_the_soak() {
    let world = World::run(Setup::default());
    assert_eq!(world.story(), format!("{PREPARED} migrate+ finished:Succeeded passed"));
    assert_eq!(world.told("Operations"), "window.opened window.passed");
    assert_eq!(world.left(), ADDED.len());
    let [finished, settled] = ["finished", "passed"].map(|what| {
        let is = |record: &Record| {
            matches!(
                (what, record),
                ("finished", Record::MigrationFinished { .. }) | ("passed", Record::WindowSettled { .. })
            )
        };
        world.journal.iter().find(|entry| is(&entry.record)).expect("recorded").at
    });
    assert_eq!(settled.duration_since(finished), secs(600));
}

#[test]
fn a_preflight_that_fails_refuses_the_window() {
    let world = World::run(Setup { preflight: false, ..Setup::default() });
    assert_eq!(world.story(), "| open preflight- refused");
    assert_eq!(world.told("Operations"), "window.opened window.refused");
    let last = world.notices().last().expect("a notice");
    assert_eq!(last.message.summary, "The preflight failed.");
    assert_eq!(last.message.state, "refused");
}

#[test]
fn signals_that_are_bad_before_refuse_the_window() {
    let world = World::run(Setup { sick: true, ..Setup::default() });
    assert_eq!(world.story(), "| open preflight+ breached refused");
    assert_eq!(world.told("Operations"), "window.opened window.refused");
    let last = world.notices().last().expect("a notice");
    assert!(last.message.summary.ends_with("he signals were not healthy for 30s: signal api was bad."), "{last:?}");
}

#[test]
fn a_warm_up_that_is_configured_away_is_left_out() {
    let mut setup = Setup { blind: Some((0, 100)), ..Setup::default() };
    let world = World::run(setup.clone());
    assert_eq!(world.outcome(), StateName::Refused);
    setup.plan.preflight_skipped = vec!["signals".to_owned()];
    let world = World::run(setup.clone());
    assert_eq!(world.outcome(), StateName::Passed, "{}", world.story());
    let opened = world.notices().next().expect("a notice");
    assert!(opened.message.details.contains(&"Preflight checks left out by configuration: signals.".to_owned()));
    let broken = World::run(Setup { sick: true, blind: None, backup_takes: 30, ..setup });
    assert_eq!(broken.outcome(), StateName::Refused, "what is broken already is not migrated: {}", broken.story());
}

#[test]
fn a_backup_that_fails_refuses_the_window() {
    let world = World::run(Setup { backup: false, ..Setup::default() });
    assert_eq!(world.story(), "| open preflight+ warm backup- refused");
    assert_eq!(world.left(), 0);
}

#[test]
fn an_application_that_breaks_during_the_backup_refuses_the_window() {
    let world = World::run(Setup { sick_at: Some(20), backup_takes: 100, ..Setup::default() });
    assert_eq!(world.story(), "| open preflight+ warm breached refused");
    let last = world.notices().last().expect("a notice");
    assert!(last.message.summary.contains("he application broke before the migration started"), "{last:?}");
}

/// What people were told last.
fn last_notice(world: &World) -> &str {
    world.notices().last().map_or("", |notice| &notice.message.summary)
}

#[test]
fn a_migration_that_fails_is_rolled_back() {
    let world = World::run(Setup { migration: Migration::Fails, ..Setup::default() });
    assert!(world.ladder().starts_with("breach:migration read_gate0+"), "{}", world.story());
    assert_eq!(world.outcome(), StateName::Recovered);
}

#[test]
fn a_migration_that_fails_is_left_to_the_signals_where_the_plan_says_so() {
    let mut setup = Setup { migration: Migration::Fails, ..Setup::default() };
    setup.plan.window.on_command_failure = OnCommandFailure::Leave;
    let world = World::run(setup.clone());
    assert_eq!(world.story(), format!("{PREPARED} migrate- finished:FailedAndLeft passed"));
    let said = last_notice(&world);
    assert!(
        said.contains("healthy for 10m after the migration, which failed and was left: the migration exited with 1"),
        "{said}"
    );
    setup.breaks = Some(Consequence::Rollback);
    let world = World::run(setup);
    assert!(world.story().starts_with(&format!("{PREPARED} migrate- finished:FailedAndLeft breached breach:rule")));
}

#[test]
fn our_migration_that_runs_at_the_hard_end_is_a_breach() {
    let world = World::run(Setup { migration: Migration::Hangs, ..Setup::default() });
    assert!(world.story().starts_with(&format!("{PREPARED} migrate! breach:hard_end")), "{}", world.story());
    assert_eq!(world.outcome(), StateName::Recovered);
    let breach = world.journal.iter().find(|entry| matches!(entry.record, Record::BreachDetected { .. }));
    assert_eq!(breach.expect("a breach").at, at(3600));
}

#[test]
fn somebody_elses_migration_counts_as_finished_at_the_hard_end() {
    let mut setup = Setup { ..Setup::default() };
    setup.plan.window.command = None;
    let world = World::run(setup);
    assert_eq!(world.story(), format!("{PREPARED} finished:HardEnd passed"));
    assert_eq!(world.now, at(3600 + 600 + 1), "a soak is never cut short by the hard end");
}

#[test]
fn somebody_reports_that_the_migration_is_finished() {
    let mut setup = Setup { deeds: vec![(When::State(StateName::Watching), Ask::Finished)], ..Setup::default() };
    setup.plan.window.command = None;
    let world = World::run(setup.clone());
    assert_eq!(world.story(), format!("{PREPARED} finished:Reported passed"));
    let refused = |when| {
        let mut setup = Setup { deeds: vec![(when, Ask::Finished)], ..Setup::default() };
        setup.plan.window.command = None;
        World::run(setup).refusals.concat()
    };
    assert!(refused(When::State(StateName::Preparing)).contains("must not have started yet"));
    assert!(refused(When::State(StateName::Soaking)).contains("knows that the migration is finished"));
    let ours = World::run(Setup { deeds: vec![(When::Step("migrate"), Ask::Finished)], ..Setup::default() });
    assert!(ours.refusals.concat().contains("runs the migration itself"));
}

#[test]
fn a_backup_that_is_not_ready_by_the_hard_end_refuses_the_window() {
    for command in [true, false] {
        let mut setup = Setup { backup_takes: 2 * 3600, ..Setup::default() };
        if !command {
            setup.plan.window.command = None;
        }
        let world = World::run(setup);
        assert_eq!(world.outcome(), StateName::Refused, "{}", world.story());
        assert!(world.now <= at(3601), "it is not waited for any longer");
        assert_eq!((world.left(), world.all_as_found()), (0, true));
        assert!(!world.story().contains("migrate"), "{}", world.story());
    }
}

#[test]
fn a_window_that_was_down_until_its_hard_end_does_not_migrate_late() {
    let world = World::run(Setup { crashes: vec![Crash::AfterAppend(3)], down: 4000, ..Setup::default() });
    assert_eq!(world.outcome(), StateName::Refused, "{}", world.story());
    assert_eq!(world.left(), 0);
}

#[test]
fn a_soak_begins_anew_after_a_restart() {
    // The crash comes with the end of the migration durable; the program is down for longer than the soak.
    let setup = Setup { down: 2000, ..Setup::default() };
    let whole = World::run(setup.clone());
    let finished = (1..=whole.appends)
        .map(|append| World::run(Setup { crashes: vec![Crash::AfterAppend(append)], ..setup.clone() }))
        .find(|world| world.story().contains("finished:Succeeded | passed"))
        .expect("one of them crashes in the soak");
    let started = finished.journal.iter().rfind(|entry| matches!(entry.record, Record::Started { .. }));
    let settled = finished.journal.iter().rfind(|entry| matches!(entry.record, Record::WindowSettled { .. }));
    let watched = settled.expect("settled").at.duration_since(started.expect("started").at);
    assert!(watched >= secs(600), "nobody looked while the program was down, and it passed after {watched:#}");
}

#[test]
fn blind_pages_and_neither_passes_nor_rolls_back() {
    let world = World::run(Setup { blind: Some((200, 5000)), ..Setup::default() });
    assert_eq!(world.story(), format!("{PREPARED} migrate+ finished:Succeeded blind healthy passed"));
    assert_eq!(world.told("Operations"), "window.opened signal.blind window.passed");
    assert!(world.now >= at(5000), "it passed while nothing could be seen");
}

#[test]
fn what_cannot_be_seen_at_the_end_of_the_soak_does_not_pass() {
    let world = World::run(Setup { unseen: Some((200, 3000)), ..Setup::default() });
    assert_eq!(world.story(), format!("{PREPARED} migrate+ finished:Succeeded passed"));
    assert!(world.now >= at(3000), "it passed while nothing could be seen");
}

#[test]
fn a_rule_that_pages_does_not_roll_back() {
    let world = World::run(Setup { breaks: Some(Consequence::Page), ..Setup::default() });
    assert_eq!(world.story(), format!("{PREPARED} migrate+ finished:Succeeded page passed"));
    assert_eq!(world.told("Operations"), "window.opened rule.page window.passed");
}

#[test]
fn a_rule_that_freezes_holds_decisions_until_the_hard_end() {
    let world = World::run(Setup { breaks: Some(Consequence::Freeze), ..Setup::default() });
    assert_eq!(world.story(), format!("{PREPARED} migrate+ finished:Succeeded page hold resume passed"));
    assert_eq!(world.told("Operations"), "window.opened rule.page rule.page window.passed");
    let resumed = world.journal.iter().find(|entry| matches!(entry.record, Record::HoldEnded { .. }));
    assert_eq!(resumed.expect("the hold ended").at, at(3600));
}

#[test]
fn a_hold_in_the_soak_keeps_a_breach_back_until_it_ends() {
    let setup = Setup {
        breaks: Some(Consequence::Rollback),
        deeds: vec![(When::Step("migrate"), Ask::Hold), (When::At(1000), Ask::Resume)],
        ..Setup::default()
    };
    let world = World::run(setup.clone());
    assert!(
        world.story().starts_with(&format!("{PREPARED} hold migrate+ finished:Succeeded breached resume breach:rule")),
        "{}",
        world.story()
    );
    let forgotten = World::run(Setup { deeds: vec![(When::Step("migrate"), Ask::Hold)], ..setup });
    let breach = forgotten.journal.iter().find(|entry| matches!(entry.record, Record::BreachDetected { .. }));
    let breach = breach.expect("a hold ends at the hard end").at;
    assert!(at(3600) <= breach && breach <= at(3611), "{breach}");
    assert!(forgotten.told("Operations").contains("rule.page breach.detected"), "the clock's end of a hold is told");
}

#[test]
fn a_hold_begun_after_the_hard_end_ends_one_window_later() {
    let mut setup = Setup { deeds: vec![(When::At(3700), Ask::Hold)], ..Setup::default() };
    setup.plan.window.command = None;
    let world = World::run(setup);
    let resumed = world.journal.iter().find(|entry| matches!(entry.record, Record::HoldEnded { .. }));
    assert_eq!(resumed.expect("the hold ended").at, at(3700 + 3600));
}

#[test]
fn a_failed_migration_waits_for_the_end_of_a_hold() {
    let setup = Setup {
        migration: Migration::Fails,
        deeds: vec![(When::Step("migrate"), Ask::Hold), (When::At(500), Ask::Resume)],
        ..Setup::default()
    };
    let world = World::run(setup);
    assert!(world.story().starts_with(&format!("{PREPARED} hold migrate- resume breach:migration")));
}

#[test]
fn a_window_can_be_cancelled_until_something_would_be_left_half_done() {
    let cancel = Ask::Cancel { abandon: false };
    for when in [When::State(StateName::Preparing), When::Step("backup"), When::State(StateName::Soaking)] {
        let world = World::run(Setup { deeds: vec![(when, cancel.clone())], ..Setup::default() });
        assert_eq!(world.outcome(), StateName::Cancelled, "{when:?}");
        assert_eq!(world.told("Operations"), "window.opened window.cancelled");
    }
    let migrating = World::run(Setup { deeds: vec![(When::Step("migrate"), cancel.clone())], ..Setup::default() });
    assert_eq!(migrating.outcome(), StateName::Passed);
    assert!(migrating.refusals.concat().contains("leave it half done and unguarded"));
    let mut theirs = Setup { deeds: vec![(When::State(StateName::Watching), cancel.clone())], ..Setup::default() };
    theirs.plan.window.command = None;
    assert_eq!(World::run(theirs).outcome(), StateName::Cancelled);
    let acting = World::run(Setup {
        breaks: Some(Consequence::Rollback),
        deeds: vec![(When::Step("act"), cancel)],
        ..Setup::default()
    });
    assert_eq!(acting.outcome(), StateName::Recovered);
    assert!(acting.refusals.concat().contains("--abandon"));
}

#[test]
fn an_operator_rolls_back_by_hand() {
    let setup = Setup { deeds: vec![(When::State(StateName::Soaking), Ask::Rollback)], ..Setup::default() };
    let world = World::run(setup);
    assert!(world.ladder().starts_with("breach:operator"), "{}", world.story());
    assert_eq!(world.outcome(), StateName::Recovered);
    let during = Setup { deeds: vec![(When::Step("migrate"), Ask::Rollback)], ..Setup::default() };
    let during = World::run(during);
    assert!(during.ladder().starts_with("breach:operator migrate- end_process+ read_gate0+"), "{}", during.ladder());
    assert_eq!(during.outcome(), StateName::Recovered);
    let early = Setup { deeds: vec![(When::State(StateName::Preparing), Ask::Rollback)], ..Setup::default() };
    assert!(World::run(early).refusals.concat().contains("nothing was changed yet"));
    let again = Setup { breaks: Some(Consequence::Rollback), ..Setup::default() };
    let again = World::run(Setup { deeds: vec![(When::Step("act"), Ask::Rollback)], ..again });
    assert!(again.refusals.concat().contains("there is one rollback a window"));
}

#[test]
fn what_no_window_can_answer_is_refused() {
    for ask in [Ask::Finished, Ask::Hold, Ask::Resume, Ask::Rollback, Ask::Approve, Ask::Decline, Ask::Acknowledge] {
        let world =
            World::run(Setup { deeds: vec![(When::State(StateName::Preparing), ask.clone())], ..Setup::default() });
        assert_eq!(world.refusals.len(), 1, "{ask:?}");
        assert_eq!(world.outcome(), StateName::Passed);
    }
    let resolved = Ask::Resolved { force: true };
    let world = World::run(Setup { deeds: vec![(When::State(StateName::Soaking), resolved)], ..Setup::default() });
    assert!(world.refusals.concat().contains("does not need an operator"));
}

#[test]
fn a_migration_that_outlives_a_crash_is_waited_for() {
    let crashed = during_migration(&long());
    assert!(crashed.story().contains("migrate? await_process+ finished:ExitUnknown passed"), "{}", crashed.story());
    let said = last_notice(&crashed);
    assert!(said.contains("how the migration ended is not known"), "{said}");
    let how =
        crashed.count(|record| matches!(record, Record::MigrationFinished { how: MigrationEnd::ExitUnknown, .. }));
    assert_eq!(how, 1);
}

#[test]
fn a_migration_that_outlives_a_crash_and_the_hard_end_is_ended_and_rolled_back() {
    let crashed = during_migration(&Setup { migration: Migration::Hangs, ..long() });
    assert!(
        crashed.story().contains("migrate? await_process! breach:hard_end end_process+ read_gate0+"),
        "{}",
        crashed.story()
    );
    assert_eq!(crashed.outcome(), StateName::Recovered);
}

#[test]
fn a_breach_ends_a_migration_that_outlived_a_crash() {
    let crashed = during_migration(&Setup { sick_at: Some(400), ..long() });
    let ladder = crashed.ladder();
    assert!(ladder.starts_with("breach:rule end_process+ await_process+ read_gate0+"), "{}", crashed.story());
    let breach = crashed
        .journal
        .iter()
        .find(|entry| matches!(&entry.record, Record::BreachDetected { trigger: Trigger::Rules { .. } }));
    let settled = crashed
        .journal
        .iter()
        .find(|entry| matches!(entry.record, Record::WindowSettled { outcome: WindowOutcome::Recovered, .. }));
    let took = settled.expect("it has recovered").at.duration_since(breach.expect("a breach").at);
    assert!(took < secs(60), "it took {took:#}: {}", crashed.story());
}

/// A migration of 20 minutes.
fn long() -> Setup {
    Setup { migration_takes: 1200, plan: plan(), ..Setup::default() }
}

/// The world of a setup with a crash while the migration runs.
fn during_migration(setup: &Setup) -> World {
    let whole = World::run(setup.clone());
    (1..=whole.appends)
        .map(|append| World::run(Setup { crashes: vec![Crash::AfterAppend(append)], ..setup.clone() }))
        .find(|world| {
            let awaits =
                |record: &Record| matches!(record, Record::StepStarted { step: Step::AwaitProcess { .. }, .. });
            world.count(awaits) > 0
        })
        .expect("one of them crashes during the migration")
}
