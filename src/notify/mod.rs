//! Delivers notices: one notice, one channel, as often as it takes.
//!
//! Who is owed what is decided in [`rollbackd_core::notice`] and journaled; the driver calls
//! [`Sender::deliver`] for each notice and channel that is owed, once `not_before` has come, and journals its end.
//! Nothing is remembered here: after a restart the same call is made again and sends the same bytes under the same
//! id, so receivers can drop the double.
//!
//! * `retry`: when to try again, and when to give up
//! * `mail` and `webhook`: one attempt each, and what its end means
//! * `reach`: whether the servers can be reached, for the preflight
//! * `trust`: whose certificates are believed

mod mail;
mod reach;
mod retry;
mod trust;
mod webhook;

#[cfg(test)]
pub(crate) mod samples;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use lettre::message::Mailbox;
use rollbackd_core::notice::Notice;

pub use self::reach::Reached;
use self::retry::{Cause, Failure, Pauses, Then};
use self::trust::Trust;
use crate::clock;
use crate::config::model::{Channel, Config};

/// Every label that `attempted` can be called with: values of `reason` in `notice_failures_total`.
pub const FAILURES: [&str; 8] = [
    Cause::Connect.as_str(),
    Cause::Timeout.as_str(),
    Cause::Tls.as_str(),
    Cause::Status4xx.as_str(),
    Cause::Status5xx.as_str(),
    Cause::Smtp4yz.as_str(),
    Cause::Smtp5yz.as_str(),
    Cause::Other.as_str(),
];

/// Carries notices to contacts.
pub struct Sender {
    /// By contact and channel.
    routes: BTreeMap<(String, String), Route>,
    courier: Option<mail::Courier>,
    client: reqwest::Client,
    pauses: Pauses,
}

/// Where a channel leads.
enum Route {
    /// The address, and the contact's place in the configuration's list.
    Mail(Mailbox, usize),
    Webhook(webhook::Endpoint),
}

/// What tests change.
struct Settings {
    pauses: Pauses,
    trust: Trust,
    /// The longest that one request to a webhook may take.
    patience: Duration,
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").field("channels", &self.routes.keys()).finish_non_exhaustive()
    }
}

impl Sender {
    /// Prepares the ways to all contacts; nothing is sent.
    pub fn new(config: &Config) -> Result<Self, String> {
        Self::with(config, &Settings { pauses: Pauses::default(), trust: Trust::load(), patience: webhook::TIMEOUT })
    }

    fn with(config: &Config, settings: &Settings) -> Result<Self, String> {
        let mut routes = BTreeMap::new();
        for (place, contact) in config.contacts.iter().enumerate() {
            for (label, channel) in &contact.channels {
                let route = match channel {
                    Channel::Email(_) if config.smtp.is_none() => {
                        return Err(format!("contact {:?} has a mail address, but there is no [smtp]", contact.name));
                    }
                    Channel::Email(mailbox) => Route::Mail(mailbox.clone(), place),
                    Channel::Webhook { url, key } => {
                        Route::Webhook(webhook::Endpoint { url: url.clone(), key: key.clone() })
                    }
                };
                routes.insert((contact.name.clone(), label.clone()), route);
            }
        }
        Ok(Self {
            routes,
            courier: config.smtp.as_ref().map(|smtp| mail::Courier::new(smtp, &settings.trust)).transpose()?,
            client: webhook::client(&settings.trust, settings.patience)?,
            pauses: settings.pauses,
        })
    }

    /// Delivers one notice on one of its contact's channels, and returns when the receiving server has acknowledged
    /// it. `Err` says why it never can be delivered this way: it is refused for good, or it has expired. It is attempted
    /// at least once.
    ///
    /// `attempted` is called after each attempt, with one of [`FAILURES`] when it failed. Dropping the future ends
    /// the delivery; an attempt that was under way may have arrived.
    pub async fn deliver(
        &self,
        notice: &Notice,
        channel: &str,
        attempted: impl Fn(Option<&str>),
    ) -> Result<(), String> {
        let Some(route) = self.routes.get(&(notice.contact.clone(), channel.to_owned())) else {
            return Err(format!(
                "contact {:?} has no channel {channel:?} in the configuration any more",
                notice.contact
            ));
        };
        match (route, &self.courier) {
            (Route::Mail(to, place), Some(courier)) => {
                let mail = courier.compose(notice, to, *place)?;
                self.persist(notice, channel, attempted, || courier.send(&mail)).await
            }
            (Route::Mail(..), None) => Err("there is no [smtp] to send mail with".to_owned()),
            (Route::Webhook(endpoint), _) => {
                let body = webhook::standard::body(notice)?;
                self.persist(notice, channel, attempted, || endpoint.post(&self.client, notice, &body)).await
            }
        }
    }

