//! Whether the servers that would carry notices can be reached now. Nothing is delivered.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::mail::Courier;
use super::webhook::Endpoint;

/// The longest that one server is waited for.
const WITHIN: Duration = Duration::from_secs(5);

/// A server by its name, and why it cannot be reached.
pub type Reached = (String, Result<(), String>);

/// Greets the mail server.
pub(super) async fn mail(courier: &Courier) -> Reached {
    let greeted = match timeout(WITHIN, courier.greet()).await {
        Ok(result) => result,
        Err(_) => Err(late()),
    };
    (name(&courier.server()), greeted)
}

/// Connects to every webhook's host once, all at the same time. Nothing is asked of it: any request could already
/// mean something to it.
pub(super) async fn webhooks(endpoints: impl Iterator<Item = &Endpoint>) -> Vec<Reached> {
    let servers: BTreeSet<_> = endpoints.filter_map(Endpoint::server).collect();
    join_all(servers.into_iter().map(connect)).await
}

pub(super) async fn connect(server: (String, u16)) -> Reached {
    let connected = match timeout(WITHIN, TcpStream::connect((server.0.as_str(), server.1))).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(late()),
    };
    (name(&server), connected)
}

fn name((host, port): &(String, u16)) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn late() -> String {
    format!("no answer within {} s", WITHIN.as_secs())
}
