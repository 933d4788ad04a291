//! Exact row counts. An estimate is no evidence.

use rollbackd_core::baseline::TableName;
use tokio_postgres::GenericClient;

use super::{Failure, during};

/// The rows of a table, with those of its partitions and children.
pub async fn rows(client: &impl GenericClient, table: &TableName) -> Result<u64, Failure> {
    let doing = format!("counting the rows of {table}");
    let row = client.query_one(&format!("select count(*) from {}", table.sql()), &[]).await.map_err(during(&doing))?;
    number(&row, &doing)
}

/// The rows that a table itself stores, without those of its partitions and children.
pub(crate) async fn own_rows(client: &impl GenericClient, table: &TableName) -> Result<u64, Failure> {
    let doing = format!("counting the rows of {table}");
    let row =
        client.query_one(&format!("select count(*) from only {}", table.sql()), &[]).await.map_err(during(&doing))?;
    number(&row, &doing)
}

/// The rows that a table itself stores, and a sum over their contents: two tables with the same print hold the same
/// rows. A sum and a count, because with XOR doubled rows would cancel out.
pub(crate) async fn print(client: &impl GenericClient, table: &TableName) -> Result<Print, Failure> {
    let doing = format!("reading the rows of {table}");
    let sql = format!(
        "select count(*), coalesce(sum(hashtextextended((r.*)::text, 0)::numeric), 0)::text from only {} r",
        table.sql()
    );
    let row = client.query_one(&sql, &[]).await.map_err(during(&doing))?;
    Ok(Print { rows: number(&row, &doing)?, sum: row.try_get(1).map_err(during(&doing))? })
}

/// See [`print()`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Print {
    /// How many rows.
    pub(crate) rows: u64,
    /// The sum over their contents.
    pub(crate) sum: String,
}

pub(super) fn number(row: &tokio_postgres::Row, doing: &str) -> Result<u64, Failure> {
    let count: i64 = row.try_get(0).map_err(during(doing))?;
    Ok(u64::try_from(count).unwrap_or(0))
}
