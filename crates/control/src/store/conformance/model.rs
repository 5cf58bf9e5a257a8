//! Random runs against a model: what a store answers must be what a few maps in memory answer.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use atoll_domain::id::{JobId, WorkerId};
use atoll_domain::key::Digest;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::Fresh;
use super::make::{NOW, id16, id32, job_id, later, reservation, submission, user, worker_id};
use crate::store::rows::{NewJob, Reservation, User};
use crate::store::{Accepted, Store, StoreError};

const JOBS: u64 = 3;
const WORKERS: u64 = 2;

#[derive(Clone, Debug)]
enum Step {
    /// Time passes, in ms.
    Wait(u64),
    /// A job wants devices of some workers for some ms.
    Reserve { job: u64, wanted: Vec<(u64, u16)>, ms: u64 },
    /// A job gives its devices back.
    Unreserve { job: u64 },
    /// A submission: user, idempotency key, body, order, nonce, and how long that is kept.
    Accept { user: u64, key: u64, body: u64, order: u64, nonce: u64, ms: u64 },
    /// Another signed request with a nonce.
    Nonce { user: u64, nonce: u64, ms: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (0..60_u64).prop_map(Step::Wait),
        6 => (0..JOBS, vec((0..WORKERS, 0..16_u16), 0..3), 0..100_u64)
            .prop_map(|(job, wanted, ms)| Step::Reserve { job, wanted, ms }),
        1 => (0..JOBS).prop_map(|job| Step::Unreserve { job }),
        6 => (0..2_u64, 0..3_u64, 0..2_u64, 0..4_u64, 0..4_u64, 1..100_u64)
            .prop_map(|(user, key, body, order, nonce, ms)| Step::Accept { user, key, body, order, nonce, ms }),
        2 => (0..2_u64, 0..4_u64, 1..100_u64).prop_map(|(user, nonce, ms)| Step::Nonce { user, nonce, ms }),
    ]
}

/// What the store should hold. Times in ms after the start.
#[derive(Default)]
struct Model {
    now: u64,
    devices: BTreeMap<(u64, u16), (u64, u64)>,
    keys: BTreeMap<(u64, u64), (u64, JobId)>,
    orders: BTreeMap<u64, JobId>,
    nonces: BTreeMap<(u64, u64), u64>,
}

impl Model {
    fn reserve(&mut self, job: u64, wanted: &[(u64, u16)], until: u64) -> bool {
        let devices: Vec<_> = wanted
            .iter()
            .flat_map(|(w, mask)| (0..16).filter(move |d| mask & (1 << d) != 0).map(|d| (*w, d)))
            .collect();
        let foreign = |device| self.devices.get(device).is_some_and(|(by, until)| *by != job && *until > self.now);
        if devices.iter().any(foreign) {
            return false;
        }
        self.devices.extend(devices.into_iter().map(|device| (device, (job, until))));
        true
    }

    fn reserved(&self, salt: u64) -> BTreeMap<WorkerId, u16> {
        let mut masks = BTreeMap::new();
        for ((worker, device), (_, until)) in &self.devices {
            if *until > self.now {
                *masks.entry(worker_id(salt + worker)).or_insert(0) |= 1 << device;
            }
        }
        masks
    }

    fn nonce(&mut self, user: u64, nonce: u64, until: u64) -> bool {
        if self.nonces.get(&(user, nonce)).is_some_and(|until| *until > self.now) {
            return false;
        }
        self.nonces.insert((user, nonce), until);
        true
    }

    fn accept(&mut self, job: JobId, (user, key, body): (u64, u64, u64), order: u64, nonce: (u64, u64)) -> Accepted {
        if let Some((known, job)) = self.keys.get(&(user, key)).copied() {
            if known != body {
                return Accepted::KeyReused;
            }
            self.nonce(user, nonce.0, nonce.1);
            return Accepted::Again(job);
        }
        if self.nonces.get(&(user, nonce.0)).is_some_and(|until| *until > self.now) {
            return Accepted::Replayed;
        }
        if self.orders.contains_key(&order) {
            return Accepted::OrderTaken;
        }
        self.nonce(user, nonce.0, nonce.1);
        self.keys.insert((user, key), (body, job));
        self.orders.insert(order, job);
        Accepted::New
    }
}

/// One run, with ids that no other run has.
struct Run<'s> {
    store: &'s dyn Store,
    salt: u64,
    users: Vec<User>,
    model: Model,
    /// For ids of submitted jobs.
    submitted: u64,
}

