//! SQL text → tokens, as far as they say where a statement ends and how it begins.
//!
//! The rules are those of the server's own scanner with `standard_conforming_strings = on`: block comments nest, a line
//! comment ends at either kind of line break, `E''` strings have escapes and keep them when they go on after a line
//! break, dollar quotes have tags. What stands in comments, strings and quoted names is nothing here.

/// A piece of SQL that is neither space nor comment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// A keyword or a name without quotes.
    Word(&'a str),
    /// A string, a quoted name or dollar quoted text.
    Quoted(&'a str),
    /// Any other character.
    Sign(char),
    /// The rest of a text whose string, quoted name or comment does not end; with its name.
    Unended(&'static str),
}

/// Reads tokens from a text.
#[derive(Debug, Clone)]
pub(super) struct Tokens<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Tokens<'a> {
    pub(super) const fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    /// The next token with the place where it begins and the one after its end.
    pub(super) fn token(&mut self) -> Option<(usize, Token<'a>, usize)> {
        let begins = loop {
            let rest = self.rest();
            let first = rest.chars().next()?;
            if is_space(first) {
                self.at += first.len_utf8();
            } else if rest.starts_with("--") {
                self.at += line_comment(rest);
            } else if rest.starts_with("/*") {
                let begins = self.at;
                let Some(length) = block_comment(rest) else {
                    self.at = self.text.len();
                    return Some((begins, Token::Unended("comment"), self.at));
                };
                self.at += length;
            } else {
                break self.at;
            }
        };
        let rest = self.rest();
        let token = token_at(rest);
        let length = match token {
            Token::Word(text) | Token::Quoted(text) => text.len(),
            Token::Sign(sign) => sign.len_utf8(),
            Token::Unended(_) => rest.len(),
        };
        self.at += length;
        Some((begins, token, self.at))
    }
}

fn token_at(rest: &str) -> Token<'_> {
    let mut characters = rest.chars();
    let first = characters.next().unwrap_or_default();
    match (first, characters.next()) {
        ('e' | 'E', Some('\'')) => quoted(rest, string(rest, 1, true), "string"),
        ('\'', _) => quoted(rest, string(rest, 0, false), "string"),
        ('"', _) => quoted(rest, name(rest), "quoted name"),
        ('$', _) => match tag(rest) {
            Some(tag) => quoted(rest, dollar_quoted(rest, tag), "dollar quoted text"),
            None => Token::Sign('$'),
        },
        _ if begins_word(first) => Token::Word(rest.get(..word(rest)).unwrap_or_default()),
        _ => Token::Sign(first),
    }
}

fn quoted<'a>(rest: &'a str, length: Option<usize>, what: &'static str) -> Token<'a> {
    length.and_then(|length| rest.get(..length)).map_or(Token::Unended(what), Token::Quoted)
}

const fn is_space(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\n' | '\r' | '\x0b' | '\x0c')
}

const fn begins_word(character: char) -> bool {
    character.is_ascii_alphabetic() || character == '_' || !character.is_ascii()
}

const fn is_in_word(character: char) -> bool {
    begins_word(character) || character.is_ascii_digit()
}

fn word(rest: &str) -> usize {
    rest.find(|character| !is_in_word(character) && character != '$').unwrap_or(rest.len())
}

fn line_comment(rest: &str) -> usize {
    rest.find(['\n', '\r']).unwrap_or(rest.len())
}

fn block_comment(rest: &str) -> Option<usize> {
    let mut depth = 0_usize;
    let mut at = 0;
    loop {
        let here = rest.get(at..)?;
        if here.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if here.starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return Some(at);
            }
        } else {
            at += here.chars().next()?.len_utf8();
        }
    }
}

/// The length of a string whose first quote is at `opens`. After a line break it may go on, in the way it began.
fn string(rest: &str, opens: usize, escapes: bool) -> Option<usize> {
    let mut at = opens + 1;
    loop {
        let here = rest.get(at..)?;
        let first = here.chars().next()?;
        if first == '\\' && escapes {
            at += 1 + here.chars().nth(1)?.len_utf8();
        } else if here.starts_with("''") {
            at += 2;
        } else if first == '\'' {
            match goes_on(here.get(1..).unwrap_or_default()) {
                Some(gap) => at += 1 + gap + 1,
                None => return Some(at + 1),
            }
        } else {
            at += first.len_utf8();
        }
    }
}

/// The gap between two parts of one string: spaces and line comments, with a line break among them.
fn goes_on(rest: &str) -> Option<usize> {
    let mut at = 0;
    let mut broken = false;
    loop {
        let here = rest.get(at..)?;
        let first = here.chars().next()?;
        if here.starts_with("--") {
            at += line_comment(here);
        } else if is_space(first) {
            broken |= matches!(first, '\n' | '\r');
            at += 1;
        } else {
            return (first == '\'' && broken).then_some(at);
        }
    }
}

/// The length of a quoted name.
fn name(rest: &str) -> Option<usize> {
    let mut at = 1;
    loop {
        at += rest.get(at..)?.find('"')? + 1;
        match rest.get(at..) {
            Some(after) if after.starts_with('"') => at += 1,
            Some(_) | None => return Some(at),
        }
    }
}

/// `$$` or `$tag$` at the beginning.
fn tag(rest: &str) -> Option<&str> {
    let inside = rest.get(1..)?;
    let length = inside.find(|character| !is_in_word(character)).unwrap_or(inside.len());
    let starts_right = inside.chars().next().is_some_and(|first| first == '$' || begins_word(first));
    let closed = inside.get(length..)?.starts_with('$');
    (starts_right && closed).then(|| rest.get(..length + 2)).flatten()
}

fn dollar_quoted(rest: &str, tag: &str) -> Option<usize> {
    let inside = rest.get(tag.len()..)?;
    inside.find(tag).map(|at| tag.len() + at + tag.len())
}
