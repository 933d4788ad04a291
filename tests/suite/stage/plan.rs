//! The configuration of a stage, as text in pieces that a test replaces.

use super::{Application, Hooks};

/// A rung that moves everything new to quarantine.
pub(crate) const QUARANTINE: &str = r#"
[[rollback.rung]]
kind = "tables"
tables = "added"
dispose = "quarantine"
timeout = "10s"
"#;

/// A rung that archives and drops everything new.
pub(crate) const DROP: &str = r#"
[[rollback.rung]]
kind = "tables"
tables = "added"
dispose = "drop"
archive = true
timeout = "20s"
"#;

/// A rung that runs a script.
pub(crate) fn script(command: &str) -> String {
    format!("\n[[rollback.rung]]\nkind = \"script\"\ncommand = [{command:?}]\ntimeout = \"10s\"\nidempotent = false\n")
}

// The pieces; `APP` and `HOOK` stand for the addresses of the application and the webhook receiver.
const DATABASE: &str = r#"
[database]
url = { env = "STAGE_DATABASE_URL" }
original_tables = ["profiles", "posts", "comments"]
connect_timeout = "5s"
statement_timeout = "20s"
lock_timeout = "100ms"
"#;
const WINDOW: &str = r#"
[window]
duration = "1m"
soak = "1s"
on_command_failure = "rollback"
"#;
const PREFLIGHT: &str = r#"
[preflight]
healthy_for = "300ms"
"#;
const BACKUP: &str = r#"
[backup]
directory = "backups"
jobs = 1
keep = 2
"#;
const DECISION: &str = r#"
[decision]
confirm = "0s"
blind_after = "500ms"
"#;
const SIGNALS: &str = r#"
[[signal]]
name = "api"
every = "100ms"
timeout = "3s"
[signal.http]
url = "http://APP/api/posts"
json = [{ pointer = "/0/id", exists = true }]
"#;
const RULES: &str = r#"
[[rule]]
name = "api is down"
signal = "api"
consecutive = 3
then = "rollback"
"#;
const ROLLBACK: &str = r#"
[rollback]
budget = "1m"
approval = "none"
repeat_page = "1m"
grace = "300ms"
"#;
const GATES: &str = r#"
[[rollback.gate]]
name = "edge"
canary = "http://APP/health"
timeout = "5s"
[rollback.gate.file]
path = "maintenance"
"#;
const CHECKS: &str = r#"
[[verify]]
kind = "tables"
retries = 1
every = "100ms"
[[verify]]
kind = "integrity"
default = "exact"
retries = 1
every = "100ms"
[[verify]]
kind = "auth"
url = "http://APP/auth/v1"
email = "watchdog@shop.example"
password = { env = "STAGE_PASSWORD" }
retries = 2
every = "100ms"
[[verify]]
kind = "http"
name = "posts are served"
url = "http://APP/api/posts"
json = [{ pointer = "/0/id", exists = true }]
retries = 2
every = "100ms"
"#;
const CONTACTS: &str = r#"
[[contact]]
role = "system administrator"
name = "Operations"
severity = "info"
[[contact.webhook]]
url = "HOOK"
"#;

/// The pieces, in the order of the file.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// `name`, `state_dir`.
    pub(crate) top: String,
    /// `[database]`.
    pub(crate) database: String,
    /// `[window]`; without a command: `guard -- …` or `change` brings one.
    pub(crate) window: String,
    /// `[preflight]`.
    pub(crate) preflight: String,
    /// `[backup]`.
    pub(crate) backup: String,
    /// `[decision]`.
    pub(crate) decision: String,
    /// `[[signal]]`: `api`, over HTTP.
    pub(crate) signals: String,
    /// `[[rule]]`: `api is down`, three bad answers in a row.
    pub(crate) rules: String,
    /// `[rollback]`.
    pub(crate) rollback: String,
    /// `[[rollback.gate]]`: `edge`, a file with a canary.
    pub(crate) gates: String,
    /// `[[rollback.rung]]`: quarantine.
    pub(crate) rungs: String,
    /// `[[verify]]`: tables, integrity (exact), auth, http.
    pub(crate) checks: String,
    /// `[[contact]]`: `Operations`, a webhook.
    pub(crate) contacts: String,
    /// `[smtp]` and `[http]`: none.
    pub(crate) services: String,
}

impl Plan {
    pub(super) fn new(app: &Application, hooks: &Hooks) -> Self {
        let (app, hook) = (app.address().to_string(), hooks.url());
        let piece = |text: &str| text.replace("APP", &app).replace("HOOK", &hook);
        Self {
            top: "name = \"shop\"\nstate_dir = \"state\"\n".to_owned(),
            database: piece(DATABASE),
            window: piece(WINDOW),
            preflight: piece(PREFLIGHT),
            backup: piece(BACKUP),
            decision: piece(DECISION),
            signals: piece(SIGNALS),
            rules: piece(RULES),
            rollback: piece(ROLLBACK),
            gates: piece(GATES),
            rungs: piece(QUARANTINE),
            checks: piece(CHECKS),
            contacts: piece(CONTACTS),
            services: String::new(),
        }
    }

    /// Puts one text in place of another, which must be there once.
    #[track_caller]
    pub(crate) fn change(&mut self, from: &str, to: &str) {
        assert_eq!(self.text().matches(from).count(), 1, "how often the plan says {from:?}");
        for piece in self.pieces() {
            *piece = piece.replace(from, to);
        }
    }

    /// The window runs this command.
    pub(crate) fn command(&mut self, words: &[String]) {
        let command = format!("command = {words:?}\n");
        self.window.push_str(&command);
    }

    /// The contact gets mail too, from a server on this port.
    pub(crate) fn mail(&mut self, port: u16) {
        self.change("severity = \"info\"\n", "severity = \"info\"\nemail = [\"ops@shop.example\"]\n");
        let smtp = format!(
            "\n[smtp]\nhost = \"127.0.0.1\"\nport = {port}\ntls = \"none\"\nfrom = \"rollbackd <rollbackd@shop.example>\"\n"
        );
        self.services.push_str(&smtp);
    }

    /// The whole file.
    pub(crate) fn text(&self) -> String {
        self.clone().pieces().map(|piece| piece.clone()).concat()
    }

    fn pieces(&mut self) -> [&mut String; 14] {
        [
            &mut self.top,
            &mut self.database,
            &mut self.window,
            &mut self.preflight,
            &mut self.backup,
            &mut self.decision,
            &mut self.signals,
            &mut self.rules,
            &mut self.rollback,
            &mut self.gates,
            &mut self.rungs,
            &mut self.checks,
            &mut self.contacts,
            &mut self.services,
        ]
    }
}
