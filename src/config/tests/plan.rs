//! The plan that is made from a configuration.

use super::*;

const FULL: &str = r#"
[window]
command = ["sh", "-c", { env = "MIGRATION" }]
[http]
listen = "0.0.0.0:9187"
token = { env = "MIGRATION" }
[[rollback.gate]]
name = "flag"
file.path = "/run/it's here/maintenance"
[[rollback.gate]]
name = "service"
command = { stop = ["sh", "-c", "exit 0"], start = ["sh", "./up", { env = "MIGRATION" }] }
[[rollback.gate]]
name = "proxy"
http.stop = { url = "https://u:hunter2@h/stop?key=hunter2", headers = { X-Key = "hunter2" }, body = "hunter2" }
http.start = { url = "https://h/start", method = "PUT" }
[[rollback.gate]]
name = "sessions"
postgres_sessions.roles = ["it's \"odd\"", "select"]
[[rollback.gate]]
name = "pooler"
pgbouncer = { url = "postgres://u:hunter2@localhost:6432/pgbouncer", database = "a\"b" }
[[rollback.gate]]
name = "rest"
postgrest = {}
[[verify]]
kind = "sql"
query = "select true"
timeout = "10s"
retries = 2
every = "3s"
[[verify]]
kind = "http"
url = "http://127.0.0.1/"
"#;

#[test]
fn a_plan_holds_what_decisions_need_and_nothing_secret() {
    let config = read_with(&extended(FULL), &[("PATH", "/usr/bin:/bin"), ("MIGRATION", "hunter2")]).unwrap().config;
    let mut plan = config.plan("guard-1");
    let json = serde_json::to_string(&plan).unwrap();
    assert!(!json.contains("hunter2"), "{json}");
    assert_eq!(plan.config_sha256.len(), 64);
    "[sha256]".clone_into(&mut plan.config_sha256);
    insta::assert_json_snapshot!(plan);
}

#[test]
fn the_hash_is_of_the_text() {
    let config = read_plain(MINIMAL).unwrap().config;
    assert_eq!(config.sha256, format!("{:x}", Sha256::digest(MINIMAL)));
    assert_eq!(config.source.expose(), MINIMAL);
}

#[test]
fn a_check_may_take_its_time_with_all_tries_and_pauses() {
    let config = read_with(&extended(FULL), &[("PATH", "/usr/bin:/bin"), ("MIGRATION", "x")]).unwrap().config;
    let sql = config.plan("h").checks.into_iter().find(|check| check.kind == "sql").unwrap();
    assert_eq!(sql.within, jiff::SignedDuration::from_secs(10 * 3 + 3 * 2));
}

#[test]
fn checks_without_names_are_numbered() {
    let config = read_with(&extended(FULL), &[("PATH", "/usr/bin:/bin"), ("MIGRATION", "x")]).unwrap().config;
    let names: Vec<_> = config.checks.iter().map(|check| check.name.as_str()).collect();
    assert_eq!(names, ["http", "sql", "http 2"]);
}

#[test]
fn links_lead_somewhere() {
    let base = |listen: &str| {
        let text = extended(&format!("[http]\nlisten = \"{listen}\"\ntoken = \"t\"\n"));
        read_plain(&text).unwrap().config.plan("guard-1").links.base.unwrap()
    };
    assert_eq!(base("127.0.0.1:9187"), "http://127.0.0.1:9187");
    assert_eq!(base("[::]:80"), "http://guard-1:80");
    assert_eq!(read_plain(MINIMAL).unwrap().config.plan("h").links.base, None);
}
