//! Pods, meters, commands.

use std::collections::BTreeMap;

use atoll_domain::cluster::PodState;
use atoll_domain::id::{CommandId, PodId};
use atoll_domain::meter::Observation;
use atoll_domain::time::UnixMs;

use super::make::{NOW, accepted, command, event, id16, job_now, later, pod, usage, worker_id};
use super::{Fresh, assert_conflict, assert_not_found};
use crate::store::rows::{Command, CommandAnswer, Job, JobNow, Known, Pod, PodChange};
use crate::store::{Store, StoreError};

const STATES: [PodState; 5] =
    [PodState::Requested, PodState::Prepared, PodState::Running, PodState::Exited, PodState::Lost];

/// An accepted job with one pod.
async fn with_pod(store: &dyn Store) -> (Job, Pod) {
    let (_, job) = accepted(store, 1).await;
    let pod = pod(20, &job, 0);
    let job = store.pods_add(job.id, 1, &job_now(), std::slice::from_ref(&pod), &[], &[]).await.unwrap();
    (job, pod)
}

pub(super) async fn pods_come_with_their_commands_or_not_at_all(at: &Fresh) {
    let store = at.open().await;
    let (_, job) = accepted(store.as_ref(), 1).await;
    let pods = [pod(20, &job, 0), Pod { usage: Some(usage(&pod(21, &job, 1), 2, 7)), ..pod(21, &job, 1) }];
    let commands = [command(30, &pods[0]), command(31, &pods[1])];
    let change = JobNow { next_index: 2, ..job_now() };

    let stale = store.pods_add(job.id, 7, &change, &pods, &commands, &[event("lost")]).await;
    assert_conflict(stale, "job");
    let (_, other) = accepted(store.as_ref(), 2).await;
    let foreign = [pods[0].clone(), pod(22, &other, 0)];
    let refused = store.pods_add(job.id, 1, &change, &foreign, &commands, &[event("lost")]).await;
    assert!(matches!(refused, Err(StoreError::Corrupt { what: "pod", .. })), "{refused:?}");
    assert_eq!(store.pods_of(job.id).await.unwrap(), []);
    assert_eq!(store.commands_open(pods[0].worker, 10).await.unwrap(), []);
    assert_eq!(store.job(job.id).await.unwrap(), Some(job.clone()));
    assert_eq!(store.events(job.id, 0, 10).await.unwrap().len(), 1);

    let changed = store.pods_add(job.id, 1, &change, &pods, &commands, &[event("pods")]).await.unwrap();
    assert_eq!((changed.generation, &changed.now), (2, &change));
    assert_eq!(store.pods_of(job.id).await.unwrap(), pods);
    assert_eq!(store.pod(pods[1].id).await.unwrap(), Some(pods[1].clone()));
    assert_eq!(store.commands_open(pods[1].worker, 10).await.unwrap(), [commands[1].clone()]);
    assert_eq!(store.events(job.id, 1, 10).await.unwrap(), [(2, event("pods"))]);
    assert_eq!(store.pod(PodId::from_random(id16(9))).await.unwrap(), None);
}

pub(super) async fn a_place_in_the_overlay_is_given_once(at: &Fresh) {
    let store = at.open().await;
    let (job, first) = with_pod(store.as_ref()).await;
    store.pod_change(first.id, &PodChange { state: Some(PodState::Lost), ..PodChange::default() }, &[]).await.unwrap();
    let same_place = store.pods_add(job.id, 2, &job_now(), &[pod(21, &job, 0)], &[], &[]).await;
    assert_conflict(same_place, "pod");
    let same_id = store.pods_add(job.id, 2, &job_now(), &[pod(20, &job, 1)], &[], &[]).await;
    assert_conflict(same_id, "pod");
    assert_eq!(store.job(job.id).await.unwrap().unwrap().generation, 2);
}

