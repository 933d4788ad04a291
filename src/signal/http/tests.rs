//! Requests against servers that lead elsewhere, take their time, never end, and show certificates.

use std::path::Path;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use super::super::testing::{Does, Server, answer, http};
use super::*;
use crate::clock;
use crate::config::model::SignalSource;
use crate::preflight;

const LONG: Duration = Duration::from_secs(10);
const SOON: Duration = Duration::from_millis(400);

async fn probe(probe: &HttpProbe) -> Result<u16, Fault> {
    Client::new().unwrap().probe(probe, LONG).await
}

fn redirect(status: u16, to: &str) -> Does {
    Does::Answer(format!("HTTP/1.1 {status} Status\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n").into_bytes())
}

fn following(url: &str, redirects: u8) -> HttpProbe {
    let mut probe = HttpProbe { redirects, ..http(url) };
    probe.headers.insert("apikey".to_owned(), Secret::new("hunter2"));
    probe
}

#[tokio::test]
async fn urls_of_the_same_host_keep_their_own_ports() {
    let addresses = Addresses::default();
    addresses.set("shop.example", vec!["192.0.2.7:8080".parse().unwrap()]);
    let found: Vec<SocketAddr> = addresses.resolve("shop.example".parse().unwrap()).await.unwrap().collect();
    assert_eq!(found, ["192.0.2.7:0".parse().unwrap()]);
    assert!(addresses.resolve("other.example".parse().unwrap()).await.is_err());
}

#[tokio::test]
async fn redirects_are_followed_as_far_as_was_asked() {
    let there = Server::answering(200, "here").await;
    let server = Server::start(redirect(302, &there.url("/there"))).await;
    let mut asked = following(&server.url("/"), 1);
    asked.body_contains = Some("here".to_owned());
    assert_eq!(probe(&asked).await, Ok(200));
    assert!(server.requests()[0].contains("apikey: hunter2\r\n"));
    // Another port is another server.
    let request = &there.requests()[0];
    assert!(request.starts_with("GET /there HTTP/1.1\r\n") && !request.contains("hunter2"), "{request}");

    // A loop ends, and within the same host secrets go along.
    let circle = Server::answering(302, "").await;
    let lost = probe(&following(&circle.url("/"), 3)).await;
    assert_eq!(lost, Err(Fault::Wrong("status 302 after 3 redirects".to_owned())));
    let requests = circle.requests();
    assert_eq!(requests.len(), 4);
    assert!(requests[3].starts_with("GET /elsewhere HTTP/1.1\r\n") && requests[3].contains("hunter2"));

    // What is accepted is not followed, and nothing is when nobody asked for it.
    let accepting = HttpProbe { status: vec![302], ..following(&circle.url("/"), 3) };
    assert_eq!(probe(&accepting).await, Ok(302));
    assert_eq!(probe(&following(&circle.url("/"), 0)).await, Err(Fault::Wrong("status 302".to_owned())));
    assert_eq!(circle.requests().len(), 6);
}

#[tokio::test]
async fn a_redirected_post_is_a_get_unless_it_must_stay_one() {
    let server = Server::answering(303, "").await;
    let post =
        HttpProbe { method: "POST".to_owned(), body: Some(Secret::new("hello")), ..following(&server.url("/"), 1) };
    probe(&post).await.unwrap_err();
    let second = server.requests()[1].clone();
    assert!(second.starts_with("GET /elsewhere ") && !second.contains("hello"), "{second}");
    server.now(Does::Answer(answer(307, "")));
    probe(&post).await.unwrap_err();
    let second = server.requests()[3].clone();
    assert!(second.starts_with("POST /elsewhere ") && second.ends_with("\r\n\r\nhello"), "{second}");
    let elsewhere = Server::answering(200, "").await;
    server.now(redirect(308, &elsewhere.url("/")));
    let kept = probe(&post).await.unwrap_err().into_reason();
    assert_eq!(kept, "status 308 leads to another host, which is not sent the body");
    assert!(elsewhere.requests().is_empty());
}

