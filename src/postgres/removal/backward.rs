//! Goes back to an earlier catalog inside a transaction: asks the core for the way, goes it as far as the server lets,
//! and asks again, until nothing is left to do.
//!
//! What is only redefined is defined as it was. Columns that were added to tables that stay are kept with their keys in
//! the quarantine before they go. Nothing is dropped with CASCADE; what the server does not let go stays, and either does
//! no harm or fails the whole.

use std::collections::BTreeSet;

use rollbackd_core::baseline::{Catalog, Object, ObjectId, ObjectKind};
use rollbackd_core::reversal::{Act, Deed, Reach, Reversal, reversal};
use rollbackd_core::run::step::KeptColumns;
use tokio_postgres::Transaction;

use super::columns;
use super::order::{self, Job};
use super::standing;
use crate::postgres::{Failure, catalog, during};

/// How often the way is asked for. Names come first, then what they hide, then what was lost with what had to go.
const ROUNDS: u32 = 8;

/// Where to go, and how.
#[derive(Debug)]
pub(crate) struct Backward<'a> {
    /// The catalog to go back to.
    pub(crate) target: &'a Catalog,
    /// Schemas in which nothing is changed.
    pub(crate) protected: &'a [String],
    /// What is taken back; nothing: all of it.
    pub(crate) only: Option<BTreeSet<ObjectId>>,
    /// Relations that need not be looked at: the new tables.
    pub(crate) hidden: &'a [u32],
    /// The schema that keeps what is taken away, which is there already; absent: it is dropped.
    pub(crate) quarantine: Option<&'a str>,
    /// The schema in which the values of columns are kept.
    pub(crate) keeping: &'a str,
}

/// What was done.
#[derive(Debug, Default)]
pub(crate) struct Went {
    /// The statements, in order.
    pub(crate) sql: Vec<String>,
    /// The same in words.
    pub(crate) words: Vec<String>,
    /// What stays and does no harm, in words.
    pub(crate) left: Vec<String>,
    /// Where values of columns are kept.
    pub(crate) columns: Vec<KeptColumns>,
}

/// How it ended, when no statement failed for good.
#[derive(Debug)]
pub(crate) enum Ended {
    /// As far as it goes.
    Went(Went),
    /// Something stands in the way; the transaction must not be committed.
    Stopped(Vec<String>),
}

