//! The demo's database: sets it up, and judges afterwards what became of it.
//!
//! The judgement is made with its own queries on its own connection. It shares nothing with the code that it judges.

use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::{Client, NoTls};
use tokio_util::task::TaskTracker;

/// The originals, before the migration and after the rollback.
pub const SCHEMA: &str = include_str!("../../config/demo/schema.sql");
/// The runbook's tables.
pub const NEW_TABLES: [&str; 14] = [
    "pages",
    "content_blocks",
    "page_templates",
    "component_library",
    "user_sessions",
    "analytics_events",
    "user_file_stats",
    "file_metadata",
    "file_versions",
    "cache_entries",
    "component_usage",
    "builder_pages",
    "content_posts",
    "media_files",
];
/// The originals, and a column that orders their rows by age, with its type.
const ORIGINALS: [(&str, &str, &str); 3] =
    [("profiles", "created_at", "timestamptz"), ("posts", "id", "bigint"), ("comments", "id", "bigint")];
const PATIENCE: Duration = Duration::from_secs(20);

/// What was in an original table before the migration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Original {
    /// The table.
    pub table: &'static str,
    /// The column that orders its rows by age.
    by: &'static str,
    /// That column's type.
    kind: &'static str,
    /// The newest row's `created_at` or `id`, as text.
    newest: String,
    /// Rows up to the newest.
    pub rows: i64,
    /// Sum of the hashes of the rows up to the newest, as text.
    fingerprint: String,
}

/// Where the runbook's tables are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Whereabouts {
    /// Those in `public`.
    pub live: Vec<String>,
    /// Those in a schema of rollbackd's, as `schema.table`.
    pub quarantined: Vec<String>,
}

/// A connection of the demo's own.
pub struct Judge(Client);

impl Judge {
    /// Connects.
    ///
    /// # Errors
    /// A sentence.
    pub async fn connect(url: &str, tracker: &TaskTracker) -> Result<Self, String> {
        let connecting = tokio_postgres::connect(url, NoTls);
        let (client, connection) = bounded("connect to the demo's database", connecting).await?;
        tracker.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(event = "demo.judge_disconnected", %error, "the demo lost its own connection");
            }
        });
        Ok(Self(client))
    }

    /// Makes the roles and the database, as the cluster's superuser. The owner is none, as on hosted PostgreSQL.
    ///
    /// # Errors
    /// A sentence.
    pub async fn create(&self, owner_password: &str, app_password: &str) -> Result<(), String> {
        // The passwords are made by the demo from letters and digits, so that they need no quoting.
        for statement in [
            format!("create role shop_owner login password '{owner_password}'"),
            format!("create role shop_app login password '{app_password}'"),
            "create database shop owner shop_owner".to_owned(),
        ] {
            bounded("create the demo's database", self.0.batch_execute(&statement)).await?;
        }
        Ok(())
    }

    /// Fills the database with the originals, as their owner.
    ///
    /// # Errors
    /// A sentence.
    pub async fn fill(&self) -> Result<(), String> {
        bounded("fill the demo's database", self.0.batch_execute(SCHEMA)).await
    }

    /// The server's version, such as `15.18`.
    ///
    /// # Errors
    /// A sentence.
    pub async fn version(&self) -> Result<String, String> {
        let row = bounded("read the version", self.0.query_one("show server_version", &[])).await?;
        let version: String = row.get(0);
        Ok(version.split(' ').next().unwrap_or(&version).to_owned())
    }

    /// What the originals hold now.
    ///
    /// # Errors
    /// A sentence.
    pub async fn originals(&self) -> Result<Vec<Original>, String> {
        let mut originals = Vec::new();
        for (table, by, kind) in ORIGINALS {
            let newest = format!("select max({by})::text from public.{table}");
            let newest: String = bounded("look at the originals", self.0.query_one(&newest, &[])).await?.get(0);
            let (rows, fingerprint, _) = self.look(table, by, kind, &newest).await?;
            originals.push(Original { table, by, kind, newest, rows, fingerprint });
        }
        Ok(originals)
    }

    /// Whether the rows that a table had are all there, unchanged; how many were added since.
    ///
    /// # Errors
    /// A sentence: what is missing or changed, or why it could not be seen.
    pub async fn is_whole(&self, before: &Original) -> Result<i64, String> {
        let Original { table, by, kind, newest, .. } = before;
        let (rows, fingerprint, all) = self.look(table, by, kind, newest).await?;
        if rows != before.rows {
            return Err(format!("`{table}`: {rows} of {} rows are there", before.rows));
        }
        if fingerprint != before.fingerprint {
            return Err(format!("`{table}`: {rows} rows are there, but not as they were"));
        }
        Ok(all - rows)
    }

    /// Rows up to the newest of before, what they hash to, and all rows of now.
    async fn look(&self, table: &str, by: &str, kind: &str, newest: &str) -> Result<(i64, String, i64), String> {
        // The text of a row has all columns in order: one that was added, is gone or has changed changes the sum.
        let query = format!(
            "select count(*) filter (where old), coalesce(sum(hash) filter (where old), 0)::text, count(*)
             from (select {by} <= $1::text::{kind} as old, hashtextextended(t::text, 0)::numeric as hash
                   from public.{table} t) as hashed"
        );
        let row = bounded("look at the originals", self.0.query_one(&query, &[&newest])).await?;
        Ok((row.get(0), row.get(1), row.get(2)))
    }

    /// Where the runbook's tables are.
    ///
    /// # Errors
    /// A sentence.
    pub async fn whereabouts(&self) -> Result<Whereabouts, String> {
        let query = "select schemaname::text, tablename::text from pg_tables where tablename = any($1) order by 1, 2";
        let names: Vec<&str> = NEW_TABLES.to_vec();
        let mut whereabouts = Whereabouts::default();
        for row in bounded("look for the new tables", self.0.query(query, &[&names])).await? {
            let (schema, table): (String, String) = (row.get(0), row.get(1));
            if schema == "public" {
                whereabouts.live.push(table);
            } else if schema.starts_with("rollbackd_") {
                whereabouts.quarantined.push(format!("{schema}.{table}"));
            }
        }
        Ok(whereabouts)
    }
}

/// Bounds a wait for the database, and says what could not be done.
async fn bounded<T>(what: &str, work: impl Future<Output = Result<T, tokio_postgres::Error>>) -> Result<T, String> {
    match timeout(PATIENCE, work).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => {
            let detail = error.as_db_error().map_or_else(|| error.to_string(), |refused| refused.message().to_owned());
            Err(format!("cannot {what}: {detail}"))
        }
        Err(_) => Err(format!("cannot {what}: no answer in {} s", PATIENCE.as_secs())),
    }
}
