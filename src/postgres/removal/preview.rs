//! What a removal would do now: the same derivation as its attempts, without locks, with nothing run.
//!
//! The statements come in the order of an attempt. Only the server knows all of what depends on what, and an attempt puts
//! off what is refused; here what can be known beforehand is put in its place: what was made last goes first.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use rollbackd_core::baseline::{Catalog, ObjectId, ObjectKind, TableName, quote_identifier};
use rollbackd_core::plan::Dispose;
use rollbackd_core::reversal::{Act, Deed};
use tokio_postgres::Transaction;

use super::backward::Backward;
use super::dependent::Collateral;
use super::scope::Member;
use super::{Attempt, BATCH, Job, Seen, columns, discard, look, order, quarantine};
use crate::postgres::{Failure, during};

/// What one removal would do.
#[derive(Debug, Default)]
pub(crate) struct Foreseen {
    /// The tables that go.
    pub(crate) tables: Vec<TableName>,
    /// Their numbers.
    pub(crate) relations: Vec<u32>,
    /// What goes along, in words.
    pub(crate) goes: Vec<String>,
    /// What is put back or made again, in words.
    pub(crate) put_back: Vec<String>,
    /// Whose values are kept, in words.
    pub(crate) kept: Vec<String>,
    /// What stays and does no harm, in words.
    pub(crate) stays: Vec<String>,
    /// What has to be known besides, in words.
    pub(crate) notes: Vec<String>,
    /// Why it would stop before anything was changed.
    pub(crate) stops: Vec<String>,
    /// The statements of each transaction.
    pub(crate) transactions: Vec<Vec<String>>,
    /// Foreign keys of the tables to tables that stay.
    pub(crate) keys: Vec<LiveKey>,
}

/// A foreign key that leads out of the quarantine.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub(crate) struct LiveKey {
    /// Its name.
    pub(crate) name: String,
    /// The table that goes.
    pub(crate) table: String,
    /// The table that stays.
    pub(crate) parent: String,
    /// What deleting a row of the parent does: `no action`, `restrict`, `cascade`, `set null`, `set default`.
    pub(crate) on_delete: String,
}

impl Foreseen {
    /// Whether there is something to do, and nothing in the way.
    pub(crate) const fn acts(&self) -> bool {
        self.stops.is_empty() && !self.transactions.is_empty()
    }
}

/// Foresees a removal whose tables, if any, are moved to `schema` or whose columns are kept there.
pub(crate) async fn foresee(transaction: &Transaction<'_>, job: &Job<'_>, schema: &str) -> Result<Foreseen, Failure> {
    let mut seen = match look(transaction, job).await? {
        Ok(seen) => seen,
        Err(Attempt::Stopped(stops)) => return Ok(Foreseen { stops, ..Foreseen::default() }),
        Err(Attempt::Again(reason)) => return Ok(Foreseen { stops: vec![reason], ..Foreseen::default() }),
        Err(Attempt::Left(stays)) => return Ok(Foreseen { stays, ..Foreseen::default() }),
        Err(Attempt::Nothing | Attempt::Done(_)) => return Ok(Foreseen::default()),
    };
    if !seen.way.columns.is_empty() {
        // What is only a definition may hold on to columns that go: it is dropped with its like and not moved with tables.
        seen.scope.collateral.retain(|one| !one.is_definition());
    }
    let members = &seen.scope.members;
    if members.is_empty() && seen.way.acts.is_empty() && seen.way.columns.is_empty() {
        return Ok(Foreseen { stays: seen.way.left, ..Foreseen::default() });
    }
    let mut found = Foreseen {
        tables: members.iter().map(|member| member.table.clone()).collect(),
        relations: members.iter().map(|member| member.oid).collect(),
        goes: seen.scope.collateral.iter().map(|collateral| collateral.words.clone()).collect(),
        stays: seen.way.left.clone(),
        stops: seen.way.obstacles.clone(),
        keys: keys(transaction, members).await?,
        ..Foreseen::default()
    };
    let gone: BTreeSet<&ObjectId> = seen.scope.collateral.iter().filter_map(|one| one.id.as_ref()).collect();
    for act in seen.way.acts.iter().filter(|act| !gone.contains(&act.id)) {
        match act.deed {
            Deed::Remove => found.goes.push(act.id.to_string()),
            Deed::Rename | Deed::PutBack | Deed::Make => found.put_back.push(act.words()),
        }
    }
    if seen.way.acts.iter().any(|act| act.deed == Deed::Rename) {
        let note = "names come first: what else differs is compared again under the old names, and put back then";
        found.notes.push(note.to_owned());
    }
    let course = Course { job, seen: &seen, schema };
    course.statements(transaction, &mut found).await?;
    Ok(found)
}

struct Course<'a> {
    job: &'a Job<'a>,
    seen: &'a Seen,
    schema: &'a str,
}

