//! Recorded samples → what rules would have said about them.
//!
//! The judge that looks at recorded samples is the one that looks at live ones, so what it says of the same samples at the
//! same moments is the same. What is looked at comes from the shell, in order; nothing is read here, and nothing decided:
//! holds, phases and people are not in a recording.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::judge::{Evidence, Judge, Level, Verdict};
use crate::plan::{Condition, Plan, Rule};
use crate::sample::Sample;

/// One thing that the judge saw.
#[derive(Debug, Clone, PartialEq)]
pub enum Seen {
    /// It began anew, knowing nothing.
    Begun,
    /// A sample of the signal at this place of the plan, from before it began: the rules are not asked.
    Memory(usize, Sample),
    /// A sample of the signal at this place of the plan.
    Sample(usize, Sample),
    /// The rules were asked without one.
    Look,
    /// What each signal's events were like before the migration.
    Levels(Vec<Level>),
    /// The clock was set by so much, or nobody looked for so long.
    Moved(SignedDuration),
}

/// When the rules would have led to a rollback.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decided {
    /// The moment.
    pub at: Timestamp,
    /// The rollback rules that were breached then.
    pub rules: Vec<String>,
}

/// What the rules would have said.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Said {
    /// Every time that a rule became breached, in order of time.
    pub fired: Vec<Evidence>,
    /// The first time that the verdict was breached.
    pub decided: Option<Decided>,
    /// How many samples were looked at.
    pub samples: u64,
}

/// A look at recorded samples.
#[derive(Debug)]
pub struct Replay {
    plan: Plan,
    judge: Judge,
    /// Whether moments between the samples have to be found: a recording of the daemon has them.
    asks_between: bool,
    began: Timestamp,
    last: Timestamp,
    learned: bool,
    breached: BTreeSet<String>,
    said: Said,
}

impl Replay {
    /// Begins at the first sample's time. `asks_between`: the recording does not say when rules were asked without a sample.
    pub fn new(plan: &Plan, began: Timestamp, asks_between: bool) -> Self {
        Self {
            judge: Judge::new(plan, began),
            plan: plan.clone(),
            asks_between,
            began,
            last: began,
            learned: false,
            breached: BTreeSet::new(),
            said: Said::default(),
        }
    }

    /// Takes in the next thing; it was looked at `now`.
    pub fn take(&mut self, seen: Seen, now: Timestamp) {
        if self.asks_between {
            self.ask_until(now);
        }
        match seen {
            Seen::Begun => {
                self.judge = Judge::new(&self.plan, now);
                self.breached.clear();
            }
            Seen::Memory(signal, sample) => self.judge.observe(signal, &sample),
            Seen::Sample(signal, sample) => {
                self.judge.observe(signal, &sample);
                self.said.samples += 1;
                self.ask(now);
            }
            Seen::Look => self.ask(now),
            Seen::Moved(by) => self.judge.shift(by),
            Seen::Levels(levels) => {
                self.learned = true;
                self.judge.learn(&levels);
            }
        }
        self.last = now;
    }

    /// When the rules would have led to a rollback, as far as was looked.
    pub const fn decided(&self) -> Option<&Decided> {
        self.said.decided.as_ref()
    }

    /// What was said, when there is nothing more.
    pub fn end(mut self) -> Said {
        if self.asks_between {
            // What the last samples lead to without another, as long as a live judge would have waited for one.
            self.ask_until(self.last.saturating_add(SignedDuration::from_secs(1)).unwrap_or(self.last));
        }
        self.said
    }

    /// Asks at every moment at which the answer may change by itself.
    fn ask_until(&mut self, end: Timestamp) {
        while let Some(next) = self.judge.next_change(self.last).filter(|next| *next < end) {
            self.last = next;
            self.ask(next);
        }
    }

