//! An outside in which anything can go wrong, at random.
//!
//! It keeps what is true (is something of the migration there, is traffic stopped, what runs), so that what the records
//! say can be held against it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::SeedableRng as _;
use rand::{Rng as _, seq::IndexedRandom as _};
use rand_chacha::ChaCha8Rng;
use rollbackd_core::notice::Notice;
use rollbackd_core::plan::Stage;
use rollbackd_core::run::record::Process;
use rollbackd_core::run::step::{CheckResult, Finding, Outcome, Step};
use tokio::time::{Instant, sleep};

use super::super::outside::finding;
use super::auditor::Auditor;
use crate::driver::adapters::{Adapters, Assignment, Attempted, Boxed};

/// The outside.
pub(super) struct Weather {
    auditor: Arc<Auditor>,
    inner: Mutex<Inner>,
}

struct Inner {
    seed: u64,
    /// How often each thing was drawn for.
    drawn: BTreeMap<String, u64>,
    /// How much goes wrong: 0 to 1.
    storm: f64,
    /// Counts the lives of the program: what an earlier one began has no effect any more when it ends.
    life: u64,
    truth: Truth,
    /// Processes that run, by window and step, and until when.
    processes: BTreeMap<(String, u64), Instant>,
    faults: u64,
    wrong: Vec<String>,
}

impl Inner {
    /// Chance of its own for each thing and time, so that the order in which tasks come to run changes nothing.
    fn rng(&mut self, key: &str) -> ChaCha8Rng {
        let times = self.drawn.entry(key.to_owned()).or_default();
        *times += 1;
        let bytes = format!("{} {key} {times}", self.seed).into_bytes();
        // FNV-1a, 64 bits.
        let hash = bytes
            .iter()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
        ChaCha8Rng::seed_from_u64(hash)
    }
}

/// What is true, whatever anybody says.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Truth {
    /// Something of the migration is there.
    pub(super) migrated: bool,
    /// It breaks the application.
    pub(super) breaks: bool,
    /// Traffic is stopped.
    pub(super) stopped: bool,
}

/// What a step does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Does {
    /// What it is for.
    Works,
    /// What it is for, and says that it failed.
    WorksAndFails,
    /// Nothing, and says so.
    Fails,
    /// Nothing, and says that it worked.
    Lies,
    /// Nothing, until its time is up.
    TimesOut,
    /// Nothing, for ever.
    NeverAnswers,
}

impl Weather {
    pub(super) fn new(seed: u64, storm: f64, breaks: bool, auditor: Arc<Auditor>) -> Self {
        let inner = Inner {
            seed: seed ^ 0x5eed,
            drawn: BTreeMap::new(),
            storm,
            life: 0,
            truth: Truth { breaks, ..Truth::default() },
            processes: BTreeMap::new(),
            faults: 0,
            wrong: Vec::new(),
        };
        Self { auditor, inner: Mutex::new(inner) }
    }

    pub(super) fn truth(&self) -> Truth {
        self.inner.lock().unwrap().truth
    }

    pub(super) fn faults(&self) -> u64 {
        self.inner.lock().unwrap().faults
    }

    pub(super) fn wrong(&self) -> Vec<String> {
        self.inner.lock().unwrap().wrong.clone()
    }

    /// From now on everything works.
    pub(super) fn calm(&self) {
        self.inner.lock().unwrap().storm = 0.0;
    }

    /// An operator has put the database in order, and stopped what still ran.
    pub(super) fn tidy(&self) {
        let mut inner = self.inner.lock().unwrap();
        inner.truth.migrated = false;
        inner.processes.clear();
    }

    /// The program begins to live again; what it had begun has no effect, but for its processes.
    pub(super) fn live(&self) {
        self.inner.lock().unwrap().life += 1;
    }

    /// Whether what a signal would look at is broken.
    pub(super) fn sick(&self) -> bool {
        let truth = self.truth();
        (truth.migrated && truth.breaks) || truth.stopped
    }

