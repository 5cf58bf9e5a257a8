//! Whatever a control plane sends, a pod's folder holds or a configuration says: no panic, bounded memory, and a session
//! that keeps its promises.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use atoll_api::link::envelope::Body;
use atoll_api::link::{
    Envelope, OpenStream, Roster, StartPod, StopPod, UNACKED_MAX, Usage, Welcome, decode, encode, open_stream,
};
use atoll_domain::id::{ClusterId, JobId, PodId, StreamId};
use atoll_domain::job::{Bundle, ClusterKind, JobSpec, PackRef, SignedSpec};
use atoll_domain::key::{Digest, PublicKey, SecretKey};
use atoll_domain::time::UnixMs;
use atoll_fuzz::{Choices, Fuzz};
use atoll_worker::config::{Config, Overrides};
use atoll_worker::link::session::Session;
use atoll_worker::meter::Meter;
use atoll_worker::supervisor::protocol::{Answer, Request};
use atoll_worker::supervisor::spec::PodSpec;
use atoll_worker::supervisor::usage::{self, Reading, Record, Spool};
use atoll_worker::world::command;
use atoll_worker::world::store::Records;

#[global_allocator]
static ALLOCATOR: atoll_fuzz::memory::Counting = atoll_fuzz::memory::Counting;

fn start(renter: &SecretKey) -> StartPod {
    let spec = JobSpec {
        version: 1,
        name: "digits".into(),
        network: Digest::of(b"network"),
        renter: renter.public(),
        budget: None,
        order: PublicKey([1; 32]),
        kind: ClusterKind::Ray,
        model: "cpu".into(),
        devices: 1,
        pack: PackRef { name: "ray-torch".into(), sha256: Digest::of(b"pack") },
        bundle: Bundle { sha256: Digest::of(b"code"), bytes: 4 },
        entry: "python train.py".into(),
        env: BTreeMap::new(),
        checkpoints: true,
        seconds_max: 3600,
    };
    let signed = SignedSpec::sign(&spec, renter).unwrap();
    StartPod {
        command: "cmd_00000000000000000000000000".into(),
        pod: PodId::from_random([1; 16]).to_string(),
        cluster: ClusterId::from_random([1; 16]).to_string(),
        job: JobId::from_random([1; 16]).to_string(),
        order: vec![1; 32],
        lease: vec![2; 32],
        device_mask: 1,
        fence: 2,
        spec: signed.bytes,
        spec_signature: signed.signature.0.to_vec(),
        overlay_index: 1,
        role: "head".into(),
        env: [("ATOLL_TOKEN".to_owned(), "t".to_owned())].into(),
    }
}

#[test]
fn commands() {
    let renter = SecretKey::from_seed(&[1; 32]);
    let pod = PodId::from_random([1; 16]).to_string();
    let statements = vec![vec![9; atoll_overlay::statement::SIGNED_BYTES]; 2];
    let roster = Roster { command: "c".into(), pod: pod.clone(), generation: 1, statements, ..Roster::default() };
    let stream = OpenStream {
        stream: StreamId::from_random([1; 16]).to_string(),
        pod: pod.clone(),
        target: Some(open_stream::Target::Port(8265)),
    };
    let bodies = [
        Body::StartPod(start(&renter)),
        Body::Roster(roster),
        Body::StopPod(StopPod { command: "c".into(), pod, reason: "over".into() }),
        Body::OpenStream(stream),
    ];
    let seed = |body| encode(&Envelope { session: 1, seq: 1, ack: 0, body: Some(body) });
    let fuzz = bodies.into_iter().map(seed).fold(Fuzz::of("commands"), Fuzz::seed);
    let tally = fuzz.words(&["ATOLL_X", "LD_PRELOAD", "RAY_", "node"]).run(|input| {
        let Ok(Some(body)) = decode(input).map(|envelope| envelope.body) else { return "no command" };
        let read = match body {
            Body::StartPod(from) => {
                let read = command::start(from.clone());
                assert_eq!(read, command::start(from));
                read.map(|start| {
                    assert_eq!(start.spec.order, start.order);
                    assert!(start.env.keys().all(|name| name.starts_with("ATOLL_") || name.starts_with("RAY_")));
                })
            }
            Body::Roster(from) => command::roster(from).map(|read| {
                assert!(read.statements.len() <= command::MEMBERS_MAX);
            }),
            Body::StopPod(from) => command::stop(&from).map(|(_, reason)| {
                assert!(reason.chars().count() <= 200 && !reason.contains(|c: char| c.is_control()));
            }),
            Body::OpenStream(from) => command::stream(&from).map(drop),
            _ => return "another body",
        };
        match read {
            Ok(()) => "accepted",
            Err(why) => {
                assert!(why.to_string().len() < 1000, "{why}");
                "refused"
            }
        }
    });
    assert!(tally.of("accepted") > 0 && tally.of("refused") > 0, "{tally:?}");
}

