//! The worker link from the worker's end: who is let in, what is believed, what is delivered.

use std::time::Duration;

use atoll_api::link::envelope::Body;
use atoll_api::link::{CommandResult, Envelope, FRAME_BYTES_MAX, PodReport, StopPod, Usage, encode};
use atoll_control::config::Overrides;
use atoll_control::store::rows::{Command, Pod};
use atoll_domain::cluster::{OverlayIndex, PodRole, PodState};
use atoll_domain::id::{CommandId, JobId, PodId};
use atoll_domain::key::{Digest, PublicKey, Purpose, SecretKey};
use atoll_domain::meter::{Observation, UsageStatement};
use atoll_domain::time::UnixMs;
use atoll_domain::worker::SlotRef;

use crate::rig::{Rig, Worker, wait, wait_for};
use crate::submit::accepted;

pub(crate) fn pod_of(job: JobId, worker: &Worker, n: u8) -> Pod {
    Pod {
        id: PodId::from_random([n; 16]),
        job,
        worker: worker.id,
        device_key: worker.device.public(),
        lease: PublicKey([40 + n; 32]),
        at: SlotRef { page: worker.page, slot: 0 },
        mask: 1,
        index: OverlayIndex::new(u16::from(n)).unwrap(),
        role: PodRole::Head,
        fence: 1,
        created: UnixMs(1),
        state: PodState::Requested,
        reason: String::new(),
        statement: None,
        exit_code: None,
        usage: None,
        observation: Observation::default(),
    }
}

pub(crate) fn command(worker: &Worker, pod: PodId, n: u8) -> Command {
    let id = CommandId::from_random([n; 16]);
    let stop = StopPod { command: id.to_string(), pod: pod.to_string(), reason: n.to_string() };
    let body = encode(&Envelope { body: Some(Body::StopPod(stop)), ..Envelope::default() });
    Command { id, worker: worker.id, pod, body, created: UnixMs(u64::from(n)) }
}

/// A job whose head pod is on this worker.
pub(crate) async fn job_with_pod(rig: &Rig, worker: &Worker) -> (JobId, Pod) {
    let job = accepted(rig).await.job;
    let row = rig.control().store.job(job).await.unwrap().unwrap();
    let pod = pod_of(job, worker, 1);
    let mut now = row.now.clone();
    now.head = Some(pod.id);
    now.attempt = 1;
    rig.control().store.pods_add(job, row.generation, &now, std::slice::from_ref(&pod), &[], &[]).await.unwrap();
    (job, pod)
}

/// The pod key statement that an honest worker signs for its pod; its form is the overlay's.
pub(crate) async fn statement(rig: &Rig, worker: &Worker, pod: &Pod) -> Vec<u8> {
    let order = rig.control().store.job(pod.job).await.unwrap().unwrap().order;
    let endpoint = [&[4, 192, 0, 2, 1][..], &[0; 12], &4100_u16.to_le_bytes()].concat();
    let expires_s = u64::MAX.to_le_bytes();
    let body = [&order.0[..], &pod.lease.0, &pod.index.address().octets(), &[9; 32], &endpoint, &expires_s].concat();
    let signature = worker.device.sign(Purpose::PodKey, &body);
    [&body[..], &worker.device.public().0, &signature.0].concat()
}

fn report(pod: &Pod, state: &str) -> PodReport {
    PodReport {
        pod: pod.id.to_string(),
        lease: pod.lease.0.to_vec(),
        fence: pod.fence,
        state: state.into(),
        ..PodReport::default()
    }
}

async fn state(rig: &Rig, pod: PodId) -> PodState {
    rig.control().store.pod(pod).await.unwrap().unwrap().state
}

#[tokio::test]
async fn only_a_proven_device_key_with_its_slot_on_the_chain_is_let_in() {
    let rig = Rig::start().await;
    type Bend = fn(&mut atoll_api::link::Hello);
    let cases: &[(&str, Bend)] = &[
        ("link_other_version", |h| h.version = 99),
        ("link_bad_proof", |h| h.proof = vec![1; 64]),
        ("link_bad_proof", |h| h.proof.clear()),
        ("link_bad_proof", |h| h.device_key = SecretKey::from_seed(&[77; 32]).public().0.to_vec()),
        ("link_bad_hello", |h| h.device_key.clear()),
        ("link_bad_hello", |h| h.slot = 1 << 20),
        ("link_bad_hello", |h| h.facts = b"{}".to_vec()),
        ("link_bad_hello", |h| h.facts = vec![b' '; 70_000]),
        ("link_bad_hello", |h| h.advertise = "a b\n".into()),
        ("link_not_on_chain", |h| h.slot = 1),
        ("link_not_on_chain", |h| h.page = vec![4; 32]),
    ];
    for (n, (code, bend)) in cases.iter().enumerate() {
        let mut worker = rig.register(1).dial(&rig).await;
        worker.hello(bend).await;
        assert_eq!(&worker.refused().await, code, "case {n}");
        assert!(!rig.control().links.is_linked(worker.id));
    }
    // A proof made on one connection is worth nothing on another.
    let (first, mut second) = (rig.register(1).dial(&rig).await, rig.register(1).dial(&rig).await);
    second.exporter = first.exporter;
    second.hello(|_| {}).await;
    assert_eq!(second.refused().await, "link_bad_proof");
    assert_eq!(rig.control().store.workers().await.unwrap(), []);
    assert!(rig.control().links.away(first.id).is_some());
    let worker = rig.worker(1).await;
    assert_eq!(rig.control().links.away(worker.id), None);
    assert_eq!(rig.control().links.linked().len(), 1);
}

