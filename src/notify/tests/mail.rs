//! Mail through a real SMTP server: see `tests/support/smtp_server.py`.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use super::certificate::Certificate;
use super::{Attempts, BOUND, deliver, living, sender, sender_trusting};
use crate::config::model::{Channel, Secret, Smtp, SmtpTls};
use crate::notify::samples;

pub(super) fn channel() -> Channel {
    Channel::Email("On call <ops@shop.example>".parse().unwrap())
}

/// The server; dropped, it is gone.
struct Server {
    host: &'static str,
    port: u16,
    messages: TempDir,
    _process: Child,
}

impl Server {
    async fn start(arguments: &[&str]) -> Self {
        Self::start_at("127.0.0.1", 0, arguments).await
    }

    async fn start_at(host: &'static str, port: u16, arguments: &[&str]) -> Self {
        let messages = TempDir::new().unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/smtp_server.py");
        // The system's own, which is where Debian's python3-aiosmtpd is.
        let mut process = Command::new("/usr/bin/python3")
            .arg(script)
            .args(["--host", host, "--port", &port.to_string(), "--directory"])
            .arg(messages.path())
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("python3 starts");
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let line = tokio::time::timeout(BOUND, lines.next_line()).await.expect("it starts in time").unwrap();
        let line = line.expect("the SMTP server starts: is python3-aiosmtpd installed?");
        let port = line.strip_prefix("listening ").unwrap().parse().unwrap();
        Self { host, port, messages, _process: process }
    }

    fn smtp(&self) -> Smtp {
        smtp(self.host, self.port)
    }

    /// What it got, in order, with `accepted` or `refused`.
    fn got(&self) -> Vec<(String, Value)> {
        let mut files: Vec<PathBuf> =
            std::fs::read_dir(self.messages.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        let fate = |file: &Path| file.file_stem().unwrap().to_str().unwrap().split_once('-').unwrap().1.to_owned();
        files.iter().map(|file| (fate(file), serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap())).collect()
    }

    fn fates(&self) -> Vec<String> {
        self.got().into_iter().map(|(fate, _)| fate).collect()
    }
}

pub(super) fn smtp(host: &str, port: u16) -> Smtp {
    Smtp {
        host: host.into(),
        port,
        tls: SmtpTls::None,
        credentials: None,
        from: "rollbackd <rollbackd@shop.example>".parse().unwrap(),
        timeout: Duration::from_secs(5),
    }
}

fn header<'a>(mail: &'a Value, name: &str) -> Option<&'a str> {
    mail["headers"].as_array().unwrap().iter().find(|pair| pair[0] == name).map(|pair| pair[1].as_str().unwrap())
}

#[tokio::test]
async fn a_mail_says_the_same_in_text_and_html() {
    let server = Server::start(&[]).await;
    let sender = sender(channel(), Some(server.smtp()));
    let attempts = Attempts::default();
    let notice = samples::fresh(samples::needs_operator());
    deliver(&sender, &notice, "email 1", &attempts).await.unwrap();

    let got = server.got();
    let [(_, mail)] = got.as_slice() else { panic!("{} mails", got.len()) };
    assert_eq!(mail["mail_from"], "rollbackd@shop.example");
    assert_eq!(mail["rcpt_to"], serde_json::json!(["ops@shop.example"]));
    assert_eq!(header(mail, "Subject"), Some("[rollbackd][CRITICAL] shop: needs an operator"));
    assert_eq!(header(mail, "Auto-Submitted"), Some("auto-generated"));
    assert_eq!(header(mail, "To"), Some("On call <ops@shop.example>"));
    assert_eq!(header(mail, "Message-ID"), Some("<shop-20261122T020000Z.7.0.db1@shop.example>"));
    assert_eq!(header(mail, "References"), Some("<shop-20261122T020000Z.1.0.db1@shop.example>"));
    assert_eq!(mail["defects"], serde_json::json!([]));
    assert_eq!(mail["type"], "multipart/alternative");
    let [text, html] = mail["parts"].as_array().unwrap().as_slice() else { panic!("{}", mail["parts"]) };
    assert_eq!((&text["type"], &html["type"]), (&"text/plain".into(), &"text/html".into()));
    for part in [text, html] {
        let content = part["content"].as_str().unwrap();
        assert!(
            content.contains("ALTER TABLE public.content_blocks SET SCHEMA rollbackd_20261122t020000z;"),
            "{content}"
        );
        assert!(content.contains(&notice.message.incident_id), "{content}");
    }
    assert_eq!(attempts.count(), 1);
    assert_eq!(attempts.failures(), Vec::<String>::new());
}

