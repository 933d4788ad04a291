//! What becomes of the migration's own process.

use rollbackd_core::run::record::Record;
use rollbackd_core::run::step::Step;

use crate::endings::{BREAKING, HARMLESS};
use crate::stage::{QUARANTINE, Stage, script, until};

#[test]
fn one_that_fails_is_rolled_back() {
    let stage = Stage::new("failing");
    stage.guard_sql(&format!("{HARMLESS}; select 1/0;")).expect(20);
    let report = stage.report();
    assert_eq!(report["trigger"]["kind"], "migration");
    let why = report["trigger"]["sentence"].as_str().unwrap();
    assert!(why.contains("exited with 3") && why.contains("division by zero"), "{why}");
    let left = stage.new_tables();
    assert!(left.len() == 1 && left[0].starts_with("rollbackd_20") && left[0].ends_with(".invoices"), "{left:?}");
    stage.assert_originals_whole();
}

#[test]
fn one_that_fails_is_left_to_the_signals() {
    let mut stage = Stage::new("failing-left");
    stage.plan.change("on_command_failure = \"rollback\"", "on_command_failure = \"leave\"");
    stage.guard_sql(&format!("{HARMLESS}; select 1/0;")).expect(0);
    assert_eq!(stage.report()["outcome"], "passed");
    assert_eq!(stage.new_tables(), ["public.invoices"]);
    stage.assert_originals_whole();

    let mut stage = Stage::new("failing-ill");
    stage.plan.change("on_command_failure = \"rollback\"", "on_command_failure = \"leave\"");
    stage.guard_sql(&format!("{BREAKING}; select 1/0;")).expect(20);
    assert_eq!(stage.report()["trigger"]["kind"], "rule", "the signals decide");
    stage.assert_originals_whole();
}

#[test]
fn one_that_cannot_be_started_is_rolled_back() {
    let stage = Stage::new("no-program");
    let program = stage.path("no-such-program").display().to_string();
    let output = stage.guard(&["--", &program]);
    assert!(matches!(output.code, 20 | 22), "{output:?}");
    assert_eq!(stage.new_tables(), Vec::<String>::new());
    stage.assert_originals_whole();
}

#[test]
fn one_that_still_runs_at_a_breach_is_ended_before_the_rollback() {
    let mut stage = Stage::new("running-on");
    let sql = stage.migration(BREAKING).join(" ");
    let migrate = stage.script(
        "migrate.sh",
        &format!(
            "trap 'echo asked >>asked' TERM
            echo $$ >group
            {sql}
            (trap '' TERM; echo stubborn; sleep 300) &
            while :; do sleep 300 & wait; done"
        ),
    );
    // The first rung writes down who of the migration still runs.
    let look = stage
        .script("look.sh", "ps -eo pgid,pid,stat,args | grep \"^ *$(cat group) \" | grep -v defunct >seen; exit 1");
    stage.plan.rungs = script(&look) + QUARANTINE;
    stage.guard(&["--", &migrate]).expect(20);

    assert_eq!(stage.lines("asked"), ["asked"], "it was asked to end before it was made to");
    assert!(stage.path("seen").exists());
    assert_eq!(stage.lines("seen"), Vec::<String>::new(), "nothing of it ran when the ladder began");
    stage.assert_nothing_runs();
    stage.assert_originals_whole();
    let records: Vec<Record> = stage.records().into_iter().map(|entry| entry.record).collect();
    let at = |wanted: &dyn Fn(&Record) -> bool| records.iter().position(wanted).expect("it is recorded");
    let breach = at(&|record| matches!(record, Record::BreachDetected { .. }));
    let ending = at(&|record| matches!(record, Record::StepStarted { step: Step::EndProcess { .. }, .. }));
    let rung = at(&|record| matches!(record, Record::RungStarted { .. }));
    assert!(breach < ending && ending < rung, "{breach} {ending} {rung}");
}

#[test]
fn a_statement_that_outlives_its_client_is_ended_with_its_lock() {
    let mut stage = Stage::new("statement");
    stage.database.superuser().sql(&format!("grant pg_signal_backend to \"{}\"", stage.variables()["PGUSER"]));
    stage.plan.change("timeout = \"10s\"", "timeout = \"20s\"\non_blocked = \"terminate\"");
    stage.guard_sql(&format!("{BREAKING}; begin; lock table pages; select pg_sleep(300)")).expect(20);
    assert!(stage.new_tables().iter().all(|table| table.starts_with("rollbackd_20")), "{:?}", stage.new_tables());
    stage.assert_originals_whole();
}

#[test]
fn the_hard_end_ends_one_that_is_not_finished() {
    let mut stage = Stage::new("hard-end");
    stage.plan.change("duration = \"1m\"", "duration = \"5s\"");
    stage.guard_sql(&format!("{HARMLESS}; select pg_sleep(300)")).expect(20);
    let report = stage.report();
    assert_eq!(report["trigger"]["kind"], "hard_end");
    assert_eq!(stage.new_tables().len(), 1);
    assert!(stage.new_tables()[0].ends_with(".invoices"), "{:?}", stage.new_tables());
    stage.assert_nothing_runs();
    stage.assert_originals_whole();
}

#[test]
fn somebody_else_runs_it_and_says_when_it_is_finished() {
    let stage = Stage::new("reported");
    let guard = stage.start_guard::<&str>(&[]);
    stage.wait_for_state("watching");
    stage.database.sql(HARMLESS);
    stage.cli(&["window", "finished", "--reason", "done in the editor"]).expect(0);
    guard.end().expect(0);
    assert_eq!(stage.new_tables(), ["public.invoices"]);
    stage.assert_originals_whole();
}

#[test]
fn somebody_else_s_breaks_the_application() {
    let stage = Stage::new("theirs");
    let guard = stage.start_guard::<&str>(&[]);
    stage.wait_for_state("watching");
    stage.database.sql(BREAKING);
    guard.end().expect(20);
    stage.assert_originals_whole();
    until("the tables are in quarantine", || stage.new_tables().iter().all(|table| table.starts_with("rollbackd_20")));
}