/// A session against a control plane that loses, repeats, breaks off, resumes, forgets, moves and lies: what is delivered
/// is what was pushed, in order, nothing left out, and after a lie nothing is counted that was not sent.
#[test]
fn sessions() {
    let tally = Fuzz::of("worker-session")
        .seed((0..=255).collect::<Vec<u8>>())
        .bytes_max(1024)
        .memory(1 << 20, 4096)
        .run(|input| {
            let mut choices = Choices::new(input);
            let mut session = Session::default();
            let (mut pushed, mut acked, mut id) = (0_u64, 0_u64, 0_u64);
            let mut wire: Vec<Envelope> = vec![];
            let (mut theirs, mut faults) = (0_u64, 0);
            while !choices.is_over() {
                match choices.below(8) {
                    0 | 1 => {
                        if session.sequence.push(Body::Usage(Usage { signed: pushed.to_le_bytes().to_vec() })).is_ok() {
                            pushed += 1;
                        }
                    }
                    2 => wire.extend(std::iter::from_fn(|| session.sequence.to_send())),
                    3 => {
                        // A new session: everything that is left comes again, under new numbers from 1.
                        id += 1;
                        wire.clear();
                        (theirs, acked) = (0, 0);
                        let welcome = Welcome { session: id, ..Welcome::default() };
                        session.welcome(0, &welcome).unwrap();
                    }
                    4 => {
                        let (session_id, received) = session.resume(0);
                        assert!(received <= theirs, "it has received what was not sent");
                        wire.clear();
                        let welcome =
                            Welcome { session: session_id, resumed: true, resume_ack: acked, ..Welcome::default() };
                        assert_eq!(session.welcome(0, &welcome).is_ok(), session_id != 0);
                    }
                    5 => {
                        let seqs: Vec<u64> = wire.iter().map(|envelope| envelope.seq).collect();
                        assert!(seqs.windows(2).all(|two| two[1] == two[0] + 1), "{seqs:?}");
                        if let Some(last) = wire.last() {
                            acked = acked.max(last.seq);
                        }
                        let ack = Envelope { session: session.sequence.session(), seq: 0, ack: acked, body: None };
                        session.receive(ack).expect("what was sent can be acknowledged");
                        wire.clear();
                    }
                    6 => {
                        theirs += 1;
                        let body = Some(Body::StopPod(StopPod::default()));
                        let new = session.receive(Envelope {
                            session: session.sequence.session(),
                            seq: theirs,
                            ack: acked,
                            body,
                        });
                        assert!(new.unwrap().is_some());
                    }
                    _ => {
                        let lie = Envelope {
                            session: if choices.below(2) == 0 { session.sequence.session() } else { choices.number() },
                            seq: choices.number(),
                            ack: choices.number(),
                            body: Some(Body::StopPod(StopPod::default())),
                        };
                        let before = session.sequence.received();
                        if session.receive(lie).is_err() {
                            assert_eq!(session.sequence.received(), before);
                            faults += 1;
                            // As the link does: what this side holds may not fit.
                            session.forget();
                            wire.clear();
                            (theirs, acked) = (0, 0);
                        }
                    }
                }
                assert!(wire.len() <= UNACKED_MAX * 4);
            }
            if faults > 0 { "a lie was seen" } else { "no lie was seen" }
        });
    assert!(tally.of("a lie was seen") > 0 && tally.of("no lie was seen") > 0, "{tally:?}");
}

const WORKER_TOML: &str = r#"
rpc = "http://127.0.0.1:1"
advertise = "127.0.0.1"
packs = ["/opt/pack"]
devices = 2
network = "HASH"
[slot]
page = "KEY"
slot = 3
[[operator]]
name = "one"
servers = ["https://127.0.0.1:2", "https://127.0.0.1:3"]
ca = "/etc/cert.pem"
"#;

fn pod_json() -> String {
    let (pod, key) = (PodId::from_random([7; 16]), PublicKey([1; 32]));
    format!(
        r#"{{"pod":"{pod}","order":"{key}","lease":"{key}","fence":1,"overlay":{{"ip":"10.77.0.1","prefix_bits":16,
        "bind":"127.0.0.1:0","announce":"127.0.0.1"}},"argv":["true"],"env":{{"A":"b"}},"binds":[{{"host":"/opt/x","pod":"/opt/venv"}}],
        "limits":{{"memory_bytes":1073741824,"cpu_milli":1000,"pids":100,"disk_bytes":1073741824,"shm_bytes":1048576,
        "tmp_bytes":1048576,"output_bytes":1048576}},"uid":null,"start":"on_run","ends_at":1000,"grace_ms":30000}}"#
    )
}

