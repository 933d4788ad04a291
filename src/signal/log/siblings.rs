//! The files beside a log that were the log, or are copies of it: `app.log.1`, `app.log-20261125`, `app-20261125.log`.
//!
//! Compressed ones cannot be read on, and are left out.

use std::cmp::Reverse;
use std::ffi::OsStr;
use std::fs::Metadata;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use jiff::{SignedDuration, Timestamp};

use super::file::Followed;

/// How many are looked at, the newest first.
const MOST: usize = 64;
/// Endings of what was compressed, or is being written by whoever compresses.
const COMPRESSED: [&str; 7] = ["gz", "bz2", "xz", "zst", "lz4", "Z", "tmp"];
/// File systems keep times to some milliseconds, and another machine's clock may be a little behind.
const SLACK: SignedDuration = SignedDuration::from_secs(2);

/// A file beside the log.
#[derive(Debug)]
pub(super) struct Sibling {
    pub(super) followed: Followed,
    modified: Option<Timestamp>,
    created: Option<Timestamp>,
}

impl Sibling {
    /// Whether it came into being after a time, as far as that can be known.
    pub(super) fn is_newer_than(&self, time: Timestamp) -> bool {
        is_newer(self.created.or(self.modified), time)
    }
}

/// Whether a file came into being after a time, as far as that can be known.
pub(super) fn came_after(metadata: &Metadata, time: Timestamp) -> bool {
    is_newer(stamp(metadata.created()).or_else(|| stamp(metadata.modified())), time)
}

fn is_newer(born: Option<Timestamp>, time: Timestamp) -> bool {
    born.is_none_or(|born| born.duration_since(time) >= -SLACK)
}

fn stamp(time: io::Result<std::time::SystemTime>) -> Option<Timestamp> {
    Timestamp::try_from(time.ok()?).ok()
}

/// The files beside the log, in the order in which they were last written. None when the directory cannot be listed:
/// it often may be passed through only.
pub(super) fn list(path: &Path) -> Vec<Sibling> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else { return Vec::new() };
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let mut found: Vec<(Option<Timestamp>, Sibling)> = Vec::new();
    let mut named: Vec<_> = entries
        .flatten()
        .filter(|entry| belongs(entry.file_name().as_os_str(), name))
        .filter_map(|entry| Some((stamp(entry.metadata().ok()?.modified()), entry.path())))
        .collect();
    named.sort_by_key(|(modified, _)| Reverse(*modified));
    for (modified, path) in named.into_iter().take(MOST) {
        let Ok(followed) = Followed::open(&path) else { continue };
        let created = followed.file().metadata().ok().and_then(|metadata| stamp(metadata.created()));
        found.push((modified, Sibling { followed, modified, created }));
    }
    found.sort_by_key(|(modified, _)| *modified);
    found.into_iter().map(|(_, sibling)| sibling).collect()
}

/// Whether a file's name says that it was the log: the log's name, with or without its ending at the end, and between
/// or after a mark with a digit or `old` in it. `app.log` has nothing to do with `application.log` or `app-errors.log`.
fn belongs(candidate: &OsStr, log: &OsStr) -> bool {
    let (candidate, log) = (candidate.as_bytes(), log.as_bytes());
    let name =
        |bytes: &[u8]| Path::new(OsStr::from_bytes(bytes)).extension().and_then(OsStr::to_str).map(str::to_owned);
    if name(candidate).is_some_and(|ending| COMPRESSED.contains(&ending.as_str())) {
        return false;
    }
    let marked = |mark: &[u8]| mark.starts_with(b".") || mark.starts_with(b"-") || mark.starts_with(b"_");
    let says = |mark: &[u8]| marked(mark) && (mark.iter().any(u8::is_ascii_digit) || mark.get(1..) == Some(b"old"));
    if candidate.strip_prefix(log).is_some_and(says) {
        return true;
    }
    let Some(dot) = log.iter().rposition(|byte| *byte == b'.').filter(|dot| *dot > 0) else { return false };
    let (stem, ending) = log.split_at(dot);
    candidate.strip_prefix(stem).and_then(|mark| mark.strip_suffix(ending)).is_some_and(says)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_what_belongs_to_a_log() {
        let of_log = |name: &str| belongs(OsStr::new(name), OsStr::new("app.log"));
        for name in
            ["app.log.1", "app.log-20261125", "app-20261125.log", "app.log.2026-11-25_02", "app.1.log", "app.log.old"]
        {
            assert!(of_log(name), "{name}");
        }
        for name in
            ["app.log", "app.log.1.gz", "application.log", "app-errors.log", "app.log.bak", "app2.log", "my-app.log.1"]
        {
            assert!(!of_log(name), "{name}");
        }
        assert!(belongs(OsStr::new("log.1"), OsStr::new("log")));
        assert!(!belongs(OsStr::new("log"), OsStr::new("log")));
        assert!(!belongs(OsStr::new(".hidden"), OsStr::new(".hidden")));
    }
}
