//! Sockets → requests, with limits against clients that are slow or many.

use std::fs::Permissions;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::StartError;
use super::authority::Via;

/// Connections at a time on each listener; more wait in the kernel's queue.
const CONNECTIONS: usize = 64;
/// For a request's head, from the first byte (or the end of the request before) to the last.
const HEAD_WITHIN: Duration = Duration::from_secs(10);
/// For a whole connection: a client that reads slowly cannot keep its place for longer. Others just connect again.
const CONNECTION_WITHIN: Duration = Duration::from_secs(120);
/// For the requests under way at the end.
const END_WITHIN: Duration = Duration::from_secs(5);
/// A request's head may have so many bytes.
const HEAD_BYTES: usize = 16 * 1024;
/// After accept failed (no file descriptors left), before the next try.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Binds the TCP address.
pub(super) async fn tcp(address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|source| StartError::Tcp { address, source })
}

/// Binds the control socket, mode 0660, in the place of one that an earlier life left.
///
/// It is made in a directory that only we can enter and moved to its place when its mode is right: there is no
/// moment at which others could open it. Only one daemon gets this far: the journal is locked.
pub(super) fn socket(path: &Path) -> io::Result<UnixListener> {
    let parent = path.parent().unwrap_or_else(|| Path::new("."));
    let hidden = hidden_directory(parent)?;
    let unready = hidden.path().join("s");
    let listener = UnixListener::bind(&unready)?;
    std::fs::set_permissions(&unready, Permissions::from_mode(0o660))?;
    std::fs::rename(&unready, path)?;
    Ok(listener)
}

/// A directory that only we can enter, gone when dropped.
pub(super) fn hidden_directory(parent: &Path) -> io::Result<tempfile::TempDir> {
    // Its name is not longer than the socket's own: the kernel takes paths of some 100 bytes.
    let mut builder = tempfile::Builder::new();
    builder.prefix(".s").rand_bytes(5).permissions(Permissions::from_mode(0o700)).tempdir_in(parent)
}

/// Serves TCP until cancelled.
pub(super) async fn serve_tcp(listener: TcpListener, router: Router, tracker: TaskTracker, cancel: CancellationToken) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    while let Some(slot) = slot(&slots, &cancel).await {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = cancel.cancelled() => return,
        };
        match accepted {
            Ok((stream, from)) => {
                let router = router.clone().layer(Extension(Via::Tcp(from.ip())));
                tracker.spawn(connection(stream, router, cancel.clone(), slot));
            }
            Err(error) => accept_failed(&error).await,
        }
    }
}

/// Serves the control socket until cancelled, and removes it then.
pub(super) async fn serve_socket(
    listener: UnixListener,
    path: PathBuf,
    router: Router,
    tracker: TaskTracker,
    cancel: CancellationToken,
) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    while let Some(slot) = slot(&slots, &cancel).await {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = cancel.cancelled() => break,
        };
        match accepted {
            Ok((stream, _)) => {
                let uid = stream.peer_cred().ok().map(|peer| peer.uid());
                let router = router.clone().layer(Extension(Via::Socket { uid }));
                tracker.spawn(connection(stream, router, cancel.clone(), slot));
            }
            Err(error) => accept_failed(&error).await,
        }
    }
    if let Err(error) = tokio::fs::remove_file(&path).await {
        tracing::debug!(event = "server.socket_left", %error, "the control socket is already gone");
    }
}

/// A free place for one more connection; `None` when cancelled.
async fn slot(slots: &Arc<Semaphore>, cancel: &CancellationToken) -> Option<OwnedSemaphorePermit> {
    tokio::select! {
        slot = Arc::clone(slots).acquire_owned() => slot.ok(),
        () = cancel.cancelled() => None,
    }
}

async fn accept_failed(error: &io::Error) {
    tracing::warn!(event = "server.accept_failed", %error, "a connection could not be accepted");
    tokio::time::sleep(ACCEPT_PAUSE).await;
}

/// One connection, from accept to its end.
pub(super) async fn connection<S>(stream: S, router: Router, cancel: CancellationToken, _slot: OwnedSemaphorePermit)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = TowerToHyperService::new(router);
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_WITHIN)
            .max_buf_size(HEAD_BYTES)
            .serve_connection(TokioIo::new(stream), service)
    );
    tokio::select! {
        ended = connection.as_mut() => return log_end(ended),
        () = cancel.cancelled() => {}
        () = tokio::time::sleep(CONNECTION_WITHIN) => {}
    }
    connection.as_mut().graceful_shutdown();
    if let Ok(ended) = tokio::time::timeout(END_WITHIN, connection).await {
        log_end(ended);
    }
}

/// A client that goes away or is too slow is its own affair.
fn log_end(ended: Result<(), hyper::Error>) {
    if let Err(error) = ended {
        tracing::debug!(event = "server.connection_ended", %error, "a connection ended early");
    }
}
