//! The sessions that are kept open while a window is, and lent to whoever works for a rollback.
//!
//! The moment in which a session is needed is the moment in which the server has no connection left. So they are opened
//! when the window opens, looked after while it is open ([`Pinned::tend`]), opened anew when one is lost, and closed
//! when it is settled. A step borrows one and gives it back by dropping it, also when the step is ended in the middle:
//! the connection stays, because a place that is given up may be taken by somebody else, and what the step left in it is
//! cleaned away. Without anybody to tend them they are opened when they are first asked for.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::{Mutex, Notify, OwnedMappedMutexGuard, OwnedMutexGuard, watch};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;

use super::session::{ConnectError, Manner, Session};
use crate::config::model::Database;

/// How many are kept: one to act, and one to see who is in the way.
pub const KEPT: usize = 2;
/// The pause between two proofs that a kept session is alive.
const EVERY: Duration = Duration::from_secs(10);
/// The pause between two tries to open one.
const AGAIN: Duration = Duration::from_secs(2);
/// The pause between two looks whether one was given back.
const LOOK: Duration = Duration::from_millis(100);

/// The kept sessions. Clones share them.
#[derive(Debug, Clone)]
pub struct Pinned(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    database: Database,
    places: Vec<Place>,
    /// Whether they shall be open.
    wanted: watch::Sender<bool>,
    /// What is known of each place: nothing yet, open, or why not.
    known: watch::Sender<Vec<Option<Result<(), String>>>>,
}

/// A place for one session.
#[derive(Debug, Default)]
struct Place {
    session: Arc<Mutex<Option<Session>>>,
    /// It was given back, and has to be cleaned.
    returned: Arc<Notify>,
}

/// A session to work with. Dropped, a kept one is given back, and any other is closed.
#[derive(Debug)]
pub struct Lent(Loan);

#[derive(Debug)]
enum Loan {
    Kept { session: OwnedMappedMutexGuard<Option<Session>, Session>, returned: Arc<Notify> },
    Own(Session),
}

impl Pinned {
    /// Nothing is open yet.
    pub fn new(database: &Database) -> Self {
        Self(Arc::new(Inner {
            database: database.clone(),
            places: (0..KEPT).map(|_| Place::default()).collect(),
            wanted: watch::Sender::new(false),
            known: watch::Sender::new(vec![None; KEPT]),
        }))
    }

    /// The database that they are sessions of.
    pub fn database(&self) -> &Database {
        &self.0.database
    }

    /// Whether the sessions shall be kept open from now on.
    pub fn keep(&self, wanted: bool) {
        self.0.wanted.send_if_modified(|known| std::mem::replace(known, wanted) != wanted);
    }

    /// A session for the daemon's own work. When the server lets nobody in and the kept ones are in use, one of them is
    /// waited for, no longer than connecting may take.
    pub async fn session(&self) -> Result<Lent, ConnectError> {
        self.session_for(Manner::Own).await
    }

    /// A session set up in this manner; see [`session`](Self::session).
    pub async fn session_for(&self, manner: Manner) -> Result<Lent, ConnectError> {
        let until = Instant::now() + self.0.database.connect_timeout;
        loop {
            let refusal = match self.at_once(manner).await {
                Err(full @ ConnectError::Full { .. }) => full,
                Err(error @ (ConnectError::Down { .. } | ConnectError::Mistake { .. })) => return Err(error),
                Ok(lent) => return Ok(lent),
            };
            if timeout_at(until, sleep(LOOK)).await.is_err() {
                return Err(refusal);
            }
        }
    }

    /// A session without waiting for one that is in use: a kept one that is free, or a new one.
    pub async fn at_once(&self, manner: Manner) -> Result<Lent, ConnectError> {
        let free = self.0.places.iter().filter_map(|place| {
            let guard = Arc::clone(&place.session).try_lock_owned().ok()?;
            Some((guard, &place.returned))
        });
        // One that is open before one that is lost.
        match free.min_by_key(|(guard, _)| guard.is_none()) {
            Some((guard, returned)) => self.lend(guard, returned, manner).await,
            None => Ok(Lent(Loan::Own(Session::connect_as(&self.0.database, manner).await?))),
        }
    }

    /// Lends the session of a place: cleaned, or opened anew when it is lost.
    async fn lend(
        &self,
        mut place: OwnedMutexGuard<Option<Session>>,
        returned: &Arc<Notify>,
        manner: Manner,
    ) -> Result<Lent, ConnectError> {
        if let Some(session) = &*place
            && let Err(error) = session.renew(&self.0.database, manner).await
        {
            lost(&error);
            *place = None;
        }
        if place.is_none() {
            *place = Some(Session::connect_as(&self.0.database, manner).await?);
        }
        let gone = |_place| ConnectError::Down { reason: "the session was lost".to_owned() };
        let session = OwnedMutexGuard::try_map(place, Option::as_mut).map_err(gone)?;
        Ok(Lent(Loan::Kept { session, returned: Arc::clone(returned) }))
    }

