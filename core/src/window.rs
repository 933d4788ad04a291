//! Cron expression and zone → the instants at which windows open.
//!
//! The expression is matched against civil time (what a clock on the wall in the configured zone shows) and
//! the match is turned into an instant here, because the days on which clocks change need rules of their own:
//!
//! * a civil time that does not exist opens at the end of the gap;
//! * one that exists twice opens once, at the earlier of the two instants, wildcards included;
//! * two civil times that come to the same instant open once.
//!
//! With these rules a later civil time never comes to an earlier instant, which is all that the searches below
//! rely on. Nothing is remembered and no clock is read: the zone, the last opening and the time are arguments,
//! so a late, early or doubled look at the clock changes nothing. What has been opened already is the
//! journal's to know.

use croner::parser::{CronParser, Year};
use croner::{Cron, Direction};
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{SignedDuration, Timestamp};

use crate::run::event::DueOpening;
use crate::words::counted;

/// How many openings [`Schedule::due`] returns at most.
pub const MOST_DUE: usize = 100;

/// How far the civil search may step over times that an opening has already been made for: the longest time
/// that any zone's clocks were ever set back, in seconds, with a wide margin.
const FOLD_STEPS: usize = 2 * 86_400;

/// A cron expression of five fields, or of six with seconds first.
#[derive(Debug, Clone)]
pub struct Schedule {
    cron: Cron,
}

/// Reads a cron expression. Whether it ever [fires](Schedule::fires) is a question of its own.
///
/// # Errors
/// What is wrong with it, in words that follow "is not a schedule: ".
pub fn parse(schedule: &str) -> Result<Schedule, String> {
    let fields = schedule.split_whitespace().count();
    if !matches!(fields, 5 | 6) {
        return Err(format!("it has {}", counted(fields, "field")));
    }
    CronParser::builder()
        .year(Year::Disallowed)
        .build()
        .parse(schedule)
        .map(|cron| Schedule { cron })
        .map_err(|error| reason(&error.to_string()))
}

/// The library's words without its own names of error kinds.
fn reason(text: &str) -> String {
    let text = text.trim_end_matches('.').to_lowercase();
    text.rsplit_once("error: ").map_or(text.clone(), |(_, reason)| reason.to_owned())
}

impl Schedule {
    /// The first opening later than `after`; `None` when there is none in any year that can be searched.
    pub fn next_after(&self, zone: &TimeZone, after: Timestamp) -> Option<Timestamp> {
        let from = zone.to_datetime(after);
        let mut civil = self.cron.find_next_occurrence(&from, false).ok()?;
        // While clocks that were set back catch up, the civil times ahead have had their opening already.
        for _ in 0..FOLD_STEPS {
            let at = opening(zone, civil)?;
            if at > after {
                return Some(at);
            }
            civil = self.cron.find_next_occurrence(&civil, false).ok()?;
        }
        None
    }

    /// Whether the schedule has an opening after this instant at all: `0 0 30 2 *` has none.
    pub fn fires(&self, zone: &TimeZone, after: Timestamp) -> bool {
        self.next_after(zone, after).is_some()
    }

    /// Every opening later than `after` and not later than `now`, oldest first; `missed` is one that is more
    /// than `tolerance` ago.
    ///
    /// At most [`MOST_DUE`] are returned, the newest. Older ones are left out altogether: whoever opens at
    /// every missed opening has a hundred to catch up with, and whoever goes on from the newest returned
    /// opening never meets the older ones again. The work is bounded the same way, however long nobody looked.
    pub fn due(&self, zone: &TimeZone, after: Timestamp, now: Timestamp, tolerance: SignedDuration) -> Vec<DueOpening> {
        let mut due: Vec<DueOpening> = Vec::new();
        if after >= now {
            return due;
        }
        let Some(newest) = latest_civil(zone, now) else { return due };
        for civil in self.cron.iter_from(newest, Direction::Backward).take(FOLD_STEPS) {
            let Some(at) = opening(zone, civil) else { break };
            if at <= after || due.len() == MOST_DUE {
                break;
            }
            if at <= now && due.last().is_none_or(|last| last.at != at) {
                due.push(DueOpening { at, missed: now.duration_since(at) > tolerance });
            }
        }
        due.reverse();
        due
    }
}

/// A civil time that no opening up to `now` is later than: what the clocks show, and while they show a time
/// for the second time, as much later as they were set back.
fn latest_civil(zone: &TimeZone, now: Timestamp) -> Option<DateTime> {
    let shown = zone.to_datetime(now);
    match zone.to_ambiguous_timestamp(shown).offset() {
        AmbiguousOffset::Fold { before, after } => {
            shown.checked_add(SignedDuration::from_secs(i64::from(before.seconds() - after.seconds()))).ok()
        }
        AmbiguousOffset::Unambiguous { .. } | AmbiguousOffset::Gap { .. } => Some(shown),
    }
}

/// The instant at which a scheduled civil time opens.
fn opening(zone: &TimeZone, civil: DateTime) -> Option<Timestamp> {
    match zone.to_ambiguous_timestamp(civil).offset() {
        AmbiguousOffset::Unambiguous { offset } => offset.to_timestamp(civil).ok(),
        AmbiguousOffset::Fold { before, .. } => before.to_timestamp(civil).ok(),
        AmbiguousOffset::Gap { before, after } => {
            // Read with the offset that comes, the time lies before the change; with the one that goes, after it.
            let early = after.to_timestamp(civil).ok()?;
            let late = before.to_timestamp(civil).ok()?;
            let change = zone.following(early).find(|change| change.offset() == after).map(|change| change.timestamp());
            Some(change.map_or(late, |change| change.min(late)))
        }
    }
}

/// The id of a plan's window: `shop-20261122T020000Z`.
pub fn window_id(plan: &str, at: Timestamp) -> String {
    format!("{plan}-{}", at.strftime("%Y%m%dT%H%M%SZ"))
}

/// The schema that a window's tables are moved to: `rollbackd_20261122t020000z`.
pub fn quarantine_schema(at: Timestamp) -> String {
    format!("rollbackd_{}", at.strftime("%Y%m%dt%H%M%Sz"))
}

#[cfg(test)]
mod tests;
