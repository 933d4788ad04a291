//! Two commands, one that stops traffic and one that resumes it.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Trouble;
use crate::config::model::Command;
use crate::process::{self, How, Spec};

/// How long a command that is asked to end may take.
pub(super) const GRACE: Duration = Duration::from_secs(2);

pub(super) async fn run(command: &Command, timeout: Duration) -> Result<String, Trouble> {
    let spec = Spec { command, environment: Vec::new(), timeout, grace: GRACE, output: None };
    let ended = process::run(spec, &CancellationToken::new(), |_| ())
        .await
        .map_err(|error| Trouble::Failed(error.to_string()))?;
    let mut said = format!("`{command}` {}", ended.sentence());
    for note in &ended.notes {
        said.push_str("; ");
        said.push_str(note);
    }
    match ended.how {
        How::Exited(0) => Ok(said),
        How::TimedOut => Err(Trouble::TimedOut(said)),
        How::Exited(_) | How::Signalled(_) | How::Stopped => Err(Trouble::Failed(said)),
    }
}
