//! The answer of a Prometheus range query → samples of one signal.

use jiff::Timestamp;
use rollbackd_core::sample::{Reading, Sample};
use serde::Deserialize;

/// What `/api/v1/query_range` answers.
#[derive(Debug, Deserialize)]
struct Answer {
    status: String,
    #[serde(default)]
    error: String,
    data: Option<Data>,
}

#[derive(Debug, Deserialize)]
struct Data {
    #[serde(rename = "resultType")]
    kind: String,
    #[serde(default)]
    result: Vec<Series>,
}

#[derive(Debug, Deserialize)]
struct Series {
    #[serde(default)]
    values: Vec<(f64, String)>,
}

/// Whether a text begins like such an answer: it is one object, not one a line.
pub fn is_one(text: &str) -> bool {
    text.trim_start().strip_prefix('{').is_some_and(|rest| rest.trim_start().starts_with("\"status\""))
}

/// The samples, in order of time. `events`: how many events stand behind each value, which is a share then.
///
/// # Errors
/// Why the text is not the answer of a range query for one series.
pub fn samples(text: &str, events: Option<u64>) -> Result<Vec<Sample>, String> {
    let answer: Answer =
        serde_json::from_str(text).map_err(|error| format!("not the answer of a range query: {error}"))?;
    let data = match answer.data {
        Some(data) if answer.status == "success" => data,
        Some(_) | None => return Err(format!("the query failed: {} {}", answer.status, answer.error)),
    };
    if data.kind != "matrix" {
        return Err(format!("its result is a {}; a range query (`query_range`) gives a matrix", data.kind));
    }
    let [series] = data.result.as_slice() else {
        return Err(format!("it holds {} series; the query has to give one", data.result.len()));
    };
    series.values.iter().map(|(at, value)| sample(*at, value, events)).collect()
}

fn sample(at: f64, value: &str, events: Option<u64>) -> Result<Sample, String> {
    let instant = jiff::SignedDuration::try_from_secs_f64(at)
        .ok()
        .and_then(|since| Timestamp::UNIX_EPOCH.checked_add(since).ok())
        .and_then(|at| Timestamp::from_millisecond(at.as_millisecond()).ok())
        .ok_or_else(|| format!("{at} is no time"))?;
    let number: f64 = value.parse().map_err(|_error| format!("`{value}` is no number"))?;
    let reading = match events {
        _ if !number.is_finite() => Reading::unreadable(format!("the value was {value}")),
        None => Reading::good_with(number),
        Some(_) if !(0.0..=1.0).contains(&number) => Reading::unreadable(format!("{value} is no share of events")),
        Some(events) => {
            let bad = share(number, events);
            Reading::Events { good: events - bad, bad, value: Some(number), reason: None }
        }
    };
    Ok(Sample { at: instant, took: jiff::SignedDuration::ZERO, reading })
}

/// So many of the events.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a share from 0 to 1 of a count is a count"
)]
fn share(share: f64, events: u64) -> u64 {
    ((share * events as f64).round() as u64).min(events)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_matrix_of_one_series_is_read() {
        let text = r#"{"status":"success","data":{"resultType":"matrix","result":[{"metric":{},"values":[[1795312800,"0.25"],[1795312815.5,"NaN"],[1795312830,"3"]]}]}}"#;
        assert!(is_one(text) && !is_one("{\"at\": 1}"));
        let shares: Vec<Reading> = samples(text, Some(200)).expect("read").into_iter().map(|one| one.reading).collect();
        assert_eq!(shares[0], Reading::Events { good: 150, bad: 50, value: Some(0.25), reason: None });
        assert!(matches!(&shares[1], Reading::Unreadable { .. }) && matches!(&shares[2], Reading::Unreadable { .. }));
        let values = samples(text, None).expect("read");
        assert_eq!(values[2].reading, Reading::good_with(3.0));
        assert_eq!(values[1].at.to_string(), "2026-11-22T02:00:15.5Z");
    }

    #[test]
    fn anything_else_is_refused_with_a_reason() {
        for (text, why) in [
            ("{\"status\":\"error\",\"error\":\"bad_data\"}", "bad_data"),
            (r#"{"status":"success","data":{"resultType":"vector","result":[]}}"#, "vector"),
            (r#"{"status":"success","data":{"resultType":"matrix","result":[]}}"#, "0 series"),
            ("{\"status\":", "not the answer"),
        ] {
            let told = samples(text, None).expect_err(text);
            assert!(told.contains(why), "{told}");
        }
    }
}