#[test]
fn what_supervisors_are_told() {
    let key = PublicKey([1; 32]);
    let tally = Fuzz::of("supervisor-lines")
        .seed(r#"{"op":"status"}"#)
        .seed(format!(
            r#"{{"op":"roster","members":["00ff"],"authorised":[{{"device_key":"{key}","lease":"{key}"}}]}}"#
        ))
        .seed(r#"{"op":"run","argv":["true"],"env":{"A":"b"}}"#)
        .seed(r#"{"op":"dial","port":8265}"#)
        .seed(r#"{"op":"output","offset":0,"follow":true}"#)
        .seed(r#"{"op":"usage","after_seq":0}"#)
        .seed(r#"{"op":"extend","ends_at":1000}"#)
        .seed(r#"{"op":"stop","term_ms":1000}"#)
        .seed(r#"{"answer":"refused","message":"no"}"#)
        .seed(r#"{"answer":"roster","verdicts":[{"ip":"10.77.0.1","refused":null}]}"#)
        .memory(64 << 10, 256)
        .run(|input| {
            if let Ok(answer) = serde_json::from_slice::<Answer>(input) {
                let again = serde_json::to_vec(&answer).unwrap();
                assert_eq!(serde_json::from_slice::<Answer>(&again).unwrap(), answer);
                return "answer";
            }
            let Ok(request) = serde_json::from_slice::<Request>(input) else { return "refused" };
            let again = serde_json::to_vec(&request).unwrap();
            assert_eq!(serde_json::from_slice::<Request>(&again).unwrap(), request);
            "request"
        });
    assert!(tally.of("request") > 0 && tally.of("answer") > 0, "{tally:?}");
}

#[test]
fn a_pods_folder() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    std::fs::write(path.join("pod.json"), pod_json()).unwrap();
    let spec = PodSpec::read(path).unwrap();
    let genesis = Record::genesis_of(&spec);
    let mut spool = Spool::create(path, genesis).unwrap();
    for n in 1..=5 {
        spool.append(Reading { at: UnixMs(n * 1000), served_ms: n * 1000, cpu_ms: n, memory_bytes: 5 }).unwrap();
    }
    let good = std::fs::read(path.join(usage::FILE)).unwrap();
    // A record at the end of numbers: nothing can follow it.
    let last = Record { seq: u64::MAX, ..spool.head() };
    let tally = Fuzz::of("usage-spool")
        .seed(good.clone())
        .seed([serde_json::to_vec(&last).unwrap(), b"\n".to_vec()].concat())
        .memory(256 << 10, 32)
        .inputs_max(3000)
        .run(|input| {
            std::fs::write(path.join(usage::FILE), input).unwrap();
            let mut meter = Meter::new(spec.pod, &spec.order, spec.lease, spec.fence);
            // As it grows: in two turns, the second from where the first ended.
            let (first, second) = (meter.take(Ok(input.to_vec())), meter.take(Ok(vec![])));
            if let Ok(Some(statement)) = &first {
                assert!(statement.records <= 5 && statement.served_ms <= 5_000, "{statement:?}");
            }
            assert!(second.is_ok_and(|more| more.is_none()), "nothing more is claimed");
            let records = usage::read(path, 0, 100).unwrap();
            let (count, whole) = usage::verify(&genesis, &records);
            assert!(count <= 5 && (!whole || count == records.len()));
            if count > 0 { "claimed" } else { "refused" }
        });
    assert!(tally.of("claimed") > 0 && tally.of("refused") > 0, "{tally:?}");
    let tally = Fuzz::of("pod-json")
        .seed(pod_json())
        .words(&["\"LD_X\":\"1\"", "/proc", "..", "\\u0000"])
        .inputs_max(3000)
        .run(|input| {
            std::fs::write(path.join("pod.json"), input).unwrap();
            match PodSpec::read(path) {
                Ok(spec) => {
                    spec.check().unwrap();
                    "accepted"
                }
                Err(_) => "refused",
            }
        });
    assert!(tally.of("accepted") > 0 && tally.of("refused") > 0, "{tally:?}");
}

#[test]
fn the_workers_own_files() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    Records::default().save(path).unwrap();
    let name = std::fs::read_dir(path).unwrap().next().unwrap().unwrap().file_name();
    let lease = PublicKey([1; 32]);
    let records = format!(r#"{{"version":1,"pods":[],"fences":[{{"lease":"{lease}","highest":3,"end_s":9}}]}}"#);
    let tally = Fuzz::of("records").seed(records).inputs_max(2000).memory(256 << 10, 128).run(|input| {
        std::fs::write(path.join(&name), input).unwrap();
        let Ok(records) = Records::load(path) else { return "refused" };
        records.save(path).unwrap();
        assert_eq!(Records::load(path).unwrap(), records);
        "accepted"
    });
    assert!(tally.of("accepted") > 0 && tally.of("refused") > 0, "{tally:?}");
    let toml = WORKER_TOML.replace("KEY", &lease.to_string()).replace("HASH", &Digest::of(b"n").to_string());
    std::fs::write(path.join("worker.toml"), &toml).unwrap();
    Config::load(path, &BTreeMap::new(), Overrides::default()).unwrap();
    let tally = Fuzz::of("worker-toml").seed(toml).inputs_max(2000).memory(1 << 20, 512).run(|input| {
        std::fs::write(path.join("worker.toml"), input).unwrap();
        let Ok(config) = Config::load(path, &BTreeMap::new(), Overrides::default()) else { return "refused" };
        config.save(path).unwrap();
        assert_eq!(Config::load(path, &BTreeMap::new(), Overrides::default()).unwrap(), config);
        "accepted"
    });
    assert!(tally.of("accepted") > 0 && tally.of("refused") > 0, "{tally:?}");
}