#[tokio::test]
async fn what_is_not_ascii_arrives() {
    let server = Server::start(&[]).await;
    let sender = sender(channel(), Some(server.smtp()));
    let mut notice = samples::fresh(samples::breach());
    notice.message.summary = "Zugriff auf „Beiträge“ schlägt fehl — 日本語 ✓".into();
    deliver(&sender, &notice, "email 1", &Attempts::default()).await.unwrap();
    let got = server.got();
    assert!(got[0].1["raw"].as_str().unwrap().is_ascii(), "not every server takes eight bits");
    for part in got[0].1["parts"].as_array().unwrap() {
        assert!(part["content"].as_str().unwrap().contains(&notice.message.summary), "{part}");
    }
}

#[tokio::test]
async fn greylisting_delays_the_same_mail() {
    let server = Server::start(&["--greylist", "2"]).await;
    let sender = sender(channel(), Some(server.smtp()));
    let attempts = Attempts::default();
    deliver(&sender, &samples::fresh(samples::breach()), "email 1", &attempts).await.unwrap();
    assert_eq!(server.fates(), ["refused", "refused", "accepted"]);
    assert_eq!(attempts.failures(), ["smtp_4yz", "smtp_4yz"]);
    let got = server.got();
    for (_, mail) in &got {
        assert_eq!(mail["raw"], got[0].1["raw"], "the same bytes, Message-ID included");
    }
}

#[tokio::test]
async fn a_refusal_is_final_and_says_why() {
    let server = Server::start(&["--reject"]).await;
    let sender = sender(channel(), Some(server.smtp()));
    let attempts = Attempts::default();
    let error = deliver(&sender, &samples::fresh(samples::breach()), "email 1", &attempts).await.unwrap_err();
    assert!(error.starts_with("the mail server refuses: ") && error.contains("no such user here"), "{error}");
    assert_eq!(attempts.failures(), ["smtp_5yz"]);
}

