//! The ladder's rungs one by one: what each would do now, what stands in its way, its statements.

use std::sync::atomic::AtomicBool;

use rollbackd_core::baseline::{Catalog, TableName};
use rollbackd_core::plan::{Dispose, Method, Reach, Removal, TableChoice};
use rollbackd_core::reversal::{self, reversal};
use rollbackd_core::words::counted;
use serde::Serialize;
use tokio_postgres::Transaction;

use super::Question;
use crate::postgres::removal::Job;
use crate::postgres::removal::preview::{self, Foreseen, LiveKey, ended};
use crate::postgres::{Failure, milliseconds};

/// A rung of the ladder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Rung {
    /// Its kind as configured.
    pub(crate) kind: &'static str,
    /// How it would go.
    pub(crate) would: Would,
    /// Whether it waits for an approval.
    pub(crate) needs_approval: bool,
    /// What it does, in words.
    pub(crate) does: String,
    /// Why it would stop before anything was changed.
    pub(crate) stops: Vec<String>,
    /// What has to be known besides.
    pub(crate) notes: Vec<String>,
    /// The tables that would go.
    pub(crate) tables: Vec<TableName>,
    /// Whether rows are archived before they are dropped.
    pub(crate) archives: bool,
    /// Its statements with their ends, and comments, where they can be known.
    pub(crate) sql: Vec<String>,
}

/// How a rung would go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Would {
    /// It would do something.
    Act,
    /// There is nothing for it to do.
    Nothing,
    /// It would stop before anything was changed.
    Stop,
}

/// What becomes of something that hangs on the tables.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Gone {
    /// What becomes of it.
    pub(crate) fate: Fate,
    /// What it is.
    pub(crate) words: String,
}

/// What becomes of something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Fate {
    /// A part of the migration: it goes along.
    Goes,
    /// From before the migration: it is put back as the baseline has it.
    PutBack,
    /// Values of columns, which are kept before the columns go.
    Kept,
    /// It stays, and does no harm.
    Stays,
    /// From before the migration, and it cannot be put back: it stops the rung.
    Survivor,
    /// Something that no statement brings back: it stops the rung.
    Obstacle,
}

/// What was found about the whole ladder.
#[derive(Debug)]
pub(super) struct Ladder(Vec<(Rung, Option<Found>)>);

/// What was found about a rung that removes.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) gone: Vec<Gone>,
    pub(super) keys: Vec<LiveKey>,
    pub(super) relations: Vec<u32>,
    drops: bool,
}

impl Ladder {
    pub(super) fn rungs(&self) -> Vec<Rung> {
        self.0.iter().map(|(rung, _)| rung.clone()).collect()
    }

    /// What hangs on the tables, for this rung; without one, for the first that removes.
    pub(super) fn shown(&self, rung: Option<usize>) -> Option<&Found> {
        match rung {
            Some(at) => self.0.get(at).and_then(|(_, found)| found.as_ref()),
            None => self.0.iter().find_map(|(_, found)| found.as_ref()),
        }
    }

    /// The tables that any of the rungs takes.
    pub(super) fn relations(&self) -> impl Iterator<Item = u32> + '_ {
        self.0.iter().filter_map(|(_, found)| found.as_ref()).flat_map(|found| found.relations.iter().copied())
    }

    /// Whether any of the rungs drops tables, which locks those that they refer to as well.
    pub(super) fn drops(&self) -> bool {
        self.0.iter().any(|(_, found)| found.as_ref().is_some_and(|found| found.drops))
    }
}

/// Works out every rung.
pub(super) async fn foresee(
    transaction: &Transaction<'_>,
    question: Question<'_>,
    now: &Catalog,
    schema: &str,
) -> Result<Ladder, Failure> {
    let config = question.config;
    let plan = config.plan("");
    let protected = &config.database.protected_schemas;
    let whole = reversal(&question.baseline.catalog, now, protected, reversal::Reach::Everything);
    let difference = question.baseline.catalog.difference(now, protected);
    let clean = difference.is_empty();
    let damage = difference.beyond_statements();
    let mut ladder = Vec::new();
    for rung in &plan.rollback.rungs {
        let empty = Rung {
            kind: rung.method.kind(),
            would: if clean { Would::Nothing } else { Would::Act },
            // As the ladder has it: what is irreversible waits, but for the restore that it is for.
            needs_approval: rung.needs_approval
                || plan.rollback.approve_always
                || !damage.is_empty() && rung.method != Method::Restore,
            does: String::new(),
            stops: Vec::new(),
            notes: Vec::new(),
            tables: Vec::new(),
            archives: false,
            sql: Vec::new(),
        };
        ladder.push(match &rung.method {
            Method::Script { command, .. } => {
                let line = command.join(" ");
                let does = format!("runs `{line}`; what that did is read from the catalog afterwards");
                (Rung { does, ..empty }, None)
            }
            Method::Sql { file } => {
                let does = format!(
                    "runs the statements of {file} in one transaction; they are not shown, as they may hold secrets"
                );
                (Rung { does, ..empty }, None)
            }
            Method::Restore => {
                let does =
                    "brings original tables that are missing or damaged back from the backup; what is damaged is kept"
                        .to_owned();
                let would = if damage.is_empty() { Would::Nothing } else { Would::Act };
                let rows = "original tables that have fewer rows than before are brought back as well".to_owned();
                let notes = damage.iter().cloned().chain([rows]).collect();
                (Rung { would, does, notes, ..empty }, None)
            }
            Method::Tables(removal) => {
                let removal = Removal { tables: choice(&removal.tables, question), ..removal.clone() };
                let work = Work { question, removal: &removal, schema, obstacles: &whole.obstacles };
                work.rung(transaction, empty).await?
            }
        });
    }
    Ok(Ladder(ladder))
}

