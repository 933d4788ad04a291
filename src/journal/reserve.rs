//! Room on the disk that is kept for writing a rollback down.
//!
//! A file of some MiB in `state_dir`, really allocated. The preflight makes it, so that no window begins without it. When
//! the disk is full in the middle of a window the file is given back, and half of its room goes to the journal's own file
//! at once, because whoever has filled the disk goes on filling it. The other half is for what steps keep as evidence.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate, statvfs};
use rustix::io::Errno;

/// The reserve's file in `state_dir`.
pub const FILE: &str = "journal.reserve";
/// Its size: a rollback writes some hundred KiB, and more where the catalog is large.
pub const BYTES: u64 = 16 << 20;

/// The reserve of a state directory.
#[derive(Debug, Clone)]
pub struct Reserve {
    directory: PathBuf,
}

/// No room could be set aside.
#[derive(Debug, thiserror::Error)]
#[error(
    "state_dir {directory}: {needed} MiB could not be set aside, with which a rollback can be written down when the disk is \
     full: {reason}; {free} are free there: make room for {needed} MiB",
    directory = directory.display(), needed = BYTES >> 20
)]
pub struct ReserveError {
    directory: PathBuf,
    free: String,
    reason: String,
}

impl Reserve {
    /// The reserve of this state directory, whether it is there or not.
    pub fn of(state_dir: &Path) -> Self {
        Self { directory: state_dir.to_owned() }
    }

    /// Whether it is there, whole.
    pub fn is_there(&self) -> bool {
        fs::metadata(self.path()).is_ok_and(|file| file.len() >= BYTES && file.blocks().saturating_mul(512) >= BYTES)
    }

    /// Makes it, unless it is there.
    ///
    /// # Errors
    /// [`ReserveError`], with the way out.
    pub fn set_aside(&self) -> Result<(), ReserveError> {
        if self.is_there() {
            return Ok(());
        }
        let fresh = self.directory.join(format!("{FILE}.new"));
        let made = allocated(&fresh).and_then(|()| fs::rename(&fresh, self.path()));
        made.map_err(|error| {
            drop(fs::remove_file(&fresh));
            let free = self.free().map_or_else(|_| "not known how many bytes".to_owned(), mib);
            ReserveError { directory: self.directory.clone(), free, reason: error.to_string() }
        })
    }

    /// Gives its room back, half of it to this file. Says whether there was something to give.
    pub(super) fn give_to(&self, journal: &Path) -> bool {
        if fs::remove_file(self.path()).is_err() {
            return false;
        }
        let kept = OpenOptions::new().write(true).open(journal).and_then(|file| {
            let length = file.metadata()?.len() + BYTES / 2;
            fallocate(&file, FallocateFlags::KEEP_SIZE, 0, length).map_err(io::Error::from)
        });
        if let Err(error) = kept {
            // The room is there all the same, for whoever comes first.
            tracing::debug!(event = "journal.unkept", error = %error, "the room could not be kept for the journal alone");
        }
        true
    }

    /// Makes it again where there is room enough that others do not lack it.
    pub(super) fn set_aside_again(&self) -> bool {
        self.free().is_ok_and(|free| free >= 2 * BYTES) && self.set_aside().is_ok()
    }

    fn path(&self) -> PathBuf {
        self.directory.join(FILE)
    }

    fn free(&self) -> io::Result<u64> {
        let volume = statvfs(&self.directory)?;
        Ok(volume.f_bavail.saturating_mul(volume.f_frsize))
    }
}

/// `12 MiB`, `100 KiB`.
fn mib(bytes: u64) -> String {
    if bytes < 1 << 20 { format!("{} KiB", bytes >> 10) } else { format!("{} MiB", bytes >> 20) }
}

/// Makes a file whose every byte has its place on the disk.
fn allocated(path: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    match fallocate(&file, FallocateFlags::empty(), 0, BYTES) {
        Ok(()) => {}
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => fill(&mut file)?,
        Err(error) => return Err(error.into()),
    }
    file.sync_all()
}

/// Writes what no file system makes smaller.
fn fill(file: &mut File) -> io::Result<()> {
    let mut block = vec![0_u8; 64 << 10];
    let mut left = BYTES;
    while left > 0 {
        rand::fill(&mut block[..]);
        file.write_all(&block)?;
        left = left.saturating_sub(block.len() as u64);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_really_set_aside_and_given_back() {
        let directory = tempfile::tempdir().unwrap();
        let journal = directory.path().join("journal");
        fs::write(&journal, "records").unwrap();
        let reserve = Reserve::of(directory.path());
        assert!(!reserve.is_there() && !reserve.give_to(&journal));
        reserve.set_aside().unwrap();
        reserve.set_aside().unwrap();
        assert!(reserve.is_there());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
        assert!(reserve.give_to(&journal));
        assert!(!reserve.is_there());
        assert_eq!(fs::read(&journal).unwrap(), b"records", "what is there stays as it is");
        assert!(fs::metadata(&journal).unwrap().blocks() * 512 >= BYTES / 2, "and has room to grow");
    }

    #[test]
    fn a_file_system_that_cannot_allocate_is_written_to() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("filled");
        fill(&mut File::create(&path).unwrap()).unwrap();
        let file = fs::metadata(&path).unwrap();
        assert!(file.len() == BYTES && file.blocks() * 512 >= BYTES);
    }

    #[test]
    fn what_is_missing_is_named() {
        let error = Reserve::of(Path::new("/nonexistent/shop")).set_aside().unwrap_err().to_string();
        for part in ["state_dir /nonexistent/shop", "16 MiB could not be set aside", "No such file", "make room"] {
            assert!(error.contains(part), "{error}");
        }
    }
}
