//! Keeps the rows of tables that are about to be dropped, and proves that they are kept.
//!
//! `<state_dir>/archives/<window>/tables-<n>/` holds `tables.dump` (custom format: tables, their sequences, views that
//! go along), `collateral.json` (the definitions of everything that goes along) and `tables.json` (the rows of each).
//! The archive is read back, and every table's rows in it are counted, before anybody relies on it.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rollbackd_core::baseline::{Object, RowCount, TableName};
use tokio_postgres::{Client, IsolationLevel, Transaction};

use super::scope::Scope;
use super::{Attempt, BATCH, Job, look, set_limits};
use crate::clock::Stopwatch;
use crate::postgres::count::{self, Print};
use crate::postgres::programs::{self, Access, write_private};
use crate::postgres::{Failure, catalog, during, milliseconds, readback};

/// An archive that was read back.
#[derive(Debug)]
pub(crate) struct Archive {
    /// Where it is.
    pub(crate) directory: PathBuf,
    /// What was to be removed when it was made.
    pub(super) scope: Scope,
    /// What each table held, by its number.
    pub(super) prints: BTreeMap<u32, Print>,
    /// Whether a commit was sent on the strength of it. The server's answer may be lost, so from then on this may be
    /// the only copy, and it is never thrown away.
    pub(super) relied_on: bool,
}

impl Archive {
    /// Throws it away when nothing was dropped on the strength of it; gives back where it is otherwise.
    pub(crate) fn settle(self) -> Option<PathBuf> {
        if self.relied_on {
            return Some(self.directory);
        }
        remove(&self.directory);
        None
    }
}

/// Archives the tables that the next transaction will drop, if there are any. `Err` in the inner result is the attempt's
/// end.
pub(super) async fn take(
    client: &mut Client,
    job: &Job<'_>,
    remaining: Duration,
) -> Result<Result<Option<Archive>, Attempt>, Failure> {
    let started = Stopwatch::start();
    let transaction = client
        .build_transaction()
        .isolation_level(IsolationLevel::RepeatableRead)
        .read_only(true)
        .start()
        .await
        .map_err(during("beginning a snapshot"))?;
    set_limits(&transaction, job, remaining).await?;
    let scope = match look(&transaction, job).await? {
        Ok(seen) => seen.scope,
        Err(end) => return Ok(Err(end)),
    };
    let tables: Vec<(u32, TableName)> = scope
        .first_tables(BATCH)
        .into_iter()
        .filter(|member| !member.foreign)
        .map(|member| (member.oid, member.table))
        .collect();
    let mut prints = BTreeMap::new();
    let mut counts = Vec::new();
    for (oid, table) in tables {
        let print = count::print(&transaction, &table).await?;
        counts.push(RowCount { table, rows: print.rows });
        prints.insert(oid, print);
    }
    if counts.is_empty() {
        return Ok(if scope.members.is_empty() {
            Ok(None)
        } else {
            Err(Attempt::Stopped(vec!["foreign tables hold no rows to archive; set `archive = false`".to_owned()]))
        });
    }
    let catalog = catalog::read(&transaction).await?;
    let definitions: Vec<&Object> = catalog
        .objects
        .iter()
        .filter(|object| !job.baseline.catalog.contains(&object.id) && !object.id.kind.is_table())
        .collect();
    let directory = make_directory(&job.config.state_dir, job.window, "tables")
        .map_err(|reason| Failure::found("archiving the tables", reason))?;
    let work = Work { job, scope: &scope, counts: &counts, directory: &directory };
    let within = remaining.saturating_sub(started.elapsed());
    match work.fill(&transaction, &definitions, within).await {
        Ok(()) => {}
        Err(failure) => {
            remove(&directory);
            return Err(failure);
        }
    }
    transaction.commit().await.map_err(during("ending the snapshot"))?;
    Ok(Ok(Some(Archive { directory, scope, prints, relied_on: false })))
}

struct Work<'a> {
    job: &'a Job<'a>,
    scope: &'a Scope,
    counts: &'a [RowCount],
    directory: &'a Path,
}

