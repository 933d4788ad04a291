//! What is needed to undo a removal, written down in the quarantine by the very transaction that removes: it is there if and
//! only if the removal is.

use rollbackd_core::baseline::{Catalog, Object, TableName, quote_identifier};
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
    /// What `objects` were turned into, where they were not taken away: whatever is found instead was made by others.
    #[serde(default)]
    pub(crate) instead: Vec<Object>,
    /// Statements for what neither moves with the tables nor is in their archive: publications, extended statistics.
    #[serde(default)]
    pub(crate) beside: Vec<String>,
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
            instead: Vec::new(),
            beside: Vec::new(),
        }
    }

    /// Notes what the transaction did to everything but the tables.
    pub(super) fn touched(&mut self, before: &Catalog, after: &Catalog) {
        let is_other = |object: &&Object, there: &Catalog| {
            there.get(&object.id).is_none_or(|other| other.definition != object.definition)
        };
        self.objects = before.objects.iter().filter(|object| is_other(object, after)).cloned().collect();
        self.instead = self.objects.iter().filter_map(|object| after.get(&object.id)).cloned().collect();
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

/// Whether the quarantine holds records at all.
async fn is_there(client: &impl GenericClient, schema: &str) -> Result<bool, Failure> {
    let doing = "looking for how the removal is undone";
    let sql = "select exists (select from pg_class c join pg_namespace n on n.oid = c.relnamespace \
                 where n.nspname = $1 and c.relname = $2)";
    client.query_one(sql, &[&schema, &TABLE]).await.and_then(|row| row.try_get(0)).map_err(during(doing))
}

/// The records of a quarantine, oldest first; none when there is no such schema.
pub(crate) async fn read(client: &impl GenericClient, schema: &str) -> Result<Vec<Record>, Failure> {
    let doing = "reading how the removal is undone";
    if !is_there(client, schema).await? {
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

/// The newest record of a quarantine and its number, locked against anybody else who undoes it; none when there is none.
pub(crate) async fn newest(transaction: &Transaction<'_>, schema: &str) -> Result<Option<(i64, Record)>, Failure> {
    let doing = "reading how the removal is undone";
    if !is_there(transaction, schema).await? {
        return Ok(None);
    }
    let table = TableName::new(schema, TABLE).sql();
    transaction.batch_execute(&format!("lock table {table} in exclusive mode")).await.map_err(during(doing))?;
    let sql = format!("select id, record from {table} order by id desc limit 1");
    let Some(row) = transaction.query_opt(&sql, &[]).await.map_err(during(doing))? else { return Ok(None) };
    let (id, text): (i64, &str) = (row.try_get(0).map_err(during(doing))?, row.try_get(1).map_err(during(doing))?);
    let record = serde_json::from_str(text).map_err(|error| Failure::found(doing, error.to_string()))?;
    Ok(Some((id, record)))
}

/// Forgets a record; says how many are left.
pub(crate) async fn forget(transaction: &Transaction<'_>, schema: &str, id: i64) -> Result<i64, Failure> {
    let doing = "striking out how the removal is undone";
    let table = TableName::new(schema, TABLE).sql();
    transaction.execute(&format!("delete from {table} where id = $1"), &[&id]).await.map_err(during(doing))?;
    let left = transaction.query_one(&format!("select count(*) from {table}"), &[]).await.map_err(during(doing))?;
    left.try_get(0).map_err(during(doing))
}

/// What makes the tables' extended statistics, which an archive of tables does not hold.
pub(super) async fn statistics(client: &impl GenericClient, members: &[Member]) -> Result<Vec<String>, Failure> {
    let doing = "reading extended statistics";
    let sql = "select pg_get_statisticsobjdef(oid) from pg_statistic_ext where stxrelid = any($1::oid[]) order by oid";
    let oids: Vec<u32> = members.iter().map(|member| member.oid).collect();
    let rows = client.query(sql, &[&oids]).await.map_err(during(doing))?;
    rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>().map_err(during(doing))
}

/// A table of a publication.
pub(super) struct Published {
    /// Takes it out.
    pub(super) drop: String,
    /// Puts it in again, with its columns and its filter.
    pub(super) add: String,
    /// In words.
    pub(super) words: String,
}

/// The publications that name these tables.
pub(super) async fn publications(client: &impl GenericClient, members: &[Member]) -> Result<Vec<Published>, Failure> {
    let doing = "reading publications";
    // Column lists and row filters came with version 15.
    let sql = "select p.pubname::text, n.nspname::text, c.relname::text, concat_ws(' ', t.columns, t.filter) \
               from pg_publication_rel x \
               join pg_publication p on p.oid = x.prpubid join pg_class c on c.oid = x.prrelid \
               join pg_namespace n on n.oid = c.relnamespace \
               left join lateral ( \
                 select '(' || (select string_agg(quote_ident(a), ', ') \
                                from jsonb_array_elements_text(v.j -> 'attnames') a) || ')' as columns, \
                        'where (' || (v.j ->> 'rowfilter') || ')' as filter \
                 from (select to_jsonb(t) as j from pg_publication_tables t \
                       where t.pubname = p.pubname and t.schemaname = n.nspname and t.tablename = c.relname) v \
                 where to_jsonb(x) ->> 'prattrs' is not null or v.j ->> 'rowfilter' is not null) t on true \
               where x.prrelid = any($1::oid[]) order by 1, 2, 3";
    let oids: Vec<u32> = members.iter().map(|member| member.oid).collect();
    let rows = client.query(sql, &[&oids]).await.map_err(during(doing))?;
    rows.iter()
        .map(|row| {
            let publication: String = row.try_get(0)?;
            let table = TableName { schema: row.try_get(1)?, name: row.try_get(2)? };
            let (quoted, rest): (String, String) = (quote_identifier(&publication), row.try_get(3)?);
            Ok(Published {
                drop: format!("alter publication {quoted} drop table {}", table.sql()),
                add: format!("alter publication {quoted} add table {} {rest}", table.sql()),
                words: format!("{table} leaves publication {publication}"),
            })
        })
        .collect::<Result<_, _>>()
        .map_err(during(doing))
}
