//! The facts recorded before the migration, and their difference to now.
//!
//! The shell reads a [`Catalog`] from the server; the comparison is made here. Objects that belong to a table
//! which is itself new or gone (its columns, indexes, constraints…) are not listed one by one: they come and
//! go with it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A table's full name, unquoted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TableName {
    /// The schema.
    pub schema: String,
    /// The name inside the schema.
    pub name: String,
}

impl TableName {
    /// A table in a schema.
    pub fn new(schema: impl Into<String>, name: impl Into<String>) -> Self {
        Self { schema: schema.into(), name: name.into() }
    }

    /// Reads a configured name: `table`, `schema.table`, with either part quoted as in SQL. Unquoted text is
    /// taken as it stands (no case folding), so that what is configured is what the catalog shows.
    ///
    /// # Errors
    /// A sentence that says what is wrong with the text.
    pub fn parse(text: &str, default_schema: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        loop {
            let (part, after) = if let Some(quoted) = rest.strip_prefix('"') {
                take_quoted(quoted).ok_or_else(|| format!("`{text}` has a quote that is not closed"))?
            } else {
                let end = rest.find('.').unwrap_or(rest.len());
                let (part, after) = rest.split_at(end);
                (part.to_owned(), after)
            };
            if part.is_empty() {
                return Err(format!("`{text}` has an empty part; write `table` or `schema.table`"));
            }
            parts.push(part);
            match after.strip_prefix('.') {
                Some(next) => rest = next,
                None if after.is_empty() => break,
                None => return Err(format!("`{text}` goes on after a closing quote; write `\"schema\".\"table\"`")),
            }
        }
        match <[String; 2]>::try_from(parts) {
            Ok([schema, name]) => Ok(Self { schema, name }),
            Err(parts) => match <[String; 1]>::try_from(parts) {
                Ok([name]) => Ok(Self::new(default_schema, name)),
                Err(_) => Err(format!("`{text}` has too many parts; write `table` or `schema.table`")),
            },
        }
    }

    /// The name as SQL, always quoted.
    pub fn sql(&self) -> String {
        format!("{}.{}", quote_identifier(&self.schema), quote_identifier(&self.name))
    }
}

/// The text up to the closing quote (doubled quotes undone), and what follows it.
fn take_quoted(text: &str) -> Option<(String, &str)> {
    let mut part = String::new();
    let mut rest = text;
    loop {
        let (before, after) = rest.split_once('"')?;
        part.push_str(before);
        match after.strip_prefix('"') {
            Some(next) => {
                part.push('"');
                rest = next;
            }
            None => return Some((part, after)),
        }
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.name)
    }
}

/// An identifier as SQL: quoted, inner quotes doubled.
pub fn quote_identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// What an object of the catalog is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ObjectKind {
    /// An ordinary or partitioned table.
    Table,
    /// A foreign table.
    ForeignTable,
    /// A view.
    View,
    /// A materialized view.
    MaterializedView,
    /// A sequence.
    Sequence,
    /// A column, with its type, nullability and default.
    Column,
    /// A constraint.
    Constraint,
    /// An index that no constraint owns.
    Index,
    /// A trigger.
    Trigger,
    /// A row security policy.
    Policy,
    /// A function or procedure.
    Function,
    /// An enum, domain or composite type.
    Type,
}

impl ObjectKind {
    /// The words for people.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Table => "table",
            Self::ForeignTable => "foreign table",
            Self::View => "view",
            Self::MaterializedView => "materialized view",
            Self::Sequence => "sequence",
            Self::Column => "column",
            Self::Constraint => "constraint",
            Self::Index => "index",
            Self::Trigger => "trigger",
            Self::Policy => "policy",
            Self::Function => "function",
            Self::Type => "type",
        }
    }

    /// Whether it stores rows of its own that a removal takes as a table.
    pub const fn is_table(self) -> bool {
        matches!(self, Self::Table | Self::ForeignTable)
    }
}

