//! Drops tables, after their rows were archived and the archive was read back.
//!
//! Between the archive and the locks rows may have changed. So the tables' contents are compared under the locks
//! with what was archived, and a table that differs is archived again.

use std::time::Duration;

use rollbackd_core::run::step::RemovedTable;
use tokio_postgres::{Client, Transaction};

use super::archive::{self, Archive};
use super::scope::{Member, Scope};
use super::{
    Attempt, BATCH, Batch, Job, Prepared, commit, order, prepare, quarantine, set_limits, table_list, take_back, undo,
};
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
            Ok(archive) => *kept = archive,
            Err(end) => return Ok(end),
        }
    }
    let transaction = client.transaction().await.map_err(during("beginning a transaction"))?;
    set_limits(&transaction, job, remaining).await?;
    let prepared = match prepare(&transaction, job, |scope| scope.first_tables(BATCH)).await? {
        Ok(prepared) => prepared,
        Err(end) => return Ok(end),
    };
    let Prepared { seen, members } = &prepared;
    let scope = &seen.scope;
    if let Some(archive) = kept
        && let Some(reason) = outdated(&transaction, archive, scope, members).await?
    {
        // One that was relied on stays where it is; the next is made beside it.
        kept.take().and_then(Archive::settle);
        return Ok(Attempt::Again(reason));
    }
    let mut tables = Vec::with_capacity(members.len());
    for member in members {
        let rows = if member.foreign { None } else { Some(count::own_rows(&transaction, &member.table).await?) };
        tables.push(RemovedTable { table: member.table.clone(), rows });
    }
    let directory = kept.as_ref().map(|archive| archive.directory.display().to_string());
    let mut record = undo::Record::of(job, members, directory.clone());
    record.beside = undo::statistics(&transaction, members).await?;
    record.beside.extend(undo::publications(&transaction, members).await?.into_iter().map(|one| one.add));
    let mut sql = quarantine::open(&transaction, job, &[]).await?;
    let went = match take_back(&transaction, job, seen, jobs(scope), record).await? {
        Ok(went) => went,
        Err(harm) => return Ok(Attempt::Stopped(harm)),
    };
    if members.is_empty() && went.sql.is_empty() {
        return Ok(Attempt::Left(went.left));
    }
    if let Some(archive) = kept {
        archive.relied_on = true;
    }
    commit(transaction, job).await?;
    sql.extend(went.sql);
    let collateral = scope.collateral.iter().map(|collateral| collateral.words.clone()).collect();
    kept.take();
    let (put_back, left, columns) = (went.words, went.left, went.columns);
    let more = scope.more || scope.members.len() > members.len();
    Ok(Attempt::Done(Batch {
        tables,
        collateral,
        sql,
        quarantine: None,
        archive: directory,
        put_back,
        left,
        columns,
        more,
    }))
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

fn jobs(scope: &Scope) -> Vec<order::Job> {
    let drops = scope.collateral.iter().map(|collateral| order::Job::removing(&collateral.drop));
    let tables = scope.first_clusters(BATCH);
    drops.chain(tables.iter().map(|cluster| order::Job::moving(dropping(cluster)))).collect()
}

/// The statements that drop tables which only go together: parts that are foreign tables go before what they are parts
/// of, which would take them along.
pub(super) fn dropping(cluster: &[Member]) -> Vec<String> {
    let of =
        |foreign| table_list(cluster.iter().filter(|member| member.foreign == foreign).map(|member| &member.table));
    let lists = [("foreign table", of(true)), ("table", of(false))];
    lists.iter().filter(|(_, list)| !list.is_empty()).map(|(keyword, list)| format!("drop {keyword} {list}")).collect()
}
