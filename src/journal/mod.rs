//! The journal: records made durable, in order.
//!
//! It lives in `state_dir`, outside the database that is rolled back. Only the driver appends. [`redb`] is the
//! one on disk; [`memory`] serves tests that count and interrupt appends. Both pass the same conformance suite.
//!
//! * [`mod@format`]: one record as it is stored and exported · [`reserve`]: room for a rollback on a disk that fills up
//! * [`retention`]: which windows are kept

pub mod format;
pub mod memory;
pub mod redb;
pub mod reserve;
pub mod retention;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

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

    /// What is stored from a place on, as lines of an export: about so many bytes, and at least one line when there is one.
    ///
    /// # Errors
    /// [`ReadError`] when the journal cannot be read.
    fn lines_from(&self, seq: u64, bytes: usize) -> Result<Vec<String>, ReadError> {
        let (mut lines, mut sum) = (Vec::new(), 0);
        for entry in self.read_from(seq)? {
            if sum >= bytes {
                break;
            }
            let line = format::line(&entry).map_err(|error| ReadError::Storage { reason: error.to_string() })?;
            sum += line.len();
            lines.push(line);
        }
        Ok(lines)
    }

    /// The place and size of every record.
    ///
    /// # Errors
    /// [`ReadError`] when the journal cannot be read.
    fn sizes(&self) -> Result<Vec<(u64, usize)>, ReadError> {
        let lines = self.lines_from(1, usize::MAX)?;
        Ok(lines.iter().filter_map(|line| Some((format::place(line)?, line.len()))).collect())
    }

    /// Lets everything go up to this entry's place, and puts this entry there, all or nothing.
    ///
    /// # Errors
    /// [`AppendError`]; nothing was changed then, as far as can be known.
    fn condense(&self, condensed: &Entry) -> Result<(), AppendError> {
        Err(AppendError::NoSuchPlace { seq: condensed.seq })
    }
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
    /// There is no entry in whose place this one could stand.
    #[error("there is no entry {seq}")]
    NoSuchPlace {
        /// The place.
        seq: u64,
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
    /// A newer program has written it.
    #[error(
        "record {seq} has format {found}, and rollbackd {} reads formats up to {}: a newer rollbackd has written it",
        env!("CARGO_PKG_VERSION"), format::VERSION
    )]
    Newer {
        /// Its place.
        seq: u64,
        /// Its version.
        found: u32,
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
         at the database and at the evidence in {directory} first; `rollbackd journal show` and `journal export` give what can \
         still be read. Then move the journal aside (mv {path} \
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
    /// A newer program has written to it.
    #[error(
        "the journal {path} cannot be worked with: {reason}. Nothing is done, and nothing is lost: start that newer \
         rollbackd again. To go back for good, let it bring an open window to its end (`rollbackd status`), stop it, then \
         move the journal aside (mv {path} {path}.newer) and start this one with an empty journal",
        path = path.display()
    )]
    Newer {
        /// The journal.
        path: PathBuf,
        /// Both versions.
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

impl ReadError {
    /// The same of a journal that is opened, with the way out.
    pub fn at(self, path: &Path) -> OpenError {
        let (path, reason) = (path.to_owned(), self.to_string());
        match self {
            Self::Storage { .. } | Self::Damaged { .. } => OpenError::Damaged { path, reason },
            Self::Newer { .. } => OpenError::Newer { path, reason },
        }
    }
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
