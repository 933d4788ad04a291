//! Moves tables into a schema that nobody else may use.
//!
//! Moving keeps everything: rows, indexes, sequences, foreign keys. Foreign keys to tables that stay go on working,
//! which needs the right to the schema for the table's owner, because the server checks them in the owner's name.

use std::collections::BTreeSet;
use std::time::Duration;

use rollbackd_core::baseline::{TableName, quote_identifier};
use rollbackd_core::run::step::RemovedTable;
use rollbackd_core::window::quarantine_schema;
use rollbackd_core::words::counted;
use tokio_postgres::{Client, GenericClient, Transaction};

use super::dependent::{Collateral, Whole};
use super::scope::{Member, Scope};
use super::undo::{self, Moved};
use super::{Attempt, BATCH, Batch, Job, Prepared, columns, commit, order, prepare, set_limits, take_back};
use crate::postgres::{Failure, count, during};

/// The longest name that the server takes, in bytes.
const LONGEST_NAME: usize = 63;

/// One attempt.
pub(crate) async fn attempt(client: &mut Client, job: &Job<'_>, remaining: Duration) -> Result<Attempt, Failure> {
    let transaction = client.transaction().await.map_err(during("beginning a transaction"))?;
    set_limits(&transaction, job, remaining).await?;
    let picked = prepare(&transaction, job, |scope| scope.members.iter().take(BATCH).cloned().collect()).await?;
    let prepared = match picked {
        Ok(prepared) => prepared,
        Err(end) => return Ok(end),
    };
    let Prepared { seen, members } = &prepared;
    let scope = &seen.scope;
    let schema = quarantine_schema(job.window_started);
    let guests = owners(&transaction, scope, members).await?;
    let mut sql = open(&transaction, job, &guests).await?;
    let mut moves =
        Moves { schema: schema.clone(), taken: columns::names_in(&transaction, &schema).await?, ..Moves::default() };
    moves.columns_go = !seen.way.columns.is_empty();
    let publications = moves.publications(&transaction, members).await?;
    for collateral in &scope.collateral {
        moves.collateral(collateral);
    }
    let names = moved_relations(&transaction, members).await?;
    let places = moves.tables(members, &names);
    let mut record = undo::Record::of(job, members, None);
    record.moved = moves.moved;
    record.beside = publications;
    let went = match take_back(&transaction, job, seen, moves.jobs, record).await? {
        Ok(went) => went,
        Err(harm) => return Ok(Attempt::Stopped(harm)),
    };
    if members.is_empty() && went.sql.is_empty() {
        return Ok(Attempt::Left(went.left));
    }
    commit(transaction, job).await?;
    let keys = scope.keys.iter().filter(|key| members.iter().any(|member| member.oid == key.member)).count();
    if keys > 0 {
        moves.notes.push(format!("{} to tables that stay: still live in the quarantine", counted(keys, "foreign key")));
    }
    let mut tables = Vec::with_capacity(members.len());
    for (member, place) in members.iter().zip(places) {
        // Counted after the locks are gone; a count that fails takes nothing back.
        let rows = if member.foreign { None } else { count::own_rows(&*client, &place).await.ok() };
        tables.push(RemovedTable { table: member.table.clone(), rows });
    }
    sql.extend(went.sql);
    let (put_back, left, columns) = (went.words, went.left, went.columns);
    let more = scope.more || scope.members.len() > members.len();
    let quarantine = Some(schema);
    Ok(Attempt::Done(Batch {
        tables,
        collateral: moves.notes,
        sql,
        quarantine,
        archive: None,
        put_back,
        left,
        columns,
        more,
    }))
}

/// How tables are moved into a quarantine by somebody who does more than removing them.
#[derive(Debug)]
pub(crate) struct Shifting {
    /// The statements.
    pub(crate) sql: Vec<String>,
    /// Where each of the tables is then.
    pub(crate) places: Vec<TableName>,
    /// What has to be known, in words.
    pub(crate) notes: Vec<String>,
}

/// Makes the quarantine, and plans moving these tables there with their indexes and sequences.
pub(crate) async fn shifting(
    transaction: &Transaction<'_>,
    schema: &str,
    members: &[Member],
) -> Result<Shifting, Failure> {
    let mut sql = make_closed(transaction, schema, &[]).await?;
    let taken = columns::names_in(transaction, schema).await?;
    let mut moves = Moves { schema: schema.to_owned(), taken, ..Moves::default() };
    moves.publications(transaction, members).await?;
    let names = moved_relations(transaction, members).await?;
    let places = moves.tables(members, &names);
    sql.extend(moves.jobs.into_iter().flat_map(|job| job.sql));
    Ok(Shifting { sql, places, notes: moves.notes })
}

