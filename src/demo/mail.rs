//! The mail server of the story: receives what rollbackd sends, and keeps it in memory.
//!
//! A minimal SMTP receiver without TLS and without sign-in, for this machine only. Everything is bounded:
//! connections, line length, message size, messages kept, time between two lines.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

const MAX_CONNECTIONS: usize = 16;
const MAX_LINE: u64 = 4096;
const MAX_MESSAGE: usize = 1024 * 1024;
const MAX_RECIPIENTS: usize = 100;
const MAX_KEPT: usize = 1000;
const PATIENCE: Duration = Duration::from_secs(30);

/// One message as it was received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mail {
    /// `MAIL FROM`.
    pub from: String,
    /// `RCPT TO`, in order.
    pub to: Vec<String>,
    /// Headers and body, dots unstuffed.
    pub text: String,
}

impl Mail {
    /// The first header with this name, unfolded; empty when there is none.
    pub fn header(&self, name: &str) -> String {
        let mut found: Option<String> = None;
        for line in self.text.lines().take_while(|line| !line.is_empty()) {
            let folded = line.starts_with([' ', '\t']);
            match &mut found {
                Some(value) if folded => {
                    value.push(' ');
                    value.push_str(line.trim());
                }
                Some(_) => break,
                None => {
                    found = line
                        .split_once(':')
                        .filter(|(key, _)| !folded && key.eq_ignore_ascii_case(name))
                        .map(|(_, value)| value.trim().to_owned());
                }
            }
        }
        found.unwrap_or_default()
    }
}

/// The running server.
#[derive(Debug)]
pub struct Mailbox {
    /// Where it listens.
    pub address: SocketAddr,
    /// What it has received, oldest first; the thousand first are kept.
    pub mails: watch::Receiver<Vec<Mail>>,
}

/// Starts the server on a free port of this machine.
///
/// # Errors
/// A sentence, when no port can be had.
pub async fn start(tracker: &TaskTracker, cancel: &CancellationToken) -> Result<Mailbox, String> {
    let listener =
        TcpListener::bind(("127.0.0.1", 0)).await.map_err(|error| format!("the mail server's port: {error}"))?;
    let address = listener.local_addr().map_err(|error| format!("the mail server's port: {error}"))?;
    let (keep, mails) = watch::channel(Vec::new());
    let keep = Arc::new(keep);
    let (tracker, cancel) = (tracker.clone(), cancel.clone());
    let free = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    tracker.clone().spawn(async move {
        loop {
            let accepted = tokio::select! {
                () = cancel.cancelled() => break,
                accepted = listener.accept() => accepted,
            };
            // Beyond the limit the connection is closed at once; a sender takes that as "try again later".
            if let (Ok((stream, _)), Ok(permit)) = (accepted, Arc::clone(&free).try_acquire_owned()) {
                let (keep, cancel) = (Arc::clone(&keep), cancel.clone());
                tracker.spawn(async move {
                    tokio::select! {
                        () = cancel.cancelled() => {}
                        ended = converse(stream, &keep) => if let Err(error) = ended {
                            tracing::debug!(event = "demo.smtp_ended", %error, "a mail connection ended early");
                        }
                    }
                    drop(permit);
                });
            }
        }
    });
    Ok(Mailbox { address, mails })
}

/// The envelope of the message that is being handed over.
#[derive(Default)]
struct Envelope {
    from: Option<String>,
    to: Vec<String>,
}

