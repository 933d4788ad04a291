//! The checks that the database's part answers. This is the only place of the preflight that knows it.

use tokio::sync::OnceCell;

use super::Answer;
use crate::backup;
use crate::config::model::Config;
use crate::postgres::session::Session;
use crate::postgres::{catalog, programs, rights};

/// The oldest server that the catalog queries are written for.
const OLDEST: u32 = 13;

/// One session for all checks, opened by the first that needs it.
pub(super) struct Connection<'a> {
    config: &'a Config,
    session: OnceCell<Result<Session, String>>,
}

impl<'a> Connection<'a> {
    /// Nothing is opened yet.
    pub(super) fn new(config: &'a Config) -> Self {
        Self { config, session: OnceCell::new() }
    }

    async fn session(&self) -> Result<&Session, &String> {
        let open = async || Session::connect(&self.config.database).await.map_err(|error| error.to_string());
        self.session.get_or_init(open).await.as_ref()
    }

    async fn session_for(&self, check: &str) -> Result<&Session, String> {
        self.session().await.map_err(|_said_there| format!("{check} cannot be checked without the database: see there"))
    }

    /// `database`: it answers, and is new enough.
    pub(super) async fn answers(&self) -> Answer {
        let session = self.session().await.map_err(|reason| {
            format!("{reason}; start the server at {}, or correct database.url", self.config.database.url)
        })?;
        match catalog::server_major(session.client()).await.map_err(|failure| failure.to_string())? {
            major if major < OLDEST => Err(format!("PostgreSQL {major} is too old: upgrade to {OLDEST} or later")),
            major => Ok(format!("PostgreSQL {major} answers at {}", self.config.database.url)),
        }
    }

    /// `rights`: the role may do what the ladder would ask of it.
    pub(super) async fn rights(&self) -> Answer {
        let session = self.session_for("the role's rights").await?;
        rights::check(session.client(), self.config).await
    }

    /// `tools`: `pg_dump` and `pg_restore` are there and not older than the server.
    pub(super) async fn tools(&self) -> Answer {
        let session = self.session_for("the version of pg_dump").await?;
        let major = catalog::server_major(session.client()).await.map_err(|failure| failure.to_string())?;
        programs::find(major).await.map(|programs| programs.version)
    }
}

/// Part of `disk`: the backup fits.
pub(super) async fn room(config: &Config) -> Answer {
    backup::room(config).await
}
