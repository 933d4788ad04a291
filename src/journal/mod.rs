//! Stand-in, to be replaced by the journal itself: one JSON object a line.

use std::path::{Path, PathBuf};

use rollbackd_core::run::record::Entry;

/// The journal.
#[derive(Debug)]
pub struct Journal(PathBuf);

/// The journal cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct OpenError(String);

impl Journal {
    /// Opens the journal of a state directory.
    pub fn open(state_dir: &Path) -> Result<Self, OpenError> {
        let path = state_dir.join("journal.stand-in");
        if path.exists() { Ok(Self(path)) } else { Err(OpenError(format!("{} is not there", path.display()))) }
    }

    /// Every record.
    pub fn read_all(&self) -> Result<Vec<Entry>, OpenError> {
        let text = std::fs::read_to_string(&self.0).map_err(|error| OpenError(error.to_string()))?;
        text.lines().map(|line| serde_json::from_str(line).map_err(|error| OpenError(error.to_string()))).collect()
    }
}
