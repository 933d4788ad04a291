//! Mail: one SMTP transaction an attempt and address, and what its end means.
//!
//! [`letter`] reads the notice, [`text`] and [`html`] lay it out, [`compose`] makes the mail of it; [`carry`] brings it to
//! the server.

mod carry;
mod compose;
mod html;
mod letter;
mod text;

use lettre::message::Mailbox;
use rollbackd_core::notice::Notice;

use super::retry::Failure;
use super::trust::Trust;
use crate::config::model::Smtp;

/// The way to the mail server.
pub(super) struct Courier {
    server: carry::Server,
    from: Mailbox,
}

impl Courier {
    /// Prepares the way; nothing is sent.
    pub(super) fn new(smtp: &Smtp, trust: &Trust) -> Result<Self, String> {
        Ok(Self { server: carry::Server::new(smtp, trust)?, from: smtp.from.clone() })
    }

    /// The server, by name and port.
    pub(super) fn server(&self) -> (String, u16) {
        (self.server.host.clone(), self.server.port)
    }

    /// Writes the mail to an address of the contact at this place of the configuration's list.
    pub(super) fn compose(&self, notice: &Notice, to: &Mailbox, place: usize) -> Result<lettre::Message, String> {
        compose::compose(notice, &self.from, to, place)
    }

    /// One attempt.
    pub(super) async fn send(&self, mail: &lettre::Message) -> Result<(), Failure> {
        self.server.carry(mail).await
    }

    /// Greets the server, signs in where that is configured, and leaves without a mail.
    pub(super) async fn greet(&self) -> Result<(), String> {
        self.server.greet().await.map_err(|failure| failure.reason)
    }
}
