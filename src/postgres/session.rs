//! One connection to a PostgreSQL server, with every limit set that the defaults leave open.
//!
//! A session owns the task that drives its connection: dropped, it is closed, and what it had not committed is
//! rolled back by the server. Errors are told apart into *the server is not there* and *somebody made a mistake*,
//! because the first says something about the application and the second only about the configuration.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{Failure, means_down, milliseconds, tls, with_cause};
use crate::config::model::{Address, Database, Tls, TlsMode};

/// The name under which our sessions appear in `pg_stat_activity`.
pub const APPLICATION_NAME: &str = "rollbackd";

/// An open connection.
#[derive(Debug)]
pub struct Session {
    client: Client,
    /// Drives the connection; aborted when dropped.
    _connection: JoinSet<()>,
}

/// Why there is no connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// Refused, lost, timed out, starting up, shutting down, too many connections: it may pass.
    #[error("the database cannot be reached: {reason}")]
    Down {
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
            Self::Down { reason } | Self::Mistake { reason } => reason,
        }
    }
}

impl Session {
    /// Connects for the daemon's own work: besides the limits, no name is resolved by accident (`search_path` holds
    /// the system's schema alone), row security gives an error instead of fewer rows, and questions to the catalog are not
    /// compiled first (`jit`), which takes seconds.
    pub async fn connect(database: &Database) -> Result<Self, ConnectError> {
        let session =
            Self::connect_to(&database.url, &database.tls, database.connect_timeout, database.statement_timeout)
                .await?;
        let settings = format!(
            "set lock_timeout = {}; set row_security = off; set search_path = pg_catalog, pg_temp; set jit = off; \
             select set_config(name, '0', false) from pg_settings \
             where name in ('idle_in_transaction_session_timeout', 'idle_session_timeout', 'transaction_timeout')",
            milliseconds(database.lock_timeout)
        );
        session.set_up(&settings, database.connect_timeout).await?;
        Ok(session)
    }

    /// Connects for a user's own query: time limits only, so that the query means what it means in the role's psql.
    pub async fn connect_to(
        url: &Address,
        tls: &Tls,
        connect_timeout: Duration,
        statement_timeout: Duration,
    ) -> Result<Self, ConnectError> {
        let config = client_config(url, tls, connect_timeout, statement_timeout)
            .map_err(|reason| ConnectError::Mistake { reason })?;
        let session = connect_within(&config, tls, connect_timeout).await?;
        let settings = format!("set statement_timeout = {}; set timezone = 'UTC'", milliseconds(statement_timeout));
        session.set_up(&settings, connect_timeout).await?;
        Ok(session)
    }

    /// Connects and sets nothing: for a pooler's admin console, which is no SQL server and knows no `SET`. Whoever uses
    /// it bounds every statement.
    pub async fn connect_bare(url: &Address, tls: &Tls, connect_timeout: Duration) -> Result<Self, ConnectError> {
        let config = client_config(url, tls, connect_timeout, connect_timeout)
            .map_err(|reason| ConnectError::Mistake { reason })?;
        connect_within(&config, tls, connect_timeout).await
    }

    /// The client, for single statements.
    pub const fn client(&self) -> &Client {
        &self.client
    }

    /// The client, for transactions.
    pub const fn client_mut(&mut self) -> &mut Client {
        &mut self.client
    }

    async fn set_up(&self, settings: &str, within: Duration) -> Result<(), ConnectError> {
        match tokio::time::timeout(within, self.client.batch_execute(settings)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                let failure = Failure::new("setting the session's limits", &error);
                let reason = failure.to_string();
                Err(if failure.is_lost() { ConnectError::Down { reason } } else { ConnectError::Mistake { reason } })
            }
            Err(_elapsed) => {
                Err(ConnectError::Down { reason: "connected, but no answer to the first statement".into() })
            }
        }
    }
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

async fn connect_within(config: &tokio_postgres::Config, tls: &Tls, within: Duration) -> Result<Session, ConnectError> {
    match tokio::time::timeout(within, open(config, tls)).await {
        Ok(session) => session,
        Err(_elapsed) => Err(ConnectError::Down { reason: format!("no answer within {} ms", within.as_millis()) }),
    }
}

async fn open(config: &tokio_postgres::Config, tls: &Tls) -> Result<Session, ConnectError> {
    if config.get_ssl_mode() == SslMode::Disable {
        return open_plain(config).await.map_err(|error| told_apart(&error));
    }
    let rustls = tls::client_config(tls).map_err(|reason| ConnectError::Mistake { reason })?;
    match config.connect(MakeRustlsConnect::new(rustls)).await {
        Ok((client, connection)) => Ok(driven(client, connection)),
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
    Ok(driven(client, connection))
}

fn driven<S, T>(client: Client, connection: tokio_postgres::Connection<S, T>) -> Session
where
    tokio_postgres::Connection<S, T>: Future<Output = Result<(), tokio_postgres::Error>> + Send + 'static,
{
    let mut task = JoinSet::new();
    task.spawn(async move {
        // Its end is seen by the statement that waits: it fails with "connection closed".
        if let Err(error) = connection.await {
            tracing::debug!(event = "postgres.connection_ended", error = %with_cause(&error));
        }
    });
    Session { client, _connection: task }
}

fn is_tls(error: &tokio_postgres::Error) -> bool {
    error.to_string().starts_with("error performing TLS handshake")
}

/// Whether the server is down, or somebody made a mistake. What is neither clearly is taken as a mistake: it is then
/// unreadable, and nothing is rolled back because of it.
fn told_apart(error: &tokio_postgres::Error) -> ConnectError {
    if let Some(db) = error.as_db_error() {
        let code = db.code();
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
