//! A webhook receiver that keeps what it is sent.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use axum::{Json, Router};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::AbortHandle;

use super::{eventually, runtime};

/// A running receiver.
pub(crate) struct Hooks {
    address: SocketAddr,
    inside: Arc<Inside>,
    serving: AbortHandle,
}

struct Inside {
    status: Mutex<StatusCode>,
    accepted: Mutex<Vec<(String, Value)>>,
}

impl Hooks {
    pub(super) fn start() -> Self {
        let inside = Arc::new(Inside { status: StatusCode::NO_CONTENT.into(), accepted: Vec::new().into() });
        let listener = runtime().block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/hook", post(receive)).with_state(Arc::clone(&inside));
        let serving = runtime().spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, inside, serving: serving.abort_handle() }
    }

    /// Where notices go.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    /// Answers with this status from now on; what is not accepted is not kept.
    pub(crate) fn answer(&self, status: u16) {
        *self.inside.status.lock().unwrap() = StatusCode::from_u16(status).unwrap();
    }

    /// The bodies that were accepted, oldest first.
    pub(crate) fn bodies(&self) -> Vec<Value> {
        self.inside.accepted.lock().unwrap().iter().map(|(_, body)| body.clone()).collect()
    }

    /// Their `webhook-id`s.
    pub(crate) fn ids(&self) -> Vec<String> {
        self.inside.accepted.lock().unwrap().iter().map(|(id, _)| id.clone()).collect()
    }

    /// Their types.
    pub(crate) fn events(&self) -> Vec<String> {
        self.bodies().iter().map(|body| body["type"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// Waits until a notice of this type is here, and returns the newest.
    #[track_caller]
    pub(crate) fn wait_for(&self, event: &str) -> Value {
        eventually(&format!("a notice of type {event}"), || {
            self.bodies().into_iter().rfind(|body| body["type"] == event).ok_or_else(|| self.events())
        })
    }
}

impl Drop for Hooks {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn receive(State(inside): State<Arc<Inside>>, headers: HeaderMap, Json(body): Json<Value>) -> StatusCode {
    let status = *inside.status.lock().unwrap();
    if status.is_success() {
        let id = headers.get("webhook-id").and_then(|id| id.to_str().ok()).unwrap_or_default().to_owned();
        inside.accepted.lock().unwrap().push((id, body));
    }
    status
}
