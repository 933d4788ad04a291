//! Writes what the judge sees, while a window is open.
//!
//! The driver hands lines over and never waits: when the disk is too slow, lines are left out, and the recording says how
//! many. Nothing that is decided depends on it.

use std::io::SeekFrom;
use std::path::{Path, PathBuf};

use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _, AsyncWriteExt as _, BufWriter};
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
    /// What comes from here on belongs to this window, or to none.
    Turn(Option<String>),
    Write(Box<Line>),
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
        let next = window.map(str::to_owned);
        // What cannot be said now is said the next time: lines must not get into another window's recording.
        if !self.send(Job::Turn(next.clone())) {
            return false;
        }
        self.window = next;
        self.is_open()
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
            Some(Job::Turn(window)) => {
                settle(&mut file).await;
                file = match window {
                    Some(window) => begin(&state_dir, &window).await,
                    None => None,
                };
            }
            Some(Job::Write(line)) => {
                if let Err(error) = add(&mut file, &line).await {
                    given_up(&error);
                    file = None;
                }
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
        let mut file =
            tokio::fs::OpenOptions::new().create(true).append(true).read(true).mode(0o600).open(&path).await?;
        if is_cut_off(&mut file).await? {
            file.write_all(b"\n").await?;
        }
        tokio::task::spawn_blocking(move || super::forget(&kept)).await.map_err(std::io::Error::other)??;
        Ok::<_, std::io::Error>(BufWriter::new(file))
    };
    opened.await.inspect_err(given_up).ok()
}

/// Whether the file ends in the middle of a line, as a crash leaves it.
async fn is_cut_off(file: &mut File) -> std::io::Result<bool> {
    if file.metadata().await?.len() == 0 {
        return Ok(false);
    }
    file.seek(SeekFrom::End(-1)).await?;
    Ok(file.read_u8().await? != b'\n')
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
    async fn a_line_that_a_crash_cut_off_spoils_no_other() {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(super::super::directory(directory.path())).expect("made");
        let path = super::super::path(directory.path(), "shop-1");
        std::fs::write(&path, "{\"at\":1,\"look\":true}\n{\"at\":17953").expect("written");
        let tracker = TaskTracker::new();
        let mut recorder = Recorder::start(directory.path(), &tracker);
        recorder.follow(Some("shop-1"));
        recorder.write(Line::head("shop-1", "2026-11-22T02:00:00Z".parse().expect("a time")));
        drop(recorder);
        tracker.close();
        tracker.wait().await;
        let text = std::fs::read_to_string(&path).expect("a recording");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!((lines.len(), lines[1]), (3, "{\"at\":17953"));
        assert!(lines[2].contains("rollbackd_samples"), "{text}");
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
