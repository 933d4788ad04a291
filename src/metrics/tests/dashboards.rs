//! The dashboard and the alerts: that they keep their rules, and that a real Prometheus which has scraped a real
//! server understands every query and knows every name in them.

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;

use super::promtool::promtool;
use crate::clock;
use crate::server::fixture::rolling_back;
use crate::server::tests::serve;

/// Starting Prometheus and its first scrape take seconds, on a busy machine more.
const WITHIN: Duration = Duration::from_secs(50);

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("dashboards")
}

fn read(name: &str) -> String {
    std::fs::read_to_string(directory().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn dashboard() -> Value {
    serde_json::from_str(&read("rollbackd.json")).expect("JSON")
}

/// The panels that show something.
fn panels(dashboard: &Value) -> Vec<&Value> {
    dashboard["panels"].as_array().expect("panels").iter().filter(|panel| panel["type"] != "row").collect()
}

/// The names of our metrics in a text.
fn names(text: &str) -> BTreeSet<String> {
    let parts = text.split(|char: char| !(char.is_ascii_alphanumeric() || char == '_'));
    parts.filter(|part| part.starts_with("rollbackd_")).map(str::to_owned).collect()
}

#[test]
fn the_alerts_pass_promtool() {
    promtool(&["check", "rules", "alerts.yml"], &directory(), "").expect("sound rules");
    promtool(&["test", "rules", "alerts_test.yml"], &directory(), "").expect("alerts as tested");
}

#[test]
fn every_alert_says_what_to_do_and_is_tested() {
    let (alerts, tests) = (read("alerts.yml"), read("alerts_test.yml"));
    let mut count = 0;
    for alert in alerts.split("- alert: ").skip(1) {
        let name = alert.lines().next().expect("a name").trim();
        assert!(name.starts_with("Rollbackd") && name.chars().all(|char| char.is_ascii_alphanumeric()), "{name}");
        for part in ["severity: ", "summary: ", "description: ", "runbook_url: "] {
            assert!(alert.contains(part), "{name} has no {part}");
        }
        assert!(tests.contains(&format!("alertname: {name}\n")), "{name} is not tested");
        count += 1;
    }
    assert!(count >= 9, "{count} alerts");
}

#[test]
fn the_dashboard_keeps_its_rules() {
    let dashboard = dashboard();
    assert_eq!(dashboard["uid"], "rollbackd");
    assert_eq!(dashboard["editable"], false);
    assert!(dashboard["schemaVersion"].is_u64());
    let variables = dashboard["templating"]["list"].as_array().expect("variables");
    let named = |name: &str| variables.iter().find(|one| one["name"] == name).unwrap_or_else(|| panic!("no ${name}"));
    assert_eq!(variables.iter().filter(|one| one["type"] == "datasource").count(), 1);
    assert_eq!(named("datasource")["type"], "datasource");
    for name in ["job", "instance", "plan"] {
        assert_eq!(named(name)["multi"], true, "{name}");
        assert_eq!(named(name)["datasource"]["uid"], "${datasource}", "{name}");
    }
    let mut ids = BTreeSet::new();
    for panel in panels(&dashboard) {
        let title = panel["title"].as_str().expect("a title");
        assert!(ids.insert(panel["id"].as_u64().expect("an id")), "{title}: its id is taken");
        assert!(panel["description"].as_str().is_some_and(|text| text.ends_with('.')), "{title}: description");
        assert!(
            panel["fieldConfig"]["defaults"]["unit"].as_str().is_some_and(|unit| !unit.is_empty()),
            "{title}: unit"
        );
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
        for target in panel["targets"].as_array().expect("targets") {
            let query = target["expr"].as_str().expect("a query");
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{title}");
            for variable in ["$job", "$instance", "$plan"] {
                assert!(query.contains(variable), "{title}: {variable} is not in {query}");
            }
            let ranged = query.matches('[').count();
            assert_eq!(query.matches("[$__rate_interval]").count(), ranged, "{title}: a fixed range in {query}");
        }
    }
}

#[test]
fn every_metric_is_on_the_dashboard_or_in_an_alert() {
    let shown = names(&(read("rollbackd.json") + &read("alerts.yml")));
    let metrics = super::metrics();
    metrics.requests(["api"]);
    let text = metrics.render();
    for family in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()) {
        assert!(shown.iter().any(|name| name.starts_with(family)), "{family} is nowhere to be seen");
    }
}

/// A Prometheus that scrapes one address each second.
struct Prometheus {
    child: tokio::process::Child,
    address: SocketAddr,
    client: reqwest::Client,
    log: PathBuf,
}

impl Prometheus {
    fn start(directory: &Path, scraped: SocketAddr) -> Self {
        let address = TcpListener::bind(("127.0.0.1", 0)).and_then(|free| free.local_addr()).expect("a free port");
        let (config, log) = (directory.join("prometheus.yml"), directory.join("prometheus.log"));
        let job = format!("job_name: rollbackd, static_configs: [{{targets: ['{scraped}']}}]");
        let text = format!("global: {{scrape_interval: 1s}}\nscrape_configs: [{{{job}}}]\n");
        std::fs::write(&config, text).expect("a configuration");
        let child = tokio::process::Command::new("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", directory.join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&log).expect("a log"))
            .kill_on_drop(true)
            .spawn()
            .expect("prometheus (Debian package prometheus)");
        drop(rustls::crypto::ring::default_provider().install_default());
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(10)).build().expect("a client");
        Self { child, address, client, log }
    }

    /// An answer of its API, which says itself when a query is wrong.
    async fn ask(&self, path: &str, query: &str) -> Result<Value, reqwest::Error> {
        let encoded: String = url::form_urlencoded::byte_serialize(query.as_bytes()).collect();
        self.client.get(format!("http://{}{path}?query={encoded}", self.address)).send().await?.json().await
    }

    /// Waits for the first scrape.
    async fn has_scraped(&mut self) {
        let waited = async {
            while !self
                .living()
                .ask("/api/v1/query", "rollbackd_build_info")
                .await
                .is_ok_and(|answer| answer["data"]["result"].as_array().is_some_and(|result| !result.is_empty()))
            {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        };
        tokio::time::timeout(WITHIN, waited).await.expect("Prometheus scrapes");
    }

    /// Itself, when it has not ended on its own.
    fn living(&mut self) -> &Self {
        let ended = self.child.try_wait().expect("its state");
        assert!(
            ended.is_none(),
            "Prometheus ended on its own: {}",
            std::fs::read_to_string(&self.log).expect("its log")
        );
        self
    }

    async fn end(mut self) {
        self.child.kill().await.expect("it ends");
    }
}

