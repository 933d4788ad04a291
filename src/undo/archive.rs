//! Dropped tables, made again from their archive inside our own transaction: all of it comes back with the rest, or none.
//!
//! `pg_restore` writes the archive out as SQL, and we run that. So between the tables and their rows, and between the rows
//! and what hangs on the tables, there is room for what the archive does not hold.

use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;

use futures_util::SinkExt as _;
use rollbackd_core::baseline::{RowCount, TableName};
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio_postgres::Transaction;

use crate::postgres::removal::order;
use crate::postgres::removal::undo::Record;
use crate::postgres::{Failure, catalog, during, programs};

const DOING: &str = "reading the archive";
/// How much is sent to the server at once.
const CHUNK: usize = 1 << 16;

/// An archive that was opened.
#[derive(Debug)]
pub(super) struct Archive {
    file: PathBuf,
    restore: PathBuf,
    counts: Vec<RowCount>,
    /// What makes the tables.
    before: Vec<String>,
    /// What hangs on them, and wants their rows to be there.
    after: Vec<String>,
}

impl Archive {
    /// Opens the record's archive, if it has one. The inner error says what is wrong with it.
    pub(super) async fn open(
        transaction: &Transaction<'_>,
        record: &Record,
        within: Duration,
    ) -> Result<Result<Option<Self>, String>, Failure> {
        let Some(directory) = &record.archive else { return Ok(Ok(None)) };
        let major = catalog::server_major(transaction).await?;
        Ok(Self::read(Path::new(directory), major, within).await.map(Some))
    }

    async fn read(directory: &Path, major: u32, within: Duration) -> Result<Self, String> {
        let restore = programs::find(major).await?.restore;
        let (file, counts) = (directory.join("tables.dump"), directory.join("tables.json"));
        let named = |error: &dyn std::fmt::Display| format!("{}: {error}", counts.display());
        let text = std::fs::read_to_string(&counts).map_err(|error| named(&error))?;
        let counts = serde_json::from_str(&text).map_err(|error| named(&error))?;
        let before = section(&restore, &file, "pre-data", within).await?;
        let after = section(&restore, &file, "post-data", within).await?;
        Ok(Self { file, restore, counts, before, after })
    }

    /// The rows that a table had; nothing when it is not in the archive.
    pub(super) fn rows(&self, table: &TableName) -> Option<u64> {
        self.counts.iter().find(|count| count.table == *table).map(|count| count.rows)
    }

    /// What makes the tables, with their sequences and the views on them.
    pub(super) fn tables(&self) -> Vec<order::Job> {
        jobs(&self.before)
    }

    /// What makes indexes, constraints, triggers and policies.
    pub(super) fn rest(&self) -> Vec<order::Job> {
        jobs(&self.after)
    }

    /// Fills the tables, and sets their sequences.
    pub(super) async fn copy_rows(&self, transaction: &Transaction<'_>, within: Duration) -> Result<(), Failure> {
        let arguments = ["--section=data", "--file=-"].map(str::to_owned).into_iter();
        let arguments: Vec<String> = arguments.chain([self.file.display().to_string()]).collect();
        programs::feed(&self.restore, &arguments, within, async |output| feed(transaction, output).await).await
    }
}

fn jobs(entries: &[String]) -> Vec<order::Job> {
    entries.iter().map(|sql| order::Job::moving(vec![sql.clone()])).collect()
}

/// A section of an archive as SQL, an entry each.
async fn section(restore: &Path, file: &Path, name: &str, within: Duration) -> Result<Vec<String>, String> {
    let directory = tempfile::tempdir().map_err(|error| format!("a directory for the archive's SQL: {error}"))?;
    let script = directory.path().join("script.sql");
    let arguments = [format!("--section={name}"), format!("--file={}", script.display()), file.display().to_string()];
    programs::run(restore, &arguments, None, within, None).await?;
    let text = std::fs::read_to_string(&script).map_err(|error| format!("{}: {error}", file.display()))?;
    Ok(entries(&text))
}

