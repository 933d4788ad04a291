use std::collections::BTreeMap;

use super::*;

fn id(kind: ObjectKind, of: Option<&str>, name: &str) -> ObjectId {
    ObjectId { kind, schema: "public".to_owned(), of: of.map(str::to_owned), name: name.to_owned() }
}

fn numbered(kind: ObjectKind, of: Option<&str>, name: &str, oid: u32, place: i16) -> Object {
    Object { oid, place, ..Object::new(id(kind, of, name), "x") }
}

fn catalog(mut objects: Vec<Object>) -> Catalog {
    objects.sort_by(|a, b| a.id.cmp(&b.id));
    Catalog { objects }
}

#[test]
fn a_rename_is_one_difference_and_not_two() {
    let before = catalog(vec![
        numbered(ObjectKind::Table, None, "posts", 1, 0),
        numbered(ObjectKind::Column, Some("posts"), "id", 1, 1),
        numbered(ObjectKind::Table, None, "users", 2, 0),
        numbered(ObjectKind::Column, Some("users"), "name", 2, 1),
    ]);
    let after = catalog(vec![
        numbered(ObjectKind::Table, None, "articles", 1, 0),
        numbered(ObjectKind::Column, Some("articles"), "key", 1, 1),
        numbered(ObjectKind::Table, None, "users", 2, 0),
        numbered(ObjectKind::Column, Some("users"), "title", 2, 1),
    ]);
    let difference = before.difference(&after, &[]);
    let renamed: Vec<String> = difference.renamed.iter().map(|one| format!("{} > {}", one.from, one.to)).collect();
    assert_eq!(
        renamed,
        ["table public.posts > table public.articles", "column name of public.users > column title of public.users"]
    );
    assert!(difference.added.is_empty() && difference.removed.is_empty(), "{difference:?}");
    assert_eq!(difference.class(&[]).0, Class::Reversible);
    assert_eq!(difference.summary(), "1 table renamed, 1 column renamed");
}

#[test]
fn a_table_made_anew_under_its_old_name_is_another() {
    let before = catalog(vec![numbered(ObjectKind::Table, None, "posts", 1, 0)]);
    let after = catalog(vec![numbered(ObjectKind::Table, None, "posts", 7, 0)]);
    let difference = before.difference(&after, &[]);
    assert_eq!(difference.class(&[]).0, Class::Irreversible);
    // Swapped: the old one lives on beside it, and is no new table.
    let swapped = catalog(vec![
        numbered(ObjectKind::Table, None, "posts", 7, 0),
        numbered(ObjectKind::Table, None, "posts_old", 1, 0),
    ]);
    let difference = before.difference(&swapped, &[]);
    assert!(difference.added.is_empty() && difference.replaced.is_empty(), "{difference:?}");
    assert_eq!(difference.renamed.len(), 1);
}

#[test]
fn a_table_that_was_brought_back_is_the_one_it_was() {
    let column = |name, oid, place| numbered(ObjectKind::Column, Some("posts"), name, oid, place);
    let posts = |oid| numbered(ObjectKind::Table, None, "posts", oid, 0);
    // There was a column at place 2, which was dropped before.
    let objects = vec![posts(1), column("id", 1, 1), column("title", 1, 3), column("body", 1, 4)];
    let baseline = Baseline {
        format: Baseline::FORMAT,
        at: Timestamp::UNIX_EPOCH,
        server_version: String::new(),
        catalog: catalog(objects),
        counts: Vec::new(),
        identities: vec![TableIdentity { oid: 1, table: TableName::new("public", "posts") }],
        prints: Vec::new(),
    };
    let back = |oid| catalog(vec![posts(oid), column("id", oid, 1), column("title", oid, 2), column("body", oid, 3)]);
    let columns = [("id", 1), ("title", 2), ("body", 3)].map(|(name, place)| (name.to_owned(), place)).into();
    let restored = |number| Restored { was: 1, number, columns: BTreeMap::clone(&columns) };
    let known = baseline.with_restored(&[restored(7), restored(8)]);
    assert_eq!(known.catalog.difference(&back(8), &[]), Difference::default());
    assert_eq!(known.table_by_oid(8), Some(&TableName::new("public", "posts")));
    // Made anew once more, by somebody else.
    for other in [1, 7, 9] {
        assert_eq!(known.catalog.difference(&back(other), &[]).replaced.len(), 1, "{other}");
    }
    let renamed = catalog(vec![posts(8), column("id", 8, 1), column("name", 8, 2), column("body", 8, 3)]);
    let difference = known.catalog.difference(&renamed, &[]);
    assert_eq!((difference.renamed.len(), difference.added.len()), (1, 0), "{difference:?}");
    // Of columns whose places are not known nothing is guessed.
    let unknown = Restored { columns: BTreeMap::new(), ..restored(8) };
    let known = baseline.with_restored(&[unknown]);
    assert_eq!(known.catalog.difference(&back(8), &[]), Difference::default());
    assert_eq!(known.catalog.difference(&renamed, &[]).summary(), "1 column added, 1 column removed");
}

