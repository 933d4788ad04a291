//! One transaction: undoes the newest record of a quarantine and strikes it out, or changes nothing.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rollbackd_core::baseline::{Catalog, Object, ObjectId, ObjectKind, TableName, quote_identifier};
use tokio_postgres::{Client, Transaction};

use super::archive::Archive;
use super::copies::{kept_copies, moves_back};
use super::{Batch, Job, Returned, columns, conflict, goal};
use crate::clock::Stopwatch;
use crate::postgres::removal::backward::{Backward, Ended};
use crate::postgres::removal::order;
use crate::postgres::removal::undo::{self, Record};
use crate::postgres::{Failure, catalog, count, during, milliseconds};

/// How one attempt ended, when nothing failed.
#[derive(Debug)]
pub(super) enum Attempt {
    /// There is no record.
    Nothing,
    /// Something is in the way; nothing was changed.
    Stopped(Vec<String>),
    /// This is back; there may be more.
    Done(Batch),
}

/// One attempt. `hidden` are relations that need not be looked at: what earlier attempts brought back.
pub(super) async fn attempt(
    client: &mut Client,
    job: Job<'_>,
    hidden: &BTreeSet<u32>,
    within: Duration,
) -> Result<Attempt, Failure> {
    let transaction = client.transaction().await.map_err(during("beginning a transaction"))?;
    let watch = Stopwatch::start();
    set_limits(&transaction, job, within).await?;
    let Some((number, record)) = undo::newest(&transaction, job.schema).await? else { return Ok(Attempt::Nothing) };
    let mut hidden: Vec<u32> = hidden.iter().copied().collect();
    hidden.extend(moving(&transaction, &record).await?);
    let before = catalog::read_without(&transaction, &hidden).await?;
    let reasons = conflict::of(&transaction, &record, &before).await?;
    if !reasons.is_empty() {
        return Ok(Attempt::Stopped(reasons));
    }
    let archive = match Archive::open(&transaction, &record, within.saturating_sub(watch.elapsed())).await? {
        Ok(archive) => archive,
        Err(reason) => return Ok(Attempt::Stopped(vec![reason])),
    };
    let mut way = Way {
        job,
        record: &record,
        before: &before,
        archive: archive.as_ref(),
        hidden,
        gone: BTreeSet::new(),
        watch,
        within,
    };
    let batch = match way.go(&transaction).await? {
        Ok(batch) => batch,
        Err(reasons) => return Ok(Attempt::Stopped(reasons)),
    };
    let batch = finish(&transaction, job, number, &record, batch).await?;
    job.sent.store(true, Ordering::Relaxed);
    transaction.commit().await.map_err(during("committing what came back"))?;
    Ok(Attempt::Done(batch))
}

/// The transaction's time limits. What reads an archive takes the time that it takes.
async fn set_limits(transaction: &Transaction<'_>, job: Job<'_>, within: Duration) -> Result<(), Failure> {
    let sql = format!(
        "set local lock_timeout = {}; set local statement_timeout = {}; set local check_function_bodies = off",
        milliseconds(job.config.database.lock_timeout),
        milliseconds(within)
    );
    transaction.batch_execute(&sql).await.map_err(during("setting the transaction's limits"))
}

struct Way<'a> {
    job: Job<'a>,
    record: &'a Record,
    before: &'a Catalog,
    archive: Option<&'a Archive>,
    hidden: Vec<u32>,
    /// What the removal had made again and that was taken away again.
    gone: BTreeSet<ObjectId>,
    watch: Stopwatch,
    within: Duration,
}

