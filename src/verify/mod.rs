//! Verification: the checks that decide whether the application has recovered, one file a kind.
//!
//! All checks of a stage run at once, each with its own tries. A check that cannot run has failed, and so has a
//! configuration without any: recovery is what was seen, not what nobody contradicted.

mod auth;
mod catalog;
mod command;
mod error_log;
mod http;
mod integrity;
mod sql;
mod tables;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::time::Duration;

use futures_util::future::join_all;
use rollbackd_core::baseline::Baseline;
use rollbackd_core::plan::Stage;
use rollbackd_core::run::step::CheckResult;
use tokio::time::{Instant, sleep, timeout_at};

use crate::clock::Stopwatch;
use crate::config::model::{Check, CheckKind, Config};
use crate::postgres::pinned::Pinned;
use crate::signal::http::Client;

/// What checks compare with.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// The configuration.
    pub config: &'a Config,
    /// The database sessions to look with.
    pub pinned: &'a Pinned,
    /// The facts from before the migration, where there are any.
    pub baseline: Option<&'a Baseline>,
    /// The directory of the backup that was taken with the baseline; it holds the sampled keys.
    pub backup: Option<&'a Path>,
}

/// Runs all checks of a stage, and returns their results in configured order.
pub async fn run(context: Context<'_>, stage: Stage, within: Duration) -> Vec<CheckResult> {
    let watch = Stopwatch::start();
    let deadline = Instant::now() + within;
    if context.config.checks.is_empty() {
        return vec![CheckResult {
            name: "checks".to_owned(),
            kind: "checks".to_owned(),
            passed: false,
            detail: "no [[verify]] is configured, so nothing can show that the application has recovered".to_owned(),
            took: watch.elapsed_signed(),
        }];
    }
    let client = Client::new();
    let checks = context.config.checks.iter().filter(|check| check.stage == stage);
    join_all(checks.map(|check| settle(context, check, &client, deadline))).await
}

/// Tries a check until it passes, its tries are used up, or the time is.
async fn settle(
    context: Context<'_>,
    check: &Check,
    client: &Result<Client, String>,
    deadline: Instant,
) -> CheckResult {
    let watch = Stopwatch::start();
    let mut tried: u32 = 0;
    let mut last = Err("it gave no result".to_owned());
    let in_time = timeout_at(deadline, async {
        loop {
            tried += 1;
            // Watching takes its time, whatever else may take some.
            let watching = match check.kind {
                CheckKind::ErrorLog { within, .. } => within,
                CheckKind::Tables
                | CheckKind::Integrity { .. }
                | CheckKind::Catalog
                | CheckKind::Sql { .. }
                | CheckKind::Auth { .. }
                | CheckKind::Http(_)
                | CheckKind::Command { .. } => Duration::ZERO,
            };
            let limit = check.timeout.saturating_add(watching).min(deadline.saturating_duration_since(Instant::now()));
            last = attempt(context, check, client, limit).await;
            if last.is_ok() || tried > check.retries {
                return;
            }
            sleep(check.every).await;
        }
    });
    let cut_off = in_time.await.is_err();
    let passed = last.is_ok();
    let mut detail = match last {
        Ok(held) => held,
        Err(failed) => failed,
    };
    if tried > 1 {
        detail = format!("{detail} (try {tried} of {})", check.retries.saturating_add(1));
    }
    if cut_off {
        detail.push_str("; the time for verification was up");
    }
    CheckResult {
        name: check.name.clone(),
        kind: check.kind.kind().to_owned(),
        passed,
        // A server or a script may have repeated what it was told.
        detail: context.config.veil.cover(detail),
        took: watch.elapsed_signed(),
    }
}

/// One try. `Ok`: what held. `Err`: what did not.
async fn attempt(
    context: Context<'_>,
    check: &Check,
    client: &Result<Client, String>,
    limit: Duration,
) -> Result<String, String> {
    let (database, pinned) = (&context.config.database, context.pinned);
    match &check.kind {
        CheckKind::Tables => bound(limit, tables::check(pinned, database, context.baseline)).await,
        CheckKind::Integrity { default, tables } => {
            bound(limit, integrity::check(context, *default, tables, limit)).await
        }
        CheckKind::Catalog => bound(limit, catalog::check(pinned, database, context.baseline)).await,
        CheckKind::Sql { query } => bound(limit, sql::check(pinned, query)).await,
        CheckKind::Auth { url, apikey, email, password } => {
            let account = auth::Account { url, apikey: apikey.as_ref(), email, password };
            auth::check(client.as_ref()?, account, limit).await
        }
        CheckKind::Http(probe) => http::check(client.as_ref()?, probe, limit).await,
        CheckKind::Command { run } => command::check(run, limit).await,
        CheckKind::ErrorLog { source, ratio_below, within } => {
            let veil = &context.config.veil;
            bound(limit, error_log::check(source, *ratio_below, *within, check.timeout, veil)).await
        }
    }
}

async fn bound(limit: Duration, check: impl Future<Output = Result<String, String>>) -> Result<String, String> {
    timeout_at(Instant::now() + limit, check).await.unwrap_or_else(|_| Err(format!("not done within {limit:?}")))
}
