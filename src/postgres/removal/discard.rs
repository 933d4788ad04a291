//! Drops tables, after their rows were archived and the archive was read back.
//!
//! Between the archive and the locks rows may have changed. So the tables' contents are compared under the locks
//! with what was archived, and a table that differs is archived again.

use std::time::Duration;

use rollbackd_core::run::step::RemovedTable;
use tokio_postgres::{Client, Transaction};

use super::archive::{self, Archive};
use super::scope::{Member, Scope};
use super::{Attempt, BATCH, Batch, Job, commit, execute, guarded, lock_scope, set_limits, table_list};
use crate::postgres::{Failure, count, during};

/// One attempt. `kept` is the archive of an earlier one that got no further.
pub(crate) async fn attempt(
    client: &mut Client,
    job: &Job<'_>,
    archived: bool,
    remaining: Duration,
    kept: &mut Option<Archive>,
) -> Result<Attempt, Failure> {
    if archived && kept.is_none() {
        match archive::take(client, job, remaining).await? {
            Ok(archive) => *kept = Some(archive),
            Err(end) => return Ok(end),
        }
    }
    let transaction = client.transaction().await.map_err(during("beginning a transaction"))?;
    set_limits(&transaction, job, remaining).await?;
    let (scope, members) = match lock_scope(&transaction, job, |scope| scope.tied_batch(BATCH)).await? {
        Ok(picked) => picked,
        Err(end) => return Ok(end),
    };
    if let Some(archive) = kept
        && let Some(reason) = outdated(&transaction, archive, &scope, &members).await?
    {
        // One that was relied on stays where it is; the next is made beside it.
        kept.take().and_then(Archive::settle);
        return Ok(Attempt::Again(reason));
    }
    let mut tables = Vec::with_capacity(members.len());
    for member in &members {
        let rows = if member.foreign { None } else { Some(count::own_rows(&transaction, &member.table).await?) };
        tables.push(RemovedTable { table: member.table.clone(), rows });
    }
    let mut done = Vec::new();
    let statements = statements(&scope, &members);
    let harm = guarded(&transaction, job, async |transaction| {
        done = in_possible_order(transaction, statements).await?;
        Ok(())
    })
    .await?;
    if !harm.is_empty() {
        return Ok(Attempt::Stopped(harm));
    }
    if let Some(archive) = kept {
        archive.relied_on = true;
    }
    commit(transaction, job).await?;
    let collateral = scope.collateral.iter().map(|collateral| collateral.words.clone()).collect();
    let archive = kept.take().map(|archive| archive.directory.display().to_string());
    Ok(Attempt::Done(Batch { tables, collateral, sql: done, quarantine: None, archive }))
}

/// Why the archive does not hold what is about to be dropped, if it does not.
async fn outdated(
    transaction: &Transaction<'_>,
    archive: &Archive,
    scope: &Scope,
    members: &[Member],
) -> Result<Option<String>, Failure> {
    if archive.scope != *scope {
        return Ok(Some("the tables changed after they were archived".to_owned()));
    }
    for member in members.iter().filter(|member| !member.foreign) {
        let now = count::print(transaction, &member.table).await?;
        if archive.prints.get(&member.oid) != Some(&now) {
            return Ok(Some(format!("rows of {} changed after they were archived", member.table)));
        }
    }
    Ok(None)
}

fn statements(scope: &Scope, members: &[Member]) -> Vec<String> {
    let mut statements: Vec<String> = scope.collateral.iter().map(|collateral| collateral.drop.clone()).collect();
    for (foreign, keyword) in [(false, "table"), (true, "foreign table")] {
        let list = table_list(members.iter().filter(|member| member.foreign == foreign).map(|member| &member.table));
        if !list.is_empty() {
            // One statement, so that foreign keys that run in circles are no obstacle.
            statements.push(format!("drop {keyword} {list}"));
        }
    }
    statements
}

/// Runs the statements in an order in which RESTRICT lets each of them pass: whatever is still needed is put off until
/// what needs it is gone. Gives back the statements in that order.
async fn in_possible_order(transaction: &Transaction<'_>, mut waiting: Vec<String>) -> Result<Vec<String>, Failure> {
    let mut done = Vec::new();
    while !waiting.is_empty() {
        let mut put_off = Vec::new();
        let mut obstacle = None;
        let before = done.len();
        for sql in waiting {
            execute(transaction, "savepoint one").await?;
            match execute(transaction, &sql).await {
                Ok(()) => done.push(sql),
                Err(failure) if failure.is_still_needed() => {
                    execute(transaction, "rollback to savepoint one").await?;
                    put_off.push(sql);
                    obstacle = Some(failure);
                }
                Err(failure) => return Err(failure),
            }
            execute(transaction, "release savepoint one").await?;
        }
        if let Some(failure) = obstacle
            && done.len() == before
        {
            return Err(failure);
        }
        waiting = put_off;
    }
    Ok(done)
}
