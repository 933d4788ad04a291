//! Whether an answer is what it must be. Reasons never show what the body holds, only what it was to hold.

use serde_json::Value;

use super::super::net::Fault;
use super::{BODY_CAP, Body};
use crate::config::model::{HttpProbe, JsonCondition, JsonTest};

/// Looks at the status.
pub(super) fn check_status(probe: &HttpProbe, status: u16) -> Result<(), Fault> {
    let accepted = if probe.status.is_empty() { (200..300).contains(&status) } else { probe.status.contains(&status) };
    if accepted {
        return Ok(());
    }
    if status == 429 {
        return Err(Fault::Unreadable("rate limited (status 429)".to_owned()));
    }
    Err(Fault::Wrong(format!("status {status}")))
}

/// Looks at the body.
pub(super) fn check_body(probe: &HttpProbe, body: &Body) -> Result<(), Fault> {
    if let Some(text) = &probe.body_contains
        && !String::from_utf8_lossy(&body.bytes).contains(text.as_str())
    {
        return Err(wrong_or_cut(body, format!("body does not contain {text:?}")));
    }
    if probe.json.is_empty() {
        return Ok(());
    }
    let Ok(json) = serde_json::from_slice::<Value>(&body.bytes) else {
        return Err(wrong_or_cut(body, "body is not JSON".to_owned()));
    };
    probe.json.iter().try_for_each(|condition| check_json(condition, &json))
}

/// What is not in the part that was read may be in the rest.
fn wrong_or_cut(body: &Body, reason: String) -> Fault {
    if body.whole { Fault::Wrong(reason) } else { Fault::Unreadable(format!("first {BODY_CAP} bytes: {reason}")) }
}

fn check_json(condition: &JsonCondition, json: &Value) -> Result<(), Fault> {
    let JsonCondition { pointer, test } = condition;
    let found = json.pointer(pointer);
    let number = || found.and_then(Value::as_f64);
    let wrong = match test {
        JsonTest::Exists(expected) if found.is_some() == *expected => None,
        JsonTest::Exists(true) => Some(format!("{pointer:?} is missing")),
        JsonTest::Exists(false) => Some(format!("{pointer:?} is there")),
        JsonTest::Equals(expected) => match found {
            Some(found) if equal(found, expected) => None,
            Some(_) => Some(format!("{pointer:?} is not {expected}")),
            None => Some(format!("{pointer:?} is missing")),
        },
        JsonTest::AtLeast(least) => match number() {
            Some(number) if number >= *least => None,
            Some(number) => Some(format!("{pointer:?} is {number}, below {least}")),
            None => Some(format!("{pointer:?} is not a number")),
        },
        JsonTest::AtMost(most) => match number() {
            Some(number) if number <= *most => None,
            Some(number) => Some(format!("{pointer:?} is {number}, above {most}")),
            None => Some(format!("{pointer:?} is not a number")),
        },
    };
    wrong.map_or(Ok(()), |reason| Err(Fault::Wrong(reason)))
}

/// JSON knows one kind of number: `1` equals `1.0`.
fn equal(a: &Value, b: &Value) -> bool {
    match (a.as_f64(), b.as_f64()) {
        #[expect(clippy::float_cmp, reason = "equality of two written numbers is what was asked for")]
        (Some(x), Some(y)) if !(a.is_u64() && b.is_u64()) => x == y,
        (Some(_) | None, Some(_) | None) => a == b,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn holds(pointer: &str, test: JsonTest, json: &Value) -> Result<(), String> {
        let condition = JsonCondition { pointer: pointer.to_owned(), test };
        check_json(&condition, json).map_err(Fault::into_reason)
    }

    #[test]
    fn conditions_on_places_of_an_answer() {
        let answer = json!([{ "id": 7, "state": "ok", "ratio": 0.5, "off": null }]);
        let fails = |reason: &str| Err(reason.to_owned());
        assert_eq!(holds("/0/id", JsonTest::Exists(true), &answer), Ok(()));
        assert_eq!(holds("/0/off", JsonTest::Exists(true), &answer), Ok(()));
        assert_eq!(holds("/1", JsonTest::Exists(false), &answer), Ok(()));
        assert_eq!(holds("/1", JsonTest::Exists(true), &answer), fails("\"/1\" is missing"));
        assert_eq!(holds("/0/id", JsonTest::Exists(false), &answer), fails("\"/0/id\" is there"));
        assert_eq!(holds("/0/id", JsonTest::Equals(json!(7.0)), &answer), Ok(()));
        assert_eq!(holds("/0/state", JsonTest::Equals(json!("down")), &answer), fails("\"/0/state\" is not \"down\""));
        assert_eq!(holds("/0/none", JsonTest::Equals(json!(1)), &answer), fails("\"/0/none\" is missing"));
        assert_eq!(holds("/0/ratio", JsonTest::AtLeast(0.5), &answer), Ok(()));
        assert_eq!(holds("/0/ratio", JsonTest::AtLeast(0.6), &answer), fails("\"/0/ratio\" is 0.5, below 0.6"));
        assert_eq!(holds("/0/ratio", JsonTest::AtMost(0.4), &answer), fails("\"/0/ratio\" is 0.5, above 0.4"));
        assert_eq!(holds("/0/state", JsonTest::AtMost(1.0), &answer), fails("\"/0/state\" is not a number"));
        let large = json!(9_007_199_254_740_993_u64);
        assert!(holds("", JsonTest::Equals(json!(9_007_199_254_740_992_u64)), &large).is_err());
    }
}
