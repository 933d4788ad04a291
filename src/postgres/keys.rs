//! A sample of a table's primary keys, and whether those rows are still there.
//!
//! A count does not show that rows went and others came; a few keys of rows that must be there do. At most
//! [`MOST`] a table are taken, spread over its blocks: `tablesample` reads whole blocks of its choice and no others, so
//! that a sample of a table of any size costs a few hundred blocks, and looking the keys up afterwards costs as many
//! steps through the key's index. Hashes of keys would be no secret worth stealing, but they could only be looked for
//! by hashing every row, which takes two or three times as long as counting them.
//!
//! Keys are row contents. So they are kept in one place, [`FILE`] in the backup's directory, beside the dump with all
//! the rows: it is as private, and is removed with it. The baseline, and with it the journal, the interface and the
//! reports, has their number alone, and nothing here puts one into a message or prints it. When the file cannot be
//! read, what should be compared with it has failed.
//!
//! A table without a primary key has no sample: a row's place in the table (`ctid`) is no lasting name for it.

use std::fmt;
use std::path::Path;

use rollbackd_core::baseline::KeySample;
use rollbackd_core::baseline::{TableName, quote_identifier};
use serde::{Deserialize, Serialize};
use tokio_postgres::GenericClient;
use tokio_postgres::types::ToSql;

use super::{Failure, count, during};

/// Where the keys are kept, in the backup's directory.
pub(crate) const FILE: &str = "keys.json";
/// How many keys of a table are kept at most.
const MOST: usize = 100;
/// How many blocks of a table are read for them, about. Every block of a table that has fewer.
const BLOCKS: u32 = 300;
/// A key with a longer text is left out.
const LONGEST: usize = 500;

/// The sampled keys of all original tables.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct SampledKeys {
    pub(crate) tables: Vec<TableKeys>,
}

/// The sampled keys of a table. `Debug` does not show them.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TableKeys {
    pub(crate) table: TableName,
    /// The columns of the primary key.
    columns: Vec<String>,
    /// For each column the texts of all keys, in the keys' order.
    values: Vec<Vec<String>>,
}

impl fmt::Debug for TableKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TableKeys").field("table", &self.table).field("facts", &self.facts()).finish_non_exhaustive()
    }
}

impl TableKeys {
    /// What may be known of them.
    pub(crate) fn facts(&self) -> KeySample {
        KeySample { columns: self.columns.clone(), taken: u32::try_from(self.len()).unwrap_or(u32::MAX) }
    }

    fn len(&self) -> usize {
        self.values.first().map_or(0, Vec::len)
    }
}

impl SampledKeys {
    /// Reads them from a backup's directory. Blocks.
    pub(crate) fn read(backup: &Path) -> Result<Self, String> {
        let path = backup.join(FILE);
        let read = |error: std::io::Error| format!("the sampled keys cannot be read: {}: {error}", path.display());
        let text = std::fs::read(&path).map_err(read)?;
        // What the parser says may hold a piece of the file.
        serde_json::from_slice(&text)
            .map_err(|_error| format!("the sampled keys cannot be read: {} is damaged", path.display()))
    }

    /// The keys of a table, if they are as many as the baseline says.
    pub(crate) fn of(&self, table: &TableName, facts: &KeySample) -> Result<&TableKeys, String> {
        let keys = self.tables.iter().find(|keys| keys.table == *table);
        keys.filter(|keys| keys.facts() == *facts).ok_or_else(|| {
            format!("the backup's {FILE} does not hold the sampled keys of {table} that the baseline names")
        })
    }
}

/// A column of a primary key, and the operator by which its index tells keys apart.
struct KeyColumn {
    name: String,
    data_type: String,
    equals: String,
}

/// The columns of a table's primary key; none without a primary key that can be looked up by equality.
async fn primary_key(client: &impl GenericClient, table: &TableName) -> Result<Vec<KeyColumn>, Failure> {
    let doing = format!("reading the primary key of {table}");
    let sql = "select a.attname::text, format_type(a.atttypid, a.atttypmod), \
                 format('operator(%I.%s)', n.nspname, p.oprname) \
               from pg_index i \
               cross join lateral generate_series(0, i.indnkeyatts - 1) k \
               join pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[k] \
               left join pg_opclass c on c.oid = i.indclass[k] \
                 and c.opcmethod = (select oid from pg_am where amname = 'btree') \
               left join pg_amop o on o.amopfamily = c.opcfamily and o.amoplefttype = c.opcintype \
                 and o.amoprighttype = c.opcintype and o.amopstrategy = 3 \
               left join pg_operator p on p.oid = o.amopopr \
               left join pg_namespace n on n.oid = p.oprnamespace \
               where i.indrelid = to_regclass($1) and i.indisprimary and i.indisvalid \
               order by k";
    let rows = client.query(sql, &[&table.sql()]).await.map_err(during(&doing))?;
    let columns: Vec<Option<KeyColumn>> = rows
        .iter()
        .map(|row| {
            let equals: Option<String> = row.try_get(2)?;
            let (name, data_type) = (row.try_get(0)?, row.try_get(1)?);
            Ok(equals.map(|equals| KeyColumn { name, data_type, equals }))
        })
        .collect::<Result<_, _>>()
        .map_err(during(&doing))?;
    // One column that cannot be looked up makes the whole key one that cannot.
    Ok(columns.into_iter().collect::<Option<_>>().unwrap_or_default())
}

