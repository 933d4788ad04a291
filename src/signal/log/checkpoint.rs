//! Where a log was left, kept in `<state_dir>/tail/<signal>.json`, so that another life goes on there.
//!
//! It is written whole or not at all, after a reading, at most once a second while something changes and once a minute
//! otherwise; so a program that is killed reads at most a second's lines twice, and one that ends reads none twice.
//! When it cannot be written that is said once, and the log is followed all the same.

use std::fs;
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::identity::Identity;
use crate::clock::Stopwatch;

/// The pause between two writings while something changes.
const PACE: Duration = Duration::from_secs(1);
/// The pause while nothing does: the time in it says how long nobody looked.
const REFRESH: Duration = Duration::from_secs(60);

/// Where a file was left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    pub(super) identity: Identity,
    pub(super) offset: u64,
    pub(super) skipping: bool,
    pub(super) size: u64,
}

/// Where a log was left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Saved {
    /// When.
    pub(super) at: Timestamp,
    /// Its path: another one under the same signal's name is another log.
    pub(super) path: PathBuf,
    /// The file that was at the path.
    pub(super) current: Option<Place>,
    /// Files that were moved away, and may still be written to.
    pub(super) leaving: Vec<Place>,
    /// Files beside the log that have been dealt with.
    pub(super) known: Vec<Identity>,
}

/// The file.
#[derive(Debug)]
pub(super) struct Checkpoint {
    file: PathBuf,
    written: Option<(Stopwatch, Saved)>,
    /// It could not be written, and that was said.
    complained: bool,
}

impl Checkpoint {
    /// The checkpoint of a signal.
    pub(super) fn new(state_dir: &Path, signal: &str) -> Self {
        Self { file: state_dir.join("tail").join(file_name(signal)), written: None, complained: false }
    }

    /// What an earlier life wrote.
    ///
    /// # Errors
    /// A sentence, when there is something that cannot be read.
    pub(super) fn load(&self) -> Result<Option<Saved>, String> {
        match fs::read(&self.file) {
            Ok(text) => serde_json::from_slice(&text).map(Some).map_err(|error| error.to_string()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Writes it when it is time to.
    pub(super) fn keep(&mut self, saved: Saved) {
        let due = self.written.as_ref().is_none_or(|(watch, last)| {
            let same = *last == Saved { at: last.at, ..saved.clone() };
            watch.elapsed() >= if same { REFRESH } else { PACE }
        });
        if due {
            self.write(saved);
        }
    }

    /// Writes it.
    pub(super) fn write(&mut self, saved: Saved) {
        match write(&self.file, &saved) {
            Ok(()) => self.complained = false,
            Err(error) if !self.complained => {
                self.complained = true;
                tracing::warn!(
                    event = "signal.checkpoint_failed",
                    file = %self.file.display(),
                    %error,
                    "where the log was left cannot be kept: after a restart it is read from its end"
                );
            }
            Err(_) => {}
        }
        self.written = Some((Stopwatch::start(), saved));
    }

    /// The file's path.
    pub(super) fn file(&self) -> &Path {
        &self.file
    }
}

fn write(file: &Path, saved: &Saved) -> io::Result<()> {
    let directory = file.parent().ok_or(ErrorKind::InvalidInput)?;
    // The directory above is the journal's to make.
    match fs::create_dir(directory) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut temporary = tempfile::NamedTempFile::new_in(directory)?;
    temporary.write_all(&serde_json::to_vec(saved)?)?;
    temporary.as_file().sync_data()?;
    temporary.persist(file).map_err(|error| error.error)?;
    Ok(())
}

/// A signal's name as the name of a file: bytes that are not plain are written as `%` and two digits.
fn file_name(signal: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let written = |byte: u8| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    let mut name = signal.bytes().map(written).collect::<Vec<_>>().concat();
    // Names are at most 100 characters, but these may be of four bytes each.
    if name.len() > 200 {
        use sha2::Digest as _;
        name = format!("{:x}", sha2::Sha256::digest(signal.as_bytes()));
    }
    format!("{name}.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn saved(second: i64) -> Saved {
        let at = Timestamp::from_second(second).unwrap();
        Saved { at, path: "/var/log/app.log".into(), current: None, leaving: Vec::new(), known: Vec::new() }
    }

    #[test]
    fn names_of_signals_become_names_of_files() {
        assert_eq!(file_name("app-log"), "app-log.json");
        assert_eq!(file_name("../ä b"), "%2E%2E%2F%C3%A4%20b.json");
        assert_ne!(file_name("a/b"), file_name("a%2Fb"));
        let long = file_name(&"😀".repeat(100));
        assert!(long.len() < 255 && long != file_name(&"😃".repeat(100)), "{long}");
    }

    #[test]
    fn what_was_written_is_found_again_and_rubbish_is_not_taken() {
        let directory = tempfile::tempdir().unwrap();
        let mut checkpoint = Checkpoint::new(directory.path(), "a");
        assert_eq!(checkpoint.load(), Ok(None));
        checkpoint.keep(saved(1));
        assert_eq!(checkpoint.load(), Ok(Some(saved(1))));
        // Not again within the second, also when only the time differs.
        checkpoint.keep(Saved { path: "/elsewhere".into(), ..saved(2) });
        checkpoint.keep(saved(3));
        assert_eq!(checkpoint.load(), Ok(Some(saved(1))));
        checkpoint.write(saved(4));
        assert_eq!(Checkpoint::new(directory.path(), "a").load(), Ok(Some(saved(4))));
        assert_eq!(fs::read_dir(directory.path().join("tail")).unwrap().count(), 1, "no temporary file stays");
        fs::write(checkpoint.file(), "{\"at\":").unwrap();
        assert!(checkpoint.load().is_err());
    }

    #[test]
    fn a_place_that_cannot_be_written_to_is_no_failure() {
        let mut checkpoint = Checkpoint::new(Path::new("/nowhere/at/all"), "a");
        checkpoint.keep(saved(1));
        checkpoint.write(saved(2));
        assert_eq!(checkpoint.load(), Ok(None));
        assert!(checkpoint.complained);
    }
}
