//! Eight writers at once, each with a handle of its own, as eight control nodes have.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use atoll_domain::id::{JobId, WorkerId};
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use super::Fresh;
use super::make::{NOW, accepted, chain_tx, event, id16, job_id, later, reservation, submission, user, worker_id};
use crate::store::rows::{Job, JobNow};
use crate::store::{Accepted, Store, StoreError};

const WRITERS: u64 = 8;

/// Runs `work` for every writer at the same moment; their results.
async fn at_once<T, F>(at: &Fresh, work: impl Fn(u64, Arc<dyn Store>) -> F) -> Vec<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let barrier = Arc::new(Barrier::new(usize::try_from(WRITERS).unwrap()));
    let mut writers = JoinSet::new();
    for n in 0..WRITERS {
        let (running, barrier) = (work(n, at.open().await), Arc::clone(&barrier));
        writers.spawn(async move {
            barrier.wait().await;
            running.await
        });
    }
    writers.join_all().await
}

/// Who holds which device, kept outside of the store.
type Held = Arc<Mutex<BTreeMap<(WorkerId, u16), JobId>>>;

fn bits(mask: u16) -> impl Iterator<Item = u16> {
    (0..16).filter(move |device| mask & (1 << device) != 0)
}

pub(super) async fn eight_writers_never_hold_one_device_twice(at: &Fresh) {
    const ROUNDS: u64 = 25;
    let store = at.open().await;
    for n in 0..WRITERS {
        accepted(store.as_ref(), n).await;
    }
    let held = Held::default();
    let outcomes = at_once(at, |n, store| {
        let held = Arc::clone(&held);
        async move {
            let (mut got, mut lost) = (0_u64, 0_u64);
            for round in 0..ROUNDS {
                // Three workers, two to four of five devices each: most wishes overlap.
                let draw = id16(n * 1000 + round);
                let wish = [0, 1, 2].map(|w: u8| {
                    let mask = u16::from(draw[usize::from(w)] & 0b11111);
                    reservation(n, 50 + u64::from(w), mask, later(60_000))
                });
                match store.devices_reserve(&wish, NOW).await {
                    Ok(()) => got += 1,
                    Err(StoreError::Conflict { .. }) => {
                        lost += 1;
                        continue;
                    }
                    Err(error) => panic!("{error}"),
                }
                let mine: Vec<_> = wish.iter().flat_map(|r| bits(r.mask).map(|device| (r.worker, device))).collect();
                for device in &mine {
                    let other = held.lock().unwrap().insert(*device, job_id(n));
                    assert_eq!(other, None, "{device:?} is held twice");
                }
                let seen = store.devices_reserved(NOW).await.unwrap();
                for (worker, device) in &mine {
                    assert_ne!(seen.get(worker).copied().unwrap_or(0) & (1 << device), 0, "a device is not reserved");
                    held.lock().unwrap().remove(&(*worker, *device));
                }
                store.devices_unreserve(job_id(n)).await.unwrap();
            }
            (got, lost)
        }
    })
    .await;
    let (got, lost) = outcomes.iter().fold((0, 0), |sum, (got, lost)| (sum.0 + got, sum.1 + lost));
    assert!(got > 0 && lost > 0, "the writers did not meet: {got} got, {lost} lost");
    assert_eq!(store.devices_reserved(NOW).await.unwrap(), BTreeMap::new(), "a refusal left devices behind");
    assert!(store.devices_reserve(&[reservation(0, 50, 0xffff, later(1))], NOW).await.is_ok());
    assert_eq!(store.devices_reserved(NOW).await.unwrap(), BTreeMap::from([(worker_id(50), 0xffff)]));
}

