//! An operator's control plane as a worker reaches it: its servers, and a WebSocket to one of them.
//!
//! [`Dial`] makes the byte stream and its exporter ([`crate::link::tls`] over TCP and TLS; a simulation over its own
//! network); what is said on it is the same code over both. The exporter belongs to one connection, so a proof signed
//! over it cannot be shown on another one, not even by somebody between the two ends.

use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use atoll_api::link::{
    DEVICE_KEY_HEADER, EXPORTER_BYTES, FRAME_BYTES_MAX, LINK_PATH, PROOF_HEADER, STREAM_BYTES_MAX, STREAMS_PATH,
    store_stream_name, stream_proof,
};
use atoll_domain::key::{Purpose, SecretKey};
use serde::{Deserialize, Serialize};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::handshake::client::Request;
use tokio_tungstenite::tungstenite::http::{HeaderValue, Uri};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use crate::host::ByteStream;

/// Longest wait for TCP, TLS and WebSocket together.
const DIAL_MAX: Duration = Duration::from_secs(10);
/// Buffers per connection; the link carries small messages, streams chunks of 16 KiB.
const BUFFER_BYTES: usize = 8 << 10;

/// A WebSocket to the control plane.
pub type Socket = WebSocketStream<Box<dyn ByteStream>>;

/// A byte stream, and the 32 bytes that both ends of this very connection know and nobody else.
pub type Dialled = (Box<dyn ByteStream>, [u8; EXPORTER_BYTES]);

/// Connects to servers of one operator.
#[async_trait]
pub trait Dial: fmt::Debug + Send + Sync + 'static {
    /// A connection to a server that has shown who it is. The caller bounds the wait.
    ///
    /// # Errors
    /// [`DialError::Unreachable`], [`DialError::Untrusted`] or [`DialError::Refused`].
    async fn connect(&self, server: &Server) -> Result<Dialled, DialError>;
}

/// One server of a control plane.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Server {
    /// Host name or address, without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

/// What this worker calls an operator, in its configuration and its records.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OperatorName(pub String);

/// An operator's servers and the way to them. Clones are the same operator: all know where the link stands.
#[derive(Clone, Debug)]
pub struct Operator(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: OperatorName,
    servers: Vec<Server>,
    dial: Arc<dyn Dial>,
    /// The server that has the link, or had it last.
    at: Mutex<usize>,
}

/// Why no connection stands.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The configured address is none.
    #[error("`{0}` is not a server's address: write it like https://control.example:8443")]
    Address(String),
    /// An operator without servers.
    #[error("operator {0} has no servers: write `servers = [\"https://control.example:8443\"]`")]
    NoServer(OperatorName),
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
    Unreachable(Server, std::io::Error),
    /// Somebody answers with another certificate, or none.
    #[error("{0} does not show the pinned certificate: {1}; it may be another server. Nothing was sent to it")]
    Untrusted(Server, std::io::Error),
    /// The server speaks something else, or refuses.
    #[error("{0} refused the connection: {1}")]
    Refused(Server, String),
    /// Too slow.
    #[error("{0} did not finish connecting within {DIAL_MAX:?}")]
    Slow(Server),
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl FromStr for Server {
    type Err = DialError;

    /// Reads `https://host:port`.
    fn from_str(text: &str) -> Result<Self, DialError> {
        let (host, port) = split(text).ok_or_else(|| DialError::Address(text.to_owned()))?;
        Ok(Self { host, port })
    }
}

