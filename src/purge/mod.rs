//! Drops a quarantine for good, after it was archived and the archive was read back.
//!
//! It goes in batches, each in a transaction of its own and with RESTRICT: something outside that needs a part of the
//! quarantine is named, and stays. The records of how the removal is undone go last, with the schema; they are in the
//! archive as well, so a quarantine that is restored from it can still be undone.

mod archive;
#[cfg(test)]
mod tests;

use std::time::Duration;

use rollbackd_core::baseline::{TableName, quote_identifier};
use rollbackd_core::words::counted;
use serde::Serialize;
use tokio_postgres::{Client, GenericClient, Transaction};

use self::archive::Archive;
use crate::config::model::Config;
use crate::postgres::pinned::Pinned;
use crate::postgres::removal::{BATCH, order, undo};
use crate::postgres::{Failure, count, during, milliseconds};
use crate::rung::Patience;

/// What came of it.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Purged {
    /// Whether the quarantine is gone.
    pub purged: bool,
    /// Why not, when it is not.
    pub reasons: Vec<String>,
    /// How many tables were dropped.
    pub tables: usize,
    /// Their rows.
    pub rows: u64,
    /// The archives that hold them; none: nothing does.
    pub archives: Vec<String>,
}

/// Which quarantine, and by which rules.
#[derive(Debug, Clone, Copy)]
struct Job<'a> {
    config: &'a Config,
    schema: &'a str,
    window: &'a str,
    archived: bool,
}

/// How one attempt ended, when nothing failed.
enum Attempt {
    Gone,
    Stopped(Vec<String>),
    /// Rows changed since they were archived.
    Outdated(String),
    Done(Vec<Member>),
}

/// A table of the quarantine.
#[derive(Debug, Clone)]
struct Member {
    oid: u32,
    table: TableName,
    foreign: bool,
    rows: u64,
}

/// Archives a quarantine, unless `archived` is false, and drops it. `window` names the directory of the archive.
pub async fn purge(config: &Config, schema: &str, window: &str, archived: bool, within: Duration) -> Purged {
    let job = Job { config, schema, window, archived };
    let mut found = Purged::default();
    match job.run(Patience::new(within), &mut found).await {
        Ok(reasons) => Purged { purged: reasons.is_empty(), reasons, ..found },
        Err(reason) => Purged { reasons: vec![reason], ..found },
    }
}

