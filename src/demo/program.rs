//! This very executable, started as a user would: as the daemon, and as the commands that talk to it.
//!
//! The daemon dies with the demo, even when the demo is killed: where `setpriv` is at hand, the kernel sees to it.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use reqwest::Client;
use rollbackd_core::run::record::Entry;
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

/// How long the daemon may take until it is ready.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// How long the daemon may take to end when it is asked to.
const GRACE: Duration = Duration::from_secs(15);
/// How long a command that only prints something may take.
const COMMAND_WITHIN: Duration = Duration::from_secs(20);
/// How long one request may take.
const REQUEST_WITHIN: Duration = Duration::from_secs(5);
/// The longest line that is relayed, and the most of a command's output that is kept.
const MAX_LINE: u64 = 4096;
const MAX_OUTPUT: u64 = 8 * 1024 * 1024;

/// How this executable is started.
#[derive(Debug, Clone)]
pub struct Program {
    /// The executable.
    pub executable: PathBuf,
    /// The configuration.
    pub config: PathBuf,
    /// What the configuration refers to.
    pub environment: Vec<(&'static str, OsString)>,
    /// Where the daemon serves HTTP.
    pub http: SocketAddr,
    /// Where the daemon's log goes.
    pub log: PathBuf,
}

/// The running daemon. Dropped: killed.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
}

impl Program {
    fn command(&self, arguments: &[&str]) -> Command {
        // The signal comes when the thread that started the child ends: that is the one that runs the demo's main task.
        let mut command = match in_path("setpriv") {
            Some(setpriv) => {
                let mut command = Command::new(setpriv);
                command.args(["--pdeathsig", "KILL", "--"]).arg(&self.executable);
                command
            }
            None => Command::new(&self.executable),
        };
        // What the user's own psql is told has no place here.
        for (name, _) in std::env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"PG") && name != "PG_BIN" {
                command.env_remove(name);
            }
        }
        command
            .args(arguments)
            .arg("--config")
            .arg(&self.config)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            // Everything is on this machine, and nobody else's service manager waits for this daemon.
            .env("NO_PROXY", "127.0.0.1,localhost")
            .env_remove("NOTIFY_SOCKET")
            .env_remove("WATCHDOG_USEC")
            .env_remove("WATCHDOG_PID")
            .stdin(Stdio::null())
            .process_group(0)
            .kill_on_drop(true);
        command
    }

    /// Starts the daemon and waits until it says that it is ready.
    ///
    /// # Errors
    /// A sentence with the end of the daemon's log.
    pub async fn start(&self) -> Result<Daemon, String> {
        let log = std::fs::File::create(&self.log).map_err(|error| format!("{}: {error}", self.log.display()))?;
        let also = log.try_clone().map_err(|error| format!("{}: {error}", self.log.display()))?;
        let child = self.command(&["run"]).stdout(log).stderr(also).spawn();
        let mut daemon = Daemon { child: child.map_err(|error| self.cannot_start(&error))? };
        let client = client()?;
        let deadline = Instant::now() + READY_WITHIN;
        let mut last = "it does not answer".to_owned();
        while Instant::now() < deadline {
            match daemon.child.try_wait() {
                Ok(None) => {}
                Ok(Some(status)) => return Err(format!("rollbackd run ended ({status}):\n{}", self.log_tail())),
                Err(error) => return Err(format!("cannot look after rollbackd run: {error}")),
            }
            match client.get(format!("http://{}/readyz", self.http)).send().await {
                Ok(answer) if answer.status().is_success() => return Ok(daemon),
                Ok(answer) => last = answer.text().await.unwrap_or_default(),
                Err(error) => last = error.without_url().to_string(),
            }
            sleep(Duration::from_millis(100)).await;
        }
        let seconds = READY_WITHIN.as_secs();
        Err(format!("rollbackd run is not ready after {seconds} s: {last}\n{}", self.log_tail()))
    }

    /// Runs a command and hands over each line that it prints, as it comes. Gives back its exit code.
    ///
    /// # Errors
    /// A sentence, when it cannot be started, takes too long, or is ended by a signal.
    pub async fn relayed(
        &self,
        arguments: &[&str],
        within: Duration,
        mut line: impl FnMut(&str),
    ) -> Result<i32, String> {
        let shown = arguments.join(" ");
        let spawned = self.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = spawned.map_err(|error| self.cannot_start(&error))?;
        let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
            return Err(format!("rollbackd {shown} has no output"));
        };
        let (to, mut lines) = mpsc::channel::<String>(64);
        let work = async {
            let relay = async {
                while let Some(text) = lines.recv().await {
                    line(&text);
                }
            };
            tokio::join!(read_lines(stdout, to.clone()), read_lines(stderr, to), relay);
            child.wait().await
        };
        let status =
            timeout(within, work).await.map_err(|_elapsed| format!("rollbackd {shown} took more than {within:?}"))?;
        let status = status.map_err(|error| format!("cannot wait for rollbackd {shown}: {error}"))?;
        status.code().ok_or_else(|| format!("rollbackd {shown} ended by {status}"))
    }

    /// What a command prints on its standard output.
    ///
    /// # Errors
    /// A sentence, when it does not exit with 0.
    pub async fn printed(&self, arguments: &[&str]) -> Result<String, String> {
        let shown = arguments.join(" ");
        let spawned = self.command(arguments).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let mut child = spawned.map_err(|error| self.cannot_start(&error))?;
        let stdout = child.stdout.take().ok_or_else(|| format!("rollbackd {shown} has no output"))?;
        let work = async {
            let mut text = String::new();
            stdout.take(MAX_OUTPUT).read_to_string(&mut text).await?;
            Ok::<_, std::io::Error>((child.wait().await?, text))
        };
        match timeout(COMMAND_WITHIN, work).await {
            Ok(Ok((status, text))) if status.success() => Ok(text),
            Ok(Ok((status, _))) => Err(format!("rollbackd {shown} ended ({status})")),
            Ok(Err(error)) => Err(format!("rollbackd {shown}: {error}")),
            Err(_) => Err(format!("rollbackd {shown} took more than {COMMAND_WITHIN:?}")),
        }
    }

    /// The newest window's id and records, from the daemon's API.
    ///
    /// # Errors
    /// A sentence.
    pub async fn newest_window(&self) -> Result<(String, Vec<Entry>), String> {
        #[derive(Deserialize)]
        struct Listed {
            id: String,
        }
        #[derive(Deserialize)]
        struct Window {
            records: Vec<Entry>,
        }
        let listed: Vec<Listed> = self.get("/api/v1/windows").await?;
        let newest = listed.into_iter().next().ok_or("the daemon knows of no window")?;
        let window: Window = self.get(&format!("/api/v1/windows/{}", newest.id)).await?;
        Ok((newest.id, window.records))
    }

    async fn get<T: for<'de> Deserialize<'de>>(&self, path: &str) -> Result<T, String> {
        let failed = |error: reqwest::Error| format!("GET {path}: {}", error.without_url());
        let answer = client()?.get(format!("http://{}{path}", self.http)).send().await.map_err(failed)?;
        answer.error_for_status().map_err(failed)?.json().await.map_err(failed)
    }

    /// The last lines of the daemon's log.
    pub fn log_tail(&self) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines.get(lines.len().saturating_sub(12)..).unwrap_or_default().join("\n")
    }

    fn cannot_start(&self, error: &std::io::Error) -> String {
        format!("{} cannot be started: {error}", self.executable.display())
    }
}

