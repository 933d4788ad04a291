//! A process of an earlier life, which is not our child: waited for, or ended.

use std::path::Path;
use std::time::Duration;

use rollbackd_core::run::record::Process;
use rustix::process::Signal;
use tokio::time::{Instant, sleep};

use super::identity::{self, Marks, alive};
use super::{AFTER_KILL, output, signal_group};

/// How often a group without its leader is looked at: every process of the machine is, for that.
const LOOK: Duration = Duration::from_millis(250);

/// A process of an earlier life, and what it may have left in its group.
#[derive(Debug)]
pub struct Orphan<'a> {
    /// The leader, as it was recorded.
    pub process: &'a Process,
    /// What it was started with, and what it started as well.
    pub marks: Marks,
}

impl Orphan<'_> {
    /// Whether the leader runs, or something of its group that bears the marks. A number that belongs to somebody else by
    /// now is neither.
    pub async fn runs(&self) -> bool {
        alive(self.process) || self.marks.in_group(self.process.pid).await
    }

    /// Waits until nothing of it runs. `false`: something still does after `within`.
    pub async fn gone(&self, within: Duration) -> bool {
        let deadline = Instant::now() + within;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if !identity::gone(self.process, left).await {
                return false;
            }
            if !self.marks.in_group(self.process.pid).await {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            sleep(LOOK.min(left)).await;
        }
    }

    /// The same, while what it prints is kept from filling the disk.
    pub async fn gone_while_kept(&self, file: &Path, within: Duration) -> bool {
        tokio::select! {
            biased;
            gone = self.gone(within) => gone,
            () = output::keep_small(file) => false,
        }
    }

    /// Ends it: TERM to its group, grace, KILL. Nothing happens when nothing of it runs.
    ///
    /// # Errors
    /// When it cannot be signalled, or stays although it was killed.
    pub async fn end(&self, grace: Duration) -> Result<(), String> {
        let pid = self.process.pid;
        if !self.runs().await {
            return Ok(());
        }
        let refused = |error| format!("process {pid} cannot be ended: {error}");
        let led = alive(self.process);
        signal_group(pid, Signal::TERM).map_err(refused)?;
        // What a leader leaves behind has no grace of its own.
        let ended = if led { identity::gone(self.process, grace).await } else { self.gone(grace).await };
        if !ended || !identity::members(pid).await.is_empty() {
            signal_group(pid, Signal::KILL).map_err(refused)?;
            if !self.gone(AFTER_KILL).await {
                return Err(format!("process {pid} was killed and is still there; it hangs in the kernel"));
            }
        }
        Ok(())
    }
}
