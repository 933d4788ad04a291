//! Lines, and what they count as.

use crate::config::model::LogSource;

/// How much of a line is looked at.
pub(super) const LONGEST: usize = 64 * 1024;
/// How much of a bad line is kept: more than is shown, so that a secret is whole when it is veiled.
const KEPT: usize = 2048;
/// How much of a bad line is shown.
const SHOWN: usize = 200;

/// What is told the lines, one by one, without their ends.
pub(super) trait Sink {
    /// A line, or as much of it as is looked at.
    fn line(&mut self, line: &[u8]);
}

/// Lines that were counted.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) good: u64,
    pub(super) bad: u64,
    /// The last bad line.
    last_bad: Vec<u8>,
}

impl Counts {
    /// The last bad line.
    pub(super) fn reason(&self) -> Option<String> {
        (self.bad > 0).then(|| String::from_utf8_lossy(&self.last_bad).into_owned())
    }
}

/// Counts lines by a signal's patterns.
#[derive(Debug)]
pub(super) struct Counter<'a> {
    pub(super) source: &'a LogSource,
    pub(super) counts: &'a mut Counts,
}

impl Sink for Counter<'_> {
    fn line(&mut self, line: &[u8]) {
        if !self.source.line.as_ref().map_or(!line.is_empty(), |pattern| pattern.is_match(line)) {
            return;
        }
        if self.source.error.is_match(line) {
            self.counts.bad += 1;
            self.counts.last_bad.clear();
            self.counts.last_bad.extend_from_slice(line.get(..KEPT).unwrap_or(line));
        } else {
            self.counts.good += 1;
        }
    }
}

/// Tells the sink every whole line of a text, and returns the length of what has no end yet. Of long lines the
/// beginning is told; the lengths of the rests are added up.
pub(super) fn split(text: &[u8], sink: &mut impl Sink, lines: &mut u64, dropped: &mut u64) -> usize {
    use std::io::BufRead as _;
    let mut rest = text;
    loop {
        let before = rest;
        // The standard library's fast search; it does not fail on memory.
        let length = rest.skip_until(b'\n').unwrap_or(0);
        let Some((line, b"\n")) = before.get(..length).and_then(|line| line.split_at_checked(length.saturating_sub(1)))
        else {
            return before.len();
        };
        *lines += 1;
        *dropped += tell(line, sink);
    }
}

/// Tells the sink a line, and returns how much of it was not told.
pub(super) fn tell(line: &[u8], sink: &mut impl Sink) -> u64 {
    if let Some(beginning) = line.get(..LONGEST)
        && line.len() > LONGEST
    {
        sink.line(beginning);
        return u64::try_from(line.len() - LONGEST).unwrap_or(u64::MAX);
    }
    sink.line(line.strip_suffix(b"\r").unwrap_or(line));
    0
}

/// A bad line as it is shown: on one line, without what could move a terminal's cursor, and not too long.
pub(crate) fn shown(line: &str) -> String {
    let blank = |each: char| each.is_whitespace() || each.is_control();
    let mut characters = line.trim_matches(blank).chars().map(|each| if blank(each) { ' ' } else { each });
    let mut text: String = characters.by_ref().take(SHOWN).collect();
    if characters.next().is_some() {
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use regex::bytes::Regex;

    use super::*;

    fn counted(error: &str, line: Option<&str>, text: &[u8]) -> (u64, u64, Option<String>) {
        let pattern = |text| Regex::new(text).unwrap();
        let source = LogSource { path: "/nowhere".into(), error: pattern(error), line: line.map(pattern) };
        let mut counts = Counts::default();
        let rest = split(text, &mut Counter { source: &source, counts: &mut counts }, &mut 0, &mut 0);
        assert_eq!(rest, 0);
        (counts.good, counts.bad, counts.reason())
    }

    #[test]
    fn lines_are_good_or_bad_or_do_not_count() {
        let text = b"level=info\nlevel=error a\n\n  debug level=error\nlevel=fatal \xff\xfe\r\nlevel=info\n";
        assert_eq!(counted("level=(error|fatal)", None, text), (2, 3, Some("level=fatal \u{fffd}\u{fffd}".to_owned())));
        assert_eq!(counted("error", Some("^level="), text), (3, 1, Some("level=error a".to_owned())));
        assert_eq!(counted("nothing", Some("^never"), text), (0, 0, None));
        // The end of a line written with CR LF is where a pattern expects it.
        assert_eq!(counted("info$", None, b"level=info\r\n"), (0, 1, Some("level=info".to_owned())));
        assert_eq!(counted(".", None, b"\xff\xff\n"), (1, 0, None), "bytes that are no text are a line");
    }

    struct Longest(usize);

    impl Sink for Longest {
        fn line(&mut self, line: &[u8]) {
            self.0 = self.0.max(line.len());
        }
    }

    #[test]
    fn of_a_long_line_the_beginning_counts() {
        let long = [b"x".repeat(LONGEST), b"error\n".to_vec()].concat();
        let (mut lines, mut dropped) = (0, 0);
        let mut longest = Longest(0);
        assert_eq!(split(&[long.clone(), b"no end".to_vec()].concat(), &mut longest, &mut lines, &mut dropped), 6);
        assert_eq!((longest.0, lines, dropped), (LONGEST, 1, 5));
        assert_eq!(counted("error", None, &long).1, 0);
    }

    #[test]
    fn what_is_shown_is_short_and_on_one_line() {
        assert_eq!(shown(" \u{1b}[31merror\ttwo\r"), "[31merror two");
        assert_eq!(shown(&"ä".repeat(201)), format!("{}…", "ä".repeat(200)));
        assert_eq!(shown(&"ä".repeat(200)), "ä".repeat(200));
    }
}
