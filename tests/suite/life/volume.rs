//! A disk that is small enough to fill up.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::stage::Stage;

/// A small file system of a stage's own, mounted on its state directory.
pub(super) struct Volume(PathBuf);

impl Volume {
    /// None when this user may not mount.
    pub(super) fn mount(stage: &Stage, options: &str) -> Option<Self> {
        let place = stage.state();
        std::fs::create_dir(&place).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", options, "none"]).arg(&place).status();
        if !mounted.is_ok_and(|status| status.success()) {
            eprintln!("left out: this user may not mount a file system");
            return None;
        }
        Some(Self(place))
    }

    pub(super) fn remount(&self, options: &str) {
        let options = format!("remount,{options}");
        assert!(Command::new("mount").args(["-o", &options]).arg(&self.0).status().unwrap().success());
    }

    /// Leaves no byte free.
    pub(super) fn fill(&self) {
        let mut file = std::fs::File::create(self.0.join("filler")).unwrap();
        let block = [1; 4096];
        while file.write_all(&block).is_ok() {}
    }

    /// Whether no byte is free.
    pub(super) fn is_full(&self) -> bool {
        rustix::fs::statvfs(&self.0).unwrap().f_bavail == 0
    }

    /// Leaves no byte free from now on, whatever others give back.
    pub(super) fn keep_full(&self) -> Filling {
        let enough = Arc::new(AtomicBool::new(false));
        let (place, stop) = (self.0.join("filler"), Arc::clone(&enough));
        let filling = std::thread::spawn(move || {
            let mut file = OpenOptions::new().create(true).append(true).open(place).unwrap();
            while !stop.load(Ordering::Acquire) {
                // Until there is no room, and again a little later.
                while file.write_all(&[1; 4096]).is_ok() {}
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        Filling { enough, filling: Some(filling) }
    }

    pub(super) fn free(&self) {
        std::fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(&self.0).status());
    }
}

/// Somebody who fills a volume, until this is dropped.
pub(super) struct Filling {
    enough: Arc<AtomicBool>,
    filling: Option<JoinHandle<()>>,
}

impl Drop for Filling {
    fn drop(&mut self) {
        self.enough.store(true, Ordering::Release);
        self.filling.take().into_iter().for_each(|filling| drop(filling.join()));
    }
}
