//! The rules that are compared, each as a plan of its own over the same samples.
//!
//! *three in a row*: three failed probes one after the other. *three in total*: the third failed probe since the window
//! opened, however far apart. Both know failures only: a probe that could not be made is a failure to them.

use rollbackd_core::plan::{Condition, Consequence, Plan, Rule};

/// Who decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Decider {
    /// The rules of the shipped configuration.
    Shipped,
    /// Three failed probes in a row.
    ThreeInARow,
    /// Three failed probes in total.
    ThreeInTotal,
}

pub(super) const ALL: [Decider; 3] = [Decider::Shipped, Decider::ThreeInARow, Decider::ThreeInTotal];

impl Decider {
    pub(super) const fn words(self) -> &'static str {
        match self {
            Self::Shipped => "rollbackd, as shipped",
            Self::ThreeInARow => "three in a row",
            Self::ThreeInTotal => "three in total",
        }
    }

    /// Whether it tells a probe that could not be made from one that failed.
    pub(super) fn knows_unreadable(self) -> bool {
        self == Self::Shipped
    }

    /// What it judges by. `three in total` is counted by the run itself.
    pub(super) fn plan(self, shipped: &Plan) -> Plan {
        let mut plan = shipped.clone();
        if self != Self::Shipped {
            plan.rules = vec![Rule {
                name: self.words().to_owned(),
                signals: vec![PROBE.to_owned()],
                condition: Condition::Consecutive { count: 3 },
                then: Consequence::Rollback,
            }];
            plan.decision.confirm = jiff::SignedDuration::ZERO;
        }
        plan
    }
}

/// The signals of the shipped configuration that a run gives samples of.
pub(super) const PROBE: &str = "api";
pub(super) const REQUESTS: &str = "requests";
