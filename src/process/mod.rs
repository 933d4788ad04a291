//! Children: the migration, the rollback script, gates' and signals' commands, the project's own checks.
//!
//! A child runs in a process group of its own with nothing on its standard input. It ends by itself, or it is
//! ended: TERM to the group, a grace period, KILL to the group. What the leader leaves behind in the group is
//! killed too and said, for a rollback must not race with the remains of what it replaces; a daemon that is
//! meant to stay has to leave the group (`setsid`), as daemons do.
//!
//! With an output file the child appends to it by itself and so outlives us: the next life finds it by its
//! [`Process`], or what it left in its group by the [`Marks`] in its environment, and [waits](Orphan::gone) for it or
//! [ends](Orphan::end) it. Without a file its output is captured in memory, and it is killed when nobody waits for it any
//! more.
//!
//! Not here: what an exit code means. It is read by whoever asked.

mod identity;
mod orphan;
mod output;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rollbackd_core::run::record::Process;
use rollbackd_core::words::counted;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::Child;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

pub use self::identity::{Marks, alive, gone};
pub use self::orphan::Orphan;
use self::output::Capture;
use crate::clock::Stopwatch;
use crate::config::model::{Command, Secret};

/// How long a killed process may take to be gone: only one that hangs in the kernel needs any of it.
const AFTER_KILL: Duration = Duration::from_secs(5);

/// What to run, and for how long.
#[derive(Debug)]
pub struct Spec<'a> {
    /// The command.
    pub command: &'a Command,
    /// Pairs added to our own environment.
    pub environment: Vec<(String, Secret)>,
    /// How long it may run.
    pub timeout: Duration,
    /// How long it may take to end once it was asked to.
    pub grace: Duration,
    /// The file that gets its output, appended, mode 0600; absent: captured in memory.
    pub output: Option<PathBuf>,
}

/// A process that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// How.
    pub how: How,
    /// The end of what it printed on both streams, capped, secrets of the spec masked.
    pub output: String,
    /// The end of what it printed on its standard output alone; empty with an output file.
    pub stdout: String,
    /// Where its output is kept.
    pub output_file: Option<PathBuf>,
    /// What else people should know: processes left behind, output that was cut.
    pub notes: Vec<String>,
    /// How long it ran.
    pub took: Duration,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// By itself, with this code.
    Exited(i32),
    /// By this signal, which was not ours.
    Signalled(i32),
    /// We ended it because its time was up.
    TimedOut,
    /// We ended it because we were asked to.
    Stopped,
}

impl Ended {
    /// The last line with text on it, cut to 200 characters.
    pub fn last_line(&self) -> Option<String> {
        let line = self.output.lines().rev().map(str::trim).find(|line| !line.is_empty())?;
        let short: String = line.chars().take(200).collect();
        Some(if short.len() < line.len() { format!("{short}…") } else { short })
    }

    /// How it ended, in words: `exited with 1: no such table`.
    pub fn sentence(&self) -> String {
        let how = match self.how {
            How::Exited(code) => format!("exited with {code}"),
            How::Signalled(number) => format!("was ended by signal {number}"),
            How::TimedOut => "was ended because its time was up".to_owned(),
            How::Stopped => "was ended on request".to_owned(),
        };
        match self.last_line() {
            Some(line) => format!("{how}: {line}"),
            None => how,
        }
    }
}

/// Why a process could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There is no such program.
    #[error("`{program}` was not found{place}; write its full path or put it into PATH")]
    NotFound {
        /// The program.
        program: String,
        /// Where it was looked for.
        place: String,
    },
    /// The directory to run in is not there.
    #[error("`{program}` cannot be started: its directory {} is not there", directory.display())]
    Directory {
        /// The program.
        program: String,
        /// The directory.
        directory: PathBuf,
    },
    /// The system refused.
    #[error("`{program}` cannot be started: {reason}")]
    Refused {
        /// The program.
        program: String,
        /// The system's reason.
        reason: String,
    },
    /// We were asked to stop before it was started.
    #[error("`{program}` was not started: the work was stopped before")]
    Stopped {
        /// The program.
        program: String,
    },
}

