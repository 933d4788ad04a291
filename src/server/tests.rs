//! The server over real sockets, with a driver that only answers. The command line's tests use it too.

mod answers;
mod controls;
mod sockets;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rollbackd_core::run::event::{Ask, Refusal, Request};
use rollbackd_core::run::record::{Entry, Origin, Record};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::fixture::{self, WINDOW, at};
use super::{Shared, control_socket, listen, routes, start};
use crate::clock;
use crate::config::model::Secret;
use crate::driver::snapshot::{Call, Snapshot};
use crate::journal::format::line;
use crate::metrics::Metrics;

/// Everything in these tests ends within this.
const SOON: Duration = Duration::from_secs(10);

/// A server on both kinds of sockets, and what its driver was asked for.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) directory: tempfile::TempDir,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) snapshots: watch::Sender<Arc<Snapshot>>,
    requests: mpsc::Receiver<Request>,
    tracker: TaskTracker,
    cancel: CancellationToken,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

/// An answer, taken apart.
#[derive(Debug)]
struct Answer {
    status: u16,
    headers: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    #[track_caller]
    fn problem(&self, status: u16, part: &str) {
        assert_eq!(self.status, status, "{self:?}");
        assert!(self.headers.contains("content-type: application/problem+json\r\n"), "{self:?}");
        let body = self.json();
        assert_eq!(body["status"], status, "{self:?}");
        assert!(body["detail"].as_str().is_some_and(|detail| detail.contains(part)), "`{part}` is not in {self:?}");
    }
}

fn shared(snapshot: Snapshot, token: Option<&str>) -> (Shared, watch::Sender<Arc<Snapshot>>, mpsc::Receiver<Call>) {
    let metrics = Arc::new(Metrics::new(&snapshot.plan).expect("series"));
    let (publish, snapshots) = watch::channel(Arc::new(snapshot));
    let (calls, asked) = mpsc::channel(4);
    (Shared { snapshots, calls, metrics, token: token.map(Secret::new) }, publish, asked)
}

/// Serves this snapshot; a driver that refuses to cancel and has three records of the window answers.
pub(crate) async fn serve(snapshot: Snapshot, token: Option<&str>) -> Running {
    let directory = tempfile::tempdir().expect("a directory");
    let (shared, snapshots, asked) = shared(snapshot, token);
    let metrics = Arc::clone(&shared.metrics);
    let (tracker, cancel) = (TaskTracker::new(), CancellationToken::new());
    let (tell, requests) = mpsc::channel(64);
    tracker.spawn(drive(asked, tell));
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
    let address = listener.local_addr().expect("its address");
    let path = control_socket(directory.path());
    let socket = listen::socket(&path).expect("a socket");
    let router = routes::router(shared);
    tracker.spawn(listen::serve_tcp(listener, router.clone(), tracker.clone(), cancel.clone()));
    tracker.spawn(listen::serve_socket(socket, path, router, tracker.clone(), cancel.clone()));
    Running { address, directory, metrics, snapshots, requests, tracker, cancel }
}

async fn drive(mut asked: mpsc::Receiver<Call>, tell: mpsc::Sender<Request>) {
    while let Some(call) = asked.recv().await {
        match call {
            Call::Request { request, reply } => {
                let answer = if request.ask == (Ask::Cancel { abandon: false }) {
                    Err(Refusal { message: "a rollback is under way; say --abandon".to_owned() })
                } else {
                    Ok(Some(WINDOW.to_owned()))
                };
                drop(reply.send(answer));
                tell.send(request).await.expect("the test listens");
            }
            Call::Records { window, reply } => {
                assert_eq!(window.as_deref(), Some(WINDOW), "only known windows are asked for");
                drop(reply.send(Ok(records())));
            }
            Call::Lines { from, reply } => {
                let lines = records()
                    .iter()
                    .filter(|entry| entry.seq >= from)
                    .map(|entry| line(entry).expect("a line"))
                    .collect();
                drop(reply.send(Ok(lines)));
            }
        }
    }
}

fn records() -> Vec<Entry> {
    let entry = |seq, clock, record| Entry { seq, at: at(clock), window: Some(WINDOW.to_owned()), record };
    let opened = Record::WindowOpened {
        id: WINDOW.to_owned(),
        origin: Origin::Schedule,
        opening: Some(at("02:00:00")),
        ends_at: at("03:00:00"),
        plan: Arc::new(fixture::plan()),
    };
    vec![
        entry(1, "02:00:00", opened),
        entry(2, "02:00:30", Record::WarmedUp { healthy_since: at("02:00:00.5"), levels: vec![] }),
        entry(3, "02:14:06", Record::RungStarted { rung: 0 }),
    ]
}

impl Running {
    async fn tcp(&self, head: &str, body: &str) -> Answer {
        exchange(TcpStream::connect(self.address).await.expect("connected"), head, body).await
    }

    async fn socket(&self, head: &str, body: &str) -> Answer {
        let path = control_socket(self.directory.path());
        exchange(UnixStream::connect(path).await.expect("connected"), head, body).await
    }

    pub(crate) async fn asked(&mut self) -> Request {
        tokio::time::timeout(SOON, self.requests.recv()).await.expect("soon").expect("a request")
    }
}

/// One request on a connection of its own; `head` is the request line and further headers, a line each.
async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, head: &str, body: &str) -> Answer {
    let (line, headers) = head.split_once('\n').unwrap_or((head, ""));
    let headers: String = headers.lines().flat_map(|header| [header, "\r\n"]).collect();
    let length = body.len();
    let request = format!(
        "{line} HTTP/1.1\r\nhost: rollbackd\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = Vec::new();
    tokio::time::timeout(SOON, stream.read_to_end(&mut answer)).await.expect("soon").expect("an answer");
    let answer = String::from_utf8(answer).expect("text");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let (line, headers) = head.split_once("\r\n").expect("headers");
    let status = line.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
    Answer { status, headers: format!("{headers}\r\n"), body: body.to_owned() }
}

fn quiet() -> Snapshot {
    fixture::quiet(clock::now())
}
