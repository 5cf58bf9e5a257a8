//! Byte streams over real connections: the proof, and the worker's socket for pods.

use std::collections::BTreeMap;
use std::sync::Arc;

use atoll_api::link::{DEVICE_KEY_HEADER, PROOF_HEADER, stream_proof};
use atoll_domain::id::PodId;
use atoll_domain::key::{PublicKey, Purpose, Signature};
use atoll_worker::host::machine::Machine;
use atoll_worker::link::dial::OperatorName;
use atoll_worker::streams::{self, Stores};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio_tungstenite::tungstenite::Message;

use crate::server::{Peer, Server, device, within};

fn proven(peer: &Peer, name: &str) {
    let key: PublicKey = peer.header(DEVICE_KEY_HEADER).parse().unwrap();
    let proof: Signature = peer.header(PROOF_HEADER).parse().unwrap();
    assert_eq!(key, device().public());
    key.verify(Purpose::Link, &stream_proof(&peer.exporter, name), &proof).unwrap();
    assert!(key.verify(Purpose::Link, &stream_proof(&[0; 32], name), &proof).is_err(), "of this connection only");
}

struct Worker {
    folder: tempfile::TempDir,
    server: Server,
    _live: watch::Sender<BTreeMap<PodId, OperatorName>>,
}

impl Worker {
    async fn with(pod: PodId) -> Self {
        // A path far longer than the 107 bytes that the kernel takes.
        let folder = tempfile::Builder::new().prefix(&"long".repeat(40)).tempdir().unwrap();
        let server = Server::start().await;
        let host = Machine::open(folder.path().to_owned(), "/nonexistent".into()).unwrap();
        let operator = server.operator();
        let (live, shown) = watch::channel(BTreeMap::from([(pod, operator.name().clone())]));
        let operators = Arc::new(BTreeMap::from([(operator.name().clone(), operator)]));
        let stores = Stores { operators, device: Arc::new(device()), live: shown };
        tokio::spawn(streams::serve_store(Arc::new(host), stores));
        Self { folder, server, _live: live }
    }

    fn call(&self) -> UnixStream {
        let stream = atoll_worker::supervisor::streams::connect_unix(&self.folder.path().join("worker.sock")).unwrap();
        stream.set_nonblocking(true).unwrap();
        UnixStream::from_std(stream).unwrap()
    }
}

#[tokio::test]
async fn a_pods_connection_reaches_the_store_with_a_proof_and_both_ways() {
    let pod = PodId::from_random([1; 16]);
    let worker = Worker::with(pod).await;
    let mut tenant = worker.call();
    tenant.write_all(format!("{{\"pod\":\"{pod}\"}}\nGET /v1/checkpoints/latest").as_bytes()).await.unwrap();
    let mut peer = worker.server.accept().await;
    assert_eq!(peer.path, format!("/v1/link/streams/store?pod={pod}"));
    proven(&peer, &format!("store:{pod}"));
    let request = within(peer.socket.next()).await.unwrap().unwrap().into_data();
    assert_eq!(request.as_ref(), b"GET /v1/checkpoints/latest");
    peer.socket.send(Message::Binary(b"404".to_vec().into())).await.unwrap();
    peer.socket.close(None).await.unwrap();
    let mut answer = String::new();
    within(tenant.read_to_string(&mut answer)).await.unwrap();
    assert_eq!(answer, "404");
}

#[tokio::test]
async fn a_caller_that_is_no_live_pod_is_hung_up_on_and_nothing_is_dialled() {
    let pod = PodId::from_random([1; 16]);
    let worker = Worker::with(pod).await;
    let stranger = PodId::from_random([2; 16]);
    let long = format!("{{\"pod\":\"{pod}\"{}}}\n", " ".repeat(200));
    for first in [format!("{{\"pod\":\"{stranger}\"}}\n"), "GET / HTTP/1.1\r\n".to_owned(), long] {
        let mut caller = worker.call();
        // The worker may have hung up already.
        let _ = caller.write_all(first.as_bytes()).await;
        let mut answer = Vec::new();
        // Closed or reset, both are an end; an answer would be none.
        let _ = within(caller.read_to_end(&mut answer)).await;
        assert!(answer.is_empty(), "{first}");
    }
    // A caller that says nothing is hung up on too.
    let mut silent = worker.call();
    assert_eq!(within(silent.read_to_end(&mut Vec::new())).await.unwrap(), 0);
    let dialled = tokio::time::timeout(std::time::Duration::from_millis(200), worker.server.accept_tcp()).await;
    assert!(dialled.is_err());
}

#[tokio::test]
async fn an_asked_stream_shows_the_proof_of_its_own_name() {
    let server = Server::start().await;
    let operator = server.operator();
    let dialling = tokio::spawn(async move { operator.stream("str_x", &device()).await.unwrap() });
    let peer = server.accept().await;
    assert_eq!(peer.path, "/v1/link/streams/str_x");
    proven(&peer, "str_x");
    dialling.await.unwrap();
}

#[test]
fn the_socket_is_the_workers_own() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("worker.sock");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _entered = runtime.enter();
    let first = streams::listen(&path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    drop(first);
    // What a dead worker left behind is replaced.
    streams::listen(&path).unwrap();
}
