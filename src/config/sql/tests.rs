//! What is one statement, and what cannot be run.

use proptest::prelude::*;

use super::*;

#[track_caller]
fn split(text: &str) -> Vec<(usize, String)> {
    let script = Script::read(text).unwrap_or_else(|refusals| panic!("{refusals:?} in:\n{text}"));
    script.statements().map(|statement| (statement.line, statement.text.to_owned())).collect()
}

#[track_caller]
fn is_one(text: &str) {
    let statements = split(text);
    assert_eq!(statements.len(), 1, "{statements:?}");
}

/// Line and text of each refusal.
#[track_caller]
fn refused(text: &str) -> Vec<(usize, String)> {
    let refusals = Script::read(text).expect_err(text);
    refusals.into_iter().map(|refusal| (refusal.line, refusal.text)).collect()
}

#[test]
fn statements_are_split_where_they_end() {
    let text =
        "\u{feff}-- the views first;\ndrop view a;\n\n/* b; */ drop table\n  b ; ; drop table \"c;\" -- the end;";
    let wanted = [(2, "drop view a"), (4, "drop table\n  b"), (5, "drop table \"c;\"")];
    assert_eq!(split(text), wanted.map(|(line, text)| (line, text.to_owned())));
}

#[test]
fn what_is_quoted_is_no_statement() {
    for text in [
        "do $$ begin commit; end $$",
        "do $body$ begin perform $$;$$; commit; end $body$;",
        "do language plpgsql $_ä1$ begin rollback; end $_ä1$",
        "select 'it''s; commit;'",
        r"select E'it\'s; commit;', e'\\'",
        "select E'a' -- and on\n '\\'; commit;'",
        "select U&'\\0441; commit;', b'1', n';'",
        "select 'a\\', '; commit;'",
        "select \"commit;\"\"commit;\" from t",
        "select 1 /* ; commit; /* ; commit; */ ; commit; */",
        "select 1 --; commit;\r+ 1",
        "select a$1$b, $1",
        "select e'' ';'",
    ] {
        is_one(text);
    }
}

#[test]
fn comments_and_strings_end_where_the_server_ends_them() {
    assert_eq!(refused("select 1 /* /* */ */; commit"), [(1, "commit".to_owned())]);
    assert_eq!(refused("-- a comment\rcommit"), [(1, "commit".to_owned())], "a carriage return ends it");
    assert_eq!(refused("select 'a\\'; commit"), [(1, "commit".to_owned())], "no escape in a plain string");
    let name = refused("select a$b$; commit; select $b$");
    assert_eq!(name[0], (1, "commit".to_owned()), "a dollar in a name begins no text");
}

#[test]
fn bodies_of_sql_functions_are_no_statements() {
    is_one("create function f(n int) returns int begin atomic select case when n > 1 then 1 end; select 2; end;");
    is_one("create or replace procedure p() language sql BEGIN ATOMIC insert into t values (1); END");
    is_one("create rule r as on insert to t do also (delete from a; delete from b)");
    assert_eq!(split("create function f() returns int begin atomic select 1; end; drop table a").len(), 2);
    assert_eq!(
        refused("create function f() returns int begin atomic select 1; end; commit"),
        [(1, "commit".to_owned())]
    );
}

#[test]
fn transaction_control_of_its_own_is_refused_with_its_line() {
    assert_eq!(
        refused("BEGIN;\ndrop table a;\nCOMMIT WORK;\n"),
        [(1, "BEGIN".to_owned()), (3, "COMMIT WORK".to_owned())]
    );
    for text in [
        "end",
        "abort",
        "rollback",
        "rollback and chain",
        "start transaction isolation level serializable",
        "begin read only",
        "prepare transaction 'x'",
        "commit prepared 'x'",
        "rollback prepared 'x'",
        "set transaction read only",
        "set session characteristics as transaction read only",
        "/* now */ commit -- done",
    ] {
        assert_eq!(refused(text).len(), 1, "{text}");
    }
    for text in [
        "savepoint a",
        "release savepoint a",
        "rollback to a",
        "rollback work to savepoint a",
        "prepare q as select 1",
        "set local lock_timeout = '1s'",
        "set role shop",
        "lock table a",
        "notify pgrst, 'reload schema'",
        "(select 1)",
    ] {
        is_one(text);
    }
}

