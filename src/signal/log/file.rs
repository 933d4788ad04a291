//! One file that is read from where it was left.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::Duration;

use super::checkpoint::Place;
use super::identity::Identity;
use super::lines::{self, LONGEST, Sink};
use crate::clock::Stopwatch;
use crate::signal::Tail;

/// How much is read at once: much more than the longest line that is looked at, and little enough for a processor's
/// cache.
const CHUNK: usize = 256 * 1024;

/// A file, open. It is read to its end also when it has no name any more.
#[derive(Debug)]
pub(super) struct Followed {
    file: File,
    pub(super) identity: Identity,
    /// Where the first line begins that was not told.
    pub(super) offset: u64,
    /// The beginning of the line at `offset` was told, and its rest is to be dropped.
    skipping: bool,
    /// Its size when it was last looked at.
    pub(super) size: u64,
    /// Nothing more will come: a last line without an end is whole.
    pub(super) ended: bool,
    /// Since when nothing came.
    pub(super) quiet: Stopwatch,
}

/// What a turn may still read.
#[derive(Debug)]
pub(super) struct Allowance {
    bytes: u64,
    watch: Stopwatch,
    within: Duration,
}

impl Allowance {
    pub(super) fn new(bytes: u64, within: Duration) -> Self {
        Self { bytes, watch: Stopwatch::start(), within }
    }

    fn is_spent(&self) -> bool {
        self.bytes == 0 || self.watch.elapsed() >= self.within
    }
}

/// What reading needs, whichever file it is.
#[derive(Debug)]
pub(super) struct Work<'a, S> {
    pub(super) buffer: &'a mut Vec<u8>,
    pub(super) allowance: &'a mut Allowance,
    pub(super) tail: &'a mut Tail,
    pub(super) sink: &'a mut S,
}

impl Followed {
    /// Opens a file, to be read from its beginning. What is not a file could keep a reader for ever.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let nonblocking = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or(0);
        let file = OpenOptions::new().read(true).custom_flags(nonblocking).open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(ErrorKind::InvalidInput, "it is not a file"));
        }
        let identity = Identity::of(&file)?;
        Self::new(file, identity)
    }

    fn new(file: File, identity: Identity) -> io::Result<Self> {
        let size = file.metadata()?.len();
        Ok(Self { file, identity, offset: 0, skipping: false, size, ended: false, quiet: Stopwatch::start() })
    }

    /// The open file.
    pub(super) const fn file(&self) -> &File {
        &self.file
    }

    /// Moves to where the file that this is a copy of was left.
    pub(super) fn at(self, offset: u64, skipping: bool) -> Self {
        Self { offset, skipping, ..self }
    }

    /// Moves to where it was left in another life, with what was known of it then.
    pub(super) fn resumed(self, place: &Place) -> Self {
        Self { identity: place.identity.clone(), size: place.size, ..self }.at(place.offset, place.skipping)
    }

    /// Nothing more will come to it.
    pub(super) fn ended(self) -> Self {
        Self { ended: true, ..self }
    }

    /// Where it was left.
    pub(super) fn place(&self) -> Place {
        Place { identity: self.identity.clone(), offset: self.offset, skipping: self.skipping, size: self.size }
    }

    /// Whether it can still be found.
    pub(super) fn has_name(&self) -> bool {
        self.file.metadata().is_ok_and(|metadata| metadata.nlink() > 0)
    }

    /// Whether it was left in the middle of a long line.
    pub(super) const fn is_skipping(&self) -> bool {
        self.skipping
    }

    /// Bytes that are there and were not told.
    pub(super) const fn lag(&self) -> u64 {
        self.size.saturating_sub(self.offset)
    }

    /// Looks at it: whether it was cut since it was last looked at. Otherwise its size and its head are known anew.
    pub(super) fn is_cut(&mut self) -> io::Result<bool> {
        let size = self.file.metadata()?.len();
        if size < self.offset || !self.identity.begins(&self.file)? {
            return Ok(true);
        }
        if size != self.size {
            self.size = size;
            self.quiet = Stopwatch::start();
        }
        if !self.identity.is_whole() {
            self.identity = Identity::of(&self.file)?;
        }
        Ok(false)
    }

    /// Begins anew, after it was cut.
    pub(super) fn begin_anew(&mut self) -> io::Result<()> {
        self.identity = Identity::of(&self.file)?;
        self.size = self.file.metadata()?.len();
        (self.offset, self.skipping, self.quiet) = (0, false, Stopwatch::start());
        Ok(())
    }

    /// Moves to the end: to the beginning of the last line, when that is not written to its end yet.
    pub(super) fn skip_to_end(&mut self) -> io::Result<()> {
        self.size = self.file.metadata()?.len();
        let reach = u64::try_from(LONGEST).unwrap_or(u64::MAX).min(self.size);
        let from = self.size - reach;
        let mut buffer = vec![0; LONGEST];
        let length = self.fill(&mut buffer, from)?;
        let newline = buffer.get(..length).unwrap_or_default().iter().rposition(|byte| *byte == b'\n');
        let start = newline.map(|at| from + u64::try_from(at).unwrap_or(0) + 1);
        (self.offset, self.skipping) = match start {
            Some(start) => (start, false),
            None if from == 0 => (0, false),
            None => (self.size, true),
        };
        Ok(())
    }

    /// Reads what is there, and tells its lines. A last line without its end waits for it, unless nothing more will
    /// come. Returns whether the end was reached; otherwise the turn's allowance is spent.
    pub(super) fn read<S: Sink>(&mut self, work: &mut Work<'_, S>) -> io::Result<bool> {
        work.buffer.resize(CHUNK, 0);
        loop {
            if work.allowance.is_spent() {
                return Ok(false);
            }
            let length = self.fill(work.buffer, self.offset)?;
            let text = work.buffer.get(..length).unwrap_or_default();
            let at_end = length < CHUNK;
            let told = self.take(text, at_end && self.ended, work.tail, work.sink);
            self.offset += told;
            self.size = self.size.max(self.offset);
            work.allowance.bytes = work.allowance.bytes.saturating_sub(told);
            if at_end {
                return Ok(true);
            }
        }
    }

    /// Tells the lines of a text, and returns how much of it is done with.
    fn take(&mut self, text: &[u8], ended: bool, tail: &mut Tail, sink: &mut impl Sink) -> u64 {
        let whole = count(text.len());
        let mut rest = text;
        if self.skipping {
            let Some(end) = text.iter().position(|byte| *byte == b'\n') else {
                tail.dropped_bytes += whole;
                return whole;
            };
            tail.dropped_bytes += count(end);
            self.skipping = false;
            rest = text.get(end + 1..).unwrap_or_default();
        }
        let open = lines::split(rest, sink, &mut tail.lines, &mut tail.dropped_bytes);
        let line = rest.get(rest.len() - open..).unwrap_or_default();
        if line.len() > LONGEST || (ended && !line.is_empty()) {
            tail.lines += 1;
            tail.dropped_bytes += lines::tell(line, sink);
            self.skipping = !ended;
            return whole;
        }
        whole - count(open)
    }

    /// Reads from a place until the buffer is full or nothing is left.
    fn fill(&self, buffer: &mut [u8], from: u64) -> io::Result<usize> {
        let mut length = 0;
        while let Some(room) = buffer.get_mut(length..).filter(|room| !room.is_empty()) {
            match self.file.read_at(room, from + count(length)) {
                Ok(0) => break,
                Ok(read) => length += read,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(length)
    }
}

fn count(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}