pub(super) async fn a_pod_never_goes_back(at: &Fresh) {
    let store = at.open().await;
    let (_, mut job) = accepted(store.as_ref(), 1).await;
    let mut place = 0;
    for from in STATES {
        for to in STATES.map(Some).into_iter().chain([None]) {
            let pod = Pod { state: from, ..pod(100 + u64::from(place), &job, place) };
            place += 1;
            job =
                store.pods_add(job.id, job.generation, &job_now(), std::slice::from_ref(&pod), &[], &[]).await.unwrap();
            let change = PodChange { state: to, reason: Some("moved".into()), ..PodChange::default() };
            let before = store.events(job.id, 0, 1000).await.unwrap().len();
            let changed = store.pod_change(pod.id, &change, &[event("moved")]).await.unwrap();

            let order = |state: PodState| STATES.iter().position(|s| *s == state).unwrap();
            let allowed = !from.is_over() && to.is_none_or(|to| order(to) >= order(from));
            assert_eq!(changed, allowed, "{from} to {to:?}");
            let stands = store.pod(pod.id).await.unwrap().unwrap();
            let expected = if allowed { (to.unwrap_or(from), "moved") } else { (from, "") };
            assert_eq!((stands.state, stands.reason.as_str()), expected, "{from} to {to:?}");
            let events = store.events(job.id, 0, 1000).await.unwrap().len();
            assert_eq!(events - before, usize::from(allowed), "{from} to {to:?}");
        }
    }
}

pub(super) async fn a_change_keeps_what_it_does_not_name(at: &Fresh) {
    let store = at.open().await;
    let (_, pod) = with_pod(store.as_ref()).await;
    let prepared = PodChange { state: Some(PodState::Prepared), statement: Some(vec![1, 2]), ..PodChange::default() };
    let exited = PodChange {
        state: Some(PodState::Exited),
        reason: Some("out of memory".into()),
        exit_code: Some(-9),
        ..PodChange::default()
    };
    assert!(store.pod_change(pod.id, &prepared, &[]).await.unwrap());
    assert!(store.pod_change(pod.id, &exited, &[]).await.unwrap());
    let expected = Pod {
        state: PodState::Exited,
        statement: Some(vec![1, 2]),
        reason: "out of memory".into(),
        exit_code: Some(-9),
        ..pod.clone()
    };
    assert_eq!(store.pod(pod.id).await.unwrap(), Some(expected));
    assert_not_found(store.pod_change(PodId::from_random(id16(9)), &exited, &[]).await, "pod");
}

pub(super) async fn pods_on_a_worker_are_those_not_over(at: &Fresh) {
    let store = at.open().await;
    let (_, job) = accepted(store.as_ref(), 1).await;
    let worker = worker_id(77);
    let pods: Vec<_> =
        (0_u16..).zip(STATES).map(|(n, state)| Pod { worker, state, ..pod(u64::from(n) + 20, &job, n) }).collect();
    store.pods_add(job.id, 1, &job_now(), &pods, &[], &[]).await.unwrap();
    assert_eq!(store.pods_on(worker).await.unwrap(), pods[..3]);
    assert_eq!(store.pods_on(worker_id(78)).await.unwrap(), []);
    let over = Pod { worker: worker_id(79), state: PodState::Exited, ..pod(30, &job, 9) };
    let row = store.job(job.id).await.unwrap().unwrap();
    store.pods_add(job.id, row.generation, &row.now, &[over], &[], &[]).await.unwrap();
    let asked = [worker, worker_id(78), worker_id(79), worker];
    let busy = |known: BTreeMap<_, Known>| known.into_iter().map(|(id, it)| (id, it.is_busy)).collect::<Vec<_>>();
    let expected = [(worker, true), (worker_id(78), false), (worker_id(79), false)];
    assert_eq!(busy(store.known(&asked).await.unwrap()), BTreeMap::from(expected).into_iter().collect::<Vec<_>>());
    assert_eq!(store.known(&[]).await.unwrap(), BTreeMap::new());
}

pub(super) async fn the_later_usage_stays(at: &Fresh) {
    let store = at.open().await;
    let (_, pod) = with_pod(store.as_ref()).await;
    for (records, served_ms, expected) in [
        (5, 5_000, (5, 5_000)),
        (4, 9_000, (5, 5_000)),
        (5, 4_000, (5, 5_000)),
        (5, 5_500, (5, 5_500)),
        // A worker that claims less under more records has corrected itself.
        (6, 100, (6, 100)),
    ] {
        store.usage_put(pod.id, &usage(&pod, records, served_ms)).await.unwrap();
        let stands = store.pod(pod.id).await.unwrap().unwrap().usage.unwrap();
        assert_eq!(stands, usage(&pod, expected.0, expected.1));
    }
    let other = Pod { id: PodId::from_random(id16(9)), ..pod.clone() };
    assert_not_found(store.usage_put(other.id, &usage(&other, 1, 1)).await, "pod");
    let foreign = store.usage_put(pod.id, &usage(&other, 99, 99)).await;
    assert!(matches!(foreign, Err(StoreError::Corrupt { what: "usage", .. })), "{foreign:?}");
}

