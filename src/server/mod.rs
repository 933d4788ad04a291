//! Metrics, status and controls over HTTP: on TCP where `[http]` asks for it, and always on
//! `<state_dir>/control.sock`, which the command line uses.
//!
//! The server sees a watch of the driver's snapshots and a bounded sender of calls, nothing else: it decides
//! nothing, and the driver never waits for it. Snapshots become the shapes of [`view`]; what is asked for goes
//! through `control` to the driver, whose refusal is the answer. Over TCP a control needs the token
//! (`authority`); who may open the socket may use it.

mod authority;
mod control;
#[cfg(test)]
pub(crate) mod fixture;
mod listen;
mod page;
mod problem;
mod routes;
#[cfg(test)]
pub(crate) mod tests;
pub mod view;
mod windows;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::model::{Config, Secret};
use crate::driver::snapshot::{Call, Snapshot};
use crate::metrics::Metrics;

/// All that the server has of the rest of the program.
#[derive(Debug)]
pub struct Shared {
    /// What can be shown.
    pub snapshots: watch::Receiver<Arc<Snapshot>>,
    /// Where to ask.
    pub calls: mpsc::Sender<Call>,
    /// What Prometheus is told.
    pub metrics: Arc<Metrics>,
    /// What a control over TCP must bring along.
    pub token: Option<Secret>,
}

/// An address cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The TCP address.
    #[error("cannot listen on {address} ([http] listen): {source}")]
    Tcp {
        /// Which.
        address: std::net::SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// The control socket.
    #[error("cannot make the control socket {}: {source}", path.display())]
    Socket {
        /// Where.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
}

/// Where the control socket of a state directory is.
pub fn control_socket(state_dir: &Path) -> PathBuf {
    state_dir.join("control.sock")
}

/// Listens; returns once every address is bound. Ends when cancelled, the requests under way included.
///
/// # Errors
/// An address that cannot be bound. While a window is open, the TCP address is done without.
pub async fn start(
    config: &Config,
    shared: Shared,
    tracker: &TaskTracker,
    cancel: &CancellationToken,
) -> Result<(), StartError> {
    let path = control_socket(&config.state_dir);
    let tcp = match &config.http {
        Some(http) => match listen::tcp(http.listen).await {
            Ok(listener) => Some(listener),
            // A window that is open has to be brought to its end, whoever can look at it from outside.
            Err(error) if shared.snapshots.borrow().state.window.is_some() => {
                tracing::error!(event = "server.unavailable", error = %error, "going on with the control socket alone");
                None
            }
            Err(error) => return Err(error),
        },
        None => None,
    };
    let socket = listen::socket(&path).map_err(|source| StartError::Socket { path: path.clone(), source })?;
    // What the journal counts is there at the first scrape: a counter that comes back from zero looks like news.
    let snapshot = Arc::clone(&shared.snapshots.borrow());
    shared.metrics.observe(&snapshot);
    let router = routes::router(shared);
    if let Some(listener) = tcp {
        let address = listener.local_addr().ok().map(tracing::field::display);
        tracing::info!(event = "server.listening", address, "metrics, status and controls are served");
        tracker.spawn(listen::serve_tcp(listener, router.clone(), tracker.clone(), cancel.clone()));
    }
    tracker.spawn(listen::serve_socket(socket, path, router, tracker.clone(), cancel.clone()));
    Ok(())
}
