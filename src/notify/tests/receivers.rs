//! Webhooks to receivers that misbehave below HTTP: they stall, trickle, reset, mumble, and show the wrong certificate.

use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;

use super::certificate::Certificate;
use super::webhook::channel;
use super::{Attempts, BOUND, deliver, living, sender, sender_trusting};
use crate::notify::samples;

/// What a receiver does to one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Does {
    /// Answers with this, and closes.
    Answers(&'static str),
    /// Answers with this, and then nothing more comes, and nothing is closed.
    AnswersAndStalls(&'static str),
    /// Sends a byte of a head that never ends, again and again.
    Trickles,
    /// Closes without an answer.
    Closes,
    /// Closes with a reset when it has the request.
    Resets,
    /// Closes with a reset before it has read anything.
    ResetsAtOnce,
}

const TAKEN: Does = Does::Answers("HTTP/1.1 204 No Content\r\n\r\n");

/// A receiver that does one thing a request, and then takes what comes.
struct Receiver {
    url: String,
    /// The `webhook-id`s of the requests that came.
    ids: Arc<Mutex<Vec<String>>>,
    _tasks: JoinSet<()>,
}

impl Receiver {
    async fn that(does: &'static [Does]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook/secret?token=secret", listener.local_addr().unwrap());
        let ids = Arc::new(Mutex::new(Vec::new()));
        let got = Arc::clone(&ids);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            for number in 0.. {
                let (stream, _) = listener.accept().await.unwrap();
                let does = does.get(number).copied().unwrap_or(TAKEN);
                let got = Arc::clone(&got);
                connections.spawn(async move { drop(talk(stream, does, &got).await) });
            }
        });
        Self { url, ids, _tasks: tasks }
    }

    fn ids(&self) -> Vec<String> {
        self.ids.lock().unwrap().clone()
    }
}

