//! The state machine: which files are the log now, and what happened to them since the last turn.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::checkpoint::{Checkpoint, Saved};
use super::file::{Allowance, Followed, Work};
use super::identity::Identity;
use super::lines::Sink;
use super::siblings::{self, Sibling};
use crate::clock;
use crate::signal::Tail;

/// How long a file that was moved away must have been quiet before it is closed: its writer may still have to learn
/// of the new one.
const GRACE: Duration = Duration::from_secs(10);
/// How many files that were moved away are held open; of more the oldest are closed at their end.
const LEAVING: usize = 16;
/// What was left longer ago than this is not news any more.
const YOUNG: SignedDuration = SignedDuration::from_mins(15);

/// A log that is followed.
#[derive(Debug)]
pub(super) struct Follower {
    signal: String,
    path: PathBuf,
    checkpoint: Option<Checkpoint>,
    /// Whether it is known where to begin.
    begun: bool,
    /// The file that was at the path when it was last looked at.
    current: Option<Followed>,
    /// Files that were moved away, the oldest first.
    leaving: Vec<Followed>,
    /// Files beside the log that have been dealt with, or were there before.
    known: Vec<Identity>,
    /// When the last turn began.
    looked: Timestamp,
    /// How far an earlier life had come; until the path was looked at in this one.
    resumed: Option<Timestamp>,
    buffer: Vec<u8>,
    grace: Duration,
}

/// What came of a turn beside the lines.
#[derive(Debug, Default)]
pub(super) struct Turn {
    pub(super) tail: Tail,
    /// Why the log could not be looked at.
    pub(super) problem: Option<String>,
}

impl Follower {
    pub(super) fn new(signal: &str, path: &Path, checkpoint: Option<Checkpoint>) -> Self {
        Self {
            signal: signal.to_owned(),
            path: path.to_owned(),
            checkpoint,
            begun: false,
            current: None,
            leaving: Vec::new(),
            known: Vec::new(),
            looked: Timestamp::UNIX_EPOCH,
            resumed: None,
            buffer: Vec::new(),
            grace: GRACE,
        }
    }

