//! The stage of a test: a directory, a database with the original tables, an application on it, a webhook
//! receiver, and a configuration that guards all of it with times that a test can wait for.
//!
//! Everything is real. A condition that is waited for is looked at again and again within a bound; nothing sleeps
//! and hopes. A stage that goes down with a failed test shows its logs, and ends whatever was started on it.

mod application;
mod browser;
mod database;
mod hooks;
mod mail;
mod plan;
mod program;
mod server;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use rollbackd::clock::Stopwatch;
use tokio::runtime::Runtime;

pub(crate) use self::application::{Application, Mood};
pub(crate) use self::browser::read_between;
pub(crate) use self::database::{Database, Facts, Sitting};
pub(crate) use self::hooks::Hooks;
pub(crate) use self::mail::{Behaviour, Mail};
pub(crate) use self::plan::{DROP, Plan, QUARANTINE, script};
pub(crate) use self::program::{Daemon, Output, Running};

/// Nothing that a test waits for may take longer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// The password of the test account.
const PASSWORD: &str = "correct horse";
/// The variable by which everything that runs on a stage is recognised.
const MARK: &str = "STAGE";

/// Where one test plays.
pub(crate) struct Stage {
    /// The application, which answers from the database.
    pub(crate) app: Application,
    /// The webhook receiver of the plan's contact.
    pub(crate) hooks: Hooks,
    /// The database, as its owner.
    pub(crate) database: Database,
    /// What the configuration says; written anew before each start.
    pub(crate) plan: Plan,
    /// The environment of every program.
    environment: BTreeMap<String, String>,
    /// The originals as they were at the beginning.
    before: Facts,
    server: server::Server,
    directory: tempfile::TempDir,
}

impl Stage {
    /// A stage on the server that all tests of this process share.
    pub(crate) fn new(name: &str) -> Self {
        Self::on(server::Server::shared(), name)
    }

    /// A stage with a server of its own, to be stopped, started and killed.
    pub(crate) fn alone(name: &str) -> Self {
        Self::on(server::Server::own(), name)
    }

    /// The same, with the server's data on a disk of so many megabytes. `None`: this process may not mount.
    pub(crate) fn alone_on_small_disk(name: &str, megabytes: u32) -> Option<Self> {
        Some(Self::on(server::Server::on_small_disk(megabytes)?, name))
    }

    fn on(server: server::Server, name: &str) -> Self {
        let directory = own_directory(name);
        let database = Database::create(&server, name);
        let before = database.facts();
        let app = Application::start(database.url(), directory.path().join("maintenance"));
        let hooks = Hooks::start();
        let mut environment = database.environment();
        for (name, value) in [
            (MARK, directory.path().display().to_string()),
            ("STAGE_DATABASE_URL", database.url().to_owned()),
            ("STAGE_PASSWORD", PASSWORD.to_owned()),
            ("NO_COLOR", "1".to_owned()),
            ("PATH", server::path()),
        ] {
            environment.insert(name.to_owned(), value);
        }
        let plan = Plan::new(&app, &hooks);
        Self { app, hooks, database, plan, environment, before, server, directory }
    }

