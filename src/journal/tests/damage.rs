//! A file that is not what was written: refused with instructions, and read as far as it goes.

use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rollbackd_core::run::condense::condensed;

use super::redb::reading;
use super::*;

/// A journal with so many records, closed.
fn journal(records: u64) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _) = RedbJournal::open(directory.path()).unwrap();
    for seq in 1..=records {
        journal.append(&[sized(seq, usize::try_from(seq % 7).unwrap() * 300)]).unwrap();
    }
    let path = directory.path().join(redb::FILE);
    (directory, path)
}

/// Changes a text wherever it is in the file.
fn replace(path: &Path, from: &[u8], to: &[u8]) {
    assert_eq!(from.len(), to.len());
    let bytes = std::fs::read(path).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    let copies: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at..].starts_with(from)).collect();
    assert!(!copies.is_empty());
    for at in copies {
        file.write_all_at(to, at as u64).unwrap();
    }
}

fn refusal(directory: &tempfile::TempDir) -> String {
    RedbJournal::open(directory.path()).err().unwrap().to_string()
}

#[test]
fn damage_is_refused_with_instructions_and_read_up_to_there() {
    let (directory, path) = journal(200);
    replace(&path, b"\"v77\"", b"\"v99\"");
    let damaged = std::fs::read(&path).unwrap();
    let text = refusal(&directory);
    assert!(text.contains("is damaged") && text.contains("mv "), "{text}");
    std::fs::write(&path, &damaged).unwrap();
    let seen = reading::read(directory.path()).unwrap();
    assert!(matches!(seen.trouble, Some(OpenError::Damaged { .. })), "{:?}", seen.trouble);
    assert_eq!(seen.lines.last().unwrap().0, 76, "all before the damage");
    let (entries, trouble) = seen.entries();
    assert!(entries.len() == 76 && trouble.is_some());
    assert_eq!(std::fs::read(&path).unwrap(), damaged, "reading changes nothing");
}

#[test]
fn an_empty_or_foreign_file_is_damage_not_a_new_journal() {
    for content in [Vec::new(), b"not a journal at all".to_vec(), vec![0; 100_000]] {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join(redb::FILE), content).unwrap();
        let seen = reading::read(directory.path()).unwrap();
        assert!(seen.lines.is_empty() && seen.trouble.is_some());
        let text = refusal(&directory);
        assert!(text.contains("is damaged"), "{text}");
    }
}

/// What a crash leaves behind is no damage to who reads, and is not repaired by reading.
#[test]
fn a_file_that_was_not_closed_is_read_without_a_change() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _) = RedbJournal::open(directory.path()).unwrap();
    journal.append(&[entry(1), entry(2)]).unwrap();
    let path = directory.path().join(redb::FILE);
    let crashed = std::fs::read(&path).unwrap();
    drop(journal);
    assert_ne!(std::fs::read(&path).unwrap(), crashed, "closing writes");
    std::fs::write(&path, &crashed).unwrap();
    let seen = reading::read(directory.path()).unwrap();
    assert!(seen.trouble.is_none(), "{:?}", seen.trouble);
    assert_eq!(seen.entries().0, [entry(1), entry(2)]);
    assert_eq!(std::fs::read(&path).unwrap(), crashed);
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
}

/// Records are found again by their checksums when nothing else of the file is left, from what stands for the first ones.
#[test]
fn records_are_found_in_a_file_without_a_structure() {
    let (directory, path) = journal(60);
    let (journal, before) = RedbJournal::open(directory.path()).unwrap();
    journal.condense(&condensed(&before, 20).unwrap()).unwrap();
    let all = journal.read_from(1).unwrap();
    drop(journal);
    // The header, with the roots of everything.
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().write_all_at(&[0xff; 4096], 0).unwrap();
    let seen = reading::read(directory.path()).unwrap();
    assert!(seen.trouble.is_some());
    assert_eq!(seen.entries().0, all);
    replace(&path, b"\"v35\"", b"\"v53\"");
    assert_eq!(reading::read(directory.path()).unwrap().lines.last().unwrap().0, 34);
}

/// Bytes that rot anywhere: what is given as read is what was written, in order from the first, or nothing; and a journal that
/// can be opened holds what was written.
#[test]
fn no_damage_is_taken_for_a_record() {
    let (directory, path) = journal(60);
    let whole = std::fs::read(&path).unwrap();
    let all = reading::read(directory.path()).unwrap().entries().0;
    assert_eq!(all.len(), 60);
    let used: Vec<usize> = (0..whole.len()).filter(|at| whole[*at] != 0).collect();
    let (mut refused, mut points) = (0, 0);
    for seed in 0..150 {
        let random = &mut ChaCha8Rng::seed_from_u64(seed);
        let mut bytes = whole.clone();
        match seed % 3 {
            0 => bytes.truncate(random.random_range(0..whole.len())),
            1 => {
                let at = used[random.random_range(0..used.len())];
                bytes[at] ^= 1 << random.random_range(0..8);
            }
            _ => {
                let at = used[random.random_range(0..used.len())] / 512 * 512;
                let to = bytes.len().min(at + 512);
                random.fill(&mut bytes[at..to]);
            }
        }
        std::fs::write(&path, &bytes).unwrap();
        let (entries, trouble) = reading::read(directory.path()).unwrap().entries();
        assert!(entries.len() <= all.len() && all.starts_with(&entries), "seed {seed}");
        assert!(
            trouble.is_some() || entries.len() == all.len(),
            "seed {seed}: a loss of {} is not said",
            60 - entries.len()
        );
        assert!(std::fs::read(&path).unwrap() == bytes, "seed {seed}: reading has changed it");
        match RedbJournal::open(directory.path()) {
            Ok((_, opened)) => assert!(opened == all, "seed {seed}: {} of 60 are there", opened.len()),
            Err(error) => {
                assert!(matches!(error, OpenError::Damaged { .. }), "seed {seed}: {error}");
                refused += 1;
            }
        }
        points += 1;
    }
    assert!(refused > 20, "{refused}");
    println!("journal: {points} damaged files, {refused} refused, the others were as whole as before");
}