#[test]
fn the_class_follows_from_what_is_lost() {
    let table = || numbered(ObjectKind::Table, None, "posts", 1, 0);
    let column = || numbered(ObjectKind::Column, Some("posts"), "body", 1, 2);
    let before = catalog(vec![table(), column()]);
    let page = TableName::new("public", "pages");
    let class = |after: Vec<Object>, rows: &[RowCount]| before.difference(&catalog(after), &[]).class(rows);
    let pages = || numbered(ObjectKind::Table, None, "pages", 2, 0);
    let rows = |rows| [RowCount { table: page.clone(), rows }];
    assert_eq!(class(vec![table(), column(), pages()], &rows(0)), (Class::Reversible, vec![]));
    let lossy = class(vec![table(), column(), pages()], &rows(3));
    assert_eq!(lossy, (Class::Lossy, vec!["3 rows of new table public.pages".to_owned()]));
    assert_eq!(class(vec![table(), column(), pages()], &[]).0, Class::Lossy, "not counted is not empty");
    let more = numbered(ObjectKind::Column, Some("posts"), "more", 1, 3);
    assert_eq!(class(vec![table(), column(), more], &[]).0, Class::Lossy);
    assert_eq!(class(vec![table()], &[]).0, Class::Irreversible);
    assert_eq!(class(vec![], &[]).0, Class::Irreversible);
    let rewritten = Object { definition: "bigint".to_owned(), ..column() };
    let (class, words) = class(vec![table(), rewritten], &[]);
    assert_eq!(class, Class::Irreversible);
    assert_eq!(words, ["column body of public.posts was rewritten: it was x, and is bigint"]);
}

#[test]
fn an_enum_with_more_values_is_no_difference_and_one_with_fewer_is() {
    let mood = |values: &str| catalog(vec![Object::new(id(ObjectKind::Type, None, "mood"), format!("enum {values}"))]);
    let before = mood("'sad', 'ok'");
    assert!(before.difference(&mood("'sad', 'so so', 'ok', 'glad'"), &[]).is_empty());
    assert_eq!(before.difference(&mood("'ok', 'sad'"), &[]).changed.len(), 1);
    assert_eq!(before.difference(&mood("'sad'"), &[]).changed.len(), 1);
}

#[test]
fn what_belongs_to_something_new_is_not_listed() {
    let before = catalog(vec![numbered(ObjectKind::Table, None, "posts", 1, 0)]);
    let after = catalog(vec![
        numbered(ObjectKind::Table, None, "posts", 1, 0),
        numbered(ObjectKind::Column, Some("posts"), "more", 1, 3),
        Object::new(id(ObjectKind::Default, Some("posts"), "more"), "0"),
        Object::new(id(ObjectKind::NotNull, Some("posts"), "more"), ""),
        numbered(ObjectKind::Function, None, "f()", 9, 0),
        Object::new(id(ObjectKind::Grant, Some("f()"), "to anon"), ""),
    ]);
    assert_eq!(before.difference(&after, &[]).summary(), "1 column added, 1 function added");
}
