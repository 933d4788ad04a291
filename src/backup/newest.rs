//! The newest whole backup, for the facts that it holds.

use std::path::PathBuf;

use rollbackd_core::baseline::Baseline;

use super::{manifest, prune};
use crate::config::model::Config;

/// The newest whole backup of this configuration and the baseline in it; nothing when there is none. Blocks.
///
/// # Errors
/// A backup that is there and cannot be read, in words.
pub fn newest(config: &Config) -> Result<Option<(PathBuf, Baseline)>, String> {
    let entries = match std::fs::read_dir(&config.backup.directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("{}: {error}", config.backup.directory.display())),
    };
    let whole = entries.filter_map(|entry| {
        let entry = entry.ok()?;
        let is_one = entry.file_type().ok()?.is_dir() && prune::is_ours(entry.file_name().to_str()?);
        let manifest = manifest::read(&entry.path()).filter(|manifest| is_one && manifest.plan == config.name)?;
        Some((manifest.at, entry.path()))
    });
    match whole.max() {
        None => Ok(None),
        Some((_, directory)) => {
            let baseline = read(&directory.join("baseline.json"))?;
            Ok(Some((directory, baseline)))
        }
    }
}

/// A baseline that was written to a file. Blocks.
///
/// # Errors
/// Why it cannot be read, in words that name the file.
pub fn read(path: &std::path::Path) -> Result<Baseline, String> {
    let bytes = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    serde_json::from_slice(&bytes).map_err(|error| format!("{} is no baseline: {error}", path.display()))
}