async fn talk(mut stream: TcpStream, does: Does, got: &Mutex<Vec<String>>) -> std::io::Result<()> {
    if does == Does::ResetsAtOnce {
        return stream.set_zero_linger();
    }
    let mut request = Vec::new();
    loop {
        let mut part = [0; 4096];
        let read = stream.read(&mut part).await?;
        request.extend_from_slice(&part[..read]);
        let text = String::from_utf8_lossy(&request);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let header = |name: &str| {
            let line = head.lines().find(|line| line.to_ascii_lowercase().starts_with(&format!("{name}: ")));
            line.map(|line| line[name.len() + 2..].to_owned()).unwrap_or_default()
        };
        if body.len() >= header("content-length").parse().unwrap() {
            got.lock().unwrap().push(header("webhook-id"));
            break;
        }
    }
    match does {
        Does::Answers(text) => stream.write_all(text.as_bytes()).await,
        Does::AnswersAndStalls(text) => {
            stream.write_all(text.as_bytes()).await?;
            std::future::pending().await
        }
        Does::Trickles => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nx-slow: ").await?;
            loop {
                stream.write_all(b"x").await?;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        Does::Closes => Ok(()),
        Does::Resets | Does::ResetsAtOnce => stream.set_zero_linger(),
    }
}

#[tokio::test]
async fn what_a_receiver_does_decides_what_follows() {
    let rows: [(Does, &[&str]); 10] = [
        // The head is the answer; what is behind it is not waited for.
        (Does::AnswersAndStalls("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n"), &[]),
        (Does::AnswersAndStalls("HTTP/1.1 202 Accepted\r\ntransfer-encoding: chunked\r\n\r\n"), &[]),
        (Does::AnswersAndStalls("HTTP/1.1 503 Busy\r\ncontent-length: 9\r\n\r\n"), &["status_5xx"]),
        (Does::AnswersAndStalls("HTTP/1.1 429 Slowly\r\nretry-after: 0\r\n\r\n"), &["status_4xx"]),
        (Does::AnswersAndStalls("HTTP/1.1 200 OK\r\n"), &["timeout"]),
        (Does::Trickles, &["timeout"]),
        (Does::Closes, &["other"]),
        (Does::Resets, &["other"]),
        (Does::ResetsAtOnce, &["other"]),
        (Does::Answers("SSH-2.0-OpenSSH_9.2\r\n"), &["other"]),
    ];
    for (does, failures) in rows {
        let receiver = Receiver::that(Box::leak(Box::new([does]))).await;
        let sender = sender(channel(&receiver.url, None), None);
        let attempts = Attempts::default();
        let notice = samples::fresh(samples::breach());
        let result = deliver(&sender, &notice, "webhook 1", &attempts).await;
        assert_eq!(result, Ok(()), "{does:?}");
        assert_eq!(attempts.failures(), failures, "{does:?}");
        let ids = receiver.ids();
        assert!(ids.iter().all(|id| *id == notice.id), "{does:?}: {ids:?}");
        assert!(!ids.is_empty());
    }
}

#[tokio::test]
async fn a_receiver_that_always_stalls_or_resets_lets_the_notice_expire() {
    for (does, said) in [(Does::Trickles, "did not answer in time"), (Does::Resets, "the webhook did not answer: ")] {
        let always: &'static [Does] = Box::leak(vec![does; 1000].into());
        let receiver = Receiver::that(always).await;
        let sender = sender(channel(&receiver.url, None), None);
        let attempts = Attempts::default();
        let error = deliver(&sender, &living(800), "webhook 1", &attempts).await.unwrap_err();
        assert!(error.starts_with("expired after ") && error.contains(said), "{does:?}: {error}");
        assert!(!error.contains("secret"), "{error}");
        assert!(attempts.count() >= 2, "{does:?}: {}", attempts.count());
    }
}

/// A receiver with TLS that takes everything; gone when dropped.
struct Encrypted {
    port: u16,
    _process: Child,
}

impl Encrypted {
    async fn showing(certificate: &Certificate) -> Self {
        let server = "import http.server, ssl, sys\n\
            class Takes(http.server.BaseHTTPRequestHandler):\n    \
                def do_POST(self):\n        \
                    self.rfile.read(int(self.headers['content-length']))\n        \
                    self.send_response(204)\n        \
                    self.end_headers()\n\
            server = http.server.HTTPServer(('127.0.0.1', 0), Takes)\n\
            tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)\n\
            tls.load_cert_chain(sys.argv[1])\n\
            server.socket = tls.wrap_socket(server.socket, server_side=True)\n\
            print(server.server_port, flush=True)\n\
            server.serve_forever()\n";
        let mut process = Command::new("/usr/bin/python3")
            .args(["-c", server, &certificate.path()])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let line = tokio::time::timeout(BOUND, lines.next_line()).await.expect("it starts in time").unwrap();
        Self { port: line.expect("the server starts").parse().unwrap(), _process: process }
    }
}

#[tokio::test]
async fn only_a_certificate_that_is_trusted_and_fits_gets_a_notice() {
    let (own, other) = tokio::join!(Certificate::make(), Certificate::of("DNS:hooks.shop.example"));
    for (certificate, trusts, good) in [(&own, true, true), (&own, false, false), (&other, true, false)] {
        let receiver = Encrypted::showing(certificate).await;
        let channel = channel(&format!("https://127.0.0.1:{}/hook", receiver.port), None);
        let sender = if trusts { sender_trusting(certificate.trusted(), channel, None) } else { sender(channel, None) };
        let attempts = Attempts::default();
        let result = deliver(&sender, &living(2000), "webhook 1", &attempts).await;
        assert_eq!(result.is_ok(), good, "{result:?}");
        let failures = attempts.failures();
        assert_eq!(failures.is_empty(), good, "{failures:?}");
        assert!(failures.iter().all(|label| label == "tls"), "{failures:?}");
    }
}
