//! The difference to the baseline as one list.

use rollbackd_core::baseline::{Difference, ObjectId, ObjectKind};
use serde::Serialize;

/// An object that is not as the baseline has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct ObjectDifference {
    /// What happened to it.
    pub(crate) how: How,
    /// Which: as it is called in the baseline when it is in it.
    #[serde(flatten)]
    pub(crate) id: ObjectId,
    /// In words.
    pub(crate) words: String,
    /// As the baseline has it, or its name there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) before: Option<String>,
    /// As it is now, or its name now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) after: Option<String>,
}

/// What happened to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum How {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// It is defined differently.
    Changed,
    /// It has another name, or another schema.
    Renamed,
    /// It was dropped and made anew.
    Replaced,
}

impl How {
    /// The word.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Removed => "removed",
            Self::Changed => "changed",
            Self::Renamed => "renamed",
            Self::Replaced => "made anew",
        }
    }
}

/// All of it.
pub(super) fn of(difference: &Difference) -> Vec<ObjectDifference> {
    let one =
        |how, id: &ObjectId| ObjectDifference { how, id: id.clone(), words: id.to_string(), before: None, after: None };
    let added = difference.added.iter().map(|id| one(How::Added, id));
    let removed = difference.removed.iter().map(|id| one(How::Removed, id));
    let changed = difference.changed.iter().map(|change| {
        let (before, after) = (Some(change.before.clone()), Some(change.after.clone()));
        ObjectDifference { before, after, ..one(How::Changed, &change.id) }
    });
    let renamed = difference.renamed.iter().map(|rename| {
        let (before, after) = (Some(rename.from.to_string()), Some(rename.to.to_string()));
        ObjectDifference { before, after, ..one(How::Renamed, &rename.from) }
    });
    let replaced = difference.replaced.iter().map(|table| {
        let id = ObjectId { kind: ObjectKind::Table, schema: table.schema.clone(), of: None, name: table.name.clone() };
        one(How::Replaced, &id)
    });
    added.chain(removed).chain(changed).chain(renamed).chain(replaced).collect()
}
