//! A report as Markdown: the outcome first, what to do next, then the evidence.
//!
//! What comes from outside goes through [`escape`], [`code`] or [`block`], always.

use super::narrate::{Level, rfc, span};
use super::text::{block, code, escape, item, paragraph, push, table};
use super::{Attempt, AttemptResult, Check, DeliveryState, GatePosition, NoticeLine, Report};
use crate::baseline::Class;
use crate::run::step::{RemovalFinding, StepResult};

/// Renders the whole report.
pub(super) fn render(report: &Report) -> String {
    let mut out = String::new();
    push(&mut out, format_args!("# {}\n\n", escape(&report.headline)));
    for sentence in &report.summary {
        paragraph(&mut out, &escape(sentence));
    }
    skipped(&mut out, report);
    manual(&mut out, report);
    facts(&mut out, report);
    why(&mut out, report);
    rungs(&mut out, report);
    checks(&mut out, "Verification", &report.checks);
    remains(&mut out, report);
    gates(&mut out, report);
    checks(&mut out, "Preflight", &report.preflight);
    steps(&mut out, report);
    timeline(&mut out, report);
    notices(&mut out, report);
    out.truncate(out.trim_end().len());
    out.push('\n');
    out
}

fn heading(out: &mut String, title: &str) {
    push(out, format_args!("## {title}\n\n"));
}

/// What was configured away is said loudly, before everything that rests on it.
fn skipped(out: &mut String, report: &Report) {
    if !report.preflight_skipped.is_empty() {
        let names: Vec<String> = report.preflight_skipped.iter().map(|name| code(name)).collect();
        paragraph(out, &format!("**Warning:** preflight checks were left out by configuration: {}.", names.join(", ")));
    }
}

fn manual(out: &mut String, report: &Report) {
    if !report.manual.is_empty() {
        heading(out, "What to do now");
        push(out, format_args!("{}\n", block(&report.manual.join("\n"))));
    }
}

fn facts(out: &mut String, report: &Report) {
    let mut rows: Vec<Vec<String>> = Vec::new();
    let mut fact = |name: &str, value: String| rows.push(vec![name.to_owned(), value]);
    fact("Id", code(&report.window));
    fact("Plan", format!("{} on {}", code(&report.plan), code(&report.host)));
    fact("State", escape(report.state));
    fact("Opened by", escape(&report.origin));
    fact("Started", rfc(report.started_at));
    fact("Ended", report.ended_at.map_or_else(|| "still open".to_owned(), rfc));
    fact("Hard end", rfc(report.hard_end));
    let so_far = if report.ended_at.is_some() { "" } else { " up to the last record" };
    fact("Took", format!("{}{so_far}", span(report.duration)));
    fact("Migration", report.command.as_deref().map_or_else(|| "run by somebody else".to_owned(), code));
    if let Some(class) = report.class {
        let meaning = match class {
            Class::Reversible => "no row left the live schema",
            Class::Lossy => "rows left the live schema",
            Class::Irreversible => "tables or columns from before the migration were destroyed by it",
        };
        fact("Class", format!("{}: {meaning}", class.as_str()));
    }
    if let Some(costs) = report.costs.as_ref().filter(|costs| !costs.reasons.is_empty()) {
        fact("At stake", escape(&costs.reasons.join("; ")));
    }
    if let Some(backup) = &report.backup {
        fact("Backup", format!("{} ({})", code(&backup.directory), size(backup.bytes)));
    }
    heading(out, "Window");
    table(out, &["Fact", "Value"], &rows);
}

fn why(out: &mut String, report: &Report) {
    let Some(why) = &report.trigger else { return };
    heading(out, "Why");
    if why.evidence.is_empty() {
        paragraph(out, &format!("At {}: {}.", rfc(why.at), escape(&why.sentence)));
        return;
    }
    paragraph(out, &format!("At {} these rules were breached:", rfc(why.at)));
    for evidence in &why.evidence {
        item(out, &escape(&evidence.sentence));
    }
    out.push('\n');
}

fn rungs(out: &mut String, report: &Report) {
    if report.rungs.is_empty() {
        return;
    }
    heading(out, "Rungs");
    for attempt in &report.rungs {
        rung(out, attempt);
    }
}

