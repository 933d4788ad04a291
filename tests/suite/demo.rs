//! The demo as a user runs it: the real executable, the real daemon, a real PostgreSQL.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// How long one demo may take on a slow machine.
const PATIENCE: Duration = Duration::from_secs(180);

/// A demo in a temporary directory of its own.
struct Demo {
    directory: tempfile::TempDir,
    child: Child,
}

impl Demo {
    fn start(arguments: &[&str]) -> Self {
        let directory = tempfile::Builder::new().prefix("demo-test-").tempdir_in("/tmp").unwrap();
        // The server's user must be able to come through.
        std::fs::set_permissions(directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_rollbackd"))
            .arg("demo")
            .args(arguments)
            .env("TMPDIR", directory.path())
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self { directory, child }
    }

    /// Reads what it prints until some text was there.
    fn wait_for(&mut self, text: &str) -> String {
        let (tell, told) = std::sync::mpsc::channel();
        let mut stdout = self.child.stdout.take().unwrap();
        let wanted = text.to_owned();
        let reader = std::thread::spawn(move || {
            let (mut all, mut some) = (Vec::new(), [0; 1024]);
            while let Ok(count @ 1..) = stdout.read(&mut some) {
                all.extend_from_slice(&some[..count]);
                if String::from_utf8_lossy(&all).contains(&wanted) {
                    break;
                }
            }
            tell.send(()).ok();
            (stdout, all)
        });
        told.recv_timeout(PATIENCE).expect("the demo goes on");
        let (stdout, all) = reader.join().unwrap();
        self.child.stdout = Some(stdout);
        String::from_utf8_lossy(&all).into_owned()
    }

    /// Its end, and all that it has printed.
    fn end(self) -> (ExitStatus, String, tempfile::TempDir) {
        let (tell, told) = std::sync::mpsc::channel();
        let child = self.child;
        std::thread::spawn(move || tell.send(child.wait_with_output()).ok());
        let output = told.recv_timeout(PATIENCE).expect("the demo ends").unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (output.status, text, self.directory)
    }
}

/// The directories that demos have left in `directory`.
fn kept(directory: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// Processes that were started in `directory`, or with it among their arguments.
fn left_running(directory: &Path) -> Vec<String> {
    let name = directory.to_str().unwrap();
    std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| std::fs::read(entry.ok()?.path().join("cmdline")).ok())
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .filter(|line| line.contains(name))
        .collect()
}

/// Waits until nothing of the demo runs any more.
fn nothing_is_left_running(directory: &Path) {
    for _ in 0..100 {
        if left_running(directory).is_empty() {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("still running: {:#?}", left_running(directory));
}

fn assert_told_well(text: &str, directory: &Path) {
    assert!(!text.contains("NO  "), "{text}");
    assert!(text.contains("The originals are whole and the application answers."), "{text}");
    // Paths are as long as they are.
    let wide = text.lines().filter(|line| line.chars().count() > 80 && !line.contains("/demo-test-"));
    assert_eq!(wide.collect::<Vec<_>>(), Vec::<&str>::new());
    assert!(!text.contains('\u{1b}'), "no colours in a pipe");
    let kept = kept(directory);
    let [kept] = kept.as_slice() else { panic!("{kept:?}") };
    for (label, name) in [("report:", "report.md"), ("journal:", "state/journal")] {
        let line = text.lines().find(|line| line.starts_with(label)).unwrap_or_else(|| panic!("no {label} in {text}"));
        let path = Path::new(line.trim_start_matches(label).trim());
        assert!(path.starts_with(kept) && path.to_str().unwrap().contains(name), "{line}");
        assert!(path.metadata().unwrap().len() > 0, "{line}");
    }
    assert!(!kept.join("cluster").exists() && !kept.join("environment").exists());
}

#[test]
fn a_migration_that_breaks_the_shop_is_rolled_back() {
    let (status, text, directory) = Demo::start(&[]).end();
    assert!(status.success(), "{status}: {text}");
    assert_told_well(&text, directory.path());
    assert!(text.contains("the migration's 14 tables are gone from `public`"), "{text}");
    assert!(text.contains("exited with 20: rolled back and recovered"), "{text}");
    nothing_is_left_running(directory.path());
}

#[test]
fn a_migration_that_passes_is_left_alone() {
    let (status, text, directory) = Demo::start(&["--healthy"]).end();
    assert!(status.success(), "{status}: {text}");
    assert_told_well(&text, directory.path());
    assert!(text.contains("exited with 0: passed"), "{text}");
    nothing_is_left_running(directory.path());
}

#[test]
fn ctrl_c_leaves_nothing_behind() {
    let mut demo = Demo::start(&[]);
    demo.wait_for("3. A migration is guarded");
    kill_process(Pid::from_child(&demo.child), Signal::INT).unwrap();
    let (status, text, directory) = demo.end();
    assert_eq!(status.code(), Some(1), "{text}");
    assert_eq!(kept(directory.path()), Vec::<PathBuf>::new());
    nothing_is_left_running(directory.path());
}

#[test]
fn nothing_outlives_a_demo_that_is_killed() {
    let mut demo = Demo::start(&[]);
    demo.wait_for("3. A migration is guarded");
    demo.child.kill().unwrap();
    let (_, _, directory) = demo.end();
    nothing_is_left_running(directory.path());
}
