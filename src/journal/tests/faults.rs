//! Lost and torn writes, disks that fail and fill up: what was said to be durable is there afterwards, whole, and nothing
//! that was never written.
//!
//! A run appends entries of all sizes and lets old ones go. It is repeated with a fault at every call to the disk. What must
//! be there afterwards are the entries whose append was acknowledged, or these and the one under way, whole.

use rollbackd_core::run::condense::condensed;

use super::disk::{Disk, Fault, LEFT, Left};
use super::*;

/// What a run does, one after the other: so many entries of so many bytes; or old ones are let go.
const WORK: [Work; 16] = [
    Work::Append(1, 10),
    Work::Append(3, 100),
    Work::Append(1, 5_000),
    Work::Append(2, 10),
    Work::Append(4, 900),
    Work::Append(1, 9_000),
    Work::Condense(6),
    Work::Append(1, 10),
    Work::Append(2, 3_000),
    Work::Append(1, 100),
    Work::Append(5, 200),
    Work::Condense(15),
    Work::Append(1, 20_000),
    Work::Append(1, 10),
    Work::Append(3, 2_000),
    Work::Append(1, 10),
];

#[derive(Debug, Clone, Copy)]
enum Work {
    Append(u64, usize),
    Condense(u64),
}

/// What the journal holds after so much work, from nothing to all.
fn states() -> Vec<Vec<Entry>> {
    let mut states = vec![Vec::new()];
    for work in WORK {
        let mut next: Vec<Entry> = states.last().unwrap().clone();
        match work {
            Work::Append(count, bytes) => {
                let from = next.last().map_or(0, |entry| entry.seq) + 1;
                next.extend((from..from + count).map(|seq| sized(seq, bytes)));
            }
            Work::Condense(seq) => {
                let stands = condensed(&next, seq).unwrap();
                let place = next.iter().position(|entry| entry.seq == seq).unwrap();
                next.splice(..=place, [stands]);
            }
        }
        states.push(next);
    }
    states
}

/// Does one piece of work on the journal.
fn work(journal: &dyn Journal, number: usize, states: &[Vec<Entry>]) -> Result<(), AppendError> {
    match WORK[number] {
        Work::Append(count, _) => {
            let all = &states[number + 1];
            journal.append(&all[all.len() - usize::try_from(count).unwrap()..])
        }
        Work::Condense(_) => journal.condense(&states[number + 1][0]),
    }
}

/// Works until something fails, and says how much was done.
fn run(journal: &dyn Journal, states: &[Vec<Entry>]) -> usize {
    (0..WORK.len()).find(|number| work(journal, *number, states).is_err()).unwrap_or(WORK.len())
}

/// How many calls the run takes on a disk that works.
fn calls(states: &[Vec<Entry>]) -> u64 {
    let disk = Disk::default();
    let journal = disk.journal().unwrap();
    let before = disk.calls();
    assert_eq!(run(&journal, states), WORK.len());
    disk.calls() - before
}

/// A disk with a new journal on it, closed.
fn fresh() -> Disk {
    static MADE: std::sync::OnceLock<Disk> = std::sync::OnceLock::new();
    let made = MADE.get_or_init(|| {
        let disk = Disk::default();
        drop(disk.journal().unwrap());
        disk
    });
    made.copy()
}

/// Opens the journal and reads it.
fn read(disk: &Disk, told: &str) -> (RedbJournal, Vec<Entry>) {
    let journal = disk.journal().unwrap_or_else(|error| panic!("{told}: it cannot be opened: {error}"));
    let entries = journal.read_from(1).unwrap_or_else(|error| panic!("{told}: it cannot be read: {error}"));
    (journal, entries)
}

/// After a power cut at every call, whatever is left of what was not flushed, and another one while the journal is opened
/// again: nothing that was acknowledged is lost, and the journal can be gone on with.
#[test]
fn the_power_is_cut_at_every_call() {
    let states = states();
    let calls = calls(&states);
    let mut points = 0_u64;
    // A few more, for closing it.
    for at in 1..=calls + 4 {
        for (way, left) in LEFT.into_iter().enumerate() {
            let seed = at * 10 + way as u64;
            let disk = fresh();
            let journal = disk.journal().unwrap();
            disk.plan(at, Fault::PowerCut);
            let done = run(&journal, &states);
            drop(journal);
            assert!(disk.happened() || at > calls, "call {at}");
            disk.restart(left, seed);
            let told = format!("power cut at call {at} of {calls}, {left:?} left, seed {seed}, {done} pieces done");
            // Another cut, before the journal is open again.
            if at % 3 == 0 {
                disk.plan(seed % 9 + 1, Fault::PowerCut);
                drop(disk.journal());
                disk.restart(LEFT[usize::try_from(seed).unwrap() % LEFT.len()], seed + 1);
                points += 1;
            }
            let (journal, there) = read(&disk, &told);
            let next = states.get(done + 1);
            assert!(there == states[done] || Some(&there) == next, "{told}: {} entries are there", there.len());
            let last = there.last().map_or(0, |entry| entry.seq);
            journal.append(&[entry(last + 1)]).unwrap();
            assert_eq!(journal.read_from(last + 1).unwrap(), [entry(last + 1)], "{told}");
            points += 1;
        }
    }
    println!("journal: {points} power cuts at {calls} calls to the disk, nothing that was acknowledged was lost");
}

