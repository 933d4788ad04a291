//! Two requests, one that stops traffic and one that resumes it.
//!
//! Only a status of 2xx counts: a redirection was not followed, so nothing was done.

use std::time::Duration;

use super::Trouble;
use crate::config::model::HttpCall;
use crate::signal::http::{Ask, Client};
use crate::signal::net::{self, Deadline, Fault};

/// Makes the request.
pub(super) async fn send(call: &HttpCall, timeout: Duration) -> Result<String, Trouble> {
    let shown = format!("{} {}", call.method, call.url);
    let client = Client::new().map_err(Trouble::Failed)?;
    let ask = Ask { method: &call.method, url: call.url.expose(), headers: &call.headers, body: call.body.as_ref() };
    match client.ask(ask, Deadline::after(timeout)).await {
        Ok(answer) if (200..300).contains(&answer.status) => {
            Ok(format!("{shown} was answered with status {}", answer.status))
        }
        Ok(answer) => {
            Err(Trouble::Failed(format!("{shown} was answered with status {}, and only 2xx counts", answer.status)))
        }
        Err(Fault::Unanswered(reason)) => Err(Trouble::Failed(format!("{shown} was not answered: {reason}"))),
        Err(Fault::Wrong(reason) | Fault::Unreadable(reason)) => {
            Err(Trouble::Failed(format!("{shown} could not be made: {reason}")))
        }
    }
}

/// Whether somebody listens where the request would go. The request itself cannot be tried: it would stop traffic.
pub(super) async fn listens(call: &HttpCall, timeout: Duration) -> Result<(), Trouble> {
    let url = call.url.expose();
    let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else {
        return Err(Trouble::Failed(format!("{} has no host", call.url)));
    };
    let deadline = Deadline::after(timeout);
    let found = async { net::connect(&net::resolve(host, port, &deadline).await?, &deadline).await };
    found.await.map_err(|fault| {
        let reason = fault.into_reason();
        Trouble::Failed(format!("{} cannot be reached ({reason}): start what answers there, or correct it", call.url))
    })
}
