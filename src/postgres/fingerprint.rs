//! Fingerprints of tables: the number of rows and the sum of a hash of each, in one pass.
//!
//! Two tables with the same fingerprint hold the same rows, in whatever order. It covers the columns that the baseline
//! names, so that a column more changes nothing. Most values are hashed by their type's own function, which the server
//! does about as fast as it counts; which columns have one is read from the catalog, for what arrays, domains,
//! composite types and ranges are made of as well. The others are hashed as text:
//!
//! * types without a hash function (`json`, `xml`, `point`, `money`…), and all types that are not the server's own;
//! * enums, which are hashed by a number that changes when the type is made anew;
//! * `interval`, and text with a nondeterministic collation: values that differ hash alike there.
//!
//! What the server takes for equal is equal here: `1.0` and `1.00`, an array with another lower bound.
//!
//! The texts depend on settings, and so on [`settle`]. Values and hashes stay in the server: only sums come out of it.
//! Sampled keys are next door, in `keys`.

use rollbackd_core::baseline::{HashedBy, PrintColumn, TablePrint};
use rollbackd_core::baseline::{RowCount, TableName, quote_identifier};
use tokio_postgres::GenericClient;

use super::keys::{self, SampledKeys};
use super::{Failure, count, during};

/// What the rows of the original tables were.
#[derive(Debug)]
pub(crate) struct Prints {
    /// For the baseline.
    pub(crate) prints: Vec<TablePrint>,
    /// For the backup's directory.
    pub(crate) keys: SampledKeys,
}

impl Prints {
    /// The rows of each table.
    pub(crate) fn counts(&self) -> Vec<RowCount> {
        self.prints.iter().map(|print| RowCount { table: print.table.clone(), rows: print.rows }).collect()
    }
}

/// Sets what the texts of values depend on, for this session: whatever the role, the database or a migration have set,
/// the same value has the same text.
pub(crate) async fn settle(client: &impl GenericClient) -> Result<(), Failure> {
    let settings = "set datestyle = 'ISO, MDY'; set intervalstyle = 'postgres'; set timezone = 'UTC'; \
                    set extra_float_digits = 1; set bytea_output = 'hex'; set lc_monetary = 'C'; \
                    set search_path = pg_catalog, pg_temp; set row_security = off";
    client.batch_execute(settings).await.map_err(during("setting how values are written"))
}

/// Takes the fingerprints and samples of these tables, in a session that [settled](settle).
pub(crate) async fn take(client: &impl GenericClient, tables: &[TableName]) -> Result<Prints, Failure> {
    settle(client).await?;
    let mut taken = Prints { prints: Vec::with_capacity(tables.len()), keys: SampledKeys::default() };
    for table in tables {
        let columns = columns(client, table).await?;
        let Sum { rows, sum } = sum(client, table, &columns).await?;
        let sampled = keys::sample(client, table).await?;
        let keys = sampled.as_ref().map(keys::TableKeys::facts);
        taken.keys.tables.extend(sampled);
        taken.prints.push(TablePrint { table: table.clone(), rows, columns, sum, keys });
    }
    Ok(taken)
}

/// The columns of a table that a fingerprint covers, and how each is hashed.
pub(crate) async fn columns(client: &impl GenericClient, table: &TableName) -> Result<Vec<PrintColumn>, Failure> {
    let doing = format!("reading the columns of {table}");
    let rows = client.query(include_str!("fingerprint.sql"), &[&table.sql()]).await.map_err(during(&doing))?;
    rows.iter()
        .map(|row| {
            let by = if row.try_get(2)? { HashedBy::Value } else { HashedBy::Text };
            Ok(PrintColumn { name: row.try_get(0)?, data_type: row.try_get(1)?, by })
        })
        .collect::<Result<_, _>>()
        .map_err(during(&doing))
}

/// Why the fingerprint of a table with these columns cannot be compared, when it cannot.
pub(crate) fn incomparable(before: &TablePrint, now: &[PrintColumn]) -> Option<String> {
    let table = &before.table;
    before.columns.iter().find_map(|was| match now.iter().find(|column| column.name == was.name) {
        None => Some(format!("{table} has no column {} any more, so its rows cannot be compared", was.name)),
        Some(is) if is.data_type != was.data_type => Some(format!(
            "column {} of {table} is {}, and was {}, so its rows cannot be compared",
            was.name, is.data_type, was.data_type
        )),
        Some(_) => None,
    })
}

/// A number of rows and the sum of their hashes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sum {
    pub(crate) rows: u64,
    pub(crate) sum: String,
}

/// Counts and hashes the rows of a table, with those of its partitions and children.
pub(crate) async fn sum(
    client: &impl GenericClient,
    table: &TableName,
    columns: &[PrintColumn],
) -> Result<Sum, Failure> {
    let doing = format!("reading the rows of {table}");
    if columns.is_empty() {
        return Ok(Sum { rows: count::rows(client, table).await?, sum: "0".to_owned() });
    }
    let known = "select exists (select from pg_proc where proname = 'hash_record_extended' and pronamespace = 11)";
    let row = client.query_one(known, &[]).await.map_err(during(&doing))?;
    let hash = row_hash(columns, row.try_get(0).map_err(during(&doing))?);
    // A sum of bigint is numeric: it does not overflow.
    let sql = format!("select count(*), coalesce(sum({hash}), 0)::text from {} t", table.sql());
    let row = client.query_one(&sql, &[]).await.map_err(during(&doing))?;
    Ok(Sum { rows: count::number(&row, &doing)?, sum: row.try_get(1).map_err(during(&doing))? })
}

/// The hash of one row. Servers before version 14 cannot hash a record: there everything goes through its text.
fn row_hash(columns: &[PrintColumn], hashes_records: bool) -> String {
    let values: Vec<String> = columns
        .iter()
        .map(|column| {
            let value = format!("t.{}", quote_identifier(&column.name));
            match column.by {
                HashedBy::Value if hashes_records => value,
                HashedBy::Value | HashedBy::Text => text_hash(&value),
            }
        })
        .collect();
    let record = format!("row({})", values.join(", "));
    // The hash of a record is a linear sum of its columns' hashes, which adds up to the same when two rows exchange a
    // value. Hashed once more it is not. By way of float8 53 bits of it count; `hashint8extended` would fold it to 32.
    if hashes_records {
        format!("hashfloat8extended(hash_record_extended({record}, 0)::float8, 0)")
    } else {
        text_hash(&record)
    }
}

/// The hash of a value's text, byte by byte.
fn text_hash(value: &str) -> String {
    format!("hashtextextended({value}::text collate \"C\", 0)")
}

#[cfg(test)]
mod tests;
