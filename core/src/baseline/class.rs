//! What taking a migration back costs: nothing, rows of the new tables, or a restore.

use serde::{Deserialize, Serialize};

use super::{Difference, ObjectId, ObjectKind, RowCount};
use crate::words::counted;

/// What taking the migration back costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Nothing: what the migration added holds nothing.
    Reversible,
    /// Rows that were written to what the migration added leave the live schema.
    Lossy,
    /// Tables or columns from before the migration were dropped or rewritten: only a restore brings their rows back.
    Irreversible,
}

impl Class {
    /// The word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reversible => "reversible",
            Self::Lossy => "lossy",
            Self::Irreversible => "irreversible",
        }
    }
}

impl Difference {
    /// The class, with what makes it so. `rows` are the rows of the added tables, where they were counted; a table that
    /// was not counted is taken as one that holds rows.
    pub fn class(&self, rows: &[RowCount]) -> (Class, Vec<String>) {
        let gone = self.beyond_statements();
        if !gone.is_empty() {
            return (Class::Irreversible, gone);
        }
        let lost = self.would_leave(rows);
        if lost.is_empty() { (Class::Reversible, Vec::new()) } else { (Class::Lossy, lost) }
    }

    /// What was destroyed, so that no statement brings it back, in words.
    pub fn beyond_statements(&self) -> Vec<String> {
        let mut words = Vec::new();
        let holds_rows = |id: &&ObjectId| matches!(id.kind, ObjectKind::Table | ObjectKind::Column);
        words.extend(self.removed.iter().filter(holds_rows).map(|id| format!("{id} was dropped")));
        for change in self.changed.iter().filter(|change| change.id.kind == ObjectKind::Column) {
            words.push(format!("{} was rewritten: it was {}, and is {}", change.id, change.before, change.after));
        }
        words.extend(self.replaced.iter().map(|table| format!("table {table} was dropped and made anew")));
        words
    }

    /// The rows and values that would leave the live schema, in words.
    fn would_leave(&self, rows: &[RowCount]) -> Vec<String> {
        let mut words = Vec::new();
        for table in self.added.iter().filter(|id| id.kind == ObjectKind::Table).filter_map(ObjectId::as_table) {
            match rows.iter().find(|count| count.table == table).map(|count| count.rows) {
                Some(0) => {}
                Some(rows) => {
                    let rows = usize::try_from(rows).unwrap_or(usize::MAX);
                    words.push(format!("{} of new table {table}", counted(rows, "row")));
                }
                None => words.push(format!("the rows of new table {table}, which were not counted")),
            }
        }
        let columns = self.added.iter().filter(|id| id.kind == ObjectKind::Column);
        words.extend(columns.map(|id| format!("the values of new {id}")));
        words
    }
}
