//! One thing that hangs on the tables to be removed, and what becomes of it.
//!
//! An object that the baseline does not have is part of the migration and goes along. Everything else, and
//! everything that is not understood, survives, and stops the removal before anything is changed.

use std::collections::BTreeSet;

use rollbackd_core::baseline::{Baseline, ObjectId, ObjectKind, TableName, quote_identifier};
use tokio_postgres::{GenericClient, Row};

use crate::postgres::{Failure, during};

/// What becomes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is a part of something that goes, or that the server looks after.
    Implied,
    /// It is a new table, and must go as well.
    Joins { oid: u32 },
    /// It goes along.
    Goes(Collateral),
    /// It was there before, and does not need the tables once it is as it was then.
    PutBack(ObjectId),
    /// It was there before the migration, or nobody knows; in words.
    Survives(String),
}

/// An object of the migration that goes along with the tables.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Collateral {
    /// For people.
    pub(super) words: String,
    /// What is moved into the quarantine, and dropped with `drop`.
    pub(super) whole: Option<Whole>,
    /// What drops it.
    pub(super) drop: String,
    /// The table that has to be locked for that, when it is not one of ours.
    pub(super) locks: Option<u32>,
    /// What it is.
    pub(super) id: Option<ObjectId>,
}

impl Collateral {
    /// Whether it is only a definition, which holds nothing and can be made again.
    pub(super) fn is_definition(&self) -> bool {
        self.whole.as_ref().is_some_and(|whole| ["view", "materialized view", "routine"].contains(&whole.keyword))
    }
}

/// An object that stands by itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Whole {
    /// The statement's words: `view`, `materialized view`, `routine`, `domain`, `type`.
    pub(super) keyword: &'static str,
    /// Its name as SQL.
    pub(super) sql: String,
    /// Its plain name, when it is a relation, whose names must be unique in a schema.
    pub(super) relation: Option<TableName>,
}

/// A row of `dependents.sql`.
#[derive(Debug)]
pub(super) struct Dependent {
    what: String,
    relation: Option<Relation>,
    part: Option<String>,
    own_schema: Option<String>,
    own_name: Option<String>,
    routine: Option<String>,
    type_kind: Option<String>,
    number: Option<u32>,
    owner: Option<u32>,
    words: String,
}

#[derive(Debug)]
struct Relation {
    oid: u32,
    kind: String,
    name: TableName,
}

/// What the fate of a dependent is judged by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known<'a> {
    pub(super) baseline: &'a Baseline,
    pub(super) original: &'a [TableName],
    pub(super) protected: &'a [String],
    /// What can be put back to the baseline without a restore.
    pub(super) reversible: &'a BTreeSet<ObjectId>,
}

impl Known<'_> {
    /// Why this table may not be removed, if it may not.
    pub(super) fn objection(self, oid: u32, table: &TableName) -> Option<String> {
        if self.protected.contains(&table.schema) {
            return Some(format!("table {table} is in a protected schema"));
        }
        if self.original.contains(table) {
            return Some(format!("table {table} is one of the original tables"));
        }
        if self.baseline.catalog.has_table(table) {
            return Some(format!("table {table} is in the baseline"));
        }
        let before = self.baseline.table_by_oid(oid)?;
        Some(format!("table {table} is {before} of the baseline under another name"))
    }

    /// What becomes of an object that stands on the tables, when there is a way to let it go.
    fn fate(self, id: ObjectId, words: &str, goes: impl FnOnce() -> Fate) -> Fate {
        if self.protected.contains(&id.schema) {
            Fate::Survives(words.to_owned())
        } else if !self.baseline.catalog.contains(&id) {
            match goes() {
                Fate::Goes(collateral) => Fate::Goes(Collateral { id: Some(id), ..collateral }),
                fate @ (Fate::Implied | Fate::Joins { .. } | Fate::PutBack(_) | Fate::Survives(_)) => fate,
            }
        } else if self.reversible.contains(&id) {
            Fate::PutBack(id)
        } else {
            Fate::Survives(words.to_owned())
        }
    }
}