fn rung(out: &mut String, attempt: &Attempt) {
    let result = match attempt.result {
        AttemptResult::Recovered => "recovered",
        AttemptResult::Failed => "failed",
        AttemptResult::Unfinished => "not finished",
    };
    push(out, format_args!("### Rung {} ({}): {result}\n\n", attempt.number, attempt.kind));
    paragraph(out, &format!("Tried at {}: {}.", rfc(attempt.started_at), escape(&attempt.method)));
    let mut list = |name: &str, text: Option<String>| {
        if let Some(text) = text {
            item(out, &format!("**{name}:** {text}"));
        }
    };
    list("Why it failed", attempt.failure.as_deref().map(escape));
    list("Before", attempt.before.as_deref().map(escape));
    list("Work", work(attempt));
    list("After", attempt.after.as_deref().map(escape));
    if let Some(removal) = attempt.removal.as_ref().filter(|removal| removal.attempts > 1) {
        list("Attempts", Some(removal.attempts.to_string()));
    }
    if let Some(process) = &attempt.process {
        list("Output kept in", process.output_file.as_deref().map(code));
    }
    out.push('\n');
    if let Some(process) = attempt.process.as_ref().filter(|process| !process.output.trim().is_empty()) {
        paragraph(out, "The end of its output:");
        push(out, format_args!("{}\n", block(&process.output)));
    }
    if let Some(found) = &attempt.removal {
        removal(out, found, attempt.work == Some(StepResult::Succeeded));
    }
}

/// What the work came to, with the exit code where its own words leave it out.
fn work(attempt: &Attempt) -> Option<String> {
    let detail = escape(attempt.detail.as_deref()?);
    let exit = attempt.process.as_ref().and_then(|process| process.exit_code);
    Some(match exit.filter(|_| !detail.contains("exit")) {
        Some(exit) => format!("{detail} (exit code {exit})"),
        None => detail,
    })
}

fn removal(out: &mut String, found: &RemovalFinding, done: bool) {
    if !found.tables.is_empty() {
        let rows: Vec<Vec<String>> = found
            .tables
            .iter()
            .map(|removed| {
                let rows = removed.rows.map_or_else(|| "not counted".to_owned(), |rows| rows.to_string());
                vec![code(&removed.table.to_string()), rows]
            })
            .collect();
        table(out, &[if done { "Removed table" } else { "Table it would have removed" }, "Rows"], &rows);
    }
    let place = found.quarantine.as_deref().map(|schema| format!("Quarantine: schema {}.", code(schema)));
    let archive = found.archive.as_deref().map(|archive| format!("Archive: {}.", code(archive)));
    for sentence in place.into_iter().chain(archive) {
        paragraph(out, &sentence);
    }
    for (title, objects) in [
        ("Objects of the migration that go along:", &found.collateral),
        ("Objects from before the migration that stand in the way:", &found.survivors),
        ("Locks on the tables before the first try:", &found.holders),
        ("Sessions that held locks:", &found.blockers),
    ] {
        if !objects.is_empty() {
            paragraph(out, title);
            for object in objects {
                item(out, &escape(object));
            }
            out.push('\n');
        }
    }
    if !found.by_hand.is_empty() {
        paragraph(out, "Rows that are kept and were not brought back are put into the live tables by hand with:");
        push(out, format_args!("{}\n", block(&found.by_hand.join("\n"))));
    }
    if !found.sql.is_empty() {
        paragraph(out, "The statements of the transaction:");
        push(out, format_args!("{}\n", block(&found.sql.join("\n"))));
    }
}

fn checks(out: &mut String, title: &str, checks: &[Check]) {
    if checks.is_empty() {
        return;
    }
    heading(out, title);
    // What failed comes first.
    for (passed, word) in [(false, "failed"), (true, "passed")] {
        for check in checks.iter().filter(|check| check.passed == passed) {
            let kind = if check.kind == check.name { String::new() } else { format!(" ({})", escape(&check.kind)) };
            item(out, &format!("**{word}** {}{kind}: {}", escape(&check.name), escape(&check.detail)));
        }
    }
    out.push('\n');
}

fn remains(out: &mut String, report: &Report) {
    let Some(remains) = &report.remains else { return };
    heading(out, "What remains of the migration");
    paragraph(out, &format!("Seen at {}: {}.", rfc(remains.at), escape(&remains.summary)));
    let mut any = false;
    for (word, objects) in [("added", &remains.added), ("gone", &remains.removed), ("changed", &remains.changed)] {
        for object in objects {
            item(out, &format!("{word}: {}", escape(object)));
            any = true;
        }
    }
    if any {
        out.push('\n');
    }
}

