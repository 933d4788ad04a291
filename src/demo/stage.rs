//! The stage of the story: sets everything up in one temporary directory, plays, and strikes it again.
//!
//! Everything that runs is held here, so that it ends however the story ends. What is worth keeping stays in the
//! directory: the report, the journal, the daemon's log, the backup, mails and webhooks.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use rand::Rng;
use rollbackd_core::run::record::Record;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::cluster::{Cluster, Stop};
use super::customers::{self, Experience};
use super::database::{Judge, Original};
use super::mail::{self, Mailbox};
use super::program::{Daemon, Program};
use super::proof::{self, Expected, Shopfront};
use super::setting::{
    addresses, database_access, exports, free_port, password, psql, write, write_files, write_private,
};
use super::story::{self, Finding, Narrator};
use super::webhooks::{self, Hooks};
use super::{Options, shop};

/// How long a window may take, all in all.
const WINDOW_WITHIN: Duration = Duration::from_secs(360);
/// How long tasks may take to end.
const GRACE: Duration = Duration::from_secs(5);

/// How the story ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Everything is as it should be.
    Good,
    /// Something is not.
    Bad,
}

/// Everything that runs, and where.
pub struct Stage {
    executable: PathBuf,
    program: Option<Program>,
    // Dropped in this order: what uses the directory goes before it.
    daemon: Option<Daemon>,
    cluster: Option<Cluster>,
    tracker: TaskTracker,
    cancel: CancellationToken,
    directory: TempDir,
}

/// What the scene consists of, once it is set.
struct Scene {
    judge: Judge,
    originals: Vec<Original>,
    front: Shopfront,
    maintenance: PathBuf,
    experience: watch::Receiver<Experience>,
    mailbox: Mailbox,
    hooks: Hooks,
    program: Program,
}

