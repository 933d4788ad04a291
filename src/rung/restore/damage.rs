//! Which original tables are missing or damaged, as far as the baseline tells.

use std::collections::BTreeMap;
use std::path::Path;

use rollbackd_core::baseline::{Baseline, Catalog, Object, ObjectId, ObjectKind, TableName};
use rollbackd_core::words::counted;
use tokio_postgres::{Client, GenericClient};

use crate::config::model::{CheckKind, Config, IntegrityPolicy};
use crate::postgres::keys::{self, SampledKeys};
use crate::postgres::{Failure, catalog, count, during};

/// An original table that has to be brought back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Damaged {
    /// Which.
    pub(super) table: TableName,
    /// The number of what stands in its place; absent when it is missing.
    pub(super) live: Option<u32>,
    /// What is wrong with it, in words.
    pub(super) why: String,
    /// The rows that the baseline counted.
    pub(super) rows: u64,
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// The tables to bring back.
    pub(super) damaged: Vec<Damaged>,
    /// Why nothing may be done about some of them, in words.
    pub(super) obstacles: Vec<String>,
    /// What has to be known, in words.
    pub(super) notes: Vec<String>,
}

/// What is known from before the migration.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known<'a> {
    pub(super) config: &'a Config,
    /// With what was brought back already.
    pub(super) baseline: &'a Baseline,
    pub(super) backup: Option<&'a Path>,
    /// The window's quarantine.
    pub(super) quarantine: &'a str,
}

/// Looks at every original table.
pub(super) async fn find(client: &Client, known: Known<'_>) -> Result<Found, Failure> {
    let Known { config, baseline, quarantine, .. } = known;
    let sampled = sampled(known.backup).await;
    let now = catalog::read(client).await?;
    let numbers = catalog::identities(client).await?;
    let mut found = Found::default();
    for table in &config.database.original_tables {
        let Some(number) = baseline.identities.iter().find(|one| one.table == *table).map(|one| one.oid) else {
            found.obstacles.push(format!("{table} is not in the baseline"));
            continue;
        };
        let live = numbers.iter().find(|one| one.table == *table).map(|one| one.oid);
        let elsewhere = numbers.iter().find(|one| one.oid == number && one.table.schema != quarantine);
        let why = match (live, elsewhere) {
            (Some(live), _) if live == number => worn(client, known, sampled.as_ref(), &now, table).await?,
            (None, Some(other)) => {
                found
                    .notes
                    .push(format!("{table} is called {} now; rung `reverse` gives it its name back", other.table));
                continue;
            }
            (Some(_), Some(other)) => {
                let other = &other.table;
                found.obstacles.push(format!("{table} is called {other} now, and another table has its name"));
                continue;
            }
            (Some(_), None) => Some("was dropped and made anew".to_owned()),
            (None, None) => Some("was dropped".to_owned()),
        };
        let Some(why) = why else { continue };
        found.obstacles.extend(objection(client, config, baseline, &now, table, live).await?);
        let rows = baseline.counts.iter().find(|count| count.table == *table).map_or(0, |count| count.rows);
        found.damaged.push(Damaged { table: table.clone(), live, why, rows });
    }
    Ok(found)
}

/// The keys that were sampled for the baseline. Without them rows are only counted.
async fn sampled(backup: Option<&Path>) -> Option<SampledKeys> {
    let backup = backup?.to_owned();
    tokio::task::spawn_blocking(move || SampledKeys::read(&backup)).await.ok()?.ok()
}

/// What is wrong with a table that is still the one it was; nothing, if all is well.
async fn worn(
    client: &Client,
    known: Known<'_>,
    sampled: Option<&SampledKeys>,
    now: &Catalog,
    table: &TableName,
) -> Result<Option<String>, Failure> {
    let baseline = known.baseline;
    // By their places: a column that has another name is not gone.
    let columns: BTreeMap<i16, &Object> = now.columns(table).map(|column| (column.place, column)).collect();
    let named: BTreeMap<&str, &Object> = now.columns(table).map(|column| (column.id.name.as_str(), column)).collect();
    let mut words = Vec::new();
    for was in baseline.catalog.columns(table) {
        let name = &was.id.name;
        match named.get(name.as_str()).or_else(|| columns.get(&was.place)) {
            None => words.push(format!("column {name} was dropped")),
            Some(is) if is.definition != was.definition => {
                words.push(format!("column {name} was {}, and is {}", was.definition, is.definition));
            }
            Some(_) => {}
        }
    }
    let policies = policies(known.config, table);
    let was = baseline.counts.iter().find(|count| count.table == *table).map_or(0, |count| count.rows);
    if policies.iter().any(|policy| *policy != IntegrityPolicy::Ignore) {
        let rows = count::rows(client, table).await?;
        if policies.iter().any(|policy| is_short(*policy, was, rows)) {
            words.push(format!("{} of {was} left", counted(usize::try_from(rows).unwrap_or(usize::MAX), "row")));
        }
    }
    if words.is_empty()
        && policies.iter().any(|policy| matches!(policy, IntegrityPolicy::GrowOnly | IntegrityPolicy::Exact))
    {
        words.extend(missing_keys(client, baseline, sampled, table).await);
    }
    Ok((!words.is_empty()).then(|| words.join(", ")))
}

