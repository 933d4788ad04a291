//! The status page: as a browser sees it, and saying the same as everything else.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use serde_json::Value;

use crate::endings::BREAKING;
use crate::stage::{Behaviour, Mail, Stage, read_between, script};

/// A stage whose daemon also listens on a TCP port.
fn stage(name: &str) -> (Stage, String) {
    let mut stage = Stage::new(name);
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    stage.plan.services = format!("\n[http]\nlisten = \"{address}\"\n");
    let migration = stage.migration(BREAKING);
    stage.plan.command(&migration);
    (stage, address.to_string())
}

/// An answer of the TCP port, head and body.
fn fetch(address: &str, request: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    write!(stream, "{request} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

/// The sentence in the journal's record of the decision.
fn journalled(stage: &Stage) -> String {
    let id = stage.status().unwrap()["window"]["id"].as_str().unwrap().to_owned();
    let (_, body) = stage.get(&format!("/api/v1/windows/{id}")).unwrap();
    let window: Value = serde_json::from_str(&body).unwrap();
    let records = window["records"].as_array().unwrap();
    let decision = records.iter().find(|entry| entry["record"]["type"] == "breach_detected").unwrap();
    decision["record"]["trigger"]["evidence"][0]["sentence"].as_str().unwrap().to_owned()
}

fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn the_sentence_of_a_decision_is_the_same_in_journal_notice_report_and_page() {
    let (mut stage, address) = stage("sentence");
    let mail = Mail::start(&stage, Behaviour::Takes);
    stage.plan.mail(mail.port());
    let daemon = stage.daemon();
    stage.cli(&["window", "open", "--wait"]).expect(20);
    let sentence = journalled(&stage);
    assert!(sentence.starts_with("rule \"api is down\": ") && sentence.contains("; last: "), "{sentence}");

    let hook = stage.hooks.wait_for("rollback.started");
    assert_eq!(hook["data"]["summary"], format!("Rolling back: {sentence}."));
    let letter = mail.wait_for("rollback started");
    let text = letter["parts"][0]["content"].as_str().unwrap();
    assert!(words(text).contains(&sentence), "`{sentence}` is not in {text}");
    let html = letter["parts"][1]["content"].as_str().unwrap();
    assert!(read_between(html, "<h1", "</p>").contains(&sentence), "`{sentence}` is not in {html}");

    let report: Value = serde_json::from_str(&stage.cli(&["report", "--format", "json"]).expect(0).stdout).unwrap();
    assert_eq!(report["trigger"]["sentence"], sentence);
    assert_eq!(report["trigger"]["evidence"][0]["sentence"], sentence);
    let status = stage.status().unwrap();
    assert_eq!(status["decision"]["sentence"], sentence);
    let shown = |page: &str| read_between(page, "<blockquote id=\"sentence\">", "</blockquote>");
    let (_, page) = fetch(&address, "GET /");
    assert_eq!(shown(&page), sentence);
    let numbers = read_between(&page, "<dl class=\"numbers three\">", "</dl>");
    let evidence = &report["trigger"]["evidence"][0];
    for (name, value) in [
        ("Observed", format!("{} in a row", evidence["observed"])),
        ("Allowed", "fewer than 3".to_owned()),
        ("Samples", evidence["samples"].to_string()),
    ] {
        let value = value.replace(".0 ", " ");
        assert!(numbers.contains(&format!("<dt>{name}</dt><dd>{value}</dd>")), "{name} {value} is not in {numbers}");
    }

    // The journal has it, so that another life of the daemon shows it too.
    daemon.term().expect(0);
    let daemon = stage.daemon();
    assert_eq!(shown(&fetch(&address, "GET /").1), sentence);
    daemon.term().expect(0);
}

#[test]
fn a_browser_has_nothing_to_complain_of() {
    let (mut stage, address) = stage("browser");
    // What a complaint looks like: without one this test could not fail.
    let policy = "<meta http-equiv='Content-Security-Policy' content=\"default-src 'none'\">";
    std::fs::write(stage.path("bad.html"), format!("<!doctype html>{policy}<title>x</title><style>b{{}}</style>"))
        .unwrap();
    let bad = stage.browse(&format!("file://{}", stage.path("bad.html").display()));
    assert!(bad.complaints.iter().any(|line| line.contains("Content Security Policy")), "{bad:?}");

    let failing = stage.script("emergency.sh", "exit 3");
    stage.plan.rungs = script(&failing);
    let daemon = stage.daemon();
    let look = |title: &str| {
        for path in ["/", "/?still"] {
            let seen = stage.browse(&format!("http://{address}{path}"));
            assert_eq!(seen.complaints, Vec::<String>::new());
            assert_eq!(seen.between("<title>", "</title>"), format!("{title} · shop · rollbackd"));
            assert!(seen.document.contains("</footer>"), "{seen:?}");
        }
    };
    look("No window yet");
    stage.cli(&["window", "open", "--wait"]).expect(21);
    look("Needs an operator");
    let (_, page) = fetch(&address, "GET /");
    let status = stage.status().unwrap();
    let (reason, manual) = (&status["operator"]["reason"], status["operator"]["manual"].as_array().unwrap());
    assert_eq!(read_between(&page, "<p class=\"why\"><bdi>", "</bdi>"), reason.as_str().unwrap());
    let told = read_between(&page, "<pre tabindex=\"0\" dir=\"ltr\"><code>", "</code>");
    let told = told.replace("<span class=\"note\">", "").replace("</span>", "");
    assert_eq!(told.lines().collect::<Vec<_>>(), manual.iter().map(|line| line.as_str().unwrap()).collect::<Vec<_>>());

    let (head, nothing) = fetch(&address, "HEAD /");
    assert!(head.starts_with("HTTP/1.1 200 ") && nothing.is_empty(), "{head}");
    assert!(fetch(&address, "PUT /").0.starts_with("HTTP/1.1 405 "));
    daemon.term().expect(0);
}
