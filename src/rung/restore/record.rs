//! What was brought back, written down in the quarantine by the transaction that did it. A table that was brought back has
//! another number than the baseline's, and must not be taken for one that the migration made.

use rollbackd_core::baseline::TableName;
use tokio_postgres::{GenericClient, Transaction};

use crate::postgres::{Failure, during};

/// The table in the quarantine.
const TABLE: &str = "rollbackd_restored";

/// Notes these tables.
pub(super) async fn write(transaction: &Transaction<'_>, schema: &str, tables: &[TableName]) -> Result<(), Failure> {
    let doing = "writing down what was restored";
    let place = TableName::new(schema, TABLE).sql();
    let create = format!(
        "create table if not exists {place} (number oid not null, name text not null, at timestamptz not null default now())"
    );
    transaction.batch_execute(&create).await.map_err(during(doing))?;
    let insert = format!("insert into {place} (number, name) select $1::text::regclass::oid, $1");
    for table in tables {
        transaction.execute(&insert, &[&table.sql()]).await.map_err(during(doing))?;
    }
    Ok(())
}

/// The numbers of the tables that were brought back in this window.
pub(super) async fn read(client: &impl GenericClient, schema: &str) -> Result<Vec<u32>, Failure> {
    let doing = "reading what was restored";
    let place = TableName::new(schema, TABLE).sql();
    let there = client.query_one("select to_regclass($1) is not null", &[&place]).await.map_err(during(doing))?;
    if !there.try_get::<_, bool>(0).map_err(during(doing))? {
        return Ok(Vec::new());
    }
    let rows = client.query(&format!("select number from {place}"), &[]).await.map_err(during(doing))?;
    rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>().map_err(during(doing))
}
