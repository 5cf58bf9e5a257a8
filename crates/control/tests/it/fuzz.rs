//! Whatever a worker says on its link, a pod to its store or a caller to the API, through the real node: it lives on,
//! nothing panics, and no answer is "internal".

use std::cell::{Cell, RefCell};
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};

use atoll_api::link::envelope::Body;
use atoll_api::link::{CommandResult, Envelope, Heartbeat, Hello, PodReport, Usage, VERSION, decode, encode};
use atoll_api::pod::{Manifest, ManifestFile};
use atoll_control::app::pod_token;
use atoll_control::config::Overrides;
use atoll_control::store::rows::Pod;
use atoll_domain::cluster::{OverlayIndex, PodState};
use atoll_domain::id::{CommandId, JobId, PodId};
use atoll_domain::key::{Digest, PublicKey, Purpose};
use atoll_domain::meter::UsageStatement;
use atoll_domain::time::UnixMs;
use atoll_fuzz::{Choices, Fuzz};
use tokio::runtime::Runtime;

use crate::link::{command, job_with_pod, pod_of, statement};
use crate::pods::call;
use crate::rig::{Rig, Worker, facts, wait_for};

static PANICS: AtomicU64 = AtomicU64::new(0);

/// Counts panics of a node's tasks, which end nothing but the task. The rig's own chain, on the same threads, panics when it
/// is asked for what it does not have.
fn watch_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let of_node = std::thread::current().name() == Some("fuzzed-node");
            let of_rig = panic.payload_as_str().is_some_and(|words| words.starts_with("the node asked the chain for"));
            if of_node && !of_rig {
                PANICS.fetch_add(1, Ordering::Relaxed);
            }
            before(panic);
        }));
    });
}

/// Runs `work` and fails when anything panicked meanwhile.
fn unbroken<T>(work: impl FnOnce() -> T) -> T {
    let before = PANICS.load(Ordering::Relaxed);
    let done = work();
    assert_eq!(PANICS.load(Ordering::Relaxed), before, "a task of the node panicked");
    done
}

fn runtime() -> Runtime {
    watch_panics();
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("fuzzed-node")
        .enable_all()
        .build()
        .unwrap()
}

async fn rig() -> Rig {
    let limits = Overrides { requests_per_s: Some(1_000_000), requests_burst: Some(1_000_000), ..Overrides::default() };
    Rig::with(limits).await
}

async fn lives(rig: &Rig) {
    assert_eq!(rig.call("GET", "/livez", "").await.0, 200);
}

#[test]
fn hellos() {
    let runtime = runtime();
    let rig = runtime.block_on(rig());
    let worker = rig.register(1);
    let hello = Hello {
        version: VERSION,
        device_key: worker.device.public().0.to_vec(),
        proof: vec![0; 64],
        page: worker.page.0.to_vec(),
        facts: serde_json::to_vec(&facts()).unwrap(),
        advertise: "127.0.0.1".into(),
        pods: vec![PodReport { pod: "pod_00000000000000000000000000".into(), ..PodReport::default() }],
        ..Hello::default()
    };
    let seed = encode(&Envelope { body: Some(Body::Hello(hello)), ..Envelope::default() });
    let tally = Fuzz::of("hellos").seed(seed).inputs_max(120).memory(32 << 20, 0).run(|input| {
        unbroken(|| {
            runtime.block_on(async {
                let mut worker = rig.register(1).dial(&rig).await;
                let mut frame = input.to_vec();
                if let Ok(Envelope { body: Some(Body::Hello(mut hello)), .. }) = decode(input) {
                    // Behind a true proof, so that what comes after it is reached.
                    hello.proof = worker.device.sign(Purpose::Link, &worker.exporter).0.to_vec();
                    frame = encode(&Envelope { body: Some(Body::Hello(hello)), ..Envelope::default() });
                }
                worker.bytes(frame).await;
                match worker.next().await.and_then(|envelope| envelope.body) {
                    Some(Body::Welcome(_)) => "welcomed",
                    Some(Body::Refused(refused)) => {
                        assert!(refused.code.starts_with("link_") && refused.message.len() < 1000, "{refused:?}");
                        "refused"
                    }
                    other => panic!("{other:?}"),
                }
            })
        })
    });
    assert!(tally.of("welcomed") > 0 && tally.of("refused") > 0, "{tally:?}");
    runtime.block_on(lives(&rig));
}

