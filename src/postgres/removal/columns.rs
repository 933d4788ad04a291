//! Columns that the migration added to tables that stay: their values are kept, with the keys of their rows, in a table of
//! the quarantine before the columns go.

use std::collections::{BTreeMap, BTreeSet};

use rollbackd_core::baseline::{Catalog, ObjectId, TableName, quote_identifier};
use rollbackd_core::run::step::KeptColumns;
use tokio_postgres::Transaction;

use super::order::Job;
use crate::postgres::catalog::column_type;
use crate::postgres::{Failure, during};

/// What is done for one table.
#[derive(Debug)]
pub(super) struct Keeping {
    /// Keeps the values, and drops the columns.
    pub(super) job: Job,
    /// Where they are kept; absent when they can be worked out again.
    pub(super) columns: Option<KeptColumns>,
}

/// Plans the keeping of these columns, `as_text` where their types may have to go. The tables are locked by the job itself, so that no value is written between
/// the copy and the drop.
pub(super) async fn plan(
    transaction: &Transaction<'_>,
    columns: &[ObjectId],
    now: &Catalog,
    schema: &str,
    as_text: bool,
) -> Result<Vec<Keeping>, Failure> {
    let mut by_table: BTreeMap<TableName, Vec<&ObjectId>> = BTreeMap::new();
    for id in columns {
        let table = TableName::new(&id.schema, id.of.as_deref().unwrap_or_default());
        by_table.entry(table).or_default().push(id);
    }
    let mut plans = Vec::new();
    let mut taken = names_in(transaction, schema).await?;
    for (table, ids) in by_table {
        let keys = keys(transaction, &table, &ids).await?;
        let mut name = "columns_1".to_owned();
        let mut serial = 1_u32;
        while !taken.insert(name.clone()) {
            serial += 1;
            name = format!("columns_{serial}");
        }
        plans.push(keep(&table, &ids, &keys, now, &TableName::new(schema, name), as_text));
    }
    Ok(plans)
}

fn keep(
    table: &TableName,
    ids: &[&ObjectId],
    keys: &[String],
    now: &Catalog,
    place: &TableName,
    as_text: bool,
) -> Keeping {
    let quoted = |names: &[String]| names.iter().map(|name| quote_identifier(name)).collect::<Vec<_>>().join(", ");
    let is_worked_out = |id: &ObjectId| now.get(id).is_some_and(|object| object.definition.contains("generated as ("));
    let names: Vec<String> = ids.iter().filter(|id| !is_worked_out(id)).map(|id| id.name.clone()).collect();
    let mut sql = vec![format!("lock table {} in access exclusive mode", table.sql())];
    if !names.is_empty() {
        // Without a key whole rows are kept: nobody can tell which row a value belongs to, but people can look.
        let of_own_type =
            |id: &&&ObjectId| now.get(id).is_some_and(|object| column_type(&object.definition).contains('.'));
        let value = |id: &&ObjectId| {
            let name = quote_identifier(&id.name);
            if as_text && of_own_type(&id) { format!("{name}::text as {name}") } else { name }
        };
        let values = ids.iter().filter(|id| names.contains(&id.name)).map(value).collect::<Vec<_>>().join(", ");
        let list = if keys.is_empty() { "*".to_owned() } else { format!("{}, {values}", quoted(keys)) };
        sql.push(format!("create table {} as select {list} from {}", place.sql(), table.sql()));
    }
    sql.extend(ids.iter().filter_map(|id| now.get(id)?.unmake.clone()));
    let words = match (names.is_empty(), keys.is_empty()) {
        (true, _) => format!("drop added generated columns of {table}"),
        (false, false) => format!("keep the values of {} in {place}, and drop them from {table}", names.join(", ")),
        (false, true) => {
            format!("keep the rows of {table}, which has no key, in {place}, and drop {}", names.join(", "))
        }
    };
    let columns = (!names.is_empty()).then(|| KeptColumns {
        table: table.clone(),
        keys: keys.to_vec(),
        columns: names,
        place: place.clone(),
    });
    Keeping {
        job: Job { id: ids.first().map(|id| (*id).clone()), words, sql, otherwise: Vec::new(), removes: false },
        columns,
    }
}

/// The columns of the table's primary key, or of another key that cannot be null; none of them one of `without`.
async fn keys(transaction: &Transaction<'_>, table: &TableName, without: &[&ObjectId]) -> Result<Vec<String>, Failure> {
    let doing = "reading a table's key";
    let without: Vec<&str> = without.iter().map(|id| id.name.as_str()).collect();
    let sql = "select array(select a.attname::text from unnest(i.indkey::int2[]) with ordinality k(attnum, place) \
                 join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum order by k.place) \
               from pg_index i join pg_class c on c.oid = i.indrelid join pg_namespace n on n.oid = c.relnamespace \
               where n.nspname = $1 and c.relname = $2 and i.indisunique and i.indisvalid and i.indpred is null \
                 and not (0 = any(i.indkey::int2[])) \
                 and not exists (select from unnest(i.indkey::int2[]) k \
                   join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k \
                   where not a.attnotnull or a.attname::text = any($3)) \
               order by i.indisprimary desc, i.indnatts, i.indexrelid limit 1";
    let row = transaction.query_opt(sql, &[&table.schema, &table.name, &without]).await.map_err(during(doing))?;
    row.map_or_else(|| Ok(Vec::new()), |row| row.try_get(0).map_err(during(doing)))
}

/// The names in use in a schema.
pub(super) async fn names_in(transaction: &Transaction<'_>, schema: &str) -> Result<BTreeSet<String>, Failure> {
    let doing = "reading the quarantine";
    let sql =
        "select c.relname::text from pg_class c join pg_namespace n on n.oid = c.relnamespace where n.nspname = $1";
    let rows = transaction.query(sql, &[&schema]).await.map_err(during(doing))?;
    rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>().map_err(during(doing))
}
