//! What leads to a rollback, and what does not.

use crate::endings::HARMLESS;
use crate::stage::{Mood, Running, Stage, until};

/// A harmless migration under guard, up to its soak.
fn soaking(stage: &Stage) -> Running {
    let guard = stage.start_guard_sql(HARMLESS);
    stage.wait_for_state("soaking");
    guard
}

#[test]
fn two_blips_are_no_breach() {
    let mut stage = Stage::new("blips");
    stage.plan.change("soak = \"1s\"", "soak = \"3s\"");
    let guard = soaking(&stage);
    for _ in 0..2 {
        stage.app.fail_next(2);
        until("the blip is over", || stage.app.failures_left() == 0);
        stage.app.wait_for_requests(2);
    }
    assert_eq!(stage.window_state().as_deref(), Some("soaking"), "the blips came in time");
    guard.end().expect(0);
    assert_eq!(stage.hooks.events(), ["window.opened", "window.passed"]);
    assert_eq!(stage.new_tables(), ["public.invoices"]);
    stage.assert_originals_whole();
}

#[test]
fn a_query_that_is_wrong_makes_us_blind_and_nothing_more() {
    let mut stage = Stage::new("blind-query");
    stage.database.sql("create table flags (well bool); insert into flags values (true)");
    stage.plan.signals.push_str(
        "\n[[signal]]\nname = \"flag\"\nevery = \"100ms\"\ntimeout = \"2s\"\n[signal.postgres]\nquery = \"select well from flags\"\n",
    );
    stage.plan.rules.push_str("\n[[rule]]\nname = \"flag\"\nsignal = \"flag\"\nconsecutive = 2\nthen = \"rollback\"\n");
    stage.plan.change("soak = \"1s\"", "soak = \"1500ms\"");
    let guard = stage.start_guard_sql("alter table flags rename well to fine");
    let notice = stage.hooks.wait_for("signal.blind");
    assert!(notice["data"]["summary"].as_str().unwrap().contains("flag"), "{notice:#}");

    // The soak is long over by its own measure, and nothing passes.
    stage.app.wait_for_requests(20);
    assert_eq!(stage.window_state().as_deref(), Some("soaking"));
    assert_eq!(stage.status().unwrap()["verdict"], "blind");
    stage.database.sql("alter table flags rename fine to well");
    guard.end().expect(0);
    assert_eq!(stage.report()["trigger"], serde_json::Value::Null);
    assert!(!stage.hooks.events().contains(&"breach.detected".to_owned()));
    stage.assert_originals_whole();
}

#[test]
fn who_cannot_find_out_does_not_roll_back() {
    let mut stage = Stage::new("blind-limited");
    stage.plan.change("soak = \"1s\"", "soak = \"5s\"");
    let guard = soaking(&stage);
    stage.app.mood(Mood::Limiting);
    stage.hooks.wait_for("signal.blind");
    assert_eq!(stage.window_state().as_deref(), Some("soaking"));
    stage.cli(&["window", "cancel", "--reason", "nobody can see anything"]).expect(0);
    guard.end().expect(23);
    assert_eq!(stage.report()["outcome"], "cancelled");
    assert_eq!(stage.new_tables(), ["public.invoices"], "nothing was taken back");
    stage.assert_originals_whole();
}

#[test]
fn an_application_that_is_gone_is_a_breach() {
    let mut stage = Stage::new("gone");
    let address = stage.app.address();
    let port = format!("\n[[signal]]\nname = \"port\"\nevery = \"100ms\"\n[signal.tcp]\naddress = \"{address}\"\n");
    stage.plan.signals.push_str(&port);
    stage.plan.rules = "\n[[rule]]\nname = \"port\"\nsignal = \"port\"\nconsecutive = 2\nthen = \"rollback\"\n".into();
    stage.plan.change("soak = \"1s\"", "soak = \"30s\"");
    let guard = soaking(&stage);
    stage.app.leave();
    let notice = stage.hooks.wait_for("breach.detected");
    assert_eq!(notice["data"]["reason"]["signal"], "port", "{notice:#}");
    stage.app.come_back();
    guard.end().expect(20);
    stage.assert_originals_whole();
}

#[test]
fn an_application_that_hangs_is_a_breach() {
    let mut stage = Stage::new("hanging");
    stage.plan.change("timeout = \"3s\"", "timeout = \"500ms\"");
    stage.plan.change("soak = \"1s\"", "soak = \"30s\"");
    let guard = soaking(&stage);
    stage.app.mood(Mood::Hanging);
    let notice = stage.hooks.wait_for("breach.detected");
    assert!(notice["data"]["summary"].as_str().unwrap().contains("no answer"), "{notice:#}");
    stage.app.mood(Mood::Honest);
    guard.end().expect(20);
    stage.assert_originals_whole();
}

#[test]
fn a_share_of_errors_is_a_breach_with_its_evidence() {
    let mut stage = Stage::new("ratio");
    stage.plan.rules = "\n[[rule]]\nname = \"errors\"\nsignal = \"api\"\nerror_ratio_above = 0.3\nover = \"2s\"\n\
        min_samples = 5\nthen = \"rollback\"\n"
        .to_owned();
    stage.plan.change("soak = \"1s\"", "soak = \"30s\"");
    let guard = soaking(&stage);
    stage.app.mood(Mood::Failing);
    stage.hooks.wait_for("breach.detected");
    stage.app.mood(Mood::Honest);
    guard.end().expect(20);
    let evidence = stage.report()["trigger"]["evidence"][0].clone();
    assert_eq!((&evidence["rule"], &evidence["threshold"]), (&"errors".into(), &0.3.into()), "{evidence:#}");
    assert!(evidence["observed"].as_f64().unwrap() > 0.3, "{evidence:#}");
    assert!(evidence["samples"].as_u64().unwrap() >= 5, "{evidence:#}");
    stage.assert_originals_whole();
}

#[test]
fn a_rule_that_pages_does_not_roll_back() {
    let mut stage = Stage::new("paging");
    stage.plan.rules.push_str("\n[[rule]]\nname = \"one\"\nsignal = \"api\"\nconsecutive = 1\nthen = \"page\"\n");
    stage.plan.change("soak = \"1s\"", "soak = \"2s\"");
    let guard = soaking(&stage);
    stage.app.fail_next(2);
    stage.hooks.wait_for("rule.page");
    guard.end().expect(0);
    stage.assert_originals_whole();
}

#[test]
fn a_soak_ends_whatever_else_comes_in_at_that_moment() {
    let mut stage = Stage::new("busy");
    let address = stage.app.address();
    for number in 1..=8 {
        let port = format!(
            "\n[[signal]]\nname = \"port {number}\"\nevery = \"10ms\"\n[signal.tcp]\naddress = \"{address}\"\n"
        );
        stage.plan.signals.push_str(&port);
    }
    stage.guard_sql(HARMLESS).expect(0);
    stage.assert_originals_whole();
}
