//! Names, connections, deadlines, and what their failures mean.

use std::future::Future;
use std::io::{Error, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use rustix::io::Errno;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout_at};

/// Why a probe is not good. Texts are for people and hold no secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It answered, wrongly.
    Wrong(String),
    /// No answer came.
    Unanswered(String),
    /// We could not find out.
    Unreadable(String),
}

impl Fault {
    /// The reason, for those to whom all of them are failures.
    pub(crate) fn into_reason(self) -> String {
        match self {
            Self::Wrong(reason) | Self::Unanswered(reason) => reason,
            Self::Unreadable(reason) => format!("unknown: {reason}"),
        }
    }
}

/// When a probe must have ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline {
    at: Instant,
    within: Duration,
}

impl Deadline {
    /// So long from now.
    pub(crate) fn after(within: Duration) -> Self {
        Self { at: Instant::now() + within, within }
    }

    /// Waits for something, but not past the deadline.
    pub(crate) async fn bound<T>(&self, future: impl Future<Output = T>) -> Result<T, Fault> {
        let late = |_| Fault::Unanswered(format!("no answer within {:?}", self.within));
        timeout_at(self.at, future).await.map_err(late)
    }
}

/// The addresses of a `host:port`.
pub(super) async fn resolve_address(address: &str, deadline: &Deadline) -> Result<Vec<SocketAddr>, Fault> {
    let parts = address.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
    let Some((host, port)) = parts else {
        return Err(Fault::Unreadable(format!("`{address}` is not `host:port`")));
    };
    resolve(host, port, deadline).await
}

/// The addresses of a name that we have a route to.
pub(crate) async fn resolve(host: &str, port: u16, deadline: &Deadline) -> Result<Vec<SocketAddr>, Fault> {
    let host = host.trim_matches(['[', ']']);
    let found: Vec<SocketAddr> = match deadline.bound(lookup_host((host, port))).await {
        Ok(Ok(found)) => found.collect(),
        Ok(Err(_)) => return Err(Fault::Unreadable(format!("the name {host} does not resolve"))),
        Err(_) => {
            return Err(Fault::Unreadable(format!("the name {host} does not resolve within {:?}", deadline.within)));
        }
    };
    let routed: Vec<SocketAddr> = found.iter().copied().filter(|address| has_route(*address)).collect();
    if routed.is_empty() {
        return Err(Fault::Unreadable(format!("there is no route to {host}")));
    }
    Ok(routed)
}

/// Asks the kernel for a route; nothing is sent. Without this, a host's IPv6 address that a machine without IPv6
/// can never reach would hide that its IPv4 address refuses.
fn has_route(address: SocketAddr) -> bool {
    let any: SocketAddr = match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    UdpSocket::bind(any).and_then(|socket| socket.connect(address)).is_ok()
}

/// Connects to any of the addresses, trying all at once, and hangs up.
pub(crate) async fn connect(addresses: &[SocketAddr], deadline: &Deadline) -> Result<(), Fault> {
    let mut attempts: FuturesUnordered<_> = addresses.iter().take(8).map(TcpStream::connect).collect();
    let mut first = None;
    while let Some(attempt) = deadline.bound(attempts.next()).await? {
        match attempt {
            Ok(_) => return Ok(()),
            Err(error) => first = first.or(Some(fault(&error))),
        }
    }
    Err(first.unwrap_or_else(|| Fault::Unreadable("there is no address to connect to".to_owned())))
}

/// What a failure of a socket means.
pub(super) fn fault(error: &Error) -> Fault {
    use ErrorKind as Kind;
    let kind = error.kind();
    let no_resources = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    if no_resources.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
        || matches!(
            kind,
            Kind::NetworkUnreachable | Kind::NetworkDown | Kind::AddrNotAvailable | Kind::PermissionDenied
        )
    {
        return Fault::Unreadable(format!("no connection can be made from here: {error}"));
    }
    let reason = if kind == Kind::ConnectionRefused {
        "connection refused".to_owned()
    } else if matches!(kind, Kind::ConnectionReset | Kind::ConnectionAborted | Kind::BrokenPipe) {
        "connection reset".to_owned()
    } else if kind == Kind::UnexpectedEof {
        "the connection was closed before the answer was whole".to_owned()
    } else if kind == Kind::TimedOut {
        "the connection timed out".to_owned()
    } else if kind == Kind::HostUnreachable {
        "the host is unreachable".to_owned()
    } else {
        format!("the connection failed: {error}")
    };
    Fault::Unanswered(reason)
}
