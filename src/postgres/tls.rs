//! How a PostgreSQL connection is secured: `sslmode` → a rustls configuration.
//!
//! rustls has no notion of libpq's middle modes, so two verifiers are here: one that checks the chain but not
//! the name (`verify-ca`), and one that checks neither (`prefer`, and `require` without a root certificate), which
//! guards against listening but not against an impostor. That is what these modes mean in libpq, and
//! `verify-full` is there for everybody who wants more. Signatures of the handshake are always checked.

use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use crate::config::model::{Tls, TlsMode};

/// How far a server's certificate is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Check {
    /// Not at all.
    Nothing,
    /// Its chain.
    Chain,
    /// Its chain and the host's name.
    ChainAndName,
}

/// What libpq would check in this mode.
pub(crate) const fn check_of(tls: &Tls) -> Check {
    match (tls.mode, &tls.root_cert) {
        (TlsMode::Disable | TlsMode::Prefer, _) | (TlsMode::Require, None) => Check::Nothing,
        (TlsMode::Require, Some(_)) | (TlsMode::VerifyCa, _) => Check::Chain,
        (TlsMode::VerifyFull, _) => Check::ChainAndName,
    }
}

/// The client's side of TLS. `Err` names the file and what is wrong with it.
pub(crate) fn client_config(tls: &Tls) -> Result<ClientConfig, String> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS cannot be set up: {error}"))?;
    let check = check_of(tls);
    if check == Check::Nothing {
        let verifier = Arc::new(NoIdentity { provider });
        return Ok(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth());
    }
    let roots = Arc::new(roots(tls.root_cert.as_deref())?);
    if check == Check::ChainAndName {
        return Ok(builder.with_root_certificates(roots).with_no_client_auth());
    }
    let inner = WebPkiServerVerifier::builder_with_provider(roots, provider)
        .build()
        .map_err(|error| format!("the root certificates cannot be used: {error}"))?;
    Ok(builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyName { inner })).with_no_client_auth())
}

fn roots(file: Option<&Path>) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    if let Some(file) = file {
        let named = |why: String| format!("tls_root_cert {}: {why}", file.display());
        let certificates = CertificateDer::pem_file_iter(file).map_err(|error| named(error.to_string()))?;
        for certificate in certificates {
            let certificate = certificate.map_err(|error| named(error.to_string()))?;
            store.add(certificate).map_err(|error| named(error.to_string()))?;
        }
        if store.is_empty() {
            return Err(named("no certificate in it; it must be PEM".to_owned()));
        }
        return Ok(store);
    }
    store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if store.is_empty() {
        store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    Ok(store)
}

/// The system's certificates as PEM, for libpq, which takes a file and knows no default before version 16.
pub(crate) fn system_roots_pem() -> Result<String, String> {
    let certificates = rustls_native_certs::load_native_certs().certs;
    if certificates.is_empty() {
        return Err("this system has no root certificates; set database.tls_root_cert".to_owned());
    }
    let mut pem = String::new();
    for certificate in certificates {
        pem.push_str("-----BEGIN CERTIFICATE-----\n");
        let text = base64::engine::general_purpose::STANDARD.encode(certificate.as_ref());
        let mut rest = text.as_str();
        while !rest.is_empty() {
            let (line, after) = rest.split_at(rest.len().min(64));
            pem.push_str(line);
            pem.push('\n');
            rest = after;
        }
        pem.push_str("-----END CERTIFICATE-----\n");
    }
    Ok(pem)
}

/// Checks that the server holds its certificate's key, and nothing about who it is.
#[derive(Debug)]
struct NoIdentity {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for NoIdentity {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Checks the chain, and takes a certificate that was made for another name.
#[derive(Debug)]
struct AnyName {
    inner: Arc<WebPkiServerVerifier>,
}

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        // The chain is checked before the name, so this error means that the chain was good.
        match self.inner.verify_server_cert(certificate, intermediates, name, ocsp, now) {
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, chown};
    use std::path::PathBuf;
    use std::process::Command;
    use std::time::Duration;

    use super::*;
    use crate::config::model::{Address, Database};
    use crate::demo::cluster::{Cluster, Stop};
    use crate::postgres::programs::{self, Access};
    use crate::postgres::session::{ConnectError, Passage, Session};
    use crate::postgres::testing;

