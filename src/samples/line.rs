//! One line of a recording ↔ what the judge saw.

use jiff::{SignedDuration, Timestamp};
use rollbackd_core::judge::Level;
use rollbackd_core::replay::Seen;
use rollbackd_core::sample::{Reading, Sample};
use serde::{Deserialize, Serialize};

/// The version of the format that is written.
pub const FORMAT: u32 = 1;

/// A line. Which of its parts are there says what it is.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// When: of a sample, when its reading ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<When>,
    /// When the rules looked at it, when that was later.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub judged_at: Option<When>,
    /// A sample: the signal's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<String>,
    /// A sample from before the recording, which the rules looked at in their time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remembered: Option<bool>,
    /// How long the reading took, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub took_ms: Option<f64>,
    /// Good events.
    #[serde(skip_serializing_if = "is_zero")]
    #[serde(default)]
    pub good: u64,
    /// Bad events.
    #[serde(skip_serializing_if = "is_zero")]
    #[serde(default)]
    pub bad: u64,
    /// The number that came with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<f64>,
    /// Why the bad events are bad.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Why it could not be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unreadable: Option<String>,
    /// The first line of a recording of the daemon: the version of the format.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollbackd_samples: Option<u32>,
    /// The first line: the window.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<String>,
    /// The rules were asked without a sample.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub look: Option<bool>,
    /// The clock was set by so many milliseconds, or nobody looked for so long.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub moved_ms: Option<i64>,
    /// Good and bad events of each signal before the migration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub levels: Option<Vec<(String, u64, u64)>>,
    /// So many samples are missing here: the disk was too slow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lost: Option<u64>,
}

/// Milliseconds since 1970, or RFC 3339.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum When {
    /// Milliseconds since 1970-01-01 UTC.
    Millis(i64),
    /// Text.
    Text(Timestamp),
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl When {
    fn of(at: Timestamp) -> Self {
        Self::Millis(at.as_millisecond())
    }

    fn instant(&self) -> Result<Timestamp, String> {
        match self {
            Self::Millis(millis) => Timestamp::from_millisecond(*millis)
                .map_err(|_range| format!("{millis} is no time: milliseconds since 1970 are wanted")),
            Self::Text(at) => Ok(*at),
        }
    }
}

impl Line {
    /// The first line of a window's recording.
    pub fn head(window: &str, at: Timestamp) -> Self {
        Self {
            rollbackd_samples: Some(FORMAT),
            window: Some(window.to_owned()),
            at: Some(When::of(at)),
            ..Self::default()
        }
    }

    /// A sample that was looked at `now`.
    pub fn sample(signal: &str, sample: &Sample, now: Timestamp) -> Self {
        let line = Self {
            at: Some(When::of(sample.at)),
            judged_at: (now != sample.at).then(|| When::of(now)),
            signal: Some(signal.to_owned()),
            took_ms: (!sample.took.is_zero()).then(|| sample.took.as_secs_f64() * 1e3),
            ..Self::default()
        };
        match &sample.reading {
            Reading::Events { good, bad, value, reason } => {
                Self { good: *good, bad: *bad, value: *value, reason: reason.clone(), ..line }
            }
            Reading::Unreadable { reason } => Self { unreadable: Some(reason.clone()), ..line },
        }
    }

    /// The same sample, as one from before the recording.
    #[must_use]
    pub fn from_before(self) -> Self {
        Self { remembered: Some(true), ..self }
    }

    /// The rules were asked without a sample.
    pub fn look(now: Timestamp) -> Self {
        Self { at: Some(When::of(now)), look: Some(true), ..Self::default() }
    }

    /// The clock was set by so much, or nobody looked for so long; `now` is after that.
    pub fn moved(by: SignedDuration, now: Timestamp) -> Self {
        let millis = i64::try_from(by.as_millis()).unwrap_or_default();
        Self { at: Some(When::of(now)), moved_ms: Some(millis), ..Self::default() }
    }

    /// What each signal's events were like before the migration.
    pub fn levels<'a>(signals: impl Iterator<Item = &'a str>, levels: &[Level], now: Timestamp) -> Self {
        let levels = signals.zip(levels).map(|(signal, level)| (signal.to_owned(), level.good, level.bad)).collect();
        Self { at: Some(When::of(now)), levels: Some(levels), ..Self::default() }
    }

    /// So many samples are missing here.
    pub fn lost(count: u64) -> Self {
        Self { lost: Some(count), ..Self::default() }
    }

    /// What the judge saw, and when; `None` when it is nothing of the kind. Signals that are not `known` are named in `strange`.
    ///
    /// # Errors
    /// What is wrong with the line.
    pub fn seen(&self, known: &[&str], strange: &mut Vec<String>) -> Result<Option<(Timestamp, Seen)>, String> {
        if let Some(format) = self.rollbackd_samples.filter(|format| *format != FORMAT) {
            return Err(format!("it is of format {format}; this version reads format {FORMAT}"));
        }
        if self.lost.is_some() {
            return Ok(None);
        }
        let at = self.at.as_ref().ok_or("`at` is missing")?.instant()?;
        if self.rollbackd_samples.is_some() {
            return Ok(Some((at, Seen::Begun)));
        }
        let mut place = |signal: &String| {
            let found = known.iter().position(|name| name == signal);
            if found.is_none() && !strange.contains(signal) {
                strange.push(signal.clone());
            }
            found
        };
        if self.look == Some(true) {
            return Ok(Some((at, Seen::Look)));
        }
        if let Some(millis) = self.moved_ms {
            return Ok(Some((at, Seen::Moved(SignedDuration::from_millis(millis)))));
        }
        if let Some(levels) = &self.levels {
            let mut all = vec![Level::default(); known.len()];
            for (signal, good, bad) in levels {
                if let Some(level) = place(signal).and_then(|place| all.get_mut(place)) {
                    *level = Level { good: *good, bad: *bad };
                }
            }
            return Ok(Some((at, Seen::Levels(all))));
        }
        let signal = self.signal.as_ref().ok_or("`signal` is missing")?;
        let took = took(self.took_ms.unwrap_or(0.0)).ok_or("`took_ms` is no duration")?;
        let reading = match &self.unreadable {
            Some(reason) => Reading::Unreadable { reason: reason.clone() },
            None => Reading::Events { good: self.good, bad: self.bad, value: self.value, reason: self.reason.clone() },
        };
        let now = self.judged_at.as_ref().map_or(Ok(at), When::instant)?;
        let sample = Sample { at, took, reading };
        let remembered = self.remembered == Some(true);
        let seen = |place| if remembered { Seen::Memory(place, sample) } else { Seen::Sample(place, sample) };
        Ok(place(signal).map(|place| (now, seen(place))))
    }
}

