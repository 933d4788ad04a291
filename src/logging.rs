//! Logs: one JSON object a line for machines, readable lines on a terminal, always on standard error.
//!
//! Errors are logged once, where they are handled. Levels say who must act: `error` somebody now, `warn`
//! somebody soon, `info` nobody (the record of what happened), `debug` a developer.

use std::fmt;
use std::io::{self, IsTerminal};

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::clock;

/// The variable that overrides the level, such as `debug` or `rollbackd::driver=debug`.
const LEVEL: &str = "ROLLBACKD_LOG";

/// The target of lines that repeat what the journal's records say.
pub const RECORDS: &str = "rollbackd::records";

/// Starts logging; `level` holds unless the environment says otherwise. A second call changes nothing.
pub fn start(level: Level) {
    // What libraries have to say is for developers.
    begin(&format!("warn,rollbackd={level},tokio_cron_scheduler=off"));
}

/// Starts logging for a command that tells the records itself: only what they do not say is logged, from `warn` on.
pub fn start_beside_story() {
    begin(&format!("warn,{RECORDS}=off,tokio_cron_scheduler=off"));
}

fn begin(directives: &str) {
    let chosen = std::env::var(LEVEL).ok().and_then(|text| EnvFilter::try_new(text).ok());
    let filter = chosen.unwrap_or_else(|| EnvFilter::new(directives));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    let started = if io::stderr().is_terminal() {
        let colour = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        builder.with_target(false).with_ansi(colour).try_init()
    } else {
        builder.event_format(JsonLines).try_init()
    };
    drop(started);
}

/// One JSON object a line: `ts`, `level`, `event`, `msg`, then the event's own fields.
struct JsonLines;

impl<S, N> FormatEvent<S, N> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut line = Line::default();
        line.0.insert("ts".to_owned(), Value::String(clock::now().strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()));
        let level = event.metadata().level().as_str().to_lowercase();
        line.0.insert("level".to_owned(), Value::String(level));
        event.record(&mut line);
        line.0.entry("event").or_insert_with(|| Value::String(event.metadata().target().to_owned()));
        writeln!(writer, "{}", Value::Object(line.0))
    }
}

/// Collects an event's fields.
#[derive(Default)]
struct Line(Map<String, Value>);

impl Line {
    fn put(&mut self, field: &Field, value: Value) {
        let name = if field.name() == "message" { "msg" } else { field.name() };
        self.0.insert(name.to_owned(), value);
    }
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, Value::String(value.to_owned()));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, Value::from(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, Value::from(value));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, Value::from(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, Value::from(value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, Value::String(format!("{value:?}")));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_is_one_object_with_the_named_fields() {
        let buffer = Buffer::default();
        let out = buffer.clone();
        let subscriber = tracing_subscriber::fmt().event_format(JsonLines).with_writer(move || out.clone()).finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(event = "signal.blind", signal = "api", attempt = 3, duration_seconds = 0.5, "cannot\nsee");
        });
        let bytes = buffer.0.lock().unwrap().clone();
        let text = String::from_utf8(bytes).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        let line: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["level"], "warn");
        assert_eq!(line["event"], "signal.blind");
        assert_eq!(line["msg"], "cannot\nsee");
        assert_eq!(line["signal"], "api");
        assert_eq!(line["attempt"], 3);
        assert_eq!(line["duration_seconds"], 0.5);
        let ts = line["ts"].as_str().unwrap();
        assert!(ts.ends_with('Z') && ts.len() == "2026-11-22T02:14:05.120Z".len(), "{ts}");
    }
}
