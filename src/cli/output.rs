//! Text on the terminal: colour, width.

use std::io::{self, IsTerminal, Write};

pub(super) use rollbackd_core::words::{clock_time, moment, relative, words};

/// Columns of a terminal that everybody has.
pub(super) const WIDTH: usize = 80;
/// The widest that a column of names becomes.
pub(super) const NAMES: usize = 28;
/// The widest that a column of window ids becomes: they are there to be copied.
pub(super) const IDS: usize = 58;

/// Where commands write what they found out.
pub(super) struct Terminal {
    out: Box<dyn Write + Send>,
    /// The colours to write with.
    pub(super) paint: Paint,
    /// Whether it is a terminal that can be cleared.
    pub(super) is_screen: bool,
}

impl Terminal {
    /// Standard output.
    pub(super) fn stdout() -> Self {
        let is_screen = io::stdout().is_terminal();
        Self { out: Box::new(io::stdout()), paint: Paint::chosen(is_screen), is_screen }
    }

    /// Something that is not a terminal.
    #[cfg(test)]
    pub(super) fn plain(out: impl Write + Send + 'static) -> Self {
        Self { out: Box::new(out), paint: Paint::none(), is_screen: false }
    }

    /// Writes text, at once.
    pub(super) fn print(&mut self, text: &str) -> io::Result<()> {
        self.out.write_all(text.as_bytes())?;
        self.out.flush()
    }

    /// Writes a value as JSON.
    pub(super) fn print_json(&mut self, value: &impl serde::Serialize) -> anyhow::Result<()> {
        let mut text = serde_json::to_string_pretty(value)?;
        text.push('\n');
        Ok(self.print(&text)?)
    }
}

/// Writes a line of diagnostics to standard error. When that is closed there is nobody left to tell.
pub(super) fn say(line: &str) {
    drop(writeln!(io::stderr().lock(), "rollbackd: {line}"));
}

/// Writes text to standard error as it is.
pub(super) fn raw(text: &str) {
    drop(writeln!(io::stderr().lock(), "{}", text.trim_end()));
}

/// Colours, or none.
#[derive(Debug, Clone, Copy)]
pub(super) struct Paint(bool);

impl Paint {
    /// Colours on a terminal, and never with `NO_COLOR`.
    fn chosen(is_terminal: bool) -> Self {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || std::env::var_os("TERM").is_some_and(|value| value == "dumb");
        Self(is_terminal && !refused)
    }

    /// No colours.
    #[cfg(test)]
    pub(super) const fn none() -> Self {
        Self(false)
    }

    /// A heading.
    pub(super) fn bold(self, text: &str) -> String {
        self.wrap("1", text)
    }

    /// A verdict, state or outcome in the colour of its meaning.
    pub(super) fn word(self, word: &str) -> String {
        let code = match word.trim() {
            "healthy" | "quiet" | "passed" | "recovered" => "32",
            "suspect" | "held" | "blind" | "cancelled" | "refused" => "33",
            "breached" | "rolling_back" | "rolling back" | "needs_operator" | "needs operator" => "31",
            _ => return word.to_owned(),
        };
        self.wrap(code, word)
    }

    fn wrap(self, code: &str, text: &str) -> String {
        if self.0 { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

/// Rows in columns, two blanks apart and two in; no column is wider than `most`, and the last is cut to
/// the terminal's width.
pub(super) fn table(paint: Paint, most: usize, head: &[&str], rows: &[Vec<String>]) -> String {
    let cell = |row: &Vec<String>, column: usize| clean(row.get(column).map_or("", String::as_str));
    let widths: Vec<usize> = head
        .iter()
        .enumerate()
        .map(|(column, title)| {
            let widest = rows.iter().map(|row| cell(row, column).chars().count()).max().unwrap_or(0);
            widest.min(most).max(title.chars().count())
        })
        .collect();
    let mut text = String::new();
    let last = head.len().saturating_sub(1);
    for row in std::iter::once(None).chain(rows.iter().map(Some)) {
        let mut line = String::new();
        let mut used = 2;
        for (column, (title, width)) in head.iter().zip(&widths).enumerate() {
            let room = if column == last { WIDTH.saturating_sub(used) } else { *width };
            let raw = row.map_or_else(|| (*title).to_owned(), |row| cell(row, column));
            let shown = cut(&raw, room);
            let blanks = room.saturating_sub(shown.chars().count()) + 2;
            line.push_str(&if row.is_none() { shown } else { paint.word(&shown) });
            if column != last {
                line.push_str(&" ".repeat(blanks));
            }
            used += room + 2;
        }
        text.push_str("  ");
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Text that came from outside, without what a terminal would obey.
pub(super) fn clean(text: &str) -> String {
    text.chars().map(|char| if char.is_control() { ' ' } else { char }).collect()
}

/// At most so many characters, with a sign that something is missing.
pub(super) fn cut(text: &str, room: usize) -> String {
    if text.chars().count() <= room {
        return text.to_owned();
    }
    let mut shown: String = text.chars().take(room.saturating_sub(1)).collect();
    shown.push('…');
    shown
}

/// A paragraph with lines of the terminal's width, each indented.
pub(super) fn wrap(text: &str, indent: usize) -> String {
    let blanks = " ".repeat(indent);
    let mut lines = String::new();
    let mut line = String::new();
    for word in clean(text).split_whitespace() {
        if !line.is_empty() && indent + line.chars().count() + 1 + word.chars().count() > WIDTH {
            lines.extend([blanks.as_str(), &line, "\n"]);
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    if !line.is_empty() {
        lines.extend([blanks.as_str(), &line, "\n"]);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_is_wider_than_a_terminal_and_nothing_from_outside_commands_it() {
        let row = |reason: &str| vec!["n".repeat(60), "breached".to_owned(), reason.to_owned()];
        let rows = [row(&"x".repeat(200)), row("\u{1b}]0;owned\u{7}\nnext")];
        let text = table(Paint::none(), NAMES, &["NAME", "VERDICT", "REASON"], &rows);
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
        assert_eq!(text.lines().count(), 3);
        assert!(!text.contains('\u{1b}') && !text.contains('\u{7}'));
        let text = wrap(&"word ".repeat(60), 4);
        assert!(text.lines().all(|line| line.starts_with("    word") && line.chars().count() <= WIDTH), "{text}");
    }
}
