//! How many rows were written since the baseline: counted exactly, each table within bounds, or not at all.

use std::time::Duration;

use rollbackd_core::baseline::{Baseline, Difference, ObjectId, RowCount, TableName};
use serde::Serialize;
use tokio_postgres::Client;

use super::limit;
use crate::clock::Stopwatch;
use crate::config::model::Config;
use crate::postgres::{Failure, count, during, milliseconds};

/// How long one table may take.
const TABLE: Duration = Duration::from_secs(5);
/// How long all of them may take.
const ALL: Duration = Duration::from_secs(30);

/// The rows of a table, now and in the baseline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Rows {
    /// The table.
    pub(crate) table: TableName,
    /// Whether the migration added it.
    pub(crate) added: bool,
    /// In the baseline; absent for a table that it does not have, or whose rows it did not count.
    pub(crate) before: Option<u64>,
    /// Now; absent when it was not counted.
    pub(crate) now: Option<u64>,
    /// The difference.
    pub(crate) written: Option<i64>,
    /// Why it was not counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) not_counted: Option<String>,
}

/// Counts the rows of every added and every original table, each in a statement of its own, so that nobody who wants to
/// alter a table has to wait for the others.
pub(super) async fn count(
    client: &Client,
    config: &Config,
    baseline: &Baseline,
    difference: &Difference,
) -> Result<Vec<Rows>, Failure> {
    let most = TABLE.min(config.database.statement_timeout);
    let sql = format!("set statement_timeout = {}", milliseconds(most));
    client.batch_execute(&sql).await.map_err(during("setting the time limit"))?;
    let watch = Stopwatch::start();
    let mut found = Vec::new();
    for id in &difference.added {
        let Some(table) = id.as_table() else { continue };
        found.push(one(client, table, None, true, &watch, most).await?);
    }
    for table in &config.database.original_tables {
        let before = baseline.counts.iter().find(|count| count.table == *table).map(|count| count.rows);
        let renamed = difference.renamed.iter().find(|rename| rename.from.as_table().as_ref() == Some(table));
        let is_gone = |id: &ObjectId| id.as_table().as_ref() == Some(table);
        if let Some(rename) = renamed {
            found.push(uncounted(table.clone(), before, false, format!("it is {} now", rename.to)));
        } else if difference.removed.iter().any(is_gone) {
            found.push(uncounted(table.clone(), before, false, "it is gone".to_owned()));
        } else {
            found.push(one(client, table.clone(), before, false, &watch, most).await?);
        }
    }
    Ok(found)
}

async fn one(
    client: &Client,
    table: TableName,
    before: Option<u64>,
    added: bool,
    watch: &Stopwatch,
    most: Duration,
) -> Result<Rows, Failure> {
    if watch.elapsed() > ALL {
        let why = format!("the {} for counting were over", limit(ALL));
        return Ok(uncounted(table, before, added, why));
    }
    // Rows of a new partition are its own; an original's are those that are seen through it, as in the baseline.
    let counted = if added { count::own_rows(client, &table).await } else { count::rows(client, &table).await };
    match counted {
        Ok(now) => {
            let signed = |rows: u64| i64::try_from(rows).unwrap_or(i64::MAX);
            let from = if added { Some(0) } else { before };
            let written = from.map(|from| signed(now) - signed(from));
            Ok(Rows { table, added, before, now: Some(now), written, not_counted: None })
        }
        Err(failure) if failure.is_lost() => Err(failure),
        Err(failure) => {
            let why = if failure.is_lock_timeout() {
                "another session has locked it".to_owned()
            } else if failure.is_statement_timeout() {
                format!("it takes longer than {}", limit(most))
            } else {
                failure.to_string()
            };
            Ok(uncounted(table, before, added, why))
        }
    }
}

const fn uncounted(table: TableName, before: Option<u64>, added: bool, why: String) -> Rows {
    Rows { table, added, before, now: None, written: None, not_counted: Some(why) }
}

/// The counts of the added tables, for the class.
pub(super) fn counted(rows: &[Rows]) -> Vec<RowCount> {
    let added = rows.iter().filter(|rows| rows.added);
    added.filter_map(|rows| Some(RowCount { table: rows.table.clone(), rows: rows.now? })).collect()
}
