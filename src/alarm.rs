//! tokio-cron-scheduler as an alarm clock: it says "look now", nothing more.
//!
//! A pulse comes each minute and one at the next opening. What is due is decided by the core from the journal and
//! the clock, so a pulse that is late, early, doubled or missing changes nothing.

use std::time::Duration;

use anyhow::Context;
use jiff::Timestamp;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;
use tokio_cron_scheduler::{Job, JobScheduler, JobSchedulerError};

use crate::clock;

/// Every minute, at its start.
const EVERY_MINUTE: &str = "0 * * * * *";

/// A running alarm clock. Dropped, it is silent.
pub struct Alarm {
    scheduler: JobScheduler,
    inside: Inside,
    pulses: mpsc::Sender<()>,
    set_for: Option<Timestamp>,
}

/// What the scheduler runs on. Its tasks do not end when it is shut down (0.15), but they end with this.
struct Inside(Option<Runtime>);

impl Alarm {
    /// Starts pulsing.
    ///
    /// # Errors
    /// What the scheduler or the system says.
    pub async fn start(pulses: mpsc::Sender<()>) -> anyhow::Result<Self> {
        let inside = Inside::new()?;
        let each_minute = pulses.clone();
        let job = Job::new_async(EVERY_MINUTE, move |_, _| {
            let pulses = each_minute.clone();
            Box::pin(async move { pulse(&pulses) })
        })?;
        let starting = async move {
            let scheduler = JobScheduler::new().await?;
            scheduler.add(job).await?;
            scheduler.start().await?;
            Ok(scheduler)
        };
        let scheduler = inside.run(starting).await?;
        Ok(Self { scheduler, inside, pulses, set_for: None })
    }

    /// Sets the alarm for the next opening as well.
    ///
    /// # Errors
    /// What the scheduler says.
    pub async fn set(&mut self, opening: Option<Timestamp>) -> anyhow::Result<()> {
        if self.set_for == opening {
            return Ok(());
        }
        if let Some(opening) = opening {
            let wait = Duration::try_from(opening.duration_since(clock::now())).unwrap_or(Duration::ZERO);
            let pulses = self.pulses.clone();
            let job = Job::new_one_shot_async(wait, move |_, _| {
                let pulses = pulses.clone();
                Box::pin(async move { pulse(&pulses) })
            })?;
            let scheduler = self.scheduler.clone();
            self.inside.run(async move { scheduler.add(job).await }).await?;
        }
        self.set_for = opening;
        Ok(())
    }
}

impl Inside {
    fn new() -> std::io::Result<Self> {
        let runtime = Builder::new_multi_thread().worker_threads(1).thread_name("alarm").enable_time().build()?;
        Ok(Self(Some(runtime)))
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, JobSchedulerError>> + Send + 'static,
    ) -> anyhow::Result<T> {
        let runtime = self.0.as_ref().context("the alarm clock is gone")?;
        Ok(runtime.spawn(work).await??)
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            // Whoever drops it is a task of another runtime, which must not wait here.
            runtime.shutdown_background();
        }
    }
}

/// A pulse that finds the channel full is not needed: one is waiting already.
fn pulse(pulses: &mpsc::Sender<()>) {
    if let Err(mpsc::error::TrySendError::Closed(())) = pulses.try_send(()) {
        tracing::debug!(event = "alarm.unheard", "nobody listens to the alarm any more");
    }
}
