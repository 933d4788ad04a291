//! What the journal holds, for others to read; and what of it is let go.

use std::sync::Arc;

use rollbackd_core::run::record::{Entry, Record};
use tokio::sync::oneshot;

use super::Driver;
use crate::journal::{Journal, retention};

/// A page of an export has about so many bytes.
const PAGE: usize = 4 << 20;

impl Driver {
    /// Reads the records of a window, or all of them, beside the loop.
    pub(super) fn read_records(&self, window: Option<String>, reply: oneshot::Sender<Result<Vec<Entry>, String>>) {
        let journal = Arc::clone(&self.parts.journal);
        let from = window.as_ref().map_or(1, |window| self.first_of(window));
        self.answer(reply, move || records(journal.as_ref(), from, window.as_deref()));
    }

    /// Reads a page of an export, beside the loop.
    pub(super) fn read_lines(&self, from: u64, reply: oneshot::Sender<Result<Vec<String>, String>>) {
        let journal = Arc::clone(&self.parts.journal);
        self.answer(reply, move || journal.lines_from(from, PAGE).map_err(|error| error.to_string()));
    }

    fn answer<T: Send + 'static>(
        &self,
        reply: oneshot::Sender<Result<T, String>>,
        work: impl FnOnce() -> Result<T, String> + Send + 'static,
    ) {
        self.effects.track(async move {
            let read = tokio::task::spawn_blocking(work).await;
            if reply.send(read.unwrap_or_else(|error| Err(error.to_string()))).is_err() {
                tracing::debug!(event = "request.unheard", "nobody waits for the records any more");
            }
        });
    }

    /// Where the records of a window begin: nothing before is read for it.
    fn first_of(&self, window: &str) -> u64 {
        let open = self.state.window.iter().filter(|open| open.id == window).map(|open| open.first_seq);
        let settled = self.state.history.iter().filter(|settled| settled.id == window).map(|settled| settled.first_seq);
        open.chain(settled).min().unwrap_or(1)
    }

    /// Lets old windows go, once one is settled.
    pub(super) async fn let_go(&mut self, taken: &[Entry]) {
        let settled = taken.iter().any(|entry| matches!(entry.record, Record::WindowSettled { .. }));
        if !settled || self.state.window.is_some() {
            return;
        }
        let state = Arc::clone(&self.state);
        let done = self.ask_journal(move |journal| retention::let_go(journal, &state.history, retention::kept())).await;
        match done {
            Some(Ok(first)) => {
                if let Some(first) = first {
                    Arc::make_mut(&mut self.state).forget_before(first);
                }
                self.journal_works();
            }
            // Nothing is lost, and the next settled window or start is another occasion.
            Some(Err(error)) => tracing::warn!(event = "journal.not_condensed", error, "old windows are kept for now"),
            None => {}
        }
    }
}

/// The records from a place on: those of a window, or all of them.
fn records(journal: &dyn Journal, from: u64, window: Option<&str>) -> Result<Vec<Entry>, String> {
    let mut entries = journal.read_from(from).map_err(|error| error.to_string())?;
    entries.retain(|entry| window.is_none_or(|window| entry.window.as_deref() == Some(window)));
    Ok(entries)
}
