//! The daemon, asked through its control socket.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request, header};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::time::Instant;

use super::exit::{Exit, Stop};
use crate::journal::redb::is_held;
use crate::server::control_socket;
use crate::server::view::{Done, ProblemBody, Wish};

/// For connecting, sending, and reading the whole answer; the daemon itself takes ten seconds at most.
const WITHIN: Duration = Duration::from_secs(20);
/// So long a daemon may have the journal and not listen …
const ABSENT: Duration = Duration::from_secs(8);
/// … and so often it is tried.
const AGAIN: Duration = Duration::from_millis(50);
/// An answer may have so many bytes: a window's records hold the catalog from before the migration.
const ANSWER_BYTES: usize = 256 * 1024 * 1024;

/// A way to the daemon.
#[derive(Debug, Clone)]
pub(super) struct Client {
    state_dir: PathBuf,
    socket: PathBuf,
}

/// No answer, or not the one that was hoped for.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unanswered {
    /// Nobody listens.
    #[error("no daemon answers at {}; start it with `rollbackd run`", .0.display())]
    NoDaemon(PathBuf),
    /// Somebody listens, and something is wrong with it.
    #[error("the daemon at {} cannot be asked: {reason}", socket.display())]
    Broken {
        /// Where.
        socket: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// It ended, or went over to another configuration, with the request in its hands.
    #[error(
        "the daemon at {} ended the connection before it had answered ({reason}); `rollbackd status` shows what it has done",
        socket.display()
    )]
    CutOff {
        /// Where.
        socket: PathBuf,
        /// What the connection says.
        reason: String,
    },
    /// The daemon says no.
    #[error("{detail}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// Why, and the way out.
        detail: String,
    },
}

impl From<Unanswered> for Stop {
    fn from(error: Unanswered) -> Self {
        let exit = match &error {
            Unanswered::NoDaemon(_)
            | Unanswered::Broken { .. }
            | Unanswered::CutOff { .. }
            | Unanswered::Refused { status: 503, .. } => Exit::Unavailable,
            Unanswered::Refused { .. } => Exit::Failed,
        };
        Self::new(exit, error.to_string())
    }
}

impl Client {
    /// The daemon of a state directory.
    pub(super) fn new(state_dir: &Path) -> Self {
        Self { state_dir: state_dir.to_owned(), socket: control_socket(state_dir) }
    }

