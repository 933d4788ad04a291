//! The journal on disk.
//!
//! One redb file, one table: place → record behind a checksum ([`format`](super::format)). A commit is durable when it
//! returns. The file is checked whole at every opening: nobody decides about a database from records that may have rotted.
//!
//! After a write that failed, redb wants the file to be opened anew, which the next append does. That nobody else takes it
//! meanwhile is what the lock on its directory is for. When the disk is full, the [reserve](super::reserve) is given up for
//! one more try. When the disk has failed otherwise, nobody knows which of the bytes that can be read are on it: the file is
//! copied, and the copy made durable, before anybody believes it.
//!
//! * `medium`: what it is kept on · `table`: the transactions · `reading`: a look without a change

mod medium;
pub mod reading;
mod table;

use std::fs::{self, File, TryLockError};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use redb::{Builder, Database, DatabaseError, StorageError};
use rollbackd_core::run::record::Entry;
use rollbackd_core::run::state::State;

use self::medium::FileMedium;
pub(super) use self::medium::Medium;
#[cfg(test)]
pub(super) use self::table::make as make_table;
use self::table::{Failure, is_full};
use super::format::parse;
use super::{AppendError, Journal, OpenError, ReadError};

/// The journal's file in `state_dir`.
pub const FILE: &str = "journal.redb";

/// Memory for pages; the journal is small and mostly appended to.
const CACHE: usize = 4 << 20;
/// A file smaller than this is not worth making smaller.
const SMALL: u64 = 4 << 20;

/// The journal on disk. No other process can open it while this lives.
pub struct RedbJournal {
    medium: Box<dyn Medium>,
    /// `None` after a write that failed.
    database: Mutex<Option<Arc<Database>>>,
    /// Whether the last write failed, so that nobody knows what of it is there.
    failed: AtomicBool,
    /// Whether what can be read may not be on the disk.
    unsure: AtomicBool,
}

impl RedbJournal {
    /// Opens the journal in `state_dir`, making both where they are missing, and reads it.
    ///
    /// # Errors
    /// [`OpenError`], with the way out.
    pub fn open(state_dir: &Path) -> Result<(Self, Vec<Entry>), OpenError> {
        let path = state_dir.join(FILE);
        let storage = |error: std::io::Error| OpenError::Storage { path: path.clone(), reason: error.to_string() };
        fs::DirBuilder::new().recursive(true).mode(0o750).create(state_dir).map_err(storage)?;
        let directory = lock(state_dir, &path, File::try_lock)?;
        if !path.try_exists().map_err(storage)? {
            // Made under another name first: a crash in between must not leave a file that looks like a damaged journal.
            let fresh = state_dir.join(format!("{FILE}.new"));
            if fresh.try_exists().map_err(storage)? {
                fs::remove_file(&fresh).map_err(storage)?;
            }
            make(&fresh).map_err(|reason| OpenError::Storage { path: fresh.clone(), reason })?;
            fs::rename(&fresh, &path).map_err(storage)?;
            directory.sync_all().map_err(storage)?;
        }
        Self::open_locked(&path, state_dir, directory)
    }

    /// Opens the journal in `state_dir` if there is one, and reads it.
    ///
    /// # Errors
    /// [`OpenError`], with the way out.
    pub fn open_existing(state_dir: &Path) -> Result<(Self, Vec<Entry>), OpenError> {
        let path = existing(state_dir)?;
        let directory = lock(state_dir, &path, File::try_lock)?;
        Self::open_locked(&path, state_dir, directory)
    }

    fn open_locked(path: &Path, state_dir: &Path, directory: File) -> Result<(Self, Vec<Entry>), OpenError> {
        not_empty(path)?;
        let medium = FileMedium::new(path.to_owned(), state_dir, directory);
        let database = open_with_room(&medium).map_err(|error| open_error(path, error))?;
        let entries = read(&database, 1).map_err(|error| error.at(path))?;
        if State::replay(&entries).window.is_some() {
            medium.wants_room();
        }
        Ok((Self::over(Box::new(medium), database), entries))
    }

    /// A journal over what was opened already.
    pub(super) fn over(medium: Box<dyn Medium>, database: Database) -> Self {
        let database = Mutex::new(Some(Arc::new(database)));
        Self { medium, database, failed: AtomicBool::new(false), unsure: AtomicBool::new(false) }
    }

    /// Makes the file as small as its records, when that is worth it. Nobody may read or write meanwhile.
    ///
    /// # Errors
    /// Why it could not be done; nothing is lost then.
    pub fn compact(&self) -> Result<(), String> {
        let stored: usize = self.sizes().map_err(|error| error.to_string())?.iter().map(|(_, bytes)| bytes).sum();
        if self.medium.size() < SMALL.max(u64::try_from(stored).unwrap_or(u64::MAX).saturating_mul(2)) {
            return Ok(());
        }
        let mut open = self.database.lock().unwrap_or_else(PoisonError::into_inner);
        // What goes wrong here leaves the file closed, and it is opened anew.
        let Some(mut database) = open.take().and_then(Arc::into_inner) else { return Ok(()) };
        database.compact().map_err(|error| {
            self.unsure.store(true, Ordering::Release);
            error.to_string()
        })?;
        *open = Some(Arc::new(database));
        Ok(())
    }

    /// The open file, opened anew where a write has failed.
    fn database(&self) -> Result<Arc<Database>, redb::Error> {
        let mut database = self.database.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = &*database {
            return Ok(Arc::clone(open));
        }
        if self.unsure.load(Ordering::Acquire) {
            self.medium.renew().map_err(redb::Error::Io)?;
            self.unsure.store(false, Ordering::Release);
        }
        let opened = self.medium.open().inspect_err(|error| {
            // Opening writes, too.
            if matches!(error, DatabaseError::Storage(StorageError::Io(cause)) if !is_full(cause)) {
                self.unsure.store(true, Ordering::Release);
            }
        })?;
        let opened = Arc::new(opened);
        *database = Some(Arc::clone(&opened));
        Ok(opened)
    }

