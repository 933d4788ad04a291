//! What a removal takes: the tables, closed over what must come along, and what hangs on them.
//!
//! It is derived from the live catalog every time, never remembered: after a crash, or after somebody has changed
//! something meanwhile, what is there now counts.

use std::collections::{BTreeMap, BTreeSet};

use rollbackd_core::baseline::{ObjectId, TableName};
use rollbackd_core::plan::{Reach, TableChoice};
use tokio_postgres::{GenericClient, Row};

use super::clusters::{Tie, clusters};
use super::dependent::{self, Collateral, Fate, Known};
use super::{BATCH, Job};
use crate::postgres::{Failure, during};

/// A table that goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    /// The server's number.
    pub(crate) oid: u32,
    /// Its name.
    pub(crate) table: TableName,
    /// Whether it is a foreign table, which holds no rows here.
    pub(crate) foreign: bool,
}

/// What a removal takes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Scope {
    /// The tables, in order of their names.
    pub(crate) members: Vec<Member>,
    /// What goes along.
    pub(super) collateral: BTreeSet<Collateral>,
    /// What is put back to the baseline, and lets go of the tables thereby.
    pub(super) put_back: BTreeSet<ObjectId>,
    /// Whether tables that were asked for are left for a later group.
    pub(super) more: bool,
    /// What stands in the way.
    pub(crate) survivors: BTreeSet<String>,
    /// Foreign keys from the tables to tables that stay.
    pub(super) keys: Vec<Key>,
    /// What ties them to each other.
    pub(super) ties: Vec<Tie>,
}

/// A foreign key to a table that stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Key {
    /// Its table.
    pub(super) member: u32,
}

#[derive(Debug)]
struct Found {
    member: Member,
    /// The tables that it inherits from or is a partition of.
    parents: Vec<u32>,
    /// Sequences that belong to its columns.
    sequences: Vec<u32>,
}

/// Every table that a removal could take, by its number.
#[derive(Debug)]
pub(super) struct Tables(BTreeMap<u32, Found>);

impl Tables {
    /// The tables that are not from before the migration, with the sequences that belong to them.
    pub(super) fn new_relations(&self, job: &Job<'_>) -> Vec<u32> {
        let nothing = BTreeSet::new();
        let known = job.known(&nothing);
        let new = self.0.values().filter(|found| known.objection(found.member.oid, &found.member.table).is_none());
        new.flat_map(|found| std::iter::once(found.member.oid).chain(found.sequences.iter().copied())).collect()
    }
}

/// Derives the scope from the catalog. `reversible` is what can be put back.
pub(crate) async fn derive(
    client: &impl GenericClient,
    job: &Job<'_>,
    reversible: &BTreeSet<ObjectId>,
) -> Result<Scope, Failure> {
    let known = job.known(reversible);
    let Tables(tables) = tables(client).await?;
    let mut scope = Scope::default();
    let mut members = BTreeSet::new();
    let mut joining = chosen(job, known, &tables, &mut scope.survivors);
    if !job.first && joining.len() > BATCH {
        // All of it was looked at before the first group went; under the locks each group is looked at again.
        joining.sort_by_key(|oid| tables.get(oid).map(|found| &found.member.table));
        joining.truncate(BATCH);
        scope.more = true;
    }
    // What stands on an object that is put back may stay.
    let mut staying = BTreeSet::new();
    let mut again = false;
    while (!joining.is_empty() || again) && scope.survivors.is_empty() {
        for oid in joining {
            scope.survivors.extend(objection(oid, known, &tables));
            members.insert(oid);
        }
        scope.collateral.clear();
        scope.put_back.clear();
        joining = Vec::new();
        again = false;
        let mut survivors = BTreeSet::new();
        let oids: Vec<u32> = members.iter().copied().collect();
        let but: Vec<u32> = staying.iter().copied().collect();
        for dependent in dependent::read(client, &oids, &but).await? {
            match dependent.fate(&members, known) {
                Fate::Implied => {}
                Fate::Joins { oid } => joining.push(oid),
                Fate::Goes(collateral) => {
                    scope.collateral.insert(collateral);
                }
                Fate::PutBack(id) => {
                    again |= dependent.number().is_some_and(|number| staying.insert(number));
                    scope.put_back.insert(id);
                }
                Fate::Survives(words) => {
                    survivors.insert(words);
                }
            }
        }
        if !again {
            scope.survivors.extend(survivors);
        }
    }
    let oids: Vec<u32> = members.iter().copied().collect();
    (scope.keys, scope.ties) = ties(client, &oids).await?;
    scope.members = members.iter().filter_map(|oid| tables.get(oid)).map(|found| found.member.clone()).collect();
    scope.members.sort_by(|a, b| a.table.cmp(&b.table));
    Ok(scope)
}

/// The tables that were asked for, where they exist.
fn chosen(
    job: &Job<'_>,
    known: Known<'_>,
    tables: &BTreeMap<u32, Found>,
    survivors: &mut BTreeSet<String>,
) -> Vec<u32> {
    match &job.removal.tables {
        // The rung has put names in its place.
        TableChoice::Implicated => Vec::new(),
        TableChoice::Named(names) => {
            let mut wanted = BTreeSet::new();
            for name in names {
                match TableName::parse(name, &job.config.database.schema) {
                    Ok(table) => {
                        wanted.insert(table);
                    }
                    Err(reason) => {
                        survivors.insert(reason);
                    }
                }
            }
            let oids = tables.iter().filter(|(_, found)| wanted.contains(&found.member.table));
            oids.map(|(oid, _)| *oid).collect()
        }
        TableChoice::Added => tables
            .iter()
            .filter(|(_, found)| {
                let table = &found.member.table;
                // A renamed table gets its name back where everything is put back; elsewhere it stands in the way.
                let renamed = known.baseline.table_by_oid(found.member.oid).is_some();
                let passed_over = renamed && job.removal.reach == Reach::Everything;
                let from_before = known.baseline.catalog.has_table(table) || known.original.contains(table);
                !(passed_over || from_before || known.protected.contains(&table.schema))
            })
            .map(|(oid, _)| *oid)
            .collect(),
    }
}

