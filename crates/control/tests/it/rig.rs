//! A control node, the accounts it sees on the chain, its callers and its workers.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use atoll_api::client::Client;
use atoll_api::http::ErrorBody;
use atoll_api::link::envelope::Body;
use atoll_api::link::{
    self, DEVICE_KEY_HEADER, EXPORTER_BYTES, EXPORTER_LABEL, Envelope, Hello, LINK_PATH, PROOF_HEADER, STREAMS_PATH,
    stream_proof,
};
use atoll_control::app::market::{CatalogueModel, MarketView, NetworkFacts};
use atoll_control::config::{Config, Overrides};
use atoll_control::control::Control;
use atoll_control::serve::{Node, RealWorld};
use atoll_domain::id::{ApiKeyId, WorkerId};
use atoll_domain::job::PackRef;
use atoll_domain::key::{Digest, PublicKey, Purpose, SecretKey};
use atoll_domain::money::UsdMicrosPerHour;
use atoll_domain::time::UnixMs;
use atoll_domain::worker::{Facts, Limits, Offer, SlotRef};
use atoll_interface::layout::{FleetPage, SLOT_USED, Slot, bytes_of};
use base64::Engine as _;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_util::sync::CancellationToken;

/// The longest anything here is waited for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
pub(crate) const FEED: u64 = 1_000_000;
pub(crate) const FEE_BPS: u16 = 25;

/// Accounts that the chain shows: owner and data by address.
type Accounts = Arc<Mutex<BTreeMap<String, (PublicKey, Vec<u8>)>>>;

pub(crate) struct Rig {
    pub(crate) node: Node,
    pub(crate) http: reqwest::Client,
    pub(crate) client: Client,
    pub(crate) base: String,
    pub(crate) key: String,
    pub(crate) renter: SecretKey,
    pub(crate) ca: Vec<u8>,
    accounts: Accounts,
    /// Transactions that anybody tried to send.
    pub(crate) sent: Arc<Mutex<u32>>,
    _folder: tempfile::TempDir,
}

pub(crate) fn pack() -> PackRef {
    PackRef { name: "ray-torch".into(), sha256: Digest::of(b"pack") }
}

pub(crate) fn network() -> NetworkFacts {
    NetworkFacts {
        network_root: Digest::of(b"network"),
        program_id: PublicKey(atoll_interface::PROGRAM_ID),
        genesis_hash: PublicKey([3; 32]),
        mint: PublicKey([9; 32]),
        treasury: PublicKey([8; 32]),
        epoch_zero: 0,
        epoch_s: 5,
        epoch_hold_s: 2,
        stall_s: 60,
        fill_s_max: 600,
        attestor_owners: 1,
        seats: vec![],
        threshold: 1,
        fee_bps: FEE_BPS,
    }
}

pub(crate) fn facts() -> Facts {
    Facts {
        cpu: "test".into(),
        cpu_count: 1,
        memory_bytes: 1,
        disk_free_bytes: 1,
        disk_write_mib_s: 1,
        model: "cpu".into(),
        devices: 1,
        packs: vec![pack()],
        limits: Limits::Enforced,
    }
}

fn answer(accounts: &Accounts, sent: &Mutex<u32>, call: &Value) -> Value {
    let value = match call["method"].as_str().unwrap() {
        "getAccountInfo" => {
            let address = call["params"][0].as_str().unwrap();
            let found = accounts.lock().unwrap().get(address).cloned();
            found.map_or(Value::Null, |(owner, data)| {
                let data = base64::engine::general_purpose::STANDARD.encode(data);
                json!({"owner": owner, "lamports": 1, "data": [data, "base64"], "executable": false, "rentEpoch": 0})
            })
        }
        "sendTransaction" => {
            *sent.lock().unwrap() += 1;
            Value::Null
        }
        other => panic!("the node asked the chain for {other}"),
    };
    json!({"jsonrpc": "2.0", "id": call["id"], "result": {"context": {"slot": 1}, "value": value}})
}

