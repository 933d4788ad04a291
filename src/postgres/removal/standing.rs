//! What stands on views and functions, so that it has to go before they can be made anew.

use rollbackd_core::baseline::{Object, ObjectId, ObjectKind};
use tokio_postgres::Transaction;

use crate::postgres::{Failure, during};

/// What depends on these, directly or through others, and holds no rows of its own: a generated column, say, is left out,
/// and stays in the way.
pub(super) async fn on(
    transaction: &Transaction<'_>,
    relations: &[&Object],
    functions: &[&Object],
) -> Result<Vec<ObjectId>, Failure> {
    let doing = "reading what stands on views and functions";
    let numbers = |objects: &[&Object]| objects.iter().map(|object| object.oid).collect::<Vec<u32>>();
    let sql = include_str!("standing.sql");
    let rows = transaction.query(sql, &[&numbers(relations), &numbers(functions)]).await.map_err(during(doing))?;
    let mut found = Vec::with_capacity(rows.len());
    for row in &rows {
        let kind = match row.try_get(0).map_err(during(doing))? {
            "view" => ObjectKind::View,
            "materialized view" => ObjectKind::MaterializedView,
            "function" => ObjectKind::Function,
            "trigger" => ObjectKind::Trigger,
            "policy" => ObjectKind::Policy,
            "constraint" => ObjectKind::Constraint,
            "index" => ObjectKind::Index,
            "default" => ObjectKind::Default,
            _ => continue,
        };
        let (schema, of) = (row.try_get(1).map_err(during(doing))?, row.try_get(2).map_err(during(doing))?);
        found.push(ObjectId { kind, schema, of, name: row.try_get(3).map_err(during(doing))? });
    }
    Ok(found)
}
