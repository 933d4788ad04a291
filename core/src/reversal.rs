//! The way back from a catalog to an earlier one, as statements, without a script that somebody wrote beforehand.
//!
//! It is derived from the two catalogs alone: what was added goes, what was changed or taken away is made again, what was
//! renamed gets its name back. Statements come in an order that mostly works; whoever runs them puts off what is
//! still needed, and asks again afterwards, until nothing is left to do. New tables are not taken away here (their rows
//! have to go somewhere), and what only a restore brings back stops everything before anything was changed.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::baseline::{Catalog, Difference, Object, ObjectId, ObjectKind, Rename, TableName, quote_identifier};

#[cfg(test)]
mod tests;

/// The way back.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Reversal {
    /// What to do, in order.
    pub acts: Vec<Act>,
    /// Columns that were added to tables that stay: to be kept elsewhere with their keys before they go.
    pub columns: Vec<ObjectId>,
    /// What no statement brings back, in words; with any of these nothing may be done.
    pub obstacles: Vec<String>,
    /// What stays as it is and does no harm, in words.
    pub left: Vec<String>,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Act {
    /// What it is done to.
    pub id: ObjectId,
    /// What is done.
    pub deed: Deed,
    /// The statements.
    pub sql: Vec<String>,
    /// The statements when the server does not take the first ones, because only its definition can be replaced.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub otherwise: Vec<String>,
}

/// What is done to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Deed {
    /// It gets its name back.
    Rename,
    /// It is taken away.
    Remove,
    /// It is defined as it was.
    PutBack,
    /// It is made again.
    Make,
}

/// How much of the difference is taken back.
#[derive(Debug, Clone, Copy)]
pub enum Reach<'a> {
    /// All of it.
    Everything,
    /// These objects only.
    Only(&'a BTreeSet<ObjectId>),
}

impl Reach<'_> {
    fn covers(self, id: &ObjectId) -> bool {
        match self {
            Self::Everything => true,
            Self::Only(ids) => ids.contains(id),
        }
    }
}

impl Act {
    /// The act in words: `put back view public.recent`.
    pub fn words(&self) -> String {
        let deed = match self.deed {
            Deed::Rename => "give its name back to",
            Deed::Remove => "take away",
            Deed::PutBack => "put back",
            Deed::Make => "make again",
        };
        format!("{deed} {}", self.id)
    }
}

/// The way back from `now` to `target`, leaving protected schemas alone.
pub fn reversal(target: &Catalog, now: &Catalog, protected: &[String], reach: Reach<'_>) -> Reversal {
    let difference = target.difference(now, protected);
    let mut found = Reversal::default();
    for rename in difference.renamed.iter().filter(|rename| reach.covers(&rename.from)) {
        found.renamed(rename, target, now);
    }
    // Under other names nothing else can be compared: names first, then ask again.
    if found.acts.iter().any(|act| act.deed == Deed::Rename) && found.obstacles.is_empty() {
        found.acts.retain(|act| act.deed == Deed::Rename);
        found.obstacles.extend(destroyed(&difference, reach));
        return found;
    }
    found.obstacles.extend(destroyed(&difference, reach));
    for id in difference.added.iter().filter(|id| reach.covers(id)) {
        if let Some(object) = now.get(id) {
            found.added(object);
        }
    }
    for change in difference.changed.iter().filter(|change| reach.covers(&change.id)) {
        if let (Some(was), Some(is)) = (target.get(&change.id), now.get(&change.id)) {
            found.changed(was, is);
        }
    }
    for id in difference.removed.iter().filter(|id| reach.covers(id)) {
        if let Some(object) = target.get(id) {
            found.removed(object);
        }
    }
    found.acts.sort_by_key(|act| match act.deed {
        Deed::Rename => (0, 0),
        Deed::Remove | Deed::PutBack => (1, removal_rank(act.id.kind)),
        Deed::Make => (2, making_rank(act.id.kind)),
    });
    found
}