/// Works like the driver: what failed is looked for, and done again if it is not there.
fn insist(journal: &dyn Journal, states: &[Vec<Entry>], told: &str) {
    for number in 0..WORK.len() {
        if work(journal, number, states).is_ok() {
            continue;
        }
        let there =
            (0..5).find_map(|_| journal.read_from(1).ok()).unwrap_or_else(|| panic!("{told}: it stays unreadable"));
        if there == states[number + 1] {
            continue;
        }
        assert_eq!(there, states[number], "{told}: piece {number} is there by half");
        work(journal, number, states).unwrap_or_else(|error| panic!("{told}: piece {number}: {error}"));
    }
}

/// A write or flush that fails once, at every call. A flush that failed has forgotten what it was to flush, and the bytes
/// can be read all the same: they must not be believed.
#[test]
fn a_call_fails_and_what_it_should_have_flushed_is_forgotten() {
    let states = states();
    let calls = calls(&states);
    let mut points = 0_u64;
    for at in 1..=calls {
        for left in [Left::Nothing, Left::Sectors] {
            let disk = fresh();
            let journal = disk.journal().unwrap();
            disk.plan(at, Fault::Fails);
            let told = format!("call {at} of {calls} fails, {left:?} left");
            insist(&journal, &states, &told);
            assert_eq!(journal.read_from(1).unwrap(), states[WORK.len()], "{told}");
            // And now the power is cut: all that was acknowledged must be on the disk.
            disk.plan(1, Fault::PowerCut);
            journal.append(&[entry(1000)]).unwrap_err();
            drop(journal);
            disk.restart(left, at);
            assert_eq!(read(&disk, &told).1, states[WORK.len()], "{told}");
            points += 1;
        }
    }
    println!("journal: {points} failed calls, nothing that was acknowledged was lost");
}

/// No room for one call, at every call: the append goes through by itself, with what was set aside.
#[test]
fn the_disk_is_full_at_every_call_and_the_reserve_is_used() {
    let states = states();
    let calls = calls(&states);
    for at in 1..=calls {
        let disk = fresh();
        let journal = disk.journal().unwrap();
        disk.fill(64 << 20, 1);
        disk.plan(at, Fault::Full);
        let told = format!("no room at call {at} of {calls}");
        insist(&journal, &states, &told);
        assert_eq!(journal.read_from(1).unwrap(), states[WORK.len()], "{told}");
        drop(journal);
        assert_eq!(read(&disk, &told).1, states[WORK.len()], "{told}");
    }
    println!("journal: {calls} times no room, every append went through with the reserve");
}

/// A disk that is full to the last byte: appends go through until the reserve is used up, and then fail without harm.
#[test]
fn a_full_disk_is_stood_still_at_when_the_reserve_is_gone() {
    let disk = fresh();
    let journal = disk.journal().unwrap();
    journal.append(&[entry(1)]).unwrap();
    let reserve = 4 << 20;
    disk.fill(0, reserve);
    let mut seq = 1;
    let failed = loop {
        match journal.append(&[sized(seq + 1, 10_000)]) {
            Ok(()) => seq += 1,
            Err(error) => break error.to_string(),
        }
        assert!(seq < 10_000, "the disk is never full");
    };
    assert!(seq > 100, "{seq} records went into {reserve} bytes");
    assert!(failed.contains("could not be written"), "{failed}");
    assert_eq!(journal.read_from(1).unwrap().len() as u64, seq, "what is not there is not shown");
    drop(journal);
    disk.restart(Left::Nothing, 1);
    let (journal, there) = read(&disk, "full");
    assert_eq!(there.len() as u64, seq);
    disk.fill(1 << 20, 0);
    journal.append(&[entry(seq + 1)]).unwrap();
}
