//! Dialling the control plane: TCP, TLS 1.3 with the pinned certificate, the exporter, WebSocket.
//!
//! The exporter belongs to one TLS connection, so a proof signed over it cannot be shown on another one, not even by
//! somebody between the two ends. What is signed, and what goes over the connection, is the callers'.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use atoll_api::link::{
    DEVICE_KEY_HEADER, EXPORTER_BYTES, EXPORTER_LABEL, FRAME_BYTES_MAX, LINK_PATH, PROOF_HEADER, STREAM_BYTES_MAX,
    STREAMS_PATH, store_stream_name, stream_proof,
};
use atoll_domain::key::{Purpose, SecretKey};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::handshake::client::Request;
use tokio_tungstenite::tungstenite::http::{HeaderValue, Uri};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

/// Longest wait for TCP, TLS and WebSocket together.
const DIAL_MAX: Duration = Duration::from_secs(10);
/// Buffers per connection; the link carries small messages, streams chunks of 16 KiB.
const BUFFER_BYTES: usize = 8 << 10;

/// A WebSocket to the control plane.
pub type Socket = WebSocketStream<TlsStream<TcpStream>>;

/// Where the control plane is and whom to believe.
#[derive(Clone)]
pub struct Dialer {
    host: String,
    port: u16,
    name: ServerName<'static>,
    tls: TlsConnector,
}

impl std::fmt::Debug for Dialer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Dialer({}:{})", self.host, self.port)
    }
}

/// Why no connection stands.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The configured address is none.
    #[error("`{0}` is not a server's address: write it like https://control.example:8443")]
    Address(String),
    /// The pinned certificate cannot be used.
    #[error("the server's certificate {path} cannot be used: {why}; copy tls/cert.pem from the server again")]
    Certificate {
        /// The file.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// Nobody answers.
    #[error("cannot reach {0}: {1}; is the server running?")]
    Unreachable(String, std::io::Error),
    /// Somebody answers with another certificate, or none.
    #[error("{0} does not show the pinned certificate: {1}; it may be another server. Nothing was sent to it")]
    Untrusted(String, std::io::Error),
    /// The server speaks something else, or refuses.
    #[error("{0} refused the connection: {1}")]
    Refused(String, String),
    /// Too slow.
    #[error("{0} did not finish connecting within {DIAL_MAX:?}")]
    Slow(String),
}

impl Dialer {
    /// Reads the pinned certificate and the server's address.
    ///
    /// # Errors
    /// [`DialError::Address`] or [`DialError::Certificate`].
    pub fn new(server: &str, ca: &Path) -> Result<Self, DialError> {
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
        let (host, port) = split(server).ok_or_else(|| DialError::Address(server.to_owned()))?;
        let name = ServerName::try_from(host.clone()).map_err(|_| DialError::Address(server.to_owned()))?;
        Ok(Self { host, port, name, tls: TlsConnector::from(Arc::new(config)) })
    }

    /// Opens the control link; gives the exporter to be signed in `Hello`.
    ///
    /// # Errors
    /// [`DialError`].
    pub async fn link(&self) -> Result<(Socket, [u8; EXPORTER_BYTES]), DialError> {
        self.dial(LINK_PATH, FRAME_BYTES_MAX, |_| vec![]).await
    }

    /// Opens the byte stream that the control plane asked for.
    ///
    /// # Errors
    /// [`DialError`].
    pub async fn stream(&self, stream: &str, device: &SecretKey) -> Result<Socket, DialError> {
        self.proven(&format!("{STREAMS_PATH}/{stream}"), stream, device).await
    }

    /// Opens a byte stream from a pod to its object store.
    ///
    /// # Errors
    /// [`DialError`].
    pub async fn store_stream(&self, pod: &str, device: &SecretKey) -> Result<Socket, DialError> {
        self.proven(&format!("{STREAMS_PATH}/store?pod={pod}"), &store_stream_name(pod), device).await
    }

    async fn proven(&self, path: &str, name: &str, device: &SecretKey) -> Result<Socket, DialError> {
        let headers = |exporter: &[u8; EXPORTER_BYTES]| {
            let proof = device.sign(Purpose::Link, &stream_proof(exporter, name));
            vec![(PROOF_HEADER, proof.to_string()), (DEVICE_KEY_HEADER, device.public().to_string())]
        };
        Ok(self.dial(path, STREAM_BYTES_MAX, headers).await?.0)
    }

