//! Samples → rules → verdict, with evidence.
//!
//! The judge holds sliding windows of samples in memory; it never acts. Samples come from the shell's signal
//! adapters, its assessments go to the state machine in [`run`](crate::run) as events. After a restart it
//! begins with nothing: what it says rests on what it has seen itself.
//!
//! A rule is *quiet*, *suspect* (its condition holds, `confirm` has not passed), *breached*, or *blind*. Some
//! decisions that the words alone do not settle:
//!
//! * **Out of sight.** A signal is out of sight when it had no readable sample for `blind_after`, or for one turn
//!   (`every` + `timeout`) where that is longer: a probe that is in time is never blind.
//! * **A blind rule is never breached.** A pooled rule that cannot see one of its signals says nothing, even if
//!   the others are bad: the samples that are missing might have been good and broken the run. The exception is a
//!   rule that *was already breached* with all of its signals in sight. What it saw is not unseen because a signal
//!   is lost afterwards, so it stays breached while its condition holds and a bad sample behind it is younger than
//!   `blind_after`. A rule over a single signal therefore never stays breached out of sight.
//! * **Good.** A signal is good while its readings are not bad and no rule holds that looks at it. Of the many events of a
//!   log a few are bad on any day; how many are too many is what its rules say.
//! * **Runs.** Samples are pooled over the rule's signals in time order. Unreadable ones, and readings without any
//!   event, neither count nor reset; a reading with at least one good event ends the run.
//! * **The clock.** A sample older than the last of its signal means that the wall clock was set back: what is
//!   dated later is forgotten, because it would count again when the clock gets there. The run starts anew,
//!   which can delay a breach and never invents one.

pub mod asks;
mod condition;
mod evidence;
mod level;
mod memory;
mod significance;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use self::condition::{Holding, Sight};
use self::evidence::clock;
pub use self::level::Level;
use self::memory::{Last, Memory, sum};
pub use self::significance::CHANCE;
use crate::plan::{Condition, Consequence, Plan, Rule};
use crate::sample::Sample;

/// What the rules say now, over all signals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// No rule holds and everything needed was read.
    Healthy,
    /// A rule has begun to hold but is not confirmed yet.
    Suspect,
    /// We could not find out. Never healthy and never a reason to roll back.
    Blind,
    /// Enough rollback rules are breached.
    Breached,
}

/// What one rule says now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RuleState {
    /// It does not hold.
    Quiet,
    /// It holds, not yet for as long as `confirm` asks.
    Suspect,
    /// It holds and is confirmed.
    Breached,
    /// A signal that it needs could not be read for too long.
    Blind,
}

/// Why a rule holds: the same numbers in journal, notice, report and page.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// The rule's name.
    pub rule: String,
    /// The signal (or signals, joined by `, `) that it looked at.
    pub signal: String,
    /// What the rule says follows.
    pub then: Consequence,
    /// What was observed, in the unit of `threshold`: a number of bad samples, a share, seconds, a value, a multiple.
    pub observed: f64,
    /// What the rule allows.
    pub threshold: f64,
    /// The window that was looked at, where the condition has one.
    pub window: Option<SignedDuration>,
    /// How many events stand behind the observation.
    pub samples: u64,
    /// The reason that the latest bad sample gave.
    pub last_reason: Option<String>,
    /// When the rule began to hold.
    pub since: Timestamp,
    /// When it was evaluated.
    pub at: Timestamp,
    /// Tables that its signals implicate.
    pub implicates: Vec<String>,
    /// One sentence with all of this, for people.
    pub sentence: String,
}

/// One signal, as shown to people and metrics.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SignalView {
    /// Its name.
    pub name: String,
    /// Healthy: the last reading was good. Suspect: it was bad. Breached: a breached rule rests on it. Blind: it was unreadable, or nothing was read.
    pub verdict: Verdict,
    /// When it was last read.
    pub last_sample_at: Option<Timestamp>,
    /// Share of bad events among those remembered.
    pub error_ratio: Option<f64>,
    /// Bad samples in a row up to now.
    pub consecutive_bad: u32,
    /// Since when every reading was good; `None` when the last one was not.
    pub good_since: Option<Timestamp>,
    /// What the last reading gave as its reason.
    pub reason: Option<String>,
}

