//! Who may control, and under which name it is recorded.
//!
//! Whoever can open the control socket may use it: the file's mode decides. Over TCP only the token counts,
//! compared in constant time, and after a few wrong ones nobody is let in for a minute, whatever they bring:
//! otherwise the limit would not slow a guesser down. The socket is not affected by that.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::http::{HeaderMap, StatusCode, header};
use subtle::ConstantTimeEq;
use tokio::time::Instant;

use super::problem::Problem;
use crate::config::model::Secret;

/// So many wrong tokens …
const TRIES: usize = 10;
/// … in this time.
const PERIOD: Duration = Duration::from_secs(60);

/// Which way a request came.
#[derive(Debug, Clone, Copy)]
pub(super) enum Via {
    /// Over TCP, from this address.
    Tcp(IpAddr),
    /// Through the control socket, from a process of this user.
    Socket {
        /// The user's id, where the kernel says it.
        uid: Option<u32>,
    },
}

/// Lets in or not.
#[derive(Debug)]
pub(super) struct Authority {
    token: Option<Secret>,
    failures: Mutex<VecDeque<Instant>>,
}

impl Authority {
    /// Over TCP with this token only; without one not at all.
    pub(super) fn new(token: Option<Secret>) -> Self {
        Self { token, failures: Mutex::default() }
    }

    /// `Err` when this request may not control anything.
    pub(super) fn admit(&self, via: Via, headers: &HeaderMap) -> Result<(), Problem> {
        let Via::Tcp(from) = via else { return Ok(()) };
        let Some(token) = &self.token else {
            return Err(Problem::new(
                StatusCode::FORBIDDEN,
                "controls over TCP need a token, and [http] token is not set; use the control socket \
                 <state_dir>/control.sock, as the rollbackd command does",
            ));
        };
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        while failures.front().is_some_and(|oldest| now.duration_since(*oldest) >= PERIOD) {
            failures.pop_front();
        }
        if failures.len() >= TRIES {
            return Err(Problem::new(
                StatusCode::TOO_MANY_REQUESTS,
                "too many wrong tokens; wait a minute, or use the control socket <state_dir>/control.sock",
            )
            .with(header::RETRY_AFTER, "60"));
        }
        if bearer(headers).is_some_and(|given| bool::from(given.as_bytes().ct_eq(token.expose().as_bytes()))) {
            return Ok(());
        }
        failures.push_back(now);
        tracing::warn!(event = "control.unauthorized", %from, "a control over TCP brought no token or a wrong one");
        Err(Problem::new(StatusCode::UNAUTHORIZED, "send the token of [http] token as `Authorization: Bearer TOKEN`")
            .with(header::WWW_AUTHENTICATE, "Bearer realm=\"rollbackd\""))
    }
}

/// The token that a request brought.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// The name that is recorded when a request gives none.
pub(super) async fn name_of(via: Via) -> String {
    match via {
        Via::Tcp(from) => format!("somebody at {from}"),
        Via::Socket { uid: None } => "somebody at the control socket".to_owned(),
        Via::Socket { uid: Some(uid) } => crate::user::name(uid).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(token: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, token.parse().expect("a header"));
        headers
    }

    #[tokio::test(start_paused = true)]
    async fn wrong_tokens_are_limited_for_a_minute() {
        let authority = Authority::new(Some(Secret::new("s3cret")));
        let via = Via::Tcp([192, 0, 2, 1].into());
        authority.admit(via, &with("bearer s3cret")).expect("the right token");
        for _ in 0..TRIES {
            let problem = authority.admit(via, &with("Bearer guess")).expect_err("a wrong token");
            assert!(format!("{problem:?}").contains("401"));
        }
        let problem = authority.admit(via, &with("Bearer s3cret")).expect_err("limited");
        assert!(format!("{problem:?}").contains("429"));
        authority.admit(Via::Socket { uid: Some(0) }, &HeaderMap::new()).expect("the socket is not limited");
        tokio::time::advance(PERIOD).await;
        authority.admit(via, &with("Bearer s3cret")).expect("a minute later");
    }
}
