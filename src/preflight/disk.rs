//! Room and rights where backup and journal go.

use std::path::{Path, PathBuf};

use rustix::fs::{Access, access, statvfs};

use super::{Answer, aside, database, together};
use crate::config::model::Config;
use crate::journal::reserve::{self, Reserve};

/// What a window's journal, records and reports may need.
const STATE_ROOM: u64 = 64 << 20;

/// `disk`: the backup fits and can be written, and so does the journal.
pub(super) async fn check(config: &Config) -> Answer {
    let (here, room) = tokio::join!(aside(config, directories), database::room(config));
    together([here, room], "")
}

fn directories(config: &Config) -> Answer {
    let backup = writable(&config.backup.directory, "backup.directory");
    let state = writable(&config.state_dir, "state_dir").and_then(|found| {
        free(&found).map_err(|reason| {
            format!("the free space of state_dir {} cannot be read: {reason}", config.state_dir.display())
        })
    });
    let state = state.and_then(|free| {
        // What is set aside for the journal is a part of it, and is made when the window has opened.
        let kept = if Reserve::of(&config.state_dir).is_there() { reserve::BYTES } else { 0 };
        let (free, needed) = (free >> 20, (STATE_ROOM - kept) >> 20);
        if free < needed {
            Err(format!(
                "state_dir {} has {free} MiB free: make room for {needed} MiB, or a rollback could not be written down",
                config.state_dir.display()
            ))
        } else {
            Ok(format!("{free} MiB free for the journal"))
        }
    });
    together([backup.map(|_| "the backup directory is writable".to_owned()), state], "")
}

/// The directory, or the one in which it would be made, where it can be written to.
fn writable(directory: &Path, key: &str) -> Result<PathBuf, String> {
    let Some(there) = directory.ancestors().find(|ancestor| ancestor.exists()) else {
        return Err(format!("{key} {} has no existing parent: create it", directory.display()));
    };
    let blame = if there == directory { String::new() } else { format!(" (in {})", there.display()) };
    if !there.is_dir() {
        return Err(format!("{key} {}{blame} is not a directory: move what is there", directory.display()));
    }
    match access(there, Access::WRITE_OK | Access::EXEC_OK) {
        Ok(()) => Ok(there.to_owned()),
        Err(error) => Err(format!(
            "{key} {}{blame} cannot be written to ({error}): give its rights to this process's user",
            directory.display()
        )),
    }
}

/// Bytes that this process may still write.
fn free(directory: &Path) -> Result<u64, String> {
    let volume = statvfs(directory).map_err(|error| error.to_string())?;
    Ok(volume.f_bavail.saturating_mul(volume.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::samples;

    #[test]
    fn directories_that_can_be_made_will_do() {
        let root = tempfile::tempdir().unwrap();
        let answer = directories(&samples::config(root.path(), Vec::new(), None)).unwrap();
        assert!(answer.starts_with("the backup directory is writable; "), "{answer}");
        assert!(!root.path().join("backups").exists(), "checking changes nothing");
    }

    #[test]
    fn every_problem_is_said_at_once() {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("file"), "").unwrap();
        let mut config = samples::config(root.path(), Vec::new(), None);
        config.backup.directory = root.path().join("file/backups");
        config.state_dir = root.path().join("file");
        let error = directories(&config).unwrap_err();
        assert!(error.contains("backup.directory ") && error.contains("; state_dir "), "{error}");
        assert_eq!(error.matches("is not a directory: move what is there").count(), 2, "{error}");
    }

    #[test]
    fn free_space_is_read() {
        assert!(free(Path::new("/")).unwrap() > 0);
        assert!(free(Path::new("/nonexistent")).is_err());
    }
}
