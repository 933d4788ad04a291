//! A status → text for people, in 80 columns.

use jiff::Timestamp;

use crate::cli::output::{NAMES, Paint, WIDTH, clean, clock_time, moment, relative, table, wrap};
use crate::server::view::{RollbackStatus, SignalStatus, Status, WindowStatus};

/// The whole status; times are relative to the moment at which it was so.
pub(super) fn of(status: &Status, paint: Paint) -> String {
    let mut text = heading(status, paint);
    let now = status.at;
    text.push_str(&match &status.window {
        Some(window) => window_lines(window, now, paint),
        None => field("window", "none yet"),
    });
    text.push_str(&field("verdict", &paint.word(&status.verdict)));
    for reason in &status.reasons {
        text.push_str(&wrap(reason, 10));
    }
    if let Some(reason) = &status.ready.reason {
        text.push_str(&field("not ready", ""));
        text.push_str(&wrap(reason, 10));
    }
    if let Some(rollback) = &status.rollback {
        text.push_str(&field("rollback", &rollback_words(rollback, now)));
    }
    text.push_str(&waiting(status, paint));
    text.push_str(&configuration(status, paint));
    if !status.signals.is_empty() {
        text.push_str(&title("Signals", paint));
        text.push_str(&signals(&status.signals, now, paint));
    }
    if !status.rules.is_empty() {
        text.push_str(&title("Rules", paint));
        let rows: Vec<Vec<String>> =
            status.rules.iter().map(|rule| vec![rule.name.clone(), rule.state.clone(), rule.then.clone()]).collect();
        text.push_str(&table(paint, NAMES, &["NAME", "STATE", "THEN"], &rows));
    }
    text.push('\n');
    let notices = match status.notices_pending {
        0 => "none pending".to_owned(),
        pending => format!("{pending} pending"),
    };
    text.push_str(&field("notices", &notices));
    let next = status.next_window_at.map_or_else(|| "none scheduled".to_owned(), |at| moment(at, now));
    text.push_str(&field("next", &next));
    text
}

/// The plan on the left, the program and the moment on the right.
fn heading(status: &Status, paint: Paint) -> String {
    let right = format!("rollbackd {}  {}", status.version, clock_time(status.at));
    let blanks = WIDTH.saturating_sub(status.plan.chars().count() + right.chars().count()).max(2);
    format!("{}{}{right}\n\n", paint.bold(&status.plan), " ".repeat(blanks))
}

fn title(words: &str, paint: Paint) -> String {
    format!("\n{}\n", paint.bold(words))
}

fn field(name: &str, value: &str) -> String {
    let line = format!("{name:<10}{value}");
    format!("{}\n", line.trim_end())
}

fn window_lines(window: &WindowStatus, now: Timestamp, paint: Paint) -> String {
    let state = window.state.replace('_', " ");
    let mut text = field("window", &format!("{}  {}", window.id, paint.word(&state)));
    text.push_str(&field("  opened", &moment(window.started_at, now)));
    for (name, at) in [("  soaks", window.soak_until), ("  ends", window.ends_at), ("  ended", window.ended_at)] {
        if let Some(at) = at {
            text.push_str(&field(name, &moment(at, now)));
        }
    }
    text
}

fn rollback_words(rollback: &RollbackStatus, now: Timestamp) -> String {
    let rung = rollback.rung.as_ref().map_or_else(|| "before the first rung".to_owned(), |rung| format!("rung {rung}"));
    let step = rollback.step.as_ref().map_or_else(String::new, |step| format!(", step {step}"));
    format!("{rung}{step}, started {}", relative(rollback.started_at, now))
}

/// What stands still until a person does something.
fn waiting(status: &Status, paint: Paint) -> String {
    let now = status.at;
    let mut text = String::new();
    if let Some(hold) = &status.hold {
        let since = relative(hold.since, now);
        text.push_str(&wrap(&format!("Decisions are held by {} ({since}): {}", hold.who, hold.reason), 2));
        text.push_str("    rollbackd window resume\n");
    }
    if let Some(approval) = &status.approval {
        let rung = approval.rung.as_deref().unwrap_or("next");
        text.push_str(&wrap(&format!("The rung {rung} waits for approval since {}.", clock_time(approval.since)), 2));
        text.push_str("    rollbackd approve   or   rollbackd decline\n");
    }
    if let Some(operator) = &status.operator {
        text.push_str(&wrap(&format!("An operator is needed: {}", operator.reason), 2));
        for line in &operator.manual {
            // Commands are never broken into lines: they are there to be copied.
            text.extend(["    ", &clean(line), "\n"]);
        }
        text.push_str("  When it is dealt with:\n    rollbackd window resolved\n");
    }
    if let (false, Some(who)) = (text.is_empty(), &status.acknowledged) {
        text.push_str(&wrap(&format!("Acknowledged by {who}."), 2));
    }
    if text.is_empty() { text } else { title("Waits for a person", paint) + &text }
}

/// What is to come of the configuration's file, if anything.
fn configuration(status: &Status, paint: Paint) -> String {
    let Some(configuration) = &status.configuration else { return String::new() };
    let mut text = String::new();
    if let Some(refused) = &configuration.refused {
        let when = relative(refused.at, status.at);
        text.push_str(&wrap(&format!("The file was refused ({when}); what was there before goes on."), 2));
        text.push_str(&wrap(&refused.reason, 4));
    }
    if configuration.pending {
        text.push_str(&wrap("Another configuration is taken over when the window is settled.", 2));
    }
    if text.is_empty() { text } else { title("Configuration", paint) + &text }
}

fn signals(signals: &[SignalStatus], now: Timestamp, paint: Paint) -> String {
    let rows: Vec<Vec<String>> = signals
        .iter()
        .map(|signal| {
            vec![
                signal.name.clone(),
                signal.verdict.clone(),
                signal.last_sample_at.map_or_else(|| "never".to_owned(), |at| relative(at, now)),
                signal.error_ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{:.1} %", ratio * 100.0)),
                signal.consecutive_bad.to_string(),
            ]
        })
        .collect();
    let mut text = table(paint, NAMES, &["NAME", "VERDICT", "READ", "ERRORS", "BAD IN A ROW"], &rows);
    for signal in signals {
        if let Some(reason) = &signal.reason {
            text.push_str(&wrap(&format!("{}: {reason}", signal.name), 2));
        }
    }
    text
}
