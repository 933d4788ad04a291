//! Readings of kind `prometheus`: instant queries, answered by a Prometheus or what speaks its API.
//!
//! Prometheus is not the application: whatever keeps a number from us leaves the reading unreadable, and never bad.
//! An instant query is answered for the time of asking, however old the data; so the series behind the value are
//! asked for their age, at the very time of the value and by Prometheus's own clock.

use std::collections::BTreeMap;
use std::time::Duration;

use rollbackd_core::sample::Reading;
use serde::Deserialize;
use url::{Url, form_urlencoded};

use super::http::{Ask, Client};
use super::net::{Deadline, Fault};
use crate::clock;
use crate::config::model::{PrometheusQuery, Secret, Series};

/// How much of Prometheus's own words is shown.
const WORDS: usize = 200;

/// Asks for the value, for how many events stand behind it, and for the age of what it was made of.
pub(super) async fn read(client: &Client, query: &PrometheusQuery, timeout: Duration) -> Result<Reading, Fault> {
    ask(client, query, timeout).await.map_err(|fault| match fault {
        Fault::Wrong(reason) | Fault::Unanswered(reason) => Fault::Unreadable(format!("Prometheus: {reason}")),
        Fault::Unreadable(reason) => Fault::Unreadable(reason),
    })
}

async fn ask(client: &Client, query: &PrometheusQuery, timeout: Duration) -> Result<Reading, Fault> {
    let server = Server::new(client, query, Deadline::after(timeout));
    let answer = server.query(&query.query.text, None).await?;
    // All else is asked for the same moment, so that the parts fit together.
    let at = answer.at().map(|at| at.to_string());
    if let Some(at) = answer.at() {
        check_clock(at, query.max_age)?;
    }
    let events = match &query.samples {
        Some(samples) => Some(count(&server.query(&samples.text, at.as_deref()).await?)?),
        None => None,
    };
    if let Some(ages) = ages(query) {
        check_age(&server.query(&ages.text, at.as_deref()).await?, &ages.series, query.max_age)?;
    }
    // Without events there is nothing to take a share of, and 0/0 is no fault of anybody's.
    if events == Some(0.0) {
        return Ok(Reading::Events { good: 0, bad: 0, value: None, reason: None });
    }
    let value = answer.number().map_err(|reason| Fault::Unreadable(format!("the query {reason}")))?;
    match events {
        Some(events) => share(value, events),
        None => Ok(Reading::good_with(value)),
    }
}

/// A Prometheus, for the time of one reading.
struct Server<'a> {
    client: &'a Client,
    url: Url,
    headers: BTreeMap<String, Secret>,
    deadline: Deadline,
}

impl<'a> Server<'a> {
    fn new(client: &'a Client, query: &PrometheusQuery, deadline: Deadline) -> Self {
        let mut url = query.url.expose().clone();
        let path = format!("{}/api/v1/query", url.path().trim_end_matches('/'));
        url.set_path(&path);
        let mut headers = query.headers.clone();
        headers.retain(|name, _| !name.eq_ignore_ascii_case("content-type"));
        headers.insert("content-type".to_owned(), Secret::new("application/x-www-form-urlencoded"));
        Self { client, url, headers, deadline }
    }

    /// Makes an instant query.
    async fn query(&self, query: &str, at: Option<&str>) -> Result<Data, Fault> {
        let pairs = [Some(("query", query)), at.map(|at| ("time", at))];
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs.iter().flatten()).finish();
        let body = Secret::new(body);
        let ask = Ask { method: "POST", url: &self.url, headers: &self.headers, body: Some(&body) };
        let answer = self.client.ask(ask, self.deadline).await?;
        let status = answer.status;
        let body = answer.body().await?;
        if !body.whole {
            return Err(Fault::Unreadable("Prometheus: the answer is too long: is this one number?".to_owned()));
        }
        let answer = serde_json::from_slice::<Answer>(&body.bytes).ok();
        if status != 200 {
            let words = answer.and_then(|answer| answer.error).map(|words| format!(": {}", brief(&words)));
            return Err(Fault::Unreadable(format!("Prometheus: status {status}{}", words.unwrap_or_default())));
        }
        let Some(answer) = answer else {
            return Err(Fault::Unreadable("what answered is no Prometheus: no such JSON".to_owned()));
        };
        // Warnings come with what could be had of an answer of which a part is missing.
        if let Some(warning) = answer.warnings.first() {
            return Err(Fault::Unreadable(format!("Prometheus warns of its answer: {}", brief(warning))));
        }
        match (answer.data, answer.error) {
            (_, Some(error)) => Err(Fault::Unreadable(format!("Prometheus: {}", brief(&error)))),
            (Some(data), None) => Ok(data),
            (None, None) => Err(Fault::Unreadable("Prometheus: the answer holds no data".to_owned())),
        }
    }
}

/// Prometheus's words, cut and on one line.
fn brief(words: &str) -> String {
    let line: String = words.chars().map(|char| if char.is_control() { ' ' } else { char }).collect();
    match line.char_indices().nth(WORDS) {
        Some((end, _)) => format!("{}…", line.get(..end).unwrap_or_default()),
        None => line,
    }
}

/// An answer of the API.
#[derive(Debug, Deserialize)]
struct Answer {
    data: Option<Data>,
    error: Option<String>,
    #[serde(default)]
    warnings: Vec<String>,
}

