//! Witnesses: addresses that have nothing to do with the application. When none of them answers, an application
//! that seems gone proves nothing, for it is the watcher that is cut off.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::http::{Ask, Client};
use super::net::{self, Deadline, Fault};
use crate::config::model::Address;

/// How long a witness may take.
const WITHIN: Duration = Duration::from_secs(2);
/// How long what was found holds, so that many failing signals ask once.
const FRESH: Duration = Duration::from_secs(1);

/// The configured witnesses.
#[derive(Debug)]
pub(super) struct Witnesses {
    addresses: Vec<Address>,
    last: Mutex<Option<(Instant, bool)>>,
}

impl Witnesses {
    pub(super) fn new(addresses: Vec<Address>) -> Self {
        Self { addresses, last: Mutex::default() }
    }

    /// Whether our own connection is vouched for: a witness answers, or none is configured.
    pub(super) async fn vouch(&self, client: &Client) -> bool {
        if self.addresses.is_empty() {
            return true;
        }
        // Held while asking: whoever comes meanwhile waits for the answer instead of asking again.
        let mut last = self.last.lock().await;
        if let Some((at, answered)) = *last
            && at.elapsed() < FRESH
        {
            return answered;
        }
        let mut asked: FuturesUnordered<_> = self.addresses.iter().map(|address| ask(address, client)).collect();
        let mut answered = false;
        while let Some(answer) = asked.next().await {
            answered |= answer.is_ok();
            if answered {
                break;
            }
        }
        *last = Some((Instant::now(), answered));
        answered
    }
}

/// Any HTTP answer will do, and so will a TCP connection.
async fn ask(address: &Address, client: &Client) -> Result<(), Fault> {
    let url = address.expose();
    let deadline = Deadline::after(WITHIN);
    if matches!(url.scheme(), "http" | "https") {
        let ask = Ask { method: "GET", url, headers: &BTreeMap::new(), body: None };
        return client.ask(ask, deadline).await.map(drop);
    }
    let (Some(host), Some(port)) = (url.host_str(), url.port()) else {
        return Err(Fault::Unreadable(format!("{address} names no host and port")));
    };
    let addresses = net::resolve(host, port, &deadline).await?;
    net::connect(&addresses, &deadline).await
}
