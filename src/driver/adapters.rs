//! What the driver asks of the outside: perform a step, deliver a notice.
//!
//! The trait exists so that tests can put virtual time and failing parts behind the real driver;
//! [`World`](super::world::World) is the one that acts.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use rollbackd_core::notice::Notice;
use rollbackd_core::run::record::Process;
use rollbackd_core::run::state::Window;
use rollbackd_core::run::step::{Outcome, Step};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// A future on the heap, as trait objects need it.
pub type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A step to perform.
#[derive(Debug)]
pub struct Assignment {
    /// The window as it was when the step started.
    pub window: Arc<Window>,
    /// The step's number.
    pub number: u64,
    /// What to do.
    pub step: Step,
    /// How long it may take.
    pub within: Duration,
    /// Asks for an early end.
    pub stop: CancellationToken,
    /// For a step that ends another one: the other's task, when it is one of ours.
    pub other: Option<OtherStep>,
    /// Takes the process that the step starts, so that a later life can find it.
    pub started: mpsc::Sender<Process>,
}

/// A running step that another one may have to end.
#[derive(Debug, Clone)]
pub struct OtherStep {
    /// Asks it to end.
    pub stop: CancellationToken,
    /// Cancelled once its outcome was handed over.
    pub ended: CancellationToken,
}

/// Told of each attempt to deliver: `None` when it was acknowledged, otherwise the reason's label.
pub type Attempted = Arc<dyn Fn(Option<&str>) + Send + Sync>;

/// The outside.
pub trait Adapters: Send + Sync + 'static {
    /// Performs a step. Bounded by its time; ends early when it is asked to.
    fn perform(self: Arc<Self>, assignment: Assignment) -> Boxed<'static, Outcome>;

    /// The process that a step started, where a life ended before it could be written down.
    fn lost_process(&self, _window: &str, _step: u64) -> Option<Process> {
        None
    }

    /// Delivers a notice on one channel, however long it takes. `Err`: why it can never be delivered this way.
    fn deliver(
        self: Arc<Self>,
        notice: Arc<Notice>,
        channel: String,
        attempted: Attempted,
    ) -> Boxed<'static, Result<(), String>>;
}
