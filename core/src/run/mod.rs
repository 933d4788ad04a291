//! The state machine of a window.
//!
//! ```text
//! event ─▶ decide ─▶ records ─▶ (journal) ─▶ apply ─▶ state ─▶ pending ─▶ effects
//!   ▲                                                                        │
//!   └───────────────────── an effect's outcome is an event ──────────────────┘
//! ```
//!
//! * [`decide`](decide::decide) turns an event into the records that follow from it. It is the only place where
//!   something is decided.
//! * [`State::apply`](state::State::apply) takes a record into the state. Live and after a restart it is the same
//!   function, so the journal replayed gives the state that was live.
//! * [`pending`](pending::pending) says what must be under way in a state, and when to look again.
//!
//! What becomes of notices is in `outbox`, the rest of a window's life in `advance`, `ladder`, `proof` and `traffic`.
//!
//! What the steps *do* is not here; the shell performs them and reports [outcomes](step::Outcome).

pub mod advance;
pub(crate) mod apply;
mod clock;
pub mod condense;
pub mod decide;
pub mod event;
mod ladder;
pub mod manual;
mod outbox;
pub mod pending;
mod progress;
mod proof;
pub mod record;
pub mod sound;
pub mod state;
pub mod step;
mod traffic;

#[cfg(test)]
mod tests;