pub(super) async fn eight_writers_change_one_job_one_after_the_other(at: &Fresh) {
    const CHANGES: u64 = 10;
    let store = at.open().await;
    accepted(store.as_ref(), 1).await;
    at_once(at, |n, store| async move {
        for change in 0..CHANGES {
            loop {
                let job = store.job(job_id(1)).await.unwrap().unwrap();
                let next = JobNow { log_bytes: job.now.log_bytes + 1, ..job.now };
                let said = event(&format!("{n} {change}"));
                match store.job_change(job.id, job.generation, &next, &[said]).await {
                    Ok(changed) => {
                        assert_eq!((changed.generation, changed.now), (job.generation + 1, next));
                        break;
                    }
                    Err(StoreError::Conflict { what: "job" }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        }
    })
    .await;
    let job = store.job(job_id(1)).await.unwrap().unwrap();
    // Every change was decided on the one before: none is lost.
    assert_eq!((job.now.log_bytes, job.generation), (WRITERS * CHANGES, WRITERS * CHANGES + 1));
    let events = store.events(job.id, 0, 1000).await.unwrap();
    let numbers: Vec<_> = events.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, (1..=WRITERS * CHANGES + 1).collect::<Vec<_>>());
}

pub(super) async fn eight_writers_use_a_nonce_once(at: &Fresh) {
    const NONCES: u64 = 12;
    let won = at_once(at, |_, store| async move {
        let mut won = Vec::new();
        for n in 0..NONCES {
            if store.nonce_use(&user(1).wallet, &id16(n), NOW, later(100)).await.unwrap() {
                won.push(n);
            }
        }
        won
    })
    .await;
    let mut won: Vec<_> = won.concat();
    won.sort_unstable();
    assert_eq!(won, (0..NONCES).collect::<Vec<_>>());
}

pub(super) async fn eight_equal_submissions_are_one_job(at: &Fresh) {
    const ROUNDS: u64 = 6;
    let store = at.open().await;
    let user = user(1);
    store.user_add(&user).await.unwrap();
    let answers = at_once(at, |n, store| {
        let user = user.clone();
        async move {
            let mut answers = Vec::new();
            for round in 0..ROUNDS {
                let mut new = submission(100 + round, &user);
                new.job.id = job_id(1000 * (n + 1) + round);
                new.seal = (user.wallet, id16(1000 * (n + 1) + round));
                answers.push(match store.job_accept(&new, NOW).await.unwrap() {
                    Accepted::New => (new.job.id, true),
                    Accepted::Again(id) => (id, false),
                    other => panic!("{other:?}"),
                });
            }
            answers
        }
    })
    .await;
    for round in 0..usize::try_from(ROUNDS).unwrap() {
        let ids: BTreeSet<_> = answers.iter().map(|writer| writer[round].0).collect();
        let new = answers.iter().filter(|writer| writer[round].1).count();
        assert_eq!((ids.len(), new), (1, 1), "round {round}");
        let id = *ids.first().unwrap();
        assert_eq!(store.events(id, 0, 10).await.unwrap().len(), 1);
    }
    assert_eq!(store.jobs_of(user.id, 1000).await.unwrap().len() as u64, ROUNDS);
}

pub(super) async fn eight_submissions_for_one_order_are_one_job(at: &Fresh) {
    let store = at.open().await;
    let user = user(1);
    store.user_add(&user).await.unwrap();
    let order = submission(1, &user).job.order;
    let answers = at_once(at, |n, store| {
        let mut new = submission(n + 10, &user);
        new.job.order = order;
        async move { store.job_accept(&new, NOW).await.unwrap() }
    })
    .await;
    let new = answers.iter().filter(|answer| **answer == Accepted::New).count();
    let taken = answers.iter().filter(|answer| **answer == Accepted::OrderTaken).count();
    assert_eq!((new, taken), (1, 7), "{answers:?}");
    let jobs: Vec<Job> = store.jobs_of(user.id, 100).await.unwrap();
    assert_eq!(jobs.len(), 1);
}

pub(super) async fn eight_writers_have_one_live_transaction(at: &Fresh) {
    let answers = at_once(at, |n, store| async move {
        let mut answers = Vec::new();
        for key in 0..8 {
            let tx = chain_tx(&format!("fill/{key}"), 100 * key + n, None);
            answers.push(store.chain_tx_put(&tx).await.unwrap().signature);
        }
        answers
    })
    .await;
    for key in 0..8 {
        let signatures: BTreeSet<_> = answers.iter().map(|writer| &writer[key]).collect();
        assert_eq!(signatures.len(), 1, "{signatures:?}");
    }
}

pub(super) async fn a_follower_of_events_misses_none(at: &Fresh) {
    const EVENTS: u64 = 15;
    let store = at.open().await;
    accepted(store.as_ref(), 1).await;
    let follower = tokio::spawn(async move {
        let mut last = 0;
        while last < 1 + WRITERS * EVENTS {
            for (number, _) in store.events(job_id(1), last, 7).await.unwrap() {
                assert_eq!(number, last + 1, "an event was passed over");
                last = number;
            }
            tokio::task::yield_now().await;
        }
    });
    at_once(at, |n, store| async move {
        for change in 0..EVENTS {
            store.events_add(job_id(1), &[event(&format!("{n} {change}"))]).await.unwrap();
        }
    })
    .await;
    tokio::time::timeout(Duration::from_secs(30), follower).await.unwrap().unwrap();
}

pub(super) async fn eight_nodes_open_a_new_store_at_once(at: &Fresh) {
    let url = at.url.clone();
    let mut nodes = JoinSet::new();
    for n in 0..WRITERS {
        let url = url.clone();
        nodes.spawn(async move {
            let store = crate::store::open(&url).await.unwrap();
            store.user_add(&user(n)).await.unwrap();
        });
    }
    nodes.join_all().await;
    let store = at.open().await;
    for n in 0..WRITERS {
        assert!(store.user_by_name(&user(n).name).await.unwrap().is_some());
    }
}
