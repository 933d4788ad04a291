//! One mail, one connection: greeting, TLS, signing in, the mail, goodbye.
//!
//! A server that has the mail may take long to say so, because it scans first. Leaving it too soon would make it deliver
//! again what it has already delivered, so it is given more time then than before. What it says to our goodbye, or that it
//! says nothing, changes nothing: the mail is its own by then.

use std::time::Duration;

use lettre::transport::smtp;
use lettre::transport::smtp::authentication::{Credentials, DEFAULT_MECHANISMS};
use lettre::transport::smtp::client::{AsyncSmtpConnection, TlsParameters};
use lettre::transport::smtp::commands::{Data, Mail, Rcpt};
use lettre::transport::smtp::extension::{ClientId, Extension, MailParameter};
use tokio::time::timeout;

use super::super::one_line;
use super::super::retry::{Cause, Failure};
use super::super::trust::{self, Trust};
use crate::config::model::{Smtp, SmtpTls};

/// All commands before the mail's contents, in times of `smtp.timeout`.
const TALK: u32 = 4;
/// The answer to the contents: with ten seconds it is five minutes.
const ANSWER: u32 = 30;
/// The answer to the goodbye.
const GOODBYE: Duration = Duration::from_millis(500);

/// The mail server, and how to speak to it.
pub(super) struct Server {
    pub(super) host: String,
    pub(super) port: u16,
    security: Security,
    credentials: Option<Credentials>,
    hello: ClientId,
    timeout: Duration,
}

enum Security {
    None,
    Implicit(TlsParameters),
    StartTls(TlsParameters),
}

impl Server {
    pub(super) fn new(smtp: &Smtp, trust: &Trust) -> Result<Self, String> {
        let security = match smtp.tls {
            SmtpTls::Implicit => Security::Implicit(trust.mail_parameters(&smtp.host)?),
            SmtpTls::StartTls => Security::StartTls(trust.mail_parameters(&smtp.host)?),
            SmtpTls::None => Security::None,
        };
        let credentials = smtp.credentials.as_ref();
        Ok(Self {
            host: smtp.host.clone(),
            port: smtp.port,
            security,
            credentials: credentials
                .map(|(username, password)| Credentials::new(username.expose().into(), password.expose().into())),
            hello: hello_name(),
            timeout: smtp.timeout,
        })
    }

    /// Hands a mail over.
    pub(super) async fn carry(&self, mail: &lettre::Message) -> Result<(), Failure> {
        let mut connection = self.within(TALK, self.open()).await?;
        let handed_over = self.hand_over(&mut connection, mail).await;
        let answered = match &handed_over {
            Ok(()) => true,
            Err(failure) => matches!(failure.cause, Cause::Smtp4yz | Cause::Smtp5yz),
        };
        if answered {
            goodbye(connection).await;
        }
        handed_over
    }

    /// Greets, signs in where that is configured, and leaves.
    pub(super) async fn greet(&self) -> Result<(), Failure> {
        goodbye(self.within(TALK, self.open()).await?).await;
        Ok(())
    }

    async fn open(&self) -> Result<AsyncSmtpConnection, smtp::Error> {
        let server = (self.host.as_str(), self.port);
        let wrapper = match &self.security {
            Security::Implicit(parameters) => Some(parameters.clone()),
            Security::None | Security::StartTls(_) => None,
        };
        let mut connection =
            AsyncSmtpConnection::connect_tokio1(server, Some(self.timeout), &self.hello, wrapper, None).await?;
        if let Security::StartTls(parameters) = &self.security {
            connection.starttls(parameters.clone(), &self.hello).await?;
        }
        if let Some(credentials) = &self.credentials {
            connection.auth(DEFAULT_MECHANISMS, credentials).await?;
        }
        Ok(connection)
    }

    async fn hand_over(&self, connection: &mut AsyncSmtpConnection, mail: &lettre::Message) -> Result<(), Failure> {
        let envelope = mail.envelope();
        let mut parameters = Vec::new();
        let mut addresses = envelope.to().iter().chain(envelope.from());
        if !addresses.all(|address| AsRef::<str>::as_ref(address).is_ascii()) {
            if !connection.server_info().supports_feature(Extension::SmtpUtfEight) {
                let reason = "the mail server takes no address that is not ASCII";
                return Err(Failure::lasting(Cause::Other, reason));
            }
            parameters.push(MailParameter::SmtpUtfEight);
        }
        let announced = async {
            connection.command(Mail::new(envelope.from().cloned(), parameters)).await?;
            for to in envelope.to() {
                connection.command(Rcpt::new(to.clone(), Vec::new())).await?;
            }
            connection.command(Data).await
        };
        self.within(TALK, announced).await?;
        self.within(ANSWER, connection.message(&mail.formatted())).await?;
        Ok(())
    }

    async fn within<T>(&self, times: u32, talk: impl Future<Output = Result<T, smtp::Error>>) -> Result<T, Failure> {
        match timeout(self.timeout.saturating_mul(times), talk).await {
            Ok(result) => result.map_err(|error| judge(&error)),
            Err(_late) => Err(late()),
        }
    }
}

/// Leaves in order, without waiting long for the answer.
async fn goodbye(mut connection: AsyncSmtpConnection) {
    timeout(GOODBYE, connection.quit()).await.ok();
}

/// The host's name where it is a full one, as RFC 5321 asks; else the address literal that it allows instead.
fn hello_name() -> ClientId {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let full =
        name.contains('.') && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'));
    if full { ClientId::Domain(name) } else { ClientId::Ipv4(std::net::Ipv4Addr::LOCALHOST) }
}

fn late() -> Failure {
    Failure::passing(Cause::Timeout, "the mail server did not answer in time")
}

/// What the end of a transaction means: only the server's own 5yz ends it for good.
fn judge(error: &smtp::Error) -> Failure {
    let said = one_line(&error.to_string());
    if error.is_permanent() {
        Failure::lasting(Cause::Smtp5yz, format!("the mail server refuses: {said}"))
    } else if error.is_transient() {
        Failure::passing(Cause::Smtp4yz, format!("the mail server asks to try later: {said}"))
    } else if error.is_timeout() {
        late()
    } else if error.is_tls() || trust::is_tls(error) {
        Failure::passing(Cause::Tls, format!("no secure connection to the mail server: {said}"))
    } else if error.is_response() && said.ends_with("incomplete response") {
        Failure::passing(Cause::Connect, "the mail server hung up in the middle")
    } else if error.is_client() || error.is_response() {
        Failure::passing(Cause::Other, format!("the mail server and we do not understand each other: {said}"))
    } else {
        Failure::passing(Cause::Connect, format!("no connection to the mail server: {said}"))
    }
}
