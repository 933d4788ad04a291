//! The shop's customers: they read posts, sign in and write comments all the time, and remember how it went.
//!
//! They are the story's independent witness. What they say about the outage, and that the originals keep growing while
//! all this happens, does not come from rollbackd.

use std::net::SocketAddr;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use reqwest::{Client, RequestBuilder, StatusCode};
use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How many customers there are.
const CUSTOMERS: u32 = 3;
/// The pause between two requests of one customer.
const PAUSE: Duration = Duration::from_millis(150);
/// How long a customer waits for an answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// What the customers have seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Experience {
    /// Requests answered as they should be.
    pub served: u64,
    /// Requests that failed: 5xx other than 503, no answer, wrong answer.
    pub failed: u64,
    /// Requests that met the maintenance page.
    pub turned_away: u64,
    /// The first request that was not served.
    pub outage_began: Option<Timestamp>,
    /// The last request that was not served.
    pub last_unserved: Option<Timestamp>,
    /// The first post that was read again after the last request that was not served.
    pub outage_ended: Option<Timestamp>,
}

/// How one request went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Visit {
    /// The page of posts was there.
    PostsRead,
    /// Something else worked.
    Served,
    Failed,
    TurnedAway,
}

impl Experience {
    fn add(&mut self, visit: Visit, at: Timestamp) {
        match visit {
            Visit::PostsRead | Visit::Served => self.served += 1,
            Visit::Failed => self.failed += 1,
            Visit::TurnedAway => self.turned_away += 1,
        }
        match visit {
            // A sign-in that works in the middle of the outage does not end it: the posts were what broke.
            Visit::PostsRead if self.outage_began.is_some() && self.outage_ended.is_none() => {
                self.outage_ended = Some(at);
            }
            Visit::PostsRead | Visit::Served => {}
            Visit::Failed | Visit::TurnedAway => {
                self.outage_began.get_or_insert(at);
                self.last_unserved = Some(at);
                self.outage_ended = None;
            }
        }
    }

    /// From the first request that was not served until posts were read again.
    pub fn outage(&self) -> Option<SignedDuration> {
        Some(self.outage_ended?.duration_since(self.outage_began?))
    }
}

/// Sends the customers to the shop.
///
/// # Errors
/// A sentence, when no HTTP client can be made.
pub fn start(
    shop: SocketAddr,
    apikey: &str,
    tracker: &TaskTracker,
    cancel: &CancellationToken,
) -> Result<watch::Receiver<Experience>, String> {
    let (tell, experience) = watch::channel(Experience::default());
    let client = Client::builder().timeout(PATIENCE).no_proxy().build().map_err(|error| error.to_string())?;
    for number in 0..CUSTOMERS {
        let customer =
            Customer { client: client.clone(), shop: format!("http://{shop}"), apikey: apikey.to_owned(), number };
        let (tell, cancel) = (tell.clone(), cancel.clone());
        tracker.spawn(async move {
            // Each with a phase of its own, so that they do not come in step.
            let mut pause = PAUSE / CUSTOMERS * number;
            for turn in 0.. {
                tokio::select! {
                    () = cancel.cancelled() => break,
                    () = tokio::time::sleep(pause) => {}
                }
                let visit = customer.visit(turn).await;
                let at = crate::clock::now();
                tell.send_modify(|experience| experience.add(visit, at));
                pause = PAUSE;
            }
        });
    }
    Ok(experience)
}

struct Customer {
    client: Client,
    shop: String,
    apikey: String,
    number: u32,
}

impl Customer {
    /// Mostly reads, sometimes signs in, now and then writes a comment.
    async fn visit(&self, turn: u32) -> Visit {
        let request = match turn % 10 {
            3 | 7 => self.client.post(format!("{}/auth/v1/token?grant_type=password", self.shop)).json(&json!({
                "email": format!("customer{}@shop.example", self.number + 2),
                "password": format!("correct horse {}", self.number + 2),
            })),
            9 => self.client.post(format!("{}/api/comments", self.shop)).json(&json!({
                "post_id": turn % 400 + 1,
                "email": format!("customer{}@shop.example", self.number + 2),
                "body": "Written while rollbackd was watching.",
            })),
            _ => return self.outcome(self.client.get(format!("{}/api/posts", self.shop)), Visit::PostsRead).await,
        };
        self.outcome(request, Visit::Served).await
    }

    async fn outcome(&self, request: RequestBuilder, good: Visit) -> Visit {
        match request.header("apikey", &self.apikey).send().await {
            Ok(answer) if answer.status().is_success() => good,
            Ok(answer) if answer.status() == StatusCode::SERVICE_UNAVAILABLE => Visit::TurnedAway,
            Ok(_) | Err(_) => Visit::Failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_lasts_from_the_first_failure_to_the_first_post_after_the_last() {
        let mut seen = Experience::default();
        let at = |second| Timestamp::from_second(second).unwrap();
        for (visit, second) in [
            (Visit::PostsRead, 1),
            (Visit::Failed, 10),
            (Visit::Served, 11),
            (Visit::TurnedAway, 12),
            (Visit::PostsRead, 13),
            (Visit::TurnedAway, 14),
            (Visit::Served, 15),
            (Visit::PostsRead, 16),
            (Visit::PostsRead, 17),
        ] {
            seen.add(visit, at(second));
        }
        assert_eq!(seen.outage(), Some(SignedDuration::from_secs(6)));
        assert_eq!((seen.served, seen.failed, seen.turned_away), (6, 1, 2));
        assert_eq!(seen.last_unserved, Some(at(14)));
    }

    #[test]
    fn no_outage_has_no_length() {
        let mut seen = Experience::default();
        seen.add(Visit::PostsRead, Timestamp::UNIX_EPOCH);
        assert_eq!(seen.outage(), None);
        seen.add(Visit::Failed, Timestamp::UNIX_EPOCH);
        assert_eq!(seen.outage(), None);
    }
}
