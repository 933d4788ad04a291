//! The sockets themselves: rights, leftovers, slow clients, the end.

use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::server::StartError;
use crate::server::authority::Via;

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).expect("it is there").permissions().mode() & 0o7777
}

#[tokio::test]
async fn the_control_socket_is_for_owner_and_group_and_replaces_a_stale_one() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = control_socket(directory.path());
    drop(std::os::unix::net::UnixListener::bind(&path).expect("a socket of an earlier life"));
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o777)).expect("its mode");

    let (shared, _publish, _asked) = shared(quiet(), None);
    let (tracker, cancel) = (TaskTracker::new(), CancellationToken::new());
    start(&fixture::config(directory.path(), None), shared, &tracker, &cancel).await.expect("started");
    assert_eq!(mode(&path), 0o660);
    let stream = UnixStream::connect(&path).await.expect("connected");
    assert_eq!(exchange(stream, "GET /healthz", "").await.status, 200);
    let left: Vec<_> =
        std::fs::read_dir(directory.path()).expect("a directory").map(|one| one.unwrap().path()).collect();
    assert_eq!(left, std::slice::from_ref(&path), "nothing but the socket is there");

    cancel.cancel();
    tracker.close();
    tokio::time::timeout(SOON, tracker.wait()).await.expect("it ends");
    assert!(!path.exists(), "it goes with the daemon");
}

/// While it is made the socket lies in a directory that nobody else can enter.
#[test]
fn the_control_socket_is_never_open_to_the_world() {
    let directory = tempfile::tempdir().expect("a directory");
    let hidden = listen::hidden_directory(directory.path()).expect("a directory");
    assert_eq!(mode(hidden.path()), 0o700);
}

#[tokio::test]
async fn an_address_in_use_is_named() {
    let directory = tempfile::tempdir().expect("a directory");
    let taken = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let listen = taken.local_addr().expect("its address");
    let http = crate::config::model::Http { listen, token: None };
    let (shared, _publish, _asked) = shared(quiet(), None);
    let config = fixture::config(directory.path(), Some(http));
    let error =
        start(&config, shared, &TaskTracker::new(), &CancellationToken::new()).await.expect_err("the port is taken");
    assert!(matches!(error, StartError::Tcp { .. }));
    assert!(error.to_string().contains(&listen.to_string()), "{error}");
    assert!(!control_socket(directory.path()).exists(), "nothing was changed");
}

#[tokio::test]
async fn an_address_in_use_does_not_keep_an_open_window_from_its_end() {
    let directory = tempfile::tempdir().expect("a directory");
    let taken = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let listen = taken.local_addr().expect("its address");
    let config = fixture::config(directory.path(), Some(crate::config::model::Http { listen, token: None }));
    let (shared, _publish, _asked) = shared(fixture::rolling_back(at("02:15:00")), None);
    let (tracker, cancel) = (TaskTracker::new(), CancellationToken::new());
    start(&config, shared, &tracker, &cancel).await.expect("the socket is enough");
    assert!(control_socket(directory.path()).exists());
    cancel.cancel();
    tracker.close();
    tracker.wait().await;
}

#[tokio::test]
async fn a_directory_that_is_not_there_is_named() {
    let config = fixture::config(Path::new("/nowhere/at/all"), None);
    let (shared, _publish, _asked) = shared(quiet(), None);
    let error = start(&config, shared, &TaskTracker::new(), &CancellationToken::new()).await.expect_err("no directory");
    assert!(error.to_string().contains("/nowhere/at/all/control.sock"), "{error}");
}

#[tokio::test]
async fn a_slow_client_keeps_nobody_waiting() {
    let running = serve(quiet(), None).await;
    let mut slow = TcpStream::connect(running.address).await.expect("connected");
    slow.write_all(b"GET /healthz HTTP/1.1\r\nhost: rollb").await.expect("sent");
    assert_eq!(running.tcp("GET /healthz", "").await.status, 200);
}

/// A connection in memory, so that time can be virtual.
fn connected(buffer: usize) -> (tokio::io::DuplexStream, tokio::task::JoinHandle<()>) {
    let (shared, _publish, _asked) = shared(fixture::rolling_back(at("02:14:30")), None);
    let router = routes::router(shared).layer(axum::Extension(Via::Socket { uid: None }));
    let (client, server) = tokio::io::duplex(buffer);
    let slot = Arc::new(tokio::sync::Semaphore::new(1)).try_acquire_owned().expect("a slot");
    (client, TaskTracker::new().spawn(listen::connection(server, router, CancellationToken::new(), slot)))
}

#[tokio::test(start_paused = true)]
async fn a_request_that_never_ends_is_dropped() {
    let started = tokio::time::Instant::now();
    let (mut client, served) = connected(1024);
    client.write_all(b"GET /healthz HTTP/1.1\r\nhost: rollb").await.expect("sent");
    served.await.expect("no panic");
    assert_eq!(started.elapsed().as_secs(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_never_comes_is_not_waited_for() {
    let started = tokio::time::Instant::now();
    let (mut client, served) = connected(1024);
    let head = "POST /api/v1/ack HTTP/1.1\r\nhost: rollbackd\r\nconnection: close\r\ncontent-length: 9\r\n\r\n{";
    client.write_all(head.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.expect("an answer");
    served.await.expect("no panic");
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert_eq!(started.elapsed().as_secs(), 10);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_never_read_is_dropped() {
    let started = tokio::time::Instant::now();
    let (mut client, served) = connected(64);
    client.write_all(b"GET /metrics HTTP/1.1\r\nhost: rollbackd\r\n\r\n").await.expect("sent");
    served.await.expect("no panic");
    assert_eq!(started.elapsed().as_secs(), 125);
}

#[tokio::test]
async fn idle_connections_do_not_hold_up_the_end() {
    let running = serve(quiet(), None).await;
    let mut idle = TcpStream::connect(running.address).await.expect("connected");
    idle.write_all(b"GET /healthz HTTP/1.1\r\nhost: rollbackd\r\n\r\n").await.expect("sent");
    let mut first = [0_u8; 12];
    tokio::time::timeout(SOON, idle.read_exact(&mut first)).await.expect("soon").expect("an answer");
    assert_eq!(&first, b"HTTP/1.1 200");
    running.cancel.cancel();
    let mut rest = Vec::new();
    tokio::time::timeout(SOON, idle.read_to_end(&mut rest)).await.expect("closed").expect("closed in order");
    drop(idle);
    running.tracker.close();
    tokio::time::timeout(SOON, running.tracker.wait()).await.expect("every task ends");
}
