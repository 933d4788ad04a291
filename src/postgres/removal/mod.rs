//! Removes the tables of a migration: into a quarantine, or away.
//!
//! `quarantine` and `discard` are one attempt each, in one transaction; repeating, waiting and ending sessions
//! that are in the way is the rung's business. An attempt derives what to take from the live catalog, locks it,
//! derives it again, acts with RESTRICT only, and before it commits compares the whole catalog with the baseline: a
//! transaction that would have touched anything from before the migration is rolled back.

pub(crate) mod archive;
mod dependent;
pub(crate) mod discard;
pub(crate) mod quarantine;
pub(crate) mod scope;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use rollbackd_core::baseline::{Baseline, TableName};
use rollbackd_core::plan::Removal;
use rollbackd_core::run::step::RemovedTable;
use tokio_postgres::{GenericClient, Transaction};

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

/// Derives the scope, locks what it picks of it, and derives it again: under the locks nothing can come to depend on
/// the tables any more. `Err` in the inner result is the attempt's end.
async fn lock_scope(
    transaction: &Transaction<'_>,
    job: &Job<'_>,
    pick: impl FnOnce(&Scope) -> Vec<Member>,
) -> Result<Result<(Scope, Vec<Member>), Attempt>, Failure> {
    let scope = scope::derive(transaction, job).await?;
    if !scope.survivors.is_empty() {
        return Ok(Err(Attempt::Stopped(scope.survivors.into_iter().collect())));
    }
    let members = pick(&scope);
    if members.is_empty() {
        return Ok(Err(Attempt::Nothing));
    }
    let lockable: Vec<String> =
        members.iter().filter(|member| !member.foreign).map(|member| format!("only {}", member.table.sql())).collect();
    if !lockable.is_empty() {
        let sql = format!("lock table {} in access exclusive mode", lockable.join(", "));
        transaction.batch_execute(&sql).await.map_err(during("locking the tables"))?;
    }
    if scope::derive(transaction, job).await? != scope {
        return Ok(Err(Attempt::Again("the catalog changed while the tables were being locked".to_owned())));
    }
    Ok(Ok((scope, members)))
}

/// Runs `act` and proves that it did nothing to the baseline's objects: gives back what it did to them.
async fn guarded(
    transaction: &Transaction<'_>,
    job: &Job<'_>,
    act: impl AsyncFnOnce(&Transaction<'_>) -> Result<(), Failure>,
) -> Result<Vec<String>, Failure> {
    let before = catalog::read(transaction).await?;
    act(transaction).await?;
    let after = catalog::read(transaction).await?;
    Ok(catalog::harm(job.baseline, &before, &after))
}

/// Commits.
async fn commit(transaction: Transaction<'_>, job: &Job<'_>) -> Result<(), Failure> {
    job.commit_sent.store(true, Ordering::Relaxed);
    transaction.commit().await.map_err(during("committing the removal"))
}

/// Runs one statement.
async fn execute(client: &impl GenericClient, sql: &str) -> Result<(), Failure> {
    client.batch_execute(sql).await.map_err(|error| Failure::new(format!("`{}`", shortened(sql)), &error))
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

fn table_list<'a>(members: impl Iterator<Item = &'a TableName>) -> String {
    members.map(TableName::sql).collect::<Vec<_>>().join(", ")
}
