//! How the story is told: plain lines of at most 80 columns, in numbered chapters with times.
//!
//! What happened comes from the journal's records, turned into [`Moment`]s and lines by pure functions.
//! Colours only where the narrator was told so: on a terminal, and never with `NO_COLOR`.

use std::io::{self, Write};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rollbackd_core::plan::{Method, Plan, Stage};
use rollbackd_core::run::record::{Entry, Record, WindowOutcome};
use rollbackd_core::run::step::{Outcome, Step};

use crate::clock::Stopwatch;

const WIDTH: usize = 80;
const INDENT: &str = "   ";

/// How a line is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// It happened.
    Plain,
    /// As it should be.
    Good,
    /// Not as it should be.
    Bad,
}

/// Something worth telling, and when it happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moment {
    /// When.
    pub at: Timestamp,
    /// How it is meant.
    pub tone: Tone,
    /// What.
    pub text: String,
}

/// Something the demo found out for itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Whether it is as it should be.
    pub good: bool,
    /// What.
    pub text: String,
}

impl Finding {
    /// As it should be, or not, with the sentence for either.
    pub fn of(result: Result<impl Into<String>, impl Into<String>>) -> Self {
        match result {
            Ok(text) => Self { good: true, text: text.into() },
            Err(text) => Self { good: false, text: text.into() },
        }
    }
}

/// Tells the story, line by line.
#[derive(Debug)]
pub struct Narrator<W> {
    out: W,
    colour: bool,
    since: Stopwatch,
    chapter: u32,
}

impl<W: Write> Narrator<W> {
    /// Starts the story's clock.
    pub fn new(out: W, colour: bool) -> Self {
        Self { out, colour, since: Stopwatch::start(), chapter: 0 }
    }

    /// A line of its own, outside the chapters.
    pub fn say(&mut self, text: &str) -> io::Result<()> {
        self.block("", "", text, Tone::Plain)
    }

    /// The next chapter's title, with the time.
    pub fn chapter(&mut self, title: &str) -> io::Result<()> {
        self.chapter += 1;
        let title = format!("{}. {title}", self.chapter);
        let time = offset(SignedDuration::try_from(self.since.elapsed()).unwrap_or(SignedDuration::MAX));
        let gap = WIDTH.saturating_sub(time.len());
        let line = format!("{title:gap$}{time}");
        let line = if self.colour { format!("\u{1b}[1m{line}\u{1b}[0m") } else { line };
        writeln!(self.out, "\n{line}")?;
        self.out.flush()
    }

    /// A line of a chapter.
    pub fn line(&mut self, text: &str) -> io::Result<()> {
        self.block(INDENT, INDENT, text, Tone::Plain)
    }

    /// A line that another program printed.
    pub fn relay(&mut self, text: &str) -> io::Result<()> {
        let prefix = format!("{INDENT}| ");
        self.block(&prefix, &prefix, text, Tone::Plain)
    }

    /// A finding.
    pub fn finding(&mut self, finding: &Finding) -> io::Result<()> {
        let (mark, tone) = if finding.good { ("ok", Tone::Good) } else { ("NO", Tone::Bad) };
        self.block(&format!("{INDENT}{mark}  "), &format!("{INDENT}    "), &finding.text, tone)
    }

    /// Moments, each with its time since `from`.
    pub fn timeline(&mut self, moments: &[Moment], from: Timestamp) -> io::Result<()> {
        for moment in moments {
            let time = offset(moment.at.duration_since(from));
            let first = format!("{INDENT}{time:>8}  ");
            self.block(&first, &" ".repeat(first.len()), &moment.text, moment.tone)?;
        }
        Ok(())
    }

    /// Wrapped lines; the first starts with `first`, the others with `next`.
    fn block(&mut self, first: &str, next: &str, text: &str, tone: Tone) -> io::Result<()> {
        let (start, end) = match tone {
            Tone::Good if self.colour => ("\u{1b}[32m", "\u{1b}[0m"),
            Tone::Bad if self.colour => ("\u{1b}[31m", "\u{1b}[0m"),
            Tone::Plain | Tone::Good | Tone::Bad => ("", ""),
        };
        let mut prefix = first;
        for line in wrap(text, WIDTH.saturating_sub(first.chars().count())) {
            writeln!(self.out, "{}", format!("{prefix}{start}{line}{end}").trim_end())?;
            prefix = next;
        }
        self.out.flush()
    }
}

/// `+3.1s`, `+1m02.5s`; with a minus for what was before.
pub fn offset(time: SignedDuration) -> String {
    let sign = if time.is_negative() { '-' } else { '+' };
    format!("{sign}{}", length(time.unsigned_abs()))
}

/// `3.1s`, `1m02.5s`.
pub fn length(time: Duration) -> String {
    let tenths = (time.as_millis() + 50) / 100;
    let (minutes, rest) = (tenths / 600, tenths % 600);
    if minutes == 0 {
        format!("{}.{}s", rest / 10, rest % 10)
    } else {
        format!("{minutes}m{:02}.{}s", rest / 10, rest % 10)
    }
}

/// Lines of at most `width` characters, broken between words; a longer word (a path, a URL) stays whole. Spaces inside
/// a line stay as they are, and those at the start are repeated. What is not printable becomes a space.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let printable: String = text.chars().map(|one| if one.is_control() { ' ' } else { one }).collect();
    let indent: String = printable.chars().take_while(|one| *one == ' ').collect();
    let mut lines = Vec::new();
    let mut line = indent.clone();
    for word in printable.trim().split(' ') {
        let empty = line.len() == indent.len();
        if !empty && line.chars().count() + 1 + word.chars().count() > width {
            lines.push(std::mem::replace(&mut line, indent.clone()));
        } else if !empty {
            line.push(' ');
        }
        line.push_str(word);
    }
    lines.push(line);
    lines
}

