//! A letter as plain text: the headline first, wrapped for 80 columns, commands as they stand. Pure.

use super::letter::{Block, Letter};

/// Leaves room for a reply's quotation marks.
const WIDTH: usize = 76;

/// Lays the letter out.
pub(super) fn render(letter: &Letter) -> String {
    let mut text = String::new();
    push(&mut text, &format!("[{}] {}: {}", letter.severity, letter.plan, letter.title), "", "");
    text.push('\n');
    push(&mut text, &letter.summary, "", "");
    if !letter.numbers.is_empty() {
        text.push_str("\nWHY\n");
        table(&mut text, &letter.numbers);
    }
    if !letter.blocks.is_empty() {
        text.push_str("\nDETAILS\n");
    }
    for (place, block) in letter.blocks.iter().enumerate() {
        match block {
            Block::Sentence(sentence) if numbered(sentence) => push(&mut text, sentence, "  ", "     "),
            Block::Sentence(sentence) => push(&mut text, sentence, "- ", "  "),
            Block::Commands(commands) => {
                text.push('\n');
                for command in commands {
                    text.push_str("  ");
                    text.push_str(command);
                    text.push('\n');
                }
                if place + 1 < letter.blocks.len() {
                    text.push('\n');
                }
            }
        }
    }
    if !letter.links.is_empty() {
        text.push_str("\nLINKS\n");
        table(&mut text, &letter.links);
    }
    text.push_str("\n--------\n");
    table(&mut text, &letter.facts);
    text
}

/// `1. …`: brings its own mark.
fn numbered(sentence: &str) -> bool {
    sentence.split_once(". ").is_some_and(|(number, _)| number.len() < 3 && number.bytes().all(|b| b.is_ascii_digit()))
}

/// Names and values in two columns.
fn table(text: &mut String, rows: &[(&'static str, String)]) {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let hang = " ".repeat(width + 4);
    for (name, value) in rows {
        push(text, value, &format!("  {name:width$}  "), &hang);
    }
}

/// Appends a paragraph, wrapped between words; a word longer than a line, such as an address, stays whole.
fn push(text: &mut String, paragraph: &str, first: &str, next: &str) {
    let mut line = first.to_owned();
    let mut empty = true;
    for word in paragraph.split_whitespace() {
        if !empty && line.chars().count() + 1 + word.chars().count() > WIDTH {
            text.push_str(line.trim_end());
            text.push('\n');
            next.clone_into(&mut line);
            empty = true;
        }
        if !empty {
            line.push(' ');
        }
        line.push_str(word);
        empty = false;
    }
    text.push_str(line.trim_end());
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::samples;

    fn text(notice: &rollbackd_core::notice::Notice) -> String {
        render(&Letter::of(notice))
    }

    #[test]
    fn a_breach_says_what_why_and_what_next() {
        insta::assert_snapshot!(text(&samples::breach()));
    }

    #[test]
    fn an_operator_gets_the_commands_as_they_stand() {
        insta::assert_snapshot!(text(&samples::needs_operator()));
    }

    #[test]
    fn steps_keep_their_numbers() {
        insta::assert_snapshot!(text(&samples::started()));
    }

    #[test]
    fn a_test_needs_no_sections() {
        insta::assert_snapshot!(text(&samples::test()));
    }

    #[test]
    fn only_commands_and_unbreakable_words_go_past_the_edge() {
        for notice in samples::all() {
            let commands: Vec<&str> = notice.message.details.iter().map(|line| line.trim()).collect();
            for line in text(&notice).lines().filter(|line| !commands.contains(&line.trim())) {
                assert!(line.chars().count() <= WIDTH || !line.trim().contains(' '), "{line}");
            }
        }
    }
}
