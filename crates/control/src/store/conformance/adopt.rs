//! What was lost and is taken up again, and pods that nobody here asked for.

use std::collections::BTreeMap;

use atoll_domain::cluster::PodState;
use atoll_domain::id::{JobId, PodId};
use atoll_domain::key::PublicKey;
use atoll_domain::meter::Observation;

use super::Fresh;
use super::make::{NOW, accepted, event, id16, id32, job, later, pod, submission, usage, user};
use crate::store::rows::{AdoptedJob, Origin, Stray, User};
use crate::store::{Accepted, StoreError};

fn adopted(n: u64, user: &User) -> AdoptedJob {
    let submission = submission(n, user);
    AdoptedJob {
        user: user.clone(),
        job: submission.job,
        submission: Some((submission.idempotency_key, submission.request_sha256)),
        event: event("adopted"),
    }
}

pub(super) async fn a_lost_job_comes_back_with_its_user_and_its_key(at: &Fresh) {
    let store = at.open().await;
    let user = user(1);
    let lost = adopted(1, &user);
    assert_eq!(store.job_adopt(&lost).await.unwrap(), lost.job);
    assert_eq!(store.job_adopt(&lost).await.unwrap(), lost.job, "twice is once");
    assert_eq!(store.events(lost.job.id, 0, 9).await.unwrap().len(), 1);
    let origin = Origin { user: user.clone(), submission: lost.submission.clone() };
    assert_eq!(store.job_origin(lost.job.id).await.unwrap(), origin);
    // The renter's retry is the same job, under the id it always had.
    let mut retry = submission(1, &user);
    retry.job.id = JobId::from_random(id16(99));
    assert_eq!(store.job_accept(&retry, NOW).await.unwrap(), Accepted::Again(lost.job.id));
    assert!(matches!(store.job_origin(JobId::from_random(id16(98))).await, Err(StoreError::NotFound { .. })));
}

pub(super) async fn a_job_that_stands_is_not_replaced(at: &Fresh) {
    let store = at.open().await;
    let (user, stands) = accepted(&*store, 1).await;
    let mut other = adopted(1, &user);
    other.job.id = JobId::from_random(id16(50));
    assert_eq!(store.job_adopt(&other).await.unwrap().id, stands.id);
    assert!(store.job(other.job.id).await.unwrap().is_none());
}

pub(super) async fn a_lost_job_never_goes_to_another_wallet(at: &Fresh) {
    let store = at.open().await;
    // The operator made the key before the job was found: same name, same wallet, another id.
    let again = User { id: user(7).id, ..user(1) };
    store.user_add(&again).await.unwrap();
    assert_eq!(store.job_adopt(&adopted(1, &user(1))).await.unwrap().user, again.id);
    // Somebody else has the name: the lost user is there beside him.
    let namesake = User { name: user(2).name, ..user(8) };
    store.user_add(&namesake).await.unwrap();
    assert_eq!(store.job_adopt(&adopted(2, &user(2))).await.unwrap().user, user(2).id);
    assert_eq!(store.user_by_name(&user(2).name).await.unwrap(), Some(namesake));
    // The id is another wallet's: nothing is written.
    let thief = User { wallet: PublicKey(id32(66)), ..user(2) };
    assert!(matches!(store.job_adopt(&adopted(3, &thief)).await, Err(StoreError::Conflict { .. })));
    assert!(store.job_by_order(&job(3, &thief).order).await.unwrap().is_none());
}

fn stray(n: u64) -> Stray {
    let pod = pod(n, &job(1, &user(1)), 0);
    Stray {
        id: pod.id,
        worker: pod.worker,
        device_key: pod.device_key,
        order: PublicKey(id32(500)),
        lease: pod.lease,
        at: pod.at,
        mask: pod.mask,
        fence: 3,
        state: PodState::Running,
        reason: String::new(),
        statement: Some(vec![1, 2]),
        exit_code: None,
        reported: NOW,
        usage: None,
        observation: Observation::default(),
    }
}

