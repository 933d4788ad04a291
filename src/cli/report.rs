//! `rollbackd report`.

use std::path::Path;

use clap::{Args, ValueEnum};
use rollbackd_core::report;
use serde_json::Value;

use super::client::Unanswered;
use super::output::Terminal;
use super::place::{Place, state_of};
use super::{Exit, Stop};
use crate::server::view::{self, WindowRow};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The window; without it, the open or last one
    window: Option<String>,
    /// The form
    #[arg(long, value_enum, default_value_t = Format::Md)]
    format: Format,
    /// The same as --format json
    #[arg(long, conflicts_with = "format")]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Md,
    Json,
}

pub(super) async fn run(config: &Path, arguments: Arguments, terminal: &mut Terminal) -> anyhow::Result<Exit> {
    let place = Place::of(config)?;
    let format = if arguments.json { Format::Json } else { arguments.format };
    match ask(&place, arguments.window.as_deref(), format).await {
        Err(Unanswered::NoDaemon(_)) => read(&place, arguments.window.as_deref(), format, terminal)?,
        Err(error) => return Err(Stop::from(error).into()),
        Ok(text) => terminal.print(&text)?,
    }
    Ok(Exit::Done)
}

/// The daemon's report.
async fn ask(place: &Place, window: Option<&str>, format: Format) -> Result<String, Unanswered> {
    let client = place.client();
    let window = if let Some(window) = window {
        window.to_owned()
    } else {
        let rows: Vec<WindowRow> = client.get("/api/v1/windows").await?;
        newest(rows).map_err(|detail| Unanswered::Refused { status: 404, detail })?
    };
    let path = format!("/api/v1/windows/{}/report", path_segment(&window));
    match format {
        Format::Md => client.get_text(&path, "text/markdown").await,
        Format::Json => {
            let report: Value = client.get(&path).await?;
            Ok(format!("{report:#}\n"))
        }
    }
}

/// The report made from the journal.
fn read(place: &Place, window: Option<&str>, format: Format, terminal: &mut Terminal) -> anyhow::Result<()> {
    let mut entries = place.records()?;
    let window = match window {
        Some(window) => window.to_owned(),
        None => newest(view::history(&state_of(&entries))).map_err(|detail| Stop::new(Exit::Failed, detail))?,
    };
    entries.retain(|entry| entry.window.as_deref() == Some(window.as_str()));
    let Some(report) = report::of(&entries) else {
        return Err(
            Stop::new(Exit::Failed, format!("there is no window `{window}`; `rollbackd history` lists them")).into()
        );
    };
    match format {
        Format::Md => terminal.print(&report.markdown())?,
        Format::Json => {
            let mut value = serde_json::to_value(&report)?;
            view::unify_times(&mut value);
            terminal.print_json(&value)?;
        }
    }
    Ok(())
}

fn newest(rows: Vec<WindowRow>) -> Result<String, String> {
    rows.into_iter().next().map(|row| row.id).ok_or_else(|| "no window was opened yet".to_owned())
}

/// What an operator typed, as one segment of a path.
fn path_segment(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>().replace('+', "%20")
}
