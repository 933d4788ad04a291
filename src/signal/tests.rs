use std::time::Duration;

use rollbackd_core::sample::Reading;

use super::testing::{Does, Server, address, answer, closed_port, config, http, shell};
use super::*;
use crate::config::model::{HttpProbe, JsonCondition, JsonTest, Secret};

const SOON: Duration = Duration::from_millis(400);
const LONG: Duration = Duration::from_secs(10);

async fn read(source: SignalSource, timeout: Duration) -> Reading {
    Reader::new(Arc::new(config(vec![source], timeout))).unwrap().read(0).await.sample.reading
}

async fn read_http(probe: HttpProbe) -> Reading {
    read(SignalSource::Http(probe), LONG).await
}

async fn read_tcp(address: String) -> Reading {
    read(SignalSource::Tcp { address }, LONG).await
}

async fn read_command(script: &str) -> Reading {
    read(SignalSource::Command { run: shell(script) }, LONG).await
}

fn is_unreadable_with(reading: &Reading, part: &str) -> bool {
    matches!(reading, Reading::Unreadable { reason } if reason.contains(part))
}

#[tokio::test]
async fn an_accepted_answer_is_good_and_nothing_of_the_request_is_lost() {
    let server = Server::answering(200, "[{\"id\": 7}]").await;
    let mut probe = http(&server.url("/rest/v1/posts?select=id&limit=1"));
    probe.method = "POST".to_owned();
    probe.headers.insert("apikey".to_owned(), Secret::new("anon"));
    probe.body = Some(Secret::new("hello"));
    probe.body_contains = Some("id".to_owned());
    probe.json = vec![JsonCondition { pointer: "/0/id".to_owned(), test: JsonTest::AtLeast(7.0) }];
    assert_eq!(read_http(probe).await, Reading::good());
    let request = &server.requests()[0];
    assert!(request.starts_with("POST /rest/v1/posts?select=id&limit=1 HTTP/1.1\r\n"), "{request}");
    assert!(request.contains("apikey: anon\r\n") && request.ends_with("\r\n\r\nhello"), "{request}");
}

