//! What is wrong with a configuration, where, and what would be accepted; and how that is shown.
//!
//! The readers make [`Problem`]s; [`Problems`] keeps them together with the text they point into, out of
//! which everything secret has been masked before anything can be printed.

use std::fmt;
use std::io::IsTerminal;
use std::ops::Range;
use std::path::Path;

use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, SourceCode};

use super::excerpt::Excerpt;
use super::redact;

/// At most this many problems are drawn; the rest is counted.
const DRAWN: usize = 60;
/// So many are told where there is little room.
const BRIEF: usize = 3;

/// Whether a problem stops the configuration from being used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    /// It does.
    Error,
    /// It does not.
    Warning,
}

/// One thing that is wrong.
#[derive(Debug, Clone)]
pub struct Problem {
    /// Whether it stops the configuration from being used.
    pub weight: Weight,
    /// Where: bytes of the text.
    pub span: Range<usize>,
    /// What is wrong, in one sentence.
    pub message: String,
    /// A few words at the place itself.
    pub label: String,
    /// What would be accepted.
    pub help: Option<String>,
    /// Whether it was concluded from what is *not* there, which says nothing when the text could not be parsed.
    pub(super) by_absence: bool,
}

impl Problem {
    /// An error at a place.
    pub(super) fn error(span: Range<usize>, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { weight: Weight::Error, span, message, label: "here".to_owned(), help: None, by_absence: false }
    }

    /// A warning at a place.
    pub(super) fn warning(span: Range<usize>, message: impl Into<String>) -> Self {
        Self { weight: Weight::Warning, ..Self::error(span, message) }
    }

    /// Sets the words at the place itself.
    pub(super) fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// Says what would be accepted.
    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Marks it as concluded from what is not there.
    pub(super) const fn by_absence(mut self) -> Self {
        self.by_absence = true;
        self
    }
}

/// Everything that is wrong with one configuration, in the order of the text.
#[derive(Clone)]
pub struct Problems {
    file: String,
    /// The text with secrets masked, byte for byte as long as the original, so that spans and columns hold.
    text: String,
    list: Vec<Problem>,
}

impl Problems {
    /// Takes what the readers found. `secrets` are the places of the text that no one may see.
    pub(super) fn new(path: &Path, text: &str, secrets: &[Range<usize>], mut list: Vec<Problem>) -> Self {
        for problem in &mut list {
            problem.span = inside(text, &problem.span);
        }
        list.sort_by_key(|problem| (problem.span.start, problem.span.end));
        let text = if list.is_empty() { String::new() } else { redact::mask(text, secrets) };
        Self { file: path.display().to_string(), text, list }
    }

    /// A file that could not even be read.
    pub(super) fn unreadable(path: &Path, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self::new(path, "", &[], vec![Problem::error(0..0, message).help(help)])
    }

    /// How many there are.
    pub const fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Each of them.
    pub fn as_slice(&self) -> &[Problem] {
        &self.list
    }

