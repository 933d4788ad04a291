//! What is asked of signals, and what of it cannot be: found with the place.

use super::contract::is_error;
use super::*;
use crate::config::model::{HttpProbe, JsonTest, PrometheusQuery, SignalSource};

/// The minimal configuration with this as its signal's kind.
fn with(kind: &str) -> String {
    edited("http.url = \"http://127.0.0.1/health\"", kind)
}

fn source(kind: &str) -> SignalSource {
    let loaded = read_plain(&with(kind)).unwrap_or_else(|problems| panic!("{problems}"));
    loaded.config.signals[0].source.clone()
}

fn http(more: &str) -> HttpProbe {
    let SignalSource::Http(probe) = source(&format!("http = {{ url = \"http://127.0.0.1/\", {more} }}")) else {
        panic!("another kind")
    };
    probe
}

fn prometheus(more: &str) -> String {
    // A value alone leaves nothing for `consecutive` to count.
    let kind = format!("prometheus = {{ url = \"http://127.0.0.1:9090\", {more} }}");
    with(&kind).replacen("consecutive = 3", "value_above = 0.5", 1)
}

fn query(more: &str) -> PrometheusQuery {
    let loaded = read_plain(&prometheus(more)).unwrap_or_else(|problems| panic!("{problems}"));
    let SignalSource::Prometheus(query) = loaded.config.signals[0].source.clone() else { panic!("another kind") };
    query
}

#[test]
fn redirects_are_followed_only_when_asked_for() {
    assert_eq!(http("status = [200]").redirects, 0);
    assert_eq!(http("redirects = 10").redirects, 10);
    is_error(
        &with("http = { url = \"http://127.0.0.1/\", redirects = 11 }"),
        "`signal.http.redirects` is out of range",
        "11",
    );
}

#[track_caller]
fn refuses_json(conditions: &str, message: &str, underlined: &str) {
    is_error(&with(&format!("http = {{ url = \"http://127.0.0.1/\", json = [{conditions}] }}")), message, underlined);
}

#[test]
fn a_pointer_that_matches_nothing_is_found() {
    refuses_json("{ pointer = \"/a~2b\", exists = true }", "`/a~2b` is not a JSON pointer", "\"/a~2b\"");
    refuses_json("{ pointer = \"/a~\", exists = true }", "`/a~` is not a JSON pointer", "\"/a~\"");
    let text = with("http = { url = \"http://127.0.0.1/\", json = [{ pointer = \"/rows/007/id\", exists = true }] }");
    assert!(read_plain(&text).is_ok(), "it may be a name");
    let warned = "`007` is no place in a list: positions have no leading zeros";
    assert_eq!(found(read_plain(&text)), [(warned.to_owned(), "007".to_owned())]);
    assert_eq!(http("json = [{ pointer = \"/a~0b~1c/0\", exists = true }]").json[0].pointer, "/a~0b~1c/0");
}

