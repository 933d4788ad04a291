//! Whole texts in, configurations or drawn problems out.

mod contract;
mod drawn;
mod plan;
mod rules;
mod secrets;
mod signals;
mod whole;

use super::*;

/// A configuration with nothing in it that can be left out.
const MINIMAL: &str = r#"
name = "shop"
state_dir = "/var/lib/rollbackd/shop"

[database]
url = "postgres://postgres@127.0.0.1/shop"
original_tables = ["profiles", "posts"]

[[signal]]
name = "api"
http.url = "http://127.0.0.1/health"

[[rule]]
name = "api is down"
signal = "api"
consecutive = 3
then = "rollback"

[[rollback.rung]]
kind = "tables"
tables = "added"
"#;

/// What a minimal configuration is warned of.
const QUIET: &str = r#"
[[verify]]
kind = "http"
url = "http://127.0.0.1/health"

[[contact]]
role = "ops"
webhook = [{ url = "https://hooks.example/x" }]
"#;

/// Reads a text as if it stood in a file of this directory, with these environment variables.
fn read_in(directory: &Path, text: &str, variables: &[(&str, &str)]) -> Result<Loaded, Problems> {
    let variable = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into());
    read(text.to_owned(), &directory.join("shop.toml"), &variable, None)
}

fn read_with(text: &str, variables: &[(&str, &str)]) -> Result<Loaded, Problems> {
    read_in(Path::new("/etc/rollbackd"), text, variables)
}

fn read_plain(text: &str) -> Result<Loaded, Problems> {
    read_with(text, &[("PATH", "/usr/bin:/bin")])
}

/// Message and underlined text of each problem, errors and warnings alike.
fn found(result: Result<Loaded, Problems>) -> Vec<(String, String)> {
    let problems = result.map_or_else(|problems| problems, |loaded| loaded.warnings);
    let json = problems.to_json();
    let word = |value: &serde_json::Value, key: &str| value[key].as_str().unwrap().to_owned();
    json.as_array().unwrap().iter().map(|one| (word(one, "message"), word(one, "text"))).collect()
}

/// The minimal configuration with one piece of it replaced.
fn edited(from: &str, to: &str) -> String {
    assert!(MINIMAL.contains(from), "{from} is not in the minimal configuration");
    format!("{}{QUIET}", MINIMAL.replacen(from, to, 1))
}

/// The minimal configuration with more after it.
fn extended(more: &str) -> String {
    format!("{MINIMAL}{QUIET}{more}")
}