    /// All of them as text: with colour or without, folded to this many columns.
    pub fn render(&self, colour: bool, columns: usize) -> String {
        let theme = if colour { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
        let columns = columns.max(40);
        let handler = GraphicalReportHandler::new_themed(theme).with_links(false).with_width(columns);
        let mut lines: Vec<String> = Vec::new();
        for problem in self.list.iter().take(DRAWN) {
            let excerpt = (!self.text.is_empty())
                .then(|| Excerpt::of(&self.file, &self.text, &problem.span, problem.label.chars().count(), columns));
            let drawn = Drawn { problem, excerpt };
            let mut picture = String::new();
            if handler.render_report(&mut picture, &drawn).is_err() {
                // Without the picture, but a problem is never swallowed.
                let (line, column) = self.position(problem.span.start);
                picture = format!("{}:{line}:{column}: {}\n", self.file, problem.message);
            }
            lines.push(picture);
        }
        if let Some(more) = self.list.len().checked_sub(DRAWN).filter(|more| *more > 0) {
            lines.push(format!("… and {more} more"));
        }
        lines.push(format!("{}: {}\n", self.file, self.summary()));
        lines.join("\n")
    }

    /// All of them for standard error: as wide as the terminal, coloured on a terminal unless `NO_COLOR` is set.
    pub fn render_for_stderr(&self) -> String {
        let stderr = std::io::stderr();
        let columns = rustix::termios::tcgetwinsize(&stderr).map_or(80, |size| usize::from(size.ws_col));
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        self.render(stderr.is_terminal() && !plain, if columns == 0 { 80 } else { columns.min(120) })
    }

    /// All of them for programs.
    pub fn to_json(&self) -> serde_json::Value {
        self.list.iter().map(|problem| self.one_to_json(problem)).collect()
    }

    fn one_to_json(&self, problem: &Problem) -> serde_json::Value {
        let (line, column) = self.position(problem.span.start);
        serde_json::json!({
            "severity": match problem.weight { Weight::Error => "error", Weight::Warning => "warning" },
            "file": self.file,
            "line": line,
            "column": column,
            "text": self.text.get(problem.span.clone()).unwrap_or_default(),
            "message": problem.message,
            "label": problem.label,
            "help": problem.help,
        })
    }

    /// The first few in a line each, without a picture: for places that have little room.
    pub fn brief(&self) -> String {
        let errors: Vec<&Problem> = self.list.iter().filter(|problem| problem.weight == Weight::Error).collect();
        let mut lines: Vec<String> = errors
            .iter()
            .take(BRIEF)
            .map(|problem| {
                let (line, column) = self.position(problem.span.start);
                format!("{}:{line}:{column}: {}", self.file, problem.message)
            })
            .collect();
        if let Some(more) = errors.len().checked_sub(BRIEF).filter(|more| *more > 0) {
            lines.push(format!("and {more} more: `rollbackd check` shows them all"));
        }
        lines.join("; ")
    }

    /// Line and column of a byte, both from 1, columns in characters.
    fn position(&self, offset: usize) -> (usize, usize) {
        let before = self.text.get(..offset).unwrap_or_default();
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let column = before.get(line_start..).unwrap_or_default().chars().count() + 1;
        (before.matches('\n').count() + 1, column)
    }

    /// `3 problems, 1 warning`.
    fn summary(&self) -> String {
        let errors = self.list.iter().filter(|problem| problem.weight == Weight::Error).count();
        let warnings = self.list.len() - errors;
        let counted = rollbackd_core::words::counted;
        match (errors, warnings) {
            (0, 0) => "no problems".to_owned(),
            (0, _) => counted(warnings, "warning"),
            (_, 0) => counted(errors, "problem"),
            (_, _) => format!("{}, {}", counted(errors, "problem"), counted(warnings, "warning")),
        }
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false, 80))
    }
}

impl fmt::Debug for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\n")?;
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Problems {}

/// The part of a span that lies in the text, on whole characters.
fn inside(text: &str, span: &Range<usize>) -> Range<usize> {
    let floor = |offset: usize| (0..=offset.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    let start = floor(span.start);
    start..floor(span.end).max(start)
}

/// One problem with the lines it points into, as miette draws it.
struct Drawn<'a> {
    problem: &'a Problem,
    excerpt: Option<Excerpt>,
}

impl fmt::Display for Drawn<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problem.message)
    }
}

impl fmt::Debug for Drawn<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Drawn<'_> {}

impl Diagnostic for Drawn<'_> {
    fn severity(&self) -> Option<miette::Severity> {
        Some(match self.problem.weight {
            Weight::Error => miette::Severity::Error,
            Weight::Warning => miette::Severity::Warning,
        })
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.problem.help.as_ref().map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.excerpt.as_ref().map(|excerpt| excerpt as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let excerpt = self.excerpt.as_ref()?;
        let label = LabeledSpan::new_primary_with_span(Some(self.problem.label.clone()), excerpt.span.clone());
        Some(Box::new(std::iter::once(label)))
    }
}