/// Why this table may not go, if it may not.
fn objection(oid: u32, known: Known<'_>, tables: &BTreeMap<u32, Found>) -> Option<String> {
    let Some(found) = tables.get(&oid) else {
        return Some(format!("a table of an extension (number {oid}) depends on it"));
    };
    let table = &found.member.table;
    known.objection(oid, table).or_else(|| {
        // What is stored in it is seen through its parent.
        let parent = found.parents.iter().filter_map(|parent| tables.get(parent)).find_map(|parent| {
            known.objection(parent.member.oid, &parent.member.table)?;
            Some(&parent.member.table)
        })?;
        Some(format!("table {table} is a part of {parent}, which is in the baseline"))
    })
}

/// Every table that a removal could take.
pub(super) async fn tables(client: &impl GenericClient) -> Result<Tables, Failure> {
    let doing = "reading the tables";
    let sql = "select c.oid, n.nspname::text, c.relname::text, c.relkind = 'f', \
                 array(select i.inhparent from pg_inherits i where i.inhrelid = c.oid), \
                 array(select d.objid from pg_depend d join pg_class q on q.oid = d.objid and q.relkind = 'S' \
                       where d.classid = 'pg_class'::regclass and d.refclassid = 'pg_class'::regclass \
                         and d.refobjid = c.oid and d.refobjsubid > 0 and d.deptype in ('a', 'i')) \
               from pg_class c join pg_namespace n on n.oid = c.relnamespace \
               where c.relkind in ('r', 'p', 'f') and n.nspname !~ '^pg_' and n.nspname <> 'information_schema' \
                 and n.nspname !~ '^rollbackd_([0-9]{8}t[0-9]{6}z|restore)$' \
                 and not exists (select from pg_depend d where d.classid = 'pg_class'::regclass and d.objid = c.oid \
                                   and d.deptype = 'e')";
    let rows = client.query(sql, &[]).await.map_err(during(doing))?;
    rows.iter()
        .map(|row| {
            let oid = row.try_get(0)?;
            let table = TableName { schema: row.try_get(1)?, name: row.try_get(2)? };
            let member = Member { oid, table, foreign: row.try_get(3)? };
            Ok((oid, Found { member, parents: row.try_get(4)?, sequences: row.try_get(5)? }))
        })
        .collect::<Result<_, _>>()
        .map(Tables)
        .map_err(during(doing))
}

/// The foreign keys that lead out of the set, and the pairs that are tied inside it.
async fn ties(client: &impl GenericClient, oids: &[u32]) -> Result<(Vec<Key>, Vec<Tie>), Failure> {
    let doing = "reading foreign keys";
    let sql = "select conrelid, confrelid, false from pg_constraint \
               where contype = 'f' and conrelid = any($1::oid[]) \
               union all \
               select inhrelid, inhparent, true from pg_inherits where inhrelid = any($1::oid[]) \
               order by 1, 2";
    let rows = client.query(sql, &[&oids]).await.map_err(during(doing))?;
    let known: BTreeSet<u32> = oids.iter().copied().collect();
    let (mut keys, mut ties) = (Vec::new(), Vec::new());
    for row in &rows {
        let tie = |row: &Row| Ok(Tie { from: row.try_get(0)?, to: row.try_get(1)?, inherits: row.try_get(2)? });
        let tie = tie(row).map_err(during(doing))?;
        if known.contains(&tie.to) {
            ties.push(tie);
        } else {
            keys.push(Key { member: tie.from });
        }
    }
    Ok((keys, ties))
}

impl Scope {
    /// The tables in groups that can only be dropped together, in an order in which they can be dropped.
    pub(super) fn clusters(&self) -> Vec<Vec<Member>> {
        let members: BTreeMap<u32, &Member> = self.members.iter().map(|member| (member.oid, member)).collect();
        let oids: Vec<u32> = self.members.iter().map(|member| member.oid).collect();
        let member = |oid: &u32| members.get(oid).map(|member| (*member).clone());
        clusters(&oids, &self.ties).iter().map(|cluster| cluster.iter().filter_map(member).collect()).collect()
    }

    /// The first of the clusters, as many as go in one transaction: no more than `limit` tables, unless a cluster is larger.
    pub(super) fn first_clusters(&self, limit: usize) -> Vec<Vec<Member>> {
        let mut tables = 0;
        let mut clusters = self.clusters();
        let fitting = clusters.iter().take_while(|cluster| {
            tables += cluster.len();
            tables <= limit
        });
        let count = fitting.count().max(1);
        clusters.truncate(count);
        clusters
    }

    /// Their tables, in order of their names.
    pub(super) fn first_tables(&self, limit: usize) -> Vec<Member> {
        let mut tables = self.first_clusters(limit).concat();
        tables.sort_by(|a, b| a.table.cmp(&b.table));
        tables
    }
}
