//! What a rollback would do → text for people, in 80 columns. Statements are not broken into lines: they are there to be
//! copied.

use std::collections::BTreeMap;

use rollbackd_core::baseline::Class;
use rollbackd_core::words::{counted, grouped};

use crate::cli::output::{NAMES, Paint, WIDTH, clean, clock_time, moment, table, wrap};
use crate::preview::{Blocker, Fate, Preview, Rows, Rung, Would};

/// How many lines of one kind are shown.
const LINES: usize = 12;
/// How many lines of statements are shown.
const SQL_LINES: usize = 60;

/// The statements as a file.
pub(super) fn sql(preview: &Preview) -> String {
    if preview.sql.is_empty() {
        return "-- No rung has statements to run.\n".to_owned();
    }
    let mut text = preview.sql.join("\n");
    text.push('\n');
    text
}

/// All of it.
pub(super) fn of(preview: &Preview, paint: Paint) -> String {
    let mut text = heading(preview, paint);
    if preview.objects.is_empty() {
        text.push_str("\nNothing differs from the baseline; nothing would be done.\n");
        text.push_str(&rows(&preview.rows_written, paint));
        return text;
    }
    text.push_str(&class(preview));
    text.push_str(&title("Rungs, in the order in which they would be tried", paint));
    for (at, rung) in preview.rungs.iter().enumerate() {
        text.push_str(&rung_lines(at + 1, rung, paint));
    }
    text.push_str(&title("What differs from the baseline", paint));
    text.push_str(&objects(preview));
    text.push_str(&collateral(preview, paint));
    text.push_str(&keys(preview, paint));
    text.push_str(&rows(&preview.rows_written, paint));
    text.push_str(&title("Locks that are held now", paint));
    text.push_str(&locks(preview));
    text.push_str(&statements(preview, paint));
    text
}

fn heading(preview: &Preview, paint: Paint) -> String {
    let right = clock_time(preview.at);
    let left = format!("{}: what a rollback would do now", preview.plan);
    let blanks = WIDTH.saturating_sub(left.chars().count() + right.chars().count()).max(2);
    let mut text = format!("{}{}{right}\n\n", paint.bold(&left), " ".repeat(blanks));
    text.push_str("Nothing is changed by looking.\n\n");
    let taken = moment(preview.baseline.at, preview.at);
    text.push_str(&field("compared", &format!("with {}, taken {taken}", preview.baseline.source)));
    if !preview.objects.is_empty() {
        text.push_str(&field("differs", &preview.summary));
    }
    text
}

fn title(words: &str, paint: Paint) -> String {
    format!("\n{}\n", paint.bold(words))
}

/// A name, and beside it a paragraph.
fn field(name: &str, value: &str) -> String {
    beside(&format!("{name:<10}"), value)
}

/// A paragraph beside a start of its first line.
fn beside(start: &str, value: &str) -> String {
    let width = start.chars().count();
    let lines = wrap(value, width);
    format!("{start}{}", lines.chars().skip(width).collect::<String>())
}

/// The first of many lines, and how many more there are.
fn some(lines: impl ExactSizeIterator<Item = String>, indent: usize) -> String {
    let all = lines.len();
    // One more line says no less than "and 1 more".
    let shown = if all <= LINES + 1 { all } else { LINES };
    let mut text: String = lines.take(shown).collect();
    if all > shown {
        text.push_str(&wrap(&format!("… and {} more; --json has all", all - shown), indent));
    }
    text
}

fn class(preview: &Preview) -> String {
    let words = match preview.class {
        Class::Reversible => "reversible: a rollback loses no rows",
        Class::Lossy => "lossy: rows or values that were written since leave the live schema",
        Class::Irreversible => {
            "irreversible: what stood before the migration was destroyed or rewritten; only a restore from the backup \
             brings its rows back"
        }
    };
    let mut text = field("class", words);
    let reasons = preview.class_reasons.iter().map(|reason| beside("          - ", reason));
    text.push_str(&some(reasons, 12));
    text
}

