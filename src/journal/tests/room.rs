//! A small disk that somebody fills while the journal is written: what was set aside goes into records, not to them.

use std::io::Write;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::*;
use crate::journal::reserve::{BYTES, Reserve};

/// A small file system of its own, unmounted at the end.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// None when this user may not mount.
    fn mount() -> Option<Self> {
        let place = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=80m", "none"]).arg(place.path()).status();
        if mounted.is_ok_and(|status| status.success()) {
            return Some(Self(place));
        }
        println!("left out: only root can make a small disk");
        None
    }

    fn filler(&self) -> PathBuf {
        self.0.path().join("filler")
    }

    /// Fills it, and fills it again a moment later, until it is enough.
    fn fill(&self, enough: &AtomicBool) {
        let mut file = std::fs::File::create(self.filler()).unwrap();
        while !enough.load(Ordering::Acquire) {
            while file.write_all(&[1; 4096]).is_ok() {}
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(self.0.path()).status());
    }
}

#[test]
fn what_was_set_aside_goes_into_records_while_somebody_fills_the_disk() {
    let Some(disk) = SmallDisk::mount() else { return };
    let state_dir = disk.0.path();
    let reserve = Reserve::of(state_dir);
    let (journal, _) = RedbJournal::open(state_dir).unwrap();
    reserve.set_aside().unwrap();
    journal.append(&[entry(1)]).unwrap();
    let enough = AtomicBool::new(false);
    let mut seq = 1;
    std::thread::scope(|scope| {
        scope.spawn(|| disk.fill(&enough));
        while rustix::fs::statvfs(state_dir).unwrap().f_bavail > 0 {
            std::thread::yield_now();
        }
        let failed = loop {
            match journal.append(&[sized(seq + 1, 20_000)]) {
                Ok(()) => seq += 1,
                Err(error) => break error,
            }
            assert!(seq < 4_000, "the disk is never full");
        };
        enough.store(true, Ordering::Release);
        assert!(failed.to_string().contains("No space left on device"), "{failed}");
    });
    let written = seq * 20_000;
    assert!(written > BYTES / 6, "{seq} records, {written} bytes, went into {BYTES} that were set aside");
    assert!(!reserve.is_there(), "it was given back");
    drop(journal);
    let (journal, entries) = RedbJournal::open(state_dir).unwrap();
    assert_eq!(entries.len() as u64, seq, "each that was acknowledged, and no other");
    std::fs::remove_file(disk.filler()).unwrap();
    journal.append(&[entry(seq + 1)]).unwrap();
    assert_eq!(journal.read_from(seq + 1).unwrap(), [entry(seq + 1)]);
    println!("journal: {written} bytes of records on a full disk with {BYTES} set aside");
}
