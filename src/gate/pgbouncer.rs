//! A pooler's admin console: `DISABLE` turns new clients away, `KILL` ends those that are there, with their
//! connections to the server. `PAUSE` is of no use here: it waits for transactions.
//!
//! The console speaks the simple query protocol alone and knows no `SET`, so its session is bare. It takes one command
//! at a time. A database that pgbouncer serves through its `*` entry is listed only while it is in use; asking to wait
//! for what closes anyway makes pgbouncer look it up, and changes nothing.

use rollbackd_core::baseline::quote_identifier;
use serde::{Deserialize, Serialize};
use tokio::time::{Duration, Instant, sleep};
use tokio_postgres::{SimpleQueryMessage, SimpleQueryRow};

use super::{Trouble, understood};
use crate::config::model::{Address, Database, Tls, TlsMode};
use crate::postgres::Failure;
use crate::postgres::session::Session;

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(50);

/// Which pooler, and which of its databases.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) url: &'a Address,
    pub(super) tls_mode: TlsMode,
    pub(super) name: &'a str,
    /// Has the certificate and the time limit of every connection to PostgreSQL.
    pub(super) database: &'a Database,
}

/// What a database of the pooler is set to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    disabled: bool,
    paused: bool,
}

/// What it is set to, as JSON.
pub(super) async fn read(place: Place<'_>) -> Result<String, Trouble> {
    let state = Console::open(place).await?.state().await?;
    serde_json::to_string(&state).map_err(|error| Trouble::Failed(error.to_string()))
}

/// Turns clients away until none is left.
pub(super) async fn close(place: Place<'_>, prior: &str, deadline: Instant) -> Result<String, Trouble> {
    let _: State = understood(prior)?;
    let console = Console::open(place).await?;
    // Also where it is closed already: what is there may have come before.
    console.command("DISABLE").await?;
    loop {
        console.command("KILL").await?;
        let (clients, servers) = (console.count("CLIENTS").await?, console.count("SERVERS").await?);
        let state = console.state().await?;
        if clients == 0 && servers == 0 && state.disabled {
            let name = quote_identifier(place.name);
            return Ok(format!("database {name} of pgbouncer is disabled, and no client or server connection is left"));
        }
        if Instant::now() >= deadline {
            return Err(Trouble::TimedOut(format!(
                "database {} of pgbouncer still has {clients} clients and {servers} connections to the server, and is {}",
                quote_identifier(place.name),
                words(state)
            )));
        }
        sleep(PAUSE).await;
    }
}

/// Puts back what was read.
pub(super) async fn open(place: Place<'_>, prior: &str) -> Result<String, Trouble> {
    let prior: State = understood(prior)?;
    let console = Console::open(place).await?;
    let now = console.state().await?;
    // To resume what is not paused is an error, and pgbouncer may have been started anew since.
    if now.paused && !prior.paused {
        console.command("RESUME").await?;
    }
    if now.disabled && !prior.disabled {
        console.command("ENABLE").await?;
    }
    let state = console.state().await?;
    let said = format!("database {} of pgbouncer is {}", quote_identifier(place.name), words(state));
    let shut = (state.paused && !prior.paused) || (state.disabled && !prior.disabled);
    if shut { Err(Trouble::Failed(format!("{said}, although it was told otherwise"))) } else { Ok(said) }
}

/// Whether traffic was stopped here before us.
pub(super) fn is_left_closed(prior: &str) -> bool {
    understood::<State>(prior).is_ok_and(|prior| prior.disabled || prior.paused)
}

/// What was read, in words.
pub(super) fn describe(name: &str, prior: &str) -> String {
    let state = understood::<State>(prior).map_or_else(|_| prior.to_owned(), words);
    format!("database {} of pgbouncer is {state}", quote_identifier(name))
}

/// The database is there and open, and we are an admin: enabling what is enabled changes nothing, and is refused to
/// those who may only look.
pub(super) async fn rehearse(place: Place<'_>) -> Result<String, Trouble> {
    let console = Console::open(place).await?;
    let state = console.state().await?;
    let name = quote_identifier(place.name);
    if state.disabled || state.paused {
        return Err(Trouble::Failed(format!(
            "database {name} of pgbouncer is {}: traffic is stopped now; RESUME and ENABLE it first",
            words(state)
        )));
    }
    console.command("ENABLE").await.map_err(|trouble| match trouble {
        Trouble::Failed(reason) => {
            Trouble::Failed(format!("{reason}; the user must be one of pgbouncer's admin_users"))
        }
        Trouble::TimedOut(reason) => Trouble::TimedOut(reason),
    })?;
    let clients = console.count("CLIENTS").await?;
    let clients = if clients == 1 { "1 client".to_owned() } else { format!("{clients} clients") };
    Ok(format!("database {name} of pgbouncer is open, with {clients} now, and can be disabled"))
}

fn words(state: State) -> String {
    match (state.disabled, state.paused) {
        (false, false) => "open",
        (true, false) => "disabled",
        (false, true) => "paused",
        (true, true) => "disabled and paused",
    }
    .to_owned()
}

struct Console<'a> {
    session: Session,
    name: &'a str,
}

impl<'a> Console<'a> {
    async fn open(place: Place<'a>) -> Result<Self, Trouble> {
        let tls = Tls { mode: place.tls_mode, root_cert: place.database.tls.root_cert.clone() };
        let session = Session::connect_bare(place.url, &tls, place.database.connect_timeout).await;
        let failed = |reason: &str| Trouble::Failed(format!("pgbouncer at {}: {reason}", place.url));
        let session = session.map_err(|error| failed(error.reason()))?;
        Ok(Self { session, name: place.name })
    }

    /// What the database is set to.
    async fn state(&self) -> Result<State, Trouble> {
        if let Some(state) = self.listed().await? {
            return Ok(state);
        }
        self.command("WAIT_CLOSE").await?;
        let name = quote_identifier(self.name);
        self.listed().await?.ok_or_else(|| Trouble::Failed(format!("pgbouncer does not list database {name}")))
    }

    async fn listed(&self) -> Result<Option<State>, Trouble> {
        let rows = self.ask("SHOW DATABASES").await?;
        let Some(row) = rows.iter().find(|row| row.try_get("name").ok().flatten() == Some(self.name)) else {
            return Ok(None);
        };
        let flag = |column: &str| match row.try_get(column) {
            Ok(Some("0" | "f")) => Ok(false),
            Ok(Some("1" | "t")) => Ok(true),
            Ok(_) | Err(_) => Err(Trouble::Failed(format!(
                "pgbouncer does not say whether the database is {column}: use 1.8 or later"
            ))),
        };
        Ok(Some(State { disabled: flag("disabled")?, paused: flag("paused")? }))
    }

    /// How many clients, or connections to the server, the database has.
    async fn count(&self, what: &str) -> Result<usize, Trouble> {
        let rows = self.ask(&format!("SHOW {what}")).await?;
        Ok(rows.iter().filter(|row| row.try_get("database").ok().flatten() == Some(self.name)).count())
    }

    async fn command(&self, verb: &str) -> Result<(), Trouble> {
        self.ask(&format!("{verb} {}", quote_identifier(self.name))).await.map(drop)
    }

    async fn ask(&self, command: &str) -> Result<Vec<SimpleQueryRow>, Trouble> {
        let messages = self.session.client().simple_query(command).await;
        let messages =
            messages.map_err(|error| Trouble::from(Failure::new(format!("`{command}` at pgbouncer"), &error)))?;
        let row = |message| if let SimpleQueryMessage::Row(row) = message { Some(row) } else { None };
        Ok(messages.into_iter().filter_map(row).collect())
    }
}
