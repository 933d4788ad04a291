//! API responses, judged as a signal of kind `http` judges them.

use std::time::Duration;

use crate::config::model::HttpProbe;
use crate::signal::http::Client;
use crate::signal::net::Fault;

pub(super) async fn check(client: &Client, probe: &HttpProbe, timeout: Duration) -> Result<String, String> {
    let status = client.probe(probe, timeout).await.map_err(Fault::into_reason)?;
    Ok(format!("{} answers with status {status}", probe.url))
}