/// Milliseconds, to the microsecond: that is how exactly readings are timed.
fn took(millis: f64) -> Option<SignedDuration> {
    let micros = (millis * 1e3).round();
    #[expect(clippy::cast_possible_truncation, reason = "it is within the bounds that were asked for")]
    (0.0..1e15).contains(&micros).then(|| SignedDuration::from_micros(micros as i64))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millisecond(1_795_312_800_000 + millis).expect("in range")
    }

    fn there_and_back(line: &Line) -> Option<(Timestamp, Seen)> {
        let text = serde_json::to_string(line).expect("json");
        let read: Line = serde_json::from_str(&text).expect(&text);
        read.seen(&["api", "log"], &mut Vec::new()).expect(&text)
    }

    #[test]
    fn what_is_written_is_read_again() {
        let samples = [
            Reading::good(),
            Reading::bad("status 503: \"no\"\n"),
            Reading::unreadable("no route"),
            Reading::Events { good: 7, bad: 2, value: Some(0.1 + 0.2), reason: None },
        ];
        for (turn, reading) in samples.into_iter().enumerate() {
            let sample = Sample { at: at(5), took: SignedDuration::from_micros(20_123), reading };
            let now = at(i64::try_from(turn).expect("few") + 5);
            let line = Line::sample("log", &sample, now);
            assert_eq!(there_and_back(&line.clone().from_before()), Some((now, Seen::Memory(1, sample.clone()))));
            assert_eq!(there_and_back(&line), Some((now, Seen::Sample(1, sample))));
        }
        assert_eq!(there_and_back(&Line::look(at(9))), Some((at(9), Seen::Look)));
        let levels = [Level { good: 3, bad: 0 }, Level { good: 990, bad: 10 }];
        let line = Line::levels(["api", "log"].into_iter(), &levels, at(9));
        assert_eq!(there_and_back(&line), Some((at(9), Seen::Levels(levels.to_vec()))));
        assert_eq!(there_and_back(&Line::head("shop-1", at(0))), Some((at(0), Seen::Begun)));
        assert_eq!(there_and_back(&Line::lost(3)), None);
        let back = SignedDuration::from_millis(-7_200_000);
        assert_eq!(there_and_back(&Line::moved(back, at(9))), Some((at(9), Seen::Moved(back))));
    }

    #[test]
    fn lines_of_people_are_read_and_mistakes_named() {
        let read = |text: &str| -> Result<Option<(Timestamp, Seen)>, String> {
            let line: Line = serde_json::from_str(text).map_err(|error| error.to_string())?;
            line.seen(&["api"], &mut Vec::new())
        };
        let seen = read("{\"at\": \"2026-11-22T02:00:00Z\", \"signal\": \"api\", \"bad\": 1}").expect("read");
        let sample = Sample {
            at: at(0),
            took: SignedDuration::ZERO,
            reading: Reading::Events { good: 0, bad: 1, value: None, reason: None },
        };
        assert_eq!(seen, Some((at(0), Seen::Sample(0, sample))));
        for (text, problem) in [
            ("{\"at\": 1, \"signal\": \"api\", \"god\": 1}", "unknown field `god`"),
            ("{\"signal\": \"api\"}", "`at` is missing"),
            ("{\"at\": 1}", "`signal` is missing"),
            ("{\"at\": 9223372036854775807, \"signal\": \"api\"}", "is no time"),
            ("{\"at\": 1, \"signal\": \"api\", \"took_ms\": 1e300}", "`took_ms` is no duration"),
            ("{\"rollbackd_samples\": 2}", "format 2"),
        ] {
            let told = read(text).expect_err(text);
            assert!(told.contains(problem), "{text}: {told}");
        }
        let mut strange = Vec::new();
        let line: Line = serde_json::from_str("{\"at\": 1, \"signal\": \"other\", \"good\": 1}").expect("json");
        assert_eq!(line.seen(&["api"], &mut strange), Ok(None));
        assert_eq!(strange, ["other"]);
    }
}
