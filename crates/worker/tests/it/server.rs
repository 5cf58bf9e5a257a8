//! A small control plane: TLS 1.3 with a certificate of its own, WebSocket, and a script.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use atoll_api::link::envelope::Body;
use atoll_api::link::{EXPORTER_LABEL, Envelope, Hello, Welcome, decode, encode};
use atoll_domain::key::{PublicKey, Purpose, SecretKey, Signature};
use atoll_domain::time::UnixMs;
use atoll_domain::worker::SlotRef;
use atoll_worker::link::dial::{Operator, OperatorName};
use atoll_worker::link::tls::Tls;
use atoll_worker::link::{Identity, Later, Link, LinkEvent, Presence};
use atoll_worker::outside::Outside;
use futures_util::{SinkExt as _, StreamExt as _};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};

/// Nothing here takes longer.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// A clock that ticks with every look, and randomness from a counter.
#[derive(Debug, Default)]
pub(crate) struct Counting(AtomicU64);

impl Outside for Counting {
    fn now(&self) -> UnixMs {
        UnixMs(1_000_000 + self.0.fetch_add(1, Ordering::Relaxed))
    }

    fn fill(&self, bytes: &mut [u8]) {
        for byte in bytes {
            *byte = self.0.fetch_add(1, Ordering::Relaxed).to_le_bytes()[0];
        }
    }
}

pub(crate) struct Server {
    listener: TcpListener,
    tls: TlsAcceptor,
    folder: tempfile::TempDir,
}

/// One worker's connection, after the WebSocket handshake.
pub(crate) struct Peer {
    pub(crate) socket: WebSocketStream<TlsStream<TcpStream>>,
    pub(crate) exporter: [u8; 32],
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) session: u64,
    sent: u64,
}

fn certificate() -> (rcgen::Certificate, PrivateKeyDer<'static>) {
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".into(), "localhost".into()]).unwrap();
    (made.cert, PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()).into())
}

impl Server {
    pub(crate) async fn start() -> Self {
        let (shown, key) = certificate();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("cert.pem"), shown.pem()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![shown.der().clone()], key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self { listener, tls: TlsAcceptor::from(Arc::new(config)), folder }
    }

    pub(crate) fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.listener.local_addr().unwrap().port())
    }

    pub(crate) fn certificate(&self) -> PathBuf {
        self.folder.path().join("cert.pem")
    }

    /// Makes another certificate than the one it shows the trusted one.
    pub(crate) fn pin_another(&self) {
        std::fs::write(self.certificate(), certificate().0.pem()).unwrap();
    }

    /// An operator that has this server alone.
    pub(crate) fn operator(&self) -> Operator {
        let tls = Tls::new(&self.certificate()).unwrap();
        Operator::new(OperatorName("own".into()), vec![self.url().parse().unwrap()], Arc::new(tls)).unwrap()
    }

    /// A link to this server, started.
    pub(crate) fn link(&self, presence: Presence) -> (Link, watch::Sender<Presence>) {
        let later = Later::new();
        let (shown, seen) = watch::channel(presence);
        let slot = SlotRef { page: PublicKey([5; 32]), slot: 3 };
        let identity = Identity { device: Arc::new(device()), slot, advertise: "127.0.0.1".into() };
        later.keeper.start(self.operator(), identity, Arc::new(Counting::default()), seen);
        (later.link, shown)
    }

    pub(crate) async fn accept_tcp(&self) -> TcpStream {
        within(self.listener.accept()).await.unwrap().0
    }

    /// The next connection up to the WebSocket; none when the worker refused our certificate.
    pub(crate) async fn accept_any(&self) -> Option<Peer> {
        let tcp = self.accept_tcp().await;
        let tls = within(Box::pin(self.tls.accept(tcp))).await.ok()?;
        let exporter = tls.get_ref().1.export_keying_material([0; 32], EXPORTER_LABEL, None).unwrap();
        let (mut path, mut headers) = (String::new(), vec![]);
        #[allow(clippy::result_large_err, reason = "the callback's type is the library's")]
        let look = |request: &Request, response: Response| {
            path = request.uri().to_string();
            let text = |value: &tokio_tungstenite::tungstenite::http::HeaderValue| value.to_str().unwrap().to_owned();
            headers = request.headers().iter().map(|(name, value)| (name.to_string(), text(value))).collect();
            Ok(response)
        };
        let socket = within(Box::pin(tokio_tungstenite::accept_hdr_async(tls, look))).await.unwrap();
        Some(Peer { socket, exporter, path, headers, session: 0, sent: 0 })
    }

    pub(crate) async fn accept(&self) -> Peer {
        self.accept_any().await.expect("a worker that trusts this server")
    }

    /// The next connection, greeted.
    pub(crate) async fn greet(&self, welcome: Welcome) -> (Peer, Hello) {
        let mut peer = self.accept().await;
        let hello = peer.hello().await;
        peer.welcome(welcome).await;
        (peer, hello)
    }
}

