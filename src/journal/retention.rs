//! Which windows are kept. The rest is let go, so that neither the file nor the memory grows for ever.
//!
//! The newest windows are kept whole, with every record; what is known of the others after that is how many they were and
//! what was counted ([`condense`](rollbackd_core::run::condense)). It is done when the daemon starts and after a window
//! was settled, never while one is open. At the start the file is made smaller, too.

use rollbackd_core::run::condense::condensed;
use rollbackd_core::run::record::Entry;
use rollbackd_core::run::state::{Settled, State};

use super::Journal;
use super::redb::RedbJournal;

/// How much is kept.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// At most so many windows …
    pub windows: usize,
    /// … with about so many bytes of records, …
    pub bytes: usize,
    /// … but so many windows whatever they weigh.
    pub at_least: usize,
}

/// What the daemon keeps.
const KEPT: Limits = Limits { windows: 1000, bytes: 64 << 20, at_least: 50 };

/// What the daemon keeps. In a development build `ROLLBACKD_KEPT_WINDOWS=20` makes it fewer, for a soak that is to see
/// them go.
pub fn kept() -> Limits {
    #[cfg(debug_assertions)]
    if let Some(windows) = std::env::var("ROLLBACKD_KEPT_WINDOWS").ok().and_then(|text| text.parse().ok()) {
        return Limits { windows, at_least: windows.min(KEPT.at_least), ..KEPT };
    }
    KEPT
}

impl Limits {
    /// The place of the first record that is kept, when there are windows to be let go.
    pub fn first_kept(self, history: &[Settled], sizes: &[(u64, usize)]) -> Option<u64> {
        let mut sizes = sizes.iter().rev().peekable();
        let mut weight = 0_usize;
        let mut first = None;
        for (number, window) in history.iter().rev().enumerate() {
            while let Some((_, bytes)) = sizes.next_if(|(seq, _)| *seq >= window.first_seq) {
                weight = weight.saturating_add(*bytes);
            }
            if number >= self.windows || (number >= self.at_least && weight > self.bytes) {
                return first;
            }
            first = Some(window.first_seq);
        }
        None
    }

    /// The same with a tenth more: what is let go while the daemon runs is let go in larger pieces.
    const fn loose(self) -> Self {
        Self { windows: self.windows + self.windows.div_ceil(10), bytes: self.bytes + self.bytes / 10, ..self }
    }
}

/// Lets old windows go, and gives the place of the first record that is kept when it did. No window may be open.
///
/// # Errors
/// Why it could not be done; everything is there then.
pub fn let_go(journal: &dyn Journal, history: &[Settled], limits: Limits) -> Result<Option<u64>, String> {
    if history.len() <= limits.at_least {
        return Ok(None);
    }
    let sizes = journal.sizes().map_err(|error| error.to_string())?;
    if limits.loose().first_kept(history, &sizes).is_none() {
        return Ok(None);
    }
    let Some(first) = limits.first_kept(history, &sizes) else { return Ok(None) };
    let entries = journal.read_from(1).map_err(|error| error.to_string())?;
    let Some(condensed) = condensed(&entries, first - 1) else { return Ok(None) };
    journal.condense(&condensed).map_err(|error| error.to_string())?;
    tracing::info!(event = "journal.condensed", first, "old windows were let go");
    Ok(Some(first))
}

/// The same at the start, where the file is made smaller as well. `entries` are what the journal holds. What cannot be
/// done is left for the next start.
pub fn at_start(journal: &RedbJournal, entries: &mut Vec<Entry>, limits: Limits) {
    let state = State::replay(&*entries);
    if state.window.is_some() {
        return;
    }
    let done = let_go(journal, &state.history, limits).and_then(|first| {
        if let Some(first) = first
            && let Some(condensed) = condensed(&*entries, first - 1)
        {
            entries.retain(|entry| entry.seq >= first);
            entries.insert(0, condensed);
        }
        journal.compact()
    });
    if let Err(error) = done {
        tracing::warn!(event = "journal.not_condensed", error, "the journal is left as large as it is");
    }
}
