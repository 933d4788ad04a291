//! Rollbacks: what the rungs do, what is made of it, and how traffic is stopped and resumed.

use super::setup::{
    Door, Migration, Script, Setup, Tables, Verification, When, at, gate, partial_rung, script_rung, secs, tables_rung,
};
use super::world::World;
use crate::baseline::Class;
use crate::plan::{Consequence, Method, TableChoice};
use crate::run::event::Ask;
use crate::run::record::Record;
use crate::run::state::StateName;

/// A migration that breaks the application.
pub(super) fn broken() -> Setup {
    Setup { breaks: Some(Consequence::Rollback), ..Setup::default() }
}

const STOPPED: &str = "breach:rule read_gate0+ close_gate0+";
const RESUMED: &str = "verify_closed+ open_gate0+ verify_open+ recovered";

/// Why a rung failed.
fn failed(rung: usize, world: &World) -> String {
    let reason = world.journal.iter().find_map(|entry| {
        if let Record::RungFailed { rung: one, reason } = &entry.record {
            (*one == rung).then(|| reason.clone())
        } else {
            None
        }
    });
    reason.unwrap_or_else(|| panic!("rung {rung} has not failed: {}", world.story()))
}

#[test]
fn the_script_heals() {
    let world = World::run(broken());
    assert_eq!(world.ladder(), format!("{STOPPED} rung1 inspect+ act+ inspect+ {RESUMED}"));
    assert_eq!(world.told("Operations"), "window.opened breach.detected rollback.started rollback.recovered");
    assert!(world.all_as_found());
    assert_eq!(world.left(), 0);
}

#[test]
fn a_script_that_lies_is_found_out_and_the_tables_are_taken() {
    let world = World::run(Setup { script: Script::Lies, ..broken() });
    let ladder = format!("{STOPPED} rung1 inspect+ act+ inspect+ failed1 rung2 inspect+ act+ inspect+ {RESUMED}");
    assert_eq!(world.ladder(), ladder);
    assert_eq!(failed(0, &world), "the script exited with 0, but it changed nothing: still 4 tables added");
    let told = "window.opened breach.detected rollback.started rung.failed rollback.recovered";
    assert_eq!(world.told("Operations"), told);
}

#[test]
fn a_script_that_fails_with_nothing_left_has_done_it() {
    let world = World::run(Setup { script: Script::FailsButHeals, ..broken() });
    assert_eq!(world.ladder(), format!("{STOPPED} rung1 inspect+ act- inspect+ {RESUMED}"));
}

#[test]
fn a_script_that_fails_or_takes_too_long_makes_room_for_the_next_rung() {
    let rest = format!("inspect+ failed1 rung2 inspect+ act+ inspect+ {RESUMED}");
    let world = World::run(Setup { script: Script::Fails, ..broken() });
    assert_eq!(world.ladder(), format!("{STOPPED} rung1 inspect+ act- {rest}"));
    assert_eq!(failed(0, &world), "the script exited with 1; still 4 tables added");
    let world = World::run(Setup { script: Script::TimesOut, ..broken() });
    assert_eq!(world.ladder(), format!("{STOPPED} rung1 inspect+ act! {rest}"));
}

#[test]
fn a_script_that_did_half_is_judged_by_the_verification() {
    let world = World::run(Setup { script: Script::Half, ..broken() });
    let ladder =
        format!("{STOPPED} rung1 inspect+ act+ inspect+ verify_closed- failed1 rung2 inspect+ act+ inspect+ {RESUMED}");
    assert_eq!(world.ladder(), ladder);
    assert_eq!(failed(0, &world), "verification with traffic stopped failed: tables: wrong");
}