fn gates(out: &mut String, report: &Report) {
    if report.gates.iter().all(|gate| gate.position == GatePosition::Untouched && gate.failure.is_none()) {
        return;
    }
    heading(out, "Gates");
    let rows: Vec<Vec<String>> = report
        .gates
        .iter()
        .map(|gate| {
            let when = |at: Option<jiff::Timestamp>| at.map(rfc).unwrap_or_default();
            vec![escape(&gate.name), gate.position.as_str().to_owned(), when(gate.closed_at), when(gate.reopened_at)]
        })
        .collect();
    table(out, &["Gate", "Position", "Closed", "Reopened"], &rows);
    for gate in &report.gates {
        if let Some(failure) = &gate.failure {
            paragraph(out, &format!("Gate {}: {}.", escape(&gate.name), escape(failure)));
        }
    }
}

fn steps(out: &mut String, report: &Report) {
    if report.steps.is_empty() {
        return;
    }
    heading(out, "Steps");
    let rows: Vec<Vec<String>> = report
        .steps
        .iter()
        .map(|step| {
            let result = match step.result {
                Some(StepResult::Succeeded) => "succeeded",
                Some(StepResult::Failed) => "failed",
                Some(StepResult::TimedOut) => "timed out",
                Some(StepResult::Unknown) => "unknown",
                None => "under way",
            };
            let took = step.took.map(span).unwrap_or_default();
            vec![step.number.to_string(), step.name.to_owned(), rfc(step.started_at), took, result.to_owned()]
        })
        .collect();
    table(out, &["No.", "Step", "Started", "Took", "Result"], &rows);
}

/// The timeline without what only matters when looking closely; the journal and the JSON report have it.
fn timeline(out: &mut String, report: &Report) {
    heading(out, "Timeline");
    for line in report.timeline.iter().filter(|line| line.level > Level::Detail) {
        let mark = match line.level {
            Level::Critical => " **critical:**",
            Level::Warning => " **warning:**",
            Level::Info | Level::Detail => "",
        };
        let offset = jiff::SignedDuration::from_secs(line.offset.as_secs());
        item(out, &format!("{} (+{offset:#}){mark} {}", rfc(line.at), escape(&line.sentence)));
    }
    out.push('\n');
}

fn notices(out: &mut String, report: &Report) {
    if report.notices.is_empty() {
        return;
    }
    heading(out, "Notices");
    let rows: Vec<Vec<String>> = report
        .notices
        .iter()
        .flat_map(|notice| notice.channels.iter().map(move |delivery| (notice, delivery)))
        .map(|(notice, delivery)| {
            let state = match delivery.state {
                DeliveryState::Owed => "still owed".to_owned(),
                DeliveryState::Delivered => delivered(notice, delivery.at),
                DeliveryState::Undeliverable => "undeliverable".to_owned(),
                DeliveryState::Cancelled => "not needed any more".to_owned(),
            };
            vec![notice.event.to_owned(), escape(&notice.contact), escape(&delivery.channel), state]
        })
        .collect();
    table(out, &["Event", "Contact", "Channel", "State"], &rows);
    let dead = report.notices.iter().flat_map(|notice| {
        notice.channels.iter().filter_map(move |delivery| Some((notice, delivery, delivery.reason.as_deref()?)))
    });
    let mut any = false;
    for (notice, delivery, reason) in dead {
        let (contact, channel) = (escape(&notice.contact), escape(&delivery.channel));
        item(out, &format!("{} to {contact} by {channel} cannot be delivered: {}", notice.event, escape(reason)));
        any = true;
    }
    if any {
        out.push('\n');
    }
}

/// `delivered after 1.2 s`.
fn delivered(notice: &NoticeLine, at: Option<jiff::Timestamp>) -> String {
    at.map_or_else(|| "delivered".to_owned(), |at| format!("delivered after {}", span(at.duration_since(notice.at))))
}

/// A size in the largest unit that leaves a whole number in front: `1.2 GB`.
#[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
fn size(bytes: u64) -> String {
    let units = [(1_000_000_000, "GB"), (1_000_000, "MB"), (1_000, "kB")];
    units
        .iter()
        .find(|(unit, _)| bytes >= *unit)
        .map_or_else(|| format!("{bytes} bytes"), |(unit, name)| format!("{:.1} {name}", bytes as f64 / *unit as f64))
}
