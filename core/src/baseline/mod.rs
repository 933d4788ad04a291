//! The facts recorded before the migration, and their difference to now.
//!
//! The shell reads a [`Catalog`] from the server; the comparison is made here. Objects that belong to a table
//! which is itself new or gone (its columns, indexes, constraints…) are not listed one by one: they come and
//! go with it.

mod class;
mod difference;
mod name;
mod object;
mod print;
mod restored;
#[cfg(test)]
mod tests;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use self::class::Class;
pub use self::difference::{Change, Difference, Rename};
pub use self::name::{TableName, quote_identifier, take_quoted};
pub use self::object::{Object, ObjectId, ObjectKind};
pub use self::print::{HashedBy, KeySample, PrintColumn, TablePrint};
pub use self::restored::Restored;

/// What the server's catalog held at one moment, in every schema that is not the system's.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Catalog {
    /// Every object, in order of its id.
    pub objects: Vec<Object>,
}

/// How many rows a table held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowCount {
    /// The table.
    pub table: TableName,
    /// Its rows.
    pub rows: u64,
}

/// The facts from before the migration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Baseline {
    /// What is in the catalog: [`Baseline::FORMAT`] when it was taken by this version.
    #[serde(default)]
    pub format: u32,
    /// The instant of the snapshot.
    pub at: Timestamp,
    /// The server's version, as it says.
    pub server_version: String,
    /// The catalog under the snapshot.
    pub catalog: Catalog,
    /// The rows of every original table under the snapshot.
    pub counts: Vec<RowCount>,
    /// Every table's own number in the server, which it keeps when it is renamed or moved: an original under another
    /// name is not a new table.
    #[serde(default)]
    pub identities: Vec<TableIdentity>,
    /// Number and fingerprint of the rows of every original table; none in a baseline of an earlier version.
    #[serde(default)]
    pub prints: Vec<TablePrint>,
}

/// A table and the number that the server knows it by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableIdentity {
    /// The server's number (`pg_class.oid`).
    pub oid: u32,
    /// Its name when the baseline was taken.
    pub table: TableName,
}

impl Baseline {
    /// Raised whenever the catalog holds more than before. An older baseline cannot be compared with: all that it did
    /// not know of would look as if the migration had added it.
    pub const FORMAT: u32 = 2;

    /// Why this baseline cannot be compared with, if it cannot.
    pub fn is_too_old(&self) -> Option<String> {
        (self.format != Self::FORMAT).then(|| {
            "the baseline was taken by another version of rollbackd, which recorded other facts: it cannot be compared \
             with, and nothing is changed on its strength"
                .to_owned()
        })
    }

    /// The baseline's name of the table with this number.
    pub fn table_by_oid(&self, oid: u32) -> Option<&TableName> {
        self.identities.iter().find(|identity| identity.oid == oid).map(|identity| &identity.table)
    }
}

impl Catalog {
    /// The catalog as it is kept: what takes an object away is wanted of what is there now.
    #[must_use]
    pub fn for_keeping(mut self) -> Self {
        self.objects.iter_mut().for_each(|object| object.unmake = None);
        self
    }

    /// Whether the catalog holds this object.
    pub fn contains(&self, id: &ObjectId) -> bool {
        self.get(id).is_some()
    }

    /// The object with this id.
    pub fn get(&self, id: &ObjectId) -> Option<&Object> {
        let at = self.objects.binary_search_by(|object| object.id.cmp(id)).ok()?;
        self.objects.get(at)
    }

    /// Whether the catalog holds a table of this name.
    pub fn has_table(&self, table: &TableName) -> bool {
        [ObjectKind::Table, ObjectKind::ForeignTable].into_iter().any(|kind| {
            let known = |object: &Object| {
                let id = &object.id;
                (id.kind, id.schema.as_str(), id.of.as_deref(), id.name.as_str()).cmp(&(
                    kind,
                    table.schema.as_str(),
                    None,
                    table.name.as_str(),
                ))
            };
            self.objects.binary_search_by(known).is_ok()
        })
    }

    /// Every table.
    pub fn tables(&self) -> impl Iterator<Item = TableName> {
        self.objects.iter().filter_map(|object| object.id.as_table())
    }

    /// The columns of a table with their definitions.
    pub fn columns<'a>(&'a self, table: &'a TableName) -> impl Iterator<Item = &'a Object> {
        self.objects.iter().filter(move |object| {
            object.id.kind == ObjectKind::Column
                && object.id.schema == table.schema
                && object.id.of.as_deref() == Some(table.name.as_str())
        })
    }
}
