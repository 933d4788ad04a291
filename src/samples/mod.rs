//! Recorded samples: what the rules looked at while a window was open, one JSON object a line.
//!
//! `<state_dir>/samples/<window>.jsonl` is written by the [`recorder`], read by `rollbackd replay`, and meant for people's own
//! tools too: docs/replay.md describes it. The decision rests on the journal alone; a recording that is lost or cut off costs
//! an explanation and nothing else.

pub mod line;
pub mod prometheus;
pub mod recorder;

use std::path::{Path, PathBuf};

/// The recordings that are kept.
const KEPT: usize = 50;

/// Where a window's recording is.
pub fn path(state_dir: &Path, window: &str) -> PathBuf {
    directory(state_dir).join(format!("{window}.jsonl"))
}

fn directory(state_dir: &Path) -> PathBuf {
    state_dir.join("samples")
}

/// The recordings, oldest first.
///
/// # Errors
/// When the directory is there and cannot be read.
pub fn recordings(state_dir: &Path) -> std::io::Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(directory(state_dir)) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        let path = entry.path();
        if path.extension().is_some_and(|ending| ending == "jsonl") {
            found.push((entry.metadata()?.modified()?, path));
        }
    }
    found.sort();
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

/// Removes the oldest recordings, as many as are too many.
fn forget(state_dir: &Path) -> std::io::Result<()> {
    let all = recordings(state_dir)?;
    for path in all.iter().take(all.len().saturating_sub(KEPT)) {
        std::fs::remove_file(path)?;
    }
    Ok(())
}
