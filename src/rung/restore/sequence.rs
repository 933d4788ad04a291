//! Sets the sequences of restored tables behind everything that was ever given out: rows of the backup, the backup's own
//! values, and what the damaged table has given out since.

use rollbackd_core::baseline::{TableName, quote_identifier};
use tokio_postgres::{Row, Transaction};

use super::side::Side;
use crate::postgres::{Failure, during, literal};

const DOING: &str = "setting sequences";

/// Sets the sequences of a table's columns; gives back the statements. `old` is where the damaged table is.
pub(super) async fn behind(
    transaction: &Transaction<'_>,
    side: &Side,
    old: Option<&TableName>,
    values: &[(TableName, i64)],
) -> Result<Vec<String>, Failure> {
    let sql = "select n.nspname::text, c.relname::text, a.attname::text, q.seqincrement > 0, pg_sequence_last_value(c.oid) \
               from pg_depend d join pg_class c on c.oid = d.objid and c.relkind = 'S' \
               join pg_namespace n on n.oid = c.relnamespace join pg_sequence q on q.seqrelid = c.oid \
               join pg_attribute a on a.attrelid = d.refobjid and a.attnum = d.refobjsubid \
               where d.classid = 'pg_class'::regclass and d.refclassid = 'pg_class'::regclass and d.deptype in ('a', 'i') \
                 and d.refobjid = to_regclass($1) order by 1, 2";
    let mut done = Vec::new();
    for row in transaction.query(sql, &[&side.table.sql()]).await.map_err(during(DOING))? {
        let (sequence, column, upwards, own) = described(&row).map_err(during(DOING))?;
        let mut given = vec![own, values.iter().find(|(name, _)| *name == sequence).map(|(_, value)| *value)];
        let extreme = if upwards { "max" } else { "min" };
        let stored = format!("select {extreme}({})::int8 from only {}", quote_identifier(&column), side.table.sql());
        given.push(number(transaction.query_one(&stored, &[]).await).map_err(during(DOING))?);
        if let Some(old) = old {
            let sql = "select pg_sequence_last_value(to_regclass(pg_get_serial_sequence($1, a.attname::text))) \
                       from pg_attribute a where a.attrelid = to_regclass($1) and a.attname::text = $2 \
                         and not a.attisdropped";
            let row = transaction.query_opt(sql, &[&old.sql(), &column]).await.map_err(during(DOING))?;
            given.push(row.map(Ok).map_or(Ok(None), number).map_err(during(DOING))?);
        }
        let given = given.into_iter().flatten();
        let Some(last) = (if upwards { given.max() } else { given.min() }) else { continue };
        let set = format!("select pg_catalog.setval({}, {last}, true)", literal(&sequence.sql()));
        transaction.batch_execute(&set).await.map_err(during(DOING))?;
        done.push(set);
    }
    Ok(done)
}

fn described(row: &Row) -> Result<(TableName, String, bool, Option<i64>), tokio_postgres::Error> {
    let sequence = TableName { schema: row.try_get(0)?, name: row.try_get(1)? };
    Ok((sequence, row.try_get(2)?, row.try_get(3)?, row.try_get(4)?))
}

fn number(row: Result<Row, tokio_postgres::Error>) -> Result<Option<i64>, tokio_postgres::Error> {
    row?.try_get(0)
}