    /// Attempts until one succeeds, one fails for good, or the notice expires.
    async fn persist<F>(
        &self,
        notice: &Notice,
        channel: &str,
        attempted: impl Fn(Option<&str>),
        attempt: impl Fn() -> F,
    ) -> Result<(), String>
    where
        F: Future<Output = Result<(), Failure>>,
    {
        // What expired while we were away is tried once all the same: late is better than never.
        let since = clock::Stopwatch::start();
        // Counted without the wall clock from here on, which may be set meanwhile.
        let left = retry::remaining(notice.expires_at, clock::now()).unwrap_or_default();
        let mut failures = 0;
        loop {
            let Err(failure) = attempt().await else {
                attempted(None);
                return Ok(());
            };
            attempted(Some(failure.cause.as_str()));
            failures += 1;
            let Then::Retry { after } = failure.then else { return Err(failure.reason) };
            let Some(remaining) = left.checked_sub(since.elapsed()).filter(|remaining| !remaining.is_zero()) else {
                let times = if failures == 1 { "attempt" } else { "attempts" };
                return Err(format!("expired after {failures} {times}; last: {}", failure.reason));
            };
            let pause = self.pauses.after(failures, since.elapsed(), rand::random());
            let pause = after.map_or(pause, |asked| asked.max(pause)).min(remaining);
            tracing::warn!(
                event = "notice.retry",
                plan = notice.message.plan,
                window = notice.message.window,
                notice = notice.id,
                channel,
                attempt = failures,
                pause_seconds = pause.as_secs_f64(),
                error = failure.reason,
                "a notice is not delivered yet, and is tried again"
            );
            tokio::time::sleep(pause).await;
        }
    }

    /// Whether the mail server greets and the webhooks' hosts accept connections; nothing is delivered. Each server
    /// is asked once, all at the same time.
    pub async fn reach(&self) -> Vec<Reached> {
        let (mail, webhooks) = tokio::join!(self.reach_mail(), self.reach_webhooks());
        mail.into_iter().chain(webhooks).collect()
    }

    /// Whether the mail server greets. `None` when no contact has a mail address.
    pub async fn reach_mail(&self) -> Option<Reached> {
        let wanted = self.routes.values().any(|route| matches!(route, Route::Mail(..)));
        match &self.courier {
            Some(courier) if wanted => Some(reach::mail(courier).await),
            Some(_) | None => None,
        }
    }

    /// Whether the webhooks' hosts accept connections.
    pub async fn reach_webhooks(&self) -> Vec<Reached> {
        reach::webhooks(self.routes.values().filter_map(|route| match route {
            Route::Webhook(endpoint) => Some(endpoint),
            Route::Mail(..) => None,
        }))
        .await
    }
}

/// Whether a server, by host and port, accepts connections.
pub(crate) async fn reach_server(server: (String, u16)) -> Reached {
    reach::connect(server).await
}

/// A client for a single request without credentials, with the same trust as the webhooks'.
pub(crate) fn plain_client(patience: Duration) -> Result<reqwest::Client, String> {
    webhook::client(&Trust::load(), patience)
}

/// The innermost cause of an error, which is the one that says something.
pub(crate) fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    one_line(&innermost.to_string())
}

/// What a server or a library said, as one line of bounded length, so that it fits into a record.
fn one_line(text: &str) -> String {
    const LONGEST: usize = 300;
    let words: Vec<&str> =
        text.split(|c: char| c.is_control() || c.is_whitespace()).filter(|word| !word.is_empty()).collect();
    let line = words.join(" ");
    match line.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", line.get(..end).unwrap_or_default()),
        None => line,
    }
}
