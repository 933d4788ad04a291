//! Which file it is: device, inode, and a hash over its head.
//!
//! An inode is given to the next file as soon as its own is gone, and a file that is cut keeps its inode: only the
//! head tells these apart. While a file is shorter than the head, what is there of it is what is known; it grows
//! with the file.

use std::fs::{File, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// How much of a file is its head.
const HEAD: usize = 256;

/// A file, recognised.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
    /// How many bytes the hash is over.
    length: usize,
    /// SHA-256 of them, in hexadecimal: a log's own text is in no checkpoint.
    head: String,
}

impl Identity {
    /// The file as it is now.
    pub(super) fn of(file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        let (length, head) = hashed(file, HEAD)?;
        Ok(Self { device: metadata.dev(), inode: metadata.ino(), length, head })
    }

    /// Whether the file begins as this one did.
    pub(super) fn begins(&self, file: &File) -> io::Result<bool> {
        Ok(hashed(file, self.length)? == (self.length, self.head.clone()))
    }

    /// Whether anything is known of its head, so that a copy could be told.
    pub(super) const fn has_head(&self) -> bool {
        self.length > 0
    }

    /// Whether all of the head is known.
    pub(super) const fn is_whole(&self) -> bool {
        self.length == HEAD
    }

    /// Whether it is the same inode: enough while it is held open.
    pub(super) fn is_inode_of(&self, metadata: &Metadata) -> bool {
        (self.device, self.inode) == (metadata.dev(), metadata.ino())
    }

    /// Whether it is the same inode.
    pub(super) const fn shares_inode(&self, other: &Self) -> bool {
        self.device == other.device && self.inode == other.inode
    }

    /// Whether the file, with this identity now, is the one that was known under this one. Devices are numbered anew
    /// when a machine starts: a head says more than they do.
    pub(super) fn still_is(&self, file: &File, now: &Self) -> bool {
        if self.length == 0 {
            return self.shares_inode(now);
        }
        self.inode == now.inode && self.begins(file).unwrap_or(false)
    }

    /// Whether another file, of this size, is a copy of this one that was made after so much of it was read.
    pub(super) fn is_copied_in(&self, file: &File, size: u64, read: u64) -> bool {
        self.has_head() && size >= read && self.begins(file).unwrap_or(false)
    }

    /// As [`still_is`](Self::still_is), of files that are not read any more: one that was empty is taken for known only
    /// while it is.
    pub(super) fn is_known_as(&self, file: &File, now: &Self) -> bool {
        self.still_is(file, now) && (self.length > 0 || now.length == 0)
    }
}

/// The hash over the first bytes of a file, at most this many, and how many there were.
fn hashed(file: &File, most: usize) -> io::Result<(usize, String)> {
    let mut head = [0; HEAD];
    let mut length = 0;
    while let Some(room) = head.get_mut(length..most).filter(|room| !room.is_empty()) {
        match file.read_at(room, u64::try_from(length).unwrap_or(u64::MAX)) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let hash = Sha256::digest(head.get(..length).unwrap_or_default());
    Ok((length, format!("{hash:x}")))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn written(text: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text).unwrap();
        file
    }

    #[test]
    fn a_file_stays_the_same_while_it_grows_and_not_when_its_head_changes() {
        let mut file = written(b"one");
        let short = Identity::of(&file).unwrap();
        file.write_all(&[b'x'; 1000]).unwrap();
        let grown = Identity::of(&file).unwrap();
        assert!(short.begins(&file).unwrap() && !short.is_whole() && grown.is_whole());
        assert!(short.still_is(&file, &grown));
        file.set_len(2).unwrap();
        assert!(!short.begins(&file).unwrap(), "shorter than its head was");
        file.write_at(b"two", 0).unwrap();
        let other = Identity::of(&file).unwrap();
        assert!(!short.still_is(&file, &other), "the same inode with another head");
    }

    #[test]
    fn a_copy_begins_alike_and_is_another_file() {
        let (file, copy) = (written(b"one\ntwo\n"), written(b"one\ntwo\nthree\n"));
        let identity = Identity::of(&file).unwrap();
        assert!(identity.begins(&copy).unwrap());
        assert!(!identity.still_is(&copy, &Identity::of(&copy).unwrap()));
    }

    #[test]
    fn what_was_empty_is_known_only_while_it_is() {
        let mut file = written(b"");
        let empty = Identity::of(&file).unwrap();
        assert!(!empty.has_head() && empty.is_known_as(&file, &empty));
        file.write_all(b"now it is not").unwrap();
        let now = Identity::of(&file).unwrap();
        assert!(empty.still_is(&file, &now) && !empty.is_known_as(&file, &now));
    }
}
