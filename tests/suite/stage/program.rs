//! The executable: run to its end, left running, or asked.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rollbackd::journal::redb::RedbJournal;
use rollbackd_core::run::record::{Entry, Record};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::{Stage, eventually};

const EXECUTABLE: &str = env!("CARGO_BIN_EXE_rollbackd");
const CONFIGURATION: &str = "rollbackd.toml";

/// What a program left.
#[derive(Debug)]
pub(crate) struct Output {
    /// Its exit code, or 128 and the signal that ended it.
    pub(crate) code: i32,
    /// What it said.
    pub(crate) stdout: String,
    /// What it said about itself.
    pub(crate) stderr: String,
}

impl Output {
    /// It must have ended like this.
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{}\n{}", self.stdout, self.stderr);
        self
    }
}

/// A program that runs.
pub(crate) struct Running {
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
}

/// A running daemon.
pub(crate) type Daemon = Running;

impl Running {
    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Its number.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for its end.
    #[track_caller]
    pub(crate) fn end(mut self) -> Output {
        let status = eventually("the program ends", || self.child.try_wait().unwrap().ok_or("it runs"));
        Output { code: code(status), stdout: read(&self.stdout), stderr: read(&self.stderr) }
    }

    /// Asks it to end, and waits.
    #[track_caller]
    pub(crate) fn term(self) -> Output {
        self.signal(Signal::TERM);
        self.end()
    }

    /// Ends it as a crash does, and waits.
    #[track_caller]
    pub(crate) fn kill(self) -> Output {
        self.signal(Signal::KILL);
        self.end()
    }

