//! The archive of a quarantine: all of its schema, read back and counted table by table before anybody relies on it.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rollbackd_core::baseline::{RowCount, quote_identifier};
use tokio_postgres::{Client, IsolationLevel, Transaction};

use super::{Job, members};
use crate::clock::Stopwatch;
use crate::postgres::count::{self, Print};
use crate::postgres::programs::{self, Access, write_private};
use crate::postgres::removal::archive::{make_directory, remove};
use crate::postgres::{Failure, catalog, during, milliseconds, readback};

const DOING: &str = "archiving the quarantine";

/// An archive that was read back.
#[derive(Debug)]
pub(super) struct Archive {
    directory: PathBuf,
    /// What each table held, by its number.
    pub(super) prints: BTreeMap<u32, Print>,
    /// Whether a commit was sent on the strength of it.
    pub(super) relied_on: bool,
}

impl Archive {
    /// Throws it away when nothing was dropped on the strength of it; gives back where it is otherwise.
    pub(super) fn settle(self) -> Option<PathBuf> {
        if self.relied_on {
            return Some(self.directory);
        }
        remove(&self.directory);
        None
    }
}

/// Archives the quarantine as it is now.
pub(super) async fn take(client: &mut Client, job: Job<'_>, within: Duration) -> Result<Archive, Failure> {
    let watch = Stopwatch::start();
    let transaction = client
        .build_transaction()
        .isolation_level(IsolationLevel::RepeatableRead)
        .read_only(true)
        .start()
        .await
        .map_err(during("beginning a snapshot"))?;
    job.set_limits(&transaction, within).await?;
    let (mut prints, mut counts) = (BTreeMap::new(), Vec::new());
    for member in members(&transaction, job.schema, usize::MAX).await?.into_iter().filter(|member| !member.foreign) {
        let print = count::print(&transaction, &member.table).await?;
        counts.push(RowCount { table: member.table, rows: print.rows });
        prints.insert(member.oid, print);
    }
    let directory =
        make_directory(&job.config.state_dir, job.window, "purged").map_err(|reason| Failure::found(DOING, reason))?;
    let filled = fill(&transaction, job, &directory, &counts, within.saturating_sub(watch.elapsed())).await;
    if let Err(failure) = filled {
        remove(&directory);
        return Err(failure);
    }
    transaction.commit().await.map_err(during("ending the snapshot"))?;
    Ok(Archive { directory, prints, relied_on: false })
}

async fn fill(
    transaction: &Transaction<'_>,
    job: Job<'_>,
    directory: &Path,
    counts: &[RowCount],
    within: Duration,
) -> Result<(), Failure> {
    let found = |reason: String| Failure::found(DOING, reason);
    let doing = "exporting the snapshot";
    let row = transaction.query_one("select pg_export_snapshot()", &[]).await.map_err(during(doing))?;
    let snapshot: String = row.try_get(0).map_err(during(doing))?;
    let programs = programs::find(catalog::server_major(transaction).await?).await.map_err(found)?;
    let access = Access::new(&job.config.database).map_err(found)?;
    let file = directory.join("tables.dump");
    let arguments = [
        "--format=custom".to_owned(),
        "--no-password".to_owned(),
        "--strict-names".to_owned(),
        format!("--snapshot={snapshot}"),
        format!("--lock-wait-timeout={}", milliseconds(job.config.database.lock_timeout)),
        format!("--schema={}", quote_identifier(job.schema)),
        format!("--file={}", file.display()),
    ];
    programs::run(&programs.dump, &arguments, Some(&access), within, None)
        .await
        .map_err(|said| Failure::of_program(DOING, &said))?;
    let text = serde_json::to_string_pretty(counts).map_err(|error| found(error.to_string()))?;
    write_private(&directory.join("tables.json"), &text).map_err(found)?;
    readback::check(&programs.restore, &file, counts, within).await.map_err(found)?;
    for name in ["tables.dump", "tables.json", "."] {
        let path = directory.join(name);
        let synced = File::open(&path).and_then(|file| file.sync_all());
        synced.map_err(|error| found(format!("{}: {error}", path.display())))?;
    }
    Ok(())
}