/// The tables that a rung means: `partial` means those that signals blame, and here any of them may.
fn choice(tables: &TableChoice, question: Question<'_>) -> TableChoice {
    match tables {
        TableChoice::Named(_) | TableChoice::Added => tables.clone(),
        TableChoice::Implicated => {
            let signals = question.config.signals.iter();
            TableChoice::Named(signals.flat_map(|signal| signal.implicates.iter().cloned()).collect())
        }
    }
}

struct Work<'a> {
    question: Question<'a>,
    removal: &'a Removal,
    schema: &'a str,
    obstacles: &'a [String],
}

impl Work<'_> {
    async fn rung(&self, transaction: &Transaction<'_>, empty: Rung) -> Result<(Rung, Option<Found>), Failure> {
        let Question { config, baseline, window, at, .. } = self.question;
        let (window, window_started) = window.unwrap_or(("", at));
        let commit_sent = AtomicBool::new(false);
        let removal = self.removal;
        if let (Reach::Related, TableChoice::Named(names)) = (removal.reach, &removal.tables)
            && names.is_empty()
        {
            let does = "is left out: no signal names tables that it implicates".to_owned();
            return Ok((Rung { would: Would::Nothing, does, ..empty }, None));
        }
        let job = Job { config, baseline, removal, window, window_started, first: true, commit_sent: &commit_sent };
        let foreseen = preview::foresee(transaction, &job, self.schema).await?;
        let would = match (foreseen.stops.is_empty(), foreseen.acts()) {
            (false, _) => Would::Stop,
            (true, true) => Would::Act,
            (true, false) => Would::Nothing,
        };
        let rung = Rung {
            would,
            does: self.words(&foreseen, would),
            stops: foreseen.stops.clone(),
            notes: foreseen.notes.clone(),
            tables: foreseen.tables.clone(),
            archives: matches!(removal.dispose, Dispose::Drop { .. }) && !foreseen.tables.is_empty(),
            sql: if would == Would::Act { self.sql(&foreseen.transactions) } else { Vec::new() },
            ..empty
        };
        let found = Found {
            gone: self.gone(&foreseen),
            keys: if matches!(removal.dispose, Dispose::Quarantine) { foreseen.keys } else { Vec::new() },
            relations: foreseen.relations,
            drops: matches!(removal.dispose, Dispose::Drop { .. }),
        };
        Ok((rung, Some(found)))
    }

    fn words(&self, foreseen: &Foreseen, would: Would) -> String {
        let kind = match (self.removal.reach, &self.removal.tables) {
            (Reach::Related, TableChoice::Named(names)) => {
                format!("takes only what signals implicate ({})", names.join(", "))
            }
            (Reach::Related | Reach::Attached, TableChoice::Added | TableChoice::Implicated) => {
                "takes the tables that are new".to_owned()
            }
            (Reach::Attached, TableChoice::Named(names)) => {
                format!("takes those of {} that are there", counted(names.len(), "named table"))
            }
            (Reach::Everything, _) => "puts the whole catalog back to the baseline".to_owned(),
        };
        if would != Would::Act {
            return kind;
        }
        let tables = counted(foreseen.tables.len(), "table");
        let mut parts = Vec::new();
        if !foreseen.tables.is_empty() {
            parts.push(match self.removal.dispose {
                Dispose::Quarantine => format!("moves {tables} with all rows into the schema {}", self.schema),
                Dispose::Drop { archive: true } => {
                    format!("archives the rows of {tables}, reads the archive back, and drops the tables")
                }
                Dispose::Drop { archive: false } => format!("drops {tables} WITH THEIR ROWS: nothing is kept"),
            });
        }
        let mut part = |count: usize, words: &str| {
            if count > 0 {
                parts.push(words.replace('#', &counted(count, "object")));
            }
        };
        part(foreseen.goes.len(), "takes away # that came with the migration");
        part(foreseen.put_back.len(), "puts back # as the baseline has it");
        parts.extend(foreseen.kept.iter().cloned());
        format!("{kind}: {}", parts.join("; "))
    }

    fn gone(&self, foreseen: &Foreseen) -> Vec<Gone> {
        let of = |fate: Fate, words: &[String]| -> Vec<Gone> {
            words.iter().map(|words| Gone { fate, words: words.clone() }).collect()
        };
        let stops = foreseen.stops.iter().map(|words| {
            let fate = if self.obstacles.contains(words) { Fate::Obstacle } else { Fate::Survivor };
            Gone { fate, words: words.clone() }
        });
        let lists = [
            (Fate::Goes, &foreseen.goes),
            (Fate::PutBack, &foreseen.put_back),
            (Fate::Kept, &foreseen.kept),
            (Fate::Stays, &foreseen.stays),
        ];
        lists.into_iter().flat_map(|(fate, words)| of(fate, words)).chain(stops).collect()
    }

    /// The transactions as statements that can be run by hand.
    fn sql(&self, transactions: &[Vec<String>]) -> Vec<String> {
        let database = &self.question.config.database;
        let mut sql = Vec::new();
        for (at, statements) in transactions.iter().enumerate() {
            if transactions.len() > 1 {
                sql.push(format!("-- transaction {} of {}", at + 1, transactions.len()));
            }
            sql.push("begin;".to_owned());
            sql.push(format!("set local lock_timeout = {};", milliseconds(database.lock_timeout)));
            sql.push("set local search_path = pg_catalog, pg_temp;".to_owned());
            sql.push("set local check_function_bodies = off;".to_owned());
            sql.extend(statements.iter().map(|one| ended(one)));
            sql.push("commit;".to_owned());
        }
        sql
    }
}
