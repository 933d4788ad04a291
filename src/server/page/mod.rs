//! The status page: what `/api/v1/status` and `/api/v1/windows` say → HTML for people.
//!
//! Pure, and nothing is looked up elsewhere: the page shows the shapes of [`view`](super::view), so that it can say
//! nothing else than the API. What it looks like is in `page.html` and `style.css`, the words of its headline in `words`.
//! There is no script in it and nothing is loaded: the browser asks for the whole page again after some seconds.
//!
//! It is a template, and not written by hand as mails are, because escaping cannot be forgotten then: whatever is put into
//! it goes through [`escape::text`], unless a function here has made HTML of it. What there is not is an error, and no gap.

mod escape;
#[cfg(test)]
mod tests;
mod words;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use minijinja::value::{Serde, Value};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Output, State, UndefinedBehavior, context};
use rollbackd_core::words::{clock_time, grouped, relative};
use sha2::{Digest as _, Sha256};

use self::words::{Head, Tone};
use super::view::{Status, WindowRow};

const TEMPLATE: &str = include_str!("page.html");
const STYLE: &str = include_str!("style.css");

/// The pause before the browser asks again.
const EVERY_SECONDS: u32 = 5;
/// So many windows are listed; the API has all of them.
const WINDOWS: usize = 10;

/// What the page may do: look as its own style sheet says, and show the sign of its own tab. Nothing else.
pub(super) fn policy() -> String {
    let style = STANDARD.encode(Sha256::digest(STYLE));
    format!(
        "default-src 'none'; style-src 'sha256-{style}'; img-src data:; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'"
    )
}

/// The page; `still`: the browser does not ask for it again.
///
/// # Errors
/// A template that asks for what there is not. Tests show that it does not.
pub(super) fn html(status: &Status, windows: &[WindowRow], now: Timestamp, still: bool) -> Result<String, Error> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.set_formatter(write_escaped);
    environment.add_filter("moment", move |at: String| moment(&at, now));
    environment.add_filter("mark", |word: String| Value::from_safe_string(mark(&word)));
    environment.add_filter("percent", |ratio: f64| format!("{:.1} %", ratio * 100.0));
    environment.add_filter("grouped", grouped);
    environment.add_filter("segment", |id: String| escape::segment(&id));
    environment.add_template("page.html", TEMPLATE)?;
    let head = Head::of(status, now);
    environment.get_template("page.html")?.render(context! {
        status => Serde(status),
        windows => Serde(windows.iter().take(WINDOWS).collect::<Vec<_>>()),
        left_out => windows.len().saturating_sub(WINDOWS),
        title => escape::plain(&head.title),
        state => head.state,
        lead => head.lead,
        tone => head.tone.as_str(),
        open => head.open,
        stale => head.stale,
        every => EVERY_SECONDS,
        still,
        style => Value::from_safe_string(STYLE.to_owned()),
    })
}

/// What `{{ }}` does.
fn write_escaped(out: &mut Output<'_>, _state: &mut State<'_, '_>, value: &Value) -> Result<(), Error> {
    if value.is_undefined() || value.is_none() {
        return Err(Error::new(ErrorKind::UndefinedError, "there is nothing to show here"));
    }
    let written =
        if value.is_safe() { write!(out, "{value}") } else { out.write_str(&escape::text(&value.to_string())) };
    written.map_err(Error::from)
}

fn instant(at: &str) -> Result<Timestamp, Error> {
    at.parse().map_err(|error| Error::new(ErrorKind::InvalidOperation, format!("`{at}` is no time: {error}")))
}

/// A time, and how far away it is: the date only where it is not today's.
fn moment(at: &str, now: Timestamp) -> Result<Value, Error> {
    let instant = instant(at)?;
    let whole = clock_time(instant);
    let today = clock_time(now).get(..11).is_some_and(|day| whole.starts_with(day));
    let shown = if today { whole.get(11..).unwrap_or(&whole) } else { &whole };
    let distance = relative(instant, now);
    Ok(Value::from_safe_string(format!(
        "<time datetime=\"{instant:.3}\" title=\"{whole}\">{shown}</time> <span class=\"ago\">({distance})</span>"
    )))
}

/// A verdict, state or outcome with a sign: its shape says what its colour says.
fn mark(word: &str) -> String {
    let tone = Tone::of(word).as_str();
    let word = escape::text(&word.replace('_', " "));
    format!("<span class=\"mark {tone}\"><span class=\"sign\" aria-hidden=\"true\"></span>{word}</span>")
}
