//! The outside as it is: each step is handed to the adapter that does it.
//!
//! Here is the wiring only. What an adapter does is in its own module; what follows from it is decided in the
//! core.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rollbackd_core::notice::Notice;
use rollbackd_core::plan::TableChoice;
use rollbackd_core::run::record::Process;
use rollbackd_core::run::state::{Attempt, Inspection, Window};
use rollbackd_core::run::step::{CheckResult, Finding, Moment, Outcome, Step};
use tokio::sync::mpsc;

use super::adapters::{Adapters, Assignment, Attempted, Boxed, OtherStep};
use crate::config::model::{Command, Config, Gate, Method, Script, Secret};
use crate::journal::reserve::Reserve;
use crate::notify::Sender;
use crate::postgres::pinned::Pinned;
use crate::process::{self, Ended, How, Marks, Orphan};
use crate::{backup, gate, preflight, rung, verify};

/// How long it may take to count what a restore would cost. What was not counted is said to be so.
const FORESEEING: Duration = Duration::from_secs(30);
/// The variables by which a process knows whose it is and for which window and step it was started; and by which it
/// is found. A window's id is only its plan's name and its opening, which two daemons on one machine can share.
const STATE_DIR: &str = "ROLLBACKD_STATE_DIR";
const WINDOW: &str = "ROLLBACKD_WINDOW";
const STEP: &str = "ROLLBACKD_STEP";
/// What a migration's output file is called after.
const MIGRATION: &str = "migration";

/// The real adapters of one configuration.
pub struct World {
    config: Arc<Config>,
    sender: Sender,
    pinned: Pinned,
}

impl World {
    /// Builds the clients that deliveries need.
    ///
    /// # Errors
    /// What is wrong with the TLS or mail settings.
    pub fn new(config: Arc<Config>) -> Result<Self, String> {
        let sender = Sender::new(&config)?;
        let pinned = Pinned::new(&config.database);
        Ok(Self { config, sender, pinned })
    }

    /// The database sessions that steps borrow; somebody has to [tend](Pinned::tend) them.
    pub const fn pinned(&self) -> &Pinned {
        &self.pinned
    }

    async fn step(&self, assignment: Assignment) -> Outcome {
        let Assignment { window, number, step, within, stop, other, started } = assignment;
        match step {
            Step::Preflight => checks(self.preflight(within).await, "preflight check"),
            Step::Backup => backup::take(&self.config, window.started_at, within, &stop).await,
            Step::Migrate => {
                let Some(command) = &self.config.window.command else {
                    return Outcome::failed("the configuration has no migration command");
                };
                let spec = self.spec(&window, number, command, within, MIGRATION);
                migrated(process::run(spec, &stop, tell(started)).await)
            }
            Step::EndProcess { of } => self.end_process(&window, of, other).await,
            Step::AwaitProcess { of } => self.await_process(&window, of, within).await,
            Step::ReadGate { gate } => match self.gate(gate) {
                Some(gate) => gate::read(gate, &self.pinned, within).await,
                None => Outcome::failed(NO_SUCH_GATE),
            },
            Step::CloseGate { gate } => match self.gate(gate) {
                Some(one) => gate::close(one, &self.pinned, prior(&window, gate), within).await,
                None => Outcome::failed(NO_SUCH_GATE),
            },
            Step::OpenGate { gate } => match self.gate(gate) {
                Some(one) => gate::open(one, &self.pinned, prior(&window, gate), within).await,
                None => Outcome::failed(NO_SUCH_GATE),
            },
            Step::Inspect { rung, moment } => self.inspect(&window, rung, moment, within).await,
            Step::Act { rung } => match self.config.rollback.rungs.get(rung).map(|rung| &rung.method) {
                Some(Method::Script { command, .. }) => {
                    let spec = self.spec(&window, number, command, within, "script");
                    rung::script::act(spec, &stop, tell(started)).await
                }
                Some(Method::Tables { .. }) => self.tables(&window, rung, within).await,
                Some(Method::Restore) => self.restore(&window, within).await,
                Some(Method::Sql { file, script }) => self.sql(&window, file, script, within).await,
                None => Outcome::failed("the configuration has no such rung"),
            },
            Step::Verify { stage } => {
                let (baseline, backup) =
                    (window.baseline.as_deref(), window.backup_directory.as_deref().map(Path::new));
                let context = verify::Context { config: &self.config, pinned: &self.pinned, baseline, backup };
                checks(verify::run(context, stage, within).await, "check")
            }
        }
    }

