//! Brings missing or damaged original tables back from the backup that was taken before the migration.
//!
//! What is missing is found by comparing with the baseline (`damage`); the backup is verified, and streamed into a schema
//! of our own (`side`); then one transaction puts the damaged tables into the quarantine and the restored ones into their
//! places, with everything that belongs to them or stands on them (`swap`, `target`, `sequence`). Nothing is dropped, and
//! until that transaction commits nothing of anybody else's was changed. Without a readable backup only the structure of
//! missing tables comes back (`structure`).

mod damage;
mod foresee;
mod sequence;
mod side;
mod statements;
mod structure;
mod swap;
mod target;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use rollbackd_core::baseline::{Baseline, RowCount, TableName};
use rollbackd_core::run::step::{Finding, Outcome, RemovalFinding};
use rollbackd_core::window::quarantine_schema;
use rollbackd_core::words::counted;

use self::damage::{Damaged, Known};
pub(crate) use self::foresee::foresee;
use self::side::{Side, Source};
use self::swap::{Done, Swap, Swapped};
use super::{Patience, WATCHER};
use crate::backup;
use crate::config::model::Config;
use crate::postgres::activity::{self, Blocker};
use crate::postgres::pinned::Pinned;
use crate::postgres::programs::{self, Programs};
use crate::postgres::session::Session;
use crate::postgres::{Failure, catalog, during, restored};

/// How often a catalog that changes under us is looked at again. An error that stays is none of that kind.
const MOVES: u32 = 5;

/// Restores what is damaged. `backup` is the window's backup, `window_started` names the quarantine.
pub async fn act(
    config: &Config,
    pinned: &Pinned,
    baseline: &Baseline,
    backup: Option<&Path>,
    window_started: Timestamp,
    within: Duration,
) -> Outcome {
    if let Some(reason) = baseline.is_too_old() {
        return Outcome::failed(reason);
    }
    let mut work = Work {
        config,
        pinned,
        baseline,
        backup,
        quarantine: quarantine_schema(window_started),
        patience: Patience::new(within),
        within,
        commit_sent: AtomicBool::new(false),
        found: RemovalFinding::default(),
        ready: None,
    };
    let end = work.run().await;
    if matches!(end, End::Failed(_)) {
        work.clear().await;
    }
    work.outcome(end)
}

struct Work<'a> {
    config: &'a Config,
    pinned: &'a Pinned,
    baseline: &'a Baseline,
    backup: Option<&'a Path>,
    quarantine: String,
    patience: Patience,
    within: Duration,
    /// Whether a commit was sent whose answer did not come, and nobody has looked since.
    commit_sent: AtomicBool,
    found: RemovalFinding,
    ready: Option<Ready>,
}

/// What was restored into the side schema, and for which damage.
struct Ready {
    damaged: Vec<Damaged>,
    sides: Vec<Side>,
    structure: String,
    values: Vec<(TableName, i64)>,
}

/// How it ended.
enum End {
    Nothing(String),
    Restored(Vec<Damaged>, Done),
    Structure(Vec<String>),
    Failed(String),
}

/// How one try ended, when nothing failed.
enum Try {
    Ended(End),
    Again(String),
}