impl Backward<'_> {
    /// Goes back. `moves` is other work that is done on the way, as soon as it can be.
    pub(crate) async fn go(mut self, transaction: &Transaction<'_>, moves: Vec<Job>) -> Result<Ended, Failure> {
        // Bodies are checked when they run: what they name may be made after them.
        let setting = "set local check_function_bodies = off";
        transaction.batch_execute(setting).await.map_err(during("preparing to put functions back"))?;
        let mut went = Went::default();
        let mut moves = moves;
        for _ in 0..ROUNDS {
            let now = catalog::read_without(transaction, self.hidden).await?;
            let way = self.way(&now);
            if !way.obstacles.is_empty() {
                return Ok(Ended::Stopped(way.obstacles));
            }
            went.left.clone_from(&way.left);
            let jobs = self.jobs(transaction, &way, &now, std::mem::take(&mut moves), &mut went).await?;
            if jobs.is_empty() {
                return Ok(Ended::Went(went));
            }
            let ran = order::run(transaction, jobs).await?;
            let went_on = !ran.done.is_empty();
            went.sql.extend(ran.done);
            went.words.extend(ran.words);
            let stuck = ran.stuck;
            moves = stuck.iter().filter(|(job, _)| job.id.is_none()).map(|(job, _)| job.clone()).collect();
            if !went_on && !self.make_room(transaction, &stuck, &now, &mut went).await? {
                return Ok(settled(went, stuck));
            }
        }
        Ok(Ended::Stopped(vec![format!("putting objects back did not come to an end in {ROUNDS} rounds")]))
    }

    fn way(&self, now: &Catalog) -> Reversal {
        let reach = self.only.as_ref().map_or(Reach::Everything, Reach::Only);
        reversal(self.target, now, self.protected, reach)
    }

    async fn jobs(
        &self,
        transaction: &Transaction<'_>,
        way: &Reversal,
        now: &Catalog,
        moves: Vec<Job>,
        went: &mut Went,
    ) -> Result<Vec<Job>, Failure> {
        let (making, first): (Vec<&Act>, Vec<&Act>) = way.acts.iter().partition(|act| act.deed == Deed::Make);
        // What a move takes along is gone when its own turn comes.
        let mut jobs = moves;
        let going = !way.columns.is_empty();
        jobs.extend(first.into_iter().map(|act| self.job(act, going)));
        for kept in columns::plan(transaction, &way.columns, now, self.keeping, self.quarantine.is_none()).await? {
            jobs.push(kept.job);
            if let Some(columns) = kept.columns {
                went.columns.retain(|known| known.table != columns.table);
                went.columns.push(columns);
            }
        }
        jobs.extend(making.into_iter().map(|act| self.job(act, going)));
        Ok(jobs)
    }

    /// An act as a job. What stands by itself is moved into the quarantine where there is one. When columns of tables that
    /// stay go, what is only a definition is dropped instead: moved, it would still hold on to them.
    pub(super) fn job(&self, act: &Act, columns_go: bool) -> Job {
        let whole = matches!(
            act.id.kind,
            ObjectKind::View
                | ObjectKind::MaterializedView
                | ObjectKind::Function
                | ObjectKind::Type
                | ObjectKind::Sequence
        );
        let removes = act.deed == Deed::Remove;
        let (mut sql, mut otherwise) = (act.sql.clone(), act.otherwise.clone());
        if let (true, true, Some(schema), [drop]) = (removes, whole, self.quarantine, act.sql.as_slice())
            && let Some(object) = drop.strip_prefix("drop ")
        {
            let schema = rollbackd_core::baseline::quote_identifier(schema);
            otherwise = vec![format!("alter {object} set schema {schema}")];
            let definition =
                matches!(act.id.kind, ObjectKind::View | ObjectKind::MaterializedView | ObjectKind::Function);
            if !(columns_go && definition) {
                std::mem::swap(&mut sql, &mut otherwise);
            }
        }
        Job { id: Some(act.id.clone()), words: act.words(), sql, otherwise, removes }
    }

    /// What of the target stands on a view or a function that has to be made anew is taken away as well, where it holds no
    /// rows: the next round makes it again. Says whether that changed anything.
    async fn make_room(
        &mut self,
        transaction: &Transaction<'_>,
        stuck: &[(Job, Failure)],
        now: &Catalog,
        went: &mut Went,
    ) -> Result<bool, Failure> {
        let stuck = stuck.iter().filter_map(|(job, _)| job.id.as_ref().filter(|_| !job.removes));
        let (relations, functions): (Vec<&Object>, Vec<&Object>) = stuck
            .filter(|id| matches!(id.kind, ObjectKind::View | ObjectKind::MaterializedView | ObjectKind::Function))
            .filter_map(|id| now.get(id))
            .partition(|object| object.id.kind != ObjectKind::Function);
        if relations.is_empty() && functions.is_empty() {
            return Ok(false);
        }
        let mut jobs = Vec::new();
        for id in standing::on(transaction, &relations, &functions).await? {
            if self.protected.contains(&id.schema) || self.target.get(&id).is_none() {
                continue;
            }
            let Some(unmake) = now.get(&id).and_then(|object| object.unmake.clone()) else { continue };
            let words = format!("make room for {id}");
            jobs.push(Job { id: Some(id), words, sql: vec![unmake], otherwise: Vec::new(), removes: true });
        }
        if let Some(only) = &mut self.only {
            for id in jobs.iter().filter_map(|job| job.id.as_ref()) {
                only.insert(id.clone());
                // What hangs on it is lost with it, and is put back with it.
                let parts = self.target.objects.iter().filter(|part| part.id.schema == id.schema);
                only.extend(parts.filter(|part| part.id.of.as_ref() == Some(&id.name)).map(|part| part.id.clone()));
            }
        }
        let ran = order::run(transaction, jobs).await?;
        let moved = !ran.done.is_empty();
        went.sql.extend(ran.done);
        Ok(moved)
    }
}

/// Nothing goes any further: what is stuck does no harm where it stands, or it fails the whole.
fn settled(mut went: Went, stuck: Vec<(Job, Failure)>) -> Ended {
    let mut obstacles = Vec::new();
    for (job, failure) in stuck {
        // By itself, new, and needed by something that stays, such as a table in the quarantine.
        let harmless = job.removes
            && job.id.as_ref().is_some_and(|id| {
                id.of.is_none()
                    && matches!(
                        id.kind,
                        ObjectKind::Extension
                            | ObjectKind::Schema
                            | ObjectKind::Type
                            | ObjectKind::Function
                            | ObjectKind::Sequence
                    )
            });
        if let (true, Some(id)) = (harmless, &job.id) {
            went.left.push(format!("{id} stays: {failure}"));
        } else {
            obstacles.push(format!("{}: {failure}", job.words));
        }
    }
    if obstacles.is_empty() { Ended::Went(went) } else { Ended::Stopped(obstacles) }
}
