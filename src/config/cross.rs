//! What only shows when the parts are seen together: names that are used twice or not known, and what a whole
//! configuration cannot do without.

use super::model::Check;
use super::near;
use super::problem::Problem;
use super::redact::quoted;
use super::rule::Rules;
use super::section::{Section, listed};
use super::value::{Text, Value};

/// The names of one kind of thing, each to be used once.
pub(super) struct Names {
    what: &'static str,
    taken: Vec<String>,
}

impl Names {
    /// No names yet.
    pub(super) const fn of(what: &'static str) -> Self {
        Self { what, taken: Vec::new() }
    }

    /// Reads a name and takes it.
    pub(super) fn take(&mut self, value: Value<'_>) -> Option<String> {
        let text = value.filled("a name")?;
        if text.value.chars().any(char::is_control) || text.value.chars().count() > 100 {
            self.taken.push(text.value.clone());
            return text.refuse(
                format!("`{}` is not usable as a name", text.path),
                "too long, or holds control characters",
                "accepted: one line of at most 100 characters",
            );
        }
        self.take_text(&text, "give each its own name")
    }

    /// Takes a name that was read already.
    pub(super) fn take_text(&mut self, text: &Text<'_>, way_out: &str) -> Option<String> {
        if self.taken.contains(&text.value) {
            return text.refuse(format!("two {}s are named {}", self.what, text.shown()), "named before", way_out);
        }
        self.taken.push(text.value.clone());
        Some(text.value.clone())
    }

    /// A name for something without one: the word, numbered when it is taken.
    pub(super) fn numbered(&mut self, word: &str) -> String {
        let mut name = word.to_owned();
        let mut number = 1;
        while self.taken.contains(&name) {
            number += 1;
            name = format!("{word} {number}");
        }
        self.taken.push(name.clone());
        name
    }

    /// Reads the name of something that must be there.
    pub(super) fn known(&self, value: Value<'_>) -> Option<String> {
        let text = value.filled(&format!("the name of a {}", self.what))?;
        if self.taken.contains(&text.value) {
            return Some(text.value);
        }
        let names: Vec<&str> = self.taken.iter().map(String::as_str).collect();
        let label = near::nearest(&text.value, names.iter().copied())
            .filter(|_| text.reference.is_none())
            .map_or_else(|| "not known".to_owned(), |near| format!("did you mean `{near}`?"));
        let help = if names.is_empty() {
            format!("add [[{}]] with this name", self.what)
        } else {
            format!("accepted: {}", listed(&names))
        };
        let message = format!("there is no {} named {}", self.what, text.shown());
        text.doc.report(Problem::error(text.span.clone(), message).label(label).help(help).by_absence());
        None
    }
}

/// How many of each are written, usable or not.
pub(super) struct Written {
    pub(super) signals: usize,
    pub(super) rungs: usize,
    pub(super) contacts: usize,
    pub(super) checks: usize,
}

/// What a whole configuration cannot, or should not, do without.
pub(super) fn whole(top: &Section<'_>, written: &Written, rules: &Rules, checks: &[Check]) {
    if written.signals == 0 {
        top.report_missing("a signal", "[[signal]] with name = \"api\" and http.url = \"https://shop.example/health\"");
    }
    if rules.rollback == 0 {
        top.report_missing(
            "a rule that leads to a rollback",
            "[[rule]] with name = \"api is down\", signal = \"api\", consecutive = 3 and then = \"rollback\"",
        );
    }
    if written.rungs == 0 {
        top.report_missing("a way to roll back", "[[rollback.rung]] with kind = \"tables\" and tables = \"added\"");
    }
    if written.contacts == 0 {
        warn(
            top,
            "there is no contact: nobody is told",
            "no [[contact]]",
            "add [[contact]] with a role and email = [\"…\"] or [[contact.webhook]]",
        );
    }
    if written.checks == 0 {
        warn(
            top,
            "recovery is proved by tables and row counts only",
            "no [[verify]]",
            "add [[verify]] sections, such as kind = \"http\" with a url: without one, nothing proves that the application answers",
        );
    } else if checks.len() == written.checks
        && checks.iter().all(|check| check.stage == rollbackd_core::plan::Stage::Closed)
    {
        warn(
            top,
            "nothing is verified after traffic was resumed",
            "no [[verify]] with stage \"open\"",
            "add [[verify]] with kind = \"http\" or kind = \"auth\", which prove that the application answers",
        );
    }
}

fn warn(top: &Section<'_>, message: &str, label: &str, help: &str) {
    top.doc().report(Problem::warning(top.span(), message).label(label).help(help).by_absence());
}

/// Reports a text that names are made of when it breaks the rule for them.
pub(super) fn plan_name(value: Value<'_>) -> Option<String> {
    let text = value.text("a name of a-z, 0-9 and `-`")?;
    let good = (1..=40).contains(&text.value.len())
        && text.value.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if good {
        return Some(text.value);
    }
    let shown = if text.reference.is_some() { text.shown() } else { quoted(&text.value) };
    text.refuse(
        format!("{shown} is no name for a plan"),
        "not accepted",
        "accepted: 1 to 40 characters of a-z, 0-9 and `-`",
    )
}
