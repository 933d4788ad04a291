//! Requests to a real server.

use super::*;
use crate::config::model::{HttpCall, Secret};

fn call(url: &str, method: &str, body: Option<&str>) -> HttpCall {
    let headers = [("Authorization".to_owned(), Secret::new("Bearer hunter2"))].into();
    HttpCall { url: address(url), method: method.to_owned(), headers, body: body.map(Secret::new) }
}

fn http_gate(server: &str) -> Gate {
    let stop = call(&format!("{server}/pools/shop?key=hunter2"), "PUT", Some("{\"state\":\"hunter2\"}"));
    gate(GateKind::Http { stop, start: call(&format!("{server}/pools/shop"), "DELETE", None) }, None)
}

#[tokio::test]
async fn the_requests_are_sent_as_configured_and_their_secrets_are_not_told() {
    let server = Server::answering(204, "").await;
    let gate = http_gate(&server.url(""));
    assert_eq!(prior_of(&gate).await, "unknown");
    let closed = close(&gate, "unknown", LONG).await;
    assert_succeeded(&closed);
    let opened = open(&gate, "unknown", LONG).await;
    assert_succeeded(&opened);
    let requests = server.requests();
    assert_eq!(requests.len(), 2, "{requests:?}");
    let stop = requests[0].to_lowercase();
    assert!(stop.starts_with("put /pools/shop?key=hunter2 http/1.1\r\n"), "{stop}");
    assert!(stop.contains("authorization: bearer hunter2\r\n") && stop.ends_with("{\"state\":\"hunter2\"}"), "{stop}");
    assert!(requests[1].starts_with("DELETE /pools/shop HTTP/1.1\r\n"), "{}", requests[1]);
    for detail in [&closed.detail, &opened.detail] {
        assert!(detail.contains("/pools/shop was answered with status 204") && !detail.contains("hunter2"), "{detail}");
    }
    assert!(!format!("{gate:?}").contains("hunter2"), "{gate:?}");
}

#[tokio::test]
async fn whatever_is_not_done_is_a_failure() {
    let server = Server::answering(302, "").await;
    let gate = http_gate(&server.url(""));
    for (does, said) in [
        (Does::Answer(answer(302, "")), "status 302, and only 2xx counts"),
        (Does::Answer(answer(401, "")), "status 401, and only 2xx counts"),
        (Does::Reset, "was not answered: "),
        (Does::Stall, "was not answered: "),
    ] {
        server.now(does);
        for outcome in [close(&gate, "unknown", LONG).await, open(&gate, "unknown", LONG).await] {
            assert!(!outcome.is_success() && outcome.detail.contains(said), "{outcome:?}");
            assert!(!outcome.detail.contains("hunter2"), "{outcome:?}");
        }
    }
}

#[tokio::test]
async fn it_is_known_beforehand_whether_somebody_listens() {
    let server = Server::answering(204, "").await;
    let said = rehearse(&http_gate(&server.url("")), &nowhere(), LONG).await.unwrap();
    assert!(said.ends_with("/pools/shop can be reached"), "{said}");
    assert!(server.requests().iter().all(String::is_empty), "nothing is asked");
    let refused = rehearse(&http_gate(&format!("http://{}", closed_port().await)), &nowhere(), LONG).await.unwrap_err();
    assert!(refused.contains("cannot be reached (connection refused)") && !refused.contains("hunter2"), "{refused}");
}