    /// A certificate authority and a server's certificate for `db.test`, made by openssl.
    fn certificates(directory: &Path) -> PathBuf {
        let script = "openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.crt -days 2 -subj /CN=ca
            openssl req -newkey rsa:2048 -nodes -keyout server.key -out server.csr -subj /CN=db.test
            printf 'subjectAltName=DNS:db.test\\nbasicConstraints=CA:FALSE\\n' > ext
            openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile ext -out server.crt
            openssl req -x509 -newkey rsa:2048 -nodes -keyout other.key -out other.crt -days 2 -subj /CN=other";
        let made = Command::new("sh").args(["-ec", script]).current_dir(directory).output().expect("openssl");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        directory.join("ca.crt")
    }

    /// A server that takes TLS alone.
    async fn server(directory: &Path) -> Cluster {
        let mut cluster = Cluster::start(&directory.join("c")).await.expect("a server");
        let data = cluster.directory().join("data");
        let owner = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(&data).expect("there"));
        for name in ["server.crt", "server.key"] {
            std::fs::copy(directory.join(name), data.join(name)).expect("copied");
            std::fs::set_permissions(data.join(name), std::fs::Permissions::from_mode(0o600)).expect("mode");
            chown(data.join(name), Some(owner), None).expect("owner");
        }
        cluster.execute("postgres", "alter system set ssl = on").await.expect("set");
        cluster.stop(Stop::Fast).await.expect("stops");
        cluster.start_again().await.expect("starts with TLS");
        cluster
    }

    async fn connect(cluster: &Cluster, mode: TlsMode, root_cert: Option<PathBuf>) -> Result<bool, ConnectError> {
        let second = Duration::from_secs(5);
        let url = Address::new(cluster.url("postgres").parse().expect("a url"));
        let session = Session::connect_to(&url, &Tls { mode, root_cert }, second, second).await?;
        let sql = "select ssl from pg_stat_ssl where pid = pg_backend_pid()";
        // The key that the server sent is found under TLS too: a direct connection is not taken for a pooler's.
        assert_eq!(session.passage(&testing::database(url.expose().as_str())).await.expect("a look"), Passage::Direct);
        Ok(session.client().query_one(sql, &[]).await.expect("an answer").get(0))
    }

    #[tokio::test]
    async fn every_mode_checks_what_libpq_checks() {
        let directory = testing::own_directory();
        let ca = certificates(directory.path());
        let other = directory.path().join("other.crt");
        let cluster = server(directory.path()).await;
        // The certificate is for db.test, and we connect to 127.0.0.1.
        for (mode, root, expected) in [
            (TlsMode::Disable, None, Some(false)),
            (TlsMode::Prefer, None, Some(true)),
            (TlsMode::Require, None, Some(true)),
            (TlsMode::Require, Some(&ca), Some(true)),
            (TlsMode::Require, Some(&other), None),
            (TlsMode::VerifyCa, Some(&ca), Some(true)),
            (TlsMode::VerifyCa, Some(&other), None),
            (TlsMode::VerifyCa, None, None),
            (TlsMode::VerifyFull, Some(&ca), None),
        ] {
            match (connect(&cluster, mode, root.cloned()).await, expected) {
                (Ok(encrypted), Some(expected)) => assert_eq!(encrypted, expected, "{mode:?} {root:?}"),
                (Err(ConnectError::Mistake { .. }), None) => {}
                (other, _) => panic!("{mode:?} {root:?}: {other:?}"),
            }
        }
        let missing = directory.path().join("no-such.crt");
        let error = connect(&cluster, TlsMode::VerifyCa, Some(missing)).await.expect_err("no file");
        assert!(error.to_string().contains("no-such.crt"), "{error}");

        // The programs reach the server the same way.
        let found = programs::find(15).await.expect("programs");
        for (root, works) in [(&ca, true), (&other, false)] {
            let tls = Tls { mode: TlsMode::VerifyCa, root_cert: Some(root.clone()) };
            let database = Database { tls, ..testing::database(&cluster.url("postgres")) };
            let access = Access::new(&database).expect("access");
            let arguments = ["--schema-only".to_owned()];
            let ran = programs::run(&found.dump, &arguments, Some(&access), Duration::from_secs(20), None).await;
            assert_eq!(ran.is_ok(), works, "{ran:?}");
        }
    }

    #[test]
    fn the_systems_certificates_are_there_for_libpq() {
        match system_roots_pem() {
            Ok(pem) => assert!(CertificateDer::pem_slice_iter(pem.as_bytes()).all(|one| one.is_ok())),
            Err(reason) => assert!(reason.contains("tls_root_cert"), "{reason}"),
        }
    }
}