    /// One transaction; closes a file that redb will not write to again.
    fn transact(&self, work: impl Fn(&Database, bool) -> Result<(), Failure>) -> Result<(), Failure> {
        let database = self.database().map_err(Failure::Storage)?;
        let done = work(&database, self.failed.load(Ordering::Acquire));
        let failed = matches!(done, Err(Failure::Storage(_)));
        self.failed.store(failed, Ordering::Release);
        if let Err(failure @ Failure::Storage(_)) = &done {
            if !failure.is_full() {
                self.unsure.store(true, Ordering::Release);
            }
            drop(database);
            *self.database.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
        done
    }

    fn reading(&self) -> Result<Arc<Database>, ReadError> {
        self.database().map_err(|error| ReadError::Storage { reason: error.to_string() })
    }
}

impl Journal for RedbJournal {
    fn append(&self, entries: &[Entry]) -> Result<(), AppendError> {
        if entries.is_empty() {
            return Ok(());
        }
        let append = || self.transact(|database, after_failure| table::write(database, entries, after_failure));
        let mut written = append();
        if written.as_ref().is_err_and(Failure::is_full) && self.medium.make_room() {
            written = append();
        }
        written?;
        self.medium.keep_room();
        Ok(())
    }

    fn read_from(&self, seq: u64) -> Result<Vec<Entry>, ReadError> {
        read(&*self.reading()?, seq)
    }

    fn lines_from(&self, seq: u64, bytes: usize) -> Result<Vec<String>, ReadError> {
        let (mut lines, mut sum) = (Vec::new(), 0);
        table::walk(&*self.reading()?, seq, |_, line| {
            sum += line.len();
            lines.push(line.to_owned());
            Ok(sum < bytes)
        })?;
        Ok(lines)
    }

    fn sizes(&self) -> Result<Vec<(u64, usize)>, ReadError> {
        table::sizes(&*self.reading()?)
    }

    fn condense(&self, condensed: &Entry) -> Result<(), AppendError> {
        Ok(self.transact(|database, _| table::condense(database, condensed))?)
    }
}

fn read(database: &Database, seq: u64) -> Result<Vec<Entry>, ReadError> {
    let mut entries = Vec::new();
    table::walk(database, seq, |place, line| {
        entries.push(parse(place, line)?);
        Ok(true)
    })?;
    Ok(entries)
}

/// Opening writes, too: after a crash on a full disk the reserve is needed for it.
fn open_with_room(medium: &FileMedium) -> Result<Database, DatabaseError> {
    match medium.open() {
        Err(DatabaseError::Storage(StorageError::Io(error))) if is_full(&error) && medium.make_room() => medium.open(),
        opened => opened,
    }
}

/// Whether some process works with the journal in `state_dir` now.
pub fn is_held(state_dir: &Path) -> bool {
    matches!(lock(state_dir, &state_dir.join(FILE), File::try_lock_shared), Err(OpenError::Held { .. }))
}

/// Where the journal is that is there already.
fn existing(state_dir: &Path) -> Result<PathBuf, OpenError> {
    let path = state_dir.join(FILE);
    match fs::metadata(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(OpenError::Absent { path }),
        Err(error) => Err(OpenError::Storage { path, reason: error.to_string() }),
        Ok(_) => Ok(path),
    }
}

fn not_empty(path: &Path) -> Result<(), OpenError> {
    let path = path.to_owned();
    match fs::metadata(&path).map(|metadata| metadata.len()) {
        Err(error) => Err(OpenError::Storage { path, reason: error.to_string() }),
        Ok(0) => Err(OpenError::Damaged { path, reason: "the file is empty".to_owned() }),
        Ok(_) => Ok(()),
    }
}

/// Takes the directory for this process alone, or for those that read.
fn lock(state_dir: &Path, path: &Path, take: impl Fn(&File) -> Result<(), TryLockError>) -> Result<File, OpenError> {
    let storage = |error: std::io::Error| OpenError::Storage { path: path.to_owned(), reason: error.to_string() };
    let directory = File::open(state_dir).map_err(storage)?;
    match take(&directory) {
        Ok(()) => Ok(directory),
        Err(TryLockError::WouldBlock) => Err(OpenError::Held { path: path.to_owned() }),
        Err(TryLockError::Error(error)) => Err(storage(error)),
    }
}

fn make(path: &Path) -> Result<(), String> {
    let database = Builder::new().set_cache_size(CACHE).create(path).map_err(|error| error.to_string())?;
    table::make(&database).map_err(|error| error.to_string())
}

fn open_error(path: &Path, error: DatabaseError) -> OpenError {
    let path: PathBuf = path.to_owned();
    if matches!(error, DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch) {
        return OpenError::Held { path };
    }
    let reason = error.to_string();
    match error {
        // A foreign file; one that ends too early.
        DatabaseError::Storage(StorageError::Io(cause))
            if !matches!(cause.kind(), std::io::ErrorKind::InvalidData | std::io::ErrorKind::UnexpectedEof) =>
        {
            OpenError::Storage { path, reason }
        }
        DatabaseError::Storage(_)
        | DatabaseError::RepairAborted
        | DatabaseError::UpgradeRequired(_)
        | DatabaseError::TransactionInProgress
        | _ => OpenError::Damaged { path, reason },
    }
}
