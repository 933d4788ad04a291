//! Undoes a window's removal: tables, what hung on them, and columns come back as the migration had made them.
//!
//! What a removal did is written down in its quarantine, transaction by transaction
//! (`postgres::removal::undo`). This goes through these records, the newest first, one transaction each, and
//! strikes each out in the transaction that undoes it: it may be stopped at any point and begun again. Nothing is ever
//! overwritten: where something has taken a name meanwhile, it stops and names it. `conflict` looks for that,
//! `attempt` is one transaction, `goal` is what it is to lead to, `columns`, `copies` and `archive` are the parts that hold
//! values, what was moved, and dropped tables, and `places` knows which quarantines there are.

mod archive;
mod attempt;
mod columns;
mod conflict;
mod copies;
mod goal;
pub(crate) mod places;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rollbackd_core::baseline::TableName;
use rollbackd_core::words::counted;
use serde::Serialize;

use self::attempt::Attempt;
use crate::config::model::Config;
use crate::postgres::activity::{self, Blocker};
use crate::postgres::pinned::Pinned;
use crate::postgres::session::Session;
use crate::postgres::{Failure, count};
use crate::rung::Patience;

/// How often a catalog that changes under us is looked at again.
const MOVES: u32 = 5;

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// All of it is back, and was verified.
    Undone,
    /// There was nothing to bring back.
    Nothing,
    /// Something is in the way, and the rest stays where it is.
    Stopped,
    /// It failed, or the time was up.
    Failed,
}

/// What came of it.
#[derive(Debug, Clone, Serialize)]
pub struct Undone {
    /// How it ended.
    pub ended: Ended,
    /// Why, when not everything is back.
    pub reasons: Vec<String>,
    /// The tables that are back.
    pub tables: Vec<Returned>,
    /// What else is back, in words.
    pub objects: Vec<String>,
    /// What became of columns and their values, in words.
    pub columns: Vec<String>,
    /// What did not come back, and why, in words.
    pub left: Vec<String>,
    /// What the migration had taken away and the removal made again: it stays, in words.
    pub stays: Vec<String>,
    /// Who was in the way.
    pub blockers: Vec<String>,
    /// Whether the quarantine is gone.
    pub quarantine_dropped: bool,
}

/// A table that is back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Returned {
    /// Its name.
    pub table: TableName,
    /// Its rows, counted afterwards.
    pub rows: Option<u64>,
    /// The archive that it came from; absent: the quarantine.
    pub archive: Option<String>,
}

/// What one transaction brought back.
#[derive(Debug, Default)]
struct Batch {
    tables: Vec<Returned>,
    objects: Vec<String>,
    columns: Vec<String>,
    left: Vec<String>,
    stays: Vec<String>,
    quarantine_dropped: bool,
    /// Relations that need not be looked at again.
    hidden: Vec<u32>,
}

/// Which quarantine, and by which rules.
#[derive(Debug, Clone, Copy)]
struct Job<'a> {
    config: &'a Config,
    schema: &'a str,
    /// Set when a commit is about to be sent.
    sent: &'a AtomicBool,
}

/// Brings back everything that is recorded in this quarantine.
pub async fn undo(config: &Config, schema: &str, within: Duration) -> Undone {
    let sent = AtomicBool::new(false);
    let mut work = Work {
        job: Job { config, schema, sent: &sent },
        pinned: Pinned::new(&config.database),
        patience: Patience::new(within),
        hidden: BTreeSet::new(),
        looked: false,
        found: Undone {
            ended: Ended::Nothing,
            reasons: Vec::new(),
            tables: Vec::new(),
            objects: Vec::new(),
            columns: Vec::new(),
            left: Vec::new(),
            stays: Vec::new(),
            blockers: Vec::new(),
            quarantine_dropped: false,
        },
    };
    let (ended, reasons) = work.run().await;
    Undone { ended, reasons, ..work.found }
}

struct Work<'a> {
    job: Job<'a>,
    pinned: Pinned,
    patience: Patience,
    /// Tables that are back already.
    hidden: BTreeSet<u32>,
    /// Whether everything was looked at before the first change.
    looked: bool,
    found: Undone,
}

