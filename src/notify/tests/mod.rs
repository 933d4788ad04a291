//! Delivery to real servers over real sockets.

mod certificate;
mod exim;
mod mail;
mod receivers;
mod scripted;
mod webhook;

use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use jiff::SignedDuration;
use rollbackd_core::notice::Notice;

use super::retry::Pauses;
use super::trust::Trust;
use super::{FAILURES, Sender, Settings, samples};
use crate::clock;
use crate::config::model::{Channel, Smtp};

/// Nothing here may take longer.
const BOUND: Duration = Duration::from_secs(20);

/// Pauses that a test can wait for.
const SHORT: Pauses = Pauses {
    first: Duration::from_millis(20),
    longest: Duration::from_millis(100),
    young: Duration::from_secs(3600),
    longest_later: Duration::from_millis(100),
};

/// What [`Sender::deliver`] said of its attempts.
#[derive(Default)]
struct Attempts(Mutex<Vec<Option<String>>>);

impl Attempts {
    fn note(&self, failure: Option<&str>) {
        assert!(failure.is_none_or(|label| FAILURES.contains(&label)), "{failure:?} is not among the labels");
        self.0.lock().unwrap().push(failure.map(str::to_owned));
    }

    fn failures(&self) -> Vec<String> {
        self.0.lock().unwrap().iter().flatten().cloned().collect()
    }

    fn count(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

fn sender_trusting(trust: Trust, channel: Channel, smtp: Option<Smtp>) -> Sender {
    let label = match &channel {
        Channel::Email(_) => "email 1",
        Channel::Webhook { .. } => "webhook 1",
    };
    let config = samples::config(Path::new("/nonexistent"), vec![(label.into(), channel)], smtp);
    Sender::with(&config, &Settings { pauses: SHORT, trust, patience: Duration::from_millis(500) }).unwrap()
}

fn sender(channel: Channel, smtp: Option<Smtp>) -> Sender {
    sender_trusting(Trust::load(), channel, smtp)
}

async fn deliver(sender: &Sender, notice: &Notice, channel: &str, attempts: &Attempts) -> Result<(), String> {
    let delivery = sender.deliver(notice, channel, |failure| attempts.note(failure));
    tokio::time::timeout(BOUND, delivery).await.expect("the delivery ends")
}

/// A notice that expires soon.
fn living(milliseconds: i64) -> Notice {
    let mut notice = samples::fresh(samples::started());
    notice.expires_at = clock::now() + SignedDuration::from_millis(milliseconds);
    notice
}

#[tokio::test]
async fn a_channel_that_was_configured_away_is_said_so() {
    let sender = sender(webhook::channel("http://127.0.0.1:1/", None), None);
    let attempts = Attempts::default();
    let error = deliver(&sender, &samples::started(), "webhook 2", &attempts).await.unwrap_err();
    assert_eq!(error, "contact \"Operations\" has no channel \"webhook 2\" in the configuration any more");
    assert_eq!(attempts.count(), 0);
}

#[tokio::test]
async fn a_notice_that_expired_while_we_were_away_is_tried_once() {
    let mut notice = samples::started();
    notice.expires_at = clock::now() - SignedDuration::from_secs(1);
    let down = sender(webhook::channel("http://127.0.0.1:1/", None), None);
    let attempts = Attempts::default();
    let error = deliver(&down, &notice, "webhook 1", &attempts).await.unwrap_err();
    assert!(error.starts_with("expired after 1 attempt; last: no connection to the webhook"), "{error}");
    assert_eq!(attempts.count(), 1);

    let receiver = webhook::Receiver::answering([]).await;
    let up = sender(webhook::channel(receiver.url(), None), None);
    deliver(&up, &notice, "webhook 1", &Attempts::default()).await.unwrap();
}

#[test]
fn a_mail_address_needs_a_mail_server() {
    let channels = vec![("email 1".into(), mail::channel())];
    let error = Sender::new(&samples::config(Path::new("/nonexistent"), channels, None)).unwrap_err();
    assert_eq!(error, "contact \"Operations\" has a mail address, but there is no [smtp]");
}

#[test]
fn a_delivery_can_be_a_task_of_its_own() {
    fn sendable<F: Send>(_: F) {}
    let sender = sender(webhook::channel("http://127.0.0.1:1/", None), None);
    sendable(sender.deliver(&samples::started(), "webhook 1", |_| ()));
    sendable(sender.reach());
}
