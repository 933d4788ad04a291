//! Good and bad events of some time.

use serde::{Deserialize, Serialize};

/// How many events were good and how many bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Level {
    /// Events that were as they should be.
    pub good: u64,
    /// Events in which the application answered wrongly or not at all.
    pub bad: u64,
}

impl Level {
    /// All of them.
    pub const fn events(self) -> u64 {
        self.good.saturating_add(self.bad)
    }

    /// The share of bad events; 0 when there were none at all.
    #[expect(clippy::cast_precision_loss, reason = "a share needs no more than the 52 bits of a float")]
    pub fn ratio(self) -> f64 {
        if self.events() == 0 { 0.0 } else { self.bad as f64 / self.events() as f64 }
    }

    /// Both together.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self { good: self.good.saturating_add(other.good), bad: self.bad.saturating_add(other.bad) }
    }
}