    /// Whether it has ended, by itself or otherwise.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// What it has said so far.
    pub(crate) fn said(&self) -> String {
        read(&self.stdout) + &read(&self.stderr)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Stage {
    /// The configuration, written as the plan says now.
    pub(crate) fn configuration(&self) -> PathBuf {
        let path = self.path(CONFIGURATION);
        std::fs::write(&path, self.plan.text()).unwrap();
        path
    }

    /// Starts the executable with the configuration as it was written last.
    pub(crate) fn start(&self, name: &str, arguments: &[&str]) -> Running {
        self.start_program(EXECUTABLE, name, arguments)
    }

    /// Starts a script of the stage as if it were the executable.
    pub(crate) fn start_script(&self, name: &str, script: &str) -> Running {
        self.start_program(self.path(script).to_str().unwrap(), name, &[])
    }

    fn start_program(&self, program: &str, name: &str, arguments: &[&str]) -> Running {
        let file = |kind: &str| {
            let number = (0..u32::MAX).find(|n| !self.path(&format!("{name}-{n}.{kind}")).exists()).unwrap();
            let path = self.path(&format!("{name}-{number}.{kind}"));
            (OpenOptions::new().create_new(true).append(true).open(&path).unwrap(), path)
        };
        let ((out, stdout), (err, stderr)) = (file("stdout"), file("stderr"));
        let child = Command::new(program)
            .args(arguments)
            .env("ROLLBACKD_CONFIG", self.path(CONFIGURATION))
            .current_dir(self.directory())
            .envs(&self.environment)
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .spawn()
            .unwrap();
        Running { child, stdout, stderr }
    }

    /// Runs `rollbackd guard` with these arguments to its end.
    #[track_caller]
    pub(crate) fn guard<W: AsRef<str>>(&self, arguments: &[W]) -> Output {
        self.start_guard(arguments).end()
    }

    /// Starts `rollbackd guard`.
    pub(crate) fn start_guard<W: AsRef<str>>(&self, arguments: &[W]) -> Running {
        self.configuration();
        let arguments: Vec<&str> = std::iter::once("guard").chain(arguments.iter().map(AsRef::as_ref)).collect();
        self.start("guard", &arguments)
    }

    /// Guards a migration of these statements.
    #[track_caller]
    pub(crate) fn guard_sql(&self, sql: &str) -> Output {
        self.start_guard_sql(sql).end()
    }

    /// Starts guarding a migration of these statements.
    pub(crate) fn start_guard_sql(&self, sql: &str) -> Running {
        let words: Vec<String> = std::iter::once("--".to_owned()).chain(self.migration(sql)).collect();
        self.start_guard(&words)
    }

    /// Starts the daemon and waits until it is ready.
    #[track_caller]
    pub(crate) fn daemon(&self) -> Daemon {
        let daemon = self.daemon_unready();
        eventually("the daemon is ready", || match self.get("/readyz") {
            Some((200, _)) => Ok(()),
            answer => Err((answer, daemon.said())),
        });
        daemon
    }

    /// Starts the daemon.
    pub(crate) fn daemon_unready(&self) -> Daemon {
        self.configuration();
        self.start("run", &["run"])
    }

    /// Runs any other command to its end.
    #[track_caller]
    pub(crate) fn cli<W: AsRef<str>>(&self, arguments: &[W]) -> Output {
        if !self.path(CONFIGURATION).exists() {
            self.configuration();
        }
        self.start("cli", &arguments.iter().map(AsRef::as_ref).collect::<Vec<_>>()).end()
    }

    /// An answer of the control socket: status and body. None when nobody listens.
    pub(crate) fn get(&self, path: &str) -> Option<(u16, String)> {
        let mut stream = UnixStream::connect(self.state().join("control.sock")).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
    }

    /// `GET /api/v1/status` of whoever listens.
    pub(crate) fn status(&self) -> Option<Value> {
        let (_, body) = self.get("/api/v1/status")?;
        serde_json::from_str(&body).ok()
    }

    /// The state of the open or last window.
    pub(crate) fn window_state(&self) -> Option<String> {
        self.status()?["window"]["state"].as_str().map(str::to_owned)
    }

    /// Waits until the window is in a state.
    #[track_caller]
    pub(crate) fn wait_for_state(&self, wanted: &str) {
        eventually(&format!("the window is {wanted}"), || match self.window_state() {
            Some(state) if state == wanted => Ok(()),
            state => Err(state),
        });
    }

    /// The records of the newest window, from whoever holds the journal.
    pub(crate) fn records(&self) -> Vec<Entry> {
        eventually("the journal can be read", || self.try_records())
    }

    fn try_records(&self) -> Result<Vec<Entry>, String> {
        if let Some((_, body)) = self.get("/api/v1/windows") {
            let windows: Value = serde_json::from_str(&body).map_err(|error| error.to_string())?;
            let Some(id) = windows[0]["id"].as_str() else { return Ok(Vec::new()) };
            let (_, body) = self.get(&format!("/api/v1/windows/{id}")).ok_or("nobody listens")?;
            let mut window: Value = serde_json::from_str(&body).map_err(|error| error.to_string())?;
            return serde_json::from_value(window["records"].take()).map_err(|error| error.to_string());
        }
        let (_journal, mut entries) = RedbJournal::open_existing(&self.state()).map_err(|error| error.to_string())?;
        let newest = entries.iter().rfind(|entry| matches!(entry.record, Record::WindowOpened { .. }));
        let newest = newest.and_then(|entry| entry.window.clone());
        entries.retain(|entry| entry.window.is_some() && entry.window == newest);
        Ok(entries)
    }

    /// `rollbackd report --json` of the newest window.
    #[track_caller]
    pub(crate) fn report(&self) -> Value {
        let output = self.cli(&["report", "--json"]).expect(0);
        serde_json::from_str(&output.stdout).unwrap()
    }

    /// What a failed test leaves to look at.
    #[expect(clippy::print_stderr, reason = "this is for whoever reads of the failure")]
    pub(super) fn show(&self) {
        let mut files: Vec<PathBuf> =
            std::fs::read_dir(self.directory()).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.retain(|path| path.extension().is_some_and(|kind| kind == "stdout" || kind == "stderr"));
        files.sort();
        for file in files {
            let text = read(&file);
            if !text.is_empty() {
                let shown: String = text.chars().take(8000).collect();
                eprintln!("--- {}\n{shown}", file.file_name().unwrap().display());
            }
        }
        eprintln!("--- notices: {:?}\n--- tables: {:?}", self.hooks.events(), self.database.try_tables());
    }
}

fn code(status: ExitStatus) -> i32 {
    status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(-1)
}

fn read(path: &Path) -> String {
    let mut text = Vec::new();
    File::open(path).and_then(|mut file| file.read_to_end(&mut text)).unwrap();
    String::from_utf8_lossy(&text).into_owned()
}