#[tokio::test]
async fn a_wrong_status_is_bad_and_a_configured_one_is_good() {
    let server = Server::answering(503, "").await;
    assert_eq!(read_http(http(&server.url("/"))).await, Reading::bad("status 503"));
    let accepting = HttpProbe { status: vec![200, 503], ..http(&server.url("/")) };
    assert_eq!(read_http(accepting).await, Reading::good());
    server.now(Does::Answer(answer(200, "")));
    let only_204 = HttpProbe { status: vec![204], ..http(&server.url("/")) };
    assert_eq!(read_http(only_204).await, Reading::bad("status 200"));
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_not_followed() {
    let server = Server::answering(302, "").await;
    assert_eq!(read_http(http(&server.url("/"))).await, Reading::bad("status 302"));
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn a_rate_limit_says_nothing_about_the_application() {
    let server = Server::answering(429, "").await;
    assert_eq!(read_http(http(&server.url("/"))).await, Reading::unreadable("rate limited (status 429)"));
    let wanted = HttpProbe { status: vec![429], ..http(&server.url("/")) };
    assert_eq!(read_http(wanted).await, Reading::good());
}

#[tokio::test]
async fn a_wrong_body_is_bad_and_the_body_is_not_shown() {
    let server = Server::answering(200, "{\"secret\": \"row\"}").await;
    let contains = HttpProbe { body_contains: Some("id".to_owned()), ..http(&server.url("/")) };
    assert_eq!(read_http(contains).await, Reading::bad("body does not contain \"id\""));
    let json = vec![JsonCondition { pointer: "/secret".to_owned(), test: JsonTest::Equals("x".into()) }];
    assert_eq!(
        read_http(HttpProbe { json: json.clone(), ..http(&server.url("/")) }).await,
        Reading::bad("\"/secret\" is not \"x\"")
    );
    server.now(Does::Answer(answer(200, "<html>")));
    assert_eq!(read_http(HttpProbe { json, ..http(&server.url("/")) }).await, Reading::bad("body is not JSON"));
}

#[tokio::test]
async fn of_a_large_body_only_the_beginning_is_judged() {
    let server = Server::answering(200, &format!("start{}end", "x".repeat(3 * 1024 * 1024))).await;
    let contains = |text: &str| HttpProbe { body_contains: Some(text.to_owned()), ..http(&server.url("/")) };
    assert_eq!(read_http(contains("start")).await, Reading::good());
    let end = read_http(contains("end")).await;
    assert!(is_unreadable_with(&end, "first 1048576 bytes: body does not contain"), "{end:?}");
    assert_eq!(read_http(http(&server.url("/"))).await, Reading::good());
}

#[tokio::test]
async fn no_answer_is_bad_and_says_how() {
    let server = Server::start(Does::Reset).await;
    assert_eq!(read_http(http(&server.url("/"))).await, Reading::bad("connection reset"));
    let closed = "the connection was closed before the answer was whole";
    server.now(Does::Close);
    assert_eq!(read_http(http(&server.url("/"))).await, Reading::bad(closed));
    let half = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf".to_vec();
    server.now(Does::Answer(half.clone()));
    assert_eq!(read_http(http(&server.url("/"))).await, Reading::bad(closed));
    server.now(Does::Answer(b"SSH-2.0-OpenSSH_9.2\r\n\r\n".to_vec()));
    assert_eq!(read_http(http(&server.url("/"))).await, Reading::bad("what answered does not speak HTTP"));

    let refused = format!("http://{}/path?apikey=hidden", closed_port().await);
    assert_eq!(read_http(http(&refused)).await, Reading::bad("connection refused"));

    for does in [Does::Stall, Does::AnswerAndStall(half)] {
        server.now(does);
        let late = read(SignalSource::Http(http(&server.url("/"))), SOON).await;
        assert!(late.is_bad(), "{late:?}");
        assert!(late.reason().unwrap().starts_with("no answer within 400ms: connected after "), "{late:?}");
    }
}

#[tokio::test]
async fn what_does_not_speak_tls_is_bad() {
    let server = Server::start(Does::Greet(answer(200, "plain"))).await;
    let reading = read_http(http(&server.url("/").replace("http:", "https:"))).await;
    assert!(reading.is_bad() && reading.reason().unwrap().starts_with("TLS failure: "), "{reading:?}");
}

#[tokio::test]
async fn every_probe_makes_a_connection_of_its_own() {
    let server = Server::start(Does::AnswerAndStall(answer(200, "ok"))).await;
    let source = SignalSource::Http(http(&server.url("/")));
    let reader = Reader::new(Arc::new(config(vec![source], LONG))).unwrap();
    assert_eq!(reader.read(0).await.sample.reading, Reading::good());
    // A kept connection would stall here.
    assert_eq!(reader.read(0).await.sample.reading, Reading::good());
    assert_eq!(server.requests().len(), 2);
}

#[tokio::test]
async fn a_name_that_does_not_resolve_is_unreadable() {
    let reading = read_http(http("http://shop.invalid/path?apikey=hidden")).await;
    assert_eq!(reading, Reading::unreadable("the name shop.invalid does not resolve"));
    let reading = read(SignalSource::Tcp { address: "shop.invalid:80".to_owned() }, LONG).await;
    assert_eq!(reading, Reading::unreadable("the name shop.invalid does not resolve"));
    let malformed = read_tcp("shop".to_owned()).await;
    assert_eq!(malformed, Reading::unreadable("`shop` is not `host:port`"));
}

#[tokio::test]
async fn a_malformed_header_is_our_mistake_and_not_shown() {
    let server = Server::answering(200, "").await;
    let mut probe = http(&server.url("/?q=hidden"));
    probe.headers.insert("apikey".to_owned(), Secret::new("hidden\n"));
    let reading = read_http(probe).await;
    assert!(is_unreadable_with(&reading, "the request cannot be made"), "{reading:?}");
    assert!(!format!("{reading:?}").contains("hidden"));
}

#[tokio::test]
async fn tcp_connects_or_is_refused() {
    let server = Server::start(Does::Stall).await;
    assert_eq!(read_tcp(server.address.to_string()).await, Reading::good());
    assert_eq!(read_tcp(format!("localhost:{}", server.address.port())).await, Reading::good());
    assert_eq!(read_tcp(closed_port().await.to_string()).await, Reading::bad("connection refused"));
}

#[tokio::test]
async fn a_listener_that_takes_no_more_is_a_time_out() {
    // The backlog of one is filled; further connections wait for a handshake that does not come.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut held = Vec::new();
    for _ in 0..8 {
        match tokio::time::timeout(Duration::from_millis(100), tokio::net::TcpStream::connect(address)).await {
            Ok(stream) => held.push(stream.unwrap()),
            Err(_) => break,
        }
    }
    let late = read(SignalSource::Tcp { address: address.to_string() }, SOON).await;
    assert_eq!(late, Reading::bad("no answer within 400ms"));
}

#[tokio::test]
async fn a_command_says_it_with_its_exit_code() {
    assert_eq!(read_command("exit 0").await, Reading::good());
    assert_eq!(read_command("echo noise >&2; echo 12.5").await, Reading::good_with(12.5));
    assert_eq!(read_command("echo all is well; echo 12").await, Reading::good());
    assert_eq!(read_command("echo inf").await, Reading::good());
    let failed = read_command("echo first; echo queue is stuck >&2; exit 4").await;
    assert_eq!(failed, Reading::bad("exited with 4: queue is stuck"));
    let long = read_command("printf 'x%.0s' $(seq 500); exit 1").await;
    assert!(long.is_bad() && long.reason().unwrap().chars().count() < 230);
}

#[tokio::test]
async fn a_command_that_could_not_look_is_unreadable() {
    let late = read(SignalSource::Command { run: shell("sleep 100") }, SOON).await;
    assert_eq!(late, Reading::unreadable("the command did not end within 400ms"));
    assert!(is_unreadable_with(&read_command("kill -9 $$").await, "was ended by signal 9"));
    let mut missing = shell("");
    missing.program = "no-such-probe".to_owned();
    let missing = read(SignalSource::Command { run: missing }, LONG).await;
    assert!(is_unreadable_with(&missing, "`no-such-probe` was not found"), "{missing:?}");
}

#[tokio::test]
async fn a_database_that_refuses_is_bad() {
    let mut config = config(vec![SignalSource::Postgres { url: None, query: "select true".to_owned() }], LONG);
    config.database.url = address(&format!("postgres://postgres@{}/shop", closed_port().await));
    let reading = Reader::new(Arc::new(config)).unwrap().read(0).await.sample.reading;
    assert!(reading.is_bad(), "{reading:?}");
}

#[tokio::test]
async fn a_signal_that_is_not_there_is_unreadable() {
    let reader = Reader::new(Arc::new(config(Vec::new(), LONG))).unwrap();
    assert_eq!(reader.read(3).await.sample.reading, Reading::unreadable("there is no signal number 3"));
}

async fn read_with_witnesses(source: SignalSource, timeout: Duration, witnesses: &[String]) -> Reading {
    let mut config = config(vec![source], timeout);
    config.decision.witnesses = witnesses.iter().map(|witness| address(witness)).collect();
    Reader::new(Arc::new(config)).unwrap().read(0).await.sample.reading
}

#[tokio::test]
async fn without_a_witness_a_missing_answer_is_unreadable() {
    let refused = SignalSource::Tcp { address: closed_port().await.to_string() };
    let nobody = format!("tcp://{}", closed_port().await);
    let cut_off = read_with_witnesses(refused.clone(), LONG, std::slice::from_ref(&nobody)).await;
    assert_eq!(
        cut_off,
        Reading::unreadable("connection refused; no witness answers: the watcher itself seems cut off")
    );
    let stalling = Server::start(Does::Stall).await;
    let late = SignalSource::Http(http(&stalling.url("/")));
    assert!(is_unreadable_with(
        &read_with_witnesses(late, SOON, std::slice::from_ref(&nobody)).await,
        "no witness answers"
    ));

    let listening = Server::start(Does::Stall).await;
    let witnesses = [nobody.clone(), format!("tcp://{}", listening.address)];
    assert_eq!(read_with_witnesses(refused.clone(), LONG, &witnesses).await, Reading::bad("connection refused"));
    let failing = Server::answering(500, "").await;
    let witnesses = [nobody.clone(), failing.url("/")];
    assert_eq!(read_with_witnesses(refused, LONG, &witnesses).await, Reading::bad("connection refused"));
    // A wrong answer is one: no witness is needed.
    let wrong = SignalSource::Http(http(&failing.url("/")));
    assert_eq!(read_with_witnesses(wrong, LONG, &[nobody]).await, Reading::bad("status 500"));
}

#[tokio::test]
async fn many_failures_ask_the_witnesses_once() {
    let witness = Server::answering(200, "").await;
    let refused = SignalSource::Tcp { address: closed_port().await.to_string() };
    let mut config = config(vec![refused; 10], LONG);
    config.decision.witnesses = vec![address(&witness.url("/"))];
    let reader = Reader::new(Arc::new(config)).unwrap();
    let readings = futures_util::future::join_all((0..10).map(|signal| reader.read(signal))).await;
    assert!(readings.iter().all(|read| read.sample.reading == Reading::bad("connection refused")));
    assert_eq!(witness.requests().len(), 1);
}
