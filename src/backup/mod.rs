//! The backup before the migration, and the baseline of the same instant.
//!
//! One transaction exports a snapshot; the catalog, the fingerprints and `pg_dump` all use it, so that they describe one
//! moment. The backup grows in a directory that ends in `.partial` and gets its name when every row has been read
//! back: what has the name is whole. Nothing is restored here.

mod manifest;
mod newest;
mod prune;
#[cfg(test)]
mod tests;

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rollbackd_core::baseline::{Baseline, RowCount, TableName, quote_identifier};
use rollbackd_core::run::step::{Finding, Outcome};
use rollbackd_core::words::counted;
use tokio_postgres::{IsolationLevel, Transaction};
use tokio_util::sync::CancellationToken;

pub use self::manifest::{FileEntry, Manifest};
pub use self::newest::{newest, read as read_baseline};

use crate::clock::{self, Stopwatch};
use crate::config::model::Config;
use crate::postgres::keys::{self, SampledKeys};
use crate::postgres::programs::{self, Access, Programs, write_private};
use crate::postgres::session::Session;
use crate::postgres::{Failure, catalog, count, during, fingerprint, milliseconds, readback};

/// How long `pg_dump` waits for a lock at least: a backup is in less of a hurry than a rollback.
const LOCK_WAIT: Duration = Duration::from_secs(10);

/// Takes the backup and the baseline. `stop` ends it early, when nobody needs it any more.
pub async fn take(config: &Config, window_started: Timestamp, within: Duration, stop: &CancellationToken) -> Outcome {
    let partial = match make_partial(config, window_started) {
        Ok(partial) => partial,
        Err(reason) => return Outcome::failed(format!("no backup: {reason}")),
    };
    let work = Work { config, window_started, partial: &partial, within, started: Stopwatch::start() };
    let worked = tokio::select! {
        worked = tokio::time::timeout(within, work.run()) => worked,
        () = stop.cancelled() => Ok(Err("it is not needed any more".to_owned())),
    };
    let reason = match worked {
        Ok(Ok(outcome)) => return outcome,
        Ok(Err(reason)) => Outcome::failed(format!("no backup: {reason}")),
        Err(_elapsed) => Outcome::timed_out(format!("no backup: it did not end within {} s", within.as_secs())),
    };
    remove_partial(&partial).await;
    reason
}

struct Work<'a> {
    config: &'a Config,
    window_started: Timestamp,
    partial: &'a Path,
    within: Duration,
    started: Stopwatch,
}

/// What was read under the snapshot.
struct Facts {
    snapshot: String,
    baseline: Baseline,
    keys: SampledKeys,
    /// The rows that each original table stores itself, which is what the dump has under its name.
    stored: Vec<RowCount>,
}