/// What a query came to.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase", tag = "resultType", content = "result")]
enum Data {
    Vector(Vec<Element>),
    Scalar(Point),
    Matrix(serde::de::IgnoredAny),
    String(serde::de::IgnoredAny),
}

/// A number and the time for which it was asked.
type Point = (f64, String);

#[derive(Debug, Deserialize)]
struct Element {
    #[serde(default)]
    metric: BTreeMap<String, String>,
    /// Absent for a native histogram.
    value: Option<Point>,
}

impl Data {
    /// The time for which the query was answered; nothing says it when there is no element.
    fn at(&self) -> Option<f64> {
        match self {
            Self::Vector(elements) => elements.iter().find_map(|element| Some(element.value.as_ref()?.0)),
            Self::Scalar((at, _)) => Some(*at),
            Self::Matrix(_) | Self::String(_) => None,
        }
    }

    /// The one number, or what there is instead, as what follows "the query".
    fn number(&self) -> Result<f64, String> {
        let text = match self {
            Self::Scalar((_, text)) => text,
            Self::Vector(elements) => match elements.as_slice() {
                [] => return Err("gives no value: no series has data for it".to_owned()),
                [Element { value: Some((_, text)), .. }] => text,
                [_] => return Err("gives a histogram and no number".to_owned()),
                several => return Err(format!("gives {} values and not one: sum(…) of it?", several.len())),
            },
            Self::Matrix(_) => return Err("gives a range of samples and no number".to_owned()),
            Self::String(_) => return Err("gives a text and no number".to_owned()),
        };
        match text.parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(number),
            Ok(_) | Err(_) => Err(format!("gives {}", brief(text))),
        }
    }
}

/// How many events there were. An increase is estimated, and no whole number.
fn count(answer: &Data) -> Result<f64, Fault> {
    let count = answer.number().map_err(|reason| Fault::Unreadable(format!("the query `samples` {reason}")))?;
    if count < 0.0 {
        return Err(Fault::Unreadable(format!("the query `samples` gives {count}: less than no event")));
    }
    Ok(count.round())
}

/// A share of so many events as good and bad ones.
fn share(share: f64, events: f64) -> Result<Reading, Fault> {
    if !(0.0..=1.0).contains(&share) {
        let reason = format!("the query gives {share}: with `samples` it must be a share from 0 to 1");
        return Err(Fault::Unreadable(reason));
    }
    let (all, bad) = (whole(events), whole((share * events).round()));
    let reason = (bad > 0).then(|| format!("{bad} of {all} events are bad"));
    Ok(Reading::Events { good: all.saturating_sub(bad), bad, value: Some(share), reason })
}

/// A count that is no negative number, as one.
fn whole(count: f64) -> u64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "rounded, at least 0, and saturating")]
    let count = count as u64;
    count
}

/// Whether the answer is of now: a cache may have kept it.
fn check_clock(at: f64, max_age: Duration) -> Result<(), Fault> {
    let age = clock::now().as_duration().as_secs_f64() - at;
    if age <= max_age.as_secs_f64() {
        return Ok(());
    }
    let age = Duration::from_secs_f64(age.round().clamp(0.0, 1e9));
    let reason = format!("the answer is {age:?} old by this machine's clock: a cache gave it, or a clock is wrong");
    Err(Fault::Unreadable(reason))
}

/// The query for the age of the series behind a value.
struct Ages<'a> {
    text: String,
    series: Vec<&'a Series>,
}

/// The label by which the answer names the series.
const PLACE: &str = "series";

/// Asks which groups of series have data that the query looks at, and none of the last `max_age`. `None` when there
/// can be no such group: a range that is no longer than `max_age` holds nothing older.
///
/// A query that looks at newest samples does not see series that have ended; one that looks at a range does. What a
/// selector gives by itself is asked for the one, all that the range holds for the other. `last_over_time` is the
/// function that takes series of several names, for it keeps the names.
fn ages(query: &PrometheusQuery) -> Option<Ages<'_>> {
    let mut series: Vec<&Series> = Vec::new();
    for one in query.query.series.iter().chain(query.samples.iter().flat_map(|samples| &samples.series)) {
        if one.back.is_none_or(|back| back > query.max_age) && !series.contains(&one) {
            series.push(one);
        }
    }
    let max_age = query.max_age.as_millis();
    let parts: Vec<String> = series
        .iter()
        .enumerate()
        .map(|(place, Series { selector, back })| {
            let seen = match back {
                None => selector.clone(),
                Some(back) => format!("last_over_time({selector}[{}ms])", back.as_millis()),
            };
            let asked = format!("count({seen}) unless count(last_over_time({selector}[{max_age}ms]))");
            format!("label_replace({asked}, \"{PLACE}\", \"{place}\", \"\", \"\")")
        })
        .collect();
    (!series.is_empty()).then(|| Ages { text: parts.join(" or "), series })
}

/// Whether every group of series that has data has some that is young enough.
fn check_age(answer: &Data, series: &[&Series], max_age: Duration) -> Result<(), Fault> {
    let Data::Vector(elements) = answer else {
        return Err(Fault::Unreadable("Prometheus: how old the data is cannot be told".to_owned()));
    };
    let Some(old) = elements.first() else { return Ok(()) };
    let place = old.metric.get(PLACE).and_then(|place| place.parse::<usize>().ok());
    let selector = place.and_then(|place| series.get(place)).map_or("the query", |series| &series.selector);
    Err(Fault::Unreadable(format!("the data of {} has no sample of the last {max_age:?}", brief(selector))))
}

#[cfg(test)]
mod tests;
