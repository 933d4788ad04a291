//! Removes the tables of a migration: into a quarantine, or away.
//!
//! `quarantine` and `discard` are one attempt each, in one transaction; repeating, waiting and ending sessions
//! that are in the way is the rung's business. An attempt derives what to take from the live catalog, locks it,
//! derives it again, puts back what the migration had redefined (`backward`), acts with RESTRICT only, and before it
//! commits compares the whole catalog with the baseline: a transaction that would have touched anything from before the
//! migration, but for putting it back, is rolled back. With it goes a record of how it is undone (`undo`).

pub(crate) mod archive;
pub(crate) mod attached;
pub(crate) mod backward;
mod clusters;
mod columns;
mod dependent;
pub(crate) mod discard;
pub(crate) mod order;
pub(crate) mod preview;
pub(crate) mod quarantine;
pub(crate) mod scope;
mod standing;
pub(crate) mod undo;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use rollbackd_core::baseline::{Baseline, Catalog, ObjectId, TableName};
use rollbackd_core::plan::{Dispose, Reach, Removal};
use rollbackd_core::reversal::{self, Reversal, reversal};
use rollbackd_core::run::step::{KeptColumns, RemovedTable};
use rollbackd_core::window::quarantine_schema;
use tokio_postgres::{GenericClient, Transaction};

use self::backward::{Backward, Ended, Went};
use self::dependent::Known;
use self::scope::{Member, Scope};
use super::{Failure, catalog, during, milliseconds};
use crate::config::model::Config;

/// The most tables in one transaction. With a server's default settings about 900 fill its lock table.
pub(crate) const BATCH: usize = 200;

/// What is to be removed, and by which rules.
#[derive(Debug, Clone, Copy)]
pub struct Job<'a> {
    /// The configuration.
    pub config: &'a Config,
    /// The facts from before the migration.
    pub baseline: &'a Baseline,
    /// Which tables, and how.
    pub removal: &'a Removal,
    /// The window's id.
    pub window: &'a str,
    /// When the window began.
    pub window_started: Timestamp,
    /// Whether it is the first group: all of it is looked at before anything is changed. Later only the next group is.
    pub first: bool,
    /// Set when a commit is about to be sent: if its answer does not come, nobody knows whether it went through.
    pub commit_sent: &'a AtomicBool,
}

/// How one attempt ended, when nothing failed.
#[derive(Debug)]
pub(crate) enum Attempt {
    /// There is nothing left to remove.
    Nothing,
    /// Something from before the migration stands in the way; nothing was changed.
    Stopped(Vec<String>),
    /// The world moved meanwhile; nothing was changed, and another try may go through.
    Again(String),
    /// There is nothing left to remove that can be removed; in words, what stays.
    Left(Vec<String>),
    /// These are gone; there may be more.
    Done(Batch),
}

/// What one transaction removed.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// The tables.
    pub(crate) tables: Vec<RemovedTable>,
    /// What went along or has to be known, in words.
    pub(crate) collateral: Vec<String>,
    /// The statements.
    pub(crate) sql: Vec<String>,
    /// The schema they were moved to.
    pub(crate) quarantine: Option<String>,
    /// Where their rows are.
    pub(crate) archive: Option<String>,
    /// What was put back besides, in words.
    pub(crate) put_back: Vec<String>,
    /// What stays and does no harm, in words.
    pub(crate) left: Vec<String>,
    /// Where values of columns are kept.
    pub(crate) columns: Vec<KeptColumns>,
    /// Whether there are more tables to remove.
    pub(crate) more: bool,
}

impl Job<'_> {
    fn known<'a>(&'a self, reversible: &'a BTreeSet<ObjectId>) -> Known<'a> {
        let database = &self.config.database;
        Known {
            baseline: self.baseline,
            original: &database.original_tables,
            protected: &database.protected_schemas,
            reversible,
        }
    }
}

/// The transaction's time limits. A lock's counts for each lock anew, so the statement's is there as well.
async fn set_limits(transaction: &Transaction<'_>, job: &Job<'_>, remaining: Duration) -> Result<(), Failure> {
    let database = &job.config.database;
    let sql = format!(
        "set local lock_timeout = {}; set local statement_timeout = {}",
        milliseconds(database.lock_timeout),
        milliseconds(database.statement_timeout.min(remaining))
    );
    transaction.batch_execute(&sql).await.map_err(during("setting the transaction's limits"))
}

/// What there is to take back.
pub(crate) struct Seen {
    /// The tables, and what hangs on them.
    pub(crate) scope: Scope,
    /// What is done to everything else, as far as it can be seen now.
    pub(crate) way: Reversal,
    /// New relations, of which the catalogs read here hold nothing.
    hidden: Vec<u32>,
    /// The rest of the catalog as it was found.
    before: Catalog,
    /// What can be put back at all.
    reversible: BTreeSet<ObjectId>,
    /// What is put back; nothing: all that differs from the baseline.
    only: Option<BTreeSet<ObjectId>>,
}

/// What one transaction is about to do.
struct Prepared {
    seen: Seen,
    /// The tables of this transaction; there may be more.
    members: Vec<Member>,
}