pub(crate) fn device() -> SecretKey {
    SecretKey::from_seed(&[7; 32])
}

pub(crate) fn welcome(session: u64, resumed: bool, resume_ack: u64) -> Welcome {
    Welcome { session, resumed, resume_ack, heartbeat_ms: 200, now_unix_ms: 1 }
}

/// Waits, but not for ever.
pub(crate) async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, what).await.expect("in time")
}

impl Peer {
    pub(crate) async fn next(&mut self) -> Option<Envelope> {
        loop {
            match within(self.socket.next()).await {
                Some(Ok(Message::Binary(frame))) => return Some(decode(&frame).unwrap()),
                Some(Ok(Message::Close(_)) | Err(_)) | None => return None,
                Some(Ok(_)) => {}
            }
        }
    }

    /// The next envelope that has a number.
    pub(crate) async fn next_numbered(&mut self) -> Envelope {
        loop {
            let envelope = self.next().await.expect("a numbered envelope");
            if envelope.seq != 0 {
                return envelope;
            }
        }
    }

    pub(crate) async fn hello(&mut self) -> Hello {
        let Some(Body::Hello(hello)) = self.next().await.unwrap().body else { panic!("Hello comes first") };
        let key = PublicKey(hello.device_key.clone().try_into().unwrap());
        let proof = Signature(hello.proof.clone().try_into().unwrap());
        key.verify(Purpose::Link, &self.exporter, &proof).expect("the proof is over this very connection");
        assert_eq!(key, device().public());
        hello
    }

    pub(crate) async fn welcome(&mut self, welcome: Welcome) {
        self.session = welcome.session;
        self.raw(encode(&Envelope {
            session: welcome.session,
            body: Some(Body::Welcome(welcome)),
            ..Envelope::default()
        }))
        .await;
    }

    pub(crate) async fn raw(&mut self, frame: Vec<u8>) {
        // A worker that has closed is what some tests wait for.
        let _ = self.socket.send(Message::Binary(frame.into())).await;
    }

    pub(crate) async fn send(&mut self, body: Body) {
        self.sent += 1;
        let (session, seq) = (self.session, self.sent);
        self.raw(encode(&Envelope { session, seq, ack: 0, body: Some(body) })).await;
    }

    pub(crate) async fn ack(&mut self, ack: u64) {
        let session = self.session;
        self.raw(encode(&Envelope { session, seq: 0, ack, body: None })).await;
    }

    pub(crate) fn header(&self, wanted: &str) -> &str {
        &self.headers.iter().find(|(name, _)| name == wanted).unwrap().1
    }
}

/// Waits until a session stands: what is sent before is only kept.
pub(crate) async fn up(link: &mut Link) {
    while !matches!(within(link.events.recv()).await.unwrap(), LinkEvent::Up { .. }) {}
}

/// The next end of a connection, in words.
pub(crate) async fn down(link: &mut Link) -> String {
    loop {
        if let LinkEvent::Down { reason } = within(link.events.recv()).await.unwrap() {
            return reason;
        }
    }
}

/// The next body that the link gives to the world.
pub(crate) async fn received(link: &mut Link) -> Body {
    loop {
        if let LinkEvent::Received(body) = within(link.events.recv()).await.unwrap() {
            return *body;
        }
    }
}
