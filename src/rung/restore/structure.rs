//! What is done when the backup cannot be read: missing tables get their structure from `database.original_schema_file`,
//! without rows. A table that is there is never replaced.

use std::path::Path;
use std::time::Duration;

use rollbackd_core::baseline::{Baseline, TableName, quote_identifier};
use tokio_postgres::{Client, Transaction};

use super::damage::Damaged;
use super::statements;
use crate::config::model::Config;
use crate::postgres::removal::quarantine::make_closed;
use crate::postgres::{Failure, catalog, count, during, milliseconds, restored};

/// Runs the file's statements in one transaction, leaving out what is there already. The inner `Err` is why it could not
/// be done; then nothing was changed. The baseline is given as it was taken, and as it is known by now.
pub(super) async fn make(
    client: &mut Client,
    config: &Config,
    (taken, baseline): (&Baseline, &Baseline),
    missing: &[&Damaged],
    file: &Path,
    quarantine: &str,
    left: Duration,
) -> Result<Result<u64, String>, Failure> {
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) => return Ok(Err(format!("{}: {error}", file.display()))),
    };
    let doing = "making tables from database.original_schema_file";
    let transaction = client.transaction().await.map_err(during(doing))?;
    let before = catalog::read(&transaction).await?;
    let settings = format!(
        "set local lock_timeout = {}; set local statement_timeout = {}; set local check_function_bodies = off; \
         set local search_path = {}",
        milliseconds(config.database.lock_timeout),
        milliseconds(left),
        quote_identifier(&config.database.schema)
    );
    transaction.batch_execute(&settings).await.map_err(during(doing))?;
    let stood = standing(&transaction, config, missing).await?;
    let mut skipped = 0;
    for statement in statements::split(&text) {
        match run(&transaction, &statement).await? {
            Ran::Done => {}
            Ran::Skipped => skipped += 1,
            Ran::Refused(reason) => return Ok(Err(reason)),
        }
    }
    transaction.batch_execute("set local search_path = pg_catalog, pg_temp").await.map_err(during(doing))?;
    if standing(&transaction, config, missing).await? != stood {
        return Ok(Err(format!("{} changes tables that are there", file.display())));
    }
    let after = catalog::read(&transaction).await?;
    let harm = catalog::harm(&without(baseline, missing), &before, &after);
    if !harm.is_empty() {
        return Ok(Err(harm.join("; ")));
    }
    if let Some(one) = missing.iter().find(|one| !after.has_table(&one.table)) {
        return Ok(Err(format!("{} does not make {}", file.display(), one.table)));
    }
    make_closed(&transaction, quarantine, &[]).await?;
    let tables: Vec<TableName> = missing.iter().map(|one| one.table.clone()).collect();
    restored::write(&transaction, quarantine, taken, &tables).await?;
    transaction.commit().await.map_err(during(doing))?;
    Ok(Ok(skipped))
}

/// The baseline of everything else: what a file leaves out of a table was gone before.
fn without(baseline: &Baseline, missing: &[&Damaged]) -> Baseline {
    let mut rest = baseline.clone();
    rest.catalog.objects.retain(|object| {
        let whole = object.id.of.as_ref().unwrap_or(&object.id.name);
        missing.iter().all(|one| (&one.table.schema, &one.table.name) != (&object.id.schema, whole))
    });
    rest
}

/// The numbers and rows of the tables that are there.
async fn standing(
    transaction: &Transaction<'_>,
    config: &Config,
    missing: &[&Damaged],
) -> Result<Vec<(u32, u64)>, Failure> {
    let mut found = Vec::new();
    for number in catalog::identities(transaction).await? {
        let original = config.database.original_tables.contains(&number.table);
        if original && missing.iter().all(|one| one.table != number.table) {
            found.push((number.oid, count::rows(transaction, &number.table).await?));
        }
    }
    Ok(found)
}

enum Ran {
    Done,
    /// It is there already, or would end the transaction.
    Skipped,
    Refused(String),
}

/// One statement, under a savepoint.
async fn run(transaction: &Transaction<'_>, statement: &str) -> Result<Ran, Failure> {
    let first: String = statement.chars().take_while(char::is_ascii_alphabetic).collect();
    let control = ["begin", "start", "commit", "end", "rollback", "abort", "savepoint", "release", "prepare", "set"];
    let word = first.to_ascii_lowercase();
    if control.contains(&word.as_str()) || statement.contains("pg_catalog.set_config('search_path'") {
        return Ok(Ran::Skipped);
    }
    if ["drop", "truncate", "delete", "update"].contains(&word.as_str()) {
        return Ok(Ran::Skipped);
    }
    let doing = "setting a savepoint";
    transaction.batch_execute("savepoint statement").await.map_err(during(doing))?;
    let Err(error) = transaction.batch_execute(statement).await else {
        transaction.batch_execute("release savepoint statement").await.map_err(during(doing))?;
        return Ok(Ran::Done);
    };
    let start: String = statement.chars().take(80).collect();
    let failure = Failure::new(format!("`{start}`"), &error);
    if failure.is_lost() || failure.is_lock_timeout() || failure.is_statement_timeout() {
        return Err(failure);
    }
    transaction.batch_execute("rollback to savepoint statement").await.map_err(during(doing))?;
    // 42P06 schema, 42P07 relation, 42P16 second primary key, 42710 object, 42723 function: already there.
    let there = ["42P06", "42P07", "42P16", "42710", "42723"];
    let known = error.code().is_some_and(|code| there.contains(&code.code()));
    Ok(if known { Ran::Skipped } else { Ran::Refused(failure.to_string()) })
}
