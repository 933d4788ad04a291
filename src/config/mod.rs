//! Configuration: TOML with spans → a checked [`Config`], all problems at once.
//!
//! The text is parsed into a tree of spanned values. Each group of sections has a reader here, which asks its
//! `section` for the keys it knows and notes what is wrong; nothing stops at the first mistake. What comes out
//! is either a configuration in which every value is valid, or every [problem](problem::Problem) in it, drawn
//! with the offending text and with secrets masked. Connecting to anything is not done here: see `preflight`.

mod condition;
mod contact;
mod cross;
mod database;
mod excerpt;
pub(crate) mod gate;
mod json;
pub mod model;
mod near;
mod pattern;
mod plan;
pub mod problem;
mod promql;
pub(crate) mod redact;
mod reference;
mod rollback;
mod rule;
pub(crate) mod rung;
mod scalar;
mod section;
mod signal;
mod source;
mod sql;
#[cfg(test)]
mod tests;
mod value;
pub mod veil;
mod verify;
mod window;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};
use toml::de::DeTable;

pub use problem::Problems;
pub use window::PREFLIGHT_CHECKS;

use cross::Written;
use model::{Config, Secret};
use problem::{Problem, Weight};
use reference::reason;
use section::{Document, Section, Surroundings};
use value::{Text, Value};
use veil::Veil;

/// The longest configuration that is read.
const LONGEST: u64 = 1024 * 1024;

/// The longest path of a socket that Linux takes.
const LONGEST_SOCKET_PATH: usize = 107;

/// A configuration that can be used.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// What is not wrong but should be looked at.
    pub warnings: Problems,
}

/// Reads a configuration file.
pub fn load(path: &Path) -> Result<Loaded, Problems> {
    let unreadable =
        |message: String| Problems::unreadable(path, message, "name the file with --config or ROLLBACKD_CONFIG");
    let about = std::fs::metadata(path)
        .map_err(|error| unreadable(format!("the configuration cannot be read: {}", reason(&error))))?;
    if !about.is_file() {
        return Err(unreadable("the configuration is not a file".to_owned()));
    }
    if about.len() > LONGEST {
        return Err(unreadable("the configuration is longer than 1 MiB".to_owned()));
    }
    let bytes = std::fs::read(path)
        .map_err(|error| unreadable(format!("the configuration cannot be read: {}", reason(&error))))?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let before = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
        let line = before.split(|byte| *byte == b'\n').count();
        unreadable(format!("the configuration is not UTF-8: line {line} holds a byte that is not text"))
    })?;
    read(text, path, &|name| std::env::var_os(name), None)
}

/// Reads the text of a configuration that a window froze. `path` is where it was read from at first: relative paths start
/// there. A script or program that has gone since then is only a warning, so that the other rungs can still be tried. SQL
/// files are not read again: `files` holds what was in them, by the names they have in the text.
pub fn load_text(source: String, path: &Path, files: &BTreeMap<String, String>) -> Result<Loaded, Problems> {
    read(source, path, &|name| std::env::var_os(name), Some(files))
}

/// Reads a text with everything outside it given.
fn read(
    text: String,
    path: &Path,
    variable: &dyn Fn(&str) -> Option<OsString>,
    kept: Option<&BTreeMap<String, String>>,
) -> Result<Loaded, Problems> {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let directory = absolute.parent().map_or_else(|| PathBuf::from("/"), Path::to_owned);
    let (parsed, syntax) = DeTable::parse_recoverable(&text);
    let document = Document::new(&text, Surroundings { directory: &directory, variable, kept });
    let parts = parts(Section::top(&document, parsed.get_ref()));
    let veil = document.veil();
    let (mut problems, secrets) = document.into_findings();
    if !syntax.is_empty() {
        problems = with_syntax(&text, &syntax, problems);
    }
    let (errors, warnings): (Vec<_>, Vec<_>) =
        problems.into_iter().partition(|problem| problem.weight == Weight::Error);
    let Some(parts) = parts.filter(|_| errors.is_empty()) else {
        return Err(Problems::new(path, &text, &secrets, errors.into_iter().chain(warnings).collect()));
    };
    let warnings = Problems::new(path, &text, &secrets, warnings);
    let sha256 = fingerprint(&text, &rung::files(&parts.rollback.rungs));
    let source = Arc::new(Secret::new(text));
    Ok(Loaded { config: Config { path: absolute, directory, source, sha256, veil, ..parts }, warnings })
}