impl<'s> Run<'s> {
    async fn new(store: &'s dyn Store) -> Self {
        static RUNS: AtomicU64 = AtomicU64::new(1);
        let salt = 1_000_000 * RUNS.fetch_add(1, Ordering::Relaxed);
        let users = vec![user(salt), user(salt + 1)];
        for user in &users {
            store.user_add(user).await.unwrap();
        }
        for job in 0..JOBS {
            let holder = NewJob { idempotency_key: format!("holder {job}"), ..submission(salt + job, &users[0]) };
            assert_eq!(store.job_accept(&holder, NOW).await.unwrap(), Accepted::New);
        }
        Self { store, salt, users, model: Model::default(), submitted: 0 }
    }

    async fn step(&mut self, step: &Step) -> Result<(), TestCaseError> {
        let (salt, now) = (self.salt, self.model.now);
        match step {
            Step::Wait(ms) => self.model.now += ms,
            Step::Reserve { job, wanted, ms } => {
                let rows: Vec<Reservation> = wanted
                    .iter()
                    .map(|(worker, mask)| reservation(salt + job, salt + worker, *mask, later(now + ms)))
                    .collect();
                let expected = self.model.reserve(*job, wanted, now + ms);
                let got = match self.store.devices_reserve(&rows, later(now)).await {
                    Ok(()) => true,
                    Err(StoreError::Conflict { what: "reservation" }) => false,
                    Err(error) => return Err(TestCaseError::fail(error.to_string())),
                };
                prop_assert_eq!(got, expected);
            }
            Step::Unreserve { job } => {
                self.model.devices.retain(|_, (by, _)| by != job);
                self.store.devices_unreserve(job_id(salt + job)).await.unwrap();
            }
            Step::Accept { user, key, body, order, nonce, ms } => {
                let new = self.submission((*user, *key, *body), *order, (*nonce, now + ms));
                let expected = self.model.accept(new.job.id, (*user, *key, *body), *order, (*nonce, now + ms));
                prop_assert_eq!(self.store.job_accept(&new, later(now)).await.unwrap(), expected.clone());
                let there = self.store.job(new.job.id).await.unwrap();
                prop_assert_eq!(there.is_some(), expected == Accepted::New);
            }
            Step::Nonce { user, nonce, ms } => {
                let wallet = self.users[usize::try_from(*user).unwrap()].wallet;
                let nonce_bytes = id16(salt + 500 + nonce);
                let got = self.store.nonce_use(&wallet, &nonce_bytes, later(now), later(now + ms)).await.unwrap();
                prop_assert_eq!(got, self.model.nonce(*user, *nonce, now + ms));
            }
        }
        let now = later(self.model.now);
        let mut reserved = self.store.devices_reserved(now).await.unwrap();
        let mine = [0, 1].map(|worker| worker_id(salt + worker));
        reserved.retain(|worker, _| mine.contains(worker));
        prop_assert_eq!(reserved, self.model.reserved(salt));
        Ok(())
    }

    fn submission(&mut self, (user, key, body): (u64, u64, u64), order: u64, nonce: (u64, u64)) -> NewJob {
        self.submitted += 1;
        let user = &self.users[usize::try_from(user).unwrap()];
        let mut new = submission(self.salt + 10_000 + self.submitted, user);
        new.idempotency_key = format!("key {key}");
        new.request_sha256 = Digest(id32(body));
        new.job.order.0 = id32(self.salt + 1000 + order);
        new.seal.1 = id16(self.salt + 500 + nonce.0);
        new.nonce_forget_at = later(nonce.1);
        new
    }
}

fn behaves_like_the_model(at: &Fresh, runtime: &tokio::runtime::Runtime, cases: u32) {
    let store = runtime.block_on(at.open());
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    TestRunner::new(config)
        .run(&vec(step(), 1..40), |steps| {
            runtime.block_on(async {
                let mut run = Run::new(store.as_ref()).await;
                for step in &steps {
                    run.step(step).await?;
                }
                Ok(())
            })
        })
        .unwrap();
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

#[test]
fn sqlite_behaves_like_the_model() {
    behaves_like_the_model(&Fresh::sqlite(), &runtime(), 64);
}

#[cfg(feature = "postgres-tests")]
#[test]
fn postgres_behaves_like_the_model() {
    let runtime = runtime();
    let at = runtime.block_on(Fresh::postgres());
    behaves_like_the_model(&at, &runtime, 48);
}
