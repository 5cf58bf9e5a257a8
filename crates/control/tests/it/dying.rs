//! A store whose node dies after so many of its writes: the write is done, its answer never comes. And one in whose place
//! another is put under a running node.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use atoll_control::store::rows::*;
use atoll_control::store::{Accepted, Result, Store};
use atoll_domain::id::{ApiKeyId, ClusterId, CommandId, JobId, NodeId, PodId, UserId, WorkerId};
use atoll_domain::key::{Address, Digest, PublicKey};
use atoll_domain::meter::{Observation, SignedUsage};
use atoll_domain::time::UnixMs;
use tokio::sync::Notify;

use crate::whole::Around;

/// How long a node lives that uses a store through it: so many writes. What comes again and again by itself (meters,
/// beats) does not count.
#[derive(Debug, Default)]
pub(crate) struct Lives {
    left: AtomicI64,
    died: Notify,
    /// What is used in the place of the store, once it is there.
    instead: OnceLock<Arc<dyn Store>>,
}

impl Lives {
    /// The next life ends at its write of this number.
    pub(crate) fn for_writes(&self, writes: i64) {
        self.left.store(writes, Ordering::SeqCst);
    }

    /// Puts another store in the place of the one that nodes use.
    pub(crate) fn put_instead(&self, store: Arc<dyn Store>) {
        assert!(self.instead.set(store).is_ok(), "once");
    }

    /// Waits for the end of this life.
    pub(crate) async fn over(&self) {
        self.died.notified().await;
    }

    /// Puts itself between nodes and their store.
    pub(crate) fn around(self: &Arc<Self>) -> Around {
        let lives = Arc::clone(self);
        Arc::new(move |store| Arc::new(Dying(store, Arc::clone(&lives))))
    }
}

#[derive(Debug)]
struct Dying(Arc<dyn Store>, Arc<Lives>);

impl Dying {
    fn store(&self) -> &Arc<dyn Store> {
        self.1.instead.get().unwrap_or(&self.0)
    }

    /// A dead node does nothing more.
    async fn lives<T>(&self, work: impl Future<Output = T>) -> T {
        if self.1.left.load(Ordering::SeqCst) <= 0 {
            std::future::pending::<()>().await;
        }
        work.await
    }

    /// A write that may be the last.
    async fn survives<T>(&self, work: impl Future<Output = T>) -> T {
        let done = self.lives(work).await;
        if self.1.left.fetch_sub(1, Ordering::SeqCst) <= 1 {
            self.1.died.notify_one();
            std::future::pending::<()>().await;
        }
        done
    }
}

