//! A command's exit code as a reading, and a number on its standard output as the value.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::net::Fault;
use crate::config::model::Command;
use crate::process::{self, How, Spec};

/// A probe's command has nothing to put in order.
const GRACE: Duration = Duration::from_secs(1);

pub(super) async fn read(command: &Command, timeout: Duration) -> Result<Option<f64>, Fault> {
    let spec = Spec { command, environment: Vec::new(), timeout, grace: GRACE, output: None };
    let ended = process::run(spec, &CancellationToken::new(), |_| ())
        .await
        .map_err(|error| Fault::Unreadable(error.to_string()))?;
    match ended.how {
        How::Exited(0) => Ok(ended.stdout.trim().parse::<f64>().ok().filter(|value| value.is_finite())),
        How::Exited(_) => Err(Fault::Wrong(ended.sentence())),
        How::TimedOut => Err(Fault::Unreadable(format!("the command did not end within {timeout:?}"))),
        // A probe that was killed has not looked.
        How::Signalled(_) | How::Stopped => Err(Fault::Unreadable(format!("the command {}", ended.sentence()))),
    }
}
