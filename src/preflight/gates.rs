//! Whether traffic could be stopped, and is open now.

use std::path::Path;
use std::time::Duration;

use futures_util::future::join_all;
use rustix::fs::{Access, access};

use super::{Answer, aside, programs, together};
use crate::config::model::{Address, Config, GateKind};
use crate::gate;
use crate::notify::{innermost, plain_client};
use crate::postgres::pinned::Pinned;

/// The longest that a canary is waited for when its gate waits longer.
const PATIENCE: Duration = Duration::from_secs(10);

/// `gates`: each could be closed, and its canary answers now.
pub(super) async fn check(config: &Config) -> Answer {
    let canaries = config.rollback.gates.iter().filter_map(|gate| {
        let canary = gate.canary.as_ref()?;
        Some(answers(&gate.name, canary, gate.timeout.min(PATIENCE)))
    });
    let rehearsals = config.rollback.gates.iter().filter(|gate| !is_local(&gate.kind)).map(|gate| async {
        let tried = gate::rehearse(gate, &Pinned::new(&config.database), gate.timeout.min(PATIENCE)).await;
        let named = |detail| format!("gate {}: {detail}", gate.name);
        tried.map(named).map_err(named)
    });
    let (local, rehearsals, canaries) = tokio::join!(aside(config, closable), join_all(rehearsals), join_all(canaries));
    let local = Some(local).filter(|answer| answer.as_ref().map_or(true, |said| !said.is_empty()));
    let answers = local.into_iter().chain(rehearsals).chain(canaries);
    together(answers, "no gate is configured: traffic goes on during a rollback")
}

/// Whether what closes the gate is on this machine, to be looked at and not tried.
const fn is_local(kind: &GateKind) -> bool {
    match kind {
        GateKind::File { .. } | GateKind::Command { .. } => true,
        GateKind::Http { .. }
        | GateKind::PostgresSessions { .. }
        | GateKind::Pgbouncer { .. }
        | GateKind::Postgrest { .. } => false,
    }
}

fn closable(config: &Config) -> Answer {
    let gates = config.rollback.gates.iter().filter_map(|gate| {
        let answer = match &gate.kind {
            GateKind::File { path } => placeable(path),
            GateKind::Command { stop, start } => together([programs::runnable(stop), programs::runnable(start)], ""),
            // Tried by their own adapters.
            GateKind::Http { .. }
            | GateKind::PostgresSessions { .. }
            | GateKind::Pgbouncer { .. }
            | GateKind::Postgrest { .. } => return None,
        };
        let named = |detail| format!("gate {}: {detail}", gate.name);
        Some(answer.map(named).map_err(named))
    });
    together(gates, "")
}

/// A file can be put there.
fn placeable(path: &Path) -> Answer {
    let parent = path.parent().unwrap_or(path);
    if !parent.is_dir() {
        return Err(format!("directory {} does not exist: create it", parent.display()));
    }
    if path.is_dir() {
        return Err(format!("{} is a directory: name a file in it", path.display()));
    }
    if let Err(error) = access(parent, Access::WRITE_OK | Access::EXEC_OK) {
        return Err(format!(
            "no file can be made in {} ({error}): give its rights to this process's user",
            parent.display()
        ));
    }
    let now = if path.exists() { ", which is there already: traffic is stopped now" } else { "" };
    Ok(format!("can be closed with {}{now}", path.display()))
}

/// The canary answers, as it must while traffic is open; else its silence would prove nothing later.
async fn answers(gate: &str, canary: &Address, within: Duration) -> Answer {
    let failed = |what: String| {
        Err(format!(
            "gate {gate}: canary {canary} {what}, but must answer while traffic is open: open it, or correct it"
        ))
    };
    let client = plain_client(within)?;
    match client.get(canary.expose().clone()).send().await {
        Ok(answer) if answer.status().is_success() || answer.status().is_redirection() => {
            Ok(format!("gate {gate}: canary {canary} answers"))
        }
        Ok(answer) => failed(format!("answers {}", answer.status())),
        Err(error) if error.is_timeout() => failed(format!("does not answer within {} s", within.as_secs_f64())),
        Err(error) => failed(format!("does not answer ({})", innermost(&error.without_url()))),
    }
}
