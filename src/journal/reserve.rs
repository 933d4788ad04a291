//! Room on the disk that is kept for writing a rollback down.
//!
//! Two kinds, and the preflight makes both, so that no window begins without them: blocks behind the end of the journal's own
//! file, which nobody else can take, and a file of some MiB beside it. While a window is open the first are topped up after
//! each append. When that is not possible any more the disk is full: then the file is given back, piece by piece, the journal
//! first, because whoever has filled the disk goes on filling it. What is left of it is for what steps keep as evidence.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate, statvfs};
use rustix::io::Errno;

use super::redb;

/// The reserve's file in `state_dir`.
pub const FILE: &str = "journal.reserve";
/// All that is set aside: a rollback writes some hundred KiB, and more where the catalog is large.
pub const BYTES: u64 = BESIDE + BEHIND;
/// In the file.
const BESIDE: u64 = 4 << 20;
/// Behind the journal's end.
const BEHIND: u64 = 12 << 20;
/// The file is given back in such pieces.
const PIECE: u64 = 256 << 10;

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
    directory = directory.display()
)]
pub struct ReserveError {
    directory: PathBuf,
    /// In MiB.
    needed: u64,
    free: String,
    reason: String,
}

impl Reserve {
    /// The reserve of this state directory, whether it is there or not.
    pub fn of(state_dir: &Path) -> Self {
        Self { directory: state_dir.to_owned() }
    }

    /// Whether its file is there, whole.
    pub fn is_there(&self) -> bool {
        fs::metadata(self.path()).is_ok_and(|file| file.len() >= BESIDE && allocated(&file) >= BESIDE)
    }

    /// Makes what is not there of it.
    ///
    /// # Errors
    /// [`ReserveError`], with the way out.
    pub fn set_aside(&self) -> Result<(), ReserveError> {
        let fresh = self.directory.join(format!("{FILE}.new"));
        let beside = || {
            if self.is_there() {
                return Ok(());
            }
            allocate(&fresh)
                .and_then(|()| fs::rename(&fresh, self.path()))
                .inspect_err(|_| drop(fs::remove_file(&fresh)))
        };
        beside().and_then(|()| self.top_up()).map_err(|error| {
            let free = self.free().map_or_else(|_| "not known how many bytes".to_owned(), mib);
            // What the journal has room for by its length and not on the disk comes on top.
            let journal = fs::metadata(self.directory.join(redb::FILE));
            let holes = journal.map_or(0, |journal| journal.len().saturating_sub(allocated(&journal)));
            let needed = (BYTES + holes) >> 20;
            ReserveError { directory: self.directory.clone(), needed, free, reason: error.to_string() }
        })
    }

    /// Keeps blocks behind the journal's end, where they are not there.
    pub(super) fn top_up(&self) -> io::Result<()> {
        self.keep_behind(u64::MAX).map(|_all| ())
    }

    /// Gives the file back, the journal first. Says whether there was something to give.
    pub(super) fn give_back(&self) -> bool {
        let Ok(file) = OpenOptions::new().write(true).open(self.path()) else { return false };
        let mut left = BESIDE;
        while left > 0 {
            left = left.saturating_sub(PIECE);
            let given = file.set_len(left).and_then(|()| self.keep_behind(PIECE));
            if given.is_ok_and(|all| all) {
                break;
            }
        }
        fs::remove_file(self.path()).is_ok()
    }

    /// Makes it again where there is room enough that others do not lack it.
    pub(super) fn set_aside_again(&self) -> bool {
        self.free().is_ok_and(|free| free >= 2 * BYTES) && self.set_aside().is_ok()
    }

    /// Keeps so many more blocks behind the journal's end, and says whether all that are wanted are there now.
    fn keep_behind(&self, most: u64) -> io::Result<bool> {
        let journal = match OpenOptions::new().write(true).open(self.directory.join(redb::FILE)) {
            Ok(journal) => journal,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
            Err(error) => return Err(error),
        };
        let metadata = journal.metadata()?;
        let (have, wanted) = (allocated(&metadata), metadata.len() + BEHIND);
        if have >= wanted {
            return Ok(true);
        }
        let length = wanted.min(have.saturating_add(most));
        match fallocate(&journal, FallocateFlags::KEEP_SIZE, 0, length) {
            // Where blocks cannot be kept, the file beside it is all there is.
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(length == wanted),
            Err(error) => Err(error.into()),
        }
    }

    fn path(&self) -> PathBuf {
        self.directory.join(FILE)
    }

    fn free(&self) -> io::Result<u64> {
        let volume = statvfs(&self.directory)?;
        Ok(volume.f_bavail.saturating_mul(volume.f_frsize))
    }
}

/// The bytes that have a place on the disk.
fn allocated(file: &fs::Metadata) -> u64 {
    file.blocks().saturating_mul(512)
}

/// `12 MiB`, `100 KiB`.
fn mib(bytes: u64) -> String {
    if bytes < 1 << 20 { format!("{} KiB", bytes >> 10) } else { format!("{} MiB", bytes >> 20) }
}

/// Makes a file whose every byte has its place on the disk.
fn allocate(path: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    match fallocate(&file, FallocateFlags::empty(), 0, BESIDE) {
        Ok(()) => {}
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => fill(&mut file)?,
        Err(error) => return Err(error.into()),
    }
    file.sync_all()
}

/// Writes what no file system makes smaller.
fn fill(file: &mut File) -> io::Result<()> {
    let mut block = vec![0_u8; 64 << 10];
    let mut left = BESIDE;
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
        let journal = directory.path().join(redb::FILE);
        let blocks = || fs::metadata(&journal).unwrap().blocks() * 512;
        fs::write(&journal, "records").unwrap();
        let reserve = Reserve::of(directory.path());
        assert!(!reserve.is_there() && !reserve.give_back());
        reserve.set_aside().unwrap();
        reserve.set_aside().unwrap();
        assert!(reserve.is_there() && blocks() >= BEHIND);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
        // The journal has grown, and then was cut.
        for length in [BEHIND / 2, 7] {
            OpenOptions::new().write(true).open(&journal).unwrap().set_len(length).unwrap();
            reserve.top_up().unwrap();
            assert!(blocks() >= length + BEHIND);
        }
        OpenOptions::new().write(true).open(&journal).unwrap().set_len(7).unwrap();
        assert!(reserve.give_back() && !reserve.is_there());
        assert_eq!(fs::read(&journal).unwrap(), b"records", "what is there stays as it is");
        assert!(blocks() >= BESIDE, "and has room to grow");
    }

    #[test]
    fn a_file_system_that_cannot_allocate_is_written_to() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("filled");
        fill(&mut File::create(&path).unwrap()).unwrap();
        let file = fs::metadata(&path).unwrap();
        assert!(file.len() == BESIDE && file.blocks() * 512 >= BESIDE);
    }

    #[test]
    fn what_is_missing_is_named() {
        let error = Reserve::of(Path::new("/nonexistent/shop")).set_aside().unwrap_err().to_string();
        for part in ["state_dir /nonexistent/shop", "16 MiB could not be set aside", "No such file", "make room"] {
            assert!(error.contains(part), "{error}");
        }
    }
}