#[test]
fn an_operator_gets_the_exact_commands_when_every_rung_has_failed() {
    let world = World::run(Setup { script: Script::Half, tables: Tables::Locked, ..broken() });
    let ladder = "rung1 inspect+ act+ inspect+ verify_closed- failed1 rung2 inspect+ act- inspect+ failed2 operator";
    assert!(world.ladder().starts_with(&format!("{STOPPED} {ladder}")), "{}", world.ladder());
    assert_eq!(
        world.reason(),
        "every rung of the ladder has failed; the last: the tables are locked by session 7; still 2 tables added"
    );
    assert!(world.all_closed(), "traffic is left stopped");
    let manual = world.manual();
    for table in [r#""public"."pages""#, r#""public"."user_sessions""#] {
        assert!(
            manual.contains(&format!(r#"ALTER TABLE {table} SET SCHEMA "rollbackd_20261122t020000z";"#)),
            "{manual}"
        );
    }
    assert!(!manual.contains("content_blocks"), "it is gone already: {manual}");
    for told in [
        "Gate edge is closed; step 4 opens it (by hand: rm /run/edge/stop)",
        r#"SELECT count(*) FROM "public"."profiles";  -- was 7"#,
        "backups/pre-migration-1",
        "rollbackd window resolved",
    ] {
        assert!(manual.contains(told), "{told} is missing: {manual}");
    }
    let all = World::run(Setup { script: Script::Lies, tables: Tables::Locked, ..broken() }).manual();
    assert!(all.contains(r#"ALTER TABLE "public"."media ""files""" SET SCHEMA"#), "{all}");
}

#[test]
fn nothing_left_from_the_beginning_is_proved_without_acting() {
    let world = World::run(Setup { sick_at: Some(20), ..during_migration() });
    assert_eq!(
        world.ladder(),
        format!("breach:rule migrate- end_process+ read_gate0+ close_gate0+ rung1 inspect+ {RESUMED}")
    );
}

/// A migration that is ended before it has done anything.
fn during_migration() -> Setup {
    Setup { sick_at: Some(60), migration: Migration::Hangs, ..Setup::default() }
}

#[test]
fn a_breach_ends_the_migration_before_anything_else() {
    let world = World::run(during_migration());
    assert!(world.ladder().starts_with("breach:rule migrate- end_process+ read_gate0+"), "{}", world.story());
}

#[test]
fn a_verification_that_never_passes_ends_with_an_operator() {
    let world = World::run(Setup { verification: Verification::Never, ..broken() });
    let ladder = "rung1 inspect+ act+ inspect+ verify_closed- failed1 rung2 inspect+ verify_closed- failed2 operator";
    assert!(world.ladder().starts_with(&format!("{STOPPED} {ladder}")), "{}", world.ladder());
    assert!(world.manual().contains("Nothing differs from the baseline any more."), "{}", world.manual());
    assert!(world.all_closed());
}

#[test]
fn when_the_open_stage_fails_traffic_is_stopped_again() {
    let world = World::run(Setup { verification: Verification::OpenFails(1), ..broken() });
    let ladder =
        "rung1 inspect+ act+ inspect+ verify_closed+ open_gate0+ verify_open- failed1 close_gate0+ rung2 inspect+";
    assert_eq!(world.ladder(), format!("{STOPPED} {ladder} {RESUMED}"));
    assert!(world.all_as_found());
    let never = World::run(Setup { verification: Verification::OpenFails(9), ..broken() });
    assert!(never.ladder().contains("verify_open- failed2 close_gate0+ operator"), "{}", never.ladder());
    assert!(never.all_closed(), "traffic is left stopped");
}

#[test]
fn the_budget_ends_the_ladder_between_rungs() {
    let mut setup = Setup { script: Script::TimesOut, ..broken() };
    setup.plan.rollback.budget = secs(60);
    let world = World::run(setup);
    assert!(world.ladder().starts_with(&format!("{STOPPED} rung1 inspect+ act! inspect+ failed1 operator")));
    assert_eq!(world.reason(), "the rollback's budget of 1m is spent");
    assert!(world.all_closed());
    let act = world.journal.iter().find(|entry| matches!(entry.record, Record::RungFailed { .. })).expect("it failed");
    let breach = world.journal.iter().find(|entry| matches!(entry.record, Record::BreachDetected { .. }));
    assert!(act.at.duration_since(breach.expect("a breach").at) <= secs(62), "the script had what was left");
}

#[test]
fn nothing_is_begun_without_time() {
    // Held after the look before the act, until the budget is spent.
    let mut setup =
        Setup { deeds: vec![(When::Step("inspect"), Ask::Hold), (When::At(2000), Ask::Resume)], ..broken() };
    setup.plan.rollback.budget = secs(300);
    let world = World::run(setup);
    assert!(!world.ladder().contains("act"), "{}", world.ladder());
    assert_eq!(world.reason(), "the rollback's budget of 5m is spent");
}

#[test]
fn an_approval_is_waited_for_at_every_rung() {
    let mut setup = Setup {
        script: Script::Lies,
        deeds: vec![(When::Waiting, Ask::Approve), (When::Waiting, Ask::Approve)],
        ..broken()
    };
    setup.plan.rollback.approve_always = true;
    let world = World::run(setup);
    let ladder = "rung1 inspect+ ask yes inspect+ act+ inspect+ failed1 rung2 inspect+ ask yes inspect+ act+ inspect+";
    assert_eq!(world.ladder(), format!("{STOPPED} {ladder} {RESUMED}"));
    let told = "window.opened breach.detected rollback.started approval.required rung.failed approval.required";
    assert_eq!(world.told("Operations"), format!("{told} rollback.recovered"));
}

#[test]
fn an_approval_is_waited_for_at_the_rungs_that_need_it() {
    let mut setup = Setup { script: Script::Lies, deeds: vec![(When::Waiting, Ask::Approve)], ..broken() };
    setup.plan.rollback.rungs[1].needs_approval = true;
    let world = World::run(setup);
    let ladder = "rung1 inspect+ act+ inspect+ failed1 rung2 inspect+ ask yes inspect+ act+ inspect+";
    assert_eq!(world.ladder(), format!("{STOPPED} {ladder} {RESUMED}"));
}

#[test]
fn each_group_of_tables_is_a_step_and_the_rung_is_one() {
    let mut setup = Setup { tables: Tables::InGroups, ..broken() };
    setup.plan.rollback.rungs = vec![tables_rung()];
    let world = World::run(setup);
    assert_eq!(world.ladder(), format!("{STOPPED} rung1 inspect+ act+ act+ act+ act+ inspect+ {RESUMED}"));
    let details = world.journal.iter().rev().find_map(|entry| {
        if let Record::NoticeOwed { notice } = &entry.record { Some(notice.message.details.clone()) } else { None }
    });
    let details = details.expect("told");
    assert!(details.contains(&"Done: the tables were moved, after 3 groups before it".to_owned()), "{details:?}");
}

#[test]
fn partial_is_for_breaches_that_all_blame_tables() {
    let mut setup = broken();
    setup.plan.rollback.rungs.insert(0, partial_rung());
    assert!(World::run(setup.clone()).ladder().starts_with(&format!("{STOPPED} rung2 ")), "nothing is blamed");
    setup.blames = vec!["pages".to_owned()];
    assert!(World::run(setup.clone()).ladder().starts_with(&format!("{STOPPED} rung1 ")));
    // A rollback that people ask for, or that the migration's end leads to, blames no table.
    let asked = Setup { breaks: None, deeds: vec![(When::State(StateName::Soaking), Ask::Rollback)], ..setup.clone() };
    assert!(World::run(asked).ladder().contains("rung2 "));
    setup.plan.rollback.rungs.truncate(1);
    setup.blames = vec![];
    let world = World::run(setup);
    assert_eq!(world.reason(), "every rung of the ladder has failed; the last: there is none");
    assert!(world.all_closed());
}

#[test]
fn what_only_a_restore_brings_back_waits_for_a_person_with_traffic_stopped() {
    let setup = Setup { destroys: true, deeds: vec![(When::Waiting, Ask::Approve)], ..broken() };
    let world = World::run(setup.clone());
    let ladder = "rung1 inspect+ ask yes inspect+ act+ inspect+";
    assert_eq!(world.ladder(), format!("{STOPPED} {ladder} {RESUMED}"));
    let told = "window.opened breach.detected rollback.started approval.required rollback.recovered";
    assert_eq!(world.told("Operations"), told);
    let classified = world.journal.iter().find_map(|entry| {
        if let Record::Classified { class, reasons } = &entry.record { Some((*class, reasons.clone())) } else { None }
    });
    assert_eq!(classified, Some((Some(Class::Irreversible), vec!["table public.posts was dropped".to_owned()])));
    let world = World::run(Setup { deeds: vec![], ..setup });
    assert!(!world.ladder().contains("act"), "{}", world.ladder());
    assert!(world.all_closed());
}

#[test]
fn a_rung_that_is_declined_makes_room_for_the_next() {
    let mut setup = Setup { deeds: vec![(When::Waiting, Ask::Decline), (When::Waiting, Ask::Decline)], ..broken() };
    setup.plan.rollback.approve_always = true;
    let world = World::run(setup);
    assert!(
        world
            .ladder()
            .starts_with(&format!("{STOPPED} rung1 inspect+ ask failed1 rung2 inspect+ ask failed2 operator"))
    );
    assert_eq!(failed(0, &world), "declined by ana: because");
    assert!(world.all_closed());
}

#[test]
fn waiting_for_an_approval_is_paged_again_and_costs_no_budget() {
    let mut setup = Setup { deeds: vec![(When::At(8000), Ask::Approve)], ..broken() };
    setup.plan.rollback.rungs[0].needs_approval = true;
    let world = World::run(setup);
    let agains = world.ladder().matches("again").count();
    assert!((8..=9).contains(&agains), "every 15 minutes, for almost 8000 s: {}", world.ladder());
    assert_eq!(world.outcome(), StateName::Recovered, "{}", world.story());
    assert_eq!(world.told("Operations").matches("approval.required").count(), agains + 1);
}

#[test]
fn a_gate_that_cannot_be_closed_does_not_stand_in_the_way() {
    for (door, stopped) in [(Door::Jammed, "read_gate0+ close_gate0-"), (Door::Unreadable, "read_gate0-")] {
        let world = World::run(Setup { doors: vec![door], ..broken() });
        assert!(world.ladder().starts_with(&format!("breach:rule {stopped} rung1")), "{}", world.ladder());
        assert_eq!(world.outcome(), StateName::Recovered);
        assert!(world.all_as_found());
    }
}

/// Two gates, of which the first is required.
fn two_gates(doors: [Door; 2]) -> Setup {
    let mut setup = Setup { doors: doors.to_vec(), ..broken() };
    setup.plan.rollback.gates = vec![gate("edge"), gate("pool")];
    setup.plan.rollback.gates[0].required = true;
    setup
}

#[test]
fn a_required_gate_that_cannot_be_closed_needs_an_operator() {
    for (door, stopped) in [(Door::Jammed, "read_gate0+ close_gate0-"), (Door::Unreadable, "read_gate0-")] {
        let world = World::run(two_gates([door, Door::Works]));
        let ladder = format!("breach:rule {stopped} read_gate1+ close_gate1+ operator");
        assert!(world.ladder().starts_with(&ladder), "{}", world.ladder());
        assert!(world.reason().starts_with("the required gate edge could not be closed"), "{}", world.reason());
        assert_eq!(world.gates[1], "closed", "what can be stopped is stopped");
        assert_eq!(world.left(), 4);
    }
}

#[test]
fn a_required_gate_that_cannot_be_closed_again_leaves_the_others_closed() {
    let setup = Setup { verification: Verification::OpenFails(1), ..two_gates([Door::ClosesOnce, Door::Works]) };
    let world = World::run(setup);
    assert!(world.ladder().contains("verify_open- failed1 close_gate0- close_gate1+ operator"), "{}", world.ladder());
    assert_eq!(world.gates[1], "closed");
}

#[test]
fn gates_are_closed_in_order_and_put_back_in_reverse() {
    let world = World::run(two_gates([Door::Works, Door::Works]));
    let ladder = world.ladder();
    assert!(ladder.starts_with("breach:rule read_gate0+ close_gate0+ read_gate1+ close_gate1+ rung1"), "{ladder}");
    assert!(ladder.ends_with("verify_closed+ open_gate1+ open_gate0+ verify_open+ recovered"), "{ladder}");
}

#[test]
fn traffic_that_cannot_be_resumed_fails_the_rung_and_is_stopped_again() {
    let world = World::run(two_gates([Door::Sticks(1), Door::Works]));
    let ladder = "open_gate1+ open_gate0- failed1 close_gate0+ close_gate1+ rung2 inspect+ verify_closed+";
    assert!(world.ladder().contains(ladder), "{}", world.ladder());
    assert!(world.ladder().ends_with("open_gate1+ open_gate0+ verify_open+ recovered"), "{}", world.ladder());
    assert!(failed(0, &world).starts_with("traffic could not be resumed: gate edge"));
}

#[test]
fn a_hold_lets_the_step_end_and_pauses_before_the_next() {
    let setup = Setup { deeds: vec![(When::Step("close_gate"), Ask::Hold), (When::At(400), Ask::Resume)], ..broken() };
    let world = World::run(setup);
    let ladder = "breach:rule read_gate0+ hold close_gate0+ resume rung1 inspect+ act+ inspect+";
    assert_eq!(world.ladder(), format!("{ladder} {RESUMED}"));
    assert!(world.now >= at(400));
}

#[test]
fn a_hold_of_a_rollback_ends_at_the_hard_end() {
    let mut setup = Setup { deeds: vec![(When::Step("close_gate"), Ask::Hold)], ..broken() };
    setup.plan.rollback.budget = secs(7200);
    let world = World::run(setup);
    assert!(world.ladder().contains("hold close_gate0+ resume rung1"), "{}", world.ladder());
    assert!(world.now >= at(3600));
    assert_eq!(world.outcome(), StateName::Recovered);
}

#[test]
fn named_tables_may_leave_the_rest_to_the_verification() {
    let mut setup = broken();
    setup.plan.rollback.rungs = vec![tables_rung()];
    let world = World::run(setup.clone());
    assert_eq!(world.outcome(), StateName::Recovered);
    let mut removal = setup.plan.rollback.rungs.remove(0);
    if let Method::Tables(removal) = &mut removal.method {
        removal.tables = TableChoice::Named(vec!["pages".to_owned(), "cms.menus".to_owned()]);
    }
    setup.plan.rollback.rungs = vec![script_rung(), removal];
    // Nobody has seen the catalog: the tables that the plan names are named.
    setup.deeds = vec![(When::Step("close_gate"), Ask::Cancel { abandon: true })];
    let manual = World::run(setup).manual();
    assert!(manual.contains(r#"ALTER TABLE IF EXISTS "cms"."menus" SET SCHEMA"#), "{manual}");
    assert!(manual.contains(r#"ALTER TABLE IF EXISTS "public"."pages" SET SCHEMA"#), "{manual}");
}
