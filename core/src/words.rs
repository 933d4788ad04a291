//! Numbers and times in sentences.

use jiff::{SignedDuration, Timestamp};

/// `1 table`, `2 tables`, `2 policies`, `3 indexes`, `2 keys`.
pub fn counted(count: usize, noun: &str) -> String {
    if count == 1 {
        return format!("1 {noun}");
    }
    let plural = match noun.strip_suffix('y') {
        Some(stem) if !stem.ends_with(['a', 'e', 'i', 'o', 'u']) => format!("{stem}ies"),
        _ if noun.ends_with('x') || noun.ends_with('s') => format!("{noun}es"),
        _ => format!("{noun}s"),
    };
    format!("{count} {plural}")
}

/// `1204` as `1,204`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A time and how far away it is: `2026-11-22 02:00:00 UTC (14m ago)`.
pub fn moment(at: Timestamp, now: Timestamp) -> String {
    format!("{} ({})", clock_time(at), relative(at, now))
}

/// A time to the second.
pub fn clock_time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// `14m ago`, `in 6d`.
pub fn relative(at: Timestamp, now: Timestamp) -> String {
    let distance = at.duration_since(now);
    if distance.is_positive() { format!("in {}", words(distance)) } else { format!("{} ago", words(distance)) }
}

/// A duration in its two greatest units.
pub fn words(duration: SignedDuration) -> String {
    let seconds = duration.as_secs().unsigned_abs();
    let mut text = String::new();
    let mut put = |count: u64, unit: &str| {
        if count > 0 || (unit == "s" && text.is_empty()) {
            let space = if text.is_empty() { "" } else { " " };
            text.extend([space, &count.to_string(), unit]);
        }
    };
    match seconds {
        0..60 => put(seconds, "s"),
        60..3600 => {
            put(seconds / 60, "m");
            put(seconds % 60, "s");
        }
        3600..86_400 => {
            put(seconds / 3600, "h");
            put(seconds / 60 % 60, "m");
        }
        86_400.. => {
            put(seconds / 86_400, "d");
            put(seconds / 3600 % 24, "h");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        assert_eq!([0, 12, 1204, 1_000_000].map(grouped), ["0", "12", "1,204", "1,000,000"]);
    }

    #[test]
    fn times_are_in_words() {
        let at = |text: &str| text.parse::<Timestamp>().expect("a time");
        let now = at("2026-11-22T02:14:30Z");
        assert_eq!(moment(at("2026-11-22T02:00:00Z"), now), "2026-11-22 02:00:00 UTC (14m 30s ago)");
        assert_eq!(relative(at("2026-11-28T01:00:00Z"), now), "in 5d 22h");
        assert_eq!(relative(now, now), "0s ago");
        assert_eq!(words(SignedDuration::from_secs(3600)), "1h");
        assert_eq!(words(SignedDuration::from_secs(7380)), "2h 3m");
    }
}
