//! A throwaway PostgreSQL server in a directory of its own, for the demo and for every test against a real one.
//!
//! The server is a direct child of this process, started by a thread that lives as long as it does: the kernel
//! ends the server when that thread is gone, so that nothing stays behind even when we are killed. It never runs
//! as root: started by root, it runs as the system's `postgres` user.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rand::Rng as _;
use rand::distr::Alphanumeric;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::sync::{oneshot, watch};
use tokio_postgres::NoTls;

use crate::config::model::Secret;
use crate::postgres::programs;

/// The system user that runs the server when we are root.
const SYSTEM_USER: &str = "postgres";
/// The superuser inside the server.
const SUPERUSER: &str = "postgres";
/// How long starting or stopping may take on a slow machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// A socket's path may have 107 bytes; the name of PostgreSQL's takes up to 15.
const LONGEST_SOCKET_DIRECTORY: usize = 90;

/// A running (or stopped) server. Dropped, it ends for good; its directory stays.
#[derive(Debug)]
pub struct Cluster {
    directory: PathBuf,
    binaries: PathBuf,
    port: u16,
    password: Secret,
    as_root: bool,
    server: Option<Server>,
}

/// How a server is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Sessions are ended, then it shuts down in order.
    Fast,
    /// As a crash: it recovers at its next start.
    Immediate,
}

#[derive(Debug)]
struct Server {
    /// Names the process beyond doubt, even after its id was given to another.
    process: OwnedFd,
    ended: watch::Receiver<bool>,
}

impl Cluster {
    /// Makes a cluster in the directory, which must be empty or absent, and starts it.
    pub async fn start(directory: &Path) -> Result<Self, String> {
        let binaries = programs::server_binaries()?;
        let as_root = rustix::process::geteuid().is_root();
        let password: String = rand::rng().sample_iter(&Alphanumeric).take(32).map(char::from).collect();
        std::fs::create_dir_all(directory).map_err(|error| format!("{}: {error}", directory.display()))?;
        let directory = directory.canonicalize().map_err(|error| format!("{}: {error}", directory.display()))?;
        let mut cluster = Self { directory, binaries, port: 0, password: Secret::new(password), as_root, server: None };
        if as_root {
            cluster.run(Command::new("chown").arg(SYSTEM_USER).arg(&cluster.directory)).await?;
        }
        cluster.make().await?;
        for attempt in 1.. {
            cluster.port = free_port()?;
            match cluster.start_again().await {
                Ok(()) => break,
                // Somebody took the port between our look and the server's.
                Err(reason) if attempt < 5 && reason.contains("could not bind") => {}
                Err(reason) => return Err(reason),
            }
        }
        Ok(cluster)
    }

    /// Where to connect as the superuser.
    pub fn url(&self, database: &str) -> String {
        self.url_as(SUPERUSER, self.password.expose(), database)
    }

    /// Where to connect as somebody else.
    pub fn url_as(&self, user: &str, password: &str, database: &str) -> String {
        let part =
            |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>().replace('+', "%20");
        let (user, password, database) = (part(user), part(password), part(database));
        format!("postgres://{user}:{password}@127.0.0.1:{}/{database}?sslmode=disable", self.port)
    }

    /// The TCP port, the same after every start.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The directory that holds the data, the log and the socket.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Makes an empty database.
    pub async fn create_database(&self, name: &str) -> Result<(), String> {
        let sql = format!("create database {}", rollbackd_core::baseline::quote_identifier(name));
        self.execute("postgres", &sql).await
    }

    /// Runs statements as the superuser.
    pub async fn execute(&self, database: &str, sql: &str) -> Result<(), String> {
        let work = async {
            let (client, connection) =
                tokio_postgres::connect(&self.url(database), NoTls).await.map_err(|error| described(&error))?;
            let statements = async {
                let result = client.batch_execute(sql).await.map_err(|error| described(&error));
                drop(client);
                result
            };
            let (result, _) = tokio::join!(statements, connection);
            result
        };
        tokio::time::timeout(PATIENCE, work).await.unwrap_or_else(|_elapsed| Err("no answer in time".to_owned()))
    }

