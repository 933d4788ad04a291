//! What a mail says, before it is laid out as [text](super::text) or [HTML](super::html). Pure.

use rollbackd_core::notice::{Notice, NoticeEvent};
use rollbackd_core::plan::Severity;

/// What a mail says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Letter {
    /// The subject, with tags to filter by.
    pub(super) subject: String,
    /// `rollback started`, with a capital letter.
    pub(super) title: String,
    /// The plan.
    pub(super) plan: String,
    /// `CRITICAL`.
    pub(super) severity: String,
    /// Its colour.
    pub(super) tone: Tone,
    /// One sentence: what happened.
    pub(super) summary: String,
    /// The rule and the numbers behind it, each with its name.
    pub(super) numbers: Vec<(&'static str, String)>,
    /// More sentences and commands.
    pub(super) blocks: Vec<Block>,
    /// Where to read on, each with its name.
    pub(super) links: Vec<(&'static str, String)>,
    /// Where and when, each with its name.
    pub(super) facts: Vec<(&'static str, String)>,
}

/// How a mail looks at a glance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    /// Somebody must act, or the worst is under way.
    Alarm,
    /// Somebody should look.
    Caution,
    /// It went well.
    Relief,
    /// For the record.
    Plain,
}

/// A part of the details.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Block {
    /// A sentence, to be wrapped.
    Sentence(String),
    /// Lines to be typed as they stand.
    Commands(Vec<String>),
}

impl Letter {
    /// Reads a notice.
    pub(super) fn of(notice: &Notice) -> Self {
        let message = &notice.message;
        let severity = message.severity.as_str().to_uppercase();
        let mut facts = vec![("Incident", format!("{}, message {}", message.incident_id, message.sequence))];
        if let Some(window) = message.window.as_ref().filter(|window| **window != message.incident_id) {
            facts.push(("Window", window.clone()));
        }
        facts.push(("State", message.state.replace('_', " ")));
        facts.push(("Host", message.host.clone()));
        facts.push(("Time", notice.at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()));
        Self {
            subject: one_line(&format!("[rollbackd][{severity}] {}: {}", message.plan, message.event.title())),
            title: capitalised(message.event.title()),
            plan: one_line(&message.plan),
            tone: tone(message.event, message.severity),
            severity,
            summary: one_line(&message.summary),
            numbers: numbers(notice),
            blocks: blocks(&message.details),
            links: [
                ("Report", &message.links.report),
                ("Status", &message.links.status),
                ("Runbook", &message.links.runbook),
            ]
            .into_iter()
            .filter_map(|(name, link)| link.as_ref().map(|link| (name, one_line(link))))
            .collect(),
            facts: facts.into_iter().map(|(name, value)| (name, one_line(&value))).collect(),
        }
    }
}

fn tone(event: NoticeEvent, severity: Severity) -> Tone {
    match event {
        NoticeEvent::WindowPassed | NoticeEvent::RollbackRecovered => Tone::Relief,
        NoticeEvent::WindowOpened
        | NoticeEvent::WindowRefused
        | NoticeEvent::WindowCancelled
        | NoticeEvent::SignalBlind
        | NoticeEvent::RulePage
        | NoticeEvent::BreachDetected
        | NoticeEvent::RollbackStarted
        | NoticeEvent::RungFailed
        | NoticeEvent::ApprovalRequired
        | NoticeEvent::RollbackNeedsOperator
        | NoticeEvent::NoticeUndeliverable
        | NoticeEvent::NoticeTest => match severity {
            Severity::Critical => Tone::Alarm,
            Severity::Warning => Tone::Caution,
            Severity::Info => Tone::Plain,
        },
    }
}

fn numbers(notice: &Notice) -> Vec<(&'static str, String)> {
    let Some(reason) = &notice.message.reason else { return Vec::new() };
    let mut numbers = vec![
        ("Rule", one_line(&reason.rule)),
        ("Signal", one_line(&reason.signal)),
        ("Observed", number(reason.observed)),
        ("Threshold", number(reason.threshold)),
    ];
    if let Some(seconds) = reason.window_seconds {
        numbers.push(("Over", format!("{} s", number(seconds))));
    }
    numbers.push(("Samples", reason.samples.to_string()));
    numbers
}