#[async_trait]
impl Store for Dying {
    async fn user_add(&self, user: &User) -> Result<()> {
        self.lives(self.store().user_add(user)).await
    }
    async fn user_by_name(&self, name: &str) -> Result<Option<User>> {
        self.lives(self.store().user_by_name(name)).await
    }
    async fn api_key_add(&self, key: &ApiKey) -> Result<()> {
        self.lives(self.store().api_key_add(key)).await
    }
    async fn api_key(&self, id: ApiKeyId) -> Result<Option<(ApiKey, User)>> {
        self.lives(self.store().api_key(id)).await
    }
    async fn api_key_revoke(&self, id: ApiKeyId, now: UnixMs) -> Result<()> {
        self.lives(self.store().api_key_revoke(id, now)).await
    }
    async fn nonce_use(&self, signer: &PublicKey, nonce: &[u8; 16], now: UnixMs, forget_at: UnixMs) -> Result<bool> {
        self.lives(self.store().nonce_use(signer, nonce, now, forget_at)).await
    }
    async fn job_accept(&self, new: &NewJob, now: UnixMs) -> Result<Accepted> {
        self.survives(self.store().job_accept(new, now)).await
    }
    async fn job(&self, id: JobId) -> Result<Option<Job>> {
        self.lives(self.store().job(id)).await
    }
    async fn job_by_order(&self, order: &Address) -> Result<Option<Job>> {
        self.lives(self.store().job_by_order(order)).await
    }
    async fn job_by_cluster(&self, cluster: ClusterId) -> Result<Option<Job>> {
        self.lives(self.store().job_by_cluster(cluster)).await
    }
    async fn jobs_of(&self, user: UserId, limit: u32) -> Result<Vec<Job>> {
        self.lives(self.store().jobs_of(user, limit)).await
    }
    async fn jobs_open(&self) -> Result<Vec<Job>> {
        self.lives(self.store().jobs_open()).await
    }
    async fn job_change(&self, id: JobId, generation: u64, change: &JobChange, events: &[Event]) -> Result<Job> {
        self.survives(self.store().job_change(id, generation, change, events)).await
    }
    async fn events_add(&self, job: JobId, events: &[Event]) -> Result<()> {
        self.lives(self.store().events_add(job, events)).await
    }
    async fn events(&self, job: JobId, after: u64, limit: u32) -> Result<Vec<(u64, Event)>> {
        self.lives(self.store().events(job, after, limit)).await
    }
    async fn worker_put(&self, worker: &Worker) -> Result<()> {
        self.lives(self.store().worker_put(worker)).await
    }
    async fn worker(&self, id: WorkerId) -> Result<Option<Worker>> {
        self.lives(self.store().worker(id)).await
    }
    async fn workers(&self) -> Result<Vec<Worker>> {
        self.lives(self.store().workers()).await
    }
    async fn devices_reserve(&self, reservations: &[Reservation], now: UnixMs) -> Result<()> {
        self.survives(self.store().devices_reserve(reservations, now)).await
    }
    async fn devices_unreserve(&self, job: JobId) -> Result<()> {
        self.survives(self.store().devices_unreserve(job)).await
    }
    async fn devices_reserved(&self, now: UnixMs) -> Result<BTreeMap<WorkerId, u16>> {
        self.lives(self.store().devices_reserved(now)).await
    }
    async fn pods_add(
        &self,
        job: JobId,
        generation: u64,
        change: &JobChange,
        pods: &[Pod],
        commands: &[Command],
        events: &[Event],
    ) -> Result<Job> {
        self.survives(self.store().pods_add(job, generation, change, pods, commands, events)).await
    }
    async fn pod(&self, id: PodId) -> Result<Option<Pod>> {
        self.lives(self.store().pod(id)).await
    }
    async fn pods_of(&self, job: JobId) -> Result<Vec<Pod>> {
        self.lives(self.store().pods_of(job)).await
    }
    async fn pods_on(&self, worker: WorkerId) -> Result<Vec<Pod>> {
        self.lives(self.store().pods_on(worker)).await
    }
    async fn pod_change(&self, id: PodId, change: &PodChange, events: &[Event]) -> Result<bool> {
        self.survives(self.store().pod_change(id, change, events)).await
    }
    async fn usage_put(&self, pod: PodId, usage: &SignedUsage) -> Result<()> {
        self.lives(self.store().usage_put(pod, usage)).await
    }
    async fn observations_put(&self, seen: &BTreeMap<PodId, Observation>) -> Result<()> {
        self.lives(self.store().observations_put(seen)).await
    }
    async fn commands_add(&self, commands: &[Command]) -> Result<()> {
        self.survives(self.store().commands_add(commands)).await
    }
    async fn known(&self, workers: &[WorkerId]) -> Result<BTreeMap<WorkerId, Known>> {
        self.lives(self.store().known(workers)).await
    }
    async fn workers_commanded(&self) -> Result<Vec<WorkerId>> {
        self.lives(self.store().workers_commanded()).await
    }
    async fn commands_open(&self, worker: WorkerId, limit: u32) -> Result<Vec<Command>> {
        self.lives(self.store().commands_open(worker, limit)).await
    }
    async fn command_answer(&self, worker: WorkerId, id: CommandId, answer: &CommandAnswer) -> Result<bool> {
        self.survives(self.store().command_answer(worker, id, answer)).await
    }
    async fn command(&self, id: CommandId) -> Result<Option<(Command, Option<CommandAnswer>)>> {
        self.lives(self.store().command(id)).await
    }
    async fn chain_tx_put(&self, tx: &ChainTx) -> Result<ChainTx> {
        self.survives(self.store().chain_tx_put(tx)).await
    }
    async fn chain_tx(&self, key: &str) -> Result<Option<ChainTx>> {
        self.lives(self.store().chain_tx(key)).await
    }
    async fn chain_txs_of(&self, job: JobId) -> Result<Vec<ChainTx>> {
        self.lives(self.store().chain_txs_of(job)).await
    }
    async fn chain_txs_pending(&self) -> Result<Vec<ChainTx>> {
        self.lives(self.store().chain_txs_pending()).await
    }
    async fn chain_tx_state(&self, signature: &str, state: ChainTxState, error: &str, told: &[Event]) -> Result<()> {
        self.survives(self.store().chain_tx_state(signature, state, error, told)).await
    }
    async fn chain_tx_gone(&self, signature: &str) -> Result<()> {
        self.survives(self.store().chain_tx_gone(signature)).await
    }
    async fn epoch_put(&self, epoch: &Epoch) -> Result<Epoch> {
        self.survives(self.store().epoch_put(epoch)).await
    }
    async fn epoch_latest(&self) -> Result<Option<Epoch>> {
        self.lives(self.store().epoch_latest()).await
    }
    async fn epoch_with_lease(&self, lease: &Address) -> Result<Option<Epoch>> {
        self.lives(self.store().epoch_with_lease(lease)).await
    }
    async fn epoch_with_lease_up_to(&self, lease: &Address, index: u64) -> Result<Option<Epoch>> {
        self.lives(self.store().epoch_with_lease_up_to(lease, index)).await
    }
    async fn receipt_put(&self, job: JobId, sha256: &Digest, receipt: &str) -> Result<()> {
        self.survives(self.store().receipt_put(job, sha256, receipt)).await
    }
    async fn receipt(&self, job: JobId) -> Result<Option<String>> {
        self.lives(self.store().receipt(job)).await
    }
    async fn job_origin(&self, job: JobId) -> Result<Origin> {
        self.lives(self.store().job_origin(job)).await
    }
    async fn job_adopt(&self, new: &AdoptedJob) -> Result<Job> {
        self.survives(self.store().job_adopt(new)).await
    }
    async fn stray_put(&self, stray: &Stray) -> Result<()> {
        self.lives(self.store().stray_put(stray)).await
    }
    async fn stray(&self, pod: PodId) -> Result<Option<Stray>> {
        self.lives(self.store().stray(pod)).await
    }
    async fn strays_on(&self, worker: WorkerId) -> Result<Vec<Stray>> {
        self.lives(self.store().strays_on(worker)).await
    }
    async fn strays_of(&self, order: &Address) -> Result<Vec<Stray>> {
        self.lives(self.store().strays_of(order)).await
    }
    async fn stray_orders(&self) -> Result<Vec<Address>> {
        self.lives(self.store().stray_orders()).await
    }
    async fn strays_drop(&self, order: &Address, before: UnixMs) -> Result<()> {
        self.lives(self.store().strays_drop(order, before)).await
    }
    async fn node_beat(&self, beat: &Beat) -> Result<()> {
        self.lives(self.store().node_beat(beat)).await
    }
    async fn news(&self, commands_after: u64) -> Result<News> {
        self.lives(self.store().news(commands_after)).await
    }
    async fn last_command(&self) -> Result<u64> {
        self.lives(self.store().last_command()).await
    }
    async fn links(&self) -> Result<BTreeMap<WorkerId, Held>> {
        self.lives(self.store().links()).await
    }
    async fn nodes_drop(&self, nodes: &[NodeId]) -> Result<()> {
        self.lives(self.store().nodes_drop(nodes)).await
    }
    async fn pod_lose(&self, id: PodId, seen: Option<Held>, change: &PodChange, events: &[Event]) -> Result<bool> {
        self.survives(self.store().pod_lose(id, seen, change, events)).await
    }
    async fn network_pin(&self, pin: &NetworkPin) -> Result<NetworkPin> {
        self.survives(self.store().network_pin(pin)).await
    }
    async fn network(&self) -> Result<Option<NetworkPin>> {
        self.lives(self.store().network()).await
    }
    async fn beat(&self) -> Result<()> {
        self.lives(self.store().beat()).await
    }
    async fn ping(&self) -> Result<()> {
        self.lives(self.store().ping()).await
    }
}
