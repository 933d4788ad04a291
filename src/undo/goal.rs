//! What the catalog is to be like when a record is undone, and the names that are given again on the way there.
//!
//! A removal may have given originals their old names back. They are known by the server's numbers, which they kept: what
//! the record holds under one name and made under another is one and the same.

use std::collections::{BTreeMap, BTreeSet};

use rollbackd_core::baseline::{Catalog, Object, ObjectId, ObjectKind, TableName};
use rollbackd_core::reversal::{Deed, Reach, reversal};
use rollbackd_core::run::step::KeptColumns;
use tokio_postgres::Transaction;

use crate::postgres::removal::order;
use crate::postgres::removal::undo::Record;
use crate::postgres::{Failure, catalog};

/// How often names are asked for: those of tables come before those of their parts.
const ROUNDS: u32 = 8;

/// Where kept values belong now.
pub(super) struct Home {
    /// The table.
    pub(super) table: TableName,
    /// The columns of its key, in the order of those that were kept.
    pub(super) keys: Vec<String>,
}

/// The objects that the removal gave other names, by those: the names that they had.
pub(super) fn renamed(record: &Record) -> BTreeMap<&ObjectId, &ObjectId> {
    let key = |object: &Object| (object.id.kind, object.oid, object.place);
    let had: BTreeMap<_, &ObjectId> =
        record.objects.iter().filter(|object| object.oid != 0).map(|object| (key(object), &object.id)).collect();
    record.made.iter().filter_map(|made| had.get(&key(made)).map(|had| (&made.id, *had))).collect()
}

/// The catalog as `before` is now, with everything of the record as it was: `wanted`. What the removal had made stays, but
/// for what only had another name, and for `gone`.
pub(super) fn of(record: &Record, before: &Catalog, wanted: &[Object], gone: &BTreeSet<ObjectId>) -> Catalog {
    let mut without: BTreeSet<&ObjectId> = gone.iter().collect();
    without.extend(renamed(record).into_keys());
    // With its parts.
    let wholes: BTreeSet<(&str, &str)> =
        without.iter().filter(|id| id.of.is_none()).map(|id| (id.schema.as_str(), id.name.as_str())).collect();
    let is_part = |id: &ObjectId| id.of.as_deref().is_some_and(|of| wholes.contains(&(id.schema.as_str(), of)));
    let stays = before.objects.iter().filter(|object| !without.contains(&object.id) && !is_part(&object.id));
    let all = stays.chain(wanted).map(|object| (&object.id, object));
    // What is wanted comes last and counts.
    Catalog { objects: all.collect::<BTreeMap<_, _>>().into_values().cloned().collect() }
}

/// What of the goal is to be reached: the record, and parts of others that are lost on the way with what has to be made anew.
pub(super) fn within(record: &Record, goal: &Catalog) -> BTreeSet<ObjectId> {
    let parts = goal.objects.iter().map(|object| &object.id).filter(|id| id.of.is_some());
    record.objects.iter().map(|object| &object.id).chain(parts).cloned().collect()
}

/// What is back, in words: wholes speak for their parts, and all for their owners and rights.
pub(super) fn told(wanted: &[Object]) -> Vec<String> {
    let ids = || wanted.iter().map(|object| &object.id);
    let wholes: BTreeSet<(&str, &str)> =
        ids().filter(|id| id.of.is_none()).map(|id| (id.schema.as_str(), id.name.as_str())).collect();
    let columns: BTreeSet<(&str, Option<&str>, &str)> = ids()
        .filter(|id| id.kind == ObjectKind::Column)
        .map(|id| (id.schema.as_str(), id.of.as_deref(), id.name.as_str()))
        .collect();
    let of_column = |id: &ObjectId| {
        matches!(id.kind, ObjectKind::Default | ObjectKind::NotNull)
            && columns.contains(&(id.schema.as_str(), id.of.as_deref(), id.name.as_str()))
    };
    let speaks = |id: &&ObjectId| {
        let told_elsewhere = matches!(id.kind, ObjectKind::Owner | ObjectKind::Grant) || of_column(id);
        !told_elsewhere
    };
    let alone = |id: &&ObjectId| id.of.as_deref().is_none_or(|of| !wholes.contains(&(id.schema.as_str(), of)));
    ids().filter(speaks).filter(alone).map(ToString::to_string).collect()
}

/// Gives the names that the removal took away; the inner error is what could not be done. Gives back the catalog then.
pub(super) async fn rename(
    transaction: &Transaction<'_>,
    record: &Record,
    goal: &Catalog,
    hidden: &[u32],
) -> Result<Result<Catalog, Vec<String>>, Failure> {
    let names: BTreeSet<ObjectId> = renamed(record).into_values().cloned().collect();
    for _ in 0..ROUNDS {
        let now = catalog::read_without(transaction, hidden).await?;
        let way = reversal(goal, &now, &[], Reach::Only(&names));
        let renames = way.acts.into_iter().filter(|act| act.deed == Deed::Rename);
        let jobs: Vec<order::Job> = renames.map(|act| order::Job::moving(act.sql)).collect();
        if jobs.is_empty() {
            return Ok(Ok(now));
        }
        let ran = order::run(transaction, jobs).await?;
        if ran.done.is_empty() {
            return Ok(Err(ran.stuck.into_iter().map(|(_, failure)| failure.to_string()).collect()));
        }
    }
    Ok(Err(vec![format!("giving names did not come to an end in {ROUNDS} rounds")]))
}

/// Where the kept values of columns belong, by the names that the table and its key have then.
pub(super) fn home(record: &Record, kept: &KeptColumns) -> Home {
    let renamed = renamed(record);
    let had = |kind: ObjectKind, of: Option<&str>, name: &str| {
        let id = ObjectId { kind, schema: kept.table.schema.clone(), of: of.map(str::to_owned), name: name.to_owned() };
        renamed.get(&id).copied()
    };
    let keys = kept.keys.iter().map(|key| {
        had(ObjectKind::Column, Some(&kept.table.name), key).map_or_else(|| key.clone(), |had| had.name.clone())
    });
    let table = had(ObjectKind::Table, None, &kept.table.name).and_then(ObjectId::as_table);
    Home { keys: keys.collect(), table: table.unwrap_or_else(|| kept.table.clone()) }
}
