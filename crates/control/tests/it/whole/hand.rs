//! A worker that speaks the link protocol and keeps its rules (fences, leases, one pod per device), with a machine that
//! only counts time, and a head that answers as Ray does.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use atoll_api::link::envelope::Body;
use atoll_api::link::{
    self, CommandResult, DEVICE_KEY_HEADER, Envelope, Heartbeat, Hello, LINK_PATH, OpenStream, PROOF_HEADER, PodReport,
    STREAMS_PATH, StartPod, Usage, stream_proof,
};
use atoll_chain::market::Market;
use atoll_chain::{Address, Rpc};
use atoll_domain::cluster::OverlayIndex;
use atoll_domain::id::{PodId, WorkerId};
use atoll_domain::key::{Digest, PublicKey, Purpose, SecretKey};
use atoll_domain::meter::UsageStatement;
use atoll_domain::time::UnixMs;
use atoll_interface::fill::bit;
use atoll_life::Life;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::json;
use tokio::sync::{broadcast, watch};
use tokio_tungstenite::tungstenite::Message;

use super::{Clock, Net, Operator};
use crate::rig::{Socket, dial_at, facts};

/// What all machines of a network have in common: which submissions the heads know.
#[derive(Clone, Default)]
pub(crate) struct Machines(Arc<Mutex<Shared>>);

#[derive(Default)]
struct Shared {
    /// Running pods: order, fence and address.
    running: BTreeMap<PodId, (PublicKey, u64, Ipv4Addr)>,
    /// Submissions by head pod: name and Ray's word.
    submissions: BTreeMap<(PodId, String), &'static str>,
    /// How many of the programs started next end at once.
    bad_starts: u32,
}

impl Machines {
    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.0.lock().unwrap()
    }

    /// Every submission that any head knows: head, name, state.
    pub(crate) fn submissions(&self) -> Vec<(PodId, String, &'static str)> {
        self.lock().submissions.iter().map(|((pod, name), state)| (*pod, name.clone(), *state)).collect()
    }

    /// Ends every running command well.
    pub(crate) fn finish(&self) {
        self.lock()
            .submissions
            .values_mut()
            .filter(|state| **state == "RUNNING")
            .for_each(|state| *state = "SUCCEEDED");
    }

    /// So many of the programs started next end at once, with status 3.
    pub(crate) fn start_badly(&self, times: u32) {
        self.lock().bad_starts = times;
    }

    /// Pods that run now.
    pub(crate) fn running(&self) -> Vec<PodId> {
        self.lock().running.keys().copied().collect()
    }
}

/// What a program says that ends at once.
const BAD_START: &str = "the program ended with status 3, saying: no module named 'nowhere'";

#[derive(Clone)]
struct Pod {
    lease: PublicKey,
    order: PublicKey,
    fence: u64,
    state: &'static str,
    statement: Vec<u8>,
    address: Ipv4Addr,
    records: u64,
    served_ms: u64,
    since: Option<UnixMs>,
    /// Why it ended, and with which status.
    ended: (&'static str, i32),
}

struct State {
    pods: BTreeMap<PodId, Pod>,
    fences: BTreeMap<PublicKey, u64>,
}

/// One worker and its machine.
pub(crate) struct Hand {
    pub(crate) supplier: Address,
    inner: Arc<Inner>,
    life: Life,
}

struct Inner {
    device: SecretKey,
    page: PublicKey,
    state: Mutex<State>,
    /// What it says to everybody.
    says: broadcast::Sender<Body>,
    /// Whether the way to every operator is cut.
    cut: watch::Sender<bool>,
    machines: Machines,
    market: Market,
    clock: Clock,
}

impl Hand {
    pub(super) fn new(net: &Net, supplier: Address, device: SecretKey, page: PublicKey) -> Self {
        let inner = Arc::new(Inner {
            device,
            page,
            state: Mutex::new(State { pods: BTreeMap::new(), fences: BTreeMap::new() }),
            says: broadcast::channel(4096).0,
            cut: watch::channel(false).0,
            machines: net.machines.clone(),
            market: Market::new(Rpc::clone(&net.rpc)),
            clock: net.clock.clone(),
        });
        let hand = Self { supplier, inner, life: Life::default() };
        hand.task(Arc::clone(&hand.inner).machine());
        hand
    }

    fn task(&self, work: impl Future<Output = ()> + Send + 'static) {
        let life = self.life.clone();
        tokio::spawn(async move { life.cover(work).await });
    }

    pub(crate) fn id(&self) -> WorkerId {
        WorkerId::of_device_key(&self.inner.device.public())
    }

