//! Files that are written, moved, cut, deleted and recreated, and what is read of them.

mod generated;
mod nginx;
mod turns;

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::PathBuf;

use tempfile::TempDir;

use super::lines::Sink;
use super::*;

/// The lines that were told.
#[derive(Debug, Default)]
struct Told(Vec<Vec<u8>>);

impl Sink for Told {
    fn line(&mut self, line: &[u8]) {
        self.0.push(line.to_vec());
    }
}

/// A directory with a log and what is needed to follow it.
struct Stage {
    directory: TempDir,
    path: PathBuf,
    follower: Option<Follower>,
    told: Told,
    tail: Tail,
}

impl Stage {
    /// A log that is followed from its beginning.
    fn new() -> Self {
        let mut stage = Self::empty();
        stage.write("");
        assert_eq!(stage.turn(), None);
        stage
    }

    /// No log yet, and nobody who follows it.
    fn empty() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("logs")).unwrap();
        let path = directory.path().join("logs/app.log");
        Self { directory, path, follower: None, told: Told::default(), tail: Tail::default() }
    }

    fn beside(&self, name: &str) -> PathBuf {
        self.path.with_file_name(name)
    }

    fn follower(&mut self) -> &mut Follower {
        let (path, directory) = (&self.path, self.directory.path());
        self.follower.get_or_insert_with(|| Follower::new("app", path, Some(Checkpoint::new(directory, "app"))))
    }

    /// Ends this life; the next turn begins another.
    fn restart(&mut self) {
        self.follower = None;
    }

    fn turn(&mut self) -> Option<String> {
        self.turn_within(MOST)
    }

    fn turn_within(&mut self, bytes: u64) -> Option<String> {
        let mut told = std::mem::take(&mut self.told);
        let turn = self.follower().turn(Allowance::new(bytes, Duration::from_secs(60)), &mut told);
        self.told = told;
        self.tail.lines += turn.tail.lines;
        self.tail.rotations += turn.tail.rotations;
        self.tail.truncations += turn.tail.truncations;
        self.tail.dropped_bytes += turn.tail.dropped_bytes;
        self.tail.lag_bytes = turn.tail.lag_bytes;
        turn.problem
    }

    /// Appends to the log, or makes it.
    fn write(&self, text: &str) {
        append(&self.path, text.as_bytes());
    }

    fn rename(&self, to: &str) {
        fs::rename(&self.path, self.beside(to)).unwrap();
    }

    fn copy(&self, to: &str) {
        fs::copy(&self.path, self.beside(to)).unwrap();
    }

    fn cut(&self) {
        File::options().write(true).open(&self.path).unwrap().set_len(0).unwrap();
    }

    /// Takes what was told so far, a word for each line.
    fn told(&mut self) -> String {
        let told = std::mem::take(&mut self.told.0);
        told.iter().map(|line| String::from_utf8_lossy(line).into_owned()).collect::<Vec<_>>().join(" ")
    }
}

fn append(path: &Path, bytes: &[u8]) {
    OpenOptions::new().create(true).append(true).open(path).unwrap().write_all(bytes).unwrap();
}