fn bodies(worker: &Worker, pod: &Pod) -> Vec<Body> {
    let report = PodReport {
        pod: pod.id.to_string(),
        lease: pod.lease.0.to_vec(),
        fence: pod.fence,
        state: "prepared".into(),
        statement: vec![9; 223],
        ..PodReport::default()
    };
    let usage = UsageStatement {
        pod: pod.id,
        lease: pod.lease,
        records: 3,
        served_ms: 3_000,
        until: UnixMs(9),
        cpu_ms: 1,
        head: Digest::of(b"head"),
    };
    let signed = serde_json::to_vec(&usage.sign(&worker.device)).unwrap();
    let command = "cmd_00000000000000000000000000".to_owned();
    vec![
        Body::PodReport(PodReport { statement: vec![], state: "running".into(), ..report.clone() }),
        Body::PodReport(report),
        Body::Usage(Usage { signed }),
        Body::CommandResult(CommandResult { command, accepted: true, ..CommandResult::default() }),
        Body::Heartbeat(Heartbeat { unix_ms: 1, running: vec![pod.id.to_string()] }),
    ]
}

#[test]
fn what_workers_say() {
    let runtime = runtime();
    let (rig, mut worker, pod) = runtime.block_on(async {
        let rig = rig().await;
        let worker = rig.worker(1).await;
        let (_, pod) = job_with_pod(&rig, &worker).await;
        (rig, worker, pod)
    });
    let seed = |body| encode(&Envelope { session: 1, seq: 1, ack: 0, body: Some(body) });
    let fuzz = bodies(&worker, &pod).into_iter().map(seed).fold(Fuzz::of("workers-say"), Fuzz::seed);
    let worker = RefCell::new(&mut worker);
    let fuzz = fuzz.inputs_max(250).memory(32 << 20, 0).words(&["running", "exited", "lost", "requested"]);
    let tally = fuzz.run(|input| {
        unbroken(|| {
            let mut held = worker.borrow_mut();
            let worker = &mut **held;
            runtime.block_on(async {
                let body = decode(input).ok().and_then(|envelope| envelope.body);
                let passing = matches!(body, Some(Body::Heartbeat(_)));
                match body {
                    // In its place in the session, so that it is carried out.
                    Some(body) if !passing => worker.say(body).await,
                    Some(body) => {
                        worker.raw(Envelope { session: worker.session, seq: 0, ack: 0, body: Some(body) }).await
                    }
                    None => worker.bytes(input.to_vec()).await,
                }
                // It is answered: acknowledged, or refused and the link closed.
                let answer = loop {
                    match worker.next().await {
                        Some(envelope) if envelope.ack >= worker.seq && !passing => break "carried out",
                        Some(Envelope { body: Some(Body::Heartbeat(_)), .. }) if passing => break "answered",
                        Some(Envelope { body: Some(Body::Refused(refused)), .. }) => {
                            assert!(refused.code.starts_with("link_") && refused.message.len() < 2000, "{refused:?}");
                            break "refused";
                        }
                        Some(_) => {}
                        // The rig's chain has no accounts by program: what needs them is not carried out, and the link ends.
                        None => break "given up",
                    }
                };
                if answer != "carried out" && answer != "answered" {
                    *worker = rig.worker(1).await;
                }
                answer
            })
        })
    });
    assert!(tally.of("carried out") > 0 && tally.of("refused") > 0, "{tally:?}");
    runtime.block_on(async {
        lives(&rig).await;
        // Whatever was said, the pod is still this worker's, under its lease and fence.
        let now = rig.control().store.pod(pod.id).await.unwrap().unwrap();
        assert_eq!((now.worker, now.lease, now.fence), (pod.worker, pod.lease, pod.fence));
    });
}

/// A pod of a job and one of the same job elsewhere, new in the store.
struct Ground {
    own: Pod,
    others: Pod,
    commands: Vec<CommandId>,
    statement: Vec<u8>,
}