#[tokio::test]
async fn a_server_that_is_down_at_first_gets_it_when_it_is_up() {
    // An address of its own: nothing else takes the port while nobody listens.
    let host = "127.0.47.11";
    let port = std::net::TcpListener::bind((host, 0)).unwrap().local_addr().unwrap().port();
    let sender = sender(channel(), Some(smtp(host, port)));
    let attempts = Attempts::default();
    let notice = samples::fresh(samples::breach());
    let up = async {
        tokio::time::timeout(BOUND, async {
            while attempts.count() < 2 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .expect("it is attempted while the server is down");
        Server::start_at(host, port, &[]).await
    };
    let (delivered, server) = tokio::join!(deliver(&sender, &notice, "email 1", &attempts), up);
    delivered.unwrap();
    assert_eq!(server.fates(), ["accepted"]);
    assert!(attempts.failures().len() >= 2);
    assert!(attempts.failures().iter().all(|label| label == "connect"), "{:?}", attempts.failures());
}

#[tokio::test]
async fn a_server_that_never_comes_up_lets_the_notice_expire() {
    let host = "127.0.47.12";
    let port = std::net::TcpListener::bind((host, 0)).unwrap().local_addr().unwrap().port();
    let sender = sender(channel(), Some(smtp(host, port)));
    let attempts = Attempts::default();
    let error = deliver(&sender, &living(1000), "email 1", &attempts).await.unwrap_err();
    let said = format!("expired after {} attempts; last: no connection to the mail server: ", attempts.count());
    assert!(error.starts_with(&said), "{error}");
}

#[tokio::test]
async fn a_server_that_says_nothing_is_left() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut smtp = smtp("127.0.0.1", listener.local_addr().unwrap().port());
    smtp.timeout = Duration::from_millis(100);
    let sender = sender(channel(), Some(smtp));
    let attempts = Attempts::default();
    let error = deliver(&sender, &living(300), "email 1", &attempts).await.unwrap_err();
    assert!(error.ends_with("last: the mail server did not answer in time"), "{error}");
    assert_eq!(attempts.failures(), ["timeout"]);
}

#[tokio::test]
async fn starttls_and_signing_in_work_with_a_trusted_certificate_only() {
    let certificate = Certificate::make().await;
    let path = certificate.path();
    let server =
        Server::start(&["--certificate", &path, "--tls", "starttls", "--user", "rollbackd:correct horse"]).await;
    let signing_in = |password: &str| {
        let mut smtp = server.smtp();
        smtp.tls = SmtpTls::StartTls;
        smtp.credentials = Some((Secret::new("rollbackd"), Secret::new(password)));
        smtp
    };

    let trusting = sender_trusting(certificate.trusted(), channel(), Some(signing_in("correct horse")));
    deliver(&trusting, &samples::fresh(samples::breach()), "email 1", &Attempts::default()).await.unwrap();
    let got = server.got();
    assert_eq!((&got[0].1["tls"], &got[0].1["user"]), (&true.into(), &"rollbackd".into()));
    assert_eq!(trusting.reach().await, [(format!("127.0.0.1:{}", server.port), Ok(()))]);
    assert_eq!(server.fates().len(), 1, "greeting sends no mail");

    let attempts = Attempts::default();
    let wrong = sender_trusting(certificate.trusted(), channel(), Some(signing_in("wrong horse")));
    let error = deliver(&wrong, &samples::fresh(samples::breach()), "email 1", &attempts).await.unwrap_err();
    assert!(error.starts_with("the mail server refuses: ") && !error.contains("horse"), "{error}");
    assert_eq!(attempts.failures(), ["smtp_5yz"]);
    assert!(wrong.reach().await[0].1.is_err());

    let attempts = Attempts::default();
    let distrusting = sender(channel(), Some(signing_in("correct horse")));
    let error = deliver(&distrusting, &living(300), "email 1", &attempts).await.unwrap_err();
    assert!(error.contains("no secure connection to the mail server"), "{error}");
    assert_eq!(attempts.failures().first().map(String::as_str), Some("tls"));
    assert_eq!(server.fates().len(), 1);
}

#[tokio::test]
async fn starttls_is_required_not_hoped_for() {
    let server = Server::start(&[]).await;
    let mut smtp = server.smtp();
    smtp.tls = SmtpTls::StartTls;
    let error = deliver(&sender(channel(), Some(smtp)), &living(300), "email 1", &Attempts::default()).await;
    assert!(error.unwrap_err().contains("STARTTLS"));
    assert!(server.got().is_empty());
}

#[tokio::test]
async fn implicit_tls_works() {
    let certificate = Certificate::make().await;
    let server = Server::start(&["--certificate", &certificate.path(), "--tls", "implicit"]).await;
    let mut smtp = server.smtp();
    smtp.tls = SmtpTls::Implicit;
    let sender = sender_trusting(certificate.trusted(), channel(), Some(smtp));
    deliver(&sender, &samples::fresh(samples::breach()), "email 1", &Attempts::default()).await.unwrap();
    assert_eq!(server.fates(), ["accepted"]);
}
