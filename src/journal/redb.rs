//! The journal on disk.
//!
//! One redb file, one table: place → record as JSON behind a checksum. A commit is durable when it returns. The
//! file is checked whole at every opening: nobody decides about a database from records that may have rotted.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

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
    /// `None` after the storage has failed: redb then refuses everything until the file is opened again.
    database: Mutex<Option<Database>>,
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
        if !path.try_exists().map_err(storage)? {
            // Made under another name first: a crash in between must not leave a file that looks like a damaged journal.
            let fresh = state_dir.join(format!("{FILE}.new"));
            if fresh.try_exists().map_err(storage)? {
                fs::remove_file(&fresh).map_err(storage)?;
            }
            make(&fresh).map_err(|reason| OpenError::Storage { path: fresh.clone(), reason })?;
            fs::rename(&fresh, &path).map_err(storage)?;
            fs::File::open(state_dir).and_then(|directory| directory.sync_all()).map_err(storage)?;
        }
        Self::open_existing(state_dir)
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
            Ok(metadata) if metadata.len() == 0 => {
                return Err(OpenError::Damaged { path, reason: "the file is empty".to_owned() });
            }
            Ok(_) => {}
        }
        let database = open_database(&path)?;
        let journal = Self { path: path.clone(), database: Mutex::new(Some(database)) };
        let entries = journal.read_from(1).map_err(|error| OpenError::Damaged { path, reason: error.to_string() })?;
        Ok((journal, entries))
    }
}

fn open_database(path: &Path) -> Result<Database, OpenError> {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE).set_check_integrity_on_open(true);
    builder.open(path).map_err(|error| open_error(path, error))
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

impl RedbJournal {
    /// Works with the database, opened again when the storage failed the last time.
    fn with<T, E: From<String>>(&self, work: impl FnOnce(&Database) -> Result<T, Failed<E>>) -> Result<T, E> {
        let mut held = self.database.lock().unwrap_or_else(PoisonError::into_inner);
        let database = match held.take() {
            Some(database) => database,
            None => open_database(&self.path).map_err(|error| E::from(error.to_string()))?,
        };
        let worked = work(&database);
        match worked {
            Err(Failed::Storage(error)) => Err(E::from(error.to_string())),
            Err(Failed::Other(error)) => {
                *held = Some(database);
                Err(error)
            }
            Ok(value) => {
                *held = Some(database);
                Ok(value)
            }
        }
    }
}

/// Why work with the database failed.
enum Failed<E> {
    /// The storage refused: the database is opened again before it is used again.
    Storage(::redb::Error),
    /// Something else.
    Other(E),
}

impl<E, S: Into<::redb::Error>> From<S> for Failed<E> {
    fn from(error: S) -> Self {
        Self::Storage(error.into())
    }
}

impl From<String> for AppendError {
    fn from(reason: String) -> Self {
        Self::Storage { reason }
    }
}

impl From<String> for ReadError {
    fn from(reason: String) -> Self {
        Self::Storage { reason }
    }
}

impl Journal for RedbJournal {
    fn append(&self, entries: &[Entry]) -> Result<(), AppendError> {
        if entries.is_empty() {
            return Ok(());
        }
        let encoded: Vec<(u64, Vec<u8>)> =
            entries.iter().map(|entry| Ok((entry.seq, encode(entry)?))).collect::<Result<_, AppendError>>()?;
        self.with(|database| {
            let write = database.begin_write()?;
            {
                let mut table = write.open_table(RECORDS)?;
                let last = table.last()?.map_or(0, |(seq, _)| seq.value());
                if last > 0 && entries.last().is_some_and(|entry| entry.seq <= last) {
                    for (seq, bytes) in &encoded {
                        if table.get(seq)?.is_none_or(|stored| stored.value() != bytes.as_slice()) {
                            return Err(Failed::Other(AppendError::OutOfOrder { last, found: *seq }));
                        }
                    }
                    return Ok(());
                }
                in_order(last, entries).map_err(Failed::Other)?;
                for (seq, bytes) in &encoded {
                    table.insert(seq, bytes.as_slice())?;
                }
            }
            Ok(write.commit()?)
        })
    }

    fn read_from(&self, seq: u64) -> Result<Vec<Entry>, ReadError> {
        self.with(|database| {
            let read = database.begin_read()?;
            let table = read.open_table(RECORDS)?;
            let mut entries = Vec::new();
            for (expected, row) in (seq.max(1)..).zip(table.range(seq..)?) {
                let (place, bytes) = row?;
                if place.value() != expected {
                    let reason = "it is missing".to_owned();
                    return Err(Failed::Other(ReadError::Damaged { seq: expected, reason }));
                }
                entries.push(decode(expected, bytes.value()).map_err(Failed::Other)?);
            }
            Ok(entries)
        })
    }
}