/// Samples a table's keys, in a session that [settled](super::fingerprint::settle). `None` without a primary key.
pub(crate) async fn sample(client: &impl GenericClient, table: &TableName) -> Result<Option<TableKeys>, Failure> {
    let key = primary_key(client, table).await?;
    if key.is_empty() {
        return Ok(None);
    }
    let doing = format!("sampling the keys of {table}");
    let blocks = blocks(client, table).await?;
    let rows = client.query(&sampling(table, &key, blocks), &[]).await.map_err(during(&doing))?;
    let mut values = vec![Vec::with_capacity(rows.len()); key.len()];
    for row in &rows {
        let parts: Vec<String> =
            (0..key.len()).map(|at| row.try_get(at)).collect::<Result<_, _>>().map_err(during(&doing))?;
        if parts.iter().map(String::len).sum::<usize>() <= LONGEST {
            for (column, part) in values.iter_mut().zip(parts) {
                column.push(part);
            }
        }
    }
    let columns = key.into_iter().map(|column| column.name).collect();
    Ok(Some(TableKeys { table: table.clone(), columns, values }))
}

/// The statement that samples the keys of a table of so many blocks.
fn sampling(table: &TableName, key: &[KeyColumn], blocks: u32) -> String {
    let percent = (f64::from(BLOCKS) * 100.0 / f64::from(blocks.max(1))).min(100.0);
    let texts: Vec<String> = key.iter().map(|column| format!("t.{}::text", quote_identifier(&column.name))).collect();
    // Whole blocks are read. Of their rows those with the smallest hash of their place are kept, so that they come
    // from all of the blocks.
    format!(
        "select {} from {} t tablesample system ({percent}) repeatable (1) \
         order by hashtextextended(concat(t.tableoid, t.ctid), 0) limit {MOST}",
        texts.join(", "),
        table.sql()
    )
}

/// The blocks of a table, with those of its partitions and children.
async fn blocks(client: &impl GenericClient, table: &TableName) -> Result<u32, Failure> {
    let doing = format!("reading the size of {table}");
    let sql = "with recursive family(oid) as ( \
                 select to_regclass($1)::oid \
                 union select i.inhrelid from family f join pg_inherits i on i.inhparent = f.oid) \
               select (coalesce(sum(pg_relation_size(oid)), 0) / current_setting('block_size')::numeric)::int8 \
               from family";
    let row = client.query_one(sql, &[&table.sql()]).await.map_err(during(&doing))?;
    let blocks: i64 = row.try_get(0).map_err(during(&doing))?;
    Ok(u32::try_from(blocks).unwrap_or(u32::MAX))
}

/// How many of the sampled keys are in the table; or why that cannot be said.
pub(crate) async fn found(client: &impl GenericClient, keys: &TableKeys) -> Result<u64, String> {
    let table = &keys.table;
    let key = primary_key(client, table).await?;
    let names: Vec<&str> = key.iter().map(|column| column.name.as_str()).collect();
    if names != keys.columns {
        let was = keys.columns.join(", ");
        let is = if names.is_empty() { "gone".to_owned() } else { format!("({})", names.join(", ")) };
        return Err(format!("the primary key of {table} is {is}, and was ({was}), so its rows cannot be looked up"));
    }
    let sql = lookup(table, &key);
    let doing = format!("looking up the sampled keys of {table}");
    let parameters: Vec<&(dyn ToSql + Sync)> = keys.values.iter().map(|texts| texts as &(dyn ToSql + Sync)).collect();
    let row = client.query_one(&sql, &parameters).await.map_err(during(&doing))?;
    Ok(count::number(&row, &doing)?)
}

/// The statement that counts the keys, given as one array of texts for each column, that are in the table.
fn lookup(table: &TableName, key: &[KeyColumn]) -> String {
    let (mut arrays, mut aliases, mut conditions) = (Vec::new(), Vec::new(), Vec::new());
    for (number, column) in (1..).zip(key) {
        let KeyColumn { name, data_type, equals } = column;
        arrays.push(format!("${number}::text[]"));
        aliases.push(format!("k{number}"));
        // The key's own type and operator, so that its index is used.
        conditions.push(format!("t.{} {equals} s.k{number}::{data_type}", quote_identifier(name)));
    }
    format!(
        "select count(*) from unnest({}) as s({}) where exists (select from {} t where {})",
        arrays.join(", "),
        aliases.join(", "),
        table.sql(),
        conditions.join(" and ")
    )
}

#[cfg(test)]
mod tests;
