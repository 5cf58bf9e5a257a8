//! What becomes of a job that is being adopted, and of what was attested.

use super::*;
use atoll_domain::id::WorkerId;
use atoll_domain::key::{PublicKey, SecretKey};
use atoll_domain::meter::{SignedUsage, UsageStatement};
use atoll_domain::worker::SlotRef;

const ORDER: PublicKey = PublicKey([1; 32]);

fn pod_id(n: u8) -> PodId {
    PodId::from_random([n; 16])
}

fn slot(n: u8) -> LiveSlot {
    let device_key = SecretKey::from_seed(&[n; 32]).public();
    LiveSlot {
        lease: PublicKey([100 + n; 32]),
        at: SlotRef { page: PublicKey([200; 32]), slot: u16::from(n) },
        mask: 1,
        worker: WorkerId::of_device_key(&device_key),
        device_key,
        end: 0,
    }
}

fn usage(pod: PodId, lease: Address, served_ms: u64) -> SignedUsage {
    let head = Digest([0; 32]);
    let statement = UsageStatement { pod, lease, records: 1, served_ms, until: UnixMs(1), cpu_ms: 0, head };
    statement.sign(&SecretKey::from_seed(&[9; 32]))
}

/// The pod that a worker reports in its slot. Only the address in the statement is read here.
fn stray(n: u8, fence: u64) -> Stray {
    let LiveSlot { lease, at, mask, worker, device_key, .. } = slot(n);
    let mut statement = vec![0; pod_key::SIGNED_BYTES];
    statement[64..68].copy_from_slice(&[10, 77, 0, n + 1]);
    Stray {
        id: pod_id(n),
        worker,
        device_key,
        order: ORDER,
        lease,
        at,
        mask,
        fence,
        state: PodState::Running,
        reason: String::new(),
        statement: Some(statement),
        exit_code: None,
        reported: UnixMs(0),
        usage: Some(usage(pod_id(n), lease, 60_000)),
        observation: Observation::default(),
    }
}

/// A job whose mark names pod 0 as the head of fence 3, attempt 2.
fn row() -> JobNow {
    let mut now = jobs::first(UnixMs(0), String::new());
    (now.fence, now.attempt, now.head, now.state) = (3, 2, Some(pod_id(0)), JobState::Running);
    now
}

fn decided(after_s: u64, job: &JobNow, pods: &[Pod], strays: &[Stray]) -> Decision {
    let slots = [slot(0), slot(1)];
    let now = UnixMs(after_s * 1000);
    decide(&Known { now, since: UnixMs(0), devices: 2, job, slots: &slots, pods, strays })
}

fn taken(pods: &[u8]) -> BTreeSet<PodId> {
    pods.iter().map(|n| pod_id(*n)).collect()
}

#[test]
fn what_runs_under_the_marked_fence_is_taken_up_at_once() {
    assert_eq!(decided(0, &row(), &[], &[stray(0, 3), stray(1, 3)]), Decision::TakeUp(taken(&[0, 1]), true));
    // Part of it is in the store already.
    let known =
        pod_of(JobId::from_random([1; 16]), None, &stray(0, 3), OverlayIndex::new(0).unwrap(), PodState::Running);
    assert_eq!(decided(0, &row(), &[known], &[stray(1, 3)]), Decision::TakeUp(taken(&[1]), true));
}

#[test]
fn workers_are_waited_for_and_then_not() {
    assert_eq!(decided(19, &row(), &[], &[stray(0, 3)]), Decision::Wait);
    assert_eq!(decided(20, &row(), &[], &[stray(0, 3)]), Decision::TakeUp(taken(&[0]), false), "the head stands");
    assert_eq!(decided(19, &row(), &[], &[stray(1, 3)]), Decision::Wait);
    assert_eq!(decided(20, &row(), &[], &[stray(1, 3)]), Decision::Anew, "the head does not");
    assert_eq!(decided(20, &row(), &[], &[]), Decision::Anew);
    // A pod that runs and whose meter has not come yet is waited for: what was attested is credited up to its meter.
    let unmetered = Stray { usage: None, ..stray(1, 3) };
    assert_eq!(decided(0, &row(), &[], &[stray(0, 3), unmetered]), Decision::Wait);
}

