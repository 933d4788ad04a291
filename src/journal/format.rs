//! One record as it is stored and exported: JSON in an envelope with the version of its format.
//!
//! ```text
//! 8 bytes of SHA-256 │ {"v":1,"entry":{"seq":412,"at":"…","window":"…","record":{"type":"step_started",…}}}
//! ```
//!
//! A record has the version of the first program that could read it, not that of the program that wrote it: a program
//! that is taken back to the version before reads on for as long as nothing new was written. Fields that a program does
//! not know are left alone; a kind of record that it does not know, or a newer version, is refused.

use rollbackd_core::run::record::{Entry, Record};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{AppendError, ReadError};

/// The newest version that is read and written. 2: old windows are let go ([`Record::Condensed`]), and
/// clocks are set ([`Record::ClockMoved`]).
pub const VERSION: u32 = 2;
/// Bytes of SHA-256 before each record.
const CHECKSUM: usize = 8;

/// A record as it is stored.
#[derive(Serialize, Deserialize)]
struct Stored<E> {
    v: u32,
    entry: E,
}

/// What can be said of a record whoever has written it.
#[derive(Deserialize)]
struct Outline {
    seq: u64,
    record: Kind,
}

#[derive(Deserialize)]
struct Kind {
    #[serde(rename = "type")]
    kind: String,
}

/// The first version in which there are records like this.
const fn version_of(record: &Record) -> u32 {
    if matches!(record, Record::Condensed { .. } | Record::ClockMoved { .. }) { 2 } else { 1 }
}

/// An entry as a line of an export.
///
/// # Errors
/// When it cannot be written as JSON, which is a bug.
pub fn line(entry: &Entry) -> Result<String, AppendError> {
    serde_json::to_string(&Stored { v: version_of(&entry.record), entry })
        .map_err(|error| AppendError::Storage { reason: error.to_string() })
}

/// The entry in a line, which must be that of this place.
///
/// # Errors
/// What is wrong with it.
pub fn parse(seq: u64, line: &str) -> Result<Entry, ReadError> {
    let damaged = |reason: String| ReadError::Damaged { seq, reason };
    let stored = match serde_json::from_str::<Stored<Entry>>(line) {
        Ok(stored) if stored.v > VERSION => return Err(ReadError::Newer { seq, found: stored.v }),
        Ok(stored) => stored,
        Err(error) => return Err(not_understood(seq, line, &error)),
    };
    if stored.v == 0 {
        return Err(damaged("it has no version".to_owned()));
    }
    if stored.entry.seq != seq {
        return Err(damaged(format!("it says that it is record {}", stored.entry.seq)));
    }
    Ok(stored.entry)
}

/// Why a line is no entry: it may be a newer program's.
fn not_understood(seq: u64, line: &str, error: &serde_json::Error) -> ReadError {
    let reason = match serde_json::from_str::<Stored<Outline>>(line) {
        Ok(outline) if outline.v > VERSION => return ReadError::Newer { seq, found: outline.v },
        Ok(outline) if error.to_string().starts_with(&format!("unknown variant `{}`", outline.entry.record.kind)) => {
            let kind = outline.entry.record.kind;
            format!("it is of a kind that rollbackd {} does not know: `{kind}`", env!("CARGO_PKG_VERSION"))
        }
        Ok(_) | Err(_) => error.to_string(),
    };
    ReadError::Damaged { seq, reason }
}

/// The place that a line says it has.
pub fn place(line: &str) -> Option<u64> {
    serde_json::from_str::<Stored<Outline>>(line).ok().map(|stored| stored.entry.seq)
}

/// The version that a line says it has.
pub fn version(line: &str) -> Option<u32> {
    serde_json::from_str::<Stored<Outline>>(line).ok().map(|stored| stored.v)
}

/// An entry as it is stored.
pub(super) fn encode(entry: &Entry) -> Result<Vec<u8>, AppendError> {
    let json = line(entry)?;
    let mut bytes = checksum(json.as_bytes()).to_vec();
    bytes.extend_from_slice(json.as_bytes());
    Ok(bytes)
}

/// The line in what is stored, when it is what was written.
pub(super) fn whole(seq: u64, bytes: &[u8]) -> Result<&str, ReadError> {
    let damaged = |reason: &str| ReadError::Damaged { seq, reason: reason.to_owned() };
    let (sum, json) = bytes.split_at_checked(CHECKSUM).ok_or_else(|| damaged("it is too short"))?;
    if checksum(json) != sum {
        return Err(damaged("its checksum does not match"));
    }
    str::from_utf8(json).map_err(|_not_text| damaged("it is not text"))
}

fn checksum(json: &[u8]) -> [u8; CHECKSUM] {
    let mut sum = [0; CHECKSUM];
    sum.iter_mut().zip(Sha256::digest(json)).for_each(|(to, from)| *to = from);
    sum
}

/// Every line that stands whole somewhere in these bytes, with its place: for a file whose structure is lost. Of several
/// of one place the one that was decided last is given.
pub(super) fn scan(bytes: &[u8]) -> Vec<(u64, String)> {
    const BEGIN: &[u8] = b"{\"v\":";
    let mut found = std::collections::BTreeMap::new();
    let mut from = CHECKSUM;
    while let Some(rest) = bytes.get(from..) {
        let Some(step) = rest.windows(BEGIN.len()).position(|window| window == BEGIN) else { break };
        let begin = from + step;
        from = begin + 1;
        let Some(length) = rest.get(step..).and_then(length_of) else { continue };
        let stored = begin.checked_sub(CHECKSUM).and_then(|sum| bytes.get(sum..begin + length));
        let Some(line) = stored.and_then(|stored| whole(0, stored).ok()) else { continue };
        let Ok(outline) = serde_json::from_str::<Stored<Dated>>(line) else { continue };
        let Dated { seq, at } = outline.entry;
        let newest = found.get(&seq).is_none_or(|(known, _)| *known <= at);
        if newest {
            found.insert(seq, (at, line.to_owned()));
        }
        from = begin + length;
    }
    found.into_iter().map(|(seq, (_, line))| (seq, line)).collect()
}

#[derive(Deserialize)]
struct Dated {
    seq: u64,
    at: jiff::Timestamp,
}

/// How many bytes the JSON value takes with which these begin.
fn length_of(bytes: &[u8]) -> Option<usize> {
    let mut values = serde_json::Deserializer::from_slice(bytes).into_iter::<serde::de::IgnoredAny>();
    values.next()?.ok()?;
    Some(values.byte_offset())
}
