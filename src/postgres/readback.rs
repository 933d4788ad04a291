//! Reads an archive of `pg_dump` back. A list of its contents proves nothing: truncated and damaged archives have one
//! too. Only reading every row does.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use rollbackd_core::baseline::{RowCount, TableName};

use super::programs;

/// Reads an archive to its end and compares the rows of each table in it with what is expected. `Err` says what is wrong.
pub async fn check(restore: &Path, file: &Path, expected: &[RowCount], within: Duration) -> Result<(), String> {
    let mut rows: BTreeMap<TableName, u64> = BTreeMap::new();
    let mut table: Option<TableName> = None;
    let mut line = |line: &[u8]| match &table {
        Some(name) if line == b"\\." => {
            rows.entry(name.clone()).or_default();
            table = None;
        }
        Some(name) => *rows.entry(name.clone()).or_default() += 1,
        None => table = copied_table(line),
    };
    let arguments = ["--data-only", "--file=-"].map(str::to_owned).into_iter().chain([file.display().to_string()]);
    programs::run(restore, &arguments.collect::<Vec<_>>(), None, within, Some(&mut line)).await?;
    for count in expected {
        // A partitioned table stores nothing itself, and is not in the archive's data.
        let kept = rows.get(&count.table).copied().unwrap_or(0);
        if kept != count.rows {
            return Err(format!("the archive holds {kept} of the {} rows of {}", count.rows, count.table));
        }
    }
    Ok(())
}

fn copied_table(line: &[u8]) -> Option<TableName> {
    copy_target(line).map(|(table, _)| table)
}

/// The table of a line such as `COPY public."Order" (id, "a b") FROM stdin;`, and its columns as they stand there.
pub(crate) fn copy_target(line: &[u8]) -> Option<(TableName, &str)> {
    let line = std::str::from_utf8(line).ok()?;
    let rest = line.strip_prefix("COPY ")?.strip_suffix(" FROM stdin;")?;
    let (name, columns) = first_name(rest);
    Some((TableName::parse(name, "").ok()?, columns.trim()))
}

/// A text cut at the first space outside of quotes.
pub(crate) fn first_name(text: &str) -> (&str, &str) {
    let mut quoted = false;
    let end = text.char_indices().find(|(_, character)| {
        quoted ^= *character == '"';
        !quoted && *character == ' '
    });
    end.and_then(|(end, _)| text.split_at_checked(end)).unwrap_or((text, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copy_lines_name_their_table() {
        let table = |line: &str| copied_table(line.as_bytes());
        assert_eq!(table("COPY public.pages (id, \"a b\") FROM stdin;"), Some(TableName::new("public", "pages")));
        assert_eq!(table("COPY \"my app\".\"a\"\" (b\" (id) FROM stdin;"), Some(TableName::new("my app", "a\" (b")));
        assert_eq!(table("COPY public.empty  FROM stdin;"), Some(TableName::new("public", "empty")));
        assert_eq!(table("SELECT 1;"), None);
    }
}
