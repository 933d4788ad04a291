//! The kinds of value that a configuration is made of: durations, secrets, URLs, paths, commands, addresses, names.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::SignedDuration;
use rollbackd_core::baseline::TableName;
use url::Url;

use super::model::{Address, Command, Secret};
use super::problem::Problem;
use super::redact::{self, quoted};
use super::section::Section;
use super::value::{Text, Value};

/// The longest duration that means anything here: a week.
const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);

/// Durations that may be nothing: delays and confirmations.
pub(super) const ANY: RangeInclusive<Duration> = Duration::ZERO..=LONGEST;
/// Durations that bound a wait.
pub(super) const BOUND: RangeInclusive<Duration> = Duration::from_millis(1)..=LONGEST;
/// Pauses of something that is done again and again.
pub(super) const PACE: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(24 * 3600);

/// Endings of files that are scripts for an interpreter before them.
const SCRIPT_ENDINGS: [&str; 11] = ["js", "mjs", "cjs", "ts", "sh", "bash", "py", "rb", "pl", "php", "sql"];

/// So many seconds.
pub(super) const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// A duration as a person would write it.
pub(super) fn words(duration: Duration) -> String {
    SignedDuration::try_from(duration).map_or_else(|_| String::new(), |duration| format!("{duration:#}"))
}

