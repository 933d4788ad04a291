use super::*;

fn id(kind: ObjectKind, of: Option<&str>, name: &str) -> ObjectId {
    ObjectId { kind, schema: "public".to_owned(), of: of.map(str::to_owned), name: name.to_owned() }
}

fn object(kind: ObjectKind, of: Option<&str>, name: &str, definition: &str) -> Object {
    let unmake = (kind != ObjectKind::Owner).then(|| format!("drop {} {name}", kind.words()));
    Object {
        make: Some(vec![format!("make {name} {definition}")]),
        unmake,
        ..Object::new(id(kind, of, name), definition)
    }
}

fn table(name: &str, oid: u32) -> Object {
    Object { oid, make: Some(Vec::new()), ..Object::new(id(ObjectKind::Table, None, name), "logged") }
}

fn column(of: &str, name: &str, oid: u32, place: i16) -> Object {
    Object { oid, place, ..object(ObjectKind::Column, Some(of), name, "integer") }
}

fn catalog(mut objects: Vec<Object>) -> Catalog {
    objects.sort_by(|a, b| a.id.cmp(&b.id));
    Catalog { objects }
}

fn words(found: &Reversal) -> Vec<String> {
    found.acts.iter().map(Act::words).collect()
}

fn all(target: Vec<Object>, now: Vec<Object>) -> Reversal {
    reversal(&catalog(target), &catalog(now), &[], Reach::Everything)
}

#[test]
fn equal_catalogs_need_nothing() {
    let same = || vec![table("posts", 1), object(ObjectKind::View, None, "recent", "1")];
    assert_eq!(all(same(), same()), Reversal::default());
}

#[test]
fn what_was_added_goes_before_what_is_missing_is_made_and_tables_are_left_to_others() {
    let found = all(
        vec![
            table("posts", 1),
            object(ObjectKind::View, None, "recent", "1"),
            object(ObjectKind::Function, None, "f()", "1"),
            object(ObjectKind::Grant, Some("posts"), "to anon", "select"),
        ],
        vec![
            table("posts", 1),
            table("pages", 2),
            object(ObjectKind::Trigger, Some("posts"), "t", "1"),
            object(ObjectKind::Function, None, "touch()", "1"),
            object(ObjectKind::Function, None, "f()", "2"),
            object(ObjectKind::Type, None, "mood", "1"),
        ],
    );
    assert_eq!(
        words(&found),
        [
            "take away trigger t of public.posts",
            "take away function public.touch()",
            "put back function public.f()",
            "take away type public.mood",
            "make again view public.recent",
            "make again grant to anon of public.posts",
        ]
    );
    assert!(found.obstacles.is_empty() && found.columns.is_empty());
    let replaced = found.acts.iter().find(|act| act.deed == Deed::PutBack).expect("the function");
    assert_eq!(replaced.otherwise, ["drop function f()", "make f() 1"]);
}

#[test]
fn names_come_first_and_a_name_that_is_taken_is_an_obstacle() {
    let target = || vec![table("posts", 1), column("posts", "body", 1, 1), object(ObjectKind::View, None, "v", "1")];
    let found = all(target(), vec![table("pages", 1), column("pages", "text", 1, 1)]);
    assert_eq!(found.acts.len(), 1, "{found:?}");
    assert_eq!(found.acts[0].sql, ["alter table \"public\".\"pages\" rename to \"posts\""]);
    let found = all(target(), vec![table("posts", 1), column("posts", "text", 1, 1)]);
    assert_eq!(found.acts[0].sql, ["alter table \"public\".\"posts\" rename column \"text\" to \"body\""]);
    let found = all(target(), vec![table("posts", 2), table("old", 1)]);
    assert_eq!(found.obstacles[0], "table public.posts is called old now, and another one has its name");
}

#[test]
fn what_only_a_restore_brings_back_stops_everything() {
    let target = || vec![table("posts", 1), column("posts", "body", 1, 1)];
    for (now, obstacle) in [
        (vec![table("posts", 1)], "column body of public.posts was dropped"),
        (vec![], "table public.posts was dropped"),
        (vec![table("posts", 3), column("posts", "body", 3, 1)], "table public.posts was dropped and made anew"),
    ] {
        assert_eq!(all(target(), now).obstacles, [obstacle]);
    }
    let unlogged = Object { definition: "unlogged".to_owned(), ..table("posts", 1) };
    let found = all(target(), vec![unlogged, column("posts", "body", 1, 1)]);
    assert!(found.obstacles[0].starts_with("table public.posts was changed, and cannot be put back"), "{found:?}");
}

#[test]
fn columns_are_to_be_kept_first_and_a_narrow_reach_leaves_the_rest() {
    let target = vec![table("posts", 1), object(ObjectKind::View, None, "v", "1")];
    let now = vec![
        table("posts", 1),
        column("posts", "more", 1, 2),
        object(ObjectKind::View, None, "v", "2"),
        object(ObjectKind::Function, None, "f()", "1"),
    ];
    let found = all(target.clone(), now.clone());
    assert_eq!(found.columns, [id(ObjectKind::Column, Some("posts"), "more")]);
    assert_eq!(words(&found), ["put back view public.v", "take away function public.f()"]);
    let only = BTreeSet::from([id(ObjectKind::View, None, "v")]);
    let found = reversal(&catalog(target), &catalog(now), &[], Reach::Only(&only));
    assert_eq!(words(&found), ["put back view public.v"]);
    assert!(found.columns.is_empty());
}

#[test]
fn an_owner_is_said_again_and_protected_schemas_are_left_alone() {
    let target = vec![object(ObjectKind::Owner, Some("posts"), "owner", "a")];
    let now = vec![object(ObjectKind::Owner, Some("posts"), "owner", "b"), object(ObjectKind::View, None, "v", "1")];
    let (target, now) = (catalog(target), catalog(now));
    let found = reversal(&target, &now, &[], Reach::Everything);
    assert_eq!(found.acts.iter().flat_map(|act| &act.sql).collect::<Vec<_>>(), ["drop view v", "make owner a"]);
    assert_eq!(reversal(&target, &now, &["public".to_owned()], Reach::Everything), Reversal::default());
}
