//! What is asked for: a body with who and why → a request to the driver, whose refusal is the answer.

use std::time::Duration;

use axum::body::{self, Body};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::{Extension, Json};
use rollbackd_core::run::event::{Ask, Request};

use super::authority::{self, Via};
use super::problem::Problem;
use super::routes::App;
use super::view::{Done, Wish};
use crate::driver::snapshot::Call;

/// A body may have so many bytes …
const BODY_BYTES: usize = 16 * 1024;
/// … and must have arrived by then.
const BODY_WITHIN: Duration = Duration::from_secs(10);
/// Characters of `reason`: it goes into every notice and report.
const REASON_CHARS: usize = 2000;
/// Characters of `who`.
const WHO_CHARS: usize = 200;

type Answer = Result<Json<Done>, Problem>;

/// `POST /api/v1/window/{verb}`.
pub(super) async fn window(
    State(app): State<App>,
    Extension(via): Extension<Via>,
    Path(verb): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let verb = match verb.as_str() {
        "open" => Verb::Open,
        "finished" => Verb::Finished,
        "hold" => Verb::Hold,
        "resume" => Verb::Resume,
        "cancel" => Verb::Cancel,
        "resolved" => Verb::Resolved,
        _ => {
            return Err(Problem::not_found(
                "a window can be asked for open, finished, hold, resume, cancel and resolved",
            ));
        }
    };
    carry_out(&app, via, &headers, body, verb).await
}

/// `POST /api/v1/rollback`.
pub(super) async fn rollback(
    State(app): State<App>,
    Extension(via): Extension<Via>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    carry_out(&app, via, &headers, body, Verb::Rollback).await
}

/// `POST /api/v1/approve`.
pub(super) async fn approve(
    State(app): State<App>,
    Extension(via): Extension<Via>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    carry_out(&app, via, &headers, body, Verb::Approve).await
}

/// `POST /api/v1/decline`.
pub(super) async fn decline(
    State(app): State<App>,
    Extension(via): Extension<Via>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    carry_out(&app, via, &headers, body, Verb::Decline).await
}

/// `POST /api/v1/ack`.
pub(super) async fn acknowledge(
    State(app): State<App>,
    Extension(via): Extension<Via>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    carry_out(&app, via, &headers, body, Verb::Acknowledge).await
}

/// What can be asked for, before the body is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    Open,
    Finished,
    Hold,
    Resume,
    Cancel,
    Resolved,
    Rollback,
    Approve,
    Decline,
    Acknowledge,
}

async fn carry_out(app: &App, via: Via, headers: &HeaderMap, body: Body, verb: Verb) -> Answer {
    app.authority.admit(via, headers)?;
    let wish = read(body).await?;
    check(&wish, verb)?;
    let who = match wish.who {
        Some(who) => who.trim().to_owned(),
        None => authority::name_of(via).await,
    };
    let reason = match wish.reason.trim() {
        "" => "no reason given".to_owned(),
        reason => reason.to_owned(),
    };
    let ask = match verb {
        Verb::Open => Ask::Open { guard: false },
        Verb::Finished => Ask::Finished,
        Verb::Hold => Ask::Hold,
        Verb::Resume => Ask::Resume,
        Verb::Cancel => Ask::Cancel { abandon: wish.abandon.unwrap_or_default() },
        Verb::Resolved => Ask::Resolved { force: wish.force.unwrap_or_default() },
        Verb::Rollback => Ask::Rollback,
        Verb::Approve => Ask::Approve,
        Verb::Decline => Ask::Decline,
        Verb::Acknowledge => Ask::Acknowledge,
    };
    let request = Request { who: who.clone(), reason, ask };
    match app.ask(|reply| Call::Request { request, reply }).await? {
        Ok(window) => {
            tracing::info!(event = "control.accepted", %who, ?via, ?verb, "a control was carried out");
            Ok(Json(Done { window }))
        }
        Err(refusal) => {
            tracing::info!(event = "control.refused", %who, ?via, ?verb, %refusal, "a control was refused");
            Err(Problem::new(StatusCode::CONFLICT, refusal.to_string()))
        }
    }
}

/// Reads the body; an empty one wishes nothing in particular.
async fn read(body: Body) -> Result<Wish, Problem> {
    let bytes = match tokio::time::timeout(BODY_WITHIN, body::to_bytes(body, BODY_BYTES)).await {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(_)) => {
            return Err(Problem::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("the body is longer than {BODY_BYTES} bytes, or broke off"),
            ));
        }
        Err(_) => {
            return Err(Problem::new(
                StatusCode::REQUEST_TIMEOUT,
                format!("the body did not arrive within {} s", BODY_WITHIN.as_secs()),
            ));
        }
    };
    if bytes.is_empty() {
        return Ok(Wish::default());
    }
    serde_json::from_slice(&bytes).map_err(|error| {
        Problem::new(
            StatusCode::BAD_REQUEST,
            format!("the body must be like {{\"reason\": \"…\", \"who\": \"…\"}}: {error}"),
        )
    })
}

/// What a body may say depends on what is asked for.
fn check(wish: &Wish, verb: Verb) -> Result<(), Problem> {
    let stray = if wish.abandon.is_some() && verb != Verb::Cancel {
        Some("`abandon` belongs to /api/v1/window/cancel")
    } else if wish.force.is_some() && verb != Verb::Resolved {
        Some("`force` belongs to /api/v1/window/resolved")
    } else if verb == Verb::Rollback && wish.reason.trim().is_empty() {
        Some("a rollback needs a `reason`: it goes into the journal and to everybody on the contact list")
    } else {
        None
    };
    if let Some(detail) = stray {
        return Err(Problem::new(StatusCode::BAD_REQUEST, detail));
    }
    let who = wish.who.as_deref();
    if who.is_some_and(|who| who.trim().is_empty()) {
        return Err(Problem::new(StatusCode::BAD_REQUEST, "`who` is empty; leave it out or say who you are"));
    }
    line("reason", &wish.reason, REASON_CHARS)?;
    line("who", who.unwrap_or_default(), WHO_CHARS)
}

/// Text that goes into mails and terminals: not too long, no control characters.
fn line(field: &str, text: &str, most: usize) -> Result<(), Problem> {
    if text.chars().count() > most {
        return Err(Problem::new(StatusCode::BAD_REQUEST, format!("`{field}` is longer than {most} characters")));
    }
    if text.chars().any(|char| char.is_control() && char != '\n') || (field == "who" && text.contains('\n')) {
        return Err(Problem::new(StatusCode::BAD_REQUEST, format!("`{field}` contains control characters")));
    }
    Ok(())
}
