//! HTTP: requests on a connection of their own each, so that every probe proves that one can be made.
//!
//! Redirects are answers like any other unless a probe follows them, proxies of the environment are not used, and no
//! more of a body is read than is looked at. Used by signals, witnesses, the gates' canaries and the verification: one implementation.

mod answer;
pub(crate) mod certificate;
mod failure;
pub(crate) mod phases;
mod redirect;

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::dns::{Name, Resolve, Resolving};
use url::Url;

use self::phases::{Marking, Phase, Phases};
use super::net::{Deadline, Fault, resolve};
use crate::config::model::{HttpProbe, Secret};

/// How much of a body is looked at.
const BODY_CAP: usize = 1024 * 1024;

/// Makes requests.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    client: reqwest::Client,
    addresses: Arc<Addresses>,
}

/// A request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ask<'a> {
    /// Its method.
    pub(crate) method: &'a str,
    /// Its address, query included.
    pub(crate) url: &'a Url,
    /// Its headers.
    pub(crate) headers: &'a BTreeMap<String, Secret>,
    /// Its body.
    pub(crate) body: Option<&'a Secret>,
}

/// An answer, of which the status is here and the body may still come.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Its status.
    pub(crate) status: u16,
    response: reqwest::Response,
    deadline: Deadline,
    phases: Phases,
}

/// The body of an answer.
#[derive(Debug)]
pub(crate) struct Body {
    /// Its beginning.
    pub(crate) bytes: Vec<u8>,
    /// Whether that is all of it.
    pub(crate) whole: bool,
}

impl Client {
    /// A client.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub(crate) fn new() -> Result<Self, String> {
        Self::trusting(roots())
    }

    fn trusting(roots: rustls::RootCertStore) -> Result<Self, String> {
        let tls = tls(roots).map_err(|error| format!("TLS cannot be set up: {error}"))?;
        let addresses = Arc::new(Addresses::default());
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .pool_max_idle_per_host(0)
            .user_agent(concat!("rollbackd/", env!("CARGO_PKG_VERSION")))
            .dns_resolver(Arc::clone(&addresses))
            .tls_backend_preconfigured(tls)
            .tls_info(true)
            .connector_layer(Marking)
            .build()
            .map_err(|error| format!("HTTP cannot be used: {:#}", anyhow::Error::from(error.without_url())))?;
        Ok(Self { client, addresses })
    }

    /// Makes a request, follows it as far as the probe says, and looks at the answer. Good: the status.
    pub(crate) async fn probe(&self, probe: &HttpProbe, timeout: Duration) -> Result<u16, Fault> {
        self.probe_in(probe, timeout, &Phases::default()).await
    }

    /// As [`probe`](Self::probe), with marks of how far it came.
    pub(crate) async fn probe_in(&self, probe: &HttpProbe, timeout: Duration, phases: &Phases) -> Result<u16, Fault> {
        let deadline = Deadline::after(timeout);
        let (mut url, mut headers) = (probe.url.expose().clone(), probe.headers.clone());
        let (mut method, mut body) = (probe.method.as_str(), probe.body.as_ref());
        let mut left = probe.redirects;
        loop {
            let ask = Ask { method, url: &url, headers: &headers, body };
            let answer = self.ask_in(ask, deadline, phases).await?;
            let status = answer.status;
            if probe.redirects == 0 || !redirect::is_redirect(status) || probe.status.contains(&status) {
                answer::check_status(probe, status)?;
                // Read even when nothing is asked of it: an answer that breaks off is none.
                answer::check_body(probe, &answer.body().await?)?;
                return Ok(status);
            }
            let Some(fewer) = left.checked_sub(1) else {
                return Err(Fault::Wrong(format!("status {status} after {} redirects", probe.redirects)));
            };
            left = fewer;
            let next = redirect::follow(&ask, status, answer.location())?;
            if !next.same_method {
                method = "GET";
            }
            body = body.filter(|_| next.whole);
            (url, headers) = (next.url, next.headers);
        }
    }

    /// Makes a request.
    pub(crate) async fn ask(&self, ask: Ask<'_>, deadline: Deadline) -> Result<Answer, Fault> {
        self.ask_in(ask, deadline, &Phases::default()).await
    }

    async fn ask_in(&self, ask: Ask<'_>, deadline: Deadline, phases: &Phases) -> Result<Answer, Fault> {
        let (Some(host), Some(port)) = (ask.url.host_str(), ask.url.port_or_known_default()) else {
            return Err(Fault::Unreadable("its URL has no host".to_owned()));
        };
        phases.enter(Phase::Resolve);
        let found = resolve(host, port, &deadline).await?;
        self.addresses.set(host, found);
        let method = reqwest::Method::from_bytes(ask.method.as_bytes())
            .map_err(|error| Fault::Unreadable(format!("`{}`: {error}", ask.method)))?;
        let mut request = self.client.request(method, ask.url.clone());
        for (name, value) in ask.headers {
            request = request.header(name, value.expose());
        }
        if let Some(body) = ask.body {
            request = request.body(body.expose().to_owned());
        }
        phases.enter(Phase::Connect);
        let answered = deadline.bound(phases.watch(request.send())).await.map_err(|late| phases.tell(late))?;
        let response = answered.map_err(|error| failure::fault(&error))?;
        phases.enter(Phase::Read);
        let shown = response.extensions().get::<reqwest::tls::TlsInfo>().and_then(|tls| tls.peer_certificate());
        if let Some(expires) = shown.and_then(certificate::expires) {
            phases.certificate(expires);
        }
        Ok(Answer { status: response.status().as_u16(), response, deadline, phases: phases.clone() })
    }
}

