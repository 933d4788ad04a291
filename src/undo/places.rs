//! Which quarantines there are, and what is in them.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde::Serialize;
use tokio_postgres::GenericClient;

use crate::postgres::removal::undo;
use crate::postgres::{Failure, during, restored};

/// The quarantine of a window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Quarantine {
    /// The window's id, as the removal wrote it down.
    pub(crate) window: Option<String>,
    /// Its schema.
    pub(crate) schema: String,
    /// When the window began.
    pub(crate) started_at: Timestamp,
    /// How many tables are in it.
    pub(crate) tables: i64,
    /// What they take up.
    pub(crate) bytes: i64,
    /// How many tables can be brought back by `undo`, from here and from archives; absent: nothing is written down.
    pub(crate) undoable: Option<usize>,
    /// Archives of dropped tables.
    pub(crate) archives: Vec<String>,
}

/// The instant in a quarantine's name.
pub(crate) fn began(schema: &str) -> Option<Timestamp> {
    let text = schema.strip_prefix("rollbackd_")?;
    DateTime::strptime("%Y%m%dt%H%M%Sz", text).ok()?.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp())
}

/// Every quarantine, the newest first.
pub(crate) async fn list(client: &impl GenericClient) -> Result<Vec<Quarantine>, Failure> {
    let doing = "looking for quarantines";
    let sql = "select n.nspname::text, count(c.oid) filter (where c.relname <> all($1::text[])), \
                 coalesce(sum(pg_total_relation_size(c.oid)) filter (where c.relname <> all($1::text[])), 0)::int8 \
               from pg_namespace n left join pg_class c on c.relnamespace = n.oid and c.relkind in ('r', 'p', 'f') \
               where n.nspname ~ '^rollbackd_[0-9]{8}t[0-9]{6}z$' group by 1 order by 1 desc";
    let mut found = Vec::new();
    for row in client.query(sql, &[&[undo::TABLE, restored::TABLE].as_slice()]).await.map_err(during(doing))? {
        let schema: String = row.try_get(0).map_err(during(doing))?;
        let Some(started_at) = began(&schema) else { continue };
        let records = undo::read(client, &schema).await?;
        let tables = records.iter().map(|record| record.tables.len()).sum();
        found.push(Quarantine {
            window: records.first().map(|record| record.window.clone()),
            started_at,
            tables: row.try_get(1).map_err(during(doing))?,
            bytes: row.try_get(2).map_err(during(doing))?,
            undoable: (!records.is_empty()).then_some(tables),
            archives: records.into_iter().filter_map(|record| record.archive).collect(),
            schema,
        });
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarantine_tells_when_its_window_began() {
        let at = "2026-11-22T02:00:00Z".parse().expect("a time");
        assert_eq!(began(&rollbackd_core::window::quarantine_schema(at)), Some(at));
        assert_eq!(began("rollbackd_gate"), None);
    }
}
