//! Copies of configurations, by hash.
//!
//! A window keeps the configuration that it opened with until it is settled, also when the file is edited and the
//! daemon restarted meanwhile. The copy may hold secrets, exactly as the file does: it is readable by its owner
//! alone and never shown.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::config;
use crate::config::model::Config;

fn place(state_dir: &Path, sha256: &str) -> PathBuf {
    state_dir.join("configs").join(format!("{sha256}.toml"))
}

/// Keeps a copy, durably, unless there is one.
///
/// # Errors
/// What the file system says.
pub fn keep(config: &Config) -> io::Result<()> {
    let path = place(&config.state_dir, &config.sha256);
    if path.try_exists()? {
        return Ok(());
    }
    let directory = path.parent().unwrap_or(&config.state_dir);
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let fresh = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    file.write_all(config.source.expose().as_bytes())?;
    file.sync_all()?;
    fs::rename(&fresh, &path)?;
    fs::File::open(directory)?.sync_all()
}

/// The configuration with this hash, with relative paths taken from where the current one is.
///
/// # Errors
/// When the copy is missing, or cannot be used any more (a secret's file is gone, for example).
pub fn recall(state_dir: &Path, sha256: &str, current: &Path) -> anyhow::Result<Config> {
    let path = place(state_dir, sha256);
    let source = fs::read_to_string(&path).with_context(|| format!("its copy {} cannot be read", path.display()))?;
    match config::load_text(source, current) {
        Ok(loaded) => Ok(loaded.config),
        Err(problems) => Err(anyhow::anyhow!("its copy {} cannot be used any more:\n{problems}", path.display())),
    }
}
