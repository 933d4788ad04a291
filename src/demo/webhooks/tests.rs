use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::*;

/// The check value of the interface contract, computed by others.
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
const SIGNATURE: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
const BODY: &[u8] = br#"{"test": 2432232314}"#;

#[test]
fn the_known_signature_is_right_and_anything_else_is_not() {
    let key = decode(SECRET).unwrap();
    assert_eq!(verify(&key, ID, "1614265330", SIGNATURE, BODY), Ok(()));
    assert_eq!(verify(&key, ID, "1614265330", &format!("v1,AAAA v2,x {SIGNATURE}"), BODY), Ok(()));
    for (id, timestamp, header, body) in [
        ("msg_other", "1614265330", SIGNATURE, BODY),
        (ID, "1614265331", SIGNATURE, BODY),
        (ID, "1614265330", SIGNATURE, br#"{"test": 2432232315}"#),
        (ID, "1614265330", "v1,g0hM9SsE", BODY),
        (ID, "1614265330", "", BODY),
    ] {
        assert!(verify(&key, id, timestamp, header, body).is_err(), "{id} {timestamp} {header}");
    }
    assert!(verify(b"another key", ID, "1614265330", SIGNATURE, BODY).is_err());
}

#[test]
fn a_timestamp_may_be_five_minutes_off() {
    assert_eq!(recent("1000", 1300), Ok(()));
    assert!(recent("1000", 1301).is_err());
    assert!(recent("1301", 1000).is_err());
    assert!(recent("soon", 1000).is_err());
}

/// Posts a body and gives back the status line's code.
async fn send(address: SocketAddr, signature: &str, timestamp: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!(
        "POST /hooks HTTP/1.1\r\nhost: x\r\nconnection: close\r\nwebhook-id: {ID}\r\nwebhook-timestamp: {timestamp}\r\n\
         webhook-signature: {signature}\r\ncontent-length: {}\r\n\r\n{}",
        BODY.len(),
        String::from_utf8_lossy(BODY)
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(Duration::from_secs(5), stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    answer.split(' ').nth(1).unwrap_or_default().to_owned()
}

#[tokio::test]
async fn what_comes_in_is_kept_with_the_judgement_on_its_signature() {
    let (tracker, cancel) = (TaskTracker::new(), CancellationToken::new());
    let hooks = start(SECRET, &tracker, &cancel).await.unwrap();
    let timestamp = crate::clock::now().as_second().to_string();
    let mut mac = Hmac::<Sha256>::new_from_slice(&decode(SECRET).unwrap()).unwrap();
    mac.update(format!("{ID}.{timestamp}.{}", String::from_utf8_lossy(BODY)).as_bytes());
    let signature = format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
    assert_eq!(send(hooks.address, &signature, &timestamp).await, "204");
    assert_eq!(send(hooks.address, SIGNATURE, &timestamp).await, "401");
    // Signed rightly, five years ago.
    assert_eq!(send(hooks.address, SIGNATURE, "1614265330").await, "401");
    let received = hooks.received.borrow().clone();
    assert_eq!(received.iter().map(|one| one.signature.is_ok()).collect::<Vec<_>>(), [true, false, false]);
    assert!(received.iter().all(|one| one.id == ID && one.event().is_empty() && one.body["test"] == 2_432_232_314_u64));
    cancel.cancel();
    tracker.close();
    timeout(Duration::from_secs(5), tracker.wait()).await.expect("the receiver ends when it is cancelled");
}

#[tokio::test]
async fn a_secret_that_is_none_is_refused() {
    let (tracker, cancel) = (TaskTracker::new(), CancellationToken::new());
    for secret in ["MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_???"] {
        let error = start(secret, &tracker, &cancel).await.unwrap_err();
        assert!(error.contains("whsec_") && !error.contains("???"), "{error}");
    }
}