fn rung_lines(number: usize, rung: &Rung, paint: Paint) -> String {
    let would = match rung.would {
        Would::Act => "would act",
        Would::Nothing => "would have nothing to do",
        Would::Stop => "would stop before anything was changed",
    };
    let mut text = format!("  {number}  {}: {would}\n", paint.bold(rung.kind));
    text.push_str(&wrap(&format!("It {}.", rung.does), 5));
    if rung.needs_approval {
        text.push_str("     It waits for `rollbackd approve` first.\n");
    }
    text.push_str(&some(rung.stops.iter().map(|reason| beside("     - ", reason)), 7));
    text.push_str(&some(rung.notes.iter().map(|note| beside("     note: ", note)), 5));
    text
}

/// The objects, by what happened to them and by kind.
fn objects(preview: &Preview) -> String {
    let mut groups: BTreeMap<_, Vec<String>> = BTreeMap::new();
    for object in &preview.objects {
        let kind = object.id.kind.words();
        let name = object.words.strip_prefix(kind).map_or(object.words.as_str(), str::trim_start);
        let words = match (&object.after, object.how) {
            (Some(now), crate::preview::How::Renamed) => format!("{name}, now {now}"),
            _ => name.to_owned(),
        };
        groups.entry((object.how, object.id.kind)).or_default().push(words);
    }
    let mut text = String::new();
    for ((how, kind), names) in groups {
        let count = counted(names.len(), kind.words());
        let mut list: Vec<String> = names.iter().take(LINES * 2).cloned().collect();
        if names.len() > list.len() {
            list.push(format!("… and {} more; --json has all", names.len() - list.len()));
        }
        text.push_str(&wrap(&format!("{count} {}:", how.as_str()), 2));
        text.push_str(&wrap(&list.join(", "), 4));
    }
    text
}

fn collateral(preview: &Preview, paint: Paint) -> String {
    if preview.collateral.is_empty() {
        return String::new();
    }
    let mut text = title("What becomes of what hangs on it", paint);
    for (fate, words) in [
        (Fate::Goes, "part of the migration, goes along:"),
        (Fate::PutBack, "from before the migration, as the baseline has it again:"),
        (Fate::Kept, "added to tables that stay, values are kept elsewhere first:"),
        (Fate::Stays, "stays, and does no harm:"),
        (Fate::Survivor, "from before the migration, and in the way:"),
        (Fate::Obstacle, "no statement brings it back:"),
    ] {
        let of: Vec<&str> =
            preview.collateral.iter().filter(|gone| gone.fate == fate).map(|gone| bare(&gone.words)).collect();
        if !of.is_empty() {
            text.push_str(&wrap(words, 2));
            text.push_str(&some(of.into_iter().map(|words| beside("    - ", words)), 6));
        }
    }
    text
}

/// The words without what the heading says already.
fn bare(words: &str) -> &str {
    words.strip_prefix("put back ").unwrap_or(words)
}

fn keys(preview: &Preview, paint: Paint) -> String {
    if preview.foreign_keys.is_empty() {
        return String::new();
    }
    let mut text = title("Foreign keys that stay live in the quarantine", paint);
    text.push_str(&wrap(
        "They lead to tables that stay. Until the quarantine is purged, deleting a row there does this to rows in it:",
        2,
    ));
    let lines = preview.foreign_keys.iter().map(|key| {
        let does = match key.on_delete.as_str() {
            "cascade" => "deletes them too (cascade)".to_owned(),
            "no action" | "restrict" => format!("is refused while they are there ({})", key.on_delete),
            other => format!("changes them ({other})"),
        };
        beside("    - ", &format!("{} to {}: {does}", key.table, key.parent))
    });
    text.push_str(&some(lines, 6));
    text
}