impl Work<'_> {
    async fn run(&self) -> Result<Outcome, String> {
        let config = self.config;
        let mut session = Session::connect(&config.database).await.map_err(|error| error.to_string())?;
        let major = catalog::server_major(session.client()).await.map_err(|failure| failure.to_string())?;
        let programs = programs::find(major).await?;
        let access = Access::new(&config.database)?;
        let transaction = session
            .client_mut()
            .build_transaction()
            .isolation_level(IsolationLevel::RepeatableRead)
            .read_only(true)
            .start()
            .await
            .map_err(|error| Failure::new("beginning the snapshot", &error).to_string())?;
        let facts = self.facts(&transaction).await?;
        self.dump(&programs, &access, &facts.snapshot).await?;
        transaction.commit().await.map_err(|error| Failure::new("ending the snapshot", &error).to_string())?;
        self.write("baseline.json", &facts.baseline)?;
        self.write(keys::FILE, &facts.keys)?;
        readback::check(&programs.restore, &self.partial.join("dump"), &facts.stored, self.left()).await?;
        let (directory, bytes) = self.finish(&programs, &facts).await?;
        let rows: u64 = facts.baseline.counts.iter().map(|count| count.rows).sum();
        let detail = format!(
            "backed up {} with {rows} rows in original tables ({bytes} bytes), read back, in {}",
            counted(config.backup.schemas.len(), "schema"),
            directory.display()
        );
        let directory = directory.display().to_string();
        Ok(Outcome::succeeded(detail, Finding::Backup { directory, bytes, baseline: Arc::new(facts.baseline) }))
    }

    fn left(&self) -> Duration {
        self.within.saturating_sub(self.started.elapsed())
    }

    async fn facts(&self, transaction: &Transaction<'_>) -> Result<Facts, String> {
        let said = |failure: Failure| failure.to_string();
        let limit = format!("set local statement_timeout = {}", milliseconds(self.left()));
        transaction.batch_execute(&limit).await.map_err(during("setting the time limit")).map_err(said)?;
        let doing = "exporting the snapshot";
        let row =
            transaction.query_one("select pg_export_snapshot()", &[]).await.map_err(during(doing)).map_err(said)?;
        let snapshot: String = row.try_get(0).map_err(during(doing)).map_err(said)?;
        let at = clock::now();
        let catalog = catalog::read(transaction).await.map_err(said)?;
        let originals = &self.config.database.original_tables;
        let missing: Vec<String> =
            originals.iter().filter(|table| !catalog.has_table(table)).map(TableName::to_string).collect();
        if !missing.is_empty() {
            return Err(format!("original tables are missing: {}", missing.join(", ")));
        }
        let schemas = &self.config.backup.schemas;
        if let Some(table) = originals.iter().find(|table| !schemas.contains(&table.schema)) {
            return Err(format!("{table} is an original table, but backup.schemas leaves out {}", table.schema));
        }
        let server_version = catalog::server_version(transaction).await.map_err(said)?;
        let identities = catalog::identities(transaction).await.map_err(said)?;
        // Last, because it changes settings that the catalog's texts depend on.
        let taken = fingerprint::take(transaction, originals).await.map_err(said)?;
        let counts = taken.counts();
        let stored = stored(transaction, &counts).await.map_err(said)?;
        let baseline = Baseline {
            format: Baseline::FORMAT,
            at,
            server_version,
            catalog: catalog.for_keeping(),
            counts,
            identities,
            prints: taken.prints,
        };
        Ok(Facts { snapshot, baseline, keys: taken.keys, stored })
    }

    async fn dump(&self, programs: &Programs, access: &Access, snapshot: &str) -> Result<(), String> {
        let wait = self.config.database.lock_timeout.max(LOCK_WAIT).min(self.left());
        let mut common = vec![
            "--no-password".to_owned(),
            "--strict-names".to_owned(),
            "--no-sync".to_owned(),
            format!("--snapshot={snapshot}"),
            format!("--lock-wait-timeout={}", milliseconds(wait)),
        ];
        // An identifier in quotes is a pattern that matches nothing but itself.
        common.extend(self.config.backup.schemas.iter().map(|name| format!("--schema={}", quote_identifier(name))));
        let mut data = common.clone();
        data.push("--format=directory".to_owned());
        data.push(format!("--jobs={}", self.config.backup.jobs.max(1)));
        data.push(format!("--file={}", self.partial.join("dump").display()));
        programs::run(&programs.dump, &data, Some(access), self.left(), None).await?;
        common.push("--schema-only".to_owned());
        common.push(format!("--file={}", self.partial.join("schema.sql").display()));
        programs::run(&programs.dump, &common, Some(access), self.left(), None).await
    }

    fn write(&self, name: &str, value: &impl serde::Serialize) -> Result<(), String> {
        let text = serde_json::to_string_pretty(value).map_err(|error| format!("{name}: {error}"))?;
        write_private(&self.partial.join(name), &text)
    }

    /// Writes the manifest, makes everything durable, gives the backup its name and removes older ones.
    async fn finish(&self, programs: &Programs, facts: &Facts) -> Result<(PathBuf, u64), String> {
        let partial = self.partial.to_owned();
        let files = blocking(move || manifest::seal(&partial)).await??;
        let bytes = files.iter().map(|file| file.bytes).sum();
        let manifest = Manifest {
            format: manifest::FORMAT,
            rollbackd: env!("CARGO_PKG_VERSION").to_owned(),
            plan: self.config.name.clone(),
            window_started: self.window_started,
            at: facts.baseline.at,
            server_version: facts.baseline.server_version.clone(),
            pg_dump: programs.version.clone(),
            snapshot: facts.snapshot.clone(),
            schemas: self.config.backup.schemas.clone(),
            files,
            tables: facts.baseline.counts.clone(),
        };
        self.write(manifest::NAME, &manifest)?;
        let (partial, parent) = (self.partial.to_owned(), self.config.backup.directory.clone());
        let name = format!("{}{}", prune::PREFIX, stamp(self.window_started));
        let (plan, keep) = (self.config.name.clone(), self.config.backup.keep);
        let directory = blocking(move || {
            manifest::sync(&partial.join(manifest::NAME))?;
            manifest::sync(&partial)?;
            let directory = rename(&partial, &parent, &name)?;
            manifest::sync(&parent)?;
            for left in prune::prune(&parent, &plan, keep, &directory) {
                tracing::warn!(event = "backup.leftover", reason = %left, "an old backup cannot be removed");
            }
            Ok::<_, String>(directory)
        })
        .await??;
        Ok((directory, bytes))
    }
}

/// Gives a backup its name, with a number when an earlier life has used the name up.
fn rename(partial: &Path, parent: &Path, name: &str) -> Result<PathBuf, String> {
    for number in 1_u32..1000 {
        let name = if number == 1 { name.to_owned() } else { format!("{name}-{number}") };
        let directory = parent.join(name);
        if !directory.exists() {
            std::fs::rename(partial, &directory).map_err(|error| format!("{}: {error}", directory.display()))?;
            return Ok(directory);
        }
    }
    Err(format!("{} holds too many backups of {name}", parent.display()))
}

