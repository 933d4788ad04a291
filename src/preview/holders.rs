//! Who holds locks on the tables that a rollback would lock, and whether a dump runs.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use rollbackd_core::baseline::{Catalog, Difference, ObjectId, TableName};
use serde::Serialize;
use tokio_postgres::Client;

use super::ladder::Ladder;
use crate::postgres::{Failure, during};

/// Somebody who holds locks that a rollback would have to wait for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Blocker {
    /// Its process on the server; none for a prepared transaction.
    pub(crate) pid: Option<i32>,
    /// What it calls itself.
    pub(crate) application: String,
    /// As whom.
    pub(crate) role: String,
    /// What its session does.
    pub(crate) state: String,
    /// Since when its transaction goes on.
    pub(crate) since: Timestamp,
    /// The strongest of its locks; none for a dump that holds none on these tables.
    pub(crate) mode: Option<String>,
    /// The tables that it holds locks on.
    pub(crate) tables: Vec<String>,
    /// Whether it is a running `pg_dump`, which holds locks on all that it dumps until it ends.
    pub(crate) pg_dump: bool,
}

/// The tables that a rollback would lock: those that go, and those of which a part is not as it was.
pub(super) fn wanted(difference: &Difference, now: &Catalog, ladder: &Ladder) -> Vec<u32> {
    let number = |id: &ObjectId| {
        let table = match &id.of {
            Some(of) => TableName::new(&id.schema, of),
            None => id.as_table()?,
        };
        let kinds = [rollbackd_core::baseline::ObjectKind::Table, rollbackd_core::baseline::ObjectKind::ForeignTable];
        kinds.into_iter().find_map(|kind| {
            let id = ObjectId { kind, schema: table.schema.clone(), of: None, name: table.name.clone() };
            now.get(&id).map(|object| object.oid)
        })
    };
    let changed = difference.changed.iter().map(|change| &change.id);
    let renamed = difference.renamed.iter().map(|rename| &rename.to);
    let ids = difference.added.iter().chain(&difference.removed).chain(changed).chain(renamed);
    let found: BTreeSet<u32> = ids.filter_map(number).chain(ladder.relations()).collect();
    found.into_iter().collect()
}

/// Looks. With `drops` the tables that these refer to count as well.
pub(super) async fn look(
    client: &Client,
    relations: &[u32],
    drops: bool,
    at: Timestamp,
) -> Result<Vec<Blocker>, Failure> {
    let doing = "looking who holds locks";
    let rows = client.query(HOLDERS, &[&relations, &drops]).await.map_err(during(doing))?;
    rows.iter()
        .map(|row| {
            let application: String = row.try_get(1)?;
            let seconds: i64 = row.try_get(4)?;
            Ok(Blocker {
                pid: row.try_get(0)?,
                pg_dump: application == "pg_dump",
                application,
                role: row.try_get(2)?,
                state: row.try_get(3)?,
                since: at.checked_sub(SignedDuration::from_secs(seconds)).unwrap_or(at),
                mode: row.try_get(5)?,
                tables: row.try_get(6)?,
            })
        })
        .collect::<Result<_, _>>()
        .map_err(during(doing))
}

const HOLDERS: &str = "with wanted as ( \
      select unnest($1::oid[]) as oid \
      union select confrelid from pg_constraint where $2 and contype = 'f' and conrelid = any($1::oid[])), \
    held as ( \
      select l.pid, l.virtualtransaction, \
        array_agg(distinct n.nspname || '.' || c.relname) as tables, \
        (array_agg(l.mode order by array_position(array['AccessShareLock', 'RowShareLock', 'RowExclusiveLock', \
          'ShareUpdateExclusiveLock', 'ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock'], l.mode) \
          desc))[1] as mode \
      from pg_locks l join wanted w on w.oid = l.relation join pg_class c on c.oid = l.relation \
      join pg_namespace n on n.oid = c.relnamespace \
      where l.locktype = 'relation' and l.granted and l.pid is distinct from pg_backend_pid() \
        and l.database = (select oid from pg_database where datname = current_database()) \
      group by 1, 2) \
    select h.pid, coalesce(nullif(a.application_name, ''), nullif(a.backend_type, 'client backend'), \
        'prepared transaction ' || p.gid, ''), \
      coalesce(a.usename::text, p.owner::text, ''), coalesce(a.state, ''), \
      coalesce(extract(epoch from clock_timestamp() - coalesce(a.xact_start, p.prepared, a.state_change)), 0)::int8, \
      h.mode, h.tables \
    from held h left join pg_stat_activity a on a.pid = h.pid \
      left join pg_locks t on h.pid is null and t.pid is null and t.locktype = 'transactionid' and t.granted \
        and t.virtualtransaction = h.virtualtransaction \
      left join pg_prepared_xacts p on p.transaction = t.transactionid \
    union all \
    select a.pid, a.application_name, coalesce(a.usename::text, ''), coalesce(a.state, ''), \
      coalesce(extract(epoch from clock_timestamp() - a.xact_start), 0)::int8, null, '{}' \
    from pg_stat_activity a \
    where a.application_name = 'pg_dump' and a.datname = current_database() \
      and not exists (select from held h where h.pid = a.pid) \
    order by 5 desc, 1";