#[test]
fn conditions_that_no_answer_meets_together_are_found() {
    let both = |one: &str, other: &str| {
        let other = format!("{{ {other} }}");
        let message = "no answer can meet this condition and the one before it on \"/n\"";
        refuses_json(&format!("{{ pointer = \"/n\", {one} }}, {other}"), message, &other);
    };
    both("exists = false", "pointer = \"/n\", exists = true");
    both("exists = false", "pointer = \"/n/id\", equals = 1");
    both("at_least = 2", "pointer = \"/n\", at_most = 1.5");
    both("at_most = 1", "pointer = \"/n\", at_least = 2");
    both("equals = 3", "pointer = \"/n\", at_most = 2");
    both("at_least = 2", "pointer = \"/n\", equals = \"x\"");
    both("equals = \"x\"", "pointer = \"/n\", equals = \"y\"");
    let fine = "json = [
        { pointer = \"/n\", at_least = 1 }, { pointer = \"/n\", at_most = 1 }, { pointer = \"/n\", equals = 1.0 },
        { pointer = \"/n\", exists = true }, { pointer = \"/na\", exists = false }, { pointer = \"/n\", equals = 1 },
    ]";
    let json = http(fine).json;
    assert_eq!(json.len(), 6);
    assert!(matches!(json[4].test, JsonTest::Exists(false)));
}

#[test]
fn a_query_is_read_with_its_defaults() {
    let asked = query("query = 'sum(rate(x[1m]))'");
    assert_eq!((asked.query.text.as_str(), asked.max_age.as_secs()), ("sum(rate(x[1m]))", 120));
    assert!(asked.samples.is_none() && asked.headers.is_empty());
    let asked = query("query = 'up', samples = 'count(up)', max_age = \"30s\", headers = { a = { env = \"PATH\" } }");
    assert_eq!((asked.samples.unwrap().text.as_str(), asked.max_age.as_secs()), ("count(up)", 30));
}

#[track_caller]
fn refuses(more: &str, message: &str, underlined: &str) {
    is_error(&prometheus(more), message, underlined);
}

#[test]
fn a_query_that_cannot_be_asked_is_found_with_its_place() {
    let wrong = |key: &str, why: &str| format!("`signal.prometheus.{key}` is no PromQL query: {why}");
    let bracket = prometheus("query = 'sum(rate(x[1m])'");
    let [(message, underlined)] = &found(read_plain(&bracket))[..] else { panic!("{:?}", found(read_plain(&bracket))) };
    assert!(message.starts_with("`signal.prometheus.query` is no PromQL query: "), "{message}");
    assert_eq!(underlined, "(");
    let problems = read_plain(&bracket).unwrap_err().to_json();
    let line = bracket.lines().position(|line| line.contains("prometheus")).unwrap() + 1;
    let column = bracket.lines().nth(line - 1).unwrap().find("sum(").unwrap() + "sum(".len();
    assert_eq!(
        (problems[0]["line"].as_u64(), problems[0]["column"].as_u64()),
        (Some(line as u64), Some(column as u64))
    );

    refuses("query = 'summ(x)'", &wrong("query", "unknown function with name 'summ'"), "summ");
    refuses(
        "query = 'up', samples = 'x[5m]'",
        &wrong("samples", "it gives a range of samples and no number: rate(…) or max_over_time(…) of it?"),
        "'x[5m]'",
    );
    refuses("query = '\"x\"'", &wrong("query", "it gives a text and no number"), "'\"x\"'");
    let plain = found(read_plain(&prometheus("query = 'sum by'")));
    assert_eq!((plain.len(), plain[0].1.as_str()), (1, "'sum by'"));
    refuses("query = ''", "`signal.prometheus.query` is empty", "''");
    refuses("query = 'up', max_age = \"0s\"", "`signal.prometheus.max_age`: `0s` is out of range", "\"0s\"");
    is_error(
        &prometheus("query = 'up'").replace(":9090", ":9090/api/v1/query"),
        "`signal.prometheus.url` holds the API's path",
        "\"http://127.0.0.1:9090/api/v1/query\"",
    );
}

#[test]
fn rules_look_at_what_a_query_gives() {
    let rule = |more: &str, condition: &str| prometheus(more).replacen("value_above = 0.5", condition, 1);
    let counts = |more: &str| read_plain(&rule(more, "error_ratio_above = 0.05\nmin_samples = 5000")).is_ok();
    assert!(counts("query = 'up', samples = 'x'"), "a reading may be any number of events");
    let value = "query = 'up'";
    is_error(
        &rule(value, "error_ratio_above = 0.05"),
        "signal `api` gives no good and bad events",
        "error_ratio_above",
    );
    is_error(&rule(value, "consecutive = 3"), "signal `api` gives no bad readings", "consecutive");
    let slow = "signal `api` gives no time that an answer takes";
    is_error(&rule(value, "latency_above = \"1s\""), slow, "latency_above");
}

#[test]
fn the_headers_of_a_query_are_secret() {
    let text = prometheus("query = 'up', headers = { Authorization = \"hunter2\" }");
    let loaded = read_plain(&text).unwrap();
    assert!(!format!("{:?}", loaded.config).contains("hunter2"));
    let broken = text.replace("'up'", "'up('");
    assert!(!read_plain(&broken).unwrap_err().to_string().contains("hunter2"));
}