/// Tables and columns whose rows are gone or rewritten.
fn destroyed(difference: &Difference, reach: Reach<'_>) -> Vec<String> {
    match reach {
        Reach::Everything => difference.beyond_statements(),
        // What is not asked for is not in the way.
        Reach::Only(_) => Vec::new(),
    }
}

impl Reversal {
    fn act(&mut self, id: &ObjectId, deed: Deed, sql: Vec<String>) {
        self.acts.push(Act { id: id.clone(), deed, sql, otherwise: Vec::new() });
    }

    fn renamed(&mut self, rename: &Rename, target: &Catalog, now: &Catalog) {
        let Rename { from, to } = rename;
        if now.contains(from) {
            self.obstacles.push(format!("{from} is called {} now, and another one has its name", to.name));
            return;
        }
        if let Some(sql) = name_back(from, to) {
            self.act(from, Deed::Rename, sql);
        } else if let (Some(was), Some(is)) = (target.get(from), now.get(to)) {
            // It holds no rows: the one goes and the other is made.
            self.added(is);
            self.removed(was);
        }
    }

    fn added(&mut self, object: &Object) {
        match (object.id.kind, &object.unmake) {
            (ObjectKind::Column, Some(_)) => self.columns.push(object.id.clone()),
            // A part's column goes with its whole's.
            (ObjectKind::Table | ObjectKind::ForeignTable, _) | (ObjectKind::Column, None) => {}
            (_, Some(unmake)) => self.act(&object.id, Deed::Remove, vec![unmake.clone()]),
            (_, None) => self.left.push(format!("{} stays: it cannot be taken away by itself", object.id)),
        }
    }

    fn removed(&mut self, object: &Object) {
        let sql = owned(&object.making());
        // What holds rows is said by `destroyed`, when it matters.
        if matches!(object.id.kind, ObjectKind::Table | ObjectKind::Column) {
            return;
        }
        if sql.is_empty() {
            self.obstacles.push(format!("{} is gone, and cannot be made again", object.id));
        } else {
            self.act(&object.id, Deed::Make, sql);
        }
    }

    fn changed(&mut self, was: &Object, is: &Object) {
        let id = &was.id;
        let making = owned(&was.making());
        match id.kind {
            ObjectKind::Column => {}
            ObjectKind::Extension => {
                self.left.push(format!("{id} stays at {}: it was {}", is.definition, was.definition));
            }
            _ if making.is_empty() => {
                let (before, after) = (&was.definition, &is.definition);
                self.obstacles
                    .push(format!("{id} was changed, and cannot be put back: it was {before}, and is {after}"));
            }
            // Saying it again is enough.
            ObjectKind::Sequence
            | ObjectKind::Default
            | ObjectKind::RowSecurity
            | ObjectKind::Owner
            | ObjectKind::Comment => self.act(id, Deed::PutBack, making),
            ObjectKind::View | ObjectKind::Function => {
                let otherwise = is.unmake.iter().cloned().chain(making.iter().cloned()).collect();
                self.acts.push(Act { id: id.clone(), deed: Deed::PutBack, sql: making, otherwise });
            }
            ObjectKind::Table
            | ObjectKind::ForeignTable
            | ObjectKind::MaterializedView
            | ObjectKind::Constraint
            | ObjectKind::Index
            | ObjectKind::Trigger
            | ObjectKind::Policy
            | ObjectKind::Type
            | ObjectKind::Schema
            | ObjectKind::NotNull
            | ObjectKind::Rule
            | ObjectKind::Statistics
            | ObjectKind::Grant
            | ObjectKind::DefaultGrant
            | ObjectKind::Publication
            | ObjectKind::PublicationTable
            | ObjectKind::EventTrigger => {
                let again = is.unmake.iter().cloned().chain(making).collect();
                self.act(id, Deed::PutBack, again);
            }
        }
    }
}

fn owned(statements: &[&str]) -> Vec<String> {
    statements.iter().map(|one| (*one).to_owned()).collect()
}

