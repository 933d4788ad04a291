//! What a journal is kept on: a file and its reserve of room; in tests a disk that fails.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use redb::{Builder, Database, DatabaseError};

use super::CACHE;
use super::table::is_full;
use crate::journal::reserve::Reserve;

/// What a journal is kept on.
pub(in crate::journal) trait Medium: Send + Sync {
    /// Opens what is there, and checks it whole.
    fn open(&self) -> Result<Database, DatabaseError>;

    /// Makes durable what can be read now: after a write or a flush that failed, the system may show bytes that it will
    /// never bring to the disk.
    fn renew(&self) -> std::io::Result<()>;

    /// Makes room where there is none any more. Says whether it did.
    fn make_room(&self) -> bool;

    /// Keeps room again that was used or given back.
    fn keep_room(&self);

    /// How many bytes it takes.
    fn size(&self) -> u64;
}

/// A file in a directory that no other process works in.
pub(super) struct FileMedium {
    path: PathBuf,
    reserve: Reserve,
    /// Whether the reserve was given back.
    lacking: AtomicBool,
    directory: File,
}

impl FileMedium {
    /// `directory` is locked for as long as this lives.
    pub(super) fn new(path: PathBuf, state_dir: &Path, directory: File) -> Self {
        Self { path, reserve: Reserve::of(state_dir), lacking: AtomicBool::new(false), directory }
    }

    /// A window is open, and needs its reserve.
    pub(super) fn wants_room(&self) {
        self.lacking.store(!self.reserve.is_there(), Ordering::Release);
    }
}

impl Medium for FileMedium {
    fn open(&self) -> Result<Database, DatabaseError> {
        Builder::new().set_cache_size(CACHE).set_check_integrity_on_open(true).open(&self.path)
    }

    fn renew(&self) -> std::io::Result<()> {
        let fresh = self.path.with_extension("copy");
        let copied = fs::copy(&self.path, &fresh).and_then(|_bytes| File::open(&fresh)?.sync_all());
        let renewed = copied.and_then(|()| fs::rename(&fresh, &self.path)).and_then(|()| self.directory.sync_all());
        if renewed.is_err() {
            drop(fs::remove_file(&fresh));
        }
        renewed
    }

    fn make_room(&self) -> bool {
        let made = self.reserve.give_back();
        if made {
            self.lacking.store(true, Ordering::Release);
            tracing::warn!(
                event = "journal.reserve_used",
                path = %self.path.display(),
                "the disk is full: what was set aside for the journal is used; make room"
            );
        }
        made
    }

    fn keep_room(&self) {
        if self.lacking.load(Ordering::Acquire) {
            if self.reserve.set_aside_again() {
                self.lacking.store(false, Ordering::Release);
                tracing::info!(event = "journal.reserve_kept", "room for the journal is set aside again");
            }
        } else if self.reserve.is_there() && self.reserve.top_up().is_err_and(|error| is_full(&error)) {
            self.make_room();
        }
    }

    fn size(&self) -> u64 {
        fs::metadata(&self.path).map_or(0, |file| file.len())
    }
}
