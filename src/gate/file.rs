//! A file that is there while traffic is stopped.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use super::Trouble;
use crate::clock;

/// What is read when the file is not there.
pub(super) const ABSENT: &str = "absent";
/// What is read when it is.
pub(super) const PRESENT: &str = "present";

/// Whether the file is there; a dangling link counts as one.
pub(super) async fn read(path: &Path) -> Result<String, Trouble> {
    let there = work(path, "looked for", |path| match std::fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound && has_directory(path) => Ok(false),
        Err(error) => Err(error),
    });
    Ok(if there.await? { PRESENT } else { ABSENT }.to_owned())
}

/// Creates the file, durably. What stood there before stays as it is.
pub(super) async fn close(path: &Path, prior: &str, gate: &str) -> Result<String, Trouble> {
    check(prior)?;
    let content = format!("rollbackd stopped traffic at gate {gate} for a rollback, {}\n", clock::now());
    let wrote = work(path, "created", move |path| match OpenOptions::new().write(true).create_new(true).open(path) {
        Ok(mut file) => {
            // The file says it by being there; a disk too full for its text must not keep traffic running.
            let text = file.write_all(content.as_bytes()).and_then(|()| file.sync_all());
            sync_directory(path)?;
            Ok(Some(text.err()))
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            sync_directory(path)?;
            Ok(None)
        }
        Err(error) => Err(error),
    });
    Ok(match wrote.await? {
        Some(None) => format!("{} created", path.display()),
        Some(Some(error)) => format!("{} created, without its text: {error}", path.display()),
        None => format!("{} was there already and was left as it is", path.display()),
    })
}

/// Removes the file, unless it was there before.
pub(super) async fn open(path: &Path, prior: &str) -> Result<String, Trouble> {
    check(prior)?;
    if prior == PRESENT {
        return Ok(format!("{} was there before and was left: traffic stays stopped by it", path.display()));
    }
    let removed = work(path, "removed", |path| {
        let removed = match std::fs::remove_file(path) {
            Ok(()) => true,
            Err(error) if error.kind() == ErrorKind::NotFound && has_directory(path) => false,
            Err(error) => return Err(error),
        };
        sync_directory(path)?;
        Ok(removed)
    });
    let how = if removed.await? { "removed" } else { "was gone already" };
    Ok(format!("{} {how}", path.display()))
}

fn check(prior: &str) -> Result<(), Trouble> {
    if matches!(prior, ABSENT | PRESENT) {
        return Ok(());
    }
    Err(Trouble::Failed(format!("what was read before is neither `{ABSENT}` nor `{PRESENT}`: `{prior}`")))
}

fn has_directory(path: &Path) -> bool {
    path.parent().is_some_and(Path::is_dir)
}

/// Makes the name itself durable.
fn sync_directory(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

/// Does something with the file where it may block.
async fn work<T: Send + 'static>(
    path: &Path,
    what: &str,
    job: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
) -> Result<T, Trouble> {
    let owned: PathBuf = path.to_owned();
    let done = tokio::task::spawn_blocking(move || job(&owned)).await.map_err(io::Error::other).flatten();
    done.map_err(|error| Trouble::Failed(format!("{} cannot be {what}: {error}", path.display())))
}