fn rows(all: &[Rows], paint: Paint) -> String {
    let (told, quiet): (Vec<&Rows>, Vec<&Rows>) =
        all.iter().partition(|rows| rows.not_counted.is_some() || rows.written != Some(0));
    if told.is_empty() {
        let none = format!("No rows were written to {} since the baseline.", counted(quiet.len(), "table"));
        return if quiet.is_empty() { String::new() } else { format!("\n{}", wrap(&none, 0)) };
    }
    let mut text = title("Rows written since the baseline", paint);
    let shown: Vec<Vec<String>> = told.iter().take(LINES * 2).map(|rows| cells(rows)).collect();
    text.push_str(&table(paint, NAMES + 8, &["TABLE", "BEFORE", "NOW", "WRITTEN"], &shown));
    if told.len() > shown.len() {
        text.push_str(&wrap(&format!("… and {} more; --json has all", told.len() - shown.len()), 2));
    }
    for rows in told.iter().take(LINES * 2) {
        if let Some(why) = &rows.not_counted {
            text.push_str(&wrap(&format!("{} was not counted: {why}.", rows.table), 2));
        }
    }
    if !quiet.is_empty() {
        text.push_str(&wrap(&format!("None in {}.", counted(quiet.len(), "other table")), 2));
    }
    text
}

fn cells(rows: &Rows) -> Vec<String> {
    let number = |count: Option<u64>| count.map_or_else(|| "?".to_owned(), grouped);
    let before = if rows.added { "new".to_owned() } else { number(rows.before) };
    let written = rows.written.map_or_else(
        || "?".to_owned(),
        |written| {
            let sign = if written < 0 { "-" } else { "+" };
            format!("{sign}{}", grouped(written.unsigned_abs()))
        },
    );
    vec![rows.table.to_string(), before, number(rows.now), written]
}

fn locks(preview: &Preview) -> String {
    let mut text = String::new();
    if preview.blockers.iter().all(|blocker| blocker.mode.is_none()) {
        text.push_str("  Nobody holds a lock on the tables that a rollback would lock.\n");
    }
    text.push_str(&some(preview.blockers.iter().map(|blocker| beside("  - ", &holder(blocker, preview))), 4));
    if !preview.blockers.iter().any(|blocker| blocker.pg_dump) {
        text.push_str("  No pg_dump runs.\n");
    }
    text
}

fn holder(blocker: &Blocker, preview: &Preview) -> String {
    let name = match (&blocker.prepared, blocker.application.as_str()) {
        (Some(name), _) => format!("prepared transaction \"{name}\""),
        (None, "pg_dump") => "a running pg_dump".to_owned(),
        (None, "") => "a session without a name".to_owned(),
        (None, name) => format!("session \"{name}\""),
    };
    let mut about = Vec::new();
    about.extend(blocker.pid.map(|pid| format!("pid {pid}")));
    about.extend((!blocker.role.is_empty()).then(|| format!("role {}", blocker.role)));
    about.extend((!blocker.state.is_empty()).then(|| blocker.state.clone()));
    about.push(format!("since {}", moment(blocker.since, preview.at)));
    let holds = match (&blocker.mode, blocker.tables.as_slice()) {
        (None, _) => ", with no lock on these tables yet".to_owned(),
        (Some(mode), [table]) => format!(" holds {mode} on {table}"),
        (Some(mode), tables) => format!(" holds {mode} on {}", counted(tables.len(), "table")),
    };
    format!("{name} ({}){holds}", about.join(", "))
}

fn statements(preview: &Preview, paint: Paint) -> String {
    let Some(rung) = preview.sql_of_rung else {
        return title("SQL", paint) + "  No rung has statements to run now.\n";
    };
    let kind = rung.checked_sub(1).and_then(|at| preview.rungs.get(at)).map_or("", |rung| rung.kind);
    let mut text = title(&format!("SQL of rung {rung} ({kind}); `rollbackd plan --sql` prints it alone"), paint);
    let lines: Vec<&str> = preview.sql.iter().flat_map(|statement| statement.lines()).collect();
    for line in lines.iter().take(SQL_LINES) {
        let line = format!("  {}", clean(line));
        text.push_str(line.trim_end());
        text.push('\n');
    }
    if lines.len() > SQL_LINES {
        let more = counted(lines.len() - SQL_LINES, "more line");
        text.extend(["  -- … and ", more.as_str(), "\n"]);
    }
    text
}

#[cfg(test)]
mod tests;