impl Ground {
    /// `n` makes ids of its own.
    async fn new(rig: &Rig, worker: &Worker, other: &Worker, job: JobId, n: u16) -> Self {
        let row = rig.control().store.job(job).await.unwrap().unwrap();
        let pod = |of: &Worker, at: u16| {
            let mut pod = pod_of(job, of, 1);
            let mut id = [7; 16];
            id[..2].copy_from_slice(&at.to_be_bytes());
            (pod.id, pod.index) = (PodId::from_random(id), OverlayIndex::new(at).unwrap());
            pod
        };
        let pods = [pod(worker, 2 * n + 10), pod(other, 2 * n + 11)];
        let command = |id: u8| {
            let mut command = command(worker, pods[0].id, id);
            let mut bytes = [id; 16];
            bytes[..2].copy_from_slice(&n.to_be_bytes());
            command.id = CommandId::from_random(bytes);
            command
        };
        let commands = [command(1), command(2)];
        rig.control().store.pods_add(job, row.generation, &row.now, &pods, &commands, &[]).await.unwrap();
        let statement = statement(rig, worker, &pods[0]).await;
        let [own, others] = pods;
        Self { own, others, commands: commands.map(|command| command.id).to_vec(), statement }
    }

    /// One message about what is there, with a field or two that are wrong in ways that only somebody who knows could say.
    fn says(&self, choices: &mut Choices<'_>, worker: &Worker) -> Body {
        let pod = if choices.below(8) == 0 { &self.others } else { &self.own };
        let wrong = |choices: &mut Choices<'_>| choices.below(10) == 0;
        let number = |choices: &mut Choices<'_>| match choices.below(4) {
            0 => u64::MAX,
            1 => choices.number(),
            _ => u64::from(choices.byte()),
        };
        let words =
            |choices: &mut Choices<'_>| String::from_utf8_lossy(choices.bytes(3)).repeat(choices.below(256) * 8);
        match choices.below(8) {
            0..4 => Body::PodReport(PodReport {
                pod: if wrong(choices) { self.others.id.to_string() } else { pod.id.to_string() },
                lease: if wrong(choices) { vec![] } else { pod.lease.0.to_vec() },
                order: if wrong(choices) { vec![1; 32] } else { vec![] },
                fence: if wrong(choices) { number(choices) } else { pod.fence },
                state: match choices.below(20) {
                    0..8 => "prepared",
                    8..16 => "running",
                    16 | 17 => "exited",
                    18 => "requested",
                    _ => "lost",
                }
                .into(),
                reason: words(choices),
                statement: match choices.below(10) {
                    0..3 => vec![],
                    3 => choices.bytes(3).repeat(75),
                    _ => self.statement.clone(),
                },
                exit_code: i32::from_le_bytes([choices.byte(), choices.byte(), 0, choices.byte()]),
                foreign: wrong(choices),
            }),
            4 | 5 => {
                let usage = UsageStatement {
                    pod: pod.id,
                    lease: if wrong(choices) { PublicKey([1; 32]) } else { pod.lease },
                    records: number(choices),
                    served_ms: number(choices),
                    until: UnixMs(number(choices)),
                    cpu_ms: number(choices),
                    head: Digest::of(b"head"),
                };
                let mut signed = serde_json::to_vec(&usage.sign(&worker.device)).unwrap();
                if wrong(choices) {
                    let at = usize::from(choices.byte()) % signed.len();
                    signed[at] ^= 1;
                }
                Body::Usage(Usage { signed })
            }
            6 => {
                let command = self.commands[choices.below(self.commands.len())].to_string();
                let (accepted, code, message) = (!wrong(choices), words(choices), words(choices));
                Body::CommandResult(CommandResult { command, accepted, code, message })
            }
            _ => Body::Heartbeat(Heartbeat {
                unix_ms: number(choices),
                running: (0..choices.below(6))
                    .map(|n| if n % 2 == 0 { pod.id } else { self.others.id }.to_string())
                    .collect(),
            }),
        }
    }
}

/// How far a pod has come, and what of it was metered.
fn stage(pod: &Pod) -> (u8, u64) {
    let stage = match pod.state {
        PodState::Requested => 0,
        PodState::Prepared => 1,
        PodState::Running => 2,
        PodState::Exited | PodState::Lost => 3,
    };
    (stage, pod.usage.map_or(0, |usage| usage.statement.records))
}

