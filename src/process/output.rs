//! What a child prints: kept for people, never allowed to fill a disk or our memory.

use std::fs::{DirBuilder, OpenOptions};
use std::future::Future;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{ChildStderr, ChildStdout};
use tokio::time::{sleep, timeout};

/// How much of the end is kept as evidence.
const TAIL: usize = 16 * 1024;
/// A file that passes this is emptied.
pub(super) const FILE_CAP: u64 = 64 * 1024 * 1024;
/// How often a file's size is looked at while the child runs.
const LOOK: Duration = Duration::from_millis(250);
/// How long pipes are read on after the child and its group have ended: only a process that left the group can
/// still hold them open.
const DRAIN: Duration = Duration::from_secs(1);

/// Where a child's output goes.
pub(super) enum Capture {
    /// Into a file that the child appends to by itself.
    File(Appended),
    /// Through pipes into memory.
    Pipes(Pipes),
}

/// What was kept.
pub(super) struct Kept {
    pub(super) both: String,
    pub(super) stdout: String,
}

impl Capture {
    /// Opens the file. A file that cannot be opened does not keep a rollback from running: then it is memory.
    pub(super) async fn open(path: Option<PathBuf>, notes: &mut Vec<String>) -> Self {
        let Some(path) = path else {
            return Self::Pipes(Pipes::default());
        };
        let shown = path.display().to_string();
        let opened = tokio::task::spawn_blocking(move || {
            if let Some(directory) = path.parent() {
                DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
            }
            let file = OpenOptions::new().append(true).create(true).mode(0o600).open(&path)?;
            io::Result::Ok(Appended { path, file, cuts: 0, before: Tail::default() })
        });
        match opened.await.map_err(io::Error::other).flatten() {
            Ok(appended) => Self::File(appended),
            Err(error) => {
                notes.push(format!("its output was not kept: {shown} cannot be opened: {error}"));
                Self::Pipes(Pipes::default())
            }
        }
    }

    /// The file, when there is one.
    pub(super) fn file(&self) -> Option<&Path> {
        match self {
            Self::File(appended) => Some(&appended.path),
            Self::Pipes(_) => None,
        }
    }

    /// The child's standard output and standard error.
    pub(super) fn streams(&self) -> io::Result<(Stdio, Stdio)> {
        match self {
            Self::File(appended) => Ok((appended.file.try_clone()?.into(), appended.file.try_clone()?.into())),
            Self::Pipes(_) => Ok((Stdio::piped(), Stdio::piped())),
        }
    }

    /// Takes our ends of the pipes.
    pub(super) fn attach(&mut self, stdout: Option<ChildStdout>, stderr: Option<ChildStderr>) {
        match self {
            Self::File(_) => {}
            Self::Pipes(pipes) => {
                pipes.stdout = stdout;
                pipes.stderr = stderr;
            }
        }
    }

    /// Takes care of the output until the child has ended.
    pub(super) async fn while_running<T>(&mut self, end: impl Future<Output = T>) -> T {
        let mut end = pin!(end);
        tokio::select! {
            biased;
            ended = &mut end => ended,
            () = self.keep() => end.await,
        }
    }

    /// Returns once there is nothing more to take care of.
    async fn keep(&mut self) {
        match self {
            Self::File(appended) => loop {
                sleep(LOOK).await;
                appended.cut_when_large().await;
            },
            Self::Pipes(pipes) => pipes.drain().await,
        }
    }

    /// What was kept, after the end.
    pub(super) async fn finish(self, notes: &mut Vec<String>) -> Kept {
        match self {
            Self::File(mut appended) => {
                appended.cut_when_large().await;
                if appended.cuts > 0 {
                    let mebibytes = FILE_CAP / (1024 * 1024);
                    notes.push(format!("its output passed {mebibytes} MiB and was cut {} times", appended.cuts));
                }
                let read = tokio::task::spawn_blocking(move || appended.tail());
                Kept { both: read.await.unwrap_or_default(), stdout: String::new() }
            }
            Self::Pipes(mut pipes) => {
                if timeout(DRAIN, pipes.drain()).await.is_err() {
                    notes.push("a process outside its group still holds its output".to_owned());
                }
                Kept { both: pipes.both.text(), stdout: pipes.only_stdout.text() }
            }
        }
    }
}

/// A file that the child appends to.
pub(super) struct Appended {
    path: PathBuf,
    file: std::fs::File,
    cuts: u32,
    /// The end of what was cut away last.
    before: Tail,
}

