//! Stopping traffic and resuming it.

use rollbackd_core::run::record::Record;
use rollbackd_core::run::step::Step;
use serde_json::Value;

use crate::endings::BREAKING;
use crate::stage::{QUARANTINE, Stage, runtime, script, until};

/// Adds a gate of two commands, before or behind the file.
fn command_gate(stage: &Stage, more: &str) -> String {
    let stop = stage.script("stop.sh", "echo stop >>traffic; touch maintenance");
    let start = stage.script("start.sh", "echo start >>traffic");
    format!(
        "\n[[rollback.gate]]\nname = \"proxy\"\n{more}[rollback.gate.command]\nstop = [{stop:?}]\nstart = [{start:?}]\n"
    )
}

fn gate(report: &Value, name: &str) -> Value {
    let gates = report["gates"].as_array().unwrap();
    gates.iter().find(|gate| gate["name"] == name).unwrap_or_else(|| panic!("{gates:#?}")).clone()
}

/// What was done to the gates, in order.
fn moves(stage: &Stage) -> Vec<String> {
    let moved = |record| {
        if let Record::StepStarted { step: Step::CloseGate { gate }, .. } = record {
            Some(format!("close {gate}"))
        } else if let Record::StepStarted { step: Step::OpenGate { gate }, .. } = record {
            Some(format!("open {gate}"))
        } else if let Record::RungStarted { rung } = record {
            Some(format!("rung {rung}"))
        } else {
            None
        }
    };
    stage.records().into_iter().filter_map(|entry| moved(entry.record)).collect()
}

#[test]
fn are_closed_in_order_and_opened_in_reverse() {
    let mut stage = Stage::new("gates");
    let proxy = command_gate(&stage, "");
    stage.plan.gates.push_str(&proxy);
    stage.guard_sql(BREAKING).expect(20);
    assert_eq!(moves(&stage), ["close 0", "close 1", "rung 0", "open 1", "open 0"]);
    assert_eq!(stage.lines("traffic"), ["stop", "start"]);
    assert!(!stage.path("maintenance").exists());
    let report = stage.report();
    for name in ["edge", "proxy"] {
        let gate = gate(&report, name);
        assert_eq!((&gate["position"], &gate["failure"]), (&"reopened".into(), &Value::Null), "{gate:#}");
    }
    stage.assert_originals_whole();
}

#[test]
fn a_file_that_was_there_before_stays() {
    let mut stage = Stage::new("prior");
    std::fs::write(stage.path("batch-stopped"), "by hand, on Friday").unwrap();
    stage
        .plan
        .gates
        .push_str("\n[[rollback.gate]]\nname = \"batch\"\n[rollback.gate.file]\npath = \"batch-stopped\"\n");
    stage.guard_sql(BREAKING).expect(20);
    assert_eq!(stage.lines("batch-stopped"), ["by hand, on Friday"]);
    assert!(!stage.path("maintenance").exists(), "the other was opened");
    stage.assert_originals_whole();
}

#[test]
fn one_that_cannot_be_closed_does_not_keep_us_from_rolling_back() {
    let mut stage = Stage::new("gate-fails");
    let proxy = command_gate(&stage, "");
    stage.script("stop.sh", "echo 'proxy: no such pool' >&2; exit 4");
    stage.plan.gates.push_str(&proxy);
    stage.guard_sql(BREAKING).expect(20);
    let proxy = gate(&stage.report(), "proxy");
    stage.assert_originals_whole();
    assert_eq!(stage.lines("traffic"), ["start"], "what may have been half done is undone: {proxy:#}");
}

