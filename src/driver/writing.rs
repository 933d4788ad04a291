//! Making records durable, also with a journal that fails or hangs.
//!
//! An append that failed may have reached the disk all the same, so the journal is read before anything is written again.

use std::sync::Arc;
use std::time::Duration;

use rollbackd_core::run::record::Entry;

use super::{DRAIN, Driver, Show};
use crate::journal::Journal;
use crate::{clock, crash};

/// The pause before the journal is asked again.
const JOURNAL_RETRY: Duration = Duration::from_secs(1);
/// How long the journal may take before it is said that it does not answer.
const JOURNAL_PATIENCE: Duration = Duration::from_secs(5);

/// What became of entries that were to be appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Written {
    /// They are durable.
    Yes,
    /// They are not there.
    No,
    /// Nobody knows, and the loop was asked to end.
    Ending,
}

impl Driver {
    /// Appends. When that fails, stands still until the journal can be read, and looks whether the entries are there.
    pub(super) async fn append(&mut self, entries: &[Entry]) -> Written {
        let batch: Arc<[Entry]> = entries.into();
        let watch = clock::Stopwatch::start();
        let appending = Arc::clone(&batch);
        crash::point(crash::Point::BeforeAppend);
        match self.ask_journal(move |journal| journal.append(&appending).map_err(|error| error.to_string())).await {
            None => return Written::Ending,
            Some(Ok(())) => {
                crash::point(crash::Point::AfterAppend);
                self.parts.metrics.appended(watch.elapsed());
                self.journal_works();
                return Written::Yes;
            }
            Some(Err(error)) => self.journal_fails(error),
        }
        loop {
            tokio::select! {
                () = self.cancel.cancelled() => return Written::Ending,
                () = tokio::time::sleep(JOURNAL_RETRY) => {}
            }
            let next = self.state.seq + 1;
            match self.ask_journal(move |journal| journal.read_from(next).map_err(|error| error.to_string())).await {
                None => return Written::Ending,
                Some(Ok(there)) if there.is_empty() => return Written::No,
                Some(Ok(there)) if there == *batch => {
                    self.journal_works();
                    return Written::Yes;
                }
                Some(Ok(_)) => self.journal_fails("the journal holds records of somebody else".to_owned()),
                Some(Err(error)) => self.journal_fails(error),
            }
        }
    }

    /// Asks the journal on a thread of its own, and says so while it does not answer. `None`: it was asked to end, and
    /// there is still no answer.
    pub(super) async fn ask_journal<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&dyn Journal) -> Result<T, String> + Send + 'static,
    ) -> Option<Result<T, String>> {
        let journal = Arc::clone(&self.parts.journal);
        let mut answer = tokio::task::spawn_blocking(move || work(journal.as_ref()));
        let cancel = self.cancel.clone();
        loop {
            tokio::select! {
                answer = &mut answer => return Some(answer.unwrap_or_else(|error| Err(error.to_string()))),
                () = tokio::time::sleep(JOURNAL_PATIENCE) => {
                    self.journal_fails("the journal does not answer: is its disk hanging?".to_owned());
                }
                () = cancel.cancelled() => {
                    let answer = tokio::time::timeout(DRAIN, answer).await.ok()?;
                    return Some(answer.unwrap_or_else(|error| Err(error.to_string())));
                }
            }
        }
    }

    pub(super) fn journal_works(&mut self) {
        if self.journal_error.take().is_some() {
            tracing::info!(event = "journal.recovered", "the journal can be written again");
        }
    }

    fn journal_fails(&mut self, error: String) {
        self.parts.metrics.journal_failed();
        if self.journal_error.is_none() {
            tracing::error!(event = "journal.failed", error, "nothing is done until the journal can be written");
        }
        self.journal_error = Some(error);
        self.show = Show::Records;
        self.publish();
    }
}
