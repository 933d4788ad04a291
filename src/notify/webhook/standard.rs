//! The format `standard`: the body that the interface names, signed as [Standard Webhooks] say.
//!
//! Pure: a notice gives the same bytes at every attempt, and the signature takes the time as an argument.
//!
//! [Standard Webhooks]: https://www.standardwebhooks.com

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac as _};
use jiff::Timestamp;
use rollbackd_core::notice::{MessageLinks, Notice, Reason};
use serde::Serialize;
use serde_json::{Number, Value};
use sha2::Sha256;

use crate::config::model::SigningKey;

/// The body. A struct and not a map, so that its members keep the order in which people read them.
#[derive(Serialize)]
struct Body<'a> {
    #[serde(rename = "type")]
    event: &'static str,
    timestamp: String,
    data: Data<'a>,
}

#[derive(Serialize)]
struct Data<'a> {
    id: &'a str,
    incident_id: &'a str,
    sequence: u64,
    plan: &'a str,
    window: Option<&'a str>,
    host: &'a str,
    state: &'a str,
    severity: &'static str,
    summary: &'a str,
    details: &'a [String],
    reason: Option<ReasonData<'a>>,
    links: &'a MessageLinks,
}

#[derive(Serialize)]
struct ReasonData<'a> {
    rule: &'a str,
    signal: &'a str,
    observed: Value,
    threshold: Value,
    window_seconds: Value,
    samples: u64,
}

impl<'a> From<&'a Reason> for ReasonData<'a> {
    fn from(reason: &'a Reason) -> Self {
        Self {
            rule: &reason.rule,
            signal: &reason.signal,
            observed: number(reason.observed),
            threshold: number(reason.threshold),
            window_seconds: reason.window_seconds.map_or(Value::Null, number),
            samples: reason.samples,
        }
    }
}

/// A whole number without `.0`, and what JSON cannot hold as null.
fn number(value: f64) -> Value {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if value.fract() == 0.0 && value.abs() <= EXACT {
        #[expect(clippy::cast_possible_truncation, reason = "it is whole and within the bounds")]
        return Value::from(value as i64);
    }
    Number::from_f64(value).map_or(Value::Null, Value::Number)
}

/// The bytes that are sent: the same at every attempt.
pub(crate) fn body(notice: &Notice) -> Result<Vec<u8>, String> {
    let message = &notice.message;
    let body = Body {
        event: message.event.as_str(),
        timestamp: format!("{:.3}", notice.at),
        data: Data {
            id: &notice.id,
            incident_id: &message.incident_id,
            sequence: message.sequence,
            plan: &message.plan,
            window: message.window.as_deref(),
            host: &message.host,
            state: &message.state,
            severity: message.severity.as_str(),
            summary: &message.summary,
            details: &message.details,
            reason: message.reason.as_ref().map(ReasonData::from),
            links: &message.links,
        },
    };
    serde_json::to_vec(&body).map_err(|error| format!("the notice cannot be written as JSON: {error}"))
}

/// The value of `webhook-signature`, and the time that goes into `webhook-timestamp` beside it.
pub(crate) fn sign(key: &SigningKey, id: &str, at: Timestamp, body: &[u8]) -> String {
    // An HMAC takes a key of any length; should that ever change, an unsigned value is refused by the receiver.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key.expose()) else { return String::new() };
    mac.update(id.as_bytes());
    mac.update(b".");
    mac.update(at.as_second().to_string().as_bytes());
    mac.update(b".");
    mac.update(body);
    format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::samples;

    #[test]
    fn the_published_check_value_holds() {
        let key = SigningKey::new(STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap());
        let at = Timestamp::from_second(1_614_265_330).unwrap();
        let signature = sign(&key, "msg_p5jXN8AQM9LWM0D4loKWxJek", at, br#"{"test": 2432232314}"#);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn the_body_is_as_the_interface_says() {
        let body = String::from_utf8(body(&samples::breach()).unwrap()).unwrap();
        insta::assert_snapshot!(body);
    }

    #[test]
    fn what_is_absent_is_null() {
        let mut notice = samples::test();
        notice.message.window = None;
        let body = String::from_utf8(body(&notice).unwrap()).unwrap();
        insta::assert_snapshot!(body);
    }

    #[test]
    fn numbers_are_whole_where_they_can_be() {
        assert_eq!(number(3.0).to_string(), "3");
        assert_eq!(number(0.31).to_string(), "0.31");
        assert_eq!(number(1e300).to_string(), "1e+300");
        assert_eq!(number(f64::NAN), Value::Null);
        assert_eq!(number(f64::INFINITY), Value::Null);
    }
}
