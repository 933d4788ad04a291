//! The rung that runs the project's own script. What it says is a claim; the catalog is the fact.

use serde_json::Value;

use crate::endings::BREAKING;
use crate::stage::{QUARANTINE, Stage, alive_in_group, script};

const REMOVE_ALL: &str = "psql -Xqc 'drop table media_files, pages'";

/// A stage whose ladder is a script with this text, then the quarantine.
fn with_script(name: &str, text: &str) -> Stage {
    let mut stage = Stage::new(name);
    let command = stage.script("rollback.sh", text);
    stage.plan.rungs = script(&command) + QUARANTINE;
    stage
}

/// Guards the breaking migration, which must be rolled back; the report's rungs.
#[track_caller]
fn rolled_back(stage: &Stage) -> Vec<Value> {
    stage.guard_sql(BREAKING).expect(20);
    stage.assert_originals_whole();
    stage.assert_nothing_runs();
    let report = stage.report();
    assert_eq!(report["outcome"], "recovered");
    assert!(!stage.path("maintenance").exists(), "traffic flows");
    report["rungs"].as_array().unwrap().clone()
}

/// The script has failed, and the quarantine has done it.
#[track_caller]
fn the_tables_rung_did_it(stage: &Stage, why: &str) -> Vec<Value> {
    let rungs = rolled_back(stage);
    assert_eq!(rungs.len(), 2, "{rungs:#?}");
    assert_eq!((&rungs[0]["result"], &rungs[1]["result"]), (&"failed".into(), &"recovered".into()));
    let failure = rungs[0]["failure"].as_str().unwrap();
    assert!(failure.contains(why), "{failure}");
    assert!(stage.hooks.events().contains(&"rung.failed".to_owned()));
    rungs
}

/// The tables that are not the originals, without their schemas; each must be in quarantine.
#[track_caller]
fn quarantined(stage: &Stage) -> Vec<String> {
    let name = |table: &String| {
        let (schema, name) = table.split_once('.').unwrap();
        assert!(schema.starts_with("rollbackd_20"), "{table}");
        name.to_owned()
    };
    stage.new_tables().iter().map(name).collect()
}

#[test]
fn heals() {
    let stage = with_script("heals", &format!("echo dropping; {REMOVE_ALL}"));
    let rungs = rolled_back(&stage);
    assert_eq!(rungs.len(), 1, "{rungs:#?}");
    assert_eq!(rungs[0]["result"], "recovered");
    assert_eq!(rungs[0]["process"]["exit_code"], 0);
    assert_eq!(rungs[0]["process"]["output"], "dropping\n");
    let output = rungs[0]["process"]["output_file"].as_str().unwrap();
    assert_eq!(std::fs::read_to_string(output).unwrap(), "dropping\n");
    assert_eq!(stage.new_tables(), Vec::<String>::new());
}

#[test]
fn fails_and_has_changed_nothing() {
    let stage = with_script("script-fails", "echo 'no such file' >&2; exit 1");
    let rungs = the_tables_rung_did_it(&stage, "exited with 1: no such file");
    assert_eq!(rungs[0]["before"], rungs[0]["after"]);
    assert_eq!(quarantined(&stage), ["media_files", "pages"]);
}

#[test]
fn lies() {
    let stage = with_script("script-lies", "echo 'all tables dropped'; exit 0");
    let rungs = the_tables_rung_did_it(&stage, "it changed nothing");
    assert_eq!((&rungs[0]["work"], &rungs[0]["process"]["exit_code"]), (&"succeeded".into(), &0.into()));
    assert_eq!(quarantined(&stage), ["media_files", "pages"]);
}

#[test]
fn hangs_and_will_not_end() {
    let mut stage = with_script(
        "script-hangs",
        "trap 'echo asked >>asked' TERM
        echo $$ >group
        (trap '' TERM; sleep 300) &
        while :; do sleep 300 & wait; done",
    );
    stage.plan.change("timeout = \"10s\"\nidempotent", "timeout = \"1s\"\nidempotent");
    let rungs = the_tables_rung_did_it(&stage, "still ");
    assert_eq!(rungs[0]["work"], "timed_out");
    assert_eq!(stage.lines("asked"), ["asked"], "it was asked to end before it was made to");
    let group = stage.lines("group").remove(0).parse().unwrap();
    assert_eq!(alive_in_group(group), Vec::<i32>::new(), "nothing is left of its process group");
    assert_eq!(quarantined(&stage), ["media_files", "pages"]);
}

