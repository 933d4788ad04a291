//! What has happened: the history, the records of a window, its report.

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use rollbackd_core::report;
use rollbackd_core::run::record::Entry;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::problem::Problem;
use super::routes::App;
use super::view::{self, WindowRow};
use crate::driver::snapshot::Call;

/// `GET /api/v1/windows/{id}`.
#[derive(Debug, Serialize)]
struct WindowRecords {
    #[serde(flatten)]
    row: WindowRow,
    records: Value,
}

/// `?after=SEQ`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    /// Only records with a greater `seq`.
    #[serde(default)]
    after: u64,
}

/// `GET /api/v1/windows`.
pub(super) async fn list(State(app): State<App>) -> Json<Vec<WindowRow>> {
    Json(view::history(&app.snapshot().state))
}

/// `GET /api/v1/windows/{id}`.
pub(super) async fn one(
    State(app): State<App>,
    Path(id): Path<String>,
    page: Result<Query<Page>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, Problem> {
    let Query(page) = page.map_err(|rejection| Problem::new(StatusCode::BAD_REQUEST, rejection.body_text()))?;
    let row = row(&app, &id)?;
    let mut entries = records(&app, &id).await?;
    entries.retain(|entry| entry.seq > page.after);
    Ok(Json(WindowRecords { row, records: to_json(&entries)? }).into_response())
}

/// `GET /api/v1/windows/{id}/report`.
pub(super) async fn report(
    State(app): State<App>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    row(&app, &id)?;
    let entries = records(&app, &id).await?;
    let report = report::of(&entries).ok_or_else(|| unknown(&id))?;
    let mut response = if prefers_markdown(&headers) {
        ([(header::CONTENT_TYPE, "text/markdown; charset=utf-8")], report.markdown()).into_response()
    } else {
        Json(to_json(&report)?).into_response()
    };
    response.headers_mut().insert(header::VARY, header::HeaderValue::from_static("accept"));
    Ok(response)
}

/// `GET /api/v1/journal`: a page of lines; none behind the end.
pub(super) async fn journal(
    State(app): State<App>,
    page: Result<Query<Page>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, Problem> {
    let Query(page) = page.map_err(|rejection| Problem::new(StatusCode::BAD_REQUEST, rejection.body_text()))?;
    let from = page.after.saturating_add(1);
    let lines = app
        .ask(|reply| Call::Lines { from, reply })
        .await?
        .map_err(|reason| Problem::unavailable(format!("the journal cannot be read: {reason}")))?;
    let text: String = lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect();
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], text).into_response())
}

fn row(app: &App, id: &str) -> Result<WindowRow, Problem> {
    view::history(&app.snapshot().state).into_iter().find(|row| row.id == id).ok_or_else(|| unknown(id))
}

async fn records(app: &App, id: &str) -> Result<Vec<Entry>, Problem> {
    let window = Some(id.to_owned());
    let entries = app
        .ask(|reply| Call::Records { window, reply })
        .await?
        .map_err(|reason| Problem::unavailable(format!("the journal cannot be read: {reason}")))?;
    if entries.is_empty() { Err(unknown(id)) } else { Ok(entries) }
}

fn unknown(id: &str) -> Problem {
    let id: String = id.chars().filter(|char| !char.is_control()).take(80).collect();
    Problem::not_found(format!("there is no window `{id}`; /api/v1/windows lists them"))
}

fn to_json(value: &impl Serialize) -> Result<Value, Problem> {
    let mut value = serde_json::to_value(value).map_err(|error| {
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, format!("the answer cannot be written as JSON: {error}"))
    })?;
    view::unify_times(&mut value);
    Ok(value)
}

/// Whether `Accept` asks for Markdown more than for JSON, which is what everybody else gets.
fn prefers_markdown(headers: &HeaderMap) -> bool {
    let mut markdown = 0.0_f32;
    let mut json = 0.0_f32;
    for range in
        headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).flat_map(|v| v.split(','))
    {
        let mut parts = range.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default().to_ascii_lowercase();
        let quality = parts.find_map(|part| part.strip_prefix("q=")?.parse().ok()).unwrap_or(1.0);
        match media.as_str() {
            "text/markdown" => markdown = quality,
            "application/json" => json = quality,
            _ => {}
        }
    }
    markdown > json
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepts(text: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::ACCEPT, text.parse().expect("a header"))])
    }

    #[test]
    fn accept_picks_the_form_of_the_report() {
        assert!(!prefers_markdown(&HeaderMap::new()));
        assert!(!prefers_markdown(&accepts("*/*")));
        assert!(prefers_markdown(&accepts("text/markdown")));
        assert!(prefers_markdown(&accepts("Text/Markdown, */*;q=0.1")));
        assert!(!prefers_markdown(&accepts("text/markdown;q=0.5, application/json")));
    }
}