impl Job<'_> {
    async fn run(self, mut patience: Patience, found: &mut Purged) -> Result<Vec<String>, String> {
        let pinned = Pinned::new(&self.config.database);
        let mut kept: Option<Archive> = None;
        let ended = loop {
            let mut session = match patience.connect(&pinned).await {
                Ok(session) => session,
                Err(error) => break Err(error.to_string()),
            };
            let left = patience.left();
            let tried = tokio::time::timeout(left, self.attempt(session.client_mut(), &mut kept, left)).await;
            let reason = match tried {
                Ok(Ok(Attempt::Gone)) => break Ok(Vec::new()),
                Ok(Ok(Attempt::Stopped(reasons))) => break Ok(reasons),
                Ok(Ok(Attempt::Done(members))) => {
                    // The records are ours, and nobody's loss.
                    let theirs = || members.iter().filter(|member| member.table.name != undo::TABLE);
                    found.tables += theirs().count();
                    found.rows += theirs().map(|member| member.rows).sum::<u64>();
                    patience.reset();
                    continue;
                }
                Ok(Ok(Attempt::Outdated(reason))) => {
                    settle(&mut kept, found);
                    reason
                }
                Ok(Err(failure))
                    if failure.is_lost()
                        || failure.is_lock_timeout()
                        || failure.is_statement_timeout()
                        || failure.is_moving_catalog() =>
                {
                    failure.to_string()
                }
                Ok(Err(failure)) => break Err(failure.to_string()),
                Err(_elapsed) => break Err(format!("it did not end within {} s", left.as_secs())),
            };
            if !patience.pause().await {
                break Err(reason);
            }
        };
        settle(&mut kept, found);
        ended
    }

    async fn attempt(
        self,
        client: &mut Client,
        kept: &mut Option<Archive>,
        within: Duration,
    ) -> Result<Attempt, Failure> {
        if !is_there(client, self.schema).await? {
            return Ok(Attempt::Gone);
        }
        let outside = outsiders(client, self.schema).await?;
        if !outside.is_empty() {
            return Ok(Attempt::Stopped(outside));
        }
        if self.archived && kept.is_none() {
            *kept = Some(archive::take(client, self, within).await?);
        }
        let transaction = client.transaction().await.map_err(during("beginning a transaction"))?;
        self.set_limits(&transaction, within).await?;
        let mut members = members(&transaction, self.schema, BATCH).await?;
        let lockable: Vec<String> = members
            .iter()
            .filter(|member| !member.foreign)
            .map(|member| format!("only {}", member.table.sql()))
            .collect();
        if !lockable.is_empty() {
            let sql = format!("lock table {} in access exclusive mode", lockable.join(", "));
            transaction.batch_execute(&sql).await.map_err(during("locking the tables"))?;
        }
        for member in members.iter_mut().filter(|member| !member.foreign) {
            let Some(archive) = kept.as_ref() else {
                member.rows = count::own_rows(&transaction, &member.table).await?;
                continue;
            };
            let print = count::print(&transaction, &member.table).await?;
            if archive.prints.get(&member.oid) != Some(&print) {
                return Ok(Attempt::Outdated(format!("rows of {} changed after they were archived", member.table)));
            }
            member.rows = print.rows;
        }
        let jobs = self.jobs(&transaction, &members).await?;
        let ran = order::run(&transaction, jobs).await?;
        let is_last = members.len() < BATCH;
        let stuck: Vec<String> = ran
            .stuck
            .iter()
            // Until the last batch something may be needed by a table of the next.
            .filter(|(job, _)| is_last || !job.removes)
            .map(|(_, failure)| failure.to_string())
            .collect();
        if !stuck.is_empty() {
            return Ok(Attempt::Stopped(stuck));
        }
        if let Some(archive) = kept {
            archive.relied_on = true;
        }
        transaction.commit().await.map_err(during("committing the drop"))?;
        Ok(Attempt::Done(members))
    }

    async fn set_limits(self, transaction: &Transaction<'_>, within: Duration) -> Result<(), Failure> {
        let sql = format!(
            "set local lock_timeout = {}; set local statement_timeout = {}",
            milliseconds(self.config.database.lock_timeout),
            milliseconds(within)
        );
        transaction.batch_execute(&sql).await.map_err(during("setting the transaction's limits"))
    }

    /// What drops a batch, with whatever stands by itself, and in the end the schema.
    async fn jobs(self, transaction: &Transaction<'_>, members: &[Member]) -> Result<Vec<order::Job>, Failure> {
        let mut jobs = parts(transaction, self.schema, members).await?;
        for (foreign, keyword) in [(false, "table"), (true, "foreign table")] {
            let list: Vec<String> =
                members.iter().filter(|member| member.foreign == foreign).map(|member| member.table.sql()).collect();
            if !list.is_empty() {
                // One statement, so that foreign keys that run in circles are no obstacle.
                jobs.push(order::Job::moving(vec![format!("drop {keyword} {} restrict", list.join(", "))]));
            }
        }
        if members.len() < BATCH {
            let schema = quote_identifier(self.schema);
            jobs.push(order::Job::moving(vec![format!("drop schema {schema} restrict")]));
        }
        Ok(jobs)
    }
}

/// Keeps an archive that was relied on, and throws any other away.
fn settle(kept: &mut Option<Archive>, found: &mut Purged) {
    found.archives.extend(kept.take().and_then(Archive::settle).map(|directory| directory.display().to_string()));
}

async fn is_there(client: &impl GenericClient, schema: &str) -> Result<bool, Failure> {
    let doing = "looking for the quarantine";
    let sql = "select exists (select from pg_namespace where nspname = $1)";
    client.query_one(sql, &[&schema]).await.and_then(|row| row.try_get(0)).map_err(during(doing))
}

/// Foreign keys from tables outside that lead into the quarantine: it cannot go while they are there.
async fn outsiders(client: &impl GenericClient, schema: &str) -> Result<Vec<String>, Failure> {
    let doing = "reading foreign keys into the quarantine";
    let sql = "select format('foreign key %s of %s refers to %s; drop it first', c.conname, c.conrelid::regclass, \
                 c.confrelid::regclass) \
               from pg_constraint c join pg_class i on i.oid = c.confrelid join pg_class o on o.oid = c.conrelid \
               join pg_namespace n on n.oid = i.relnamespace \
               where c.contype = 'f' and n.nspname = $1 and o.relnamespace <> n.oid and c.conparentid = 0 order by 1";
    let rows = client.query(sql, &[&schema]).await.map_err(during(doing))?;
    rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>().map_err(during(doing))
}