#[test]
fn what_does_not_fit_is_not_taken_up() {
    let bends: [fn(&mut Stray); 6] = [
        |stray| stray.fence = 2,
        |stray| stray.state = PodState::Exited,
        |stray| stray.statement = None,
        |stray| stray.lease = PublicKey([7; 32]),
        |stray| stray.device_key = PublicKey([7; 32]),
        |stray| stray.mask = 3,
    ];
    for (n, bend) in bends.into_iter().enumerate() {
        let mut bent = stray(1, 3);
        bend(&mut bent);
        assert_eq!(decided(20, &row(), &[], &[stray(0, 3), bent]), Decision::TakeUp(taken(&[0]), false), "bend {n}");
    }
    // A fence above the mark: who is its head, nobody knows. One that holds no slot of the order says nothing.
    assert_eq!(decided(0, &row(), &[], &[stray(0, 3), stray(1, 4)]), Decision::Anew);
    assert_eq!(
        decided(0, &row(), &[], &[stray(0, 3), stray(1, 3), stray(5, 9)]),
        Decision::TakeUp(taken(&[0, 1]), true)
    );
}

#[test]
fn a_new_start_is_above_everything_that_was_begun() {
    let mut now = row();
    let strays = [stray(0, 3), stray(1, 7)];
    let job = now.clone();
    let known = Known {
        now: UnixMs(1_800_000_000_000),
        since: UnixMs(0),
        devices: 2,
        job: &job,
        slots: &[],
        pods: &[],
        strays: &strays,
    };
    start_anew(&mut now, &known, 5);
    assert_eq!((now.fence, now.attempt, now.head, now.state), (1_800_000_000, 5, None, JobState::Recovering));
    // Lost again within the same second: still higher.
    start_anew(&mut now, &known, 0);
    assert_eq!((now.fence, now.attempt), (1_800_000_001, 5));
}

#[test]
fn what_was_attested_stands_and_goes_on_from_there() {
    let pod = |n: u8, claimed_s: u64, seen_s: u64| {
        let stray = stray(n, 3);
        let usage = Some(usage(stray.id, stray.lease, claimed_s * 1000));
        let observation = Observation { observed_ms: seen_s * 1000, last_seen: None };
        let stray = Stray { usage, observation, ..stray };
        pod_of(JobId::from_random([1; 16]), None, &stray, OverlayIndex::new(u16::from(n)).unwrap(), PodState::Running)
    };
    let attested = |device_seconds| Attested { device_seconds, until: UnixMs(20_000) };
    let total = |pods: &[&mut Pod], left: u64| pods.iter().map(|pod| served_ms(pod) / 1000).sum::<u64>() + left;
    // One pod, all of it: 600 s were attested, the old store has seen 300 of them, the meter says 610.
    let mut one = pod(0, 610, 300);
    assert_eq!(share_attested(attested(600), &mut [&mut one]), 0);
    assert_eq!(served_ms(&one), 600_000);
    one.observation.observed_ms += 10_000;
    assert_eq!(served_ms(&one), 610_000, "and from there on it counts as it is seen");
    one.observation.observed_ms += 10_000;
    assert_eq!(served_ms(&one), 610_000, "never beyond the meter");
    // An earlier pod of the lease is forgotten by everybody: its part is carried.
    let mut later = pod(0, 60, 0);
    let left = share_attested(attested(150), &mut [&mut later]);
    assert_eq!((left, total(&[&mut later], left)), (90, 150));
    // Nothing was attested: nothing is credited, whatever the meter says.
    let mut new = pod(0, 500, 3);
    assert_eq!((share_attested(attested(0), &mut [&mut new]), served_ms(&new)), (0, 3_000));
    let (mut a, mut b) = (pod(0, 100, 0), pod(1, 50, 0));
    let left = share_attested(attested(120), &mut [&mut a, &mut b]);
    assert_eq!((left, total(&[&mut a, &mut b], left)), (0, 120));
}

