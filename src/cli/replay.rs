//! `rollbackd replay`: today's rules over recorded samples.
//!
//! The samples are those of a recorded window, of a file in the same format, or of a Prometheus range query. Nothing is
//! changed and nobody is asked: it needs neither a daemon nor a database.

mod text;

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};

use clap::Args;
use jiff::Timestamp;
use rollbackd_core::judge::Evidence;
use rollbackd_core::plan::Plan;
use rollbackd_core::replay::{Decided, Replay, Said, Seen, Variant, grid};
use serde::Serialize;

use super::output::{Terminal, say};
use super::place;
use super::{Exit, Stop};
use crate::config::model::Config;
use crate::samples::line::Line;
use crate::samples::{self, prometheus};
use crate::server::view::unify_times;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The window whose recording is looked at; default: the newest
    #[arg(long, value_name = "WINDOW", conflicts_with = "file")]
    window: Option<String>,
    /// Samples in a file instead: JSON lines, or what a Prometheus range query answered
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// The signal that a Prometheus answer holds values of
    #[arg(long, value_name = "NAME", requires = "file")]
    signal: Option<String>,
    /// So many events stand behind each value of a Prometheus answer, which is a share of bad ones then
    #[arg(long, value_name = "COUNT", requires = "file")]
    events: Option<u64>,
    /// Try other thresholds as well
    #[arg(long)]
    grid: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What came of it.
#[derive(Debug, Serialize)]
pub(super) struct Replayed {
    /// Where the samples are from.
    source: String,
    /// How many they are.
    samples: u64,
    /// Between which moments.
    from: Option<Timestamp>,
    to: Option<Timestamp>,
    /// Every time that a rule became breached.
    fired: Vec<Fired>,
    /// When the rules would have led to a rollback.
    decided: Option<Decided>,
    /// The rules that never fired.
    quiet: Vec<String>,
    /// Signals of the recording that the configuration does not have.
    unknown_signals: Vec<String>,
    /// Samples that the recording says it has lost.
    lost: u64,
    /// Other thresholds, and when each would have fired first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    grid: Vec<Tried>,
}

/// A rule that became breached.
#[derive(Debug, Serialize)]
struct Fired {
    rule: String,
    signal: String,
    at: Timestamp,
    observed: f64,
    threshold: f64,
    samples: u64,
    sentence: String,
}

/// A rule with another threshold.
#[derive(Debug, Serialize)]
struct Tried {
    rule: String,
    threshold: f64,
    configured: bool,
    fired_at: Option<Timestamp>,
}

impl From<Evidence> for Fired {
    fn from(evidence: Evidence) -> Self {
        let Evidence { rule, signal, at, observed, threshold, samples, sentence, .. } = evidence;
        Self { rule, signal, at, observed, threshold, samples, sentence }
    }
}

#[expect(clippy::unused_async, reason = "every command is")]
pub(super) async fn run(path: &Path, arguments: Arguments, terminal: &mut Terminal) -> anyhow::Result<Exit> {
    let config = place::load(path)?;
    let recording = open(&config, &arguments)?;
    let replayed = replay(&config, &arguments, &recording).map_err(|reason| Stop::new(Exit::Failed, reason))?;
    for signal in &replayed.unknown_signals {
        say(&format!("the samples of signal `{signal}` are left out: the configuration has no signal of that name"));
    }
    if arguments.json {
        let mut value = serde_json::to_value(&replayed)?;
        unify_times(&mut value);
        terminal.print_json(&value)?;
    } else {
        terminal.print(&text::of(&replayed, terminal.paint))?;
    }
    Ok(Exit::Done)
}

/// The file that is looked at.
fn open(config: &Config, arguments: &Arguments) -> Result<PathBuf, Stop> {
    let missing = |reason: String| Stop::new(Exit::Unavailable, reason);
    let path = match (&arguments.file, &arguments.window) {
        (Some(file), _) => file.clone(),
        (None, Some(window)) => samples::path(&config.state_dir, window),
        (None, None) => {
            let all = samples::recordings(&config.state_dir).map_err(|error| missing(error.to_string()))?;
            all.last().cloned().ok_or_else(|| {
                missing(format!("no window was recorded yet in {}", config.state_dir.join("samples").display()))
            })?
        }
    };
    if path.is_file() {
        return Ok(path);
    }
    let way_out = "`rollbackd history` lists the windows; the last 50 that were opened are recorded";
    Err(missing(format!("there is no recording {}; {way_out}", path.display())))
}

/// The judges that look at the same samples: today's rules, and those with other thresholds.
struct Judges {
    own: Replay,
    tried: Option<(Replay, Vec<Variant>)>,
}

impl Judges {
    fn new(plan: &Plan, began: Timestamp, asks_between: bool, with_grid: bool) -> Self {
        let tried = with_grid.then(|| {
            let (plan, variants) = grid(plan);
            (Replay::new(&plan, began, asks_between), variants)
        });
        Self { own: Replay::new(plan, began, asks_between), tried }
    }

    fn take(&mut self, seen: Seen, now: Timestamp) {
        if let Some((replay, _)) = &mut self.tried {
            replay.take(seen.clone(), now);
        }
        self.own.take(seen, now);
    }
}

