//! Rows for tests: everything follows from a small number.

use std::collections::{BTreeMap, BTreeSet};

use atoll_domain::cluster::{OverlayIndex, PodRole, PodState};
use atoll_domain::id::{ApiKeyId, ClusterId, CommandId, JobId, PodId, UserId, WorkerId};
use atoll_domain::job::JobState;
use atoll_domain::key::{Digest, PublicKey, SecretKey, Signature};
use atoll_domain::meter::{Observation, SignedUsage, UsageStatement};
use atoll_domain::placement::Setback;
use atoll_domain::time::UnixMs;
use atoll_domain::worker::{Facts, Limits, SlotRef};

use crate::store::rows::{
    ApiKey, ChainTx, ChainTxState, Command, Event, Job, JobNow, NewJob, Pod, Reservation, User, Worker,
};
use crate::store::{Accepted, Store};

/// When most tests play.
pub(super) const NOW: UnixMs = UnixMs(1_800_000_000_000);

pub(super) fn id16(n: u64) -> [u8; 16] {
    Digest::of(&n.to_le_bytes()).0[..16].try_into().unwrap()
}

pub(super) fn id32(n: u64) -> [u8; 32] {
    Digest::of_parts(&[b"32", &n.to_le_bytes()]).0
}

pub(super) fn later(ms: u64) -> UnixMs {
    UnixMs(NOW.0 + ms)
}

pub(super) fn user(n: u64) -> User {
    User { id: UserId::from_random(id16(n)), name: format!("user-{n}"), wallet: PublicKey(id32(n)), created: NOW }
}

pub(super) fn api_key(n: u64, user: &User) -> ApiKey {
    ApiKey {
        id: ApiKeyId::from_random(id16(n)),
        user: user.id,
        secret_sha256: Digest(id32(n)),
        created: NOW,
        expires: None,
        revoked: None,
    }
}

pub(super) fn job_id(n: u64) -> JobId {
    JobId::from_random(id16(n))
}

pub(super) fn worker_id(n: u64) -> WorkerId {
    WorkerId::from_random(id16(n))
}

pub(super) fn job_now() -> JobNow {
    JobNow {
        state: JobState::Ordering,
        outcome: None,
        stop_wanted: false,
        reason: "its order is on the way".into(),
        refusals: BTreeMap::from([(worker_id(7), "too dear".into())]),
        attempt: 0,
        submission: None,
        head: None,
        gone: BTreeSet::from([PodId::from_random(id16(8))]),
        setbacks: BTreeMap::from([(worker_id(8), Setback { count: 2, last: NOW })]),
        next_index: 0,
        roster: 0,
        fence: 0,
        runtime_token: "token".into(),
        step: None,
        accuracy_ppm: Some(931_000),
        resumed_from_step: None,
        log_bytes: 0,
        attempt_log_bytes: 0,
        terms: None,
        leases: Vec::new(),
        extended_s: 60,
        extensions: Vec::new(),
        extensions_sought: None,
        left_behind: BTreeMap::from([(PublicKey(id32(9)), "asks more".into())]),
        since: NOW,
        ended: None,
        adopting: None,
        carried: BTreeMap::new(),
        elsewhere: None,
        newer: BTreeMap::new(),
    }
}

pub(super) fn job(n: u64, user: &User) -> Job {
    Job {
        id: job_id(n),
        user: user.id,
        cluster: ClusterId::from_random(id16(n)),
        name: format!("job-{n}"),
        spec: vec![0, 1, 2, 255],
        spec_signature: Signature([9; 64]),
        order: PublicKey(id32(n)),
        order_tx: vec![7; 900],
        escrow: 123_456_789_000_000_000,
        created: NOW,
        generation: 1,
        now: job_now(),
    }
}

pub(super) fn event(text: &str) -> Event {
    Event {
        at: NOW,
        kind: "state".into(),
        message: text.into(),
        fields: BTreeMap::from([("from".into(), "ordering".into())]),
    }
}

/// A submission with a key and a nonce of its own.
pub(super) fn submission(n: u64, user: &User) -> NewJob {
    NewJob {
        job: job(n, user),
        idempotency_key: format!("key-{n}"),
        request_sha256: Digest(id32(n)),
        seal: (user.wallet, id16(n)),
        nonce_forget_at: later(60_000),
        event: event("accepted"),
    }
}

/// A user with an accepted job.
pub(super) async fn accepted(store: &dyn Store, n: u64) -> (User, Job) {
    let user = user(n);
    store.user_add(&user).await.unwrap();
    let new = submission(n, &user);
    assert_eq!(store.job_accept(&new, NOW).await.unwrap(), Accepted::New);
    (user, new.job)
}

pub(super) fn worker(n: u64) -> Worker {
    Worker {
        id: worker_id(n),
        device_key: PublicKey(id32(n)),
        at: SlotRef { page: PublicKey(id32(n + 1000)), slot: 3 },
        facts: Facts {
            cpu: "a processor".into(),
            cpu_count: 2,
            memory_bytes: 24 << 30,
            disk_free_bytes: u64::MAX,
            disk_write_mib_s: 300,
            model: "cpu".into(),
            devices: 1,
            packs: vec![],
            limits: Limits::Weak { why: "no cgroup".into() },
        },
        advertise: "127.0.0.1".into(),
        last_seen: NOW,
    }
}

pub(super) fn reservation(job: u64, worker: u64, mask: u16, until: UnixMs) -> Reservation {
    Reservation { job: job_id(job), worker: worker_id(worker), mask, until }
}

pub(super) fn pod(n: u64, job: &Job, index: u16) -> Pod {
    Pod {
        id: PodId::from_random(id16(n)),
        job: job.id,
        worker: worker_id(n),
        device_key: PublicKey(id32(n)),
        lease: PublicKey(id32(n + 2000)),
        at: SlotRef { page: PublicKey(id32(n + 1000)), slot: 3 },
        mask: 0x8001,
        index: OverlayIndex::new(index).unwrap(),
        role: if index == 0 { PodRole::Head } else { PodRole::Node },
        fence: 1,
        created: later(u64::from(index)),
        state: PodState::Requested,
        reason: String::new(),
        statement: None,
        exit_code: None,
        usage: None,
        observation: Observation::default(),
    }
}

pub(super) fn command(n: u64, pod: &Pod) -> Command {
    Command { id: CommandId::from_random(id16(n)), worker: pod.worker, pod: pod.id, body: vec![1, 2, 3], created: NOW }
}

pub(super) fn usage(pod: &Pod, records: u64, served_ms: u64) -> SignedUsage {
    let statement = UsageStatement {
        pod: pod.id,
        lease: pod.lease,
        records,
        served_ms,
        until: NOW,
        cpu_ms: 5,
        head: Digest([4; 32]),
    };
    statement.sign(&SecretKey::from_seed(&[1; 32]))
}

pub(super) fn chain_tx(key: &str, n: u64, job: Option<JobId>) -> ChainTx {
    ChainTx {
        key: key.into(),
        job,
        bytes: vec![8; 300],
        signature: format!("signature-{n}"),
        last_valid_height: 150,
        state: ChainTxState::Pending,
        error: String::new(),
        created: NOW,
    }
}
