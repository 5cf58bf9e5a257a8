//! Jobs and events.

use atoll_domain::job::JobState;
use atoll_domain::key::Digest;

use super::make::{NOW, accepted, event, id16, id32, job_id, job_now, later, submission, user};
use super::{Fresh, assert_conflict, assert_not_found};
use crate::store::Accepted;
use crate::store::rows::{Job, JobNow, NewJob};

pub(super) async fn an_accepted_job_reads_back(at: &Fresh) {
    let store = at.open().await;
    let (user, job) = accepted(store.as_ref(), 1).await;
    assert_eq!(store.job(job.id).await.unwrap(), Some(job.clone()));
    assert_eq!(store.job_by_order(&job.order).await.unwrap(), Some(job.clone()));
    assert_eq!(store.job_by_cluster(job.cluster).await.unwrap(), Some(job.clone()));
    assert_eq!(store.jobs_of(user.id, 10).await.unwrap(), std::slice::from_ref(&job));
    assert_eq!(store.events(job.id, 0, 10).await.unwrap(), [(1, event("accepted"))]);

    let unknown = submission(2, &user).job;
    assert_eq!(store.job(unknown.id).await.unwrap(), None);
    assert_eq!(store.job_by_order(&unknown.order).await.unwrap(), None);
    assert_eq!(store.job_by_cluster(unknown.cluster).await.unwrap(), None);
    let stranger = super::make::user(3);
    assert_eq!(store.jobs_of(stranger.id, 10).await.unwrap(), []);
    let refused = store.job_accept(&submission(3, &stranger), NOW).await;
    assert_not_found(refused, "row that this one belongs to");
}

pub(super) async fn a_retry_is_the_same_job(at: &Fresh) {
    let store = at.open().await;
    let (user, job) = accepted(store.as_ref(), 1).await;
    let same = submission(1, &user);
    assert_eq!(store.job_accept(&same, NOW).await.unwrap(), Accepted::Again(job.id));
    // A client that lost the answer draws a new nonce, and the server a new job id.
    let resealed =
        NewJob { job: Job { id: job_id(9), ..same.job.clone() }, seal: (user.wallet, id16(99)), ..same.clone() };
    assert_eq!(store.job_accept(&resealed, later(5)).await.unwrap(), Accepted::Again(job.id));
    assert_eq!(store.job(job_id(9)).await.unwrap(), None);
    // The retry's nonce is spent as well.
    assert!(!store.nonce_use(&user.wallet, &id16(99), later(6), later(60_000)).await.unwrap());
    // The same submission stays the same job after its nonce is forgotten.
    assert_eq!(store.job_accept(&same, later(120_000)).await.unwrap(), Accepted::Again(job.id));
    assert_eq!(store.events(job.id, 0, 10).await.unwrap().len(), 1);
}

pub(super) async fn refusals_leave_nothing_behind(at: &Fresh) {
    let store = at.open().await;
    let (user, taken) = accepted(store.as_ref(), 1).await;
    let fresh = submission(2, &user);

    let other_body = NewJob { idempotency_key: "key-1".into(), ..fresh.clone() };
    assert_eq!(store.job_accept(&other_body, NOW).await.unwrap(), Accepted::KeyReused);
    let replayed = NewJob { seal: (user.wallet, id16(1)), ..fresh.clone() };
    assert_eq!(store.job_accept(&replayed, NOW).await.unwrap(), Accepted::Replayed);
    let mut same_order = fresh.clone();
    same_order.job.order = taken.order;
    assert_eq!(store.job_accept(&same_order, NOW).await.unwrap(), Accepted::OrderTaken);

    assert_eq!(store.job(fresh.job.id).await.unwrap(), None);
    assert_eq!(store.jobs_open().await.unwrap(), std::slice::from_ref(&taken));
    assert_eq!(store.events(taken.id, 0, 10).await.unwrap().len(), 1);
    // Neither its key nor its nonce is spent: the corrected submission goes through.
    assert_eq!(store.job_accept(&fresh, NOW).await.unwrap(), Accepted::New);
    assert_eq!(store.job(fresh.job.id).await.unwrap(), Some(fresh.job));
}

pub(super) async fn another_users_key_is_another_key(at: &Fresh) {
    let store = at.open().await;
    accepted(store.as_ref(), 1).await;
    let other = user(2);
    store.user_add(&other).await.unwrap();
    let same_words = NewJob { idempotency_key: "key-1".into(), ..submission(2, &other) };
    assert_eq!(store.job_accept(&same_words, NOW).await.unwrap(), Accepted::New);
}