/// Derives what there is to take back, without a lock. `Err` in the inner result is the attempt's end.
pub(crate) async fn look(client: &impl GenericClient, job: &Job<'_>) -> Result<Result<Seen, Attempt>, Failure> {
    if let Some(reason) = job.baseline.is_too_old() {
        return Ok(Err(Attempt::Stopped(vec![reason])));
    }
    let (baseline, protected) = (&job.baseline.catalog, &job.config.database.protected_schemas);
    let hidden = scope::tables(client).await?.new_relations(job);
    let before = catalog::read_without(client, &hidden).await?;
    let whole = reversal(baseline, &before, protected, reversal::Reach::Everything);
    let everything = job.removal.reach == Reach::Everything;
    if everything && !whole.obstacles.is_empty() {
        return Ok(Err(Attempt::Stopped(whole.obstacles)));
    }
    let columns = whole.columns.iter().filter(|_| everything);
    let reversible: BTreeSet<ObjectId> = whole.acts.iter().map(|act| &act.id).chain(columns).cloned().collect();
    let scope = scope::derive(client, job, &reversible).await?;
    if !scope.survivors.is_empty() {
        return Ok(Err(Attempt::Stopped(scope.survivors.into_iter().collect())));
    }
    let names = scope.members.iter().map(|member| member.table.name.clone()).collect();
    let difference = baseline.difference(&before, protected);
    let attached = attached::with(&names, &difference, &before, baseline, job.removal.reach);
    let only = attached.map(|ids| ids.union(&scope.put_back).cloned().collect::<BTreeSet<_>>());
    let reach = only.as_ref().map_or(reversal::Reach::Everything, reversal::Reach::Only);
    let way = reversal(baseline, &before, protected, reach);
    Ok(Ok(Seen { scope, way, hidden, before, reversible, only }))
}

/// Looks, locks the tables that it picks of what it saw, and looks again: under the locks nothing can come to depend on
/// the tables any more. `Err` in the inner result is the attempt's end.
async fn prepare(
    transaction: &Transaction<'_>,
    job: &Job<'_>,
    pick: impl FnOnce(&Scope) -> Vec<Member>,
) -> Result<Result<Prepared, Attempt>, Failure> {
    let seen = match look(transaction, job).await? {
        Ok(seen) => seen,
        Err(end) => return Ok(Err(end)),
    };
    let members = pick(&seen.scope);
    if members.is_empty() && seen.way.acts.is_empty() && seen.way.columns.is_empty() {
        return Ok(Err(Attempt::Nothing));
    }
    let lockable: Vec<String> =
        members.iter().filter(|member| !member.foreign).map(|member| format!("only {}", member.table.sql())).collect();
    if !lockable.is_empty() {
        let sql = format!("lock table {} in access exclusive mode", lockable.join(", "));
        transaction.batch_execute(&sql).await.map_err(during("locking the tables"))?;
    }
    if scope::derive(transaction, job, &seen.reversible).await? != seen.scope {
        return Ok(Err(Attempt::Again("the catalog changed while the tables were being locked".to_owned())));
    }
    Ok(Ok(Prepared { seen, members }))
}

/// Puts back what is to be put back, with the moves on the way, proves that nothing else of the baseline was touched, and
/// writes down in the quarantine how all of it is undone. `Err` in the inner result is why it may not be committed.
async fn take_back(
    transaction: &Transaction<'_>,
    job: &Job<'_>,
    seen: &Seen,
    moves: Vec<order::Job>,
    mut record: undo::Record,
) -> Result<Result<Went, Vec<String>>, Failure> {
    let schema = quarantine_schema(job.window_started);
    let backward = Backward {
        target: &job.baseline.catalog,
        protected: &job.config.database.protected_schemas,
        only: seen.only.clone(),
        hidden: &seen.hidden,
        quarantine: (job.removal.dispose == Dispose::Quarantine).then_some(schema.as_str()),
        keeping: &schema,
    };
    let went = match backward.go(transaction, moves).await? {
        Ended::Went(went) => went,
        Ended::Stopped(reasons) => return Ok(Err(reasons)),
    };
    let after = catalog::read_without(transaction, &seen.hidden).await?;
    let harm = catalog::harm(job.baseline, &seen.before, &after);
    if !harm.is_empty() {
        return Ok(Err(harm));
    }
    record.columns.clone_from(&went.columns);
    record.touched(&seen.before, &after);
    undo::write(transaction, &schema, &record).await?;
    Ok(Ok(went))
}

/// Commits.
async fn commit(transaction: Transaction<'_>, job: &Job<'_>) -> Result<(), Failure> {
    job.commit_sent.store(true, Ordering::Relaxed);
    transaction.commit().await.map_err(during("committing the removal"))
}

/// A statement cut to what a message can hold.
fn shortened(sql: &str) -> String {
    const LONGEST: usize = 160;
    if sql.chars().count() <= LONGEST {
        return sql.to_owned();
    }
    let start: String = sql.chars().take(LONGEST).collect();
    format!("{start}…")
}

/// Tables as SQL.
fn table_list<'a>(members: impl Iterator<Item = &'a TableName>) -> String {
    members.map(TableName::sql).collect::<Vec<_>>().join(", ")
}
