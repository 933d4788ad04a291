//! Certificates of test servers.

use std::process::Stdio;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use tempfile::TempDir;
use tokio::process::Command;

use crate::notify::trust::Trust;

/// A self-signed certificate, its key in the same file.
pub(super) struct Certificate {
    directory: TempDir,
}

impl Certificate {
    /// For `127.0.0.1`.
    pub(super) async fn make() -> Self {
        Self::of("IP:127.0.0.1").await
    }

    /// For a name or address.
    pub(super) async fn of(subject: &str) -> Self {
        let directory = TempDir::new().unwrap();
        let config = format!(
            "[req]\ndistinguished_name=dn\nx509_extensions=ext\nprompt=no\n[dn]\nCN=mail.test\n\
             [ext]\nbasicConstraints=critical,CA:FALSE\nsubjectAltName={subject}\n"
        );
        std::fs::write(directory.path().join("config"), config).unwrap();
        let status = Command::new("openssl")
            .current_dir(directory.path())
            .args("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -config config".split(' '))
            .args("-keyout pem -out certificate -days 2".split(' '))
            .stderr(Stdio::null())
            .status();
        assert!(status.await.expect("openssl is installed").success());
        let certificate = std::fs::read_to_string(directory.path().join("certificate")).unwrap();
        let key = std::fs::read_to_string(directory.path().join("pem")).unwrap();
        std::fs::write(directory.path().join("pem"), key + &certificate).unwrap();
        Self { directory }
    }

    /// Both, as PEM.
    pub(super) fn path(&self) -> String {
        self.directory.path().join("pem").to_str().unwrap().to_owned()
    }

    /// Who believes in it.
    pub(super) fn trusted(&self) -> Trust {
        let certificate = CertificateDer::from_pem_file(self.directory.path().join("certificate")).unwrap();
        Trust::load().and(certificate)
    }
}
