//! Puts the parts together: driver, signals, alarm, server, service manager.
//!
//! `rollbackd run` and `rollbackd guard` are the same runtime; they differ in who opens the window and in when it
//! is over. Nothing is decided here.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use rollbackd_core::plan::Plan;
use rollbackd_core::run::event::{Ask, Refusal, Request};
use rollbackd_core::run::record::Entry;
use rollbackd_core::run::state::Window;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::alarm::Alarm;
use crate::config::model::{Config, SignalSource};
use crate::driver::snapshot::{Call, Renewal, Snapshot};
use crate::driver::world::World;
use crate::driver::{Driver, End, Inbox, Openings, Parts};
use crate::heartbeat::Heartbeat;
use crate::journal::Journal;
use crate::metrics::Metrics;
use crate::postgres::pinned::Pinned;
use crate::postgres::session::Session;
use crate::samples::recorder::Recorder;
use crate::{clock, frozen, server, signal, systemd};

/// How long tasks may take to end after they were asked to.
const PARTING: Duration = Duration::from_secs(5);
/// The pause between two looks at the database while it answers, and while it does not.
const DATABASE_EVERY: (Duration, Duration) = (Duration::from_secs(15), Duration::from_secs(2));

/// How a runtime is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Use {
    /// The daemon: scheduled windows too. When another configuration is to be taken over, it ends as soon as no window is
    /// open.
    Daemon(Renewal),
    /// One window in the foreground.
    Foreground,
}

/// A running rollbackd.
pub struct Runtime {
    /// What can be seen.
    pub snapshots: watch::Receiver<Arc<Snapshot>>,
    calls: mpsc::Sender<Call>,
    renewal: watch::Sender<Renewal>,
    driver: JoinHandle<End>,
    /// Ends the driver.
    stop: CancellationToken,
    /// Ends everything else.
    services: CancellationToken,
    tracker: TaskTracker,
}

impl Runtime {
    /// Starts everything. `entries` is what the journal holds; an unsettled window goes on.
    ///
    /// # Errors
    /// What could not be started, with the way out.
    pub async fn start(
        config: Arc<Config>,
        journal: Arc<dyn Journal>,
        entries: Vec<Entry>,
        used: Use,
    ) -> anyhow::Result<Self> {
        frozen::keep(&config).context("the configuration's copy for open windows cannot be written")?;
        let plan = Arc::new(config.plan(&host_name()));
        let metrics = Arc::new(Metrics::new(&plan)?);
        let logs = config.signals.iter().filter(|signal| matches!(signal.source, SignalSource::Log(_)));
        metrics.follows(logs.map(|signal| signal.name.as_str()));
        let requests = config.signals.iter().filter(|signal| matches!(signal.source, SignalSource::Http(_)));
        metrics.requests(requests.map(|signal| signal.name.as_str()));
        let world = World::new(Arc::clone(&config)).map_err(|reason| anyhow!(reason))?;
        let pinned = world.pinned().clone();
        let (openings, renewal) = match used {
            Use::Daemon(renewal) => (openings(&plan, &config)?, Some(renewal)),
            Use::Foreground => (None, None),
        };
        let is_daemon = renewal.is_some();
        let (renewal, renewed) = watch::channel(renewal.unwrap_or_default());
        let tracker = TaskTracker::new();
        let parts = Parts {
            plan: Arc::clone(&plan),
            openings,
            journal,
            entries,
            adapters: Arc::new(world),
            metrics: Arc::clone(&metrics),
            renewal: renewed,
            recorder: Recorder::start(&config.state_dir, &tracker),
            clock: clock::now,
            asleep: clock::asleep,
        };
        let (stop, services) = (CancellationToken::new(), CancellationToken::new());
        let (driver, snapshots) = Driver::new(parts, tracker.clone(), stop.clone());
        let (calls, called) = mpsc::channel(64);
        let (pulsing, pulses) = mpsc::channel(1);
        let (read, readings) = mpsc::channel(1024);
        let heard = Arc::clone(&metrics);
        let shared = server::Shared {
            snapshots: snapshots.clone(),
            calls: calls.clone(),
            metrics,
            token: config.http.as_ref().and_then(|http| http.token.clone()),
        };
        let reader = signal::Reader::new(Arc::clone(&config)).map_err(|reason| anyhow!(reason))?;
        let heartbeat = config.heartbeat.as_ref().map(|heartbeat| Heartbeat::new(heartbeat, heard));
        let heartbeat = heartbeat.transpose().map_err(|reason| anyhow!(reason))?;
        let alarm = if is_daemon { Some(alarm(pulsing).await?) } else { None };
        // Last of what may fail: nothing is left of what could not be started, and another configuration can be tried.
        server::start(&config, shared, &tracker, &services).await?;
        signal::schedule::start(Arc::new(reader), &config, &tracker, &services, read);
        let (database_seen, database) = watch::channel(Err("the database was not asked yet".to_owned()));
        tracker.spawn(keep_sessions(pinned.clone(), snapshots.clone()));
        tracker.spawn(pinned.clone().tend(services.clone()));
        tracker.spawn(watch_database(pinned, database_seen, services.clone()));
        if let Some(heartbeat) = heartbeat {
            tracker.spawn(heartbeat.follow(snapshots.clone(), services.clone()));
        }
        if let Some(alarm) = alarm {
            tracker.spawn(systemd::follow(snapshots.clone(), services.clone()));
            tracker.spawn(wind(alarm, snapshots.clone(), services.clone()));
        }
        let inbox = Inbox { readings, calls: called, pulses, database };
        let driver = tracker.spawn(driver.run(inbox));
        Ok(Self { snapshots, calls, renewal, driver, stop, services, tracker })
    }

