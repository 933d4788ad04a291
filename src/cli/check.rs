//! `rollbackd check`: is the configuration valid, and online: would a rollback work?

use std::path::Path;
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use rollbackd_core::words::counted;
use serde::Serialize;
use serde_json::Value;

use super::checks::{CheckLine, table};
use super::output::{self, Terminal};
use super::{Exit, Json};
use crate::config;
use crate::heartbeat;
use crate::notify;
use crate::preflight::{self, Expiring};

/// Time for all preflight checks.
const ONLINE: Duration = Duration::from_secs(60);

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Run all preflight checks too
    #[arg(long)]
    online: bool,
    #[command(flatten)]
    json: Json,
}

/// `check --json`.
#[derive(Debug, Serialize)]
struct Answer {
    valid: bool,
    problems: Value,
    warnings: Value,
    checks: Vec<CheckLine>,
    certificates: Vec<CertificateLine>,
    heartbeat: Option<HeartbeatLine>,
}

/// Whether the dead-man's switch can be reached: `{server, reachable, detail}`. No window is refused because of it.
#[derive(Debug, Serialize)]
struct HeartbeatLine {
    server: String,
    reachable: bool,
    detail: String,
}

impl From<notify::Reached> for HeartbeatLine {
    fn from((server, reached): notify::Reached) -> Self {
        let detail = match &reached {
            Ok(()) => "accepts connections; nothing was said to it".to_owned(),
            Err(reason) => format!("cannot be reached: {reason}"),
        };
        Self { server, reachable: reached.is_ok(), detail }
    }
}

/// A certificate that expires soon: `{signal, expires_at, detail}`.
#[derive(Debug, Serialize)]
struct CertificateLine {
    signal: String,
    expires_at: Timestamp,
    detail: String,
}

pub(super) async fn run(path: &Path, arguments: Arguments, terminal: &mut Terminal) -> anyhow::Result<Exit> {
    let json = arguments.json.json;
    let loaded = match config::load(path) {
        Ok(loaded) => loaded,
        Err(problems) => {
            if json {
                let none = Value::Array(Vec::new());
                let answer = Answer {
                    valid: false,
                    problems: problems.to_json(),
                    warnings: none,
                    checks: Vec::new(),
                    certificates: Vec::new(),
                    heartbeat: None,
                };
                terminal.print_json(&answer)?;
            } else {
                output::raw(&problems.render_for_stderr());
            }
            return Ok(Exit::Configuration);
        }
    };
    let config = loaded.config;
    let (checks, certificates, reached) = if arguments.online {
        tokio::join!(preflight::run(&config, ONLINE), preflight::expiring(&config), heartbeat::reach(&config))
    } else {
        (Vec::new(), Vec::new(), None)
    };
    let heartbeat = reached.map(HeartbeatLine::from);
    let exit = if checks.iter().all(|check| check.passed) { Exit::Done } else { Exit::Failed };
    let views: Vec<CheckLine> = checks.iter().map(CheckLine::from).collect();
    if json {
        let problems = Value::Array(Vec::new());
        let line = |one: Expiring| CertificateLine { signal: one.signal, expires_at: one.expires, detail: one.warning };
        let certificates = certificates.into_iter().map(line).collect();
        let warnings = loaded.warnings.to_json();
        let answer = Answer { valid: true, problems, warnings, checks: views, certificates, heartbeat };
        terminal.print_json(&answer)?;
        return Ok(exit);
    }
    if !loaded.warnings.is_empty() {
        output::raw(&loaded.warnings.render_for_stderr());
    }
    let counts = [
        counted(config.signals.len(), "signal"),
        counted(config.rules.len(), "rule"),
        counted(config.rollback.rungs.len(), "rung"),
        counted(config.checks.len(), "check"),
        counted(config.contacts.len(), "contact"),
    ];
    terminal.print(&format!("{} is valid: {}\n", path.display(), counts.join(", ")))?;
    if arguments.online {
        terminal.print(&format!("\n{}", table(terminal.paint, &views)))?;
        for one in &certificates {
            let signal = output::clean(&one.signal);
            terminal.print(&format!("\nwarning: signal `{signal}`: {}\n", one.warning))?;
        }
        if let Some(one) = &heartbeat {
            let kind = if one.reachable { "heartbeat" } else { "warning: the heartbeat's server" };
            terminal.print(&format!("\n{kind} {} {}\n", one.server, one.detail))?;
        }
        let failed = views.iter().filter(|check| !check.passed).count();
        let verdict = if failed == 0 {
            "\nEverything that a rollback needs is there.\n".to_owned()
        } else {
            format!("\n{} failed: a window would be refused.\n", counted(failed, "check"))
        };
        terminal.print(&verdict)?;
    }
    Ok(exit)
}
