//! One connection to a PostgreSQL server, with every limit set that the defaults leave open.
//!
//! A session owns the task that drives its connection: dropped, it is closed, and what it had not committed is
//! rolled back by the server. Errors are told apart into *the server is not there* and *somebody made a mistake*,
//! because the first says something about the application and the second only about the configuration.
//!
//! A connection through a pooler that does not keep sessions is refused before anything is set in it: what is set there
//! would be the application's next.

use std::fmt;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};
use tokio_postgres_rustls::MakeRustlsConnect;
use tokio_util::sync::CancellationToken;

use super::{Failure, means_down, milliseconds, pooler, tls, with_cause};
use crate::config::model::{Address, Database, Tls, TlsMode};

/// The name under which our sessions appear in `pg_stat_activity`.
pub const APPLICATION_NAME: &str = "rollbackd";

/// How long a cleaned session may take to answer before what it still runs is cancelled.
const CLEANING: Duration = Duration::from_millis(500);
/// A request to cancel may arrive after its answer; so long is waited for it.
const LATE: Duration = Duration::from_millis(50);

/// An open connection.
pub struct Session {
    client: Client,
    /// How to reach the server once more, to cancel.
    rustls: Option<MakeRustlsConnect>,
    /// Cancelled when the connection has ended, whoever ended it.
    ended: CancellationToken,
    /// Drives the connection; aborted when dropped.
    _connection: JoinSet<()>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("ended", &self.ended.is_cancelled()).finish_non_exhaustive()
    }
}

/// What a session is set up for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// The daemon's own work: besides the limits, no name is resolved by accident (`search_path` holds the system's
    /// schema alone), row security gives an error instead of fewer rows, texts do not depend on what the database sets,
    /// questions to the catalog are not compiled first (`jit`), which takes seconds, and what is committed is on the
    /// server's disk, where the database would leave that for later (`synchronous_commit`).
    Own,
    /// A user's own query: time limits only, so that the query means what it means in the role's psql.
    Users,
}

/// Why there is no connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// Refused, lost, timed out, starting up, shutting down: it may pass.
    #[error("the database cannot be reached: {reason}")]
    Down {
        /// In words.
        reason: String,
    },
    /// The server has no connection left for this role: it may pass, and sessions that are open go on.
    #[error("the database cannot be reached: {reason}")]
    Full {
        /// In words.
        reason: String,
    },
    /// Wrong password, no such database, TLS that cannot be set up, a name that does not resolve.
    #[error("the database connection is not set up rightly: {reason}")]
    Mistake {
        /// In words.
        reason: String,
    },
}

impl ConnectError {
    /// The reason alone.
    pub fn reason(&self) -> &str {
        match self {
            Self::Down { reason } | Self::Full { reason } | Self::Mistake { reason } => reason,
        }
    }
}

impl Session {
    /// Connects for the daemon's own work: see [`Manner::Own`].
    pub async fn connect(database: &Database) -> Result<Self, ConnectError> {
        Self::connect_as(database, Manner::Own).await
    }

    /// Connects with the database's address and limits.
    pub(crate) async fn connect_as(database: &Database, manner: Manner) -> Result<Self, ConnectError> {
        let session = Self::bare(&database.url, &database.tls, database.connect_timeout, database.statement_timeout);
        let session = session.await?;
        session.bounded(database.connect_timeout, session.refuse_transaction_pooler(database)).await?;
        session.bounded(database.connect_timeout, session.run(&settings(database, manner))).await?;
        Ok(session)
    }

    /// Connects for a user's own query: see [`Manner::Users`]. Through a pooler nothing is set, because the next to get
    /// the settings may be the application; whoever asks bounds the time as well.
    pub async fn connect_to(
        url: &Address,
        tls: &Tls,
        connect_timeout: Duration,
        statement_timeout: Duration,
    ) -> Result<Self, ConnectError> {
        let session = Self::bare(url, tls, connect_timeout, statement_timeout).await?;
        let set_up = async {
            if pooler::is_between(&session.client).await.map_err(|failure| refused(&failure))? {
                return Ok(());
            }
            session.run(&limits(statement_timeout)).await
        };
        session.bounded(connect_timeout, set_up).await?;
        Ok(session)
    }

