//! Byte streams through a worker: into a pod, and from a pod to its store.

use atoll_api::link::envelope::Body;
use atoll_api::link::{OpenStream, open_stream, store_stream_name};
use atoll_control::app::pod_token;
use atoll_control::link::{StreamError, Target};
use atoll_domain::cluster::PodState;
use atoll_domain::id::{PodId, WorkerId};
use atoll_domain::key::{Digest, SecretKey};
use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use crate::link::job_with_pod;
use crate::rig::{Rig, Socket, Worker, dial_stream};

async fn asked(worker: &mut Worker) -> OpenStream {
    match worker.numbered().await.body {
        Some(Body::OpenStream(open)) => open,
        other => panic!("{other:?}"),
    }
}

async fn binary(socket: &mut Socket) -> Bytes {
    loop {
        match socket.next().await.unwrap().unwrap() {
            Message::Binary(bytes) => return bytes,
            Message::Close(_) => panic!("closed"),
            _ => {}
        }
    }
}

#[tokio::test]
async fn a_stream_carries_bytes_both_ways_and_ends_each_way_alone() {
    let rig = Rig::start().await;
    let mut worker = rig.worker(1).await;
    let pod = PodId::from_random([9; 16]);
    let links = rig.control().links.clone();
    let open = links.open_stream(worker.id, pod, Target::Port(8265));
    let dial = async {
        let asked = asked(&mut worker).await;
        assert_eq!(
            (asked.pod.as_str(), asked.target),
            (pod.to_string().as_str(), Some(open_stream::Target::Port(8265)))
        );
        // Only the worker that was asked may dial it, and only with a proof.
        let stranger = SecretKey::from_seed(&[66; 32]);
        assert_eq!(dial_stream(&rig, &asked.stream, &asked.stream, &stranger).await.unwrap_err(), 404);
        assert_eq!(dial_stream(&rig, &asked.stream, "str_other", &worker.device).await.unwrap_err(), 401);
        let socket = dial_stream(&rig, &asked.stream, &asked.stream, &worker.device).await.unwrap();
        let again = dial_stream(&rig, &asked.stream, &asked.stream, &worker.device).await;
        assert_eq!(again.unwrap_err(), 404, "a stream was claimed twice");
        socket
    };
    let (stream, mut socket) = tokio::join!(open, dial);
    let mut stream = stream.unwrap();
    let large = vec![7_u8; 300_000];
    stream.write_all(&large).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut got = Vec::new();
    loop {
        let bytes = binary(&mut socket).await;
        if bytes.is_empty() {
            break;
        }
        got.extend_from_slice(&bytes);
    }
    assert_eq!(got, large);
    socket.send(Message::Binary("answer".into())).await.unwrap();
    socket.send(Message::Binary(Bytes::new())).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "answer");
}

#[tokio::test]
async fn a_stream_that_leads_nowhere_says_why() {
    let rig = Rig::start().await;
    let mut worker = rig.worker(1).await;
    let links = rig.control().links.clone();
    let open = links.open_stream(worker.id, PodId::from_random([9; 16]), Target::Port(1));
    let dial = async {
        let asked = asked(&mut worker).await;
        let mut socket = dial_stream(&rig, &asked.stream, &asked.stream, &worker.device).await.unwrap();
        let frame = CloseFrame { code: CloseCode::Error, reason: "port 1: connection refused".into() };
        socket.close(Some(frame)).await.unwrap();
    };
    let (stream, ()) = tokio::join!(open, dial);
    let error = stream.unwrap().read_to_end(&mut Vec::new()).await.unwrap_err();
    assert_eq!(error.to_string(), "port 1: connection refused");
}

#[tokio::test]
async fn a_worker_that_is_away_is_said_to_be() {
    let rig = Rig::start().await;
    let away = WorkerId::from_random([1; 16]);
    let refused = rig.control().links.open_stream(away, PodId::from_random([1; 16]), Target::Output { from: 0 }).await;
    assert_eq!(refused.unwrap_err(), StreamError::NotLinked(away));
}

/// One call of a pod, over a stream of its own.
pub(crate) async fn call(
    rig: &Rig,
    worker: &Worker,
    pod: PodId,
    token: &str,
    method: &str,
    path: &str,
    body: &[u8],
) -> (u16, Vec<u8>) {
    let name = store_stream_name(&pod.to_string());
    let mut socket = dial_stream(rig, &format!("store?pod={pod}"), &name, &worker.device).await.unwrap();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: store\r\nauthorization: Bearer {token}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    socket.send(Message::Binary([head.as_bytes(), body].concat().into())).await.unwrap();
    let mut answer = Vec::new();
    loop {
        match socket.next().await {
            Some(Ok(Message::Binary(bytes))) if bytes.is_empty() => break,
            Some(Ok(Message::Binary(bytes))) => answer.extend_from_slice(&bytes),
            Some(Ok(_)) => {}
            Some(Err(_)) | None => break,
        }
    }
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").expect("no HTTP answer");
    let head = std::str::from_utf8(&answer[..end]).unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), answer[end + 4..].to_vec())
}

