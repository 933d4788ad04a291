//! Stand-in, to be replaced by the report itself.

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