/// Runs a command to its end. `started` hears of the process as soon as it can be recognised by a later life.
///
/// # Errors
/// When it cannot be started: then it has not run.
pub async fn run(
    spec: Spec<'_>,
    stop: &CancellationToken,
    started: impl FnOnce(Process) + Send,
) -> Result<Ended, StartError> {
    if stop.is_cancelled() {
        return Err(StartError::Stopped { program: spec.command.program.clone() });
    }
    let mut notes = Vec::new();
    let mut capture = Capture::open(spec.output.clone(), &mut notes).await;
    let took = Stopwatch::start();
    let mut child = spawn(&spec, &mut capture)?;
    let mut leader = Leader::of(&child, &spec, capture.file().is_none())?;
    started(leader.process.clone());

    let supervision = supervise(&mut child, &mut leader, &spec, stop, &mut notes);
    let how = capture.while_running(supervision).await;
    leader.armed = false;
    let took = took.elapsed();
    let output_file = capture.file().map(Path::to_path_buf);
    let kept = capture.finish(&mut notes).await;
    Ok(Ended { how, output: mask(kept.both, &spec), stdout: mask(kept.stdout, &spec), output_file, notes, took })
}

fn spawn(spec: &Spec<'_>, capture: &mut Capture) -> Result<Child, StartError> {
    let name = &spec.command.program;
    // A relative path is meant from the command's directory, whatever the platform's exec makes of it.
    let program = if name.contains('/') { spec.command.directory.join(name) } else { PathBuf::from(name) };
    let refused = |error: io::Error| {
        let program = name.clone();
        if error.kind() != io::ErrorKind::NotFound {
            return StartError::Refused { program, reason: error.to_string() };
        }
        if !spec.command.directory.is_dir() {
            return StartError::Directory { program, directory: spec.command.directory.clone() };
        }
        let place = if name.contains('/') {
            format!(" in {}, or its interpreter is missing", spec.command.directory.display())
        } else {
            String::new()
        };
        StartError::NotFound { program, place }
    };
    let mut command = tokio::process::Command::new(program);
    command
        .args(&spec.command.arguments)
        .envs(spec.environment.iter().map(|(name, value)| (name, value.expose())))
        .current_dir(&spec.command.directory)
        .stdin(Stdio::null())
        .process_group(0);
    let (stdout, stderr) = capture.streams().map_err(refused)?;
    let mut child = command.stdout(stdout).stderr(stderr).spawn().map_err(refused)?;
    capture.attach(child.stdout.take(), child.stderr.take());
    Ok(child)
}

/// The first process of a group. While it is ours and not reaped, its number cannot belong to anybody else.
#[derive(Debug)]
struct Leader {
    process: Process,
    /// Wakes whenever a child of ours has ended; which one, `/proc` says. Waiting for the child itself would reap
    /// it at once and give its number away, while its group may still have to be killed.
    ends: tokio::signal::unix::Signal,
    /// Whether the group is killed when nobody waits for it any more.
    armed: bool,
}

impl Leader {
    fn of(child: &Child, spec: &Spec<'_>, armed: bool) -> Result<Self, StartError> {
        let pid = child.id().and_then(|id| i32::try_from(id).ok()).unwrap_or(0);
        let refused = |reason: String| {
            // Without these a later life could not find it, and we would not see its end.
            kill_quietly(pid);
            StartError::Refused { program: spec.command.program.clone(), reason }
        };
        let process = identity::of(pid)
            .ok_or_else(|| refused("/proc does not show its process; is /proc mounted?".to_owned()))?;
        let ends = signal(SignalKind::child()).map_err(|error| refused(error.to_string()))?;
        Ok(Self { process, ends, armed })
    }