    /// A connection in which nothing is set.
    async fn bare(
        url: &Address,
        tls: &Tls,
        connect_timeout: Duration,
        statement_timeout: Duration,
    ) -> Result<Self, ConnectError> {
        let config = client_config(url, tls, connect_timeout, statement_timeout)
            .map_err(|reason| ConnectError::Mistake { reason })?;
        match tokio::time::timeout(connect_timeout, Box::pin(open(&config, tls))).await {
            Ok(session) => session,
            Err(_elapsed) => {
                let reason = format!("no answer within {} ms", connect_timeout.as_millis());
                Err(ConnectError::Down { reason })
            }
        }
    }

    /// Through a pooler that gives no second connection nobody can look; that is said by the preflight, and is no reason
    /// to do without the first in a rollback.
    async fn refuse_transaction_pooler(&self, database: &Database) -> Result<(), ConnectError> {
        match self.passage(database).await.map_err(|failure| refused(&failure))? {
            Passage::Direct | Passage::Session | Passage::Unclear { .. } => Ok(()),
            Passage::Shared => Err(ConnectError::Mistake { reason: pooler::REFUSED.to_owned() }),
        }
    }

    /// What is between us and the server.
    pub(crate) async fn passage(&self, database: &Database) -> Result<Passage, Failure> {
        if !pooler::is_between(&self.client).await? {
            return Ok(Passage::Direct);
        }
        let second = Self::bare(&database.url, &database.tls, database.connect_timeout, database.statement_timeout);
        let second = match second.await {
            Ok(second) => second,
            Err(error) => return Ok(Passage::Unclear { reason: error.reason().to_owned() }),
        };
        let looked = tokio::time::timeout(database.connect_timeout, pooler::shares(&self.client, &second.client)).await;
        Ok(match looked {
            Ok(Ok(true)) => Passage::Shared,
            Ok(Ok(false)) => Passage::Session,
            Ok(Err(failure)) => Passage::Unclear { reason: failure.to_string() },
            Err(_elapsed) => Passage::Unclear { reason: "a second connection is not served".to_owned() },
        })
    }

    /// Makes the session as if it had just been opened, whatever its last user left: what it still runs is cancelled, an
    /// open transaction is rolled back, settings, locks and temporary tables are gone. An error means that the session
    /// cannot be used any more.
    pub(crate) async fn renew(&self, database: &Database, manner: Manner) -> Result<(), ConnectError> {
        let work = async {
            let mut cancelled = false;
            loop {
                match tokio::time::timeout(CLEANING, self.clean(database, manner)).await {
                    // Our own request to cancel may have hit the cleaning.
                    Ok(Err(failure)) if cancelled && failure.is_statement_timeout() => {}
                    Ok(Err(failure)) => return Err(refused(&failure)),
                    Ok(Ok(())) if cancelled => {
                        cancelled = false;
                        tokio::time::sleep(LATE).await;
                    }
                    Ok(Ok(())) => return Ok(()),
                    Err(_elapsed) => {
                        cancelled = true;
                        self.cancel().await;
                    }
                }
            }
        };
        self.bounded(database.connect_timeout, work).await
    }

    async fn clean(&self, database: &Database, manner: Manner) -> Result<(), Failure> {
        self.client.clear_type_cache();
        // A statement that begins its transaction has the time of the transaction's beginning.
        let doing = "cleaning a kept session";
        let fresh = self.client.simple_query("select pg_catalog.now() = pg_catalog.statement_timestamp()").await;
        let open = match fresh {
            Ok(messages) => first(&messages) != Some("t"),
            Err(error) if error.code() == Some(&SqlState::IN_FAILED_SQL_TRANSACTION) => true,
            Err(error) => return Err(Failure::new(doing, &error)),
        };
        if open {
            self.client.batch_execute("rollback").await.map_err(super::during(doing))?;
        }
        // Not `discard all`: it would also forget the statements that the client has prepared for itself.
        let sql = format!(
            "set session authorization default; reset role; reset all; close all; unlisten *; \
             select pg_catalog.pg_advisory_unlock_all(); discard temp; discard sequences; {}",
            settings(database, manner)
        );
        self.client.batch_execute(&sql).await.map_err(super::during(doing))
    }

