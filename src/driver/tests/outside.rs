//! The outside as a script: what each step does, and what was asked of it.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rollbackd_core::baseline::{Baseline, Catalog, Difference, ObjectId, ObjectKind};
use rollbackd_core::notice::Notice;
use rollbackd_core::run::record::Process;
use rollbackd_core::run::step::{Finding, Outcome, Step};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use super::journal::TestJournal;
use super::stage;
use crate::driver::adapters::{Adapters, Assignment, Attempted, Boxed};

/// What a step or a delivery does.
#[derive(Debug, Clone)]
pub(super) enum Does {
    /// Succeeds after a time.
    Succeeds(Duration),
    Fails(&'static str),
    /// Never ends, whatever it is asked.
    Never,
    /// The same, and the channel for its process never closes.
    NeverAndKeepsTheChannel,
    /// Ends so long after it is asked to, and not before.
    UntilAsked(Duration),
    /// Tells of a process, then goes on like another.
    Process(Box<Does>),
    /// Waits, then goes on like another.
    Later(Duration, Box<Does>),
}

/// A step that was asked for.
#[derive(Debug, Clone)]
pub(super) struct Performed {
    pub(super) number: u64,
    pub(super) step: Step,
    pub(super) within: Duration,
}

/// A delivery that was begun, and when it ended, if it did.
#[derive(Debug, Clone)]
pub(super) struct Delivery {
    pub(super) notice: String,
    pub(super) contact: String,
    pub(super) channel: String,
    pub(super) began: Instant,
    pub(super) ended: Option<Instant>,
}

pub(super) struct Outside {
    journal: Arc<TestJournal>,
    scripts: Mutex<HashMap<String, VecDeque<Does>>>,
    performed: Mutex<Vec<Performed>>,
    deliveries: Mutex<Vec<Delivery>>,
    kept: Mutex<Vec<mpsc::Sender<Process>>>,
    /// Whether something of the migration is there.
    pub(super) migrated: AtomicBool,
    /// Whether the migration breaks the application.
    pub(super) breaks: AtomicBool,
    /// Whether the step that never ends was asked to.
    pub(super) asked: AtomicBool,
}

pub(super) const PROCESS: fn() -> Process = || Process { pid: 4711, start_ticks: 12, boot_id: "b3".to_owned() };

impl Outside {
    pub(super) fn new(journal: Arc<TestJournal>) -> Self {
        Self {
            journal,
            scripts: Mutex::default(),
            performed: Mutex::default(),
            deliveries: Mutex::default(),
            kept: Mutex::default(),
            migrated: AtomicBool::new(false),
            breaks: AtomicBool::new(false),
            asked: AtomicBool::new(false),
        }
    }

    /// What the next step of this name does, or the next delivery on this channel; then the one after it.
    pub(super) fn script(&self, name: &str, does: Does) {
        self.scripts.lock().unwrap().entry(name.to_owned()).or_default().push_back(does);
    }

    fn next(&self, name: &str) -> Does {
        let scripted = self.scripts.lock().unwrap().get_mut(name).and_then(VecDeque::pop_front);
        scripted.unwrap_or(Does::Succeeds(Duration::from_secs(1)))
    }

    pub(super) fn performed(&self) -> Vec<Performed> {
        self.performed.lock().unwrap().clone()
    }

    /// The names of the steps performed, in order.
    pub(super) fn names(&self) -> Vec<&'static str> {
        self.performed().iter().map(|one| one.step.name()).collect()
    }

    pub(super) fn deliveries(&self) -> Vec<Delivery> {
        self.deliveries.lock().unwrap().clone()
    }

    /// The signal that a rule rests on is bad.
    pub(super) fn sick(&self) -> bool {
        self.migrated.load(Ordering::SeqCst) && self.breaks.load(Ordering::SeqCst)
    }

