//! Writes what the judge sees, while a window is open.
//!
//! The driver hands lines over and never waits: when the disk is too slow, lines are left out, and the recording says how
//! many. Nothing that is decided depends on it.

use std::path::{Path, PathBuf};

use tokio::fs::File;
use tokio::io::{AsyncWriteExt as _, BufWriter};
use tokio::sync::mpsc;
use tokio::time::{Duration, interval};
use tokio_util::task::TaskTracker;

use super::line::Line;

/// Lines that wait for the disk.
const WAITING: usize = 8_192;
/// How often what was written is handed to the system.
const FLUSH: Duration = Duration::from_secs(1);

/// Takes lines for the open window's recording.
#[derive(Debug)]
pub struct Recorder {
    to: Option<mpsc::Sender<Job>>,
    lost: u64,
    window: Option<String>,
}

#[derive(Debug)]
enum Job {
    Begin(String),
    Write(Box<Line>),
    End,
}

impl Recorder {
    /// One that writes nothing.
    pub const fn off() -> Self {
        Self { to: None, lost: 0, window: None }
    }

    /// Starts the task that writes; it ends with this recorder, when all that it was given is written.
    pub fn start(state_dir: &Path, tracker: &TaskTracker) -> Self {
        let (to, from) = mpsc::channel(WAITING);
        tracker.spawn(write(state_dir.to_owned(), from));
        Self { to: Some(to), lost: 0, window: None }
    }

    /// Whether a recording is open.
    pub const fn is_open(&self) -> bool {
        self.window.is_some()
    }

    /// Opens the window's recording, or ends the one that is open; nothing when it is so already. Gives back whether it was
    /// opened.
    pub fn follow(&mut self, window: Option<&str>) -> bool {
        if self.window.as_deref() == window || self.to.is_none() {
            return false;
        }
        if self.window.take().is_some() {
            self.send(Job::End);
        }
        let Some(window) = window else { return false };
        self.window = Some(window.to_owned());
        self.send(Job::Begin(window.to_owned()));
        true
    }

    /// Writes a line into the open recording.
    pub fn write(&mut self, line: Line) {
        if !self.is_open() {
            return;
        }
        if self.lost > 0 && self.send(Job::Write(Box::new(Line::lost(self.lost)))) {
            self.lost = 0;
        }
        if !self.send(Job::Write(Box::new(line))) {
            self.lost += 1;
        }
    }

    fn send(&self, job: Job) -> bool {
        self.to.as_ref().is_some_and(|to| to.try_send(job).is_ok())
    }
}

async fn write(state_dir: PathBuf, mut from: mpsc::Receiver<Job>) {
    let mut file: Option<BufWriter<File>> = None;
    let mut flush = interval(FLUSH);
    loop {
        let job = tokio::select! {
            job = from.recv() => job,
            _ = flush.tick() => {
                settle(&mut file).await;
                continue;
            }
        };
        match job {
            Some(Job::Begin(window)) => file = begin(&state_dir, &window).await,
            Some(Job::Write(line)) => {
                if let Err(error) = add(&mut file, &line).await {
                    given_up(&error);
                    file = None;
                }
            }
            Some(Job::End) => {
                settle(&mut file).await;
                file = None;
            }
            None => {
                settle(&mut file).await;
                return;
            }
        }
    }
}

async fn begin(state_dir: &Path, window: &str) -> Option<BufWriter<File>> {
    let (directory, path) = (super::directory(state_dir), super::path(state_dir, window));
    let kept = state_dir.to_owned();
    let opened = async {
        tokio::fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory).await?;
        // A restart in the middle of a window goes on with its recording.
        let file = tokio::fs::OpenOptions::new().create(true).append(true).mode(0o600).open(&path).await?;
        tokio::task::spawn_blocking(move || super::forget(&kept)).await.map_err(std::io::Error::other)??;
        Ok::<_, std::io::Error>(BufWriter::new(file))
    };
    opened.await.inspect_err(given_up).ok()
}

async fn add(file: &mut Option<BufWriter<File>>, line: &Line) -> std::io::Result<()> {
    let Some(file) = file else { return Ok(()) };
    let mut text = serde_json::to_vec(line).map_err(std::io::Error::other)?;
    text.push(b'\n');
    file.write_all(&text).await
}

async fn settle(file: &mut Option<BufWriter<File>>) {
    if let Some(open) = file
        && let Err(error) = open.flush().await
    {
        given_up(&error);
        *file = None;
    }
}

fn given_up(error: &std::io::Error) {
    tracing::warn!(event = "samples.failed", %error, "samples are not recorded; nothing is decided by that");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_window_has_a_file_of_its_own_and_a_restart_goes_on_with_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let at = "2026-11-22T02:00:00Z".parse().expect("a time");
        for life in 0..2 {
            let tracker = TaskTracker::new();
            let mut recorder = Recorder::start(directory.path(), &tracker);
            recorder.write(Line::look(at));
            assert!(recorder.follow(Some("shop-1")));
            assert!(!recorder.follow(Some("shop-1")), "it is open");
            recorder.write(Line::head("shop-1", at));
            recorder.write(Line::look(at));
            recorder.follow(None);
            recorder.write(Line::look(at));
            if life == 1 {
                recorder.follow(Some("shop-2"));
            }
            drop(recorder);
            tracker.close();
            tracker.wait().await;
        }
        let text = std::fs::read_to_string(super::super::path(directory.path(), "shop-1")).expect("a recording");
        assert_eq!(text.lines().count(), 4, "{text}");
        assert_eq!(super::super::recordings(directory.path()).expect("listed").len(), 2);
    }

    #[tokio::test]
    async fn old_recordings_go_and_a_disk_that_cannot_be_written_costs_nothing_else() {
        let directory = tempfile::tempdir().expect("a directory");
        let samples = super::super::directory(directory.path());
        std::fs::create_dir(&samples).expect("made");
        for number in 0..60 {
            std::fs::write(samples.join(format!("shop-{number}.jsonl")), "{}").expect("written");
        }
        let tracker = TaskTracker::new();
        let mut recorder = Recorder::start(directory.path(), &tracker);
        recorder.follow(Some("shop-new"));
        drop(recorder);
        tracker.close();
        tracker.wait().await;
        let left = super::super::recordings(directory.path()).expect("listed");
        assert_eq!(left.len(), 50);
        assert!(left.last().is_some_and(|last| last.ends_with("shop-new.jsonl")), "{left:?}");

        let tracker = TaskTracker::new();
        let mut recorder = Recorder::start(&directory.path().join("samples/shop-59.jsonl"), &tracker);
        recorder.follow(Some("shop-x"));
        recorder.write(Line::look("2026-11-22T02:00:00Z".parse().expect("a time")));
        drop(recorder);
        tracker.close();
        tracker.wait().await;
    }
}
