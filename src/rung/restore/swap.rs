//! Puts the restored tables in their places, and the damaged ones into the quarantine: in one transaction, or not at all.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rollbackd_core::baseline::{Baseline, Catalog, TableName, quote_identifier};
use rollbackd_core::run::step::RemovedTable;
use tokio_postgres::{Client, GenericClient, Transaction};

use super::damage::Damaged;
use super::side::{self, Side};
use super::{sequence, statements, target};
use crate::config::model::Config;
use crate::postgres::removal::backward::{Backward, Ended};
use crate::postgres::removal::quarantine::shifting;
use crate::postgres::removal::scope::Member;
use crate::postgres::{Failure, catalog, count, during, milliseconds, restored};

/// What the swap needs to know.
#[derive(Debug, Clone, Copy)]
pub(super) struct Swap<'a> {
    pub(super) config: &'a Config,
    /// As it is known by now.
    pub(super) baseline: &'a Baseline,
    /// As it was taken.
    pub(super) taken: &'a Baseline,
    pub(super) damaged: &'a [Damaged],
    pub(super) sides: &'a [Side],
    /// The structure of the backup, as statements.
    pub(super) structure: &'a str,
    /// The last values of sequences in the backup.
    pub(super) values: &'a [(TableName, i64)],
    pub(super) quarantine: &'a str,
    /// Set when the commit is about to be sent.
    pub(super) commit_sent: &'a AtomicBool,
}

/// How it ended, when nothing failed.
#[derive(Debug)]
pub(super) enum Swapped {
    Done(Done),
    /// Something stands in the way; nothing was changed.
    Stopped(Vec<String>),
    /// The world moved meanwhile; nothing was changed, and another try may go through.
    Again(String),
}

/// What was done.
#[derive(Debug, Default)]
pub(super) struct Done {
    /// The damaged tables, with the rows they hold.
    pub(super) moved: Vec<RemovedTable>,
    /// How many rows of each are not in what was restored, as far as it could be told.
    pub(super) newer: Vec<(TableName, u64)>,
    /// What puts those into the live tables.
    pub(super) by_hand: Vec<String>,
    pub(super) notes: Vec<String>,
    pub(super) put_back: Vec<String>,
    pub(super) left: Vec<String>,
    pub(super) sql: Vec<String>,
}

/// One try.
pub(super) async fn attempt(client: &mut Client, swap: Swap<'_>, left: Duration) -> Result<Swapped, Failure> {
    let transaction = client.transaction().await.map_err(during("beginning a transaction"))?;
    // Indexes of large tables are made in here.
    let limits = format!(
        "set local lock_timeout = {}; set local statement_timeout = {}",
        milliseconds(swap.config.database.lock_timeout),
        milliseconds(left)
    );
    transaction.batch_execute(&limits).await.map_err(during("setting the transaction's limits"))?;
    let members = swap.members();
    if !members.is_empty() {
        let list: Vec<String> = members.iter().map(|member| format!("only {}", member.table.sql())).collect();
        let sql = format!("lock table {} in access exclusive mode", list.join(", "));
        transaction.batch_execute(&sql).await.map_err(during("locking the tables"))?;
    }
    let numbers = catalog::identities(&transaction).await?;
    for one in swap.damaged {
        let live = numbers.iter().find(|number| number.table == one.table).map(|number| number.oid);
        if live != one.live {
            return Ok(Swapped::Again(format!("{} changed while it was being locked", one.table)));
        }
    }
    let before = catalog::read(&transaction).await?;
    let mut done = Done::default();
    let places = swap.out_of_the_way(&transaction, &members, &mut done).await?;
    swap.put_into_place(&transaction, &mut done).await?;
    let tables: Vec<TableName> = swap.sides.iter().map(|side| side.table.clone()).collect();
    let target = target::of(&swap.baseline.catalog, &before, &tables);
    let backward = Backward {
        target: &target,
        protected: &swap.config.database.protected_schemas,
        only: None,
        hidden: &[],
        quarantine: None,
        keeping: swap.quarantine,
    };
    match backward.go(&transaction, Vec::new()).await? {
        Ended::Went(went) => {
            done.sql.extend(went.sql);
            done.put_back = went.words;
            done.left = went.left;
        }
        Ended::Stopped(reasons) => return Ok(Swapped::Stopped(reasons)),
    }
    for (number, side) in swap.sides.iter().enumerate() {
        let old = members.iter().position(|member| member.table == side.table).and_then(|at| places.get(at));
        let sql = sequence::behind(&transaction, side, old, swap.values).await?;
        tracing::debug!(event = "restore.sequences", number, statements = sql.len());
        done.sql.extend(sql);
    }
    let harm = swap.harm(&target, &before, &catalog::read(&transaction).await?);
    if !harm.is_empty() {
        return Ok(Swapped::Stopped(harm));
    }
    restored::write(&transaction, swap.quarantine, swap.taken, &tables).await?;
    side::clear(&transaction).await?;
    swap.commit_sent.store(true, Ordering::Relaxed);
    transaction.commit().await.map_err(during("committing the restore"))?;
    swap.tell(client, &members, &places, &mut done).await;
    Ok(Swapped::Done(done))
}

