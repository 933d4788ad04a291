//! What earlier versions wrote: it must load, and make the same state, for ever.
//!
//! `tests/golden/journal/records.jsonl` is an export with every kind of record, of step, of finding; lines are added to it
//! and never changed. `journal.redb` is a file with the first of them, as redb stored it.

use std::collections::BTreeSet;
use std::path::PathBuf;

use rollbackd_core::report;
use rollbackd_core::run::record::{Origin, Trigger};
use rollbackd_core::run::sound::unsound;
use rollbackd_core::run::state::State;
use rollbackd_core::run::step::{Finding, Step};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::redb::reading;
use super::*;

fn golden(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/journal").join(file)
}

fn lines() -> Vec<String> {
    std::fs::read_to_string(golden("records.jsonl")).unwrap().lines().map(str::to_owned).collect()
}

fn entries() -> Vec<Entry> {
    lines().iter().map(|line| format::parse(format::place(line).unwrap(), line).unwrap()).collect()
}

/// The names that a tagged enum has, as serde lists them.
fn kinds<T: DeserializeOwned>(tag: &str) -> BTreeSet<String> {
    let error = serde_json::from_value::<T>(json!({ tag: "?" })).err().unwrap().to_string();
    let (_, expected) = error.split_once("expected").unwrap();
    expected.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The values at a place in all golden lines.
fn seen(pointer: &str) -> BTreeSet<String> {
    let value = |line: &String| serde_json::from_str::<Value>(line).unwrap();
    lines().iter().filter_map(|line| Some(value(line).pointer(pointer)?.as_str()?.to_owned())).collect()
}

#[test]
fn every_kind_has_a_golden_line() {
    let wanted = [
        (kinds::<Record>("type"), "/entry/record/type"),
        (kinds::<Step>("do"), "/entry/record/step/do"),
        (kinds::<Finding>("found"), "/entry/record/outcome/finding/found"),
        (kinds::<Trigger>("by"), "/entry/record/trigger/by"),
        (kinds::<Origin>("by"), "/entry/record/origin/by"),
    ];
    for (kinds, pointer) in wanted {
        let missing = &kinds - &seen(pointer);
        assert!(
            kinds.len() > 2 && missing.is_empty(),
            "no golden line has {missing:?} at {pointer}: add one to {}, as `rollbackd journal export` writes it, with the \
             next seq",
            golden("records.jsonl").display()
        );
    }
}

#[test]
fn what_was_written_loads_and_makes_the_same_state() {
    let entries = entries();
    assert_eq!(unsound(&entries), None);
    let state = State::replay(&entries);
    let window = state.window.as_ref().unwrap();
    let of = |id: &str| {
        let own: Vec<Entry> = entries.iter().filter(|entry| entry.window.as_deref() == Some(id)).cloned().collect();
        let report = report::of(&own).unwrap();
        json!([report.window, report.outcome, report.rungs.len(), report.steps.len(), report.notices.len()])
    };
    let told = json!({
        "seq": state.seq,
        "first_started_at": state.first_started_at,
        "last_opening": state.last_opening,
        "history": state.history,
        "let_go": state.let_go,
        "last_checks": state.last_checks,
        "owed": state.owed.iter().map(|owed| (&owed.notice.id, &owed.open)).collect::<Vec<_>>(),
        "counts": state.counts,
        "open": [window.id.as_str(), window.state_name().as_str()],
        "reports": state.history.iter().map(|settled| of(&settled.id)).collect::<Vec<_>>(),
    });
    insta::assert_snapshot!(format!("{told:#}"));
}

/// What is read and written again says the same: nothing that was known is lost.
#[test]
fn what_was_written_is_written_again_with_everything() {
    for line in lines() {
        let seq = format::place(&line).unwrap();
        let again = format::line(&format::parse(seq, &line).unwrap()).unwrap();
        let (before, after) = (serde_json::from_str(&line).unwrap(), serde_json::from_str(&again).unwrap());
        assert!(holds(&after, &before), "record {seq}:\n{line}\nhas become\n{again}");
    }
}

/// Whether a value has all that another has, and maybe more.
fn holds(more: &Value, less: &Value) -> bool {
    match (more, less) {
        (Value::Object(more), Value::Object(less)) => {
            less.iter().all(|(name, value)| more.get(name).is_some_and(|more| holds(more, value)))
        }
        (Value::Array(more), Value::Array(less)) => {
            more.len() == less.len() && more.iter().zip(less).all(|(more, less)| holds(more, less))
        }
        (more, less) => more == less,
    }
}

#[test]
fn a_file_of_the_first_version_is_opened() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::copy(golden("journal.redb"), directory.path().join(redb::FILE)).unwrap();
    let seen = reading::read(directory.path()).unwrap();
    assert!(seen.trouble.is_none(), "{:?}", seen.trouble);
    let (journal, opened) = RedbJournal::open(directory.path()).unwrap();
    assert_eq!(seen.entries().0, opened);
    let known = entries();
    assert!(opened.len() > 60 && known.starts_with(&opened), "{} entries", opened.len());
    let last = opened.last().unwrap().seq;
    journal.append(&[entry(last + 1)]).unwrap();
}