/// Reads what hangs on these tables, but for what hangs on them through the objects `but` only.
pub(super) async fn read(client: &impl GenericClient, tables: &[u32], but: &[u32]) -> Result<Vec<Dependent>, Failure> {
    let doing = "reading what depends on the tables";
    let rows = client.query(include_str!("dependents.sql"), &[&tables, &but]).await.map_err(during(doing))?;
    rows.iter().map(dependent).collect::<Result<_, _>>().map_err(during(doing))
}

fn dependent(row: &Row) -> Result<Dependent, tokio_postgres::Error> {
    let oid: Option<u32> = row.try_get("relation_oid")?;
    let relation = match oid {
        Some(oid) => Some(Relation {
            oid,
            kind: row.try_get("relation_kind")?,
            name: TableName { schema: row.try_get("relation_schema")?, name: row.try_get("relation_name")? },
        }),
        None => None,
    };
    let words: Option<String> = row.try_get("words")?;
    Ok(Dependent {
        what: row.try_get("what")?,
        relation,
        part: row.try_get("part")?,
        own_schema: row.try_get("own_schema")?,
        own_name: row.try_get("own_name")?,
        routine: row.try_get("routine")?,
        type_kind: row.try_get("type_kind")?,
        number: row.try_get("number")?,
        owner: row.try_get("owner")?,
        words: words.unwrap_or_default(),
    })
}

impl Dependent {
    /// The server's number of a view or function.
    pub(super) const fn number(&self) -> Option<u32> {
        self.number
    }

    /// What becomes of it when `members` go.
    pub(super) fn fate(&self, members: &BTreeSet<u32>, known: Known<'_>) -> Fate {
        if self.what == "internal" {
            return Fate::Implied;
        }
        // What is in a quarantine already, such as a table of an earlier batch with a foreign key to one of this, stays.
        let schema = self.relation.as_ref().map(|relation| &relation.name.schema).or(self.own_schema.as_ref());
        if schema.is_some_and(|schema| is_quarantine(schema)) {
            return Fate::Implied;
        }
        match &self.relation {
            Some(relation) if members.contains(&relation.oid) => Fate::Implied,
            Some(relation) => match relation.kind.as_str() {
                "r" | "p" | "f" => self.fate_on_table(relation, known),
                "v" => fate_of_view(relation, "view", ObjectKind::View, known),
                "m" => fate_of_view(relation, "materialized view", ObjectKind::MaterializedView, known),
                "c" => self.fate_of_type(&relation.name.schema, &relation.name.name, "c", known),
                "S" => self.fate_of_sequence(relation, members, known),
                _ => self.survives(),
            },
            None => match (self.what.as_str(), &self.own_schema, &self.own_name) {
                ("function", Some(schema), Some(name)) => self.fate_of_function(schema, name, known),
                ("type", Some(schema), Some(name)) => {
                    self.fate_of_type(schema, name, self.type_kind.as_deref().unwrap_or_default(), known)
                }
                _ => self.survives(),
            },
        }
    }

