//! The real way to a server: TCP, and TLS 1.3 with the operator's pinned certificate.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use atoll_api::link::{EXPORTER_BYTES, EXPORTER_LABEL};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::dial::{Dial, DialError, Dialled, Server};

/// Dials by TLS and believes the certificates of one file, and no others.
#[derive(Clone)]
pub struct Tls(TlsConnector);

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls")
    }
}

impl Tls {
    /// Reads the pinned certificates.
    ///
    /// # Errors
    /// [`DialError::Certificate`].
    pub fn new(ca: &Path) -> Result<Self, DialError> {
        let unusable = |why: String| DialError::Certificate { path: ca.display().to_string(), why };
        let mut roots = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(ca).map_err(|error| unusable(error.to_string()))? {
            let certificate = certificate.map_err(|error| unusable(error.to_string()))?;
            roots.add(certificate).map_err(|error| unusable(error.to_string()))?;
        }
        if roots.is_empty() {
            return Err(unusable("it holds no certificate".into()));
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        // TLS 1.3 alone: in 1.2 the exporter binds the connection only with an extension that is not always there.
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| unusable(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self(TlsConnector::from(Arc::new(config))))
    }

    /// TLS with a server over a connection that stands.
    ///
    /// # Errors
    /// [`DialError::Untrusted`] or [`DialError::Refused`].
    pub async fn over(&self, tcp: TcpStream, server: &Server) -> Result<Dialled, DialError> {
        let name = ServerName::try_from(server.host.clone()).map_err(|_| DialError::Address(server.to_string()))?;
        tcp.set_nodelay(true).map_err(|error| DialError::Unreachable(server.clone(), error))?;
        let tls = self.0.connect(name, tcp).await.map_err(|error| match error.kind() {
            // It hung up before it showed anything: it has too much to do, or ends.
            ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset => DialError::Unreachable(server.clone(), error),
            _ => DialError::Untrusted(server.clone(), error),
        })?;
        let exporter = tls.get_ref().1.export_keying_material([0; EXPORTER_BYTES], EXPORTER_LABEL, None);
        let exporter = exporter.map_err(|error| DialError::Refused(server.clone(), error.to_string()))?;
        Ok((Box::new(tls), exporter))
    }
}

#[async_trait]
impl Dial for Tls {
    async fn connect(&self, server: &Server) -> Result<Dialled, DialError> {
        let tcp = TcpStream::connect((server.host.as_str(), server.port)).await;
        self.over(tcp.map_err(|error| DialError::Unreachable(server.clone(), error))?, server).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_that_is_none_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cert.pem");
        let refused = |path: &Path| Tls::new(path).unwrap_err().to_string();
        assert!(refused(&path).contains("cert.pem"));
        std::fs::write(&path, "nothing").unwrap();
        assert!(refused(&path).contains("holds no certificate"));
    }
}
