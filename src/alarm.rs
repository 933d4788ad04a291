//! tokio-cron-scheduler as an alarm clock: it says "look now", nothing more.
//!
//! A pulse comes each minute and one at the next opening. What is due is decided by the core from the journal and
//! the clock, so a pulse that is late, early, doubled or missing changes nothing.

use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio_cron_scheduler::{Job, JobScheduler, JobSchedulerError};

use crate::clock;

/// Every minute, at its start.
const EVERY_MINUTE: &str = "0 * * * * *";

/// A running alarm clock.
pub struct Alarm {
    scheduler: JobScheduler,
    pulses: mpsc::Sender<()>,
    set_for: Option<Timestamp>,
}

impl Alarm {
    /// Starts pulsing.
    ///
    /// # Errors
    /// What the scheduler says.
    pub async fn start(pulses: mpsc::Sender<()>) -> Result<Self, JobSchedulerError> {
        let scheduler = JobScheduler::new().await?;
        let each_minute = pulses.clone();
        let job = Job::new_async(EVERY_MINUTE, move |_, _| {
            let pulses = each_minute.clone();
            Box::pin(async move { pulse(&pulses) })
        })?;
        scheduler.add(job).await?;
        scheduler.start().await?;
        Ok(Self { scheduler, pulses, set_for: None })
    }

    /// Sets the alarm for the next opening as well.
    ///
    /// # Errors
    /// What the scheduler says.
    pub async fn set(&mut self, opening: Option<Timestamp>) -> Result<(), JobSchedulerError> {
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
            self.scheduler.add(job).await?;
        }
        self.set_for = opening;
        Ok(())
    }

    /// Ends the pulses.
    pub async fn stop(mut self) {
        if let Err(error) = self.scheduler.shutdown().await {
            tracing::warn!(event = "alarm.failed", error = %error, "the alarm clock did not end cleanly");
        }
    }
}

/// A pulse that finds the channel full is not needed: one is waiting already.
fn pulse(pulses: &mpsc::Sender<()>) {
    if let Err(mpsc::error::TrySendError::Closed(())) = pulses.try_send(()) {
        tracing::debug!(event = "alarm.unheard", "nobody listens to the alarm any more");
    }
}
