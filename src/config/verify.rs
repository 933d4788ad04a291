//! `[[verify]]`: the checks that decide whether the application has recovered.

use std::collections::BTreeMap;
use std::time::Duration;

use rollbackd_core::baseline::TableName;
use rollbackd_core::plan::Stage;

use super::cross::Names;
use super::database::Ground;
use super::model::{Check, CheckKind, IntegrityPolicy, Signal, SignalSource};
use super::problem::Problem;
use super::redact::quoted;
use super::scalar::{ANY, BOUND, seconds};
use super::section::Section;
use super::signal;
use super::value::Value;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Tables,
    Integrity,
    Catalog,
    Auth,
    Http,
    Sql,
    Command,
    ErrorLog,
}

/// Reads every `[[verify]]`; without any, the tables and their counts are checked.
pub(super) fn read(
    sections: Vec<Section<'_>>,
    ground: &Ground,
    signal_names: &Names,
    signals: &[Signal],
) -> Vec<Check> {
    if sections.is_empty() {
        return [CheckKind::Tables, grow_only()].into_iter().map(by_default).collect();
    }
    let mut names = Names::of("check");
    sections.into_iter().filter_map(|section| check(section, ground, &mut names, (signal_names, signals))).collect()
}

fn grow_only() -> CheckKind {
    CheckKind::Integrity { default: IntegrityPolicy::GrowOnly, tables: BTreeMap::new() }
}

fn by_default(kind: CheckKind) -> Check {
    let name = kind.kind().to_owned();
    Check { name, stage: Stage::Closed, timeout: patience(true), retries: 3, every: seconds(2), kind }
}

/// How long one try may take: counting every row takes longer than asking one question.
const fn patience(in_database: bool) -> Duration {
    if in_database { seconds(60) } else { seconds(10) }
}

fn check(mut section: Section<'_>, ground: &Ground, names: &mut Names, signals: (&Names, &[Signal])) -> Option<Check> {
    let words = [
        ("tables", Kind::Tables),
        ("integrity", Kind::Integrity),
        ("catalog", Kind::Catalog),
        ("auth", Kind::Auth),
        ("http", Kind::Http),
        ("sql", Kind::Sql),
        ("command", Kind::Command),
        ("error_log", Kind::ErrorLog),
    ];
    // What else it holds belongs to a kind that is not known.
    let kind = section.need("kind", "kind = \"tables\"", |value| value.choice(&words, &[]))?;
    let word = words.iter().find(|(_, known)| *known == kind).map_or("", |(word, _)| word);
    let name = if section.has("name") {
        section.maybe("name", |value| names.take(value))
    } else {
        section.take("name");
        Some(names.numbered(word))
    };
    let in_database = matches!(kind, Kind::Tables | Kind::Integrity | Kind::Catalog | Kind::Sql);
    let stage = section.or("stage", if in_database { Stage::Closed } else { Stage::Open }, |value| {
        value.choice(&[("open", Stage::Open), ("closed", Stage::Closed)], &[])
    });
    let timeout = section.or("timeout", patience(in_database), |value| value.duration(BOUND));
    let retries = section.or("retries", 3, |value| value.integer(0..=1000));
    let every = section.or("every", seconds(2), |value| value.duration(ANY));
    let checked = match kind {
        Kind::Tables => Some(CheckKind::Tables),
        Kind::Integrity => Some(integrity(&mut section, ground)),
        Kind::Catalog => Some(CheckKind::Catalog),
        Kind::Auth => auth(&mut section),
        Kind::Http => signal::request(&mut section).map(CheckKind::Http),
        Kind::Sql => section
            .need("query", "query = \"select count(*) > 0 from posts\"", |value| {
                value.plain("a query that returns true")
            })
            .map(|query| CheckKind::Sql { query }),
        Kind::Command => section
            .need("run", "run = [\"scripts/smoke-test.sh\"]", Value::command)
            .map(|run| CheckKind::Command { run }),
        Kind::ErrorLog => error_log(&mut section, stage, signals),
    };
    section.finish();
    Some(Check { name: name?, stage, timeout, retries, every, kind: checked? })
}

