//! `[[signal]]`: what is read again and again. HTTP requests are also what a check of kind `http` makes.

use super::cross::Names;
use super::database::{Ground, postgres_url};
use super::json;
use super::model::{HttpProbe, LogSource, PrometheusQuery, Signal, SignalSource};
use super::problem::Problem;
use super::promql;
use super::scalar::{BOUND, PACE, seconds};
use super::section::Section;
use super::value::Value;

/// Reads every `[[signal]]`. The names are known even of those that cannot be used, so that rules are not blamed.
pub(super) fn read(sections: Vec<Section<'_>>, ground: &Ground) -> (Names, Vec<Signal>) {
    let mut names = Names::of("signal");
    let signals = sections.into_iter().filter_map(|section| signal(section, ground, &mut names)).collect();
    (names, signals)
}

fn signal(mut section: Section<'_>, ground: &Ground, names: &mut Names) -> Option<Signal> {
    let name = section.need("name", "name = \"api\"", |value| names.take(value));
    let every = section.or("every", seconds(5), |value| value.duration(PACE));
    let timeout = section.or("timeout", seconds(3), |value| value.duration(BOUND));
    let implicates = section.or("implicates", Vec::new(), |value| {
        value.each("a list of table names", |value| Some(value.table_name(&ground.schema)?.1.value))
    });
    let kinds = ["http", "tcp", "postgres", "prometheus", "log", "command"];
    let source = match section.one_of("kind of signal", &kinds, &[]) {
        Some("http") => http(section.child("http")).map(SignalSource::Http),
        Some("tcp") => tcp(section.child("tcp")),
        Some("postgres") => postgres(section.child("postgres")),
        Some("log") => log(section.child("log")),
        Some("command") => command(section.child("command")),
        Some("prometheus") => prometheus(section.child("prometheus")).map(SignalSource::Prometheus),
        Some(_) | None => None,
    };
    section.finish();
    Some(Signal { name: name?, every, timeout, implicates, source: source? })
}

fn http(mut section: Section<'_>) -> Option<HttpProbe> {
    let probe = request(&mut section);
    section.finish();
    probe
}

/// The keys of a request and of what its answer must be.
pub(super) fn request(section: &mut Section<'_>) -> Option<HttpProbe> {
    let url = section.need("url", "url = \"https://shop.example/health\"", Value::web_url);
    let method = section.or("method", "GET".to_owned(), method);
    let headers = section.or("headers", std::collections::BTreeMap::new(), Value::headers);
    let body = section.maybe("body", |value| value.secret("the body to send"));
    let status =
        section.or("status", Vec::new(), |value| value.each("a list of status codes", |code| code.integer(100..=599)));
    let json = section.or("json", Vec::new(), json::conditions);
    let body_contains = section.maybe("body_contains", |value| value.plain("text that the answer must hold"));
    let redirects = section.or("redirects", 0, |value| value.integer(0..=10));
    Some(HttpProbe { url: url?, method, headers, body, status, json, body_contains, redirects })
}

/// An HTTP method.
pub(super) fn method(value: Value<'_>) -> Option<String> {
    let text = value.filled("an HTTP method such as \"GET\"")?;
    let known = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"].map(|method| (method, method));
    text.choose(&known, &[]).map(str::to_owned)
}

fn tcp(mut section: Section<'_>) -> Option<SignalSource> {
    let address = section.need("address", "address = \"127.0.0.1:5432\"", Value::host_and_port);
    section.finish();
    Some(SignalSource::Tcp { address: address? })
}

fn postgres(mut section: Section<'_>) -> Option<SignalSource> {
    let given = section.has("url");
    let url = section.maybe("url", postgres_url);
    let query = section.need("query", "query = \"select true\"", |value| value.plain("a query"));
    section.finish();
    if given && url.is_none() {
        return None;
    }
    Some(SignalSource::Postgres { url, query: query? })
}

fn log(mut section: Section<'_>) -> Option<SignalSource> {
    let path = section.need("path", "path = \"/var/log/shop/app.log\"", |value| value.path("the path of a log"));
    let error = section.need("error", "error = 'level=(error|fatal)'", |value| {
        let (pattern, text) = value.pattern("a regular expression for the lines that are bad")?;
        if matches_everything(&pattern) {
            let problem = Problem::warning(text.span.clone(), "`error` matches every line: all of them are bad");
            text.doc
                .report(problem.label("matches nothing at all, too").help("accepted: such as 'level=(error|fatal)'"));
        }
        Some(pattern)
    });
    // As it stands in every reference to this key: every line that is not empty.
    let line = section.or("line", None, |value| {
        let (pattern, _) = value.pattern("a regular expression for the lines that count")?;
        Some(Some(pattern).filter(|pattern| pattern.as_str() != "."))
    });
    section.finish();
    Some(SignalSource::Log(LogSource { path: path?, error: error?, line }))
}

/// Whether a pattern matches at every place, as `x*` does, and not only in empty lines, as `^$`.
fn matches_everything(pattern: &regex::bytes::Regex) -> bool {
    [&b""[..], b"a", b"Z 9", b"{\"-\": 0}"].iter().all(|line| pattern.is_match(line))
}

fn command(mut section: Section<'_>) -> Option<SignalSource> {
    let run = section.need("run", "run = [\"scripts/healthy.sh\"]", Value::command);
    section.finish();
    Some(SignalSource::Command { run: run? })
}

fn prometheus(mut section: Section<'_>) -> Option<PrometheusQuery> {
    let url = section.need("url", "url = \"http://127.0.0.1:9090\"", promql::base_url);
    let query = section.need("query", "query = \"sum(rate(http_requests_total[1m]))\"", promql::read);
    let has_samples = section.has("samples");
    let samples = section.maybe("samples", promql::read);
    let max_age = section.or("max_age", seconds(120), |value| value.duration(promql::AGE));
    let headers = section.or("headers", std::collections::BTreeMap::new(), Value::headers);
    section.finish();
    if has_samples && samples.is_none() {
        return None;
    }
    Some(PrometheusQuery { url: url?, headers, query: query?, samples, max_age })
}
