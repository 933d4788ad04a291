//! A look at a journal's file that changes nothing.
//!
//! Opening a file with redb writes to it: it repairs what a crash has left. So who only looks does that with a copy in
//! memory, taken while no daemon can write. Of a file that is damaged, the records up to the damage are given, and what is
//! wrong; they are found by their checksums when the file's structure is lost.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use redb::backends::InMemoryBackend;
use redb::{Builder, Database, DatabaseError, StorageBackend};
use rollbackd_core::run::record::Entry;

use super::{CACHE, existing, lock, not_empty, open_error, table};
use crate::journal::OpenError;
use crate::journal::format::{parse, scan};

/// What a journal's file holds.
#[derive(Debug)]
pub struct Reading {
    /// The file.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// The records in order, each with its place and as a line of an export.
    pub lines: Vec<(u64, String)>,
    /// What is wrong with the file, and the way out. The lines end before it.
    pub trouble: Option<OpenError>,
}

/// Reads the journal in `state_dir`.
///
/// # Errors
/// [`OpenError`] when nothing can be read at all: there is none, another process has it, or the system says no.
pub fn read(state_dir: &Path) -> Result<Reading, OpenError> {
    let path = existing(state_dir)?;
    let held = lock(state_dir, &path, File::try_lock_shared)?;
    let bytes =
        fs::read(&path).map_err(|error| OpenError::Storage { path: path.clone(), reason: error.to_string() })?;
    drop(held);
    let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    let (lines, trouble) = match not_empty(&path).and_then(|()| look(&path, &bytes)) {
        Ok(seen) => seen,
        Err(trouble) => (run_of(scan(&bytes)), Some(trouble)),
    };
    Ok(Reading { path, bytes: size, lines, trouble })
}

impl Reading {
    /// The entries, and what is wrong behind them.
    pub fn entries(self) -> (Vec<Entry>, Option<OpenError>) {
        let mut entries = Vec::with_capacity(self.lines.len());
        for (seq, line) in &self.lines {
            match parse(*seq, line) {
                Ok(entry) => entries.push(entry),
                Err(error) => return (entries, Some(error.at(&self.path))),
            }
        }
        (entries, self.trouble)
    }
}

type Seen = (Vec<(u64, String)>, Option<OpenError>);

/// The records as redb finds them.
fn look(path: &Path, bytes: &[u8]) -> Result<Seen, OpenError> {
    let database = open(bytes).map_err(|error| open_error(path, error))?;
    let mut lines = Vec::new();
    let walked = table::walk(&database, 1, |seq, line| {
        // A damaged record ends the reading; one that this program cannot understand is shown all the same.
        lines.push((seq, line.to_owned()));
        Ok(true)
    });
    Ok((lines, walked.err().map(|error| error.at(path))))
}

/// Opens a copy, which redb may repair.
fn open(bytes: &[u8]) -> Result<Database, DatabaseError> {
    let copy = InMemoryBackend::new();
    copy.set_len(u64::try_from(bytes.len()).unwrap_or(u64::MAX))?;
    copy.write(0, bytes)?;
    Builder::new().set_cache_size(CACHE).set_check_integrity_on_open(true).create_with_backend(copy)
}

/// Lines that were found, as far as none is missing between them: from the newest that stands for what was let go, or else
/// from the first.
fn run_of(found: Vec<(u64, String)>) -> Vec<(u64, String)> {
    let stands = |line: &str| line.contains("\"record\":{\"type\":\"condensed\"");
    let first = found.iter().rfind(|(_, line)| stands(line)).map_or(1, |(seq, _)| *seq);
    let behind = found.into_iter().skip_while(|(seq, _)| *seq < first);
    (first..).zip(behind).take_while(|(expected, (seq, _))| seq == expected).map(|(_, line)| line).collect()
}