/// The first tables of the quarantine: children before their parents, and the records last.
async fn members(client: &impl GenericClient, schema: &str, limit: usize) -> Result<Vec<Member>, Failure> {
    let doing = "reading the quarantine";
    let sql = "with recursive inside as ( \
                 select c.oid, c.relname, c.relkind from pg_class c join pg_namespace n on n.oid = c.relnamespace \
                 where n.nspname = $1 and c.relkind in ('r', 'p', 'f')), \
               depth(oid, depth) as ( \
                 select oid, 0 from inside \
                 union select i.inhrelid, d.depth + 1 from depth d join pg_inherits i on i.inhparent = d.oid) \
               select i.oid, i.relname::text, i.relkind = 'f' from inside i join depth d on d.oid = i.oid \
               group by 1, 2, 3 order by i.relname::text = $2, max(d.depth) desc, i.oid limit $3";
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = client.query(sql, &[&schema, &undo::TABLE, &limit]).await.map_err(during(doing))?;
    rows.iter()
        .map(|row| {
            let table = TableName::new(schema, row.try_get::<_, String>(1)?);
            Ok(Member { oid: row.try_get(0)?, table, foreign: row.try_get(2)?, rows: 0 })
        })
        .collect::<Result<_, _>>()
        .map_err(during(doing))
}

/// What goes besides the tables: foreign keys of later batches that lead to these tables, and all that stands by itself.
async fn parts(transaction: &Transaction<'_>, schema: &str, members: &[Member]) -> Result<Vec<order::Job>, Failure> {
    let doing = "reading what else is in the quarantine";
    let oids: Vec<u32> = members.iter().map(|member| member.oid).collect();
    let keys = "select format('alter table %s drop constraint %I', conrelid::regclass, conname) from pg_constraint \
                where contype = 'f' and confrelid = any($1::oid[]) and not (conrelid = any($1::oid[])) and conparentid = 0";
    let rows = transaction.query(keys, &[&oids]).await.map_err(during(doing))?;
    let mut drops: Vec<String> =
        rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>().map_err(during(doing))?;
    let others = "select 'drop ' || case c.relkind when 'v' then 'view ' when 'm' then 'materialized view ' else 'sequence ' end \
                    || c.oid::regclass as drop \
                  from pg_class c join pg_namespace n on n.oid = c.relnamespace \
                  where n.nspname = $1 and (c.relkind in ('v', 'm') or c.relkind = 'S' and not exists ( \
                    select from pg_depend d where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype in ('a', 'i'))) \
                  union all \
                  select 'drop routine ' || p.oid::regprocedure from pg_proc p join pg_namespace n on n.oid = p.pronamespace \
                  where n.nspname = $1 and not exists (select from pg_depend d \
                    where d.classid = 'pg_proc'::regclass and d.objid = p.oid and d.deptype = 'i') \
                  union all \
                  select format('drop %s %I.%I', case t.typtype when 'd' then 'domain' else 'type' end, n.nspname, t.typname) \
                  from pg_type t join pg_namespace n on n.oid = t.typnamespace left join pg_class c on c.oid = t.typrelid \
                  where n.nspname = $1 and (t.typtype in ('e', 'd', 'r') or t.typtype = 'c' and c.relkind = 'c')";
    let rows = transaction.query(others, &[&schema]).await.map_err(during(doing))?;
    for row in &rows {
        drops.push(row.try_get(0).map_err(during(doing))?);
    }
    Ok(drops.iter().map(|sql| order::Job::removing(sql)).collect())
}

impl Purged {
    /// All of it in a sentence.
    pub fn summary(&self) -> String {
        let rows = counted(usize::try_from(self.rows).unwrap_or(usize::MAX), "row");
        let tables = counted(self.tables, "table");
        let place = match self.archives.as_slice() {
            [] => "without an archive".to_owned(),
            archives => format!("archived in {}", archives.join(", ")),
        };
        match (self.purged, self.tables) {
            (true, _) => format!("purged: {tables} ({rows}), {place}"),
            (false, 0) => "nothing was changed".to_owned(),
            (false, _) => format!("dropped {tables} ({rows}), {place}, and not the rest"),
        }
    }
}