impl Daemon {
    /// Asks the daemon to end, and ends it if it does not.
    pub async fn end(mut self) {
        if let Some(pid) =
            self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw)
        {
            // It may have ended already, which is what is wanted.
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).ok();
        }
        if timeout(GRACE, self.child.wait()).await.is_err() {
            tracing::warn!(event = "demo.daemon_killed", "the demo's daemon did not end when it was asked to");
            self.child.kill().await.ok();
        }
    }
}

/// Lines of a stream into a channel, each capped; the rest of a longer one comes as the next.
async fn read_lines(stream: impl AsyncRead + Unpin, to: mpsc::Sender<String>) {
    let mut stream = BufReader::new(stream);
    loop {
        let mut line = Vec::new();
        match (&mut stream).take(MAX_LINE).read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {
                if to.send(String::from_utf8_lossy(&line).trim_end().to_owned()).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// A client for the daemon's HTTP interface.
fn client() -> Result<Client, String> {
    Client::builder().timeout(REQUEST_WITHIN).no_proxy().build().map_err(|error| error.to_string())
}

/// Where a program is, looked up in `PATH` and where administrators' programs are.
pub fn in_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/bin", "/usr/sbin", "/bin", "/sbin"].map(PathBuf::from))
        .map(|directory| directory.join(program))
        .find(|candidate| is_executable(candidate))
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}