    /// Whether the server still answers.
    pub(crate) async fn prove(&self, within: Duration) -> Result<(), ConnectError> {
        self.bounded(within, self.run("select 1")).await
    }

    /// Asks the server to cancel what the session runs. That takes no connection of its own from a server that is full.
    async fn cancel(&self) {
        let token = self.client.cancel_token();
        let asked = async {
            match &self.rustls {
                Some(rustls) => token.cancel_query(rustls.clone()).await,
                None => token.cancel_query(NoTls).await,
            }
        };
        match tokio::time::timeout(CLEANING, asked).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(event = "postgres.not_cancelled", error = %with_cause(&error)),
            Err(elapsed) => tracing::debug!(event = "postgres.not_cancelled", error = %elapsed),
        }
    }

    /// Cancelled when the connection has ended.
    pub(crate) fn ended(&self) -> CancellationToken {
        self.ended.clone()
    }

    /// Connects and sets nothing: for a pooler's admin console, which is no SQL server and knows no `SET`. Whoever uses
    /// it bounds every statement.
    pub async fn connect_bare(url: &Address, tls: &Tls, connect_timeout: Duration) -> Result<Self, ConnectError> {
        Self::bare(url, tls, connect_timeout, connect_timeout).await
    }

    /// The client, for single statements.
    pub const fn client(&self) -> &Client {
        &self.client
    }

    /// The client, for transactions.
    pub const fn client_mut(&mut self) -> &mut Client {
        &mut self.client
    }

    async fn run(&self, settings: &str) -> Result<(), ConnectError> {
        let ran = self.client.batch_execute(settings).await;
        ran.map_err(|error| refused(&Failure::new("setting the session's limits", &error)))
    }

    async fn bounded(
        &self,
        within: Duration,
        work: impl Future<Output = Result<(), ConnectError>>,
    ) -> Result<(), ConnectError> {
        tokio::time::timeout(within, work).await.unwrap_or_else(|_elapsed| {
            Err(ConnectError::Down { reason: "connected, but no answer to the first statement".into() })
        })
    }
}

/// What is between us and the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Passage {
    /// Nothing that shows.
    Direct,
    /// A pooler that keeps one session for us.
    Session,
    /// A pooler that gives our session to others between two statements.
    Shared,
    /// A pooler, and nobody knows of which kind.
    Unclear {
        /// Why not.
        reason: String,
    },
}

fn refused(failure: &Failure) -> ConnectError {
    let reason = failure.to_string();
    if failure.is_lost() { ConnectError::Down { reason } } else { ConnectError::Mistake { reason } }
}

/// The first value of the first row.
pub(super) fn first(messages: &[SimpleQueryMessage]) -> Option<&str> {
    messages.iter().find_map(|message| if let SimpleQueryMessage::Row(row) = message { row.get(0) } else { None })
}

/// The settings of a session of this manner.
fn settings(database: &Database, manner: Manner) -> String {
    let limits = limits(database.statement_timeout);
    match manner {
        Manner::Users => limits,
        Manner::Own => format!(
            "{limits}; set lock_timeout = {}; set row_security = off; set search_path = pg_catalog, pg_temp; \
             set jit = off; set datestyle = 'ISO, YMD'; set intervalstyle = 'postgres'; \
             select set_config(name, '0', false) from pg_settings \
             where name in ('idle_in_transaction_session_timeout', 'idle_session_timeout', 'transaction_timeout'); \
             select set_config('synchronous_commit', 'local', false) where current_setting('synchronous_commit') = 'off'",
            milliseconds(database.lock_timeout)
        ),
    }
}

fn limits(statement_timeout: Duration) -> String {
    format!("set statement_timeout = {}; set timezone = 'UTC'", milliseconds(statement_timeout))
}

