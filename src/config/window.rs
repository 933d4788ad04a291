//! `[window]`, `[preflight]`, `[backup]` and `[decision]`.

use jiff::tz::TimeZone;
use rollbackd_core::plan::{Missed, OnCommandFailure};

use super::database::Ground;
use super::model::{Backup, Decision, Preflight, Window};
use super::problem::Problem;
use super::scalar::{ANY, BOUND, seconds};
use super::section::{Section, listed};
use super::value::Value;
use crate::clock;

/// The preflight checks that may be skipped. `signals` is judged by the state machine, from the samples that come in;
/// the others are done by [`crate::preflight`].
pub const PREFLIGHT_CHECKS: [&str; 10] =
    ["database", "rights", "tools", "disk", "script", "gates", "signals", "mail", "webhooks", "command"];

/// Reads `[window]`.
pub(super) fn window(mut section: Section<'_>) -> Window {
    let (timezone_name, timezone) = section.or("timezone", ("UTC".to_owned(), TimeZone::UTC), zone);
    let schedule = section.maybe("schedule", |value| schedule(value, &timezone));
    let duration = section.or("duration", seconds(3600), |value| value.duration(BOUND));
    let soak = section.or("soak", seconds(600), |value| value.duration(ANY));
    let missed =
        section.or("missed", Missed::Skip, |value| value.choice(&[("skip", Missed::Skip), ("run", Missed::Run)], &[]));
    let command = section.maybe("command", Value::command);
    let on_command_failure = section.or("on_command_failure", OnCommandFailure::Rollback, |value| {
        value.choice(&[("rollback", OnCommandFailure::Rollback), ("leave", OnCommandFailure::Leave)], &[])
    });
    section.finish();
    Window { schedule, timezone, timezone_name, duration, soak, missed, command, on_command_failure }
}

fn zone(value: Value<'_>) -> Option<(String, TimeZone)> {
    let text = value.filled("a time zone such as \"Europe/Berlin\"")?;
    match TimeZone::get(&text.value) {
        Ok(zone) => Some((text.value, zone)),
        Err(_) => text.refuse(
            format!("`{}`: {} is not a known time zone", text.path, text.shown()),
            "not known",
            "accepted: a name of the IANA database, such as \"Europe/Berlin\", or \"UTC\"",
        ),
    }
}

fn schedule(value: Value<'_>, zone: &TimeZone) -> Option<String> {
    let text = value.filled("a cron expression of 5 or 6 fields, such as \"0 2 * * SAT\"")?;
    let help = "accepted: 5 fields (minute hour day month weekday) or 6 (seconds first), such as \"0 2 * * SAT\"";
    match rollbackd_core::window::parse(&text.value) {
        Ok(schedule) if schedule.fires(zone, clock::now()) => Some(text.value),
        Ok(_) => text.refuse(format!("the schedule {} never fires", text.shown()), "no such day ever comes", help),
        Err(reason) => text.refuse(format!("{} is not a schedule: {reason}", text.shown()), "not a schedule", help),
    }
}

/// Reads `[preflight]`.
pub(super) fn preflight(mut section: Section<'_>) -> Preflight {
    let healthy_for = section.or("healthy_for", seconds(30), |value| value.duration(ANY));
    let words = PREFLIGHT_CHECKS.map(|name| (name, name));
    let skip = section.or("skip", Vec::new(), |value| {
        let names = value.each(&format!("a list of {}", listed(&PREFLIGHT_CHECKS)), |name| name.choice(&words, &[]))?;
        Some(names.into_iter().map(str::to_owned).collect())
    });
    section.finish();
    Preflight { healthy_for, skip }
}

/// Reads `[backup]`.
pub(super) fn backup(mut section: Section<'_>, ground: &Ground) -> Backup {
    let doc = section.doc();
    let default = doc.surroundings.directory.join("backups");
    let directory = section.or("directory", default, |value| value.path("the path of a directory"));
    let schemas = section.or("schemas", vec![ground.schema.clone()], |value| {
        let span = value.span();
        let schemas = value.each("a list of schema names", |name| name.plain("a schema's name"))?;
        if schemas.is_empty() {
            let problem = Problem::error(span, "no schema is backed up").label("empty");
            doc.report(problem.help("name at least one schema, or leave the key out to back up the database's schema"));
        }
        Some(schemas)
    });
    let jobs = section.or("jobs", 2, |value| value.integer(1..=64));
    let keep = section.or("keep", 5, |value| value.integer(1..=10_000));
    section.finish();
    Backup { directory, schemas, jobs, keep }
}

/// Reads `[decision]`. `rollback_rules` is how many rules can lead to a rollback.
pub(super) fn decision(mut section: Section<'_>, rollback_rules: usize) -> Decision {
    let doc = section.doc();
    let confirm = section.or("confirm", seconds(0), |value| value.duration(ANY));
    let at_least = section.or("at_least", 1, |value| {
        let span = value.span();
        let count: u32 = value.integer(1..=1000)?;
        if usize::try_from(count).is_ok_and(|count| count > rollback_rules) && rollback_rules > 0 {
            let accepted = if rollback_rules == 1 { "1".to_owned() } else { format!("1 to {rollback_rules}") };
            let message = format!("`decision.at_least` is {count}, but there {}", rules_there_are(rollback_rules));
            let problem = Problem::error(span, message).label("can never be reached");
            doc.report(
                problem.help(format!("accepted: {accepted}; or add rules with then = \"rollback\"")).by_absence(),
            );
        }
        Some(count)
    });
    let blind_after = section.or("blind_after", seconds(60), |value| value.duration(BOUND));
    let witnesses = section.or("witness", Vec::new(), |value| {
        value.each("a list of tcp:// or http(s):// URLs", |value| {
            let span = value.span();
            let address = value.url(&["tcp", "https", "http"])?;
            if address.expose().scheme() == "tcp" && address.expose().port().is_none() {
                let problem = Problem::error(span, "a tcp witness needs a port").label("the port is missing");
                doc.report(problem.help("accepted: tcp://host:port"));
                return None;
            }
            Some(address)
        })
    });
    section.finish();
    Decision { confirm, at_least, blind_after, witnesses }
}

fn rules_there_are(count: usize) -> String {
    if count == 1 { "is only 1 rollback rule".to_owned() } else { format!("are only {count} rollback rules") }
}
