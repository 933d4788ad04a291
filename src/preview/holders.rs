//! Who holds locks on the tables that a rollback would lock, and whether a dump runs.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use rollbackd_core::baseline::{Catalog, Difference, ObjectId, ObjectKind, TableName};
use serde::Serialize;
use tokio_postgres::{Client, Row};

use super::ladder::Ladder;
use crate::postgres::{Failure, activity, during};

/// What `pg_dump` calls itself.
const DUMP: &str = "pg_dump";

/// Somebody who holds locks that a rollback would have to wait for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Blocker {
    /// Its process on the server; none for a prepared transaction.
    pub(crate) pid: Option<i32>,
    /// The name of the prepared transaction.
    pub(crate) prepared: Option<String>,
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
        let kinds = [ObjectKind::Table, ObjectKind::ForeignTable];
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
    let mut relations = relations.to_vec();
    if drops {
        relations.extend(activity::referenced(client, &relations).await?);
    }
    let since = |seconds: i64| at.checked_sub(SignedDuration::from_secs(seconds)).unwrap_or(at);
    let holders = activity::holders(client, &relations).await?.into_iter().map(|holder| Blocker {
        pid: holder.pid,
        prepared: holder.prepared,
        pg_dump: holder.application == DUMP,
        application: holder.application,
        role: holder.role,
        state: holder.state,
        since: since(holder.seconds),
        mode: Some(holder.mode),
        tables: holder.tables,
    });
    let mut found: Vec<Blocker> = holders.collect();
    let doing = "looking for a pg_dump";
    let sql = "select pid, coalesce(usename::text, ''), coalesce(state, ''), \
                 coalesce(extract(epoch from clock_timestamp() - xact_start), 0)::int8 \
               from pg_stat_activity where application_name = $1 and datname = current_database() order by pid";
    for row in client.query(sql, &[&DUMP]).await.map_err(during(doing))? {
        let dump = dump(&row, since).map_err(during(doing))?;
        if found.iter().all(|known| known.pid != dump.pid) {
            found.push(dump);
        }
    }
    Ok(found)
}

fn dump(row: &Row, since: impl Fn(i64) -> Timestamp) -> Result<Blocker, tokio_postgres::Error> {
    Ok(Blocker {
        pid: Some(row.try_get(0)?),
        prepared: None,
        application: DUMP.to_owned(),
        role: row.try_get(1)?,
        state: row.try_get(2)?,
        since: since(row.try_get(3)?),
        mode: None,
        tables: Vec::new(),
        pg_dump: true,
    })
}