#[tokio::test]
async fn redirects_share_one_time_limit() {
    let stalling = Server::start(Does::Stall).await;
    let server = Server::start(redirect(302, &stalling.url("/"))).await;
    let watch = clock::Stopwatch::start();
    let late = Client::new().unwrap().probe(&following(&server.url("/"), 5), SOON).await.unwrap_err().into_reason();
    assert!(late.starts_with("no answer within 400ms: connected after "), "{late}");
    assert!(watch.elapsed() < 4 * SOON);
}

/// The parts of a probe and its outcome.
async fn parts(does: Does) -> (Vec<(&'static str, Duration)>, Result<u16, String>) {
    let server = Server::start(does).await;
    let phases = Phases::default();
    let outcome = Client::new().unwrap().probe_in(&http(&server.url("/")), SOON, &phases).await;
    (phases.took(), outcome.map_err(Fault::into_reason))
}

#[tokio::test]
async fn each_part_of_a_reading_is_timed_as_far_as_it_came() {
    let names = |took: &[(&'static str, Duration)]| took.iter().map(|(name, _)| *name).collect::<Vec<_>>();
    let (took, outcome) = parts(Does::Answer(answer(200, "ok"))).await;
    assert_eq!((names(&took), outcome), (phases::NAMES.to_vec(), Ok(200)));
    assert!(took.iter().map(|(_, took)| *took).sum::<Duration>() < SOON, "{took:?}");

    let (took, outcome) = parts(Does::Stall).await;
    assert_eq!(names(&took), ["resolve", "connect", "wait"]);
    assert!(took[2].1 > SOON / 2, "all of it was waiting: {took:?}");
    let outcome = outcome.unwrap_err();
    assert!(outcome.starts_with("no answer within 400ms: connected after "), "{outcome}");
    assert!(outcome.ends_with(" ms, no answer's head"), "{outcome}");

    let half = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf".to_vec();
    let (took, outcome) = parts(Does::AnswerAndStall(half)).await;
    assert_eq!(names(&took), phases::NAMES);
    assert!(took[3].1 > SOON / 2, "{took:?}");
    assert!(outcome.unwrap_err().ends_with(" ms later, its body not whole"));
}

#[tokio::test]
async fn a_connection_that_is_not_made_is_told_from_an_answer_that_does_not_come() {
    // The backlog of one is filled; further connections wait for a handshake that does not come.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let full = listener.local_addr().unwrap();
    let mut held = Vec::new();
    for _ in 0..8 {
        match tokio::time::timeout(Duration::from_millis(100), tokio::net::TcpStream::connect(full)).await {
            Ok(stream) => held.push(stream.unwrap()),
            Err(_) => break,
        }
    }
    let phases = Phases::default();
    let probe = http(&format!("http://{full}/"));
    let late = Client::new().unwrap().probe_in(&probe, SOON, &phases).await.unwrap_err().into_reason();
    assert_eq!(late, "no answer within 400ms: not connected");
    assert_eq!(phases.took().last().map(|(name, _)| *name), Some("connect"));
}

#[tokio::test]
async fn a_body_that_never_ends_is_cut_and_does_not_hold_up_the_reading() {
    // Larger than what is looked at, without a length, and no end.
    let mut endless = b"HTTP/1.1 200 OK\r\n\r\nstart".to_vec();
    endless.resize(BODY_CAP + 64 * 1024, b'x');
    let server = Server::start(Does::AnswerAndStall(endless)).await;
    let contains = |text: &str| HttpProbe { body_contains: Some(text.to_owned()), ..http(&server.url("/")) };
    assert_eq!(probe(&contains("start")).await, Ok(200));
    let cut = probe(&contains("end")).await.unwrap_err();
    assert!(matches!(&cut, Fault::Unreadable(reason) if reason.starts_with("first 1048576 bytes: ")), "{cut:?}");
}

/// A web server with TLS and a certificate for 127.0.0.1; gone when dropped.
struct Encrypted {
    _child: Child,
    directory: tempfile::TempDir,
    port: u16,
}

impl Encrypted {
    async fn start(days: u32) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let script = format!(
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days {days} -subj /CN=shop \
             -addext subjectAltName=IP:127.0.0.1 -addext basicConstraints=critical,CA:FALSE -keyout key -out crt 2>&1"
        );
        let made = Command::new("sh").args(["-ec", &script]).current_dir(directory.path()).output().await.unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stdout));
        let server = "import http.server, ssl\n\
            server = http.server.HTTPServer(('127.0.0.1', 0), http.server.SimpleHTTPRequestHandler)\n\
            tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)\n\
            tls.load_cert_chain('crt', 'key')\n\
            server.socket = tls.wrap_socket(server.socket, server_side=True)\n\
            print(server.server_port, flush=True)\n\
            server.serve_forever()\n";
        let mut child = Command::new("/usr/bin/python3")
            .args(["-c", server])
            .current_dir(directory.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let port = lines.next_line().await.unwrap().expect("the server starts").parse().unwrap();
        Self { _child: child, directory, port }
    }

    fn client(&self) -> Client {
        use rustls_pki_types::pem::PemObject as _;
        let mut roots = rustls::RootCertStore::empty();
        roots.add(rustls_pki_types::CertificateDer::from_pem_file(self.path().join("crt")).unwrap()).unwrap();
        Client::trusting(roots).unwrap()
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn url(&self) -> String {
        format!("https://127.0.0.1:{}/", self.port)
    }
}

#[tokio::test]
async fn a_certificate_that_expires_is_seen_and_no_bad_reading() {
    let server = Encrypted::start(5).await;
    let client = server.client();
    let phases = Phases::default();
    assert_eq!(client.probe_in(&http(&server.url()), LONG, &phases).await, Ok(200));
    assert_eq!(phases.took().len(), 4);
    let expires = phases.certificate_expires().expect("it was shown");
    let left = expires.duration_since(clock::now()).as_hours();
    assert!((24 * 5 - 1..=24 * 5).contains(&left), "{left} hours");

    let config = |url: &str| super::super::testing::config(vec![SignalSource::Http(http(url))], LONG);
    let expiring = preflight::expiring_seen_by(&client, &config(&server.url())).await;
    let [expiring] = &expiring[..] else { panic!("{expiring:?}") };
    assert_eq!((expiring.signal.as_str(), expiring.expires), ("http 0", expires));
    assert!(expiring.warning.starts_with("the certificate expires in "), "{expiring:?}");
    // Who is not trusted is not looked at, and who shows no certificate has none that expires.
    let phases = Phases::default();
    let refused = Client::new().unwrap().probe_in(&http(&server.url()), LONG, &phases).await.unwrap_err();
    assert!(matches!(&refused, Fault::Wrong(reason) if reason.starts_with("TLS failure: ")), "{refused:?}");
    assert_eq!(phases.certificate_expires(), None);
    let plain = Server::answering(200, "").await;
    assert_eq!(preflight::expiring_seen_by(&client, &config(&plain.url("/"))).await, []);

    let lasting = Encrypted::start(60).await;
    assert_eq!(preflight::expiring_seen_by(&lasting.client(), &config(&lasting.url())).await, []);
}

#[tokio::test]
async fn a_redirect_is_followed_with_tls_too() {
    let server = Encrypted::start(5).await;
    std::fs::create_dir(server.path().join("pages")).unwrap();
    // Asked for a directory without its slash, the server leads to the one with it.
    let asked = |redirects| HttpProbe { redirects, ..http(&format!("{}pages", server.url())) };
    assert_eq!(server.client().probe(&asked(1), LONG).await, Ok(200));
    assert_eq!(server.client().probe(&asked(0), LONG).await, Err(Fault::Wrong("status 301".to_owned())));
}
