//! The set of effects under way.
//!
//! [`Effects::adjust`] is handed what must be under way and makes it so: what is missing is started, what is no
//! longer wanted is asked to end. Each effect is a task of its own; its end comes back as a [`Report`].

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rollbackd_core::notice::Notice;
use rollbackd_core::run::pending::Effect;
use rollbackd_core::run::record::{Entry, Process, Record};
use rollbackd_core::run::state::State;
use rollbackd_core::run::step::{Outcome, Step};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::adapters::{Adapters, Assignment, Attempted, OtherStep};
use crate::clock::Stopwatch;
use crate::crash;
use crate::metrics::Metrics;

/// How much longer than its time a step may take before its task is given up: every adapter bounds itself, so
/// this is for the one that does not.
const OVERTIME: Duration = Duration::from_secs(90);

/// What comes back from an effect.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "reports are few, and taken in as soon as they come")]
pub enum Report {
    /// A step started a process.
    Process {
        /// The effect.
        effect: Effect,
        /// The step's number.
        step: u64,
        /// The process.
        process: Process,
    },
    /// A step ended.
    StepEnded {
        /// The effect.
        effect: Effect,
        /// The step's number.
        step: u64,
        /// How.
        outcome: Outcome,
    },
    /// A notice was acknowledged, or never will be.
    Delivered {
        /// The effect.
        effect: Effect,
        /// The notice's id.
        notice: String,
        /// The channel.
        channel: String,
        /// `Err`: why never.
        result: Result<(), String>,
    },
}

/// The set of effects under way.
pub struct Effects {
    adapters: Arc<dyn Adapters>,
    metrics: Arc<Metrics>,
    tracker: TaskTracker,
    reports: mpsc::Sender<Report>,
    running: BTreeMap<Effect, OtherStep>,
    started: HashMap<u64, (&'static str, Stopwatch, bool)>,
    /// Ends every task.
    leaving: CancellationToken,
}

impl Effects {
    /// Nothing is under way yet.
    pub fn new(
        adapters: Arc<dyn Adapters>,
        metrics: Arc<Metrics>,
        tracker: TaskTracker,
        reports: mpsc::Sender<Report>,
    ) -> Self {
        Self {
            adapters,
            metrics,
            tracker,
            reports,
            running: BTreeMap::new(),
            started: HashMap::new(),
            leaving: CancellationToken::new(),
        }
    }

    /// Runs something beside the effects, tracked like them.
    pub fn track(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tracker.spawn(task);
    }

    /// Drops what is under way. A process with an output file of its own goes on; everything else ends here.
    pub fn leave(&self) {
        self.leaving.cancel();
    }

    /// Whether no step is under way.
    pub fn only_deliveries(&self) -> bool {
        self.running.keys().all(|effect| matches!(effect, Effect::Deliver { .. }))
    }

    /// How many steps are under way that end soon by themselves.
    pub fn short_steps(&self) -> usize {
        let short = |effect: &&Effect| match effect {
            Effect::Perform { number, .. } => self.started.get(number).is_some_and(|(_, _, short)| *short),
            Effect::Deliver { .. } => false,
        };
        self.running.keys().filter(short).count()
    }

    /// The names of the steps under way.
    pub fn names(&self) -> Vec<&'static str> {
        self.started.values().map(|(name, _, _)| *name).collect()
    }

    /// Whether an effect belongs to what is going on: a step of a window that is settled does not any more.
    pub fn is_current(effect: &Effect, state: &State) -> bool {
        match effect {
            Effect::Perform { window, number } => state.step(window, *number).is_some(),
            Effect::Deliver { .. } => true,
        }
    }

    /// An effect's report has come.
    pub fn ended(&mut self, effect: &Effect) {
        self.running.remove(effect);
    }

    /// Measures steps from their durable start to their durable end.
    pub fn note(&mut self, entry: &Entry) {
        if let Record::WindowOpened { .. } = &entry.record {
            self.started.clear();
        } else if let Record::StepStarted { number, step, .. } = &entry.record {
            self.started.insert(*number, (step.name(), Stopwatch::start(), is_short(step)));
        } else if let Record::StepEnded { number, .. } = &entry.record
            && let Some((name, watch, _)) = self.started.remove(number)
        {
            self.metrics.step_ended(name, watch.elapsed());
        }
    }

    /// Makes what is under way equal to what must be.
    pub fn adjust(&mut self, state: &State, wanted: &[Effect], now: Timestamp) {
        for (effect, running) in &self.running {
            if !wanted.contains(effect) {
                running.stop.cancel();
            }
        }
        // An ended step that is still wanted has a report on its way. A delivery that was stopped has none, and is begun
        // again when it is wanted again.
        self.running.retain(|effect, running| {
            let reported = !(matches!(effect, Effect::Deliver { .. }) && running.stop.is_cancelled());
            !running.ended.is_cancelled() || (reported && wanted.contains(effect))
        });
        for effect in wanted {
            if !self.running.contains_key(effect) {
                self.start(state, effect, now);
            }
        }
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let leaving = self.leaving.clone();
        self.tracker.spawn(async move {
            leaving.run_until_cancelled(task).await;
        });
    }

