//! A real SMTP server: aiosmtpd in a process of its own.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use super::{Stage, eventually};

/// How the server treats what comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Behaviour {
    /// It takes everything.
    Takes,
    /// It refuses every recipient for good.
    Rejects,
    /// It refuses so many messages for now.
    Greylists(u32),
}

/// A running SMTP server. It ends with its standard input.
pub(crate) struct Mail {
    port: u16,
    directory: PathBuf,
    process: Child,
}

impl Mail {
    /// Starts one on a free port that keeps its messages on the stage.
    pub(crate) fn start(stage: &Stage, behaviour: Behaviour) -> Self {
        Self::start_on(stage, behaviour, 0)
    }

    /// Starts one on a port that was known before.
    pub(crate) fn start_on(stage: &Stage, behaviour: Behaviour, port: u16) -> Self {
        let directory = stage.path("mail");
        std::fs::create_dir_all(&directory).unwrap();
        let mut command = Command::new("/usr/bin/python3");
        command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/smtp_server.py"));
        command.arg("--directory").arg(&directory).args(["--port", &port.to_string()]);
        match behaviour {
            Behaviour::Takes => {}
            Behaviour::Rejects => drop(command.arg("--reject")),
            Behaviour::Greylists(count) => drop(command.args(["--greylist", &count.to_string()])),
        }
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("python3 starts");
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let port = line.trim().strip_prefix("listening ").and_then(|port| port.parse().ok());
        let port = port.unwrap_or_else(|| panic!("the SMTP server does not start: is python3-aiosmtpd installed?"));
        Self { port, directory, process }
    }

    /// Where it listens, on this machine.
    pub(crate) const fn port(&self) -> u16 {
        self.port
    }

    /// The messages that were accepted, oldest first, as the server wrote them down.
    pub(crate) fn messages(&self) -> Vec<Value> {
        let mut files: Vec<PathBuf> = std::fs::read_dir(&self.directory).unwrap().map(|e| e.unwrap().path()).collect();
        files.retain(|file| file.to_str().unwrap().ends_with("-accepted.json"));
        files.sort();
        files.iter().map(|file| serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap()).collect()
    }

    /// Their subjects.
    pub(crate) fn subjects(&self) -> Vec<String> {
        let subject = |message: &Value| {
            let headers = message["headers"].as_array().unwrap();
            let subject = headers.iter().find(|header| header[0] == "Subject").unwrap();
            subject[1].as_str().unwrap().to_owned()
        };
        self.messages().iter().map(subject).collect()
    }

    /// Waits for a message whose subject holds this text.
    #[track_caller]
    pub(crate) fn wait_for(&self, text: &str) -> Value {
        eventually(&format!("a mail about {text}"), || {
            let at = self.subjects().iter().rposition(|subject| subject.contains(text));
            at.map(|at| self.messages().remove(at)).ok_or_else(|| self.subjects())
        })
    }
}

impl Drop for Mail {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}
