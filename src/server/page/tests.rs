//! The page of each state, as it is sent; hostile names; what the tab says.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use rollbackd_core::judge::{RuleState, Verdict};
use rollbackd_core::run::record::{Trigger, WindowOutcome};
use rollbackd_core::run::state::{Hold, Phase, Proof, State, Window};

use super::*;
use crate::driver::snapshot::{RefusedFile, Renewal, Snapshot};
use crate::server::fixture::{self, at};
use crate::server::view;

/// When all of these pages are looked at.
fn now() -> Timestamp {
    at("02:14:30")
}

fn page(snapshot: &Snapshot) -> String {
    page_of(&view::status(snapshot), snapshot)
}

fn page_of(status: &Status, snapshot: &Snapshot) -> String {
    let html = seen(status, snapshot, false);
    html.replace(STYLE, "[style]").replace(env!("CARGO_PKG_VERSION"), "[version]")
}

/// As it is sent to somebody who looks at once, or when a daemon that stands still has been looked at for a while.
fn seen(status: &Status, snapshot: &Snapshot, still: bool) -> String {
    html(status, &view::history(&snapshot.state), now().max(snapshot.at), still).expect("the template fits")
}

fn title(page: &str) -> &str {
    let (_, rest) = page.split_once("<title>").expect("a title");
    rest.split_once("</title>").expect("its end").0
}

fn with_window(snapshot: &Snapshot, change: impl FnOnce(&mut Window)) -> Snapshot {
    let mut state = State::clone(&snapshot.state);
    change(state.window.as_mut().expect("a window"));
    Snapshot { state: Arc::new(state), ..snapshot.clone() }
}

/// The configuration's file was read again, and refused; `pending`: after one that was accepted.
fn renewed(snapshot: &Snapshot, pending: bool) -> Snapshot {
    let reason = "shop.toml:12:5: `soak` is no duration".to_owned();
    let refused = Some(RefusedFile { at: at("02:14:10"), reason });
    let renewal = Renewal { due: pending, next_sha256: pending.then(|| "9f2c".to_owned()), refused };
    Snapshot { renewal, ..snapshot.clone() }
}

/// One snapshot of each kind that there is something to show of, by name.
fn samples() -> Vec<(&'static str, Snapshot)> {
    let now = now();
    let rolling_back = fixture::rolling_back(now);
    let watching = fixture::watching(now);
    let waiting = with_window(&rolling_back, |open| {
        open.in_flight.clear();
        let rollback = open.rollback.as_mut().expect("a rollback");
        rollback.waiting_since = Some(at("02:14:12"));
        rollback.classified = Some((None, vec!["12 rows of public.pages".to_owned()]));
    });
    let mut held = with_window(&watching, |open| {
        open.hold = Some(Hold { who: "ana".to_owned(), reason: "we are looking".to_owned(), since: at("02:14:20") });
    });
    held.assessment.verdict = Verdict::Breached;
    let Trigger::Rules { evidence } = fixture::trigger() else { panic!("not a rule") };
    held.assessment.breached = evidence;
    let mut blind = watching.clone();
    blind.assessment.verdict = Verdict::Blind;
    blind.assessment.blind = vec!["signal api could not be read for 1m: connection refused".to_owned()];
    for signal in &mut blind.signals {
        (signal.verdict, signal.last_sample_at, signal.error_ratio) = (Verdict::Blind, None, None);
    }
    blind.rules.iter_mut().for_each(|rule| rule.state = RuleState::Blind);
    let mut unready = fixture::quiet(now);
    unready.ready = Err("the database does not answer".to_owned());
    unready.next_window_at = None;
    unready.signals.clear();
    unready.rules.clear();
    let soaking = with_window(&watching, |open| {
        open.in_flight.clear();
        open.phase = Phase::Soaking { until: at("02:24:00") };
    });
    let resolving = with_window(&fixture::needs_operator(now), |open| {
        open.acknowledged = Some("ana".to_owned());
        open.phase = Phase::Resolving {
            reason: "every rung failed".to_owned(),
            manual: Vec::new(),
            who: "ana".to_owned(),
            forced: false,
            proof: Proof::default(),
        };
    });
    vec![
        ("no_window", fixture::quiet(now)),
        ("watching", watching.clone()),
        ("suspect", fixture::suspect(now)),
        ("rolling_back", rolling_back),
        ("needs_operator", fixture::needs_operator(now)),
        ("recovered", fixture::settled(at("02:16:00"), WindowOutcome::Recovered)),
        ("waiting", waiting),
        ("held", held),
        ("blind", blind),
        ("unready", unready),
        ("preparing", with_window(&watching, |open| open.phase = Phase::Preparing)),
        ("soaking", soaking),
        ("resolving", resolving),
        ("passed", fixture::settled(at("02:16:00"), WindowOutcome::Passed)),
        ("refused", fixture::settled(at("02:16:00"), WindowOutcome::Refused)),
        ("cancelled", fixture::settled(at("02:16:00"), WindowOutcome::Cancelled)),
        ("abandoned", fixture::settled(at("02:16:00"), WindowOutcome::Abandoned)),
        ("renewed", renewed(&watching, true)),
        ("file_refused", renewed(&fixture::quiet(now), false)),
        ("stale", Snapshot { at: now - SignedDuration::from_secs(75), ..watching }),
    ]
}

