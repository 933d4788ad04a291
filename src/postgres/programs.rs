//! PostgreSQL's client programs: where they are, how they are told where to connect, how they are run.
//!
//! Credentials go through the environment, which only this user can read, never through arguments, which
//! everybody can. Every run is bounded, and its whole process group ends with it.

use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};
use tokio_postgres::config::Host;

use super::session::{APPLICATION_NAME, client_config};
use super::tls;
use crate::config::model::{Database, Secret, TlsMode};

/// How much of what a program says on stderr is kept.
const STDERR_LIMIT: u64 = 64 * 1024;
/// The longest line that is looked at when a program's output is read.
const LINE_LIMIT: u64 = 16 * 1024;
/// How long a program may take to tell its version.
const VERSION_TIMEOUT: Duration = Duration::from_secs(10);

/// `pg_dump` and `pg_restore`, not older than the server.
#[derive(Debug, Clone)]
pub struct Programs {
    /// `pg_dump`.
    pub dump: PathBuf,
    /// `pg_restore`.
    pub restore: PathBuf,
    /// What `pg_dump --version` says.
    pub version: String,
}

/// The directories to look in: `PG_BIN` first, then `PATH`, then Debian's, the newest first.
fn directories() -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = std::env::var_os("PG_BIN").map(PathBuf::from).into_iter().collect();
    if let Some(path) = std::env::var_os("PATH") {
        found.extend(std::env::split_paths(&path).filter(|directory| directory.is_absolute()));
    }
    let mut installed: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            Some((path.file_name()?.to_str()?.parse().ok()?, path.join("bin")))
        })
        .collect();
    installed.sort_by_key(|(version, _)| std::cmp::Reverse(*version));
    found.extend(installed.into_iter().map(|(_, path)| path));
    found
}

/// The directory with `initdb` and `postgres`.
pub fn server_binaries() -> Result<PathBuf, String> {
    directories()
        .into_iter()
        .find(|directory| directory.join("initdb").is_file() && directory.join("postgres").is_file())
        .ok_or_else(|| {
            "no PostgreSQL server found in PG_BIN, PATH or /usr/lib/postgresql/*/bin; on Debian install `postgresql`"
                .to_owned()
        })
}

/// Whether there is a program of this name in `PATH`.
pub(crate) fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

/// Finds programs that can read a server of this major version.
pub async fn find(server_major: u32) -> Result<Programs, String> {
    let mut older = None;
    for directory in directories() {
        let (dump, restore) = (directory.join("pg_dump"), directory.join("pg_restore"));
        if !dump.is_file() || !restore.is_file() {
            continue;
        }
        let Ok(version) = version_of(&dump).await else { continue };
        match major(&version) {
            Some(found) if found >= server_major => return Ok(Programs { dump, restore, version }),
            Some(_) | None => older = older.or(Some(version)),
        }
    }
    let way_out = format!("on Debian install `postgresql-client-{server_major}`, or set PG_BIN");
    Err(match older {
        Some(version) => format!("{version} is older than the server, which is {server_major}; {way_out}"),
        None => format!("no pg_dump found in PG_BIN, PATH or /usr/lib/postgresql/*/bin; {way_out}"),
    })
}