/// A worker that knows its pods' ids and signs what it says, and lies: its own pods go forward only, and nobody else's move.
#[test]
fn what_a_worker_says_of_pods_that_it_knows() {
    let runtime = runtime();
    let (rig, worker, other, job) = runtime.block_on(async {
        let rig = rig().await;
        let (worker, other) = (rig.worker(1).await, rig.worker(2).await);
        let job = crate::submit::accepted(&rig).await.job;
        (rig, worker, other, job)
    });
    let (worker, count) = (RefCell::new(worker), Cell::new(0));
    let fuzz = (0..4).fold(Fuzz::of("worker-lies"), |fuzz, n| fuzz.seed((n..=200).collect::<Vec<u8>>()));
    let tally = fuzz.seed(vec![1; 60]).bytes_max(512).inputs_min(40).inputs_max(120).memory(32 << 20, 0).run(|input| {
        unbroken(|| {
            let worker = &mut *worker.borrow_mut();
            runtime.block_on(async {
                count.set(count.get() + 1);
                let ground = Ground::new(&rig, worker, &other, job, count.get()).await;
                let mut choices = Choices::new(input);
                let mut at = stage(&ground.own);
                let mut refusals = 0;
                while !choices.is_over() {
                    let body = ground.says(&mut choices, worker);
                    refusals += u32::from(!is_carried_out(&rig, worker, body).await);
                    let now = rig.control().store.pod(ground.own.id).await.unwrap().unwrap();
                    assert!(stage(&now) >= at && now.reason.len() < 5_000, "{at:?} became {now:?}");
                    assert_eq!((now.worker, now.lease, now.fence), (worker.id, ground.own.lease, ground.own.fence));
                    at = stage(&now);
                }
                let others = rig.control().store.pod(ground.others.id).await.unwrap().unwrap();
                assert_eq!(others, ground.others, "another worker's pod moved");
                match (at, refusals) {
                    ((3, _), _) => "ended",
                    ((1.., _), _) => "moved",
                    (_, 0) => "nothing moved",
                    _ => "refused",
                }
            })
        })
    });
    assert!(tally.of("ended") > 0 && tally.of("moved") > 0, "{tally:?}");
    runtime.block_on(lives(&rig));
}

/// Says something and waits for the answer; when the link ends with it, there is a new one.
async fn is_carried_out(rig: &Rig, worker: &mut Worker, body: Body) -> bool {
    let passing = if let Body::Heartbeat(beat) = &body { Some(beat.running.clone()) } else { None };
    match passing.clone() {
        Some(running) => worker.beat(running).await,
        None => worker.say(body).await,
    }
    loop {
        match worker.next().await {
            Some(Envelope { body: Some(Body::Heartbeat(_)), .. }) if passing.is_some() => return true,
            Some(envelope) if passing.is_none() && envelope.ack >= worker.seq => return true,
            Some(Envelope { body: Some(Body::Refused(refused)), .. }) => {
                assert!(refused.code.starts_with("link_") && refused.message.len() < 2000, "{refused:?}");
                break;
            }
            Some(_) => {}
            None => break,
        }
    }
    *worker = rig.worker(1).await;
    false
}