    async fn play(&self, does: Does, assignment: &Assignment) -> Result<(), &'static str> {
        let mut does = does;
        if let Does::Later(after, then) = does {
            sleep(after).await;
            does = *then;
        }
        if let Does::Process(then) = does {
            assignment.started.try_send(PROCESS()).unwrap();
            does = *then;
        }
        match does {
            Does::Succeeds(after) => {
                sleep(after).await;
                Ok(())
            }
            Does::Fails(reason) => Err(reason),
            Does::Never => {
                assignment.stop.cancelled().await;
                self.asked.store(true, Ordering::SeqCst);
                std::future::pending().await
            }
            Does::NeverAndKeepsTheChannel => {
                self.kept.lock().unwrap().push(assignment.started.clone());
                std::future::pending().await
            }
            Does::UntilAsked(then) => {
                assignment.stop.cancelled().await;
                self.asked.store(true, Ordering::SeqCst);
                sleep(then).await;
                Ok(())
            }
            Does::Process(_) | Does::Later(..) => Err("waiting comes first, then the process"),
        }
    }

    async fn step(&self, assignment: Assignment) -> Outcome {
        if let Step::EndProcess { .. } = assignment.step
            && let Some(other) = &assignment.other
        {
            other.stop.cancel();
            other.ended.cancelled().await;
        }
        if assignment.step == Step::Migrate {
            self.migrated.store(true, Ordering::SeqCst);
        }
        let does = self.next(assignment.step.name());
        let ended = self.play(does, &assignment).await;
        if let Err(reason) = ended {
            return Outcome::failed(reason);
        }
        if let Step::Act { .. } = assignment.step {
            self.migrated.store(false, Ordering::SeqCst);
        }
        Outcome::succeeded(
            format!("{} is done", assignment.step.name()),
            finding(&assignment.step, self.migrated.load(Ordering::SeqCst)),
        )
    }
}

/// What a step of this kind finds, when something of the migration is there or not.
pub(super) fn finding(step: &Step, migrated: bool) -> Finding {
    match step {
        Step::Backup => Finding::Backup {
            directory: "backups/1".to_owned(),
            bytes: 1,
            baseline: Arc::new(Baseline {
                format: Baseline::FORMAT,
                at: stage::now(),
                server_version: "17.2".to_owned(),
                catalog: Catalog::default(),
                counts: Vec::new(),
                identities: Vec::new(),
                prints: Vec::new(),
            }),
        },
        Step::ReadGate { .. } => Finding::Gate { prior: "open".to_owned() },
        Step::Inspect { .. } => {
            let page = || ObjectId {
                kind: ObjectKind::Table,
                schema: "public".to_owned(),
                of: None,
                name: "pages".to_owned(),
            };
            let added = if migrated { vec![page()] } else { Vec::new() };
            Finding::Difference {
                difference: Difference { added, ..Difference::default() },
                rows: Vec::new(),
                way_back: Vec::new(),
                restore: Vec::new(),
            }
        }
        Step::Preflight
        | Step::Migrate
        | Step::EndProcess { .. }
        | Step::AwaitProcess { .. }
        | Step::CloseGate { .. }
        | Step::OpenGate { .. }
        | Step::Act { .. }
        | Step::Verify { .. } => Finding::Nothing,
    }
}

impl Adapters for Outside {
    fn perform(self: Arc<Self>, assignment: Assignment) -> Boxed<'static, Outcome> {
        let durable = self.journal.in_flight(&assignment.window.id, assignment.number);
        assert!(durable, "step {} ({}) is performed and not durable", assignment.number, assignment.step.name());
        self.performed.lock().unwrap().push(Performed {
            number: assignment.number,
            step: assignment.step.clone(),
            within: assignment.within,
        });
        Box::pin(async move { self.step(assignment).await })
    }

    fn deliver(
        self: Arc<Self>,
        notice: Arc<Notice>,
        channel: String,
        attempted: Attempted,
    ) -> Boxed<'static, Result<(), String>> {
        let place = {
            let mut deliveries = self.deliveries.lock().unwrap();
            deliveries.push(Delivery {
                notice: notice.id.clone(),
                contact: notice.contact.clone(),
                channel: channel.clone(),
                began: Instant::now(),
                ended: None,
            });
            deliveries.len() - 1
        };
        Box::pin(async move {
            let result = match self.next(&channel) {
                Does::Succeeds(after) => {
                    sleep(after).await;
                    Ok(())
                }
                Does::Fails(reason) => Err(reason.to_owned()),
                Does::Never
                | Does::NeverAndKeepsTheChannel
                | Does::UntilAsked(_)
                | Does::Process(_)
                | Does::Later(..) => std::future::pending().await,
            };
            attempted(None);
            self.deliveries.lock().unwrap()[place].ended = Some(Instant::now());
            result
        })
    }
}