async fn version_of(program: &Path) -> Result<String, String> {
    let mut command = Command::new(program);
    command.arg("--version").stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(VERSION_TIMEOUT, command.output())
        .await
        .map_err(|elapsed| elapsed.to_string())?
        .map_err(|error| error.to_string())?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The major version in `pg_dump (PostgreSQL) 15.18 (Debian …)`.
fn major(version: &str) -> Option<u32> {
    let number = version.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
    number.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// How a program reaches the database: environment variables, and the files that they name.
#[derive(Debug)]
pub struct Access {
    environment: Vec<(&'static str, Secret)>,
    user: String,
    /// Holds the system's root certificates where libpq needs them as a file.
    _certificates: Option<TempDir>,
}

impl Access {
    /// The same server, user and security as our own sessions have.
    pub fn new(database: &Database) -> Result<Self, String> {
        let config = client_config(&database.url, &database.tls, database.connect_timeout, database.statement_timeout)?;
        let hosts: Vec<String> = config
            .get_hosts()
            .iter()
            .map(|host| match host {
                Host::Tcp(name) => name.clone(),
                Host::Unix(path) => path.display().to_string(),
            })
            .collect();
        let ports: Vec<String> = config.get_ports().iter().map(ToString::to_string).collect();
        let user = config.get_user().unwrap_or_default().to_owned();
        let name = config.get_dbname().unwrap_or(&user).to_owned();
        let password = String::from_utf8_lossy(config.get_password().unwrap_or_default()).into_owned();
        let (mode, verifies) = match database.tls.mode {
            TlsMode::Disable => ("disable", false),
            TlsMode::Prefer => ("prefer", false),
            TlsMode::Require => ("require", false),
            TlsMode::VerifyCa => ("verify-ca", true),
            TlsMode::VerifyFull => ("verify-full", true),
        };
        let mut environment: Vec<(&'static str, Secret)> = [
            ("PGHOST", hosts.join(",")),
            ("PGPORT", if ports.is_empty() { "5432".to_owned() } else { ports.join(",") }),
            ("PGDATABASE", name),
            ("PGUSER", user.clone()),
            ("PGPASSWORD", password),
            ("PGSSLMODE", mode.to_owned()),
            ("PGAPPNAME", APPLICATION_NAME.to_owned()),
            // libpq takes anything under two seconds as two.
            ("PGCONNECT_TIMEOUT", database.connect_timeout.as_secs().max(2).to_string()),
        ]
        .map(|(name, value)| (name, Secret::new(value)))
        .into();
        let mut certificates = None;
        if let Some(file) = &database.tls.root_cert {
            environment.push(("PGSSLROOTCERT", Secret::new(file.display().to_string())));
        } else if verifies {
            let directory = tempfile::tempdir().map_err(|error| format!("a directory for certificates: {error}"))?;
            let file = directory.path().join("roots.pem");
            write_private(&file, &tls::system_roots_pem()?)?;
            environment.push(("PGSSLROOTCERT", Secret::new(file.display().to_string())));
            certificates = Some(directory);
        }
        Ok(Self { environment, user, _certificates: certificates })
    }
}

/// Takes one line of a program's output.
pub type Line<'a> = &'a mut (dyn FnMut(&[u8]) + Send);

/// Runs a program to its end, at most `within`. Each line of its output goes to `line` (cut at 16 KiB); without it,
/// output is thrown away. `Err` is what the program said, or that its time was up.
pub async fn run(
    program: &Path,
    arguments: &[String],
    access: Option<&Access>,
    within: Duration,
    line: Option<Line<'_>>,
) -> Result<(), String> {
    let mut command = command(program, arguments, access);
    command.stdout(if line.is_some() { Stdio::piped() } else { Stdio::null() });
    let name = name_of(program);
    let child = command.spawn().map_err(|error| format!("{name} cannot be started: {error}"))?;
    let mut group = Group(child);
    let (stdout, stderr) = (group.0.stdout.take(), group.0.stderr.take());
    let work = async {
        let said = listen(stderr);
        let read = async {
            match (stdout, line) {
                (Some(stdout), Some(line)) => each_line(stdout, line).await,
                (_, _) => Ok(()),
            }
        };
        let (said, ()) = tokio::try_join!(said, read)?;
        Ok::<_, std::io::Error>((group.0.wait().await?, said))
    };
    match tokio::time::timeout(within, work).await {
        Ok(Ok((status, _))) if status.success() => Ok(()),
        Ok(Ok((status, said))) => Err(format!("{name} failed ({status}): {}", gist(&said, access))),
        Ok(Err(error)) => Err(format!("{name}: {error}")),
        Err(_elapsed) => Err(format!("{name} was ended: it did not finish within {} s", within.as_secs())),
    }
}

/// Runs a program to its end, at most `within`, while `take` reads its output as a stream. `failed` makes an error of
/// what the program says.
pub(crate) async fn feed<T, E, F>(
    program: &Path,
    arguments: &[String],
    within: Duration,
    take: impl FnOnce(ChildStdout) -> F + Send,
    failed: impl Fn(String) -> E + Send + Sync,
) -> Result<T, E>
where
    F: Future<Output = Result<T, E>> + Send,
    T: Send,
    E: Send,
{
    let name = name_of(program);
    let mut command = command(program, arguments, None);
    command.stdout(Stdio::piped());
    let child = command.spawn().map_err(|error| failed(format!("{name} cannot be started: {error}")))?;
    let mut group = Group(child);
    let (Some(stdout), stderr) = (group.0.stdout.take(), group.0.stderr.take()) else {
        return Err(failed(format!("{name} has no output")));
    };
    let work = async {
        let (took, said) = tokio::join!(take(stdout), listen(stderr));
        let took = took?;
        let said = said.map_err(|error| failed(format!("{name}: {error}")))?;
        let status = group.0.wait().await.map_err(|error| failed(format!("{name}: {error}")))?;
        if status.success() {
            Ok(took)
        } else {
            Err(failed(format!("{name} failed ({status}): {}", gist(&said, None))))
        }
    };
    let late = || failed(format!("{name} was ended: it did not finish within {} s", within.as_secs()));
    tokio::time::timeout(within, work).await.unwrap_or_else(|_elapsed| Err(late()))
}

/// What a program says on stderr, as far as it is kept.
async fn listen(stderr: Option<ChildStderr>) -> std::io::Result<Vec<u8>> {
    let mut said = Vec::new();
    if let Some(mut stderr) = stderr {
        (&mut stderr).take(STDERR_LIMIT).read_to_end(&mut said).await?;
        // What is left is thrown away, so that the program is not held up.
        tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await?;
    }
    Ok(said)
}

fn name_of(program: &Path) -> String {
    program.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// A program with its surroundings; where its output goes is left to the caller.
fn command(program: &Path, arguments: &[String], access: Option<&Access>) -> Command {
    let mut command = Command::new(program);
    // Whatever the daemon's own environment says about PostgreSQL must not lead the program elsewhere.
    for (variable, _) in std::env::vars_os() {
        if variable.to_string_lossy().starts_with("PG") {
            command.env_remove(variable);
        }
    }
    if let Some(access) = access {
        command.envs(access.environment.iter().map(|(name, value)| (name, value.expose())));
    }
    command.args(arguments).env("LC_ALL", "C").env("PGTZ", "UTC");
    command.stdin(Stdio::null()).stderr(Stdio::piped()).process_group(0).kill_on_drop(true);
    command
}

/// Feeds each line of a stream, without its end and cut to what is looked at, to `line`.
async fn each_line(
    stream: impl tokio::io::AsyncRead + Unpin,
    line: &mut (dyn FnMut(&[u8]) + Send),
) -> std::io::Result<()> {
    let mut reader = BufReader::with_capacity(1 << 16, stream);
    let mut text = Vec::new();
    loop {
        text.clear();
        let read = (&mut reader).take(LINE_LIMIT).read_until(b'\n', &mut text).await?;
        if read == 0 {
            return Ok(());
        }
        let whole = text.last() == Some(&b'\n');
        if whole {
            text.pop();
        }
        line(&text);
        if !whole {
            skip_line(&mut reader).await?;
        }
    }
}

/// Reads on to the end of the line, keeping nothing.
async fn skip_line(reader: &mut (impl tokio::io::AsyncBufRead + Unpin)) -> std::io::Result<()> {
    loop {
        let buffer = reader.fill_buf().await?;
        if buffer.is_empty() {
            return Ok(());
        }
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let length = buffer.len();
        reader.consume(end.map_or(length, |end| end + 1));
        if end.is_some() {
            return Ok(());
        }
    }
}

/// The first errors of what a program said, without the user's name.
fn gist(said: &[u8], access: Option<&Access>) -> String {
    let said = String::from_utf8_lossy(said);
    let errors: Vec<&str> = said.lines().filter(|line| line.contains("error:")).take(3).collect();
    let text = if errors.is_empty() { said.lines().take(3).collect::<Vec<_>>().join("; ") } else { errors.join("; ") };
    let text = match access {
        Some(access) if !access.user.is_empty() => text.replace(&format!("user \"{}\"", access.user), "this user"),
        Some(_) | None => text,
    };
    text.chars().take(600).collect()
}

/// A child that leads its own process group; the group is killed with it.
struct Group(Child);

impl Drop for Group {
    fn drop(&mut self) {
        // An id is there only while the child was not reaped, so it cannot be another's yet.
        let leader = self.0.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        if let Some(leader) = leader
            && let Err(error) = kill_process_group(leader, Signal::KILL)
        {
            tracing::debug!(event = "programs.kill", %error);
        }
    }
}

/// Writes a new file that only this user can read.
pub(crate) fn write_private(path: &Path, text: &str) -> Result<(), String> {
    let written = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| std::io::Write::write_all(&mut file, text.as_bytes()));
    written.map_err(|error| format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        assert_eq!(major("pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)"), Some(15));
        assert_eq!(major("pg_dump (PostgreSQL) 18beta1"), Some(18));
        assert_eq!(major("what"), None);
    }

    #[tokio::test]
    async fn a_server_that_is_too_new_names_the_package() {
        let reason = find(99).await.expect_err("nobody has it");
        assert!(reason.contains("postgresql-client-99"), "{reason}");
        find(15).await.expect("it is installed here");
    }

    #[tokio::test]
    async fn a_program_that_hangs_is_ended_with_its_children() {
        let directory = tempfile::tempdir().expect("a directory");
        let pid_file = directory.path().join("pid");
        let script = format!("sleep 1000 & echo $! > {}; wait", pid_file.display());
        let reason = run(Path::new("/bin/sh"), &["-c".to_owned(), script], None, Duration::from_millis(500), None)
            .await
            .expect_err("it hangs");
        assert!(reason.contains("did not finish"), "{reason}");
        let pid = std::fs::read_to_string(&pid_file).expect("it had started");
        let stat = format!("/proc/{}/stat", pid.trim());
        let gone = || std::fs::read_to_string(&stat).map_or(true, |text| text.contains(") Z "));
        for _ in 0..200 {
            if gone() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the child lives on");
    }

    #[tokio::test]
    async fn long_lines_are_cut_and_counted_once() {
        let mut lines = Vec::new();
        let script = "printf 'a\\n'; head -c 100000 /dev/zero | tr '\\0' x; printf '\\nlast'".to_owned();
        let mut line = |text: &[u8]| lines.push(text.len());
        run(Path::new("/bin/sh"), &["-c".to_owned(), script], None, Duration::from_secs(10), Some(&mut line))
            .await
            .expect("it runs");
        assert_eq!(lines, [1, 16 * 1024, 4]);
    }
}
