//! The journal: records made durable, in order.
//!
//! It lives in `state_dir`, outside the database that is rolled back. Only the driver appends. [`redb`] is the
//! one on disk; [`memory`] serves tests that count and interrupt appends. Both pass the same conformance suite.

pub mod memory;
pub mod redb;

use std::path::PathBuf;

use rollbackd_core::run::record::Entry;

/// Records in order, durable once appended.
pub trait Journal: Send + Sync {
    /// Makes entries durable, all or none.
    ///
    /// # Errors
    /// [`AppendError`]; nothing was written then, as far as can be known.
    fn append(&self, entries: &[Entry]) -> Result<(), AppendError>;

    /// All entries from a place on, in order.
    ///
    /// # Errors
    /// [`ReadError`] when the journal cannot be read.
    fn read_from(&self, seq: u64) -> Result<Vec<Entry>, ReadError>;
}

/// Why entries could not be made durable.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// The entries do not follow the last one.
    #[error("entry {found} does not follow entry {last}")]
    OutOfOrder {
        /// The last entry in the journal.
        last: u64,
        /// The entry that was to be appended.
        found: u64,
    },
    /// The storage refused.
    #[error("the journal could not be written: {reason}")]
    Storage {
        /// What the storage says.
        reason: String,
    },
}

/// Why the journal could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The storage refused.
    #[error("the journal could not be read: {reason}")]
    Storage {
        /// What the storage says.
        reason: String,
    },
    /// A record is not what was written.
    #[error("record {seq} of the journal is damaged: {reason}")]
    Damaged {
        /// Its place.
        seq: u64,
        /// What is wrong with it.
        reason: String,
    },
}

/// Why the journal could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("another rollbackd works with {}; one at a time", path.display())]
    Held {
        /// The journal.
        path: PathBuf,
    },
    /// There is none, and none was to be made.
    #[error("there is no journal at {}", path.display())]
    Absent {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// It is not what was written.
    #[error(
        "the journal {path} is damaged: {reason}. rollbackd does not act on it. A rollback may be unfinished: look \
         at the database and at the evidence in {directory} first. Then move the journal aside (mv {path} \
         {path}.damaged) and start again with an empty one",
        path = path.display(),
        directory = path.parent().unwrap_or(path).display()
    )]
    Damaged {
        /// The journal.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The directory or file cannot be used.
    #[error("the journal {} cannot be opened: {reason}", path.display())]
    Storage {
        /// The journal.
        path: PathBuf,
        /// What the system says.
        reason: String,
    },
}

/// Checks that entries follow `last` without gaps.
fn in_order(last: u64, entries: &[Entry]) -> Result<(), AppendError> {
    let mut last = last;
    for entry in entries {
        if entry.seq != last + 1 {
            return Err(AppendError::OutOfOrder { last, found: entry.seq });
        }
        last = entry.seq;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use rollbackd_core::run::record::Record;

    use super::memory::MemoryJournal;
    use super::redb::RedbJournal;
    use super::*;

    fn entry(seq: u64) -> Entry {
        let at = Timestamp::from_millisecond(1_764_000_000_123).unwrap();
        Entry { seq, at, window: None, record: Record::Started { version: format!("v{seq}") } }
    }

    /// What every journal does.
    fn conforms(journal: &dyn Journal) {
        assert_eq!(journal.read_from(1).unwrap(), vec![]);
        journal.append(&[entry(1), entry(2)]).unwrap();
        journal.append(&[entry(3)]).unwrap();
        journal.append(&[]).unwrap();
        assert_eq!(journal.read_from(1).unwrap(), vec![entry(1), entry(2), entry(3)]);
        assert_eq!(journal.read_from(3).unwrap(), vec![entry(3)]);
        let gap = journal.append(&[entry(4), entry(6)]).unwrap_err();
        assert!(matches!(gap, AppendError::OutOfOrder { last: 4, found: 6 }), "{gap}");
        let again = journal.append(&[entry(3)]).unwrap_err();
        assert!(matches!(again, AppendError::OutOfOrder { last: 3, found: 3 }), "{again}");
        assert_eq!(journal.read_from(1).unwrap().len(), 3, "a refused append leaves nothing behind");
    }

    #[test]
    fn memory_conforms() {
        conforms(&MemoryJournal::default());
    }

    #[test]
    fn redb_conforms_and_remembers() {
        let directory = tempfile::tempdir().unwrap();
        conforms(&RedbJournal::open(directory.path()).unwrap().0);
        let (again, entries) = RedbJournal::open(directory.path()).unwrap();
        assert_eq!(entries, vec![entry(1), entry(2), entry(3)]);
        again.append(&[entry(4)]).unwrap();
        assert_eq!(again.read_from(4).unwrap(), vec![entry(4)]);
    }

    #[test]
    fn one_at_a_time() {
        let directory = tempfile::tempdir().unwrap();
        let first = RedbJournal::open(directory.path()).unwrap();
        let second = RedbJournal::open(directory.path()).err().unwrap();
        assert!(matches!(second, OpenError::Held { .. }), "{second}");
        drop(first);
        RedbJournal::open(directory.path()).unwrap();
    }

    #[test]
    fn reading_makes_no_journal() {
        let directory = tempfile::tempdir().unwrap();
        let absent = RedbJournal::open_existing(directory.path()).err().unwrap();
        assert!(matches!(absent, OpenError::Absent { .. }), "{absent}");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn damage_is_refused_with_instructions() {
        use std::os::unix::fs::FileExt;

        let directory = tempfile::tempdir().unwrap();
        let (journal, _) = RedbJournal::open(directory.path()).unwrap();
        for seq in 1..200 {
            journal.append(&[entry(seq)]).unwrap();
        }
        drop(journal);
        let path = directory.path().join(redb::FILE);
        let bytes = std::fs::read(&path).unwrap();
        let needle = b"\"v77\"";
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        let copies: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at..].starts_with(needle)).collect();
        assert!(!copies.is_empty());
        for at in copies {
            file.write_all_at(b"\"v99\"", at as u64).unwrap();
        }
        let text = RedbJournal::open(directory.path()).err().unwrap().to_string();
        assert!(text.contains("is damaged") && text.contains("mv "), "{text}");
    }

    #[test]
    fn an_empty_or_foreign_file_is_damage_not_a_new_journal() {
        for content in [&b""[..], b"not a journal at all"] {
            let directory = tempfile::tempdir().unwrap();
            std::fs::write(directory.path().join(redb::FILE), content).unwrap();
            let text = RedbJournal::open(directory.path()).err().unwrap().to_string();
            assert!(text.contains("is damaged"), "{text}");
        }
    }
}
