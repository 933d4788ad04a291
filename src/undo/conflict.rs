//! What has taken the place of what is to come back.
//!
//! A removal leaves behind how it left things. Whatever is found otherwise now was done by others since, and is not
//! overwritten.

use std::collections::{BTreeMap, BTreeSet};

use rollbackd_core::baseline::{Catalog, Object, ObjectId, ObjectKind, TableName};
use tokio_postgres::GenericClient;

use crate::postgres::removal::undo::{self, Record};
use crate::postgres::{Failure, catalog, during};

/// What is in the way of any of the records, before the first of them is undone.
pub(super) async fn ahead(client: &impl GenericClient, schema: &str) -> Result<Vec<String>, Failure> {
    let records = undo::read(client, schema).await?;
    if records.is_empty() {
        return Ok(Vec::new());
    }
    let now = catalog::read(client).await?;
    let (mut names, mut objects, mut found) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
    for record in records.iter().rev() {
        // What an older one left was changed by the newer one, which is undone first.
        let mine = Record {
            tables: record.tables.iter().filter(|table| names.insert((*table).clone())).cloned().collect(),
            objects: record.objects.iter().filter(|object| objects.insert(object.id.clone())).cloned().collect(),
            ..record.clone()
        };
        found.extend(of(client, &mine, &now).await?);
        // What was made instead goes when it is undone, and is in nobody's way.
        objects.extend(record.made.iter().map(|object| object.id.clone()));
    }
    Ok(found)
}

/// What is in the way of a record; `now` is the catalog.
pub(super) async fn of(client: &impl GenericClient, record: &Record, now: &Catalog) -> Result<Vec<String>, Failure> {
    let mut found = lost(record);
    let instead: BTreeMap<&ObjectId, &Object> = record.instead.iter().map(|object| (&object.id, object)).collect();
    let made: BTreeSet<TableName> = record.made.iter().filter_map(|object| relation(&object.id)).collect();
    let mut names: BTreeSet<TableName> = record.tables.iter().cloned().collect();
    for object in &record.objects {
        let id = &object.id;
        match (now.get(id), instead.get(id)) {
            (Some(is), Some(was)) if is.definition == was.definition || is.definition == object.definition => {}
            (Some(_), Some(_)) => found.push(format!("{id} was changed since")),
            (Some(is), None) if id.as_table().is_some() && is.oid != object.oid => {
                found.push(format!("there is another {id} now"));
            }
            (Some(is), None) if is.definition == object.definition => {}
            (Some(_), None) => found.push(format!("{id} was made anew since")),
            (None, Some(_)) if id.kind == ObjectKind::Grant => {}
            (None, Some(_)) => found.push(format!("{id} was taken away since")),
            (None, None) => names.extend(relation(id)),
        }
    }
    for name in taken(client, &names).await? {
        if !made.contains(&name) {
            found.push(format!("there is another {name} now"));
        }
    }
    Ok(found)
}

/// What the removal had made again, as far as it has a name that is wanted back; if none has, all of it.
pub(super) fn in_the_way(record: &Record) -> Vec<&ObjectId> {
    let wanted = record.objects.iter().filter_map(|object| relation(&object.id)).chain(record.tables.iter().cloned());
    let wanted: BTreeSet<TableName> = wanted.collect();
    let made = || record.made.iter().map(|object| &object.id);
    let named: Vec<&ObjectId> = made().filter(|id| relation(id).is_some_and(|name| wanted.contains(&name))).collect();
    if named.is_empty() { made().collect() } else { named }
}

/// Tables of which nothing was kept.
fn lost(record: &Record) -> Vec<String> {
    let kept: BTreeSet<&TableName> = record.moved.iter().map(|moved| &moved.from).collect();
    match &record.archive {
        None => {
            let lost = record.tables.iter().filter(|table| !kept.contains(table));
            lost.map(|table| format!("{table} was dropped without an archive, and cannot come back")).collect()
        }
        Some(directory) if !std::path::Path::new(directory).join("tables.dump").is_file() => {
            vec![format!("the archive {directory} is not there")]
        }
        Some(_) => Vec::new(),
    }
}

/// The name that an object has among the relations of its schema.
fn relation(id: &ObjectId) -> Option<TableName> {
    let kinds = [
        ObjectKind::Table,
        ObjectKind::ForeignTable,
        ObjectKind::View,
        ObjectKind::MaterializedView,
        ObjectKind::Sequence,
        ObjectKind::Index,
    ];
    kinds.contains(&id.kind).then(|| TableName::new(&id.schema, &id.name))
}

/// Which of these names relations have.
async fn taken(client: &impl GenericClient, names: &BTreeSet<TableName>) -> Result<Vec<TableName>, Failure> {
    let doing = "looking for names that were taken";
    let (schemas, relations): (Vec<&str>, Vec<&str>) =
        names.iter().map(|name| (name.schema.as_str(), name.name.as_str())).unzip();
    let sql = "select n.nspname::text, c.relname::text from unnest($1::text[], $2::text[]) w (schema, name) \
               join pg_namespace n on n.nspname = w.schema \
               join pg_class c on c.relnamespace = n.oid and c.relname = w.name order by 1, 2";
    let rows = client.query(sql, &[&schemas, &relations]).await.map_err(during(doing))?;
    rows.iter()
        .map(|row| Ok(TableName { schema: row.try_get(0)?, name: row.try_get(1)? }))
        .collect::<Result<_, _>>()
        .map_err(during(doing))
}
