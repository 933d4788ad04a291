//! One value of the document: its plain types, and strings that are given by reference.

use std::ops::{Range, RangeInclusive};

use toml::Spanned;
use toml::de::{DeInteger, DeTable, DeValue};

use super::near;
use super::problem::Problem;
use super::redact::quoted;
use super::reference::Source;
use super::section::{Document, Section, listed};

/// How a string may be given without writing it down.
const REFERENCE_FORMS: &str = "{ env = \"NAME\" }, { file = \"PATH\" } or { credential = \"NAME\" }";

/// A value and where it stands.
#[derive(Clone)]
pub(super) struct Value<'a> {
    pub(super) doc: &'a Document<'a>,
    /// Its key with the sections around it: `database.url`.
    pub(super) path: String,
    node: &'a Spanned<DeValue<'a>>,
}

/// A string and where it came from.
pub(super) struct Text<'a> {
    pub(super) doc: &'a Document<'a>,
    /// The string itself.
    pub(super) value: String,
    /// Where it, or the reference to it, is written.
    pub(super) span: Range<usize>,
    /// What it was read from, when it is not written down: `$NAME`.
    pub(super) reference: Option<String>,
    /// `database.url`.
    pub(super) path: String,
}

impl<'a> Value<'a> {
    pub(super) fn new(doc: &'a Document<'a>, path: String, node: &'a Spanned<DeValue<'a>>) -> Self {
        Self { doc, path, node }
    }

    /// Where it stands.
    pub(super) fn span(&self) -> Range<usize> {
        self.node.span()
    }

    /// Reports that it is of the wrong type.
    fn wrong_type<T>(&self, expected: &str) -> Option<T> {
        let found = match self.node.get_ref() {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) => "an integer",
            DeValue::Float(_) => "a number with a fraction",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date or time",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        let problem = Problem::error(self.span(), format!("`{}` has the wrong type", self.path));
        self.doc.report(problem.label(format!("this is {found}")).help(format!("accepted: {expected}")));
        None
    }

    /// A table.
    pub(super) fn table(self) -> Option<Section<'a>> {
        let DeValue::Table(table) = self.node.get_ref() else {
            return self.wrong_type(&format!("a section, written [{}]", self.path));
        };
        Some(Section::new(self.doc, table, self.span(), format!("[{}]", self.path)))
    }

    /// Whether it is written as a list.
    pub(super) fn is_list(&self) -> bool {
        matches!(self.node.get_ref(), DeValue::Array(_))
    }

    /// Whether it is written as a table.
    pub(super) fn is_table(&self) -> bool {
        matches!(self.node.get_ref(), DeValue::Table(_))
    }

    /// The values of a list.
    pub(super) fn list(self, expected: &str) -> Option<Vec<Value<'a>>> {
        let DeValue::Array(list) = self.node.get_ref() else { return self.wrong_type(expected) };
        Some(list.iter().map(|node| Value::new(self.doc, self.path.clone(), node)).collect())
    }

    /// Each value of a list, read; those that cannot be read are reported and left out.
    pub(super) fn each<T>(self, expected: &str, read: impl Fn(Value<'a>) -> Option<T>) -> Option<Vec<T>> {
        Some(self.list(expected)?.into_iter().filter_map(read).collect())
    }

    /// `true` or `false`.
    pub(super) fn boolean(self) -> Option<bool> {
        let DeValue::Boolean(value) = self.node.get_ref() else { return self.wrong_type("true or false") };
        Some(*value)
    }

    /// A whole number inside a range.
    pub(super) fn integer<T: TryFrom<i64>>(self, range: RangeInclusive<i64>) -> Option<T> {
        let expected = format!("a whole number from {} to {}", range.start(), range.end());
        let DeValue::Integer(integer) = self.node.get_ref() else { return self.wrong_type(&expected) };
        let number = whole(integer).filter(|number| range.contains(number)).and_then(|number| T::try_from(number).ok());
        if number.is_none() {
            let problem = Problem::error(self.span(), format!("`{}` is out of range", self.path));
            self.doc.report(problem.label("out of range").help(format!("accepted: {expected}")));
        }
        number
    }

    /// A number, with or without a fraction.
    pub(super) fn number(self, expected: &str) -> Option<f64> {
        let number: Option<f64> = if let DeValue::Float(float) = self.node.get_ref() {
            float.as_str().parse().ok()
        } else if let DeValue::Integer(integer) = self.node.get_ref() {
            whole(integer).and_then(|number| number.to_string().parse().ok())
        } else {
            return self.wrong_type(expected);
        };
        let number = number.filter(|number: &f64| number.is_finite());
        if number.is_none() {
            let problem = Problem::error(self.span(), format!("`{}` is out of range", self.path));
            self.doc.report(problem.label("out of range").help(format!("accepted: {expected}")));
        }
        number
    }

    /// Any value, as JSON.
    pub(super) fn json(self) -> Option<serde_json::Value> {
        json_of(self.node.get_ref()).or_else(|| self.wrong_type("a string, a number, true or false, a list or a table"))
    }

    /// A string, as it stands or by reference. `expected` says what for.
    pub(super) fn text(self, expected: &str) -> Option<Text<'a>> {
        if let DeValue::Table(table) = self.node.get_ref() {
            return self.referenced(table, expected);
        }
        let DeValue::String(value) = self.node.get_ref() else {
            return self.wrong_type(&format!("{expected}, as a string or as {REFERENCE_FORMS}"));
        };
        let (value, span) = (value.to_string(), self.span());
        Some(Text { doc: self.doc, value, span, reference: None, path: self.path })
    }

    /// A string that is read from somewhere else.
    fn referenced(&self, table: &'a DeTable<'a>, expected: &str) -> Option<Text<'a>> {
        let mut forms = table.iter();
        let (Some((form, place)), None) = (forms.next(), forms.next()) else {
            return self.no_reference(expected);
        };
        let DeValue::String(name) = place.get_ref() else { return self.no_reference(expected) };
        let Some(source) = Source::of(form.get_ref()) else { return self.no_reference(expected) };
        match source.read(name, &self.doc.surroundings) {
            Ok(found) => Some(Text {
                doc: self.doc,
                value: found.value,
                span: self.span(),
                reference: Some(found.shown),
                path: self.path.clone(),
            }),
            Err(absent) => {
                let problem = Problem::error(self.span(), format!("`{}`: {}", self.path, absent.message));
                self.doc.report(problem.label("cannot be read").help(absent.help));
                None
            }
        }
    }

    fn no_reference<T>(&self, expected: &str) -> Option<T> {
        // Somebody may have written the secret itself where its place belongs.
        self.doc.hide(self.span());
        let problem = Problem::error(self.span(), format!("`{}` is not a reference to a string", self.path));
        self.doc.report(
            problem
                .label("not one of the forms")
                .help(format!("accepted: {expected}, as a string or as {REFERENCE_FORMS}")),
        );
        None
    }
}