impl Work<'_> {
    async fn run(&mut self) -> (Ended, Vec<String>) {
        let (mut done, mut moved) = (false, 0);
        loop {
            // Clean for each transaction: the statements of an archive change its settings.
            let mut session = match self.patience.connect(&self.pinned).await {
                Ok(session) => session,
                Err(error) => return (Ended::Failed, vec![error.to_string()]),
            };
            self.job.sent.store(false, Ordering::Relaxed);
            let mut blockers = Vec::new();
            let tried = self.attempt(&mut session, &mut blockers).await;
            let failure = match tried {
                Ok(Attempt::Nothing) if done => return (Ended::Undone, Vec::new()),
                Ok(Attempt::Nothing) => return (Ended::Nothing, Vec::new()),
                Ok(Attempt::Stopped(reasons)) => return (Ended::Stopped, reasons),
                Ok(Attempt::Done(batch)) => {
                    self.take_note(&session, batch).await;
                    self.patience.reset();
                    (done, self.looked) = (true, true);
                    continue;
                }
                Err(failure) => failure,
            };
            if !blockers.is_empty() {
                self.found.blockers = blockers.into_iter().map(|blocker| blocker.words).collect();
            }
            if failure.is_lost() && self.job.sent.load(Ordering::Relaxed) {
                // The record says whether it went through: the next look sees it, and what came back is not counted twice.
                done = true;
            }
            let again = failure.is_lost()
                || failure.is_lock_timeout()
                || failure.is_statement_timeout()
                || (failure.is_moving_catalog() && moved < MOVES);
            moved += u32::from(failure.is_moving_catalog());
            if !again || !self.patience.pause().await {
                return (Ended::Failed, vec![self.given_up(&failure)]);
            }
        }
    }

    fn given_up(&self, failure: &Failure) -> String {
        match self.found.blockers.as_slice() {
            [] => failure.to_string(),
            blockers => format!("{failure}; locks were held by {}", blockers.join(", ")),
        }
    }

    /// One try, watched by a second session.
    async fn attempt(&self, session: &mut Session, blockers: &mut Vec<Blocker>) -> Result<Attempt, Failure> {
        if !self.looked {
            let reasons = conflict::ahead(session.client(), self.job.schema).await?;
            if !reasons.is_empty() {
                return Ok(Attempt::Stopped(reasons));
            }
        }
        let left = self.patience.left();
        let database = &self.job.config.database;
        let every = (database.lock_timeout / 4).clamp(Duration::from_millis(10), Duration::from_millis(250));
        let pid = activity::own_pid(session.client()).await.ok();
        let watcher = Session::connect(database).await.ok();
        let work = attempt::attempt(session.client_mut(), self.job, &self.hidden, left);
        let watch = async {
            if let (Some(watcher), Some(pid)) = (&watcher, pid) {
                // Its failing only means that nobody is named.
                drop(activity::watch(watcher.client(), pid, every, blockers).await);
            }
            std::future::pending::<()>().await;
        };
        let late = || Failure::found("undoing the removal", format!("it did not end within {} s", left.as_secs()));
        tokio::select! {
            result = tokio::time::timeout(left, work) => result.unwrap_or_else(|_elapsed| Err(late())),
            () = watch => Err(late()),
        }
    }

    /// Notes what is back. Rows are counted after the locks are gone; a count that fails takes nothing back.
    async fn take_note(&mut self, session: &Session, batch: Batch) {
        for mut returned in batch.tables {
            if returned.rows.is_none() {
                returned.rows = count::own_rows(session.client(), &returned.table).await.ok();
            }
            self.found.tables.push(returned);
        }
        self.found.objects.extend(batch.objects);
        self.found.columns.extend(batch.columns);
        self.found.left.extend(batch.left);
        self.found.stays.extend(batch.stays);
        self.found.quarantine_dropped |= batch.quarantine_dropped;
        self.hidden.extend(batch.hidden);
    }
}

impl Undone {
    /// All of it in a sentence.
    pub fn summary(&self) -> String {
        let rows: u64 = self.tables.iter().filter_map(|table| table.rows).sum();
        let rows = counted(usize::try_from(rows).unwrap_or(usize::MAX), "row");
        let tables = format!("{} ({rows})", counted(self.tables.len(), "table"));
        let objects = self.objects.len();
        let back = match (self.tables.len(), objects) {
            (_, 0) => tables,
            (0, _) => counted(objects, "object"),
            (_, _) => format!("{tables} and {}", counted(objects, "other object")),
        };
        let nothing = self.tables.is_empty() && objects == 0;
        match self.ended {
            Ended::Nothing => "there is nothing to bring back".to_owned(),
            Ended::Undone => format!("brought back {back}"),
            Ended::Stopped | Ended::Failed if nothing => "nothing was changed".to_owned(),
            Ended::Stopped | Ended::Failed => format!("brought back {back}, and not the rest"),
        }
    }
}
