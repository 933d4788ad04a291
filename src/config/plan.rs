//! What decisions need of a configuration, copied into a [`Plan`], which holds nothing secret.

use std::net::SocketAddr;
use std::time::Duration;

use jiff::SignedDuration;
use rollbackd_core::baseline::quote_identifier;
use rollbackd_core::plan::{
    self, CheckPlan, DatabasePlan, DecisionPlan, GatePlan, Links, Plan, Removal, RollbackPlan, SignalPlan, WindowPlan,
};

use super::gate::{MAKE_REFUSE, REFUSE, UNMAKE_REFUSE};
use super::model::{Check, Command, Config, Contact, Database, Gate, GateKind, HttpCall, Method, Rung};
use super::scalar::decoded;

impl Config {
    /// The plan that is frozen when a window opens. `host` is the name of the machine that guards.
    pub fn plan(&self, host: &str) -> Plan {
        Plan {
            name: self.name.clone(),
            host: host.to_owned(),
            config_sha256: self.sha256.clone(),
            window: WindowPlan {
                schedule: self.window.schedule.clone(),
                timezone: self.window.timezone_name.clone(),
                duration: signed(self.window.duration),
                soak: signed(self.window.soak),
                missed: self.window.missed,
                command: self.window.command.as_ref().map(|command| command.shown.clone()),
                on_command_failure: self.window.on_command_failure,
            },
            database: DatabasePlan {
                schema: self.database.schema.clone(),
                original_tables: self.database.original_tables.iter().map(ToString::to_string).collect(),
                protected_schemas: self.database.protected_schemas.clone(),
            },
            healthy_for: signed(self.preflight.healthy_for),
            preflight_skipped: self.preflight.skip.clone(),
            signals: self
                .signals
                .iter()
                .map(|signal| SignalPlan {
                    name: signal.name.clone(),
                    every: signed(signal.every),
                    timeout: signed(signal.timeout),
                    implicates: signal.implicates.clone(),
                })
                .collect(),
            rules: self
                .rules
                .iter()
                .map(|rule| plan::Rule {
                    name: rule.name.clone(),
                    signals: rule.signals.clone(),
                    condition: rule.condition.clone(),
                    then: rule.then,
                })
                .collect(),
            decision: DecisionPlan {
                confirm: signed(self.decision.confirm),
                at_least: self.decision.at_least,
                blind_after: signed(self.decision.blind_after),
            },
            rollback: RollbackPlan {
                budget: signed(self.rollback.budget),
                approve_always: self.rollback.approve_always,
                repeat_page: signed(self.rollback.repeat_page),
                grace: signed(self.rollback.grace),
                gates: self.rollback.gates.iter().map(|one| gate(one, &self.database)).collect(),
                rungs: self.rollback.rungs.iter().map(rung).collect(),
            },
            checks: self.checks.iter().map(check).collect(),
            contacts: self.contacts.iter().map(contact).collect(),
            links: Links {
                base: self.http.as_ref().map(|http| base(http.listen, host)),
                runbook: self.runbook.clone(),
            },
        }
    }
}

fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

fn gate(gate: &Gate, database: &Database) -> GatePlan {
    let (manual_stop, manual_start) = match &gate.kind {
        GateKind::File { path } => {
            let path = quoted(&path.display().to_string());
            (format!("touch {path}"), format!("rm -f {path}"))
        }
        GateKind::Command { stop, start } => (shell_line(stop), shell_line(start)),
        GateKind::Http { stop, start } => (curl(stop), curl(start)),
        GateKind::PostgresSessions { roles } => sessions_by_hand(roles),
        GateKind::Pgbouncer { url, database, .. } => {
            let name = quote_identifier(database);
            let console =
                |commands: String| format!("at pgbouncer's console, psql {url} as one of its admins: {commands}");
            (console(format!("DISABLE {name}; KILL {name};")), console(format!("RESUME {name}; ENABLE {name};")))
        }
        GateKind::Postgrest { role } => postgrest_by_hand(role, database),
    };
    GatePlan { name: gate.name.clone(), required: gate.required, manual_stop, manual_start }
}