/// One rule, as shown to people and metrics.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RuleView {
    /// Its name.
    pub name: String,
    /// What it says now.
    pub state: RuleState,
    /// What follows when it is breached.
    pub then: Consequence,
}

/// Everything the judge says at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Assessment {
    /// When.
    pub at: Timestamp,
    /// Over all.
    pub verdict: Verdict,
    /// Every rule that is breached now, in configured order, whatever follows from it.
    pub breached: Vec<Evidence>,
    /// Why the verdict is blind: one sentence a signal.
    pub blind: Vec<String>,
    /// Since when every signal has been good without a break; `None` when one is not.
    pub healthy_since: Option<Timestamp>,
    /// Why `healthy_since` is `None`: one sentence a signal that is not good.
    pub unhealthy: Vec<String>,
    /// Whether the latest reading of every signal that a rollback rule needs could be read. Long before it is blind, a
    /// judge that cannot see at this moment must not be the one that says that all is well.
    pub in_sight: bool,
    /// What each signal's events were like in the time that a warm-up takes, in configured order: what rules of a later
    /// moment compare with. Empty when no rule compares.
    pub levels: Vec<Level>,
}

/// How far samples may be ahead of an assessment's time and still count as of now. Further ahead means that the
/// clock was set back.
const SKEW: SignedDuration = SignedDuration::from_secs(5);

/// A plan's rules and what they have seen.
#[derive(Debug, Clone)]
pub struct Judge {
    plan: Plan,
    /// One a signal, in configured order.
    memories: Vec<Memory>,
    /// One a rule, in configured order.
    rules: Vec<Watched>,
    /// What each signal's events were like before the migration.
    before: Vec<Level>,
}

/// A rule and where it stood when it was last assessed.
#[derive(Debug, Clone)]
struct Watched {
    rule: Rule,
    /// Places of its signals in the plan.
    signals: Vec<usize>,
    /// How far apart the readings of a run may be, and how old evidence may be: the longest patience of its signals.
    patience: SignedDuration,
    /// Since when its condition has held.
    since: Option<Timestamp>,
    /// Until when a breach outlives the sight of its signals.
    outlives: Option<Timestamp>,
    state: RuleState,
}

impl Judge {
    /// A judge that has seen nothing yet. Signals that never give a readable sample are out of sight from `now` on.
    pub fn new(plan: &Plan, now: Timestamp) -> Self {
        let rules = plan.rules.iter().map(|rule| Watched::new(plan, rule)).collect();
        let memories = (0..plan.signals.len()).map(|signal| remember(plan, signal, now)).collect();
        Self { plan: plan.clone(), memories, rules, before: Vec::new() }
    }

    /// Takes in what each signal's events were like before the migration. Until then, and when there were none, rules that
    /// compare with it say nothing.
    pub fn learn(&mut self, before: &[Level]) {
        self.before = before.to_vec();
    }

    /// Takes a sample in. A signal that the plan does not have is left out.
    pub fn observe(&mut self, signal: usize, sample: &Sample) {
        if let Some(memory) = self.memories.get_mut(signal) {
            memory.take(sample);
        }
    }

    /// The clock was set by so much, or nobody looked for so long: what is known becomes as old as it was before. Time in which
    /// nothing was seen confirms nothing, and makes nothing blind.
    pub fn shift(&mut self, by: SignedDuration) {
        self.memories.iter_mut().for_each(|memory| memory.shift(by));
        for watched in &mut self.rules {
            watched.since = watched.since.map(|since| later(since, by));
            watched.outlives = watched.outlives.map(|until| later(until, by));
        }
    }

