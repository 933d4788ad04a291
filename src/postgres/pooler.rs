//! Whether a connection goes through a pooler, and whether that keeps one server session for one client.
//!
//! A pooler that lends its server sessions out by transaction or statement takes what we set to others: limits,
//! `search_path`, locks. So it is found out before anything is set. A pooler makes up the key by which its clients
//! cancel; the server's own key bears the number of the session's process. A pooler in session mode is told from the
//! others by what it does: a second connection is given the first one's session, or the first is given another.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, TlsConnect, TlsStream};
use tokio_postgres::{Client, Error};

use super::session::first;
use super::{Failure, during};

/// What to do about a pooler that does not keep sessions.
pub(crate) const REFUSED: &str = "the connection goes through a transaction pooler, where settings and locks do not hold; connect to the server \
     itself, or to the pooler's session mode (Supabase: port 5432, not 6543)";

const DOING: &str = "looking for a pooler";
/// In the n-th round the second connection looks n times. However many sessions a pooler hands out in turn, one of
/// the two then sees what it would not see in a session of its own.
const ROUNDS: u32 = 4;
/// A request to cancel ends with the process's number and the secret, four bytes each.
const KEY_BYTES: usize = 8;

/// Whether something stands between us and the server that made up its own key to cancel with.
pub(crate) async fn is_between(client: &Client) -> Result<bool, Failure> {
    Ok(key_pid(client).await.map_err(during(DOING))? != pid(client).await.map_err(during(DOING))?)
}

/// Whether one of two connections to the same pooler is served by more than one session, or both by the same. Sets
/// nothing.
pub(crate) async fn shares(first: &Client, second: &Client) -> Result<bool, Failure> {
    let looks = async {
        let (one, two) = (pid(first).await?, pid(second).await?);
        for round in 1..=ROUNDS {
            if one == two || pid(first).await? != one {
                return Ok(true);
            }
            for _ in 0..round {
                if pid(second).await? != two {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    };
    looks.await.map_err(during(DOING))
}

/// The number of the server's process. Nothing is prepared for it: behind a pooler another client may have prepared
/// something under the same name.
async fn pid(client: &Client) -> Result<Option<i32>, Error> {
    let messages = client.simple_query("select pg_catalog.pg_backend_pid()").await?;
    Ok(first(&messages).and_then(|pid| pid.parse().ok()))
}

/// The number of the process in the key that came with the connection. The client library shows it to nobody, so it
/// is listened to while it writes a request to cancel, which goes nowhere.
async fn key_pid(client: &Client) -> Result<Option<i32>, Error> {
    let written = Written::default();
    client.cancel_token().cancel_query_raw(written.clone(), Listener).await?;
    let written = written.0.lock().unwrap_or_else(PoisonError::into_inner);
    let key = written.len().checked_sub(KEY_BYTES).and_then(|start| written.get(start..start + 4));
    Ok(key.and_then(|bytes| bytes.try_into().ok()).map(i32::from_be_bytes))
}

/// A stream that keeps what is written to it, and answers yes to the question for TLS.
#[derive(Debug, Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl AsyncRead for Written {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        buffer.put_slice(b"S");
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Written {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl TlsStream for Written {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

/// Takes the stream as it is.
struct Listener;

impl TlsConnect<Written> for Listener {
    type Stream = Written;
    type Error = Infallible;
    type Future = Ready<Result<Written, Infallible>>;

    fn connect(self, stream: Written) -> Self::Future {
        ready(Ok(stream))
    }
}

#[cfg(test)]
mod tests;
