//! What was brought back from the backup, written down in the quarantine by the transaction that did it.
//!
//! A table that was brought back has another number than the baseline's, and must not be taken for one that the migration
//! made. Whoever compares with the baseline asks here for the baseline as it is known by now. A record names the baseline
//! that it belongs to, so that records of other windows do not count.

use std::borrow::Cow;

use rollbackd_core::baseline::{Baseline, Restored, TableName};
use tokio_postgres::{GenericClient, Row, Transaction};

use super::{Failure, during};

/// The table in the quarantine.
pub(crate) const TABLE: &str = "rollbackd_restored";

/// Notes that these tables, which are in their places now, were brought back.
pub(crate) async fn write(
    transaction: &Transaction<'_>,
    schema: &str,
    baseline: &Baseline,
    tables: &[TableName],
) -> Result<(), Failure> {
    let doing = "writing down what was restored";
    let place = TableName::new(schema, TABLE).sql();
    let create = format!(
        "create table if not exists {place} (id int8 generated always as identity primary key, \
           at timestamptz not null default now(), baseline text not null, name text not null, was oid not null, \
           number oid not null, columns text[] not null, places int2[] not null)"
    );
    transaction.batch_execute(&create).await.map_err(during(doing))?;
    let insert = format!(
        "insert into {place} (baseline, name, was, number, columns, places) \
         select $1, $2, $3, c.oid, array_agg(a.attname::text order by a.attnum), array_agg(a.attnum order by a.attnum) \
         from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped \
         where c.oid = $2::text::regclass group by c.oid"
    );
    for table in tables {
        let Some(was) = baseline.identities.iter().find(|one| one.table == *table) else { continue };
        let at = baseline.at.to_string();
        transaction.execute(&insert, &[&at, &table.sql(), &was.oid]).await.map_err(during(doing))?;
    }
    Ok(())
}

/// The baseline with the tables that were brought back since. What cannot be read was brought back by nobody: then more
/// approvals are asked for, and not fewer.
pub(crate) async fn known<'a>(
    client: &impl GenericClient,
    baseline: &'a Baseline,
) -> Result<Cow<'a, Baseline>, Failure> {
    let doing = "reading what was restored";
    let sql = "select n.nspname::text from pg_class c join pg_namespace n on n.oid = c.relnamespace \
               where c.relname = $1 and c.relkind = 'r' and n.nspname ~ '^rollbackd_[0-9]{8}t[0-9]{6}z$' \
                 and has_schema_privilege(n.oid, 'usage') and has_table_privilege(c.oid, 'select') order by 1";
    let mut restored = Vec::new();
    for schema in client.query(sql, &[&TABLE]).await.map_err(during(doing))? {
        let place = TableName::new(schema.try_get::<_, &str>(0).map_err(during(doing))?, TABLE).sql();
        let sql = format!("select was, number, columns, places from {place} where baseline = $1 order by id");
        for row in client.query(&sql, &[&baseline.at.to_string()]).await.map_err(during(doing))? {
            restored.push(one(&row).map_err(during(doing))?);
        }
    }
    Ok(if restored.is_empty() { Cow::Borrowed(baseline) } else { Cow::Owned(baseline.with_restored(&restored)) })
}

fn one(row: &Row) -> Result<Restored, tokio_postgres::Error> {
    let (columns, places): (Vec<String>, Vec<i16>) = (row.try_get(2)?, row.try_get(3)?);
    let columns = columns.into_iter().zip(places).collect();
    Ok(Restored { was: row.try_get(0)?, number: row.try_get(1)?, columns })
}
