//! The checks that the database's part answers. This is the only place of the preflight that knows it.

use tokio::sync::OnceCell;

use super::Answer;
use crate::backup;
use crate::config::model::Config;
use crate::postgres::session::{Passage, Session};
use crate::postgres::{Failure, catalog, pooler, programs, rights};

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
        let said = |failure: Failure| failure.to_string();
        let major = catalog::server_major(session.client()).await.map_err(said)?;
        if major < OLDEST {
            return Err(format!("PostgreSQL {major} is too old: upgrade to {OLDEST} or later"));
        }
        let through = match session.passage(&self.config.database).await.map_err(said)? {
            Passage::Direct => "",
            Passage::Session => " through a pooler in session mode",
            Passage::Shared => return Err(pooler::REFUSED.to_owned()),
            Passage::Unclear { reason } => {
                return Err(format!(
                    "the connection goes through a pooler, and whether it keeps sessions cannot be found out: {reason}; \
                     connect to the server itself"
                ));
            }
        };
        let room = rights::room(session.client(), self.config).await.map_err(said)?;
        let note = room.map(|note| format!("; {note}")).unwrap_or_default();
        Ok(format!("PostgreSQL {major} answers at {}{through}{note}", self.config.database.url))
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