impl Text<'_> {
    /// The string as a message may quote it.
    pub(super) fn shown(&self) -> String {
        self.reference.as_ref().map_or_else(|| quoted(&self.value), |reference| format!("the value of {reference}"))
    }

    /// Reports what is wrong with the string.
    pub(super) fn refuse<T>(&self, message: impl Into<String>, label: &str, help: impl Into<String>) -> Option<T> {
        self.doc.report(Problem::error(self.span.clone(), message).label(label).help(help));
        None
    }

    /// Where a part of the string is written, when that can be told; otherwise where the string is.
    pub(super) fn span_of(&self, part: &str) -> Range<usize> {
        let raw = self.doc.text.get(self.span.clone()).unwrap_or_default();
        match raw.find(part) {
            Some(at) if self.reference.is_none() && !part.is_empty() => {
                self.span.start + at..self.span.start + at + part.len()
            }
            _ => self.span.clone(),
        }
    }

    /// One of some words. Words in `later` are known but not served by this version.
    pub(super) fn choose<T: Clone>(&self, accepted: &[(&str, T)], later: &[&str]) -> Option<T> {
        if let Some((_, choice)) = accepted.iter().find(|(word, _)| *word == self.value) {
            return Some(choice.clone());
        }
        let words: Vec<&str> = accepted.iter().map(|(word, _)| *word).collect();
        let help = format!("accepted: {}", listed(&words));
        if later.contains(&self.value.as_str()) {
            let message = format!("`{}` = {} is not available in this version", self.path, self.shown());
            return self.refuse(message, "not available yet", help);
        }
        let near = near::nearest(&self.value, words).filter(|_| self.reference.is_none());
        let label = near.map_or_else(|| "not accepted".to_owned(), |near| format!("did you mean `{near}`?"));
        self.refuse(format!("`{}` cannot be {}", self.path, self.shown()), &label, help)
    }
}

fn whole(integer: &DeInteger<'_>) -> Option<i64> {
    i64::from_str_radix(integer.as_str(), integer.radix()).ok()
}

fn json_of(value: &DeValue<'_>) -> Option<serde_json::Value> {
    Some(match value {
        DeValue::String(value) => serde_json::Value::String(value.to_string()),
        DeValue::Integer(value) => whole(value)?.into(),
        DeValue::Float(value) => serde_json::Number::from_f64(value.as_str().parse().ok()?)?.into(),
        DeValue::Boolean(value) => (*value).into(),
        DeValue::Datetime(value) => value.to_string().into(),
        DeValue::Array(list) => list.iter().map(|item| json_of(item.get_ref())).collect::<Option<Vec<_>>>()?.into(),
        DeValue::Table(table) => table
            .iter()
            .map(|(key, item)| Some((key.get_ref().to_string(), json_of(item.get_ref())?)))
            .collect::<Option<serde_json::Map<_, _>>>()?
            .into(),
    })
}