struct Inside<'a> {
    rig: &'a Rig,
    worker: &'a Worker,
    pod: PodId,
    token: String,
}

impl Inside<'_> {
    async fn call(&self, method: &str, path: &str, body: &[u8]) -> (u16, Vec<u8>) {
        call(self.rig, self.worker, self.pod, &self.token, method, path, body).await
    }

    async fn refused(&self, method: &str, path: &str, body: &[u8]) -> String {
        let (_, body) = self.call(method, path, body).await;
        let value: Value =
            serde_json::from_slice(&body).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&body)));
        value["code"].as_str().unwrap().to_owned()
    }

    async fn report(&self, report: Value) -> u16 {
        self.call("POST", "/v1/report", report.to_string().as_bytes()).await.0
    }
}

fn inside<'a>(rig: &'a Rig, worker: &'a Worker, pod: PodId) -> Inside<'a> {
    Inside { rig, worker, pod, token: pod_token::issue(&rig.control().keys.pod_secret, pod) }
}

#[tokio::test]
async fn a_pod_reads_its_job_s_folder_and_what_its_job_wrote_and_nothing_else() {
    let rig = Rig::start().await;
    let worker = rig.worker(1).await;
    let (_, pod) = job_with_pod(&rig, &worker).await;
    let pod = inside(&rig, &worker, pod.id);
    let path = |bytes: &[u8]| format!("/v1/blobs/{}", Digest::of(bytes));
    assert_eq!(pod.call("GET", &path(b"a packed folder"), b"").await, (200, b"a packed folder".to_vec()));
    rig.client.put_blob(Digest::of(b"another folder"), b"another folder".to_vec()).await.unwrap();
    assert_eq!(pod.refused("GET", &path(b"another folder"), b"").await, "not_found");
    assert_eq!(pod.refused("PUT", &path(b"weights"), b"we1ghts").await, "digest_mismatch");
    assert_eq!(pod.call("PUT", &path(b"weights"), b"weights").await.0, 204);
    assert_eq!(pod.call("HEAD", &path(b"weights"), b"").await.0, 200);
    assert_eq!(pod.call("GET", &path(b"weights"), b"").await.1, b"weights");
    assert_eq!(pod.refused("GET", "/v1/blobs/../../../etc/passwd", b"").await, "no_such_route");
    assert_eq!(pod.refused("GET", "/v1/blobs/x", b"").await, "bad_request");
    assert_eq!(pod.refused("GET", "/v1/jobs", b"").await, "no_such_route");
}

#[tokio::test]
async fn a_manifest_needs_all_its_blobs_and_the_current_attempt() {
    let rig = Rig::start().await;
    let worker = rig.worker(1).await;
    let (_, pod) = job_with_pod(&rig, &worker).await;
    let pod = inside(&rig, &worker, pod.id);
    let manifest = |attempt: u32, step: u64, name: &str| {
        let file = json!({"name": name, "sha256": Digest::of(b"weights"), "bytes": 7});
        let value =
            json!({"step": step, "epoch": 1, "attempt": attempt, "weights_sha256": Digest::of(b"w"), "files": [file]});
        value.to_string().into_bytes()
    };
    let good = manifest(1, 10, "model.pt");
    assert_eq!(pod.call("GET", "/v1/checkpoints/latest", b"").await.0, 404);
    assert_eq!(pod.refused("PUT", "/v1/checkpoints/10", &good).await, "blob_missing");
    assert_eq!(pod.call("PUT", &format!("/v1/blobs/{}", Digest::of(b"weights")), b"weights").await.0, 204);
    assert_eq!(pod.refused("PUT", "/v1/checkpoints/11", &good).await, "bad_request");
    assert_eq!(pod.refused("PUT", "/v1/checkpoints/10", &manifest(1, 10, "../x")).await, "bad_request");
    assert_eq!(pod.refused("PUT", "/v1/checkpoints/10", &manifest(0, 10, "model.pt")).await, "stale_attempt");
    assert_eq!(pod.refused("PUT", "/v1/checkpoints/10", &manifest(2, 10, "model.pt")).await, "stale_attempt");
    assert_eq!(pod.call("PUT", "/v1/checkpoints/10", &good).await.0, 204);
    let (status, latest) = pod.call("GET", "/v1/checkpoints/latest", b"").await;
    let latest: Value = serde_json::from_slice(&latest).unwrap();
    assert_eq!(
        (status, latest["step"].as_u64(), latest["files"][0]["name"].as_str()),
        (200, Some(10), Some("model.pt"))
    );
}