    /// Reads what came since the last turn, as far as the allowance goes.
    pub(super) fn turn<S: Sink>(&mut self, mut allowance: Allowance, sink: &mut S) -> Turn {
        let now = clock::now();
        let mut turn = Turn::default();
        let looked = self.begin(now, &mut turn.tail).and_then(|()| self.look(&mut turn.tail));
        let stale = self.resumed.filter(|since| now.duration_since(*since).abs() > YOUNG);
        if let Some(since) = stale {
            self.leave_out(since, &mut turn.tail);
        }
        if looked.is_ok() || stale.is_some() {
            self.resumed = None;
        }
        turn.problem = match looked {
            Ok(true) => None,
            Ok(false) => Some(self.sentence(&ErrorKind::NotFound.into())),
            Err(problem) => Some(problem),
        };
        if self.begun {
            self.looked = now;
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        let work = Work { buffer: &mut buffer, allowance: &mut allowance, tail: &mut turn.tail, sink };
        if let Err(problem) = self.read(work) {
            turn.problem.get_or_insert(problem);
        }
        self.buffer = buffer;
        turn.tail.lag_bytes = self.leaving.iter().chain(&self.current).map(Followed::lag).sum();
        if self.begun {
            let saved = self.saved();
            if let Some(checkpoint) = &mut self.checkpoint {
                checkpoint.keep(saved);
            }
        }
        turn
    }

    /// Finds out where to begin, once.
    fn begin(&mut self, now: Timestamp, tail: &mut Tail) -> Result<(), String> {
        if self.begun {
            return Ok(());
        }
        let saved = self.checkpoint.as_ref().and_then(|checkpoint| {
            checkpoint.load().unwrap_or_else(|error| {
                let file = checkpoint.file().display();
                tracing::warn!(event = "signal.checkpoint_unusable", signal = self.signal, %file, error,
                    "where the log was left cannot be read: it is read from its end");
                None
            })
        });
        if let Some(saved) = saved.filter(|saved| saved.path == self.path) {
            self.resume(saved, tail);
        } else {
            match Followed::open(&self.path).and_then(|mut file| file.skip_to_end().map(|()| file)) {
                Ok(file) => self.current = Some(file),
                // What comes later is new, and is read from its beginning.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(self.sentence(&error)),
            }
            self.known = identities(&siblings::list(&self.path));
            self.looked = now;
        }
        self.begun = true;
        Ok(())
    }

    /// Goes on where an earlier life left off, as far as its files are found.
    fn resume(&mut self, saved: Saved, tail: &mut Tail) {
        let mut found: Vec<Followed> = siblings::list(&self.path).into_iter().map(|sibling| sibling.followed).collect();
        let at_path = Followed::open(&self.path).ok();
        found.extend(at_path);
        let mut find = |is: &dyn Fn(&Followed) -> bool| {
            let index = found.iter().position(is)?;
            Some(found.swap_remove(index))
        };
        for place in &saved.leaving {
            match find(&|file| place.identity.still_is(file.file(), &file.identity)) {
                Some(file) => self.leaving.push(file.resumed(place)),
                None => self.lost(place.size.saturating_sub(place.offset), "a file that was moved away is gone", tail),
            }
        }
        if let Some(place) = &saved.current {
            // With another head it was cut or recreated while nobody looked: that is seen when it is looked at.
            let file = find(&|file| place.identity.still_is(file.file(), &file.identity))
                .or_else(|| find(&|file| place.identity.shares_inode(&file.identity)));
            self.current = file.map(|file| file.resumed(place));
            if self.current.is_none() {
                // Copied before it went.
                if let Some(copy) = find(&|file| place.identity.is_copied_in(file.file(), file.size, place.offset)) {
                    self.leaving.push(copy.at(place.offset, place.skipping).ended());
                } else {
                    let what = "the file that was read last is gone; what came to it since then was not seen";
                    self.lost(place.size.saturating_sub(place.offset), what, tail);
                }
            }
        }
        self.known = saved.known;
        self.looked = saved.at;
        self.resumed = Some(saved.at);
    }

    /// Looks at the path, and at the file that was there. Returns whether there is one now.
    fn look(&mut self, tail: &mut Tail) -> Result<bool, String> {
        let was_empty = self.current.as_ref().is_some_and(|current| !current.identity.has_head());
        if let Some(current) = &mut self.current
            && current.is_cut().map_err(|error| sentence(&self.path, &error))?
        {
            self.cut(tail)?;
        }
        let metadata = match fs::metadata(&self.path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(self.sentence(&error)),
        };
        if self.current.as_ref().is_some_and(|current| current.identity.is_inode_of(&metadata)) {
            if was_empty {
                // It may have been written, copied and cut since then, and looks as if it had not.
                let looked = self.looked;
                for copy in self.unknown_siblings().into_iter().filter(|sibling| sibling.is_newer_than(looked)) {
                    tail.truncations += 1;
                    self.leaving.push(copy.followed);
                }
            }
            return Ok(true);
        }
        let new = Followed::open(&self.path).map_err(|error| self.sentence(&error))?;
        self.replaced(new, tail)?;
        Ok(true)
    }

    /// The file was cut: its text went into a copy beside it, or is gone.
    fn cut(&mut self, tail: &mut Tail) -> Result<(), String> {
        tail.truncations += 1;
        let unknown = self.unknown_siblings();
        let Some(current) = &mut self.current else { return Ok(()) };
        let is_copy = |sibling: &Sibling| {
            let file = &sibling.followed;
            current.identity.is_copied_in(file.file(), file.size, current.offset)
        };
        let (mut copies, others): (Vec<Sibling>, Vec<Sibling>) = unknown.into_iter().partition(is_copy);
        let unread = current.lag();
        let (offset, skipping) = (current.offset, current.is_skipping());
        current.begin_anew().map_err(|error| sentence(&self.path, &error))?;
        if copies.is_empty() {
            let what = "it was cut, and there is no copy: what came between the last reading and that was not seen";
            self.lost(unread, what, tail);
        } else {
            let copy = copies.swap_remove(0).followed;
            self.leaving.push(copy.at(offset, skipping).ended());
        }
        // It was copied and cut more than once; or it was moved away afterwards, and so was the next one.
        let looked = self.looked;
        let others = others.into_iter().filter(|sibling| sibling.is_newer_than(looked));
        self.leaving.extend(others.map(|sibling| sibling.followed));
        Ok(())
    }

    /// Another file is at the path.
    fn replaced(&mut self, mut new: Followed, tail: &mut Tail) -> Result<(), String> {
        let was_known = self.known.iter().any(|known| known.is_known_as(new.file(), &new.identity));
        let unknown = self.unknown_siblings();
        if let Some(old) = self.current.take() {
            tail.rotations += 1;
            self.leaving.push(old);
        }
        // Files that came and were moved away between two turns.
        let passed = unknown.into_iter().map(|sibling| (sibling.is_newer_than(self.looked), sibling.followed));
        for (is_newer, file) in passed {
            if is_newer && !file.identity.shares_inode(&new.identity) {
                tail.rotations += 1;
                self.leaving.push(file);
            }
        }
        if let Some(index) = self.leaving.iter().position(|file| file.identity.shares_inode(&new.identity)) {
            // Moved back to where it was.
            new = self.leaving.remove(index);
        } else if was_known {
            new.skip_to_end().map_err(|error| self.sentence(&error))?;
        } else if let Some(since) = self.resumed
            && !new.file().metadata().is_ok_and(|metadata| siblings::came_after(&metadata, since))
        {
            let size = new.size;
            new.skip_to_end().map_err(|error| self.sentence(&error))?;
            self.lost(size, "another file, older than the last reading, is at the path: it is read from its end", tail);
        }
        self.current = Some(new);
        Ok(())
    }

    /// The files beside the log that came since they were last listed. From now on they are known.
    fn unknown_siblings(&mut self) -> Vec<Sibling> {
        let listed = siblings::list(&self.path);
        let identities = identities(&listed);
        let is_known = |file: &Followed| {
            self.current.iter().chain(&self.leaving).any(|held| held.identity.shares_inode(&file.identity))
                || self.known.iter().any(|known| known.is_known_as(file.file(), &file.identity))
        };
        let unknown = listed.into_iter().filter(|sibling| !is_known(&sibling.followed)).collect();
        self.known = identities;
        unknown
    }

    /// Reads the files in their order.
    fn read<S: Sink>(&mut self, mut work: Work<'_, S>) -> Result<(), String> {
        let surplus = self.leaving.len().saturating_sub(LEAVING);
        let mut kept = Vec::new();
        let mut all_read = true;
        for (index, mut file) in std::mem::take(&mut self.leaving).into_iter().enumerate() {
            if !all_read {
                kept.push(file);
                continue;
            }
            let unread = file.lag();
            // A file that was cut after it was moved away has nothing more to say.
            if file.is_cut().unwrap_or(true) {
                self.lost(unread, "a file that was moved away was cut", work.tail);
                continue;
            }
            file.ended |= index < surplus || file.quiet.elapsed() >= self.grace;
            match file.read(&mut work) {
                // It is still beside the log, and not to be found there as new.
                Ok(true) if file.ended => self.known.push(file.identity),
                Ok(at_end) => {
                    all_read = at_end;
                    kept.push(file);
                }
                Err(_) => self.lost(file.lag(), "a file that was moved away cannot be read any more", work.tail),
            }
        }
        self.leaving = kept;
        if let Some(current) = self.current.as_mut().filter(|_| all_read) {
            current.read(&mut work).map_err(|error| sentence(&self.path, &error))?;
        }
        Ok(())
    }

    /// Moves everything to its end: it was left too long ago to be news.
    fn leave_out(&mut self, since: Timestamp, tail: &mut Tail) {
        let mut bytes = 0;
        for file in &mut self.leaving {
            drop(file.is_cut());
            bytes += file.lag();
        }
        self.leaving.clear();
        if let Some(current) = &mut self.current {
            let (before, size) = (current.offset, current.size);
            if current.skip_to_end().is_ok() {
                bytes += current.offset.max(size).saturating_sub(before);
            }
        }
        self.lost(
            bytes,
            &format!("it was last read at {since}, too long ago to go on there: it is read from its end"),
            tail,
        );
    }

    /// Something was written that is not looked at.
    fn lost(&self, bytes: u64, what: &str, tail: &mut Tail) {
        tail.dropped_bytes += bytes;
        let (signal, path) = (&self.signal, self.path.display());
        tracing::warn!(event = "signal.log_lost", signal, %path, bytes, "lines of a log are left out: {what}");
    }

    fn saved(&self) -> Saved {
        Saved {
            // Until the path was looked at, what was known of it is as old as it was.
            at: self.resumed.unwrap_or(self.looked),
            path: self.path.clone(),
            current: self.current.as_ref().map(Followed::place),
            // What has no name any more will not be found again; that it had nothing more to say need not be kept.
            leaving: self
                .leaving
                .iter()
                .filter(|file| file.has_name() || file.lag() > 0)
                .map(Followed::place)
                .collect(),
            known: self.known.clone(),
        }
    }

    fn sentence(&self, error: &std::io::Error) -> String {
        sentence(&self.path, error)
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        if self.begun {
            let saved = self.saved();
            if let Some(checkpoint) = &mut self.checkpoint {
                checkpoint.write(saved);
            }
        }
    }
}

fn identities(siblings: &[Sibling]) -> Vec<Identity> {
    siblings.iter().map(|sibling| sibling.followed.identity.clone()).collect()
}

/// What a failure means to whoever reads it.
pub(super) fn sentence(path: &Path, error: &std::io::Error) -> String {
    let path = path.display();
    if error.kind() == ErrorKind::NotFound {
        format!("there is no log at {path}")
    } else if error.kind() == ErrorKind::PermissionDenied {
        format!("the log {path} may not be read: give rollbackd's user the right to")
    } else {
        format!("the log {path} cannot be read: {error}")
    }
}

#[cfg(test)]
pub(super) mod testing {
    use super::*;

    /// Closes files that were moved away at once.
    pub(in crate::signal::log) fn impatient(follower: &mut Follower) {
        follower.grace = Duration::ZERO;
    }

    /// Makes the checkpoint of the signal `app` so many seconds older.
    pub(in crate::signal::log) fn age(state_dir: &Path, seconds: i64) {
        let mut checkpoint = Checkpoint::new(state_dir, "app");
        let mut saved = checkpoint.load().unwrap().unwrap();
        saved.at = clock::now() - SignedDuration::from_secs(seconds);
        checkpoint.write(saved);
    }
}
