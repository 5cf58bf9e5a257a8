//! The store's operations in SQL, written once for both engines.
//!
//! One file per family of tables; each operation is a function over a [`Tx`]. This file joins them to the trait: which
//! run in a transaction, and with what. Text differs between the engines only where [`Dialect`] says so.

mod adopt;
mod builds;
mod chain;
mod devices;
mod jobs;
mod meters;
mod migrate;
mod nodes;
mod pods;
mod tx;
mod users;
mod value;

use std::collections::BTreeMap;

use async_trait::async_trait;
use atoll_domain::id::{ApiKeyId, ClusterId, CommandId, JobId, NodeId, PodId, UserId, WorkerId};
use atoll_domain::key::{Address, Digest, PublicKey};
use atoll_domain::meter::{Observation, SignedUsage};
use atoll_domain::time::UnixMs;

use super::rows::{
    AdoptedJob, ApiKey, Beat, ChainTx, ChainTxState, Command, CommandAnswer, Epoch, Event, Held, Job, JobChange, Known,
    NetworkPin, NewJob, News, Origin, Pod, PodChange, Reservation, Stray, User, Worker,
};
use super::{Accepted, Result, Store};

pub(super) use builds::{Build, Stamp, Stamped, fence, stamp};
pub(super) use migrate::{MIGRATIONS, Migration, migrate};
pub(super) use tx::{Connection, Cure, Engine, Failure, Isolation, Operation, Tx, is_repeatable};
pub(super) use value::{Row, Value};

use Isolation::{ReadCommitted, Serializable};

/// The trait's operations over one engine.
#[derive(Debug)]
pub(super) struct Sql<E>(pub(super) E);

#[async_trait]
impl<E: Engine> Store for Sql<E> {
    async fn user_add(&self, user: &User) -> Result<()> {
        self.0.write(Serializable, user.clone(), |user, tx| Box::pin(users::add(tx, user))).await
    }

    async fn user_by_name(&self, name: &str) -> Result<Option<User>> {
        self.0.read(name.to_owned(), |name, tx| Box::pin(users::by_name(tx, name))).await
    }

    async fn api_key_add(&self, key: &ApiKey) -> Result<()> {
        self.0.write(Serializable, key.clone(), |key, tx| Box::pin(users::key_add(tx, key))).await
    }

    async fn api_key(&self, id: ApiKeyId) -> Result<Option<(ApiKey, User)>> {
        self.0.read(id, |id, tx| Box::pin(users::key(tx, *id))).await
    }

    async fn api_key_revoke(&self, id: ApiKeyId, now: UnixMs) -> Result<()> {
        self.0.write(Serializable, (id, now), |(id, now), tx| Box::pin(users::key_revoke(tx, *id, *now))).await
    }

    async fn nonce_use(&self, signer: &PublicKey, nonce: &[u8; 16], now: UnixMs, forget_at: UnixMs) -> Result<bool> {
        self.nonces_drop(now).await?;
        let arguments = (*signer, *nonce, now, forget_at);
        self.0
            .write(Serializable, arguments, |(signer, nonce, now, forget_at), tx| {
                Box::pin(users::nonce_remember(tx, signer, nonce, *now, *forget_at))
            })
            .await
    }

    async fn job_accept(&self, new: &NewJob, now: UnixMs) -> Result<Accepted> {
        self.nonces_drop(now).await?;
        self.0.write(Serializable, (new.clone(), now), |(new, now), tx| Box::pin(jobs::accept(tx, new, *now))).await
    }

    async fn job(&self, id: JobId) -> Result<Option<Job>> {
        self.0.read(id, |id, tx| Box::pin(jobs::one(tx, "id = $1", Value::shown(id)))).await
    }

    async fn job_by_order(&self, order: &Address) -> Result<Option<Job>> {
        self.0.read(*order, |order, tx| Box::pin(jobs::one(tx, "order_address = $1", Value::bytes(&order.0)))).await
    }

    async fn job_by_cluster(&self, cluster: ClusterId) -> Result<Option<Job>> {
        self.0.read(cluster, |cluster, tx| Box::pin(jobs::one(tx, "cluster = $1", Value::shown(cluster)))).await
    }