/// A store that came back 4 s old knows the pod, with the meter of then.
#[test]
fn what_a_running_pod_served_since_the_store_was_written_is_not_counted_again_when_its_meter_comes() {
    let mut stray = stray(0, 3);
    stray.mask = 0b11;
    let pod = |state| {
        let usage = Some(usage(stray.id, stray.lease, 16_000));
        let observation = Observation { observed_ms: 15_500, last_seen: Some(UnixMs(16_000)) };
        let stray = Stray { usage, observation, ..stray.clone() };
        pod_of(JobId::from_random([1; 16]), None, &stray, OverlayIndex::new(0).unwrap(), state)
    };
    let attested = |device_seconds| Attested { device_seconds, until: UnixMs(20_000) };
    let mut runs = pod(PodState::Running);
    assert_eq!(share_attested(attested(2 * 19), &mut [&mut runs]), 0);
    let credited = runs.observation;
    assert_eq!((share_attested(attested(2 * 19), &mut [&mut runs]), runs.observation), (0, credited), "once is enough");
    // Its worker is seen again, and the time between counts as it does after any short silence.
    runs.observation = runs.observation.beat(UnixMs(21_000));
    runs.usage = Some(usage(runs.id, runs.lease, 21_000));
    assert_eq!(served_ms(&runs), 21_000);
    // More than it can have served is another's; and one that was over by then served nothing since.
    assert_eq!(share_attested(attested(2 * 40), &mut [&mut pod(PodState::Running)]), 2 * (40 - 20 - 10));
    assert_eq!(share_attested(attested(2 * 19), &mut [&mut pod(PodState::Exited)]), 2 * 4);
}

/// The last meter of a pod that is over came after the store was written, and comes again.
#[test]
fn what_a_pod_that_is_over_was_seen_to_serve_is_not_counted_again_when_its_last_meter_comes() {
    let mut stray = stray(0, 3);
    stray.mask = 0b11;
    stray.usage = Some(usage(stray.id, stray.lease, 19_200));
    stray.observation = Observation { observed_ms: 20_300, last_seen: Some(UnixMs(25_900)) };
    let mut over = pod_of(JobId::from_random([1; 16]), None, &stray, OverlayIndex::new(0).unwrap(), PodState::Exited);
    let attested = Attested { device_seconds: 2 * 20, until: UnixMs(30_000) };
    assert_eq!(share_attested(attested, &mut [&mut over]), 0);
    over.usage = Some(usage(over.id, over.lease, 20_265));
    assert_eq!(served_ms(&over), 20_265);
    // Seen less of, it is not credited with what cannot be told from another's.
    over.usage = Some(usage(over.id, over.lease, 19_200));
    over.observation.observed_ms = 19_500;
    let left = share_attested(attested, &mut [&mut over]);
    over.usage = Some(usage(over.id, over.lease, 20_265));
    assert_eq!(left + 2 * (served_ms(&over) / 1000), 2 * 20);
}

/// The node's clock was ahead of the chain's when it saw the pod last: by less than a beat may span, and by more.
#[test]
fn what_a_pod_served_unseen_is_paid_once_though_the_node_s_clock_is_ahead_of_the_chain_s() {
    for lead_s in [0, 3, 8, 100] {
        for away_s in [1, 6, 10, 30] {
            let stray = stray(0, 3);
            let at = |chain_s: u64| UnixMs((chain_s + lead_s) * 1000);
            // Seen for 100 s up to 1,100 on the chain; attested up to `away_s` later; then the store of 1,100 comes back.
            let usage_of = |served_s: u64| Some(usage(stray.id, stray.lease, served_s * 1000));
            let observation = Observation { observed_ms: 100_000, last_seen: Some(at(1_100)) };
            let seen = Stray { usage: usage_of(100), observation, ..stray.clone() };
            let mut pod =
                pod_of(JobId::from_random([1; 16]), None, &seen, OverlayIndex::new(0).unwrap(), PodState::Running);
            let attested = Attested { device_seconds: 100 + away_s, until: UnixMs((1_100 + away_s) * 1000) };
            let carried = share_attested(attested, &mut [&mut pod]);
            // Its worker is back, and serves on for 50 s.
            for second in 0..=50 {
                pod.observation = pod.observation.beat(at(1_100 + away_s + second));
            }
            pod.usage = usage_of(100 + away_s + 50);
            let paid_s = served_ms(&pod) / 1000 + carried;
            assert_eq!(paid_s, 150 + away_s, "ahead by {lead_s} s, away for {away_s} s: {carried} s are carried");
        }
    }
}