#[tokio::test]
async fn garbage_on_the_link_closes_it_with_a_reason() {
    let rig = Rig::start().await;
    let mut silent_first = rig.register(2).dial(&rig).await;
    silent_first.bytes(b"\xff\xff\xff\xff".to_vec()).await;
    assert_eq!(silent_first.refused().await, "link_bad_frame");
    for n in 0..5 {
        let mut worker = rig.worker(1).await;
        let session = worker.session;
        match n {
            0 => worker.bytes(b"\xff\xff\xff\xff\xff".to_vec()).await,
            1 => worker.bytes(vec![0; FRAME_BYTES_MAX + 1]).await,
            2 => worker.raw(Envelope { session, seq: 9, ack: 0, body: Some(Body::Usage(Usage::default())) }).await,
            3 => worker.raw(Envelope { session, seq: 0, ack: 77, body: None }).await,
            _ => worker.raw(Envelope { session: session + 1, seq: 0, ack: 0, body: None }).await,
        }
        assert_eq!(worker.refused().await, "link_bad_frame", "case {n}");
        let id = worker.id;
        wait("the link is gone", || !rig.control().links.is_linked(id)).await;
    }
}

#[tokio::test]
async fn three_missed_heartbeats_end_a_link_and_beats_keep_it() {
    let rig = Rig::with(Overrides { heartbeat_ms: Some(100), ..Overrides::default() }).await;
    let mut worker = rig.worker(1).await;
    for _ in 0..10 {
        worker.beat(vec![]).await;
        let answer = worker.next().await.unwrap();
        assert!(matches!(answer.body, Some(Body::Heartbeat(_))) && answer.seq == 0);
    }
    assert!(rig.control().links.is_linked(worker.id));
    wait("silence ends the link", || !rig.control().links.is_linked(worker.id)).await;
    wait("the time away is counted", || rig.control().links.away(worker.id).is_some()).await;
}

#[tokio::test]
async fn the_time_in_which_a_crowd_of_workers_comes_is_not_held_against_one_that_is_away() {
    let rig = Rig::with(Overrides { heartbeat_ms: Some(10_000), ..Overrides::default() }).await;
    let gone = rig.worker(1).await.id;
    wait("its link is over", || !rig.control().links.is_linked(gone)).await;
    let began = std::time::Instant::now();
    let mut crowd = Vec::new();
    for n in 2..=101 {
        crowd.push(rig.worker(n).await);
    }
    // A hundred vouch for five seconds; one of seven is for looks that come late.
    wait("seven seconds have passed", || began.elapsed() > Duration::from_secs(7)).await;
    let away = rig.control().links.away(gone).unwrap();
    assert!(away + Duration::from_secs(4) <= began.elapsed(), "away for {away:?} of {:?}", began.elapsed());
}

#[tokio::test]
async fn a_second_link_of_the_same_key_takes_over() {
    let rig = Rig::start().await;
    let mut first = rig.worker(1).await;
    let _second = rig.worker(1).await;
    assert_eq!(first.refused().await, "link_replaced");
    assert!(rig.control().links.is_linked(first.id));
}

