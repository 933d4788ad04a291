//! Every journal against one suite, the file against everything that disks do, and what was written by earlier versions.

mod bounded;
mod conformance;
mod damage;
mod disk;
mod faults;
mod golden;
mod room;

use jiff::Timestamp;
use rollbackd_core::run::record::{Entry, Record};

use super::redb::RedbJournal;
use super::*;

/// A record like any other.
fn entry(seq: u64) -> Entry {
    sized(seq, 0)
}

/// The same, larger by so many bytes.
fn sized(seq: u64, bytes: usize) -> Entry {
    let at = Timestamp::from_millisecond(1_764_000_000_123).unwrap();
    Entry { seq, at, window: None, record: Record::Started { version: format!("v{seq}{}", "x".repeat(bytes)) } }
}

#[test]
fn one_at_a_time() {
    let directory = tempfile::tempdir().unwrap();
    let first = RedbJournal::open(directory.path()).unwrap();
    let refused = [
        RedbJournal::open(directory.path()).err().unwrap(),
        RedbJournal::open_existing(directory.path()).err().unwrap(),
        redb::reading::read(directory.path()).unwrap_err(),
    ];
    for error in refused {
        assert!(matches!(error, OpenError::Held { .. }), "{error}");
    }
    drop(first);
    RedbJournal::open(directory.path()).unwrap();
}

#[test]
fn reading_makes_no_journal() {
    let directory = tempfile::tempdir().unwrap();
    let absent = [
        RedbJournal::open_existing(directory.path()).err().unwrap(),
        redb::reading::read(directory.path()).unwrap_err(),
    ];
    for error in absent {
        assert!(matches!(error, OpenError::Absent { .. }), "{error}");
    }
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}
