//! What the rest of the program may see of the driver, and what it may ask of it.
//!
//! The server and the foreground commands hold a watch of [`Snapshot`]s and a bounded sender of [`Call`]s,
//! nothing else.

use std::sync::Arc;

use jiff::Timestamp;
use rollbackd_core::judge::{Assessment, RuleView, SignalView};
use rollbackd_core::plan::Plan;
use rollbackd_core::run::event::{Refusal, Request};
use rollbackd_core::run::record::Entry;
use rollbackd_core::run::state::State;
use tokio::sync::oneshot;

/// Everything that can be shown, at one moment.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// When it was made.
    pub at: Timestamp,
    /// The configuration's plan, or the open window's.
    pub plan: Arc<Plan>,
    /// What the records make.
    pub state: Arc<State>,
    /// What the judge says.
    pub assessment: Assessment,
    /// The signals, in configured order.
    pub signals: Vec<SignalView>,
    /// The rules, in configured order.
    pub rules: Vec<RuleView>,
    /// The next scheduled opening.
    pub next_window_at: Option<Timestamp>,
    /// `Err` with what is missing: journal not writable, database not reachable.
    pub ready: Result<(), String>,
    /// Why the last append to the journal failed, until one succeeds.
    pub journal_error: Option<String>,
    /// What is to come of the configuration's file.
    pub renewal: Renewal,
}

/// What is to come of the configuration's file, which may say something else by now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Renewal {
    /// Another configuration is to be taken over: the run ends as soon as no window is open.
    pub due: bool,
    /// The SHA-256 of the configuration that was accepted for then; none: the file is read then, because it could not be
    /// used before.
    pub next_sha256: Option<String>,
    /// The file was refused when it was read last.
    pub refused: Option<RefusedFile>,
}

/// A configuration's file that was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedFile {
    /// When.
    pub at: Timestamp,
    /// What is wrong with it, with the way out.
    pub reason: String,
}

/// Something asked of the driver.
#[derive(Debug)]
pub enum Call {
    /// Change something. The answer comes when it is durable.
    Request {
        /// What.
        request: Request,
        /// The answer: the window's id when one is open.
        reply: oneshot::Sender<Result<Option<String>, Refusal>>,
    },
    /// Read the records of a window, or all of them.
    Records {
        /// The window; absent: everything.
        window: Option<String>,
        /// The answer: empty when there is no such window, `Err` when the journal cannot be read.
        reply: oneshot::Sender<Result<Vec<Entry>, String>>,
    },
    /// Read what is stored from a place on, as lines of an export: a page of them.
    Lines {
        /// The place.
        from: u64,
        /// The answer: empty behind the end, `Err` when the journal cannot be read.
        reply: oneshot::Sender<Result<Vec<String>, String>>,
    },
}
