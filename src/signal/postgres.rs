//! A query's one value as a reading: true, or a number.
//!
//! Each signal keeps a connection of its own and makes a new one when it was lost. The query is sent anew each
//! time, without a prepared statement: a migration may change the types that a statement was prepared for.

use std::pin::pin;
use std::time::Duration;

use futures_util::TryStreamExt;
use tokio::sync::Mutex;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{FromSql, Type};
use tokio_postgres::{Client, Error, Row};

use super::net::{self, Deadline, Fault};
use crate::config::model::{Address, Database, Tls, TlsMode};
use crate::postgres::session::{ConnectError, Session};

/// A signal's connection, while it has one.
#[derive(Default)]
pub(super) struct Connection {
    session: Mutex<Option<Session>>,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").finish_non_exhaustive()
    }
}

impl Connection {
    /// Reads once.
    pub(super) async fn read(
        &self,
        database: &Database,
        url: Option<&(Address, TlsMode)>,
        query: &str,
        timeout: Duration,
    ) -> Result<Option<f64>, Fault> {
        // Whoever holds it is bounded by the same time.
        let mut kept = self.session.lock().await;
        let deadline = Deadline::after(timeout);
        // Taken out while it is used: a reading that is given up leaves no session with a query under way.
        let session = match kept.take().filter(|session| !session.client().is_closed()) {
            Some(session) => session,
            None => deadline.bound(connect(database, url, timeout, &deadline)).await??,
        };
        let result = deadline.bound(ask(session.client(), query, timeout)).await?;
        if !session.client().is_closed() {
            *kept = Some(session);
        }
        result
    }
}

/// Connects with the signal's own time as the limit for connecting and for the query, locks included: to the
/// application a table that stays locked is as good as one that is gone. Otherwise the session is as the role's psql
/// has it, so that the query means what it means there.
async fn connect(
    database: &Database,
    url: Option<&(Address, TlsMode)>,
    timeout: Duration,
    deadline: &Deadline,
) -> Result<Session, Fault> {
    let address = url.map_or(&database.url, |(address, _)| address);
    let target = address.expose();
    // A socket's directory stands where a host would.
    if let Some(host) = target.host_str().filter(|host| !host.is_empty() && !host.starts_with(['%', '/'])) {
        net::resolve(host, target.port().unwrap_or(5432), deadline).await?;
    }
    let connect_timeout = database.connect_timeout.min(timeout);
    let tls = match url {
        None => database.tls.clone(),
        Some((_, mode)) => Tls { mode: *mode, root_cert: database.tls.root_cert.clone() },
    };
    let connected = Session::connect_to(address, &tls, connect_timeout, timeout).await;
    connected.map_err(|error| match error {
        ConnectError::Down { reason } | ConnectError::Full { reason } => Fault::Unanswered(reason),
        ConnectError::Mistake { reason } => Fault::Unreadable(reason),
    })
}

async fn ask(client: &Client, query: &str, timeout: Duration) -> Result<Option<f64>, Fault> {
    let fault = |error: Error| fault(client, &error, timeout);
    let none: [(bool, Type); 0] = [];
    let mut rows = pin!(client.query_typed_raw(query, none).await.map_err(fault)?);
    let first: Row = match rows.try_next().await.map_err(fault)? {
        Some(row) => row,
        None => return Err(Fault::Unreadable("the query returned no row".to_owned())),
    };
    if rows.try_next().await.map_err(fault)?.is_some() {
        return Err(Fault::Unreadable("the query returned more than one row".to_owned()));
    }
    value_of(&first)
}

fn value_of(row: &Row) -> Result<Option<f64>, Fault> {
    let [column] = row.columns() else {
        return Err(Fault::Unreadable(format!("the query returned {} columns instead of one", row.columns().len())));
    };
    let unexpected = |_| {
        let name = column.type_().name();
        Fault::Unreadable(format!("the query returned a value of type {name} instead of a boolean or a number"))
    };
    let null = || Fault::Unreadable("the query returned NULL".to_owned());
    if *column.type_() == Type::BOOL {
        return match row.try_get::<_, Option<bool>>(0).map_err(unexpected)? {
            Some(true) => Ok(None),
            Some(false) => Err(Fault::Wrong("the query returned false".to_owned())),
            None => Err(null()),
        };
    }
    let Number(number) = row.try_get::<_, Option<Number>>(0).map_err(unexpected)?.ok_or_else(null)?;
    if number.is_finite() { Ok(Some(number)) } else { Err(Fault::Unreadable(format!("the query returned {number}"))) }
}

