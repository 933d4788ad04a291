//! SQL files: text → statements that can run in one transaction, or what keeps them from it and where.
//!
//! A file is split here and sent to the server a statement at a time, each as one that may hold no second: where this
//! reading and the server's should ever differ, the server refuses the piece and the transaction is rolled back. What
//! depends on the database (a sort of index that cannot be rebuilt in a transaction, a subscription with a slot) is
//! left to the server in the same way. Running them is not done here: see `rung::sql`.

mod refusal;
#[cfg(test)]
mod tests;
mod token;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use super::model::Secret;
use refusal::Beginning;
use token::{Token, Tokens};

/// A file that can run in one transaction.
#[derive(Clone)]
pub struct Script {
    /// It may hold secrets, as the configuration may.
    text: Arc<Secret>,
    statements: Vec<Place>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    line: usize,
    span: Range<usize>,
}

/// One statement of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Statement<'a> {
    /// The line on which it begins, from 1.
    pub line: usize,
    /// Its text, without the semicolon.
    pub text: &'a str,
}

/// What keeps a file from running in one transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// The line, from 1.
    pub(super) line: usize,
    /// The text in question.
    pub(super) text: String,
    /// What is wrong with it.
    pub(super) why: &'static str,
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Script").field("statements", &self.statements.len()).finish_non_exhaustive()
    }
}

impl Script {
    /// Splits a text. Without a statement in it, or with something that cannot run in a transaction, there is no script.
    pub(crate) fn read(text: &str) -> Result<Self, Vec<Refusal>> {
        // Some editors begin a file with this mark; psql leaves it out as well.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut reading = Reading::new(text);
        reading.run();
        if reading.statements.is_empty() && reading.refusals.is_empty() {
            reading.refusals.push(Refusal { line: 1, text: String::new(), why: "it holds no statement" });
        }
        if !reading.refusals.is_empty() {
            return Err(reading.refusals);
        }
        Ok(Self { statements: reading.statements, text: Arc::new(Secret::new(text)) })
    }

    /// The text that was read.
    pub fn text(&self) -> &str {
        self.text.expose()
    }

    /// Its statements, in order.
    pub fn statements(&self) -> impl ExactSizeIterator<Item = Statement<'_>> {
        let text = self.text();
        self.statements
            .iter()
            .map(move |place| Statement { line: place.line, text: text.get(place.span.clone()).unwrap_or_default() })
    }
}

/// The file on the way to its end.
struct Reading<'a> {
    text: &'a str,
    statements: Vec<Place>,
    refusals: Vec<Refusal>,
    /// The statement that is being read.
    begins: Option<usize>,
    ends: usize,
    beginning: Beginning,
    parentheses: usize,
    /// `begin atomic` and the `case`s in it that have not ended.
    blocks: usize,
    /// The last word, when nothing else came after it.
    last: Option<&'a str>,
}

impl<'a> Reading<'a> {
    fn new(text: &'a str) -> Self {
        Self {
            text,
            statements: Vec::new(),
            refusals: Vec::new(),
            begins: None,
            ends: 0,
            beginning: Beginning::default(),
            parentheses: 0,
            blocks: 0,
            last: None,
        }
    }

    fn run(&mut self) {
        if let Some(zero) = self.text.find('\0') {
            self.refuse(zero, zero, "a zero byte is not text");
            return;
        }
        let mut tokens = Tokens::new(self.text);
        while let Some((begins, token, ends)) = tokens.token() {
            if token == Token::Sign(';') && self.parentheses == 0 && self.blocks == 0 {
                self.end();
                // What follows may be rows, in no language that can be read here.
                if self.refusals.last().is_some_and(|refusal| refusal.why == refusal::STREAM) {
                    return;
                }
                continue;
            }
            self.begins.get_or_insert(begins);
            self.ends = ends;
            match token {
                Token::Word(word) => self.word(word),
                Token::Quoted(_) => self.beginning.quoted(),
                Token::Sign(sign) => {
                    if !self.sign(sign, begins) {
                        return;
                    }
                }
                Token::Unended(what) => {
                    let why = match what {
                        "comment" => "this comment does not end",
                        "string" => "this string does not end",
                        "quoted name" => "this quoted name does not end",
                        _ => "this dollar quoted text does not end",
                    };
                    self.refuse(begins, self.line_end(begins), why);
                    return;
                }
            }
            self.last = if let Token::Word(word) = token { Some(word) } else { None };
        }
        self.end();
    }

    fn word(&mut self, word: &'a str) {
        self.beginning.word(word);
        if self.parentheses > 0 || !self.beginning.makes_routine() {
            return;
        }
        let begins_body = word.eq_ignore_ascii_case("atomic")
            && self.last.is_some_and(|last| last.eq_ignore_ascii_case("begin"))
            && self.blocks == 0;
        let begins_case = word.eq_ignore_ascii_case("case") && self.blocks > 0;
        if begins_body || begins_case {
            self.blocks += 1;
        } else if word.eq_ignore_ascii_case("end") {
            self.blocks = self.blocks.saturating_sub(1);
        }
    }

    /// Whether reading goes on after this sign.
    fn sign(&mut self, sign: char, at: usize) -> bool {
        self.beginning.sign();
        match sign {
            '(' | '[' => self.parentheses += 1,
            ')' | ']' => self.parentheses = self.parentheses.saturating_sub(1),
            ':' if self.parentheses == 0 && self.is_variable(at) => {
                self.refuse(at, self.word_end(at), "psql's variables are not SQL");
            }
            '\\' => {
                self.refuse(at, self.line_end(at), "psql's own commands are not SQL");
                // psql reads such a line in its own way, quotes included; what follows cannot be told.
                return false;
            }
            _ => {}
        }
        true
    }

    fn end(&mut self) {
        if let Some(begins) = self.begins.take() {
            match self.beginning.refused() {
                Some(why) => self.refuse(begins, self.ends, why),
                None => self.statements.push(Place { line: self.line(begins), span: begins..self.ends }),
            }
        }
        self.beginning = Beginning::default();
        self.parentheses = 0;
        self.last = None;
    }

    fn refuse(&mut self, begins: usize, ends: usize, why: &'static str) {
        const LONGEST: usize = 60;
        let whole = self.text.get(begins..ends).unwrap_or_default();
        let mut text = whole.split_whitespace().collect::<Vec<_>>().join(" ");
        if text.chars().count() > LONGEST {
            text = text.chars().take(LONGEST).chain(['…']).collect();
        }
        self.refusals.push(Refusal { line: self.line(begins), text, why });
    }

    /// Whether this colon stands before a name or a quote and is neither `::` nor `:=`.
    fn is_variable(&self, at: usize) -> bool {
        let before = self.text.get(..at).and_then(|before| before.chars().next_back());
        let after = self.text.get(at + 1..).and_then(|after| after.chars().next());
        before != Some(':') && after.is_some_and(|after| after.is_alphabetic() || matches!(after, '_' | '\'' | '"'))
    }

    fn word_end(&self, at: usize) -> usize {
        let rest = self.text.get(at..).unwrap_or_default();
        at + rest
            .find(|character: char| character.is_whitespace() || matches!(character, ';' | ',' | ')'))
            .unwrap_or(rest.len())
    }

    fn line(&self, at: usize) -> usize {
        self.text.get(..at).unwrap_or_default().matches('\n').count() + 1
    }

    fn line_end(&self, at: usize) -> usize {
        let rest = self.text.get(at..).unwrap_or_default();
        at + rest.find(['\n', '\r']).unwrap_or(rest.len())
    }
}
