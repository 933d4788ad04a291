//! The catalog that a restore ends with: what belongs to the restored tables or stands on them is the baseline's, the rest
//! as it is now.

use std::collections::BTreeSet;

use rollbackd_core::baseline::{Catalog, Object, ObjectKind, TableName};

use crate::postgres::removal::attached::mentions;

/// Puts the catalog together. What stands on a table is found by its name in the texts: of what is gone, the server
/// knows nothing any more.
pub(super) fn of(baseline: &Catalog, now: &Catalog, tables: &[TableName]) -> Catalog {
    let is_restored = |object: &Object| {
        let whole = object.id.of.as_ref().unwrap_or(&object.id.name);
        let tables = tables.iter().any(|table| table.schema == object.id.schema && table.name == *whole);
        // A function's grants are named after it, and may have a table's name only with its arguments.
        tables && (object.id.of.is_some() || object.id.kind.is_table())
    };
    let mut objects: Vec<Object> = baseline.objects.iter().filter(|object| is_restored(object)).cloned().collect();
    let standing = standing(baseline, now, tables);
    objects.extend(baseline.objects.iter().filter(|object| !is_restored(object) && standing.contains(object)).cloned());
    // They get new numbers: what had the old ones is in the quarantine.
    for object in &mut objects {
        object.oid = 0;
    }
    let known: BTreeSet<_> = objects.iter().map(|object| object.id.clone()).collect();
    let rest = now.objects.iter().filter(|object| !is_restored(object) && !known.contains(&object.id));
    objects.extend(rest.cloned());
    objects.sort_by(|a, b| a.id.cmp(&b.id));
    Catalog { objects }
}

/// The objects of the baseline that stand on the tables, directly or through views, and what belongs to them.
fn standing<'a>(baseline: &'a Catalog, now: &Catalog, tables: &[TableName]) -> Vec<&'a Object> {
    let mut names: BTreeSet<String> = tables.iter().map(|table| table.name.clone()).collect();
    let by_itself = |object: &Object| object.id.of.is_none();
    let may_stand = |object: &&Object| match object.id.kind {
        ObjectKind::View | ObjectKind::MaterializedView | ObjectKind::Function | ObjectKind::Sequence => true,
        // Of a table whose columns are gone as well nothing can be made.
        ObjectKind::Constraint | ObjectKind::Policy | ObjectKind::Trigger | ObjectKind::Rule | ObjectKind::Default => {
            object.id.of.as_ref().is_some_and(|of| now.has_table(&TableName::new(&object.id.schema, of)))
        }
        ObjectKind::Publication
        | ObjectKind::PublicationTable
        | ObjectKind::Table
        | ObjectKind::ForeignTable
        | ObjectKind::Column
        | ObjectKind::Index
        | ObjectKind::Type
        | ObjectKind::Schema
        | ObjectKind::Extension
        | ObjectKind::NotNull
        | ObjectKind::RowSecurity
        | ObjectKind::Statistics
        | ObjectKind::Grant
        | ObjectKind::DefaultGrant
        | ObjectKind::Owner
        | ObjectKind::Comment
        | ObjectKind::EventTrigger => false,
    };
    let mut found: Vec<&Object> = Vec::new();
    loop {
        let more: Vec<&Object> = baseline
            .objects
            .iter()
            .filter(may_stand)
            .filter(|object| !found.contains(object) && mentions(&object.definition, &names))
            .collect();
        if more.is_empty() {
            break;
        }
        let views = more.iter().filter(|one| {
            matches!(one.id.kind, ObjectKind::View | ObjectKind::MaterializedView | ObjectKind::Function)
        });
        names.extend(views.map(|view| view.id.name.split('(').next().unwrap_or_default().to_owned()));
        found.extend(more);
    }
    let wholes: Vec<(String, String)> =
        found.iter().filter(|one| by_itself(one)).map(|one| (one.id.schema.clone(), one.id.name.clone())).collect();
    let parts = baseline.objects.iter().filter(|part| {
        part.id
            .of
            .as_ref()
            .is_some_and(|of| wholes.iter().any(|(schema, name)| *schema == part.id.schema && name == of))
    });
    let parts: Vec<&Object> = parts.filter(|part| !found.contains(part)).collect();
    found.extend(parts);
    found
}

#[cfg(test)]
mod tests {
    use rollbackd_core::baseline::ObjectId;

    use super::*;

    fn object(kind: ObjectKind, of: Option<&str>, name: &str, definition: &str) -> Object {
        let (schema, of, name) = ("public".to_owned(), of.map(str::to_owned), name.to_owned());
        Object { oid: 7, ..Object::new(ObjectId { kind, schema, of, name }, definition) }
    }

    fn catalog(mut objects: Vec<Object>) -> Catalog {
        objects.sort_by(|a, b| a.id.cmp(&b.id));
        Catalog { objects }
    }

    #[test]
    fn the_tables_and_what_stands_on_them_are_the_baselines_and_the_rest_is_as_it_is() {
        let table = |name| object(ObjectKind::Table, None, name, "logged");
        let key =
            object(ObjectKind::Constraint, Some("comments"), "key", "FOREIGN KEY (post) REFERENCES public.posts(id)");
        let view = object(ObjectKind::View, None, "recent", "select id from public.posts");
        let outer = object(ObjectKind::View, None, "outer", "select id from public.recent");
        let grant = object(ObjectKind::Grant, Some("outer"), "to anon", "select");
        let other = object(ObjectKind::View, None, "other", "select 1");
        let body = object(ObjectKind::Column, Some("posts"), "body", "text");
        let baseline = catalog(vec![table("posts"), table("comments"), body, key, view, outer, grant, other.clone()]);
        let redefined = object(ObjectKind::View, None, "other", "select 2");
        let extra = object(ObjectKind::Column, Some("posts"), "extra", "text");
        let now = catalog(vec![table("posts"), table("comments"), table("pages"), extra, redefined.clone()]);
        let target = of(&baseline, &now, &[TableName::new("public", "posts")]);
        let names: Vec<String> = target.objects.iter().map(|object| object.id.to_string()).collect();
        assert_eq!(
            names,
            [
                "table public.comments",
                "table public.pages",
                "table public.posts",
                "view public.other",
                "view public.outer",
                "view public.recent",
                "column body of public.posts",
                "constraint key of public.comments",
                "grant to anon of public.outer",
            ]
        );
        assert_eq!(target.get(&redefined.id), Some(&redefined));
        assert!(target.objects.iter().find(|one| one.id.name == "posts").is_some_and(|one| one.oid == 0));
    }
}