/// The statements that give an object its name back, for those that keep more than their definition.
fn name_back(from: &ObjectId, to: &ObjectId) -> Option<Vec<String>> {
    let (old, new) = (quote_identifier(&from.name), quote_identifier(&to.name));
    let of = |id: &ObjectId| TableName::new(&id.schema, id.of.as_deref().unwrap_or_default()).sql();
    let keyword = match from.kind {
        ObjectKind::Table => "table",
        ObjectKind::ForeignTable => "foreign table",
        ObjectKind::View => "view",
        ObjectKind::MaterializedView => "materialized view",
        ObjectKind::Sequence => "sequence",
        ObjectKind::Type => "type",
        ObjectKind::Schema => return Some(vec![format!("alter schema {new} rename to {old}")]),
        ObjectKind::Column => return Some(vec![format!("alter table {} rename column {new} to {old}", of(from))]),
        ObjectKind::Constraint => {
            return Some(vec![format!("alter table {} rename constraint {new} to {old}", of(from))]);
        }
        ObjectKind::Index => {
            let index = TableName::new(&to.schema, &to.name).sql();
            return Some(vec![format!("alter index {index} rename to {old}")]);
        }
        ObjectKind::Trigger => return Some(vec![format!("alter trigger {new} on {} rename to {old}", of(from))]),
        ObjectKind::Policy => return Some(vec![format!("alter policy {new} on {} rename to {old}", of(from))]),
        ObjectKind::Function
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
        | ObjectKind::EventTrigger => return None,
    };
    let mut sql = Vec::new();
    if from.schema != to.schema {
        let place = quote_identifier(&from.schema);
        sql.push(format!("alter {keyword} {} set schema {place}", TableName::new(&to.schema, &to.name).sql()));
    }
    if from.name != to.name {
        sql.push(format!("alter {keyword} {} rename to {old}", TableName::new(&from.schema, &to.name).sql()));
    }
    Some(sql)
}

/// What is taken away or redefined first: what stands on others before what it stands on.
const fn removal_rank(kind: ObjectKind) -> u8 {
    match kind {
        ObjectKind::EventTrigger => 0,
        ObjectKind::PublicationTable => 1,
        ObjectKind::Publication => 2,
        ObjectKind::Policy | ObjectKind::Trigger | ObjectKind::Rule | ObjectKind::RowSecurity => 3,
        ObjectKind::View => 4,
        ObjectKind::MaterializedView => 5,
        ObjectKind::Comment | ObjectKind::Grant | ObjectKind::DefaultGrant | ObjectKind::Owner => 6,
        ObjectKind::Index | ObjectKind::Statistics => 7,
        ObjectKind::Constraint => 8,
        ObjectKind::Default | ObjectKind::NotNull => 9,
        ObjectKind::Column | ObjectKind::Table | ObjectKind::ForeignTable => 10,
        ObjectKind::Function => 11,
        ObjectKind::Sequence => 12,
        ObjectKind::Type => 13,
        ObjectKind::Extension => 14,
        ObjectKind::Schema => 15,
    }
}

/// What is made first: what others stand on.
const fn making_rank(kind: ObjectKind) -> u8 {
    match kind {
        ObjectKind::Schema => 0,
        ObjectKind::Extension => 1,
        ObjectKind::Type => 2,
        ObjectKind::Function => 3,
        ObjectKind::Sequence => 4,
        ObjectKind::Table | ObjectKind::ForeignTable | ObjectKind::Column => 5,
        ObjectKind::Default | ObjectKind::NotNull => 6,
        ObjectKind::Index => 7,
        ObjectKind::Constraint => 8,
        ObjectKind::Statistics => 9,
        ObjectKind::View => 10,
        ObjectKind::MaterializedView => 11,
        ObjectKind::Rule | ObjectKind::Trigger | ObjectKind::Policy | ObjectKind::RowSecurity => 12,
        ObjectKind::Owner => 13,
        ObjectKind::Grant | ObjectKind::DefaultGrant | ObjectKind::Comment => 14,
        ObjectKind::Publication => 15,
        ObjectKind::PublicationTable => 16,
        ObjectKind::EventTrigger => 17,
    }
}