impl Way<'_> {
    /// Goes the way; if something that the removal had made again stands on it, takes that away first.
    async fn go(&mut self, transaction: &Transaction<'_>) -> Result<Result<Batch, Vec<String>>, Failure> {
        let doing = "setting a savepoint";
        transaction.batch_execute("savepoint whole").await.map_err(during(doing))?;
        let reasons = match self.once(transaction).await? {
            Ok(batch) => return Ok(Ok(batch)),
            Err(reasons) => reasons,
        };
        if self.record.made.is_empty() {
            return Ok(Err(reasons));
        }
        transaction.batch_execute("rollback to savepoint whole").await.map_err(during(doing))?;
        set_limits(transaction, self.job, self.left()).await?;
        let made = conflict::in_the_way(self.record);
        let now = made.iter().filter_map(|id| self.before.get(id));
        let jobs: Vec<order::Job> =
            now.filter_map(|object| object.unmake.as_deref()).map(order::Job::removing).collect();
        order::run(transaction, jobs).await?;
        self.gone = made.iter().map(|id| (*id).clone()).collect();
        let gone: Vec<String> = made.iter().map(|id| format!("{id} is gone again, as the migration had it")).collect();
        Ok(self.once(transaction).await?.map(|mut batch| {
            batch.left.extend(gone);
            batch
        }))
    }

    fn left(&self) -> Duration {
        self.within.saturating_sub(self.watch.elapsed())
    }

    async fn once(&mut self, transaction: &Transaction<'_>) -> Result<Result<Batch, Vec<String>>, Failure> {
        let record = self.record;
        let mut batch = Batch::default();
        let (wanted, hopeless) = self.wanted();
        let goal = goal::of(record, self.before, &wanted, &self.gone);
        let now = match self.named(transaction, &goal).await? {
            Ok(now) => now,
            Err(reasons) => return Ok(Err(reasons)),
        };
        let now = now.as_ref().unwrap_or(self.before);
        // Then what stands by itself, in whatever order the server takes it.
        let mut jobs = self.early(transaction, ObjectKind::Schema, now).await?;
        jobs.extend(moves_back(record));
        jobs.extend(self.leftovers(transaction).await?);
        if let Some(archive) = self.archive {
            jobs.extend(archive.tables());
        }
        for kind in [ObjectKind::Extension, ObjectKind::Type, ObjectKind::Function, ObjectKind::Sequence] {
            jobs.extend(self.early(transaction, kind, now).await?);
        }
        let added = columns::missing(transaction, record, now).await?;
        let ran = order::run(transaction, jobs).await?;
        if !ran.stuck.is_empty() && added.is_empty() && !words(&ran.stuck).is_empty() {
            return Ok(Err(words(&ran.stuck)));
        }
        self.hidden.extend(oids(transaction, &record.tables).await?);
        // While the rows of tables that nobody else sees are copied, no table that stays is locked.
        if let Some(archive) = self.archive {
            match archive.copy_rows(transaction, self.left()).await {
                Ok(()) => {}
                Err(failure) if failure.is_missing() => return Ok(Err(words(&ran.stuck))),
                Err(failure) => return Err(failure),
            }
        }
        let jobs = columns::adding(&added).into_iter().chain(ran.stuck.into_iter().map(|(job, _)| job));
        let ran = order::run(transaction, jobs.collect()).await?;
        if !words(&ran.stuck).is_empty() {
            return Ok(Err(words(&ran.stuck)));
        }
        for kept in &record.columns {
            batch.columns.push(columns::fill(transaction, kept, &added, record).await?);
        }
        set_limits(transaction, self.job, self.left()).await?;
        let mut moves: Vec<order::Job> = self.archive.map(Archive::rest).unwrap_or_default();
        moves.extend(record.beside.iter().map(|sql| order::Job::moving(vec![sql.clone()])));
        batch.left.extend(hopeless);
        let backward = Backward {
            target: &goal,
            protected: &self.job.config.database.protected_schemas,
            only: Some(goal::within(record, &goal)),
            hidden: &self.hidden,
            quarantine: None,
            keeping: self.job.schema,
        };
        match backward.go(transaction, moves).await? {
            Ended::Went(went) => batch.left.extend(went.left),
            Ended::Stopped(reasons) => return Ok(Err(reasons)),
        }
        self.proven(transaction, &wanted, batch).await
    }

    /// Gives the names that the removal took away, in schemas that may have to be made for it; gives back the catalog then,
    /// if there were any. Tables that stay are locked from here on, but a name that is wanted may be one of theirs.
    async fn named(
        &self,
        transaction: &Transaction<'_>,
        goal: &Catalog,
    ) -> Result<Result<Option<Catalog>, Vec<String>>, Failure> {
        if goal::renamed(self.record).is_empty() {
            return Ok(Ok(None));
        }
        let schemas = self.early(transaction, ObjectKind::Schema, self.before).await?;
        order::run(transaction, schemas).await?;
        Ok(goal::rename(transaction, self.record, goal, &self.hidden).await?.map(Some))
    }

    /// Makes the objects of a kind that are missing `now`, as far as they were not kept.
    async fn early(
        &self,
        transaction: &Transaction<'_>,
        kind: ObjectKind,
        now: &Catalog,
    ) -> Result<Vec<order::Job>, Failure> {
        let kept: BTreeSet<ObjectId> =
            kept_copies(transaction, self.job.schema, self.record).await?.into_iter().map(|copy| copy.id).collect();
        let renamed: BTreeSet<&ObjectId> = goal::renamed(self.record).into_values().collect();
        let missing = self.record.objects.iter().filter(|object| {
            let id = &object.id;
            id.kind == kind && !kept.contains(id) && !now.contains(id) && !renamed.contains(id)
        });
        let jobs = missing.map(|object| order::Job {
            id: Some(object.id.clone()),
            sql: object.making().into_iter().map(str::to_owned).collect(),
            ..order::Job::moving(Vec::new())
        });
        Ok(jobs.filter(|job| !job.sql.is_empty()).collect())
    }

    /// Moves back what stands by itself in the quarantine and was no table.
    async fn leftovers(&self, transaction: &Transaction<'_>) -> Result<Vec<order::Job>, Failure> {
        let moved: BTreeSet<&str> = self.record.moved.iter().map(|moved| moved.to.name.as_str()).collect();
        let copies = kept_copies(transaction, self.job.schema, self.record).await?;
        let free = copies.into_iter().filter(|copy| !copy.is_relation || !moved.contains(copy.name.as_str()));
        Ok(free
            .map(|copy| {
                let schema = quote_identifier(&copy.id.schema);
                order::Job::moving(vec![format!("alter {} {} set schema {schema}", copy.keyword, copy.sql)])
            })
            .collect())
    }

    /// What is to be there in the end, and what no statement makes again.
    fn wanted(&self) -> (Vec<Object>, Vec<String>) {
        let (mut objects, mut hopeless) = (Vec::new(), Vec::new());
        for object in &self.record.objects {
            // What kept its rows has another name at most.
            let is_kept = matches!(
                object.id.kind,
                ObjectKind::Table | ObjectKind::Column | ObjectKind::Function | ObjectKind::Type
            );
            if object.making().is_empty() && !is_kept {
                hopeless.push(format!("{} did not come back: no statement makes it", object.id));
            } else {
                objects.push(object.clone());
            }
        }
        objects.sort_by(|a, b| a.id.cmp(&b.id));
        (objects, hopeless)
    }

    /// Looks whether all of it is there, and nothing else was touched.
    async fn proven(
        &self,
        transaction: &Transaction<'_>,
        wanted: &[Object],
        mut batch: Batch,
    ) -> Result<Result<Batch, Vec<String>>, Failure> {
        let record = self.record;
        let now = self.without_extras(transaction).await?;
        let mut wrong: Vec<String> = wanted
            .iter()
            .filter(|object| now.get(&object.id).is_none_or(|is| is.definition != object.definition))
            .map(|object| match now.get(&object.id) {
                Some(is) => format!("{} would be `{}` and not `{}`", object.id, is.definition, object.definition),
                None => format!("{} would not come back", object.id),
            })
            .collect();
        let mut known: BTreeSet<&ObjectId> = record.objects.iter().map(|object| &object.id).collect();
        known.extend(record.made.iter().map(|object| &object.id));
        let touched = self.before.difference(&now, &[]);
        let changed = touched.changed.iter().map(|change| &change.id);
        let touched = touched.removed.iter().chain(changed).chain(touched.renamed.iter().map(|rename| &rename.from));
        wrong.extend(touched.filter(|id| !known.contains(id)).map(|id| format!("{id} would be changed")));
        let there = tables_there(transaction, &record.tables).await?;
        for table in &record.tables {
            let rows = self.archive.and_then(|archive| archive.rows(table));
            if !there.contains(table) {
                if self.archive.is_some() && rows.is_none() {
                    batch.left.push(format!("foreign table {table} did not come back: it is in no archive"));
                } else {
                    wrong.push(format!("table {table} would not come back"));
                }
                continue;
            }
            let counted = if rows.is_some() { Some(count::own_rows(transaction, table).await?) } else { None };
            if counted != rows {
                wrong.push(format!("table {table} would have other rows than were archived"));
            }
            batch.tables.push(Returned { table: table.clone(), rows: counted, archive: record.archive.clone() });
        }
        if !wrong.is_empty() {
            return Ok(Err(wrong));
        }
        batch.objects.extend(goal::told(wanted));
        let wholes: BTreeSet<(&str, &str)> = record
            .made
            .iter()
            .filter(|object| object.id.of.is_none())
            .map(|object| (object.id.schema.as_str(), object.id.name.as_str()))
            .collect();
        let still = record.made.iter().filter(|object| {
            let part = object.id.of.as_deref().is_some_and(|of| wholes.contains(&(object.id.schema.as_str(), of)));
            now.contains(&object.id) && !part
        });
        batch.stays.extend(still.map(|object| object.id.to_string()));
        batch.hidden.clone_from(&self.hidden);
        Ok(Ok(batch))
    }

    /// Takes back the rights that came with what was made anew and that it did not have; gives back the catalog then.
    async fn without_extras(&self, transaction: &Transaction<'_>) -> Result<Catalog, Failure> {
        let now = catalog::read_without(transaction, &self.hidden).await?;
        let known: BTreeSet<&ObjectId> = self.record.objects.iter().map(|object| &object.id).collect();
        let extra = now.objects.iter().filter(|object| {
            object.id.kind == ObjectKind::Grant && !known.contains(&object.id) && !self.before.contains(&object.id)
        });
        let jobs: Vec<order::Job> =
            extra.filter_map(|object| object.unmake.as_deref()).map(order::Job::removing).collect();
        if jobs.is_empty() {
            return Ok(now);
        }
        order::run(transaction, jobs).await?;
        catalog::read_without(transaction, &self.hidden).await
    }
}

