//! The canary: a request that must be refused while traffic is stopped, and answered once it flows.
//!
//! Refused is no answer at all, or a status that is neither 2xx nor 3xx. What we could not find out (a name that
//! does not resolve, a certificate that is not trusted) proves neither.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use super::{Trouble, Wanted};
use crate::config::model::{Address, Gate, GateKind};
use crate::signal::http::{Ask, Client};
use crate::signal::net::{Deadline, Fault};

/// Between two requests.
const PAUSE: Duration = Duration::from_millis(100);
/// Silence for so long is a refusal.
const SILENCE: Duration = Duration::from_secs(2);

/// Asks until the canary agrees, the gate's time is up, or the whole call's is.
pub(super) async fn prove(gate: &Gate, wanted: Wanted, deadline: Instant) -> Result<String, Trouble> {
    let Some(canary) = &gate.canary else {
        return Ok(without(&gate.kind).to_owned());
    };
    let client = Client::new().map_err(Trouble::Failed)?;
    let deadline = deadline.min(Instant::now() + gate.timeout);
    // A request that is cut off by the deadline has proven nothing, so there must be room for a whole one.
    let silence = SILENCE.min(gate.timeout / 2);
    let mut last = "gave no sign in time".to_owned();
    let agreed = timeout_at(deadline, async {
        loop {
            let (state, seen) = look(&client, canary, silence).await;
            if state == Some(wanted) {
                return seen;
            }
            last = seen;
            sleep(PAUSE).await;
        }
    });
    let agreed = agreed.await.ok();
    match (agreed, wanted) {
        (Some(seen), Wanted::Stopped) => Ok(format!("traffic is stopped: canary {canary} {seen}")),
        (Some(seen), Wanted::Resumed) => Ok(format!("traffic flows: canary {canary} {seen}")),
        (None, Wanted::Stopped) => {
            Err(Trouble::Failed(format!("traffic is not proven to be stopped: canary {canary} {last}")))
        }
        (None, Wanted::Resumed) => {
            Err(Trouble::Failed(format!("traffic is not proven to flow: canary {canary} {last}")))
        }
    }
}

/// What is said of a gate without a canary.
const fn without(kind: &GateKind) -> &'static str {
    match kind {
        // These have counted what is left.
        GateKind::PostgresSessions { .. } | GateKind::Pgbouncer { .. } => "no canary asks from outside",
        GateKind::File { .. } | GateKind::Command { .. } | GateKind::Http { .. } | GateKind::Postgrest { .. } => {
            "no canary is configured to prove it"
        }
    }
}

/// What the canary shows, and how.
async fn look(client: &Client, canary: &Address, silence: Duration) -> (Option<Wanted>, String) {
    let mut url = canary.expose().clone();
    // The canary stands for a stranger. Only URLs without a host refuse this, and they are refused below.
    let anonymous = url.set_username("").and_then(|()| url.set_password(None));
    if anonymous.is_err() {
        return (None, "has no host to ask".to_owned());
    }
    let ask = Ask { method: "GET", url: &url, headers: &BTreeMap::new(), body: None };
    match client.ask(ask, Deadline::after(silence)).await {
        Ok(answer) if (200..400).contains(&answer.status) => {
            (Some(Wanted::Resumed), format!("answers with status {}", answer.status))
        }
        Ok(answer) => (Some(Wanted::Stopped), format!("is refused with status {}", answer.status)),
        Err(Fault::Unanswered(reason)) => (Some(Wanted::Stopped), format!("is refused: {reason}")),
        Err(Fault::Wrong(reason) | Fault::Unreadable(reason)) => (None, format!("shows nothing: {reason}")),
    }
}
