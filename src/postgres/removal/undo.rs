//! What is needed to undo a removal, written down in the quarantine by the very transaction that removes: it is there if and
//! only if the removal is.

use rollbackd_core::baseline::{Catalog, Object, TableName};
use rollbackd_core::run::step::KeptColumns;
use serde::{Deserialize, Serialize};
use tokio_postgres::{GenericClient, Transaction};

use super::Job;
use super::scope::Member;
use crate::postgres::{Failure, during};

/// The table in the quarantine that holds the records, oldest first.
pub(crate) const TABLE: &str = "rollbackd_undo";

/// How one transaction of a removal is undone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The window's id.
    pub(crate) window: String,
    /// The tables that were taken, by the names that they had.
    pub(crate) tables: Vec<TableName>,
    /// What was moved into the quarantine, in order.
    pub(crate) moved: Vec<Moved>,
    /// The directory with the rows of dropped tables.
    pub(crate) archive: Option<String>,
    /// Objects beside the tables as the migration had them: what was put back or taken away.
    pub(crate) objects: Vec<Object>,
    /// Objects that the migration had taken away and that were made again: only their names count.
    pub(crate) made: Vec<Object>,
    /// Where values of columns are kept.
    pub(crate) columns: Vec<KeptColumns>,
}

/// A relation that was moved, or renamed on the way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Moved {
    /// The statement's word: `table`, `foreign table`, `view`, `materialized view`, `sequence`, `index`.
    pub(crate) keyword: String,
    /// Where it was.
    pub(crate) from: TableName,
    /// Where it is.
    pub(crate) to: TableName,
    /// Whether it was moved by itself, and not with its table.
    pub(crate) by_itself: bool,
}

impl Moved {
    /// Moved by itself.
    pub(super) fn shifted(keyword: &str, from: &TableName, schema: &str, name: &str) -> Self {
        let to = TableName::new(schema, name);
        Self { keyword: keyword.to_owned(), from: from.clone(), to, by_itself: true }
    }

    /// Moved with its table, and renamed before.
    pub(super) fn renamed(keyword: &str, from: &TableName, schema: &str, name: &str) -> Self {
        Self { by_itself: false, ..Self::shifted(keyword, from, schema, name) }
    }
}

impl Record {
    /// The record of a transaction that is about to take these tables.
    pub(super) fn of(job: &Job<'_>, members: &[Member], archive: Option<String>) -> Self {
        Self {
            window: job.window.to_owned(),
            tables: members.iter().map(|member| member.table.clone()).collect(),
            moved: Vec::new(),
            archive,
            objects: Vec::new(),
            made: Vec::new(),
            columns: Vec::new(),
        }
    }

    /// Notes what the transaction did to everything but the tables.
    pub(super) fn touched(&mut self, before: &Catalog, after: &Catalog) {
        let is_other = |object: &&Object, there: &Catalog| {
            there.get(&object.id).is_none_or(|other| other.definition != object.definition)
        };
        self.objects = before.objects.iter().filter(|object| is_other(object, after)).cloned().collect();
        self.made = after.objects.iter().filter(|object| before.get(&object.id).is_none()).cloned().collect();
    }
}

/// Writes a record down.
pub(super) async fn write(transaction: &Transaction<'_>, schema: &str, record: &Record) -> Result<(), Failure> {
    let doing = "writing down how the removal is undone";
    let table = TableName::new(schema, TABLE).sql();
    let text = serde_json::to_string(record).map_err(|error| Failure::found(doing, error.to_string()))?;
    let create = format!(
        "create table if not exists {table} (id int8 generated always as identity primary key, \
           at timestamptz not null default now(), record text not null)"
    );
    transaction.batch_execute(&create).await.map_err(during(doing))?;
    transaction.execute(&format!("insert into {table} (record) values ($1)"), &[&text]).await.map_err(during(doing))?;
    Ok(())
}

/// The records of a quarantine, oldest first; none when there is no such schema.
pub(crate) async fn read(client: &impl GenericClient, schema: &str) -> Result<Vec<Record>, Failure> {
    let doing = "reading how the removal is undone";
    let there = "select exists (select from pg_class c join pg_namespace n on n.oid = c.relnamespace \
                 where n.nspname = $1 and c.relname = $2)";
    let there: bool =
        client.query_one(there, &[&schema, &TABLE]).await.and_then(|row| row.try_get(0)).map_err(during(doing))?;
    if !there {
        return Ok(Vec::new());
    }
    let sql = format!("select record from {} order by id", TableName::new(schema, TABLE).sql());
    let rows = client.query(&sql, &[]).await.map_err(during(doing))?;
    rows.iter()
        .map(|row| {
            let text: &str = row.try_get(0).map_err(during(doing))?;
            serde_json::from_str(text).map_err(|error| Failure::found(doing, error.to_string()))
        })
        .collect()
}
