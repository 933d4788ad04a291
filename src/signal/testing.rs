//! What tests of probes need: servers that misbehave on request, and a configuration around one signal.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rollbackd_core::plan::{Missed, OnCommandFailure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::config::model::{
    Address, Backup, Command, Config, Database, Decision, HttpProbe, Preflight, Rollback, Secret, Signal, SignalSource,
    Tls, TlsMode, Window,
};

/// What a server does with a connection.
#[derive(Debug, Clone)]
pub(crate) enum Does {
    /// Reads the request and writes these bytes.
    Answer(Vec<u8>),
    /// Reads the request, writes these bytes and then nothing more.
    AnswerAndStall(Vec<u8>),
    /// Reads the request and resets the connection.
    Reset,
    /// Reads the request and closes the connection.
    Close,
    /// Writes these bytes without reading.
    Greet(Vec<u8>),
    /// Never reads and never answers.
    Stall,
}

/// A server on this machine; gone when dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    does: Arc<Mutex<Does>>,
    requests: Arc<Mutex<Vec<String>>>,
    _task: JoinSet<()>,
}

impl Server {
    pub(crate) async fn start(does: Does) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let does = Arc::new(Mutex::new(does));
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (doing, seen) = (Arc::clone(&does), Arc::clone(&requests));
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let does = doing.lock().unwrap().clone();
                connections.spawn(attend(stream, does, Arc::clone(&seen)));
            }
        });
        Self { address, does, requests, _task: task }
    }

    /// A server that answers with this status and body.
    pub(crate) async fn answering(status: u16, body: &str) -> Self {
        Self::start(Does::Answer(answer(status, body))).await
    }

    pub(crate) fn now(&self, does: Does) {
        *self.does.lock().unwrap() = does;
    }

    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

/// An HTTP answer.
pub(crate) fn answer(status: u16, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status} Status\r\ncontent-length: {}\r\nlocation: /elsewhere\r\n\r\n{body}", body.len())
        .into_bytes()
}

async fn attend(mut stream: TcpStream, does: Does, seen: Arc<Mutex<Vec<String>>>) {
    if let Does::Greet(bytes) = &does {
        stream.write_all(bytes).await.unwrap();
    }
    if matches!(does, Does::Stall | Does::Greet(_)) {
        return std::future::pending().await;
    }
    let request = read_request(&mut stream).await;
    seen.lock().unwrap().push(request);
    match does {
        Does::Answer(bytes) => {
            // The client may hang up in the middle of a long answer.
            drop(stream.write_all(&bytes).await);
            drop(stream.shutdown().await);
        }
        Does::AnswerAndStall(bytes) => {
            drop(stream.write_all(&bytes).await);
            std::future::pending::<()>().await;
        }
        Does::Reset => stream.set_zero_linger().unwrap(),
        Does::Close | Does::Greet(_) | Does::Stall => {}
    }
}

async fn read_request(stream: &mut TcpStream) -> String {
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&request).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap_or("0");
            if body.len() >= length.parse().unwrap() {
                return text;
            }
        }
        match stream.read(&mut buffer).await {
            Ok(count) if count > 0 => request.extend_from_slice(&buffer[..count]),
            _ => return text,
        }
    }
}

/// An address of this machine at which nothing listens.
pub(crate) async fn closed_port() -> SocketAddr {
    // Bound and given back: the kernel hands out other ports for a good while.
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

pub(crate) fn address(url: &str) -> Address {
    Address::new(url.parse().unwrap())
}

pub(crate) fn http(url: &str) -> HttpProbe {
    HttpProbe {
        url: address(url),
        method: "GET".to_owned(),
        headers: BTreeMap::new(),
        body: None,
        status: Vec::new(),
        json: Vec::new(),
        body_contains: None,
        redirects: 0,
    }
}

pub(crate) fn shell(script: &str) -> Command {
    let arguments = vec!["-c".to_owned(), script.to_owned()];
    let shown = vec!["/bin/sh".to_owned(), "-c".to_owned(), script.to_owned()];
    Command { program: "/bin/sh".to_owned(), arguments, shown, directory: PathBuf::from("/") }
}

/// A configuration with these signals and nothing else that matters to probes.
pub(crate) fn config(sources: Vec<SignalSource>, timeout: Duration) -> Config {
    let second = Duration::from_secs(1);
    let signal = |(index, source): (usize, SignalSource)| Signal {
        name: format!("{} {index}", source.kind()),
        every: second,
        timeout,
        implicates: Vec::new(),
        source,
    };
    Config {
        path: PathBuf::from("/etc/rollbackd/shop.toml"),
        directory: PathBuf::from("/"),
        source: Arc::new(Secret::new("")),
        sha256: String::new(),
        veil: crate::config::veil::Veil::default(),
        name: "shop".to_owned(),
        state_dir: PathBuf::from("/nowhere"),
        database: Database {
            url: address("postgres://postgres@127.0.0.1:1/shop"),
            schema: "public".to_owned(),
            original_tables: Vec::new(),
            original_schema_file: None,
            protected_schemas: Vec::new(),
            tls: Tls { mode: TlsMode::Disable, root_cert: None },
            connect_timeout: second,
            statement_timeout: second,
            lock_timeout: second,
        },
        window: Window {
            schedule: None,
            timezone: jiff::tz::TimeZone::UTC,
            timezone_name: "UTC".to_owned(),
            duration: second,
            soak: second,
            missed: Missed::Skip,
            command: None,
            on_command_failure: OnCommandFailure::Rollback,
        },
        preflight: Preflight { healthy_for: second, skip: Vec::new() },
        backup: Backup { directory: PathBuf::from("/nowhere"), schemas: Vec::new(), jobs: 1, keep: 1 },
        decision: Decision { confirm: second, at_least: 1, blind_after: second, witnesses: Vec::new() },
        signals: sources.into_iter().enumerate().map(signal).collect(),
        rules: Vec::new(),
        rollback: Rollback {
            budget: second,
            approve_always: false,
            repeat_page: second,
            grace: second,
            gates: Vec::new(),
            rungs: Vec::new(),
        },
        checks: Vec::new(),
        contacts: Vec::new(),
        smtp: None,
        http: None,
        heartbeat: None,
        runbook: None,
    }
}