    /// The checks; and the connections that are kept while the window is open must be there.
    async fn preflight(&self, within: Duration) -> Vec<CheckResult> {
        let mut results = preflight::run(&self.config, within).await;
        let database = results.iter_mut().find(|check| check.name == "database" && check.passed);
        if let Some(database) = database.filter(|database| database.detail != preflight::SKIPPED)
            && let Err(reason) = self.pinned.ready(2 * self.config.database.connect_timeout).await
        {
            database.passed = false;
            database.detail = reason;
        }
        if let Err(reason) = self.set_aside(within).await
            && let Some(disk) = results.iter_mut().find(|check| check.name == "disk" && check.passed)
            && disk.detail != preflight::SKIPPED
        {
            disk.passed = false;
            disk.detail = reason;
        }
        results
    }

    /// Room with which a rollback can be written down when the disk is full by then.
    async fn set_aside(&self, within: Duration) -> Result<(), String> {
        let reserve = Reserve::of(&self.config.state_dir);
        let made = tokio::task::spawn_blocking(move || reserve.set_aside().map_err(|error| error.to_string()));
        match tokio::time::timeout(within, made).await {
            Ok(made) => made.unwrap_or_else(|error| Err(error.to_string())),
            Err(_) => Err(format!("state_dir {}: its disk hangs", self.config.state_dir.display())),
        }
    }

    /// What an outcome says, without the secrets that scripts and servers may have repeated.
    fn covered(&self, mut outcome: Outcome) -> Outcome {
        outcome.detail = self.config.veil.cover(outcome.detail);
        if let Finding::Process { output, .. } = &mut outcome.finding {
            *output = self.config.veil.cover(std::mem::take(output));
        }
        outcome
    }

    async fn tables(&self, window: &Window, rung: usize, within: Duration) -> Outcome {
        let planned = window.plan.rollback.rungs.get(rung).map(|rung| &rung.method);
        let Some(rollbackd_core::plan::Method::Tables(removal)) = planned else {
            return Outcome::failed("the frozen plan and the configuration disagree about this rung");
        };
        let mut removal = removal.clone();
        if removal.tables == TableChoice::Implicated {
            let blamed = window.rollback.as_ref().and_then(|rollback| rollback.trigger.implicated());
            removal.tables = TableChoice::Named(blamed.unwrap_or_default());
        }
        match &window.baseline {
            Some(baseline) => {
                let attempt = window.rollback.as_ref().and_then(|rollback| rollback.attempts.last());
                let turn = rung::tables::Turn {
                    window: &window.id,
                    window_started: window.started_at,
                    first: attempt.is_none_or(|attempt| attempt.groups == 0),
                };
                rung::tables::act(&self.config, &self.pinned, baseline, &removal, turn, within).await
            }
            None => Outcome::failed(NO_BASELINE),
        }
    }

    async fn inspect(&self, window: &Window, rung: usize, moment: Moment, within: Duration) -> Outcome {
        let Some(baseline) = &window.baseline else { return Outcome::failed(NO_BASELINE) };
        let mut outcome = rung::inspect::run(&self.config, &self.pinned, baseline, moment, within).await;
        let restores = matches!(self.config.rollback.rungs.get(rung).map(|rung| &rung.method), Some(Method::Restore));
        if let (true, Moment::Before, Finding::Difference { restore, .. }) = (restores, moment, &mut outcome.finding) {
            let backup = window.backup_directory.as_deref().map(Path::new);
            let (config, started, most) = (&self.config, window.started_at, within.min(FORESEEING));
            *restore = rung::restore::foresee(config, &self.pinned, baseline, backup, started, most).await;
        }
        outcome
    }

    async fn restore(&self, window: &Window, within: Duration) -> Outcome {
        match &window.baseline {
            Some(baseline) => {
                let backup = window.backup_directory.as_deref().map(Path::new);
                rung::restore::act(&self.config, &self.pinned, baseline, backup, window.started_at, within).await
            }
            None => Outcome::failed(NO_BASELINE),
        }
    }