#[test]
fn one_that_is_required_must_close() {
    let mut stage = Stage::new("gate-required");
    let proxy = command_gate(&stage, "required = true\n");
    stage.script("stop.sh", "echo 'proxy: no such pool' >&2; exit 4");
    stage.plan.gates.push_str(&proxy);
    stage.guard_sql(BREAKING).expect(21);
    let report = stage.report();
    assert_eq!(report["rungs"], Value::Array(Vec::new()), "nothing was rolled back");
    let summary = report["summary"].to_string();
    assert!(summary.contains("required gate proxy") && summary.contains("no such pool"), "{summary}");
    assert_eq!(stage.new_tables(), ["public.media_files", "public.pages"]);
    stage.assert_originals_whole();
}

#[test]
fn the_canary_is_believed_and_not_the_gate() {
    let mut stage = Stage::new("canary");
    // The application does not look at this file.
    stage.plan.change("path = \"maintenance\"", "path = \"elsewhere\"");
    stage.plan.change("timeout = \"5s\"\n[rollback", "timeout = \"1s\"\nrequired = true\n[rollback");
    stage.guard_sql(BREAKING).expect(21);
    let report = stage.report();
    let failure = gate(&report, "edge")["failure"].clone();
    assert!(failure.as_str().unwrap().contains("not proven to be stopped"), "{failure}");
    assert_eq!(stage.new_tables(), ["public.media_files", "public.pages"]);
    stage.assert_originals_whole();
}

#[test]
fn traffic_is_stopped_again_when_it_shows_that_nothing_is_well() {
    let mut stage = Stage::new("open-fails");
    let proxy = command_gate(&stage, "");
    stage.plan.gates.push_str(&proxy);
    // The script does something, and not enough; only requests show it.
    let command = stage.script("rollback.sh", "psql -Xqc 'drop table media_files'");
    stage.plan.rungs = script(&command) + QUARANTINE;
    stage.guard_sql(BREAKING).expect(20);
    let wanted =
        ["close 0", "close 1", "rung 0", "open 1", "open 0", "close 0", "close 1", "rung 1", "open 1", "open 0"];
    assert_eq!(moves(&stage), wanted);
    assert_eq!(stage.lines("traffic"), ["stop", "start", "stop", "start"]);
    let report = stage.report();
    let failure = report["rungs"][0]["failure"].as_str().unwrap();
    assert!(failure.contains("verification with traffic resumed failed"), "{failure}");
    assert!(!stage.path("maintenance").exists());
    stage.assert_originals_whole();
}

/// Two roles of the application's, and the rights that the gates in the database need of ours.
fn with_roles(stage: &mut Stage) -> (String, String) {
    let database = stage.database.value("select current_database()");
    let (owner, customer, rest) =
        (format!("{database} owner"), format!("{database} customer 🚀"), format!("{database} \"rest\""));
    let named = rollbackd_core::baseline::quote_identifier;
    let superuser = stage.database.superuser();
    superuser.sql(&format!(
        "create role {} login password 'sesame'; create role {} login",
        named(&customer),
        named(&rest)
    ));
    superuser
        .sql(&format!("alter role {0} createrole; grant pg_signal_backend, pg_read_all_stats to {0}", named(&owner)));
    let version: u32 = stage.database.value("show server_version_num").parse().unwrap();
    if version >= 150_000 {
        superuser.sql(&format!("grant set on parameter pgrst.db_pre_request to {}", named(&owner)));
    }
    if version >= 160_000 {
        superuser.sql(&format!("grant {}, {} to {} with admin option", named(&customer), named(&rest), named(&owner)));
    }
    superuser.sql(&format!(
        "alter role {} in database {} set pgrst.db_pre_request = 'public.check_all'",
        named(&rest),
        named(&database)
    ));
    let gates = format!(
        "\n[[rollback.gate]]\nname = \"sessions\"\nrequired = true\n[rollback.gate.postgres_sessions]\nroles = [{customer:?}]\n\
         \n[[rollback.gate]]\nname = \"rest\"\nrequired = true\n[rollback.gate.postgrest]\nrole = {rest:?}\n"
    );
    stage.plan.gates.push_str(&gates);
    (customer, rest)
}

