//! The project's own assertion: a command that must exit with 0.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::config::model::Command;
use crate::process::{self, How, Spec};

/// An assertion has nothing to put in order.
const GRACE: Duration = Duration::from_secs(1);

pub(super) async fn check(command: &Command, timeout: Duration) -> Result<String, String> {
    let spec = Spec { command, environment: Vec::new(), timeout, grace: GRACE, output: None };
    let ended = process::run(spec, &CancellationToken::new(), |_| ()).await.map_err(|error| error.to_string())?;
    match ended.how {
        How::Exited(0) => Ok(ended.sentence()),
        How::Exited(_) | How::Signalled(_) | How::TimedOut | How::Stopped => Err(ended.sentence()),
    }
}
