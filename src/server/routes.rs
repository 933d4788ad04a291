//! Paths → answers.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{RawQuery, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router, middleware};
use jiff::SignedDuration;
use tokio::sync::{mpsc, oneshot, watch};

use super::authority::Authority;
use super::problem::Problem;
use super::view::{self, Status};
use super::{Shared, control, page, windows};
use crate::clock;
use crate::driver::snapshot::{Call, Snapshot};
use crate::metrics::{CONTENT_TYPE, Metrics};

/// The driver makes a snapshot every ten seconds at the latest; one this old means that it stands still.
pub(super) const STALE_AFTER: SignedDuration = SignedDuration::from_secs(60);
/// How long the driver may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// What nothing that we serve needs: scripts, frames, other hosts, caches.
const SECURITY: [(HeaderName, &str); 4] = [
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
];

/// For everything but the page, which has one of its own.
const POLICY: HeaderValue =
    HeaderValue::from_static("default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'");

const INDEX: &str = "rollbackd

GET  /                               the status page (/?still: one that does not ask for itself again)
GET  /metrics                        Prometheus text format
GET  /healthz                        alive
GET  /readyz                         journal open, driver progressing
GET  /api/v1/status                  state, verdict, signals, rules, rollback
GET  /api/v1/windows                 the windows, newest first
GET  /api/v1/windows/{id}            one window with its records (?after=SEQ: only later ones)
GET  /api/v1/windows/{id}/report     what happened (Accept: application/json or text/markdown)
GET  /api/v1/journal                 the records as `rollbackd journal export` gives them, a page (?after=SEQ: the next)
POST /api/v1/window/open             controls: {\"reason\": \"…\", \"who\": \"…\"}
     /api/v1/window/finished
     /api/v1/window/hold
     /api/v1/window/resume
     /api/v1/window/cancel           also {\"abandon\": true}
     /api/v1/window/resolved         also {\"force\": true}
     /api/v1/rollback
     /api/v1/approve
     /api/v1/decline
     /api/v1/ack
";

/// What every answer is made from.
#[derive(Debug, Clone)]
pub(super) struct App {
    snapshots: watch::Receiver<Arc<Snapshot>>,
    calls: mpsc::Sender<Call>,
    metrics: Arc<Metrics>,
    pub(super) authority: Arc<Authority>,
}

/// Every path.
pub(super) fn router(shared: Shared) -> Router {
    let app = App {
        snapshots: shared.snapshots,
        calls: shared.calls,
        metrics: shared.metrics,
        authority: Arc::new(Authority::new(shared.token)),
    };
    Router::new()
        .route("/", get(page))
        .route("/api/v1", get(|| async { INDEX }))
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/api/v1/status", get(status))
        .route("/api/v1/journal", get(windows::journal))
        .route("/api/v1/windows", get(windows::list))
        .route("/api/v1/windows/{id}", get(windows::one))
        .route("/api/v1/windows/{id}/report", get(windows::report))
        .route("/api/v1/window/{verb}", post(control::window))
        .route("/api/v1/rollback", post(control::rollback))
        .route("/api/v1/approve", post(control::approve))
        .route("/api/v1/decline", post(control::decline))
        .route("/api/v1/ack", post(control::acknowledge))
        .fallback(|| async { Problem::not_found("there is nothing here; `GET /api/v1` lists the paths") })
        .method_not_allowed_fallback(|| async {
            Problem::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "this path takes another method; `GET /api/v1` lists the paths",
            )
        })
        .layer(middleware::map_response(secured))
        .with_state(app)
}

impl App {
    /// The driver's latest snapshot.
    pub(super) fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshots.borrow())
    }

    /// Asks the driver and waits for its answer, not forever.
    pub(super) async fn ask<T>(&self, call: impl FnOnce(oneshot::Sender<T>) -> Call) -> Result<T, Problem> {
        let (reply, answer) = oneshot::channel();
        let asked = async {
            self.calls.send(call(reply)).await.ok()?;
            answer.await.ok()
        };
        match tokio::time::timeout(ANSWER_WITHIN, asked).await {
            Ok(Some(answer)) => Ok(answer),
            Ok(None) => Err(Problem::unavailable("the daemon is ending; ask again when it is back")),
            Err(_) => Err(Problem::unavailable(format!(
                "the driver did not answer within {} s; it may still do what was asked: see /api/v1/status",
                ANSWER_WITHIN.as_secs()
            ))),
        }
    }
}

async fn secured(mut response: Response) -> Response {
    for (name, value) in SECURITY {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response.headers_mut().entry(header::CONTENT_SECURITY_POLICY).or_insert(POLICY);
    response
}

/// The page for people.
async fn page(State(app): State<App>, RawQuery(query): RawQuery) -> Result<Response, Problem> {
    let snapshot = app.snapshot();
    let (status, windows) = (view::status(&snapshot), view::history(&snapshot.state));
    let html = page::html(&status, &windows, clock::now(), query.as_deref() == Some("still")).map_err(|error| {
        tracing::error!(event = "server.page_failed", %error, "the status page cannot be made");
        let detail = "the page cannot be made; /api/v1/status says the same as JSON";
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, detail)
    })?;
    Ok(([(header::CONTENT_SECURITY_POLICY, page::policy())], Html(html)).into_response())
}

async fn metrics(State(app): State<App>) -> Response {
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], app.metrics.render()).into_response()
}

async fn status(State(app): State<App>) -> Json<Status> {
    Json(view::status(&app.snapshot()))
}

async fn healthz(State(app): State<App>) -> Result<&'static str, Problem> {
    alive(&app.snapshot())?;
    Ok("ok\n")
}

async fn readyz(State(app): State<App>) -> Result<&'static str, Problem> {
    let snapshot = app.snapshot();
    alive(&snapshot)?;
    match view::ready(&snapshot).reason {
        None => Ok("ready\n"),
        Some(reason) => Err(Problem::unavailable(reason)),
    }
}

/// Whether the driver still goes round its loop.
fn alive(snapshot: &Snapshot) -> Result<(), Problem> {
    let age = clock::now().duration_since(snapshot.at);
    if age <= STALE_AFTER {
        return Ok(());
    }
    Err(Problem::unavailable(format!("the driver has made no progress for {} s", age.as_secs())))
}