impl Answer {
    /// Where a redirect leads.
    fn location(&self) -> Option<&str> {
        self.response.headers().get(reqwest::header::LOCATION)?.to_str().ok()
    }

    /// Reads the body, up to a limit.
    pub(crate) async fn body(mut self) -> Result<Body, Fault> {
        let mut bytes = Vec::new();
        loop {
            let read = self.deadline.bound(self.response.chunk()).await.map_err(|late| self.phases.tell(late))?;
            let Some(chunk) = read.map_err(|error| failure::fault(&error))? else { break };
            let room = BODY_CAP.saturating_sub(bytes.len());
            bytes.extend_from_slice(chunk.get(..room).unwrap_or(&chunk));
            if chunk.len() > room {
                self.phases.end();
                return Ok(Body { bytes, whole: false });
            }
        }
        self.phases.end();
        Ok(Body { bytes, whole: true })
    }
}

/// The addresses that names resolved to last. Names are resolved before a request and not inside it, for only so
/// can a slow name server be told from a slow application.
#[derive(Debug, Default)]
struct Addresses(Mutex<HashMap<String, Vec<SocketAddr>>>);

impl Addresses {
    fn set(&self, host: &str, mut addresses: Vec<SocketAddr>) {
        // Port 0 lets the URL's own win: other URLs may name the same host.
        for address in &mut addresses {
            address.set_port(0);
        }
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(host.to_owned(), addresses);
    }
}

impl Resolve for Addresses {
    fn resolve(&self, name: Name) -> Resolving {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(name.as_str()).cloned();
        let found = known.map(|addresses| -> reqwest::dns::Addrs { Box::new(addresses.into_iter()) });
        Box::pin(std::future::ready(found.ok_or_else(|| "the name was not resolved".into())))
    }
}

/// What the system trusts; where the system has no certificates at all, as in a bare container, what browsers trust.
fn roots() -> rustls::RootCertStore {
    let mut roots = rustls::RootCertStore::empty();
    let (trusted, _ignored) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if trusted == 0 {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    roots
}

/// Nothing is chosen for the whole program.
fn tls(roots: rustls::RootCertStore) -> Result<rustls::ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(versions.with_root_certificates(roots).with_no_client_auth())
}

#[cfg(test)]
pub(crate) mod tests;