/// The request as a person would send it. Headers and body are secret, so they are only named.
fn curl(call: &HttpCall) -> String {
    let mut line = format!("curl -fsS -X {} {}", call.method, quoted(&call.url.to_string()));
    for name in call.headers.keys() {
        line.push_str(" -H ");
        line.push_str(&quoted(&format!("{name}: …")));
    }
    if call.body.is_some() {
        line.push_str(" --data '…'");
    }
    let url = call.url.expose();
    let hidden = !url.username().is_empty() || url.query().is_some() || line.contains('…');
    if hidden { line + " (with what the configuration holds beside it)" } else { line }
}

fn sessions_by_hand(roles: &[String]) -> (String, String) {
    let each = |word: &str| -> String {
        let one = |role: &String| format!("ALTER ROLE {} {word};", quote_identifier(role));
        roles.iter().map(one).collect::<Vec<_>>().join(" ")
    };
    let names: Vec<String> = roles.iter().map(|role| sql_text(role)).collect();
    let end = format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename IN ({}) AND datname = current_database() \
         AND pid <> pg_backend_pid();",
        names.join(", ")
    );
    (format!("in psql: {} {end}", each("NOLOGIN")), format!("in psql: {}", each("LOGIN")))
}

/// What is set for the role in this database alone wins over what is set for the role, and leaves that as it is.
fn postgrest_by_hand(role: &str, database: &Database) -> (String, String) {
    let name = decoded(database.url.expose().path().trim_start_matches('/'));
    // A URL without one means the database that is named like the user, which is secret.
    let name = if name.is_empty() { "…".to_owned() } else { quote_identifier(&name) };
    let place = format!("ALTER ROLE {} IN DATABASE {name}", quote_identifier(role));
    let reload = "NOTIFY pgrst, 'reload config';";
    (
        format!("in psql: {MAKE_REFUSE}; {place} SET pgrst.db_pre_request = '{REFUSE}'; {reload}"),
        format!("in psql: {place} RESET pgrst.db_pre_request; {reload} {UNMAKE_REFUSE};"),
    )
}

/// A text in SQL.
fn sql_text(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn rung(rung: &Rung) -> plan::Rung {
    let method = match &rung.method {
        Method::Script { command, idempotent } => {
            plan::Method::Script { command: command.shown.clone(), idempotent: *idempotent }
        }
        Method::Sql { file, .. } => plan::Method::Sql { file: file.clone() },
        Method::Tables { tables, dispose, on_blocked, reach } => plan::Method::Tables(Removal {
            tables: tables.clone(),
            dispose: *dispose,
            on_blocked: *on_blocked,
            reach: *reach,
        }),
    };
    plan::Rung { timeout: signed(rung.timeout), needs_approval: rung.needs_approval, method }
}

fn check(check: &Check) -> CheckPlan {
    let tries = check.timeout.saturating_mul(check.retries.saturating_add(1));
    let within = signed(tries.saturating_add(check.every.saturating_mul(check.retries)));
    CheckPlan { name: check.name.clone(), kind: check.kind.kind().to_owned(), stage: check.stage, within }
}

fn contact(contact: &Contact) -> plan::Contact {
    plan::Contact {
        role: contact.role.clone(),
        name: contact.name.clone(),
        severity: contact.severity,
        after: signed(contact.after),
        channels: contact.channels.iter().map(|(label, _)| label.clone()).collect(),
    }
}

/// The address that notices link to. Nobody can follow a link to a wildcard address, so it becomes the host's name.
fn base(listen: SocketAddr, host: &str) -> String {
    if listen.ip().is_unspecified() && !host.is_empty() {
        format!("http://{host}:{}", listen.port())
    } else {
        format!("http://{listen}")
    }
}

/// The command as a person would type it, in its directory when that matters.
fn shell_line(command: &Command) -> String {
    let words: Vec<String> =
        command.shown.iter().map(|word| if plain(word) { word.clone() } else { quoted(word) }).collect();
    let line = words.join(" ");
    let relative =
        command.shown.iter().any(|word| word.contains('/') && !word.starts_with(['/', '-']) && !word.contains("://"));
    if relative { format!("cd {} && {line}", quoted(&command.directory.display().to_string())) } else { line }
}

/// Whether a shell takes the word as it stands.
fn plain(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./:=@%+,".contains(&b))
}

/// A word in single quotes.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}