    /// Says what the rules say at `now`. To be called after every observation and at [`next_change`](Self::next_change):
    /// `confirm` counts what was seen by assessing.
    pub fn assess(&mut self, now: Timestamp) -> Assessment {
        let now = self.settle_clock(now);
        let lost: Vec<bool> = (0..self.memories.len()).map(|signal| self.is_lost(signal, now)).collect();
        let is_lost = |signal: &usize| lost.get(*signal).copied().unwrap_or(false);
        let mut breached = Vec::new();
        for watched in &mut self.rules {
            let memories: Vec<&Memory> = watched.signals.iter().filter_map(|at| self.memories.get(*at)).collect();
            let before = watched.signals.iter().filter_map(|at| self.before.get(*at));
            let before = before.fold(Level::default(), |all, one| all.and(*one));
            let sight = Sight { memories: &memories, before, patience: watched.patience, now };
            let holding = condition::evaluate(&watched.rule.condition, sight);
            let blind = watched.signals.iter().any(is_lost);
            watched.settle(holding.as_ref(), blind, self.plan.decision.confirm, now);
            if let (RuleState::Breached, Some(holding), Some(since)) = (watched.state, &holding, watched.since) {
                breached.push(evidence::evidence(&self.plan, &watched.rule, holding, since, now));
            }
        }
        self.spoil();
        let (healthy_since, unhealthy) = self.health(now);
        let (verdict, blind, in_sight) = (self.verdict(), self.blind(&lost), self.in_sight());
        let levels = self.levels(now);
        Assessment { at: now, verdict, breached, blind, healthy_since, unhealthy, in_sight, levels }
    }

    /// A signal is not good while a rule holds that looks at it, whatever its single readings say.
    fn spoil(&mut self) {
        let holding = self.rules.iter().filter(|one| matches!(one.state, RuleState::Suspect | RuleState::Breached));
        for place in holding.flat_map(|one| &one.signals) {
            if let Some(memory) = self.memories.get_mut(*place) {
                memory.spoil();
            }
        }
    }

    /// What each signal's events were like in the time that a warm-up takes.
    fn levels(&self, now: Timestamp) -> Vec<Level> {
        if !self.rules.iter().any(|one| matches!(one.rule.condition, Condition::TimesBaseline { .. })) {
            return Vec::new();
        }
        let from = now.checked_sub(self.plan.healthy_for).unwrap_or(Timestamp::MIN);
        self.memories.iter().map(|memory| sum(memory.since(from))).collect()
    }

    /// Whether the latest reading of every signal that a rollback rule needs could be read.
    fn in_sight(&self) -> bool {
        let readable = |place: &usize| {
            let last = self.memories.get(*place).and_then(Memory::last);
            matches!(last, Some((_, Last::Good | Last::Bad, _)))
        };
        self.decisive().flat_map(|one| &one.signals).all(readable)
    }

    /// What it judges by.
    pub const fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The readings that it remembers, in order of time, as samples: what another judge has to see to go on like this one.
    pub fn remembered(&self) -> Vec<(usize, Sample)> {
        let of =
            |(place, memory): (usize, &Memory)| memory.samples().map(move |sample| (place, sample)).collect::<Vec<_>>();
        let mut all: Vec<(usize, Sample)> = self.memories.iter().enumerate().flat_map(of).collect();
        all.sort_by_key(|(_, sample)| sample.at);
        all
    }

    /// The signals as of the last assessment, in configured order.
    pub fn signals(&self) -> Vec<SignalView> {
        self.plan
            .signals
            .iter()
            .zip(&self.memories)
            .enumerate()
            .map(|(place, (signal, memory))| {
                let last = memory.last();
                let rests = |one: &&Watched| one.state == RuleState::Breached && one.signals.contains(&place);
                let verdict = match last {
                    _ if self.rules.iter().any(|one| rests(&one)) => Verdict::Breached,
                    Some((_, Last::Good, _)) => Verdict::Healthy,
                    Some((_, Last::Bad, _)) => Verdict::Suspect,
                    Some((_, Last::Unreadable, _)) | None => Verdict::Blind,
                };
                SignalView {
                    name: signal.name.clone(),
                    verdict,
                    last_sample_at: last.map(|(at, ..)| at),
                    error_ratio: memory.error_ratio(),
                    consecutive_bad: memory.bad_in_a_row(),
                    good_since: memory.good().map(|(since, _)| since),
                    reason: last.and_then(|(_, _, reason)| reason).map(str::to_owned),
                }
            })
            .collect()
    }

    /// The rules as of the last assessment, in configured order.
    pub fn rules(&self) -> Vec<RuleView> {
        self.rules
            .iter()
            .map(|one| RuleView { name: one.rule.name.clone(), state: one.state, then: one.rule.then })
            .collect()
    }

