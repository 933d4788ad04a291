//! `[[rule]]`: conditions on signals and what follows from them.

use std::time::Duration;

use rollbackd_core::plan::Consequence;

use super::condition;
use super::cross::Names;
use super::model::{Rule, Signal};
use super::problem::Problem;
use super::section::Section;
use super::value::Value;

/// What was read of all rules.
pub(super) struct Rules {
    /// Those that can be used.
    pub(super) usable: Vec<Rule>,
    /// How many lead to a rollback, those included that cannot be read.
    pub(super) rollback: usize,
}

/// What rules refer to.
struct Whole<'a> {
    names: &'a Names,
    signals: &'a [Signal],
    window: Duration,
}

/// Reads every `[[rule]]`.
pub(super) fn read(sections: Vec<Section<'_>>, names: &Names, signals: &[Signal], window: Duration) -> Rules {
    let whole = Whole { names, signals, window };
    let mut own = Names::of("rule");
    let mut rules = Rules { usable: Vec::new(), rollback: 0 };
    for section in sections {
        let (then, rule) = rule(section, &mut own, &whole);
        // A `then` that cannot be read may have been meant so.
        rules.rollback += usize::from(then.is_none_or(|then| then == Consequence::Rollback));
        rules.usable.extend(rule);
    }
    rules
}

fn rule(mut section: Section<'_>, own: &mut Names, whole: &Whole<'_>) -> (Option<Consequence>, Option<Rule>) {
    let name = section.need("name", "name = \"api is down\"", |value| own.take(value));
    let pooled = match section.one_of("signal", &["signal", "signals"], &[]) {
        Some("signal") => section.maybe("signal", |value| whole.names.known(value)).map(|name| vec![name]),
        Some("signals") => section.maybe("signals", |value| several(value, whole.names)),
        Some(_) | None => None,
    };
    let kind = section.one_of("condition", &condition::KINDS, &[]);
    let known = |pooled: &Vec<String>| {
        let signal = |name: &String| whole.signals.iter().find(|signal| signal.name == *name);
        pooled.iter().map(signal).collect::<Option<Vec<_>>>()
    };
    let ground = condition::Ground { signals: pooled.as_ref().and_then(known), window: whole.window };
    let condition = condition::read(&mut section, kind, &ground);
    let then = section.need("then", "then = \"rollback\"", |value| {
        let words = [("rollback", Consequence::Rollback), ("page", Consequence::Page), ("freeze", Consequence::Freeze)];
        value.choice(&words, &[])
    });
    section.finish();
    let rule = (|| Some(Rule { name: name?, signals: pooled?, condition: condition?, then: then? }))();
    (then, rule)
}

fn several(value: Value<'_>, names: &Names) -> Option<Vec<String>> {
    let (doc, span) = (value.doc, value.span());
    let list = value.list("a list of signal names")?;
    let written = list.len();
    let mut pooled: Vec<String> = list.into_iter().filter_map(|value| names.known(value)).collect();
    pooled.sort();
    pooled.dedup();
    if written == 0 {
        doc.report(Problem::error(span, "a rule needs a signal").label("empty").help("name at least one signal"));
    }
    (!pooled.is_empty()).then_some(pooled)
}