impl fmt::Display for OperatorName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Operator {
    /// An operator with at least one server.
    ///
    /// # Errors
    /// [`DialError::NoServer`].
    pub fn new(name: OperatorName, servers: Vec<Server>, dial: Arc<dyn Dial>) -> Result<Self, DialError> {
        if servers.is_empty() {
            return Err(DialError::NoServer(name));
        }
        Ok(Self(Arc::new(Inner { name, servers, dial, at: Mutex::new(0) })))
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &OperatorName {
        &self.0.name
    }

    /// Its servers; never none.
    #[must_use]
    pub fn servers(&self) -> &[Server] {
        &self.0.servers
    }

    /// Which server has the link, or had it last.
    #[must_use]
    pub fn at(&self) -> usize {
        *self.0.at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens the control link to one of [`Operator::servers`]; gives the exporter to be signed in `Hello`. From here on
    /// streams go to that server.
    ///
    /// # Errors
    /// [`DialError`].
    pub async fn link(&self, server: usize) -> Result<(Socket, [u8; EXPORTER_BYTES]), DialError> {
        let number = server % self.0.servers.len();
        let linked = self.dial(number, LINK_PATH, FRAME_BYTES_MAX, |_| vec![]).await?;
        *self.0.at.lock().unwrap_or_else(PoisonError::into_inner) = number;
        Ok(linked)
    }

    /// Opens the byte stream that the server with the link asked for.
    ///
    /// # Errors
    /// [`DialError`].
    pub async fn stream(&self, stream: &str, device: &SecretKey) -> Result<Socket, DialError> {
        self.proven(self.at(), &format!("{STREAMS_PATH}/{stream}"), stream, device).await
    }

    /// Opens a byte stream from a pod to its object store, by the server with the link, or else by another one.
    ///
    /// # Errors
    /// [`DialError`] of the last server that was tried.
    pub async fn store_stream(&self, pod: &str, device: &SecretKey) -> Result<Socket, DialError> {
        let (first, name) = (self.at(), store_stream_name(pod));
        let mut others = 1..self.0.servers.len();
        let mut at = first;
        loop {
            match self.proven(at, &format!("{STREAMS_PATH}/store?pod={pod}"), &name, device).await {
                // A server that answers is asked for its reasons, not passed over.
                Err(DialError::Unreachable(..) | DialError::Slow(_)) if !others.is_empty() => {
                    at = (first + others.next().unwrap_or(0)) % self.0.servers.len();
                }
                outcome => return outcome,
            }
        }
    }

    async fn proven(&self, at: usize, path: &str, name: &str, device: &SecretKey) -> Result<Socket, DialError> {
        let headers = |exporter: &[u8; EXPORTER_BYTES]| {
            let proof = device.sign(Purpose::Link, &stream_proof(exporter, name));
            vec![(PROOF_HEADER, proof.to_string()), (DEVICE_KEY_HEADER, device.public().to_string())]
        };
        Ok(self.dial(at, path, STREAM_BYTES_MAX, headers).await?.0)
    }

    async fn dial(
        &self,
        at: usize,
        path: &str,
        message_bytes_max: usize,
        headers: impl FnOnce(&[u8; EXPORTER_BYTES]) -> Vec<(&'static str, String)> + Send,
    ) -> Result<(Socket, [u8; EXPORTER_BYTES]), DialError> {
        let server = &self.0.servers[at];
        // Two handshakes make a large future; it lives for a moment.
        let dialled = Box::pin(async {
            let refused = |why: String| DialError::Refused(server.clone(), why);
            let (stream, exporter) = self.0.dial.connect(server).await?;
            let request = request(server, path, headers(&exporter)).map_err(refused)?;
            let handshake =
                tokio_tungstenite::client_async_with_config(request, stream, Some(bounds(message_bytes_max)));
            let (socket, _) = handshake.await.map_err(|error| refused(error.to_string()))?;
            Ok((socket, exporter))
        });
        tokio::time::timeout(DIAL_MAX, dialled).await.map_err(|_| DialError::Slow(server.clone()))?
    }
}

fn request(server: &Server, path: &str, headers: Vec<(&'static str, String)>) -> Result<Request, String> {
    let url = format!("wss://{server}{path}");
    let mut request = url.into_client_request().map_err(|error| error.to_string())?;
    for (name, value) in headers {
        let value = HeaderValue::try_from(value).map_err(|error| error.to_string())?;
        request.headers_mut().insert(name, value);
    }
    Ok(request)
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
        assert_eq!("https://[::1]:1".parse::<Server>().unwrap().to_string(), "[::1]:1");
    }

    /// Answers nobody, and notes who was asked for.
    #[derive(Debug, Default)]
    struct Nobody(Mutex<Vec<String>>);

    #[async_trait]
    impl Dial for Nobody {
        async fn connect(&self, server: &Server) -> Result<Dialled, DialError> {
            self.0.lock().unwrap().push(server.host.clone());
            Err(DialError::Unreachable(server.clone(), std::io::ErrorKind::ConnectionRefused.into()))
        }
    }

    #[tokio::test]
    async fn a_pod_reaches_its_store_by_any_server_that_answers() {
        let dial = Arc::new(Nobody::default());
        let servers = ["a", "b", "c"].map(|host| Server { host: host.to_owned(), port: 1 }).to_vec();
        let operator = Operator::new(OperatorName("o".into()), servers, Arc::clone(&dial) as Arc<dyn Dial>).unwrap();
        *operator.0.at.lock().unwrap() = 1;
        let refused = operator.store_stream("pod_x", &SecretKey::from_seed(&[1; 32])).await;
        assert!(matches!(refused, Err(DialError::Unreachable(..))));
        assert_eq!(*dial.0.lock().unwrap(), ["b", "c", "a"]);
        assert!(Operator::new(OperatorName("o".into()), vec![], dial).is_err());
    }
}