#[test]
fn what_the_server_does_not_run_in_a_transaction_is_refused() {
    for text in [
        "vacuum",
        "VACUUM (full) posts",
        "create database x",
        "drop database x",
        "alter database x set tablespace y",
        "create tablespace x location '/x'",
        "alter system set work_mem = '1MB'",
        "create index concurrently on posts (id)",
        "create unique index concurrently i on posts (id)",
        "drop index concurrently i",
        "reindex (concurrently) table posts",
        "reindex database x",
        "alter table a detach partition b concurrently",
        "cluster",
        "cluster verbose",
        "discard all",
        "set standard_conforming_strings = off",
    ] {
        assert_eq!(refused(text).len(), 1, "{text}");
    }
    for text in [
        "refresh materialized view concurrently m",
        "alter database x set work_mem = '1MB'",
        "create index on posts (id)",
        "cluster posts",
        "cluster \"Posts\"",
        "reindex table posts",
        "alter type mood add value 'glad'",
        "set standard_conforming_strings = on",
        "discard temp",
    ] {
        is_one(text);
    }
}

#[test]
fn what_only_psql_understands_is_refused() {
    assert_eq!(refused("drop table a;\n\\i more.sql\ndrop table b;"), [(2, "\\i more.sql".to_owned())]);
    assert_eq!(refused("\\set x 'commit\n\nbegin;"), [(1, "\\set x 'commit".to_owned())]);
    assert_eq!(refused("drop table :name;"), [(1, ":name".to_owned())]);
    assert_eq!(refused("select :'name'"), [(1, ":'name'".to_owned())]);
    let rows = "select 1;\ncopy posts (id, \"t\") from stdin;\n1\tit's; commit;\n\\.\ncommit;";
    assert_eq!(refused(rows), [(2, "copy posts (id, \"t\") from stdin".to_owned())]);
    assert_eq!(refused("copy (select 1) to stdout").len(), 1);
    is_one("copy posts from '/tmp/posts'");
    is_one("select a::text, b[1:n], f(x := 1), json_object('a' : b)");
}

#[test]
fn what_does_not_end_or_says_nothing_is_refused() {
    for (text, shown) in [
        ("drop table a; select 'x;\n", "'x;"),
        ("drop table a; select \"x;\n", "\"x;"),
        ("drop table a; do $x$ begin $y$", "$x$ begin $y$"),
        ("drop table a; /* /* */", "/* /* */"),
        ("drop table a\0", ""),
        (" -- nothing\n;;", ""),
        ("", ""),
    ] {
        assert_eq!(refused(text), [(1, shown.to_owned())], "{text:?}");
    }
}

#[test]
fn what_it_holds_is_not_shown() {
    let script = Script::read("alter role app password 'sesame'").unwrap();
    assert_eq!(format!("{script:?}"), "Script { statements: 1, .. }");
}

proptest! {
    #[test]
    fn no_text_is_too_much(pieces in proptest::collection::vec(piece(), 0..30)) {
        let text = pieces.concat();
        if let Ok(script) = Script::read(&text) {
            for statement in script.statements() {
                prop_assert!(!statement.text.trim().is_empty());
                prop_assert!(text.contains(statement.text));
                let first = statement.text.split(|c: char| !c.is_alphanumeric() && !matches!(c, '_' | '$')).next().unwrap_or_default();
                prop_assert!(!first.eq_ignore_ascii_case("commit"), "{}", statement.text);
            }
        }
    }
}

fn piece() -> impl Strategy<Value = String> {
    let words = [
        "'",
        "\"",
        "$$",
        "$a$",
        "E'",
        "--",
        "/*",
        "*/",
        "\n",
        "\r",
        ";",
        "commit",
        "begin atomic",
        "create function",
        "end",
        "case",
        "(",
        ")",
        "[",
        "\\",
        ":",
        "ä",
        "select 1",
        " ",
    ];
    prop_oneof![8 => proptest::sample::select(words.to_vec()).prop_map(str::to_owned), 1 => any::<String>()]
}
