//! Runs jobs in an order in which the server takes them, each under a savepoint of its own.
//!
//! What is refused is put off until something else has gone through. Only the server knows all of what depends on what;
//! the order that we work out is a good guess, and this makes it right.

use rollbackd_core::baseline::ObjectId;
use tokio_postgres::Transaction;

use super::shortened;
use crate::postgres::{Failure, during};

/// Statements that go through together or not at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Job {
    /// The object that it is about, where it is about one.
    pub(crate) id: Option<ObjectId>,
    /// In words.
    pub(crate) words: String,
    /// The statements.
    pub(crate) sql: Vec<String>,
    /// The statements if those are refused.
    pub(crate) otherwise: Vec<String>,
    /// Whether an object that is not there any more is just what is wanted.
    pub(crate) removes: bool,
}

impl Job {
    /// A statement that takes something away; that it is gone already is fine.
    pub(crate) fn removing(sql: &str) -> Self {
        Self { removes: true, ..Self::moving(vec![sql.to_owned()]) }
    }

    /// Statements about no object of the baseline's.
    pub(crate) fn moving(sql: Vec<String>) -> Self {
        Self { id: None, words: String::new(), sql, otherwise: Vec::new(), removes: false }
    }
}

/// What became of the jobs.
#[derive(Debug, Default)]
pub(crate) struct Ran {
    /// The statements that went through, in order.
    pub(crate) done: Vec<String>,
    /// The words of the jobs that went through.
    pub(crate) words: Vec<String>,
    /// The jobs that never did, with the last refusal.
    pub(crate) stuck: Vec<(Job, Failure)>,
}

/// Runs the jobs as often as one of them gets further.
///
/// # Errors
/// A failure that is no refusal: a lock that was not to be had, a time limit, a lost connection.
pub(crate) async fn run(transaction: &Transaction<'_>, jobs: Vec<Job>) -> Result<Ran, Failure> {
    let mut ran = Ran::default();
    // Mostly the order is right; then hundreds of statements need one trip to the server.
    let all: Vec<String> = jobs.iter().flat_map(|job| job.sql.iter().cloned()).collect();
    if jobs.len() > 1 && under_savepoint(transaction, &all).await?.is_ok() {
        ran.done = all;
        ran.words = jobs.into_iter().map(|job| job.words).filter(|words| !words.is_empty()).collect();
        return Ok(ran);
    }
    let mut waiting = jobs;
    while !waiting.is_empty() {
        let before = waiting.len();
        ran.stuck.clear();
        for job in std::mem::take(&mut waiting) {
            match attempt(transaction, &job).await? {
                Ok(sql) => {
                    ran.done.extend(sql);
                    ran.words.extend(Some(job.words).filter(|words| !words.is_empty()));
                }
                Err(failure) => ran.stuck.push((job, failure)),
            }
        }
        if ran.stuck.len() == before {
            break;
        }
        waiting.extend(ran.stuck.iter().map(|(job, _)| job.clone()));
    }
    Ok(ran)
}

/// Tries a job; the inner error is a refusal, after which everything is as before.
async fn attempt(transaction: &Transaction<'_>, job: &Job) -> Result<Result<Vec<String>, Failure>, Failure> {
    let refusal = match under_savepoint(transaction, &job.sql).await? {
        Ok(()) => return Ok(Ok(job.sql.clone())),
        Err(failure) if job.removes && failure.is_missing() => return Ok(Ok(Vec::new())),
        Err(failure) => failure,
    };
    if !job.otherwise.is_empty() && under_savepoint(transaction, &job.otherwise).await?.is_ok() {
        return Ok(Ok(job.otherwise.clone()));
    }
    Ok(Err(refusal))
}

async fn under_savepoint(transaction: &Transaction<'_>, sql: &[String]) -> Result<Result<(), Failure>, Failure> {
    let doing = "setting a savepoint";
    transaction.batch_execute("savepoint one").await.map_err(during(doing))?;
    let done = transaction.batch_execute(&sql.join(";\n")).await;
    let undo = match done {
        Ok(()) => {
            transaction.batch_execute("release savepoint one").await.map_err(during(doing))?;
            return Ok(Ok(()));
        }
        Err(error) => Failure::new(format!("`{}`", shortened(&sql.join("; "))), &error),
    };
    if undo.is_lost() || undo.is_lock_timeout() || undo.is_statement_timeout() {
        return Err(undo);
    }
    transaction
        .batch_execute("rollback to savepoint one; release savepoint one")
        .await
        .map_err(during("going back to the savepoint"))?;
    Ok(Err(undo))
}
