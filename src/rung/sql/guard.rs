//! What a SQL file may not do to what stood before the migration, seen from inside its transaction.
//!
//! Putting something back to the baseline is what such a file is for. Taking it further away is not: objects of the
//! baseline that would go or change, tables that would be dropped and made anew under their old names, rows of original
//! tables that would become fewer than they were before the migration, anything at all in a protected schema.

use std::collections::BTreeMap;

use rollbackd_core::baseline::{Baseline, Catalog, Difference, ObjectId, TableName};
use tokio_postgres::Transaction;

use super::Job;
use crate::postgres::{Failure, catalog, count, during};

/// What was there before the file did anything.
#[derive(Debug)]
pub(super) struct Guard {
    catalog: Catalog,
    tables: BTreeMap<u32, TableName>,
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
        let identities = catalog::identities(transaction).await?;
        Ok(Self {
            catalog: catalog::read(transaction).await?,
            tables: identities.into_iter().map(|identity| (identity.oid, identity.table)).collect(),
            contents: contents(transaction, baseline).await?,
        })
    }

    /// How it differs from the baseline.
    pub(super) fn difference(&self, job: Job<'_>) -> Difference {
        job.baseline.catalog.difference(&self.catalog, &job.config.database.protected_schemas)
    }

    /// Looks again: everything that the transaction would do and must not, in words.
    pub(super) async fn harm(&self, transaction: &Transaction<'_>, job: Job<'_>) -> Result<Vec<String>, Failure> {
        let now = Self::read(transaction, job.baseline).await?;
        let mut harm = catalog::harm(job.baseline, &self.catalog, &now.catalog);
        harm.extend(self.exchanged(&now, job.baseline));
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

    /// Tables of the baseline whose names other tables would have.
    fn exchanged<'a>(&'a self, now: &'a Self, baseline: &'a Baseline) -> impl Iterator<Item = String> {
        baseline.identities.iter().filter_map(|identity| {
            let was = self.tables.get(&identity.oid)?;
            let place = &identity.table;
            match now.tables.get(&identity.oid) {
                None if now.catalog.has_table(place) => Some(format!("table {place} would be dropped and made anew")),
                None if was != place => Some(format!("table {was}, which is {place} of the baseline, would be gone")),
                Some(is) if was == place && is != place => Some(format!("table {place} would be renamed to {is}")),
                // One that is gone without another in its place is seen in the catalog.
                None | Some(_) => None,
            }
        })
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
