//! A journal in memory, for tests.

use std::sync::{Mutex, MutexGuard, PoisonError};

use rollbackd_core::run::record::Entry;

use super::{AppendError, Journal, ReadError, in_order};

/// Entries in memory.
#[derive(Debug, Default)]
pub struct MemoryJournal(Mutex<Vec<Entry>>);

impl MemoryJournal {
    fn all(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Journal for MemoryJournal {
    fn append(&self, entries: &[Entry]) -> Result<(), AppendError> {
        let mut all = self.all();
        in_order(all.last().map_or(0, |entry| entry.seq), entries)?;
        all.extend_from_slice(entries);
        Ok(())
    }

    fn read_from(&self, seq: u64) -> Result<Vec<Entry>, ReadError> {
        Ok(self.all().iter().filter(|entry| entry.seq >= seq).cloned().collect())
    }

    fn condense(&self, condensed: &Entry) -> Result<(), AppendError> {
        let mut all = self.all();
        let place = all.iter().position(|entry| entry.seq == condensed.seq);
        let Some(place) = place else { return Err(AppendError::NoSuchPlace { seq: condensed.seq }) };
        all.splice(..=place, [condensed.clone()]);
        Ok(())
    }
}
