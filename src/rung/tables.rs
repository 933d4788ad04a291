//! Removes the tables of the migration: attempt after attempt, until they are gone, something from before the migration
//! stands in the way, or the time is up. There is no last try without limits.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use rollbackd_core::baseline::Baseline;
use rollbackd_core::plan::{Dispose, OnBlocked, Removal};
use rollbackd_core::run::step::{Finding, Outcome, RemovalFinding};
use rollbackd_core::words::{counted, grouped};

use super::Patience;
use crate::config::model::{Config, Database};
use crate::postgres::Failure;
use crate::postgres::activity::{self, Blocker, Kind};
use crate::postgres::pinned::{Lent, Pinned};
use crate::postgres::removal::archive::Archive;
use crate::postgres::removal::{Attempt, Batch, Job, discard, quarantine, scope};
use crate::postgres::restored;
use crate::postgres::session::Session;

/// How often a catalog that changes under us is looked at again. An error that stays is none of that kind.
const MOVES: u32 = 5;
/// How long ended sessions may take to go.
const GOING: Duration = Duration::from_secs(2);
/// How long it may take to find out who holds locks, before anything is tried.
const LOOK: Duration = Duration::from_secs(2);
/// How much longer than `deadlock_timeout` an autovacuum is waited for.
const YIELDING: Duration = Duration::from_millis(250);

/// Which group of a removal's tables it is about.
#[derive(Debug, Clone, Copy)]
pub struct Turn<'a> {
    /// The window's id, which names the directory of the archive.
    pub window: &'a str,
    /// When the window began, which names the schema of the quarantine.
    pub window_started: Timestamp,
    /// Whether it is the rung's first.
    pub first: bool,
}

/// Removes a group of tables, and says whether there are more.
pub async fn act(
    config: &Config,
    pinned: &Pinned,
    baseline: &Baseline,
    removal: &Removal,
    turn: Turn<'_>,
    within: Duration,
) -> Outcome {
    let commit_sent = AtomicBool::new(false);
    let Turn { window, window_started, first } = turn;
    let job = Job { config, baseline, removal, window, window_started, first, commit_sent: &commit_sent };
    let mut work = Work {
        job,
        pinned,
        lock_timeout: None,
        patience: Patience::new(within),
        within,
        found: RemovalFinding::default(),
        kept: None,
        in_doubt: false,
    };
    let end = work.run().await;
    if let Some(directory) = work.kept.take().and_then(Archive::settle) {
        work.found.archive.get_or_insert(directory.display().to_string());
    }
    work.outcome(end)
}

struct Work<'a> {
    job: Job<'a>,
    pinned: &'a Pinned,
    /// The limit for the next try's locks, where it is not the configured one.
    lock_timeout: Option<Duration>,
    patience: Patience,
    within: Duration,
    found: RemovalFinding,
    kept: Option<Archive>,
    /// Whether a commit was sent whose answer did not come, and nobody has looked since.
    in_doubt: bool,
}

/// How it ended.
enum End {
    Removed,
    Stopped,
    Failed(String),
}

/// How a try went.
enum Try {
    Ended(Attempt),
    Failed(Failure),
    TimeUp,
}

