//! The few lines of a text around one place, cut so that they and the words below them fit the width.

use std::ops::Range;

use miette::{MietteError, MietteSpanContents, SourceCode, SourceSpan, SpanContents};

/// Columns that stand left of a line besides its number.
const GUTTER: usize = 4;
/// Columns between the middle of what is underlined and the words below it.
const STEM: usize = 4;

/// Columns within which a line's key is looked for.
const LONGEST_KEY: usize = 16;

/// A line with its neighbours.
#[derive(Debug)]
pub(super) struct Excerpt {
    file: String,
    text: String,
    /// How many lines stand before it.
    lines_before: usize,
    /// The column of what is underlined, from 0, in the whole line.
    column: usize,
    /// What is underlined, in the excerpt.
    pub(super) span: Range<usize>,
}

impl Excerpt {
    /// The lines around the beginning of a span. `words` is how long the words below it are.
    pub(super) fn of(file: &str, text: &str, span: &Range<usize>, words: usize, columns: usize) -> Self {
        let number = text.get(..span.start).unwrap_or_default().matches('\n').count();
        let starts: Vec<usize> = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        let line = |index: usize| {
            let start = starts.get(index).copied()?;
            let end = starts.get(index + 1).map_or(text.len(), |next| next - 1);
            Some((start, text.get(start..end)?.trim_end_matches('\r')))
        };
        let room = columns.saturating_sub((number + 2).to_string().len() + GUTTER).max(20);
        let (start, whole) = line(number).unwrap_or_default();
        let from = whole.get(..span.start - start).map_or(0, |before| before.chars().count());
        let marked = text.get(span.clone()).unwrap_or_default().lines().next().unwrap_or_default().chars().count();
        let (shown, marks) = cut(whole, from..from + marked, words, room);
        let before = number.checked_sub(1).and_then(line).map(|(_, line)| cut(line, 0..0, 0, room).0);
        let after = line(number + 1).map(|(_, line)| cut(line, 0..0, 0, room).0);

        let lead = before.as_ref().map_or(0, |line| line.len() + 1);
        let byte = |chars: usize| lead + shown.chars().take(chars).map(char::len_utf8).sum::<usize>();
        let span = byte(marks.start)..byte(marks.end);
        let lines_before = number - usize::from(before.is_some());
        let text = [before, Some(shown), after].into_iter().flatten().collect::<Vec<_>>().join("\n");
        Self { file: file.to_owned(), text, lines_before, column: from, span }
    }
}

/// The part of a line that fits, in which the marked characters and the words below them are in sight, and where the
/// marked characters are in it.
fn cut(line: &str, marked: Range<usize>, words: usize, room: usize) -> (String, Range<usize>) {
    let length = line.chars().count();
    let needed = (marked.end).max(marked.start.midpoint(marked.end) + STEM + words);
    if length <= room && needed <= room {
        return (line.to_owned(), marked);
    }
    let (mut skipped, mut shown) = (0, String::new());
    if needed > room {
        // The key stays in sight; what goes is the middle.
        let key = line.chars().take(LONGEST_KEY).position(|c| c == '=').map_or(0, |equals| equals + 2);
        let key = if key < marked.start { key } else { 0 };
        let cut = (needed - room + key + 1).min(marked.start);
        if cut > key {
            skipped = cut;
            shown = line.chars().take(key).chain(['…']).collect();
        }
    }
    let lead = shown.chars().count();
    let rest = length - skipped;
    if rest + lead <= room {
        shown.extend(line.chars().skip(skipped));
    } else {
        shown.extend(line.chars().skip(skipped).take(room.saturating_sub(lead + 1)));
        shown.push('…');
    }
    let end = shown.chars().count();
    let place = |at: usize| (at - skipped + lead).min(end);
    (shown, place(marked.start.max(skipped))..place(marked.end.max(skipped)))
}

impl SourceCode for Excerpt {
    fn read_span<'a>(
        &'a self,
        span: &SourceSpan,
        before: usize,
        after: usize,
    ) -> Result<Box<dyn SpanContents<'a> + 'a>, MietteError> {
        let found = self.text.read_span(span, before, after)?;
        // Asked without context, it is for the place that the heading names: that of the whole line.
        let column = if before == 0 { self.column } else { found.column() };
        let line = found.line() + self.lines_before;
        let (data, lines) = (found.data(), found.line_count());
        Ok(Box::new(MietteSpanContents::new_named(self.file.clone(), data, *found.span(), line, column, lines)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_fits_is_left_alone() {
        assert_eq!(cut("key = 1", 0..3, 5, 40), ("key = 1".to_owned(), 0..3));
    }

    #[test]
    fn a_long_line_is_cut_where_nothing_is_marked() {
        let line = "0123456789".repeat(10);
        assert_eq!(cut(&line, 2..4, 3, 20), ("0123456789012345678…".to_owned(), 2..4));
        let (shown, marked) = cut(&line, 95..98, 0, 20);
        assert_eq!(shown, "…1234567890123456789");
        assert_eq!(shown.chars().skip(marked.start).take(marked.len()).collect::<String>(), "567");
    }

    #[test]
    fn what_is_marked_stays_in_sight_with_the_words_below_it() {
        for (start, length, words) in [(0, 1, 0), (0, 300, 10), (50, 10, 30), (299, 1, 40), (200, 100, 5), (10, 5, 500)]
        {
            let line = "ä".repeat(300);
            let (shown, marked) = cut(&line, start..start + length, words, 60);
            assert!(shown.chars().count() <= 60, "{shown}");
            assert!(marked.start < 60 && marked.end <= 60 && !marked.is_empty(), "{marked:?}");
        }
    }
}
