//! The loop that turns events into records, and records into effects.
//!
//! ```text
//! readings ─▶ judge ─┐
//! pulses, timers ────┤
//! calls ─────────────┼─▶ decide ─▶ append ─▶ apply ─▶ pending ─▶ tasks
//! outcomes ──────────┘                                             │
//!    ▲─────────────────────────────────────────────────────────────┘
//! ```
//!
//! One task owns the state and is the only one that appends to the journal. It never does a step's work itself:
//! each effect runs as a task of its own and comes back as an event. A record is durable before anything follows
//! from it; while the journal cannot be written, the loop stands still and says so.

pub mod adapters;
mod clocks;
pub mod effects;
mod lines;
mod recording;
mod records;
pub mod snapshot;
pub mod world;
mod writing;

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rollbackd_core::judge::{Assessment, Judge};
use rollbackd_core::plan::Plan;
use rollbackd_core::run::decide::{concerns, conclude, decide};
use rollbackd_core::run::event::{DueOpening, Event, Refusal};
use rollbackd_core::run::pending::{Pending, pending};
use rollbackd_core::run::record::Entry;
use rollbackd_core::run::state::State;
use rollbackd_core::window::Schedule;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::adapters::Adapters;
use self::effects::{Effects, Report};
use self::lines::log;
use self::snapshot::{Call, Renewal, Snapshot};
use self::writing::Written;
use crate::journal::Journal;
use crate::metrics::Metrics;
use crate::samples::line::Line;
use crate::samples::recorder::Recorder;
use crate::signal::schedule::Reading;

/// The loop comes round at least this often: proof of life for the watchdog and for `/healthz`.
const BEAT: Duration = Duration::from_secs(5);
/// Snapshots that only differ in samples are published at most this often.
const SAMPLES_SHOWN_EVERY: Duration = Duration::from_millis(100);
/// How long a step in flight may take to end when the loop is asked to.
const DRAIN: Duration = Duration::from_secs(20);
/// How long notices of a settled window may take before the current configuration is taken over.
const FAREWELL: Duration = Duration::from_secs(10);
/// An opening that is older than this when it is seen was missed.
const ON_TIME: SignedDuration = SignedDuration::from_secs(90);

/// When windows open: the schedule and the zone in which it is read.
#[derive(Debug, Clone)]
pub struct Openings {
    /// The schedule.
    pub schedule: Schedule,
    /// The zone.
    pub zone: jiff::tz::TimeZone,
}

/// What the driver is made of.
pub struct Parts {
    /// What was configured; an open window keeps its own.
    pub plan: Arc<Plan>,
    /// When windows open by themselves.
    pub openings: Option<Openings>,
    /// Where records go.
    pub journal: Arc<dyn Journal>,
    /// What the journal held at the start.
    pub entries: Vec<Entry>,
    /// The outside.
    pub adapters: Arc<dyn Adapters>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Whether another configuration is to be taken over: then this run ends as soon as no window is open.
    pub renewal: watch::Receiver<Renewal>,
    /// Where samples are recorded while a window is open.
    pub recorder: Recorder,
    /// The wall clock. Waiting is tokio's, so that tests can let both go by at once.
    pub clock: fn() -> Timestamp,
    /// How long the machine has slept so far; only differences mean anything.
    pub asleep: fn() -> Duration,
}

/// What comes in from other tasks.
pub struct Inbox {
    /// Readings of signals.
    pub readings: mpsc::Receiver<Reading>,
    /// Requests of people.
    pub calls: mpsc::Receiver<Call>,
    /// "Look now", from the alarm.
    pub pulses: mpsc::Receiver<()>,
    /// Whether the database answers: `Err` with why not.
    pub database: watch::Receiver<Result<(), String>>,
}

/// Why the loop ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It was asked to.
    Asked,
    /// No window is open (any more), and another configuration is to be taken over.
    Settled,
}

/// The loop's state.
pub struct Driver {
    parts: Parts,
    state: Arc<State>,
    judge: Judge,
    assessment: Assessment,
    effects: Effects,
    reports: mpsc::Receiver<Report>,
    snapshots: watch::Sender<Arc<Snapshot>>,
    cancel: CancellationToken,
    /// From which moment on openings count.
    openings_after: Timestamp,
    next_opening: Option<Timestamp>,
    journal_error: Option<String>,
    ready: Result<(), String>,
    /// When to look at the time again. Only a look moves it to a later moment: what else comes in must not keep a timer
    /// from being heard.
    look_at: Instant,
    shown_at: Instant,
    show: Show,
    /// Since when nothing but what is owed keeps another configuration from being taken over.
    settled_at: Option<Instant>,
    /// When the time was looked at last.
    looked_at: Timestamp,
    /// What the clocks showed when the loop came round last.
    clocks: clocks::Moment,
    /// When the clock was set last, or nobody had looked.
    moved: Option<clocks::Last>,
}