/// The URL as the client library's configuration, without what only libpq knows.
pub(crate) fn client_config(
    url: &Address,
    tls: &Tls,
    connect_timeout: Duration,
    statement_timeout: Duration,
) -> Result<tokio_postgres::Config, String> {
    let mut url = url.expose().clone();
    let kept: Vec<(String, String)> = url
        .query_pairs()
        .filter(|(key, _)| !key.starts_with("ssl"))
        .map(|(key, value)| (key.into_owned(), value.into_owned()))
        .collect();
    url.set_query(None);
    if !kept.is_empty() {
        url.query_pairs_mut().extend_pairs(kept);
    }
    let mut config: tokio_postgres::Config =
        url.as_str().parse().map_err(|error| format!("database.url: {}", with_cause(&error)))?;
    if config.get_hosts().is_empty() {
        return Err("database.url names no host".to_owned());
    }
    let sockets_only = config.get_hosts().iter().all(|host| matches!(host, Host::Unix(_)));
    let mode = match tls.mode {
        _ if sockets_only => SslMode::Disable,
        TlsMode::Disable => SslMode::Disable,
        TlsMode::Prefer => SslMode::Prefer,
        TlsMode::Require | TlsMode::VerifyCa | TlsMode::VerifyFull => SslMode::Require,
    };
    config
        .ssl_mode(mode)
        .application_name(APPLICATION_NAME)
        .connect_timeout(connect_timeout)
        .keepalives(true)
        .keepalives_idle(Duration::from_secs(10))
        .keepalives_interval(Duration::from_secs(5))
        .keepalives_retries(3)
        // Sent and not acknowledged for so long means that the server is gone.
        .tcp_user_timeout(statement_timeout.max(connect_timeout));
    Ok(config)
}

async fn open(config: &tokio_postgres::Config, tls: &Tls) -> Result<Session, ConnectError> {
    if config.get_ssl_mode() == SslMode::Disable {
        return open_plain(config).await.map_err(|error| told_apart(&error));
    }
    let rustls = tls::client_config(tls).map_err(|reason| ConnectError::Mistake { reason })?;
    let rustls = MakeRustlsConnect::new(rustls);
    match config.connect(rustls.clone()).await {
        Ok((client, connection)) => Ok(driven(client, connection, Some(rustls))),
        // libpq's `prefer`: a server whose TLS does not work is talked to in plaintext.
        Err(error) if config.get_ssl_mode() == SslMode::Prefer && is_tls(&error) => {
            let mut plain = config.clone();
            plain.ssl_mode(SslMode::Disable);
            open_plain(&plain).await.map_err(|error| told_apart(&error))
        }
        Err(error) => Err(told_apart(&error)),
    }
}

async fn open_plain(config: &tokio_postgres::Config) -> Result<Session, tokio_postgres::Error> {
    let (client, connection) = config.connect(NoTls).await?;
    Ok(driven(client, connection, None))
}

fn driven<S, T>(
    client: Client,
    connection: tokio_postgres::Connection<S, T>,
    rustls: Option<MakeRustlsConnect>,
) -> Session
where
    tokio_postgres::Connection<S, T>: Future<Output = Result<(), tokio_postgres::Error>> + Send + 'static,
{
    let mut task = JoinSet::new();
    let ended = CancellationToken::new();
    let end = ended.clone().drop_guard();
    task.spawn(async move {
        let _end = end;
        // Its end is seen by the statement that waits: it fails with "connection closed".
        if let Err(error) = connection.await {
            tracing::debug!(event = "postgres.connection_ended", error = %with_cause(&error));
        }
    });
    Session { client, rustls, ended, _connection: task }
}

fn is_tls(error: &tokio_postgres::Error) -> bool {
    error.to_string().starts_with("error performing TLS handshake")
}

