//! Transactions of the one table: place → record behind its checksum.

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use rollbackd_core::run::record::{Entry, Record};

use crate::journal::format::{encode, parse, whole};
use crate::journal::{AppendError, ReadError, in_order};

const RECORDS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("records");

/// Why a transaction did not come about.
#[derive(Debug)]
pub(super) enum Failure {
    /// It must not: nothing is wrong with the storage.
    Refused(AppendError),
    /// The storage failed. What has reached the disk is not known.
    Storage(redb::Error),
}

impl Failure {
    /// Whether there was no room.
    pub(super) fn is_full(&self) -> bool {
        if let Self::Storage(redb::Error::Io(error)) = self { is_full(error) } else { false }
    }
}

impl From<Failure> for AppendError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Refused(error) => error,
            Failure::Storage(error) => Self::Storage { reason: error.to_string() },
        }
    }
}

/// Whether an error says that the disk, or this user's part of it, is full.
pub(super) fn is_full(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
}

/// Makes the table in a new file.
pub(in crate::journal) fn make(database: &Database) -> Result<(), redb::Error> {
    let write = database.begin_write()?;
    write.open_table(RECORDS)?;
    Ok(write.commit()?)
}

/// Writes entries in one transaction. After a commit that was said to have failed, what has reached the disk all the
/// same is left as it is.
pub(super) fn write(database: &Database, entries: &[Entry], after_failure: bool) -> Result<(), Failure> {
    let storage = Failure::Storage;
    let write = database.begin_write().map_err(|error| storage(error.into()))?;
    {
        let mut table = write.open_table(RECORDS).map_err(|error| storage(error.into()))?;
        let last = table.last().map_err(|error| storage(error.into()))?.map_or(0, |(seq, _)| seq.value());
        let mut fresh = entries;
        while let Some((first, rest)) = fresh.split_first().filter(|(first, _)| after_failure && first.seq <= last) {
            let there = table.get(first.seq).map_err(|error| storage(error.into()))?;
            let written = encode(first).map_err(Failure::Refused)?;
            if there.is_none_or(|there| written != there.value()) {
                break;
            }
            fresh = rest;
        }
        in_order(last, fresh).map_err(Failure::Refused)?;
        for entry in fresh {
            let bytes = encode(entry).map_err(Failure::Refused)?;
            table.insert(entry.seq, bytes.as_slice()).map_err(|error| storage(error.into()))?;
        }
    }
    write.commit().map_err(|error| storage(error.into()))
}

/// Lets everything go up to an entry's place, and puts the entry there, in one transaction.
pub(super) fn condense(database: &Database, condensed: &Entry) -> Result<(), Failure> {
    let storage = Failure::Storage;
    let write = database.begin_write().map_err(|error| storage(error.into()))?;
    {
        let mut table = write.open_table(RECORDS).map_err(|error| storage(error.into()))?;
        if table.get(condensed.seq).map_err(|error| storage(error.into()))?.is_none() {
            return Err(Failure::Refused(AppendError::NoSuchPlace { seq: condensed.seq }));
        }
        let bytes = encode(condensed).map_err(Failure::Refused)?;
        table.retain_in(..condensed.seq, |_, _| false).map_err(|error| storage(error.into()))?;
        table.insert(condensed.seq, bytes.as_slice()).map_err(|error| storage(error.into()))?;
    }
    write.commit().map_err(|error| storage(error.into()))
}

/// Goes through the records from a place on, in order, for as long as more are wanted. The first is that of the place, or
/// one that stands for all before it; none may be missing, and each must be what was written.
pub(super) fn walk(
    database: &impl ReadableDatabase,
    seq: u64,
    mut take: impl FnMut(u64, &str) -> Result<bool, ReadError>,
) -> Result<(), ReadError> {
    let storage = |error: redb::Error| ReadError::Storage { reason: error.to_string() };
    let read = database.begin_read().map_err(|error| storage(error.into()))?;
    let table = read.open_table(RECORDS).map_err(|error| storage(error.into()))?;
    let mut expected = seq.max(1);
    let mut first = true;
    for row in table.range(expected..).map_err(|error| storage(error.into()))? {
        let (place, bytes) = row.map_err(|error| storage(error.into()))?;
        let missing = ReadError::Damaged { seq: expected, reason: "it is missing".to_owned() };
        if place.value() != expected {
            let begins = first && table.range(..expected).map_err(|error| storage(error.into()))?.next().is_none();
            let stands = begins && {
                let line = whole(place.value(), bytes.value())?;
                matches!(parse(place.value(), line)?.record, Record::Condensed { .. })
            };
            if !stands {
                return Err(missing);
            }
            expected = place.value();
        }
        first = false;
        if !take(expected, whole(expected, bytes.value())?)? {
            return Ok(());
        }
        expected += 1;
    }
    Ok(())
}

/// The places and sizes of the records, and nothing checked.
pub(super) fn sizes(database: &Database) -> Result<Vec<(u64, usize)>, ReadError> {
    let storage = |error: redb::Error| ReadError::Storage { reason: error.to_string() };
    let read = database.begin_read().map_err(|error| storage(error.into()))?;
    let table = read.open_table(RECORDS).map_err(|error| storage(error.into()))?;
    let rows = table.iter().map_err(|error| storage(error.into()))?;
    rows.map(|row| row.map(|(seq, bytes)| (seq.value(), bytes.value().len())))
        .collect::<Result<_, _>>()
        .map_err(|error| storage(error.into()))
}