pub(super) async fn a_change_names_its_generation(at: &Fresh) {
    let store = at.open().await;
    let (_, job) = accepted(store.as_ref(), 1).await;
    let change = JobNow { state: JobState::Placing, attempt: 3, submission: Some("x".into()), ..job_now() };
    let changed = store.job_change(job.id, 1, &change, &[event("placing")]).await.unwrap();
    assert_eq!(changed, Job { generation: 2, now: change.clone(), ..job.clone() });
    assert_eq!(store.job(job.id).await.unwrap(), Some(changed.clone()));

    for stale in [0, 1, 3] {
        assert_conflict(store.job_change(job.id, stale, &job_now(), &[event("lost")]).await, "job");
    }
    assert_not_found(store.job_change(job_id(9), 1, &change, &[]).await, "job");
    assert_eq!(store.job(job.id).await.unwrap(), Some(changed));
    let events = store.events(job.id, 0, 10).await.unwrap();
    assert_eq!(events, [(1, event("accepted")), (2, event("placing"))]);
}

pub(super) async fn open_jobs_are_those_not_final(at: &Fresh) {
    let store = at.open().await;
    let mut expected = Vec::new();
    let states = [
        JobState::Ordering,
        JobState::Placing,
        JobState::Starting,
        JobState::Running,
        JobState::Recovering,
        JobState::Settling,
        JobState::Succeeded,
        JobState::Failed,
        JobState::Stopped,
    ];
    let user = user(1);
    store.user_add(&user).await.unwrap();
    for (n, state) in (1..).zip(states) {
        let mut new = submission(n, &user);
        new.job.created = later(1000 - n);
        assert_eq!(store.job_accept(&new, NOW).await.unwrap(), Accepted::New);
        let changed = store.job_change(new.job.id, 1, &JobNow { state, ..job_now() }, &[]).await.unwrap();
        assert_eq!(store.job(new.job.id).await.unwrap(), Some(changed.clone()));
        if !state.is_final() {
            expected.insert(0, changed);
        }
    }
    assert_eq!(store.jobs_open().await.unwrap(), expected, "oldest first");
}

pub(super) async fn a_users_jobs_come_newest_first(at: &Fresh) {
    let store = at.open().await;
    let user = user(1);
    store.user_add(&user).await.unwrap();
    for n in 1..=5 {
        let mut new = submission(n, &user);
        new.job.created = later(n);
        store.job_accept(&new, NOW).await.unwrap();
    }
    let ids = |jobs: Vec<Job>| jobs.into_iter().map(|job| job.id).collect::<Vec<_>>();
    assert_eq!(ids(store.jobs_of(user.id, 3).await.unwrap()), [job_id(5), job_id(4), job_id(3)]);
    assert_eq!(ids(store.jobs_of(user.id, u32::MAX).await.unwrap()).len(), 5);
}

pub(super) async fn events_are_numbered_without_gaps(at: &Fresh) {
    let store = at.open().await;
    let (_, job) = accepted(store.as_ref(), 1).await;
    let (_, other) = accepted(store.as_ref(), 2).await;
    store.events_add(job.id, &[event("a"), event("b")]).await.unwrap();
    store.events_add(other.id, &[event("of another job")]).await.unwrap();
    store.events_add(job.id, &[]).await.unwrap();
    store.events_add(job.id, &[event("c")]).await.unwrap();
    let numbers = |events: Vec<(u64, _)>| events.into_iter().map(|(number, _)| number).collect::<Vec<_>>();
    assert_eq!(numbers(store.events(job.id, 0, 10).await.unwrap()), [1, 2, 3, 4]);
    assert_eq!(store.events(job.id, 1, 2).await.unwrap(), [(2, event("a")), (3, event("b"))]);
    assert_eq!(store.events(job.id, 4, 10).await.unwrap(), []);
    assert_eq!(store.events(job.id, u64::MAX, 10).await.unwrap(), []);
    // Adding events does not disturb a decision on the job.
    assert_eq!(store.job(job.id).await.unwrap().unwrap().generation, 1);
    for events in [&[event("x")][..], &[]] {
        assert_not_found(store.events_add(job_id(9), events).await, "job");
    }
    assert_ne!(Digest(id32(1)), Digest(id32(2)), "test rows differ");
}