    /// Reads something.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Unanswered> {
        let answer = self.ask(Method::GET, path, "application/json", Bytes::new()).await?;
        serde_json::from_slice(&answer).map_err(|error| self.broken(&format!("its answer is not understood: {error}")))
    }

    /// Reads something in a form of its own.
    pub(super) async fn get_text(&self, path: &str, accept: &'static str) -> Result<String, Unanswered> {
        let answer = self.ask(Method::GET, path, accept, Bytes::new()).await?;
        String::from_utf8(answer.into()).map_err(|error| self.broken(&format!("its answer is not text: {error}")))
    }

    /// Asks for something to be done.
    pub(super) async fn post(&self, path: &str, wish: &Wish) -> Result<Done, Unanswered> {
        let body = to_bytes(wish).map_err(|reason| self.broken(&reason))?;
        let answer = self.ask(Method::POST, path, "application/json", body).await?;
        serde_json::from_slice(&answer).map_err(|error| self.broken(&format!("its answer is not understood: {error}")))
    }

    async fn ask(&self, method: Method, path: &str, accept: &'static str, body: Bytes) -> Result<Bytes, Unanswered> {
        let began = Instant::now();
        loop {
            let asked = self.exchange(method.clone(), path, accept, body.clone());
            match tokio::time::timeout(WITHIN, asked).await {
                // A daemon that begins, or goes over to another configuration, has the journal before it listens.
                Ok(Err(error))
                    if can_be_asked_again(&error, &method) && began.elapsed() < ABSENT && is_held(&self.state_dir) =>
                {
                    tokio::time::sleep(AGAIN).await;
                }
                Ok(answer) => return answer,
                Err(_) => return Err(self.broken(&format!("it did not answer within {} s", WITHIN.as_secs()))),
            }
        }
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        accept: &'static str,
        body: Bytes,
    ) -> Result<Bytes, Unanswered> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| self.not_connected(&error))?;
        let failed = |error: hyper::Error| self.cut_off(&error.to_string());
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "rollbackd")
            .header(header::ACCEPT, accept)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|error| self.broken(&error.to_string()))?;
        let exchanged = async {
            let response = sender.send_request(request).await.map_err(failed)?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_BYTES).collect().await;
            // Without a sender the connection ends, and with it the other half of the join.
            drop(sender);
            Ok((status, body.map_err(|error| self.broken(&error.to_string()))?.to_bytes()))
        };
        let (answer, _) = tokio::join!(exchanged, connection);
        let (status, body) = answer?;
        if status.is_success() {
            return Ok(body);
        }
        let detail = match serde_json::from_slice::<ProblemBody>(&body) {
            Ok(problem) => problem.detail,
            Err(_) => format!("the daemon answered {status}"),
        };
        Err(Unanswered::Refused { status: status.as_u16(), detail })
    }

    fn not_connected(&self, error: &io::Error) -> Unanswered {
        let kind = error.kind();
        if matches!(kind, io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) {
            Unanswered::NoDaemon(self.socket.clone())
        } else if kind == io::ErrorKind::PermissionDenied {
            self.broken("you may not open its socket; run this as the daemon's user or as a member of its group")
        } else {
            self.broken(&error.to_string())
        }
    }

    fn cut_off(&self, reason: &str) -> Unanswered {
        Unanswered::CutOff { socket: self.socket.clone(), reason: reason.to_owned() }
    }

    fn broken(&self, reason: &str) -> Unanswered {
        Unanswered::Broken { socket: self.socket.clone(), reason: reason.to_owned() }
    }
}

/// Whether it does no harm. What was asked for may have been done, where the connection was lost: only looking is repeated.
fn can_be_asked_again(error: &Unanswered, method: &Method) -> bool {
    match error {
        Unanswered::NoDaemon(_) => true,
        Unanswered::CutOff { .. } => *method == Method::GET,
        Unanswered::Broken { .. } | Unanswered::Refused { .. } => false,
    }
}

fn to_bytes(value: &impl Serialize) -> Result<Bytes, String> {
    serde_json::to_vec(value).map(Bytes::from).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::UnixListener;

    use super::*;
    use crate::journal::redb::RedbJournal;

    /// Cuts the first connection off and answers the others; how many there were.
    async fn serve(listener: UnixListener, requests: usize) {
        for number in 0..requests {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            if number > 0 {
                let mut request = [0; 1024];
                assert!(stream.read(&mut request).await.expect("a request") > 0);
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nwell").await.expect("sent");
            }
        }
    }

    #[tokio::test]
    async fn a_daemon_that_goes_over_to_another_configuration_is_asked_again_by_who_only_looks() {
        let directory = tempfile::tempdir().expect("a directory");
        let _journal = RedbJournal::open(directory.path()).expect("a journal");
        let client = Client::new(directory.path());
        let listen = || UnixListener::bind(control_socket(directory.path())).expect("a socket");

        let (answer, ()) = tokio::join!(client.get_text("/metrics", "text/plain"), serve(listen(), 2));
        assert_eq!(answer.expect("an answer"), "well");

        std::fs::remove_file(control_socket(directory.path())).expect("removed");
        let wish = Wish { reason: "a test".to_owned(), ..Wish::default() };
        let (answer, ()) = tokio::join!(client.post("/api/v1/rollback", &wish), serve(listen(), 1));
        let error = answer.expect_err("nobody knows");
        assert!(matches!(error, Unanswered::CutOff { .. }), "{error}");
        assert!(error.to_string().contains("`rollbackd status` shows what it has done"), "{error}");
    }
}
