//! What a rollback would do right now, before anything happens.
//!
//! The same code that would act derives it, in a read-only transaction, without a lock but those of reading. Rows are
//! counted one table at a time, each within bounds: what cannot be counted is said, and never estimated. What is found
//! goes to [`crate::cli`], which writes it for people; nothing is decided here.

mod holders;
mod ladder;
mod objects;
mod rows;
#[cfg(test)]
mod tests;

use std::time::Duration;

use jiff::Timestamp;
use rollbackd_core::baseline::{Baseline, Class, Difference};
use rollbackd_core::window::quarantine_schema;
use rollbackd_core::words::counted;
use serde::Serialize;
use tokio_postgres::{Client, IsolationLevel};

pub(crate) use self::holders::Blocker;
pub(crate) use self::ladder::{Fate, Gone, Rung, Would};
pub(crate) use self::objects::{How, ObjectDifference};
pub(crate) use self::rows::Rows;
use crate::config::model::Config;
use crate::postgres::removal::preview::LiveKey;
use crate::postgres::{Failure, catalog, during, milliseconds, restored};

/// What a rollback would do now.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Preview {
    /// The configuration's name.
    pub(crate) plan: String,
    /// When this was so.
    pub(crate) at: Timestamp,
    /// What it was compared with.
    pub(crate) baseline: Compared,
    /// What the rollback would cost.
    pub(crate) class: Class,
    /// What makes it so.
    pub(crate) class_reasons: Vec<String>,
    /// The difference in one line.
    pub(crate) summary: String,
    /// The ladder, in order.
    pub(crate) rungs: Vec<Rung>,
    /// All that differs from the baseline.
    pub(crate) objects: Vec<ObjectDifference>,
    /// What becomes of what hangs on the tables, with the rung that `sql` is of.
    pub(crate) collateral: Vec<Gone>,
    /// Foreign keys from tables that go to tables that stay.
    pub(crate) foreign_keys: Vec<LiveKey>,
    /// The rows of new tables and of originals, now and in the baseline.
    pub(crate) rows_written: Vec<Rows>,
    /// Who holds locks on the tables that a rollback would lock, and dumps that run.
    pub(crate) blockers: Vec<Blocker>,
    /// The rung that `sql` is of, counted from 1.
    pub(crate) sql_of_rung: Option<usize>,
    /// What would run, in order: statements with their ends, and comments.
    pub(crate) sql: Vec<String>,
}

/// The facts from before the migration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Compared {
    /// Where they come from, in words.
    pub(crate) source: String,
    /// The instant of their snapshot.
    pub(crate) at: Timestamp,
    /// The open window, if there is one.
    pub(crate) window: Option<String>,
}

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Question<'a> {
    /// The configuration that holds now.
    pub(crate) config: &'a Config,
    /// The facts from before the migration.
    pub(crate) baseline: &'a Baseline,
    /// Where they come from, in words.
    pub(crate) source: &'a str,
    /// The open window, and when it began.
    pub(crate) window: Option<(&'a str, Timestamp)>,
    /// Now.
    pub(crate) at: Timestamp,
}

/// Works it out. Nothing is changed.
///
/// # Errors
/// What the server says.
pub(crate) async fn of(client: &mut Client, question: Question<'_>) -> Result<Preview, Failure> {
    let Question { config, baseline, source, window, at } = question;
    let schema = quarantine_schema(window.map_or(at, |(_, started)| started));
    let sql = format!(
        "set default_transaction_read_only = on; set statement_timeout = {}",
        milliseconds(config.database.statement_timeout)
    );
    client.batch_execute(&sql).await.map_err(during("setting the session's limits"))?;
    let transaction = client
        .build_transaction()
        .isolation_level(IsolationLevel::RepeatableRead)
        .read_only(true)
        .start()
        .await
        .map_err(during("beginning a snapshot"))?;
    let known = restored::known(&transaction, baseline).await?;
    let question = Question { baseline: &known, ..question };
    let baseline = question.baseline;
    let now = catalog::read(&transaction).await?;
    let difference = baseline.catalog.difference(&now, &config.database.protected_schemas);
    let foreseen = ladder::foresee(&transaction, question, &now, &schema).await?;
    transaction.commit().await.map_err(during("ending the snapshot"))?;
    let relations = holders::wanted(&difference, &now, &foreseen);
    let blockers = holders::look(client, &relations, foreseen.drops(), at).await?;
    let rows_written = rows::count(client, config, baseline, &difference).await?;
    let (class, class_reasons) = difference.class(&rows::counted(&rows_written));
    let rungs = foreseen.rungs();
    let sql_of_rung = rungs.iter().position(|rung| rung.would == Would::Act && !rung.sql.is_empty());
    let shown = foreseen.shown(sql_of_rung);
    let sql = sql_of_rung.map_or_else(Vec::new, |at| file(&rungs, at, question, &difference));
    Ok(Preview {
        plan: config.name.clone(),
        at,
        baseline: Compared { source: source.to_owned(), at: baseline.at, window: window.map(|(id, _)| id.to_owned()) },
        class,
        class_reasons,
        summary: difference.summary(),
        objects: objects::of(&difference),
        collateral: shown.map(|found| found.gone.clone()).unwrap_or_default(),
        foreign_keys: shown.map(|found| found.keys.clone()).unwrap_or_default(),
        rungs,
        rows_written,
        blockers,
        sql_of_rung: sql_of_rung.map(|at| at + 1),
        sql,
    })
}

/// The statements of a rung as a file that can be run.
fn file(rungs: &[Rung], at: usize, question: Question<'_>, difference: &Difference) -> Vec<String> {
    let Some(rung) = rungs.get(at) else { return Vec::new() };
    let comment = |text: &str| format!("-- {}", text.replace(char::is_control, " "));
    let mut lines = vec![
        comment(&format!(
            "What rung {} ({}) of {} would do at {}.",
            at + 1,
            rung.kind,
            question.config.name,
            question.at
        )),
        comment(&format!("Compared with {}: {}.", question.source, difference.summary())),
    ];
    let before: Vec<&Rung> = rungs.iter().take(at).filter(|rung| rung.would != Would::Nothing).collect();
    for earlier in before {
        lines.push(comment(&format!("Before it comes a rung that is not here: {}: {}", earlier.kind, earlier.does)));
    }
    lines.push(comment("Run by hand it leaves no record: `rollbackd undo` cannot take it back."));
    if rung.archives {
        lines.push(comment("It DROPS tables, and nothing is archived by hand: `pg_dump --format=custom` them first."));
    }
    lines.extend(rung.sql.iter().cloned());
    lines
}

/// A duration for people.
fn limit(duration: Duration) -> String {
    counted(usize::try_from(duration.as_secs()).unwrap_or(usize::MAX), "second")
}
