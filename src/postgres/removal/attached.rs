//! What of the migration belongs to a removal although the server does not know that it depends on the tables.
//!
//! The bodies of functions are text to the server: a trigger function that names a removed table stays, and fails when it
//! runs. So texts are searched for the tables' names. A name may be found that means something else; then something
//! of the migration goes that could have stayed, and nothing from before it is harmed.

use std::collections::BTreeSet;

use rollbackd_core::baseline::{Catalog, Difference, ObjectId, ObjectKind, take_quoted};
use rollbackd_core::plan::Reach;

/// The objects that go, or are put back, with tables of these names; nothing when everything does.
pub(super) fn with(
    names: &BTreeSet<String>,
    difference: &Difference,
    before: &Catalog,
    baseline: &Catalog,
    reach: Reach,
) -> Option<BTreeSet<ObjectId>> {
    let all = match reach {
        Reach::Everything => return None,
        Reach::Attached => true,
        Reach::Related => false,
    };
    let mut taken = BTreeSet::new();
    let changed = difference.changed.iter().map(|change| &change.id);
    for id in difference.added.iter().chain(changed).filter(|id| id.kind == ObjectKind::Function) {
        if text(before, id).is_some_and(|text| mentions(text, names)) {
            taken.insert(id.clone());
        }
    }
    // Parts of what stays: of what is new the server knows all that belongs to it.
    let parts = difference.added.iter().filter(|id| {
        matches!(id.kind, ObjectKind::Trigger | ObjectKind::Policy | ObjectKind::Rule) && is_from_before(id, baseline)
    });
    for id in parts {
        let used = functions_of(text(before, id).unwrap_or_default(), difference);
        if all || used.iter().any(|function| taken.contains(function)) {
            taken.insert(id.clone());
            taken.extend(used);
        }
    }
    Some(taken)
}

fn is_from_before(part: &ObjectId, baseline: &Catalog) -> bool {
    let kinds = [ObjectKind::Table, ObjectKind::ForeignTable, ObjectKind::View, ObjectKind::MaterializedView];
    part.of.as_ref().is_some_and(|of| {
        kinds
            .into_iter()
            .any(|kind| baseline.contains(&ObjectId { kind, schema: part.schema.clone(), of: None, name: of.clone() }))
    })
}

fn text<'a>(catalog: &'a Catalog, id: &ObjectId) -> Option<&'a str> {
    catalog.get(id).map(|object| object.definition.as_str())
}

/// The added functions that a trigger's text calls.
fn functions_of(text: &str, difference: &Difference) -> Vec<ObjectId> {
    let words: BTreeSet<String> = words(text).collect();
    let functions = difference.added.iter().filter(|id| id.kind == ObjectKind::Function);
    functions.filter(|id| id.name.split_once('(').is_some_and(|(name, _)| words.contains(name))).cloned().collect()
}

/// Whether one of the names is a word of the text.
pub(crate) fn mentions(text: &str, names: &BTreeSet<String>) -> bool {
    words(text).any(|word| names.contains(&word))
}

/// The names in a text of SQL: words without quotes in lower case, and what stands in double quotes.
fn words(text: &str) -> impl Iterator<Item = String> + '_ {
    let mut rest = text;
    std::iter::from_fn(move || {
        loop {
            let start = rest.find(|c: char| c == '"' || c == '_' || c.is_alphabetic())?;
            rest = rest.get(start..)?;
            if let Some(quoted) = rest.strip_prefix('"') {
                let Some((name, after)) = take_quoted(quoted) else {
                    rest = quoted;
                    continue;
                };
                rest = after;
                return Some(name);
            }
            let end = rest.find(|c: char| !(c == '_' || c == '$' || c.is_alphanumeric())).unwrap_or(rest.len());
            let (word, after) = rest.split_at(end);
            rest = after;
            return Some(word.to_lowercase());
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn names_are_found_as_words_and_not_inside_others() {
        let body = r#"begin insert into Pages (a) select "Order", "a""b" from public.content_blocks; end"#;
        for (name, found) in [
            ("pages", true),
            ("Order", true),
            ("a\"b", true),
            ("content_blocks", true),
            ("content", false),
            ("order", false),
            ("page", false),
        ] {
            assert_eq!(mentions(body, &set(&[name])), found, "{name}");
        }
        assert!(mentions("an \" open quote and pages", &set(&["pages"])));
    }
}
