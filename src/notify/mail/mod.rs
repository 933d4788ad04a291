//! Mail: one SMTP transaction an attempt and address, and what its end means.
//!
//! [`letter`] reads the notice, [`text`] and [`html`] lay it out, [`compose`] makes the mail of it; this file
//! carries it to the server.

mod compose;
mod html;
mod letter;
mod text;

use std::time::Duration;

use lettre::message::Mailbox;
use lettre::transport::smtp;
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::Tls;
use lettre::transport::smtp::extension::ClientId;
use lettre::{AsyncSmtpTransport, AsyncTransport as _, Tokio1Executor};
use rollbackd_core::notice::Notice;

use super::retry::{Cause, Failure};
use super::trust::{self, Trust};
use crate::config::model::{Smtp, SmtpTls};

/// A transaction is about ten commands, of which the last may wait for a scanner; `smtp.timeout` is for one.
const COMMANDS: u32 = 4;

/// The way to the mail server.
pub(super) struct Courier {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
    host: String,
    port: u16,
    patience: Duration,
}

impl Courier {
    /// Prepares the way; nothing is sent.
    pub(super) fn new(smtp: &Smtp, trust: &Trust) -> Result<Self, String> {
        let tls = match smtp.tls {
            SmtpTls::Implicit => Tls::Wrapper(trust.mail_parameters(&smtp.host)?),
            SmtpTls::StartTls => Tls::Required(trust.mail_parameters(&smtp.host)?),
            SmtpTls::None => Tls::None,
        };
        let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&smtp.host)
            .port(smtp.port)
            .tls(tls)
            .hello_name(hello_name())
            .timeout(Some(smtp.timeout));
        if let Some((username, password)) = &smtp.credentials {
            builder = builder.credentials(Credentials::new(username.expose().into(), password.expose().into()));
        }
        Ok(Self {
            transport: builder.build(),
            from: smtp.from.clone(),
            host: smtp.host.clone(),
            port: smtp.port,
            patience: smtp.timeout.saturating_mul(COMMANDS),
        })
    }

    /// The server, by name and port.
    pub(super) fn server(&self) -> (String, u16) {
        (self.host.clone(), self.port)
    }

    /// Writes the mail to an address of the contact at this place of the configuration's list.
    pub(super) fn compose(&self, notice: &Notice, to: &Mailbox, place: usize) -> Result<lettre::Message, String> {
        compose::compose(notice, &self.from, to, place)
    }

    /// One attempt.
    pub(super) async fn send(&self, mail: &lettre::Message) -> Result<(), Failure> {
        match tokio::time::timeout(self.patience, self.transport.send(mail.clone())).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(judge(&error)),
            Err(_) => Err(Failure::passing(Cause::Timeout, "the mail server did not answer in time")),
        }
    }

    /// Greets the server, signs in where that is configured, and leaves without a mail.
    pub(super) async fn greet(&self) -> Result<(), String> {
        match self.transport.test_connection().await {
            Ok(true) => Ok(()),
            Ok(false) => Err("the mail server greets, but does not go on".to_owned()),
            Err(error) => Err(judge(&error).reason),
        }
    }
}

/// The host's name where it is a full one, as RFC 5321 asks; else the address literal that it allows instead.
fn hello_name() -> ClientId {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let full =
        name.contains('.') && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'));
    if full { ClientId::Domain(name) } else { ClientId::Ipv4(std::net::Ipv4Addr::LOCALHOST) }
}

/// What the end of a transaction means: only the server's own 5yz ends it for good.
fn judge(error: &smtp::Error) -> Failure {
    let said = super::one_line(&error.to_string());
    if error.is_permanent() {
        Failure::lasting(Cause::Smtp5yz, format!("the mail server refuses: {said}"))
    } else if error.is_transient() {
        Failure::passing(Cause::Smtp4yz, format!("the mail server asks to try later: {said}"))
    } else if error.is_timeout() {
        Failure::passing(Cause::Timeout, "the mail server did not answer in time")
    } else if error.is_tls() || trust::is_tls(error) {
        Failure::passing(Cause::Tls, format!("no secure connection to the mail server: {said}"))
    } else if error.is_client() || error.is_response() {
        Failure::passing(Cause::Other, format!("the mail server and we do not understand each other: {said}"))
    } else {
        Failure::passing(Cause::Connect, format!("no connection to the mail server: {said}"))
    }
}
