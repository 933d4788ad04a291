//! Openings on ordinary days and on the days on which clocks change.

use proptest::prelude::*;

use super::*;

fn zone(name: &str) -> TimeZone {
    TimeZone::get(name).expect("a zone of the bundled database")
}

fn at(text: &str) -> Timestamp {
    text.parse().expect("a timestamp")
}

fn openings(schedule: &str, name: &str, after: &str, count: usize) -> Vec<String> {
    let (schedule, zone) = (parse(schedule).expect("a schedule"), zone(name));
    let mut after = at(after);
    std::iter::repeat_with(|| {
        after = schedule.next_after(&zone, after).expect("an opening");
        after.to_string()
    })
    .take(count)
    .collect()
}

#[test]
fn ordinary_weeks_follow_the_wall_clock() {
    assert_eq!(
        openings("0 2 * * SAT", "Europe/Berlin", "2026-10-20T00:00:00Z", 3),
        // Summer time ends in between: the wall clock shows 02:00 each time.
        ["2026-10-24T00:00:00Z", "2026-10-31T01:00:00Z", "2026-11-07T01:00:00Z"]
    );
    assert_eq!(
        openings("30 5 * * *", "Asia/Kolkata", "2026-11-22T00:00:00Z", 2),
        ["2026-11-23T00:00:00Z", "2026-11-24T00:00:00Z"]
    );
    assert_eq!(
        openings("15 30 2 1 1 *", "UTC", "2026-11-22T00:00:00.5Z", 2),
        ["2027-01-01T02:30:15Z", "2028-01-01T02:30:15Z"]
    );
    assert_eq!(openings("0 0 29 2 *", "UTC", "2026-11-22T00:00:00Z", 1), ["2028-02-29T00:00:00Z"]);
}

#[test]
fn an_opening_is_later_than_the_instant_that_was_asked_for() {
    let (schedule, utc) = (parse("0 2 * * *").expect("a schedule"), TimeZone::UTC);
    let opening = at("2026-11-22T02:00:00Z");
    assert_eq!(schedule.next_after(&utc, at("2026-11-22T01:59:59.999Z")), Some(opening));
    assert_eq!(schedule.next_after(&utc, opening), Some(at("2026-11-23T02:00:00Z")));
}

#[test]
fn a_time_that_does_not_exist_opens_at_the_end_of_the_gap() {
    for (schedule, name, after, expected) in [
        // 02:00 to 03:00 is left out.
        ("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", "2026-03-29T01:00:00Z"),
        ("0 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", "2026-03-29T01:00:00Z"),
        ("59 59 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", "2026-03-29T01:00:00Z"),
        ("30 2 * * *", "America/New_York", "2026-03-08T00:00:00Z", "2026-03-08T07:00:00Z"),
        // Half an hour, 02:00 to 02:30.
        ("15 2 * * *", "Australia/Lord_Howe", "2026-10-03T00:00:00Z", "2026-10-03T15:30:00Z"),
        // A whole day that was never there.
        ("0 12 30 12 *", "Pacific/Apia", "2011-12-01T00:00:00Z", "2011-12-30T10:00:00Z"),
        ("0 0 30 12 *", "Pacific/Apia", "2011-12-01T00:00:00Z", "2011-12-30T10:00:00Z"),
        // Winter time lasts for Ramadan only.
        ("30 2 * * *", "Africa/Casablanca", "2026-03-21T12:00:00Z", "2026-03-22T02:00:00Z"),
    ] {
        assert_eq!(openings(schedule, name, after, 1), [expected], "{schedule} in {name}");
    }
}

#[test]
fn two_times_that_come_to_the_same_instant_open_once() {
    assert_eq!(
        openings("*/30 * * * *", "Europe/Berlin", "2026-03-29T00:00:00Z", 4),
        ["2026-03-29T00:30:00Z", "2026-03-29T01:00:00Z", "2026-03-29T01:30:00Z", "2026-03-29T02:00:00Z"]
    );
    // 02:15 falls into the gap and opens at its end, which is 02:30.
    assert_eq!(
        openings("15,30 2 * * *", "Australia/Lord_Howe", "2026-10-03T00:00:00Z", 2),
        ["2026-10-03T15:30:00Z", "2026-10-04T15:15:00Z"]
    );
}

