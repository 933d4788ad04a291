//! `rollbackd plan`: what a rollback would do, before anything happens.

use serde_json::Value;

use crate::endings::BREAKING;
use crate::stage::Stage;

#[test]
fn a_plan_in_an_open_window_tells_what_would_be_done_and_does_nothing() {
    let mut stage = Stage::new("plan");
    stage.plan.rules = stage.plan.rules.replace("consecutive = 3", "consecutive = 3000");
    let guard = stage.start_guard::<&str>(&[]);
    stage.wait_for_state("watching");
    let clean = stage.cli(&["plan"]).expect(0).stdout;
    assert!(clean.contains("Nothing differs from the baseline; nothing would be done."), "{clean}");

    stage.database.sql(BREAKING);
    let tables = stage.new_tables();
    let text = stage.cli(&["plan"]).expect(0).stdout;
    for told in ["which is open", "2 tables added", "1  tables: would act", "public.pages", "+7", "No pg_dump runs."] {
        assert!(text.contains(told), "{told}: {text}");
    }
    let json: Value = serde_json::from_str(&stage.cli(&["plan", "--json"]).expect(0).stdout).unwrap();
    for key in ["class", "rungs", "objects", "collateral", "rows_written", "blockers", "sql"] {
        assert!(json.get(key).is_some(), "{key}: {json:#}");
    }
    assert_eq!((&json["class"], &json["rungs"][0]["would"]), (&Value::from("lossy"), &Value::from("act")));
    assert_eq!(stage.new_tables(), tables, "nothing was done");
    let sql = stage.cli(&["plan", "--sql"]).expect(0).stdout;
    assert!(sql.contains("set schema \"rollbackd_20"), "{sql}");

    // Nobody needs a daemon for it: the backup holds a baseline too.
    stage.cli(&["window", "cancel", "--reason", "enough seen"]).expect(0);
    guard.end().expect(23);
    let later = stage.cli(&["plan"]).expect(0).stdout;
    assert!(later.contains("the newest backup") && later.contains("no window is open"), "{later}");
    std::fs::remove_dir_all(stage.path("backups")).unwrap();
    let output = stage.cli(&["plan"]).expect(69);
    assert!(output.stderr.contains("--baseline FILE"), "{}", output.stderr);
    stage.assert_originals_whole();
}

#[test]
fn a_plan_needs_no_daemon_and_says_what_it_lacks() {
    let mut stage = Stage::alone("plan-alone");
    stage.plan.rules = stage.plan.rules.replace("consecutive = 3", "consecutive = 3000");
    let daemon = stage.daemon();
    stage.cli(&["window", "open"]).expect(0);
    stage.wait_for_state("watching");
    stage.database.sql(BREAKING);
    daemon.kill().expect(137);
    let text = stage.cli(&["plan"]).expect(0).stdout;
    assert!(text.contains("which is open") && text.contains("2 tables added"), "the journal knows: {text}");

    let backup = std::fs::read_dir(stage.path("backups")).unwrap().next().unwrap().unwrap().path();
    let baseline = backup.join("baseline.json");
    let named = baseline.to_str().unwrap().to_owned();
    let text = stage.cli(&["plan", "--baseline", &named]).expect(0).stdout;
    // Paths are long, so they are broken into lines.
    assert!(text.contains("with the baseline in") && text.contains("2 tables added"), "{text}");
    std::fs::write(&baseline, &std::fs::read(&baseline).unwrap()[..100]).unwrap();
    let refused = stage.cli(&["plan", "--baseline", &named]).expect(69).stderr;
    assert!(refused.contains("baseline.json"), "{refused}");

    crate::stage::runtime().block_on(stage.own_server().stop(rollbackd::demo::cluster::Stop::Fast)).expect("stops");
    let refused = stage.cli(&["plan"]).expect(69).stderr;
    assert!(refused.contains("database") && !refused.contains("password"), "{refused}");
}