/// A journal of three records, the last of which is this text.
fn with(line: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _) = RedbJournal::open(directory.path()).unwrap();
    journal.append(&[entry(1), entry(2)]).unwrap();
    drop(journal);
    let database = ::redb::Database::open(directory.path().join(redb::FILE)).unwrap();
    let write = database.begin_write().unwrap();
    let mut bytes = Sha256::digest(line)[..8].to_vec();
    bytes.extend_from_slice(line.as_bytes());
    write.open_table(::redb::TableDefinition::<u64, &[u8]>::new("records")).unwrap().insert(3, &bytes[..]).unwrap();
    write.commit().unwrap();
    directory
}

fn line(version: u32, record: &Value) -> String {
    let at = "2026-11-22T02:00:00Z";
    json!({ "v": version, "entry": { "seq": 3, "at": at, "window": null, "record": record } }).to_string()
}

#[test]
fn a_newer_version_is_refused_with_both_versions_and_the_way_out() {
    // With a kind of record that this program does not know, and with one that it does.
    for record in [json!({ "type": "telepathy" }), json!({ "type": "started", "version": "9.0.0" })] {
        let directory = with(&line(99, &record));
        let file = directory.path().join(redb::FILE);
        let (opened, seen) =
            (RedbJournal::open(directory.path()).err().unwrap(), reading::read(directory.path()).unwrap());
        assert_eq!(seen.lines.len(), 3, "it can be exported");
        let (entries, shown) = seen.entries();
        assert_eq!(entries, [entry(1), entry(2)]);
        let aside = format!("mv {} {}.newer", file.display(), file.display());
        for error in [opened, shown.unwrap()] {
            assert!(matches!(error, OpenError::Newer { .. }), "{error}");
            let text = error.to_string();
            for part in ["record 3 has format 99", "reads formats up to 2", "start that newer rollbackd again", &aside]
            {
                assert!(text.contains(part), "{text}");
            }
        }
    }
}

#[test]
fn an_unknown_field_is_left_alone_and_an_unknown_kind_is_refused() {
    let known = line(1, &json!({ "type": "started", "version": "v3", "mood": { "good": true } }));
    let known = known.replacen("\"seq\":3", "\"seq\":3,\"sum\":[1]", 1);
    let (_, entries) = RedbJournal::open(with(&known).path()).unwrap();
    assert_eq!(entries, [entry(1), entry(2), Entry { at: entries[2].at, ..entry(3) }]);
    for (broken, reason) in [
        (line(1, &json!({ "type": "telepathy" })), "it is of a kind that rollbackd 0.1.0 does not know: `telepathy`"),
        (line(1, &json!({ "type": "started" })), "missing field `version`"),
        (line(0, &json!({ "type": "started", "version": "v3" })), "it has no version"),
        (line(1, &json!({ "type": "started", "version": "v3" })).replace(":3,", ":4,"), "it says that it is record 4"),
        ("nothing".to_owned(), "expected ident"),
    ] {
        let error = RedbJournal::open(with(&broken).path()).err().unwrap();
        assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
        assert!(error.to_string().contains(reason), "{error}");
    }
}

/// A version is raised for what earlier programs cannot read, and for nothing else.
#[test]
fn a_record_has_the_version_of_the_first_program_that_could_read_it() {
    let versions = lines().into_iter().map(|line| {
        let entry = format::parse(format::place(&line).unwrap(), &line).unwrap();
        let is_new = matches!(entry.record, Record::Condensed { .. } | Record::ClockMoved { .. });
        (format::version(&line).unwrap(), is_new)
    });
    let versions: BTreeSet<_> = versions.collect();
    assert_eq!(versions, [(1, false), (2, true)].into());
}