impl Work<'_> {
    async fn fill(
        &self,
        transaction: &Transaction<'_>,
        definitions: &[&Object],
        within: Duration,
    ) -> Result<(), Failure> {
        let found = |reason: String| Failure::found("archiving the tables", reason);
        let doing = "exporting the snapshot";
        let row = transaction.query_one("select pg_export_snapshot()", &[]).await.map_err(during(doing))?;
        let snapshot: String = row.try_get(0).map_err(during(doing))?;
        let programs = programs::find(catalog::server_major(transaction).await?).await.map_err(found)?;
        let access = Access::new(&self.job.config.database).map_err(found)?;
        let file = self.directory.join("tables.dump");
        programs::run(&programs.dump, &self.arguments(&snapshot, &file), Some(&access), within, None)
            .await
            .map_err(|said| Failure::of_program("archiving the tables", &said))?;
        let json = |value: Result<String, serde_json::Error>| value.map_err(|error| found(error.to_string()));
        let write = |name: &str, text: String| write_private(&self.directory.join(name), &text).map_err(found);
        write("collateral.json", json(serde_json::to_string_pretty(definitions))?)?;
        write("tables.json", json(serde_json::to_string_pretty(self.counts))?)?;
        readback::check(&programs.restore, &file, self.counts, within).await.map_err(found)?;
        for name in ["tables.dump", "collateral.json", "tables.json", "."] {
            let synced = File::open(self.directory.join(name)).and_then(|file| file.sync_all());
            synced.map_err(|error| found(format!("{}: {error}", self.directory.join(name).display())))?;
        }
        Ok(())
    }

    fn arguments(&self, snapshot: &str, file: &Path) -> Vec<String> {
        let mut arguments: Vec<String> =
            ["--format=custom", "--no-password", "--strict-names"].map(str::to_owned).into();
        arguments.push(format!("--snapshot={snapshot}"));
        arguments.push(format!("--lock-wait-timeout={}", milliseconds(self.job.config.database.lock_timeout)));
        arguments.push(format!("--file={}", file.display()));
        let tables = self.counts.iter().map(|count| count.table.sql());
        let views = self.scope.collateral.iter().filter_map(|collateral| {
            let whole = collateral.whole.as_ref()?;
            whole.relation.as_ref().map(|_| whole.sql.clone())
        });
        // An identifier in quotes is a pattern that matches nothing but itself.
        arguments.extend(tables.chain(views).map(|pattern| format!("--table={pattern}")));
        arguments
    }
}

/// Where a window's archives are.
pub(crate) fn directory_of(state_dir: &Path, window: &str) -> PathBuf {
    state_dir.join("archives").join(window.replace(['/', '\0'], "_"))
}

/// A new private directory for the next archive of the window: `<name>-<n>`.
pub(crate) fn make_directory(state_dir: &Path, window: &str, name: &str) -> Result<PathBuf, String> {
    let window = directory_of(state_dir, window);
    let named = |path: &Path, error: std::io::Error| format!("{}: {error}", path.display());
    DirBuilder::new().recursive(true).mode(0o700).create(&window).map_err(|error| named(&window, error))?;
    for number in 1_u32.. {
        let directory = window.join(format!("{name}-{number}"));
        match DirBuilder::new().mode(0o700).create(&directory) {
            Ok(()) => return Ok(directory),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(named(&directory, error)),
        }
    }
    Err(format!("{} is full of archives", window.display()))
}

pub(crate) fn remove(directory: &Path) {
    if let Err(error) = std::fs::remove_dir_all(directory) {
        tracing::warn!(event = "archive.leftover", directory = %directory.display(), %error, "cannot be removed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_that_was_relied_on_stays() {
        let parent = tempfile::tempdir().expect("a directory");
        for relied_on in [false, true] {
            let directory = parent.path().join("tables-1");
            std::fs::create_dir(&directory).expect("made");
            let archive =
                Archive { directory: directory.clone(), scope: Scope::default(), prints: BTreeMap::new(), relied_on };
            assert_eq!(archive.settle().is_some(), relied_on);
            assert_eq!(directory.exists(), relied_on);
        }
    }
}