/// How many of the sampled rows are not there any more, if it can be told.
async fn missing_keys(
    client: &Client,
    baseline: &Baseline,
    sampled: Option<&SampledKeys>,
    table: &TableName,
) -> Option<String> {
    let facts = baseline.prints.iter().find(|print| print.table == *table)?.keys.as_ref()?;
    let found = keys::found(client, sampled?.of(table, facts).ok()?).await.ok()?;
    let missing = u64::from(facts.taken).checked_sub(found).filter(|missing| *missing > 0)?;
    Some(format!("{missing} of {} sampled rows are gone", facts.taken))
}

/// The rules for a table's rows; without a check of that kind none may be missing.
fn policies(config: &Config, table: &TableName) -> Vec<IntegrityPolicy> {
    let checks = config.checks.iter().filter_map(|check| match &check.kind {
        CheckKind::Integrity { default, tables, .. } => Some(*tables.get(table).unwrap_or(default)),
        CheckKind::Tables
        | CheckKind::Catalog
        | CheckKind::Auth { .. }
        | CheckKind::Http(_)
        | CheckKind::Sql { .. }
        | CheckKind::Command { .. }
        | CheckKind::ErrorLog { .. } => None,
    });
    let policies: Vec<IntegrityPolicy> = checks.collect();
    if policies.is_empty() { vec![IntegrityPolicy::GrowOnly] } else { policies }
}

/// Whether fewer rows are there than a rule allows.
#[expect(clippy::cast_precision_loss, reason = "a share of so many rows needs no more precision")]
fn is_short(policy: IntegrityPolicy, was: u64, rows: u64) -> bool {
    match policy {
        IntegrityPolicy::GrowOnly | IntegrityPolicy::Exact => rows < was,
        IntegrityPolicy::Tolerance(share) => (rows as f64) < was as f64 * (1.0 - share),
        IntegrityPolicy::Ignore => false,
    }
}

/// Why this table cannot be brought back by us, if it cannot.
async fn objection(
    client: &impl GenericClient,
    config: &Config,
    baseline: &Baseline,
    now: &Catalog,
    table: &TableName,
    live: Option<u32>,
) -> Result<Option<String>, Failure> {
    let id = |kind| ObjectId { kind, schema: table.schema.clone(), of: None, name: table.name.clone() };
    let Some(was) = baseline.catalog.get(&id(ObjectKind::Table)) else {
        return Ok(Some(format!("{table} is a foreign table: its rows are not in the backup")));
    };
    if config.database.protected_schemas.contains(&table.schema) {
        return Ok(Some(format!("{table} is in a protected schema")));
    }
    let definition = was.definition.as_str();
    if ["partitioned by ", "partition of ", "inherits ", "of type "].iter().any(|word| definition.contains(word)) {
        return Ok(Some(format!("{table} ({definition}) is not a plain table")));
    }
    let mut tables = baseline.catalog.objects.iter().filter(|object| object.id.kind.is_table());
    if let Some(child) = tables.find(|object| parents(&object.definition).contains(table)) {
        return Ok(Some(format!("{} inherits from {table}", child.id)));
    }
    if let Some(live) = live {
        let doing = "reading partitions and children";
        let sql = "select exists (select from pg_inherits where inhparent = $1 or inhrelid = $1)";
        let row = client.query_one(sql, &[&live]).await.map_err(during(doing))?;
        if row.try_get(0).map_err(during(doing))? {
            return Ok(Some(format!("what is called {table} now has partitions or children, or is one")));
        }
    }
    let others = [ObjectKind::View, ObjectKind::MaterializedView, ObjectKind::Sequence];
    let in_its_place = others.into_iter().map(id).find(|id| now.contains(id));
    Ok(in_its_place.map(|other| format!("{other} stands where {table} was")))
}

/// The tables that a table's definition says it inherits from.
fn parents(definition: &str) -> Vec<TableName> {
    let parts = definition.split("; ").filter_map(|part| part.strip_prefix("inherits "));
    let names = parts.flat_map(|list| list.split(", ")).map(|name| name.trim_start_matches("inherits "));
    names.filter_map(|name| TableName::parse(name, "").ok()).collect()
}