    /// When an assessment could say something else without a new sample: a `confirm` passes, a signal gets out of
    /// sight, a breach outlives its evidence, good readings get too old for the warm-up.
    ///
    /// That samples leave the window of an error ratio is not among it: rules are evaluated on new samples.
    pub fn next_change(&self, now: Timestamp) -> Option<Timestamp> {
        let confirmed = self.rules.iter().filter(|one| one.state == RuleState::Suspect).filter_map(|one| one.since);
        let confirmed = confirmed.map(|since| later(since, self.plan.decision.confirm));
        let outlived = self.rules.iter().filter_map(|one| one.outlives);
        let lost =
            self.memories.iter().enumerate().map(|(at, memory)| later(memory.seen_at(), patience(&self.plan, at)));
        let stale = self
            .memories
            .iter()
            .enumerate()
            .filter_map(|(at, memory)| memory.good().map(|(_, latest)| later(latest, freshness(&self.plan, at))));
        confirmed.chain(outlived).chain(lost).chain(stale).filter(|at| *at > now).min()
    }

    /// The time to assess at. What is dated a little ahead of `now` counts as of now; what is dated further ahead
    /// was read before the clock was set back, and is forgotten.
    fn settle_clock(&mut self, now: Timestamp) -> Timestamp {
        let limit = later(now, SKEW);
        for memory in &mut self.memories {
            if memory.last().is_some_and(|(at, ..)| at > limit) || memory.seen_at() > limit {
                memory.forget_after(now);
            }
        }
        self.memories.iter().filter_map(Memory::last).map(|(at, ..)| at).fold(now, Ord::max)
    }

    /// Whether a signal is out of sight.
    fn is_lost(&self, signal: usize, now: Timestamp) -> bool {
        self.memories
            .get(signal)
            .is_some_and(|memory| now.duration_since(memory.seen_at()) >= patience(&self.plan, signal))
    }

    /// The rules that can start a rollback.
    fn decisive(&self) -> impl Iterator<Item = &Watched> {
        self.rules.iter().filter(|one| one.rule.then == Consequence::Rollback)
    }

    /// What the rollback rules say together.
    fn verdict(&self) -> Verdict {
        let count = |state| self.decisive().filter(|one| one.state == state).count();
        let breached = count(RuleState::Breached);
        let needed = usize::try_from(self.plan.decision.at_least).unwrap_or(usize::MAX).max(1);
        if breached >= needed {
            Verdict::Breached
        } else if count(RuleState::Blind) > 0 {
            Verdict::Blind
        } else if breached > 0 || count(RuleState::Suspect) > 0 {
            Verdict::Suspect
        } else {
            Verdict::Healthy
        }
    }

    /// A sentence for each signal that a rollback rule needs and that is out of sight.
    fn blind(&self, lost: &[bool]) -> Vec<String> {
        let needed = |place: &usize| self.decisive().any(|one| one.signals.contains(place));
        lost.iter()
            .enumerate()
            .filter(|(place, lost)| **lost && needed(place))
            .filter_map(|(place, _)| {
                let (signal, memory) = (self.plan.signals.get(place)?, self.memories.get(place)?);
                let since = clock(memory.seen_at());
                Some(match memory.last() {
                    Some((_, Last::Unreadable, Some(reason))) if memory.was_seen() => {
                        format!("signal {} could not be read since {since}: {reason}", signal.name)
                    }
                    Some((_, Last::Unreadable, Some(reason))) => {
                        format!("signal {} could never be read, watched since {since}: {reason}", signal.name)
                    }
                    Some(_) => format!("signal {} has given no reading since {since}", signal.name),
                    None => format!("signal {} has given no reading at all, watched since {since}", signal.name),
                })
            })
            .collect()
    }

    /// Since when every signal has been good, or a sentence for each that is not.
    fn health(&self, now: Timestamp) -> (Option<Timestamp>, Vec<String>) {
        let mut since = None;
        let mut unhealthy = Vec::new();
        for (place, (signal, memory)) in self.plan.signals.iter().zip(&self.memories).enumerate() {
            match memory.good() {
                Some((good_since, latest)) if now.duration_since(latest) < freshness(&self.plan, place) => {
                    since = since.max(Some(good_since));
                }
                good => unhealthy.push(ailment(&signal.name, memory, good)),
            }
        }
        if self.memories.is_empty() {
            unhealthy.push("no signal is watched".to_owned());
        }
        (since.filter(|_| unhealthy.is_empty()), unhealthy)
    }
}

