//! Stand-in, to be replaced by the report itself.

use jiff::Timestamp;
use serde::Serialize;

use crate::run::record::Entry;

/// What happened in a window.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The window.
    pub window: String,
}

/// The report of one window's records.
pub fn of(entries: &[Entry]) -> Option<Report> {
    let window = entries.iter().find_map(|entry| entry.window.clone())?;
    Some(Report { window })
}

impl Report {
    /// The report as Markdown.
    pub fn markdown(&self) -> String {
        format!("# Window {}\n", self.window)
    }
}

/// How much a line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Only when looking closely.
    Detail,
    /// A milestone.
    Info,
}

/// One record, told.
#[derive(Debug, Clone)]
pub struct Line {
    /// When.
    pub at: Timestamp,
    /// How much it matters.
    pub level: Level,
    /// What happened.
    pub sentence: String,
}

/// Tells records.
#[derive(Debug, Clone, Default)]
pub struct Narrator;

impl Narrator {
    /// Tells the next record.
    pub fn tell(&mut self, entry: &Entry) -> Line {
        Line { at: entry.at, level: Level::Info, sentence: format!("record {}", entry.seq) }
    }
}
