//! Whose certificates are believed: the system's (or `SSL_CERT_FILE`'s), and where there are none, as in a bare
//! container, the public ones that the program was built with.

use std::error::Error;
use std::sync::OnceLock;

use lettre::transport::smtp::client::{Certificate, CertificateStore, TlsParameters};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;

/// The certificates that are believed.
pub(crate) struct Trust {
    system: Vec<CertificateDer<'static>>,
    extra: Vec<CertificateDer<'static>>,
}

impl Trust {
    /// Reads the system's certificates.
    pub(crate) fn load() -> Self {
        install_provider();
        Self { system: rustls_native_certs::load_native_certs().certs, extra: Vec::new() }
    }

    /// Believes one more.
    #[cfg(test)]
    pub(crate) fn and(mut self, certificate: CertificateDer<'static>) -> Self {
        self.extra.push(certificate);
        self
    }

    /// For HTTPS.
    pub(super) fn client_config(&self) -> Result<ClientConfig, String> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(self.system.iter().cloned());
        if roots.is_empty() {
            roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        }
        for certificate in &self.extra {
            roots.add(certificate.clone()).map_err(|error| format!("a certificate cannot be read: {error}"))?;
        }
        Ok(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())
    }

    /// For SMTP.
    pub(super) fn mail_parameters(&self, host: &str) -> Result<TlsParameters, String> {
        let store = if self.system.is_empty() { CertificateStore::WebpkiRoots } else { CertificateStore::Default };
        let mut builder = TlsParameters::builder(host.to_owned()).certificate_store(store);
        for certificate in &self.extra {
            let certificate = Certificate::from_der(certificate.to_vec())
                .map_err(|error| format!("a certificate cannot be read: {error}"))?;
            builder = builder.add_root_certificate(certificate);
        }
        builder.build_rustls().map_err(|error| format!("smtp.host {host:?} cannot be used with TLS: {error}"))
    }
}

/// Chooses the process's TLS implementation, once. Somebody else may have chosen the same one already.
fn install_provider() {
    static INSTALLED: OnceLock<bool> = OnceLock::new();
    INSTALLED.get_or_init(|| rustls::crypto::ring::default_provider().install_default().is_ok());
}

/// Whether TLS is what failed, however deep it is buried.
pub(super) fn is_tls(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if error.is::<rustls::Error>() {
            return true;
        }
        // An I/O error answers `source` with what lies behind its inner error, so the inner one is asked for here.
        next = match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    false
}