    /// Says what is to come of the configuration's file. What is due is taken over by whoever waits for the
    /// [end](Self::ended).
    pub fn renew(&self, renewal: Renewal) {
        self.renewal.send_replace(renewal);
    }

    /// Asks the driver for something; the answer is the id of the window that is open then.
    ///
    /// # Errors
    /// The refusal, or that the driver is gone.
    pub async fn ask(&self, who: &str, reason: &str, ask: Ask) -> Result<Option<String>, Refusal> {
        let (reply, answer) = oneshot::channel();
        let request = Request { who: who.to_owned(), reason: reason.to_owned(), ask };
        let gone = || Refusal { message: "rollbackd is ending".to_owned() };
        self.calls.send(Call::Request { request, reply }).await.map_err(|_gone| gone())?;
        answer.await.unwrap_or_else(|_gone| Err(gone()))
    }

    /// The records of a window so far.
    ///
    /// # Errors
    /// Why they cannot be read.
    pub async fn records(&self, window: &str) -> anyhow::Result<Vec<Entry>> {
        let (reply, answer) = oneshot::channel();
        self.calls.send(Call::Records { window: Some(window.to_owned()), reply }).await?;
        answer.await?.map_err(|reason| anyhow!(reason))
    }

    /// Waits for the driver to end by itself.
    ///
    /// # Errors
    /// When it has panicked, which is a bug.
    pub async fn ended(&mut self) -> anyhow::Result<End> {
        (&mut self.driver).await.context("the driver has failed; this is a bug. The journal is whole: start again")
    }

    /// Ends everything: the step in flight first, then the rest. Names what does not end.
    pub async fn stop(mut self) {
        self.stop.cancel();
        if !self.driver.is_finished()
            && let Err(error) = (&mut self.driver).await
        {
            tracing::error!(event = "driver.failed", error = %error, "the driver did not end as it should");
        }
        self.services.cancel();
        self.tracker.close();
        if tokio::time::timeout(PARTING, self.tracker.wait()).await.is_err() {
            let left = self.tracker.len();
            tracing::warn!(event = "shutdown.laggard", tasks = left, "tasks are left behind; the next start finds out");
        }
    }
}

/// The configuration that a window opened with. `path` is where the current one is.
///
/// # Errors
/// When the frozen copy is missing or cannot be used any more.
pub fn thaw(state_dir: &Path, path: &Path, open: &Window) -> anyhow::Result<Config> {
    let config = frozen::recall(state_dir, &open.plan.config_sha256, path)
        .with_context(|| format!("window {} is not settled and needs the configuration it opened with", open.id))?;
    tracing::warn!(
        event = "config.frozen",
        window = open.id,
        "the configuration has changed; the window that is open goes on with its own"
    );
    Ok(config)
}

/// This machine's name, for notices.
pub fn host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    if name.is_empty() { "localhost".to_owned() } else { name }
}

fn openings(plan: &Plan, config: &Config) -> anyhow::Result<Option<Openings>> {
    let Some(schedule) = &plan.window.schedule else { return Ok(None) };
    let schedule = rollbackd_core::window::parse(schedule).map_err(|reason| anyhow!("window.schedule: {reason}"))?;
    Ok(Some(Openings { schedule, zone: config.window.timezone.clone() }))
}

/// Looks whether the database answers, again and again, and says when that changes.
async fn watch_database(pinned: Pinned, seen: watch::Sender<Result<(), String>>, cancel: CancellationToken) {
    let (slow, fast) = DATABASE_EVERY;
    loop {
        let now = match Session::connect(pinned.database()).await {
            Ok(_session) => pinned.shortage().map_or(Ok(()), Err),
            Err(error) => {
                let kept = pinned.shortage().map(|shortage| format!("; {shortage}")).unwrap_or_default();
                Err(format!("the database does not answer: {}{kept}", error.reason()))
            }
        };
        seen.send_if_modified(|known| {
            if *known == now {
                return false;
            }
            match &now {
                Ok(()) => tracing::info!(event = "database.reached", "the database answers"),
                Err(error) => tracing::warn!(event = "database.unreachable", error, "not ready; trying again"),
            }
            known.clone_from(&now);
            true
        });
        let pause = if now.is_ok() { slow } else { fast };
        tokio::select! {
            () = cancel.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Has database sessions kept open while a window is: from its opening, or from a start that finds it open, until it is
/// settled. Ends with the driver.
async fn keep_sessions(pinned: Pinned, mut snapshots: watch::Receiver<Arc<Snapshot>>) {
    loop {
        let open = snapshots.borrow_and_update().state.window.is_some();
        pinned.keep(open);
        if snapshots.changed().await.is_err() {
            return;
        }
    }
}

async fn alarm(pulsing: mpsc::Sender<()>) -> anyhow::Result<Alarm> {
    Alarm::start(pulsing).await.context("the alarm clock cannot be started")
}

/// Keeps the alarm set for the next opening.
async fn wind(mut alarm: Alarm, mut snapshots: watch::Receiver<Arc<Snapshot>>, cancel: CancellationToken) {
    loop {
        let next = snapshots.borrow_and_update().next_window_at;
        if let Err(error) = alarm.set(next).await {
            // The pulse of each minute still comes.
            tracing::warn!(
                event = "alarm.failed",
                error = format!("{error:#}"),
                "the alarm could not be set for the next opening"
            );
        }
        tokio::select! {
            () = cancel.cancelled() => return,
            changed = snapshots.changed() => if changed.is_err() { return },
        }
    }
}
