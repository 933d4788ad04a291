//! The journal on disk.
//!
//! One redb file, one table: place → record as JSON behind a checksum. A commit is durable when it returns. The
//! file is checked whole at every opening: nobody decides about a database from records that may have rotted.
//!
//! After a write that failed (a full disk), redb wants the file to be opened anew, which the next append does. That
//! nobody else takes it meanwhile is what the lock on its directory is for.

use std::fs::{self, File, TryLockError};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use redb::{Builder, Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError, TableDefinition};
use rollbackd_core::run::record::Entry;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{AppendError, Journal, OpenError, ReadError, in_order};

/// The journal's file in `state_dir`.
pub const FILE: &str = "journal.redb";

const RECORDS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("records");
/// Bytes of SHA-256 before each record.
const CHECKSUM: usize = 8;
/// Memory for pages; the journal is small and mostly appended to.
const CACHE: usize = 4 << 20;
/// The version of [`Stored`].
const VERSION: u32 = 1;

/// A record as it is stored.
#[derive(Serialize, Deserialize)]
struct Stored<E> {
    v: u32,
    entry: E,
}

/// The journal on disk. No other process can open it while this lives.
pub struct RedbJournal {
    path: PathBuf,
    /// `None` after a write that failed.
    database: Mutex<Option<Arc<Database>>>,
    /// Whether the last write failed, so that nobody knows what of it is there.
    failed: AtomicBool,
    /// Held as long as this lives, also while the file is closed.
    _directory: File,
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
        let directory = lock(state_dir, &path)?;
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
        Self::open_locked(path, directory)
    }

    /// Opens the journal in `state_dir` if there is one, and reads it.
    ///
    /// # Errors
    /// [`OpenError`], with the way out.
    pub fn open_existing(state_dir: &Path) -> Result<(Self, Vec<Entry>), OpenError> {
        let path = state_dir.join(FILE);
        match fs::metadata(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(OpenError::Absent { path }),
            Err(error) => return Err(OpenError::Storage { path, reason: error.to_string() }),
            Ok(_) => {}
        }
        let directory = lock(state_dir, &path)?;
        Self::open_locked(path, directory)
    }

    fn open_locked(path: PathBuf, directory: File) -> Result<(Self, Vec<Entry>), OpenError> {
        let size = fs::metadata(&path).map(|metadata| metadata.len());
        match size {
            Err(error) => return Err(OpenError::Storage { path, reason: error.to_string() }),
            Ok(0) => return Err(OpenError::Damaged { path, reason: "the file is empty".to_owned() }),
            Ok(_) => {}
        }
        let database = Mutex::new(Some(open_database(&path)?));
        let journal = Self { path, database, failed: AtomicBool::new(false), _directory: directory };
        let damaged = |error: ReadError| OpenError::Damaged { path: journal.path.clone(), reason: error.to_string() };
        let entries = journal.read_from(1).map_err(damaged)?;
        Ok((journal, entries))
    }

    /// The open file, opened anew where a write has failed.
    fn database(&self) -> Result<Arc<Database>, String> {
        let mut database = self.database.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = &*database {
            return Ok(Arc::clone(open));
        }
        let opened = open_database(&self.path).map_err(|error| error.to_string())?;
        *database = Some(Arc::clone(&opened));
        Ok(opened)
    }

    /// Closes a file that redb will not write to again.
    fn close(&self) {
        *self.database.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// Takes the directory for this process alone.
fn lock(state_dir: &Path, path: &Path) -> Result<File, OpenError> {
    let storage = |error: std::io::Error| OpenError::Storage { path: path.to_owned(), reason: error.to_string() };
    let directory = File::open(state_dir).map_err(storage)?;
    match directory.try_lock() {
        Ok(()) => Ok(directory),
        Err(TryLockError::WouldBlock) => Err(OpenError::Held { path: path.to_owned() }),
        Err(TryLockError::Error(error)) => Err(storage(error)),
    }
}

fn open_database(path: &Path) -> Result<Arc<Database>, OpenError> {
    let opened = Builder::new().set_cache_size(CACHE).set_check_integrity_on_open(true).open(path);
    opened.map(Arc::new).map_err(|error| open_error(path, error))
}

fn make(path: &Path) -> Result<(), String> {
    let database = Builder::new().set_cache_size(CACHE).create(path).map_err(|error| error.to_string())?;
    let write = database.begin_write().map_err(|error| error.to_string())?;
    write.open_table(RECORDS).map_err(|error| error.to_string())?;
    write.commit().map_err(|error| error.to_string())
}

fn open_error(path: &Path, error: DatabaseError) -> OpenError {
    let path: PathBuf = path.to_owned();
    if matches!(error, DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch) {
        return OpenError::Held { path };
    }
    let reason = error.to_string();
    match error {
        DatabaseError::Storage(StorageError::Io(cause)) if cause.kind() != std::io::ErrorKind::InvalidData => {
            OpenError::Storage { path, reason }
        }
        DatabaseError::Storage(_)
        | DatabaseError::RepairAborted
        | DatabaseError::UpgradeRequired(_)
        | DatabaseError::TransactionInProgress
        | _ => OpenError::Damaged { path, reason },
    }
}

fn encode(entry: &Entry) -> Result<Vec<u8>, AppendError> {
    let json = serde_json::to_vec(&Stored { v: VERSION, entry })
        .map_err(|error| AppendError::Storage { reason: error.to_string() })?;
    let mut bytes = checksum(&json).to_vec();
    bytes.extend_from_slice(&json);
    Ok(bytes)
}

fn decode(seq: u64, bytes: &[u8]) -> Result<Entry, ReadError> {
    let damaged = |reason: String| ReadError::Damaged { seq, reason };
    let (sum, json) = bytes.split_at_checked(CHECKSUM).ok_or_else(|| damaged("it is too short".to_owned()))?;
    if checksum(json) != sum {
        return Err(damaged("its checksum does not match".to_owned()));
    }
    let stored: Stored<Entry> = serde_json::from_slice(json).map_err(|error| damaged(error.to_string()))?;
    if stored.v != VERSION {
        return Err(damaged(format!("it has version {}, this program reads version {VERSION}", stored.v)));
    }
    if stored.entry.seq != seq {
        return Err(damaged(format!("it says that it is record {}", stored.entry.seq)));
    }
    Ok(stored.entry)
}

fn checksum(json: &[u8]) -> [u8; CHECKSUM] {
    let mut sum = [0; CHECKSUM];
    sum.iter_mut().zip(Sha256::digest(json)).for_each(|(to, from)| *to = from);
    sum
}

/// Writes entries in one transaction. After a commit that was said to have failed, what has reached the disk all the
/// same is left as it is.
fn write(database: &Database, entries: &[Entry], after_failure: bool) -> Result<(), AppendError> {
    let storage = |error: ::redb::Error| AppendError::Storage { reason: error.to_string() };
    let write = database.begin_write().map_err(|error| storage(error.into()))?;
    {
        let mut table = write.open_table(RECORDS).map_err(|error| storage(error.into()))?;
        let last = table.last().map_err(|error| storage(error.into()))?.map_or(0, |(seq, _)| seq.value());
        let mut fresh = entries;
        while let Some((first, rest)) = fresh.split_first().filter(|(first, _)| after_failure && first.seq <= last) {
            let there = table.get(first.seq).map_err(|error| storage(error.into()))?;
            let written = encode(first)?;
            if there.is_none_or(|there| written != there.value()) {
                break;
            }
            fresh = rest;
        }
        in_order(last, fresh)?;
        for entry in fresh {
            table.insert(entry.seq, encode(entry)?.as_slice()).map_err(|error| storage(error.into()))?;
        }
    }
    write.commit().map_err(|error| storage(error.into()))
}

impl Journal for RedbJournal {
    fn append(&self, entries: &[Entry]) -> Result<(), AppendError> {
        if entries.is_empty() {
            return Ok(());
        }
        let database = self.database().map_err(|reason| AppendError::Storage { reason })?;
        let written = write(&database, entries, self.failed.load(Ordering::Acquire));
        let failed = matches!(written, Err(AppendError::Storage { .. }));
        self.failed.store(failed, Ordering::Release);
        if failed {
            drop(database);
            self.close();
        }
        written
    }

    fn read_from(&self, seq: u64) -> Result<Vec<Entry>, ReadError> {
        let storage = |error: ::redb::Error| ReadError::Storage { reason: error.to_string() };
        let database = self.database().map_err(|reason| ReadError::Storage { reason })?;
        let read = database.begin_read().map_err(|error| storage(error.into()))?;
        let table = read.open_table(RECORDS).map_err(|error| storage(error.into()))?;
        let mut entries = Vec::new();
        let rows = table.range(seq..).map_err(|error| storage(error.into()))?;
        for (expected, row) in (seq.max(1)..).zip(rows) {
            let (place, bytes) = row.map_err(|error| storage(error.into()))?;
            if place.value() != expected {
                return Err(ReadError::Damaged { seq: expected, reason: "it is missing".to_owned() });
            }
            entries.push(decode(expected, bytes.value())?);
        }
        Ok(entries)
    }
}