impl<'a> Value<'a> {
    /// A string that is not empty.
    pub(super) fn filled(self, expected: &str) -> Option<Text<'a>> {
        let text = self.text(expected)?;
        if text.value.trim().is_empty() {
            return text.refuse(format!("`{}` is empty", text.path), "empty", format!("accepted: {expected}"));
        }
        Some(text)
    }

    /// A string that is not empty, for a field without further rules.
    pub(super) fn plain(self, expected: &str) -> Option<String> {
        Some(self.filled(expected)?.value)
    }

    /// A string that is never shown.
    pub(super) fn secret(self, expected: &str) -> Option<Secret> {
        self.hide_unless_referenced();
        let doc = self.doc;
        let value = self.filled(expected)?.value;
        doc.keep(&value);
        Some(Secret::new(value))
    }

    /// One of some words.
    pub(super) fn choice<T: Clone>(self, accepted: &[(&str, T)], later: &[&str]) -> Option<T> {
        let words: Vec<&str> = accepted.iter().map(|(word, _)| *word).collect();
        self.text(&super::section::listed(&words))?.choose(accepted, later)
    }

    /// A duration inside a range.
    pub(super) fn duration(self, range: RangeInclusive<Duration>) -> Option<Duration> {
        let (least, most) = (words(*range.start()), words(*range.end()));
        let expected = format!("a duration such as \"500ms\", \"5s\", \"10m\" or \"1h 30m\", from {least} to {most}");
        let text = self.text(&expected)?;
        let help = format!("accepted: {expected}");
        let digits = text.value.chars().next().is_some_and(|first| first.is_ascii_digit());
        let Some(duration) = digits.then(|| text.value.parse::<SignedDuration>().ok()).flatten() else {
            let message = format!("`{}`: {} is not a duration", text.path, text.shown());
            return text.refuse(message, "not a duration", help);
        };
        let duration = Duration::try_from(duration).ok().filter(|duration| range.contains(duration));
        if duration.is_none() {
            return text.refuse(format!("`{}`: {} is out of range", text.path, text.shown()), "out of range", help);
        }
        duration
    }

    /// A path, made absolute.
    pub(super) fn path(self, expected: &str) -> Option<PathBuf> {
        Some(self.path_with_text(expected)?.0)
    }

    /// A path, made absolute, and where it was written.
    pub(super) fn path_with_text(self, expected: &str) -> Option<(PathBuf, Text<'a>)> {
        let text = self.filled(expected)?;
        if text.value.contains('\0') {
            return text.refuse(
                format!("`{}` is not a path", text.path),
                "holds a zero byte",
                format!("accepted: {expected}"),
            );
        }
        Some((text.doc.surroundings.directory.join(&text.value), text))
    }

    /// A file that must be there.
    pub(super) fn existing_file(self, expected: &str) -> Option<PathBuf> {
        let (path, text) = self.path_with_text(expected)?;
        if !path.is_file() {
            let message = format!("`{}`: the file {} does not exist", text.path, quoted(&path.display().to_string()));
            let problem = Problem::error(text.span.clone(), message).label("no such file");
            text.doc.report_absent(
                problem.help(format!("accepted: {expected}; relative paths start at the configuration file")),
            );
        }
        Some(path)
    }

    /// A URL with one of some schemes and a host.
    pub(super) fn url(self, schemes: &[&str]) -> Option<Address> {
        let accepted =
            format!("accepted: {}", schemes.iter().map(|s| format!("{s}://host…")).collect::<Vec<_>>().join(" or "));
        let text = self.filled("a URL")?;
        text.hide_password();
        let url = match Url::parse(&text.value) {
            Ok(url) => url,
            Err(error) => {
                return text.refuse(format!("`{}` is not a URL: {error}", text.path), "not a URL", accepted);
            }
        };
        if !schemes.contains(&url.scheme()) {
            return text.refuse(format!("`{}` has the wrong scheme", text.path), "not accepted here", accepted);
        }
        if url.host_str().is_none_or(str::is_empty) {
            return text.refuse(format!("`{}` names no host", text.path), "the host is missing", accepted);
        }
        Some(Address::new(url))
    }

    /// `http://…` or `https://…`.
    pub(super) fn web_url(self) -> Option<Address> {
        self.url(&["https", "http"])
    }

    /// A URL whose path is its secret.
    pub(super) fn secret_url(self) -> Option<Address> {
        self.hide_unless_referenced();
        let doc = self.doc;
        let url = self.web_url()?;
        doc.keep(url.expose().path().trim_matches('/'));
        Some(url)
    }

    /// A table's name. `schema` is where unqualified names are looked up.
    pub(super) fn table_name(self, schema: &str) -> Option<(TableName, Text<'a>)> {
        let text = self.filled("a table's name, `table` or `schema.table`")?;
        match TableName::parse(&text.value, schema) {
            Ok(name) => Some((name, text)),
            Err(reason) => {
                let message = format!("`{}`: {}", text.path, redact::masked(&reason));
                text.refuse(
                    message,
                    "not a table's name",
                    "accepted: `table` or `schema.table`, parts quoted as in SQL if needed",
                )
            }
        }
    }

    /// A command: a program that exists, and its arguments.
    pub(super) fn command(self) -> Option<Command> {
        let expected = "a list of strings: the program, then its arguments";
        let span = self.span();
        let doc = self.doc;
        let words = self.list(expected)?;
        let count = words.len();
        let words: Vec<Text<'a>> = words.into_iter().filter_map(|word| word.text("a string")).collect();
        if words.len() < count {
            return None;
        }
        let directory = doc.surroundings.directory;
        let Some((program, arguments)) = words.split_first().filter(|(program, _)| !program.value.is_empty()) else {
            let problem = Problem::error(span, "a command needs a program").label("no program");
            doc.report(problem.help(format!("accepted: {expected}, such as [\"node\", \"scripts/rollback.js\"]")));
            return None;
        };
        if let Some(zero) = words.iter().find(|word| word.value.contains('\0')) {
            return zero.refuse(
                "a command cannot hold a zero byte",
                "holds a zero byte",
                format!("accepted: {expected}"),
            );
        }
        for argument in arguments {
            script_exists(argument, directory);
            if argument.reference.is_some() {
                doc.keep(&argument.value);
            }
        }
        let shown = words
            .iter()
            .map(|word| if word.reference.is_some() { "***".to_owned() } else { redact::argument(&word.value) });
        Some(Command {
            program: resolved(program, directory),
            arguments: arguments.iter().map(|argument| argument.value.clone()).collect(),
            shown: shown.collect(),
            directory: directory.to_owned(),
        })
    }

    /// `host:port`.
    pub(super) fn host_and_port(self) -> Option<String> {
        let text = self.filled("`host:port`")?;
        let good = text.value.rsplit_once(':').is_some_and(|(host, port)| {
            let bracketed = host.starts_with('[') && host.ends_with(']');
            let plain = !host.is_empty() && !host.contains([':', '/', '@']) && !host.contains(char::is_whitespace);
            (bracketed || plain) && port.parse::<u16>().is_ok_and(|port| port > 0)
        });
        if !good {
            let message = format!("`{}`: {} is not `host:port`", text.path, text.shown());
            return text.refuse(message, "not `host:port`", "accepted: such as \"127.0.0.1:5432\" or \"[::1]:5432\"");
        }
        Some(text.value)
    }

    /// A mail address, with or without a name.
    pub(super) fn mailbox(self) -> Option<lettre::message::Mailbox> {
        let text = self.filled("a mail address")?;
        match text.value.parse() {
            Ok(mailbox) => Some(mailbox),
            Err(_) => text.refuse(
                format!("`{}`: {} is not a mail address", text.path, text.shown()),
                "not a mail address",
                "accepted: \"ops@shop.example\" or \"Operations <ops@shop.example>\"",
            ),
        }
    }

    /// A table of HTTP headers, every value a secret.
    pub(super) fn headers(self) -> Option<BTreeMap<String, Secret>> {
        let section: Section<'a> = self.table()?;
        let mut headers = BTreeMap::new();
        for (name, span, value) in section.entries() {
            value.hide_unless_referenced();
            if reqwest::header::HeaderName::from_bytes(name.as_bytes()).is_err() {
                let problem = Problem::error(span, format!("{} is not the name of a header", quoted(&name)));
                value.doc.report(
                    problem.label("not a header's name").help("accepted: letters, digits and dashes, such as apikey"),
                );
                continue;
            }
            let Some(text) = value.text("a header's value") else { continue };
            if reqwest::header::HeaderValue::from_str(&text.value).is_err() {
                let message = format!("the value of header {} cannot be sent", quoted(&name));
                text.refuse::<()>(message, "not a header's value", "accepted: one line of visible ASCII");
                continue;
            }
            text.doc.keep(&text.value);
            headers.insert(name, Secret::new(text.value));
        }
        Some(headers)
    }

    /// Keeps a value that is written down, rather than referred to, out of sight.
    fn hide_unless_referenced(&self) {
        if !self.is_table() {
            self.doc.hide(self.span());
        }
    }
}

