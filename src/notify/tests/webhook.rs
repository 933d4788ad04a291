//! Webhooks against a receiver that answers as it is told.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac as _};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::{Attempts, deliver, living, sender};
use crate::clock;
use crate::config::model::{Address, Channel, SigningKey};
use crate::notify::samples;

const KEY: &[u8] = b"a key that only the two know";

pub(super) fn channel(url: &str, key: Option<&[u8]>) -> Channel {
    Channel::Webhook {
        url: Address::new(url.parse().unwrap()),
        key: key.map(|bytes| Arc::new(SigningKey::new(bytes.to_vec()))),
    }
}

/// A receiver; dropped, it is gone.
pub(super) struct Receiver {
    url: String,
    got: Arc<Mutex<Vec<(HeaderMap, Bytes)>>>,
    _server: JoinSet<()>,
}

type Shared = (Arc<Mutex<Vec<(HeaderMap, Bytes)>>>, Arc<Mutex<VecDeque<Response>>>);

impl Receiver {
    /// Gives these answers in turn, and then 204.
    pub(super) async fn answering(answers: impl IntoIterator<Item = Response>) -> Self {
        let got = Arc::new(Mutex::new(Vec::new()));
        let answers: Arc<Mutex<VecDeque<Response>>> = Arc::new(Mutex::new(answers.into_iter().collect()));
        let take = |State((got, answers)): State<Shared>, headers: HeaderMap, body: Bytes| async move {
            got.lock().unwrap().push((headers, body));
            answers.lock().unwrap().pop_front().unwrap_or_else(|| StatusCode::NO_CONTENT.into_response())
        };
        let router = Router::new().route("/hook/secret", post(take)).with_state((Arc::clone(&got), answers));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook/secret?token=secret", listener.local_addr().unwrap());
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, got, _server: server }
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    fn got(&self) -> Vec<(HeaderMap, Bytes)> {
        self.got.lock().unwrap().clone()
    }
}