/// The statements that move, and the names that are taken where they move to.
#[derive(Debug, Default)]
struct Moves {
    schema: String,
    taken: BTreeSet<String>,
    jobs: Vec<order::Job>,
    notes: Vec<String>,
    moved: Vec<Moved>,
    /// Whether columns of tables that stay go as well.
    columns_go: bool,
}

/// A relation that moves with a table: an index, a sequence, or the table itself.
struct Relation {
    member: u32,
    keyword: &'static str,
    name: TableName,
}

impl Moves {
    /// Takes the tables out of publications: the quarantine is not for subscribers. Gives back what undoes that.
    async fn publications(&mut self, client: &impl GenericClient, members: &[Member]) -> Result<Vec<String>, Failure> {
        let mut again = Vec::new();
        for published in undo::publications(client, members).await? {
            self.jobs.push(order::Job::removing(&published.drop));
            self.notes.push(published.words);
            again.push(published.add);
        }
        Ok(again)
    }

    /// Moves what stands by itself, and drops what is a part of a table that stays; and what is only a definition, when
    /// columns go that it may hold on to.
    fn collateral(&mut self, collateral: &Collateral) {
        self.notes.push(collateral.words.clone());
        match &collateral.whole {
            _ if self.columns_go && collateral.is_definition() => {
                self.jobs.push(order::Job::removing(&collateral.drop));
            }
            None => self.jobs.push(order::Job::removing(&collateral.drop)),
            Some(Whole { keyword, relation: Some(relation), .. }) => {
                let (name, renaming) = self.free(keyword, relation);
                self.shift(keyword, relation, &name, renaming);
            }
            Some(Whole { keyword, sql, relation: None }) => {
                let schema = quote_identifier(&self.schema);
                self.jobs.push(order::Job::removing(&format!("alter {keyword} {sql} set schema {schema}")));
            }
        }
    }

    /// Moves tables; gives back the names that they have then.
    fn tables(&mut self, members: &[Member], relations: &[Relation]) -> Vec<TableName> {
        let mut places = Vec::new();
        for member in members {
            for part in relations.iter().filter(|relation| relation.member == member.oid) {
                let (name, renaming) = self.free(part.keyword, &part.name);
                self.jobs.extend(renaming.map(|sql| order::Job::moving(vec![sql])));
                if name != part.name.name {
                    self.moved.push(Moved::renamed(part.keyword, &part.name, &self.schema, &name));
                }
            }
            let keyword = if member.foreign { "foreign table" } else { "table" };
            let (name, renaming) = self.free(keyword, &member.table);
            self.shift(keyword, &member.table, &name, renaming);
            places.push(TableName::new(&self.schema, name));
        }
        places
    }

    fn shift(&mut self, keyword: &str, from: &TableName, name: &str, renaming: Option<String>) {
        let now = TableName::new(&from.schema, name);
        let shift = format!("alter {keyword} {} set schema {}", now.sql(), quote_identifier(&self.schema));
        self.jobs.push(order::Job::moving(renaming.into_iter().chain([shift]).collect()));
        self.moved.push(Moved::shifted(keyword, from, &self.schema, name));
    }

    /// The name that a relation has in the quarantine, and the statement that gives it to it when its own is taken.
    fn free(&mut self, keyword: &str, relation: &TableName) -> (String, Option<String>) {
        let mut name = relation.name.clone();
        let mut number = 1_u32;
        while !self.taken.insert(name.clone()) {
            number += 1;
            name = suffixed(&relation.name, number);
        }
        if name == relation.name {
            return (name, None);
        }
        self.notes.push(format!("{keyword} {relation} is called {name} in the quarantine"));
        let sql = format!("alter {keyword} {} rename to {}", relation.sql(), quote_identifier(&name));
        (name, Some(sql))
    }
}

/// The name with a number, cut so that the server takes it whole.
fn suffixed(name: &str, number: u32) -> String {
    let suffix = format!("_rollbackd_{number}");
    let room = (LONGEST_NAME - suffix.len()).min(name.len());
    let end = (0..=room).rev().find(|at| name.is_char_boundary(*at)).unwrap_or(0);
    format!("{}{suffix}", name.get(..end).unwrap_or_default())
}