impl Swap<'_> {
    /// What stands in the place of the tables.
    fn members(&self) -> Vec<Member> {
        let member = |one: &Damaged| Some(Member { oid: one.live?, table: one.table.clone(), foreign: false });
        self.damaged.iter().filter_map(member).collect()
    }

    /// Moves the damaged tables into the quarantine; gives back where each is then.
    async fn out_of_the_way(
        &self,
        transaction: &Transaction<'_>,
        members: &[Member],
        done: &mut Done,
    ) -> Result<Vec<TableName>, Failure> {
        let doing = "moving the damaged tables into the quarantine";
        let quarantine = quote_identifier(self.quarantine);
        let oids: Vec<u32> = members.iter().map(|member| member.oid).collect();
        // What is put aside must not keep rows of live tables from being changed.
        let letting_go = "select format('alter table %s drop constraint %I', conrelid::regclass, conname), \
                            format('foreign key %s of %s was let go in the quarantine', conname, conrelid::regclass) \
                          from pg_constraint where contype = 'f' and conparentid = 0 and conrelid = any($1::oid[]) \
                            and confrelid <> all($1::oid[]) order by 1";
        let mut sql = Vec::new();
        for row in transaction.query(letting_go, &[&oids]).await.map_err(during(doing))? {
            sql.push(row.try_get::<_, String>(0).map_err(during(doing))?);
            done.notes.push(row.try_get(1).map_err(during(doing))?);
        }
        // They keep their schema when their table leaves it.
        let statistics = "select format('alter statistics %I.%I set schema %s', n.nspname, s.stxname, $2::text) \
                          from pg_statistic_ext s join pg_namespace n on n.oid = s.stxnamespace \
                          where s.stxrelid = any($1::oid[]) order by 1";
        for row in transaction.query(statistics, &[&oids, &quarantine]).await.map_err(during(doing))? {
            sql.push(row.try_get::<_, String>(0).map_err(during(doing))?);
        }
        let shift = shifting(transaction, self.quarantine, members).await?;
        sql.extend(shift.sql);
        done.notes.extend(shift.notes);
        transaction.batch_execute(&sql.join(";\n")).await.map_err(during(doing))?;
        done.sql.extend(sql);
        Ok(shift.places)
    }

    /// Moves the restored tables to where they belong.
    async fn put_into_place(&self, transaction: &Transaction<'_>, done: &mut Done) -> Result<(), Failure> {
        for side in self.sides {
            let named = TableName::new(side::SCHEMA, &side.table.name);
            let mut sql = vec![
                format!("alter table {} rename to {}", side.place.sql(), quote_identifier(&side.table.name)),
                format!("alter table {} set schema {}", named.sql(), quote_identifier(&side.table.schema)),
            ];
            if !side.identities.is_empty() {
                sql.extend(statements::identities(self.structure, &side.table));
            }
            let doing = format!("putting {} in its place", side.table);
            transaction.batch_execute(&sql.join(";\n")).await.map_err(during(&doing))?;
            done.sql.extend(sql);
        }
        Ok(())
    }

    /// What is not as it should be afterwards, in words.
    fn harm(&self, target: &Catalog, before: &Catalog, after: &Catalog) -> Vec<String> {
        let mut words = catalog::harm(self.baseline, before, after);
        let left = target.difference(after, &self.config.database.protected_schemas);
        words.extend(left.removed.iter().map(|id| format!("{id} would be missing")));
        words.extend(left.changed.iter().map(|one| format!("{} would not be what it was: {}", one.id, one.after)));
        words.sort();
        words.dedup();
        words
    }

    /// Counts what is in the quarantine now. It cannot take anything back any more; what cannot be counted is not told.
    async fn tell(&self, client: &Client, members: &[Member], places: &[TableName], done: &mut Done) {
        for (member, place) in members.iter().zip(places) {
            let rows = count::own_rows(client, place).await.ok();
            done.moved.push(RemovedTable { table: member.table.clone(), rows });
            if let Ok(Some(newer)) = newer(client, &member.table, place).await {
                done.newer.push((member.table.clone(), newer.rows));
                done.by_hand.extend((newer.rows > 0).then_some(newer.insert));
            }
        }
    }
}

/// The rows in the quarantine whose primary keys are not among what was restored.
struct Newer {
    rows: u64,
    /// The statement that puts them into the live table.
    insert: String,
}

/// Looks for them; nothing when no key tells.
async fn newer(client: &impl GenericClient, table: &TableName, place: &TableName) -> Result<Option<Newer>, Failure> {
    let doing = format!("counting the rows of {table} that are not in the backup");
    let sql = "select array(select quote_ident(a.attname) from pg_index i join pg_attribute a \
                 on a.attrelid = i.indrelid and a.attnum = any(i.indkey) \
               where i.indrelid = to_regclass($1) and i.indisprimary order by a.attnum), \
               array(select quote_ident(a.attname) from pg_attribute a join pg_attribute b on b.attname = a.attname \
                 and b.attrelid = to_regclass($2) and b.attnum > 0 and not b.attisdropped \
               where a.attrelid = to_regclass($1) and a.attnum > 0 and not a.attisdropped and a.attgenerated = '' \
               order by a.attnum)";
    let row = client.query_one(sql, &[&table.sql(), &place.sql()]).await.map_err(during(&doing))?;
    let (keys, both): (Vec<String>, Vec<String>) =
        (row.try_get(0).map_err(during(&doing))?, row.try_get(1).map_err(during(&doing))?);
    if keys.is_empty() || !keys.iter().all(|key| both.contains(key)) {
        return Ok(None);
    }
    let same: Vec<String> = keys.iter().map(|key| format!("a.{key}::text = b.{key}::text")).collect();
    let (live, kept, same) = (table.sql(), place.sql(), same.join(" and "));
    let rows = format!("from only {kept} a where not exists (select from only {live} b where {same})");
    let row = client.query_one(&format!("select count(*) {rows}"), &[]).await.map_err(during(&doing))?;
    let count: i64 = row.try_get(0).map_err(during(&doing))?;
    let columns = both.join(", ");
    let insert = format!("insert into {live} ({columns}) overriding system value select {columns} {rows};");
    Ok(u64::try_from(count).ok().map(|rows| Newer { rows, insert }))
}
