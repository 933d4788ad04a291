//! Webhooks: one POST an attempt, and what its answer means.
//!
//! What is sent comes from a pure function a format ([`standard`]); this file only carries it. Redirects are not
//! followed, because a signed message must not go where nobody configured it to go, and answers are judged by
//! their status alone: their bodies are not read.

pub(crate) mod standard;

use std::sync::Arc;
use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use rollbackd_core::notice::Notice;

use super::innermost;
use super::retry::{self, Cause, Failure, Then};
use super::trust::{self, Trust};
use crate::clock;
use crate::config::model::{Address, SigningKey};

/// The longest that one attempt may take.
pub(super) const TIMEOUT: Duration = Duration::from_secs(10);

/// Makes the client that all webhooks share.
///
/// It goes straight to the host, not through a proxy of the environment, as the preflight's connection does.
pub(super) fn client(trust: &Trust, timeout: Duration) -> Result<reqwest::Client, String> {
    reqwest::Client::builder()
        .tls_backend_preconfigured(trust.client_config()?)
        .user_agent(concat!("rollbackd/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .timeout(timeout)
        // Notices are rare: a kept connection would be a dead one by the time it is needed.
        .pool_max_idle_per_host(0)
        .build()
        .map_err(|error| format!("the HTTP client for webhooks cannot be made: {}", innermost(&error.without_url())))
}

/// Where a contact's webhook is, and how it is signed.
pub(super) struct Endpoint {
    /// Where.
    pub(super) url: Address,
    /// The key; absent: not signed.
    pub(super) key: Option<Arc<SigningKey>>,
}

impl Endpoint {
    /// The host and port, which name it to people: path and query of a webhook's address are often its secret.
    pub(super) fn server(&self) -> Option<(String, u16)> {
        let url = self.url.expose();
        Some((url.host_str()?.trim_matches(['[', ']']).to_owned(), url.port_or_known_default()?))
    }

    /// One attempt.
    pub(super) async fn post(&self, client: &reqwest::Client, notice: &Notice, body: &[u8]) -> Result<(), Failure> {
        let now = clock::now();
        let mut request = client
            .post(self.url.expose().clone())
            .header(CONTENT_TYPE, "application/json")
            .header("webhook-id", &notice.id)
            .header("webhook-timestamp", now.as_second());
        if let Some(key) = &self.key {
            request = request.header("webhook-signature", standard::sign(key, &notice.id, now, body));
        }
        match request.body(body.to_vec()).send().await {
            Ok(answer) => {
                let after = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
                judge(answer.status(), after.and_then(|value| retry::retry_after(value, now)))
            }
            Err(error) => Err(unanswered(error)),
        }
    }
}

/// What an answer's status means.
fn judge(status: StatusCode, after: Option<Duration>) -> Result<(), Failure> {
    let code = status.as_u16();
    let shown = status.canonical_reason().map_or_else(|| code.to_string(), |reason| format!("{code} {reason}"));
    let answered = format!("the webhook answered {shown}");
    match code {
        200..=299 => Ok(()),
        300..=399 => Err(Failure::lasting(
            Cause::Other,
            format!("{answered}; redirects are not followed: configure the address that it points to"),
        )),
        429 => Err(Failure { cause: Cause::Status4xx, reason: answered, then: Then::Retry { after } }),
        503 => Err(Failure { cause: Cause::Status5xx, reason: answered, then: Then::Retry { after } }),
        408 => Err(Failure::passing(Cause::Status4xx, answered)),
        400..=499 => Err(Failure::lasting(
            Cause::Status4xx,
            format!("{answered}, which another try would not change: check its address and secret"),
        )),
        500..=599 => Err(Failure::passing(Cause::Status5xx, answered)),
        _ => Err(Failure::passing(Cause::Other, answered)),
    }
}

/// What a missing answer means.
fn unanswered(error: reqwest::Error) -> Failure {
    let error = error.without_url();
    let said = innermost(&error);
    if error.is_timeout() {
        Failure::passing(Cause::Timeout, "the webhook did not answer in time")
    } else if trust::is_tls(&error) {
        Failure::passing(Cause::Tls, format!("no secure connection to the webhook: {said}"))
    } else if error.is_connect() {
        Failure::passing(Cause::Connect, format!("no connection to the webhook: {said}"))
    } else if error.is_builder() {
        // An id or address that cannot be put into a request will not fit the next time either.
        Failure::lasting(Cause::Other, format!("the request to the webhook cannot be made: {said}"))
    } else {
        Failure::passing(Cause::Other, format!("the webhook did not answer: {said}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn then(code: u16, after: Option<u64>) -> Option<Then> {
        judge(StatusCode::from_u16(code).unwrap(), after.map(Duration::from_secs)).err().map(|failure| failure.then)
    }

    #[test]
    fn statuses_mean_what_the_interface_says() {
        for code in [200, 201, 202, 204, 299] {
            assert_eq!(then(code, None), None, "{code}");
        }
        for code in [301, 302, 307, 308, 400, 401, 403, 404, 410, 422] {
            assert_eq!(then(code, Some(1)), Some(Then::GiveUp), "{code}");
        }
        for code in [408, 500, 502, 504] {
            assert_eq!(then(code, Some(7)), Some(Then::Retry { after: None }), "{code}");
        }
        for code in [429, 503] {
            assert_eq!(then(code, Some(7)), Some(Then::Retry { after: Some(Duration::from_secs(7)) }), "{code}");
        }
    }
}