impl Course<'_> {
    async fn statements(&self, transaction: &Transaction<'_>, found: &mut Foreseen) -> Result<(), Failure> {
        let (seen, schema) = (self.seen, self.schema);
        let drops = matches!(self.job.removal.dispose, Dispose::Drop { .. });
        let batches = self.batches(drops);
        let kept = columns::plan(transaction, &seen.way.columns, &seen.before, schema, drops).await?;
        found.kept.extend(kept.iter().map(|keeping| keeping.job.words.clone()));
        let kept: Vec<String> = kept.into_iter().flat_map(|keeping| keeping.job.sql).collect();
        let (before, after, making) = self.ways();
        let foreseen = if drops {
            Vec::new()
        } else {
            quarantine::foresee(transaction, schema, &seen.scope, &batches.concat()).await?
        };
        let mut opening = vec![format!("create schema if not exists {}", quote_identifier(schema))];
        opening.extend(closed(transaction, schema).await?);
        let guests =
            if drops { Vec::new() } else { quarantine::owners(transaction, &seen.scope, &seen.scope.members).await? };
        opening.extend(
            guests.iter().map(|owner| {
                format!("grant usage on schema {} to {}", quote_identifier(schema), quote_identifier(owner))
            }),
        );
        let mut foreseen = foreseen.into_iter();
        for (at, clusters) in batches.iter().enumerate() {
            let first = at == 0;
            let mut sql = if first && (!drops || !kept.is_empty()) { opening.clone() } else { Vec::new() };
            let way = |part: &[String]| if first { part.to_vec() } else { Vec::new() };
            if drops {
                let collateral = self.collateral().into_iter().filter(|_| first);
                let dropped: Vec<String> = clusters.iter().flat_map(|cluster| discard::dropping(cluster)).collect();
                sql.extend(collateral);
                sql.extend([way(&before), way(&kept), dropped, way(&after), way(&making)].concat());
            } else {
                let (jobs, notes) = foreseen.next().unwrap_or_default();
                sql.extend(jobs.into_iter().flat_map(|job| job.sql));
                sql.extend([way(&before), way(&after), way(&kept), way(&making)].concat());
                found.notes.extend(notes.into_iter().filter(|note| !found.goes.contains(note)));
            }
            found.transactions.push(sql);
        }
        Ok(())
    }

    /// The clusters of tables of each transaction; one transaction without tables when there is only something to put back.
    fn batches(&self, drops: bool) -> Vec<Vec<Vec<Member>>> {
        if !drops {
            let groups = self.seen.scope.members.chunks(BATCH);
            let batches: Vec<_> = groups.map(|group| vec![group.to_vec()]).collect();
            return if batches.is_empty() { vec![Vec::new()] } else { batches };
        }
        let mut batches: Vec<Vec<Vec<Member>>> = vec![Vec::new()];
        let mut tables = 0;
        for cluster in self.seen.scope.clusters() {
            if tables > 0 && tables + cluster.len() > BATCH {
                batches.push(Vec::new());
                tables = 0;
            }
            tables += cluster.len();
            if let Some(batch) = batches.last_mut() {
                batch.push(cluster);
            }
        }
        batches
    }

    /// The acts as statements: those that come before tables are dropped, those that come after, and what is made.
    fn ways(&self) -> (Vec<String>, Vec<String>, Vec<String>) {
        let seen = self.seen;
        let gone: BTreeSet<&ObjectId> = seen.scope.collateral.iter().filter_map(|one| one.id.as_ref()).collect();
        let backward = Backward {
            target: &self.job.baseline.catalog,
            protected: &self.job.config.database.protected_schemas,
            only: None,
            hidden: &[],
            quarantine: (self.job.removal.dispose == Dispose::Quarantine).then_some(self.schema),
            keeping: self.schema,
        };
        let mut acts: Vec<&Act> = seen.way.acts.iter().filter(|act| !gone.contains(&act.id)).collect();
        acts.retain(|act| act.deed != Deed::Remove || !self.goes_with_its_column(&act.id));
        for same in acts.chunk_by_mut(|a, b| (a.deed, a.id.kind) == (b.deed, b.id.kind)) {
            same.sort_by_key(|act| made(act, &self.job.baseline.catalog, &seen.before));
        }
        let (mut before, mut after, mut making) = (Vec::new(), Vec::new(), Vec::new());
        for act in acts {
            let columns_go = !seen.way.columns.is_empty();
            let job = backward.job(act, columns_go);
            let place = match act.deed {
                Deed::Make => &mut making,
                Deed::Remove if stands_below(act.id.kind) => &mut after,
                Deed::Remove | Deed::Rename | Deed::PutBack => &mut before,
            };
            let needed = columns_go && act.deed == Deed::Remove && act.id.kind == ObjectKind::Function;
            if (act.deed == Deed::PutBack || needed) && !job.otherwise.is_empty() {
                place.push(self.either(&job));
            } else {
                place.extend(job.sql);
            }
        }
        (before, after, making)
    }

    /// A sequence of an added column is dropped with it, and cannot be before.
    fn goes_with_its_column(&self, id: &ObjectId) -> bool {
        let Some(object) = self.seen.before.get(id).filter(|_| id.kind == ObjectKind::Sequence) else { return false };
        let plain = |text: &str| text.replace('"', "");
        self.seen.way.columns.iter().any(|column| {
            let name = format!("{}.{}.{}", column.schema, column.of.as_deref().unwrap_or_default(), column.name);
            object.definition.rsplit_once("; owned by ").is_some_and(|(_, owner)| plain(owner) == plain(&name))
        })
    }

    /// What is done where the server lets it, and what is done otherwise: a definition is made anew with what hangs on it.
    fn either(&self, job: &order::Job) -> String {
        let lost = job.id.iter().flat_map(|id| {
            let parts = self.job.baseline.catalog.objects.iter();
            parts.filter(move |part| part.id.schema == id.schema && part.id.of.as_ref() == Some(&id.name))
        });
        let parts = lost.flat_map(|part| part.making().into_iter().map(str::to_owned));
        let anew: Vec<String> = job.otherwise.iter().cloned().chain(parts).collect();
        let (sql, anew) = (joined(&job.sql), joined(&anew));
        let mut tag = "$either$".to_owned();
        while sql.contains(&tag) || anew.contains(&tag) {
            tag.insert(1, '_');
        }
        format!("do {tag} begin\n{sql}\nexception when others then\n{anew}\nend {tag}")
    }

    /// What drops the things that hang on the tables: parts of other tables first, then what was made last.
    fn collateral(&self) -> Vec<String> {
        let mut collateral: Vec<&Collateral> = self.seen.scope.collateral.iter().collect();
        collateral.sort_by_key(|one| {
            let number = one.id.as_ref().and_then(|id| self.seen.before.get(id)).map_or(0, |object| object.oid);
            (one.locks.is_none(), Reverse(number))
        });
        collateral.into_iter().map(|one| one.drop.clone()).collect()
    }
}

