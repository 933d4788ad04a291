//! Any sequence of writing, moving, cutting, deleting and looking: what is kept is told once, and nothing twice.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::signal::log::follow;

#[derive(Debug, Clone)]
enum Does {
    /// Writes whole lines.
    Lines(u8),
    /// Writes the beginning of a line; whatever is written next goes on with it.
    Begins,
    /// Writes a line that is longer than what is looked at.
    Long,
    /// Writes a line with bytes that are no text.
    Bytes,
    /// Writes a line to the file that was moved away last.
    Late,
    /// Moves the file away; the next one is there at once, or when something is written.
    Move { at_once: bool },
    /// Copies the file and cuts it.
    CopyAndCut,
    /// Deletes the file and makes it anew.
    Recreate,
    /// Looks.
    Turn,
    /// Looks, but not at much.
    ShortTurn,
    /// Ends, and begins again from the checkpoint.
    Restart,
}

fn does() -> impl Strategy<Value = Does> {
    prop_oneof![
        6 => (1..4_u8).prop_map(Does::Lines),
        2 => Just(Does::Begins),
        1 => Just(Does::Long),
        1 => Just(Does::Bytes),
        2 => Just(Does::Late),
        2 => any::<bool>().prop_map(|at_once| Does::Move { at_once }),
        2 => Just(Does::CopyAndCut),
        1 => Just(Does::Recreate),
        6 => Just(Does::Turn),
        1 => Just(Does::ShortTurn),
        2 => Just(Does::Restart),
    ]
}

/// What was written, and where it can still be found.
struct World {
    stage: Stage,
    /// The last number that was given to a line.
    number: usize,
    /// The number of the log's last line, while it has no end.
    begun: Option<usize>,
    /// How often the log was moved away or copied.
    moved: usize,
    /// The file that was moved away last, until it can no longer be known whether it is held open.
    late: Option<PathBuf>,
    /// The lines that were written since the last turn to files that are at the path or beside it.
    unread: BTreeSet<usize>,
    /// Whether the file at the path was there at a turn in this life.
    is_held: bool,
    /// Lines of deleted files that may not have been told yet: they are gone with whoever holds the file.
    deleted: BTreeSet<usize>,
    /// Lines that need not be told.
    excused: BTreeSet<usize>,
}

impl World {
    fn new() -> Self {
        let stage = Stage::new();
        let (unread, deleted, excused) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        Self { stage, number: 0, begun: None, moved: 0, late: None, unread, is_held: true, deleted, excused }
    }

    /// The next line's number, and how it begins. Heads differ from the first few bytes on.
    fn next(&mut self) -> (usize, String) {
        self.number += 1;
        (self.number, format!("{:06} ", self.number))
    }

    fn write(&mut self, rest: &[u8]) {
        let (number, mut text) = match self.begun.take() {
            Some(number) => (number, String::new()),
            None => self.next(),
        };
        text.push('x');
        append(&self.stage.path, &[text.as_bytes(), rest, b"\n"].concat());
        self.unread.insert(number);
    }

    fn turn(&mut self, bytes: u64) {
        let problem = self.stage.turn_within(bytes);
        let exists = self.stage.path.exists();
        assert_eq!(problem.is_none(), exists, "{problem:?}");
        self.is_held = exists;
        if bytes > 1 {
            self.unread = self.begun.into_iter().collect();
        }
    }

    fn act(&mut self, does: &Does) {
        match does {
            Does::Lines(count) => (0..*count).for_each(|_| self.write(b"")),
            Does::Begins if self.begun.is_none() => {
                let (number, text) = self.next();
                self.begun = Some(number);
                self.unread.insert(number);
                self.stage.write(&text);
            }
            Does::Begins => self.stage.write("more"),
            Does::Long => self.write(&b"y".repeat(lines::LONGEST + 1)),
            Does::Bytes => self.write(b"\xff\xfe\x00\xc3"),
            Does::Late => self.write_late(),
            Does::Move { at_once } => self.move_away(*at_once),
            Does::CopyAndCut if self.stage.path.exists() => {
                self.moved += 1;
                self.stage.copy(&format!("app.log.{}", self.moved));
                self.stage.cut();
                // A line that was begun is whole in the copy: nothing more comes to it.
                self.begun = None;
            }
            Does::CopyAndCut => {}
            Does::Recreate => {
                if self.stage.path.exists() {
                    fs::remove_file(&self.stage.path).unwrap();
                    self.lose_what_was_deleted();
                }
                self.begun = None;
                self.stage.write("");
                self.is_held = false;
            }
            Does::Turn => self.turn(MOST),
            Does::ShortTurn => self.turn(1),
            Does::Restart => {
                self.stage.restart();
                self.is_held = false;
                self.excused.append(&mut self.deleted);
            }
        }
    }

    fn write_late(&mut self) {
        let Some(late) = self.late.clone() else { return };
        let (number, text) = self.next();
        append(&late, format!("{text}late\n").as_bytes());
        self.unread.insert(number);
    }

    fn move_away(&mut self, at_once: bool) {
        if !self.stage.path.exists() {
            return;
        }
        self.moved += 1;
        let name = format!("app.log.{}", self.moved);
        self.stage.rename(&name);
        // What was begun is never ended.
        let begun = self.begun.take();
        self.late = begun.is_none().then(|| self.stage.beside(&name));
        if at_once {
            self.stage.write("");
        }
        self.is_held = false;
    }

    /// What is deleted is read only by whoever holds it.
    fn lose_what_was_deleted(&mut self) {
        let lost = if self.is_held { &mut self.deleted } else { &mut self.excused };
        lost.extend(&self.unread);
    }
}

fn numbers(told: &[Vec<u8>]) -> BTreeMap<usize, usize> {
    let mut counts = BTreeMap::new();
    for line in told {
        let number = std::str::from_utf8(&line[..6]).unwrap().parse().unwrap();
        *counts.entry(number).or_insert(0) += 1;
    }
    counts
}

proptest! {
    // Every restart waits for the disk.
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 2, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_lost_or_doubled(sequence in proptest::collection::vec(does(), 1..40)) {
        let mut world = World::new();
        for does in &sequence {
            world.act(does);
        }
        world.stage.write("");
        world.turn(MOST);
        follow::testing::impatient(world.stage.follower());
        world.turn(MOST);
        world.turn(MOST);
        let told = numbers(&world.stage.told.0);
        // Only the line that is being written waits.
        let written = (1..=world.number).filter(|number| world.begun != Some(*number));
        for number in written {
            let times = told.get(&number).copied().unwrap_or(0);
            let least = usize::from(!world.excused.contains(&number));
            prop_assert!((least..=1).contains(&times), "line {number} was told {times} times; {:?}", world.stage.tail);
        }
        prop_assert_eq!(world.stage.tail.lag_bytes == 0, world.begun.is_none());
    }
}
