use rollbackd_core::baseline::{ObjectId, ObjectKind, TableName};

use super::*;
use crate::postgres::removal::preview::LiveKey;
use crate::preview::{Compared, Gone, How, ObjectDifference};

fn at(time: &str) -> jiff::Timestamp {
    format!("2026-11-22T{time}Z").parse().expect("a time")
}

fn object(how: How, kind: ObjectKind, of: Option<&str>, name: &str) -> ObjectDifference {
    let id = ObjectId { kind, schema: "public".to_owned(), of: of.map(str::to_owned), name: name.to_owned() };
    ObjectDifference { how, words: id.to_string(), id, before: None, after: None }
}

fn rung(kind: &'static str, would: Would, does: &str) -> Rung {
    Rung {
        kind,
        would,
        needs_approval: false,
        does: does.to_owned(),
        stops: Vec::new(),
        notes: Vec::new(),
        tables: Vec::new(),
        archives: false,
        sql: Vec::new(),
    }
}

fn counted_rows(name: &str, added: bool, before: Option<u64>, now: u64) -> Rows {
    let signed = |rows: u64| i64::try_from(rows).expect("small");
    let written = Some(signed(now) - signed(before.unwrap_or(0)));
    Rows { table: TableName::new("public", name), added, before, now: Some(now), written, not_counted: None }
}

fn clean_preview() -> Preview {
    Preview {
        plan: "shop".to_owned(),
        at: at("02:10:00"),
        baseline: Compared {
            source: "the baseline of window shop-20261122T020000Z, which is open".to_owned(),
            at: at("02:00:05"),
            window: Some("shop-20261122T020000Z".to_owned()),
        },
        class: Class::Reversible,
        class_reasons: Vec::new(),
        summary: "nothing differs from the baseline".to_owned(),
        rungs: vec![rung("tables", Would::Nothing, "takes the tables that are new")],
        objects: Vec::new(),
        collateral: Vec::new(),
        foreign_keys: Vec::new(),
        rows_written: vec![counted_rows("posts", false, Some(20), 20)],
        blockers: Vec::new(),
        sql_of_rung: None,
        sql: Vec::new(),
    }
}

fn busy_preview() -> Preview {
    let mut stopped = rung("reverse", Would::Stop, "puts the whole catalog back to the baseline");
    stopped.stops = vec!["column body of public.posts was dropped".to_owned()];
    stopped.needs_approval = true;
    let gone = |fate, words: &str| Gone { fate, words: words.to_owned() };
    let many: Vec<ObjectDifference> =
        (1..=40).map(|n| object(How::Added, ObjectKind::Table, None, &format!("part_{n}"))).collect();
    let mut locked = counted_rows("huge", false, Some(1_000_000), 0);
    (locked.now, locked.written, locked.not_counted) = (None, None, Some("it takes longer than 5 seconds".to_owned()));
    Preview {
        class: Class::Irreversible,
        class_reasons: vec!["column body of public.posts was dropped".to_owned()],
        summary: "41 tables added, 1 view changed".to_owned(),
        rungs: vec![
            rung(
                "script",
                Would::Act,
                "runs `node scripts/rollback-emergency.js`; what that did is read from the catalog afterwards",
            ),
            rung(
                "tables",
                Would::Act,
                "takes the tables that are new: moves 41 tables with all rows into the schema rollbackd_20261122t020000z; puts back 1 object as the baseline has it",
            ),
            stopped,
        ],
        objects: [
            object(How::Changed, ObjectKind::View, None, "recent"),
            object(How::Removed, ObjectKind::Column, Some("posts"), "body"),
        ]
        .into_iter()
        .chain(many)
        .collect(),
        collateral: vec![
            gone(Fate::Goes, "policy \"with pages\" on table posts"),
            gone(Fate::PutBack, "put back view public.recent"),
        ],
        foreign_keys: vec![LiveKey {
            name: "pages_author_fkey".to_owned(),
            table: "public.pages".to_owned(),
            parent: "auth.users".to_owned(),
            on_delete: "cascade".to_owned(),
        }],
        rows_written: vec![
            counted_rows("part_1", true, None, 1204),
            counted_rows("posts", false, Some(20), 18),
            counted_rows("comments", false, Some(60), 60),
            locked,
        ],
        blockers: vec![Blocker {
            pid: Some(4711),
            prepared: None,
            application: "psql\u{1b}[2J".to_owned(),
            role: "shop".to_owned(),
            state: "idle in transaction".to_owned(),
            since: at("02:09:12"),
            mode: Some("AccessShareLock".to_owned()),
            tables: vec!["public.pages".to_owned()],
            pg_dump: false,
        }],
        sql_of_rung: Some(2),
        sql: [
            "-- What rung 2 would do.",
            "begin;",
            "alter table \"public\".\"pages\" set schema \"rollbackd_20261122t020000z\";",
            "commit;",
        ]
        .map(str::to_owned)
        .into(),
        ..clean_preview()
    }
}

#[test]
fn a_clean_database_is_said_in_a_line() {
    insta::assert_snapshot!(of(&clean_preview(), Paint::none()));
    assert_eq!(sql(&clean_preview()), "-- No rung has statements to run.\n");
}

#[test]
fn a_migration_is_told_whole_and_in_80_columns() {
    let text = of(&busy_preview(), Paint::none());
    insta::assert_snapshot!(text);
    let (told, _) = text.split_once("\nSQL of rung").expect("statements come last");
    assert!(told.lines().all(|line| line.chars().count() <= WIDTH), "{told}");
    assert!(!text.contains('\u{1b}'), "nothing that a terminal would obey");
}

#[test]
fn numbers_have_their_thousands_apart() {
    assert_eq!([0, 12, 1204, 1_000_000].map(grouped), ["0", "12", "1,204", "1,000,000"]);
}