/// Which object of the catalog.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectId {
    /// What it is.
    pub kind: ObjectKind,
    /// The schema it is in (for a part of a table: the table's).
    pub schema: String,
    /// The table it is a part of (columns, constraints, indexes, triggers, policies).
    pub of: Option<String>,
    /// Its name; for a function with its argument types.
    pub name: String,
}

impl ObjectId {
    /// The object as a table's name, when it is a table.
    pub fn as_table(&self) -> Option<TableName> {
        self.kind.is_table().then(|| TableName::new(&self.schema, &self.name))
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.of {
            Some(table) => write!(f, "{} {} of {}.{table}", self.kind.words(), self.name, self.schema),
            None => write!(f, "{} {}.{}", self.kind.words(), self.schema, self.name),
        }
    }
}

/// One object and what defines it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Object {
    /// Which.
    #[serde(flatten)]
    pub id: ObjectId,
    /// Its definition in the server's own words; equal text means an equal object.
    pub definition: String,
}

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
    pub prints: Vec<crate::baseline_print::TablePrint>,
}

/// A table and the number that the server knows it by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableIdentity {
    /// The server's number (`pg_class.oid`).
    pub oid: u32,
    /// Its name when the baseline was taken.
    pub table: TableName,
}

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
}

impl Baseline {
    /// The baseline's name of the table with this number.
    pub fn table_by_oid(&self, oid: u32) -> Option<&TableName> {
        self.identities.iter().find(|identity| identity.oid == oid).map(|identity| &identity.table)
    }
}

impl Catalog {
    /// Whether the catalog holds this object.
    pub fn contains(&self, id: &ObjectId) -> bool {
        self.objects.binary_search_by(|object| object.id.cmp(id)).is_ok()
    }

    /// Whether the catalog holds a table of this name.
    pub fn has_table(&self, table: &TableName) -> bool {
        self.tables().any(|known| known == *table)
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

    /// What differs in `now`, leaving out everything in the protected schemas.
    pub fn difference(&self, now: &Self, protected: &[String]) -> Difference {
        let visible = |object: &&Object| !protected.contains(&object.id.schema);
        let before: BTreeMap<&ObjectId, &str> =
            self.objects.iter().filter(visible).map(|object| (&object.id, object.definition.as_str())).collect();
        let after: BTreeMap<&ObjectId, &str> =
            now.objects.iter().filter(visible).map(|object| (&object.id, object.definition.as_str())).collect();
        let added = only_in(&after, &before);
        let removed = only_in(&before, &after);
        let changed = before
            .iter()
            .filter_map(|(id, old)| {
                let new = after.get(id)?;
                (old != new).then(|| Change { id: (*id).clone(), before: (*old).to_owned(), after: (*new).to_owned() })
            })
            .collect();
        Difference { added, removed, changed }
    }
}

/// The ids of `a` that `b` lacks, without the parts of relations that are themselves listed.
fn only_in(a: &BTreeMap<&ObjectId, &str>, b: &BTreeMap<&ObjectId, &str>) -> Vec<ObjectId> {
    let missing: Vec<&ObjectId> = a.keys().filter(|id| !b.contains_key(*id)).copied().collect();
    let whole: BTreeSet<(&str, &str)> = missing
        .iter()
        .filter(|id| id.of.is_none() && id.kind != ObjectKind::Function)
        .map(|id| (id.schema.as_str(), id.name.as_str()))
        .collect();
    missing
        .into_iter()
        .filter(|id| id.of.as_deref().is_none_or(|table| !whole.contains(&(id.schema.as_str(), table))))
        .cloned()
        .collect()
}

impl Difference {
    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.changed.is_empty()
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

/// `1 table`, `2 tables`, `2 policies`, `3 indexes`, `2 keys`.
pub fn counted(count: usize, noun: &str) -> String {
    if count == 1 {
        return format!("1 {noun}");
    }
    let plural = match noun.strip_suffix('y') {
        Some(stem) if !stem.ends_with(['a', 'e', 'i', 'o', 'u']) => format!("{stem}ies"),
        _ if noun.ends_with('x') || noun.ends_with('s') => format!("{noun}es"),
        _ => format!("{noun}s"),
    };
    format!("{count} {plural}")
}
