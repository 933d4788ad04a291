//! Everything that speaks PostgreSQL: sessions, catalog, counts, fingerprints, rights, locks, removal, the client programs.
//!
//! What is decided from it is not here: the core compares catalogs, the rungs and the verification ask.
//! Data comes from the server's own functions and goes out as the core's types or as sentences.

pub mod activity;
pub mod catalog;
pub mod count;
pub(crate) mod fingerprint;
pub(crate) mod keys;
pub mod pinned;
pub(crate) mod pooler;
pub mod programs;
pub mod readback;
pub mod removal;
pub(crate) mod restored;
pub mod rights;
pub mod session;
mod tls;

#[cfg(test)]
pub(crate) mod testing;

use tokio_postgres::Error;
use tokio_postgres::error::SqlState;

/// A statement that failed: what was being done, and what the server said. Never row contents.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{doing} failed: {message}{}", .code.as_ref().map(|code| format!(" (SQLSTATE {})", code.code())).unwrap_or_default())]
pub struct Failure {
    doing: String,
    message: String,
    code: Option<SqlState>,
    lost: bool,
}

impl Failure {
    /// A failure of `doing`, which is a gerund phrase such as `reading the catalog`.
    pub fn new(doing: impl Into<String>, error: &Error) -> Self {
        let code = error.code().cloned();
        let message = match error.as_db_error() {
            // Messages of class 22 quote the value that was wrong, which is row contents.
            Some(db) if db.code().code().starts_with("22") => "a value does not fit its type".to_owned(),
            // The detail names what depends on it.
            Some(db) if *db.code() == SqlState::DEPENDENT_OBJECTS_STILL_EXIST => {
                let detail = db.detail().unwrap_or_default().replace('\n', ", ");
                format!("{}: {detail}", db.message())
            }
            Some(db) => db.message().to_owned(),
            None => with_cause(error),
        };
        let lost = match &code {
            Some(code) => means_down(code),
            None => error.is_closed() || cause_of_kind_io(error),
        };
        Self { doing: doing.into(), message, code, lost }
    }

    /// A failure that we found ourselves.
    pub fn found(doing: impl Into<String>, message: impl Into<String>) -> Self {
        Self { doing: doing.into(), message: message.into(), code: None, lost: false }
    }

    /// A failure of one of PostgreSQL's programs, told apart by what it said.
    pub(crate) fn of_program(doing: impl Into<String>, said: &str) -> Self {
        let code = said.contains("due to lock timeout").then_some(SqlState::LOCK_NOT_AVAILABLE);
        let lost = ["connection to server", "server closed the connection", "terminating connection"]
            .iter()
            .any(|words| said.contains(words));
        Self { doing: doing.into(), message: said.to_owned(), code, lost }
    }

    /// Whether the connection is gone, or the server is going down or has no room: connecting again may help.
    pub const fn is_lost(&self) -> bool {
        self.lost
    }

    /// Whether a lock was not to be had in time, or a deadlock was broken at our cost: trying again may help.
    pub fn is_lock_timeout(&self) -> bool {
        matches!(&self.code, Some(code) if [&SqlState::LOCK_NOT_AVAILABLE, &SqlState::T_R_DEADLOCK_DETECTED].contains(&code))
    }

    /// Whether the statement was ended by its own time limit.
    pub fn is_statement_timeout(&self) -> bool {
        self.code.as_ref() == Some(&SqlState::QUERY_CANCELED)
    }

    /// Whether the catalog changed under the statement (`cache lookup failed`, a table that has just gone): trying
    /// again sees the new state.
    pub fn is_moving_catalog(&self) -> bool {
        matches!(&self.code, Some(code) if [&SqlState::INTERNAL_ERROR, &SqlState::UNDEFINED_TABLE, &SqlState::UNDEFINED_OBJECT, &SqlState::T_R_SERIALIZATION_FAILURE].contains(&code))
    }

    /// Whether what the statement is about is not there (any more).
    pub(crate) fn is_missing(&self) -> bool {
        let missing = [
            &SqlState::UNDEFINED_OBJECT,
            &SqlState::UNDEFINED_TABLE,
            &SqlState::UNDEFINED_COLUMN,
            &SqlState::UNDEFINED_FUNCTION,
            &SqlState::INVALID_SCHEMA_NAME,
        ];
        matches!(&self.code, Some(code) if missing.contains(&code))
    }
}

impl From<Failure> for String {
    fn from(failure: Failure) -> Self {
        failure.to_string()
    }
}

/// Makes a [`Failure`] of an error: `.map_err(during("reading the catalog"))`.
pub(crate) fn during(doing: &str) -> impl FnOnce(Error) -> Failure + '_ {
    move |error| Failure::new(doing, &error)
}

/// Whether a SQLSTATE says that the server is not there for us now, rather than that we asked for something wrong.
fn means_down(code: &SqlState) -> bool {
    let code = code.code();
    code.starts_with("08") || code.starts_with("57P") || code.starts_with("53") || code.starts_with("58")
}

/// The error and what it comes from, without what a server sent.
fn with_cause(error: &Error) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}").replace("error performing TLS handshake: ", ""),
        None => error.to_string(),
    }
}

fn cause_of_kind_io(error: &Error) -> bool {
    std::error::Error::source(error).is_some_and(<dyn std::error::Error>::is::<std::io::Error>)
}

/// A text as a SQL literal.
pub(crate) fn literal(text: &str) -> String {
    if text.contains('\\') {
        format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
    } else {
        format!("'{}'", text.replace('\'', "''"))
    }
}

/// A duration in whole milliseconds, as the server's time limits want it; never 0, which would mean no limit.
pub(crate) fn milliseconds(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::from(i32::MAX)).clamp(1, i64::from(i32::MAX))
}
