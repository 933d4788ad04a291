//! Check `integrity`: the original tables hold the rows that they held before the migration, by each table's policy.
//!
//! | policy | holds when |
//! |---|---|
//! | `grow_only` | there are at least as many rows, and the sampled primary keys are all there |
//! | `exact` | there are as many rows, with the same fingerprint over the baseline's columns |
//! | `tolerance` | the number of rows differs by no more than this share of the baseline's |
//! | `ignore` | always; the table is not looked at |
//!
//! An error while checking is a failure, and so is having nothing to compare. What is said names tables, columns and
//! numbers, and never what is in the rows.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use rollbackd_core::baseline::{Baseline, TableName};
use rollbackd_core::baseline::{KeySample, TablePrint};
use rollbackd_core::words::counted;
use tokio_postgres::Client;

use super::Context;
use crate::config::model::IntegrityPolicy;
use crate::postgres::keys::{self, SampledKeys};
use crate::postgres::{count, during, fingerprint, milliseconds};

/// Compares the original tables, and those that have a policy of their own, with the baseline. `limit` is how long a
/// statement may take: the database's own limit is meant for answers, not for reading whole tables.
pub(crate) async fn check(
    context: Context<'_>,
    default: IntegrityPolicy,
    policies: &BTreeMap<TableName, IntegrityPolicy>,
    limit: Duration,
) -> Result<String, String> {
    let baseline = context.baseline.ok_or("no baseline was taken, so there is nothing to compare with")?;
    let database = &context.config.database;
    let tables: BTreeSet<&TableName> = database.original_tables.iter().chain(policies.keys()).collect();
    let session = context.pinned.session().await.map_err(|error| error.to_string())?;
    let client = session.client();
    fingerprint::settle(client).await?;
    let patience = format!("set statement_timeout = {}", milliseconds(limit));
    client.batch_execute(&patience).await.map_err(during("setting the time limit"))?;
    let before = Before { baseline, keys: sampled(context.backup).await };
    let (mut held, mut problems) = (Vec::new(), Vec::new());
    for table in tables {
        let policy = policies.get(table).copied().unwrap_or(default);
        if policy == IntegrityPolicy::Ignore {
            continue;
        }
        match before.compare(client, table, policy).await {
            Ok(how) => held.push(how),
            Err(problem) => problems.push(problem),
        }
    }
    if !problems.is_empty() {
        return Err(problems.join("; "));
    }
    if held.is_empty() {
        return Err("every table is ignored, so nothing was checked".to_owned());
    }
    Ok(format!("{} compared: {}", counted(held.len(), "table"), held.join("; ")))
}

/// The keys in the backup's directory.
async fn sampled(backup: Option<&Path>) -> Result<SampledKeys, String> {
    let backup = backup.ok_or("the sampled keys cannot be read: it is not known where the backup is")?.to_owned();
    let read = tokio::task::spawn_blocking(move || SampledKeys::read(&backup));
    read.await.map_err(|error| format!("the sampled keys cannot be read: {error}"))?
}

struct Before<'a> {
    baseline: &'a Baseline,
    keys: Result<SampledKeys, String>,
}

impl Before<'_> {
    /// `Ok`: how the table's rows compare. `Err`: what is wrong with them.
    async fn compare(&self, client: &Client, table: &TableName, policy: IntegrityPolicy) -> Result<String, String> {
        let counts = &self.baseline.counts;
        let Some(before) = counts.iter().find(|count| count.table == *table).map(|count| count.rows) else {
            return Err(format!("{table} was not counted for the baseline"));
        };
        let print = self.baseline.prints.iter().find(|print| print.table == *table);
        match policy {
            IntegrityPolicy::GrowOnly => {
                let now = count::rows(client, table).await?;
                if now < before {
                    return Err(format!("{table} has {}, and must have at least {before}", rows(now)));
                }
                let keys = self.keys(client, print).await?;
                Ok(format!("{table} {}, {keys}", rows(now)))
            }
            IntegrityPolicy::Exact => exact(client, print, table, before).await,
            IntegrityPolicy::Tolerance(share) => {
                let now = count::rows(client, table).await?;
                if within(before, now, share) {
                    Ok(format!("{table} {}, {before} before", rows(now)))
                } else {
                    Err(format!("{table} has {}, and must have {before}, give or take {} %", rows(now), share * 100.0))
                }
            }
            IntegrityPolicy::Ignore => Ok(format!("{table} is ignored")),
        }
    }

    /// Whether the sampled keys are all there.
    async fn keys(&self, client: &Client, print: Option<&TablePrint>) -> Result<String, String> {
        let Some(print) = print else { return Ok("no keys were sampled".to_owned()) };
        let table = &print.table;
        match &print.keys {
            None => Ok("no primary key to look for".to_owned()),
            Some(KeySample { taken: 0, .. }) => Ok("no keys to look for".to_owned()),
            Some(facts) => {
                let keys = self.keys.as_ref().map_err(|reason| format!("{table}: {reason}"))?.of(table, facts)?;
                let (found, taken) = (keys::found(client, keys).await?, u64::from(facts.taken));
                if found < taken {
                    let missing = taken - found;
                    let verb = if missing == 1 { "is" } else { "are" };
                    return Err(format!("{missing} of {taken} sampled rows of {table} {verb} not there any more"));
                }
                Ok(format!("{} found", counted(usize::try_from(found).unwrap_or(usize::MAX), "sampled key")))
            }
        }
    }
}

async fn exact(client: &Client, print: Option<&TablePrint>, table: &TableName, before: u64) -> Result<String, String> {
    let Some(print) = print else {
        return Err(format!("{table} has no fingerprint in the baseline, so its rows cannot be compared"));
    };
    let columns = fingerprint::columns(client, table).await?;
    // None at all: the table is gone, which the server says better.
    if let (false, Some(reason)) = (columns.is_empty(), fingerprint::incomparable(print, &columns)) {
        return Err(reason);
    }
    let now = fingerprint::sum(client, table, &print.columns).await?;
    if now.rows != before {
        return Err(format!("{table} has {}, and must have exactly {before}", rows(now.rows)));
    }
    if now.sum != print.sum {
        return Err(format!("{table} has {} as before, but their contents are not the same", rows(now.rows)));
    }
    Ok(format!("{table} {} with the same contents", rows(now.rows)))
}

fn rows(count: u64) -> String {
    counted(usize::try_from(count).unwrap_or(usize::MAX), "row")
}

/// Whether two counts differ by no more than a share of the first.
#[expect(clippy::cast_precision_loss, reason = "a tolerance is no exact number of rows")]
fn within(before: u64, now: u64, share: f64) -> bool {
    // The last bit of a product such as 100 × 0.29 is no row.
    now.abs_diff(before) as f64 <= (before as f64).mul_add(share, 1e-6)
}

#[cfg(test)]
mod tests;