/// What the loop has woken up for.
enum Turn {
    Report(Report),
    Call(Call),
    /// The time is to be looked at.
    Look,
    Reading(Reading),
    /// Something is to be shown, or it is to end.
    Round,
}

/// What has changed since the last snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Show {
    /// Nothing.
    Nothing,
    /// Samples.
    Samples,
    /// What is recorded.
    Records,
}

impl Driver {
    /// Makes the driver and takes the journal in. `cancel` ends the loop.
    ///
    /// The second value is the watch on which snapshots are published.
    pub fn new(
        parts: Parts,
        tracker: TaskTracker,
        cancel: CancellationToken,
    ) -> (Self, watch::Receiver<Arc<Snapshot>>) {
        let now = (parts.clock)();
        let state = State::replay(&parts.entries);
        let plan = state.window.as_ref().map_or_else(|| Arc::clone(&parts.plan), |window| Arc::clone(&window.plan));
        let mut judge = Judge::new(&plan, now);
        if let Some(window) = &state.window {
            judge.learn(&window.levels);
        }
        let assessment = judge.assess(now);
        let openings_after = state.last_opening.max(state.first_started_at).unwrap_or(now);
        let (outbox, reports) = mpsc::channel(256);
        let effects = Effects::new(Arc::clone(&parts.adapters), Arc::clone(&parts.metrics), tracker, outbox);
        let ready = Err("starting".to_owned());
        let first = Arc::new(Snapshot {
            at: now,
            plan,
            state: Arc::new(state.clone()),
            assessment: assessment.clone(),
            signals: judge.signals(),
            rules: judge.rules(),
            next_window_at: None,
            ready: ready.clone(),
            journal_error: None,
            renewal: parts.renewal.borrow().clone(),
        });
        let (snapshots, watch) = watch::channel(first);
        let clocks = clocks::Moment::now(&parts);
        let driver = Self {
            parts,
            state: Arc::new(state),
            judge,
            assessment,
            effects,
            reports,
            snapshots,
            cancel,
            openings_after,
            next_opening: None,
            journal_error: None,
            ready,
            look_at: Instant::now(),
            shown_at: Instant::now(),
            show: Show::Records,
            settled_at: None,
            looked_at: now,
            clocks,
            moved: None,
        };
        (driver, watch)
    }

    /// Runs until it is asked to end. Nothing that it started goes on after it but processes of the project's own;
    /// what is left undone is found at the next start.
    pub async fn run(mut self, mut inbox: Inbox) -> End {
        self.parts.entries = Vec::new();
        let version = env!("CARGO_PKG_VERSION").to_owned();
        self.recover_processes().await;
        if self.handle(Event::Restarted { version }).await.is_ok() {
            self.look().await;
        }
        loop {
            // Asked here too, because a record that could not be written at the end must not be acted upon: its step would
            // be started again.
            if self.cancel.is_cancelled() {
                self.drain().await;
                self.effects.leave();
                return End::Asked;
            }
            if self.is_through() {
                self.effects.leave();
                return End::Settled;
            }
            let now = (self.parts.clock)();
            self.effects.adjust(&self.state, &pending(&self.state, now).effects, now);
            // What has become due since the last look is still to be looked at: something else may have come in first.
            let Pending { wake_at, .. } = pending(&self.state, self.looked_at.min(now));
            self.ready.clone_from(&inbox.database.borrow());
            self.publish();
            self.look_at = self.look_at.min(Instant::now() + self.wake_in(wake_at, now));
            let show = SAMPLES_SHOWN_EVERY.saturating_sub(self.shown_at.elapsed());
            // In this order, always: what has ended and what people want comes first, and readings, of which there may be
            // a flood, keep no timer from being heard.
            let begun = Instant::now();
            let turn = tokio::select! {
                biased;
                () = self.cancel.cancelled() => Turn::Round,
                Some(report) = self.reports.recv() => Turn::Report(report),
                Some(call) = inbox.calls.recv() => Turn::Call(call),
                () = tokio::time::sleep_until(self.look_at) => Turn::Look,
                Some(()) = inbox.pulses.recv() => Turn::Look,
                Ok(()) = inbox.database.changed() => { self.show = Show::Records; Turn::Round }
                Ok(()) = self.parts.renewal.changed() => { self.show = Show::Records; Turn::Round }
                () = tokio::time::sleep(show), if self.show != Show::Nothing => Turn::Round,
                Some(reading) = inbox.readings.recv() => Turn::Reading(reading),
            };
            self.mind_the_clocks(begun, self.look_at.max(begun)).await;
            match turn {
                Turn::Report(report) => self.report(report).await,
                Turn::Call(call) => self.call(call).await,
                Turn::Look => self.look().await,
                Turn::Reading(reading) => self.reading(reading).await,
                Turn::Round => {}
            }
        }
    }

