//! Which statements cannot run inside somebody else's transaction, told by their words.

/// How many words of a statement are kept. What is looked for stands among the first.
const KEPT: usize = 4096;

/// The words of one statement that stand outside quotes, in small letters.
#[derive(Debug, Default)]
pub(super) struct Beginning {
    words: Vec<String>,
    /// Whether something other than a word came first, such as a parenthesis.
    late: bool,
    /// Whether there is a quoted name or a string.
    quotes: bool,
}

const OWN: &str = "transaction control of its own: the file runs in one transaction, which is begun and ended for it";
const ALONE: &str = "the server does not run it inside a transaction";
pub(super) const STREAM: &str = "there is no stream of rows for it; write INSERT";
const STRINGS: &str = "with it strings would mean something else than was checked";

impl Beginning {
    /// A word.
    pub(super) fn word(&mut self, word: &str) {
        if self.words.len() < KEPT {
            self.words.push(word.to_ascii_lowercase());
        }
    }

    /// A string or a quoted name.
    pub(super) const fn quoted(&mut self) {
        self.sign();
        self.quotes = true;
    }

    /// Anything else.
    pub(super) const fn sign(&mut self) {
        self.late |= self.words.is_empty();
    }

    /// The first of them, when the statement begins with a word.
    fn first(&self) -> [&str; 5] {
        let mut first = [""; 5];
        if !self.late {
            for (place, word) in first.iter_mut().zip(&self.words) {
                *place = word;
            }
        }
        first
    }

    fn has(&self, word: &str) -> bool {
        self.words.iter().any(|one| one == word)
    }

    fn has_pair(&self, first: &str, second: &str) -> bool {
        self.words.iter().zip(self.words.iter().skip(1)).any(|(a, b)| a == first && b == second)
    }

    /// Whether it makes a function or procedure, whose body may hold statements.
    pub(super) fn makes_routine(&self) -> bool {
        matches!(
            self.first(),
            ["create", "function" | "procedure", ..] | ["create", "or", "replace", "function" | "procedure", ..]
        )
    }

    /// Why it cannot run in the transaction of a rung.
    pub(super) fn refused(&self) -> Option<&'static str> {
        let concurrently = self.has("concurrently");
        Some(match self.first() {
            ["rollback", "to", ..] | ["rollback", "work" | "transaction", "to", ..] => return None,
            ["begin" | "commit" | "end" | "abort" | "rollback", ..]
            | ["start" | "prepare" | "set", "transaction", ..]
            | ["set", "local" | "session", "transaction", ..]
            | ["set", "session", "characteristics", ..] => OWN,
            ["vacuum", ..]
            | ["create" | "drop", "database" | "tablespace", ..]
            | ["alter", "system", ..]
            | ["discard", "all", ..]
            | ["reindex", "database" | "system" | "schema", ..] => ALONE,
            ["create" | "drop", "index", ..] | ["create", "unique", "index", ..] | ["reindex", ..] if concurrently => {
                ALONE
            }
            ["alter", "table", ..] if self.has("detach") && concurrently => ALONE,
            ["alter", "database", ..] if self.has_pair("set", "tablespace") => ALONE,
            ["cluster", "", ..] | ["cluster", "verbose", "", ..] if !self.quotes => ALONE,
            ["copy", ..] if self.has_pair("from", "stdin") || self.has_pair("to", "stdout") => STREAM,
            ["set", ..] if self.has("standard_conforming_strings") && !self.has("on") && !self.has("true") => STRINGS,
            _ => return None,
        })
    }
}