    async fn sql(&self, window: &Window, file: &str, script: &Script, within: Duration) -> Outcome {
        let Some(baseline) = &window.baseline else { return Outcome::failed(NO_BASELINE) };
        let attempt = window.rollback.as_ref().and_then(|rollback| rollback.attempts.last());
        let seen = match attempt {
            // Only a try before this one can have changed what was seen.
            Some(Attempt { acts, before: Some(Inspection::Seen(difference)), .. }) if *acts > 1 => Some(difference),
            Some(_) | None => None,
        };
        let job = rung::sql::Job {
            config: &self.config,
            pinned: &self.pinned,
            baseline,
            file,
            script,
            window: &window.id,
            seen,
        };
        rung::sql::act(job, within).await
    }

    fn gate(&self, gate: usize) -> Option<&Gate> {
        self.config.rollback.gates.get(gate)
    }

    /// A process of the window, with what a script may want to know, and its output kept as evidence.
    fn spec<'a>(
        &self,
        window: &Window,
        number: u64,
        command: &'a Command,
        within: Duration,
        name: &str,
    ) -> process::Spec<'a> {
        let reason = window.rollback.as_ref().map(|rollback| rollback.trigger.sentence()).unwrap_or_default();
        let directory = window.backup_directory.clone().unwrap_or_default();
        let attempt = window.rollback.as_ref().and_then(|rollback| rollback.attempts.last());
        let rung = attempt.map(|attempt| (attempt.rung + 1).to_string()).unwrap_or_default();
        let environment = [
            (WINDOW, window.id.clone()),
            (STEP, number.to_string()),
            ("ROLLBACKD_PLAN", self.config.name.clone()),
            (STATE_DIR, self.config.state_dir.display().to_string()),
            ("ROLLBACKD_BACKUP_DIR", directory),
            ("ROLLBACKD_REASON", reason),
            ("ROLLBACKD_RUNG", rung),
            ("DATABASE_URL", self.config.database.url.expose().as_str().to_owned()),
        ];
        let environment = environment.map(|(name, value)| (name.to_owned(), Secret::new(value))).into();
        process::Spec {
            command,
            environment,
            timeout: within,
            grace: self.config.rollback.grace,
            output: Some(self.evidence(window, number, name)),
        }
    }

    fn evidence(&self, window: &Window, number: u64, name: &str) -> PathBuf {
        self.config.state_dir.join("evidence").join(&window.id).join(format!("{number:03}-{name}.log"))
    }

    /// Ends a process: through its own task when it is ours, by its id when it outlived a crash.
    async fn end_process(&self, window: &Window, of: u64, other: Option<OtherStep>) -> Outcome {
        if let Some(other) = other {
            other.stop.cancel();
            other.ended.cancelled().await;
            return Outcome::succeeded("the process was ended", Finding::Nothing);
        }
        let Some(process) = orphan(window, of) else {
            return Outcome::succeeded("there is no process to end", Finding::Nothing);
        };
        match self.orphan(window, of, process).end(self.config.rollback.grace).await {
            Ok(()) => Outcome::succeeded(format!("process {} does not run any more", process.pid), Finding::Nothing),
            Err(reason) => Outcome::failed(reason),
        }
    }

    /// Waits for a migration that outlived an earlier life, with all that it left in its group.
    async fn await_process(&self, window: &Window, of: u64, within: Duration) -> Outcome {
        let Some(process) = orphan(window, of) else {
            return Outcome::succeeded("there is no process to wait for", Finding::Nothing);
        };
        let output = self.evidence(window, of, MIGRATION);
        if self.orphan(window, of, process).gone_while_kept(&output, within).await {
            Outcome::succeeded(format!("process {} is gone", process.pid), Finding::Nothing)
        } else {
            Outcome::timed_out(format!("process {} still ran at the window's hard end", process.pid))
        }
    }

    fn orphan<'a>(&self, window: &Window, of: u64, process: &'a Process) -> Orphan<'a> {
        Orphan { process, marks: self.marks(&window.id, of) }
    }

    /// What a window's process has in its environment and hands down.
    fn marks(&self, window: &str, step: u64) -> Marks {
        let state_dir = self.config.state_dir.display().to_string();
        Marks::new(&[(STATE_DIR, &state_dir), (WINDOW, window), (STEP, &step.to_string())])
    }
}

