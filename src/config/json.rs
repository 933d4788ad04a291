//! `json = […]`: conditions on places of a JSON answer, each on its own and together.

use std::ops::Range;

use serde_json::Value as Json;

use super::model::{JsonCondition, JsonTest};
use super::problem::Problem;
use super::redact::quoted;
use super::value::{Text, Value};

/// Reads the conditions, and reports those that no answer can meet.
pub(super) fn conditions(value: Value<'_>) -> Option<Vec<JsonCondition>> {
    let doc = value.doc;
    let mut read: Vec<(Range<usize>, JsonCondition)> = Vec::new();
    for one in value.list("a list of conditions")? {
        let span = one.span();
        let Some(condition) = condition(one) else { continue };
        if let Some((_, other)) = read.iter().find(|(_, other)| contradict(other, &condition)) {
            let message = format!("no answer can meet this condition and the one before it on {:?}", other.pointer);
            let problem = Problem::error(span.clone(), message).label(format!("on {:?}", condition.pointer));
            doc.report(problem.help("accepted: conditions that one answer can meet together"));
        }
        read.push((span, condition));
    }
    Some(read.into_iter().map(|(_, condition)| condition).collect())
}

fn condition(value: Value<'_>) -> Option<JsonCondition> {
    let mut section = value.table()?;
    let doc = section.doc();
    let pointer = section
        .need("pointer", "pointer = \"/0/id\"", |value| pointer(&value.text("a JSON pointer such as \"/0/id\"")?));
    let number = |value: Value<'_>| value.number("a number");
    let test = match section.one_of("test", &["exists", "equals", "at_least", "at_most"], &[]) {
        Some("exists") => section.maybe("exists", Value::boolean).map(JsonTest::Exists),
        Some("equals") => section.maybe("equals", Value::json).map(JsonTest::Equals),
        Some("at_least") => section.maybe("at_least", number).map(JsonTest::AtLeast),
        Some("at_most") => section.maybe("at_most", number).map(JsonTest::AtMost),
        Some(_) | None => None,
    };
    if let Some(JsonTest::Equals(Json::Array(_) | Json::Object(_))) = &test {
        let problem = Problem::warning(section.key_span("equals"), "`equals` compares a whole list or table");
        doc.report(problem.label("every part must be equal").help("point to a single value to be less strict"));
    }
    section.finish();
    Some(JsonCondition { pointer: pointer?, test: test? })
}

/// An RFC 6901 pointer.
fn pointer(text: &Text<'_>) -> Option<String> {
    if !text.value.is_empty() && !text.value.starts_with('/') {
        let message = format!("{} is not a JSON pointer", text.shown());
        return text.refuse(message, "begins without `/`", "accepted: \"/0/id\"; \"\" is the whole answer");
    }
    let mut escapes = text.value.split('~').skip(1);
    if escapes.any(|rest| !rest.starts_with(['0', '1'])) {
        let message = format!("{} is not a JSON pointer", text.shown());
        let help = "accepted: `~0` for `~` and `~1` for `/` inside a name";
        return text.refuse(message, "`~` stands alone", help);
    }
    let padded = |part: &&str| part.len() > 1 && part.starts_with('0') && part.chars().all(|c| c.is_ascii_digit());
    if let Some(part) = text.value.split('/').skip(1).find(padded) {
        let message = format!("{} is no place in a list: positions have no leading zeros", quoted(part));
        let problem = Problem::warning(text.span_of(part), message).label("matches a name only");
        let position = part.trim_start_matches('0');
        let help = format!("for the position in a list write `{}`", if position.is_empty() { "0" } else { position });
        text.doc.report(problem.help(help));
    }
    Some(text.value.clone())
}

/// Whether no answer can meet both.
fn contradict(a: &JsonCondition, b: &JsonCondition) -> bool {
    if absent_and_needed(a, b) || absent_and_needed(b, a) {
        return true;
    }
    a.pointer == b.pointer && (apart(&a.test, &b.test) || apart(&b.test, &a.test))
}

/// Whether something is to be missing of which the other needs it, or a part of it.
fn absent_and_needed(absent: &JsonCondition, needed: &JsonCondition) -> bool {
    let within =
        needed.pointer.strip_prefix(&absent.pointer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    matches!(absent.test, JsonTest::Exists(false)) && !matches!(needed.test, JsonTest::Exists(false)) && within
}

/// Whether no value passes both, looked at from one side.
fn apart(a: &JsonTest, b: &JsonTest) -> bool {
    match (a, b) {
        (JsonTest::AtLeast(least), JsonTest::AtMost(most)) => least > most,
        (JsonTest::Equals(value), JsonTest::AtLeast(least)) => value.as_f64().is_none_or(|value| value < *least),
        (JsonTest::Equals(value), JsonTest::AtMost(most)) => value.as_f64().is_none_or(|value| value > *most),
        (JsonTest::Equals(one), JsonTest::Equals(other)) => match (one.as_f64(), other.as_f64()) {
            (Some(one), Some(other)) => (one - other).abs() > f64::EPSILON * one.abs().max(1.0),
            (Some(_) | None, Some(_) | None) => one != other,
        },
        (
            JsonTest::AtLeast(_) | JsonTest::AtMost(_) | JsonTest::Exists(_) | JsonTest::Equals(_),
            JsonTest::AtLeast(_) | JsonTest::AtMost(_) | JsonTest::Exists(_),
        )
        | (JsonTest::AtLeast(_) | JsonTest::AtMost(_) | JsonTest::Exists(_), JsonTest::Equals(_)) => false,
    }
}
