//! Temporary stand-in for the session, without TLS; dropped at integration.

use std::time::Duration;

use crate::config::model::{Address, Database, Tls};

/// One connection.
#[derive(Debug)]
pub struct Session {
    client: tokio_postgres::Client,
    task: tokio::task::JoinHandle<()>,
}

/// Why there is no connection.
#[derive(Debug)]
pub enum ConnectError {
    /// The server is not there.
    Down {
        /// Why.
        reason: String,
    },
    /// The configuration is wrong.
    Mistake {
        /// Why.
        reason: String,
    },
}

impl Session {
    /// Connects to the configured database.
    pub async fn connect(database: &Database) -> Result<Self, ConnectError> {
        Self::connect_to(&database.url, &database.tls, database.connect_timeout, database.statement_timeout).await
    }

    /// Connects somewhere else.
    pub async fn connect_to(
        url: &Address,
        _tls: &Tls,
        connect_timeout: Duration,
        statement_timeout: Duration,
    ) -> Result<Self, ConnectError> {
        let connecting = tokio_postgres::connect(url.expose().as_str(), tokio_postgres::NoTls);
        let (client, connection) = match tokio::time::timeout(connect_timeout, connecting).await {
            Err(_) => return Err(ConnectError::Down { reason: format!("no answer within {connect_timeout:?}") }),
            Ok(Err(error)) if error.code().is_some() => return Err(ConnectError::Mistake { reason: error.to_string() }),
            Ok(Err(error)) => return Err(ConnectError::Down { reason: error.to_string() }),
            Ok(Ok(connected)) => connected,
        };
        #[expect(clippy::disallowed_methods, reason = "a stand-in")]
        let task = tokio::spawn(async move { drop(connection.await) });
        let set = format!("set statement_timeout = {}", statement_timeout.as_millis());
        client.batch_execute(&set).await.map_err(|error| ConnectError::Down { reason: error.to_string() })?;
        Ok(Self { client, task })
    }

    /// The client.
    pub const fn client(&self) -> &tokio_postgres::Client {
        &self.client
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.task.abort();
    }
}