pub(super) async fn observations_only_grow(at: &Fresh) {
    let store = at.open().await;
    let (_, job) = accepted(store.as_ref(), 1).await;
    let (a, b) = (pod(20, &job, 0), pod(21, &job, 1));
    store.pods_add(job.id, 1, &job_now(), &[a.clone(), b.clone()], &[], &[]).await.unwrap();
    let seen = |observed_ms, at: Option<UnixMs>| Observation { observed_ms, last_seen: at };
    let read = async |id| store.pod(id).await.unwrap().unwrap().observation;

    let unknown = PodId::from_random(id16(9));
    let put = BTreeMap::from([(a.id, seen(10, Some(later(1)))), (b.id, seen(20, None)), (unknown, seen(1, None))]);
    store.observations_put(&put).await.unwrap();
    assert_eq!((read(a.id).await, read(b.id).await), (seen(10, Some(later(1))), seen(20, None)));
    // A node that knows less takes nothing away.
    let put = BTreeMap::from([(a.id, seen(9, Some(later(9)))), (b.id, seen(20, Some(later(3))))]);
    store.observations_put(&put).await.unwrap();
    assert_eq!((read(a.id).await, read(b.id).await), (seen(10, Some(later(1))), seen(20, Some(later(3)))));
    store.observations_put(&BTreeMap::new()).await.unwrap();
    store.observations_put(&BTreeMap::from([(a.id, seen(11, None))])).await.unwrap();
    assert_eq!(read(a.id).await, seen(11, Some(later(1))));
}

pub(super) async fn commands_wait_in_order_for_their_first_answer(at: &Fresh) {
    let store = at.open().await;
    let (_, pod) = with_pod(store.as_ref()).await;
    let commands: Vec<_> = [33, 31, 32].map(|n| command(n, &pod)).to_vec();
    store.commands_add(&commands).await.unwrap();
    // The same id again, with another body, changes nothing.
    store.commands_add(&[Command { body: vec![9], ..commands[0].clone() }]).await.unwrap();
    assert_eq!(store.commands_open(pod.worker, 10).await.unwrap(), commands);
    assert_eq!(store.commands_open(pod.worker, 2).await.unwrap(), commands[..2]);
    assert_eq!(store.commands_open(worker_id(9), 10).await.unwrap(), []);
    assert_eq!(store.workers_commanded().await.unwrap(), [pod.worker]);
    let lone = Command { worker: worker_id(8), ..command(34, &pod) };
    assert!(!store.known(&[lone.worker]).await.unwrap()[&lone.worker].is_busy);
    store.commands_add(std::slice::from_ref(&lone)).await.unwrap();
    assert!(store.known(&[lone.worker]).await.unwrap()[&lone.worker].is_busy);
    assert_eq!(store.workers_commanded().await.unwrap().len(), 2);

    let answer = |accepted| CommandAnswer { accepted, code: "code".into(), message: "zero\0".into() };
    assert!(!store.command_answer(worker_id(9), commands[0].id, &answer(true)).await.unwrap());
    assert_eq!(store.command(commands[0].id).await.unwrap(), Some((commands[0].clone(), None)));
    assert!(store.command_answer(pod.worker, commands[0].id, &answer(false)).await.unwrap());
    assert!(store.command_answer(pod.worker, commands[0].id, &answer(true)).await.unwrap());
    assert_eq!(store.command(commands[0].id).await.unwrap(), Some((commands[0].clone(), Some(answer(false)))));
    assert_eq!(store.commands_open(pod.worker, 10).await.unwrap(), commands[1..]);
    assert!(store.command_answer(lone.worker, lone.id, &answer(true)).await.unwrap());
    assert!(!store.known(&[lone.worker]).await.unwrap()[&lone.worker].is_busy);
    assert_eq!(store.workers_commanded().await.unwrap(), [pod.worker]);

    let unknown = CommandId::from_random(id16(9));
    assert!(!store.command_answer(pod.worker, unknown, &answer(true)).await.unwrap());
    assert_eq!(store.command(unknown).await.unwrap(), None);
    assert_eq!(NOW, commands[0].created);
}
