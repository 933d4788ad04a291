//! The project's own rollback script; process → [`Outcome`].
//!
//! Its exit code is a claim, which the inspection after it checks against the catalog.

use rollbackd_core::run::record::Process;
use rollbackd_core::run::step::{Finding, Outcome, StepResult};
use tokio_util::sync::CancellationToken;

use crate::process::{self, Ended, How, Spec, StartError};

/// Runs the script to its end.
pub async fn act(spec: Spec<'_>, stop: &CancellationToken, started: impl FnOnce(Process) + Send) -> Outcome {
    match process::run(spec, stop, started).await {
        Ok(ended) => outcome(ended),
        Err(error @ StartError::Stopped { .. }) => Outcome::unknown(error.to_string()),
        Err(error @ (StartError::NotFound { .. } | StartError::Directory { .. } | StartError::Refused { .. })) => {
            Outcome::failed(error.to_string())
        }
    }
}

fn outcome(ended: Ended) -> Outcome {
    let detail = std::iter::once(ended.sentence()).chain(ended.notes).collect::<Vec<_>>().join("; ");
    let (result, exit_code) = match ended.how {
        How::Exited(0) => (StepResult::Succeeded, Some(0)),
        How::Exited(code) => (StepResult::Failed, Some(code)),
        How::Signalled(_) => (StepResult::Failed, None),
        How::TimedOut => (StepResult::TimedOut, None),
        How::Stopped => (StepResult::Unknown, None),
    };
    let output_file = ended.output_file.map(|file| file.display().to_string());
    Outcome { result, detail, finding: Finding::Process { exit_code, output: ended.output, output_file } }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::Duration;

    use super::*;
    use crate::config::model::Command;
    use crate::signal::testing::shell;

    fn spec(command: &Command, timeout: Duration, output: Option<PathBuf>) -> Spec<'_> {
        Spec { command, environment: Vec::new(), timeout, grace: Duration::from_millis(300), output }
    }

    async fn run(script: &str, timeout: Duration) -> Outcome {
        act(spec(&shell(script), timeout, None), &CancellationToken::new(), |_| ()).await
    }

    const LONG: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn an_exit_code_is_a_claim_with_its_evidence() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("output");
        let command = shell("echo dropping; echo 14 tables dropped");
        let mut started = None;
        let outcome =
            act(spec(&command, LONG, Some(file.clone())), &CancellationToken::new(), |process| started = Some(process))
                .await;
        assert_eq!(outcome.result, StepResult::Succeeded);
        assert_eq!(outcome.detail, "exited with 0: 14 tables dropped");
        let output = "dropping\n14 tables dropped\n".to_owned();
        let output_file = Some(file.display().to_string());
        assert_eq!(outcome.finding, Finding::Process { exit_code: Some(0), output, output_file });
        assert!(started.is_some());

        let failed = run("echo no connection >&2; exit 1", LONG).await;
        assert_eq!((failed.result, failed.detail.as_str()), (StepResult::Failed, "exited with 1: no connection"));
    }

    #[tokio::test]
    async fn a_script_that_was_cut_short_is_no_success() {
        let late = run("trap 'exit 0' TERM; (trap '' TERM; sleep 100) & wait", Duration::from_secs(1)).await;
        assert_eq!(late.result, StepResult::TimedOut, "{late:?}");
        assert!(late.detail.contains("left behind and killed: "), "{}", late.detail);
        let killed = run("kill -9 $$", LONG).await;
        assert_eq!((killed.result, killed.detail.as_str()), (StepResult::Failed, "was ended by signal 9"));

        let command = shell("sleep 100");
        let stop = CancellationToken::new();
        let stopped = act(spec(&command, LONG, None), &stop, |_| stop.cancel()).await;
        assert_eq!(stopped.result, StepResult::Unknown);
        let not_started = act(spec(&command, LONG, None), &stop, |_| panic!("it must not start")).await;
        assert_eq!(not_started.result, StepResult::Unknown);
    }

    #[tokio::test]
    async fn a_script_that_cannot_start_has_failed() {
        let mut command = shell("");
        command.program = "scripts/none.js".to_owned();
        let outcome = act(spec(&command, LONG, None), &CancellationToken::new(), |_| ()).await;
        assert_eq!(outcome.result, StepResult::Failed);
        assert!(outcome.detail.contains("`scripts/none.js` was not found"), "{}", outcome.detail);
    }
}
