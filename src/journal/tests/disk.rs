//! A disk in memory that loses, tears and forgets what was not flushed, fails, and fills up.

use std::io::{self, Error, ErrorKind};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard};

use ::redb::{BackendError, Builder, Database, DatabaseError, StorageBackend};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::super::redb::{Medium, RedbJournal, make_table};

/// What a disk writes at once.
const SECTOR: usize = 512;

/// Something that was written and not flushed.
#[derive(Debug, Clone)]
enum Change {
    Write { at: usize, bytes: Vec<u8> },
    Length(usize),
}

impl Change {
    fn make(&self, image: &mut Vec<u8>) {
        match self {
            Self::Write { at, bytes } => {
                image.resize(image.len().max(at + bytes.len()), 0);
                image[*at..at + bytes.len()].copy_from_slice(bytes);
            }
            Self::Length(length) => image.resize(*length, 0),
        }
    }
}

/// What happens at a write, a change of the length, or a flush.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// Nothing goes through from here on.
    PowerCut,
    /// This one call fails. A flush that fails forgets what it was to flush, and reading shows it all the same.
    Fails,
    /// There is no room for this one call.
    Full,
}

/// What is there after the power was cut, of what was not flushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Left {
    Nothing,
    Everything,
    /// What was written first.
    TheFirst,
    /// Any of the writes, each whole.
    Some,
    /// Any sectors of any of the writes.
    Sectors,
}

pub(super) const LEFT: [Left; 5] = [Left::Nothing, Left::Everything, Left::TheFirst, Left::Some, Left::Sectors];

#[derive(Debug, Default)]
struct Platter {
    durable: Vec<u8>,
    seen: Vec<u8>,
    pending: Vec<Change>,
    /// Calls so far.
    calls: u64,
    fault: Option<(u64, Fault)>,
    off: bool,
    held: bool,
    /// Nothing is written behind this; what is set aside comes on top.
    room: Option<usize>,
    reserve: usize,
}

impl Platter {
    fn call(&mut self) -> io::Result<()> {
        self.calls += 1;
        let fault = self.fault.filter(|(at, _)| *at == self.calls).map(|(_, fault)| fault);
        self.off |= fault == Some(Fault::PowerCut);
        match fault {
            _ if self.off => Err(Error::other("the power is cut")),
            None => Ok(()),
            Some(Fault::Full) => Err(ErrorKind::StorageFull.into()),
            Some(Fault::PowerCut | Fault::Fails) => Err(Error::other("input/output error")),
        }
    }

    fn change(&mut self, change: Change) -> io::Result<()> {
        self.call()?;
        if let (Some(room), Change::Write { at, bytes }) = (self.room, &change)
            && at + bytes.len() > room
        {
            return Err(ErrorKind::StorageFull.into());
        }
        change.make(&mut self.seen);
        self.pending.push(change);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        if let Err(error) = self.call() {
            if !self.off {
                self.pending.clear();
            }
            return Err(error);
        }
        for change in std::mem::take(&mut self.pending) {
            change.make(&mut self.durable);
        }
        Ok(())
    }
}

/// The disk. Its clones are the same disk.
#[derive(Debug, Clone, Default)]
pub(super) struct Disk(Arc<Mutex<Platter>>);

impl Disk {
    fn platter(&self) -> MutexGuard<'_, Platter> {
        self.0.lock().unwrap()
    }

    /// The journal on it.
    pub(super) fn journal(&self) -> Result<RedbJournal, DatabaseError> {
        let is_new = self.platter().seen.is_empty();
        let database = Medium::open(self)?;
        if is_new {
            make_table(&database).unwrap();
        }
        Ok(RedbJournal::over(Box::new(self.clone()), database))
    }

    /// Another disk with the same bytes.
    pub(super) fn copy(&self) -> Self {
        let platter = self.platter();
        let (durable, seen) = (platter.durable.clone(), platter.seen.clone());
        Self(Arc::new(Mutex::new(Platter { durable, seen, ..Platter::default() })))
    }

    /// How many calls there were.
    pub(super) fn calls(&self) -> u64 {
        self.platter().calls
    }

    /// So many calls from now on, something happens.
    pub(super) fn plan(&self, after: u64, fault: Fault) {
        let mut platter = self.platter();
        platter.fault = Some((platter.calls + after, fault));
    }

    /// Whether what was planned has happened.
    pub(super) fn happened(&self) -> bool {
        let platter = self.platter();
        platter.fault.is_some_and(|(at, _)| at <= platter.calls)
    }

    /// Leaves no room but so much, and sets so much aside.
    pub(super) fn fill(&self, room: usize, reserve: usize) {
        let mut platter = self.platter();
        (platter.room, platter.reserve) = (Some(platter.seen.len() + room), reserve);
    }

    /// The power comes back. The journal must be closed.
    pub(super) fn restart(&self, left: Left, seed: u64) {
        let random = &mut ChaCha8Rng::seed_from_u64(seed);
        let mut platter = self.platter();
        let pending = std::mem::take(&mut platter.pending);
        let first = random.random_range(0..=pending.len());
        for (place, change) in pending.iter().enumerate() {
            let whole = match left {
                Left::Nothing => false,
                Left::Everything => true,
                Left::TheFirst => place < first,
                Left::Some => random.random(),
                Left::Sectors => {
                    for part in tear(change, random) {
                        part.make(&mut platter.durable);
                    }
                    false
                }
            };
            if whole {
                change.make(&mut platter.durable);
            }
        }
        platter.seen = platter.durable.clone();
        (platter.fault, platter.off, platter.held) = (None, false, false);
    }
}

/// Some of the sectors of a write.
fn tear(change: &Change, random: &mut ChaCha8Rng) -> Vec<Change> {
    let Change::Write { at, bytes } = change else {
        return if random.random() { vec![change.clone()] } else { Vec::new() };
    };
    let mut parts = Vec::new();
    let mut from = 0;
    while from < bytes.len() {
        let to = bytes.len().min(from + SECTOR - (at + from) % SECTOR);
        if random.random() {
            parts.push(Change::Write { at: at + from, bytes: bytes[from..to].to_vec() });
        }
        from = to;
    }
    parts
}

impl Medium for Disk {
    fn open(&self) -> Result<Database, DatabaseError> {
        Builder::new().set_check_integrity_on_open(true).create_with_backend(self.clone())
    }

    fn renew(&self) -> io::Result<()> {
        let mut platter = self.platter();
        let bytes = platter.seen.clone();
        platter.change(Change::Length(bytes.len()))?;
        platter.change(Change::Write { at: 0, bytes })?;
        platter.flush()
    }

    fn make_room(&self) -> bool {
        let mut platter = self.platter();
        let reserve = std::mem::take(&mut platter.reserve);
        platter.room = platter.room.map(|room| room + reserve);
        reserve > 0
    }

    fn keep_room(&self) {}

    fn size(&self) -> u64 {
        self.platter().seen.len() as u64
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.platter().seen.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let platter = self.platter();
        let at = usize::try_from(offset).unwrap();
        let from = platter.seen.get(at..at + out.len()).ok_or(ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(from);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.platter().change(Change::Length(usize::try_from(length).unwrap()))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.platter().flush()
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.platter().change(Change::Write { at: usize::try_from(offset).unwrap(), bytes: bytes.to_vec() })
    }

    fn close(&self) -> io::Result<()> {
        self.platter().held = false;
        Ok(())
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        if (start, end) != (Bound::Unbounded, Bound::Unbounded) {
            return Err(BackendError::Unsupported);
        }
        Ok(!std::mem::replace(&mut self.platter().held, true))
    }
}