/// The indexes and owned sequences that move along with tables.
async fn moved_relations(client: &impl GenericClient, members: &[Member]) -> Result<Vec<Relation>, Failure> {
    let doing = "reading the tables' indexes and sequences";
    let oids: Vec<u32> = members.iter().map(|member| member.oid).collect();
    let sql = "select i.indrelid, false, n.nspname::text, c.relname::text \
               from pg_index i join pg_class c on c.oid = i.indexrelid join pg_namespace n on n.oid = c.relnamespace \
               where i.indrelid = any($1::oid[]) \
               union all \
               select d.refobjid, true, n.nspname::text, c.relname::text \
               from pg_depend d join pg_class c on c.oid = d.objid and c.relkind = 'S' \
               join pg_namespace n on n.oid = c.relnamespace \
               where d.classid = 'pg_class'::regclass and d.refclassid = 'pg_class'::regclass and d.refobjsubid > 0 \
                 and d.deptype in ('a', 'i') and d.refobjid = any($1::oid[]) \
               order by 1, 2, 3, 4";
    let rows = client.query(sql, &[&oids]).await.map_err(during(doing))?;
    rows.iter()
        .map(|row| {
            let keyword = if row.try_get(1)? { "sequence" } else { "index" };
            let name = TableName { schema: row.try_get(2)?, name: row.try_get(3)? };
            Ok(Relation { member: row.try_get(0)?, keyword, name })
        })
        .collect::<Result<_, _>>()
        .map_err(during(doing))
}

/// The owners of tables whose foreign keys stay live.
pub(super) async fn owners(
    client: &impl GenericClient,
    scope: &Scope,
    members: &[Member],
) -> Result<Vec<String>, Failure> {
    let doing = "reading the tables' owners";
    let oids: Vec<u32> = members.iter().map(|member| member.oid).collect();
    let keyed: Vec<u32> = scope.keys.iter().map(|key| key.member).filter(|member| oids.contains(member)).collect();
    let sql = "select distinct pg_get_userbyid(relowner)::text from pg_class where oid = any($1::oid[]) order by 1";
    let rows = client.query(sql, &[&keyed]).await.map_err(during(doing))?;
    rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>().map_err(during(doing))
}

/// Makes the quarantine, takes every right to it from everybody but its owner, whatever default privileges had given, and
/// lets the tables' owners in as far as foreign keys need it. Gives back the statements.
pub(super) async fn open(
    transaction: &Transaction<'_>,
    job: &Job<'_>,
    guests: &[String],
) -> Result<Vec<String>, Failure> {
    make_closed(transaction, &quarantine_schema(job.window_started), guests).await
}

/// The same for any schema of ours.
pub(crate) async fn make_closed(
    transaction: &Transaction<'_>,
    schema: &str,
    guests: &[String],
) -> Result<Vec<String>, Failure> {
    let quoted = quote_identifier(schema);
    let doing = "making a schema that is closed to others";
    let mut done = vec![format!("create schema if not exists {quoted}")];
    transaction.batch_execute(&done.join(";")).await.map_err(during(doing))?;
    let grantees = "select distinct case when a.grantee = 0 then 'public' \
                      else quote_ident(pg_get_userbyid(a.grantee)) end \
                    from pg_namespace n cross join lateral aclexplode(n.nspacl) a \
                    where n.nspname = $1 and a.grantee <> n.nspowner order by 1";
    let rows = transaction.query(grantees, &[&schema]).await.map_err(during(doing))?;
    let mut rights = Vec::new();
    for row in rows {
        let grantee: String = row.try_get(0).map_err(during(doing))?;
        rights.push(format!("revoke all on schema {quoted} from {grantee} cascade"));
    }
    rights.extend(guests.iter().map(|owner| format!("grant usage on schema {quoted} to {}", quote_identifier(owner))));
    transaction.batch_execute(&rights.join(";")).await.map_err(during(doing))?;
    done.extend(rights);
    Ok(done)
}

/// What is moved in each of these transactions, worked out and not run, with what has to be known of it in words. What
/// hangs on the tables goes in the first.
pub(super) async fn foresee(
    transaction: &Transaction<'_>,
    schema: &str,
    scope: &Scope,
    batches: &[Vec<Member>],
) -> Result<Vec<(Vec<order::Job>, Vec<String>)>, Failure> {
    let taken = columns::names_in(transaction, schema).await?;
    let mut moves = Moves { schema: schema.to_owned(), taken, ..Moves::default() };
    let mut foreseen = Vec::new();
    for (at, members) in batches.iter().enumerate() {
        moves.publications(transaction, members).await?;
        for collateral in scope.collateral.iter().filter(|_| at == 0) {
            moves.collateral(collateral);
        }
        let names = moved_relations(transaction, members).await?;
        moves.tables(members, &names);
        foreseen.push((std::mem::take(&mut moves.jobs), std::mem::take(&mut moves.notes)));
    }
    Ok(foreseen)
}