/// A session of the customer's.
fn log_in(stage: &Stage, customer: &str) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
    let mut url: url::Url = stage.database.url().parse().unwrap();
    url.set_username(customer).unwrap();
    url.set_password(Some("sesame")).unwrap();
    let (client, connection) = runtime().block_on(tokio_postgres::connect(url.as_str(), tokio_postgres::NoTls))?;
    runtime().spawn(connection);
    Ok(client)
}

/// What PostgREST is told to call.
fn pre_request(stage: &Stage) -> Vec<String> {
    stage.database.sql(
        "select u from pg_db_role_setting, unnest(setconfig) u
         where setdatabase = (select oid from pg_database where datname = current_database())",
    )
}

#[test]
fn in_the_database_hold_through_a_crash_and_are_put_back_as_they_were_found() {
    let mut stage = Stage::new("gates-in-it");
    let (customer, _) = with_roles(&mut stage);
    let migration = stage.migration(BREAKING);
    stage.plan.command(&migration);
    let waits = stage.script("emergency.sh", "touch script.worked\nwhile [ ! -e go ]; do sleep 0.05; done");
    stage.plan.rungs = script(&waits) + QUARANTINE;
    let before = log_in(&stage, &customer).unwrap();
    let daemon = stage.daemon();
    stage.cli(&["window", "open", "--reason", "a test"]).expect(0);
    until("the rollback acts", || stage.path("script.worked").exists());

    let closed = |stage: &Stage| {
        let refused = log_in(stage, &customer).err().unwrap();
        assert_eq!(refused.code().map(tokio_postgres::error::SqlState::code), Some("28000"), "{refused}");
        let left =
            "select count(*) from pg_stat_activity where usename like '%customer%' and datname = current_database()";
        assert_eq!(stage.database.value(left), "0");
        assert_eq!(pre_request(stage), ["pgrst.db_pre_request=rollbackd_gate.refuse"]);
    };
    closed(&stage);
    assert!(runtime().block_on(before.simple_query("select 1")).is_err(), "its session was ended");
    daemon.kill().expect(128 + 9);
    closed(&stage);

    let daemon = stage.daemon();
    stage.wait_for_state("recovered");
    log_in(&stage, &customer).unwrap();
    assert_eq!(pre_request(&stage), ["pgrst.db_pre_request=public.check_all"]);
    assert_eq!(stage.database.value("select count(*) from pg_namespace where nspname = 'rollbackd_gate'"), "0");
    assert_eq!(moves(&stage)[..3], ["close 0", "close 1", "close 2"]);
    let report = stage.report();
    for name in ["sessions", "rest"] {
        let gate = gate(&report, name);
        assert_eq!((&gate["position"], &gate["failure"]), (&"reopened".into(), &Value::Null), "{gate:#}");
    }
    stage.assert_originals_whole();
    daemon.term().expect(0);
}

#[test]
fn in_the_database_are_tried_before_anything_depends_on_them() {
    let mut stage = Stage::new("gates-tried");
    let (customer, _) = with_roles(&mut stage);
    let said = stage.cli(&["check", "--online", "--json"]).expect(0).stdout;
    assert!(said.contains("gate sessions: role") && said.contains("gate rest: PostgREST can be told"), "{said}");
    let before = log_in(&stage, &customer).unwrap();
    stage.plan.change(&format!("{customer:?}"), &format!("\"nobody\", {:?}", customer.replace("customer 🚀", "owner")));
    stage.configuration();
    let failed = stage.cli(&["check", "--online", "--json"]).expect(1).stdout;
    assert!(failed.contains(r#"role \"nobody\" does not exist"#), "{failed}");
    assert!(failed.contains("is the one with which rollbackd itself connects"), "{failed}");
    runtime().block_on(before.simple_query("select 1")).expect("trying ends nobody");
    assert_eq!(pre_request(&stage), ["pgrst.db_pre_request=public.check_all"]);
}