    /// Starts the stopped server again, on the same port, and waits until it answers.
    pub async fn start_again(&mut self) -> Result<(), String> {
        if self.server.as_ref().is_some_and(|server| !*server.ended.borrow()) {
            return Ok(());
        }
        let log = File::create(self.log()).map_err(|error| format!("{}: {error}", self.log().display()))?;
        let mut server = supervise(self.server_command(log)?).await?;
        let answers = async {
            loop {
                if tokio_postgres::connect(&self.url("postgres"), NoTls).await.is_ok() {
                    return Ok(());
                }
                tokio::select! {
                    _ = server.ended.wait_for(|ended| *ended) => {
                        return Err(format!("the server ended while it started: {}", self.end_of_log()));
                    }
                    () = tokio::time::sleep(Duration::from_millis(20)) => {}
                }
            }
        };
        let result = tokio::time::timeout(PATIENCE, answers)
            .await
            .unwrap_or_else(|_elapsed| Err(format!("the server does not answer: {}", self.end_of_log())));
        self.server = Some(server);
        result
    }

    /// Stops the server and waits until it is gone.
    pub async fn stop(&mut self, how: Stop) -> Result<(), String> {
        let signal = match how {
            Stop::Fast => Signal::INT,
            Stop::Immediate => Signal::QUIT,
        };
        self.end(signal).await
    }

    /// Kills the server's main process; its children notice and end.
    pub async fn kill(&mut self) -> Result<(), String> {
        self.end(Signal::KILL).await
    }

    async fn end(&mut self, signal: Signal) -> Result<(), String> {
        let Some(mut server) = self.server.take() else { return Ok(()) };
        let sent = pidfd_send_signal(&server.process, signal);
        let gone = tokio::time::timeout(PATIENCE, server.ended.wait_for(|ended| *ended)).await.is_ok();
        if gone {
            return Ok(());
        }
        self.server = Some(server);
        Err(format!("the server does not stop (signal: {sent:?}): {}", self.end_of_log()))
    }

    async fn make(&self) -> Result<(), String> {
        let data = self.directory.join("data");
        // Only initdb reads it, and it is gone before anybody can connect.
        let password_file = self.directory.join("password");
        programs::write_private(&password_file, self.password.expose())?;
        let mut command = self.command("initdb");
        command
            .args(["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync", "--username", SUPERUSER])
            .arg("--pwfile")
            .arg(&password_file)
            .arg("--pgdata")
            .arg(&data);
        if self.as_root {
            self.run(Command::new("chown").arg(SYSTEM_USER).arg(&password_file)).await?;
        }
        let made = self.run(&mut command).await;
        std::fs::remove_file(&password_file).map_err(|error| format!("{}: {error}", password_file.display()))?;
        made?;
        // In the file and not on the command line, so that `alter system` can change them.
        let settings = data.join("postgresql.conf");
        let mut file =
            File::options().append(true).open(&settings).map_err(|e| format!("{}: {e}", settings.display()))?;
        file.write_all(b"max_connections = 200\nautovacuum_naptime = 1h\n")
            .map_err(|error| format!("{}: {error}", settings.display()))
    }

    /// A program of the server, as the user that may run it.
    fn command(&self, program: &str) -> Command {
        let path = self.binaries.join(program);
        let mut command = if self.as_root {
            let mut command = Command::new("runuser");
            command.args(["-u", SYSTEM_USER, "--"]).arg(path);
            command
        } else {
            Command::new(path)
        };
        command.current_dir(&self.directory).env("LC_ALL", "C").stdin(Stdio::null());
        command
    }

    fn server_command(&self, log: File) -> Result<Command, String> {
        let errors = log.try_clone().map_err(|error| error.to_string())?;
        let postgres = self.binaries.join("postgres");
        // Not runuser: it stays between us and the server, and keeps our signals to itself.
        let mut command = Command::new("setpriv");
        if self.as_root {
            // The death signal must be asked for after the change of user, which forgets it.
            command.args(["--reuid", SYSTEM_USER, "--regid", SYSTEM_USER, "--init-groups", "--", "setpriv"]);
        }
        command.args(["--pdeathsig", "INT", "--"]).arg(&postgres);
        if !self.as_root && !programs::is_installed("setpriv") {
            // Without util-linux the server outlives us if we are killed; in every other case we end it.
            command = Command::new(&postgres);
        }
        let sockets = if self.directory.as_os_str().len() > LONGEST_SOCKET_DIRECTORY {
            String::new()
        } else {
            self.directory.display().to_string()
        };
        command.arg("-D").arg(self.directory.join("data"));
        for setting in [
            format!("port={}", self.port),
            format!("unix_socket_directories={sockets}"),
            "listen_addresses=127.0.0.1".to_owned(),
            "fsync=off".to_owned(),
            "synchronous_commit=off".to_owned(),
            "shared_buffers=32MB".to_owned(),
        ] {
            command.arg("-c").arg(setting);
        }
        command.current_dir(&self.directory).env("LC_ALL", "C");
        command.stdin(Stdio::null()).stdout(Stdio::from(log)).stderr(Stdio::from(errors));
        Ok(command)
    }

