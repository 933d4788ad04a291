//! Masks what is secret in a configuration's text before any of it is shown.
//!
//! Two nets, one behind the other. The readers report the exact places of the secrets they read; and a look at
//! the bare text, which needs no valid TOML, finds what stands behind a key that sounds secret and the user
//! part and query of every URL. The second net is for text that does not parse and for misspelt keys. It may
//! mask too much; it must not mask too little.

use std::ops::Range;

use super::near;

/// Parts of key names that announce a secret.
const SECRET_WORDS: [&str; 12] = [
    "password",
    "passwd",
    "passphrase",
    "pwd",
    "secret",
    "token",
    "apikey",
    "api_key",
    "api-key",
    "authorization",
    "cookie",
    "private",
];

/// Parameters of a URL's query that are no secret and that a problem may point at.
const OPEN_PARAMETERS: [&str; 3] = ["sslmode", "sslrootcert", "host"];

/// Whether a key's name announces a secret, spelled right or nearly so.
pub(super) fn sounds_secret(key: &str) -> bool {
    let key = key.to_lowercase();
    SECRET_WORDS.iter().any(|word| key.contains(word))
        || near::nearest(&key, ["password", "secret", "apikey"]).is_some()
        || near::distance(&key, "token") <= 1
}

/// The text with everything secret replaced by `*`, and control characters by `?`, byte for byte as long.
pub(super) fn mask(text: &str, known: &[Range<usize>]) -> String {
    let mut hidden = Vec::from(known);
    for span in known {
        // The same secret may stand elsewhere too, in a comment for example.
        let value = text.get(span.clone()).unwrap_or_default();
        if value.len() >= 4 {
            hidden.extend(text.match_indices(value).map(|(at, _)| at..at + value.len()));
        }
    }
    hidden.extend(by_look(text));
    hidden.sort_by_key(|span| span.start);
    let mut hidden = hidden.into_iter().peekable();
    let mut open_until = 0;
    let mut out = String::with_capacity(text.len());
    for (at, character) in text.char_indices() {
        while let Some(span) = hidden.next_if(|span| span.start <= at) {
            open_until = open_until.max(span.end);
        }
        let shown = match character {
            '\n' | '\r' | '\t' => None,
            _ if at < open_until => Some("*"),
            _ if character.is_control() || redirects(character) => Some("?"),
            _ => None,
        };
        match shown {
            Some(mark) => out.push_str(&mark.repeat(character.len_utf8())),
            None => out.push(character),
        }
    }
    out
}

/// A command's argument as it may be shown: secrets become `***`, the rest stays to be copied.
pub(crate) fn argument(text: &str) -> String {
    let mut hidden = by_look(text);
    hidden.sort_by_key(|span| span.start);
    let (mut shown, mut at) = (String::new(), 0);
    for span in hidden.into_iter().filter(|span| !span.is_empty()) {
        if span.start >= at {
            shown.push_str(text.get(at..span.start).unwrap_or_default());
            shown.push_str("***");
        }
        at = at.max(span.end);
    }
    shown.push_str(text.get(at..).unwrap_or_default());
    shown
}

/// A short piece of text as it may stand in a message.
pub(super) fn masked(text: &str) -> String {
    let masked = mask(text, &[]);
    let mut short: String = masked.chars().take(100).collect();
    if short.len() < masked.len() {
        short.push('…');
    }
    short.replace(['\n', '\r', '\t'], " ")
}

/// The same in backquotes.
pub(super) fn quoted(text: &str) -> String {
    format!("`{}`", masked(text))
}

/// Characters that turn the direction of what follows on a terminal.
const fn redirects(character: char) -> bool {
    matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}')
}

/// What looks secret without any parsing.
fn by_look(text: &str) -> Vec<Range<usize>> {
    let mut hidden = Vec::new();
    assignments(text, &mut hidden);
    urls(text, &mut hidden);
    hidden
}