#[test]
fn what_pods_ask_their_store() {
    let runtime = runtime();
    let (rig, worker, pod, token) = runtime.block_on(async {
        let rig = rig().await;
        let worker = rig.worker(1).await;
        let (_, pod) = job_with_pod(&rig, &worker).await;
        let token = pod_token::issue(&rig.control().keys.pod_secret, pod.id);
        (rig, worker, pod, token)
    });
    let blob = Digest::of(b"weights");
    let file = ManifestFile { name: "model/part.pt".into(), sha256: blob, bytes: 7 };
    let manifest = Manifest { step: 3, epoch: 1, attempt: 1, weights_sha256: blob, files: vec![file] };
    let request = |method: &str, path: &str, body: &[u8]| [format!("{method} {path} ").as_bytes(), body].concat();
    let tally = Fuzz::of("pod-store")
        .seed(request("PUT", &format!("/v1/blobs/{blob}"), b"weights"))
        .seed(request("GET", &format!("/v1/blobs/{blob}"), b""))
        .seed(request("HEAD", &format!("/v1/blobs/{blob}"), b""))
        .seed(request("PUT", "/v1/checkpoints/3", &serde_json::to_vec(&manifest).unwrap()))
        .seed(request("GET", "/v1/checkpoints/latest", b""))
        .seed(request("POST", "/v1/report", br#"{"kind":"step","attempt":1,"step":3,"loss":0.5,"message":"m"}"#))
        .words(&["..", "%2e%2e/", "%00", "\"kind\":\"result\"", "1e400", "\"files\":[]"])
        .inputs_max(200)
        .memory(32 << 20, 0)
        .run(|input| {
            let mut parts = input.splitn(3, |byte| *byte == b' ');
            let (method, path) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
            let body = parts.next().unwrap_or_default();
            // A request that is one: what is no HTTP is hyper's to refuse.
            let text = |bytes: &[u8]| {
                bytes.iter().filter(|byte| byte.is_ascii_graphic()).map(|byte| char::from(*byte)).collect::<String>()
            };
            let method = text(method).chars().filter(char::is_ascii_uppercase).collect::<String>();
            let method = if method.is_empty() || method == "CONNECT" { "GET".to_owned() } else { method };
            let path = format!("/{}", text(path).trim_start_matches('/'));
            unbroken(|| {
                let (status, answer) = runtime.block_on(call(&rig, &worker, pod.id, &token, &method, &path, body));
                assert!((200..500).contains(&status), "{status}: {}", answer.escape_ascii());
                if status < 300 { "done" } else { "refused" }
            })
        });
    assert!(tally.of("done") > 0 && tally.of("refused") > 0, "{tally:?}");
    runtime.block_on(lives(&rig));
}

#[test]
fn what_callers_ask() {
    let runtime = runtime();
    let rig = runtime.block_on(async {
        let rig = rig().await;
        let _worker = rig.worker(1).await;
        wait_for("the market is seen", || async { rig.call("GET", "/readyz", "").await.0 == 200 }).await;
        rig
    });
    let paths = [
        ("POST", "/v1/quotes"),
        ("POST", "/v1/jobs"),
        ("GET", "/v1/jobs"),
        ("GET", "/v1/jobs/job_00000000000000000000000000/events"),
        ("POST", "/v1/jobs/job_00000000000000000000000000/stop"),
        ("PUT", "/v1/blobs/00"),
        ("GET", "/v1/clusters/clu_00000000000000000000000000/ray/api/jobs/"),
    ];
    let key = PublicKey([1; 32]);
    let quote = r#"{"model":"cpu","devices":1,"pack":"ray-torch","price_cap_usd_micros":100000,"seconds_max":3600}"#;
    let submit =
        format!(r#"{{"spec":"e30=","spec_signature":"{}","transaction":"AQID","nonce":"{key}"}}"#, "1".repeat(64));
    let tally = Fuzz::of("api")
        .seed([b"\x00", quote.as_bytes()].concat())
        .seed([b"\x01", submit.as_bytes()].concat())
        .seed(b"\x02?after=3&limit=10".to_vec())
        .seed(b"\x03?after=-1&wait_ms=0".to_vec())
        .words(&["?after=", "&limit=18446744073709551616", "%00", "../"])
        .inputs_max(300)
        .memory(32 << 20, 0)
        .run(|input| {
            let (first, rest) = input.split_first().unwrap_or((&0, &[]));
            let (method, path) = paths[usize::from(*first) % paths.len()];
            let query: String =
                rest.iter().filter(|byte| byte.is_ascii_graphic()).map(|byte| char::from(*byte)).collect();
            let path = if query.starts_with('?') {
                format!("{path}{}", query.replace(['#', '\\'], ""))
            } else {
                path.to_owned()
            };
            let body = rest.to_vec();
            unbroken(|| {
                let (status, answer) = runtime.block_on(rig.call(method, &path, body));
                assert!((200..500).contains(&status), "{status}: {answer}");
                if status < 300 { "done" } else { "refused" }
            })
        });
    assert!(tally.of("refused") > 0, "{tally:?}");
    runtime.block_on(lives(&rig));
}