#[test]
fn stops_half_way() {
    let stage = with_script("half-done", "psql -Xqc 'drop table media_files'; echo 'connection lost'; exit 2");
    let rungs = the_tables_rung_did_it(&stage, "exited with 2: connection lost");
    assert_ne!(rungs[0]["before"], rungs[0]["after"]);
    assert_eq!(rungs[1]["before"], rungs[0]["after"]);
    assert_eq!(quarantined(&stage), ["pages"]);
}

#[test]
fn fails_but_nothing_is_left() {
    let stage = with_script("fails-at-end", &format!("{REMOVE_ALL}; echo 'cannot send the mail'; exit 3"));
    let rungs = rolled_back(&stage);
    assert_eq!(rungs.len(), 1, "{rungs:#?}");
    assert_eq!((&rungs[0]["work"], &rungs[0]["result"]), (&"failed".into(), &"recovered".into()));
    assert_eq!(rungs[0]["process"]["exit_code"], 3);
    assert_eq!(stage.new_tables(), Vec::<String>::new());
}

#[test]
fn damages_an_original() {
    let stage = with_script("script-damages", &format!("{REMOVE_ALL}; psql -Xqc 'delete from comments where id = 60'"));
    stage.guard_sql(BREAKING).expect(21);
    let report = stage.report();
    let failure = report["rungs"][0]["failure"].as_str().unwrap();
    assert!(failure.contains("verification with traffic stopped failed"), "{failure}");
    assert!(failure.contains("comments"), "{failure}");
    let manual = report["manual"].as_array().unwrap();
    assert!(
        manual.iter().any(|line| line == "SELECT count(*) FROM \"public\".\"comments\";  -- was 60"),
        "{manual:#?}"
    );
    assert!(stage.path("maintenance").exists(), "traffic stays stopped");
}

/// What a script is told: docs/configuration.md has the list.
#[test]
fn finds_in_its_environment_what_it_needs() {
    let stage = with_script("script-told", &format!("env >told; echo ours >&2; {REMOVE_ALL}"));
    let rungs = rolled_back(&stage);
    assert_eq!(rungs[0]["process"]["output"], "ours\n", "what goes to standard error is kept as well");
    let told: std::collections::BTreeMap<String, String> = stage
        .lines("told")
        .iter()
        .filter_map(|line| line.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned())))
        .collect();
    let report = stage.report();
    assert_eq!(told["ROLLBACKD_WINDOW"], report["window"].as_str().unwrap());
    assert_eq!(told["ROLLBACKD_PLAN"], "shop");
    assert_eq!(told["ROLLBACKD_STATE_DIR"], stage.state().display().to_string());
    assert_eq!(told["ROLLBACKD_BACKUP_DIR"], report["backup"]["directory"].as_str().unwrap());
    assert_eq!(told["ROLLBACKD_RUNG"], "1");
    assert!(told["ROLLBACKD_REASON"].contains("api is down"), "{}", told["ROLLBACKD_REASON"]);
    assert!(told["ROLLBACKD_STEP"].parse::<u64>().is_ok(), "{}", told["ROLLBACKD_STEP"]);
    assert_eq!(told["DATABASE_URL"], stage.database.url());
    let reference = include_str!("../../docs/configuration.md");
    // The configuration's place is the daemon's own way to be told.
    for name in told.keys().filter(|name| name.starts_with("ROLLBACKD_") && *name != "ROLLBACKD_CONFIG") {
        assert!(reference.contains(&format!("`{name}`")), "{name} is not in the reference");
    }
}

#[test]
fn says_more_than_is_kept() {
    let flood = "head -c 200000 /dev/zero | tr '\\0' x; echo; echo 'the last word' >&2; exit 4";
    let stage = with_script("script-floods", flood);
    let rungs = the_tables_rung_did_it(&stage, "exited with 4: the last word");
    let output = rungs[0]["process"]["output"].as_str().unwrap();
    assert!(output.ends_with("x\nthe last word\n") && output.len() <= 16 * 1024, "{}", output.len());
    let file = std::fs::metadata(rungs[0]["process"]["output_file"].as_str().unwrap()).unwrap();
    assert!(file.len() > 200_000, "the file has all of it");
}
