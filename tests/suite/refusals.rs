//! Preflight: what is not in order before the migration keeps it from starting.

use crate::endings::HARMLESS;
use crate::stage::{QUARANTINE, Stage, script};

/// Guards a migration, which must be refused for this reason: nothing was changed, and the contact was told why.
#[track_caller]
fn refused(stage: &Stage, why: &[&str]) {
    let output = stage.guard_sql(HARMLESS).expect(22);
    for why in why {
        assert!(output.stdout.contains(why), "{}", output.stdout);
    }
    untouched(stage);
    let notice = stage.hooks.wait_for("window.refused");
    let summary = notice["data"]["summary"].as_str().unwrap();
    assert!(why.iter().any(|why| summary.contains(why)), "{summary}");
    let report = stage.report();
    assert_eq!(
        (&report["outcome"], &report["headline"]),
        (&"refused".into(), &"shop: refused, nothing was changed".into())
    );
}

#[track_caller]
fn untouched(stage: &Stage) {
    assert_eq!(stage.new_tables(), Vec::<String>::new());
    stage.assert_originals_whole();
    assert!(!stage.path("maintenance").exists());
    stage.assert_nothing_runs();
}

#[test]
fn the_database_does_not_let_us_in() {
    let mut stage = Stage::new("password");
    let wrong = stage.database.url().replace("s%26cret", "guess");
    assert_ne!(wrong, stage.database.url());
    stage.set("STAGE_DATABASE_URL", wrong);
    refused(&stage, &["does not accept this user's password"]);
    assert!(!stage.path("backups").exists());
}

#[test]
fn the_script_is_gone_when_it_is_needed() {
    let mut stage = Stage::new("script-gone");
    let command = stage.script("rollback.sh", "exit 0");
    stage.plan.rungs = script(&command) + QUARANTINE;
    let words = stage.migration(HARMLESS);
    stage.plan.command(&words);
    let daemon = stage.daemon();
    std::fs::remove_file(stage.path("rollback.sh")).unwrap();
    let output = stage.cli(&["window", "open", "--wait"]).expect(22);
    assert!(output.stdout.contains("rollback.sh"), "{}", output.stdout);
    stage.hooks.wait_for("window.refused");
    daemon.term().expect(0);
    untouched(&stage);
}

#[test]
fn the_application_is_ill_already() {
    let stage = Stage::new("ill-already");
    stage.app.fail_next(u32::MAX);
    refused(&stage, &["the signals were not healthy for 300ms", "status 500"]);
}

#[test]
fn a_signal_names_a_host_that_is_not_there() {
    let mut stage = Stage::new("no-host");
    let address = stage.app.address().to_string();
    stage.plan.signals = stage.plan.signals.replace(&address, "nowhere.invalid");
    refused(&stage, &["signal api could not be read", "nowhere.invalid"]);
}

#[test]
fn the_mail_server_is_down() {
    let mut stage = Stage::new("mail-down");
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    stage.plan.mail(port);
    refused(&stage, &["mail server", "refused"]);
}

#[test]
fn the_webhook_is_down() {
    let mut stage = Stage::new("hook-down");
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let another = format!(
        "\n[[contact]]\nrole = \"database administrator\"\n[[contact.webhook]]\nurl = \"http://127.0.0.1:{port}/\"\n"
    );
    stage.plan.contacts.push_str(&another);
    refused(&stage, &["webhook", "refused"]);
}

#[test]
fn the_backup_cannot_be_written() {
    // Even root cannot make a directory there.
    let mut stage = Stage::new("backup-proc");
    stage.plan.change("directory = \"backups\"", "directory = \"/proc/backups\"");
    refused(&stage, &["backup.directory"]);

    let stage = Stage::new("backup-file");
    std::fs::write(stage.path("backups"), "in the way").unwrap();
    refused(&stage, &["backups"]);
    assert_eq!(stage.lines("backups"), ["in the way"]);
}

#[test]
fn the_gate_has_no_place() {
    let mut stage = Stage::new("gate-nowhere");
    stage.plan.change("path = \"maintenance\"", "path = \"no/such/directory/maintenance\"");
    refused(&stage, &["no/such/directory"]);
}

#[test]
fn the_role_may_not_end_sessions() {
    let mut stage = Stage::new("rights");
    stage.plan.change("timeout = \"10s\"", "timeout = \"10s\"\non_blocked = \"terminate\"");
    refused(&stage, &["pg_signal_backend"]);
}

#[test]
fn an_original_is_missing() {
    let stage = Stage::new("missing");
    stage.database.sql("alter table comments rename to remarks");
    let output = stage.guard_sql(HARMLESS).expect(22);
    assert!(output.stdout.contains("comments"), "{}", output.stdout);
    assert_eq!(stage.new_tables(), ["public.remarks"]);
    stage.hooks.wait_for("window.refused");
}