/// At most four decimals, and none that say nothing.
fn number(value: f64) -> String {
    let text = format!("{value:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Sentences and commands, neighbouring commands together.
fn blocks(details: &[String]) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    for line in details.iter().flat_map(|detail| detail.lines()) {
        let line = line.trim_end();
        if line.is_empty() {
            continue;
        }
        if !is_command(line) {
            blocks.push(Block::Sentence(line.trim_start().to_owned()));
            continue;
        }
        let command = line.to_owned();
        if let Some(Block::Commands(commands)) = blocks.last_mut() {
            commands.push(command);
        } else {
            blocks.push(Block::Commands(vec![command]));
        }
    }
    for block in &mut blocks {
        if let Block::Commands(commands) = block {
            outdent(commands);
        }
    }
    blocks
}

/// A line is to be typed as it stands when it is indented, begins with a prompt, is SQL or a comment in SQL, or calls
/// this program with an option.
fn is_command(line: &str) -> bool {
    let statement = line.split_once("  --").map_or(line, |(statement, _comment)| statement);
    line.starts_with("  ")
        || line.starts_with('\t')
        || line.starts_with("$ ")
        || line.starts_with("--")
        || statement.trim_end().ends_with(';')
        || (line.starts_with("rollbackd ") && line.contains(" --"))
}

/// Takes away the indentation that all lines share.
fn outdent(lines: &mut [String]) {
    let shared = lines.iter().map(|line| line.len() - line.trim_start().len()).min().unwrap_or(0);
    for line in lines {
        *line = line.get(shared..).unwrap_or(line).to_owned();
    }
}

/// One line, so that nothing that was read somewhere can begin a header of its own.
fn one_line(text: &str) -> String {
    text.split(|c: char| c.is_control() || c.is_whitespace())
        .filter(|word| !word.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}

fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::samples;

    #[test]
    fn the_subject_is_as_the_interface_says() {
        assert_eq!(Letter::of(&samples::started()).subject, "[rollbackd][CRITICAL] shop: rollback started");
    }

    #[test]
    fn a_line_break_cannot_begin_a_header() {
        let mut notice = samples::started();
        notice.message.plan = "shop\r\nBcc: everybody@shop.example".into();
        assert_eq!(
            Letter::of(&notice).subject,
            "[rollbackd][CRITICAL] shop Bcc: everybody@shop.example: rollback started"
        );
    }

    #[test]
    fn commands_stay_together_and_lose_their_shared_indentation() {
        let details =
            ["Do this:", "  psql \\", "    --file x.sql", "$ true", "DROP TABLE a;", "Then that.", "", "  ls"];
        assert_eq!(
            blocks(&details.map(str::to_owned)),
            [
                Block::Sentence("Do this:".into()),
                Block::Commands(
                    ["  psql \\", "    --file x.sql", "$ true", "DROP TABLE a;"].map(str::to_owned).to_vec()
                ),
                Block::Sentence("Then that.".into()),
                Block::Commands(vec!["ls".into()]),
            ]
        );
    }

    #[test]
    fn sql_with_its_comments_is_one_block() {
        let details = [
            "What to do now:",
            "-- 3. The original tables:",
            "SELECT count(*) FROM public.posts;  -- was 3",
            "Say that it is done; `rollbackd ack` stops the pages.",
            "rollbackd approve --reason '…'",
        ];
        let blocks = blocks(&details.map(str::to_owned));
        assert_eq!(
            blocks,
            [
                Block::Sentence(details[0].into()),
                Block::Commands(vec![details[1].into(), details[2].into()]),
                Block::Sentence(details[3].into()),
                Block::Commands(vec![details[4].into()]),
            ]
        );
    }

    #[test]
    fn numbers_say_no_more_than_they_know() {
        assert_eq!(number(0.31), "0.31");
        assert_eq!(number(1.0 / 3.0), "0.3333");
        assert_eq!(number(3.0), "3");
        assert_eq!(number(100.0), "100");
    }

    #[test]
    fn good_news_does_not_look_like_an_alarm() {
        assert_eq!(Letter::of(&samples::recovered()).tone, Tone::Relief);
        assert_eq!(Letter::of(&samples::breach()).tone, Tone::Alarm);
    }
}
