//! Incidents that need people: abandoned, acknowledged, resolved; and processes that do not end.

use super::ladders::broken;
use super::setup::{Crash, Door, Migration, Script, Setup, Tables, Verification, When, at, contact, gate, secs};
use super::world::World;
use crate::plan::Severity;
use crate::run::event::Ask;
use crate::run::record::Record;
use crate::run::state::StateName;

const RESOLVED: Ask = Ask::Resolved { force: false };
const FORCED: Ask = Ask::Resolved { force: true };
const ABANDON: Ask = Ask::Cancel { abandon: true };

/// A ladder that comes to its end without success: an operator is needed.
fn helpless() -> Setup {
    Setup { script: Script::Fails, tables: Tables::Locked, limit: 8000, ..broken() }
}

/// The story from the operator on, without the pages and what the rules say.
fn aftermath(world: &World) -> String {
    let ladder = world.ladder();
    let from = ladder.find("operator").unwrap_or_else(|| panic!("no operator was needed: {ladder}"));
    let words = ladder[from..].split(' ').filter(|word| !["again", "healthy", "breached", "blind"].contains(word));
    words.collect::<Vec<_>>().join(" ")
}

#[test]
fn an_operator_is_paged_again_until_somebody_takes_charge() {
    let world = World::run(helpless());
    let pages = world.told("Operations").matches("rollback.needs_operator").count();
    assert!((8..=9).contains(&pages), "every 15 minutes: {pages}");
    let world = World::run(Setup { deeds: vec![(When::At(3000), Ask::Acknowledge)], ..helpless() });
    let pages = world.told("Operations").matches("rollback.needs_operator").count();
    assert!((3..=4).contains(&pages), "not after 3000 s: {pages}");
    assert!(world.ladder().ends_with("ack"), "{}", world.ladder());
    assert_eq!(world.outcome(), StateName::NeedsOperator);
}

#[test]
fn what_is_said_to_an_operator_cannot_turn_into_a_command() {
    let mut setup = helpless();
    setup.plan.rollback.gates[0].manual_start = "rm /run/edge/stop\nDROP TABLE profiles;".to_owned();
    let manual = World::run(setup).manual();
    assert!(manual.contains("rm /run/edge/stop DROP TABLE profiles;"), "{manual}");
    assert!(manual.lines().all(|line| !line.starts_with("DROP TABLE")), "{manual}");
}

#[test]
fn an_acknowledgement_cancels_escalations() {
    let mut setup = helpless();
    setup.plan.contacts.push(contact("Emergency"));
    setup.plan.contacts[1].severity = Severity::Critical;
    setup.plan.contacts[1].after = secs(600);
    let alone = World::run(setup.clone());
    let reached = |world: &World| world.mailbox.iter().filter(|(label, _)| label == "Emergency/email 1").count();
    assert!(reached(&alone) > 3, "nobody took charge");
    let first = alone.notices().find(|one| one.contact == "Emergency").expect("it is owed");
    assert_eq!(first.not_before.duration_since(first.at), secs(600));
    setup.deeds = vec![(When::State(StateName::NeedsOperator), Ask::Acknowledge)];
    let world = World::run(setup);
    assert_eq!(reached(&world), 0, "{:?}", world.mailbox);
    assert!(world.ladder().contains("ack unneeded unneeded"), "{}", world.ladder());
}

#[test]
fn an_abandoned_rollback_needs_an_operator() {
    for step in ["read_gate", "close_gate", "inspect", "act", "verify_closed", "open_gate", "verify_open"] {
        let world = World::run(Setup { deeds: vec![(When::Step(step), ABANDON)], limit: 2000, ..broken() });
        assert_eq!(world.outcome(), StateName::NeedsOperator, "{step}: {}", world.story());
        assert_eq!(world.reason(), "ana abandoned the rollback: because");
        let ends = aftermath(&world);
        assert_eq!(ends.split(' ').count(), 2, "the step in flight ends, and no other begins: {ends}");
    }
    let waiting = Setup { deeds: vec![(When::Waiting, ABANDON)], limit: 2000, ..broken() };
    let mut waiting = waiting;
    waiting.plan.rollback.approve_always = true;
    let world = World::run(waiting);
    assert_eq!(aftermath(&world), "operator");
    let again = Setup { deeds: vec![(When::Step("act"), ABANDON), (When::At(500), ABANDON)], limit: 900, ..broken() };
    assert!(World::run(again).refusals.concat().contains("`rollbackd window resolved` ends it"));
}

#[test]
fn an_incident_that_was_dealt_with_is_verified_and_settled() {
    let setup = Setup { verification: Verification::From(2000), deeds: vec![(When::At(2100), RESOLVED)], ..helpless() };
    let world = World::run(setup);
    assert_eq!(aftermath(&world), "operator resolving verify_closed+ open_gate0+ verify_open+ recovered");
    assert!(world.all_as_found());
    assert!(world.told("Operations").ends_with("rollback.recovered"));
    let last = world.notices().last().expect("a notice");
    assert!(last.message.summary.eq_ignore_ascii_case("dealt with by ana, and verified."), "{last:?}");
}

