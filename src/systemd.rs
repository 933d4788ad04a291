//! What the service manager is told: ready, what is going on, alive, stopping.
//!
//! "Alive" is said when the driver has come round, never by a timer of its own: a driver that hangs is restarted.
//! Without a service manager all of this does nothing.

use std::sync::Arc;

use sd_notify::NotifyState;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::driver::snapshot::Snapshot;

/// Tells the service manager with each snapshot, until it is cancelled. That need not be the end of the program.
pub async fn follow(mut snapshots: watch::Receiver<Arc<Snapshot>>, cancel: CancellationToken) {
    tell(&[NotifyState::Ready]);
    let mut last = String::new();
    loop {
        let snapshot = Arc::clone(&snapshots.borrow_and_update());
        let status = status(&snapshot);
        if status == last {
            tell(&[NotifyState::Watchdog]);
        } else {
            tell(&[NotifyState::Watchdog, NotifyState::Status(&status)]);
            last = status;
        }
        tokio::select! {
            () = cancel.cancelled() => break,
            changed = snapshots.changed() => if changed.is_err() { break },
        }
    }
}

/// Tells the service manager that the end has begun.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// One line for `systemctl status`.
fn status(snapshot: &Snapshot) -> String {
    let state = match &snapshot.state.window {
        Some(window) => format!("window {} is {}", window.id, window.state_name().as_str().replace('_', " ")),
        None => match snapshot.next_window_at {
            Some(next) => format!("no window is open; the next opens at {next}"),
            None => "no window is open".to_owned(),
        },
    };
    match &snapshot.ready {
        Ok(()) => state,
        Err(reason) => format!("{state}; not ready: {reason}"),
    }
}

fn tell(what: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(what) {
        tracing::debug!(event = "systemd.unheard", error = %error, "the service manager cannot be told");
    }
}