#[tokio::test]
async fn a_command_is_delivered_until_it_is_answered() {
    let rig = Rig::start().await;
    let mut worker = rig.worker(1).await;
    let (_, pod) = job_with_pod(&rig, &worker).await;
    let store = &rig.control().store;
    store.commands_add(&[command(&worker, pod.id, 1), command(&worker, pod.id, 2)]).await.unwrap();
    rig.control().links.deliver(worker.id);
    let reason = |envelope: Envelope| match envelope.body {
        Some(Body::StopPod(stop)) => (envelope.seq, stop.reason),
        other => panic!("{other:?}"),
    };
    assert_eq!(reason(worker.numbered().await), (1, "1".into()));
    assert_eq!(reason(worker.numbered().await), (2, "2".into()));
    // The connection breaks, the session goes on: what was not acknowledged comes again, with its number.
    let session = worker.session;
    drop(worker);
    let mut worker = rig.register(1).dial(&rig).await;
    worker.hello(|hello| (hello.resume_session, hello.resume_ack) = (session, 1)).await;
    assert!(worker.welcomed().await.resumed);
    assert_eq!(reason(worker.numbered().await), (2, "2".into()));
    let answer = |n: u8| CommandResult {
        command: CommandId::from_random([n; 16]).to_string(),
        accepted: n == 1,
        code: "no".into(),
        message: "m".into(),
    };
    worker.say(Body::CommandResult(answer(1))).await;
    assert_eq!(worker.next().await.unwrap().ack, 1);
    // A worker that lost its memory gets what it has not answered, as a new session.
    drop(worker);
    let mut worker = rig.register(1).dial(&rig).await;
    worker.hello(|_| {}).await;
    assert!(!worker.welcomed().await.resumed);
    assert_eq!(reason(worker.numbered().await), (1, "2".into()));
    worker.say(Body::CommandResult(answer(2))).await;
    let open = async || store.commands_open(worker.id, 9).await.unwrap().is_empty();
    wait_for("all commands are answered", open).await;
    let refusal = store.command(CommandId::from_random([2; 16])).await.unwrap().unwrap().1.unwrap();
    assert_eq!((refusal.accepted, refusal.code.as_str()), (false, "no"));
}

#[tokio::test]
async fn a_worker_is_believed_about_its_own_pods_only() {
    let rig = Rig::start().await;
    let mut worker = rig.worker(1).await;
    let mut other = rig.worker(2).await;
    let (job, pod) = job_with_pod(&rig, &worker).await;
    other.say(Body::PodReport(report(&pod, "exited"))).await;
    other.next().await.unwrap();
    worker.say(Body::PodReport(PodReport { fence: 7, ..report(&pod, "exited") })).await;
    worker.next().await.unwrap();
    assert_eq!(state(&rig, pod.id).await, PodState::Requested);
    let signed = statement(&rig, &worker, &pod).await;
    let prepared = PodReport { statement: signed.clone(), ..report(&pod, "prepared") };
    worker.say(Body::PodReport(prepared.clone())).await;
    worker.next().await.unwrap();
    worker.say(Body::PodReport(report(&pod, "running"))).await;
    worker.next().await.unwrap();
    let row = rig.control().store.pod(pod.id).await.unwrap().unwrap();
    assert_eq!((row.state, row.statement.as_deref()), (PodState::Running, Some(signed.as_slice())));
    // A report that comes again, or late, changes nothing and is told once.
    worker.say(Body::PodReport(prepared)).await;
    worker.next().await.unwrap();
    assert_eq!(state(&rig, pod.id).await, PodState::Running);
    let events = rig.control().store.events(job, 0, 99).await.unwrap();
    assert_eq!(events.iter().filter(|(_, event)| event.kind == "pod").count(), 2);

    let worker_seed = worker.device.seed();
    let statement = UsageStatement {
        pod: pod.id,
        lease: pod.lease,
        records: 1,
        served_ms: 5000,
        until: UnixMs(1),
        cpu_ms: 1,
        head: Digest::of(b""),
    };
    let own = || SecretKey::from_seed(&worker_seed);
    for (key, lease) in [(&other.device, pod.lease), (&own(), PublicKey([1; 32])), (&own(), pod.lease)] {
        assert_eq!(rig.control().store.pod(pod.id).await.unwrap().unwrap().usage, None);
        let signed = UsageStatement { lease, ..statement }.sign(key);
        worker.say(Body::Usage(Usage { signed: serde_json::to_vec(&signed).unwrap() })).await;
        worker.next().await.unwrap();
    }
    let usage = rig.control().store.pod(pod.id).await.unwrap().unwrap().usage.unwrap();
    assert_eq!(usage.statement.served_ms, 5000);
    worker.say(Body::PodReport(report(&pod, "lost"))).await;
    assert_eq!(worker.refused().await, "link_bad_frame");
}