impl Stage {
    /// An empty stage in a new directory. `executable` is rollbackd.
    ///
    /// # Errors
    /// When there is no place for temporary files.
    pub fn new(executable: PathBuf) -> std::io::Result<Self> {
        let directory = tempfile::Builder::new().prefix("rollbackd-demo-").tempdir_in(room())?;
        // PostgreSQL refuses to run as root: for root it runs as another user, who must be able to come through.
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755))?;
        Ok(Self {
            executable,
            program: None,
            daemon: None,
            cluster: None,
            tracker: TaskTracker::new(),
            cancel: CancellationToken::new(),
            directory,
        })
    }

    /// Plays the whole story.
    ///
    /// # Errors
    /// A sentence, when it cannot go on.
    pub async fn play<W: Write>(&mut self, options: Options, narrator: &mut Narrator<W>) -> Result<Ending, String> {
        let told = |error: std::io::Error| format!("the story cannot be told: {error}");
        narrator.say(title(options)).map_err(told)?;
        narrator.chapter("A shop is open").map_err(told)?;
        let mut scene = self.set(options, narrator).await?;
        narrator.chapter("rollbackd stands guard").map_err(told)?;
        self.program = Some(scene.program.clone());
        self.daemon = Some(scene.program.start().await?);
        narrator.line(&format!("rollbackd run --config {}", scene.program.config.display())).map_err(told)?;
        narrator.line(&format!("ready; status on http://{}/", scene.program.http)).map_err(told)?;

        narrator.chapter("A migration is guarded").map_err(told)?;
        narrator.line("rollbackd window open --wait").map_err(told)?;
        let open = ["window", "open", "--wait", "--reason", "the demo's migration"];
        let mut untold = None;
        let code =
            scene.program.relayed(&open, WINDOW_WITHIN, |line| untold = narrator.relay(line).err().or(untold.take()));
        let code = code.await?;
        untold.map_or(Ok(()), Err).map_err(told)?;

        narrator.chapter("What the journal says").map_err(told)?;
        let (window, records) = scene.program.newest_window().await?;
        let moments = story::moments(&records);
        let from = moments.first().map_or(Timestamp::UNIX_EPOCH, |first| first.at);
        narrator.timeline(&moments, from).map_err(told)?;

        narrator.chapter("What the customers noticed").map_err(told)?;
        let served = proof::customers(&mut scene.experience).await;
        for line in noticed(&scene.experience.borrow().clone(), &records) {
            narrator.line(&line).map_err(told)?;
        }

        narrator.chapter("What is true, looked up without asking rollbackd").map_err(told)?;
        let mut findings = scene.findings(options, code).await;
        findings.push(served);
        for finding in &findings {
            narrator.finding(finding).map_err(told)?;
        }
        self.keep_evidence(&scene, &window).await?;
        let good = findings.iter().all(|finding| finding.good);
        Ok(if good { Ending::Good } else { Ending::Bad })
    }

    /// Sets the scene: cluster, database, shop, customers, receivers, configuration.
    async fn set<W: Write>(&mut self, options: Options, narrator: &mut Narrator<W>) -> Result<Scene, String> {
        let told = |error: std::io::Error| format!("the story cannot be told: {error}");
        let directory = self.directory.path().to_owned();
        let cluster = self.cluster.insert(Cluster::start(&directory.join("cluster")).await?);
        let (owner, app) = (password(), password());
        let administrator = Judge::connect(&cluster.url("postgres"), &self.tracker).await?;
        administrator.create(&owner, &app).await?;
        let owner_url = cluster.url_as("shop_owner", &owner, "shop");
        let judge = Judge::connect(&owner_url, &self.tracker).await?;
        judge.fill().await?;
        let originals = judge.originals().await?;
        let held: Vec<_> = originals.iter().map(|one| format!("{} {}", one.rows, one.table)).collect();
        let version = judge.version().await?;
        narrator.line(&format!("PostgreSQL {version} in {}", directory.join("cluster").display())).map_err(told)?;
        narrator.line(&format!("database `shop`: {}", held.join(", "))).map_err(told)?;

        let maintenance = directory.join("maintenance");
        let apikey = password();
        let app_url = cluster.url_as("shop_app", &app, "shop");
        let address = shop::start(&app_url, maintenance.clone(), &apikey, &self.tracker, &self.cancel).await?;
        let experience = customers::start(address, &apikey, &self.tracker, &self.cancel)?;
        let front = Shopfront {
            address,
            apikey,
            email: "watchdog@shop.example".to_owned(),
            password: "correct horse 1".to_owned(),
        };
        for finding in [front.posts().await, front.sign_in().await] {
            narrator.finding(&finding).map_err(told)?;
            if !finding.good {
                return Err(finding.text);
            }
        }
        let mailbox = mail::start(&self.tracker, &self.cancel).await?;
        let secret = format!("whsec_{}", STANDARD.encode(rand::rng().random::<[u8; 24]>()));
        let hooks = webhooks::start(&secret, &self.tracker, &self.cancel).await?;
        narrator
            .line(&format!(
                "the shop is on http://{address}, mail goes to port {}, webhooks go to port {}",
                mailbox.address.port(),
                hooks.address.port()
            ))
            .map_err(told)?;

        write_files(&directory, mailbox.address.port()).map_err(|error| format!("{}: {error}", directory.display()))?;
        let http = free_port()?;
        let mut environment = addresses(&directory, &front, &maintenance, http, &hooks, &secret);
        environment.extend(database_access(&owner_url)?);
        environment
            .push(("DEMO_MIGRATION", if options.healthy { "demo/healthy.sql" } else { "demo/migration.sql" }.into()));
        environment.push(("DEMO_PSQL", psql()?.into_os_string()));
        let program = Program {
            executable: self.executable.clone(),
            config: directory.join("demo.toml"),
            environment,
            http,
            log: directory.join("rollbackd.log"),
        };
        Ok(Scene { judge, originals, front, maintenance, experience, mailbox, hooks, program })
    }

    /// Says how to look around while everything is left running.
    ///
    /// # Errors
    /// When the output cannot be written.
    pub fn stay<W: Write>(&mut self, narrator: &mut Narrator<W>) -> std::io::Result<()> {
        let Some(program) = &self.program else { return Ok(()) };
        let variables = self.directory.path().join("environment");
        write_private(&variables, &exports(&program.environment))?;
        narrator.chapter("Everything is left running, until Ctrl-C")?;
        narrator.line(&format!("status       http://{}/api/v1/status", program.http))?;
        narrator.line(&format!("metrics      http://{}/metrics", program.http))?;
        narrator.line("In another terminal:")?;
        let (executable, config) = (program.executable.display(), program.config.display());
        narrator.line(&format!("  . {}", variables.display()))?;
        narrator.line(&format!("  export ROLLBACKD_CONFIG={config}"))?;
        for command in ["status", "history", "report", "verify", "check --online"] {
            narrator.line(&format!("  {executable} {command}"))?;
        }
        narrator.line("  psql                       # the demo's database")
    }

    /// Ends everything that runs, and removes the cluster.
    pub async fn strike(&mut self) {
        if let Some(daemon) = self.daemon.take() {
            daemon.end().await;
        }
        self.cancel.cancel();
        self.tracker.close();
        if let Some(mut cluster) = self.cluster.take()
            && let Err(reason) = cluster.stop(Stop::Immediate).await
        {
            tracing::warn!(
                event = "demo.cluster_not_stopped",
                error = reason,
                "the demo's cluster did not stop as asked"
            );
        }
        if timeout(GRACE, self.tracker.wait()).await.is_err() {
            tracing::warn!(
                event = "demo.tasks_left",
                tasks = self.tracker.len(),
                "some of the demo's tasks did not end"
            );
        }
        for gone in ["cluster", "maintenance", "environment"] {
            let path = self.directory.path().join(gone);
            let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            if let Err(error) = removed
                && error.kind() != std::io::ErrorKind::NotFound
            {
                tracing::warn!(event = "demo.not_removed", path = %path.display(), %error, "something of the demo is left");
            }
        }
    }

    /// Lets the directory stay, when there is something in it that says what went wrong.
    pub fn keep_results(&mut self) -> Option<PathBuf> {
        let path = self.directory.path().to_owned();
        path.join("rollbackd.log").exists().then(|| {
            self.directory.disable_cleanup(true);
            path
        })
    }

    /// Says how it ended and what was kept.
    ///
    /// # Errors
    /// When the output cannot be written.
    pub fn farewell<W: Write>(&mut self, narrator: &mut Narrator<W>, ending: Ending) -> std::io::Result<()> {
        let kept = self.keep_results().unwrap_or_default();
        narrator.say("")?;
        narrator.say(match ending {
            Ending::Good => "The originals are whole and the application answers.",
            Ending::Bad => "Not everything is as it should be: see the lines marked NO.",
        })?;
        let path = |name: &str| kept.join(name).display().to_string();
        narrator.say(&format!("report:   {}", path("report.md")))?;
        narrator.say(&format!("journal:  {}", journal(&kept).display()))?;
        narrator.say(&format!("also in {}:", kept.display()))?;
        narrator.say("          report.json, rollbackd.log, mails/, webhooks/, backups/")
    }

    /// Writes the reports, and the mails and webhooks that came in, into the directory.
    async fn keep_evidence(&self, scene: &Scene, window: &str) -> Result<(), String> {
        let directory = self.directory.path();
        let mut files = Vec::new();
        for format in ["md", "json"] {
            let report = scene.program.printed(&["report", window, "--format", format]).await?;
            files.push((format!("report.{format}"), report));
        }
        for (number, mail) in scene.mailbox.mails.borrow().iter().enumerate() {
            files.push((format!("mails/{:02}.eml", number + 1), mail.text.clone()));
        }
        for (number, webhook) in scene.hooks.received.borrow().iter().enumerate() {
            files.push((format!("webhooks/{:02}.json", number + 1), format!("{:#}\n", webhook.body)));
        }
        for (name, text) in files {
            write(&directory.join(&name), &text).map_err(|error| format!("{name}: {error}"))?;
        }
        Ok(())
    }
}