#[test]
fn each_state_has_its_page() {
    for (name, snapshot) in samples().into_iter().take(6) {
        insta::assert_snapshot!(name, page(&snapshot));
    }
}

#[test]
fn the_tab_begins_with_the_state() {
    let titles: Vec<String> = samples()
        .into_iter()
        .map(|(_, snapshot)| title(&page(&snapshot)).trim_end_matches(" · shop · rollbackd").to_owned())
        .collect();
    assert_eq!(
        titles,
        [
            "No window yet",
            "Watching",
            "Watching, suspect",
            "Rolling back",
            "Needs an operator",
            "Recovered",
            "Waits for approval",
            "Decisions are held, breached",
            "Watching, blind",
            "No window yet",
            "Preparing",
            "Soaking",
            "Verifying",
            "Passed",
            "Refused",
            "Cancelled",
            "Ended unverified",
            "Watching",
            "No window yet",
            "Watching",
        ]
    );
}

#[test]
fn what_waits_for_a_person_comes_with_its_commands() {
    for (name, parts) in [
        (
            "waiting",
            &[
                "Rung 1 (script: node) waits for your approval.",
                "12 rows of public.pages",
                "rollbackd approve",
                "rollbackd decline",
            ][..],
        ),
        (
            "held",
            &["we are looking", "rollbackd window resume", "Breached now", "3 bad samples of signal api in a row"],
        ),
        (
            "needs_operator",
            &["every rung failed: script: exit code 3", "COMMIT;", "rollbackd window resolved", "rollbackd ack"],
        ),
        ("resolving", &["has taken charge", "rollbackd window resolved"]),
        ("blind", &["could not be read for 1m: connection refused", "No rollback starts because of this", "never"]),
        ("unready", &["The daemon is not ready", "the database does not answer", "none is scheduled"]),
        ("stale", &["The daemon stands still", "1m 15s old", "band alarm"]),
        ("refused", &["no room for a backup", "band caution"]),
        ("renewed", &["Another configuration is taken over when the window is settled.", "file was refused"]),
        ("file_refused", &["file was refused", "shop.toml:12:5: `soak` is no duration", "goes on with what it has"]),
    ] {
        let (_, snapshot) = samples().into_iter().find(|(other, _)| *other == name).expect("a sample");
        let page = page(&snapshot);
        for part in parts {
            assert!(page.contains(part), "{name}: `{part}` is not in {page}");
        }
    }
}

