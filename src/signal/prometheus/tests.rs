//! A real Prometheus that scrapes a small server of the test's own, and servers that answer what it would not.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use super::super::Reader;
use super::super::testing::{Does, Server as Web, address, answer, closed_port, config};
use super::*;
use crate::config;
use crate::config::model::{Promql, SignalSource};

const LONG: Duration = Duration::from_secs(10);
/// Starting Prometheus and its first scrapes take seconds, on a busy machine more.
const WITHIN: Duration = Duration::from_secs(60);

/// A Prometheus that scrapes one address each second.
struct Real {
    child: tokio::process::Child,
    address: SocketAddr,
    directory: PathBuf,
}

impl Real {
    fn start(directory: &Path, scraped: SocketAddr) -> Self {
        let address = TcpListener::bind(("127.0.0.1", 0)).and_then(|free| free.local_addr()).unwrap();
        let job = format!("job_name: shop, static_configs: [{{targets: ['{scraped}']}}]");
        let text = format!("global: {{scrape_interval: 1s}}\nscrape_configs: [{{{job}}}]\n");
        std::fs::write(directory.join("prometheus.yml"), text).unwrap();
        Self { child: Self::run(directory, address), address, directory: directory.to_owned() }
    }

    fn run(directory: &Path, address: SocketAddr) -> tokio::process::Child {
        tokio::process::Command::new("prometheus")
            .arg(format!("--config.file={}", directory.join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", directory.join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .arg("--web.route-prefix=/metrics-of/shop")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(directory.join("log")).unwrap())
            .kill_on_drop(true)
            .spawn()
            .expect("prometheus (Debian package prometheus)")
    }

    async fn stop(&mut self) {
        self.child.kill().await.unwrap();
    }

    fn start_again(&mut self) {
        self.child = Self::run(&self.directory, self.address);
    }

    fn url(&self) -> String {
        format!("http://{}/metrics-of/shop/", self.address)
    }
}

/// What a scrape is answered.
fn scrape(body: &str) -> Does {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/plain; version=0.0.4\r\nconnection: close";
    Does::Answer(format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes())
}

fn query(url: &str, query: &str, samples: Option<&str>, max_age: u64) -> SignalSource {
    let parse = |text: &str| Promql::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    SignalSource::Prometheus(PrometheusQuery {
        url: address(url),
        headers: BTreeMap::new(),
        query: parse(query),
        samples: samples.map(parse),
        max_age: Duration::from_secs(max_age),
    })
}

fn reader(sources: Vec<SignalSource>) -> Reader {
    Reader::new(Arc::new(config(sources, LONG))).unwrap()
}

async fn see(source: SignalSource) -> Reading {
    reader(vec![source]).read(0).await.sample.reading
}

/// Reads a signal until it says so.
async fn until(source: &SignalSource, holds: impl Fn(&Reading) -> bool) -> Reading {
    let reader = reader(vec![source.clone()]);
    let end = tokio::time::Instant::now() + WITHIN;
    loop {
        let reading = reader.read(0).await.sample.reading;
        if holds(&reading) {
            return reading;
        }
        assert!(tokio::time::Instant::now() < end, "the last was {reading:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn unreadable(reading: &Reading, part: &str) -> bool {
    matches!(reading, Reading::Unreadable { reason } if reason.contains(part))
}

#[track_caller]
fn assert_unreadable(reading: &Reading, part: &str) {
    assert!(unreadable(reading, part), "`{part}` is not in {reading:?}");
}

const VALUES: &str = "level 7.5\nshare 0.25\nevents 411.6\nzero 0\n";

#[tokio::test]
async fn numbers_shares_and_what_is_neither() {
    let web = Web::start(scrape(VALUES)).await;
    let directory = tempfile::tempdir().unwrap();
    let mut real = Real::start(directory.path(), web.address);
    let url = real.url();
    let level = query(&url, "level", None, 120);
    until(&level, |reading| *reading == Reading::good_with(7.5)).await;
    assert_eq!(see(query(&url, "1 + 1", None, 120)).await, Reading::good_with(2.0));

    let share = |text, samples| see(query(&url, text, Some(samples), 120));
    let reason = Some("103 of 412 events are bad".to_owned());
    assert_eq!(share("share", "events").await, Reading::Events { good: 309, bad: 103, value: Some(0.25), reason });
    let none = Reading::Events { good: 412, bad: 0, value: Some(0.0), reason: None };
    assert_eq!(share("zero", "events").await, none);
    // Without events there is nothing to have a share of, which 0/0 is not to be blamed for.
    let empty = Reading::Events { good: 0, bad: 0, value: None, reason: None };
    assert_eq!(share("zero / zero", "zero").await, empty);
    assert_unreadable(&share("level", "events").await, "gives 7.5: with `samples` it must be a share from 0 to 1");
    assert_unreadable(&share("share", "zero / zero").await, "the query `samples` gives NaN");
    assert_unreadable(&share("share", "no_such_series").await, "the query `samples` gives no value");
    assert_unreadable(&share("share", "-events").await, "less than no event");

    let number = |text| see(query(&url, text, None, 120));
    assert_unreadable(&number("zero / zero").await, "the query gives NaN");
    assert_unreadable(&number("level / 0").await, "the query gives +Inf");
    assert_unreadable(&number("no_such_series").await, "the query gives no value: no series has data for it");
    assert_unreadable(&number("{__name__=~\"level|share\"}").await, "the query gives 2 values and not one");
    // Series of several names have no trouble with being asked for their age.
    assert_eq!(number("sum({__name__=~\"level|share\"})").await, Reading::good_with(7.75));
    let clash = number("level / on() {__name__=~\"level|share\"}").await;
    assert_unreadable(&clash, "Prometheus: status 422: found duplicate series for the match group {}");
    assert!(clash.reason().unwrap().chars().count() < 250, "{clash:?}");

    // Prometheus is not the application: without it there is nothing to be seen, and nothing bad.
    real.stop().await;
    assert_eq!(see(level.clone()).await, Reading::unreadable("Prometheus: connection refused"));
    real.start_again();
    until(&level, |reading| *reading == Reading::good_with(7.5)).await;
}

#[tokio::test]
async fn data_that_is_too_old_is_noticed() {
    let now = clock::now().as_millisecond();
    let aged = |seconds: i64, total: u64| {
        let at = now - seconds * 1000;
        format!("{VALUES}old_level 3 {at}\nold_total {total} {at}\n")
    };
    let web = Web::start(scrape(&aged(200, 10))).await;
    let directory = tempfile::tempdir().unwrap();
    let real = Real::start(directory.path(), web.address);
    let url = real.url();
    // A series whose time is its own stands still without ending: Prometheus goes on giving its last value.
    until(&query(&url, "old_level", None, 600), |reading| *reading == Reading::good_with(3.0)).await;
    let old = see(query(&url, "old_level", None, 120)).await;
    let too_old = Reading::unreadable("the data of old_level has no sample of the last 120s");
    assert_eq!(old, too_old);
    assert_eq!(see(query(&url, "share", Some("100 * old_level"), 120)).await, too_old);
    // One that is fresh does not hide one that is old; one that is not there hides nothing.
    assert_eq!(see(query(&url, "level / old_level", None, 120)).await, too_old);
    let or = see(query(&url, "sum(no_such_series) or vector(4)", None, 120)).await;
    assert_eq!(or, Reading::good_with(4.0));

    // A range reaches back to what is too old.
    web.now(scrape(&aged(190, 30)));
    let rate = "increase(old_total[10m]) > 0";
    until(&query(&url, rate, None, 600), |reading| matches!(reading, Reading::Events { good: 1, .. })).await;
    let old = see(query(&url, rate, None, 120)).await;
    assert_eq!(old, Reading::unreadable("the data of old_total has no sample of the last 120s"));
    let fresh = see(query(&url, "sum_over_time(level[1m]) > bool 0", None, 120)).await;
    assert_eq!(fresh, Reading::good_with(1.0));

    // A target that is gone: its series end at once, but not for those who look at a range.
    let range = query(&url, "max_over_time(level[10m])", None, 3);
    until(&range, |reading| *reading == Reading::good_with(7.5)).await;
    let instant = query(&url, "level", None, 3);
    drop(web);
    until(&range, |reading| unreadable(reading, "the data of level has no sample of the last 3s")).await;
    assert_unreadable(&see(instant).await, "the query gives no value");
    let patient = see(query(&url, "max_over_time(level[10m])", None, 600)).await;
    assert_eq!(patient, Reading::good_with(7.5));
}

#[tokio::test]
async fn the_example_counts_requests() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/examples/prometheus-error-ratio.toml");
    let example = config::load(&file).unwrap_or_else(|problems| panic!("{problems}")).config;
    let SignalSource::Prometheus(mut asked) = example.signals[0].source.clone() else { panic!("another kind") };
    let requests = |good: u64, bad: Option<u64>| {
        let bad = bad.map_or_else(String::new, |bad| format!("http_requests_total{{code=\"503\"}} {bad}\n"));
        scrape(&format!("http_requests_total{{code=\"200\"}} {good}\n{bad}"))
    };
    let web = Web::start(requests(1000, None)).await;
    let directory = tempfile::tempdir().unwrap();
    let real = Real::start(directory.path(), web.address);
    asked.url = address(&real.url());
    let signal = SignalSource::Prometheus(asked);
    // Nobody asks for anything: no news.
    let quiet = Reading::Events { good: 0, bad: 0, value: None, reason: None };
    until(&signal, |reading| *reading == quiet).await;
    // No error yet, and no series for one.
    web.now(requests(1900, None));
    until(&signal, |reading| matches!(reading, Reading::Events { good: 100.., bad: 0, value: Some(0.0), .. })).await;
    web.now(requests(1900, Some(0)));
    let bad = query(&real.url(), "count_over_time(http_requests_total{code=\"503\"}[1m]) > 1", None, 120);
    until(&bad, |reading| !unreadable(reading, "")).await;
    web.now(requests(1900, Some(600)));
    let failing = until(&signal, |reading| matches!(reading, Reading::Events { bad: 100.., .. })).await;
    assert!(matches!(failing, Reading::Events { good: 100.., value: Some(share), .. } if share < 1.0), "{failing:?}");
}

#[tokio::test]
async fn it_is_asked_by_post_below_its_path_with_its_headers() {
    let now = clock::now().as_duration().as_secs_f64();
    let value = |at: f64| {
        let result = format!("{{\"resultType\":\"scalar\",\"result\":[{at},\"3\"]}}");
        Does::Answer(answer(200, &format!("{{\"status\":\"success\",\"data\":{result}}}")))
    };
    let web = Web::start(value(now)).await;
    let SignalSource::Prometheus(mut asked) = query(&web.url("/prometheus/?tenant=a"), "1 + 2", Some("3"), 60) else {
        panic!("another kind")
    };
    for (name, value) in [("X-Scope-OrgID", "shop"), ("Content-Type", "text/plain")] {
        asked.headers.insert(name.to_owned(), Secret::new(value));
    }
    assert_unreadable(&see(SignalSource::Prometheus(asked)).await, "must be a share");
    let requests = web.requests();
    assert!(requests[0].starts_with("POST /prometheus/api/v1/query?tenant=a HTTP/1.1\r\n"), "{}", requests[0]);
    let head = requests[0].to_ascii_lowercase();
    assert!(head.contains("x-scope-orgid: shop\r\n"), "{head}");
    assert!(head.contains("content-type: application/x-www-form-urlencoded\r\n") && !head.contains("text/plain"));
    assert!(requests[0].ends_with("\r\n\r\nquery=1+%2B+2"), "{}", requests[0]);
    // The second is asked for the time of the first.
    assert!(requests[1].ends_with(&format!("query=3&time={now}")), "{}", requests[1]);

    web.now(value(now - 100.0));
    let cached = see(query(&web.url("/"), "3", None, 60)).await;
    assert_unreadable(&cached, "old by this machine's clock: a cache gave it, or a clock is wrong");
}

#[tokio::test]
async fn whatever_keeps_the_number_from_us_is_unreadable() {
    let web = Web::answering(200, "<html>").await;
    let ask = || see(query(&web.url("/"), "up", None, 60));
    assert_eq!(ask().await, Reading::unreadable("what answered is no Prometheus: no such JSON"));
    let body = |body: &str| Does::Answer(answer(200, body));
    web.now(body("{\"status\":\"success\"}"));
    assert_eq!(ask().await, Reading::unreadable("Prometheus: the answer holds no data"));
    web.now(body(
        "{\"status\":\"success\",\"data\":{\"resultType\":\"vector\",\"result\":[]},\"warnings\":[\"a store is down\"]}",
    ));
    assert_eq!(ask().await, Reading::unreadable("Prometheus warns of its answer: a store is down"));
    let histogram = "{\"metric\":{},\"histogram\":[1,{\"count\":\"1\"}]}";
    web.now(body(&format!(
        "{{\"status\":\"success\",\"data\":{{\"resultType\":\"vector\",\"result\":[{histogram}]}}}}"
    )));
    assert_unreadable(&see(query(&web.url("/"), "absent(up)", None, 60)).await, "gives a histogram and no number");
    web.now(body(&" ".repeat(2 * 1024 * 1024)));
    assert_unreadable(&ask().await, "the answer is too long");
    web.now(Does::Answer(answer(503, "")));
    assert_eq!(ask().await, Reading::unreadable("Prometheus: status 503"));
    web.now(Does::Answer(answer(302, "")));
    assert_eq!(ask().await, Reading::unreadable("Prometheus: status 302"));
    web.now(Does::Answer(answer(400, &format!("{{\"error\":\"a\\nb{}\"}}", "x".repeat(500)))));
    let long = ask().await;
    assert_unreadable(&long, "Prometheus: status 400: a bxxx");
    assert!(long.reason().unwrap().ends_with('…') && long.reason().unwrap().chars().count() < 240);
    web.now(Does::Stall);
    let mut short = config(vec![query(&web.url("/"), "up", None, 60)], Duration::from_millis(300));
    // Not even a witness is asked.
    short.decision.witnesses = vec![address(&format!("tcp://{}", closed_port().await))];
    let late = Reader::new(Arc::new(short)).unwrap().read(0).await.sample.reading;
    assert_unreadable(&late, "Prometheus: no answer within 300ms: connected after ");
    let gone = see(query(&format!("http://{}", closed_port().await), "up", None, 60)).await;
    assert_eq!(gone, Reading::unreadable("Prometheus: connection refused"));
}