#[tokio::test]
async fn reports_become_events_and_figures_of_the_current_attempt() {
    let rig = Rig::start().await;
    let worker = rig.worker(1).await;
    let (job, pod) = job_with_pod(&rig, &worker).await;
    let pod = inside(&rig, &worker, pod.id);
    assert_eq!(pod.report(json!({"kind": "resumed", "attempt": 1, "step": 40, "resumed_from_step": 40})).await, 204);
    assert_eq!(pod.report(json!({"kind": "step", "attempt": 1, "step": 50, "loss": 0.5})).await, 204);
    assert_eq!(
        pod.report(json!({"kind": "result", "attempt": 1, "step": 60, "accuracy": 0.9725, "message": "done"})).await,
        204
    );
    assert_eq!(pod.report(json!({"kind": "step", "attempt": 2, "step": 1})).await, 409);
    assert_eq!(pod.report(json!({"kind": "step", "attempt": 1, "accuracy": 1.5})).await, 400);
    assert_eq!(pod.report(json!({"kind": "step", "attempt": 1, "message": "x".repeat(1001)})).await, 400);
    assert_eq!(pod.report(json!({"kind": "bill", "attempt": 1})).await, 400);
    assert_eq!(pod.report(json!({"kind": "step", "attempt": 1, "message": "x".repeat(20_000)})).await, 413);
    let view = rig.client.job(job).await.unwrap();
    assert_eq!((view.step, view.accuracy_ppm, view.resumed_from_step), (Some(60), Some(972_500), Some(40)));
    let events = rig.client.events(job, 0, 0).await.unwrap().events;
    let kinds: Vec<&str> = events.iter().map(|event| event.kind.as_str()).filter(|kind| *kind != "state").collect();
    assert_eq!(kinds, ["resumed", "step", "result"]);
    assert_eq!(events.last().unwrap().fields["accuracy"], "0.9725");
}

#[tokio::test]
async fn a_credential_is_its_pod_s_and_ends_with_it() {
    let rig = Rig::start().await;
    let worker = rig.worker(1).await;
    let other = rig.worker(2).await;
    let (_, row) = job_with_pod(&rig, &worker).await;
    let mut pod = inside(&rig, &worker, row.id);
    let good = std::mem::replace(&mut pod.token, pod_token::issue(&[0; 32], row.id));
    assert_eq!(pod.refused("GET", "/v1/checkpoints/latest", b"").await, "bad_pod_token");
    pod.token = pod_token::issue(&rig.control().keys.pod_secret, PodId::from_random([3; 16]));
    assert_eq!(pod.refused("GET", "/v1/checkpoints/latest", b"").await, "bad_pod_token");
    pod.token = good;
    assert_eq!(pod.refused("GET", "/v1/checkpoints/latest", b"").await, "not_found");
    let name = store_stream_name(&row.id.to_string());
    let path = format!("store?pod={}", row.id);
    assert_eq!(dial_stream(&rig, &path, &name, &other.device).await.unwrap_err(), 404);
    let change = atoll_control::store::rows::PodChange { state: Some(PodState::Exited), ..Default::default() };
    assert!(rig.control().store.pod_change(row.id, &change, &[]).await.unwrap());
    assert_eq!(dial_stream(&rig, &path, &name, &worker.device).await.unwrap_err(), 404);
}

#[tokio::test]
async fn a_cluster_s_runtime_is_reached_with_its_own_token() {
    let rig = Rig::start().await;
    let mut worker = rig.worker(1).await;
    let (job, _) = job_with_pod(&rig, &worker).await;
    let row = rig.control().store.job(job).await.unwrap().unwrap();
    let url = format!("{}/v1/clusters/{}/ray/api/jobs/?limit=3", rig.base, row.cluster);
    let caller = rig.http.post(url).bearer_auth(&rig.key).body("{\"entrypoint\":\"x\"}").send();
    let head = async {
        let asked = asked(&mut worker).await;
        let mut socket = dial_stream(&rig, &asked.stream, &asked.stream, &worker.device).await.unwrap();
        let mut request = String::new();
        while !request.contains("\"x\"}") {
            request.push_str(std::str::from_utf8(&binary(&mut socket).await).unwrap());
        }
        let answer = "HTTP/1.1 418 Teapot\r\ncontent-length: 2\r\nset-cookie: a=b\r\nlocation: /v1/jobs\r\n\
                      access-control-allow-origin: *\r\nclear-site-data: *\r\nalt-svc: h3=\":1\"\r\n\r\nok";
        socket.send(Message::Binary(answer.into())).await.unwrap();
        (request, socket)
    };
    let (answer, (request, _socket)) = tokio::join!(caller, head);
    assert!(request.starts_with("POST /api/jobs/?limit=3 HTTP/1.1\r\n"), "{request}");
    assert!(request.contains(&format!("authorization: Bearer {}\r\n", row.now.runtime_token)), "{request}");
    assert!(!request.contains(&rig.key) && request.matches("authorization").count() == 1, "{request}");
    let answer = answer.unwrap();
    assert_eq!(answer.status().as_u16(), 418);
    let mut names: Vec<&str> = answer.headers().keys().map(reqwest::header::HeaderName::as_str).collect();
    names.sort_unstable();
    let wanted = ["cache-control", "content-length", "content-security-policy", "date", "x-content-type-options"];
    assert_eq!(names, wanted, "a tenant's head speaks in the operator's name");
    assert_eq!(answer.text().await.unwrap(), "ok");
}