impl Appended {
    /// Empties a file that has grown too large. The child appends, so it goes on at the new end.
    async fn cut_when_large(&mut self) {
        let Ok(file) = self.file.try_clone() else { return };
        let path = self.path.clone();
        let cut = tokio::task::spawn_blocking(move || cut(file, &path)).await;
        if let Ok(Ok(Some(tail))) = cut {
            self.cuts = self.cuts.saturating_add(1);
            self.before = tail;
        }
    }

    fn tail(mut self) -> String {
        // What cannot be read back is no evidence, and no reason to fail either.
        if let Ok(end) = read_end(&self.path) {
            self.before.push(&end);
        }
        self.before.text()
    }
}

/// Keeps the file of a child of an earlier life from filling the disk. Never returns.
pub(super) async fn keep_small(path: &Path) {
    loop {
        let path = path.to_owned();
        let cut = tokio::task::spawn_blocking(move || cut(OpenOptions::new().append(true).open(&path)?, &path)).await;
        if let Ok(Err(error)) = cut {
            tracing::debug!(event = "process.output", error = %error, "an output file could not be looked at");
        }
        sleep(LOOK).await;
    }
}

fn cut(mut file: std::fs::File, path: &Path) -> io::Result<Option<Tail>> {
    if file.metadata()?.len() <= FILE_CAP {
        return Ok(None);
    }
    let mut tail = Tail::default();
    tail.push(&read_end(path)?);
    file.set_len(0)?;
    writeln!(file, "[rollbackd emptied this file: it had passed {FILE_CAP} bytes]")?;
    Ok(Some(tail))
}

/// The end of a file.
fn read_end(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = std::fs::File::open(path)?;
    let size = file.metadata()?.len();
    file.seek(SeekFrom::Start(size.saturating_sub(TAIL as u64)))?;
    let mut end = Vec::new();
    file.take(TAIL as u64).read_to_end(&mut end)?;
    Ok(end)
}

/// Our ends of a child's pipes, and the end of what came through them.
#[derive(Default)]
pub(super) struct Pipes {
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    both: Tail,
    only_stdout: Tail,
}

impl Pipes {
    /// Reads until both streams have ended. May be dropped and called again without losing anything.
    async fn drain(&mut self) {
        let mut out = vec![0; 8192];
        let mut err = vec![0; 8192];
        while self.stdout.is_some() || self.stderr.is_some() {
            tokio::select! {
                // What is there at the same time is taken in this order: the last line is to be the complaint.
                biased;
                read = read(&mut self.stdout, &mut out), if self.stdout.is_some() => {
                    self.both.push(read);
                    self.only_stdout.push(read);
                }
                read = read(&mut self.stderr, &mut err), if self.stderr.is_some() => self.both.push(read),
            }
        }
    }
}

/// Reads once; a stream that has ended or failed is taken away.
async fn read<'b>(stream: &mut Option<impl AsyncRead + Unpin>, buffer: &'b mut [u8]) -> &'b [u8] {
    let Some(open) = stream.as_mut() else { return &[] };
    match open.read(buffer).await {
        Ok(count) if count > 0 => buffer.get(..count).unwrap_or_default(),
        Ok(_) | Err(_) => {
            *stream = None;
            &[]
        }
    }
}

/// The end of a text that may be long.
#[derive(Default)]
struct Tail {
    bytes: Vec<u8>,
}

impl Tail {
    fn push(&mut self, more: &[u8]) {
        let more = more.get(more.len().saturating_sub(TAIL)..).unwrap_or_default();
        let surplus = (self.bytes.len() + more.len()).saturating_sub(TAIL);
        self.bytes.drain(..surplus);
        self.bytes.extend_from_slice(more);
    }

    /// As text; a character that was cut in two at the front is left out.
    fn text(&self) -> String {
        let is_continuation = |byte: &&u8| **byte & 0b1100_0000 == 0b1000_0000;
        let skip = self.bytes.iter().take(3).take_while(is_continuation).count();
        String::from_utf8_lossy(self.bytes.get(skip..).unwrap_or_default()).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_keeps_the_end_and_whole_characters() {
        let mut tail = Tail::default();
        tail.push("ä".repeat(TAIL).as_bytes());
        tail.push(b"end");
        let text = tail.text();
        assert!(text.ends_with("ääend"), "{}", &text[text.len() - 20..]);
        assert!(text.starts_with('ä'));
        assert!(text.len() <= TAIL);
    }
}