/// What a failed query means. Never the server's message: it may hold row contents; the code says enough.
fn fault(client: &Client, error: &Error, timeout: Duration) -> Fault {
    let Some(refusal) = error.as_db_error() else {
        return if client.is_closed() || error.is_closed() {
            Fault::Unanswered("the connection was lost".to_owned())
        } else {
            Fault::Unreadable("the answer cannot be read".to_owned())
        };
    };
    let code = refusal.code();
    if *code == SqlState::QUERY_CANCELED {
        return Fault::Wrong(format!("the query was cancelled after {timeout:?} at most"));
    }
    if *code == SqlState::LOCK_NOT_AVAILABLE {
        return Fault::Wrong(format!("the query waited for a lock for {timeout:?}"));
    }
    let lost = [SqlState::ADMIN_SHUTDOWN, SqlState::CRASH_SHUTDOWN, SqlState::CANNOT_CONNECT_NOW];
    if lost.contains(code) || code.code().starts_with("08") {
        return Fault::Unanswered(format!("the connection was lost (SQLSTATE {})", code.code()));
    }
    Fault::Unreadable(format!("query error (SQLSTATE {}): correct the signal's query or its rights", code.code()))
}

/// Any of the server's numbers.
struct Number(f64);

impl<'a> FromSql<'a> for Number {
    fn from_sql(kind: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        let number = match *kind {
            Type::INT2 => f64::from(i16::from_sql(kind, raw)?),
            Type::INT4 => f64::from(i32::from_sql(kind, raw)?),
            #[expect(clippy::cast_precision_loss, reason = "a reading needs no more than 15 digits")]
            Type::INT8 => i64::from_sql(kind, raw)? as f64,
            Type::FLOAT4 => f64::from(f32::from_sql(kind, raw)?),
            Type::FLOAT8 => f64::from_sql(kind, raw)?,
            _ => numeric(raw).ok_or("not a number")?,
        };
        Ok(Self(number))
    }

    fn accepts(kind: &Type) -> bool {
        [Type::INT2, Type::INT4, Type::INT8, Type::FLOAT4, Type::FLOAT8, Type::NUMERIC].contains(kind)
    }
}

/// `numeric` on the wire: four 16-bit words (count of digits, weight of the first, sign, scale), then digits to
/// the base of 10,000.
fn numeric(raw: &[u8]) -> Option<f64> {
    let mut words = raw.chunks_exact(2).filter_map(|pair| pair.try_into().ok().map(u16::from_be_bytes));
    let (count, weight, sign, _scale) = (words.next()?, words.next()?, words.next()?, words.next()?);
    // More digits than these make no difference to a reading.
    let count = count.min(8);
    let exponent = 4 * (i32::from(weight.cast_signed()) + 1 - i32::from(count));
    let digits = words.take(usize::from(count)).fold("0".to_owned(), |digits, word| format!("{digits}{word:04}"));
    let size: f64 = format!("{digits}e{exponent}").parse().ok()?;
    match sign {
        0x0000 => Some(size),
        0x4000 => Some(-size),
        0xD000 => Some(f64::INFINITY),
        0xF000 => Some(f64::NEG_INFINITY),
        _ => Some(f64::NAN),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on_the_wire(words: &[u16]) -> Option<f64> {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
        numeric(&bytes)
    }

    #[test]
    fn numerics_of_every_size() {
        assert_eq!(on_the_wire(&[0, 0, 0, 0]), Some(0.0));
        assert_eq!(on_the_wire(&[3, 1, 0, 2, 1, 2345, 6700]), Some(12345.67));
        assert_eq!(on_the_wire(&[1, 0xFFFF, 0x4000, 4, 5000]), Some(-0.5));
        assert_eq!(on_the_wire(&[1, 2, 0, 0, 7]), Some(700_000_000.0));
        assert_eq!(on_the_wire(&[1, 0xFFFE, 0, 8, 1]), Some(1e-8));
        assert!(on_the_wire(&[0, 0, 0xC000, 0]).unwrap().is_nan());
        assert_eq!(on_the_wire(&[0, 0, 0xD000, 0]), Some(f64::INFINITY));
        assert_eq!(on_the_wire(&[1, 0]), None);
        let mut long = vec![9, 8, 0, 0];
        long.extend([1111; 9]);
        assert!((on_the_wire(&long).unwrap() / 1.111_111_111_111e35 - 1.0).abs() < 1e-9);
    }
}
