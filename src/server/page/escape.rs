//! Text from outside → text in HTML that shows what it is.

use std::fmt::Write as _;

use minijinja::HtmlEscape;

/// For text and for attributes in double quotes, but that those with invisible characters make elements.
///
/// Marks that turn the direction of writing could make a command look like another one. They stay, so that what is
/// copied is exact, each inside an element that confines it and shows its number. Control characters, which HTML does not
/// allow, are shown as what they are: something that cannot be shown.
pub(super) fn text(raw: &str) -> String {
    let mut escaped = String::with_capacity(raw.len());
    for part in raw.split_inclusive(is_invisible) {
        let mut letters = part.chars();
        let last = letters.next_back().filter(|letter| is_invisible(*letter));
        let visible = if last.is_some() { letters.as_str() } else { part };
        // Writing to a string cannot fail.
        write!(escaped, "{}", HtmlEscape(visible)).unwrap_or_default();
        if let Some(letter) = last {
            let kept = if letter.is_control() { '\u{fffd}' } else { letter };
            write!(escaped, "<bdi class=\"unseen\" data-code=\"U+{:04X}\">{kept}</bdi>", u32::from(letter))
                .unwrap_or_default();
        }
    }
    escaped
}

/// Text for a title, in which there are no elements: without what cannot be seen.
pub(super) fn plain(raw: &str) -> String {
    raw.replace(is_invisible, "\u{fffd}")
}

/// A part of a URL's path.
pub(super) fn segment(raw: &str) -> String {
    let mut escaped = String::with_capacity(raw.len());
    for byte in raw.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_') {
            escaped.push(char::from(byte));
        } else {
            write!(escaped, "%{byte:02X}").unwrap_or_default();
        }
    }
    escaped
}

fn is_invisible(letter: char) -> bool {
    let turns =
        matches!(letter, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    turns || (letter.is_control() && !matches!(letter, '\n' | '\t'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_becomes_text_and_what_cannot_be_seen_is_shown() {
        for (raw, expected) in [
            ("plain words", "plain words"),
            ("<b a='1' c=\"2\">&", "&lt;b a=&#x27;1&#x27; c=&quot;2&quot;&gt;&amp;"),
            ("one\ntwo\tthree", "one\ntwo\tthree"),
            ("\u{7}", "<bdi class=\"unseen\" data-code=\"U+0007\">\u{fffd}</bdi>"),
            ("a\u{202e}<", "a<bdi class=\"unseen\" data-code=\"U+202E\">\u{202e}</bdi>&lt;"),
            ("\u{200f}\u{200f}", &"<bdi class=\"unseen\" data-code=\"U+200F\">\u{200f}</bdi>".repeat(2)),
            ("", ""),
        ] {
            assert_eq!(text(raw), expected);
        }
        assert_eq!(plain("a\u{202e}b"), "a\u{fffd}b");
        assert_eq!(segment("shop-1/../\"é"), "shop-1%2F%2E%2E%2F%22%C3%A9");
    }
}
