//! The loop that turns events into records, and records into effects.

pub mod snapshot;
