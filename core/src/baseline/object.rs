//! What the catalog holds: an object, which of them it is, and what makes it.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::TableName;

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
    /// A schema.
    Schema,
    /// An extension, with its version.
    Extension,
    /// A column's default.
    Default,
    /// That a column may not be null.
    NotNull,
    /// Whether row security is on for a table, and forced.
    RowSecurity,
    /// A rewrite rule.
    Rule,
    /// Extended statistics.
    Statistics,
    /// What a role may do with an object.
    Grant,
    /// What a role may do with objects that another role will create.
    DefaultGrant,
    /// Who owns an object.
    Owner,
    /// A comment.
    Comment,
    /// A publication.
    Publication,
    /// A table in a publication.
    PublicationTable,
    /// An event trigger.
    EventTrigger,
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
            Self::Schema => "schema",
            Self::Extension => "extension",
            Self::Default => "default",
            Self::NotNull => "not-null rule",
            Self::RowSecurity => "row security",
            Self::Rule => "rule",
            Self::Statistics => "statistics object",
            Self::Grant => "grant",
            Self::DefaultGrant => "default grant",
            Self::Owner => "owner",
            Self::Comment => "comment",
            Self::Publication => "publication",
            Self::PublicationTable => "publication entry",
            Self::EventTrigger => "event trigger",
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
    /// What it is a part of: the table of a column or trigger, the function of a grant.
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
        let words = self.kind.words();
        match (&self.of, self.kind) {
            // Their names say it.
            (Some(of), ObjectKind::Owner | ObjectKind::RowSecurity) => {
                write!(f, "{} of {}.{of}", self.name, self.schema)
            }
            (Some(of), _) => write!(f, "{words} {} of {}.{of}", self.name, self.schema),
            (None, ObjectKind::Schema | ObjectKind::Extension) => write!(f, "{words} {}", self.name),
            (None, _) if self.schema.is_empty() => write!(f, "{words} {}", self.name),
            (None, _) => write!(f, "{words} {}.{}", self.schema, self.name),
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
    /// The statements that make it. Absent: the definition is one. Empty: no statement brings it back, because it holds
    /// or shapes rows. For a column: what follows `ADD COLUMN`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub make: Option<Vec<String>>,
    /// The statement that takes it away, as long as nothing needs it. Not kept: it is wanted of what is there now.
    #[serde(skip)]
    pub unmake: Option<String>,
    /// The server's number for it, which it keeps when it is renamed; 0 when it has none of its own.
    #[serde(default)]
    pub oid: u32,
    /// A column's place in its table, which it keeps too; 0 for anything else.
    #[serde(default)]
    pub place: i16,
}

impl Object {
    /// An object of which nothing is known but its definition.
    pub fn new(id: ObjectId, definition: impl Into<String>) -> Self {
        Self { id, definition: definition.into(), make: None, unmake: None, oid: 0, place: 0 }
    }

    /// The statements that make it; none when no statement can.
    pub fn making(&self) -> Vec<&str> {
        match &self.make {
            None => vec![self.definition.as_str()],
            Some(statements) => statements.iter().map(String::as_str).collect(),
        }
    }
}
