//! Moves tables into a schema that nobody else may use.
//!
//! Moving keeps everything: rows, indexes, sequences, foreign keys. Foreign keys to tables that stay go on working,
//! which needs the right to the schema for the table's owner, because the server checks them in the owner's name.

use std::collections::BTreeSet;
use std::time::Duration;

use rollbackd_core::baseline::{TableName, counted, quote_identifier};
use rollbackd_core::run::step::RemovedTable;
use rollbackd_core::window::quarantine_schema;
use tokio_postgres::{Client, GenericClient, Transaction};

use super::dependent::{Collateral, Whole};
use super::scope::{Member, Scope};
use super::{Attempt, BATCH, Batch, Job, commit, execute, guarded, lock_scope, set_limits};
use crate::postgres::{Failure, count, during};

/// The longest name that the server takes, in bytes.
const LONGEST_NAME: usize = 63;

/// One attempt.
pub(crate) async fn attempt(client: &mut Client, job: &Job<'_>, remaining: Duration) -> Result<Attempt, Failure> {
    let transaction = client.transaction().await.map_err(during("beginning a transaction"))?;
    set_limits(&transaction, job, remaining).await?;
    let picked = lock_scope(&transaction, job, |scope| scope.members.iter().take(BATCH).cloned().collect()).await?;
    let (scope, members) = match picked {
        Ok(picked) => picked,
        Err(end) => return Ok(end),
    };
    let schema = quarantine_schema(job.window_started);
    let mut moves = Moves { schema: schema.clone(), taken: taken(&transaction, &schema).await?, ..Moves::default() };
    for collateral in &scope.collateral {
        moves.collateral(collateral);
    }
    let names = moved_relations(&transaction, &members).await?;
    let places = moves.tables(&members, &names);
    let guests = owners(&transaction, &scope, &members).await?;
    let harm = guarded(&transaction, job, async |transaction| {
        open_schema(transaction, &schema, &guests, &mut moves.before).await?;
        for sql in &moves.sql {
            execute(transaction, sql).await?;
        }
        Ok(())
    })
    .await?;
    if !harm.is_empty() {
        return Ok(Attempt::Stopped(harm));
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
    let sql = moves.before.into_iter().chain(moves.sql).collect();
    Ok(Attempt::Done(Batch { tables, collateral: moves.notes, sql, quarantine: Some(schema), archive: None }))
}

/// The statements that move, and the names that are taken where they move to.
#[derive(Debug, Default)]
struct Moves {
    schema: String,
    taken: BTreeSet<String>,
    before: Vec<String>,
    sql: Vec<String>,
    notes: Vec<String>,
}

/// A relation that moves with a table: an index, a sequence, or the table itself.
struct Relation {
    member: u32,
    keyword: &'static str,
    name: TableName,
}

impl Moves {
    /// Moves what stands by itself, and drops what is a part of a table that stays.
    fn collateral(&mut self, collateral: &Collateral) {
        self.notes.push(collateral.words.clone());
        match &collateral.whole {
            None => self.sql.push(collateral.drop.clone()),
            Some(Whole { keyword, sql, relation }) => {
                let sql = match relation {
                    Some(relation) => self.free(keyword, relation).sql(),
                    None => sql.clone(),
                };
                self.sql.push(format!("alter {keyword} {sql} set schema {}", quote_identifier(&self.schema)));
            }
        }
    }

    /// Moves tables; gives back the names that they have then.
    fn tables(&mut self, members: &[Member], relations: &[Relation]) -> Vec<TableName> {
        let mut places = Vec::new();
        for member in members {
            for part in relations.iter().filter(|relation| relation.member == member.oid) {
                self.free(part.keyword, &part.name);
            }
            let keyword = if member.foreign { "foreign table" } else { "table" };
            let table = self.free(keyword, &member.table);
            self.sql.push(format!("alter {keyword} {} set schema {}", table.sql(), quote_identifier(&self.schema)));
            places.push(TableName::new(&self.schema, table.name));
        }
        places
    }

    /// Renames a relation whose name is taken in the quarantine; gives back its name, still in its old schema.
    fn free(&mut self, keyword: &str, relation: &TableName) -> TableName {
        let mut name = relation.name.clone();
        let mut number = 1_u32;
        while !self.taken.insert(name.clone()) {
            number += 1;
            name = suffixed(&relation.name, number);
        }
        if name != relation.name {
            self.sql.push(format!("alter {keyword} {} rename to {}", relation.sql(), quote_identifier(&name)));
            self.notes.push(format!("{keyword} {relation} is called {name} in the quarantine"));
        }
        TableName::new(&relation.schema, name)
    }
}

/// The name with a number, cut so that the server takes it whole.
fn suffixed(name: &str, number: u32) -> String {
    let suffix = format!("_rollbackd_{number}");
    let room = (LONGEST_NAME - suffix.len()).min(name.len());
    let end = (0..=room).rev().find(|at| name.is_char_boundary(*at)).unwrap_or(0);
    format!("{}{suffix}", name.get(..end).unwrap_or_default())
}

/// The names in use in the quarantine, from an earlier rung of the same window.
async fn taken(client: &impl GenericClient, schema: &str) -> Result<BTreeSet<String>, Failure> {
    let doing = "reading the quarantine";
    let sql =
        "select c.relname::text from pg_class c join pg_namespace n on n.oid = c.relnamespace where n.nspname = $1";
    let rows = client.query(sql, &[&schema]).await.map_err(during(doing))?;
    rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>().map_err(during(doing))
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
async fn owners(client: &impl GenericClient, scope: &Scope, members: &[Member]) -> Result<Vec<String>, Failure> {
    let doing = "reading the tables' owners";
    let oids: Vec<u32> = members.iter().map(|member| member.oid).collect();
    let keyed: Vec<u32> = scope.keys.iter().map(|key| key.member).filter(|member| oids.contains(member)).collect();
    let sql = "select distinct pg_get_userbyid(relowner)::text from pg_class where oid = any($1::oid[]) order by 1";
    let rows = client.query(sql, &[&keyed]).await.map_err(during(doing))?;
    rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>().map_err(during(doing))
}

/// Makes the schema, takes every right to it from everybody but its owner, whatever default privileges had given, and
/// lets the tables' owners in as far as foreign keys need it.
async fn open_schema(
    transaction: &Transaction<'_>,
    schema: &str,
    guests: &[String],
    done: &mut Vec<String>,
) -> Result<(), Failure> {
    let quoted = quote_identifier(schema);
    done.push(format!("create schema if not exists {quoted}"));
    for sql in &*done {
        execute(transaction, sql).await?;
    }
    let doing = "reading the quarantine's rights";
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
    for sql in &rights {
        execute(transaction, sql).await?;
    }
    done.extend(rights);
    Ok(())
}
