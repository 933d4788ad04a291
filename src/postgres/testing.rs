//! What the tests with a real server share: one server, a database for each test.

use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use jiff::Timestamp;
use rollbackd_core::baseline::{Baseline, TableName};
use rollbackd_core::plan::{Missed, OnCommandFailure};
use tempfile::TempDir;
use tokio::sync::Mutex;

use super::session::Session;
use super::{catalog, fingerprint, keys};
use crate::config::model::{
    Address, Backup, Config, Database, Decision, Preflight, Rollback, Secret, Tls, TlsMode, Window,
};
use crate::demo::cluster::Cluster;

/// The server, alive as long as a test uses it.
#[derive(Debug)]
pub(crate) struct Shared {
    cluster: Cluster,
    // After the cluster: the directory goes when nobody uses it any more.
    _directory: TempDir,
}

impl std::ops::Deref for Shared {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        &self.cluster
    }
}

static SHARED: Mutex<(Weak<Shared>, u32)> = Mutex::const_new((Weak::new(), 0));

/// A database of a test's own, and a configuration for it.
#[derive(Debug)]
pub(crate) struct Fixture {
    pub(crate) cluster: Arc<Shared>,
    pub(crate) name: String,
    pub(crate) directory: TempDir,
}

impl Fixture {
    pub(crate) async fn new() -> Self {
        let mut shared = SHARED.lock().await;
        shared.1 += 1;
        let name = format!("Test \"{}\" 🚀", shared.1);
        let cluster = if let Some(cluster) = shared.0.upgrade() {
            cluster
        } else {
            let directory = own_directory();
            let cluster = Cluster::start(&directory.path().join("c")).await.expect("a server");
            let cluster = Arc::new(Shared { cluster, _directory: directory });
            shared.0 = Arc::downgrade(&cluster);
            cluster
        };
        cluster.create_database(&name).await.expect("a database");
        drop(shared);
        Self { cluster, name, directory: own_directory() }
    }

    pub(crate) async fn sql(&self, statements: &str) {
        self.cluster.execute(&self.name, statements).await.expect("valid statements");
    }

    /// Another session, for holding locks.
    pub(crate) async fn session(&self) -> Session {
        let database = self.database();
        Session::connect_to(&database.url, &database.tls, database.connect_timeout, Duration::from_secs(60))
            .await
            .expect("connects")
    }

    pub(crate) async fn number(&self, query: &str) -> i64 {
        self.session().await.client().query_one(query, &[]).await.expect("a number").get(0)
    }

    pub(crate) fn database(&self) -> Database {
        database(&self.cluster.url(&self.name))
    }

    pub(crate) fn config(&self) -> Config {
        config(self.database(), self.directory.path().to_owned())
    }

    /// The facts of now as a baseline; the sampled keys are in `directory`.
    pub(crate) async fn baseline(&self) -> Baseline {
        let database = self.database();
        let session = Session::connect(&database).await.expect("connects");
        let client = session.client();
        let catalog = catalog::read(client).await.expect("a catalog");
        let tables: Vec<TableName> =
            database.original_tables.iter().filter(|t| catalog.has_table(t)).cloned().collect();
        let taken = fingerprint::take(client, &tables).await.expect("fingerprints");
        let keys = serde_json::to_vec(&taken.keys).expect("keys as JSON");
        std::fs::write(self.directory.path().join(keys::FILE), keys).expect("a file with keys");
        Baseline {
            format: Baseline::FORMAT,
            at: Timestamp::UNIX_EPOCH,
            server_version: "15".to_owned(),
            counts: taken.counts(),
            identities: catalog::identities(client).await.expect("identities"),
            prints: taken.prints,
            catalog: catalog.for_keeping(),
        }
    }
}

/// A directory that the server's user can reach.
pub(crate) fn own_directory() -> TempDir {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::Builder::new().prefix("rollbackd-").tempdir_in("/tmp").expect("a directory");
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).expect("permissions");
    directory
}

pub(crate) fn database(url: &str) -> Database {
    Database {
        url: Address::new(url.parse().expect("a url")),
        schema: "public".to_owned(),
        original_tables: ["profiles", "posts", "comments"].map(|name| TableName::new("public", name)).into(),
        original_schema_file: None,
        protected_schemas: vec!["auth".to_owned()],
        tls: Tls { mode: TlsMode::Disable, root_cert: None },
        connect_timeout: Duration::from_secs(5),
        statement_timeout: Duration::from_secs(20),
        lock_timeout: Duration::from_millis(100),
    }
}

pub(crate) fn config(database: Database, directory: PathBuf) -> Config {
    let minute = Duration::from_secs(60);
    Config {
        path: directory.join("rollbackd.toml"),
        source: Arc::new(Secret::new("")),
        sha256: String::new(),
        veil: crate::config::veil::Veil::default(),
        name: "shop".to_owned(),
        state_dir: directory.join("state"),
        database,
        window: Window {
            schedule: None,
            timezone: jiff::tz::TimeZone::UTC,
            timezone_name: "UTC".to_owned(),
            duration: minute,
            soak: minute,
            missed: Missed::Skip,
            command: None,
            on_command_failure: OnCommandFailure::Rollback,
        },
        preflight: Preflight { healthy_for: Duration::ZERO, skip: Vec::new() },
        backup: Backup { directory: directory.join("backups"), schemas: vec!["public".to_owned()], jobs: 2, keep: 2 },
        decision: Decision { confirm: Duration::ZERO, at_least: 1, blind_after: minute, witnesses: Vec::new() },
        signals: Vec::new(),
        rules: Vec::new(),
        rollback: Rollback {
            budget: minute,
            approve_always: false,
            repeat_page: minute,
            grace: minute,
            gates: Vec::new(),
            rungs: Vec::new(),
        },
        checks: Vec::new(),
        contacts: Vec::new(),
        smtp: None,
        http: None,
        heartbeat: None,
        runbook: None,
        directory,
    }
}

/// The server's socket as a URL.
pub(crate) fn socket_url(cluster: &Cluster) -> String {
    let directory: String =
        url::form_urlencoded::byte_serialize(cluster.directory().display().to_string().as_bytes()).collect();
    cluster.url("postgres").replace("127.0.0.1", &directory)
}