impl Text<'_> {
    /// For text that is, or was meant as, a URL: keeps the password in it out of sight, here and wherever else it stands.
    pub(super) fn hide_password(&self) {
        self.keep_parameters();
        let Some((user, _)) = self.value.rsplit_once('@') else { return };
        let user = user.split_once("://").map_or(user, |(_, user)| user);
        let Some((_, password)) = user.split_once(':') else { return };
        self.doc.keep(password);
        self.doc.keep(&decoded(password));
        if self.reference.is_none() && !password.is_empty() {
            self.doc.hide(self.span_of(password));
        }
    }

    /// Takes note of the parameters of a URL that sound secret.
    fn keep_parameters(&self) {
        let Some((_, query)) = self.value.split_once('?') else { return };
        for (name, value) in query.split('&').filter_map(|parameter| parameter.split_once('=')) {
            if redact::sounds_secret(name) || name.to_lowercase().ends_with("key") {
                self.doc.keep(value);
                self.doc.keep(&decoded(value));
            }
        }
    }
}

/// A part of a URL without its percent signs.
pub(super) fn decoded(part: &str) -> String {
    let literal = part.replace('+', "%2B").replace('&', "%26").replace('=', "%3D");
    url::form_urlencoded::parse(literal.as_bytes()).next().map(|(name, _)| name.into_owned()).unwrap_or_default()
}

/// The program as it will be started: as it is when it is in `PATH`, otherwise its absolute path.
fn resolved(program: &Text<'_>, directory: &Path) -> String {
    let here = directory.join(&program.value);
    let in_path = !program.value.contains('/') && {
        let path = (program.doc.surroundings.variable)("PATH").unwrap_or_default();
        std::env::split_paths(&path).any(|entry| executable(&entry.join(&program.value)))
    };
    if in_path {
        return program.value.clone();
    }
    if !executable(&here) {
        let there = here.is_file();
        let what = if there { "is not executable" } else { "does not exist" };
        let looked = if program.value.contains('/') { "" } else { " in PATH or beside the configuration file" };
        let problem = Problem::error(program.span.clone(), format!("the program {} {what}{looked}", program.shown()));
        let help = if there {
            format!("run: chmod +x {}", quoted(&here.display().to_string()))
        } else {
            "accepted: a program in PATH, or the path of an executable file; relative paths start at the configuration file"
                .to_owned()
        };
        program.doc.report_absent(problem.label(if there { "not executable" } else { "no such program" }).help(help));
    }
    here.display().to_string()
}

/// `node scripts/x.js`: when the script is not there, the command is as good as missing.
fn script_exists(argument: &Text<'_>, directory: &Path) {
    let value = &argument.value;
    let ending = Path::new(value).extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    let is_script = value.contains('/')
        && !value.contains("://")
        && !value.contains(char::is_whitespace)
        && !value.starts_with('-')
        && SCRIPT_ENDINGS.contains(&ending);
    if is_script && !directory.join(value).is_file() {
        let problem = Problem::error(argument.span.clone(), format!("the script {} does not exist", argument.shown()));
        argument.doc.report_absent(
            problem
                .label("no such file")
                .help("accepted: an existing file; relative paths start at the configuration file"),
        );
    }
}

/// Whether this process may run the file.
fn executable(path: &Path) -> bool {
    path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
}
