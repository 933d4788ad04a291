//! What the rows of an original table were before the migration: their number, a fingerprint, and how many of its
//! primary keys were sampled.
//!
//! The shell reads it under the baseline's snapshot and reads the same again for verification. Row contents are not
//! here: a baseline is in the journal, and what is in the journal is shown to people and programs. The sampled keys
//! themselves are in the backup's directory, where the rows are anyway.

use serde::{Deserialize, Serialize};

use crate::baseline::TableName;

/// The rows of one table, in short.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TablePrint {
    /// The table.
    pub table: TableName,
    /// How many rows, counted in the same pass as the fingerprint.
    pub rows: u64,
    /// The columns that the fingerprint covers, in the table's order. A column that is added later is none of them,
    /// and changes nothing.
    pub columns: Vec<PrintColumn>,
    /// The fingerprint: the sum of a 64-bit hash of every row, in decimal. A sum and a count, because with XOR rows
    /// that are there twice would cancel out.
    pub sum: String,
    /// The sample of primary keys; absent when the table has no primary key.
    pub keys: Option<KeySample>,
}

/// A column of a fingerprint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrintColumn {
    /// Its name.
    pub name: String,
    /// Its type, in the server's words. With another type the fingerprint cannot be compared.
    pub data_type: String,
    /// How its values are hashed.
    pub by: HashedBy,
}

/// How the values of a column are hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HashedBy {
    /// By the type's own hash function: the fast way.
    Value,
    /// By the value's text: for types without a hash function, or with one that takes different values for equal.
    Text,
}

/// The sample of a table's primary keys, without the keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeySample {
    /// The columns of the primary key, in its order.
    pub columns: Vec<String>,
    /// How many keys were kept.
    pub taken: u32,
}