impl Scene {
    async fn findings(&mut self, options: Options, code: i32) -> Vec<Finding> {
        let (expected_code, word, place, title, event) = if options.healthy {
            (0, "passed", Expected::Live, "migration passed", "window.passed")
        } else {
            (20, "rolled back and recovered", Expected::Quarantined, "recovered", "rollback.recovered")
        };
        let mut findings = proof::originals(&self.judge, &self.originals).await;
        findings.push(self.front.posts().await);
        findings.push(self.front.sign_in().await);
        findings.push(proof::traffic(&self.maintenance));
        findings.push(proof::new_tables(&self.judge, place).await);
        findings.push(Finding::of(if code == expected_code {
            Ok(format!("`window open --wait` exited with {code}: {word}"))
        } else {
            Err(format!("`window open --wait` exited with {code}, not {expected_code} ({word})"))
        }));
        findings.extend(proof::notices(&mut self.mailbox, &mut self.hooks, title, event).await);
        findings
    }
}

fn title(options: Options) -> &'static str {
    if options.healthy {
        "A database migration at night that goes well, guarded by rollbackd."
    } else {
        "A database migration at night that goes wrong, and nobody has to get up."
    }
}

/// What the customers have seen, beside what rollbackd says about it.
fn noticed(seen: &Experience, records: &[rollbackd_core::run::record::Entry]) -> Vec<String> {
    let count = format!(
        "{} requests served, {} failed, {} met the maintenance page",
        seen.served, seen.failed, seen.turned_away
    );
    let breach = records.iter().find(|entry| matches!(entry.record, Record::BreachDetected { .. }));
    let mut lines = vec![count];
    match (seen.outage_began, seen.outage()) {
        (Some(began), Some(outage)) => {
            if let Some(breach) = breach {
                lines.push(format!("from the first failure to the decision:  {}", span(began, breach.at)));
            }
            lines.push(format!("from the first failure to posts again:   {}", story::length(outage.unsigned_abs())));
        }
        (Some(_), None) => lines.push("posts have not come back for them".to_owned()),
        (None, _) => lines.push("no failure at all".to_owned()),
    }
    lines
}

fn span(from: Timestamp, to: Timestamp) -> String {
    story::length(to.duration_since(from).unsigned_abs())
}

/// Where the directory can be made: `TMPDIR`, or `/tmp` when root's server could not come through to it.
fn room() -> PathBuf {
    let wanted = std::env::temp_dir();
    let open = |path: &Path| path.metadata().is_ok_and(|found| found.permissions().mode() & 0o001 != 0);
    let passable = fs::canonicalize(&wanted).is_ok_and(|whole| whole.ancestors().all(open));
    if passable || !rustix::process::geteuid().is_root() { wanted } else { PathBuf::from("/tmp") }
}

/// The journal's file.
fn journal(kept: &Path) -> PathBuf {
    let state = kept.join("state");
    let entries = fs::read_dir(&state).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.path())
        .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("journal")))
        .unwrap_or(state)
}

#[cfg(test)]
mod tests;