    /// Whether another configuration may be taken over now: no window is open, and what is owed is delivered or has had its
    /// time, for its contacts and servers may be gone from the configuration that comes next.
    fn is_through(&mut self) -> bool {
        if !self.is_leaving() || !self.effects.only_deliveries() {
            return false;
        }
        let since = *self.settled_at.get_or_insert_with(Instant::now);
        self.state.owed.is_empty() || since.elapsed() >= FAREWELL
    }

    /// Whether another configuration is to be taken over, and no window keeps this one.
    fn is_leaving(&self) -> bool {
        self.parts.renewal.borrow().due && self.state.window.is_none()
    }

    /// Finds the processes that the last life started and could not write down any more: they must not be taken for gone.
    async fn recover_processes(&mut self) {
        let Some(window) = &self.state.window else { return };
        let lost = window.in_flight.iter().filter(|running| running.process.is_none() && running.step.starts_process());
        let found: Vec<Event> = lost
            .filter_map(|running| {
                let process = self.parts.adapters.lost_process(&window.id, running.number)?;
                Some(Event::ProcessStarted { step: running.number, process })
            })
            .collect();
        for event in found {
            self.handle(event).await.ok();
        }
    }

    /// Writes down what was reported, and lets a short step in flight reach its end, without starting another. What may
    /// take long is not waited for: the next start finds out what became of it.
    async fn drain(&mut self) {
        let end = Instant::now() + DRAIN;
        loop {
            let report = match self.reports.try_recv() {
                Ok(report) => Some(report),
                Err(_) if self.effects.short_steps() == 0 => return,
                Err(_) => tokio::time::timeout_at(end, self.reports.recv()).await.ok().flatten(),
            };
            let Some(report) = report else {
                tracing::warn!(event = "shutdown.laggard", steps = ?self.effects.names(), "steps are left in flight");
                return;
            };
            let Some(event) = self.event(report) else { continue };
            let entries = conclude(&self.state, &self.parts.plan, (self.parts.clock)(), event);
            let journal = Arc::clone(&self.parts.journal);
            let written = entries.clone();
            let appended = tokio::task::spawn_blocking(move || journal.append(&written));
            if let Ok(Ok(Ok(()))) = tokio::time::timeout_at(end, appended).await {
                self.take(&entries);
            } else {
                tracing::error!(event = "journal.failed", "the end of a step could not be written down");
                return;
            }
        }
    }

    /// How long to sleep when nothing comes in.
    fn wake_in(&self, wake_at: Option<Timestamp>, now: Timestamp) -> Duration {
        let due = [wake_at, self.judge.next_change(now)].into_iter().flatten().min();
        let until = due.map_or(BEAT, |due| Duration::try_from(due.duration_since(now)).unwrap_or(Duration::ZERO));
        // A millisecond more, because wall-clock records are cut to milliseconds.
        (until + Duration::from_millis(1)).min(BEAT)
    }

    /// Looks at the time: rules that change without samples, timers, openings.
    async fn look(&mut self) {
        self.look_at = Instant::now() + BEAT;
        let now = (self.parts.clock)();
        self.parts.recorder.write(Line::look(now));
        self.assess(now).await;
        self.looked_at = (self.parts.clock)();
        let due = self.due(self.looked_at);
        self.handle(Event::Pulse { due }).await.ok();
    }

    fn due(&self, now: Timestamp) -> Vec<DueOpening> {
        let Some(openings) = self.parts.openings.as_ref().filter(|_| !self.is_leaving()) else { return Vec::new() };
        let after = self.state.last_opening.map_or(self.openings_after, |last| last.max(self.openings_after));
        openings.schedule.due(&openings.zone, after, now, ON_TIME)
    }

    async fn reading(&mut self, reading: Reading) {
        match reading {
            Reading::Sampled { signal, mut sample, aside, delay } => {
                self.date(&mut sample);
                self.parts.metrics.sampled(signal, &sample, delay);
                self.parts.metrics.aside(signal, &aside);
                self.judge.observe(signal, &sample);
                self.show = self.show.max(Show::Samples);
                let now = (self.parts.clock)();
                self.record_sample(signal, &sample, now);
                self.assess(now).await;
            }
            Reading::Skipped { signal, turns } => self.parts.metrics.skipped(signal, turns),
        }
    }

    /// Asks the judge, and hands on what it says while a window is open.
    async fn assess(&mut self, now: Timestamp) {
        self.assessment = self.judge.assess(now);
        if concerns(&self.state, &self.assessment) {
            self.handle(Event::Assessed(self.assessment.clone())).await.ok();
        }
    }