    /// Returns once it has ended. It is not reaped by this.
    async fn exited(&mut self) {
        while alive(&self.process) {
            // The bound is for a signal that never comes, should somebody else reset the disposition.
            if let Ok(None) = timeout(Duration::from_secs(1), self.ends.recv()).await {
                gone(&self.process, Duration::from_secs(1)).await;
            }
        }
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        if self.armed {
            kill_quietly(self.process.pid);
        }
    }
}

/// Waits for the leader's end, or brings it about; then clears its group and reaps it.
async fn supervise(
    child: &mut Child,
    leader: &mut Leader,
    spec: &Spec<'_>,
    stop: &CancellationToken,
    notes: &mut Vec<String>,
) -> How {
    let pid = leader.process.pid;
    let forced = tokio::select! {
        biased;
        () = leader.exited() => None,
        () = stop.cancelled() => Some(How::Stopped),
        () = sleep(spec.timeout) => Some(How::TimedOut),
    };
    if forced.is_some() {
        note_refusal(signal_group(pid, Signal::TERM), notes);
        if timeout(spec.grace, leader.exited()).await.is_err() {
            note_refusal(signal_group(pid, Signal::KILL), notes);
            if timeout(AFTER_KILL, leader.exited()).await.is_err() {
                notes.push(format!("process {pid} was killed and is still there; it hangs in the kernel"));
            }
        }
    }
    // The leader is not reaped yet: the group's number cannot have become somebody else's.
    clear_group(pid, notes).await;
    let status = timeout(AFTER_KILL, child.wait()).await;
    forced.unwrap_or_else(|| match status {
        Ok(Ok(status)) => how(status),
        // It has ended, but nobody can say how any more.
        Ok(Err(_)) | Err(_) => How::Signalled(0),
    })
}

fn how(status: ExitStatus) -> How {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => How::Exited(code),
        (None, signal) => How::Signalled(signal.unwrap_or(0)),
    }
}

/// Kills what is left in a group, and says so.
async fn clear_group(group: i32, notes: &mut Vec<String>) {
    let left = identity::members(group).await;
    if left.is_empty() {
        return;
    }
    note_refusal(signal_group(group, Signal::KILL), notes);
    let names: Vec<String> = left.iter().take(5).map(|(pid, name)| format!("{name} ({pid})")).collect();
    let more = if left.len() > names.len() { ", …" } else { "" };
    notes.push(format!("{} left behind and killed: {}{more}", counted(left.len(), "process"), names.join(", ")));
    for _ in 0..20 {
        if identity::members(group).await.is_empty() {
            return;
        }
        sleep(Duration::from_millis(50)).await;
    }
    notes.push(format!("process group {group} was killed and is still there"));
}

/// Signals a group; one that is gone already is as good.
fn signal_group(group: i32, signal: Signal) -> Result<(), Errno> {
    // 0 and 1 would mean our own group and everybody.
    let group = Pid::from_raw(group).filter(|pid| !pid.is_init()).ok_or(Errno::SRCH)?;
    match kill_process_group(group, signal) {
        Err(Errno::SRCH) => Ok(()),
        other => other,
    }
}

fn note_refusal(result: Result<(), Errno>, notes: &mut Vec<String>) {
    if let Err(error) = result {
        notes.push(format!("its process group could not be signalled: {error}"));
    }
}

/// Kills a group where nobody is left to hear of a refusal.
fn kill_quietly(group: i32) {
    if let Err(error) = signal_group(group, Signal::KILL) {
        tracing::warn!(event = "process.kill_failed", group, error = %error, "a process group could not be killed");
    }
}

/// Hides the secrets that the command was given, should it have printed them.
fn mask(text: String, spec: &Spec<'_>) -> String {
    let arguments = spec.command.arguments.iter().filter(|argument| !spec.command.shown.contains(argument));
    let environment = spec.environment.iter().map(|(_, value)| value.expose());
    // Very short values would riddle the text without hiding anything.
    arguments
        .map(String::as_str)
        .chain(environment)
        .filter(|secret| secret.len() >= 4)
        .fold(text, |text, secret| if text.contains(secret) { text.replace(secret, "***") } else { text })
}