/// For each table the rows that it stores itself. Those with partitions or children are counted again without them.
async fn stored(transaction: &Transaction<'_>, counts: &[RowCount]) -> Result<Vec<RowCount>, Failure> {
    let doing = "reading partitions and children";
    let sql = "select distinct n.nspname::text, c.relname::text from pg_inherits i \
               join pg_class c on c.oid = i.inhparent join pg_namespace n on n.oid = c.relnamespace";
    let rows = transaction.query(sql, &[]).await.map_err(during(doing))?;
    let parents: Vec<TableName> = rows
        .iter()
        .map(|row| Ok(TableName { schema: row.try_get(0)?, name: row.try_get(1)? }))
        .collect::<Result<_, _>>()
        .map_err(during(doing))?;
    let mut stored = Vec::with_capacity(counts.len());
    for count in counts {
        let rows =
            if parents.contains(&count.table) { count::own_rows(transaction, &count.table).await? } else { count.rows };
        stored.push(RowCount { table: count.table.clone(), rows });
    }
    Ok(stored)
}

fn stamp(at: Timestamp) -> String {
    at.strftime("%Y%m%dT%H%M%SZ").to_string()
}

/// A new private directory for the backup to grow in; what an earlier life left under the name is removed.
fn make_partial(config: &Config, window_started: Timestamp) -> Result<PathBuf, String> {
    let parent = &config.backup.directory;
    let named = |path: &Path, error: std::io::Error| format!("{}: {error}", path.display());
    DirBuilder::new().recursive(true).mode(0o700).create(parent).map_err(|error| named(parent, error))?;
    let partial = parent.join(format!("{}{}.partial", prune::PREFIX, stamp(window_started)));
    match std::fs::remove_dir_all(&partial) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(named(&partial, error)),
    }
    DirBuilder::new().mode(0o700).create(&partial).map_err(|error| named(&partial, error))?;
    Ok(partial)
}

/// Removes what was not finished. The programs that wrote there were just killed, and may take a moment to be gone.
async fn remove_partial(partial: &Path) {
    for _ in 0..20 {
        match std::fs::remove_dir_all(partial) {
            Ok(()) => return,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return,
            Err(error) => tracing::debug!(event = "backup.partial", %error),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    tracing::warn!(event = "backup.leftover", directory = %partial.display(), "an unfinished backup cannot be removed");
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string())
}

/// Whether a backup is still what was backed up: every file by its hash, and every row read back. `expected` are rows that
/// its tables must hold.
pub(crate) async fn verify(
    directory: &Path,
    at: Timestamp,
    restore: &Path,
    expected: &[RowCount],
    within: Duration,
) -> Result<(), String> {
    let started = Stopwatch::start();
    unchanged(directory, at, within).await?;
    readback::check(restore, &directory.join("dump"), expected, within.saturating_sub(started.elapsed())).await
}

/// Whether the backup's files are what was written: their sizes and hashes, and not yet their contents.
///
/// # Errors
/// What is not as it was.
pub(crate) async fn unchanged(directory: &Path, at: Timestamp, within: Duration) -> Result<(), String> {
    let place = directory.to_owned();
    let hashing = blocking(move || manifest::verify(&place, at));
    tokio::time::timeout(within, hashing).await.map_err(|_elapsed| "hashing it took too long".to_owned())??
}

/// Whether `pg_dump` and `pg_restore` are there and not older than the server.
pub async fn tools(config: &Config) -> Result<String, String> {
    let session = Session::connect(&config.database).await.map_err(|error| error.to_string())?;
    let client = session.client();
    let major = catalog::server_major(client).await.map_err(|failure| failure.to_string())?;
    let server = catalog::server_version(client).await.map_err(|failure| failure.to_string())?;
    let programs = programs::find(major).await?;
    Ok(format!("{} for server {server}", programs.version))
}

/// Whether the backup has room: the size of what is dumped, without indexes, against the free space.
pub async fn room(config: &Config) -> Result<String, String> {
    let session = Session::connect(&config.database).await.map_err(|error| error.to_string())?;
    let doing = "reading the database's size";
    let sql = "select coalesce(sum(pg_table_size(c.oid)), 0)::int8 from pg_class c \
               join pg_namespace n on n.oid = c.relnamespace \
               where c.relkind in ('r', 'm') and n.nspname = any($1)";
    let row = session.client().query_one(sql, &[&config.backup.schemas]).await;
    let needed: i64 =
        row.and_then(|row| row.try_get(0)).map_err(during(doing)).map_err(|failure| failure.to_string())?;
    let needed = u64::try_from(needed).unwrap_or(0);
    let directory = &config.backup.directory;
    // It is made when the first backup is taken.
    let existing = directory.ancestors().find(|path| path.exists()).unwrap_or(directory);
    let space = rustix::fs::statvfs(existing).map_err(|error| format!("{}: {error}", existing.display()))?;
    let free = space.f_bavail.saturating_mul(space.f_frsize);
    let sizes = format!("{} to back up, {} free in {}", megabytes(needed), megabytes(free), existing.display());
    if free > needed { Ok(sizes) } else { Err(format!("not enough room: {sizes}; free some, or set backup.directory")) }
}

fn megabytes(bytes: u64) -> String {
    format!("{} MB", bytes.div_ceil(1024 * 1024))
}
