//! How a node reaches the other nodes of its operator, and passes requests on to them.
//!
//! A worker has one link, at one node. A request that needs it and came to another node is passed on as it is: the node
//! that holds the link checks the caller again. What was passed on once is not passed on a second time, so that two nodes
//! that are both wrong about a link cannot play ball.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;
use axum::extract::Request;
use axum::http::Uri;
use hyper::Response;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// The longest it may take to reach another node. One that does not answer by then is as good as gone.
const DIAL_MAX: Duration = Duration::from_secs(2);
/// Marks a request that another node passed on.
pub(crate) const PASSED_HEADER: &str = "atoll-passed-on";

/// Bytes to and from another node.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// Dials other nodes: over TLS in a server, whatever stands for it in a simulation.
#[async_trait]
pub trait Neighbours: Send + Sync + std::fmt::Debug {
    /// A connection to the node at `url`, on which HTTP/1.1 is spoken and the other end is known to be of this operator.
    async fn dial(&self, url: &str) -> std::io::Result<Box<dyn Stream>>;
}

/// For a node without any.
#[derive(Debug)]
pub struct None;

#[async_trait]
impl Neighbours for None {
    async fn dial(&self, url: &str) -> std::io::Result<Box<dyn Stream>> {
        Err(std::io::Error::new(std::io::ErrorKind::Unsupported, format!("this node does not know how to reach {url}")))
    }
}

/// Other nodes behind TLS, with the certificate that all nodes of the operator have.
pub struct Pinned {
    connector: TlsConnector,
}

impl std::fmt::Debug for Pinned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pinned")
    }
}

impl Pinned {
    /// Trusts the node's own certificate and no other.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn of(state: &Path) -> anyhow::Result<Self> {
        let (cert, _) = crate::tls::paths(state);
        let mut roots = rustls::RootCertStore::empty();
        for certificate in
            CertificateDer::pem_file_iter(&cert).with_context(|| format!("reading {}", cert.display()))?
        {
            roots.add(certificate?)?;
        }
        let mut config =
            rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_protocol_versions(&[&rustls::version::TLS13])?
                .with_root_certificates(roots)
                .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { connector: TlsConnector::from(Arc::new(config)) })
    }
}

#[async_trait]
impl Neighbours for Pinned {
    async fn dial(&self, url: &str) -> std::io::Result<Box<dyn Stream>> {
        let bad = || std::io::Error::new(std::io::ErrorKind::InvalidInput, format!("`{url}` is not https://HOST:PORT"));
        let at: Uri = url.parse().map_err(|_| bad())?;
        let host = at.host().ok_or_else(bad)?.trim_matches(['[', ']']).to_owned();
        let name = ServerName::try_from(host.clone()).map_err(|_| bad())?;
        let dialled = async {
            let tcp = TcpStream::connect((host.as_str(), at.port_u16().unwrap_or(443))).await?;
            tcp.set_nodelay(true)?;
            self.connector.connect(name, tcp).await
        };
        match tokio::time::timeout(DIAL_MAX, dialled).await {
            Ok(session) => Ok(Box::new(session?)),
            Err(_) => Err(std::io::Error::new(std::io::ErrorKind::TimedOut, "no connection within 2 s")),
        }
    }
}

/// Speaks one request over a connection, which goes on for what is upgraded.
pub(crate) async fn send(stream: Box<dyn Stream>, request: Request) -> hyper::Result<Response<Incoming>> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    atoll_life::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "a connection that a request was passed on over broke");
        }
    });
    sender.send_request(request).await
}

/// Where a node that listens on every address is reached from its own machine.
#[must_use]
pub fn reachable(listens: SocketAddr) -> SocketAddr {
    match listens {
        SocketAddr::V4(at) if at.ip().is_unspecified() => ([127, 0, 0, 1], at.port()).into(),
        SocketAddr::V6(at) if at.ip().is_unspecified() => ([127, 0, 0, 1], at.port()).into(),
        at => at,
    }
}