    async fn jobs_of(&self, user: UserId, limit: u32) -> Result<Vec<Job>> {
        self.0.read((user, limit), |(user, limit), tx| Box::pin(jobs::of_user(tx, Value::shown(user), *limit))).await
    }

    async fn jobs_open(&self) -> Result<Vec<Job>> {
        self.0.read((), |(), tx| Box::pin(jobs::open(tx))).await
    }

    async fn job_change(&self, id: JobId, generation: u64, change: &JobChange, events: &[Event]) -> Result<Job> {
        let arguments = (id, generation, change.clone(), events.to_vec());
        self.0
            .write(Serializable, arguments, |(id, generation, change, events), tx| {
                Box::pin(jobs::change(tx, *id, *generation, change, events))
            })
            .await
    }

    async fn events_add(&self, job: JobId, events: &[Event]) -> Result<()> {
        self.0
            .write(Serializable, (job, events.to_vec()), |(job, events), tx| {
                Box::pin(async move {
                    jobs::require(tx, *job).await?;
                    jobs::events_append(tx, *job, events).await
                })
            })
            .await
    }

    async fn events(&self, job: JobId, after: u64, limit: u32) -> Result<Vec<(u64, Event)>> {
        self.0
            .read((job, after, limit), |(job, after, limit), tx| Box::pin(jobs::events(tx, *job, *after, *limit)))
            .await
    }

    async fn worker_put(&self, worker: &Worker) -> Result<()> {
        self.0.write(Serializable, worker.clone(), |worker, tx| Box::pin(devices::worker_put(tx, worker))).await
    }

    async fn worker(&self, id: WorkerId) -> Result<Option<Worker>> {
        self.0.read(id, |id, tx| Box::pin(devices::worker_one(tx, *id))).await
    }

    async fn known(&self, workers: &[WorkerId]) -> Result<BTreeMap<WorkerId, Known>> {
        self.0.read(workers.to_vec(), |workers, tx| Box::pin(devices::known(tx, workers))).await
    }

    async fn workers(&self) -> Result<Vec<Worker>> {
        self.0.read((), |(), tx| Box::pin(devices::workers(tx))).await
    }

    async fn devices_reserve(&self, reservations: &[Reservation], now: UnixMs) -> Result<()> {
        self.0.write(ReadCommitted, now, |now, tx| Box::pin(devices::lapsed_drop(tx, *now))).await?;
        self.0
            .write(Serializable, (reservations.to_vec(), now), |(reservations, now), tx| {
                Box::pin(devices::reserve(tx, reservations, *now))
            })
            .await
    }

    async fn devices_unreserve(&self, job: JobId) -> Result<()> {
        self.0.write(Serializable, job, |job, tx| Box::pin(devices::unreserve(tx, *job))).await
    }

    async fn devices_reserved(&self, now: UnixMs) -> Result<BTreeMap<WorkerId, u16>> {
        self.0.read(now, |now, tx| Box::pin(devices::reserved(tx, *now))).await
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
        let addition = pods::Addition {
            job,
            generation,
            change: change.clone(),
            pods: pods.to_vec(),
            commands: commands.to_vec(),
            events: events.to_vec(),
        };
        self.0.write(Serializable, addition, |addition, tx| Box::pin(pods::add(tx, addition))).await
    }

    async fn pod(&self, id: PodId) -> Result<Option<Pod>> {
        self.0.read(id, |id, tx| Box::pin(pods::one(tx, *id))).await
    }

    async fn pods_of(&self, job: JobId) -> Result<Vec<Pod>> {
        self.0.read(job, |job, tx| Box::pin(pods::of_job(tx, *job))).await
    }

    async fn pods_on(&self, worker: WorkerId) -> Result<Vec<Pod>> {
        self.0.read(worker, |worker, tx| Box::pin(pods::on_worker(tx, *worker))).await
    }

    async fn pod_change(&self, id: PodId, change: &PodChange, events: &[Event]) -> Result<bool> {
        let arguments = (id, change.clone(), events.to_vec());
        self.0
            .write(Serializable, arguments, |(id, change, events), tx| Box::pin(pods::change(tx, *id, change, events)))
            .await
    }

    async fn usage_put(&self, pod: PodId, usage: &SignedUsage) -> Result<()> {
        self.0.write(Serializable, (pod, *usage), |(pod, usage), tx| Box::pin(pods::usage_put(tx, *pod, usage))).await
    }

