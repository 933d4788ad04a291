//! Where a configuration keeps its state, and what the journal there says when no daemon answers.
//!
//! Looking and controlling need the state directory and nothing else: an operator may not be able to read the
//! secrets that the whole configuration needs.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rollbackd_core::run::record::Entry;
use rollbackd_core::run::state::State;
use serde::Deserialize;

use super::client::Client;
use super::exit::{Exit, Stop};
use super::output::say;
use crate::clock::Stopwatch;
use crate::config;
use crate::journal::redb::RedbJournal;
use crate::journal::redb::reading::{self, Reading};
use crate::journal::{Journal, OpenError, retention};

/// How long somebody who only looks may have the journal …
const A_MOMENT: Duration = Duration::from_secs(2);
/// … and how often it is tried.
const AGAIN: Duration = Duration::from_millis(20);

/// A configuration's name and state directory.
#[derive(Debug)]
pub(super) struct Place {
    /// `name`.
    pub(super) name: String,
    /// `state_dir`, absolute.
    pub(super) state_dir: PathBuf,
}

/// The part of a configuration that says where the rest is.
#[derive(Debug, Deserialize)]
struct Part {
    name: String,
    state_dir: PathBuf,
}

impl Place {
    /// Reads it from a configuration, which as a whole is only read when these two are not plain.
    pub(super) fn of(config: &Path) -> anyhow::Result<Self> {
        let path = std::path::absolute(config)?;
        let source = std::fs::read_to_string(&path).map_err(|error| {
            let config = config.display();
            let way_out = "name it with --config or ROLLBACKD_CONFIG";
            Stop::new(Exit::Configuration, format!("cannot read the configuration {config}: {error}; {way_out}"))
        })?;
        if let Ok(part) = toml::from_str::<Part>(&source) {
            let directory = path.parent().unwrap_or_else(|| Path::new("/"));
            return Ok(Self { name: part.name, state_dir: directory.join(part.state_dir) });
        }
        let config = load(config)?;
        Ok(Self { name: config.name, state_dir: config.state_dir })
    }

    /// The way to the daemon.
    pub(super) fn client(&self) -> Client {
        Client::new(&self.state_dir)
    }

    /// Every record in the journal, for when no daemon answers. A directory that is not there holds none.
    pub(super) fn records(&self) -> anyhow::Result<Vec<Entry>> {
        let directory = self.state_dir.display();
        if !self.state_dir.is_dir() {
            say(&format!("no daemon answers and {directory} is not there: nothing was ever guarded here"));
            return Ok(Vec::new());
        }
        say(&format!("no daemon answers; this is what the journal in {directory} says"));
        Ok(read_journal(&self.state_dir)?)
    }
}

/// The checked configuration.
pub(super) fn load(path: &Path) -> Result<config::model::Config, Stop> {
    match config::load(path) {
        Ok(loaded) => Ok(loaded.config),
        Err(problems) => Err(Stop::new(Exit::Configuration, format!("the configuration cannot be used\n{problems}"))),
    }
}

/// The journal, for as long as this process works with it.
pub(super) fn open_journal(state_dir: &Path) -> Result<(Arc<dyn Journal>, Vec<Entry>), Stop> {
    match patiently(|| RedbJournal::open(state_dir)) {
        Ok((journal, mut entries)) => {
            retention::at_start(&journal, &mut entries, retention::kept());
            Ok((Arc::new(journal), entries))
        }
        Err(error) => Err(Stop::new(refusal(&error), error.to_string())),
    }
}

/// What the journal's file holds, with nothing changed, for when no daemon answers.
pub(super) fn look(state_dir: &Path) -> Result<Reading, OpenError> {
    patiently(|| reading::read(state_dir))
}

/// The state that records make.
pub(super) fn state_of(entries: &[Entry]) -> State {
    State::replay(entries)
}

fn read_journal(state_dir: &Path) -> Result<Vec<Entry>, Stop> {
    let trouble = match look(state_dir).map(Reading::entries) {
        Ok((entries, None)) => return Ok(entries),
        Err(OpenError::Absent { .. }) => return Ok(Vec::new()),
        Ok((_, Some(trouble))) | Err(trouble) => trouble,
    };
    Err(Stop::new(refusal(&trouble), trouble.to_string()))
}

/// Who only looks, while no daemon runs, has the journal for a moment; a daemon keeps it.
fn patiently<T>(open: impl Fn() -> Result<T, OpenError>) -> Result<T, OpenError> {
    let watch = Stopwatch::start();
    loop {
        match open() {
            Err(OpenError::Held { .. }) if watch.elapsed() < A_MOMENT => std::thread::sleep(AGAIN),
            opened => return opened,
        }
    }
}

/// What is held by another process is not available; a damaged journal is a failure.
pub(super) const fn refusal(error: &OpenError) -> Exit {
    match error {
        OpenError::Held { .. } | OpenError::Absent { .. } => Exit::Unavailable,
        OpenError::Damaged { .. } | OpenError::Newer { .. } | OpenError::Storage { .. } => Exit::Failed,
    }
}