#[test]
fn an_incident_that_was_not_dealt_with_still_needs_an_operator() {
    let deeds = vec![(When::At(1500), RESOLVED), (When::At(2500), RESOLVED)];
    let world = World::run(Setup { verification: Verification::From(2000), deeds, ..helpless() });
    let ends =
        "operator resolving verify_closed- unresolved resolving verify_closed+ open_gate0+ verify_open+ recovered";
    assert_eq!(aftermath(&world), ends);
    let deeds = vec![(When::At(1500), RESOLVED)];
    let world = World::run(Setup { script: Script::Half, deeds: deeds.clone(), ..helpless() });
    assert_eq!(aftermath(&world), "operator resolving verify_closed- unresolved");
    assert!(world.all_closed());
    assert!(world.told("Operations").matches("rollback.needs_operator").count() > 4, "people are paged on");
    // The open stage fails: traffic is stopped again.
    let open = Setup { verification: Verification::OpenFails(9), deeds: vec![(When::At(1500), RESOLVED)], ..broken() };
    let world = World::run(Setup { limit: 4000, ..open });
    let ends = "operator resolving verify_closed+ open_gate0+ verify_open- close_gate0+ unresolved";
    assert_eq!(aftermath(&world), ends);
    assert!(world.all_closed());
}

#[test]
fn a_resolution_that_fails_stops_no_traffic_that_flowed_before() {
    let deeds = vec![(When::Step("read_gate"), ABANDON), (When::At(1500), RESOLVED)];
    let world = World::run(Setup { verification: Verification::Never, deeds, limit: 4000, ..broken() });
    assert_eq!(aftermath(&world), "operator read_gate0+ resolving verify_closed- unresolved");
    assert!(world.all_as_found(), "traffic stays as it is");
}

#[test]
fn an_incident_can_be_settled_by_force() {
    let world = World::run(Setup { deeds: vec![(When::At(1500), FORCED)], ..helpless() });
    assert_eq!(aftermath(&world), "operator resolving open_gate0+ abandoned");
    assert!(world.all_as_found());
    let last = world.notices().last().expect("a notice");
    assert!(last.message.summary.contains("ettled by ana by force: nothing was verified"), "{last:?}");
}

#[test]
fn by_force_every_gate_is_put_back_even_when_one_fails() {
    let mut setup =
        Setup { doors: vec![Door::Works, Door::Sticks(9)], deeds: vec![(When::At(1500), FORCED)], ..helpless() };
    setup.plan.rollback.gates.push(gate("pool"));
    let world = World::run(setup);
    assert_eq!(aftermath(&world), "operator resolving open_gate1- open_gate0+ abandoned");
    assert_eq!(world.gates[0], "as it was");
    let last = world.notices().last().expect("a notice");
    assert!(last.message.summary.contains("traffic could not be resumed: gate pool"), "{last:?}");
}

#[test]
fn a_gate_that_failed_to_open_is_tried_again_by_force() {
    // Abandoned while the gate is being opened; the opening fails.
    let deeds = vec![(When::Step("open_gate"), ABANDON), (When::At(1500), FORCED)];
    let world = World::run(Setup { doors: vec![Door::Sticks(1)], deeds, ..broken() });
    assert_eq!(aftermath(&world), "operator open_gate0- resolving open_gate0+ abandoned");
    assert!(world.all_as_found());
}

#[test]
fn a_process_that_cannot_be_ended_needs_an_operator_with_traffic_stopped() {
    let setup =
        Setup { migration: Migration::Hangs, unkillable: true, sick_at: Some(400), limit: 3000, ..Setup::default() };
    let whole = World::run(Setup { unkillable: false, ..setup.clone() });
    let world = (1..=whole.appends)
        .map(|append| World::run(Setup { crashes: vec![Crash::AfterAppend(append)], ..setup.clone() }))
        .find(|world| world.story().contains("end_process-"))
        .expect("one of them crashes during the migration");
    assert!(
        world.ladder().starts_with("breach:rule end_process- read_gate0+ close_gate0+ operator"),
        "{}",
        world.ladder()
    );
    assert!(world.reason().contains("could not be ended: process 7 hangs in the kernel"), "{}", world.reason());
    assert!(world.all_closed());
}

#[test]
fn a_window_that_needs_an_operator_lets_no_other_open() {
    let world = World::run(Setup { deeds: vec![(When::At(3000), Ask::Open { guard: false })], ..helpless() });
    assert!(world.refusals.concat().contains("is open (needs_operator); one at a time"), "{:?}", world.refusals);
    assert_eq!(world.count(|record| matches!(record, Record::WindowOpened { .. })), 1);
    assert!(world.now >= at(8000));
}
