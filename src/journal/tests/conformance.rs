//! What every journal does.

use std::sync::Arc;

use rollbackd_core::run::condense::condensed;
use rollbackd_core::run::state::State;

use super::disk::Disk;
use super::*;
use crate::journal::memory::MemoryJournal;

/// Where a journal is kept, to be opened again and again.
trait Place {
    /// Opens it; `None` when somebody has it.
    fn open(&self) -> Option<Arc<dyn Journal>>;

    /// Whether it can be open twice.
    const SHARED: bool = false;
}

impl Place for Arc<MemoryJournal> {
    const SHARED: bool = true;

    fn open(&self) -> Option<Arc<dyn Journal>> {
        Some(Arc::clone(self) as _)
    }
}

impl Place for tempfile::TempDir {
    fn open(&self) -> Option<Arc<dyn Journal>> {
        match RedbJournal::open(self.path()) {
            Ok((journal, entries)) => {
                assert_eq!(journal.read_from(1).unwrap(), entries);
                Some(Arc::new(journal))
            }
            Err(OpenError::Held { .. }) => None,
            Err(error) => panic!("{error}"),
        }
    }
}

impl Place for Disk {
    fn open(&self) -> Option<Arc<dyn Journal>> {
        match self.journal() {
            Ok(journal) => Some(Arc::new(journal)),
            Err(::redb::DatabaseError::DatabaseAlreadyOpen) => None,
            Err(error) => panic!("{error}"),
        }
    }
}

/// The suite.
fn conforms<P: Place>(place: &P) {
    let journal = place.open().unwrap();
    in_order_and_all_or_none(&*journal);
    assert_eq!(place.open().is_some(), P::SHARED, "two processes with one journal");
    drop(journal);
    let journal = place.open().unwrap();
    assert_eq!(journal.read_from(1).unwrap(), (1..=3).map(entry).collect::<Vec<_>>());
    large_and_many(&*journal);
    drop(journal);
    let journal = place.open().unwrap();
    lets_go(&*journal);
    drop(journal);
    let journal = place.open().unwrap();
    assert_eq!(journal.read_from(1).unwrap().first().unwrap().seq, 500);
    journal.append(&[entry(1005)]).unwrap();
    assert_eq!(journal.read_from(1004).unwrap(), [entry(1004), entry(1005)]);
}

fn in_order_and_all_or_none(journal: &dyn Journal) {
    assert_eq!(journal.read_from(1).unwrap(), []);
    assert_eq!(journal.lines_from(1, 100).unwrap(), Vec::<String>::new());
    assert_eq!(journal.sizes().unwrap(), []);
    let late = journal.append(&[entry(2)]).unwrap_err();
    assert!(matches!(late, AppendError::OutOfOrder { last: 0, found: 2 }), "{late}");
    journal.append(&[entry(1), entry(2)]).unwrap();
    journal.append(&[entry(3)]).unwrap();
    journal.append(&[]).unwrap();
    assert_eq!(journal.read_from(1).unwrap(), [entry(1), entry(2), entry(3)]);
    assert_eq!(journal.read_from(0).unwrap().len(), 3);
    assert_eq!(journal.read_from(3).unwrap(), [entry(3)]);
    assert_eq!(journal.read_from(4).unwrap(), []);
    let gap = journal.append(&[entry(4), entry(6)]).unwrap_err();
    assert!(matches!(gap, AppendError::OutOfOrder { last: 4, found: 6 }), "{gap}");
    let again = journal.append(&[entry(3)]).unwrap_err();
    assert!(matches!(again, AppendError::OutOfOrder { last: 3, found: 3 }), "{again}");
    assert_eq!(journal.read_from(1).unwrap().len(), 3, "a refused append leaves nothing behind");
    let nowhere = journal.condense(&entry(9)).unwrap_err();
    assert!(matches!(nowhere, AppendError::NoSuchPlace { seq: 9 }), "{nowhere}");
    assert_eq!(journal.read_from(1).unwrap().len(), 3);
}

fn large_and_many(journal: &dyn Journal) {
    let large = sized(4, 3 << 20);
    journal.append(std::slice::from_ref(&large)).unwrap();
    assert_eq!(journal.read_from(4).unwrap(), [large]);
    let many: Vec<Entry> = (5..=1004).map(entry).collect();
    journal.append(&many).unwrap();
    assert_eq!(journal.read_from(5).unwrap(), many);
    assert_eq!(journal.read_from(1000).unwrap(), many[995..]);
    let mut seq = 1;
    let mut lines = Vec::new();
    loop {
        let some = journal.lines_from(seq, 10_000).unwrap();
        let Some(last) = some.last() else { break };
        assert!(some.len() == 1 || some.iter().map(String::len).sum::<usize>() < (3 << 20) + 20_000);
        seq = format::place(last).unwrap() + 1;
        lines.extend(some);
    }
    let read: Vec<Entry> = (1..).zip(&lines).map(|(seq, line)| format::parse(seq, line).unwrap()).collect();
    assert_eq!(read, journal.read_from(1).unwrap(), "an export has everything");
    let sizes = journal.sizes().unwrap();
    assert!(sizes.iter().map(|(seq, _)| *seq).eq(1..=1004) && sizes[3].1 > 3 << 20);
}

fn lets_go(journal: &dyn Journal) {
    let before = journal.read_from(1).unwrap();
    let stands = condensed(&before, 500).unwrap();
    journal.condense(&stands).unwrap();
    let after = journal.read_from(1).unwrap();
    assert_eq!((&after[0], &after[1..]), (&stands, &before[500..]));
    assert_eq!(State::replay(&after), State::replay(&before));
    assert_eq!(journal.read_from(500).unwrap(), after);
    assert_eq!(journal.read_from(501).unwrap(), before[500..]);
    assert_eq!(journal.sizes().unwrap().len(), 505);
}

#[test]
fn memory() {
    conforms(&Arc::<MemoryJournal>::default());
}

#[test]
fn a_file() {
    conforms(&tempfile::tempdir().unwrap());
}

#[test]
fn a_disk_that_can_fail() {
    conforms(&Disk::default());
}
