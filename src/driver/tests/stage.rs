//! A driver on its stage: virtual clocks, a plan, signals that are read, and everything that can be asked.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rollbackd_core::plan::{GatePlan, Plan};
use rollbackd_core::run::event::{Ask, Refusal, Request};
use rollbackd_core::run::record::{Entry, WindowOutcome};
use rollbackd_core::sample::{Reading as Read, Sample};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::journal::TestJournal;
use super::outside::Outside;
use crate::driver::adapters::Adapters;
use crate::driver::snapshot::{Call, Renewal, Snapshot};
use crate::driver::{Driver, End, Inbox, Openings, Parts};
use crate::journal::Journal;
use crate::metrics::Metrics;
use crate::samples::recorder::Recorder;
use crate::server::fixture;
use crate::signal::Aside;
use crate::signal::schedule::Reading;

/// No test lasts longer, in virtual time.
const PATIENCE: Duration = Duration::from_secs(4 * 3600);

thread_local! {
    static FROM: Cell<Option<Instant>> = const { Cell::new(None) };
    static SET: Cell<i64> = const { Cell::new(0) };
    static ASLEEP: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// The wall clock of a test: begins at the opening and follows tokio's time, unless it is set.
pub(super) fn now() -> Timestamp {
    let from = FROM.get().expect("a stage");
    let passed = i64::try_from(from.elapsed().as_millis()).unwrap();
    fixture::at("02:00:00") + SignedDuration::from_millis(passed + SET.get())
}

/// Sets the wall clock by so many milliseconds, against what it would show otherwise.
pub(super) fn set_clock(milliseconds: i64) {
    SET.set(milliseconds);
}

/// How long the machine of a test has slept.
fn asleep() -> Duration {
    ASLEEP.get()
}

/// The machine sleeps: no time passes but on the wall.
pub(super) fn suspend(time: Duration) {
    ASLEEP.set(ASLEEP.get() + time);
    SET.set(SET.get() + i64::try_from(time.as_millis()).unwrap());
}

/// The runbook's window: a migration of ours, a gate, two rungs that ask nobody.
pub(super) fn plan() -> Plan {
    let mut plan = fixture::plan();
    plan.window.command = Some(vec!["supabase".to_owned(), "db".to_owned(), "push".to_owned()]);
    plan.rollback.gates = vec![GatePlan {
        name: "edge".to_owned(),
        required: true,
        manual_stop: "touch stop".to_owned(),
        manual_start: "rm stop".to_owned(),
    }];
    for rung in &mut plan.rollback.rungs {
        rung.needs_approval = false;
    }
    plan
}

/// What outlives a driver.
pub(super) struct Stage {
    pub(super) plan: Plan,
    pub(super) journal: Arc<TestJournal>,
    pub(super) outside: Arc<Outside>,
    pub(super) openings: Option<Openings>,
    /// What is to come of the configuration's file.
    pub(super) renewal: watch::Sender<Renewal>,
}

/// A driver at work.
pub(super) struct Running {
    pub(super) snapshots: watch::Receiver<Arc<Snapshot>>,
    pub(super) readings: mpsc::Sender<Reading>,
    pub(super) calls: mpsc::Sender<Call>,
    pub(super) pulses: mpsc::Sender<()>,
    pub(super) database: watch::Sender<Result<(), String>>,
    pub(super) cancel: CancellationToken,
    pub(super) driver: JoinHandle<End>,
    pub(super) tracker: TaskTracker,
}

impl Stage {
    pub(super) fn new() -> Self {
        FROM.set(Some(Instant::now()));
        SET.set(0);
        ASLEEP.set(Duration::ZERO);
        let journal = Arc::new(TestJournal::default());
        let outside = Arc::new(Outside::new(Arc::clone(&journal)));
        Self { plan: plan(), journal, outside, openings: None, renewal: watch::Sender::default() }
    }

    /// Starts a driver over the journal, with signals that are read as their plan says.
    pub(super) fn start(&self) -> Running {
        let running = self.start_unread();
        let (readings, outside) = (running.readings.clone(), Arc::clone(&self.outside));
        let cancel = running.cancel.clone();
        running.tracker.spawn(async move {
            while !cancel.is_cancelled() {
                for signal in 0..2 {
                    let bad = signal == 0 && outside.sick();
                    let read = if bad { Read::bad("refused") } else { Read::good() };
                    if readings.send(sampled(signal, read)).await.is_err() {
                        return;
                    }
                }
                sleep(Duration::from_secs(5)).await;
            }
        });
        running
    }

    /// The same without anybody who reads the signals.
    pub(super) fn start_unread(&self) -> Running {
        let journal = Arc::clone(&self.journal) as Arc<dyn Journal>;
        let parts = parts(Arc::new(self.plan.clone()), journal, self.journal.entries(), Arc::clone(&self.outside) as _);
        launch(Parts { openings: self.openings.clone(), renewal: self.renewal.subscribe(), ..parts })
    }
}

/// What a driver in virtual time is made of, without a schedule.
pub(super) fn parts(
    plan: Arc<Plan>,
    journal: Arc<dyn Journal>,
    entries: Vec<Entry>,
    adapters: Arc<dyn Adapters>,
) -> Parts {
    Parts {
        metrics: Arc::new(Metrics::new(&plan).unwrap()),
        plan,
        openings: None,
        journal,
        entries,
        adapters,
        renewal: watch::Sender::default().subscribe(),
        recorder: Recorder::off(),
        clock: now,
        asleep,
    }
}

/// Starts a driver.
pub(super) fn launch(parts: Parts) -> Running {
    let (tracker, cancel) = (TaskTracker::new(), CancellationToken::new());
    let (driver, snapshots) = Driver::new(parts, tracker.clone(), cancel.clone());
    let (readings, read) = mpsc::channel(1024);
    let (calls, called) = mpsc::channel(64);
    let (pulses, looks) = mpsc::channel(8);
    let (database, seen) = watch::channel(Ok(()));
    let inbox = Inbox { readings: read, calls: called, pulses: looks, database: seen };
    let driver = tracker.spawn(driver.run(inbox));
    Running { snapshots, readings, calls, pulses, database, cancel, driver, tracker }
}

/// A reading that was made now.
pub(super) fn sampled(signal: usize, reading: Read) -> Reading {
    let sample = Sample { at: now(), took: SignedDuration::ZERO, reading };
    Reading::Sampled { signal, sample, aside: Aside::default(), delay: Duration::ZERO }
}

impl Running {
    /// Waits until something can be seen.
    pub(super) async fn until(&mut self, what: &str, seen: impl Fn(&Snapshot) -> bool) -> Arc<Snapshot> {
        let waiting = timeout(PATIENCE, self.snapshots.wait_for(|snapshot| seen(snapshot))).await;
        let snapshot = waiting.unwrap_or_else(|_late| panic!("it was never seen: {what}"));
        Arc::clone(&snapshot.unwrap_or_else(|_gone| panic!("the driver ended before: {what}")))
    }

    /// Waits until something holds that cannot be seen in a snapshot.
    pub(super) async fn wait(&self, what: &str, holds: impl Fn() -> bool) {
        let waiting = async {
            while !holds() {
                sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("it never came to it: {what}"));
    }

    /// Waits until so many windows are settled, and says how the last ended.
    pub(super) async fn settled(&mut self, windows: usize) -> WindowOutcome {
        let snapshot = self.until("a settled window", |snapshot| snapshot.state.history.len() == windows).await;
        snapshot.state.history.last().unwrap().outcome
    }

    /// Waits until a step of this name is in flight.
    pub(super) async fn in_flight(&mut self, step: &str) {
        self.until(step, |snapshot| {
            let window = snapshot.state.window.as_ref();
            window.is_some_and(|window| window.in_flight.iter().any(|running| running.step.name() == step))
        })
        .await;
    }

    pub(super) async fn ask(&self, ask: Ask) -> Result<Option<String>, Refusal> {
        self.send(ask).await.await.expect("an answer")
    }

    /// Asks without waiting for the answer.
    pub(super) async fn send(&self, ask: Ask) -> oneshot::Receiver<Result<Option<String>, Refusal>> {
        let (reply, answer) = oneshot::channel();
        let request = Request { who: "ann".to_owned(), reason: "release 12".to_owned(), ask };
        self.calls.send(Call::Request { request, reply }).await.expect("a driver");
        answer
    }

    pub(super) async fn open(&self) -> String {
        self.ask(Ask::Open { guard: false }).await.expect("it opens").expect("an id")
    }

    pub(super) async fn records(&self, window: Option<&str>) -> Result<Vec<Entry>, String> {
        let (reply, answer) = oneshot::channel();
        let window = window.map(str::to_owned);
        self.calls.send(Call::Records { window, reply }).await.expect("a driver");
        answer.await.expect("an answer")
    }

    /// Asks the driver to end, and says how long that took.
    pub(super) async fn stop(self) -> (End, Duration) {
        let began = Instant::now();
        self.cancel.cancel();
        let end = timeout(PATIENCE, self.driver).await.expect("it ends").expect("it does not panic");
        (end, began.elapsed())
    }

    /// Ends the driver like a crash.
    pub(super) async fn crash(self) {
        self.driver.abort();
        assert!(self.driver.await.unwrap_err().is_cancelled());
        self.cancel.cancel();
    }
}