    /// Runs a short program to its end.
    async fn run(&self, command: &mut Command) -> Result<(), String> {
        let program = format!("{command:?}");
        let placeholder = Command::new(command.get_program());
        let mut command = tokio::process::Command::from(std::mem::replace(command, placeholder));
        let output = tokio::time::timeout(PATIENCE, command.kill_on_drop(true).output())
            .await
            .map_err(|elapsed| format!("{program}: {elapsed}"))?
            .map_err(|error| format!("{program}: {error}"))?;
        if output.status.success() {
            return Ok(());
        }
        Err(format!("{program}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim()))
    }

    fn log(&self) -> PathBuf {
        self.directory.join("server.log")
    }

    fn end_of_log(&self) -> String {
        let mut text = String::new();
        let read = File::open(self.log()).and_then(|file| file.take(64 * 1024).read_to_string(&mut text));
        match read {
            Ok(_) => text.lines().rev().take(5).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join(" | "),
            Err(error) => format!("{}: {error}", self.log().display()),
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let Some(server) = self.server.take() else { return };
        if pidfd_send_signal(&server.process, Signal::QUIT).is_err() {
            return;
        }
        // Drop cannot await; an immediate shutdown takes milliseconds, and is bounded all the same.
        let patience = rustix::event::Timespec { tv_sec: 10, tv_nsec: 0 };
        let mut ended = [rustix::event::PollFd::new(&server.process, rustix::event::PollFlags::IN)];
        if !matches!(rustix::event::poll(&mut ended, Some(&patience)), Ok(1)) {
            tracing::warn!(event = "cluster.laggard", directory = %self.directory.display(), "the server does not stop");
        }
    }
}

/// Starts the server from a thread that waits for its end: the kernel's death signal is bound to the thread that
/// starts a child, and threads of a runtime come and go.
async fn supervise(mut command: Command) -> Result<Server, String> {
    let (started, start) = oneshot::channel();
    let (end, ended) = watch::channel(false);
    std::thread::Builder::new()
        .name("postgres".to_owned())
        .spawn(move || {
            let mut child = match command.spawn() {
                Ok(child) => child,
                Err(error) => {
                    drop(started.send(Err(format!("{command:?}: {error}"))));
                    return;
                }
            };
            let process = i32::try_from(child.id())
                .ok()
                .and_then(Pid::from_raw)
                .ok_or_else(|| "the server has no process id".to_owned())
                .and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).map_err(|error| error.to_string()));
            if started.send(process).is_err() {
                // Nobody waits any longer.
                drop(child.kill());
            }
            drop(child.wait());
            end.send_replace(true);
        })
        .map_err(|error| error.to_string())?;
    let process = start.await.map_err(|gone| gone.to_string())??;
    Ok(Server { process, ended })
}

fn free_port() -> Result<u16, String> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
    Ok(listener.local_addr().map_err(|error| error.to_string())?.port())
}

fn described(error: &tokio_postgres::Error) -> String {
    error.as_db_error().map_or_else(|| error.to_string(), ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn answers(cluster: &Cluster) -> bool {
        cluster.execute("postgres", "select 1").await.is_ok()
    }

    #[tokio::test]
    async fn it_stops_starts_and_leaves_nothing_behind() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut cluster = Cluster::start(&directory.path().join("deep/cluster")).await.expect("starts");
        assert!(answers(&cluster).await);
        cluster.create_database("sh\"op 🚀").await.expect("a database");
        cluster.execute("sh\"op 🚀", "create table t ()").await.expect("a table");
        for how in [Stop::Fast, Stop::Immediate] {
            cluster.stop(how).await.expect("stops");
            assert!(!answers(&cluster).await);
            cluster.start_again().await.expect("starts again");
            assert!(answers(&cluster).await);
        }
        cluster.kill().await.expect("dies");
        assert!(!answers(&cluster).await);
        cluster.start_again().await.expect("recovers");
        assert!(answers(&cluster).await);
        let port = cluster.port();
        drop(cluster);
        assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err(), "nobody listens any longer");
    }
}