impl Work<'_> {
    async fn run(&mut self) -> End {
        let mut moved = 0;
        loop {
            self.found.attempts += 1;
            let mut blockers = Vec::new();
            let left = self.patience.left();
            let reason = match tokio::time::timeout(left, self.attempt(&mut blockers)).await {
                Err(_elapsed) => {
                    return End::Failed(self.given_up("the time was up in the middle of a try", &blockers));
                }
                Ok(Ok(Try::Ended(end))) => return end,
                Ok(Ok(Try::Again(reason))) => reason,
                Ok(Err(failure)) if failure.is_lock_timeout() || failure.is_lost() => failure.to_string(),
                Ok(Err(failure)) if failure.is_moving_catalog() && moved < MOVES => {
                    moved += 1;
                    failure.to_string()
                }
                Ok(Err(failure)) => return End::Failed(failure.to_string()),
            };
            if !blockers.is_empty() {
                self.found.blockers = blockers.iter().map(|blocker| blocker.words.clone()).collect();
            }
            if !self.patience.pause().await {
                return End::Failed(self.given_up(&reason, &blockers));
            }
        }
    }

    async fn attempt(&mut self, blockers: &mut Vec<Blocker>) -> Result<Try, Failure> {
        let mut session = match self.patience.connect(self.pinned).await {
            Ok(session) => session,
            Err(error) => return Ok(Try::Ended(End::Failed(error.to_string()))),
        };
        let known = restored::known(session.client(), self.baseline).await?;
        let found = damage::find(session.client(), self.known(&known)).await?;
        // Whatever became of a commit whose answer did not come, this is what is there.
        self.commit_sent.store(false, Ordering::Relaxed);
        if !found.obstacles.is_empty() {
            return Ok(Try::Ended(End::Failed(found.obstacles.join("; "))));
        }
        self.found.collateral.clone_from(&found.notes);
        if found.damaged.is_empty() {
            let note = found.notes.iter().flat_map(|note| ["; ", note.as_str()]).collect::<String>();
            return Ok(Try::Ended(End::Nothing(format!("nothing to restore{note}"))));
        }
        if self.ready.as_ref().is_none_or(|ready| ready.damaged != found.damaged) {
            match self.prepare(&mut session, &found.damaged).await? {
                Ok(ready) => self.ready = Some(ready),
                Err(Unready::Backup(reason)) => {
                    return self.fall_back(&mut session, &known, &found.damaged, &reason).await;
                }
                Err(Unready::Rows(reason)) => return Ok(Try::Ended(End::Failed(reason))),
            }
        }
        self.swap(&mut session, &known, blockers).await
    }

    fn known<'a>(&'a self, baseline: &'a Baseline) -> Known<'a> {
        Known { config: self.config, baseline, backup: self.backup, quarantine: &self.quarantine }
    }

    /// Verifies the backup and fills the side schema from it.
    async fn prepare(&self, session: &mut Session, damaged: &[Damaged]) -> Result<Result<Ready, Unready>, Failure> {
        let major = catalog::server_major(session.client()).await?;
        let Programs { restore, .. } = match programs::find(major).await {
            Ok(programs) => programs,
            Err(reason) => return Ok(Err(Unready::Rows(reason))),
        };
        let Some(backup) = self.backup else {
            return Ok(Err(Unready::Backup("there is no backup of this window".to_owned())));
        };
        let expected: Vec<RowCount> =
            damaged.iter().map(|one| RowCount { table: one.table.clone(), rows: one.rows }).collect();
        let at = self.baseline.at;
        if let Err(reason) = backup::verify(backup, at, &restore, &expected, self.patience.left()).await {
            return Ok(Err(Unready::Backup(reason)));
        }
        let structure = match std::fs::read_to_string(backup.join("schema.sql")) {
            Ok(text) => text,
            Err(error) => return Ok(Err(Unready::Backup(format!("schema.sql: {error}")))),
        };
        let dump = backup.join("dump");
        let source = Source { restore: &restore, dump: &dump };
        let values = match side::sequences(source, self.patience.left()).await {
            Ok(values) => values,
            Err(reason) => return Ok(Err(Unready::Backup(reason))),
        };
        let sides = side::make(session.client_mut(), self.baseline, damaged, self.patience.left()).await?;
        for (side, one) in sides.iter().zip(damaged) {
            match side::fill(session.client(), source, side, self.patience.left()).await? {
                Ok(rows) if rows == one.rows => {}
                Ok(rows) => {
                    let table = &one.table;
                    let reason =
                        format!("the backup gave {rows} rows of {table}, and the baseline counted {}", one.rows);
                    return Ok(Err(Unready::Rows(reason)));
                }
                Err(reason) => return Ok(Err(Unready::Rows(reason))),
            }
        }
        Ok(Ok(Ready { damaged: damaged.to_vec(), sides, structure, values }))
    }

    /// One try to swap, watched by a second session.
    async fn swap(&self, session: &mut Session, known: &Baseline, blockers: &mut Vec<Blocker>) -> Result<Try, Failure> {
        let Some(ready) = &self.ready else { return Ok(Try::Again("nothing was restored yet".to_owned())) };
        let database = &self.config.database;
        let watcher = tokio::time::timeout(WATCHER, self.pinned.session()).await.ok().and_then(Result::ok);
        let pid = activity::own_pid(session.client()).await.ok();
        let every = (database.lock_timeout / 4).clamp(Duration::from_millis(10), Duration::from_millis(250));
        let swap = Swap {
            config: self.config,
            baseline: known,
            taken: self.baseline,
            damaged: &ready.damaged,
            sides: &ready.sides,
            structure: &ready.structure,
            values: &ready.values,
            quarantine: &self.quarantine,
            commit_sent: &self.commit_sent,
        };
        let watch = async {
            if let (Some(watcher), Some(pid)) = (&watcher, pid) {
                // Its failing only means that nobody is named.
                drop(activity::watch(watcher.client(), pid, every, blockers).await);
            }
            std::future::pending::<()>().await;
        };
        let swapped = tokio::select! {
            swapped = swap::attempt(session.client_mut(), swap, self.patience.left()) => match swapped {
                // Its statements are given all that was left, so that was the end of the time, not of the swap's chances.
                Err(failure) if failure.is_statement_timeout() => return Ok(Try::Again(failure.to_string())),
                swapped => swapped?,
            },
            () = watch => return Ok(Try::Again("the watch ended".to_owned())),
        };
        Ok(match swapped {
            Swapped::Done(done) => Try::Ended(End::Restored(ready.damaged.clone(), done)),
            Swapped::Stopped(reasons) => {
                let keys = reasons.iter().any(|reason| reason.contains("violates foreign key constraint"));
                let newer = if keys {
                    "; rows that were written since refer to rows that the backup does not have: take them out, or restore by hand"
                } else {
                    ""
                };
                Try::Ended(End::Failed(format!("{}{newer}", reasons.join("; "))))
            }
            Swapped::Again(reason) => Try::Again(reason),
        })
    }

    /// The backup is of no use.
    async fn fall_back(
        &self,
        session: &mut Session,
        known: &Baseline,
        damaged: &[Damaged],
        reason: &str,
    ) -> Result<Try, Failure> {
        let missing: Vec<&Damaged> = damaged.iter().filter(|one| one.live.is_none()).collect();
        let there: Vec<String> =
            damaged.iter().filter(|one| one.live.is_some()).map(|one| format!("{} {}", one.table, one.why)).collect();
        let failed = |more: String| Ok(Try::Ended(End::Failed(format!("the backup cannot be used: {reason}; {more}"))));
        let Some(file) = &self.config.database.original_schema_file else {
            return failed(
                "restore the tables from another backup by hand; with `database.original_schema_file` missing tables \
                 would come back without rows"
                    .to_owned(),
            );
        };
        if missing.is_empty() {
            let tables = there.join("; ");
            return failed(format!("tables that are there are not replaced without it ({tables}); restore by hand"));
        }
        let left = self.patience.left();
        let client = session.client_mut();
        let baselines = (self.baseline, known);
        let made = structure::make(client, self.config, baselines, &missing, file, &self.quarantine, left).await?;
        match made {
            Err(why) => failed(why),
            Ok(skipped) => {
                let names: Vec<String> = missing.iter().map(|one| one.table.to_string()).collect();
                let mut words = vec![format!(
                    "the backup cannot be used: {reason}; {} made from {} WITHOUT ROWS: {}",
                    counted(missing.len(), "missing table"),
                    file.display(),
                    names.join(", ")
                )];
                words.push(format!("{} left out, because what they make is there", counted_u64(skipped, "statement")));
                words.extend(there.into_iter().map(|one| format!("still damaged: {one}")));
                words.push("get the rows from another backup".to_owned());
                Ok(Try::Ended(End::Structure(words)))
            }
        }
    }

    /// Takes the side schema away when it is of no use any more.
    async fn clear(&self) {
        let work = async {
            let mut session = self.pinned.session().await.ok()?;
            let doing = "clearing the schema that is restored into";
            let transaction = session.client_mut().transaction().await.map_err(during(doing)).ok()?;
            side::clear(&transaction).await.ok()?;
            transaction.commit().await.ok()
        };
        // It harms nobody, and the next try makes it anew.
        drop(tokio::time::timeout(Duration::from_secs(1), work).await);
    }

    fn given_up(&self, reason: &str, blockers: &[Blocker]) -> String {
        let mut who: Vec<String> = blockers.iter().map(|blocker| blocker.words.clone()).collect();
        if who.is_empty() {
            who.clone_from(&self.found.blockers);
        }
        let who = if who.is_empty() { String::new() } else { format!("; locks were held by {}", who.join(", ")) };
        let tries = counted_u64(u64::from(self.found.attempts), "try");
        format!("gave up after {tries} in {:.1} s: {reason}{who}", self.within.as_secs_f64())
    }

    fn outcome(mut self, end: End) -> Outcome {
        match end {
            End::Nothing(detail) => Outcome::succeeded(detail, Finding::Removal(self.found)),
            End::Structure(words) => Outcome::succeeded(words.join("; "), Finding::Removal(self.found)),
            End::Failed(reason) if self.commit_sent.load(Ordering::Relaxed) => {
                Outcome::unknown(format!("{reason}; whether the last transaction went through is not known"))
                    .with(Finding::Removal(self.found))
            }
            End::Failed(reason) => {
                Outcome::failed(format!("{reason}; nothing was changed")).with(Finding::Removal(self.found))
            }
            End::Restored(damaged, done) => {
                let detail = self.restored(&damaged, &done);
                let found = &mut self.found;
                if !done.moved.is_empty() {
                    found.quarantine = Some(self.quarantine);
                }
                found.tables = done.moved;
                found.collateral.extend(done.notes);
                found.put_back = done.put_back;
                found.left = done.left;
                found.sql = done.sql;
                found.by_hand = done.by_hand;
                Outcome::succeeded(detail, Finding::Removal(self.found))
            }
        }
    }

    /// What was done, in a sentence.
    fn restored(&self, damaged: &[Damaged], done: &Done) -> String {
        let rows: u64 = damaged.iter().map(|one| one.rows).sum();
        let why: Vec<String> = damaged.iter().map(|one| format!("{} ({})", one.table, one.why)).collect();
        let place = self.backup.map(|backup| backup.display().to_string()).unwrap_or_default();
        let mut words = format!(
            "restored {} with {} as of {:.0} from {place}: {}",
            counted(damaged.len(), "table"),
            counted_u64(rows, "row"),
            self.baseline.at,
            why.join(", ")
        );
        if !done.moved.is_empty() {
            let held: Vec<String> = done
                .moved
                .iter()
                .map(|moved| {
                    let rows =
                        moved.rows.map_or_else(|| "rows not counted".to_owned(), |rows| counted_u64(rows, "row"));
                    let newer = done.newer.iter().find(|(table, _)| *table == moved.table);
                    let newer = newer.map_or_else(
                        || ", without a primary key by which rows that are not in the backup could be told".to_owned(),
                        |(_, newer)| format!(", {newer} not in the backup"),
                    );
                    format!("{} ({rows}{newer})", moved.table)
                })
                .collect();
            words.extend(["; what was there is kept in schema ", &self.quarantine, ": ", &held.join(", ")]);
        }
        words
    }
}

/// Why there is nothing to swap.
enum Unready {
    /// The backup cannot be read, or is not what was written.
    Backup(String),
    /// It can, and something else is wrong.
    Rows(String),
}

fn counted_u64(count: u64, noun: &str) -> String {
    counted(usize::try_from(count).unwrap_or(usize::MAX), noun)
}

#[cfg(test)]
mod tests;
