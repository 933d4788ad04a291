//! What a backup consists of: `manifest.json`, written last, so that a directory without it is no backup.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rollbackd_core::baseline::RowCount;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Its name in the backup's directory.
pub(super) const NAME: &str = "manifest.json";
/// The layout that this program writes and knows.
pub(super) const FORMAT: u32 = 1;

/// What a backup consists of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The layout.
    pub format: u32,
    /// The version of rollbackd that took it.
    pub rollbackd: String,
    /// The configuration's name: backups of others in the same directory are left alone.
    pub plan: String,
    /// When the window began.
    pub window_started: Timestamp,
    /// The instant of the snapshot.
    pub at: Timestamp,
    /// The server's version.
    pub server_version: String,
    /// What `pg_dump --version` says.
    pub pg_dump: String,
    /// The snapshot that dump, schema and counts share.
    pub snapshot: String,
    /// The schemas in the dump.
    pub schemas: Vec<String>,
    /// Every other file of the backup.
    pub files: Vec<FileEntry>,
    /// The rows of the original tables.
    pub tables: Vec<RowCount>,
}

/// A file of the backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Its path in the backup's directory.
    pub path: String,
    /// Its size.
    pub bytes: u64,
    /// SHA-256 of its contents, in hex.
    pub sha256: String,
}

/// Reads every file below a directory for the manifest, and makes it durable. Blocks.
pub(super) fn seal(directory: &Path) -> Result<Vec<FileEntry>, String> {
    let mut files = Vec::new();
    let mut waiting = vec![directory.to_owned()];
    while let Some(below) = waiting.pop() {
        let named = |error: std::io::Error| format!("{}: {error}", below.display());
        for entry in std::fs::read_dir(&below).map_err(named)? {
            let path = entry.map_err(named)?.path();
            if path.is_dir() {
                waiting.push(path);
            } else {
                files.push(entry_of(directory, &path).map_err(|error| format!("{}: {error}", path.display()))?);
            }
        }
        sync(&below)?;
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

fn entry_of(directory: &Path, path: &PathBuf) -> std::io::Result<FileEntry> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    let mut bytes = 0_u64;
    loop {
        let read = file.read(&mut buffer)?;
        let Some(part) = buffer.get(..read).filter(|part| !part.is_empty()) else { break };
        hash.update(part);
        bytes += part.len() as u64;
    }
    file.sync_all()?;
    let relative = path.strip_prefix(directory).unwrap_or(path).display().to_string();
    Ok(FileEntry { path: relative, bytes, sha256: format!("{:x}", hash.finalize()) })
}

/// Checks every file of a backup against its manifest, and that it is the one of this instant. Blocks.
pub(super) fn verify(directory: &Path, at: Timestamp) -> Result<(), String> {
    let shown = directory.display();
    let manifest = read(directory).ok_or_else(|| format!("{shown} holds no {NAME} that can be read"))?;
    if manifest.format != FORMAT {
        return Err(format!("{shown} has layout {}, and this version knows {FORMAT}", manifest.format));
    }
    if manifest.at != at {
        return Err(format!("{shown} was taken at {}, and the baseline at {at}", manifest.at));
    }
    for file in &manifest.files {
        let path = directory.join(&file.path);
        let found = entry_of(directory, &path).map_err(|error| format!("{}: {error}", path.display()))?;
        if found != *file {
            return Err(format!("{} is not what was backed up: its size or hash differs", path.display()));
        }
    }
    Ok(())
}

/// Makes a file or a directory durable.
pub(super) fn sync(path: &Path) -> Result<(), String> {
    File::open(path).and_then(|file| file.sync_all()).map_err(|error| format!("{}: {error}", path.display()))
}

/// The manifest in a directory, when it is one of ours.
pub(super) fn read(directory: &Path) -> Option<Manifest> {
    let text = std::fs::read(directory.join(NAME)).ok()?;
    serde_json::from_slice(&text).ok()
}