/// Every piece of markup, but the elements that make marks visible.
fn tags(page: &str) -> Vec<String> {
    let bare = page.split("<bdi class=\"unseen\"").map(|part| {
        part.split_once("</bdi>").filter(|_| part.starts_with(" data-code=")).map_or(part, |(_, rest)| rest)
    });
    let bare: String = bare.collect();
    bare.split('<').skip(1).map(|part| part.split('>').next().unwrap_or_default().to_owned()).collect()
}

/// Every text of a value becomes hostile, times excepted, and words that the page compares.
fn spoil(value: &mut serde_json::Value, hostile: &str) {
    use serde_json::Value;
    const WORDS: [&str; 6] = ["verdict", "state", "outcome", "kind", "then", "version"];
    match value {
        Value::String(text) if text.parse::<Timestamp>().is_err() => text.insert_str(text.len().min(2), hostile),
        Value::Array(values) => values.iter_mut().for_each(|value| spoil(value, hostile)),
        Value::Object(fields) => {
            for (name, value) in fields {
                if !(WORDS.contains(&name.as_str()) && value.is_string()) {
                    spoil(value, hostile);
                }
            }
        }
        Value::String(_) | Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[test]
fn nothing_from_outside_becomes_markup() {
    for hostile in [
        "<script>alert(1)</script>",
        "\"><img src=x onerror=alert(1)>",
        "' onmouseover='alert(1)",
        "</title></style></pre><b>",
        "{{ status }}{% raw %}",
        "\u{202e}\u{200f}\u{2066}\u{7}\u{0}",
        "&lt;&amp;",
    ] {
        for (name, snapshot) in samples() {
            let status = view::status(&snapshot);
            let mut json = serde_json::to_value(&status).expect("JSON");
            spoil(&mut json, hostile);
            let spoiled: Status = serde_json::from_value(json).expect("a status");
            assert_ne!(spoiled, status);
            let (plain, spoiled) = (page_of(&status, &snapshot), page_of(&spoiled, &snapshot));
            assert_eq!(tags(&spoiled), tags(&plain), "{name}: {hostile:?}");
            assert!(!spoiled.contains(['\u{7}', '\u{0}']), "{name}");
            let title = title(&spoiled);
            assert!(!title.contains(['<', '"', '\u{202e}', '\u{200f}', '\u{2066}']), "{title}");
        }
    }
}

#[test]
fn a_mark_that_turns_the_text_is_shown_and_confined() {
    let mut snapshot = fixture::suspect(now());
    snapshot.signals[0].name = "api\u{202e}gpj.exe".to_owned();
    let confined = "api<bdi class=\"unseen\" data-code=\"U+202E\">\u{202e}</bdi>gpj.exe";
    assert!(page(&snapshot).contains(confined), "{}", page(&snapshot));
}

#[test]
fn the_policy_allows_the_style_that_is_there() {
    let sent = html(&view::status(&fixture::quiet(now())), &[], now(), true).expect("a page");
    let (_, rest) = sent.split_once("<style>").expect("a style sheet");
    let style = rest.split_once("</style>").expect("its end").0;
    let hash = STANDARD.encode(Sha256::digest(style));
    assert!(policy().contains(&format!("style-src 'sha256-{hash}';")), "{}", policy());
    for loader in ["<script", "url(", "@import", "style=\"", " src=", "<form", "<base", "http://", "https://"] {
        let allowed = sent.replace("xmlns='http://www.w3.org/2000/svg'", "");
        assert!(!allowed.contains(loader), "{loader}");
    }
}

/// `PAGE_PREVIEW=DIRECTORY cargo test --lib previews` writes every page there, to be looked at in a browser.
#[test]
fn previews() {
    let Some(directory) = std::env::var_os("PAGE_PREVIEW").map(std::path::PathBuf::from) else { return };
    for (name, snapshot) in samples() {
        let html = seen(&view::status(&snapshot), &snapshot, true);
        std::fs::write(directory.join(format!("{name}.html")), html).expect("written");
    }
}