/// What could not be done at all; what is about an object is tried again later.
fn words(stuck: &[(order::Job, Failure)]) -> Vec<String> {
    stuck.iter().filter(|(job, _)| job.id.is_none()).map(|(_, failure)| failure.to_string()).collect()
}

/// The numbers of the tables that move back, with those of their sequences.
async fn moving(transaction: &Transaction<'_>, record: &Record) -> Result<Vec<u32>, Failure> {
    let tables = record.moved.iter().filter(|moved| moved.by_itself && moved.keyword.ends_with("table"));
    oids(transaction, &tables.map(|moved| moved.to.clone()).collect::<Vec<_>>()).await
}

/// The numbers of tables and of the sequences that belong to them.
async fn oids(transaction: &Transaction<'_>, tables: &[TableName]) -> Result<Vec<u32>, Failure> {
    let doing = "reading the tables' numbers";
    let (schemas, names): (Vec<&str>, Vec<&str>) =
        tables.iter().map(|table| (table.schema.as_str(), table.name.as_str())).unzip();
    let sql = "with chosen as ( \
                 select c.oid from unnest($1::text[], $2::text[]) w (schema, name) \
                 join pg_namespace n on n.nspname = w.schema \
                 join pg_class c on c.relnamespace = n.oid and c.relname = w.name and c.relkind in ('r', 'p', 'f')) \
               select oid from chosen \
               union \
               select d.objid from chosen join pg_depend d on d.refclassid = 'pg_class'::regclass and d.refobjid = chosen.oid \
                 and d.refobjsubid > 0 and d.classid = 'pg_class'::regclass and d.deptype in ('a', 'i') \
               join pg_class s on s.oid = d.objid and s.relkind = 'S'";
    let rows = transaction.query(sql, &[&schemas, &names]).await.map_err(during(doing))?;
    rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>().map_err(during(doing))
}

