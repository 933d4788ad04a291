//! What a SQL file may not do to what stood before the migration, seen from inside its transaction.
//!
//! Putting something back to the baseline is what such a file is for. Taking it further away is not: objects of the
//! baseline that would go, change or be renamed, triggers, policies and rights that they would get, tables that would be
//! dropped and made anew under their old names, rows of original tables that would become fewer than they were before the migration, anything at all in a protected schema.

use std::collections::BTreeMap;

use rollbackd_core::baseline::{Baseline, Catalog, Difference, ObjectId, ObjectKind, TableName};
use tokio_postgres::Transaction;

use super::Job;
use crate::postgres::{Failure, catalog, count, during};

/// What was there before the file did anything.
#[derive(Debug)]
pub(super) struct Guard {
    catalog: Catalog,
    contents: BTreeMap<TableName, Contents>,
}

/// What shows that rows of a table were taken in this transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Contents {
    oid: u32,
    /// The files of it and its partitions: new after TRUNCATE.
    files: Vec<i64>,
    /// Rows deleted less rows inserted.
    fewer: i64,
}

impl Guard {
    /// Looks.
    pub(super) async fn read(transaction: &Transaction<'_>, baseline: &Baseline) -> Result<Self, Failure> {
        Ok(Self { catalog: catalog::read(transaction).await?, contents: contents(transaction, baseline).await? })
    }

    /// How it differs from the baseline.
    pub(super) fn difference(&self, job: Job<'_>) -> Difference {
        job.baseline.catalog.difference(&self.catalog, &job.config.database.protected_schemas)
    }

    /// Looks again: everything that the transaction would do and must not, in words.
    pub(super) async fn harm(&self, transaction: &Transaction<'_>, job: Job<'_>) -> Result<Vec<String>, Failure> {
        let now = Self::read(transaction, job.baseline).await?;
        let mut harm = catalog::harm(job.baseline, &self.catalog, &now.catalog);
        harm.extend(self.drawn_away(&now, job.baseline));
        harm.extend(self.in_protected(&now, job));
        for was in &job.baseline.counts {
            if self.lost_rows(&now, &was.table)
                && let is = count::rows(transaction, &was.table).await?
                && is < was.rows
            {
                let table = &was.table;
                harm.push(format!("rows of {table} would be lost: {} of {} would be left", is, was.rows));
            }
        }
        Ok(harm)
    }

    /// What would have another name, be another table under the old name, or get something that acts on it.
    fn drawn_away(&self, now: &Self, baseline: &Baseline) -> Vec<String> {
        let was = baseline.catalog.difference(&self.catalog, &[]);
        let is = baseline.catalog.difference(&now.catalog, &[]);
        let renamed = is.renamed.iter().filter(|rename| !was.renamed.contains(rename));
        let renamed = renamed.map(|rename| format!("{} would be renamed to {}", rename.from, rename.to));
        let replaced = is.replaced.iter();
        let replaced = replaced.filter(|table| self.catalog.has_table(table) && !was.replaced.contains(table));
        let replaced = replaced.map(|table| format!("table {table} would be dropped and made anew"));
        let added = is.added.iter().filter(|id| acts_on_its_table(id) && !was.added.contains(id));
        let added = added.map(|id| format!("{id} would be added"));
        renamed.chain(replaced).chain(added).collect()
    }

    fn in_protected(&self, now: &Self, job: Job<'_>) -> Vec<String> {
        let protected = &job.config.database.protected_schemas;
        let moved = self.catalog.difference(&now.catalog, &[]);
        let changed = moved.changed.iter().map(|change| &change.id);
        let put_back = |id: &ObjectId| {
            let was = definition(&job.baseline.catalog, id);
            was.is_some() && was == definition(&now.catalog, id)
        };
        let all = moved.added.iter().map(|id| (id, "added"));
        let all = all.chain(moved.removed.iter().map(|id| (id, "gone"))).chain(changed.map(|id| (id, "changed")));
        all.filter(|(id, _)| protected.contains(&id.schema) && !put_back(id))
            .map(|(id, how)| format!("{id}, in a protected schema, would be {how}"))
            .collect()
    }

    /// Whether rows of the table may have been taken. One that is missing is seen in the catalog.
    fn lost_rows(&self, now: &Self, table: &TableName) -> bool {
        let (Some(was), Some(is)) = (self.contents.get(table), now.contents.get(table)) else { return false };
        was.oid != is.oid || was.files != is.files || is.fewer > was.fewer
    }
}

/// Whether it is a part that changes what its relation does or who may do it. The parts of what was added as a whole are
/// not listed one by one.
const fn acts_on_its_table(id: &ObjectId) -> bool {
    id.of.is_some()
        && matches!(
            id.kind,
            ObjectKind::Default
                | ObjectKind::NotNull
                | ObjectKind::RowSecurity
                | ObjectKind::Grant
                | ObjectKind::Owner
                | ObjectKind::Trigger
                | ObjectKind::Policy
                | ObjectKind::Rule
        )
}

fn definition<'a>(catalog: &'a Catalog, id: &ObjectId) -> Option<&'a str> {
    let place = catalog.objects.binary_search_by(|object| object.id.cmp(id)).ok()?;
    catalog.objects.get(place).map(|object| object.definition.as_str())
}

/// Of every original table.
async fn contents(
    transaction: &Transaction<'_>,
    baseline: &Baseline,
) -> Result<BTreeMap<TableName, Contents>, Failure> {
    let doing = "looking at the original tables";
    let schemas: Vec<&str> = baseline.counts.iter().map(|count| count.table.schema.as_str()).collect();
    let names: Vec<&str> = baseline.counts.iter().map(|count| count.table.name.as_str()).collect();
    let sql = "select n.nspname::text, c.relname::text, c.oid, p.files, p.fewer \
               from unnest($1::text[], $2::text[]) o (schema, name) \
               join pg_namespace n on n.nspname = o.schema \
               join pg_class c on c.relnamespace = n.oid and c.relname = o.name and c.relkind in ('r', 'p', 'f') \
               cross join lateral ( \
                 select array_agg(coalesce(pg_relation_filenode(part), 0)::int8 order by part::oid) as files, \
                   sum(pg_stat_get_xact_tuples_deleted(part) - pg_stat_get_xact_tuples_inserted(part))::int8 as fewer \
                 from (select c.oid::regclass union select relid from pg_partition_tree(c.oid)) parts (part) \
               ) p";
    let rows = transaction.query(sql, &[&schemas, &names]).await.map_err(during(doing))?;
    rows.iter()
        .map(|row| {
            let table = TableName { schema: row.try_get(0)?, name: row.try_get(1)? };
            let contents = Contents { oid: row.try_get(2)?, files: row.try_get(3)?, fewer: row.try_get(4)? };
            Ok((table, contents))
        })
        .collect::<Result<_, _>>()
        .map_err(during(doing))
}