fn answer(status: u16, headers: &[(&'static str, &str)]) -> Response {
    let mut answer = StatusCode::from_u16(status).unwrap().into_response();
    for (name, value) in headers {
        answer.headers_mut().insert(*name, value.parse().unwrap());
    }
    answer
}

/// As a receiver does it that has read the specification and nothing of ours.
fn signature(headers: &HeaderMap, body: &[u8]) -> String {
    let text = |name| headers.get(name).unwrap().to_str().unwrap();
    let signed = [text("webhook-id").as_bytes(), b".", text("webhook-timestamp").as_bytes(), b".", body].concat();
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(KEY).unwrap();
    mac.update(&signed);
    format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
}

#[tokio::test]
async fn a_receiver_can_trust_what_it_gets() {
    let receiver = Receiver::answering([]).await;
    let sender = sender(channel(&receiver.url, Some(KEY)), None);
    let attempts = Attempts::default();
    let notice = samples::breach();
    let mut notice = samples::fresh(notice);
    notice.at = "2026-11-22T02:14:05.120Z".parse().unwrap();
    deliver(&sender, &notice, "webhook 1", &attempts).await.unwrap();

    let got = receiver.got();
    let [(headers, body)] = got.as_slice() else { panic!("{} requests", got.len()) };
    assert_eq!(headers.get("webhook-id").unwrap(), &notice.id);
    assert_eq!(headers.get("content-type").unwrap(), "application/json");
    assert_eq!(headers.get("webhook-signature").unwrap(), &signature(headers, body));
    let sent_at: i64 = headers.get("webhook-timestamp").unwrap().to_str().unwrap().parse().unwrap();
    assert!(
        (clock::now().as_second() - sent_at).abs() <= 5,
        "the attempt's time, so that a receiver can refuse replays"
    );
    let body: serde_json::Value = serde_json::from_slice(body).unwrap();
    assert_eq!(body["type"], "breach.detected");
    assert_eq!(body["timestamp"], "2026-11-22T02:14:05.120Z");
    assert_eq!(body["data"]["reason"]["observed"], 0.31);
    assert_eq!(attempts.failures(), Vec::<String>::new());
    assert_eq!(attempts.count(), 1);
}

#[tokio::test]
async fn without_a_key_nothing_is_signed() {
    let receiver = Receiver::answering([]).await;
    let sender = sender(channel(&receiver.url, None), None);
    deliver(&sender, &samples::fresh(samples::breach()), "webhook 1", &Attempts::default()).await.unwrap();
    let got = receiver.got();
    assert!(!got[0].0.contains_key("webhook-signature"));
    assert!(got[0].0.contains_key("webhook-id"));
}

#[tokio::test]
async fn a_retry_sends_the_same_id_and_bytes() {
    let receiver = Receiver::answering([answer(500, &[]), answer(503, &[]), answer(408, &[]), answer(429, &[])]).await;
    let sender = sender(channel(&receiver.url, Some(KEY)), None);
    let attempts = Attempts::default();
    deliver(&sender, &samples::fresh(samples::breach()), "webhook 1", &attempts).await.unwrap();

    let got = receiver.got();
    assert_eq!(got.len(), 5);
    for (headers, body) in &got {
        assert_eq!(headers.get("webhook-id"), got[0].0.get("webhook-id"));
        assert_eq!(body, &got[0].1);
        assert_eq!(headers.get("webhook-signature").unwrap(), &signature(headers, body));
    }
    assert_eq!(attempts.failures(), ["status_5xx", "status_5xx", "status_4xx", "status_4xx"]);
    assert_eq!(attempts.count(), 5);
}

#[tokio::test]
async fn a_server_that_asks_for_time_gets_it() {
    for status in [429, 503] {
        let receiver = Receiver::answering([answer(status, &[("retry-after", "1")])]).await;
        let sender = sender(channel(&receiver.url, None), None);
        let watch = clock::Stopwatch::start();
        deliver(&sender, &samples::fresh(samples::breach()), "webhook 1", &Attempts::default()).await.unwrap();
        assert!(watch.elapsed() >= Duration::from_secs(1), "{status}: {:?}", watch.elapsed());
        assert_eq!(receiver.got().len(), 2);
        let until = jiff::Timestamp::from_second(clock::now().as_second() + 2).unwrap();
        let date = until.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
        let receiver = Receiver::answering([answer(status, &[("retry-after", &date)])]).await;
        let dated = super::sender(channel(&receiver.url, None), None);
        deliver(&dated, &samples::fresh(samples::breach()), "webhook 1", &Attempts::default()).await.unwrap();
        assert!(clock::now() >= until, "{status}: {} and not before {until}", clock::now());
        assert_eq!(receiver.got().len(), 2);
    }
}

#[tokio::test]
async fn a_server_that_asks_for_too_much_time_is_asked_once_more_before_the_end() {
    let long = answer(503, &[("retry-after", "86400")]);
    let receiver = Receiver::answering([long]).await;
    let sender = sender(channel(&receiver.url, None), None);
    deliver(&sender, &living(2000), "webhook 1", &Attempts::default()).await.unwrap();
    assert_eq!(receiver.got().len(), 2);
}

#[tokio::test]
async fn a_refusal_is_final_and_says_why() {
    for (status, label, said) in [
        (410, "status_4xx", "the webhook answered 410 Gone, which another try would not change"),
        (404, "status_4xx", "the webhook answered 404 Not Found, which another try would not change"),
        (301, "other", "the webhook answered 301 Moved Permanently; redirects are not followed"),
        (302, "other", "the webhook answered 302 Found; redirects are not followed"),
        (307, "other", "the webhook answered 307 Temporary Redirect; redirects are not followed"),
        (308, "other", "the webhook answered 308 Permanent Redirect; redirects are not followed"),
    ] {
        let elsewhere = Receiver::answering([]).await;
        let receiver =
            Receiver::answering([answer(status, &[("location", &elsewhere.url), ("retry-after", "1")])]).await;
        let sender = sender(channel(&receiver.url, Some(KEY)), None);
        let attempts = Attempts::default();
        let error = deliver(&sender, &samples::fresh(samples::breach()), "webhook 1", &attempts).await.unwrap_err();
        assert!(error.starts_with(said), "{error}");
        assert!(!error.contains("secret?"), "{error}");
        assert_eq!(attempts.failures(), [label]);
        assert_eq!(receiver.got().len(), 1);
        assert_eq!(elsewhere.got().len(), 0, "a redirect is not followed");
    }
}

#[tokio::test]
async fn a_receiver_that_stalls_is_left_and_the_notice_expires() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook/secret", listener.local_addr().unwrap());
    let mut server = JoinSet::new();
    server.spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut sink = Vec::new();
            stream.read_to_end(&mut sink).await.ok();
        }
    });
    let sender = sender(channel(&url, None), None);
    let attempts = Attempts::default();
    let error = deliver(&sender, &living(300), "webhook 1", &attempts).await.unwrap_err();
    assert_eq!(error, "expired after 1 attempt; last: the webhook did not answer in time");
    assert_eq!(attempts.failures(), ["timeout"]);
}

#[tokio::test]
async fn a_host_that_is_down_is_tried_until_the_notice_expires() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook/secret?token=secret", listener.local_addr().unwrap());
    drop(listener);
    let sender = sender(channel(&url, None), None);
    let attempts = Attempts::default();
    let error = deliver(&sender, &living(1000), "webhook 1", &attempts).await.unwrap_err();
    assert!(attempts.count() >= 2, "{}", attempts.count());
    assert!(attempts.failures().iter().all(|label| label == "connect"), "{:?}", attempts.failures());
    let said = format!("expired after {} attempts; last: no connection to the webhook: ", attempts.count());
    assert!(error.starts_with(&said), "{error}");
    assert!(!error.contains("secret"), "{error}");
}

#[tokio::test]
async fn a_broken_secure_connection_is_told_from_a_missing_one() {
    let receiver = Receiver::answering([]).await;
    let sender = sender(channel(&receiver.url.replace("http://", "https://"), None), None);
    let attempts = Attempts::default();
    let error = deliver(&sender, &living(300), "webhook 1", &attempts).await.unwrap_err();
    assert_eq!(attempts.failures().first().map(String::as_str), Some("tls"), "{error}");
    assert!(error.contains("no secure connection to the webhook"), "{error}");
}

#[tokio::test]
async fn reach_connects_and_asks_nothing() {
    let receiver = Receiver::answering([]).await;
    let up = sender(channel(&receiver.url, None), None);
    let reached = up.reach().await;
    let [(server, Ok(()))] = reached.as_slice() else { panic!("{reached:?}") };
    assert!(receiver.url.contains(server.as_str()) && !server.contains("secret"), "{server}");
    assert!(receiver.got().is_empty());

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    drop(listener);
    let reached = sender(channel(&url, None), None).reach().await;
    assert!(matches!(reached.as_slice(), [(_, Err(_))]), "{reached:?}");
}
