//! The webhook receiver of the story: verifies each signature by its own computation, and keeps what came.
//!
//! What it checks is written in the Standard Webhooks specification and shares no code with the sender: the
//! signature is the base64 HMAC-SHA256 of `id.timestamp.body`, and a timestamp may be five minutes off.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use sha2::Sha256;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

const MAX_BODY: usize = 256 * 1024;
const MAX_KEPT: usize = 1000;
const TOLERANCE_SECONDS: u64 = 300;

/// One request as it was received.
#[derive(Debug, Clone, PartialEq)]
pub struct Webhook {
    /// `webhook-id`.
    pub id: String,
    /// `Err` with what is wrong with its signature; it was refused with 401 then.
    pub signature: Result<(), &'static str>,
    /// The body; null when it is no JSON.
    pub body: serde_json::Value,
}

impl Webhook {
    /// The body's `type`, such as `rollback.started`; empty when there is none.
    pub fn event(&self) -> &str {
        self.body.get("type").and_then(serde_json::Value::as_str).unwrap_or_default()
    }
}

/// The running receiver.
#[derive(Debug)]
pub struct Hooks {
    /// Where it listens.
    pub address: SocketAddr,
    /// What it has received, oldest first; the thousand first are kept.
    pub received: watch::Receiver<Vec<Webhook>>,
}

/// Starts the receiver on a free port of this machine. `secret` is the sender's `whsec_…`.
///
/// # Errors
/// A sentence, when the secret is none or no port can be had.
pub async fn start(secret: &str, tracker: &TaskTracker, cancel: &CancellationToken) -> Result<Hooks, String> {
    let key = decode(secret)?;
    let (keep, received) = watch::channel(Vec::new());
    let router = Router::new()
        .route("/hooks", post(receive))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(Arc::new(Receiving { key, keep }));
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.map_err(|error| format!("the webhooks' port: {error}"))?;
    let address = listener.local_addr().map_err(|error| format!("the webhooks' port: {error}"))?;
    let cancel = cancel.clone();
    tracker.spawn(async move {
        let served = axum::serve(listener, router).with_graceful_shutdown(cancel.cancelled_owned()).await;
        if let Err(error) = served {
            tracing::warn!(event = "demo.webhooks_stopped", %error, "the demo's webhook receiver stopped");
        }
    });
    Ok(Hooks { address, received })
}

/// The bytes of a `whsec_…` secret.
fn decode(secret: &str) -> Result<Vec<u8>, String> {
    let encoded = secret.strip_prefix("whsec_").ok_or("a webhook secret starts with `whsec_`")?;
    STANDARD.decode(encoded).map_err(|_invalid| "a webhook secret is base64 after `whsec_`".to_owned())
}

struct Receiving {
    key: Vec<u8>,
    keep: watch::Sender<Vec<Webhook>>,
}

async fn receive(State(receiving): State<Arc<Receiving>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let (id, timestamp) = (header("webhook-id"), header("webhook-timestamp"));
    let signature = verify(&receiving.key, id, timestamp, header("webhook-signature"), &body)
        .and_then(|()| recent(timestamp, crate::clock::now().as_second()));
    let webhook = Webhook {
        id: id.to_owned(),
        signature,
        body: serde_json::from_slice(&body).unwrap_or(serde_json::Value::Null),
    };
    let kept = receiving.keep.send_if_modified(|all| {
        let room = all.len() < MAX_KEPT;
        if room {
            all.push(webhook);
        }
        room
    });
    match (signature, kept) {
        (Err(_), _) => StatusCode::UNAUTHORIZED,
        (Ok(()), false) => StatusCode::INSUFFICIENT_STORAGE,
        (Ok(()), true) => StatusCode::NO_CONTENT,
    }
}

/// Whether one of the signatures in the header (`v1,… v1,…`) is right.
fn verify(key: &[u8], id: &str, timestamp: &str, header: &str, body: &[u8]) -> Result<(), &'static str> {
    if id.is_empty() || timestamp.is_empty() || header.is_empty() {
        return Err("webhook-id, webhook-timestamp or webhook-signature is missing");
    }
    let mut mac = Hmac::<Sha256>::new_from_slice(key).map_err(|_invalid| "the key is unusable")?;
    for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
        mac.update(part);
    }
    let right = header
        .split(' ')
        .filter_map(|one| one.strip_prefix("v1,"))
        .filter_map(|encoded| STANDARD.decode(encoded).ok())
        .any(|given| mac.clone().verify_slice(&given).is_ok());
    if right { Ok(()) } else { Err("no signature matches id, timestamp and body") }
}

fn recent(timestamp: &str, now: i64) -> Result<(), &'static str> {
    let then: i64 = timestamp.parse().map_err(|_invalid| "webhook-timestamp is not a number")?;
    if then.abs_diff(now) <= TOLERANCE_SECONDS {
        Ok(())
    } else {
        Err("webhook-timestamp is more than five minutes off")
    }
}

#[cfg(test)]
mod tests;