async fn chain(accounts: Accounts, sent: Arc<Mutex<u32>>) -> SocketAddr {
    let handler = move |axum::Json(call): axum::Json<Value>| {
        let (accounts, sent) = (Arc::clone(&accounts), Arc::clone(&sent));
        async move { axum::Json(answer(&accounts, &sent, &call)) }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = axum::Router::new().route("/", axum::routing::post(handler));
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    address
}

impl Rig {
    pub(crate) async fn start() -> Self {
        Self::with(Overrides::default()).await
    }

    pub(crate) async fn with(overrides: Overrides) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (accounts, sent) = (Accounts::default(), Arc::default());
        let rpc = chain(Arc::clone(&accounts), Arc::clone(&sent)).await;
        let flags = Overrides {
            state: Some(folder.path().join("server")),
            listen: Some(SocketAddr::from(([127, 0, 0, 1], 0))),
            rpc: Some(format!("http://{rpc}")),
            port_file: Some(folder.path().join("port")),
            ..overrides
        };
        std::fs::create_dir_all(folder.path().join("server")).unwrap();
        let config = Config::read(None, flags).unwrap();
        let store = atoll_control::store::open(&config.store).await.unwrap();
        let node = Node::listen(config, store, Arc::new(RealWorld), CancellationToken::new()).await.unwrap();
        let port = std::fs::read_to_string(folder.path().join("port")).unwrap();
        let base = format!("https://127.0.0.1:{}", port.trim());
        let ca = std::fs::read(folder.path().join("server/tls/cert.pem")).unwrap();
        let renter = SecretKey::from_seed(&[11; 32]);
        let key = new_key(&node.control, "renter", renter.public()).await;
        let client = Client::new(&base, &ca, Some(key.clone())).unwrap();
        let certificate = reqwest::Certificate::from_pem(&ca).unwrap();
        let http = reqwest::Client::builder().tls_certs_only([certificate]).no_proxy().build().unwrap();
        let rig = Self { node, http, client, base, key, renter, ca, accounts, sent, _folder: folder };
        rig.fund(1_000_000_000_000);
        rig
    }

    pub(crate) fn control(&self) -> &Control {
        &self.node.control
    }

    /// The renter's ATL account and what is in it.
    pub(crate) fn fund(&self, amount: u64) -> PublicKey {
        let source = PublicKey([5; 32]);
        let mut data = vec![0; 165];
        data[..32].copy_from_slice(&network().mint.0);
        data[32..64].copy_from_slice(&self.renter.public().0);
        data[64..72].copy_from_slice(&amount.to_le_bytes());
        data[108] = 1;
        self.show(source, PublicKey(atoll_interface::TOKEN_PROGRAM_ID), data);
        source
    }

    pub(crate) fn show(&self, at: PublicKey, owner: PublicKey, data: Vec<u8>) {
        self.accounts.lock().unwrap().insert(at.to_string(), (owner, data));
    }

    /// Puts a worker with one CPU device on the chain, in the market, and links it.
    pub(crate) async fn worker(&self, n: u8) -> Worker {
        let worker = self.register(n);
        let mut worker = worker.dial(self).await;
        worker.hello(|_| {}).await;
        worker.welcomed().await;
        wait("the worker is linked", || self.control().links.is_linked(worker.id)).await;
        worker
    }

    /// Puts a worker on the chain and in the market.
    pub(crate) fn register(&self, n: u8) -> Unlinked {
        let device = SecretKey::from_seed(&[n; 32]);
        let page = PublicKey([100 + n; 32]);
        let header = FleetPage { slot_count: 1, ..FleetPage::new() };
        let slot = Slot { device_key: device.public().0, flags: SLOT_USED, devices: 1, ..Slot::ZERO };
        let data = [bytes_of(&header), bytes_of(&slot)].concat();
        self.show(page, PublicKey(atoll_interface::PROGRAM_ID), data);
        let id = WorkerId::of_device_key(&device.public());
        let offer = Offer {
            at: SlotRef { page, slot: 0 },
            device_key: device.public(),
            supplier: PublicKey([n; 32]),
            model: "cpu".into(),
            ask: UsdMicrosPerHour(50_000),
            devices_mask: 1,
            leased_mask: 0,
            draining: false,
            suspended: false,
        };
        self.market(|view| drop(view.offers.insert(id, offer)));
        Unlinked { id, device, page }
    }

    /// Changes what the node read of the chain.
    pub(crate) fn market(&self, change: impl FnOnce(&mut MarketView)) {
        let market = &self.control().market;
        let mut view = market.snapshot().map(|view| (*view).clone()).unwrap_or_else(|| MarketView {
            network: network(),
            models: vec![
                CatalogueModel { id: 1, name: "cpu".into(), class: "cpu" },
                CatalogueModel { id: 2, name: "h100".into(), class: "enterprise" },
            ],
            feed_usd_micros: FEED,
            feed_by_operator: true,
            offers: BTreeMap::new(),
            chain_time: 0,
        });
        change(&mut view);
        market.put(view);
    }

    /// One call with the key; status and body.
    pub(crate) async fn call(&self, method: &str, path: &str, body: impl Into<reqwest::Body>) -> (u16, String) {
        let request = self.http.request(method.parse().unwrap(), format!("{}{path}", self.base));
        let answer = request.bearer_auth(&self.key).body(body).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }
}

