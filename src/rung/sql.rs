//! Runs the project's SQL file in one transaction: all of it happens or nothing does.
//!
//! The file was read and split when the configuration was, so a window runs what it opened with. Its statements mean
//! what they mean in the role's own psql: the role's `search_path`, with the configured schema after it, and row
//! security as the role has it. The time limits are the session's, and a file may make them shorter, not longer.
//!
//! Before it commits, the catalog and the original tables are compared with the baseline: a transaction that would take
//! anything from before the migration further away from it is rolled back (see `guard`). A lock that is not to be had
//! is tried for again, with growing pauses, while the rung's time lasts.

mod guard;
#[cfg(test)]
mod tests;

use std::time::Duration;

use rollbackd_core::baseline::{Baseline, Difference};
use rollbackd_core::run::step::{Finding, Outcome};
use rollbackd_core::words::counted;
use tokio_postgres::error::ErrorPosition;
use tokio_postgres::{Client, IsolationLevel, Transaction};

use self::guard::Guard;
use super::Patience;
use crate::config::model::{Config, Script, Statement};
use crate::postgres::activity::{self, Blocker};
use crate::postgres::pinned::{Lent, Pinned};
use crate::postgres::session::Session;
use crate::postgres::{Failure, during, literal, milliseconds, restored};

/// How often a catalog that changes under us is looked at again.
const MOVES: u32 = 5;

/// What is to be run, and what it is held against.
#[derive(Debug, Clone, Copy)]
pub struct Job<'a> {
    /// The configuration.
    pub config: &'a Config,
    /// The sessions to the database.
    pub pinned: &'a Pinned,
    /// The facts from before the migration.
    pub baseline: &'a Baseline,
    /// The file's name, for people.
    pub file: &'a str,
    /// What it holds.
    pub script: &'a Script,
    /// The window's id.
    pub window: &'a str,
    /// After an interruption: how the catalog differed from the baseline when it was found that nothing had happened.
    /// When it differs in another way by now, an earlier try has gone through after all.
    pub seen: Option<&'a Difference>,
}

/// Runs the file.
pub async fn act(job: Job<'_>, within: Duration) -> Outcome {
    let mut work =
        Work { job, patience: Patience::new(within), within, tries: 0, commit_sent: false, blockers: Vec::new() };
    work.run().await
}

struct Work<'a> {
    job: Job<'a>,
    patience: Patience,
    within: Duration,
    tries: usize,
    /// Whether the server was asked to commit in the try under way.
    commit_sent: bool,
    /// Who held locks, in words.
    blockers: Vec<String>,
}

/// How a try ended, when nothing failed.
enum Tried {
    Done,
    /// It would take something away from the baseline; nothing was changed.
    Stopped(Vec<String>),
    /// The catalog is not as it was when nothing had happened.
    Moved,
}

/// What failed.
enum Failed {
    /// A statement of the file.
    File(Failure),
    /// Our own work around it.
    Own(Failure),
}

impl Failed {
    const fn failure(&self) -> &Failure {
        match self {
            Self::File(failure) | Self::Own(failure) => failure,
        }
    }
}