#[tokio::test]
async fn a_real_prometheus_understands_every_query_and_knows_every_name() {
    let running = serve(rolling_back(clock::now()), None).await;
    running.metrics.observe(&rolling_back(clock::now()));
    running.metrics.requests(["api"]);
    running.metrics.follows(["requests"]);
    let directory = tempfile::tempdir().expect("a directory");
    let mut prometheus = Prometheus::start(directory.path(), running.address);
    prometheus.has_scraped().await;

    let known = prometheus.ask("/api/v1/label/__name__/values", "").await.expect("an answer");
    let known: BTreeSet<&str> = known["data"].as_array().expect("names").iter().filter_map(Value::as_str).collect();
    let dashboard = dashboard();
    let used = names(&(dashboard.to_string() + &read("alerts.yml")));
    let unknown: Vec<_> = used.iter().filter(|name| !known.contains(name.as_str())).collect();
    assert!(unknown.is_empty(), "Prometheus does not know {unknown:?}");

    let mut answered = 0;
    for panel in panels(&dashboard) {
        for target in panel["targets"].as_array().expect("targets") {
            let query = target["expr"].as_str().expect("a query");
            let filled = [("$job", ".*"), ("$instance", ".*"), ("$plan", ".*"), ("$__rate_interval", "1m")]
                .iter()
                .fold(query.to_owned(), |query, (variable, value)| query.replace(variable, value));
            let answer = prometheus.ask("/api/v1/query", &filled).await.expect("an answer");
            assert_eq!(answer["status"], "success", "{}: {filled}: {answer}", panel["title"]);
            answered += 1;
        }
    }
    assert!(answered >= 30, "{answered} queries");
    let wrong = prometheus.ask("/api/v1/query", "sum by (").await.expect("an answer");
    assert_eq!(wrong["status"], "error", "a wrong query is told");
    prometheus.end().await;
}