pub(crate) async fn new_key(control: &Control, name: &str, wallet: PublicKey) -> String {
    let now = control.now();
    let mut random = |bytes: &mut [u8]| control.world.random(bytes);
    atoll_control::admin::key_create(&*control.store, name, wallet, now, &mut random).await.unwrap()
}

pub(crate) fn key_id(key: &str) -> ApiKeyId {
    atoll_control::admin::parse_key(key).unwrap().0
}

/// The code of a refusal.
pub(crate) fn code((_, body): &(u16, String)) -> String {
    serde_json::from_str::<ErrorBody>(body).unwrap_or_else(|error| panic!("{error}: {body}")).code
}

/// Waits until something holds.
pub(crate) async fn wait(what: &str, holds: impl Fn() -> bool) {
    let until = tokio::time::Instant::now() + PATIENCE;
    while !holds() {
        assert!(tokio::time::Instant::now() < until, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until something in the store holds.
pub(crate) async fn wait_for<F: Future<Output = bool>>(what: &str, holds: impl Fn() -> F) {
    let until = tokio::time::Instant::now() + PATIENCE;
    while !holds().await {
        assert!(tokio::time::Instant::now() < until, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

type Tls = tokio_rustls::client::TlsStream<tokio::net::TcpStream>;
pub(crate) type Socket = WebSocketStream<Tls>;

/// A worker on the chain without a link.
pub(crate) struct Unlinked {
    pub(crate) id: WorkerId,
    pub(crate) device: SecretKey,
    pub(crate) page: PublicKey,
}

/// A worker's side of a link, by hand.
pub(crate) struct Worker {
    pub(crate) id: WorkerId,
    pub(crate) device: SecretKey,
    pub(crate) page: PublicKey,
    pub(crate) exporter: [u8; EXPORTER_BYTES],
    pub(crate) socket: Socket,
    pub(crate) session: u64,
    pub(crate) seq: u64,
}

impl Unlinked {
    pub(crate) async fn dial(self, rig: &Rig) -> Worker {
        let (socket, exporter) = dial(rig, LINK_PATH, |_| vec![]).await.unwrap();
        let Self { id, device, page } = self;
        Worker { id, device, page, exporter, socket, session: 0, seq: 0 }
    }
}

impl Worker {
    /// Says hello, changed by `change`.
    pub(crate) async fn hello(&mut self, change: impl FnOnce(&mut Hello)) {
        let mut hello = Hello {
            version: link::VERSION,
            device_key: self.device.public().0.to_vec(),
            proof: self.device.sign(Purpose::Link, &self.exporter).0.to_vec(),
            page: self.page.0.to_vec(),
            facts: serde_json::to_vec(&facts()).unwrap(),
            advertise: "127.0.0.1".into(),
            ..Hello::default()
        };
        change(&mut hello);
        self.raw(Envelope { body: Some(Body::Hello(hello)), ..Envelope::default() }).await;
    }

    pub(crate) async fn welcomed(&mut self) -> link::Welcome {
        match self.next().await.unwrap().body.unwrap() {
            Body::Welcome(welcome) => {
                self.session = welcome.session;
                welcome
            }
            other => panic!("expected a welcome, got {other:?}"),
        }
    }

    pub(crate) async fn raw(&mut self, envelope: Envelope) {
        self.bytes(link::encode(&envelope)).await;
    }

    pub(crate) async fn bytes(&mut self, bytes: Vec<u8>) {
        self.socket.send(Message::Binary(bytes.into())).await.unwrap();
    }

    /// Sends a numbered body.
    pub(crate) async fn say(&mut self, body: Body) {
        self.seq += 1;
        self.raw(Envelope { session: self.session, seq: self.seq, ack: 0, body: Some(body) }).await;
    }

    pub(crate) async fn beat(&mut self, running: Vec<String>) {
        let beat = link::Heartbeat { unix_ms: 0, running };
        self.raw(Envelope { session: self.session, seq: 0, ack: 0, body: Some(Body::Heartbeat(beat)) }).await;
    }

    /// The next envelope; none when the node closed.
    pub(crate) async fn next(&mut self) -> Option<Envelope> {
        loop {
            let message = tokio::time::timeout(PATIENCE, self.socket.next()).await.expect("the node says nothing");
            match message {
                Some(Ok(Message::Binary(bytes))) => return Some(link::decode(&bytes).unwrap()),
                Some(Ok(Message::Close(_)) | Err(_)) | None => return None,
                Some(Ok(_)) => {}
            }
        }
    }

    /// The next numbered envelope.
    pub(crate) async fn numbered(&mut self) -> Envelope {
        loop {
            let envelope = self.next().await.expect("the node closed");
            if envelope.seq != 0 {
                return envelope;
            }
        }
    }

    /// The code with which the node refuses, before it closes.
    pub(crate) async fn refused(&mut self) -> String {
        let mut code = None;
        while let Some(envelope) = self.next().await {
            if let Some(Body::Refused(refused)) = envelope.body {
                code = Some(refused.code);
            }
        }
        code.expect("the node closed without a reason")
    }
}

/// Dials a WebSocket; the HTTP status when it is refused.
pub(crate) async fn dial(
    rig: &Rig,
    path: &str,
    headers: impl FnOnce(&[u8; EXPORTER_BYTES]) -> Vec<(&'static str, String)>,
) -> Result<(Socket, [u8; EXPORTER_BYTES]), u16> {
    dial_at(rig.node.address, &rig.ca, path, headers).await.expect("the node does not listen")
}

/// The same at an address; none when nobody listens or the connection breaks.
pub(crate) async fn dial_at(
    address: SocketAddr,
    ca: &[u8],
    path: &str,
    headers: impl FnOnce(&[u8; EXPORTER_BYTES]) -> Vec<(&'static str, String)>,
) -> Option<Result<(Socket, [u8; EXPORTER_BYTES]), u16>> {
    use rustls::pki_types::pem::PemObject as _;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(rustls::pki_types::CertificateDer::from_pem_slice(ca).unwrap()).unwrap();
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let tcp = tokio::net::TcpStream::connect(address).await.ok()?;
    let name = rustls::pki_types::ServerName::try_from("127.0.0.1").unwrap();
    let tls = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, tcp).await.ok()?;
    let exporter = tls.get_ref().1.export_keying_material([0; EXPORTER_BYTES], EXPORTER_LABEL, None).unwrap();
    let mut request = format!("wss://{address}{path}").into_client_request().unwrap();
    for (name, value) in headers(&exporter) {
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    match tokio_tungstenite::client_async(request, tls).await {
        Ok((socket, _)) => Some(Ok((socket, exporter))),
        Err(tokio_tungstenite::tungstenite::Error::Http(answer)) => Some(Err(answer.status().as_u16())),
        Err(_) => None,
    }
}

/// Dials a byte stream with a device key's proof.
pub(crate) async fn dial_stream(rig: &Rig, path: &str, name: &str, device: &SecretKey) -> Result<Socket, u16> {
    let headers = |exporter: &[u8; EXPORTER_BYTES]| {
        let proof = device.sign(Purpose::Link, &stream_proof(exporter, name));
        vec![(PROOF_HEADER, proof.to_string()), (DEVICE_KEY_HEADER, device.public().to_string())]
    };
    dial(rig, &format!("{STREAMS_PATH}/{path}"), headers).await.map(|(socket, _)| socket)
}

pub(crate) fn now() -> UnixMs {
    use atoll_control::control::World as _;
    RealWorld.now()
}