    /// A table outside the set, or a part of one.
    fn fate_on_table(&self, relation: &Relation, known: Known<'_>) -> Fate {
        let table = &relation.name;
        let objection = known.objection(relation.oid, table);
        let part = self.part.as_deref().unwrap_or_default();
        let (schema, of) = (table.schema.as_str(), Some(table.name.as_str()));
        if known.protected.contains(&table.schema) {
            return self.survives();
        }
        let name = quote_identifier(part);
        let (kind, drop) = match self.what.as_str() {
            // New tables that store our row type, inherit from us or reference us come along.
            "relation" | "column" | "foreign_key" if objection.is_none() => {
                return Fate::Joins { oid: relation.oid };
            }
            "foreign_key" | "constraint" => {
                (ObjectKind::Constraint, format!("alter table {} drop constraint {name}", table.sql()))
            }
            "trigger" => (ObjectKind::Trigger, format!("drop trigger {name} on {}", table.sql())),
            "policy" => (ObjectKind::Policy, format!("drop policy {name} on {}", table.sql())),
            "rule" => (ObjectKind::Rule, format!("drop rule {name} on {}", table.sql())),
            "index" => {
                let index = TableName::new(schema, part);
                (ObjectKind::Index, format!("drop index {}", index.sql()))
            }
            "default" => (ObjectKind::Default, format!("alter table {} alter column {name} drop default", table.sql())),
            "column" => {
                // Columns hold rows: they go only where they are kept first.
                let id = part_of(ObjectKind::Column, schema, of, part);
                return if known.reversible.contains(&id) { Fate::PutBack(id) } else { self.survives() };
            }
            _ => return self.survives(),
        };
        known.fate(part_of(kind, schema, of, part), &self.words, || {
            Fate::Goes(Collateral { words: self.words.clone(), whole: None, drop, locks: Some(relation.oid), id: None })
        })
    }

    fn fate_of_sequence(&self, relation: &Relation, members: &BTreeSet<u32>, known: Known<'_>) -> Fate {
        let sequence = &relation.name;
        let owned = self.owner.is_some_and(|owner| members.contains(&owner));
        let id = part_of(ObjectKind::Sequence, &sequence.schema, None, &sequence.name);
        known.fate(id, &self.words, || if owned { Fate::Implied } else { self.survives() })
    }

    fn fate_of_function(&self, schema: &str, name: &str, known: Known<'_>) -> Fate {
        let Some(routine) = &self.routine else { return self.survives() };
        known.fate(part_of(ObjectKind::Function, schema, None, name), &self.words, || {
            goes(self.words.clone(), "routine", routine.clone(), None)
        })
    }

    fn fate_of_type(&self, schema: &str, name: &str, kind: &str, known: Known<'_>) -> Fate {
        let keyword = if kind == "d" { "domain" } else { "type" };
        let full = TableName::new(schema, name);
        let words = format!("{keyword} {full} ({})", self.words);
        if !matches!(kind, "c" | "d" | "e" | "r") {
            return Fate::Survives(words);
        }
        known.fate(part_of(ObjectKind::Type, schema, None, name), &words, || {
            goes(format!("{keyword} {full}"), keyword, full.sql(), None)
        })
    }

    fn survives(&self) -> Fate {
        Fate::Survives(self.words.clone())
    }
}

/// Whether a schema is a window's quarantine: `rollbackd_20261122t020000z`.
fn is_quarantine(schema: &str) -> bool {
    let Some(text) = schema.strip_prefix("rollbackd_") else { return false };
    text.len() == 16
        && text.char_indices().all(|(at, char)| match at {
            8 => char == 't',
            15 => char == 'z',
            _ => char.is_ascii_digit(),
        })
}

fn part_of(kind: ObjectKind, schema: &str, of: Option<&str>, name: &str) -> ObjectId {
    ObjectId { kind, schema: schema.to_owned(), of: of.map(str::to_owned), name: name.to_owned() }
}

fn fate_of_view(relation: &Relation, keyword: &'static str, kind: ObjectKind, known: Known<'_>) -> Fate {
    let view = &relation.name;
    let id = part_of(kind, &view.schema, None, &view.name);
    known.fate(id, &format!("{keyword} {view} uses it"), || {
        goes(format!("{keyword} {view}"), keyword, view.sql(), Some(view.clone()))
    })
}

fn goes(words: String, keyword: &'static str, sql: String, relation: Option<TableName>) -> Fate {
    let drop = format!("drop {keyword} {sql}");
    Fate::Goes(Collateral { words, whole: Some(Whole { keyword, sql, relation }), drop, locks: None, id: None })
}