/// Whether the server is down, or somebody made a mistake. What is neither clearly is taken as a mistake: it is then
/// unreadable, and nothing is rolled back because of it.
fn told_apart(error: &tokio_postgres::Error) -> ConnectError {
    if let Some(db) = error.as_db_error() {
        let code = db.code();
        if *code == SqlState::TOO_MANY_CONNECTIONS {
            return ConnectError::Full { reason: format!("{} (SQLSTATE {})", db.message(), code.code()) };
        }
        if means_down(code) {
            return ConnectError::Down { reason: format!("{} (SQLSTATE {})", db.message(), code.code()) };
        }
        // The server's own words name the user, which is part of the secret.
        let reason = if *code == SqlState::INVALID_PASSWORD {
            "the server does not accept this user's password (SQLSTATE 28P01)".to_owned()
        } else if code.code().starts_with("28") {
            format!(
                "the server does not let this user in from here (SQLSTATE {}); look at user, sslmode and pg_hba.conf",
                code.code()
            )
        } else {
            format!("{} (SQLSTATE {})", db.message(), code.code())
        };
        return ConnectError::Mistake { reason };
    }
    let reason = with_cause(error);
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<std::io::Error>());
    let unresolved = reason.contains("failed to lookup address information");
    let transport = cause.is_some_and(|cause| {
        !matches!(cause.kind(), std::io::ErrorKind::InvalidData | std::io::ErrorKind::InvalidInput)
    });
    let timed_out = error.is_closed() || error.to_string().starts_with("timeout");
    if !unresolved && (transport || timed_out) {
        ConnectError::Down { reason }
    } else {
        ConnectError::Mistake { reason }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::testing::{self, Fixture};

    fn address(text: &str) -> Address {
        Address::new(text.parse().expect("a url"))
    }

    fn plaintext() -> Tls {
        Tls { mode: TlsMode::Disable, root_cert: None }
    }

    #[tokio::test]
    async fn a_session_has_its_limits() {
        let fixture = Fixture::new().await;
        let session = Session::connect(&fixture.database()).await.expect("connects");
        for (name, value) in [
            ("statement_timeout", "20s"),
            ("lock_timeout", "100ms"),
            ("row_security", "off"),
            ("search_path", "pg_catalog, pg_temp"),
            ("application_name", "rollbackd"),
            ("TimeZone", "UTC"),
            ("idle_in_transaction_session_timeout", "0"),
            // The tests' server says `off`: what is committed there may be gone after a crash.
            ("synchronous_commit", "local"),
        ] {
            let row = session.client().query_one("select current_setting($1)", &[&name]).await.expect("a setting");
            assert_eq!(row.get::<_, String>(0), value, "{name}");
        }
    }

    #[tokio::test]
    async fn mistakes_are_not_taken_for_outages() {
        let fixture = Fixture::new().await;
        let second = Duration::from_secs(5);
        for url in [
            fixture.cluster.url_as("postgres", "sesame-wrong", "postgres"),
            fixture.cluster.url_as("nobody_of_that_name", "sesame-wrong", "postgres"),
            fixture.cluster.url("no such database"),
            "postgres://somebody:sesame-wrong@no-such-host.invalid/postgres".to_owned(),
        ] {
            let error = Session::connect_to(&address(&url), &plaintext(), second, second).await.expect_err("refused");
            assert!(matches!(error, ConnectError::Mistake { .. }), "{error}");
            assert!(!error.to_string().contains("sesame"), "{error}");
            assert!(!error.to_string().contains("nobody_of"), "{error}");
        }
        let required = Tls { mode: TlsMode::Require, root_cert: None };
        let url = address(&fixture.cluster.url("postgres"));
        let error = Session::connect_to(&url, &required, second, second).await.expect_err("no TLS there");
        assert!(matches!(error, ConnectError::Mistake { .. }), "{error}");
        let preferred = Tls { mode: TlsMode::Prefer, root_cert: None };
        Session::connect_to(&url, &preferred, second, second).await.expect("falls back to plaintext");
    }

    #[tokio::test]
    async fn a_closed_port_and_a_silent_server_are_outages() {
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = silent.local_addr().expect("an address").port();
        let url = address(&format!("postgres://a:b@127.0.0.1:{port}/c"));
        let short = Duration::from_millis(200);
        let error = Session::connect_to(&url, &plaintext(), short, short).await.expect_err("silence");
        assert!(matches!(error, ConnectError::Down { .. }), "{error}");
        drop(silent);
        let error = Session::connect_to(&url, &plaintext(), short, short).await.expect_err("closed");
        assert!(matches!(error, ConnectError::Down { .. }), "{error}");
    }

    #[tokio::test]
    async fn a_socket_directory_can_be_named() {
        let fixture = Fixture::new().await;
        let url = testing::socket_url(&fixture.cluster);
        Session::connect_to(&address(&url), &plaintext(), Duration::from_secs(5), Duration::from_secs(5))
            .await
            .expect("connects through the socket");
    }
}
