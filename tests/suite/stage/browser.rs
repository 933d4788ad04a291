//! A real browser: Debian's chromium, without a window and without anything of an earlier run.

use std::fs::File;
use std::process::{Command, Stdio};

use super::{Stage, eventually};

/// What a browser made of a page.
#[derive(Debug)]
pub(crate) struct Seen {
    /// The document after it was loaded.
    pub(crate) document: String,
    /// What it complained of: violations of a policy, errors, what did not load.
    pub(crate) complaints: Vec<String>,
}

impl Seen {
    /// The text between two pieces of markup, as a reader has it.
    #[track_caller]
    pub(crate) fn between(&self, from: &str, to: &str) -> String {
        read_between(&self.document, from, to)
    }
}

/// The text between two pieces of markup, with the characters that stand for others put back.
#[track_caller]
pub(crate) fn read_between(document: &str, from: &str, to: &str) -> String {
    let found = document.split_once(from).and_then(|(_, rest)| rest.split_once(to));
    let mut text = found.unwrap_or_else(|| panic!("nothing between {from} and {to} in {document}")).0.to_owned();
    for (written, meant) in
        [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#x27;", "'"), ("&#x2f;", "/"), ("&amp;", "&")]
    {
        text = text.replace(written, meant);
    }
    text
}

impl Stage {
    /// Opens an address in a browser as wide as a phone, and closes it when the page is loaded.
    #[track_caller]
    pub(crate) fn browse(&self, url: &str) -> Seen {
        let profile = tempfile::Builder::new().prefix("browser-").tempdir_in(self.directory()).unwrap();
        let (document, said) = (profile.path().join("document"), profile.path().join("said"));
        let mut browser = Command::new("chromium")
            // Tests may run as root, for whom its sandbox does not work; the page is ours.
            .args([
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--window-size=360,740",
                "--enable-logging=stderr",
            ])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .args(["--dump-dom", url])
            .envs(self.variables())
            .stdin(Stdio::null())
            .stdout(File::create(&document).unwrap())
            .stderr(File::create(&said).unwrap())
            .spawn()
            .expect("chromium (Debian package chromium)");
        let status = eventually("the browser ends", || browser.try_wait().unwrap().ok_or("it runs"));
        let read = |path| String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned();
        let (document, said) = (read(document), read(said));
        assert!(status.success(), "{status}: {said}");
        let complaints = said.lines().filter(|line| line.contains("CONSOLE")).map(str::to_owned).collect();
        Seen { document, complaints }
    }
}