/// Cuts a script of `pg_restore` into its entries, which each begin with a comment that names them. What stands before the
/// first sets up a session, and ours is set up already.
fn entries(script: &str) -> Vec<String> {
    // What only psql understands: a word of the script's own making, at its beginning and at its end.
    let restricted = script.lines().find_map(|line| line.strip_prefix("\\restrict "));
    let unrestrict = restricted.map(|word| format!("\\unrestrict {word}"));
    let mut entries: Vec<(bool, String)> = Vec::new();
    let mut lines = script.lines().peekable();
    while let Some(line) = lines.next() {
        if line == "--"
            && let Some(header) = lines.peek().and_then(|next| next.strip_prefix("-- Name: "))
        {
            // Publications are put back by what the record says of them.
            entries.push((!header.contains("; Type: PUBLICATION TABLE;"), String::new()));
            continue;
        }
        if let Some((_, sql)) = entries.last_mut()
            && unrestrict.as_deref() != Some(line)
        {
            sql.push_str(line);
            sql.push('\n');
        }
    }
    let says_something = |sql: &String| sql.lines().any(|line| !line.is_empty() && !line.starts_with("--"));
    entries.into_iter().filter(|(wanted, sql)| *wanted && says_something(sql)).map(|(_, sql)| sql).collect()
}

/// Feeds the section with the data to the server: rows as they stand, and where sequences go on.
async fn feed(transaction: &Transaction<'_>, output: impl AsyncRead + Unpin) -> Result<(), Failure> {
    let mut reader = BufReader::with_capacity(CHUNK, output);
    let mut line = Vec::new();
    loop {
        line.clear();
        if read_line(&mut reader, &mut line).await? == 0 {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end();
        if text.starts_with("COPY ") && text.ends_with(" FROM stdin;") {
            copy(transaction, text, &mut reader).await?;
        } else if text.starts_with("SELECT pg_catalog.setval(") {
            transaction.batch_execute(text).await.map_err(during("setting a sequence"))?;
        }
    }
}

async fn copy(
    transaction: &Transaction<'_>,
    statement: &str,
    reader: &mut (impl AsyncBufRead + Unpin),
) -> Result<(), Failure> {
    let doing = "filling a table from the archive";
    let sink = transaction.copy_in::<_, Cursor<Vec<u8>>>(statement).await.map_err(during(doing))?;
    let mut sink = pin!(sink);
    let mut chunk = Vec::with_capacity(CHUNK * 2);
    loop {
        let start = chunk.len();
        if read_line(reader, &mut chunk).await? == 0 {
            return Err(Failure::found(doing, "the archive ends in the middle of a table"));
        }
        let is_end = chunk.get(start..) == Some(b"\\.\n");
        if is_end {
            chunk.truncate(start);
        }
        if is_end || chunk.len() >= CHUNK {
            let full = std::mem::replace(&mut chunk, Vec::with_capacity(CHUNK * 2));
            sink.send(Cursor::new(full)).await.map_err(during(doing))?;
        }
        if is_end {
            sink.as_mut().finish().await.map_err(during(doing))?;
            return Ok(());
        }
    }
}

async fn read_line(reader: &mut (impl AsyncBufRead + Unpin), line: &mut Vec<u8>) -> Result<usize, Failure> {
    reader.read_until(b'\n', line).await.map_err(|error| Failure::found(DOING, error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_cut_at_its_headers() {
        let script = "\\restrict abc\n\nSET lock_timeout = 0;\n\n--\n-- Name: a; Type: TABLE; Schema: public; Owner: x\n--\n\n\
                      CREATE TABLE public.a (\n    t text DEFAULT '--\n'\n);\n\n\n--\n\
                      -- Name: p a; Type: PUBLICATION TABLE; Schema: public; Owner: -\n--\n\nALTER PUBLICATION p;\n\n--\n\
                      -- Name: b; Type: VIEW; Schema: public; Owner: x\n--\n\nCREATE VIEW b;\n\n\n\\unrestrict abc\n\n";
        let found = entries(script);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].contains("CREATE TABLE public.a (\n    t text DEFAULT '--\n'\n);"), "{found:?}");
        assert!(found[1].contains("CREATE VIEW b;") && !found[1].contains("restrict"), "{found:?}");
    }
}