#[test]
fn a_time_that_exists_twice_opens_once() {
    for (schedule, name, after, expected) in [
        ("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]),
        ("30 1 * * *", "America/New_York", "2026-10-31T12:00:00Z", ["2026-11-01T05:30:00Z", "2026-11-02T06:30:00Z"]),
        ("45 1 * * *", "Australia/Lord_Howe", "2026-04-04T00:00:00Z", ["2026-04-04T14:45:00Z", "2026-04-05T15:15:00Z"]),
        ("30 2 * * *", "Africa/Casablanca", "2026-02-14T12:00:00Z", ["2026-02-15T01:30:00Z", "2026-02-16T02:30:00Z"]),
    ] {
        assert_eq!(openings(schedule, name, after, 2), expected, "{schedule} in {name}");
    }
}

#[test]
fn wildcards_do_not_fire_twice_while_clocks_catch_up() {
    assert_eq!(
        openings("*/30 * * * *", "Europe/Berlin", "2026-10-24T23:30:00Z", 4),
        ["2026-10-25T00:00:00Z", "2026-10-25T00:30:00Z", "2026-10-25T02:00:00Z", "2026-10-25T02:30:00Z"]
    );
    // Asked in the middle of the repeated hour.
    assert_eq!(openings("* * * * * *", "Europe/Berlin", "2026-10-25T01:10:00Z", 1), ["2026-10-25T02:00:00Z"]);
}

#[test]
fn each_day_of_a_year_has_its_opening_whatever_its_clocks_do() {
    for (name, year, days) in [
        ("Europe/Berlin", 2026, 365),
        ("America/New_York", 2028, 366),
        ("Australia/Lord_Howe", 2026, 365),
        ("Africa/Casablanca", 2026, 365),
        // Without 30 December, whose openings come with the first moment of the 31st: together they open once.
        ("Pacific/Apia", 2011, 365),
    ] {
        for (schedule, folded) in [("30 2 * * *", 0), ("0 0 * * *", 1), ("15 1 * * *", 0), ("59 23 * * *", 0)] {
            let (schedule, zone) = (parse(schedule).expect("a schedule"), zone(name));
            let [from, to] = [year, year + 1].map(|year| {
                let midnight = jiff::civil::date(year, 1, 1).at(0, 0, 0, 0);
                zone.to_ambiguous_timestamp(midnight).compatible().expect("in range") - SignedDuration::from_secs(1)
            });
            let (mut next, mut all) = (from, Vec::new());
            while let Some(at) = schedule.next_after(&zone, next).filter(|at| *at <= to) {
                all.push(at);
                next = at;
            }
            let folded = if name == "Pacific/Apia" { folded } else { 0 };
            assert_eq!(all.len(), days - folded, "{name}");
            // Looked at an hour at a time, late, or after months of silence, they are the same.
            let (mut hourly, mut at) = (Vec::new(), from);
            while at < to {
                let until = (at + SignedDuration::from_hours(1)).min(to);
                hourly.extend(schedule.due(&zone, at, until, SignedDuration::ZERO).iter().map(|one| one.at));
                at = until;
            }
            assert_eq!(hourly, all, "{name}");
            let silent = schedule.due(&zone, from, to, SignedDuration::ZERO);
            let newest: Vec<_> = silent.iter().map(|one| one.at).collect();
            assert_eq!(newest, all[all.len() - MOST_DUE..], "{name}");
        }
    }
}

#[test]
fn what_is_due_says_what_was_missed() {
    let (schedule, berlin) = (parse("0 2 * * *").expect("a schedule"), zone("Europe/Berlin"));
    let minute = SignedDuration::from_mins(1);
    let due = |after: &str, now: &str| {
        schedule
            .due(&berlin, at(after), at(now), minute)
            .iter()
            .map(|one| (one.at.to_string(), one.missed))
            .collect::<Vec<_>>()
    };
    assert_eq!(due("2026-11-21T01:00:00Z", "2026-11-22T00:59:59.999Z"), []);
    assert_eq!(due("2026-11-21T01:00:00Z", "2026-11-22T01:00:00Z"), [("2026-11-22T01:00:00Z".to_owned(), false)]);
    assert_eq!(due("2026-11-21T01:00:00Z", "2026-11-22T01:01:00Z"), [("2026-11-22T01:00:00Z".to_owned(), false)]);
    assert_eq!(
        due("2026-11-20T01:00:00Z", "2026-11-22T01:01:00.001Z"),
        [("2026-11-21T01:00:00Z".to_owned(), true), ("2026-11-22T01:00:00Z".to_owned(), true),]
    );
    // The clock was set back: nothing is due again.
    assert_eq!(due("2026-11-22T01:00:00Z", "2026-11-21T01:00:00Z"), []);
    assert_eq!(due("2026-11-22T01:00:00Z", "2026-11-22T01:00:00Z"), []);
}

#[test]
fn due_openings_are_bounded_and_the_newest() {
    let schedule = parse("* * * * * *").expect("a schedule");
    let due = schedule.due(&TimeZone::UTC, Timestamp::UNIX_EPOCH, at("2026-11-22T00:00:00.5Z"), SignedDuration::ZERO);
    assert_eq!(due.len(), MOST_DUE);
    assert_eq!(due.last().map(|one| one.at), Some(at("2026-11-22T00:00:00Z")));
    assert_eq!(due.first().map(|one| one.at), Some(at("2026-11-21T23:58:21Z")));
}

#[test]
fn due_in_the_repeated_hour_finds_what_its_first_pass_opened() {
    // 01:10 UTC shows 02:10 for the second time; 02:30 opened 40 minutes ago.
    let (schedule, berlin) = (parse("30 2 * * *").expect("a schedule"), zone("Europe/Berlin"));
    let due = schedule.due(&berlin, at("2026-10-25T00:00:00Z"), at("2026-10-25T01:10:00Z"), SignedDuration::ZERO);
    assert_eq!(due, [DueOpening { at: at("2026-10-25T00:30:00Z"), missed: true }]);
}

#[test]
fn a_schedule_that_never_fires_is_found_out() {
    let after = at("2026-11-22T00:00:00Z");
    for never in ["0 0 30 2 *", "0 0 31 2,4,6,9,11 *", "0 0 0 31 6 *"] {
        let schedule = parse(never).expect("well-formed");
        assert!(!schedule.fires(&zone("Europe/Berlin"), after), "{never}");
        assert_eq!(schedule.due(&TimeZone::UTC, after, at("2027-11-22T00:00:00Z"), SignedDuration::ZERO), []);
    }
    for ever in ["0 0 29 2 *", "0 2 * * SAT", "0 0 30 2 MON", "0 0 29 2 +MON"] {
        assert!(parse(ever).expect("well-formed").fires(&zone("Europe/Berlin"), after), "{ever}");
    }
}

#[test]
fn mistakes_are_named() {
    for (text, part) in [
        ("", "has 0 fields"),
        ("0 2 * *", "has 4 fields"),
        ("0 0 2 * * SAT 2027", "has 7 fields"),
        ("0 25 * * *", "out of bounds"),
        ("0 2 * * FOO", "pattern contains illegal characters"),
        ("*/0 * * * *", "step"),
    ] {
        let error = parse(text).expect_err(text);
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn names_are_made_of_the_instant() {
    let at = at("2026-11-22T02:00:00.75Z");
    assert_eq!(window_id("shop", at), "shop-20261122T020000Z");
    assert_eq!(quarantine_schema(at), "rollbackd_20261122t020000z");
}

const ZONES: [&str; 7] = [
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "Africa/Casablanca",
    "Pacific/Apia",
    "Asia/Kolkata",
    "UTC",
];

proptest! {
    #[test]
    fn openings_go_on_and_never_leave_out_more_than_the_period(
        name in proptest::sample::select(&ZONES[..]),
        (schedule, period) in proptest::sample::select(&[
            ("*/10 * * * * *", 10), ("* * * * *", 60), ("*/15 * * * *", 900), ("0 * * * *", 3_600),
            ("30 2 * * *", 86_400), ("15 1 * * SAT", 7 * 86_400),
        ][..]),
        start in 1_320_000_000_i64..2_000_000_000,
    ) {
        let (schedule, zone) = (parse(schedule).expect("a schedule"), zone(name));
        let mut after = Timestamp::from_second(start).expect("in range");
        for _ in 0..20 {
            let next = schedule.next_after(&zone, after).expect("an opening");
            prop_assert!(next > after);
            // Clocks that are set back make the way longer by as much as they are set back.
            prop_assert!(next.duration_since(after) <= SignedDuration::from_secs(period + 3_600));
            prop_assert_eq!(
                schedule.due(&zone, after, next, SignedDuration::ZERO),
                [DueOpening { at: next, missed: false }]
            );
            after = next;
        }
    }

    #[test]
    fn looking_once_or_often_finds_the_same(
        name in proptest::sample::select(&ZONES[..]),
        start in 1_320_000_000_i64..2_000_000_000,
        steps in proptest::collection::vec(1_i64..200_000, 1..12),
    ) {
        let (schedule, zone) = (parse("30 1,2 * * *").expect("a schedule"), zone(name));
        let first = Timestamp::from_second(start).expect("in range");
        let (mut often, mut from) = (Vec::new(), first);
        for step in steps {
            let to = from + SignedDuration::from_secs(step);
            often.extend(schedule.due(&zone, from, to, SignedDuration::ZERO).iter().map(|one| one.at));
            from = to;
        }
        let once: Vec<_> = schedule.due(&zone, first, from, SignedDuration::ZERO).iter().map(|one| one.at).collect();
        prop_assert_eq!(once, often);
    }

    #[test]
    fn no_text_can_make_it_panic(text in "[-0-9*/,LW#?+A-Z ]{0,24}") {
        if let Ok(schedule) = parse(&text) {
            let _next = schedule.next_after(&TimeZone::UTC, Timestamp::UNIX_EPOCH);
        }
    }
}