    /// Draws what a step does, and how long it takes.
    fn draw(&self, step: &Step, key: &str, within: Duration) -> (Does, Duration) {
        let mut inner = self.inner.lock().unwrap();
        let (storm, mut rng) = (inner.storm, inner.rng(key));
        let does = if rng.random_bool(storm) {
            inner.faults += 1;
            let all = [Does::WorksAndFails, Does::Fails, Does::Lies, Does::TimesOut, Does::NeverAnswers];
            // A check that lies, or a look at the catalog, would leave nothing to rest on.
            let honest = matches!(step, Step::Inspect { .. } | Step::Verify { .. });
            let does = all.choose(&mut rng).copied().unwrap_or(Does::Fails);
            if does == Does::Lies && honest { Does::Fails } else { does }
        } else {
            Does::Works
        };
        let most = if matches!(step, Step::Migrate) { 240.0 } else { 8.0 };
        let slow = if rng.random_bool(storm) { 10.0 } else { 1.0 };
        let takes = Duration::from_secs_f64(rng.random_range(0.01..most) * slow);
        (does, takes.min(within))
    }

    async fn step(&self, assignment: Assignment) -> Outcome {
        let life = self.inner.lock().unwrap().life;
        let key = (assignment.window.id.clone(), assignment.number);
        let (does, takes) = self.draw(&assignment.step, &format!("{key:?}"), assignment.within);
        if let Step::EndProcess { .. } = assignment.step
            && let Some(other) = &assignment.other
        {
            other.stop.cancel();
        }
        if assignment.step == Step::Migrate {
            self.migrate(&key, does, takes, &assignment);
        }
        tokio::select! {
            biased;
            () = Self::pass(does, takes, assignment.within) => {}
            () = assignment.stop.cancelled() => {
                self.inner.lock().unwrap().processes.remove(&key);
                return Outcome::failed("it was ended");
            }
        }
        if self.inner.lock().unwrap().life != life {
            return Outcome::failed("nobody hears this");
        }
        if assignment.step == Step::Migrate {
            self.inner.lock().unwrap().processes.remove(&key);
        }
        if does == Does::TimesOut {
            return Outcome::timed_out("its time is up");
        }
        let ends = matches!(does, Does::Works | Does::WorksAndFails);
        let outcome = self.carry_out(&assignment, ends).await;
        match does {
            Does::WorksAndFails | Does::Fails => Outcome::failed("a fault"),
            Does::Works | Does::Lies | Does::TimesOut | Does::NeverAnswers => outcome,
        }
    }

    async fn pass(does: Does, takes: Duration, within: Duration) {
        match does {
            Does::TimesOut => sleep(within).await,
            Does::NeverAnswers => std::future::pending().await,
            Does::Works | Does::WorksAndFails | Does::Fails | Does::Lies => sleep(takes).await,
        }
    }

    /// The migration's process begins: its changes are there at once, and it outlives the program.
    fn migrate(&self, key: &(String, u64), does: Does, takes: Duration, assignment: &Assignment) {
        let mut inner = self.inner.lock().unwrap();
        inner.truth.migrated = does != Does::Fails;
        let until = if does == Does::NeverAnswers { Duration::from_secs(1_000_000) } else { takes };
        inner.processes.insert(key.clone(), Instant::now() + until);
        // Sometimes the program ends before it could tell of the process.
        if inner.rng(&format!("told {key:?}")).random_bool(0.9) {
            assignment.started.try_send(process(key.1)).ok();
        }
    }