    fn ask(&mut self, now: Timestamp) {
        let assessment = self.judge.assess(now);
        if self.asks_between && !self.learned && now.duration_since(self.began) >= self.plan.healthy_for {
            // Nobody wrote down when the migration began: the beginning of the recording is its warm-up.
            self.learned = true;
            self.judge.learn(&assessment.levels);
        }
        let before = std::mem::take(&mut self.breached);
        for evidence in assessment.breached {
            self.breached.insert(evidence.rule.clone());
            if !before.contains(&evidence.rule) {
                self.said.fired.push(evidence);
            }
        }
        if self.said.decided.is_none() && assessment.verdict == Verdict::Breached {
            let rules = self.breached.iter().cloned().collect();
            self.said.decided = Some(Decided { at: now, rules });
        }
    }
}

/// A rule with another threshold.
#[derive(Debug, Clone, PartialEq)]
pub struct Variant {
    /// The rule that it is made of.
    pub rule: String,
    /// What it allows.
    pub threshold: f64,
    /// Whether that is what is configured.
    pub configured: bool,
}

/// A plan whose rules are the plan's own with other thresholds, one consequence for all, and what each of them is: all of
/// them are looked at in one pass.
pub fn grid(plan: &Plan) -> (Plan, Vec<Variant>) {
    let (mut rules, mut variants) = (Vec::new(), Vec::new());
    for rule in &plan.rules {
        for condition in thresholds(&rule.condition) {
            let (threshold, configured) = (condition.threshold(), condition == rule.condition);
            rules.push(Rule { name: variants.len().to_string(), condition, ..rule.clone() });
            variants.push(Variant { rule: rule.name.clone(), threshold, configured });
        }
    }
    (Plan { rules, ..plan.clone() }, variants)
}

/// The condition with lower and higher thresholds, in order.
fn thresholds(condition: &Condition) -> Vec<Condition> {
    const TIMES: [f64; 7] = [0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 4.0];
    let each = |make: &dyn Fn(f64) -> Condition| TIMES.iter().map(|times| make(*times)).collect::<Vec<_>>();
    let part = |share: f64, times: f64| (share * times).min(share.max(0.999));
    match condition {
        Condition::Consecutive { count } => {
            let mut counts: Vec<u32> = vec![1, 2, 3, 4, 5, 6, 8, 10, 15, 20, *count];
            counts.sort_unstable();
            counts.dedup();
            counts.into_iter().map(|count| Condition::Consecutive { count }).collect()
        }
        Condition::ErrorRatioAbove { ratio, over, min_samples, last } => each(&|times| Condition::ErrorRatioAbove {
            ratio: part(*ratio, times),
            over: over.clone(),
            min_samples: *min_samples,
            last: *last,
        }),
        Condition::LatencyAbove { limit, quantile, over, min_samples } => each(&|times| Condition::LatencyAbove {
            limit: scaled(*limit, times),
            quantile: *quantile,
            over: over.clone(),
            min_samples: *min_samples,
        }),
        Condition::ValueAbove { limit, hold } => {
            each(&|times| Condition::ValueAbove { limit: limit * times, hold: *hold })
        }
        Condition::ValueBelow { limit, hold } => {
            each(&|times| Condition::ValueBelow { limit: limit * times, hold: *hold })
        }
        Condition::BurnRateAbove { slo, rate, over, min_samples } => each(&|times| Condition::BurnRateAbove {
            slo: *slo,
            rate: rate * times,
            over: over.clone(),
            min_samples: *min_samples,
        }),
        Condition::TimesBaseline { times: configured, over, min_samples } => each(&|times| Condition::TimesBaseline {
            times: configured * times,
            over: over.clone(),
            min_samples: *min_samples,
        }),
    }
}

/// So many times as long, to the microsecond; once is what it was.
#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "limits are hours at most")]
fn scaled(limit: SignedDuration, times: f64) -> SignedDuration {
    let micros = i64::try_from(limit.as_micros()).unwrap_or(i64::MAX);
    SignedDuration::from_micros((micros as f64 * times) as i64)
}

#[cfg(test)]
mod tests;
