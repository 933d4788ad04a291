//! The small pieces of Markdown: what comes from outside is escaped here, once.
//!
//! The source is meant to be read in a terminal too: paragraphs are wrapped at [`WIDTH`] columns, tables are padded.

use std::fmt::Write as _;

/// The columns that paragraphs are wrapped at.
pub(super) const WIDTH: usize = 80;

/// Text from outside as plain words: no line breaks, nothing that Markdown or HTML would read as markup.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    let mut before = ' ';
    let mut letters = one_line(text).chars().collect::<Vec<_>>().into_iter().peekable();
    while let Some(letter) = letters.next() {
        // An underscore inside a word, as in a table's name, is no markup.
        let inside = before.is_alphanumeric() && letters.peek().is_some_and(|next| next.is_alphanumeric());
        if matches!(letter, '\\' | '`' | '*' | '[' | '<' | '|') || (letter == '_' && !inside) {
            escaped.push('\\');
        }
        escaped.push(letter);
        before = letter;
    }
    escaped
}

/// Text from outside as code: a table, a path, a command.
pub(super) fn code(text: &str) -> String {
    let line = one_line(text);
    if line.is_empty() {
        return "(empty)".to_owned();
    }
    let fence = "`".repeat(longest_run(&line) + 1);
    let pad = if line.starts_with('`') || line.ends_with('`') { " " } else { "" };
    format!("{fence}{pad}{line}{pad}{fence}")
}

/// Text from outside as a block of code, its lines kept.
pub(super) fn block(text: &str) -> String {
    let fence = "`".repeat(longest_run(text).max(2) + 1);
    let clean: String = text.chars().filter(|letter| matches!(letter, '\n' | '\t') || !letter.is_control()).collect();
    format!("{fence}text\n{}\n{fence}\n", clean.trim_matches('\n'))
}

/// The longest run of backticks.
fn longest_run(text: &str) -> usize {
    text.split(|letter| letter != '`').map(str::len).max().unwrap_or(0)
}

/// Control characters and runs of spaces become one space.
fn one_line(text: &str) -> String {
    let spaced: String = text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
    spaced.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A wrapped paragraph of words that are Markdown already.
pub(super) fn paragraph(out: &mut String, text: &str) {
    wrap(out, text, "", "");
    out.push('\n');
}

/// A wrapped item of a list.
pub(super) fn item(out: &mut String, text: &str) {
    wrap(out, text, "- ", "  ");
}

fn wrap(out: &mut String, text: &str, first: &str, rest: &str) {
    let mut line = first.to_owned();
    let mut fresh = true;
    for word in text.split_whitespace() {
        if !fresh && line.chars().count() + 1 + word.chars().count() > WIDTH {
            out.push_str(&line);
            out.push('\n');
            rest.clone_into(&mut line);
            fresh = true;
        }
        if fresh {
            line.push_str(&defused(word));
        } else {
            line.push(' ');
            line.push_str(word);
        }
        fresh = false;
    }
    out.push_str(&line);
    out.push('\n');
}

/// A word that would begin a list, a quotation, a heading or a rule at the start of a line, so that it does not.
fn defused(word: &str) -> String {
    let marker = word.chars().all(|letter| matches!(letter, '-' | '+' | '=' | '#'))
        || word.starts_with("~~~")
        || word.starts_with('>');
    if marker {
        return format!("\\{word}");
    }
    match word.strip_suffix(['.', ')']) {
        Some(digits) if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            format!("{digits}\\{}", word.strip_prefix(digits).unwrap_or_default())
        }
        _ => word.to_owned(),
    }
}