/// Which of these tables there are.
async fn tables_there(transaction: &Transaction<'_>, tables: &[TableName]) -> Result<BTreeSet<TableName>, Failure> {
    let doing = "looking for the tables";
    let sql = "select n.nspname::text, c.relname::text from pg_class c join pg_namespace n on n.oid = c.relnamespace \
               where c.oid = any($1::oid[]) and c.relkind in ('r', 'p', 'f')";
    let rows = transaction.query(sql, &[&oids(transaction, tables).await?]).await.map_err(during(doing))?;
    rows.iter()
        .map(|row| Ok(TableName { schema: row.try_get(0)?, name: row.try_get(1)? }))
        .collect::<Result<_, _>>()
        .map_err(during(doing))
}

/// Strikes the record out; with the last one the quarantine goes, if it is empty.
async fn finish(
    transaction: &Transaction<'_>,
    job: Job<'_>,
    number: i64,
    record: &Record,
    mut batch: Batch,
) -> Result<Batch, Failure> {
    let schema = quote_identifier(job.schema);
    // Copies of what was made anew.
    let copies = kept_copies(transaction, job.schema, record).await?;
    let drops = copies.iter().map(|copy| order::Job::removing(&format!("drop {} {}", copy.keyword, copy.sql)));
    order::run(transaction, drops.collect()).await?;
    if undo::forget(transaction, job.schema, number).await? > 0 {
        return Ok(batch);
    }
    let table = TableName::new(job.schema, undo::TABLE).sql();
    let dropped = order::Job::moving(vec![format!("drop table {table}"), format!("drop schema {schema}")]);
    let ran = order::run(transaction, vec![dropped]).await?;
    batch.quarantine_dropped = ran.stuck.is_empty();
    if !batch.quarantine_dropped {
        batch.left.push(format!("schema {} stays: it is not empty", job.schema));
    }
    Ok(batch)
}
