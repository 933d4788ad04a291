//! Cuts a file of SQL into its statements, and finds the ones that a restore needs in a dump of the structure.

use rollbackd_core::baseline::TableName;

use crate::postgres::readback::first_name;

/// The statements of a text, without comments before them. Lines that only psql understands are left out.
pub(super) fn split(text: &str) -> Vec<String> {
    let text: String = text.split_inclusive('\n').filter(|line| !line.starts_with('\\')).collect();
    let mut found = Vec::new();
    let mut statement = String::new();
    let mut rest = text.as_str();
    while let Some(first) = rest.chars().next() {
        let token = token(rest, first);
        let (part, after) = rest.split_at_checked(token).unwrap_or((rest, ""));
        rest = after;
        let comment = part.starts_with("--") || part.starts_with("/*");
        if part == ";" {
            keep(&mut found, &mut statement);
        } else if !comment || !statement.trim().is_empty() {
            statement.push_str(part);
        }
    }
    keep(&mut found, &mut statement);
    found
}

fn keep(found: &mut Vec<String>, statement: &mut String) {
    let text = std::mem::take(statement);
    if !text.trim().is_empty() {
        found.push(text.trim().to_owned());
    }
}

/// The length of what a text begins with: something in quotes, a comment, a word, or one character.
fn token(rest: &str, first: char) -> usize {
    let behind = |end: Option<usize>, more: usize| end.map_or(rest.len(), |end| end + more);
    match first {
        '\'' | '"' => quoted(rest, first, false),
        'E' | 'e' if rest.get(1..2) == Some("'") => 1 + quoted(rest.get(1..).unwrap_or_default(), '\'', true),
        '-' if rest.starts_with("--") => behind(rest.find('\n'), 1),
        '/' if rest.starts_with("/*") => comment(rest),
        '$' => {
            let tag = rest.get(1..).and_then(|body| body.find('$')).and_then(|end| rest.get(..end + 2));
            let named = tag.filter(|tag| {
                let name = tag.trim_matches('$');
                name.chars().all(|c| c == '_' || c.is_alphanumeric()) && !name.starts_with(|c: char| c.is_ascii_digit())
            });
            let Some(tag) = named else { return 1 };
            let body = rest.get(tag.len()..).unwrap_or_default();
            behind(body.find(tag).map(|end| tag.len() + end), tag.len())
        }
        c if c == '_' || c.is_alphanumeric() => {
            // A dollar in a word begins nothing.
            rest.find(|c: char| !(c == '_' || c == '$' || c.is_alphanumeric())).unwrap_or(rest.len())
        }
        other => other.len_utf8(),
    }
}

/// The length of what stands in quotes. A quote that is doubled ends one part and begins the next.
fn quoted(rest: &str, quote: char, escapes: bool) -> usize {
    let mut skip = false;
    for (at, character) in rest.char_indices().skip(1) {
        if skip {
            skip = false;
        } else if escapes && character == '\\' {
            skip = true;
        } else if character == quote {
            return at + 1;
        }
    }
    rest.len()
}

/// The length of a comment, which may hold others.
fn comment(rest: &str) -> usize {
    let mut depth = 0_u32;
    let mut at = 0;
    while let Some(here) = rest.get(at..) {
        if here.starts_with("/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if here.starts_with("*/") {
            (depth, at) = (depth.saturating_sub(1), at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            match here.chars().next() {
                Some(character) => at += character.len_utf8(),
                None => break,
            }
        }
    }
    rest.len()
}

/// The statements of a dump that make columns of this table identities, with their sequences' names and settings.
pub(super) fn identities(schema: &str, table: &TableName) -> Vec<String> {
    let of_table = |statement: &String| {
        let Some(rest) = statement.strip_prefix("ALTER TABLE ") else { return false };
        let (name, rest) = first_name(rest.strip_prefix("ONLY ").unwrap_or(rest));
        rest.contains(" ADD GENERATED ")
            && rest.contains(" AS IDENTITY (")
            && TableName::parse(name, "").is_ok_and(|name| name == *table)
    };
    split(schema).into_iter().filter(of_table).collect()
}

/// The sequence and its value in a line such as `SELECT pg_catalog.setval('public.posts_id_seq', 3, true);`; nothing when
/// it had given out none.
pub(super) fn set_value(line: &str) -> Option<(TableName, i64)> {
    let inside = line.strip_prefix("SELECT pg_catalog.setval(")?.strip_suffix(", true);")?;
    let (literal, value) = inside.rsplit_once(", ")?;
    let (escaped, literal) = match literal.strip_prefix('E') {
        Some(rest) => (true, rest),
        None => (false, literal),
    };
    let mut name = literal.strip_prefix('\'')?.strip_suffix('\'')?.replace("''", "'");
    if escaped {
        name = name.replace("\\\\", "\\");
    }
    Some((TableName::parse(&name, "").ok()?, value.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_end_outside_of_quotes_and_comments() {
        let text = "-- a; b\n\\restrict x\ncreate table \"a;b\" (t text default 'x;''y'); /* c; /* d */ ; */\n\
                    create function f() returns int language sql as $body$ select 1; $body$;\n\
                    select E'a\\';b', a$b, $1;;\n  comment on table t is 'last'";
        assert_eq!(
            split(text),
            [
                "create table \"a;b\" (t text default 'x;''y')",
                "create function f() returns int language sql as $body$ select 1; $body$",
                "select E'a\\';b', a$b, $1",
                "comment on table t is 'last'",
            ]
        );
    }

    #[test]
    fn identities_and_values_of_a_dump_are_found() {
        let dump = "ALTER TABLE public.\"Or der\" ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (\n    SEQUENCE NAME \
                    public.\"Or der_id_seq\"\n    START WITH 1\n);\nALTER TABLE ONLY public.posts ADD CONSTRAINT c CHECK (true);";
        let order = TableName::new("public", "Or der");
        assert!(identities(dump, &order)[0].contains("SEQUENCE NAME"));
        assert_eq!(identities(dump, &TableName::new("public", "posts")), Vec::<String>::new());
        let value = |line: &str| set_value(line);
        assert_eq!(
            value("SELECT pg_catalog.setval('public.\"Or d''er\"', 12, true);"),
            Some((TableName::new("public", "Or d'er"), 12))
        );
        assert_eq!(value("SELECT pg_catalog.setval('public.a', 1, false);"), None);
    }
}