    /// Holds a link to an operator from now on, dialling again whenever it breaks.
    pub(crate) fn link(&self, operator: &Operator) {
        let address = Arc::clone(&operator.address);
        let ca = operator.state.join("tls/cert.pem");
        let inner = Arc::clone(&self.inner);
        self.task(async move {
            loop {
                let listens = *address.lock().unwrap();
                let mut cut = inner.cut.subscribe();
                if let Some(listens) = listens.filter(|_| !*cut.borrow_and_update()) {
                    tokio::select! {
                        () = Arc::clone(&inner).talk(listens, &ca) => {}
                        _ = cut.changed() => {}
                    }
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
    }

    /// Cuts the way to every operator, or mends it. The machine and its pods run on.
    pub(crate) fn cut(&self, cut: bool) {
        self.inner.cut.send_replace(cut);
    }

    /// The machine goes away for good, without a word.
    pub(crate) async fn die(&self) {
        self.life.end().await;
        let pods: Vec<PodId> = self.inner.lock().pods.keys().copied().collect();
        for pod in pods {
            self.inner.machines.lock().running.remove(&pod);
        }
    }

    /// Seconds that this machine served in all its pods.
    pub(crate) fn served_s(&self) -> u64 {
        self.inner.lock().pods.values().map(|pod| pod.served_ms).sum::<u64>() / 1000
    }

    /// The highest fence it ever took.
    pub(crate) fn fence(&self) -> u64 {
        self.inner.lock().fences.values().copied().max().unwrap_or_default()
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn say(&self, body: Body) {
        // Without a link nobody listens: `Hello` says everything again.
        drop(self.says.send(body));
    }

    fn report(id: &PodId, pod: &Pod) -> PodReport {
        PodReport {
            pod: id.to_string(),
            lease: pod.lease.0.to_vec(),
            order: pod.order.0.to_vec(),
            fence: pod.fence,
            state: pod.state.into(),
            statement: pod.statement.clone(),
            reason: pod.ended.0.into(),
            exit_code: pod.ended.1,
            ..PodReport::default()
        }
    }

    /// Counts time, signs meters, and ends what no lease covers any more.
    async fn machine(self: Arc<Self>) {
        let mut beat = 0_u32;
        loop {
            tokio::time::sleep(Duration::from_millis(50)).await;
            beat += 1;
            self.meter();
            if beat.is_multiple_of(10) {
                self.guard().await;
            }
        }
    }

    fn meter(&self) {
        let at = self.clock.time();
        for (id, pod) in &mut self.lock().pods {
            let Some(since) = pod.since else { continue };
            pod.served_ms += at.0.saturating_sub(since.0);
            (pod.since, pod.records) = (Some(at), pod.records + 1);
            self.say(self.usage(id, pod));
        }
    }

    fn usage(&self, id: &PodId, pod: &Pod) -> Body {
        let statement = UsageStatement {
            pod: *id,
            lease: pod.lease,
            records: pod.records,
            served_ms: pod.served_ms,
            until: self.clock.time(),
            cpu_ms: 1,
            head: Digest::of(b"head"),
        };
        Body::Usage(Usage { signed: serde_json::to_vec(&statement.sign(&self.device)).unwrap() })
    }

    async fn guard(&self) {
        let live: Vec<(PodId, PublicKey, PublicKey)> = self
            .lock()
            .pods
            .iter()
            .filter(|(_, pod)| pod.state != "exited")
            .map(|(id, pod)| (*id, pod.order, pod.lease))
            .collect();
        for (id, order, lease) in live {
            let Ok(found) = self.market.lease(&Address(lease.0)).await else { continue };
            let Ok(order) = self.market.order(&Address(order.0)).await else { continue };
            let Ok(clock) = self.market.rpc().clock().await else { continue };
            let holds = found.zip(order).is_some_and(|(lease, order)| {
                let (mut lease, mut order) = (lease.value, order.value);
                order.ripen(clock.unix_timestamp);
                lease.begin(&order);
                bit(&lease.bitmap, 0) && (lease.end == 0 || clock.unix_timestamp < lease.end)
            });
            if !holds {
                self.stop(id);
            }
        }
    }

    fn stop(&self, id: PodId) {
        let mut state = self.lock();
        let Some(pod) = state.pods.get_mut(&id).filter(|pod| pod.state != "exited") else { return };
        (pod.state, pod.since) = ("exited", None);
        self.machines.lock().running.remove(&id);
        self.say(Body::PodReport(Self::report(&id, pod)));
    }

    fn start(&self, start: &StartPod) -> Result<(), &'static str> {
        let id: PodId = start.pod.parse().unwrap();
        let key = |bytes: &[u8]| PublicKey(bytes.try_into().unwrap());
        let (order, lease) = (key(&start.order), key(&start.lease));
        let rivals: Vec<PodId> = {
            let mut state = self.lock();
            if state.pods.contains_key(&id) {
                return Ok(());
            }
            let highest = state.fences.entry(lease).or_default();
            if start.fence <= *highest {
                return Err("stale_fence");
            }
            *highest = start.fence;
            state.pods.keys().copied().collect()
        };
        rivals.into_iter().for_each(|rival| self.stop(rival));
        let address = OverlayIndex::new(u16::try_from(start.overlay_index).unwrap()).unwrap().address();
        let wire_key = Digest::of(start.pod.as_bytes()).0;
        let endpoint = [&[4, 127, 0, 0, 1][..], &[0; 12], &4100_u16.to_le_bytes()].concat();
        let body = [&order.0[..], &lease.0, &address.octets(), &wire_key, &endpoint, &u64::MAX.to_le_bytes()].concat();
        let signature = self.device.sign(Purpose::PodKey, &body);
        let statement = [&body[..], &self.device.public().0, &signature.0].concat();
        let pod = Pod {
            lease,
            order,
            fence: start.fence,
            state: "prepared",
            statement,
            address,
            records: 0,
            served_ms: 0,
            since: None,
            ended: ("", -1),
        };
        self.say(Body::PodReport(Self::report(&id, &pod)));
        self.lock().pods.insert(id, pod);
        Ok(())
    }

    fn launch(&self, id: PodId) -> Result<(), &'static str> {
        let mut state = self.lock();
        let Some(pod) = state.pods.get_mut(&id) else { return Err("pod_unknown") };
        if pod.state == "prepared" {
            let mut shared = self.machines.lock();
            if shared.bad_starts > 0 {
                shared.bad_starts -= 1;
                (pod.state, pod.ended) = ("exited", (BAD_START, 3));
            } else {
                (pod.state, pod.since) = ("running", Some(self.clock.time()));
                shared.running.insert(id, (pod.order, pod.fence, pod.address));
            }
            self.say(Body::PodReport(Self::report(&id, pod)));
        }
        Ok(())
    }

    /// One link until it breaks.
    async fn talk(self: Arc<Self>, at: SocketAddr, ca: &PathBuf) {
        let Ok(ca) = std::fs::read(ca) else { return };
        let Some(Ok((mut socket, exporter))) = dial_at(at, &ca, LINK_PATH, |_| vec![]).await else { return };
        let mut says = self.says.subscribe();
        let (pods, meters) = {
            let state = self.lock();
            let pods = state.pods.iter().map(|(id, pod)| Self::report(id, pod)).collect();
            let metered = state.pods.iter().filter(|(_, pod)| pod.records > 0);
            (pods, metered.map(|(id, pod)| self.usage(id, pod)).collect::<Vec<_>>())
        };
        let hello = Hello {
            version: link::VERSION,
            device_key: self.device.public().0.to_vec(),
            proof: self.device.sign(Purpose::Link, &exporter).0.to_vec(),
            page: self.page.0.to_vec(),
            facts: serde_json::to_vec(&facts()).unwrap(),
            advertise: "127.0.0.1".into(),
            pods,
            ..Hello::default()
        };
        let hello = Envelope { body: Some(Body::Hello(hello)), ..Envelope::default() };
        if socket.send(Message::Binary(link::encode(&hello).into())).await.is_err() {
            return;
        }
        let (mut session, mut sent, mut got) = (0, 0, 0);
        let mut beats = tokio::time::interval(Duration::from_millis(50));
        let mut queue: Vec<Body> = meters;
        loop {
            tokio::select! {
                frame = socket.next() => match frame {
                    Some(Ok(Message::Binary(bytes))) => {
                        let envelope = link::decode(&bytes).unwrap();
                        if envelope.seq != 0 {
                            got = envelope.seq;
                        }
                        match envelope.body {
                            Some(Body::Welcome(welcome)) => session = welcome.session,
                            Some(Body::Refused(refused)) => panic!("refused: {refused:?}"),
                            Some(body) => self.carry_out(body, at, &ca, &mut queue),
                            None => {}
                        }
                    }
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                    Some(Ok(_)) => {}
                },
                body = says.recv() => match body {
                    Ok(body) => queue.push(body),
                    Err(_) => return,
                },
                _ = beats.tick() => {
                    let running = self.lock().pods.iter().filter(|(_, pod)| pod.state == "running").map(|(id, _)| id.to_string()).collect();
                    let beat = Body::Heartbeat(Heartbeat { unix_ms: 0, running });
                    let envelope = Envelope { session, seq: 0, ack: got, body: Some(beat) };
                    if session != 0 && socket.send(Message::Binary(link::encode(&envelope).into())).await.is_err() {
                        return;
                    }
                }
            }
            if session == 0 {
                continue;
            }
            for body in queue.drain(..) {
                sent += 1;
                let envelope = Envelope { session, seq: sent, ack: got, body: Some(body) };
                if socket.send(Message::Binary(link::encode(&envelope).into())).await.is_err() {
                    return;
                }
            }
        }
    }

    fn carry_out(self: &Arc<Self>, body: Body, at: SocketAddr, ca: &[u8], queue: &mut Vec<Body>) {
        let (command, outcome) = match body {
            Body::StartPod(start) => (start.command.clone(), self.start(&start)),
            Body::Roster(roster) => (roster.command, self.launch(roster.pod.parse().unwrap())),
            Body::StopPod(stop) => {
                self.stop(stop.pod.parse().unwrap());
                (stop.command, Ok(()))
            }
            Body::OpenStream(open) => {
                let (hand, ca) = (Arc::clone(self), ca.to_vec());
                atoll_life::spawn(async move { hand.head(at, &ca, open).await });
                return;
            }
            _ => return,
        };
        let code = outcome.err().unwrap_or_default().to_owned();
        queue.push(Body::CommandResult(CommandResult {
            command,
            accepted: outcome.is_ok(),
            code,
            message: String::new(),
        }));
    }

    /// One call to a pod's Ray.
    async fn head(&self, at: SocketAddr, ca: &[u8], open: OpenStream) {
        let device = &self.device;
        let headers = |exporter: &[u8; link::EXPORTER_BYTES]| {
            let proof = device.sign(Purpose::Link, &stream_proof(exporter, &open.stream));
            vec![(PROOF_HEADER, proof.to_string()), (DEVICE_KEY_HEADER, device.public().to_string())]
        };
        let path = format!("{STREAMS_PATH}/{}", open.stream);
        let Some(Ok((mut socket, _))) = dial_at(at, ca, &path, headers).await else { return };
        let Some(request) = request(&mut socket).await else { return };
        let pod: PodId = open.pod.parse().unwrap();
        let (status, body) = self.ray(pod, &request);
        let answer = format!(
            "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        );
        drop(socket.send(Message::Binary(answer.into())).await);
        drop(socket.send(Message::Binary(bytes::Bytes::new())).await);
        while let Some(Ok(_)) = socket.next().await {}
    }

    fn ray(&self, pod: PodId, request: &str) -> (u16, String) {
        let mut shared = self.machines.lock();
        let Some(&(order, fence, _)) = shared.running.get(&pod) else { return (503, "{}".into()) };
        let line = request.lines().next().unwrap_or_default();
        let mut words = line.split(' ');
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        if path.starts_with("/api/v0/nodes") {
            let alive = shared.running.values().filter(|(of, at, _)| (*of, *at) == (order, fence));
            let nodes: Vec<_> = alive.map(|(_, _, ip)| json!({"node_ip": ip.to_string(), "state": "ALIVE"})).collect();
            return (200, json!({"data": {"result": {"result": nodes}}}).to_string());
        }
        if method == "POST" && path == "/api/jobs/" {
            let body = request.split("\r\n\r\n").nth(1).unwrap_or_default();
            let body: serde_json::Value = serde_json::from_str(body).unwrap();
            let name = body["submission_id"].as_str().unwrap().to_owned();
            shared.submissions.entry((pod, name)).or_insert("RUNNING");
            return (200, "{}".into());
        }
        let rest = path.trim_start_matches("/api/jobs/");
        let (name, verb) = rest.split_once('/').unwrap_or((rest, ""));
        let Some(state) = shared.submissions.get_mut(&(pod, name.to_owned())) else { return (404, "{}".into()) };
        match verb {
            "logs" => (200, json!({"logs": format!("output of {name}\n")}).to_string()),
            "stop" => {
                *state = "STOPPED";
                (200, "{}".into())
            }
            _ => (200, json!({"status": *state, "message": null}).to_string()),
        }
    }
}

/// One HTTP request with its body.
async fn request(socket: &mut Socket) -> Option<String> {
    let mut text = String::new();
    loop {
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length =
                head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ").map(str::to_owned));
            if body.len() >= length.map_or(0, |length| length.trim().parse().unwrap()) {
                return Some(text);
            }
        }
        match socket.next().await? {
            Ok(Message::Binary(bytes)) if bytes.is_empty() => return Some(text),
            Ok(Message::Binary(bytes)) => text.push_str(std::str::from_utf8(&bytes).ok()?),
            Ok(_) => {}
            Err(_) => return None,
        }
    }
}
