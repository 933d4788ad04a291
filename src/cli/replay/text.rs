//! What came of a replay → text for people, in 80 columns.

use jiff::Timestamp;

use super::{Replayed, Tried};
use crate::cli::output::{NAMES, Paint, clock_time, table, wrap};

/// All of it.
pub(super) fn of(replayed: &Replayed, paint: Paint) -> String {
    let mut text = heading(replayed);
    text.push('\n');
    match &replayed.decided {
        Some(decided) => {
            text.push_str(&paint.bold(&format!("A rollback would have begun at {}.", exact(decided.at))));
        }
        None => text.push_str(&paint.bold("No rollback would have begun.")),
    }
    text.push('\n');
    if !replayed.fired.is_empty() {
        text.push('\n');
        for fired in &replayed.fired {
            let start = format!("  {}  ", time(fired.at));
            let lines = wrap(&fired.sentence, start.chars().count());
            text.push_str(&start);
            text.extend(lines.chars().skip(start.chars().count()));
        }
    }
    if !replayed.quiet.is_empty() {
        text.push('\n');
        text.push_str(&wrap(&format!("Never: {}.", replayed.quiet.join(", ")), 0));
    }
    if !replayed.grid.is_empty() {
        text.extend(["\n", &paint.bold("With other thresholds, each rule by itself, first at"), "\n"]);
        text.push_str(&grid(&replayed.grid, paint));
    }
    text
}

fn heading(replayed: &Replayed) -> String {
    let (Some(from), Some(to)) = (replayed.from, replayed.to) else {
        return wrap(&format!("{} holds no samples.", replayed.source), 0);
    };
    let count = if replayed.samples == 1 { "1 sample".to_owned() } else { format!("{} samples", replayed.samples) };
    let mut text = wrap(
        &format!("Today's rules over {count} of {}, {} to {}.", replayed.source, clock_time(from), clock_time(to)),
        0,
    );
    if replayed.lost > 0 {
        text.push_str(&wrap(&format!("{} more were not recorded: the disk was too slow.", replayed.lost), 0));
    }
    text
}

fn grid(tried: &[Tried], paint: Paint) -> String {
    let rows: Vec<Vec<String>> = tried
        .iter()
        .enumerate()
        .map(|(place, one)| {
            let first = place == 0 || tried.get(place - 1).is_some_and(|before| before.rule != one.rule);
            let rule = if first { one.rule.clone() } else { String::new() };
            let mark = if one.configured { "configured" } else { "" };
            let threshold = format!("{:.6}", one.threshold);
            let threshold = threshold.trim_end_matches('0').trim_end_matches('.').to_owned();
            vec![rule, threshold, one.fired_at.map_or_else(|| "never".to_owned(), time), mark.to_owned()]
        })
        .collect();
    table(paint, NAMES, &["RULE", "ALLOWED", "FIRST AT", ""], &rows)
}

fn time(at: Timestamp) -> String {
    at.strftime("%H:%M:%S%.3f").to_string()
}

fn exact(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S%.3f UTC").to_string()
}