impl Adapters for World {
    fn perform(self: Arc<Self>, assignment: Assignment) -> Boxed<'static, Outcome> {
        Box::pin(async move {
            let outcome = self.step(assignment).await;
            self.covered(outcome)
        })
    }

    fn lost_process(&self, window: &str, step: u64) -> Option<Process> {
        self.marks(window, step).find()
    }

    fn deliver(
        self: Arc<Self>,
        notice: Arc<Notice>,
        channel: String,
        attempted: Attempted,
    ) -> Boxed<'static, Result<(), String>> {
        Box::pin(async move { self.sender.deliver(&notice, &channel, |failure| attempted(failure)).await })
    }
}

/// Hands the process on as soon as it runs; the channel has room for it.
fn tell(started: mpsc::Sender<Process>) -> impl FnOnce(Process) + Send {
    move |process| {
        if started.try_send(process).is_err() {
            tracing::error!(event = "process.unrecorded", "a process could not be recorded");
        }
    }
}

fn orphan(window: &Window, of: u64) -> Option<&Process> {
    window.orphan.as_ref().filter(|orphan| orphan.step == of).map(|orphan| &orphan.process)
}

fn prior(window: &Window, gate: usize) -> &str {
    let gate = window.rollback.as_ref().and_then(|rollback| rollback.gates.get(gate));
    gate.and_then(|gate| gate.prior.as_deref()).unwrap_or_default()
}

/// What every step after the backup has.
const NO_BASELINE: &str = "no baseline was taken";
/// What the plan's gates and rungs always have, unless the frozen configuration was tampered with.
const NO_SUCH_GATE: &str = "the configuration has no such gate";

/// Checks as one outcome; the detail names those that did not hold.
fn checks(checks: Vec<CheckResult>, noun: &str) -> Outcome {
    let failed: Vec<String> =
        checks.iter().filter(|check| !check.passed).map(|check| format!("{}: {}", check.name, check.detail)).collect();
    let outcome = if failed.is_empty() {
        let held = rollbackd_core::words::counted(checks.len(), noun);
        Outcome::succeeded(format!("{held} passed"), Finding::Nothing)
    } else {
        Outcome::failed(failed.join("; "))
    };
    outcome.with(Finding::Checks { checks })
}

/// A migration's end as an outcome.
fn migrated(ended: Result<Ended, process::StartError>) -> Outcome {
    let ended = match ended {
        Ok(ended) => ended,
        Err(error) => return Outcome::failed(format!("the migration could not be started: {error}")),
    };
    let finding = |exit_code| Finding::Process {
        exit_code,
        output: ended.output.clone(),
        output_file: ended.output_file.as_ref().map(|path| path.display().to_string()),
    };
    match ended.how {
        How::Exited(0) => Outcome::succeeded("the migration's command exited with 0", finding(Some(0))),
        How::Exited(code) => {
            let last = ended.output.lines().rev().find(|line| !line.trim().is_empty());
            let last = last.map(|line| format!(": {}", line.trim())).unwrap_or_default();
            Outcome::failed(format!("the migration's command exited with {code}{last}")).with(finding(Some(code)))
        }
        How::Signalled(signal) => {
            Outcome::failed(format!("the migration's command was ended by signal {signal}")).with(finding(None))
        }
        How::TimedOut => {
            Outcome::timed_out("the migration still ran at the hard end and was ended").with(finding(None))
        }
        How::Stopped => Outcome::failed("the migration was ended, because a rollback started").with(finding(None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_process_of_another_state_directory_is_not_ours_whatever_its_window_is_called() {
        use std::os::unix::process::CommandExt as _;

        let directory = tempfile::tempdir().expect("a directory");
        let database = crate::postgres::testing::database("postgres://nobody@127.0.0.1:1/nothing");
        let config = crate::postgres::testing::config(database, directory.path().to_owned());
        let state_dir = config.state_dir.display().to_string();
        let world = World::new(Arc::new(config)).expect("a world");
        // Two applications of one name on one machine open their windows in the same second.
        let window = format!("shop-{}", std::process::id());
        for (of, ours) in [("/elsewhere", false), (state_dir.as_str(), true)] {
            let mut script = std::process::Command::new("sleep")
                .arg("100")
                .envs([(WINDOW, window.as_str()), (STEP, "7"), (STATE_DIR, of)])
                .process_group(0)
                .spawn()
                .expect("it runs");
            let found = world.lost_process(&window, 7).map(|process| process.pid.unsigned_abs());
            script.kill().expect("killed");
            script.wait().expect("gone");
            assert_eq!(found, ours.then(|| script.id()), "{of}");
        }
    }
}