/// What stands behind keys that sound secret, and behind every key of a table of headers.
fn assignments(text: &str, hidden: &mut Vec<Range<usize>>) {
    let mut header_table = false;
    let mut line_start = 0;
    for line in text.split_inclusive('\n') {
        let trimmed = line.trim_start();
        if trimmed.starts_with('[') && !trimmed.contains('=') {
            header_table = trimmed.trim_end().trim_end_matches(']').ends_with("headers");
        }
        let mut headers_from_here = header_table;
        for (at, _) in line.match_indices('=') {
            let key = key_before(line.get(..at).unwrap_or_default());
            let value_at = line_start + at + 1;
            let value = text.get(value_at..).unwrap_or_default();
            let blank = value.len() - value.trim_start_matches([' ', '\t']).len();
            let value = value.get(blank..).unwrap_or_default();
            headers_from_here |= key == "headers" || key.ends_with(".headers");
            let names_a_place = ["env", "file", "credential"].contains(&key);
            if value.starts_with('{') || names_a_place || !(headers_from_here || sounds_secret(key)) {
                continue;
            }
            let (skip, length) = extent(value);
            let start = value_at + blank + skip;
            hidden.push(start..start + length);
        }
        line_start += line.len();
    }
}

/// The key that ends at an equals sign.
fn key_before(text: &str) -> &str {
    let text = text.trim_end().trim_end_matches(['"', '\'']);
    let from = text
        .rfind(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '-' | '.')))
        .map_or(0, |at| at + text.get(at..).and_then(|rest| rest.chars().next()).map_or(1, char::len_utf8));
    text.get(from..).unwrap_or_default()
}

/// How much of a value's beginning is only its quotes, and how far the value goes behind them.
fn extent(value: &str) -> (usize, usize) {
    let rest_of_line = |from: usize| value.get(from..).and_then(|rest| rest.lines().next()).map_or(0, str::len);
    for fence in ["\"\"\"", "'''"] {
        if let Some(inner) = value.strip_prefix(fence) {
            return (3, inner.find(fence).unwrap_or(inner.len()));
        }
    }
    let Some(quote) = value.chars().next().filter(|first| matches!(first, '"' | '\'')) else {
        return (0, rest_of_line(0));
    };
    let mut escaped = false;
    for (at, character) in value.char_indices().skip(1) {
        match character {
            '\n' => break,
            _ if escaped => escaped = false,
            '\\' if quote == '"' => escaped = true,
            _ if character == quote => return (1, at - 1),
            _ => {}
        }
    }
    (1, rest_of_line(1))
}

/// Whether a URL that is written somewhere ends here.
fn ends_url(character: char) -> bool {
    character.is_whitespace() || matches!(character, '"' | '\'' | '`')
}

/// The user part and the query of everything that looks like a URL.
fn urls(text: &str, hidden: &mut Vec<Range<usize>>) {
    for (at, _) in text.match_indices("://") {
        let start = at + 3;
        let rest = text.get(start..).unwrap_or_default();
        // A password may hold anything but what ends the string.
        let string = rest.find(['"', '\n']).unwrap_or(rest.len());
        let user = rest.get(..string).and_then(|string| string.rfind('@'));
        if let Some(user) = user {
            hidden.push(start..start + user);
        }
        let from = user.unwrap_or(0);
        let end = from + rest.get(from..).unwrap_or_default().find(ends_url).unwrap_or(rest.len() - from);
        let run = rest.get(..end).unwrap_or_default();
        // A question mark inside the user part belongs to a password that is not percent-encoded.
        let Some(query) = run.get(from..).and_then(|rest| rest.find('?')).map(|query| from + query + 1) else {
            continue;
        };
        let mut parameter_at = start + query;
        for parameter in run.get(query..).unwrap_or_default().split('&') {
            let name = parameter.split('=').next().unwrap_or_default();
            if !OPEN_PARAMETERS.contains(&name) {
                let skip = parameter.find('=').map_or(0, |equals| equals + 1);
                hidden.push(parameter_at + skip..parameter_at + parameter.len());
            }
            parameter_at += parameter.len() + 1;
        }
    }
}