    async fn report(&mut self, report: Report) {
        if let Some(event) = self.event(report) {
            self.handle(event).await.ok();
        }
    }

    /// The event that a report is, if it is one: steps are numbered window by window, so a late report of a settled
    /// window's step must not be taken for the same number of the next.
    fn event(&mut self, report: Report) -> Option<Event> {
        let (effect, event, ended) = match report {
            Report::Process { effect, step, process } => (effect, Event::ProcessStarted { step, process }, false),
            Report::StepEnded { effect, step, outcome } => {
                (effect, Event::StepEnded { step, outcome: Box::new(outcome) }, true)
            }
            Report::Delivered { effect, notice, channel, result } => {
                (effect, Event::NoticeSettled { notice, channel, result }, true)
            }
        };
        if ended {
            self.effects.ended(&effect);
        }
        Effects::is_current(&effect, &self.state).then_some(event)
    }

    async fn call(&mut self, call: Call) {
        match call {
            Call::Request { request, reply } => {
                tracing::info!(
                    event = "request.received",
                    who = request.who,
                    ask = ?request.ask,
                    reason = request.reason,
                    "a request"
                );
                let answer = if self.is_leaving() {
                    Err(Refusal { message: "the current configuration is being taken over; ask again soon".to_owned() })
                } else {
                    self.handle(Event::Requested(request)).await
                };
                let window = self.state.window.as_ref().map(|window| window.id.clone());
                // Who looks after the answer sees what came of it.
                self.publish();
                if reply.send(answer.map(|()| window)).is_err() {
                    tracing::debug!(event = "request.unheard", "nobody waits for the answer any more");
                }
            }
            Call::Records { window, reply } => self.read_records(window, reply),
            Call::Lines { from, reply } => self.read_lines(from, reply),
        }
    }

    /// Decides, appends, applies. What could not be written is decided anew once it can be, so that no step is started
    /// with a deadline from before, and no opening that is too old by then.
    async fn handle(&mut self, mut event: Event) -> Result<(), Refusal> {
        loop {
            if let Event::Pulse { due } = &mut event {
                *due = self.due((self.parts.clock)());
            }
            let decided = decide(&self.state, &self.parts.plan, (self.parts.clock)(), event.clone());
            let entries = decided.inspect_err(|_refusal| self.journal_error = None)?;
            if entries.is_empty() {
                self.journal_error = None;
                return Ok(());
            }
            match self.append(&entries).await {
                Written::Yes => {
                    self.take(&entries);
                    self.let_go(&entries).await;
                    return Ok(());
                }
                Written::No => {}
                Written::Ending => {
                    let message = "the journal cannot be written and rollbackd is ending".to_owned();
                    return Err(Refusal { message });
                }
            }
        }
    }

    /// Takes in what is durable.
    fn take(&mut self, entries: &[Entry]) {
        let state = Arc::make_mut(&mut self.state);
        for entry in entries {
            state.apply(entry);
            log(entry);
            self.effects.note(entry);
        }
        self.show = Show::Records;
        self.follow_recording(entries);
    }

    /// Shows the current state, if it is worth it.
    fn publish(&mut self) {
        let pause = match self.show {
            Show::Nothing => BEAT,
            Show::Samples => SAMPLES_SHOWN_EVERY,
            Show::Records => Duration::ZERO,
        };
        if self.shown_at.elapsed() < pause {
            return;
        }
        let now = (self.parts.clock)();
        let ready = match &self.journal_error {
            Some(error) => Err(error.clone()),
            None => self.ready.clone(),
        };
        let window = self.state.window.as_ref();
        // Searching the calendar is not free, so it is done once an opening.
        if self.next_opening.is_none_or(|next| next <= now) {
            let openings = self.parts.openings.as_ref();
            self.next_opening = openings.and_then(|openings| openings.schedule.next_after(&openings.zone, now));
        }
        let snapshot = Snapshot {
            at: now,
            plan: window.map_or_else(|| Arc::clone(&self.parts.plan), |window| Arc::clone(&window.plan)),
            state: Arc::clone(&self.state),
            assessment: self.assessment.clone(),
            signals: self.judge.signals(),
            rules: self.judge.rules(),
            next_window_at: self.next_opening,
            ready,
            journal_error: self.journal_error.clone(),
            renewal: self.parts.renewal.borrow().clone(),
        };
        self.parts.metrics.observe(&snapshot);
        self.snapshots.send_replace(Arc::new(snapshot));
        self.show = Show::Nothing;
        self.shown_at = Instant::now();
    }
}

#[cfg(test)]
pub(crate) mod tests;