impl Work<'_> {
    async fn run(&mut self) -> End {
        let (mut held, mut moved) = (None, 0);
        loop {
            let (mut session, watcher) = match held.take() {
                Some(sessions) => sessions,
                None => match self.sessions().await {
                    Ok(sessions) => sessions,
                    Err(reason) => return End::Failed(reason),
                },
            };
            if self.found.attempts == 0 && self.job.first {
                self.look_around(&session).await;
            }
            self.found.attempts += 1;
            self.job.commit_sent.store(false, Ordering::Relaxed);
            let mut blockers = Vec::new();
            let tried = self.attempt(&mut session, watcher.as_deref(), &mut blockers).await;
            let lost = matches!(&tried, Try::Failed(failure) if failure.is_lost());
            self.in_doubt = match &tried {
                Try::Failed(_) if lost => self.in_doubt || self.job.commit_sent.load(Ordering::Relaxed),
                Try::TimeUp => self.job.commit_sent.load(Ordering::Relaxed),
                Try::Failed(_) | Try::Ended(_) => false,
            };
            let reason = match tried {
                Try::Ended(Attempt::Nothing) => return End::Removed,
                Try::Ended(Attempt::Left(left)) => {
                    self.found.left = left;
                    return End::Removed;
                }
                Try::Ended(Attempt::Stopped(survivors)) => {
                    self.found.survivors = survivors;
                    return End::Stopped;
                }
                Try::Ended(Attempt::Done(batch)) => {
                    let more = batch.more;
                    self.take_note(batch);
                    if more {
                        // Each group is written down before the next is begun.
                        self.found.more = true;
                        return End::Removed;
                    }
                    self.patience.reset();
                    held = Some((session, watcher));
                    continue;
                }
                Try::Ended(Attempt::Again(reason)) => reason,
                Try::Failed(failure) if failure.is_lock_timeout() || failure.is_statement_timeout() => {
                    self.blocked(watcher.as_deref(), &blockers).await;
                    failure.to_string()
                }
                Try::Failed(failure) if failure.is_lost() => failure.to_string(),
                Try::Failed(failure) if failure.is_moving_catalog() && moved < MOVES => {
                    moved += 1;
                    failure.to_string()
                }
                Try::Failed(failure) => return End::Failed(failure.to_string()),
                Try::TimeUp => {
                    // What an earlier try found out, a refusal to end a session included, says more than a try cut short.
                    if self.found.blockers.is_empty() {
                        self.found.blockers = blockers.iter().map(|blocker| blocker.words.clone()).collect();
                    }
                    return End::Failed(self.given_up("the time was up in the middle of a try"));
                }
            };
            if !self.patience.pause().await {
                return End::Failed(self.given_up(&reason));
            }
            // What is left of the transaction is rolled back before the next one begins.
            held = (!lost).then_some((session, watcher));
        }
    }

    /// A session to work in, and one to watch it from. Without the second the work goes on, and nobody is named.
    async fn sessions(&mut self) -> Result<(Lent, Option<Lent>), String> {
        let session = self.patience.connect(self.pinned).await.map_err(|error| error.to_string())?;
        let watcher = tokio::time::timeout(super::WATCHER, self.pinned.session()).await;
        Ok((session, watcher.ok().and_then(Result::ok)))
    }

    /// Notes who holds locks on the tables before anything is tried. Its failing is told by the try.
    async fn look_around(&mut self, session: &Session) {
        let job = &self.job;
        let look = async {
            let scope = scope::derive(session.client(), job, &BTreeSet::new()).await?;
            let mut relations: Vec<u32> = scope.members.iter().map(|member| member.oid).collect();
            match job.removal.dispose {
                Dispose::Quarantine => {}
                Dispose::Drop { .. } => relations.extend(activity::referenced(session.client(), &relations).await?),
            }
            activity::holders(session.client(), &relations).await
        };
        if let Ok(Ok(holders)) = tokio::time::timeout(LOOK.min(self.patience.left() / 4), look).await {
            self.found.holders = holders.iter().map(activity::Holder::words).collect();
            if !holders.is_empty() {
                let who = self.found.holders.join(", ");
                tracing::info!(event = "rung.locks", holders = who, "locks are held on the tables that must go");
            }
        }
    }

    /// One try, watched by the second session.
    async fn attempt(&mut self, session: &mut Session, watcher: Option<&Session>, blockers: &mut Vec<Blocker>) -> Try {
        let left = self.patience.left();
        let patient = self.lock_timeout.take().map(|lock_timeout| {
            let database = Database { lock_timeout, ..self.job.config.database.clone() };
            Config { database, ..self.job.config.clone() }
        });
        let job = Job { config: patient.as_ref().unwrap_or(self.job.config), ..self.job };
        let every =
            (self.job.config.database.lock_timeout / 4).clamp(Duration::from_millis(10), Duration::from_millis(250));
        let pid = activity::own_pid(session.client()).await.ok();
        let (job, kept) = (&job, &mut self.kept);
        let work = async {
            let known = restored::known(session.client(), job.baseline).await?;
            let job = &Job { baseline: &known, ..*job };
            match job.removal.dispose {
                Dispose::Quarantine => quarantine::attempt(session.client_mut(), job, left).await,
                Dispose::Drop { archive } => discard::attempt(session.client_mut(), job, archive, left, kept).await,
            }
        };
        let watch = async {
            if let (Some(watcher), Some(pid)) = (watcher, pid) {
                // Its failing only means that nobody is named.
                drop(activity::watch(watcher.client(), pid, every, blockers).await);
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            result = tokio::time::timeout(left, work) => match result {
                Ok(Ok(attempt)) => Try::Ended(attempt),
                Ok(Err(failure)) => Try::Failed(failure),
                Err(_elapsed) => Try::TimeUp,
            },
            () = watch => Try::TimeUp,
        }
    }

    /// Notes who was in the way, and ends them if that is allowed.
    async fn blocked(&mut self, watcher: Option<&Session>, blockers: &[Blocker]) {
        if blockers.is_empty() {
            return;
        }
        self.found.blockers = blockers.iter().map(|blocker| blocker.words.clone()).collect();
        let Some(watcher) = watcher else { return };
        if blockers.iter().any(|blocker| blocker.kind == Kind::Autovacuum)
            && let Ok(deadlock_timeout) = activity::deadlock_timeout(watcher.client()).await
        {
            // It is the server that makes an autovacuum give way, and only to who has waited for so long.
            self.lock_timeout = Some(self.job.config.database.lock_timeout.max(deadlock_timeout + YIELDING));
        }
        match self.job.removal.on_blocked {
            OnBlocked::Wait => {}
            OnBlocked::Terminate => {
                let told = activity::terminate(watcher.client(), blockers, GOING).await;
                if told.ended > 0 && told.refused.is_empty() {
                    self.patience.reset();
                }
                self.found.blockers.extend(told.refused);
            }
        }
    }

    fn take_note(&mut self, batch: Batch) {
        let found = &mut self.found;
        found.tables.extend(batch.tables);
        found.collateral.extend(batch.collateral);
        found.sql.extend(batch.sql);
        found.put_back.extend(batch.put_back);
        found.left = batch.left;
        found.columns.extend(batch.columns);
        found.quarantine = batch.quarantine.or(found.quarantine.take());
        found.archive = batch.archive.or(found.archive.take());
    }

    fn given_up(&self, reason: &str) -> String {
        let tries = counted(usize::try_from(self.found.attempts).unwrap_or(usize::MAX), "try");
        let who = match self.found.blockers.as_slice() {
            [] => String::new(),
            blockers => format!("; locks were held by {}", blockers.join(", ")),
        };
        format!("gave up after {tries} in {:.1} s: {reason}{who}", self.within.as_secs_f64())
    }

    fn outcome(self, end: End) -> Outcome {
        let done = self.done();
        let outcome = match end {
            End::Removed => {
                let detail = done.unwrap_or_else(|| match &self.found.archive {
                    // The server's answer to our commit was lost, and the catalog says that it went through.
                    Some(archive) => format!("nothing left to remove; rows are archived in {archive}"),
                    None => "nothing left to remove".to_owned(),
                });
                return Outcome::succeeded(detail, Finding::Removal(self.found));
            }
            End::Stopped => {
                let survivors = self.found.survivors.join("; ");
                let instead = done.as_deref().unwrap_or("nothing was changed");
                Outcome::failed(format!("objects from before the migration stand in the way: {survivors}; {instead}"))
            }
            End::Failed(reason) if self.in_doubt => {
                Outcome::unknown(format!("{reason}; whether the last transaction went through is not known"))
            }
            End::Failed(reason) => {
                let instead = done.as_deref().unwrap_or("nothing was changed");
                Outcome::failed(format!("{reason}; {instead}"))
            }
        };
        outcome.with(Finding::Removal(self.found))
    }

    /// What was removed, in a sentence.
    fn done(&self) -> Option<String> {
        let found = &self.found;
        if found.tables.is_empty() {
            return None;
        }
        let rows: u64 = found.tables.iter().filter_map(|table| table.rows).sum();
        let uncounted = found.tables.iter().filter(|table| table.rows.is_none()).count();
        let at_least = if uncounted > 0 { "at least " } else { "" };
        let rows = format!("{at_least}{} {}", grouped(rows), if rows == 1 { "row" } else { "rows" });
        let tables = counted(found.tables.len(), "table");
        let place = match (&found.quarantine, &found.archive) {
            (Some(schema), _) => format!("moved {tables} ({rows}) to schema {schema}"),
            (None, Some(archive)) => format!("dropped {tables} ({rows}), archived in {archive}"),
            (None, None) => format!("dropped {tables} ({rows}) without an archive"),
        };
        let along = match found.collateral.as_slice() {
            [] => String::new(),
            along => format!("; note: {}", along.join(", ")),
        };
        Some(format!("{place}{along}"))
    }
}

#[cfg(test)]
mod tests;
