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
    let mut renewal = snapshots.borrow().renewal.clone();
    loop {
        let snapshot = Arc::clone(&snapshots.borrow_and_update());
        let status = status(&snapshot);
        if renewal != snapshot.renewal {
            renewal.clone_from(&snapshot.renewal);
            // A reload has come to its end here, unless another configuration is taken over at once: the next life says so.
            if !renewal.due || snapshot.state.window.is_some() {
                tell(&[NotifyState::Status(&status), NotifyState::Ready]);
                last.clone_from(&status);
            }
        }
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

/// Tells the service manager that the configuration is read again. It is ready once it is known what becomes of it.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => tracing::debug!(event = "systemd.unheard", error = %error, "the monotonic clock cannot be read"),
    }
}

/// One line for `systemctl status`.
fn status(snapshot: &Snapshot) -> String {
    let mut state = match &snapshot.state.window {
        Some(window) => format!("window {} is {}", window.id, window.state_name().as_str().replace('_', " ")),
        None => match snapshot.next_window_at {
            Some(next) => format!("no window is open; the next opens at {next}"),
            None => "no window is open".to_owned(),
        },
    };
    if let Err(reason) = &snapshot.ready {
        state.push_str("; not ready: ");
        state.push_str(reason);
    }
    if let Some(refused) = &snapshot.renewal.refused {
        state.push_str("; the configuration's file was refused: ");
        state.push_str(&refused.reason);
    }
    if snapshot.renewal.due && snapshot.state.window.is_some() {
        state.push_str("; another configuration is taken over when the window is settled");
    }
    // The protocol has one line for it.
    state.replace('\n', " ")
}

fn tell(what: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(what) {
        tracing::debug!(event = "systemd.unheard", error = %error, "the service manager cannot be told");
    }
}