async fn converse(mut stream: TcpStream, keep: &watch::Sender<Vec<Mail>>) -> std::io::Result<()> {
    let (read, mut write) = stream.split();
    let mut read = BufReader::new(read);
    reply(&mut write, "220 rollbackd-demo ESMTP").await?;
    let mut envelope = Envelope::default();
    while let Some(line) = read_line(&mut read).await? {
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        let (verb, argument) = text.split_once(' ').unwrap_or((&text, ""));
        match verb.to_ascii_uppercase().as_str() {
            "EHLO" => {
                reply(&mut write, &format!("250-rollbackd-demo\r\n250-8BITMIME\r\n250 SIZE {MAX_MESSAGE}")).await?;
            }
            "HELO" | "NOOP" => reply(&mut write, "250 rollbackd-demo").await?,
            "RSET" => {
                envelope = Envelope::default();
                reply(&mut write, "250 forgotten").await?;
            }
            "MAIL" => {
                envelope = Envelope { from: Some(address(argument)), to: Vec::new() };
                reply(&mut write, "250 sender noted").await?;
            }
            "RCPT" if envelope.from.is_none() => reply(&mut write, "503 MAIL first").await?,
            "RCPT" if envelope.to.len() >= MAX_RECIPIENTS => reply(&mut write, "452 too many recipients").await?,
            "RCPT" => {
                envelope.to.push(address(argument));
                reply(&mut write, "250 recipient noted").await?;
            }
            "DATA" if envelope.to.is_empty() => reply(&mut write, "503 RCPT first").await?,
            "DATA" => {
                reply(&mut write, "354 end with a dot on a line of its own").await?;
                let message = read_message(&mut read).await?;
                let Envelope { from, to } = std::mem::take(&mut envelope);
                let Some(text) = message else {
                    reply(&mut write, "552 the message is too big").await?;
                    continue;
                };
                let mail = Mail { from: from.unwrap_or_default(), to, text };
                let kept = keep.send_if_modified(|mails| {
                    let room = mails.len() < MAX_KEPT;
                    if room {
                        mails.push(mail);
                    }
                    room
                });
                reply(&mut write, if kept { "250 kept" } else { "452 the mailbox is full" }).await?;
            }
            "QUIT" => return reply(&mut write, "221 goodbye").await,
            _ => reply(&mut write, "502 this receiver knows EHLO, MAIL, RCPT, DATA, RSET, NOOP and QUIT").await?,
        }
    }
    Ok(())
}

/// `<ops@shop.example>` of `FROM:<ops@shop.example> SIZE=100`.
fn address(argument: &str) -> String {
    let after = argument.split_once(':').map_or(argument, |(_, after)| after).trim_start();
    let inside = after.strip_prefix('<').and_then(|open| open.split_once('>')).map(|(inside, _)| inside);
    inside.unwrap_or_else(|| after.split(' ').next().unwrap_or(after)).to_owned()
}

/// The lines up to the lone dot; `None` when they are too many, read to the end all the same: a sender that is cut off
/// in the middle would not learn why.
async fn read_message(read: &mut (impl AsyncBufRead + Unpin)) -> std::io::Result<Option<String>> {
    let (mut message, mut length) = (Vec::new(), 0);
    while let Some(line) = read_line(read).await? {
        let line = match line.as_slice() {
            b".\r\n" | b".\n" => {
                return Ok((length <= MAX_MESSAGE).then(|| String::from_utf8_lossy(&message).into_owned()));
            }
            [b'.', rest @ ..] => rest,
            whole => whole,
        };
        length += line.len();
        if length > 8 * MAX_MESSAGE {
            return Err(std::io::Error::other("a message has no end"));
        }
        if length <= MAX_MESSAGE {
            message.extend_from_slice(line);
        }
    }
    Err(std::io::ErrorKind::UnexpectedEof.into())
}

/// One line with its end; `None` when the other side has closed.
async fn read_line(read: &mut (impl AsyncBufRead + Unpin)) -> std::io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let length = timeout(PATIENCE, read.take(MAX_LINE).read_until(b'\n', &mut line)).await??;
    match (length, line.ends_with(b"\n")) {
        (0, _) => Ok(None),
        (_, true) => Ok(Some(line)),
        (_, false) => Err(std::io::Error::other("a line is too long, or cut off")),
    }
}

async fn reply(write: &mut (impl AsyncWrite + Unpin), text: &str) -> std::io::Result<()> {
    timeout(PATIENCE, write.write_all(format!("{text}\r\n").as_bytes())).await?
}

#[cfg(test)]
mod tests;
