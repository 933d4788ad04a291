//! Walks a parsed TOML document by name and remembers what was asked for.
//!
//! A [`Section`] is one table. Its owner asks for each key it knows, then calls [`Section::finish`], which
//! reports every key that nobody asked for. That way the accepted keys are written down once: where they are
//! read. Whatever is wrong goes to the [`Document`]; a reader that gets `None` carries on, so that one run finds
//! everything.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::ops::Range;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::model::Secret;
use super::near;
use super::problem::{Problem, Weight};
use super::redact::{quoted, sounds_secret};
use super::value::Value;
use super::veil::Veil;

/// What a configuration may refer to outside its own text.
pub(super) struct Surroundings<'a> {
    /// Where relative paths start.
    pub(super) directory: &'a Path,
    /// Reads an environment variable.
    pub(super) variable: &'a dyn Fn(&str) -> Option<OsString>,
    /// Set when this is the copy that a window froze, to the SQL files that were frozen with it. Another file that has
    /// gone since then fails the step that needs it, and must not keep a rollback under way from going on.
    pub(super) kept: Option<&'a BTreeMap<String, String>>,
}

/// The text, what it may refer to, and what was found wrong with it so far.
pub(super) struct Document<'a> {
    /// The whole text.
    pub(super) text: &'a str,
    /// What it may refer to.
    pub(super) surroundings: Surroundings<'a>,
    problems: RefCell<Vec<Problem>>,
    secrets: RefCell<Vec<Range<usize>>>,
    kept: RefCell<Vec<Secret>>,
    empty: DeTable<'a>,
}

impl<'a> Document<'a> {
    /// A document about which nothing is known yet.
    pub(super) fn new(text: &'a str, surroundings: Surroundings<'a>) -> Self {
        let (problems, secrets, kept) = (RefCell::default(), RefCell::default(), RefCell::default());
        Self { text, surroundings, problems, secrets, kept, empty: DeTable::new() }
    }

    /// Takes note of a problem.
    pub(super) fn report(&self, problem: Problem) {
        self.problems.borrow_mut().push(problem);
    }

    /// Takes note that something is not on this machine: a problem, but only a warning in a frozen copy.
    pub(super) fn report_absent(&self, mut problem: Problem) {
        if self.surroundings.kept.is_some() {
            problem.weight = Weight::Warning;
        }
        self.report(problem);
    }

    /// Takes note of a place that no one may see.
    pub(super) fn hide(&self, span: Range<usize>) {
        let raw = self.text.get(span.clone()).unwrap_or_default();
        let inner = raw.trim_start_matches(['"', '\'']);
        let start = span.start + (raw.len() - inner.len());
        self.secrets.borrow_mut().push(start..start + inner.trim_end_matches(['"', '\'']).len());
    }

    /// Takes note of a value that no one may see, wherever it was read from.
    pub(super) fn keep(&self, secret: &str) {
        self.kept.borrow_mut().push(Secret::new(secret));
    }

    /// The values that no one may see.
    pub(super) fn veil(&self) -> Veil {
        Veil::new(self.kept.borrow().clone())
    }

    /// What was found.
    pub(super) fn into_findings(self) -> (Vec<Problem>, Vec<Range<usize>>) {
        (self.problems.into_inner(), self.secrets.into_inner())
    }
}

/// One table of the document.
pub(super) struct Section<'a> {
    doc: &'a Document<'a>,
    table: &'a DeTable<'a>,
    span: Range<usize>,
    /// The header as it is written, such as `[database]`; empty for the top level.
    header: String,
    /// The accepted keys: those that were asked for.
    asked: Vec<&'static str>,
    /// Keys that are not accepted and were reported already.
    settled: Vec<&'static str>,
    present: bool,
}

impl<'a> Section<'a> {
    /// The top level.
    pub(super) fn top(doc: &'a Document<'a>, table: &'a DeTable<'a>) -> Self {
        Self { doc, table, span: 0..0, header: String::new(), asked: Vec::new(), settled: Vec::new(), present: true }
    }