    /// Waits until all of them are open. `Err`: how many are not, and why.
    pub async fn ready(&self, within: Duration) -> Result<(), String> {
        let mut known = self.0.known.subscribe();
        let open = |known: &Vec<Option<Result<(), String>>>| known.iter().all(|place| matches!(place, Some(Ok(()))));
        let opened = tokio::time::timeout(within, known.wait_for(open)).await;
        if matches!(opened, Ok(Ok(_))) {
            return Ok(());
        }
        Err(self.shortage().unwrap_or_else(|| "the connections for a rollback were not opened in time".to_owned()))
    }

    /// What is missing of the sessions that shall be open, and why.
    pub fn shortage(&self) -> Option<String> {
        if !*self.0.wanted.borrow() {
            return None;
        }
        let known = self.0.known.borrow();
        let reasons: Vec<&str> =
            known.iter().filter_map(|place| place.as_ref()?.as_ref().err()).map(String::as_str).collect();
        let reason = reasons.first()?;
        Some(format!("{} of {KEPT} connections that are kept for a rollback are lost: {reason}", reasons.len()))
    }

    /// Keeps the sessions open while that is wanted, until `cancel`.
    pub async fn tend(self, cancel: CancellationToken) {
        let places = self.0.places.iter().enumerate().map(|(number, place)| self.tend_place(number, place));
        tokio::select! {
            () = cancel.cancelled() => {}
            _ends_never = join_all(places) => {}
        }
    }

    async fn tend_place(&self, number: usize, place: &Place) {
        let mut wanted = self.0.wanted.subscribe();
        let mut dirty = true;
        loop {
            // While it is lent, its borrower looks after it.
            let mut session = Arc::clone(&place.session).lock_owned().await;
            let pause = if *wanted.borrow_and_update() {
                let known = self.look_after(&mut session, dirty).await;
                let pause = if known.is_ok() { EVERY } else { AGAIN };
                self.note(number, Some(known));
                pause
            } else {
                *session = None;
                self.note(number, None);
                EVERY
            };
            let ended = session.as_ref().map(Session::ended);
            drop(session);
            dirty = false;
            let ended = async {
                match ended {
                    Some(ended) => ended.cancelled().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = ended => {}
                () = place.returned.notified() => dirty = true,
                changed = wanted.changed() => if changed.is_err() { return },
                () = sleep(pause) => {}
            }
        }
    }

    /// Proves that a session is alive, and opens one where there is none.
    async fn look_after(&self, place: &mut Option<Session>, dirty: bool) -> Result<(), String> {
        let database = &self.0.database;
        if let Some(session) = &*place {
            let alive = if dirty {
                session.renew(database, Manner::Own).await
            } else {
                session.prove(database.connect_timeout).await
            };
            let Err(error) = alive else { return Ok(()) };
            lost(&error);
            *place = None;
        }
        let session = Session::connect(database).await.map_err(|error| error.reason().to_owned())?;
        *place = Some(session);
        Ok(())
    }

    /// Takes note of a place's state, and says what is new.
    fn note(&self, number: usize, now: Option<Result<(), String>>) {
        self.0.known.send_if_modified(|known| {
            let Some(known) = known.get_mut(number).filter(|known| **known != now) else { return false };
            match &now {
                Some(Ok(())) => tracing::info!(event = "pinned.open", number, "a connection is kept for a rollback"),
                Some(Err(error)) => {
                    tracing::warn!(event = "pinned.missing", number, error, "no connection to keep for a rollback");
                }
                None => {}
            }
            *known = now;
            true
        });
    }
}

fn lost(error: &ConnectError) {
    tracing::warn!(event = "pinned.lost", error = error.reason(), "a connection that was kept for a rollback is lost");
}

impl Deref for Lent {
    type Target = Session;

    fn deref(&self) -> &Session {
        match &self.0 {
            Loan::Kept { session, .. } => session,
            Loan::Own(session) => session,
        }
    }
}

impl DerefMut for Lent {
    fn deref_mut(&mut self) -> &mut Session {
        match &mut self.0 {
            Loan::Kept { session, .. } => session,
            Loan::Own(session) => session,
        }
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        match self {
            // Who tends the place waits for its lock, which is free as soon as this is done.
            Self::Kept { returned, .. } => returned.notify_one(),
            Self::Own(_) => {}
        }
    }
}

#[cfg(test)]
mod tests;