fn replay(config: &Config, arguments: &Arguments, path: &Path) -> Result<Replayed, String> {
    let plan = config.plan("replay");
    let at_path = |reason: String| format!("{}: {reason}", path.display());
    let mut seen = Gathered::default();
    if first_line(path).map_err(at_path)?.is_some_and(|line| prometheus::is_one(&line)) {
        seen.take_prometheus(&plan, arguments, path).map_err(at_path)?;
    } else {
        seen.take_lines(&plan, arguments.grid, path).map_err(at_path)?;
    }
    let Gathered { judges, strange, lost, from, to, .. } = seen;
    let (own, tried) = judges.map_or((Said::default(), None), |judges| (judges.own.end(), judges.tried));
    let fired_once = |rule: &str| own.fired.iter().any(|evidence| evidence.rule == rule);
    let quiet = plan.rules.iter().map(|rule| rule.name.clone()).filter(|name| !fired_once(name)).collect();
    Ok(Replayed {
        source: path.display().to_string(),
        samples: own.samples,
        from,
        to,
        quiet,
        fired: own.fired.into_iter().map(Fired::from).collect(),
        decided: own.decided,
        unknown_signals: strange,
        lost,
        grid: tried.map(|(replay, variants)| first_times(&replay.end(), variants)).unwrap_or_default(),
    })
}

/// When each variant fired first. Its rule bears its number as a name.
fn first_times(said: &Said, variants: Vec<Variant>) -> Vec<Tried> {
    let first = |number: usize| {
        let name = number.to_string();
        said.fired.iter().find(|evidence| evidence.rule == name).map(|evidence| evidence.at)
    };
    let tried = |(number, Variant { rule, threshold, configured }): (usize, Variant)| Tried {
        rule,
        threshold,
        configured,
        fired_at: first(number),
    };
    variants.into_iter().enumerate().map(tried).collect()
}

/// Whether a line is the first that a life of the daemon writes.
fn begins_a_life((_, text): &(usize, std::io::Result<Vec<u8>>)) -> bool {
    let line = text.as_ref().ok().and_then(|text| serde_json::from_slice::<Line>(text).ok());
    line.is_some_and(|line| line.rollbackd_samples.is_some())
}

fn first_line(path: &Path) -> Result<Option<String>, String> {
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    BufReader::new(file).lines().next().transpose().map_err(|error| error.to_string())
}

/// What was read so far.
#[derive(Default)]
struct Gathered {
    judges: Option<Judges>,
    recorded: bool,
    strange: Vec<String>,
    lost: u64,
    from: Option<Timestamp>,
    to: Option<Timestamp>,
}

impl Gathered {
    fn take(&mut self, plan: &Plan, with_grid: bool, now: Timestamp, seen: Seen) {
        let asks_between = !self.recorded;
        let judges = self.judges.get_or_insert_with(|| Judges::new(plan, now, asks_between, with_grid));
        judges.take(seen, now);
        self.from = Some(self.from.map_or(now, |from| from.min(now)));
        self.to = Some(self.to.map_or(now, |to| to.max(now)));
    }

    fn take_lines(&mut self, plan: &Plan, with_grid: bool, path: &Path) -> Result<(), String> {
        let known: Vec<&str> = plan.signals.iter().map(|signal| signal.name.as_str()).collect();
        let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
        // Bytes, because a crash may cut a letter in two.
        let mut lines = BufReader::new(file).split(b'\n').enumerate().peekable();
        while let Some((number, text)) = lines.next() {
            let text = text.map_err(|error| error.to_string())?;
            if text.trim_ascii().is_empty() {
                continue;
            }
            let line: Line = match serde_json::from_slice(&text) {
                Ok(line) => line,
                // A life of the daemon ended in the middle of it: it is the last, or the next life begins after it.
                Err(error) if error.is_eof() && self.recorded && lines.peek().is_none_or(begins_a_life) => {
                    say(&format!("line {} of {} is cut off, and left out", number + 1, path.display()));
                    continue;
                }
                Err(error) => return Err(format!("line {}: {error}", number + 1)),
            };
            self.recorded |= line.rollbackd_samples.is_some();
            self.lost = self.lost.saturating_add(line.lost.unwrap_or(0));
            let seen =
                line.seen(&known, &mut self.strange).map_err(|reason| format!("line {}: {reason}", number + 1))?;
            if let Some((now, seen)) = seen {
                self.take(plan, with_grid, now, seen);
            }
        }
        Ok(())
    }

    fn take_prometheus(&mut self, plan: &Plan, arguments: &Arguments, path: &Path) -> Result<(), String> {
        let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
        let names: Vec<&str> = plan.signals.iter().map(|signal| signal.name.as_str()).collect();
        let place = match (&arguments.signal, names.as_slice()) {
            (Some(name), _) => names
                .iter()
                .position(|known| known == name)
                .ok_or_else(|| format!("the configuration has no signal `{name}`; it has {}", names.join(", ")))?,
            (None, [_]) => 0,
            (None, _) => return Err(format!("say with --signal which of {} it holds values of", names.join(", "))),
        };
        for sample in prometheus::samples(&text, arguments.events)? {
            self.take(plan, arguments.grid, sample.at, Seen::Sample(place, sample));
        }
        Ok(())
    }
}
