//! What the quarantine keeps, and how it gets back to its place.

use std::collections::{BTreeMap, BTreeSet};

use rollbackd_core::baseline::{ObjectId, ObjectKind, TableName, quote_identifier};
use tokio_postgres::{Row, Transaction};

use crate::postgres::removal::order;
use crate::postgres::removal::undo::Record;
use crate::postgres::{Failure, during};

/// The moves back: first the relations, then the names of what moved with them.
pub(super) fn moves_back(record: &Record) -> Vec<order::Job> {
    let (whole, parts): (Vec<_>, Vec<_>) = record.moved.iter().rev().partition(|moved| moved.by_itself);
    let renaming = |keyword: &str, from: &TableName, name: &str| {
        let now = TableName::new(&from.schema, name);
        (from.name != name).then(|| format!("alter {keyword} {} rename to {}", now.sql(), quote_identifier(&from.name)))
    };
    let whole = whole.into_iter().map(|moved| {
        let schema = quote_identifier(&moved.from.schema);
        let mut sql = vec![format!("alter {} {} set schema {schema}", moved.keyword, moved.to.sql())];
        sql.extend(renaming(&moved.keyword, &moved.from, &moved.to.name));
        order::Job::moving(sql)
    });
    let parts = parts.into_iter().filter_map(|moved| renaming(&moved.keyword, &moved.from, &moved.to.name));
    whole.chain(parts.map(|sql| order::Job::moving(vec![sql]))).collect()
}

/// Something that was kept in the quarantine and is no table.
pub(super) struct Copy {
    /// The object that it was.
    pub(super) id: ObjectId,
    /// The statement's word.
    pub(super) keyword: String,
    /// Its name in the quarantine, as SQL.
    pub(super) sql: String,
    /// The same, bare.
    pub(super) name: String,
    /// Whether its name is one of a relation's.
    pub(super) is_relation: bool,
}

/// The functions, types, views and sequences of the quarantine that are objects of this record: known by their numbers,
/// or, where the quarantine itself was restored, by their names.
pub(super) async fn kept_copies(
    transaction: &Transaction<'_>,
    schema: &str,
    record: &Record,
) -> Result<Vec<Copy>, Failure> {
    let doing = "reading what the quarantine keeps";
    let sql = "select x.oid, x.keyword, x.sql, x.name from ( \
                 select p.oid, 'routine' as keyword, p.oid::regprocedure::text as sql, \
                   format('%s(%s)', p.proname, oidvectortypes(p.proargtypes)) as name, p.pronamespace as space \
                 from pg_proc p \
                 union all \
                 select t.oid, case t.typtype when 'd' then 'domain' else 'type' end, format('%I.%I', $1::text, t.typname), \
                   t.typname::text, t.typnamespace \
                 from pg_type t left join pg_class c on c.oid = t.typrelid \
                 where t.typtype in ('e', 'd', 'r') or t.typtype = 'c' and c.relkind = 'c' \
                 union all \
                 select c.oid, case c.relkind when 'v' then 'view' when 'm' then 'materialized view' else 'sequence' end, \
                   format('%I.%I', $1::text, c.relname), c.relname::text, c.relnamespace \
                 from pg_class c where c.relkind in ('v', 'm') or c.relkind = 'S' and not exists ( \
                   select from pg_depend d where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype in ('a', 'i'))) x \
               join pg_namespace n on n.oid = x.space where n.nspname = $1";
    let rows = transaction.query(sql, &[&schema]).await.map_err(during(doing))?;
    let kind = |keyword: &str| match keyword {
        "routine" => ObjectKind::Function,
        "view" => ObjectKind::View,
        "materialized view" => ObjectKind::MaterializedView,
        "sequence" => ObjectKind::Sequence,
        _ => ObjectKind::Type,
    };
    let mut numbers: BTreeMap<(ObjectKind, u32), &ObjectId> = BTreeMap::new();
    let mut names: BTreeMap<(ObjectKind, &str), &ObjectId> = BTreeMap::new();
    for object in record.objects.iter().filter(|object| object.id.of.is_none()) {
        numbers.insert((object.id.kind, object.oid), &object.id);
        names.insert((object.id.kind, object.id.name.as_str()), &object.id);
    }
    let instead: BTreeSet<&ObjectId> = record.instead.iter().map(|object| &object.id).collect();
    let copy = |row: &Row| -> Result<Option<Copy>, tokio_postgres::Error> {
        let (oid, keyword): (u32, String) = (row.try_get(0)?, row.try_get(1)?);
        let (sql, name): (String, String) = (row.try_get(2)?, row.try_get(3)?);
        let kind = kind(&keyword);
        let known = numbers.get(&(kind, oid)).or_else(|| names.get(&(kind, name.as_str())));
        let Some(id) = known.filter(|id| !instead.contains(**id)) else { return Ok(None) };
        let is_relation = !matches!(kind, ObjectKind::Function | ObjectKind::Type);
        Ok(Some(Copy { id: (*id).clone(), keyword, sql, name, is_relation }))
    };
    rows.iter().filter_map(|row| copy(row).transpose()).collect::<Result<_, _>>().map_err(during(doing))
}