    async fn observations_put(&self, seen: &BTreeMap<PodId, Observation>) -> Result<()> {
        self.0.write(Serializable, seen.clone(), |seen, tx| Box::pin(meters::observations_put(tx, seen))).await
    }

    async fn commands_add(&self, commands: &[Command]) -> Result<()> {
        self.0.write(Serializable, commands.to_vec(), |commands, tx| Box::pin(pods::commands_add(tx, commands))).await
    }

    async fn commands_open(&self, worker: WorkerId, limit: u32) -> Result<Vec<Command>> {
        self.0.read((worker, limit), |(worker, limit), tx| Box::pin(pods::commands_open(tx, *worker, *limit))).await
    }

    async fn workers_commanded(&self) -> Result<Vec<WorkerId>> {
        self.0.read((), |(), tx| Box::pin(pods::workers_commanded(tx))).await
    }

    async fn command_answer(&self, worker: WorkerId, id: CommandId, answer: &CommandAnswer) -> Result<bool> {
        self.0
            .write(Serializable, (worker, id, answer.clone()), |(worker, id, answer), tx| {
                Box::pin(pods::command_answer(tx, *worker, *id, answer))
            })
            .await
    }

    async fn command(&self, id: CommandId) -> Result<Option<(Command, Option<CommandAnswer>)>> {
        self.0.read(id, |id, tx| Box::pin(pods::command_one(tx, *id))).await
    }

    async fn chain_tx_put(&self, tx: &ChainTx) -> Result<ChainTx> {
        self.0.write(Serializable, tx.clone(), |new, tx| Box::pin(chain::put(tx, new))).await
    }

    async fn chain_tx(&self, key: &str) -> Result<Option<ChainTx>> {
        self.0.read(key.to_owned(), |key, tx| Box::pin(chain::latest(tx, key))).await
    }

    async fn chain_txs_of(&self, job: JobId) -> Result<Vec<ChainTx>> {
        self.0.read(job, |job, tx| Box::pin(chain::of_job(tx, *job))).await
    }

    async fn chain_txs_pending(&self) -> Result<Vec<ChainTx>> {
        self.0.read((), |(), tx| Box::pin(chain::pending(tx))).await
    }

    async fn chain_tx_state(&self, signature: &str, state: ChainTxState, error: &str, told: &[Event]) -> Result<()> {
        let arguments = (signature.to_owned(), state, error.to_owned(), told.to_vec());
        self.0
            .write(Serializable, arguments, |(signature, state, error, told), tx| {
                Box::pin(chain::state(tx, signature, *state, error, told))
            })
            .await
    }

    async fn chain_tx_gone(&self, signature: &str) -> Result<()> {
        self.0.write(Serializable, signature.to_owned(), |signature, tx| Box::pin(chain::gone(tx, signature))).await
    }

    async fn epoch_put(&self, epoch: &Epoch) -> Result<Epoch> {
        self.0.write(Serializable, epoch.clone(), |epoch, tx| Box::pin(chain::epoch_put(tx, epoch))).await
    }

    async fn epoch_latest(&self) -> Result<Option<Epoch>> {
        self.0.read((), |(), tx| Box::pin(chain::epoch_latest(tx))).await
    }

    async fn epoch_with_lease(&self, lease: &Address) -> Result<Option<Epoch>> {
        self.epoch_with_lease_up_to(lease, i64::MAX.cast_unsigned()).await
    }

    async fn epoch_with_lease_up_to(&self, lease: &Address, index: u64) -> Result<Option<Epoch>> {
        self.0.read((*lease, index), |(lease, index), tx| Box::pin(chain::epoch_with_lease(tx, lease, *index))).await
    }

    async fn receipt_put(&self, job: JobId, sha256: &Digest, receipt: &str) -> Result<()> {
        let arguments = (job, *sha256, receipt.to_owned());
        self.0
            .write(Serializable, arguments, |(job, sha256, receipt), tx| {
                Box::pin(chain::receipt_put(tx, *job, sha256, receipt))
            })
            .await
    }

    async fn receipt(&self, job: JobId) -> Result<Option<String>> {
        self.0.read(job, |job, tx| Box::pin(chain::receipt(tx, *job))).await
    }

