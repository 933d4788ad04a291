//! A journal in memory, for tests.

use std::sync::{Mutex, PoisonError};

use rollbackd_core::run::record::Entry;

use super::{AppendError, Journal, ReadError, in_order};

/// Entries in memory.
#[derive(Debug, Default)]
pub struct MemoryJournal(Mutex<Vec<Entry>>);

impl Journal for MemoryJournal {
    fn append(&self, entries: &[Entry]) -> Result<(), AppendError> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        in_order(all.last().map_or(0, |entry| entry.seq), entries)?;
        all.extend_from_slice(entries);
        Ok(())
    }

    fn read_from(&self, seq: u64) -> Result<Vec<Entry>, ReadError> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(all.iter().filter(|entry| entry.seq >= seq).cloned().collect())
    }
}
