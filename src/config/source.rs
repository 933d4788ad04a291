//! What rules can look at in the readings of each kind of signal.

use super::model::SignalSource;

/// The good and bad events of a reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counts {
    /// A reading is one event.
    One,
    /// A reading may be any number of events.
    Many,
    /// A reading has no events, only a value.
    Nothing,
}

impl SignalSource {
    /// The events of a reading.
    pub const fn counts(&self) -> Counts {
        match self {
            Self::Http(_) | Self::Tcp { .. } | Self::Postgres { .. } | Self::Command { .. } => Counts::One,
            Self::Prometheus(query) => {
                if query.samples.is_some() {
                    Counts::Many
                } else {
                    Counts::Nothing
                }
            }
            Self::Log(_) => Counts::Many,
        }
    }

    /// Whether how long a reading takes is how long the application takes to answer.
    pub const fn is_timed(&self) -> bool {
        match self {
            Self::Http(_) | Self::Tcp { .. } | Self::Postgres { .. } | Self::Command { .. } => true,
            // It is Prometheus that answers, and not the application.
            Self::Prometheus(_) | Self::Log(_) => false,
        }
    }

    /// Whether a reading may come with a number.
    pub const fn has_value(&self) -> bool {
        match self {
            Self::Http(_) | Self::Tcp { .. } | Self::Log(_) => false,
            Self::Postgres { .. } | Self::Command { .. } | Self::Prometheus(_) => true,
        }
    }

    /// In words, what it gives.
    pub const fn gives(&self) -> &'static str {
        match self {
            Self::Http(_) | Self::Tcp { .. } => {
                "a signal of this kind gives good and bad events, and the time that each took"
            }
            Self::Log(_) => "a log gives good and bad events, one a line",
            Self::Postgres { .. } | Self::Command { .. } => {
                "a signal of this kind gives good and bad events, the time that each took, and a number"
            }
            Self::Prometheus(query) => {
                if query.samples.is_some() {
                    "a signal of this kind gives a number, and with `samples` good and bad events"
                } else {
                    "a signal of this kind gives a number; with `samples` it gives good and bad events too"
                }
            }
        }
    }
}