/// What of a window's records is worth telling, in order.
pub fn moments(entries: &[Entry]) -> Vec<Moment> {
    let plan = entries.iter().find_map(|entry| {
        if let Record::WindowOpened { plan, .. } = &entry.record { Some(plan.as_ref()) } else { None }
    });
    entries
        .iter()
        .filter_map(|entry| {
            let (tone, text) = if let Record::StepEnded { number, outcome } = &entry.record {
                step_ended(step(entries, *number)?, outcome, plan)?
            } else {
                told(&entry.record, plan)?
            };
            Some(Moment { at: entry.at, tone, text })
        })
        .collect()
}

/// The step with this number.
fn step(entries: &[Entry], number: u64) -> Option<&Step> {
    entries.iter().find_map(|entry| {
        let Record::StepStarted { number: started, step, .. } = &entry.record else { return None };
        (*started == number).then_some(step)
    })
}

/// A record other than a step's end.
fn told(record: &Record, plan: Option<&Plan>) -> Option<(Tone, String)> {
    let rung = |rung: &usize| format!("rung {} ({})", rung + 1, rung_kind(plan, *rung));
    Some(match record {
        Record::WindowOpened { id, .. } => (Tone::Plain, format!("the window {id} opens")),
        Record::StepStarted { step: Step::Migrate, .. } => (Tone::Plain, "the migration starts".to_owned()),
        Record::MigrationFinished { detail, .. } => (Tone::Plain, format!("the migration is over: {detail}")),
        Record::WarmedUp { .. } => (Tone::Good, "every signal has been healthy for long enough".to_owned()),
        Record::BreachDetected { trigger } => (Tone::Bad, format!("breach: {}", trigger.sentence())),
        Record::RungStarted { rung: number } => (Tone::Plain, format!("{} is tried", rung(number))),
        Record::RungFailed { rung: number, reason } => (Tone::Bad, format!("{} failed: {reason}", rung(number))),
        Record::OperatorNeeded { reason, .. } => (Tone::Bad, format!("an operator is needed: {reason}")),
        Record::WindowSettled { outcome, detail } => {
            let (tone, word) = match outcome {
                WindowOutcome::Passed => (Tone::Good, "passed"),
                WindowOutcome::Recovered => (Tone::Good, "recovered"),
                WindowOutcome::Refused => (Tone::Bad, "refused"),
                WindowOutcome::Cancelled => (Tone::Bad, "cancelled"),
                WindowOutcome::Abandoned => (Tone::Bad, "abandoned"),
            };
            (tone, format!("{word}: {detail}"))
        }
        Record::Condensed { .. }
        | Record::Started { .. }
        | Record::OpeningMissed { .. }
        | Record::ClockMoved { .. }
        | Record::StepStarted { .. }
        | Record::ProcessStarted { .. }
        | Record::StepEnded { .. }
        | Record::VerdictChanged { .. }
        | Record::RulePaged { .. }
        | Record::RuleQuieted { .. }
        | Record::HoldStarted { .. }
        | Record::HoldEnded { .. }
        | Record::Classified { .. }
        | Record::ApprovalRequested { .. }
        | Record::ApprovalGiven { .. }
        | Record::ResolutionStarted { .. }
        | Record::ResolutionFailed { .. }
        | Record::Acknowledged { .. }
        | Record::PageRepeated
        | Record::NoticeOwed { .. }
        | Record::NoticeDelivered { .. }
        | Record::NoticeDead { .. }
        | Record::NoticeCancelled { .. } => return None,
    })
}

/// The end of a step, where it is news.
fn step_ended(step: &Step, outcome: &Outcome, plan: Option<&Plan>) -> Option<(Tone, String)> {
    let what = match step {
        Step::Preflight => "preflight".to_owned(),
        Step::Backup => "backup and baseline".to_owned(),
        Step::CloseGate { .. } => "traffic is stopped".to_owned(),
        Step::OpenGate { .. } => "traffic flows again".to_owned(),
        Step::Act { rung } => rung_kind(plan, *rung).to_owned(),
        Step::Verify { stage: Stage::Closed } => "verified with traffic stopped".to_owned(),
        Step::Verify { stage: Stage::Open } => "verified with traffic flowing".to_owned(),
        Step::Migrate
        | Step::ReadGate { .. }
        | Step::EndProcess { .. }
        | Step::AwaitProcess { .. }
        | Step::Inspect { .. }
            if outcome.is_success() =>
        {
            return None;
        }
        Step::Migrate => "the migration".to_owned(),
        Step::ReadGate { .. } => "looking at a gate".to_owned(),
        Step::EndProcess { .. } => "ending a process".to_owned(),
        Step::AwaitProcess { .. } => "waiting for a process".to_owned(),
        Step::Inspect { .. } => "looking at the catalog".to_owned(),
    };
    let (tone, sign) = if outcome.is_success() { (Tone::Good, ":") } else { (Tone::Bad, " FAILED:") };
    Some((tone, format!("{what}{sign} {}", outcome.detail)))
}

fn rung_kind(plan: Option<&Plan>, rung: usize) -> &'static str {
    match plan.and_then(|plan| plan.rollback.rungs.get(rung)).map(|rung| &rung.method) {
        Some(Method::Script { .. }) => "the script",
        Some(Method::Tables(_)) => "the built-in removal",
        Some(Method::Restore) => "the restore from the backup",
        Some(Method::Sql { .. }) => "the SQL file",
        None => "a rung",
    }
}

#[cfg(test)]
mod tests;