impl Work<'_> {
    async fn run(&mut self) -> Outcome {
        let (mut held, mut looks) = (None, 0);
        loop {
            let (mut session, watcher) = match held.take() {
                Some(sessions) => sessions,
                None => match self.sessions().await {
                    Ok(sessions) => sessions,
                    Err(reason) => return Outcome::failed(format!("{reason}; nothing was changed")),
                },
            };
            self.tries += 1;
            self.commit_sent = false;
            let mut blockers = Vec::new();
            let tried = self.tried(&mut session, watcher.as_deref(), &mut blockers).await;
            if !blockers.is_empty() {
                self.blockers = blockers.iter().map(|blocker| blocker.words.clone()).collect();
            }
            let failed = match tried {
                Some(Ok(tried)) => return self.outcome(tried),
                Some(Err(failed)) => failed,
                None => return self.given_up("the time was up in the middle of a try"),
            };
            let failure = failed.failure();
            let lost = failure.is_lost();
            if lost && self.commit_sent {
                return self.given_up(&failure.to_string());
            }
            let waited = failure.is_lock_timeout() || failure.is_statement_timeout() && !blockers.is_empty();
            let moved = matches!(&failed, Failed::Own(failure) if failure.is_moving_catalog()) && looks < MOVES;
            looks += u32::from(moved);
            if !(lost || waited || moved) {
                return Outcome::failed(format!("{failure}; nothing was changed"));
            }
            if !self.patience.pause().await {
                return self.given_up(&failure.to_string());
            }
            // What is left of the transaction is rolled back before the next one begins.
            held = (!lost).then_some((session, watcher));
        }
    }

    /// A session to work in, and one to watch it from. Without the second the work goes on, and nobody is named.
    async fn sessions(&mut self) -> Result<(Lent, Option<Lent>), String> {
        let pinned = self.job.pinned;
        let session = self.patience.connect(pinned).await.map_err(|error| error.to_string())?;
        let watcher = tokio::time::timeout(super::WATCHER, pinned.session()).await;
        Ok((session, watcher.ok().and_then(Result::ok)))
    }

    /// One try, watched by the second session; nothing when the time was up.
    async fn tried(
        &mut self,
        session: &mut Session,
        watcher: Option<&Session>,
        blockers: &mut Vec<Blocker>,
    ) -> Option<Result<Tried, Failed>> {
        let left = self.patience.left();
        let every =
            (self.job.config.database.lock_timeout / 4).clamp(Duration::from_millis(10), Duration::from_millis(250));
        let pid = activity::own_pid(session.client()).await.ok();
        let work = self.attempt(session.client_mut());
        let watch = async {
            if let (Some(watcher), Some(pid)) = (watcher, pid) {
                // Its failing only means that nobody is named.
                drop(activity::watch(watcher.client(), pid, every, blockers).await);
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            result = tokio::time::timeout(left, work) => result.ok(),
            () = watch => None,
        }
    }

    async fn attempt(&mut self, client: &mut Client) -> Result<Tried, Failed> {
        let job = self.job;
        let own = Failed::Own;
        let begun = client.build_transaction().isolation_level(IsolationLevel::ReadCommitted).start().await;
        let transaction = begun.map_err(during("beginning a transaction")).map_err(own)?;
        self.limit(&transaction).await.map_err(own)?;
        // A try of an earlier life may still be at work on the server: its end is waited for.
        let alone = format!(
            "select pg_advisory_xact_lock(hashtextextended({}, 0))",
            literal(&format!("rollbackd sql {}", job.window))
        );
        run_own(&transaction, "waiting for an earlier try", &alone).await.map_err(own)?;
        let known = restored::known(&transaction, job.baseline).await.map_err(own)?;
        let job = Job { baseline: &known, ..job };
        let before = Guard::read(&transaction, job.baseline).await.map_err(own)?;
        if job.seen.is_some_and(|seen| before.difference(job) != *seen) {
            return Ok(Tried::Moved);
        }
        self.statements(&transaction).await?;
        // Also what was put off to the end has to be there when the result is looked at.
        run_own(&transaction, "checking the constraints that were put off", "set constraints all immediate")
            .await
            .map_err(Failed::File)?;
        let ours = "reset session authorization; reset role; set local row_security = off; \
                    set local search_path = pg_catalog, pg_temp";
        run_own(&transaction, "leaving the file's settings", ours).await.map_err(own)?;
        self.limit(&transaction).await.map_err(own)?;
        let harm = before.harm(&transaction, job).await.map_err(own)?;
        if !harm.is_empty() {
            return Ok(Tried::Stopped(harm));
        }
        self.commit_sent = true;
        transaction.commit().await.map_err(during("committing the file's transaction")).map_err(own)?;
        Ok(Tried::Done)
    }

    async fn statements(&self, transaction: &Transaction<'_>) -> Result<(), Failed> {
        let theirs = format!(
            "set local row_security to default; set local search_path to default; \
             select set_config('search_path', concat_ws(', ', nullif(current_setting('search_path'), ''), quote_ident(n)), true) \
             from (values ({})) s(n) where not n::name = any (current_schemas(false))",
            literal(&self.job.config.database.schema)
        );
        run_own(transaction, "setting the role's search_path", &theirs).await.map_err(Failed::Own)?;
        for statement in self.job.script.statements() {
            self.limit(transaction).await.map_err(Failed::Own)?;
            // The server takes a single statement here, whatever is in the text.
            transaction.execute(statement.text, &[]).await.map_err(|error| {
                let line = line_of(statement, &error);
                Failed::File(Failure::new(format!("line {line} of {}", self.job.file), &error))
            })?;
        }
        Ok(())
    }

    /// Sets the time limits where there are none, or longer ones than ours.
    async fn limit(&self, transaction: &Transaction<'_>) -> Result<(), Failure> {
        let database = &self.job.config.database;
        let sql = format!(
            "select pg_catalog.set_config(s.name, most::text, true) \
             from (values ('lock_timeout', {}::int8), ('statement_timeout', {}::int8)) as l (name, most) \
             join pg_catalog.pg_settings s on s.name = l.name \
             where s.setting::int8 = 0 or s.setting::int8 > most",
            milliseconds(database.lock_timeout),
            milliseconds(database.statement_timeout.min(self.patience.left()))
        );
        run_own(transaction, "setting the transaction's limits", &sql).await
    }

    fn outcome(&self, tried: Tried) -> Outcome {
        let file = self.job.file;
        match tried {
            Tried::Done => {
                let statements = counted(self.job.script.statements().len(), "statement");
                let again = if self.tries > 1 { format!(", at try {}", self.tries) } else { String::new() };
                Outcome::succeeded(format!("ran {statements} of {file}{again}"), Finding::Nothing)
            }
            Tried::Stopped(harm) => Outcome::failed(format!(
                "{file} would harm what stood before the migration: {}; nothing was changed",
                harm.join("; ")
            )),
            Tried::Moved => Outcome::unknown(format!("the catalog changed before {file} was run again")),
        }
    }

    fn given_up(&self, reason: &str) -> Outcome {
        let who = match self.blockers.as_slice() {
            [] => String::new(),
            blockers => format!("; locks were held by {}", blockers.join(", ")),
        };
        let reason = format!(
            "gave up after {} in {:.1} s: {reason}{who}",
            counted(self.tries, "try"),
            self.within.as_secs_f64()
        );
        if self.commit_sent {
            return Outcome::unknown(format!("{reason}; whether the transaction went through is not known"));
        }
        Outcome::failed(format!("{reason}; nothing was changed"))
    }
}

/// Runs statements of our own.
async fn run_own(transaction: &Transaction<'_>, doing: &str, sql: &str) -> Result<(), Failure> {
    transaction.batch_execute(sql).await.map_err(during(doing))
}

/// The line of the file that the server points at, or the one on which the statement begins.
fn line_of(statement: Statement<'_>, error: &tokio_postgres::Error) -> usize {
    let position = error.as_db_error().and_then(|error| error.position());
    let Some(ErrorPosition::Original(position)) = position else { return statement.line };
    let before = usize::try_from(*position).unwrap_or(1).saturating_sub(1);
    statement.line + statement.text.chars().take(before).filter(|character| *character == '\n').count()
}