pub(super) async fn a_stray_stays_whose_it_is_and_keeps_its_meter(at: &Fresh) {
    let store = at.open().await;
    let first = stray(1);
    store.stray_put(&first).await.unwrap();
    assert_eq!(store.stray(first.id).await.unwrap(), Some(first.clone()));
    let metered = usage(&pod(1, &job(1, &user(1)), 0), 5, 9_000);
    store.usage_put(first.id, &metered).await.unwrap();
    store.usage_put(first.id, &usage(&pod(1, &job(1, &user(1)), 0), 4, 8_000)).await.unwrap();
    let seen = Observation { observed_ms: 4_000, last_seen: Some(later(1)) };
    store.observations_put(&BTreeMap::from([(first.id, seen)])).await.unwrap();
    store.observations_put(&BTreeMap::from([(first.id, Observation::default())])).await.unwrap();
    // Another worker, lease or fence does not take it over; its own worker ends it, once.
    store.stray_put(&Stray { worker: stray(2).worker, state: PodState::Exited, ..first.clone() }).await.unwrap();
    store.stray_put(&Stray { fence: 4, state: PodState::Exited, ..first.clone() }).await.unwrap();
    let kept = Stray { usage: Some(metered), observation: seen, ..first.clone() };
    assert_eq!(store.strays_on(first.worker).await.unwrap(), std::slice::from_ref(&kept));
    assert!(store.known(&[first.worker]).await.unwrap()[&first.worker].is_busy);
    store
        .stray_put(&Stray { state: PodState::Exited, exit_code: Some(3), statement: None, ..first.clone() })
        .await
        .unwrap();
    store.stray_put(&first).await.unwrap();
    let over = Stray { state: PodState::Exited, exit_code: Some(3), ..kept };
    assert_eq!(store.strays_of(&first.order).await.unwrap(), [over]);
    assert_eq!(store.strays_on(first.worker).await.unwrap(), []);
    assert!(!store.known(&[first.worker]).await.unwrap()[&first.worker].is_busy);
    assert!(matches!(
        store.usage_put(PodId::from_random(id16(77)), &usage(&pod(77, &job(1, &user(1)), 0), 1, 1)).await,
        Err(StoreError::NotFound { .. })
    ));
}

pub(super) async fn strays_are_bounded_and_dropped_with_their_order(at: &Fresh) {
    let store = at.open().await;
    let worker = stray(1).worker;
    for n in 0..140 {
        let id = PodId::from_random(id16(1000 + n));
        store.stray_put(&Stray { id, worker, reported: later(n), ..stray(1) }).await.unwrap();
    }
    assert_eq!(store.strays_on(worker).await.unwrap().len(), 128);
    assert_eq!(store.stray(PodId::from_random(id16(1000))).await.unwrap(), None, "the oldest give way");
    for n in 140..300 {
        let id = PodId::from_random(id16(1000 + n));
        store.stray_put(&Stray { id, worker, reported: later(n), state: PodState::Exited, ..stray(1) }).await.unwrap();
    }
    assert_eq!(
        store.strays_on(worker).await.unwrap().len(),
        128,
        "what has ended takes the place of nothing that runs"
    );
    let other = Stray { order: PublicKey(id32(501)), ..stray(2) };
    store.stray_put(&other).await.unwrap();
    let mut orders = vec![stray(1).order, other.order];
    orders.sort_unstable();
    assert_eq!(store.stray_orders().await.unwrap(), orders);
    store.strays_drop(&stray(1).order, later(100)).await.unwrap();
    assert_eq!(store.strays_of(&stray(1).order).await.unwrap().len(), 40);
    store.strays_drop(&stray(1).order, later(1_000)).await.unwrap();
    assert_eq!(store.stray_orders().await.unwrap(), [other.order]);
}
