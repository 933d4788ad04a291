//! Certificates of HTTP signals that expire soon: said, and no reason to refuse a window.

use futures_util::future::join_all;
use jiff::Timestamp;

use crate::clock;
use crate::config::model::{Config, SignalSource};
use crate::signal::http::phases::Phases;
use crate::signal::http::{Client, certificate};

/// A certificate that expires soon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expiring {
    /// The signal whose server shows it.
    pub signal: String,
    /// When it expires.
    pub expires: Timestamp,
    /// That, for people.
    pub warning: String,
}

/// Asks every HTTP signal once, none longer than its own time-out. What does not answer shows no certificate.
pub async fn expiring(config: &Config) -> Vec<Expiring> {
    match Client::new() {
        Ok(client) => expiring_seen_by(&client, config).await,
        Err(_no_tls) => Vec::new(),
    }
}

pub(crate) async fn expiring_seen_by(client: &Client, config: &Config) -> Vec<Expiring> {
    let looks = config.signals.iter().map(|signal| async move {
        let SignalSource::Http(probe) = &signal.source else { return None };
        let phases = Phases::default();
        client.probe_in(probe, signal.timeout, &phases).await.ok();
        let expires = phases.certificate_expires()?;
        let warning = certificate::warning(expires, clock::now())?;
        Some(Expiring { signal: signal.name.clone(), expires, warning })
    });
    join_all(looks).await.into_iter().flatten().collect()
}
