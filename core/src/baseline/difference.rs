//! What differs between two catalogs.

use crate::words::counted;
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{Catalog, Object, ObjectId, ObjectKind, TableName};

/// An object whose definition is not the baseline's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Which.
    #[serde(flatten)]
    pub id: ObjectId,
    /// As the baseline has it.
    pub before: String,
    /// As it is now.
    pub after: String,
}

/// What differs between the baseline and now, outside protected schemas.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Difference {
    /// Not in the baseline.
    pub added: Vec<ObjectId>,
    /// In the baseline, gone now.
    pub removed: Vec<ObjectId>,
    /// In both, defined differently.
    pub changed: Vec<Change>,
    /// In both, under different names.
    #[serde(default)]
    pub renamed: Vec<Rename>,
    /// Tables of the baseline that were dropped and made anew under the same name: their rows are gone.
    #[serde(default)]
    pub replaced: Vec<TableName>,
}

/// An object that has another name, or is in another schema.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rename {
    /// Its name in the baseline.
    pub from: ObjectId,
    /// Its name now.
    pub to: ObjectId,
}

impl Catalog {
    /// What differs in `now`, leaving out everything in the protected schemas.
    pub fn difference(&self, now: &Self, protected: &[String]) -> Difference {
        let visible = |object: &&Object| !protected.contains(&object.id.schema);
        let before: BTreeMap<&ObjectId, &Object> =
            self.objects.iter().filter(visible).map(|object| (&object.id, object)).collect();
        let after: BTreeMap<&ObjectId, &Object> =
            now.objects.iter().filter(visible).map(|object| (&object.id, object)).collect();
        let mut added = only_in(&after, &before);
        let mut removed = only_in(&before, &after);
        let renamed = renames(&before, &after);
        added.retain(|id| renamed.iter().all(|rename| rename.to != *id));
        removed.retain(|id| renamed.iter().all(|rename| rename.from != *id));
        let mut changed = Vec::new();
        let mut replaced = Vec::new();
        for (id, old) in &before {
            let Some(new) = after.get(id) else { continue };
            if old.definition != new.definition && !is_tolerable(old, new) {
                let (before, after) = (old.definition.clone(), new.definition.clone());
                changed.push(Change { id: (*id).clone(), before, after });
            }
            let anew = old.oid != 0 && new.oid != 0 && old.oid != new.oid;
            replaced.extend(id.as_table().filter(|_| anew && renamed.iter().all(|rename| rename.from != **id)));
        }
        Difference { added, removed, changed, renamed, replaced }
    }
}

/// Objects that the server knows by the same number under another name. What changed its name with its table is not
/// listed.
fn renames(before: &BTreeMap<&ObjectId, &Object>, after: &BTreeMap<&ObjectId, &Object>) -> Vec<Rename> {
    let key = |object: &Object| (object.id.kind, object.oid, object.place);
    let now: BTreeMap<_, &ObjectId> =
        after.values().filter(|object| object.oid != 0).map(|object| (key(object), &object.id)).collect();
    let moved = before.values().filter_map(|old| {
        let to = now.get(&key(old)).filter(|to| ***to != old.id)?;
        // A part of something that moved is found under the new name once that is put back.
        let at_home = old.id.of.is_none() || (&old.id.schema, &old.id.of) == (&to.schema, &to.of);
        at_home.then(|| Rename { from: old.id.clone(), to: (*to).clone() })
    });
    moved.collect()
}

/// An enum that has more values than before does nobody harm, and the server cannot take a value away.
fn is_tolerable(old: &Object, new: &Object) -> bool {
    let values = |object: &Object| -> Option<Vec<String>> {
        let list = object.definition.strip_prefix("enum ").filter(|_| object.id.kind == ObjectKind::Type)?;
        Some(list.split(", ").map(str::to_owned).collect())
    };
    let (Some(old), Some(new)) = (values(old), values(new)) else { return false };
    let mut left = new.iter();
    old.iter().all(|value| left.any(|other| other == value))
}

/// The ids of `a` that `b` lacks, without the parts of what is itself listed: they come and go with it.
fn only_in(a: &BTreeMap<&ObjectId, &Object>, b: &BTreeMap<&ObjectId, &Object>) -> Vec<ObjectId> {
    let missing: Vec<&ObjectId> = a.keys().filter(|id| !b.contains_key(*id)).copied().collect();
    let whole: BTreeSet<(&str, &str)> =
        missing.iter().filter(|id| id.of.is_none()).map(|id| (id.schema.as_str(), id.name.as_str())).collect();
    let columns: BTreeSet<(&str, Option<&str>, &str)> = missing
        .iter()
        .filter(|id| id.kind == ObjectKind::Column)
        .map(|id| (id.schema.as_str(), id.of.as_deref(), id.name.as_str()))
        .collect();
    let alone = |id: &&ObjectId| {
        id.of.as_deref().is_none_or(|table| !whole.contains(&(id.schema.as_str(), table)))
            && (!matches!(id.kind, ObjectKind::Default | ObjectKind::NotNull)
                || !columns.contains(&(id.schema.as_str(), id.of.as_deref(), id.name.as_str())))
    };
    missing.into_iter().filter(alone).cloned().collect()
}

impl Difference {
    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.changed.is_empty() && self.renamed.is_empty()
    }

    /// The tables that were added.
    pub fn added_tables(&self) -> Vec<TableName> {
        self.added.iter().filter_map(ObjectId::as_table).collect()
    }

    /// One line for people: `14 tables added, 1 view changed`.
    pub fn summary(&self) -> String {
        let mut parts = Vec::new();
        for (ids, verb) in [
            (self.added.iter().collect::<Vec<_>>(), "added"),
            (self.removed.iter().collect(), "removed"),
            (self.changed.iter().map(|change| &change.id).collect(), "changed"),
            (self.renamed.iter().map(|rename| &rename.from).collect(), "renamed"),
        ] {
            let mut kinds: BTreeMap<ObjectKind, usize> = BTreeMap::new();
            for id in ids {
                *kinds.entry(id.kind).or_default() += 1;
            }
            for (kind, count) in kinds {
                parts.push(format!("{} {verb}", counted(count, kind.words())));
            }
        }
        if parts.is_empty() { "nothing differs from the baseline".to_owned() } else { parts.join(", ") }
    }
}