/// What tells this configuration from any other: the hash of its text and of the SQL files that it names.
fn fingerprint(text: &str, files: &BTreeMap<String, String>) -> String {
    let mut hash = Sha256::new_with_prefix(text.as_bytes());
    for (name, text) in files {
        // Neither a name nor SQL holds a zero byte.
        for part in [name, text] {
            hash.update([0]);
            hash.update(part.as_bytes());
        }
    }
    format!("{:x}", hash.finalize())
}

/// Problems of the syntax, and those others that hold whatever the broken lines were meant to say.
fn with_syntax(text: &str, errors: &[toml::de::Error], others: Vec<Problem>) -> Vec<Problem> {
    let line_of = |offset: usize| text.as_bytes().iter().take(offset).filter(|byte| **byte == b'\n').count();
    let mut problems: Vec<Problem> = errors
        .iter()
        .map(|error| {
            let (what, expected) = error.message().split_once(", expected ").unwrap_or((error.message(), ""));
            let label = match expected {
                "" => "here".to_owned(),
                "literal string" => "put it in quotes".to_owned(),
                expected => format!("expected {expected}"),
            };
            Problem::error(error.span().unwrap_or_default(), format!("not valid TOML: {what}")).label(label)
        })
        .collect();
    if let Some(last) = problems.last_mut() {
        last.help = Some("what is missing can only be told once the text is valid TOML".to_owned());
    }
    let broken: Vec<usize> = problems.iter().map(|problem| line_of(problem.span.start)).collect();
    problems.extend(others.into_iter().filter(|other| {
        let lines = line_of(other.span.start)..=line_of(other.span.end);
        !other.by_absence && !broken.iter().any(|line| lines.contains(line))
    }));
    problems
}

/// Every section, in an order in which each finds what it needs to know of the others.
fn parts(mut top: Section<'_>) -> Option<Config> {
    let name = top.need("name", "name = \"shop\"", cross::plan_name);
    let state_dir = top.need("state_dir", "state_dir = \"/var/lib/rollbackd/shop\"", state_dir);
    let runbook = top.maybe("runbook", Value::web_url).map(|url| url.expose().to_string());
    let database = top.child("database");
    if !database.is_present() && !top.has("database") {
        top.report_missing(
            "[database]",
            "[database] with url = { env = \"DATABASE_URL\" } and original_tables = [\"…\"]",
        );
    }
    let (ground, database) = database::read(database);
    let window = window::window(top.child("window"));
    let preflight = window::preflight(top.child("preflight"));
    let backup = window::backup(top.child("backup"), &ground);
    let decision = top.child("decision");
    let signals = top.children("signal");
    let rules = top.children("rule");
    let (rungs_written, rollback) = rollback::read(top.child("rollback"), &ground);
    let checks = top.children("verify");
    let contacts = top.children("contact");
    let written =
        Written { signals: signals.len(), rungs: rungs_written, contacts: contacts.len(), checks: checks.len() };

    let (signal_names, signals) = signal::read(signals, &ground);
    let rules = rule::read(rules, &signal_names, &signals, window.duration);
    let decision = window::decision(decision, rules.rollback);
    let checks = verify::read(checks, &ground, &signal_names, &signals);
    let smtp = top.child("smtp");
    let contacts = contact::read(contacts, smtp.is_present());
    let smtp = if smtp.is_present() { contact::smtp(smtp) } else { None };
    let http = top.child("http");
    let http = http.is_present().then(|| contact::http(http));
    let heartbeat = top.child("heartbeat");
    let heartbeat = if heartbeat.is_present() { contact::heartbeat(heartbeat) } else { None };
    cross::whole(&top, &written, &rules, &checks);
    top.finish();

    Some(Config {
        path: PathBuf::new(),
        directory: PathBuf::new(),
        source: Arc::new(Secret::new("")),
        sha256: String::new(),
        veil: Veil::default(),
        name: name?,
        state_dir: state_dir?,
        database: database?,
        window,
        preflight,
        backup,
        decision,
        signals,
        rules: rules.usable,
        rollback,
        checks,
        contacts,
        smtp,
        http,
        heartbeat,
        runbook,
    })
}

/// The directory of the journal; its control socket's path must not be longer than the system takes.
fn state_dir(value: Value<'_>) -> Option<PathBuf> {
    let (path, text): (PathBuf, Text<'_>) = value.path_with_text("the path of a directory")?;
    let socket = path.join("control.sock");
    if socket.as_os_str().len() > LONGEST_SOCKET_PATH {
        let most = LONGEST_SOCKET_PATH - "/control.sock".len();
        return text.refuse(
            "`state_dir` is too long for the control socket in it",
            "too long",
            format!("accepted: at most {most} bytes, the directory of the configuration file included"),
        );
    }
    Some(path)
}
