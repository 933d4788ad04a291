//! State → what must be under way, and when to look again.
//!
//! The shell keeps the set of effects that it has started: what is derived twice is started once, and what is no
//! longer derived is stopped. After a restart the same function says what to do first.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::advance::{hold_ends_at, page_due_at, warm_up_ends_at};
use super::outbox;
use super::state::{Phase, State, Window};
use super::step::Step;

/// Something that must be under way.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Effect {
    /// Do a step of the open window.
    Perform {
        /// The window's id.
        window: String,
        /// The step's number.
        number: u64,
    },
    /// Deliver a notice on one channel.
    Deliver {
        /// The notice's id.
        notice: String,
        /// The contact's name.
        contact: String,
        /// The contact's channel.
        channel: String,
    },
}

/// What must be under way, and when to look again.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pending {
    /// In the order in which they became due.
    pub effects: Vec<Effect>,
    /// The next moment at which something is due without an event.
    pub wake_at: Option<Timestamp>,
}

/// What must be under way in this state at this moment.
pub fn pending(state: &State, now: Timestamp) -> Pending {
    let mut effects = Vec::new();
    let mut wakes = BTreeSet::new();
    if let Some(window) = &state.window {
        let steps = window.in_flight.iter();
        effects.extend(steps.map(|running| Effect::Perform { window: window.id.clone(), number: running.number }));
        wakes.extend(window_wakes(window));
    }
    let (deliveries, due_later) = outbox::deliveries(state, now);
    effects.extend(deliveries);
    wakes.extend(due_later);
    Pending { effects, wake_at: wakes.into_iter().find(|wake| *wake > now) }
}

fn window_wakes(window: &Window) -> Vec<Timestamp> {
    let mut wakes: Vec<Timestamp> = Vec::new();
    wakes.extend(hold_ends_at(window));
    wakes.extend(page_due_at(window));
    match &window.phase {
        Phase::Preparing if !window.warmed_up => {
            wakes.push(window.ends_at);
            wakes.extend(warm_up_ends_at(window));
            // The judge is asked again when the signals may have been healthy for long enough.
            let since = window.preflight.as_ref().map(|(_, since)| *since);
            wakes.extend(since.map(|since| super::apply::later(since, window.plan.healthy_for)));
        }
        Phase::Preparing | Phase::Watching => wakes.push(window.ends_at),
        Phase::Soaking { until } => wakes.push(*until),
        Phase::RollingBack | Phase::NeedsOperator { .. } | Phase::Resolving { .. } => {}
    }
    wakes
}

impl State {
    /// The step that an effect asks for.
    pub fn step(&self, window: &str, number: u64) -> Option<&super::state::InFlight> {
        let window = self.window.as_ref().filter(|open| open.id == window)?;
        window.in_flight.iter().find(|running| running.number == number)
    }
}

impl Step {
    /// Whether the step runs the migration, or waits for one that outlived a crash.
    pub(super) const fn is_migration(&self) -> bool {
        matches!(self, Self::Migrate | Self::AwaitProcess { .. })
    }

    /// Whether the step is work on the ladder, as opposed to the migration or the preparation.
    pub const fn is_rollback(&self) -> bool {
        match self {
            Self::Preflight | Self::Backup | Self::Migrate | Self::AwaitProcess { .. } => false,
            Self::EndProcess { .. }
            | Self::ReadGate { .. }
            | Self::CloseGate { .. }
            | Self::OpenGate { .. }
            | Self::Inspect { .. }
            | Self::Act { .. }
            | Self::Verify { .. } => true,
        }
    }
}
