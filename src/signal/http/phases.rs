//! How far a request came, and how long each part took: what is shown beside a reading, and what a time-out tells.
//!
//! The connection is made deep inside the client, which says nothing of it. So a layer around the client's connector
//! marks when it is there; it finds the request's marks in a task-local, for the client makes the connection of an
//! unpooled request in the request's own task.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use jiff::Timestamp;
use tower_layer::Layer;
use tower_service::Service;

use super::super::net::Fault;
use crate::clock::Stopwatch;

tokio::task_local! {
    static CURRENT: Phases;
}

/// A part of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// The name is looked up.
    Resolve,
    /// A connection is made, TLS included.
    Connect,
    /// The request was sent, or is being sent, and the answer's head has not come.
    Wait,
    /// The answer's body is read.
    Read,
}

/// The names of the phases, in order.
pub(crate) const NAMES: [&str; 4] = ["resolve", "connect", "wait", "read"];

/// The marks of one reading. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Phases(Arc<Mutex<Marks>>);

#[derive(Debug)]
struct Marks {
    now: Option<(Phase, Stopwatch)>,
    reached: Phase,
    took: [Duration; 4],
    expires: Option<Timestamp>,
}

impl Default for Phases {
    fn default() -> Self {
        let marks = Marks { now: None, reached: Phase::Resolve, took: [Duration::ZERO; 4], expires: None };
        Self(Arc::new(Mutex::new(marks)))
    }
}

impl Phases {
    /// Begins a part, and with it ends the one before.
    pub(super) fn enter(&self, phase: Phase) {
        self.change(|marks| {
            marks.settle();
            marks.now = Some((phase, Stopwatch::start()));
            marks.reached = phase;
        });
    }

    /// The last part has ended.
    pub(super) fn end(&self) {
        self.change(Marks::settle);
    }

    /// The server showed a certificate that expires then. Of several the first to expire counts.
    pub(super) fn certificate(&self, expires: Timestamp) {
        self.change(|marks| marks.expires = Some(marks.expires.map_or(expires, |known| known.min(expires))));
    }

    /// When the certificate expires, if one was shown.
    pub(crate) fn certificate_expires(&self) -> Option<Timestamp> {
        self.change(|marks| marks.expires)
    }

    /// How long each part took, as far as the request came.
    pub(crate) fn took(&self) -> Vec<(&'static str, Duration)> {
        self.change(|marks| {
            marks.settle();
            NAMES.into_iter().zip(marks.took).take(marks.reached as usize + 1).collect()
        })
    }

    /// Adds to a time-out how far the request came.
    pub(super) fn tell(&self, late: Fault) -> Fault {
        let Fault::Unanswered(reason) = late else { return late };
        let (reached, [_, connect, wait, _]) = self.change(|marks| {
            marks.settle();
            (marks.reached, marks.took)
        });
        let connected = format!("connected after {} ms", connect.as_millis());
        Fault::Unanswered(match reached {
            Phase::Resolve => reason,
            Phase::Connect => format!("{reason}: not connected"),
            Phase::Wait => format!("{reason}: {connected}, no answer's head"),
            Phase::Read => {
                format!("{reason}: {connected}, the answer's head {} ms later, its body not whole", wait.as_millis())
            }
        })
    }

    /// Runs a request whose connection is marked here.
    pub(super) async fn watch<F: Future>(&self, request: F) -> F::Output {
        CURRENT.scope(self.clone(), request).await
    }

    fn change<T>(&self, with: impl FnOnce(&mut Marks) -> T) -> T {
        with(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Marks {
    fn settle(&mut self) {
        if let Some((phase, watch)) = self.now.take()
            && let Some(took) = self.took.get_mut(phase as usize)
        {
            *took += watch.elapsed();
        }
    }
}

/// Marks when a connection is there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Marking;

impl<S> Layer<S> for Marking {
    type Service = Marked<S>;

    fn layer(&self, inner: S) -> Marked<S> {
        Marked { inner }
    }
}

/// A connector around which connections are marked.
#[derive(Debug, Clone)]
pub(super) struct Marked<S> {
    inner: S,
}

impl<S, R> Service<R> for Marked<S>
where
    S: Service<R>,
    S::Future: Send + 'static,
    S::Response: 'static,
    S::Error: 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: R) -> Self::Future {
        let connecting = self.inner.call(request);
        Box::pin(async move {
            let connected = connecting.await;
            if connected.is_ok() {
                // Without marks nobody wants to know.
                CURRENT.try_with(|phases| phases.enter(Phase::Wait)).ok();
            }
            connected
        })
    }
}