impl Watched {
    fn new(plan: &Plan, rule: &Rule) -> Self {
        let signals: Vec<usize> = (0..plan.signals.len())
            .filter(|place| plan.signals.get(*place).is_some_and(|signal| rule.signals.contains(&signal.name)))
            .collect();
        let patience = signals.iter().map(|place| patience(plan, *place)).max().unwrap_or(plan.decision.blind_after);
        Self { rule: rule.clone(), signals, patience, since: None, outlives: None, state: RuleState::Quiet }
    }

    /// Takes in what was found now.
    fn settle(&mut self, holding: Option<&Holding>, blind: bool, confirm: SignedDuration, now: Timestamp) {
        let was_breached = self.state == RuleState::Breached;
        let since = holding.map(|holding| self.since.unwrap_or(holding.began).min(now));
        let recent = holding.map(|holding| later(holding.latest_bad, self.patience)).filter(|until| *until > now);
        self.state = match since {
            _ if blind && !(was_breached && recent.is_some()) => RuleState::Blind,
            None => RuleState::Quiet,
            // Confirmed before the signal was lost, or now.
            Some(since) if blind || now.duration_since(since) >= confirm => RuleState::Breached,
            Some(_) => RuleState::Suspect,
        };
        // Time out of sight confirms nothing.
        self.since = since.filter(|_| self.state != RuleState::Blind);
        self.outlives = recent.filter(|_| self.state == RuleState::Breached);
    }
}

/// An empty memory that goes as far back as the rules that look at the signal.
fn remember(plan: &Plan, signal: usize, now: Timestamp) -> Memory {
    let (mut span, mut count) = (SignedDuration::ZERO, 0);
    let name = plan.signals.get(signal).map(|signal| signal.name.as_str());
    for rule in plan.rules.iter().filter(|rule| rule.signals.iter().any(|one| Some(one.as_str()) == name)) {
        span = rule.condition.windows().iter().copied().fold(span, Ord::max);
        match &rule.condition {
            Condition::Consecutive { count: needed } => {
                count = count.max(usize::try_from(*needed).unwrap_or(usize::MAX));
            }
            Condition::ValueAbove { hold, .. } | Condition::ValueBelow { hold, .. } => {
                // The run has to be seen from before it was long enough.
                span = span.max(hold.saturating_add(patience(plan, signal)));
            }
            Condition::TimesBaseline { .. } => span = span.max(plan.healthy_for),
            Condition::ErrorRatioAbove { .. } | Condition::LatencyAbove { .. } | Condition::BurnRateAbove { .. } => {}
        }
    }
    Memory::new(span, count, now)
}

/// How long a signal may go without a readable sample before it is out of sight.
fn patience(plan: &Plan, signal: usize) -> SignedDuration {
    let turn = plan.signals.get(signal).map(|signal| signal.every.saturating_add(signal.timeout));
    turn.unwrap_or(SignedDuration::ZERO).max(plan.decision.blind_after)
}

/// The age at which a signal's latest good reading no longer makes it count as good.
fn freshness(plan: &Plan, signal: usize) -> SignedDuration {
    plan.signals.get(signal).map_or(SignedDuration::ZERO, |signal| {
        signal.every.checked_mul(3).unwrap_or(SignedDuration::MAX).saturating_add(signal.timeout)
    })
}

/// Why a signal does not count as good.
fn ailment(name: &str, memory: &Memory, good: Option<(Timestamp, Timestamp)>) -> String {
    match (memory.last(), good) {
        (None, _) => format!("signal {name} has not been read yet"),
        (Some(_), Some((_, latest))) => {
            format!("signal {name} was last good at {}, which is too long ago", clock(latest))
        }
        (Some((at, last, reason)), None) => {
            let what = if last == Last::Unreadable { "could not be read" } else { "was bad" };
            let why = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
            format!("signal {name} {what} at {}{why}", clock(at))
        }
    }
}

/// An instant later by a duration, or the last one that there is.
fn later(at: Timestamp, by: SignedDuration) -> Timestamp {
    at.checked_add(by).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod properties;
#[cfg(test)]
pub(crate) mod tests;
