//! What a restore would bring back and what would no longer be there after it, in numbers: for whoever has to approve it.

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use rollbackd_core::baseline::Baseline;
use rollbackd_core::window::quarantine_schema;
use tokio_postgres::Client;

use super::counted_u64;
use super::damage::{self, Damaged, Known};
use crate::backup;
use crate::config::model::Config;
use crate::postgres::pinned::Pinned;
use crate::postgres::{Failure, count, restored};

/// How long the backup's files may take to be hashed, of the time that there is: somebody is waiting to be told.
const HASHING: Duration = Duration::from_secs(15);

/// Looks, and says it in sentences. What could not be found out is said to be so.
pub(crate) async fn foresee(
    config: &Config,
    pinned: &Pinned,
    baseline: &Baseline,
    backup: Option<&Path>,
    window_started: Timestamp,
    within: Duration,
) -> Vec<String> {
    let unknown = |reason: String| vec![format!("What it would cost could not be counted: {reason}.")];
    let quarantine = quarantine_schema(window_started);
    let work = async {
        let session = pinned.session().await.map_err(|error| error.to_string())?;
        let known = restored::known(session.client(), baseline).await.map_err(|failure| failure.to_string())?;
        let known = Known { config, baseline: &known, backup, quarantine: &quarantine };
        words(session.client(), known).await.map_err(|failure| failure.to_string())
    };
    match tokio::time::timeout(within, work).await {
        Ok(Ok(words)) => words,
        Ok(Err(reason)) => unknown(reason),
        Err(_elapsed) => unknown(format!("it took longer than {:.0} s", within.as_secs_f64())),
    }
}

async fn words(client: &Client, known: Known<'_>) -> Result<Vec<String>, Failure> {
    let found = damage::find(client, known).await?;
    let mut words = Vec::new();
    for one in &found.damaged {
        let now = match one.live {
            None => None,
            // A count that fails hides nothing of the rest.
            Some(_) => Some(count::own_rows(client, &one.table).await.map_err(|failure| failure.to_string())),
        };
        words.push(table(one, now.as_ref()));
    }
    if found.damaged.is_empty() {
        words.push("No original table is missing or damaged: there is nothing to restore.".to_owned());
    } else {
        words.push(backup(known).await);
    }
    if found.damaged.iter().any(|one| one.live.is_some()) {
        words.push(format!(
            "Before a table is replaced, all of it is moved to schema {} with every row it holds; the report says how rows \
             that were written since are put back.",
            known.quarantine
        ));
    }
    words.extend(found.obstacles.iter().map(|obstacle| format!("In the way: {obstacle}.")));
    words.extend(found.notes.iter().map(|note| format!("Note: {note}.")));
    Ok(words)
}

/// Where the rows come from, and whether that is still what was written.
async fn backup(known: Known<'_>) -> String {
    let at = known.baseline.at;
    let Some(backup) = known.backup else {
        return format!("There is NO backup of this window. {}", without(known.config));
    };
    let place = backup.display();
    match tokio::time::timeout(HASHING, backup::unchanged(backup, at, Duration::MAX)).await {
        Ok(Ok(())) => format!("The backup: {place}, as of {at:.0}; its files are what was written."),
        Ok(Err(reason)) => format!("The backup {place} CANNOT BE USED: {reason}. {}", without(known.config)),
        Err(_elapsed) => {
            format!(
                "The backup: {place}, as of {at:.0}; it is too large to be checked now, and is checked before it is used."
            )
        }
    }
}

/// What a restore without a backup comes to.
fn without(config: &Config) -> String {
    match &config.database.original_schema_file {
        Some(file) => format!(
            "Missing tables would be made from {} WITHOUT ROWS, and damaged ones would stay as they are.",
            file.display()
        ),
        None => "Nothing would come back: find another backup before you approve.".to_owned(),
    }
}

/// One table: what is wrong, what the backup has, what would go.
fn table(one: &Damaged, now: Option<&Result<u64, String>>) -> String {
    let Damaged { table, why, rows: before, .. } = one;
    let backup = counted_u64(*before, "row");
    match now {
        None => format!(
            "{table} ({why}): the backup holds {backup}; rows that were written between the backup and the drop are lost."
        ),
        Some(Err(reason)) => {
            format!("{table} ({why}): the backup holds {backup}; how many it holds now is not known: {reason}.")
        }
        Some(Ok(now)) => {
            let then = match (now.checked_sub(*before), before.checked_sub(*now)) {
                (Some(0), _) => "as many as before".to_owned(),
                (Some(more), _) => {
                    let verb = if more == 1 { "was" } else { "were" };
                    format!(
                        "at least {} {verb} written since, and would leave the live table",
                        counted_u64(more, "row")
                    )
                }
                (None, Some(fewer)) => {
                    let verb = if fewer == 1 { "is" } else { "are" };
                    format!("at least {} {verb} missing", counted_u64(fewer, "row"))
                }
                (None, None) => String::new(),
            };
            format!("{table} ({why}): it holds {} now, the backup {backup}: {then}.", counted_u64(*now, "row"))
        }
    }
}

#[cfg(test)]
mod tests {
    use rollbackd_core::baseline::TableName;

    use super::*;

    #[test]
    fn the_numbers_are_said_as_they_are() {
        let one = |live| Damaged {
            table: TableName::new("public", "posts"),
            live,
            why: "column body was dropped".to_owned(),
            rows: 20,
        };
        let says = |now: u64| table(&one(Some(7)), Some(&Ok(now)));
        assert!(says(21).ends_with(
            "it holds 21 rows now, the backup 20 rows: at least 1 row was written since, and would leave the live table."
        ));
        assert!(says(18).ends_with("it holds 18 rows now, the backup 20 rows: at least 2 rows are missing."));
        assert!(says(20).ends_with("as many as before."));
        assert!(table(&one(None), None).contains("the backup holds 20 rows; rows that were written between"));
        assert!(table(&one(Some(7)), Some(&Err("locked".to_owned()))).contains("is not known: locked"));
    }
}