    fn start(&mut self, state: &State, effect: &Effect, now: Timestamp) {
        let control = OtherStep { stop: CancellationToken::new(), ended: CancellationToken::new() };
        let task = match effect {
            Effect::Perform { window, number } => self.step(state, effect, (window, *number), &control, now),
            Effect::Deliver { notice, contact, channel } => {
                self.delivery(state, effect, (notice, contact, channel), &control)
            }
        };
        if task {
            self.running.insert(effect.clone(), control);
        }
    }

    fn step(
        &self,
        state: &State,
        effect: &Effect,
        (window, number): (&str, u64),
        control: &OtherStep,
        now: Timestamp,
    ) -> bool {
        let (Some(running), Some(open)) = (state.step(window, number), &state.window) else { return false };
        let within = Duration::try_from(running.deadline.duration_since(now)).unwrap_or(Duration::ZERO);
        let other = match running.step {
            Step::EndProcess { of } | Step::AwaitProcess { of } => {
                self.running.get(&Effect::Perform { window: window.to_owned(), number: of }).cloned()
            }
            Step::Preflight
            | Step::Backup
            | Step::Migrate
            | Step::ReadGate { .. }
            | Step::CloseGate { .. }
            | Step::OpenGate { .. }
            | Step::Inspect { .. }
            | Step::Act { .. }
            | Step::Verify { .. } => None,
        };
        let (started, mut processes) = mpsc::channel(1);
        let assignment = Assignment {
            window: Arc::new(open.clone()),
            number,
            step: running.step.clone(),
            within,
            stop: control.stop.clone(),
            other,
            started,
        };
        let name = running.step.name();
        let work = Arc::clone(&self.adapters).perform(assignment);
        let (reports, effect, ended) = (self.reports.clone(), effect.clone(), control.ended.clone());
        self.spawn(async move {
            crash::point(crash::Point::BeforeEffect);
            let mut work = std::pin::pin!(tokio::time::timeout(within + OVERTIME, work));
            // A process is told of before the step's end, and whoever keeps the channel does not hold up the end.
            let outcome = loop {
                tokio::select! {
                    biased;
                    Some(process) = processes.recv() => {
                        send(&reports, Report::Process { effect: effect.clone(), step: number, process }).await;
                    }
                    outcome = &mut work => break outcome,
                }
            };
            crash::point(crash::Point::AfterEffect);
            if let Ok(process) = processes.try_recv() {
                send(&reports, Report::Process { effect: effect.clone(), step: number, process }).await;
            }
            let outcome = outcome
                .unwrap_or_else(|_| Outcome::timed_out(format!("{name} did not end in its time and was given up")));
            send(&reports, Report::StepEnded { effect, step: number, outcome }).await;
            ended.cancel();
        });
        true
    }

    fn delivery(
        &self,
        state: &State,
        effect: &Effect,
        (notice, contact, channel): (&str, &str, &str),
        control: &OtherStep,
    ) -> bool {
        let Some(owed) = state.owed.iter().find(|owed| owed.notice.id == notice) else { return false };
        let notice: Arc<Notice> = Arc::new(owed.notice.clone());
        let id = notice.id.clone();
        let metrics = Arc::clone(&self.metrics);
        let (told, label) = (contact.to_owned(), channel.to_owned());
        let attempted: Attempted =
            Arc::new(move |failure: Option<&str>| metrics.notice_attempted(&told, &label, failure));
        let work = Arc::clone(&self.adapters).deliver(notice, channel.to_owned(), attempted);
        let (reports, effect, control) = (self.reports.clone(), effect.clone(), control.clone());
        let channel = channel.to_owned();
        self.spawn(async move {
            tokio::select! {
                biased;
                () = control.stop.cancelled() => {}
                result = async {
                    crash::point(crash::Point::BeforeDelivery);
                    let result = work.await;
                    crash::point(crash::Point::AfterDelivery);
                    result
                } => send(&reports, Report::Delivered { effect, notice: id, channel, result }).await,
            }
            control.ended.cancel();
        });
        true
    }
}

/// Whether a step ends soon by itself and is worth waiting for at the end. The others may take as long as the project's
/// processes and the database's size want, and are safe to leave: processes go on, transactions are taken back, and
/// what only looks or copies is done again.
const fn is_short(step: &Step) -> bool {
    match step {
        Step::Preflight | Step::Backup | Step::Migrate | Step::AwaitProcess { .. } | Step::Act { .. } => false,
        Step::EndProcess { .. }
        | Step::ReadGate { .. }
        | Step::CloseGate { .. }
        | Step::OpenGate { .. }
        | Step::Inspect { .. }
        | Step::Verify { .. } => true,
    }
}

/// The driver may be gone already, at shutdown: then the next start finds out.
async fn send(reports: &mpsc::Sender<Report>, report: Report) {
    if reports.send(report).await.is_err() {
        tracing::debug!(event = "effect.unheard", "an effect ended after the driver");
    }
}