fn integrity(section: &mut Section<'_>, ground: &Ground) -> CheckKind {
    let default = section.or("default", IntegrityPolicy::GrowOnly, policy);
    let written = section.maybe("tables", Value::table);
    let mut tables = BTreeMap::new();
    for (name, span, value) in written.iter().flat_map(Section::entries) {
        let doc = value.doc;
        let policy = policy(value);
        match TableName::parse(&name, &ground.schema) {
            Ok(table) => {
                if !ground.original_tables.contains(&table) && !ground.original_tables.is_empty() {
                    let message = format!("{} is not an original table: it is not counted", quoted(&table.to_string()));
                    let problem = Problem::warning(span, message).label("has no effect");
                    doc.report(problem.help("add it to `database.original_tables`, or take it out here"));
                }
                tables.extend(policy.map(|policy| (table, policy)));
            }
            Err(reason) => {
                let problem = Problem::error(span, super::redact::masked(&reason)).label("not a table's name");
                doc.report(problem.help("accepted: `table` or \"schema.table\""));
            }
        }
    }
    CheckKind::Integrity { default, tables }
}

fn policy(value: Value<'_>) -> Option<IntegrityPolicy> {
    let words = [
        ("grow_only", IntegrityPolicy::GrowOnly),
        ("exact", IntegrityPolicy::Exact),
        ("ignore", IntegrityPolicy::Ignore),
    ];
    if value.is_table() {
        let mut table = value.table()?;
        let share = table.need("tolerance", "{ tolerance = 0.01 }", share);
        table.finish();
        return share.map(IntegrityPolicy::Tolerance);
    }
    value.choice(&words, &[])
}

/// A share of a table's rows.
fn share(value: Value<'_>) -> Option<f64> {
    let (doc, span) = (value.doc, value.span());
    let expected = "a share from 0 to 1, such as 0.01 for one row in a hundred";
    let share = value.number(expected)?;
    if !(0.0..=1.0).contains(&share) {
        let problem = Problem::error(span, "`tolerance` is out of range").label("out of range");
        doc.report(problem.help(format!("accepted: {expected}")));
        return None;
    }
    Some(share)
}

fn auth(section: &mut Section<'_>) -> Option<CheckKind> {
    let url = section.need("url", "url = \"https://ref.supabase.co/auth/v1\"", Value::web_url);
    let apikey = section.maybe("apikey", |value| value.secret("the service's public key"));
    let email = section.need("email", "email = \"watchdog@shop.example\"", |value| value.secret("the test account"));
    let password = section.need("password", "password = { env = \"WATCHDOG_PASSWORD\" }", |value| {
        value.secret("the test account's password")
    });
    Some(CheckKind::Auth { url: url?, apikey, email: email?, password: password? })
}

fn error_log(section: &mut Section<'_>, stage: Stage, (names, signals): (&Names, &[Signal])) -> Option<CheckKind> {
    if stage == Stage::Closed {
        let message = "`error_log` cannot be checked while traffic is stopped";
        let problem = Problem::error(section.key_span("stage"), message).label("no lines come then");
        section.doc().report(problem.help("accepted: \"open\", which is the default"));
    }
    let source = section.need("signal", "signal = \"app-log\"", |value| {
        let (doc, span) = (value.doc, value.span());
        let name = names.known(value)?;
        // One that cannot be used was reported where it stands.
        let signal = signals.iter().find(|signal| signal.name == name)?;
        if let SignalSource::Log(source) = &signal.source {
            return Some(source.clone());
        }
        let problem = Problem::error(span, format!("the signal {} is not a log", quoted(&name)));
        doc.report(problem.label("not of kind `log`").help("accepted: the name of a [[signal]] with [signal.log]"));
        None
    });
    let ratio_below = section.need("ratio_below", "ratio_below = 0.01", |value| {
        let (doc, span) = (value.doc, value.span());
        let expected = "a share above 0 and up to 1, such as 0.01 for one line in a hundred";
        let ratio = value.number(expected)?;
        if ratio <= 0.0 || ratio > 1.0 {
            let problem = Problem::error(span, "`ratio_below` is out of range").label("out of range");
            doc.report(problem.help(format!("accepted: {expected}")));
            return None;
        }
        Some(ratio)
    });
    let within = section.or("for", seconds(30), |value| value.duration(BOUND));
    Some(CheckKind::ErrorLog { source: source?, ratio_below: ratio_below?, within })
}