/// One wrong statement makes every pod of a cluster refuse the roster: it must not get there.
#[tokio::test]
async fn a_statement_that_is_not_the_pod_s_own_ends_its_worker_s_link() {
    let rig = Rig::start().await;
    let worker = rig.worker(1).await;
    let (_, pod) = job_with_pod(&rig, &worker).await;
    let good = statement(&rig, &worker, &pod).await;
    let mut address = good.clone();
    address[67] ^= 1;
    for wrong in [b"garbage".to_vec(), address, good[..good.len() - 1].to_vec()] {
        let mut worker = rig.worker(1).await;
        worker.say(Body::PodReport(PodReport { statement: wrong, ..report(&pod, "prepared") })).await;
        assert_eq!(worker.refused().await, "link_bad_frame");
        assert_eq!(state(&rig, pod.id).await, PodState::Requested);
    }
    let mut worker = rig.worker(1).await;
    worker.say(Body::PodReport(PodReport { statement: good.clone(), ..report(&pod, "prepared") })).await;
    worker.next().await.unwrap();
    let (signature, mut other) = (good.len() - 96, good);
    other[68] ^= 1;
    let signed = worker.device.sign(Purpose::PodKey, &other[..signature]);
    other.truncate(signature + 32);
    other.extend(signed.0);
    worker.say(Body::PodReport(PodReport { statement: other, ..report(&pod, "prepared") })).await;
    assert_eq!(worker.refused().await, "link_bad_frame", "a pod has one key for life");
}

#[tokio::test]
async fn two_pods_of_a_cluster_never_have_one_key() {
    let rig = Rig::start().await;
    let (mut worker, mut thief) = (rig.worker(1).await, rig.worker(2).await);
    let (job, pod) = job_with_pod(&rig, &worker).await;
    let row = rig.control().store.job(job).await.unwrap().unwrap();
    let stolen = pod_of(job, &thief, 2);
    rig.control().store.pods_add(job, row.generation, &row.now, std::slice::from_ref(&stolen), &[], &[]).await.unwrap();
    let honest = PodReport { statement: statement(&rig, &worker, &pod).await, ..report(&pod, "prepared") };
    worker.say(Body::PodReport(honest)).await;
    worker.next().await.unwrap();
    let same = PodReport { statement: statement(&rig, &thief, &stolen).await, ..report(&stolen, "prepared") };
    thief.say(Body::PodReport(same)).await;
    assert_eq!(thief.refused().await, "link_bad_frame");
    assert_eq!(state(&rig, stolen.id).await, PodState::Requested);
}

#[tokio::test]
async fn heartbeats_are_observed_and_written_down() {
    let rig = Rig::start().await;
    let mut worker = rig.worker(1).await;
    let (_, pod) = job_with_pod(&rig, &worker).await;
    let beat = async |worker: &mut Worker| {
        worker.beat(vec![pod.id.to_string(), "pod_nobody_knows".into()]).await;
        worker.next().await.unwrap();
    };
    beat(&mut worker).await;
    assert_eq!(rig.control().links.observation(pod.id), None, "a pod that does not run was counted");
    worker.say(Body::PodReport(report(&pod, "running"))).await;
    worker.next().await.unwrap();
    let until = tokio::time::Instant::now() + crate::rig::PATIENCE;
    while rig.control().links.observation(pod.id).is_none_or(|seen| seen.observed_ms < 20) {
        assert!(tokio::time::Instant::now() < until);
        beat(&mut worker).await;
    }
    let written = async || rig.control().store.pod(pod.id).await.unwrap().unwrap().observation.observed_ms >= 20;
    wait_for("the observation is in the store", written).await;
}

#[tokio::test]
async fn a_pod_that_a_returning_worker_does_not_name_is_over() {
    let rig = Rig::start().await;
    let mut worker = rig.worker(1).await;
    let (_, pod) = job_with_pod(&rig, &worker).await;
    worker.say(Body::PodReport(report(&pod, "running"))).await;
    worker.next().await.unwrap();
    let again = async |pods: Vec<PodReport>| {
        let mut worker = rig.register(1).dial(&rig).await;
        worker.hello(|hello| hello.pods = pods).await;
        worker.welcomed().await;
        worker.beat(vec![]).await;
        worker.next().await.unwrap();
    };
    again(vec![report(&pod, "running")]).await;
    assert_eq!(state(&rig, pod.id).await, PodState::Running);
    again(vec![]).await;
    assert_eq!(state(&rig, pod.id).await, PodState::Exited);
}

/// Callers that say nothing, and callers that begin a handshake and stop: each address waits for itself.
#[tokio::test]
async fn callers_that_stop_in_the_middle_keep_no_worker_out() {
    use tokio::io::AsyncWriteExt as _;
    let rig = Rig::start().await;
    let mut idle = Vec::new();
    for n in 0..600 {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.9:0".parse().unwrap()).unwrap();
        let mut caller = socket.connect(rig.node.address).await.unwrap();
        if n >= 100 {
            // The head of a ClientHello of 512 bytes that never come.
            caller.write_all(&[22, 3, 1, 2, 0]).await.unwrap();
        }
        idle.push(caller);
    }
    let began = tokio::time::Instant::now();
    rig.worker(1).await;
    println!("linked after {:?}", began.elapsed());
}
