//! Regular expressions.

use std::ops::Range;

use regex::bytes::{Regex, RegexBuilder};

use super::value::{Text, Value};

/// The most memory that a compiled expression may take, and that matching with it may.
const LARGEST: usize = 4 * 1024 * 1024;

impl<'a> Value<'a> {
    /// A regular expression, which is matched on bytes, and where it is written.
    pub(super) fn pattern(self, expected: &str) -> Option<(Regex, Text<'a>)> {
        let text = self.text(expected)?;
        match RegexBuilder::new(&text.value).size_limit(LARGEST).dfa_size_limit(LARGEST).build() {
            Ok(pattern) => Some((pattern, text)),
            Err(regex::Error::CompiledTooBig(_)) => {
                let message = format!("`{}` is too large: it needs more than {} MiB", text.path, LARGEST >> 20);
                text.refuse(message, "too large", "repeat less often: such as \\d+ instead of \\d{1000}")
            }
            Err(error) => {
                let (reason, place) = told(&error.to_string(), &text.value);
                let message = format!("`{}` is not a regular expression: {reason}", text.path);
                let span = place.map_or_else(|| text.span.clone(), |place| within(&text, &place));
                let problem = super::problem::Problem::error(span, message).label("here");
                text.doc.report(problem.help(
                    "accepted: the syntax of Rust's `regex`, without look-around and back-references; write it between '…', so that \\ stays",
                ));
                None
            }
        }
    }
}

/// What is wrong with an expression, and at which of its bytes, out of what the library says: the expression on a line
/// of its own, carets under the place, then the reason.
fn told(message: &str, pattern: &str) -> (String, Option<Range<usize>>) {
    let last = message.lines().next_back().unwrap_or_default();
    let reason = last.strip_prefix("error: ").unwrap_or(last).to_owned();
    let carets = message.lines().find(|line| line.contains('^') && line.chars().all(|each| matches!(each, ' ' | '^')));
    let place = carets.filter(|_| !pattern.contains('\n')).map(|carets| {
        // The library sets everything in by four.
        let byte = |column: usize| {
            let start = pattern.char_indices().nth(column).map_or(pattern.len(), |(at, _)| at);
            start.min(pattern.len())
        };
        let first = carets.find('^').unwrap_or(0).saturating_sub(4);
        let width = carets.trim().len();
        byte(first)..byte(first + width)
    });
    (reason, place)
}

/// Where a part of the expression is written, when it is written as it is.
fn within(text: &Text<'_>, place: &Range<usize>) -> Range<usize> {
    let whole = text.span_of(&text.value);
    if whole.len() != text.value.len() {
        return text.span.clone();
    }
    // At its end nothing is left to underline.
    let start = place.start.min(text.value.len().saturating_sub(1));
    whole.start + start..whole.start + place.end.max(start + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_is_taken_from_what_the_library_says() {
        let place = |pattern: &str| {
            let error = Regex::new(pattern).unwrap_err().to_string();
            let (reason, place) = told(&error, pattern);
            (reason, place.map(|place| pattern[place].to_owned()))
        };
        assert_eq!(place("äa(b"), ("unclosed group".to_owned(), Some("(".to_owned())));
        assert_eq!(
            place("level=[z-a]"),
            ("invalid character class range, the start must be <= the end".to_owned(), Some("z-a".to_owned()))
        );
        assert_eq!(place("^^a{2,1}").1, Some("{2,1}".to_owned()));
        assert_eq!(place("a\n(").1, None);
    }
}