/// A table whose columns line up in the source. The cells are Markdown; pipes in code are escaped here.
pub(super) fn table(out: &mut String, head: &[&str], rows: &[Vec<String>]) {
    let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(|cell| cell_text(cell)).collect()).collect();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain(head.get(column).map(|name| name.chars().count())).max().unwrap_or(0).max(3)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let mut line = |cells: &[String]| {
        for (cell, width) in cells.iter().zip(&widths) {
            let pad = width.saturating_sub(cell.chars().count());
            push(out, format_args!("| {cell}{} ", " ".repeat(pad)));
        }
        out.push_str("|\n");
    };
    line(&head.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
    line(&widths.iter().map(|width| "-".repeat(*width)).collect::<Vec<_>>());
    for row in &rows {
        line(row);
    }
    out.push('\n');
}

/// A cell's pipes escaped, also where code has left them.
fn cell_text(cell: &str) -> String {
    let mut text = String::with_capacity(cell.len());
    let mut before = ' ';
    for letter in cell.chars() {
        if letter == '|' && before != '\\' {
            text.push('\\');
        }
        text.push(if letter == '\n' { ' ' } else { letter });
        before = letter;
    }
    text
}

/// Appends; writing to a string cannot fail.
pub(super) fn push(out: &mut String, what: std::fmt::Arguments<'_>) {
    match out.write_fmt(what) {
        Ok(()) | Err(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Pipes that separate cells.
    fn separators(line: &str) -> usize {
        let mut escaped = false;
        line.chars()
            .filter(|letter| {
                let separates = *letter == '|' && !escaped;
                escaped = *letter == '\\' && !escaped;
                separates
            })
            .count()
    }

    proptest! {
        #[test]
        fn no_text_breaks_out_of_its_cell(text in "[a|\\\\`\n_*<> ]{0,20}") {
            let mut out = String::new();
            table(&mut out, &["one", "two"], &[vec![escape(&text), "x".to_owned()]]);
            let lines: Vec<&str> = out.trim_end().lines().collect();
            prop_assert_eq!(lines.len(), 3);
            prop_assert!(lines.iter().all(|line| separators(line) == 3), "{}", out);
        }

        #[test]
        fn no_text_breaks_out_of_its_block(text in "[a`\n~]{0,30}") {
            let block = block(&text);
            let fence: String = block.chars().take_while(|letter| *letter == '`').collect();
            prop_assert_eq!(block.matches(&fence).count(), 2);
        }
    }

    #[test]
    fn nothing_from_outside_is_markup() {
        for (text, expected) in [
            ("plain words", "plain words"),
            ("content_blocks", "content_blocks"),
            ("_this_", "\\_this\\_"),
            ("a|b\nc\t\u{1b}[31m d", "a\\|b c \\[31m d"),
            ("`x` *y* <b>", "\\`x\\` \\*y\\* \\<b>"),
            ("back\\slash", "back\\\\slash"),
        ] {
            assert_eq!(escape(text), expected);
        }
        assert_eq!(code("pages"), "`pages`");
        assert_eq!(code("a`b"), "``a`b``");
        assert_eq!(code("`a"), "`` `a ``");
        assert_eq!(code(""), "(empty)");
        assert_eq!(block("one\n```\ntwo\u{1b}\n"), "````text\none\n```\ntwo\n````\n");
    }

    #[test]
    fn a_wrapped_line_never_begins_like_a_list_or_a_heading() {
        let long = "word ".repeat(15);
        for (word, expected) in
            [("-", "\\-"), ("##", "\\##"), ("1.", "1\\."), ("---", "\\---"), (">", "\\>"), ("-c", "-c")]
        {
            let mut out = String::new();
            paragraph(&mut out, &format!("{long}12345 {word} end"));
            let second = out.lines().nth(1).expect("two lines");
            assert_eq!(second, format!("{expected} end"));
        }
    }

    #[test]
    fn tables_line_up_and_keep_their_columns() {
        let mut out = String::new();
        table(&mut out, &["a", "long name"], &[vec![code("x|y"), escape("1|2")], vec!["é".to_owned(), String::new()]]);
        assert_eq!(
            out,
            "| a      | long name |\n| ------ | --------- |\n| `x\\|y` | 1\\|2      |\n| é      |           |\n\n"
        );
    }
}