    /// The directory of the configuration, in which its commands run.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// A path on the stage.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory().join(name)
    }

    /// `state_dir`.
    pub(crate) fn state(&self) -> PathBuf {
        self.path("state")
    }

    /// The server of a stage that is [`alone`](Self::alone).
    pub(crate) fn own_server(&mut self) -> &mut rollbackd::demo::cluster::Cluster {
        self.server.own_mut()
    }

    /// The owner's session is opened anew, after the server was away.
    pub(crate) fn come_back(&mut self) {
        self.database.come_back();
    }

    /// Restarts the server of a stage that is [`alone`](Self::alone), for settings that need it.
    pub(crate) fn restart_server(&mut self) {
        let server = self.server.own_mut();
        runtime().block_on(async {
            server.stop(rollbackd::demo::cluster::Stop::Fast).await.expect("stops");
            server.start_again().await.expect("starts");
        });
        self.database.come_back();
    }

    /// Sets a variable for every program that is started from now on.
    pub(crate) fn set(&mut self, name: &str, value: impl Into<String>) {
        self.environment.insert(name.to_owned(), value.into());
    }

    /// Takes a variable away again.
    pub(crate) fn unset(&mut self, name: &str) {
        self.environment.remove(name);
    }

    /// The environment of every program that is started here.
    pub(crate) const fn variables(&self) -> &BTreeMap<String, String> {
        &self.environment
    }

    /// Waits until a table exists in `public`.
    #[track_caller]
    pub(crate) fn wait_for_table(&self, name: &str) {
        let exists = format!("select to_regclass('public.{name}') is not null");
        until(&format!("table {name} exists"), || self.database.value(&exists) == "t");
    }

    /// Does what the report tells a person to do: its block of commands as it stands, given to psql.
    #[track_caller]
    pub(crate) fn run_manual(&self) -> Vec<String> {
        let text = self.cli(&["report"]).expect(0).stdout;
        let (_, told) = text.split_once("## What to do now").unwrap_or_else(|| panic!("nothing to do: {text}"));
        let sql = told.split("```").nth(1).unwrap().split_once('\n').unwrap().1;
        let mut psql = Command::new("psql");
        psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-f", "-"]).envs(&self.environment);
        psql.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut psql = psql.spawn().unwrap();
        psql.stdin.take().unwrap().write_all(sql.as_bytes()).unwrap();
        let output = psql.wait_with_output().unwrap();
        assert!(output.status.success(), "{sql}\n{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
    }

    /// Writes an executable shell script and returns its path in commands.
    pub(crate) fn script(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        format!("./{name}")
    }

    /// A migration that runs statements with psql; the words of the command.
    pub(crate) fn migration(&self, sql: &str) -> Vec<String> {
        let file = self.path("migration.sql");
        std::fs::write(&file, sql).unwrap();
        let words = ["psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-f"].map(str::to_owned);
        words.into_iter().chain([file.display().to_string()]).collect()
    }

    /// The lines of a file on the stage, none when it is not there (yet).
    pub(crate) fn lines(&self, name: &str) -> Vec<String> {
        std::fs::read_to_string(self.path(name)).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    /// Everything of the originals is as it was, their rows included.
    #[track_caller]
    pub(crate) fn assert_originals_whole(&self) {
        assert_eq!(self.database.facts(), self.before, "the originals are not as they were");
    }

    /// The tables that are not the originals, as `schema.table`.
    pub(crate) fn new_tables(&self) -> Vec<String> {
        let all = self.database.tables().into_iter();
        all.filter(|table| !database::ORIGINALS.iter().any(|original| *table == format!("public.{original}"))).collect()
    }

    /// The files on the stage, whatever wrote them, in which one of these texts stands.
    pub(crate) fn files_that_hold(&self, texts: &[&str]) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut directories = vec![self.directory().to_owned()];
        while let Some(directory) = directories.pop() {
            for entry in std::fs::read_dir(directory).unwrap() {
                let (path, kind) = entry.map(|entry| (entry.path(), entry.file_type().unwrap())).unwrap();
                if kind.is_dir() {
                    directories.push(path);
                } else if kind.is_file() {
                    let bytes = std::fs::read(&path).unwrap();
                    if texts.iter().any(|text| bytes.windows(text.len()).any(|window| window == text.as_bytes())) {
                        found.push(path);
                    }
                }
            }
        }
        found
    }

    /// The processes that were started on this stage and still run, rollbackd itself among them: `pid command`.
    pub(crate) fn left_running(&self) -> Vec<String> {
        processes(self.directory()).into_iter().map(|(pid, line)| format!("{pid} {line}")).collect()
    }

    /// Waits until nothing that was started on this stage runs any more.
    #[track_caller]
    pub(crate) fn assert_nothing_runs(&self) {
        eventually("everything has ended", || {
            let left = self.left_running();
            if left.is_empty() { Ok(()) } else { Err(left) }
        });
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.show();
        }
        for (pid, _) in processes(self.directory()) {
            if let Some(pid) = rustix::process::Pid::from_raw(pid) {
                rustix::process::kill_process(pid, rustix::process::Signal::KILL).ok();
            }
        }
        self.database.remove();
    }
}

/// The processes whose environment bears the mark of a stage; those that have ended bear none.
fn processes(stage: &Path) -> Vec<(i32, String)> {
    let mark = format!("{MARK}={}", stage.display());
    let read = |pid: i32, name: &str| std::fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
    pids()
        .filter(|pid| read(*pid, "environ").split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes()))
        .map(|pid| (pid, String::from_utf8_lossy(&read(pid, "cmdline")).replace('\0', " ")))
        .collect()
}

/// The processes of a group. Those that have ended and that nobody has taken note of yet do not count.
pub(crate) fn alive_in_group(group: i32) -> Vec<i32> {
    let belongs = |pid: &i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // After the name, in parentheses: state, parent, group.
        let rest: Vec<&str> = stat.rsplit_once(") ").map(|(_, rest)| rest.split(' ').collect()).unwrap_or_default();
        rest.first().is_some_and(|state| *state != "Z") && rest.get(2).is_some_and(|id| *id == group.to_string())
    };
    pids().filter(belongs).collect()
}

fn pids() -> impl Iterator<Item = i32> {
    std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// A directory that the database server's user can reach, with a short name: sockets have little room.
fn own_directory(name: &str) -> tempfile::TempDir {
    let directory = tempfile::Builder::new().prefix(&format!("rbd-{name}-")).tempdir_in("/tmp").unwrap();
    std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
    directory
}

/// Looks until there is something, and says what was seen last when it takes too long.
#[track_caller]
pub(crate) fn eventually<T, E: Debug>(what: &str, mut look: impl FnMut() -> Result<T, E>) -> T {
    let watch = Stopwatch::start();
    loop {
        match look() {
            Ok(found) => return found,
            Err(seen) if watch.elapsed() > PATIENCE => panic!("not in time: {what}; seen last: {seen:#?}"),
            Err(_not_yet) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// Looks until it is so.
#[track_caller]
pub(crate) fn until(what: &str, mut so: impl FnMut() -> bool) {
    eventually(what, || if so() { Ok(()) } else { Err("no") });
}

/// What the parts inside this process run on.
pub(crate) fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap())
}
