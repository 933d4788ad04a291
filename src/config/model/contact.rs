//! Who is told, by which servers.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rollbackd_core::plan::Severity;
use secrecy::ExposeSecret;

use super::{Address, Secret};

/// `[[contact]]`.
#[derive(Debug, Clone)]
pub struct Contact {
    /// `role`.
    pub role: String,
    /// `name`; defaults to the role.
    pub name: String,
    /// `severity`.
    pub severity: Severity,
    /// `after`.
    pub after: Duration,
    /// `email` and `webhook`, labelled `email 1`, `email 2`, `webhook 1`, …
    pub channels: Vec<(String, Channel)>,
}

/// One way to reach a contact.
#[derive(Debug, Clone)]
pub enum Channel {
    /// A mail address.
    Email(lettre::message::Mailbox),
    /// A webhook of format `standard`.
    Webhook {
        /// `url`.
        url: Address,
        /// `secret`: the key of the signature, decoded from `whsec_…`.
        key: Option<Arc<SigningKey>>,
    },
}

/// A webhook's signing key. `Debug` prints `***`.
#[derive(Clone)]
pub struct SigningKey(secrecy::SecretBox<[u8]>);

impl SigningKey {
    /// Takes the bytes.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(secrecy::SecretBox::new(bytes.into_boxed_slice()))
    }

    /// The bytes, for signing.
    pub fn expose(&self) -> &[u8] {
        self.0.expose_secret()
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// `[smtp]`.
#[derive(Debug, Clone)]
pub struct Smtp {
    /// `host`.
    pub host: String,
    /// `port`.
    pub port: u16,
    /// `tls`.
    pub tls: SmtpTls,
    /// `username` and `password`.
    pub credentials: Option<(Secret, Secret)>,
    /// `from`.
    pub from: lettre::message::Mailbox,
    /// `timeout` of one command.
    pub timeout: Duration,
}

/// `smtp.tls`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SmtpTls {
    /// TLS from the first byte.
    Implicit,
    /// `STARTTLS`, required.
    StartTls,
    /// Plaintext.
    None,
}

/// `[heartbeat]`: the dead-man's switch. `Debug` does not show where it is.
#[derive(Clone)]
pub struct Heartbeat {
    /// `url`; its path is its secret.
    pub url: Address,
    /// `every`.
    pub every: Duration,
}

impl fmt::Debug for Heartbeat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Heartbeat").field("every", &self.every).finish_non_exhaustive()
    }
}