    /// A table inside another, or inline.
    pub(super) fn new(doc: &'a Document<'a>, table: &'a DeTable<'a>, span: Range<usize>, header: String) -> Self {
        Self { doc, table, span, header, asked: Vec::new(), settled: Vec::new(), present: true }
    }

    /// The document, to report problems to.
    pub(super) const fn doc(&self) -> &'a Document<'a> {
        self.doc
    }

    /// Where it begins: its header.
    pub(super) fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    /// Whether it is written at all.
    pub(super) const fn is_present(&self) -> bool {
        self.present
    }

    /// Whether it holds a key; asking does not make the key an accepted one.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    fn ask(&mut self, key: &'static str) {
        if !self.asked.contains(&key) {
            self.asked.push(key);
        }
    }

    /// The value of an optional key.
    pub(super) fn take(&mut self, key: &'static str) -> Option<Value<'a>> {
        self.ask(key);
        let node = self.table.get(key)?;
        Some(Value::new(self.doc, self.path_of(key), node))
    }

    /// An optional key, read.
    pub(super) fn maybe<T>(&mut self, key: &'static str, read: impl FnOnce(Value<'a>) -> Option<T>) -> Option<T> {
        self.take(key).and_then(read)
    }

    /// A key with a default, read.
    pub(super) fn or<T>(&mut self, key: &'static str, default: T, read: impl FnOnce(Value<'a>) -> Option<T>) -> T {
        self.maybe(key, read).unwrap_or(default)
    }

    /// A key that must be there, read. `example` is a line that would be accepted.
    pub(super) fn need<T>(
        &mut self,
        key: &'static str,
        example: &str,
        read: impl FnOnce(Value<'a>) -> Option<T>,
    ) -> Option<T> {
        if self.present && !self.has(key) {
            self.report_missing(&format!("`{key}`"), example);
        }
        self.maybe(key, read)
    }

    /// Reports that something must stand in this section and does not.
    pub(super) fn report_missing(&self, what: &str, example: &str) {
        let place = if self.header.is_empty() { String::new() } else { format!(" in {}", self.header) };
        let problem = Problem::error(self.span(), format!("{what} is missing{place}"))
            .label(if self.header.is_empty() { "at the top of the file" } else { "in this section" })
            .help(format!("write, for example: {example}"));
        self.doc.report(problem.by_absence());
    }

    /// The section under a key, empty when it is not written.
    pub(super) fn child(&mut self, key: &'static str) -> Section<'a> {
        self.ask(key);
        let header = format!("[{}]", self.path_of(key));
        if let Some(node) = self.table.get(key)
            && let Some(table) = Value::new(self.doc, self.path_of(key), node).table()
        {
            return Section { header, ..table };
        }
        let (doc, span) = (self.doc, self.span());
        Section { doc, table: &doc.empty, span, header, asked: Vec::new(), settled: Vec::new(), present: false }
    }

    /// The sections under a key that may be repeated.
    pub(super) fn children(&mut self, key: &'static str) -> Vec<Section<'a>> {
        let header = format!("[[{}]]", self.path_of(key));
        self.ask(key);
        let Some(node) = self.table.get(key) else { return Vec::new() };
        let DeValue::Array(list) = node.get_ref() else {
            let key_span = self.key_span(key);
            let problem = Problem::error(key_span, format!("`{key}` is a list of sections"));
            self.doc.report(problem.label("not a list").help(format!("write {header}, once for each")));
            return Vec::new();
        };
        list.iter()
            .filter_map(|node| Value::new(self.doc, self.path_of(key), node).table())
            .map(|table| Section { header: header.clone(), ..table })
            .collect()
    }

    /// The one key out of several that says what this section is; reports none and more than one. Keys in `later` are
    /// known but not served by this version.
    pub(super) fn one_of(&mut self, what: &str, keys: &[&'static str], later: &[&'static str]) -> Option<&'static str> {
        let accepted = listed(keys);
        for key in keys {
            self.ask(key);
        }
        let mut deferred = false;
        for key in later {
            if !self.has(key) {
                continue;
            }
            deferred = true;
            self.report_later(key, &format!("accepted: {accepted}"));
        }
        let mut found = keys.iter().copied().filter(|key| self.has(key));
        let first = found.next();
        for extra in found {
            let problem = Problem::error(self.key_span(extra), format!("{} has more than one {what}", self.header));
            let label = format!("besides `{}`", first.unwrap_or_default());
            self.doc.report(problem.label(label).help(format!("keep exactly one of {accepted}")));
        }
        if first.is_none() && !deferred && self.present {
            self.doc.report(
                Problem::error(self.span(), format!("{} has no {what}", self.header))
                    .label("in this section")
                    .help(format!("add exactly one of {accepted}"))
                    .by_absence(),
            );
        }
        first
    }

    fn report_later(&mut self, key: &'static str, instead: &str) {
        self.settled.push(key);
        let problem = Problem::error(self.key_span(key), format!("`{key}` is not available in this version"));
        self.doc.report(problem.label("not available yet").help(instead));
        self.hide_if_secret(key, self.table.get(key));
    }

    /// Reports a key that makes no sense beside what else was chosen, when it is there.
    pub(super) fn only_with(&mut self, key: &'static str, other: &str) {
        self.settled.push(key);
        if self.has(key) {
            let problem = Problem::error(self.key_span(key), format!("`{key}` has no effect here"));
            self.doc.report(problem.label(format!("only with {other}")).help(format!("remove it, or use {other}")));
        }
    }

    /// Where a key is written.
    pub(super) fn key_span(&self, key: &str) -> Range<usize> {
        self.table.get_key_value(key).map_or_else(|| self.span(), |(key, _)| key.span())
    }

    /// Every key that was not asked for, as something to read. For tables whose keys are names.
    pub(super) fn entries(&self) -> Vec<(String, Range<usize>, Value<'a>)> {
        let value = |key: &str, node| Value::new(self.doc, self.path_of(key), node);
        self.table
            .iter()
            .map(|(key, node)| (key.get_ref().to_string(), key.span(), value(key.get_ref(), node)))
            .collect()
    }

    /// Reports every key that nobody asked for.
    pub(super) fn finish(self) {
        for (key, node) in self.table.iter().filter(|(key, _)| !self.known(key.get_ref())) {
            let place =
                if self.header.is_empty() { "at the top level".to_owned() } else { format!("in {}", self.header) };
            let name = key.get_ref();
            let label = near::nearest(name, self.asked.iter().copied())
                .map_or_else(|| "not known".to_owned(), |near| format!("did you mean `{near}`?"));
            let problem = Problem::error(key.span(), format!("unknown key {} {place}", quoted(name)));
            self.doc.report(problem.label(label).help(format!("accepted {place}: {}", self.asked.join(", "))));
            self.hide_if_secret(name, Some(node));
        }
    }

    fn known(&self, key: &str) -> bool {
        self.asked.contains(&key) || self.settled.contains(&key)
    }

    /// Nobody reads the value of this key, so nobody else will say that it is secret.
    fn hide_if_secret(&self, key: &str, node: Option<&Spanned<DeValue<'_>>>) {
        if let Some(node) = node
            && sounds_secret(key)
        {
            self.doc.hide(node.span());
        }
    }

    /// `database.url`.
    fn path_of(&self, key: &str) -> String {
        let path = self.header.trim_matches(['[', ']']);
        if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
    }
}

/// `a, b or c`, each in backquotes.
pub(super) fn listed(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [one] => format!("`{one}`"),
        [most @ .., last] => {
            let most: Vec<String> = most.iter().map(|word| format!("`{word}`")).collect();
            format!("{} or `{last}`", most.join(", "))
        }
    }
}