    async fn job_origin(&self, job: JobId) -> Result<Origin> {
        self.0.read(job, |job, tx| Box::pin(adopt::origin(tx, *job))).await
    }

    async fn job_adopt(&self, new: &AdoptedJob) -> Result<Job> {
        self.0.write(Serializable, new.clone(), |new, tx| Box::pin(adopt::job(tx, new))).await
    }

    async fn stray_put(&self, stray: &Stray) -> Result<()> {
        self.0.write(Serializable, stray.clone(), |stray, tx| Box::pin(adopt::stray_put(tx, stray))).await
    }

    async fn stray(&self, pod: PodId) -> Result<Option<Stray>> {
        self.0.read(pod, |pod, tx| Box::pin(adopt::stray_one(tx, *pod))).await
    }

    async fn strays_on(&self, worker: WorkerId) -> Result<Vec<Stray>> {
        self.0.read(worker, |worker, tx| Box::pin(adopt::strays_on(tx, *worker))).await
    }

    async fn strays_of(&self, order: &Address) -> Result<Vec<Stray>> {
        self.0.read(*order, |order, tx| Box::pin(adopt::strays_of(tx, order))).await
    }

    async fn stray_orders(&self) -> Result<Vec<Address>> {
        self.0.read((), |(), tx| Box::pin(adopt::stray_orders(tx))).await
    }

    async fn strays_drop(&self, order: &Address, before: UnixMs) -> Result<()> {
        let arguments = (*order, before);
        self.0
            .write(Serializable, arguments, |(order, before), tx| Box::pin(adopt::strays_drop(tx, order, *before)))
            .await
    }

    async fn node_beat(&self, beat: &Beat) -> Result<()> {
        self.0.write(Serializable, beat.clone(), |beat, tx| Box::pin(nodes::beat(tx, beat))).await
    }

    async fn news(&self, commands_after: u64) -> Result<News> {
        self.0.read(commands_after, |after, tx| Box::pin(nodes::news(tx, *after))).await
    }

    async fn last_command(&self) -> Result<u64> {
        self.0.read((), |(), tx| Box::pin(nodes::last_command(tx))).await
    }

    async fn links(&self) -> Result<BTreeMap<WorkerId, Held>> {
        let links = self.0.read((), |(), tx| Box::pin(nodes::links(tx))).await?;
        Ok(links.into_iter().collect())
    }

    async fn nodes_drop(&self, nodes: &[NodeId]) -> Result<()> {
        self.0.write(Serializable, nodes.to_vec(), |nodes, tx| Box::pin(nodes::drop_all(tx, nodes))).await
    }

    async fn pod_lose(&self, id: PodId, seen: Option<Held>, change: &PodChange, events: &[Event]) -> Result<bool> {
        let arguments = (id, seen, change.clone(), events.to_vec());
        self.0
            .write(Serializable, arguments, |(id, seen, change, events), tx| {
                Box::pin(nodes::pod_lose(tx, *id, *seen, change, events))
            })
            .await
    }

    async fn network_pin(&self, pin: &NetworkPin) -> Result<NetworkPin> {
        self.0.write(Serializable, *pin, |pin, tx| Box::pin(nodes::network_pin(tx, pin))).await
    }

    async fn network(&self) -> Result<Option<NetworkPin>> {
        self.0.read((), |(), tx| Box::pin(nodes::network(tx))).await
    }

    async fn beat(&self) -> Result<()> {
        self.0.write(ReadCommitted, self.0.build().clone(), |build, tx| Box::pin(builds::beat(tx, build))).await
    }

    async fn ping(&self) -> Result<()> {
        // A table of ours, not just the server: a database without its schema does not answer for the store.
        self.0
            .read((), |(), tx| {
                Box::pin(async move { tx.query("select max(number) from atoll_schema", &[]).await.map(drop) })
            })
            .await
    }
}

impl<E: Engine> Sql<E> {
    /// In a transaction of its own: it may overlap with anything and must not make a submission collide.
    async fn nonces_drop(&self, now: UnixMs) -> Result<()> {
        self.0.write(ReadCommitted, now, |now, tx| Box::pin(users::nonces_drop(tx, *now))).await
    }
}