    /// What the step is for.
    async fn carry_out(&self, assignment: &Assignment, really: bool) -> Outcome {
        let window = &assignment.window.id;
        match &assignment.step {
            Step::CloseGate { .. } | Step::OpenGate { .. } => {
                if really {
                    self.inner.lock().unwrap().truth.stopped = matches!(assignment.step, Step::CloseGate { .. });
                }
            }
            Step::Act { .. } => self.act(window, really),
            Step::Verify { stage } => return self.verify(*stage),
            Step::EndProcess { of } => {
                if really {
                    self.inner.lock().unwrap().processes.remove(&(window.clone(), *of));
                }
                if self.runs(window, *of) {
                    return Outcome::failed("it still runs");
                }
            }
            Step::AwaitProcess { of } => {
                let until = self.inner.lock().unwrap().processes.get(&(window.clone(), *of)).copied();
                let end = Instant::now() + assignment.within;
                tokio::time::sleep_until(until.unwrap_or_else(Instant::now).min(end)).await;
                if self.runs(window, *of) {
                    return Outcome::timed_out("it still runs");
                }
            }
            Step::Preflight | Step::Backup | Step::Migrate | Step::ReadGate { .. } | Step::Inspect { .. } => {}
        }
        let finding = finding(&assignment.step, self.truth().migrated);
        Outcome::succeeded(format!("{} is done", assignment.step.name()), finding)
    }

    fn runs(&self, window: &str, step: u64) -> bool {
        let inner = self.inner.lock().unwrap();
        inner.processes.get(&(window.to_owned(), step)).is_some_and(|until| *until > Instant::now())
    }

    fn act(&self, window: &str, really: bool) {
        let now = Instant::now();
        let mut inner = self.inner.lock().unwrap();
        if inner.processes.iter().any(|((of, _), until)| of == window && *until > now) {
            inner.wrong.push(format!("a rung acts while the migration of {window} runs"));
        }
        if really {
            inner.truth.migrated = false;
        }
    }

    fn verify(&self, stage: Stage) -> Outcome {
        let truth = self.truth();
        let reached = stage == Stage::Closed || !truth.stopped;
        let passed = reached && !(truth.migrated && truth.breaks);
        let check = CheckResult {
            name: "tables".to_owned(),
            kind: "tables".to_owned(),
            passed,
            detail: "looked at".to_owned(),
            took: jiff::SignedDuration::from_secs(1),
        };
        let outcome = if passed { Outcome::succeeded("good", Finding::Nothing) } else { Outcome::failed("not good") };
        outcome.with(Finding::Checks { checks: vec![check] })
    }
}

fn process(step: u64) -> Process {
    Process { pid: 4711, start_ticks: step, boot_id: "b3".to_owned() }
}

impl Adapters for Weather {
    fn perform(self: Arc<Self>, assignment: Assignment) -> Boxed<'static, Outcome> {
        if !self.auditor.in_flight(&assignment.window.id, assignment.number) {
            let wrong = format!("step {} is performed and not durable", assignment.number);
            self.inner.lock().unwrap().wrong.push(wrong);
        }
        Box::pin(async move { self.step(assignment).await })
    }

    fn lost_process(&self, window: &str, step: u64) -> Option<Process> {
        self.runs(window, step).then(|| process(step))
    }

    fn deliver(
        self: Arc<Self>,
        notice: Arc<Notice>,
        channel: String,
        attempted: Attempted,
    ) -> Boxed<'static, Result<(), String>> {
        let life = self.inner.lock().unwrap().life;
        Box::pin(async move {
            loop {
                let (bad, dead, takes) = {
                    let mut inner = self.inner.lock().unwrap();
                    if inner.life != life {
                        break;
                    }
                    let (storm, mut rng) = (inner.storm, inner.rng(&format!("{} {channel}", notice.id)));
                    (rng.random_bool(storm), rng.random_bool(0.1), rng.random_range(0.1..30.0))
                };
                sleep(Duration::from_secs_f64(takes)).await;
                if !bad {
                    attempted(None);
                    return Ok(());
                }
                attempted(Some("refused"));
                if dead {
                    return Err("no such mailbox".to_owned());
                }
            }
            std::future::pending().await
        })
    }
}
