//! Tables that a restore of our own has put in the place of the baseline's.

use std::collections::BTreeMap;

use super::{Baseline, Object, ObjectKind};

/// A table that was brought back: it has another number than the baseline's, and is the same table all the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// The number that the baseline has for it.
    pub was: u32,
    /// The number that it has now.
    pub number: u32,
    /// Its columns and their places when it was brought back.
    pub columns: BTreeMap<String, i16>,
}

impl Baseline {
    /// The baseline with the numbers of the tables that were brought back since, oldest first: what is compared with it
    /// then is not taken for something that the migration made. A table that somebody else makes under such a name has
    /// another number, and is seen.
    #[must_use]
    pub fn with_restored(&self, restored: &[Restored]) -> Self {
        let last: BTreeMap<u32, &Restored> = restored.iter().map(|one| (one.was, one)).collect();
        let mut known = self.clone();
        for identity in &mut known.identities {
            if let Some(one) = last.get(&identity.oid) {
                identity.oid = one.number;
            }
        }
        for object in &mut known.catalog.objects {
            if let Some(one) = last.get(&object.oid) {
                renumber(object, one);
            }
        }
        known
    }
}

/// Numbers of objects that are no tables may be the same by chance.
fn renumber(object: &mut Object, restored: &Restored) {
    match object.id.kind {
        ObjectKind::Table | ObjectKind::ForeignTable => object.oid = restored.number,
        // What is known by no place has no number, or another column in it would be taken for it.
        ObjectKind::Column => match restored.columns.get(&object.id.name) {
            Some(place) => (object.oid, object.place) = (restored.number, *place),
            None => object.oid = 0,
        },
        ObjectKind::View
        | ObjectKind::MaterializedView
        | ObjectKind::Sequence
        | ObjectKind::Constraint
        | ObjectKind::Index
        | ObjectKind::Trigger
        | ObjectKind::Policy
        | ObjectKind::Function
        | ObjectKind::Type
        | ObjectKind::Schema
        | ObjectKind::Extension
        | ObjectKind::Default
        | ObjectKind::NotNull
        | ObjectKind::RowSecurity
        | ObjectKind::Rule
        | ObjectKind::Statistics
        | ObjectKind::Grant
        | ObjectKind::DefaultGrant
        | ObjectKind::Owner
        | ObjectKind::Comment
        | ObjectKind::Publication
        | ObjectKind::PublicationTable
        | ObjectKind::EventTrigger => {}
    }
}