/// Where an act stands among those of its kind: what was made last goes first, and what is made comes as it came.
fn made(act: &Act, target: &Catalog, now: &Catalog) -> (u32, Reverse<u32>) {
    let number = |catalog: &Catalog| catalog.get(&act.id).map_or(0, |object| object.oid);
    match act.deed {
        Deed::Remove => (0, Reverse(number(now))),
        Deed::Make | Deed::PutBack => (number(target), Reverse(0)),
        Deed::Rename => (0, Reverse(0)),
    }
}

/// Whether tables may stand on it.
const fn stands_below(kind: ObjectKind) -> bool {
    matches!(
        kind,
        ObjectKind::Function | ObjectKind::Sequence | ObjectKind::Type | ObjectKind::Extension | ObjectKind::Schema
    )
}

/// Statements, each with its end.
pub(crate) fn joined(statements: &[String]) -> String {
    statements.iter().map(|one| ended(one)).collect::<Vec<_>>().join("\n")
}

/// A statement with its end.
pub(crate) fn ended(statement: &str) -> String {
    format!("{};", statement.trim_end().trim_end_matches(';').trim_end())
}

/// The statements that close a new schema to everybody, whatever default privileges give.
async fn closed(transaction: &Transaction<'_>, schema: &str) -> Result<Vec<String>, Failure> {
    let doing = "reading default privileges";
    let sql = "select distinct case when a.grantee = 0 then 'public' else quote_ident(pg_get_userbyid(a.grantee)) end \
               from pg_default_acl d cross join lateral aclexplode(d.defaclacl) a \
               where d.defaclobjtype = 'n' and d.defaclrole = (select oid from pg_roles where rolname = current_user) \
                 and a.grantee <> d.defaclrole order by 1";
    let rows = transaction.query(sql, &[]).await.map_err(during(doing))?;
    rows.iter()
        .map(|row| {
            let grantee: String = row.try_get(0)?;
            Ok(format!("revoke all on schema {} from {grantee} cascade", quote_identifier(schema)))
        })
        .collect::<Result<_, _>>()
        .map_err(during(doing))
}

async fn keys(transaction: &Transaction<'_>, members: &[Member]) -> Result<Vec<LiveKey>, Failure> {
    let doing = "reading foreign keys";
    let oids: Vec<u32> = members.iter().map(|member| member.oid).collect();
    let sql = "select k.conname::text, cn.nspname || '.' || c.relname, pn.nspname || '.' || p.relname, \
                 case k.confdeltype when 'c' then 'cascade' when 'n' then 'set null' when 'd' then 'set default' \
                   when 'r' then 'restrict' else 'no action' end \
               from pg_constraint k \
               join pg_class c on c.oid = k.conrelid join pg_namespace cn on cn.oid = c.relnamespace \
               join pg_class p on p.oid = k.confrelid join pg_namespace pn on pn.oid = p.relnamespace \
               where k.contype = 'f' and k.conrelid = any($1::oid[]) and not (k.confrelid = any($1::oid[])) \
               order by 2, 1";
    let rows = transaction.query(sql, &[&oids]).await.map_err(during(doing))?;
    rows.iter()
        .map(|row| {
            let (name, table) = (row.try_get(0)?, row.try_get(1)?);
            Ok(LiveKey { name, table, parent: row.try_get(2)?, on_delete: row.try_get(3)? })
        })
        .collect::<Result<_, _>>()
        .map_err(during(doing))
}
