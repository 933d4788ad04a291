//! `promtool`, as Debian's package `prometheus` brings it.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use super::metrics;
use crate::server::fixture::{at, rolling_back};

/// Runs promtool with some text on its standard input; `Err` with everything it said.
pub(super) fn promtool(arguments: &[&str], directory: &Path, input: &str) -> Result<(), String> {
    let mut child = Command::new("promtool")
        .args(arguments)
        .current_dir(directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool (Debian package prometheus)");
    child.stdin.take().expect("its standard input").write_all(input.as_bytes()).expect("promtool reads");
    let output = child.wait_with_output().expect("promtool ends");
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.success() { Ok(()) } else { Err(said) }
}

#[test]
fn the_text_passes_promtool() {
    let metrics = metrics();
    metrics.notice_attempted("Operations", "email 1", Some("connect"));
    metrics.observe(&rolling_back(at("02:14:30")));
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    promtool(&["check", "metrics"], here, &metrics.render()).expect("nothing to say");
    let untyped = metrics.render().replace("# HELP rollbackd_verdict", "# COMMENT ");
    promtool(&["check", "metrics"], here, &untyped).expect_err("a missing help text is found");
}
