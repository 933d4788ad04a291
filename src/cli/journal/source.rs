//! Where the records are from: the daemon that has the journal, or the file.

use std::path::PathBuf;

use rollbackd_core::run::record::Entry;

use crate::cli::client::Unanswered;
use crate::cli::output::say;
use crate::cli::place::{Place, look, refusal};
use crate::cli::{Exit, Stop};
use crate::journal::format::{parse, place as place_of, version};
use crate::journal::redb::FILE;

/// What was read.
pub(super) struct Seen {
    /// The journal's file.
    pub(super) path: PathBuf,
    /// The records in order, each with its place and as it is stored.
    pub(super) lines: Vec<(u64, String)>,
    /// What is wrong behind them, and the way out.
    pub(super) trouble: Option<Stop>,
    /// Whether a daemon was asked.
    pub(super) asked: bool,
}

/// Reads the whole journal.
pub(super) async fn read(place: &Place) -> Result<Seen, Stop> {
    let path = place.state_dir.join(FILE);
    let client = place.client();
    let mut seen = Seen { path, lines: Vec::new(), trouble: None, asked: true };
    loop {
        let after = seen.lines.last().map_or(0, |(seq, _)| *seq);
        match client.get_text(&format!("/api/v1/journal?after={after}"), "application/x-ndjson").await {
            Ok(text) if text.is_empty() => return Ok(seen),
            Ok(text) => {
                let placed = |line: &str| place_of(line).map(|seq| (seq, line.to_owned()));
                let lines: Option<Vec<_>> = text.lines().map(placed).collect();
                let lines = lines.filter(|lines| lines.first().is_some_and(|(seq, _)| *seq > after));
                let strange =
                    || Stop::new(Exit::Failed, "the daemon's answer is not understood: is it another version?");
                seen.lines.extend(lines.ok_or_else(strange)?);
            }
            // It may have ended in between.
            Err(Unanswered::NoDaemon(_)) => return from_file(place, seen.path),
            Err(Unanswered::Refused { status: 503, detail }) if after > 0 => {
                seen.trouble = Some(Stop::new(Exit::Failed, detail));
                return Ok(seen);
            }
            Err(error) => return Err(error.into()),
        }
    }
}

fn from_file(place: &Place, path: PathBuf) -> Result<Seen, Stop> {
    let reading = look(&place.state_dir).map_err(|error| Stop::new(refusal(&error), error.to_string()))?;
    say(&format!("no daemon answers; this is what {} holds", path.display()));
    let trouble = reading.trouble.map(|trouble| Stop::new(refusal(&trouble), trouble.to_string()));
    Ok(Seen { path, lines: reading.lines, trouble, asked: false })
}

impl Seen {
    /// The entries, and what is wrong behind them.
    pub(super) fn entries(self) -> (Vec<Entry>, Option<Stop>) {
        let mut entries = Vec::with_capacity(self.lines.len());
        for (seq, line) in &self.lines {
            match parse(*seq, line) {
                Ok(entry) => entries.push(entry),
                Err(error) => {
                    let error = error.at(&self.path);
                    return (entries, Some(Stop::new(refusal(&error), error.to_string())));
                }
            }
        }
        (entries, self.trouble)
    }

    /// The formats that are used, the oldest and the newest.
    pub(super) fn versions(&self) -> Option<(u32, u32)> {
        let versions = || self.lines.iter().filter_map(|(_, line)| version(line));
        versions().min().zip(versions().max())
    }
}
