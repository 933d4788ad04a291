//! Copies of configurations, by hash.
//!
//! A window keeps the configuration that it opened with until it is settled, also when the file is edited and the
//! daemon restarted meanwhile. The copy may hold secrets, exactly as the file does: it is readable by its owner
//! alone and never shown. The SQL files that a configuration names are a part of it and of its hash, and their text is
//! kept beside it.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::config::model::Config;
use crate::config::{self, rung};

fn place(state_dir: &Path, sha256: &str) -> PathBuf {
    state_dir.join("configs").join(format!("{sha256}.toml"))
}

/// Where the SQL files are, by their names; there is none when the configuration names none.
fn files_place(copy: &Path) -> PathBuf {
    copy.with_extension("files.json")
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
    let files = rung::files(&config.rollback.rungs);
    if !files.is_empty() {
        // Before the copy itself: where that is, these are.
        write(&files_place(&path), &serde_json::to_vec(&files)?)?;
    }
    write(&path, config.source.expose().as_bytes())?;
    fs::File::open(directory)?.sync_all()
}

/// A file that is there whole, or not at all.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let fresh = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&fresh, path)
}

/// The configuration with this hash, with relative paths taken from where the current one is.
///
/// # Errors
/// When the copy is missing, or cannot be used any more (a secret's file is gone, for example).
pub fn recall(state_dir: &Path, sha256: &str, current: &Path) -> anyhow::Result<Config> {
    let path = place(state_dir, sha256);
    let source = fs::read_to_string(&path).with_context(|| format!("its copy {} cannot be read", path.display()))?;
    let files = files(&files_place(&path))?;
    match config::load_text(source, current, &files) {
        Ok(loaded) => Ok(loaded.config),
        Err(problems) => Err(anyhow::anyhow!("its copy {} cannot be used any more:\n{problems}", path.display())),
    }
}

fn files(path: &Path) -> anyhow::Result<BTreeMap<String, String>> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).with_context(|| format!("{} is damaged", path.display())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(error) => Err(error).with_context(|| format!("{} cannot be read", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = r#"
name = "shop"
state_dir = "state"
database = { url = "postgres://postgres@127.0.0.1/shop", original_tables = ["posts"] }
signal = [{ name = "api", http.url = "http://127.0.0.1/health" }]
rule = [{ name = "api is down", signal = "api", consecutive = 3, then = "rollback" }]
rollback.rung = [{ kind = "sql", file = "undo.sql" }]
"#;

    fn statements(config: &Config) -> Vec<String> {
        rung::files(&config.rollback.rungs).into_values().collect()
    }

    #[test]
    fn a_sql_file_is_kept_with_the_configuration() {
        let directory = tempfile::tempdir().unwrap();
        let (path, sql) = (directory.path().join("shop.toml"), directory.path().join("undo.sql"));
        fs::write(&path, CONFIG).unwrap();
        fs::write(&sql, "drop table pages").unwrap();
        let opened = config::load(&path).unwrap().config;
        keep(&opened).unwrap();
        fs::write(&sql, "drop table posts").unwrap();
        let edited = config::load(&path).unwrap().config;
        assert_ne!(edited.sha256, opened.sha256, "an edited SQL file is a change of the configuration");
        keep(&edited).unwrap();
        fs::remove_file(&sql).unwrap();

        let state = &opened.state_dir;
        let thawed = recall(state, &opened.sha256, &path).unwrap();
        assert_eq!((statements(&thawed), &thawed.sha256), (vec!["drop table pages".to_owned()], &opened.sha256));
        assert_eq!(statements(&recall(state, &edited.sha256, &path).unwrap()), ["drop table posts"]);

        fs::remove_file(files_place(&place(state, &opened.sha256))).unwrap();
        let error = format!("{:#}", recall(state, &opened.sha256, &path).unwrap_err());
        assert!(error.contains("its copy is missing"), "{error}");
        for file in state.join("configs").read_dir().unwrap() {
            let mode = std::os::unix::fs::PermissionsExt::mode(&file.unwrap().metadata().unwrap().permissions());
            assert_eq!(mode & 0o077, 0, "nobody else may read it");
        }
    }
}