    async fn dial(
        &self,
        path: &str,
        message_bytes_max: usize,
        headers: impl FnOnce(&[u8; EXPORTER_BYTES]) -> Vec<(&'static str, String)>,
    ) -> Result<(Socket, [u8; EXPORTER_BYTES]), DialError> {
        // Two handshakes make a large future; it lives for a moment.
        let dialled = Box::pin(self.dial_unbounded(path, message_bytes_max, headers));
        tokio::time::timeout(DIAL_MAX, dialled).await.map_err(|_| DialError::Slow(self.authority()))?
    }

    async fn dial_unbounded(
        &self,
        path: &str,
        message_bytes_max: usize,
        headers: impl FnOnce(&[u8; EXPORTER_BYTES]) -> Vec<(&'static str, String)>,
    ) -> Result<(Socket, [u8; EXPORTER_BYTES]), DialError> {
        let refused = |why: String| DialError::Refused(self.authority(), why);
        let tcp = TcpStream::connect((self.host.as_str(), self.port))
            .await
            .map_err(|error| DialError::Unreachable(self.authority(), error))?;
        tcp.set_nodelay(true).map_err(|error| DialError::Unreachable(self.authority(), error))?;
        let tls = self.tls.connect(self.name.clone(), tcp).await;
        let tls = tls.map_err(|error| DialError::Untrusted(self.authority(), error))?;
        let exporter = tls.get_ref().1.export_keying_material([0; EXPORTER_BYTES], EXPORTER_LABEL, None);
        let exporter = exporter.map_err(|error| refused(error.to_string()))?;
        let request = self.request(path, headers(&exporter)).map_err(refused)?;
        let socket = tokio_tungstenite::client_async_with_config(request, tls, Some(bounds(message_bytes_max))).await;
        let (socket, _) = socket.map_err(|error| refused(error.to_string()))?;
        Ok((socket, exporter))
    }

    fn request(&self, path: &str, headers: Vec<(&'static str, String)>) -> Result<Request, String> {
        let url = format!("wss://{}{path}", self.authority());
        let mut request = url.into_client_request().map_err(|error| error.to_string())?;
        for (name, value) in headers {
            let value = HeaderValue::try_from(value).map_err(|error| error.to_string())?;
            request.headers_mut().insert(name, value);
        }
        Ok(request)
    }

    fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

fn bounds(message_bytes_max: usize) -> WebSocketConfig {
    let mut config = WebSocketConfig::default();
    config.read_buffer_size = BUFFER_BYTES;
    config.write_buffer_size = BUFFER_BYTES;
    config.max_write_buffer_size = 2 * message_bytes_max + BUFFER_BYTES;
    config.max_message_size = Some(message_bytes_max);
    config.max_frame_size = Some(message_bytes_max);
    config
}

/// Host and port of `https://host:port`.
fn split(server: &str) -> Option<(String, u16)> {
    let uri: Uri = server.parse().ok()?;
    let plain = uri.query().is_none() && matches!(uri.path(), "" | "/");
    if uri.scheme_str() != Some("https") || !plain {
        return None;
    }
    let (host, authority) = (uri.host()?, uri.authority()?.as_str());
    let port = match authority.strip_prefix(host)? {
        "" => 443,
        port => port.strip_prefix(':')?.parse().ok()?,
    };
    Some((host.trim_start_matches('[').trim_end_matches(']').to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_whole_or_not_at_all() {
        let read = |text: &str| split(text).map(|(host, port)| format!("{host} {port}")).unwrap_or_default();
        assert_eq!(read("https://127.0.0.1:8443"), "127.0.0.1 8443");
        assert_eq!(read("https://control.example/"), "control.example 443");
        assert_eq!(read("https://[::1]:1"), "::1 1");
        for bad in ["", "127.0.0.1:8443", "http://127.0.0.1:1", "https://x/y", "https://x?y", "https://x:99999"] {
            assert_eq!(read(bad), "", "{bad}");
        }
    }

    #[test]
    fn a_certificate_that_is_none_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cert.pem");
        let refused = |path: &Path| Dialer::new("https://127.0.0.1:1", path).unwrap_err().to_string();
        assert!(refused(&path).contains("cert.pem"));
        std::fs::write(&path, "nothing").unwrap();
        assert!(refused(&path).contains("holds no certificate"));
    }
}
